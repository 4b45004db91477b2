//! Judges the facts: every device, every known trap that this host has stepped into, and the command that mends it. Pure.
//! docs/operations.md explains each code.

use super::devices::Found;
use super::facts::{Cuda, CudaDevice, Facts, Gpu, Node, Nvml, RenderNode, Version};
use super::{Device, Finding, Level, finding};
use crate::backend::Family;

/// Drivers from here on have no NVENC presets of before Video Codec SDK 10.
const NO_OLD_PRESETS: u32 = 590;
/// GStreamer from here on compiles its kernels for what CUDA 13's NVRTC knows, in the series 1.26 and after it.
const KNOWS_NVRTC_13: Version = (1, 26, 7);
/// NVIDIA's documents say 8 and 12 for different drivers: the smaller one is safe.
const CONSUMER_SESSIONS: u32 = 8;
/// Models without an NVENC, by a word of their names.
const NO_NVENC: [&str; 13] =
    ["A100", "A800", "A30", "H100", "H200", "H20", "H800", "GH200", "B100", "B200", "B300", "GB200", "GB300"];

const INTEL: u16 = 0x8086;
const AMD: u16 = 0x1002;
const NVIDIA: u16 = 0x10de;

/// Devices first, then what is wrong.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.devices.iter().map(|found| describe(facts, found)).collect();
    findings.extend(driver(facts));
    findings.extend(libraries(facts));
    findings.extend(elements(facts));
    findings.extend(scaling(facts));
    findings.extend(old_presets(facts));
    findings.extend(encoders(facts));
    findings.extend(sessions(facts));
    findings.extend(visibility(facts));
    findings.extend(render_nodes(facts));
    if !facts.devices.is_empty() && !facts.has_parser {
        let detail = "h264parse is missing: no hardware decoder takes a stream without it";
        findings.push(fault("gpu-parser", "GPU", detail, "apt-get install gstreamer1.0-plugins-bad"));
    }
    if facts.devices.is_empty() && findings.iter().all(|f| f.level == Level::Ok) {
        findings.push(finding(Level::Ok, "no-gpu", "GPU", "there is none; ladders run on the CPU", None));
    } else if facts.devices.is_empty() {
        findings.push(finding(Level::Note, "no-gpu", "GPU", "none can be used; ladders run on the CPU", None));
    }
    findings
}

fn fault(code: &'static str, subject: impl Into<String>, detail: impl Into<String>, remedy: &str) -> Finding {
    finding(Level::Fault, code, subject, detail, Some(remedy))
}

fn note(code: &'static str, subject: impl Into<String>, detail: impl Into<String>, remedy: Option<&str>) -> Finding {
    finding(Level::Note, code, subject, detail, remedy)
}

fn describe(facts: &Facts, found: &Found) -> Finding {
    let elements = &found.elements;
    let cuda = cuda_device(facts, found);
    let gpu = cuda.and_then(|cuda| gpu_of(facts, cuda));
    let driver = match (&facts.nvml, elements.family) {
        (Nvml::Read { driver, .. }, Family::Nvidia) => Some(driver.clone()),
        _ => None,
    };
    let device = Device {
        elements: elements.clone(),
        name: cuda.map(|c| c.name.clone()),
        id: cuda.map(|c| c.uuid.clone()).or_else(|| found.path.clone()),
        pci: cuda.map(|c| c.pci.clone()),
        driver,
        memory_total: gpu.and_then(|g| g.memory_total),
        memory_used: gpu.and_then(|g| g.memory_used),
        encoder_sessions: gpu.and_then(|g| g.encoder_sessions),
        max_video_clock: gpu.and_then(|g| g.max_video_clock),
        mig: gpu.is_some_and(|g| g.mig),
    };
    let list = |verb: &str, names: Vec<String>| {
        if names.is_empty() { format!("{verb} nothing") } else { format!("{verb} {}", names.join(", ")) }
    };
    let mut parts: Vec<String> = Vec::new();
    parts.extend(device.name.clone());
    parts.extend(device.pci.clone());
    parts.extend(device.driver.as_ref().map(|d| format!("driver {d}")));
    parts.push(list("decodes", elements.decoders.iter().map(|(c, n)| format!("{c} ({n})")).collect()));
    parts.push(list("encodes", elements.encoders.iter().map(|(c, e)| format!("{c} ({})", e.factory)).collect()));
    parts.push(list("scales with", elements.scaler.iter().cloned().collect()));
    if let (Some(used), Some(total)) = (device.memory_used, device.memory_total) {
        parts.push(format!("{used} of {total} MiB used"));
    }
    parts.extend(device.encoder_sessions.map(|n| format!("{n} encoder sessions")));
    let mut described = finding(Level::Ok, "device", subject(found), parts.join(", "), None);
    described.device = Some(device);
    described
}

