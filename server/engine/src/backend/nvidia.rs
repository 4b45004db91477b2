//! NVIDIA GPUs through nvcodec: NVDEC decodes, CUDA scales, NVENC encodes, all in the GPU's memory. Where a GPU has no
//! NVENC (A100, H100, H200, B200) only the scaled pictures go to the host and the CPU encodes: the hybrid.
//!
//! GStreamer 1.22 and 1.24 have two families of encoders. The old one (`nvh264enc`) copies every picture once more, knows
//! only presets that drivers from 590 on refuse, and holds a session from READY on; it is not used. The new one is called
//! `nvcudah264enc` there and took over the name `nvh264enc`, with other property names, in 1.26.

use super::choose::{DeviceElements, EncoderElement, On};
use super::{
    Codec, ElementPlan, KeyPolicy, MAX_KBIT, Memory, Preset, RateChange, RateUnit, RungPlan, RungRequest, Series, Tune,
    Value, software,
};

/// What the probe looks for.
pub(crate) const SCALER: &str = "cudaconvertscale";

pub(super) fn decoder(device: &DeviceElements, input: Codec, series: Series) -> ElementPlan {
    let name = device.decoders.get(&input).cloned().unwrap_or_default();
    // 1.22 has decoders of both kinds; AV1's is the only one of the newer kind there and has no such property.
    let delay = series >= Series::V1_24 || input != Codec::Av1;
    let plan = ElementPlan::new(name)
        // Late is late for everyone: a picture that is skipped here is missing in every rendition.
        .with("qos", Value::Bool(false))
        .with("max-errors", Value::Int(-1));
    // No picture waits for another one beyond the stream's own reordering.
    let plan = if delay { plan.with("max-display-delay", Value::Int(0)) } else { plan };
    if series >= Series::V1_24 {
        // NVDEC's own surfaces never leave the decoder: a rung that is behind cannot stall it.
        plan.with("num-output-surfaces", Value::Uint(1))
    } else {
        plan
    }
}

pub(super) fn rung(index: usize, device: &DeviceElements, on: &On, series: Series, rung: &RungRequest) -> RungPlan {
    let ordinal = Value::Int(i32::try_from(device.ordinal).unwrap_or(i32::MAX));
    let scaler = ElementPlan::new(device.scaler.clone().unwrap_or_default())
        .with("cuda-device-id", ordinal.clone())
        .with("add-borders", Value::Bool(true))
        .with("qos", Value::Bool(false));
    match on {
        On::Device(element) => RungPlan {
            index,
            scaler,
            memory: Memory::Cuda,
            format: "NV12",
            download: None,
            encoder: encoder(element, series, rung),
            rate: RateChange::AtOnce(RateUnit::Kibibits),
            // 1.22 refuses caps that leave it open.
            progressive: series == Series::V1_22,
            // It writes length prefixes, hvc1 and OBUs by itself.
            parser: None,
        },
        On::Cpu(software) => {
            let download =
                ElementPlan::new("cudadownload").with("cuda-device-id", ordinal).with("qos", Value::Bool(false));
            let plan = software::rung(index, *software, rung);
            // Converted before the copy, so that the host only encodes.
            RungPlan { scaler, memory: Memory::Cuda, download: Some(download), ..plan }
        }
    }
}

/// CBR, no B pictures, no look-ahead, no reordering, parameter sets on every IDR.
fn encoder(element: &EncoderElement, series: Series, rung: &RungRequest) -> ElementPlan {
    let unit = RateUnit::Kibibits;
    let bitrate = unit.value(rung.bitrate);
    let renamed = series >= Series::V1_26;
    let (rate_control, b_frames, no_reordering) = if renamed {
        ("rc-mode", "bframes", "zerolatency")
    } else {
        ("rate-control", "b-frames", "zero-reorder-delay")
    };
    let plan = ElementPlan::new(element.factory.clone())
        .with("preset", Value::Word(preset(rung.preset, rung.tune, series)))
        .with(rate_control, Value::Word("cbr"))
        .with("bitrate", Value::Uint(bitrate))
        // One second, as the software ladder's.
        .where_supported("vbv-buffer-size", Value::Uint(bitrate.min(MAX_KBIT)))
        .with(
            "gop-size",
            Value::Int(match rung.keys {
                KeyPolicy::Forced => -1,
                KeyPolicy::AtMostEvery(pictures) => i32::try_from(pictures.max(1)).unwrap_or(i32::MAX),
            }),
        )
        .with("strict-gop", Value::Bool(true))
        .where_supported(b_frames, Value::Uint(0))
        .where_supported("rc-lookahead", Value::Uint(0))
        .with(no_reordering, Value::Bool(true))
        .with("qos", Value::Bool(false));
    let plan = if series >= Series::V1_24 {
        plan.with(
            "tune",
            Value::Word(match rung.tune {
                Tune::UltraLowLatency => "ultra-low-latency",
                Tune::LowLatency => "low-latency",
                Tune::HighQuality => "high-quality",
            }),
        )
    } else {
        plan
    };
    match rung.codec {
        Codec::H264 | Codec::H265 => {
            // fMP4 has no use for access unit delimiters.
            plan.with("repeat-sequence-header", Value::Bool(true)).with("aud", Value::Bool(false))
        }
        // Has a sequence header at every key frame by itself.
        Codec::Av1 => plan,
    }
}

/// 1.22 knows only the presets of before Video Codec SDK 10, which drivers from 590 on refuse: `doctor` says so. It takes the
/// word and then asks NVENC for the default preset all the same; the word is set for what a distribution may have mended.
fn preset(preset: Preset, tune: Tune, series: Series) -> &'static str {
    const P: [&str; 7] = ["p1", "p2", "p3", "p4", "p5", "p6", "p7"];
    if series >= Series::V1_24 {
        return P.get(usize::from(preset.step.saturating_sub(1))).copied().unwrap_or("p4");
    }
    match (tune, preset.step) {
        (Tune::HighQuality, 0..=2) => "hp",
        (Tune::HighQuality, _) => "hq",
        (_, 0..=2) => "low-latency-hp",
        (_, 3..=4) => "low-latency",
        (_, _) => "low-latency-hq",
    }
}
