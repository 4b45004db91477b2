//! The parent's side of a session's engine: starts its worker, feeds it, watches it, starts a new one that continues where
//! the old one stopped, and moves the session to another device while the old one still delivers.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use media::{AccessUnit, MediaTime, RenditionId, TrackConfig, TrackKind};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::backend::Family;
use crate::feed::{Feed, Resume};
use crate::host::DeviceHost;
use crate::lag::Lag;
use crate::protocol::{self, Message, Start, TRACK_AUDIO, TRACK_VIDEO, Unit};
use crate::restart::{RestartPolicy, Verdict};
use crate::spec::{LadderSpec, OnDevice};

/// Encoded units on their way to the session, all renditions together: about 2 s of four renditions at 60 fps. When
/// full, the worker is not read from, and its input queue decides what to drop.
const MAX_EVENTS: usize = 512;
/// A first start may have to scan all GStreamer plug-ins.
const START_LIMIT: Duration = Duration::from_secs(15);
/// Beyond the stall time-out, for the first output of a worker: threads, codecs and the replay.
const WARM_UP: Duration = Duration::from_secs(2);
/// Units that must have gone in since the last sign of life before silence counts as a stall: more than any decoder
/// reorders.
const STALL_UNITS: u32 = 20;
/// For a worker to exit once it has closed its socket.
const EXIT_LIMIT: Duration = Duration::from_secs(1);
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// For a key unit to move at. Then the session moves as if its worker had died: the new one decodes the GOP again.
const SWITCH_LIMIT: Duration = Duration::from_secs(5);
/// Deaths of a shared worker that a session was there at, within `SHARED_DEATHS_WINDOW`, before it gets one of its own: it may
/// be what kills them.
const MAX_SHARED_DEATHS: usize = 2;
const SHARED_DEATHS_WINDOW: Duration = Duration::from_secs(60);
/// A worker's log: lines a second, and bytes of a line.
const MAX_LOG_LINES: u32 = 10;
const MAX_LOG_LINE: u64 = 512;

#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The program to start as `PROGRAM worker`; the server passes its own executable.
    pub program: PathBuf,
    /// No output for so long while input flows: the worker is killed and started anew.
    pub stall_timeout: Duration,
}

/// What goes to the engine, in decode order across audio and video.
#[derive(Clone, Debug)]
pub struct EngineInput {
    pub unit: AccessUnit,
    /// Every rung starts an IDR at this unit's presentation time.
    pub force_key: bool,
}

#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// An encoded unit; per rendition in decode order, never repeated, also across a worker's restart.
    Unit { rendition: RenditionId, unit: AccessUnit },
    /// The worker died or stalled and was started anew; playback goes on behind it.
    WorkerRestarted { reason: String, restarts: u32 },
    /// The worker crashed too often, or said that this host cannot make the ladder; nothing more comes from this engine.
    Failed { reason: String },
}

/// One session's engine: feeds a worker process, restarts it when it dies or stalls, replays the current GOP to the new
/// one so that no frame is missing. Dropping it ends the worker.
pub struct Engine {
    pub events: mpsc::Receiver<EngineEvent>,
    /// The rungs that [`Mover::suspend`] asked for last; none at first.
    pub suspensions: watch::Receiver<Vec<RenditionId>>,
    shared: Arc<Shared>,
    mover: Mover,
    /// Dropped with the engine: the supervising task kills the worker and ends.
    _alive: oneshot::Sender<()>,
}

/// Where a session's worker runs.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    /// The GPU; `None`: the CPU.
    pub device: Option<OnDevice>,
    /// The device's worker, shared with the device's other sessions; `None`: a worker of the session's own.
    pub host: Option<DeviceHost>,
}

/// Why a session did not move; it stays where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveFault {
    #[error("the session is moving already")]
    Moving,
    #[error("the session has ended")]
    Ended,
    #[error("the worker there does not start: {0}")]
    Start(String),
}

/// Moves one session, suspends its rungs and tells how it does; outlives its engine without keeping it.
#[derive(Clone, Debug)]
pub struct Mover {
    orders: mpsc::Sender<Move>,
    /// The video rungs, by track.
    rungs: Arc<[RenditionId]>,
    suspensions: watch::Sender<Vec<RenditionId>>,
    lag: Arc<Mutex<Lag>>,
}

