//! `fishladder plan`: from a workload and a fleet to GPUs needed, utilisation, refusals and cost, as text and as a chart.
//!
//! Runs the placer that the server runs, on sessions that are drawn from the workload.
mod chart;
mod files;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::path::Path;

use placement::check;
use placement::sim::{self, Outcome, Strategy};

use self::files::{Plan, read_fleet, read_workload};
use crate::config::Fault;

/// Reads both files, simulates, writes the chart where one is wanted and returns the report.
pub fn run(workload: &Path, fleet: &Path, html: Option<&Path>, seed: u64) -> Result<String, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut text = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|e| {
            faults.push(Fault::new("", format!("cannot read {}: {e}", path.display())));
            String::new()
        })
    };
    let (workload_text, fleet_text) = (text(workload), text(fleet));
    if !faults.is_empty() {
        return Err(faults);
    }
    let plan = Plan::parse(&workload_text, &fleet_text)?;
    let result = simulate(&plan, seed)?;
    if let Some(path) = html {
        std::fs::write(path, chart::page(&result))
            .map_err(|e| vec![Fault::new("", format!("cannot write {}: {e}", path.display()))])?;
    }
    Ok(report(&result))
}

impl Plan {
    /// Both files, or all that is wrong in either.
    pub fn parse(workload: &str, fleet: &str) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let workload = read_workload(workload, &mut faults);
        let fleet = read_fleet(fleet, &mut faults);
        match (workload, fleet) {
            (Some(workload), Some(fleet)) if faults.is_empty() => Ok(Self { workload, fleet }),
            _ => Err(faults),
        }
    }
}

/// What a plan comes to.
struct Simulated {
    outcome: Outcome,
    /// By kind, in the fleet's order.
    kinds: Vec<KindUse>,
    sessions: usize,
    migrating: bool,
    /// Money for the devices in use, an hour of a session; None where there is no price or no session.
    cost_in_use: Option<f64>,
    /// The same when the devices of the peak are paid for all the time.
    cost_at_peak: Option<f64>,
}

struct KindUse {
    name: String,
    /// Marks of engines, speed and memory.
    evidence: String,
    have: usize,
    average: f64,
    peak: usize,
    /// An hour.
    price: f64,
}

fn simulate(plan: &Plan, seed: u64) -> Result<Simulated, Vec<Fault>> {
    let trace = plan.workload.trace(seed);
    let strategy = match plan.fleet.migrations {
        part if part > 0.0 => Strategy::Migrating(part),
        _ => Strategy::Placer,
    };
    let fleet = &plan.fleet.fleet;
    // Decisions aren't timed here: the benchmark does that.
    let outcome = sim::run(fleet, plan.fleet.settings, &trace, strategy, &mut || 0)
        .map_err(|faults| faults.iter().map(|f| Fault::new("devices", f.to_string())).collect::<Vec<_>>())?;
    let violations = check::check(fleet, plan.fleet.settings.headroom, &outcome.seats);
    if let Some(first) = violations.first() {
        let problem =
            format!("the plan breaks {} bounds, which is a fault of the program: {first:?}", violations.len());
        return Err(vec![Fault::new("", problem)]);
    }
    let kinds: Vec<KindUse> = fleet
        .kinds
        .iter()
        .enumerate()
        .map(|(n, kind)| {
            let (average, peak) = outcome.by_kind.get(n).copied().unwrap_or_default();
            let e = kind.evidence;
            KindUse {
                name: kind.name.clone(),
                evidence: [e.engines, e.speed, e.vram].iter().map(|e| e.mark()).collect(),
                have: fleet.devices.iter().filter(|d| usize::from(d.kind) == n).count(),
                average,
                peak,
                price: plan.fleet.prices.get(n).copied().unwrap_or_default(),
            }
        })
        .collect();
    let priced = kinds.iter().any(|k| k.price > 0.0) && outcome.session_hours > 0.0;
    let cost = |devices: &dyn Fn(&KindUse) -> f64| {
        let hourly: f64 = kinds.iter().map(|k| devices(k) * k.price).sum();
        priced.then(|| hourly * outcome.hours / outcome.session_hours)
    };
    let (cost_in_use, cost_at_peak) = (cost(&|k| k.average), cost(&|k| k.peak as f64));
    let migrating = strategy != Strategy::Placer;
    Ok(Simulated { outcome, kinds, sessions: trace.arrivals.len(), migrating, cost_in_use, cost_at_peak })
}

fn report(s: &Simulated) -> String {
    let o = &s.outcome;
    let mut t = String::new();
    // Writing to a String can't fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(t, "{text}");
    };
    line(format_args!("sessions         {} in {:.0} h, at most {} at once", s.sessions, o.hours, o.most_live));
    // Where sessions were refused, what was in use is not what is needed.
    let gpus = if o.refused() == 0 { "GPUs needed" } else { "GPUs in use" };
    line(format_args!("{gpus:<16} {} at the peak, {:.1} on average", o.peak, o.in_use));
    line(format_args!("lower bound      {:.1} on average if sessions could be cut; ratio {:.3}", o.bound, o.ratio()));
    line(format_args!(
        "utilisation      encode {:.1} %, decode {:.1} %, VRAM {:.1} % of what the GPUs in use may bear",
        o.encode * 100.0,
        o.decode * 100.0,
        o.vram * 100.0
    ));
    let too_small = if o.refused() == 0 { "" } else { ": this fleet does not hold the workload" };
    line(format_args!("refused          {}{too_small}", o.refused()));
    for (cause, n) in &o.refusals {
        line(format_args!("  {cause:<28} {n}"));
    }
    if s.migrating {
        line(format_args!("migrations       {}", o.migrations));
    }
    if let (Some(in_use), Some(at_peak)) = (s.cost_in_use, s.cost_at_peak) {
        line(format_args!(
            "per session-hour {in_use:.4} when GPUs are paid while in use, {at_peak:.4} when the peak is paid throughout"
        ));
    }
    line(format_args!(""));
    line(format_args!("{:<20} {:>4} {:>8} {:>8} {:>8} {:>9}", "device", "evid", "have", "average", "peak", "price/h"));
    for k in &s.kinds {
        line(format_args!(
            "{:<20} {:>4} {:>8} {:>8.1} {:>8} {:>9.2}",
            k.name, k.evidence, k.have, k.average, k.peak, k.price
        ));
    }
    line(format_args!(
        "evidence of engines, speed and memory: D documented, R reported, M remembered, E estimated, O yours"
    ));
    t
}
