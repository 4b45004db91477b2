//! What a migration costs viewers, in figures: eight watched channels on four simulated devices while one is drained, one's worker
//! is killed and one is lost. `scripts/bench-migration.sh` runs it and keeps the figures; `devices.rs` holds the limits.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::clients::ffprobe_packets;
use e2e::publishers::{Ffmpeg, RtpPublisher};
use e2e::server::{Server, signal};
use e2e::viewer::Viewer;
use e2e::{have, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

const RENDITIONS: [&str; 2] = ["v90", "aac"];
const FRAME: i64 = 33_333;
/// How long viewers are watched after an event; parts last 0.2 s.
const PARTS: usize = 30;
/// ffprobe reads as much of what is listed.
const LISTED: u32 = 12;

/// What one viewer of one rendition has seen.
#[derive(Default)]
struct Seen {
    /// When something new came, and how long after the news before.
    news: Vec<(Instant, Duration)>,
    /// Segments that were skipped: msns from one playlist to the next.
    skipped: u64,
    discontinuities: usize,
    gaps: usize,
}

/// Follows as players do until told to stop; a rule that is broken ends the run.
async fn watch_rendition(viewer: Viewer, channel: String, rendition: &str, stop: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    let mut playlist = viewer.playlist(&channel, rendition, "").await;
    let mut last = Instant::now();
    while !*stop.borrow() {
        let (msn, part) = playlist.next();
        let next = viewer.playlist(&channel, rendition, &format!("?_HLS_msn={msn}&_HLS_part={part}")).await;
        next.check();
        next.check_after(&playlist);
        let now = Instant::now();
        seen.news.push((now, now - last));
        last = now;
        let newest = |p: &e2e::playlist::Playlist| p.newest().map_or(0, |s| s.msn);
        seen.skipped += newest(&next).saturating_sub(newest(&playlist) + 1);
        seen.discontinuities = seen.discontinuities.max(next.discontinuities());
        seen.gaps = seen.gaps.max(next.gaps());
        playlist = next;
    }
    seen
}

async fn devices(viewer: &Viewer) -> Vec<Value> {
    let text = viewer.text("/api/v1/devices").await;
    serde_json::from_str::<Value>(&text).unwrap()["devices"].as_array().unwrap().clone()
}

fn channels_on(device: &Value) -> BTreeSet<String> {
    device["ladders"].as_array().unwrap().iter().map(|l| l["channel"].as_str().unwrap().to_owned()).collect()
}

/// Pictures that lack in what is listed of the channels.
async fn lost_frames(server: &Server, channels: &BTreeSet<String>) -> i64 {
    let probe = |channel: &String| {
        let url = server.url(&format!("/live/{channel}/v90/index.m3u8"));
        tokio::spawn(async move { ffprobe_packets(&url, LISTED).await })
    };
    let mut lost = 0;
    for probed in channels.iter().map(probe).collect::<Vec<_>>() {
        let packets = probed.await.unwrap();
        lost += packets.windows(2).map(|w| (w[1].dts - w[0].dts + FRAME / 2) / FRAME - 1).sum::<i64>();
    }
    lost
}

/// One thing that happened, and to whom.
struct Event {
    what: &'static str,
    begin: Instant,
    end: Instant,
    /// Until everything had settled.
    took: Duration,
    struck: BTreeSet<String>,
    lost: i64,
}

/// Waits until the channels' viewers have seen enough of what came after, and counts what they lack.
async fn close(server: &Server, what: &'static str, begin: Instant, struck: BTreeSet<String>) -> Event {
    let took = begin.elapsed();
    if let Some(channel) = struck.first() {
        server.follow(channel, "v90", PARTS).await;
    }
    let lost = lost_frames(server, &struck).await;
    Event { what, begin, end: Instant::now(), took, struck, lost }
}

async fn publish(server: &Server, channel: &str) -> RtpPublisher {
    let publisher = Ffmpeg { size: "320x180", video_options: &["-preset", "ultrafast"], ..Ffmpeg::default() };
    let publisher = publisher.publish().await;
    let rung = json!({ "height": 90, "bitrate": 100_000, "preset": "ultrafast" });
    let ladder = json!({ "passthrough": false, "audio_bitrate": 64_000, "rungs": [rung], "policy": "gpu-only" });
    server.put_sdp(channel, &publisher.sdp, Some(ladder)).await;
    publisher
}

#[tokio::test]
#[ignore = "figures of a quiet machine: scripts/bench-migration.sh"]
async fn what_migrations_cost_viewers() {
    if !have("ffmpeg") {
        return;
    }
    // Room for three ladders on each; the first one is lost when all else is done.
    let device = |n: usize| format!("devices.simulated.sim{n}={{ encode = 26 }}");
    let mut settings: Vec<String> = (0..4).map(device).collect();
    settings[0] = "devices.simulated.sim0={ encode = 26, fails_after = \"100s\" }".to_owned();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(&settings).await;
    let channels: Vec<String> = (0..8).map(|n| format!("cam{n}")).collect();
    let mut publishers = Vec::new();
    for channel in &channels {
        publishers.push(publish(&server, channel).await);
    }
    for channel in &channels {
        server.live(channel, &RENDITIONS).await;
    }
    let (stop, stopped) = watch::channel(false);
    let mut viewers = Vec::new();
    for channel in &channels {
        for rendition in RENDITIONS {
            let task = tokio::spawn(watch_rendition(server.viewer(), channel.clone(), rendition, stopped.clone()));
            viewers.push((channel.clone(), rendition, task));
        }
    }

    let mut events = vec![close(&server, "nothing", Instant::now(), channels.iter().cloned().collect()).await];

    // A drain, of another device than the one that will be lost.
    let full = devices(&server).await.into_iter().find(|d| d["id"] != "sim0" && channels_on(d).len() == 3).unwrap();
    let (id, struck) = (full["id"].as_str().unwrap().to_owned(), channels_on(&full));
    let begin = Instant::now();
    let answer = server.request("POST", &format!("/api/v1/devices/{id}/drain")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    until("the device to be empty", || async {
        let now = devices(&server).await.into_iter().find(|d| d["id"] == *id).unwrap();
        channels_on(&now).is_empty().then_some(())
    })
    .await;
    events.push(close(&server, "drain", begin, struck).await);
    server.request("POST", &format!("/api/v1/devices/{id}/restore")).send().await.unwrap();

    // A worker that dies.
    let struck_device =
        devices(&server).await.into_iter().filter(|d| d["id"] != "sim0").max_by_key(|d| channels_on(d).len());
    let struck_device = struck_device.unwrap();
    let struck = channels_on(&struck_device);
    let begin = Instant::now();
    signal(u32::try_from(struck_device["worker_pid"].as_u64().unwrap()).unwrap(), Signal::SIGKILL);
    for channel in &struck {
        until("its worker to be restarted", || async {
            (server.status(channel).await?["worker_restarts"].as_u64()? >= 1).then_some(())
        })
        .await;
    }
    events.push(close(&server, "worker killed", begin, struck).await);

    // A device that is gone.
    let mut struck = BTreeSet::new();
    let mut alive = Instant::now();
    while let Some(now) = devices(&server).await.into_iter().find(|d| d["id"] == "sim0" && d["state"] == "ready") {
        (struck, alive) = (channels_on(&now), Instant::now());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(struck.len(), 3, "the first device is full");
    events.push(close(&server, "device lost", alive, struck).await);

    stop.send_replace(true);
    let mut seen = Vec::new();
    for (channel, rendition, task) in viewers {
        seen.push((channel, rendition, task.await.unwrap()));
    }
    println!(
        "FIGURE | event | channels | settled after s | longest pause of a playlist, s | of the other channels, s | frames lost |"
    );
    println!("FIGURE |---|---|---|---|---|---|");
    for event in &events {
        let longest = |struck: bool| {
            let of = seen.iter().filter(|(channel, ..)| event.struck.contains(channel) == struck);
            let during = of.flat_map(|(.., seen)| &seen.news).filter(|(at, _)| (event.begin..event.end).contains(at));
            during.map(|(_, pause)| pause.as_secs_f64()).fold(0.0, f64::max)
        };
        let others =
            if event.struck.len() == channels.len() { "-".to_owned() } else { format!("{:.2}", longest(false)) };
        let (took, pause) = (event.took.as_secs_f64(), longest(true));
        println!(
            "FIGURE | {} | {} | {took:.1} | {pause:.2} | {others} | {} |",
            event.what,
            event.struck.len(),
            event.lost
        );
    }
    let sum = |of: fn(&Seen) -> usize| seen.iter().map(|(.., s)| of(s)).sum::<usize>();
    let playlists: usize = sum(|s| s.news.len());
    let skipped: u64 = seen.iter().map(|(.., s)| s.skipped).sum();
    println!(
        "FIGURE In {playlists} playlists of all {} renditions: {skipped} msns skipped, {} discontinuities, {} gaps.",
        seen.len(),
        sum(|s| s.discontinuities),
        sum(|s| s.gaps)
    );
    drop(publishers);
}