impl Mover {
    /// The new worker is started first, and takes over at a key unit; what the old one was sent still comes out of it, so
    /// that nothing is missing or twice. Where no key unit comes in time, or the old worker dies meanwhile, the new one
    /// begins with a replay of the GOP. The answer comes when the session has moved.
    pub fn move_to(&self, to: Seat) -> oneshot::Receiver<Result<(), MoveFault>> {
        let (done, answer) = oneshot::channel();
        if let Err(e) = self.orders.try_send(Move { to, done }) {
            let (order, fault) = match e {
                mpsc::error::TrySendError::Full(order) => (order, MoveFault::Moving),
                mpsc::error::TrySendError::Closed(order) => (order, MoveFault::Ended),
            };
            let _ = order.done.send(Err(fault));
        }
        answer
    }

    /// Asks the session to suspend exactly these rungs where its next segment begins (see [`Engine::suspend`]). What is no video
    /// rung of the session is passed over; to suspend all of them is refused, so that viewers have one to play.
    pub fn suspend(&self, rungs: &[RenditionId]) {
        let wanted: Vec<RenditionId> = self.rungs.iter().filter(|id| rungs.contains(id)).cloned().collect();
        if !wanted.is_empty() && wanted.len() == self.rungs.len() {
            warn!("one rung of a session stays: not all of them are suspended");
            return;
        }
        self.suspensions.send_if_modified(|present| {
            let changed = *present != wanted;
            *present = wanted;
            changed
        });
    }

    /// How long the slowest running rung took from its unit's push to its encoded unit, the 95th percentile of about the last
    /// 5 s; None: nothing came out lately. What waited for a new worker does not count.
    pub fn lag(&self) -> Option<Duration> {
        lag_of(&self.lag).slowest(Instant::now())
    }
}

#[derive(Debug)]
struct Move {
    to: Seat,
    done: oneshot::Sender<Result<(), MoveFault>>,
}

struct Shared {
    feed: Mutex<Feed>,
    /// There is something to send, or the input has ended.
    wake: Notify,
    finishing: AtomicBool,
    /// Another worker is ready: the present one is to stop ahead of the next key unit.
    switching: AtomicBool,
    /// Flicks; audio from here on comes from the worker that the session moves to. `i64::MAX`: it does not move.
    audio_until: AtomicI64,
    /// The present worker was sent its last unit, because the session moves.
    stopped: AtomicBool,
    /// 0: none.
    pid: AtomicU32,
    /// Units pushed since the worker's last sign of life.
    unanswered: AtomicU32,
    lag: Arc<Mutex<Lag>>,
}

impl Engine {
    /// Must be called within a tokio runtime. A program that cannot be started shows as `Failed` after its retries.
    pub fn start(spec: LadderSpec, options: EngineOptions) -> std::io::Result<Self> {
        Self::start_on(spec, options, None)
    }

    /// As [`Engine::start`], with the session's video on a GPU; `None`: on the CPU.
    pub fn start_on(spec: LadderSpec, options: EngineOptions, device: Option<OnDevice>) -> std::io::Result<Self> {
        Self::start_at(spec, options, Seat { device, host: None })
    }

