//! WHIP against a real publisher over loopback: the rtc crate's own core on a socket of its own, with packets dropped
//! on purpose.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ingest::IngestHandle;
use ingest::whip::{WhipError, WhipOptions, WhipServer, WhipSession};
use media::{EndReason, GapReason, IngestEvent, TrackConfig, TrackKind};
use rtc::interceptor::{Interceptor, Packet, Registry, Slot, StreamInfo, TaggedPacket};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::rtp::codec::h264::H264Payloader;
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::net::UdpSocket;

const CLIP: &[u8] = include_bytes!("data/clip.h264");
const VIDEO: u32 = 0x1111_1111;
const AUDIO: u32 = 0x2222_2222;

/// Keeps the RTCP that the publisher gets.
#[derive(Clone, Default)]
struct Rtcp(Arc<Mutex<VecDeque<Box<dyn rtc::rtcp::Packet>>>>);

struct Listen(Rtcp, VecDeque<TaggedPacket>);

impl Protocol<TaggedPacket, TaggedPacket, ()> for Listen {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(rtcp) = packet.message.packet {
            self.0.0.lock().unwrap().extend(rtcp);
        }
        Ok(())
    }
    fn poll_read(&mut self) -> Option<TaggedPacket> {
        None
    }
    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.1.push_back(packet);
        Ok(())
    }
    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.1.pop_front()
    }
}

impl Interceptor for Listen {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

struct Publisher {
    stack: RTCPeerConnection,
    socket: UdpSocket,
    rtcp: Rtcp,
    sent: HashMap<u16, rtc::rtp::Packet>,
    units: Vec<Bytes>,
    payloader: H264Payloader,
    frame: usize,
    sequence: u16,
    audio_sequence: u16,
    /// Of 100 video packets, so many are not sent at first.
    drop_percent: u32,
    /// Retransmits what is asked for.
    repairs: bool,
    plis: u32,
    nacked: u32,
}

impl Publisher {
    /// A publisher and its offer.
    async fn new() -> (Self, String) {
        let now = Instant::now();
        let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.into(), parameter: parameter.into() };
        let video = RTCRtpCodec {
            mime_type: MIME_TYPE_H264.into(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".into(),
            rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli")],
        };
        let audio = RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.into(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![],
        };
        let mut engine = MediaEngine::default();
        let parameters = |rtp_codec, payload_type| RTCRtpCodecParameters { rtp_codec, payload_type };
        engine.register_codec(parameters(video.clone(), 102), RtpCodecKind::Video).unwrap();
        engine.register_codec(parameters(audio.clone(), 111), RtpCodecKind::Audio).unwrap();
        let rtcp = Rtcp::default();
        let registry = Registry::new().with(Slot::ReceiverReport, Listen(rtcp.clone(), VecDeque::new()));
        let mut stack = RTCPeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(now)
            .unwrap();
        for (kind, codec, ssrc) in [(RtpCodecKind::Video, video, VIDEO), (RtpCodecKind::Audio, audio, AUDIO)] {
            let coding = RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                codec,
                ..Default::default()
            };
            let track = MediaStreamTrack::new("s".into(), format!("t{ssrc}"), "l".into(), kind, vec![coding]);
            stack.add_track(track).unwrap();
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let candidate = format!("candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host");
        stack.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).unwrap();
        let offer = stack.create_offer(None).unwrap();
        stack.set_local_description(now, offer.clone()).unwrap();
        // Offers carry no candidates here, as OBS's do: the server learns the address from our checks (C24).
        let sdp: String =
            offer.sdp.lines().filter(|l| !l.starts_with("a=candidate")).map(|l| format!("{l}\r\n")).collect();
        let publisher = Self {
            stack,
            socket,
            rtcp,
            sent: HashMap::new(),
            units: access_units(CLIP),
            payloader: H264Payloader::default(),
            frame: 0,
            sequence: 65_500,
            audio_sequence: 7,
            drop_percent: 0,
            repairs: true,
            plis: 0,
            nacked: 0,
        };
        // `sendrecv` is what the stack offers, as Safari's libraries do.
        (publisher, sdp)
    }

    fn accept(&mut self, answer: &str) {
        let answer = RTCSessionDescription::answer(answer.to_owned()).unwrap();
        self.stack.set_remote_description(Instant::now(), answer).unwrap();
    }

