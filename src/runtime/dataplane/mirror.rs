//! Copies of requests for a canary that has no traffic of its own yet: its answers are measured and
//! thrown away, and nobody waits for them.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue, UPGRADE};
use rand::Rng as _;

use super::Shared;
use super::forward::{address, within};
use super::meters::Meter;
use super::pool::Version;
use super::request_body::RequestBody;
use super::serving::{Backend, ModelBackend, ServingState};
use crate::machine::rollout::{RequestOutcome, bucket_of_draw};
use crate::model::Time;
use crate::runtime::clock::Clock;

/// Header of a copy, by which its server can tell it from the request itself.
pub(super) const COPY_MARK: HeaderName = HeaderName::from_static("x-mirrored");

/// Copy of a request.
pub(super) struct Copied {
    request: Request<RequestBody>,
    version: Arc<Version>,
    meter: Arc<Meter>,
    epoch: u64,
    clock: Clock,
    began: Time,
    limits: super::DataPlaneLimits,
}

/// The request, with a copy of it for the canary if it is one that is to be copied: it goes to the
/// stable version, its method may be sent twice, its body is held already, and it stays HTTP.
pub(super) fn copies(
    shared: &Shared,
    state: &ServingState,
    backend: &ModelBackend,
    request: Request<RequestBody>,
) -> (Request<RequestBody>, Option<Copied>) {
    let Some(mirror) = state.serving.mirror else { return (request, None) };
    let Backend::Servers(version) = &state.canary.backend else { return (request, None) };
    let is_stable = std::ptr::eq(backend, &raw const state.stable);
    let is_upgrade = request.headers().contains_key(UPGRADE);
    if !is_stable || is_upgrade || !mirror.copies(request.method().as_str()) {
        return (request, None);
    }
    // Draws of their own: copies are spread over the requests as the canary's are.
    let is_drawn = bucket_of_draw(shared.rng(0).next_u64()) < mirror.share;
    let RequestBody::Whole(body) = request.body() else { return (request, None) };
    if !is_drawn {
        return (request, None);
    }
    let mut copy = Request::new(RequestBody::Whole(body.clone()));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy.headers_mut().insert(COPY_MARK, HeaderValue::from_static("1"));
    let copied = Copied {
        request: copy,
        version: Arc::clone(version),
        meter: Arc::clone(&state.canary.meter),
        epoch: state.epoch,
        clock: shared.clock,
        began: shared.clock.mono(),
        limits: shared.limits,
    };
    (request, Some(copied))
}

/// Sends a copy, and measures its answer. A copy has no second try: it is missed by nobody.
pub(super) async fn send(copied: Copied, worker: usize) {
    let Copied { mut request, version, meter, epoch, clock, began, limits } = copied;
    let Some(_place) = version.enter() else { return };
    let Some(server) = version.choose(&[]) else { return };
    let _count = server.begin();
    let seen = |status: u16, outcome: RequestOutcome| {
        let now = clock.mono();
        meter.observe((now, now.since(began)), (status, outcome), epoch);
    };
    let wire = match server.take_kept(worker) {
        Some(wire) => Ok(wire),
        None => server.connect(limits.connect).await,
    };
    let Ok(mut wire) = wire else {
        seen(0, RequestOutcome::Unreached);
        return;
    };
    let target = request.uri().clone();
    address(&mut request, &server, &target);
    let sent = within(limits.first_byte, wire.sender.send_request(request), None).await;
    let Some(Ok(response)) = sent else {
        seen(0, RequestOutcome::Broken);
        return;
    };
    let status = response.status().as_u16();
    let outcome = RequestOutcome::of(status);
    seen(status, outcome);
    let mut body = response.into_body();
    let drained = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                meter.broke(clock.mono(), outcome, epoch);
                return;
            }
        }
    };
    // Its connection is not kept: an answer without an end is cut off here.
    let _ = tokio::time::timeout(limits.body_idle, drained).await;
}
