//! One publisher's RTP, from packets to events, without I/O and without a clock: raw RTP and WHIP both drive it.
//!
//! Contract: call one of the `on_*` functions, then drain `poll_event` and `poll_feedback`, then sleep until
//! `next_timeout` or the next packet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::{
    AacConfig, AccessUnit, ClockMap, EndReason, GapReason, IngestEvent, MediaDuration, MediaTime, TrackKind, WallTime,
};

use super::jitter::Inserted;
use super::packet::RtpPacket;
use super::rtcp::{self, Ntp, Rtcp};
use super::track::{Raw, RawUnit, Track};
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
    /// Known from signalling. A hint: senders that use or change to another are followed.
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

/// A track that is announced but brings nothing holds the others up for so long (D33).
const START_PATIENCE: Duration = Duration::from_millis(1500);
/// After a BYE of all tracks, and no packet since.
const BYE_PATIENCE: Duration = Duration::from_secs(1);
/// Between two requests for a key frame.
const KEY_FRAME_PACE: Duration = Duration::from_millis(500);
const REPORT_PACE: Duration = Duration::from_secs(1);
/// A track may start a new epoch (SSRC, timestamp jump) this often; a flapping sender loses the rest.
const EPOCH_PACE: Duration = Duration::from_secs(1);
/// Both tracks of a sender that restarts do so within this: one discontinuity for both.
const ONE_DISCONTINUITY: Duration = Duration::from_secs(2);
/// Audio and video further apart than this are put right at once, behind a discontinuity, nearer by slewing.
const STEP: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 5);
/// Video may be moved by so many microseconds per second: not visible.
const SLEW_US_PER_S: i64 = 5_000;
/// Reports that would move the tracks so far away from what arrival says are not to be trusted for alignment.
const MAX_REPORT_VS_ARRIVAL_US: i64 = 5_000_000;
/// The sender's wall clock is used for capture times within this of ours (D8).
const MAX_WALL_DIFFERENCE_US: i64 = 10_000_000;
/// The mapping to the wall clock is told again when it moved by more, at most once a second.
const CLOCK_MOVED_US: i64 = 5_000;
const CLOCK_PACE: Duration = Duration::from_secs(1);
/// Sender reports kept of sources whose media has not come yet.
const MAX_EARLY_REPORTS: usize = 8;
/// Audio timestamps this near to the end of the last frame are rounding noise of the sender.
const SNAP: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 1000);

/// See the module's head.
pub struct RtpSession {
    config: RtpSessionConfig,
    stats: Arc<IngestStats>,
    tracks: Vec<Track>,
    /// Drained after each call, so a call's worth: a packet gives a handful of events, a start what the tracks held.
    events: VecDeque<IngestEvent>,
    /// Bounded the same way.
    feedback: VecDeque<Feedback>,
    early_reports: VecDeque<EarlyReport>,
    /// Arrival times count from here.
    epoch: Option<Instant>,
    /// Wall clock minus arrival time, at the last call.
    wall_offset_us: i64,
    started: bool,
    /// While what the tracks held goes out: the clock is told once for all of it.
    starting: bool,
    last_discontinuity: Option<Instant>,
    last_slew: Option<Instant>,
    clock: Option<(Instant, ClockMap)>,
    key_frame_wanted: bool,
    last_key_frame_request: Option<Instant>,
    last_report: Option<Instant>,
    ended: bool,
}

struct EarlyReport {
    ssrc: u32,
    ntp: Ntp,
    rtp: u32,
    at: Instant,
}

/// Which clock tells how two tracks lie to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Common {
    Reports,
    Arrival,
}

impl RtpSession {
    pub fn new(config: RtpSessionConfig, stats: Arc<IngestStats>) -> Self {
        let tracks = config.tracks.iter().map(|spec| Track::new(spec, config.jitter_budget, &stats)).collect();
        Self {
            config,
            stats,
            tracks,
            events: VecDeque::new(),
            feedback: VecDeque::new(),
            early_reports: VecDeque::new(),
            epoch: None,
            wall_offset_us: 0,
            started: false,
            starting: false,
            last_discontinuity: None,
            last_slew: None,
            clock: None,
            key_frame_wanted: false,
            last_key_frame_request: None,
            last_report: None,
            ended: false,
        }
    }

