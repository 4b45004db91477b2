//! `--added`: what the server adds to a frame, from its last RTP packet going in to its bytes at a waiting viewer.
//!
//! A relay stands between an RTP publisher and the server. It notes when the last packet of each access unit passes, under
//! the access unit's last bytes; passthrough keeps those, so that the viewer knows each sample of a part by them.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::follow::Follower;
use crate::net::Connection;
use crate::tally::{Fault, Histogram};
use crate::viewer::{Shared, playlist, renditions};

/// Bytes at an access unit's end that tell it from others.
const TAIL: usize = 16;
/// Access units that have passed the relay and were not seen in a part: a minute of 60 a second. The oldest go first.
const KEPT: usize = 4_096;
/// Larger parts are not read: they are not of the small stream that is to be measured.
const PART: usize = 16 * 1024 * 1024;

type Tail = [u8; TAIL];

/// Loopback UDP ports; RTCP is on the next ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    pub from: u16,
    pub to: u16,
}

impl std::str::FromStr for Relay {
    type Err = String;

    /// `FROM:TO`.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse().ok().filter(|p| (1..u16::MAX).contains(p));
        let ports = text.split_once(':').and_then(|(from, to)| Some(Self { from: port(from)?, to: port(to)? }));
        ports.ok_or_else(|| "two UDP ports are wanted, FROM:TO".to_owned())
    }
}

#[derive(Debug, Default)]
pub struct Report {
    /// Last packet of the access unit in → last byte of its part.
    pub added: Histogram,
    /// Samples whose packets did not pass the relay.
    pub unknown: u64,
    pub part_target: i64,
}

impl Report {
    /// Nearly every sample is known, and 95 of 100 are no later than a part and 10 ms.
    pub fn is_fine(&self) -> bool {
        let goal = u64::try_from(self.part_target).unwrap_or(0) + 10_000;
        self.unknown * 100 <= self.added.count() && self.added.quantile(950).is_some_and(|p95| p95 <= goal)
    }

    pub fn json(&self) -> Value {
        json!({
            "packet_to_part": self.added.json(), "unknown_samples": self.unknown,
            "part_target_ms": self.part_target as f64 / 1000.0, "fine": self.is_fine(),
        })
    }
}

/// Relays, and measures for this long after the stream is there.
pub async fn run(shared: &Rc<Shared>, relay: Relay, wait: Duration, time: Duration) -> Result<Report, Fault> {
    let tails = Rc::new(std::cell::RefCell::new(Tails::default()));
    let mut relays = JoinSet::new();
    for (from, to) in [(relay.from, relay.to), (relay.from + 1, relay.to + 1)] {
        let refused = |e: std::io::Error| Fault::Connect(format!("the relay at UDP port {from}: {e}"));
        let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, from)).await.map_err(refused)?;
        let outer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(refused)?;
        outer.connect((Ipv4Addr::LOCALHOST, to)).await.map_err(refused)?;
        // RTCP has no access units.
        let tails = (from == relay.from).then(|| tails.clone());
        relays.spawn_local(pass(inner, outer, tails));
    }
    let mut connection = Connection::default();
    let deadline = Instant::now() + wait;
    let url = loop {
        match renditions(shared, &mut connection).await {
            Ok(mut urls) => break urls.swap_remove(0),
            Err(fault) if Instant::now() > deadline => return Err(fault),
            // The channel is made, or starts, while this is running.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let (url, body) = playlist(shared, &mut connection, &url, "playlist").await?;
    let mut follower = Follower::new(url.clone());
    let first = shared.parse(&url, body)?;
    let mut report = Report { part_target: first.part_target.unwrap_or(0), ..Report::default() };
    follower.take(first).map_err(Fault::Broken)?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let (_, body) = playlist(shared, &mut connection, &follower.request(), "reload").await?;
        let step = follower.take(shared.parse(&url, body)?).map_err(Fault::Broken)?;
        for wanted in step.wanted.into_iter().filter(|w| w.part.is_some() && w.range.is_none()) {
            let mut body = Vec::new();
            let answer = connection
                .get(&shared.network, &wanted.url, "", &mut |bytes| {
                    if body.len() + bytes.len() <= PART {
                        body.extend_from_slice(bytes);
                    }
                })
                .await?;
            if answer.status != 200 {
                return Err(Fault::Status(answer.status, "part"));
            }
            let mut tails = tails.borrow_mut();
            for sample in samples(&body) {
                match sample.last_chunk().and_then(|tail| tails.take(tail)) {
                    Some(passed) => {
                        let late = answer.last_byte.saturating_duration_since(passed);
                        report.added.add(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
                    }
                    None => report.unknown += 1,
                }
            }
        }
        if step.ended {
            return Err(Fault::Ended);
        }
    }
    Ok(report)
}

async fn pass(inner: UdpSocket, outer: UdpSocket, tails: Option<Rc<std::cell::RefCell<Tails>>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP "unreachable" of a port that is not open yet comes back as an error and means nothing here.
        let Ok(length) = inner.recv(&mut buffer).await else { continue };
        let packet = buffer.get(..length).unwrap_or_default();
        let _ = outer.send(packet).await;
        if let Some(tails) = &tails {
            tails.borrow_mut().packet(packet, Instant::now());
        }
    }
}

