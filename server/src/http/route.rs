//! From a path to what it means: a pure function into one enum.

use std::borrow::Cow;

use media::{ChannelName, RenditionId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Status,
    Watch,
    Publish,
    /// A built file below `/assets/`, by its path there.
    Asset(String),
    Multivariant(ChannelName),
    Media(ChannelName, RenditionId, Object),
    /// Says whether the path lets one watch; for caches and pages.
    Access(ChannelName),
    Whip(ChannelName),
    WhipSession(ChannelName, String),
    Channels,
    Channel(ChannelName),
    Sign(ChannelName),
    /// The server as a whole.
    Server,
    Devices,
    Drain(String),
    Restore(String),
    Metrics,
    Health,
    Ready,
    /// A path of ours with a name in it that breaks the grammar; `Area` still decides on CORS.
    BadName(Area),
    Unknown(Area),
}

/// What a rendition consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Playlist,
    Init(u64),
    Segment(u64),
    Part(u64, u64),
}

/// Which rules on CORS, authorization and counting apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Live,
    Whip,
    Api,
    Page,
    Probe,
}

/// No path of ours has more segments.
const DEEPEST: usize = 6;

/// Takes the token out of `/live/~TOKEN/…`; everything else stays as it is. The name of a channel has no `~`, and some
/// clients escape it.
pub fn take_token(path: &str) -> (Option<&str>, Cow<'_, str>) {
    let signed = path.strip_prefix("/live/").and_then(|rest| {
        let rest = rest.strip_prefix('~').or_else(|| rest.strip_prefix("%7E")).or_else(|| rest.strip_prefix("%7e"))?;
        rest.split_once('/')
    });
    match signed {
        Some((token, rest)) => (Some(token), Cow::Owned(format!("/live/{rest}"))),
        None => (None, Cow::Borrowed(path)),
    }
}

impl Route {
    /// `path` as it stands in the request line, without the query.
    pub fn parse(path: &str) -> Self {
        let Some(rest) = path.strip_prefix('/') else { return Self::Unknown(Area::Page) };
        let mut decoded: [Cow<'_, str>; DEEPEST] = Default::default();
        let (mut depth, mut at) = (0, Area::Page);
        for segment in rest.split('/') {
            let Some(slot) = decoded.get_mut(depth) else { return Self::Unknown(at) };
            let Some(segment) = decode(segment) else { return Self::BadName(at) };
            if depth == 0 {
                at = area(&segment);
            }
            *slot = segment;
            depth += 1;
        }
        let segments: [&str; DEEPEST] = std::array::from_fn(|n| decoded.get(n).map_or("", AsRef::as_ref));
        match segments.get(..depth).unwrap_or_default() {
            [""] => Self::Status,
            ["watch", name] => named(name, Area::Page, |_| Self::Watch),
            ["publish", name] => named(name, Area::Page, |_| Self::Publish),
            ["assets", path @ ..] if !path.is_empty() && path.iter().all(|s| harmless(s)) => {
                Self::Asset(path.join("/"))
            }
            ["live", name, "index.m3u8"] => named(name, Area::Live, Self::Multivariant),
            ["live", name, "access"] => named(name, Area::Live, Self::Access),
            ["live", name, rendition, file] => match (name.parse(), rendition.parse(), object(file)) {
                (Ok(name), Ok(rendition), Some(object)) => Self::Media(name, rendition, object),
                (Ok(_), Ok(_), None) => Self::Unknown(Area::Live),
                _ => Self::BadName(Area::Live),
            },
            ["whip", name] => named(name, Area::Whip, Self::Whip),
            ["whip", name, session] => match name.parse() {
                Ok(name)
                    if !session.is_empty()
                        && session.len() <= 64
                        && session.bytes().all(|b| b.is_ascii_alphanumeric()) =>
                {
                    Self::WhipSession(name, (*session).to_owned())
                }
                Ok(_) => Self::Unknown(Area::Whip),
                Err(_) => Self::BadName(Area::Whip),
            },
            ["api", "v1", "channels"] => Self::Channels,
            ["api", "v1", "channels", name] => named(name, Area::Api, Self::Channel),
            ["api", "v1", "channels", name, "sign"] => named(name, Area::Api, Self::Sign),
            ["api", "v1", "server"] => Self::Server,
            ["api", "v1", "devices"] => Self::Devices,
            ["api", "v1", "devices", id, "drain"] => Self::Drain((*id).to_owned()),
            ["api", "v1", "devices", id, "restore"] => Self::Restore((*id).to_owned()),
            ["metrics"] => Self::Metrics,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            _ => Self::Unknown(at),
        }
    }

    pub fn area(&self) -> Area {
        match self {
            Self::Status | Self::Watch | Self::Publish | Self::Asset(_) => Area::Page,
            Self::Multivariant(_) | Self::Media(..) | Self::Access(_) => Area::Live,
            Self::Whip(_) | Self::WhipSession(..) => Area::Whip,
            Self::Channels | Self::Channel(_) | Self::Sign(_) | Self::Metrics => Area::Api,
            Self::Server | Self::Devices | Self::Drain(_) | Self::Restore(_) => Area::Api,
            Self::Health | Self::Ready => Area::Probe,
            Self::BadName(area) | Self::Unknown(area) => *area,
        }
    }

    /// The methods it takes, as the Allow header lists them; None where there is nothing to allow.
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::Multivariant(_) | Self::Media(..) | Self::Access(_) => Some("GET, HEAD, OPTIONS"),
            Self::Whip(_) => Some("GET, HEAD, OPTIONS, POST"),
            Self::WhipSession(..) => Some("DELETE, GET, HEAD, OPTIONS, PATCH"),
            Self::Channel(_) => Some("DELETE, GET, HEAD, PUT"),
            Self::Sign(_) | Self::Drain(_) | Self::Restore(_) => Some("POST"),
            Self::Status | Self::Watch | Self::Publish | Self::Asset(_) => Some("GET, HEAD"),
            Self::Channels | Self::Server | Self::Devices | Self::Metrics | Self::Health | Self::Ready => {
                Some("GET, HEAD")
            }
            Self::BadName(_) | Self::Unknown(_) => None,
        }
    }

    /// The channel whose media it gives away.
    pub fn watched(&self) -> Option<&ChannelName> {
        match self {
            Self::Multivariant(name) | Self::Media(name, ..) | Self::Access(name) => Some(name),
            _ => None,
        }
    }

    /// The label of this route in metrics: few values, none from outside.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Status | Self::Watch | Self::Publish => "page",
            Self::Asset(_) => "asset",
            Self::Multivariant(_) => "multivariant",
            Self::Media(_, _, Object::Playlist) => "playlist",
            Self::Media(_, _, Object::Init(_)) => "init",
            Self::Media(_, _, Object::Segment(_)) => "segment",
            Self::Media(_, _, Object::Part(..)) => "part",
            Self::Access(_) => "access",
            Self::Whip(_) | Self::WhipSession(..) => "whip",
            Self::Channels | Self::Channel(_) | Self::Sign(_) => "api",
            Self::Server | Self::Devices | Self::Drain(_) | Self::Restore(_) => "api",
            Self::Metrics => "metrics",
            Self::Health | Self::Ready => "probe",
            Self::BadName(_) | Self::Unknown(_) => "unknown",
        }
    }
}

