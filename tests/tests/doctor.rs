//! `fishladder doctor` and the server on GPUs that a stub driver pretends (tests/stubs/driver.c).
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use e2e::publishers::Ffmpeg;
use e2e::server::{Options, Server, program};
use e2e::{have, root, until};
use serde_json::{Value, json};

/// A folder with the stub driver under all the names that GStreamer and doctor load.
fn driver() -> tempfile::TempDir {
    let own = tempfile::tempdir().unwrap();
    let library = own.path().join("libcuda.so.1");
    let built = Command::new("cc")
        .args(["-std=gnu11", "-shared", "-fPIC", "-pthread", "-o"])
        .args([library.as_path(), root().join("tests/stubs/driver.c").as_path()])
        .status();
    assert!(built.unwrap().success());
    for name in ["libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-ml.so.1", "libnvrtc.so"] {
        std::os::unix::fs::symlink(&library, own.path().join(name)).unwrap();
    }
    own
}

/// What a process needs to see `gpus`.
fn environment(own: &Path, gpus: &str) -> Vec<(&'static str, String)> {
    let path = |name: &str| own.join(name).to_str().unwrap().to_owned();
    vec![
        ("LD_LIBRARY_PATH", path("")),
        ("FISHLADDER_STUB_GPUS", gpus.to_owned()),
        ("GST_REGISTRY", path("registry.bin")),
        ("XDG_CACHE_HOME", path("")),
    ]
}

fn doctor(gpus: &str, arguments: &[&str]) -> Output {
    let own = driver();
    let mut command = Command::new(program());
    command.arg("doctor").args(arguments).envs(environment(own.path(), gpus)).env_remove("CUDA_VISIBLE_DEVICES");
    command.output().unwrap()
}

