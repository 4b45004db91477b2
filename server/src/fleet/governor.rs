//! When a device has to give something up, and when it may take something back: one step at a time, each with time to show
//! its effect, and never so often that viewers would see a flicker. Pure: the fleet tells the time and carries the steps out.

use std::collections::VecDeque;
use std::time::Duration;

use placement::At;

/// Encoding lags when the 95th percentile is above this: where `density` says that a machine does not hold its sessions.
pub const LAG_LIMIT: Duration = Duration::from_millis(500);
/// What is wrong must be so for this time; a second of it is noise.
const CERTAIN: u64 = 3_000;
/// After a step: a rung goes where the next segment begins, a lag is measured over 5 s, and a session that has moved must have come
/// into step.
const SETTLE: u64 = 8_000;
/// After a device was found that nothing helps.
const HOPELESS: u64 = 30_000;
/// Of calm before something is given back; doubled, up to the most, each time that it proves to have been too early.
const CALM: u64 = 30_000;
const MOST_CALM: u64 = 960_000;
/// Per cent of speed by which a device may change and still be calm.
const STEADY: u16 = 5;
/// Steps of one device in a minute.
const MAX_STEPS: usize = 6;
const MINUTE: u64 = 60_000;
/// Per cent of a device that lag takes away at most.
const LEAST_CAPACITY: u16 = 10;

/// What to do with a device now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Move one of its sessions elsewhere, or else shed a rung.
    Relieve,
    /// Encode a rung again, or else take the device for faster than it seemed.
    GiveBack,
}

/// What is seen of a device in one second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Of the session that lags most.
    pub lag: Option<Duration>,
    /// What it has promised of its fullest engine, in per cent of what that may bear at full speed.
    pub filled: u16,
    /// Per cent of its speed that it says it runs at.
    pub speed: u16,
    /// Sessions come or go.
    pub moving: bool,
    /// Rungs are suspended here.
    pub shed: bool,
}

/// One device's.
#[derive(Clone, Debug)]
pub struct Governor {
    /// Per cent of the device's speed that it is taken to have, since its sessions lagged.
    capacity: u16,
    lags_since: Option<At>,
    beyond_since: Option<At>,
    calm_since: Option<At>,
    /// What it ran at then.
    calm_speed: u16,
    /// No step before.
    quiet_until: At,
    /// Steps of the last minute.
    steps: VecDeque<At>,
    /// Milliseconds of calm that a step back takes.
    patience: u64,
    given_back: Option<At>,
    /// Nothing could be given up when it was last asked for.
    is_hopeless: bool,
}

impl Default for Governor {
    fn default() -> Self {
        Self {
            capacity: 100,
            lags_since: None,
            beyond_since: None,
            calm_since: None,
            calm_speed: 100,
            quiet_until: At(0),
            steps: VecDeque::with_capacity(MAX_STEPS),
            patience: CALM,
            given_back: None,
            is_hopeless: false,
        }
    }
}

impl Governor {
    /// Per cent of its speed that the device may be taken to have. Sessions that lag for some seconds show that it has promised
    /// too much, whatever it says of itself: then it counts as a tenth slower than what it has promised.
    pub fn capacity(&mut self, now: At, seen: &Seen) -> u16 {
        let lags = seen.lag.is_some_and(|lag| lag > LAG_LIMIT);
        if !lags || seen.moving || now < self.quiet_until {
            self.lags_since = None;
        } else if now.0 - self.lags_since.get_or_insert(now).0.min(now.0) >= CERTAIN && self.capacity >= seen.filled {
            self.capacity = (self.capacity.min(seen.filled) * 9 / 10).max(LEAST_CAPACITY);
            self.lags_since = None;
            // It has been certain for long enough.
            self.beyond_since = Some(At(now.0.saturating_sub(CERTAIN)));
        }
        self.capacity
    }

    /// `beyond`: it has promised more than it has, by the placer's books.
    pub fn step(&mut self, now: At, seen: &Seen, beyond: bool) -> Option<Step> {
        if seen.moving {
            self.quiet_until = self.quiet_until.max(At(now.0 + SETTLE));
        }
        if now < self.quiet_until {
            (self.beyond_since, self.calm_since) = (None, None);
            return None;
        }
        while self.steps.front().is_some_and(|at| at.0 + MINUTE <= now.0) {
            self.steps.pop_front();
        }
        let since = |at: &mut Option<At>| now.0 - at.get_or_insert(now).0.min(now.0);
        if beyond {
            self.calm_since = None;
            let certain = since(&mut self.beyond_since) >= CERTAIN;
            return (certain && self.steps.len() < MAX_STEPS).then_some(Step::Relieve);
        }
        self.beyond_since = None;
        // Between calm and lagging nothing is done.
        if seen.lag.is_some_and(|lag| lag > LAG_LIMIT / 2) {
            self.calm_since = None;
            return None;
        }
        // What has just cooled down may be hot again in a moment.
        if seen.speed.abs_diff(self.calm_speed) > STEADY {
            (self.calm_since, self.calm_speed) = (None, seen.speed);
        }
        let calm = since(&mut self.calm_since) >= self.patience;
        let wanted = seen.shed || self.capacity < 100;
        (calm && wanted && self.steps.len() < MAX_STEPS).then_some(Step::GiveBack)
    }

