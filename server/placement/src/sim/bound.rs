//! The fluid lower bound: how few devices could carry the live sessions if these could be cut at will.
//!
//! For every way of weighing sessions (encoder time as one kind counts it, decoder time likewise, memory, sessions) the
//! live weight must fit into the devices that can bear most of it, largest first, the last one in part. A kind bears at
//! most what each of its dimensions allows if it were given the ladders that weigh most there. Each weighing gives a lower
//! bound; the highest counts.
use super::workload::Class;
use crate::cost::Need;
use crate::device::Fleet;
use crate::rooms::{Headroom, engine_limit, vram_limit};

/// Decode, encode, VRAM, sessions.
const DIMENSIONS: usize = 4;

/// The bound for one fleet, kept up to date as sessions come and go.
#[derive(Clone, Debug)]
pub struct Bound {
    weighings: Vec<Weighing>,
}

#[derive(Clone, Debug)]
struct Weighing {
    /// By class.
    weights: Vec<f64>,
    /// What one device of each kind bears, and how many there are; largest first.
    bears: Vec<(f64, f64)>,
    live: f64,
}

impl Bound {
    /// Calibration is taken at the best of each kind, so that the bound stays below.
    pub fn new(fleet: &Fleet, headroom: Headroom, classes: &[Class]) -> Self {
        let kinds: Vec<Kind> = (0..fleet.kinds.len()).map(|n| Kind::new(fleet, headroom, classes, n)).collect();
        let mut weighings = Vec::new();
        for reference in &kinds {
            for dimension in 0..DIMENSIONS {
                let weights = reference.needs.iter().map(|n| n.map_or(0.0, |n| dimension_of(&n, dimension))).collect();
                weighings.push(Weighing::new(weights, &kinds));
            }
        }
        Self { weighings }
    }

    /// A session of this class has come (`count` 1) or gone (-1).
    pub fn change(&mut self, class: usize, count: f64) {
        for weighing in &mut self.weighings {
            weighing.live += count * weighing.weights.get(class).copied().unwrap_or_default();
        }
    }

    /// Devices, in fractions.
    pub fn devices(&self) -> f64 {
        self.weighings.iter().map(Weighing::devices).fold(0.0, f64::max)
    }
}

struct Kind {
    count: f64,
    /// What one device has.
    has: [f64; DIMENSIONS],
    /// By class; None where it can't.
    needs: Vec<Option<[f64; DIMENSIONS]>>,
}

impl Kind {
    fn new(fleet: &Fleet, headroom: Headroom, classes: &[Class], n: usize) -> Self {
        let of_kind = || fleet.devices.iter().filter(|d| usize::from(d.kind) == n);
        let kind = fleet.kinds.get(n);
        let best = of_kind().map(|d| d.calibration).max().unwrap_or_default();
        let engine = f64::from(engine_limit(headroom, best.into()));
        // One card may have its host's whole cap for itself.
        let cap = |d: &crate::device::Device| {
            let host = usize::try_from(d.host).ok().and_then(|h| fleet.hosts.get(h));
            host.and_then(|h| h.consumer_sessions).map_or(f64::INFINITY, f64::from)
        };
        let consumer = kind.is_some_and(|k| k.consumer);
        let sessions = if consumer { of_kind().map(cap).fold(0.0, f64::max) } else { f64::INFINITY };
        let needs = classes.iter().map(|c| {
            let need = Need::of(&c.demand, kind?, c.software).ok()?;
            let encode = f64::from(need.encode_total);
            Some([f64::from(need.decode), encode, f64::from(need.vram), f64::from(need.sessions)])
        });
        let engines = kind.map_or((0.0, 0.0), |k| (f64::from(k.decode_engines), f64::from(k.encode_engines)));
        let vram = kind.map_or(0.0, |k| f64::from(vram_limit(headroom, k.vram)));
        Self {
            count: of_kind().count() as f64,
            has: [engines.0 * engine, engines.1 * engine, vram, sessions],
            needs: needs.collect(),
        }
    }

    /// The most that one device bears in this weighing.
    fn bears(&self, weights: &[f64]) -> f64 {
        let by = |dimension: usize| {
            let has = self.has.get(dimension).copied().unwrap_or_default();
            let densest = self.needs.iter().zip(weights).filter_map(|(need, weight)| {
                let need = dimension_of(need.as_ref()?, dimension);
                (*weight > 0.0).then(|| if need > 0.0 { weight / need } else { f64::INFINITY })
            });
            let densest = densest.fold(0.0, f64::max);
            if densest > 0.0 { has * densest } else { 0.0 }
        };
        (0..DIMENSIONS).map(by).fold(f64::INFINITY, f64::min)
    }
}

impl Weighing {
    fn new(weights: Vec<f64>, kinds: &[Kind]) -> Self {
        let mut bears: Vec<_> = kinds.iter().map(|k| (k.bears(&weights), k.count)).collect();
        bears.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self { weights, bears, live: 0.0 }
    }

    fn devices(&self) -> f64 {
        let mut left = self.live;
        let mut devices = 0.0;
        for (bears, count) in &self.bears {
            if left <= 0.0 || *bears <= 0.0 {
                break;
            }
            let taken = (left / bears).min(*count);
            devices += taken;
            left -= taken * bears;
        }
        devices
    }
}

fn dimension_of(need: &[f64; DIMENSIONS], dimension: usize) -> f64 {
    need.get(dimension).copied().unwrap_or_default()
}
