//! Holds what viewers get against docs/conformance.md: every playlist by itself, against the one before, and against the media
//! that it lists. It shares no code with the packager: playlists are read as text, boxes as bytes.
#![allow(clippy::unwrap_used)]

mod media_bytes;
mod read_back;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use packager::{Directives, Lookup, Reload, Rendition, Snapshot};

pub use media_bytes::Frame;
use media_bytes::Timeline;

/// The msn of every watched channel's first segment.
pub const FIRST_MSN: u64 = 100;

#[derive(Clone, Debug, PartialEq)]
pub struct PartLine {
    pub micros: i64,
    pub uri: String,
    pub independent: bool,
    pub gap: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentLines {
    pub msn: u64,
    pub micros: Option<i64>,
    pub parts: Vec<PartLine>,
    pub discontinuity: bool,
    pub gap: bool,
    pub map: Option<String>,
    pub date: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Playlist {
    pub version: u32,
    pub target_duration: i64,
    pub part_target: i64,
    pub media_sequence: u64,
    pub discontinuity_sequence: u64,
    pub skipped: u64,
    pub hint: Option<String>,
    pub ended: bool,
    pub server_control: String,
    pub segments: Vec<SegmentLines>,
}

/// One rendition under watch.
pub struct Watch {
    pub rendition: Rendition,
    shown: Option<Arc<Snapshot>>,
    pub last: Option<Playlist>,
    last_text: Option<String>,
    /// The first msn that was listed: a rendition may begin later than its channel.
    first: Option<u64>,
    /// Every part URI that was ever listed, with its bytes: content at a URI never changes.
    seen: HashMap<String, Bytes>,
    pub media: Timeline,
    /// By how many microseconds the dates of two segments may lie further apart than the first one's listed length.
    pub dates_ahead: RangeInclusive<i64>,
    /// The discontinuity flag of every segment that was ever listed.
    pub discontinuities: BTreeMap<u64, bool>,
}

impl Watch {
    /// `timescale`: ticks a second of the rendition's track.
    pub fn new(rendition: Rendition, timescale: u32) -> Self {
        // A picture's segments begin on whole milliseconds, and sound's dates are cut to them.
        let dates_ahead = if timescale == 90_000 { 10..=20 } else { -1000..=1020 };
        Self {
            dates_ahead,
            rendition,
            shown: None,
            last: None,
            last_text: None,
            first: None,
            seen: HashMap::new(),
            media: Timeline::new(timescale),
            discontinuities: BTreeMap::new(),
        }
    }

    /// Looks at the rendition like a viewer that reloads on every change.
    pub fn check(&mut self) {
        let snapshot = self.rendition.snapshot();
        let same = self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &snapshot));
        if same || !snapshot.is_playable() {
            return;
        }
        let text = snapshot.playlist(false, &[]);
        m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap_or_else(|e| panic!("m3u8-rs: {e}\n{text}"));
        let playlist = parse(&text);
        self.check_one(&snapshot, &playlist, &text);
        if let Some(last) = self.last.take() {
            check_update(&last, &playlist, &text);
        }
        check_reload(&snapshot, &playlist);
        check_delta(&snapshot, &playlist, &text);
        read_back::finds_no_fault(self.last_text.as_deref(), &text, &snapshot.playlist(true, &[]));
        self.media.follow(&snapshot, &playlist, &text);
        self.discontinuities.extend(playlist.segments.iter().map(|s| (s.msn, s.discontinuity)));
        self.last = Some(playlist);
        self.last_text = Some(text);
        self.shown = Some(snapshot);
    }

