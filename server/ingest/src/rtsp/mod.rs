//! RTSP pull: one task that connects, plays, notices silence and reconnects with back-off.
//!
//! retina speaks RTSP (RFC 2326: DESCRIBE, SETUP over interleaved TCP, PLAY, digest authentication, keep-alives) and
//! hands over RTP and RTCP packets as they come; from there on they take the same way as every publisher's.

mod backoff;
mod source;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use media::{EndReason, IngestEvent, WallTime};
use retina::client::{
    InitialTimestampPolicy, PacketItem, PlayOptions, Playing, Session, SessionGroup, SessionOptions, SetupOptions,
    UnknownRtcpSsrcPolicy,
};
use tokio::sync::mpsc;

use self::backoff::Backoff;
use self::source::Source;
use crate::rtp::{RtpSession, RtpSessionConfig, TrackSpec};
use crate::{ControlMessage, EVENT_QUEUE, EventSink, IngestControl, IngestHandle, IngestStats};

#[derive(Clone, Debug)]
pub struct PullOptions {
    /// May carry user name and password; they go nowhere but into the answer to the camera's challenge.
    pub url: url::Url,
    pub idle_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("RTSP URL: {0}")]
pub struct BadUrl(pub String);

/// Control messages under way.
const CONTROL_QUEUE: usize = 8;
/// A connection that was up for so long starts the back-off anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// From TCP connect to PLAY's answer: cameras take a second or two to wake an encoder.
const LEAST_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Cameras that are asked too impatiently never get to speak (E10).
const LEAST_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts pulling. After a lost connection the handle goes on with `Discontinuity` once media flows again. Failed
/// attempts, the first one too, are repeated for ever; `IngestStats::last_error` says what is wrong meanwhile.
///
/// Must be called within a tokio runtime.
pub fn pull(options: PullOptions) -> Result<IngestHandle, BadUrl> {
    let source = Source::new(&options.url)?;
    let stats = Arc::new(IngestStats::default());
    let (events_in, events) = mpsc::channel(EVENT_QUEUE);
    let (control_in, control) = mpsc::channel(CONTROL_QUEUE);
    let pull = Pull {
        source,
        idle_timeout: options.idle_timeout.max(LEAST_IDLE_TIMEOUT),
        sink: EventSink::new(events_in.clone(), stats.clone()),
        listener: events_in,
        stats: stats.clone(),
        flowed: false,
    };
    tokio::spawn(pull.run(control));
    Ok(IngestHandle { events, control: IngestControl::new(control_in), stats })
}

struct Pull {
    source: Source,
    idle_timeout: Duration,
    sink: EventSink,
    /// Another hold on the sink's queue, to notice that its consumer is gone.
    listener: mpsc::Sender<IngestEvent>,
    stats: Arc<IngestStats>,
    /// An earlier connection brought media.
    flowed: bool,
}

impl Pull {
    async fn run(mut self, mut control: mpsc::Receiver<ControlMessage>) {
        let listener = self.listener.clone();
        let reason = tokio::select! {
            biased;
            reason = stopped(&mut control) => reason,
            () = listener.closed() => EndReason::Closed,
            () = self.keep_pulling() => EndReason::Internal,
        };
        drop(listener);
        let Self { sink, listener, .. } = self;
        drop(listener);
        sink.end(reason).await;
    }

