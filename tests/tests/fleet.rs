//! Ladders on several devices: packed, moved and carried on when a device is lost. The devices are simulated: they have a
//! worker process each and the capacity that they are given, and encode on the CPU.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use e2e::clients::{check_packets, ffprobe_packets};
use e2e::publishers::{Ffmpeg, RtpPublisher};
use e2e::server::{Server, signal};
use e2e::viewer::Viewer;
use e2e::{have, until, until_within};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const FRAME: i64 = 33_333;

/// Room for three ladders of one small rung, each of which counts as 7.5 megapixels a second.
const THREE: &str = "{ encode = 26 }";

fn ladder(policy: &str) -> Value {
    let rung = json!({ "height": 90, "bitrate": 100_000, "preset": "ultrafast" });
    json!({ "passthrough": false, "audio_bitrate": 64_000, "rungs": [rung], "policy": policy })
}

async fn publish(server: &Server, channel: &str, policy: &str) -> RtpPublisher {
    let publisher = Ffmpeg { size: "320x180", video_options: &["-preset", "ultrafast"], ..Ffmpeg::default() };
    let publisher = publisher.publish().await;
    server.put_sdp(channel, &publisher.sdp, Some(ladder(policy))).await;
    publisher
}

async fn devices(viewer: &Viewer) -> Vec<Value> {
    let text = viewer.text("/api/v1/devices").await;
    serde_json::from_str::<Value>(&text).unwrap()["devices"].as_array().unwrap().clone()
}

fn ladders(device: &Value) -> usize {
    device["ladders"].as_array().unwrap().len()
}

async fn device(viewer: &Viewer, id: &str) -> Value {
    devices(viewer).await.into_iter().find(|d| d["id"] == id).unwrap()
}

async fn post(viewer: &Viewer, path: &str) -> Value {
    let response = viewer.request("POST", path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

/// Seconds that `rendition` lacks in what is listed now.
async fn missing(viewer: &Viewer, channel: &str, rendition: &str) -> f64 {
    let packets = ffprobe_packets(&viewer.url(&format!("/live/{channel}/{rendition}/index.m3u8")), 8).await;
    let gaps = packets.windows(2).map(|w| w[1].dts - w[0].dts).filter(|gap| *gap > FRAME * 3 / 2);
    gaps.sum::<i64>() as f64 / 1e6
}

#[tokio::test]
async fn a_drained_device_gives_its_ladders_away_without_a_gap_and_a_killed_one_costs_no_segment() {
    if !have("ffmpeg") {
        return;
    }
    let settings: Vec<String> = (0..4).map(|n| format!("devices.simulated.sim{n}={THREE}")).collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(&settings).await;
    let channels: Vec<String> = (0..8).map(|n| format!("cam{n}")).collect();
    let mut publishers = Vec::new();
    for channel in &channels {
        publishers.push(publish(&server, channel, "gpu-only").await);
    }
    for channel in &channels {
        server.live(channel, &["v90", "aac"]).await;
    }
    let packed = devices(&server.viewer()).await;
    let mut counts: Vec<usize> = packed.iter().map(ladders).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 2, 3, 3], "as few devices as possible: {packed:#?}");

    // Everybody is watched, all along: 15 s of parts.
    let followers: Vec<_> = channels
        .iter()
        .map(|channel| {
            let (viewer, channel) = (server.viewer(), channel.clone());
            tokio::spawn(async move { viewer.follow_all(&channel, &["v90", "aac"], 75).await })
        })
        .collect();
    let full = packed.iter().find(|d| ladders(d) == 3).unwrap()["id"].as_str().unwrap().to_owned();
    let drained = post(&server, &format!("/api/v1/devices/{full}/drain")).await;
    assert_eq!((&drained["moving"], &drained["stranded"]), (&json!(3), &json!([])), "{drained}");
    let empty = until("the device to be empty", || async {
        let now = device(&server.viewer(), &full).await;
        (ladders(&now) == 0).then_some(now)
    })
    .await;
    assert_eq!(empty["state"], "draining");
    for (channel, follower) in channels.iter().zip(followers) {
        for playlist in follower.await.unwrap() {
            assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{channel}\n{}", playlist.text);
        }
        // Not a frame lacks or is there twice.
        let packets = ffprobe_packets(&server.url(&format!("/live/{channel}/v90/index.m3u8")), 8).await;
        check_packets("v90", &packets, FRAME);
        let status = server.status(channel).await.unwrap();
        assert_eq!(status["worker_restarts"], 0, "{channel}");
        assert_eq!(status["source"]["engine_dropped"], 0, "{channel}");
    }

    // A worker that dies takes its sessions along; they come back in a new one.
    let struck = devices(&server.viewer()).await.into_iter().max_by_key(ladders).unwrap();
    let hit: Vec<String> =
        struck["ladders"].as_array().unwrap().iter().map(|l| l["channel"].as_str().unwrap().to_owned()).collect();
    signal(u32::try_from(struck["worker_pid"].as_u64().unwrap()).unwrap(), Signal::SIGKILL);
    let checks: Vec<_> = channels
        .iter()
        .map(|channel| {
            let (viewer, channel) = (server.viewer(), channel.clone());
            tokio::spawn(async move {
                for playlist in viewer.follow_all(&channel, &["v90", "aac"], 20).await {
                    assert_eq!(playlist.discontinuities(), 0, "{channel}\n{}", playlist.text);
                }
                let lost = missing(&viewer, &channel, "v90").await;
                assert!(lost <= 2.0, "{channel} lacks {lost} s");
            })
        })
        .collect();
    for check in checks {
        check.await.unwrap();
    }
    for channel in &channels {
        let restarts = server.status(channel).await.unwrap()["worker_restarts"].as_u64().unwrap();
        assert_eq!(restarts, u64::from(hit.contains(channel)), "{channel}");
    }
    let again = device(&server.viewer(), struck["id"].as_str().unwrap()).await;
    assert_eq!((&again["state"], &again["worker_restarts"]), (&json!("ready"), &json!(1)));
    drop(publishers);
}

