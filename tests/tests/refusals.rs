//! What bad input gets: a typed refusal, and nothing lost elsewhere.
#![allow(clippy::unwrap_used)]

use std::process::Output;

use e2e::have;
use e2e::publishers::Ffmpeg;
use e2e::server::{Options, Server, run};
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
    let offer = server.request("POST", "/whip/new").header("content-type", "application/sdp");
    problem(offer.body("v=0\r\nnonsense").send().await.unwrap(), 400).await;
    let json = server.request("POST", "/whip/new").header("content-type", "application/json");
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

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn check_config_reports_all_faults_at_once_with_their_key_paths() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[hls]\npart_target = \"fast\"\nwindo = \"24s\"\n[http]\nlisten = 7\n").unwrap();
    let output = run(&["check-config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    for path in ["hls.part_target", "hls.windo", "http.listen"] {
        assert!(errors(&output).contains(path), "{path}: {}", errors(&output));
    }
    let good = e2e::root().join("configs/fishladder.toml");
    let output = run(&["check-config", good.to_str().unwrap()]);
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn the_server_refuses_to_listen_to_the_world_without_tokens() {
    for setting in ["http.listen=0.0.0.0:0", "http.listen=[::]:0", "whip.udp_listen=0.0.0.0:0"] {
        let output = run(&["serve", "--set", setting]);
        assert_eq!(output.status.code(), Some(1), "{setting}: {}", errors(&output));
        assert!(errors(&output).contains("token"), "{setting}: {}", errors(&output));
    }
}

#[tokio::test]
async fn with_tokens_only_who_has_them_publishes_and_administers() {
    let (publish, admin) = ("publish-0123456789abcdef", "admin-0123456789abcdef");
    let environment = [("FISHLADDER_PUBLISH_TOKEN", publish), ("FISHLADDER_ADMIN_TOKEN", admin)];
    let server = Server::start_with(Options { environment: &environment, ..Options::default() }).await;
    let put = |token: Option<&str>| {
        let request = server.request("PUT", "/api/v1/channels/stage").header("content-type", "application/json");
        let request = request.body(json!({ "source": { "whip": {} } }).to_string());
        token.iter().fold(request, |r, t| r.bearer_auth(t)).send()
    };
    for wrong in [None, Some("wrong-0123456789abcdef"), Some(publish)] {
        let response = put(wrong).await.unwrap();
        assert!(response.headers().contains_key("www-authenticate"));
        problem(response, 401).await;
    }
    assert_eq!(put(Some(admin)).await.unwrap().status(), 201);
    let offer = |token: &str| {
        let request = server.request("POST", "/whip/stage").header("content-type", "application/sdp");
        request.bearer_auth(token).body("v=0\r\nnonsense").send()
    };
    problem(offer(admin).await.unwrap(), 401).await;
    // The token opens the door; what is no SDP is still refused.
    problem(offer(publish).await.unwrap(), 400).await;
    for secret in [publish, admin] {
        assert!(!server.log().contains(secret), "a token is in the log");
    }
}

#[test]
fn doctor_finds_what_this_host_has() {
    let output = run(&["doctor"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains("x264enc"), "{}", errors(&output));
    let output = run(&["doctor", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(findings.as_array().unwrap().iter().all(|f| f["ok"] == true), "{findings}");
}
