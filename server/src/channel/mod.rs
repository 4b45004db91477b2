//! A channel: the public name that outlives its publishers, and what viewers and operators see of it.

mod core;
mod meter;
mod plan;
mod stretch;
mod task;
mod threads;
mod viewers;

use std::sync::Arc;

use media::{ChannelName, RenditionId};
use packager::Snapshot;
use serde::Serialize;
use tokio::sync::watch;

pub use self::task::{Command, Source, TaskOptions, run};
pub use self::threads::MediaThreads;
pub use self::viewers::Viewers;

/// The viewers' side of a channel. Handlers clone what they need out of it and never hold a lock across an await.
#[derive(Debug)]
pub struct Channel {
    pub name: ChannelName,
    /// Which renditions there are; changes when a publisher brings other tracks.
    pub renditions: watch::Receiver<Arc<RenditionSet>>,
    pub viewers: Viewers,
}

#[derive(Debug, Default)]
pub struct RenditionSet {
    /// Best first.
    pub video: Vec<RenditionView>,
    /// `aac` first, then `opus`.
    pub audio: Vec<RenditionView>,
}

#[derive(Clone, Debug)]
pub struct RenditionView {
    pub id: RenditionId,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The peak bit rate that is promised: by the encoder's target, or by the operator who knows the publisher's (`source_bitrate`).
    pub ceiling: Option<u64>,
    /// A suspended rung, or one that came back too lately to join at: players that choose a rendition now are not shown it.
    pub withheld: bool,
}

impl RenditionSet {
    /// The video renditions for the multivariant playlist: all, where none would be left.
    pub fn offered(&self) -> impl Iterator<Item = &RenditionView> {
        let all = self.video.iter().all(|view| view.withheld);
        self.video.iter().filter(move |view| all || !view.withheld)
    }

    pub fn find(&self, id: &str) -> Option<&RenditionView> {
        self.video.iter().chain(&self.audio).find(|r| r.id.as_str() == id)
    }
}

/// `GET /api/v1/channels/{name}`, and one element of `channels` in `GET /api/v1/channels`.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelStatus {
    pub name: ChannelName,
    pub state: ChannelState,
    /// When the present state began, RFC 3339 in UTC.
    pub since: String,
    pub source: Option<SourceStatus>,
    /// The ladder's name in the configuration, `inline` or `passthrough`.
    pub ladder: String,
    pub renditions: Vec<RenditionStatus>,
    pub viewers: usize,
    /// Path of the multivariant playlist.
    pub playlist: String,
    /// What the operator should know, in plain sentences.
    pub messages: Vec<Message>,
    /// Why the last session ended, while none is there.
    pub end_reason: Option<media::EndReason>,
    /// Publishers' stays so far, the present one included.
    pub sessions: u64,
    pub worker_restarts: u32,
    /// How long the slowest running rung took from a unit's way into the engine to its way out: the 95th percentile of about
    /// the last 5 s. None: nothing came out of it lately.
    pub encode_lag_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// Configured, no publisher.
    Waiting,
    /// A publisher is there, no playlist yet.
    Starting,
    Live,
    /// A publisher was there and may come back: the playlist stands.
    Interrupted,
}

#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// `rtp`, `rtsp` or `whip`.
    pub kind: &'static str,
    /// What it listens on or pulls from; credentials removed.
    pub detail: String,
    pub remote: Option<String>,
    pub video: Option<TrackStatus>,
    pub audio: Option<TrackStatus>,
    pub packets: u64,
    pub lost: u64,
    pub repaired: u64,
    pub refused: u64,
    /// Input units dropped because the worker could not keep up.
    pub engine_dropped: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct TrackStatus {
    /// RFC 6381.
    pub codec: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub frame_rate: Option<f64>,
    pub sample_rate: Option<u32>,
    pub channels: Option<u8>,
    /// Bits a second over the last seconds.
    pub bitrate: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct RenditionStatus {
    pub id: RenditionId,
    /// `video` or `audio`.
    pub kind: &'static str,
    /// True where the publisher's own coding is passed through.
    pub passthrough: bool,
    /// A rung that is not encoded at present: its playlist lists gaps.
    pub suspended: bool,
    #[serde(flatten)]
    pub track: TrackStatus,
    pub msn: u64,
    pub segments: usize,
    pub retained_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `info`, `warning` or `error`.
    pub level: &'static str,
    pub text: String,
}
