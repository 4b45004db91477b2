//! The channel's one segment clock: decides from the leading track where segments begin. Numbers only, no bytes.

use media::{ClockMap, MediaDuration, MediaTime, WallTime};

use crate::timing::{ChannelTiming, HlsSettings};

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

/// A key frame is asked for this long before a cut is due: about a round trip and a frame.
const KEY_FRAME_LEAD: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 10);

/// PROGRAM-DATE-TIME follows the capture clock at ordinary cuts in these steps (A16): forward by one millisecond, 500 ppm, more
/// than any crystal needs; backward only once it is wrong by a whole long step; and in long steps where it never was right.
///
/// Players compare dates of different segments (hls.js: one playlist's middle with another's first) to lay picture and sound
/// of all renditions on one timeline. Dates that grow less than the segments' durations put a rendition later than its media
/// is, and hls.js then waits seconds for a segment that it believes to have.
const CLOCK_STEP: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 1000);
const CLOCK_LONG_STEP: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 10);
const CLOCK_WRONG: MediaDuration = MediaDuration(2 * media::FLICKS_PER_SECOND);

/// Pictures are reordered by less than this, else there was a stall between them: five at 15 frames a second.
const REORDER: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 3);

/// Room that a segment with a hole over its target keeps for the frame behind the hole, which may be its publisher's last.
const FRAME_BEHIND_HOLE: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 10);

/// Comparisons with the segment target forgive the noise of a capture clock.
const TOLERANCE: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 500);

#[derive(Debug)]
pub struct Segmenter {
    timing: ChannelTiming,
    next_msn: u64,
    /// Where the open segment began; None before a publisher's first cut.
    start: Option<MediaTime>,
    last_key: Option<MediaTime>,
    /// Distance of the last two key frames.
    gop: Option<MediaDuration>,
    /// The latest presentation time so far.
    previous: Option<MediaTime>,
    /// How far behind it pictures of this segment came: what a segment without a key frame shows before its first picture.
    reorder: MediaDuration,
    discontinuity: bool,
    clock: Option<ClockMap>,
    applied: Option<ClockMap>,
    cut_without_key: bool,
}

impl Segmenter {
    /// `first_msn` seeds EXT-X-MEDIA-SEQUENCE, so that it never goes back, not even over a restart of the server (A5).
    pub fn new(settings: HlsSettings, first_msn: u64) -> Self {
        Self {
            timing: ChannelTiming::new(settings, &[]),
            next_msn: first_msn,
            start: None,
            last_key: None,
            gop: None,
            previous: None,
            reorder: MediaDuration::ZERO,
            discontinuity: false,
            clock: None,
            applied: None,
            cut_without_key: false,
        }
    }

    /// The mapping to use from the next cut on (channel timeline).
    pub fn clock(&mut self, map: ClockMap) {
        self.clock = Some(map);
    }

    /// The next key frame begins a new segment behind a DISCONTINUITY: the parameters changed.
    pub fn discontinuity(&mut self) {
        self.discontinuity = true;
    }

    /// As [`Segmenter::discontinuity`], and nothing is missing before it: another publisher, whose media lies anywhere behind
    /// what is complete.
    pub fn new_publisher(&mut self) {
        self.discontinuity = true;
        self.start = None;
    }

    /// Shows the leading track's next unit, in decode order. Call it until it returns None: after a stall there are
    /// segments without media to cut first. A cut less than a millisecond before `pts` begins with this unit.
    pub fn on_unit(&mut self, pts: MediaTime, key: bool) -> Option<Cut> {
        let Some(start) = self.start else {
            return if key { Some(self.begin(pts, self.discontinuity)) } else { None };
        };
        if self.discontinuity && !key {
            return None;
        }
        let elapsed = pts - start;
        let target = start + self.timing.settings.segment_target;
        let in_hole = pts > target && self.previous.is_none_or(|previous| previous < target);
        let room = if in_hole { FRAME_BEHIND_HOLE } else { MediaDuration::ZERO };
        let stalled = elapsed + room > self.timing.longest_segment();
        if self.discontinuity {
            if !(stalled && in_hole) {
                return Some(self.begin(pts, true));
            }
            // What is missing before the discontinuity is cut like any stall.
            let cut = self.cut(target, false);
            self.discontinuity = true;
            return Some(cut);
        }
        if stalled {
            // The leading track stalled: the boundary lies in the hole, and what is missing beyond it becomes segments of
            // the usual length.
            return Some(self.cut(if in_hole { target } else { start + self.timing.longest_segment() }, false));
        }
        // From one picture shown later than all before it to the next: a reordered one tells nothing, and begins no segment.
        let latest = self.previous.map_or(pts, |previous| previous.max(pts));
        self.reorder = self.reorder.max(latest - pts).min(REORDER);
        let step = self.previous.replace(latest).map_or(MediaDuration::ZERO, |previous| latest - previous);
        if key {
            if let Some(last) = self.last_key.filter(|last| *last < pts) {
                self.gop = Some(pts - last);
            }
            self.last_key = Some(pts);
            let next_key = elapsed + self.gop.unwrap_or(elapsed);
            let due = elapsed + TOLERANCE >= self.timing.settings.segment_target;
            if elapsed >= CLOCK_STEP && (due || next_key > self.timing.longest_segment()) {
                return Some(self.cut(pts, false));
            }
            return None;
        }
        if step.is_positive() && elapsed + step > self.timing.longest_segment() {
            self.cut_without_key = true;
            let earlier = self.reorder;
            let cut = self.cut(pts, false);
            self.start = Some(cut.at - earlier);
            return Some(cut);
        }
        None
    }

