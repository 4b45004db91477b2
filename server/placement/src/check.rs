//! An independent judge of placements: knows the fleet, the bounds and the seats, and none of the placer's books.
//!
//! It recomputes every share from pixels and speeds by cross-multiplication and adds everything up anew.
use std::collections::{BTreeMap, BTreeSet};

use crate::device::{DeviceId, EncoderKind, Fleet, WHOLE};
use crate::placer::SeatView;
use crate::reason::SessionId;
use crate::rooms::{Dimension, Headroom};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    NoSuchDevice(SessionId),
    /// A session with two seats of which neither is being left, or with both on one device.
    TwoSeats(SessionId),
    /// The seat names an engine that the device hasn't.
    NoSuchEngine(SessionId, DeviceId),
    /// As many encoders as rungs, each with the share its pixels take: not so.
    WrongShares(SessionId, DeviceId),
    /// The device can't do this, or may not.
    Unable(SessionId, DeviceId),
    /// One engine, the memory, or a host's sessions are promised beyond the bound: the device (for sessions, one of the
    /// host's), used, allowed.
    Above(DeviceId, Dimension, u64, u64),
}

#[derive(Default)]
struct Sums {
    encode: BTreeMap<u8, u64>,
    /// Pixels times [`WHOLE`] over the engine's speed.
    decode: BTreeMap<u8, u64>,
    vram: u64,
}

/// Everything that is wrong with these seats; empty for a correct plan. Measured load isn't part of it: limits are those of
/// the calibrated table.
pub fn check(fleet: &Fleet, headroom: Headroom, seats: &[SeatView]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut devices: BTreeMap<u32, Sums> = BTreeMap::new();
    let mut hosts: BTreeMap<u32, (DeviceId, u64)> = BTreeMap::new();
    let mut held: BTreeSet<(SessionId, bool)> = BTreeSet::new();
    let mut where_held: BTreeSet<(SessionId, DeviceId)> = BTreeSet::new();
    for seat in seats {
        let unit = usize::try_from(seat.device.0).ok().and_then(|n| fleet.devices.get(n));
        let Some((unit, kind)) = unit.and_then(|u| Some((u, fleet.kinds.get(usize::from(u.kind))?))) else {
            violations.push(Violation::NoSuchDevice(seat.session));
            continue;
        };
        if !held.insert((seat.session, seat.leaving)) || !where_held.insert((seat.session, seat.device)) {
            violations.push(Violation::TwoSeats(seat.session));
        }
        let sums = devices.entry(seat.device.0).or_default();
        let engines = seat.encoders.iter().map(|(e, _)| *e < kind.encode_engines);
        if seat.decoder >= kind.decode_engines || engines.into_iter().any(|ok| !ok) {
            violations.push(Violation::NoSuchEngine(seat.session, seat.device));
            continue;
        }
        let (source, pixels) = seat.demand.decode;
        let able = match kind.encoder {
            EncoderKind::None => false,
            EncoderKind::Hardware => true,
            EncoderKind::Software => seat.software,
        };
        let speeds: Vec<_> = seat.demand.encode.iter().map(|(c, p, r)| (r.0, kind.encode.of(*c, *p).0)).collect();
        let decode_speed = kind.decode.of(source).0;
        if !able || decode_speed == 0 || speeds.iter().any(|(_, speed)| *speed == 0) {
            violations.push(Violation::Unable(seat.session, seat.device));
            continue;
        }
        // Shares are listed largest first; so are the ratios they come from.
        let mut exact: Vec<u128> = speeds.iter().map(|(pixels, speed)| scaled(*pixels, *speed)).collect();
        exact.sort_unstable();
        exact.reverse();
        let wrong = |((_, share), exact): (&(u8, u32), &u128)| u128::from(*share) != *exact;
        if exact.len() != seat.encoders.len() || seat.encoders.iter().zip(&exact).any(wrong) {
            violations.push(Violation::WrongShares(seat.session, seat.device));
        }
        for (engine, share) in &seat.encoders {
            *sums.encode.entry(*engine).or_default() += u64::from(*share);
        }
        *sums.decode.entry(seat.decoder).or_default() +=
            u64::try_from(scaled(pixels.0, decode_speed)).unwrap_or(u64::MAX);
        sums.vram += u64::from(seat.demand.vram);
        if kind.consumer {
            hosts.entry(unit.host).or_insert((seat.device, 0)).1 += seat.encoders.len() as u64;
        }
    }
    for (device, sums) in devices {
        let id = DeviceId(device);
        let unit = usize::try_from(device).ok().and_then(|n| fleet.devices.get(n));
        let Some((unit, kind)) = unit.and_then(|u| Some((u, fleet.kinds.get(usize::from(u.kind))?))) else { continue };
        // 90 % of an engine at 100 % of its speed is 900,000 millionths.
        let engine = u64::from(WHOLE) * u64::from(headroom.engines) * u64::from(unit.calibration) / 10_000;
        for (dimension, loads) in [(Dimension::Encode, sums.encode), (Dimension::Decode, sums.decode)] {
            for used in loads.into_values().filter(|used| *used > engine) {
                violations.push(Violation::Above(id, dimension, used, engine));
            }
        }
        let vram = (u64::from(kind.vram) * u64::from(headroom.vram) / 100).saturating_sub(headroom.context.into());
        if sums.vram > vram {
            violations.push(Violation::Above(id, Dimension::Vram, sums.vram, vram));
        }
    }
    for (host, (device, used)) in hosts {
        let cap = usize::try_from(host).ok().and_then(|n| fleet.hosts.get(n)).and_then(|h| h.consumer_sessions);
        if let Some(cap) = cap.map(u64::from).filter(|cap| used > *cap) {
            violations.push(Violation::Above(device, Dimension::Sessions, used, cap));
        }
    }
    violations
}

/// Millionths of an engine of `speed` for `pixels` a second, rounded up.
fn scaled(pixels: u64, speed: u64) -> u128 {
    let (whole, pixels, speed) = (u128::from(WHOLE), u128::from(pixels), u128::from(speed.max(1)));
    let floor = pixels * whole / speed;
    floor + u128::from(floor * speed < pixels * whole)
}
