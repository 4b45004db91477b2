//! The task of one channel: owns its core, its source and its engine, and runs until the channel is removed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use engine::{Engine, EngineEvent, EngineOptions, LadderSpec, Seat};
use ingest::{IngestControl, IngestHandle, IngestStats};
use media::{ChannelName, EndReason, IngestEvent, RenditionId, WallTime};
use packager::HlsSettings;
use tokio::sync::{mpsc, oneshot, watch};

use super::core::{Core, Effect};
use super::threads::MediaThreads;
use super::{ChannelState, ChannelStatus, Message, RenditionSet, SourceStatus};
use crate::config::Ladder;
use crate::fleet::Place;

/// How often the status is refreshed while nothing else happens.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// How long to wait before an RTP source that failed to listen is tried again.
const RELISTEN_DELAY: Duration = Duration::from_secs(2);

/// Commands waiting for a channel: operators and publishers send one at a time; above it they get 503.
pub const COMMAND_QUEUE: usize = 16;

#[derive(Clone)]
pub struct TaskOptions {
    pub name: ChannelName,
    pub settings: HlsSettings,
    pub engine: EngineOptions,
    pub rtp_idle_timeout: Duration,
    pub first_msn: u64,
    /// Where its ladder runs.
    pub place: Place,
}

/// Where a channel's media comes from, as the task needs it.
#[derive(Clone, Debug)]
pub enum Source {
    Rtp { sdp: String },
    Rtsp { options: ingest::rtsp::PullOptions },
    Whip,
}

pub type Reply<T> = oneshot::Sender<T>;

pub enum Command {
    /// Ends the present session and takes this source from now on.
    Configure { source: Source, ladder: Ladder, ladder_name: String, reply: Reply<Result<(), String>> },
    /// A WHIP publisher was accepted; one that is still there (silent, the supervisor made sure) gives way.
    Publish { ingest: IngestHandle, detail: String, reply: Reply<()> },
    /// ENDLIST, then the task ends.
    End(EndReason),
}

/// What the supervisor keeps of the task.
pub struct Running {
    pub commands: mpsc::Sender<Command>,
    pub status: watch::Receiver<ChannelStatus>,
    pub renditions: watch::Receiver<Arc<RenditionSet>>,
    pub task: tokio::task::JoinHandle<()>,
}

/// Starts the channel's task on one of the threads for it.
pub fn run(
    threads: &MediaThreads,
    options: TaskOptions,
    ladder: Ladder,
    ladder_name: String,
) -> std::io::Result<Running> {
    let place = options.place.clone();
    let admit = Box::new(move |source: &_, video, policy| place.take(source, video, policy));
    let (core, renditions) = Core::new(options.settings, ladder, options.first_msn, admit);
    let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
    let task = ChannelTask {
        core,
        ladder_name,
        source: Source::Whip,
        session: None,
        engine: None,
        state: ChannelState::Waiting,
        since: SystemTime::now(),
        end_reason: None,
        sessions: 0,
        relisten_at: None,
        source_error: None,
        options,
    };
    let (status_out, status) = watch::channel(task.status());
    let span = tracing::info_span!("channel", channel = %task.options.name);
    let task = threads.spawn(tracing::Instrument::instrument(task.run(inbox, status_out), span))?;
    Ok(Running { commands, status, renditions, task })
}

struct ChannelTask {
    options: TaskOptions,
    core: Core,
    ladder_name: String,
    source: Source,
    session: Option<Session>,
    engine: Option<Engine>,
    state: ChannelState,
    since: SystemTime,
    end_reason: Option<EndReason>,
    sessions: u64,
    /// When to listen again after the RTP socket could not be bound.
    relisten_at: Option<Instant>,
    source_error: Option<String>,
}

/// An ingest that is running, its media flowing or awaited.
struct Session {
    events: mpsc::Receiver<IngestEvent>,
    control: IngestControl,
    stats: Arc<IngestStats>,
    detail: String,
    /// Its first unit has come: it counts as a publisher's stay.
    counted: bool,
}

/// What woke the task.
enum Wake {
    Command(Option<Command>),
    Ingest(Option<IngestEvent>),
    Engine(Option<EngineEvent>),
    Suspensions(Vec<RenditionId>),
    Tick,
}