    /// As [`Engine::start`], in the device's own worker where the seat names one.
    pub fn start_at(spec: LadderSpec, options: EngineOptions, seat: Seat) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(std::io::Error::other)?;
        let (events_in, events) = mpsc::channel(MAX_EVENTS);
        let (moves, orders) = mpsc::channel(1);
        let (alive, gone) = oneshot::channel();
        let rungs: Arc<[RenditionId]> = spec.video.iter().map(|rung| rung.id.clone()).collect();
        let (suspend, suspensions) = watch::channel(vec![]);
        let lag = Arc::new(Mutex::new(Lag::new(rungs.len(), Instant::now())));
        let shared = Arc::new(Shared {
            feed: Mutex::new(Feed::new(spec.video.len(), spec.audio.is_some())),
            wake: Notify::new(),
            finishing: false.into(),
            switching: false.into(),
            audio_until: i64::MAX.into(),
            stopped: false.into(),
            pid: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            lag: lag.clone(),
        });
        let mover = Mover { orders: moves, rungs, suspensions: suspend, lag };
        let supervisor =
            Supervisor { shared: shared.clone(), spec, options, seat, events: events_in, shared_deaths: vec![] };
        runtime.spawn(supervisor.run(gone, orders));
        Ok(Self { events, suspensions, shared, mover, _alive: alive })
    }

    /// For whoever decides where sessions run.
    pub fn mover(&self) -> Mover {
        self.mover.clone()
    }

    /// Never blocks: when the worker is behind by more than its queue, drops to the next key frame and counts it.
    pub fn push(&self, input: EngineInput) {
        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        let picture = (input.unit.kind() == TrackKind::Video).then_some(input.unit.pts);
        let mut feed = self.shared.feed();
        let picture = picture.filter(|_| !feed.is_catching_up());
        let to_send = feed.push(input);
        drop(feed);
        if let Some(pts) = picture {
            lag_of(&self.shared.lag).pushed(pts, Instant::now());
        }
        if to_send {
            self.shared.wake.notify_one();
        }
    }

    /// Encodes of exactly these rungs no picture presented at `from`, which is not yet pushed, or later; all others run. No worker
    /// is restarted, and it holds over restarts and moves. A rung that is not named any more comes back with the next picture that
    /// is pushed and is forced to be a key.
    pub fn suspend(&self, rungs: &[RenditionId], from: MediaTime) {
        let named: Vec<bool> = self.mover.rungs.iter().map(|id| rungs.contains(id)).collect();
        self.shared.feed().suspend(&named, from);
        for (rung, _) in named.iter().enumerate().filter(|(_, named)| **named) {
            lag_of(&self.shared.lag).forget_rung(rung);
        }
    }

    /// No more input comes: what is under way still comes out, then `events` ends.
    pub fn finish(&self) {
        self.shared.finishing.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// Input units dropped because the worker could not keep up.
    pub fn dropped(&self) -> u64 {
        self.shared.feed().dropped()
    }

    /// See [`Mover::lag`].
    pub fn lag(&self) -> Option<Duration> {
        self.mover.lag()
    }

    /// The worker's process id while one runs.
    pub fn worker_pid(&self) -> Option<u32> {
        match self.shared.pid.load(Ordering::Relaxed) {
            0 => None,
            pid => Some(pid),
        }
    }
}

impl Shared {
    /// Never held across an await; every critical section is a few moves.
    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next worker gets again; what was on its way through the old one is no measure of it.
    fn restart(&self) -> Resume {
        lag_of(&self.lag).forget_pushed();
        self.feed().restart()
    }

