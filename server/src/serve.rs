//! `fishladder serve`: wires everything together and says in a few lines where it listens.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::demo::DemoOptions;
use media::ChannelName;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::http::tls::Tls;
use crate::http::{App, NO_HTTP2, listener, tls_dev};
use crate::metrics::Metrics;
use crate::shutdown::{self, Signals};
use crate::supervisor::{ChannelRequest, SourceRequest, Supervisor};

const DEMO: &str = "demo";

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    pub demo: bool,
    pub dev_cert: bool,
}

pub fn run(mut config: Config, extras: Extras) -> ExitCode {
    start_logging(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&format!("cannot start the runtime: {e}")),
    };
    let result = runtime.block_on(async move {
        let demo = if extras.demo { Some(prepare_demo(&mut config)?) } else { None };
        if extras.dev_cert {
            prepare_dev_cert(&mut config)?;
        }
        serve(Arc::new(config), demo, extras.dev_cert).await
    });
    // Whatever still blocks a thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
}

async fn serve(config: Arc<Config>, demo: Option<DemoOptions>, dev_cert: bool) -> Result<(), String> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "fishladder starts");
    let tls = config.http.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
    let socket = TcpListener::bind(config.http.listen)
        .await
        .map_err(|e| format!("cannot listen on http.listen = {}: {e}", config.http.listen))?;
    let address = socket.local_addr().map_err(|e| e.to_string())?;
    let mut signals = Signals::catch().map_err(|e| format!("cannot catch signals: {e}"))?;
    let supervisor = Supervisor::start(config.clone()).await.map_err(|e| format!("cannot start: {e}"))?;
    let metrics = Arc::new(Metrics::default());
    let app = Arc::new(App::new(supervisor.clone(), config.clone(), metrics.clone(), tls.clone()));

    let (close, closing) = watch::channel(false);
    let handler = {
        let app = app.clone();
        move |request, peer| {
            let app = app.clone();
            async move { app.handle(request, peer).await }
        }
    };
    let mut limits = listener::Limits::of(&config.http);
    limits.connections = connections_for(limits.connections);
    let secure = tls.is_some();
    let acceptor = tls.as_ref().map(|tls| tls.acceptor());
    if let Some(tls) = tls {
        // A server with a development certificate runs in somebody's terminal, and SIGHUP says that it was closed.
        tokio::spawn(tls.follow(!dev_cert, metrics.clone(), closing.clone()));
    }
    if let Some(keys) = app.keyring() {
        tokio::spawn(keys.follow(!dev_cert, metrics.clone(), closing.clone()));
    }
    let served = tokio::spawn(listener::serve(socket, acceptor, limits, metrics.clone(), closing, handler));

    let scheme = if secure { "https" } else { "http" };
    let shown =
        if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() };
    tracing::info!(http = %address, whip_udp = %supervisor.whip_address(), tls = secure, "listening");
    tracing::info!("status page: {scheme}://{shown}/");
    if !config.http_is_local() && !secure {
        tracing::warn!("tokens cross the network in clear text: set http.tls or put a TLS proxy in front");
    }
    if !secure {
        tracing::warn!("{NO_HTTP2}");
    }
    let demo = demo.map(|options| {
        tracing::info!("demo: {scheme}://{shown}/watch/{DEMO}");
        tokio::spawn(publish_demo(options))
    });

    let signal = signals.next().await;
    tracing::info!(signal, "shutting down; a second signal exits at once");
    let end = shutdown::run(signals, app, supervisor, metrics, close, served);
    end.await;
    if let Some(task) = demo {
        task.abort();
        // Cancelled by us, so the only result; waiting for it makes sure that the child is killed.
        let _ = task.await;
    }
    tracing::info!("goodbye");
    Ok(())
}

/// Descriptors kept for ingest, workers and files, so that viewers cannot starve publishers.
const RESERVED_FILES: u64 = 512;

/// Raises the soft limit of open files as far as `wanted` connections need it; how many connections there is room for.
fn connections_for(wanted: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let needed = (wanted as u64).saturating_add(RESERVED_FILES);
    let mut limit = soft;
    if soft < needed && setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).is_ok() {
        limit = needed.min(hard);
    }
    let room = usize::try_from(limit.saturating_sub(RESERVED_FILES).max(limit / 2)).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            limit,
            connections = room,
            "the limit of open files allows fewer connections than http.max_connections"
        );
    }
    room.min(wanted)
}

