//! Follows one media playlist as a player does, holds every answer against the rules, and at last asks what no player asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use hyper::Version;
use packager::validate::{
    Findings, Fragment, Init, Map, Part, Playlist, Rule, Segment, TrackKind, check_delta, check_one, check_update,
};
use tokio::time::timeout;
use url::Url;

use super::client::{Answer, Connection, Network};

/// Latencies and complaints that are kept; a run of a day has fewer.
const MOST_LATENCIES: usize = 500_000;
const MOST_TROUBLE: usize = 20;
/// Longer than any network needs for a small answer, shorter than any hold.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// A whole segment is compared with its parts up to this size.
const SEGMENT: usize = 64 * 1024 * 1024;

/// What followers know of each other: the edge of each playlist, by its URL.
pub type Positions = Arc<Mutex<HashMap<Url, (u64, usize)>>>;

/// What came of following one playlist.
pub struct Followed {
    pub name: String,
    pub url: Url,
    pub findings: Findings,
    /// The newest whole playlist.
    pub last: Option<String>,
    pub codecs: Vec<String>,
    /// Bits a second of the segments that were fetched: the highest, and all together.
    pub peak: u64,
    pub average: u64,
    pub reloads: u64,
    pub blocking: u64,
    pub deltas: u64,
    pub parts: u64,
    pub segments: u64,
    /// From a part's end, by its date, to its last byte; milliseconds, sorted. Right as far as both clocks agree.
    pub latencies: Vec<i64>,
    /// From the answer that listed a part to its last byte; milliseconds, sorted.
    pub fetches: Vec<i64>,
    /// What kept it from being followed.
    pub trouble: Vec<String>,
}

pub struct Follower {
    out: Followed,
    others: Vec<Url>,
    positions: Positions,
    playlists: Connection,
    media: Connection,
    before: Option<String>,
    /// Where the playlist came from, behind redirects.
    base: Url,
    init: Option<InForce>,
    /// Where each track's next sample begins.
    expected: Vec<(u32, u64)>,
    /// The segment whose parts are being fetched, as far as all of them were.
    collected: Option<Collected>,
    /// A whole segment has been compared with its parts.
    compared: bool,
    dribbled: (u64, u64),
    /// Bytes and microseconds of all segments.
    total: (u64, i64),
    last_new: Option<Instant>,
}

/// The init segment in force.
#[derive(Clone)]
struct InForce {
    url: Url,
    range: Option<(u64, u64)>,
    init: Init,
    bytes: Bytes,
}

