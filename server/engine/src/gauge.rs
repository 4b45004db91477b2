//! How GPUs do, as NVIDIA's management library (NVML) tells it: for a measurement of one's own, and once a second for the
//! server, which loads no C libraries itself and therefore asks a child process, `fishladder gauge`.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tracing::{debug, info, warn};

use crate::parent::{forward_log, spawn};
use crate::worker::{complain, confine, standard_input};

/// How often the child looks.
pub const PERIOD: Duration = Duration::from_secs(1);
/// A child that is silent for so long hangs in the driver.
const SILENCE: Duration = Duration::from_secs(10);
/// A line of the child: some 300 bytes a GPU.
const MAX_LINE: u64 = 64 << 10;
/// Between two children, doubled each time; a child that lived for long begins anew.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
const LONG_LIFE: Duration = Duration::from_secs(60);
const OPEN_FILES: u64 = 256;

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
        let gauge = Self { library: library().ok()?, uuid: uuid.to_owned() };
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

/// One GPU at one moment, all programs together; None is what it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub uuid: String,
    /// Per cent of the engines' time.
    pub encoder: Option<u32>,
    pub decoder: Option<u32>,
    pub vram_used_mib: Option<u64>,
    pub vram_total_mib: Option<u64>,
    pub temperature_c: Option<u32>,
    /// Why its clock is lowered against its will; an idle GPU lowers it by itself, which is not here.
    pub throttle: Vec<String>,
    /// The clock of its video engines and the highest that there is, MHz.
    pub video_clock: Option<(u32, u32)>,
    pub encoding_sessions: Option<u32>,
}

fn library() -> Result<Nvml, nvml_wrapper::error::NvmlError> {
    // The name without a number exists only where somebody develops against it.
    Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init()
}

