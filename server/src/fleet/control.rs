//! Every second: what was measured goes to the placer, and a device that has promised more than it has gives something up,
//! first a session to another device, else the rung that is worth least.

use std::path::PathBuf;
use std::sync::Weak;
use std::time::{Duration, Instant, SystemTime};

use engine::backend::Policy;
use engine::gauge::{self, Sample};
use media::RenditionId;
use placement::placer::Stay;
use placement::reason::MoveReason;
use placement::{At, DeviceId, Migration, Request, SessionId};

use super::governor::{Seen, Step};
use super::load::Measured;
use super::{Fleet, Inner, Session, State, demand};

/// An older measurement says nothing of now.
const FRESH: Duration = Duration::from_secs(5);
/// What one engine may bear when nothing lowers it, see `placement::Headroom`.
const FULL_SPEED: u32 = placement::device::WHOLE / 100 * 90;

/// What happened to a device's ladders, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Sessions that left it, by reason.
    pub moves: std::collections::BTreeMap<&'static str, u64>,
    /// Rungs taken off running sessions, by reason, and given back.
    pub shed: std::collections::BTreeMap<&'static str, u64>,
    pub regained: u64,
}

/// What the last look at a device showed.
#[derive(Debug, Default)]
pub struct Reading {
    pub latest: Option<(Instant, Measured)>,
    /// A simulated device's worker, when it was looked at, and the CPU seconds that it had taken.
    worker: Option<(u32, Instant, f64)>,
}

impl Reading {
    pub fn fresh(&self) -> Option<&Measured> {
        self.latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, measured)| measured)
    }
}

/// Runs for as long as the fleet is there.
pub async fn run(fleet: Weak<Inner>) {
    let mut tick = tokio::time::interval(gauge::PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let Some(inner) = fleet.upgrade() else { return };
        let fleet = Fleet { inner };
        fleet.look_at_simulated();
        fleet.govern(fleet.now(), |_, session| session.mover.as_ref().and_then(engine::Mover::lag));
    }
}

/// Hands on what the child says of this host's GPUs.
pub async fn follow_gpus(fleet: Weak<Inner>, program: PathBuf) {
    let of = fleet.clone();
    let follow = gauge::follow(program, move |samples| {
        if let Some(inner) = of.upgrade() {
            Fleet { inner }.gpus_measured(&samples);
        }
    });
    tokio::pin!(follow);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = &mut follow => return,
            _ = tick.tick() => if fleet.strong_count() == 0 { return },
        }
    }
}

impl Fleet {
    fn gpus_measured(&self, samples: &[Sample]) {
        let now = (Instant::now(), SystemTime::now());
        let mut state = self.state();
        for (device, reading) in self.inner.devices.iter().zip(&mut state.readings) {
            let own = device.host.device().and_then(|d| samples.iter().find(|s| s.uuid == d.id));
            if let Some(sample) = own {
                reading.latest = Some((now.0, Measured::of_gpu(sample, now.1)));
            }
        }
    }

    fn look_at_simulated(&self) {
        let now = Instant::now();
        let mut state = self.state();
        for (device, reading) in self.inner.devices.iter().zip(&mut state.readings) {
            let Some(throttles) = &device.simulated else { continue };
            let worker = device.host.pid().and_then(|pid| Some((pid, now, crate::density::cpu_of(pid)?)));
            let cpu = match (&reading.worker, &worker) {
                (Some((before, at, then)), Some((pid, _, cpu))) if before == pid => {
                    let seconds = now.duration_since(*at).as_secs_f64();
                    (seconds > 0.0).then(|| (cpu - then).max(0.0) / seconds)
                }
                _ => None,
            };
            reading.worker = worker;
            let running = device.host.first_start().map(|at| now.duration_since(at));
            let throttled = running.and_then(|running| throttles.at(running));
            reading.latest = Some((now, Measured::of_simulated(cpu, throttled, SystemTime::now())));
        }
    }

