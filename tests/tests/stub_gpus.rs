//! `fishladder doctor` on GPUs that a stub driver pretends (tests/stubs/driver.c), as an operator and a program read it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use e2e::root;
use e2e::server::program;
use serde_json::Value;

fn doctor(gpus: &str, arguments: &[&str]) -> Output {
    let own = tempfile::tempdir().unwrap();
    let library = own.path().join("libcuda.so.1");
    let built = Command::new("cc")
        .args(["-std=gnu11", "-shared", "-fPIC", "-pthread", "-o"])
        .args([library.as_path(), root().join("tests/stubs/driver.c").as_path()])
        .status();
    assert!(built.unwrap().success());
    // One library under all the names that GStreamer and doctor load.
    for name in ["libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-ml.so.1", "libnvrtc.so"] {
        std::os::unix::fs::symlink(&library, own.path().join(name)).unwrap();
    }
    Command::new(program())
        .arg("doctor")
        .args(arguments)
        .env("LD_LIBRARY_PATH", own.path())
        .env("FISHLADDER_STUB_GPUS", gpus)
        .env("GST_REGISTRY", own.path().join("registry.bin"))
        .env("XDG_CACHE_HOME", own.path())
        .env_remove("CUDA_VISIBLE_DEVICES")
        .output()
        .unwrap()
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
