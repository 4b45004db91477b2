//! The listener's own behaviour over loopback: who is heard, what is refused, what is freed.
#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ingest::rtp::{self, ListenError};
use media::{EndReason, IngestEvent};

fn opus(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut p = vec![0x80, 97];
    p.extend(sequence.to_be_bytes());
    p.extend((u32::from(sequence) * 960).to_be_bytes());
    p.extend(ssrc.to_be_bytes());
    p.extend([31 << 3, 1, 2]);
    p
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn sdp(port: u16) -> String {
    format!("v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 97\na=rtpmap:97 opus/48000/2\na=rtcp-mux\n")
}

async fn next_unit(handle: &mut ingest::IngestHandle) -> i64 {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), handle.events.recv()).await.unwrap().unwrap();
        if let IngestEvent::Unit(unit) = event {
            return unit.pts.millis();
        }
    }
}

#[tokio::test]
async fn another_source_cannot_inject() {
    let port = free_port();
    let mut handle = rtp::listen(&sdp(port), Duration::from_secs(30)).await.unwrap();
    let [publisher, intruder] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let to = ("127.0.0.1", port);
    publisher.send_to(&opus(1, 1), to).unwrap();
    publisher.send_to(&opus(2, 1), to).unwrap();
    assert_eq!(next_unit(&mut handle).await, 0);
    assert_eq!(next_unit(&mut handle).await, 20);
    intruder.send_to(&opus(3, 1), to).unwrap();
    intruder.send_to(b"GET / HTTP/1.1", to).unwrap();
    // BYE for the publisher, from somewhere else on this host: it is the address that is pinned for RTP, the host for
    // RTCP, and media that goes on proves it wrong.
    intruder.send_to(&[0x81, 203, 0, 1, 0, 0, 0, 1], to).unwrap();
    publisher.send_to(&opus(3, 1), to).unwrap();
    assert_eq!(next_unit(&mut handle).await, 40);
    assert_eq!(handle.stats.wrong_source.load(Ordering::Relaxed), 2);
    assert_eq!(handle.stats.packets.load(Ordering::Relaxed), 3);
    assert_eq!(handle.stats.remote.get(), Some(&publisher.local_addr().unwrap()));
}

#[tokio::test]
async fn silence_ends_the_ingest_and_frees_the_port() {
    let port = free_port();
    let mut handle = rtp::listen(&sdp(port), Duration::from_millis(200)).await.unwrap();
    let publisher = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..3 {
        publisher.send_to(&opus(n, 1), ("127.0.0.1", port)).unwrap();
    }
    let mut last = None;
    while let Some(event) = handle.events.recv().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(IngestEvent::Ended(EndReason::Timeout))));
    // Ended means free.
    rtp::listen(&sdp(port), Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_with_its_reason() {
    let mut handle = rtp::listen(&sdp(free_port()), Duration::from_secs(30)).await.unwrap();
    handle.control.stop(EndReason::Removed);
    assert!(matches!(handle.events.recv().await, Some(IngestEvent::Ended(EndReason::Removed))));
    assert!(handle.events.recv().await.is_none());
}

#[tokio::test]
async fn a_port_in_use_and_a_bad_description_are_refused() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    match rtp::listen(&sdp(port), Duration::from_secs(1)).await {
        Err(ListenError::Bind { address, .. }) => assert_eq!(address.port(), port),
        other => panic!("{:?}", other.map(|_| ())),
    }
    match rtp::listen("v=0\nm=video 1 RTP/AVP 33", Duration::from_secs(1)).await {
        Err(ListenError::Sdp(e)) => assert_eq!(e.line, 2),
        other => panic!("{:?}", other.map(|_| ())),
    }
}