fn named(name: &str, area: Area, route: impl FnOnce(ChannelName) -> Route) -> Route {
    match name.parse() {
        Ok(name) => route(name),
        Err(_) => Route::BadName(area),
    }
}

fn object(file: &str) -> Option<Object> {
    if file == "index.m3u8" {
        return Some(Object::Playlist);
    }
    if let Some(msn) = file.strip_prefix("init-").and_then(|f| f.strip_suffix(".mp4")) {
        return Some(Object::Init(number(msn)?));
    }
    let stem = file.strip_suffix(".m4s")?;
    match stem.split_once('.') {
        None => Some(Object::Segment(number(stem)?)),
        Some((msn, part)) => Some(Object::Part(number(msn)?, number(part)?)),
    }
}

/// A number as we write it, so that every object has exactly one URI: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && !text.is_empty());
    if canonical && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Percent-decoding (RFC 3986 §2.1), once. All our names are ASCII, so anything else is None.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut out = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(b) = bytes.next() {
        let b = match b {
            b'%' => {
                let mut digit =
                    || bytes.next().and_then(|d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
                let (high, low) = (digit()?, digit()?);
                high << 4 | low
            }
            other => other,
        };
        if !b.is_ascii_graphic() || b == b'/' {
            return None;
        }
        out.push(char::from(b));
    }
    Some(Cow::Owned(out))
}

