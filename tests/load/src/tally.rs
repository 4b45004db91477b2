//! What was measured: the publish clock, latency histograms, counters. Pure; times are microseconds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::follow::Broken;

/// When each part was first listed to anyone: the time of its publication as the clients can know it.
///
/// The earliest arrival over all viewers and the control viewer, which has a thread and connections of its own. It leaves
/// out what the server takes to tell the first of them (one wake-up), and needs no common clock with the server.
#[derive(Debug, Default)]
pub struct PublishClock {
    /// By msn first, so that the oldest go first; the last number is the rendition. At most [`PublishClock::KEPT`].
    parts: BTreeMap<(u64, usize, usize), u64>,
}

impl PublishClock {
    /// Many minutes of two renditions at 200 ms: no viewer that is further behind is of interest.
    const KEPT: usize = 8_192;

    pub fn listed(&mut self, rendition: usize, msn: u64, part: usize, now: u64) {
        let first = self.parts.entry((msn, part, rendition)).or_insert(now);
        *first = now.min(*first);
        if self.parts.len() > Self::KEPT {
            self.parts.pop_first();
        }
    }

    /// How long ago; None when nobody waited for it.
    pub fn since(&self, rendition: usize, msn: u64, part: usize, now: u64) -> Option<u64> {
        self.parts.get(&(msn, part, rendition)).map(|first| now.saturating_sub(*first))
    }
}

/// A histogram of microseconds with a resolution of 1.6 %, and the exact greatest value.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; Self::BUCKETS], total: 0, most: 0 }
    }
}

impl Histogram {
    /// 64 steps for each power of two, up to 2^40 µs (12 days).
    const BUCKETS: usize = 36 * 64;

    pub fn add(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(Self::bucket(value)) {
            *count += 1;
        }
        self.total += 1;
        self.most = self.most.max(value);
    }

    pub fn count(&self) -> u64 {
        self.total
    }

    /// The value that `per_mille` of the values do not exceed, rounded up to the resolution. None without values.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        if rank == self.total {
            return Some(self.most);
        }
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Self::upper(bucket).min(self.most));
            }
        }
        Some(self.most)
    }

    /// Milliseconds of the usual quantiles.
    pub fn json(&self) -> Value {
        let ms = |micros: Option<u64>| micros.map(|m| m as f64 / 1000.0);
        json!({
            "count": self.total, "p50_ms": ms(self.quantile(500)), "p95_ms": ms(self.quantile(950)),
            "p99_ms": ms(self.quantile(990)), "max_ms": ms((self.total > 0).then_some(self.most)),
        })
    }

    /// A line of the table.
    pub fn row(&self) -> String {
        let ms = |per_mille| match self.quantile(per_mille) {
            Some(micros) => format!("{:>9.1}", micros as f64 / 1000.0),
            None => format!("{:>9}", "-"),
        };
        format!("{:>10}{}{}{}{}", self.total, ms(500), ms(950), ms(990), ms(1000))
    }

    fn bucket(value: u64) -> usize {
        let bucket = if value < 64 {
            value
        } else {
            // The highest bit, and the six below it.
            let shift = u64::from(value.ilog2()) - 6;
            (shift + 1) * 64 + ((value >> shift) - 64)
        };
        usize::try_from(bucket).unwrap_or(usize::MAX).min(Self::BUCKETS - 1)
    }

    /// The greatest value of a bucket.
    fn upper(bucket: usize) -> u64 {
        let (row, step) = (bucket as u64 / 64, bucket as u64 % 64);
        if row == 0 { step } else { ((64 + step + 1) << (row - 1)) - 1 }
    }
}

