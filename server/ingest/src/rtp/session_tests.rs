//! The session under a made-up publisher, network and clock: whole pictures or none, one timeline, bounded answers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::{AccessUnit, EndReason, GapReason, IngestEvent, TrackConfig, TrackKind, WallTime};
use proptest::prelude::*;

use super::packet::write;
use super::rtcp::Ntp;
use super::{Feedback, RtpSession, RtpSessionConfig, TrackFormat, TrackSpec};
use crate::IngestStats;
use crate::h264::{BitWriter, write_sps};

const WALL: i64 = 1_790_000_000_000_000;
const MS: Duration = Duration::from_millis(1);

fn pps() -> Vec<u8> {
    BitWriter::default().ue(0).ue(0).u(2, 0).ue(0).finish(0x68)
}

/// A slice of a stream of `write_sps(77, (20, 15), 2, ..)`, with a body that names its picture.
fn slice(header: u8, first_mb: u32, kind: u32, poc: Option<u32>, name: u32, size: usize) -> Vec<u8> {
    let mut w = BitWriter::default();
    w.ue(first_mb).ue(kind).ue(0).u(8, name & 0xff);
    if header & 0x1f == 5 {
        w.ue(0);
    }
    if let Some(poc) = poc {
        w.u(8, poc);
    }
    for i in 0..size as u32 {
        w.u(8, (name.wrapping_mul(31) ^ i.wrapping_mul(7)) & 0xff);
    }
    w.finish(header)
}

/// RFC 6184: small units together in a STAP-A, large ones in FU-As.
fn packetize(units: &[Vec<u8>], mtu: usize) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = vec![];
    let mut aggregate: Vec<u8> = vec![];
    for unit in units {
        if unit.len() + 2 + aggregate.len() < mtu {
            if aggregate.is_empty() {
                aggregate.push(0x18 | unit[0] & 0x60);
            }
            aggregate.extend((unit.len() as u16).to_be_bytes());
            aggregate.extend(unit);
            continue;
        }
        if !aggregate.is_empty() {
            out.push(std::mem::take(&mut aggregate));
        }
        if unit.len() <= mtu {
            out.push(unit.clone());
            continue;
        }
        let chunks: Vec<&[u8]> = unit[1..].chunks(mtu - 2).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            let flags = if i == 0 { 0x80 } else { 0 } | if i + 1 == chunks.len() { 0x40 } else { 0 };
            let mut p = vec![0x1c | unit[0] & 0xe0, flags | unit[0] & 0x1f];
            p.extend_from_slice(chunk);
            out.push(p);
        }
    }
    if !aggregate.is_empty() {
        out.push(aggregate);
    }
    out
}

fn avcc(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|u| [&(u.len() as u32).to_be_bytes()[..], u].concat()).collect()
}

fn video() -> TrackSpec {
    TrackSpec {
        payload_type: 96,
        rtx_payload_type: Some(99),
        format: TrackFormat::H264 { parameter_sets: vec![] },
        clock_rate: 90_000,
        ssrc: None,
    }
}

fn opus() -> TrackSpec {
    TrackSpec {
        payload_type: 97,
        rtx_payload_type: None,
        format: TrackFormat::Opus { channels: 2 },
        clock_rate: 48_000,
        ssrc: None,
    }
}

struct Rig {
    session: RtpSession,
    stats: Arc<IngestStats>,
    start: Instant,
    events: Vec<IngestEvent>,
    feedback: Vec<Feedback>,
}

impl Rig {
    fn new(tracks: Vec<TrackSpec>, feedback: bool) -> Self {
        let stats = Arc::new(IngestStats::default());
        let config = RtpSessionConfig {
            tracks,
            jitter_budget: 60 * MS,
            can_ask_key_frames: feedback,
            can_nack: feedback,
            can_report: feedback,
        };
        let session = RtpSession::new(config, stats.clone());
        Self { session, stats, start: Instant::now(), events: vec![], feedback: vec![] }
    }

