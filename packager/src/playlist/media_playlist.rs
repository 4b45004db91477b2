//! Media playlists, whole or as delta updates.
//!
//! The text is written directly: m3u8-rs does not know parts, hints, reports and skips. It is the oracle in the tests.

use std::fmt::Write;

use media::MediaDuration;

use crate::window::{Head, Part, Snapshot};

/// One EXT-X-RENDITION-REPORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Relative to the reporting playlist, for example `../v720/index.m3u8`.
    pub uri: String,
    pub last_msn: u64,
    pub last_part: Option<u64>,
}

/// A segment's share of a playlist, complete or open.
struct Entry<'a> {
    head: &'a Head,
    parts: &'a [Part],
    /// None while it is open.
    complete: Option<Complete>,
}

struct Complete {
    duration: MediaDuration,
    gap: bool,
}

pub(crate) fn media_playlist(snapshot: &Snapshot, skip: bool, reports: &[Report]) -> String {
    let timing = &snapshot.timing;
    let mut out = String::with_capacity(512 + snapshot.listed.len() * 160 + 64 * 48);
    let skipped = if skip && !snapshot.ended { skippable(snapshot) } else { 0 };
    let version = if skipped > 0 { 9 } else { 6 };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{}\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},HOLD-BACK={},CAN-SKIP-UNTIL={}\n\
         #EXT-X-PART-INF:PART-TARGET={}\n#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-DISCONTINUITY-SEQUENCE:{}\n",
        timing.target_duration,
        Seconds(timing.part_hold_back),
        Seconds(timing.hold_back),
        Seconds(timing.can_skip_until),
        Seconds(snapshot.rule.target),
        snapshot.media_sequence(),
        snapshot.discontinuity_sequence,
    );
    if skipped > 0 {
        let _ = writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
    }
    // PART tags go once they lie more than three target durations before the end (bis 6.2.2).
    let mut behind: MediaDuration = snapshot.listed.iter().map(|s| s.duration).fold(MediaDuration::ZERO, |a, d| a + d);
    behind += snapshot.open.as_ref().map_or(MediaDuration::ZERO, |o| o.duration);
    let parts_reach = MediaDuration(timing.target().0 * 3);
    let mut init = None;
    for (index, segment) in snapshot.listed.iter().enumerate() {
        let within_reach = behind <= parts_reach;
        behind -= segment.duration;
        let previous_init = init.replace(segment.head.init.msn);
        if index < skipped {
            continue;
        }
        let last = index + 1 == snapshot.listed.len();
        let entry = Entry {
            head: &segment.head,
            parts: if within_reach { &segment.parts } else { &[] },
            complete: (!(last && snapshot.last_is_unnamed()))
                .then_some(Complete { duration: segment.duration, gap: segment.gap }),
        };
        write_entry(&mut out, &entry, previous_init);
    }
    if let Some(open) = &snapshot.open {
        let entry = Entry { head: &open.head, parts: &open.parts, complete: None };
        if !open.parts.is_empty() {
            write_entry(&mut out, &entry, init);
        }
    }
    if snapshot.ended {
        out.push_str("#EXT-X-ENDLIST\n");
    } else {
        let (msn, part) = snapshot.hint();
        let _ = writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{msn}.{part}.m4s\"");
    }
    for report in reports {
        let _ = write!(out, "#EXT-X-RENDITION-REPORT:URI=\"{}\",LAST-MSN={}", report.uri, report.last_msn);
        if let Some(part) = report.last_part {
            let _ = write!(out, ",LAST-PART={part}");
        }
        out.push('\n');
    }
    out
}

/// How many segments a delta update leaves out: those that end further back than CAN-SKIP-UNTIL (bis 6.2.5.1).
fn skippable(snapshot: &Snapshot) -> usize {
    let mut behind = snapshot.open.as_ref().map_or(MediaDuration::ZERO, |o| o.duration);
    let mut kept = 0;
    for segment in snapshot.listed.iter().rev() {
        if behind > snapshot.timing.can_skip_until {
            break;
        }
        behind += segment.duration;
        kept += 1;
    }
    snapshot.listed.len() - kept
}

fn write_entry(out: &mut String, entry: &Entry<'_>, previous_init: Option<u64>) {
    let head = entry.head;
    if head.discontinuity {
        out.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if previous_init != Some(head.init.msn) {
        let _ = writeln!(out, "#EXT-X-MAP:URI=\"init-{}.mp4\"", head.init.msn);
    }
    let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", head.wall);
    for (index, part) in entry.parts.iter().enumerate() {
        let _ = write!(out, "#EXT-X-PART:DURATION={},URI=\"{}.{index}.m4s\"", Length(part.duration), head.msn);
        if part.independent {
            out.push_str(",INDEPENDENT=YES");
        }
        if part.bytes.is_none() {
            out.push_str(",GAP=YES");
        }
        out.push('\n');
    }
    if let Some(complete) = &entry.complete {
        if complete.gap {
            out.push_str("#EXT-X-GAP\n");
        }
        let _ = writeln!(out, "#EXTINF:{},\n{}.m4s", Length(complete.duration), head.msn);
    }
}

/// Parts and segments are listed this much shorter than they are. Players add durations up to find where the next ones begin;
/// laid a microsecond behind the end of what is buffered, hls.js takes them for what it has and waits for seconds.
const UNDERSTATED: MediaDuration = MediaDuration(media::FLICKS_PER_SECOND / 100_000);

/// Duration of media in seconds with five decimals, rounded down and understated.
struct Length(MediaDuration);

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ten_micros = (self.0.0 / UNDERSTATED.0 - 1).max(1);
        write!(f, "{}.{:05}", ten_micros / 100_000, ten_micros % 100_000)
    }
}

/// Seconds with five decimals, rounded to the nearest.
pub(crate) struct Seconds(pub MediaDuration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ten_micros = (i128::from(self.0.0) * 100_000 + i128::from(media::FLICKS_PER_SECOND / 2))
            / i128::from(media::FLICKS_PER_SECOND);
        write!(f, "{}.{:05}", ten_micros / 100_000, ten_micros % 100_000)
    }
}
