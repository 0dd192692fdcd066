//! Requests of a node's own, one at a time.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request};

use super::address::Upstream;
use super::connect::Connector;
use super::tls::Trust;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status of the answer.
    pub status: u16,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Body of the answer.
    pub body: Vec<u8>,
}

/// Asks for a URL, such as `http://host:9090/api?x=1`; returns the status and the body.
///
/// # Errors
/// Fails with the reason, for people, if there is no whole answer of at most 4 MiB within the time.
pub fn get(url: &str, within: Duration) -> Result<(u16, Vec<u8>), String> {
    let rest = url.find("://").map_or(0, |at| at + 3);
    let end = url[rest..].find(['/', '?']).map_or(url.len(), |at| rest + at);
    let target = match &url[end..] {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    let answer = request(&url[..end], &target, None, within)?;
    Ok((answer.status, answer.body))
}

/// Sends a request to `server`, `http://host:port`, and reads the answer: a POST of JSON with a
/// body, a GET without one. Waits for the answer; must not be called from a thread that serves
/// HTTP.
///
/// # Errors
/// Fails with the reason, for people, if there is no whole answer of at most 4 MiB within the time.
pub fn request(
    server: &str,
    target: &str,
    body: Option<&[u8]>,
    within: Duration,
) -> Result<Answer, String> {
    let server: Upstream = server.parse().map_err(str::to_owned)?;
    let connector = Connector::new(&server, &Trust::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let exchange = exchange(&connector, &server, target, body.map(<[u8]>::to_vec), within);
    let answer = runtime.block_on(exchange);
    runtime.shutdown_background();
    answer
}

/// As [`request`], over a connection of its own, on the present runtime.
pub(crate) async fn exchange(
    connector: &Connector,
    server: &Upstream,
    target: &str,
    body: Option<Vec<u8>>,
    within: Duration,
) -> Result<Answer, String> {
    let ask = async {
        let made = connector.connect::<Full<Bytes>>(within).await;
        let mut wire = made.map_err(|reason| format!("cannot call it: {reason}"))?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = target.parse().map_err(|_| format!("{target} is no path"))?;
        let host = HeaderValue::from_str(&server.authority()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
        if let Some(body) = body {
            *request.method_mut() = Method::POST;
            *request.body_mut() = Full::new(body.into());
            let json = HeaderValue::from_static(super::refusal::JSON);
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        let response = wire.sender.send_request(request).await;
        let (parts, body) = response.map_err(|error| broken(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("its answer did not come whole: {error}"))?;
        let body = body.to_bytes().to_vec();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    let late = |_| Err(format!("no answer within {within:?}"));
    tokio::time::timeout(within, ask).await.unwrap_or_else(late)
}

/// Words for a request without an answer.
pub(crate) fn broken(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        "its headers are too long".to_owned()
    } else if error.is_parse() {
        "it does not answer in HTTP/1.1".to_owned()
    } else if error.is_incomplete_message() || error.is_canceled() {
        "it closed the connection without a whole answer".to_owned()
    } else {
        use std::error::Error as _;
        let source = error.source().map(|it| format!(": {it}")).unwrap_or_default();
        format!("its answer did not come whole: {error}{source}")
    }
}
