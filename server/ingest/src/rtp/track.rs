//! One track of a session: its source, its buffers, its codec, and its place on the timeline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::{GapReason, MediaDuration, MediaTime, OpusConfig, TrackConfig, TrackKind};

use super::clock::{ArrivalFilter, SenderClock};
use super::jitter::{JitterBuffer, Released};
use super::packet::RtpPacket;
use super::rtcp::{Ntp, ReportBlock};
use super::session::{TrackFormat, TrackSpec};
use super::timestamp::TimestampUnwrapper;
use crate::IngestStats;
use crate::depacketize::aac::AacDepacketizer;
use crate::depacketize::h264::{H264Depacketizer, H264Out};
use crate::depacketize::opus;
use crate::h264::{DecodeTimes, PictureInfo};

/// Timestamps that jump further ahead, or further back than any reordering, begin a new epoch (D23).
const MAX_AHEAD_S: i64 = 10;
const MAX_BACK_S: i64 = 1;
/// What waits for the other tracks before the start: 1.5 s of anything, with room for bursts. When full, audio loses its
/// oldest frame and video starts again at a key frame.
const MAX_HELD_UNITS: usize = 1024;
const MAX_HELD_BYTES: usize = 24 << 20;
/// Packets of a new source that are kept until two came in sequence.
const MAX_RIVAL_PACKETS: usize = 16;

/// A packet with its time of arrival.
pub type Arrived = (Instant, RtpPacket);

/// A unit on its sender's clock.
#[derive(Clone, Debug)]
pub struct RawUnit {
    /// Unwrapped RTP timestamp.
    pub ts: i64,
    pub key: bool,
    pub picture: Option<PictureInfo>,
    /// Audio: samples at the configuration's timescale.
    pub duration: u32,
    pub config: Arc<TrackConfig>,
    pub data: Bytes,
}

#[derive(Clone, Debug)]
pub enum Raw {
    Unit(RawUnit),
    Gap(GapReason),
}

pub struct Track {
    pub kind: TrackKind,
    pub rate: u32,
    pub ssrc: Option<u32>,
    pub unwrap: TimestampUnwrapper,
    pub jitter: JitterBuffer,
    pub sender: SenderClock,
    pub arrival: ArrivalFilter,
    pub reception: Reception,
    pub decode_times: DecodeTimes,
    pub first_packet: Option<Instant>,
    pub last_packet: Option<Instant>,
    pub bye: Option<Instant>,
    /// When the present epoch began, if it is not the first.
    pub epoch_began: Option<Instant>,
    /// Another source that would take over.
    pub rival: Option<(u32, Vec<Arrived>)>,
    /// Arrival of the end of the epoch before, and its time.
    pub left_epoch: Option<(i64, MediaTime)>,
    pub after_gap: bool,
    pub last_pts: Option<MediaTime>,
    pub last_end: Option<MediaTime>,
    pub last_duration: Option<MediaDuration>,
    pub last_unit_ts: Option<i64>,
    /// Units in a row with the same timestamp.
    pub repeats: i64,
    codec: Codec,
    /// Timestamp and time of the epoch's first unit.
    place: Option<(i64, MediaTime)>,
    held: VecDeque<Raw>,
    held_bytes: usize,
    last_ts: Option<i64>,
}

enum Codec {
    H264(Box<H264Depacketizer>),
    Opus(Arc<TrackConfig>),
    Aac(AacDepacketizer, Arc<TrackConfig>, u32),
}

