//! RTSP pull from GStreamer's RTSP server: digest authentication, both codecs, one timeline, reconnection.
//!
//! Needs python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, -ugly (x264enc) and gstreamer1.0-libav.
//! Without them it is skipped aloud; with FISHLADDER_STRICT=1 that is a failure.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ingest::IngestHandle;
use ingest::rtsp::{PullOptions, pull};
use media::{EndReason, IngestEvent, TrackConfig, TrackKind};

struct Camera {
    process: Child,
    port: u16,
}

impl Camera {
    /// `None`: the packages are not there.
    fn start() -> Option<Self> {
        // Debian's own Python has the bindings; another one earlier in PATH has not.
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rtsp_server.py");
        let spawned = Command::new("/usr/bin/python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(drop);
        let port = spawned.and_then(|mut process| {
            let mut line = String::new();
            let _ = BufReader::new(process.stdout.take().unwrap()).read_line(&mut line);
            match line.trim().parse() {
                Ok(port) => Ok(Self { process, port }),
                Err(_) => {
                    let _ = process.wait();
                    Err(())
                }
            }
        });
        if port.is_err() {
            let why = "python3-gi and gir1.2-gst-rtsp-server-1.0 are missing";
            assert_ne!(std::env::var("FISHLADDER_STRICT").as_deref(), Ok("1"), "{why}");
            eprintln!("SKIPPED: {why}");
        }
        port.ok()
    }

    fn pull(&self, credentials: &str) -> IngestHandle {
        let url = format!("rtsp://{credentials}@127.0.0.1:{}/live", self.port).parse().unwrap();
        pull(PullOptions { url, idle_timeout: Duration::from_secs(5) }).unwrap()
    }

    fn drop_connections(&mut self) {
        writeln!(self.process.stdin.as_mut().unwrap(), "drop").unwrap();
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for a state, for at most 30 s: the machine may be busy.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

/// Takes events until so many units of both kinds came; gives the other events on the way.
async fn take(handle: &mut IngestHandle, video: usize, audio: usize) -> Vec<IngestEvent> {
    let mut counts = [0, 0];
    let mut last = [None, None];
    let mut others = Vec::new();
    let mut first = [None, None];
    while counts[0] < video || counts[1] < audio {
        match within(handle.events.recv()).await.expect("the pull goes on") {
            IngestEvent::Unit(unit) => {
                let i = unit.kind() as usize;
                if counts[0] == 0 && unit.kind() == TrackKind::Video {
                    assert!(unit.key, "video begins with an IDR");
                }
                match (&*unit.config, unit.kind()) {
                    (TrackConfig::H264(c), TrackKind::Video) => assert_eq!((c.width, c.height), (320, 180)),
                    (TrackConfig::Aac(c), TrackKind::Audio) => assert_eq!((c.sample_rate, c.channels), (48_000, 2)),
                    other => panic!("{other:?}"),
                }
                assert!(last[i].is_none_or(|last| unit.dts > last), "DTS rises");
                assert!(unit.pts >= unit.dts);
                last[i] = Some(unit.dts);
                first[i].get_or_insert(unit.pts);
                counts[i] += 1;
            }
            IngestEvent::Discontinuity => {
                last = [None, None];
                others.push(IngestEvent::Discontinuity);
            }
            other => others.push(other),
        }
    }
    let apart = (first[0].unwrap() - first[1].unwrap()).millis();
    assert!(apart.abs() < 1500, "one timeline: {apart} ms apart");
    others
}

#[tokio::test]
async fn a_camera_behind_digest_authentication_plays_and_comes_back() {
    let Some(mut camera) = Camera::start() else { return };
    let mut handle = camera.pull("viewer:p%3Ass");
    let others = take(&mut handle, 50, 50).await;
    assert!(!others.iter().any(|e| matches!(e, IngestEvent::Discontinuity)), "{others:?}");
    assert!(others.iter().any(|e| matches!(e, IngestEvent::Clock(_))), "a clock for PROGRAM-DATE-TIME");
    assert_eq!(*handle.stats.last_error.lock().unwrap(), None);

    camera.drop_connections();
    let lost = async {
        loop {
            match handle.events.recv().await.expect("the pull goes on") {
                IngestEvent::Discontinuity => return,
                IngestEvent::Ended(reason) => panic!("ended: {reason:?}"),
                _ => {}
            }
        }
    };
    within(lost).await;
    take(&mut handle, 25, 25).await;
    assert_eq!(*handle.stats.last_error.lock().unwrap(), None, "forgotten once it plays");

    handle.control.stop(EndReason::Removed);
    let end = async {
        loop {
            if let IngestEvent::Ended(reason) = handle.events.recv().await.expect("an end is told") {
                return reason;
            }
        }
    };
    assert_eq!(within(end).await, EndReason::Removed);
}

#[tokio::test]
async fn a_wrong_password_is_told_without_showing_it() {
    let Some(camera) = Camera::start() else { return };
    let handle = camera.pull("viewer:wrong-password");
    let told = async {
        loop {
            if let Some(error) = handle.stats.last_error.lock().unwrap().clone() {
                return error;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(within(told).await, "the camera refuses the user name or password (401)");
}

#[tokio::test]
async fn nobody_listening_is_told_and_dropping_the_handle_ends_the_pull() {
    // Bound, then closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("rtsp://127.0.0.1:{port}/").parse().unwrap();
    let handle = pull(PullOptions { url, idle_timeout: Duration::from_secs(1) }).unwrap();
    let stats = handle.stats.clone();
    let told = async {
        while stats.last_error.lock().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    within(told).await;
    drop(handle);
    let freed = async {
        while std::sync::Arc::strong_count(&stats) > 1 {
            tokio::task::yield_now().await;
        }
    };
    within(freed).await;
}
