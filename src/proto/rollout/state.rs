//! The routing state that every node serves alike (T1).
//!
//! Invariants: weights are whole basis points that sum to 10,000, on the wire decimal fractions
//! that sum to 1; a state's digest covers all of it but its status, so the same version means the
//! same content. An aborted transaction's version may be tried again: the promise is about
//! committed states, and only those are served.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{ModelId, TxId};
use crate::model::{SigningBytes, WallTime};

/// All requests, in basis points.
pub const BASIS_POINTS: u32 = 10_000;

/// A SHA-256 of signing bytes; 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

/// Share of the requests that each model gets, in basis points; the shares sum to 10,000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<ModelId, Fraction>", into = "BTreeMap<ModelId, Fraction>")]
pub struct Weights(BTreeMap<ModelId, u32>);

impl Weights {
    /// Returns weights in which `canary` gets `share` basis points and `stable` the rest.
    ///
    /// # Panics
    /// If `share` is more than 10,000, which callers have checked.
    #[must_use]
    pub fn split(stable: &ModelId, canary: &ModelId, share: u32) -> Self {
        assert!(share <= BASIS_POINTS, "a share is at most the whole");
        if stable == canary {
            return Self([(stable.clone(), BASIS_POINTS)].into());
        }
        Self([(stable.clone(), BASIS_POINTS - share), (canary.clone(), share)].into())
    }

    /// A model's share in basis points; 0 for one that is not named.
    pub fn of(&self, model: &ModelId) -> u32 {
        self.0.get(model).copied().unwrap_or(0)
    }

    /// The models and their shares, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ModelId, u32)> {
        self.0.iter().map(|(model, share)| (model, *share))
    }
}

impl TryFrom<BTreeMap<ModelId, Fraction>> for Weights {
    type Error = &'static str;

    fn try_from(parts: BTreeMap<ModelId, Fraction>) -> Result<Self, Self::Error> {
        if parts.values().map(|it| u64::from(it.0)).sum::<u64>() != u64::from(BASIS_POINTS) {
            return Err("the weights do not sum to 1");
        }
        Ok(Self(parts.into_iter().map(|(model, share)| (model, share.0)).collect()))
    }
}

impl From<Weights> for BTreeMap<ModelId, Fraction> {
    fn from(weights: Weights) -> Self {
        weights.0.into_iter().map(|(model, share)| (model, Fraction(share))).collect()
    }
}

/// Basis points, as a decimal fraction from 0 to 1 with at most four places in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction(u32);

impl Serialize for Fraction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / f64::from(BASIS_POINTS))
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        parse_fraction(value).map_err(serde::de::Error::custom)
    }
}

fn parse_fraction(value: f64) -> Result<Fraction, &'static str> {
    if !(0.0..=1.0).contains(&value) || value.is_sign_negative() {
        return Err("a weight is not between 0 and 1");
    }
    // The nearest whole number of basis points; dividing it again gives the very same float when
    // the text had at most four places, because both are the float nearest to that fraction.
    let whole = (value * f64::from(BASIS_POINTS)).round();
    if whole / f64::from(BASIS_POINTS) != value {
        return Err("a weight has more than four decimal places");
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and between 0 and 10,000"
    )]
    Ok(Fraction(whole as u32))
}

/// Status of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RoutingStatus {
    /// The state was voted for; no node serves it.
    Prepared,
    /// The state was decided: all nodes serve it.
    Committed,
    /// The state was rejected: no node ever serves it.
    Aborted,
}

/// The shared state, on the wire, on disk and over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingState {
    /// Version, from 1; the next committed state has the next number.
    pub version: u64,
    /// The version that is trusted.
    pub stable_model_id: ModelId,
    /// The version on trial; the same as the stable one when there is none.
    pub canary_model_id: ModelId,
    /// Share of the requests of each model.
    pub weights: Weights,
    /// Status of this state.
    pub status: RoutingStatus,
    /// The transaction that set the state; `None` for the first state, written `initial`.
    #[serde(with = "txid_or_initial")]
    pub txid: Option<TxId>,
    /// The coordinator's clock; for people, nothing depends on it.
    #[serde(with = "moment")]
    pub timestamp: WallTime,
}

impl RoutingState {
    /// Version 1, the same on every node: everything goes to `stable`.
    #[must_use]
    pub fn initial(stable: ModelId, canary: ModelId) -> Self {
        Self {
            version: 1,
            weights: Weights::split(&stable, &canary, 0),
            stable_model_id: stable,
            canary_model_id: canary,
            status: RoutingStatus::Committed,
            txid: None,
            timestamp: WallTime(0),
        }
    }

