//! Sources made by GStreamer and a driver for `Engine` with a real worker process.
#![allow(clippy::unwrap_used, dead_code)]

pub mod stubs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::backend::Codec;
use engine::{AudioRung, Engine, EngineEvent, EngineInput, EngineOptions, LadderSpec, OnDevice, VideoRung};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use media::{AccessUnit, MediaDuration, MediaTime, OpusConfig, TrackConfig};

/// Skips aloud where an element is missing; fails under FISHLADDER_STRICT=1.
pub fn gstreamer_or_skip() -> bool {
    let missing: Vec<String> = engine::probe::examine()
        .into_iter()
        .filter(|f| !f.ok)
        .map(|f| format!("{}: {}", f.subject, f.detail))
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var("FISHLADDER_STRICT").as_deref() != Ok("1"), "{missing:?}");
    eprintln!("SKIPPED: {missing:?}");
    false
}

pub fn rung(id: &str, width: u32, height: u32, frame_rate: Option<(u32, u32)>) -> VideoRung {
    VideoRung {
        id: id.parse().unwrap(),
        width,
        height,
        frame_rate,
        codec: Default::default(),
        bitrate: 400_000,
        preset: "ultrafast".into(),
        tune: Default::default(),
    }
}

pub fn coded(codec: Codec, rung: VideoRung) -> VideoRung {
    VideoRung { codec, ..rung }
}

/// What a ladder may be made of here. Every host has H.264; the other codecs' encoders are those that make key pictures when
/// they are told to (av1enc from GStreamer 1.24.5 on).
pub fn codecs() -> Vec<Codec> {
    gst::init().unwrap();
    let release = |factory: &str| {
        let version = gst::ElementFactory::find(factory)?.plugin()?.version();
        let numbers: Vec<u32> = version.split('.').map_while(|n| n.parse().ok()).collect();
        Some(numbers)
    };
    let mut codecs = vec![Codec::H264];
    codecs.extend(release("x265enc").map(|_| Codec::H265));
    codecs.extend(release("av1enc").filter(|v| *v >= vec![1, 24, 5]).map(|_| Codec::Av1));
    codecs
}

pub fn aac(channels: u8) -> AudioRung {
    AudioRung { id: "aac".parse().unwrap(), bitrate: 96_000, sample_rate: 48_000, channels }
}

pub fn spec(video: Vec<VideoRung>, audio: Option<AudioRung>) -> LadderSpec {
    LadderSpec { video, audio }
}

/// The worker that cargo built, or FISHLADDER_ENGINE_WORKER where the tests run on another machine or in another root.
pub fn options() -> EngineOptions {
    let elsewhere = std::env::var_os("FISHLADDER_ENGINE_WORKER").map(PathBuf::from);
    let program = elsewhere.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_engine-worker")));
    EngineOptions { program, stall_timeout: Duration::from_secs(1) }
}

/// Runs a pipeline with an appsink named `out` to its end; samples as (pts in ns, caps, bytes, key).
pub fn run_pipeline(description: &str) -> Vec<(u64, gst::Caps, Vec<u8>, bool)> {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    sink.set_property("sync", false);
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut out = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let segment = sample.segment().unwrap().downcast_ref::<gst::ClockTime>().unwrap();
        let pts = segment.to_running_time(buffer.pts().unwrap()).unwrap_or_default().nseconds();
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        out.push((pts, sample.caps_owned().unwrap(), buffer.map_readable().unwrap().to_vec(), key));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    out
}

/// H.264 with an IDR every `gop` pictures and an odd offset that is on no common grid.
pub fn h264(width: u32, height: u32, fps: u32, frames: u32, gop: u32, start: MediaTime) -> Vec<AccessUnit> {
    made("pattern=ball", width, height, fps, frames, gop, start)
}

/// As [`h264`], of a picture that moves all over: encoders have to work for their bit rate.
pub fn noise(width: u32, height: u32, fps: u32, frames: u32, gop: u32, start: MediaTime) -> Vec<AccessUnit> {
    made("pattern=zone-plate kx2=20 ky2=20 kt=7", width, height, fps, frames, gop, start)
}

fn made(picture: &str, width: u32, height: u32, fps: u32, frames: u32, gop: u32, start: MediaTime) -> Vec<AccessUnit> {
    let samples = run_pipeline(&format!(
        "videotestsrc num-buffers={frames} {picture} ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} option-string=scenecut=0 threads=1 \
         ! video/x-h264,stream-format=avc ! appsink name=out"
    ));
    let mut config: Option<Arc<TrackConfig>> = None;
    samples
        .iter()
        .map(|(pts, caps, data, key)| {
            let config = config.get_or_insert_with(|| {
                let avcc = caps.structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
                let avcc = avcc.map_readable().unwrap();
                TrackConfig::H264(engine::avc::config_from_avcc(&avcc, width, height, Some((fps, 1))).unwrap()).shared()
            });
            let ticks = (pts * 9 + 50_000) / 100_000;
            let at = start + MediaDuration::from_ticks(ticks as i64, 90_000);
            let data = engine::avc::slices_only(data);
            AccessUnit { pts: at, dts: at, duration: None, key: *key, config: config.clone(), data }
        })
        .collect()
}

