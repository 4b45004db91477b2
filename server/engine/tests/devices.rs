//! Sessions in devices' workers: shared by all sessions of a device, left for another device without a gap.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use engine::{DeviceHost, Engine, EngineEvent, HostEnded, HostOptions, Seat};
use media::{MediaDuration, MediaTime};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tokio::sync::mpsc;
use tokio::time::Instant;

const START: MediaTime = MediaTime(705_600_000 * 50 + 7);
const FRAMES: u32 = 150;

fn host(name: &str, fails_after: Option<Duration>) -> (DeviceHost, mpsc::Receiver<HostEnded>) {
    DeviceHost::new(HostOptions { program: options().program, name: name.into(), device: None, fails_after })
}

fn at(host: &DeviceHost) -> Seat {
    Seat { device: None, host: Some(host.clone()) }
}

fn source(gop: u32) -> (Vec<media::AccessUnit>, Vec<media::AccessUnit>) {
    let audio = opus("audiotestsrc wave=sine volume=0.3", 2, FRAMES * 50 / 30, START);
    (h264(320, 180, 30, FRAMES, gop, START), audio)
}

fn ladder() -> engine::LadderSpec {
    spec(vec![rung("v180", 320, 180, None), rung("v90", 160, 90, None)], Some(aac(2)))
}

struct Run {
    got: Got,
    /// Longest time without a picture of `v180`, the first second left out.
    longest_wait: Duration,
}

/// Feeds in real time and does `act` at input `moment`; all output to the end.
async fn run(
    seat: Seat,
    source: &(Vec<media::AccessUnit>, Vec<media::AccessUnit>),
    moment: usize,
    act: impl AsyncFnOnce(&Engine),
) -> Run {
    let mut engine = Engine::start_at(ladder(), options(), seat).unwrap();
    let mut got = Got::default();
    let begin = Instant::now();
    let inputs = interleave(&source.0, &source.1);
    let first = inputs[0].unit.dts;
    let mut inputs = inputs.into_iter().enumerate().peekable();
    let (mut act, mut last, mut longest_wait) = (Some(act), None::<Instant>, Duration::ZERO);
    loop {
        let due = inputs.peek().map(|(_, i)| begin + (i.unit.dts - first).to_std());
        tokio::select! {
            event = engine.events.recv() => {
                let Some(event) = event else { break };
                if let EngineEvent::Unit { rendition, .. } = &event && rendition.as_str() == "v180" {
                    let now = Instant::now();
                    if let Some(before) = last.replace(now).filter(|at| *at - begin > Duration::from_secs(1)) {
                        longest_wait = longest_wait.max(now - before);
                    }
                }
                got.take(event);
            }
            () = tokio::time::sleep_until(due.unwrap_or(begin)), if due.is_some() => {
                let (n, input) = inputs.next().unwrap();
                if n == moment {
                    act.take().unwrap()(&engine).await;
                }
                engine.push(input);
                if inputs.peek().is_none() {
                    engine.finish();
                }
            }
            () = tokio::time::sleep_until(begin + Duration::from_secs(30)) => panic!("no end: {:?}", got.restarts),
        }
    }
    assert_eq!(engine.dropped(), 0);
    Run { got, longest_wait }
}

fn check(got: &Got, source: &(Vec<media::AccessUnit>, Vec<media::AccessUnit>)) {
    let wanted: Vec<MediaTime> = source.0.iter().map(|u| u.pts).collect();
    for id in ["v180", "v90"] {
        assert_eq!(got.pts(id), wanted, "{id}: every picture once, in order");
        let units = &got.units[id];
        assert!(units.iter().all(|u| u.config == units[0].config), "{id}: one configuration all along");
        let raw = decode(units, "video/x-h264,stream-format=byte-stream,alignment=au", "avdec_h264");
        assert_eq!(raw.len(), wanted.len(), "{id}");
    }
    let frame = MediaDuration::from_ticks(1024, 48_000);
    let aac = got.pts("aac");
    assert!(aac.windows(2).all(|w| w[1] - w[0] == frame), "audio frames are contiguous");
    assert!((*aac.last().unwrap() + frame - source.1.last().unwrap().pts).millis().abs() < 60);
}

#[tokio::test]
async fn a_session_moves_without_a_gap_and_leaves_the_others() {
    if !gstreamer_or_skip() {
        return;
    }
    let (one, _one_ended) = host("one", None);
    let (two, _two_ended) = host("two", None);
    let source = source(30);
    let (answer_in, answer) = tokio::sync::oneshot::channel();
    let elsewhere = at(&two);
    let moving = run(at(&one), &source, 100, async |engine| {
        let moved = engine.mover().move_to(elsewhere);
        tokio::spawn(async move { answer_in.send(moved.await) });
    });
    let staying = run(at(&one), &source, 0, async |_| ());
    let (moving, staying) = tokio::join!(moving, staying);
    assert_eq!(answer.await.unwrap().unwrap(), Ok(()));
    for run in [&moving, &staying] {
        check(&run.got, &source);
        assert_eq!(run.got.restarts, [""; 0]);
    }
    assert!(moving.longest_wait < Duration::from_millis(500), "{:?} without a picture", moving.longest_wait);
    assert!(one.pid().is_some() && two.pid().is_some() && one.pid() != two.pid());
}

#[tokio::test]
async fn without_a_key_picture_in_time_the_session_moves_all_the_same() {
    if !gstreamer_or_skip() {
        return;
    }
    let (one, _one_ended) = host("one", None);
    let (two, mut two_ended) = host("two", None);
    // One key picture, at the beginning: the end comes before the next one.
    let source = source(10_000);
    let elsewhere = at(&two);
    let moved = run(at(&one), &source, 20, async |engine| {
        tokio::spawn(engine.mover().move_to(elsewhere));
    });
    let moved = moved.await;
    assert_eq!(moved.got.pts("v180").len(), FRAMES as usize);
    assert!(two_ended.try_recv().is_err());
}

#[tokio::test]
async fn sessions_share_a_devices_worker_and_survive_its_death() {
    if !gstreamer_or_skip() {
        return;
    }
    let (device, mut ended) = host("one", None);
    let source = source(30);
    let struck = device.clone();
    let one = run(at(&device), &source, 150, async |engine| {
        let pid = struck.pid().unwrap();
        assert_eq!(engine.worker_pid(), Some(pid));
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    });
    let two = run(at(&device), &source, 0, async |_| ());
    let (one, two) = tokio::join!(one, two);
    for run in [&one, &two] {
        check(&run.got, &source);
        assert_eq!(run.got.restarts.len(), 1, "{:?}", run.got.restarts);
    }
    let end = ended.recv().await.unwrap();
    assert!(!end.lost && end.reason.contains("signal: 9"), "{end:?}");
}

#[tokio::test]
async fn a_lost_device_says_so_and_its_session_goes_on_elsewhere() {
    if !gstreamer_or_skip() {
        return;
    }
    let (failing, mut ended) = host("one", Some(Duration::from_secs(2)));
    let (other, _other_ended) = host("two", None);
    let source = source(30);
    // Who owns the devices is told of the loss and moves the session.
    let elsewhere = at(&other);
    let run = run(at(&failing), &source, 0, async |engine| {
        let mover = engine.mover();
        tokio::spawn(async move {
            assert!(ended.recv().await.unwrap().lost);
            assert_eq!(mover.move_to(elsewhere).await.unwrap(), Ok(()));
        });
    });
    let run = run.await;
    check(&run.got, &source);
    assert!(run.longest_wait < Duration::from_secs(2), "{:?} without a picture", run.longest_wait);
    assert!(other.pid().is_some());
}
