//! Whole days of sessions through a placer: how many devices it keeps in use, beside a lower bound.
mod baseline;
mod bound;
pub mod example;
mod rng;
mod workload;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use self::baseline::Baseline;
pub use self::baseline::Simple;
pub use self::bound::Bound;
pub use self::rng::Rng;
pub use self::workload::{Arrival, Class, MAX_ARRIVALS, Trace, Workload};
use crate::device::{Fleet, FleetFault};
use crate::placer::{Finish, Placer, Request, SeatView, Settings};
use crate::reason::{At, SessionId};
use crate::rooms::Totals;

/// Points of the curve that an outcome keeps.
const SAMPLES: u64 = 480;
const MINUTE: u64 = 60_000;

/// Who places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Our placer; sessions never move.
    Placer,
    /// Our placer, which may move this part of the live sessions every minute, for example 0.01.
    Migrating(f64),
    Simple(Simple),
}

impl Strategy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Placer => "placer",
            Self::Migrating(_) => "placer, migrating",
            Self::Simple(Simple::FirstFit) => "first fit",
            Self::Simple(Simple::BestFit) => "best fit",
            Self::Simple(Simple::LeastLoaded) => "least loaded",
            Self::Simple(Simple::DeviceOrder) => "device order",
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Devices with at least one session, averaged over time.
    pub in_use: f64,
    /// The fluid lower bound, averaged over time.
    pub bound: f64,
    pub peak: usize,
    /// By kind: average and peak.
    pub by_kind: Vec<(f64, usize)>,
    /// Parts of what the devices in use may bear, averaged over time: decode, encode, VRAM.
    pub decode: f64,
    pub encode: f64,
    pub vram: f64,
    pub placed: u64,
    /// By cause.
    pub refusals: BTreeMap<&'static str, u64>,
    pub migrations: u64,
    /// Sum of what all sessions stayed, hours.
    pub session_hours: f64,
    /// Length of the run, hours.
    pub hours: f64,
    pub most_live: usize,
    /// What the stopwatch said of each decision, sorted.
    pub decisions: Vec<u64>,
    pub curve: Vec<Sample>,
    /// All seats at the end, for the checker; empty for simple placers.
    pub seats: Vec<SeatView>,
}

/// One point of the curve.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub hour: f64,
    pub live: usize,
    pub in_use: usize,
    pub bound: f64,
}

impl Outcome {
    /// Devices in use over the bound.
    pub fn ratio(&self) -> f64 {
        if self.bound > 0.0 { self.in_use / self.bound } else { 1.0 }
    }

