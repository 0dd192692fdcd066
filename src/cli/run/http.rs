//! Answers of a running node over HTTP, on its one port: its page, the feeds behind it, its status
//! and its metrics; and the orders of this machine's user, see [`actions`].
//!
//! Invariants:
//! - A request changes nothing, unless it is an order.
//! - The node stands still for a copy of its status only, at most four times a second for any
//!   number of requests; all else is done outside its lock.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::actions;
use super::control::{health, status};
use super::feed::Feed;
use super::fleet::FleetFeed;
use super::role::{Api, Role};
use crate::cli::settings::NodeSettings;
use crate::cli::{metrics, page};
use crate::machine::membership::seedbook::SeedBook;
use crate::model::{Endpoint, SeedId, Time};
use crate::runtime::clock::Clock;
use crate::runtime::driver::Driver;
use crate::runtime::http::{Content, HttpCounters, HttpHandler, HttpRequest, text};
use crate::runtime::web::prometheus;
use crate::runtime::web::refusal::{JSON, own};

/// Version of the feeds. A higher one may lack or rename fields; new fields and events do not
/// change it.
const FEED_VERSION: u32 = 1;

const FLEET: &str = "/-/folkmoot/fleet";

const EVENTS: &str = "/-/folkmoot/events";

/// Largest age of an answer.
const CACHE_AGE: Duration = Duration::from_millis(250);

/// The pages of one node.
pub(super) struct Pages<R: Role> {
    /// Set once the node has started. Weak, since the node holds the pages.
    node: OnceLock<Weak<Driver<R::Machine>>>,
    counters: Arc<HttpCounters>,
    api: Api<R::Machine>,
    clock: Clock,
    last: Mutex<Option<Arc<Snapshot>>>,
    feed: Arc<Feed>,
    fleet: Arc<FleetFeed>,
    /// Folder of the data directories.
    data: PathBuf,
}

/// A node at one moment, and each of its pages once it was asked for.
struct Snapshot {
    at: Time,
    wall_ms: u64,
    /// Number of the newest event before the state was copied, so that none is missed.
    last_event: u64,
    status: Value,
    /// The seeds as the node knows them.
    book: SeedBook,
    trouble: Option<String>,
    open: OnceLock<String>,
    classic: OnceLock<String>,
    fleet: OnceLock<Value>,
}

impl<R: Role> Pages<R> {
    pub(super) fn new(
        counters: Arc<HttpCounters>,
        api: Api<R::Machine>,
        feed: Arc<Feed>,
        settings: &NodeSettings,
    ) -> Self {
        let (node, last) = (OnceLock::new(), Mutex::default());
        let fleet = FleetFeed::new(settings.cluster_keys.clone());
        let data = settings.data.clone();
        Self { node, counters, api, clock: Clock::start(), last, feed, fleet, data }
    }

    /// Sets the node whose pages these are.
    pub(super) fn show(&self, node: &Arc<Driver<R::Machine>>) {
        // There is one node; a second call would change nothing.
        let _ = self.node.set(Arc::downgrade(node));
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let mut last = self.last.lock().expect("nothing under this lock can panic");
        let now = self.clock.now();
        let fresh = last.as_ref().filter(|it| now.mono.since(it.at) < CACHE_AGE);
        if let Some(fresh) = fresh {
            return Some(Arc::clone(fresh));
        }
        let node = self.node.get()?.upgrade()?;
        let last_event = self.feed.last();
        let status = status::<R>(&node, &self.counters, self.api.as_deref());
        let snapshot = Arc::new(Snapshot {
            at: now.mono,
            wall_ms: now.wall.0,
            last_event,
            trouble: health(&status).err(),
            status,
            book: node.inspect(|machine, _| R::book(machine)),
            open: OnceLock::new(),
            classic: OnceLock::new(),
            fleet: OnceLock::new(),
        });
        *last = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }
}

impl<R: Role> HttpHandler for Pages<R> {
    fn wants_body(&self, head: &Parts) -> bool {
        head.method == Method::POST && actions::is_order(head.uri.path())
    }

    fn answer(&self, request: &HttpRequest) -> Response<Content> {
        let path = request.head.uri.path();
        let is_order = actions::is_order(path);
        let is_known = is_order || READ.contains(&path) || page::asset(path).is_some();
        if !is_known {
            let reason = "nothing is here; see /, /status, /healthz, /readyz, /metrics, \
                          /-/folkmoot/fleet and /-/folkmoot/events";
            return text(404, reason).map(Content::from);
        }
        let method = &request.head.method;
        if is_order != (method == Method::POST) || !METHODS.contains(method) {
            let (reason, allowed) = if is_order {
                ("an order is given with POST", "POST")
            } else {
                ("this can be read and nothing else", "GET, HEAD")
            };
            let mut answer = text(405, reason);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer.map(Content::from);
        }
        if let Some(asset) = page::asset(path) {
            return asset.answer(&request.head.headers).map(Content::from);
        }
        let Some(snapshot) = self.snapshot() else {
            let reason = json!({ "status": "unavailable", "reason": "starting or stopping" });
            return own(503, JSON, format!("{reason}\n")).map(Content::from);
        };
        let status = &snapshot.status;
        if path == EVENTS {
            return self.events(request);
        }
        let answer = match path {
            _ if is_order => actions::order(request, &self.data, status),
            FLEET => self.fleet(request, &snapshot),
            actions::HISTORY => actions::history(request, &self.data, status),
            _ => snapshot.answer::<R>(&request.head),
        };
        answer.map(Content::from)
    }
}