    /// Another worker takes over, or the session goes on elsewhere.
    fn switched(&self) {
        self.switching.store(false, Ordering::Relaxed);
        self.stopped.store(false, Ordering::Relaxed);
        self.audio_until.store(i64::MAX, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
        lag_of(&self.lag).forget_pushed();
    }
}

/// Never held across an await.
fn lag_of(lag: &Mutex<Lag>) -> MutexGuard<'_, Lag> {
    lag.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Supervisor {
    shared: Arc<Shared>,
    spec: LadderSpec,
    options: EngineOptions,
    seat: Seat,
    events: mpsc::Sender<EngineEvent>,
    /// When shared workers died that this session was in.
    shared_deaths: Vec<Instant>,
}

/// A connection to a worker.
struct Line {
    socket: UnixStream,
    pid: u32,
    /// `None`: the device's, which lives on without this session.
    child: Option<(Child, Option<tokio::task::JoinHandle<()>>)>,
    /// It has been told what to make and is ready, and this is what it said beyond that.
    ready: Option<BytesMut>,
}

/// How a worker's life ended.
enum Ended {
    /// All input was asked for and came out.
    Finished,
    /// The engine was dropped, or its events are no longer read.
    Unwanted,
    /// No worker here can make the ladder.
    Refused(String),
    /// All that was sent came out: the session goes on in the worker that waits.
    Moved(Box<Line>, Move),
    Died {
        reason: String,
        first_output: Option<Instant>,
        /// An order that came meanwhile: its place is where the session goes on.
        order: Option<Move>,
    },
}

impl Supervisor {
    async fn run(mut self, mut gone: oneshot::Receiver<()>, mut orders: mpsc::Receiver<Move>) {
        if self.spec.is_empty() {
            // Nothing to make: there is no worker, and no events until the engine is dropped.
            let _ = gone.await;
            return;
        }
        let mut policy = RestartPolicy::default();
        let mut restarts = 0u32;
        let mut resume = self.shared.feed().resume();
        let mut waiting: Option<Line> = None;
        loop {
            let (reason, first_output) = match self.one_life(waiting.take(), resume, &mut gone, &mut orders).await {
                Ended::Finished | Ended::Unwanted => return,
                Ended::Refused(reason) => {
                    warn!(reason, "nothing here makes the ladder");
                    let _ = self.events.send(EngineEvent::Failed { reason }).await;
                    return;
                }
                Ended::Moved(line, order) => {
                    self.shared.switched();
                    self.shared.feed().switch();
                    resume = self.shared.feed().resume();
                    waiting = Some(*line);
                    self.seat = order.to;
                    let _ = order.done.send(Ok(()));
                    continue;
                }
                Ended::Died { reason, first_output, order: None } => (reason, first_output),
                Ended::Died { reason, order: Some(order), .. } => {
                    info!(reason, "the session moves without its old worker's last units");
                    self.shared.switched();
                    resume = self.shared.restart();
                    self.seat = order.to;
                    let _ = order.done.send(Ok(()));
                    continue;
                }
            };
            let wait = match policy.crashed(Instant::now(), first_output) {
                Verdict::RestartAfter(wait) => wait,
                Verdict::GiveUp => {
                    warn!(reason, restarts, "worker failed too often");
                    let reason = format!("the worker failed too often, last: {reason}");
                    let _ = self.events.send(EngineEvent::Failed { reason }).await;
                    return;
                }
            };
            restarts = restarts.saturating_add(1);
            warn!(reason, restarts, wait_ms = wait.as_millis() as u64, "worker restarts");
            // Taken now, so that what is pushed during the wait is replayed too.
            resume = self.shared.restart();
            tokio::select! {
                sent = self.events.send(EngineEvent::WorkerRestarted { reason, restarts }) => if sent.is_err() { return },
                _ = &mut gone => return,
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Elsewhere it need not wait.
                Some(order) = orders.recv() => {
                    self.seat = order.to;
                    let _ = order.done.send(Ok(()));
                }
                _ = &mut gone => return,
            }
        }
    }

    /// A worker at `seat`, not yet told anything.
    async fn connect(&self, seat: &Seat) -> std::io::Result<Line> {
        if let Some(host) = seat.host.as_ref().filter(|_| self.shared_deaths.len() < MAX_SHARED_DEATHS) {
            let (socket, pid) = host.connect().await?;
            return Ok(Line { socket, pid, child: None, ready: None });
        }
        let (mut child, socket) = spawn(&self.options.program, &["worker".to_owned()], seat.device.as_ref()).await?;
        let pid = child.id().unwrap_or(0);
        info!(worker_pid = pid, "worker started");
        let log = child.stderr.take().map(|stderr| tokio::spawn(forward_log(stderr, pid)));
        Ok(Line { socket, pid, child: Some((child, log)), ready: None })
    }

    /// Starts a worker for a session that will come at a key unit.
    async fn prepare(&self, seat: Seat) -> Result<Line, String> {
        let started = async {
            let mut line = self.connect(&seat).await?;
            let resume = Resume { delivered: vec![None; self.spec.video.len()], ..self.shared.feed().resume() };
            line.socket.write_all(&self.start_message(resume, &seat)?).await?;
            let mut input = BytesMut::with_capacity(64 << 10);
            loop {
                match protocol::decode(&mut input).map_err(std::io::Error::other)? {
                    Some(Message::Ready) => break,
                    Some(Message::Fault(text) | Message::Refused(text)) => {
                        return Err(std::io::Error::other(printable(&text)));
                    }
                    Some(_) => return Err(std::io::Error::other("it spoke nonsense")),
                    None if line.socket.read_buf(&mut input).await? == 0 => {
                        return Err(std::io::Error::other("it died"));
                    }
                    None => {}
                }
            }
            line.ready = Some(input);
            Ok(line)
        };
        match tokio::time::timeout(START_LIMIT, started).await {
            Ok(result) => result.map_err(|e: std::io::Error| e.to_string()),
            Err(_) => Err(format!("it was not ready after {} s", START_LIMIT.as_secs())),
        }
    }