    /// A datagram of a bundled transport: the track is found by payload type, and by the announced SSRC where tracks
    /// share one.
    pub fn on_rtp(&mut self, now: Instant, wall: WallTime, packet: Bytes) {
        let Some(packet) = self.parse(packet) else { return };
        let typed =
            |t: &TrackSpec| t.payload_type == packet.payload_type || t.rtx_payload_type == Some(packet.payload_type);
        let tracks = &self.config.tracks;
        let announced = tracks.iter().position(|t| typed(t) && t.ssrc == Some(packet.ssrc));
        let track = announced.or(tracks.iter().position(typed));
        self.on_packet(now, wall, track, packet);
    }

    /// A datagram whose socket tells the track (its index in `RtpSessionConfig::tracks`).
    pub fn on_track_rtp(&mut self, now: Instant, wall: WallTime, track: usize, packet: Bytes) {
        let Some(packet) = self.parse(packet) else { return };
        let known =
            self.config.tracks.get(track).is_some_and(|t| {
                t.payload_type == packet.payload_type || t.rtx_payload_type == Some(packet.payload_type)
            });
        self.on_packet(now, wall, known.then_some(track), packet);
    }

    /// A compound RTCP datagram; sources are found by SSRC.
    pub fn on_rtcp(&mut self, now: Instant, wall: WallTime, packet: Bytes) {
        self.tell_time(now, wall);
        let Ok(items) = rtcp::parse(&packet) else {
            IngestStats::add(&self.stats.malformed, 1);
            return;
        };
        for item in items {
            match item {
                Rtcp::SenderReport { ssrc, ntp, rtp, .. } => self.on_sender_report(now, ssrc, ntp, rtp),
                Rtcp::Bye { ssrc } => {
                    if let Some(track) = self.tracks.iter_mut().find(|t| t.ssrc == Some(ssrc)) {
                        track.bye = Some(now);
                    }
                }
                Rtcp::Cname { .. } => {}
            }
        }
    }

    /// The session's consumer would use a key frame now.
    pub fn request_key_frame(&mut self, now: Instant) {
        self.key_frame_wanted = true;
        self.ask_key_frame(now);
    }

