//! The RTP fixed header (RFC 3550 §5.1), its extensions (RFC 8285) and padding; payloads are not copied.

use bytes::{Buf, Bytes};

/// An RTP packet whose header made sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpPacket {
    pub payload_type: u8,
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Profile and data of the header extension, if there is one.
    pub extension: Option<(u16, Bytes)>,
    /// Without padding.
    pub payload: Bytes,
}

/// Why a datagram is not RTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than its header says")]
    Short,
    #[error("version is not 2")]
    Version,
    #[error("padding longer than the payload")]
    Padding,
    #[error("this is RTCP")]
    Rtcp,
}

/// RFC 5761 §4: on a shared port, these payload types (without the marker bit) are RTCP's packet types.
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram.get(1), Some(192..=223))
}

impl RtpPacket {
    pub fn parse(datagram: Bytes) -> Result<Self, Malformed> {
        let head: [u8; 12] = datagram.get(..12).and_then(|h| h.try_into().ok()).ok_or(Malformed::Short)?;
        let [first, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = head;
        if first >> 6 != 2 {
            return Err(Malformed::Version);
        }
        if is_rtcp(&datagram) {
            return Err(Malformed::Rtcp);
        }
        let mut start = 12 + 4 * usize::from(first & 0x0f);
        let mut extension = None;
        if first & 0x10 != 0 {
            // §5.3.1: profile, then the length in 32-bit words without these four bytes.
            let head: [u8; 4] =
                datagram.get(start..start + 4).and_then(|h| h.try_into().ok()).ok_or(Malformed::Short)?;
            let length = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            start += 4;
            if datagram.len() < start + length {
                return Err(Malformed::Short);
            }
            extension = Some((u16::from_be_bytes([head[0], head[1]]), datagram.slice(start..start + length)));
            start += length;
        }
        let mut end = datagram.len();
        if end < start {
            return Err(Malformed::Short);
        }
        if first & 0x20 != 0 {
            // The last byte counts the padding, itself included; a lie here was a panic elsewhere (CVE-2025-49140).
            let padding = usize::from(datagram.last().copied().unwrap_or(0));
            if padding == 0 || padding > end - start {
                return Err(Malformed::Padding);
            }
            end -= padding;
        }
        // Not a slice of it: a second reference would have to be counted, in an allocation of its own.
        let mut payload = datagram;
        payload.truncate(end);
        payload.advance(start);
        Ok(Self {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            extension,
            payload,
        })
    }

    /// The value of header extension element `id` (RFC 8285, one- and two-byte forms).
    pub fn extension_element(&self, id: u8) -> Option<Bytes> {
        let (profile, data) = self.extension.as_ref()?;
        let two_byte = profile & 0xfff0 == 0x1000;
        if !two_byte && *profile != 0xbede {
            return None;
        }
        let mut at = 0;
        while let Some(&first) = data.get(at) {
            if first == 0 {
                at += 1; // padding
                continue;
            }
            let (this, length, start) = if two_byte {
                (first, usize::from(*data.get(at + 1)?), at + 2)
            } else {
                // §4.2: identifier 15 ends the list.
                if first >> 4 == 15 {
                    return None;
                }
                (first >> 4, usize::from(first & 0x0f) + 1, at + 1)
            };
            if data.len() < start + length {
                return None;
            }
            if this == id {
                return Some(data.slice(start..start + length));
            }
            at = start + length;
        }
        None
    }
}

/// Writes a packet, for tests.
#[cfg(test)]
pub fn write(payload_type: u8, marker: bool, sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(12 + payload.len());
    out.push(0x80);
    out.push(payload_type & 0x7f | if marker { 0x80 } else { 0 });
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(payload);
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let p = RtpPacket::parse(write(96, true, 65_535, 0xffff_fff0, 7, b"abc")).unwrap();
        assert_eq!((p.payload_type, p.marker, p.sequence, p.timestamp, p.ssrc), (96, true, 65_535, 0xffff_fff0, 7));
        assert_eq!(&p.payload[..], b"abc");
    }

    #[test]
    fn csrcs_extension_and_padding_are_taken_off() {
        let mut d = vec![0x80 | 0x20 | 0x10 | 1, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        d.extend([9, 9, 9, 9]); // one CSRC
        d.extend([0xbe, 0xde, 0, 2, 0x10, 0xaa, 0x00, 0x21, 1, 2, 0xf0, 0]);
        d.extend(b"xy");
        d.extend([0, 0, 3]);
        let p = RtpPacket::parse(d.into()).unwrap();
        assert_eq!(&p.payload[..], b"xy");
        assert_eq!(&p.extension_element(1).unwrap()[..], [0xaa]);
        assert_eq!(&p.extension_element(2).unwrap()[..], [1, 2]);
        assert_eq!(p.extension_element(3), None);
    }

    #[test]
    fn lies_are_refused() {
        let parse = |d: &[u8]| RtpPacket::parse(Bytes::copy_from_slice(d)).unwrap_err();
        let head = [0, 0, 0, 1, 0, 0, 0, 2, 0, 3];
        let with = |first, second| [&[first, second][..], &head[..]].concat();
        assert_eq!(parse(&[0x80; 11]), Malformed::Short);
        assert_eq!(parse(&with(0x40, 96)), Malformed::Version);
        assert_eq!(parse(&with(0x8f, 96)), Malformed::Short); // 15 CSRCs past the end
        assert_eq!(parse(&with(0x90, 96)), Malformed::Short); // extension past the end
        assert_eq!(parse(&with(0xa0, 96)), Malformed::Padding); // padding without payload
        assert_eq!(parse(&with(0x80, 200)), Malformed::Rtcp);
        let mut padded = with(0xa0, 96);
        padded.extend([1, 2, 9]);
        assert_eq!(parse(&padded), Malformed::Padding);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(d in prop::collection::vec(any::<u8>(), 0..80), id in 0u8..16) {
            if let Ok(p) = RtpPacket::parse(d.into()) {
                let _ = p.extension_element(id);
            }
        }
    }
}