    fn wall(&self, at: Duration) -> WallTime {
        WallTime(WALL + at.as_micros() as i64)
    }

    /// Lets every timeout up to `at` happen.
    fn run(&mut self, at: Duration) {
        let mut rounds = 0;
        while let Some(due) = self.session.next_timeout().filter(|t| *t <= self.start + at) {
            self.session.on_timeout(due);
            self.drain();
            rounds += 1;
            assert!(rounds < 10_000, "a timeout that never moves on");
        }
    }

    fn rtp(&mut self, at: Duration, packet: Bytes) {
        self.run(at);
        self.session.on_rtp(self.start + at, self.wall(at), packet);
        self.drain();
    }

    fn report(&mut self, at: Duration, ssrc: u32, ntp_us: i64, rtp: u32) {
        let mut d = vec![0x80, 200, 0, 6];
        d.extend(ssrc.to_be_bytes());
        d.extend(Ntp::from_unix_micros(WALL + ntp_us).0.to_be_bytes());
        d.extend(rtp.to_be_bytes());
        d.extend([0; 8]);
        self.session.on_rtcp(self.start + at, self.wall(at), d.into());
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(e) = self.session.poll_event() {
            self.events.push(e);
        }
        while let Some(f) = self.session.poll_feedback() {
            self.feedback.push(f);
        }
    }

    fn units(&self, kind: TrackKind) -> Vec<&AccessUnit> {
        self.events
            .iter()
            .filter_map(|e| match e {
                IngestEvent::Unit(u) if u.kind() == kind => Some(u),
                _ => None,
            })
            .collect()
    }

    fn discontinuities(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, IngestEvent::Discontinuity)).count()
    }

    fn gaps(&self) -> Vec<(TrackKind, GapReason)> {
        self.events
            .iter()
            .filter_map(|e| if let IngestEvent::Gap { track, reason } = e { Some((*track, *reason)) } else { None })
            .collect()
    }

    fn count(&self, counter: impl Fn(&IngestStats) -> &AtomicU64) -> u64 {
        counter(&self.stats).load(Ordering::Relaxed)
    }
}

/// A publisher of 25 frames a second without reordering, key frames every ten.
struct Camera {
    seq: u16,
    ts: u32,
    ssrc: u32,
    frame: u32,
    mtu: usize,
    size: usize,
}

impl Camera {
    fn new() -> Self {
        Self { seq: 1000, ts: 5_000_000, ssrc: 1, frame: 0, mtu: 1200, size: 100 }
    }

    fn units(&self, n: u32) -> (Vec<Vec<u8>>, bool) {
        let key = n.is_multiple_of(10);
        let mut units = if key { vec![write_sps(77, (20, 15), 2, None), pps()] } else { vec![] };
        let (header, kind) = if key { (0x65, 7) } else { (0x41, 5) };
        units.push(slice(header, 0, kind, None, n, self.size));
        units.push(slice(header, 150, kind, None, n + 1000, self.size));
        (units, key)
    }

    fn next(&mut self) -> Vec<Bytes> {
        let (units, _) = self.units(self.frame);
        let payloads = packetize(&units, self.mtu);
        let last = payloads.len() - 1;
        let out = payloads
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let seq = self.seq.wrapping_add(i as u16);
                write(96, i == last, seq, self.ts, self.ssrc, p)
            })
            .collect();
        self.seq = self.seq.wrapping_add(payloads.len() as u16);
        self.ts = self.ts.wrapping_add(3600);
        self.frame += 1;
        out
    }

    fn data(&self, n: u32) -> Vec<u8> {
        let (units, key) = self.units(n);
        avcc(if key { &units[2..] } else { &units })
    }
}

fn opus_packet(n: u32, ts0: u32, ssrc: u32) -> Bytes {
    write(97, false, n as u16, ts0.wrapping_add(n * 960), ssrc, &[31 << 3, n as u8, 1])
}

