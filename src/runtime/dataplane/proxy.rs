//! The way of a request to its version: the request is checked, the state is taken, and a version
//! chosen.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Version as HttpVersion};

use super::Shared;
use super::access_log::AccessLine;
use super::body::ResponseBody;
use super::choose::{choose, needs_body};
use super::forward::Way;
use super::headers::Source;
use super::own;
use super::request_body::{ClientBody, RequestBody};
use super::serving::{Backend, ServingState};
use crate::runtime::web::guarded::InFlight;
use crate::runtime::web::refusal::Refusal;
use crate::runtime::web::server::Client;

/// Longest target of a request in bytes.
const TARGET_BYTES_MAX: usize = 16 * 1024;

impl Shared {
    /// Answers a request.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: &Arc<Client>,
    ) -> Response<ResponseBody> {
        self.counters.requests.add(1);
        let is_http2 = request.version() == HttpVersion::HTTP_2;
        let fault = check(&request, client);
        let in_flight = client.state.begin(is_http2);
        let is_http1 = !is_http2;
        let line = self.access_line(&request, client);
        let mut response = match fault {
            Some(refusal) => self.refused(&refusal, in_flight),
            None => self.route(request, client, in_flight).await,
        };
        if let Some(mut line) = line {
            let model = response.headers().get("x-model").and_then(|it| it.to_str().ok());
            line.answered(response.status().as_u16(), model.map(str::to_owned));
            response.body_mut().line = Some(line);
        }
        // The answer says it, when it is written: the client does not send another request here.
        if is_http1 && self.is_stopping() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    pub(super) fn source(&self, client: &Client) -> Source<'_> {
        Source { from: client.from, is_tls: client.is_tls, trusted: &self.trusted }
    }

    /// Line of the access log for a request, if it is to have one.
    fn access_line(&self, request: &Request<Incoming>, client: &Client) -> Option<Box<AccessLine>> {
        let log = self.access_log.as_ref()?;
        let is_drawn = log.draws(&mut self.rng(client.worker));
        let source = Source { from: client.from, is_tls: client.is_tls, trusted: &self.trusted };
        let from = source.client(request.headers());
        let what = (request.method(), request.uri());
        is_drawn.then(|| Box::new(AccessLine::new(log, self.clock, from, what)))
    }

    async fn route(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: &Arc<Client>,
        in_flight: InFlight,
    ) -> Response<ResponseBody> {
        let mut serving_state = self.current();
        if let Some(resource) = own::at(request.uri().path(), self.own_paths) {
            let answer = own::answer(self, resource, &request, serving_state.as_deref());
            return whole(answer, in_flight);
        }
        if serving_state.is_none() {
            serving_state = self.await_state().await;
        }
        let Some(state) = serving_state else {
            let refusal = own::not_ready();
            return whole(refusal.response(), in_flight);
        };
        if self.is_echo() && request.uri().path() != "/predict" {
            let reason = "there are /predict, /routing, /health and /metrics";
            return self.refused(&Refusal::new(404, "no_such_path", reason), in_flight);
        }
        let (mut parts, body) = request.into_parts();
        let (held, body) = match self.hold(&state, &mut parts, body).await {
            Ok(held) => held,
            Err(refusal) => return self.refused(&refusal, in_flight),
        };
        let choice = {
            let (source, mut rng) = (self.source(client), self.rng(client.worker));
            choose(&state.serving, &parts, &source, held.as_deref().unwrap_or_default(), &mut rng)
        };
        let Some(choice) = choice else {
            let refusal = Refusal::new(400, "bad_header", "X-Canary is `always` or `never`");
            return self.refused(&refusal, in_flight);
        };
        let is_canary = choice.is_canary(state.share);
        let backend = if is_canary { &state.canary } else { &state.stable };
        let way = Way { shared: self, client, state: &state, backend, choice };
        match &backend.backend {
            Backend::Echo => way.echo(&parts, held.as_deref(), in_flight),
            Backend::Servers(version) => {
                let body = match held {
                    Some(held) => Ok(held),
                    None => Err(body),
                };
                way.forward(version, parts, body, in_flight).await
            }
            Backend::Missing => {
                let reason = format!(
                    "this node has no server of {}; peer rollout serve {}=URL gives it one",
                    backend.model, backend.model
                );
                way.failed(&Refusal::new(502, "no_upstream", &reason), in_flight)
            }
        }
    }

    /// Reads a body that is needed whole: to choose the version, or as the input of the built-in
    /// model. Others are not read.
    async fn hold(
        &self,
        state: &ServingState,
        parts: &mut Parts,
        body: Incoming,
    ) -> Result<(Option<Bytes>, Option<Incoming>), Refusal> {
        if !self.is_echo() && !needs_body(&state.serving) {
            return Ok((None, Some(body)));
        }
        let max = match self.limits.body_bytes {
            0 => self.limits.held_body_bytes,
            own => self.limits.held_body_bytes.min(usize::try_from(own).unwrap_or(usize::MAX)),
        };
        let too_long = || {
            let reason = format!("a body that the node must read has at most {max} bytes");
            Refusal::new(413, "body_too_long", &reason)
        };
        if body.size_hint().lower() > max as u64 {
            return Err(too_long());
        }
        let is_http2 = parts.version == HttpVersion::HTTP_2;
        let body = ClientBody::new(body, self.limits, is_http2);
        let transfer = body.transfer();
        let body = Limited::new(RequestBody::Streamed(Box::new(body)), max);
        match body.collect().await {
            Ok(whole) => {
                let bytes = whole.to_bytes();
                if parts.headers.remove(header::TRANSFER_ENCODING).is_some() {
                    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                }
                Ok((Some(bytes), None))
            }
            Err(_) => Err(transfer.fault().cloned().unwrap_or_else(too_long)),
        }
    }

    /// Refuses a request by an answer of the node's own.
    pub(super) fn refused(&self, refusal: &Refusal, in_flight: InFlight) -> Response<ResponseBody> {
        self.counters.refused.add(1);
        whole(refusal.response(), in_flight)
    }
}

