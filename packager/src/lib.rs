//! Access units in; parts, segments and playlists out. No clock, socket, thread or runtime in here.
//!
//! Read `rendition.rs` first: push a cut or an access unit, then publish the snapshot.
#![allow(unused_variables)]

use std::sync::Arc;

use bytes::Bytes;
use media::{AccessUnit, ClockMap, MediaDuration, MediaTime, RenditionId, TrackConfig, WallTime};

/// What the configuration says about playlists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HlsSettings {
    /// What parts aim for (`hls.part_target`).
    pub part_aim: MediaDuration,
    /// What segments aim for (`hls.segment_target`).
    pub segment_target: MediaDuration,
    /// How much media a playlist lists (`hls.window`).
    pub window: MediaDuration,
}

/// How one rendition cuts parts. Fixed when the rendition is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRule {
    /// What a part aims for: a whole number of frames where the frame duration is known.
    pub aim: MediaDuration,
    /// PART-TARGET: no part is longer, and all but the exempt ones (A24) last at least 85 % of it.
    pub target: MediaDuration,
}

impl PartRule {
    /// Video whose frames last `frame` (None: unknown or varying).
    pub fn video(part_aim: MediaDuration, frame: Option<MediaDuration>) -> Self {
        todo!()
    }
    /// Audio whose frames last exactly `frame`.
    pub fn audio(part_aim: MediaDuration, frame: MediaDuration) -> Self {
        todo!()
    }
}

/// The numbers that all playlists of a channel share and that never change in the channel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelTiming {
    pub settings: HlsSettings,
    /// TARGETDURATION in seconds.
    pub target_duration: u32,
    /// HOLD-BACK, PART-HOLD-BACK, CAN-SKIP-UNTIL.
    pub hold_back: MediaDuration,
    pub part_hold_back: MediaDuration,
    pub can_skip_until: MediaDuration,
}

impl ChannelTiming {
    /// PART-HOLD-BACK is three times the longest of the part targets (A21).
    pub fn new(settings: HlsSettings, part_targets: &[MediaDuration]) -> Self {
        todo!()
    }
}

/// A segment boundary that every rendition of the channel obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub msn: u64,
    /// First presentation time of the segment, on the channel's timeline.
    pub at: MediaTime,
    /// EXT-X-DISCONTINUITY stands before this segment in every rendition.
    pub discontinuity: bool,
    /// EXT-X-PROGRAM-DATE-TIME of `at`.
    pub wall: WallTime,
}

/// The channel's one segment clock: decides from the leading track where segments begin. Numbers only, no bytes.
#[derive(Debug)]
pub struct Segmenter {}

impl Segmenter {
    /// `first_msn` seeds EXT-X-MEDIA-SEQUENCE, so that it never goes back, not even over a restart of the server.
    pub fn new(settings: HlsSettings, first_msn: u64) -> Self {
        todo!()
    }
    /// The mapping to use from the next cut on (channel timeline).
    pub fn clock(&mut self, map: ClockMap) {
        todo!()
    }
    /// The next unit begins a new segment behind a DISCONTINUITY (new publisher, jump, changed parameters).
    pub fn discontinuity(&mut self) {
        todo!()
    }
    /// Shows the leading track's next unit, in decode order; a cut begins at this unit. Long GOPs: see ADR 0002.
    pub fn on_unit(&mut self, pts: MediaTime, key: bool) -> Option<Cut> {
        todo!()
    }
    /// A key frame arriving about now would be used for a cut: time to ask the publisher for one (PLI).
    pub fn key_frame_due(&self, pts: MediaTime) -> bool {
        todo!()
    }
    /// True once a segment had to begin without a key frame (the source's GOP is too long); for the operator.
    pub fn cut_without_key(&self) -> bool {
        todo!()
    }
    pub fn next_msn(&self) -> u64 {
        todo!()
    }
}

/// One rendition: turns its access units into parts and segments and keeps the sliding window.
pub struct Rendition {}

