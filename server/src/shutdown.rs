//! An orderly end: refuse publishers, end sessions, let viewers fetch the last playlist, close; every step is logged.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::http::App;
use crate::metrics::Metrics;
use crate::supervisor::Supervisor;

/// Sessions have so long to flush their encoders and write ENDLIST.
const SESSIONS: Duration = Duration::from_secs(5);
/// Viewers have so long to learn of ENDLIST; held playlist requests hear of it at once, others within a reload.
const LINGER: Duration = Duration::from_secs(3);

/// SIGINT and SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on these signals do not kill the process.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Goes through all steps; a further signal exits at once.
pub async fn run(
    mut signals: Signals,
    app: Arc<App>,
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
    close: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
) {
    let steps = async {
        app.drain();
        let step = Instant::now();
        supervisor.shutdown(SESSIONS).await;
        tracing::info!(took = ?step.elapsed(), "sessions ended, playlists closed");
        let step = Instant::now();
        linger(&metrics).await;
        tracing::info!(took = ?step.elapsed(), connections = metrics.connections(), "viewers had their time");
        let step = Instant::now();
        // The listener may have ended already; then there is nobody to tell.
        let _ = close.send(true);
        if served.await.is_err() {
            tracing::error!("the listener's task panicked");
        }
        tracing::info!(took = ?step.elapsed(), "connections closed");
    };
    tokio::select! {
        () = steps => {}
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal: exiting at once");
            std::process::exit(1);
        }
    }
}

async fn linger(metrics: &Metrics) {
    let end = Instant::now() + LINGER;
    while metrics.connections() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
