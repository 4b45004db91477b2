//! Real senders over loopback: what ffmpeg and GStreamer send must work as they send it.
//!
//! Without the tool a test says so and passes; with FISHLADDER_STRICT=1 it fails.
#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ingest::rtp;
use media::{AccessUnit, ClockMap, EndReason, GapReason, IngestEvent, TrackConfig, TrackKind, WallTime};

/// Kills the sender when a test fails.
struct Sender(Child);
impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[String]) -> Option<Sender> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
        Ok(child) => Some(Sender(child)),
        Err(e) if std::env::var_os("FISHLADDER_STRICT").is_some() => panic!("{program}: {e}"),
        Err(e) => {
            eprintln!("SKIPPED: {program} cannot be started: {e}");
            None
        }
    }
}

/// Two even ports with their odd neighbours free.
fn ports() -> [u16; 2] {
    let mut found = Vec::new();
    let mut kept = Vec::new();
    while found.len() < 2 {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port.is_multiple_of(2) && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            found.push(port);
        }
        kept.push(first);
    }
    [found[0], found[1]]
}

#[derive(Default)]
struct Received {
    video: Vec<AccessUnit>,
    audio: Vec<AccessUnit>,
    gaps: Vec<(TrackKind, GapReason)>,
    discontinuities: usize,
    clocks: Vec<ClockMap>,
    end: Option<EndReason>,
}

