//! Names of nodes, of models and of transactions.
//!
//! Invariants: a name is short and printable, so it may stand in a log line and in a path; a
//! transaction's name holds that of its coordinator, and those of one coordinator ascend (P1), so
//! "no later than this one" needs one number pair, however long the history.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum length of a name of a node or model, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Returns the reason why `text` is no name; `None` if it is one. Names of versions may have a `+`
/// too, as semantic versions do.
fn complaint(text: &str, is_version: bool) -> Option<&'static str> {
    let is_sign = |c: u8| matches!(c, b'-' | b'_' | b'.' | b':') || c == b'+' && is_version;
    let is_fit = |c: u8| c.is_ascii_alphanumeric() || is_sign(c);
    match text.len() {
        0 => Some("a name is empty"),
        len if len > NAME_BYTES_MAX => Some("a name has more than 64 bytes"),
        _ if text.bytes().all(is_fit) => None,
        _ if is_version => Some("a name is of letters, digits and - _ . : + only"),
        _ => Some("a name is of letters, digits and - _ . : only"),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $is_version:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                complaint(&text, $is_version).map_or(Ok(Self(text)), Err)
            }
        }

        impl FromStr for $name {
            type Err = &'static str;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A node, for example `node-a`. Order is that of the text; "the highest id" means this.
    NodeId, false
}

name! {
    /// A version of the model that is served, for example `v1` or `v2+build.7`.
    ModelId, true
}

/// Purpose of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TxKind {
    /// The first step of a rollout; the transaction carries the plan.
    Start,
    /// A further step, taken by a node of itself.
    Step,
    /// A further step, or the last one, on an operator's order.
    Promote,
    /// The last step has proved itself: the new version becomes the stable one.
    Finish,
    /// Back to the version before: a gate failed, or an operator ordered it.
    Rollback,
    /// The rollout ends; everything goes to the stable version.
    Abort,
    /// A rollout that was rolled back or aborted begins again.
    Retry,
    /// No further step until a resume.
    Pause,
    /// Steps are taken again.
    Resume,
    /// A change of the participants (T7).
    Roster,
    /// A change of the servers of versions, the same on every node (T13).
    Serve,
}

impl TxKind {
    /// All kinds of transactions.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Step,
        Self::Promote,
        Self::Finish,
        Self::Rollback,
        Self::Abort,
        Self::Retry,
        Self::Pause,
        Self::Resume,
        Self::Roster,
        Self::Serve,
    ];

    /// Text of the kind in a transaction's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Step => "step",
            Self::Promote => "promote",
            Self::Finish => "finish",
            Self::Rollback => "rollback",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Roster => "roster",
            Self::Serve => "serve",
        }
    }

    /// True if more requests go to the canary after such a transaction: only then do gates matter.
    pub const fn raises(self) -> bool {
        matches!(self, Self::Start | Self::Step | Self::Promote | Self::Finish | Self::Retry)
    }
}

/// A place in one coordinator's sequence of transactions. The epoch grows with each start of the
/// coordinator, on disk before it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TxMark {
    /// Epoch of the coordinator's start.
    pub epoch: u64,
    /// Number of the transaction within the epoch.
    pub counter: u64,
}

/// A transaction's name, unique for ever: `KIND-NODE-EPOCH-COUNTER`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TxId {
    /// Name of the coordinator.
    pub node: NodeId,
    /// Epoch of the coordinator's start.
    pub epoch: u64,
    /// Number of the transaction within the epoch.
    pub counter: u64,
    /// Purpose of the transaction.
    pub kind: TxKind,
}

impl TxId {
    /// Place of the transaction in its coordinator's sequence.
    pub const fn mark(&self) -> TxMark {
        TxMark { epoch: self.epoch, counter: self.counter }
    }

    /// The higher one of the epoch and the counter.
    pub fn highest(&self) -> u64 {
        self.epoch.max(self.counter)
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.kind.as_str(), self.node, self.epoch, self.counter)
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<TxId> for String {
    fn from(txid: TxId) -> Self {
        txid.to_string()
    }
}

impl TryFrom<String> for TxId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Parses a decimal number in its one canonical form: digits only, without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || !text.starts_with('0');
    (is_canonical && text.bytes().all(|it| it.is_ascii_digit())).then(|| text.parse().ok())?
}

impl FromStr for TxId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a txid is KIND-NODE-EPOCH-COUNTER";
        let (kind, rest) = text.split_once('-').ok_or(WRONG)?;
        let (rest, counter) = rest.rsplit_once('-').ok_or(WRONG)?;
        let (node, epoch) = rest.rsplit_once('-').ok_or(WRONG)?;
        Ok(Self {
            kind: TxKind::ALL.into_iter().find(|it| it.as_str() == kind).ok_or(WRONG)?,
            node: node.parse()?,
            epoch: decimal(epoch).ok_or(WRONG)?,
            counter: decimal(counter).ok_or(WRONG)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_s_name_survives_its_text_and_has_no_second_form() {
        let text = "start-node-a-3-17";
        let txid: TxId = text.parse().unwrap();
        assert_eq!((txid.node.as_str(), txid.epoch, txid.counter), ("node-a", 3, 17));
        assert_eq!(txid.to_string(), text);
        for wrong in ["", "start", "start-node-a-03-1", "stop-a-1-1", "start-a-1", "start--1-1"] {
            assert!(wrong.parse::<TxId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_short_and_printable() {
        assert!("node-a".parse::<NodeId>().is_ok());
        for wrong in ["", "a b", "ä", "a/b", "a=b", "a,b", &"x".repeat(65)] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong}");
            assert!(wrong.parse::<ModelId>().is_err(), "{wrong}");
        }
        assert!("v2.0.1-rc.1+build.7".parse::<ModelId>().is_ok());
        assert!("a+b".parse::<NodeId>().is_err(), "a folder has that name");
    }
}