    /// One second. `lag` tells how far a session's encoding lags.
    pub(super) fn govern(&self, now: At, lag: impl Fn(SessionId, &Session) -> Option<Duration>) {
        let mut state = self.state();
        for n in 0..self.inner.devices.len() {
            let device = DeviceId(u32::try_from(n).unwrap_or(u32::MAX));
            let measured = state.readings.get(n).and_then(|r| r.fresh().cloned());
            let speed = measured.as_ref().map_or(100, Measured::speed_percent);
            let seen = Seen { speed, ..state.look(device, &lag) };
            let Some(governor) = state.governors.get_mut(n) else { continue };
            let taken_for = governor.capacity(now, &seen).min(speed);
            let Some(smoothed) = state.smoothed.get_mut(n) else { continue };
            let load = smoothed.load(measured.as_ref(), taken_for, now);
            let beyond = !state.placer.report(now, device, &load).is_empty();
            let Some(governor) = state.governors.get_mut(n) else { continue };
            let why = if speed < 100 { MoveReason::Throttled } else { MoveReason::Overload };
            match governor.step(now, &seen, beyond) {
                Some(Step::Relieve) => self.relieve(&mut state, now, device, &seen, why),
                Some(Step::GiveBack) => self.give_back_rung(&mut state, now, device),
                None => {}
            }
        }
        self.reseat(&mut state, now);
    }

    /// Sessions that have lost their device go to one that has room by now, in the order in which they came; shortened where their
    /// policy allows it and nothing takes them whole.
    pub(super) fn reseat(&self, state: &mut State, now: At) {
        let without_seat: Vec<u64> =
            state.sessions.iter().filter(|(_, s)| s.lost_device.is_some()).map(|(id, _)| *id).collect();
        for id in without_seat {
            let Some((migration, without)) = state.place_again(now, SessionId(id)) else { continue };
            if !without.is_empty() {
                let (channel, to) = (state.channel_of(migration.session), self.name(migration.to));
                let text = format!("{channel} goes without {} on {to}: the devices are full", without.join(", "));
                state.note("warning", text);
            }
            self.carry_out(state, vec![migration]);
        }
    }

    /// One step: a session goes elsewhere, else a rung is shed.
    fn relieve(&self, state: &mut State, now: At, device: DeviceId, seen: &Seen, why: MoveReason) {
        let id = self.name(device).to_owned();
        if let Some(migration) = state.placer.relieve(now, device, why) {
            self.carry_out(state, vec![migration]);
            state.governor(device, |g| g.relieved(now));
            return;
        }
        match state.shed(now, device) {
            Some((channel, rung)) => {
                let why = why.name();
                tracing::warn!(%channel, %rung, device = id, why, "rung shed");
                state.note(
                    "warning",
                    format!("{channel} goes without {rung} on {id}: {why}, and no other device takes a session of it"),
                );
                if let Some(counts) = state.counts(device) {
                    *counts.shed.entry(why).or_default() += 1;
                }
                state.governor(device, |g| g.relieved(now));
            }
            None => {
                let mut news = false;
                state.governor(device, |g| news = g.hopeless(now, seen));
                if news {
                    let why = why.name();
                    tracing::error!(device = id, why, "nothing can be taken off a device that has promised too much");
                    let left = "no other device takes its ladders, and each is down to one rung";
                    state.note("error", format!("{id} has promised more than it has ({why}): {left}"));
                }
            }
        }
    }

    /// One step back.
    fn give_back_rung(&self, state: &mut State, now: At, device: DeviceId) {
        let regained = state.regain(now, device);
        if let Some((channel, rung)) = &regained {
            let id = self.name(device).to_owned();
            tracing::info!(%channel, %rung, device = id, "rung encoded again");
            state.note("info", format!("{channel} has {rung} again on {id}: it has been calm and there is room"));
            if let Some(counts) = state.counts(device) {
                counts.regained += 1;
            }
        }
        state.governor(device, |g| {
            g.gave_back(now, regained.is_some());
        });
    }
}

