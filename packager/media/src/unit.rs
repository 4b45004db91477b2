//! Access units and the other things that an ingest hands to its session.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::{ClockMap, MediaDuration, MediaTime, TrackConfig, TrackKind};

/// One coded picture or audio frame with the parameters in force for it.
///
/// H.264 data is a sequence of NAL units, each behind a 4-byte big-endian length; parameter sets, access unit
/// delimiters and filler are stripped (the sets stand in `config`); H.265 the same. AV1 data is a temporal unit of OBUs with
/// their sizes, without its delimiter; that of a key frame begins with the sequence header. AAC data is one raw frame without ADTS, Opus data
/// one packet (RFC 6716).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// Presentation time on the session's timeline, shared by its audio and video.
    pub pts: MediaTime,
    /// Decoding time; never after `pts`, strictly rising within a track.
    pub dts: MediaTime,
    /// How long it lasts where the format says so (audio); `None` for video, whose next DTS tells.
    pub duration: Option<MediaDuration>,
    /// An IDR picture; in AV1 a key frame; every audio frame.
    pub key: bool,
    pub config: Arc<TrackConfig>,
    pub data: Bytes,
}

impl AccessUnit {
    pub fn kind(&self) -> TrackKind {
        self.config.kind()
    }
}

/// What an ingest tells its session, in order. Damaged media is data: it arrives as `Gap`, never as an error.
#[derive(Clone, Debug)]
pub enum IngestEvent {
    Unit(AccessUnit),
    /// Something of the track is missing before its next unit. Video resumes at a key frame.
    Gap {
        track: TrackKind,
        reason: GapReason,
    },
    /// The timeline jumped or the sender restarted: what follows does not line up with what came before.
    Discontinuity,
    /// A better mapping of media time to wall-clock time; for PROGRAM-DATE-TIME.
    Clock(ClockMap),
    /// The last event.
    Ended(EndReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Packets were lost and not repaired in time.
    Loss,
    /// The bitstream gate refused a NAL unit.
    Refused,
    /// The session could not keep up.
    Overload,
}

/// Why a session ended: one word for the log, the metric label, the page and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The publisher said goodbye: DELETE, DTLS close, RTSP TEARDOWN.
    Closed,
    /// Nothing came for longer than the time-out.
    Timeout,
    /// The transport failed: ICE, DTLS, TCP.
    Transport,
    /// The source refused us or vanished: RTSP error after all retries.
    SourceFailed,
    /// The media cannot be used: no allowed codec, no parameter sets, no key frame.
    Unusable,
    /// Another publisher took the channel over.
    Replaced,
    /// An operator removed or changed the channel.
    Removed,
    /// The server is shutting down.
    Shutdown,
    /// A defect of ours ended the session; the log has the details.
    Internal,
}

impl EndReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::SourceFailed => "source_failed",
            Self::Unusable => "unusable",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }
}
