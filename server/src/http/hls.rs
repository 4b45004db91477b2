//! HLS and Low-Latency HLS over HTTP: playlists with blocking reload, parts, segments and init segments.
//!
//! Errors follow draft-pantos-hls-rfc8216bis §6.2.5; every wait ends after three target durations, when the snapshot
//! says so, or when the client goes (hyper then drops the handler).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use media::{ChannelName, RenditionId};
use packager::{Directives, Lookup, Reload, Report, Snapshot, Variant};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use super::body::Body;
use super::playlists::Rendered;
use super::problem::Problem;
use super::range::{Selected, select};
use super::route::Object;
use crate::channel::{Channel, RenditionSet, RenditionView};

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
/// For the publisher of a channel that players watched before the server was started anew.
const HOLD_FOR_PUBLISHER: Duration = Duration::from_secs(6);

/// Header fields of an answer to a viewer, those of the listener and of hyper included.
const FIELDS: usize = 12;

/// Media never changes at its URI. The window and its retention end far sooner, so caches may keep it longer than we do.
const IMMUTABLE: &str = "public, max-age=3600, immutable";

/// What an answer needs of its request. A request that is held keeps this and not its head: the fields there are slices of the
/// connection's read buffer, which would have to get another one of 8 KB.
pub struct Asked {
    /// A hash that tells viewers apart; None where nobody counts.
    viewer: Option<u64>,
    directives: Result<Directives, &'static str>,
    is_get: bool,
    gzip: bool,
    if_none_match: Option<Box<str>>,
    range: Option<Box<str>>,
    if_range: Option<Box<str>>,
}

impl Asked {
    /// `counts`: for a playlist, by which viewers are counted.
    pub fn of(app: &App, request: Parts, peer: IpAddr, counts: bool) -> Self {
        let headers = &request.headers;
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(Box::from);
        Self {
            viewer: counts.then(|| app.fingerprint(peer, &request.headers)),
            directives: directives(request.uri.query()),
            is_get: request.method == Method::GET,
            gzip: accepts_gzip(headers),
            if_none_match: tags(headers),
            range: text(RANGE),
            if_range: text(IF_RANGE),
        }
    }

    fn has(&self, etag: &str) -> bool {
        self.if_none_match.as_deref().is_some_and(|tags| names_etag(tags, etag))
    }
}

pub async fn multivariant(app: &App, name: &ChannelName, asked: &Asked) -> Response<Body> {
    let Some(channel) = app.rooms.channel(name.as_str()) else { return no_channel() };
    seen(&channel, asked);
    let set = channel.renditions.borrow().clone();
    let snapshots: Vec<_> = set.offered().chain(&set.audio).map(|v| v.snapshots.borrow().clone()).collect();
    let rendered = app.playlists.multivariant(name, &snapshots, || {
        let (video, audio, target_duration) = variants(&set)?;
        Some((Bytes::from(packager::multivariant(&video, &audio)), target_duration))
    });
    match rendered {
        None => not_yet(),
        Some(rendered) => playlist_response(&rendered, false, asked),
    }
}

pub async fn object(
    app: &App,
    name: &ChannelName,
    rendition: &RenditionId,
    object: Object,
    asked: &Asked,
) -> Response<Body> {
    let Some(channel) = app.rooms.channel(name.as_str()) else { return no_channel() };
    let set = match &object {
        Object::Playlist => begun(app, &channel).await,
        _ => channel.renditions.borrow().clone(),
    };
    let Some(view) = set.find(rendition.as_str()) else { return missing("there is no such rendition") };
    match object {
        Object::Playlist => {
            seen(&channel, asked);
            media_playlist(app, &channel, view, asked).await
        }
        Object::Part(msn, part) => {
            let found = held(app, view, |s| s.part(msn, part)).await;
            match found {
                Ok(bytes) => {
                    let etag = format!("\"{msn}.{part}-{:x}\"", bytes.len());
                    media_response(&[bytes], etag, content_type(&set, view), asked)
                }
                Err(response) => response,
            }
        }
        Object::Segment(msn) => match held(app, view, |s| s.segment(msn)).await {
            Ok(parts) => {
                let length: usize = parts.iter().map(Bytes::len).sum();
                media_response(&parts, format!("\"{msn}-{length:x}\""), content_type(&set, view), asked)
            }
            Err(response) => response,
        },
        Object::Init(msn) => {
            let found = view.snapshots.borrow().init(msn);
            match found {
                Some(bytes) => {
                    let etag = format!("\"init-{msn}-{:x}\"", bytes.len());
                    media_response(&[bytes], etag, content_type(&set, view), asked)
                }
                None => missing("there is no such init segment, or not any more"),
            }
        }
    }
}

