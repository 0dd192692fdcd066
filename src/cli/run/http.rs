//! Answers of a running node over HTTP, on its one port: its status, and nothing else.
//!
//! Invariants:
//! - A request changes nothing.
//! - The node stands still for a copy of its status only, at most four times a second for any
//!   number of requests; all else is done outside its lock.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use super::control::{health, status};
use super::role::{Api, Role};
use crate::cli::{metrics, page};
use crate::model::Time;
use crate::proto::http::{Head, Response};
use crate::runtime::clock::Clock;
use crate::runtime::driver::Driver;
use crate::runtime::http::{HttpCounters, HttpHandler, HttpRequest};

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
    fn refuse(&self, head: &Head) -> Option<Response> {
        let paths = ["/", "/healthz", "/metrics", "/readyz", "/status"];
        if !paths.contains(&head.path.as_str()) {
            let text = "nothing is here; see /, /healthz, /readyz, /metrics and /status";
            return Some(Response::text(404, text));
        }
        let is_read = ["GET", "HEAD"].contains(&head.method.as_str());
        (!is_read).then(|| {
            Response::text(405, "this can be read and nothing else").with("Allow", "GET, HEAD")
        })
    }

    fn answer(&self, request: &HttpRequest) -> Response {
        let Some(snapshot) = self.snapshot() else {
            let reason = json!({ "status": "unavailable", "reason": "starting or stopping" });
            return Response::new(503, "application/json", format!("{reason}\n"));
        };
        let Snapshot { status, trouble, .. } = &*snapshot;
        match request.head.path.as_str() {
            "/metrics" if wants_open_metrics(&request.head) => {
                let text = snapshot.open.get_or_init(|| metrics::open_metrics(status));
                Response::new(200, metrics::OPEN_METRICS, text.as_str())
            }
            "/metrics" => {
                let text = snapshot.classic.get_or_init(|| metrics::classic(status));
                Response::new(200, metrics::CLASSIC, text.as_str())
            }
            "/status" => Response::new(200, "application/json", format!("{status}\n")),
            // The question is whether a restart would help: a process that can answer is alive.
            "/healthz" => verdict::<R>(200, "ok", status, None),
            "/readyz" if trouble.is_none() => verdict::<R>(200, "ready", status, None),
            "/readyz" => verdict::<R>(503, "not ready", status, trouble.as_deref()),
            _ => {
                let text = snapshot.page.get_or_init(|| page::html(status, trouble.as_deref()));
                Response::new(200, "text/html; charset=utf-8", text.as_str())
                    .with("Content-Security-Policy", page::POLICY)
                    .with("Referrer-Policy", "no-referrer")
            }
        }
    }
}

/// Response to a program that watches the node.
fn verdict<R: Role>(code: u16, word: &str, status: &Value, reason: Option<&str>) -> Response {
    let endpoint = &status["endpoint"];
    let answer = json!({ "status": word, "role": R::NAME, "endpoint": endpoint, "reason": reason });
    Response::new(code, "application/json", format!("{answer}\n"))
}

/// True if a client accepts `OpenMetrics`.
fn wants_open_metrics(head: &Head) -> bool {
    let wishes = head.header("accept").unwrap_or_default().split(',');
    let mut wishes = wishes.map(|wish| wish.split(';').map(str::trim));
    wishes.any(|mut wish| {
        let is_it =
            wish.next().is_some_and(|it| it.eq_ignore_ascii_case("application/openmetrics-text"));
        let weight = wish.find_map(|it| it.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f64>);
        is_it && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::RequestParser;

    #[test]
    fn the_newer_format_is_for_those_who_name_it() {
        let wants = |accept: &str| {
            let mut reader = RequestParser::default();
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
            reader.feed(text.as_bytes());
            wants_open_metrics(&reader.head().unwrap().unwrap())
        };
        assert!(wants("application/openmetrics-text"));
        assert!(wants("text/plain;q=0.5, Application/OpenMetrics-Text; version=1.0.0;q=0.8"));
        for accept in ["*/*", "text/plain", "application/openmetrics-text;q=0", "text/html,*/*"] {
            assert!(!wants(accept), "{accept}");
        }
    }
}
