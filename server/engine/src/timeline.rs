//! Between media time and GStreamer's clock: video times that come back exactly, AAC frames on one grid, frame dropping
//! for rungs of a lower rate. Pure.

use std::collections::BTreeMap;

use media::{FLICKS_PER_SECOND, MediaDuration, MediaTime};

/// Room before the first unit for what is earlier than it (reordered pictures), so that GStreamer never sees a negative
/// time.
const LEAD_IN: MediaDuration = MediaDuration(10 * FLICKS_PER_SECOND);
/// Pictures whose exact time is remembered while they are in the pipeline: over 8 s at 60 fps; queues hold far fewer.
const REMEMBERED: usize = 512;

/// Maps video times to nanoseconds and back. Back is exact for pictures of the source, because their times are
/// remembered rather than rounded: nothing in the pipeline changes a picture's time.
#[derive(Debug, Default)]
pub(crate) struct VideoTimeline {
    base: Option<MediaTime>,
    exact: BTreeMap<u64, MediaTime>,
    /// The source's frame rate as it was first announced; what encoders are told for the whole session.
    pub(crate) nominal_rate: Option<(u32, u32)>,
}

impl VideoTimeline {
    /// Nanoseconds for the pipeline; `None` for a time before the pipeline's beginning.
    pub(crate) fn enter(&mut self, dts: MediaTime, pts: MediaTime) -> Option<u64> {
        let base = *self.base.get_or_insert_with(|| dts.min(pts) - LEAD_IN);
        let nanos = u64::try_from((pts - base).nanos()).ok()?;
        self.exact.insert(nanos, pts);
        if self.exact.len() > REMEMBERED {
            self.exact.pop_first();
        }
        Some(nanos)
    }

    pub(crate) fn leave(&self, nanos: u64) -> MediaTime {
        self.exact.get(&nanos).copied().unwrap_or_else(|| {
            let rounded = MediaDuration::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
            // Only a picture older than all that is remembered comes here; the 90 kHz grid is the best guess.
            MediaTime::from_ticks((self.base.unwrap_or_default() + rounded).ticks(90_000), 90_000)
        })
    }

    /// The time in the pipeline for `pts`, without remembering it.
    pub(crate) fn nanos_of(&self, pts: MediaTime) -> Option<i64> {
        self.base.map(|base| (pts - base).nanos())
    }
}

/// Samples in one AAC-LC frame.
pub(crate) const AAC_FRAME: i64 = 1024;
/// Longer silence than this is a hole in the timeline, not something to fill with silent frames.
const MAX_FILLED_GAP: MediaDuration = MediaDuration(FLICKS_PER_SECOND);

/// Puts audio onto a grid of AAC frames counted from the session's first audio unit, so that frames of successive
/// workers line up. Inside the pipeline audio time starts at zero, on the grid, and has no long gaps: short ones are
/// filled with silence there, long ones become a jump in the frames' times.
#[derive(Debug)]
pub(crate) struct AudioTimeline {
    rate: u32,
    origin: Option<MediaTime>,
    /// Encoder delay in samples: a frame's first sample was fed so many samples later.
    priming: i64,
    /// From frame `.0` on, frame n is at `.1 + (n - .0) frames`. At most `MAX_ANCHORS`, the oldest forgotten.
    anchors: Vec<(i64, MediaTime)>,
    /// Where the last unit ended.
    end: MediaTime,
}

/// Long gaps whose frames may still be in the pipeline: it holds well under a second of audio.
const MAX_ANCHORS: usize = 8;

impl AudioTimeline {
    pub(crate) fn new(rate: u32, origin: Option<MediaTime>, priming: i64) -> Self {
        Self { rate: rate.max(1), origin, priming, anchors: Vec::new(), end: MediaTime::ZERO }
    }

    /// Nanoseconds in the pipeline for a unit; `None` for one that steps back too far to be of use.
    pub(crate) fn enter(&mut self, pts: MediaTime, duration: MediaDuration) -> Option<u64> {
        let origin = *self.origin.get_or_insert(pts);
        let frame = self.frame();
        let on_grid = origin + MediaDuration((pts - origin).0.div_euclid(frame.0) * frame.0);
        match self.anchors.last().copied() {
            None => self.anchors.push((0, on_grid)),
            Some((first, at)) => {
                let gap = pts - self.end;
                if gap > MAX_FILLED_GAP || gap < MediaDuration(-MAX_FILLED_GAP.0) {
                    // The next whole frame after all that was fed.
                    let fed = (self.end - at).0.div_euclid(frame.0) + 1;
                    self.anchors.push((first + fed.max(1), on_grid));
                    if self.anchors.len() > MAX_ANCHORS {
                        self.anchors.remove(0);
                    }
                }
            }
        }
        let (first, at) = self.anchors.last().copied()?;
        self.end = pts + duration;
        u64::try_from((MediaDuration(first * frame.0) + (pts - at)).nanos()).ok()
    }

