//! Playlists as a viewer reads them: draft-pantos-hls-rfc8216bis, the tags that a Low-Latency viewer needs.
//!
//! Pure: text in, values out. Times are microseconds; nothing here trusts what it reads.

use std::collections::VecDeque;
use std::sync::Arc;

use url::Url;

/// Segments and parts of one playlist; more is refused, as no live window needs them.
const MOST_SEGMENTS: usize = 20_000;
const MOST_PARTS: usize = 20_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub micros: i64,
    pub url: Url,
    /// Offset and length where the part is a range of its resource.
    pub range: Option<(u64, u64)>,
    pub independent: bool,
    pub gap: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// None while the segment is being made.
    pub micros: Option<i64>,
    pub url: Option<Url>,
    pub parts: Vec<Part>,
    pub discontinuity: bool,
    /// EXT-X-PROGRAM-DATE-TIME in microseconds of unix time.
    pub date: Option<i64>,
    /// EXT-X-MAP in force. None where an earlier, skipped segment named it.
    pub init: Option<Url>,
}

/// A media playlist. Segment `n` has msn `media_sequence + skipped + n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Playlist {
    pub target_duration: i64,
    pub part_target: Option<i64>,
    pub part_hold_back: Option<i64>,
    pub can_block: bool,
    pub can_skip: bool,
    pub media_sequence: u64,
    pub discontinuity_sequence: u64,
    /// SKIPPED-SEGMENTS of a delta update.
    pub skipped: u64,
    pub ended: bool,
    pub segments: Vec<Segment>,
}

/// What a multivariant playlist offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multivariant {
    pub variants: Vec<Variant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub url: Url,
    /// The media playlist of the variant's audio group, where that has one of its own.
    pub audio: Option<Url>,
}

/// What is behind a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Either {
    Multivariant(Multivariant),
    Media,
}

