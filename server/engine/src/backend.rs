//! Which elements decode, scale and encode, and what their properties are called. An enum that chooses names and
//! properties; NVIDIA and VA become further variants, the graph stays the same.

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::spec::{AudioRung, VideoRung};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// libavcodec decodes, the CPU scales and encodes.
    Software(SoftwareEncoder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SoftwareEncoder {
    X264,
    /// Constrained baseline only; taken where x264 is not installed.
    OpenH264,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AacEncoder {
    /// libavcodec's own encoder, in every Debian with gstreamer1.0-libav.
    Avenc,
    /// VisualOn's; worse at the same bit rate.
    Voaac,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("GStreamer has no element {0}; `fishladder doctor` tells which package to install")]
    Element(&'static str),
    #[error("no H.264 encoder: neither x264enc nor openh264enc is installed")]
    VideoEncoder,
    #[error("no AAC encoder: neither avenc_aac nor voaacenc is installed")]
    AudioEncoder,
}

impl Backend {
    pub(crate) fn choose() -> Result<Self, BackendError> {
        if has("x264enc") {
            Ok(Self::Software(SoftwareEncoder::X264))
        } else if has("openh264enc") {
            Ok(Self::Software(SoftwareEncoder::OpenH264))
        } else {
            Err(BackendError::VideoEncoder)
        }
    }

    /// H.264 in, raw pictures out, no picture held back longer than the stream's own reordering asks.
    pub(crate) fn decoder(self) -> Result<gst::Element, BackendError> {
        match self {
            Self::Software(_) => {
                let decoder = make("avdec_h264")?;
                // Frame threads would hold back a picture each.
                decoder.set_property_from_str("thread-type", "slice");
                decoder.set_property("max-threads", 2i32);
                // A picture with holes must not be encoded into three renditions.
                decoder.set_property("output-corrupt", false);
                // Damaged media is data: the stream goes on at the next key picture, however long that takes.
                decoder.set_property("max-errors", -1i32);
                decoder.set_property("qos", false);
                Ok(decoder)
            }
        }
    }

    /// Scales, letterboxes and converts colours; a no-op where nothing is to do.
    pub(crate) fn scaler(self) -> Result<gst::Element, BackendError> {
        match self {
            Self::Software(_) => {
                let scaler = make("videoconvertscale")?;
                scaler.set_property("add-borders", true);
                scaler.set_property("qos", false);
                Ok(scaler)
            }
        }
    }

    /// The raw pictures that `encoder` gets, without their colorimetry.
    pub(crate) fn raw_caps(self, rung: &VideoRung) -> gst::Caps {
        match self {
            Self::Software(_) => gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", i32::try_from(rung.width).unwrap_or(i32::MAX))
                .field("height", i32::try_from(rung.height).unwrap_or(i32::MAX))
                .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
                .build(),
        }
    }

    /// The elements from raw pictures to H.264 with length prefixes. No key picture but the forced ones, no B pictures,
    /// no look-ahead: a picture in, its access unit out.
    pub(crate) fn encoder(self, rung: &VideoRung) -> Result<Vec<gst::Element>, BackendError> {
        match self {
            Self::Software(SoftwareEncoder::X264) => {
                let encoder = make("x264enc")?;
                encoder.set_property_from_str("tune", "zerolatency");
                encoder.set_property_from_str("speed-preset", known_preset(&rung.preset));
                encoder.set_property("bitrate", kilobits(rung.bitrate));
                encoder.set_property("vbv-buf-capacity", 1000u32);
                // X264_KEYINT_MAX_INFINITE
                encoder.set_property("key-int-max", 1u32 << 30);
                encoder.set_property("option-string", "scenecut=0");
                encoder.set_property("bframes", 0u32);
                encoder.set_property("aud", false);
                encoder.set_property("byte-stream", false);
                encoder.set_property("qos", false);
                // A second slice costs bits; only big pictures need the second core to be in time.
                let threads = if rung.height >= 720 { cores().clamp(1, 4) } else { 1 };
                encoder.set_property("threads", threads);
                encoder.set_property("sliced-threads", threads > 1);
                Ok(vec![encoder])
            }
            Self::Software(SoftwareEncoder::OpenH264) => {
                let encoder = make("openh264enc")?;
                encoder.set_property_from_str("usage-type", "camera");
                encoder.set_property_from_str("rate-control", "bitrate");
                encoder.set_property_from_str("complexity", "low");
                encoder.set_property("bitrate", rung.bitrate);
                encoder.set_property("gop-size", 1u32 << 30);
                // The default breaks the alignment of key pictures.
                encoder.set_property("scene-change-detection", false);
                encoder.set_property("enable-frame-skip", false);
                encoder.set_property("multi-thread", if rung.height >= 720 { cores().clamp(1, 4) } else { 1 });
                encoder.set_property("qos", false);
                // It writes start codes; its own output may meet a C parser.
                Ok(vec![encoder, make("h264parse")?])
            }
        }
    }

    /// Sets an encoder's bit rate while it runs.
    pub(crate) fn set_bitrate(self, encoder: &gst::Element, bits: u32) {
        match self {
            Self::Software(SoftwareEncoder::X264) => encoder.set_property("bitrate", kilobits(bits)),
            Self::Software(SoftwareEncoder::OpenH264) => encoder.set_property("bitrate", bits),
        }
    }
}

impl AacEncoder {
    pub(crate) fn choose() -> Result<Self, BackendError> {
        if has("avenc_aac") {
            Ok(Self::Avenc)
        } else if has("voaacenc") {
            Ok(Self::Voaac)
        } else {
            Err(BackendError::AudioEncoder)
        }
    }

    pub(crate) fn encoder(self, rung: &AudioRung) -> Result<gst::Element, BackendError> {
        let bitrate = i32::try_from(rung.bitrate).unwrap_or(i32::MAX);
        match self {
            Self::Avenc => {
                let encoder = make("avenc_aac")?;
                encoder.set_property("bitrate", bitrate);
                // As good as "twoloop" at these rates and several times cheaper.
                encoder.set_property_from_str("aac-coder", "fast");
                Ok(encoder)
            }
            Self::Voaac => {
                let encoder = make("voaacenc")?;
                encoder.set_property("bitrate", bitrate);
                Ok(encoder)
            }
        }
    }

    /// Samples by which the encoder's output lags its input; measured by `tests/ladder.rs`.
    pub(crate) fn priming(self) -> i64 {
        match self {
            Self::Avenc => 1024,
            Self::Voaac => 1600,
        }
    }
}

pub(crate) fn make(name: &'static str) -> Result<gst::Element, BackendError> {
    gst::ElementFactory::make(name).build().map_err(|_| BackendError::Element(name))
}

pub(crate) fn has(name: &str) -> bool {
    gst::ElementFactory::find(name).is_some()
}

/// x264's presets; an unknown word must not abort the worker, so it becomes the usual one.
fn known_preset(preset: &str) -> &str {
    const PRESETS: [&str; 9] =
        ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
    if PRESETS.contains(&preset) { preset } else { "veryfast" }
}

fn kilobits(bits: u32) -> u32 {
    bits.div_ceil(1000).max(1)
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}
