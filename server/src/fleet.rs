//! Which device carries which channel's ladder: owns the placer, the devices' workers and every session's seat, and carries
//! out what the placer decides. Calls take microseconds; nothing is awaited under the lock.

mod control;
mod governor;
mod gpus;
mod load;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use engine::backend::{Codec as EngineCodec, Family, Policy, Preset as EnginePreset};
use engine::{DeviceHost, HostEnded, HostOptions, Mover, Seat, VideoRung};
use media::{ChannelName, H264Config, RenditionId};
use placement::device::{Codec, Preset, SourceCodec};
use placement::placer::{Finish, Stay};
use placement::reason::{Cause, Event, MoveReason};
use placement::{At, Demand, Device, DeviceId, Host, Migration, Picture, Placer, Request, Rung, SessionId, catalogue};
use tokio::sync::mpsc;

use self::control::{Counts, Reading};
use self::governor::Governor;
#[cfg(test)]
pub use self::load::Measured;
use self::load::Smoothed;
pub use self::status::DevicesStatus;
use crate::channel::Message;
use crate::config::{Devices, Ladder, SimulatedDevice, Throttles};
use crate::supervisor::Refusal;

/// Decisions kept for the status page.
const MAX_DECISIONS: usize = 100;
/// A device whose worker dies so often within `DEATHS_WINDOW` is put into quarantine: it is the device, not a session.
const MAX_DEATHS: usize = 3;
const DEATHS_WINDOW: Duration = Duration::from_secs(60);
/// How often sessions are moved together so that devices become idle (policy `consolidate`).
const DEFRAGMENT_PERIOD: Duration = Duration::from_secs(60);
/// When a refused publisher may ask again: sessions end at any time.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// When a publisher may ask again for whom sessions are on their way: a new worker starts, and a key frame comes.
const ROOM_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Sessions that move for one publisher.
const ROOM_MOVES: usize = 3;
/// Publishers in a minute for whom sessions move: moving is a load of its own.
const ROOMS_A_MINUTE: usize = 6;
/// No defragmenting for so long after room was made: it might fill it.
const ROOM_KEPT: u64 = 30_000;
/// Frames a second where a source does not say.
const USUAL_RATE: (u32, u32) = (30, 1);
/// The picture that a publisher is taken to bring until it is there.
const ASSUMED_SOURCE: (u32, u32) = (1920, 1080);

/// Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    /// In the placer's order.
    devices: Vec<FleetDevice>,
    state: Mutex<State>,
    begin: Instant,
}

struct FleetDevice {
    id: String,
    kind: String,
    host: DeviceHost,
    /// None: a GPU.
    simulated: Option<Throttles>,
}

struct State {
    placer: Placer,
    sessions: BTreeMap<u64, Session>,
    next: u64,
    decisions: VecDeque<Decision>,
    /// When sessions were moved to make room, in the last minute.
    rooms_made: VecDeque<At>,
    /// By device, as all below.
    troubles: Vec<Trouble>,
    readings: Vec<Reading>,
    smoothed: Vec<Smoothed>,
    governors: Vec<Governor>,
    counts: Vec<Counts>,
}

/// A ladder that has a seat.
struct Session {
    channel: ChannelName,
    source: Picture,
    video: Vec<VideoRung>,
    /// Rungs that are not encoded for now, the latest last.
    suspended: Vec<RenditionId>,
    /// Of the rungs that are.
    demand: Arc<Demand>,
    policy: Policy,
    /// None until its engine has been started.
    mover: Option<Mover>,
    /// The device that it has lost, while no other takes it.
    lost_device: Option<DeviceId>,
}

/// What went wrong with a device since it was last put into use.
#[derive(Default)]
struct Trouble {
    deaths: Vec<Instant>,
    restarts: u32,
    reason: Option<String>,
}

struct Decision {
    at: SystemTime,
    level: &'static str,
    text: String,
}

/// What may run of a ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    pub video: Vec<VideoRung>,
    /// What the operator should know.
    pub message: Option<Message>,
}

