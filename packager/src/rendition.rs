//! One rendition: turns its access units into parts and segments and keeps the sliding window. Read it first.
//!
//! Units come in decode order, cuts before the units behind them. A sample goes into a part once its duration is known:
//! audio at once, video when the next unit tells. Times inside are ticks of the track's timescale, so that decode times
//! add up exactly (ISO 14496-12, 8.8.12).

use std::collections::VecDeque;
use std::sync::Arc;

use media::{AccessUnit, MediaDuration, MediaTime, RenditionId, TrackConfig, TrackKind};

use crate::bandwidth::Sent;
use crate::fmp4::{Sample, fragment, init_segment};
use crate::segmenter::Cut;
use crate::timing::{ChannelTiming, PartRule};
use crate::window::{Head, Init, Open, Part, Segment, Snapshot};

/// Cuts that wait for their first unit. An encoder that restarts lags by a segment or two; a rendition that is further behind
/// gets segments without media, so that its numbers stay in step.
const CUTS_AHEAD: usize = 3;

/// Samples in a part: 2 s at 240 a second, far above any source. Above it the part is closed early.
const MAX_PART_SAMPLES: usize = 512;

/// Bytes in a segment, 64 MiB: over 200 Mbit/s. Above it samples are dropped until the next segment.
const MAX_SEGMENT_BYTES: usize = 64 << 20;

/// Beyond TARGETDURATION: less than the half second that would round to another one.
const MAX_EXCESS: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 1000 * 499);

/// A picture this close to a cut begins its segment: cuts lie on whole milliseconds, and times are rounded.
const CUT_TOLERANCE: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 500);

/// A picture is decoded less than this before it is shown, else there was a stall between: five pictures at 15 frames a second.
const DEEPEST_REORDER: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 3);

/// Ticks a second of every video track.
const VIDEO_TIMESCALE: u32 = 90_000;

/// Segments of sound begin between two milliseconds, and dates are cut to whole ones; the cut differs from segment to
/// segment. Dated this much early, sound is never laid behind its media (media_playlist.rs says why that matters).
const AUDIO_DATED_EARLY: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 1000);

/// Listed and retained segments, whatever their length: an hour of one-second segments, twice.
const MAX_SEGMENTS: usize = 7200;

pub struct Rendition {
    id: RenditionId,
    timing: ChannelTiming,
    rule: PartRule,
    /// Announced, their first unit not yet seen.
    cuts: VecDeque<Cut>,
    /// Parameters of the newest segment, and their init segment.
    config: Option<Arc<TrackConfig>>,
    init: Option<Arc<Init>>,
    /// The last video unit, its duration not yet known.
    held: Option<AccessUnit>,
    /// The held unit's decode time as it came.
    decoded: MediaTime,
    /// How long after it is decoded the first picture of this stretch of the timeline is shown. Dates follow decode times at
    /// this distance, so that they add up with durations; it is zero for sound.
    lag: MediaDuration,
    /// The longest such time of this segment's pictures, and of the segment's before it.
    reorder: [MediaDuration; 2],
    /// Decode time of the next sample, in ticks; None before the first one and behind a discontinuity.
    cursor: Option<i64>,
    open: Option<Open>,
    open_bytes: usize,
    open_samples: i64,
    /// The open part.
    samples: Vec<Sample>,
    samples_ticks: i64,
    /// mfhd sequence number of the last fragment.
    sequence: u32,
    window: Window,
    /// Where the packaged media ends.
    end: Option<MediaTime>,
    next_msn: u64,
    sent: Sent,
    frame_rate_milli: Option<u32>,
    /// Flushed, and no segment begun since.
    flushed: bool,
    ended: bool,
    supply: Supply,
    dropped: u64,
    snapshot: Option<Arc<Snapshot>>,
}

/// Whether units come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supply {
    Flows,
    /// The segment that begins at `from` gets one part of media, and no segment behind it any. `begun`: that one is open.
    Ends {
        from: MediaTime,
        begun: bool,
    },
    /// None come on purpose: cuts begin segments without media at once instead of waiting for their first unit.
    Suspended,
    /// They come again: the next cut that has a key frame of its own ends the gap.
    Returns,
}

/// Complete segments: those in the playlist and those that left it but may still be fetched.
#[derive(Default)]
struct Window {
    listed: VecDeque<Arc<Segment>>,
    retained: VecDeque<Arc<Segment>>,
    discontinuity_sequence: u64,
}

