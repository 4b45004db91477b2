//! RTCP (RFC 3550 §6, RFC 4585): reads what publishers send, writes what we send back.

use bytes::Bytes;

/// What a session cares about in a compound packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rtcp {
    SenderReport { ssrc: u32, ntp: Ntp, rtp: u32, packets: u32 },
    Cname { ssrc: u32, cname: Bytes },
    Bye { ssrc: u32 },
}

/// An NTP timestamp: seconds since 1900 in the upper half, fraction in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ntp(pub u64);

impl Ntp {
    /// Seconds from the NTP epoch (1900) to Unix's (1970).
    const UNIX: i64 = 2_208_988_800;

    /// Microseconds since the Unix epoch. Era 0 ends in 2036: small second counts are taken as era 1.
    pub fn unix_micros(self) -> i64 {
        let seconds = (self.0 >> 32) as i64;
        let seconds = if seconds < Self::UNIX { seconds + (1 << 32) } else { seconds };
        let micros = ((self.0 & 0xffff_ffff) * 1_000_000) >> 32;
        (seconds - Self::UNIX) * 1_000_000 + micros as i64
    }

    pub fn from_unix_micros(micros: i64) -> Self {
        let seconds = (micros.div_euclid(1_000_000) + Self::UNIX) as u64 & 0xffff_ffff;
        // Rounded up, so that reading it back gives the same microsecond.
        let fraction = ((micros.rem_euclid(1_000_000) as u64) << 32).div_ceil(1_000_000);
        Self((seconds << 32) | fraction)
    }

