//! AAC in RTP (RFC 3640, modes AAC-hbr and AAC-lbr) and the AudioSpecificConfig (ISO 14496-3 §1.6.2.1).

use bytes::{Bytes, BytesMut};
use media::AacConfig;

use crate::rtp::RtpPacket;

/// A raw AAC frame and its unwrapped timestamp in ticks of the RTP clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AacFrame {
    pub ts: i64,
    pub data: Bytes,
}

/// The packet breaks RFC 3640 or uses what we do not: interleaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

pub struct AacDepacketizer {
    size_length: u32,
    index_length: u32,
    index_delta_length: u32,
    /// Ticks of the RTP clock that a frame lasts.
    frame_ticks: i64,
    fragment: Option<Fragment>,
}

/// A frame that is larger than a packet (§3.2.3.2): at most 64 KB, since its size has 16 bits at most.
struct Fragment {
    ts: i64,
    size: usize,
    data: BytesMut,
}

/// Frames of one packet: 64 KB hold no more real ones, and a lie must not make thousands of empty slices.
const MAX_FRAMES: usize = 128;

impl AacDepacketizer {
    pub fn new(config: &AacConfig, clock_rate: u32, size_length: u8, index_length: u8, index_delta_length: u8) -> Self {
        let frame_ticks =
            i64::from(config.frame_samples) * i64::from(clock_rate) / i64::from(config.sample_rate.max(1));
        Self {
            size_length: u32::from(size_length.min(16)),
            index_length: u32::from(index_length.min(16)),
            index_delta_length: u32::from(index_delta_length.min(16)),
            frame_ticks,
            fragment: None,
        }
    }

    /// Packets before the next one are missing for good.
    pub fn lost(&mut self) {
        self.fragment = None;
    }

    /// The next packet in sequence.
    pub fn push(&mut self, packet: &RtpPacket, ts: i64) -> Result<Vec<AacFrame>, Malformed> {
        let payload = &packet.payload;
        // §3.2.1: the AU headers' length in bits, the headers, padding to a byte, then the data.
        let bits = u16::from_be_bytes(payload.first_chunk::<2>().copied().ok_or(Malformed)?) as usize;
        let headers = payload.get(2..2 + bits.div_ceil(8)).ok_or(Malformed)?;
        let data = payload.slice(2 + bits.div_ceil(8)..);
        let mut sizes = Vec::new();
        let mut at = 0;
        while at < bits {
            let index_bits = if sizes.is_empty() { self.index_length } else { self.index_delta_length };
            let need = (self.size_length + index_bits) as usize;
            if need == 0 || at + need > bits || sizes.len() == MAX_FRAMES {
                return Err(Malformed);
            }
            let size = read_bits(headers, at, self.size_length);
            if read_bits(headers, at + self.size_length as usize, index_bits) != 0 {
                return Err(Malformed);
            }
            sizes.push(size as usize);
            at += need;
        }
        if let Some(mut fragment) = self.fragment.take() {
            // The same header is repeated in every fragment's packet.
            if fragment.ts == ts && sizes == [fragment.size] && fragment.data.len() + data.len() <= fragment.size {
                fragment.data.extend_from_slice(&data);
                if fragment.data.len() == fragment.size {
                    return Ok(vec![AacFrame { ts, data: fragment.data.freeze() }]);
                }
                if packet.marker {
                    return Err(Malformed);
                }
                self.fragment = Some(fragment);
                return Ok(vec![]);
            }
        }
        if let [size] = sizes[..]
            && size > data.len()
        {
            if packet.marker || data.is_empty() {
                return Err(Malformed);
            }
            self.fragment = Some(Fragment { ts, size, data: BytesMut::from(&data[..]) });
            return Ok(vec![]);
        }
        let mut frames = Vec::with_capacity(sizes.len());
        let mut start = 0;
        for (i, size) in sizes.into_iter().enumerate() {
            if size == 0 || start + size > data.len() {
                return Err(Malformed);
            }
            frames.push(AacFrame { ts: ts + self.frame_ticks * i as i64, data: data.slice(start..start + size) });
            start += size;
        }
        Ok(frames)
    }
}

/// Bits `at..at + n` of `data`, n <= 16; the caller has checked that they are there.
fn read_bits(data: &[u8], at: usize, n: u32) -> u32 {
    (at..at + n as usize)
        .fold(0, |value, i| value << 1 | u32::from(data.get(i / 8).copied().unwrap_or(0) >> (7 - i % 8) & 1))
}

