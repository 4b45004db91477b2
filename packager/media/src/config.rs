//! What a decoder must know before the first access unit of a track.

use std::sync::Arc;

use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackKind {
    Video,
    Audio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    H264,
    H265,
    Av1,
    Aac,
    Opus,
}

/// The parameters in force for an access unit. Byte-compared (`==`) to tell a real change from a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackConfig {
    H264(H264Config),
    /// Encoders make it; no publisher brings it.
    H265(H265Config),
    /// Encoders make it; no publisher brings it.
    Av1(Av1Config),
    Aac(AacConfig),
    Opus(OpusConfig),
}

/// H.264 parameter sets (NAL units without start code or length) and what the SPS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct H264Config {
    pub sps: Bytes,
    pub pps: Vec<Bytes>,
    /// Cropped size in pixels, before the sample aspect ratio is applied.
    pub width: u32,
    pub height: u32,
    /// Sample aspect ratio; (1, 1) where the VUI is silent.
    pub sar: (u32, u32),
    /// Frames a decoder may have to hold back to put pictures in order; 0 means DTS = PTS.
    pub reorder_depth: u8,
    /// Frame rate from the VUI as (frames, seconds), where given with fixed_frame_rate or plausible.
    pub frame_rate: Option<(u32, u32)>,
}

/// H.265 as a rendition has it: no reordering, so DTS = PTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct H265Config {
    /// HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.2.1) with all parameter sets.
    pub record: Bytes,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Sample aspect ratio.
    pub sar: (u32, u32),
    /// (frames, seconds), where known.
    pub frame_rate: Option<(u32, u32)>,
}

/// AV1 as a rendition has it: every temporal unit shows one frame, in decoding order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Av1Config {
    /// AV1CodecConfigurationRecord (AV1 in ISOBMFF, 2.3) with the sequence header.
    pub record: Bytes,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Sample aspect ratio.
    pub sar: (u32, u32),
    /// (frames, seconds), where known.
    pub frame_rate: Option<(u32, u32)>,
}

/// AAC as the raw AudioSpecificConfig (ISO 14496-3) and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AacConfig {
    pub asc: Bytes,
    pub sample_rate: u32,
    pub channels: u8,
    /// Audio object type: 2 = LC, 5 = HE-AAC.
    pub object_type: u8,
    /// Samples a frame: 1024, or 960.
    pub frame_samples: u16,
}

/// Opus as RTP carries it (RFC 7587); always 48 kHz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusConfig {
    pub channels: u8,
    /// Samples at 48 kHz to discard at the start of a stream; a live join discards none but must announce it.
    pub pre_skip: u16,
}

impl TrackConfig {
    pub fn kind(&self) -> TrackKind {
        match self {
            Self::H264(_) | Self::H265(_) | Self::Av1(_) => TrackKind::Video,
            Self::Aac(_) | Self::Opus(_) => TrackKind::Audio,
        }
    }

    pub fn codec(&self) -> Codec {
        match self {
            Self::H264(_) => Codec::H264,
            Self::H265(_) => Codec::H265,
            Self::Av1(_) => Codec::Av1,
            Self::Aac(_) => Codec::Aac,
            Self::Opus(_) => Codec::Opus,
        }
    }

    /// Ticks a second of the track's timescale in fMP4: 90,000 for video, the sample rate for audio.
    pub fn timescale(&self) -> u32 {
        match self {
            Self::H264(_) | Self::H265(_) | Self::Av1(_) => 90_000,
            Self::Aac(aac) => aac.sample_rate,
            Self::Opus(_) => 48_000,
        }
    }

    /// Width and height in pixels as they are coded; None for audio.
    pub fn size(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264(c) => Some((c.width, c.height)),
            Self::H265(c) => Some((c.width, c.height)),
            Self::Av1(c) => Some((c.width, c.height)),
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// Width and height to show, in square pixels: the width times the sample aspect ratio. None for audio.
    pub fn display_size(&self) -> Option<(u64, u64)> {
        let sar = match self {
            Self::H264(c) => c.sar,
            Self::H265(c) => c.sar,
            Self::Av1(c) => c.sar,
            Self::Aac(_) | Self::Opus(_) => return None,
        };
        let (width, height) = self.size()?;
        let (num, den) = (u64::from(sar.0.max(1)), u64::from(sar.1.max(1)));
        Some(((u64::from(width) * num + den / 2) / den, height.into()))
    }

    /// The RFC 6381 codecs parameter: `avc1.PPCCLL`, `hvc1.…`, `av01.P.LLT.DD`, `mp4a.40.N`, `opus`.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::H264(c) => match c.sps.get(1..4) {
                Some([profile, constraints, level]) => format!("avc1.{profile:02x}{constraints:02x}{level:02x}"),
                _ => "avc1".to_owned(),
            },
            Self::H265(c) => hvc1(&c.record).unwrap_or_else(|| "hvc1".to_owned()),
            Self::Av1(c) => av01(&c.record).unwrap_or_else(|| "av01".to_owned()),
            Self::Aac(c) => format!("mp4a.40.{}", c.object_type),
            Self::Opus(_) => "opus".to_owned(),
        }
    }

    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

