//! The one UDP port of all WHIP sessions: its sockets, and which session a datagram belongs to.
//!
//! A STUN request names its session (RFC 8445 §7.2.2). Everything else goes by the pair of addresses, learnt only from
//! STUN requests that proved to know the session's password; from anywhere else nothing gets through.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::stun::{self, Protocol};
use crate::datagrams;

/// Datagrams between the port and one session: about half a second at 20 Mbit/s. When full the newest is dropped and
/// counted; the session sees it as loss.
const LANE: usize = 1024;
/// Addresses that one session may have: a publisher has a few interfaces, and a NAT may rebind each of them.
const PEERS_PER_SESSION: usize = 16;
/// A pair of addresses that another session held may be taken over once nothing came over it for so long.
const PEER_SILENT: Duration = Duration::from_secs(5);
/// Enough for a burst of key frames from many publishers while the reader is off the CPU.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Longest datagram taken; WebRTC stays under 1500, loopback may carry more.
const MTU: usize = 9000;
/// Read of one socket before the others of its thread have their turn.
const BATCH: usize = 64;

pub struct Datagram {
    /// Our address that it came to.
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub data: BytesMut,
    pub at: Instant,
}

/// Counters of what the port did not deliver.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Nobody's: unknown addresses, unknown ufrags, not a protocol of ours, too long.
    pub stray: AtomicU64,
    /// A session's queue was full.
    pub overflow: AtomicU64,
    /// The kernel would not take it, or there is no socket for it.
    pub unsent: AtomicU64,
}

pub struct Port {
    sockets: Vec<(SocketAddr, UdpSocket)>,
    routes: Mutex<Routes>,
    pub stats: PortStats,
    max_sessions: usize,
}

#[derive(Default)]
struct Routes {
    /// By our ICE user name fragment; as many as there are sessions.
    sessions: HashMap<String, mpsc::Sender<Datagram>>,
    /// By (ours, theirs); at most `PEERS_PER_SESSION` a session.
    peers: HashMap<(SocketAddr, SocketAddr), Peer>,
}

struct Peer {
    ufrag: String,
    heard: Instant,
}

/// A session's place on the port; dropping it removes every trace of the session.
pub struct Lane {
    port: Arc<Port>,
    ufrag: String,
    pub datagrams: mpsc::Receiver<Datagram>,
}

