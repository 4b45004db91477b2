//! What was found out about this host's GPUs, as data: everything that `traps` judges, and nothing that it judges by.

use super::devices::Found;

/// A GStreamer version (major, minor, micro).
pub(crate) type Version = (u32, u32, u32);

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) gstreamer: Version,
    /// Features of a plug-in in GStreamer's registry; None: not installed.
    pub(crate) nvcodec: Option<usize>,
    pub(crate) va: Option<usize>,
    pub(crate) has_parser: bool,
    /// Devices that GStreamer has elements for.
    pub(crate) devices: Vec<Found>,
    pub(crate) driver: Driver,
    pub(crate) nvml: Nvml,
    /// `/dev/nvidia*` of this host that there are, and whether we may use them.
    pub(crate) nvidia_nodes: Vec<Node>,
    pub(crate) render_nodes: Vec<RenderNode>,
    /// Display controllers of NVIDIA's on the PCI bus: a container sees its host's.
    pub(crate) nvidia_on_bus: usize,
    pub(crate) surroundings: Surroundings,
}

/// What NVIDIA's libraries say when they are loaded as GStreamer loads them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Driver {
    pub(crate) cuda: Cuda,
    /// libnvcuvid.so.1 loads: without it there is no decoder.
    pub(crate) nvcuvid: bool,
    /// libnvidia-encode.so.1 loads: without it there is no encoder.
    pub(crate) nvenc: bool,
    /// The name under which GStreamer looks for NVRTC, and its version (major, minor) if it loads.
    pub(crate) nvrtc_name: String,
    pub(crate) nvrtc: Option<(i32, i32)>,
    /// Its versioned names that load, newest first.
    pub(crate) nvrtc_elsewhere: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cuda {
    /// No libcuda.so.1.
    #[default]
    Absent,
    /// cuInit's or another first call's result.
    Failed(i32),
    Devices(Vec<CudaDevice>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CudaDevice {
    pub(crate) name: String,
    /// `GPU-…`
    pub(crate) uuid: String,
    /// `0000:3b:00.0`
    pub(crate) pci: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Nvml {
    /// No libnvidia-ml.so.1.
    #[default]
    Absent,
    /// The loaded kernel module is of another version than the library.
    VersionMismatch,
    Failed(String),
    Read {
        driver: String,
        gpus: Vec<Gpu>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) pci: String,
    /// MiB.
    pub(crate) memory_total: Option<u64>,
    pub(crate) memory_used: Option<u64>,
    /// Encoder sessions of all processes.
    pub(crate) encoder_sessions: Option<u32>,
    /// MHz: what the engines' throughput goes with.
    pub(crate) max_video_clock: Option<u32>,
    pub(crate) mig: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) usable: bool,
    /// Name or number of the group that it belongs to.
    pub(crate) group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenderNode {
    pub(crate) node: Node,
    /// PCI vendor: 0x8086 Intel, 0x1002 AMD, 0x10de NVIDIA.
    pub(crate) vendor: Option<u16>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) container: bool,
    /// NVIDIA_DRIVER_CAPABILITIES.
    pub(crate) capabilities: Option<String>,
    /// CUDA_VISIBLE_DEVICES.
    pub(crate) visible: Option<String>,
    /// Where GStreamer keeps its list of elements.
    pub(crate) registry: String,
}
