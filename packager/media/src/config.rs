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
    Aac,
    Opus,
}

/// The parameters in force for an access unit. Byte-compared (`==`) to tell a real change from a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackConfig {
    H264(H264Config),
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
            Self::H264(_) => TrackKind::Video,
            Self::Aac(_) | Self::Opus(_) => TrackKind::Audio,
        }
    }

    pub fn codec(&self) -> Codec {
        match self {
            Self::H264(_) => Codec::H264,
            Self::Aac(_) => Codec::Aac,
            Self::Opus(_) => Codec::Opus,
        }
    }

    /// Ticks a second of the track's timescale in fMP4: 90,000 for video, the sample rate for audio.
    pub fn timescale(&self) -> u32 {
        match self {
            Self::H264(_) => 90_000,
            Self::Aac(aac) => aac.sample_rate,
            Self::Opus(_) => 48_000,
        }
    }

    /// The RFC 6381 codecs parameter: `avc1.PPCCLL`, `mp4a.40.N`, `opus`.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::H264(c) => match c.sps.get(1..4) {
                Some([profile, constraints, level]) => format!("avc1.{profile:02x}{constraints:02x}{level:02x}"),
                _ => "avc1".to_owned(),
            },
            Self::Aac(c) => format!("mp4a.40.{}", c.object_type),
            Self::Opus(_) => "opus".to_owned(),
        }
    }

    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
