//! The CPU: libavcodec decodes, videoconvertscale scales, and x264 or OpenH264, x265, or libaom encodes.
//!
//! An encoder is taken only where it makes a key picture when it is told to, at the picture that it is told to: the segment
//! clock rests on that. x265enc does (but not with a look-ahead of its usual length: it loses some then). av1enc does from
//! GStreamer 1.24.5 on and ignores it before. svtav1enc never does while it keeps a bit rate (docs/adr/0012).

use super::{Codec, ElementPlan, KeyPolicy, Memory, RateChange, RateUnit, RungPlan, RungRequest, Tune, Value, parser};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftwareEncoder {
    X264,
    /// Constrained baseline only; taken where x264 is not installed.
    OpenH264,
    X265,
    /// libaom
    Aom,
}

impl SoftwareEncoder {
    /// Best first.
    pub(super) const ALL: [Self; 4] = [Self::X264, Self::OpenH264, Self::X265, Self::Aom];

    pub fn codec(self) -> Codec {
        match self {
            Self::X264 | Self::OpenH264 => Codec::H264,
            Self::X265 => Codec::H265,
            Self::Aom => Codec::Av1,
        }
    }

    pub(crate) fn factory(self) -> &'static str {
        match self {
            Self::X264 => "x264enc",
            Self::OpenH264 => "openh264enc",
            Self::X265 => "x265enc",
            Self::Aom => "av1enc",
        }
    }

    /// The first release of its plug-in whose element makes key pictures when it is told to.
    pub(super) fn usable_from(self) -> (u32, u32, u32) {
        match self {
            Self::X264 | Self::OpenH264 | Self::X265 => (1, 22, 0),
            Self::Aom => (1, 24, 5),
        }
    }

    /// The Debian package that has an encoder for `codec`.
    pub(crate) fn remedy(codec: Codec) -> &'static str {
        match codec {
            Codec::H264 => "gstreamer1.0-plugins-ugly (x264enc)",
            Codec::H265 => "gstreamer1.0-plugins-bad (x265enc)",
            Codec::Av1 => {
                "gstreamer1.0-plugins-bad 1.24.5 or newer (av1enc; older ones make no key frames when they are told to)"
            }
        }
    }
}

/// X264_KEYINT_MAX_INFINITE; x265 has the same.
const NEVER: u32 = 1 << 30;

/// The most that x265enc's `bitrate` takes.
const MAX_X265_KBIT: u32 = 102_400;

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
        // All but x264 write start codes, or OBUs without saying so; their own output may meet a C parser.
        parser: (encoder != SoftwareEncoder::X264).then(|| parser(rung.codec)),
    }
}

/// From raw pictures to the rung's codec. No key picture but the asked ones, no B pictures, no look-ahead: a picture in, its
/// access unit out.
fn encoder(encoder: SoftwareEncoder, rung: &RungRequest) -> (ElementPlan, RateChange) {
    let interval = match rung.keys {
        KeyPolicy::Forced => NEVER,
        KeyPolicy::AtMostEvery(pictures) => pictures.clamp(1, NEVER),
    };
    // A second slice costs bits; only big pictures need the second core to be in time.
    let threads = if rung.height >= 720 { cores().clamp(1, 4) } else { 1 };
    let plan = ElementPlan::new(encoder.factory());
    match encoder {
        SoftwareEncoder::X264 => {
            let rate = RateUnit::Kilobits;
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
                .with("option-string", Value::Text("scenecut=0".into()))
                .with("bframes", Value::Uint(0))
                .with("aud", Value::Bool(false))
                .with("byte-stream", Value::Bool(false))
                .with("qos", Value::Bool(false))
                .with("threads", Value::Uint(threads))
                .with("sliced-threads", Value::Bool(threads > 1));
            (plan, RateChange::AtOnce(rate))
        }
        SoftwareEncoder::OpenH264 => {
            let rate = RateUnit::Bits;
            let plan = plan
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
            (plan, RateChange::AtOnce(rate))
        }
        SoftwareEncoder::X265 => {
            let rate = RateUnit::Kilobits;
            let kbit = rate.value(rung.bitrate).min(MAX_X265_KBIT);
            let plan = plan
                .with(
                    "tune",
                    Value::Word(match rung.tune {
                        Tune::UltraLowLatency | Tune::LowLatency => "zerolatency",
                        Tune::HighQuality => "ssim",
                    }),
                )
                .with("speed-preset", Value::Word(rung.preset.x264))
                .with("bitrate", Value::Uint(kbit))
                .with("key-int-max", Value::Int(i32::try_from(interval).unwrap_or(i32::MAX)))
                .with("log-level", Value::Word("none"))
                .with("option-string", Value::Text(x265_options(kbit, threads).into()))
                .with("qos", Value::Bool(false));
            (plan, RateChange::WithKey(rate))
        }
        SoftwareEncoder::Aom => {
            // 10 is fastest; below 5 nothing is in time.
            let speed = match (rung.preset.step, rung.tune) {
                (step, Tune::UltraLowLatency | Tune::LowLatency) => 11 - i32::from(step.clamp(1, 6)),
                (step, Tune::HighQuality) => 10 - i32::from(step.clamp(1, 5)),
            };
            let plan = plan
                .with("usage-profile", Value::Word("realtime"))
                .with("cpu-used", Value::Int(speed))
                .with("end-usage", Value::Word("cbr"))
                .with("target-bitrate", Value::Uint(RateUnit::Kilobits.value(rung.bitrate)))
                // In milliseconds: one second, as all the others.
                .with("buf-sz", Value::Uint(1000))
                .with("buf-initial-sz", Value::Uint(500))
                .with("buf-optimal-sz", Value::Uint(600))
                // The default, 0, is no range at all: libaom ends the process.
                .with("max-quantizer", Value::Uint(63))
                .with("lag-in-frames", Value::Uint(0))
                .with(
                    "keyframe-mode",
                    Value::Word(match rung.keys {
                        KeyPolicy::Forced => "disabled",
                        KeyPolicy::AtMostEvery(_) => "auto",
                    }),
                )
                .with("keyframe-max-dist", Value::Int(i32::try_from(interval).unwrap_or(i32::MAX)))
                .with("threads", Value::Uint(threads))
                .with("qos", Value::Bool(false));
            (plan, RateChange::Needless)
        }
    }
}

