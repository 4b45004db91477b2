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

/// Starts pulling. After a lost connection the handle goes on with `Discontinuity` once media flows again.
pub fn pull(options: PullOptions) -> Result<IngestHandle, BadUrl> {
    todo!()
}
