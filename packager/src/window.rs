//! What viewers see of a rendition: an immutable snapshot of its sliding window. Is (msn, part) here, in the future, or gone?

use std::sync::Arc;

use bytes::Bytes;
use media::{MediaDuration, RenditionId, TrackConfig, WallTime};

use crate::bandwidth::Sent;
use crate::playlist::{Report, media_playlist};
use crate::timing::{ChannelTiming, PartRule};

/// A part as the playlist lists it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub duration: MediaDuration,
    /// Begins with a key frame.
    pub independent: bool,
    /// None: a gap, nothing to fetch.
    pub bytes: Option<Bytes>,
}

/// A complete segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub head: Head,
    pub duration: MediaDuration,
    pub parts: Vec<Part>,
    /// No media at all: EXT-X-GAP.
    pub gap: bool,
}

/// What is known of a segment from its first part on.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub msn: u64,
    pub discontinuity: bool,
    pub wall: WallTime,
    pub init: Arc<Init>,
}

/// An init segment, named after the segment that brought it.
#[derive(Debug)]
pub(crate) struct Init {
    pub msn: u64,
    pub bytes: Bytes,
}

/// The segment that is being made.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub head: Head,
    pub parts: Vec<Part>,
    pub duration: MediaDuration,
    /// The one before was completed without it, when its publisher went.
    pub resumed: bool,
}

/// The state of a rendition, shared by `Arc`.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) id: RenditionId,
    pub(crate) timing: ChannelTiming,
    pub(crate) rule: PartRule,
    pub(crate) discontinuity_sequence: u64,
    /// In the playlist, oldest first.
    pub(crate) listed: Vec<Arc<Segment>>,
    /// Left the playlist, may still be fetched (A9).
    pub(crate) retained: Vec<Arc<Segment>>,
    pub(crate) open: Option<Open>,
    pub(crate) next_msn: u64,
    pub(crate) ended: bool,
    pub(crate) sent: Sent,
    pub(crate) config: Option<Arc<TrackConfig>>,
    pub(crate) frame_rate_milli: Option<u32>,
}

/// `_HLS_msn`, `_HLS_part`, `_HLS_skip` as they came, parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub msn: Option<u64>,
    pub part: Option<u64>,
    pub skip: bool,
}

/// What a playlist request gets (bis 6.2.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Answer with this snapshot.
    Now,
    /// Hold until a later snapshot says `Now`.
    Wait,
    /// Too far ahead, or a part without an msn: 400 with this sentence.
    Refuse(&'static str),
}

/// What a media request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    Here(T),
    /// Hinted or not finished: hold until a later snapshot says otherwise (bis 6.2.6).
    Wait,
    /// Never existed, left the retention time, or is a gap: 404 at once.
    Missing,
}

/// What exists of the rendition: the latest msn (the open segment counts) and its last part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub msn: u64,
    pub part: Option<u64>,
}

impl Segment {
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().filter_map(|p| p.bytes.as_ref()).map(|b| b.len() as u64).sum()
    }
}

impl Snapshot {
    pub fn id(&self) -> &RenditionId {
        &self.id
    }

    /// False until the first part: no playlist to show yet.
    pub fn is_playable(&self) -> bool {
        !self.listed.is_empty() || self.open.as_ref().is_some_and(|open| !open.parts.is_empty())
    }

    pub fn is_ended(&self) -> bool {
        self.ended
    }

    pub fn timing(&self) -> &ChannelTiming {
        &self.timing
    }

    /// PART-TARGET.
    pub fn part_target(&self) -> MediaDuration {
        self.rule.target
    }

    pub fn position(&self) -> Option<Position> {
        if let Some(open) = self.open.as_ref().filter(|open| !open.parts.is_empty()) {
            return Some(Position { msn: open.head.msn, part: Some(open.parts.len() as u64 - 1) });
        }
        let last = self.listed.last()?;
        Some(Position { msn: last.head.msn, part: (last.parts.len() as u64).checked_sub(1) })
    }

    /// Parameters of the newest segment.
    pub fn config(&self) -> Option<&Arc<TrackConfig>> {
        self.config.as_ref()
    }

    /// Frames a second, times 1000, as measured; None for audio or before two frames.
    pub fn frame_rate_milli(&self) -> Option<u32> {
        self.frame_rate_milli
    }

    pub fn media_sequence(&self) -> u64 {
        self.listed.first().map(|s| s.head.msn).or(self.open.as_ref().map(|o| o.head.msn)).unwrap_or(self.next_msn)
    }

    pub fn discontinuity_sequence(&self) -> u64 {
        self.discontinuity_sequence
    }

    /// Bytes of media kept alive by the window and its retention tail.
    pub fn retained_bytes(&self) -> u64 {
        let open = self.open.iter().flat_map(|o| &o.parts).filter_map(|p| p.bytes.as_ref()).map(|b| b.len() as u64);
        self.listed.iter().chain(&self.retained).map(|s| s.bytes()).sum::<u64>() + open.sum::<u64>()
    }

