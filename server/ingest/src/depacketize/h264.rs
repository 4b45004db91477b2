//! H.264 in RTP (RFC 6184): single NAL units, STAP-A and FU-A, packetization modes 0 and 1.
//!
//! Pictures come out whole or not at all. After a loss nothing comes until an IDR picture is whole.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use media::{GapReason, TrackConfig};

use crate::IngestStats;
use crate::gate::{self, Class};
use crate::h264::{ParameterSets, PictureInfo, Refused, Slice, Sps, nal};
use crate::rtp::RtpPacket;

/// A whole coded picture, or word of one that is missing.
#[derive(Clone, Debug)]
pub enum H264Out {
    Picture(Picture),
    /// Pictures are missing; the next one out is an IDR picture.
    Gap(GapReason),
}

#[derive(Clone, Debug)]
pub struct Picture {
    /// Unwrapped RTP timestamp.
    pub ts: i64,
    pub info: PictureInfo,
    pub config: Arc<TrackConfig>,
    /// NAL units behind 4-byte lengths.
    pub data: Bytes,
}

pub struct H264Depacketizer {
    stats: Arc<IngestStats>,
    sets: ParameterSets,
    /// SPS of the last IDR picture.
    active: Option<Sps>,
    unit: Unit,
    fragment: Fragment,
    /// Nothing goes out until an IDR picture does.
    waits_for_idr: bool,
    /// Pictures of one packet at most (two: the one that a new timestamp ends, and its own), drained after each.
    out: VecDeque<H264Out>,
}

/// The access unit that is being put together.
#[derive(Default)]
struct Unit {
    ts: Option<i64>,
    /// Finished NAL units behind their lengths, then perhaps an unfinished one. The one copy between socket and packager's
    /// part: payloads joined into an access unit. Bounded by `gate::MAX_ACCESS_UNIT`.
    data: BytesMut,
    first: Option<(Slice, u8)>,
    slices: usize,
    damage: Option<GapReason>,
}

enum Fragment {
    None,
    /// A NAL unit whose length field stands at this offset of the unit's data.
    At(usize),
    /// One that the gate refused or whose start is lost.
    Skip,
}

impl H264Depacketizer {
    pub fn new(parameter_sets: &[Bytes], stats: Arc<IngestStats>) -> Self {
        let mut sets = ParameterSets::default();
        for set in parameter_sets {
            let set = gate::trimmed(set);
            let added = match set.first().map(|h| gate::classify(*h)) {
                Some(Class::Sps) => sets.add_sps(set),
                Some(Class::Pps) => sets.add_pps(set),
                _ => Err(Refused::Bounds("parameter set")),
            };
            if added.is_err() {
                IngestStats::add(&stats.gate_refused, 1);
            }
        }
        Self {
            stats,
            sets,
            active: None,
            unit: Unit::default(),
            fragment: Fragment::None,
            waits_for_idr: true,
            out: VecDeque::new(),
        }
    }

    pub fn poll(&mut self) -> Option<H264Out> {
        self.out.pop_front()
    }

    /// The next packet in sequence; `ts` is its timestamp unwrapped.
    pub fn push(&mut self, packet: &RtpPacket, ts: i64) {
        if self.unit.ts.is_some_and(|old| old != ts) {
            self.finish_unit();
        }
        self.unit.ts = Some(ts);
        let payload = &packet.payload;
        match payload.first().map(|h| h & 0x1f) {
            None => {}
            Some(0) if payload.starts_with(&[0, 0, 1]) || payload.starts_with(&[0, 0, 0, 1]) => {
                // Annex B inside RTP (V380 cameras): start codes where the payload structure should be.
                self.abandon_fragment();
                self.add_annex_b(payload);
            }
            Some(24) => {
                self.abandon_fragment();
                self.add_aggregate(payload.get(1..).unwrap_or(&[]));
            }
            Some(28) => self.add_fragment(payload),
            Some(1..=23) => {
                self.abandon_fragment();
                self.add_nal(payload);
            }
            // STAP-B, MTAP and FU-B belong to interleaved mode, which nothing negotiates; 0, 30 and 31 are undefined.
            Some(_) => IngestStats::add(&self.stats.gate_refused, 1),
        }
        // RFC 6184 §5.1: the marker ends an access unit, but some cameras (Ivel) set it on SEI too.
        if packet.marker && (self.unit.first.is_some() || self.unit.damage.is_some()) {
            self.finish_unit();
        }
    }

    /// Packets before the next one are missing for good.
    pub fn lost(&mut self) {
        self.abandon_fragment();
        if self.unit.ts.is_some() {
            self.damage(GapReason::Loss);
        }
        self.wait_for_idr(GapReason::Loss);
    }

