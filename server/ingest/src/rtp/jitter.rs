//! The reorder buffer of one source: time-based. What is in order goes on at once; a gap is given up when the packet
//! behind it has waited for the budget.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::packet::RtpPacket;
use super::timestamp::extend_sequence;

/// RFC 3550 §A.1: a jump further ahead or behind is a restart (or an attack) and needs two packets in sequence.
const MAX_DROPOUT: i64 = 3000;
const MAX_MISORDER: i64 = 100;

/// Bounds of what waits behind gaps. 4,096 packets are 50 Mbit/s for the largest budget in use; an access unit of 8 MB
/// sent as a burst fits twice. Beyond, the first gap is given up early.
const MAX_PACKETS: usize = 4096;
const MAX_BYTES: usize = 16 << 20;

/// A missing packet is asked for after this, which lets mere reordering pass.
const NACK_GRACE: Duration = Duration::from_millis(10);
/// And again after this, about a round trip.
const NACK_AGAIN: Duration = Duration::from_millis(60);
const NACK_TRIES: u8 = 5;
/// Missing packets followed up at one time; after a longer burst a key frame is the cheaper repair.
const MAX_NACKS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Accepted,
    /// It fills a gap that had been asked for.
    Repaired,
    Duplicate,
    /// Its gap has been given up already.
    Late,
    /// Far out of sequence; kept aside until the next one confirms it.
    OnProbation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// With its time of arrival.
    Packet(Instant, RtpPacket),
    /// So many packets before the next one are given up.
    Lost(u64),
}

pub struct JitterBuffer {
    budget: Duration,
    /// The sequence number that is to go on next.
    next: Option<u64>,
    highest: u64,
    /// The packet that is next in order and goes on with the next `pop`, while nothing waits: so nearly every packet passes
    /// without a node of the map.
    ready: Option<(Instant, RtpPacket)>,
    waiting: BTreeMap<u64, (Instant, RtpPacket)>,
    bytes: usize,
    /// The last packet that was far out of sequence.
    probation: Option<(Instant, RtpPacket)>,
    /// Both packets of a restart are in `waiting`; the gap in front of them is told once.
    restarted: bool,
    wanted: BTreeMap<u64, Wanted>,
}

struct Wanted {
    at: Instant,
    tries: u8,
}

