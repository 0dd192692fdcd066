//! A small server of a model, for demonstrations and tests: it answers with its name and its input,
//! with a set delay and a set share of failures.
//!
//! Invariant: of any number of its answers, the share that fails is the one asked for, within one
//! answer; which ones these are does not depend on chance.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::json;

use super::limits::DataPlaneLimits;
use super::own::input_of;
use crate::proto::rollout::{BASIS_POINTS, ModelId};
use crate::runtime::listen::{self, ListenError};
use crate::runtime::web::guarded::ConnectionState;
use crate::runtime::web::refusal::{self, JSON, Refusal};
use crate::runtime::web::server::{Client, Handler, Places, Port, serve};
use crate::runtime::web::workers::Workers;

/// Options of a model.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Listen address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Name of the model.
    pub name: ModelId,
    /// Pause before each answer.
    pub delay: Duration,
    /// Number of failures in 10,000 requests; above that, all fail.
    pub failing: u32,
}

/// A model that runs until it is stopped or dropped.
pub struct Model {
    shared: Arc<Shared>,
    workers: Workers,
    places: Arc<Places>,
    port: Port,
}

struct Shared {
    options: ModelOptions,
    /// Start of each answer, up to the input, behind which a brace follows.
    prefix: String,
    /// Number of requests that it was asked.
    asked: AtomicU64,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Model {
    /// Listens and answers every POST, whatever its path.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on.
    pub fn start(options: ModelOptions) -> Result<Self, ListenError> {
        let addr = options.listen;
        let failed = |source| ListenError::Listen { addr, source };
        let named = json!({ "model": options.name }).to_string();
        let prefix = format!("{},\"input\":", named.trim_end_matches('}'));
        let shared = Arc::new(Shared { options, prefix, asked: AtomicU64::new(0) });
        let workers = Workers::start("model", 1).map_err(failed)?;
        let places = Arc::<Places>::default();
        let runtime = workers.handle(0).clone();
        let (shared2, places2) = (Arc::clone(&shared), Arc::clone(&places));
        let limits = DataPlaneLimits::default();
        let timeouts = limits.timeouts();
        let (stopping, stop) = tokio::sync::watch::channel(false);
        let receive = move |stream: std::net::TcpStream, from: SocketAddr| {
            let _running = &stopping;
            // All requests come from a few nodes, so one address may have all connections.
            let max = limits.connections;
            let Some(place) = places2.take(from.ip(), max, max) else { return };
            let (shared, stop) = (Arc::clone(&shared2), stop.clone());
            runtime.spawn(async move {
                let made = stream.set_nonblocking(true);
                let made = made.and_then(|()| tokio::net::TcpStream::from_std(stream));
                let Ok(stream) = made else { return };
                let _ = stream.set_nodelay(true);
                let state = ConnectionState::new();
                let client = Client { from, is_tls: false, worker: 0, state, _place: place };
                serve(stream, client, shared, (timeouts, Arc::default()), stop).await;
            });
        };
        let listener = listen::bind(addr.ip(), addr.port())?;
        let port = Port::open(listener, &workers, Box::new(receive)).map_err(failed)?;
        Ok(Self { shared, workers, places, port })
    }

    /// Listen address of the model.
    pub const fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Number of requests that it was asked.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Stops the model, without waiting for delays. Returns when no thread and no socket is left.
    pub fn stop(&self) {
        self.port.shut(&self.workers, &self.places, Duration::ZERO);
        self.workers.stop();
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handler for Shared {
    type Body = Full<Bytes>;

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Response<Full<Bytes>> {
        let _in_flight = client.state.begin(request.version() == hyper::Version::HTTP_2);
        self.reply(request).await.map(Full::new)
    }
}

impl Shared {
    async fn reply(&self, request: Request<Incoming>) -> Response<Bytes> {
        if request.method() != Method::POST {
            let mut response = Refusal::new(405, "no_such_method", "a model has POST").response();
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let max = DataPlaneLimits::default().held_body_bytes;
        let too_long = || {
            let reason = format!("a body has at most {max} bytes");
            Refusal::new(413, "body_too_long", &reason).response()
        };
        if request.body().size_hint().lower() > max as u64 {
            return too_long();
        }
        match Limited::new(request.into_body(), max).collect().await {
            Ok(body) => self.answer(&body.to_bytes()).await,
            Err(_) => too_long(),
        }
    }

    async fn answer(&self, body: &[u8]) -> Response<Bytes> {
        let ModelOptions { name, delay, failing, .. } = &self.options;
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        if !delay.is_zero() {
            tokio::time::sleep(*delay).await;
        }
        if fails(number, *failing) {
            let reason = format!("model {name} fails {failing} of {BASIS_POINTS} requests");
            return Refusal::new(500, "failing", &reason).response();
        }
        refusal::own(200, JSON, format!("{}{}}}", self.prefix, input_of(body)))
    }
}

/// True if the request of that number is among the `failing` of 10,000, which are spread evenly.
fn fails(number: u64, failing: u32) -> bool {
    let all = u64::from(BASIS_POINTS);
    let (number, failing) = (number % all, u64::from(failing).min(all));
    (number + 1) * failing / all > number * failing / all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_fails_is_the_one_asked_for() {
        for failing in [0, 1, 500, 2_000, 3_333, 9_999, 10_000, 20_000] {
            let wanted = u64::from(failing.min(10_000));
            let mut failed = 0;
            for number in 0..20_000_u64 {
                let exact = number * wanted;
                assert!(failed * 10_000 <= exact && exact < failed * 10_000 + 10_000);
                failed += u64::from(fails(number, failing));
            }
            assert_eq!(failed, 2 * wanted, "{failing}");
        }
    }
}
