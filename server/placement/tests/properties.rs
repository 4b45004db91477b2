//! Properties of the placer: the checker accepts whatever it does, and small fleets are filled as an exhaustive placer would.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use placement::check::check;
use placement::device::{
    Codec, DecodeRates, EncodeRates, EncoderKind, Evidence, Evidences, PixelRate, Preset, SourceCodec,
};
use placement::placer::{DeviceView, Finish, Stay};
use placement::reason::{Cause, MoveReason};
use placement::{
    At, Demand, Device, DeviceId, DeviceKind, Fleet, Host, Load, Placer, Policy, RegainFault, Request, SessionId,
    Settings,
};
use proptest::prelude::*;

/// Small numbers, so that engines, memory and session caps all become tight.
fn kind(n: u8, engines: (u8, u8), speed: u64, consumer: bool, encoder: EncoderKind) -> DeviceKind {
    DeviceKind {
        name: format!("k{n}"),
        encoder,
        encode_engines: engines.0,
        encode: EncodeRates::flat(&[Codec::H264, Codec::H265], PixelRate::megapixels(speed)),
        decode_engines: engines.1,
        decode: DecodeRates::flat(&[SourceCodec::H264], PixelRate::megapixels(100)),
        vram: 2000,
        consumer,
        evidence: Evidences { engines: Evidence::Declared, speed: Evidence::Declared, vram: Evidence::Declared },
    }
}

fn fleets() -> impl Strategy<Value = Fleet> {
    let encoder =
        prop_oneof![4 => Just(EncoderKind::Hardware), 1 => Just(EncoderKind::Software), 1 => Just(EncoderKind::None)];
    let kinds = prop::collection::vec((1u8..4, 1u8..3, 50u64..150, any::<bool>(), encoder), 1..4);
    let hosts = prop::collection::vec(prop::option::of(2u32..10), 1..3);
    let devices = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 60u16..130), 1..6);
    (kinds, hosts, devices).prop_map(|(kinds, hosts, devices)| {
        let kinds: Vec<_> =
            (0u8..).zip(kinds).map(|(n, (e, d, speed, c, encoder))| kind(n, (e, d), speed, c, encoder)).collect();
        let device = |(k, h, calibration): (prop::sample::Index, prop::sample::Index, u16)| Device {
            kind: k.index(kinds.len()) as u16,
            host: h.index(hosts.len()) as u32,
            calibration,
        };
        let devices = devices.into_iter().map(device).collect();
        Fleet { kinds, hosts: hosts.into_iter().map(|c| Host { consumer_sessions: c }).collect(), devices }
    })
}

fn demands() -> impl Strategy<Value = Arc<Demand>> {
    let rungs = prop::collection::vec(2u64..70, 1..5);
    let codec = prop_oneof![5 => Just(Codec::H264), 1 => Just(Codec::H265), 1 => Just(Codec::Av1)];
    let source = prop_oneof![9 => Just(SourceCodec::H264), 1 => Just(SourceCodec::Vp9)];
    (rungs, codec, source, 2u64..60, 10u32..700).prop_map(|(rungs, codec, source, decode, vram)| {
        let rung = |mp| (codec, Preset::new(1).unwrap(), PixelRate::megapixels(mp));
        let decode = (source, PixelRate::megapixels(decode));
        Arc::new(Demand { decode, encode: rungs.into_iter().map(rung).collect(), vram })
    })
}

#[derive(Clone, Debug)]
enum Action {
    Place(Arc<Demand>, bool, bool),
    Release(u64),
    Drain(u32),
    Restore(u32),
    Lose(u32),
    Shed(u64, usize),
    Move(u64),
    Finish(u64, bool),
    Defragment(usize),
    MakeRoom(Arc<Demand>, bool, usize),
    Relieve(u32),
    Regain(u64, u64),
    Report(u32, u32, u32, u16),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (demands(), any::<bool>(), any::<bool>()).prop_map(|(d, s, l)| Action::Place(d, s, l)),
        4 => (0u64..40).prop_map(Action::Release),
        1 => (0u32..6).prop_map(Action::Drain),
        1 => (0u32..6).prop_map(Action::Restore),
        1 => (0u32..6).prop_map(Action::Lose),
        1 => (0u64..40, 0usize..4).prop_map(|(s, r)| Action::Shed(s, r)),
        1 => (0u64..40).prop_map(Action::Move),
        3 => (0u64..40, any::<bool>()).prop_map(|(s, m)| Action::Finish(s, m)),
        1 => (0usize..10).prop_map(Action::Defragment),
        2 => (demands(), any::<bool>(), 0usize..4).prop_map(|(d, s, m)| Action::MakeRoom(d, s, m)),
        2 => (0u32..6).prop_map(Action::Relieve),
        1 => (0u64..40, 2u64..70).prop_map(|(s, mp)| Action::Regain(s, mp)),
        1 => (0u32..6, 0u32..1_000_000, 0u32..2000, 50u16..101).prop_map(|(d, l, v, s)| Action::Report(d, l, v, s)),
    ];
    prop::collection::vec(action, 1..60)
}