    fn check_one(&mut self, snapshot: &Snapshot, playlist: &Playlist, text: &str) {
        assert_eq!(playlist.version, 6, "A2 {text}");
        assert_eq!(playlist.segments[0].msn, playlist.media_sequence, "{text}");
        assert!(playlist.segments[0].map.is_some(), "A17: the first segment names its init segment\n{text}");
        let control = |name| micros(attribute(&playlist.server_control, name).unwrap());
        assert!(playlist.server_control.contains("CAN-BLOCK-RELOAD=YES"), "A20 {text}");
        assert!(control("PART-HOLD-BACK") >= 3 * playlist.part_target, "A21 {text}");
        assert!(control("HOLD-BACK") >= 3 * playlist.target_duration, "A21 {text}");
        assert!(control("CAN-SKIP-UNTIL") >= 6 * playlist.target_duration, "A22 {text}");
        let length = |s: &SegmentLines| s.micros.unwrap_or_else(|| s.parts.iter().map(|p| p.micros).sum());
        let mut behind: i64 = playlist.segments.iter().map(length).sum();
        for (index, segment) in playlist.segments.iter().enumerate() {
            assert_eq!(segment.msn, playlist.media_sequence + index as u64, "A5 {text}");
            // Durations are understated, so what is listed never reaches further than the media.
            let reach = 3 * playlist.target_duration;
            assert!(segment.parts.is_empty() || behind <= reach, "A28: stale parts of {}\n{text}", segment.msn);
            behind -= length(segment);
            if let Some(duration) = segment.micros {
                assert!((duration + 500_000) / 1_000_000 * 1_000_000 <= playlist.target_duration, "A3 {text}");
                if !segment.parts.is_empty() {
                    let sum: i64 = segment.parts.iter().map(|p| p.micros).sum();
                    // Each is listed 10 to 20 µs shorter than it is, and none as less than 10 µs.
                    let count = segment.parts.len() as i64;
                    let short = segment.parts.iter().filter(|p| p.micros == 10).count() as i64;
                    let lacking = 10 * (count - short) - 20..=20 * count - 10;
                    assert!(lacking.contains(&(duration - sum)), "A26: {sum} µs of {duration}\n{text}");
                }
            }
            if let Some(map) = &segment.map {
                let msn = map.trim_start_matches("init-").trim_end_matches(".mp4").parse().unwrap();
                let init = snapshot.init(msn).unwrap_or_else(|| panic!("A17: {map} is listed and missing\n{text}"));
                let first = self.seen.entry(map.clone()).or_insert_with(|| init.clone());
                assert_eq!(*first, init, "A17: content at {map} changed");
            }
            self.check_parts(snapshot, playlist, segment, text);
        }
        for pair in playlist.segments.windows(2) {
            if let (Some(length), false) = (pair[0].micros, pair[1].discontinuity) {
                let [from, to] = [&pair[0], &pair[1]].map(|s| millis_of_day(s.date.as_ref().unwrap()));
                let ahead = (to - from) * 1000 - length;
                assert!(self.dates_ahead.contains(&ahead), "A16: {ahead} µs from {} on\n{text}", pair[0].msn);
            }
        }
        // A8: at least three target durations stay listed once something was removed.
        let listed: i64 = playlist.segments.iter().filter_map(|s| s.micros).sum();
        if playlist.media_sequence > *self.first.get_or_insert(playlist.media_sequence) {
            assert!(listed >= 3 * playlist.target_duration, "A8 {text}");
        }
        assert_eq!(playlist.hint.is_none(), playlist.ended, "A29 {text}");
        if let Some(hint) = &playlist.hint {
            let (msn, part) = hint.trim_end_matches(".m4s").split_once('.').unwrap();
            let found = snapshot.part(msn.parse().unwrap(), part.parse().unwrap());
            assert_eq!(found, Lookup::Wait, "A30: what is hinted is held\n{text}");
            let last = playlist.segments.last().unwrap();
            if is_unnamed(snapshot, last) {
                assert_eq!(*hint, format!("{}.0.m4s", last.msn + 1), "A29 {text}");
            }
        }
    }

