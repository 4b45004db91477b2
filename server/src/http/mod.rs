//! The HTTP side: pages, playlists, media, WHIP, the API, probes.
//!
//! `listener` accepts and guards connections, `route` turns a path into an enum, `App::handle` is the one match over it.

pub mod listener;
pub mod tls;
pub mod tls_dev;

mod api;
mod auth;
mod body;
mod frames;
mod hls;
mod intake;
mod pages;
mod playlists;
mod problem;
mod range;
mod rooms;
mod route;
mod whip;

#[cfg(test)]
mod abuse_tests;
#[cfg(test)]
mod hls_tests;
#[cfg(test)]
pub mod tests;
#[cfg(test)]
mod tls_wire_tests;
#[cfg(test)]
mod wire_tests;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use http_body::Body as HttpBody;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH,
    CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use body::Body;
use intake::BoxError;
use problem::Problem;
use rooms::Rooms;
use route::{Area, Object, Route};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::sign::Keyring;
use crate::supervisor::Supervisor;

/// What the log and the page say where nothing but HTTP/1.1 reaches players: browsers and Apple's speak HTTP/2 over TLS only.
pub const NO_HTTP2: &str = "Apple's players get no low latency from this server: they want HTTP/2, which takes TLS. Set \
     http.tls, try --dev-cert, or let a proxy in front offer HTTP/2 over TLS.";

/// Everything that handlers share.
pub struct App {
    rooms: Rooms,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// None: cleartext.
    tls: Option<Arc<tls::Tls>>,
    started: Instant,
    gate: auth::Gate,
    /// None: everyone may watch.
    keys: Option<Arc<Keyring>>,
    playlists: playlists::Playlists,
    compressed: pages::Compressed,
    draining: AtomicBool,
    /// Keyed, so that fingerprints of viewers mean nothing outside this process.
    hasher: RandomState,
}

impl App {
    pub fn new(supervisor: Supervisor, config: Arc<Config>, metrics: Arc<Metrics>, tls: Option<Arc<tls::Tls>>) -> Self {
        Self { tls, ..Self::with_rooms(Rooms::Supervisor(supervisor), config, metrics) }
    }

    fn with_rooms(rooms: Rooms, config: Arc<Config>, metrics: Arc<Metrics>) -> Self {
        Self {
            tls: None,
            started: Instant::now(),
            rooms,
            gate: auth::Gate::new(&config),
            keys: Keyring::of(&config.viewers).map(Arc::new),
            config,
            playlists: playlists::Playlists::new(metrics.clone()),
            metrics,
            compressed: pages::Compressed::default(),
            draining: AtomicBool::new(false),
            hasher: RandomState::new(),
        }
    }

    /// The viewers' keys, where there are any.
    pub fn keyring(&self) -> Option<Arc<Keyring>> {
        self.keys.clone()
    }

