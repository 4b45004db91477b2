//! Whose packets a raw RTP port takes: the first source that sends two packets in sequence, until it falls silent.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::packet::RtpPacket;

/// The pinned source must have been silent for so long before another one may take its place.
const SILENCE: Duration = Duration::from_secs(2);
/// Addresses on probation at one time; the oldest makes room.
const MAX_CANDIDATES: usize = 8;
/// Packets kept of each, so that the first picture is not lost to probation.
const MAX_HELD: usize = 8;

pub struct SourcePin {
    /// Source filter of the SDP (RFC 4570); empty lets anyone try.
    allowed: Vec<IpAddr>,
    pinned: Option<(SocketAddr, Instant)>,
    candidates: Vec<Candidate>,
}

struct Candidate {
    address: SocketAddr,
    held: Vec<Held>,
    seen: Instant,
}

struct Held {
    at: Instant,
    sequence: u16,
    ssrc: u32,
    datagram: Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// Pinned just now: these packets are its first ones, with their times of arrival.
    Pinned(Vec<(Instant, Bytes)>),
    OnProbation,
    WrongSource,
    Malformed,
}

impl SourcePin {
    pub fn new(allowed: Vec<IpAddr>) -> Self {
        Self { allowed, pinned: None, candidates: Vec::new() }
    }

    pub fn pinned(&self) -> Option<SocketAddr> {
        self.pinned.map(|(address, _)| address)
    }

    /// Judges a datagram; while a source is pinned nobody else's is looked into.
    pub fn judge(&mut self, now: Instant, from: SocketAddr, datagram: &Bytes) -> Verdict {
        if let Some((address, last)) = &mut self.pinned {
            if *address == from {
                *last = now;
                return Verdict::Accept;
            }
            if now.saturating_duration_since(*last) <= SILENCE {
                return Verdict::WrongSource;
            }
        }
        if !self.allowed.is_empty() && !self.allowed.contains(&from.ip()) {
            return Verdict::WrongSource;
        }
        let Ok(packet) = RtpPacket::parse(datagram.clone()) else { return Verdict::Malformed };
        let at = match self.candidates.iter().position(|c| c.address == from) {
            Some(at) => at,
            None => {
                if self.candidates.len() == MAX_CANDIDATES
                    && let Some(oldest) = (0..MAX_CANDIDATES).min_by_key(|i| self.candidates.get(*i).map(|c| c.seen))
                {
                    self.candidates.swap_remove(oldest);
                }
                self.candidates.push(Candidate { address: from, held: Vec::new(), seen: now });
                self.candidates.len() - 1
            }
        };
        let Some(candidate) = self.candidates.get_mut(at) else { return Verdict::WrongSource };
        candidate.seen = now;
        let in_sequence =
            candidate.held.iter().any(|h| h.ssrc == packet.ssrc && packet.sequence.wrapping_sub(h.sequence) == 1);
        if candidate.held.len() == MAX_HELD {
            candidate.held.remove(0);
        }
        let datagram = datagram.clone();
        candidate.held.push(Held { at: now, sequence: packet.sequence, ssrc: packet.ssrc, datagram });
        if !in_sequence {
            return Verdict::OnProbation;
        }
        let mut held = std::mem::take(&mut candidate.held);
        held.retain(|h| h.ssrc == packet.ssrc);
        self.candidates.clear();
        self.pinned = Some((from, now));
        // In order, since before its first packet a reorder buffer knows no sequence.
        let base = packet.sequence.wrapping_sub(0x4000);
        held.sort_by_key(|h| h.sequence.wrapping_sub(base));
        Verdict::Pinned(held.into_iter().map(|h| (h.at, h.datagram)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::write;
    use super::*;

    fn from(n: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, n], 5000))
    }
    fn p(seq: u16, ssrc: u32) -> Bytes {
        write(96, false, seq, 0, ssrc, b"x")
    }

    #[test]
    fn two_packets_in_sequence_pin_their_source_and_keep_others_out() {
        let (mut pin, t) = (SourcePin::new(vec![]), Instant::now());
        assert_eq!(pin.judge(t, from(1), &p(65_535, 1)), Verdict::OnProbation);
        assert_eq!(pin.judge(t, from(2), &p(7, 2)), Verdict::OnProbation);
        assert_eq!(pin.judge(t, from(1), &p(0, 1)), Verdict::Pinned(vec![(t, p(65_535, 1)), (t, p(0, 1))]));
        assert_eq!(pin.judge(t, from(2), &p(8, 2)), Verdict::WrongSource);
        assert_eq!(pin.judge(t, from(1), &p(1, 1)), Verdict::Accept);
        assert_eq!(pin.pinned(), Some(from(1)));
    }

    #[test]
    fn silence_of_more_than_two_seconds_lets_another_source_in() {
        let (mut pin, t) = (SourcePin::new(vec![]), Instant::now());
        pin.judge(t, from(1), &p(1, 1));
        pin.judge(t, from(1), &p(2, 1));
        assert_eq!(pin.judge(t + SILENCE, from(2), &p(1, 2)), Verdict::WrongSource);
        let later = t + SILENCE + Duration::from_millis(1);
        assert_eq!(pin.judge(later, from(2), &p(1, 2)), Verdict::OnProbation);
        assert!(matches!(pin.judge(later, from(2), &p(2, 2)), Verdict::Pinned(_)));
        assert_eq!(pin.judge(later, from(1), &p(3, 1)), Verdict::WrongSource);
    }

    #[test]
    fn a_source_filter_and_a_bound_hold() {
        let t = Instant::now();
        let mut pin = SourcePin::new(vec![from(3).ip()]);
        assert_eq!(pin.judge(t, from(1), &p(1, 1)), Verdict::WrongSource);
        assert_eq!(pin.judge(t, from(3), &p(1, 1)), Verdict::OnProbation);
        assert_eq!(pin.judge(t, from(3), &Bytes::from_static(b"GET /")), Verdict::Malformed);
        let mut pin = SourcePin::new(vec![]);
        for n in 0..200 {
            assert_eq!(pin.judge(t, from(n), &p(9, 1)), Verdict::OnProbation);
            assert!(pin.candidates.len() <= MAX_CANDIDATES);
        }
    }
}