#[tokio::test]
async fn a_lost_device_costs_at_most_a_segment() {
    if !have("ffmpeg") {
        return;
    }
    let settings = ["devices.simulated.a={ fails_after = \"9s\" }", "devices.simulated.b={}"];
    let server = Server::start(&settings).await;
    // So that it goes to the one that will fail.
    post(&server, "/api/v1/devices/b/drain").await;
    let _publisher = publish(&server, "cam", "gpu-only").await;
    server.live("cam", &["v90", "aac"]).await;
    assert_eq!(ladders(&device(&server.viewer(), "a").await), 1);
    post(&server, "/api/v1/devices/b/restore").await;
    let follower = {
        let viewer = server.viewer();
        tokio::spawn(async move { viewer.follow_all("cam", &["v90", "aac"], 75).await })
    };
    let lost = until("the device to be in quarantine", || async {
        let now = device(&server.viewer(), "a").await;
        (now["state"] == "quarantined").then_some(now)
    })
    .await;
    assert!(lost["reason"].as_str().unwrap().contains("79"), "{lost}");
    for playlist in follower.await.unwrap() {
        assert_eq!(playlist.discontinuities(), 0, "{}", playlist.text);
    }
    assert_eq!(ladders(&device(&server.viewer(), "b").await), 1);
    let lacks = missing(&server.viewer(), "cam", "v90").await;
    assert!(lacks <= 2.0, "{lacks} s");
    assert!(server.text("/metrics").await.contains("fishladder_device_state{device=\"a\",state=\"quarantined\"} 1"));
}

/// What no device takes: refused, shortened or encoded on the CPU, never in silence.
#[tokio::test]
async fn what_does_not_fit_is_done_as_its_policy_says() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&["devices.simulated.only={ encode = 9 }"]).await;
    let first = publish(&server, "first", "gpu-only").await;
    server.live("first", &["v90", "aac"]).await;
    let second = publish(&server, "second", "gpu-only").await;
    let refused = until("the second to be refused", || async {
        let status = server.status("second").await?;
        status["messages"].to_string().contains("no device takes the ladder").then_some(status)
    })
    .await;
    assert!(refused["messages"].to_string().contains("encode full"), "{refused}");
    let third = publish(&server, "third", "cpu").await;
    server.live("third", &["v90", "aac"]).await;
    let status = server.status("third").await.unwrap();
    assert!(status["messages"].to_string().contains("Encoded on the CPU"), "{status}");
    // A publisher by WHIP is refused before it sends anything.
    let ladder = ladder("gpu-only");
    server.put_source("stage", json!({ "whip": {} }), Some(ladder)).await;
    let answer = server
        .request("POST", "/whip/stage")
        .header("content-type", "application/sdp")
        .body(std::fs::read_to_string(e2e::root().join("tests/data/offer.sdp")).unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "10");
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["type"].as_str().unwrap().ends_with("encode-full"), "{problem}");
    drop((first, second, third));
    tokio::time::timeout(Duration::from_secs(20), server.state("first", "interrupted")).await.unwrap();
}