/// The preflight of a cross-origin request with a Range or If-None-Match header.
pub fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let set = HeaderValue::from_static;
    headers.insert("access-control-allow-methods", set("GET, HEAD, OPTIONS"));
    headers.insert("access-control-allow-headers", set("Range, If-None-Match, If-Range, Cache-Control"));
    headers.insert("access-control-max-age", set("86400"));
    response
}

/// 204: whoever asks may watch; others have got 403 before this. Caches may remember it for a moment, so that one that has
/// taken the token out of its keys can ask for each viewer.
pub fn access() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=10"));
    response
}

async fn media_playlist(app: &App, channel: &Channel, view: &RenditionView, asked: &Asked) -> Response<Body> {
    let directives = match asked.directives {
        Ok(d) => d,
        Err(why) => return refused(why),
    };
    if directives.msn.is_none() {
        next_part(app, view).await;
    }
    let snapshot = match wait(app, view, |s| match s.reload(&directives) {
        _ if !s.is_playable() => Step::Wait,
        Reload::Now => Step::Answer(Ok(s.clone())),
        Reload::Refuse(why) => Step::Answer(Err(refused(why))),
        Reload::Wait => Step::Wait,
    })
    .await
    {
        Ok(snapshot) => snapshot,
        Err(response) => return response,
    };
    // Rendered for this answer: the other renditions went on while this request was held (A33).
    let set = channel.renditions.borrow().clone();
    let others: Vec<_> =
        set.video.iter().chain(&set.audio).filter(|v| v.id != view.id).map(|v| v.snapshots.borrow().clone()).collect();
    let rendered = app.playlists.render(&channel.name, &snapshot, directives.skip, &others, || reports(&others));
    playlist_response(&rendered, directives.msn.is_some(), asked)
}

/// Waits for the rendition's next part, not much longer than it takes while media flows. Who asks without directives begins
/// to play: hls.js starts PART-HOLD-BACK behind the end of this answer and at its defaults never catches up,
/// so that the age of the newest part, 100 ms on average at parts of 200 ms, would stay in its latency.
async fn next_part(app: &App, view: &RenditionView) {
    let mut snapshots = view.snapshots.clone();
    let longest = {
        let snapshot = snapshots.borrow_and_update();
        if !snapshot.is_playable() || snapshot.is_ended() {
            return;
        }
        Duration::from_micros(u64::try_from(snapshot.part_target().micros()).unwrap_or(0)) * 5 / 4
    };
    let _held = app.metrics.hold();
    // Late or gone: what there is.
    let _ = timeout(longest, snapshots.changed()).await;
}

/// The channel's renditions, awaited for as long as one may be held while there are none at all. Who asks for a rendition knows it
/// from a playlist: where there is none yet, the server was started anew a moment ago. Players take a 404 then for the end and a
/// 503 for a reason to wait for a long time (hls.js asks without directives when a blocking reload was cut off), so they are held
/// until the publisher is back.
async fn begun(app: &App, channel: &Channel) -> Arc<RenditionSet> {
    let is_there = |set: &Arc<RenditionSet>| !(set.video.is_empty() && set.audio.is_empty());
    let set = channel.renditions.borrow().clone();
    if is_there(&set) {
        return set;
    }
    let mut sets = channel.renditions.clone();
    let _held = app.metrics.hold();
    let found = timeout_at(Instant::now() + HOLD_FOR_PUBLISHER, sets.wait_for(is_there)).await;
    // At the time-out, or when the channel has ended, what there is.
    drop(found);
    channel.renditions.borrow().clone()
}

enum Step<T> {
    Answer(T),
    Wait,
}

