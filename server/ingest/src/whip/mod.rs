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
        Ok(Self {})
    }
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
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