impl Rendition {
    /// `discontinuity_sequence`: how many discontinuities the channel had before this rendition begins (A14).
    pub fn new(id: RenditionId, timing: ChannelTiming, rule: PartRule, discontinuity_sequence: u64) -> Self {
        Self {
            id,
            timing,
            rule,
            cuts: VecDeque::new(),
            config: None,
            init: None,
            held: None,
            decoded: MediaTime::ZERO,
            lag: MediaDuration::ZERO,
            reorder: [MediaDuration::ZERO; 2],
            cursor: None,
            open: None,
            open_bytes: 0,
            open_samples: 0,
            samples: Vec::new(),
            samples_ticks: 0,
            sequence: 0,
            window: Window { discontinuity_sequence, ..Window::default() },
            end: None,
            next_msn: 0,
            sent: Sent::default(),
            frame_rate_milli: None,
            flushed: false,
            ended: false,
            supply: Supply::Flows,
            dropped: 0,
            snapshot: None,
        }
    }

    /// Announces a segment boundary. Cuts come in order, each before the first unit at or after `cut.at`.
    pub fn cut(&mut self, cut: Cut) {
        if self.ended {
            return;
        }
        self.cuts.push_back(cut);
        if self.supply == Supply::Suspended {
            self.begin_gap(None);
            return;
        }
        while self.cuts.len() > CUTS_AHEAD {
            self.end_held_with_segment();
            self.skip_cut(None);
        }
    }

    /// Takes the next unit in decode order, on the channel's timeline. A stall longer than two parts becomes GAP parts.
    pub fn push(&mut self, mut unit: AccessUnit) {
        if self.ended || (self.held.is_some() && unit.dts <= self.decoded) {
            self.dropped += 1;
            return;
        }
        if matches!(self.supply, Supply::Suspended | Supply::Returns) && !self.takes_up(&unit) {
            return;
        }
        let timescale = unit.config.timescale();
        let starts_anew = self.cuts.iter().any(|cut| cut.discontinuity && reaches(&unit, cut.at));
        if unit.kind() == TrackKind::Video {
            let came = unit.dts;
            if self.cursor.is_some() {
                self.decode_behind_stall(&mut unit, starts_anew);
            }
            self.decoded = came;
        }
        self.place_held((!starts_anew).then(|| self.next_boundary(&unit)));
        let ends = matches!(self.supply, Supply::Ends { begun: true, .. });
        if ends && self.open.as_ref().is_some_and(|open| !open.parts.is_empty()) {
            self.begin_suspension();
            return;
        }
        while self.cuts.front().is_some_and(|cut| reaches(&unit, cut.at)) {
            // Of several cuts that the unit reaches only the last is its own; the others begin segments without media.
            if self.cuts.get(1).is_some_and(|next| reaches(&unit, next.at)) {
                self.skip_cut(Some(&unit));
            } else if let Some(cut) = self.cuts.pop_front() {
                self.begin_segment(cut, &unit);
            }
        }
        if self.open.is_none() {
            self.dropped += 1;
            return;
        }
        let Some(duration) = unit.duration else {
            // A frame behind a short hole is shown early instead, and lasts longer.
            let at = unit.dts.ticks(timescale);
            if self.cursor.is_some_and(|cursor| at - cursor > self.rule.target.ticks(timescale)) {
                self.fill_gap(at, timescale);
            }
            self.cursor.get_or_insert(at);
            self.held = Some(unit);
            return;
        };
        // Audio: frames join without a seam as long as their times stay within one and a half frames of the sum of
        // durations; the noise of the sender's clock must not tear them apart.
        let frame = duration.ticks(timescale).max(1);
        let at = unit.pts.ticks(timescale);
        let drift = at - *self.cursor.get_or_insert(at);
        if drift * 2 > frame * 3 {
            self.fill_gap(at, timescale);
        } else if drift * 2 < frame * -3 {
            self.dropped += 1;
            return;
        }
        // Nothing has cut the sound yet, and the segment has no room for it: the picture ended where it was due to be cut (A3).
        let begun = self.open.as_ref().map_or(MediaDuration::ZERO, |open| open.duration);
        let ends = begun + MediaDuration::from_ticks(self.samples_ticks + frame, timescale);
        if ends > self.timing.target() + MAX_EXCESS {
            self.dropped += 1;
            return;
        }
        self.place(&unit, frame);
    }

