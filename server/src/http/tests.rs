//! Tests of whole requests against fixed channels: status, headers and bodies, without a socket.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::Full;
use media::ChannelName;
use tokio::sync::watch;

use super::*;
use crate::channel::*;
use crate::config::Secret;
use crate::supervisor::{ChannelRequest, LadderChoice, Published, Put, Refusal, SourceRequest};

/// Channels that are simply there, and a record of what was asked of them.
#[derive(Default)]
pub struct Fixed {
    pub channels: Vec<Arc<Channel>>,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Fixed {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
    pub fn channel(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.iter().find(|c| c.name.as_str() == name).cloned()
    }
    pub fn status(&self) -> Vec<ChannelStatus> {
        self.channels.iter().map(|c| status(c.name.as_str())).collect()
    }
    pub fn put(&self, name: &ChannelName, request: ChannelRequest) -> Result<Put, Refusal> {
        let ladder = match request.ladder {
            None => "default".to_owned(),
            Some(LadderChoice::Named(name)) => name,
            Some(LadderChoice::Inline(l)) => format!("{} rungs", l.rungs.len()),
        };
        let source = match request.source {
            SourceRequest::Rtp { .. } => "rtp",
            SourceRequest::Rtsp { .. } => "rtsp",
            SourceRequest::Whip {} => "whip",
        };
        self.note(format!("put {name} {source} {ladder}"));
        Ok(if self.channel(name.as_str()).is_some() { Put::Unchanged } else { Put::Created })
    }
    pub fn delete(&self, name: &ChannelName) -> Result<(), Refusal> {
        self.note(format!("delete {name}"));
        self.channel(name.as_str()).map(|_| ()).ok_or_else(|| refusal(404, "not-found"))
    }
    pub fn whip_post(&self, name: &ChannelName, offer: &str) -> Result<Published, Refusal> {
        self.note(format!("post {name} {offer}"));
        if name.as_str() == "busy" {
            return Err(Refusal {
                retry_after: Some(std::time::Duration::from_secs(3)),
                ..refusal(409, "channel-busy")
            });
        }
        Ok(Published { answer: "v=0\r\nanswer".to_owned(), etag: "e1".to_owned(), session: "5e55".to_owned() })
    }
    pub fn whip_patch(&self, _: &ChannelName, session: &str, tag: Option<&str>, body: &str) -> Result<(), Refusal> {
        self.note(format!("patch {session} {tag:?} {body}"));
        match tag {
            None => Err(refusal(428, "if-match-needed")),
            Some("e1") => Ok(()),
            Some(_) => Err(refusal(412, "stale")),
        }
    }
    pub fn whip_delete(&self, _: &ChannelName, session: &str) -> Result<(), Refusal> {
        self.note(format!("end {session}"));
        if session == "5e55" { Ok(()) } else { Err(refusal(404, "not-found")) }
    }
}

fn refusal(status: u16, kind: &'static str) -> Refusal {
    Refusal { status, kind, detail: "because".to_owned(), retry_after: None }
}

pub fn status(name: &str) -> ChannelStatus {
    ChannelStatus {
        name: name.parse().unwrap(),
        state: ChannelState::Live,
        since: "2026-01-01T00:00:00Z".to_owned(),
        source: Some(SourceStatus {
            kind: "rtp",
            detail: "127.0.0.1:5004".to_owned(),
            remote: None,
            video: None,
            audio: None,
            packets: 1000,
            lost: 10,
            repaired: 0,
            refused: 0,
            engine_dropped: 0,
        }),
        ladder: "standard".to_owned(),
        renditions: Vec::new(),
        viewers: 3,
        playlist: format!("/live/{name}/index.m3u8"),
        messages: Vec::new(),
        end_reason: None,
        sessions: 1,
        worker_restarts: 2,
        encode_lag_ms: Some(83),
    }
}

/// A channel with these renditions; the sender changes them later.
pub fn channel(name: &str, set: RenditionSet) -> (Arc<Channel>, watch::Sender<Arc<RenditionSet>>) {
    let (sender, renditions) = watch::channel(Arc::new(set));
    (Arc::new(Channel { name: name.parse().unwrap(), renditions, viewers: Viewers::default() }), sender)
}

pub struct Rig {
    pub app: Arc<App>,
    pub metrics: Arc<Metrics>,
    pub asked: Arc<Mutex<Vec<String>>>,
}

pub fn rig(channels: Vec<Arc<Channel>>, change: impl FnOnce(&mut Config)) -> Rig {
    let mut config = Config::default();
    change(&mut config);
    let metrics = Arc::new(Metrics::default());
    let fixed = Fixed { channels, ..Fixed::default() };
    let asked = fixed.asked.clone();
    let app = App::with_rooms(Rooms::Fixed(fixed), Arc::new(config), metrics.clone());
    Rig { app: Arc::new(app), metrics, asked }
}

impl Rig {
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(n, _)| *n == "host") {
            request = request.header("host", "localhost:8080");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        self.app.handle(request, SocketAddr::from(([127, 0, 0, 1], 50_000))).await
    }