    fn check_parts(&mut self, snapshot: &Snapshot, playlist: &Playlist, segment: &SegmentLines, text: &str) {
        for (index, part) in segment.parts.iter().enumerate() {
            assert_eq!(part.uri, format!("{}.{index}.m4s", segment.msn), "{text}");
            assert!(part.micros <= playlist.part_target, "A23 {text}");
            // Of an open segment the last part listed may turn out to be its last.
            let last = index + 1 == segment.parts.len();
            let before_gap = segment.parts.get(index + 1).is_some_and(|next| next.gap);
            let exempt = part.gap || part.independent || last || before_gap;
            assert!(exempt || part.micros * 100 >= playlist.part_target * 85, "A24 {part:?}\n{text}");
            match snapshot.part(segment.msn, index as u64) {
                Lookup::Here(bytes) => {
                    assert!(!part.gap, "{text}");
                    let first = self.seen.entry(part.uri.clone()).or_insert_with(|| bytes.clone());
                    assert_eq!(*first, bytes, "content at {} changed", part.uri);
                }
                other => assert!(part.gap && other == Lookup::Missing, "A11 {part:?} {other:?}\n{text}"),
            }
        }
        if segment.micros.is_some() && !segment.gap {
            let Lookup::Here(chunks) = snapshot.segment(segment.msn) else { panic!("A11 {text}") };
            assert_eq!(chunks.concat(), parts_of(snapshot, segment.msn).concat(), "A26 {text}");
        }
        if segment.gap {
            assert!(segment.parts.iter().all(|part| part.gap), "A44 {text}");
            assert_eq!(snapshot.segment(segment.msn), Lookup::Missing, "A44 {text}");
        }
    }
}

/// The segment is complete, and listed by its parts alone until the next one has a part.
fn is_unnamed(snapshot: &Snapshot, segment: &SegmentLines) -> bool {
    segment.micros.is_none() && matches!(snapshot.segment(segment.msn), Lookup::Here(_))
}

/// Of a date as playlists have it, `2026-11-21T02:03:04.567Z`; no test lasts over midnight.
pub fn millis_of_day(date: &str) -> i64 {
    let number = |from: usize, to: usize| date[from..to].parse::<i64>().unwrap();
    ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
}

/// Bytes of a segment's parts that are no gaps; a segment has far fewer parts than this looks for.
fn parts_of(snapshot: &Snapshot, msn: u64) -> Vec<Bytes> {
    let part = |index| match snapshot.part(msn, index) {
        Lookup::Here(bytes) => Some(bytes),
        _ => None,
    };
    (0..64).filter_map(part).collect()
}

/// Decimal seconds as microseconds, without floats.
fn micros(text: &str) -> i64 {
    let (whole, fraction) = text.split_once('.').unwrap();
    assert_eq!(fraction.len(), 5, "A4: five decimals: {text}");
    whole.parse::<i64>().unwrap() * 1_000_000 + fraction.parse::<i64>().unwrap() * 10
}

/// The value of the attribute; no value of ours holds a comma or an equals sign.
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let attributes = line.split([':', ',']).filter_map(|attribute| attribute.split_once('='));
    attributes.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.trim_matches('"'))
}

