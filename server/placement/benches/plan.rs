//! Two days of 100,000 sessions on 10,000 mixed GPUs: our placer beside simpler ones and the fluid lower bound.
use std::time::Instant;

use placement::sim::{Outcome, Simple, Strategy, example, run};
use placement::{Settings, check};

fn main() {
    let fleet = example::fleet(10_000);
    let trace = example::workload(100_000.0, 48.0).trace(1);
    let (gpus, kinds, sessions) = (fleet.devices.len(), fleet.kinds.len(), trace.arrivals.len());
    println!("{gpus} GPUs of {kinds} kinds, {sessions} sessions in 48 h, headroom 90 % of engines and 80 % of VRAM");
    println!(
        "{:<18} {:>8} {:>8} {:>6} {:>7} {:>8} {:>7} {:>7} {:>8}",
        "strategy", "in use", "bound", "ratio", "refused", "migrated", "p50 us", "p99 us", "max us"
    );
    let begin = Instant::now();
    let mut stopwatch = || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    for strategy in [
        Strategy::Placer,
        Strategy::Migrating(0.01),
        Strategy::Simple(Simple::FirstFit),
        Strategy::Simple(Simple::BestFit),
        Strategy::Simple(Simple::LeastLoaded),
        Strategy::Simple(Simple::DeviceOrder),
    ] {
        match run(&fleet, Settings::default(), &trace, strategy, &mut stopwatch) {
            Ok(outcome) => {
                print(strategy, &outcome);
                let violations = check::check(&fleet, Settings::default().headroom, &outcome.seats);
                assert!(violations.is_empty(), "{violations:?}");
            }
            Err(faults) => println!("{faults:?}"),
        }
    }
}

fn print(strategy: Strategy, o: &Outcome) {
    let us = |part| o.decision(part) as f64 / 1000.0;
    println!(
        "{:<18} {:>8.1} {:>8.1} {:>6.3} {:>7} {:>8} {:>7.1} {:>7.1} {:>8.1}",
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
