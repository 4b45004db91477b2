//! RTP in, HLS and Low-Latency HLS out, with ffmpeg and GStreamer at both ends.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use e2e::clients::{check_packets, ffmpeg_plays, ffprobe_packets, have_gi, hlsdemux2_plays};
use e2e::publishers::{AAC, Ffmpeg, gstreamer_publish};
use e2e::server::{Server, free_rtp_port, signal};
use e2e::{have, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A ladder that costs a test machine little.
fn small_ladder() -> Value {
    json!({ "passthrough": true, "audio_bitrate": 96_000,
        "rungs": [{ "height": 180, "bitrate": 200_000, "preset": "ultrafast" }] })
}

/// 720p in: the passthrough and the standard ladder of 480p and 360p, followed, probed and played.
#[tokio::test]
async fn ffmpeg_publishes_and_everybody_plays_every_rendition() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg { size: "1280x720", ..Ffmpeg::default() }.publish().await;
    server.put_sdp("show", &publisher.sdp, None).await;
    let renditions = ["src", "v480", "v360", "aac", "opus"];
    server.live("show", &renditions).await;

    let text = server.text("/live/show/index.m3u8").await;
    let multivariant = m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap();
    assert_eq!(
        multivariant.variants.len(),
        5,
        "three video renditions, the best with the second audio group, and sound alone\n{text}"
    );
    let (sound, pictures) = multivariant.variants.split_last().unwrap();
    assert_eq!((sound.uri.as_str(), sound.codecs.as_deref()), ("aac/index.m3u8", Some("mp4a.40.2")), "A59 {text}");
    assert!(
        sound.bandwidth <= 192_000 && sound.audio.as_deref() == Some("aac") && sound.resolution.is_none(),
        "A59 {text}"
    );
    for variant in pictures {
        assert!(variant.codecs.as_ref().unwrap().starts_with("avc1."), "A57 {text}");
        assert!(variant.resolution.is_some() && variant.frame_rate.is_some(), "A57 {text}");
        assert!(variant.bandwidth >= variant.average_bandwidth.unwrap(), "A56 {text}");
    }

    let playlists = server.follow_all("show", &renditions, 75).await;
    for (rendition, playlist) in renditions.iter().zip(&playlists) {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{}", playlist.text);
        // A26: a segment is its parts, byte for byte.
        let segment = playlist.newest().unwrap();
        let fetch =
            async |file: &str| server.get(&format!("/live/show/{rendition}/{file}")).await.bytes().await.unwrap();
        let mut joined = Vec::new();
        for part in &segment.parts {
            joined.extend_from_slice(&fetch(&part.uri).await);
        }
        assert!(joined == fetch(&format!("{}.m4s", segment.msn)).await, "A26: {rendition} {segment:?}");
    }
    for (rendition, frame) in [("src", 33_333), ("v480", 33_333), ("v360", 33_333), ("aac", 21_333), ("opus", 20_000)] {
        let url = server.url(&format!("/live/show/{rendition}/index.m3u8"));
        let packets = ffprobe_packets(&url, 6).await;
        check_packets(rendition, &packets, frame);
        assert!(packets.len() as i64 > 5_000_000 / frame, "{rendition}: {} packets", packets.len());
        ffmpeg_plays(&url, 4).await;
    }
    ffmpeg_plays(&server.url("/live/show/index.m3u8"), 6).await;
}

/// B-frames arrive in decode order with presentation times; AAC comes as RFC 3640.
#[tokio::test]
async fn b_frames_and_aac_pass_through_in_order() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg { audio: AAC, video_options: &["-bf", "2", "-preset", "veryfast"], ..Ffmpeg::default() };
    let publisher = publisher.publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src", "aac"]).await;
    server.follow_all("show", &["src", "aac"], 20).await;
    let packets = ffprobe_packets(&server.url("/live/show/src/index.m3u8"), 4).await;
    check_packets("src", &packets, 33_333);
    assert!(packets.len() > 90 && packets.iter().any(|p| p.pts > p.dts), "{} packets", packets.len());
    ffmpeg_plays(&server.url("/live/show/index.m3u8"), 4).await;
}

/// A source with a key frame every ten seconds that cannot be asked for more (docs/adr/0002-long-gops.md).
#[tokio::test]
async fn a_ten_second_gop_gives_conformant_playlists_and_a_plain_sentence() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg { gop: 300, ..Ffmpeg::default() }.publish().await;
    server.put_sdp("show", &publisher.sdp, Some(small_ladder())).await;
    server.live("show", &["src", "v180", "aac"]).await;
    // Sound came first and the picture, up to ten seconds later, behind a DISCONTINUITY.
    let before = server.playlist("show", "src", "").await.discontinuities();
    // More than one group of pictures.
    for playlist in server.follow_all("show", &["src", "v180", "aac"], 65).await {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (before, 0), "{}", playlist.text);
    }
    let status = server.status("show").await.unwrap();
    assert!(status["messages"].to_string().contains("key frames are too far apart"), "{status}");
}