/// Reads a playlist and checks its form: A1, A7, A13, A15, A18 to A20, A29.
pub fn parse(text: &str) -> Playlist {
    let mut playlist = Playlist::default();
    let mut open = SegmentLines::default();
    let mut count: HashMap<&str, u32> = HashMap::new();
    assert!(text.starts_with("#EXTM3U\n"), "A1");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "A1 {text}");
    for line in text.lines().skip(1) {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        *count.entry(tag).or_default() += 1;
        // A18: what belongs to the segment stands before its first part.
        let before_parts = matches!(tag, "#EXT-X-DISCONTINUITY" | "#EXT-X-MAP" | "#EXT-X-PROGRAM-DATE-TIME");
        assert!(!before_parts || open.parts.is_empty(), "A18 {text}");
        match tag {
            "#EXT-X-VERSION" => playlist.version = value.parse().unwrap(),
            "#EXT-X-TARGETDURATION" => playlist.target_duration = value.parse::<i64>().unwrap() * 1_000_000,
            "#EXT-X-PART-INF" => playlist.part_target = micros(attribute(line, "PART-TARGET").unwrap()),
            "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.parse().unwrap(),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => playlist.discontinuity_sequence = value.parse().unwrap(),
            "#EXT-X-SKIP" => playlist.skipped = attribute(line, "SKIPPED-SEGMENTS").unwrap().parse().unwrap(),
            "#EXT-X-SERVER-CONTROL" => playlist.server_control = value.to_owned(),
            "#EXT-X-DISCONTINUITY" => open.discontinuity = true,
            "#EXT-X-GAP" => open.gap = true,
            "#EXT-X-MAP" => open.map = attribute(line, "URI").map(str::to_owned),
            "#EXT-X-PROGRAM-DATE-TIME" => open.date = Some(value.to_owned()),
            "#EXT-X-PRELOAD-HINT" => playlist.hint = attribute(line, "URI").map(str::to_owned),
            "#EXT-X-ENDLIST" => playlist.ended = true,
            "#EXT-X-PART" => {
                assert!(open.date.is_some(), "A18 {text}");
                open.parts.push(PartLine {
                    micros: micros(attribute(line, "DURATION").unwrap()),
                    uri: attribute(line, "URI").unwrap().to_owned(),
                    independent: attribute(line, "INDEPENDENT") == Some("YES"),
                    gap: attribute(line, "GAP") == Some("YES"),
                });
            }
            "#EXTINF" => open.micros = Some(micros(value.strip_suffix(',').unwrap())),
            // A7: no playlist type; A19: segments are not declared to be independent.
            tag if tag.starts_with('#') => panic!("unexpected: {line}"),
            uri => {
                open.msn = uri.trim_end_matches(".m4s").parse().unwrap();
                assert!(open.date.is_some(), "A15 {text}");
                playlist.segments.push(std::mem::take(&mut open));
            }
        }
    }
    if open.date.is_some() {
        assert!(!open.parts.is_empty(), "an open segment without parts is listed\n{text}");
        open.msn = open.parts[0].uri.split('.').next().unwrap().parse().unwrap();
        playlist.segments.push(open);
    }
    for once in ["VERSION", "TARGETDURATION", "SERVER-CONTROL", "PART-INF", "MEDIA-SEQUENCE", "DISCONTINUITY-SEQUENCE"]
    {
        assert_eq!(count.get(format!("#EXT-X-{once}").as_str()), Some(&1), "A2, A13, A20: {once} stands once\n{text}");
    }
    assert!(count.get("#EXT-X-PRELOAD-HINT").is_none_or(|n| *n == 1), "A29 {text}");
    playlist
}

/// A6, A25: only the allowed edits between two playlists.
fn check_update(last: &Playlist, now: &Playlist, text: &str) {
    assert!(!last.ended, "A6: nothing follows ENDLIST\n{text}");
    assert_eq!(last.target_duration, now.target_duration, "A3 {text}");
    assert_eq!(last.part_target, now.part_target, "A25 {text}");
    assert_eq!(last.server_control, now.server_control, "A20 {text}");
    assert!(now.media_sequence >= last.media_sequence, "A5 {text}");
    let removed = last.segments.iter().filter(|s| s.msn < now.media_sequence && s.discontinuity).count() as u64;
    assert_eq!(now.discontinuity_sequence, last.discontinuity_sequence + removed, "A13 {text}");
    for before in &last.segments {
        let Some(after) = now.segments.iter().find(|s| s.msn == before.msn) else {
            assert!(before.msn < now.media_sequence, "A6: segment {} vanished\n{text}", before.msn);
            continue;
        };
        assert_eq!((before.discontinuity, &before.date), (after.discontinuity, &after.date), "A6 {text}");
        if before.micros.is_some() {
            assert_eq!(before.micros, after.micros, "A6 {text}");
        }
        if !after.parts.is_empty() {
            assert_eq!(before.parts[..], after.parts[..before.parts.len()], "A6 {text}");
        }
    }
}