fn subject(found: &Found) -> String {
    match (found.elements.family, &found.path) {
        (Family::Nvidia, _) => format!("CUDA device {}", found.elements.ordinal),
        (Family::Va, Some(path)) => path.clone(),
        (Family::Va, None) => "VA".into(),
        (Family::Jetson, _) => "Jetson".into(),
    }
}

/// A driver that is not there, not loaded, not of one piece, or not ours to use.
fn driver(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let barred: Vec<&Node> = facts.nvidia_nodes.iter().filter(|n| !n.usable).collect();
    if let Some(node) = barred.first() {
        let paths: Vec<&str> = barred.iter().map(|n| n.path.as_str()).collect();
        let remedy = if node.group == "root" {
            format!("chmod a+rw {}", paths.join(" "))
        } else {
            format!("usermod -aG {} \"$USER\" && exec su -l \"$USER\"", node.group)
        };
        let detail = format!("this user may not use {}", paths.join(", "));
        findings.push(fault("nvidia-permission", "NVIDIA", detail, &remedy));
    }
    if matches!(facts.nvml, Nvml::VersionMismatch) {
        let detail = "the loaded kernel module is older than the driver's libraries: they were upgraded under it";
        findings.push(fault("driver-mismatch", "NVIDIA driver", detail, "reboot"));
    } else if let Nvml::Failed(why) = &facts.nvml {
        let detail = format!("NVML does not answer: {why}; load and temperature stay unknown");
        findings.push(note("nvml", "NVIDIA driver", detail, Some("nvidia-smi")));
    }
    match &facts.driver.cuda {
        Cuda::Failed(code) if findings.iter().all(|f| f.ok) => findings.extend(cuda_failure(facts, *code)),
        Cuda::Absent if !facts.nvidia_nodes.is_empty() => {
            let detail = "the device nodes are there, libcuda.so.1 is not";
            findings.push(if facts.surroundings.container {
                fault("container-capabilities", "NVIDIA driver", detail, CONTAINER)
            } else {
                fault(
                    "driver-libraries",
                    "NVIDIA driver",
                    detail,
                    "apt-get install libcuda1 libnvcuvid1 libnvidia-encode1",
                )
            });
        }
        Cuda::Absent if facts.nvidia_on_bus > 0 => {
            let detail = format!("{} GPUs of NVIDIA's are on the bus, without a driver here", facts.nvidia_on_bus);
            let remedy =
                if facts.surroundings.container { CONTAINER } else { "apt-get install nvidia-driver && reboot" };
            findings.push(note("driver-absent", "NVIDIA", detail, Some(remedy)));
        }
        _ => {}
    }
    findings
}

const CONTAINER: &str = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video IMAGE";

/// CUresult, cuda.h.
fn cuda_failure(facts: &Facts, code: i32) -> Option<Finding> {
    let (detail, remedy) = match code {
        // CUDA_ERROR_NO_DEVICE: a driver's libraries on a host without its GPU, or all of them hidden.
        100 if facts.nvidia_nodes.is_empty() || facts.surroundings.visible.is_some() => return None,
        100 => ("CUDA sees no GPU although there are device nodes", "nvidia-smi"),
        // CUDA_ERROR_SYSTEM_NOT_READY
        802 => ("CUDA waits for the fabric manager (NVSwitch machines)", "systemctl enable --now nvidia-fabricmanager"),
        // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        803 => ("the loaded kernel module is older than the driver's libraries: they were upgraded under it", "reboot"),
        // CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
        804 => (
            "this GPU does not take CUDA's forward compatibility package, which shadows the driver's own library",
            "apt-get remove 'cuda-compat-*' && ldconfig",
        ),
        // CUDA_ERROR_UNKNOWN: nearly always the missing node of the memory manager.
        999 => ("CUDA fails with \"unknown error\": /dev/nvidia-uvm is missing or unusable", "nvidia-modprobe -u -c=0"),
        _ => ("CUDA does not start", "nvidia-smi"),
    };
    Some(fault("cuda", "CUDA", format!("{detail} (code {code})"), remedy))
}

