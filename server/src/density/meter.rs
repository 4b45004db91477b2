//! What one session achieved in a window of time: frame rate, lag, what is missing. Pure; times are given.

use std::time::Duration;

use media::{FLICKS_PER_SECOND, MediaDuration, MediaTime};

use super::ramp::MOST_LAG_MS;

/// Measures one session.
pub struct Meter {
    rungs: Vec<RungMeter>,
    lags: Lags,
    /// Units that the engine has not taken since it was started, now and when the window began.
    refused: u64,
    refused_before: u64,
    /// The first thing that went wrong, kept over windows.
    fault: Option<String>,
    last_lag: Option<Duration>,
}

/// What [`Meter::end`] tells.
#[derive(Debug)]
pub struct Achieved {
    /// The slowest rendition's frame rate as a part of what it should be.
    pub rate: f64,
    pub lags: Lags,
    pub dropped: u64,
    pub fault: Option<String>,
}

struct RungMeter {
    /// Frames a second.
    rate: f64,
    frame: MediaDuration,
    slope: Slope,
    last: Option<MediaTime>,
    missing: u64,
}

impl Meter {
    /// `rates`: the frame rate of each rendition.
    pub fn new(rates: &[u32]) -> Self {
        let rung = |rate: &u32| RungMeter {
            rate: f64::from(*rate),
            frame: MediaDuration(FLICKS_PER_SECOND / i64::from((*rate).max(1))),
            slope: Slope::default(),
            last: None,
            missing: 0,
        };
        let rungs = rates.iter().map(rung).collect();
        Self { rungs, lags: Lags::default(), refused: 0, refused_before: 0, fault: None, last_lag: None }
    }

    /// A unit of rendition `rung` came `lag` after its picture was due, at `now` on any clock.
    pub fn unit(&mut self, rung: usize, pts: MediaTime, lag: Duration, now: Duration) {
        let Some(rung) = self.rungs.get_mut(rung) else { return };
        rung.slope.add(now.as_secs_f64());
        self.lags.add(lag);
        self.last_lag = Some(lag);
        if let Some(last) = rung.last.replace(pts) {
            // Rungs that are slower than the source keep some of its pictures, so the steps are uneven: up to two frames.
            let steps = ((pts - last).0 + rung.frame.0 / 100) / rung.frame.0.max(1);
            rung.missing += u64::try_from(steps - 1).unwrap_or(0);
        }
    }

    /// What [`engine::Engine::dropped`] says.
    pub fn refused(&mut self, units: u64) {
        self.refused = units;
    }

    pub fn fail(&mut self, why: String) {
        self.fault.get_or_insert(why);
    }

    /// Every rendition has begun, and the latest unit came in time.
    pub fn is_settled(&self) -> bool {
        self.has_begun() && self.last_lag.is_some_and(|lag| lag < Duration::from_millis(MOST_LAG_MS.into()))
    }

    pub fn has_begun(&self) -> bool {
        self.rungs.iter().all(|r| r.last.is_some())
    }

    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// A window begins. A rendition's last unit stays known, so that a gap over the window's edge counts.
    pub fn begin(&mut self) {
        for rung in &mut self.rungs {
            rung.slope = Slope::default();
            rung.missing = 0;
        }
        self.lags = Lags::default();
        self.refused_before = self.refused;
    }

    /// The window ends after `length`. `overdue`: since when, for each rendition's last unit, its picture was due.
    pub fn end(&mut self, length: Duration, overdue: impl Fn(MediaTime) -> Duration) -> Achieved {
        let limit = Duration::from_millis(MOST_LAG_MS.into());
        let mut rate = f64::MAX;
        for rung in &self.rungs {
            // A session that stopped inside the window has the slope of what came before: its count tells.
            let full = (length.saturating_sub(limit)).as_secs_f64().max(0.1);
            let achieved = rung.slope.per_second().min(rung.slope.count as f64 / full);
            rate = rate.min(achieved / rung.rate.max(1.0));
            // Pictures that have not come yet have waited at least until now.
            let waiting = rung.last.map_or(length, &overdue);
            let frame = rung.frame.to_std().max(Duration::from_millis(1));
            let mut age = waiting.saturating_sub(frame);
            while age > limit {
                self.lags.add(age);
                age = age.saturating_sub(frame);
            }
        }
        Achieved {
            rate,
            lags: std::mem::take(&mut self.lags),
            dropped: self.rungs.iter().map(|r| r.missing).sum::<u64>() + (self.refused - self.refused_before),
            fault: self.fault.clone(),
        }
    }
}

/// Frames over time, as the line that fits them best: a late frame at an edge does not count as a percent.
#[derive(Debug, Default)]
struct Slope {
    count: u64,
    mean_time: f64,
    mean_number: f64,
    /// Sums of squares and products of the distances from the means (Welford).
    times: f64,
    products: f64,
}

impl Slope {
    fn add(&mut self, time: f64) {
        let number = self.count as f64;
        self.count += 1;
        let n = self.count as f64;
        let from_mean = time - self.mean_time;
        self.mean_time += from_mean / n;
        self.mean_number += (number - self.mean_number) / n;
        self.times += from_mean * (time - self.mean_time);
        self.products += from_mean * (number - self.mean_number);
    }

