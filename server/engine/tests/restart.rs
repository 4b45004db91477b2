//! Workers that die or stop: every picture once, and the new worker begins with a key picture.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use engine::{Engine, EngineEvent, EngineInput};
use media::{MediaDuration, MediaTime};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tokio::time::Instant;

const START: MediaTime = MediaTime(705_600_000 * 50 + 7);

/// Feeds in real time; at input `strike` sends `signal` to the worker; all output to the end.
async fn struck(inputs: Vec<EngineInput>, signal: Signal, strike: usize, spec: engine::LadderSpec) -> (Got, Duration) {
    let mut engine = Engine::start(spec, options()).unwrap();
    let mut got = Got::default();
    let begin = Instant::now();
    let first = inputs[0].unit.dts;
    let (mut struck_at, mut recovered) = (None, Duration::ZERO);
    let mut inputs = inputs.into_iter().enumerate().peekable();
    let mut out_before = 0;
    loop {
        let due = inputs.peek().map(|(_, i)| begin + (i.unit.dts - first).to_std());
        tokio::select! {
            event = engine.events.recv() => {
                let Some(event) = event else { break };
                if let (EngineEvent::Unit { unit, .. }, Some(at)) = (&event, struck_at)
                    && unit.kind() == media::TrackKind::Video && !got.restarts.is_empty() && recovered.is_zero()
                {
                    recovered = Instant::now() - at;
                }
                got.take(event);
            }
            () = tokio::time::sleep_until(due.unwrap_or(begin)), if due.is_some() => {
                let (n, input) = inputs.next().unwrap();
                if n == strike {
                    kill(Pid::from_raw(engine.worker_pid().unwrap() as i32), signal).unwrap();
                    struck_at = Some(Instant::now());
                    out_before = got.units.values().map(Vec::len).sum();
                }
                engine.push(input);
                if inputs.peek().is_none() {
                    engine.finish();
                }
            }
            () = tokio::time::sleep_until(begin + Duration::from_secs(30)) => panic!("no end: {:?}", got.restarts),
        }
    }
    assert!(out_before > 0, "the worker was struck before it worked");
    assert_eq!(engine.dropped(), 0);
    (got, recovered)
}

fn check(got: &Got, source: &[media::AccessUnit], audio: &[media::AccessUnit]) {
    assert_eq!(got.restarts.len(), 1, "{:?}", got.restarts);
    let wanted: Vec<MediaTime> = source.iter().map(|u| u.pts).collect();
    let video: Vec<&str> = got.units.keys().map(String::as_str).filter(|id| *id != "aac").collect();
    assert!(video.len() > 1, "{video:?}");
    for id in video {
        assert_eq!(got.pts(id), wanted, "{id}: every picture once, in order");
        let keys = got.keys(id);
        assert!(
            source.iter().filter(|u| u.key).all(|u| keys.contains(&u.pts)),
            "{id}: keys of the source {:?} in {keys:?}",
            source.iter().filter(|u| u.key).map(|u| u.pts).collect::<Vec<_>>()
        );
        // It all decodes: the new worker's first picture refers to nothing that the old one made.
        let raw = pictures(&got.units[id]);
        assert_eq!(raw.len(), wanted.len(), "{id}");
    }
    let frame = MediaDuration::from_ticks(1024, 48_000);
    let aac = got.pts("aac");
    assert!(aac.windows(2).all(|w| w[1] - w[0] == frame), "audio frames are contiguous across the restart");
    assert!((*aac.last().unwrap() + frame - audio.last().unwrap().pts).millis().abs() < 60);
}

fn source(frames: u32, gop: u32) -> (Vec<media::AccessUnit>, Vec<media::AccessUnit>) {
    let audio = opus("audiotestsrc wave=sine volume=0.3", 2, frames * 50 / 30, START);
    (h264(320, 180, 30, frames, gop, START), audio)
}

fn ladder() -> engine::LadderSpec {
    spec(vec![rung("v180", 320, 180, None), rung("v90", 160, 90, None)], Some(aac(2)))
}

#[tokio::test]
async fn a_killed_worker_costs_no_picture() {
    if !gstreamer_or_skip() {
        return;
    }
    // Key pictures 5 s apart: the replay is long.
    let (video, audio) = source(150, 150);
    let (got, recovered) = struck(interleave(&video, &audio), Signal::SIGKILL, 200, ladder()).await;
    check(&got, &video, &audio);
    eprintln!("first picture {} ms after the kill", recovered.as_millis());
    assert!(recovered < Duration::from_secs(2), "{recovered:?}");
}

/// The same for the codecs that have other parsers on their way out.
#[tokio::test]
async fn a_killed_worker_costs_no_picture_of_any_codec() {
    if !gstreamer_or_skip() {
        return;
    }
    let (video, audio) = source(120, 60);
    let rungs = codecs().into_iter().map(|codec| coded(codec, rung(&format!("{codec:?}"), 160, 90, None)));
    let ladder = spec(rungs.collect(), Some(aac(2)));
    let (got, _) = struck(interleave(&video, &audio), Signal::SIGKILL, 200, ladder).await;
    check(&got, &video, &audio);
}

#[tokio::test]
async fn a_worker_killed_around_a_key_picture_costs_no_picture_either() {
    if !gstreamer_or_skip() {
        return;
    }
    let (video, audio) = source(120, 30);
    let inputs = interleave(&video, &audio);
    let at_key = inputs.iter().position(|i| i.unit.pts == video[60].pts && i.force_key).unwrap() + 1;
    let (got, _) = struck(inputs, Signal::SIGABRT, at_key, ladder()).await;
    check(&got, &video, &audio);
}

#[tokio::test]
async fn a_stopped_worker_is_replaced() {
    if !gstreamer_or_skip() {
        return;
    }
    let (video, audio) = source(180, 60);
    let (got, recovered) = struck(interleave(&video, &audio), Signal::SIGSTOP, 150, ladder()).await;
    check(&got, &video, &audio);
    assert!(got.restarts[0].contains("stood still"), "{:?}", got.restarts);
    eprintln!("first picture {} ms after the stop", recovered.as_millis());
    assert!(recovered < Duration::from_secs(3), "{recovered:?}");
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_tried_again_and_the_engine_can_be_dropped_meanwhile() {
    let mut options = options();
    options.program = "/bin/false".into();
    let mut engine = Engine::start(ladder(), options).unwrap();
    for expected in 1..=2 {
        match engine.events.recv().await.unwrap() {
            EngineEvent::WorkerRestarted { restarts, .. } => assert_eq!(restarts, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(engine.worker_pid(), None);
}

#[tokio::test]
async fn dropping_the_engine_ends_and_reaps_the_worker() {
    if !gstreamer_or_skip() {
        return;
    }
    let (video, _) = source(30, 30);
    let mut engine = Engine::start(ladder(), options()).unwrap();
    for input in interleave(&video, &[]) {
        engine.push(input);
    }
    assert!(matches!(engine.events.recv().await, Some(EngineEvent::Unit { .. })));
    let pid = engine.worker_pid().unwrap();
    let Engine { .. } = &engine;
    drop(engine);
    let gone = async {
        while std::path::Path::new(&format!("/proc/{pid}")).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the worker is gone and no zombie");
}