/// The server finds the GPUs, places a ladder on the one that encodes, and the whole way through NVDEC, CUDA scaling and
/// NVENC runs in its worker. The pictures are the stub's, grey; the way is real.
#[tokio::test]
async fn the_server_places_ladders_on_gpus() {
    if !have("ffmpeg") {
        return;
    }
    let own = driver();
    let environment = environment(own.path(), "full,no-nvenc");
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server =
        Server::start_with(Options { settings: &["devices.gpus=on"], environment: &environment, ..Options::default() })
            .await;
    let devices = || async {
        let text = server.text("/api/v1/devices").await;
        serde_json::from_str::<Value>(&text).unwrap()["devices"].as_array().unwrap().clone()
    };
    let found = devices().await;
    let ids: Vec<&str> = found.iter().map(|d| d["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["gpu0", "gpu1"], "{found:#?}");
    assert!(found[0]["kind"].as_str().unwrap().starts_with("l4") && found[1]["kind"].as_str().unwrap().contains("cpu"));

    let publisher = Ffmpeg { size: "640x360", ..Ffmpeg::default() }.publish().await;
    let rung = json!({ "height": 180, "bitrate": 200_000, "preset": "veryfast" });
    let ladder = json!({ "passthrough": true, "audio_bitrate": 96_000, "rungs": [rung], "policy": "gpu-only" });
    server.put_sdp("show", &publisher.sdp, Some(ladder)).await;
    server.live("show", &["src", "v180", "aac"]).await;
    let now = devices().await;
    assert_eq!(now[0]["ladders"][0]["channel"], "show", "the one with an encoder: {now:#?}");
    assert!(now[0]["worker_pid"].is_u64() && now[1]["worker_pid"].is_null());
    for playlist in server.follow_all("show", &["src", "v180", "aac"], 20).await {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{}", playlist.text);
    }
}

/// What NVML says of the GPUs comes by way of a child process, which is followed by another one when it dies.
#[tokio::test]
async fn gpus_are_measured_and_a_gauge_that_dies_is_replaced() {
    let own = driver();
    let environment = environment(own.path(), "full,no-nvenc:hot");
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server =
        Server::start_with(Options { settings: &["devices.gpus=on"], environment: &environment, ..Options::default() })
            .await;
    let measured = || async {
        let text = server.text("/api/v1/devices").await;
        let devices = serde_json::from_str::<Value>(&text).unwrap()["devices"].clone();
        let both = [devices[0]["measured"].clone(), devices[1]["measured"].clone()];
        both.iter().all(Value::is_object).then_some(both)
    };
    let [idle, hot] = until("both to be measured", &measured).await;
    let facts =
        |m: &Value| json!([m["encode"], m["decode"], m["temperature_c"], m["throttle"], m["speed"], m["simulated"]]);
    assert_eq!(facts(&idle), json!([0.07, 0.03, 41, [], 1.0, false]));
    assert_eq!(facts(&hot), json!([null, 0.03, 93, ["thermal"], 0.5, false]));
    assert_eq!(
        (&idle["vram_mib"], &idle["vram_total_mib"], &idle["encoding_sessions"]),
        (&json!(1024), &json!(24576), &json!(0))
    );
    let metrics = server.text("/metrics").await;
    assert!(
        metrics.contains("fishladder_device_measured_throttled{device=\"gpu1\",reason=\"thermal\"} 1"),
        "{metrics}"
    );
    let gauge = server.children("gauge");
    assert_eq!(gauge.len(), 1);
    e2e::server::signal(gauge[0], nix::sys::signal::Signal::SIGKILL);
    until("another gauge", || async {
        let now = server.children("gauge");
        (now.len() == 1 && now != gauge).then_some(())
    })
    .await;
    let before = measured().await;
    until("a newer measurement", || async {
        let now = measured().await?;
        (Some(now) != before).then_some(())
    })
    .await;
}

#[test]
fn doctor_tells_programs_which_gpu_has_which_elements() {
    let output = doctor("no-nvenc,full,full:sessions=0", &["--json"]);
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let devices: Vec<&Value> = findings.iter().map(|f| &f["device"]).filter(|d| d.is_object()).collect();
    let ids: Vec<&str> = devices.iter().map(|d| d["id"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..3).map(|n| format!("GPU-f15b1add-0000-4000-8000-{n:012}")).collect();
    assert_eq!(ids, expected);
    let encoders: Vec<bool> = devices.iter().map(|d| d["elements"]["encoders"]["h264"].is_object()).collect();
    assert_eq!(encoders, [false, true, false], "{devices:#?}");
    assert!(devices.iter().all(|d| d["elements"]["scaler"] == "cudaconvertscale" && d["driver"] == "580.95.05"));
    // One has none by its nature, the other's sessions are taken: the second alone is a fault.
    let faults: Vec<&Value> = findings.iter().filter(|f| f["ok"] == false).collect();
    assert!(faults.len() == 1 && faults[0]["code"] == "encoders-missing", "{faults:#?}");
    assert!(findings.iter().any(|f| f["code"] == "no-nvenc" && f["subject"] == "CUDA device 0"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn doctor_is_content_with_gpus_that_work() {
    let output = doctor("full,no-nvenc", &[]);
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("NVIDIA L4") && text.contains("NVIDIA H100 PCIe has no encoder"), "{text}");
}

/// The stub encodes in no time, so it is not the figures that are looked at.
#[test]
fn density_measures_the_gpu_that_is_asked_for_and_says_what_it_leaves_to_the_cpu() {
    let own = driver();
    let ladder = own.path().join("ladder.toml");
    let rung = "rungs = [{ height = 90, bitrate = \"100k\", preset = \"p1\" }]";
    std::fs::write(&ladder, format!("[ladders.tiny]\npassthrough = false\n{rung}\n")).unwrap();
    let density = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.args(["density", "--picture=160x90@25", "--max=2", "--seconds=2", "--ladder-file"]).arg(&ladder);
        command.args(arguments).envs(environment(own.path(), "full,no-nvenc")).env_remove("CUDA_VISIBLE_DEVICES");
        command.output().unwrap()
    };
    // Without a wish the first GPU; two sessions share its worker.
    let output = density(&["--time-slices"]);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("device      NVIDIA L4 (GPU-f15b1add-0000-4000-8000-000000000000)\n"), "{text}");
    assert!(text.contains("replicas: ") && output.status.success(), "{text}");
    let output = density(&["--json", "--device=GPU-f15b1add-0000-4000-8000-000000000001"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["device_name"].as_str().unwrap().ends_with("so the CPU encodes"), "{report:#}");
    let faults: Vec<&Value> = report["steps"].as_array().unwrap().iter().map(|s| &s["fault"]).collect();
    assert!(!faults.is_empty() && faults.iter().all(|f| f.is_null()), "{report:#}");
}
