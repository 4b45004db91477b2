//! The GPUs of this host as devices: `doctor` looks for them in a process of its own, since NVIDIA's libraries and GStreamer
//! are C code that this process does without.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use engine::OnDevice;
use engine::backend::{Family, Policy};
use placement::device::{Evidence, PixelRate};
use placement::{DeviceKind, catalogue};
use serde_json::Value;

use crate::config::Gpus;

/// Looking for GPUs, the drivers' start included.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// Megapixels a second of H.264 that a core encodes beside a GPU that has no encoder: half of what x264's veryfast does here,
/// for the slower presets.
const CORE_ENCODES: u64 = 80;

pub struct Gpu {
    pub id: String,
    pub kind: DeviceKind,
    pub device: OnDevice,
}

/// Blocks for seconds where there are GPUs, and not at all where there is no sign of any.
pub fn find(gpus: Gpus, program: &Path) -> Vec<Gpu> {
    let wanted = match gpus {
        Gpus::Off => false,
        Gpus::On => true,
        Gpus::Auto => ["/dev/nvidiactl", "/dev/nvhost-nvenc", "/dev/v4l2-nvenc"].iter().any(|p| Path::new(p).exists()),
    };
    if !wanted {
        return Vec::new();
    }
    match findings(program) {
        Ok(findings) => of(&findings, std::thread::available_parallelism().map_or(1, usize::from)),
        Err(reason) => {
            tracing::error!(reason, "GPUs cannot be looked for; ladders go on without them");
            Vec::new()
        }
    }
}

fn findings(program: &Path) -> Result<Vec<Value>, String> {
    let mut child = Command::new(program)
        .args(["doctor", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let Some(mut output) = child.stdout.take() else { return Err("no output".to_owned()) };
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text)
    });
    let until = Instant::now() + PROBE_LIMIT;
    while !reader.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Ended already, or a driver that hangs; either way it is reaped.
    let _ = child.kill();
    let _ = child.wait();
    let text = reader.join().map_err(|_| "the reader failed".to_owned())?.map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| format!("doctor did not finish: {e}"))
}

/// Every GPU of one report that decodes and scales.
fn of(findings: &[Value], cores: usize) -> Vec<Gpu> {
    let devices: Vec<&Value> = findings.iter().map(|f| &f["device"]).filter(|d| d.is_object()).collect();
    let hybrids = devices.iter().filter(|d| !encodes(d)).count().max(1);
    let mut found = Vec::new();
    for (n, device) in devices.iter().enumerate() {
        let family: Result<Family, _> = serde_json::from_value(device["elements"]["family"].clone());
        let (Ok(family), Some(id)) = (family, device["id"].as_str()) else { continue };
        let decodes = device["elements"]["decoders"]["h264"].is_string();
        if !decodes || !device["elements"]["scaler"].is_string() {
            tracing::warn!(gpu = id, "not used, it cannot decode or scale; `fishladder doctor` says why");
            continue;
        }
        let name = device["name"].as_str().unwrap_or("");
        let mut kind = kind_of(name);
        if let Some(mib) = device["memory_total"].as_u64().and_then(|m| u32::try_from(m).ok()) {
            kind.vram = mib;
        }
        let mut policy = Policy::GpuOnly;
        if !encodes(device) {
            // The cores are shared out among the GPUs that need them.
            let engines = u8::try_from((cores / hybrids / 2).clamp(1, 8)).unwrap_or(1);
            let share = cores as u64 * CORE_ENCODES / hybrids as u64 / u64::from(engines);
            kind = kind.with_software_encoder(engines, PixelRate::megapixels(share));
            policy = Policy::Cpu;
        }
        // One kind a device: memory, and cores beside it, differ.
        kind.name = format!("{}-{n}", kind.name);
        found.push(Gpu { id: format!("gpu{n}"), kind, device: OnDevice { family, id: id.to_owned(), policy } });
    }
    found
}

fn encodes(device: &Value) -> bool {
    device["elements"]["encoders"]["h264"].is_object()
}

/// The catalogue's kind for what a driver calls a GPU: "NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB". One that is not
/// known counts as the slowest.
fn kind_of(name: &str) -> DeviceKind {
    let mut words = name.to_ascii_lowercase().replace(' ', "-");
    for maker in ["nvidia-", "geforce-", "tesla-"] {
        words = words.strip_prefix(maker).unwrap_or(&words).to_owned();
    }
    let matches =
        |known: &&str| words.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    match catalogue::names().filter(matches).max_by_key(|known| known.len()).and_then(catalogue::find) {
        Some(kind) => kind,
        None => {
            tracing::warn!(gpu = name, "not in the catalogue: counted as a T4 until it is calibrated");
            let mut kind = catalogue::find("t4").expect("the catalogue has it");
            kind.evidence.speed = Evidence::Estimated;
            kind
        }
    }
}

#[cfg(test)]
mod tests {
    use placement::device::EncoderKind;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_drivers_are_found_in_the_catalogue() {
        for (name, kind) in [
            ("NVIDIA L4", "l4"),
            ("NVIDIA L40S", "l40s"),
            ("Tesla T4", "t4"),
            ("NVIDIA GeForce RTX 4090", "rtx-4090"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
            ("NVIDIA L400", "t4"),
            ("", "t4"),
        ] {
            assert_eq!(kind_of(name).name, kind, "{name}");
        }
    }

    #[test]
    fn gpus_without_an_encoder_share_the_cores_and_those_that_cannot_decode_are_left_out() {
        let gpu = |name: &str, encoder: bool, decoder: bool| {
            let encoders = if encoder { json!({ "h264": { "factory": "nvh264enc" } }) } else { json!({}) };
            let decoders = if decoder { json!({ "h264": "nvh264dec" }) } else { json!({}) };
            let elements =
                json!({ "family": "nvidia", "encoders": encoders, "decoders": decoders, "scaler": "cudascale" });
            json!({ "device": { "id": format!("GPU-{name}"), "name": name, "memory_total": 24_000, "elements": elements } })
        };
        let report = [
            gpu("NVIDIA L4", true, true),
            json!({ "code": "x" }),
            gpu("NVIDIA H200", false, true),
            gpu("x", true, false),
        ];
        let found = of(&report, 16);
        let ids: Vec<_> = found.iter().map(|g| (g.id.as_str(), g.device.id.as_str(), g.device.policy)).collect();
        assert_eq!(ids, [("gpu0", "GPU-NVIDIA L4", Policy::GpuOnly), ("gpu1", "GPU-NVIDIA H200", Policy::Cpu)]);
        assert_eq!((found[0].kind.encoder, found[1].kind.encoder), (EncoderKind::Hardware, EncoderKind::Software));
        assert_eq!((found[0].kind.vram, found[1].kind.encode_engines), (24_000, 8));
    }
}
