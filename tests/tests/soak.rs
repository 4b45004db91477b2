//! Long playback by every kind of player at once: `make soak`. FISHLADDER_SOAK_SECONDS says how long (60).
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use e2e::clients::{browser, ffmpeg_plays, have_gi, hlsdemux2_plays};
use e2e::have;
use e2e::server::{Options, Server};
use serde_json::json;

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn ffmpeg_hlsdemux2_and_hls_js_play_without_a_stall() {
    let tools = ["ffmpeg", "chromium", "node"];
    if !tools.iter().all(|t| have(t)) || !have_gi("Gst") {
        return;
    }
    let seconds = std::env::var("FISHLADDER_SOAK_SECONDS").map_or(60, |s| s.parse().unwrap());
    let server = Server::start_with(Options { arguments: &["--demo"], ..Options::default() }).await;
    let renditions = ["src", "v480", "v360", "aac", "opus"];
    server.live("demo", &renditions).await;
    let url = server.url("/live/demo/index.m3u8");
    let options = json!({ "seconds": seconds }).to_string();
    let arguments = [server.base(), "demo", &options];
    let limit = Duration::from_secs(u64::from(seconds) * 2 + 90);
    let (_, (pictures, _), report, playlists) = tokio::join!(
        ffmpeg_plays(&url, seconds),
        hlsdemux2_plays(&url, seconds),
        browser("play.mjs", &arguments, limit),
        server.follow_all("demo", &renditions, seconds as usize * 5),
    );
    println!("{report:#}");
    assert!(pictures >= seconds as usize * 30 - 15, "hlsdemux2 showed {pictures} pictures in {seconds} s");
    let seen = &report["first"];
    assert_eq!((seen["stalls"].as_u64(), &seen["errors"]), (Some(0), &json!([])), "{seen}");
    assert_eq!(seen["holes"], 0, "{seen}");
    for playlist in playlists {
        assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{}", playlist.text);
    }
    let status = server.status("demo").await.unwrap();
    assert_eq!(status["worker_restarts"], 0, "{status}");
    assert_eq!(status["source"]["engine_dropped"], 0, "{status}");
}
