//! What HTTP/2 clients do to wear a server out, as frames written by hand (RFC 9113): each is ended or limited and counted
//! under its name, while an honest client on another connection is served.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use super::wire_tests::*;
use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Preface and settings, as pairs of identifier and value.
fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &settings)].concat()
}

/// `:method GET`, `:scheme http`, `:authority a` and this path, without Huffman codes (RFC 7541 appendix A).
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 1, b'a', 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block
}

/// Sends all of it and reads until the server closes; gives what came as frames of type, stream and payload.
async fn flood(s: &Server, bytes: Vec<u8>) -> Vec<(u8, u32, Vec<u8>)> {
    let (mut read, mut write) = tokio::net::TcpStream::connect(s.address).await.unwrap().into_split();
    let writing = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        // The server may close before all is written.
        let _ = write.write_all(&bytes).await;
        write
    });
    let mut seen = Vec::new();
    // Closed with a reset where bytes were left unread.
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(&mut read, &mut seen)).await;
    let _ = soon(writing).await;
    let mut frames = Vec::new();
    while seen.len() >= 9 {
        let length = u32::from_be_bytes([0, seen[0], seen[1], seen[2]]) as usize;
        if seen.len() < 9 + length {
            break;
        }
        let rest = seen.split_off(9 + length);
        let stream = u32::from_be_bytes([seen[5], seen[6], seen[7], seen[8]]);
        frames.push((seen[3], stream, seen.split_off(9)));
        seen = rest;
    }
    frames
}

/// The next frame of a type on a stream.
async fn next(read: &mut (impl tokio::io::AsyncRead + Unpin), wanted: impl Fn(u8, u32) -> bool) -> (u8, u32, Vec<u8>) {
    use tokio::io::AsyncReadExt;
    loop {
        let mut head = [0; 9];
        soon(read.read_exact(&mut head)).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        soon(read.read_exact(&mut payload)).await.unwrap();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if wanted(head[3], stream) {
            return (head[3], stream, payload);
        }
    }
}

/// Asks for `/healthz` over and over until told to stop; each must be answered. Gives how many there were.
struct Honest(Arc<AtomicBool>, tokio::task::JoinHandle<u32>);

impl Honest {
    async fn start(s: &Server) -> Self {
        let mut client = s.h2().await;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let asking = tokio::spawn(async move {
            let mut answered = 0;
            while !told.load(Ordering::Relaxed) {
                let request = Request::get("http://localhost/healthz").body(http_body_util::Full::default()).unwrap();
                assert_eq!(soon(client.send_request(request)).await.unwrap().status(), 200);
                answered += 1;
            }
            answered
        });
        Self(stop, asking)
    }

    async fn stop(self) -> u32 {
        self.0.store(true, Ordering::Relaxed);
        soon(self.1).await.unwrap()
    }
}

fn counted(s: &Server, label: &str) -> bool {
    s.counts(&format!("fishladder_http_abuse_total{{reason=\"{label}\"}} 1"))
}

/// Each sort of flood ends its connection; where the library finds it, with GOAWAY and ENHANCE_YOUR_CALM.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_connection_and_no_other() {
    let open = END_HEADERS;
    let whole = END_HEADERS | END_STREAM;
    let odd = |n: u32| (1..2 * n).step_by(2);
    // A name of one byte and a value of 3900 that is remembered (RFC 7541 §6.2.1), then one byte for each repetition.
    let mut bomb = get("/");
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    bomb.extend(std::iter::repeat_n(b'y', 127 + 0x3d + (0x1d << 7)));
    bomb.extend(std::iter::repeat_n(0xbe, 10_000));
    let floods: Vec<(&str, Vec<u8>, bool)> = vec![
        // CVE-2023-44487: a request and its reset, again and again.
        (
            "reset_flood",
            odd(1000)
                .flat_map(|id| {
                    [frame(HEADERS, whole, id, &get("/")), frame(RST_STREAM, 0, id, &8u32.to_be_bytes())].concat()
                })
                .collect(),
            true,
        ),
        // Resets of what has long ended.
        (
            "reset_flood",
            [frame(HEADERS, whole, 1, &get("/healthz")), frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()).repeat(1100)]
                .concat(),
            false,
        ),
        // CVE-2025-8671: the client does wrong, so that we reset. Here its steps make a window overflow.
        (
            "provoked_resets",
            odd(600)
                .flat_map(|id| {
                    let step = frame(WINDOW_UPDATE, 0, id, &0x7fff_ffffu32.to_be_bytes());
                    [frame(HEADERS, whole, id, &get("/hang")), step].concat()
                })
                .collect(),
            true,
        ),
        ("ping_flood", frame(PING, 0, 0, &[7; 8]).repeat(1100), false),
        ("settings_flood", frame(SETTINGS, 0, 0, &[]).repeat(1100), false),
        ("window_flood", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(1100), false),
        ("control_flood", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]).repeat(1100), false),
        ("control_flood", frame(0xb0, 0, 0, b"greased").repeat(1100), false),
        (
            "continuation_flood",
            [frame(HEADERS, 0, 1, &get("/")), frame(CONTINUATION, 0, 1, &[]).repeat(100)].concat(),
            true,
        ),
        ("data_flood", [frame(HEADERS, open, 1, &get("/hang")), frame(DATA, 0, 1, &[]).repeat(5000)].concat(), true),
        ("header_bomb", frame(HEADERS, whole, 1, &bomb), true),
    ];
    for (label, frames, library) in floods {
        let s = server(LIMITS, None).await;
        let honest = Honest::start(&s).await;
        let seen = flood(&s, [hello(&[]), frames].concat()).await;
        until(|| counted(&s, label)).await;
        let calm = seen.iter().any(|(kind, _, p)| *kind == GOAWAY && p.get(4..8) == Some(&CALM.to_be_bytes()));
        assert!(calm || !library, "{label}: {:?}", seen.iter().map(|f| f.0).collect::<Vec<_>>());
        assert!(honest.stop().await > 0, "{label}");
        until(|| s.metrics.connections() == 0).await;
    }
}