/// When the access units passed, by their last bytes.
#[derive(Debug, Default)]
struct Tails {
    /// The last bytes of the access unit that is passing.
    passing: VecDeque<u8>,
    passed: HashMap<Tail, Instant>,
    order: VecDeque<Tail>,
}

impl Tails {
    /// An RTP packet of H.264 (RFC 3550 §5.1, RFC 6184 §5).
    fn packet(&mut self, packet: &[u8], now: Instant) {
        let Some((payload, marker)) = payload(packet) else { return };
        for byte in payload.iter().skip(payload.len().saturating_sub(TAIL)) {
            if self.passing.len() == TAIL {
                self.passing.pop_front();
            }
            self.passing.push_back(*byte);
        }
        if !marker {
            return;
        }
        let tail = Tail::try_from(Vec::from(std::mem::take(&mut self.passing)));
        if let Ok(tail) = tail
            && self.passed.insert(tail, now).is_none()
        {
            self.order.push_back(tail);
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.passed.remove(&oldest);
        }
    }

    fn take(&mut self, tail: &Tail) -> Option<Instant> {
        self.passed.remove(tail)
    }
}

/// The bytes of NAL units in a packet, and whether it is the last of its access unit.
fn payload(packet: &[u8]) -> Option<(&[u8], bool)> {
    let (first, second) = (*packet.first()?, *packet.get(1)?);
    let mut start = 12 + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let length: [u8; 2] = packet.get(start + 2..start + 4)?.try_into().ok()?;
        start += 4 + usize::from(u16::from_be_bytes(length)) * 4;
    }
    let payload = packet.get(start..)?;
    // FU-A: two bytes stand for the NAL unit's header, which is far from its end.
    let skip = if payload.first()? & 0x1f == 28 { 2 } else { 0 };
    Some((payload.get(skip..)?, second & 0x80 != 0))
}

/// The samples of a part: of each track run of each moof (ISO/IEC 14496-12 §8.8). What cannot be read gives none.
fn samples(part: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = part;
    while let Some((kind, body, after)) = next_box(rest) {
        if kind == b"moof" {
            // Offsets count from the moof's first byte (default-base-is-moof).
            moof(body, rest, &mut found);
        }
        rest = after;
    }
    found
}

fn moof<'a>(body: &[u8], base: &'a [u8], found: &mut Vec<&'a [u8]>) {
    for traf in children(body, b"traf") {
        let default = children(traf, b"tfhd").find_map(default_size);
        for run in children(traf, b"trun") {
            let _ = track_run(run, default, base, found);
        }
    }
}

/// tfhd: the default sample size behind the optional fields before it.
fn default_size(tfhd: &[u8]) -> Option<u32> {
    let flags = number(tfhd, 0)?;
    let before = [0x1, 0x2, 0x8].map(|flag| {
        if flags & flag == 0 {
            0
        } else if flag == 1 {
            8
        } else {
            4
        }
    });
    if flags & 0x10 == 0 { None } else { number(tfhd, 8 + before.iter().sum::<usize>()) }
}

fn track_run<'a>(run: &[u8], default: Option<u32>, base: &'a [u8], found: &mut Vec<&'a [u8]>) -> Option<()> {
    let (flags, count) = (number(run, 0)?, number(run, 4)?);
    let mut at = 8;
    // Data offset, and the first sample's flags.
    let mut data = 0;
    if flags & 0x1 != 0 {
        data = usize::try_from(number(run, at)?).ok()?;
        at += 4;
    }
    if flags & 0x4 != 0 {
        at += 4;
    }
    let fields = [0x100, 0x200, 0x400, 0x800].map(|flag| if flags & flag == 0 { 0 } else { 4 });
    for _ in 0..count {
        let size = if flags & 0x200 != 0 { number(run, at + fields[0])? } else { default? };
        let end = data.checked_add(usize::try_from(size).ok()?)?;
        // A size of 0 would make many samples of nothing.
        found.push(base.get(data..end).filter(|s| !s.is_empty())?);
        data = end;
        at += fields.iter().sum::<usize>();
    }
    Some(())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// The first box: its type, its content, and what is behind it.
