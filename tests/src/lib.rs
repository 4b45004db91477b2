//! Drives the built program with real clients: the harness of the end-to-end tests.
//!
//! Tests wait for states with a deadline, never for moments. Every process they start dies with them.
#![allow(clippy::unwrap_used)]

pub mod cache;
pub mod clients;
pub mod playlist;
pub mod publishers;
pub mod server;
pub mod viewer;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a state may take to come about on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Asks until there is an answer; panics with `what` when the patience is over.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    until_within(PATIENCE, what, ask).await
}

/// The same for what takes its time also on an idle machine.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        // The one pause between two looks at a state.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// True when the program (a name, or a path below the root) is there. Its absence is a failure under
/// FISHLADDER_STRICT=1, and otherwise a skip that is said aloud.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        root().join(program).is_file() || std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    found || skip(program)
}

/// Says that a test is skipped for want of something, or fails it where nothing may be skipped.
pub fn skip(missing: &str) -> bool {
    let strict = std::env::var("FISHLADDER_STRICT").is_ok_and(|v| v == "1");
    assert!(!strict, "missing: {missing}; scripts/setup.sh test installs what the tests need");
    eprintln!("SKIPPED, missing: {missing}");
    false
}