impl ChannelTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, status: watch::Sender<ChannelStatus>) {
        let mut tick = tokio::time::interval(STATUS_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake = tokio::select! {
                biased;
                command = inbox.recv() => Wake::Command(command),
                wake = next_engine(&mut self.engine) => wake,
                event = next_ingest(&mut self.session) => Wake::Ingest(event),
                _ = tick.tick() => Wake::Tick,
            };
            match wake {
                Wake::Command(None | Some(Command::End(_))) => {
                    let reason = match wake {
                        Wake::Command(Some(Command::End(reason))) => reason,
                        _ => EndReason::Removed,
                    };
                    self.end_session(reason);
                    self.core.end_channel();
                    self.carry_out();
                    status.send_replace(self.status());
                    tracing::info!(reason = reason.as_str(), "channel ended");
                    return;
                }
                Wake::Command(Some(Command::Configure { source, ladder, ladder_name, reply })) => {
                    self.end_session(EndReason::Removed);
                    self.core.set_ladder(ladder);
                    self.ladder_name = ladder_name;
                    self.source = source;
                    let outcome = self.open_source().await;
                    // The asker may have gone; the channel is configured all the same.
                    let _ = reply.send(outcome);
                }
                Wake::Command(Some(Command::Publish { ingest, detail, reply })) => {
                    self.end_session(EndReason::Replaced);
                    self.begin_session(ingest, detail);
                    let _ = reply.send(());
                }
                Wake::Ingest(Some(IngestEvent::Ended(reason))) => self.on_source_ended(reason).await,
                Wake::Ingest(None) => self.on_source_ended(EndReason::Internal).await,
                Wake::Ingest(Some(event)) => {
                    self.count_session();
                    self.core.on_ingest(event);
                }
                Wake::Engine(Some(event)) => self.core.on_engine(event),
                Wake::Engine(None) => self.engine = None,
                Wake::Suspensions(rungs) => self.core.order_suspension(rungs),
                Wake::Tick => {
                    if self.relisten_at.is_some_and(|at| Instant::now() >= at) {
                        self.relisten_at = None;
                        let _ = self.open_source().await;
                    }
                    status.send_replace(self.status());
                }
            }
            self.carry_out();
            if self.update_state() {
                status.send_replace(self.status());
            }
        }
    }

    /// Does what the core asked for.
    fn carry_out(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::StopEngine => self.engine = None,
                Effect::StartEngine(spec) => match self.start_engine(spec) {
                    Ok(engine) => {
                        self.options.place.started(engine.mover());
                        self.engine = Some(engine);
                    }
                    Err(error) => {
                        let reason = format!("the encoding worker cannot be started: {error}");
                        self.core.on_engine(EngineEvent::Failed { reason });
                    }
                },
                Effect::Suspend { rungs, from } => {
                    if let Some(engine) = &self.engine {
                        engine.suspend(&rungs, from);
                    }
                }
                Effect::ToEngine(input) => {
                    if let Some(engine) = &self.engine {
                        engine.push(input);
                    }
                }
                Effect::RequestKeyFrame => {
                    if let Some(session) = &self.session {
                        session.control.request_key_frame();
                    }
                }
            }
        }
    }

    fn start_engine(&self, spec: LadderSpec) -> std::io::Result<Engine> {
        // Sound alone needs no device.
        let seat = if spec.video.is_empty() { Seat::default() } else { self.options.place.seat() };
        Engine::start_at(spec, self.options.engine.clone(), seat)
    }

    /// Opens the configured source; WHIP waits for its publisher.
    async fn open_source(&mut self) -> Result<(), String> {
        let opened = match &self.source {
            Source::Whip => return Ok(()),
            Source::Rtp { sdp } => match ingest::rtp::listen(sdp, self.options.rtp_idle_timeout).await {
                Ok(ingest) => Ok((ingest, listen_detail(sdp))),
                Err(error) => Err(error.to_string()),
            },
            Source::Rtsp { options } => match ingest::rtsp::pull(options.clone()) {
                Ok(ingest) => Ok((ingest, without_credentials(&options.url))),
                Err(error) => Err(error.to_string()),
            },
        };
        match opened {
            Ok((ingest, detail)) => {
                self.source_error = None;
                self.begin_session(ingest, detail);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the source cannot be opened; trying again");
                self.source_error = Some(error.clone());
                self.relisten_at = Some(Instant::now() + RELISTEN_DELAY);
                Err(error)
            }
        }
    }

    fn begin_session(&mut self, ingest: IngestHandle, detail: String) {
        let IngestHandle { events, control, stats } = ingest;
        self.relisten_at = None;
        self.session = Some(Session { events, control, stats, detail, counted: false });
        self.core.begin_session();
    }

    fn count_session(&mut self) {
        let Some(session) = &mut self.session else { return };
        if !session.counted {
            session.counted = true;
            self.sessions += 1;
            self.end_reason = None;
            tracing::info!(source = %session.detail, remote = ?session.stats.remote.get(), "publisher is sending");
        }
    }

    fn end_session(&mut self, reason: EndReason) {
        let Some(session) = self.session.take() else { return };
        session.control.stop(reason);
        if session.counted {
            self.end_reason = Some(reason);
            tracing::info!(reason = reason.as_str(), "session ended");
        }
        self.core.end_session();
        self.options.place.leave();
    }

    /// The ingest is over by itself; configured sources are opened again at once.
    async fn on_source_ended(&mut self, reason: EndReason) {
        self.end_session(reason);
        let _ = self.open_source().await;
    }

    /// True when the state changed.
    fn update_state(&mut self) -> bool {
        let sending = self.session.as_ref().is_some_and(|s| s.counted);
        let state = match (sending, self.core.is_live(), self.core.has_playlist()) {
            (true, true, _) => ChannelState::Live,
            (true, false, false) => ChannelState::Starting,
            (_, _, true) => ChannelState::Interrupted,
            (false, _, false) => ChannelState::Waiting,
        };
        if state == self.state {
            return false;
        }
        tracing::info!(from = ?self.state, to = ?state, "channel state");
        self.state = state;
        self.since = SystemTime::now();
        true
    }

    fn status(&self) -> ChannelStatus {
        let (video, audio) = self.core.source_tracks();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let kind = match self.source {
            Source::Rtp { .. } => "rtp",
            Source::Rtsp { .. } => "rtsp",
            Source::Whip => "whip",
        };
        let source = match &self.session {
            Some(session) => SourceStatus {
                kind,
                detail: session.detail.clone(),
                remote: session.stats.remote.get().map(ToString::to_string),
                video,
                audio,
                packets: load(&session.stats.packets),
                lost: load(&session.stats.lost),
                repaired: load(&session.stats.repaired),
                refused: load(&session.stats.gate_refused),
                engine_dropped: self.engine.as_ref().map_or(0, Engine::dropped),
            },
            None => SourceStatus {
                kind,
                detail: self.source_detail(),
                remote: None,
                video: None,
                audio: None,
                packets: 0,
                lost: 0,
                repaired: 0,
                refused: 0,
                engine_dropped: 0,
            },
        };
        let lag = self.engine.as_ref().and_then(Engine::lag);
        let mut messages = self.core.messages();
        if let Some(error) = &self.source_error {
            messages.push(Message { level: "error", text: format!("The source cannot be opened: {error}") });
        }
        if let Some(error) = self.session.as_ref().and_then(|s| s.stats.last_error()) {
            messages.push(Message { level: "warning", text: format!("The source has a problem: {error}") });
        }
        ChannelStatus {
            name: self.options.name.clone(),
            state: self.state,
            since: WallTime::from_system(self.since).to_string(),
            source: Some(source),
            ladder: self.ladder_name.clone(),
            renditions: self.core.rendition_status(),
            viewers: 0,
            playlist: format!("/live/{}/index.m3u8", self.options.name),
            messages,
            end_reason: self.end_reason,
            sessions: self.sessions,
            worker_restarts: self.core.worker_restarts(),
            encode_lag_ms: lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn source_detail(&self) -> String {
        match &self.source {
            Source::Rtp { sdp } => listen_detail(sdp),
            Source::Rtsp { options } => without_credentials(&options.url),
            Source::Whip => format!("/whip/{}", self.options.name),
        }
    }
}

async fn next_ingest(session: &mut Option<Session>) -> Option<IngestEvent> {
    match session {
        Some(session) => session.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_engine(engine: &mut Option<Engine>) -> Wake {
    let Some(engine) = engine else { return std::future::pending().await };
    tokio::select! {
        event = engine.events.recv() => Wake::Engine(event),
        Ok(()) = engine.suspensions.changed() => Wake::Suspensions(engine.suspensions.borrow_and_update().clone()),
    }
}

/// What an SDP listens on, for the operator: its connection and media lines.
fn listen_detail(sdp: &str) -> String {
    let address = sdp.lines().find_map(|l| l.strip_prefix("c=IN IP4 ").or(l.strip_prefix("c=IN IP6 "))).unwrap_or("?");
    let ports: Vec<_> = sdp
        .lines()
        .filter_map(|l| l.strip_prefix("m="))
        .filter_map(|m| {
            let mut words = m.split_ascii_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .take(4)
        .collect();
    format!("{} ({})", address.trim(), ports.join(", "))
}

fn without_credentials(url: &url::Url) -> String {
    let mut url = url.clone();
    // Neither call can fail for an rtsp URL, which has a host; an URL without one has no credentials to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_see_where_rtp_listens() {
        let sdp = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\nm=audio 5006 RTP/AVP 97\r\n";
        assert_eq!(listen_detail(sdp), "127.0.0.1 (video 5004, audio 5006)");
    }

    #[test]
    fn credentials_are_not_shown() {
        let url = "rtsp://user:secret@camera.example/stream".parse().map(|u| without_credentials(&u));
        assert_eq!(url, Ok("rtsp://camera.example/stream".to_owned()));
    }
}