    pub fn on_timeout(&mut self, now: Instant) {
        for track in 0..self.tracks.len() {
            self.release(now, track);
        }
        self.maybe_start(now);
        self.nack(now);
        self.report(now);
        self.ask_key_frame(now);
        if !self.ended && self.bye_deadline().is_some_and(|at| now >= at) {
            self.ended = true;
            self.events.push_back(IngestEvent::Ended(EndReason::Closed));
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let releases = self.tracks.iter().filter_map(|t| t.jitter.next_release());
        let nacks = self.tracks.iter().filter(|_| self.config.can_nack).filter_map(|t| t.jitter.next_nack());
        // Patience only ends anything where there is something to start with.
        let ready = !self.started && self.tracks.iter().any(Track::has_units);
        let start = if ready { self.start_deadline() } else { None };
        let key_frame = self.last_key_frame_request.filter(|_| self.asks_key_frames()).map(|t| t + KEY_FRAME_PACE);
        let report = self.last_report.filter(|_| self.config.can_report).map(|t| t + REPORT_PACE);
        let bye = if self.ended { None } else { self.bye_deadline() };
        releases.chain(nacks).chain(start).chain(key_frame).chain(report).chain(bye).min()
    }

    pub fn poll_event(&mut self) -> Option<IngestEvent> {
        self.events.pop_front()
    }

    pub fn poll_feedback(&mut self) -> Option<Feedback> {
        self.feedback.pop_front()
    }

    fn parse(&mut self, datagram: Bytes) -> Option<RtpPacket> {
        let length = datagram.len() as u64;
        match RtpPacket::parse(datagram) {
            Ok(packet) => {
                IngestStats::add(&self.stats.packets, 1);
                IngestStats::add(&self.stats.bytes, length);
                Some(packet)
            }
            Err(_) => {
                IngestStats::add(&self.stats.malformed, 1);
                None
            }
        }
    }

    fn tell_time(&mut self, now: Instant, wall: WallTime) {
        self.epoch.get_or_insert(now);
        self.wall_offset_us = wall.0.saturating_sub(self.micros(now));
    }

    fn micros(&self, at: Instant) -> i64 {
        let since = self.epoch.map(|epoch| at.saturating_duration_since(epoch)).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn on_packet(&mut self, now: Instant, wall: WallTime, index: Option<usize>, mut packet: RtpPacket) {
        self.tell_time(now, wall);
        let Some((index, track)) = index.and_then(|i| Some((i, self.tracks.get_mut(i)?))) else {
            // An unknown payload type (D2).
            IngestStats::add(&self.stats.malformed, 1);
            return;
        };
        let spec = self.config.tracks.get(index);
        if spec.is_some_and(|s| s.payload_type != packet.payload_type) {
            // RFC 4588 §4: the original sequence number, then the original payload. Without one it is padding.
            let (Some(ssrc), Some(original)) = (track.ssrc, packet.payload.first_chunk::<2>()) else { return };
            packet.sequence = u16::from_be_bytes(*original);
            packet.payload = packet.payload.slice(2..);
            packet.ssrc = ssrc;
        }
        if track.ssrc == Some(packet.ssrc) {
            self.insert(index, now, packet);
        } else {
            let recently = track.epoch_began.is_some_and(|t| now.saturating_duration_since(t) < EPOCH_PACE);
            let Some(first) = track.admit_source(now, packet, recently) else { return };
            self.begin_source(now, index, first.first().map(|(_, p)| p.ssrc));
            for (at, packet) in first {
                self.insert(index, at, packet);
            }
        }
        let Some(track) = self.tracks.get_mut(index) else { return };
        track.bye = None;
        track.last_packet = Some(now);
        track.rival = None;
        track.first_packet.get_or_insert(now);
        self.release(now, index);
        self.maybe_start(now);
        if self.config.can_report {
            self.last_report.get_or_insert(now);
        }
    }

    /// A packet of the track's source into its reorder buffer.
    fn insert(&mut self, index: usize, at: Instant, packet: RtpPacket) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        track.reception.on_packet(at, &packet);
        let counter = match track.jitter.insert(at, packet) {
            Inserted::Accepted | Inserted::OnProbation => return,
            Inserted::Repaired => &self.stats.repaired,
            Inserted::Duplicate => &self.stats.duplicate,
            Inserted::Late => &self.stats.late,
        };
        IngestStats::add(counter, 1);
    }

    /// A source's first packet: the first of the track, or one that takes over.
    fn begin_source(&mut self, now: Instant, index: usize, ssrc: Option<u32>) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        if track.ssrc.is_some() {
            tracing::info!(track = ?track.kind, from = track.ssrc, to = ssrc, "the sender changed its SSRC");
            // What the old source left behind its gaps is given up with it.
            track.jitter = super::jitter::JitterBuffer::new(self.config.jitter_budget);
            track.epoch_began = Some(now);
        }
        track.begin_epoch();
        track.unwrap = Default::default();
        track.reception = super::track::Reception::new(track.rate, ssrc.unwrap_or(0));
        track.ssrc = ssrc;
    }

    /// Moves what the reorder buffer gives through the depacketizer to the timeline.
    fn release(&mut self, now: Instant, index: usize) {
        let epoch = self.epoch.unwrap_or(now);
        let mut fresh = false;
        while let Some(track) = self.tracks.get_mut(index)
            && let Some(released) = track.jitter.pop(now)
        {
            let lost = track.push(now, epoch, released, &self.stats);
            IngestStats::add(&self.stats.lost, lost);
            if !fresh {
                self.use_early_report(index);
            }
            fresh = true;
            // After each packet, so that nothing of an old epoch is left when a new one begins.
            if self.started {
                self.flush(now, index);
            }
        }
        if !fresh {
            return;
        }
        let Some(track) = self.tracks.get(index) else { return };
        if track.kind == TrackKind::Video && track.waits_for_key_frame() {
            self.key_frame_wanted = true;
            self.ask_key_frame(now);
        }
    }