/// The child: writes a line with all GPUs once a second until its standard input, a socket, is closed.
pub fn run() -> ExitCode {
    confine(OPEN_FILES);
    let library = match library() {
        Ok(library) => library,
        Err(e) => return complain(&format!("NVML does not answer: {e}")),
    };
    let look = || -> std::io::Result<()> {
        let mut socket = standard_input()?;
        socket.set_read_timeout(Some(PERIOD))?;
        loop {
            let mut line = serde_json::to_vec(&samples(&library))?;
            line.push(b'\n');
            socket.write_all(&line)?;
            // The parent says nothing: this waits for the next second or for the end.
            match socket.read(&mut [0; 1]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
        }
    };
    look().map_or_else(|e| complain(&e.to_string()), |()| ExitCode::SUCCESS)
}

fn samples(library: &Nvml) -> Vec<Sample> {
    let count = library.device_count().unwrap_or_default();
    (0..count).filter_map(|index| sample(library, index)).collect()
}

/// None: it has no name to be known by, so it may be gone.
fn sample(library: &Nvml, index: u32) -> Option<Sample> {
    const MIB: u64 = 1 << 20;
    let gpu = library.device_by_index(index).ok()?;
    let memory = gpu.memory_info().ok();
    let clocks = (gpu.clock_info(Clock::Video).ok(), gpu.max_clock_info(Clock::Video).ok());
    Some(Sample {
        uuid: gpu.uuid().ok()?,
        encoder: gpu.encoder_utilization().ok().map(|u| u.utilization),
        decoder: gpu.decoder_utilization().ok().map(|u| u.utilization),
        vram_used_mib: memory.as_ref().map(|m| m.used / MIB),
        vram_total_mib: memory.as_ref().map(|m| m.total / MIB),
        temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok(),
        throttle: gpu.current_throttle_reasons().map_or_else(|_| Vec::new(), reasons),
        video_clock: clocks.0.zip(clocks.1),
        encoding_sessions: gpu.encoder_stats().ok().map(|s| s.session_count),
    })
}

fn reasons(active: ThrottleReasons) -> Vec<String> {
    let names = [
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal-hardware"),
        (ThrottleReasons::SW_POWER_CAP, "power-cap"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power-brake"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware-slowdown"),
    ];
    names.into_iter().filter(|(reason, _)| active.contains(*reason)).map(|(_, name)| name.to_owned()).collect()
}

/// Runs `PROGRAM gauge` and tells what it says, until this future is dropped; a child that dies, hangs or talks nonsense is
/// followed by another one, after a pause that grows.
pub async fn follow(program: PathBuf, mut tell: impl FnMut(Vec<Sample>)) {
    let mut pause = PAUSES.0;
    loop {
        let began = Instant::now();
        let reason = match one_life(&program, &mut tell).await {
            Ok(reason) => reason,
            Err(e) => format!("it cannot be started: {e}"),
        };
        if began.elapsed() > LONG_LIFE {
            pause = PAUSES.0;
        }
        warn!(reason, again_in_s = pause.as_secs(), "the GPUs are not measured");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn one_life(program: &Path, tell: &mut impl FnMut(Vec<Sample>)) -> std::io::Result<String> {
    let (mut child, socket) = spawn(program, &["gauge".to_owned()], None).await?;
    let pid = child.id().unwrap_or(0);
    info!(pid, "the GPUs are measured");
    let log = child.stderr.take().map(|stderr| tokio::spawn(forward_log(stderr, pid)));
    let mut lines = BufReader::new(socket);
    let mut line = Vec::new();
    let reason = loop {
        line.clear();
        let mut bounded = (&mut lines).take(MAX_LINE);
        match tokio::time::timeout(SILENCE, bounded.read_until(b'\n', &mut line)).await {
            Err(_) => break format!("it was silent for {} s", SILENCE.as_secs()),
            Ok(Err(e)) => break format!("it is not heard: {e}"),
            Ok(Ok(0)) => break "it ended".to_owned(),
            Ok(Ok(_)) => {}
        }
        match serde_json::from_slice(&line) {
            Ok(samples) if line.ends_with(b"\n") => tell(samples),
            _ => break "it spoke nonsense".to_owned(),
        }
    };
    // It may hang in the driver; then it is reaped when the kernel lets go of it, by tokio.
    if let Err(e) = child.start_kill() {
        debug!(error = %e, "the gauge was gone already");
    }
    let status = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    if let Some(log) = log {
        log.abort();
    }
    Ok(match status {
        Ok(Ok(status)) => format!("{reason} ({status})"),
        _ => reason,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_what_slows_a_gpu_against_its_will_is_a_reason() {
        let idle = ThrottleReasons::GPU_IDLE | ThrottleReasons::APPLICATIONS_CLOCKS_SETTING;
        assert!(reasons(idle).is_empty());
        let hot = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::GPU_IDLE;
        assert_eq!(reasons(hot), ["thermal-hardware", "hardware-slowdown"]);
    }

    /// A child that says these lines and ends.
    fn child(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("gauge");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_child_that_dies_is_followed_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let sample = Sample { uuid: "GPU-1".to_owned(), temperature_c: Some(40), ..Sample::default() };
        let line = serde_json::to_string(&[&sample]).unwrap();
        let program = child(folder.path(), &format!("test \"$1\" = gauge && echo '{line}' >&0"));
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(follow(program, move |samples| said.send(samples).unwrap()));
        for _ in 0..2 {
            assert_eq!(heard.recv().await.unwrap(), std::slice::from_ref(&sample));
        }
        task.abort();
    }

    #[tokio::test]
    async fn nonsense_and_lines_without_end_are_not_listened_to() {
        let folder = tempfile::tempdir().unwrap();
        for script in
            ["echo hello >&0; sleep 60", "exec 3>&0; head -c 100000 /dev/zero | tr '\\0' '[' >&3", "printf '[]' >&0"]
        {
            let program = child(folder.path(), script);
            let reason = one_life(&program, &mut |_| panic!("nothing to tell")).await.unwrap();
            assert!(reason.starts_with("it spoke nonsense"), "{script}: {reason}");
        }
        let reason = one_life(&child(folder.path(), "exit 3"), &mut |_| {}).await.unwrap();
        assert!(reason.starts_with("it ended (exit status: 3"), "{reason}");
        assert!(one_life(Path::new("/nonexistent"), &mut |_| {}).await.is_err());
    }
}