/// Two sessions, three rungs, on a device that throttles: one session finds room elsewhere, the other one loses its higher rung,
/// and gets it back when the device has cooled down.
#[tokio::test]
async fn a_device_that_throttles_moves_what_it_can_and_sheds_the_rest() {
    if !have("ffmpeg") {
        return;
    }
    let hot =
        "devices.simulated.hot={ encode = 26, throttles_after = \"15s\", throttles_for = \"25s\", throttles_to = 40 }";
    let server = Server::start(&[hot, "devices.simulated.cold={ encode = 9 }"]).await;
    // So that both go to the one that will throttle.
    post(&server, "/api/v1/devices/cold/drain").await;
    let _single = publish(&server, "single", "gpu-only").await;
    let publisher = Ffmpeg { size: "320x180", video_options: &["-preset", "ultrafast"], ..Ffmpeg::default() };
    let publisher = publisher.publish().await;
    let rung = |height: u32| json!({ "height": height, "bitrate": 100_000, "preset": "ultrafast" });
    let ladder =
        json!({ "passthrough": false, "audio_bitrate": 64_000, "rungs": [rung(180), rung(90)], "policy": "gpu-only" });
    server.put_sdp("double", &publisher.sdp, Some(ladder)).await;
    server.live("single", &["v90", "aac"]).await;
    server.live("double", &["v180", "v90", "aac"]).await;
    post(&server, "/api/v1/devices/cold/restore").await;
    assert_eq!(ladders(&device(&server.viewer(), "hot").await), 2);
    let follower = {
        let viewer = server.viewer();
        tokio::spawn(async move { viewer.follow_all("single", &["v90", "aac"], 150).await })
    };

    let throttled = until("the device to throttle", || async {
        let now = device(&server.viewer(), "hot").await;
        (now["measured"]["speed"] == 0.4).then_some(now)
    })
    .await;
    assert_eq!(throttled["measured"]["throttle"], json!(["simulated"]), "{throttled}");
    until("the session to be on the other device", || async {
        (ladders(&device(&server.viewer(), "cold").await) == 1).then_some(())
    })
    .await;
    let suspended = |now: &Value| now["ladders"][0]["suspended"].clone();
    let short = until("the other one to lose its higher rung", || async {
        let now = device(&server.viewer(), "hot").await;
        (suspended(&now) == json!(["v180"])).then_some(now)
    })
    .await;
    assert_eq!((ladders(&short), &short["ladders"][0]["channel"]), (1, &json!("double")));
    let decisions = server.text("/api/v1/devices").await;
    assert!(decisions.contains("single moves from hot to cold: throttled"), "{decisions}");
    assert!(decisions.contains("double goes without v180 on hot: throttled"), "{decisions}");
    let metrics = server.text("/metrics").await;
    for line in [
        "fishladder_device_moves_total{device=\"hot\",reason=\"throttled\"} 1",
        "fishladder_device_rungs_shed_total{device=\"hot\",reason=\"throttled\"} 1",
        "fishladder_device_measured_speed{device=\"hot\"} 0.4",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    for playlist in follower.await.unwrap() {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{}", playlist.text);
    }
    until("the device to have cooled down", || async {
        (device(&server.viewer(), "hot").await["measured"]["speed"] == 1.0).then_some(())
    })
    .await;
    // After half a minute of calm, which a busy machine may not have at once.
    until_within(Duration::from_secs(180), "the rung to be back", || async {
        (suspended(&device(&server.viewer(), "hot").await) == json!([])).then_some(())
    })
    .await;
    assert_eq!(server.status("double").await.unwrap()["worker_restarts"], 0);
}

/// A ladder that fits nowhere until a session has moved: its publisher is told to come back soon, and then is let in.
#[tokio::test]
async fn room_is_made_for_a_publisher_that_comes_back() {
    if !have("ffmpeg") {
        return;
    }
    let (a, b) = (format!("devices.simulated.a={THREE}"), format!("devices.simulated.b={THREE}"));
    let server = Server::start(&["devices.policy=spread", &a, &b]).await;
    let mut publishers = Vec::new();
    let channels = ["one", "two", "three", "four"];
    for channel in channels {
        publishers.push(publish(&server, channel, "gpu-only").await);
        server.live(channel, &["v90", "aac"]).await;
    }
    let counts = || async {
        let mut counts: Vec<usize> = devices(&server.viewer()).await.iter().map(ladders).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(counts().await, [2, 2]);
    let followers: Vec<_> = channels
        .iter()
        .map(|channel| {
            let (viewer, channel) = (server.viewer(), (*channel).to_owned());
            tokio::spawn(async move { viewer.follow_all(&channel, &["v90", "aac"], 50).await })
        })
        .collect();
    let rung = |height: u32| json!({ "height": height, "bitrate": 100_000, "preset": "ultrafast" });
    let big =
        json!({ "passthrough": false, "audio_bitrate": 64_000, "rungs": [rung(180), rung(90)], "policy": "gpu-only" });
    server.put_source("stage", json!({ "whip": {} }), Some(big)).await;
    let offer = std::fs::read_to_string(e2e::root().join("tests/data/offer.sdp")).unwrap();
    let ask = || async {
        let request = server.request("POST", "/whip/stage").header("content-type", "application/sdp");
        request.body(offer.clone()).send().await.unwrap()
    };
    let answer = ask().await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["type"].as_str().unwrap().ends_with("making-room"), "{problem}");
    until("a session to have moved", || async { (counts().await == [1, 3]).then_some(()) }).await;
    assert_eq!(ask().await.status(), 201);
    assert_eq!(counts().await, [2, 3], "one and the new one, and three");
    for (channel, follower) in channels.iter().zip(followers) {
        for playlist in follower.await.unwrap() {
            assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{channel}\n{}", playlist.text);
        }
    }
}