    fn start_deadline(&self) -> Option<Instant> {
        Some(self.tracks.iter().filter_map(|t| t.first_packet).min()? + START_PATIENCE)
    }

    /// Starts once every track has something to show, or patience ends and one has (D33).
    fn maybe_start(&mut self, now: Instant) {
        if self.started {
            return;
        }
        let ready = self.tracks.iter().filter(|t| t.has_units()).count();
        let waited = self.start_deadline().is_some_and(|at| now >= at);
        if ready == 0 || (ready < self.tracks.len() && !waited) {
            return;
        }
        self.started = true;
        self.starting = true;
        // The timeline's zero: the first picture, or the first audio frame where there is none yet.
        let by_kind = |kind| self.tracks.iter().position(|t| t.kind == kind && t.has_units());
        let Some(first) = by_kind(TrackKind::Video).or(by_kind(TrackKind::Audio)) else { return };
        self.place(now, first);
        if let Some(other) = self.tracks.iter().position(|t| t.has_units() && !t.is_placed()) {
            self.place(now, other);
        }
        // Audio from before the first picture would play over nothing.
        if let Some(audio) = self.tracks.iter_mut().find(|t| t.kind == TrackKind::Audio)
            && audio.is_placed()
        {
            audio.drop_before(MediaTime::ZERO);
        }
        tracing::info!(tracks = ready, expected = self.tracks.len(), "media flows");
        for index in 0..self.tracks.len() {
            self.flush(now, index);
        }
        // Both tracks' beginnings in order of time.
        let mut events: Vec<_> = self.events.drain(..).collect();
        let mut at = MediaTime(i64::MIN);
        let mut keyed: Vec<(MediaTime, IngestEvent)> = events
            .drain(..)
            .map(|event| {
                if let IngestEvent::Unit(unit) = &event {
                    at = unit.dts;
                }
                (at, event)
            })
            .collect();
        keyed.sort_by_key(|(at, _)| *at);
        self.events.extend(keyed.into_iter().map(|(_, event)| event));
        self.starting = false;
        self.tell_clock(now);
    }

    /// Gives what a track holds to the consumer.
    fn flush(&mut self, now: Instant, index: usize) {
        while let Some(raw) = self.tracks.get_mut(index).and_then(Track::take) {
            match raw {
                Raw::Gap(reason) => self.gap(index, reason),
                Raw::Unit(unit) => self.emit(now, index, unit),
            }
        }
    }

    fn gap(&mut self, index: usize, reason: GapReason) {
        if let Some(track) = self.tracks.get_mut(index) {
            track.after_gap = true;
            // Before the first unit nothing is missing.
            if track.last_pts.is_some() {
                self.events.push_back(IngestEvent::Gap { track: track.kind, reason });
            }
        }
    }

    fn discontinuity(&mut self, now: Instant) {
        let recent = self.last_discontinuity.is_some_and(|t| now.saturating_duration_since(t) < ONE_DISCONTINUITY);
        if !recent {
            self.last_discontinuity = Some(now);
            IngestStats::add(&self.stats.discontinuities, 1);
            self.events.push_back(IngestEvent::Discontinuity);
        }
    }

    fn common_micros(&self, index: usize, ts: i64, common: Common) -> Option<i64> {
        let track = self.tracks.get(index)?;
        match common {
            Common::Reports => track.sender.micros_at(ts),
            Common::Arrival => track.arrival.micros_at(ts),
        }
    }