    fn start_message(&self, resume: Resume, seat: &Seat) -> std::io::Result<BytesMut> {
        let mut buffer = BytesMut::new();
        let start = Start {
            spec: self.spec.clone(),
            audio_origin: resume.audio_origin.map(|t| t.0),
            resume: resume.delivered.iter().map(|t| t.map(|t| t.0)).collect(),
            device: seat.device.clone(),
        };
        protocol::encode(&Message::Start(start), &mut buffer).map_err(std::io::Error::other)?;
        Ok(buffer)
    }

    /// Feeds one worker, `line` or a new one, until it or the session ends or the session has moved.
    async fn one_life(
        &mut self,
        line: Option<Line>,
        resume: Resume,
        gone: &mut oneshot::Receiver<()>,
        orders: &mut mpsc::Receiver<Move>,
    ) -> Ended {
        let connected = match line {
            Some(line) => Ok(line),
            None => self.connect(&self.seat).await,
        };
        let Line { socket, pid, mut child, ready } = match connected {
            Ok(line) => line,
            Err(e) => {
                let reason = format!("{} cannot be started: {e}", self.options.program.display());
                return Ended::Died { reason, first_output: None, order: None };
            }
        };
        self.shared.pid.store(pid, Ordering::Relaxed);
        let (reader, writer) = socket.into_split();
        let life = Mutex::new(Life::new(ready.is_some()));
        let mut stalled = false;
        let mut moving: Option<Move> = None;
        let mut prepared: Option<Line> = None;
        let ended = {
            let start = if ready.is_some() { None } else { Some(resume) };
            let read = self.read(reader, ready.unwrap_or_default(), &life);
            let write = self.write(writer, start);
            let watch = self.watch(&life);
            let preparing = futures_or_pending(None);
            tokio::pin!(read, write, watch, preparing);
            // Reading goes on while writing has come to its end, so the first of them does not end the rest.
            let mut written = false;
            let mut at_last = None;
            loop {
                tokio::select! {
                    _ = &mut *gone => break Ended::Unwanted,
                    end = &mut read => break end,
                    result = &mut write, if !written => {
                        // A closed socket also ends the reader, which knows more: the worker's own fault message.
                        written = true;
                        if let Err(e) = result { debug!(error = %e, "worker takes no more input"); }
                    }
                    reason = &mut watch => {
                        stalled = true;
                        break Ended::Died { reason, first_output: life_of(&life).first_output, order: None };
                    }
                    Some(order) = orders.recv(), if moving.is_none() => {
                        preparing.set(futures_or_pending(Some(self.prepare(order.to.clone()))));
                        moving = Some(order);
                    }
                    result = &mut preparing => {
                        preparing.set(futures_or_pending(None));
                        match result {
                            Ok(line) => {
                                prepared = Some(line);
                                at_last = Some(tokio::time::Instant::now() + SWITCH_LIMIT);
                                self.shared.switching.store(true, Ordering::Relaxed);
                                self.shared.wake.notify_one();
                            }
                            Err(reason) => {
                                if let Some(order) = moving.take() {
                                    let _ = order.done.send(Err(MoveFault::Start(reason)));
                                }
                            }
                        }
                    }
                    () = sleep_until(at_last), if at_last.is_some() && !written => {
                        let reason = "no key unit came to move at".to_owned();
                        break Ended::Died { reason, first_output: life_of(&life).first_output, order: None };
                    }
                }
            }
        };
        self.shared.pid.store(0, Ordering::Relaxed);
        let died = |reason: String| Ended::Died { reason, first_output: life_of(&life).first_output, order: None };
        let ended = match (ended, &mut child) {
            (Ended::Finished, Some((child, _))) => match tokio::time::timeout(EXIT_LIMIT, child.wait()).await {
                Ok(Ok(status)) if status.success() => Ended::Finished,
                // It died with units inside: the next one delivers them.
                Ok(Ok(status)) => died(format!("it died ({status})")),
                _ => Ended::Finished,
            },
            (Ended::Died { reason, .. }, Some((child, _))) => match child.try_wait() {
                Ok(Some(status)) => died(format!("{reason} ({status})")),
                _ => died(reason),
            },
            (ended, _) => ended,
        };
        match child {
            // SIGKILL also ends a stopped process; the wait after it is short and reaps.
            Some((mut child, log)) => {
                if let Err(e) = child.kill().await {
                    debug!(error = %e, "worker was gone already");
                }
                if let Some(log) = log {
                    log.abort();
                }
            }
            None => self.left_shared(pid, &ended, stalled).await,
        }
        match (ended, prepared, moving) {
            (Ended::Finished, Some(line), Some(order)) => Ended::Moved(Box::new(line), order),
            (Ended::Died { reason, first_output, .. }, _, order) => Ended::Died { reason, first_output, order },
            (ended, ..) => ended,
        }
    }

