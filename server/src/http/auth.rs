//! Who may publish and administer: bearer tokens, and guards against a browser that is made to ask for someone else.
//!
//! With a token: WHIP POST, PATCH and DELETE need the publish token; API changes need the admin token, and when the
//! server listens off loopback so do reading the API and the metrics. Without a token (loopback only): changes through
//! the API are refused when a browser sends them from a foreign page (CSRF), and everything of the API when the Host is
//! not a loopback name (DNS rebinding). WHIP stays open to pages of any origin there, since publishing from a page on
//! another local port is what developers do; it can be closed by a publish token.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode, Uri};
use tokio::time::Instant;

use super::body::Body;
use super::problem::Problem;
use super::route::{Area, Route};
use crate::config::{Config, Secret};

/// Wrong tokens from one address within a minute before it has to wait.
const ATTEMPTS: u32 = 20;
/// WHIP POSTs from one address within a minute: each costs an ICE agent, a DTLS handshake and, if it goes on, an encoder.
/// Publishers that reconnect need a few. Loopback, where gateways and tests live, is exempt.
const PUBLISHES: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses remembered; the oldest is forgotten when there are more. About 300 KB.
const ADDRESSES: usize = 4096;

#[derive(Debug)]
pub struct Gate {
    publish: Option<Secret>,
    admin: Option<Secret>,
    local: bool,
    failures: Tally,
    publishes: Tally,
}

/// How often each address did something in its present minute.
#[derive(Debug, Default)]
struct Tally(Mutex<HashMap<IpAddr, (Instant, u32)>>);

/// Why a request may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    Token(&'static str),
    TooMany(Duration),
    Foreign(&'static str),
}

/// Whether requests of this area have to pass the gate at all.
pub fn guarded(area: Area) -> bool {
    matches!(area, Area::Whip | Area::Api)
}

impl Gate {
    pub fn new(config: &Config) -> Self {
        Self {
            publish: config.auth.publish_token.clone(),
            admin: config.auth.admin_token.clone(),
            local: config.http_is_local(),
            failures: Tally::default(),
            publishes: Tally::default(),
        }
    }

    /// Whether this request may go on to its handler.
    pub fn check(
        &self,
        route: &Route,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        peer: IpAddr,
        now: Instant,
    ) -> Result<(), Denied> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match route.area() {
            Area::Whip if !reads => {
                if let Some(token) = &self.publish {
                    self.bearer(token, headers, peer, now)?;
                }
                if *method == Method::POST && !peer.to_canonical().is_loopback() {
                    let peer = bucket(peer);
                    self.publishes.spent(peer, PUBLISHES, now).map_err(Denied::TooMany)?;
                    self.publishes.count(peer, now);
                }
                Ok(())
            }
            Area::Api => match &self.admin {
                Some(token) if !reads || !self.local => self.bearer(token, headers, peer, now),
                Some(_) => Ok(()),
                None => {
                    let host = host(uri, headers);
                    if !host.is_some_and(is_loopback_host) {
                        return Err(Denied::Foreign(
                            "without an admin token the API answers only to localhost, 127.0.0.1 and [::1] as host",
                        ));
                    }
                    if !reads && !same_origin(headers, host) {
                        return Err(Denied::Foreign(
                            "without an admin token pages of another origin may not change anything",
                        ));
                    }
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    fn bearer(&self, token: &Secret, headers: &HeaderMap, peer: IpAddr, now: Instant) -> Result<(), Denied> {
        let peer = bucket(peer);
        let given = match bearer_of(headers) {
            Ok(given) => given,
            // Not a guess: costs no attempt.
            Err(why) => return Err(Denied::Token(why)),
        };
        // Also for the right token, else guessing could go on.
        self.failures.spent(peer, ATTEMPTS, now).map_err(Denied::TooMany)?;
        if same(given.as_bytes(), token.0.as_bytes()) {
            return Ok(());
        }
        self.failures.count(peer, now);
        Err(Denied::Token("the token is wrong"))
    }
}

impl Tally {
    /// Err: how long until the address may try again.
    fn spent(&self, peer: IpAddr, limit: u32, now: Instant) -> Result<(), Duration> {
        match self.lock().get(&peer) {
            Some((since, n)) if *n >= limit && now.duration_since(*since) < MINUTE => {
                Err((*since + MINUTE).duration_since(now))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, peer: IpAddr, now: Instant) {
        let mut map = self.lock();
        if map.len() >= ADDRESSES && !map.contains_key(&peer) {
            map.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
            if map.len() >= ADDRESSES
                && let Some(oldest) = map.iter().min_by_key(|(_, (since, _))| *since).map(|(ip, _)| *ip)
            {
                map.remove(&oldest);
            }
        }
        let entry = map.entry(peer).or_insert((now, 0));
        if now.duration_since(entry.0) >= MINUTE {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }

    /// Held for a look-up only; a poisoned map is still a map.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, (Instant, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Denied {
    pub fn response(&self) -> Response<Body> {
        match self {
            Self::Token(why) => {
                let mut r = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", *why).response();
                // RFC 6750 §3: no error code where no token was given would be finer, but tells nothing more.
                r.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fishladder\""));
                r
            }
            Self::TooMany(wait) => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-attempts",
                "too many attempts from this address within a minute",
            )
            .retry(*wait + Duration::from_secs(1))
            .response(),
            Self::Foreign(why) => Problem::new(StatusCode::FORBIDDEN, "foreign-request", *why).response(),
        }
    }
}

/// Compares without telling by its duration where the first difference is; only the length shows.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.iter().zip(b).fold(0u8, |d, (x, y)| std::hint::black_box(d | (x ^ y)))) == 0
}

/// RFC 6750 §2.1; exactly one Authorization header.
fn bearer_of(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err("a bearer token is needed, in exactly one Authorization header");
    };
    let text = value.to_str().map_err(|_| "the Authorization header is not text")?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => Ok(token.trim()),
        _ => Err("the Authorization header must say: Bearer TOKEN"),
    }
}