    /// The sender started anew: forgets the unfinished unit, keeps the parameter sets, waits for an IDR picture.
    pub fn reset(&mut self) {
        self.fragment = Fragment::None;
        self.unit = Unit::default();
        self.waits_for_idr = true;
    }

    /// A picture that went out could not be used: as if it had been lost.
    pub fn drop_to_idr(&mut self, reason: GapReason) {
        self.wait_for_idr(reason);
    }

    pub fn waits_for_idr(&self) -> bool {
        self.waits_for_idr
    }

    pub fn observe_reorder(&mut self, depth: u8) {
        self.sets.observe_reorder(depth);
    }

    fn wait_for_idr(&mut self, reason: GapReason) {
        if !self.waits_for_idr {
            self.waits_for_idr = true;
            self.out.push_back(H264Out::Gap(reason));
        }
    }

    fn damage(&mut self, reason: GapReason) {
        self.unit.damage.get_or_insert(reason);
    }

    /// STAP-A (§5.7.1): 16-bit length and NAL unit, repeated.
    fn add_aggregate(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let unit = rest.split_first_chunk::<2>().and_then(|(length, tail)| {
                let length = usize::from(u16::from_be_bytes(*length));
                (length > 0).then(|| tail.split_at_checked(length)).flatten()
            });
            let Some((unit, tail)) = unit else {
                // A length of zero or past the end: what follows cannot be found.
                IngestStats::add(&self.stats.malformed, 1);
                self.damage(GapReason::Refused);
                return;
            };
            self.add_nal(unit);
            rest = tail;
        }
    }

    /// FU-A (§5.8).
    fn add_fragment(&mut self, payload: &[u8]) {
        let Some(([indicator, header], data)) = payload.split_first_chunk::<2>() else {
            IngestStats::add(&self.stats.malformed, 1);
            return;
        };
        if header & 0x80 != 0 {
            self.abandon_fragment();
            let nal_header = indicator & 0xe0 | header & 0x1f;
            if gate::classify(nal_header) == Class::Refused {
                IngestStats::add(&self.stats.gate_refused, 1);
                self.fragment = Fragment::Skip;
            } else {
                let start = self.unit.data.len();
                self.unit.data.extend_from_slice(&[0, 0, 0, 0, nal_header]);
                self.fragment = Fragment::At(start);
            }
        }
        match self.fragment {
            Fragment::At(start) => {
                if !self.fits(self.unit.data.len() - start - 4, data.len()) {
                    self.unit.data.truncate(start);
                    self.fragment = Fragment::Skip;
                    return;
                }
                self.unit.data.extend_from_slice(data);
                if header & 0x40 != 0 {
                    self.fragment = Fragment::None;
                    self.finish_nal(start);
                }
            }
            Fragment::Skip => {}
            Fragment::None => {
                // Its start is missing; an empty fragment is harmless.
                if !data.is_empty() {
                    self.damage(GapReason::Loss);
                    self.fragment = Fragment::Skip;
                }
            }
        }
        if header & 0x40 != 0 {
            self.fragment = Fragment::None;
        }
    }

    /// A fragmented NAL unit that something else interrupted is incomplete.
    fn abandon_fragment(&mut self) {
        if let Fragment::At(start) = std::mem::replace(&mut self.fragment, Fragment::None) {
            self.unit.data.truncate(start);
            self.damage(GapReason::Loss);
        }
    }

    fn add_annex_b(&mut self, data: &[u8]) {
        let mut rest = data;
        while let Some(at) = gate::start_code(rest) {
            let (before, after) = (rest.get(..at).unwrap_or(&[]), rest.get(at + 3..).unwrap_or(&[]));
            let before = gate::trimmed(before);
            if !before.is_empty() {
                self.add_plain_nal(before);
            }
            rest = after;
        }
        let rest = gate::trimmed(rest);
        if !rest.is_empty() {
            self.add_plain_nal(rest);
        }
    }

    fn add_nal(&mut self, unit: &[u8]) {
        if gate::start_code(unit).is_some() { self.add_annex_b(unit) } else { self.add_plain_nal(unit) }
    }

    /// A NAL unit without start codes.
    fn add_plain_nal(&mut self, unit: &[u8]) {
        match unit.first().map(|h| gate::classify(*h)) {
            None | Some(Class::Idle) => {}
            Some(Class::Refused) => IngestStats::add(&self.stats.gate_refused, 1),
            Some(_) => {
                if self.fits(0, unit.len()) {
                    let start = self.unit.data.len();
                    self.unit.data.extend_from_slice(&[0; 4]);
                    self.unit.data.extend_from_slice(unit);
                    self.judge_nal(start);
                }
            }
        }
    }

    fn fits(&mut self, nal_so_far: usize, more: usize) -> bool {
        let fits = nal_so_far + more <= gate::MAX_NAL && self.unit.data.len() + more <= gate::MAX_ACCESS_UNIT;
        if !fits {
            self.refuse();
        }
        fits
    }

    fn refuse(&mut self) {
        IngestStats::add(&self.stats.gate_refused, 1);
        self.damage(GapReason::Refused);
    }

    /// The NAL unit from `start` on was put together out of fragments.
    fn finish_nal(&mut self, start: usize) {
        if gate::start_code(self.unit.data.get(start + 4..).unwrap_or(&[])).is_some() {
            // Rare and wrong enough for a copy.
            let whole = self.unit.data.split_off(start);
            self.add_annex_b(whole.get(4..).unwrap_or(&[]));
        } else {
            self.judge_nal(start);
        }
    }

    /// Keeps or drops the finished NAL unit whose length field stands at `start`.
    fn judge_nal(&mut self, start: usize) {
        let length = gate::trimmed(self.unit.data.get(start + 4..).unwrap_or(&[])).len();
        self.unit.data.truncate(start + 4 + length);
        let unit = self.unit.data.get(start + 4..).unwrap_or(&[]);
        let header = unit.first().copied().unwrap_or(0x80);
        let kept = match gate::classify(header) {
            Class::Slice => match gate::slice(unit, &self.sets) {
                Ok(slice) => self.keep_slice(header, slice),
                Err(Refused::Missing(_)) if self.waits_for_idr => {
                    // Joined in the middle of a stream: not worth a count, just not decodable yet.
                    self.damage(GapReason::Loss);
                    false
                }
                Err(_) => {
                    self.refuse();
                    false
                }
            },
            Class::Sei => {
                let fits = unit.len() <= gate::MAX_SEI && unit.len() > 1;
                if !fits {
                    IngestStats::add(&self.stats.gate_refused, 1);
                }
                fits
            }
            class @ (Class::Sps | Class::Pps) => {
                let added = if class == Class::Sps { self.sets.add_sps(unit) } else { self.sets.add_pps(unit) };
                if added.is_err() {
                    IngestStats::add(&self.stats.gate_refused, 1);
                }
                false
            }
            Class::Idle => false,
            Class::Refused => {
                IngestStats::add(&self.stats.gate_refused, 1);
                false
            }
        };
        if kept {
            let length = (length as u32).to_be_bytes();
            if let Some(field) = self.unit.data.get_mut(start..start + 4) {
                field.copy_from_slice(&length);
            }
        } else {
            self.unit.data.truncate(start);
        }
    }

    fn keep_slice(&mut self, header: u8, slice: Slice) -> bool {
        self.unit.slices += 1;
        let kept = match &self.unit.first {
            // The first slices are lost, or the sender uses arbitrary slice order, which no one decodes any more.
            None if slice.first_mb != 0 => {
                self.damage(GapReason::Loss);
                return false;
            }
            None => true,
            // All slices of a picture are IDR or none is, and they share an SPS.
            Some((first, first_header)) => {
                first_header & 0x1f == header & 0x1f
                    && first.sps_id == slice.sps_id
                    && self.unit.slices <= gate::MAX_SLICES
            }
        };
        // A later picture may only use what the last IDR picture put in force.
        let known = header & 0x1f == nal::IDR || self.waits_for_idr || self.sets.active(slice.pps_id).is_ok();
        if !kept || !known {
            self.refuse();
            return false;
        }
        self.unit.first.get_or_insert((slice, header));
        true
    }

    fn finish_unit(&mut self) {
        self.abandon_fragment();
        let unit = std::mem::take(&mut self.unit);
        // The next one is about as large: it need not grow step by step.
        self.unit.data.reserve(unit.data.len());
        if let Some(reason) = unit.damage {
            // In order: the gap stands where the picture would have.
            return self.wait_for_idr(reason);
        }
        let (Some(ts), Some((first, header))) = (unit.ts, unit.first) else { return };
        let key = header & 0x1f == nal::IDR;
        if self.waits_for_idr && !key {
            return;
        }
        let config = if key {
            self.sets.activate(first.pps_id).map(|(config, sps)| {
                self.active = Some(sps);
                config
            })
        } else {
            self.sets.active(first.pps_id)
        };
        let (Ok(config), Some(sps)) = (config, &self.active) else {
            return self.wait_for_idr(GapReason::Refused);
        };
        self.waits_for_idr = false;
        let info = PictureInfo {
            key,
            reference: header & 0x60 != 0,
            kind: first.kind,
            poc_lsb: first.poc_lsb,
            reorder: sps.reorder,
            dpb_frames: sps.dpb_frames,
            frame_rate: sps.frame_rate,
        };
        self.out.push_back(H264Out::Picture(Picture { ts, info, config, data: unit.data.freeze() }));
    }
}