    /// The presentation time of the pipeline's n-th AAC frame.
    pub(crate) fn frame_at(&self, n: i64) -> MediaTime {
        let frame = self.frame();
        let (first, at) = self
            .anchors
            .iter()
            .rev()
            .find(|(first, _)| *first <= n)
            .or(self.anchors.first())
            .copied()
            .unwrap_or_default();
        at + MediaDuration((n - first) * frame.0) - MediaDuration::from_ticks(self.priming, self.rate)
    }

    pub(crate) fn frame(&self) -> MediaDuration {
        MediaDuration::from_ticks(AAC_FRAME, self.rate)
    }
}

/// Chooses the pictures of a rung whose rate is below the source's. Chosen pictures keep their times; a forced one is
/// always chosen, so key pictures of all rungs stay aligned.
#[derive(Debug)]
pub(crate) struct Decimator {
    interval: u64,
    due: u64,
}

impl Decimator {
    pub(crate) fn new((frames, seconds): (u32, u32)) -> Self {
        Self { interval: 1_000_000_000 * u64::from(seconds) / u64::from(frames.max(1)), due: 0 }
    }

    pub(crate) fn keep(&mut self, nanos: u64, forced: bool) -> bool {
        // A quarter of an interval early is still in time: capture times jitter around their grid.
        if !forced && nanos + self.interval / 4 < self.due {
            return false;
        }
        let next = self.due + self.interval;
        // Without the grid's own continuation only after a forced picture or a gap.
        self.due = if forced || next < nanos { nanos + self.interval } else { next };
        true
    }
}

/// Measures a rung's real frame rate, to correct encoders that reckon bits a second as bits a picture times the
/// nominal rate.
#[derive(Debug)]
pub(crate) struct RateGauge {
    nominal: (u32, u32),
    since: Option<u64>,
    pictures: u64,
    /// Measure sooner the first time: nobody knew the rate.
    first: bool,
    percent: u64,
}

impl RateGauge {
    pub(crate) fn new(nominal: (u32, u32)) -> Self {
        Self { nominal, since: None, pictures: 0, first: true, percent: 100 }
    }

