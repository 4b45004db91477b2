//! The ladder itself, with a real worker: every picture, exact times, aligned key pictures, sound in its place.
#![allow(clippy::unwrap_used)]

mod support;

use engine::backend::{Codec, Family, Policy, Tune};
use engine::{Engine, EngineEvent, OnDevice, VideoRung};
use media::{MediaDuration, MediaTime, TrackConfig};
use support::*;

/// Not a multiple of a 90 kHz tick: times must come back exactly all the same.
const START: MediaTime = MediaTime(123_456_789_012);

fn pts(units: &[media::AccessUnit]) -> Vec<MediaTime> {
    units.iter().map(|u| u.pts).collect()
}

fn key_pts(units: &[media::AccessUnit]) -> Vec<MediaTime> {
    units.iter().filter(|u| u.key).map(|u| u.pts).collect()
}

#[tokio::test]
async fn b17_every_rung_has_every_picture_at_its_exact_time_and_keys_only_where_forced() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = h264(640, 360, 30, 120, 45, START);
    let spec = spec(vec![rung("v240", 426, 240, None), rung("v180", 320, 180, None), rung("v90", 160, 90, None)], None);
    let got = run_through(spec, interleave(&source, &[])).await;
    for id in ["v240", "v180", "v90"] {
        assert_eq!(got.pts(id), pts(&source), "{id}");
        assert_eq!(got.keys(id), key_pts(&source), "{id}");
        let unit = &got.units[id][0];
        assert!(unit.config.rfc6381().starts_with("avc1."));
        assert!(got.units[id].iter().all(|u| u.config == unit.config && u.dts == u.pts));
    }
    assert_eq!(key_pts(&source).len(), 3);
    let TrackConfig::H264(config) = &*got.units["v180"][0].config else { panic!("not H.264") };
    assert_eq!((config.width, config.height, config.sar, config.frame_rate), (320, 180, (1, 1), Some((30, 1))));
    // They decode to pictures of the declared size.
    let pictures = decode(&got.units["v180"], "video/x-h264,stream-format=byte-stream,alignment=au", "avdec_h264");
    assert_eq!(pictures.len(), 120);
    assert!(pictures.iter().all(|(_, bytes)| bytes.len() == 320 * 180 * 3 / 2), "{}", pictures[0].1.len());
    assert!(got.restarts.is_empty() && got.failed.is_none());
}

/// Under every tune, since look-ahead is what delays and loses key pictures.
#[tokio::test]
async fn every_codec_has_every_picture_at_its_exact_time_and_keys_only_where_forced() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = h264(640, 360, 30, 120, 45, START);
    let there = codecs();
    assert!(there.contains(&Codec::H265) || std::env::var("FISHLADDER_STRICT").as_deref() != Ok("1"), "x265enc");
    for tune in [Tune::UltraLowLatency, Tune::LowLatency, Tune::HighQuality] {
        let rungs = there.iter().map(|codec| {
            let id = format!("{codec:?}").to_lowercase();
            VideoRung { tune, ..coded(*codec, rung(&id, 320, 180, None)) }
        });
        let got = run_through(spec(rungs.collect(), None), interleave(&source, &[])).await;
        assert!(got.restarts.is_empty() && got.failed.is_none(), "{:?} {:?}", got.restarts, got.failed);
        for (id, units) in &got.units {
            assert_eq!(got.pts(id), pts(&source), "{id} {tune:?}");
            assert_eq!(got.keys(id), key_pts(&source), "{id} {tune:?}");
            assert!(units.iter().all(|u| u.config == units[0].config && u.dts == u.pts), "{id}");
            let codecs = match &*units[0].config {
                TrackConfig::H264(_) => "avc1.",
                TrackConfig::H265(_) => "hvc1.1.6.L",
                _ => "av01.0.0",
            };
            assert!(units[0].config.rfc6381().starts_with(codecs), "{}", units[0].config.rfc6381());
            let pictures = pictures(units);
            assert_eq!(pictures.len(), 120, "{id} {tune:?}");
            assert!(pictures.iter().all(|(_, bytes)| bytes.len() == 320 * 180 * 3 / 2), "{id}");
        }
        assert_eq!(got.units.len(), there.len());
    }
}

