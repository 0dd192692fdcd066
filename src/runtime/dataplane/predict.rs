//! `POST /predict`: the choice of a model, and its answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use rand::Rng as _;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::answers::{Going, compose, input_of, refusal, write_number};
use super::request_reader::HOARD_BYTES;
use super::serving::{Backend, ModelBackend, ServingState};
use super::upstream::{Failure, Pool, REQUEST_ONLY, Reply, write_passed};
use crate::machine::rollout::{RequestOutcome, ServedState, bucket_of_draw, bucket_of_key};
use crate::model::{Rng, Time};
use crate::proto::http::{Headers, RequestHead, reason};
use crate::proto::rollout::Sticky;
use crate::runtime::clock::Clock;

/// Header by whose value requests stick, whatever the rollout's own rule is.
const KEY_HEADER: &str = "X-Routing-Key";

/// Header by which a request chooses by itself: `always` or `never`.
const CANARY_HEADER: &str = "X-Canary";

/// Reason for the choice of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelChoice {
    /// The bucket of the request's key.
    Key(u32),
    /// A draw; has the drawn bucket.
    Draw(u32),
    /// The request's own choice; true for the canary.
    Wish(bool),
}

/// Resources of one thread for answering requests; its buffers are used again.
pub(super) struct Predictor {
    rng: Rng,
    clock: Clock,
    request: Vec<u8>,
    reply: Reply,
}

impl Predictor {
    pub(super) fn new(rng: Rng, clock: Clock) -> Self {
        Self { rng, clock, request: Vec::new(), reply: Reply::default() }
    }

    /// Writes the answer to a whole request to `out`; all of it is of `serving_state`.
    pub(super) fn answer(
        &mut self,
        serving_state: &ServingState,
        outline: &RequestHead<'_, '_>,
        body: &[u8],
        going: Going,
        out: &mut Vec<u8>,
    ) {
        let Some(choice) = self.choose(&serving_state.serving, outline.headers, body) else {
            let reason = "X-Canary is `always` or `never`";
            refusal(out, 400, "bad_header", reason, &[], going);
            return;
        };
        let is_canary = match choice {
            ModelChoice::Key(bucket) | ModelChoice::Draw(bucket) => bucket < serving_state.share,
            ModelChoice::Wish(is_canary) => is_canary,
        };
        let model_backend = if is_canary { &serving_state.canary } else { &serving_state.stable };
        let began = self.clock.mono();
        let ending = match &model_backend.backend {
            Backend::Echo => {
                echo(model_backend, choice, body, going, out);
                RequestOutcome::Fine
            }
            Backend::Upstream(pool) => {
                self.forward(model_backend, pool, choice, outline, body, going, out)
            }
            Backend::Missing => {
                let reason = format!("this node has no upstream for {}", model_backend.model);
                let headers = headers_of(model_backend, choice);
                refusal(out, 502, "no_upstream", &reason, &headers, going);
                RequestOutcome::Unreached
            }
        };
        self.count(serving_state, model_backend, began, ending);
    }

    fn count(
        &self,
        serving_state: &ServingState,
        model_backend: &ModelBackend,
        began: Time,
        ending: RequestOutcome,
    ) {
        let now = self.clock.mono();
        model_backend.meter.observe(now, now.since(began), ending, serving_state.epoch);
    }

    /// Chooses the model of a request; `None` if the request names a choice that cannot be
    /// understood.
    fn choose(
        &mut self,
        serving: &ServedState,
        headers: Headers<'_, '_>,
        body: &[u8],
    ) -> Option<ModelChoice> {
        match headers.first(CANARY_HEADER) {
            None => {}
            Some(b"always") => return Some(ModelChoice::Wish(true)),
            Some(b"never") => return Some(ModelChoice::Wish(false)),
            Some(_) => return None,
        }
        let own_key = match &serving.sticky {
            None => None,
            Some(Sticky::Header(name)) => headers.first(name).map(Cow::Borrowed),
            Some(Sticky::Cookie { .. }) => None,
            Some(Sticky::Json(name)) => field(body, name).map(|it| Cow::Owned(it.into_bytes())),
        };
        let key = own_key.or_else(|| headers.first(KEY_HEADER).map(Cow::Borrowed));
        Some(match key.filter(|key| !key.is_empty()) {
            Some(key) => ModelChoice::Key(bucket_of_key(serving.salt, &key)),
            None => ModelChoice::Draw(bucket_of_draw(self.rng.next_u64())),
        })
    }

