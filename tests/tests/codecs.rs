//! Renditions in H.265 and AV1 beside those in H.264: what players find and decode, and what is said where nothing encodes them.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use e2e::clients::{check_packets, ffmpeg_plays, ffprobe_packets, finish};
use e2e::publishers::{AAC, Ffmpeg};
use e2e::server::{Server, program};
use e2e::{have, until};
use serde_json::{Value, json};

/// Whether the CPU encodes the codec, as `doctor` tells.
fn encodes(codec: &str) -> bool {
    let output = Command::new(program()).args(["doctor", "--json"]).output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let subject = format!("{codec} encoding");
    let finding = findings.as_array().unwrap().iter().find(|f| f["subject"] == subject.as_str()).unwrap();
    finding["level"] == "ok"
}

async fn codec_of(url: &str) -> String {
    let mut command = tokio::process::Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "stream=codec_name,codec_tag_string", "-of", "csv=p=0", url]);
    let output = finish(command, Duration::from_secs(40)).await;
    String::from_utf8(output.stdout).unwrap().lines().next().unwrap_or_default().to_owned()
}

fn rung(codec: &str) -> Value {
    json!({ "height": 180, "bitrate": 200_000, "preset": "ultrafast", "codec": codec })
}

#[tokio::test]
async fn every_codec_is_announced_checked_probed_and_decoded() {
    if !have("ffmpeg") {
        return;
    }
    assert!(encodes("H.265") || std::env::var("FISHLADDER_STRICT").as_deref() != Ok("1"), "x265enc");
    let mut codecs = vec![("v180", "h264", "avc1.", "h264,avc1")];
    if encodes("H.265") {
        codecs.push(("v180-h265", "h265", "hvc1.1.6.L", "hevc,hvc1"));
    }
    // Not where GStreamer is older than 1.24.5.
    if encodes("AV1") {
        codecs.push(("v180-av1", "av1", "av01.0.0", "av1,av01"));
    }
    let server = Server::start(&["hls.window=12s", "hls.segment_target=1s"]).await;
    let publisher = Ffmpeg { audio: AAC, ..Ffmpeg::default() }.publish().await;
    // H.264 last: where it stands in the playlist is not the ladder's to say.
    let rungs: Vec<Value> = codecs.iter().rev().map(|(_, codec, ..)| rung(codec)).collect();
    server
        .put_sdp("show", &publisher.sdp, Some(json!({ "passthrough": false, "audio_bitrate": 96_000, "rungs": rungs })))
        .await;
    let mut renditions: Vec<&str> = codecs.iter().map(|(id, ..)| *id).collect();
    renditions.push("aac");
    server.live("show", &renditions).await;

    let text = server.text("/live/show/index.m3u8").await;
    let variants = m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap().variants;
    // And sound alone.
    assert_eq!(variants.len(), codecs.len() + 1, "{text}");
    for (variant, (id, _, prefix, _)) in variants.iter().zip(&codecs) {
        assert_eq!(variant.uri, format!("{id}/index.m3u8"), "{text}");
        assert!(variant.codecs.as_ref().unwrap().starts_with(prefix), "A57 {text}");
        assert_eq!(variant.resolution.map(|r| (r.width, r.height)), Some((320, 180)), "{text}");
    }
    for (playlist, rendition) in server.follow_all("show", &renditions, 40).await.iter().zip(&renditions) {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{rendition} {}", playlist.text);
    }
    for (id, _, _, named) in &codecs {
        let url = server.url(&format!("/live/show/{id}/index.m3u8"));
        assert_eq!(codec_of(&url).await, *named);
        check_packets(id, &ffprobe_packets(&url, 4).await, 33_333);
        ffmpeg_plays(&url, 3).await;
    }

    let mut command = tokio::process::Command::new(program());
    command.args(["check-hls", &server.url("/live/show/index.m3u8"), "--json", "--seconds", "12"]);
    let output = finish(command, Duration::from_secs(60)).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    assert!(report["rules"].as_array().unwrap().iter().all(|r| r["faults"] == 0), "{report:#}");
    assert_eq!(report["renditions"].as_array().unwrap().len(), renditions.len(), "{report:#}");
    assert_eq!(server.status("show").await.unwrap()["worker_restarts"].as_u64().unwrap_or(0), 0);
}

/// The publisher's own video goes on, and the operator reads which package is missing.
#[tokio::test]
async fn a_codec_that_nothing_encodes_is_refused_by_name() {
    if !have("ffmpeg") {
        return;
    }
    let Some((name, codec)) = [("AV1", "av1"), ("H.265", "h265")].into_iter().find(|(name, _)| !encodes(name)) else {
        // This host encodes all of them; the engine's own tests have the refusal without a host.
        return;
    };
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg { audio: AAC, ..Ffmpeg::default() }.publish().await;
    let rungs = [rung("h264"), rung(codec)];
    server
        .put_sdp("show", &publisher.sdp, Some(json!({ "passthrough": true, "audio_bitrate": 96_000, "rungs": rungs })))
        .await;
    server.live("show", &["src", "aac"]).await;
    let text = until("the channel to say it", || async {
        let text = server.status("show").await?["messages"].to_string();
        text.contains("gstreamer1.0-plugins-bad").then_some(text)
    })
    .await;
    assert!(text.contains(&format!("the CPU has no {name} encoder")), "{text}");
    ffmpeg_plays(&server.url("/live/show/src/index.m3u8"), 3).await;
    assert!(!server.text("/live/show/index.m3u8").await.contains("v180"), "nothing is made in its place");
}
