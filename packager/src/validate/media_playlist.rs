//! The rules of one media playlist, of a reload against what came before, and of two renditions against each other.

use super::read::{Playlist, ROUNDING, Segment};
use super::{Findings, Rule};

const SECOND: i64 = 1_000_000;

/// Rules that a playlist keeps by itself. `seen`: the edge of an earlier one; segments and parts before it have been looked at.
pub fn check_one(now: &Playlist<'_>, seen: Option<(u64, usize)>, findings: &mut Findings) {
    check_head(now, findings);
    let edge = now.edge();
    let seen = seen.filter(|seen| *seen <= edge).unwrap_or((0, 0));
    let with_parts = now.numbered().find(|(_, s)| !s.parts.is_empty()).map(|(msn, _)| msn);
    let mut before: Option<&Segment<'_>> = None;
    for (msn, segment) in now.numbered() {
        let previous = before.replace(segment);
        // Complete, and not so before: the edge has gone over it.
        let fresh = segment.uri.is_some() && (msn + 1, 0) > seen;
        if fresh {
            check_segment(now, msn, segment, with_parts == Some(msn), findings);
        }
        if (msn, 0) >= seen
            && let (Some(previous), Some(date)) = (previous, segment.date)
            && let (Some(earlier), Some(length)) = (previous.date, previous.micros)
            && !segment.discontinuity
        {
            let off = date.saturating_sub(earlier).saturating_sub(length);
            findings.must(Rule::A16, off.abs() < SECOND, || {
                format!("the date of segment {msn} is {} off its predecessor's date and length", Seconds(off))
            });
        }
        if (msn + 1, 0) > seen {
            check_parts(now, msn, segment, seen, findings);
        }
    }
    check_edge(now, findings);
}

/// What a reload may change.
pub fn check_update(before: &Playlist<'_>, now: &Playlist<'_>, findings: &mut Findings) {
    let same = (before.target_duration, now.target_duration);
    findings.must(Rule::A3, same.0 == same.1, || {
        format!("EXT-X-TARGETDURATION went from {} to {}", same.0 / SECOND, same.1 / SECOND)
    });
    findings.must(Rule::A25, before.part_target == now.part_target, || "PART-TARGET changed".to_owned());
    findings.must(Rule::A20, before.control == now.control, || "EXT-X-SERVER-CONTROL changed".to_owned());
    let (was, is) = (before.media_sequence, now.media_sequence);
    findings.must(Rule::A5, is >= was, || format!("EXT-X-MEDIA-SEQUENCE went back from {was} to {is}"));
    if is < was {
        // Nothing below can be compared any more.
        return;
    }
    findings.must(Rule::A6, now.edge() >= before.edge(), || {
        let ((a, b), (c, d)) = (before.edge(), now.edge());
        format!("the end of the list went back from segment {a} part {b} to segment {c} part {d}")
    });
    findings.must(Rule::A6, !before.ended || now == before, || "the playlist changed behind EXT-X-ENDLIST".to_owned());
    if is > was {
        findings.must(Rule::A7, now.playlist_type.is_none(), || "it slides and has EXT-X-PLAYLIST-TYPE".to_owned());
        check_window(now, findings);
    }
    check_discontinuity_sequence(before, now, findings);
    for (msn, old) in before.numbered().filter(|(msn, _)| *msn >= now.first_msn()) {
        let Some(new) = now.segment(msn) else { continue };
        let parts = new.parts.starts_with(&old.parts) || (new.uri.is_some() && new.parts.len() < old.parts.len());
        let mut same = |same: bool, what: &str| {
            findings.must(Rule::A6, same, || format!("{what} of segment {msn} changed after it was listed"));
        };
        same(parts, "the parts");
        same(old.uri.is_none() || old.micros == new.micros, "the duration");
        same(old.uri.is_none() || (old.uri, old.range) == (new.uri, new.range), "the URI");
        same(old.discontinuity == new.discontinuity, "EXT-X-DISCONTINUITY");
        same(old.date.is_none() || old.date == new.date, "EXT-X-PROGRAM-DATE-TIME");
        // A delta update does not say what a skipped segment said.
        same(old.map.is_none() || new.map.is_none() || old.map == new.map, "EXT-X-MAP");
    }
    check_hinted(before, now, findings);
}

