//! What `check-hls` prints.

use std::fmt::Write;

use packager::validate::{Findings, Rule, Tally};
use serde_json::{Value, json};
use url::Url;

use super::follow::Followed;

pub struct Report {
    pub url: Url,
    pub seconds: u64,
    pub findings: Findings,
    pub followed: Vec<Followed>,
    /// Media playlists beyond what is followed at once.
    pub left_out: usize,
}

impl Report {
    /// No MUST was broken, and everything could be followed.
    pub fn is_good(&self) -> bool {
        self.findings.faults().next().is_none() && self.followed.iter().all(|f| f.trouble.is_empty())
    }

    pub fn text(&self) -> String {
        let mut out = format!("{}: followed for {} s\n", self.url, self.seconds);
        for f in &self.followed {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "  {}: {} reloads ({} blocking, {} delta updates), {} parts, {} segments, {} kbit/s (peak {})",
                f.name,
                f.reloads,
                f.blocking,
                f.deltas,
                f.parts,
                f.segments,
                f.average / 1000,
                f.peak / 1000
            );
            for (what, of) in [
                ("listed to last byte", &f.fetches),
                ("end of the part, by its date and this machine's clock, to last byte", &f.latencies),
            ] {
                if let (Some(p50), Some(p95)) = (percentile(of, 50), percentile(of, 95)) {
                    let _ = writeln!(out, "    {what}: p50 {p50} ms, p95 {p95} ms");
                }
            }
            for trouble in &f.trouble {
                let _ = writeln!(out, "    could not be followed: {trouble}");
            }
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "  {} more media playlists were left out", self.left_out);
        }
        out.push('\n');
        let (mut faults, mut warnings) = (0, 0);
        for (rule, tally) in self.findings.iter() {
            faults += u64::from(tally.faults > 0);
            warnings += u64::from(tally.warnings > 0);
            let (says, source) = rule.says();
            let broken = tally.faults + tally.warnings;
            let name = rule.to_string();
            let _ = match broken {
                0 => writeln!(out, "{:5} {name:4} {says} ({source}): {}×", "ok", tally.checked),
                _ => writeln!(out, "{:5} {name:4} {says} ({source}): {broken} of {}", word(tally), tally.checked),
            };
            for example in tally.first_fault.iter().chain(&tally.first_warning) {
                let _ = writeln!(out, "           {example}");
            }
        }
        let _ = writeln!(out, "\n{faults} rules broken, {warnings} with a warning");
        out
    }

    pub fn json(&self) -> String {
        let rules: Vec<Value> = self.findings.iter().map(|(rule, tally)| rule_json(rule, tally)).collect();
        let renditions: Vec<Value> = self.followed.iter().map(followed_json).collect();
        let report = json!({
            "url": self.url.as_str(),
            "seconds": self.seconds,
            "ok": self.is_good(),
            "rules": rules,
            "renditions": renditions,
            "left_out": self.left_out,
        });
        format!("{report:#}\n")
    }
}

fn rule_json(rule: Rule, tally: &Tally) -> Value {
    let (says, source) = rule.says();
    json!({
        "rule": rule.to_string(),
        "says": says,
        "source": source,
        "result": word(tally),
        "checked": tally.checked,
        "faults": tally.faults,
        "warnings": tally.warnings,
        "fault": tally.first_fault,
        "warning": tally.first_warning,
    })
}

fn followed_json(f: &Followed) -> Value {
    json!({
        "name": f.name,
        "url": f.url.as_str(),
        "codecs": f.codecs,
        "reloads": f.reloads,
        "blocking": f.blocking,
        "delta_updates": f.deltas,
        "parts": f.parts,
        "segments": f.segments,
        "average": f.average,
        "peak": f.peak,
        "listed_to_last_byte_ms": { "p50": percentile(&f.fetches, 50), "p95": percentile(&f.fetches, 95) },
        "date_to_last_byte_ms": { "p50": percentile(&f.latencies, 50), "p95": percentile(&f.latencies, 95) },
        "trouble": f.trouble,
    })
}

fn word(tally: &Tally) -> &'static str {
    match tally {
        Tally { faults: 1.., .. } => "FAULT",
        Tally { warnings: 1.., .. } => "warn",
        _ => "ok",
    }
}

/// Of sorted values.
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?)).copied()
}
