//! The heart of a channel, sans-IO: a session's events and the engine's units in, packaged renditions out.
//!
//! It lives as long as the channel; sessions come and go in it. Nothing here knows a clock, a socket or a task: the shell
//! (`task.rs`) feeds it and carries out its effects.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::{EngineEvent, EngineInput, LadderSpec};
use media::{AccessUnit, ClockMap, IngestEvent, MediaDuration, MediaTime, RenditionId, TrackConfig, TrackKind};
use packager::{ChannelTiming, Cut, HlsSettings, PartRule, Rendition, Segmenter, Snapshot};
use tokio::sync::watch;

use super::meter::Meter;
use super::plan::{Admit, Origin, Plan, PlannedRendition, Tracks, steady_frame};
use super::stretch::{HOLE, Stretch};
use super::{Message, RenditionSet, RenditionStatus, RenditionView, TrackStatus};
use crate::config::Ladder;

/// Where a channel's timeline begins, behind what its first msn says: a first DTS ahead of its PTS stays positive.
const TIMELINE_LEAD: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND);

/// First msns count up by two a second. A timeline that begins with them goes on upward over a restart of the server as the
/// msns do, and players that watched before find the new media behind the old.
const TIMELINE_PER_MSN: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 2);

/// Units looked at before the renditions are decided: under half a second of 120 fps video with audio. A session that
/// brings more than this without the tracks becoming clear starts with what is there.
const START_UNITS: usize = 128;

/// Media time after which a session starts without the track that has not come.
const START_PATIENCE: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 2);

/// Video units that tell a frame rate.
const START_FRAMES: usize = 6;

/// Audio waits for the leading video to pass it (so that a cut is known before the audio behind it), but not longer than
/// this: then the video has stalled.
const AUDIO_HOLD: MediaDuration = HOLE;

/// Held audio units a rendition: one and a half seconds of 2.5 ms Opus. Above it the oldest goes ahead.
const AUDIO_HOLD_UNITS: usize = 640;

/// A rung gets an IDR at the source's own key frames too, but not more often than this.
const KEY_SPACING: MediaDuration = MediaDuration(9 * media::FLICKS_PER_SECOND / 10);

/// Renditions a channel may ever have; publishers that keep changing their tracks reach it.
const MAX_RENDITIONS: usize = 16;

/// Effects waiting for the shell: it drains them after each call, so only one call's worth gathers.
type Effects = VecDeque<Effect>;

/// What the shell has to do.
#[derive(Debug)]
pub enum Effect {
    StartEngine(LadderSpec),
    StopEngine,
    /// Of exactly these rungs no more pictures are encoded that are presented then or later.
    Suspend {
        rungs: Vec<RenditionId>,
        from: MediaTime,
    },
    ToEngine(EngineInput),
    RequestKeyFrame,
}

pub struct Core {
    settings: HlsSettings,
    ladder: Ladder,
    /// Seeds EXT-X-MEDIA-SEQUENCE and the timeline.
    first_msn: u64,
    segmenter: Segmenter,
    timing: Option<ChannelTiming>,
    /// Where the open segment begins.
    last_cut: Option<MediaTime>,
    /// Cuts behind a DISCONTINUITY so far: where a rendition that is created now starts counting (A14).
    discontinuities: u64,
    slots: Vec<Slot>,
    renditions: watch::Sender<Arc<RenditionSet>>,
    session: Option<Session>,
    effects: Effects,
    suspension: Suspension,
    worker_restarts: u32,
    engine_failure: Option<String>,
    admit: Admit,
    /// What came of asking for a device.
    admission: Option<Message>,
}

/// One rendition with its way to the viewers.
struct Slot {
    id: RenditionId,
    kind: TrackKind,
    origin: Origin,
    ceiling: Option<u64>,
    /// PART-TARGET, for video: no frame may last longer.
    longest_frame: Option<MediaDuration>,
    rendition: Rendition,
    snapshots: watch::Sender<Arc<Snapshot>>,
    meter: Meter,
    /// Audio that is ahead of the leading video.
    held: VecDeque<AccessUnit>,
    presence: Presence,
}