/// An answer of the node's own as one to a request.
pub(super) fn whole(answer: Response<Bytes>, in_flight: InFlight) -> Response<ResponseBody> {
    answer.map(|bytes| ResponseBody::whole(bytes, in_flight))
}

/// Fault of a request that no server is asked about.
fn check(request: &Request<Incoming>, client: &Client) -> Option<Refusal> {
    let headers = request.headers();
    let malformed = |reason: &str| Some(Refusal::new(400, "malformed", reason));
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == HttpVersion::HTTP_11 => {
            return malformed("a request of HTTP/1.1 has a Host header");
        }
        (Some(_), Some(_)) => return malformed("a request has one Host header"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return malformed("the Host header is no name or address");
        }
        _ => {}
    }
    if request.uri().authority().is_some_and(|it| !is_host(it.as_str().as_bytes())) {
        return malformed("the target has no name or address that can be a Host header");
    }
    if request.version() != HttpVersion::HTTP_2 && headers.contains_key(header::TRANSFER_ENCODING) {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked =
            codings.next().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() {
            let reason = "the one known Transfer-Encoding is chunked, once";
            return Some(Refusal::new(501, "not_implemented", reason));
        }
        if client.state.came_with("content-length") {
            return malformed("a request has a Content-Length or a Transfer-Encoding, not both");
        }
    }
    if request.method() == Method::CONNECT {
        let reason = "this is no proxy for CONNECT";
        return Some(Refusal::new(501, "not_implemented", reason));
    }
    if request.uri().path_and_query().is_some_and(|it| it.as_str().len() > TARGET_BYTES_MAX) {
        return Some(Refusal::new(414, "target_too_long", "the target of the request is too long"));
    }
    let expectation = headers.get(header::EXPECT);
    if expectation.is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let reason = "the one known expectation is 100-continue";
        return Some(Refusal::new(417, "unknown_expectation", reason));
    }
    None
}

/// True if a text has only bytes of a host and a port (RFC 3986, 3.2): it goes into headers of the
/// node's own.
fn is_host(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%:[]".contains(byte))
}