struct Collected {
    msn: u64,
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Follower {
    /// `others`: the channel's other media playlists.
    pub fn new(name: String, url: Url, others: Vec<Url>, network: &Arc<Network>, positions: Positions) -> Self {
        Self {
            out: Followed {
                name,
                url: url.clone(),
                findings: Findings::default(),
                last: None,
                codecs: Vec::new(),
                peak: 0,
                average: 0,
                reloads: 0,
                blocking: 0,
                deltas: 0,
                parts: 0,
                segments: 0,
                latencies: Vec::new(),
                fetches: Vec::new(),
                trouble: Vec::new(),
            },
            others,
            positions,
            playlists: Connection::new(network.clone()),
            media: Connection::new(network.clone()),
            before: None,
            base: url.clone(),
            init: None,
            expected: Vec::new(),
            collected: None,
            compared: false,
            dribbled: (0, 0),
            total: (0, 0),
            last_new: None,
        }
    }

    /// Follows until then, or to the end of the stream.
    pub async fn run(mut self, until: Instant) -> Followed {
        while self.out.trouble.len() < MOST_TROUBLE {
            let left = until.saturating_duration_since(Instant::now());
            // The last reload may be held for longer than there is time.
            let pause = match timeout(left, self.reload()).await {
                Ok(Ok(Next::Now)) => continue,
                Ok(Ok(Next::After(pause))) => pause,
                Ok(Ok(Next::Ended)) | Err(_) => break,
                Ok(Err(why)) => {
                    self.out.trouble.push(why);
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        }
        if self.out.last.is_none() && self.out.trouble.is_empty() {
            self.out.trouble.push("there was no answer in time".to_owned());
        }
        if let Err(why) = self.probe().await {
            self.out.trouble.push(why);
        }
        let (dribbled, awaited) = self.dribbled;
        if awaited > 0 {
            self.out.findings.must(Rule::A30, dribbled * 2 <= awaited, || {
                format!("{dribbled} of {awaited} parts took over half of their duration to arrive")
            });
        }
        self.out.latencies.sort_unstable();
        self.out.fetches.sort_unstable();
        let (bytes, micros) = self.total;
        self.out.average = rate(bytes, micros);
        self.out
    }

    async fn reload(&mut self) -> Result<Next, String> {
        let before = self.before.clone();
        let known = before.as_deref().and_then(|text| Playlist::read(text, &mut Findings::default()));
        let mut url = self.out.url.clone();
        let mut blocking = false;
        if let Some(known) = &known {
            let control = known.control.unwrap_or_default();
            blocking = control.can_block;
            if blocking {
                let (msn, part) = known.edge();
                let part = if known.part_target.is_some() { format!("&_HLS_part={part}") } else { String::new() };
                // Every other one as a delta update, so that whole histories are compared too.
                let skip = control.can_skip_until.is_some() && self.out.reloads % 2 == 1;
                url = with(&url, &format!("_HLS_msn={msn}{part}{}", if skip { "&_HLS_skip=YES" } else { "" }));
            }
        }
        let others = self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = self.playlists.get(&url, &[]).await?;
        self.out.reloads += 1;
        self.out.blocking += u64::from(blocking);
        if !answer.is_success() {
            let status = answer.status;
            if blocking && status == 503 {
                // Nothing came within the time that it may be held: the publisher stands still.
                return Ok(Next::After(Duration::from_secs(1)));
            }
            return Err(format!("{url}: status {status}"));
        }
        let text = String::from_utf8(answer.body.to_vec());
        self.out.findings.must(Rule::A1, text.is_ok(), || "a playlist is not UTF-8".to_owned());
        let text = text.map_err(|_| format!("{url}: not UTF-8"))?;
        self.base = answer.url.clone();
        let mut findings = std::mem::take(&mut self.out.findings);
        check_playlist_answer(&answer, blocking, &mut findings);
        let now = Playlist::read(&text, &mut findings);
        if let Some(now) = &now {
            self.compare(known.as_ref(), now, &answer, blocking, &others, &mut findings);
        }
        self.out.findings = findings;
        let Some(now) = now else { return Err(format!("{url}: it cannot be read as a media playlist")) };
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).insert(self.out.url.clone(), now.edge());
        self.fetch_new(known.as_ref(), &now, &answer, blocking).await?;
        if let (Some(gone), Some(known)) = (gone(known.as_ref(), &now), &known) {
            let target = Duration::from_micros(known.target_duration.unsigned_abs());
            self.check_gone(&answer.url, gone, target).await?;
        }
        let changed = known.as_ref().is_none_or(|known| known.edge() != now.edge());
        let target = Duration::from_micros(now.target_duration.unsigned_abs());
        let next = if now.ended {
            Next::Ended
        } else if changed && now.control.is_some_and(|c| c.can_block) {
            Next::Now
        } else if changed {
            Next::After(target)
        } else {
            Next::After(target / 2)
        };
        drop(known);
        if now.skipped.is_none() {
            self.out.last = Some(text.clone());
        }
        self.before = Some(text);
        Ok(next)
    }

    /// The rules of this playlist, and against the one before.
    fn compare(
        &mut self,
        known: Option<&Playlist<'_>>,
        now: &Playlist<'_>,
        answer: &Answer,
        blocking: bool,
        others: &HashMap<Url, (u64, usize)>,
        findings: &mut Findings,
    ) {
        check_one(now, known.map(Playlist::edge), findings);
        self.out.deltas += u64::from(now.skipped.is_some());
        let Some(known) = known else {
            findings.must(Rule::A34, now.skipped.is_none(), || "a delta update that nobody asked for".to_owned());
            findings.should(Rule::A41, answer.held() < AT_ONCE, || {
                format!("a request without directives was held for {:?}", answer.held())
            });
            return;
        };
        check_update(known, now, findings);
        check_delta(known, now, findings);
        let fresh = now.edge() > known.edge();
        if blocking && !now.ended && now.media_sequence >= known.media_sequence {
            findings.must(Rule::A35, fresh, || {
                let (msn, part) = known.edge();
                format!("it was asked for segment {msn} part {part} and answered after {:?} without it", answer.held())
            });
        }
        if fresh && let Some(last) = self.last_new.replace(answer.last_byte) {
            // Seen from here, the network's delays included.
            let gap = answer.last_byte - last;
            let target = Duration::from_micros(now.target_duration.unsigned_abs());
            if blocking {
                findings.should(Rule::A10, gap < target * 3 / 2 + Duration::from_millis(500), || {
                    format!("nothing new came for {gap:?}")
                });
            }
        }
        // Behind a redirect URIs mean something else than in the multivariant playlist.
        if now.part_target.is_some() && !now.ended && answer.url.path() == self.out.url.path() {
            for other in &self.others {
                let report = now.reports.iter().find(|r| answer.url.join(r.uri).is_ok_and(|url| url == *other));
                findings.must(Rule::A33, report.is_some(), || format!("there is no report of {other}"));
                let position = report.and_then(|r| Some((r.last_msn?, r.last_part?)));
                if let (Some((last_msn, last_part)), Some(&(msn, part)), true) = (position, others.get(other), blocking)
                {
                    let reached = if part == 0 {
                        last_msn.saturating_add(1) >= msn
                    } else {
                        (last_msn, last_part) >= (msn, part as u64 - 1)
                    };
                    findings.should(Rule::A33, reached, || {
                        format!("{other} is reported at segment {last_msn} part {last_part}, it was already further")
                    });
                }
            }
        }
    }

    /// Fetches the media that is new in the playlist.
    async fn fetch_new(
        &mut self,
        known: Option<&Playlist<'_>>,
        now: &Playlist<'_>,
        answer: &Answer,
        awaited: bool,
    ) -> Result<(), String> {
        // A player begins some way behind the end.
        let begin = || {
            let with_parts = now.numbered().rev().take_while(|(_, s)| !s.parts.is_empty()).count().min(2);
            (now.edge().0.saturating_sub(if with_parts > 0 { 1 } else { 2 }).max(now.first_msn()), 0)
        };
        let (from, part) = known.map_or_else(begin, Playlist::edge);
        for (msn, segment) in now.numbered().filter(|(msn, _)| *msn >= from) {
            let first = if msn == from { part } else { 0 };
            if segment.discontinuity && first == 0 {
                self.expected.clear();
            }
            if segment.gap {
                self.expected.clear();
                continue;
            }
            if let Some(map) = segment.map {
                self.fetch_init(&answer.url, map).await?;
            }
            let mut end = segment.date;
            for (index, part) in segment.parts.iter().enumerate() {
                end = end.map(|end| end.saturating_add(part.micros));
                if index < first {
                    continue;
                }
                if part.gap {
                    self.expected.clear();
                    self.collected = None;
                    continue;
                }
                let fetched = self.fetch_part(&answer.url, msn, index, part).await?;
                if awaited && self.out.fetches.len() < MOST_LATENCIES {
                    self.out.fetches.push(millis(fetched.last_byte - answer.last_byte));
                    let at = fetched.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
                    if let (Some(end), Ok(at)) = (end, i64::try_from(at)) {
                        self.out.latencies.push((at - end) / 1000);
                    }
                }
            }
            if segment.uri.is_some() {
                if segment.parts.is_empty() && first == 0 {
                    self.fetch_segment(&answer.url, msn, segment).await?;
                }
                self.finish_segment(&answer.url, msn, segment, now.target_duration).await?;
            }
        }
        Ok(())
    }

    async fn fetch_init(&mut self, base: &Url, map: Map<'_>) -> Result<(), String> {
        let url = join(base, map.uri)?;
        if self.init.as_ref().is_some_and(|known| known.url == url && known.range == map.range) {
            return Ok(());
        }
        let answer = self.get_media(&url, map.range, "an init segment").await?;
        let findings = &mut self.out.findings;
        let init = Init::read(&answer.body, findings).unwrap_or_default();
        self.out.codecs = init.tracks.iter().map(|t| t.codec.clone()).collect();
        self.expected.clear();
        self.init = Some(InForce { url, range: map.range, init, bytes: answer.body });
        Ok(())
    }

    async fn fetch_part(&mut self, base: &Url, msn: u64, index: usize, part: &Part<'_>) -> Result<Answer, String> {
        let url = join(base, part.uri)?;
        let answer = self.get_media(&url, part.range, "a part").await?;
        self.out.parts += 1;
        let duration = Duration::from_micros(part.micros.unsigned_abs());
        if duration > Duration::from_millis(50) {
            self.dribbled.0 += u64::from(answer.last_byte - answer.first_byte > duration / 2);
            self.dribbled.1 += 1;
        }
        let name = format!("part {index} of segment {msn}");
        self.check_media(&answer.body, &name, Some(part.micros), Some(part.independent));
        if index == 0 {
            self.collected = Some(Collected { msn, parts: Vec::new(), bytes: 0 });
        }
        // Kept only while no part is missing.
        match self.collected.as_mut().filter(|c| c.msn == msn && c.parts.len() == index) {
            Some(collected) if collected.bytes + answer.body.len() <= SEGMENT => {
                collected.bytes += answer.body.len();
                collected.parts.push(answer.body.clone());
            }
            _ => self.collected = None,
        }
        Ok(answer)
    }

    async fn fetch_segment(&mut self, base: &Url, msn: u64, segment: &Segment<'_>) -> Result<(), String> {
        let url = join(base, segment.uri.unwrap_or_default())?;
        let answer = self.get_media(&url, segment.range, "a segment").await?;
        self.check_media(&answer.body, &format!("segment {msn}"), segment.micros, None);
        self.collected = Some(Collected { msn, bytes: answer.body.len(), parts: Vec::new() });
        Ok(())
    }

    /// A segment has been fetched to its end.
    async fn finish_segment(&mut self, base: &Url, msn: u64, segment: &Segment<'_>, target: i64) -> Result<(), String> {
        let whole = self.collected.take().filter(|c| c.msn == msn);
        self.out.segments += 1;
        let (Some(whole), Some(micros)) = (whole, segment.micros) else { return Ok(()) };
        let fetched_all = whole.parts.len() == segment.parts.len();
        if !fetched_all {
            return Ok(());
        }
        // Segments much shorter than the target say nothing of the peak (bis 4.4.6.2).
        if micros >= target / 2 {
            self.out.peak = self.out.peak.max(rate(whole.bytes as u64, micros));
        }
        self.total = (self.total.0 + whole.bytes as u64, self.total.1.saturating_add(micros));
        if !self.compared && !whole.parts.is_empty() {
            self.compared = true;
            let url = join(base, segment.uri.unwrap_or_default())?;
            let answer = self.get_media(&url, segment.range, "a segment").await?;
            let equal = answer.body == whole.parts.concat();
            self.out.findings.must(Rule::A26, equal, || {
                format!("segment {msn} has other bytes ({}) than its parts ({})", answer.body.len(), whole.bytes)
            });
        }
        Ok(())
    }

    /// Err: the network failed. What the server answers is a finding.
    async fn get_media(&mut self, url: &Url, range: Option<(u64, u64)>, what: &str) -> Result<Answer, String> {
        let headers: Vec<_> = range
            .filter(|(_, length)| *length > 0)
            .map(|(start, length)| ("range", format!("bytes={start}-{}", start.saturating_add(length - 1))))
            .into_iter()
            .collect();
        let answer = self.media.get(url, &headers).await?;
        let findings = &mut self.out.findings;
        let wanted = if headers.is_empty() { 200 } else { 206 };
        findings.must(Rule::A11, answer.status == wanted && !answer.body.is_empty(), || {
            format!("{what} is listed and answered {} with {} bytes: {url}", answer.status, answer.body.len())
        });
        if !answer.is_success() {
            return Ok(answer);
        }
        let kind = answer.header("content-type").unwrap_or("none").to_ascii_lowercase();
        let known = ["video/", "audio/", "application/mp4"].iter().any(|k| kind.starts_with(k));
        findings.should(Rule::A55, known, || format!("{what} has the type {kind}: {url}"));
        findings
            .should(Rule::A49, answer.header("content-encoding").is_none(), || format!("{what} is compressed: {url}"));
        check_cacheable(&answer, what, findings);
        check_cors(&answer, what, findings);
        Ok(answer)
    }

    /// Boxes, times and flags of what was fetched. `micros` and `independent` are what the playlist says of it.
    fn check_media(&mut self, bytes: &[u8], name: &str, micros: Option<i64>, independent: Option<bool>) {
        let mut findings = Findings::default();
        let Some(InForce { init, .. }) = self.init.as_ref().filter(|known| !known.init.tracks.is_empty()) else {
            return;
        };
        let fragment = Fragment::read(bytes, init, &mut findings);
        findings.must(Rule::B2, fragment.is_some(), || "there is no moof in it".to_owned());
        let runs = fragment.map(|f| f.runs).unwrap_or_default();
        for run in &runs {
            match self.expected.iter_mut().find(|(track, _)| *track == run.track) {
                Some((_, end)) => {
                    findings.must(Rule::B4, *end == run.start, || {
                        format!("track {} begins at tick {} and not at {end}", run.track, run.start)
                    });
                    *end = run.end;
                }
                None => self.expected.push((run.track, run.end)),
            }
        }
        // Of several tracks the first one leads.
        let lead = runs.first().map(|r| r.track);
        let leading = || runs.iter().filter(|r| Some(r.track) == lead);
        if let (Some(first), Some(last), Some(micros)) = (runs.first(), leading().next_back(), micros) {
            let scale = i64::from(first.timescale.max(1));
            let ticks = i64::try_from(last.end.saturating_sub(first.start)).unwrap_or(i64::MAX);
            let lasts = ticks.saturating_mul(1_000_000) / scale;
            let frame = i64::from(leading().map(|r| r.longest).max().unwrap_or(0)).saturating_mul(1_000_000) / scale;
            findings.must(Rule::A4, (lasts - micros).abs() <= frame.max(1000), || {
                format!("it lasts {lasts} µs and is listed with {micros}")
            });
        }
        let kind = |track: u32| init.tracks.iter().find(|t| t.id == track).map(|t| t.kind);
        if let (Some(first), Some(independent)) = (runs.first(), independent) {
            let sync = first.sync || kind(first.track) == Some(TrackKind::Audio);
            findings.must(Rule::A27, sync || !independent, || {
                "it says INDEPENDENT and begins with no key frame".to_owned()
            });
            findings.should(Rule::A27, independent || !sync, || {
                "it begins with a key frame and does not say so".to_owned()
            });
        }
        self.out.findings.absorb(findings, name);
    }

    /// Rule A9.
    async fn check_gone(&mut self, base: &Url, uri: String, target: Duration) -> Result<(), String> {
        let url = join(base, &uri)?;
        let sent = Instant::now();
        let answer = self.media.get(&url, &[("range", "bytes=0-0".to_owned())]).await?;
        // On a slow way it may have been too late.
        if sent.elapsed() < target {
            self.out.findings.must(Rule::A9, answer.is_success(), || {
                format!("{uri} has left the list a moment ago and is answered {}", answer.status)
            });
        }
        Ok(())
    }

    /// What no player asks.
    async fn probe(&mut self) -> Result<(), String> {
        let Some(text) = self.out.last.clone() else { return Ok(()) };
        let Some(last) = Playlist::read(&text, &mut Findings::default()) else { return Ok(()) };
        let base = self.base.clone();
        let findings = &mut self.out.findings;

        let url = join(&base, "fishladder-check-unknown.m4s")?;
        let answer = self.media.get(&url, &[]).await?;
        findings.must(Rule::A31, answer.status == 404 && answer.held() < AT_ONCE, || {
            format!("something unknown is answered {} after {:?}", answer.status, answer.held())
        });
        check_cors(&answer, "a 404", findings);

        let own = self.out.url.clone();
        let answer = self.playlists.get(&own, &[("accept-encoding", "gzip".to_owned())]).await?;
        if answer.is_success() {
            let compressed = answer.header("content-encoding") == Some("gzip");
            findings.should(Rule::A49, compressed, || "playlists are not compressed".to_owned());
            let varies = answer.header("vary").is_some_and(|v| v.to_ascii_lowercase().contains("accept-encoding"));
            findings
                .should(Rule::A49, !compressed || varies, || "compressed, without Vary: Accept-Encoding".to_owned());
            if last.part_target.is_some() {
                findings.should(Rule::A52, answer.version == Version::HTTP_2, || {
                    format!("it came over {:?}", answer.version)
                });
            }
        }
        if let Some(InForce { url, range, bytes, .. }) = self.init.clone() {
            let answer = self.get_media(&url, range, "an init segment").await?;
            self.out.findings.must(Rule::A17, answer.body == bytes, || format!("the bytes of {url} changed"));
        }
        let newest = last.segments.iter().rev().find(|s| s.uri.is_some() && s.range.is_none() && !s.gap);
        if let Some(uri) = newest.and_then(|s| s.uri) {
            let answer = self.media.get(&join(&base, uri)?, &[("range", "bytes=1-2".to_owned())]).await?;
            let right = answer.status == 206 && answer.body.len() == 2 && answer.headers.contains_key("content-range");
            self.out.findings.should(Rule::A54, right, || {
                format!("two bytes of a segment are answered {} with {} bytes", answer.status, answer.body.len())
            });
        }
        if last.control.is_some_and(|c| c.can_block) && !last.ended {
            self.probe_directives(&own, &last).await?;
        }
        Ok(())
    }

    async fn probe_directives(&mut self, base: &Url, last: &Playlist<'_>) -> Result<(), String> {
        let edge = last.edge().0;
        let answer = self.playlists.get(&with(base, "_HLS_part=0"), &[]).await?;
        self.out.findings.must(Rule::A37, answer.status == 400, || format!("it is {}", answer.status));
        let answer = self.playlists.get(&with(base, &format!("_HLS_msn={}", edge.saturating_add(100))), &[]).await?;
        self.out.findings.should(Rule::A39, answer.status == 400 && answer.held() < AT_ONCE, || {
            format!("a hundred segments ahead is answered {} after {:?}", answer.status, answer.held())
        });
        let old = last.media_sequence.saturating_sub(1);
        let answer = self.playlists.get(&with(base, &format!("_HLS_msn={old}")), &[]).await?;
        self.out.findings.must(Rule::A38, answer.status == 200 && answer.held() < AT_ONCE, || {
            format!("segment {old} is answered {} after {:?}", answer.status, answer.held())
        });
        let finished = last.numbered().rev().find(|(_, s)| s.uri.is_some() && !s.parts.is_empty());
        if let Some((msn, segment)) = finished {
            let beyond = segment.parts.len();
            let answer = self.playlists.get(&with(base, &format!("_HLS_msn={msn}&_HLS_part={beyond}")), &[]).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let got = Playlist::read(&text, &mut Findings::default());
            let right = got.is_some_and(|got| got.edge() > (msn + 1, 0));
            self.out.findings.must(Rule::A36, right, || {
                format!("part {beyond} of segment {msn} is answered {} without the next one's first", answer.status)
            });
        }
        Ok(())
    }
}

enum Next {
    Now,
    After(Duration),
    Ended,
}

/// The headers of a playlist's answer.
pub fn check_playlist_answer(answer: &Answer, blocking: bool, findings: &mut Findings) {
    let kind = answer.header("content-type").unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let known =
        matches!(kind, "application/vnd.apple.mpegurl" | "audio/mpegurl" | "application/x-mpegurl" | "audio/x-mpegurl");
    findings
        .must(Rule::A1, known || answer.url.path().ends_with(".m3u8"), || format!("a playlist has the type {kind:?}"));
    check_cors(answer, "a playlist", findings);
    if blocking {
        let control = answer.header("cache-control").unwrap_or_default();
        findings.should(Rule::A50, !control.contains("no-store"), || {
            "no cache may keep the answer to a blocking reload".to_owned()
        });
    }
}

fn check_cacheable(answer: &Answer, what: &str, findings: &mut Findings) {
    let control = answer.header("cache-control").unwrap_or_default();
    let forbidden = ["no-store", "no-cache", "private", "max-age=0"].iter().any(|word| control.contains(word));
    findings.should(Rule::A50, control.contains("max-age") && !forbidden, || {
        format!("{what} has Cache-Control {control:?}")
    });
}

fn check_cors(answer: &Answer, what: &str, findings: &mut Findings) {
    findings.should(Rule::A54, answer.header("access-control-allow-origin") == Some("*"), || {
        format!("{what} is not open to all origins")
    });
}

/// A segment that has just left the list.
fn gone(known: Option<&Playlist<'_>>, now: &Playlist<'_>) -> Option<String> {
    let last = now.media_sequence.checked_sub(1)?;
    let segment = known?.segment(last).filter(|s| !s.gap && s.range.is_none())?;
    segment.uri.map(str::to_owned)
}

fn join(base: &Url, uri: &str) -> Result<Url, String> {
    base.join(uri).map_err(|e| format!("{uri}: {e}"))
}

/// The URL with delivery directives behind whatever its query says.
fn with(url: &Url, directives: &str) -> Url {
    let mut url = url.clone();
    let query = url.query().map_or_else(|| directives.to_owned(), |query| format!("{query}&{directives}"));
    url.set_query(Some(&query));
    url
}

/// Bits a second.
fn rate(bytes: u64, micros: i64) -> u64 {
    bytes.saturating_mul(8_000_000).checked_div(micros.unsigned_abs()).unwrap_or(0)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
