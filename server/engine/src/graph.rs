//! One session's pipeline: an access unit in, one encoded access unit per rendition out, key pictures aligned.
//!
//! ```text
//! appsrc ! decoder ! tee ! (gate ! queue ! scaler ! caps ! encoder ! appsink) per rung
//! appsrc ! decoder ! audioconvert ! audioresample ! audiorate ! AAC encoder ! appsink
//! ```
//! Which decoder, scaler and encoder, and in whose memory, is for `backend` to say. There is no parser before the
//! software decoder: the depacketizer has framed the units and the gate has bounded them, and each C parser less is one
//! less that meets outside data. Hardware decoders do not go without one. The gate is a probe on the tee's pad: a suspended
//! rung's pictures end there, before anything is copied, queued or scaled for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use media::{AacConfig, MediaDuration, MediaTime, TrackConfig, TrackKind};

use crate::backend::cuda;
use crate::backend::realize::{self, BackendError, make};
use crate::backend::{
    self, AacEncoder, Choice, Codec, GraphPlan, Memory, Policy, Preset, RateChange, RungPlan, RungRequest, Series,
};
use crate::probe::devices;
use crate::protocol::{MAX_UNIT, Start, Stats, Unit};
use crate::spec::{AudioRung, VideoRung};
use crate::timeline::{AudioTimeline, Decimator, RateGauge, VideoTimeline};
use crate::{av1, avc, hevc};

/// Units waiting for the decoder. When full, `push` blocks, the socket fills and the parent's queue decides what to drop.
const VIDEO_QUEUE: u64 = 8;
const AUDIO_QUEUE: u64 = 32;
/// Raw pictures between the decoder and each rung: enough for the rungs to overlap, few enough (3 MB each at 1080p).
const RAW_QUEUE: u32 = 3;
/// The rate that encoders are told where the source does not say one; `RateGauge` corrects the consequences.
const NOMINAL_RATE: (u32, u32) = (30, 1);

/// Characters of an error's cause: the line must fit in the parent's log.
const MAX_CAUSE: usize = 200;

/// What comes out, on GStreamer's threads; must not block for long.
pub(crate) type Output = Arc<dyn Fn(u8, Arc<TrackConfig>, Unit) + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum GraphError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the pipeline cannot be built: {0}")]
    Build(#[from] gst::glib::BoolError),
    #[error("the pipeline does not start: {0}")]
    State(#[from] gst::StateChangeError),
    #[error("the pipeline failed: {0}")]
    Failed(String),
}

impl GraphError {
    /// No worker on this host will do better.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Backend(BackendError::Refused(refused)) if refused.is_final())
    }
}

pub(crate) struct Graph {
    pipeline: gst::Pipeline,
    video: Option<VideoInput>,
    audio: Option<AudioInput>,
    counters: Arc<Counters>,
    /// Something was fed: a pipeline that never got anything cannot be drained.
    fed: bool,
}

#[derive(Default)]
struct Counters {
    consumed: AtomicU64,
    decoded: AtomicU64,
    errors: AtomicU64,
}

struct VideoInput {
    source: gst_app::AppSrc,
    timeline: Arc<Mutex<VideoTimeline>>,
    forced: Arc<Mutex<BTreeSet<u64>>>,
    config: Option<Arc<TrackConfig>>,
    /// The parameter sets go in band ahead of this unit.
    sets_due: bool,
    gates: Vec<(u8, Arc<Gate>)>,
}

/// Where a rung's branch begins.
#[derive(Default)]
struct Gate {
    /// No pictures of this presentation time or a later one go through.
    suspended: Mutex<Option<MediaTime>>,
    /// Time in the pipeline of the first picture behind the last pause; 0: there was none.
    resumed_at: AtomicU64,
}

struct AudioInput {
    source: gst_app::AppSrc,
    timeline: Arc<Mutex<AudioTimeline>>,
    config: Option<Arc<TrackConfig>>,
    /// Made when the first unit tells the codec.
    decoder: Option<gst::Element>,
    next: gst::Element,
    /// All but the decoder.
    elements: Vec<gst::Element>,
}

