//! A request at its version: one of the servers is asked, and its answer passed on as it comes.

use std::sync::Arc;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version as HttpVersion};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::body::{Counted, ResponseBody, ServerBody, soon};
use super::choose::ModelChoice;
use super::headers;
use super::mirror::{self, COPY_MARK};
use super::own;
use super::pool::{Lease, Server, Version, VersionPlace};
use super::proxy::whole;
use super::request_body::{ClientBody, RequestBody, Transfer};
use super::serving::{ModelBackend, OWN_HEADERS, ServingState};
use super::tunnel;
use crate::machine::rollout::RequestOutcome;
use crate::runtime::web::client::broken;
use crate::runtime::web::guarded::InFlight;
use crate::runtime::web::refusal::{self, Refusal};
use crate::runtime::web::server::Client;

/// Longest body of a request or an answer that is waited for before its head goes on, in bytes.
const SMALL_BODY: u64 = 16 * 1024;

/// Number of times that a request is given to another connection or server.
const ATTEMPTS_MAX: usize = 4;

/// Fault of a request at its servers.
struct Failure {
    refusal: Refusal,
    outcome: RequestOutcome,
}

/// A request on its way, with what its answer needs.
pub(super) struct Way<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) client: &'a Arc<Client>,
    pub(super) state: &'a ServingState,
    pub(super) backend: &'a ModelBackend,
    pub(super) choice: ModelChoice,
}