/// What x265enc has no properties for. As many bits of buffer as a second has.
fn x265_options(kbit: u32, threads: u32) -> String {
    // As for x264, only big pictures get threads; wavefronts cost bits and need them.
    let threads = if threads > 1 { format!("pools={threads}") } else { "pools=none:wpp=0".to_owned() };
    format!(
        "bframes=0:b-adapt=0:rc-lookahead=0:cutree=0:frame-threads=1:scenecut=0:open-gop=0:info=0:{threads}:\
         vbv-maxrate={kbit}:vbv-bufsize={kbit}"
    )
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Preset;

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
                ("option-string", Value::Text("scenecut=0".into())),
                ("bframes", Value::Uint(0)),
                ("aud", Value::Bool(false)),
                ("byte-stream", Value::Bool(false)),
                ("qos", Value::Bool(false)),
                ("threads", Value::Uint(1)),
                ("sliced-threads", Value::Bool(false)),
            ]
        );
    }

    /// The same for x265: look-ahead in any form loses key pictures, and an open GOP has none at all.
    #[test]
    fn the_settings_of_x265_are_for_pictures_in_and_access_units_out() {
        let (plan, rate) = encoder(SoftwareEncoder::X265, &request(360, 700_000));
        let set: Vec<(&str, Value)> = plan.properties.into_iter().map(|p| (p.name, p.value)).collect();
        let options = "bframes=0:b-adapt=0:rc-lookahead=0:cutree=0:frame-threads=1:scenecut=0:open-gop=0:info=0:\
                       pools=none:wpp=0:vbv-maxrate=700:vbv-bufsize=700";
        assert_eq!(
            set,
            [
                ("tune", Value::Word("zerolatency")),
                ("speed-preset", Value::Word("veryfast")),
                ("bitrate", Value::Uint(700)),
                ("key-int-max", Value::Int(1 << 30)),
                ("log-level", Value::Word("none")),
                ("option-string", Value::Text(options.into())),
                ("qos", Value::Bool(false)),
            ]
        );
        assert_eq!(rate, RateChange::WithKey(RateUnit::Kilobits));
    }

    /// And for libaom, which ends the process where the range of its quantizer is left as it is.
    #[test]
    fn the_settings_of_libaom_are_for_real_time() {
        let (plan, rate) = encoder(SoftwareEncoder::Aom, &request(360, 700_000));
        let set: Vec<(&str, Value)> = plan.properties.into_iter().map(|p| (p.name, p.value)).collect();
        assert_eq!(
            set,
            [
                ("usage-profile", Value::Word("realtime")),
                ("cpu-used", Value::Int(8)),
                ("end-usage", Value::Word("cbr")),
                ("target-bitrate", Value::Uint(700)),
                ("buf-sz", Value::Uint(1000)),
                ("buf-initial-sz", Value::Uint(500)),
                ("buf-optimal-sz", Value::Uint(600)),
                ("max-quantizer", Value::Uint(63)),
                ("lag-in-frames", Value::Uint(0)),
                ("keyframe-mode", Value::Word("disabled")),
                ("keyframe-max-dist", Value::Int(1 << 30)),
                ("threads", Value::Uint(1)),
                ("qos", Value::Bool(false)),
            ]
        );
        assert_eq!(rate, RateChange::Needless);
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