    /// A35 to A41 of bis 6.2.5.2: when a playlist request with these directives is answered.
    pub fn reload(&self, directives: &Directives) -> Reload {
        // A playlist without a whole segment is an error to hls.js. Whoever watched before the server started anew asks so early.
        let begun = self.listed.len() > usize::from(self.last_is_unnamed());
        let now = if begun || self.ended { Reload::Now } else { Reload::Wait };
        let Some(msn) = directives.msn else {
            return match directives.part {
                Some(_) => Reload::Refuse("_HLS_part needs _HLS_msn"),
                None => now,
            };
        };
        if self.ended {
            return Reload::Now;
        }
        // The first segment that the playlist does not name as a whole.
        let open = self.open.as_ref().map_or(self.next_msn, |open| open.head.msn);
        let current = open - u64::from(self.last_is_unnamed());
        if msn > current + 1 {
            return Reload::Refuse("_HLS_msn is too far ahead");
        }
        let Some(part) = directives.part else {
            return if msn < current { now } else { Reload::Wait };
        };
        let parts_of = |msn: u64| self.segment_at(msn).map(|s| s.parts.len() as u64);
        // A part beyond a finished segment's last is the next segment's first.
        let (msn, part) = match parts_of(msn) {
            Some(count) if part >= count => (msn + 1, 0),
            _ => (msn, part),
        };
        if msn < open {
            return now;
        }
        let present = match &self.open {
            Some(open) if open.head.msn == msn => open.parts.len() as u64,
            _ => 0,
        };
        if part < present {
            now
        } else if part + 1 > present + self.parts_ahead() {
            Reload::Refuse("_HLS_part is too far ahead")
        } else {
            Reload::Wait
        }
    }

    /// How far a part index may lie ahead of the last part: three seconds' worth of parts, at least three.
    fn parts_ahead(&self) -> u64 {
        let three_seconds = 3 * media::FLICKS_PER_SECOND;
        u64::try_from(three_seconds / self.rule.target.0.max(1)).unwrap_or(3).max(3)
    }

    /// The media playlist; a delta update where `skip` is asked and worth it. URIs in it are relative:
    /// `init-{msn}.mp4`, `{msn}.m4s`, `{msn}.{part}.m4s`.
    pub fn playlist(&self, skip: bool, reports: &[Report]) -> String {
        media_playlist(self, skip, reports)
    }

    pub fn part(&self, msn: u64, index: u64) -> Lookup<Bytes> {
        let parts = match &self.open {
            Some(open) if open.head.msn == msn => Some(&open.parts),
            _ => self.segment_at(msn).map(|s| &s.parts),
        };
        let found = parts.and_then(|parts| parts.get(usize::try_from(index).ok()?));
        match found {
            Some(Part { bytes: Some(bytes), .. }) => Lookup::Here(bytes.clone()),
            Some(_) => Lookup::Missing,
            None if !self.ended && self.is_next_part(msn, index) => Lookup::Wait,
            None => Lookup::Missing,
        }
    }

    /// A whole segment is the concatenation of its parts' bytes, handed out without joining them.
    pub fn segment(&self, msn: u64) -> Lookup<Arc<[Bytes]>> {
        match self.segment_at(msn) {
            Some(segment) if !segment.gap => {
                Lookup::Here(segment.parts.iter().filter_map(|p| p.bytes.clone()).collect())
            }
            Some(_) => Lookup::Missing,
            None if !self.ended && self.open.as_ref().is_some_and(|o| o.head.msn == msn) => Lookup::Wait,
            None => Lookup::Missing,
        }
    }

    /// The init segment first used by segment `msn`.
    pub fn init(&self, msn: u64) -> Option<Bytes> {
        let heads = self.listed.iter().chain(&self.retained).map(|s| &s.head);
        let mut heads = heads.chain(self.open.iter().map(|o| &o.head));
        heads.find(|h| h.init.msn == msn).map(|h| h.init.bytes.clone())
    }

    /// The last complete segment stands in the playlist by its parts alone until the next one's first part does. A player that
    /// still fetches the last part but one when the whole segment is named may take the last part, when it is short, for
    /// loaded: hls.js then fetches nothing for seconds. What was named when a publisher went stays named (A6).
    pub(crate) fn last_is_unnamed(&self) -> bool {
        let begun = self.open.as_ref().is_some_and(|open| open.parts.is_empty() && !open.resumed);
        begun && !self.ended && self.listed.last().is_some_and(|last| !last.gap)
    }

    /// The part that EXT-X-PRELOAD-HINT names: the open segment's next one, or the next segment's first when the open one
    /// is about to be cut.
    pub(crate) fn hint(&self) -> (u64, u64) {
        match &self.open {
            Some(open) if !self.about_to_cut(open) => (open.head.msn, open.parts.len() as u64),
            Some(open) => (open.head.msn + 1, 0),
            None => (self.next_msn, 0),
        }
    }

    /// The open segment is as long as the one before it was: a source's key frames come in a steady rhythm.
    fn about_to_cut(&self, open: &Open) -> bool {
        let noise = MediaDuration::from_millis(25);
        let usual = self.listed.last().map_or(self.timing.settings.segment_target, |last| last.duration);
        !open.parts.is_empty() && open.duration + noise >= usual
    }

    fn is_next_part(&self, msn: u64, index: u64) -> bool {
        match &self.open {
            Some(open) => {
                (msn, index) == (open.head.msn, open.parts.len() as u64) || (msn, index) == (open.head.msn + 1, 0)
            }
            None => (msn, index) == (self.next_msn, 0),
        }
    }

    fn segment_at(&self, msn: u64) -> Option<&Arc<Segment>> {
        // Each list is a run of consecutive msns.
        let find = |list: &'_ [Arc<Segment>]| {
            let index = usize::try_from(msn.checked_sub(list.first()?.head.msn)?).ok()?;
            (index < list.len()).then_some(index)
        };
        match find(&self.listed) {
            Some(index) => self.listed.get(index),
            None => self.retained.get(find(&self.retained)?),
        }
    }
}
