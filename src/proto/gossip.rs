//! Messages of gossip.

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Incarnation, SigningBytes, WallTime};

/// Limit of the text, in bytes; the fixed text needs about 40.
pub const TEXT_MAX: usize = 512;

/// Number of hexadecimal digits of an identity in a digest: 64 bits tell 100,000 messages apart.
pub const DIGEST_DIGITS: usize = 16;

/// Identity of a message: SHA-256 over origin, incarnation, number and text (G1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GossipId([u8; 32]);

impl GossipId {
    /// First digits of the identity, as in a digest.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..DIGEST_DIGITS / 2])
    }
}

/// One gossip message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipMsg {
    /// Fixed text, `<timestamp>:<IP>:<Msg#>`.
    pub text: String,
    /// Endpoint of the peer that made the message.
    pub origin: Endpoint,
    /// Incarnation of the origin's life.
    pub incarnation: Incarnation,
    /// Number that the origin gave to the message, from 1.
    pub number: u32,
    /// Number of links that the message has crossed.
    pub hops: u32,
    /// Milliseconds since its origin made it, added up along the way without any clock.
    pub age_ms: u64,
}

impl GossipMsg {
    /// Returns the identity of the message.
    pub fn id(&self) -> GossipId {
        let bytes = SigningBytes::new("folkmoot/gossip/1")
            .endpoint(self.origin)
            .incarnation(self.incarnation)
            .number(u64::from(self.number))
            .text(&self.text);
        GossipId(bytes.sha256())
    }

    /// Returns the fault of the message, in words.
    pub fn complaint(&self) -> Option<String> {
        let ending = format!(":{}:{}", self.origin.ip(), self.number);
        let stamp = self.text.strip_suffix(&ending);
        let is_stamp = |stamp: &str| {
            stamp.split_once('.').is_some_and(|(seconds, millis)| {
                let digits = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
                (1..=15).contains(&seconds.len())
                    && millis.len() == 3
                    && digits(seconds)
                    && digits(millis)
            })
        };
        if self.text.len() > TEXT_MAX {
            Some(format!("a text of {} bytes; at most {TEXT_MAX}", self.text.len()))
        } else if self.number == 0 {
            Some("a message number 0; they are counted from 1".to_owned())
        } else if !stamp.is_some_and(is_stamp) {
            Some(format!("a text that is not seconds, point, milliseconds and {ending:?}"))
        } else {
            None
        }
    }
}

/// Digest of the messages that the sender has seen lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipDigest {
    /// First 16 hexadecimal digits of each identity, run together.
    pub ids: String,
}

/// Returns the fixed text of a gossip message: `<timestamp>:<IP>:<Msg#>`, the timestamp in seconds
/// since the Unix epoch with three decimals.
pub fn fixed_text(at: WallTime, origin: Endpoint, number: u32) -> String {
    format!("{}.{:03}:{}:{number}", at.0 / 1_000, at.0 % 1_000, origin.ip())
}
