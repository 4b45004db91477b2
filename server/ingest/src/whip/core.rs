//! One publisher's WebRTC session without I/O and without a clock: ICE, DTLS and SRTP by the rtc crate, packets on to
//! the RTP core, feedback back.
//!
//! Contract: after every call drain `poll_event` and `poll_transmit`, then look at `ended`, then sleep until
//! `next_timeout`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use media::{EndReason, IngestEvent, TrackKind, WallTime};
use rtc::crypto::RTCCryptoProvider;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{Packet, Registry, Slot};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use rtc::sansio::Protocol;
use rtc::shared::marshal::Marshal;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::WhipError;
use super::answer::{self, Local};
use super::offer::{Candidate, IceCredentials, MAX_CANDIDATES, Offer, Setup};
use super::port::Datagram;
use super::stun::{self, Protocol as Kind};
use super::tap::{Tap, Tapped};
use crate::IngestStats;
use crate::rtp::{Feedback, RtpSession, RtpSessionConfig, TrackFormat, TrackSpec};

/// From the answer to the first protected packet (C16): ICE and DTLS take well under 2 s where they work at all.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Room for two NACK round trips of 50 ms and their grace.
const JITTER_BUDGET: Duration = Duration::from_millis(150);
/// Retransmissions without RTX come late in sequence; 150 ms of 20 Mbit/s are under 400 packets (D28 asks for 128).
const REPLAY_WINDOW: usize = 1024;
/// Consent checks (RFC 7675 §5.1 asks for less than 5 s between them).
const CONSENT_INTERVAL: Duration = Duration::from_secs(2);

/// What the session needs to know beside the offer.
pub struct Terms<'a> {
    pub ice: IceCredentials,
    /// Our sockets.
    pub local: &'a [SocketAddr],
    /// What the answer announces.
    pub announced: &'a [SocketAddr],
    pub idle_timeout: Duration,
    pub session: u64,
    /// Source of our RTCP.
    pub ssrc: u32,
}

pub struct Core {
    stack: RTCPeerConnection,
    tapped: Tapped,
    rtp: RtpSession,
    crypto: Arc<dyn RTCCryptoProvider>,
    stats: Arc<IngestStats>,
    password: String,
    ssrc: u32,
    created: Instant,
    heard: Instant,
    idle_timeout: Duration,
    connected: bool,
    candidates: usize,
    ended: Option<EndReason>,
}

/// A datagram to send.
pub struct Transmit {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub data: BytesMut,
}

impl Core {
    /// Negotiates; gives the session and the SDP answer.
    pub fn new(
        offer: &Offer,
        terms: Terms,
        stats: Arc<IngestStats>,
        now: Instant,
    ) -> Result<(Self, String), WhipError> {
        let crypto = rtc::crypto::default_provider().map_err(internal)?;
        let tapped = Tapped::default();
        let transport_cc = offer.media().find_map(|media| media.transport_cc);
        let mut stack = build(offer, &terms, Tap::new(transport_cc, tapped.clone()), now).map_err(internal)?;

        let description = RTCSessionDescription::offer(answer::for_stack(offer)).map_err(internal)?;
        // The sections were checked; what is left to refuse is our fault, not the publisher's.
        stack.set_remote_description(now, description).map_err(internal)?;
        for (i, address) in terms.local.iter().enumerate() {
            stack.add_local_candidate(candidate(answer::host_candidate(i, *address))).map_err(internal)?;
        }
        let own = stack.create_answer(None).map_err(internal)?;
        let fingerprint = own
            .sdp
            .lines()
            .find_map(|line| line.trim_end().strip_prefix("a=fingerprint:"))
            .ok_or_else(|| internal("the answer has no fingerprint"))?
            .to_owned();
        stack.set_local_description(now, own).map_err(internal)?;

        let local =
            Local { ice: &terms.ice, fingerprint: &fingerprint, candidates: terms.announced, session: terms.session };
        let answer = answer::answer(offer, &local);
        let can = |what| offer.media().any(|m| m.kind == TrackKind::Video && m.feedback.contains(&what));
        let config = RtpSessionConfig {
            tracks: offer
                .media()
                .map(|media| TrackSpec {
                    payload_type: media.payload_type,
                    rtx_payload_type: media.rtx,
                    format: match media.kind {
                        TrackKind::Video => TrackFormat::H264 { parameter_sets: Vec::new() },
                        TrackKind::Audio => TrackFormat::Opus { channels: 2 },
                    },
                    clock_rate: if media.kind == TrackKind::Video { 90_000 } else { 48_000 },
                    // The payload type tells the track, so a publisher may change its SSRC or never have told it.
                    ssrc: None,
                })
                .collect(),
            jitter_budget: JITTER_BUDGET,
            can_ask_key_frames: can("nack pli"),
            can_nack: can("nack"),
            can_report: true,
        };
        let mut core = Self {
            stack,
            tapped,
            rtp: RtpSession::new(config, stats.clone()),
            crypto,
            stats,
            password: terms.ice.pwd,
            ssrc: terms.ssrc,
            created: now,
            heard: now,
            idle_timeout: terms.idle_timeout,
            connected: false,
            candidates: 0,
            ended: None,
        };
        core.add_candidates(&offer.candidates);
        Ok((core, answer))
    }

