//! The one owner of all channels: creates, finds and removes them and lets publishers in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::EngineOptions;
use ingest::whip::{WhipError, WhipOptions, WhipServer, WhipSession};
use media::{ChannelName, EndReason, MediaDuration};
use packager::HlsSettings;
use serde::Deserialize;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};

use crate::channel::{self, Channel, ChannelState, ChannelStatus, Command, MediaThreads, Source, TaskOptions};
use crate::config::{Config, Ladder};
use crate::fleet::{Fleet, Place};

/// Channels at most, so that unknown publishers cannot fill the memory: each costs a task and, once live, its window.
const MAX_CHANNELS: usize = 1000;

/// A channel that a publisher made and left is removed after this; configured ones stay.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// How often abandoned and ended channels are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// Cheap to clone; the HTTP side's only way to channels and publishers.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    settings: HlsSettings,
    engine: EngineOptions,
    whip: WhipServer,
    fleet: Fleet,
    threads: MediaThreads,
    channels: RwLock<HashMap<String, Arc<Entry>>>,
    /// Serializes creation, replacement and removal; never held on the viewers' path.
    admin: AsyncMutex<Admin>,
    publishers: Mutex<HashMap<String, Publisher>>,
}

/// What only one administrative call at a time may touch.
#[derive(Default)]
struct Admin {
    stopping: bool,
}

/// A channel in the map.
struct Entry {
    channel: Arc<Channel>,
    place: Place,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ChannelStatus>,
    request: Mutex<ChannelRequest>,
    publishing: AsyncMutex<()>,
    /// A publisher made it, not the configuration or the API.
    by_publisher: bool,
    /// Since when nobody has been sending, as the sweep saw it.
    idle_since: Mutex<Option<tokio::time::Instant>>,
    /// Set when the channel ended: viewers may still fetch what is listed until then.
    remove_at: Mutex<Option<tokio::time::Instant>>,
}

/// A WHIP publisher's HTTP session.
struct Publisher {
    channel: ChannelName,
    etag: String,
    session: WhipSession,
}

/// The body of `PUT /api/v1/channels/{name}`, and a `[channels.NAME]` table of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRequest {
    pub source: SourceRequest,
    pub ladder: Option<LadderChoice>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceRequest {
    Rtp { sdp: String },
    Rtsp { url: String },
    Whip {},
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum LadderChoice {
    /// A name from the configuration, or `passthrough`.
    Named(String),
    Inline(Ladder),
}

/// A typed refusal: becomes an RFC 9457 problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Last path segment of the problem's `type`, for example `channel-busy`.
    pub kind: &'static str,
    pub detail: String,
    pub retry_after: Option<Duration>,
}

pub struct Published {
    pub answer: String,
    /// Without quotes.
    pub etag: String,
    /// 128 random bits in hex; the last path segment of Location `/whip/{channel}/{session}`.
    pub session: String,
}

/// Whether a PUT made the channel or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    Replaced,
    Unchanged,
}

impl Supervisor {
    /// Binds the WHIP port and starts the configured channels.
    pub async fn start(config: Arc<Config>) -> std::io::Result<Self> {
        let whip = WhipServer::bind(WhipOptions {
            udp_listen: config.whip.udp_listen,
            external_addresses: config.whip.external_addresses.clone(),
            idle_timeout: config.whip.idle_timeout,
            max_sessions: config.whip.max_sessions,
        })
        .await?;
        let settings = HlsSettings {
            part_aim: MediaDuration::from_std(config.hls.part_target),
            segment_target: MediaDuration::from_std(config.hls.segment_target),
            window: MediaDuration::from_std(config.hls.window),
        };
        let engine = EngineOptions { program: std::env::current_exe()?, stall_timeout: config.engine.stall_timeout };
        let supervisor = Self {
            inner: Arc::new(Inner {
                settings,
                threads: MediaThreads::new(),
                fleet: Fleet::new(&config.devices, &engine.program),
                engine,
                whip,
                channels: RwLock::default(),
                admin: AsyncMutex::default(),
                publishers: Mutex::default(),
                config: config.clone(),
            }),
        };
        for (name, request) in &config.channels {
            if let Err(refusal) = supervisor.put(name.clone(), request.clone()).await {
                tracing::error!(channel = %name, reason = %refusal.detail, "a configured channel cannot be started");
            }
        }
        tokio::spawn(sweep(Arc::downgrade(&supervisor.inner)));
        Ok(supervisor)
    }

