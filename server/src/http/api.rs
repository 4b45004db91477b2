//! The JSON API: `/api/v1/channels` and `/api/v1/channels/{name}`.

use http_body::Body as HttpBody;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use media::ChannelName;
use serde::Serialize;

use super::App;
use super::body::Body;
use super::hls::insert;
use super::intake::{self, BoxError};
use super::problem::Problem;
use crate::channel::ChannelStatus;
use crate::config::channel_request;
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
    let value = serde_json::from_str(&text)
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "bad-json", format!("the body is no JSON: {e}")))?;
    let mut faults = Vec::new();
    let Some(wanted) = channel_request(value, "", &app.config.ladders, &mut faults) else {
        let sentences: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-channel", sentences.join("; "));
        return Err(problem.with_faults(faults));
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
