//! Clocks: the sender's by its reports, the path's by arrival. They place audio and video on one timeline and tell
//! when what is on it was captured.

use std::time::{Duration, Instant};

use super::rtcp::Ntp;

/// A report further than this from what earlier ones predict is not believed until more agree with it (D6).
const MAX_JUMP_US: i64 = 1_000_000;
/// So many in a row that agree with each other are believed after all: the sender's clock was set.
const JUMPS_BELIEVED: u8 = 3;
/// A report's RTP time lies near the media's: further off it is made up (OBS: 0xFFFFFFFF in the first report).
const MAX_BESIDE_MEDIA_S: i64 = 30;

/// The NTP time of one source's RTP timestamps, by its sender reports (RFC 3550 §6.4.1).
#[derive(Debug)]
pub struct SenderClock {
    rate: u32,
    /// Unwrapped timestamp and microseconds of the Unix epoch.
    reference: Option<(i64, i64)>,
    doubted: Option<(i64, i64)>,
    doubts: u8,
}

impl SenderClock {
    pub fn new(rate: u32) -> Self {
        Self { rate, reference: None, doubted: None, doubts: 0 }
    }

    /// Takes or ignores a report; `media`: the timestamp that media has reached. True where it was taken.
    pub fn on_report(&mut self, ts: i64, ntp: Ntp, media: i64) -> bool {
        let beside = ts.saturating_sub(media).saturating_abs();
        if ntp.0 == 0 || beside > MAX_BESIDE_MEDIA_S * i64::from(self.rate) {
            return false;
        }
        let now = (ts, ntp.unix_micros());
        let near = |from: (i64, i64)| (now.1 - predict(from, ts, self.rate)).abs() <= MAX_JUMP_US;
        if self.reference.is_none_or(near) {
            self.reference = Some(now);
            self.doubts = 0;
            self.doubted = None;
            return true;
        }
        self.doubts = if self.doubted.is_some_and(near) { self.doubts + 1 } else { 1 };
        self.doubted = Some(now);
        if self.doubts >= JUMPS_BELIEVED {
            self.reference = Some(now);
            self.doubts = 0;
            self.doubted = None;
            return true;
        }
        false
    }

    /// Microseconds of the Unix epoch at timestamp `ts`, by the sender's clock.
    pub fn micros_at(&self, ts: i64) -> Option<i64> {
        self.reference.map(|from| predict(from, ts, self.rate))
    }
}

fn predict((ts0, us0): (i64, i64), ts: i64, rate: u32) -> i64 {
    us0.saturating_add(ticks_to_micros(ts.saturating_sub(ts0), rate))
}

pub fn ticks_to_micros(ticks: i64, rate: u32) -> i64 {
    i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(rate.max(1))).unwrap_or(0)
}

/// The smallest delay between media and arrival over the last five to ten seconds: queues only ever add to it, so it
/// is the steadiest estimate there is, and being forgotten it follows a drifting sender.
#[derive(Debug)]
pub struct ArrivalFilter {
    rate: u32,
    present: Option<i64>,
    previous: Option<i64>,
    since: Option<Instant>,
}

const ARRIVAL_WINDOW: Duration = Duration::from_secs(5);

impl ArrivalFilter {
    pub fn new(rate: u32) -> Self {
        Self { rate, present: None, previous: None, since: None }
    }

    /// The first packet of timestamp `ts` arrived `micros` after the session's epoch.
    pub fn on_arrival(&mut self, now: Instant, micros: i64, ts: i64) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= ARRIVAL_WINDOW {
            self.previous = self.present.take();
            self.since = Some(now);
        }
        let delay = micros.saturating_sub(ticks_to_micros(ts, self.rate));
        self.present = Some(self.present.map_or(delay, |d| d.min(delay)));
    }

    /// When `ts` arrived, had nothing delayed it: microseconds after the session's epoch.
    pub fn micros_at(&self, ts: i64) -> Option<i64> {
        let delay = match (self.present, self.previous) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(delay.saturating_add(ticks_to_micros(ts, self.rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_790_000_000_000_000;
    fn ntp(us: i64) -> Ntp {
        Ntp::from_unix_micros(T0 + us)
    }

    #[test]
    fn reports_map_rtp_time_to_ntp_time() {
        let mut c = SenderClock::new(90_000);
        assert_eq!(c.micros_at(0), None);
        assert!(c.on_report(90_000, ntp(0), 90_000));
        assert_eq!(c.micros_at(180_000), Some(T0 + 1_000_000));
        assert_eq!(c.micros_at(0), Some(T0 - 1_000_000));
        assert!(c.on_report(180_000, ntp(1_000_300), 180_000));
        assert_eq!(c.micros_at(180_000), Some(T0 + 1_000_300));
    }

    #[test]
    fn bogus_reports_are_ignored_and_a_clock_that_was_set_is_believed_in_the_end() {
        let mut c = SenderClock::new(90_000);
        assert!(!c.on_report(0, Ntp(0), 0));
        assert!(!c.on_report(0xffff_ffff, ntp(0), 1_000), "OBS's first report");
        assert!(c.on_report(0, ntp(0), 0));
        let hour = 3_600_000_000;
        assert!(!c.on_report(90_000, ntp(hour), 90_000));
        assert!(!c.on_report(180_000, ntp(5), 180_000 - 1), "disagrees with both");
        assert_eq!(c.micros_at(90_000), Some(T0 + 1_000_000));
        for n in 3..5 {
            assert!(!c.on_report(n * 90_000, ntp(hour + n * 1_000_000), n * 90_000));
        }
        assert!(c.on_report(5 * 90_000, ntp(hour + 5_000_000), 5 * 90_000));
        assert_eq!(c.micros_at(0), Some(T0 + hour));
    }

    #[test]
    fn the_arrival_filter_takes_the_least_delay_and_forgets() {
        let t = Instant::now();
        let mut f = ArrivalFilter::new(90_000);
        f.on_arrival(t, 50_000, 0);
        f.on_arrival(t, 60_000, 3000);
        assert_eq!(f.micros_at(3000), Some(60_000));
        // A second later; the path got 10 ms longer for good.
        for n in 1..30i64 {
            let at = t + Duration::from_secs(n as u64);
            f.on_arrival(at, n * 1_000_000 + 36_666, n * 90_000);
        }
        assert_eq!(f.micros_at(0), Some(36_666));
    }
}
