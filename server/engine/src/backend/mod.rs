//! The back ends: which elements decode, scale and encode on which device, and what their properties are called.
//!
//! Pure tables and one shape. [`choose`] picks a back end for a ladder under its [`Policy`] and says why, [`plan`] turns
//! the choice into a [`GraphPlan`] (names and values, no GStreamer), and `realize` makes elements of it. Every name and
//! value is checked against the property tables of GStreamer 1.22, 1.24, 1.26 and 1.28 by this module's tests.
//!
//! ```text
//! decoder (+ caps in device memory) ! tee ! (queue ! scaler ! caps [! download] ! encoder [! parser]) per rung
//! ```

mod audio;
mod choose;
pub(crate) mod cuda;
pub(crate) mod jetson;
pub(crate) mod nvidia;
pub(crate) mod realize;
mod software;
#[cfg(test)]
mod tables;
pub(crate) mod va;

pub(crate) use audio::AacEncoder;
pub use choose::{Choice, DeviceElements, EncoderElement, On, Policy, Reason, Refused, choose};
pub use software::SoftwareEncoder;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A video codec that a back end may take in or put out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    #[default]
    H264,
    H265,
    Av1,
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Av1 => "AV1",
        })
    }
}

/// The release series whose names and properties apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    V1_22,
    V1_24,
    V1_26,
    V1_28,
}

impl Series {
    pub const ALL: [Self; 4] = [Self::V1_22, Self::V1_24, Self::V1_26, Self::V1_28];

    /// None below the floor; development releases (odd minors) count as the stable series that they lead to, and what is
    /// newer than this table counts as its newest.
    pub fn of(major: u32, minor: u32) -> Option<Self> {
        match (major, minor) {
            (0, _) | (1, 0..=21) => None,
            (1, 22) => Some(Self::V1_22),
            (1, 23 | 24) => Some(Self::V1_24),
            (1, 25 | 26) => Some(Self::V1_26),
            _ => Some(Self::V1_28),
        }
    }
}

/// The kind of device that a ladder runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// An NVIDIA GPU through GStreamer's nvcodec plug-in.
    Nvidia,
    /// An Intel or AMD GPU through GStreamer's va plug-in.
    Va,
    /// A Jetson's engines through NVIDIA's own nvv4l2 elements.
    Jetson,
}

/// How fast against how good: one scale of seven steps for all encoders, and x264's two slowest presets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    x264: &'static str,
    /// 1 (fastest) to 7 (best): NVENC's p1 to p7.
    step: u8,
}

impl Preset {
    /// `p1` to `p7`, or x264's `ultrafast` to `veryslow`. None: unknown.
    pub fn parse(word: &str) -> Option<Self> {
        const WORDS: [(&str, &str, u8); 16] = [
            ("ultrafast", "ultrafast", 1),
            ("superfast", "superfast", 2),
            ("veryfast", "veryfast", 3),
            ("faster", "faster", 4),
            ("fast", "fast", 4),
            ("medium", "medium", 5),
            ("slow", "slow", 6),
            ("slower", "slower", 7),
            ("veryslow", "veryslow", 7),
            ("p1", "ultrafast", 1),
            ("p2", "superfast", 2),
            ("p3", "veryfast", 3),
            ("p4", "faster", 4),
            ("p5", "fast", 5),
            ("p6", "medium", 6),
            ("p7", "slow", 7),
        ];
        WORDS.iter().find(|(known, ..)| *known == word).map(|(_, x264, step)| Self { x264, step: *step })
    }

    /// 1 (fastest) to 7 (best).
    pub fn step(self) -> u8 {
        self.step
    }

    /// As [`Preset::parse`]; an unknown word must not end a worker, so it becomes the usual one.
    pub fn parse_or_usual(word: &str) -> Self {
        Self::parse(word).unwrap_or(Self { x264: "veryfast", step: 3 })
    }
}

/// What an encoder is tuned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tune {
    /// A picture in, its access unit out.
    #[default]
    UltraLowLatency,
    LowLatency,
    HighQuality,
}

/// When an encoder makes key pictures besides the first one and those forced upon it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPolicy {
    /// Never: the segment clock alone decides, so that all rungs agree.
    #[default]
    Forced,
    /// At the latest so many pictures after the last one.
    AtMostEvery(u32),
}

/// One rung as the tables need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungRequest {
    pub codec: Codec,
    /// Pixels, even.
    pub width: u32,
    pub height: u32,
    /// Bits a second.
    pub bitrate: u32,
    pub preset: Preset,
    pub tune: Tune,
    pub keys: KeyPolicy,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i32),
    Uint(u32),
    /// The nick of an enum's value or of one flag.
    Word(&'static str),
    Text(Cow<'static, str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: &'static str,
    pub value: Value,
    /// The element has it only where its device has the capability; absent means what the value says or better.
    pub conditional: bool,
}

/// An element to make.
#[derive(Clone, Debug, PartialEq)]
pub struct ElementPlan {
    /// The factory.
    pub factory: String,
    pub properties: Vec<Property>,
}

impl ElementPlan {
    fn new(factory: impl Into<String>) -> Self {
        Self { factory: factory.into(), properties: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.properties.push(Property { name, value, conditional: false });
        self
    }

    fn where_supported(mut self, name: &'static str, value: Value) -> Self {
        self.properties.push(Property { name, value, conditional: true });
        self
    }
}

/// Where raw pictures lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    System,
    Cuda,
    Va,
    Nvmm,
}

impl Memory {
    /// The caps feature; None: plain memory.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::System => None,
            Self::Cuda => Some("memory:CUDAMemory"),
            Self::Va => Some("memory:VAMemory"),
            Self::Nvmm => Some("memory:NVMM"),
        }
    }
}