    /// True where the datagram proves that its pair of addresses is the publisher's.
    pub fn on_datagram(&mut self, wall: WallTime, datagram: Datagram) -> bool {
        let Datagram { local, peer, data, at: now } = datagram;
        let kind = stun::classify(&data);
        let request = kind == Kind::Stun && stun::message_type(&data) == Some(stun::BINDING_REQUEST);
        if request {
            if !stun::knows_password(&data, &self.password, self.crypto.as_ref()) {
                IngestStats::add(&self.stats.wrong_source, 1);
                return false;
            }
            self.heard = now;
        }
        let transport = TransportContext {
            local_addr: local,
            peer_addr: peer,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        if let Err(error) = self.stack.handle_read(TaggedBytesMut { now, transport, message: data }) {
            tracing::debug!(%error, %peer, "WebRTC datagram refused");
        }
        if self.pump(now, wall) {
            // Set by the first packet that decrypted; a publisher that roams keeps the first.
            let _ = self.stats.remote.set(peer);
        }
        request
    }

    pub fn on_timeout(&mut self, now: Instant, wall: WallTime) {
        if let Err(error) = self.stack.handle_timeout(now) {
            tracing::debug!(%error, "WebRTC timer");
        }
        self.rtp.on_timeout(now);
        self.pump(now, wall);
        if now >= self.deadline() {
            self.ended.get_or_insert(EndReason::Timeout);
        }
    }

    /// More remote candidates; what is over the bound or not to the agent's liking is ignored (RFC 9725 §4.3.2).
    pub fn add_candidates(&mut self, candidates: &[Candidate]) {
        for remote in candidates {
            if self.candidates >= MAX_CANDIDATES {
                return;
            }
            self.candidates += 1;
            if let Err(error) = self.stack.add_remote_candidate(candidate(remote.to_sdp(self.candidates))) {
                tracing::debug!(%error, address = %remote.address, "remote candidate ignored");
            }
        }
    }

    pub fn request_key_frame(&mut self, now: Instant) {
        self.rtp.request_key_frame(now);
        self.give_feedback(now);
    }

    /// Says goodbye: leaves a close_notify (RFC 5246 §7.2.1) to send.
    pub fn close(&mut self, reason: EndReason) {
        self.ended = Some(reason);
        if let Err(error) = self.stack.close() {
            tracing::debug!(%error, "WebRTC close");
        }
    }

    pub fn poll_event(&mut self) -> Option<IngestEvent> {
        self.rtp.poll_event()
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let out = self.stack.poll_write()?;
        let data = out.message;
        // Alert records (RFC 6347 §4.3.1, content type 21) leave the stack unasked only in answer to the publisher's
        // close_notify or to a fault of the handshake. The stack has no event for either.
        if data.first() == Some(&21) && self.ended.is_none() {
            self.ended = Some(if self.connected { EndReason::Closed } else { EndReason::Transport });
        }
        Some(Transmit { local: out.transport.local_addr, peer: out.transport.peer_addr, data })
    }

    pub fn next_timeout(&mut self) -> Instant {
        let stack = self.stack.poll_timeout();
        [stack, self.rtp.next_timeout()].into_iter().flatten().fold(self.deadline(), Instant::min)
    }

    pub fn ended(&self) -> Option<EndReason> {
        self.ended
    }

    /// When something came last that only the publisher can have sent.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    fn deadline(&self) -> Instant {
        if self.connected { self.heard + self.idle_timeout } else { self.created + CONNECT_TIMEOUT }
    }

