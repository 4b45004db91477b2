//! A media playlist as its text says it (draft-pantos-hls-rfc8216bis, section 4.4). What cannot be read is told by rule A1, what
//! stands at the wrong place by its own rule.

use super::dates::{micros, unix_micros};
use super::{Findings, Rule};

/// Decimal seconds are compared with this much tolerance, in microseconds: they are rounded.
pub(super) const ROUNDING: i64 = 1;

/// EXT-X-PART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub micros: i64,
    pub uri: &'a str,
    /// Offset and length where the part is a range of its resource.
    pub range: Option<(u64, u64)>,
    pub independent: bool,
    pub gap: bool,
}

/// EXT-X-MAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map<'a> {
    pub uri: &'a str,
    pub range: Option<(u64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// None while the segment is being made.
    pub micros: Option<i64>,
    pub uri: Option<&'a str>,
    pub range: Option<(u64, u64)>,
    pub parts: Vec<Part<'a>>,
    pub discontinuity: bool,
    pub gap: bool,
    /// EXT-X-PROGRAM-DATE-TIME in unix time.
    pub date: Option<i64>,
    /// EXT-X-MAP in force. None where there is none, or where a skipped segment named it.
    pub map: Option<Map<'a>>,
}

/// EXT-X-SERVER-CONTROL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    pub can_block: bool,
    pub can_skip_until: Option<i64>,
    pub skips_dateranges: bool,
    pub hold_back: Option<i64>,
    pub part_hold_back: Option<i64>,
}

/// EXT-X-PRELOAD-HINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint<'a> {
    pub part: bool,
    pub uri: &'a str,
    pub start: Option<u64>,
}

/// EXT-X-RENDITION-REPORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenditionReport<'a> {
    pub uri: &'a str,
    pub last_msn: Option<u64>,
    pub last_part: Option<u64>,
}

/// A media playlist. Segment `n` has msn `media_sequence + skipped + n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Playlist<'a> {
    pub version: Option<u64>,
    pub target_duration: i64,
    pub part_target: Option<i64>,
    pub control: Option<Control>,
    pub media_sequence: u64,
    pub discontinuity_sequence: Option<u64>,
    /// SKIPPED-SEGMENTS of a delta update.
    pub skipped: Option<u64>,
    pub playlist_type: Option<&'a str>,
    pub independent_segments: bool,
    pub i_frames_only: bool,
    pub ended: bool,
    pub hints: Vec<Hint<'a>>,
    pub reports: Vec<RenditionReport<'a>>,
    pub segments: Vec<Segment<'a>>,
}