    /// No units come until [`Rendition::resume`], but for those of one part from the cut `from` on, which is yet to come, and those
    /// before it that are under way. What is missing is listed as GAP while the others go on (see [`Rendition::pass`]), the first
    /// part of it together with the last one of media: players leave early in a segment, where they need little of another
    /// rendition's, and are told as soon as can be. hls.js looks for a part's successor right behind it and nowhere else.
    pub fn suspend(&mut self, from: MediaTime) {
        match self.supply {
            _ if self.ended => {}
            Supply::Flows if self.held.is_some() => self.supply = Supply::Ends { from, begun: false },
            Supply::Flows | Supply::Returns => self.begin_suspension(),
            Supply::Ends { .. } | Supply::Suspended => {}
        }
    }

    /// Units come again. Media begins with a segment, whose first unit is a key frame at its cut; what comes before it is left
    /// out, so that no segment has less media than it says.
    pub fn resume(&mut self) {
        if let Supply::Ends { .. } = self.supply {
            self.begin_suspension();
        }
        if self.supply == Supply::Suspended {
            self.supply = Supply::Returns;
        }
    }

    /// Suspended, or resumed and without a unit since.
    pub fn is_away(&self) -> bool {
        self.supply != Supply::Flows
    }

    /// How long units still come from the cut on with which the rendition is suspended: until the part's end is known.
    pub fn ends_within(&self) -> MediaDuration {
        self.rule.target + self.rule.target
    }

    /// Renditions that are made of the same pictures have come to `at`: what this one still lacked some parts ago does not come.
    pub fn others_come(&mut self, at: MediaTime) {
        if let Supply::Ends { from, .. } = self.supply
            && at - from >= self.ends_within() + self.rule.target
        {
            self.begin_suspension();
        }
    }

    pub fn timing(&self) -> &ChannelTiming {
        &self.timing
    }

    /// The leading track has come to `at`: without units, as much is missing. To be called while the rendition is suspended and
    /// until it has media again.
    pub fn pass(&mut self, at: MediaTime) {
        if let Supply::Ends { from, .. } = self.supply {
            if at - from < self.timing.target() {
                return;
            }
            // Nor do the others come: nobody makes anything any more.
            self.begin_suspension();
        }
        let Some(config) = self.config.as_ref().filter(|_| self.supply != Supply::Flows && !self.ended) else { return };
        let timescale = config.timescale();
        // A cut that waits for its key frame ends the gap.
        let to = self.cuts.front().map_or(at, |cut| at.min(cut.at)) - self.lag;
        if let Some(held) = &self.held {
            // A cut that comes soon tells how long the last picture is shown: its segment must not begin late.
            if to - held.dts <= self.rule.target {
                return;
            }
            self.place_held(None);
        }
        let whole = self.rule.aim.ticks(timescale).max(1);
        if let Some(cursor) = self.cursor {
            let parts = (to.ticks(timescale) - cursor).max(0) / whole;
            self.fill_gap(cursor + parts * whole, timescale);
        }
    }

    /// The session ended: completes the open part and segment with nominal durations. The channel lives on.
    pub fn flush(&mut self) {
        self.end_held_with_segment();
        while !self.cuts.is_empty() {
            self.skip_cut(None);
        }
        if self.is_away()
            && let Some(config) = &self.config
        {
            let timescale = config.timescale();
            self.fill_empty(self.rule.aim.ticks(timescale), timescale);
        }
        self.close_segment();
        self.flushed = true;
    }

    /// The channel ended for good: flush, then EXT-X-ENDLIST.
    pub fn end(&mut self) {
        self.flush();
        self.ended = true;
        self.snapshot = None;
    }

    /// The end of what was packaged (channel timeline): where a returning publisher's media begins.
    pub fn end_time(&self) -> Option<MediaTime> {
        self.end
    }

