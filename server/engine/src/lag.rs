//! How far a session's encoding is behind its input. Pure: instants are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use media::MediaTime;

/// What "lately" means: long enough for 95 of 100 units to say something, short enough to see a device recover.
const SPAN: Duration = Duration::from_secs(5);
/// Pushed pictures remembered until they come out: over 8 s at 60 a second, more than is ever under way. Above it the oldest is
/// forgotten and costs its sample.
const MAX_PUSHED: usize = 512;
/// Samples of one rung: `SPAN` at 120 a second. Above it the oldest goes.
const MAX_SAMPLES: usize = 640;
/// The share of units that took no longer than what is told.
const PERCENT: usize = 95;

/// Some tens of nanoseconds a unit, and 16 KiB of a session with four rungs at 30 frames a second.
#[derive(Debug)]
pub(crate) struct Lag {
    begin: Instant,
    /// Presentation times in the order of pushing, and when that was, in microseconds since `begin`.
    pushed: VecDeque<(MediaTime, u64)>,
    /// By rung: when a unit came out, in milliseconds since `begin`, and the microseconds that it took.
    samples: Vec<VecDeque<(u32, u32)>>,
}

impl Lag {
    pub(crate) fn new(rungs: usize, now: Instant) -> Self {
        Self { begin: now, pushed: VecDeque::new(), samples: vec![VecDeque::new(); rungs] }
    }

    /// A picture goes in.
    pub(crate) fn pushed(&mut self, pts: MediaTime, now: Instant) {
        if self.pushed.len() == MAX_PUSHED {
            self.pushed.pop_front();
        }
        self.pushed.push_back((pts, self.micros(now)));
    }

    /// It came out as a unit of a rung. What was never seen to go in says nothing.
    pub(crate) fn came_out(&mut self, rung: usize, pts: MediaTime, now: Instant) {
        // From the back: what comes out went in lately.
        let Some((_, at)) = self.pushed.iter().rev().find(|(t, _)| *t == pts) else { return };
        let now = self.micros(now);
        let took = u32::try_from(now.saturating_sub(*at)).unwrap_or(u32::MAX);
        let Some(samples) = self.samples.get_mut(rung) else { return };
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back((millis(now), took));
        while samples.front().is_some_and(|(came, _)| is_old(*came, now)) {
            samples.pop_front();
        }
    }

    /// Another worker takes over: what waited for it was not held up by a device that is busy.
    pub(crate) fn forget_pushed(&mut self) {
        self.pushed.clear();
    }

    /// The rung is suspended.
    pub(crate) fn forget_rung(&mut self, rung: usize) {
        if let Some(samples) = self.samples.get_mut(rung) {
            samples.clear();
        }
    }

    /// Of the slowest rung; None where nothing came out lately.
    pub(crate) fn slowest(&self, now: Instant) -> Option<Duration> {
        let now = self.micros(now);
        let of_rung = |samples: &VecDeque<(u32, u32)>| {
            let mut lately: Vec<u32> =
                samples.iter().filter(|(came, _)| !is_old(*came, now)).map(|(_, took)| *took).collect();
            let rank = (lately.len() * PERCENT).div_ceil(100).checked_sub(1)?;
            Some(*lately.select_nth_unstable(rank).1)
        };
        self.samples.iter().filter_map(of_rung).max().map(|micros| Duration::from_micros(micros.into()))
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begin).as_micros()).unwrap_or(u64::MAX)
    }
}

/// A session of 49 days wraps round, and one moment's sample may then be taken for old.
fn millis(micros: u64) -> u32 {
    (micros / 1000) as u32
}

fn is_old(came: u32, now: u64) -> bool {
    millis(now).wrapping_sub(came) > SPAN.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(33);

    fn at(n: u32) -> MediaTime {
        MediaTime::from_millis(i64::from(n) * 33)
    }

    #[test]
    fn the_slowest_rung_tells_and_one_late_unit_in_a_hundred_does_not() {
        let begin = Instant::now();
        let mut lag = Lag::new(2, begin);
        assert_eq!(lag.slowest(begin), None);
        for n in 0..100 {
            let now = begin + FRAME * n;
            lag.pushed(at(n), now);
            lag.came_out(0, at(n), now + Duration::from_millis(5));
            let took = if n == 50 { 900 } else { 20 };
            lag.came_out(1, at(n), now + Duration::from_millis(took));
        }
        let now = begin + FRAME * 100;
        assert_eq!(lag.slowest(now), Some(Duration::from_millis(20)));
        lag.forget_rung(1);
        assert_eq!(lag.slowest(now), Some(Duration::from_millis(5)));
        assert_eq!(lag.slowest(now + SPAN + FRAME), None, "it is not lately any more");
    }

    #[test]
    fn what_is_behind_a_new_worker_does_not_count_and_nothing_grows() {
        let begin = Instant::now();
        let mut lag = Lag::new(1, begin);
        lag.pushed(at(0), begin);
        lag.forget_pushed();
        lag.came_out(0, at(0), begin + Duration::from_secs(2));
        assert_eq!(lag.slowest(begin + Duration::from_secs(2)), None);
        for n in 0..5_000 {
            let now = begin + Duration::from_millis(2) * n;
            lag.pushed(at(n), now);
            lag.came_out(0, at(n), now);
            lag.came_out(9, at(n), now);
        }
        assert!(lag.pushed.len() <= MAX_PUSHED && lag.samples[0].len() <= MAX_SAMPLES);
    }

    #[test]
    fn samples_grow_old_over_the_wrap_of_their_clock_too() {
        let begin = Instant::now();
        let wrap = Duration::from_millis(1 << 32);
        let mut lag = Lag::new(1, begin);
        let before = begin + wrap - Duration::from_secs(1);
        lag.pushed(at(1), before);
        lag.came_out(0, at(1), before + Duration::from_millis(7));
        assert_eq!(lag.slowest(begin + wrap + Duration::from_secs(1)), Some(Duration::from_millis(7)));
        assert_eq!(lag.slowest(begin + wrap + Duration::from_secs(5)), None);
    }
}
