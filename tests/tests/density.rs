//! `fishladder density` from end to end, with a ladder that any machine holds.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use e2e::clients::finish;
use serde_json::Value;

/// One rung, as small as it may be.
const TINY: &str = r#"
[ladders.tiny]
passthrough = false
rungs = [{ height = 90, bitrate = "100k", max_frame_rate = 25, preset = "p1" }]
"#;

async fn density(folder: &Path, ladder: &str, arguments: &[&str]) -> Output {
    let file = folder.join("ladder.toml");
    std::fs::write(&file, ladder).unwrap();
    let mut command = tokio::process::Command::new(e2e::server::program());
    command.arg("density").arg("--ladder-file").arg(&file).args(arguments);
    finish(command, Duration::from_secs(120)).await
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_ladder_is_measured_and_told_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let calibration = folder.path().join("calibration.toml");
    let output = density(
        folder.path(),
        TINY,
        &[
            "--picture=160x90@25",
            "--device=cpu",
            "--max=2",
            "--seconds=2",
            "--cost-per-hour=0.6",
            "--json",
            "--save",
            calibration.to_str().unwrap(),
        ],
    )
    .await;
    let errors = errors(&output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
    assert_eq!((&report["device"], &report["ladder"]), (&"cpu".into(), &"tiny".into()), "{report:#}");
    assert_eq!(report["source"]["frame_rate"], 25, "{report:#}");
    assert_eq!(report["renditions"][0]["width"], 160, "{report:#}");
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|s| s["sessions"].as_u64().unwrap()).collect::<Vec<_>>()[0], 1, "{report:#}");
    for step in steps {
        // Whether a busy machine keeps 99 % in two seconds is not for this test; that sessions run at all is.
        let fps = step["fps_average"].as_f64().unwrap();
        assert!((15.0..26.0).contains(&fps), "{report:#}");
        assert!(step["fault"].is_null() && step["lag_p95_ms"].as_u64().unwrap() > 0, "{report:#}");
        // A decoder and an encoder of a tiny picture: some of a core, never more than a few.
        let cpu = step["cpu"].as_f64().unwrap();
        assert!(cpu > 0.0 && cpu < 4.0, "{report:#}");
        let held = step["reasons"].as_array().unwrap().is_empty();
        assert_eq!(held, step["sessions"].as_u64() <= report["sessions"].as_u64(), "{report:#}");
    }
    let sessions = report["sessions"].as_u64().unwrap();
    let found = report["limit_found"].as_bool().unwrap();
    assert!(sessions <= 2 && found == (sessions < 2), "{report:#}");
    if sessions > 0 {
        let cost = report["cost_per_session_hour"].as_f64().unwrap();
        assert!((cost - 0.6 / sessions as f64).abs() < 1e-9, "{report:#}");
    }
    // What --max ended is no calibration.
    assert_eq!(calibration.exists(), found && sessions > 0, "{errors}");
    assert_eq!(output.status.success(), found && sessions > 0, "{errors}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let wrong_preset = TINY.replace("p1", "p8");
    for (ladder, arguments, problem) in [
        (wrong_preset.as_str(), &[][..], "ladders.tiny.rungs[0].preset"),
        ("[ladders.nothing]\npassthrough = true\n", &["--device=cpu"], "nothing to measure"),
        (TINY, &["--device=GPU-0"], "no device \"GPU-0\""),
        (TINY, &["--device=cpu", "--time-slices"], "--time-slices: the CPU encodes"),
        (TINY, &["--device=cpu", "--source=/dev/null"], "--source: /dev/null"),
        (TINY, &["--picture=1x1@1"], "sides must be even"),
    ] {
        let output = density(folder.path(), ladder, arguments).await;
        let errors = errors(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{errors}");
        assert!(errors.contains(problem), "{problem}: {errors}");
    }
}