/// Asks every snapshot until one has an answer; 503 after three target durations (A40).
async fn wait<T>(
    app: &App,
    view: &RenditionView,
    ask: impl Fn(&Arc<Snapshot>) -> Step<Result<T, Response<Body>>>,
) -> Result<T, Response<Body>> {
    let mut snapshots: watch::Receiver<Arc<Snapshot>> = view.snapshots.clone();
    let snapshot = snapshots.borrow_and_update().clone();
    if let Step::Answer(answer) = ask(&snapshot) {
        return answer;
    }
    let target = Duration::from_secs(u64::from(snapshot.timing().target_duration));
    let deadline = Instant::now() + target * 3;
    // Kept no longer than needed: it holds a window of media.
    drop(snapshot);
    let _held = app.metrics.hold();
    loop {
        match timeout_at(deadline, snapshots.changed()).await {
            Ok(Ok(())) => {
                let snapshot = snapshots.borrow_and_update().clone();
                if let Step::Answer(answer) = ask(&snapshot) {
                    return answer;
                }
            }
            Ok(Err(_)) => return Err(missing("the rendition has ended")),
            Err(_) => {
                app.metrics.timeout("held");
                let problem = "nothing new came within three target durations; the publisher seems to be gone";
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", problem).retry(target);
                return Err(for_a_moment(problem.response()));
            }
        }
    }
}

async fn held<T>(app: &App, view: &RenditionView, look: impl Fn(&Snapshot) -> Lookup<T>) -> Result<T, Response<Body>> {
    wait(app, view, |s| match look(s) {
        Lookup::Here(found) => Step::Answer(Ok(found)),
        Lookup::Missing => Step::Answer(Err(missing("there is no such media, or not any more"))),
        // All of it is sent at once when it is complete; no byte before (A30).
        Lookup::Wait if s.is_ended() => Step::Answer(Err(missing("the stream has ended"))),
        Lookup::Wait => Step::Wait,
    })
    .await
}

/// What the multivariant playlist lists. None while there is nothing to play, or while a rendition is still starting:
/// players read this playlist once and never learn of a rung that came later. One that does not start within three
/// segments of the others is left out.
fn variants(set: &RenditionSet) -> Option<(Vec<Variant>, Vec<Variant>, u32)> {
    let snapshot = |v: &RenditionView| -> (Option<u64>, Arc<Snapshot>) { (v.ceiling, v.snapshots.borrow().clone()) };
    let (video, audio): (Vec<_>, Vec<_>) =
        (set.offered().map(snapshot).collect(), set.audio.iter().map(snapshot).collect());
    let all = || video.iter().chain(&audio).map(|(_, s)| s);
    let target_duration = all().find(|s| s.is_playable())?.timing().target_duration;
    // A player that joins before there is a hold-back's worth of media starts too early and stays that far behind for
    // good: the channel is shown once each rendition has a whole segment, or one has three and the others are missing.
    let segments = |s: &Snapshot| s.position().map_or(0, |p| p.msn.saturating_sub(s.media_sequence()));
    if all().all(|s| segments(s) < 3) && all().any(|s| segments(s) < 1) {
        return None;
    }
    let (video, audio) = (list(&video), list(&audio));
    if video.is_empty() && (audio.is_empty() || !set.video.is_empty()) {
        return None;
    }
    Some((video, audio, target_duration))
}

fn list(snapshots: &[(Option<u64>, Arc<Snapshot>)]) -> Vec<Variant> {
    let variant = |ceiling: Option<u64>, s: &Snapshot| {
        if !s.is_playable() {
            return None;
        }
        Some(Variant {
            id: s.id().clone(),
            config: s.config()?.clone(),
            frame_rate_milli: s.frame_rate_milli(),
            bandwidth: s.declared(ceiling),
        })
    };
    snapshots.iter().filter_map(|(ceiling, s)| variant(*ceiling, s)).collect()
}

fn reports(others: &[Arc<Snapshot>]) -> Vec<Report> {
    let report = |s: &Arc<Snapshot>| {
        let position = s.position().filter(|_| s.is_playable())?;
        Some(Report { uri: format!("../{}/index.m3u8", s.id()), last_msn: position.msn, last_part: position.part })
    };
    others.iter().filter_map(report).collect()
}