    /// Where timestamp `ts` of a track lies by another, placed track: its reports if both have them, else arrival.
    fn position_by_other(&self, index: usize, ts: i64) -> Option<(MediaTime, Common)> {
        let other =
            (0..self.tracks.len()).find(|i| *i != index && self.tracks.get(*i).is_some_and(Track::is_placed))?;
        let reference = self.tracks.get(other)?;
        let by = |common| -> Option<i64> {
            let theirs = self.common_micros(other, reference.base_ts(), common)?;
            Some(self.common_micros(index, ts, common)? - theirs)
        };
        let arrival = by(Common::Arrival);
        let (micros, common) = match (by(Common::Reports), arrival) {
            (Some(r), Some(a)) if (r - a).abs() > MAX_REPORT_VS_ARRIVAL_US => (a, Common::Arrival),
            (Some(r), _) => (r, Common::Reports),
            (None, a) => (a?, Common::Arrival),
        };
        Some((reference.base_time()? + MediaDuration::from_micros(micros), common))
    }

    /// Finds the place on the timeline of the unit that a track begins an epoch with.
    fn place(&mut self, now: Instant, index: usize) {
        let Some(track) = self.tracks.get(index) else { return };
        let Some(ts) = track.next_unit_ts() else { return };
        let kind = track.kind;
        let last = track.last_end;
        let by_other = self.position_by_other(index, ts).map(|(at, _)| at);
        // Without another track, arrival tells how far the new epoch is behind the old one.
        let by_itself = track
            .left_epoch
            .and_then(|(arrived, at)| Some(at + MediaDuration::from_micros(track.arrival.micros_at(ts)? - arrived)));
        let mut position = by_other.or(by_itself).unwrap_or(MediaTime::ZERO);
        let lasted = track.last_duration.unwrap_or(MediaDuration::from_millis(40));
        let other_alive = self.tracks.iter().enumerate().any(|(i, t)| i != index && t.is_placed());
        if let Some(end) = last {
            let off = position - end;
            if off.0.abs() <= lasted.0 {
                // Continuous within a frame: the SSRC changed, the media did not.
                position = end;
            } else {
                if kind == TrackKind::Video || !other_alive {
                    if off.0 < 0 {
                        // Time never goes back: everything moves on together.
                        let shift = MediaDuration(-off.0);
                        position = end;
                        self.tracks.iter_mut().for_each(|t| t.shift(shift));
                    }
                    self.discontinuity(now);
                } else {
                    // Audio alone begins anew beside running video: it stays in line with it, something is missing.
                    self.events.push_back(IngestEvent::Gap { track: kind, reason: GapReason::Loss });
                }
            }
        }
        if let Some(track) = self.tracks.get_mut(index) {
            track.place_at(ts, position);
        }
    }

    fn emit(&mut self, now: Instant, index: usize, unit: RawUnit) {
        let Some(track) = self.tracks.get(index) else { return };
        if !track.is_placed() {
            let Some(track) = self.tracks.get_mut(index) else { return };
            track.put_back(unit);
            self.place(now, index);
            let placed = self.tracks.get(index).is_some_and(Track::is_placed);
            match self.tracks.get_mut(index).and_then(Track::take) {
                Some(Raw::Unit(unit)) if placed => return self.emit(now, index, unit),
                _ => return,
            }
        }
        let kind = track.kind;
        if kind == TrackKind::Video {
            if self.align(now, index, unit.key) {
                // Out of step with the audio: begins anew with this key frame.
                if let Some(track) = self.tracks.get_mut(index) {
                    track.leave_place();
                }
                return self.emit(now, index, unit);
            }
            self.emit_picture(index, unit);
        } else {
            self.emit_audio(index, unit);
        }
        if !self.starting {
            self.tell_clock(now);
        }
    }

