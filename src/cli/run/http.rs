//! Answers of a running node over HTTP, on its one port: its status, and nothing else.
//!
//! Invariants:
//! - A request changes nothing.
//! - The node stands still for a copy of its status only, at most four times a second for any
//!   number of requests; all else is done outside its lock.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use hyper::http::request::Parts;
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::control::{health, status};
use super::role::{Api, Role};
use crate::cli::{metrics, page};
use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::driver::Driver;
use crate::runtime::http::{HttpCounters, HttpHandler, text};
use crate::runtime::web::prometheus;
use crate::runtime::web::refusal::{JSON, own};

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
}

/// A node at one moment, and each of its pages once it was asked for.
struct Snapshot {
    at: Time,
    status: Value,
    trouble: Option<String>,
    open: OnceLock<String>,
    classic: OnceLock<String>,
    page: OnceLock<String>,
}

impl<R: Role> Pages<R> {
    pub(super) fn new(counters: Arc<HttpCounters>, api: Api<R::Machine>) -> Self {
        let (node, last) = (OnceLock::new(), Mutex::default());
        Self { node, counters, api, clock: Clock::start(), last }
    }

    /// Sets the node whose pages these are.
    pub(super) fn show(&self, node: &Arc<Driver<R::Machine>>) {
        // There is one node; a second call would change nothing.
        let _ = self.node.set(Arc::downgrade(node));
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let mut last = self.last.lock().expect("nothing under this lock can panic");
        let now = self.clock.now().mono;
        let fresh = last.as_ref().filter(|it| now.since(it.at) < CACHE_AGE);
        if let Some(fresh) = fresh {
            return Some(Arc::clone(fresh));
        }
        let node = self.node.get()?.upgrade()?;
        let status = status::<R>(&node, &self.counters, self.api.as_deref());
        let snapshot = Arc::new(Snapshot {
            at: now,
            trouble: health(&status).err(),
            status,
            open: OnceLock::new(),
            classic: OnceLock::new(),
            page: OnceLock::new(),
        });
        *last = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }
}

impl<R: Role> HttpHandler for Pages<R> {
    fn answer(&self, request: &Parts) -> Response<Bytes> {
        let path = request.uri.path();
        if !["/", "/healthz", "/metrics", "/readyz", "/status"].contains(&path) {
            return text(404, "nothing is here; see /, /healthz, /readyz, /metrics and /status");
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut answer = text(405, "this can be read and nothing else");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let Some(snapshot) = self.snapshot() else {
            let reason = json!({ "status": "unavailable", "reason": "starting or stopping" });
            return own(503, JSON, format!("{reason}\n"));
        };
        let Snapshot { status, trouble, .. } = &*snapshot;
        match path {
            "/metrics" if prometheus::wants_open_metrics(&request.headers) => {
                let text = snapshot.open.get_or_init(|| metrics::open_metrics(status));
                own(200, prometheus::OPEN_METRICS, text.clone())
            }
            "/metrics" => {
                let text = snapshot.classic.get_or_init(|| metrics::classic(status));
                own(200, prometheus::CLASSIC, text.clone())
            }
            "/status" => own(200, JSON, format!("{status}\n")),
            // The question is whether a restart would help: a process that can answer is alive.
            "/healthz" => verdict::<R>(200, "ok", status, None),
            "/readyz" if trouble.is_none() => verdict::<R>(200, "ready", status, None),
            "/readyz" => verdict::<R>(503, "not ready", status, trouble.as_deref()),
            _ => {
                let text = snapshot.page.get_or_init(|| page::html(status, trouble.as_deref()));
                let mut answer = own(200, "text/html; charset=utf-8", text.clone());
                let headers = answer.headers_mut();
                let policy = HeaderValue::from_static(page::POLICY);
                headers.insert(CONTENT_SECURITY_POLICY, policy);
                headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                answer
            }
        }
    }
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
