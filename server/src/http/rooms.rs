//! The HTTP side's way to channels and publishers: the supervisor, or in tests channels that are simply there.

use std::sync::Arc;

use media::ChannelName;

use crate::channel::{Channel, ChannelStatus};
use crate::fleet::{DevicesStatus, Fleet};
use crate::supervisor::{ChannelRequest, Published, Put, Refusal, Supervisor};

pub enum Rooms {
    Supervisor(Supervisor),
    #[cfg(test)]
    Fixed(super::tests::Fixed),
}

impl Rooms {
    pub fn channel(&self, name: &str) -> Option<Arc<Channel>> {
        match self {
            Self::Supervisor(s) => s.channel(name),
            #[cfg(test)]
            Self::Fixed(f) => f.channel(name),
        }
    }
    pub fn status(&self) -> Vec<ChannelStatus> {
        match self {
            Self::Supervisor(s) => s.status(),
            #[cfg(test)]
            Self::Fixed(f) => f.status(),
        }
    }
    /// None in tests without devices.
    pub fn fleet(&self) -> Option<&Fleet> {
        match self {
            Self::Supervisor(s) => Some(s.fleet()),
            #[cfg(test)]
            Self::Fixed(_) => None,
        }
    }
    pub fn devices(&self) -> Option<DevicesStatus> {
        self.fleet().map(Fleet::status)
    }
    pub fn status_of(&self, name: &str) -> Option<ChannelStatus> {
        match self {
            Self::Supervisor(s) => s.status_of(name),
            #[cfg(test)]
            Self::Fixed(f) => f.status().into_iter().find(|s| s.name.as_str() == name),
        }
    }
    pub async fn put(&self, name: ChannelName, request: ChannelRequest) -> Result<Put, Refusal> {
        match self {
            Self::Supervisor(s) => s.put(name, request).await,
            #[cfg(test)]
            Self::Fixed(f) => f.put(&name, request),
        }
    }
    pub async fn delete(&self, name: &ChannelName) -> Result<(), Refusal> {
        match self {
            Self::Supervisor(s) => s.delete(name).await,
            #[cfg(test)]
            Self::Fixed(f) => f.delete(name),
        }
    }
    pub async fn whip_post(&self, name: ChannelName, offer: &str) -> Result<Published, Refusal> {
        match self {
            Self::Supervisor(s) => s.whip_post(name, offer).await,
            #[cfg(test)]
            Self::Fixed(f) => f.whip_post(&name, offer),
        }
    }
    pub async fn whip_patch(
        &self,
        name: &ChannelName,
        session: &str,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Result<(), Refusal> {
        match self {
            Self::Supervisor(s) => s.whip_patch(name, session, if_match, fragment).await,
            #[cfg(test)]
            Self::Fixed(f) => f.whip_patch(name, session, if_match, fragment),
        }
    }
    pub fn whip_session_exists(&self, name: &ChannelName, session: &str) -> bool {
        match self {
            Self::Supervisor(s) => s.whip_session_exists(name, session),
            #[cfg(test)]
            Self::Fixed(_) => session == "5e55",
        }
    }
    pub async fn whip_delete(&self, name: &ChannelName, session: &str) -> Result<(), Refusal> {
        match self {
            Self::Supervisor(s) => s.whip_delete(name, session).await,
            #[cfg(test)]
            Self::Fixed(f) => f.whip_delete(name, session),
        }
    }
}