    /// Units that could not be packaged: out of order, before the first cut, or above the bounds.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The present state for viewers; the same `Arc` as before while nothing changed.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return snapshot.clone();
        }
        let snapshot = Arc::new(Snapshot {
            id: self.id.clone(),
            timing: self.timing,
            rule: self.rule,
            discontinuity_sequence: self.window.discontinuity_sequence,
            listed: self.window.listed.iter().cloned().collect(),
            retained: self.window.retained.iter().cloned().collect(),
            open: self.open.clone(),
            next_msn: self.next_msn,
            ended: self.ended,
            sent: self.sent,
            config: self.config.clone(),
            frame_rate_milli: self.frame_rate_milli,
        });
        self.snapshot = Some(snapshot.clone());
        snapshot
    }

    fn begin_suspension(&mut self) {
        if let Supply::Ends { begun: true, .. } = self.supply {
            self.place_held(None);
            self.announce_gap();
        }
        self.supply = Supply::Suspended;
        while !self.cuts.is_empty() {
            self.begin_gap(None);
        }
    }

    /// Lists one GAP part ahead of its time. A segment that begins within it begins behind it, on a whole millisecond as well.
    fn announce_gap(&mut self) {
        let (Some(cursor), Some(config)) = (self.cursor, &self.config) else { return };
        let timescale = config.timescale();
        let to = MediaTime::from_ticks(cursor, timescale) + self.lag + self.rule.aim;
        let to = MediaTime::from_millis(to.millis()) - self.lag;
        self.fill_gap(to.ticks(timescale), timescale);
    }

    /// Whether media begins again with this unit. Cuts that it lies behind have passed without any.
    fn takes_up(&mut self, unit: &AccessUnit) -> bool {
        while let Some(cut) = self.cuts.front().filter(|cut| reaches(unit, cut.at)) {
            if self.supply == Supply::Returns && unit.key && unit.pts - cut.at <= CUT_TOLERANCE {
                self.supply = Supply::Flows;
                return true;
            }
            self.begin_gap(Some(unit));
        }
        false
    }

    /// Gives a picture behind a stall a decode time behind it too. Where pictures are reordered, decode times come from the
    /// pictures before: of the first one behind a stall it lies before the stall, and so would its segment begin there.
    fn decode_behind_stall(&mut self, unit: &mut AccessUnit, starts_anew: bool) {
        let before = self.held.as_ref().map(|held| held.dts);
        // What a picture's decode time is worth tells the next one.
        if let Some(held) = self.held.as_ref().filter(|held| unit.dts - held.dts <= self.rule.target) {
            self.reorder[0] = self.reorder[0].max(held.pts - held.dts);
        }
        let usual = self.reorder[0].max(self.reorder[1]).max(self.lag);
        // What comes behind a discontinuity may be reordered in another way than what was before.
        let credible = if starts_anew { usual.max(DEEPEST_REORDER) } else { usual };
        if unit.pts - unit.dts > credible && self.cuts.iter().any(|cut| reaches(unit, cut.at)) {
            unit.dts = unit.pts - usual;
        }
        if starts_anew {
            return;
        }
        // Pictures that it was moved past follow at once, those from before the stall late.
        if let Some(before) = before.filter(|before| unit.dts <= *before) {
            unit.dts = before + MediaDuration::from_ticks(1, unit.config.timescale());
            unit.pts = unit.pts.max(unit.dts);
        }
    }

    /// Where the held unit must end at the latest: at the next unit, or at a cut that lies in the hole before it.
    fn next_boundary(&self, unit: &AccessUnit) -> MediaTime {
        let held = self.held.as_ref().map_or(unit.pts, |held| held.pts);
        let cut = self.cuts.iter().find(|cut| cut.at > held);
        cut.map_or(unit.dts, |cut| self.begin_of(cut, unit).min(unit.dts))
    }

    /// The decode time at which the cut's segment begins: its own unit's, or that of a picture that would have been shown then.
    fn begin_of(&self, cut: &Cut, unit: &AccessUnit) -> MediaTime {
        let own = unit.pts - cut.at <= CUT_TOLERANCE;
        cut.at - if own { unit.pts - unit.dts } else { self.lag }
    }

    /// Gives the held unit its duration without a next one: it ends where the next segment begins, if that is known. Past it, that
    /// segment would not begin on a whole millisecond, and its date would not add up (A16).
    fn end_held_with_segment(&mut self) {
        let begins = self.cuts.front().map(|cut| cut.at - self.lag);
        self.place_held(begins.filter(|begins| self.held.as_ref().is_some_and(|held| held.dts < *begins)));
    }

    /// Gives the held unit its duration: up to the next unit, but not longer than a part may last (A23).
    fn place_held(&mut self, next: Option<MediaTime>) {
        let Some(held) = self.held.take() else { return };
        let timescale = held.config.timescale();
        let start = *self.cursor.get_or_insert_with(|| held.dts.ticks(timescale));
        let longest = self.rule.target.ticks(timescale).max(1);
        let usual = self.samples.last().map_or(i64::from(timescale) / 30, |s| i64::from(s.duration));
        // The last frame of a session lasts as long as the one before it, or as the open part has room for.
        let room = longest - self.samples_ticks;
        let last = if room > 0 { usual.min(room) } else { usual };
        let mut duration = next.map_or(last, |next| next.ticks(timescale) - start);
        // What the open part lacks to be long enough to end here (A24). A frame before a hole that fits nowhere gives that
        // much of its time to the frame before it: shown late for once, and no part is missing.
        let lacking = match self.samples.last() {
            Some(_) => (longest * 86 / 100 - self.samples_ticks).max(0),
            None => 0,
        };
        if duration > longest + lacking {
            // A stall: the frame keeps its usual length, and GAP parts follow.
            duration = usual;
        }
        if duration > room && lacking > 0 {
            self.lengthen_last(lacking);
            duration -= lacking;
        }
        self.place(&held, duration.clamp(1, longest));
    }

    /// Shows the open part's last sample for so many ticks more.
    fn lengthen_last(&mut self, ticks: i64) {
        let (Some(last), Some(cursor)) = (self.samples.last_mut(), self.cursor.as_mut()) else { return };
        last.duration = last.duration.saturating_add(u32::try_from(ticks).unwrap_or(0));
        *cursor += ticks;
        self.samples_ticks += ticks;
    }

    /// Adds a sample at the cursor; completes the open part before it or with it.
    fn place(&mut self, unit: &AccessUnit, duration: i64) {
        let timescale = unit.config.timescale();
        let (aim, target) = (self.rule.aim.ticks(timescale), self.rule.target.ticks(timescale));
        if self.open_bytes + unit.data.len() > MAX_SEGMENT_BYTES {
            self.dropped += 1;
            return;
        }
        if self.samples_ticks + duration > target || self.samples.len() >= MAX_PART_SAMPLES {
            self.close_part(timescale);
        }
        let (Some(cursor), Ok(ticks)) = (self.cursor.as_mut(), u32::try_from(duration)) else { return };
        *cursor += duration;
        self.samples_ticks += duration;
        self.open_bytes += unit.data.len();
        self.open_samples += 1;
        self.samples.push(Sample {
            duration: ticks,
            offset: i32::try_from((unit.pts - unit.dts).ticks(timescale)).unwrap_or(0),
            sync: unit.key,
            data: unit.data.clone(),
        });
        // One more sample like this one would not fit: publish now instead of a frame later.
        let long_enough = self.samples_ticks * 100 >= target * 85;
        let full = self.samples_ticks + duration > target && long_enough;
        if self.samples_ticks + i64::from(timescale) / 1000 >= aim || full {
            self.close_part(timescale);
        }
    }

    /// Turns the open part's samples into bytes.
    fn close_part(&mut self, timescale: u32) {
        if self.samples.is_empty() {
            return;
        }
        let start = self.cursor.unwrap_or(0) - self.samples_ticks;
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = fragment(self.sequence, u64::try_from(start).unwrap_or(0), &self.samples);
        let independent = self.samples.first().is_some_and(|s| s.sync);
        let duration = MediaDuration::from_ticks(self.samples_ticks, timescale);
        let ticks = std::mem::take(&mut self.samples_ticks);
        let count = self.samples.len() as i64;
        self.samples.clear();
        if timescale == VIDEO_TIMESCALE && self.frame_rate_milli.is_none() && count > 1 {
            self.frame_rate_milli = frame_rate(count, ticks, timescale);
        }
        self.add_part(Part { duration, independent, bytes });
    }

    fn add_part(&mut self, part: Part) {
        let Some(open) = &mut self.open else { return };
        open.duration += part.duration;
        open.parts.push(part);
        if let (Some(cursor), Some(config)) = (self.cursor, &self.config) {
            self.end = Some(MediaTime::from_ticks(cursor, config.timescale()));
        }
        self.snapshot = None;
    }

    /// Fills missing time up to `to` with GAP parts (A44), each no longer than a part may last.
    fn fill_gap(&mut self, to: i64, timescale: u32) {
        let Some(from) = self.cursor.filter(|from| *from < to) else { return };
        if self.open.is_none() {
            return;
        }
        self.close_part(timescale);
        let step = self.rule.aim.ticks(timescale).max(1);
        // A stall of hours is a matter of the segmenter's cuts; within a segment the parts are few.
        let mut at = from;
        while at < to {
            let ticks = step.min(to - at);
            at += ticks;
            self.cursor = Some(at);
            let duration = MediaDuration::from_ticks(ticks, timescale);
            self.add_part(Part { duration, independent: false, bytes: None });
        }
    }

    /// A segment has one part at least.
    fn fill_empty(&mut self, ticks: i64, timescale: u32) {
        let empty = self.samples.is_empty() && self.open.as_ref().is_some_and(|open| open.parts.is_empty());
        if let Some(cursor) = self.cursor.filter(|_| empty) {
            self.fill_gap(cursor + ticks, timescale);
        }
    }

    /// Begins the cut's segment with `unit`.
    fn begin_segment(&mut self, cut: Cut, unit: &AccessUnit) {
        if let Supply::Ends { from, begun } = &mut self.supply {
            *begun |= *from - unit.pts <= CUT_TOLERANCE;
        }
        let timescale = unit.config.timescale();
        let first = match unit.kind() {
            TrackKind::Video => unit.dts.ticks(timescale),
            TrackKind::Audio => unit.pts.ticks(timescale),
        };
        let at = self.begin_of(&cut, unit).ticks(timescale);
        if !cut.discontinuity && self.lacks(unit, at) {
            self.fill_gap(first.min(at), timescale);
        }
        self.close_segment();
        if cut.discontinuity {
            self.cursor = None;
        }
        if self.cursor.is_none() {
            (self.lag, self.reorder) = (unit.pts - unit.dts, [MediaDuration::ZERO; 2]);
        }
        self.reorder = [MediaDuration::ZERO, self.reorder[0]];
        // The cut lies on a whole millisecond, and so does the picture's first frame.
        let early = unit.kind() == TrackKind::Video && (0..i64::from(timescale) / 1000).contains(&(first - at));
        let start = *self.cursor.get_or_insert(if early { at } else { first });
        if self.config.as_ref() != Some(&unit.config) || self.init.is_none() {
            let Some(bytes) = init_segment(&unit.config) else { return };
            if self.init.as_ref().is_none_or(|init| init.bytes != bytes) {
                self.init = Some(Arc::new(Init { msn: cut.msn, bytes }));
            }
            self.config = Some(unit.config.clone());
        }
        self.open(cut, MediaTime::from_ticks(start, timescale) + self.lag - cut.at);
    }

    /// True where the open segment lacks media between its last sample and `at`. Sound may end anywhere up to half a frame beside
    /// the cut, and joins without a seam as long as it lies within one and a half of its time (see `push`).
    fn lacks(&self, unit: &AccessUnit, at: i64) -> bool {
        let frame = unit.duration.map_or(0, |duration| duration.ticks(unit.config.timescale()));
        self.cursor.is_some_and(|cursor| (at - cursor) * 2 > frame * 3)
    }

    /// The cut's time passed without a unit: its segment is a gap up to the next cut, or to `unit`, which comes behind it.
    fn skip_cut(&mut self, unit: Option<&AccessUnit>) {
        let Some((cut, begin)) = self.begin_gap(unit) else { return };
        let Some(timescale) = self.config.as_ref().map(|config| config.timescale()) else { return };
        let next = self.cuts.front().map_or(cut.at + self.rule.aim, |next| next.at);
        self.fill_gap(self.gap_ticks(&cut, unit, next, timescale).max(begin + 1), timescale);
    }

    /// Begins the next cut's segment without a unit, and gives the tick where it begins.
    fn begin_gap(&mut self, unit: Option<&AccessUnit>) -> Option<(Cut, i64)> {
        let cut = self.cuts.pop_front()?;
        self.place_held(Some(cut.at - self.lag));
        // A rendition that never had a unit has no init segment to name: it begins at its first unit.
        let Some(config) = self.config.clone().filter(|_| self.init.is_some()) else {
            self.window.discontinuity_sequence += u64::from(cut.discontinuity);
            return None;
        };
        let timescale = config.timescale();
        let start = self.gap_ticks(&cut, unit, cut.at, timescale);
        if !cut.discontinuity {
            self.fill_gap(start, timescale);
        }
        self.close_segment();
        let begin = if cut.discontinuity { start } else { self.cursor.unwrap_or(start).max(start) };
        self.cursor = Some(begin);
        let begins = MediaTime::from_ticks(begin, timescale) + self.lag;
        self.open(cut, begins - cut.at);
        Some((cut, begin))
    }

    /// A time in a gap that the cut begins, but not behind `unit`.
    fn gap_ticks(&self, cut: &Cut, unit: Option<&AccessUnit>, at: MediaTime, timescale: u32) -> i64 {
        let at = at - self.lag;
        unit.filter(|_| !cut.discontinuity).map_or(at, |unit| at.min(unit.dts)).ticks(timescale)
    }

    fn open(&mut self, cut: Cut, late: MediaDuration) {
        let Some(init) = self.init.clone() else { return };
        let early = match self.config.as_ref().map(|c| c.kind()) {
            Some(TrackKind::Audio) => AUDIO_DATED_EARLY,
            _ => MediaDuration::ZERO,
        };
        let wall = cut.wall.plus(late - early);
        let head = Head { msn: cut.msn, discontinuity: cut.discontinuity, wall, init };
        if cut.discontinuity {
            self.sent = Sent::default();
        }
        let resumed = std::mem::take(&mut self.flushed);
        self.open = Some(Open { head, parts: Vec::new(), duration: MediaDuration::ZERO, resumed });
        self.open_bytes = 0;
        self.open_samples = 0;
        self.next_msn = cut.msn + 1;
        self.snapshot = None;
    }

    fn close_segment(&mut self) {
        let timescale = self.config.as_ref().map_or(VIDEO_TIMESCALE, |c| c.timescale());
        self.close_part(timescale);
        self.fill_empty(1, timescale);
        let Some(open) = self.open.take() else { return };
        let gap = open.parts.iter().all(|p| p.bytes.is_none());
        if timescale == VIDEO_TIMESCALE && open.parts.iter().all(|p| p.bytes.is_some()) {
            let rate = frame_rate(self.open_samples, open.duration.ticks(timescale), timescale);
            self.frame_rate_milli = rate.or(self.frame_rate_milli);
        }
        let Open { head, parts, duration, .. } = open;
        let segment = Segment { head, duration, parts, gap };
        self.sent.add(&segment, self.timing.target());
        self.window.add(segment, &self.timing);
        self.snapshot = None;
    }
}