    fn emit_picture(&mut self, index: usize, unit: RawUnit) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        let Some(mut pts) = track.time_of(unit.ts) else { return };
        let Some(info) = unit.picture else { return };
        // Two fields of a frame with a marker each share a timestamp; a sender whose clock stands is not followed far.
        if track.last_unit_ts == Some(unit.ts) {
            track.repeats += 1;
            if track.repeats > 8 {
                return track.drop_to_key_frame(GapReason::Refused);
            }
            pts += MediaDuration::from_ticks(2 * track.repeats, track.rate);
        } else {
            track.repeats = 0;
        }
        if unit.key && std::mem::take(&mut track.after_gap) {
            track.decode_times.restart();
        }
        let dts = match track.decode_times.next(pts, &info) {
            Ok(dts) => dts,
            Err(_) => {
                tracing::debug!(pts = pts.micros(), "pictures are reordered deeper than declared");
                track.observe_reorder();
                return track.drop_to_key_frame(GapReason::Loss);
            }
        };
        let lasted = match track.last_pts {
            Some(last) if pts > last && pts - last < MediaDuration::from_millis(500) => pts - last,
            _ => track.last_duration.unwrap_or(MediaDuration::from_millis(40)),
        };
        track.last_duration = Some(lasted);
        track.last_end = Some(track.last_end.map_or(pts + lasted, |end| end.max(pts + lasted)));
        track.last_pts = Some(pts);
        track.last_unit_ts = Some(unit.ts);
        if unit.key {
            self.key_frame_wanted = false;
        }
        self.events.push_back(IngestEvent::Unit(AccessUnit {
            pts,
            dts,
            duration: None,
            key: unit.key,
            config: unit.config,
            data: unit.data,
        }));
    }

    fn emit_audio(&mut self, index: usize, unit: RawUnit) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        let Some(mut pts) = track.time_of(unit.ts) else { return };
        let duration = MediaDuration::from_ticks(unit.duration.into(), unit.config.timescale());
        if let Some(end) = track.last_end {
            let off = pts - end;
            if off.0.abs() <= SNAP.0 {
                pts = end;
            } else if off.0 < 0 {
                // Overlaps what went out: a repeat, or a sender that corrects its clock backwards.
                IngestStats::add(&self.stats.late, 1);
                return;
            }
        }
        track.last_pts = Some(pts);
        track.last_end = Some(pts + duration);
        track.last_duration = Some(duration);
        track.last_unit_ts = Some(unit.ts);
        self.events.push_back(IngestEvent::Unit(AccessUnit {
            pts,
            dts: pts,
            duration: Some(duration),
            key: true,
            config: unit.config,
            data: unit.data,
        }));
    }

    /// Moves video towards where the reports (or long-term arrival) say it belongs beside the audio; audio itself is
    /// never re-timed. True where it is so far off that it has to begin anew, and a key frame allows it.
    fn align(&mut self, now: Instant, video: usize, key: bool) -> bool {
        let since = self.last_slew.replace(now);
        let Some(track) = self.tracks.get(video) else { return false };
        let Some((wanted, common)) = self.position_by_other(video, track.base_ts()) else { return false };
        let Some(present) = track.base_time() else { return false };
        let off = wanted - present;
        if common == Common::Reports && off.0.abs() > STEP.0 {
            self.key_frame_wanted |= !key;
            // Where it has just begun anew and cannot be where it should, it is slewed instead.
            let recently =
                self.last_discontinuity.is_some_and(|t| now.saturating_duration_since(t) < ONE_DISCONTINUITY);
            return key && !recently;
        }
        let tolerated = if common == Common::Reports { 1_000 } else { 30_000 };
        if off.micros().abs() <= tolerated {
            return false;
        }
        let elapsed = since.map(|t| now.saturating_duration_since(t)).unwrap_or_default().min(Duration::from_secs(1));
        let most = SLEW_US_PER_S * i64::try_from(elapsed.as_micros()).unwrap_or(0) / 1_000_000;
        let by = MediaDuration::from_micros(off.micros().clamp(-most, most));
        if let Some(track) = self.tracks.get_mut(video) {
            track.shift(by);
        }
        false
    }

    /// Tells how the timeline lies to the wall clock, at the start and when it moved.
    fn tell_clock(&mut self, now: Instant) {
        let first = self.clock.is_none();
        if self.clock.as_ref().is_some_and(|(told, _)| now.saturating_duration_since(*told) < CLOCK_PACE) {
            return;
        }
        // Audio is the track that is never moved.
        let placed = |kind| self.tracks.iter().position(|t| t.kind == kind && t.last_unit_ts.is_some());
        let Some(index) = placed(TrackKind::Audio).or(placed(TrackKind::Video)) else { return };
        let Some(track) = self.tracks.get(index) else { return };
        let Some(ts) = track.last_unit_ts else { return };
        let Some(at) = track.time_of(ts) else { return };
        let Some(arrived) = track.arrival.micros_at(ts) else { return };
        let arrived = arrived.saturating_add(self.wall_offset_us);
        let wall = match track.sender.micros_at(ts) {
            Some(sent) if (sent - arrived).abs() <= MAX_WALL_DIFFERENCE_US => sent,
            _ => arrived,
        };
        let map = ClockMap { media: at, wall: WallTime(wall) };
        let moved = self.clock.as_ref().is_none_or(|(_, old)| (old.wall_of(at).0 - wall).abs() > CLOCK_MOVED_US);
        if moved {
            self.clock = Some((now, map));
            // In front of the units that it speaks of, where it is the first.
            if first {
                self.events.push_front(IngestEvent::Clock(map));
            } else {
                self.events.push_back(IngestEvent::Clock(map));
            }
        }
    }

    fn on_sender_report(&mut self, now: Instant, ssrc: u32, ntp: Ntp, rtp: u32) {
        match self.tracks.iter_mut().find(|t| t.ssrc == Some(ssrc) && t.unwrap.started()) {
            Some(track) => track.on_sender_report(now, ntp, rtp),
            None => {
                self.early_reports.retain(|r| r.ssrc != ssrc);
                if self.early_reports.len() == MAX_EARLY_REPORTS {
                    self.early_reports.pop_front();
                }
                self.early_reports.push_back(EarlyReport { ssrc, ntp, rtp, at: now });
            }
        }
    }

    fn use_early_report(&mut self, index: usize) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        if let Some(at) = self.early_reports.iter().position(|r| track.ssrc == Some(r.ssrc))
            && let Some(report) = self.early_reports.remove(at)
        {
            track.on_sender_report(report.at, report.ntp, report.rtp);
        }
    }

    fn asks_key_frames(&self) -> bool {
        self.config.can_ask_key_frames && self.key_frame_wanted
    }

    fn ask_key_frame(&mut self, now: Instant) {
        let due = self.last_key_frame_request.is_none_or(|t| now.saturating_duration_since(t) >= KEY_FRAME_PACE);
        if !self.asks_key_frames() || !due {
            return;
        }
        if let Some(ssrc) = self.tracks.iter().find(|t| t.kind == TrackKind::Video).and_then(|t| t.ssrc) {
            self.last_key_frame_request = Some(now);
            IngestStats::add(&self.stats.key_frame_requests, 1);
            self.feedback.push_back(Feedback::KeyFrame { ssrc });
        }
    }

    fn nack(&mut self, now: Instant) {
        if !self.config.can_nack {
            return;
        }
        for track in &mut self.tracks {
            let seqs = track.jitter.nacks(now);
            if let (Some(ssrc), false) = (track.ssrc, seqs.is_empty()) {
                self.feedback.push_back(Feedback::Nack { ssrc, seqs });
            }
        }
    }

    fn report(&mut self, now: Instant) {
        if !self.config.can_report || self.last_report.is_none_or(|t| now.saturating_duration_since(t) < REPORT_PACE) {
            return;
        }
        self.last_report = Some(now);
        for track in self.tracks.iter_mut().filter(|t| t.ssrc.is_some()) {
            let highest = track.jitter.highest();
            self.feedback.push_back(Feedback::Report(track.reception.report(now, highest)));
        }
    }

    fn bye_deadline(&self) -> Option<Instant> {
        let active = || self.tracks.iter().filter(|t| t.ssrc.is_some());
        if active().any(|t| t.bye.is_none()) {
            return None;
        }
        active().filter_map(|t| t.bye).max().map(|at| at + BYE_PATIENCE)
    }
}