impl Way<'_> {
    fn meter(&self, began: crate::model::Time, status: u16, outcome: RequestOutcome) {
        let now = self.shared.clock.mono();
        let times = (now, now.since(began));
        self.backend.meter.observe(times, (status, outcome), self.state.epoch);
    }

    /// An answer of the node's own, in place of the version's.
    pub(super) fn failed(&self, refusal: &Refusal, in_flight: InFlight) -> Response<ResponseBody> {
        self.meter(self.shared.clock.mono(), 0, RequestOutcome::Unreached);
        self.signed(refusal, in_flight)
    }

    fn signed(&self, refusal: &Refusal, in_flight: InFlight) -> Response<ResponseBody> {
        let mut response = refusal.response();
        self.backend.sign(response.headers_mut(), &self.choice);
        if refusal.status == 503 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        whole(response, in_flight)
    }

    /// Answer of the built-in model: the model, the state, and the input.
    pub(super) fn echo(
        &self,
        parts: &Parts,
        body: Option<&[u8]>,
        in_flight: InFlight,
    ) -> Response<ResponseBody> {
        if parts.method != Method::POST {
            let refusal = Refusal::new(405, "no_such_method", "the built-in model has POST");
            let mut response = self.shared.refused(&refusal, in_flight);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let began = self.shared.clock.mono();
        let input = own::input_of(body.unwrap_or_default());
        let text = format!("{}{input}}}", self.backend.echo);
        let mut response = refusal::own(200, refusal::JSON, text);
        response.headers_mut().remove(header::CACHE_CONTROL);
        self.backend.sign(response.headers_mut(), &self.choice);
        self.meter(began, 200, RequestOutcome::Fine);
        whole(response, in_flight)
    }

    /// Asks a server, and passes its answer on.
    pub(super) async fn forward(
        &self,
        version: &Arc<Version>,
        parts: Parts,
        body: Result<Bytes, Option<Incoming>>,
        in_flight: InFlight,
    ) -> Response<ResponseBody> {
        let Some(place) = version.enter() else {
            let reason = format!("too many requests wait for {}", self.backend.model);
            return self.failed(&Refusal::new(503, "busy", &reason), in_flight);
        };
        let began = self.shared.clock.mono();
        let http_version = parts.version;
        let (request, upgrade, transfer) = self.outgoing(parts, body).await;
        let (request, copies) = mirror::copies(self.shared, self.state, self.backend, request);
        if let Some(copy) = copies {
            tokio::spawn(mirror::send(copy, self.client.worker));
        }
        let answer = self.ask(version, request, place, transfer.as_ref()).await;
        match answer.and_then(|it| self.checked(it, upgrade.is_some())) {
            Ok((response, lease)) => {
                // The lease has it: the last but the body, once that has ended.
                drop(transfer);
                let status = response.status();
                let outcome = RequestOutcome::of(status.as_u16());
                if matches!(status.as_u16(), 502..=504) {
                    lease.server.failed();
                } else {
                    lease.server.succeeded();
                }
                self.meter(began, status.as_u16(), outcome);
                let counted = Counted {
                    meter: Arc::clone(&self.backend.meter),
                    clock: self.shared.clock,
                    outcome,
                    epoch: self.state.epoch,
                };
                self.pass_on(response, (lease, counted), (upgrade, http_version), in_flight).await
            }
            Err(failure) => {
                version.counters.failures.add(1);
                // A client that did not send its request is at fault, and not the version.
                match transfer.as_deref().and_then(Transfer::fault) {
                    Some(refusal) => self.shared.refused(refusal, in_flight),
                    None => {
                        self.meter(began, 0, failure.outcome);
                        self.signed(&failure.refusal, in_flight)
                    }
                }
            }
        }
    }

    /// The request as the server gets it; with the other end of an upgrade, if one is asked for.
    async fn outgoing(
        &self,
        parts: Parts,
        body: Result<Bytes, Option<Incoming>>,
    ) -> (Request<RequestBody>, Option<OnUpgrade>, Option<Arc<Transfer>>) {
        let (mut parts, mut transfer) = (parts, None);
        let upgrade = tunnel::wish(&mut parts);
        let host = host_of(&parts);
        let is_expecting = parts.headers.remove(header::EXPECT).is_some();
        let source = self.shared.source(self.client);
        headers::remove_hop_by_hop(&mut parts.headers);
        for name in OWN_HEADERS.iter().chain([&COPY_MARK]) {
            parts.headers.remove(name);
        }
        if !self.shared.keeps_underscores {
            headers::remove_underscores(&mut parts.headers);
        }
        source.tell(&mut parts.headers, &host, &mut self.shared.told(self.client.worker));
        headers::add_via(&mut parts.headers, parts.version);
        join_cookies(&mut parts);
        parts.headers.insert(header::HOST, host);
        if let Some((_, protocol)) = &upgrade {
            parts.headers.insert(header::UPGRADE, protocol.clone());
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let is_http2 = parts.version == HttpVersion::HTTP_2;
        parts.version = HttpVersion::HTTP_11;
        let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        if parts.uri.authority().is_some() {
            parts.uri = target.parse().unwrap_or_default();
        }
        let body = match body {
            Ok(bytes) => RequestBody::Whole(Some(bytes).filter(|it| !it.is_empty())),
            Err(None) => RequestBody::Whole(None),
            Err(Some(rest)) if rest.is_end_stream() => RequestBody::Whole(None),
            Err(Some(rest)) if is_expecting => {
                return self.expecting(parts, ClientBody::new(rest, self.shared.limits, is_http2));
            }
            Err(Some(rest)) => {
                let mut body = ClientBody::new(rest, self.shared.limits, is_http2);
                if body.is_at_most(SMALL_BODY) {
                    body.read_soon().await;
                }
                match body.whole() {
                    Ok(bytes) => RequestBody::Whole(Some(bytes)),
                    Err(body) => {
                        transfer = Some(body.transfer());
                        RequestBody::Streamed(body)
                    }
                }
            }
        };
        (Request::from_parts(parts, body), upgrade.map(|it| it.0), transfer)
    }

    /// A request whose client waits to be told that its body is wanted: the server says so, or
    /// answers, or lets a second pass (RFC 9110, 10.1.1).
    fn expecting(
        &self,
        parts: Parts,
        body: ClientBody,
    ) -> (Request<RequestBody>, Option<OnUpgrade>, Option<Arc<Transfer>>) {
        let (wanted, is_wanted) = watch::channel(false);
        let mut body = Box::new(body);
        body.wait_for(is_wanted);
        let transfer = body.transfer();
        let mut request = Request::from_parts(parts, RequestBody::Streamed(body));
        request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        hyper::ext::on_informational(&mut request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                wanted.send_replace(true);
            }
        });
        (request, None, Some(transfer))
    }

    /// Gives the request to a server. It is given to another one, or to another connection, only
    /// as long as no byte of it has left.
    async fn ask(
        &self,
        version: &Version,
        mut request: Request<RequestBody>,
        place: VersionPlace,
        transfer: Option<&Arc<Transfer>>,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let limits = &self.shared.limits;
        let worker = self.client.worker;
        let target = request.uri().clone();
        let mut tried: Vec<Arc<Server>> = Vec::new();
        let mut reasons = Vec::new();
        let until = Instant::now() + limits.connect;
        for attempt in 0..ATTEMPTS_MAX.max(version.servers.len()) {
            let Some(server) = version.choose(&tried) else { break };
            let kept = if attempt == 0 { server.take_kept(worker) } else { None };
            let count = server.begin();
            let mut wire = match kept {
                Some(wire) => {
                    version.counters.reuses.add(1);
                    wire
                }
                None => {
                    let left = until.saturating_duration_since(Instant::now());
                    match server.connect(left).await {
                        Ok(wire) => wire,
                        Err(reason) => {
                            reasons.push(format!("{}: {reason}", server.address));
                            tried.push(server);
                            continue;
                        }
                    }
                }
            };
            address(&mut request, &server, &target);
            let sent = wire.sender.try_send_request(request);
            match within(limits.first_byte, sent, transfer.map(|it| &**it)).await {
                Some(Ok(response)) => {
                    let way = (worker, transfer.cloned());
                    return Ok((response, Lease::new(server, wire, way, (count, place))));
                }
                Some(Err(mut error)) => match error.take_message() {
                    // The connection ended just now, and no byte has left.
                    Some(unsent) => {
                        version.counters.stale.add(1);
                        request = unsent;
                    }
                    None => {
                        if transfer.is_none_or(|it| it.fault().is_none()) {
                            server.failed();
                        }
                        return Err(self.broke(&broken(error.error()), error.error()));
                    }
                },
                None => {
                    server.failed();
                    let span = limits.first_byte;
                    let reason = format!("it did not answer within {span:?}");
                    return Err(self.failure(504, "upstream_timeout", &reason));
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("it ends its connections before it is asked".to_owned());
        }
        let reason = format!("cannot call it: {}", reasons.join("; "));
        let failure = self.failure(502, "upstream_unreachable", &reason);
        Err(Failure { outcome: RequestOutcome::Unreached, ..failure })
    }

    fn failure(&self, status: u16, code: &'static str, reason: &str) -> Failure {
        let reason = format!("the upstream of {} failed: {reason}", self.backend.model);
        Failure { refusal: Refusal::new(status, code, &reason), outcome: RequestOutcome::Broken }
    }

    fn broke(&self, reason: &str, error: &hyper::Error) -> Failure {
        let code = if error.is_parse() { "upstream_garbled" } else { "upstream_broken" };
        self.failure(502, code, reason)
    }

    /// An answer that can be passed on, without the coding of its body.
    fn checked(
        &self,
        (mut response, lease): (Response<Incoming>, Lease),
        is_upgrade_asked: bool,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let checked = match is_upgrade && !is_upgrade_asked {
            true => Err("it switched protocols, which nobody had asked for"),
            false => headers::take_coding(response.headers_mut()),
        };
        match checked {
            Ok(()) => Ok((response, lease)),
            Err(reason) => {
                lease.server.failed();
                Err(self.failure(502, "upstream_garbled", reason))
            }
        }
    }

    /// Passes an answer on.
    async fn pass_on(
        &self,
        response: Response<Incoming>,
        (lease, counted): (Lease, Counted),
        (upgrade, http_version): (Option<OnUpgrade>, HttpVersion),
        in_flight: InFlight,
    ) -> Response<ResponseBody> {
        let mut response = response;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(upgrade) = upgrade
        {
            let protocol = response.headers().get(header::UPGRADE).cloned();
            let server = hyper::upgrade::on(&mut response);
            let held = (Arc::clone(self.client), lease, in_flight);
            tokio::spawn(tunnel::run((upgrade, server), held));
            let (mut parts, _) = response.into_parts();
            self.finish(&mut parts.headers, http_version);
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol {
                parts.headers.insert(header::UPGRADE, protocol);
            }
            let in_flight = self.client.state.begin(false);
            self.client.state.leave_http();
            return Response::from_parts(parts, ResponseBody::whole(Bytes::new(), in_flight));
        }
        let (mut parts, mut rest) = response.into_parts();
        self.finish(&mut parts.headers, http_version);
        parts.version = http_version;
        let limits = &self.shared.limits;
        let mut read = None;
        if !rest.is_end_stream() && rest.size_hint().upper().is_none_or(|it| it <= SMALL_BODY) {
            match soon(&mut rest).await {
                Some(Some(Ok(frame))) if rest.is_end_stream() && frame.is_data() => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.backend.meter.sent(bytes.len());
                    lease.give_back();
                    return Response::from_parts(parts, ResponseBody::whole(bytes, in_flight));
                }
                Some(Some(Ok(frame))) => read = Some(frame),
                Some(Some(Err(error))) => {
                    let failure = self.broke(&broken(&error), &error);
                    counted.broke();
                    return self.signed(&failure.refusal, in_flight);
                }
                Some(None) | None => {}
            }
        }
        if read.is_none() && rest.is_end_stream() {
            lease.give_back();
            return Response::from_parts(parts, ResponseBody::whole(Bytes::new(), in_flight));
        }
        let end = Some(limits.answer).filter(|it| !it.is_zero()).map(|it| Instant::now() + it);
        let body = ServerBody::new((read, rest), lease, counted, (limits.body_idle, end));
        Response::from_parts(parts, ResponseBody::streamed(body, in_flight))
    }

    /// Sets the headers of an answer that are for the client.
    fn finish(&self, headers: &mut HeaderMap, http_version: HttpVersion) {
        headers::remove_hop_by_hop(headers);
        headers::add_via(headers, http_version);
        self.backend.sign(headers, &self.choice);
    }
}

