//! A channel from its PUT to its DELETE, and the server's own end.
#![allow(clippy::unwrap_used)]

use e2e::publishers::Ffmpeg;
use e2e::server::{Options, Server};
use e2e::{have, until};
use serde_json::json;

#[tokio::test]
async fn a_deleted_channel_ends_its_playlists_and_frees_its_ports() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg::default().publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src", "aac"]).await;
    let before = server.follow("show", "src", 10).await;
    // Two channels cannot listen on the same ports.
    let second = json!({ "source": { "rtp": { "sdp": publisher.sdp } }, "ladder": "passthrough" });
    assert_eq!(server.put("second", &second).await.status(), 409);

    let (msn, part) = before.next();
    let held = format!("/live/show/src/index.m3u8?_HLS_msn={}&_HLS_part={part}", msn + 1);
    let held = {
        let viewer = server.viewer();
        tokio::spawn(async move { viewer.text(&held).await })
    };
    let deleted = server.request("DELETE", "/api/v1/channels/show").send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert!(held.await.unwrap().contains("#EXT-X-ENDLIST"), "A46: a held request gets the end at once");
    let last = server.playlist("show", "src", "").await;
    assert!(last.ended && last.hint.is_none(), "A46\n{}", last.text);
    let media = format!("/live/show/src/{}.m4s", last.segments[0].msn);
    assert_eq!(server.get(&media).await.status(), 200, "A47");

    let created = until("the ports to be free", || async {
        let response = server.put("second", &second).await;
        response.status().is_success().then_some(response.status())
    })
    .await;
    assert_eq!(created, 201);
    server.live("second", &["src", "aac"]).await;
}

#[tokio::test]
async fn sigterm_ends_the_stream_for_its_viewers_and_leaves_no_process() {
    if !have("ffmpeg") {
        return;
    }
    let mut server = Server::start(&[]).await;
    let publisher = Ffmpeg::default().publish().await;
    let ladder = json!({ "rungs": [{ "height": 180, "bitrate": 200_000, "preset": "ultrafast" }] });
    server.put_sdp("show", &publisher.sdp, Some(ladder)).await;
    server.live("show", &["src", "v180", "aac"]).await;
    let (msn, _) = server.follow("show", "src", 5).await.next();
    let held = {
        let (viewer, path) = (server.viewer(), format!("/live/show/src/index.m3u8?_HLS_msn={}", msn + 1));
        tokio::spawn(async move { viewer.text(&path).await })
    };
    until("the request to be held", || async {
        server.text("/metrics").await.lines().any(|l| l == "fishladder_http_held_requests 1").then_some(())
    })
    .await;
    let workers = server.children("worker");
    assert!(!workers.is_empty());
    let status = server.stop().await;
    assert!(status.success(), "{status}: {}", server.log());
    assert!(held.await.unwrap().contains("#EXT-X-ENDLIST"), "A46");
    for pid in workers {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "worker {pid} outlives its server");
    }
}

/// A channel in the configuration is there from the start and needs no API.
#[tokio::test]
async fn a_configured_channel_waits_for_its_publisher() {
    let server = Server::start_with(Options {
        settings: &["channels.stage.source.whip={}", "channels.stage.ladder=passthrough"],
        ..Options::default()
    })
    .await;
    let status = server.state("stage", "waiting").await;
    assert_eq!(status["ladder"], "passthrough", "{status}");
    let response = server.get("/live/stage/index.m3u8").await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert!(server.text("/metrics").await.contains("fishladder_channel_state{channel=\"stage\",state=\"waiting\"} 1"));
}