/// NVDEC and NVENC have libraries of their own, which containers leave out unless asked.
fn libraries(facts: &Facts) -> Option<Finding> {
    if cuda_devices(facts).is_empty() {
        return None;
    }
    let missing: Vec<&str> = [(facts.driver.nvcuvid, "libnvcuvid.so.1"), (facts.driver.nvenc, "libnvidia-encode.so.1")]
        .into_iter()
        .filter_map(|(there, name)| (!there).then_some(name))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let detail = format!("{} missing: no decoding or no encoding on any GPU", missing.join(" and "));
    let lacks_video = facts
        .surroundings
        .capabilities
        .as_ref()
        .is_some_and(|given| !given.split(',').any(|c| matches!(c.trim(), "video" | "all")));
    Some(if facts.surroundings.container || lacks_video {
        let detail = match &facts.surroundings.capabilities {
            Some(given) => format!("{detail}; NVIDIA_DRIVER_CAPABILITIES={given} lacks video"),
            None => format!("{detail}; the container was started without the capability video"),
        };
        fault("container-capabilities", "NVIDIA driver", detail, CONTAINER)
    } else {
        fault("driver-libraries", "NVIDIA driver", detail, "apt-get install libnvcuvid1 libnvidia-encode1")
    })
}

/// CUDA sees a GPU and GStreamer's plug-in, loaded just now, has nothing for it.
fn elements(facts: &Facts) -> Option<Finding> {
    let devices = cuda_devices(facts);
    if devices.is_empty() || !facts.driver.nvcuvid {
        return None;
    }
    if facts.nvcodec.is_none() {
        let detail = "GStreamer's nvcodec plug-in is not installed";
        return Some(fault("nvcodec-absent", "NVIDIA", detail, "apt-get install gstreamer1.0-plugins-bad"));
    }
    let ordinals = facts.devices.iter().filter(|d| d.elements.family == Family::Nvidia).map(|d| d.elements.ordinal);
    let known: Vec<u32> = ordinals.collect();
    let without: Vec<String> = (0u32..)
        .zip(devices)
        .filter(|(ordinal, _)| !known.contains(ordinal))
        .map(|(ordinal, device)| format!("{ordinal} ({})", device.name))
        .collect();
    if without.is_empty() {
        return None;
    }
    let detail = format!("GStreamer's nvcodec plug-in has no elements for CUDA device {}", without.join(", "));
    // What it says while it looks; a list of its own, so that it does look.
    let remedy = "GST_REGISTRY=$(mktemp -u) GST_DEBUG='nv*:4,cuda*:4' gst-inspect-1.0 nvcodec";
    Some(fault("elements-missing", "GStreamer", detail, remedy))
}

/// Deletes the list of elements: the next start makes it anew.
fn forget(facts: &Facts) -> String {
    format!("rm -f {}", facts.surroundings.registry)
}

/// GStreamer compiles the CUDA scaler's kernel when its plug-in starts; without NVRTC the element just is not there.
fn scaling(facts: &Facts) -> Option<Finding> {
    let lacks = |d: &&Found| d.elements.family == Family::Nvidia && d.elements.scaler.is_none();
    let device = facts.devices.iter().find(lacks)?;
    let knows_13 = facts.gstreamer >= KNOWS_NVRTC_13;
    let name = &facts.driver.nvrtc_name;
    let fits = |name: &&String| knows_13 || !name.ends_with(".13");
    let get = match facts.driver.nvrtc_elsewhere.iter().find(fits) {
        Some(there) => format!("export GST_CUDA_NVRTC_LIBNAME={there}"),
        None => "apt-get install cuda-nvrtc-12-9 && export GST_CUDA_NVRTC_LIBNAME=libnvrtc.so.12".to_owned(),
    };
    let (code, detail, remedy) = match facts.driver.nvrtc {
        None => ("nvrtc-missing", format!("{name} does not load, so that GStreamer has no CUDA scaler"), get),
        Some((major, minor)) if major >= 13 && !knows_13 => (
            "nvrtc-too-new",
            format!(
                "{name} is NVRTC {major}.{minor}, which no longer compiles what GStreamer {}.{}.{} gives it (1.26.7 and 1.28 \
                 do): there is no CUDA scaler",
                facts.gstreamer.0, facts.gstreamer.1, facts.gstreamer.2
            ),
            get,
        ),
        Some((major, minor)) => (
            "nvrtc-refused",
            format!("GStreamer has no CUDA scaler although NVRTC {major}.{minor} loads"),
            "GST_REGISTRY=$(mktemp -u) GST_DEBUG='cuda*:5' gst-inspect-1.0 cudaconvertscale".to_owned(),
        ),
    };
    Some(fault(code, subject(device), detail, &remedy))
}