/// Whether a rung is there for viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    There,
    /// Not encoded: its playlist goes on with gaps and the multivariant playlist leaves it out.
    Suspended,
    /// Encoded again, with media from here on. It stays left out until there is a hold-back of it: who joins earlier meets gaps.
    Back(Option<MediaTime>),
}

/// Rungs of the present engine.
#[derive(Default)]
struct Suspension {
    ordered: Vec<RenditionId>,
    /// As ordered when the last segment began.
    carried_out: Vec<RenditionId>,
}

/// One publisher's stay.
#[derive(Default)]
struct Session {
    /// Session time + offset = channel time; None until the next unit decides it.
    offset: Option<MediaDuration>,
    /// Units before the plan.
    pending: Vec<AccessUnit>,
    tracks: Option<Tracks>,
    clock: Option<ClockMap>,
    /// The first cut after a (re)start of the timeline; earlier audio is dropped.
    begin: Option<MediaTime>,
    /// Audio that came before the first cut.
    early: Vec<AccessUnit>,
    /// How far the leading track has come.
    lead: Option<MediaTime>,
    last_video: Option<MediaTime>,
    stretch: Stretch,
    last_forced: Option<MediaTime>,
    video: Meter,
    audio: Meter,
}

impl Core {
    pub fn new(
        settings: HlsSettings,
        ladder: Ladder,
        first_msn: u64,
        admit: Admit,
    ) -> (Self, watch::Receiver<Arc<RenditionSet>>) {
        let (renditions, view) = watch::channel(Arc::new(RenditionSet::default()));
        let core = Self {
            settings,
            ladder,
            first_msn,
            admit,
            admission: None,
            segmenter: Segmenter::new(settings, first_msn),
            timing: None,
            last_cut: None,
            discontinuities: 0,
            slots: Vec::new(),
            renditions,
            session: None,
            effects: Effects::new(),
            suspension: Suspension::default(),
            worker_restarts: 0,
            engine_failure: None,
        };
        (core, view)
    }

    /// The ladder for the next session.
    pub fn set_ladder(&mut self, ladder: Ladder) {
        self.ladder = ladder;
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A publisher is there; its media continues the playlists behind one DISCONTINUITY (A45).
    pub fn begin_session(&mut self) {
        self.end_session();
        self.session = Some(Session::default());
    }

    /// The publisher is gone: what it sent is completed, the playlists stand.
    pub fn end_session(&mut self) {
        if self.session.take().is_none() {
            return;
        }
        self.stop_engine();
        self.complete();
    }

    /// The channel ends for good (A46).
    pub fn end_channel(&mut self) {
        self.end_session();
        for slot in &mut self.slots {
            slot.rendition.end();
            slot.publish();
        }
    }

    pub fn on_ingest(&mut self, event: IngestEvent) {
        match event {
            IngestEvent::Unit(unit) => self.on_unit(unit),
            IngestEvent::Discontinuity => self.on_discontinuity(),
            IngestEvent::Clock(map) => {
                if let Some(session) = &mut self.session {
                    session.clock = Some(map);
                    if let Some(offset) = session.offset {
                        self.segmenter.clock(map.shifted(offset));
                    }
                }
            }
            // The packager sees the missing time itself; the counters stand in the ingest's statistics.
            IngestEvent::Gap { .. } | IngestEvent::Ended(_) => {}
        }
    }

    pub fn on_engine(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Unit { rendition, unit } => {
                let Some(begin) = self.session.as_ref().and_then(|s| s.begin) else { return };
                let Some(index) = self.slots.iter().position(|s| s.id == rendition) else { return };
                let slot = &mut self.slots[index];
                if slot.presence != Presence::Suspended {
                    slot.meter.add(&unit);
                }
                if unit.kind() == TrackKind::Audio {
                    if !before(&unit, begin) {
                        slot.held.push_back(unit);
                        self.release_audio();
                    }
                } else if unit.pts >= begin {
                    let at = unit.pts;
                    slot.rendition.push(unit);
                    slot.publish();
                    let there = slot.presence == Presence::There;
                    if slot.has_come_back(at) {
                        self.publish_set();
                    }
                    for other in self.slots.iter_mut().filter(|s| there && s.presence == Presence::Suspended) {
                        other.rendition.others_come(at);
                        other.publish();
                    }
                }
            }
            EngineEvent::WorkerRestarted { reason, restarts } => {
                tracing::warn!(%reason, restarts, "encoding worker restarted");
                self.worker_restarts = self.worker_restarts.saturating_add(1);
            }
            EngineEvent::Failed { reason } => {
                tracing::error!(%reason, "encoding given up for this session");
                self.engine_failure = Some(reason);
            }
        }
    }

