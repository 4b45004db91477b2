//! Tests of the listener over real sockets: deadlines, caps, TLS, HTTP/2. No test sleeps: each waits for the event itself.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::body::Body;
use super::listener;
pub use super::listener::Limits;
use super::tests::rig;
use crate::config;
use crate::metrics::Metrics;

pub const SHORT: Duration = Duration::from_millis(250);
const LONG: Duration = Duration::from_secs(60);
pub const LIMITS: Limits = Limits { connections: 100, per_address: 100, header: LONG, idle: LONG, write: LONG };

pub struct Server {
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    close: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

/// `/big`: 64 MiB. `/hang`: never. `/panic`: panics. Else what the real handlers say.
pub async fn server(limits: Limits, tls: Option<TlsAcceptor>) -> Server {
    server_with(limits, tls, |_| {}).await
}

pub async fn server_with(limits: Limits, tls: Option<TlsAcceptor>, change: impl FnOnce(&mut config::Config)) -> Server {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let rig = rig(Vec::new(), change);
    let app = rig.app.clone();
    let handler = move |request: Request<hyper::body::Incoming>, peer| {
        let app = app.clone();
        async move {
            match request.uri().path() {
                "/big" => {
                    let mib = Bytes::from(vec![7u8; 1024 * 1024]);
                    let chunks: Arc<[Bytes]> = std::iter::repeat_n(mib, 64).collect();
                    Response::new(Body::slice(&chunks, 0, 64 * 1024 * 1024))
                }
                "/hang" => std::future::pending().await,
                "/panic" => panic!("as asked"),
                _ => app.handle(request, peer).await,
            }
        }
    };
    let (close, closing) = watch::channel(false);
    let served = tokio::spawn(listener::serve(socket, tls, limits, rig.metrics.clone(), closing, handler));
    Server { address, metrics: rig.metrics, close, served }
}

impl Server {
    pub async fn raw(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    pub fn counts(&self, line: &str) -> bool {
        let text = self.metrics.render(&[], None);
        text.lines().any(|l| l == line)
    }

    pub async fn h2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// Everything until the server closes. A reset counts as closed.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        match soon(stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
        }
    }
}

/// One answer with its Content-Length's worth of body.
pub async fn answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    loop {
        let mut byte = [0];
        soon(stream.read_exact(&mut byte)).await.unwrap();
        all.push(byte[0]);
        if all.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(all).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.unwrap();
    head + &String::from_utf8_lossy(&body)
}

/// Fails instead of hanging.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("nothing happened")
}

pub async fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "the state never came");
        tokio::task::yield_now().await;
    }
}