impl Rendition {
    pub fn new(id: RenditionId, timing: ChannelTiming, rule: PartRule, discontinuity_sequence: u64) -> Self {
        todo!()
    }
    /// Announces a segment boundary. Cuts come in order, each before the first unit at or after `cut.at`.
    pub fn cut(&mut self, cut: Cut) {
        todo!()
    }
    /// Takes the next unit in decode order, on the channel's timeline. A stall longer than a part becomes GAP parts.
    pub fn push(&mut self, unit: AccessUnit) {
        todo!()
    }
    /// The session ended: completes the open part and segment with nominal durations. The channel lives on.
    pub fn flush(&mut self) {
        todo!()
    }
    /// The channel ended for good: flush, then EXT-X-ENDLIST (A46).
    pub fn end(&mut self) {
        todo!()
    }
    /// The end of what was packaged (channel timeline): where a returning publisher's media begins.
    pub fn end_time(&self) -> Option<MediaTime> {
        todo!()
    }
    /// The present state for viewers; the same `Arc` as before while nothing changed.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        todo!()
    }
}

/// What viewers see of a rendition: immutable, shared by `Arc`.
#[derive(Debug)]
pub struct Snapshot {}

/// `_HLS_msn`, `_HLS_part`, `_HLS_skip` as they came, parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub msn: Option<u64>,
    pub part: Option<u64>,
    pub skip: bool,
}

/// What a playlist request gets (A35 to A41).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Answer with this snapshot.
    Now,
    /// Hold until a later snapshot says `Now`.
    Wait,
    /// Too far ahead, or a part without an msn: 400 with this sentence.
    Refuse(&'static str),
}

/// What a media request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    Here(T),
    /// Hinted or not finished: hold until a later snapshot says otherwise (A30).
    Wait,
    /// Never existed, left the retention time, or is a gap: 404 at once (A31).
    Missing,
}

/// One EXT-X-RENDITION-REPORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Relative to the reporting playlist, for example `../v720/index.m3u8`.
    pub uri: String,
    pub last_msn: u64,
    pub last_part: Option<u64>,
}

/// Measured over the listed segments, bits a second with container overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub peak: u64,
    pub average: u64,
}

/// What exists of the rendition: the latest msn (the open segment counts) and its last part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub msn: u64,
    pub part: Option<u64>,
}

impl Snapshot {
    pub fn id(&self) -> &RenditionId {
        todo!()
    }
    /// False until the first part: no playlist to show yet.
    pub fn is_playable(&self) -> bool {
        todo!()
    }
    pub fn is_ended(&self) -> bool {
        todo!()
    }
    pub fn timing(&self) -> &ChannelTiming {
        todo!()
    }
    pub fn position(&self) -> Option<Position> {
        todo!()
    }
    /// Parameters of the newest segment.
    pub fn config(&self) -> Option<&Arc<TrackConfig>> {
        todo!()
    }
    /// Frames a second of the newest segment, times 1000; None for audio or before two frames.
    pub fn frame_rate_milli(&self) -> Option<u32> {
        todo!()
    }
    pub fn bandwidth(&self) -> Bandwidth {
        todo!()
    }
    pub fn media_sequence(&self) -> u64 {
        todo!()
    }
    pub fn discontinuity_sequence(&self) -> u64 {
        todo!()
    }
    /// Bytes of media kept alive by the window and its retention tail.
    pub fn retained_bytes(&self) -> u64 {
        todo!()
    }
    pub fn reload(&self, directives: &Directives) -> Reload {
        todo!()
    }
    /// The media playlist; a delta update where `skip` is asked and worth it. URIs in it are relative:
    /// `init-{msn}.mp4`, `{msn}.m4s`, `{msn}.{part}.m4s`.
    pub fn playlist(&self, skip: bool, reports: &[Report]) -> String {
        todo!()
    }
    pub fn part(&self, msn: u64, index: u64) -> Lookup<Bytes> {
        todo!()
    }
    /// A whole segment is the concatenation of its parts' bytes (A26), handed out without joining them.
    pub fn segment(&self, msn: u64) -> Lookup<Arc<[Bytes]>> {
        todo!()
    }
    /// The init segment first used by segment `msn`.
    pub fn init(&self, msn: u64) -> Option<Bytes> {
        todo!()
    }
}

/// One playable rendition as the multivariant playlist lists it.
#[derive(Clone, Debug)]
pub struct Variant {
    pub id: RenditionId,
    pub config: Arc<TrackConfig>,
    pub frame_rate_milli: Option<u32>,
    /// Declared ceiling where one is known (an encoder's bit rate), else measured.
    pub bandwidth: Bandwidth,
}

/// The multivariant playlist; media playlists are `{id}/index.m3u8`. Video variants best first; the audio group `aac`
/// is the default, `opus` a second group. Pure function of its input.
pub fn multivariant(video: &[Variant], audio: &[Variant]) -> String {
    todo!()
}
