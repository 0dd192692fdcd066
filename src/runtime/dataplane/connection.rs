//! One client's connection: request after request, each answered in one write.

use std::sync::Arc;

use super::answers::{Going, refusal, refusal_of_end, write_own};
use super::predict::Predictor;
use super::request_reader::{HOARD_BYTES, ReadEnd, RequestReader};
use super::serving::ServingState;
use super::{Shared, texts};
use crate::proto::http::{Framing, RequestHead, room};

/// Resource at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Predict,
    Routing,
    Health,
    Metrics,
}

impl Resource {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/predict" => Self::Predict,
            "/routing" | "/routing/state" => Self::Routing,
            "/health" | "/health/snapshot" => Self::Health,
            "/metrics" => Self::Metrics,
            _ => return None,
        })
    }

    /// Methods that the resource has.
    const fn methods(self) -> &'static str {
        match self {
            Self::Predict => "POST",
            Self::Routing | Self::Health | Self::Metrics => "GET, HEAD",
        }
    }
}

/// Facts about a head that are needed before its body is read.
#[derive(Clone, Copy, Debug)]
struct RequestLine {
    resource: Option<Resource>,
    is_allowed: bool,
    is_head: bool,
    framing: Framing,
    expects_continue: bool,
    going: Going,
}

impl RequestLine {
    fn of(outline: &RequestHead<'_, '_>) -> Self {
        let resource = Resource::at(outline.path);
        let is_one =
            |resource: Resource| resource.methods().split(", ").any(|it| it == outline.method);
        Self {
            resource,
            is_allowed: resource.is_some_and(is_one),
            is_head: outline.method == "HEAD",
            framing: outline.framing,
            expects_continue: outline.expects_continue,
            going: match (outline.keep_alive, outline.minor) {
                (false, _) => Going::Off,
                (true, 0) => Going::OnAfterAll,
                (true, _) => Going::On,
            },
        }
    }
}

/// A client's connection.
pub(super) struct HttpConnection<'a> {
    shared: &'a Shared,
    reader: RequestReader<'a>,
    predictor: Predictor,
    out: Vec<u8>,
    serving_state: Option<Arc<ServingState>>,
    generation: u64,
}

impl<'a> HttpConnection<'a> {
    pub(super) fn new(shared: &'a Shared, reader: RequestReader<'a>, predictor: Predictor) -> Self {
        let (out, serving_state, generation) = Default::default();
        Self { shared, reader, predictor, out, serving_state, generation }
    }

    /// Serves the connection to its end.
    pub(super) fn serve(mut self) {
        let end = self.converse();
        let counters = &self.shared.counters;
        self.out.clear();
        if matches!(end, ReadEnd::Idle) {
            counters.closed_idle.add(1);
        }
        let is_refused = refusal_of_end(&mut self.out, &end, &self.shared.server.limits);
        if is_refused {
            counters.refused.add(1);
        }
        let is_told = is_refused && self.reader.socket.write_all(&self.out).is_ok();
        if is_told || matches!(end, ReadEnd::Done) {
            self.reader.part();
        }
    }

    /// Answers request after request; returns the reason why there are no more.
    fn converse(&mut self) -> ReadEnd {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return ReadEnd::Done,
                Err(end) => return end,
            }
        }
    }

    /// Answers one request; returns whether another may follow.
    fn turn(&mut self) -> Result<bool, ReadEnd> {
        let head_len = self.reader.read_head()?;
        let mut request_line = {
            let mut room = room();
            RequestLine::of(
                &RequestHead::parse(self.reader.head(head_len), &mut room)
                    .map_err(ReadEnd::Fault)?,
            )
        };
        self.shared.counters.requests.add(1);
        if !self.shared.server.lets_go_on() {
            request_line.going = Going::Off;
        }
        self.out.clear();
        let Some(resource) = request_line.resource.filter(|_| request_line.is_allowed) else {
            // An unwanted body is not read; the next request would begin behind it.
            if request_line.framing != Framing::Length(0) {
                request_line.going = Going::Off;
            }
            self.refuse(request_line);
            return self.respond(request_line, head_len);
        };
        let len =
            self.reader.read_body(head_len, request_line.framing, request_line.expects_continue)?;
        let serving_state = self.look();
        match (resource, serving_state) {
            (Resource::Predict, Some(serving_state)) => {
                let mut room = room();
                let outline = RequestHead::parse(self.reader.head(head_len), &mut room);
                let outline = outline.map_err(ReadEnd::Fault)?;
                let body = self.reader.body(head_len, request_line.framing);
                self.predictor.answer(
                    &serving_state,
                    &outline,
                    body,
                    request_line.going,
                    &mut self.out,
                );
                self.serving_state = Some(serving_state);
            }
            (Resource::Predict | Resource::Routing, None) => {
                let reason = "this node does not know yet what its fleet serves; peer rollout \
                              status shows for whom it waits";
                refusal(&mut self.out, 503, "not_ready", reason, &[], request_line.going);
            }
            (Resource::Routing, Some(serving_state)) => {
                write_own(
                    &mut self.out,
                    200,
                    texts::JSON,
                    &[],
                    &serving_state.json,
                    request_line.going,
                );
                self.serving_state = Some(serving_state);
            }
            (Resource::Health, serving_state) => {
                let text = self.shared.health_json().into_bytes();
                write_own(&mut self.out, 200, texts::JSON, &[], &text, request_line.going);
                self.serving_state = serving_state;
            }
            (Resource::Metrics, serving_state) => {
                let text = self.shared.metrics().into_bytes();
                write_own(&mut self.out, 200, texts::METRICS, &[], &text, request_line.going);
                self.serving_state = serving_state;
            }
        }
        self.respond(request_line, len)
    }

    /// Writes `self.out`, and goes on behind a request of `len` bytes.
    fn respond(&mut self, request_line: RequestLine, len: usize) -> Result<bool, ReadEnd> {
        let mut bytes = self.out.as_slice();
        if request_line.is_head {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            bytes = &bytes[..end.map_or(bytes.len(), |end| end + 4)];
        }
        if self.reader.socket.write_all(bytes).is_err() {
            self.shared.counters.write_failed.add(1);
            return Err(ReadEnd::Broken);
        }
        self.reader.forget(len);
        if self.out.len() > HOARD_BYTES {
            self.out = Vec::new();
        }
        Ok(request_line.going != Going::Off)
    }

    fn refuse(&mut self, request_line: RequestLine) {
        self.shared.counters.refused.add(1);
        match request_line.resource {
            None => {
                let reason = "there are /predict, /routing, /health and /metrics";
                refusal(&mut self.out, 404, "no_such_path", reason, &[], request_line.going);
            }
            Some(resource) => {
                let methods = resource.methods();
                let allow = format!("Allow: {methods}\r\n");
                let reason = format!("this path has {methods}");
                let allow = allow.as_bytes();
                refusal(&mut self.out, 405, "no_such_method", &reason, allow, request_line.going);
            }
        }
    }

    /// The state that is served now. The asking request keeps it.
    fn look(&mut self) -> Option<Arc<ServingState>> {
        if self.shared.generation() == self.generation {
            return self.serving_state.take();
        }
        let (serving_state, generation) = self.shared.current();
        self.generation = generation;
        serving_state
    }
}