    /// After a life in a device's worker. A session that stood still without having brought anything takes the worker
    /// down: what it waits for may be the device. One that was there when workers died is suspected of it.
    async fn left_shared(&mut self, pid: u32, ended: &Ended, stalled: bool) {
        let Ended::Died { first_output, .. } = ended else { return };
        let Some(host) = self.seat.host.clone() else { return };
        if stalled && first_output.is_none() {
            host.kill(pid).await;
        }
        if host.pid() != Some(pid) {
            let now = Instant::now();
            self.shared_deaths.retain(|at| now.saturating_duration_since(*at) < SHARED_DEATHS_WINDOW);
            self.shared_deaths.push(now);
            if self.shared_deaths.len() == MAX_SHARED_DEATHS {
                warn!("the session gets a worker of its own");
            }
        }
    }

    /// `start`: where the worker begins, unless it has been told.
    async fn write(&self, mut writer: OwnedWriteHalf, start: Option<Resume>) -> Result<(), std::io::Error> {
        let mut buffer = BytesMut::new();
        if let Some(resume) = start {
            writer.write_all(&self.start_message(resume, &self.seat)?).await?;
        }
        let mut configs: [Option<Arc<TrackConfig>>; 2] = [None, None];
        let mut suspended = Vec::new();
        loop {
            let now_suspended = self.shared.feed().suspended();
            if now_suspended != suspended {
                buffer.clear();
                let message = Message::Suspend(now_suspended.clone());
                protocol::encode(&message, &mut buffer).map_err(std::io::Error::other)?;
                suspended = now_suspended;
                writer.write_all(&buffer).await?;
            }
            if self.shared.switching.load(Ordering::Relaxed) && self.shared.feed().may_switch() {
                let until = self.shared.feed().audio_end().map_or(i64::MAX, |t| t.0);
                self.shared.audio_until.store(until, Ordering::Relaxed);
                buffer.clear();
                protocol::encode(&Message::Stop, &mut buffer).map_err(std::io::Error::other)?;
                self.shared.stopped.store(true, Ordering::Relaxed);
                return writer.write_all(&buffer).await;
            }
            let next = self.shared.feed().next();
            let Some(EngineInput { unit, force_key }) = next else {
                if self.shared.finishing.load(Ordering::Relaxed) && self.shared.feed().drained() {
                    buffer.clear();
                    protocol::encode(&Message::Stop, &mut buffer).map_err(std::io::Error::other)?;
                    return writer.write_all(&buffer).await;
                }
                self.shared.wake.notified().await;
                continue;
            };
            buffer.clear();
            let track = match unit.kind() {
                TrackKind::Video => TRACK_VIDEO,
                TrackKind::Audio => TRACK_AUDIO,
            };
            let sent = configs.get_mut(usize::from(track));
            let unit_message = Message::Unit(Unit {
                track,
                key: unit.key,
                force_key,
                pts: unit.pts,
                dts: unit.dts,
                duration: unit.duration,
                data: unit.data,
            });
            let mut encoded = Ok(());
            if let Some(sent) = sent
                && sent.as_ref() != Some(&unit.config)
            {
                *sent = Some(unit.config.clone());
                encoded = protocol::encode(&Message::Config { track, config: unit.config }, &mut buffer);
            }
            if let Err(e) = encoded.and_then(|()| protocol::encode(&unit_message, &mut buffer)) {
                // Over a bound that the ingest's own bounds should have kept: skip the unit, not the session.
                warn!(error = %e, "unit not sent to the worker");
            }
            writer.write_all(&buffer).await?;
        }
    }