/// 1.22 asks NVENC for presets by names that newer drivers do not know. Later series translate them.
fn old_presets(facts: &Facts) -> Option<Finding> {
    let Nvml::Read { driver, .. } = &facts.nvml else { return None };
    let major: u32 = driver.split('.').next()?.parse().ok()?;
    let encodes = |d: &&Found| d.elements.family == Family::Nvidia && !d.elements.encoders.is_empty();
    let device = facts.devices.iter().find(encodes)?;
    if major < NO_OLD_PRESETS || (facts.gstreamer.0, facts.gstreamer.1) >= (1, 24) {
        return None;
    }
    let detail = format!(
        "driver {driver} has none of the NVENC presets that GStreamer {}.{}.{} knows: every encoder fails to start",
        facts.gstreamer.0, facts.gstreamer.1, facts.gstreamer.2
    );
    let remedy = "upgrade to Debian 13 (GStreamer 1.26), or: apt-get install nvidia-driver-pinning-580 nvidia-driver";
    Some(fault("old-presets", subject(device), detail, remedy))
}

/// Decodes but does not encode: by its nature, or because something stood in the way when GStreamer asked.
fn encoders(facts: &Facts) -> Vec<Finding> {
    let bare = |d: &&Found| {
        d.elements.family == Family::Nvidia && d.elements.encoders.is_empty() && !d.elements.decoders.is_empty()
    };
    let judge = |device: &Found| {
        let cuda = cuda_device(facts, device);
        let name = cuda.map_or("this GPU", |c| c.name.as_str());
        if without_nvenc(name) {
            let detail = format!(
                "{name} has no encoder: it decodes and scales, and the CPU encodes where the ladder's policy is `cpu`"
            );
            return Some(note("no-nvenc", subject(device), detail, None));
        }
        // Said already.
        if !facts.driver.nvenc {
            return None;
        }
        let detail = format!(
            "GStreamer found no encoder on {name}; it opens a session on each GPU to ask, which fails while all sessions are \
             taken"
        );
        let remedy = "nvidia-smi --query-gpu=name,encoder.stats.sessionCount --format=csv";
        Some(fault("encoders-missing", subject(device), detail, remedy))
    };
    facts.devices.iter().filter(bare).filter_map(judge).collect()
}

fn without_nvenc(name: &str) -> bool {
    name.split([' ', '-', '_']).any(|word| NO_NVENC.contains(&word))
}

/// Consumer cards share one number of sessions over the whole host.
fn sessions(facts: &Facts) -> Option<Finding> {
    let Nvml::Read { gpus, .. } = &facts.nvml else { return None };
    let consumer: Vec<&Gpu> = gpus.iter().filter(|g| g.name.contains("GeForce")).collect();
    if consumer.is_empty() {
        return None;
    }
    let used: u32 = consumer.iter().filter_map(|g| g.encoder_sessions).fold(0, u32::saturating_add);
    let detail = format!(
        "{used} encoder sessions are in use; the driver allows {CONSUMER_SESSIONS} (12 with newer drivers) on all {} GeForce \
         cards of this host together",
        consumer.len()
    );
    let remedy = (used >= CONSUMER_SESSIONS)
        .then_some("nvidia-smi --query-gpu=name,encoder.stats.sessionCount,encoder.stats.averageFps --format=csv");
    Some(note("session-cap", "GeForce", detail, remedy))
}

fn visibility(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Nvml::Read { gpus, .. } = &facts.nvml else { return findings };
    let seen = cuda_devices(facts).len();
    if let Some(value) = &facts.surroundings.visible
        && seen < gpus.len()
    {
        let detail = format!("CUDA_VISIBLE_DEVICES={value} leaves {seen} of {} GPUs", gpus.len());
        findings.push(note("gpus-hidden", "CUDA", detail, Some("unset CUDA_VISIBLE_DEVICES")));
    }
    for gpu in gpus.iter().filter(|g| g.mig) {
        let detail = format!("{} is in MIG mode: its engines' load cannot be read", gpu.name);
        findings.push(note("mig", "NVIDIA", detail, None));
    }
    findings
}

/// Intel's and AMD's GPUs: not used is not broken, since ladders run without them.
fn render_nodes(facts: &Facts) -> Vec<Finding> {
    let judge = |render: &RenderNode| {
        let RenderNode { node, vendor: Some(vendor) } = render else { return None };
        let known = facts.devices.iter().any(|d| d.path.as_deref() == Some(node.path.as_str()));
        if *vendor == NVIDIA || known {
            return None;
        }
        if !node.usable {
            let remedy = format!("usermod -aG {} \"$USER\" && exec su -l \"$USER\"", node.group);
            return Some(note("render-permission", &node.path, "this user may not use it", Some(&remedy)));
        }
        let package = match *vendor {
            INTEL => "intel-media-va-driver",
            AMD => "mesa-va-drivers",
            _ => return None,
        };
        let install = match facts.va {
            Some(_) => format!("apt-get install {package} && {}", forget(facts)),
            None => format!("apt-get install gstreamer1.0-plugins-bad {package}"),
        };
        Some(note("va-driver", &node.path, "a GPU that GStreamer has no elements for", Some(&install)))
    };
    facts.render_nodes.iter().filter_map(judge).collect()
}

