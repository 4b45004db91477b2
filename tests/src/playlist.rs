//! Media playlists as a client reads them, and the rules that it can check (docs/conformance.md has their names).

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    pub micros: i64,
    pub uri: String,
    pub independent: bool,
    pub gap: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    pub msn: u64,
    /// None while it is being made.
    pub micros: Option<i64>,
    pub parts: Vec<Part>,
    pub discontinuity: bool,
    pub gap: bool,
    /// EXT-X-PROGRAM-DATE-TIME as microseconds of unix time.
    pub date: i64,
    /// EXT-X-MAP in force.
    pub init: String,
}

#[derive(Clone, Debug, Default)]
pub struct Playlist {
    pub text: String,
    pub target_duration: i64,
    pub part_target: i64,
    pub media_sequence: u64,
    pub discontinuity_sequence: u64,
    pub control: String,
    pub hint: Option<String>,
    pub reports: Vec<String>,
    pub ended: bool,
    pub segments: Vec<Segment>,
}

/// The clock of a playlist is corrected in steps of at most this (A16), in microseconds.
const CLOCK_STEP: i64 = 100_000;

/// The value of a tag's attribute, without quotes.
pub fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, attributes) = line.split_once(':')?;
    let at = match attributes.starts_with(&format!("{name}=")) {
        true => 0,
        false => attributes.find(&format!(",{name}="))? + 1,
    };
    let value = &attributes[at + name.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(',').next(),
    }
}

