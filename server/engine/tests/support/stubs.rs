//! Runs a test's body in a process of its own under the stub driver (tests/stubs/driver.c), with a list of elements, a
//! cache and a log of its own.
//!
//! The libraries must be there before the process starts: GStreamer loads them by name through LD_LIBRARY_PATH. A test
//! therefore starts its own executable again, for itself alone.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use engine::OnDevice;
use engine::backend::{Family, Policy};

/// The names under which GStreamer and the probe load a driver; one library answers to all.
const NAMES: [&str; 5] =
    ["libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-ml.so.1", "libnvrtc.so"];
/// Set in the inner process.
const LOG: &str = "FISHLADDER_STUB_LOG";
const HOST: &str = "FISHLADDER_STUB_HOST";

/// Runs `body` under stubs for `gpus` (driver.c says how they are written). `test` is the test's own name.
pub fn under(test: &str, gpus: &str, environment: &[(&str, &str)], body: impl FnOnce()) {
    under_without(test, gpus, &[], environment, body);
}

/// As [`under`], with some of the driver's libraries unusable.
pub fn under_without(test: &str, gpus: &str, missing: &[&str], environment: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os(LOG).is_some() {
        return body();
    }
    let own = tempfile::tempdir().unwrap();
    let libraries = libraries(own.path(), missing);
    again(test, own.path(), &libraries, gpus, environment);
}

/// Runs `body` for each of several hosts' GPUs in turn, with one list of elements and one cache for all: what a host
/// remembers when they change. `GPUS -LIBRARY` lacks that library. `body` gets the host.
pub fn under_each(test: &str, hosts: &[&str], body: impl FnOnce(&str)) {
    if std::env::var_os(LOG).is_some() {
        return body(&std::env::var(HOST).unwrap());
    }
    let own = tempfile::tempdir().unwrap();
    for host in hosts {
        let (gpus, missing) = host.split_once(" -").map_or((*host, vec![]), |(gpus, library)| (gpus, vec![library]));
        again(test, own.path(), &libraries(own.path(), &missing), gpus, &[(HOST, host)]);
    }
}

/// Starts this executable for one test.
fn again(test: &str, own: &Path, libraries: &Path, gpus: &str, environment: &[(&str, &str)]) {
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", test, "--nocapture", "--include-ignored"]);
    inner
        .env("LD_LIBRARY_PATH", libraries)
        .env("FISHLADDER_STUB_GPUS", gpus)
        .env(LOG, own.join("log"))
        .env("GST_REGISTRY", own.join("registry.bin"))
        .env("XDG_CACHE_HOME", own)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("GST_CUDA_NVRTC_LIBNAME")
        // A property that an element does not take as it is given is a warning of GLib's: the worker ends with it.
        .env("G_DEBUG", "fatal-warnings")
        .envs(environment.iter().copied());
    let output = inner.output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{errors}", output.status);
    // A name that matches nothing runs nothing and succeeds.
    assert!(out.contains("1 passed"), "{test} is not what this test is called\n{out}");
    eprint!("{errors}");
}

/// A folder with the libraries: FISHLADDER_STUB_LIBRARY, or built now with the C compiler that rustc links with.
fn libraries(own: &Path, missing: &[&str]) -> PathBuf {
    let built = std::env::var_os("FISHLADDER_STUB_LIBRARY").map_or_else(|| build(own), PathBuf::from);
    let folder = own.join("lib");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    for name in NAMES {
        if missing.contains(&name) {
            // A file that is no library, rather than none: the search ends here, and not at a real driver's.
            std::fs::write(folder.join(name), "").unwrap();
        } else {
            std::os::unix::fs::symlink(&built, folder.join(name)).unwrap();
        }
    }
    folder
}

fn build(own: &Path) -> PathBuf {
    let library = own.join("driver.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/stubs/driver.c");
    let built = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(built.unwrap().success());
    library
}

/// The UUID of a stub GPU.
pub fn uuid(number: usize) -> String {
    format!("GPU-f15b1add-0000-4000-8000-{number:012}")
}

pub fn on(number: usize, policy: Policy) -> OnDevice {
    OnDevice { family: Family::Nvidia, id: uuid(number), policy }
}

/// What the driver was asked to do so far, line by line.
pub fn log() -> Vec<String> {
    let text = std::fs::read_to_string(std::env::var_os(LOG).unwrap()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Forgets it: what this process's own GStreamer asked at its start is nobody's concern.
pub fn forget_log() {
    std::fs::write(std::env::var_os(LOG).unwrap(), "").unwrap();
}

/// The most CUDA contexts that any one process had at a time on a GPU, and how many it made.
pub fn contexts(log: &[String], number: usize) -> (usize, usize) {
    let mut alive: std::collections::BTreeMap<String, (usize, usize, usize)> = Default::default();
    for line in log {
        let words: Vec<&str> = line.split(' ').collect();
        let ["context", gpu, verb, "by", process] = words[..] else { continue };
        if gpu != number.to_string() {
            continue;
        }
        let (now, most, made) = alive.entry(process.to_owned()).or_default();
        match verb {
            "created" => {
                (*now, *made) = (*now + 1, *made + 1);
                *most = (*most).max(*now);
            }
            _ => *now -= 1,
        }
    }
    let most = alive.values().map(|(_, most, _)| *most).max().unwrap_or(0);
    (most, alive.values().map(|(.., made)| *made).max().unwrap_or(0))
}
