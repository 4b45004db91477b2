//! The example files work, all faults are named at once, and the report adds up.
#![allow(clippy::unwrap_used)]
use super::*;

const WORKLOAD: &str = include_str!("../../../configs/plan/workload.toml");
const FLEET: &str = include_str!("../../../configs/plan/fleet.toml");

/// The examples, with a text replaced in one of them.
fn with(old: &str, new: &str) -> Result<Plan, Vec<Fault>> {
    assert_eq!(WORKLOAD.matches(old).count() + FLEET.matches(old).count(), 1, "{old}");
    Plan::parse(&WORKLOAD.replace(old, new), &FLEET.replace(old, new))
}

fn small() -> Plan {
    Plan::parse(&WORKLOAD.replace("arrivals_per_hour = 400", "arrivals_per_hour = 60"), FLEET).unwrap()
}

#[test]
fn the_examples_give_a_plan() {
    // As they are shipped.
    let result = simulate(&Plan::parse(WORKLOAD, FLEET).unwrap(), 1).unwrap();
    let o = &result.outcome;
    assert_eq!(o.refused(), 0, "the example fleet is large enough for the example workload");
    assert!(o.peak > 0 && o.in_use > 1.0 && o.ratio() >= 1.0);
    assert_eq!(o.placed + o.refused(), result.sessions as u64);
    let (in_use, at_peak) = (result.cost_in_use.unwrap(), result.cost_at_peak.unwrap());
    assert!(in_use > 0.0 && in_use <= at_peak);
    let hourly: f64 = result.kinds.iter().map(|k| k.average * k.price).sum();
    assert!((in_use * o.session_hours - hourly * o.hours).abs() < 1e-6);
    let text = report(&result);
    assert!(text.contains("GPUs needed") && text.contains("l40s") && text.contains("per session-hour"), "{text}");
    assert!(!text.contains("migrations"), "none were allowed: {text}");
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let plan = small();
    let text = |seed| report(&simulate(&plan, seed).unwrap());
    assert_eq!(text(5), text(5));
    assert_ne!(text(5), text(6));
}

#[test]
fn a_fleet_that_is_too_small_refuses_and_says_why() {
    let fleet = "[devices.one]\nkind = \"t4\"\ncount = 1\n[devices.cpu]\nkind = \"h200\"\ncount = 1\n";
    let plan = Plan::parse(WORKLOAD, fleet).unwrap();
    let result = simulate(&plan, 1).unwrap();
    assert!(result.outcome.refusals.contains_key("encode full"), "{:?}", result.outcome.refusals);
    let text = report(&result);
    assert!(text.contains("encode full") && text.contains("does not hold the workload"), "{text}");
    assert!(!text.contains("GPUs needed") && chart::page(&result).contains("do not hold the workload"));
    assert!(result.cost_in_use.is_none(), "nothing has a price");
}

#[test]
fn migrations_are_counted_where_they_are_allowed() {
    let plan = with("migrations = 0", "migrations = 1").unwrap();
    let result = simulate(&plan, 1).unwrap();
    assert!(result.outcome.migrations > 0);
    assert!(report(&result).contains("migrations "));
}

#[test]
fn all_faults_of_both_files_are_named_at_once() {
    let workload = r#"
        arrivals_per_hour = -1
        colour = "red"
        [ladders.odd]
        source = { codec = "h264", height = 720 }
        rungs = [{ codec = "h264", height = 1080 }, { codec = "mpeg2", height = 720, preset = "p9" }]
        [ladders.high]
        source = { codec = "h264", height = 720 }
        rungs = [{ codec = "h264", height = 1080 }]
        [sessions.a]
        ladder = "none"
        mean = 5
        wave = 2
    "#;
    let fleet = r#"
        policy = "dense"
        [devices.x]
        kind = "gtx-9999"
        count = 0
        [devices.y]
        count = 1
        [devices.z]
        kind = "l4"
        count = 1
        cpu_encode = 100
    "#;
    let faults = Plan::parse(workload, fleet).unwrap_err();
    let paths: Vec<_> = faults.iter().map(|f| f.path.as_str()).collect();
    for path in [
        "arrivals_per_hour",
        "colour",
        "ladders.odd.rungs[1].codec",
        "ladders.odd.rungs[1].preset",
        "ladders.high",
        "sessions.a.ladder",
        "sessions.a.mean",
        "sessions.a.wave",
        "policy",
        "devices.x.kind",
        "devices.x.count",
        "devices.y.encode_engines",
        "devices.y.vram_gib",
        "devices.z.cpu_encode",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    let high = faults.iter().find(|f| f.path == "ladders.high").unwrap();
    assert_eq!(high.problem, "rung 0 is larger than the source");
    let broken = Plan::parse("= 1", "[devices").unwrap_err();
    assert_eq!(broken.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["workload", "fleet"]);
}

#[test]
fn numbers_that_would_run_for_ever_are_refused() {
    for (old, new, path) in [
        ("arrivals_per_hour = 400", "arrivals_per_hour = 900000", "arrivals_per_hour"),
        ("hours = 48", "hours = 1e300", "hours"),
        ("hours = 48", "hours = nan", "hours"),
        ("count = 60", "count = 4000000000", "devices.l4.count"),
        ("count = 60", "count = 99999", "devices"),
    ] {
        let faults = with(old, new).unwrap_err();
        assert!(faults.iter().any(|f| f.path == path), "{new}: {faults:?}");
    }
    assert!(Plan::parse("arrivals_per_hour = 1", FLEET).unwrap_err().iter().any(|f| f.path == "ladders"));
}

#[test]
fn the_chart_is_one_file_and_escapes_names() {
    let plan = with("[devices.simulated]", "[devices.\"<b>&\"]").unwrap();
    let page = chart::page(&simulate(&plan, 1).unwrap());
    assert!(page.contains("&lt;b&gt;&amp;") && !page.contains("<b>"));
    assert!(page.contains("prefers-color-scheme:dark") && page.matches("<svg").count() == 3);
    for outside in ["http:", "https:", "<script", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "every coordinate is a number");
}

#[test]
fn files_are_read_and_the_chart_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (w, f, html) = (dir.path().join("w.toml"), dir.path().join("f.toml"), dir.path().join("plan.html"));
    std::fs::write(&w, WORKLOAD.replace("arrivals_per_hour = 400", "arrivals_per_hour = 20")).unwrap();
    std::fs::write(&f, FLEET).unwrap();
    assert!(run(&w, &f, Some(&html), 1).unwrap().contains("GPUs needed"));
    assert!(std::fs::read_to_string(&html).unwrap().starts_with("<!doctype html>"));
    let faults = run(&dir.path().join("none"), &dir.path().join("neither"), None, 1).unwrap_err();
    assert_eq!(faults.len(), 2);
}
