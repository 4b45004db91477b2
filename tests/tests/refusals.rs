//! What bad input gets: a typed refusal, and nothing lost elsewhere.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

use e2e::clients::Ffmpeg;
use e2e::have;
use e2e::server::{Server, program};
use serde_json::{Value, json};

async fn problem(response: reqwest::Response, status: u16) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.status(), status);
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].is_string() && problem["type"].is_string(), "{problem}");
    problem
}

#[tokio::test]
async fn malformed_requests_are_refused_with_problem_details_and_disturb_no_one() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg::default().publish().await;
    server.put_sdp("canary", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("canary", &["src"]).await;
    let before = server.follow("canary", "src", 5).await;

    let bad_sdp = json!({ "source": { "rtp": { "sdp": "v=0\r\nm=video x RTP/AVP 96\r\n" } } });
    let refused = problem(server.put("bad", &bad_sdp).await, 422).await;
    assert!(refused["detail"].as_str().unwrap().contains("line 2"), "{refused}");
    // A channel that runs is not touched by a request that cannot work.
    problem(server.put("canary", &bad_sdp).await, 422).await;
    problem(server.put("bad", &json!({ "source": { "rtsp": { "url": "http://x/" } } })).await, 422).await;
    let unknown = json!({ "source": { "whip": {} }, "ladder": "nonesuch" });
    problem(server.put("bad", &unknown).await, 422).await;
    assert!(server.put("bad", &json!({ "sauce": 1 })).await.status().is_client_error());
    assert!(server.put("b%2Fad", &json!({ "source": { "whip": {} } })).await.status().is_client_error());
    problem(server.get("/live/nobody/index.m3u8").await, 404).await;
    problem(server.get("/api/v1/channels/nobody").await, 404).await;
    for query in ["?_HLS_part=1", "?_HLS_msn=x", "?_HLS_msn=-1", "?_HLS_msn=99999999999"] {
        let response = server.get(&format!("/live/canary/src/index.m3u8{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
    }
    let offer = reqwest::Client::new().post(server.url("/whip/new")).header("content-type", "application/sdp");
    problem(offer.body("v=0\r\nnonsense").send().await.unwrap(), 400).await;
    let json = reqwest::Client::new().post(server.url("/whip/new")).header("content-type", "application/json");
    problem(json.body("{}").send().await.unwrap(), 415).await;

    let after = server.follow("canary", "src", 5).await;
    assert_eq!((after.discontinuities(), after.gaps()), (0, 0), "{}", after.text);
    assert_eq!(after.media_sequence, before.media_sequence);
}

/// Packets that are no RTP, truncated, or carry refused NAL units, from the publisher's own address and from others.
#[tokio::test]
async fn junk_on_the_media_ports_disturbs_nothing() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start(&[]).await;
    let publisher = Ffmpeg::default().publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src", "aac"]).await;
    let ports: Vec<u16> =
        publisher.sdp.lines().filter_map(|l| l.strip_prefix("m=")?.split(' ').nth(1)?.parse().ok()).collect();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for n in 0..5_000usize {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut packet: Vec<u8> = seed.to_be_bytes().iter().cycle().take(n % 200).copied().collect();
        if n % 2 == 0 && packet.len() > 12 {
            packet[..2].copy_from_slice(&[0x80, 96]);
            packet[12] = [27, 28, 24, 5][n / 2 % 4];
        }
        socket.send_to(&packet, ("127.0.0.1", ports[n % ports.len()])).unwrap();
    }
    let playlist = server.follow("show", "src", 15).await;
    assert_eq!((playlist.discontinuities(), playlist.gaps()), (0, 0), "{}", playlist.text);
}

fn fishladder(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(program()).args(arguments).stdin(Stdio::null());
    command.env_remove("FISHLADDER_PUBLISH_TOKEN").env_remove("FISHLADDER_ADMIN_TOKEN");
    command.envs(environment.iter().copied()).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn check_config_reports_all_faults_at_once_with_their_key_paths() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[hls]\npart_target = \"fast\"\nwindo = \"24s\"\n[http]\nlisten = 7\n").unwrap();
    let output = fishladder(&["check-config", file.to_str().unwrap()], &[]);
    assert!(!output.status.success());
    for path in ["hls.part_target", "hls.windo", "http.listen"] {
        assert!(errors(&output).contains(path), "{path}: {}", errors(&output));
    }
    let good = e2e::root().join("configs/fishladder.toml");
    let output = fishladder(&["check-config", good.to_str().unwrap()], &[]);
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn the_server_refuses_to_listen_to_the_world_without_tokens() {
    let output = fishladder(&["serve", "--set", "http.listen=0.0.0.0:0"], &[]);
    assert!(!output.status.success() && output.status.code() != Some(124), "{}", errors(&output));
    assert!(errors(&output).contains("token"), "{}", errors(&output));
}

#[test]
fn doctor_finds_what_this_host_has() {
    let output = fishladder(&["doctor"], &[]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains("x264enc"), "{}", errors(&output));
}
