//! The AAC encoders: the same on every device.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::realize::{BackendError, has, make};
use crate::spec::AudioRung;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AacEncoder {
    /// libavcodec's own encoder, in every Debian with gstreamer1.0-libav.
    Avenc,
    /// VisualOn's; worse at the same bit rate.
    Voaac,
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
