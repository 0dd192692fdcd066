//! Payloads of applications as opaque bytes, and the identities of messages.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::SigningBytes;

/// The bytes of an application's message; cheap to clone. Base64 text on the wire (standard
/// alphabet, padded).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data(Arc<[u8]>);

impl Data {
    /// The SHA-256 of the bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl fmt::Debug for Data {
    /// The size alone: data of users is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;

        impl de::Visitor<'_> for Base64 {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64, padded")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Data, E> {
                STANDARD.decode(text).map(Data::from).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Base64)
    }
}

/// A message's identity: the SHA-256 of what its origin stated; 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(#[serde(with = "hex::serde")] [u8; 32]);

impl MessageId {
    /// The identity with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The identity of what `statement` states.
    #[must_use]
    pub fn of(statement: &SigningBytes) -> Self {
        Self(statement.sha256())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 128;

/// Returns the reason why `topic` is not allowed, in words; `None` if it is allowed.
pub fn topic_complaint(topic: &str) -> Option<String> {
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
        Some(format!("a topic has 1 to {TOPIC_BYTES_MAX} bytes, not {}", topic.len()))
    } else if topic.chars().any(char::is_control) {
        Some("a topic has no control characters".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_survives_its_text_and_only_padded_base64_is_data() {
        for bytes in [&b""[..], b"\0", b"ab", b"\xff\xfe\xfd"] {
            let data = Data::from(bytes.to_vec());
            let text = serde_json::to_string(&data).unwrap();
            assert_eq!(serde_json::from_str::<Data>(&text).unwrap(), data);
        }
        assert_eq!(serde_json::to_string(&Data::from("hi")).unwrap(), "\"aGk=\"");
        for text in ["\"aGk\"", "\"aGk==\"", "\"aG k=\"", "\"aG-_\"", "\"aGl=\"", "5", "null"] {
            assert!(serde_json::from_str::<Data>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn data_is_not_shown_to_people() {
        assert_eq!(format!("{:?}", Data::from("a secret")), "8 bytes");
    }

    #[test]
    fn an_identity_is_64_digits_and_eight_for_people() {
        let id = MessageId::of(&SigningBytes::new("test").number(1));
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text.len(), 66);
        assert_eq!(serde_json::from_str::<MessageId>(&text).unwrap(), id);
        assert_eq!(id.short(), id.to_string()[..8]);
        assert!(serde_json::from_str::<MessageId>("\"00\"").is_err());
        assert_ne!(id, MessageId::of(&SigningBytes::new("test").number(2)));
    }
}
