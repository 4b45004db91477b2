//! Files that operators replace while the server runs: when to read them again.
//!
//! Nobody needs to tell the server. A change counts once it has held still for a round, so that what is still being written is
//! not complained of; SIGHUP counts at once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the files are looked at.
const ROUND: Duration = Duration::from_secs(2);

/// Some files, and what they were like.
pub struct Watched {
    paths: Vec<PathBuf>,
    /// When they were read last, and at the last look.
    read: Option<Stamps>,
    seen: Option<Stamps>,
}

/// What tells that a file was replaced or written: device, inode, size, times of content and of entry in nanoseconds. None
/// while it is missing.
type Stamp = Option<(u64, u64, u64, i64, i64)>;
type Stamps = Vec<Stamp>;

impl Watched {
    /// Whoever has read them already reads them once more: what changed between that and now would be missed.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, read: None, seen: None }
    }

    /// Whether to read them now. `again`: what was read last was no good, and a file's clock is too coarse to tell of a write that
    /// followed at once.
    pub fn is_due(&mut self, at_once: bool, again: bool) -> bool {
        let now: Stamps = self.paths.iter().map(|path| stamp(path)).collect();
        let changed = self.read.as_ref() != Some(&now) || again;
        let due = at_once || (changed && self.seen.as_ref() == Some(&now));
        if due {
            self.read = Some(now.clone());
        }
        self.seen = Some(now);
        due
    }
}

/// Has `watcher` look each round, and at once on SIGHUP where `on_hangup`, until `closing` turns true. `what` is for the log.
pub async fn follow<W: Send + 'static>(
    mut watcher: W,
    look: fn(&mut W, bool),
    what: &'static str,
    on_hangup: bool,
    mut closing: watch::Receiver<bool>,
) {
    let mut hangup = match on_hangup.then(|| signal(SignalKind::hangup())).transpose() {
        Ok(hangup) => hangup,
        Err(e) => {
            tracing::warn!(error = %e, "SIGHUP cannot be caught; {what} are still watched");
            None
        }
    };
    let mut round = tokio::time::interval(ROUND);
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let at_once = tokio::select! {
            _ = closing.wait_for(|c| *c) => return,
            _ = round.tick() => false,
            _ = hung_up => true,
        };
        // The files may lie on a network's file system.
        let looked = tokio::task::spawn_blocking(move || {
            look(&mut watcher, at_once);
            watcher
        });
        watcher = match looked.await {
            Ok(watcher) => watcher,
            Err(e) => return tracing::error!(error = %e, "{what} are watched no more"),
        };
    }
}

/// Links are followed, since certbot and Kubernetes exchange those.
fn stamp(path: &Path) -> Stamp {
    let m = std::fs::metadata(path).ok()?;
    let nanoseconds = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
    let (content, entry) = (nanoseconds(m.mtime(), m.mtime_nsec()), nanoseconds(m.ctime(), m.ctime_nsec()));
    Some((m.dev(), m.ino(), m.size(), content, entry))
}