    /// The decision time that `part` of the decisions stay within, in the stopwatch's unit.
    pub fn decision(&self, part: f64) -> u64 {
        let at = (self.decisions.len() as f64 * part) as usize;
        self.decisions.get(at.min(self.decisions.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }
}

enum Runner {
    Placer(Box<Placer>),
    Simple(Box<Baseline>),
}

/// Runs a trace through a placer. `stopwatch` is read before and after each decision; its unit is the caller's.
pub fn run(
    fleet: &Fleet,
    settings: Settings,
    trace: &Trace,
    strategy: Strategy,
    stopwatch: &mut dyn FnMut() -> u64,
) -> Result<Outcome, Vec<FleetFault>> {
    let mut runner = match strategy {
        Strategy::Simple(how) => {
            let faults = fleet.faults();
            if !faults.is_empty() {
                return Err(faults);
            }
            Runner::Simple(Box::new(Baseline::new(how, fleet, settings.headroom, &trace.classes)))
        }
        _ => Runner::Placer(Box::new(Placer::new(fleet.clone(), settings)?)),
    };
    let mut book = Book {
        outcome: Outcome { by_kind: vec![(0.0, 0); fleet.kinds.len()], ..Outcome::default() },
        bound: Bound::new(fleet, settings.headroom, &trace.classes),
        now: 0,
        live: 0,
        sample_every: (trace.ends.0 / SAMPLES).max(1),
        next_sample: 0,
    };
    let mut departures: BinaryHeap<Reverse<(At, u64, usize)>> = BinaryHeap::new();
    let mut next_minute = MINUTE;
    let mut arrivals = (0u64..).zip(&trace.arrivals).peekable();
    loop {
        let arrival = arrivals.peek().map_or(u64::MAX, |(_, a)| a.at.0);
        let departure = departures.peek().map_or(u64::MAX, |Reverse((at, ..))| at.0);
        let minute = if matches!(strategy, Strategy::Migrating(_)) { next_minute } else { u64::MAX };
        let now = arrival.min(departure).min(minute);
        if now >= trace.ends.0 {
            break;
        }
        book.advance(now, runner.totals());
        if departure == now {
            let Some(Reverse((_, session, class))) = departures.pop() else { break };
            runner.release(SessionId(session));
            book.bound.change(class, -1.0);
            book.live -= 1;
        } else if arrival == now {
            let Some((n, arrival)) = arrivals.next() else { break };
            let Some(class) = trace.classes.get(arrival.class) else { continue };
            let before = stopwatch();
            let placed = runner.place(arrival.at, SessionId(n), arrival.class, class);
            book.outcome.decisions.push(stopwatch().saturating_sub(before));
            match placed {
                Ok(()) => {
                    departures.push(Reverse((arrival.ends, n, arrival.class)));
                    book.bound.change(arrival.class, 1.0);
                    book.live += 1;
                    book.outcome.placed += 1;
                }
                Err(cause) => *book.outcome.refusals.entry(cause).or_default() += 1,
            }
        } else {
            next_minute += MINUTE;
            if let Strategy::Migrating(part) = strategy {
                let budget = (book.live as f64 * part) as usize;
                book.outcome.migrations += runner.defragment(At(now), budget);
            }
        }
    }
    book.advance(trace.ends.0, runner.totals());
    let mut outcome = book.finish();
    if let Runner::Placer(placer) = &runner {
        outcome.seats = placer.seats();
    }
    Ok(outcome)
}

impl Runner {
    fn totals(&self) -> &Totals {
        match self {
            Self::Placer(p) => p.totals(),
            Self::Simple(b) => &b.rooms.totals,
        }
    }

    fn place(&mut self, now: At, session: SessionId, n: usize, class: &Class) -> Result<(), &'static str> {
        match self {
            Self::Placer(p) => {
                let request =
                    Request { session, demand: Arc::clone(&class.demand), software: class.software, stay: class.stay };
                p.place(now, &request).map(|_| ()).map_err(|refusal| refusal.cause.name())
            }
            Self::Simple(b) => b.place(session, n).then_some(()).ok_or("no device fits"),
        }
    }

    fn release(&mut self, session: SessionId) {
        match self {
            Self::Placer(p) => {
                p.release(session);
            }
            Self::Simple(b) => b.release(session),
        }
    }

    /// Migrations take no time here. Returns how many there were.
    fn defragment(&mut self, now: At, budget: usize) -> u64 {
        let Self::Placer(placer) = self else { return 0 };
        let migrations = placer.defragment(now, budget);
        for migration in &migrations {
            placer.finish(migration.session, Finish::Moved);
        }
        migrations.len() as u64
    }
}

/// Sums over time.
struct Book {
    outcome: Outcome,
    bound: Bound,
    now: u64,
    live: usize,
    sample_every: u64,
    next_sample: u64,
}

impl Book {
    /// Adds the time up to `now`, during which nothing changed.
    fn advance(&mut self, now: u64, totals: &Totals) {
        let hours = (now - self.now) as f64 / 3_600_000.0;
        let bound = self.bound.devices();
        let in_use = totals.devices();
        let o = &mut self.outcome;
        while self.next_sample <= now {
            let hour = self.next_sample as f64 / 3_600_000.0;
            o.curve.push(Sample { hour, live: self.live, in_use, bound });
            self.next_sample += self.sample_every;
        }
        let part = |(used, limit): (u64, u64)| if limit == 0 { 0.0 } else { used as f64 / limit as f64 };
        o.in_use += in_use as f64 * hours;
        o.bound += bound * hours;
        o.peak = o.peak.max(in_use);
        o.most_live = o.most_live.max(self.live);
        for ((average, peak), n) in o.by_kind.iter_mut().zip(&totals.in_use) {
            *average += *n as f64 * hours;
            *peak = (*peak).max(*n);
        }
        o.decode += part(totals.decode) * hours;
        o.encode += part(totals.encode) * hours;
        o.vram += part(totals.vram) * hours;
        o.session_hours += self.live as f64 * hours;
        o.hours += hours;
        self.now = now;
    }

    fn finish(self) -> Outcome {
        let mut o = self.outcome;
        let hours = o.hours.max(f64::MIN_POSITIVE);
        for sum in [&mut o.in_use, &mut o.bound, &mut o.decode, &mut o.encode, &mut o.vram] {
            *sum /= hours;
        }
        for (average, _) in &mut o.by_kind {
            *average /= hours;
        }
        o.decisions.sort_unstable();
        o
    }
}
