//! `fishladder density`: how many sessions of a ladder this machine really holds in real time.
//!
//! Plays a moving source in real time into one engine per session, as the server would, and adds sessions until one of
//! them no longer keeps up.

pub mod calibration;
mod meter;
mod ramp;
mod report;
mod sessions;
mod usage;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use engine::backend::{Codec, Policy};
use engine::gauge::Gauge;
use engine::motion::{self, MotionOptions};
use engine::{DeviceHost, EngineOptions, HostOptions, LadderSpec, OnDevice, RungRequest, Seat};
use media::{H264Config, WallTime};
use tokio::time::Instant;

use self::calibration::Calibration;
use self::meter::Lags;
use self::ramp::{Ramp, Step};
use self::report::{Rendition, Report, Source, counted};
use self::sessions::{Session, Show};
use self::usage::CpuTimes;
pub use self::usage::cpu_of;
use crate::config::{Config, Fault, Ladder, PASSTHROUGH};

/// For all sessions of a step to bring their first pictures: workers start, and GStreamer may look for its plug-ins.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);
/// Between the first pictures and the measurement: what starting costs must not count.
const SETTLE: Duration = Duration::from_secs(2);
/// As long as sessions may take to catch up before they are measured as they are.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// For the workers of a step that was too much to be gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Sessions at most: each is a process.
const MAX_SESSIONS: u64 = 1000;

#[derive(clap::Args)]
pub struct Arguments {
    /// The server's configuration file, whose ladders can be measured.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A ladder of the configuration; without it the default one.
    #[arg(long, conflicts_with = "ladder_file")]
    ladder: Option<String>,
    /// A file that holds one ladder (configs/ladders/).
    #[arg(long, conflicts_with = "config")]
    ladder_file: Option<PathBuf>,
    /// A film to show, of any kind that GStreamer decodes; its first 8 s. Without it a moving picture is generated.
    #[arg(long)]
    source: Option<PathBuf>,
    /// The source's picture, WIDTHxHEIGHT@FPS; without it 1920x1080, or the tallest rung's height if that is more, at the
    /// ladder's highest frame rate.
    #[arg(long)]
    picture: Option<Picture>,
    /// `cpu`, or a GPU by its UUID, render node or name; without it the first GPU that decodes, else the CPU.
    #[arg(long)]
    device: Option<String>,
    /// Sessions to try at most.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=MAX_SESSIONS))]
    max: u64,
    /// How long each step is measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// What the machine costs an hour, in any currency.
    #[arg(long, value_parser = cost)]
    cost_per_hour: Option<f64>,
    /// Also print how many pods can share the GPU, as a configuration of NVIDIA's device plugin.
    #[arg(long, conflicts_with = "json")]
    time_slices: bool,
    /// Write the measured capacity there, for the placement of sessions.
    #[arg(long)]
    save: Option<PathBuf>,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// A source's size and frames a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picture {
    width: u32,
    height: u32,
    frame_rate: u32,
}

impl std::str::FromStr for Picture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = || {
            let (size, rate) = text.split_once('@')?;
            let (width, height) = size.split_once('x')?;
            Some(Self { width: width.parse().ok()?, height: height.parse().ok()?, frame_rate: rate.parse().ok()? })
        };
        let picture = numbers().ok_or("must be WIDTHxHEIGHT@FPS, for example 1920x1080@25")?;
        let side = |side: u32| (64..=8192).contains(&side) && side.is_multiple_of(2);
        if !side(picture.width) || !side(picture.height) || !(1..=240).contains(&picture.frame_rate) {
            return Err("sides must be even, from 64 to 8192, and FPS from 1 to 240".to_owned());
        }
        Ok(picture)
    }
}

fn cost(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cost) if cost.is_finite() && cost >= 0.0 => Ok(cost),
        _ => Err("must be an amount, for example 0.526".to_owned()),
    }
}

