//! The UDP shell around the session core: sockets, one timer, one task.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use media::{EndReason, IngestEvent, WallTime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::pin::{SourcePin, Verdict};
use super::{ListenError, RtpSession, RtpSessionConfig, packet};
use crate::sdp::{self, Description, Rtcp};
use crate::{ControlMessage, EVENT_QUEUE, EventSink, IngestControl, IngestHandle, IngestStats, datagrams};

/// One-way RTP cannot repair anything: this only covers reordering in the network (D10).
const JITTER_BUDGET: Duration = Duration::from_millis(60);
/// A key frame of a 4K stream is a few hundred packets at once, and the default of 208 KiB holds 150 (D30).
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams taken from one socket before the others get a turn: a flood on one must not starve the rest.
const BATCH: usize = 256;
/// RTCP kept of senders that no packet has pinned yet: ffmpeg reports before it sends.
const MAX_EARLY_RTCP: usize = 4;
/// Key-frame and stop requests; more are no use.
const CONTROL_QUEUE: usize = 8;

/// Listens on the SDP's addresses and ports. Ends after `idle_timeout` of silence once media has flowed.
pub async fn listen(sdp: &str, idle_timeout: Duration) -> Result<IngestHandle, ListenError> {
    let description = sdp::parse(sdp)?;
    let mut ports = Vec::new();
    for (track, media) in description.media.iter().enumerate() {
        ports.push(Port { socket: bind(media.address, &media.sources)?, track, rtcp: false });
        if let Rtcp::At(address) = media.rtcp {
            match bind(address, &media.sources) {
                Ok(socket) => ports.push(Port { socket, track, rtcp: true }),
                // Media flows without it; only the sender's clock is missing.
                Err(e) => tracing::warn!(%address, error = %e, "no RTCP: its port cannot be listened on"),
            }
        }
    }
    let stats = Arc::new(IngestStats::default());
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    let (control, controlled) = mpsc::channel(CONTROL_QUEUE);
    let shell = Shell::new(&description, ports, EventSink::new(events, stats.clone()), stats.clone(), idle_timeout);
    tokio::spawn(shell.run(controlled));
    Ok(IngestHandle { events: receiver, control: IngestControl::new(control), stats })
}

struct Port {
    socket: UdpSocket,
    track: usize,
    rtcp: bool,
}

struct Shell {
    session: RtpSession,
    ports: Vec<Port>,
    pins: Vec<SourcePin>,
    early_rtcp: Vec<(usize, SocketAddr, Bytes)>,
    sink: EventSink,
    stats: Arc<IngestStats>,
    idle_timeout: Duration,
    /// When the last packet of a pinned source came.
    heard: Option<Instant>,
}

impl Shell {
    fn new(
        description: &Description,
        ports: Vec<Port>,
        sink: EventSink,
        stats: Arc<IngestStats>,
        idle_timeout: Duration,
    ) -> Self {
        let config = RtpSessionConfig {
            tracks: description.media.iter().map(|m| m.spec.clone()).collect(),
            jitter_budget: JITTER_BUDGET,
            can_ask_key_frames: false,
            can_nack: false,
            can_report: false,
        };
        Self {
            session: RtpSession::new(config, stats.clone()),
            ports,
            pins: description.media.iter().map(|m| SourcePin::new(m.sources.clone())).collect(),
            early_rtcp: Vec::new(),
            sink,
            stats,
            idle_timeout,
            heard: None,
        }
    }

    async fn run(mut self, mut control: mpsc::Receiver<ControlMessage>) {
        let mut controlled = true;
        let queue = self.sink.queue();
        let mut abandoned = pin!(queue.closed());
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut armed: Option<Instant> = None;
        let reason = loop {
            let idle = self.heard.map(|at| at + self.idle_timeout);
            let deadline = self.session.next_timeout().into_iter().chain(idle).min();
            // Every packet moves the deadline back. The timer stays where it is then: it comes too early once in a while, and
            // is not set anew each time.
            if let Some(at) = deadline
                && armed.is_none_or(|armed| at < armed)
            {
                timer.as_mut().reset(at.into());
                armed = deadline;
            }
            tokio::select! {
                () = readable(&self.ports) => self.receive(),
                () = timer.as_mut(), if armed.is_some() => armed = None,
                message = control.recv(), if controlled => match message {
                    Some(ControlMessage::KeyFrame) => self.session.request_key_frame(Instant::now()),
                    Some(ControlMessage::Stop(reason)) => break reason,
                    None => controlled = false,
                },
                () = abandoned.as_mut() => return,
            }
            let now = Instant::now();
            self.session.on_timeout(now);
            if let Some(reason) = self.forward(now) {
                break reason;
            }
            if self.heard.is_some_and(|at| now.saturating_duration_since(at) >= self.idle_timeout) {
                break EndReason::Timeout;
            }
        };
        tracing::info!(reason = reason.as_str(), "RTP ingest ended");
        // The ports are free before anyone hears of the end and listens again.
        let Self { ports, sink, .. } = self;
        drop(ports);
        sink.end(reason).await;
    }