    /// `input`: what the worker said already.
    async fn read(&self, mut reader: OwnedReadHalf, mut input: BytesMut, life: &Mutex<Life>) -> Ended {
        let died = |reason: String| Ended::Died { reason, first_output: life_of(life).first_output, order: None };
        input.reserve(64 << 10);
        let mut configs: Vec<Option<Arc<TrackConfig>>> = vec![None; self.spec.video.len() + 1];
        let mut fault = None;
        loop {
            let message = match protocol::decode(&mut input) {
                Ok(Some(message)) => message,
                Ok(None) => match reader.read_buf(&mut input).await {
                    Ok(n) if n > 0 => continue,
                    _ if self.shared.stopped.load(Ordering::Relaxed) && fault.is_none() => return Ended::Finished,
                    _ if self.shared.finishing.load(Ordering::Relaxed) && fault.is_none() && life_of(life).ready => {
                        return if self.shared.feed().drained() { Ended::Finished } else { died("it died".into()) };
                    }
                    _ => return died(fault.unwrap_or_else(|| "it died".into())),
                },
                Err(e) => return died(format!("it spoke nonsense: {e}")),
            };
            match message {
                Message::Ready => life_of(life).alive(true),
                Message::Config { track, config } => {
                    if let Some(slot) = configs.get_mut(usize::from(track)) {
                        *slot = Some(config);
                    }
                }
                Message::Unit(unit) => {
                    life_of(life).delivered();
                    self.shared.unanswered.store(0, Ordering::Relaxed);
                    let video = usize::from(unit.track) < self.spec.video.len();
                    if !video && unit.pts >= MediaTime(self.shared.audio_until.load(Ordering::Relaxed)) {
                        continue;
                    }
                    if !self.shared.feed().let_out(unit.track, unit.pts, unit.key) {
                        continue;
                    }
                    if video {
                        lag_of(&self.shared.lag).came_out(usize::from(unit.track), unit.pts, Instant::now());
                    }
                    let config = configs.get(usize::from(unit.track)).cloned().flatten();
                    let (Some(config), Some(rendition)) = (config, self.spec.rendition(unit.track)) else {
                        return died("it spoke nonsense: a unit without a configuration".into());
                    };
                    let unit = AccessUnit {
                        pts: unit.pts,
                        dts: unit.dts,
                        duration: unit.duration,
                        key: unit.key,
                        config,
                        data: unit.data,
                    };
                    let event = EngineEvent::Unit { rendition: rendition.clone(), unit };
                    if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                        // Not the worker's silence: it is us who do not listen.
                        life_of(life).listening = false;
                        let sent = self.events.send(event).await;
                        life_of(life).listening = true;
                        life_of(life).alive(true);
                        if sent.is_err() {
                            return Ended::Unwanted;
                        }
                    }
                }
                Message::Stats(stats) => {
                    let mut life = life_of(life);
                    if stats.consumed > life.consumed {
                        life.consumed = stats.consumed;
                        life.alive(false);
                        self.shared.unanswered.store(0, Ordering::Relaxed);
                    }
                }
                Message::Fault(text) => fault = Some(printable(&text)),
                Message::Refused(text) => return Ended::Refused(printable(&text)),
                Message::Start(_) | Message::Suspend(_) | Message::Stop => {
                    return died("it spoke nonsense: a parent's message".into());
                }
            }
        }
    }

    /// Ends with the reason when the worker stands still.
    async fn watch(&self, life: &Mutex<Life>) -> String {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        loop {
            ticks.tick().await;
            let life = life_of(life);
            let silent = life.last_sign.elapsed();
            if !life.ready {
                if silent > START_LIMIT {
                    return format!("it was not ready after {} s", START_LIMIT.as_secs());
                }
                continue;
            }
            let limit = self.options.stall_timeout + if life.first_output.is_none() { WARM_UP } else { Duration::ZERO };
            if life.listening && silent > limit && self.shared.unanswered.load(Ordering::Relaxed) > STALL_UNITS {
                return format!("it stood still for {} ms", silent.as_millis());
            }
        }
    }
}

/// Signs of life of one worker.
struct Life {
    ready: bool,
    first_output: Option<Instant>,
    last_sign: Instant,
    consumed: u64,
    listening: bool,
}

impl Life {
    fn new(ready: bool) -> Self {
        Self { ready, first_output: None, last_sign: Instant::now(), consumed: 0, listening: true }
    }
    fn alive(&mut self, ready: bool) {
        self.ready |= ready;
        self.last_sign = Instant::now();
    }
    fn delivered(&mut self) {
        self.alive(true);
        self.first_output.get_or_insert(self.last_sign);
    }
}

