//! Sessions of the source in real time, each with its engine, and the meters that watch them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{Engine, EngineEvent, EngineInput, EngineOptions, LadderSpec, Seat, motion};
use media::{AccessUnit, MediaDuration, MediaTime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::meter::Meter;

/// What all sessions have in common.
pub struct Show {
    /// Whole GOPs, played in a loop.
    pub units: Vec<AccessUnit>,
    /// Frames a second.
    pub frame_rate: u32,
    pub spec: LadderSpec,
    pub options: EngineOptions,
    pub seat: Seat,
}

impl Show {
    fn gop(&self) -> Duration {
        Duration::from_secs(motion::GOP_SECONDS.into())
    }

    /// When the `n`-th unit of a session is shown.
    fn at(&self, n: u64) -> MediaTime {
        MediaTime::from_ticks(i64::try_from(n).unwrap_or(i64::MAX), self.frame_rate)
    }

    /// Each rendition's frames a second.
    pub fn rates(&self) -> Vec<u32> {
        let rate = |r: &engine::VideoRung| r.frame_rate.map_or(self.frame_rate, |(n, d)| n / d.max(1));
        self.spec.video.iter().map(|r| rate(r).min(self.frame_rate)).collect()
    }
}

/// A session; dropping it ends its worker.
pub struct Session {
    pub meter: Arc<Mutex<Meter>>,
    epoch: Instant,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// The session's number decides its place in the GOP: sessions whose key frames came together would compete for the
    /// encoder at one moment and leave it idle at the next. `start` is the same for all.
    pub fn start(show: &Arc<Show>, number: usize, start: Instant) -> std::io::Result<Self> {
        let engine = Engine::start_at(show.spec.clone(), show.options.clone(), show.seat.clone())?;
        let meter = Arc::new(Mutex::new(Meter::new(&show.rates())));
        let gop = show.gop();
        let offset = gop.mul_f64(phase(number));
        // The first time from now on that the session's GOP begins.
        let behind = start.elapsed().saturating_sub(offset);
        let gops = behind.as_nanos().div_ceil(gop.as_nanos().max(1));
        let epoch = start + offset + gop * u32::try_from(gops).unwrap_or(u32::MAX);
        let task = tokio::spawn(play(show.clone(), number, engine, epoch, meter.clone()));
        Ok(Self { meter, epoch, task })
    }

    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        lock(&self.meter)
    }

    /// How long ago the picture of `at` was due.
    pub fn overdue(&self, at: MediaTime, now: Instant) -> Duration {
        now.saturating_duration_since(due(self.epoch, at))
    }
}

/// A place in the GOP, 0 to 1, that is far from those of the numbers before, however many there will be.
fn phase(number: usize) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    (number as f64 * GOLDEN).fract()
}

fn due(epoch: Instant, at: MediaTime) -> Instant {
    epoch + MediaDuration(at.0).to_std()
}

fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each unit when it is due, and what comes out as it comes.
async fn play(show: Arc<Show>, number: usize, mut engine: Engine, epoch: Instant, meter: Arc<Mutex<Meter>>) {
    let ids: Vec<_> = show.spec.video.iter().map(|r| r.id.clone()).collect();
    // Not all sessions show the same GOP.
    let gop = show.frame_rate as usize * motion::GOP_SECONDS as usize;
    let Some(mut next) = (number * gop).checked_rem(show.units.len()) else { return };
    let mut n = 0u64;
    loop {
        let at = show.at(n);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(due(epoch, at)) => {
                let Some(unit) = show.units.get(next) else { return };
                let unit = AccessUnit { pts: at, dts: at, ..unit.clone() };
                let force_key = unit.key;
                engine.push(EngineInput { unit, force_key });
                lock(&meter).refused(engine.dropped());
                next = (next + 1) % show.units.len();
                n += 1;
            }
            event = engine.events.recv() => match event {
                Some(EngineEvent::Unit { rendition, unit }) => {
                    let now = Instant::now();
                    if let Some(rung) = ids.iter().position(|id| *id == rendition) {
                        let lag = now.saturating_duration_since(due(epoch, unit.pts));
                        lock(&meter).unit(rung, unit.pts, lag, now.saturating_duration_since(epoch));
                    }
                }
                // Nobody asks for it here.
                Some(EngineEvent::WorkerRestarted { reason, .. }) => lock(&meter).fail(format!("worker: {reason}")),
                Some(EngineEvent::Failed { reason }) => lock(&meter).fail(reason),
                None => {
                    lock(&meter).fail("the engine ended".to_owned());
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_gop_stay_apart_however_many_sessions_there_are() {
        for sessions in [2usize, 3, 5, 8, 20, 100] {
            let mut places: Vec<f64> = (0..sessions).map(phase).collect();
            places.sort_by(f64::total_cmp);
            let least = places.windows(2).map(|w| w[1] - w[0]).fold(f64::MAX, f64::min);
            assert!(least > 0.35 / sessions as f64, "{sessions}: {least}");
        }
    }
}