impl Window {
    /// Takes a complete segment and lets the oldest go: from the list when the window is full without it, for good after
    /// its own duration and the longest playlist's (A9).
    fn add(&mut self, segment: Segment, timing: &ChannelTiming) {
        self.listed.push_back(Arc::new(segment));
        let total = |list: &VecDeque<Arc<Segment>>| list.iter().fold(MediaDuration::ZERO, |sum, s| sum + s.duration);
        let window = timing.settings.window;
        while let Some(first) = self.listed.front() {
            if total(&self.listed) - first.duration < window && self.listed.len() <= MAX_SEGMENTS {
                break;
            }
            if let Some(first) = self.listed.pop_front() {
                self.discontinuity_sequence += u64::from(first.head.discontinuity);
                self.retained.push_back(first);
            }
        }
        let retention = window + timing.longest_segment() + timing.longest_segment();
        while total(&self.retained) > retention || self.retained.len() > MAX_SEGMENTS {
            self.retained.pop_front();
        }
    }
}

/// The unit lies at or behind the cut: video by its presentation time, with a tolerance for rounding; audio by its middle.
fn reaches(unit: &AccessUnit, at: MediaTime) -> bool {
    let slack = match unit.duration {
        Some(duration) => MediaDuration(duration.0 / 2),
        None => CUT_TOLERANCE,
    };
    unit.pts + slack >= at
}

/// Frames a second, times 1000.
fn frame_rate(frames: i64, ticks: i64, timescale: u32) -> Option<u32> {
    if frames < 2 || ticks <= 0 {
        return None;
    }
    u32::try_from((frames * i64::from(timescale) * 1000 + ticks / 2) / ticks).ok()
}
