//! A clip as RTP payloads: H.264 out of a raw stream (Annex B), AAC out of ADTS, packetized once and sent again and again.

use std::ops::Range;

/// Bytes of RTP payload in a packet, as ffmpeg sends them: 1,472 in a datagram, 1,500 in an IP packet.
const PAYLOAD: usize = 1460;

/// One access unit's packets.
pub type Unit = Vec<Packet>;

/// A packet's payload: what it adds in front, then bytes of the clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub marker: bool,
    pub front: Vec<u8>,
    pub bytes: Range<usize>,
}

/// The access units of an H.264 stream (RFC 6184, single NAL units and FU-A). The first NAL unit must begin a GOP.
pub fn h264(stream: &[u8]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut pictured = true;
    for nal in nal_units(stream) {
        let Some(&header) = stream.get(nal.start) else { continue };
        let picture = matches!(header & 0x1f, 1..=5);
        // A picture's later slices do not begin at its first macroblock: the first bit of Exp-Golomb 0 is set (7.3.3).
        let later_slice = picture && stream.get(nal.start + 1).is_some_and(|b| b & 0x80 == 0);
        if pictured && !later_slice {
            units.push(Unit::new());
            pictured = false;
        }
        pictured |= picture;
        if let Some(unit) = units.last_mut() {
            add_nal_unit(unit, header, nal);
        }
    }
    for unit in &mut units {
        if let Some(last) = unit.last_mut() {
            last.marker = true;
        }
    }
    units
}

fn add_nal_unit(unit: &mut Unit, header: u8, nal: Range<usize>) {
    if nal.len() <= PAYLOAD {
        return unit.push(Packet { marker: false, front: Vec::new(), bytes: nal });
    }
    // RFC 6184 §5.8: the NAL unit's header is spread over the fragments' two bytes.
    let (mut at, end) = (nal.start + 1, nal.end);
    while at < end {
        let next = (at + PAYLOAD - 2).min(end);
        let first = if at == nal.start + 1 { 0x80 } else { 0 };
        let last = if next == end { 0x40 } else { 0 };
        let front = vec![header & 0xe0 | 28, first | last | header & 0x1f];
        unit.push(Packet { marker: false, front, bytes: at..next });
        at = next;
    }
}

/// NAL units between start codes (H.264 Annex B).
fn nal_units(stream: &[u8]) -> Vec<Range<usize>> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(found) = stream.get(at..).and_then(|rest| rest.windows(3).position(|w| w == [0, 0, 1])) {
        starts.push(at + found + 3);
        at += found + 3;
    }
    let ends = starts.iter().skip(1).map(|next| next - 3).chain([stream.len()]);
    let trimmed = starts.iter().zip(ends).map(|(&start, end)| {
        let body = stream.get(start..end).unwrap_or(&[]);
        // A start code may have a fourth byte, and zeros may follow any NAL unit.
        start..start + body.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)
    });
    trimmed.filter(|nal| !nal.is_empty()).collect()
}

/// AAC frames and what the SDP says about them.
#[derive(Debug, PartialEq, Eq)]
pub struct Aac {
    pub frames: Vec<Unit>,
    pub rate: u32,
    pub channels: u8,
    /// AudioSpecificConfig (ISO 14496-3 §1.6.2.1).
    pub config: [u8; 2],
}

/// The frames of an ADTS stream (ISO 14496-3 §1.A.2), one a packet (RFC 3640, AAC-hbr). None where it is not one.
pub fn aac(stream: &[u8]) -> Option<Aac> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let mut frames = Vec::new();
    let mut format = None;
    let mut at = 0;
    while let Some(head) = stream.get(at..).and_then(|rest| rest.first_chunk::<7>()) {
        if head[0] != 0xff || head[1] & 0xf6 != 0xf0 {
            return None;
        }
        let length = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5]) >> 5;
        let front = if head[1] & 1 == 0 { 9 } else { 7 };
        let size = length.checked_sub(front).filter(|_| at + length <= stream.len())?;
        let (profile, rate, channels) = (head[2] >> 6, head[2] >> 2 & 0x0f, (head[2] & 1) << 2 | head[3] >> 6);
        format.get_or_insert((profile, rate, channels));
        // One AU header of 16 bits: the size in 13, the index in 3.
        let header = u16::try_from(size << 3).ok()?.to_be_bytes();
        let bytes = at + front..at + length;
        frames.push(vec![Packet { marker: true, front: vec![0, 16, header[0], header[1]], bytes }]);
        at += length;
    }
    let (profile, rate, channels) = format?;
    let config = [(profile + 1) << 3 | rate >> 1, rate << 7 | channels << 3];
    Some(Aac { frames, rate: *RATES.get(usize::from(rate))?, channels, config })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn access_units_are_told_apart_and_large_nal_units_fragmented() {
        let mut stream = vec![0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 0x80];
        stream.extend(vec![7; 3000]);
        stream.extend([0, 0, 1, 0x65, 0x40, 5]); // the same picture's second slice
        stream.extend([0, 0, 0, 1, 0x41, 0x9a, 3, 0, 0, 0, 1, 0x41, 0x9b]);
        let units = h264(&stream);
        let shape: Vec<Vec<(bool, usize)>> =
            units.iter().map(|u| u.iter().map(|p| (p.marker, p.front.len() + p.bytes.len())).collect()).collect();
        assert_eq!(shape[0], [(false, 2), (false, 2), (false, 1460), (false, 1460), (false, 87), (true, 3)]);
        assert_eq!(shape[1..], [[(true, 3)], [(true, 2)]]);
        assert_eq!(
            (units[0][2].front.as_slice(), units[0][4].front.as_slice()),
            (&[0x7c, 0x85][..], &[0x7c, 0x45][..])
        );
        let joined: usize = units[0][2..5].iter().map(|p| p.bytes.len()).sum();
        assert_eq!(joined, 3001, "all but the header");
    }

    #[test]
    fn adts_frames_become_packets() {
        // AAC-LC, 48 kHz, stereo, 7 + 3 bytes.
        let frame = [0xff, 0xf1, 0x4c, 0x80, 0x01, 0x5f, 0xfc, 1, 2, 3];
        let aac = aac(&[frame, frame].concat()).unwrap();
        assert_eq!((aac.rate, aac.channels, aac.config), (48_000, 2, [0x11, 0x90]));
        let packet = |bytes| vec![Packet { marker: true, front: vec![0, 16, 0, 24], bytes }];
        assert_eq!(aac.frames, [packet(7..10), packet(17..20)]);
        assert_eq!(super::aac(&frame[..9]), None);
        assert_eq!(super::aac(b"RIFFWAVE"), None);
    }
}
