//! RTP in, HLS and Low-Latency HLS out, with ffmpeg and GStreamer at both ends.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use e2e::clients::{Client, Ffmpeg, ffmpeg_plays, ffprobe_times};
use e2e::server::{Server, free_rtp_port};
use e2e::{have, until};
use serde_json::json;

/// 720p in: the passthrough and a ladder of 480p and 360p.
#[tokio::test]
async fn ffmpeg_publishes_and_everybody_plays_every_rendition() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg { size: "1280x720", ..Ffmpeg::default() }.publish().await;
    server.put_sdp("show", &publisher.sdp, None).await;
    server.live("show", &["src", "v480", "v360", "aac", "opus"]).await;

    let text = server.get("/live/show/index.m3u8").await.text().await.unwrap();
    let multivariant = m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap();
    assert_eq!(multivariant.variants.len(), 6, "three video renditions for each of two audio groups\n{text}");
    for variant in &multivariant.variants {
        assert!(variant.codecs.as_ref().unwrap().starts_with("avc1."), "A57 {text}");
        assert!(variant.resolution.is_some() && variant.frame_rate.is_some(), "A57 {text}");
        assert!(variant.bandwidth >= variant.average_bandwidth.unwrap(), "A56 {text}");
    }

    let (src, rung, aac, opus) = tokio::join!(
        server.follow("show", "src", 25),
        server.follow("show", "v360", 25),
        server.follow("show", "aac", 25),
        server.follow("show", "opus", 25),
    );
    for playlist in [&src, &rung, &aac, &opus] {
        assert_eq!(playlist.reports.len(), 4, "A33\n{}", playlist.text);
        assert_eq!(playlist.discontinuities(), 0, "{}", playlist.text);
        assert_eq!(playlist.gaps(), 0, "{}", playlist.text);
        assert_eq!(playlist.discontinuity_sequence, src.discontinuity_sequence, "A14");
        assert!(playlist.control == src.control && playlist.target_duration == src.target_duration, "A20");
        // A16: one mapping of media to wall-clock time.
        let common = playlist.segments.iter().find(|s| s.msn == src.segments[1].msn).unwrap();
        let seconds = |date: &Option<String>| date.as_ref().unwrap()[17..23].parse::<f64>().unwrap();
        let apart = (seconds(&common.date) - seconds(&src.segments[1].date)).abs();
        assert!(apart < 0.05 || apart > 59.9, "A16 {:?} {:?}", common.date, src.segments[1].date);
    }

    for rendition in ["src", "v480", "v360"] {
        let url = server.url(&format!("/live/show/{rendition}/index.m3u8"));
        let times = ffprobe_times(&url, "v", 6);
        assert!(times.len() > 120, "{rendition}: {} packets", times.len());
        for pair in times.windows(2) {
            assert!((pair[1] - pair[0] - 33_333).abs() < 100, "{rendition}: {pair:?}");
        }
    }
    let times = ffprobe_times(&server.url("/live/show/aac/index.m3u8"), "a", 6);
    assert!(times.windows(2).all(|w| (w[1] - w[0] - 21_333).abs() < 100), "aac: {times:?}");
    ffmpeg_plays(&server.url("/live/show/index.m3u8"), 6);
}

/// B-frames arrive in decode order with presentation times; AAC comes as RFC 3640.
#[tokio::test]
async fn b_frames_and_aac_pass_through_in_order() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg {
        audio: &["-c:a", "aac", "-b:a", "96k"],
        video_options: &["-bf", "2", "-preset", "veryfast"],
        ..Ffmpeg::default()
    };
    let publisher = publisher.publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src", "aac"]).await;
    server.follow("show", "src", 12).await;
    let url = server.url("/live/show/index.m3u8");
    let times = ffprobe_times(&url, "v", 4);
    assert!(times.len() > 60 && times.windows(2).all(|w| (w[1] - w[0] - 33_333).abs() < 2_000), "{times:?}");
    ffmpeg_plays(&url, 4);
}

/// A source with a key frame every ten seconds that cannot be asked for more (docs/adr/0002-long-gops.md).
#[tokio::test]
async fn a_ten_second_gop_gives_conformant_playlists_and_a_plain_sentence() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg { gop: 300, ..Ffmpeg::default() }.publish().await;
    server.put_sdp("show", &publisher.sdp, None).await;
    server.live("show", &["src"]).await;
    let playlist = server.follow("show", "src", 40).await;
    assert_eq!(playlist.target_duration, 2_000_000);
    let status = server.status("show").await.unwrap();
    assert!(status["messages"].to_string().contains("key frames are too far apart"), "{status}");
}

