//! Real publishers and players as child processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::free_rtp_port;
use crate::{root, until};

/// A child process that dies with its owner.
pub struct Client {
    child: Child,
    name: String,
    _folder: Option<tempfile::TempDir>,
}

impl Client {
    pub fn spawn(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name, _folder: None }
    }

    /// Ends it as a crash would: no goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_running() {
            eprintln!("---- had ended by itself: {}", self.name);
        }
        self.kill();
    }
}

/// What an ffmpeg publisher sends.
pub struct Ffmpeg<'a> {
    pub size: &'a str,
    pub gop: u32,
    pub audio: &'a [&'a str],
    pub video_options: &'a [&'a str],
}

impl Default for Ffmpeg<'_> {
    fn default() -> Self {
        Self { size: "640x360", gop: 30, audio: &["-c:a", "libopus", "-b:a", "64k"], video_options: &["-bf", "0"] }
    }
}

/// A running ffmpeg that sends RTP, and the SDP that it wrote.
pub struct RtpPublisher {
    pub client: Client,
    pub sdp: String,
}

impl Ffmpeg<'_> {
    /// Sends a moving picture and a tone as RTP to two free ports of the loopback.
    pub async fn publish(&self) -> RtpPublisher {
        let (video, audio) = (free_rtp_port(), free_rtp_port());
        self.publish_to(video, audio).await
    }

    pub async fn publish_to(&self, video: u16, audio: u16) -> RtpPublisher {
        let folder = tempfile::tempdir().unwrap();
        let sdp_file = folder.path().join("stream.sdp");
        let picture = format!("testsrc2=size={}:rate=30", self.size);
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-re", "-f", "lavfi", "-i", &picture]);
        command.args(["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
        let gop = self.gop.to_string();
        command.args(["-map", "0:v", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast"]);
        command.args(["-b:v", "600k", "-g", &gop, "-keyint_min", &gop, "-sc_threshold", "0"]);
        command.args(self.video_options).args(["-f", "rtp", &format!("rtp://127.0.0.1:{video}")]);
        command.args(["-map", "1:a", "-ac", "2", "-ar", "48000"]).args(self.audio);
        command.args(["-f", "rtp", &format!("rtp://127.0.0.1:{audio}")]);
        command.arg("-sdp_file").arg(&sdp_file);
        let mut client = Client::spawn(command);
        let sdp = until("ffmpeg's SDP", || async {
            let text = std::fs::read_to_string(&sdp_file).ok()?;
            // Complete once the audio section is there.
            text.contains("m=audio").then_some(text)
        })
        .await;
        client._folder = Some(folder);
        RtpPublisher { client, sdp }
    }
}

/// Plays with ffmpeg for some seconds of media and fails on any error.
pub fn ffmpeg_plays(url: &str, seconds: u32) {
    let seconds = seconds.to_string();
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-xerror", "-i", url, "-t", &seconds, "-f", "null", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ffmpeg {url}: {errors}");
    for bad in ["non monoton", "Invalid", "error while decoding", "corrupt", "timestamp discontinuity"] {
        assert!(!errors.contains(bad), "ffmpeg {url}: {errors}");
    }
}

/// Decode times of `seconds` of a playlist's packets as ffprobe sees them, for one kind of stream (`v` or `a`), in
/// microseconds.
pub fn ffprobe_times(url: &str, kind: &str, seconds: u32) -> Vec<i64> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", kind, "-show_entries", "packet=dts_time", "-of", "csv=p=0"])
        .args(["-read_intervals", &format!("%+{seconds}"), url])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "ffprobe {url}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let time = |line: &str| Some((line.trim().trim_end_matches(',').parse::<f64>().ok()? * 1e6) as i64);
    text.lines().filter_map(time).collect()
}

/// Runs a script of tests/browser with node; its last line of standard output is a JSON report.
pub async fn browser(script: &str, arguments: &[&str]) -> serde_json::Value {
    let path = root().join("tests/browser").join(script);
    let output = tokio::process::Command::new("node")
        .arg(&path)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {text}\n{errors}");
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{script}: {e}: {text}\n{errors}"))
}

/// The Python of the test environment, with aiortc.
pub fn python() -> PathBuf {
    root().join(".venv/bin/python")
}

pub fn script(name: &str) -> PathBuf {
    Path::new(&root()).join("tests/clients").join(name)
}