impl Playlist {
    pub fn parse(text: &str) -> Self {
        m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap_or_else(|e| panic!("m3u8-rs: {e}\n{text}"));
        let mut playlist = Self { text: text.to_owned(), ..Self::default() };
        let mut open = Segment::default();
        let mut init = String::new();
        for line in text.lines() {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-TARGETDURATION" => playlist.target_duration = micros(value),
                "#EXT-X-PART-INF" => playlist.part_target = micros(attribute(line, "PART-TARGET").unwrap()),
                "#EXT-X-SERVER-CONTROL" => playlist.control = value.to_owned(),
                "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => playlist.discontinuity_sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY" => open.discontinuity = true,
                "#EXT-X-GAP" => open.gap = true,
                "#EXT-X-PROGRAM-DATE-TIME" => open.date = unix_micros(value),
                "#EXT-X-MAP" => init = attribute(line, "URI").unwrap().to_owned(),
                "#EXT-X-PRELOAD-HINT" => playlist.hint = attribute(line, "URI").map(str::to_owned),
                "#EXT-X-RENDITION-REPORT" => playlist.reports.push(value.to_owned()),
                "#EXT-X-ENDLIST" => playlist.ended = true,
                "#EXT-X-PART" => open.parts.push(Part {
                    micros: micros(attribute(line, "DURATION").unwrap()),
                    uri: attribute(line, "URI").unwrap().to_owned(),
                    independent: attribute(line, "INDEPENDENT") == Some("YES"),
                    gap: attribute(line, "GAP") == Some("YES"),
                }),
                "#EXTINF" => open.micros = Some(micros(value.trim_end_matches(','))),
                _ if line.starts_with('#') || line.is_empty() => {}
                _ => {
                    open.msn = line.trim_end_matches(".m4s").parse().unwrap();
                    open.init.clone_from(&init);
                    playlist.segments.push(std::mem::take(&mut open));
                }
            }
        }
        if let Some(part) = open.parts.first() {
            open.msn = msn_of(&part.uri);
            open.init = init;
            playlist.segments.push(open);
        }
        playlist
    }

    /// The (msn, part) that does not exist yet.
    pub fn next(&self) -> (u64, usize) {
        match self.segments.last() {
            Some(open) if open.micros.is_none() => (open.msn, open.parts.len()),
            Some(last) => (last.msn + 1, 0),
            None => (self.media_sequence, 0),
        }
    }

    /// The last complete segment.
    pub fn newest(&self) -> Option<&Segment> {
        self.segments.iter().rev().find(|s| s.micros.is_some())
    }

    /// Parts that `before` did not list.
    pub fn parts_after<'a>(&'a self, before: &Self) -> impl Iterator<Item = &'a Part> {
        let (msn, part) = before.next();
        let new = move |s: &&Segment| s.msn >= msn;
        self.segments.iter().filter(new).flat_map(move |s| s.parts.iter().skip(if s.msn == msn { part } else { 0 }))
    }

    /// DISCONTINUITY tags in the window.
    pub fn discontinuities(&self) -> usize {
        self.segments.iter().filter(|s| s.discontinuity).count()
    }

    /// Segments and parts that are listed as missing.
    pub fn gaps(&self) -> usize {
        self.segments.iter().map(|s| usize::from(s.gap) + s.parts.iter().filter(|p| p.gap).count()).sum()
    }

    /// The rules for one playlist.
    pub fn check(&self) {
        self.check_at(std::time::SystemTime::now());
    }

    fn check_at(&self, now: std::time::SystemTime) {
        let text = &self.text;
        let now = i64::try_from(now.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros()).unwrap();
        for (index, segment) in self.segments.iter().enumerate() {
            assert_eq!(segment.msn, self.media_sequence + index as u64, "A5\n{text}");
            assert!((now - segment.date).abs() < 120_000_000, "A15: not the time of day\n{text}");
            assert!(!segment.init.is_empty(), "A17\n{text}");
            if let Some(duration) = segment.micros {
                assert!((duration + 500_000) / 1_000_000 * 1_000_000 <= self.target_duration, "A3\n{text}");
            }
            for (n, part) in segment.parts.iter().enumerate() {
                assert_eq!(part.uri, format!("{}.{n}.m4s", segment.msn), "A29\n{text}");
                assert!(part.micros <= self.part_target, "A23 {part:?}\n{text}");
                // A segment's end may be told by the hint alone: the next part is the next segment's first.
                let ended = segment.micros.is_some() || self.hint == Some(format!("{}.0.m4s", segment.msn + 1));
                let last = n + 1 == segment.parts.len() && ended;
                let before_gap = segment.parts.get(n + 1).is_some_and(|p| p.gap);
                let exempt = part.gap || part.independent || last || before_gap;
                assert!(exempt || part.micros * 100 >= self.part_target * 85, "A24 {part:?}\n{text}");
            }
            if let Some(duration) = segment.micros {
                let parts: i64 = segment.parts.iter().map(|p| p.micros).sum();
                assert!(segment.parts.is_empty() || (parts - duration).abs() <= 1000, "A26: {segment:?}\n{text}");
            }
            if let Some(next) = self.segments.get(index + 1)
                && let Some(duration) = segment.micros
                && !next.discontinuity
            {
                let off = next.date - segment.date - duration;
                assert!(off.abs() <= CLOCK_STEP + 1000, "A16: segment {} is {off} µs off\n{text}", next.msn);
            }
        }
        assert_eq!(self.hint.is_none(), self.ended, "A29\n{text}");
        let (msn, part) = self.next();
        // Where the open segment has all its parts but its end is not listed yet, the next segment's first part is next.
        let next = [format!("{msn}.{part}.m4s"), format!("{}.0.m4s", msn + 1)];
        assert!(self.hint.as_ref().is_none_or(|hint| next.contains(hint)), "A29\n{text}");
        let control = |name| micros(attribute(&format!(":{}", self.control), name).unwrap());
        assert!(self.control.contains("CAN-BLOCK-RELOAD=YES"), "A20\n{text}");
        assert!(control("PART-HOLD-BACK") >= 3 * self.part_target, "A21\n{text}");
        assert!(control("HOLD-BACK") >= 3 * self.target_duration, "A21\n{text}");
        assert!(control("CAN-SKIP-UNTIL") >= 6 * self.target_duration, "A22\n{text}");
    }

    /// The rules for two playlists in a row.
    pub fn check_after(&self, before: &Self) {
        let text = &self.text;
        assert_eq!(self.target_duration, before.target_duration, "A3\n{text}");
        assert_eq!(self.part_target, before.part_target, "A25\n{text}");
        assert_eq!(self.control, before.control, "A20\n{text}");
        assert!(self.media_sequence >= before.media_sequence, "A5\n{text}");
        let left = before.segments.iter().filter(|s| s.msn < self.media_sequence && s.discontinuity).count() as u64;
        assert_eq!(self.discontinuity_sequence, before.discontinuity_sequence + left, "A13\n{text}");
        for old in before.segments.iter().filter(|s| s.msn >= self.media_sequence) {
            let new = self.segments.iter().find(|s| s.msn == old.msn).unwrap_or_else(|| panic!("A6\n{text}"));
            assert_eq!((old.date, &old.init), (new.date, &new.init), "A6\n{text}");
            assert_eq!(old.discontinuity, new.discontinuity, "A6\n{text}");
            assert!(old.micros.is_none() || old.micros == new.micros, "A6\n{text}");
            let kept = new.parts.starts_with(&old.parts) || (new.parts.is_empty() && new.micros.is_some());
            assert!(kept, "A6: the parts of {} changed\n{text}\nbefore:\n{}", old.msn, before.text);
        }
    }

    /// The rules for two renditions of a channel, looked at at about the same time.
    pub fn check_in_step(&self, other: &Self) {
        let texts = format!("{}\n{}", self.text, other.text);
        assert_eq!(self.target_duration, other.target_duration, "A58\n{texts}");
        assert_eq!(self.control, other.control, "A20\n{texts}");
        let mut compared = 0;
        for segment in &self.segments {
            let Some(same) = other.segments.iter().find(|s| s.msn == segment.msn) else { continue };
            compared += 1;
            assert_eq!(segment.discontinuity, same.discontinuity, "A14: segment {}\n{texts}", segment.msn);
            // An audio segment begins with the first whole frame, at most one (of 23 ms) away.
            let off = segment.date - same.date;
            assert!(off.abs() <= 50_000, "A16: segment {} is {off} µs apart\n{texts}", segment.msn);
        }
        assert!(compared > 0, "A58: no common segment\n{texts}");
    }
}