impl Track {
    pub fn new(spec: &TrackSpec, budget: Duration, stats: &Arc<IngestStats>) -> Self {
        let codec = match &spec.format {
            TrackFormat::H264 { parameter_sets } => {
                Codec::H264(Box::new(H264Depacketizer::new(parameter_sets, stats.clone())))
            }
            TrackFormat::Opus { channels } => {
                // 312 samples are libopus' own look-ahead, which every stream of it begins with.
                Codec::Opus(TrackConfig::Opus(OpusConfig { channels: *channels, pre_skip: 312 }).shared())
            }
            TrackFormat::Aac { config, size_length, index_length, index_delta_length } => Codec::Aac(
                AacDepacketizer::new(config, spec.clock_rate, *size_length, *index_length, *index_delta_length),
                TrackConfig::Aac(config.clone()).shared(),
                config.frame_samples.into(),
            ),
        };
        Self {
            kind: spec.kind(),
            rate: spec.clock_rate.max(1),
            ssrc: None,
            unwrap: TimestampUnwrapper::default(),
            jitter: JitterBuffer::new(budget),
            sender: SenderClock::new(spec.clock_rate),
            arrival: ArrivalFilter::new(spec.clock_rate),
            reception: Reception::new(spec.clock_rate, 0),
            decode_times: DecodeTimes::default(),
            first_packet: None,
            last_packet: None,
            bye: None,
            epoch_began: None,
            rival: None,
            left_epoch: None,
            after_gap: false,
            last_pts: None,
            last_end: None,
            last_duration: None,
            last_unit_ts: None,
            repeats: 0,
            codec,
            place: None,
            held: VecDeque::new(),
            held_bytes: 0,
            last_ts: None,
        }
    }

    /// A packet of a source that is not the track's. Gives the packets to go on with once that source may take over:
    /// at once where there is none yet, else when two came in sequence without the old one in between (D4, D5).
    pub fn admit_source(&mut self, now: Instant, packet: RtpPacket, recently_changed: bool) -> Option<Vec<Arrived>> {
        if self.ssrc.is_none() {
            return Some(vec![(now, packet)]);
        }
        if recently_changed {
            return None;
        }
        let (ssrc, kept) = self.rival.get_or_insert_with(|| (packet.ssrc, Vec::new()));
        if *ssrc != packet.ssrc {
            *ssrc = packet.ssrc;
            kept.clear();
        }
        let in_sequence = kept.iter().any(|(_, p)| packet.sequence.wrapping_sub(p.sequence) == 1);
        if kept.len() == MAX_RIVAL_PACKETS {
            kept.remove(0);
        }
        kept.push((now, packet));
        if in_sequence { self.rival.take().map(|(_, kept)| kept) } else { None }
    }

    /// The sender's clock starts anew: nothing of the old one holds.
    pub fn begin_epoch(&mut self) {
        self.leave_place();
        self.sender = SenderClock::new(self.rate);
        self.arrival = ArrivalFilter::new(self.rate);
        self.last_ts = None;
        // Only before the start is anything held here: on the old clock, which no one will know any more.
        self.held.clear();
        self.held_bytes = 0;
        match &mut self.codec {
            Codec::H264(d) => d.reset(),
            Codec::Opus(_) => {}
            Codec::Aac(d, ..) => d.lost(),
        }
    }

    /// The next unit finds its place on the timeline anew.
    pub fn leave_place(&mut self) {
        if let Some(ts) = self.last_unit_ts
            && let Some(time) = self.time_of(ts)
        {
            self.left_epoch = self.arrival.micros_at(ts).map(|arrived| (arrived, time));
        }
        self.place = None;
        self.last_unit_ts = None;
        self.repeats = 0;
        self.decode_times.restart();
    }