#[test]
fn a_clean_stream_comes_out_as_it_went_in() {
    let mut rig = Rig::new(vec![video()], false);
    let mut camera = Camera::new();
    camera.seq = 65_530;
    camera.ts = u32::MAX - 10_000;
    for n in 0..40u32 {
        for p in camera.next() {
            rig.rtp(40 * MS * n, p);
        }
    }
    let units = rig.units(TrackKind::Video);
    assert_eq!(units.len(), 40);
    for (n, u) in units.iter().enumerate() {
        assert_eq!((u.pts.millis(), u.dts, u.key), (n as i64 * 40, u.pts, n % 10 == 0));
        assert_eq!(u.data, camera.data(n as u32));
    }
    let TrackConfig::H264(c) = &*units[0].config else { panic!() };
    assert_eq!((c.width, c.height), (320, 240));
    assert!(units.iter().all(|u| Arc::ptr_eq(&u.config, &units[0].config)));
    assert!(matches!(rig.events[0], IngestEvent::Clock(map) if map.wall.0 == WALL && map.media.0 == 0));
    assert_eq!((rig.discontinuities(), rig.gaps()), (0, vec![]));
}

#[test]
fn a_lost_packet_costs_the_rest_of_its_gop_and_says_so_once() {
    let mut rig = Rig::new(vec![video()], true);
    let mut camera = Camera::new();
    for n in 0..30u32 {
        for p in camera.next() {
            if n != 13 {
                rig.rtp(40 * MS * n, p);
            }
        }
    }
    let pts: Vec<i64> = rig.units(TrackKind::Video).iter().map(|u| u.pts.millis() / 40).collect();
    assert_eq!(pts, (0..13).chain(20..30).collect::<Vec<_>>());
    assert_eq!(rig.gaps(), [(TrackKind::Video, GapReason::Loss)]);
    assert!(rig.units(TrackKind::Video)[13].key);
    assert_eq!(rig.count(|s| &s.lost), 1);
    // Asked for the packet, then for a key frame.
    assert!(rig.feedback.iter().any(|f| matches!(f, Feedback::Nack { ssrc: 1, seqs } if seqs.len() == 1)));
    assert!(rig.feedback.contains(&Feedback::KeyFrame { ssrc: 1 }));
    assert!(rig.feedback.iter().any(|f| matches!(f, Feedback::Report(r) if r.ssrc == 1 && r.cumulative_lost == 1)));
}

#[test]
fn a_retransmission_repairs() {
    let mut rig = Rig::new(vec![video()], true);
    let mut camera = Camera::new();
    let mut lost = None;
    for n in 0..12u32 {
        for p in camera.next() {
            if n == 5 {
                lost = Some(p);
            } else {
                rig.rtp(40 * MS * n, p);
            }
        }
        if n == 6 {
            let p = lost.take().unwrap();
            let payload = [&p[2..4], &p[12..]].concat();
            rig.rtp(40 * MS * n + 20 * MS, write(99, p[1] & 0x80 != 0, 7, camera.ts - 7200, 55, &payload));
        }
    }
    assert_eq!(rig.units(TrackKind::Video).len(), 12);
    assert_eq!((rig.gaps(), rig.count(|s| &s.repaired)), (vec![], 1));
    let asked: Vec<_> = rig.feedback.iter().filter(|f| matches!(f, Feedback::Nack { .. })).collect();
    assert_eq!(asked.len(), 1);
}

#[test]
fn opus_beside_video_without_reports_is_aligned_by_arrival() {
    let mut rig = Rig::new(vec![video(), opus()], false);
    let mut camera = Camera::new();
    for n in 0..100u32 {
        // Video's path is 7 ms longer.
        if n % 2 == 0 {
            for p in camera.next() {
                rig.rtp(20 * MS * n + 7 * MS, p);
            }
        }
        rig.rtp(20 * MS * n + 8 * MS, opus_packet(n, 77, 2));
    }
    let (v, a) = (rig.units(TrackKind::Video), rig.units(TrackKind::Audio));
    assert_eq!((v.len(), a.len()), (50, 100));
    assert_eq!(v[0].pts.millis(), 0);
    assert_eq!(a[0].pts.millis(), 1);
    assert!(a.windows(2).all(|w| w[0].pts + w[0].duration.unwrap() == w[1].pts));
}