/// A delta update against what is known from before (bis 6.2.5.1).
pub fn check_delta(before: &Playlist<'_>, now: &Playlist<'_>, findings: &mut Findings) {
    let Some(skipped) = now.skipped else { return };
    findings.must(Rule::A34, skipped > 0, || "EXT-X-SKIP skips nothing".to_owned());
    let known = now.media_sequence >= before.media_sequence && now.first_msn() <= before.edge().0;
    findings.must(Rule::A34, known, || "it skips segments that were never listed to who asks".to_owned());
    if let Some(until) = now.control.and_then(|c| c.can_skip_until) {
        let kept = length(now);
        let slack = now.segments.len() as i64 * 1000;
        findings.must(Rule::A34, kept.saturating_add(slack) >= until, || {
            format!("only {} is left, CAN-SKIP-UNTIL is {}", Seconds(kept), Seconds(until))
        });
    }
}

/// Two media playlists of the same channel, each with a name, from about the same moment.
pub fn check_across(a: (&str, &Playlist<'_>), b: (&str, &Playlist<'_>), findings: &mut Findings) {
    let ((name_a, a), (name_b, b)) = (a, b);
    findings.must(Rule::A58, a.target_duration == b.target_duration, || {
        format!("EXT-X-TARGETDURATION differs between {name_a} and {name_b}")
    });
    findings.must(Rule::A20, a.control == b.control, || {
        format!("EXT-X-SERVER-CONTROL differs between {name_a} and {name_b}")
    });
    // The middle of each segment of one, sought in the other. Both are in order, so one walk suffices.
    let numbers = |p: &Playlist<'_>| -> Vec<(i64, i64, u64)> {
        let mut number = p.discontinuity_sequence.unwrap_or(0);
        let spans = p.segments.iter().map(|s| {
            number += u64::from(s.discontinuity);
            Some((s.date?, s.date?.saturating_add(s.length()), number))
        });
        spans.flatten().collect()
    };
    // What a delta update left out may hold discontinuities.
    if a.skipped.is_some() || b.skipped.is_some() {
        return;
    }
    let others = numbers(b);
    let mut at = 0;
    for (start, end, number) in numbers(a) {
        let middle = start / 2 + end / 2;
        while others.get(at).is_some_and(|(_, end, _)| *end <= middle) {
            at += 1;
        }
        if let Some((start, _, other)) = others.get(at)
            && *start <= middle
        {
            findings.must(Rule::A14, number == *other, || {
                format!("at the same time the discontinuity number is {number} in {name_a} and {other} in {name_b}")
            });
        }
    }
}

fn check_head(now: &Playlist<'_>, findings: &mut Findings) {
    let low_latency = now.part_target.is_some();
    let has_map = now.segments.iter().any(|s| s.map.is_some());
    let has_ranges = now.segments.iter().any(|s| s.range.is_some());
    let needed = match () {
        () if now.skipped.is_some() => 9,
        () if has_map && !now.i_frames_only => 6,
        () if has_ranges || now.i_frames_only => 4,
        () => 1,
    };
    let declared = now.version.unwrap_or(1);
    findings.must(Rule::A2, declared >= needed, || format!("EXT-X-VERSION is {declared}, {needed} is needed"));
    if let Some(control) = now.control {
        let target = now.target_duration;
        if let Some(hold_back) = control.hold_back {
            findings.must(Rule::A21, hold_back.saturating_add(ROUNDING) >= 3 * target, || {
                format!("HOLD-BACK {} is less than three target durations", Seconds(hold_back))
            });
        }
        if let Some(until) = control.can_skip_until {
            findings.must(Rule::A22, until.saturating_add(ROUNDING) >= 6 * target, || {
                format!("CAN-SKIP-UNTIL {} is less than six target durations", Seconds(until))
            });
        }
        findings.must(Rule::A22, !control.skips_dateranges || control.can_skip_until.is_some(), || {
            "CAN-SKIP-DATERANGES without CAN-SKIP-UNTIL".to_owned()
        });
    }
    if let Some(part_target) = now.part_target {
        let control = now.control.unwrap_or_default();
        findings.should(Rule::A20, control.can_block || now.ended, || "parts without CAN-BLOCK-RELOAD=YES".to_owned());
        let hold_back = control.part_hold_back;
        findings.must(Rule::A21, hold_back.is_some(), || "EXT-X-PART-INF without PART-HOLD-BACK".to_owned());
        if let Some(hold_back) = hold_back {
            let times = |n: i64| hold_back.saturating_add(ROUNDING) >= part_target.saturating_mul(n);
            let say = |n| format!("PART-HOLD-BACK {} is less than {n} × PART-TARGET", Seconds(hold_back));
            findings.must(Rule::A21, times(2), || say(2));
            findings.should(Rule::A21, times(3), || say(3));
        }
    }
    let no_stray = low_latency || now.segments.iter().all(|s| s.parts.is_empty());
    findings.must(Rule::A23, no_stray, || "EXT-X-PART without EXT-X-PART-INF".to_owned());
    let live = !now.ended && !now.segments.is_empty() && now.skipped.is_none();
    if live {
        let dated = now.segments.iter().any(|s| s.date.is_some());
        let say = || "there is no EXT-X-PROGRAM-DATE-TIME".to_owned();
        if low_latency {
            findings.must(Rule::A15, dated, say);
        } else {
            findings.should(Rule::A15, dated, say);
        }
    }
    let broken = now.segments.iter().any(|s| s.discontinuity);
    findings.must(Rule::A13, !broken || now.ended || now.discontinuity_sequence.is_some(), || {
        "a live playlist has EXT-X-DISCONTINUITY and no EXT-X-DISCONTINUITY-SEQUENCE".to_owned()
    });
}

