//! Rendered playlists, shared: many viewers wait for the same snapshot, so it is rendered and compressed once.
//!
//! What is rendered is read back as a client reads it and held against what was served before, so that a defect of ours is known
//! before players tell of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::HeaderValue;
use media::{ChannelName, RenditionId};
use packager::validate::{Findings, Playlist, check_one, check_update};
use packager::{Report, Snapshot};

use crate::metrics::Metrics;

/// Remembered playlists: one per rendition, and one more where delta updates are asked for. A few dozen KB each. Those of
/// gone snapshots are forgotten whenever the number has doubled; past this, far above what one server can encode, all are.
const ENTRIES: usize = 16_384;
/// Below this nobody looks for gone ones.
const FEW: usize = 256;
/// Reading back costs 3.6 times what rendering does (18 µs and 5 µs, `cargo bench -p packager`). A released server does it once
/// for each segment; tests miss nothing.
const READ_ALL_BACK: bool = cfg!(any(test, debug_assertions));
/// A defect shows at every reload of every rendition; the log needs to say so now and then.
const WARNINGS: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Rendered {
    text: Bytes,
    gzip: OnceLock<Bytes>,
    /// Strong, from the content; another one for the compressed form, whose bytes differ (RFC 9110 §8.8.3.3).
    etag: Tag,
    gzip_etag: Tag,
    age: HeaderValue,
    held_age: HeaderValue,
}

/// An entity tag as text and as a header's value.
#[derive(Debug)]
pub struct Tag {
    pub text: String,
    pub value: HeaderValue,
}

impl Rendered {
    /// `target_duration`: seconds.
    pub fn new(text: Bytes, target_duration: u32) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        let hash = hasher.finish();
        let age = match target_duration / 2 {
            0 => "no-cache".to_owned(),
            age => format!("public, max-age={age}"),
        };
        Self {
            etag: Tag::new(format!("\"{hash:016x}\"")),
            gzip_etag: Tag::new(format!("\"{hash:016x}-gz\"")),
            age: ascii(age),
            // The answer for one (msn, part) stays right; A50 lets caches keep it for six target durations.
            held_age: ascii(format!("public, max-age={}", target_duration.saturating_mul(6))),
            text,
            gzip: OnceLock::new(),
        }
    }

    pub fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// Compressed by the first one who asks; the others of the same moment wait for it.
    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.text)).clone()
    }

    pub fn etag(&self, gzip: bool) -> &Tag {
        if gzip { &self.gzip_etag } else { &self.etag }
    }

    /// Cache-Control; `held`: of an answer to a blocking reload.
    pub fn age(&self, held: bool) -> HeaderValue {
        if held { self.held_age.clone() } else { self.age.clone() }
    }
}

impl Tag {
    fn new(text: String) -> Self {
        Self { value: ascii(text.clone()), text }
    }
}

/// What we put into such a header is ASCII; an empty value would be seen by every test.
fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The newest rendering of each playlist.
#[derive(Debug, Default)]
pub struct Playlists {
    slots: Mutex<Slots>,
    /// Multivariant playlists: one for each channel, bounded as their number is.
    multivariant: Mutex<HashMap<ChannelName, Multivariant>>,
    metrics: Arc<Metrics>,
    warned: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Multivariant {
    /// What it was rendered from; weak for the same reasons as in a [`Slot`].
    snapshots: Vec<Weak<Snapshot>>,
    rendered: Option<Arc<Rendered>>,
}

#[derive(Debug, Default)]
struct Slots {
    map: HashMap<Key, Arc<Mutex<Option<Slot>>>>,
    /// How many there were after the last tidying.
    tidied: usize,
}

type Key = (ChannelName, RenditionId, bool);

#[derive(Debug)]
struct Slot {
    /// Weak: remembering a playlist must not keep its media alive. It keeps the address from being used again, so that
    /// comparing addresses is safe.
    snapshot: Weak<Snapshot>,
    /// Of the renditions that it reports on.
    others: Vec<Weak<Snapshot>>,
    rendered: Arc<Rendered>,
    checked: Option<Checked>,
}

/// What was read back last.
#[derive(Clone, Debug)]
struct Checked {
    msn: u64,
    text: Bytes,
}

impl Playlists {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// The multivariant playlist of these snapshots; `render`, which gives it with its target duration, is asked when any of them
    /// is new.
    pub fn multivariant(
        &self,
        channel: &ChannelName,
        snapshots: &[Arc<Snapshot>],
        render: impl FnOnce() -> Option<(Bytes, u32)>,
    ) -> Option<Arc<Rendered>> {
        let mut all = self.multivariant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(channel) {
            if are(&known.snapshots, snapshots) {
                return known.rendered.clone();
            }
        } else if all.len() >= ENTRIES {
            all.clear();
        }
        let rendered = render().map(|(text, target)| Arc::new(Rendered::new(text, target)));
        let snapshots = snapshots.iter().map(Arc::downgrade).collect();
        all.insert(channel.clone(), Multivariant { snapshots, rendered: rendered.clone() });
        rendered
    }

