//! The port: accepts connections within caps, speaks TLS where set, HTTP/1.1 and HTTP/2, and ends what stands still.
//!
//! hyper has a timer for HTTP/1 headers only, and that one also runs while a connection is idle. So one watchdog here
//! looks after every connection: `Activity` notes what happened last, `Activity::deadline` says when that is too long ago.
//! What HTTP/2 clients could flood us with is counted by `frames` and by the library; see the constants below.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::auth::bucket;
use super::body::Body;
use super::frames::Meter;
use super::problem::Problem;
use crate::config;
use crate::metrics::{Held, Metrics};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub per_address: usize,
    pub header: Duration,
    pub idle: Duration,
    pub write: Duration,
}

impl Limits {
    pub fn of(http: &config::Http) -> Self {
        Self {
            connections: http.max_connections,
            per_address: http.max_connections_per_address,
            header: http.header_timeout,
            idle: http.idle_timeout,
            write: http.write_timeout,
        }
    }
}

/// A header block larger than this is answered with 431; also bounds HTTP/1's read buffer.
const HEADERS: u32 = 16 * 1024;
/// Fields of a header block, as in HTTP/1: HPACK lets a byte stand for a field that takes a hundred here, and a request may be
/// held for seconds.
const FIELDS: usize = 100;
/// Streams of one HTTP/2 connection: a player holds one playlist and one part per rendition, far fewer.
const STREAMS: u32 = 128;
/// HTTP/2 receive windows. Requests are small; larger windows would only be memory for an attacker to fill.
const WINDOW: u32 = 1024 * 1024;
/// Requests that a client resets before we have taken them up (rapid reset, CVE-2023-44487), waiting at a time; past it
/// GOAWAY with ENHANCE_YOUR_CALM. Requests that were taken up end with their stream, and `frames` counts resets of any sort.
const RESETS_AHEAD: usize = 20;
/// Streams that we reset because the client did wrong (MadeYouReset, CVE-2025-8671), over a connection's life. An honest
/// client does at most a few: one that was asked too much when it had not seen our settings yet.
const RESETS_PROVOKED: usize = 256;
/// Longer than any connection lives.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// After a request to close, open connections have so long to finish their answers.
const CLOSING: Duration = Duration::from_secs(5);

/// Serves until `closing` turns true, then lets running answers finish.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut closing: watch::Receiver<bool>,
    handler: H,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let admission = Arc::new(Admission::new(limits));
    let mut tasks = JoinSet::new();
    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            _ = closing.wait_for(|c| *c) => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                note_end(&metrics, ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                let errors = metrics.accept_error();
                // ECONNABORTED and the like concern one connection. EMFILE and ENFILE last: without a pause the loop
                // would spin, so it waits for descriptors to come free.
                if !matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    if pause.is_zero() {
                        tracing::warn!(error = %e, errors, "cannot accept connections; pausing");
                    }
                    pause = (pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(1));
                    tokio::time::sleep(pause).await;
                }
                continue;
            }
        };
        pause = Duration::ZERO;
        let place = match admission.enter(peer.ip()) {
            Ok(place) => place,
            Err(reason) => {
                metrics.refused(reason);
                // Dropped: closed without an answer, the cheapest there is.
                continue;
            }
        };
        prepare(&stream);
        let (tls, metrics, closing, handler) = (tls.clone(), metrics.clone(), closing.clone(), handler.clone());
        let open = (place, metrics.connection());
        tasks.spawn(connection(stream, peer, open, tls, limits, metrics, closing, handler));
    }
    drop(listener);
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            note_end(&metrics, ended);
        }
    };
    if tokio::time::timeout(CLOSING, finish).await.is_err() {
        tracing::info!(connections = tasks.len(), "closing connections that did not finish");
    }
}

fn note_end(metrics: &Metrics, ended: Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        metrics.panic();
        tracing::error!("a connection's task panicked; the others go on");
    }
}

fn prepare(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    // Errors mean that the peer is gone already, which the first read will tell.
    let _ = socket.set_tcp_nodelay(true);
    // Little unsent data in the kernel: an HTTP/2 playlist does not queue behind a whole segment.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(128 * 1024);
}

