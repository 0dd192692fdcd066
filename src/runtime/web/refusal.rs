//! Answers of a node's own, in JSON or text.

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use serde_json::json;

/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// Reason why a request is not served, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status of the answer.
    pub(crate) status: u16,
    /// Name of the fault, for programs.
    pub(crate) code: &'static str,
    /// Reason for people.
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &'static str, reason: &str) -> Self {
        Self { status, code, reason: reason.to_owned() }
    }

    /// Body of the answer: `{"error":…,"reason":…}`.
    pub(crate) fn json(&self) -> String {
        json!({ "error": self.code, "reason": self.reason }).to_string()
    }

    pub(crate) fn response(&self) -> Response<Bytes> {
        own(self.status, JSON, self.json())
    }
}

/// An answer that no cache keeps.
pub(crate) fn own(
    status: u16,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("own statuses are valid");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
