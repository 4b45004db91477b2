//! A ladder as data: what a worker makes of a session.

use media::RenditionId;
use serde::{Deserialize, Serialize};

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
    /// Bits a second.
    pub bitrate: u32,
    /// x264 speed preset.
    pub preset: String,
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
