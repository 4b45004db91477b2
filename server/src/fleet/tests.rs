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
        throttles: crate::config::Throttles::default(),
    }
}

fn fleet(devices: &[(&str, SimulatedDevice)]) -> Fleet {
    let simulated = devices.iter().map(|(name, device)| ((*name).to_owned(), device.clone())).collect();
    fleet_of(Devices { simulated, ..only_simulated() })
}

fn only_simulated() -> Devices {
    Devices { gpus: crate::config::Gpus::Off, ..crate::config::Config::default().devices }
}

fn fleet_of(devices: Devices) -> Fleet {
    Fleet::new(&devices, std::path::Path::new("/nonexistent"))
}

fn ladder(heights: &[u32], policy: Policy) -> Ladder {
    let rung = |height: &u32| LadderRung::usual(*height, 1_000_000);
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

/// Sessions that no device takes when theirs is lost find a seat as soon as there is one.
#[tokio::test]
async fn sessions_that_lost_their_device_get_a_seat_when_there_is_room_again() {
    let room = 2 * ONE_720P;
    let fleet = fleet(&[("a", device(room, None)), ("b", device(room, None))]);
    let channels: Vec<Place> = ["one", "two", "three", "four"].iter().map(|name| place(&fleet, name)).collect();
    for channel in &channels {
        assert_eq!(channel.take(&source(), rungs(&[720]), Policy::GpuOnly).video.len(), 1);
    }
    let on = |fleet: &Fleet, n: usize| fleet.status().devices[n].ladders.len();
    assert_eq!((on(&fleet, 0), on(&fleet, 1)), (2, 2));
    fleet.quarantine(DeviceId(0), "lost".to_owned());
    assert_eq!((on(&fleet, 0), on(&fleet, 1)), (0, 2));
    assert_eq!(channels.iter().filter(|c| c.seat().host.is_none()).count(), 2, "two have nowhere to go");
    // One that stays leaves: its seat is taken at once.
    let stays = channels.iter().find(|c| c.seat().host.is_some()).unwrap();
    stays.leave();
    assert_eq!(on(&fleet, 1), 2);
    assert!(fleet.restore("a"));
    assert_eq!((on(&fleet, 0), on(&fleet, 1)), (1, 2));
    let decisions = fleet.status().decisions;
    assert_eq!(decisions.iter().filter(|d| d.text.contains("moves from a to")).count(), 2, "{decisions:?}");
}

#[tokio::test]
async fn a_session_that_lost_its_device_is_shortened_to_what_another_takes() {
    let fleet = fleet(&[("a", device(2 * ONE_720P, None)), ("b", device(ONE_720P, None))]);
    let channel = place(&fleet, "one");
    assert_eq!(channel.take(&source(), rungs(&[720, 480]), Policy::Shorten).video.len(), 2);
    assert_eq!(fleet.status().devices[0].ladders.len(), 1);
    fleet.quarantine(DeviceId(0), "lost".to_owned());
    assert_eq!(running(&fleet, "one"), ("b".to_owned(), vec!["v480".to_owned()]));
    let decisions = fleet.status().decisions;
    assert!(decisions.iter().any(|d| d.text == "one goes without v720 on b: the devices are full"), "{decisions:?}");
}

#[tokio::test]
async fn what_density_saved_is_the_capacity_that_ladders_are_admitted_by() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calibration.toml");
    let measured = crate::density::calibration::Calibration {
        device: "a".into(),
        codec: "h264",
        preset: "veryfast".into(),
        encode_mps: 70.0,
        decode_mps: 150.0,
        measured: "2026-11-21T10:00:00.000Z".into(),
    };
    crate::density::calibration::save(&file, &measured).unwrap();
    let mut faults = Vec::new();
    let calibration = crate::config::CalibrationFile::load(&file, "devices.calibration", &mut faults);
    assert_eq!(faults, []);
    let simulated = [("a".to_owned(), device(ONE_720P, None))].into();
    let fleet = fleet_of(Devices { calibration: Some(calibration), simulated, ..only_simulated() });
    // 70 megapixels a second at 90 % take two of them where the given 35 took one.
    let wanted = ladder(&[720], Policy::GpuOnly);
    for name in ["one", "two"] {
        place(&fleet, name).admit(&wanted).unwrap();
    }
    assert_eq!(place(&fleet, "three").admit(&wanted).unwrap_err().kind, "encode-full");
}