impl Graph {
    /// Builds and starts the pipeline.
    pub(crate) fn start(start: &Start, output: &Output) -> Result<Self, GraphError> {
        let pipeline = gst::Pipeline::new();
        let counters = Arc::new(Counters::default());
        let video =
            if start.spec.video.is_empty() { None } else { Some(build_video(&pipeline, start, output, &counters)?) };
        let track = u8::try_from(start.spec.video.len()).unwrap_or(u8::MAX);
        let audio = match &start.spec.audio {
            Some(rung) => Some(build_audio(&pipeline, rung, start.audio_origin, track, output)?),
            None => None,
        };
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, video, audio, counters, fed: false })
    }

    /// Exactly these rungs are suspended, each from a presentation time on.
    pub(crate) fn suspend(&self, tracks: &[(u8, MediaTime)]) {
        for (track, gate) in self.video.iter().flat_map(|video| &video.gates) {
            *lock(&gate.suspended) = tracks.iter().find(|(suspended, _)| suspended == track).map(|(_, from)| *from);
        }
    }

    /// Blocks while the pipeline is full.
    pub(crate) fn push(&mut self, config: &Arc<TrackConfig>, unit: &Unit) -> Result<(), GraphError> {
        self.fed = true;
        match (&mut self.video, &mut self.audio) {
            (Some(video), _) if config.kind() == TrackKind::Video => video.push(config, unit),
            (_, Some(audio)) if config.kind() == TrackKind::Audio => {
                audio.push(&self.pipeline, config, unit, &self.counters)
            }
            // The spec asks for nothing of this kind.
            _ => Ok(()),
        }
    }

    /// For a thread that looks after the pipeline while another one feeds it.
    pub(crate) fn monitor(&self) -> Monitor {
        Monitor { pipeline: self.pipeline.clone(), bus: self.pipeline.bus(), counters: self.counters.clone() }
    }

    /// Lets what is inside come out, for at most `limit`, and takes the pipeline down.
    pub(crate) fn finish(&self, limit: Duration) -> Result<(), GraphError> {
        if !self.fed {
            return Ok(());
        }
        // Audio that never came leaves a branch without a beginning: it cannot end, so it goes.
        if let Some(audio) = self.audio.as_ref().filter(|audio| audio.decoder.is_none()) {
            for element in &audio.elements {
                let _ = element.set_state(gst::State::Null);
                let _ = self.pipeline.remove(element);
            }
        }
        if let Some(video) = &self.video {
            let _ = video.source.end_of_stream();
        }
        match &self.audio {
            Some(audio) if audio.decoder.is_some() => {
                let _ = audio.source.end_of_stream();
            }
            Some(_) | None => {}
        }
        let limit = gst::ClockTime::try_from(limit).unwrap_or(gst::ClockTime::SECOND);
        let end = self
            .pipeline
            .bus()
            .and_then(|bus| bus.timed_pop_filtered(limit, &[gst::MessageType::Error, gst::MessageType::Eos]));
        let _ = self.pipeline.set_state(gst::State::Null);
        match end.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(error)) => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// What the pipeline reports.
pub(crate) struct Monitor {
    pipeline: gst::Pipeline,
    bus: Option<gst::Bus>,
    counters: Arc<Counters>,
}

impl Monitor {
    /// Waits for `wait` and counts warnings meanwhile; errs at once when the pipeline has failed.
    pub(crate) fn check(&self, wait: Duration) -> Result<(), GraphError> {
        let Some(bus) = &self.bus else { return Ok(()) };
        let until = Instant::now() + wait;
        loop {
            let left = gst::ClockTime::try_from(until.saturating_duration_since(Instant::now())).ok();
            let wanted = [gst::MessageType::Error, gst::MessageType::Warning];
            let Some(message) = bus.timed_pop_filtered(left, &wanted) else { return Ok(()) };
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
            if let gst::MessageView::Error(error) = message.view() {
                return Err(failed(error));
            }
        }
    }