/// Measures, prints, saves. The exit code tells whether at least one session held and all that was asked for was done.
pub fn run(a: &Arguments) -> Result<ExitCode, Vec<Fault>> {
    let (name, ladder, stall_timeout) = choose_ladder(a)?;
    let fault = |path: &str, problem: String| vec![Fault::new(path, problem)];
    let picture = a.picture.unwrap_or_else(|| default_picture(&ladder));
    let spec = resolve(&ladder, picture);
    let Some(first) = spec.video.first() else {
        return Err(fault(
            "",
            format!("the ladder `{name}` encodes nothing of such a source: there is nothing to measure"),
        ));
    };
    let preset = first.preset.clone();
    if a.save.is_some() && spec.video.iter().any(|r| r.preset != preset) {
        return Err(fault("--save", "the rungs have different presets, and a calibration is for one".to_owned()));
    }
    let target = Target::find(a.device.as_deref()).map_err(|problem| fault("--device", problem))?;
    if a.time_slices && target.on.is_none() {
        return Err(fault("--time-slices", "the CPU encodes, and time slicing is of GPUs".to_owned()));
    }
    let program = std::env::current_exe().map_err(|e| fault("", format!("cannot find the program itself: {e}")))?;
    let mut progress = Progress::new();
    progress.line("making the source");
    let motion = MotionOptions {
        width: picture.width,
        height: picture.height,
        frame_rate: picture.frame_rate,
        file: a.source.clone(),
    };
    let units = motion::encode(&motion).map_err(|e| match &a.source {
        Some(path) => fault("--source", format!("{}: {e}", path.display())),
        None => fault("", format!("the source cannot be made: {e}")),
    })?;
    let seat = target.seat(&program);
    let options = EngineOptions { program, stall_timeout };
    let show = Arc::new(Show { units, frame_rate: picture.frame_rate, spec, options, seat });
    let gauge = target.on.as_ref().and_then(|on| Gauge::open(&on.id));
    let mut run = Run { show, seconds: a.seconds, gauge, sessions: Vec::new(), progress, steps: Vec::new() };
    let mut ramp = Ramp::new(usize::try_from(a.max).unwrap_or(1));
    let runtime = tokio::runtime::Runtime::new().map_err(|e| fault("", format!("cannot start: {e}")))?;
    let interrupted = runtime.block_on(async {
        let interrupted = tokio::select! {
            _ = tokio::signal::ctrl_c() => true,
            () = run.climb(&mut ramp) => false,
        };
        run.leave().await;
        interrupted
    });
    run.progress.clear();
    let mut report = Report {
        device: target.id(),
        device_name: target.name.clone(),
        processor: usage::processor(),
        cores: usage::cores(),
        ladder: name,
        renditions: renditions(&run.show),
        source: Source {
            width: picture.width,
            height: picture.height,
            frame_rate: picture.frame_rate,
            picture: a.source.as_ref().map_or_else(|| "generated motion".to_owned(), |f| f.display().to_string()),
        },
        seconds: a.seconds,
        steps: run.steps,
        interrupted,
        ..Report::default()
    };
    report.conclude(ramp.held(), ramp.is_exact(), a.cost_per_hour);
    print(a, &report)?;
    let saved = match &a.save {
        Some(path) => save(path, &report, preset),
        None => true,
    };
    Ok(if saved && report.sessions > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(a: &Arguments, report: &Report) -> Result<(), Vec<Fault>> {
    if a.json {
        let text = serde_json::to_string_pretty(report).map_err(|e| vec![Fault::new("", e.to_string())])?;
        println!("{text}");
    } else {
        print!("{}", report.text());
    }
    if a.time_slices && report.sessions > 0 {
        print!("\n{}", report.time_slicing());
    }
    Ok(())
}

/// False where nothing was saved. A ramp that ended before the limit says too little of the device.
fn save(path: &Path, report: &Report, preset: String) -> bool {
    if !report.limit_found || report.sessions == 0 {
        eprintln!("error: --save: the limit was not found, so {} is left as it was", path.display());
        return false;
    }
    let new = Calibration {
        device: report.device.clone(),
        codec: "h264",
        preset,
        encode_mps: report.encode_mps,
        decode_mps: report.decode_mps,
        measured: WallTime::from_system(SystemTime::now()).to_string(),
    };
    match calibration::save(path, &new) {
        Ok(()) => true,
        Err(problem) => {
            eprintln!("error: --save: {problem}");
            false
        }
    }
}

/// The ladder to measure, its name, and the configuration's time-out for encoders that stand still.
fn choose_ladder(a: &Arguments) -> Result<(String, Ladder, Duration), Vec<Fault>> {
    if let Some(path) = &a.ladder_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| vec![Fault::new("--ladder-file", format!("cannot read {}: {e}", path.display()))])?;
        return only_ladder(&text).map(|(name, ladder)| (name, ladder, Config::default().engine.stall_timeout));
    }
    let mut config = Config::load(a.config.as_deref(), &[])?;
    let name = a.ladder.clone().unwrap_or(config.ladder.default);
    match config.ladders.remove(&name) {
        Some(ladder) => Ok((name, ladder, config.engine.stall_timeout)),
        None if name == PASSTHROUGH => Err(vec![Fault::new("--ladder", "`passthrough` encodes nothing")]),
        None => {
            let known: Vec<String> = config.ladders.into_keys().collect();
            Err(vec![Fault::new("--ladder", format!("no such ladder; there are {}", known.join(", ")))])
        }
    }
}