impl<'a> Playlist<'a> {
    /// None: it cannot be used, and the findings say why.
    pub fn read(text: &'a str, findings: &mut Findings) -> Option<Self> {
        let control = |b: u8| (b < 0x20 && b != b'\n' && b != b'\r') || b == 0x7f;
        findings.must(Rule::A1, !text.bytes().any(control), || "a control character is in the playlist".to_owned());
        let mut lines = text.lines();
        let begun = lines.next().map(str::trim_end) == Some("#EXTM3U");
        findings.must(Rule::A1, begun, || "the first line is not #EXTM3U".to_owned());
        if !begun {
            return None;
        }
        let mut playlist = Self::default();
        let mut target = None;
        let mut open = Segment::default();
        let mut before = None;
        let mut pending_range = None;
        let mut controls = 0;
        let mut versions = 0;
        for line in lines.map(str::trim_end) {
            if !line.starts_with("#EXT") {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                findings.must(Rule::A1, open.micros.is_some(), || format!("a segment without EXTINF: {line:.120}"));
                open.micros.get_or_insert(0);
                open.uri = Some(line);
                open.range = range(pending_range.take(), line, before);
                before = Some((line, open.range));
                let map = open.map;
                playlist.segments.push(std::mem::take(&mut open));
                open.map = map;
                continue;
            }
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            let readable = match tag {
                "#EXT-X-PART" => {
                    let part = read_part(value, open.parts.last());
                    open.parts.extend(part);
                    part.is_some()
                }
                "#EXTINF" => {
                    open.micros = micros(value.split(',').next().unwrap_or_default());
                    open.micros.is_some()
                }
                "#EXT-X-PROGRAM-DATE-TIME" => {
                    belongs_before_parts(findings, &open, tag);
                    open.date = unix_micros(value);
                    open.date.is_some()
                }
                "#EXT-X-DISCONTINUITY" => {
                    belongs_before_parts(findings, &open, tag);
                    open.discontinuity = true;
                    true
                }
                "#EXT-X-MAP" => {
                    belongs_before_parts(findings, &open, tag);
                    let map = read_map(value);
                    open.map = map.or(open.map);
                    map.is_some()
                }
                "#EXT-X-KEY" => {
                    belongs_before_parts(findings, &open, tag);
                    true
                }
                "#EXT-X-GAP" => {
                    open.gap = true;
                    true
                }
                "#EXT-X-BYTERANGE" => {
                    pending_range = Some(value);
                    true
                }
                "#EXT-X-TARGETDURATION" => {
                    // A whole number (bis 4.4.3.1).
                    target = value.parse().ok().and_then(|n: u32| i64::from(n).checked_mul(1_000_000));
                    target.is_some()
                }
                "#EXT-X-VERSION" => {
                    versions += 1;
                    playlist.version = value.parse().ok();
                    playlist.version.is_some()
                }
                "#EXT-X-PART-INF" => {
                    playlist.part_target = attribute(value, "PART-TARGET").and_then(micros);
                    playlist.part_target.is_some()
                }
                "#EXT-X-SERVER-CONTROL" => {
                    controls += 1;
                    let control = read_control(value);
                    playlist.control = control.or(playlist.control);
                    control.is_some()
                }
                "#EXT-X-MEDIA-SEQUENCE" => value.parse().map(|n| playlist.media_sequence = n).is_ok(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                    playlist.discontinuity_sequence = value.parse().ok();
                    playlist.discontinuity_sequence.is_some()
                }
                "#EXT-X-SKIP" => {
                    playlist.skipped = attribute(value, "SKIPPED-SEGMENTS").and_then(|n| n.parse().ok());
                    playlist.skipped.is_some()
                }
                "#EXT-X-PLAYLIST-TYPE" => {
                    playlist.playlist_type = Some(value);
                    true
                }
                "#EXT-X-INDEPENDENT-SEGMENTS" => {
                    playlist.independent_segments = true;
                    true
                }
                "#EXT-X-I-FRAMES-ONLY" => {
                    playlist.i_frames_only = true;
                    true
                }
                "#EXT-X-ENDLIST" => {
                    playlist.ended = true;
                    true
                }
                "#EXT-X-PRELOAD-HINT" => {
                    let hint = read_hint(value);
                    playlist.hints.extend(hint);
                    hint.is_some()
                }
                "#EXT-X-RENDITION-REPORT" => {
                    let report = read_report(value);
                    playlist.reports.extend(report);
                    report.is_some()
                }
                _ => true,
            };
            if !readable {
                findings.must(Rule::A1, false, || format!("cannot be read: {line:.160}"));
            }
        }
        findings.must(Rule::A2, versions <= 1, || format!("EXT-X-VERSION is there {versions} times"));
        findings.must(Rule::A20, controls <= 1, || format!("EXT-X-SERVER-CONTROL is there {controls} times"));
        if !open.parts.is_empty() {
            playlist.segments.push(open);
        }
        findings.must(Rule::A3, target.is_some(), || "there is no EXT-X-TARGETDURATION".to_owned());
        playlist.target_duration = target?;
        // What follows adds these up with 64 bits.
        let listed = playlist.segments.len() as u64 + 2;
        let msns = playlist.media_sequence.checked_add(playlist.skipped.unwrap_or(0));
        let fits = msns.and_then(|n| n.checked_add(listed)).is_some()
            && playlist.discontinuity_sequence.unwrap_or(0).checked_add(listed).is_some();
        findings.must(Rule::A1, fits, || "a sequence number does not fit into 64 bits".to_owned());
        fits.then_some(playlist)
    }

    /// msn of the first segment that is written out.
    pub fn first_msn(&self) -> u64 {
        self.media_sequence + self.skipped.unwrap_or(0)
    }

    /// msn and index of the part that is not listed yet.
    pub fn edge(&self) -> (u64, usize) {
        let after = self.first_msn() + self.segments.len() as u64;
        match self.segments.last() {
            Some(open) if open.uri.is_none() => (after - 1, open.parts.len()),
            _ => (after, 0),
        }
    }

