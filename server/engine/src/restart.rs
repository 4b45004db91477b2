//! When to start a dead worker anew, and when to give up. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Runs that delivered for so long count as healthy: the next crash is a first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// Crashes in a row without a healthy run between them, or crashes of any kind within `CRASH_WINDOW`.
const MAX_CRASHES: usize = 10;
const CRASH_WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct RestartPolicy {
    unhealthy_in_a_row: u32,
    /// At most `MAX_CRASHES` long.
    recent: VecDeque<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    RestartAfter(Duration),
    GiveUp,
}

impl RestartPolicy {
    /// A worker died at `now`; `first_output` is when it first delivered something, if ever.
    pub(crate) fn crashed(&mut self, now: Instant, first_output: Option<Instant>) -> Verdict {
        if first_output.is_some_and(|at| now.saturating_duration_since(at) >= HEALTHY_AFTER) {
            self.unhealthy_in_a_row = 0;
        }
        self.unhealthy_in_a_row = self.unhealthy_in_a_row.saturating_add(1);
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| now.saturating_duration_since(*at) > CRASH_WINDOW) {
            self.recent.pop_front();
        }
        if self.unhealthy_in_a_row as usize >= MAX_CRASHES || self.recent.len() >= MAX_CRASHES {
            return Verdict::GiveUp;
        }
        Verdict::RestartAfter(match self.unhealthy_in_a_row {
            0 | 1 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 2).min(5)).min(MAX_BACK_OFF),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_backs_off_and_ends() {
        let mut policy = RestartPolicy::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        while let Verdict::RestartAfter(wait) = policy.crashed(now, None) {
            waits.push(wait.as_secs());
            now += wait + Duration::from_millis(300);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn crashes_between_healthy_runs_restart_at_once_for_ever() {
        let mut policy = RestartPolicy::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            let first_output = now + Duration::from_millis(300);
            now += Duration::from_secs(10);
            assert_eq!(policy.crashed(now, Some(first_output)), Verdict::RestartAfter(Duration::ZERO));
        }
    }

    #[test]
    fn ten_crashes_within_a_minute_are_too_many_even_when_each_run_delivered() {
        let mut policy = RestartPolicy::default();
        let mut now = Instant::now();
        let mut verdicts = Vec::new();
        for _ in 0..10 {
            let first_output = now;
            now += Duration::from_millis(5500);
            verdicts.push(policy.crashed(now, Some(first_output)));
        }
        assert_eq!(verdicts.pop(), Some(Verdict::GiveUp));
        assert!(verdicts.iter().all(|v| *v == Verdict::RestartAfter(Duration::ZERO)));
    }
}