/// Whether shares fit on engines with these loads, trying all ways.
fn engines_hold(loads: &mut [u32], limit: u32, shares: &[u32]) -> bool {
    let Some((share, rest)) = shares.split_first() else { return true };
    (0..loads.len()).any(|n| {
        if u64::from(loads[n]) + u64::from(*share) > u64::from(limit) {
            return false;
        }
        loads[n] += share;
        let held = engines_hold(loads, limit, rest);
        loads[n] -= share;
        held
    })
}

fn shares(kind: &DeviceKind, demand: &Demand, software: bool) -> Option<(u32, Vec<u32>)> {
    if kind.encoder == EncoderKind::None || (kind.encoder == EncoderKind::Software && !software) {
        return None;
    }
    let decode = demand.decode.1.share(kind.decode.of(demand.decode.0))?;
    let encode: Option<Vec<u32>> =
        demand.encode.iter().map(|(c, p, r)| r.share(kind.encode.of(*c, *p)).map(|s| s as u32)).collect();
    Some((decode as u32, encode?))
}

/// Whether a device takes a demand now; what an exhaustive placer would ask of each device in turn.
fn device_holds(fleet: &Fleet, view: &DeviceView, demand: &Demand, software: bool) -> bool {
    let Some((decode, encode)) = shares(&fleet.kinds[usize::from(view.kind)], demand, software) else { return false };
    !view.draining
        && view.host_sessions_left.is_none_or(|left| demand.encode.len() as u32 <= left)
        && view.vram + demand.vram <= view.vram_limit
        && engines_hold(&mut view.decode.clone(), view.decode_limit, &[decode])
        && engines_hold(&mut view.encode.clone(), view.encode_limit, &encode)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_passes_the_checker_and_no_session_is_refused_that_a_device_takes(
        fleet in fleets(),
        actions in actions(),
        spread in any::<bool>(),
    ) {
        let policy = if spread { Policy::Spread } else { Policy::Consolidate };
        let settings = Settings { policy, ..Settings::default() };
        let mut placer = Placer::new(fleet.clone(), settings).unwrap();
        for (next, action) in (0u64..).zip(actions) {
            let now = At(next);
            match action {
                Action::Place(demand, software, long) => {
                    let stay = if long { Stay::Long } else { Stay::Short };
                    let before = placer.snapshot();
                    let possible = before.iter().any(|v| device_holds(&fleet, v, &demand, software));
                    let request = Request { session: SessionId(next), demand: Arc::clone(&demand), software, stay };
                    match placer.place(now, &request) {
                        Ok(placed) => {
                            prop_assert!(device_holds(&fleet, &before[placed.device.0 as usize], &demand, software));
                            prop_assert_eq!(placer.place(now, &request).unwrap_err().cause, Cause::Duplicate);
                        }
                        Err(refusal) => prop_assert!(!possible, "{refusal}"),
                    }
                }
                Action::Release(session) => {
                    let was = placer.seats().iter().any(|s| s.session == SessionId(session));
                    prop_assert_eq!(placer.release(SessionId(session)).is_some(), was);
                }
                Action::Drain(device) => {
                    let drained = placer.drain(now, DeviceId(device));
                    for migration in &drained.migrations {
                        placer.finish(migration.session, Finish::Moved);
                    }
                    let left = placer.snapshot().get(device as usize).map_or(0, |v| v.sessions.len());
                    prop_assert!(left >= drained.stranded.len());
                }
                Action::Restore(device) => placer.restore(now, DeviceId(device)),
                Action::Lose(device) => {
                    let live = placer.live();
                    let lost = placer.lose(now, DeviceId(device));
                    prop_assert_eq!(placer.live(), live - lost.ended.len());
                    prop_assert!(placer.seats().iter().all(|s| s.device != DeviceId(device)));
                    for migration in &lost.moved {
                        prop_assert_eq!(placer.device_of(migration.session), Some(migration.to));
                        prop_assert!(!placer.is_moving(migration.session));
                    }
                    for refusal in &lost.ended {
                        prop_assert_eq!(placer.device_of(refusal.session), None);
                    }
                }
                Action::Shed(session, rung) => {
                    let session = SessionId(session);
                    let before: Vec<_> = placer.seats().into_iter().filter(|s| s.session == session).collect();
                    let Some(first) = before.first() else { continue };
                    let mut shorter = Demand::clone(&first.demand);
                    if shorter.encode.len() < 2 {
                        continue;
                    }
                    shorter.encode.remove(rung % shorter.encode.len());
                    prop_assert_eq!(placer.shed(now, session, &Arc::new(shorter)), Ok(()));
                    let after: Vec<_> = placer.seats().into_iter().filter(|s| s.session == session).collect();
                    prop_assert_eq!(after.len(), before.len());
                    for (before, after) in before.iter().zip(&after) {
                        prop_assert_eq!((before.device, before.decoder), (after.device, after.decoder));
                        prop_assert_eq!(after.encoders.len() + 1, before.encoders.len());
                        prop_assert!(after.encoders.iter().all(|e| before.encoders.contains(e)), "rungs keep their engines");
                    }
                }
                Action::Move(session) => {
                    if let Ok(Some(m)) = placer.migrate(now, SessionId(session), MoveReason::Requested) {
                        prop_assert_ne!(m.from, m.to);
                    }
                }
                Action::Finish(session, moved) => {
                    placer.finish(SessionId(session), if moved { Finish::Moved } else { Finish::Stayed });
                }
                Action::Defragment(budget) => {
                    let before = placer.in_use();
                    let migrations = placer.defragment(now, budget);
                    prop_assert!(migrations.len() <= budget);
                    prop_assert_eq!(placer.in_use(), before, "only devices in use take sessions over");
                    for migration in migrations {
                        placer.finish(migration.session, Finish::Moved);
                    }
                    prop_assert!(placer.in_use() <= before);
                }
                Action::MakeRoom(demand, software, most) => {
                    let fits = |placer: &Placer| placer.snapshot().iter().any(|v| device_holds(&fleet, v, &demand, software));
                    if fits(&placer) {
                        continue;
                    }
                    let migrations = placer.make_room(now, &demand, software, most);
                    prop_assert!(migrations.len() <= most);
                    prop_assert!(migrations.iter().all(|m| m.from == migrations[0].from && m.to != m.from));
                    prop_assert_eq!(check(&fleet, settings.headroom, &placer.seats()), []);
                    for migration in &migrations {
                        placer.finish(migration.session, Finish::Moved);
                    }
                    prop_assert_eq!(fits(&placer), !migrations.is_empty(), "moved for nothing, or without need");
                }
                Action::Relieve(device) => {
                    let before = placer.seats();
                    let could_move = before.iter().any(|s| s.device == DeviceId(device) && !placer.is_moving(s.session));
                    match placer.relieve(now, DeviceId(device), MoveReason::Overload) {
                        Some(m) => prop_assert!(m.from == DeviceId(device) && m.to != m.from && could_move),
                        // Nobody takes any of them, as long as all of them were tried.
                        None => for seat in before.iter().filter(|s| s.device == DeviceId(device)).take(16) {
                            let elsewhere = placer.snapshot().into_iter().filter(|v| v.device != DeviceId(device));
                            let taken = elsewhere.filter(|v| device_holds(&fleet, v, &seat.demand, seat.software)).count();
                            prop_assert!(taken == 0 || placer.is_moving(seat.session));
                        },
                    }
                }
                Action::Regain(session, megapixels) => {
                    let session = SessionId(session);
                    let before: Vec<_> = placer.seats().into_iter().filter(|s| s.session == session).collect();
                    let Some(first) = before.first() else {
                        let none = Arc::new(Demand { decode: (SourceCodec::H264, PixelRate(1)), encode: vec![], vram: 1 });
                        prop_assert_eq!(placer.regain(now, session, &none), Err(RegainFault::Unknown));
                        continue;
                    };
                    let mut longer = Demand::clone(&first.demand);
                    longer.encode.push((longer.encode[0].0, Preset::new(1).unwrap(), PixelRate::megapixels(megapixels)));
                    longer.vram += 10;
                    match placer.regain(now, session, &Arc::new(longer)) {
                        Ok(()) => {
                            let after: Vec<_> = placer.seats().into_iter().filter(|s| s.session == session).collect();
                            prop_assert_eq!((before.len(), after.len()), (1, 1));
                            prop_assert_eq!((after[0].device, after[0].decoder), (first.device, first.decoder));
                            prop_assert_eq!(after[0].encoders.len(), first.encoders.len() + 1);
                            prop_assert!(first.encoders.iter().all(|e| after[0].encoders.contains(e)), "rungs keep their engines");
                        }
                        Err(fault) => {
                            prop_assert!(!matches!(fault, RegainFault::Unknown | RegainFault::NotLonger), "{fault}");
                            prop_assert_eq!(fault == RegainFault::Moving, before.len() == 2);
                        }
                    }
                }
                Action::Report(device, busy, vram, speed) => {
                    let load = Load { encode: busy, decode: busy / 2, vram, sessions: 0, speed, as_of: now };
                    placer.report(now, DeviceId(device), &load);
                }
            }
            let seats = placer.seats();
            prop_assert_eq!(check(&fleet, settings.headroom, &seats), []);
            for view in placer.snapshot() {
                let here: Vec<_> = seats.iter().filter(|s| s.device == view.device).collect();
                let encode: u32 = here.iter().flat_map(|s| &s.encoders).map(|(_, share)| share).sum();
                prop_assert_eq!(view.encode.iter().sum::<u32>(), encode);
                prop_assert_eq!(view.vram, here.iter().map(|s| s.demand.vram).sum::<u32>());
                prop_assert_eq!(view.sessions.len(), here.len());
            }
            prop_assert_eq!(placer.in_use(), placer.snapshot().iter().filter(|v| !v.sessions.is_empty()).count());
        }
        let all: Vec<_> = placer.seats().iter().map(|s| s.session).collect();
        for session in all {
            placer.release(session);
        }
        prop_assert_eq!((placer.in_use(), placer.live()), (0, 0));
        let empty = placer.snapshot().iter().all(|v| v.vram == 0 && v.encode.iter().chain(&v.decode).all(|l| *l == 0));
        prop_assert!(empty);
    }

    #[test]
    fn small_fleets_take_at_most_twice_the_devices_that_an_exhaustive_placer_takes(
        engines in 1u8..3,
        demands in prop::collection::vec(demands(), 1..7),
    ) {
        let mut fleet = Fleet::default();
        fleet.add(kind(0, (engines, 2), 100, false, EncoderKind::Hardware), 7, 7, None);
        let mut placer = Placer::new(fleet.clone(), Settings::default()).unwrap();
        let empty = placer.snapshot();
        let demands: Vec<_> =
            demands.into_iter().filter(|d| device_holds(&fleet, &empty[0], d, false)).collect();
        for (n, demand) in (0u64..).zip(&demands) {
            let demand = Arc::clone(demand);
            let request = Request { session: SessionId(n), demand, software: false, stay: Stay::Short };
            placer.place(At(n), &request).unwrap();
        }
        let best = fewest(&fleet, &empty[0], &mut Vec::new(), &demands, demands.len());
        prop_assert!(placer.in_use() <= 2 * best, "{} in use, {best} suffice", placer.in_use());
    }
}

