//! A ladder as data: what a worker makes of a session.

use media::RenditionId;
use serde::{Deserialize, Serialize};

use crate::backend::{Codec, Family, Policy, Tune};

/// A ladder as data, resolved for one source: what the worker makes of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderSpec {
    pub video: Vec<VideoRung>,
    /// AAC-LC out of whatever audio comes in; None where the source is AAC already or there is no audio.
    pub audio: Option<AudioRung>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoRung {
    pub id: RenditionId,
    /// Even sizes, never above the source's, its aspect ratio kept.
    pub width: u32,
    pub height: u32,
    /// Frame rate as (frames, seconds); None: the source's.
    pub frame_rate: Option<(u32, u32)>,
    #[serde(default)]
    pub codec: Codec,
    /// Bits a second.
    pub bitrate: u32,
    /// x264's word (`veryfast`) or NVENC's (`p4`); every back end knows both.
    pub preset: String,
    #[serde(default)]
    pub tune: Tune,
}

/// The GPU that a session's worker runs on. A worker that is given none uses the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDevice {
    pub family: Family,
    /// NVIDIA: the UUID (`GPU-…`, `MIG-…`) of the only GPU that the worker sees. VA: the render node (`/dev/dri/renderD128`).
    /// Jetson has one.
    pub id: String,
    /// What the worker does when the device turns out not to do all; `shorten` counts as `gpu-only` here, since the
    /// session's renditions have been announced by then.
    pub policy: Policy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioRung {
    pub id: RenditionId,
    /// Bits a second.
    pub bitrate: u32,
    pub sample_rate: u32,
    pub channels: u8,
}

impl LadderSpec {
    /// Renditions in the order of the protocol's track numbers: video rungs first, audio last.
    pub fn rendition(&self, track: u8) -> Option<&RenditionId> {
        let index = usize::from(track);
        match self.video.get(index) {
            Some(rung) => Some(&rung.id),
            None if index == self.video.len() => self.audio.as_ref().map(|a| &a.id),
            None => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.video.is_empty() && self.audio.is_none()
    }
}
