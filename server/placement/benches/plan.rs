//! A day and a half of 100,000 sessions on 10,000 mixed GPUs: our placer beside simpler ones and the fluid lower bound.
use std::time::Instant;

use placement::sim::{Outcome, Simple, Strategy, example, run};
use placement::{Settings, check};

fn main() {
    let number = |name: &str, default: f64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (devices, arrivals) = (number("PLAN_GPUS", 10_000.0) as u32, number("PLAN_ARRIVALS", 100_000.0));
    let hours = number("PLAN_HOURS", 24.0);
    let fleet = example::fleet(devices);
    let trace = example::workload(arrivals, hours).trace(1);
    println!(
        "{} GPUs of {} kinds, {} arrivals in {hours} h",
        fleet.devices.len(),
        fleet.kinds.len(),
        trace.arrivals.len()
    );
    println!(
        "{:<18} {:>8} {:>8} {:>6} {:>7} {:>9} {:>8} {:>8} {:>8}",
        "strategy", "in use", "bound", "ratio", "refused", "migrated", "p50 us", "p99 us", "max us"
    );
    let begin = Instant::now();
    let mut stopwatch = || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let quick = std::env::var_os("PLAN_QUICK").is_some();
    for strategy in [
        Strategy::Placer,
        Strategy::Migrating(0.01),
        Strategy::Simple(Simple::FirstFit),
        Strategy::Simple(Simple::BestFit),
        Strategy::Simple(Simple::LeastLoaded),
        Strategy::Simple(Simple::DeviceOrder),
    ]
    .into_iter()
    .take(if quick { 3 } else { 6 })
    {
        match run(&fleet, Settings::default(), &trace, strategy, &mut stopwatch) {
            Ok(outcome) => {
                print(strategy, &outcome);
                let violations = check::check(&fleet, Settings::default().headroom, &outcome.seats);
                assert!(violations.is_empty(), "{violations:?}");
                if std::env::var_os("PLAN_CURVE").is_some() { debug(&fleet, &outcome);
                    println!(
                        "{:?} live {} enc {:.3} dec {:.3} vram {:.3}",
                        outcome.by_kind, outcome.most_live, outcome.encode, outcome.decode, outcome.vram
                    );
                    for s in outcome.curve.iter().step_by(20) {
                        println!(
                            "  {:5.1} live {:6} in use {:5} bound {:7.1} {:.3}",
                            s.hour,
                            s.live,
                            s.in_use,
                            s.bound,
                            s.in_use as f64 / s.bound
                        );
                    }
                }
            }
            Err(faults) => println!("{faults:?}"),
        }
    }
}

fn print(strategy: Strategy, o: &Outcome) {
    let us = |part| o.decision(part) as f64 / 1000.0;
    println!(
        "{:<18} {:>8.1} {:>8.1} {:>6.3} {:>7} {:>9} {:>8.1} {:>8.1} {:>8.1}",
        strategy.name(),
        o.in_use,
        o.bound,
        o.ratio(),
        o.refused(),
        o.migrations,
        us(0.5),
        us(0.99),
        us(1.0)
    );
}
#[allow(dead_code)]
fn debug(fleet: &placement::Fleet, o: &Outcome) {
    use std::collections::BTreeMap;
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for s in &o.seats {
        let e = sums.entry(s.device.0).or_default();
        e.0 += s.encoders.iter().map(|e| u64::from(e.1)).sum::<u64>();
        e.1 += 1;
    }
    let mut hist: BTreeMap<(u16, u64), u64> = BTreeMap::new();
    for (d, (sum, _n)) in &sums {
        let unit = fleet.devices[*d as usize];
        let lim = u64::from(fleet.kinds[unit.kind as usize].encode_engines) * 900_000;
        *hist.entry((unit.kind, sum * 200 / lim)).or_default() += 1;
    }
    for (d, (sum, _)) in sums.iter().filter(|(d, (s, _))| fleet.devices[**d as usize].kind == 1 && *s < 2_430_000).take(12) {
        let mut eng = [0u32; 4];
        let mut cl: BTreeMap<(usize, u64), u32> = BTreeMap::new();
        for s in o.seats.iter().filter(|s| s.device.0 == *d) {
            *cl.entry((s.demand.encode.len(), s.demand.encode[0].2.0 / 1_000_000)).or_default() += 1;
            for e in &s.encoders { eng[usize::from(e.0)] += e.1; }
        }
        println!("   dev {d} sum {sum} engines {eng:?} {cl:?}");
    }
    for ((k, u), n) in hist { print!("{}:{:.1}%x{} ", k, u as f64 / 2.0, n); }
    println!();
}