impl Playlist {
    /// Reads a media playlist that came from `base`. Err: what is wrong with it.
    pub fn parse(base: &Url, text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some("#EXTM3U") {
            return Err("does not begin with #EXTM3U".to_owned());
        }
        let mut playlist = Self::default();
        let mut open = Segment::default();
        let mut init = None;
        let mut parts = 0;
        for line in lines.map(str::trim_end) {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            let bad = || format!("cannot be read: {line:.120}");
            match tag {
                "#EXT-X-TARGETDURATION" => playlist.target_duration = micros(value).ok_or_else(bad)?,
                "#EXT-X-PART-INF" => {
                    let target = attribute(value, "PART-TARGET").and_then(micros);
                    playlist.part_target = Some(target.ok_or_else(bad)?);
                }
                "#EXT-X-SERVER-CONTROL" => {
                    playlist.can_block = attribute(value, "CAN-BLOCK-RELOAD") == Some("YES");
                    playlist.can_skip = attribute(value, "CAN-SKIP-UNTIL").is_some();
                    playlist.part_hold_back = match attribute(value, "PART-HOLD-BACK") {
                        Some(seconds) => Some(micros(seconds).ok_or_else(bad)?),
                        None => None,
                    };
                }
                "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.parse().map_err(|_| bad())?,
                "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                    playlist.discontinuity_sequence = value.parse().map_err(|_| bad())?;
                }
                "#EXT-X-SKIP" => {
                    let skipped = attribute(value, "SKIPPED-SEGMENTS").and_then(|n| n.parse().ok());
                    playlist.skipped = skipped.ok_or_else(bad)?;
                }
                "#EXT-X-DISCONTINUITY" => open.discontinuity = true,
                "#EXT-X-PROGRAM-DATE-TIME" => open.date = Some(unix_micros(value).ok_or_else(bad)?),
                "#EXT-X-MAP" => {
                    let uri = attribute(value, "URI").ok_or_else(bad)?;
                    init = Some(base.join(uri).map_err(|_| bad())?);
                }
                "#EXT-X-ENDLIST" => playlist.ended = true,
                "#EXT-X-PART" => {
                    parts += 1;
                    if parts > MOST_PARTS {
                        return Err(format!("lists more than {MOST_PARTS} parts"));
                    }
                    let part = part(base, value, open.parts.last()).ok_or_else(bad)?;
                    open.parts.push(part);
                }
                "#EXTINF" => {
                    let seconds = value.split(',').next().unwrap_or_default();
                    open.micros = Some(micros(seconds).ok_or_else(bad)?);
                }
                _ if line.starts_with('#') || line.is_empty() => {}
                _ => {
                    if open.micros.is_none() {
                        return Err(format!("a segment without EXTINF: {line:.120}"));
                    }
                    open.url = Some(base.join(line).map_err(|_| bad())?);
                    open.init.clone_from(&init);
                    playlist.segments.push(std::mem::take(&mut open));
                    if playlist.segments.len() > MOST_SEGMENTS {
                        return Err(format!("lists more than {MOST_SEGMENTS} segments"));
                    }
                }
            }
        }
        if playlist.target_duration <= 0 {
            return Err("has no EXT-X-TARGETDURATION".to_owned());
        }
        if !open.parts.is_empty() {
            open.init = init;
            playlist.segments.push(open);
        }
        // The numbers below are added up with 64 bits.
        let listed = playlist.segments.len() as u64;
        if playlist.media_sequence.checked_add(playlist.skipped).and_then(|n| n.checked_add(listed + 1)).is_none() {
            return Err("has numbers beyond 64 bits".to_owned());
        }
        Ok(playlist)
    }

    /// msn of the first segment that is written out.
    pub fn first_msn(&self) -> u64 {
        self.media_sequence + self.skipped
    }

    /// msn and index of the part that is not listed yet.
    pub fn next(&self) -> (u64, usize) {
        let after = self.first_msn() + self.segments.len() as u64;
        match self.segments.last() {
            Some(open) if open.micros.is_none() => (after - 1, open.parts.len()),
            _ => (after, 0),
        }
    }

    /// The segment with this msn, if it is written out.
    pub fn segment(&self, msn: u64) -> Option<&Segment> {
        let index = msn.checked_sub(self.first_msn())?;
        self.segments.get(usize::try_from(index).ok()?)
    }

    /// Segments with their msn.
    pub fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &Segment)> + ExactSizeIterator {
        let first = self.first_msn();
        self.segments.iter().enumerate().map(move |(n, s)| (first + n as u64, s))
    }
}

impl Either {
    /// Tells the two kinds of playlists apart (bis §4.1). Err: what is wrong.
    pub fn parse(base: &Url, text: &str) -> Result<Self, String> {
        if !text.starts_with("#EXTM3U") {
            return Err("does not begin with #EXTM3U".to_owned());
        }
        if !text.lines().any(|l| l.starts_with("#EXT-X-STREAM-INF:")) {
            return Ok(Self::Media);
        }
        let join = |uri: &str| base.join(uri).map_err(|_| format!("has a URI that cannot be read: {uri:.120}"));
        let mut groups = Vec::new();
        let mut variants = Vec::new();
        for line in text.lines().filter_map(|l| l.strip_prefix("#EXT-X-MEDIA:")) {
            if attribute(line, "TYPE") == Some("AUDIO")
                && let (Some(group), Some(uri)) = (attribute(line, "GROUP-ID"), attribute(line, "URI"))
            {
                groups.push((group, join(uri)?));
            }
        }
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(attributes) = line.strip_prefix("#EXT-X-STREAM-INF:") else { continue };
            let uri = lines.find(|l| !l.is_empty() && !l.starts_with('#')).ok_or("has a variant without a URI")?;
            let wanted = attribute(attributes, "AUDIO");
            let audio = groups.iter().find(|(group, _)| Some(*group) == wanted).map(|(_, url)| url.clone());
            variants.push(Variant { url: join(uri.trim_end())?, audio });
        }
        Ok(Self::Multivariant(Multivariant { variants }))
    }
}

/// The newest media playlists of each rendition, read once for all viewers: most of them get the same text.
#[derive(Debug, Default)]
pub struct Cache {
    /// Bounded by [`Cache::RENDITIONS`]; in each at most [`Cache::KEPT`], the oldest goes first.
    renditions: Vec<(Url, Texts)>,
}

