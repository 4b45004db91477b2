//! Taking in a request's body: bounded in size and time.

use std::time::Duration;

use http_body::Body as HttpBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};

use super::problem::Problem;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body as text of at most `most` bytes that arrives within `limit`.
pub async fn text<B: HttpBody<Error: Into<BoxError>>>(
    body: B,
    headers: &HeaderMap,
    most: usize,
    limit: Duration,
) -> Result<String, Problem> {
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("the body must not exceed {most} bytes"));
    if headers.get(CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        let detail = "the body must not be compressed";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", detail));
    }
    // Said in advance: refused before a byte of it is read.
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > most as u64) {
        return Err(too_large());
    }
    let limited = Limited::new(Box::pin(body), most);
    let bytes = match tokio::time::timeout(limit, limited.collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(e)) if e.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-body", "the body could not be read"));
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {limit:?}");
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail));
        }
    };
    String::from_utf8(bytes.into())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "bad-body", "the body must be UTF-8 text"))
}

/// What a new publisher hears while the server shuts down.
pub fn draining() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting-down", "the server is shutting down")
        .retry(Duration::from_secs(5))
}