fn check_segment(now: &Playlist<'_>, msn: u64, segment: &Segment<'_>, parts_cut: bool, findings: &mut Findings) {
    let duration = segment.length();
    let rounded = duration.saturating_add(SECOND / 2) / SECOND * SECOND;
    findings.must(Rule::A3, rounded <= now.target_duration, || {
        format!("segment {msn} lasts {}, EXT-X-TARGETDURATION is {}", Seconds(duration), now.target_duration / SECOND)
    });
    let path = segment.uri.unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
    let fragmented = [".m4s", ".mp4", ".cmfv", ".cmfa", ".m4v", ".m4a"].iter().any(|end| path.ends_with(end));
    if fragmented && now.skipped.is_none() {
        findings.must(Rule::A17, segment.map.is_some(), || format!("no EXT-X-MAP before segment {msn}"));
    }
    if segment.parts.is_empty() {
        return;
    }
    let sum = segment.parts.iter().fold(0i64, |sum, p| sum.saturating_add(p.micros));
    // Each part is rounded by itself, to milliseconds at the coarsest.
    let slack = 1000 + 1000 * segment.parts.len() as i64;
    // Of the first segment that has parts some may have gone already.
    let equal = sum <= duration.saturating_add(slack) && (parts_cut || sum.saturating_add(slack) >= duration);
    findings.must(Rule::A26, equal, || {
        format!("segment {msn} lasts {}, its parts together {}", Seconds(duration), Seconds(sum))
    });
}

/// Parts that were not there at `seen`.
fn check_parts(now: &Playlist<'_>, msn: u64, segment: &Segment<'_>, seen: (u64, usize), findings: &mut Findings) {
    let target = now.part_target.unwrap_or(i64::MAX - ROUNDING);
    let mut before: Option<(usize, i64, bool)> = None;
    for (index, part) in segment.parts.iter().enumerate() {
        // Whether a part was its segment's last is known once the next one is there.
        let earlier = before.replace((index, part.micros, part.independent || part.gap));
        if (msn, index) < seen {
            continue;
        }
        findings.must(Rule::A23, part.micros <= target + ROUNDING, || {
            format!("part {index} of segment {msn} lasts {}, PART-TARGET is {}", Seconds(part.micros), Seconds(target))
        });
        if let (Some((index, micros, false)), Some(target), false) = (earlier, now.part_target, part.gap) {
            let least = target.saturating_mul(17) / 20;
            findings.must(Rule::A24, micros.saturating_add(20 * ROUNDING) >= least, || {
                format!(
                    "part {index} of segment {msn} lasts {}, 85 % of PART-TARGET are {}",
                    Seconds(micros),
                    Seconds(least)
                )
            });
        }
        if now.independent_segments && index == 0 && !part.gap {
            findings
                .must(Rule::A19, part.independent, || format!("segment {msn} does not begin with an independent part"));
        }
    }
}

