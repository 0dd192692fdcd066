//! Choice of the version that a request goes to (T9).

use std::borrow::Cow;
use std::fmt;

use hyper::http::request::Parts;
use rand::Rng as _;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::headers::Source;
use crate::machine::rollout::{ServedState, bucket_of_draw, bucket_of_key};
use crate::model::Rng;
use crate::proto::rollout::{RequestFacts, Route, RouteTarget, Sticky};

/// Header by whose value requests stick, whatever the rollout's own rule is.
const KEY_HEADER: &str = "x-routing-key";

/// Header by which a request chooses by itself: `always` or `never`.
const CANARY_HEADER: &str = "x-canary";

/// Reason for the choice of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModelChoice {
    /// The bucket of the request's key.
    Key(u32),
    /// A draw; has the drawn bucket.
    Draw(u32),
    /// A draw whose bucket stays with the client, by a cookie: its name, its value and the bucket.
    Cookie(String, String, u32),
    /// The request's own choice; true for the canary.
    Wish(bool),
    /// A route of the rollout; true if it leads to the canary.
    Route(bool),
}

impl ModelChoice {
    /// True if the request goes to the canary, which has the first `share` buckets.
    pub(super) const fn is_canary(&self, share: u32) -> bool {
        match self {
            Self::Key(bucket) | Self::Draw(bucket) | Self::Cookie(.., bucket) => *bucket < share,
            Self::Wish(is_canary) | Self::Route(is_canary) => *is_canary,
        }
    }
}

/// Chooses the version of a request from `source`; `None` if it names a choice that cannot be
/// understood. `body` is empty unless [`needs_body`] says that it is needed.
///
/// The first that applies decides: `X-Canary`, a route, the rollout's sticky key, `X-Routing-Key`,
/// a draw.
pub(super) fn choose(
    serving: &ServedState,
    parts: &Parts,
    source: &Source<'_>,
    body: &[u8],
    rng: &mut Rng,
) -> Option<ModelChoice> {
    let headers = &parts.headers;
    match headers.get(CANARY_HEADER).map(|it| it.as_bytes()) {
        None => {}
        Some(b"always") => return Some(ModelChoice::Wish(true)),
        Some(b"never") => return Some(ModelChoice::Wish(false)),
        Some(_) => return None,
    }
    let values = |name: &str, is_it: &mut dyn FnMut(&[u8]) -> bool| {
        headers.get_all(name).iter().any(|value| is_it(value.as_bytes()))
    };
    // Without routes nobody asks for it.
    let source = match &serving.routes[..] {
        [] => source.from.ip(),
        [_, ..] => source.client(headers),
    };
    let facts = RequestFacts { headers: &values, path: parts.uri.path(), source };
    if let Some(target) = Route::target(&serving.routes, &facts) {
        return Some(ModelChoice::Route(target == RouteTarget::Canary));
    }
    let of_header = |name: &str| headers.get(name).map(|it| Cow::Borrowed(it.as_bytes()));
    let own_key = match &serving.sticky {
        None => None,
        Some(Sticky::Header(name)) => of_header(name),
        Some(Sticky::Cookie { name, .. }) => facts.cookie(name).map(Cow::Owned),
        Some(Sticky::Json(name)) => field(body, name).map(|it| Cow::Owned(it.into_bytes())),
    };
    let key = own_key.or_else(|| of_header(KEY_HEADER));
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        return Some(ModelChoice::Key(bucket_of_key(serving.salt, &key)));
    }
    let draw = rng.next_u64();
    if let Some(Sticky::Cookie { name, own: true }) = &serving.sticky {
        // The bucket is that of the cookie's value, as it will be of the next request.
        let value = format!("{draw:016x}");
        let bucket = bucket_of_key(serving.salt, value.as_bytes());
        return Some(ModelChoice::Cookie(name.clone(), value, bucket));
    }
    Some(ModelChoice::Draw(bucket_of_draw(draw)))
}

/// True if a request's body decides where it goes.
pub(super) const fn needs_body(serving: &ServedState) -> bool {
    matches!(serving.sticky, Some(Sticky::Json(_)))
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