/// A35 to A39: what a reload gets, against the text of the playlist.
fn check_reload(snapshot: &Snapshot, playlist: &Playlist) {
    let ask = |msn, part| snapshot.reload(&Directives { msn, part, skip: false });
    assert!(matches!(ask(None, Some(0)), Reload::Refuse(_)), "A37");
    if playlist.segments.iter().all(|s| s.micros.is_none()) && !playlist.ended {
        assert_eq!(ask(None, None), Reload::Wait, "A41: there is no playlist before the first whole segment");
        assert_eq!(ask(Some(0), None), Reload::Wait, "A41");
        return;
    }
    assert_eq!(ask(None, None), Reload::Now, "A41");
    let position = snapshot.position().unwrap();
    let part = position.part.unwrap();
    assert_eq!(ask(Some(position.msn), Some(part)), Reload::Now, "A35");
    assert_eq!(ask(Some(0), None), Reload::Now, "A38: no longer listed is answered");
    if matches!(snapshot.segment(position.msn), Lookup::Wait) {
        assert_eq!(ask(Some(position.msn), None), Reload::Wait, "A35: an msn alone waits for the whole segment");
        assert_eq!(ask(Some(position.msn), Some(part + 1)), Reload::Wait, "A35");
        assert_eq!(ask(Some(position.msn + 1), Some(0)), Reload::Wait, "A35");
        assert_eq!(ask(Some(position.msn - 1), Some(9999)), ask(Some(position.msn), Some(0)), "A36");
        assert!(matches!(ask(Some(position.msn + 2), None), Reload::Refuse(_)), "A39");
        assert!(matches!(ask(Some(position.msn), Some(part + 100)), Reload::Refuse(_)), "A39");
    }
    if is_unnamed(snapshot, playlist.segments.last().unwrap()) {
        assert_eq!(ask(Some(position.msn), None), Reload::Wait, "A35: not yet named as a whole");
        assert_eq!(ask(Some(position.msn), Some(part + 1)), Reload::Wait, "A36");
        assert_eq!(ask(Some(position.msn + 1), Some(0)), Reload::Wait, "A35");
        assert!(matches!(ask(Some(position.msn + 2), None), Reload::Refuse(_)), "A39");
    }
    assert_eq!(snapshot.part(position.msn + 3, 0), Lookup::Missing, "A31");
}

/// A34: a delta update is the playlist without its oldest segments, down to CAN-SKIP-UNTIL from the end.
fn check_delta(snapshot: &Snapshot, whole: &Playlist, text: &str) {
    let answer = snapshot.playlist(true, &[]);
    let delta = parse(&answer);
    if delta.skipped == 0 {
        assert_eq!(answer, text, "A34: with nothing to skip it is the plain playlist");
        return;
    }
    assert_eq!(delta.version, 9, "A2 {answer}");
    assert_eq!(delta.media_sequence, whole.media_sequence, "A34");
    assert_eq!(delta.discontinuity_sequence, whole.discontinuity_sequence, "A34");
    assert_eq!(delta.segments[..], whole.segments[delta.skipped as usize..], "A34");
    let length = |s: &SegmentLines| s.micros.unwrap_or_else(|| s.parts.iter().map(|p| p.micros).sum());
    let kept: i64 = delta.segments.iter().map(length).sum();
    let until = micros(attribute(&delta.server_control, "CAN-SKIP-UNTIL").unwrap());
    assert!(kept + 1000 >= until, "A34: only {kept} µs are left\n{answer}");
}
