//! WebRTC publishers (RFC 9725) on the rtc crate's sans-IO core; all sessions share one UDP port.

mod answer;
mod core;
mod fragment;
mod offer;
mod port;
#[cfg(test)]
mod samples;
mod stun;
mod tap;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use media::{EndReason, IngestEvent, WallTime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use self::core::{Core, Terms};
use self::offer::{Candidate, IceCredentials, Offer};
pub use self::port::PortStats;
use self::port::{Lane, Port};
use crate::{ControlMessage, EVENT_QUEUE, EventSink, IngestControl, IngestHandle, IngestStats};

#[derive(Clone, Debug)]
pub struct WhipOptions {
    pub udp_listen: SocketAddr,
    /// Addresses to announce instead of the local one (NAT, containers).
    pub external_addresses: Vec<IpAddr>,
    /// Nothing heard for so long: the session ends with `Timeout`.
    pub idle_timeout: Duration,
    pub max_sessions: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhipError {
    /// 400
    #[error("the SDP offer cannot be read: {0}")]
    Malformed(String),
    /// 422
    #[error("the SDP offer cannot be accepted: {0}")]
    Unacceptable(String),
    /// 503
    #[error("no room for another session")]
    Full,
    /// 500
    #[error("{0}")]
    Internal(String),
}

/// The shared UDP port and all its sessions. Cheap to clone. When the last clone is dropped nothing more is read and
/// what sessions there are time out.
#[derive(Clone)]
pub struct WhipServer(Arc<Shared>);

struct Shared {
    options: WhipOptions,
    port: Arc<Port>,
    /// What answers announce.
    announced: Vec<SocketAddr>,
    readers: Vec<AbortHandle>,
}

pub struct Accepted {
    pub answer: String,
    /// Strong entity tag of the ICE session, without quotes.
    pub etag: String,
    pub session: WhipSession,
    pub ingest: IngestHandle,
}

/// The HTTP side's grip on a session.
#[derive(Clone)]
pub struct WhipSession {
    remote: Arc<IceCredentials>,
    /// Trickled candidates; bounded, and each request waits for its turn.
    candidates: mpsc::Sender<Vec<Candidate>>,
    stop: watch::Sender<Option<EndReason>>,
    heard: Arc<Heard>,
}

/// PATCH requests under way per session; clients send one at a time.
const CANDIDATE_QUEUE: usize = 4;
/// Control messages under way; more key frame requests than that say nothing new.
const CONTROL_QUEUE: usize = 8;
/// Datagrams taken before the session looks at anything else: a burst of a key frame.
const BATCH: usize = 32;

impl WhipServer {
    pub async fn bind(options: WhipOptions) -> std::io::Result<Self> {
        let port = Arc::new(Port::bind(options.udp_listen, options.max_sessions)?);
        let announced = if options.external_addresses.is_empty() {
            port.addresses().collect()
        } else {
            let number = port.addresses().next().map_or(options.udp_listen.port(), |a| a.port());
            options.external_addresses.iter().map(|ip| SocketAddr::new(*ip, number)).collect()
        };
        let readers = (0..port.addresses().count())
            .map(|index| {
                let port = port.clone();
                tokio::spawn(async move { port.read(index).await }).abort_handle()
            })
            .collect();
        Ok(Self(Arc::new(Shared { options, port, announced, readers })))
    }

    /// The address asked for, with the port that is in use.
    pub fn local_addr(&self) -> SocketAddr {
        let asked = self.0.options.udp_listen;
        SocketAddr::new(asked.ip(), self.0.port.addresses().next().map_or(asked.port(), |a| a.port()))
    }

    /// Datagrams that reached nobody.
    pub fn port_stats(&self) -> &PortStats {
        &self.0.port.stats
    }

    /// Sessions on the port, and addresses known as theirs.
    pub fn occupancy(&self) -> (usize, usize) {
        self.0.port.occupancy()
    }