impl Port {
    /// Binds `address`, or every local address of its family where it is unspecified, so that the local address of
    /// each datagram is known and answers leave from it.
    pub fn bind(address: SocketAddr, max_sessions: usize) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut port = address.port();
        for ip in local_addresses(address.ip())? {
            let socket = bind_one(SocketAddr::new(ip, port))?;
            let local = socket.local_addr()?;
            // With port 0 the first socket chooses for all.
            port = local.port();
            sockets.push((local, socket));
        }
        Ok(Self { sockets, routes: Mutex::default(), stats: PortStats::default(), max_sessions })
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|(address, _)| *address)
    }

    /// Reads one socket for as long as it is polled.
    pub async fn read(&self, index: usize) {
        let Some((local, socket)) = self.sockets.get(index) else { return };
        let mut buffer = BytesMut::new();
        loop {
            // An error here is the end of the runtime; those of the socket are some peer's (ICMP), and it stays good.
            if socket.readable().await.is_err() {
                return;
            }
            // One time for all that wait: they came before it.
            let at = Instant::now();
            datagrams::receive(socket, BATCH, |peer, bytes| {
                if bytes.len() > MTU {
                    self.stats.stray.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // One allocation serves many datagrams: each takes its slice of it.
                if buffer.capacity() < bytes.len() {
                    buffer.reserve(16 * MTU);
                }
                buffer.extend_from_slice(bytes);
                self.deliver(Datagram { local: *local, peer, data: buffer.split(), at });
            });
        }
    }

    /// Sends without waiting: a full kernel buffer is loss, as on any link.
    pub fn send(&self, local: SocketAddr, peer: SocketAddr, data: &[u8]) {
        let socket = self.sockets.iter().find(|(address, _)| *address == local);
        if socket.is_none_or(|(_, socket)| socket.try_send_to(data, peer).is_err()) {
            self.stats.unsent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A place for a new session, or `None` when the server is full.
    pub fn open(self: &Arc<Self>, ufrag: String) -> Option<Lane> {
        let mut routes = self.routes();
        if routes.sessions.len() >= self.max_sessions || routes.sessions.contains_key(&ufrag) {
            return None;
        }
        let (queue, datagrams) = mpsc::channel(LANE);
        routes.sessions.insert(ufrag.clone(), queue);
        drop(routes);
        Some(Lane { port: self.clone(), ufrag, datagrams })
    }

    /// Sessions and pairs of addresses in the tables.
    pub fn occupancy(&self) -> (usize, usize) {
        let routes = self.routes();
        (routes.sessions.len(), routes.peers.len())
    }

    fn deliver(&self, datagram: Datagram) {
        let mut routes = self.routes();
        let queue = match stun::classify(&datagram.data) {
            Protocol::Stun if stun::message_type(&datagram.data) == Some(stun::BINDING_REQUEST) => {
                stun::receiver_ufrag(&datagram.data).and_then(|ufrag| routes.sessions.get(ufrag))
            }
            Protocol::Stun | Protocol::Dtls | Protocol::Media => {
                let Routes { sessions, peers } = &mut *routes;
                peers.get_mut(&(datagram.local, datagram.peer)).and_then(|peer| {
                    peer.heard = datagram.at;
                    sessions.get(&peer.ufrag)
                })
            }
            Protocol::Other => None,
        };
        match queue.map(|queue| queue.try_send(datagram)) {
            Some(Ok(())) => {}
            Some(Err(_)) => drop(self.stats.overflow.fetch_add(1, Ordering::Relaxed)),
            None => drop(self.stats.stray.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        // Two maps that are whole between any two statements.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// `peer` has shown the session's password: what comes from there is the session's.
    pub fn learn(&self, local: SocketAddr, peer: SocketAddr, now: Instant) {
        let mut routes = self.port.routes();
        match routes.peers.get_mut(&(local, peer)) {
            Some(known) if known.ufrag == self.ufrag => return,
            // Whoever spoofs a living publisher's address with credentials of a session of his own gets nothing.
            Some(known) if now.saturating_duration_since(known.heard) < PEER_SILENT => return,
            Some(known) => {
                *known = Peer { ufrag: self.ufrag.clone(), heard: now };
                return;
            }
            None => {}
        }
        let own = || routes.peers.iter().filter(|(_, p)| p.ufrag == self.ufrag);
        if own().count() >= PEERS_PER_SESSION
            && let Some(oldest) = own().min_by_key(|(_, p)| p.heard).map(|(key, _)| *key)
        {
            routes.peers.remove(&oldest);
        }
        routes.peers.insert((local, peer), Peer { ufrag: self.ufrag.clone(), heard: now });
    }

    pub fn send(&self, local: SocketAddr, peer: SocketAddr, data: &[u8]) {
        self.port.send(local, peer, data);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut routes = self.port.routes();
        routes.sessions.remove(&self.ufrag);
        routes.peers.retain(|_, peer| peer.ufrag != self.ufrag);
    }
}

fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    datagrams::join_runs(&socket);
    // The kernel caps it (net.core.rmem_max); what it grants is better than the default either way.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// `ip` itself, or what it stands for: all local addresses, those that others can reach first (some clients take only
/// the first candidate).
fn local_addresses(ip: IpAddr) -> io::Result<Vec<IpAddr>> {
    if !ip.is_unspecified() {
        return Ok(vec![ip]);
    }
    let mut all: Vec<IpAddr> = rtc::shared::ifaces::ifaces()?
        .into_iter()
        .filter_map(|interface| interface.addr.map(|address| address.ip()))
        .filter(|found| found.is_ipv4() == ip.is_ipv4() && !is_link_local(*found))
        .collect();
    all.push(if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    all.sort_by_key(|found| (found.is_loopback(), *found));
    all.dedup();
    Ok(all)
}

/// IPv6 link-local addresses mean nothing without their interface, which a candidate cannot name.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn datagram(local: SocketAddr, peer: &str, data: &[u8]) -> Datagram {
        Datagram { local, peer: peer.parse().unwrap(), data: data.into(), at: Instant::now() }
    }

    fn binding(username: &str) -> Vec<u8> {
        let mut m = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        m.extend_from_slice(&[0; 12]);
        m.extend_from_slice(&[0, 6, 0, username.len() as u8]);
        m.extend_from_slice(username.as_bytes());
        m.resize(m.len().div_ceil(4) * 4, 0);
        m[3] = (m.len() - 20) as u8;
        m
    }

    #[tokio::test]
    async fn only_proven_addresses_reach_a_session_and_nothing_stays_behind() {
        let port = Arc::new(Port::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap());
        let local = port.addresses().next().unwrap();
        let mut lane = port.open("abcd".into()).unwrap();
        assert!(port.open("abcd".into()).is_none(), "a fragment is given once");

        port.deliver(datagram(local, "127.0.0.1:7", &[22, 0xfe, 0xfd]));
        port.deliver(datagram(local, "127.0.0.1:7", &[0x80, 96]));
        port.deliver(datagram(local, "127.0.0.1:7", &binding("zzzz:x")));
        assert!(lane.datagrams.try_recv().is_err());
        assert_eq!(port.stats.stray.load(Ordering::Relaxed), 3);

        port.deliver(datagram(local, "127.0.0.1:7", &binding("abcd:x")));
        assert!(lane.datagrams.try_recv().is_ok());
        port.deliver(datagram(local, "127.0.0.1:7", &[0x80, 96]));
        assert!(lane.datagrams.try_recv().is_err(), "a request alone teaches nothing");

        let peer = "127.0.0.1:7".parse().unwrap();
        lane.learn(local, peer, Instant::now());
        port.deliver(datagram(local, "127.0.0.1:7", &[0x80, 96]));
        assert!(lane.datagrams.try_recv().is_ok());

        let mut other = port.open("efgh".into()).unwrap();
        assert!(port.open("ijkl".into()).is_none(), "full");
        other.learn(local, peer, Instant::now());
        port.deliver(datagram(local, "127.0.0.1:7", &[0x80, 96]));
        assert!(other.datagrams.try_recv().is_err(), "a living publisher's address cannot be taken");
        other.learn(local, peer, Instant::now() + PEER_SILENT + Duration::from_secs(1));
        port.deliver(datagram(local, "127.0.0.1:7", &[0x80, 96]));
        assert!(other.datagrams.try_recv().is_ok(), "a silent one's can");

        drop((lane, other));
        assert_eq!(port.occupancy(), (0, 0));
    }

    #[tokio::test]
    async fn a_session_has_a_bounded_number_of_addresses() {
        let port = Arc::new(Port::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap());
        let local = port.addresses().next().unwrap();
        let lane = port.open("abcd".into()).unwrap();
        for p in 1..100 {
            lane.learn(local, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), p), Instant::now());
        }
        assert_eq!(port.occupancy(), (1, PEERS_PER_SESSION));
    }

    #[tokio::test]
    async fn a_burst_comes_whole_and_in_order() {
        let port = Arc::new(Port::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap());
        let local = port.addresses().next().unwrap();
        let mut lane = port.open("abcd".into()).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        lane.learn(local, sender.local_addr().unwrap(), Instant::now());
        let sent: Vec<Vec<u8>> = (0..200_u8).map(|n| [vec![0x80, 96], vec![n; 1_200]].concat()).collect();
        for datagram in &sent {
            sender.send_to(datagram, local).unwrap();
        }
        sender.send_to(&[0x80; MTU + 1], local).unwrap();
        sender.send_to(&[0x80, 97], local).unwrap();
        let reading = tokio::spawn({
            let port = port.clone();
            async move { port.read(0).await }
        });
        for expected in sent.iter().map(Vec::as_slice).chain([&[0x80, 97][..]]) {
            let got = lane.datagrams.recv().await.unwrap();
            assert_eq!((&got.data[..], got.peer), (expected, sender.local_addr().unwrap()));
        }
        assert_eq!(port.stats.stray.load(Ordering::Relaxed), 1, "too long");
        reading.abort();
    }

    #[tokio::test]
    async fn a_full_lane_drops_and_counts() {
        let port = Arc::new(Port::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap());
        let local = port.addresses().next().unwrap();
        let _lane = port.open("abcd".into()).unwrap();
        for _ in 0..LANE + 3 {
            port.deliver(datagram(local, "127.0.0.1:7", &binding("abcd:x")));
        }
        assert_eq!(port.stats.overflow.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_unspecified_address_means_every_local_one_on_one_port() {
        let port = Port::bind("0.0.0.0:0".parse().unwrap(), 1).unwrap();
        let addresses: Vec<_> = port.addresses().collect();
        assert!(addresses.iter().all(|a| a.port() == addresses[0].port() && !a.ip().is_unspecified()));
        assert!(addresses.last().unwrap().ip().is_loopback(), "{addresses:?}");
    }
}