    pub async fn get(&self, path: &str) -> Response<Body> {
        self.ask("GET", path, &[], "").await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

pub fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

pub fn json(response: &Response<Body>) -> serde_json::Value {
    serde_json::from_slice(&response.body().to_vec()).unwrap()
}

fn demo() -> (Rig, watch::Sender<Arc<RenditionSet>>) {
    let (demo, sender) = channel("demo", RenditionSet::default());
    (rig(vec![demo], |_| {}), sender)
}

const EVERYWHERE: [&str; 13] = [
    "/",
    "/watch/demo",
    "/publish/demo",
    "/assets/x.js",
    "/live/demo/index.m3u8",
    "/live/demo/v1/index.m3u8",
    "/live/demo/v1/1.m4s",
    "/whip/demo",
    "/whip/demo/5e55",
    "/api/v1/channels",
    "/api/v1/channels/demo",
    "/metrics",
    "/healthz",
];

#[tokio::test]
async fn a_wrong_method_is_405_with_allow() {
    let (rig, _keep) = demo();
    for path in EVERYWHERE {
        for method in ["TRACE", "BREW", "PROPFIND", "CONNECT"] {
            let r = rig.ask(method, path, &[], "").await;
            assert_eq!(r.status(), 405, "{method} {path}");
            assert!(header(&r, "allow").contains("GET, HEAD"), "{path}");
            assert_eq!(header(&r, "content-type"), "application/problem+json");
        }
    }
    assert_eq!(header(&rig.ask("POST", "/live/demo/index.m3u8", &[], "").await, "allow"), "GET, HEAD, OPTIONS");
    assert_eq!(header(&rig.ask("POST", "/api/v1/channels/demo", &[], "").await, "allow"), "DELETE, GET, HEAD, PUT");
}

#[tokio::test]
async fn a54_head_is_get_without_its_body() {
    let (rig, _keep) = demo();
    for path in EVERYWHERE.into_iter().chain(["/nothing", "/live/a%20b/index.m3u8", "/readyz"]) {
        let (get, head) = (rig.get(path).await, rig.ask("HEAD", path, &[], "").await);
        assert_eq!(get.status(), head.status(), "{path}");
        assert_eq!(head.body().len(), 0);
        let mut headers = head.headers().clone();
        // The counters have moved on between the two.
        let length = headers.remove(CONTENT_LENGTH);
        if path != "/metrics" && get.status() != 204 {
            assert_eq!(length.unwrap().to_str().unwrap(), get.body().len().to_string(), "{path}");
        }
        assert_eq!(&headers, get.headers(), "{path}");
    }
}

#[tokio::test]
async fn a54_every_error_is_problem_details_with_cors_where_viewers_ask() {
    let (rig, _keep) = demo();
    for (path, status, kind) in [
        ("/live/none/index.m3u8", 404, "not-found"),
        ("/live/demo/index.m3u8", 503, "not-ready"),
        ("/live/demo/v1/index.m3u8", 404, "not-found"),
        ("/live/demo/v1/index.m3u8?_HLS_msn=x", 404, "not-found"),
        ("/live/a%20b/index.m3u8", 400, "bad-name"),
        ("/live/demo/v1/x.mp4", 404, "not-found"),
    ] {
        let r = rig.get(path).await;
        assert_eq!(r.status(), status, "{path}");
        assert_eq!(json(&r)["type"], format!("/problems/{kind}"), "{path}");
        assert_eq!(json(&r)["status"], status);
        assert_eq!(header(&r, "access-control-allow-origin"), "*");
        assert!(header(&r, "access-control-expose-headers").contains("Content-Range"));
        assert_eq!(header(&r, "x-content-type-options"), "nosniff");
        let age = if status == 400 || path.ends_with("x.mp4") { "no-store" } else { "public, max-age=1" };
        assert_eq!(header(&r, "cache-control"), age, "{path}");
    }
    assert_eq!(header(&rig.get("/live/demo/index.m3u8").await, "retry-after"), "1");
    for path in ["/api/v1/channels/none", "/nothing", "/assets/none.js", "/api/v1/channels/a+b"] {
        let r = rig.get(path).await;
        assert!(r.status().is_client_error(), "{path}");
        assert_eq!(header(&r, "content-type"), "application/problem+json");
        assert_eq!(header(&r, "access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn preflights_need_no_token_and_name_what_is_allowed() {
    let rig = rig(Vec::new(), |c| c.auth.publish_token = Some(Secret("token-token-token".to_owned())));
    let r = rig.ask("OPTIONS", "/live/x/v1/1.m4s", &[("origin", "http://a")], "").await;
    assert_eq!(r.status(), 204);
    assert!(header(&r, "access-control-allow-headers").contains("Range"));
    for path in ["/whip/x", "/whip/x/5e55"] {
        let r = rig.ask("OPTIONS", path, &[("origin", "http://a")], "").await;
        assert_eq!(r.status(), 200);
        assert_eq!(header(&r, "accept-post"), "application/sdp");
        assert!(header(&r, "access-control-allow-methods").contains("PATCH"));
        assert!(header(&r, "access-control-allow-headers").contains("Authorization"));
        assert!(header(&r, "access-control-expose-headers").contains("Location"));
        let r = rig.get(path).await;
        assert_eq!((r.status().as_u16(), r.body().len()), (204, 0));
    }
    let r = rig.ask("POST", "/whip/x", &[("content-type", "application/sdp")], "v=0").await;
    assert_eq!(r.status(), 401);
    assert!(header(&r, "www-authenticate").starts_with("Bearer"));
    assert_eq!(header(&r, "access-control-allow-origin"), "*");
    assert!(rig.asked().is_empty());
    let token = [("content-type", "application/sdp"), ("authorization", "Bearer token-token-token")];
    assert_eq!(rig.ask("POST", "/whip/x", &token, "v=0").await.status(), 201);
}

#[tokio::test]
async fn whip_publishes_trickles_and_ends() {
    let (rig, _keep) = demo();
    let sdp = [("content-type", "Application/SDP; charset=utf-8")];
    let r = rig.ask("POST", "/whip/cam", &sdp, "v=0 offer").await;
    assert_eq!(r.status(), 201);
    assert_eq!(header(&r, "content-type"), "application/sdp");
    assert_eq!(header(&r, "location"), "/whip/cam/5e55");
    assert_eq!(header(&r, "etag"), "\"e1\"");
    assert_eq!(header(&r, "accept-patch"), "application/trickle-ice-sdpfrag");
    assert_eq!(r.body().to_vec(), b"v=0\r\nanswer");
    assert_eq!(rig.asked(), ["post cam v=0 offer"]);

    let fragment = ("content-type", "application/trickle-ice-sdpfrag");
    let r = rig.ask("PATCH", "/whip/cam/5e55", &[fragment, ("if-match", "\"e1\"")], "a=end-of-candidates").await;
    assert_eq!((r.status().as_u16(), r.body().len(), header(&r, "etag")), (204, 0, ""));
    assert_eq!(rig.asked(), ["patch 5e55 Some(\"e1\") a=end-of-candidates"]);
    assert_eq!(rig.ask("PATCH", "/whip/cam/5e55", &[fragment], "").await.status(), 428);
    assert_eq!(rig.ask("PATCH", "/whip/cam/5e55", &[fragment, ("if-match", "\"e0\"")], "").await.status(), 412);
    assert_eq!(rig.ask("PATCH", "/whip/cam/5e55", &[("content-type", "application/json")], "{}").await.status(), 415);

    assert_eq!(rig.ask("DELETE", "/whip/cam/5e55", &[("if-match", "\"other\"")], "").await.status(), 200);
    assert_eq!(rig.ask("DELETE", "/whip/cam/0", &[], "").await.status(), 404);
    rig.asked();

    for (path, headers, body, status) in [
        ("/whip/cam", &[("content-type", "text/plain")][..], "v=0".to_owned(), 415),
        ("/whip/cam", &[], "v=0".to_owned(), 415),
        ("/whip/cam", &sdp, "x".repeat(64 * 1024 + 1), 413),
        ("/whip/a%2fb", &sdp, "v=0".to_owned(), 400),
        ("/whip/..", &sdp, "v=0".to_owned(), 400),
        ("/whip/cam", &[sdp[0], ("content-encoding", "gzip")], "v=0".to_owned(), 415),
        ("/whip/cam", &[sdp[0], ("content-length", "70000")], String::new(), 413),
    ] {
        let r = rig.ask("POST", path, headers, &body).await;
        assert_eq!(r.status(), status, "{path} {headers:?}");
        assert_eq!(header(&r, "access-control-allow-origin"), "*");
        assert_eq!(header(&r, "content-type"), "application/problem+json");
    }
    assert!(rig.asked().is_empty());
    let r = rig.ask("POST", "/whip/busy", &sdp, "v=0").await;
    assert_eq!((r.status().as_u16(), header(&r, "retry-after")), (409, "3"));

    rig.app.drain();
    let r = rig.ask("POST", "/whip/cam", &sdp, "v=0").await;
    assert_eq!(r.status(), 503);
    assert_ne!(header(&r, "retry-after"), "");
    assert_eq!(rig.get("/readyz").await.status(), 503);
    assert_eq!(rig.get("/healthz").await.status(), 200);
}

/// Ends never.
struct Stalled;

impl HttpBody for Stalled {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_408() {
    let (rig, _keep) = demo();
    for (method, path) in [("POST", "/whip/x"), ("PATCH", "/whip/x/5e55"), ("PUT", "/api/v1/channels/x")] {
        let start = Instant::now();
        let content_type = if method == "PATCH" { "application/trickle-ice-sdpfrag" } else { "application/sdp" };
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", content_type).body(Stalled).unwrap();
        let r = rig.app.handle(request, SocketAddr::from(([127, 0, 0, 1], 1))).await;
        assert_eq!((r.status().as_u16(), start.elapsed().as_secs()), (408, 20), "{method}");
        assert_eq!(json(&r)["type"], "/problems/body-timeout");
    }
    assert!(rig.asked().is_empty());
}

#[tokio::test]
async fn the_api_lists_puts_and_deletes() {
    let (rig, _keep) = demo();
    let r = rig.get("/api/v1/channels").await;
    assert_eq!(header(&r, "cache-control"), "no-store");
    assert_eq!(json(&r)["channels"][0]["name"], "demo");
    assert_eq!(json(&rig.get("/api/v1/channels/demo").await)["viewers"], 3);
    assert_eq!(rig.get("/api/v1/channels/none").await.status(), 404);

    let r = rig.ask("PUT", "/api/v1/channels/new", &[], r#"{"source":{"whip":{}},"ladder":"passthrough"}"#).await;
    assert_eq!((r.status().as_u16(), header(&r, "location")), (201, "/api/v1/channels/new"));
    let r = rig.ask("PUT", "/api/v1/channels/demo", &[], r#"{"source":{"rtp":{"sdp":"v=0"}}}"#).await;
    assert_eq!((r.status().as_u16(), header(&r, "location")), (200, ""));
    assert_eq!(rig.asked(), ["put new whip passthrough", "put demo rtp default"]);
    assert_eq!(rig.ask("DELETE", "/api/v1/channels/demo", &[], "").await.status(), 204);
    assert_eq!(rig.ask("DELETE", "/api/v1/channels/none", &[], "").await.status(), 404);
    rig.asked();

    for (body, status, path) in [
        ("", 400, ""),
        ("{", 400, ""),
        ("[]", 422, ""),
        ("{}", 422, "source"),
        (r#"{"source":{"rtp":{}}}"#, 422, "source.rtp.sdp"),
        (r#"{"source":{"rtsp":{"url":"file:///etc/passwd"}}}"#, 422, "source.rtsp.url"),
        (r#"{"source":{"whip":{}},"lader":"full"}"#, 422, "lader"),
        (r#"{"source":{"whip":{}},"ladder":"none"}"#, 422, "ladder"),
    ] {
        let r = rig.ask("PUT", "/api/v1/channels/x", &[], body).await;
        assert_eq!(r.status(), status, "{body}");
        assert_eq!(header(&r, "cache-control"), "no-store");
        if status == 422 {
            assert_eq!(json(&r)["faults"][0]["path"], path, "{body}");
        }
    }
    let huge = format!(r#"{{"source":{{"rtp":{{"sdp":"{}"}}}}}}"#, "x".repeat(256 * 1024));
    assert_eq!(rig.ask("PUT", "/api/v1/channels/x", &[], &huge).await.status(), 413);
    let deep = "[".repeat(100_000);
    assert_eq!(rig.ask("PUT", "/api/v1/channels/x", &[], &deep).await.status(), 400);
    assert_eq!(rig.ask("PUT", "/api/v1/channels/a%2e%2e", &[], "{}").await.status(), 400);
    assert!(rig.asked().is_empty());
}

#[tokio::test]
async fn pages_forbid_foreign_code() {
    let (rig, _keep) = demo();
    for path in ["/", "/watch/demo", "/publish/demo"] {
        let r = rig.get(path).await;
        let policy = header(&r, "content-security-policy");
        for part in
            ["default-src 'self'", "frame-ancestors 'none'", "media-src 'self' blob:", "worker-src 'self' blob:"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!(header(&r, "referrer-policy"), "no-referrer");
        assert_eq!(header(&r, "x-content-type-options"), "nosniff");
        assert!(header(&r, "content-type").starts_with("text/html"));
        assert_eq!(header(&r, "server"), "");
    }
}

#[tokio::test]
async fn metrics_count_requests_by_class() {
    let (rig, _keep) = demo();
    rig.get("/live/demo/index.m3u8").await;
    rig.get("/nothing").await;
    let r = rig.get("/metrics").await;
    let text = String::from_utf8(r.body().to_vec()).unwrap();
    assert!(header(&r, "content-type").starts_with("application/openmetrics-text"));
    assert!(text.contains("fishladder_http_requests_total{class=\"multivariant\",status=\"503\"} 1"), "{text}");
    assert!(text.contains("fishladder_http_requests_total{class=\"unknown\",status=\"404\"} 1"), "{text}");
    assert!(text.contains("fishladder_channel_viewers{channel=\"demo\"} 3"), "{text}");
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let (rig, _keep) = demo();
    for headers in [&[("host", "a"), ("host", "b")][..], &[("transfer-encoding", "gzip, chunked")]] {
        let r = rig.ask("GET", "/healthz", headers, "").await;
        assert_eq!((r.status().as_u16(), header(&r, "connection")), (400, "close"), "{headers:?}");
    }
}

/// The server's keys for viewers, and a token for `demo` that is good for an hour.
fn signing() -> (Rig, watch::Sender<Arc<RenditionSet>>, String) {
    let (demo, sender) = channel("demo", RenditionSet::default());
    let viewers = crate::config::Viewers::of(Secret("k".repeat(32)), None);
    let rig = rig(vec![demo], |c| c.viewers = viewers);
    let token = rig.app.keys.as_ref().unwrap().keys().sign(&"demo".parse().unwrap(), SystemTime::now() + HOUR);
    (rig, sender, token)
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

#[tokio::test]
async fn with_a_key_only_signed_paths_may_be_watched() {
    let (rig, _keep, token) = signing();
    let expired = rig.app.keys.as_ref().unwrap().keys().sign(&"demo".parse().unwrap(), SystemTime::now() - HOUR);
    for object in
        ["index.m3u8", "v1/index.m3u8", "v1/index.m3u8?_HLS_msn=1", "v1/1.m4s", "v1/1.0.m4s", "v1/init-1.mp4", "access"]
    {
        for (path, kind) in [
            (format!("/live/demo/{object}"), "not-signed"),
            // Says nothing of which channels there are.
            (format!("/live/nobody/{object}"), "not-signed"),
            (format!("/live/~{token}/nobody/{object}"), "bad-signature"),
            (format!("/live/~x{token}/demo/{object}"), "bad-signature"),
            (format!("/live/~{expired}/demo/{object}"), "signature-expired"),
        ] {
            let r = rig.get(&path).await;
            assert_eq!(
                (r.status().as_u16(), json(&r)["type"].clone()),
                (403, format!("/problems/{kind}").into()),
                "{path}"
            );
            assert_eq!((header(&r, "cache-control"), header(&r, "access-control-allow-origin")), ("no-store", "*"));
        }
    }
    // Past the gate: the channel waits for its publisher, the rendition is not there.
    for (object, status) in [("index.m3u8", 503), ("v1/1.m4s", 404), ("access", 204)] {
        for tilde in ["~", "%7E"] {
            assert_eq!(rig.get(&format!("/live/{tilde}{token}/demo/{object}")).await.status(), status, "{object}");
        }
    }
    assert_eq!(rig.ask("OPTIONS", "/live/demo/v1/1.m4s", &[], "").await.status(), 204);
    for open in ["/", "/watch/demo", "/healthz", "/api/v1/channels"] {
        assert_ne!(rig.get(open).await.status(), 403, "{open}");
    }
}

#[tokio::test]
async fn without_a_key_everyone_may_watch_and_signed_paths_still_work() {
    let (rig, _keep) = demo();
    for path in ["/live/demo/access", "/live/~anything/demo/access"] {
        let r = rig.get(path).await;
        assert_eq!((r.status().as_u16(), header(&r, "cache-control")), (204, "public, max-age=10"), "{path}");
    }
    let r = rig.ask("POST", "/api/v1/channels/demo/sign", &[], r#"{"expires":"1h"}"#).await;
    assert_eq!((r.status().as_u16(), json(&r)["type"].clone()), (409, "/problems/signing-off".into()));
}

#[tokio::test]
async fn the_api_signs_for_who_may_administer() {
    let (rig, _keep, _) = signing();
    let sign = "/api/v1/channels/demo/sign";
    let r = rig.ask("POST", sign, &[], r#"{"expires":"90m"}"#).await;
    assert_eq!((r.status().as_u16(), header(&r, "cache-control")), (200, "no-store"));
    let signed = json(&r);
    let (token, playlist) = (signed["token"].as_str().unwrap(), signed["playlist"].as_str().unwrap());
    assert_eq!(playlist, format!("/live/~{token}/demo/index.m3u8"));
    assert_eq!(signed["watch"], format!("/watch/demo#~{token}"));
    let left = signed["expires_at"].as_u64().unwrap() - SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((5_395..=5_401).contains(&left), "{left} s");
    assert_eq!(rig.get(&playlist.replace("index.m3u8", "access")).await.status(), 204);

    for (body, status) in [
        ("", 400),
        ("{}", 422),
        (r#"{"expires":"1h","x":1}"#, 422),
        (r#"{"expires":"721h"}"#, 422),
        (r#"{"expires":3600}"#, 422),
        (r#"{"expires":"0s"}"#, 422),
    ] {
        assert_eq!(rig.ask("POST", sign, &[], body).await.status(), status, "{body}");
    }
    assert_eq!(rig.get(sign).await.status(), 405);
    assert_eq!(rig.ask("POST", sign, &[("origin", "http://evil.example")], r#"{"expires":"1h"}"#).await.status(), 403);
    let guarded = self::rig(Vec::new(), |c| {
        c.viewers.key = Some(Secret("k".repeat(32)));
        c.auth.admin_token = Some(Secret("admin-0123456789".to_owned()));
    });
    assert_eq!(guarded.ask("POST", sign, &[], r#"{"expires":"1h"}"#).await.status(), 401);
    let admin = [("authorization", "Bearer admin-0123456789")];
    assert_eq!(guarded.ask("POST", sign, &admin, r#"{"expires":"1h"}"#).await.status(), 200);
}

#[tokio::test]
async fn the_server_says_what_its_operator_should_mend() {
    let open = rig(Vec::new(), |_| {});
    let answer = open.get("/api/v1/server").await;
    let said: serde_json::Value = serde_json::from_slice(&answer.body().to_vec()).unwrap();
    assert_eq!(
        (&said["version"], &said["uptime_s"]),
        (&serde_json::json!(env!("CARGO_PKG_VERSION")), &serde_json::json!(0))
    );
    assert_eq!((&said["tls"], &said["http2"]), (&serde_json::json!(false), &serde_json::json!(false)));
    assert!(said["warnings"][0].as_str().unwrap().contains("HTTP/2"), "{said}");
    let proxied = open.ask("GET", "/api/v1/server", &[("x-forwarded-proto", "https")], "").await;
    let said: serde_json::Value = serde_json::from_slice(&proxied.body().to_vec()).unwrap();
    assert_eq!(said["warnings"], serde_json::json!([]));
    // As closed as the rest of the API.
    let closed = rig(Vec::new(), |c| {
        c.http.listen = "0.0.0.0:8080".parse().unwrap();
        c.auth.admin_token = Some(Secret("0123456789abcdef".to_owned()));
    });
    assert_eq!(closed.get("/api/v1/server").await.status(), 401);
    let bearer = [("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(closed.ask("GET", "/api/v1/server", &bearer, "").await.status(), 200);
}

/// A held request costs its handler, its connection's task and its buffers: ten thousand of them are an ordinary evening.
#[test]
fn a_request_in_its_handler_is_small() {
    let (rig, _keep) = demo();
    let request = Request::builder().uri("/live/demo/v480/index.m3u8").body(Full::<Bytes>::default()).unwrap();
    let handler = rig.app.handle(request, SocketAddr::from(([127, 0, 0, 1], 1)));
    let size = std::mem::size_of_val(&handler);
    assert!(size <= 2560, "{size} bytes");
}
