//! One publisher's RTP, from packets to events, without I/O and without a clock: raw RTP and WHIP both drive it.
//!
//! Contract: call one of the `on_*` functions, then drain `poll_event` and `poll_feedback`, then sleep until
//! `next_timeout` or the next packet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::{AacConfig, IngestEvent, TrackKind, WallTime};

use crate::IngestStats;

/// What a session is told about its publisher before the first packet.
#[derive(Clone, Debug)]
pub struct RtpSessionConfig {
    /// At most one of each kind.
    pub tracks: Vec<TrackSpec>,
    /// How long a packet waits for a missing one before it.
    pub jitter_budget: Duration,
    /// The publisher hears PLI: `Feedback::KeyFrame` is of use.
    pub can_ask_key_frames: bool,
    /// The publisher repairs: `Feedback::Nack` is of use.
    pub can_nack: bool,
    /// `Feedback::Report` once a second per track.
    pub can_report: bool,
}

/// One expected track.
#[derive(Clone, Debug)]
pub struct TrackSpec {
    pub payload_type: u8,
    /// RFC 4588 retransmissions of this track, with the original sequence number in front of the payload.
    pub rtx_payload_type: Option<u8>,
    pub format: TrackFormat,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Known from signalling; `None` takes whatever comes with the payload type.
    pub ssrc: Option<u32>,
}

/// Codec and what the SDP's fmtp says about it.
#[derive(Clone, Debug)]
pub enum TrackFormat {
    /// RFC 6184, packetization modes 0 and 1. `parameter_sets`: SPS and PPS of sprop-parameter-sets, decoded.
    H264 { parameter_sets: Vec<Bytes> },
    /// RFC 7587.
    Opus { channels: u8 },
    /// RFC 3640, AAC-hbr and -lbr.
    Aac { config: AacConfig, size_length: u8, index_length: u8, index_delta_length: u8 },
}

impl TrackSpec {
    pub fn kind(&self) -> TrackKind {
        match self.format {
            TrackFormat::H264 { .. } => TrackKind::Video,
            TrackFormat::Opus { .. } | TrackFormat::Aac { .. } => TrackKind::Audio,
        }
    }
}

/// What to send back to the publisher, where there is a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Ask for a key frame: PLI (at most one per 500 ms and source).
    KeyFrame { ssrc: u32 },
    /// Ask for these packets again.
    Nack { ssrc: u32, seqs: Vec<u16> },
    /// A report block for a receiver report.
    Report(super::rtcp::ReportBlock),
}

/// See the module's head.
pub struct RtpSession {
    config: RtpSessionConfig,
    stats: Arc<IngestStats>,
}

impl RtpSession {
    pub fn new(config: RtpSessionConfig, stats: Arc<IngestStats>) -> Self {
        Self { config, stats }
    }

    /// A datagram of a bundled transport: the track is found by SSRC, then by payload type.
    pub fn on_rtp(&mut self, _now: Instant, _wall: WallTime, _packet: Bytes) {}

    /// A datagram whose socket tells the track (its index in `RtpSessionConfig::tracks`).
    pub fn on_track_rtp(&mut self, _now: Instant, _wall: WallTime, _track: usize, _packet: Bytes) {}

    /// A compound RTCP datagram; sources are found by SSRC.
    pub fn on_rtcp(&mut self, _now: Instant, _wall: WallTime, _packet: Bytes) {}

    /// A compound RTCP datagram whose socket tells the track.
    pub fn on_track_rtcp(&mut self, _now: Instant, _wall: WallTime, _track: usize, _packet: Bytes) {}

    /// The session's consumer would use a key frame now.
    pub fn request_key_frame(&mut self, _now: Instant) {}

    pub fn on_timeout(&mut self, _now: Instant) {}

    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn poll_event(&mut self) -> Option<IngestEvent> {
        let _ = (&self.config, &self.stats);
        None
    }

    pub fn poll_feedback(&mut self) -> Option<Feedback> {
        None
    }
}
