//! Publishers' media in: RTP over UDP, WHIP and RTSP become one stream of `IngestEvent`s per session.
//!
//! Cores are sans-IO (time is an argument), shells around them are thin tokio tasks.
#![allow(unused_variables, dead_code)]

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
}

impl IngestStats {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl IngestStats {
    pub fn last_error(&self) -> Option<String> {
        None
    }
}
pub mod rtp {

    //! RTP over UDP, described by an SDP.
    use super::*;

    pub fn check(sdp: &str) -> Result<(), SdpError> {
        todo!()
    }
    /// The SDP cannot be used; the line number counts from 1.
    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("SDP line {line}: {problem}")]
    pub struct SdpError {
        pub line: usize,
        pub problem: String,
    }

    #[derive(Debug, thiserror::Error)]
    pub enum ListenError {
        #[error(transparent)]
        Sdp(#[from] SdpError),
        #[error("cannot listen on {address}: {source}")]
        Bind { address: SocketAddr, source: std::io::Error },
    }

    /// Listens on the SDP's addresses and ports. Ends after `idle_timeout` of silence once media has flowed.
    pub async fn listen(sdp: &str, idle_timeout: std::time::Duration) -> Result<IngestHandle, ListenError> {
        todo!()
    }
}

pub mod rtsp {

    //! RTSP pull (retina): one task that connects, plays, reconnects with back-off.
    use super::*;

    #[derive(Clone, Debug)]
    pub struct PullOptions {
        pub url: url::Url,
        pub idle_timeout: std::time::Duration,
    }

    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("RTSP URL: {0}")]
    pub struct BadUrl(pub String);

    pub fn check(o: &PullOptions) -> Result<(), BadUrl> {
        todo!()
    }
    /// Starts pulling. After a lost connection the handle goes on with `Discontinuity` once media flows again.
    pub fn pull(options: PullOptions) -> Result<IngestHandle, BadUrl> {
        todo!()
    }
}

pub mod whip {
    //! WebRTC publishers (RFC 9725) with the webrtc crate; all sessions share one UDP port.
    use super::*;

    #[derive(Clone, Debug)]
    pub struct WhipOptions {
        pub udp_listen: SocketAddr,
        /// Addresses to announce instead of the local one (NAT, containers).
        pub external_addresses: Vec<std::net::IpAddr>,
        /// Nothing heard for so long: the session ends with `Timeout`.
        pub idle_timeout: std::time::Duration,
        pub max_sessions: usize,
    }

    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    pub enum WhipError {
        /// 400
        #[error("the SDP offer cannot be read: {0}")]
        Malformed(String),
        /// 422
        #[error("the SDP offer cannot be accepted: {0}")]
        Unacceptable(String),
        /// 503
        #[error("no room for another session")]
        Full,
        /// 500
        #[error("{0}")]
        Internal(String),
    }

    /// The shared UDP port and all its sessions. Cheap to clone.
    #[derive(Clone)]
    pub struct WhipServer {}

    pub struct Accepted {
        pub answer: String,
        /// Strong entity tag of the ICE session, without quotes.
        pub etag: String,
        pub session: WhipSession,
        pub ingest: IngestHandle,
    }

    /// The HTTP side's grip on a session.
    #[derive(Clone)]
    pub struct WhipSession {}

    impl WhipServer {
        pub async fn bind(options: WhipOptions) -> std::io::Result<Self> {
            todo!()
        }
        pub fn local_addr(&self) -> SocketAddr {
            todo!()
        }
        /// Negotiates: H.264 (required unless the offer has audio only) and Opus.
        pub async fn accept(&self, offer: &str) -> Result<Accepted, WhipError> {
            todo!()
        }
    }

    impl WhipSession {
        pub fn is_closed(&self) -> bool {
            todo!()
        }
        /// Trickle ICE: an `application/trickle-ice-sdpfrag` body.
        pub async fn add_candidates(&self, fragment: &str) -> Result<(), WhipError> {
            todo!()
        }
        /// Time since anything valid was heard from the publisher; for take-over (C38).
        pub fn silent_for(&self) -> std::time::Duration {
            todo!()
        }
        /// Ends the session: DTLS close, ICE gone, `Ended(reason)`.
        pub fn close(&self, reason: media::EndReason) {
            todo!()
        }
    }
}