    /// Exactly these rungs of the engine are to be suspended where the next segment begins: players can leave and join them there.
    pub fn order_suspension(&mut self, rungs: Vec<RenditionId>) {
        self.suspension.ordered = rungs;
    }

    /// A segment begins with the picture presented at `from`: so does what was ordered.
    fn carry_out_suspension(&mut self, from: MediaTime) {
        let Suspension { ordered, carried_out } = &mut self.suspension;
        if ordered != carried_out {
            carried_out.clone_from(ordered);
            let rungs = ordered.clone();
            self.suspend(&rungs, from);
            let still = |slot: &Slot| slot.rendition.ends_within();
            let going = self.slots.iter().filter(|slot| rungs.contains(&slot.id)).map(still).max();
            let from = from + going.unwrap_or(MediaDuration::ZERO);
            self.effects.push_back(Effect::Suspend { rungs, from });
        }
    }

    /// Exactly these rungs are suspended from `from` on.
    fn suspend(&mut self, rungs: &[RenditionId], from: MediaTime) {
        for slot in self.slots.iter_mut().filter(|s| s.origin == Origin::Engine && s.kind == TrackKind::Video) {
            match (rungs.contains(&slot.id), slot.presence) {
                (true, Presence::There | Presence::Back(_)) => {
                    tracing::warn!(rendition = %slot.id, "rung suspended");
                    slot.presence = Presence::Suspended;
                    slot.meter = Meter::default();
                    slot.rendition.suspend(from);
                }
                (false, Presence::Suspended) => {
                    tracing::info!(rendition = %slot.id, "rung comes back");
                    slot.presence = Presence::Back(None);
                    slot.rendition.resume();
                }
                _ => continue,
            }
            slot.publish();
        }
        self.publish_set();
    }

    fn on_discontinuity(&mut self) {
        if self.session.is_none() {
            return;
        }
        self.complete();
        if let Some(session) = &mut self.session {
            session.offset = None;
            session.begin = None;
            session.early.clear();
            session.lead = None;
            session.last_video = None;
            session.stretch = Stretch::default();
            session.last_forced = None;
        }
        // The engine's time must not go back or jump: it starts anew on the new stretch of the timeline.
        self.restart_engine();
    }

    fn on_unit(&mut self, unit: AccessUnit) {
        let Some(session) = &mut self.session else { return };
        match unit.kind() {
            TrackKind::Video => session.video.add(&unit),
            TrackKind::Audio => session.audio.add(&unit),
        }
        let Some(tracks) = &session.tracks else {
            session.pending.push(unit);
            if let Some(tracks) = tracks_of(&session.pending) {
                let pending = std::mem::take(&mut session.pending);
                session.tracks = Some(tracks);
                self.plan();
                for unit in pending {
                    self.process(unit);
                }
            }
            return;
        };
        let known = match unit.kind() {
            TrackKind::Video => tracks.video.as_ref(),
            TrackKind::Audio => tracks.audio.as_ref(),
        };
        match known {
            Some(config) if Arc::ptr_eq(config, &unit.config) || *config == unit.config => {}
            Some(_) if unit.kind() == TrackKind::Video && !unit.key => {}
            _ => self.on_new_parameters(&unit),
        }
        self.process(unit);
    }