/// The fewest devices that hold all demands: every way to share them out is tried, and every way to put them on engines.
fn fewest(
    fleet: &Fleet,
    empty: &DeviceView,
    open: &mut Vec<Vec<Arc<Demand>>>,
    left: &[Arc<Demand>],
    best: usize,
) -> usize {
    if open.len() > best {
        return best;
    }
    let Some((demand, rest)) = left.split_first() else { return best.min(open.len()) };
    let mut best = best;
    for n in 0..=open.len() {
        if n == open.len() {
            open.push(Vec::new());
        }
        open[n].push(Arc::clone(demand));
        if all_hold(fleet, empty, &open[n]) {
            best = fewest(fleet, empty, open, rest, best);
        }
        open[n].pop();
        if open[n].is_empty() {
            open.pop();
        }
    }
    best
}

fn all_hold(fleet: &Fleet, empty: &DeviceView, demands: &[Arc<Demand>]) -> bool {
    let kind = &fleet.kinds[usize::from(empty.kind)];
    let parts: Vec<_> = demands.iter().map(|d| shares(kind, d, false).unwrap()).collect();
    let mut encode: Vec<u32> = parts.iter().flat_map(|p| p.1.clone()).collect();
    encode.sort_unstable_by(|a, b| b.cmp(a));
    let decode: Vec<u32> = parts.iter().map(|p| p.0).collect();
    let room = u64::from(empty.encode_limit) * empty.encode.len() as u64;
    demands.iter().map(|d| d.vram).sum::<u32>() <= empty.vram_limit
        && encode.iter().copied().map(u64::from).sum::<u64>() <= room
        && engines_hold(&mut empty.decode.clone(), empty.decode_limit, &decode)
        && engines_hold(&mut empty.encode.clone(), empty.encode_limit, &encode)
}