    /// Never returns.
    async fn keep_pulling(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let error = self.connect_and_play().await;
            self.tell(error);
            if began.elapsed() >= GOOD_CONNECTION {
                backoff = Backoff::default();
            }
            tokio::time::sleep(backoff.next_delay(getrandom::u32().unwrap_or(0))).await;
        }
    }

    /// One connection, from TCP connect to its end; returns what ended it.
    async fn connect_and_play(&mut self) -> String {
        let group = Arc::new(SessionGroup::default());
        let patience = self.idle_timeout.max(LEAST_CONNECT_TIMEOUT);
        let connected = tokio::time::timeout(patience, self.source.connect(group.clone())).await;
        let (session, tracks) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return error,
            Err(_) => return "the camera does not answer in time".to_owned(),
        };
        let error = self.play(session, tracks).await;
        // E7: a session that the camera still holds is torn down before another is asked for, if it will.
        let _ = tokio::time::timeout(Duration::from_secs(1), group.await_teardown()).await;
        error
    }

    async fn play(&mut self, mut session: Session<Playing>, tracks: Vec<(usize, TrackSpec)>) -> String {
        let (streams, specs): (Vec<usize>, Vec<TrackSpec>) = tracks.into_iter().unzip();
        let config = RtpSessionConfig {
            tracks: specs,
            // TCP neither loses nor reorders (D10).
            jitter_budget: Duration::ZERO,
            can_ask_key_frames: false,
            can_nack: false,
            can_report: false,
        };
        let mut rtp = RtpSession::new(config, self.stats.clone());
        let mut fresh = true;
        let mut heard = Instant::now();
        loop {
            while let Some(event) = rtp.poll_event() {
                match event {
                    // A BYE is the camera's affair: it either goes on or falls silent.
                    IngestEvent::Ended(_) => return "the camera ended the stream".to_owned(),
                    event => {
                        if fresh && matches!(event, IngestEvent::Unit(_)) {
                            fresh = false;
                            self.media_flows();
                        }
                        self.sink.send(event);
                    }
                }
            }
            // Nothing to send back to a camera over RTSP.
            while rtp.poll_feedback().is_some() {}
            let idle = heard + self.idle_timeout;
            let wake = rtp.next_timeout().map_or(idle, |at| at.min(idle));
            tokio::select! {
                item = source::next(&mut session) => {
                    let (now, wall) = (Instant::now(), WallTime::from_system(SystemTime::now()));
                    let track = |stream| streams.iter().position(|s| *s == stream);
                    match item {
                        Some(Ok(PacketItem::Rtp(packet))) => {
                            heard = now;
                            if let Some(track) = track(packet.stream_id()) {
                                // A copy: retina keeps the header to itself otherwise.
                                rtp.on_track_rtp(now, wall, track, Bytes::copy_from_slice(packet.raw()));
                            }
                        }
                        Some(Ok(PacketItem::Rtcp(packet))) => {
                            rtp.on_rtcp(now, wall, Bytes::copy_from_slice(packet.raw()));
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return source::sentence(&error),
                        None => return "the camera closed the connection".to_owned(),
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    let now = Instant::now();
                    if now >= idle {
                        return format!("nothing came from the camera for {:?}", self.idle_timeout);
                    }
                    rtp.on_timeout(now);
                }
            }
        }
    }

    /// The first unit of a connection is about to be sent.
    fn media_flows(&mut self) {
        if self.flowed {
            IngestStats::add(&self.stats.discontinuities, 1);
            self.sink.send(IngestEvent::Discontinuity);
        }
        self.flowed = true;
        let mut last = self.stats.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take().is_some() {
            tracing::info!(url = %self.source.shown(), "RTSP source plays again");
        }
    }

    /// Keeps the reason for the status page, and logs it when it is another than before.
    fn tell(&self, error: String) {
        let mut last = self.stats.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&error) {
            tracing::warn!(url = %self.source.shown(), %error, "RTSP source failed; trying again");
            *last = Some(error);
        }
    }
}

/// When someone asks the pull to end; what else is asked a camera cannot do.
async fn stopped(control: &mut mpsc::Receiver<ControlMessage>) -> EndReason {
    loop {
        match control.recv().await {
            Some(ControlMessage::Stop(reason)) => return reason,
            Some(ControlMessage::KeyFrame) => {}
            // Nobody is left to ask; the events' receiver says when to end.
            None => std::future::pending().await,
        }
    }
}