/// Rules A28 and A29.
fn check_edge(now: &Playlist<'_>, findings: &mut Findings) {
    if now.part_target.is_some() {
        let mut behind = 0i64;
        let mut stale = None;
        for (msn, segment) in now.numbered().rev() {
            if behind > 3 * now.target_duration && !segment.parts.is_empty() {
                stale = Some(msn);
            }
            behind = behind.saturating_add(segment.length());
        }
        findings.should(Rule::A28, stale.is_none() || now.ended, || {
            format!("segment {} still has parts", stale.unwrap_or_default())
        });
        let hinted = now.hints.iter().any(|h| h.part);
        findings.should(Rule::A29, now.ended || hinted, || "the next part is not hinted".to_owned());
    }
    let of = |part| now.hints.iter().filter(|h| h.part == part).count();
    findings.should(Rule::A29, of(true) <= 1 && of(false) <= 1, || "two hints of one type".to_owned());
    findings.must(Rule::A29, !now.ended || now.hints.is_empty(), || "a hint behind the end".to_owned());
    for report in &now.reports {
        let uri = report.uri;
        findings.must(Rule::A33, report.last_msn.is_some(), || format!("the report of {uri} lacks LAST-MSN"));
        // Needed where the other rendition has parts, which is not said here.
        findings.should(Rule::A33, now.part_target.is_none() || report.last_part.is_some(), || {
            format!("the report of {uri} lacks LAST-PART")
        });
    }
}

/// Rule A8, once something has been removed.
fn check_window(now: &Playlist<'_>, findings: &mut Findings) {
    if now.ended || now.skipped.is_some() {
        return;
    }
    let listed = length(now);
    findings.must(Rule::A8, listed.saturating_add(1000) >= 3 * now.target_duration, || {
        format!("only {} is listed after a removal", Seconds(listed))
    });
    let count = now.segments.iter().filter(|s| s.uri.is_some()).count();
    findings.should(Rule::A8, count >= 6, || format!("only {count} segments are listed"));
}

/// Rule A13, where all that was removed is known.
fn check_discontinuity_sequence(before: &Playlist<'_>, now: &Playlist<'_>, findings: &mut Findings) {
    let (was, is) = (before.discontinuity_sequence.unwrap_or(0), now.discontinuity_sequence.unwrap_or(0));
    findings.must(Rule::A13, is >= was, || format!("EXT-X-DISCONTINUITY-SEQUENCE went back from {was} to {is}"));
    let all_known = before.skipped.is_none() && now.media_sequence <= before.edge().0;
    if all_known && is >= was {
        let removed = before.numbered().filter(|(msn, s)| *msn < now.media_sequence && s.discontinuity).count() as u64;
        findings.must(Rule::A13, is - was == removed, || {
            format!("EXT-X-DISCONTINUITY-SEQUENCE rose by {}, {removed} discontinuities left the list", is - was)
        });
    }
}

/// Rule A29: what was hinted is what came, or is still to come.
fn check_hinted(before: &Playlist<'_>, now: &Playlist<'_>, findings: &mut Findings) {
    let (msn, index) = before.edge();
    let Some(hint) = before.hints.iter().find(|h| h.part) else { return };
    // A hint of the next segment's first part may have been early, and a segment may have ended before it was expected to.
    let Some(came) = now.segment(msn).and_then(|s| s.parts.get(index)) else { return };
    let listed = || now.segments.iter().rev().take(3).flat_map(|s| &s.parts).any(|p| p.uri == hint.uri);
    let still = now.hints.iter().any(|h| h == hint);
    let next = now.segment(msn).is_none_or(|s| s.uri.is_none());
    findings.should(Rule::A29, came.uri == hint.uri || still || listed() || next, || {
        format!("{} was hinted, {} came", hint.uri, came.uri)
    });
}

fn length(playlist: &Playlist<'_>) -> i64 {
    playlist.segments.iter().fold(0, |sum, s| sum.saturating_add(s.length()))
}

/// Microseconds as seconds for people.
struct Seconds(i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:05} s", micros / 1_000_000, micros % 1_000_000 / 10)
    }
}
