//! What only a GPU can show: decoding, scaling and encoding on every NVIDIA GPU of this host, with what each of them has.
//! `make test-gpu` runs these; on a GPU without NVENC the CPU encodes, as in operation.
#![allow(clippy::unwrap_used)]

mod support;

use engine::backend::{Codec, Family, Policy, Tune};
use engine::{LadderSpec, OnDevice, probe};
use media::{AccessUnit, MediaDuration, MediaTime, TrackConfig};
use support::*;

const START: MediaTime = MediaTime(123_456_789_012);
const SIZES: [(u32, u32); 2] = [(640, 360), (320, 180)];
const ANNEX_B: &str = "video/x-h264,stream-format=byte-stream,alignment=au";

/// A GPU of this host.
struct Gpu {
    id: String,
    name: String,
    nvenc: bool,
}

impl Gpu {
    /// On the GPU alone where it can encode; with the CPU's encoder where it cannot.
    fn device(&self) -> Option<OnDevice> {
        let policy = if self.nvenc { Policy::GpuOnly } else { Policy::Cpu };
        Some(OnDevice { family: Family::Nvidia, id: self.id.clone(), policy })
    }
}

/// Every GPU that ladders can run on. Whoever asked for these tests has one: none is a failure.
fn gpus() -> Vec<Gpu> {
    let findings = probe::diagnose();
    let found: Vec<Gpu> = findings
        .iter()
        .filter_map(|f| f.device.as_ref())
        .filter(|d| d.elements.family == Family::Nvidia)
        .map(|d| Gpu {
            id: d.id.clone().unwrap(),
            name: d.name.clone().unwrap(),
            nvenc: d.elements.encoders.contains_key(&Codec::H264),
        })
        .collect();
    let faults: Vec<_> = findings.iter().filter(|f| !f.ok).collect();
    assert!(!found.is_empty() && faults.is_empty(), "{faults:#?}");
    found
}

fn ladder() -> LadderSpec {
    spec(SIZES.iter().map(|(w, h)| rung(&format!("v{h}"), *w, *h, None)).collect(), None)
}

fn pts(units: &[AccessUnit]) -> Vec<MediaTime> {
    units.iter().map(|u| u.pts).collect()
}

fn keys(units: &[AccessUnit]) -> Vec<MediaTime> {
    units.iter().filter(|u| u.key).map(|u| u.pts).collect()
}

/// Every picture of every rung at its time, keys where they were forced and nowhere else, in one run of the worker.
fn complete(got: &Got, source: &[AccessUnit], gpu: &Gpu) {
    assert!(got.restarts.is_empty() && got.failed.is_none(), "{}: {:?} {:?}", gpu.name, got.restarts, got.failed);
    for (width, height) in SIZES {
        let id = format!("v{height}");
        assert_eq!(got.pts(&id), pts(source), "{} {id}", gpu.name);
        assert_eq!(got.keys(&id), keys(source), "{} {id}", gpu.name);
        let units = &got.units[&id];
        let TrackConfig::H264(config) = &*units[0].config else { panic!("not H.264") };
        assert_eq!((config.width, config.height, config.reorder_depth), (width, height, 0), "{} {id}", gpu.name);
        assert!(units.iter().all(|u| u.config == units[0].config && u.dts == u.pts), "{} {id}", gpu.name);
        let decoded = decode(units, ANNEX_B, "avdec_h264");
        assert_eq!(decoded.len(), source.len(), "{} {id}", gpu.name);
        assert!(decoded.iter().all(|(_, bytes)| bytes.len() as u32 == width * height * 3 / 2), "{} {id}", gpu.name);
    }
}