    /// Publishes in real time until dropped or `control` says otherwise.
    async fn publish(&mut self) {
        let mut frames = tokio::time::interval(Duration::from_millis(33));
        let mut buffer = vec![0; 2048];
        loop {
            while let Some(out) = self.stack.poll_write() {
                let _ = self.socket.send_to(&out.message, out.transport.peer_addr).await;
            }
            while self.stack.poll_event().is_some() {}
            while self.stack.poll_read().is_some() {}
            self.answer_feedback();
            let timeout = self.stack.poll_timeout().unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            tokio::select! {
                _ = frames.tick() => self.send_frame(),
                received = self.socket.recv_from(&mut buffer) => if let Ok((n, peer_addr)) = received {
                    let transport = TransportContext {
                        local_addr: self.socket.local_addr().unwrap(),
                        peer_addr,
                        transport_protocol: TransportProtocol::UDP,
                        ecn: None,
                    };
                    let message = BytesMut::from(&buffer[..n]);
                    let _ = self.stack.handle_read(TaggedBytesMut { now: Instant::now(), transport, message });
                },
                () = tokio::time::sleep_until(timeout.into()) => self.stack.handle_timeout(Instant::now()).unwrap(),
            }
        }
    }

    fn answer_feedback(&mut self) {
        let waiting: Vec<_> = self.rtcp.0.lock().unwrap().drain(..).collect();
        for packet in waiting {
            if packet.as_any().is::<PictureLossIndication>() {
                self.plis += 1;
            } else if let Some(nack) = packet.as_any().downcast_ref::<TransportLayerNack>() {
                assert_eq!(nack.media_ssrc, VIDEO);
                for seq in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
                    self.nacked += 1;
                    if let Some(packet) = self.sent.get(&seq).cloned().filter(|_| self.repairs) {
                        self.write(packet);
                    }
                }
            }
        }
    }

    fn send_frame(&mut self) {
        let timestamp = self.frame as u32 * 3000;
        let unit = self.units[self.frame % self.units.len()].clone();
        let payloads = self.payloader.payload(500, &unit).unwrap();
        let count = payloads.len();
        for (i, payload) in payloads.into_iter().enumerate() {
            let packet = packet(102, VIDEO, self.sequence, timestamp, i + 1 == count, payload);
            self.sent.insert(self.sequence, packet.clone());
            // Spread evenly and the same in every run.
            let dropped = self.frame > 20
                && u32::from(self.sequence).wrapping_mul(2_654_435_761) >> 8 & 0xffff
                    < 0xffff * self.drop_percent / 100;
            self.sequence = self.sequence.wrapping_add(1);
            if !dropped {
                self.write(packet);
            }
        }
        // A 20 ms Opus frame of silence (RFC 6716 §3.1: CELT, fullband, stereo), at about the right pace.
        for _ in 0..(self.frame + 1) * 33 / 20 - self.frame * 33 / 20 {
            let at = u32::from(self.audio_sequence) * 960;
            self.write(packet(111, AUDIO, self.audio_sequence, at, false, Bytes::from_static(&[0xfc, 0xff, 0xfe])));
            self.audio_sequence = self.audio_sequence.wrapping_add(1);
        }
        self.frame += 1;
    }

    fn write(&mut self, packet: rtc::rtp::Packet) {
        let message = RTCMessage::RtpPacket(Default::default(), packet);
        let _ = self.stack.handle_write(TaggedRTCMessage { now: Instant::now(), message });
    }
}

fn packet(
    payload_type: u8,
    ssrc: u32,
    sequence_number: u16,
    timestamp: u32,
    marker: bool,
    payload: Bytes,
) -> rtc::rtp::Packet {
    let header = rtc::rtp::header::Header {
        version: 2,
        payload_type,
        ssrc,
        sequence_number,
        timestamp,
        marker,
        ..Default::default()
    };
    rtc::rtp::Packet { header, payload }
}

