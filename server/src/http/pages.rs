//! The built pages inside the binary, with the headers that keep foreign code out of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::body::Body;
use super::hls::{accepts_gzip, insert, matches_etag};
use super::playlists::gzip;
use super::problem::Problem;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct Dist;

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data:; \
     media-src 'self' blob:; worker-src 'self' blob:; style-src 'self'; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><meta charset=\"utf-8\"><title>Fishladder</title>\
    <h1>The pages were not built</h1><p>This server was compiled without its web pages. Build them with \
    <code>npm ci &amp;&amp; npm run build</code> in <code>web/</code> and compile again, or run <code>make run</code>.</p>\
    <p>Everything else works: the API at <a href=\"/api/v1/channels\">/api/v1/channels</a>, playlists at \
    /live/NAME/index.m3u8.</p>\n";

/// Compressed files by content hash; as many as there are files.
#[derive(Debug, Default)]
pub struct Compressed(Mutex<HashMap<[u8; 32], Bytes>>);

pub fn page(compressed: &Compressed, file: &str, request: &Parts) -> Response<Body> {
    let mut response = match Dist::get(file) {
        Some(found) => respond(compressed, file, found, "no-cache", request),
        None => {
            let mut response = Response::new(Body::from(NOT_BUILT.to_owned()));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    };
    secure(response.headers_mut());
    response
}

pub fn asset(compressed: &Compressed, path: &str, request: &Parts) -> Response<Body> {
    let file = format!("assets/{path}");
    match Dist::get(&file) {
        // Their names hold a hash of their content.
        Some(found) => respond(compressed, &file, found, "public, max-age=31536000, immutable", request),
        None => Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such file").response(),
    }
}

fn respond(
    compressed: &Compressed,
    name: &str,
    file: EmbeddedFile,
    age: &'static str,
    request: &Parts,
) -> Response<Body> {
    let hash = file.metadata.sha256_hash();
    let mime = file.metadata.mimetype().to_owned();
    let squeezable =
        mime.starts_with("text/") || ["javascript", "json", "svg", "manifest"].iter().any(|t| mime.contains(t));
    let squeeze = squeezable && accepts_gzip(&request.headers);
    let digest: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let etag = format!("\"{digest}{}\"", if squeeze { "-gz" } else { "" });
    let mut response = if matches_etag(&request.headers, &etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let bytes: Bytes = match file.data {
            std::borrow::Cow::Borrowed(inside) => Bytes::from_static(inside),
            std::borrow::Cow::Owned(read) => read.into(),
        };
        let mut response = if squeeze {
            let mut known = compressed.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Debug builds read the files anew each time; a rebuilt page must not pile up.
            if known.len() > 256 {
                known.clear();
            }
            Response::new(known.entry(hash).or_insert_with(|| gzip(&bytes)).clone().into())
        } else {
            Response::new(bytes.into())
        };
        let headers = response.headers_mut();
        if squeeze {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let text = mime.starts_with("text/") && !mime.contains("charset");
        insert(headers, CONTENT_TYPE, &if text { format!("{mime}; charset=utf-8") } else { mime });
        response
    };
    let headers = response.headers_mut();
    if squeezable {
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(age));
    insert(headers, ETAG, &etag);
    if name.ends_with(".html") || name.ends_with(".svg") {
        secure(headers);
    }
    response
}

fn secure(headers: &mut HeaderMap) {
    let set = HeaderValue::from_static;
    headers.insert("content-security-policy", set(CONTENT_SECURITY_POLICY));
    headers.insert("referrer-policy", set("no-referrer"));
    headers.insert("x-frame-options", set("DENY"));
    headers.insert("cross-origin-opener-policy", set("same-origin"));
    // The publish page asks for these; nothing that it embeds may.
    headers.insert("permissions-policy", set("camera=(self), microphone=(self), display-capture=(self)"));
}