fn life_of(life: &Mutex<Life>) -> MutexGuard<'_, Life> {
    life.lock().unwrap_or_else(PoisonError::into_inner)
}

type Spawned = std::io::Result<(Child, UnixStream)>;
type SpawnRequest = (Command, tokio::runtime::Handle, std::os::unix::net::UnixStream, oneshot::Sender<Spawned>);

/// The future, or one that never ends.
async fn futures_or_pending<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Starts `PROGRAM ARGUMENTS…` with one end of a socket pair as its standard input. The parent-death signal that the worker
/// asks for is tied to the thread that started it, so one thread that lives as long as the process starts them all.
pub(crate) async fn spawn(program: &Path, arguments: &[String], device: Option<&OnDevice>) -> Spawned {
    static SPAWNER: OnceLock<std_mpsc::Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests_in, requests) = std_mpsc::channel::<SpawnRequest>();
        std::thread::spawn(move || {
            for (mut command, runtime, ours, answer) in requests {
                let spawned = {
                    let _inside = runtime.enter();
                    command.spawn().and_then(|child| Ok((child, UnixStream::from_std(ours)?)))
                };
                // The command holds the worker's end of the socket: it must close for us to see the worker's.
                drop(command);
                let _ = answer.send(spawned);
            }
        });
        requests_in
    });
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // A worker parses what strangers sent; it must not hold what opens the API.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().ends_with("_TOKEN")) {
        command.env_remove(name);
    }
    if let Some(device) = device {
        command.envs(environment(device)).env_remove("GST_USE_NV_STATELESS_CODEC");
    }
    let (answer_in, answer) = oneshot::channel();
    spawner
        .send((command, tokio::runtime::Handle::current(), ours, answer_in))
        .map_err(|_| std::io::Error::other("the thread that starts workers is gone"))?;
    answer.await.map_err(std::io::Error::other)?
}

/// What a worker on a GPU finds in its environment. It sees that GPU alone: the elements' names are plain there, one CUDA
/// context serves it, and GStreamer's start does not touch the others. GStreamer keeps a list of the elements that it
/// found and never asks the driver again; the list is therefore the device's own.
fn environment(device: &OnDevice) -> Vec<(&'static str, std::ffi::OsString)> {
    if device.family != Family::Nvidia {
        return Vec::new();
    }
    let name: String = device.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    let registry = crate::probe::cache_folder().join("fishladder").join(format!("registry-{name}.bin"));
    vec![("CUDA_VISIBLE_DEVICES", device.id.clone().into()), ("GST_REGISTRY", registry.into())]
}

/// A worker's standard error as our log: bounded lines, bounded rate.
pub(crate) async fn forward_log(stderr: ChildStderr, pid: u32) {
    let mut lines = BufReader::with_capacity(4 << 10, stderr);
    let (mut second, mut in_second, mut suppressed) = (Instant::now(), 0u32, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(MAX_LOG_LINE).read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        if second.elapsed() >= Duration::from_secs(1) {
            if suppressed > 0 {
                warn!(worker_pid = pid, suppressed, "worker log lines suppressed");
            }
            (second, in_second, suppressed) = (Instant::now(), 0, 0);
        }
        if in_second < MAX_LOG_LINES {
            in_second += 1;
            info!(worker_pid = pid, "worker: {}", printable(String::from_utf8_lossy(&line).trim_end()));
        } else {
            suppressed += 1;
        }
    }
}

/// Text of a process that decodes outside data: no control characters into logs and pages.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LOG_LINE as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Policy;

    #[test]
    fn a_worker_on_a_gpu_sees_it_alone_and_keeps_its_own_list_of_elements() {
        let on = |family, id: &str| OnDevice { family, id: id.into(), policy: Policy::GpuOnly };
        let got = environment(&on(Family::Nvidia, "GPU-8f6e/../x"));
        let value = |name| got.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string_lossy().into_owned());
        assert_eq!(value("CUDA_VISIBLE_DEVICES").as_deref(), Some("GPU-8f6e/../x"));
        assert!(value("GST_REGISTRY").is_some_and(|path| path.ends_with("/fishladder/registry-GPU-8f6ex.bin")));
        assert!(environment(&on(Family::Va, "/dev/dri/renderD128")).is_empty());
    }
}
