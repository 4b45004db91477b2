//! Child processes that die with their owner, and real players and oracles among them.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::root;

/// A child process that is killed with its owner.
pub struct Client {
    child: Child,
    name: String,
    folder: tempfile::TempDir,
}

impl Client {
    /// Starts it; standard error is kept for when the test fails.
    pub fn spawn(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("{command:?}");
        let errors = std::fs::File::create(folder.path().join("errors")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(errors).spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name, folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would: no goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = if self.is_running() { "running" } else { "ended by itself" };
            eprintln!("---- {state}: {}\n{}", self.name, self.errors());
        }
        self.kill();
    }
}

/// Runs a client to its end. It gets `limit`, which no client needs unless it hangs.
pub async fn finish(mut command: tokio::process::Command, limit: Duration) -> Output {
    let name = format!("{:?}", command.as_std());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => output.unwrap(),
        Err(_) => panic!("hangs: {name}"),
    }
}

/// Standard error of a client that succeeded.
fn succeeded(name: &str, output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {}: {errors}", output.status);
    errors
}

/// Plays `seconds` of a stream with ffmpeg, decoding all of it, and fails on any error or complaint about time stamps.
pub async fn ffmpeg_plays(url: &str, seconds: u32) {
    let mut command = tokio::process::Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "warning", "-xerror", "-err_detect", "explode", "-i", url]);
    command.args(["-t", &seconds.to_string(), "-f", "null", "-"]);
    let output = finish(command, Duration::from_secs(u64::from(seconds) * 2 + 40)).await;
    let errors = succeeded("ffmpeg", &output);
    let wrong = ["non monoton", "Non-monoton", "Invalid", "error", "corrupt", "discontinuity", "skipping", "expired"];
    for bad in wrong {
        assert!(!errors.contains(bad), "ffmpeg {url}: {errors}");
    }
}

/// What ffprobe says about a stream that it cannot open.
pub async fn ffprobe_refused(url: &str) -> String {
    let mut command = tokio::process::Command::new("ffprobe");
    command.args(["-v", "error", url]);
    let output = finish(command, Duration::from_secs(20)).await;
    assert!(!output.status.success(), "ffprobe opened {url}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A packet as ffprobe sees it; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub pts: i64,
    pub dts: i64,
}

/// The packets of `seconds` of a media playlist.
pub async fn ffprobe_packets(url: &str, seconds: u32) -> Vec<Packet> {
    let mut command = tokio::process::Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "packet=pts_time,dts_time", "-of", "json"]);
    command.args(["-read_intervals", &format!("%+{seconds}"), url]);
    let output = finish(command, Duration::from_secs(u64::from(seconds) * 2 + 40)).await;
    let errors = succeeded("ffprobe", &output);
    assert!(errors.trim().is_empty(), "ffprobe {url}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let time = |p: &Value, key: &str| {
        let text = p[key].as_str().unwrap_or_else(|| panic!("{url}: a packet without {key}: {p}"));
        (text.parse::<f64>().unwrap() * 1e6).round() as i64
    };
    let packet = |p: &Value| Packet { pts: time(p, "pts_time"), dts: time(p, "dts_time") };
    report["packets"].as_array().unwrap().iter().map(packet).collect()
}

/// Fails when decode times go back, stand still, or leave a hole between frames of `frame` microseconds, or when a picture
/// is shown before it is decoded.
pub fn check_packets(what: &str, packets: &[Packet], frame: i64) {
    for pair in packets.windows(2) {
        let step = pair[1].dts - pair[0].dts;
        // The clocks of a publisher's tracks are brought together by stretching time by up to 1 %, and a segment's first frame
        // is moved to the millisecond before it.
        assert!((step - frame).abs() <= frame / 100 + 1_050, "{what}: {step} µs from {:?} to {:?}", pair[0], pair[1]);
    }
    for packet in packets {
        assert!(packet.pts >= packet.dts, "{what}: shown before decoded: {packet:?}");
    }
}

/// Plays with GStreamer's hlsdemux2 and gives the number of decoded pictures and sound buffers of `seconds` of media.
pub async fn hlsdemux2_plays(url: &str, seconds: u32) -> (usize, usize) {
    let program = script("gst_player.py");
    let mut command = tokio::process::Command::new(system_python());
    command.arg(program).args([url, &seconds.to_string()]);
    let output = finish(command, Duration::from_secs(u64::from(seconds) * 2 + 60)).await;
    let errors = succeeded("gst_player.py", &output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
    let count = |key: &str| usize::try_from(report[key].as_u64().unwrap()).unwrap();
    (count("pictures"), count("sounds"))
}

/// Runs a script of tests/browser with node; its last line of standard output is a JSON report.
pub async fn browser(name: &str, arguments: &[&str], limit: Duration) -> Value {
    let mut command = tokio::process::Command::new("node");
    command.arg(root().join("tests/browser").join(name)).args(arguments);
    let output = finish(command, limit).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = succeeded(&format!("{name} {arguments:?}: {text}"), &output);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{name}: {e}: {text}\n{errors}"))
}

/// The Python of the test environment, with aiortc.
pub const VENV_PYTHON: &str = ".venv/bin/python";

/// Debian's own Python, which sees Debian's GStreamer bindings.
pub fn system_python() -> &'static str {
    "/usr/bin/python3"
}

/// True when Debian's Python has the GStreamer bindings, with the RTSP server where that is asked for.
pub fn have_gi(library: &str) -> bool {
    let code = format!("import gi; gi.require_version('{library}', '1.0')");
    let found = Command::new(system_python()).args(["-c", &code]).output().is_ok_and(|o| o.status.success());
    found || crate::skip(&format!("Python's binding of {library}"))
}

/// The path of a script in tests/clients.
pub fn script(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}