/// Cuts an Annex B stream so that each piece ends with a slice (one slice a picture here).
fn access_units(stream: &[u8]) -> Vec<Bytes> {
    let starts: Vec<usize> = (0..stream.len() - 3).filter(|&i| stream[i..i + 3] == [0, 0, 1]).collect();
    let mut units = Vec::new();
    let mut from = 0;
    for (i, &at) in starts.iter().enumerate() {
        if matches!(stream[at + 3] & 0x1f, 1 | 5) {
            let end =
                starts.get(i + 1).map_or(stream.len(), |next| if stream[next - 1] == 0 { next - 1 } else { *next });
            units.push(Bytes::copy_from_slice(&stream[from..end]));
            from = end;
        }
    }
    units
}

async fn server(max_sessions: usize, idle_timeout: Duration) -> WhipServer {
    let udp_listen = "127.0.0.1:0".parse().unwrap();
    WhipServer::bind(WhipOptions { udp_listen, external_addresses: vec![], idle_timeout, max_sessions }).await.unwrap()
}

async fn connect(server: &WhipServer) -> (Publisher, WhipSession, IngestHandle) {
    let (mut publisher, offer) = Publisher::new().await;
    let accepted = server.accept(&offer).await.unwrap();
    assert_eq!(accepted.etag.len(), 32);
    publisher.accept(&accepted.answer);
    (publisher, accepted.session, accepted.ingest)
}

/// Takes events while publishing until `enough` says so; for at most 30 s.
async fn take_until(
    publisher: &mut Publisher,
    ingest: &mut IngestHandle,
    mut enough: impl FnMut(&IngestEvent) -> bool,
) -> Vec<IngestEvent> {
    let mut events = Vec::new();
    let taking = async {
        loop {
            let event = ingest.events.recv().await.expect("the session goes on");
            let done = enough(&event);
            events.push(event);
            if done {
                return;
            }
        }
    };
    tokio::select! {
        () = taking => {}
        () = publisher.publish() => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("not in time: {} events", events.len()),
    }
    events
}

fn video_units(n: usize) -> impl FnMut(&IngestEvent) -> bool {
    let mut seen = 0;
    move |event| {
        seen += usize::from(matches!(event, IngestEvent::Unit(u) if u.kind() == TrackKind::Video));
        seen >= n
    }
}