/// Nothing is made in its place, and nobody tries again and again: an encoder does not come by itself.
#[tokio::test]
async fn a_codec_that_nothing_here_encodes_ends_the_session_at_once_and_says_what_to_install() {
    if !gstreamer_or_skip() {
        return;
    }
    let there = codecs();
    let source = h264(320, 180, 30, 30, 30, START);
    for (codec, package) in
        [(Codec::H265, "gstreamer1.0-plugins-bad (x265enc)"), (Codec::Av1, "1.24.5 or newer (av1enc")]
    {
        let rungs = vec![rung("v180", 320, 180, None), coded(codec, rung("newer", 160, 90, None))];
        let got = run_through(spec(rungs, None), interleave(&source, &[])).await;
        if there.contains(&codec) {
            assert_eq!((got.pts("newer"), got.failed), (pts(&source), None));
        } else {
            let reason = got.failed.unwrap();
            assert!(reason.contains("the CPU has no") && reason.contains(package), "{reason}");
            assert!(got.units.is_empty() && got.restarts.is_empty(), "{:?}", got.restarts);
        }
    }
}

/// A publisher that does not say its rate is taken for 30 a second; the encoders go by that, and are put right.
#[tokio::test]
async fn every_codec_keeps_its_bit_rate_where_the_source_does_not_say_its_frame_rate() {
    if !gstreamer_or_skip() {
        return;
    }
    let there = codecs();
    for fps in [15u32, 60] {
        let seconds = 8;
        let source: Vec<_> = noise(640, 360, fps, fps * seconds, fps, START)
            .into_iter()
            .map(|unit| {
                let TrackConfig::H264(config) = &*unit.config else { unreachable!() };
                let config = media::H264Config { frame_rate: None, ..config.clone() };
                media::AccessUnit { config: TrackConfig::H264(config).shared(), ..unit }
            })
            .collect();
        let rungs = there.iter().map(|codec| coded(*codec, rung(&format!("{codec:?}"), 320, 180, None)));
        let got = run_through(spec(rungs.collect(), None), interleave(&source, &[])).await;
        for (id, units) in &got.units {
            assert_eq!(got.pts(id), pts(&source), "{id} at {fps}");
            assert_eq!(got.keys(id), key_pts(&source), "{id} at {fps}");
            assert!(units.iter().all(|u| u.config == units[0].config), "{id} keeps its configuration");
            // Behind the first two seconds, in which the rate is measured.
            let late = START + MediaDuration::from_millis(2_000);
            let bits: usize = units.iter().filter(|u| u.pts >= late).map(|u| u.data.len() * 8).sum();
            let rate = bits / (seconds as usize - 2);
            eprintln!("{id} at {fps}: {rate} bit/s");
            // x265enc takes no more than its limits, which are in pictures too, and keeps them for good.
            let least = if id == "H265" && fps < 30 { 140_000 } else { 280_000 };
            assert!((least..=480_000).contains(&rate), "{id} at {fps}: {rate} bit/s");
        }
        assert_eq!(got.units.len(), there.len());
    }
}

#[tokio::test]
async fn a_slower_rung_has_fewer_pictures_and_the_same_keys() {
    if !gstreamer_or_skip() {
        return;
    }
    // An odd GOP, so that half of the key pictures are off the slower rung's even grid.
    let source = h264(320, 180, 30, 150, 31, START);
    let spec = spec(vec![rung("v180", 320, 180, None), rung("v90", 160, 90, Some((15, 1)))], None);
    let got = run_through(spec, interleave(&source, &[])).await;
    assert_eq!(got.pts("v180"), pts(&source));
    let slow = got.pts("v90");
    assert!((75..=80).contains(&slow.len()), "{}", slow.len());
    assert!(slow.iter().all(|t| source.iter().any(|u| u.pts == *t)));
    assert_eq!(got.keys("v90"), key_pts(&source));
    let TrackConfig::H264(config) = &*got.units["v90"][0].config else { panic!("not H.264") };
    assert_eq!(config.frame_rate, Some((15, 1)));
}

#[tokio::test]
async fn a_source_that_changes_size_goes_on_in_the_same_renditions() {
    if !gstreamer_or_skip() {
        return;
    }
    let mut source = h264(640, 360, 30, 40, 20, START);
    let resume = source.last().unwrap().pts + MediaDuration::from_ticks(3000, 90_000);
    source.extend(h264(480, 640, 30, 40, 20, resume));
    let got = run_through(spec(vec![rung("v180", 320, 180, None)], None), interleave(&source, &[])).await;
    assert_eq!(got.pts("v180"), pts(&source));
    assert_eq!(got.keys("v180"), key_pts(&source));
    let first = &got.units["v180"][0].config;
    assert!(got.units["v180"].iter().all(|u| u.config == *first), "the rendition keeps its configuration");
    // A portrait picture stands between black borders.
    let pictures = decode(&got.units["v180"], "video/x-h264,stream-format=byte-stream,alignment=au", "avdec_h264");
    let last = &pictures.last().unwrap().1;
    assert!(last[90 * 320..90 * 320 + 60].iter().all(|y| *y < 24), "left border");
}