/// One byte a field: a few hundred bytes would become tens of kilobytes here for as long as a request is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_very_many_or_large_fields_are_refused_alone() {
    let s = server(Limits { idle: SHORT, ..LIMITS }, None).await;
    let many = [get("/hang"), vec![0x90; 101]].concat();
    // 20 KB of one field, in two frames.
    let mut large = get("/hang");
    large.extend_from_slice(&[0x00, 1, b'x', 0x7f, 0xa1, 0x9b, 0x01]);
    large.extend(std::iter::repeat_n(b'y', 127 + 0x21 + (0x1b << 7) + (1 << 14)));
    let (first, second) = large.split_at(16_000);
    let bytes = [
        hello(&[]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &many),
        frame(HEADERS, END_STREAM, 3, first),
        frame(CONTINUATION, END_HEADERS, 3, second),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, &get("/healthz")),
    ];
    let seen = flood(&s, bytes.concat()).await;
    assert!(counted(&s, "header_bomb"));
    // A literal status is refused, the short form of 200 is 0x88 (RFC 7541 appendix A).
    let status = |id| seen.iter().find(|(kind, stream, _)| (*kind, *stream) == (HEADERS, id)).map(|(_, _, p)| p[0]);
    assert!(status(1).is_some_and(|b| b != 0x88) && status(3).is_some_and(|b| b != 0x88), "{seen:?}");
    assert_eq!(status(5), Some(0x88), "{seen:?}");
}

/// More requests at a time than there are streams: those beyond are refused, the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limit_are_refused() {
    let s = server(Limits { header: SHORT, ..LIMITS }, None).await;
    let hanging: Vec<u8> =
        (1..401).step_by(2).flat_map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/hang"))).collect();
    let mut stream = tokio::net::TcpStream::connect(s.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[hello(&[]), hanging].concat()).await.unwrap();
    for _ in 0..200 - 128 {
        let (_, id, why) = next(&mut stream, |kind, _| kind == RST_STREAM).await;
        // REFUSED_STREAM.
        assert_eq!((why, id > 256), (7u32.to_be_bytes().to_vec(), true));
    }
    assert_eq!(s.metrics.connections(), 1);
    drop(stream);
    until(|| s.metrics.connections() == 0).await;
}

/// Streams without window keep their media only for so long, also while others of the connection are in use; with a window
/// of one byte the library has the rest of the body, and hyper nothing more to say of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stands_still_ends_its_connection() {
    tokio::join!(stand_still(0, "/healthz"), stand_still(1, "/healthz"), stand_still(1, "/big"));
}

async fn stand_still(window: u32, path: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let s = server(Limits { write: SHORT, ..LIMITS }, None).await;
    let honest = Honest::start(&s).await;
    let (mut read, mut write) = tokio::net::TcpStream::connect(s.address).await.unwrap().into_split();
    // INITIAL_WINDOW_SIZE.
    let first = [hello(&[(4, window)]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &get(path))].concat();
    write.write_all(&first).await.unwrap();
    let busy = tokio::spawn(async move {
        let mut interval = tokio::time::interval(SHORT / 10);
        for id in (3..).step_by(2) {
            interval.tick().await;
            let request = frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/healthz"));
            let window = frame(WINDOW_UPDATE, 0, id, &2048u32.to_be_bytes());
            if write.write_all(&[request, window].concat()).await.is_err() {
                return;
            }
        }
    });
    let mut seen = Vec::new();
    let _ = soon(read.read_to_end(&mut seen)).await;
    soon(busy).await.unwrap();
    until(|| s.counts("fishladder_http_timeouts_total{reason=\"stream\"} 1")).await;
    // It was asked to go elsewhere first: GOAWAY without an error.
    let goaway = [&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..], &0x7fff_ffffu32.to_be_bytes(), &[0; 4]].concat();
    assert!(seen.windows(goaway.len()).any(|w| w == goaway), "{window} {path}");
    assert!(honest.stop().await > 0);
    until(|| s.metrics.connections() == 0).await;
}

/// A body that comes byte by byte ends with its deadline, and its connection goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_are_cut_off_in_http2_too() {
    use tokio::io::AsyncWriteExt;
    let s = server_with(LIMITS, None, |c| c.http.body_timeout = SHORT).await;
    let (mut read, mut write) = tokio::net::TcpStream::connect(s.address).await.unwrap().into_split();
    // POST, and `content-type` by its index (RFC 7541 appendix A).
    let mut block = get("/whip/x");
    block[0] = 0x83;
    block.extend_from_slice(b"\x0f\x10\x0fapplication/sdp");
    write.write_all(&[hello(&[]), frame(HEADERS, END_HEADERS, 1, &block)].concat()).await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let dripping = tokio::spawn(async move {
        let mut interval = tokio::time::interval(SHORT / 10);
        while stopped.try_recv().is_err() {
            interval.tick().await;
            write.write_all(&frame(DATA, 0, 1, b"v")).await.unwrap();
        }
        write
    });
    let (_, _, refusal) = next(&mut read, |kind, stream| (kind, stream) == (DATA, 1)).await;
    assert!(String::from_utf8_lossy(&refusal).contains("/problems/body-timeout"));
    stop.send(()).unwrap();
    let mut write = soon(dripping).await.unwrap();
    write.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/healthz"))).await.unwrap();
    assert_eq!(next(&mut read, |kind, stream| (kind, stream) == (DATA, 3)).await.2, b"ok\n");
}
