//! The JSON API: `/api/v1/channels`, `/api/v1/channels/{name}`, `/api/v1/channels/{name}/sign`,
//! `/api/v1/server`, and `/api/v1/devices` with `drain` and `restore` of each.

use std::time::SystemTime;

use http_body::Body as HttpBody;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use media::ChannelName;
use serde::Serialize;
use serde_json::Value;

use super::body::Body;
use super::hls::insert;
use super::intake::{self, BoxError};
use super::problem::Problem;
use super::{App, NO_HTTP2};
use crate::channel::ChannelStatus;
use crate::config::{Fault, channel_request, sign_request};
use crate::sign::{playlist_path, seconds};
use crate::supervisor::Put;

/// An SDP of the largest size, every character of it escaped, and the rest of the request.
const MAX_BODY: usize = 256 * 1024;

pub fn channels(app: &App) -> Response<Body> {
    #[derive(Serialize)]
    struct List {
        channels: Vec<ChannelStatus>,
    }
    json(StatusCode::OK, &List { channels: app.rooms.status() })
}

/// What concerns the server as a whole, with what an operator should mend, in plain sentences.
pub fn server(app: &App, headers: &HeaderMap) -> Response<Body> {
    #[derive(Serialize)]
    struct Server {
        version: &'static str,
        uptime_s: u64,
        tls: bool,
        /// Whether players can choose HTTP/2; without TLS none does.
        http2: bool,
        warnings: Vec<String>,
    }
    // A proxy in front that speaks TLS says so; whoever says it without one misleads nobody else.
    let proxied = headers.get("x-forwarded-proto").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"https"));
    let warning = match &app.tls {
        None if proxied => None,
        None => Some(NO_HTTP2.to_owned()),
        Some(tls) => tls.warning(SystemTime::now()),
    };
    let server = Server {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.started.elapsed().as_secs(),
        tls: app.tls.is_some(),
        http2: app.tls.is_some(),
        warnings: warning.into_iter().collect(),
    };
    json(StatusCode::OK, &server)
}

pub fn devices(app: &App) -> Response<Body> {
    json(StatusCode::OK, &app.rooms.devices())
}

/// Moves all sessions off a device and lets no new ones come.
pub fn drain(app: &App, id: &str) -> Response<Body> {
    match app.rooms.fleet().and_then(|fleet| fleet.drain(id)) {
        Some(drained) => json(StatusCode::OK, &drained),
        None => no_device(),
    }
}

/// Takes a drained or quarantined device into use again.
pub fn restore(app: &App, id: &str) -> Response<Body> {
    match app.rooms.fleet().is_some_and(|fleet| fleet.restore(id)) {
        true => json(StatusCode::OK, &serde_json::json!({ "moving": 0, "stranded": [] })),
        false => no_device(),
    }
}

fn no_device() -> Response<Body> {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such device").response()
}

pub async fn channel<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: ChannelName,
    request: Parts,
    body: B,
) -> Response<Body> {
    let result = match request.method {
        Method::PUT => put(app, name, &request, body).await,
        Method::DELETE => app
            .rooms
            .delete(&name)
            .await
            .map(|()| {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            })
            .map_err(Problem::from),
        _ => app
            .rooms
            .status_of(name.as_str())
            .map(|status| json(StatusCode::OK, &status))
            .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such channel")),
    };
    let mut response = result.unwrap_or_else(|p| p.response());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A signed path for viewers of this channel, which need not exist yet.
pub async fn sign<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: &ChannelName,
    request: Parts,
    body: B,
) -> Response<Body> {
    #[derive(Serialize)]
    struct Signed {
        token: String,
        /// Paths on this server; the second one opens the watch page.
        playlist: String,
        watch: String,
        /// Unix time in seconds.
        expires_at: u64,
    }
    let signed = async {
        let text = intake::text(body, &request.headers, MAX_BODY, app.config.http.body_timeout).await?;
        let value = parse(&text)?;
        let mut faults = Vec::new();
        let Some(life) = sign_request(value, &mut faults) else { return Err(unprocessable("bad-request", faults)) };
        let Some(keys) = &app.keys else {
            let detail = "this server has no key to sign with (viewers.key_file): everyone may watch /live/NAME";
            return Err(Problem::new(StatusCode::CONFLICT, "signing-off", detail));
        };
        let expiry = SystemTime::now() + life;
        let token = keys.keys().sign(name, expiry);
        Ok(Signed {
            playlist: playlist_path(&token, name),
            // Behind `#`, where it reaches no server's log and no Referer.
            watch: format!("/watch/{name}#~{token}"),
            expires_at: seconds(expiry),
            token,
        })
    };
    signed.await.map_or_else(|problem| problem.response(), |signed| json(StatusCode::OK, &signed))
}

async fn put<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: ChannelName,
    request: &Parts,
    body: B,
) -> Result<Response<Body>, Problem> {
    if app.is_draining() {
        return Err(intake::draining());
    }
    let text = intake::text(body, &request.headers, MAX_BODY, app.config.http.body_timeout).await?;
    let value = parse(&text)?;
    let mut faults = Vec::new();
    let Some(wanted) = channel_request(value, "", &app.config.ladders, &mut faults) else {
        return Err(unprocessable("bad-channel", faults));
    };
    let put = app.rooms.put(name.clone(), wanted).await?;
    let status = if put == Put::Created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = match app.rooms.status_of(name.as_str()) {
        Some(channel) => json(status, &channel),
        // Deleted again in between.
        None => json(status, &serde_json::json!({ "name": name })),
    };
    if put == Put::Created {
        insert(response.headers_mut(), LOCATION, &format!("/api/v1/channels/{name}"));
    }
    Ok(response)
}

fn parse(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text)
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "bad-json", format!("the body is no JSON: {e}")))
}

fn unprocessable(kind: &'static str, faults: Vec<Fault>) -> Problem {
    let sentences: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, sentences.join("; ")).with_faults(faults)
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(e) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()).response(),
    }
}