#[tokio::test]
async fn damaged_units_cost_only_themselves() {
    if !gstreamer_or_skip() {
        return;
    }
    let mut source = h264(320, 180, 30, 90, 30, START);
    for (n, unit) in source.iter_mut().enumerate() {
        // A GOP of noise in place of slices, and a few units of nothing at all.
        if (35..55).contains(&n) {
            let noise: Vec<u8> =
                unit.data.iter().enumerate().map(|(i, b)| if i < 5 { *b } else { b ^ (i * 37) as u8 }).collect();
            unit.data = noise.into();
        } else if (55..58).contains(&n) {
            unit.data = bytes::Bytes::from_static(&[0, 0, 0, 200, 1, 2, 3]);
        }
    }
    let got = run_through(spec(vec![rung("v90", 160, 90, None)], None), interleave(&source, &[])).await;
    assert!(got.restarts.is_empty(), "{:?}", got.restarts);
    let out = got.pts("v90");
    assert!(source[..35].iter().chain(&source[60..]).all(|u| out.contains(&u.pts)), "{}", out.len());
    assert_eq!(got.keys("v90"), key_pts(&source));
}

#[tokio::test]
async fn reordered_pictures_come_out_in_order_at_their_times() {
    if !gstreamer_or_skip() {
        return;
    }
    let ordered = run_pipeline(
        "videotestsrc num-buffers=60 pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 \
         ! x264enc bframes=2 b-adapt=false key-int-max=30 option-string=scenecut=0:open-gop=0 speed-preset=ultrafast threads=1 \
         ! video/x-h264,stream-format=avc,profile=main ! appsink name=out",
    );
    let avcc = ordered[0].1.structure(0).unwrap().get::<gstreamer::Buffer>("codec_data").unwrap();
    let mut config = engine::avc::config_from_avcc(&avcc.map_readable().unwrap(), 320, 180, Some((30, 1))).unwrap();
    config.reorder_depth = 2;
    let config = TrackConfig::H264(config).shared();
    let frame = MediaDuration::from_ticks(3000, 90_000);
    let units: Vec<media::AccessUnit> = ordered
        .iter()
        .enumerate()
        .map(|(n, (at, _, data, key))| media::AccessUnit {
            pts: START + MediaDuration::from_ticks(((at * 9 + 50_000) / 100_000) as i64, 90_000),
            dts: START + MediaDuration(frame.0 * (n as i64 - 2)),
            duration: None,
            key: *key,
            config: config.clone(),
            data: engine::avc::slices_only(data),
        })
        .collect();
    let mut sorted = pts(&units);
    assert!(!sorted.is_sorted(), "the source has reordered pictures");
    sorted.sort();
    let got = run_through(spec(vec![rung("v90", 160, 90, None)], None), interleave(&units, &[])).await;
    assert_eq!(got.pts("v90"), sorted);
    assert_eq!(got.keys("v90"), key_pts(&units));
}

/// A GPU that no host has.
fn absent_gpu(policy: Policy) -> OnDevice {
    OnDevice { family: Family::Va, id: "/dev/dri/none".into(), policy }
}

#[tokio::test]
async fn a_gpu_that_is_gone_ends_the_session_with_the_reason_where_the_cpu_may_not_help() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = h264(320, 180, 30, 30, 30, START);
    for policy in [Policy::GpuOnly, Policy::Shorten] {
        let rungs = vec![rung("v90", 160, 90, None)];
        let mut engine = Engine::start_on(spec(rungs, None), options(), Some(absent_gpu(policy))).unwrap();
        for input in interleave(&source, &[]) {
            engine.push(input);
        }
        let event = engine.events.recv().await;
        let Some(EngineEvent::WorkerRestarted { reason, .. }) = event else { panic!("{event:?}") };
        assert!(reason.contains("gpu-only: there is no GPU"), "{reason}");
    }
}

#[tokio::test]
async fn a_gpu_that_is_gone_costs_nothing_where_the_cpu_may_help() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = h264(320, 180, 30, 60, 30, START);
    let ladder = || spec(vec![rung("v90", 160, 90, None)], None);
    let helped = run_through_on(Some(absent_gpu(Policy::Cpu)), ladder(), interleave(&source, &[])).await;
    assert_eq!(helped.pts("v90"), pts(&source));
    assert_eq!(helped.keys("v90"), key_pts(&source));
    assert!(helped.restarts.is_empty(), "{:?}", helped.restarts);
}