    /// Something was given up.
    pub fn relieved(&mut self, now: At) {
        if self.given_back.take().is_some_and(|at| now.0 < at.0 + 2 * self.patience) {
            self.patience = (self.patience * 2).min(MOST_CALM);
        }
        self.stepped(now, SETTLE);
    }

    /// There is nothing that could be given up, so the device is left with what it has promised, and to nobody else. Whether that
    /// is news.
    pub fn hopeless(&mut self, now: At, seen: &Seen) -> bool {
        self.capacity = self.capacity.max(seen.filled + 1).min(100);
        self.quiet_until = At(now.0 + HOPELESS);
        !std::mem::replace(&mut self.is_hopeless, true)
    }

    /// A rung is encoded again, or (`regained` is false) none of them has room: then the device is taken for a little faster.
    /// Whether anything changed.
    pub fn gave_back(&mut self, now: At, regained: bool) -> bool {
        if !regained && self.capacity == 100 {
            self.calm_since = Some(now);
            return false;
        }
        if !regained {
            self.capacity = (self.capacity * 5 / 4 + 1).min(100);
        }
        if self.given_back.is_some() {
            self.patience = (self.patience / 2).max(CALM);
        }
        self.given_back = Some(now);
        self.stepped(now, SETTLE);
        true
    }