    /// A key frame arriving about now would be used for a cut: time to ask the publisher for one (PLI).
    pub fn key_frame_due(&self, pts: MediaTime) -> bool {
        match self.start {
            Some(start) if !self.discontinuity => pts - start + KEY_FRAME_LEAD >= self.timing.settings.segment_target,
            _ => true,
        }
    }

    /// True once a segment had to begin without a key frame (the source's GOP is too long); for the operator.
    pub fn cut_without_key(&self) -> bool {
        self.cut_without_key
    }

    pub fn next_msn(&self) -> u64 {
        self.next_msn
    }

    /// Cuts at a key frame that has nothing to do with those before it.
    fn begin(&mut self, at: MediaTime, discontinuity: bool) -> Cut {
        self.last_key = Some(at);
        self.gop = None;
        self.cut_without_key = false;
        self.cut(at, discontinuity)
    }

    /// Segments begin at whole milliseconds: dates have no finer unit (A15), and must add up with the durations.
    fn cut(&mut self, at: MediaTime, discontinuity: bool) -> Cut {
        let at = MediaTime(at.0 - at.0.rem_euclid(CLOCK_STEP.0));
        let wall = self.wall(at, discontinuity);
        let cut = Cut { msn: self.next_msn, at, discontinuity, wall };
        self.next_msn += 1;
        self.start = Some(at);
        self.discontinuity = false;
        self.reorder = MediaDuration::ZERO;
        if self.previous.is_none_or(|p| p < at) || discontinuity {
            self.previous = Some(at);
        }
        cut
    }

