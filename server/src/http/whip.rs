//! WHIP's HTTP side (RFC 9725 §4): POST an offer, PATCH candidates, DELETE the session.

use http_body::Body as HttpBody;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, LOCATION};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use media::ChannelName;

use super::App;
use super::body::Body;
use super::hls::insert;
use super::intake::{self, BoxError};
use super::problem::Problem;
use crate::config::MAX_SDP;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

pub async fn endpoint<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: ChannelName,
    request: Parts,
    body: B,
) -> Response<Body> {
    match request.method {
        Method::POST => post(app, name, &request.headers, body).await.unwrap_or_else(|p| p.response()),
        Method::OPTIONS => options(),
        // §4.1: 2xx without content.
        _ => empty(StatusCode::NO_CONTENT),
    }
}

pub async fn session<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: ChannelName,
    session: &str,
    request: Parts,
    body: B,
) -> Response<Body> {
    let result = match request.method {
        Method::PATCH => patch(app, &name, session, &request.headers, body).await,
        // §4.2: any If-Match is ignored here. 200, since OBS takes everything else for a failure.
        Method::DELETE => {
            app.rooms.whip_delete(&name, session).await.map(|()| empty(StatusCode::OK)).map_err(Problem::from)
        }
        Method::OPTIONS => Ok(options()),
        _ if !app.rooms.whip_session_exists(&name, session) => {
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown-session", "there is no such WHIP session"))
        }
        _ => Ok(empty(StatusCode::NO_CONTENT)),
    };
    result.unwrap_or_else(|p| p.response())
}

/// The header fields that let pages of any origin publish; on every answer, errors too.
pub fn allow_any_origin(headers: &mut HeaderMap) {
    let set = HeaderValue::from_static;
    headers.insert("access-control-allow-origin", set("*"));
    headers.insert("access-control-allow-methods", set("POST, PATCH, DELETE, OPTIONS, GET, HEAD"));
    // Named one by one: `*` does not cover Authorization.
    headers.insert("access-control-allow-headers", set("Authorization, Content-Type, If-Match"));
    headers.insert(
        "access-control-expose-headers",
        set("Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate"),
    );
    headers.insert("access-control-max-age", set("86400"));
}

async fn post<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: ChannelName,
    headers: &HeaderMap,
    body: B,
) -> Result<Response<Body>, Problem> {
    if app.is_draining() {
        return Err(intake::draining());
    }
    require_type(headers, SDP)?;
    let offer = intake::text(body, headers, MAX_SDP, app.config.http.body_timeout).await?;
    let published = app.rooms.whip_post(name.clone(), &offer).await?;
    let mut response = Response::new(Body::from(published.answer));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    // An absolute path: OBS mishandles references that are relative to the endpoint.
    insert(headers, LOCATION, &format!("/whip/{name}/{}", published.session));
    insert(headers, ETAG, &format!("\"{}\"", published.etag));
    headers.insert("accept-patch", HeaderValue::from_static(FRAGMENT));
    Ok(response)
}

async fn patch<B: HttpBody<Error: Into<BoxError>>>(
    app: &App,
    name: &ChannelName,
    session: &str,
    headers: &HeaderMap,
    body: B,
) -> Result<Response<Body>, Problem> {
    require_type(headers, FRAGMENT)?;
    let tag = if_match(headers)?;
    let fragment = intake::text(body, headers, MAX_SDP, app.config.http.body_timeout).await?;
    app.rooms.whip_patch(name, session, tag.as_deref(), &fragment).await?;
    // §4.3.2: no body and no ETag.
    Ok(empty(StatusCode::NO_CONTENT))
}

fn options() -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert("accept-post", HeaderValue::from_static(SDP));
    headers.insert("accept-patch", HeaderValue::from_static(FRAGMENT));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Media types compare without case and parameters (RFC 9110 §8.3.1).
fn require_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let detail = format!("the Content-Type must be {wanted}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail))
}

/// The entity tag without its quotes; `*` bare or, as an example in the RFC has it, quoted. A weak tag or a list stays as
/// it is: it cannot equal a tag of ours (If-Match compares strongly, RFC 9110 §13.1.1), so it leads to 412.
fn if_match(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut all = headers.get_all(IF_MATCH).iter();
    let Some(value) = all.next() else { return Ok(None) };
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "bad-if-match", "If-Match must hold one entity tag");
    let text = value.to_str().map_err(|_| bad())?.trim();
    if all.next().is_some() || text.is_empty() {
        return Err(bad());
    }
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).filter(|t| !t.contains('"'));
    Ok(Some(inner.unwrap_or(text).to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn if_match_is_unquoted() {
        let ask = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, HeaderValue::from_static(value));
            if_match(&headers)
        };
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
        for (value, tag) in [
            ("\"abc\"", "abc"),
            (" \"abc\" ", "abc"),
            ("*", "*"),
            ("\"*\"", "*"),
            ("abc", "abc"),
            ("W/\"abc\"", "W/\"abc\""),
            ("\"a\", \"b\"", "\"a\", \"b\""),
            ("\"\"", ""),
            ("\"", "\""),
        ] {
            assert_eq!(ask(value).unwrap().as_deref(), Some(tag), "{value}");
        }
        assert_eq!(ask("").unwrap_err().status, 400);
        let mut twice = HeaderMap::new();
        twice.append(IF_MATCH, HeaderValue::from_static("\"a\""));
        twice.append(IF_MATCH, HeaderValue::from_static("\"a\""));
        assert_eq!(if_match(&twice).unwrap_err().status, 400);
    }

    #[test]
    fn media_types_compare_loosely() {
        let ask = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            require_type(&headers, SDP).is_ok()
        };
        assert!(ask("application/sdp") && ask("Application/SDP; charset=utf-8") && ask(" application/sdp ;x"));
        assert!(!ask("application/sdpx") && !ask("text/plain") && !ask("") && !ask("application/json"));
        assert!(require_type(&HeaderMap::new(), SDP).is_err());
    }
}