    /// The devices and what runs on them.
    pub fn fleet(&self) -> &Fleet {
        &self.inner.fleet
    }

    /// Where WHIP publishers' media is received.
    pub fn whip_address(&self) -> std::net::SocketAddr {
        self.inner.whip.local_addr()
    }

    /// The hot path: no await, no lock held on return.
    pub fn channel(&self, name: &str) -> Option<Arc<Channel>> {
        self.inner.find(name).map(|entry| entry.channel.clone())
    }

    pub fn status(&self) -> Vec<ChannelStatus> {
        let mut all: Vec<_> = self.inner.entries().iter().filter(|e| !e.is_ended()).map(|e| e.status()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn status_of(&self, name: &str) -> Option<ChannelStatus> {
        self.inner.find(name).filter(|e| !e.is_ended()).map(|e| e.status())
    }

    /// Creates the channel or gives an existing one another source; a request that cannot work changes nothing.
    pub async fn put(&self, name: ChannelName, request: ChannelRequest) -> Result<Put, Refusal> {
        let (ladder, ladder_name) = self.inner.ladder(request.ladder.as_ref())?;
        let source = self.inner.source(&request.source)?;
        let admin = self.inner.admin.lock().await;
        refuse_when_stopping(&admin)?;
        if let Some(entry) = self.inner.find(name.as_str()).filter(|e| !e.is_ended()) {
            if *entry.request() == request {
                return Ok(Put::Unchanged);
            }
            entry.configure(source, ladder, ladder_name).await?;
            *entry.request() = request;
            return Ok(Put::Replaced);
        }
        let entry = self.inner.create(name.clone(), request, ladder.clone(), ladder_name.clone(), false)?;
        if let Err(refusal) = entry.configure(source, ladder, ladder_name).await {
            let _ = entry.commands.send(Command::End(EndReason::Removed)).await;
            self.inner.forget(name.as_str(), &entry);
            return Err(refusal);
        }
        Ok(Put::Created)
    }

    /// Ends the channel for good: ENDLIST, then gone after the playlist's duration.
    pub async fn delete(&self, name: &ChannelName) -> Result<(), Refusal> {
        let _admin = self.inner.admin.lock().await;
        let entry = self.inner.find(name.as_str()).filter(|e| !e.is_ended()).ok_or_else(unknown_channel)?;
        self.inner.end(&entry, EndReason::Removed).await;
        Ok(())
    }

    pub async fn whip_post(&self, name: ChannelName, offer: &str) -> Result<Published, Refusal> {
        let entry = self.whip_channel(&name).await?;
        // One publisher at a time from the check to the entry in the table: of two at once the second is refused.
        let _turn = entry.publishing.lock().await;
        self.refuse_while_publishing(&name)?;
        let id = random_id().map_err(|e| internal(&format!("no random numbers: {e}")))?;
        let (ladder, _) = self.inner.ladder(entry.request().ladder.as_ref())?;
        let accepted = self.inner.whip.accept(offer).await.map_err(|e| whip_refusal(&e))?;
        if let Err(refusal) = entry.place.admit(&ladder) {
            accepted.session.close(EndReason::Closed);
            return Err(refusal);
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { ingest: accepted.ingest, detail: format!("/whip/{name}"), reply };
        if entry.commands.try_send(command).is_err() || answer.await.is_err() {
            accepted.session.close(EndReason::Closed);
            entry.place.leave();
            return Err(channel_busy());
        }
        let mut publishers = self.inner.publishers();
        publishers.retain(|_, p| !p.session.is_closed());
        publishers
            .insert(id.clone(), Publisher { channel: name, etag: accepted.etag.clone(), session: accepted.session });
        Ok(Published { answer: accepted.answer, etag: accepted.etag, session: id })
    }

    /// Trickle ICE (RFC 9725 section 4.3). A missing If-Match is tolerated: mobile clients omit it (the fragment's ufrag
    /// still has to be the session's).
    pub async fn whip_patch(
        &self,
        name: &ChannelName,
        session: &str,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Result<(), Refusal> {
        let (etag, whip) = self.publisher(name, session, |p| (p.etag.clone(), p.session.clone()))?;
        if if_match.is_some_and(|tag| tag != etag && tag != "*") {
            return Err(refusal(412, "stale-session", "If-Match names another ICE session"));
        }
        whip.add_candidates(fragment).await.map_err(|e| whip_refusal(&e))
    }

    pub async fn whip_delete(&self, name: &ChannelName, session: &str) -> Result<(), Refusal> {
        let whip = self.publisher(name, session, |p| p.session.clone())?;
        whip.close(EndReason::Closed);
        self.inner.publishers().remove(session);
        Ok(())
    }

    /// Whether the session exists, for GET and HEAD on its URL.
    pub fn whip_session_exists(&self, name: &ChannelName, session: &str) -> bool {
        self.publisher(name, session, |_| ()).is_ok()
    }

    /// Refuses new publishers, ends all sessions and writes ENDLIST everywhere; returns when done or at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.admin.lock().await.stopping = true;
        let entries = self.inner.entries();
        let all_ended = async {
            for entry in &entries {
                let _ = entry.commands.send(Command::End(EndReason::Shutdown)).await;
            }
            for entry in &entries {
                entry.commands.closed().await;
            }
        };
        if tokio::time::timeout(deadline, all_ended).await.is_err() {
            tracing::warn!("not all channels ended before the deadline");
        }
    }

    /// The channel for a WHIP POST; made on the spot where the configuration allows it.
    async fn whip_channel(&self, name: &ChannelName) -> Result<Arc<Entry>, Refusal> {
        let admin = self.inner.admin.lock().await;
        refuse_when_stopping(&admin)?;
        if let Some(entry) = self.inner.find(name.as_str()).filter(|e| !e.is_ended()) {
            if !matches!(entry.request().source, SourceRequest::Whip {}) {
                return Err(refusal(409, "channel-not-whip", "this channel has another kind of source"));
            }
            return Ok(entry);
        }
        if !self.inner.config.whip.create_channels {
            return Err(unknown_channel());
        }
        let (ladder, ladder_name) = self.inner.ladder(None)?;
        let request = ChannelRequest { source: SourceRequest::Whip {}, ladder: None };
        self.inner.create(name.clone(), request, ladder, ladder_name, true)
    }

    /// C38: a publisher that has fallen silent gives way to one that returns; a live one does not.
    fn refuse_while_publishing(&self, name: &ChannelName) -> Result<(), Refusal> {
        let patience = self.inner.config.whip.takeover_after;
        let publishers = self.inner.publishers();
        let alive = |p: &Publisher| !p.session.is_closed() && p.session.silent_for() < patience;
        if publishers.values().any(|p| p.channel == *name && alive(p)) { Err(channel_busy()) } else { Ok(()) }
    }

    fn publisher<T>(&self, name: &ChannelName, id: &str, take: impl FnOnce(&Publisher) -> T) -> Result<T, Refusal> {
        let publishers = self.inner.publishers();
        match publishers.get(id).filter(|p| p.channel == *name && !p.session.is_closed()) {
            Some(publisher) => Ok(take(publisher)),
            None => Err(refusal(404, "unknown-session", "there is no such WHIP session")),
        }
    }
}

impl Inner {
    fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn publishers(&self) -> MutexGuard<'_, HashMap<String, Publisher>> {
        self.publishers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ladder(&self, choice: Option<&LadderChoice>) -> Result<(Ladder, String), Refusal> {
        let name = match choice {
            Some(LadderChoice::Inline(ladder)) => return Ok((ladder.clone(), "inline".to_owned())),
            Some(LadderChoice::Named(name)) => name,
            None => &self.config.ladder.default,
        };
        if name == "passthrough" {
            return Ok((Ladder::passthrough(), name.clone()));
        }
        match self.config.ladders.get(name) {
            Some(ladder) => Ok((ladder.clone(), name.clone())),
            None => {
                let known: Vec<_> = self.config.ladders.keys().map(String::as_str).collect();
                let detail = format!("/ladder: no ladder of that name; there are: passthrough, {}", known.join(", "));
                Err(refusal(422, "unknown-ladder", &detail))
            }
        }
    }

    /// Checks all that can be checked before anything running is touched.
    fn source(&self, request: &SourceRequest) -> Result<Source, Refusal> {
        match request {
            SourceRequest::Rtp { sdp } => {
                ingest::rtp::check(sdp).map_err(|e| refusal(422, "bad-sdp", &format!("/source/rtp/sdp: {e}")))?;
                Ok(Source::Rtp { sdp: sdp.clone() })
            }
            SourceRequest::Rtsp { url } => {
                let bad = |e: &dyn std::fmt::Display| refusal(422, "bad-url", &format!("/source/rtsp/url: {e}"));
                let url: url::Url = url.parse().map_err(|e| bad(&e))?;
                if url.scheme() != "rtsp" || !url.has_host() {
                    return Err(bad(&"only rtsp:// URLs can be pulled"));
                }
                let options = ingest::rtsp::PullOptions { url, idle_timeout: self.config.rtsp.idle_timeout };
                Ok(Source::Rtsp { options })
            }
            SourceRequest::Whip {} => Ok(Source::Whip),
        }
    }

    fn create(
        &self,
        name: ChannelName,
        request: ChannelRequest,
        ladder: Ladder,
        ladder_name: String,
        by_publisher: bool,
    ) -> Result<Arc<Entry>, Refusal> {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= MAX_CHANNELS {
            return Err(Refusal {
                retry_after: Some(Duration::from_secs(30)),
                ..refusal(503, "too-many-channels", "the server has as many channels as it takes")
            });
        }
        let place = self.fleet.place(name.clone());
        let options = TaskOptions {
            name: name.clone(),
            place: place.clone(),
            settings: self.settings,
            engine: self.engine.clone(),
            rtp_idle_timeout: self.config.rtp.idle_timeout,
            first_msn: first_msn(SystemTime::now()),
        };
        let running = channel::run(&self.threads, options, ladder, ladder_name)
            .map_err(|e| internal(&format!("the channel's thread cannot be started: {e}")))?;
        let entry = Arc::new(Entry {
            channel: Arc::new(Channel {
                name: name.clone(),
                renditions: running.renditions,
                viewers: channel::Viewers::default(),
            }),
            place,
            commands: running.commands,
            status: running.status,
            request: Mutex::new(request),
            publishing: AsyncMutex::default(),
            by_publisher,
            idle_since: Mutex::new(None),
            remove_at: Mutex::new(None),
        });
        channels.insert(name.as_str().to_owned(), entry.clone());
        drop(channels);
        tokio::spawn(report_panic(name, running.task));
        Ok(entry)
    }

    /// ENDLIST; the entry stays for the playlist's duration so that viewers get what is listed (A46, A47).
    async fn end(&self, entry: &Entry, reason: EndReason) {
        let _ = entry.commands.send(Command::End(reason)).await;
        entry.commands.closed().await;
        let keep = self.config.hls.window + self.config.hls.segment_target;
        *entry.remove_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::time::Instant::now() + keep);
    }

    /// A defect ended the channel's task: it begins again, its sequence numbers ahead of the old ones.
    async fn revive(&self, entry: &Arc<Entry>) {
        let name = entry.channel.name.clone();
        let request = entry.request().clone();
        self.forget(name.as_str(), entry);
        let (Ok((ladder, ladder_name)), Ok(source)) =
            (self.ladder(request.ladder.as_ref()), self.source(&request.source))
        else {
            return;
        };
        let by_publisher = entry.by_publisher;
        if let Ok(entry) = self.create(name.clone(), request, ladder.clone(), ladder_name.clone(), by_publisher)
            && let Err(refusal) = entry.configure(source, ladder, ladder_name).await
        {
            tracing::error!(channel = %name, reason = %refusal.detail, "the channel cannot be started again");
        }
    }

    fn forget(&self, name: &str, entry: &Arc<Entry>) {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if channels.get(name).is_some_and(|present| Arc::ptr_eq(present, entry)) {
            channels.remove(name);
        }
    }
}

impl Entry {
    fn request(&self) -> MutexGuard<'_, ChannelRequest> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> ChannelStatus {
        let mut status = self.status.borrow().clone();
        status.viewers = self.channel.viewers.count();
        status
    }

    /// The task is over: deleted, or a defect ended it.
    fn is_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Nobody has been sending for long; called by the sweep only.
    fn is_abandoned(&self) -> bool {
        let idle = matches!(self.status.borrow().state, ChannelState::Waiting | ChannelState::Interrupted);
        let mut since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle {
            *since = None;
            return false;
        }
        since.get_or_insert_with(tokio::time::Instant::now).elapsed() > ABANDONED_AFTER
    }

    async fn configure(&self, source: Source, ladder: Ladder, ladder_name: String) -> Result<(), Refusal> {
        let (reply, outcome) = oneshot::channel();
        let command = Command::Configure { source, ladder, ladder_name, reply };
        if self.commands.try_send(command).is_err() {
            return Err(channel_busy());
        }
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => Err(refusal(409, "source-unavailable", &problem)),
            Err(_) => Err(internal("the channel ended meanwhile")),
        }
    }
}

