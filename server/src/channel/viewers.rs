//! How many viewers a channel has: distinct fingerprints that fetched a playlist lately.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A viewer that fetched nothing for so long has left; players reload at least every target duration.
const PRESENCE: Duration = Duration::from_secs(10);

/// Fingerprints remembered at most (16 bytes each); above it new viewers are served but not counted.
const LIMIT: usize = 200_000;

/// Counts distinct viewers by what they fetched lately. Written by the HTTP side, read for status and metrics.
#[derive(Debug, Default)]
pub struct Viewers {
    seen: Mutex<HashMap<u64, Instant>>,
}

impl Viewers {
    /// `fingerprint`: a hash of the peer's address and user agent.
    pub fn seen(&self, fingerprint: u64) {
        self.seen_at(fingerprint, Instant::now());
    }

    pub fn count(&self) -> usize {
        self.count_at(Instant::now())
    }

    fn seen_at(&self, fingerprint: u64, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < LIMIT || seen.contains_key(&fingerprint) {
            seen.insert(fingerprint, now);
        }
    }

    fn count_at(&self, now: Instant) -> usize {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, last| now.saturating_duration_since(*last) < PRESENCE);
        seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_counts_once_and_leaves_after_the_presence_time() {
        let viewers = Viewers::default();
        let start = Instant::now();
        viewers.seen_at(1, start);
        viewers.seen_at(1, start + Duration::from_secs(5));
        viewers.seen_at(2, start);
        assert_eq!(viewers.count_at(start + Duration::from_secs(6)), 2);
        assert_eq!(viewers.count_at(start + Duration::from_secs(11)), 1);
        assert_eq!(viewers.count_at(start + Duration::from_secs(16)), 0);
    }
}
