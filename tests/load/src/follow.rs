//! The follower: media playlists in, the next blocking reload and the parts to fetch out. Pure.
//!
//! It asks as hls.js does: the next part by `_HLS_msn` and `_HLS_part`, a delta update where the server makes them, each
//! part once it is listed. Every answer is held against the one before it (draft-pantos-hls-rfc8216bis §6.2).

use std::sync::Arc;

use url::Url;

use crate::playlist::{Playlist, Segment};

/// Durations are written with few digits: this much more than the target is not a longer part.
const ROUNDING: i64 = 1_000;

/// One rendition as one viewer follows it.
#[derive(Debug)]
pub struct Follower {
    url: Url,
    before: Option<Arc<Playlist>>,
    /// The first msn of which this viewer knows everything up to the end; a delta update may skip from here on.
    known_from: u64,
    init: Option<Url>,
}

/// What an answer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// In order; an init segment before the first part that needs it. At most what one playlist lists.
    pub wanted: Vec<Wanted>,
    pub ended: bool,
}

/// Something to fetch.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub url: Url,
    /// Offset and length.
    pub range: Option<(u64, u64)>,
    /// None: an init segment.
    pub part: Option<Place>,
}

/// Which part it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub msn: u64,
    pub part: usize,
    /// This viewer waited for it with a blocking reload; false for what was there when it came.
    pub awaited: bool,
    /// When it ended by EXT-X-PROGRAM-DATE-TIME, microseconds of unix time.
    pub end: Option<i64>,
}