#[tokio::test]
async fn gstreamer_publishes_and_hlsdemux2_plays() {
    if !have("gst-launch-1.0") || !have_gi("Gst") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = gstreamer_publish(free_rtp_port(), free_rtp_port());
    server.put_sdp("show", &publisher.sdp, Some(small_ladder())).await;
    let renditions = ["src", "v180", "aac", "opus"];
    server.live("show", &renditions).await;
    server.follow_all("show", &renditions, 20).await;
    let (pictures, sounds) = hlsdemux2_plays(&server.url("/live/show/index.m3u8"), 10).await;
    assert!(pictures > 290, "{pictures} pictures in 10 s of 30 a second");
    assert!(sounds > 400, "{sounds} buffers of sound in 10 s");
}

/// A publisher that is killed and comes back continues the same playlists behind one DISCONTINUITY.
#[tokio::test]
async fn a_publisher_killed_and_restarted_continues_the_playlists() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&["rtp.idle_timeout=2s"]).await;
    let mut first = Ffmpeg::default().publish().await;
    server.put_sdp("show", &first.sdp, Some(small_ladder())).await;
    let renditions = ["src", "v180", "aac"];
    server.live("show", &renditions).await;
    let before = server.follow_all("show", &renditions, 10).await;
    first.client.kill();
    server.state("show", "interrupted").await;
    // What is listed stays playable while nobody publishes.
    let standing = server.playlist("show", "src", "").await;
    standing.check_after(&before[0]);
    assert!(!standing.ended, "{}", standing.text);

    let _second = Ffmpeg::default().publish_to(first.ports.0, first.ports.1).await;
    server.state("show", "live").await;
    let after = server.follow_all("show", &renditions, 20).await;
    for (before, after) in before.iter().zip(&after) {
        after.check_after(before);
        assert_eq!(after.discontinuities(), before.discontinuities() + 1, "{}", after.text);
        assert_eq!(after.media_sequence, before.media_sequence, "the window held all of it\n{}", after.text);
    }
    assert_eq!(server.status("show").await.unwrap()["sessions"], 2);
}

/// kill -9 of a worker costs only its own channel, at most two seconds, and playback goes on.
#[tokio::test]
async fn a_killed_worker_is_replaced_and_no_one_else_notices() {
    a_worker_that(Signal::SIGKILL).await;
}

/// The same for one that hangs: the stall is noticed within `engine.stall_timeout`.
#[tokio::test]
async fn a_hanging_worker_is_replaced_and_no_one_else_notices() {
    a_worker_that(Signal::SIGSTOP).await;
}

async fn a_worker_that(gets: Signal) {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let (hurt, other) = (Ffmpeg::default().publish().await, Ffmpeg::default().publish().await);
    server.put_sdp("hurt", &hurt.sdp, Some(small_ladder())).await;
    server.live("hurt", &["src", "v180", "aac"]).await;
    let workers = server.children("worker");
    assert_eq!(workers.len(), 1, "one worker a session");
    server.put_sdp("other", &other.sdp, Some(small_ladder())).await;
    server.live("other", &["src", "v180", "aac"]).await;
    server.follow("hurt", "v180", 5).await;

    let begun = Instant::now();
    signal(workers[0], gets);
    let hurt = async {
        let before = server.playlist("hurt", "v180", "").await;
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        let mut playlist = before.clone();
        while begun.elapsed() < Duration::from_secs(8) {
            let parts = server.follow("hurt", "v180", 1).await;
            if parts.next() != playlist.next() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                playlist = parts;
            }
        }
        (longest, playlist)
    };
    let others = ["src", "v180", "aac"];
    let ((longest, after), undisturbed) = tokio::join!(hurt, server.follow_all("other", &others, 30));
    // Detection, restart, and the group of pictures encoded anew.
    let limit = if gets == Signal::SIGSTOP { 3_000 } else { 2_000 };
    assert!(longest.as_millis() <= limit, "no new part for {longest:?}");
    assert_eq!((after.discontinuities(), after.gaps()), (0, 0), "{}", after.text);
    for playlist in undisturbed {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{}", playlist.text);
    }
    check_packets("v180", &ffprobe_packets(&server.url("/live/hurt/v180/index.m3u8"), 10).await, 33_333);
    assert_eq!(server.status("hurt").await.unwrap()["worker_restarts"], 1);
    assert_eq!(server.status("other").await.unwrap()["worker_restarts"], 0);
    until("the old worker to be gone", || async { (!server.children("worker").contains(&workers[0])).then_some(()) })
        .await;
}
