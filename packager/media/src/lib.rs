//! The contract between all rooms: what an access unit, a track and a point in time are.
//!
//! Types only. No I/O, no clock, no codec logic beyond what a type needs to be unable to be wrong.

mod config;
mod name;
mod time;
mod unit;

pub use config::{AacConfig, Av1Config, Codec, H264Config, H265Config, OpusConfig, TrackConfig, TrackKind};
pub use name::{ChannelName, InvalidName, RenditionId};
pub use time::{ClockMap, FLICKS_PER_SECOND, MediaDuration, MediaTime, WallTime};
pub use unit::{AccessUnit, EndReason, GapReason, IngestEvent};