/// The ladder of a file that holds one and nothing else.
fn only_ladder(text: &str) -> Result<(String, Ladder), Vec<Fault>> {
    let config = Config::parse(text, &[], |_| None)?;
    let root = crate::config::document(text).map_err(|fault| vec![fault])?;
    let names: Vec<&String> =
        root.get("ladders").and_then(|l| l.as_object()).map_or_else(Vec::new, |l| l.keys().collect());
    let alone = root.as_object().is_some_and(|root| root.len() == 1);
    match names.as_slice() {
        [name] if alone => match config.ladders.get(*name) {
            Some(ladder) => Ok(((*name).clone(), ladder.clone())),
            None => Err(vec![Fault::new("ladders", "is missing")]),
        },
        _ => Err(vec![Fault::new("ladders", "the file must hold one ladder and nothing else; see configs/ladders")]),
    }
}

fn default_picture(ladder: &Ladder) -> Picture {
    let height = ladder.rungs.iter().map(|r| r.height).max().unwrap_or_default().max(1080);
    // A rung without a bound has the source's rate: then any will do.
    let frame_rate = ladder.rungs.iter().filter_map(|r| r.max_frame_rate).max().unwrap_or(30);
    Picture { width: (height * 16 / 9) & !1, height, frame_rate }
}

/// As the server resolves it against a publisher's video.
fn resolve(ladder: &Ladder, picture: Picture) -> LadderSpec {
    let source = H264Config {
        sps: Bytes::new(),
        pps: Vec::new(),
        width: picture.width,
        height: picture.height,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: Some((picture.frame_rate, 1)),
    };
    let rungs: Vec<RungRequest> = ladder
        .rungs
        .iter()
        .map(|r| RungRequest {
            height: r.height,
            bitrate: r.bitrate,
            max_frame_rate: r.max_frame_rate,
            preset: r.preset.clone(),
        })
        .collect();
    engine::resolve(Some(&source), None, &rungs, ladder.passthrough, ladder.audio_bitrate)
}

fn renditions(show: &Show) -> Vec<Rendition> {
    let rungs = show.spec.video.iter().zip(show.rates());
    rungs
        .map(|(r, frame_rate)| Rendition {
            id: r.id.to_string(),
            width: r.width,
            height: r.height,
            frame_rate,
            bitrate: r.bitrate,
            preset: r.preset.clone(),
        })
        .collect()
}

/// Where sessions run.
struct Target {
    /// None: the CPU.
    on: Option<OnDevice>,
    /// With what it leaves to the CPU.
    name: String,
}

impl Target {
    fn find(wanted: Option<&str>) -> Result<Self, String> {
        let cpu = Self { on: None, name: "CPU".to_owned() };
        if wanted.is_some_and(|w| w.eq_ignore_ascii_case("cpu")) {
            return Ok(cpu);
        }
        let devices: Vec<_> = engine::probe::diagnose().into_iter().filter_map(|f| f.device).collect();
        // As the server chooses them.
        let usable =
            devices.iter().filter(|d| d.elements.decoders.contains_key(&Codec::H264) && d.elements.scaler.is_some());
        let matches = |device: &&engine::probe::Device| {
            let is = |text: &Option<String>| text.as_deref().is_some_and(|t| Some(t) == wanted);
            wanted.is_none() || is(&device.id) || is(&device.name)
        };
        let mut found = usable.clone().filter(matches);
        let Some(device) = found.next() else {
            let Some(wanted) = wanted else { return Ok(cpu) };
            let known: Vec<&str> = usable.filter_map(|d| d.id.as_deref()).chain(["cpu"]).collect();
            return Err(format!("no device {wanted:?} that decodes H.264 and scales; there are {}", known.join(", ")));
        };
        if wanted.is_some() && found.next().is_some() {
            return Err("several devices are called so: give the UUID or the render node".to_owned());
        }
        // A Jetson has one device, which needs no id.
        let id = device.id.clone().unwrap_or_else(|| "jetson".to_owned());
        let encodes = device.elements.encoders.contains_key(&Codec::H264);
        let policy = if encodes { Policy::GpuOnly } else { Policy::Cpu };
        let name = format!(
            "{} ({id}){}",
            device.name.as_deref().unwrap_or("GPU"),
            if encodes { "" } else { "; it has no H.264 encoder, so the CPU encodes" }
        );
        Ok(Self { on: Some(OnDevice { family: device.elements.family, id, policy }), name })
    }