/// What went wrong for a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Connect(String),
    /// The connection ended within an answer, or before a fresh connection's first one.
    Closed,
    Timeout,
    /// Not HTTP/1.1, or more than this program takes.
    Http(&'static str),
    /// For the kind of resource.
    Status(u16, &'static str),
    Playlist(String),
    Broken(Broken),
    EmptyPart,
    /// Parts are listed faster than they arrive.
    Behind,
    Ended,
}

impl Fault {
    /// The name under which it is counted. Statuses have 500 values at most, everything else one.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "connect".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Http(_) => "http".to_owned(),
            Self::Status(status, what) => format!("{what}-{status}"),
            Self::Playlist(_) => "playlist".to_owned(),
            Self::Broken(Broken::NotLowLatency) => "not-low-latency".to_owned(),
            Self::Broken(Broken::Early) => "early".to_owned(),
            Self::Broken(Broken::Missed) => "missed".to_owned(),
            Self::Broken(Broken::History(_)) => "history".to_owned(),
            Self::Broken(Broken::Rule(_)) => "rule".to_owned(),
            Self::EmptyPart => "empty-part".to_owned(),
            Self::Behind => "behind".to_owned(),
            Self::Ended => "ended".to_owned(),
        }
    }

    /// A sentence.
    pub fn detail(&self) -> String {
        match self {
            Self::Connect(why) => format!("cannot connect: {why}"),
            Self::Closed => "the server closed the connection within an exchange".to_owned(),
            Self::Timeout => "no answer in time".to_owned(),
            Self::Http(why) => format!("not an HTTP/1.1 answer: {why}"),
            Self::Status(status, what) => format!("status {status} for a {what}"),
            Self::Playlist(why) => format!("a playlist {why}"),
            Self::Broken(Broken::NotLowLatency) => {
                "the playlist offers no parts with blocking reload (CAN-BLOCK-RELOAD): not Low-Latency HLS".to_owned()
            }
            Self::Broken(Broken::Early) => "a blocking reload was answered without what it asked for".to_owned(),
            Self::Broken(Broken::Missed) => "the playlist went on without this viewer".to_owned(),
            Self::Broken(Broken::History(why) | Broken::Rule(why)) => (*why).to_owned(),
            Self::EmptyPart => "a part has no bytes".to_owned(),
            Self::Behind => "parts are listed faster than they arrive".to_owned(),
            Self::Ended => "the stream has ended".to_owned(),
        }
    }
}

/// What the viewers of one thread counted in one phase.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// First listed anywhere → last byte of the playlist that lists it.
    pub listing: Histogram,
    /// First listed anywhere → last byte of the part.
    pub part: Histogram,
    /// End by EXT-X-PROGRAM-DATE-TIME → last byte of the part; parts that ended in the future by it count as 0.
    pub dated: Histogram,
    /// Request of a part → its last byte.
    pub fetch: Histogram,
    pub requests: u64,
    pub bytes: u64,
    /// Kept-alive connections that the server closed between two requests.
    pub reconnects: u64,
    /// Bounded by the kinds of [`Fault`].
    pub faults: BTreeMap<String, u64>,
    /// The first few in words.
    pub examples: Vec<String>,
}

impl Tally {
    const EXAMPLES: usize = 5;

    pub fn fault(&mut self, fault: &Fault) {
        *self.faults.entry(fault.kind()).or_default() += 1;
        let detail = fault.detail();
        if self.examples.len() < Self::EXAMPLES && !self.examples.contains(&detail) {
            self.examples.push(detail);
        }
    }

    pub fn errors(&self) -> u64 {
        self.faults.values().sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_earliest_listing_of_a_part_is_its_publication() {
        let mut clock = PublishClock::default();
        clock.listed(0, 7, 1, 500);
        clock.listed(0, 7, 1, 400);
        clock.listed(0, 7, 1, 900);
        assert_eq!(clock.since(0, 7, 1, 1_000), Some(600));
        assert_eq!(clock.since(0, 7, 1, 300), Some(0));
        assert_eq!((clock.since(1, 7, 1, 1_000), clock.since(0, 7, 2, 1_000)), (None, None));
        for msn in 8..20_000 {
            clock.listed(0, msn, 0, msn);
        }
        assert_eq!(clock.parts.len(), PublishClock::KEPT);
        assert_eq!(clock.since(0, 7, 1, 1_000), None, "the oldest go first");
        assert_eq!(clock.since(0, 19_999, 0, 20_000), Some(1));
    }

    #[test]
    fn quantiles_are_right_within_the_resolution() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        for value in 1..=100_000 {
            histogram.add(value);
        }
        for (per_mille, exact) in [(500, 50_000), (950, 95_000), (990, 99_000), (1000, 100_000)] {
            let found = histogram.quantile(per_mille).unwrap();
            assert!(found >= exact && found <= exact + exact / 60, "{per_mille}: {found}");
        }
        assert_eq!(histogram.quantile(0), Some(1));
        for value in [0, 63, 64, 65, 127, 128, 1 << 20, (1 << 41) - 1] {
            let bucket = Histogram::bucket(value);
            assert!(Histogram::upper(bucket) >= value, "{value}");
            assert!(bucket == 0 || Histogram::upper(bucket - 1) < value, "{value}");
        }
        histogram.add(u64::MAX);
        assert_eq!(histogram.quantile(1000), Some(u64::MAX));
    }

    #[test]
    fn faults_are_counted_by_kind_and_a_few_are_told() {
        let mut tally = Tally::default();
        for status in 500..510 {
            tally.fault(&Fault::Status(status, "part"));
            tally.fault(&Fault::Closed);
        }
        assert_eq!((tally.errors(), tally.faults["closed"], tally.faults["part-503"]), (20, 10, 1));
        assert_eq!(tally.examples.len(), Tally::EXAMPLES);
    }
}
