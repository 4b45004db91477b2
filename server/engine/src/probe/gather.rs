//! Finds the facts out: GStreamer's registry, the driver's libraries, NVML, device nodes, the environment. No judgement.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gstreamer as gst;
use nix::unistd::{AccessFlags, access};
use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;

use super::facts::{Facts, Gpu, Node, Nvml, RenderNode, Surroundings};
use super::{devices, driver};
use crate::backend::realize::has;

/// GStreamer must have been started.
pub(crate) fn facts() -> Facts {
    let (major, minor, micro, _) = gst::version();
    let features = |plugin: &str| {
        let registry = gst::Registry::get();
        registry.find_plugin(plugin).map(|_| registry.features_by_plugin(plugin).len())
    };
    Facts {
        gstreamer: (major, minor, micro),
        nvcodec: features("nvcodec"),
        va: features("va"),
        has_parser: has("h264parse"),
        devices: devices::all(),
        driver: driver::ask(),
        nvml: nvml(),
        nvidia_nodes: nodes(Path::new("/dev"), |name| {
            name == "nvidiactl" || name == "nvidia-uvm" || name.strip_prefix("nvidia").is_some_and(is_number)
        }),
        render_nodes: nodes(Path::new("/dev/dri"), |name| name.strip_prefix("renderD").is_some_and(is_number))
            .into_iter()
            .map(|node| RenderNode { vendor: vendor_of(&node.path), node })
            .collect(),
        nvidia_on_bus: nvidia_on_bus(Path::new("/sys/bus/pci/devices")),
        surroundings: surroundings(),
    }
}

fn nvml() -> Nvml {
    // The name without a number exists only where somebody develops against it.
    let library = match nvml_wrapper::Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init() {
        Ok(library) => library,
        Err(NvmlError::LibloadingError(_)) => return Nvml::Absent,
        Err(NvmlError::LibRmVersionMismatch) => return Nvml::VersionMismatch,
        Err(e) => return Nvml::Failed(e.to_string()),
    };
    let read = || {
        let count = library.device_count()?;
        let gpus = (0..count).map(|index| gpu(&library, index)).collect::<Result<Vec<_>, NvmlError>>()?;
        Ok::<_, NvmlError>(Nvml::Read { driver: library.sys_driver_version()?, gpus })
    };
    read().unwrap_or_else(|e| Nvml::Failed(e.to_string()))
}

fn gpu(library: &nvml_wrapper::Nvml, index: u32) -> Result<Gpu, NvmlError> {
    const MIB: u64 = 1 << 20;
    let device = library.device_by_index(index)?;
    let memory = device.memory_info().ok();
    Ok(Gpu {
        name: device.name()?,
        uuid: device.uuid()?,
        pci: device.pci_info()?.bus_id.to_lowercase(),
        memory_total: memory.as_ref().map(|m| m.total / MIB),
        memory_used: memory.as_ref().map(|m| m.used / MIB),
        // Consumer cards and Jetsons do not answer everything.
        encoder_sessions: device.encoder_stats().ok().map(|s| s.session_count),
        max_video_clock: device.max_clock_info(Clock::Video).ok(),
        mig: device.mig_mode().is_ok_and(|mode| mode.current == 1),
    })
}

fn nodes(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<Node> {
    let mut found: Vec<Node> = entries(folder)
        .into_iter()
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(&wanted))
        .map(|path| Node {
            usable: access(&path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok(),
            group: fs::metadata(&path).map_or_else(|_| "?".into(), |m| group_name(m.gid())),
            path: path.to_string_lossy().into_owned(),
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map_or_else(|_| Vec::new(), |all| all.filter_map(|e| Some(e.ok()?.path())).collect())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn group_name(id: u32) -> String {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    group_in(&groups, id).unwrap_or_else(|| id.to_string())
}

/// group(5): name:password:id:members
fn group_in(groups: &str, id: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

fn hexadecimal(path: &Path) -> Option<u32> {
    u32::from_str_radix(fs::read_to_string(path).ok()?.trim().trim_start_matches("0x"), 16).ok()
}

fn vendor_of(node: &str) -> Option<u16> {
    let name = Path::new(node).file_name()?;
    let vendor = hexadecimal(&Path::new("/sys/class/drm").join(name).join("device/vendor"))?;
    u16::try_from(vendor).ok()
}

/// Display controllers (PCI class 03) of vendor 10de.
fn nvidia_on_bus(bus: &Path) -> usize {
    let nvidia = |device: &PathBuf| {
        hexadecimal(&device.join("vendor")) == Some(0x10de)
            && hexadecimal(&device.join("class")).is_some_and(|class| class >> 16 == 0x03)
    };
    entries(bus).iter().filter(|device| nvidia(device)).count()
}

fn surroundings() -> Surroundings {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let cache = super::cache_folder();
    let registry = var("GST_REGISTRY_1_0").or_else(|| var("GST_REGISTRY")).unwrap_or_else(|| {
        cache.join(format!("gstreamer-1.0/registry.{}.bin", std::env::consts::ARCH)).to_string_lossy().into_owned()
    });
    Surroundings {
        container: Path::new("/.dockerenv").exists()
            || Path::new("/run/.containerenv").exists()
            || var("KUBERNETES_SERVICE_HOST").is_some()
            || var("container").is_some(),
        capabilities: var("NVIDIA_DRIVER_CAPABILITIES"),
        visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        registry,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nvideo:x:44:alice,bob\nrender:x:104:\n";
        assert_eq!(group_in(groups, 44).as_deref(), Some("video"));
        assert_eq!(group_in(groups, 5), None);
        assert_eq!(group_in("nonsense\n:::\n", 5), None);
    }

    #[test]
    fn only_nvidias_display_controllers_count() {
        let bus = tempfile::tempdir().unwrap();
        for (name, vendor, class) in [
            ("0000:01:00.0", "0x10de\n", "0x030000\n"),
            ("0000:01:00.1", "0x10de\n", "0x040300\n"),
            ("0000:02:00.0", "0x10de\n", "0x030200\n"),
            ("0000:03:00.0", "0x8086\n", "0x030000\n"),
            ("0000:04:00.0", "zz\n", "\n"),
        ] {
            let device = bus.path().join(name);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("vendor"), vendor).unwrap();
            fs::write(device.join("class"), class).unwrap();
        }
        assert_eq!(nvidia_on_bus(bus.path()), 2);
        assert_eq!(nvidia_on_bus(Path::new("/no/such")), 0);
    }

    #[test]
    fn nodes_tell_whether_they_may_be_used() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nvidia1", "nvidia0", "nvidia", "other"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = nodes(folder.path(), |name| name.strip_prefix("nvidia").is_some_and(is_number));
        let names: Vec<&str> = found.iter().map(|n| n.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["nvidia0", "nvidia1"]);
        assert!(found.iter().all(|n| n.usable));
    }

    #[test]
    fn this_host_can_be_asked_whatever_it_has() {
        gst::init().unwrap();
        let facts = facts();
        assert!(facts.gstreamer >= (1, 22, 0) && !facts.surroundings.registry.is_empty());
    }
}
