//! Two days of 100,000 sessions on 10,000 mixed GPUs: our placer beside simpler ones and the fluid lower bound.
//!
//! Three times: with stays as they are usual, which keep a few hundred GPUs in use; twenty times as long, which keep thousands
//! in use and make decisions hard; and with hardly a publisher at night, when devices must drain.
use std::time::Instant;

use placement::placer::Stay;
use placement::sim::{Outcome, Simple, Strategy, Trace, example, run};
use placement::{Fleet, Settings, check};

const STRATEGIES: [Strategy; 6] = [
    Strategy::Placer,
    Strategy::Migrating(0.01),
    Strategy::Simple(Simple::FirstFit),
    Strategy::Simple(Simple::BestFit),
    Strategy::Simple(Simple::LeastLoaded),
    Strategy::Simple(Simple::DeviceOrder),
];

fn main() {
    let fleet = example::fleet(10_000);
    let usual = example::workload(100_000.0, 48.0);
    let mut long = usual.clone();
    for class in &mut long.classes {
        class.hours *= 20.0;
    }
    let mut wave = usual.clone();
    for class in wave.classes.iter_mut().filter(|c| c.stay == Stay::Short) {
        (class.wave, class.weight) = (1.0, class.weight * 4.0);
    }
    compare(&fleet, "usual stays", &usual.trace(1));
    compare(&fleet, "stays 20 times as long", &long.trace(1));
    compare(&fleet, "nights without publishers", &wave.trace(1));
}

fn compare(fleet: &Fleet, title: &str, trace: &Trace) {
    let (gpus, kinds, sessions) = (fleet.devices.len(), fleet.kinds.len(), trace.arrivals.len());
    println!(
        "{title}: {gpus} GPUs of {kinds} kinds, {sessions} sessions in 48 h, headroom 90 % of engines and 80 % of VRAM"
    );
    println!(
        "{:<18} {:>8} {:>8} {:>6} {:>7} {:>8} {:>7} {:>7} {:>8}",
        "strategy", "in use", "bound", "ratio", "refused", "migrated", "p50 us", "p99 us", "max us"
    );
    let begin = Instant::now();
    let mut stopwatch = || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut figures = Vec::new();
    for strategy in STRATEGIES {
        match run(fleet, Settings::default(), trace, strategy, &mut stopwatch) {
            Ok(outcome) => {
                print(strategy, &outcome);
                let violations = check::check(fleet, Settings::default().headroom, &outcome.seats);
                assert!(violations.is_empty(), "{violations:?}");
                let p99 = micros(&outcome, 0.99);
                figures.push(format!("{} {:.3} (p99 {p99:.1} us)", strategy.name(), outcome.ratio()));
            }
            Err(faults) => println!("{faults:?}"),
        }
    }
    // The line that scripts/bench-cargo.sh keeps.
    println!(
        "FIGURE placement, {gpus} GPUs, {sessions} sessions, {title}, GPUs in use over the fluid bound: {}",
        figures.join("; ")
    );
}

fn print(strategy: Strategy, o: &Outcome) {
    println!(
        "{:<18} {:>8.1} {:>8.1} {:>6.3} {:>7} {:>8} {:>7.1} {:>7.1} {:>8.1}",
        strategy.name(),
        o.in_use,
        o.bound,
        o.ratio(),
        o.refused(),
        o.migrations,
        micros(o, 0.5),
        micros(o, 0.99),
        micros(o, 1.0)
    );
}

fn micros(o: &Outcome, part: f64) -> f64 {
    o.decision(part) as f64 / 1000.0
}