    /// Stops a pipeline that has failed, so that nobody waits for it.
    pub(crate) fn abandon(&self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            consumed: self.counters.consumed.load(Ordering::Relaxed),
            decoded: self.counters.decoded.load(Ordering::Relaxed),
            errors: self.counters.errors.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl VideoInput {
    fn push(&mut self, config: &Arc<TrackConfig>, unit: &Unit) -> Result<(), GraphError> {
        let TrackConfig::H264(h264) = &**config else { return Ok(()) };
        if self.config.as_ref() != Some(config) {
            let rate = *lock(&self.timeline).nominal_rate.get_or_insert(h264.frame_rate.unwrap_or(NOMINAL_RATE));
            // The rate stays what it first was: encoders would start a new sequence for a repaired VUI.
            let caps = gst::Caps::builder("video/x-h264")
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .field("width", i32::try_from(h264.width).unwrap_or(i32::MAX))
                .field("height", i32::try_from(h264.height).unwrap_or(i32::MAX))
                .field("framerate", fraction(rate))
                .build();
            self.source.set_caps(Some(&caps));
            self.config = Some(config.clone());
            self.sets_due = true;
        }
        let sets = (self.sets_due || unit.key).then_some(h264);
        let data = avc::to_annex_b(&unit.data, sets);
        if data.is_empty() {
            return Ok(());
        }
        let Some(pts) = lock(&self.timeline).enter(unit.dts, unit.pts) else { return Ok(()) };
        self.sets_due = false;
        if unit.force_key {
            lock(&self.forced).insert(pts);
        }
        let mut buffer = gst::Buffer::from_mut_slice(data);
        if let Some(b) = buffer.get_mut() {
            b.set_pts(gst::ClockTime::from_nseconds(pts));
            let dts = lock(&self.timeline).nanos_of(unit.dts).and_then(|n| u64::try_from(n).ok());
            b.set_dts(dts.map(gst::ClockTime::from_nseconds));
            if !unit.key {
                b.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        self.source.push_buffer(buffer).map_err(|e| GraphError::Failed(format!("video input: {e}")))?;
        Ok(())
    }
}

impl AudioInput {
    fn push(
        &mut self,
        pipeline: &gst::Pipeline,
        config: &Arc<TrackConfig>,
        unit: &Unit,
        counters: &Arc<Counters>,
    ) -> Result<(), GraphError> {
        if self.config.as_ref() != Some(config) {
            let (caps, name) = match &**config {
                TrackConfig::Opus(opus) => {
                    let caps = gst::Caps::builder("audio/x-opus")
                        .field("channel-mapping-family", 0i32)
                        .field("channels", i32::from(opus.channels))
                        .field("rate", 48_000i32)
                        .build();
                    (caps, "opusdec")
                }
                TrackConfig::Aac(aac) => {
                    let caps = gst::Caps::builder("audio/mpeg")
                        .field("mpegversion", 4i32)
                        .field("stream-format", "raw")
                        .field("channels", i32::from(aac.channels))
                        .field("rate", i32::try_from(aac.sample_rate).unwrap_or(i32::MAX))
                        .field("codec_data", gst::Buffer::from_slice(aac.asc.clone()))
                        .build();
                    (caps, "avdec_aac")
                }
                TrackConfig::H264(_) | TrackConfig::H265(_) | TrackConfig::Av1(_) => return Ok(()),
            };
            match &self.decoder {
                None => {
                    let decoder = make(name)?;
                    pipeline.add(&decoder)?;
                    gst::Element::link_many([self.source.upcast_ref(), &decoder, &self.next])?;
                    count_into(&decoder, "sink", counters, |c| &c.consumed);
                    decoder.sync_state_with_parent()?;
                    self.decoder = Some(decoder);
                }
                // A session keeps its codec; one that changes it is a new session to the ingest.
                Some(decoder) if decoder.factory().is_some_and(|f| f.name() != name) => {
                    return Err(GraphError::Failed("the audio codec changed within a session".into()));
                }
                Some(_) => {}
            }
            self.source.set_caps(Some(&caps));
            self.config = Some(config.clone());
        }
        let duration = unit.duration.unwrap_or(MediaDuration::from_millis(20));
        let Some(pts) = lock(&self.timeline).enter(unit.pts, duration) else { return Ok(()) };
        // A refcounted slice goes in as it is.
        let mut buffer = gst::Buffer::from_slice(unit.data.clone());
        if let Some(b) = buffer.get_mut() {
            b.set_pts(gst::ClockTime::from_nseconds(pts));
            b.set_duration(gst::ClockTime::from_nseconds(u64::try_from(duration.nanos()).unwrap_or(0)));
        }
        self.source.push_buffer(buffer).map_err(|e| GraphError::Failed(format!("audio input: {e}")))?;
        Ok(())
    }
}

fn build_video(
    pipeline: &gst::Pipeline,
    start: &Start,
    output: &Output,
    counters: &Arc<Counters>,
) -> Result<VideoInput, GraphError> {
    let (plan, rungs) = lay_out(start)?;
    if plan.memory == Memory::Cuda {
        cuda::share(pipeline, &plan.decoder.factory)?;
    }
    let source = input("video-input", VIDEO_QUEUE);
    let decoder = realize::element(&plan.decoder)?;
    let tee = make("tee")?;
    let mut chain: Vec<gst::Element> = vec![source.clone().upcast()];
    if let Some(parser) = &plan.parser {
        chain.push(realize::element(parser)?);
    }
    chain.push(decoder.clone());
    if let Some(caps) = realize::memory_caps(plan.memory) {
        // Without it a decoder that sees no encoder yet, behind tee and queues, would choose plain memory.
        let filter = make("capsfilter")?;
        filter.set_property("caps", caps);
        chain.push(filter);
    }
    chain.push(tee.clone());
    pipeline.add_many(&chain)?;
    gst::Element::link_many(&chain)?;
    let timeline = Arc::new(Mutex::new(VideoTimeline::default()));
    let forced = Arc::new(Mutex::new(BTreeSet::new()));
    count_into(&decoder, "sink", counters, |c| &c.consumed);
    force_keys(&decoder, &timeline, &forced, start, counters);
    let mut gates = Vec::new();
    for branch in &plan.rungs {
        let (Some(rung), Some(request)) = (start.spec.video.get(branch.index), rungs.get(branch.index)) else {
            continue;
        };
        let track = u8::try_from(branch.index).unwrap_or(u8::MAX);
        let gate = build_rung(pipeline, &tee, branch, (rung, track), request, &timeline, output)?;
        gates.push((track, gate));
    }
    Ok(VideoInput { source, timeline, forced, config: None, sets_due: true, gates })
}

/// The back end for the session, on the device that its worker was given.
fn lay_out(start: &Start) -> Result<(GraphPlan, Vec<RungRequest>), BackendError> {
    let (major, minor, ..) = gst::version();
    let series = Series::of(major, minor).ok_or(BackendError::Version(major, minor))?;
    let rungs: Vec<RungRequest> = start.spec.video.iter().map(request).collect();
    let device = start.device.as_ref().and_then(devices::find);
    // The parent knows which rungs there are: where it was to shorten the ladder it has done so.
    let policy = match start.device.as_ref().map(|d| d.policy) {
        None | Some(Policy::Cpu) => Policy::Cpu,
        Some(Policy::GpuOnly | Policy::Shorten) => Policy::GpuOnly,
    };
    let software = realize::software_encoders();
    let choice: Choice = backend::choose(policy, Codec::H264, &rungs, device.as_ref(), &software)?;
    if start.device.is_some() {
        let reasons: Vec<String> = choice.fallen_back.iter().map(ToString::to_string).collect();
        let because = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        eprintln!("back end {}{because}", choice.name());
    }
    Ok((backend::plan(&choice, series, &rungs), rungs))
}

fn request(rung: &VideoRung) -> RungRequest {
    RungRequest {
        codec: rung.codec,
        width: rung.width,
        height: rung.height,
        bitrate: rung.bitrate,
        preset: Preset::parse_or_usual(&rung.preset),
        tune: rung.tune,
        keys: backend::KeyPolicy::Forced,
    }
}

/// Before the tee: skips what was delivered before a restart and sends one key-unit event ahead of each forced picture,
/// so that every rung sees it at the same picture.
fn force_keys(
    decoder: &gst::Element,
    timeline: &Arc<Mutex<VideoTimeline>>,
    forced: &Arc<Mutex<BTreeSet<u64>>>,
    start: &Start,
    counters: &Arc<Counters>,
) {
    let Some(pad) = decoder.static_pad("src") else { return };
    let (timeline, forced, counters) = (timeline.clone(), forced.clone(), counters.clone());
    let delivered: Vec<Option<MediaTime>> = start.resume.iter().map(|t| t.map(MediaTime)).collect();
    let skip_until = delivered.iter().copied().min().flatten();
    let mut resume: Vec<MediaTime> = delivered.into_iter().flatten().collect();
    resume.sort_unstable();
    resume.dedup();
    let state = Mutex::new((resume, 0u32));
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(pts) = info.buffer().and_then(|b| b.pts()) else { return gst::PadProbeReturn::Drop };
        counters.decoded.fetch_add(1, Ordering::Relaxed);
        let at = lock(&timeline).leave(pts.nseconds());
        if skip_until.is_some_and(|until| at <= until) {
            return gst::PadProbeReturn::Drop;
        }
        let (resume, count) = &mut *lock(&state);
        let resumed = resume.iter().take_while(|t| **t < at).count();
        resume.drain(..resumed);
        let mut forced = lock(&forced);
        let later = forced.split_off(&(pts.nseconds() + 1));
        let due = !std::mem::replace(&mut *forced, later).is_empty();
        drop(forced);
        *count = count.wrapping_add(1);
        // Encoders begin with a key picture anyway, and an event ahead of it makes x264enc ignore all later ones:
        // GStreamer 1.22 reckons that first key picture's time before it moves its segment by 1000 hours.
        if *count > 1 && (due || resumed > 0) {
            let event = gst_video::DownstreamForceKeyUnitEvent::builder()
                .timestamp(pts)
                .running_time(pts)
                .all_headers(true)
                .count(*count)
                .build();
            pad.push_event(event);
        }
        gst::PadProbeReturn::Ok
    });
}

fn build_rung(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    plan: &RungPlan,
    (rung, track): (&VideoRung, u8),
    request: &RungRequest,
    timeline: &Arc<Mutex<VideoTimeline>>,
    output: &Output,
) -> Result<Arc<Gate>, GraphError> {
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", RAW_QUEUE);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    let scaler = realize::element(&plan.scaler)?;
    let caps = make("capsfilter")?;
    caps.set_property("caps", realize::scaled_caps(plan, request, plan.memory));
    let encoder = realize::element(&plan.encoder)?;
    let (media_type, format, alignment) = match rung.codec {
        Codec::H264 => ("video/x-h264", "avc", "au"),
        Codec::H265 => ("video/x-h265", "hvc1", "au"),
        Codec::Av1 => ("video/x-av1", "obu-stream", "tu"),
    };
    let sink = output_sink(
        &gst::Caps::builder(media_type).field("stream-format", format).field("alignment", alignment).build(),
        video_samples(rung, track, timeline, output),
    );
    let mut chain = vec![queue.clone(), scaler, caps.clone()];
    if let Some(download) = &plan.download {
        chain.push(realize::element(download)?);
    }
    chain.push(encoder.clone());
    if let Some(parser) = &plan.parser {
        chain.push(realize::element(parser)?);
    }
    chain.push(sink.upcast());
    pipeline.add_many(&chain)?;
    tee.link(&queue)?;
    gst::Element::link_many(&chain)?;

    let gate = Arc::new(Gate::default());
    if let Some(pad) = queue.static_pad("sink").and_then(|pad| pad.peer()) {
        attend(&pad, &gate, timeline);
    }
    if let (Some(rate), Some(pad)) = (rung.frame_rate, queue.static_pad("sink")) {
        decimate(&pad, rate);
    }
    if let Some(pad) = caps.static_pad("src") {
        pin_colorimetry(&pad, &caps);
    }
    correct_bitrate(&encoder, plan.rate, rung.bitrate, &gate);
    Ok(gate)
}

/// Lets pictures into a rung's branch while it is not suspended. It opens at a forced picture only, as all rungs have one there.
fn attend(pad: &gst::Pad, gate: &Arc<Gate>, timeline: &Arc<Mutex<VideoTimeline>>) {
    struct State {
        open: bool,
        /// A picture has gone through: the encoder has begun.
        begun: bool,
        /// The next one is the first behind a pause.
        resumes: bool,
    }
    let state = Mutex::new(State { open: true, begun: false, resumes: false });
    let (gate, timeline) = (gate.clone(), timeline.clone());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let state = &mut *lock(&state);
        let suspended = *lock(&gate.suspended);
        match &info.data {
            Some(gst::PadProbeData::Event(event)) if gst_video::ForceKeyUnitEvent::is(event) => {
                if suspended.is_none() && !state.open {
                    (state.open, state.resumes) = (true, true);
                }
                // Ahead of an encoder's first picture it does harm (see `force_keys`).
                if !(state.open && state.begun) {
                    // Not `Drop`: the bindings have freed the event by then, and GStreamer complains that it is gone.
                    return gst::PadProbeReturn::Handled;
                }
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let nanos = buffer.pts().map_or(0, gst::ClockTime::nseconds);
                state.open &= suspended.is_none_or(|from| lock(&timeline).leave(nanos) < from);
                if !state.open {
                    return gst::PadProbeReturn::Drop;
                }
                state.begun = true;
                if std::mem::take(&mut state.resumes) {
                    gate.resumed_at.store(nanos, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Drops pictures of a rung with a lower rate and tells its encoder that rate.
fn decimate(pad: &gst::Pad, rate: (u32, u32)) {
    let state = Mutex::new((Decimator::new(rate), false));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let (decimator, forced) = &mut *lock(&state);
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let nanos = buffer.pts().map_or(0, gst::ClockTime::nseconds);
                if !decimator.keep(nanos, std::mem::take(forced)) {
                    return gst::PadProbeReturn::Drop;
                }
            }
            Some(gst::PadProbeData::Event(event)) => {
                *forced |= gst_video::ForceKeyUnitEvent::is(event);
                let slower = match event.view() {
                    gst::EventView::Caps(e) => with_rate_at_most(e.caps(), rate),
                    _ => None,
                };
                if let Some(caps) = slower {
                    *event = gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build();
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn with_rate_at_most(caps: &gst::CapsRef, rate: (u32, u32)) -> Option<gst::Caps> {
    let mut caps = caps.to_owned();
    let structure = caps.make_mut().structure_mut(0)?;
    let now = structure.get::<gst::Fraction>("framerate").ok()?;
    let lower = fraction(rate);
    if now <= lower {
        return None;
    }
    structure.set("framerate", lower);
    Some(caps)
}

/// A rendition keeps the colorimetry that it began with: a source that changes its size often changes its (implied)
/// colorimetry too, and the encoder would start a new sequence for it.
fn pin_colorimetry(pad: &gst::Pad, filter: &gst::Element) {
    let filter = filter.downgrade();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Event(event)) = &info.data else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        if let (Some(filter), Some(chosen)) = (filter.upgrade(), caps.caps().structure(0)) {
            let mut pinned = filter.property::<gst::Caps>("caps");
            if let Some(s) = pinned.make_mut().structure_mut(0) {
                for field in ["colorimetry", "chroma-site"] {
                    if let Ok(value) = chosen.get::<String>(field) {
                        s.set(field, value);
                    }
                }
            }
            filter.set_property("caps", pinned);
        }
        gst::PadProbeReturn::Remove
    });
}

/// Keeps the bit rate of a second what it should be when the source's real rate is not the nominal one.
fn correct_bitrate(encoder: &gst::Element, rate: RateChange, bitrate: u32, gate: &Arc<Gate>) {
    let (unit, waits_for_key) = match rate {
        RateChange::AtOnce(unit) => (unit, false),
        RateChange::WithKey(unit) => (unit, true),
        RateChange::Needless => return,
    };
    let Some(pad) = encoder.static_pad("sink") else { return };
    #[derive(Default)]
    struct State {
        gauge: Option<RateGauge>,
        /// Bits a second that the encoder has not been told yet.
        due: Option<u32>,
        /// The next picture is to be a key picture.
        key: bool,
    }
    let state: Mutex<State> = Mutex::default();
    let (encoder, gate) = (encoder.downgrade(), gate.clone());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        let state = &mut *lock(&state);
        if let Some(gst::PadProbeData::Event(event)) = &info.data {
            state.key |= gst_video::ForceKeyUnitEvent::is(event);
        }
        let Some(pts) = info.buffer().and_then(|b| b.pts()) else { return gst::PadProbeReturn::Ok };
        let gauge = state.gauge.get_or_insert_with(|| {
            let told = pad.current_caps().and_then(|c| c.structure(0)?.get::<gst::Fraction>("framerate").ok());
            let of = |v: i32| u32::try_from(v).unwrap_or(0);
            RateGauge::new(told.map_or(NOMINAL_RATE, |r| (of(r.numer()), of(r.denom()))))
        });
        if let Some(percent) = gauge.picture(pts.nseconds(), gate.resumed_at.load(Ordering::Relaxed)) {
            let bits = u64::from(bitrate).saturating_mul(percent) / 100;
            state.due = Some(u32::try_from(bits).unwrap_or(u32::MAX));
        }
        let now = std::mem::take(&mut state.key) || !waits_for_key;
        if now && let (Some(bits), Some(encoder)) = (state.due.take(), encoder.upgrade()) {
            realize::set_bitrate(&encoder, unit, bits);
        }
        gst::PadProbeReturn::Ok
    });
}

fn build_audio(
    pipeline: &gst::Pipeline,
    rung: &AudioRung,
    origin: Option<i64>,
    track: u8,
    output: &Output,
) -> Result<AudioInput, GraphError> {
    let chosen = AacEncoder::choose()?;
    let source = input("audio-input", AUDIO_QUEUE);
    let convert = make("audioconvert")?;
    let resample = make("audioresample")?;
    let caps = make("capsfilter")?;
    caps.set_property(
        "caps",
        gst::Caps::builder("audio/x-raw")
            .field("rate", i32::try_from(rung.sample_rate).unwrap_or(i32::MAX))
            .field("channels", i32::from(rung.channels))
            .build(),
    );
    // Fills lost packets with silence and starts on the frame grid, so that frames never have gaps between them.
    let rate = make("audiorate")?;
    rate.set_property("tolerance", 10_000_000u64);
    rate.set_property("skip-to-first", false);
    let encoder = chosen.encoder(rung)?;
    let timeline = Arc::new(Mutex::new(AudioTimeline::new(rung.sample_rate, origin.map(MediaTime), chosen.priming())));
    let sink = output_sink(
        &gst::Caps::builder("audio/mpeg").field("mpegversion", 4i32).field("stream-format", "raw").build(),
        audio_samples(rung, track, &timeline, output),
    );
    let chain = [convert.clone(), resample, caps, rate, encoder, sink.upcast()];
    pipeline.add(&source)?;
    pipeline.add_many(&chain)?;
    gst::Element::link_many(&chain)?;
    let elements = std::iter::once(source.clone().upcast()).chain(chain).collect();
    Ok(AudioInput { source, timeline, config: None, decoder: None, next: convert, elements })
}

fn input(name: &str, units: u64) -> gst_app::AppSrc {
    let source = gst_app::AppSrc::builder()
        .name(name)
        .format(gst::Format::Time)
        .block(true)
        .max_buffers(units)
        .max_bytes(0)
        .is_live(false)
        .build();
    source.set_max_time(gst::ClockTime::ZERO);
    source
}

type Taken = Box<dyn FnMut(&gst::Sample) + Send>;

fn output_sink(caps: &gst::Caps, mut taken: Taken) -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder().caps(caps).sync(false).async_(false).max_buffers(8).build();
    sink.set_property("qos", false);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                taken(&sample);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    sink
}

/// Encoded pictures as the contract wants them: nothing but the picture, the source's own presentation times.
fn video_samples(rung: &VideoRung, track: u8, timeline: &Arc<Mutex<VideoTimeline>>, output: &Output) -> Taken {
    let (rung, timeline, output) = (rung.clone(), timeline.clone(), output.clone());
    let mut known: Option<(Vec<u8>, Arc<TrackConfig>)> = None;
    Box::new(move |sample| {
        let Some(Ok(map)) = sample.buffer().map(|b| b.map_readable()) else { return };
        let header = match rung.codec {
            Codec::H264 | Codec::H265 => codec_data(sample),
            // Not every element says it in its caps; it stands in every key frame.
            Codec::Av1 => av1::record(&map),
        };
        if let Some(header) = header.filter(|new| known.as_ref().is_none_or(|(old, _)| old != new)) {
            let rate = match (rung.frame_rate, lock(&timeline).nominal_rate) {
                (Some(r), Some(n)) if fraction(n) < fraction(r) => Some(n),
                (Some(r), _) => Some(r),
                (None, n) => n,
            };
            let Some(config) = video_config(&rung, &header, rate) else { return };
            known = Some((header, config.shared()));
        }
        let (Some((_, config)), Some(segment)) =
            (&known, sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>()))
        else {
            return;
        };
        // Encoders move their segment so that decoding times cannot be negative; running time undoes that.
        let Some(at) = sample.buffer().and_then(|b| b.pts()).and_then(|pts| segment.to_running_time(pts)) else {
            return;
        };
        let (data, key) = match rung.codec {
            Codec::H264 => (avc::slices_only(&map), avc::has_idr(&map)),
            Codec::H265 => (hevc::slices_only(&map), hevc::is_idr(&map)),
            Codec::Av1 => (av1::sample(&map), av1::is_key(&map)),
        };
        if data.is_empty() || data.len() > MAX_UNIT {
            return;
        }
        let pts = lock(&timeline).leave(at.nseconds());
        let unit = Unit { track, key, force_key: false, pts, dts: pts, duration: None, data };
        output(track, config.clone(), unit);
    })
}

/// A rung's configuration out of what its encoder says of the stream: an avcC, hvcC or av1C record.
fn video_config(rung: &VideoRung, record: &[u8], rate: Option<(u32, u32)>) -> Option<TrackConfig> {
    match rung.codec {
        Codec::H264 => avc::config_from_avcc(record, rung.width, rung.height, rate).map(TrackConfig::H264),
        Codec::H265 => hevc::config_from_hvcc(record, rung.width, rung.height, rate).map(TrackConfig::H265),
        Codec::Av1 => Some(TrackConfig::Av1(av1::config(record, rung.width, rung.height, rate))),
    }
}

/// AAC frames on the session's grid.
fn audio_samples(rung: &AudioRung, track: u8, timeline: &Arc<Mutex<AudioTimeline>>, output: &Output) -> Taken {
    let (rung, timeline, output) = (rung.clone(), timeline.clone(), output.clone());
    let mut known: Option<(Vec<u8>, Arc<TrackConfig>)> = None;
    let mut n = 0i64;
    Box::new(move |sample| {
        let Some(asc) = codec_data(sample) else { return };
        if known.as_ref().is_none_or(|(old, _)| *old != asc) {
            let config = TrackConfig::Aac(AacConfig {
                asc: Bytes::copy_from_slice(&asc),
                sample_rate: rung.sample_rate,
                channels: rung.channels,
                object_type: 2,
                frame_samples: 1024,
            });
            known = Some((asc, config.shared()));
        }
        let (pts, duration) = {
            let timeline = lock(&timeline);
            (timeline.frame_at(n), timeline.frame())
        };
        n += 1;
        let (Some((_, config)), Some(Ok(map))) = (&known, sample.buffer().map(|b| b.map_readable())) else { return };
        if map.is_empty() || map.len() > MAX_UNIT {
            return;
        }
        let data = Bytes::copy_from_slice(&map);
        let unit = Unit { track, key: true, force_key: false, pts, dts: pts, duration: Some(duration), data };
        output(track, config.clone(), unit);
    })
}

fn codec_data(sample: &gst::Sample) -> Option<Vec<u8>> {
    let buffer = sample.caps()?.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
    Some(buffer.map_readable().ok()?.to_vec())
}

fn count_into(
    element: &gst::Element,
    pad: &str,
    counters: &Arc<Counters>,
    which: impl Fn(&Counters) -> &AtomicU64 + Send + Sync + 'static,
) {
    let counters = counters.clone();
    if let Some(pad) = element.static_pad(pad) {
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            which(&counters).fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
    }
}

fn failed(error: &gst::message::Error) -> GraphError {
    let from = error.src().map(|s| s.name().to_string()).unwrap_or_default();
    // The message is the same for whatever goes wrong in an encoder; the cause stands behind the first line, which names
    // the place in GStreamer's source.
    let cause = error.debug().and_then(|d| Some(d.split_once('\n')?.1.chars().take(MAX_CAUSE).collect::<String>()));
    let cause = cause.filter(|c| !c.is_empty()).map(|c| format!(" ({})", c.replace('\n', "; "))).unwrap_or_default();
    GraphError::Failed(format!("{from}: {}{cause}", error.error()))
}

fn fraction((n, d): (u32, u32)) -> gst::Fraction {
    let of = |v: u32| i32::try_from(v).unwrap_or(i32::MAX);
    gst::Fraction::new(of(n), of(d.max(1)))
}

/// What a panicking thread left behind is still whole: every critical section here only moves values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