    /// Moves packets and events on; true if any packet decrypted.
    fn pump(&mut self, now: Instant, wall: WallTime) -> bool {
        // Nothing comes out behind the tap, but asking is what drives the stack.
        while self.stack.poll_read().is_some() {}
        let mut any = false;
        while let Some(packet) = self.tapped.pop() {
            // A copy: the stack hands out parsed packets and the RTP core, which reads raw RTP too, takes bytes.
            let bytes = match &packet {
                Packet::Rtp(rtp) => rtp.marshal(),
                Packet::Rtcp(rtcp) => rtc::rtcp::packet::marshal(rtcp),
                _ => continue,
            };
            let Ok(bytes) = bytes.map(BytesMut::freeze) else {
                IngestStats::add(&self.stats.malformed, 1);
                continue;
            };
            any = true;
            match packet {
                Packet::Rtp(_) => self.rtp.on_rtp(now, wall, bytes),
                _ => self.rtp.on_rtcp(now, wall, bytes),
            }
        }
        if any {
            self.heard = now;
        }
        while let Some(event) = self.stack.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                match state {
                    RTCPeerConnectionState::Connected => {
                        self.connected = true;
                        self.heard = now;
                    }
                    RTCPeerConnectionState::Failed => {
                        self.ended.get_or_insert(EndReason::Transport);
                    }
                    _ => {}
                }
            }
        }
        self.give_feedback(now);
        any
    }

    fn give_feedback(&mut self, now: Instant) {
        let sender_ssrc = self.ssrc;
        while let Some(feedback) = self.rtp.poll_feedback() {
            let packet: Box<dyn rtc::rtcp::Packet> = match feedback {
                Feedback::KeyFrame { ssrc } => Box::new(PictureLossIndication { sender_ssrc, media_ssrc: ssrc }),
                Feedback::Nack { ssrc, seqs } => Box::new(TransportLayerNack {
                    sender_ssrc,
                    media_ssrc: ssrc,
                    nacks: nack_pairs_from_sequence_numbers(&seqs),
                }),
                Feedback::Report(block) => Box::new(ReceiverReport {
                    ssrc: sender_ssrc,
                    reports: vec![ReceptionReport {
                        ssrc: block.ssrc,
                        fraction_lost: block.fraction_lost,
                        // RFC 3550 §6.4.1: 24 bits; more lost than that or a negative count saturates.
                        total_lost: u32::try_from(block.cumulative_lost).unwrap_or(0).min(0x7f_ffff),
                        last_sequence_number: block.highest_sequence,
                        jitter: block.jitter,
                        last_sender_report: block.last_sr,
                        delay: block.delay_since_last_sr,
                    }],
                    profile_extensions: Bytes::new(),
                }),
            };
            let message = RTCMessage::RtcpPacket(Default::default(), vec![packet]);
            if let Err(error) = self.stack.handle_write(TaggedRTCMessage { now, message }) {
                tracing::debug!(%error, "RTCP not sent");
            }
        }
    }
}