    /// Per picture; now and then the new percentage of the configured bit rate to set. `resumed_at`: the first picture behind
    /// the last pause; the pictures that lack in a pause say nothing about the rate, so the measurement begins anew there.
    pub(crate) fn picture(&mut self, nanos: u64, resumed_at: u64) -> Option<u64> {
        if self.since.is_some_and(|since| (since + 1..=nanos).contains(&resumed_at)) {
            (self.since, self.pictures) = (None, 0);
        }
        let since = *self.since.get_or_insert(nanos);
        let elapsed = nanos.saturating_sub(since);
        if elapsed < if self.first { 500_000_000 } else { 2_000_000_000 } {
            self.pictures += 1;
            return None;
        }
        let (n, d) = (u128::from(self.nominal.0.max(1)), u128::from(self.nominal.1.max(1)));
        let expected_e9 = u128::from(elapsed) * n / d;
        let percent = expected_e9 / (u128::from(self.pictures.max(1)) * 10_000_000);
        self.first = false;
        self.since = Some(nanos);
        self.pictures = 1;
        // A tenth up to four times: beyond that a source is broken, not slow.
        let percent = u64::try_from(percent).unwrap_or(100).clamp(10, 400);
        if percent.abs_diff(self.percent) * 100 / self.percent < 8 {
            return None;
        }
        self.percent = percent;
        Some(percent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn video_times_come_back_exactly(start in -1_000_000_000_000i64..1_000_000_000_000, steps in proptest::collection::vec(1i64..100_000_000, 1..300)) {
            let mut timeline = VideoTimeline::default();
            let mut at = MediaTime(start);
            for step in steps {
                at += MediaDuration(step);
                let nanos = timeline.enter(at, at).unwrap();
                prop_assert_eq!(timeline.leave(nanos), at);
            }
        }
    }

    #[test]
    fn video_before_the_beginning_is_refused() {
        let mut timeline = VideoTimeline::default();
        assert!(timeline.enter(MediaTime::ZERO, MediaTime::ZERO).is_some());
        assert_eq!(timeline.enter(MediaTime::from_millis(-20_000), MediaTime::from_millis(-20_000)), None);
    }

    #[test]
    fn frames_of_two_workers_stand_on_one_grid() {
        let origin = MediaTime::from_ticks(12_345, 48_000);
        let mut old = AudioTimeline::new(48_000, None, 1024);
        assert_eq!(old.enter(origin, MediaDuration::from_millis(20)), Some(0));
        assert_eq!(old.frame_at(1), origin);
        let mut new = AudioTimeline::new(48_000, Some(origin), 1024);
        // Ten Opus packets on: 9600 samples = 9 frames and 384 samples.
        let nanos = new.enter(origin + MediaDuration::from_millis(200), MediaDuration::from_millis(20)).unwrap();
        assert_eq!(nanos, MediaDuration::from_ticks(384, 48_000).nanos() as u64);
        assert_eq!(new.frame_at(1), old.frame_at(10));
    }

    #[test]
    fn a_long_gap_is_a_jump_of_whole_frames_and_a_short_one_is_none() {
        let mut t = AudioTimeline::new(48_000, None, 0);
        let packet = MediaDuration::from_millis(20);
        let frame = t.frame();
        for n in 0..50 {
            t.enter(MediaTime::from_millis(n * 20), packet).unwrap();
        }
        assert_eq!(t.enter(MediaTime::from_millis(1_100), packet).unwrap(), 1_100_000_000);
        let resumed = MediaTime::from_millis(9_000);
        let nanos = t.enter(resumed, packet).unwrap();
        // 1.12 s were fed: 52.5 frames; the jump is at frame 53.
        assert!((53 * frame.nanos()..54 * frame.nanos()).contains(&(nanos as i64)));
        assert!(t.frame_at(52) < MediaTime::from_millis(1_120));
        assert!((resumed - t.frame_at(53)) < frame && t.frame_at(53) <= resumed);
        assert_eq!((t.frame_at(53) - MediaTime::ZERO).0 % frame.0, 0);
    }

    #[test]
    fn decimation_halves_thirds_and_keeps_forced_pictures() {
        for (source, rung, expect) in [(30u64, 15, 150), (60, 30, 300), (25, 15, 150), (30, 24, 240), (30, 30, 300)] {
            let mut d = Decimator::new((rung, 1));
            let kept = (0..source * 10).filter(|n| d.keep(n * 1_000_000_000 / source, false)).count();
            assert!(kept.abs_diff(expect) <= 1, "{source} -> {rung}: {kept}");
        }
        let mut d = Decimator::new((15, 1));
        assert!(d.keep(0, true));
        assert!(d.keep(33_333_333, true));
        assert!(!d.keep(66_666_666, false));
        assert!(d.keep(100_000_000, false));
    }

    #[test]
    fn the_gauge_corrects_towards_the_real_rate_and_then_is_quiet() {
        let mut gauge = RateGauge::new((30, 1));
        let set: Vec<u64> = (0..200u64).filter_map(|n| gauge.picture(n * 1_000_000_000 / 15, 0)).collect();
        assert_eq!(set.len(), 1, "{set:?}");
        assert!(set[0].abs_diff(200) <= 15, "{set:?}");
    }

    #[test]
    fn a_pause_corrects_no_rate() {
        let mut gauge = RateGauge::new((30, 1));
        let resumed_at = 20 * 1_000_000_000;
        let before = (0..75u64).map(|n| (n * 1_000_000_000 / 30, 0));
        let behind = (0..300u64).map(|n| (resumed_at + n * 1_000_000_000 / 30, resumed_at));
        let set: Vec<u64> = before.chain(behind).filter_map(|(at, resumed)| gauge.picture(at, resumed)).collect();
        assert!(set.is_empty(), "{set:?}");
    }

    #[test]
    fn behind_a_pause_a_slower_rung_goes_on_at_its_rate() {
        let mut d = Decimator::new((15, 1));
        let at = |n: u64| n * 1_000_000_000 / 30;
        assert_eq!((0..30).filter(|n| d.keep(at(*n), *n == 0)).count(), 15);
        assert_eq!((300..330).filter(|n| d.keep(at(*n), *n == 300)).count(), 15);
    }
}