    /// Negotiates: H.264 (required unless the offer has audio only) and Opus.
    pub async fn accept(&self, offer: &str) -> Result<Accepted, WhipError> {
        let offer = Offer::parse(offer)?;
        // RFC 8839 §5.4 asks for 24 and 128 random bits at least; a character carries 6.
        let ice = IceCredentials { ufrag: random(8)?, pwd: random(32)? };
        let lane = self.0.port.open(ice.ufrag.clone()).ok_or(WhipError::Full)?;
        let local: Vec<SocketAddr> = self.0.port.addresses().collect();
        let stats = Arc::new(IngestStats::default());
        let now = Instant::now();
        let [session, ssrc] = random_numbers()?;
        let terms = Terms {
            ice,
            local: &local,
            announced: &self.0.announced,
            idle_timeout: self.0.options.idle_timeout,
            session: session >> 2,
            ssrc: (ssrc >> 32) as u32 | 1,
        };
        let (core, answer) = Core::new(&offer, terms, stats.clone(), now)?;

        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        let (control_in, control) = mpsc::channel(CONTROL_QUEUE);
        let (candidates_in, candidates) = mpsc::channel(CANDIDATE_QUEUE);
        let (stop, stopped) = watch::channel(None);
        let heard = Arc::new(Heard { base: now, last_ms: AtomicU64::new(0) });
        let session = Session {
            core,
            lane,
            sink: EventSink::new(events_in.clone(), stats.clone()),
            listener: events_in.clone(),
            control,
            candidates,
            stopped,
            heard: heard.clone(),
        };
        let task = tokio::spawn(session.run());
        // A panic in one session ends that session: its lane is freed by unwinding, its consumer is told here.
        tokio::spawn(async move {
            if task.await.is_err_and(|e| e.is_panic()) {
                let _ = events_in.send(IngestEvent::Ended(EndReason::Internal)).await;
            }
        });
        Ok(Accepted {
            answer,
            etag: random_hex()?,
            session: WhipSession { remote: Arc::new(offer.ice), candidates: candidates_in, stop, heard },
            ingest: IngestHandle { events, control: IngestControl::new(control_in), stats },
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

impl WhipSession {
    /// Trickle ICE: an `application/trickle-ice-sdpfrag` body. `Unacceptable`: it asks for an ICE restart.
    pub async fn add_candidates(&self, fragment: &str) -> Result<(), WhipError> {
        let candidates = fragment::candidates(fragment, &self.remote)?;
        if !candidates.is_empty() {
            // A session that has ended has no use for them, which is not the sender's fault.
            let _ = self.candidates.send(candidates).await;
        }
        Ok(())
    }

    /// Time since anything valid was heard from the publisher; for take-over (C38).
    pub fn silent_for(&self) -> Duration {
        let heard = self.heard.base + Duration::from_millis(self.heard.last_ms.load(Ordering::Relaxed));
        Instant::now().saturating_duration_since(heard)
    }

    /// The session is over, whoever ended it.
    pub fn is_closed(&self) -> bool {
        self.candidates.is_closed()
    }

    /// Ends the session: DTLS close, ICE gone, `Ended(reason)`. The first reason given stays.
    pub fn close(&self, reason: EndReason) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(reason);
            first
        });
    }
}

/// When the publisher was heard last, for everyone to read.
struct Heard {
    base: Instant,
    last_ms: AtomicU64,
}

/// The task around a `Core`.
struct Session {
    core: Core,
    lane: Lane,
    sink: EventSink,
    /// Another hold on the sink's queue, to notice that its consumer is gone.
    listener: mpsc::Sender<IngestEvent>,
    control: mpsc::Receiver<ControlMessage>,
    candidates: mpsc::Receiver<Vec<Candidate>>,
    stopped: watch::Receiver<Option<EndReason>>,
    heard: Arc<Heard>,
}

impl Session {
    async fn run(mut self) {
        let reason = self.serve().await;
        self.core.close(reason);
        self.transmit();
        let Self { core, lane, sink, listener, .. } = self;
        // Gone from the port before the consumer is told, however long it takes to listen.
        drop((core, lane, listener));
        sink.end(reason).await;
    }

    async fn serve(&mut self) -> EndReason {
        let mut batch = Vec::with_capacity(BATCH);
        // Channels whose other ends are gone must not be asked again.
        let (mut controlled, mut trickles, mut stoppable) = (true, true, true);
        loop {
            self.drain();
            if let Some(reason) = self.core.ended() {
                return reason;
            }
            let timeout = self.core.next_timeout();
            tokio::select! {
                biased;
                changed = self.stopped.changed(), if stoppable => {
                    stoppable = changed.is_ok();
                    let reason = *self.stopped.borrow_and_update();
                    if let Some(reason) = reason {
                        return reason;
                    }
                }
                () = self.listener.closed() => return EndReason::Closed,
                message = self.control.recv(), if controlled => match message {
                    Some(ControlMessage::KeyFrame) => self.core.request_key_frame(Instant::now()),
                    Some(ControlMessage::Stop(reason)) => return reason,
                    None => controlled = false,
                },
                found = self.candidates.recv(), if trickles => match found {
                    Some(found) => self.core.add_candidates(&found),
                    None => trickles = false,
                },
                received = self.lane.datagrams.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return EndReason::Internal;
                    }
                    let wall = WallTime::from_system(SystemTime::now());
                    for datagram in batch.drain(..) {
                        let (local, peer, at) = (datagram.local, datagram.peer, datagram.at);
                        // Before anything is sent there: what comes back must find its way.
                        if self.core.on_datagram(wall, datagram) {
                            self.lane.learn(local, peer, at);
                        }
                    }
                }
                () = tokio::time::sleep_until(timeout.into()) => {
                    self.core.on_timeout(Instant::now(), WallTime::from_system(SystemTime::now()));
                    // A timer that the stack will not let go of must not spin.
                    if self.core.next_timeout() <= timeout {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            let heard = self.core.heard().saturating_duration_since(self.heard.base).as_millis();
            self.heard.last_ms.store(u64::try_from(heard).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    fn drain(&mut self) {
        let mut key_frame = false;
        while let Some(event) = self.core.poll_event() {
            key_frame |= self.sink.send(event);
        }
        if key_frame {
            self.core.request_key_frame(Instant::now());
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        while let Some(out) = self.core.poll_transmit() {
            self.lane.send(out.local, out.peer, &out.data);
        }
    }
}

/// `length` random ICE characters (RFC 8839 §5.4), which are those of Base64.
fn random(length: usize) -> Result<String, WhipError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(no_random)?;
    Ok(bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 64)])).collect())
}

/// 128 random bits.
fn random_hex() -> Result<String, WhipError> {
    let [a, b] = random_numbers()?;
    Ok(format!("{a:016x}{b:016x}"))
}

fn random_numbers() -> Result<[u64; 2], WhipError> {
    Ok([getrandom::u64().map_err(no_random)?, getrandom::u64().map_err(no_random)?])
}

fn no_random(error: getrandom::Error) -> WhipError {
    WhipError::Internal(format!("no random numbers from the operating system: {error}"))
}