    /// From now on new publishers and channels are refused and `/readyz` says so; viewers are still served.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Answers one request; always.
    pub async fn handle<B: HttpBody<Error: Into<BoxError>>>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let (request, body) = request.into_parts();
        let (token, path) = route::take_token(request.uri.path());
        let (token, route) = (token.map(str::to_owned), Route::parse(&path));
        let (area, class) = (route.area(), route.class());
        let head = request.method == Method::HEAD;
        let version = request.version;
        let mut response = match check_framing(&request) {
            Err(why) => {
                let mut response = Problem::new(StatusCode::BAD_REQUEST, "bad-request", why).response();
                if version != Version::HTTP_2 {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
            Ok(()) => self.dispatch(route, token.as_deref(), request, body, peer.ip()).await,
        };
        let status = response.status();
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match area {
            Area::Live => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                headers.insert(
                    ACCESS_CONTROL_EXPOSE_HEADERS,
                    HeaderValue::from_static("Date, Age, Content-Length, Content-Range, ETag, Retry-After"),
                );
                headers.insert(TIMING_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Area::Whip => whip::allow_any_origin(headers),
            Area::Api | Area::Page | Area::Probe => {}
        }
        if head {
            let length = response.body().len();
            if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = Body::empty();
        }
        self.metrics.request(class, status.as_u16());
        response
    }

    async fn dispatch<B: HttpBody<Error: Into<BoxError>>>(
        &self,
        route: Route,
        token: Option<&str>,
        request: Parts,
        body: B,
        peer: IpAddr,
    ) -> Response<Body> {
        let Some(allow) = route.allow() else {
            return match route {
                Route::BadName(_) => {
                    Problem::new(StatusCode::BAD_REQUEST, "bad-name", media::InvalidName.to_string()).response()
                }
                _ => Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path").response(),
            };
        };
        if !allow.split(", ").any(|m| m == request.method.as_str()) {
            let detail = format!("this path takes {allow}");
            let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail).response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return response;
        }
        if auth::guarded(route.area()) {
            let now = Instant::now();
            if let Err(denied) = self.gate.check(&route, &request.method, &request.uri, &request.headers, peer, now) {
                return denied.response();
            }
        }
        let preflight = request.method == Method::OPTIONS;
        // A preflight gives nothing away. Paths signed for a server that asks for no token are served all the same, so that
        // switching keys off disturbs no viewer.
        if let (Some(keys), Some(name), false) = (&self.keys, route.watched(), preflight)
            && let Err(unfit) = keys.keys().check(token, name, SystemTime::now())
        {
            return Problem::from(unfit).response();
        }
        match route {
            Route::Status => pages::page(&self.compressed, "index.html", &request),
            Route::Watch => pages::page(&self.compressed, "watch.html", &request),
            Route::Publish => pages::page(&self.compressed, "publish.html", &request),
            Route::Asset(path) => pages::asset(&self.compressed, &path, &request),
            Route::Multivariant(_) | Route::Media(..) | Route::Access(_) if preflight => hls::preflight(),
            Route::Multivariant(name) => {
                let asked = hls::Asked::of(self, request, peer, true);
                hls::multivariant(self, &name, &asked).await
            }
            Route::Media(name, rendition, object) => {
                let asked = hls::Asked::of(self, request, peer, object == Object::Playlist);
                hls::object(self, &name, &rendition, object, &asked).await
            }
            Route::Access(_) => hls::access(),
            // Boxed: every viewer's held request has room for the largest of these futures.
            Route::Whip(name) => Box::pin(whip::endpoint(self, name, request, body)).await,
            Route::WhipSession(name, session) => Box::pin(whip::session(self, name, &session, request, body)).await,
            Route::Channels => api::channels(self),
            Route::Server => api::server(self, &request.headers),
            Route::Devices => api::devices(self),
            Route::Drain(id) => api::drain(self, &id),
            Route::Restore(id) => api::restore(self, &id),
            Route::Channel(name) => Box::pin(api::channel(self, name, request, body)).await,
            Route::Sign(name) => Box::pin(api::sign(self, &name, request, body)).await,
            Route::Metrics => {
                let text = self.metrics.render(&self.rooms.status(), self.rooms.devices().as_ref());
                plain(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
            }
            Route::Health => plain(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
            Route::Ready if self.is_draining() => intake::draining().response(),
            Route::Ready => plain(StatusCode::OK, "text/plain; charset=utf-8", "ready\n".to_owned()),
            // Answered above: they allow nothing.
            Route::BadName(_) | Route::Unknown(_) => {
                Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path").response()
            }
        }
    }

    /// Tells viewers apart: address and user agent, hashed.
    fn fingerprint(&self, peer: IpAddr, headers: &HeaderMap) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        peer.hash(&mut hasher);
        headers.get(USER_AGENT).map(HeaderValue::as_bytes).hash(&mut hasher);
        hasher.finish()
    }
}

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// What hyper lets pass but a proxy in front might read differently (RFC 9112 §3.2 and §6.1). Of Transfer-Encoding with
/// Content-Length hyper takes the former and closes after the answer, as §6.1 demands.
fn check_framing(request: &Parts) -> Result<(), &'static str> {
    if request.version == Version::HTTP_2 {
        return Ok(());
    }
    let count = |headers: &HeaderMap| headers.get_all(HOST).iter().count();
    if count(&request.headers) > 1 || (request.version == Version::HTTP_11 && count(&request.headers) == 0) {
        return Err("an HTTP/1.1 request needs exactly one Host header");
    }
    if request.headers.get(TRANSFER_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err("the only transfer coding taken is chunked");
    }
    Ok(())
}

fn plain(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