/// `_HLS_msn`, `_HLS_part` and `_HLS_skip`; everything else in the query is left alone (A42). Err: 400 with this sentence.
fn directives(query: Option<&str>) -> Result<Directives, &'static str> {
    let mut d = Directives::default();
    let mut skip_seen = false;
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "_HLS_msn" if d.msn.is_some() => return Err("_HLS_msn is given twice"),
            "_HLS_msn" => d.msn = Some(decimal(value).ok_or("_HLS_msn must be a decimal integer")?),
            "_HLS_part" if d.part.is_some() => return Err("_HLS_part is given twice"),
            "_HLS_part" => d.part = Some(decimal(value).ok_or("_HLS_part must be a decimal integer")?),
            "_HLS_skip" if skip_seen => return Err("_HLS_skip is given twice"),
            "_HLS_skip" => {
                skip_seen = true;
                // Values of later versions of the protocol ask for nothing that we know.
                d.skip = value == "YES" || value == "v2";
            }
            _ => {}
        }
    }
    if d.part.is_some() && d.msn.is_none() {
        return Err("_HLS_part needs _HLS_msn");
    }
    Ok(d)
}

fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `held`: for a blocking reload.
fn playlist_response(rendered: &Rendered, held: bool, asked: &Asked) -> Response<Body> {
    let gzip = asked.gzip;
    let etag = rendered.etag(gzip);
    let fresh = asked.has(&etag.text);
    let mut response = roomy(if fresh {
        Body::empty()
    } else if gzip {
        rendered.gzip().into()
    } else {
        rendered.text().into()
    });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    if !fresh {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAYLIST_TYPE));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(ETAG, etag.value.clone());
    headers.insert(CACHE_CONTROL, rendered.age(held));
    response
}

/// An answer with room for all the fields that it gets, so that the map grows once.
fn roomy(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().reserve(FIELDS);
    response
}

fn media_response(chunks: &[Bytes], etag: String, content_type: &'static str, asked: &Asked) -> Response<Body> {
    let total = chunks.iter().map(|c| c.len() as u64).sum();
    let mut response = if asked.has(&etag) {
        let mut response = roomy(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        // Range means something for GET only (RFC 9110 §14.2), and only for the version that If-Range names (§13.1.5).
        let range = asked.range.as_deref().filter(|_| asked.is_get);
        let range = range.filter(|_| asked.if_range.as_deref().is_none_or(|tag| tag == etag));
        match select(range, total) {
            Selected::Whole => roomy(Body::slice(chunks, 0, total)),
            Selected::Span { start, length } => {
                let mut response = roomy(Body::slice(chunks, start, length));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let range = format!("bytes {start}-{}/{total}", start + length - 1);
                insert(response.headers_mut(), CONTENT_RANGE, &range);
                response
            }
            Selected::Unsatisfiable => {
                let problem = format!("the resource has {total} bytes");
                let mut response =
                    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", problem).response();
                insert(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{total}"));
                return response;
            }
        }
    };
    let fresh = response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    if !fresh {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

fn content_type(set: &RenditionSet, view: &RenditionView) -> &'static str {
    if set.audio.iter().any(|a| a.id == view.id) { "audio/mp4" } else { "video/mp4" }
}

/// RFC 9110 §12.5.3: gzip is listed (or `*`) and not forbidden by q=0.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut verdict = None;
    for value in headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()) {
        for item in value.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let allowed = !parts.any(|p| {
                p.strip_prefix("q=").is_some_and(|q| q.starts_with('0') && q.bytes().all(|b| b == b'0' || b == b'.'))
            });
            if coding.eq_ignore_ascii_case("gzip") {
                return allowed;
            }
            if coding == "*" {
                verdict = Some(allowed);
            }
        }
    }
    verdict.unwrap_or(false)
}

/// If-None-Match by weak comparison (RFC 9110 §13.1.2).
pub fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    tags(headers).is_some_and(|tags| names_etag(&tags, etag))
}

/// All of If-None-Match as one list (RFC 9110 §5.2).
fn tags(headers: &HeaderMap) -> Option<Box<str>> {
    let mut values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let first = values.next()?;
    Some(values.fold(first.to_owned(), |all, value| all + "," + value).into())
}