async fn connection<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    // Held for as long as the connection is open.
    _open: (Place, Held),
    tls: Option<TlsAcceptor>,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut closing: watch::Receiver<bool>,
    handler: H,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let watched = |stream| Watched { inner: stream, activity: activity.clone() };
    let talk = |version| Talk { peer, activity: activity.clone(), limits, metrics: metrics.clone(), handler, version };
    // The steps are boxed one by one, so that a connection keeps room for the one that it is at, not for the largest of them.
    let Some(acceptor) = tls else {
        let version = tokio::select! {
            version = tokio::time::timeout(limits.idle, spoken(&stream)) => version,
            _ = closing.wait_for(|c| *c) => return,
        };
        return match version {
            Ok(Ok(version)) => Box::pin(talk(version).speak(watched(stream), closing)).await,
            Ok(Err(e)) => tracing::debug!(%peer, error = %e, "connection failed"),
            Err(_) => metrics.timeout("idle"),
        };
    };
    let handshake = Box::pin(async {
        if is_cleartext(&stream).await? {
            metrics.refused("cleartext");
            explain(stream).await?;
            return Ok(None);
        }
        acceptor.accept(watched(stream)).await.map(Some)
    });
    match tokio::time::timeout(limits.header, handshake).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(stream))) => {
            activity.handshake_done();
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::HTTP_2,
                _ => Version::HTTP_11,
            };
            Box::pin(talk(version).speak(stream, closing)).await;
        }
        Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
        Err(_) => metrics.timeout("handshake"),
    }
}

/// Whether the client begins as HTTP does, with a method in capitals; TLS begins with 22 (RFC 8446 §5.1). Takes nothing.
async fn is_cleartext(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let n = stream.peek(&mut first).await?;
    Ok(n == 1 && first.iter().all(u8::is_ascii_uppercase))
}

/// The version that the client begins in: a client with prior knowledge of HTTP/2 sends its preface at once and in one piece
/// (RFC 9113 §3.4), whose first word is no method. Takes nothing.
async fn spoken(stream: &TcpStream) -> io::Result<Version> {
    const WORD: &[u8] = b"PRI ";
    let mut first = [0; WORD.len()];
    let n = stream.peek(&mut first).await?;
    Ok(if first.get(..n) == Some(WORD) { Version::HTTP_2 } else { Version::HTTP_11 })
}

/// Tells a client that speaks cleartext to the TLS port what it did wrong: a person with `http://` in their address bar would
/// otherwise see garbage. No redirect: nobody should learn to send tokens in clear text because it works.
async fn explain(mut stream: TcpStream) -> io::Result<()> {
    const DETAIL: &str = "this port speaks TLS: the address begins with https://, not with http://";
    let body = Problem::new(StatusCode::BAD_REQUEST, "cleartext", DETAIL).json();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    stream.shutdown().await?;
    // Closing with unread bytes would reset the connection and with it the answer.
    tokio::io::copy(&mut stream.take(u64::from(HEADERS)), &mut tokio::io::sink()).await?;
    Ok(())
}

/// A connection whose protocol is known.
struct Talk<H> {
    peer: SocketAddr,
    activity: Arc<Activity>,
    limits: Limits,
    metrics: Arc<Metrics>,
    handler: H,
    version: Version,
}

impl<H, F> Talk<H>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn speak<S>(self, stream: S, closing: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, activity, limits, metrics, handler, version } = self;
        let service = service_fn({
            let (activity, metrics) = (activity.clone(), metrics.clone());
            move |request: Request<Incoming>| {
                let version = request.version();
                let busy = activity.begin(version);
                let (activity, metrics) = (activity.clone(), metrics.clone());
                let answer = if request.headers().len() > FIELDS {
                    metrics.abuse("header_bomb");
                    Err(Problem::new(
                        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                        "too-many-headers",
                        format!("a request may have {FIELDS} header fields"),
                    ))
                } else {
                    // Boxed: hyper keeps room for this future beside an idle connection too, and an `async` block twice.
                    Ok(Box::pin(handler(request, peer)))
                };
                async move {
                    let mut response = match answer {
                        Ok(answer) => answer.await,
                        Err(problem) => problem.response(),
                    };
                    response.body_mut().track(Sending::new(activity, metrics, version));
                    drop(busy);
                    Ok::<_, std::convert::Infallible>(response)
                }
            }
        });
        let watch = Watch { peer, activity: activity.clone(), limits, metrics };
        if version == Version::HTTP_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEADERS)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                // A peer that vanished without a word is found by its missing answer.
                .keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(limits.write)
                .max_pending_accept_reset_streams(RESETS_AHEAD)
                .max_local_error_reset_streams(RESETS_PROVOKED);
            let stream = Metered { inner: stream, meter: Meter::new(Instant::now()), activity };
            watch.over(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), closing).await;
        } else {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                // The watchdog's business: this one would also close idle connections.
                .header_read_timeout(None)
                .max_buf_size(HEADERS as usize);
            watch.over(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), closing).await;
        }
    }
}

