//! Rungs that are taken off a running session and come back: the others miss nothing, whatever happens meanwhile.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use engine::protocol::{self, Message, Start, Unit};
use engine::{DeviceHost, Engine, HostOptions, LadderSpec, Mover, Seat};
use media::{AccessUnit, MediaTime, RenditionId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tokio::time::Instant;

const START: MediaTime = MediaTime(705_600_000 * 50 + 7);
/// A key picture each second.
const GOP: usize = 30;

fn source(seconds: usize) -> Vec<AccessUnit> {
    h264(320, 180, 30, (seconds * GOP) as u32, GOP as u32, START)
}

/// The lower rung has half the rate, so that what chooses its pictures is in the way as well.
fn ladder() -> LadderSpec {
    spec(vec![rung("v180", 320, 180, None), rung("v90", 160, 90, Some((15, 1)))], None)
}

fn own_worker() -> Seat {
    Seat::default()
}

fn host(name: &str) -> Seat {
    let options = HostOptions { program: options().program, name: name.into(), device: None, fails_after: None };
    Seat { device: None, host: Some(DeviceHost::new(options).0) }
}

fn suspend(mover: &Mover, rungs: &[&str]) {
    mover.suspend(&rungs.iter().map(|id| id.parse().unwrap()).collect::<Vec<_>>());
}

/// What came out, with the changes of what was suspended and from where on each held.
struct Ran {
    got: Got,
    suspended: Vec<(MediaTime, Vec<RenditionId>)>,
    lag: Option<Duration>,
}

/// Feeds in real time, a segment with each key picture, and does `act` ahead of each input; all output to the end.
async fn run(seat: Seat, source: &[AccessUnit], mut act: impl FnMut(usize, &Engine)) -> Ran {
    let mut suspended = Vec::new();
    let mut engine = Engine::start_at(ladder(), options(), seat).unwrap();
    let mut got = Got::default();
    let begin = Instant::now();
    let mut inputs = interleave(source, &[]).into_iter().enumerate().peekable();
    let mut lag = None;
    loop {
        let due = inputs.peek().map(|(_, i)| begin + (i.unit.dts - START).to_std());
        tokio::select! {
            event = engine.events.recv() => match event {
                Some(event) => got.take(event),
                None => break,
            },
            () = tokio::time::sleep_until(due.unwrap_or(begin)), if due.is_some() => {
                let (n, input) = inputs.next().unwrap();
                act(n, &engine);
                if input.force_key {
                    let asked = engine.suspensions.has_changed().unwrap();
                    let rungs = engine.suspensions.borrow_and_update().clone();
                    if asked {
                        engine.suspend(&rungs, input.unit.pts);
                        suspended.push((input.unit.pts, rungs));
                    }
                }
                engine.push(input);
                if inputs.peek().is_none() {
                    lag = engine.lag();
                    engine.finish();
                }
            }
            () = tokio::time::sleep_until(begin + Duration::from_secs(40)) => panic!("no end: {:?}", got.restarts),
        }
    }
    assert_eq!(engine.dropped(), 0);
    Ran { got, suspended, lag }
}

/// `v180` has all pictures, and `v90` none from picture `from` on until `to`, where the first segments begin since it was to go and
/// to come back. Both decode.
fn check(ran: &Ran, source: &[AccessUnit], from: usize, to: usize) {
    let got = &ran.got;
    let all: Vec<MediaTime> = source.iter().map(|u| u.pts).collect();
    assert_eq!(got.pts("v180"), all, "every picture once, in order");
    let v90 = got.pts("v90");
    assert!(v90.is_sorted_by(|a, b| a < b));
    let (before, behind): (Vec<MediaTime>, Vec<MediaTime>) = v90.iter().partition(|t| **t < all[from]);
    assert!(before.last().is_some_and(|last| *last >= all[from - 2]), "it ran until then: {before:?}");
    assert_eq!(before.len(), from / 2, "nothing of it is missing: {before:?}");
    assert_eq!(behind.first(), Some(&all[to]), "it came back at the cut");
    assert!(got.units["v90"].iter().any(|u| u.pts == all[to] && u.key));
    assert!(behind.len().abs_diff((all.len() - to) / 2) <= 2, "at its own rate: {behind:?}");
    let keys: Vec<MediaTime> = source.iter().filter(|u| u.key).map(|u| u.pts).collect();
    assert!(got.keys("v90").iter().all(|key| keys.contains(key)));
    for id in ["v180", "v90"] {
        let raw = decode(&got.units[id], "video/x-h264,stream-format=byte-stream,alignment=au", "avdec_h264");
        assert_eq!(raw.len(), got.units[id].len(), "{id}");
    }
    assert_eq!(ran.suspended, [(all[from], vec!["v90".parse().unwrap()]), (all[to], vec![])]);
}

#[tokio::test]
async fn a_suspended_rung_stops_and_comes_back_with_a_key_picture_and_the_others_miss_nothing() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = source(7);
    let ran = run(own_worker(), &source, |n, engine| match n {
        65 => suspend(&engine.mover(), &["v90"]),
        // Longer than the stall time-out.
        130 => suspend(&engine.mover(), &[]),
        _ => {}
    })
    .await;
    check(&ran, &source, 90, 150);
    assert_eq!(ran.got.restarts, [""; 0]);
    assert!(ran.lag.is_some_and(|lag| lag < Duration::from_secs(1)), "{:?}", ran.lag);
    eprintln!("encoding lags by {:?}", ran.lag);
}