#[tokio::test]
async fn gstreamer_publishes_and_hlsdemux2_plays() {
    if !have("gst-launch-1.0") {
        return;
    }
    let server = Server::start(&[]).await;
    let (video, audio) = (free_rtp_port(), free_rtp_port());
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(
        format!(
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 ! \
             x264enc tune=zerolatency speed-preset=ultrafast bitrate=600 key-int-max=30 ! rtph264pay pt=96 ! \
             udpsink host=127.0.0.1 port={video} \
             audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay pt=97 ! \
             udpsink host=127.0.0.1 port={audio}"
        )
        .split_whitespace(),
    );
    let _publisher = Client::spawn(command);
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=gst\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video {video} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n\
         m=audio {audio} RTP/AVP 97\r\na=rtpmap:97 OPUS/48000/2\r\n"
    );
    server.put_sdp("show", &sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src", "aac", "opus"]).await;
    server.follow("show", "src", 15).await;
    // GStreamer's own player, to a file of decoded frame counts: num-buffers ends it.
    let url = server.url("/live/show/src/index.m3u8");
    let player =
        format!("souphttpsrc location={url} ! hlsdemux2 ! parsebin ! avdec_h264 ! fakesink sync=false num-buffers=90");
    let output = tokio::process::Command::new("timeout")
        .args(["40", "gst-launch-1.0", "-q"])
        .args(player.split_whitespace())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "hlsdemux2: {}", String::from_utf8_lossy(&output.stderr));
}

/// A publisher that stops and comes back continues the same playlists behind one DISCONTINUITY.
#[tokio::test]
async fn a_publisher_killed_and_restarted_continues_the_playlists() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&["rtp.idle_timeout=2s"]).await;
    let (video, audio) = (free_rtp_port(), free_rtp_port());
    let mut first = Ffmpeg::default().publish_to(video, audio).await;
    server.put_sdp("show", &first.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src", "aac"]).await;
    let before = server.follow("show", "src", 10).await;
    first.client.kill();
    until("the channel to be interrupted", || async {
        (server.status("show").await?["state"] == "interrupted").then_some(())
    })
    .await;
    let _second = Ffmpeg::default().publish_to(video, audio).await;
    server.live("show", &["src", "aac"]).await;
    for rendition in ["src", "aac"] {
        let after = server.follow("show", rendition, 10).await;
        assert_eq!(after.discontinuities(), 1, "{}", after.text);
        assert_eq!(after.discontinuity_sequence, 0, "{}", after.text);
        assert_eq!(after.media_sequence, before.media_sequence, "{}", after.text);
    }
    assert_eq!(server.status("show").await.unwrap()["sessions"], 2);
}

/// kill -9 of a worker costs only its own channel, at most two seconds, and playback goes on.
#[tokio::test]
async fn a_killed_worker_is_replaced_and_no_one_else_notices() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let ladder = json!({ "passthrough": true, "audio_bitrate": 96_000,
        "rungs": [{ "height": 180, "bitrate": 200_000, "preset": "ultrafast" }] });
    let hurt = Ffmpeg::default().publish().await;
    server.put_sdp("hurt", &hurt.sdp, Some(ladder)).await;
    server.live("hurt", &["src", "v180", "aac"]).await;
    let workers = server.children("worker");
    assert_eq!(workers.len(), 1, "one worker a session");
    let other = Ffmpeg::default().publish().await;
    server.put_sdp("other", &other.sdp, Some(json!("passthrough"))).await;
    server.live("other", &["src", "aac"]).await;
    server.follow("hurt", "v180", 5).await;

    let killed = std::time::Instant::now();
    Command::new("kill").args(["-9", &workers[0].to_string()]).status().unwrap();
    let (first, _) = tokio::join!(
        async {
            let playlist = server.follow("hurt", "v180", 1).await;
            (playlist, killed.elapsed())
        },
        server.follow("other", "src", 15),
    );
    assert!(first.1.as_millis() < 2_500, "the next part came after {:?}", first.1);
    let after = server.follow("hurt", "v180", 25).await;
    assert_eq!((after.discontinuities(), after.gaps()), (0, 0), "{}", after.text);
    let times = ffprobe_times(&server.url("/live/hurt/v180/index.m3u8"), "v", 8);
    assert!(times.windows(2).all(|w| (w[1] - w[0] - 33_333).abs() < 100), "a frame is missing: {times:?}");
    assert_eq!(server.status("hurt").await.unwrap()["worker_restarts"], 1);
    assert_eq!(server.status("other").await.unwrap()["worker_restarts"], 0);
}
