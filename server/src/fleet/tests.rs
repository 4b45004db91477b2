#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{Rung as LadderRung, SimulatedDevice};

fn device(encode: u64, sessions: Option<u32>) -> SimulatedDevice {
    SimulatedDevice {
        encode_engines: 1,
        encode,
        decode_engines: 1,
        decode: 1000,
        vram_mib: 16_384,
        sessions,
        fails_after: None,
    }
}

fn fleet(devices: &[(&str, SimulatedDevice)]) -> Fleet {
    let simulated = devices.iter().map(|(name, device)| ((*name).to_owned(), device.clone())).collect();
    let devices = Devices { gpus: crate::config::Gpus::Off, policy: placement::Policy::Consolidate, simulated };
    Fleet::new(&devices, std::path::Path::new("/nonexistent"))
}

fn ladder(heights: &[u32], policy: Policy) -> Ladder {
    let rung = |height: &u32| LadderRung {
        height: *height,
        bitrate: 1_000_000,
        max_frame_rate: None,
        codec: Default::default(),
        preset: "veryfast".into(),
        tune: Default::default(),
    };
    Ladder { rungs: heights.iter().map(rung).collect(), policy, ..Ladder::passthrough() }
}

fn rungs(heights: &[u32]) -> Vec<VideoRung> {
    expected_rungs(&ladder(heights, Policy::Cpu), 1920, 1080)
}

fn source() -> H264Config {
    H264Config {
        sps: bytes::Bytes::new(),
        pps: vec![],
        width: 1920,
        height: 1080,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: Some((30, 1)),
    }
}

fn place(fleet: &Fleet, name: &str) -> Place {
    fleet.place(name.parse().unwrap())
}

/// 720p at 30 frames a second is 27.6 megapixels a second.
const ONE_720P: u64 = 35;

#[tokio::test]
async fn a_publisher_that_does_not_fit_is_told_why_and_when_to_come_back() {
    let fleet = fleet(&[("a", device(ONE_720P, None))]);
    let wanted = ladder(&[720], Policy::GpuOnly);
    let first = place(&fleet, "one");
    first.admit(&wanted).unwrap();
    let refused = place(&fleet, "two").admit(&wanted).unwrap_err();
    assert_eq!((refused.status, refused.kind, refused.retry_after), (503, "encode-full", Some(RETRY_AFTER)));
    assert!(fleet.status().decisions[0].text.starts_with("two refused: encode full"));
    first.leave();
    place(&fleet, "two").admit(&wanted).unwrap();
}

/// The codec decides what a rung takes of a device, and whether it takes it at all.
#[tokio::test]
async fn rungs_of_one_height_and_different_codecs_have_their_own_names_and_demand() {
    let mut wanted = ladder(&[720, 720], Policy::Cpu);
    wanted.rungs[1].codec = EngineCodec::Av1;
    let rungs = expected_rungs(&wanted, 1920, 1080);
    assert_eq!(rungs.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["v720", "v720-av1"]);
    let source = Picture { width: 1920, height: 1080, frame_rate: (30, 1) };
    let demand = demand(source, &rungs).unwrap();
    assert_eq!(demand.encode.iter().map(|load| load.0).collect::<Vec<_>>(), [Codec::H264, Codec::Av1]);
    assert_eq!(kind_of(Cause::Never(placement::cost::Misfit::Encoder(Codec::Av1))), "no-encoder");
}

#[tokio::test]
async fn a_ladder_that_no_device_can_ever_take_has_no_time_to_come_back() {
    let fleet = fleet(&[("a", device(10, None))]);
    let refused = place(&fleet, "one").admit(&ladder(&[1080], Policy::GpuOnly)).unwrap_err();
    assert_eq!((refused.status, refused.kind, refused.retry_after), (503, "ladder-too-large", None));
}

#[tokio::test]
async fn policies_shorten_or_use_the_cpu_and_say_so() {
    let fleet = fleet(&[("a", device(ONE_720P, None))]);
    let short = place(&fleet, "short").take(&source(), rungs(&[1080, 720]), Policy::Shorten);
    assert_eq!(short.video.iter().map(|r| r.height).collect::<Vec<_>>(), [720]);
    assert!(short.message.unwrap().text.contains("without v1080"));
    let cpu = place(&fleet, "cpu");
    let on_cpu = cpu.take(&source(), rungs(&[720, 480]), Policy::Cpu);
    assert_eq!(on_cpu.video.len(), 2);
    assert!(on_cpu.message.unwrap().text.contains("CPU"));
    assert!(cpu.seat().host.is_none());
    let refused = place(&fleet, "gpu").take(&source(), rungs(&[720]), Policy::GpuOnly);
    assert!(refused.video.is_empty() && refused.message.unwrap().level == "error");
}

