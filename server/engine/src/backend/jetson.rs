//! Jetson's engines through NVIDIA's own elements, which are not GStreamer's: nvv4l2decoder, nvvidconv, nvv4l2*enc.
//! Never run by us; the names are those of published examples.

use super::choose::{DeviceElements, On};
use super::{
    Codec, ElementPlan, KeyPolicy, Memory, RateChange, RateUnit, RungPlan, RungRequest, Series, Value, parser, software,
};

/// What the probe looks for. It has no borders: a source of another shape is stretched.
pub(crate) const SCALER: &str = "nvvidconv";
pub(crate) const DECODER: &str = "nvv4l2decoder";

pub(super) fn decoder() -> ElementPlan {
    ElementPlan::new(DECODER).with("enable-max-performance", Value::Bool(true)).with("qos", Value::Bool(false))
}

pub(super) fn rung(index: usize, device: &DeviceElements, on: &On, _: Series, rung: &RungRequest) -> RungPlan {
    let element = match on {
        On::Device(element) => element,
        // `choose` puts such a ladder on the CPU as a whole.
        On::Cpu(encoder) => return software::rung(index, *encoder, rung),
    };
    let rate = RateUnit::Bits;
    let interval = match rung.keys {
        KeyPolicy::Forced => u32::MAX >> 1,
        KeyPolicy::AtMostEvery(pictures) => pictures.clamp(1, u32::MAX >> 1),
    };
    let encoder = ElementPlan::new(element.factory.clone())
        .with("control-rate", Value::Word("constant_bitrate"))
        .with("bitrate", Value::Uint(rate.value(rung.bitrate)))
        .with("iframeinterval", Value::Uint(interval))
        .with("idrinterval", Value::Uint(interval))
        .with(
            "preset-level",
            Value::Word(match rung.preset.step {
                0..=2 => "UltraFastPreset",
                3 | 4 => "FastPreset",
                5 => "MediumPreset",
                _ => "SlowPreset",
            }),
        )
        .with("maxperf-enable", Value::Bool(true))
        .with("qos", Value::Bool(false));
    let encoder = match rung.codec {
        Codec::H264 | Codec::H265 => encoder.with("insert-sps-pps", Value::Bool(true)),
        Codec::Av1 => encoder,
    };
    RungPlan {
        index,
        scaler: ElementPlan::new(device.scaler.clone().unwrap_or_default()).with("qos", Value::Bool(false)),
        memory: Memory::Nvmm,
        format: "NV12",
        download: None,
        encoder,
        rate: RateChange::AtOnce(rate),
        progressive: false,
        parser: Some(parser(rung.codec)),
    }
}