#[test]
fn reports_align_what_arrival_cannot() {
    let mut rig = Rig::new(vec![video(), opus()], false);
    let mut camera = Camera::new();
    // An encoder with 1.2 s of look-ahead: video that was captured with audio comes that much later.
    rig.report(Duration::ZERO, 1, 0, camera.ts);
    rig.report(Duration::ZERO, 2, 0, 77);
    for n in 0..200u32 {
        rig.rtp(20 * MS * n, opus_packet(n, 77, 2));
        if n >= 60 && n % 2 == 0 {
            for p in camera.next() {
                rig.rtp(20 * MS * n, p);
            }
        }
    }
    let (v, a) = (rig.units(TrackKind::Video), rig.units(TrackKind::Audio));
    assert_eq!((v[0].pts.0, a[0].pts.0), (0, 0));
    assert_eq!((v.len(), a.len()), (70, 200));
    assert!(matches!(rig.events[0], IngestEvent::Clock(map) if map.wall_of(v[0].pts).0 - WALL < 10));
    assert_eq!(rig.discontinuities(), 0);
}

#[test]
fn a_small_error_that_reports_reveal_is_slewed_away() {
    let mut rig = Rig::new(vec![video(), opus()], false);
    let mut camera = Camera::new();
    let ts0 = camera.ts;
    for n in 0..1500u32 {
        rig.rtp(20 * MS * n, opus_packet(n, 77, 2));
        if n % 2 == 0 {
            for p in camera.next() {
                rig.rtp(20 * MS * n, p);
            }
        }
        if n == 100 {
            // Video was captured 50 ms before audio that arrives with it.
            rig.report(20 * MS * n, 1, 2_000_000 - 50_000, ts0.wrapping_add(180_000));
            rig.report(20 * MS * n, 2, 2_000_000, 77 + 96_000);
        }
    }
    let v = rig.units(TrackKind::Video);
    assert_eq!(rig.discontinuities(), 0);
    assert!((v[749].pts.millis() - (749 * 40 - 50)).abs() <= 2, "{}", v[749].pts.millis());
    // Never by more than 5 ms a second.
    assert!(v.windows(26).all(|w| ((w[25].pts - w[0].pts).millis() - 1000).abs() <= 6));
    let a = rig.units(TrackKind::Audio);
    assert!(a.windows(2).all(|w| w[0].pts + w[0].duration.unwrap() == w[1].pts), "audio is never re-timed");
}

#[test]
fn a_missing_track_is_waited_for_and_then_joins() {
    let mut rig = Rig::new(vec![video(), opus()], false);
    let mut camera = Camera::new();
    for n in 0..100u32 {
        for p in camera.next() {
            rig.rtp(40 * MS * n, p);
        }
        if n >= 50 {
            rig.rtp(40 * MS * n, opus_packet(2 * n, 0, 2));
            rig.rtp(40 * MS * n, opus_packet(2 * n + 1, 0, 2));
        }
        if n == 36 {
            assert!(rig.events.is_empty());
        }
        if n == 38 {
            assert_eq!(rig.units(TrackKind::Video).len(), 39);
        }
    }
    let first = rig.units(TrackKind::Audio)[0].pts.millis();
    assert!((first - 2000).abs() <= 40, "{first}");
    assert_eq!(rig.units(TrackKind::Video).len(), 100);
}