fn msn_of(part: &str) -> u64 {
    part.split('.').next().unwrap().parse().unwrap()
}

/// Decimal seconds as microseconds.
fn micros(text: &str) -> i64 {
    (text.parse::<f64>().unwrap() * 1e6).round() as i64
}

/// `2026-11-20T10:11:12.345Z` as microseconds of unix time.
fn unix_micros(text: &str) -> i64 {
    let (day, time) = text.strip_suffix('Z').unwrap_or(text).split_once('T').unwrap();
    let numbers: Vec<i64> = day.split('-').map(|n| n.parse().unwrap()).collect();
    let [year, month, day] = numbers[..] else { panic!("A15: {text}") };
    let mut clock = time.splitn(3, ':');
    let mut field = || clock.next().unwrap();
    let (hours, minutes, seconds) = (field().parse::<i64>().unwrap(), field().parse::<i64>().unwrap(), micros(field()));
    // Days from the civil calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    ((days * 24 + hours) * 60 + minutes) * 60_000_000 + seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-VERSION:6\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,HOLD-BACK=6.0,PART-HOLD-BACK=0.6\n\
        #EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n\
        #EXT-X-MAP:URI=\"init-7.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:00.000Z\n\
        #EXT-X-PART:DURATION=0.2,URI=\"7.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.18,URI=\"7.1.m4s\"\n\
        #EXTINF:0.38000,\n7.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:09.000Z\n\
        #EXT-X-PART:DURATION=0.2,URI=\"8.0.m4s\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"8.1.m4s\"\n";

    /// When the playlist below was listed.
    fn now() -> std::time::SystemTime {
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_795_168_810)
    }

    #[test]
    fn a_playlist_is_read_and_keeps_the_rules() {
        let playlist = Playlist::parse(TEXT);
        playlist.check_at(now());
        playlist.check_after(&playlist);
        playlist.check_in_step(&playlist);
        assert_eq!(playlist.next(), (8, 1));
        assert_eq!((playlist.discontinuity_sequence, playlist.discontinuities()), (1, 1));
        assert_eq!(playlist.segments[0].date, 1_795_168_800_000_000);
        assert_eq!(playlist.parts_after(&Playlist::default()).count(), 3);
    }

    #[test]
    fn broken_rules_are_seen() {
        for (rule, good, bad) in [
            ("A23", "DURATION=0.18", "DURATION=0.21"),
            ("A24", "#EXT-X-PART:DURATION=0.2,URI=\"8.0.m4s\"", "#EXT-X-PART:DURATION=0.1,URI=\"8.0.m4s\""),
            ("A3", "EXTINF:0.38", "EXTINF:2.6"),
            ("A26", "EXTINF:0.38", "EXTINF:0.48"),
            ("A29", "URI=\"8.1", "URI=\"8.2"),
            ("A16", "#EXT-X-DISCONTINUITY\n", ""),
            ("A21", "PART-HOLD-BACK=0.6", "PART-HOLD-BACK=0.5"),
            ("A15", "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:09.000Z\n", ""),
            ("A5", "MEDIA-SEQUENCE:7", "MEDIA-SEQUENCE:6"),
        ] {
            let text = TEXT.replace(good, bad);
            assert_ne!(text, TEXT, "{rule}");
            let panic = std::panic::catch_unwind(|| Playlist::parse(&text).check_at(now())).unwrap_err();
            let message = panic.downcast_ref::<String>().unwrap();
            assert!(message.contains(rule), "{rule}: {message}");
        }
    }

    #[test]
    fn changed_history_is_seen() {
        let before = Playlist::parse(TEXT);
        for (rule, good, bad) in [
            ("A6", "10:00:00.000Z", "10:00:00.001Z"),
            ("A6", "DURATION=0.18", "DURATION=0.19"),
            ("A6", "init-7.mp4", "init-8.mp4"),
            ("A13", "DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:2"),
            ("A25", "PART-TARGET=0.2", "PART-TARGET=0.21"),
        ] {
            let after = Playlist::parse(&TEXT.replace(good, bad));
            let panic = std::panic::catch_unwind(|| after.check_after(&before)).unwrap_err();
            assert!(panic.downcast_ref::<String>().unwrap().contains(rule), "{rule}");
        }
    }
}
