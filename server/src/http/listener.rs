//! The port: accepts connections within caps, speaks TLS where set, HTTP/1.1 and HTTP/2, and ends what stands still.
//!
//! hyper has a timer for HTTP/1 headers only, and that one also runs while a connection is idle. So one watchdog here
//! looks after every connection: `Activity` notes what happened last, `Activity::deadline` says when that is too long ago.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::auth::bucket;
use super::body::Body;
use crate::config;
use crate::metrics::Metrics;

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
/// Streams of one HTTP/2 connection: a player holds one playlist and one part per rendition, far fewer.
const STREAMS: u32 = 128;
/// HTTP/2 receive windows. Requests are small; larger windows would only be memory for an attacker to fill.
const WINDOW: u32 = 1024 * 1024;
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
        tasks.spawn(async move {
            let _place = place;
            let _open = metrics.connection();
            connection(stream, peer, tls, limits, metrics, closing, handler).await;
        });
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

/// The acceptor for a PEM certificate chain and key. Err: a sentence for the operator.
pub fn acceptor(tls: &config::Tls) -> Result<TlsAcceptor, String> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("http.tls.certificate: cannot read {}: {e}", tls.certificate.display()))?;
    if chain.is_empty() {
        return Err(format!("http.tls.certificate: there is no certificate in {}", tls.certificate.display()));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|e| format!("http.tls.key: cannot read {}: {e}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| format!("http.tls: the certificate and key cannot be used: {e}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
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
    tls: Option<TlsAcceptor>,
    limits: Limits,
    metrics: Arc<Metrics>,
    closing: watch::Receiver<bool>,
    handler: H,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let stream = Watched { inner: stream, activity: activity.clone() };
    match tls {
        None => speak(stream, peer, activity, limits, metrics, closing, handler).await,
        Some(acceptor) => match tokio::time::timeout(limits.header, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                activity.handshake_done();
                speak(stream, peer, activity, limits, metrics, closing, handler).await;
            }
            Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
            Err(_) => metrics.timeout("handshake"),
        },
    }
}

async fn speak<S, H, F>(
    stream: S,
    peer: SocketAddr,
    activity: Arc<Activity>,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut closing: watch::Receiver<bool>,
    handler: H,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The watchdog's business: this one would also close idle connections.
        .header_read_timeout(None)
        .max_buf_size(HEADERS as usize)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        // A peer that vanished without a word is found by its missing answer.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(limits.write)
        // Rapid reset (CVE-2023-44487) and resets provoked from us (CVE-2025-8671): GOAWAY ENHANCE_YOUR_CALM past these.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256);
    let service = service_fn({
        let (activity, metrics) = (activity.clone(), metrics.clone());
        move |request: Request<Incoming>| {
            let busy = activity.begin(request.version());
            let (activity, metrics, answer) = (activity.clone(), metrics.clone(), handler(request, peer));
            async move {
                let mut response = answer.await;
                response.body_mut().track(Sending::new(activity, metrics));
                drop(busy);
                Ok::<_, std::convert::Infallible>(response)
            }
        }
    });
    let mut conn = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stop = pin!(closing.wait_for(|c| *c));
    let mut stopping = false;
    let mut armed = activity.deadline(&limits);
    let mut alarm: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep_until(armed.0));
    let why = poll_fn(|cx: &mut Context<'_>| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            conn.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(result) = conn.as_mut().poll(cx) {
            return Poll::Ready(
                result.map_err(|e| tracing::debug!(%peer, error = %e, "connection failed")).err().map(|()| ""),
            );
        }
        loop {
            let due = activity.deadline(&limits);
            // Later deadlines are found when the alarm rings; only an earlier one moves it.
            if due.0 < armed.0 {
                armed = due;
                alarm.as_mut().reset(due.0);
            }
            match alarm.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if due.0 <= Instant::now() => return Poll::Ready(Some(due.1)),
                Poll::Ready(()) => {
                    armed = due;
                    alarm.as_mut().reset(due.0);
                }
            }
        }
    })
    .await;
    if let Some(reason) = why.filter(|r| !r.is_empty()) {
        metrics.timeout(reason);
        tracing::debug!(%peer, reason, "connection timed out");
    }
}

/// What a connection did last. Times are milliseconds since `start`, plus one; 0 means "not now".
#[derive(Debug)]
struct Activity {
    start: Instant,
    /// Last request, answer or progress of a body.
    last: AtomicU64,
    /// Since when a request's head is coming in (HTTP/1, and before HTTP/2's first request).
    head: AtomicU64,
    /// Since when the socket takes no bytes.
    blocked: AtomicU64,
    requests: AtomicUsize,
    bodies: AtomicUsize,
    h2: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(1),
            head: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            h2: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
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
        // A day: no deadline.
        let mut due = (Instant::now() + Duration::from_secs(86_400), "none");
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
}

impl Sending {
    fn new(activity: Arc<Activity>, metrics: Arc<Metrics>) -> Self {
        activity.bodies.fetch_add(1, Ordering::Relaxed);
        Self { activity, metrics }
    }

    /// Over HTTP/2, where other answers share the connection.
    pub fn is_stream(&self) -> bool {
        self.activity.h2.load(Ordering::Relaxed)
    }

    pub fn progress(&self, bytes: u64) {
        self.activity.touch();
        self.metrics.sent(bytes);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
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