/// The watchdog of one connection.
struct Watch {
    peer: SocketAddr,
    activity: Arc<Activity>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Watch {
    /// Drives the connection until it ends, or until it has stood still for too long.
    async fn over<C>(self, mut conn: Pin<Box<C>>, mut closing: watch::Receiver<bool>)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let Self { peer, activity, limits, metrics } = self;
        let mut stop = pin!(closing.wait_for(|c| *c));
        let mut stopping = false;
        // Set once a stream stands still while others do not: when the connection goes.
        let mut leaving = None;
        let mut armed = activity.deadline(&limits);
        let mut alarm: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep_until(armed.0));
        let why = poll_fn(|cx: &mut Context<'_>| {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                conn.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(result) = conn.as_mut().poll(cx) {
                if let Err(e) = result {
                    tracing::debug!(%peer, error = %e, "connection failed");
                    if let Some(flood) = activity.flood.get() {
                        metrics.abuse(flood);
                    }
                }
                return Poll::Ready(None);
            }
            loop {
                let mut due = activity.deadline(&limits);
                if let Some(end) = leaving {
                    due = due.min((end, "stream"));
                }
                // Later deadlines are found when the alarm rings; only an earlier one moves it.
                if due.0 < armed.0 {
                    armed = due;
                    alarm.as_mut().reset(due.0);
                }
                match alarm.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if due.0 <= Instant::now() => return Poll::Ready(Some(due.1)),
                    Poll::Ready(()) => {
                        // A stream that stands still while others go on would keep its media for good. The library cannot
                        // be made to end it alone, so the client is asked to continue elsewhere.
                        if let (None, Some(stalled)) = (leaving, activity.stalled(limits.write)) {
                            if stalled <= Instant::now() {
                                leaving = Some(Instant::now() + CLOSING);
                                conn.as_mut().graceful_shutdown();
                                cx.waker().wake_by_ref();
                            } else if stalled < due.0 {
                                due = (stalled, "stream");
                            }
                        }
                        armed = due;
                        alarm.as_mut().reset(due.0);
                    }
                }
            }
        })
        .await;
        if let Some(reason) = why {
            metrics.timeout(reason);
            tracing::debug!(%peer, reason, "connection timed out");
        }
    }
}

/// The metric's label where the HTTP/2 library says goodbye for a flood: its GOAWAY ends with the reason, and the error that we get
/// has lost it.
fn flood_in(written: &[u8]) -> Option<&'static str> {
    [
        (&b"too_many_resets"[..], "reset_flood"),
        (b"too_many_internal_resets", "provoked_resets"),
        (b"too_many_continuations", "continuation_flood"),
        (b"too_many_data_frames", "data_flood"),
        (b"header_list_way_too_large", "header_bomb"),
    ]
    .into_iter()
    .find_map(|(reason, label)| written.ends_with(reason).then_some(label))
}

/// What a connection did last. Times are milliseconds since `start`, plus one; 0 means "not now".
#[derive(Debug)]
struct Activity {
    start: Instant,
    /// The same moment by `coarse`.
    coarse_start: u64,
    /// Last request, answer or progress of a body.
    last: AtomicU64,
    /// Since when a request's head is coming in (HTTP/1, and before HTTP/2's first request).
    head: AtomicU64,
    /// Since when the socket takes no bytes.
    blocked: AtomicU64,
    requests: AtomicUsize,
    bodies: AtomicUsize,
    h2: AtomicBool,
    /// By HTTP/2 stream that is sent a body: when it last took a piece of it; 0: free. Bounded by `STREAMS`.
    streams: Mutex<Vec<u64>>,
    /// For what flood the connection ends, as far as it does.
    flood: OnceLock<&'static str>,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            coarse_start: coarse(),
            last: AtomicU64::new(1),
            head: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            h2: AtomicBool::new(false),
            streams: Mutex::default(),
            flood: OnceLock::new(),
        }
    }

    fn now(&self) -> u64 {
        coarse().saturating_sub(self.coarse_start) + 1
    }

    fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the stream that has stood still longest will have done so for `limit`.
    fn stalled(&self, limit: Duration) -> Option<Instant> {
        let oldest = self.streams().iter().copied().filter(|at| *at > 0).min()?;
        Some(self.start + Duration::from_millis(oldest - 1) + limit)
    }

    fn handshake_done(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.touch();
    }

    fn begin(self: &Arc<Self>, version: Version) -> Busy {
        self.head.store(0, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.h2.store(true, Ordering::Relaxed);
        }
        self.touch();
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn bytes_read(&self) {
        // In HTTP/2 bytes need not be part of a request; unfinished heads there are found by the keep-alive ping.
        if self.requests.load(Ordering::Relaxed) == 0
            && !self.h2.load(Ordering::Relaxed)
            && self.head.load(Ordering::Relaxed) == 0
        {
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, progress: bool) {
        if progress {
            self.blocked.store(0, Ordering::Relaxed);
            // HTTP/2 also writes pings; there only bodies count.
            if !self.h2.load(Ordering::Relaxed) {
                self.touch();
            }
        } else if self.blocked.load(Ordering::Relaxed) == 0 {
            self.blocked.store(self.now(), Ordering::Relaxed);
        }
    }

    /// When the connection has to go unless something happens, and why. A request in its handler has no deadline here:
    /// every handler has its own.
    fn deadline(&self, limits: &Limits) -> (Instant, &'static str) {
        let at = |since: u64, limit: Duration| self.start + Duration::from_millis(since.saturating_sub(1)) + limit;
        let last = self.last.load(Ordering::Relaxed);
        // No deadline; no clock is asked, since this runs at every turn of the connection.
        let mut due = (self.start + FOREVER, "none");
        let mut consider = |when, why| {
            if when < due.0 {
                due = (when, why);
            }
        };
        match self.blocked.load(Ordering::Relaxed) {
            0 => {}
            since => consider(at(since, limits.write), "write"),
        }
        match self.head.load(Ordering::Relaxed) {
            0 => {}
            since => consider(at(since, limits.header), "header"),
        }
        if self.bodies.load(Ordering::Relaxed) > 0 {
            consider(at(last, limits.write), "write");
        } else if self.requests.load(Ordering::Relaxed) == 0 {
            consider(at(last, limits.idle), "idle");
        }
        due
    }
}

/// Milliseconds of the monotonic clock as of the kernel's last tick: a few of them late, and several times cheaper to ask
/// than the exact one, which would be asked half a dozen times a request.
fn coarse() -> u64 {
    let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE) else { return 0 };
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000_000
}