/// A part of an asset's path that cannot lead anywhere else.
fn harmless(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with('.')
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn area(first: &str) -> Area {
    match first {
        "live" => Area::Live,
        "whip" => Area::Whip,
        "api" | "metrics" => Area::Api,
        _ => Area::Page,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_path_of_ours() {
        let name = || "demo".parse::<ChannelName>().unwrap();
        let id = || "v480".parse::<RenditionId>().unwrap();
        let media = |o| Route::Media(name(), id(), o);
        for (path, route) in [
            ("/", Route::Status),
            ("/watch/demo", Route::Watch),
            ("/publish/demo", Route::Publish),
            ("/assets/main-B1_x.js", Route::Asset("main-B1_x.js".to_owned())),
            ("/assets/img/logo.svg", Route::Asset("img/logo.svg".to_owned())),
            ("/live/demo/index.m3u8", Route::Multivariant(name())),
            ("/live/%64emo/index.m3u8", Route::Multivariant(name())),
            ("/live/demo/v480/index.m3u8", media(Object::Playlist)),
            ("/live/demo/access", Route::Access(name())),
            ("/live/demo/v480/init-7.mp4", media(Object::Init(7))),
            ("/live/demo/v480/0.m4s", media(Object::Segment(0))),
            ("/live/demo/v480/18446744073709551615.m4s", media(Object::Segment(u64::MAX))),
            ("/live/demo/v480/12.3.m4s", media(Object::Part(12, 3))),
            ("/whip/demo", Route::Whip(name())),
            ("/whip/demo/0a1B", Route::WhipSession(name(), "0a1B".to_owned())),
            ("/api/v1/channels", Route::Channels),
            ("/api/v1/channels/demo", Route::Channel(name())),
            ("/api/v1/server", Route::Server),
            ("/metrics", Route::Metrics),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
        ] {
            assert_eq!(Route::parse(path), route, "{path}");
            assert!(route.allow().is_some_and(|a| a.contains("GET, HEAD")), "{path}");
        }
    }

    #[test]
    fn a_token_is_taken_out_once() {
        for (path, token, rest) in [
            ("/live/~t0-_/demo/index.m3u8", Some("t0-_"), "/live/demo/index.m3u8"),
            ("/live/%7Et/demo/v1/1.m4s", Some("t"), "/live/demo/v1/1.m4s"),
            ("/live/%7et/demo/v1/1.m4s", Some("t"), "/live/demo/v1/1.m4s"),
            ("/live/~/demo/index.m3u8", Some(""), "/live/demo/index.m3u8"),
            ("/live/~a/~b/demo/index.m3u8", Some("a"), "/live/~b/demo/index.m3u8"),
            ("/live/~a", None, "/live/~a"),
            ("/live/demo/index.m3u8", None, "/live/demo/index.m3u8"),
            ("/~a/live/demo/index.m3u8", None, "/~a/live/demo/index.m3u8"),
            ("//live/~a/demo/index.m3u8", None, "//live/~a/demo/index.m3u8"),
        ] {
            assert_eq!(take_token(path), (token, rest.into()), "{path}");
        }
        assert_eq!(Route::parse("/live/~b/demo/index.m3u8"), Route::BadName(Area::Live));
        assert_eq!(Route::parse("/live/~a"), Route::Unknown(Area::Live));
        let sign = Route::parse("/api/v1/channels/demo/sign");
        assert_eq!((sign.allow(), sign.watched()), (Some("POST"), None));
    }

    #[test]
    fn everything_else() {
        for (path, area) in [
            ("/live/..", Area::Live),
            ("/live/demo/v480/012.m4s", Area::Live),
            ("/live/demo/v480/+1.m4s", Area::Live),
            ("/live/demo/v480/-1.m4s", Area::Live),
            ("/live/demo/v480/1.2.3.m4s", Area::Live),
            ("/live/demo/v480/.m4s", Area::Live),
            ("/live/demo/v480/18446744073709551616.m4s", Area::Live),
            ("/live/demo/v480/init-.mp4", Area::Live),
            ("/live/demo/v480/index.m3u8/", Area::Live),
            ("/live/demo/v480/INDEX.M3U8", Area::Live),
            ("/whip", Area::Whip),
            ("/whip/demo/", Area::Whip),
            ("/whip/demo/a-b", Area::Whip),
            ("/whip/demo/a/b", Area::Whip),
            ("/api/v1/channels/demo/x", Area::Api),
            ("/api/v2/channels", Area::Api),
            ("/assets/", Area::Page),
            ("/assets/.git/config", Area::Page),
            ("/assets/../index.html", Area::Page),
            ("/assets/%2e%2e/index.html", Area::Page),
            ("//", Area::Page),
            ("//live/demo/index.m3u8", Area::Page),
            ("", Area::Page),
            ("*", Area::Page),
            ("/a/b/c/d/e/f/g/h", Area::Page),
        ] {
            assert_eq!(Route::parse(path), Route::Unknown(area), "{path}");
        }
        for (path, area) in [
            ("/live//index.m3u8", Area::Live),
            ("/live/../index.m3u8", Area::Live),
            ("/live/a%2fb/index.m3u8", Area::Live),
            ("/live/%00/index.m3u8", Area::Live),
            ("/live/%zz/index.m3u8", Area::Live),
            ("/live/%/index.m3u8", Area::Live),
            ("/live/%2564emo/index.m3u8", Area::Live),
            ("/live/demo/<b>/index.m3u8", Area::Live),
            ("/whip/%C3%A4", Area::Whip),
            ("/api/v1/channels/", Area::Api),
            ("/api/v1/channels/a b", Area::Api),
            ("/watch/", Area::Page),
        ] {
            assert_eq!(Route::parse(path), Route::BadName(area), "{path}");
        }
        let long = "x".repeat(65);
        assert_eq!(Route::parse(&format!("/publish/{long}")), Route::BadName(Area::Page));
    }

    proptest! {
        #[test]
        fn any_path_has_a_route(path in "\\PC*", tail in "(/|live|whip|api|assets|%2e|\\.|[a-z0-9.%-]{0,9}){0,12}") {
            let _ = Route::parse(&path);
            let route = Route::parse(&format!("/{tail}"));
            if let Route::Asset(path) = route {
                prop_assert!(path.split('/').all(|s| !s.starts_with('.') && !s.is_empty()));
            }
        }
    }
}