    /// PROGRAM-DATE-TIME of `at`: the new mapping at once behind a discontinuity, in small steps otherwise.
    fn wall(&mut self, at: MediaTime, discontinuity: bool) -> WallTime {
        let wanted = self.clock.map(|map| map.wall_of(at));
        let predicted = self.applied.map(|map| map.wall_of(at));
        let wall = match (wanted, predicted) {
            (Some(wanted), Some(predicted)) if !discontinuity => {
                let (step, long) = (CLOCK_STEP.micros(), CLOCK_LONG_STEP.micros());
                WallTime(match wanted.0 - predicted.0 {
                    error if error > CLOCK_WRONG.micros() => predicted.0 + long,
                    error if error < -long => predicted.0 - long,
                    error if error >= step => predicted.0 + step,
                    _ => predicted.0,
                })
            }
            (Some(wall), _) | (None, Some(wall)) => WallTime(wall.millis() * 1000),
            (None, None) => WallTime(at.millis() * 1000),
        };
        self.applied = Some(ClockMap { media: at, wall });
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: HlsSettings = HlsSettings {
        part_aim: MediaDuration(media::FLICKS_PER_SECOND / 5),
        segment_target: MediaDuration(2 * media::FLICKS_PER_SECOND),
        window: MediaDuration(24 * media::FLICKS_PER_SECOND),
    };

    /// Cut times in ms of a 30 fps source with a key frame every `gop` frames.
    fn cuts(segmenter: &mut Segmenter, gop: i64, frames: std::ops::Range<i64>) -> Vec<i64> {
        let mut found = Vec::new();
        for n in frames {
            let pts = MediaTime::from_ticks(n * 3000, 90_000);
            while let Some(cut) = segmenter.on_unit(pts, n % gop == 0) {
                found.push(cut.at.millis());
            }
        }
        found
    }

    #[test]
    fn segments_begin_at_the_key_frame_nearest_to_the_target() {
        for (gop, expected) in [
            (30, vec![0, 2000, 4000, 6000]),
            (60, vec![0, 2000, 4000, 6000]),
            (45, vec![0, 1500, 3000, 4500, 6000]),
            (1, vec![0, 2000, 4000, 6000]),
            (72, vec![0, 2400, 4800]),
        ] {
            assert_eq!(cuts(&mut Segmenter::new(SETTINGS, 7), gop, 0..200), expected, "gop {gop}");
        }
    }

    /// A3: TARGETDURATION holds whatever the source's GOP, at the price of segments without a key frame (ADR 2).
    #[test]
    fn a3_a_long_gop_is_cut_without_a_key_frame() {
        let mut segmenter = Segmenter::new(SETTINGS, 7);
        let cuts = cuts(&mut segmenter, 300, 0..900);
        assert!(segmenter.cut_without_key());
        assert!(cuts.contains(&10_000) && cuts.contains(&20_000), "key frames still begin segments: {cuts:?}");
        assert!(cuts.windows(2).all(|w| w[1] - w[0] < 2_500), "{cuts:?}");
    }

    /// A5: numbers rise by one, whatever happens.
    #[test]
    fn a5_a_stall_becomes_segments_of_the_usual_length() {
        let mut segmenter = Segmenter::new(SETTINGS, 7);
        cuts(&mut segmenter, 30, 0..30);
        assert_eq!(cuts(&mut segmenter, 30, 300..301), [2000, 4000, 6000, 8000, 10_000]);
        assert_eq!(segmenter.next_msn(), 13);
    }

    #[test]
    fn a_discontinuity_waits_for_a_key_frame_and_is_told_once() {
        let mut segmenter = Segmenter::new(SETTINGS, 7);
        cuts(&mut segmenter, 30, 0..40);
        segmenter.discontinuity();
        let at = MediaTime::from_millis(1400);
        assert_eq!(segmenter.on_unit(at, false), None);
        let cut = segmenter.on_unit(at, true);
        assert!(cut.is_some_and(|c| c.discontinuity && c.msn == 8 && c.at == at));
        assert_eq!(segmenter.on_unit(at, true), None);
    }

    #[test]
    fn a3_a_stall_before_a_discontinuity_becomes_segments_of_the_usual_length() {
        let mut segmenter = Segmenter::new(SETTINGS, 7);
        cuts(&mut segmenter, 30, 0..40);
        segmenter.discontinuity();
        let found: Vec<_> = std::iter::from_fn(|| segmenter.on_unit(MediaTime::from_millis(7000), true)).collect();
        let found: Vec<_> = found.iter().map(|cut| (cut.at.millis(), cut.discontinuity)).collect();
        assert_eq!(found, [(2000, false), (4000, false), (6000, false), (7000, true)]);
        // Nobody's media is missing before another publisher's.
        segmenter.new_publisher();
        let cut = segmenter.on_unit(MediaTime::from_millis(60_000), true);
        assert!(cut.is_some_and(|cut| cut.discontinuity && cut.msn == 12 && cut.at.millis() == 60_000), "{cut:?}");
    }

    /// A16: the mapping of media to wall-clock time moves in small steps.
    #[test]
    fn a16_program_date_time_is_corrected_in_small_steps() {
        let mut segmenter = Segmenter::new(SETTINGS, 7);
        let wall = WallTime(1_000_000_000);
        segmenter.clock(ClockMap { media: MediaTime::ZERO, wall });
        assert_eq!(segmenter.on_unit(MediaTime::ZERO, true).map(|c| c.wall), Some(wall));
        let mut at = 0;
        let mut walls = |segmenter: &mut Segmenter, late: i64| {
            segmenter.clock(ClockMap { media: MediaTime::ZERO, wall: WallTime(wall.0 + late) });
            let cuts = (0..3).filter_map(|_| {
                at += 2000;
                segmenter.on_unit(MediaTime::from_millis(at), true)
            });
            cuts.map(|c| c.wall.0 - wall.0 - c.at.micros()).collect::<Vec<_>>()
        };
        assert_eq!(walls(&mut segmenter, 2_500), [1_000, 2_000, 2_000]);
        assert_eq!(
            walls(&mut segmenter, -50_000),
            [2_000, 2_000, 2_000],
            "never backward for the noise of the estimate"
        );
        assert_eq!(walls(&mut segmenter, -150_000), [-98_000, -98_000, -98_000]);
        assert_eq!(walls(&mut segmenter, 5_000_000), [2_000, 102_000, 202_000]);
    }
}