pub const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_are_cut_off() {
    let s = server(Limits { header: SHORT, ..LIMITS }, None).await;
    let mut first = s.raw("GET /healthz HTTP/1.1\r\nHos").await;
    assert_eq!(rest(&mut first).await, "");
    assert!(s.counts("fishladder_http_timeouts_total{reason=\"header\"} 1"));
    // Also in a later request of a connection, and when single bytes keep coming.
    let mut second = s.raw(HEALTH).await;
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200"));
    let (mut read, mut write) = second.into_split();
    let drip = tokio::spawn(async move {
        let mut interval = tokio::time::interval(SHORT / 10);
        while write.write_all(b"G").await.is_ok() {
            interval.tick().await;
        }
    });
    let mut left = Vec::new();
    let _ = soon(read.read_to_end(&mut left)).await;
    assert!(left.is_empty());
    soon(drip).await.unwrap();
    assert!(s.counts("fishladder_http_timeouts_total{reason=\"header\"} 2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a53_idle_connections_go_but_held_requests_stay() {
    let s = server(Limits { idle: SHORT, ..LIMITS }, None).await;
    let mut held = s.raw("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut silent = s.raw("").await;
    let mut used = s.raw(HEALTH).await;
    assert!(answer(&mut used).await.contains("\r\n\r\nok"));
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut used).await, "");
    assert!(s.counts("fishladder_http_timeouts_total{reason=\"idle\"} 2"));
    // The held one was opened first and is still there.
    until(|| s.metrics.connections() == 1).await;
    let mut byte = [0];
    assert!(tokio::time::timeout(SHORT * 2, held.read(&mut byte)).await.is_err());
    // When its client goes, its handler goes.
    drop(held);
    until(|| s.metrics.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_reading_is_dropped() {
    let s = server(Limits { write: SHORT, ..LIMITS }, None).await;
    let mut stream = s.raw("GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut byte = [0];
    soon(stream.read_exact(&mut byte)).await.unwrap();
    until(|| s.metrics.connections() == 0).await;
    assert!(s.counts("fishladder_http_timeouts_total{reason=\"write\"} 1"));
    // One that reads gets all of it.
    let mut reader = s.raw("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match soon(reader.read(&mut buffer)).await.unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert!(total > 64 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_h2_stream_without_window_is_dropped_too() {
    let s = server(Limits { write: SHORT, ..LIMITS }, None).await;
    let mut client = s.h2().await;
    let request = Request::get("http://a/big").body(Full::default()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    // The body is not read, so the client never opens its window again; pings are answered all the same.
    until(|| s.counts("fishladder_http_timeouts_total{reason=\"write\"} 1")).await;
    until(|| s.metrics.connections() == 0).await;
    drop(response);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_cap_are_closed() {
    let s = server(Limits { connections: 2, ..LIMITS }, None).await;
    let mut a = s.raw(HEALTH).await;
    let mut b = s.raw(HEALTH).await;
    answer(&mut a).await;
    answer(&mut b).await;
    let mut c = TcpStream::connect(s.address).await.unwrap();
    assert_eq!(rest(&mut c).await, "");
    assert!(s.counts("fishladder_http_refused_connections_total{reason=\"connections\"} 1"));
    drop(a);
    until(|| s.metrics.connections() == 1).await;
    let mut d = s.raw(HEALTH).await;
    assert!(answer(&mut d).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_on_one_port() {
    let s = server(LIMITS, None).await;
    let mut one = s.raw(HEALTH).await;
    let text = answer(&mut one).await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\r\ndate: "), "{text}");
    let mut two = s.h2().await;
    let request = Request::get("http://localhost/healthz").body(Full::default()).unwrap();
    let response = soon(two.send_request(request)).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    assert_eq!(&response.into_body().collect().await.unwrap().to_bytes()[..], b"ok\n");
    let request = Request::head("http://localhost/healthz").body(Full::default()).unwrap();
    let response = soon(two.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["content-length"], "3");
    // The API's guard reads HTTP/2's authority.
    for (host, status) in [("localhost", 200), ("evil.example", 403)] {
        let request = Request::get(format!("http://{host}/api/v1/channels")).body(Full::default()).unwrap();
        assert_eq!(soon(two.send_request(request)).await.unwrap().status(), status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_get_one_answer() {
    let s = server(LIMITS, None).await;
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\n\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        (
            "POST /whip/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            "415",
        ),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        ("GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", "400"),
        ("\u{1}\u{2}\u{3}\r\n\r\n", "400"),
    ] {
        let mut stream = s.raw(request).await;
        let text = rest(&mut stream).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {text}");
        assert_eq!(text.matches("\r\ndate: ").count(), 1, "{request:?}: {text}");
    }
    let bomb = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let text = rest(&mut s.raw(&bomb).await).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    let many: String = (0..200).map(|i| format!("X{i}: 1\r\n")).collect();
    let text = rest(&mut s.raw(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await).await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_amid_its_body_frees_its_connection() {
    let s = server(LIMITS, None).await;
    let head = "POST /whip/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: 10\r\n\r\nv=0";
    let stream = s.raw(head).await;
    until(|| s.metrics.connections() == 1).await;
    drop(stream);
    until(|| s.metrics.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_connection_only() {
    let s = server(LIMITS, None).await;
    let mut other = s.raw(HEALTH).await;
    answer(&mut other).await;
    let mut stream = s.raw("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(rest(&mut stream).await, "");
    until(|| s.counts("fishladder_http_panics_total 1")).await;
    other.write_all(HEALTH.as_bytes()).await.unwrap();
    assert!(answer(&mut other).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_finishes_answers_and_takes_no_more() {
    let s = server(LIMITS, None).await;
    let mut idle = s.raw(HEALTH).await;
    answer(&mut idle).await;
    let mut h2 = s.h2().await;
    let request = Request::get("http://localhost/healthz").body(Full::default()).unwrap();
    soon(h2.send_request(request)).await.unwrap();
    s.close.send(true).unwrap();
    soon(s.served).await.unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(s.address).await.is_err());
}