#[tokio::test]
async fn without_devices_the_cpu_encodes_and_only_ladders_that_want_a_gpu_are_refused() {
    let fleet = fleet(&[]);
    let free = place(&fleet, "one").take(&source(), rungs(&[720]), Policy::Cpu);
    assert_eq!(free, Admitted { video: rungs(&[720]), message: None });
    let refused = place(&fleet, "two").admit(&ladder(&[720], Policy::GpuOnly)).unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), ("no-device", None));
}

#[tokio::test]
async fn the_seat_that_was_reserved_for_a_publisher_becomes_its_sources() {
    let fleet = fleet(&[("a", device(ONE_720P, Some(1)))]);
    let place = place(&fleet, "one");
    place.admit(&ladder(&[720], Policy::GpuOnly)).unwrap();
    for _ in 0..2 {
        let taken = place.take(&source(), rungs(&[720]), Policy::GpuOnly);
        assert_eq!(taken.video.len(), 1, "{:?}", taken.message);
    }
    let status = fleet.status();
    assert_eq!((status.devices[0].ladders.len(), status.devices[0].encoding_sessions_left), (1, Some(0)));
    assert_eq!(status.devices[0].ladders[0].rungs, ["v720"]);
    place.leave();
    assert!(fleet.status().devices[0].ladders.is_empty());
}

#[tokio::test]
async fn a_drained_device_gives_its_ladders_away_and_keeps_what_nobody_takes() {
    let fleet = fleet(&[("a", device(2 * ONE_720P, None)), ("b", device(ONE_720P, None))]);
    let places = ["one", "two"].map(|name| {
        let place = place(&fleet, name);
        place.take(&source(), rungs(&[720]), Policy::GpuOnly);
        place
    });
    let on = |id: &str| fleet.status().devices.iter().find(|d| d.id == id).unwrap().ladders.len();
    let (full, other) = if on("a") == 2 { ("a", "b") } else { ("b", "a") };
    assert_eq!((on(full), on(other)), if full == "a" { (2, 0) } else { (1, 1) });
    let drained = fleet.drain("a").unwrap();
    assert_eq!((drained.moving, drained.stranded.len()), if full == "a" { (1, 1) } else { (0, 1) });
    assert_eq!(fleet.status().devices[0].state, "draining");
    assert!(fleet.drain("nobody").is_none() && !fleet.restore("nobody"));
    assert!(fleet.restore("a"));
    assert_eq!(fleet.status().devices[0].state, "ready");
    drop(places);
}

#[tokio::test]
async fn a_device_whose_worker_dies_again_and_again_is_put_into_quarantine() {
    let fleet = fleet(&[("a", device(1000, None)), ("b", device(1000, None))]);
    let place = place(&fleet, "one");
    place.take(&source(), rungs(&[720]), Policy::GpuOnly);
    let at = fleet.status().devices.iter().position(|d| d.ladders.len() == 1).unwrap();
    let device = DeviceId(at as u32);
    let death = |lost| HostEnded { lost, reason: "its worker died (signal: 9)".to_owned() };
    for _ in 1..MAX_DEATHS {
        fleet.worker_died(device, death(false));
        assert_eq!(fleet.status().devices[at].state, "ready");
    }
    fleet.worker_died(device, death(false));
    let status = fleet.status();
    assert_eq!((status.devices[at].state, status.devices[at].worker_restarts), ("quarantined", 3));
    assert_eq!(status.devices[1 - at].ladders.len(), 1, "the other device has it now");
    // The other one is lost at once: nothing is left.
    fleet.worker_died(DeviceId(1 - at as u32), death(true));
    assert!(fleet.status().decisions[0].text.contains("has lost its device"));
    assert!(fleet.restore("a") && fleet.restore("b"));
    assert!(fleet.status().devices.iter().all(|d| d.state == "ready" && d.reason.is_none()));
}