/// Why nothing of a ladder may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSeat {
    /// Last path segment of a problem's `type`: one for each reason.
    pub kind: &'static str,
    pub text: String,
    /// When it may be different. None: it will not.
    pub retry_after: Option<Duration>,
    /// Devices could take it if they were not full.
    full: bool,
}

/// What draining a device came to.
#[derive(Debug, serde::Serialize)]
pub struct Drained {
    /// Sessions that are on their way.
    pub moving: usize,
    /// Channels that no other device takes, and why. They stay until they end.
    pub stranded: Vec<String>,
}

/// One channel's place in the fleet. Cheap to clone; all clones are one place.
#[derive(Clone)]
pub struct Place {
    fleet: Fleet,
    channel: ChannelName,
    seated: Arc<Mutex<Option<Seated>>>,
}

struct Seated {
    given: Given,
    /// What it was given for; None: a publisher's expected source.
    wanted: Option<(Picture, Vec<VideoRung>)>,
}

/// The answer to a ladder.
struct Given {
    /// None: on the CPU, or nowhere.
    session: Option<SessionId>,
    admitted: Admitted,
}

impl Given {
    fn on_cpu(video: &[VideoRung], message: Option<Message>) -> Self {
        Self { session: None, admitted: Admitted { video: video.to_vec(), message } }
    }
}

impl Fleet {
    /// Within a tokio runtime; starts no worker yet. Blocks for a moment where there are GPUs.
    pub fn new(devices: &Devices, program: &std::path::Path) -> Self {
        let mut fleet = placement::Fleet::default();
        let (mut known, mut ends) = (Vec::new(), Vec::new());
        let mut add = |id: &str, kind: &str, device, simulated: Option<&SimulatedDevice>| {
            let fails_after = simulated.and_then(|s| s.fails_after);
            let options = HostOptions { program: program.to_owned(), name: id.to_owned(), device, fails_after };
            let (host, ended) = DeviceHost::new(options);
            let simulated = simulated.map(|s| s.throttles);
            known.push(FleetDevice { id: id.to_owned(), kind: kind.to_owned(), host, simulated });
            ends.push(ended);
        };
        // Its consumer cards share one cap.
        fleet.hosts.push(Host { consumer_sessions: Some(catalogue::GEFORCE_SESSIONS) });
        let calibration = devices.calibration.as_ref();
        let mut calibrated = Vec::new();
        let mut calibrate = |device: &str, kind: &mut placement::DeviceKind| {
            if calibration.is_some_and(|file| file.apply(device, kind)) {
                tracing::info!(device, "its capacity is as measured");
                calibrated.push(device.to_owned());
            }
        };
        for mut gpu in gpus::find(devices.gpus, program) {
            calibrate(&gpu.device.id, &mut gpu.kind);
            add(&gpu.id, &gpu.kind.name, Some(gpu.device), None);
            fleet.devices.push(Device {
                kind: u16::try_from(fleet.kinds.len()).unwrap_or(u16::MAX),
                host: 0,
                calibration: 100,
            });
            fleet.kinds.push(gpu.kind);
        }
        for (name, simulated) in &devices.simulated {
            let mut kind = simulated.kind(name);
            calibrate(name, &mut kind);
            fleet.add(kind, 1, 1, simulated.sessions);
            add(name, "simulated", None, Some(simulated));
        }
        if let Some(file) = calibration {
            for device in file.devices().into_iter().filter(|d| !calibrated.iter().any(|c| c == d)) {
                let why =
                    if device == "cpu" { "ladders on the CPU are not counted" } else { "no such device is used here" };
                tracing::warn!(file = %file.path.display(), device, "calibration not used: {why}");
            }
        }
        let settings = placement::Settings { policy: devices.policy, ..placement::Settings::default() };
        // The configuration has checked what a placer checks.
        let placer = Placer::new(fleet, settings).unwrap_or_else(|faults| {
            tracing::error!(?faults, "the devices cannot be used");
            known.clear();
            Placer::new(placement::Fleet::default(), settings).expect("an empty fleet has no faults")
        });
        fn each<T: Default>(devices: &[FleetDevice]) -> Vec<T> {
            devices.iter().map(|_| T::default()).collect()
        }
        let state = State {
            placer,
            sessions: BTreeMap::new(),
            next: 1,
            decisions: VecDeque::new(),
            rooms_made: VecDeque::new(),
            troubles: each(&known),
            readings: each(&known),
            smoothed: each(&known),
            governors: each(&known),
            counts: each(&known),
        };
        let measurable = known.iter().any(|d| d.host.device().is_some_and(|d| d.family == Family::Nvidia));
        let fleet = Self { inner: Arc::new(Inner { devices: known, state: Mutex::new(state), begin: Instant::now() }) };
        for (n, ended) in (0u32..).zip(ends) {
            tokio::spawn(watch(Arc::downgrade(&fleet.inner), DeviceId(n), ended));
        }
        if !fleet.inner.devices.is_empty() {
            tokio::spawn(defragment(Arc::downgrade(&fleet.inner)));
            tokio::spawn(control::run(Arc::downgrade(&fleet.inner)));
        }
        if measurable {
            tokio::spawn(control::follow_gpus(Arc::downgrade(&fleet.inner), program.to_owned()));
        }
        fleet
    }