/// Paths that can be read, beside those of the page.
const READ: [&str; 7] =
    ["/healthz", "/metrics", "/readyz", "/status", FLEET, EVENTS, actions::HISTORY];

const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

impl<R: Role> Pages<R> {
    /// Stream of the events after the one that the client saw last.
    fn events(&self, request: &HttpRequest) -> Response<Content> {
        let head = &request.head;
        let answer = own(200, "text/event-stream", "");
        if head.method == Method::HEAD {
            return answer.map(Content::from);
        }
        let header = head.headers.get("last-event-id").and_then(|it| it.to_str().ok());
        let query = head.uri.query().and_then(|it| it.strip_prefix("after="));
        let parts = self.feed.read(header.or(query));
        answer.map(|_| Content::Stream(parts))
    }

    fn fleet(&self, request: &HttpRequest, snapshot: &Snapshot) -> Response<Bytes> {
        let whole = snapshot.fleet.get_or_init(|| self.whole_fleet(snapshot));
        let mut whole = whole.clone();
        whole["may_act"] = request.is_own().into();
        own(200, JSON, format!("{whole}\n"))
    }

    fn whole_fleet(&self, snapshot: &Snapshot) -> Value {
        let Snapshot { status, book, trouble, .. } = snapshot;
        let seed = |(id, endpoint)| {
            let linked = is_linked(status, id, endpoint);
            json!({ "endpoint": endpoint, "id": id, "linked": linked })
        };
        let seeds: Vec<_> = book.seeds().map(seed).collect();
        let linked = seeds.iter().filter(|it| it["linked"] == true).count();
        let mut whole = self.fleet.fields(status, book);
        let mut services = actions::services(&self.data, status);
        if let (Some(shares), Some(api)) = (services.get_mut("shares"), &self.api) {
            shares["list"] = api.shares();
        }
        let rest = json!({
            "version": FEED_VERSION,
            "now_ms": snapshot.wall_ms,
            "node": {
                "role": R::NAME, "endpoint": status["endpoint"], "version": status["version"],
                "uptime_ms": status["uptime_ms"], "healthy": trouble.is_none(), "trouble": trouble,
            },
            "feed": { "epoch": self.feed.epoch(), "last": snapshot.last_event },
            "quorum": { "seeds": book.len(), "needed": book.quorum(), "linked": linked },
            "seeds": seeds,
            "services": services,
            "counters": status["counters"],
        });
        if let (Some(whole), Value::Object(rest)) = (whole.as_object_mut(), rest) {
            whole.extend(rest);
        }
        whole
    }
}

impl Snapshot {
    /// Answer to a question about the node alone.
    fn answer<R: Role>(&self, head: &Parts) -> Response<Bytes> {
        let Self { status, trouble, .. } = self;
        match head.uri.path() {
            "/metrics" if prometheus::wants_open_metrics(&head.headers) => {
                let text = self.open.get_or_init(|| metrics::open_metrics(status));
                own(200, prometheus::OPEN_METRICS, text.clone())
            }
            "/metrics" => {
                let text = self.classic.get_or_init(|| metrics::classic(status));
                own(200, prometheus::CLASSIC, text.clone())
            }
            // The question is whether a restart would help: a process that can answer is alive.
            "/healthz" => verdict::<R>(200, "ok", status, None),
            "/readyz" if trouble.is_none() => verdict::<R>(200, "ready", status, None),
            "/readyz" => verdict::<R>(503, "not ready", status, trouble.as_deref()),
            _ => own(200, JSON, format!("{status}\n")),
        }
    }
}

/// True if the node is this seed, or linked with it.
fn is_linked(status: &Value, id: SeedId, endpoint: Endpoint) -> bool {
    let list = |name: &str| status[name].as_array().into_iter().flatten();
    let endpoint = json!(endpoint);
    status["endpoint"] == endpoint
        || list("seeds").any(|it| *it == json!(id))
        || list("links").any(|it| it["standing"] == "seed" && it["endpoint"] == endpoint)
}

/// Response to a program that watches the node.
fn verdict<R: Role>(
    code: u16,
    word: &str,
    status: &Value,
    reason: Option<&str>,
) -> Response<Bytes> {
    let endpoint = &status["endpoint"];
    let answer = json!({ "status": word, "role": R::NAME, "endpoint": endpoint, "reason": reason });
    own(code, JSON, format!("{answer}\n"))
}