    /// `others`: the snapshots that `reports`, which is asked when any is new, tells of.
    pub fn render(
        &self,
        channel: &ChannelName,
        snapshot: &Arc<Snapshot>,
        skip: bool,
        others: &[Arc<Snapshot>],
        reports: impl FnOnce() -> Vec<Report>,
    ) -> Arc<Rendered> {
        let key = (channel.clone(), snapshot.id().clone(), skip);
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if !slots.map.contains_key(&key) {
                slots.tidy();
            }
            slots.map.entry(key).or_default().clone()
        };
        // Held while rendering (well under a millisecond), so that the others of the same moment find it done.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(s) = slot.as_ref()
            && is(&s.snapshot, snapshot)
            && are(&s.others, others)
        {
            return s.rendered.clone();
        }
        let text = snapshot.playlist(skip, &reports()).into();
        let rendered = Arc::new(Rendered::new(text, snapshot.timing().target_duration));
        let checked = slot.take().and_then(|s| s.checked);
        let checked = self.read_back(channel, snapshot, &rendered, checked);
        let (snapshot, others) = (Arc::downgrade(snapshot), others.iter().map(Arc::downgrade).collect());
        *slot = Some(Slot { snapshot, others, rendered: rendered.clone(), checked });
        rendered
    }

    fn read_back(
        &self,
        channel: &ChannelName,
        snapshot: &Snapshot,
        rendered: &Rendered,
        checked: Option<Checked>,
    ) -> Option<Checked> {
        let msn = snapshot.position().map_or(0, |p| p.msn);
        if !READ_ALL_BACK && checked.as_ref().is_some_and(|c| c.msn == msn) {
            return checked;
        }
        let Some(findings) = held_against(checked.as_ref().map(|c| &c.text[..]), &rendered.text) else {
            return checked;
        };
        self.tell(channel, snapshot.id(), &findings);
        Some(Checked { msn, text: rendered.text() })
    }

    fn tell(&self, channel: &ChannelName, rendition: &RenditionId, findings: &Findings) {
        for (rule, example) in findings.faults() {
            if READ_ALL_BACK {
                panic!("{channel}/{rendition} breaks {rule}: {example}");
            }
            self.metrics.playlist_fault(rule.to_string());
            self.warn(format_args!("{channel}/{rendition} breaks {rule}: {example}"));
        }
    }

    fn warn(&self, fault: std::fmt::Arguments<'_>) {
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| now.duration_since(last) >= WARNINGS) {
            *warned = Some(now);
            tracing::warn!(%fault, "a playlist of ours breaks a rule; this is a defect, please report it");
        }
    }
}

fn is(known: &Weak<Snapshot>, snapshot: &Arc<Snapshot>) -> bool {
    std::ptr::eq(known.as_ptr(), Arc::as_ptr(snapshot))
}

fn are(known: &[Weak<Snapshot>], snapshots: &[Arc<Snapshot>]) -> bool {
    known.len() == snapshots.len() && known.iter().zip(snapshots).all(|(a, b)| is(a, b))
}