    /// Takes what the reorder buffer released; gives the number of lost packets.
    pub fn push(&mut self, now: Instant, epoch: Instant, released: Released, stats: &IngestStats) -> u64 {
        let (arrived, packet) = match released {
            Released::Packet(arrived, packet) => (arrived, packet),
            Released::Lost(n) => {
                match &mut self.codec {
                    Codec::H264(d) => d.lost(),
                    Codec::Opus(_) => self.hold(Raw::Gap(GapReason::Loss)),
                    Codec::Aac(d, ..) => {
                        d.lost();
                        self.hold(Raw::Gap(GapReason::Loss));
                    }
                }
                self.drain_codec();
                return n;
            }
        };
        let ts = self.unwrap.peek(packet.timestamp);
        let rate = i64::from(self.rate);
        if let Some(last) = self.last_ts
            && (ts - last > MAX_AHEAD_S * rate || ts - last < -MAX_BACK_S * rate)
        {
            if self.epoch_began.is_some_and(|t| now.saturating_duration_since(t) < Duration::from_secs(1)) {
                IngestStats::add(&stats.malformed, 1);
                return 0;
            }
            tracing::info!(track = ?self.kind, by = ts - last, "the sender's timestamps jumped");
            self.begin_epoch();
            self.epoch_began = Some(now);
        }
        self.unwrap.unwrap(packet.timestamp);
        if self.last_ts != Some(ts) {
            let micros = arrived.saturating_duration_since(epoch).as_micros();
            self.arrival.on_arrival(now, i64::try_from(micros).unwrap_or(i64::MAX), ts);
        }
        self.last_ts = Some(ts);
        match &mut self.codec {
            Codec::H264(d) => d.push(&packet, ts),
            Codec::Opus(config) => {
                // An empty packet is a sender's pause (DTX), not an error.
                if !packet.payload.is_empty() {
                    match opus::samples(&packet.payload) {
                        Some(duration) => {
                            let config = config.clone();
                            let data = packet.payload;
                            self.hold(Raw::Unit(RawUnit { ts, key: true, picture: None, duration, config, data }));
                        }
                        None => {
                            IngestStats::add(&stats.malformed, 1);
                            self.hold(Raw::Gap(GapReason::Refused));
                        }
                    }
                }
            }
            Codec::Aac(d, config, samples) => match d.push(&packet, ts) {
                Ok(frames) => {
                    let (config, duration) = (config.clone(), *samples);
                    for frame in frames {
                        let (ts, data, config) = (frame.ts, frame.data, config.clone());
                        self.hold(Raw::Unit(RawUnit { ts, key: true, picture: None, duration, config, data }));
                    }
                }
                Err(_) => {
                    IngestStats::add(&stats.malformed, 1);
                    self.hold(Raw::Gap(GapReason::Refused));
                }
            },
        }
        self.drain_codec();
        0
    }

    fn drain_codec(&mut self) {
        while let Codec::H264(d) = &mut self.codec
            && let Some(out) = d.poll()
        {
            let raw = match out {
                H264Out::Gap(reason) => Raw::Gap(reason),
                H264Out::Picture(p) => Raw::Unit(RawUnit {
                    ts: p.ts,
                    key: p.info.key,
                    picture: Some(p.info),
                    duration: 0,
                    config: p.config,
                    data: p.data,
                }),
            };
            self.hold(raw);
        }
    }

    fn hold(&mut self, raw: Raw) {
        if let Raw::Unit(unit) = &raw {
            self.held_bytes += unit.data.len();
        }
        self.held.push_back(raw);
        while self.held.len() > MAX_HELD_UNITS || self.held_bytes > MAX_HELD_BYTES {
            if let Codec::H264(d) = &mut self.codec {
                d.drop_to_idr(GapReason::Overload);
                while d.poll().is_some() {}
                self.held.clear();
                self.held_bytes = 0;
            } else {
                self.take();
            }
        }
    }

    pub fn take(&mut self) -> Option<Raw> {
        let raw = self.held.pop_front()?;
        if let Raw::Unit(unit) = &raw {
            self.held_bytes = self.held_bytes.saturating_sub(unit.data.len());
        }
        Some(raw)
    }

    pub fn put_back(&mut self, unit: RawUnit) {
        self.held_bytes += unit.data.len();
        self.held.push_front(Raw::Unit(unit));
    }

    fn units(&self) -> impl Iterator<Item = &RawUnit> {
        self.held.iter().filter_map(|raw| match raw {
            Raw::Unit(unit) => Some(unit),
            Raw::Gap(_) => None,
        })
    }

    pub fn has_units(&self) -> bool {
        self.units().next().is_some()
    }

    pub fn next_unit_ts(&self) -> Option<i64> {
        self.units().next().map(|u| u.ts)
    }

    /// Drops held audio that ends before `at`.
    pub fn drop_before(&mut self, at: MediaTime) {
        let before = |raw: &Raw| match raw {
            Raw::Gap(_) => true,
            Raw::Unit(unit) => {
                let lasts = MediaDuration::from_ticks(unit.duration.into(), unit.config.timescale());
                self.time_of(unit.ts).is_some_and(|t| t + lasts <= at)
            }
        };
        let early = self.held.iter().take_while(|raw| before(raw)).count();
        for _ in 0..early {
            self.take();
        }
    }