    /// The source changed its coding, or a track came late: what follows is another piece of media (A12, B20).
    fn on_new_parameters(&mut self, unit: &AccessUnit) {
        let Some(tracks) = self.session.as_mut().and_then(|s| s.tracks.as_mut()) else { return };
        let (late, audio) = match unit.kind() {
            TrackKind::Video => (tracks.video.replace(unit.config.clone()).is_none(), false),
            TrackKind::Audio => {
                if let Some(duration) = unit.duration {
                    tracks.audio_frame = duration;
                }
                (tracks.audio.replace(unit.config.clone()).is_none(), true)
            }
        };
        tracing::info!(codec = unit.config.rfc6381(), late, "the source's parameters changed");
        self.segmenter.discontinuity();
        if late || audio {
            self.stop_engine();
            self.plan();
        }
    }

    /// Decides the renditions from the session's tracks and starts the engine for them.
    fn plan(&mut self) {
        let Some(tracks) = self.session.as_ref().and_then(|s| s.tracks.as_ref()) else { return };
        let plan = Plan::new(tracks, &self.ladder, self.settings.part_aim, &mut self.admit);
        let mut targets: Vec<_> = plan.renditions.iter().map(|r| r.rule.target).collect();
        if tracks.video.is_none() {
            // A picture may come yet.
            targets.push(PartRule::video(self.settings.part_aim, None).target);
        }
        let timing = *self.timing.get_or_insert_with(|| ChannelTiming::new(self.settings, &targets));
        for planned in plan.renditions {
            self.adopt(planned, timing);
        }
        self.publish_set();
        self.engine_failure = None;
        self.admission = plan.message;
        if let Some(spec) = plan.engine {
            self.effects.push_back(Effect::StartEngine(spec));
        }
    }