/// Sets the development certificate and says how to trust it. Not refused on public addresses: there cleartext is not
/// either, and phones on the local network, whose cameras browsers open over TLS only, are what it is for.
fn prepare_dev_cert(config: &mut Config) -> Result<(), String> {
    if config.http.tls.is_some() {
        return Err("--dev-cert and http.tls exclude each other: there is a certificate already".to_owned());
    }
    let folder = tls_dev::folder(|name| std::env::var_os(name).map(Into::into))?;
    let names = tls_dev::names(config.http.listen, &tls_dev::host_name());
    let made = tls_dev::ensure(&folder, names, SystemTime::now())?;
    let names: Vec<&str> = made.names.iter().map(String::as_str).collect();
    tracing::info!(file = %made.public.display(), names = names.join(" "), new = made.new, "development certificate");
    tracing::info!("its SHA-256 fingerprint: {}", made.fingerprint);
    tracing::info!(
        "to trust it: compare the fingerprint in the browser's warning and go on, or hand {0} to whom it concerns (curl \
         --cacert {0}; docs/operations.md has the others)",
        made.public.display()
    );
    if !config.http_is_local() {
        tracing::warn!(
            "a development certificate on an address that others reach: players refuse it until told to trust it"
        );
    }
    config.http.tls = Some(made.files);
    Ok(())
}

/// Adds the channel that the demo publisher sends to.
fn prepare_demo(config: &mut Config) -> Result<DemoOptions, String> {
    let problem = |e| format!("no free UDP ports for the demo: {e}");
    // The first pair stays bound while the second is looked for, so that they differ.
    let (video_port, held) = free_port_pair().map_err(problem)?;
    let (audio_port, _) = free_port_pair().map_err(problem)?;
    drop(held);
    let options = DemoOptions { video_port, audio_port };
    let name: ChannelName = DEMO.parse().map_err(|e| format!("{e}"))?;
    let request = ChannelRequest { source: SourceRequest::Rtp { sdp: engine::demo::sdp(&options) }, ladder: None };
    if config.channels.insert(name, request).is_some() {
        tracing::warn!("--demo replaces the configured channel `{DEMO}`");
    }
    Ok(options)
}

/// An even port P of the loopback address such that P and P+1 are free: RTP and its RTCP (RFC 3550 §11).
fn free_port_pair() -> std::io::Result<(u16, (UdpSocket, UdpSocket))> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = probe.local_addr()?.port() & !1;
        drop(probe);
        let pair = (UdpSocket::bind((Ipv4Addr::LOCALHOST, port)), UdpSocket::bind((Ipv4Addr::LOCALHOST, port | 1)));
        match pair {
            (Ok(rtp), Ok(rtcp)) => return Ok((port, (rtp, rtcp))),
            (Err(e), _) | (_, Err(e)) => last = e,
        }
    }
    Err(last)
}

/// Keeps the demo publisher running; dropping this future kills it.
async fn publish_demo(options: DemoOptions) {
    let mut pause = Duration::from_secs(1);
    loop {
        let started = tokio::time::Instant::now();
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(e) => return tracing::error!(error = %e, "the demo cannot start: own program not found"),
        };
        let child = tokio::process::Command::new(program)
            .arg("demo-publisher")
            .args(["--video-port", &options.video_port.to_string()])
            .args(["--audio-port", &options.audio_port.to_string()])
            .env_remove("FISHLADDER_PUBLISH_TOKEN")
            .env_remove("FISHLADDER_ADMIN_TOKEN")
            // Held open for as long as this process lives; see `end_with_stdin`.
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        match child {
            // Not `wait_with_output` or `wait` on a borrowed stdin: `wait` closes it, so it is taken out first.
            Ok(mut child) => {
                let _held = child.stdin.take();
                match child.wait().await {
                    Ok(status) => tracing::warn!(%status, "the demo publisher ended; starting it anew"),
                    Err(e) => tracing::warn!(error = %e, "the demo publisher is lost; starting it anew"),
                }
            }
            Err(e) => tracing::warn!(error = %e, "the demo publisher cannot start"),
        }
        if started.elapsed() > Duration::from_secs(30) {
            pause = Duration::from_secs(1);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// The WebRTC stack logs each unknown handshake extension as a warning and each state change as news; the session's own events
/// tell operators the same once. Levels below info, and filters, are taken as they are.
fn filter_of(level: &str) -> String {
    match level {
        "info" | "warn" => format!("{level},rtc=warn,rtc_ice=warn,rtc_dtls=error"),
        level => level.to_owned(),
    }
}

fn start_logging(config: &Config) {
    let filter = match std::env::var("RUST_LOG").ok().filter(|v| !v.is_empty()).map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(_)) | None => EnvFilter::new(filter_of(&config.log.level)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log.json {
        builder.json().init();
    } else {
        use std::io::IsTerminal;
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
