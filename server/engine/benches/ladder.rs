//! What a ladder costs: CPU seconds for each second of 1080p30 into 720p, 480p and 360p, by the engine's worker and by
//! one bare `gst-launch-1.0` pipeline of the same elements. The difference is what isolation and replay cost.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use media::MediaTime;
use nix::sys::resource::{UsageWho, getrusage};
use support::*;

const SECONDS: u32 = 10;
const LADDER: [(&str, u32, u32, u32); 3] =
    [("v720", 1280, 720, 2_500_000), ("v480", 854, 480, 1_200_000), ("v360", 640, 360, 700_000)];

fn main() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = h264(1920, 1080, 30, 30 * SECONDS, 60, MediaTime::ZERO);
    let rungs = LADDER.map(|(id, width, height, bitrate)| {
        let mut rung = rung(id, width, height, None);
        (rung.bitrate, rung.preset) = (bitrate, "veryfast".into());
        rung
    });
    let before = children_cpu();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let got = runtime.block_on(run_through(spec(rungs.to_vec(), None), interleave(&source, &[])));
    let engine = children_cpu() - before;
    assert!(LADDER.iter().all(|(id, ..)| got.pts(id).len() == source.len()));

    let mut file = tempfile::NamedTempFile::new().unwrap();
    for unit in &source {
        let media::TrackConfig::H264(config) = &*unit.config else { continue };
        file.write_all(&engine::avc::to_annex_b(&unit.data, unit.key.then_some(config))).unwrap();
    }
    let mut bare = format!(
        "filesrc location={} ! h264parse ! avdec_h264 thread-type=slice max-threads=2 ! tee name=t",
        file.path().display()
    );
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    for (_, width, height, bitrate) in LADDER {
        let threads = if height >= 720 { cores } else { 1 };
        bare += &format!(
            " t. ! queue ! videoconvertscale ! video/x-raw,format=I420,width={width},height={height},pixel-aspect-ratio=1/1 \
             ! x264enc tune=zerolatency speed-preset=veryfast bitrate={} key-int-max=60 threads={threads} \
             option-string=scenecut=0 vbv-buf-capacity=1000 ! fakesink sync=false",
            bitrate / 1000
        );
    }
    let before = children_cpu();
    let status = Command::new("gst-launch-1.0").arg("-q").args(bare.split(' ')).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let launch = children_cpu() - before;
    let per_second = |cpu: f64| cpu / f64::from(SECONDS);
    println!(
        "FIGURE 1080p30 -> 720p, 480p, 360p veryfast: engine {:.3} CPU s per second, bare pipeline {:.3}, ratio {:.2}",
        per_second(engine),
        per_second(launch),
        engine / launch
    );
}

/// CPU seconds of the children that have ended and been waited for.
fn children_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
