//! Drives the built program with real clients: the harness of the end-to-end tests.
//!
//! Tests wait for states with a deadline, never for moments. Every process they start dies with them.
#![allow(clippy::unwrap_used)]

pub mod clients;
pub mod playlist;
pub mod server;

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
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        // The one pause between two looks at a state.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// True when the program is there. Its absence is a failure under FISHLADDER_STRICT=1, a skip, said aloud, otherwise.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
        || PathBuf::from(program).is_file();
    if !found {
        assert!(std::env::var_os("FISHLADDER_STRICT").is_none(), "{program} is missing");
        eprintln!("SKIPPED: {program} is missing");
    }
    found
}