fn names_etag(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Our own header values are ASCII; one that were not would be left out rather than panic.
pub fn insert(headers: &mut HeaderMap, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn seen(channel: &Channel, asked: &Asked) {
    if let Some(fingerprint) = asked.viewer {
        channel.viewers.seen(fingerprint);
    }
}

fn no_channel() -> Response<Body> {
    missing("there is no such channel")
}

fn missing(detail: &str) -> Response<Body> {
    for_a_moment(Problem::new(StatusCode::NOT_FOUND, "not-found", detail).response())
}

/// What is not there now may be there soon (A50). Not `no-store`: a cache lets requests for the same thing wait for each
/// other, and with an answer that it must not keep each of them would be held anew, one behind the other; and a crowd that
/// waits for a programme to begin should ask the cache, not us.
fn for_a_moment(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
    response
}

fn not_yet() -> Response<Body> {
    let detail = "the channel is waiting for its publisher, or its first segments are on their way";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", detail).retry(Duration::from_secs(1));
    for_a_moment(problem.response())
}

fn refused(why: &str) -> Response<Body> {
    Problem::new(StatusCode::BAD_REQUEST, "bad-directive", why).response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a37_a42_directives_as_clients_send_them() {
        let d = |msn, part, skip| Ok(Directives { msn, part, skip });
        for (query, expected) in [
            (None, d(None, None, false)),
            (Some(""), d(None, None, false)),
            (Some("_HLS_msn=7"), d(Some(7), None, false)),
            (Some("_HLS_part=0&_HLS_msn=7"), d(Some(7), Some(0), false)),
            (Some("token=a%20b&_HLS_msn=7&_HLS_part=3&_HLS_skip=YES"), d(Some(7), Some(3), true)),
            (Some("_HLS_skip=v2"), d(None, None, true)),
            (Some("_HLS_skip=v9&_HLS_report=x"), d(None, None, false)),
            (Some("_hls_msn=x"), d(None, None, false)),
        ] {
            assert_eq!(directives(query), expected, "{query:?}");
        }
        for bad in [
            "_HLS_msn=",
            "_HLS_msn",
            "_HLS_msn=-1",
            "_HLS_msn=+1",
            "_HLS_msn=1.5",
            "_HLS_msn=0x1",
            "_HLS_msn=18446744073709551616",
            "_HLS_msn=1&_HLS_msn=1",
            "_HLS_part=1",
            "_HLS_msn=1&_HLS_part=a",
            "_HLS_msn=1&_HLS_part=1&_HLS_part=1",
            "_HLS_skip=YES&_HLS_skip=YES",
        ] {
            assert!(directives(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a49_gzip_only_where_it_is_wanted() {
        let ask = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        for yes in ["gzip", "deflate, GZIP", "br;q=1, gzip;q=0.5", "*", "gzip;q=1.0", "identity, *;q=0.1"] {
            assert!(ask(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0", "gzipped"] {
            assert!(!ask(no), "{no}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn etags_compare_weakly() {
        let ask = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            matches_etag(&headers, "\"a\"")
        };
        assert!(ask("\"a\"") && ask("W/\"a\"") && ask("\"b\", \"a\"") && ask("*"));
        assert!(!ask("a") && !ask("\"b\"") && !ask(""));
    }

    proptest::proptest! {
        #[test]
        fn no_header_or_query_panics(text in "[ -~]{0,60}", query in "(_HLS_(msn|part|skip)=[0-9A-Za-z%+-]{0,22}&?){0,4}\\PC{0,9}") {
            let _ = directives(Some(&query));
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(&text).unwrap());
            headers.insert(IF_NONE_MATCH, HeaderValue::from_str(&text).unwrap());
            let _ = (accepts_gzip(&headers), matches_etag(&headers, "\"a\""));
            for total in [0, 1, 100, u64::MAX] {
                if let Selected::Span { start, length } = select(Some(&text), total) {
                    proptest::prop_assert!(length > 0 && start.checked_add(length).is_some_and(|end| end <= total));
                }
            }
        }

        #[test]
        fn a_span_lies_within(a in proptest::num::u64::ANY, b in proptest::num::u64::ANY, total in proptest::num::u64::ANY) {
            for header in [format!("bytes={a}-{b}"), format!("bytes={a}-"), format!("bytes=-{b}")] {
                if let Selected::Span { start, length } = select(Some(&header), total) {
                    proptest::prop_assert!(length > 0 && start.checked_add(length).is_some_and(|end| end <= total));
                }
            }
        }
    }
}