/// Reads an AudioSpecificConfig; the message is for the operator who wrote the SDP.
pub fn parse_config(asc: Bytes) -> Result<AacConfig, &'static str> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let total = asc.len() * 8;
    let mut at = 0;
    let mut take = |n: u32| -> Result<u32, &'static str> {
        if at + n as usize > total {
            return Err("the AudioSpecificConfig is too short");
        }
        // In pieces, since the helper reads up to 16 bits.
        let high = n.saturating_sub(16);
        let value = read_bits(&asc, at, high) << (n - high) | read_bits(&asc, at + high as usize, n - high);
        at += n as usize;
        Ok(value)
    };
    let rate = |take: &mut dyn FnMut(u32) -> Result<u32, &'static str>| match take(4)? {
        15 => take(24),
        i => RATES.get(i as usize).copied().ok_or("the AudioSpecificConfig's sampling frequency is reserved"),
    };
    let object_type = take(5)?;
    // The core's rate: explicit SBR (5) and PS (29) double it afterwards, and a frame is 1024 samples of the core.
    let sample_rate = rate(&mut take)?;
    let channels = match take(4)? {
        n @ 1..=6 => n as u8,
        7 => 8,
        _ => return Err("the AudioSpecificConfig's channel configuration is not one of 1 to 7"),
    };
    if matches!(object_type, 5 | 29) {
        rate(&mut take)?;
        if take(5)? != 2 {
            return Err("only AAC-LC and HE-AAC are supported");
        }
    } else if object_type != 2 {
        return Err("only AAC-LC and HE-AAC are supported");
    }
    let frame_samples = if take(1)? == 1 { 960 } else { 1024 };
    if !(7_350..=96_000).contains(&sample_rate) {
        return Err("the AudioSpecificConfig's sampling frequency is out of bounds");
    }
    Ok(AacConfig { asc, sample_rate, channels, object_type: object_type as u8, frame_samples })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn depacketizer() -> AacDepacketizer {
        let config = parse_config(Bytes::from_static(&[0x12, 0x10])).unwrap();
        AacDepacketizer::new(&config, 44_100, 13, 3, 3)
    }

    fn packet(marker: bool, payload: Vec<u8>) -> RtpPacket {
        RtpPacket {
            payload_type: 97,
            marker,
            sequence: 0,
            timestamp: 0,
            ssrc: 0,
            extension: None,
            payload: payload.into(),
        }
    }

    #[test]
    fn the_config_of_ffmpeg_is_read() {
        let c = parse_config(Bytes::from_static(&[0x12, 0x08, 0x56, 0xe5, 0x00])).unwrap();
        assert_eq!((c.object_type, c.sample_rate, c.channels, c.frame_samples), (2, 44_100, 1, 1024));
        // Explicit SBR: 24 kHz core, 48 kHz out.
        let c = parse_config(Bytes::from_static(&[0x2b, 0x11, 0x88, 0x00])).unwrap();
        assert_eq!((c.object_type, c.sample_rate, c.channels), (5, 24_000, 2));
        assert!(parse_config(Bytes::from_static(&[0x12])).is_err());
        assert!(parse_config(Bytes::from_static(&[0x0a, 0x10])).is_err());
        assert!(parse_config(Bytes::from_static(&[0x12, 0x00])).is_err());
    }

    #[test]
    fn several_frames_of_a_packet_follow_each_other() {
        let mut d = depacketizer();
        let frames = d.push(&packet(true, vec![0, 32, 0, 16, 0, 24, 1, 2, 3, 4, 5]), 1000).unwrap();
        assert_eq!(
            frames,
            [
                AacFrame { ts: 1000, data: Bytes::from_static(&[1, 2]) },
                AacFrame { ts: 2024, data: Bytes::from_static(&[3, 4, 5]) }
            ]
        );
    }

    #[test]
    fn a_fragmented_frame_is_joined_and_a_torn_one_dropped() {
        let mut d = depacketizer();
        assert_eq!(d.push(&packet(false, vec![0, 16, 0, 32, 1, 2]), 5), Ok(vec![]));
        let whole = d.push(&packet(true, vec![0, 16, 0, 32, 3, 4]), 5).unwrap();
        assert_eq!(whole, [AacFrame { ts: 5, data: Bytes::from_static(&[1, 2, 3, 4]) }]);
        assert_eq!(d.push(&packet(false, vec![0, 16, 0, 32, 1, 2]), 6), Ok(vec![]));
        d.lost();
        assert_eq!(d.push(&packet(true, vec![0, 16, 0, 32, 3, 4]), 6), Err(Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            packets in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
            config in prop::collection::vec(any::<u8>(), 0..12)
        ) {
            let mut d = depacketizer();
            for (marker, payload) in packets {
                let _ = d.push(&packet(marker, payload), 0);
            }
            let _ = parse_config(config.into());
        }
    }
}
