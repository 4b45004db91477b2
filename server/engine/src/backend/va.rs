//! Intel and AMD GPUs through GStreamer's va plug-in: everything in VA surfaces.

use super::choose::{DeviceElements, On};
use super::{
    Codec, ElementPlan, KeyPolicy, Memory, RateChange, RateUnit, RungPlan, RungRequest, Series, Value, parser, software,
};

/// What the probe looks for; further devices have a render node's name in theirs (`varenderD129postproc`).
pub(crate) const SCALER: &str = "vapostproc";

/// The most that `key-int-max` takes. Forced key pictures start the count anew, and the segment clock forces one every
/// few seconds: an own one never comes.
const LONGEST_GOP: u32 = 1024;

pub(super) fn decoder(device: &DeviceElements, input: Codec) -> ElementPlan {
    ElementPlan::new(device.decoders.get(&input).cloned().unwrap_or_default())
        .with("qos", Value::Bool(false))
        .with("max-errors", Value::Int(-1))
}

pub(super) fn rung(index: usize, device: &DeviceElements, on: &On, _: Series, rung: &RungRequest) -> RungPlan {
    let element = match on {
        On::Device(element) => element,
        // `choose` puts such a ladder on the CPU as a whole.
        On::Cpu(encoder) => return software::rung(index, *encoder, rung),
    };
    let rate = RateUnit::Kilobits;
    let bitrate = rate.value(rung.bitrate);
    let encoder = ElementPlan::new(element.factory.clone())
        .where_supported("rate-control", Value::Word("cbr"))
        .with("bitrate", Value::Uint(bitrate))
        // One second.
        .with("cpb-size", Value::Uint(bitrate))
        .with(
            "key-int-max",
            Value::Uint(match rung.keys {
                KeyPolicy::Forced => LONGEST_GOP,
                KeyPolicy::AtMostEvery(pictures) => pictures.clamp(1, LONGEST_GOP),
            }),
        )
        // 1 is best, 7 is fastest.
        .with("target-usage", Value::Uint(u32::from(8 - rung.preset.step.clamp(1, 7))))
        .with("ref-frames", Value::Uint(1))
        .with("qos", Value::Bool(false));
    let encoder = match rung.codec {
        Codec::H264 | Codec::H265 => encoder.with("b-frames", Value::Uint(0)).with("aud", Value::Bool(false)),
        // The same for AV1: no frame refers to a later one.
        Codec::Av1 => encoder.with("hierarchical-level", Value::Uint(1)),
    };
    RungPlan {
        index,
        scaler: ElementPlan::new(device.scaler.clone().unwrap_or_default())
            .with("add-borders", Value::Bool(true))
            .with("qos", Value::Bool(false)),
        memory: Memory::Va,
        format: "NV12",
        download: None,
        encoder,
        rate: RateChange::AtOnce(rate),
        progressive: false,
        // H.264 and H.265 come with start codes and their parameter sets at every IDR; AV1 comes as it is wanted.
        parser: (rung.codec != Codec::Av1).then(|| parser(rung.codec)),
    }
}