    /// Returns the same state with another status.
    #[must_use]
    pub fn with_status(&self, status: RoutingStatus) -> Self {
        Self { status, ..self.clone() }
    }

    /// Version of the next state. A log may contain any number, so it saturates.
    pub const fn next_version(&self) -> u64 {
        self.version.saturating_add(1)
    }

    /// Share of the canary, in basis points.
    pub fn canary_share(&self) -> u32 {
        if self.stable_model_id == self.canary_model_id {
            return 0;
        }
        self.weights.of(&self.canary_model_id)
    }

    /// Digest of the content without the status.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.sign_into(SigningBytes::new("folkmoot/rollout/state/1")).sha256())
    }

    /// Appends everything but the status.
    pub fn sign_into(&self, bytes: SigningBytes) -> SigningBytes {
        let txid = self.txid.as_ref().map_or_else(|| "initial".to_owned(), TxId::to_string);
        let bytes = bytes
            .number(self.version)
            .text(self.stable_model_id.as_str())
            .text(self.canary_model_id.as_str())
            .text(&txid)
            .wall(self.timestamp)
            .number(self.weights.0.len() as u64);
        self.weights
            .iter()
            .fold(bytes, |bytes, (model, share)| bytes.text(model.as_str()).number(share.into()))
    }

    /// Returns the reason why no node may vote for this state: its weights name other models than
    /// its two. `None` if there is no such reason.
    pub fn complaint(&self) -> Option<&'static str> {
        let known = [&self.stable_model_id, &self.canary_model_id];
        let is_unknown = |(model, _): (&ModelId, u32)| !known.contains(&model);
        self.weights.iter().any(is_unknown).then_some("the weights name an unknown model")
    }
}

/// `initial`, or the name of a transaction.
mod txid_or_initial {
    use super::{Deserialize, Deserializer, Serializer, TxId};

    const INITIAL: &str = "initial";

    #[allow(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        txid: &Option<TxId>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match txid {
            None => serializer.serialize_str(INITIAL),
            Some(txid) => serializer.collect_str(txid),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<TxId>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == INITIAL {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

/// A moment as RFC 3339 in text.
mod moment {
    use super::{Deserialize, Deserializer, Serializer, WallTime};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        moment: &WallTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(moment)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<WallTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        u64::try_from(moment.as_millisecond())
            .map(WallTime)
            .map_err(|_| serde::de::Error::custom("the timestamp is before 1970"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(text: &str) -> Result<Weights, String> {
        serde_json::from_str(text).map_err(|err| err.to_string())
    }

    #[test]
    fn every_weight_survives_its_text() {
        let (stable, canary) = ("v1".parse().unwrap(), "v2".parse().unwrap());
        for share in 0..=BASIS_POINTS {
            let weights = Weights::split(&stable, &canary, share);
            let text = serde_json::to_string(&weights).unwrap();
            assert_eq!(serde_json::from_str::<Weights>(&text).unwrap(), weights, "{text}");
        }
        let text = serde_json::to_string(&Weights::split(&stable, &canary, 500)).unwrap();
        assert_eq!(text, r#"{"v1":0.95,"v2":0.05}"#);
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        assert!(weights(r#"{"v1":1}"#).is_ok());
        for (text, why) in [
            (r#"{"v1":0.95,"v2":0.06}"#, "sum to 1"),
            (r#"{"v1":1.5,"v2":-0.5}"#, "between 0 and 1"),
            (r#"{"v1":-0.0,"v2":1}"#, "between 0 and 1"),
            (r#"{"v1":0.95001,"v2":0.04999}"#, "decimal places"),
            (r#"{"v1":"NaN"}"#, "invalid type"),
            (r#"{"v1":NaN}"#, "expected value"),
            ("{}", "sum to 1"),
            (r#"{"":1}"#, "empty"),
        ] {
            let err = weights(text).unwrap_err();
            assert!(err.contains(why), "{text}: {err}");
        }
    }

    #[test]
    fn a_state_is_one_json_and_its_digest_ignores_the_status_alone() {
        let state = RoutingState::initial("v1".parse().unwrap(), "v2".parse().unwrap());
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"stable_model_id":"v1","canary_model_id":"v2","#.to_owned()
                + r#""weights":{"v1":1.0,"v2":0.0},"status":"COMMITTED","txid":"initial","#
                + r#""timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
        assert_eq!(serde_json::from_str::<RoutingState>(&text).unwrap(), state);
        assert_eq!(state.with_status(RoutingStatus::Aborted).digest(), state.digest());
        let other = RoutingState { timestamp: WallTime(1), ..state.clone() };
        assert_ne!(other.digest(), state.digest());
    }
}