/// Host and port that the client meant: the authority in HTTP/2, the Host header in HTTP/1.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    uri.authority().map(hyper::http::uri::Authority::as_str).or_else(|| headers.get(HOST)?.to_str().ok())
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        // RFC 6761 §6.3: localhost and everything below it.
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// False for a request that a browser sends from a page of another origin.
fn same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return false;
    }
    match headers.get(ORIGIN) {
        None => true,
        Some(origin) => origin.to_str().ok().and_then(|o| o.split_once("://")).is_some_and(|(_, at)| Some(at) == host),
    }
}

/// One attacker has a whole /64 in IPv6.
pub fn bucket(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn gate(publish: bool, admin: bool, local: bool) -> Gate {
        let secret = |on: bool, t: &str| on.then(|| Secret(t.to_owned()));
        Gate {
            publish: secret(publish, "publish"),
            admin: secret(admin, "admin"),
            local,
            failures: Tally::default(),
            publishes: Tally::default(),
        }
    }

    fn ask(gate: &Gate, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Result<(), u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let uri = path.parse().unwrap();
        let result = gate.check(&Route::parse(path), &method, &uri, &map, PEER, Instant::now());
        result.map_err(|denied| denied.response().status().as_u16())
    }

    #[test]
    fn tokens_are_asked_for_where_they_protect_something() {
        let g = gate(true, true, false);
        let publish = [("authorization", "Bearer publish")];
        let admin = [("authorization", "bearer admin")];
        assert_eq!(ask(&g, Method::POST, "/whip/a", &publish), Ok(()));
        assert_eq!(ask(&g, Method::POST, "/whip/a", &admin), Err(401));
        assert_eq!(ask(&g, Method::POST, "/whip/a", &[]), Err(401));
        assert_eq!(ask(&g, Method::DELETE, "/whip/a/b", &[]), Err(401));
        assert_eq!(ask(&g, Method::PATCH, "/whip/a/b", &[]), Err(401));
        assert_eq!(ask(&g, Method::OPTIONS, "/whip/a", &[]), Ok(()));
        assert_eq!(ask(&g, Method::PUT, "/api/v1/channels/a", &admin), Ok(()));
        assert_eq!(ask(&g, Method::PUT, "/api/v1/channels/a", &publish), Err(401));
        assert_eq!(ask(&g, Method::GET, "/api/v1/channels", &[]), Err(401));
        assert_eq!(ask(&g, Method::GET, "/metrics", &[]), Err(401));
        assert_eq!(ask(&g, Method::GET, "/metrics", &admin), Ok(()));
        for open in ["/live/a/index.m3u8", "/", "/watch/a", "/healthz", "/readyz"] {
            assert_eq!(ask(&g, Method::GET, open, &[]), Ok(()));
        }
        let twice = [("authorization", "Bearer publish"), ("authorization", "Bearer publish")];
        assert_eq!(ask(&g, Method::POST, "/whip/a", &twice), Err(401));
        for odd in ["publish", "Basic publish", "Bearer", "Bearer ", "Bearer publish2", "Bearer publis"] {
            assert_eq!(ask(&g, Method::POST, "/whip/a", &[("authorization", odd)]), Err(401), "{odd}");
        }
        assert_eq!(ask(&g, Method::POST, "/whip/a?token=publish", &[]), Err(401));
        // On loopback with a token: reading is free, changing is not.
        let g = gate(true, true, true);
        assert_eq!(ask(&g, Method::GET, "/api/v1/channels", &[("host", "stream.example.org")]), Ok(()));
        assert_eq!(ask(&g, Method::DELETE, "/api/v1/channels/a", &[]), Err(401));
    }

    #[test]
    fn guessing_is_limited_and_ends_after_a_minute() {
        let g = gate(true, false, true);
        let now = Instant::now();
        let at = |token: &str, now| {
            let mut map = HeaderMap::new();
            map.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
            let route = Route::parse("/whip/a");
            g.check(&route, &Method::POST, &"/whip/a".parse().unwrap(), &map, PEER, now)
        };
        for _ in 0..ATTEMPTS {
            assert!(matches!(at("wrong", now), Err(Denied::Token(_))));
        }
        assert!(matches!(at("publish", now), Err(Denied::TooMany(_))));
        let denied = at("publish", now + Duration::from_secs(30)).unwrap_err();
        assert_eq!(denied, Denied::TooMany(Duration::from_secs(30)));
        assert_eq!(denied.response().headers()["retry-after"], "31");
        assert_eq!(at("publish", now + MINUTE), Ok(()));
    }

    #[test]
    fn publishing_is_rate_limited_by_address() {
        let g = gate(false, false, true);
        for _ in 0..PUBLISHES {
            assert_eq!(ask(&g, Method::POST, "/whip/a", &[]), Ok(()));
        }
        assert_eq!(ask(&g, Method::POST, "/whip/a", &[]), Err(429));
        assert_eq!(ask(&g, Method::DELETE, "/whip/a/b", &[]), Ok(()));
        let (route, uri, headers) = (Route::parse("/whip/a"), Uri::from_static("/whip/a"), HeaderMap::new());
        for other in ["192.0.2.2", "127.0.0.1", "::ffff:127.0.0.1"] {
            let from = other.parse().unwrap();
            assert_eq!(g.check(&route, &Method::POST, &uri, &headers, from, Instant::now()), Ok(()), "{other}");
        }
    }

    #[test]
    fn the_memory_of_failures_is_bounded() {
        let g = gate(true, false, true);
        let mut map = HeaderMap::new();
        map.insert(AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        let now = Instant::now();
        for i in 0..ADDRESSES + 50 {
            let ip = IpAddr::from(u32::try_from(i).unwrap().to_be_bytes());
            assert!(g.bearer(&Secret("publish".to_owned()), &map, ip, now).is_err());
        }
        assert_eq!(g.failures.lock().len(), ADDRESSES);
    }

    #[test]
    fn without_a_token_only_local_and_own_pages_reach_the_api() {
        let g = gate(false, false, true);
        let path = "/api/v1/channels/a";
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST", "a.localhost.", "127.3.2.1"] {
            assert_eq!(ask(&g, Method::PUT, path, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "[::2]", "", "192.0.2.1"]
        {
            assert_eq!(ask(&g, Method::GET, path, &[("host", host)]), Err(403), "{host}");
        }
        let host = ("host", "localhost:8080");
        assert_eq!(ask(&g, Method::PUT, path, &[host, ("origin", "http://localhost:8080")]), Ok(()));
        for origin in ["http://evil.example", "null", "http://localhost:8081", "http://localhost:8080.evil.example"] {
            assert_eq!(ask(&g, Method::PUT, path, &[host, ("origin", origin)]), Err(403), "{origin}");
        }
        assert_eq!(ask(&g, Method::DELETE, path, &[host, ("sec-fetch-site", "cross-site")]), Err(403));
        assert_eq!(ask(&g, Method::DELETE, path, &[host, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(ask(&g, Method::POST, "/whip/a", &[host, ("origin", "http://localhost:8081")]), Ok(()));
    }
}