fn next_box(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let size = usize::try_from(number(bytes, 0)?).ok()?;
    let kind = bytes.get(4..)?.first_chunk()?;
    Some((kind, bytes.get(8..size)?, bytes.get(size..)?))
}

fn children<'a>(body: &'a [u8], wanted: &'static [u8; 4]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = body;
    let boxes = std::iter::from_fn(move || {
        let (kind, body, after) = next_box(rest)?;
        rest = after;
        Some((kind, body))
    });
    boxes.filter(move |(kind, _)| *kind == wanted).map(|(_, body)| body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rtp(marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, if marker { 0xe0 } else { 0x60 }];
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(payload);
        packet
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes(), &kind[..], body].concat()
    }

    /// A part of two samples with their sizes in the run, or with one default size.
    fn part(default: Option<u32>, first: &[u8], second: &[u8]) -> Vec<u8> {
        let build = |offset: u32| {
            let words = |words: &[u32]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
            let sizes = [first.len(), second.len()].map(|n| u32::try_from(n).unwrap());
            let (tfhd, trun) = match default {
                Some(size) => (words(&[0x20018, 1, 3000, size]), words(&[0x1, 2, offset])),
                None => (words(&[0x20000, 1]), words(&[0x305, 2, offset, 7, 3000, sizes[0], 3000, sizes[1]])),
            };
            let traf = [boxed(b"tfhd", &tfhd), boxed(b"tfdt", &[0; 12]), boxed(b"trun", &trun)].concat();
            boxed(b"moof", &[boxed(b"mfhd", &[0; 8]), boxed(b"traf", &traf)].concat())
        };
        let moof = build(u32::try_from(build(0).len() + 8).unwrap());
        [boxed(b"styp", b"cmfs"), moof, boxed(b"mdat", &[first, second].concat())].concat()
    }

    #[test]
    fn the_samples_of_a_part_are_found() {
        let bytes = part(None, b"first", b"second!");
        assert_eq!(samples(&bytes), [&b"first"[..], b"second!"]);
        assert_eq!(samples(&part(Some(4), b"abcd", b"efgh")), [&b"abcd"[..], b"efgh"]);
        let twice = [bytes.clone(), bytes.clone()].concat();
        assert_eq!(samples(&twice).len(), 4);
        // Nothing cut off or damaged does harm.
        for end in 0..bytes.len() {
            assert!(samples(&bytes[..end]).len() <= 2);
            let mut damaged = bytes.clone();
            damaged[end] = 0xff;
            assert!(samples(&damaged).len() <= 2);
        }
    }

    #[test]
    fn an_access_unit_is_known_by_its_end() {
        let mut tails = Tails::default();
        let now = Instant::now();
        let unit: Vec<u8> = (0..100).collect();
        // FU-A fragments; the last one is shorter than a tail.
        tails.packet(&rtp(false, &[&[28, 0x85], &unit[..90]].concat()), now);
        tails.packet(&rtp(true, &[&[28, 0x45], &unit[90..]].concat()), now + Duration::from_millis(1));
        assert_eq!(tails.take(unit.last_chunk().unwrap()), Some(now + Duration::from_millis(1)));
        assert_eq!(tails.take(unit.last_chunk().unwrap()), None);
        // A header extension and contributing sources are no payload.
        let mut packet = vec![0x91, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0xbe, 0xde, 0, 1, 9, 9, 9, 9, 1];
        packet.extend_from_slice(&unit);
        tails.packet(&packet, now);
        assert_eq!(tails.take(unit.last_chunk().unwrap()), Some(now));
        for end in 0..packet.len() {
            tails.packet(&packet[..end], now);
        }
        for n in 0..10_000u32 {
            tails.packet(&rtp(true, &[[1; TAIL].as_slice(), &n.to_be_bytes()].concat()), now);
        }
        assert!(tails.passed.len() <= KEPT && tails.order.len() <= KEPT, "{}", tails.passed.len());
    }

    #[test]
    fn ports_are_read() {
        assert_eq!("6000:7000".parse(), Ok(Relay { from: 6000, to: 7000 }));
        for text in ["6000", "6000:", "0:1", "65535:6", "a:b", "6000:70000"] {
            assert!(text.parse::<Relay>().is_err(), "{text}");
        }
    }
}