    pub fn waits_for_key_frame(&self) -> bool {
        matches!(&self.codec, Codec::H264(d) if d.waits_for_idr())
    }

    /// Pictures that came out cannot be used: the next that does is a key frame, and what is held goes too.
    pub fn drop_to_key_frame(&mut self, reason: GapReason) {
        while self.held.front().is_some_and(|raw| !matches!(raw, Raw::Unit(unit) if unit.key)) {
            self.take();
        }
        if !self.held.is_empty() {
            return self.held.push_front(Raw::Gap(reason));
        }
        if let Codec::H264(d) = &mut self.codec {
            d.drop_to_idr(reason);
        }
        self.drain_codec();
    }

    pub fn observe_reorder(&mut self) {
        if let Codec::H264(d) = &mut self.codec {
            d.observe_reorder(self.decode_times.observed());
        }
    }

    pub fn is_placed(&self) -> bool {
        self.place.is_some()
    }

    pub fn place_at(&mut self, ts: i64, time: MediaTime) {
        self.place = Some((ts, time));
    }

    pub fn shift(&mut self, by: MediaDuration) {
        if let Some((_, time)) = &mut self.place {
            *time += by;
        }
    }

    pub fn base_ts(&self) -> i64 {
        self.place.map_or(0, |(ts, _)| ts)
    }

    pub fn base_time(&self) -> Option<MediaTime> {
        self.place.map(|(_, time)| time)
    }

    pub fn time_of(&self, ts: i64) -> Option<MediaTime> {
        self.place.map(|(base, time)| time + MediaDuration::from_ticks(ts - base, self.rate))
    }

    pub fn on_sender_report(&mut self, now: Instant, ntp: Ntp, rtp: u32) {
        self.reception.on_sender_report(now, ntp);
        let ts = self.unwrap.peek(rtp);
        if !self.sender.on_report(ts, ntp, self.last_ts.unwrap_or(ts)) {
            tracing::debug!(track = ?self.kind, "a sender report was ignored");
        }
    }
}

/// What a receiver report says about a source (RFC 3550 §6.4.1, appendices A.3 and A.8).
pub struct Reception {
    rate: u32,
    ssrc: u32,
    first: Option<u64>,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Scaled by 16.
    jitter: i64,
    transit: Option<(Instant, u32)>,
    last_report: Option<(Instant, Ntp)>,
}

impl Reception {
    pub fn new(rate: u32, ssrc: u32) -> Self {
        Self {
            rate,
            ssrc,
            first: None,
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter: 0,
            transit: None,
            last_report: None,
        }
    }

    pub fn on_packet(&mut self, now: Instant, packet: &RtpPacket) {
        // The reorder buffer's first number is a wrap above the packet's.
        self.first.get_or_insert((1 << 16) + u64::from(packet.sequence));
        self.received += 1;
        if let Some((at, timestamp)) = self.transit {
            let elapsed = now.saturating_duration_since(at).as_micros() as i64 * i64::from(self.rate) / 1_000_000;
            let d = elapsed - i64::from(packet.timestamp.wrapping_sub(timestamp) as i32);
            self.jitter += d.abs().min(i64::from(u32::MAX)) - ((self.jitter + 8) >> 4);
        }
        self.transit = Some((now, packet.timestamp));
    }

    pub fn on_sender_report(&mut self, now: Instant, ntp: Ntp) {
        self.last_report = Some((now, ntp));
    }

    pub fn report(&mut self, now: Instant, highest: u64) -> ReportBlock {
        let expected = self.first.map_or(0, |first| (highest + 1).saturating_sub(first));
        let expected_now = expected.saturating_sub(self.expected_before);
        let received_now = self.received - self.received_before;
        let lost_now = expected_now.saturating_sub(received_now);
        self.expected_before = expected;
        self.received_before = self.received;
        let lost = i64::try_from(expected).unwrap_or(0) - i64::try_from(self.received).unwrap_or(0);
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: highest.saturating_sub(1 << 16) as u32,
            jitter: (self.jitter >> 4) as u32,
            last_sr: self.last_report.map_or(0, |(_, ntp)| ntp.middle()),
            delay_since_last_sr: self
                .last_report
                .map_or(0, |(at, _)| (now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000) as u32),
        }
    }
}