#[tokio::test]
async fn a_session_whose_sound_never_came_ends_all_the_same() {
    if !gstreamer_or_skip() {
        return;
    }
    let source = h264(320, 180, 30, 30, 30, START);
    let begin = std::time::Instant::now();
    let got = run_through(spec(vec![rung("v90", 160, 90, None)], Some(aac(2))), interleave(&source, &[])).await;
    assert_eq!(got.pts("v90"), pts(&source));
    assert!(got.restarts.is_empty(), "{:?}", got.restarts);
    assert!(begin.elapsed() < std::time::Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_session_that_never_began_ends_too() {
    if !gstreamer_or_skip() {
        return;
    }
    let got = run_through(spec(vec![rung("v90", 160, 90, None)], Some(aac(2))), vec![]).await;
    assert!(got.units.is_empty() && got.restarts.is_empty(), "{:?}", got.restarts);
}

/// A tick each second.
const TICKS: &str = "audiotestsrc wave=ticks tick-interval=1000000000 volume=0.8 freq=1000";

fn onset(samples: &[f32], from: usize) -> usize {
    from + samples[from..].iter().position(|s| s.abs() > 0.1).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|s| f32::from_le_bytes(s.try_into().unwrap())).collect()
}

/// Mono samples, from the first unit on.
fn pcm(units: &[media::AccessUnit]) -> Vec<f32> {
    let rate_caps = "audio/mpeg,mpegversion=4,stream-format=raw,rate=48000,channels=1";
    decode(units, rate_caps, "avdec_aac ! audioconvert ! audio/x-raw,format=F32LE,layout=interleaved,channels=1")
        .iter()
        .flat_map(|(_, b)| floats(b))
        .collect()
}

#[tokio::test]
async fn opus_becomes_contiguous_aac_and_stays_in_its_place() {
    if !gstreamer_or_skip() {
        return;
    }
    for channels in [1u8, 2] {
        let source =
            opus("audiotestsrc wave=ticks tick-interval=1000000000 volume=0.8 freq=1000", channels, 200, START);
        let got = run_through(spec(vec![], Some(aac(channels))), interleave(&[], &source)).await;
        let units = &got.units["aac"];
        let frame = MediaDuration::from_ticks(1024, 48_000);
        assert!(units.windows(2).all(|w| w[1].pts - w[0].pts == frame && w[0].duration == Some(frame)));
        let span = units.last().unwrap().pts + frame - units[0].pts;
        assert!((span - MediaDuration::from_millis(4_000)).millis().abs() <= 60, "{} ms", span.millis());
        let TrackConfig::Aac(config) = &*units[0].config else { panic!("not AAC") };
        assert_eq!((config.object_type, config.channels, config.sample_rate), (2, channels, 48_000));
        // ISO 14496-3 1.6.2.1: object type 2, frequency index 3 (48 kHz), channel configuration.
        assert_eq!(config.asc[..2], [0x11, 0x80 | channels << 3]);
        if channels == 1 {
            // Where the source's tick is, and where it came out on the same timeline.
            let raw = run_pipeline(&format!(
                "{TICKS} num-buffers=100 samplesperbuffer=960 ! audio/x-raw,format=F32LE,rate=48000,channels=1 ! appsink name=out"
            ));
            let raw: Vec<f32> = raw.iter().flat_map(|(_, _, bytes, _)| floats(bytes)).collect();
            let wanted = onset(&raw, 24_000);
            let lead = (START - units[0].pts).ticks(48_000) as usize;
            let late = onset(&pcm(units), 24_000 + lead) as i64 - lead as i64 - wanted as i64;
            eprintln!("{late} samples late");
            // Our own part is exact; Opus's look-ahead of 312 samples stays in, as RTP senders leave it in.
            assert!((0..=400).contains(&late), "{late} samples");
        }
    }
}

#[tokio::test]
async fn lost_audio_is_silence_and_a_long_hole_is_a_jump() {
    if !gstreamer_or_skip() {
        return;
    }
    let mut source = opus("audiotestsrc wave=sine volume=0.5", 1, 300, START);
    // 60 ms lost at 1 s, then 3 s of nothing after 4 s.
    source.drain(50..53);
    let hole = MediaDuration::from_millis(3_000);
    for unit in &mut source[197..] {
        unit.pts += hole;
        unit.dts = unit.pts;
    }
    let got = run_through(spec(vec![], Some(aac(1))), interleave(&[], &source)).await;
    let units = &got.units["aac"];
    let frame = MediaDuration::from_ticks(1024, 48_000);
    let jumps: Vec<MediaDuration> = units.windows(2).map(|w| w[1].pts - w[0].pts).filter(|d| *d != frame).collect();
    assert_eq!(jumps.len(), 1, "{jumps:?}");
    assert!((jumps[0] - hole).millis().abs() <= 45, "{} ms", jumps[0].millis());
    let end = units.last().unwrap().pts + frame;
    let source_end = source.last().unwrap().pts + MediaDuration::from_millis(20);
    assert!((end - source_end).millis().abs() <= 45, "{} ms", (end - source_end).millis());
}
