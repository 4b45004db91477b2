//! The one owner of all channels: creates, finds and removes them and lets publishers in.

use std::sync::Arc;
use std::time::Duration;

use media::ChannelName;
use serde::Deserialize;

use crate::channel::{Channel, ChannelStatus};

/// Cheap to clone; the HTTP side's only way to channels and publishers.
#[derive(Clone)]
pub struct Supervisor {}

/// The body of `PUT /api/v1/channels/{name}`, and a `[channels.NAME]` table of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRequest {
    pub source: SourceRequest,
    pub ladder: Option<LadderChoice>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceRequest {
    Rtp { sdp: String },
    Rtsp { url: String },
    Whip {},
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum LadderChoice {
    /// A name from the configuration, or `passthrough`.
    Named(String),
    Inline(crate::config::Ladder),
}

/// A typed refusal: becomes an RFC 9457 problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Last path segment of the problem's `type`, for example `channel-busy`.
    pub kind: &'static str,
    pub detail: String,
    pub retry_after: Option<Duration>,
}

pub struct Published {
    pub answer: String,
    /// Without quotes.
    pub etag: String,
    /// 128 random bits in hex; the last path segment of Location `/whip/{channel}/{session}`.
    pub session: String,
}

/// Whether a PUT made the channel or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    Replaced,
    Unchanged,
}

impl Supervisor {
    pub async fn start(config: Arc<crate::config::Config>) -> std::io::Result<Self> {
        todo!()
    }
    /// The hot path: no await, no lock held on return.
    pub fn channel(&self, name: &str) -> Option<Arc<Channel>> {
        todo!()
    }
    pub fn status(&self) -> Vec<ChannelStatus> {
        todo!()
    }
    pub fn status_of(&self, name: &str) -> Option<ChannelStatus> {
        todo!()
    }
    pub async fn put(&self, name: ChannelName, request: ChannelRequest) -> Result<Put, Refusal> {
        todo!()
    }
    /// Ends the channel for good: ENDLIST, then gone after the playlist's duration.
    pub async fn delete(&self, name: &ChannelName) -> Result<(), Refusal> {
        todo!()
    }
    pub async fn whip_post(&self, name: ChannelName, offer: &str) -> Result<Published, Refusal> {
        todo!()
    }
    pub async fn whip_patch(
        &self,
        name: &ChannelName,
        session: &str,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Result<(), Refusal> {
        todo!()
    }
    pub async fn whip_delete(&self, name: &ChannelName, session: &str) -> Result<(), Refusal> {
        todo!()
    }
    /// Refuses new publishers, ends all sessions and writes ENDLIST everywhere; returns when done or at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        todo!()
    }
}