fn cuda_devices(facts: &Facts) -> &[CudaDevice] {
    match &facts.driver.cuda {
        Cuda::Devices(devices) => devices,
        Cuda::Absent | Cuda::Failed(_) => &[],
    }
}

fn cuda_device<'a>(facts: &'a Facts, found: &Found) -> Option<&'a CudaDevice> {
    if found.elements.family != Family::Nvidia {
        return None;
    }
    cuda_devices(facts).get(usize::try_from(found.elements.ordinal).ok()?)
}

/// By UUID, never by index: CUDA's and NVML's orders differ. The bus address helps where the UUID is a MIG instance's.
fn gpu_of<'a>(facts: &'a Facts, cuda: &CudaDevice) -> Option<&'a Gpu> {
    let Nvml::Read { gpus, .. } = &facts.nvml else { return None };
    // NVML writes the PCI domain with eight digits, CUDA with four.
    let same_bus = |gpu: &&Gpu| gpu.pci.trim_start_matches('0') == cuda.pci.trim_start_matches('0');
    gpus.iter().find(|gpu| gpu.uuid == cuda.uuid).or_else(|| gpus.iter().find(same_bus))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backend::{Codec, DeviceElements, EncoderElement};
    use crate::probe::facts::{Driver, Surroundings};

    fn found(ordinal: u32, encoder: Option<&str>) -> Found {
        let encoder = encoder
            .map(|factory| (Codec::H264, EncoderElement { factory: factory.into(), smallest: None, largest: None }));
        let elements = DeviceElements {
            family: Family::Nvidia,
            ordinal,
            decoders: [(Codec::H264, "nvh264dec".to_owned())].into(),
            encoders: encoder.into_iter().collect(),
            scaler: Some("cudaconvertscale".into()),
        };
        Found { elements, path: None }
    }

    fn gpu(name: &str, n: u8) -> (CudaDevice, Gpu) {
        let cuda = CudaDevice { name: name.into(), uuid: format!("GPU-{n}"), pci: format!("0000:{n}b:00.0") };
        let gpu = Gpu {
            name: name.into(),
            uuid: format!("GPU-{n}"),
            pci: format!("00000000:{n}b:00.0"),
            memory_total: Some(23_034),
            memory_used: Some(300),
            encoder_sessions: Some(2),
            ..Gpu::default()
        };
        (cuda, gpu)
    }

    /// One L4 on Debian 13, all well.
    fn healthy() -> Facts {
        let (cuda, gpu) = gpu("NVIDIA L4", 3);
        Facts {
            gstreamer: (1, 26, 2),
            nvcodec: Some(20),
            va: Some(0),
            has_parser: true,
            devices: vec![found(0, Some("nvh264enc"))],
            driver: Driver {
                cuda: Cuda::Devices(vec![cuda]),
                nvcuvid: true,
                nvenc: true,
                nvrtc_name: "libnvrtc.so".into(),
                nvrtc: Some((12, 9)),
                nvrtc_elsewhere: vec![],
            },
            nvml: Nvml::Read { driver: "570.86.15".into(), gpus: vec![gpu] },
            nvidia_nodes: vec![node("/dev/nvidia0", true)],
            surroundings: Surroundings { registry: "/c/registry.bin".into(), ..Surroundings::default() },
            ..Facts::default()
        }
    }

    fn node(path: &str, usable: bool) -> Node {
        Node { path: path.into(), usable, group: "video".into() }
    }

    fn with_driver(version: &str, facts: &mut Facts) {
        if let Nvml::Read { driver, .. } = &mut facts.nvml {
            version.clone_into(driver);
        }
    }

    /// The codes of all findings but the devices themselves, faults marked with `!`.
    fn codes(facts: &Facts) -> Vec<String> {
        const MANUAL: &str = include_str!("../../../../docs/operations.md");
        let marked = |f: &Finding| format!("{}{}", if f.ok { "" } else { "!" }, f.code);
        let findings = judge(facts);
        for f in &findings {
            assert_eq!(f.ok, f.level != Level::Fault);
            assert!(f.ok || f.remedy.as_ref().is_some_and(|r| !r.is_empty()), "{f:?} has no remedy");
            assert!(MANUAL.contains(&format!("| `{}` |", f.code)), "docs/operations.md does not explain {}", f.code);
        }
        findings.iter().filter(|f| f.code != "device").map(marked).collect()
    }

    fn remedy(facts: &Facts, code: &str) -> String {
        judge(facts).into_iter().find(|f| f.code == code).unwrap().remedy.unwrap()
    }

    #[test]
    fn a_machine_without_a_gpu_is_healthy() {
        let facts = Facts { gstreamer: (1, 22, 0), nvcodec: Some(0), ..Facts::default() };
        let findings = judge(&facts);
        assert_eq!(codes(&facts), ["no-gpu"]);
        assert!(findings[0].detail.contains("ladders run on the CPU") && findings[0].level == Level::Ok);
        // The driver's libraries alone, as some images have them, change nothing.
        let driver = Driver { cuda: Cuda::Failed(100), ..Driver::default() };
        assert_eq!(codes(&Facts { driver, ..facts }), ["no-gpu"]);
    }

    #[test]
    fn a_healthy_gpu_is_described_and_nothing_is_wrong() {
        let facts = healthy();
        assert!(codes(&facts).is_empty(), "{:?}", codes(&facts));
        let device = &judge(&facts)[0];
        assert_eq!(device.subject, "CUDA device 0");
        for part in ["NVIDIA L4", "driver 570.86.15", "H.264 (nvh264enc)", "300 of 23034 MiB", "2 encoder sessions"] {
            assert!(device.detail.contains(part), "{}", device.detail);
        }
        assert_eq!(device.device.as_ref().unwrap().id.as_deref(), Some("GPU-3"));
    }

    #[test]
    fn cuda_and_nvml_are_matched_by_uuid_or_bus_and_never_by_index() {
        let mut facts = healthy();
        let (first, first_nvml) = gpu("NVIDIA A100", 8);
        let (second, mut second_nvml) = gpu("NVIDIA L4", 3);
        // A MIG instance has a UUID of its own.
        second_nvml.uuid = "GPU-other".into();
        second_nvml.memory_total = Some(7);
        facts.driver.cuda = Cuda::Devices(vec![first, second]);
        facts.nvml = Nvml::Read { driver: "570".into(), gpus: vec![second_nvml, first_nvml] };
        facts.devices = vec![found(0, None), found(1, Some("nvh264enc"))];
        let devices: Vec<Device> = judge(&facts).into_iter().filter_map(|f| f.device).collect();
        assert_eq!(devices[0].name.as_deref(), Some("NVIDIA A100"));
        assert_eq!(devices[0].memory_total, Some(23_034));
        assert_eq!(devices[1].memory_total, Some(7));
        assert_eq!(codes(&facts), ["no-nvenc"]);
    }

    #[test]
    fn drivers_from_590_on_break_1_22_and_nothing_newer() {
        for (driver, gstreamer, broken) in [
            ("580.95.05", (1, 22, 0), false),
            ("590.44.01", (1, 22, 0), true),
            ("595.10", (1, 22, 12), true),
            ("595.10", (1, 24, 2), false),
            ("595.10", (1, 28, 6), false),
            ("nonsense", (1, 22, 0), false),
        ] {
            let mut facts = healthy();
            facts.gstreamer = gstreamer;
            with_driver(driver, &mut facts);
            assert_eq!(codes(&facts) == ["!old-presets"], broken, "{driver} {gstreamer:?}");
        }
        // A GPU that does not encode does not care.
        let mut facts = healthy();
        facts.gstreamer = (1, 22, 0);
        facts.devices = vec![found(0, None)];
        if let Cuda::Devices(devices) = &mut facts.driver.cuda {
            devices[0].name = "NVIDIA H200".into();
        }
        with_driver("595.10", &mut facts);
        assert_eq!(codes(&facts), ["no-nvenc"]);
    }

    #[test]
    fn without_a_cuda_scaler_nvrtc_is_missing_too_new_or_refused() {
        let mut facts = healthy();
        facts.devices[0].elements.scaler = None;
        facts.driver.nvrtc = None;
        assert_eq!(codes(&facts), ["!nvrtc-missing"]);
        assert!(remedy(&facts, "nvrtc-missing").starts_with("apt-get install cuda-nvrtc-12-9 && export "));
        facts.driver.nvrtc_elsewhere = vec!["libnvrtc.so.13".into(), "libnvrtc.so.12".into()];
        let export = "export GST_CUDA_NVRTC_LIBNAME=libnvrtc.so.12";
        assert_eq!(remedy(&facts, "nvrtc-missing"), export);
        facts.driver.nvrtc = Some((13, 0));
        for (gstreamer, code) in [
            ((1, 22, 0), "!nvrtc-too-new"),
            ((1, 24, 13), "!nvrtc-too-new"),
            ((1, 26, 2), "!nvrtc-too-new"),
            ((1, 26, 7), "!nvrtc-refused"),
            ((1, 28, 0), "!nvrtc-refused"),
        ] {
            facts.gstreamer = gstreamer;
            assert_eq!(codes(&facts), [code], "{gstreamer:?}");
        }
        facts.driver.nvrtc = None;
        assert!(remedy(&facts, "nvrtc-missing").contains("libnvrtc.so.13"), "1.28 takes the newest");
        facts.devices[0].elements.scaler = Some("cudaconvertscale".into());
        assert!(codes(&facts).is_empty(), "a scaler that is there needs no NVRTC by that name");
    }

    #[test]
    fn a_gpu_that_the_plug_in_has_nothing_for_is_found_out() {
        let mut facts = healthy();
        facts.devices.clear();
        facts.nvcodec = Some(0);
        assert_eq!(codes(&facts), ["!elements-missing", "no-gpu"]);
        facts.nvcodec = None;
        assert_eq!(codes(&facts), ["!nvcodec-absent", "no-gpu"]);
        // A GPU that was added later.
        let mut facts = healthy();
        let (added, _) = gpu("NVIDIA T4", 4);
        if let Cuda::Devices(devices) = &mut facts.driver.cuda {
            devices.push(added);
        }
        assert_eq!(codes(&facts), ["!elements-missing"]);
        assert!(judge(&facts).iter().any(|f| f.detail.contains("1 (NVIDIA T4)")));
    }

    #[test]
    fn a_container_without_the_video_capability_is_told_from_a_host_without_the_packages() {
        let mut facts = healthy();
        facts.devices.clear();
        facts.nvcodec = Some(0);
        (facts.driver.nvcuvid, facts.driver.nvenc) = (false, false);
        assert_eq!(codes(&facts), ["!driver-libraries", "no-gpu"]);
        assert!(remedy(&facts, "driver-libraries").contains("libnvcuvid1"));
        for (container, capabilities) in [(true, None), (true, Some("compute,utility")), (false, Some("utility"))] {
            facts.surroundings.container = container;
            facts.surroundings.capabilities = capabilities.map(str::to_owned);
            assert_eq!(codes(&facts), ["!container-capabilities", "no-gpu"]);
            assert!(remedy(&facts, "container-capabilities").contains("video"));
        }
        // Not even CUDA.
        facts.driver.cuda = Cuda::Absent;
        facts.surroundings.container = true;
        assert_eq!(codes(&facts), ["!container-capabilities", "no-gpu"]);
        facts.surroundings.container = false;
        assert_eq!(codes(&facts), ["!driver-libraries", "no-gpu"]);
    }

    #[test]
    fn device_nodes_that_are_barred_are_the_first_thing_to_mend() {
        let mut facts = healthy();
        facts.devices.clear();
        facts.nvcodec = Some(0);
        facts.driver.cuda = Cuda::Failed(999);
        facts.nvml = Nvml::Failed("no permission".into());
        facts.nvidia_nodes = vec![node("/dev/nvidia0", false), node("/dev/nvidiactl", true)];
        assert_eq!(codes(&facts), ["!nvidia-permission", "nvml", "no-gpu"]);
        assert!(remedy(&facts, "nvidia-permission").starts_with("usermod -aG video "));
        facts.nvidia_nodes[0].group = "root".into();
        assert_eq!(remedy(&facts, "nvidia-permission"), "chmod a+rw /dev/nvidia0");
    }

    #[test]
    fn each_way_in_which_cuda_fails_has_its_own_remedy() {
        let mut facts = healthy();
        facts.devices.clear();
        facts.nvcodec = Some(0);
        facts.nvml = Nvml::Absent;
        for (code, word) in
            [(802, "fabricmanager"), (803, "reboot"), (804, "cuda-compat"), (999, "modprobe"), (1, "smi")]
        {
            facts.driver.cuda = Cuda::Failed(code);
            assert_eq!(codes(&facts), ["!cuda", "no-gpu"]);
            assert!(remedy(&facts, "cuda").contains(word), "{code}");
        }
        facts.driver.cuda = Cuda::Failed(100);
        assert_eq!(codes(&facts), ["!cuda", "no-gpu"]);
        facts.surroundings.visible = Some(String::new());
        assert_eq!(codes(&facts), ["no-gpu"], "they were hidden on purpose");
        facts.driver.cuda = Cuda::Failed(803);
        facts.nvml = Nvml::VersionMismatch;
        assert_eq!(codes(&facts), ["!driver-mismatch", "no-gpu"], "said once");
    }

    #[test]
    fn a_gpu_without_a_driver_is_a_note_with_a_way_in() {
        let mut facts = Facts { gstreamer: (1, 26, 2), nvidia_on_bus: 2, ..Facts::default() };
        assert_eq!(codes(&facts), ["driver-absent", "no-gpu"]);
        assert!(remedy(&facts, "driver-absent").contains("nvidia-driver"));
        facts.surroundings.container = true;
        assert!(remedy(&facts, "driver-absent").contains("--gpus all"));
    }

    #[test]
    fn missing_encoders_are_a_fault_only_where_the_gpu_has_some() {
        let mut facts = healthy();
        facts.devices = vec![found(0, None)];
        assert_eq!(codes(&facts), ["!encoders-missing"]);
        for (name, none) in [("NVIDIA H100 80GB HBM3", true), ("NVIDIA A100-SXM4-40GB", true), ("NVIDIA A10", false)] {
            if let Cuda::Devices(devices) = &mut facts.driver.cuda {
                devices[0].name = name.into();
            }
            assert_eq!(codes(&facts) == ["no-nvenc"], none, "{name}");
        }
        facts.driver.nvenc = false;
        assert_eq!(codes(&facts), ["!driver-libraries"], "said once");
    }

    #[test]
    fn consumer_cards_share_one_cap() {
        let mut facts = healthy();
        let (a, mut first) = gpu("NVIDIA GeForce RTX 4090", 1);
        let (b, mut second) = gpu("NVIDIA GeForce RTX 4090", 2);
        (first.encoder_sessions, second.encoder_sessions) = (Some(5), Some(2));
        facts.driver.cuda = Cuda::Devices(vec![a, b]);
        facts.devices = vec![found(0, Some("nvh264enc")), found(1, Some("nvh264device1enc"))];
        facts.nvml = Nvml::Read { driver: "570".into(), gpus: vec![first.clone(), second.clone()] };
        assert_eq!(codes(&facts), ["session-cap"]);
        let cap = judge(&facts).into_iter().find(|f| f.code == "session-cap").unwrap();
        assert!(cap.detail.starts_with("7 encoder sessions") && cap.remedy.is_none(), "{cap:?}");
        second.encoder_sessions = Some(3);
        facts.nvml = Nvml::Read { driver: "570".into(), gpus: vec![first, second] };
        assert!(remedy(&facts, "session-cap").starts_with("nvidia-smi"));
    }

    #[test]
    fn hidden_gpus_and_mig_are_notes() {
        let mut facts = healthy();
        let (_, mut other) = gpu("NVIDIA A100", 8);
        other.mig = true;
        if let Nvml::Read { gpus, .. } = &mut facts.nvml {
            gpus.push(other);
        }
        assert_eq!(codes(&facts), ["mig"]);
        facts.surroundings.visible = Some("0".into());
        assert_eq!(codes(&facts), ["gpus-hidden", "mig"]);
    }

    #[test]
    fn other_makers_gpus_without_elements_are_notes_and_health_stays() {
        let render = |vendor, usable| RenderNode { vendor, node: node("/dev/dri/renderD128", usable) };
        let mut facts = Facts { gstreamer: (1, 26, 2), va: Some(0), ..Facts::default() };
        for (vendor, usable, want) in [
            (Some(INTEL), true, Some(("va-driver", "intel-media-va-driver"))),
            (Some(AMD), true, Some(("va-driver", "mesa-va-drivers"))),
            (Some(INTEL), false, Some(("render-permission", "usermod -aG video "))),
            (Some(NVIDIA), true, None),
            (Some(0x1234), true, None),
            (None, true, None),
        ] {
            facts.render_nodes = vec![render(vendor, usable)];
            match want {
                Some((code, word)) => {
                    assert_eq!(codes(&facts), [code, "no-gpu"]);
                    assert!(remedy(&facts, code).contains(word));
                }
                None => assert_eq!(codes(&facts), ["no-gpu"]),
            }
        }
        facts.va = None;
        facts.render_nodes = vec![render(Some(INTEL), true)];
        assert!(remedy(&facts, "va-driver").contains("plugins-bad"));
        let elements = DeviceElements { family: Family::Va, ..found(0, Some("vah264enc")).elements };
        facts.devices = vec![Found { elements, path: Some("/dev/dri/renderD128".into()) }];
        facts.has_parser = true;
        assert!(codes(&facts).is_empty());
        facts.has_parser = false;
        assert_eq!(codes(&facts), ["!gpu-parser"]);
    }
}