#[tokio::test]
async fn a_rung_stays_suspended_over_its_workers_death() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = source(8);
    let ran = run(own_worker(), &source, |n, engine| match n {
        65 => suspend(&engine.mover(), &["v90"]),
        // In the midst of a GOP, which is replayed.
        135 => kill(Pid::from_raw(engine.worker_pid().unwrap() as i32), Signal::SIGKILL).unwrap(),
        190 => suspend(&engine.mover(), &[]),
        _ => {}
    })
    .await;
    check(&ran, &source, 90, 210);
    assert_eq!(ran.got.restarts.len(), 1, "{:?}", ran.got.restarts);
}

#[tokio::test]
async fn a_rung_stays_suspended_over_a_move_and_comes_back_elsewhere() {
    if !gstreamer_or_skip() {
        return;
    }
    let (one, two) = (host("one"), host("two"));
    let source = source(8);
    let mut moved = None;
    let ran = run(one, &source, |n, engine| match n {
        65 => suspend(&engine.mover(), &["v90"]),
        100 => moved = Some(engine.mover().move_to(two.clone())),
        190 => suspend(&engine.mover(), &[]),
        _ => {}
    })
    .await;
    assert_eq!(moved.unwrap().await.unwrap(), Ok(()));
    check(&ran, &source, 90, 210);
    assert_eq!(ran.got.restarts, [""; 0]);
}

#[tokio::test]
async fn a_rung_that_is_suspended_from_the_beginning_costs_nothing_at_the_end() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = source(2);
    let ran = run(own_worker(), &source, |n, engine| {
        if n == 0 {
            suspend(&engine.mover(), &["v90", "no-such-rung"]);
        }
    })
    .await;
    assert_eq!((ran.got.pts("v180").len(), ran.got.pts("v90").len()), (source.len(), 0));
    assert_eq!(ran.got.restarts, [""; 0]);
    assert_eq!(ran.suspended.len(), 1);
}

#[tokio::test]
async fn one_rung_always_stays() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = source(2);
    let ran = run(own_worker(), &source, |_, engine| suspend(&engine.mover(), &["v90", "v180"])).await;
    assert_eq!((ran.got.pts("v180").len(), ran.got.pts("v90").len()), (source.len(), source.len() / 2));
    assert!(ran.suspended.is_empty(), "{:?}", ran.suspended);
}

/// A worker by itself: what the session lets out says nothing about what is encoded for it.
#[test]
fn the_worker_encodes_a_rung_to_where_it_is_suspended_and_again_from_where_a_key_is_forced() {
    if !gstreamer_or_skip() {
        return;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut worker =
        Command::new(options().program).arg("worker").stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    let reader = std::thread::spawn({
        let mut socket = ours.try_clone().unwrap();
        move || {
            let (mut input, mut units, mut chunk) = (BytesMut::new(), [Vec::new(), Vec::new()], [0; 4096]);
            while let Ok(n @ 1..) = socket.read(&mut chunk) {
                input.extend_from_slice(&chunk[..n]);
                while let Some(message) = protocol::decode(&mut input).unwrap() {
                    match message {
                        Message::Unit(unit) => units[usize::from(unit.track)].push((unit.pts, unit.key)),
                        Message::Fault(text) => panic!("{text}"),
                        _ => {}
                    }
                }
            }
            units
        }
    });
    let source = source(4);
    let send = |message| {
        let mut bytes = BytesMut::new();
        protocol::encode(&message, &mut bytes).unwrap();
        (&ours).write_all(&bytes).unwrap();
    };
    let rungs = spec(vec![rung("v180", 320, 180, None), rung("v90", 160, 90, None)], None);
    send(Message::Start(Start { spec: rungs, audio_origin: None, resume: vec![None, None], device: None }));
    // Early: what lies before is encoded.
    send(Message::Suspend(vec![(1, source[25].pts)]));
    send(Message::Config { track: 0, config: source[0].config.clone() });
    for (n, unit) in source.iter().enumerate() {
        if n == 90 {
            send(Message::Suspend(vec![]));
        }
        let AccessUnit { pts, dts, duration, key, data, .. } = unit.clone();
        send(Message::Unit(Unit {
            track: 0,
            key,
            force_key: n % (2 * GOP) == 0 || n == 100,
            pts,
            dts,
            duration,
            data,
        }));
    }
    send(Message::Stop);
    let [all, suspended] = reader.join().unwrap();
    assert!(worker.wait().unwrap().success());
    assert_eq!(all.len(), source.len());
    let (before, behind) = suspended.split_at(25);
    assert_eq!(before.last(), Some(&(source[24].pts, false)));
    assert_eq!(behind.first(), Some(&(source[100].pts, true)), "not at the source's own key picture, nor between");
    assert_eq!(behind.len(), 20);
    assert!(behind[1..].iter().all(|(_, key)| !key));
}