/// Opus packets of 20 ms from an audiotestsrc description.
pub fn opus(source: &str, channels: u8, packets: u32, start: MediaTime) -> Vec<AccessUnit> {
    let samples = run_pipeline(&format!(
        "{source} num-buffers={packets} samplesperbuffer=960 ! audio/x-raw,rate=48000,channels={channels} \
         ! opusenc bitrate=96000 ! appsink name=out"
    ));
    let config = TrackConfig::Opus(OpusConfig { channels, pre_skip: 312 }).shared();
    let packet = MediaDuration::from_millis(20);
    samples
        .iter()
        .enumerate()
        .map(|(n, (_, _, data, _))| {
            let at = start + MediaDuration(packet.0 * n as i64);
            AccessUnit {
                pts: at,
                dts: at,
                duration: Some(packet),
                key: true,
                config: config.clone(),
                data: Bytes::from(data.clone()),
            }
        })
        .collect()
}

/// Audio and video by decoding time, IDRs forced where the source has them.
pub fn interleave(video: &[AccessUnit], audio: &[AccessUnit]) -> Vec<EngineInput> {
    let mut all: Vec<EngineInput> = video
        .iter()
        .map(|u| EngineInput { unit: u.clone(), force_key: u.key })
        .chain(audio.iter().map(|u| EngineInput { unit: u.clone(), force_key: false }))
        .collect();
    all.sort_by_key(|i| i.unit.dts);
    all
}

/// What came out of an engine.
#[derive(Default)]
pub struct Got {
    pub units: BTreeMap<String, Vec<AccessUnit>>,
    pub restarts: Vec<String>,
    pub failed: Option<String>,
}

impl Got {
    pub fn take(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Unit { rendition, unit } => self.units.entry(rendition.to_string()).or_default().push(unit),
            EngineEvent::WorkerRestarted { reason, .. } => self.restarts.push(reason),
            EngineEvent::Failed { reason } => self.failed = Some(reason),
        }
    }

    pub fn pts(&self, rendition: &str) -> Vec<MediaTime> {
        self.units.get(rendition).map(|u| u.iter().map(|u| u.pts).collect()).unwrap_or_default()
    }

    pub fn keys(&self, rendition: &str) -> Vec<MediaTime> {
        self.units.get(rendition).map(|u| u.iter().filter(|u| u.key).map(|u| u.pts).collect()).unwrap_or_default()
    }
}

/// All input at the speed the worker takes it, then all output to its end.
pub async fn run_through(spec: LadderSpec, inputs: Vec<EngineInput>) -> Got {
    run_through_on(None, spec, inputs).await
}

pub async fn run_through_on(device: Option<OnDevice>, spec: LadderSpec, inputs: Vec<EngineInput>) -> Got {
    // Each video unit comes out once for each rung.
    let each = spec.video.len().max(1);
    let mut engine = Engine::start_on(spec, options(), device).unwrap();
    let mut got = Got::default();
    // Under a second ahead of what came out: no faster than an attentive session would be.
    let mut ahead = 0;
    for input in inputs {
        ahead += if input.unit.kind() == media::TrackKind::Video { each } else { 1 };
        engine.push(input);
        while ahead > 15 * each {
            match tokio::time::timeout(Duration::from_millis(200), engine.events.recv()).await {
                Ok(Some(event)) => got.take(event),
                Ok(None) => return got,
                Err(_) => {}
            }
            ahead -= 1;
        }
    }
    engine.finish();
    while let Some(event) = tokio::time::timeout(Duration::from_secs(20), engine.events.recv()).await.unwrap() {
        got.take(event);
    }
    got
}

/// Decodes a video rendition's units, whatever their codec.
pub fn pictures(units: &[AccessUnit]) -> Vec<(u64, Vec<u8>)> {
    let (caps, decoder) = match &*units[0].config {
        TrackConfig::H264(_) => ("video/x-h264,stream-format=byte-stream,alignment=au", "avdec_h264"),
        TrackConfig::H265(_) => ("video/x-h265,stream-format=hvc1,alignment=au", "avdec_h265"),
        TrackConfig::Av1(_) => ("video/x-av1,stream-format=obu-stream,alignment=tu", "av1dec"),
        TrackConfig::Aac(_) | TrackConfig::Opus(_) => panic!("no video"),
    };
    decode(units, caps, decoder)
}

/// Decodes a rendition's units to raw video or audio; every sample is (pts in ns, bytes).
pub fn decode(units: &[AccessUnit], caps: &str, tail: &str) -> Vec<(u64, Vec<u8>)> {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!("appsrc name=in format=time ! {tail} ! appsink name=out sync=false"))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let mut caps: gst::Caps = caps.parse().unwrap();
    let header = match &*units[0].config {
        TrackConfig::Aac(aac) => Some(aac.asc.clone()),
        TrackConfig::H265(h265) => Some(h265.record.clone()),
        TrackConfig::H264(_) | TrackConfig::Av1(_) | TrackConfig::Opus(_) => None,
    };
    if let Some(header) = header {
        let codec_data = gst::Buffer::from_slice(header);
        caps.make_mut().structure_mut(0).unwrap().set("codec_data", codec_data);
    }
    source.set_caps(Some(&caps));
    let first = units[0].pts;
    for unit in units {
        let bytes = match &*unit.config {
            TrackConfig::H264(c) => engine::avc::to_annex_b(&unit.data, unit.key.then_some(c)),
            _ => unit.data.to_vec(),
        };
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let nanos = (unit.pts - first).nanos() as u64;
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_nseconds(nanos));
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut out = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        out.push((buffer.pts().unwrap().nseconds(), buffer.map_readable().unwrap().to_vec()));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    out
}