/// Says what is measured of a device, until it is said anew.
fn measured(fleet: &Fleet, device: &str, throttled: Option<u16>) {
    let device = usize::try_from(fleet.find(device).unwrap().0).unwrap();
    let now = Measured::of_simulated(None, throttled, SystemTime::now());
    fleet.state().readings[device].latest = Some((Instant::now(), now));
}

/// Lets seconds pass in which all sessions of a channel called `slow` lag by so much; the new decisions, oldest first.
fn seconds(fleet: &Fleet, from: u64, count: u64, lag: Duration) -> Vec<String> {
    let before = fleet.status().decisions.len();
    for second in from..from + count {
        fleet.govern(At(second * 1000), |_, s| (s.channel.as_str() == "slow").then_some(lag));
    }
    let after = fleet.status().decisions;
    after[..after.len() - before].iter().rev().map(|d| d.text.clone()).collect()
}

fn running(fleet: &Fleet, channel: &str) -> (String, Vec<String>) {
    let devices = fleet.status().devices;
    let found =
        devices.iter().find_map(|d| Some((d.id.clone(), d.ladders.iter().find(|l| l.channel == channel)?.clone())));
    let (device, ladder) = found.unwrap();
    (device, ladder.rungs.into_iter().filter(|r| !ladder.suspended.contains(r)).collect())
}

const NO_LAG: Duration = Duration::from_millis(40);

#[tokio::test]
async fn a_device_that_throttles_gives_a_session_away_then_a_rung_and_takes_it_back_when_it_has_cooled() {
    let fleet = fleet(&[("a", device(100, None)), ("b", device(ONE_720P, None))]);
    let (one, two) = (place(&fleet, "one"), place(&fleet, "two"));
    one.take(&source(), rungs(&[720, 480]), Policy::GpuOnly);
    two.take(&source(), rungs(&[720]), Policy::GpuOnly);
    assert_eq!((running(&fleet, "one").0, running(&fleet, "two").0), ("a".into(), "a".into()));
    assert!(seconds(&fleet, 0, 60, NO_LAG).is_empty(), "nothing is wrong");

    measured(&fleet, "a", Some(30));
    let text = seconds(&fleet, 60, 40, NO_LAG);
    // 67.5 of 27 megapixels a second. The other device takes the 27.6 of the second; then 12.3 of the first are left.
    assert_eq!(text.len(), 2, "{text:?}");
    assert_eq!(text[0], "two moves from a to b: throttled");
    assert!(text[1].starts_with("one goes without v720 on a: throttled"), "{text:?}");
    assert_eq!(running(&fleet, "one"), ("a".into(), vec!["v480".into()]));
    let status = fleet.status();
    let (a, measured_now) = (&status.devices[0], status.devices[0].measured.as_ref().unwrap());
    assert_eq!(
        (measured_now.speed, measured_now.throttle.as_slice(), measured_now.simulated),
        (0.3, &["simulated".to_owned()][..], true)
    );
    assert_eq!((a.counts.moves["throttled"], a.counts.shed["throttled"], a.counts.regained), (1, 1, 0));
    // Nobody comes meanwhile.
    assert_eq!(place(&fleet, "three").admit(&ladder(&[720], Policy::GpuOnly)).unwrap_err().kind, "encode-full");
    assert!(seconds(&fleet, 100, 300, NO_LAG).is_empty(), "it comes to rest");

    measured(&fleet, "a", None);
    let text = seconds(&fleet, 400, 120, NO_LAG);
    assert_eq!(text, ["one has v720 again on a: it has been calm and there is room"]);
    assert_eq!(running(&fleet, "one").1, ["v720", "v480"]);
    drop((one, two));
}