/// A broken promise of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// No blocking reload, or no parts: there is nothing to measure.
    NotLowLatency,
    /// A blocking reload was answered without the part that it asked for.
    Early,
    /// The playlist went on so far that media between two answers is not known.
    Missed,
    /// Numbers went back, or what was listed changed; with the rule.
    History(&'static str),
    /// A rule for one playlist is broken.
    Rule(&'static str),
}

impl Follower {
    /// `url`: of the media playlist, behind redirections.
    pub fn new(url: Url) -> Self {
        Self { url, before: None, known_from: 0, init: None }
    }

    /// The reload to send next.
    pub fn request(&self) -> Url {
        let mut url = self.url.clone();
        if let Some(before) = &self.before {
            let (msn, part) = before.next();
            let skip = if before.can_skip { "&_HLS_skip=YES" } else { "" };
            let query = match url.query() {
                Some(own) if !own.is_empty() => format!("{own}&_HLS_msn={msn}&_HLS_part={part}{skip}"),
                _ => format!("_HLS_msn={msn}&_HLS_part={part}{skip}"),
            };
            url.set_query(Some(&query));
        }
        url
    }

    /// The same without a delta update and for the segment behind the next one: held as long as a server allows.
    pub fn longest(&self) -> Option<Url> {
        let (msn, _) = self.before.as_ref()?.next();
        let mut url = self.url.clone();
        let own = url.query().map(|q| format!("{q}&")).unwrap_or_default();
        url.set_query(Some(&format!("{own}_HLS_msn={}", msn + 1)));
        Some(url)
    }

    /// Takes the answer to the request. Err: the server broke a promise; the follower is of no further use.
    pub fn take(&mut self, playlist: Arc<Playlist>) -> Result<Step, Broken> {
        if !playlist.ended && (!playlist.can_block || playlist.part_target.is_none()) {
            return Err(Broken::NotLowLatency);
        }
        check(&playlist)?;
        let step = match self.before.take() {
            None if playlist.skipped > 0 => return Err(Broken::History("a delta update that was not asked for")),
            None => {
                self.known_from = playlist.media_sequence;
                let (msn, part) = start(&playlist);
                self.step(&playlist, msn, part, false)
            }
            Some(before) => {
                if before != playlist {
                    self.compare(&before, &playlist)?;
                }
                let (msn, part) = before.next();
                if !playlist.ended && playlist.next() <= (msn, part) {
                    return Err(Broken::Early);
                }
                self.step(&playlist, msn, part, true)
            }
        };
        self.before = Some(playlist);
        Ok(step)
    }

    fn compare(&mut self, before: &Playlist, after: &Playlist) -> Result<(), Broken> {
        let same = |same: bool, rule| if same { Ok(()) } else { Err(Broken::History(rule)) };
        same(before.target_duration == after.target_duration, "EXT-X-TARGETDURATION changed")?;
        same(before.part_target == after.part_target, "PART-TARGET changed")?;
        same(after.media_sequence >= before.media_sequence, "EXT-X-MEDIA-SEQUENCE went back")?;
        same(after.discontinuity_sequence >= before.discontinuity_sequence, "EXT-X-DISCONTINUITY-SEQUENCE went back")?;
        same(after.next() >= before.next(), "listed media is gone from the end")?;
        let (edge, part) = before.next();
        if after.media_sequence > edge || (after.media_sequence == edge && part > 0 && after.segment(edge).is_none()) {
            return Err(Broken::Missed);
        }
        if after.skipped > 0 {
            // Everything that is skipped must be known from before, and complete there.
            let known = after.media_sequence >= self.known_from && after.first_msn() <= edge;
            same(known, "a delta update skips what was never listed")?;
        } else {
            self.known_from = after.media_sequence;
        }
        for (msn, old) in before.numbered().filter(|(msn, _)| *msn >= after.first_msn()) {
            let Some(new) = after.segment(msn) else { return Err(Broken::History("a listed segment is gone")) };
            let parts = new.parts.starts_with(&old.parts) || (new.parts.is_empty() && new.micros.is_some());
            same(parts, "the parts of a listed segment changed")?;
            same(old.micros.is_none() || old.micros == new.micros, "the duration of a listed segment changed")?;
            same(old.url.is_none() || old.url == new.url, "the URI of a listed segment changed")?;
            same(old.discontinuity == new.discontinuity, "a discontinuity came or went")?;
            same(old.date.is_none() || old.date == new.date, "EXT-X-PROGRAM-DATE-TIME changed")?;
            let unknown = old.init.is_none() || new.init.is_none();
            same(unknown || old.init == new.init, "EXT-X-MAP changed")?;
        }
        Ok(())
    }

    /// What to fetch from this part on.
    fn step(&mut self, playlist: &Playlist, msn: u64, part: usize, awaited: bool) -> Step {
        let mut step = Step { wanted: Vec::new(), ended: playlist.ended };
        for (number, segment) in playlist.numbered().filter(|(n, _)| *n >= msn) {
            if let Some(init) = segment.init.as_ref().filter(|init| self.init.as_ref() != Some(*init)) {
                step.wanted.push(Wanted { url: init.clone(), range: None, part: None });
                self.init = Some(init.clone());
            }
            let first = if number == msn { part } else { 0 };
            let mut end = segment.date;
            for (index, part) in segment.parts.iter().enumerate() {
                end = end.map(|e| e.saturating_add(part.micros));
                if index >= first && !part.gap {
                    let place = Place { msn: number, part: index, awaited, end };
                    step.wanted.push(Wanted { url: part.url.clone(), range: part.range, part: Some(place) });
                }
            }
        }
        step
    }
}

/// Rules for one playlist.
fn check(playlist: &Playlist) -> Result<(), Broken> {
    let keeps = |kept: bool, rule| if kept { Ok(()) } else { Err(Broken::Rule(rule)) };
    for (index, segment) in playlist.segments.iter().enumerate() {
        if let Some(duration) = segment.micros {
            let rounded = duration.saturating_add(500_000) / 1_000_000 * 1_000_000;
            keeps(rounded <= playlist.target_duration, "a segment is longer than EXT-X-TARGETDURATION")?;
        } else {
            keeps(index + 1 == playlist.segments.len(), "an open segment before the end")?;
        }
        let target = playlist.part_target.unwrap_or(i64::MAX).saturating_add(ROUNDING);
        keeps(segment.parts.iter().all(|p| p.micros <= target), "a part is longer than PART-TARGET")?;
    }
    Ok(())
}

/// Where a player begins: the last independent part that lies PART-HOLD-BACK behind the end, else the newest segment that
/// has parts.
fn start(playlist: &Playlist) -> (u64, usize) {
    let hold_back = playlist.part_hold_back.unwrap_or(playlist.target_duration);
    let mut behind = 0i64;
    let with_parts = |(_, s): &(u64, &Segment)| !s.parts.is_empty();
    for (msn, segment) in playlist.numbered().rev().take_while(with_parts) {
        for (index, part) in segment.parts.iter().enumerate().rev() {
            behind = behind.saturating_add(part.micros);
            if behind >= hold_back && part.independent {
                return (msn, index);
            }
        }
    }
    playlist.numbered().rev().find(with_parts).map_or(playlist.next(), |(msn, _)| (msn, 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::playlist::tests::{HEAD, base};

    /// A live playlist of segments of four parts: `first` is listed first, and `parts` parts of the segment `open` exist.
    fn live(first: u64, open: u64, parts: usize, skipped: u64) -> String {
        let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{first}\n");
        if skipped > 0 {
            text += &format!("#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n");
        } else {
            text += "#EXT-X-MAP:URI=\"init.mp4\"\n";
        }
        for msn in first + skipped..=open {
            let count = if msn == open { parts } else { 4 };
            if count > 0 {
                text += &format!("#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:{:02}:{:02}.000Z\n", msn / 60, msn % 60);
            }
            for part in 0..count {
                let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
                text += &format!("#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}.m4s\"{independent}\n");
            }
            if msn < open {
                text += &format!("#EXTINF:0.8,\n{msn}.m4s\n");
            }
        }
        text
    }

    fn read(text: &str) -> Arc<Playlist> {
        Arc::new(Playlist::parse(&base(), text).unwrap())
    }

    fn follower(text: &str) -> Follower {
        let mut follower = Follower::new(base());
        follower.take(read(text)).unwrap();
        follower
    }

    fn files(step: &Step) -> Vec<&str> {
        step.wanted.iter().map(|w| w.url.path().rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn it_begins_a_hold_back_behind_the_end_and_then_asks_for_part_after_part() {
        let mut follower = Follower::new(base());
        assert_eq!(follower.request(), base());
        let step = follower.take(read(&live(3, 6, 1, 0))).unwrap();
        assert_eq!(files(&step), ["init.mp4", "5.0.m4s", "5.1.m4s", "5.2.m4s", "5.3.m4s", "6.0.m4s"]);
        assert!(step.wanted.iter().filter_map(|w| w.part).all(|p| !p.awaited));
        assert_eq!(follower.request().query(), Some("token=1&_HLS_msn=6&_HLS_part=1&_HLS_skip=YES"));
        assert_eq!(follower.longest().unwrap().query(), Some("token=1&_HLS_msn=7"));

        let step = follower.take(read(&live(3, 6, 2, 2))).unwrap();
        assert_eq!(files(&step), ["6.1.m4s"]);
        let place = step.wanted[0].part.unwrap();
        assert_eq!((place.msn, place.part, place.awaited), (6, 1, true));
        // 10:00:06 and two parts.
        assert_eq!(place.end, Some(1_795_168_806_400_000));

        // The end of a segment, the next one, and the window's move in one answer.
        let step = follower.take(read(&live(4, 7, 1, 2))).unwrap();
        assert_eq!(files(&step), ["6.2.m4s", "6.3.m4s", "7.0.m4s"]);
        assert_eq!(follower.request().query(), Some("token=1&_HLS_msn=7&_HLS_part=1&_HLS_skip=YES"));
    }

    #[test]
    fn a_complete_segment_leads_to_the_next_one() {
        let mut follower = follower(&live(3, 6, 4, 0));
        let step = follower.take(read(&live(3, 7, 0, 0))).unwrap();
        assert_eq!(files(&step), [""; 0], "its parts were all listed");
        assert_eq!(follower.request().query(), Some("token=1&_HLS_msn=7&_HLS_part=0&_HLS_skip=YES"));
    }

    #[test]
    fn an_end_is_an_answer_and_gaps_are_not_fetched() {
        let mut follower = follower(&live(3, 6, 1, 0));
        let text = live(3, 6, 3, 0).replace("\"6.1.m4s\"", "\"6.1.m4s\",GAP=YES") + "#EXT-X-ENDLIST\n";
        let step = follower.take(read(&text)).unwrap();
        assert_eq!((files(&step), step.ended), (vec!["6.2.m4s"], true));
    }

    #[test]
    fn an_answer_without_what_was_asked_for_is_early() {
        assert_eq!(follower(&live(3, 6, 1, 0)).take(read(&live(3, 6, 1, 0))), Err(Broken::Early));
        assert_eq!(follower(&live(3, 6, 4, 0)).take(read(&live(3, 6, 4, 2))), Err(Broken::Early));
    }

    #[test]
    fn changed_history_is_seen() {
        let after = live(3, 6, 2, 0);
        for (good, bad) in [
            ("TARGETDURATION:2", "TARGETDURATION:3"),
            ("PART-TARGET=0.20000", "PART-TARGET=0.30000"),
            ("MEDIA-SEQUENCE:3", "MEDIA-SEQUENCE:2"),
            ("\"6.0.m4s\"", "\"6.x.m4s\""),
            ("#EXTINF:0.8,\n5.m4s", "#EXTINF:0.7,\n5.m4s"),
            ("\n5.m4s", "\n5x.m4s"),
            ("#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:05.000Z\n", "#EXT-X-DISCONTINUITY\n"),
            ("10:00:04.000Z", "10:00:04.001Z"),
            ("init.mp4", "init-2.mp4"),
        ] {
            let mut follower = follower(&live(3, 6, 1, 0));
            let text = after.replace(good, bad);
            assert_ne!(text, after, "{good}");
            let broken = follower.take(read(&text));
            assert!(matches!(broken, Err(Broken::History(_))), "{bad}: {broken:?}");
        }
        assert!(follower(&live(3, 6, 1, 0)).take(read(&after)).is_ok());
        // The server began anew.
        assert!(matches!(follower(&live(3, 6, 1, 0)).take(read(&live(0, 1, 1, 0))), Err(Broken::History(_))));
    }

    #[test]
    fn missing_media_and_false_deltas_are_seen() {
        assert_eq!(follower(&live(3, 6, 1, 0)).take(read(&live(8, 10, 1, 0))), Err(Broken::Missed));
        // Skips 6, of which only one part was listed, and 7.
        let skips = follower(&live(3, 6, 1, 0)).take(read(&live(4, 8, 1, 4)));
        assert!(matches!(skips, Err(Broken::History(_))), "{skips:?}");
        assert!(matches!(Follower::new(base()).take(read(&live(3, 6, 1, 2))), Err(Broken::History(_))));
    }

    #[test]
    fn rules_of_one_playlist_are_checked() {
        for (good, bad) in [("DURATION=0.2,", "DURATION=0.21,"), ("#EXTINF:0.8", "#EXTINF:2.6")] {
            let broken = Follower::new(base()).take(read(&live(3, 6, 1, 0).replace(good, bad)));
            assert!(matches!(broken, Err(Broken::Rule(_))), "{broken:?}");
        }
        for (good, bad) in [("CAN-BLOCK-RELOAD=YES,", ""), ("#EXT-X-PART-INF:PART-TARGET=0.20000\n", "")] {
            let broken = Follower::new(base()).take(read(&live(3, 6, 1, 0).replace(good, bad)));
            assert_eq!(broken, Err(Broken::NotLowLatency));
        }
    }
}
