//! Publishers' media in: RTP over UDP, WHIP and RTSP become one stream of `IngestEvent`s per session.
//!
//! Cores are sans-IO (time is an argument), shells around them are thin tokio tasks.

mod datagrams;
mod depacketize;
mod gate;
mod h264;
pub mod rtp;
pub mod rtsp;
pub mod sdp;
mod sink;
pub mod whip;

pub use sink::EventSink;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use media::IngestEvent;
use tokio::sync::mpsc;

/// What a session holds of a running ingest. Dropping it stops the ingest and frees its sockets.
pub struct IngestHandle {
    /// Bounded (`EVENT_QUEUE`); when the session cannot keep up the ingest drops to the next key frame, counts it and
    /// sends a `Gap`.
    pub events: mpsc::Receiver<IngestEvent>,
    pub control: IngestControl,
    pub stats: Arc<IngestStats>,
}

/// Events between an ingest and its session: about two seconds of 60 fps video with audio.
pub const EVENT_QUEUE: usize = 256;

/// Asks things of a running ingest; cheap to clone; ignored once the ingest has ended.
#[derive(Clone)]
pub struct IngestControl(mpsc::Sender<ControlMessage>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// A key frame would be used now: PLI where there is a way back, else nothing. Rate-limited by the ingest.
    KeyFrame,
    /// Stop and send `Ended(reason)`.
    Stop(media::EndReason),
}

impl IngestControl {
    pub fn new(queue: mpsc::Sender<ControlMessage>) -> Self {
        Self(queue)
    }
    pub fn request_key_frame(&self) {
        let _ = self.0.try_send(ControlMessage::KeyFrame);
    }
    pub fn stop(&self, reason: media::EndReason) {
        let _ = self.0.try_send(ControlMessage::Stop(reason));
    }
}

/// Counters for metrics and the status page; written by the ingest, read by anyone.
#[derive(Debug, Default)]
pub struct IngestStats {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// Packets that never came in time.
    pub lost: AtomicU64,
    pub repaired: AtomicU64,
    pub duplicate: AtomicU64,
    pub late: AtomicU64,
    pub malformed: AtomicU64,
    pub wrong_source: AtomicU64,
    /// NAL units the bitstream gate refused.
    pub gate_refused: AtomicU64,
    /// Access units dropped because the session's queue was full.
    pub overload_dropped: AtomicU64,
    pub key_frame_requests: AtomicU64,
    pub discontinuities: AtomicU64,
    /// Where packets come from once pinned.
    pub remote: std::sync::OnceLock<SocketAddr>,
    /// Why a source that is pulled does not play just now, as a sentence for the operator.
    pub last_error: std::sync::Mutex<Option<String>>,
}

impl IngestStats {
    /// Why the source cannot be had at the moment, for the operator.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