    /// The segment with this msn, if it is written out.
    pub fn segment(&self, msn: u64) -> Option<&Segment<'a>> {
        self.segments.get(usize::try_from(msn.checked_sub(self.first_msn())?).ok()?)
    }

    /// Segments with their msn.
    pub fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &Segment<'a>)> + ExactSizeIterator {
        let first = self.first_msn();
        self.segments.iter().enumerate().map(move |(n, s)| (first + n as u64, s))
    }
}

impl Segment<'_> {
    /// What is listed of it.
    pub fn length(&self) -> i64 {
        let parts = || self.parts.iter().fold(0i64, |sum, p| sum.saturating_add(p.micros));
        self.micros.unwrap_or_else(parts)
    }
}

/// Names and values of an attribute list (bis 4.2), without quotes. It ends at what is no attribute.
pub(super) fn attributes(list: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"')?;
                (value, next.strip_prefix(',').unwrap_or(next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        rest = next;
        Some((key.trim(), value))
    })
}

pub(super) fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    attributes(list).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Rule A18.
fn belongs_before_parts(findings: &mut Findings, open: &Segment<'_>, tag: &str) {
    findings.must(Rule::A18, open.parts.is_empty(), || format!("{tag} stands behind a part of its segment"));
}

fn read_part<'a>(list: &'a str, before: Option<&Part<'a>>) -> Option<Part<'a>> {
    let mut part = Part { micros: -1, uri: "", range: None, independent: false, gap: false };
    let mut ranged = None;
    for (key, value) in attributes(list) {
        match key {
            "DURATION" => part.micros = micros(value)?,
            "URI" => part.uri = value,
            "INDEPENDENT" => part.independent = value == "YES",
            "GAP" => part.gap = value == "YES",
            "BYTERANGE" => ranged = Some(value),
            _ => {}
        }
    }
    if ranged.is_some() {
        part.range = Some(range(ranged, part.uri, before.map(|b| (b.uri, b.range)))?);
    }
    (part.micros >= 0 && !part.uri.is_empty()).then_some(part)
}

fn read_map(list: &str) -> Option<Map<'_>> {
    let uri = attribute(list, "URI")?;
    Some(Map { uri, range: range(attribute(list, "BYTERANGE"), uri, None) })
}

/// `length[@offset]` as offset and length; without an offset it begins behind the range `before` of the same resource.
fn range(text: Option<&str>, uri: &str, before: Option<(&str, Option<(u64, u64)>)>) -> Option<(u64, u64)> {
    let text = text?;
    let (length, offset) = text.split_once('@').map_or((text, None), |(l, o)| (l, Some(o)));
    let length: u64 = length.parse().ok()?;
    let offset = match (offset, before) {
        (Some(offset), _) => offset.parse().ok()?,
        (None, Some((other, Some((start, length))))) if other == uri => start.checked_add(length)?,
        (None, _) => 0u64,
    };
    offset.checked_add(length).map(|_| (offset, length))
}

fn read_control(list: &str) -> Option<Control> {
    let mut control = Control::default();
    for (key, value) in attributes(list) {
        match key {
            "CAN-BLOCK-RELOAD" => control.can_block = value == "YES",
            "CAN-SKIP-DATERANGES" => control.skips_dateranges = value == "YES",
            "CAN-SKIP-UNTIL" => control.can_skip_until = Some(micros(value)?),
            "HOLD-BACK" => control.hold_back = Some(micros(value)?),
            "PART-HOLD-BACK" => control.part_hold_back = Some(micros(value)?),
            _ => {}
        }
    }
    Some(control)
}

fn read_hint(list: &str) -> Option<Hint<'_>> {
    let start = match attribute(list, "BYTERANGE-START") {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(Hint { part: attribute(list, "TYPE")? == "PART", uri: attribute(list, "URI")?, start })
}

fn read_report(list: &str) -> Option<RenditionReport<'_>> {
    let number = |name| attribute(list, name).map(|n| n.parse::<u64>().ok());
    let (last_msn, last_part) = (number("LAST-MSN"), number("LAST-PART"));
    if last_msn == Some(None) || last_part == Some(None) {
        return None;
    }
    Some(RenditionReport { uri: attribute(list, "URI")?, last_msn: last_msn.flatten(), last_part: last_part.flatten() })
}
