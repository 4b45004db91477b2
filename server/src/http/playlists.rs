//! Rendered playlists, shared: many viewers wait for the same snapshot, so it is rendered and compressed once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use media::{ChannelName, RenditionId};
use packager::{Report, Snapshot};

/// Remembered playlists: one per rendition, and one more where delta updates are asked for. A few dozen KB each. Those of
/// gone snapshots are forgotten whenever the number has doubled; past this, far above what one server can encode, all are.
const ENTRIES: usize = 16_384;
/// Below this nobody looks for gone ones.
const FEW: usize = 256;

#[derive(Debug)]
pub struct Rendered {
    text: Bytes,
    gzip: OnceLock<Bytes>,
    hash: u64,
}

impl Rendered {
    pub fn new(text: Bytes) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        Self { hash: hasher.finish(), text, gzip: OnceLock::new() }
    }

    pub fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// Compressed by the first one who asks; the others of the same moment wait for it.
    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.text)).clone()
    }

    /// Strong, from the content; another one for the compressed form, whose bytes differ (RFC 9110 §8.8.3.3).
    pub fn etag(&self, gzip: bool) -> String {
        format!("\"{:016x}{}\"", self.hash, if gzip { "-gz" } else { "" })
    }
}

/// The newest rendering of each playlist.
#[derive(Debug, Default)]
pub struct Playlists {
    slots: Mutex<Slots>,
    /// Multivariant playlists: one for each channel, bounded as their number is.
    multivariant: Mutex<HashMap<ChannelName, Multivariant>>,
}

#[derive(Debug)]
struct Multivariant {
    /// What it was rendered from; weak for the same reasons as in a [`Slot`].
    snapshots: Vec<Weak<Snapshot>>,
    rendered: Option<(Arc<Rendered>, u32)>,
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
    reports: Vec<Report>,
    rendered: Arc<Rendered>,
}

impl Playlists {
    /// The multivariant playlist of these snapshots and its target duration; `render` is asked when any of them is new.
    pub fn multivariant(
        &self,
        channel: &ChannelName,
        snapshots: &[Arc<Snapshot>],
        render: impl FnOnce() -> Option<(Bytes, u32)>,
    ) -> Option<(Arc<Rendered>, u32)> {
        let mut all = self.multivariant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(channel) {
            let same = |(a, b): (&Weak<Snapshot>, &Arc<Snapshot>)| std::ptr::eq(a.as_ptr(), Arc::as_ptr(b));
            if known.snapshots.len() == snapshots.len() && known.snapshots.iter().zip(snapshots).all(same) {
                return known.rendered.clone();
            }
        } else if all.len() >= ENTRIES {
            all.clear();
        }
        let rendered = render().map(|(text, target)| (Arc::new(Rendered::new(text)), target));
        let snapshots = snapshots.iter().map(Arc::downgrade).collect();
        all.insert(channel.clone(), Multivariant { snapshots, rendered: rendered.clone() });
        rendered
    }

    pub fn render(
        &self,
        channel: &ChannelName,
        snapshot: &Arc<Snapshot>,
        skip: bool,
        reports: Vec<Report>,
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
            && std::ptr::eq(s.snapshot.as_ptr(), Arc::as_ptr(snapshot))
            && s.reports == reports
        {
            return s.rendered.clone();
        }
        let rendered = Arc::new(Rendered::new(snapshot.playlist(skip, &reports).into()));
        *slot = Some(Slot { snapshot: Arc::downgrade(snapshot), reports, rendered: rendered.clone() });
        rendered
    }
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

    #[test]
    fn compressed_and_plain_have_their_own_tags() {
        let r = Rendered::new(Bytes::from("#EXTM3U\n".repeat(500)));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&r.gzip()[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.as_bytes(), &r.text()[..]);
        assert!(r.gzip().len() < r.text().len() / 10);
        assert_ne!(r.etag(true), r.etag(false));
        assert_eq!(r.etag(false), Rendered::new(r.text()).etag(false));
        assert_ne!(r.etag(false), Rendered::new(Bytes::from_static(b"#EXTM3U\n")).etag(false));
    }
}
