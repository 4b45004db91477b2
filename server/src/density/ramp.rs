//! How many sessions to try next, and whether a step held. Pure.

use serde::Serialize;

/// Of the source's frame rate, what every session must keep.
pub const LEAST_RATE: f64 = 0.99;
/// Milliseconds from when a picture is due to its encoded unit, for 95 % of the pictures of every session.
pub const MOST_LAG_MS: u32 = 500;

/// Doubles until a step does not hold, then halves the gap between what held and what did not.
#[derive(Debug, PartialEq, Eq)]
pub struct Ramp {
    held: usize,
    broke: Option<usize>,
    most: usize,
}

impl Ramp {
    pub fn new(most: usize) -> Self {
        Self { held: 0, broke: None, most }
    }

    /// Sessions of the next step; None: the maximum is known, or there may be no more.
    pub fn next(&self) -> Option<usize> {
        match self.broke {
            None if self.held >= self.most => None,
            None => Some((self.held * 2).clamp(1, self.most)),
            Some(broke) if broke <= self.held + 1 => None,
            Some(broke) => Some(self.held.midpoint(broke)),
        }
    }

    pub fn record(&mut self, sessions: usize, held: bool) {
        if held {
            self.held = self.held.max(sessions);
        } else {
            self.broke = Some(self.broke.map_or(sessions, |b| b.min(sessions)));
        }
    }

    /// The most sessions that held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// One more than [`Ramp::held`] was tried and did not hold.
    pub fn is_exact(&self) -> bool {
        self.broke.is_some_and(|broke| broke == self.held + 1)
    }
}

/// One step of the ramp as it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    pub sessions: usize,
    /// Frames a second, each session's slowest rendition as a part of the source's rate.
    pub fps_average: f64,
    pub fps_min: f64,
    /// Milliseconds, over all sessions.
    pub lag_p50_ms: u32,
    /// Milliseconds, of the session with the longest.
    pub lag_p95_ms: u32,
    /// Units that did not go in, and pictures missing in renditions.
    pub dropped: u64,
    /// Cores in use by this program and its workers, and by all other processes of the machine.
    pub cpu: f64,
    pub cpu_others: f64,
    /// Per cent of the GPU's encoding and decoding engines; None: there is none, or its driver does not say.
    pub encoder_percent: Option<f64>,
    pub decoder_percent: Option<f64>,
    /// Workers that failed or were started anew, the first of them.
    pub fault: Option<String>,
    /// Why the sessions are too many; empty where all kept up.
    pub reasons: Vec<String>,
}

impl Step {
    pub fn held(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Fills in `reasons`.
    pub fn judge(&mut self, source_rate: f64) {
        let mut reasons = Vec::new();
        // The rate is a slope: its own error is far below the half per mille that is forgiven here.
        if self.fps_min < source_rate * (LEAST_RATE - 0.0005) {
            reasons.push(format!("{:.1} of {source_rate:.0} FPS", self.fps_min));
        }
        if self.lag_p95_ms > MOST_LAG_MS {
            reasons.push(format!("lag {} ms", self.lag_p95_ms));
        }
        if self.dropped > 0 {
            reasons.push(format!("{} dropped", self.dropped));
        }
        reasons.extend(self.fault.clone());
        self.reasons = reasons;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps for a machine that holds so many.
    fn steps(holds: usize, most: usize) -> (Vec<usize>, Ramp) {
        let mut ramp = Ramp::new(most);
        let mut steps = Vec::new();
        while let Some(n) = ramp.next() {
            steps.push(n);
            ramp.record(n, n <= holds);
        }
        (steps, ramp)
    }

    #[test]
    fn the_maximum_is_found_exactly_in_few_steps() {
        for holds in 0..300 {
            let (steps, ramp) = steps(holds, 1000);
            assert_eq!((ramp.held(), ramp.is_exact()), (holds, true));
            assert!(steps.len() <= 20, "{steps:?}");
        }
        assert_eq!(steps(5, 1000).0, [1, 2, 4, 8, 6, 5]);
        assert_eq!(steps(0, 1000).0, [1]);
    }

    #[test]
    fn the_ramp_ends_at_the_most_that_was_asked_for() {
        let (steps, ramp) = steps(1000, 5);
        assert_eq!(steps, [1, 2, 4, 5]);
        assert_eq!((ramp.held(), ramp.is_exact()), (5, false));
    }

    #[test]
    fn a_step_holds_only_when_rate_lag_and_drops_all_do() {
        let good = Step { fps_min: 24.8, lag_p95_ms: 500, ..Step::default() };
        let reasons = |mut step: Step| {
            step.judge(25.0);
            step.reasons
        };
        assert!(reasons(good.clone()).is_empty());
        assert_eq!(reasons(Step { fps_min: 24.6, ..good.clone() }), ["24.6 of 25 FPS"]);
        assert_eq!(reasons(Step { lag_p95_ms: 501, ..good.clone() }), ["lag 501 ms"]);
        assert_eq!(reasons(Step { dropped: 1, ..good.clone() }), ["1 dropped"]);
        assert_eq!(reasons(Step { fault: Some("it died".into()), ..good }), ["it died"]);
    }
}
