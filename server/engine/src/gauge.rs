//! How busy a GPU's engines are, as NVIDIA's management library (NVML) tells it.

use nvml_wrapper::Nvml;

/// Per cent, averaged over the engines of a kind: with two of them, 50 may be one that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineUse {
    pub encoder: u32,
    pub decoder: u32,
}

/// One GPU, asked again and again.
pub struct Gauge {
    library: Nvml,
    uuid: String,
}

impl Gauge {
    /// `uuid` as NVML and CUDA spell it (`GPU-…`). None: no driver, no such GPU, or one whose engines it does not read.
    pub fn open(uuid: &str) -> Option<Self> {
        let library = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init().ok()?;
        let gauge = Self { library, uuid: uuid.to_owned() };
        gauge.read().map(|_| gauge)
    }

    /// Over the driver's own sampling period, 1/6 s to 1 s.
    pub fn read(&self) -> Option<EngineUse> {
        let gpu = self.library.device_by_uuid(self.uuid.as_str()).ok()?;
        let decoder = gpu.decoder_utilization().ok()?.utilization;
        // A GPU without NVENC may say so by refusing to answer.
        let encoder = gpu.encoder_utilization().map_or(0, |u| u.utilization);
        Some(EngineUse { encoder, decoder })
    }
}