#[test]
fn the_clock_is_told_though_all_audio_was_cut() {
    let mut rig = Rig::new(vec![video(), opus()], false);
    for n in 0..3 {
        rig.rtp(20 * MS * n, opus_packet(n, 0, 2));
    }
    for p in Camera::new().next() {
        rig.rtp(400 * MS, p);
    }
    assert!(
        matches!(rig.events[..], [IngestEvent::Clock(map), IngestEvent::Unit(_)] if map.wall == rig.wall(400 * MS))
    );
}

#[test]
fn a_restarted_sender_is_one_discontinuity_and_time_goes_on() {
    let mut rig = Rig::new(vec![video(), opus()], false);
    let mut camera = Camera::new();
    for n in 0..200u32 {
        if n == 100 {
            camera = Camera { ssrc: 9, ts: 123, seq: 7, ..Camera::new() };
        }
        let late = if n >= 100 { 3000 * MS } else { Duration::ZERO };
        let ssrc = if n >= 100 { 8 } else { 2 };
        rig.rtp(20 * MS * n + late, opus_packet(n, 77 * ssrc, ssrc));
        if n % 2 == 0 {
            for p in camera.next() {
                rig.rtp(20 * MS * n + late, p);
            }
        }
    }
    assert_eq!(rig.discontinuities(), 1);
    let v = rig.units(TrackKind::Video);
    assert!(v.windows(2).all(|w| w[0].dts < w[1].dts));
    let resumed = v.iter().find(|u| u.pts.millis() > 2000).unwrap();
    assert!(resumed.key && (resumed.pts.millis() - 5000).abs() <= 40, "{}", resumed.pts.millis());
    let a = rig.units(TrackKind::Audio);
    let skew = (a.last().unwrap().pts - v.last().unwrap().pts).millis();
    assert!((skew - 20).abs() <= 40, "{skew}");
}

#[test]
fn a_timestamp_jump_is_a_discontinuity_at_the_next_key_frame() {
    for jump in [3600u32 * 90_000, 0u32.wrapping_sub(3600 * 90_000)] {
        let mut rig = Rig::new(vec![video()], false);
        let mut camera = Camera::new();
        for n in 0..60u32 {
            if n == 35 {
                camera.ts = camera.ts.wrapping_add(jump);
            }
            for p in camera.next() {
                rig.rtp(40 * MS * n, p);
            }
        }
        assert_eq!(rig.discontinuities(), 1);
        let v = rig.units(TrackKind::Video);
        assert_eq!(v.len(), 55);
        assert!(v[35].key && (v[35].pts.millis() - 1600).abs() <= 40, "{}", v[35].pts.millis());
        assert!(v.windows(2).all(|w| w[0].dts < w[1].dts));
    }
}

#[test]
fn flapping_sources_and_timestamps_are_bounded() {
    let mut rig = Rig::new(vec![opus()], false);
    for n in 0..5000u32 {
        // Another source every packet, then a random clock.
        let (ssrc, ts) = if n < 2500 { (n % 50, n * 960) } else { (1, n.wrapping_mul(2_654_435_761)) };
        rig.rtp(MS * n, write(97, false, n as u16, ts, ssrc, &[31 << 3, 1]));
    }
    assert!(rig.discontinuities() <= 6, "{}", rig.discontinuities());
    let a = rig.units(TrackKind::Audio);
    assert!(a.windows(2).all(|w| w[0].pts < w[1].pts));
}

#[test]
fn a_standing_clock_gives_no_endless_pictures() {
    let mut rig = Rig::new(vec![video()], false);
    let mut camera = Camera::new();
    for n in 0..100u32 {
        for p in camera.next() {
            rig.rtp(40 * MS * n, p);
        }
        camera.ts = 5_000_000;
    }
    let v = rig.units(TrackKind::Video);
    assert!(v.windows(2).all(|w| w[0].dts < w[1].dts));
    assert!(v.last().unwrap().pts.millis() < 100);
}