    /// A channel's place; nothing is reserved yet.
    pub fn place(&self, channel: ChannelName) -> Place {
        Place { fleet: self.clone(), channel, seated: Arc::default() }
    }

    /// Closes a device to new sessions and moves those it has. None: there is no such device.
    pub fn drain(&self, id: &str) -> Option<Drained> {
        let device = self.find(id)?;
        let mut state = self.state();
        let drained = state.placer.drain(self.now(), device);
        state.note("info", format!("{id} is drained"));
        let stranded: Vec<String> = drained
            .stranded
            .iter()
            .map(|refusal| format!("{}: {}", state.channel_of(refusal.session), refusal.cause.name()))
            .collect();
        for text in &stranded {
            state.note("warning", format!("{text}; it stays on {id}"));
        }
        let moving = drained.migrations.len();
        self.carry_out(&mut state, drained.migrations);
        Some(Drained { moving, stranded })
    }

    /// Takes a drained or quarantined device into use again. False: there is no such device.
    pub fn restore(&self, id: &str) -> bool {
        let Some(device) = self.find(id) else { return false };
        let now = self.now();
        let mut state = self.state();
        state.placer.restore(now, device);
        if let Some(trouble) = state.trouble(device) {
            *trouble = Trouble { restarts: trouble.restarts, ..Trouble::default() };
        }
        state.note("info", format!("{id} takes sessions again"));
        self.reseat(&mut state, now);
        true
    }

    fn find(&self, id: &str) -> Option<DeviceId> {
        let n = self.inner.devices.iter().position(|d| d.id == id)?;
        u32::try_from(n).ok().map(DeviceId)
    }

    fn name(&self, device: DeviceId) -> &str {
        usize::try_from(device.0).ok().and_then(|n| self.inner.devices.get(n)).map_or("?", |d| &d.id)
    }