    /// Continues the rendition of that name, or creates it at the channel's next cut.
    fn adopt(&mut self, planned: PlannedRendition, timing: ChannelTiming) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.id == planned.id) {
            slot.origin = planned.origin;
            slot.ceiling = planned.ceiling;
            slot.meter = Meter::default();
            return;
        }
        if self.slots.len() >= MAX_RENDITIONS {
            tracing::warn!(rendition = %planned.id, "no room for another rendition of this channel");
            return;
        }
        let rule = planned.rule.within(&timing);
        let mut rendition = Rendition::new(planned.id.clone(), timing, rule, self.discontinuities);
        let (snapshots, _) = watch::channel(rendition.snapshot());
        self.slots.push(Slot {
            id: planned.id,
            kind: planned.kind,
            origin: planned.origin,
            ceiling: planned.ceiling,
            longest_frame: (planned.kind == TrackKind::Video).then_some(rule.target),
            rendition,
            snapshots,
            meter: Meter::default(),
            held: VecDeque::new(),
            presence: Presence::There,
        });
    }

    fn publish_set(&mut self) {
        let mut set = RenditionSet::default();
        for slot in &self.slots {
            let view = RenditionView {
                id: slot.id.clone(),
                snapshots: slot.snapshots.subscribe(),
                ceiling: slot.ceiling,
                withheld: slot.presence != Presence::There,
            };
            match slot.kind {
                TrackKind::Video => set.video.push(view),
                TrackKind::Audio => set.audio.push(view),
            }
        }
        self.renditions.send_replace(Arc::new(set));
    }

    /// A unit of a planned session: cut, pass through, hand to the engine.
    fn process(&mut self, mut unit: AccessUnit) {
        let base = self.end_time().unwrap_or_else(|| timeline_start(self.first_msn));
        let Some(session) = &mut self.session else { return };
        let leads_by_plan = match session.tracks.as_ref().and_then(|t| t.video.as_ref()) {
            Some(_) => unit.kind() == TrackKind::Video,
            None => true,
        };
        let offset = match session.offset {
            Some(offset) => offset,
            None => {
                let offset = base - unit.dts;
                session.offset = Some(offset);
                // The channel's very first stretch needs no DISCONTINUITY before it.
                if self.segmenter.next_msn() > self.first_msn {
                    self.segmenter.new_publisher();
                }
                if let Some(map) = session.clock {
                    self.segmenter.clock(map.shifted(offset));
                }
                offset
            }
        };
        unit.pts += offset;
        unit.dts += offset;
        let stalled =
            !leads_by_plan && session.begin.is_some() && session.last_video.is_none_or(|v| unit.pts - v > AUDIO_HOLD);
        if unit.kind() == TrackKind::Video {
            if let Some(longest) = self.slots.iter().filter_map(|s| s.longest_frame).min() {
                session.stretch.place(&mut unit, longest);
            }
            session.last_video = Some(unit.pts);
        }
        let mut force_key = false;
        if leads_by_plan || stalled {
            // Without a passthrough rendition nobody needs the source's own key frames: the rungs get theirs forced.
            let free = unit.kind() == TrackKind::Audio || (!self.ladder.passthrough && session.begin.is_some());
            if !unit.key && !free && self.segmenter.key_frame_due(unit.pts) {
                self.effects.push_back(Effect::RequestKeyFrame);
            }
            session.lead = Some(session.lead.map_or(unit.pts, |lead| lead.max(unit.pts)));
            while let Some(cut) = self.segmenter.on_unit(unit.pts, unit.key || free) {
                force_key = true;
                if unit.kind() == TrackKind::Video {
                    self.carry_out_suspension(unit.pts);
                }
                self.cut(cut);
            }
            self.pass();
        }
        let Some(session) = &mut self.session else { return };
        let Some(begin) = session.begin else {
            // Audio often comes a little ahead of the key frame that it belongs to.
            if unit.kind() == TrackKind::Audio && session.early.len() < AUDIO_HOLD_UNITS {
                session.early.push(unit);
            }
            return;
        };
        if unit.kind() == TrackKind::Video {
            let spaced = session.last_forced.is_none_or(|last| unit.pts - last >= KEY_SPACING);
            force_key |= unit.key && spaced;
            if force_key {
                session.last_forced = Some(unit.pts);
            }
        }
        for early in std::mem::take(&mut session.early) {
            self.deliver(early, begin, false);
        }
        self.deliver(unit, begin, force_key);
    }

    /// Hands a unit on the channel's timeline to the passthrough renditions and the engine.
    fn deliver(&mut self, unit: AccessUnit, begin: MediaTime, force_key: bool) {
        if before(&unit, begin) {
            return;
        }
        for slot in &mut self.slots {
            if slot.origin == Origin::Passthrough && carries(slot, &unit.config) {
                slot.meter.add(&unit);
                if unit.kind() == TrackKind::Audio {
                    slot.held.push_back(unit.clone());
                } else {
                    slot.rendition.push(unit.clone());
                    slot.publish();
                }
            }
        }
        self.release_audio();
        self.effects.push_back(Effect::ToEngine(EngineInput { unit, force_key }));
    }

    fn cut(&mut self, cut: Cut) {
        if let Some(session) = &mut self.session {
            session.begin.get_or_insert(cut.at);
        }
        self.last_cut = Some(cut.at);
        self.discontinuities += u64::from(cut.discontinuity);
        // Audio held for this very moment belongs before the cut.
        for slot in &mut self.slots {
            while slot.held.front().is_some_and(|u| before(u, cut.at)) {
                if let Some(unit) = slot.held.pop_front() {
                    slot.rendition.push(unit);
                }
            }
            slot.rendition.cut(cut);
            slot.publish();
        }
    }

    /// What the leading track has passed is missing in renditions that nobody makes.
    fn pass(&mut self) {
        let Some(lead) = self.session.as_ref().and_then(|s| s.lead) else { return };
        for slot in self.slots.iter_mut().filter(|s| s.presence != Presence::There) {
            slot.rendition.pass(lead);
            slot.publish();
        }
    }

    /// Lets audio go that the leading track has passed, or that has waited for too long.
    fn release_audio(&mut self) {
        let Some(session) = &self.session else { return };
        let audio_only = session.tracks.as_ref().is_some_and(|t| t.video.is_none());
        let lead = session.lead;
        for slot in &mut self.slots {
            let newest = slot.held.back().map(|u| u.pts);
            let mut pushed = false;
            while let Some(unit) = slot.held.front() {
                let passed = lead.is_some_and(|lead| unit.pts <= lead);
                let overdue = newest.is_some_and(|n| n - unit.pts > AUDIO_HOLD) || slot.held.len() > AUDIO_HOLD_UNITS;
                if !(passed || overdue || audio_only) {
                    break;
                }
                if let Some(unit) = slot.held.pop_front() {
                    slot.rendition.push(unit);
                    pushed = true;
                }
            }
            if pushed {
                slot.publish();
            }
        }
    }

    /// Completes what is open in every rendition; the next unit begins behind a discontinuity.
    fn complete(&mut self) {
        // Nothing cuts the sound any more that is ahead of the picture: what the open segment has no room for is dropped (A3).
        let end = self.last_cut.zip(self.timing).map(|(cut, timing)| cut + timing.longest_segment());
        for slot in &mut self.slots {
            for unit in slot.held.drain(..) {
                let unit_end = unit.pts + unit.duration.unwrap_or(MediaDuration::ZERO);
                if end.is_some_and(|end| unit_end <= end) {
                    slot.rendition.push(unit);
                }
            }
            slot.rendition.flush();
            slot.publish();
        }
    }

    fn stop_engine(&mut self) {
        self.effects.push_back(Effect::StopEngine);
        // The next engine makes all rungs until it is told otherwise.
        self.suspension = Suspension::default();
        if self.slots.iter().any(|s| s.presence == Presence::Suspended) {
            self.suspend(&[], MediaTime::ZERO);
        }
    }

    fn restart_engine(&mut self) {
        self.stop_engine();
        let Some(tracks) = self.session.as_ref().and_then(|s| s.tracks.as_ref()) else { return };
        if let Some(spec) = Plan::new(tracks, &self.ladder, self.settings.part_aim, &mut self.admit).engine {
            self.effects.push_back(Effect::StartEngine(spec));
        }
    }

    /// Where the packaged media of the longest rendition ends.
    fn end_time(&self) -> Option<MediaTime> {
        self.slots.iter().filter_map(|s| s.rendition.end_time()).max()
    }
}