    fn id(&self) -> String {
        self.on.as_ref().map_or_else(|| "cpu".to_owned(), |on| on.id.clone())
    }

    /// One worker for all sessions of a GPU, one for each session on the CPU.
    fn seat(&self, program: &Path) -> Seat {
        let host = self.on.as_ref().map(|on| {
            let options = HostOptions {
                program: program.to_owned(),
                name: self.name.clone(),
                device: Some(on.clone()),
                fails_after: None,
            };
            DeviceHost::new(options).0
        });
        Seat { device: self.on.clone(), host }
    }
}

/// The measurement as it goes on.
struct Run {
    show: Arc<Show>,
    seconds: u32,
    gauge: Option<Gauge>,
    sessions: Vec<Session>,
    progress: Progress,
    steps: Vec<Step>,
}

impl Run {
    async fn climb(&mut self, ramp: &mut Ramp) {
        let start = Instant::now();
        while let Some(sessions) = ramp.next() {
            let step = self.step(sessions, start).await;
            ramp.record(sessions, step.held());
            self.progress.step(&step);
            if !step.held() {
                // What piled up in this step must not weigh on the next.
                self.leave().await;
            }
            self.steps.push(step);
        }
    }

    /// Adds sessions until there are so many, waits for them to settle, measures.
    async fn step(&mut self, count: usize, start: Instant) -> Step {
        let rate = f64::from(self.show.frame_rate);
        while self.sessions.len() < count {
            match Session::start(&self.show, self.sessions.len(), start) {
                Ok(session) => self.sessions.push(session),
                Err(e) => return failed(count, format!("a session does not start: {e}")),
            }
        }
        let starting = Instant::now();
        let all = |sessions: &[Session], check: fn(&meter::Meter) -> bool| sessions.iter().all(|s| check(&s.meter()));
        while !all(&self.sessions, meter::Meter::has_begun) {
            if let Some(fault) = self.sessions.iter().find_map(|s| s.meter().fault().map(str::to_owned)) {
                return failed(count, fault);
            }
            if starting.elapsed() > BEGIN_LIMIT {
                return failed(count, format!("not all sessions began within {} s", BEGIN_LIMIT.as_secs()));
            }
            self.progress.show(&format!("{}: starting", counted(count)));
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let begun = Instant::now();
        while begun.elapsed() < SETTLE
            || (!all(&self.sessions, meter::Meter::is_settled) && begun.elapsed() < SETTLE_LIMIT)
        {
            self.progress.show(&format!("{}: settling", counted(count)));
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let (before, from) = (CpuTimes::now(), Instant::now());
        for session in &self.sessions {
            session.meter().begin();
        }
        let until = from + Duration::from_secs(self.seconds.into());
        let mut engines = Vec::new();
        while Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
            self.progress.show(&format!("{}: measuring, {left:.0} s left", counted(count)));
            tokio::time::sleep_until(until.min(Instant::now() + LOOK_INTERVAL)).await;
            engines.extend(self.gauge.as_ref().and_then(Gauge::read));
        }
        let now = Instant::now();
        let length = now - from;
        let (cpu, cpu_others) = CpuTimes::now().cores_since(before, length.as_secs_f64());
        let mean = |use_of: fn(&engine::gauge::EngineUse) -> u32| {
            let sum: u32 = engines.iter().map(use_of).sum();
            (!engines.is_empty()).then(|| f64::from(sum) / engines.len() as f64)
        };
        let mut step = Step {
            sessions: count,
            fps_min: f64::MAX,
            cpu,
            cpu_others,
            encoder_percent: mean(|u| u.encoder),
            decoder_percent: mean(|u| u.decoder),
            ..Step::default()
        };
        let mut lags = Lags::default();
        for session in &self.sessions {
            let got = session.meter().end(length, |last| session.overdue(last, now));
            step.fps_average += got.rate * rate / count as f64;
            step.fps_min = step.fps_min.min(got.rate * rate);
            step.lag_p95_ms = step.lag_p95_ms.max(got.lags.percentile(95));
            step.dropped += got.dropped;
            step.fault = step.fault.or(got.fault);
            lags.join(&got.lags);
        }
        step.lag_p50_ms = lags.percentile(50);
        step.judge(rate);
        step
    }

    /// Ends all sessions and waits for their workers to be gone.
    async fn leave(&mut self) {
        self.sessions.clear();
        // A GPU's worker stays for its next sessions.
        let stays = usize::from(self.show.seat.host.is_some());
        let since = Instant::now();
        while usage::children() > stays && since.elapsed() < LEAVE_LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn failed(sessions: usize, fault: String) -> Step {
    Step { sessions, reasons: vec![fault.clone()], fault: Some(fault), ..Step::default() }
}

/// On standard error: one line that changes on a terminal, a line a step elsewhere.
struct Progress {
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    /// What goes on; nothing is lost where it isn't seen.
    fn show(&mut self, text: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        self.show("");
    }

    fn line(&mut self, text: &str) {
        if self.terminal {
            self.show(text);
        } else {
            eprintln!("{text}");
        }
    }

    fn step(&mut self, step: &Step) {
        let verdict = if step.held() { "held".to_owned() } else { format!("too many: {}", step.reasons.join(", ")) };
        self.clear();
        eprintln!("{}: {verdict}", counted(step.sessions));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_ladders_that_ship_are_one_each_and_encode_what_their_names_say() {
        for (text, name, sizes, rate) in [
            (
                include_str!("../../configs/ladders/1080p25-p1-single.toml"),
                "1080p25-p1-single",
                &[(1920, 1080, 5_000_000)][..],
                25,
            ),
            (
                include_str!("../../configs/ladders/abr-1080p.toml"),
                "abr-1080p",
                &[(1920, 1080, 4_500_000), (1280, 720, 2_500_000), (854, 480, 1_200_000), (640, 360, 700_000)],
                30,
            ),
        ] {
            let (found, ladder) = only_ladder(text).unwrap();
            let picture = default_picture(&ladder);
            assert_eq!((found.as_str(), picture), (name, Picture { width: 1920, height: 1080, frame_rate: rate }));
            let spec = resolve(&ladder, picture);
            let got: Vec<_> = spec.video.iter().map(|r| (r.width, r.height, r.bitrate)).collect();
            assert_eq!(got, sizes);
            assert!(name != "1080p25-p1-single" || spec.video[0].preset == "p1");
        }
    }

    #[test]
    fn a_file_with_more_than_one_ladder_or_something_else_is_refused() {
        let rung = "rungs = [{ height = 360, bitrate = \"700k\" }]\n";
        for text in [
            String::new(),
            format!("[ladders.a]\n{rung}[ladders.b]\n{rung}"),
            format!("[log]\njson = true\n[ladders.a]\n{rung}"),
        ] {
            assert_eq!(only_ladder(&text).unwrap_err()[0].path, "ladders", "{text}");
        }
        let faults = only_ladder("[ladders.a]\nrungs = [{ height = 360, bitrate = \"700k\", preset = \"p8\" }]\n");
        assert_eq!(faults.unwrap_err()[0].path, "ladders.a.rungs[0].preset");
    }

    #[test]
    fn pictures_have_even_sides_and_a_rate() {
        assert_eq!("320x180@10".parse(), Ok(Picture { width: 320, height: 180, frame_rate: 10 }));
        for bad in ["", "320x180", "321x180@10", "320x180@0", "320x180@-1", "9000x9000@25", "320×180@10"] {
            assert!(bad.parse::<Picture>().is_err(), "{bad}");
        }
        assert!(cost("0.5").is_ok() && cost("-1").is_err() && cost("NaN").is_err());
    }
}