/// Removes ended channels whose time is over, ends abandoned ones, and starts configured ones anew that a defect ended.
async fn sweep(inner: std::sync::Weak<Inner>) {
    let mut tick = tokio::time::interval(SWEEP_PERIOD);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let admin = inner.admin.lock().await;
        if admin.stopping {
            return;
        }
        for entry in inner.entries() {
            let name = entry.channel.name.clone();
            let remove_at = *entry.remove_at.lock().unwrap_or_else(PoisonError::into_inner);
            if entry.is_ended() {
                match remove_at {
                    Some(at) if tokio::time::Instant::now() < at => {}
                    Some(_) => inner.forget(name.as_str(), &entry),
                    None => inner.revive(&entry).await,
                }
            } else if entry.by_publisher && entry.is_abandoned() {
                tracing::info!(channel = %name, "nobody publishes any more: channel removed");
                inner.end(&entry, EndReason::Timeout).await;
            }
        }
    }
}

/// Says so when a channel's task panicked; the sweep starts it anew.
async fn report_panic(name: ChannelName, task: tokio::task::JoinHandle<()>) {
    if let Err(error) = task.await
        && error.is_panic()
    {
        tracing::error!(channel = %name, "a defect ended the channel's task; it is started anew");
    }
}

/// MSNs of a channel that is made now: two a second since 2026, more than segments can be cut, so that they never go back
/// over a restart (A5) and stay readable.
fn first_msn(now: SystemTime) -> u64 {
    const YEAR_2026: u64 = 1_767_225_600;
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    seconds.saturating_sub(YEAR_2026) * 2
}