/// What operators see.
impl Core {
    pub fn is_live(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.begin.is_some()) && self.has_playlist()
    }

    pub fn has_playlist(&self) -> bool {
        self.slots.iter().any(|s| s.snapshots.borrow().is_playable())
    }

    pub fn worker_restarts(&self) -> u32 {
        self.worker_restarts
    }

    pub fn source_tracks(&self) -> (Option<TrackStatus>, Option<TrackStatus>) {
        let Some(session) = &self.session else { return (None, None) };
        let Some(tracks) = &session.tracks else { return (None, None) };
        let video = tracks.video.as_ref().map(|c| track_status(c, session.video.rate(), session.video.bitrate()));
        let audio = tracks.audio.as_ref().map(|c| track_status(c, None, session.audio.bitrate()));
        (video, audio)
    }

    pub fn rendition_status(&self) -> Vec<RenditionStatus> {
        self.slots
            .iter()
            .filter_map(|slot| {
                let snapshot = slot.snapshots.borrow();
                let rate = snapshot.frame_rate_milli().map(|milli| f64::from(milli) / 1000.0);
                let position = snapshot.position()?;
                Some(RenditionStatus {
                    id: slot.id.clone(),
                    kind: match slot.kind {
                        TrackKind::Video => "video",
                        TrackKind::Audio => "audio",
                    },
                    passthrough: slot.origin == Origin::Passthrough,
                    suspended: slot.presence == Presence::Suspended,
                    track: track_status(snapshot.config()?, rate, slot.meter.bitrate()),
                    msn: position.msn,
                    segments: usize::try_from(position.msn.saturating_sub(snapshot.media_sequence())).unwrap_or(0),
                    retained_bytes: snapshot.retained_bytes(),
                })
            })
            .collect()
    }

    pub fn messages(&self) -> Vec<Message> {
        let mut messages: Vec<_> = self.admission.iter().filter(|_| self.session.is_some()).cloned().collect();
        if let Some(reason) = &self.engine_failure {
            messages.push(Message { level: "error", text: format!("The ladder is not being encoded: {reason}") });
        }
        let suspended: Vec<_> =
            self.slots.iter().filter(|s| s.presence == Presence::Suspended).map(|s| s.id.to_string()).collect();
        if !suspended.is_empty() {
            let text = format!(
                "What encodes this channel has too much to do: {} suspended, so that the other renditions keep up. Players go on \
                 with those; it comes back by itself when there is room.",
                match &suspended[..] {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(", ")),
                },
            );
            messages.push(Message { level: "warning", text });
        }
        if self.session.is_some() && self.ladder.passthrough && self.segmenter.cut_without_key() {
            messages.push(Message {
                level: "warning",
                text:
                    "The source's key frames are too far apart: segments begin without one, so viewers take longer to \
                       join. Set the encoder's key frame interval to 2 seconds or less."
                        .to_owned(),
            });
        }
        messages
    }
}