/// The oldest first.
type Texts = VecDeque<(Vec<u8>, Arc<Playlist>)>;

impl Cache {
    const RENDITIONS: usize = 16;
    /// Two forms (whole and delta), and those of the change in progress.
    const KEPT: usize = 6;

    /// As [`Playlist::parse`].
    pub fn parse(&mut self, base: &Url, body: Vec<u8>) -> Result<Arc<Playlist>, String> {
        let index = match self.renditions.iter().position(|(url, _)| url == base) {
            Some(index) => index,
            None => {
                if self.renditions.len() >= Self::RENDITIONS {
                    self.renditions.remove(0);
                }
                self.renditions.push((base.clone(), VecDeque::new()));
                self.renditions.len() - 1
            }
        };
        let Some((_, texts)) = self.renditions.get_mut(index) else { return Err("no place".to_owned()) };
        if let Some((_, playlist)) = texts.iter().rev().find(|(text, _)| *text == body) {
            return Ok(playlist.clone());
        }
        let text = std::str::from_utf8(&body).map_err(|_| "is not UTF-8".to_owned())?;
        let playlist = Arc::new(Playlist::parse(base, text)?);
        if texts.len() >= Self::KEPT {
            texts.pop_front();
        }
        texts.push_back((body, playlist.clone()));
        Ok(playlist)
    }
}