/// A request in its handler.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body on its way out.
#[derive(Debug)]
pub struct Sending {
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    /// Its place in `Activity::streams`; None in HTTP/1.
    stream: Option<usize>,
}

impl Sending {
    fn new(activity: Arc<Activity>, metrics: Arc<Metrics>, version: Version) -> Self {
        activity.bodies.fetch_add(1, Ordering::Relaxed);
        let stream = (version == Version::HTTP_2).then(|| {
            let now = activity.now();
            let mut streams = activity.streams();
            let free = streams.iter().position(|at| *at == 0).unwrap_or(streams.len());
            match streams.get_mut(free) {
                Some(at) => *at = now,
                None => streams.push(now),
            }
            free
        });
        Self { activity, metrics, stream }
    }

    pub fn progress(&self, bytes: u64) {
        let now = self.activity.now();
        self.activity.last.store(now, Ordering::Relaxed);
        self.mark(now);
        self.metrics.sent(bytes);
    }

    /// Over HTTP/2, where other answers share the connection, and the library keeps the last piece when the body is gone.
    pub fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    fn mark(&self, at: u64) {
        if let Some(stream) = self.stream
            && let Some(slot) = self.activity.streams().get_mut(stream)
        {
            *slot = at;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.mark(0);
        self.activity.touch();
        self.activity.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The socket, telling `Activity` what it does.
struct Watched {
    inner: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    fn note<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.wrote(!poll.is_pending());
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.bytes_read();
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(poll)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(poll)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The connection in clear, with a meter that reads along.
struct Metered<S> {
    inner: S,
    meter: Meter,
    activity: Arc<Activity>,
}

impl<S> Metered<S> {
    fn ends(&self, flood: &'static str) {
        // Only the first one counts.
        let _ = self.activity.flood.set(flood);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if let Err(flood) = self.meter.read(new, Instant::now) {
            self.ends(flood.label());
            return Poll::Ready(Err(io::Error::other(flood.label())));
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Some(flood) = flood_in(buf) {
            self.ends(flood);
        }
        poll
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Some(flood) = bufs.last().and_then(|last| flood_in(last)) {
            self.ends(flood);
        }
        poll
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How many connections there are, together and by address.
#[derive(Debug)]
struct Admission {
    limits: Limits,
    /// Bounded by the open connections: an address without one has no entry.
    open: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

#[derive(Debug)]
struct Place(Arc<Admission>, IpAddr);

impl Admission {
    fn new(limits: Limits) -> Self {
        Self { limits, open: Mutex::default() }
    }

    fn enter(self: &Arc<Self>, ip: IpAddr) -> Result<Place, &'static str> {
        let local = ip.to_canonical().is_loopback();
        let ip = bucket(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.0 >= self.limits.connections {
            return Err("connections");
        }
        let of_address = open.1.get(&ip).copied().unwrap_or(0);
        if of_address >= self.limits.per_address && !local {
            return Err("connections_of_address");
        }
        open.0 += 1;
        open.1.insert(ip, of_address + 1);
        Ok(Place(self.clone(), ip))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 = open.0.saturating_sub(1);
        match open.1.get_mut(&self.1) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                open.1.remove(&self.1);
            }
        }
    }
}