async fn end_of(ingest: &mut IngestHandle) -> EndReason {
    let ending = async {
        loop {
            if let IngestEvent::Ended(reason) = ingest.events.recv().await.expect("an end is told") {
                return reason;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ending).await.expect("in time")
}

#[tokio::test]
async fn media_flows_on_one_timeline_and_a_close_leaves_nothing_behind() {
    let server = server(4, Duration::from_secs(10)).await;
    let (mut publisher, session, mut ingest) = connect(&server).await;
    let events = take_until(&mut publisher, &mut ingest, video_units(60)).await;

    let units = |kind| {
        events.iter().filter_map(move |e| match e {
            IngestEvent::Unit(u) if u.kind() == kind => Some(u),
            _ => None,
        })
    };
    let video: Vec<_> = units(TrackKind::Video).collect();
    assert!(video[0].key);
    assert!(video.windows(2).all(|w| (w[1].dts - w[0].dts).millis() == 33), "no frame missing");
    let TrackConfig::H264(config) = &*video[0].config else { panic!() };
    assert_eq!((config.width, config.height), (160, 96));
    assert!(units(TrackKind::Audio).count() > 50);
    assert!(!events.iter().any(|e| matches!(e, IngestEvent::Gap { .. } | IngestEvent::Discontinuity)));
    assert!(session.silent_for() < Duration::from_secs(1));
    assert_eq!(ingest.stats.remote.get(), Some(&publisher.socket.local_addr().unwrap()));
    assert_eq!(server.occupancy(), (1, 1));

    let stats = Arc::downgrade(&ingest.stats);
    session.close(EndReason::Replaced);
    session.close(EndReason::Removed);
    assert_eq!(end_of(&mut ingest).await, EndReason::Replaced);
    assert_eq!(server.occupancy(), (0, 0));
    assert!(ingest.events.recv().await.is_none());
    drop(ingest);
    assert_eq!(stats.strong_count(), 0, "the session's memory is gone");
    assert_eq!(session.add_candidates("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n").await, Ok(()));
}

#[tokio::test]
async fn lost_packets_are_asked_for_and_repaired() {
    let server = server(4, Duration::from_secs(10)).await;
    let (mut publisher, _session, mut ingest) = connect(&server).await;
    publisher.drop_percent = 10;
    let events = take_until(&mut publisher, &mut ingest, video_units(100)).await;
    assert!(publisher.nacked > 5, "{} asked for", publisher.nacked);
    assert!(!events.iter().any(|e| matches!(e, IngestEvent::Gap { .. })));
    assert_eq!(ingest.stats.lost.load(Relaxed), 0);
    assert!(ingest.stats.repaired.load(Relaxed) > 5);
}

#[tokio::test]
async fn what_stays_lost_is_a_gap_and_a_key_frame_request() {
    let server = server(4, Duration::from_secs(10)).await;
    let (mut publisher, _session, mut ingest) = connect(&server).await;
    (publisher.drop_percent, publisher.repairs) = (10, false);
    let mut gap = false;
    let events = take_until(&mut publisher, &mut ingest, |event| {
        gap |= matches!(event, IngestEvent::Gap { track: TrackKind::Video, reason: GapReason::Loss });
        gap && matches!(event, IngestEvent::Unit(u) if u.kind() == TrackKind::Video)
    })
    .await;
    let Some(IngestEvent::Unit(after)) = events.last() else { panic!() };
    assert!(after.key, "video resumes at a key frame");
    assert!(publisher.plis > 0, "the publisher was asked for one");
}

#[tokio::test]
async fn the_session_can_ask_for_a_key_frame() {
    let server = server(4, Duration::from_secs(10)).await;
    let (mut publisher, _session, mut ingest) = connect(&server).await;
    take_until(&mut publisher, &mut ingest, video_units(5)).await;
    let before = publisher.plis;
    ingest.control.request_key_frame();
    ingest.control.request_key_frame();
    take_until(&mut publisher, &mut ingest, video_units(10)).await;
    assert_eq!(publisher.plis, before + 1, "two requests within half a second are one");
}

#[tokio::test]
async fn two_publishers_share_the_port_and_a_stranger_reaches_neither() {
    let server = server(2, Duration::from_secs(10)).await;
    let (mut one, _s1, mut first) = connect(&server).await;
    let (mut two, _s2, mut second) = connect(&server).await;
    let (_, offer) = Publisher::new().await;
    assert_eq!(server.accept(&offer).await.err(), Some(WhipError::Full));
    tokio::join!(take_until(&mut one, &mut first, video_units(30)), take_until(&mut two, &mut second, video_units(30)),);
    assert_ne!(first.stats.remote.get(), second.stats.remote.get());

    let stray = server.port_stats().stray.load(Relaxed);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&[22, 0xfe, 0xfd, 0][..], &[0x80, 102, 0, 1], &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], &[255]] {
        stranger.send_to(junk, server.local_addr()).await.unwrap();
    }
    take_until(&mut one, &mut first, video_units(10)).await;
    assert_eq!(server.port_stats().stray.load(Relaxed), stray + 4);
    assert_eq!(first.stats.malformed.load(Relaxed) + second.stats.malformed.load(Relaxed), 0);
}

#[tokio::test]
async fn a_publisher_that_falls_silent_is_timed_out_and_one_that_says_goodbye_is_not_waited_for() {
    let server = server(4, Duration::from_secs(2)).await;
    let (mut silent, session, mut ingest) = connect(&server).await;
    take_until(&mut silent, &mut ingest, video_units(5)).await;
    assert_eq!(end_of(&mut ingest).await, EndReason::Timeout);
    assert!(session.silent_for() >= Duration::from_secs(2));

    let (mut polite, _session, mut ingest) = connect(&server).await;
    take_until(&mut polite, &mut ingest, video_units(5)).await;
    let said = Instant::now();
    polite.stack.close().unwrap();
    while let Some(out) = polite.stack.poll_write() {
        polite.socket.send_to(&out.message, out.transport.peer_addr).await.unwrap();
    }
    assert_eq!(end_of(&mut ingest).await, EndReason::Closed);
    assert!(said.elapsed() < Duration::from_secs(1), "at once: {:?}", said.elapsed());
    assert_eq!(server.occupancy(), (0, 0));
}

#[tokio::test]
async fn dropping_the_handle_frees_the_session() {
    let server = server(1, Duration::from_secs(10)).await;
    let (_, offer) = Publisher::new().await;
    drop(server.accept(&offer).await.unwrap());
    let freed = async {
        while server.occupancy() != (0, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("freed");
}
