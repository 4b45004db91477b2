//! Decoding, scaling and encoding in worker processes. The only crate that names GStreamer.
//!
//! The parent's side is `Engine`; the child's side is `worker::run`, started as `fishladder worker`.
#![allow(unused_variables, dead_code)]

use std::path::PathBuf;

use media::{AccessUnit, MediaTime, RenditionId};
use tokio::sync::mpsc;

/// A ladder as data, resolved for one source: what the worker makes of a session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LadderSpec {
    pub video: Vec<VideoRung>,
    /// AAC-LC out of whatever audio comes in; None where the source is AAC already or there is no audio.
    pub audio: Option<AudioRung>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VideoRung {
    pub id: RenditionId,
    /// Even sizes, never above the source's, its aspect ratio kept.
    pub width: u32,
    pub height: u32,
    /// Frame rate as (frames, seconds); None: the source's.
    pub frame_rate: Option<(u32, u32)>,
    /// Bits a second.
    pub bitrate: u32,
    /// x264 speed preset.
    pub preset: String,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AudioRung {
    pub id: RenditionId,
    /// Bits a second.
    pub bitrate: u32,
    pub sample_rate: u32,
    pub channels: u8,
}

#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The program to start as `PROGRAM worker`; the server passes its own executable.
    pub program: PathBuf,
    /// No output for so long while input flows: the worker is killed and started anew.
    pub stall_timeout: std::time::Duration,
}

/// What goes to the engine, in decode order across audio and video.
#[derive(Clone, Debug)]
pub struct EngineInput {
    pub unit: AccessUnit,
    /// Every rung starts an IDR at this unit's presentation time.
    pub force_key: bool,
}

#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// An encoded unit; per rendition in decode order, never repeated, also across a worker's restart.
    Unit { rendition: RenditionId, unit: AccessUnit },
    /// The worker died or stalled and was started anew; playback goes on behind it.
    WorkerRestarted { reason: String, restarts: u32 },
    /// The worker crashed too often; nothing more comes from this engine.
    Failed { reason: String },
}

/// One session's engine: feeds a worker process, restarts it when it dies or stalls, replays the current GOP to the new
/// one so that no frame is missing. Dropping it ends the worker.
pub struct Engine {
    pub events: mpsc::Receiver<EngineEvent>,
}

impl Engine {
    pub fn start(spec: LadderSpec, options: EngineOptions) -> std::io::Result<Self> {
        todo!()
    }
    /// Never blocks: when the worker is behind by more than its queue, drops to the next key frame and counts it.
    pub fn push(&self, input: EngineInput) {
        todo!()
    }
    /// Input units dropped because the worker could not keep up.
    pub fn dropped(&self) -> u64 {
        todo!()
    }
    /// The worker's process id while one runs.
    pub fn worker_pid(&self) -> Option<u32> {
        todo!()
    }
}

pub mod worker {
    //! The child process.
    /// Runs until standard input closes. The process's exit code.
    pub fn run() -> std::process::ExitCode {
        todo!()
    }
}

pub mod demo {
    //! The demo publisher: moving picture, burned-in clock and tone as RTP over loopback.
    /// What `fishladder demo-publisher` takes.
    #[derive(Clone, Debug)]
    pub struct DemoOptions {
        pub video_port: u16,
        pub audio_port: u16,
    }
    /// The SDP that the ingest must be given to receive the demo.
    pub fn sdp(options: &DemoOptions) -> String {
        todo!()
    }
    /// Publishes until killed.
    pub fn run(options: DemoOptions) -> std::process::ExitCode {
        todo!()
    }
}

pub mod probe {
    //! What this host has: for `fishladder doctor` and for refusing to start a ladder that cannot run.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Finding {
        pub ok: bool,
        pub subject: String,
        pub detail: String,
        pub remedy: Option<String>,
    }
    /// Checks the GStreamer version and every element the engine uses.
    pub fn examine() -> Vec<Finding> {
        todo!()
    }
}

mod resolve;
pub use resolve::{RungRequest, resolve_video};
