//! The CPU: libavcodec decodes, videoconvertscale scales, x264 or OpenH264 encodes. H.264 only.

use super::{ElementPlan, KeyPolicy, Memory, RateUnit, RungPlan, RungRequest, Tune, Value, parser};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftwareEncoder {
    X264,
    /// Constrained baseline only; taken where x264 is not installed.
    OpenH264,
}

/// X264_KEYINT_MAX_INFINITE
const NEVER: u32 = 1 << 30;

/// H.264 in, raw pictures out, no picture held back longer than the stream's own reordering asks.
pub(super) fn decoder() -> ElementPlan {
    ElementPlan::new("avdec_h264")
        // Frame threads would hold back a picture each.
        .with("thread-type", Value::Word("slice"))
        .with("max-threads", Value::Int(2))
        // A picture with holes must not be encoded into three renditions.
        .with("output-corrupt", Value::Bool(false))
        // Damaged media is data: the stream goes on at the next key picture, however long that takes.
        .with("max-errors", Value::Int(-1))
        .with("qos", Value::Bool(false))
}

pub(super) fn rung(index: usize, encoder: SoftwareEncoder, rung: &RungRequest) -> RungPlan {
    let (plan, rate) = self::encoder(encoder, rung);
    RungPlan {
        index,
        // A no-op where nothing is to do.
        scaler: ElementPlan::new("videoconvertscale")
            .with("add-borders", Value::Bool(true))
            .with("qos", Value::Bool(false)),
        memory: Memory::System,
        format: "I420",
        download: None,
        encoder: plan,
        rate,
        progressive: false,
        // OpenH264 writes start codes; its own output may meet a C parser.
        parser: (encoder == SoftwareEncoder::OpenH264).then(|| parser(rung.codec)),
    }
}

/// From raw pictures to H.264. No key picture but the asked ones, no B pictures, no look-ahead: a picture in, its access
/// unit out.
pub(super) fn encoder(encoder: SoftwareEncoder, rung: &RungRequest) -> (ElementPlan, RateUnit) {
    let interval = match rung.keys {
        KeyPolicy::Forced => NEVER,
        KeyPolicy::AtMostEvery(pictures) => pictures.clamp(1, NEVER),
    };
    // A second slice costs bits; only big pictures need the second core to be in time.
    let threads = if rung.height >= 720 { cores().clamp(1, 4) } else { 1 };
    match encoder {
        SoftwareEncoder::X264 => {
            let rate = RateUnit::Kilobits;
            let plan = ElementPlan::new("x264enc");
            let plan = match rung.tune {
                Tune::UltraLowLatency | Tune::LowLatency => plan.with("tune", Value::Word("zerolatency")),
                // A look-ahead of one picture: parts must not wait for 40.
                Tune::HighQuality => plan.with("rc-lookahead", Value::Int(1)).with("sync-lookahead", Value::Int(0)),
            };
            let plan = plan
                .with("speed-preset", Value::Word(rung.preset.x264))
                .with("bitrate", Value::Uint(rate.value(rung.bitrate)))
                .with("vbv-buf-capacity", Value::Uint(1000))
                .with("key-int-max", Value::Uint(interval))
                .with("option-string", Value::Text("scenecut=0"))
                .with("bframes", Value::Uint(0))
                .with("aud", Value::Bool(false))
                .with("byte-stream", Value::Bool(false))
                .with("qos", Value::Bool(false))
                .with("threads", Value::Uint(threads))
                .with("sliced-threads", Value::Bool(threads > 1));
            (plan, rate)
        }
        SoftwareEncoder::OpenH264 => {
            let rate = RateUnit::Bits;
            let plan = ElementPlan::new("openh264enc")
                .with("usage-type", Value::Word("camera"))
                .with("rate-control", Value::Word("bitrate"))
                .with("complexity", Value::Word("low"))
                .with("bitrate", Value::Uint(rate.value(rung.bitrate)))
                .with("gop-size", Value::Uint(interval))
                // The default breaks the alignment of key pictures.
                .with("scene-change-detection", Value::Bool(false))
                .with("enable-frame-skip", Value::Bool(false))
                .with("multi-thread", Value::Uint(threads))
                .with("qos", Value::Bool(false));
            (plan, rate)
        }
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Codec, Preset};

    fn request(height: u32, bitrate: u32) -> RungRequest {
        RungRequest {
            codec: Codec::H264,
            width: height * 16 / 9,
            height,
            bitrate,
            preset: Preset::parse_or_usual("veryfast"),
            tune: Tune::default(),
            keys: KeyPolicy::default(),
        }
    }

    /// What every viewer of a software ladder sees hangs on these: a change here is a change of the product.
    #[test]
    fn the_settings_of_x264_are_what_they_have_always_been() {
        let (plan, _) = encoder(SoftwareEncoder::X264, &request(360, 700_000));
        let set: Vec<(&str, Value)> = plan.properties.into_iter().map(|p| (p.name, p.value)).collect();
        assert_eq!(
            set,
            [
                ("tune", Value::Word("zerolatency")),
                ("speed-preset", Value::Word("veryfast")),
                ("bitrate", Value::Uint(700)),
                ("vbv-buf-capacity", Value::Uint(1000)),
                ("key-int-max", Value::Uint(1 << 30)),
                ("option-string", Value::Text("scenecut=0")),
                ("bframes", Value::Uint(0)),
                ("aud", Value::Bool(false)),
                ("byte-stream", Value::Bool(false)),
                ("qos", Value::Bool(false)),
                ("threads", Value::Uint(1)),
                ("sliced-threads", Value::Bool(false)),
            ]
        );
    }

    #[test]
    fn only_big_pictures_are_sliced() {
        let threads = |height| {
            let (plan, _) = encoder(SoftwareEncoder::X264, &request(height, 1));
            plan.properties.into_iter().find(|p| p.name == "threads").map(|p| p.value)
        };
        assert_eq!(threads(718), Some(Value::Uint(1)));
        assert_eq!(threads(720), Some(Value::Uint(cores().clamp(1, 4))));
    }
}
