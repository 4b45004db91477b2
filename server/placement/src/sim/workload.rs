//! Sessions over time: Poisson arrivals with a daily wave, exponential durations, several ladders.
use std::sync::Arc;

use super::rng::Rng;
use crate::cost::Demand;
use crate::placer::Stay;
use crate::reason::At;

/// Most arrivals of one trace.
pub const MAX_ARRIVALS: usize = 2_000_000;

/// Sessions with one ladder.
#[derive(Clone, Debug)]
pub struct Class {
    pub name: String,
    pub demand: Arc<Demand>,
    pub software: bool,
    /// How often, relative to the other classes.
    pub weight: f64,
    /// Mean duration, hours.
    pub hours: f64,
    /// How far its rate swings around its mean in a day: 0 to 1.
    pub wave: f64,
    pub stay: Stay,
}

/// What comes, as the operator expects it.
#[derive(Clone, Debug)]
pub struct Workload {
    pub classes: Vec<Class>,
    /// Arrivals an hour, averaged over a day.
    pub per_hour: f64,
    /// Hour of the day with the most arrivals.
    pub peak_hour: f64,
    /// Length of the trace.
    pub hours: f64,
}

/// One session.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: At,
    pub ends: At,
    pub class: usize,
}

/// A drawn workload.
#[derive(Clone, Debug)]
pub struct Trace {
    pub classes: Vec<Class>,
    /// In the order of their coming.
    pub arrivals: Vec<Arrival>,
    pub ends: At,
}

const HOUR_MS: f64 = 3_600_000.0;

impl Workload {
    /// Draws a trace; the same seed gives the same one. Ends early at [`MAX_ARRIVALS`].
    pub fn trace(&self, seed: u64) -> Trace {
        let mut rng = Rng::new(seed);
        // Thinning: draw at the highest rate, keep as many as the hour's rate wants.
        let weights: Vec<_> = self.classes.iter().map(|c| c.weight * (1.0 + c.wave)).collect();
        let mean: f64 = self.classes.iter().map(|c| c.weight).sum();
        let most = self.per_hour * weights.iter().sum::<f64>() / mean.max(f64::MIN_POSITIVE);
        let mut arrivals = Vec::new();
        let mut hour = 0.0;
        while arrivals.len() < MAX_ARRIVALS && most > 0.0 {
            hour += rng.exponential(1.0 / most);
            if hour >= self.hours {
                break;
            }
            let Some(class) = rng.pick(&weights) else { break };
            let wave = self.classes.get(class).map_or(0.0, |c| c.wave);
            let phase = (hour - self.peak_hour) * std::f64::consts::TAU / 24.0;
            if rng.unit() * (1.0 + wave) > 1.0 + wave * phase.cos() {
                continue;
            }
            let stays = self.classes.get(class).map_or(0.0, |c| rng.exponential(c.hours));
            arrivals.push(Arrival {
                at: At((hour * HOUR_MS) as u64),
                ends: At(((hour + stays) * HOUR_MS) as u64),
                class,
            });
        }
        Trace { classes: self.classes.clone(), arrivals, ends: At((self.hours * HOUR_MS) as u64) }
    }
}