    fn stepped(&mut self, now: At, settle: u64) {
        self.steps.push_back(now);
        self.is_hopeless = false;
        self.quiet_until = At(now.0 + settle);
        (self.lags_since, self.beyond_since, self.calm_since) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;
    const SLOW: Option<Duration> = Some(Duration::from_millis(900));
    const QUICK: Option<Duration> = Some(Duration::from_millis(40));

    /// Seconds from `from` until there is a step, at most `most`.
    fn until_step(g: &mut Governor, from: u64, most: u64, seen: Seen, beyond: bool) -> Option<(u64, Step)> {
        (from..from + most).find_map(|s| {
            g.capacity(At(s * SECOND), &seen);
            Some((s - from, g.step(At(s * SECOND), &seen, beyond)?))
        })
    }

    #[test]
    fn what_is_beyond_for_seconds_is_relieved_and_then_given_time() {
        let mut g = Governor::default();
        let seen = Seen { lag: QUICK, filled: 90, ..Seen::default() };
        assert_eq!(until_step(&mut g, 0, 10, seen, true), Some((3, Step::Relieve)));
        g.relieved(At(3 * SECOND));
        assert_eq!(
            until_step(&mut g, 4, 30, seen, true),
            Some((10, Step::Relieve)),
            "8 s to settle, 3 s to be certain"
        );
        // A second without it begins anew.
        let mut g = Governor::default();
        for s in 0..30 {
            assert_eq!(g.step(At(s * SECOND), &seen, s % 3 != 2), None);
        }
    }

    #[test]
    fn lag_lowers_what_a_device_is_taken_for_whatever_it_says_of_itself() {
        let mut g = Governor::default();
        let seen = Seen { lag: SLOW, filled: 80, ..Seen::default() };
        let capacities: Vec<u16> = (0..6).map(|s| g.capacity(At(s * SECOND), &seen)).collect();
        assert_eq!(capacities, [100, 100, 100, 72, 72, 72]);
        assert_eq!(g.step(At(5 * SECOND), &seen, true), Some(Step::Relieve), "the lag was certain already");
        g.relieved(At(5 * SECOND));
        // What is left lags still, after it has had its time.
        let seen = Seen { filled: 40, ..seen };
        let capacities: Vec<u16> = (6..20).map(|s| g.capacity(At(s * SECOND), &seen)).collect();
        assert_eq!((capacities[9], capacities[10]), (72, 36), "{capacities:?}");
        // As long as it is beyond its limit there is no new verdict.
        assert!(capacities[10..].iter().all(|c| *c == 36), "{capacities:?}");
    }

    #[test]
    fn a_session_on_its_way_is_waited_for() {
        let mut g = Governor::default();
        let moving = Seen { lag: SLOW, filled: 80, moving: true, ..Seen::default() };
        assert_eq!(until_step(&mut g, 0, 60, moving, true), None);
        assert_eq!(g.capacity(At(60 * SECOND), &moving), 100);
        let there = Seen { moving: false, ..moving };
        assert_eq!(until_step(&mut g, 60, 60, there, true), Some((10, Step::Relieve)));
    }

    #[test]
    fn rungs_come_back_after_a_calm_time_that_grows_when_it_was_too_early() {
        let mut g = Governor::default();
        let calm = Seen { lag: QUICK, filled: 40, shed: true, ..Seen::default() };
        let mut now = 0;
        for patience in [30, 60, 120] {
            let (after, step) = until_step(&mut g, now, 1000, calm, false).unwrap_or((0, Step::Relieve));
            assert_eq!((step, after / 10 * 10), (Step::GiveBack, patience), "after {after} s");
            now += after;
            assert!(g.gave_back(At(now * SECOND), true));
            let (after, step) = until_step(&mut g, now + 1, 60, calm, true).unwrap_or((0, Step::GiveBack));
            assert_eq!(step, Step::Relieve);
            now += 1 + after;
            g.relieved(At(now * SECOND));
        }
        // What proves right makes it bolder again.
        for patience in [240, 240, 120, 60, 30, 30] {
            let (after, step) = until_step(&mut g, now, 1000, calm, false).unwrap_or((0, Step::Relieve));
            assert_eq!((step, after / 10 * 10), (Step::GiveBack, patience), "after {after} s");
            now += after;
            g.gave_back(At(now * SECOND), true);
        }
    }

    #[test]
    fn nothing_is_given_back_that_is_not_lacking_and_half_a_lag_is_no_calm() {
        let mut g = Governor::default();
        let calm = Seen { lag: QUICK, filled: 40, ..Seen::default() };
        assert_eq!(until_step(&mut g, 0, 600, calm, false), None);
        let uneasy = Seen { lag: Some(Duration::from_millis(300)), shed: true, ..calm };
        assert_eq!(until_step(&mut g, 600, 600, uneasy, false), None);
        let shed = Seen { shed: true, ..calm };
        assert!(until_step(&mut g, 1200, 600, shed, false).is_some());
        assert!(!g.gave_back(At(1230 * SECOND), false), "the device is as fast as it can be");
        // After a lag the device is taken for faster and faster.
        let lag = Seen { lag: SLOW, ..calm };
        assert_eq!(until_step(&mut g, 2000, 10, lag, false), None);
        assert_eq!(g.capacity(At(2010 * SECOND), &calm), 36);
        let mut capacities = Vec::new();
        let mut now = 2010;
        while let Some((after, Step::GiveBack)) = until_step(&mut g, now, 100, calm, false) {
            now += after;
            assert!(g.gave_back(At(now * SECOND), false));
            capacities.push(g.capacity(At(now * SECOND), &calm));
        }
        assert_eq!(capacities, [46, 58, 73, 92, 100]);
    }

    #[test]
    fn a_device_that_nothing_helps_is_told_of_once_and_recovers_when_its_lag_ends() {
        let mut g = Governor::default();
        let lag = Seen { lag: SLOW, filled: 40, ..Seen::default() };
        let mut told = 0;
        for s in 0..300 {
            let capacity = g.capacity(At(s * SECOND), &lag);
            if let Some(step) = g.step(At(s * SECOND), &lag, capacity < lag.filled) {
                assert_eq!(step, Step::Relieve);
                told += u32::from(g.hopeless(At(s * SECOND), &lag));
            }
        }
        assert_eq!(told, 1);
        let calm = Seen { lag: QUICK, ..lag };
        let mut now = 300;
        while g.capacity(At(now * SECOND), &calm) < 100 {
            let capacity = g.capacity(At(now * SECOND), &calm);
            if g.step(At(now * SECOND), &calm, capacity < calm.filled) == Some(Step::GiveBack) {
                g.gave_back(At(now * SECOND), false);
            }
            now += 1;
            assert!(now < 900, "taken for {capacity} %");
        }
    }

    #[test]
    fn a_device_that_has_just_cooled_down_is_not_calm_yet() {
        let mut g = Governor::default();
        let seen = |speed| Seen { speed, shed: true, lag: QUICK, filled: 40, ..Seen::default() };
        let steps =
            (0..600).filter(|s| g.step(At(s * SECOND), &seen(if s % 40 < 20 { 60 } else { 100 }), false).is_some());
        assert_eq!(steps.count(), 0);
        assert!(until_step(&mut g, 600, 40, seen(98), false).is_some());
    }

    #[test]
    fn there_are_six_steps_a_minute_at_most_whatever_happens() {
        let mut g = Governor::default();
        let mut steps = Vec::new();
        for s in 0..600u64 {
            let seen = Seen {
                lag: if s % 40 < 20 { SLOW } else { QUICK },
                filled: 80,
                shed: true,
                speed: 100,
                moving: s % 97 == 0,
            };
            g.capacity(At(s * SECOND), &seen);
            match g.step(At(s * SECOND), &seen, s % 40 < 20) {
                Some(Step::Relieve) => g.relieved(At(s * SECOND)),
                Some(Step::GiveBack) => {
                    g.gave_back(At(s * SECOND), true);
                }
                None => continue,
            }
            steps.push(s);
        }
        assert!(steps.len() > 5, "{steps:?}");
        assert!(steps.windows(MAX_STEPS + 1).all(|w| w[MAX_STEPS] - w[0] >= 60), "{steps:?}");
        assert!(steps.windows(2).all(|w| w[1] - w[0] >= 6), "{steps:?}");
    }
}