    fn per_second(&self) -> f64 {
        if self.times > 0.0 { self.products / self.times } else { 0.0 }
    }
}

/// Lags counted by the millisecond.
#[derive(Debug)]
pub struct Lags {
    /// The last one counts all that are longer.
    counts: Vec<u32>,
}

const LONGEST_MS: usize = 5_000;

impl Default for Lags {
    fn default() -> Self {
        Self { counts: vec![0; LONGEST_MS + 1] }
    }
}

impl Lags {
    fn add(&mut self, lag: Duration) {
        let ms = usize::try_from(lag.as_millis()).unwrap_or(LONGEST_MS).min(LONGEST_MS);
        if let Some(count) = self.counts.get_mut(ms) {
            *count = count.saturating_add(1);
        }
    }

    pub fn join(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }

    /// The lag in milliseconds that `percent` of all are not above; 0 where there are none.
    pub fn percentile(&self, percent: u64) -> u32 {
        let all: u64 = self.counts.iter().map(|c| u64::from(*c)).sum();
        let wanted = (all * percent).div_ceil(100);
        let mut seen = 0;
        for (ms, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return u32::try_from(ms).unwrap_or(u32::MAX);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const WINDOW: Duration = Duration::from_secs(10);

    /// 25 frames a second for ten seconds, those of `keep` only, each `lag(n)` ms late.
    fn run(meter: &mut Meter, keep: impl Fn(u64) -> bool, lag: impl Fn(u64) -> u64) -> Achieved {
        meter.begin();
        let frames = (0..250).filter(|n| keep(*n)).filter(|n| n * 40 + lag(*n) < 10_000);
        for n in frames {
            meter.unit(0, MediaTime::from_ticks(n as i64, 25), MS(lag(n)), MS(n * 40 + lag(n)));
        }
        meter.end(WINDOW, |last| WINDOW.saturating_sub(MediaDuration(last.0).to_std()))
    }

    #[test]
    fn frames_in_time_are_the_full_rate_even_with_a_late_one_at_the_edge() {
        let got = run(&mut Meter::new(&[25]), |_| true, |n| if n == 249 { 400 } else { 30 + n % 7 });
        assert!((got.rate - 1.0).abs() < 0.002, "{}", got.rate);
        assert_eq!((got.dropped, got.fault), (0, None));
        assert!((30..=37).contains(&got.lags.percentile(50)) && got.lags.percentile(95) < 40);
    }

    #[test]
    fn falling_behind_shows_in_rate_and_lag() {
        // 5 % slower than real time.
        let got = run(&mut Meter::new(&[25]), |_| true, |n| n * 2);
        assert!((got.rate - 0.952).abs() < 0.005, "{}", got.rate);
        assert!(got.lags.percentile(95) > 400);
    }

    #[test]
    fn pictures_that_are_missing_are_counted_as_dropped() {
        let got = run(&mut Meter::new(&[25]), |n| !(100..103).contains(&n) && n != 200, |_| 20);
        assert_eq!(got.dropped, 4);
    }

    #[test]
    fn a_session_that_stops_does_not_keep_its_slope() {
        let got = run(&mut Meter::new(&[25]), |n| n < 125, |_| 20);
        assert!(got.rate < 0.55, "{}", got.rate);
        assert!(got.lags.percentile(95) > 1000, "{}", got.lags.percentile(95));
        let nothing = run(&mut Meter::new(&[25]), |_| false, |_| 0);
        assert_eq!(nothing.rate, 0.0);
        assert!(nothing.lags.percentile(50) > 1000);
    }

    #[test]
    fn renditions_slower_than_the_source_have_uneven_steps_and_miss_nothing() {
        let mut meter = Meter::new(&[25]);
        // 30 frames a second, of which a rung of 25 leaves out every sixth.
        for n in (0..300i64).filter(|n| n % 6 != 5) {
            meter.unit(0, MediaTime::from_ticks(n, 30), MS(10), MS(n as u64 * 1000 / 30));
        }
        let got = meter.end(WINDOW, |_| MS(0));
        assert_eq!(got.dropped, 0);
        assert!((got.rate - 1.0).abs() < 0.005, "{}", got.rate);
    }

    #[test]
    fn the_slowest_rendition_counts_and_what_the_engine_did_not_take_is_dropped() {
        let mut meter = Meter::new(&[25, 25]);
        meter.refused(7);
        meter.begin();
        for n in 0..250i64 {
            meter.unit(0, MediaTime::from_ticks(n, 25), MS(10), MS(n as u64 * 40));
            if n % 2 == 0 {
                meter.unit(1, MediaTime::from_ticks(n, 25), MS(10), MS(n as u64 * 40));
            }
        }
        meter.refused(9);
        meter.fail("first".into());
        meter.fail("second".into());
        let got = meter.end(WINDOW, |_| MS(0));
        assert!((got.rate - 0.5).abs() < 0.01, "{}", got.rate);
        assert_eq!((got.dropped, got.fault.as_deref()), (124 + 2, Some("first")));
    }
}
