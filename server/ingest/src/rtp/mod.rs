//! RTP over UDP, described by an SDP, and the cores that WHIP shares with it.

mod clock;
mod jitter;
mod listen;
mod packet;
mod pin;
pub mod rtcp;
mod session;
#[cfg(test)]
mod session_tests;
mod timestamp;
mod track;

use std::net::SocketAddr;

pub use listen::listen;
pub use packet::{Malformed, RtpPacket};
pub use session::{Feedback, RtpSession, RtpSessionConfig, TrackFormat, TrackSpec};

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

/// Whether an SDP could be listened on, without touching a socket.
pub fn check(sdp: &str) -> Result<(), SdpError> {
    crate::sdp::parse(sdp).map(|_| ())
}