    /// Forwards a request to its upstream; returns its ending for the meters.
    #[allow(clippy::too_many_arguments, reason = "it is one part of `answer`")]
    fn forward(
        &mut self,
        model_backend: &ModelBackend,
        pool: &Arc<Pool>,
        choice: ModelChoice,
        outline: &RequestHead<'_, '_>,
        body: &[u8],
        going: Going,
        out: &mut Vec<u8>,
    ) -> RequestOutcome {
        let request = &mut self.request;
        request.clear();
        request.extend_from_slice(b"POST ");
        pool.upstream.write_target(request, outline.path, outline.query);
        request.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        pool.upstream.write_host(request);
        request.extend_from_slice(b"\r\n");
        write_passed(outline.headers, REQUEST_ONLY, request);
        request.extend_from_slice(b"Content-Length: ");
        write_number(request, body.len());
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body);
        let asked = pool.ask(request, &mut self.reply);
        if request.len() > HOARD_BYTES {
            *request = Vec::new();
        }
        let ending = match asked {
            Ok(()) => {
                pass_on(&self.reply, model_backend, choice, going, out);
                match self.reply.status {
                    500.. => RequestOutcome::Failed,
                    400.. => RequestOutcome::Refused,
                    0.. => RequestOutcome::Fine,
                }
            }
            Err(failure) => {
                let reason = format!("the upstream of {} failed: {failure}", model_backend.model);
                let headers = headers_of(model_backend, choice);
                refusal(out, failure.status(), failure.code(), &reason, &headers, going);
                match failure {
                    Failure::Unreachable(_) => RequestOutcome::Unreached,
                    Failure::TooSlow
                    | Failure::Broken(_)
                    | Failure::Garbled(_)
                    | Failure::TooLong => RequestOutcome::Broken,
                }
            }
        };
        if self.reply.body.len() > HOARD_BYTES {
            self.reply = Reply::default();
        }
        ending
    }
}

/// The header lines of a model's answer to a request.
fn write_headers(out: &mut Vec<u8>, model_backend: &ModelBackend, choice: ModelChoice) {
    out.extend_from_slice(&model_backend.headers);
    match choice {
        ModelChoice::Key(bucket) => write_number(out, bucket as usize),
        ModelChoice::Draw(_) => out.extend_from_slice(b"random"),
        ModelChoice::Wish(true) => out.extend_from_slice(b"always"),
        ModelChoice::Wish(false) => out.extend_from_slice(b"never"),
    }
    out.extend_from_slice(b"\r\n");
}

fn headers_of(model_backend: &ModelBackend, choice: ModelChoice) -> Vec<u8> {
    let mut headers = Vec::new();
    write_headers(&mut headers, model_backend, choice);
    headers
}

/// Answer of the built-in model: the model, the state, and the input.
fn echo(
    model_backend: &ModelBackend,
    choice: ModelChoice,
    body: &[u8],
    going: Going,
    out: &mut Vec<u8>,
) {
    let input = input_of(body);
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    write_headers(out, model_backend, choice);
    out.extend_from_slice(b"Content-Length: ");
    write_number(out, model_backend.echo.len() + input.len() + 1);
    out.extend_from_slice(going.header());
    out.extend_from_slice(&model_backend.echo);
    out.extend_from_slice(input);
    out.push(b'}');
}

/// Passes on an upstream's answer.
fn pass_on(
    reply: &Reply,
    model_backend: &ModelBackend,
    choice: ModelChoice,
    going: Going,
    out: &mut Vec<u8>,
) {
    let Reply { status, headers, body } = reply;
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, usize::from(*status));
    out.push(b' ');
    out.extend_from_slice(reason(*status).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    write_headers(out, model_backend, choice);
    compose(out, (*status != 204 && *status != 304).then_some(body), going);
}

/// A field of a JSON object as a key: a text as it is, a number or truth value as it is written. If
/// there are several, the last counts, as for most readers.
fn field(body: &[u8], name: &str) -> Option<String> {
    serde_json::Deserializer::from_slice(body).deserialize_map(Field(name)).ok().flatten()
}

struct Field<'a>(&'a str);

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Is(self.0))? {
            if is_it {
                found = map.next_value_seed(Scalar)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Tests whether a text is this one.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}

/// Reads a value that can be a key.
struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_plain_value_of_the_object_itself() {
        for (body, key) in [
            (r#"{"user":"alice"}"#, Some("alice")),
            (r#"{"a":[{"user":"no"}],"user":"a\u006cice","b":{}}"#, Some("alice")),
            (r#"{"user":42}"#, Some("42")),
            (r#"{"user":-1}"#, Some("-1")),
            (r#"{"user":0.5}"#, Some("0.5")),
            (r#"{"user":true}"#, Some("true")),
            (r#"{"user":"a","user":"b"}"#, Some("b")),
            (r#"{"user":null}"#, None),
            (r#"{"user":["a"]}"#, None),
            (r#"{"user":{"user":"a"}}"#, None),
            (r#"{"x":{"user":"a"}}"#, None),
            (r#"["user"]"#, None),
            (r#"{"user":"a""#, None),
            ("", None),
            ("\u{fffd}{", None),
        ] {
            assert_eq!(field(body.as_bytes(), "user").as_deref(), key, "{body}");
        }
        let deep = format!("{{\"x\":{}1{},\"user\":7}}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(field(deep.as_bytes(), "user").as_deref(), Some("7"), "without recursion");
    }
}
