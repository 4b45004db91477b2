//! Every error of ours as RFC 9457 problem details.

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::Body;
use crate::config::Fault;
use crate::sign::Unfit;
use crate::supervisor::Refusal;

/// What went wrong, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// Last path segment of the problem's `type`.
    pub kind: &'static str,
    pub detail: String,
    /// What exactly is wrong in a body, with paths into it.
    pub faults: Vec<Fault>,
    pub retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Details<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    faults: &'a [Fault],
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), faults: Vec::new(), retry_after: None }
    }

    pub fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }

    /// The body of the answer.
    pub fn json(&self) -> Vec<u8> {
        let details = Details {
            // Relative to the request (RFC 9457 §3.1.1): no host of ours is known for sure.
            r#type: format!("/problems/{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            faults: &self.faults,
        };
        // Texts and numbers always serialize; an empty body would still carry the status.
        serde_json::to_vec(&details).unwrap_or_default()
    }

    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            // Whole seconds (RFC 9110 §10.2.3), never 0: that would ask for a storm.
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        let (kind, detail) = match unfit {
            Unfit::Missing => ("not-signed", "this server is watched by signed paths only: /live/~TOKEN/NAME/…"),
            Unfit::Wrong => ("bad-signature", "the path's token is not good for this channel on this server"),
            Unfit::Expired => ("signature-expired", "the path's token has expired"),
        };
        Self::new(StatusCode::FORBIDDEN, kind, detail)
    }
}

impl From<Refusal> for Problem {
    fn from(r: Refusal) -> Self {
        Self {
            status: StatusCode::from_u16(r.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind: r.kind,
            detail: r.detail,
            faults: Vec::new(),
            retry_after: r.retry_after,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_refusal_becomes_problem_details() {
        let refusal = Refusal {
            status: 409,
            kind: "channel-busy",
            detail: "\"<b>\" is publishing".to_owned(),
            retry_after: Some(Duration::from_millis(200)),
        };
        let response = Problem::from(refusal).with_faults(vec![Fault::new("source", "is missing")]).response();
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let json: serde_json::Value = serde_json::from_slice(&response.body().to_vec()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "/problems/channel-busy", "title": "Conflict", "status": 409,
                "detail": "\"<b>\" is publishing", "faults": [{"path": "source", "problem": "is missing"}],
            })
        );
    }
}