#[tokio::test]
async fn lag_sheds_the_highest_rungs_until_it_ends_whatever_the_device_says_of_itself() {
    let fleet = fleet(&[("a", device(1000, None))]);
    let slow = place(&fleet, "slow");
    slow.take(&source(), rungs(&[1080, 720, 480]), Policy::Cpu);
    let short = place(&fleet, "short");
    short.take(&source(), rungs(&[360]), Policy::Cpu);
    // For a moment nothing is done.
    assert!(seconds(&fleet, 0, 3, Duration::from_millis(900)).is_empty());
    assert!(seconds(&fleet, 3, 5, NO_LAG).is_empty());
    let text = seconds(&fleet, 8, 10, Duration::from_millis(900));
    assert!(text.len() == 1 && text[0].starts_with("slow goes without v1080 on a: overload"), "{text:?}");
    // It still lags; then all ladders are down to one rung, which is said once.
    let text = seconds(&fleet, 18, 200, Duration::from_millis(900));
    assert!(text[0].starts_with("slow goes without v720"), "{text:?}");
    assert!(text.len() == 2 && text[1].contains("each is down to one rung"), "{text:?}");
    assert_eq!(
        (running(&fleet, "slow").1, running(&fleet, "short").1),
        (vec!["v480".to_owned()], vec!["v360".to_owned()])
    );
    assert!(!place(&fleet, "late").take(&source(), rungs(&[720]), Policy::Cpu).message.unwrap().text.is_empty());
    // When it is over, all comes back, one thing at a time.
    let text = seconds(&fleet, 218, 3000, NO_LAG);
    assert_eq!(text.iter().filter(|t| t.contains("slow has v")).count(), 2, "{text:?}");
    assert_eq!(running(&fleet, "slow").1, ["v1080", "v720", "v480"]);
    place(&fleet, "later").take(&source(), rungs(&[1080, 720]), Policy::GpuOnly);
    assert_eq!(running(&fleet, "later").0, "a");
}

#[tokio::test]
async fn a_ladder_that_fits_once_a_session_has_moved_is_told_to_come_back_and_then_fits() {
    let three = || device(26, None);
    let simulated = [("a".to_owned(), three()), ("b".to_owned(), three())].into();
    let fleet = fleet_of(Devices { policy: placement::Policy::Spread, simulated, ..only_simulated() });
    let small = [90];
    for name in ["one", "two", "three", "four"] {
        place(&fleet, name).take(&source(), rungs(&small), Policy::GpuOnly);
    }
    // Two of three places are taken on each: together there is room for two more rungs.
    let status = fleet.status();
    assert_eq!(status.devices.iter().map(|d| d.ladders.len()).collect::<Vec<_>>(), [2, 2]);
    let big = place(&fleet, "big");
    let wanted = ladder(&[180, 90], Policy::GpuOnly);
    let refused = big.admit(&wanted).unwrap_err();
    assert_eq!((refused.status, refused.kind, refused.retry_after), (503, "making-room", Some(ROOM_RETRY_AFTER)));
    let status = fleet.status();
    assert!(status.decisions.iter().any(|d| d.text.ends_with(": make room")), "{status:?}");
    let mut ladders: Vec<_> = status.devices.iter().map(|d| d.ladders.len()).collect();
    ladders.sort_unstable();
    assert_eq!(ladders, [1, 3]);
    big.admit(&wanted).unwrap();
    // Nothing that could be moved helps now.
    let refused = place(&fleet, "more").admit(&wanted).unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), ("encode-full", Some(RETRY_AFTER)));
}

#[tokio::test]
async fn publishers_cannot_keep_sessions_moving() {
    let two = || device(18, None);
    let simulated = [("a".to_owned(), two()), ("b".to_owned(), two())].into();
    let fleet = fleet_of(Devices { policy: placement::Policy::Spread, simulated, ..only_simulated() });
    let mut refusals = Vec::new();
    for round in 0..10 {
        // One on each, none is full; a ladder of two rungs wants a device of its own. Then all leave.
        let placed: Vec<_> = (0..2).map(|n| place(&fleet, &format!("r{round}n{n}"))).collect();
        for place in &placed {
            place.take(&source(), rungs(&[90]), Policy::GpuOnly);
        }
        refusals.push(place(&fleet, "big").admit(&ladder(&[180, 90], Policy::GpuOnly)).unwrap_err().kind);
        placed.iter().for_each(Place::leave);
    }
    let making = refusals.iter().take_while(|kind| **kind == "making-room").count();
    assert_eq!(making, ROOMS_A_MINUTE, "{refusals:?}");
    assert!(refusals[making..].iter().all(|kind| *kind == "encode-full"), "{refusals:?}");
}