async fn receive(handle: &mut ingest::IngestHandle) -> Received {
    let mut r = Received::default();
    let all = async {
        while let Some(event) = handle.events.recv().await {
            match event {
                IngestEvent::Unit(unit) if unit.kind() == TrackKind::Video => r.video.push(unit),
                IngestEvent::Unit(unit) => r.audio.push(unit),
                IngestEvent::Gap { track, reason } => r.gaps.push((track, reason)),
                IngestEvent::Discontinuity => r.discontinuities += 1,
                IngestEvent::Clock(map) => r.clocks.push(map),
                IngestEvent::Ended(reason) => r.end = Some(reason),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the ingest ends by itself");
    r
}

/// What holds for every clean stream; `primed`: audio frames at its beginning whose times the sender gets wrong.
fn check(r: &Received, frames: usize, gop: usize, primed: usize) {
    assert_eq!(r.discontinuities, 0);
    assert_eq!(r.gaps, []);
    assert_eq!(r.video.len(), frames);
    let keys: Vec<usize> = r.video.iter().enumerate().filter(|(_, u)| u.key).map(|(i, _)| i).collect();
    assert_eq!(keys, (0..frames).step_by(gop).collect::<Vec<_>>());
    for units in [&r.video, &r.audio] {
        assert!(units.windows(2).all(|w| w[0].dts < w[1].dts), "decoding times rise");
        assert!(units.iter().all(|u| u.dts <= u.pts));
    }
    let holes: Vec<_> = r
        .audio
        .windows(2)
        .skip(primed)
        .filter(|w| w[0].pts + w[0].duration.unwrap() != w[1].pts)
        .map(|w| (w[0].pts.micros(), w[0].duration.unwrap().micros(), w[1].pts.micros()))
        .collect();
    assert_eq!(holes, [], "audio has no holes (begin, length, next begin)");
    for u in &r.video {
        let mut rest = &u.data[..];
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (nal, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            assert!(matches!(nal[0] & 0x1f, 1 | 5 | 6), "only slices and SEI are left");
            rest = tail;
        }
        assert!(rest.is_empty());
    }
    let mut shown: Vec<_> = r.video.iter().map(|u| u.pts).collect();
    shown.sort();
    assert!(shown.windows(2).all(|w| ((w[1] - w[0]).millis() - 33).abs() <= 1), "30 frames a second");
    let now = WallTime::from_system(std::time::SystemTime::now());
    let map = r.clocks.first().expect("a clock");
    let last = shown.last().unwrap();
    assert!((map.wall_of(*last).0 - now.0).abs() < 10_000_000, "the wall clock is ours");
}

fn words(s: &str) -> Vec<String> {
    s.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn ffmpeg_with_b_frames_and_aac() {
    let [v, a] = ports();
    let sdp = format!(
        "v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {v} RTP/AVP 96\na=rtpmap:96 H264/90000\n\
         a=fmtp:96 packetization-mode=1\nm=audio {a} RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/48000/2\n\
         a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=119056E500\n"
    );
    let mut handle = rtp::listen(&sdp, Duration::from_secs(2)).await.unwrap();
    // As users type it: x264's defaults have three B-frames, a pyramid, and 40 frames of look-ahead, so video starts
    // 1.3 s behind audio. Both outputs shift their own negative decoding times away, hence avoid_negative_ts.
    let Some(_sender) = start(
        "ffmpeg",
        &words(&format!(
            "-hide_banner -loglevel error -re -f lavfi -i testsrc2=size=320x240:rate=30 -re -f lavfi \
             -i sine=frequency=440:sample_rate=48000 -t 4 -map 0:v -c:v libx264 -preset veryfast -g 30 \
             -sc_threshold 0 -threads 1 -avoid_negative_ts disabled -f rtp rtp://127.0.0.1:{v} \
             -t 4 -map 1:a -c:a aac -ac 2 -avoid_negative_ts disabled -f rtp rtp://127.0.0.1:{a}"
        )),
    ) else {
        return;
    };
    let r = receive(&mut handle).await;
    check(&r, 120, 30, 0);
    assert_eq!(r.end, Some(EndReason::Timeout), "ffmpeg 5.1 stops without BYE");
    let TrackConfig::H264(config) = &*r.video[0].config else { panic!() };
    assert_eq!((config.width, config.height, config.reorder_depth), (320, 240, 2));
    assert_eq!(config.frame_rate, Some((30, 1)));
    assert!(r.video.iter().any(|u| u.dts < u.pts), "pictures are reordered");
    // A frame that is shown in order is decoded when it is shown.
    assert!(r.video.iter().any(|u| u.dts == u.pts));
    // Both began at 0 by the sender; audio from before the first picture is cut.
    let skew = (r.audio[0].pts - r.video[0].pts).millis();
    assert!((-22..=40).contains(&skew), "audio begins {skew} ms after video");
    assert_eq!(handle.stats.malformed.load(Ordering::Relaxed), 0);
    assert_eq!(handle.stats.gate_refused.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn gstreamer_payloaders_with_opus() {
    let [v, a] = ports();
    let sdp = format!(
        "v=0\nc=IN IP4 127.0.0.1\nm=video {v} RTP/AVP 96\na=rtpmap:96 H264/90000\n\
         m=audio {a} RTP/AVP 96\na=rtpmap:96 OPUS/48000/2\na=fmtp:96 sprop-stereo=0\n"
    );
    let mut handle = rtp::listen(&sdp, Duration::from_millis(1500)).await.unwrap();
    let Some(_sender) = start(
        "gst-launch-1.0",
        &words(&format!(
            "-q videotestsrc is-live=true num-buffers=90 ! video/x-raw,width=320,height=240,framerate=30/1 \
             ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay config-interval=-1 \
             ! udpsink host=127.0.0.1 port={v} \
             audiotestsrc is-live=true num-buffers=150 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 \
             ! opusenc ! rtpopuspay ! udpsink host=127.0.0.1 port={a}"
        )),
    ) else {
        return;
    };
    let r = receive(&mut handle).await;
    // opusenc 1.22 stamps its first frame 13.5 ms (a frame less its look-ahead) too early.
    check(&r, 90, 30, 1);
    assert_eq!(r.end, Some(EndReason::Timeout), "GStreamer just stops");
    assert!(r.video.iter().all(|u| u.dts == u.pts), "nothing is reordered, nothing is delayed");
    // Both sources began at the same moment and ran for 3 s; without reports arrival aligns them.
    let ends = |units: &[AccessUnit]| units.last().unwrap().pts;
    let skew = (ends(&r.audio) - ends(&r.video)).millis();
    assert!(skew.abs() <= 40, "audio ends {skew} ms after video");
}