impl Slot {
    /// With a unit at `at`: whether a rung that came back has enough media behind it to be shown to new viewers.
    fn has_come_back(&mut self, at: MediaTime) -> bool {
        let Presence::Back(since) = &mut self.presence else { return false };
        // Until its first segment begins, what comes is left out.
        if self.rendition.is_away() {
            return false;
        }
        let since = *since.get_or_insert(at);
        let enough = at - since >= self.rendition.timing().hold_back;
        if enough {
            self.presence = Presence::There;
        }
        enough
    }

    fn publish(&mut self) {
        let snapshot = self.rendition.snapshot();
        self.snapshots.send_if_modified(|current| {
            let changed = !Arc::ptr_eq(current, &snapshot);
            if changed {
                *current = snapshot;
            }
            changed
        });
    }
}

fn timeline_start(first_msn: u64) -> MediaTime {
    let msns = i64::try_from(first_msn).unwrap_or(i64::MAX);
    MediaTime(msns.saturating_mul(TIMELINE_PER_MSN.0).min(i64::MAX / 2)) + TIMELINE_LEAD
}

/// More than half of the unit lies before `at`.
fn before(unit: &AccessUnit, at: MediaTime) -> bool {
    let half = MediaDuration(unit.duration.map_or(0, |d| d.0 / 2));
    unit.pts + half < at
}

/// A passthrough slot takes units of its own codec only: `aac` must not get Opus.
fn carries(slot: &Slot, config: &TrackConfig) -> bool {
    match config {
        TrackConfig::H264(_) | TrackConfig::H265(_) | TrackConfig::Av1(_) => slot.kind == TrackKind::Video,
        TrackConfig::Aac(_) => slot.id.as_str() == "aac",
        TrackConfig::Opus(_) => slot.id.as_str() == "opus",
    }
}

/// The session's tracks, once its first units tell them.
fn tracks_of(pending: &[AccessUnit]) -> Option<Tracks> {
    let first = |kind| pending.iter().find(|u| u.kind() == kind);
    let (video, audio) = (first(TrackKind::Video), first(TrackKind::Audio));
    let frames = pending.iter().filter(|u| u.kind() == TrackKind::Video).count();
    let span = pending.last()?.dts - pending.first()?.dts;
    let waited = span > START_PATIENCE || pending.len() >= START_UNITS;
    let complete = video.is_some() && audio.is_some() && frames >= START_FRAMES;
    (complete || waited).then(|| Tracks {
        video: video.map(|u| u.config.clone()),
        frame: steady_frame(pending),
        audio: audio.map(|u| u.config.clone()),
        audio_frame: audio.and_then(|u| u.duration).unwrap_or(MediaDuration::from_millis(20)),
    })
}

fn track_status(config: &TrackConfig, rate: Option<f64>, bitrate: u64) -> TrackStatus {
    let mut status = TrackStatus {
        codec: config.rfc6381(),
        width: None,
        height: None,
        frame_rate: rate.map(|r| (r * 100.0).round() / 100.0),
        sample_rate: None,
        channels: None,
        bitrate,
    };
    (status.width, status.height) = config.size().unzip();
    match config {
        TrackConfig::H264(_) | TrackConfig::H265(_) | TrackConfig::Av1(_) => {}
        TrackConfig::Aac(c) => {
            status.sample_rate = Some(c.sample_rate);
            status.channels = Some(c.channels);
        }
        TrackConfig::Opus(c) => {
            status.sample_rate = Some(48_000);
            status.channels = Some(c.channels);
        }
    }
    status
}

#[cfg(test)]
mod tests;