/// None: it is older than what was read before. Whoever waits renders the snapshot that it was woken with, and those of two
/// moments may come in either order.
fn held_against(before: Option<&[u8]>, text: &[u8]) -> Option<Findings> {
    let mut findings = Findings::default();
    let Some(now) = std::str::from_utf8(text).ok().and_then(|text| Playlist::read(text, &mut findings)) else {
        return Some(findings);
    };
    let before = before.and_then(|text| std::str::from_utf8(text).ok());
    let before = before.and_then(|text| Playlist::read(text, &mut Findings::default()));
    // A channel that was taken away and made anew begins far ahead and has nothing to do with the one before.
    let before = before.filter(|before| before.edge().0 >= now.media_sequence && !before.ended);
    let state = |p: &Playlist<'_>| (p.edge(), p.media_sequence);
    if before.as_ref().is_some_and(|b| state(&now) < state(b) && b.edge().0 <= now.edge().0 + 1) {
        return None;
    }
    check_one(&now, before.as_ref().map(Playlist::edge), &mut findings);
    if let Some(before) = &before {
        check_update(before, &now, &mut findings);
    }
    Some(findings)
}

#[cfg(test)]
impl Playlists {
    pub fn remembered(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).map.len()
    }
}

impl Slots {
    fn tidy(&mut self) {
        if self.map.len() < FEW.max(self.tidied * 2) {
            return;
        }
        // One that is being rendered is in use.
        self.map.retain(|_, slot| slot.try_lock().map_or(true, |s| s.as_ref().is_some_and(Slot::is_current)));
        if self.map.len() >= ENTRIES {
            self.map.clear();
        }
        self.tidied = self.map.len();
    }
}

impl Slot {
    fn is_current(&self) -> bool {
        self.snapshot.strong_count() > 0
    }
}

/// Speed before size: the last percent would cost every viewer latency.
pub fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(4));
    // Writing into memory cannot fail; an empty result would be caught by every test.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    const BEFORE: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n\
        #EXTINF:2,\n7.ts\n#EXTINF:2,\n8.ts\n#EXTINF:2,\n9.ts\n#EXTINF:2,\n10.ts\n";

    #[test]
    fn what_was_served_before_is_held_against_what_is_served_now() {
        let faults = |text: &str| {
            let found = held_against(Some(BEFORE.as_bytes()), text.as_bytes());
            found.map(|f| f.faults().map(|(rule, _)| rule.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(faults(&(BEFORE.to_owned() + "#EXTINF:2,\n11.ts\n")), Some(vec![]));
        assert_eq!(faults(&BEFORE.replace("8.ts", "x.ts")), Some(vec!["A6".to_owned()]));
        assert_eq!(faults(&BEFORE.replace("N:2", "N:3")), Some(vec!["A3".to_owned()]));
        // Rendered by one who was woken earlier: before the last segment came, or before the first one went.
        let earlier = "QUENCE:6\n#EXTINF:2,\n6.ts\n";
        assert_eq!(faults(&BEFORE.replace("QUENCE:7\n", earlier)), None);
        assert_eq!(faults(&BEFORE.replace("#EXTINF:2,\n10.ts\n", "")), None);
        // Too far back for that.
        assert_eq!(faults(&BEFORE.replace("QUENCE:7", "QUENCE:2")), Some(vec!["A5".to_owned()]));
        // Another channel of the same name.
        assert_eq!(faults(&BEFORE.replace("QUENCE:7", "QUENCE:99").replace("N:2", "N:3")), Some(vec![]));
    }

    #[test]
    #[should_panic = "demo/aac breaks A6"]
    fn a_fault_of_ours_fails_a_test() {
        let findings = held_against(Some(BEFORE.as_bytes()), BEFORE.replace("8.ts", "x.ts").as_bytes()).unwrap();
        Playlists::default().tell(&"demo".parse().unwrap(), &"aac".parse().unwrap(), &findings);
    }

    #[test]
    fn compressed_and_plain_have_their_own_tags() {
        let r = Rendered::new(Bytes::from("#EXTM3U\n".repeat(500)), 2);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&r.gzip()[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.as_bytes(), &r.text()[..]);
        assert!(r.gzip().len() < r.text().len() / 10);
        assert_ne!(r.etag(true).text, r.etag(false).text);
        assert_eq!(r.etag(false).text, Rendered::new(r.text(), 2).etag(false).text);
        assert_ne!(r.etag(false).text, Rendered::new(Bytes::from_static(b"#EXTM3U\n"), 2).etag(false).text);
        assert_eq!(
            (r.age(false), r.age(true)),
            (ascii("public, max-age=1".into()), ascii("public, max-age=12".into()))
        );
        assert_eq!(Rendered::new(r.text(), 1).age(false), "no-cache");
    }
}