    fn now(&self) -> At {
        At(u64::try_from(self.inner.begin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat_on(&self, device: Option<DeviceId>) -> Seat {
        let host = device.and_then(|d| self.inner.devices.get(usize::try_from(d.0).ok()?)).map(|d| d.host.clone());
        Seat { device: host.as_ref().and_then(|h| h.device().cloned()), host }
    }

    /// Reserves a seat for a ladder, as much of it as its policy wants and devices take. `returns`: who is refused can ask again
    /// soon, so that it is worth making room.
    fn seat(
        &self,
        channel: &ChannelName,
        source: Picture,
        video: &[VideoRung],
        policy: Policy,
        returns: bool,
    ) -> Result<Given, NoSeat> {
        if self.inner.devices.is_empty() {
            return match policy {
                Policy::Cpu => Ok(Given::on_cpu(video, None)),
                Policy::GpuOnly | Policy::Shorten => Err(NoSeat {
                    kind: "no-device",
                    text: "the ladder wants a GPU and this server has none".to_owned(),
                    retry_after: None,
                    full: false,
                }),
            };
        }
        let mut state = self.state();
        let mut kept = video.to_vec();
        let refused = loop {
            match state.reserve(self.now(), source, &kept, policy) {
                Ok((session, demand, device)) => {
                    let why = state.placer.history().iter().next_back().map_or("", |(_, event)| match event {
                        Event::Placed { why, .. } => why.name(),
                        _ => "",
                    });
                    let rungs: Vec<&str> = kept.iter().map(|r| r.id.as_str()).collect();
                    let text = format!("{channel} ({}) placed on {}: {why}", rungs.join(", "), self.name(device));
                    state.note("info", text);
                    let record = Session {
                        channel: channel.clone(),
                        source,
                        video: kept.clone(),
                        suspended: Vec::new(),
                        demand,
                        policy,
                        mover: None,
                        lost_device: None,
                    };
                    state.sessions.insert(session.0, record);
                    let missing: Vec<_> =
                        video.iter().filter(|r| !kept.contains(r)).map(|r| r.id.to_string()).collect();
                    let message = (!missing.is_empty()).then(|| {
                        let text = format!("The devices are full, the ladder goes without {}.", missing.join(", "));
                        state.note("warning", format!("{channel}: {text}"));
                        Message { level: "warning", text }
                    });
                    return Ok(Given { session: Some(session), admitted: Admitted { video: kept, message } });
                }
                Err(refused) => {
                    // The highest rung costs the most and is nearest to the source, which may be passed through; the lowest
                    // one is what everybody can play.
                    let highest = (0..kept.len()).max_by_key(|&n| kept.get(n).map_or(0, |r| r.height));
                    match highest.filter(|_| policy == Policy::Shorten && kept.len() > 1) {
                        Some(n) => drop(kept.remove(n)),
                        None => break refused,
                    }
                }
            }
        };
        if policy == Policy::Cpu {
            let text = format!("Encoded on the CPU, no device takes the ladder: {}.", refused.text);
            state.note("warning", format!("{channel}: {text}"));
            return Ok(Given::on_cpu(video, Some(Message { level: "warning", text })));
        }
        let refused = match refused.full && returns {
            true => self.make_room(&mut state, channel, source, &kept, policy).unwrap_or(refused),
            false => refused,
        };
        state.note("warning", format!("{channel} refused: {}", refused.text));
        Err(refused)
    }

    /// Moves a few sessions so that one device takes a ladder for which all are too full; what its publisher is told. None: moving
    /// a few does not help.
    fn make_room(
        &self,
        state: &mut State,
        channel: &ChannelName,
        source: Picture,
        video: &[VideoRung],
        policy: Policy,
    ) -> Option<NoSeat> {
        let now = self.now();
        let making = NoSeat {
            kind: "making-room",
            text: "sessions are on their way to other devices to make room".to_owned(),
            retry_after: Some(ROOM_RETRY_AFTER),
            full: true,
        };
        // Whoever asks meanwhile, or the same one too early, waits for the room that is being made.
        if state.sessions.keys().any(|id| state.placer.is_moving_for(SessionId(*id), MoveReason::MakeRoom)) {
            return Some(making);
        }
        while state.rooms_made.front().is_some_and(|at| at.0 + 60_000 <= now.0) {
            state.rooms_made.pop_front();
        }
        if state.rooms_made.len() >= ROOMS_A_MINUTE {
            return None;
        }
        let demand = demand(source, video).ok()?;
        let migrations = state.placer.make_room(now, &demand, policy == Policy::Cpu, ROOM_MOVES);
        let device = self.name(migrations.first()?.from).to_owned();
        state.rooms_made.push_back(now);
        state.note("info", format!("{device} makes room for {channel}, sessions to move: {}", migrations.len()));
        self.carry_out(state, migrations);
        Some(making)
    }

    fn release(&self, session: SessionId) {
        let mut state = self.state();
        state.placer.release(session);
        state.sessions.remove(&session.0);
        self.reseat(&mut state, self.now());
    }

    /// Moves sessions make before break; a session without an engine simply finds its new seat.
    fn carry_out(&self, state: &mut State, migrations: Vec<Migration>) {
        for migration in migrations {
            let channel = state.channel_of(migration.session);
            let (from, to) = (self.name(migration.from).to_owned(), self.name(migration.to).to_owned());
            let what = format!("{channel} moves from {from} to {to}: {}", migration.why.name());
            tracing::info!(%channel, from, to, why = migration.why.name(), "session moves");
            state.note("info", what);
            if let Some(counts) = state.counts(migration.from) {
                *counts.moves.entry(migration.why.name()).or_default() += 1;
            }
            let needs_finish = migration.why != MoveReason::Lost;
            let mover = state.sessions.get(&migration.session.0).and_then(|s| s.mover.clone());
            let Some(mover) = mover else {
                if needs_finish {
                    state.placer.finish(migration.session, Finish::Moved);
                }
                continue;
            };
            let answer = mover.move_to(self.seat_on(Some(migration.to)));
            let fleet = Arc::downgrade(&self.inner);
            tokio::spawn(async move {
                let outcome = answer.await;
                let Some(inner) = fleet.upgrade() else { return };
                let fleet = Fleet { inner };
                let mut state = fleet.state();
                let (finish, level, text) = match outcome {
                    Ok(Ok(())) => (Finish::Moved, "info", format!("{channel} is on {to} now")),
                    Ok(Err(fault)) => (Finish::Stayed, "error", format!("{channel} stays on {from}: {fault}")),
                    // The engine has ended; its seats are given back with the session.
                    Err(_) => return,
                };
                if needs_finish {
                    state.placer.finish(migration.session, finish);
                }
                state.note(level, text);
            });
        }
    }

    /// The device is gone, or its worker dies again and again.
    fn quarantine(&self, device: DeviceId, reason: String) {
        let id = self.name(device).to_owned();
        let mut state = self.state();
        tracing::error!(device = id, reason, "device in quarantine");
        state.note("error", format!("{id} is in quarantine: {reason}"));
        if let Some(trouble) = state.trouble(device) {
            trouble.reason = Some(reason);
        }
        let now = self.now();
        let lost = state.placer.lose(now, device);
        self.carry_out(&mut state, lost.moved);
        for refusal in lost.ended {
            let Some(session) = state.sessions.get_mut(&refusal.session.0) else { continue };
            let channel = session.channel.clone();
            let to_cpu = session.policy == Policy::Cpu;
            match (&session.mover, to_cpu) {
                (Some(mover), true) => {
                    drop(mover.move_to(Seat::default()));
                    // Nobody counts there, and nobody would give them back.
                    session.suspended.clear();
                    session.tell_suspended();
                    state.note("warning", format!("{channel} goes on on the CPU: {}", refusal.cause.name()));
                }
                _ => {
                    session.lost_device = Some(device);
                    state.note("error", format!("{channel} has lost its device: {}", refusal.cause.name()));
                }
            }
        }
        self.reseat(&mut state, now);
    }

    fn worker_died(&self, device: DeviceId, end: HostEnded) {
        let mut state = self.state();
        let Some(trouble) = state.trouble(device) else { return };
        let now = Instant::now();
        trouble.restarts = trouble.restarts.saturating_add(1);
        trouble.deaths.retain(|at| now.duration_since(*at) < DEATHS_WINDOW);
        trouble.deaths.push(now);
        let hopeless = end.lost || trouble.deaths.len() >= MAX_DEATHS;
        if hopeless && trouble.reason.is_none() {
            drop(state);
            self.quarantine(device, end.reason);
        } else if !hopeless {
            let text = format!("{}: {}; its sessions go on in a new one", self.name(device), end.reason);
            state.note("warning", text);
        }
    }
}

impl State {
    fn note(&mut self, level: &'static str, text: String) {
        self.decisions.push_front(Decision { at: SystemTime::now(), level, text });
        self.decisions.truncate(MAX_DECISIONS);
    }

    fn channel_of(&self, session: SessionId) -> ChannelName {
        let unknown = || "unknown".parse().expect("a channel's name");
        self.sessions.get(&session.0).map_or_else(unknown, |s| s.channel.clone())
    }

    fn trouble(&mut self, device: DeviceId) -> Option<&mut Trouble> {
        usize::try_from(device.0).ok().and_then(|n| self.troubles.get_mut(n))
    }

    fn counts(&mut self, device: DeviceId) -> Option<&mut Counts> {
        usize::try_from(device.0).ok().and_then(|n| self.counts.get_mut(n))
    }

    fn governor(&mut self, device: DeviceId, act: impl FnOnce(&mut Governor)) {
        if let Some(governor) = usize::try_from(device.0).ok().and_then(|n| self.governors.get_mut(n)) {
            act(governor);
        }
    }

    fn reserve(
        &mut self,
        now: At,
        source: Picture,
        video: &[VideoRung],
        policy: Policy,
    ) -> Result<(SessionId, Arc<Demand>, DeviceId), NoSeat> {
        let demand = demand(source, video).map_err(|text| NoSeat {
            kind: "bad-ladder",
            text,
            retry_after: None,
            full: false,
        })?;
        let demand = Arc::new(demand);
        let session = SessionId(self.next);
        self.next += 1;
        let software = policy == Policy::Cpu;
        let request = Request { session, demand: demand.clone(), software, stay: Stay::Short };
        match self.placer.place(now, &request) {
            Ok(placement) => Ok((session, demand, placement.device)),
            Err(refusal) => Err(NoSeat {
                kind: kind_of(refusal.cause),
                text: refusal.cause.name().to_owned(),
                retry_after: refusal.may_pass().then_some(RETRY_AFTER),
                full: matches!(refusal.cause, Cause::Full(_)),
            }),
        }
    }
}

impl Session {
    /// The rungs that are encoded.
    fn running(&self) -> Vec<&VideoRung> {
        self.video.iter().filter(|r| !self.suspended.contains(&r.id)).collect()
    }

    /// The rung that costs the most; its viewers have the next one to go to.
    fn highest(&self) -> Option<&VideoRung> {
        self.running().into_iter().max_by_key(|r| (u64::from(r.width) * u64::from(r.height), r.bitrate))
    }

    fn running_rungs(&self) -> Vec<VideoRung> {
        self.running().into_iter().cloned().collect()
    }

    /// Its engine, if it has one, encodes the others only.
    fn tell_suspended(&self) {
        if let Some(mover) = &self.mover {
            mover.suspend(&self.suspended);
        }
    }
}

impl Place {
    /// Before a publisher is let in: reserves what its ladder is expected to take, or says why it may not come.
    pub fn admit(&self, ladder: &Ladder) -> Result<(), Refusal> {
        let mut seated = self.seated();
        // The session before is still there: its seat is this one's.
        if seated.is_some() || ladder.rungs.is_empty() {
            return Ok(());
        }
        let (width, height) = ASSUMED_SOURCE;
        let source = Picture { width, height, frame_rate: USUAL_RATE };
        let expected = expected_rungs(ladder, width, height);
        if expected.is_empty() {
            return Ok(());
        }
        match self.fleet.seat(&self.channel, source, &expected, ladder.policy, true) {
            Ok(given) => {
                *seated = Some(Seated { given, wanted: None });
                Ok(())
            }
            Err(no) => Err(Refusal {
                status: 503,
                kind: no.kind,
                detail: format!("no device takes this channel's ladder: {}", no.text),
                retry_after: no.retry_after,
            }),
        }
    }

    /// The publisher is there: a seat for what its source really takes.
    pub fn take(&self, source: &H264Config, video: Vec<VideoRung>, policy: Policy) -> Admitted {
        let even = |side: u32| side & !1;
        let picture = Picture {
            width: even(source.width),
            height: even(source.height),
            frame_rate: source.frame_rate.unwrap_or(USUAL_RATE),
        };
        let mut seated = self.seated();
        let wanted = Some((picture, video.clone()));
        if let Some(present) = seated.as_ref().filter(|s| s.wanted == wanted) {
            return present.given.admitted.clone();
        }
        self.give_back(&mut seated);
        let given = self.fleet.seat(&self.channel, picture, &video, policy, false).unwrap_or_else(|no| {
            let text = format!("Nothing is encoded, no device takes the ladder: {}.", no.text);
            Given::on_cpu(&[], Some(Message { level: "error", text }))
        });
        let admitted = given.admitted.clone();
        *seated = Some(Seated { given, wanted });
        admitted
    }

    /// Where the session's engine is to be started.
    pub fn seat(&self) -> Seat {
        let session = self.seated().as_ref().and_then(|s| s.given.session);
        let device = session.and_then(|s| self.fleet.state().placer.device_of(s));
        self.fleet.seat_on(device)
    }

    /// The engine that was started in the seat.
    pub fn started(&self, mover: Mover) {
        let Some(session) = self.seated().as_ref().and_then(|s| s.given.session) else { return };
        if let Some(record) = self.fleet.state().sessions.get_mut(&session.0) {
            record.mover = Some(mover);
            // The engine before may have been without some rungs.
            record.tell_suspended();
        }
    }

    /// The session is over.
    pub fn leave(&self) {
        self.give_back(&mut self.seated());
    }

    fn give_back(&self, seated: &mut Option<Seated>) {
        if let Some(session) = seated.take().and_then(|s| s.given.session) {
            self.fleet.release(session);
        }
    }

    fn seated(&self) -> MutexGuard<'_, Option<Seated>> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ladder's rungs out of a source of that size, 16:9.
fn expected_rungs(ladder: &Ladder, width: u32, height: u32) -> Vec<VideoRung> {
    let rungs = ladder.rungs.iter().filter(|r| r.height <= height);
    rungs
        .filter_map(|r| {
            Some(VideoRung {
                id: engine::rendition_id(r.height, r.codec)?,
                width: (r.height.saturating_mul(width) / height) & !1,
                height: r.height & !1,
                frame_rate: None,
                codec: r.codec,
                bitrate: r.bitrate,
                preset: r.preset.clone(),
                tune: r.tune,
            })
        })
        .collect()
}

fn demand(source: Picture, video: &[VideoRung]) -> Result<Demand, String> {
    let rungs = video
        .iter()
        .filter_map(|r| {
            let frame_rate = r.frame_rate.unwrap_or(source.frame_rate);
            let preset = Preset::new(EnginePreset::parse_or_usual(&r.preset).step())?;
            let codec = match r.codec {
                EngineCodec::H264 => Codec::H264,
                EngineCodec::H265 => Codec::H265,
                EngineCodec::Av1 => Codec::Av1,
            };
            Some(Rung { codec, preset, picture: Picture { width: r.width, height: r.height, frame_rate } })
        })
        .collect();
    let ladder = placement::Ladder { source: (SourceCodec::H264, source), rungs };
    ladder.demand().map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// The last path segment of a problem's type.
fn kind_of(cause: Cause) -> &'static str {
    use placement::Dimension;
    use placement::cost::Misfit;
    match cause {
        Cause::Duplicate => "internal",
        Cause::NoDevice => "no-device",
        Cause::Never(Misfit::Encoder(_)) => "no-encoder",
        Cause::Never(_) => "ladder-too-large",
        Cause::Full(Dimension::Decode) => "decode-full",
        Cause::Full(Dimension::Encode | Dimension::EngineFragments) => "encode-full",
        Cause::Full(Dimension::Vram) => "vram-full",
        Cause::Full(Dimension::Sessions) => "encoding-sessions-full",
    }
}

async fn watch(fleet: Weak<Inner>, device: DeviceId, mut ended: mpsc::Receiver<HostEnded>) {
    while let Some(end) = ended.recv().await {
        let Some(inner) = fleet.upgrade() else { return };
        Fleet { inner }.worker_died(device, end);
    }
}

async fn defragment(fleet: Weak<Inner>) {
    let mut tick = tokio::time::interval(DEFRAGMENT_PERIOD);
    loop {
        tick.tick().await;
        let Some(inner) = fleet.upgrade() else { return };
        let fleet = Fleet { inner };
        let mut state = fleet.state();
        let kept = state.rooms_made.back().is_some_and(|at| fleet.now().0 < at.0 + ROOM_KEPT);
        if state.placer.settings().policy == placement::Policy::Consolidate && !kept {
            // One session in a hundred a minute, so that moves never become a load of their own.
            let budget = state.placer.live().div_ceil(100);
            let migrations = state.placer.defragment(fleet.now(), budget);
            fleet.carry_out(&mut state, migrations);
        }
    }
}