/// What an encoder's `bitrate` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    Bits,
    /// 1000 bits.
    Kilobits,
    /// nvcodec says kbit and multiplies by 1024.
    Kibibits,
}

impl RateUnit {
    /// The property's value for bits a second; never 0, which means "automatic" to most encoders.
    pub fn value(self, bits: u32) -> u32 {
        match self {
            Self::Bits => bits.max(1),
            Self::Kilobits => bits.div_ceil(1000).clamp(1, MAX_KBIT),
            Self::Kibibits => (bits / 1024 + u32::from(bits % 1024 >= 512)).clamp(1, MAX_KBIT),
        }
    }
}

/// How the bit rate of an encoder changes while it runs: when the source's real frame rate is not the one it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateChange {
    /// By its property `bitrate`.
    AtOnce(RateUnit),
    /// The same, but the encoder begins anew for it, with a key picture: it waits for one that is due anyway.
    WithKey(RateUnit),
    /// Never: the encoder goes by the pictures' times.
    Needless,
}

/// The upper end of `bitrate` of nvcodec, va and x264enc: 2 Gbit/s.
const MAX_KBIT: u32 = 2_048_000;

/// One rung's branch behind the tee's queue.
#[derive(Clone, Debug, PartialEq)]
pub struct RungPlan {
    /// The rung's place in the request.
    pub index: usize,
    /// Scales, letterboxes where it can, and converts colours.
    pub scaler: ElementPlan,
    /// The scaled pictures.
    pub memory: Memory,
    pub format: &'static str,
    /// The caps must say that the pictures are progressive.
    pub progressive: bool,
    /// Copies the scaled pictures to the host: only where a GPU scales and the CPU encodes.
    pub download: Option<ElementPlan>,
    pub encoder: ElementPlan,
    pub rate: RateChange,
    /// Turns start codes into length prefixes where the encoder cannot.
    pub parser: Option<ElementPlan>,
}

/// A ladder's video, whatever the back end.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphPlan {
    /// Stands before a hardware decoder: those take only streams whose profile and level their caps name.
    pub parser: Option<ElementPlan>,
    pub decoder: ElementPlan,
    /// Where the decoder must leave its pictures.
    pub memory: Memory,
    pub rungs: Vec<RungPlan>,
}

/// The elements and properties for what [`choose`] chose; `rungs` is the request that it was given.
pub fn plan(choice: &Choice, series: Series, rungs: &[RungRequest]) -> GraphPlan {
    let kept = choice.rungs.iter().filter_map(|(index, on)| rungs.get(*index).map(|rung| (*index, *rung, on)));
    match &choice.device {
        None => GraphPlan {
            parser: None,
            decoder: software::decoder(),
            memory: Memory::System,
            rungs: kept
                .filter_map(|(index, rung, on)| match on {
                    On::Cpu(encoder) => Some(software::rung(index, *encoder, &rung)),
                    On::Device(_) => None,
                })
                .collect(),
        },
        Some(device) => {
            let build = match device.family {
                Family::Nvidia => nvidia::rung,
                Family::Va => va::rung,
                Family::Jetson => jetson::rung,
            };
            let (decoder, memory) = match device.family {
                Family::Nvidia => (nvidia::decoder(device, choice.input, series), Memory::Cuda),
                Family::Va => (va::decoder(device, choice.input), Memory::Va),
                Family::Jetson => (jetson::decoder(), Memory::Nvmm),
            };
            GraphPlan {
                parser: Some(parser(choice.input)),
                decoder,
                memory,
                rungs: kept.map(|(index, rung, on)| build(index, device, on, series, &rung)).collect(),
            }
        }
    }
}

/// The parser of a codec: before a hardware decoder, and behind an encoder that only writes start codes.
fn parser(codec: Codec) -> ElementPlan {
    ElementPlan::new(match codec {
        Codec::H264 => "h264parse",
        Codec::H265 => "h265parse",
        Codec::Av1 => "av1parse",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn development_releases_count_as_the_series_they_lead_to() {
        assert_eq!(Series::of(1, 20), None);
        assert_eq!(Series::of(1, 23), Some(Series::V1_24));
        assert_eq!(Series::of(1, 25), Some(Series::V1_26));
        assert_eq!(Series::of(1, 29), Some(Series::V1_28));
        assert_eq!(Series::of(2, 0), Some(Series::V1_28));
    }

    #[test]
    fn bit_rates_come_out_within_half_a_unit_and_never_as_automatic() {
        assert_eq!(RateUnit::Kilobits.value(400_000), 400);
        assert_eq!(RateUnit::Kibibits.value(4_000_000), 3906);
        assert_eq!(RateUnit::Bits.value(4_000_000), 4_000_000);
        for unit in [RateUnit::Bits, RateUnit::Kilobits, RateUnit::Kibibits] {
            assert_eq!(unit.value(0), 1);
            assert!(unit.value(u32::MAX) <= if unit == RateUnit::Bits { u32::MAX } else { MAX_KBIT });
        }
    }

    #[test]
    fn presets_of_both_kinds_are_known_and_others_are_not() {
        assert_eq!(Preset::parse("veryfast"), Preset::parse("p3"));
        assert_eq!(Preset::parse("veryslow").unwrap().x264, "veryslow");
        assert_eq!(Preset::parse("p8"), None);
        assert_eq!(Preset::parse_or_usual("quick").x264, "veryfast");
    }
}