/// 128 bits from the operating system, in hex (C16).
fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn refusal(status: u16, kind: &'static str, detail: &str) -> Refusal {
    Refusal { status, kind, detail: detail.to_owned(), retry_after: None }
}

fn unknown_channel() -> Refusal {
    refusal(404, "unknown-channel", "there is no such channel")
}

fn channel_busy() -> Refusal {
    refusal(409, "channel-busy", "another publisher is sending to this channel")
}

fn internal(detail: &str) -> Refusal {
    refusal(500, "internal", detail)
}

fn refuse_when_stopping(admin: &Admin) -> Result<(), Refusal> {
    if admin.stopping {
        let retry_after = Some(Duration::from_secs(10));
        return Err(Refusal { retry_after, ..refusal(503, "stopping", "the server is shutting down") });
    }
    Ok(())
}

fn whip_refusal(error: &WhipError) -> Refusal {
    let detail = error.to_string();
    match error {
        WhipError::Malformed(_) => refusal(400, "bad-sdp", &detail),
        WhipError::Unacceptable(_) => refusal(422, "unacceptable-offer", &detail),
        WhipError::Full => {
            Refusal { retry_after: Some(Duration::from_secs(10)), ..refusal(503, "too-many-publishers", &detail) }
        }
        WhipError::Internal(_) => refusal(500, "internal", &detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_of_a_restarted_channel_lie_ahead() {
        let start = UNIX_EPOCH + Duration::from_secs(1_795_226_400);
        let restarted = start + Duration::from_secs(3600);
        // Segments last a second or more, but for those that a change of parameters cuts short.
        assert!(first_msn(restarted) >= first_msn(start) + 3600);
    }

    #[test]
    fn session_names_are_long_and_differ() {
        let (a, b) = (random_id().unwrap_or_default(), random_id().unwrap_or_default());
        assert_eq!(a.len(), 32);
        assert_ne!(a, b);
    }
}