/// ISO/IEC 14496-15, E.3: profile space and profile, compatibility flags in reverse bit order, tier and level, constraint
/// flags without the zero bytes at their end.
fn hvc1(record: &[u8]) -> Option<String> {
    use std::fmt::Write;

    let (profile, level) = (*record.get(1)?, *record.get(12)?);
    let compatibility = u32::from_be_bytes(record.get(2..6)?.try_into().ok()?).reverse_bits();
    let constraints = record.get(6..12)?;
    let space = ["", "A", "B", "C"].get(usize::from(profile >> 6))?;
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!("hvc1.{space}{}.{compatibility:X}.{tier}{level}", profile & 0x1f);
    let kept = constraints.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    for byte in constraints.iter().take(kept) {
        // Writing to a string cannot fail.
        let _ = write!(text, ".{byte:X}");
    }
    Some(text)
}

/// AV1 in ISOBMFF, section 5: profile, level and tier, bit depth. The optional rest is left out as a whole.
fn av01(record: &[u8]) -> Option<String> {
    let &[_, profile_and_level, flags, ..] = record else { return None };
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match flags & 0x60 {
        0x60 => 12,
        0x40 => 10,
        _ => 8,
    };
    Some(format!("av01.{}.{:02}{tier}.{depth:02}", profile_and_level >> 5, profile_and_level & 0x1f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h265(record: &'static [u8]) -> String {
        let record = Bytes::from_static(record);
        let config = H265Config { record, width: 640, height: 360, sar: (1, 1), frame_rate: None };
        TrackConfig::H265(config).rfc6381()
    }

    /// The first two are the examples of ISO/IEC 14496-15, E.3.
    #[test]
    fn h265_says_profile_tier_level_and_constraints() {
        assert_eq!(h265(&[1, 1, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93]), "hvc1.1.6.L93.B0");
        assert_eq!(h265(&[1, 0xa4, 0x08, 0, 0, 0, 0xb0, 0x23, 0, 0, 0, 0, 120]), "hvc1.B4.10.H120.B0.23");
        assert_eq!(h265(&[1, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 63]), "hvc1.1.6.L63");
        assert_eq!(h265(&[1, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "hvc1");
    }

    #[test]
    fn av1_says_profile_level_tier_and_depth() {
        let of = |record: &'static [u8]| {
            let record = Bytes::from_static(record);
            TrackConfig::Av1(Av1Config { record, width: 64, height: 48, sar: (1, 1), frame_rate: None }).rfc6381()
        };
        assert_eq!(of(&[0x81, 0x04, 0x0c, 0]), "av01.0.04M.08");
        assert_eq!(of(&[0x81, 0x2d, 0xcc, 0]), "av01.1.13H.10");
        assert_eq!(of(&[0x81, 0x4d, 0x6c, 0]), "av01.2.13M.12");
        assert_eq!(of(&[0x81, 0x04]), "av01");
    }

    #[test]
    fn wide_pixels_make_a_wide_picture() {
        let record = Bytes::new();
        let pal = TrackConfig::Av1(Av1Config { record, width: 720, height: 576, sar: (64, 45), frame_rate: None });
        assert_eq!((pal.size(), pal.display_size()), (Some((720, 576)), Some((1024, 576))));
        assert_eq!(TrackConfig::Opus(OpusConfig { channels: 2, pre_skip: 0 }).display_size(), None);
    }

    #[test]
    fn b14_codecs_parameter_comes_from_the_sps_bytes() {
        let c = TrackConfig::H264(H264Config {
            sps: Bytes::from_static(&[0x67, 0x64, 0x00, 0x1f, 0xac]),
            pps: vec![],
            width: 1280,
            height: 720,
            sar: (1, 1),
            reorder_depth: 0,
            frame_rate: None,
        });
        assert_eq!(c.rfc6381(), "avc1.64001f");
    }
}