#[test]
fn bye_ends_the_session_unless_media_goes_on() {
    let bye = || Bytes::from_static(&[0x81, 203, 0, 1, 0, 0, 0, 2]);
    let mut rig = Rig::new(vec![opus()], false);
    rig.rtp(Duration::ZERO, opus_packet(0, 0, 2));
    rig.session.on_rtcp(rig.start + 10 * MS, WallTime(WALL), bye());
    rig.rtp(20 * MS, opus_packet(1, 0, 2));
    rig.run(Duration::from_secs(10));
    assert!(!rig.events.iter().any(|e| matches!(e, IngestEvent::Ended(_))));
    let t = Duration::from_secs(10);
    rig.session.on_rtcp(rig.start + t, WallTime(WALL), bye());
    rig.run(t + 999 * MS);
    assert!(!rig.events.iter().any(|e| matches!(e, IngestEvent::Ended(_))));
    rig.run(t + 2000 * MS);
    let ends = rig.events.iter().filter(|e| matches!(e, IngestEvent::Ended(EndReason::Closed))).count();
    assert_eq!(ends, 1);
}

#[test]
fn a_refused_nal_unit_is_counted_and_the_stream_goes_on() {
    let mut rig = Rig::new(vec![video()], false);
    let mut camera = Camera::new();
    for n in 0..20u32 {
        // NAL type 27 in a packet of its own, in the middle of the picture's timestamp.
        rig.rtp(40 * MS * n, write(96, false, camera.seq, camera.ts, 1, &[0x7b, 1, 2, 3]));
        camera.seq += 1;
        for p in camera.next() {
            rig.rtp(40 * MS * n, p);
        }
    }
    let v = rig.units(TrackKind::Video);
    assert_eq!(v.len(), 20);
    assert!(v.iter().enumerate().all(|(n, u)| u.data == camera.data(n as u32)));
    assert_eq!(rig.count(|s| &s.gate_refused), 20);
}

#[test]
fn what_has_no_end_is_refused_at_its_bound() {
    let mut rig = Rig::new(vec![video()], false);
    let mut camera = Camera::new();
    for p in camera.next() {
        rig.rtp(Duration::ZERO, p);
    }
    let at = 40 * MS;
    // A fragment that never ends, 12 MB of it; then 300 slices.
    for i in 0..9000u32 {
        let mut p = vec![0x7c, if i == 0 { 0x81 } else { 0x01 }];
        p.resize(1400, 0xaa);
        rig.rtp(at, write(96, false, camera.seq, camera.ts, 1, &p));
        camera.seq = camera.seq.wrapping_add(1);
    }
    assert_eq!(rig.count(|s| &s.gate_refused), 1);
    camera.frame = 10;
    camera.ts += 3600;
    for p in camera.next() {
        rig.rtp(2 * at, p);
    }
    for i in 0..300u32 {
        let p = slice(0x41, i, 5, None, 1, 4);
        rig.rtp(3 * at, write(96, i == 299, camera.seq, camera.ts, 1, &p));
        camera.seq += 1;
    }
    assert_eq!(rig.units(TrackKind::Video).len(), 2);
    let refused = (TrackKind::Video, GapReason::Refused);
    assert_eq!(rig.gaps(), [refused, refused]);
}

#[test]
fn annex_b_inside_rtp_and_stray_markers_are_tolerated() {
    let mut rig = Rig::new(vec![video()], false);
    let camera = Camera::new();
    let mut seq = 0;
    for n in 0..20u32 {
        let (units, _) = camera.units(n);
        let annex_b: Vec<u8> = units.iter().flat_map(|u| [&[0, 0, 0, 1][..], u].concat()).collect();
        // SEI with a marker (Ivel) in front of the picture that it belongs to.
        rig.rtp(40 * MS * n, write(96, true, seq, n * 3600, 1, &[0x06, 5, 1, 0, 0x80]));
        rig.rtp(40 * MS * n, write(96, true, seq + 1, n * 3600, 1, &annex_b));
        seq += 2;
    }
    let v = rig.units(TrackKind::Video);
    assert_eq!(v.len(), 20);
    let sei = [0, 0, 0, 5, 0x06, 5, 1, 0, 0x80];
    assert!(v.iter().enumerate().all(|(n, u)| u.data == [&sei[..], &camera.data(n as u32)].concat()));
}