    /// Hands on what the session has; the reason where it has ended.
    fn forward(&mut self, now: Instant) -> Option<EndReason> {
        while let Some(event) = self.session.poll_event() {
            if let IngestEvent::Ended(reason) = event {
                return Some(reason);
            }
            if self.sink.send(event) {
                self.session.request_key_frame(now);
            }
        }
        while self.session.poll_feedback().is_some() {}
        None
    }

    fn receive(&mut self) {
        // One time for all that wait: they came before it.
        let (now, wall) = (Instant::now(), WallTime::from_system(SystemTime::now()));
        let ports = std::mem::take(&mut self.ports);
        for Port { socket, track, rtcp } in &ports {
            datagrams::receive(socket, BATCH, |from, data| {
                // Copied to its own size: what a packet keeps alive is the packet.
                let datagram = Bytes::copy_from_slice(data);
                if *rtcp || packet::is_rtcp(&datagram) {
                    self.on_rtcp(now, wall, *track, from, datagram);
                } else {
                    self.on_rtp(now, wall, *track, from, datagram);
                }
            });
        }
        self.ports = ports;
    }

    fn on_rtp(&mut self, now: Instant, wall: WallTime, track: usize, from: SocketAddr, datagram: Bytes) {
        let Some(pin) = self.pins.get_mut(track) else { return };
        let first = match pin.judge(now, from, &datagram) {
            Verdict::Accept => Vec::new(),
            Verdict::Pinned(packets) => {
                tracing::info!(track, source = %from, "RTP source pinned");
                let _ = self.stats.remote.set(from);
                packets
            }
            Verdict::OnProbation => return,
            Verdict::WrongSource => return IngestStats::add(&self.stats.wrong_source, 1),
            Verdict::Malformed => return IngestStats::add(&self.stats.malformed, 1),
        };
        self.heard = Some(now);
        for (of, source, report) in std::mem::take(&mut self.early_rtcp) {
            if of == track && source.ip() == from.ip() {
                self.session.on_rtcp(now, wall, report);
            } else {
                self.early_rtcp.push((of, source, report));
            }
        }
        if first.is_empty() {
            return self.session.on_track_rtp(now, wall, track, datagram);
        }
        for (at, packet) in first {
            let ago = i64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or(0);
            self.session.on_track_rtp(at, WallTime(wall.0 - ago), track, packet);
        }
    }

    fn on_rtcp(&mut self, now: Instant, wall: WallTime, track: usize, from: SocketAddr, datagram: Bytes) {
        match self.pins.get(track).and_then(SourcePin::pinned) {
            // Its RTCP comes from the same host, commonly from the next port.
            Some(pinned) if pinned.ip() == from.ip() => self.session.on_rtcp(now, wall, datagram),
            Some(_) => IngestStats::add(&self.stats.wrong_source, 1),
            None => {
                if self.early_rtcp.len() == MAX_EARLY_RTCP * self.pins.len() {
                    self.early_rtcp.remove(0);
                }
                self.early_rtcp.push((track, from, datagram));
            }
        }
    }
}

/// Resolves when any of the sockets has something.
async fn readable(ports: &[Port]) {
    poll_fn(|cx| {
        // All are polled, so that all wake this task.
        let ready = ports.iter().filter(|p| p.socket.poll_recv_ready(cx).is_ready()).count();
        if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn bind(address: SocketAddr, sources: &[IpAddr]) -> Result<UdpSocket, ListenError> {
    open(address, sources).map_err(|source| ListenError::Bind { address, source })
}

fn open(address: SocketAddr, sources: &[IpAddr]) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    datagrams::join_runs(&socket);
    // The kernel gives what net.core.rmem_max allows; less is not an error.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    if address.ip().is_multicast() {
        // Others on this host may listen to the same group.
        socket.set_reuse_address(true)?;
    }
    // Bound to the group itself, so that other groups' packets for the same port stay out.
    socket.bind(&address.into())?;
    match address.ip() {
        IpAddr::V4(group) if group.is_multicast() => {
            let v4: Vec<&Ipv4Addr> =
                sources.iter().filter_map(|s| if let IpAddr::V4(s) = s { Some(s) } else { None }).collect();
            if v4.is_empty() {
                socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
            }
            for source in v4 {
                socket.join_ssm_v4(source, &group, &Ipv4Addr::UNSPECIFIED)?;
            }
        }
        IpAddr::V6(group) if group.is_multicast() => socket.join_multicast_v6(&group, 0)?,
        _ => {}
    }
    UdpSocket::from_std(socket.into())
}