impl JitterBuffer {
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            next: None,
            highest: 0,
            ready: None,
            waiting: BTreeMap::new(),
            bytes: 0,
            probation: None,
            restarted: false,
            wanted: BTreeMap::new(),
        }
    }

    /// Highest sequence number seen, with its wraps: for receiver reports.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    pub fn insert(&mut self, now: Instant, packet: RtpPacket) -> Inserted {
        let Some(next) = self.next else {
            // A wrap's room in front of the first packet.
            let seq = (1 << 16) + u64::from(packet.sequence);
            self.next = Some(seq);
            self.highest = seq;
            self.keep(seq, now, packet);
            return Inserted::Accepted;
        };
        let seq = extend_sequence(self.highest, packet.sequence);
        let ahead = seq as i64 - self.highest as i64;
        if !(-MAX_MISORDER..=MAX_DROPOUT).contains(&ahead) {
            return self.insert_far(now, packet);
        }
        self.probation = None;
        if seq < next {
            return Inserted::Late;
        }
        if self.waiting.contains_key(&seq) || (seq == next && self.ready.is_some()) {
            return Inserted::Duplicate;
        }
        for missing in self.highest + 1..seq {
            if self.wanted.len() == MAX_NACKS {
                break;
            }
            self.wanted.insert(missing, Wanted { at: now + NACK_GRACE, tries: 0 });
        }
        self.highest = self.highest.max(seq);
        let repaired = self.wanted.remove(&seq).is_some_and(|w| w.tries > 0);
        self.keep(seq, now, packet);
        if repaired { Inserted::Repaired } else { Inserted::Accepted }
    }

    fn insert_far(&mut self, now: Instant, packet: RtpPacket) -> Inserted {
        match self.probation.take() {
            Some((since, first)) if packet.sequence == first.sequence.wrapping_add(1) => {
                // Two in sequence: the sender restarted its numbers. What waits will never be completed.
                let seq = (self.highest & !0xffff) + (2 << 16) + u64::from(first.sequence);
                self.ready = None;
                self.waiting.clear();
                self.wanted.clear();
                self.bytes = 0;
                self.next = Some(seq);
                self.highest = seq + 1;
                self.restarted = true;
                self.keep(seq, since, first);
                self.keep(seq + 1, now, packet);
                Inserted::Accepted
            }
            _ => {
                self.probation = Some((now, packet));
                Inserted::OnProbation
            }
        }
    }

    fn keep(&mut self, seq: u64, now: Instant, packet: RtpPacket) {
        self.bytes += packet.payload.len();
        match self.ready.take() {
            None if self.next == Some(seq) && self.waiting.is_empty() => self.ready = Some((now, packet)),
            ready => {
                self.waiting.extend(self.next.zip(ready));
                self.waiting.insert(seq, (now, packet));
            }
        }
    }

    /// What goes on now, in order.
    pub fn pop(&mut self, now: Instant) -> Option<Released> {
        if std::mem::take(&mut self.restarted) {
            return Some(Released::Lost(1));
        }
        let next = self.next?;
        if let Some((arrived, packet)) = self.ready.take() {
            return Some(self.release(next, arrived, packet));
        }
        let (&first, (arrived, _)) = self.waiting.first_key_value()?;
        if first > next {
            let full = self.waiting.len() > MAX_PACKETS || self.bytes > MAX_BYTES;
            if !full && now < *arrived + self.budget {
                return None;
            }
            self.next = Some(first);
            self.wanted = self.wanted.split_off(&first);
            return Some(Released::Lost(first - next));
        }
        let (_, (arrived, packet)) = self.waiting.pop_first()?;
        Some(self.release(first, arrived, packet))
    }

    fn release(&mut self, seq: u64, arrived: Instant, packet: RtpPacket) -> Released {
        self.bytes = self.bytes.saturating_sub(packet.payload.len());
        self.next = Some(seq + 1);
        Released::Packet(arrived, packet)
    }

    /// Missing packets to ask for now, at most `MAX_NACKS`.
    pub fn nacks(&mut self, now: Instant) -> Vec<u16> {
        let mut due = Vec::new();
        self.wanted.retain(|seq, wanted| {
            if wanted.at <= now {
                if wanted.tries == NACK_TRIES {
                    return false;
                }
                wanted.tries += 1;
                wanted.at = now + NACK_AGAIN;
                due.push(*seq as u16);
            }
            true
        });
        due
    }

    /// When `pop` may have something without another packet.
    pub fn next_release(&self) -> Option<Instant> {
        if let Some((arrived, _)) = &self.ready {
            return Some(*arrived);
        }
        let (first, (arrived, _)) = self.waiting.first_key_value()?;
        if Some(*first) == self.next { Some(*arrived) } else { Some(*arrived + self.budget) }
    }

    pub fn next_nack(&self) -> Option<Instant> {
        self.wanted.values().map(|w| w.at).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Duration = Duration::from_millis(60);

    fn packet(sequence: u16) -> RtpPacket {
        RtpPacket {
            payload_type: 96,
            marker: false,
            sequence,
            timestamp: 0,
            ssrc: 1,
            extension: None,
            payload: Bytes::from_static(b"x"),
        }
    }

    fn drain(j: &mut JitterBuffer, now: Instant) -> Vec<i64> {
        std::iter::from_fn(|| j.pop(now))
            .map(|r| match r {
                Released::Packet(_, p) => p.sequence.into(),
                Released::Lost(n) => -(n as i64),
            })
            .collect()
    }

    #[test]
    fn order_is_restored_at_once_and_across_the_wrap() {
        let (mut j, t) = (JitterBuffer::new(BUDGET), Instant::now());
        j.insert(t, packet(65_534));
        assert_eq!(drain(&mut j, t), [65_534]);
        j.insert(t, packet(1));
        j.insert(t, packet(0));
        assert!(drain(&mut j, t).is_empty());
        assert_eq!(j.insert(t, packet(65_535)), Inserted::Accepted);
        assert_eq!(drain(&mut j, t), [65_535, 0, 1]);
        assert_eq!(j.insert(t, packet(0)), Inserted::Late);
    }

    #[test]
    fn a_gap_is_given_up_after_the_budget_of_the_packet_behind_it() {
        let (mut j, t) = (JitterBuffer::new(BUDGET), Instant::now());
        j.insert(t, packet(1));
        drain(&mut j, t);
        j.insert(t, packet(3));
        assert_eq!(j.insert(t, packet(3)), Inserted::Duplicate);
        assert_eq!(j.next_release(), Some(t + BUDGET));
        assert!(drain(&mut j, t + BUDGET - Duration::from_millis(1)).is_empty());
        assert_eq!(drain(&mut j, t + BUDGET), [-1, 3]);
        assert_eq!(j.insert(t, packet(2)), Inserted::Late);
    }

    #[test]
    fn packets_in_order_and_not_yet_taken_are_told_from_their_duplicates() {
        let (mut j, t) = (JitterBuffer::new(BUDGET), Instant::now());
        assert_eq!(j.insert(t, packet(1)), Inserted::Accepted);
        assert_eq!(j.insert(t, packet(1)), Inserted::Duplicate);
        assert_eq!(j.insert(t, packet(3)), Inserted::Accepted);
        assert_eq!(j.insert(t, packet(1)), Inserted::Duplicate);
        assert_eq!(j.insert(t, packet(2)), Inserted::Accepted);
        assert_eq!(j.next_release(), Some(t));
        assert_eq!(drain(&mut j, t), [1, 2, 3]);
        assert_eq!((j.insert(t, packet(3)), j.bytes), (Inserted::Late, 0));
    }

    #[test]
    fn a_restart_of_the_numbers_needs_two_packets_in_sequence() {
        let (mut j, t) = (JitterBuffer::new(BUDGET), Instant::now());
        j.insert(t, packet(1));
        drain(&mut j, t);
        assert_eq!(j.insert(t, packet(30_000)), Inserted::OnProbation);
        assert_eq!(j.insert(t, packet(2)), Inserted::Accepted);
        assert_eq!(drain(&mut j, t), [2]);
        assert_eq!(j.insert(t, packet(30_001)), Inserted::OnProbation);
        assert_eq!(j.insert(t, packet(30_002)), Inserted::Accepted);
        assert_eq!(drain(&mut j, t), [-1, 30_001, 30_002]);
    }

    #[test]
    fn missing_packets_are_asked_for_after_the_grace_and_then_repeatedly() {
        let (mut j, t) = (JitterBuffer::new(BUDGET * 4), Instant::now());
        j.insert(t, packet(1));
        j.insert(t, packet(4));
        assert!(j.nacks(t).is_empty());
        assert_eq!(j.next_nack(), Some(t + NACK_GRACE));
        assert_eq!(j.nacks(t + NACK_GRACE), [2, 3]);
        assert!(j.nacks(t + NACK_GRACE).is_empty());
        assert_eq!(j.insert(t, packet(2)), Inserted::Repaired);
        assert_eq!(j.nacks(t + NACK_GRACE + NACK_AGAIN), [3]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut j, t) = (JitterBuffer::new(Duration::from_secs(3600)), Instant::now());
        j.insert(t, packet(0));
        drain(&mut j, t);
        for seq in 2..20_000u16 {
            j.insert(t, packet(seq));
            let _ = drain(&mut j, t);
            assert!(j.waiting.len() <= MAX_PACKETS + 1);
        }
    }

    proptest! {
        #[test]
        fn any_order_within_the_budget_comes_out_sorted(
            start: u16, count in 2usize..200, swaps in prop::collection::vec((0usize..200, 0usize..8), 0..60)
        ) {
            let mut seqs: Vec<u16> = (0..count).map(|i| start.wrapping_add(i as u16)).collect();
            for (at, by) in swaps {
                // The first stays first: before it nothing is known.
                let (a, b) = (1 + at % (count - 1), 1 + (at + by) % (count - 1));
                if a.abs_diff(b) < 9 {
                    seqs.swap(a, b);
                }
            }
            let (mut j, t) = (JitterBuffer::new(BUDGET), Instant::now());
            let mut out = vec![];
            for s in &seqs {
                j.insert(t, packet(*s));
                j.insert(t, packet(*s));
                out.extend(drain(&mut j, t));
            }
            let expected: Vec<i64> = (0..count).map(|i| start.wrapping_add(i as u16).into()).collect();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn every_packet_comes_out_once_or_is_counted(seqs in prop::collection::vec(any::<u16>(), 0..300)) {
            let (mut j, t) = (JitterBuffer::new(BUDGET), Instant::now());
            for (i, s) in seqs.into_iter().enumerate() {
                let now = t + Duration::from_millis(i as u64);
                j.insert(now, packet(s));
                drain(&mut j, now);
                j.nacks(now);
                prop_assert!(j.wanted.len() <= MAX_NACKS);
            }
        }
    }
}
