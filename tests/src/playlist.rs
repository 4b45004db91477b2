//! Media playlists as a client reads them, and the rules it can check (docs/conformance.md).

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
    pub date: Option<String>,
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

/// Decimal seconds as microseconds.
fn micros(text: &str) -> i64 {
    (text.parse::<f64>().unwrap() * 1e6).round() as i64
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!("{name}="))? + name.len() + 1;
    match line[at..].strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => line[at..].split(',').next(),
    }
}

impl Playlist {
    pub fn parse(text: &str) -> Self {
        m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap_or_else(|e| panic!("m3u8-rs: {e}\n{text}"));
        let mut playlist = Self { text: text.to_owned(), ..Self::default() };
        let mut open = Segment::default();
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
                "#EXT-X-PROGRAM-DATE-TIME" => open.date = Some(value.to_owned()),
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
                    playlist.segments.push(std::mem::take(&mut open));
                }
            }
        }
        if let Some(part) = open.parts.first() {
            open.msn = part.uri.split('.').next().unwrap().parse().unwrap();
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

    pub fn newest_part(&self) -> Option<&Part> {
        self.segments.last()?.parts.last()
    }

    pub fn discontinuities(&self) -> usize {
        self.segments.iter().filter(|s| s.discontinuity).count()
    }

    /// Segments and parts that are listed as missing.
    pub fn gaps(&self) -> usize {
        self.segments.iter().map(|s| usize::from(s.gap) + s.parts.iter().filter(|p| p.gap).count()).sum()
    }

    /// A3, A5, A23, A24, A15, A29 on one playlist.
    pub fn check(&self) {
        let text = &self.text;
        for (index, segment) in self.segments.iter().enumerate() {
            assert_eq!(segment.msn, self.media_sequence + index as u64, "A5\n{text}");
            assert!(segment.date.is_some(), "A15\n{text}");
            if let Some(duration) = segment.micros {
                assert!((duration + 500_000) / 1_000_000 * 1_000_000 <= self.target_duration, "A3\n{text}");
            }
            for (n, part) in segment.parts.iter().enumerate() {
                assert!(part.micros <= self.part_target, "A23 {part:?}\n{text}");
                let last = n + 1 == segment.parts.len();
                let before_gap = segment.parts.get(n + 1).is_some_and(|p| p.gap);
                let exempt = part.gap || part.independent || last || before_gap;
                assert!(exempt || part.micros * 100 >= self.part_target * 85, "A24 {part:?}\n{text}");
            }
        }
        assert_eq!(self.hint.is_none(), self.ended, "A29\n{text}");
    }

    /// A5, A6, A13, A20, A25 on two playlists in a row.
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
            assert_eq!(old.date, new.date, "A6\n{text}");
            assert!(old.micros.is_none() || old.micros == new.micros, "A6\n{text}");
        }
    }
}