    /// The middle 32 bits, as report blocks quote it.
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// One reception report block (§6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that is reported on.
    pub ssrc: u32,
    /// Since the last report, of 256.
    pub fraction_lost: u8,
    pub cumulative_lost: i32,
    /// Wraps in the upper half.
    pub highest_sequence: u32,
    pub jitter: u32,
    pub last_sr: u32,
    /// In 1/65536 s.
    pub delay_since_last_sr: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed RTCP")]
pub struct Malformed;

/// Items kept of one datagram; what is over is a lie or not for us.
const MAX_ITEMS: usize = 64;

/// Reads a compound packet. Reduced-size packets (RFC 5506) are taken too; unknown types are skipped.
pub fn parse(datagram: &Bytes) -> Result<Vec<Rtcp>, Malformed> {
    let mut out = Vec::new();
    let mut at = 0;
    if datagram.is_empty() {
        return Err(Malformed);
    }
    while at < datagram.len() {
        let head: [u8; 4] = datagram.get(at..at + 4).and_then(|h| h.try_into().ok()).ok_or(Malformed)?;
        if head[0] >> 6 != 2 {
            return Err(Malformed);
        }
        let count = usize::from(head[0] & 0x1f);
        let length = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let body = datagram.get(at + 4..at + 4 + length).ok_or(Malformed)?;
        match head[1] {
            200 => {
                let (Some(ssrc), Some(high), Some(low), Some(rtp), Some(packets)) =
                    (word(body, 0), word(body, 4), word(body, 8), word(body, 12), word(body, 16))
                else {
                    return Err(Malformed);
                };
                let ntp = Ntp((u64::from(high) << 32) | u64::from(low));
                out.push(Rtcp::SenderReport { ssrc, ntp, rtp, packets });
            }
            202 => {
                let mut p = 0;
                for _ in 0..count {
                    let ssrc = word(body, p).ok_or(Malformed)?;
                    p += 4;
                    loop {
                        let kind = *body.get(p).ok_or(Malformed)?;
                        if kind == 0 {
                            // §6.5: the list ends with zeros up to the next word.
                            p = (p / 4 + 1) * 4;
                            break;
                        }
                        let size = usize::from(*body.get(p + 1).ok_or(Malformed)?);
                        let start = at + 4 + p + 2;
                        if body.len() < p + 2 + size {
                            return Err(Malformed);
                        }
                        if kind == 1 {
                            out.push(Rtcp::Cname { ssrc, cname: datagram.slice(start..start + size) });
                        }
                        p += 2 + size;
                    }
                }
            }
            203 => {
                for i in 0..count {
                    out.push(Rtcp::Bye { ssrc: word(body, 4 * i).ok_or(Malformed)? });
                }
            }
            _ => {}
        }
        if out.len() > MAX_ITEMS {
            return Err(Malformed);
        }
        at += 4 + length;
    }
    Ok(out)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// Picture Loss Indication (RFC 4585 §6.3.1).
pub fn write_pli(sender: u32, media: u32) -> Vec<u8> {
    let mut out = vec![0x80 | 1, 206, 0, 2];
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    out
}

/// Generic NACK (RFC 4585 §6.2.1): each entry asks for one packet and any of the 16 after it.
pub fn write_nack(sender: u32, media: u32, seqs: &[u16]) -> Vec<u8> {
    let mut entries: Vec<(u16, u16)> = Vec::new();
    for &seq in seqs {
        match entries.last_mut() {
            Some((first, mask)) if (1..=16).contains(&seq.wrapping_sub(*first)) => {
                *mask |= 1 << (seq.wrapping_sub(*first) - 1);
            }
            _ => entries.push((seq, 0)),
        }
    }
    let mut out = vec![0x80 | 1, 205];
    out.extend_from_slice(&(2 + entries.len() as u16).to_be_bytes());
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    for (first, mask) in entries {
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
    }
    out
}

/// Receiver report with up to 31 blocks (§6.4.2).
pub fn write_receiver_report(sender: u32, blocks: &[ReportBlock]) -> Vec<u8> {
    let blocks = blocks.get(..31).unwrap_or(blocks);
    let mut out = vec![0x80 | blocks.len() as u8, 201];
    out.extend_from_slice(&(1 + 6 * blocks.len() as u16).to_be_bytes());
    out.extend_from_slice(&sender.to_be_bytes());
    for b in blocks {
        out.extend_from_slice(&b.ssrc.to_be_bytes());
        let lost = b.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        out.extend_from_slice(&((u32::from(b.fraction_lost) << 24) | lost).to_be_bytes());
        for w in [b.highest_sequence, b.jitter, b.last_sr, b.delay_since_last_sr] {
            out.extend_from_slice(&w.to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sender_report(ssrc: u32, ntp: Ntp, rtp: u32) -> Vec<u8> {
        let mut out = vec![0x80, 200, 0, 6];
        out.extend(ssrc.to_be_bytes());
        out.extend(ntp.0.to_be_bytes());
        out.extend(rtp.to_be_bytes());
        out.extend([0, 0, 0, 5, 0, 0, 0, 9]);
        out
    }

    #[test]
    fn a_compound_packet_is_read() {
        let ntp = Ntp::from_unix_micros(1_790_000_000_123_456);
        let mut d = sender_report(1, ntp, 77);
        d.extend([0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'x', 0]);
        d.extend([0x81, 203, 0, 1, 0, 0, 0, 1]);
        assert_eq!(
            parse(&d.into()).unwrap(),
            vec![
                Rtcp::SenderReport { ssrc: 1, ntp, rtp: 77, packets: 5 },
                Rtcp::Cname { ssrc: 1, cname: Bytes::from_static(b"x") },
                Rtcp::Bye { ssrc: 1 },
            ]
        );
    }

    #[test]
    fn ntp_keeps_microseconds_in_both_eras() {
        for t in [0, 1_790_000_000_123_456, 2_085_978_495_999_999, 2_085_978_496_000_000, 2_200_000_000_000_001] {
            assert_eq!(Ntp::from_unix_micros(t).unix_micros(), t);
        }
    }

    #[test]
    fn feedback_has_the_bytes_of_the_rfc() {
        assert_eq!(write_pli(1, 2), [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(
            write_nack(1, 2, &[65_535, 0, 15, 16]),
            [0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 255, 255, 0x80, 0x01, 0, 16, 0, 0]
        );
        let rr = write_receiver_report(9, &[ReportBlock { ssrc: 2, cumulative_lost: -1, ..Default::default() }]);
        assert_eq!(rr.len(), 32);
        assert_eq!(rr[3], 7);
        assert_eq!(rr[12..16], [0, 255, 255, 255]);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(d in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&d.into());
        }

        #[test]
        fn damaged_reports_never_panic(cut in 0usize..29, flip in 0usize..28, to: u8) {
            let mut d = sender_report(1, Ntp(5 << 32), 7);
            d[flip] = to;
            d.truncate(cut);
            let _ = parse(&d.into());
        }
    }
}