impl State {
    fn look(&self, device: DeviceId, lag: impl Fn(SessionId, &Session) -> Option<Duration>) -> Seen {
        let Some(view) = self.placer.view(device) else { return Seen::default() };
        let mut seen = Seen::default();
        for id in &view.sessions {
            seen.moving |= self.placer.is_moving(*id);
            let Some(session) = self.sessions.get(&id.0) else { continue };
            seen.shed |= !session.suspended.is_empty();
            seen.lag = seen.lag.max(lag(*id, session));
        }
        let fullest = view.encode.iter().chain(&view.decode).max().copied().unwrap_or_default();
        seen.filled = u16::try_from(u64::from(fullest) * 100 / u64::from(FULL_SPEED)).unwrap_or(u16::MAX).min(1000);
        seen
    }

    /// A seat for a session that has none, and the rungs that it has no room for.
    fn place_again(&mut self, now: At, id: SessionId) -> Option<(Migration, Vec<String>)> {
        let session = self.sessions.get_mut(&id.0)?;
        let from = session.lost_device?;
        let (suspended, mut without) = (session.suspended.len(), Vec::new());
        let found = loop {
            let Ok(demand) = demand(session.source, &session.running_rungs()).map(std::sync::Arc::new) else {
                break None;
            };
            let software = session.policy == Policy::Cpu;
            let request = Request { session: id, demand: demand.clone(), software, stay: Stay::Short };
            // Asked for every second: only what is found is worth an entry in the history.
            if let Some(placement) = self.placer.fits(&request).then(|| self.placer.place(now, &request).ok()).flatten()
            {
                break Some((placement.device, demand));
            }
            let shorter = session.policy == Policy::Shorten && session.running().len() > 1;
            let Some(highest) = session.highest().filter(|_| shorter).map(|r| r.id.clone()) else { break None };
            without.push(highest.to_string());
            session.suspended.push(highest);
        };
        let Some((to, demand)) = found else {
            session.suspended.truncate(suspended);
            return None;
        };
        (session.demand, session.lost_device) = (demand, None);
        session.tell_suspended();
        Some((Migration { session: id, from, to, why: MoveReason::Lost }, without))
    }

    /// Takes the rung off that is worth least: the highest one of the ladder that has the most, for its viewers have the next one
    /// to go to, and it costs the most. The last rung of a ladder stays.
    fn shed(&mut self, now: At, device: DeviceId) -> Option<(String, RenditionId)> {
        let here = self.placer.view(device)?.sessions;
        let candidates = here.iter().filter(|id| !self.placer.is_moving(**id)).filter_map(|id| {
            let session = self.sessions.get(&id.0)?;
            let running = session.running();
            let highest = session.highest()?;
            let pixels = u64::from(highest.width) * u64::from(highest.height);
            (running.len() > 1).then(|| (running.len(), pixels, *id, highest.id.clone()))
        });
        let (.., id, rung) = candidates.max_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)))?;
        let session = self.sessions.get_mut(&id.0)?;
        session.suspended.push(rung.clone());
        let shorter = demand(session.source, &session.running_rungs()).ok().map(std::sync::Arc::new);
        let done = shorter.and_then(|d| self.placer.shed(now, id, &d).ok().map(|()| d));
        match done {
            Some(demand) => session.demand = demand,
            None => {
                session.suspended.pop();
                return None;
            }
        }
        session.tell_suspended();
        Some((session.channel.to_string(), rung))
    }

    /// Gives the ladder with the fewest rungs the one back that it lost last, where the device has room for it; else the next.
    fn regain(&mut self, now: At, device: DeviceId) -> Option<(String, RenditionId)> {
        let here = self.placer.view(device)?.sessions;
        let mut short: Vec<(usize, SessionId)> = here
            .iter()
            .filter_map(|id| {
                self.sessions.get(&id.0).filter(|s| !s.suspended.is_empty()).map(|s| (s.running().len(), *id))
            })
            .collect();
        short.sort_unstable();
        for (_, id) in short {
            let Some(session) = self.sessions.get_mut(&id.0) else { continue };
            let Some(rung) = session.suspended.pop() else { continue };
            let longer = demand(session.source, &session.running_rungs()).ok().map(std::sync::Arc::new);
            match longer.and_then(|d| self.placer.regain(now, id, &d).ok().map(|()| d)) {
                Some(demand) => {
                    session.demand = demand;
                    session.tell_suspended();
                    return Some((session.channel.to_string(), rung));
                }
                None => session.suspended.push(rung),
            }
        }
        None
    }
}