#[test]
fn a_new_size_takes_effect_at_its_key_frame() {
    let mut rig = Rig::new(vec![video()], false);
    let mut seq = 0;
    let mut send = |rig: &mut Rig, n: u32, units: &[Vec<u8>]| {
        for p in packetize(units, 1200) {
            rig.rtp(40 * MS * n, write(96, false, seq, n * 3600, 1, &p));
            seq += 1;
        }
    };
    let idr = |n| slice(0x65, 0, 7, None, n, 20);
    send(&mut rig, 0, &[write_sps(77, (20, 15), 2, None), pps(), idr(0)]);
    // The new set comes early; without a marker the next timestamp ends each picture.
    send(&mut rig, 1, &[write_sps(77, (40, 30), 2, None), slice(0x41, 0, 5, None, 1, 20)]);
    send(&mut rig, 2, &[idr(2)]);
    send(&mut rig, 3, &[slice(0x41, 0, 5, None, 3, 20)]);
    let widths: Vec<u32> = rig
        .units(TrackKind::Video)
        .iter()
        .map(|u| match &*u.config {
            TrackConfig::H264(c) => c.width,
            _ => 0,
        })
        .collect();
    assert_eq!(widths, [320, 320, 640]);
}

#[test]
fn reordered_pictures_get_rising_decode_times() {
    for declared in [Some(1), None] {
        let mut rig = Rig::new(vec![video()], false);
        let mut seq = 0;
        // Shown as I b P b P ...: decoded 0 2 1 4 3 ...
        for n in 0..20u32 {
            let shown = if n == 0 {
                0
            } else if n % 2 == 1 {
                n + 1
            } else {
                n - 1
            };
            let unit = match n {
                0 => slice(0x65, 0, 7, Some(0), n, 20),
                n if n % 2 == 1 => slice(0x41, 0, 5, Some(shown * 2), n, 20),
                _ => slice(0x01, 0, 6, Some(shown * 2), n, 20),
            };
            let mut units = if n == 0 { vec![write_sps(77, (20, 15), 0, declared), pps()] } else { vec![] };
            units.push(unit);
            for p in packetize(&units, 1200) {
                rig.rtp(40 * MS * n, write(96, true, seq, 9000 + shown * 3600, 1, &p));
                seq += 1;
            }
        }
        let v = rig.units(TrackKind::Video);
        assert_eq!(v.len(), 20, "{declared:?}");
        assert!(v.windows(2).all(|w| w[0].dts < w[1].dts));
        assert!(v.iter().all(|u| u.dts <= u.pts));
        assert_eq!(rig.gaps(), []);
    }
}