/// Waits for an answer; the time for it begins anew with each part of the request that goes on its
/// way. `None` if it does not come.
pub(super) async fn within<T>(
    span: std::time::Duration,
    answer: impl Future<Output = T>,
    transfer: Option<&Transfer>,
) -> Option<T> {
    tokio::pin!(answer);
    let late = tokio::time::sleep(span);
    tokio::pin!(late);
    loop {
        tokio::select! {
            biased;
            answer = answer.as_mut() => return Some(answer),
            () = late.as_mut() => match transfer.and_then(Transfer::moved) {
                Some(moved) if moved + span > Instant::now() => late.as_mut().reset(moved + span),
                _ => return None,
            },
        }
    }
}

/// Name that the client asked for.
fn host_of(parts: &Parts) -> HeaderValue {
    let authority = parts.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    authority
        .or_else(|| parts.headers.get(header::HOST).cloned())
        .unwrap_or_else(|| HeaderValue::from_static(""))
}

/// Makes the cookies one header: HTTP/2 may send each by itself.
fn join_cookies(parts: &mut Parts) {
    if parts.version != HttpVersion::HTTP_2 {
        return;
    }
    let cookies: Vec<_> =
        parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        parts.headers.insert(header::COOKIE, joined);
    }
}

/// Addresses a request to one of the servers.
pub(super) fn address(request: &mut Request<RequestBody>, server: &Server, target: &Uri) {
    let asked = target.path_and_query().map_or("/", |it| it.as_str());
    let own = server.address.target(asked).and_then(|it| it.parse::<Uri>().ok());
    *request.uri_mut() = own.unwrap_or_else(|| target.clone());
    // A server behind TLS knows the name of its certificate; others are told the client's.
    if server.address.is_tls() || request.headers()[header::HOST].is_empty() {
        request.headers_mut().insert(header::HOST, server.authority.clone());
    }
}