#[tokio::test]
#[ignore = "needs a GPU: make test-gpu"]
async fn every_gpu_makes_every_picture_of_a_ladder() {
    let source = h264(1280, 720, 30, 150, 45, START);
    for gpu in gpus() {
        let begin = std::time::Instant::now();
        let got = run_through_on(gpu.device(), ladder(), interleave(&source, &[])).await;
        let how = if gpu.nvenc { "NVDEC, CUDA, NVENC" } else { "NVDEC, CUDA, CPU encoder" };
        eprintln!("{}: {how}: {} pictures in {:?}", gpu.name, source.len(), begin.elapsed());
        complete(&got, &source, &gpu);
    }
}

/// Mean difference of two rungs' luma, picture by picture: the largest.
fn difference(a: &[AccessUnit], b: &[AccessUnit], (width, height): (u32, u32)) -> f64 {
    let luma = (width * height) as usize;
    let (a, b) = (decode(a, ANNEX_B, "avdec_h264"), decode(b, ANNEX_B, "avdec_h264"));
    assert_eq!(a.len(), b.len());
    let mean = |a: &[u8], b: &[u8]| {
        let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / luma as f64
    };
    a.iter().zip(&b).map(|((_, a), (_, b))| mean(&a[..luma], &b[..luma])).fold(0.0, f64::max)
}

#[tokio::test]
#[ignore = "needs a GPU: make test-gpu"]
async fn the_pictures_of_a_gpu_are_those_of_the_cpu() {
    let source = h264(1280, 720, 30, 60, 30, START);
    let by_cpu = run_through(ladder(), interleave(&source, &[])).await;
    for gpu in gpus() {
        let got = run_through_on(gpu.device(), ladder(), interleave(&source, &[])).await;
        complete(&got, &source, &gpu);
        for (width, height) in SIZES {
            let id = format!("v{height}");
            let worst = difference(&got.units[&id], &by_cpu.units[&id], (width, height));
            // Scalers and encoders differ a little; a picture late by one, green, or flat differs by far more.
            assert!(worst < 4.0, "{} {id}: {worst}", gpu.name);
        }
    }
}

#[tokio::test]
#[ignore = "needs a GPU: make test-gpu"]
async fn a_source_that_changes_size_goes_on_in_the_same_renditions() {
    let mut source = h264(1280, 720, 30, 45, 45, START);
    for (width, height) in [(480, 640), (1920, 1080)] {
        let resume = source.last().unwrap().pts + MediaDuration::from_ticks(3000, 90_000);
        source.extend(h264(width, height, 30, 45, 45, resume));
    }
    for gpu in gpus() {
        let got = run_through_on(gpu.device(), ladder(), interleave(&source, &[])).await;
        complete(&got, &source, &gpu);
        // The portrait picture in the middle stands between black borders.
        let portrait = &decode(&got.units["v180"], ANNEX_B, "avdec_h264")[80].1;
        assert!(portrait[90 * 320..90 * 320 + 60].iter().all(|y| *y < 24), "{}: left border", gpu.name);
    }
}

#[tokio::test]
#[ignore = "needs a GPU: make test-gpu"]
async fn every_preset_and_tune_is_taken() {
    let source = h264(640, 360, 30, 20, 10, START);
    for gpu in gpus() {
        for preset in ["p1", "p2", "p3", "p4", "p5", "p6", "p7"] {
            for tune in [Tune::UltraLowLatency, Tune::LowLatency, Tune::HighQuality] {
                let mut ladder = ladder();
                for rung in &mut ladder.video {
                    (rung.preset, rung.tune) = (preset.to_owned(), tune);
                }
                eprintln!("{}: {preset} {tune:?}", gpu.name);
                let got = run_through_on(gpu.device(), ladder, interleave(&source, &[])).await;
                complete(&got, &source, &gpu);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a GPU: make test-gpu"]
async fn sessions_side_by_side_do_not_disturb_one_another() {
    let source = h264(1280, 720, 30, 90, 45, START);
    for gpu in gpus() {
        let one = || run_through_on(gpu.device(), ladder(), interleave(&source, &[]));
        let (a, b, c) = tokio::join!(one(), one(), one());
        for got in [a, b, c] {
            complete(&got, &source, &gpu);
        }
    }
}
