//! The configuration: built-in defaults, TOML file, `--set` overrides; all faults at once with their key paths.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use crate::supervisor::ChannelRequest;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub http: Http,
    pub whip: Whip,
    pub rtp: Rtp,
    pub rtsp: Rtsp,
    pub hls: Hls,
    pub ladder: LadderDefaults,
    /// By name; `passthrough` is built in and needs no table.
    pub ladders: BTreeMap<String, Ladder>,
    pub channels: BTreeMap<media::ChannelName, ChannelRequest>,
    pub auth: Auth,
    pub engine: Engine,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    pub certificate: std::path::PathBuf,
    pub key: std::path::PathBuf,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Whip {
    pub udp_listen: SocketAddr,
    pub external_addresses: Vec<IpAddr>,
    pub create_channels: bool,
    pub max_sessions: usize,
    pub idle_timeout: Duration,
    pub takeover_after: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Rtp {
    pub idle_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Rtsp {
    pub idle_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Hls {
    pub part_target: Duration,
    pub segment_target: Duration,
    pub window: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct LadderDefaults {
    pub default: String,
}

/// A ladder as the operator writes it: resolved against each source (never upscaled, aspect ratio kept).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ladder {
    /// The publisher's own video as the top rendition when its codec fits.
    pub passthrough: bool,
    pub rungs: Vec<Rung>,
    /// AAC bit rate, bits a second.
    pub audio_bitrate: u32,
}
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Height in pixels; the width follows the source's aspect ratio.
    pub height: u32,
    /// Bits a second.
    pub bitrate: u32,
    /// Upper bound in frames a second; the source's rate where absent or lower.
    pub max_frame_rate: Option<u32>,
    pub preset: String,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    pub publish_token: Option<Secret>,
    pub admin_token: Option<Secret>,
}
/// A secret: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    pub stall_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: String,
    pub json: bool,
}

impl Ladder {
    pub fn passthrough() -> Self {
        Self { passthrough: true, rungs: vec![], audio_bitrate: 128_000 }
    }
}
