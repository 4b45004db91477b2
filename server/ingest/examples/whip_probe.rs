//! Takes WHIP publishers without the rest of the server and prints what they send, once a second: for trying clients.
//!
//! `cargo run -p ingest --example whip_probe [HTTP-ADDRESS]`, then publish to `http://ADDRESS/whip`. A browser that
//! opens `http://ADDRESS/` publishes its camera and microphone. `/keyframe` asks all publishers for a key frame.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ingest::IngestHandle;
use ingest::whip::{WhipError, WhipOptions, WhipServer, WhipSession};
use media::{IngestEvent, TrackConfig, TrackKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PAGE: &str = "<!doctype html><meta charset=utf-8><title>probe</title><script type=module>
const media = await navigator.mediaDevices.getUserMedia({video: {width: 1280, height: 720}, audio: true});
const pc = window.pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
for (const t of media.getTracks()) pc.addTransceiver(t, {direction: 'sendonly', streams: [media]});
pc.onconnectionstatechange = () => console.log('state', pc.connectionState);
await pc.setLocalDescription();
const reply = await fetch('/whip', {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
const sdp = await reply.text();
if (!reply.ok) throw new Error(sdp);
await pc.setRemoteDescription({type: 'answer', sdp});
window.location_ = reply.headers.get('Location');
</script>";

type Sessions = Arc<Mutex<HashMap<String, (WhipSession, ingest::IngestControl)>>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let http = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8088".into());
    let options = WhipOptions {
        udp_listen: ([0, 0, 0, 0], 0).into(),
        external_addresses: vec![],
        idle_timeout: Duration::from_secs(10),
        max_sessions: 16,
    };
    let server = WhipServer::bind(options).await?;
    let listener = TcpListener::bind(&http).await?;
    println!("http://{} udp {}", listener.local_addr()?, server.local_addr());
    let sessions = Sessions::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let (server, sessions) = (server.clone(), sessions.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(stream, server, sessions).await {
                println!("http: {error}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, server: WhipServer, sessions: Sessions) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut request).await? == 0 || request.len() > 1 << 20 {
            return Ok(());
        }
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            break (head, end + 4 + length.unwrap_or(0usize));
        }
    };
    while request.len() < length {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let start = head.len() + 4;
    let body = String::from_utf8_lossy(&request[start..length]).into_owned();
    let mut words = head.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let session = || sessions.lock().ok()?.get(path).map(|(session, _)| session.clone());
    let (status, headers, body) = match (method, path) {
        ("GET", "/") => ("200 OK", "Content-Type: text/html\r\n".to_owned(), PAGE.to_owned()),
        ("GET", "/keyframe") => {
            if let Ok(sessions) = sessions.lock() {
                sessions.values().for_each(|(_, control)| control.request_key_frame());
            }
            ("204 No Content", String::new(), String::new())
        }
        ("POST", "/whip") => match server.accept(&body).await {
            Ok(accepted) => {
                let path = format!("/session/{}", accepted.etag);
                if let Ok(mut sessions) = sessions.lock() {
                    sessions.insert(path.clone(), (accepted.session.clone(), accepted.ingest.control.clone()));
                }
                tokio::spawn(print(path.clone(), accepted.ingest, sessions.clone()));
                let headers =
                    format!("Content-Type: application/sdp\r\nLocation: {path}\r\nETag: \"{}\"\r\n", accepted.etag);
                ("201 Created", headers, accepted.answer)
            }
            Err(error) => {
                println!("{error}");
                let status = match error {
                    WhipError::Malformed(_) => "400 Bad Request",
                    WhipError::Unacceptable(_) => "422 Unprocessable Content",
                    WhipError::Full => "503 Service Unavailable",
                    WhipError::Internal(_) => "500 Internal Server Error",
                };
                (status, String::new(), error.to_string())
            }
        },
        ("PATCH", _) => match session() {
            Some(session) => match session.add_candidates(&body).await {
                Ok(()) => ("204 No Content", String::new(), String::new()),
                Err(error) => ("422 Unprocessable Content", String::new(), error.to_string()),
            },
            None => ("404 Not Found", String::new(), String::new()),
        },
        ("DELETE", _) => match session() {
            Some(session) => {
                session.close(media::EndReason::Closed);
                ("200 OK", String::new(), String::new())
            }
            None => ("404 Not Found", String::new(), String::new()),
        },
        _ => ("404 Not Found", String::new(), String::new()),
    };
    let reply =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(reply.as_bytes()).await
}

async fn print(path: String, mut ingest: IngestHandle, sessions: Sessions) {
    let started = Instant::now();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let (mut frames, mut keys, mut bytes, mut audio, mut size) = (0u32, 0u32, 0usize, 0u32, (0, 0));
    let (mut video_at, mut audio_at) = (0, 0);
    loop {
        tokio::select! {
            _ = second.tick() => {
                let s = &ingest.stats;
                println!(
                    "{path} {:5.1} s: {frames} frames {size:?} {keys} keys {} kbit/s, {audio} audio, v-a {} ms | packets {} lost {} repaired {} dup {} late {} bad {} foreign {} refused {} overload {} pli {} disc {}",
                    started.elapsed().as_secs_f32(), bytes * 8 / 1000, video_at - audio_at,
                    s.packets.load(Relaxed), s.lost.load(Relaxed), s.repaired.load(Relaxed), s.duplicate.load(Relaxed),
                    s.late.load(Relaxed), s.malformed.load(Relaxed), s.wrong_source.load(Relaxed),
                    s.gate_refused.load(Relaxed), s.overload_dropped.load(Relaxed), s.key_frame_requests.load(Relaxed),
                    s.discontinuities.load(Relaxed),
                );
                (frames, keys, bytes, audio) = (0, 0, 0, 0);
            }
            event = ingest.events.recv() => match event {
                Some(IngestEvent::Unit(unit)) => {
                    if let TrackConfig::H264(config) = &*unit.config {
                        size = (config.width, config.height);
                    }
                    if unit.kind() == TrackKind::Video {
                        (frames, keys, bytes) = (frames + 1, keys + u32::from(unit.key), bytes + unit.data.len());
                        video_at = unit.pts.millis();
                    } else {
                        audio += 1;
                        audio_at = unit.pts.millis();
                    }
                }
                Some(IngestEvent::Ended(reason)) => {
                    println!("{path} ended: {reason:?}");
                    if let Ok(mut sessions) = sessions.lock() {
                        sessions.remove(&path);
                    }
                    return;
                }
                Some(IngestEvent::Clock(_)) => {}
                Some(other) => println!("{path} {other:?}"),
                None => return,
            },
        }
    }
}