#[test]
fn the_clock_follows_a_sender_that_drifts() {
    let mut rig = Rig::new(vec![opus()], false);
    // 500 ppm for two minutes is 60 ms.
    for n in 0..6000u32 {
        let at = Duration::from_nanos(20_010_000) * n;
        rig.rtp(at, opus_packet(n, 0, 2));
    }
    let maps: Vec<_> =
        rig.events.iter().filter_map(|e| if let IngestEvent::Clock(map) = e { Some(*map) } else { None }).collect();
    assert!((5..=120).contains(&maps.len()), "{}", maps.len());
    let last = rig.units(TrackKind::Audio).last().unwrap().pts;
    let true_wall = WALL + 5999 * 20_010;
    let off = maps.last().unwrap().wall_of(last).0 - true_wall;
    assert!(off.abs() <= 15_000, "{off}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whole_pictures_or_none_under_loss_reorder_and_duplication(
        mtu in 40usize..1500,
        size in 1usize..600,
        start: u16,
        loss in prop::collection::btree_set(0usize..600, 0..12),
        duplicated in prop::collection::btree_set(0usize..600, 0..20),
        delayed in prop::collection::btree_map(0usize..600, 1u32..50, 0..30),
    ) {
        let mut camera = Camera { seq: start, mtu, size, ..Camera::new() };
        // By arrival time, then by order of sending.
        let mut network: BTreeMap<(Duration, usize), Bytes> = BTreeMap::new();
        let (mut i, mut lost, mut owner) = (0, vec![], vec![]);
        for n in 0..50u32 {
            for (k, p) in camera.next().into_iter().enumerate() {
                let mut at = 40 * MS * n + MS / 8 * k as u32;
                // The first packet stays first: what is before it is nobody's loss.
                if i > 0 && loss.contains(&i) {
                    lost.push(n);
                } else {
                    if i > 0 {
                        at += MS * delayed.get(&i).copied().unwrap_or(0);
                    }
                    if duplicated.contains(&i) {
                        network.insert((at + 3 * MS, i), p.clone());
                    }
                    network.insert((at, i), p);
                }
                owner.push(n);
                i += 1;
            }
        }
        let mut rig = Rig::new(vec![video()], false);
        for ((at, _), p) in network {
            rig.rtp(at, p);
        }
        rig.run(Duration::from_secs(10));
        let sent: Vec<Vec<u8>> = (0..50).map(|n| camera.data(n)).collect();
        let named = |u: &AccessUnit| sent.iter().position(|d| u.data == d).map(|n| n as u32);
        let v = rig.units(TrackKind::Video);
        // With the first key frame lost the timeline begins at a later one.
        let begun = v.first().and_then(|u| named(u)).unwrap_or(0);
        let mut seen = vec![];
        for u in &v {
            let n = named(u).expect("a picture as it was sent");
            prop_assert_eq!((u.pts.millis() + 20) / 40, i64::from(n - begun));
            seen.push(n);
        }
        prop_assert!(seen.windows(2).all(|w| w[0] < w[1]));
        let good = (0..50u32).filter(|n| {
            // Decodable: nothing lost since its key frame.
            !lost.iter().any(|l| *l >= n - n % 10 && l <= n)
        });
        for n in good {
            // A loss just before a key frame may be noticed only with it.
            prop_assert!(seen.contains(&n), "picture {} is missing, lost {:?}, seen {:?}", n, lost, seen);
        }
        prop_assert_eq!(rig.discontinuities(), 0);
    }

    #[test]
    fn random_packets_never_panic_and_stay_bounded(
        packets in prop::collection::vec(
            (any::<bool>(), any::<u16>(), any::<u32>(), 0u32..3, prop::collection::vec(any::<u8>(), 0..90), 0u64..100),
            0..200
        ),
        control in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)
    ) {
        let mut rig = Rig::new(vec![video(), opus()], true);
        let mut camera = Camera::new();
        let mut at = Duration::ZERO;
        for p in camera.next() {
            rig.rtp(at, p);
        }
        for (i, (video, seq, ts, ssrc, payload, wait)) in packets.into_iter().enumerate() {
            at += MS * wait as u32;
            // Half of them fit into the sequence.
            let seq = if i % 2 == 0 { seq } else { camera.seq.wrapping_add(i as u16) };
            let ts = if i % 3 == 0 { ts } else { camera.ts };
            rig.rtp(at, write(if video { 96 } else { 97 }, i % 5 == 0, seq, ts, ssrc, &payload));
        }
        for c in control {
            rig.session.on_rtcp(rig.start + at, WallTime(WALL), c.into());
        }
        rig.run(at + Duration::from_secs(20));
        for kind in [TrackKind::Video, TrackKind::Audio] {
            prop_assert!(rig.units(kind).windows(2).all(|w| w[0].dts < w[1].dts));
            prop_assert!(rig.units(kind).iter().all(|u| u.dts <= u.pts));
        }
    }
}