fn build(offer: &Offer, terms: &Terms, tap: Tap, now: Instant) -> rtc::shared::error::Result<RTCPeerConnection> {
    let mut engine = MediaEngine::default();
    for media in offer.media() {
        let (mime_type, clock_rate, channels, kind) = match media.kind {
            TrackKind::Video => (MIME_TYPE_H264, 90_000, 0, RtpCodecKind::Video),
            TrackKind::Audio => (MIME_TYPE_OPUS, 48_000, 2, RtpCodecKind::Audio),
        };
        let rtp_codec = RTCRtpCodec { mime_type: mime_type.to_owned(), clock_rate, channels, ..RTCRtpCodec::default() };
        let payload_type = media.payload_type;
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind)?;
    }
    let settings = SettingEngineBuilder::new()
        .with_answering_dtls_role(match offer.setup {
            Setup::WillConnect => RTCDtlsRole::Server,
            Setup::Waits => RTCDtlsRole::Client,
        })
        .with_ice_credentials(terms.ice.ufrag.clone(), terms.ice.pwd.clone())
        // Our own deadlines decide; the agent's come after them.
        .with_ice_timeouts(Some(CONNECT_TIMEOUT), Some(terms.idle_timeout), Some(CONSENT_INTERVAL))
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_srtp_replay_protection_window(REPLAY_WINDOW)
        .with_srtcp_replay_protection_window(REPLAY_WINDOW)
        .build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(Registry::new().with(Slot::TwccReceiver, tap))
        .build(now)
}

fn candidate(candidate: String) -> RTCIceCandidateInit {
    RTCIceCandidateInit { candidate, ..RTCIceCandidateInit::default() }
}

fn internal(error: impl std::fmt::Display) -> WhipError {
    WhipError::Internal(format!("WebRTC: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::samples::{CHROME, FFMPEG};
    use super::*;

    fn core(offer: &str, now: Instant) -> (Core, String) {
        let local = ["127.0.0.1:8189".parse().unwrap()];
        let terms = Terms {
            ice: IceCredentials { ufrag: "abcdefgh".into(), pwd: "0123456789abcdef0123456789abcdef".into() },
            local: &local,
            announced: &local,
            idle_timeout: Duration::from_secs(10),
            session: 1,
            ssrc: 1,
        };
        Core::new(&Offer::parse(offer).unwrap(), terms, Arc::default(), now).unwrap()
    }

    #[test]
    fn a_session_that_never_connects_ends_in_15_s() {
        let start = Instant::now();
        for offer in [CHROME, FFMPEG] {
            let (mut core, answer) = core(offer, start);
            assert!(answer.contains("a=ice-ufrag:abcdefgh\r\n"));
            let mut now = start;
            while core.ended().is_none() {
                // As the task does: a timer that is already due does not spin.
                now = core.next_timeout().max(now + Duration::from_millis(1));
                core.on_timeout(now, WallTime(0));
                while core.poll_transmit().is_some() {}
            }
            assert_eq!((core.ended(), now - start), (Some(EndReason::Timeout), CONNECT_TIMEOUT));
        }
    }

    #[test]
    fn strangers_change_nothing() {
        let start = Instant::now();
        let (mut core, _) = core(CHROME, start);
        let stun = b"\x00\x01\x00\x14\x21\x12\xa4\x42aaaaaaaaaaaa\x00\x06\x00\x0dabcdefgh:EsAw\0\0\0";
        for data in [&stun[..], &[22, 0xfe, 0xfd, 0, 0], &[0x80, 103, 0, 1], &[0x80, 200, 0, 1], &[]] {
            let (local, peer) = ("127.0.0.1:8189".parse().unwrap(), "192.0.2.9:9".parse().unwrap());
            let proven = core.on_datagram(WallTime(0), Datagram { local, peer, data: data.into(), at: start });
            assert!(!proven);
            assert!(core.poll_event().is_none());
            while let Some(out) = core.poll_transmit() {
                assert_ne!(out.peer, peer, "no answer");
            }
        }
        assert_eq!(core.ended(), None);
    }
}
