//! RTSP cameras pulled: GStreamer's RTSP server as the camera.
#![allow(clippy::unwrap_used)]

use e2e::clients::{check_packets, ffmpeg_plays, ffprobe_packets, have_gi};
use e2e::publishers::{CAMERA_PASSWORD, camera, camera_on};
use e2e::server::Server;
use e2e::{have, until};
use serde_json::json;

#[tokio::test]
async fn a_camera_behind_digest_authentication_plays_and_is_connected_anew() {
    if !have("ffmpeg") || !have_gi("GstRtspServer") {
        return;
    }
    let server = Server::start(&[]).await;
    let mut first = camera();
    server.put_source("door", json!({ "rtsp": { "url": first.url } }), Some(json!("passthrough"))).await;
    server.live("door", &["src", "aac"]).await;
    let before = server.follow_all("door", &["src", "aac"], 20).await;
    for (rendition, frame) in [("src", 40_000), ("aac", 21_333)] {
        let url = server.url(&format!("/live/door/{rendition}/index.m3u8"));
        check_packets(rendition, &ffprobe_packets(&url, 4).await, frame);
    }
    ffmpeg_plays(&server.url("/live/door/index.m3u8"), 4).await;
    let status = server.status("door").await.unwrap();
    assert!(!status.to_string().contains(CAMERA_PASSWORD), "{status}");
    assert!(!server.log().contains(CAMERA_PASSWORD), "the password is in the log");

    first.client.kill();
    let _second = camera_on(first.port);
    let after = until("the camera's return", || async {
        let playlist = server.playlist("door", "src", "").await;
        (playlist.discontinuities() == 1).then_some(playlist)
    })
    .await;
    after.check_after(&before[0]);
    server.follow_all("door", &["src", "aac"], 10).await;
}

#[tokio::test]
async fn a_camera_that_refuses_is_told_to_the_operator() {
    if !have_gi("GstRtspServer") {
        return;
    }
    let server = Server::start(&[]).await;
    let camera = camera();
    let url = camera.url.replace(CAMERA_PASSWORD, "wrong-password");
    server.put_source("door", json!({ "rtsp": { "url": url } }), Some(json!("passthrough"))).await;
    let messages = until("a message about the camera", || async {
        let messages = server.status("door").await?["messages"].to_string();
        messages.contains("401").then_some(messages)
    })
    .await;
    assert!(!messages.contains("wrong-password"), "{messages}");
    assert!(!server.log().contains("wrong-password"), "the password is in the log");
}