/// The value of an attribute in an attribute list (bis §4.2), without quotes.
pub fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = list;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"')?;
                (value, next.strip_prefix(',').unwrap_or(next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

/// `before`: the part in front of it, behind whose range one without an offset begins.
fn part(base: &Url, attributes: &str, before: Option<&Part>) -> Option<Part> {
    let url = base.join(attribute(attributes, "URI")?).ok()?;
    let range = match attribute(attributes, "BYTERANGE") {
        None => None,
        Some(text) => {
            let (length, offset) = text.split_once('@').map_or((text, None), |(l, o)| (l, Some(o)));
            let offset = match offset {
                Some(offset) => offset.parse().ok()?,
                None => {
                    before.filter(|b| b.url == url).and_then(|b| b.range).map_or(Some(0), |(o, l)| o.checked_add(l))?
                }
            };
            Some((offset, length.parse().ok()?))
        }
    };
    Some(Part {
        micros: micros(attribute(attributes, "DURATION")?)?,
        url,
        range,
        independent: attribute(attributes, "INDEPENDENT") == Some("YES"),
        gap: attribute(attributes, "GAP") == Some("YES"),
    })
}

/// Decimal seconds as microseconds; further digits are cut off.
fn micros(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let fraction = digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// `2026-11-20T10:11:12.345Z`, or with an offset (ISO 8601), as microseconds of unix time.
fn unix_micros(text: &str) -> Option<i64> {
    let (day, time) = text.split_once('T')?;
    let mut date = day.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone)?;
    let mut clock = clock.splitn(3, ':');
    let (hours, minutes) = (clock.next()?.parse::<i64>().ok()?, clock.next()?.parse::<i64>().ok()?);
    let seconds = micros(clock.next()?)?;
    let in_calendar = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_calendar || !(0..=24).contains(&hours) || !(0..60).contains(&minutes) || seconds > 61_000_000 {
        return None;
    }
    let offset = match zone {
        "Z" => 0,
        _ => {
            let (sign, digits) = zone.split_at_checked(1)?;
            let digits: String = digits.chars().filter(|c| *c != ':').collect();
            let (hours, minutes) = digits.split_at_checked(2)?;
            let minutes = if minutes.is_empty() { 0 } else { minutes.parse::<i64>().ok()? };
            let east = hours.parse::<i64>().ok()? * 60 + minutes;
            if sign == "-" { -east } else { east }
        }
    };
    // Days from the civil calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hours) * 60 + minutes - offset) * 60_000_000 + seconds)
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.60000,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0\n\
        #EXT-X-PART-INF:PART-TARGET=0.20000\n";

    pub fn base() -> Url {
        Url::parse("http://edge.example:8080/live/show/src/index.m3u8?token=1").unwrap()
    }

    #[test]
    fn a_media_playlist_is_read() {
        let text = format!(
            "{HEAD}#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n#EXT-X-MAP:URI=\"init-7.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:00.000Z\n\
             #EXT-X-PART:DURATION=0.19999,URI=\"7.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.18,URI=\"7.1.m4s\"\n\
             #EXTINF:0.37999,\n7.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T11:00:00.380+01:00\n\
             #EXT-X-PART:DURATION=0.2,URI=\"8.mp4\",BYTERANGE=\"500@20\"\n\
             #EXT-X-PART:DURATION=0.2,URI=\"8.mp4\",BYTERANGE=\"100\",GAP=YES\n\
             #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"8.2.m4s\"\n"
        );
        let p = Playlist::parse(&base(), &text).unwrap();
        assert_eq!((p.target_duration, p.part_target, p.part_hold_back), (2_000_000, Some(200_000), Some(600_000)));
        assert_eq!((p.can_block, p.can_skip, p.discontinuity_sequence), (true, true, 1));
        assert_eq!(p.next(), (8, 2));
        let [first, open] = &p.segments[..] else { panic!("{p:?}") };
        assert_eq!((first.micros, first.date), (Some(379_990), Some(1_795_168_800_000_000)));
        assert_eq!(first.parts[0].url.as_str(), "http://edge.example:8080/live/show/src/7.0.m4s");
        assert!(first.parts[0].independent && !first.parts[1].independent);
        assert_eq!((open.micros, open.date), (None, Some(1_795_168_800_380_000)));
        assert!(open.discontinuity && !first.discontinuity && open.parts[1].gap);
        assert_eq!((open.parts[0].range, open.parts[1].range), (Some((20, 500)), Some((520, 100))));
        assert_eq!(open.init.as_ref().unwrap().path(), "/live/show/src/init-7.mp4");
    }

    #[test]
    fn rubbish_is_refused_and_never_panics() {
        for text in [
            "",
            "<html>",
            "#EXTM3U",
            "#EXTM3U\n#EXT-X-TARGETDURATION:-2",
            "#EXTM3U\n#EXT-X-TARGETDURATION:99999999999999999999",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART:URI=\"a\"",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\na.m4s",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PROGRAM-DATE-TIME:2026-13-40T99:00:00Z",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:00+é",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:18446744073709551615\n#EXTINF:1,\na",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-SKIP:SKIPPED-SEGMENTS=18446744073709551615",
        ] {
            assert!(Playlist::parse(&base(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variant_comes_with_its_audio_group() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"aac/index.m3u8\",GROUP-ID=\"aac\",NAME=\"A, \"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.4d,mp4a.40.2\",AUDIO=\"aac\"\nsrc/index.m3u8\n\
            #EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO=\"gone\"\n\nhttps://other.example/v/index.m3u8\n";
        let base = Url::parse("http://edge.example/live/show/index.m3u8").unwrap();
        let Either::Multivariant(m) = Either::parse(&base, text).unwrap() else { panic!() };
        assert_eq!(m.variants[0].url.path(), "/live/show/src/index.m3u8");
        assert_eq!(m.variants[0].audio.as_ref().unwrap().path(), "/live/show/aac/index.m3u8");
        assert_eq!((m.variants[1].url.host_str(), &m.variants[1].audio), (Some("other.example"), &None));
        assert_eq!(Either::parse(&base, HEAD).unwrap(), Either::Media);
    }

    #[test]
    fn the_same_text_is_read_once_and_few_are_kept() {
        let mut cache = Cache::default();
        let text = |n: u64| format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{n}\n").into_bytes();
        let first = cache.parse(&base(), text(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.parse(&base(), text(0)).unwrap()));
        for n in 1..100 {
            cache.parse(&base(), text(n)).unwrap();
        }
        assert_eq!(cache.renditions[0].1.len(), Cache::KEPT);
        for n in 0..100 {
            cache.parse(&base().join(&n.to_string()).unwrap(), text(n)).unwrap();
        }
        assert_eq!(cache.renditions.len(), Cache::RENDITIONS);
    }
}
