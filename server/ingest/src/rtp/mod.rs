//! RTP over UDP, described by an SDP.
use super::*;

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
