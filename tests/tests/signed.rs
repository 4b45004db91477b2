//! Viewers by signed paths: with a key configured nothing else is served, and ordinary players follow the relative URIs.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use e2e::clients::{browser, ffmpeg_plays, ffprobe_refused};
use e2e::publishers::Ffmpeg;
use e2e::server::{Options, Server, run, signal};
use e2e::{have, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ADMIN: &str = "admin-0123456789abcdef";
const OLD: &str = "old-key-0123456789abcdef0123456789abcdef";
const NEW: &str = "new-key-0123456789abcdef0123456789abcdef";

fn key_file(folder: &Path, name: &str, key: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, key).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn start(key: &str, previous: Option<&str>) -> Server {
    let mut settings = vec![format!("viewers.key_file={key}")];
    settings.extend(previous.map(|file| format!("viewers.previous_key_file={file}")));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let environment = [("FISHLADDER_ADMIN_TOKEN", ADMIN)];
    Server::start_with(Options { settings: &settings, environment: &environment, ..Options::default() }).await
}

/// What the command line signs: a path on the server.
fn sign(key: &str, channel: &str, life: &str) -> String {
    let setting = format!("viewers.key_file={key}");
    let output = run(&["sign", "--channel", channel, "--expires", life, "--set", &setting]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes the channel `show` as an operator.
async fn put(server: &Server, sdp: &str) {
    let body = json!({ "source": { "rtp": { "sdp": sdp } }, "ladder": "passthrough" }).to_string();
    let put = server.request("PUT", "/api/v1/channels/show").bearer_auth(ADMIN);
    assert_eq!(put.header("content-type", "application/json").body(body).send().await.unwrap().status(), 201);
    server.state("show", "live").await;
}

/// Waits until there is something to play at this path.
async fn listed(server: &Server, path: &str) {
    until("the multivariant playlist", || async { server.get(path).await.status().is_success().then_some(()) }).await;
}

async fn refused(server: &Server, path: &str) -> String {
    let response = server.get(path).await;
    assert_eq!(response.status(), 403, "{path}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let problem: Value = response.json().await.unwrap();
    problem["type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn ffmpeg_plays_a_signed_path_and_nothing_else_is_served() {
    if !have("ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), "key", OLD);
    let server = start(&key, None).await;
    let publisher = Ffmpeg::default().publish().await;
    put(&server, &publisher.sdp).await;

    let ask = server.request("POST", "/api/v1/channels/show/sign").body(r#"{"expires":"1h"}"#);
    assert_eq!(ask.try_clone().unwrap().send().await.unwrap().status(), 401);
    let signed: Value = ask.bearer_auth(ADMIN).send().await.unwrap().json().await.unwrap();
    let by_api = signed["playlist"].as_str().unwrap().to_owned();
    let by_command = sign(&key, "show", "1h");
    let token = signed["token"].as_str().unwrap();

    // The harness's viewer checks playlists and fetches parts by their relative URIs; so does ffmpeg.
    let channel = format!("~{token}/show");
    listed(&server, &by_api).await;
    server.follow(&channel, "src", 10).await;
    ffmpeg_plays(&server.url(&by_command), 4).await;

    let playlist = server.playlist(&channel, "src", "").await;
    let segment = playlist.newest().unwrap();
    for object in
        ["index.m3u8", "src/index.m3u8", &format!("src/{}.m4s", segment.msn), &format!("src/{}", segment.init)]
    {
        assert_eq!(server.get(&format!("/live/{channel}/{object}")).await.status(), 200, "{object}");
        assert_eq!(refused(&server, &format!("/live/show/{object}")).await, "/problems/not-signed");
        let other = sign(&key, "other", "1h").replace("/other/index.m3u8", &format!("/show/{object}"));
        assert_eq!(refused(&server, &other).await, "/problems/bad-signature");
        // One bit of the expiry, the last one of the MAC.
        for at in [17, 59] {
            let letter = if &token[at..=at] == "A" { "B" } else { "A" };
            let forged = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            assert_eq!(refused(&server, &format!("/live/~{forged}/show/{object}")).await, "/problems/bad-signature");
        }
    }
    let errors = ffprobe_refused(&server.url("/live/show/index.m3u8")).await;
    assert!(errors.contains("403"), "{errors}");

    let brief = sign(&key, "show", "1s");
    until("the token to expire", || async {
        let response = server.get(&brief).await;
        (response.status() == 403).then_some(())
    })
    .await;
    assert_eq!(refused(&server, &brief).await, "/problems/signature-expired");
    for secret in [OLD, token] {
        assert!(!server.log().contains(secret), "a secret is in the log");
    }
}

/// The watch page plays from a viewer's link, and signs for an operator; so does the status page.
#[tokio::test]
async fn the_pages_play_signed_channels() {
    let needed = ["ffmpeg", "chromium", "node", "tests/browser/node_modules/playwright-core/package.json"];
    if !needed.into_iter().all(have) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), "key", OLD);
    let server = start(&key, None).await;
    let publisher = Ffmpeg::default().publish().await;
    put(&server, &publisher.sdp).await;
    let path = sign(&key, "show", "1h");
    listed(&server, &path).await;
    let token = path.split(['~', '/']).nth(3).unwrap();
    let report = browser("signed.mjs", &[server.base(), "show", token, ADMIN], Duration::from_secs(180)).await;
    assert!(report["refused"].as_str().unwrap().contains("not good for this channel"), "{report}");
    assert_eq!((&report["dialogs"], &report["preview"]), (&json!(0), &json!(true)), "{report}");
    assert_eq!(report["viewer"], server.url(&path), "{report}");
    let copied = report["copied"].as_str().unwrap();
    assert!(copied.contains("/live/~") && report["said"] == "Copied, good for 12 h", "{report}");
    assert!(server.get(copied.strip_prefix(server.base()).unwrap()).await.status().is_success(), "{report}");
    let operator = report["operator"].as_str().unwrap();
    assert!(operator.contains("/live/~") && operator != server.url(&path), "{report}");
}

/// A new key becomes the current one while the old one's tokens stay good, until that key is dropped. The server runs on.
#[tokio::test]
async fn keys_are_exchanged_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (current, next) = (key_file(folder.path(), "viewer.key", OLD), key_file(folder.path(), "next", NEW));
    let previous = folder.path().join("viewer.previous.key");
    let access = |key: &str| sign(key, "show", "1h").replace("index.m3u8", "access");
    let (before, after) = (access(&current), access(&next));

    let server = start(&current, previous.to_str()).await;
    assert_eq!(server.get(&before).await.status(), 204);
    assert_eq!(refused(&server, &after).await, "/problems/bad-signature");
    // Nobody tells the server.
    std::fs::rename(&current, &previous).unwrap();
    std::fs::rename(&next, &current).unwrap();
    until("the new key", || async { (server.get(&after).await.status() == 204).then_some(()) }).await;
    assert_eq!(server.get(&before).await.status(), 204);
    let signed = sign(&current, "show", "2h").replace("index.m3u8", "access");
    assert_eq!(server.get(&signed).await.status(), 204);
    // The old one is dropped, and the server is told.
    std::fs::remove_file(&previous).unwrap();
    signal(server.pid(), Signal::SIGHUP);
    until("the old key's end", || async { (server.get(&before).await.status() == 403).then_some(()) }).await;
    assert_eq!(refused(&server, &before).await, "/problems/bad-signature");
    assert_eq!(server.get(&after).await.status(), 204);
    let metrics = server.request("GET", "/metrics").bearer_auth(ADMIN).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("fishladder_viewer_key_reads_total{outcome=\"exchanged\"} 2"), "{metrics}");
}

#[test]
fn signing_needs_a_key_and_a_sensible_time() {
    let folder = tempfile::tempdir().unwrap();
    let setting = format!("viewers.key_file={}", key_file(folder.path(), "key", OLD));
    for (arguments, said) in [
        (vec!["--channel", "show", "--expires", "1h"], "viewers.key_file"),
        (vec!["--channel", "show", "--expires", "1000h", "--set", &setting], "2592000s"),
        (vec!["--channel", "show", "--expires", "60", "--set", &setting], "unit"),
        (vec!["--channel", "a/b", "--expires", "1h", "--set", &setting], "channel"),
        (vec!["--channel", "show", "--expires", "1h", "--set", "viewers.key_file=/nonexistent"], "/nonexistent"),
    ] {
        let output = run(&[&["sign"], arguments.as_slice()].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(said), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty() && !errors.contains(OLD), "{errors}");
    }
}
