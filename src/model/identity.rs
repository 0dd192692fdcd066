//! Keys and signatures, which prove the author of a statement.
//!
//! Ed25519 (RFC 8032). Signing is deterministic and verification is strict, so the same statement
//! by the same key has one signature and every node judges it alike.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand::Rng as _;
use serde::{Deserialize, Serialize, Serializer};

use super::memo;
use super::{Rng, SigningBytes};

/// Writes bytes as lower-case hexadecimal digits, without memory from the heap: certificates are
/// full of them, and go to every member.
fn digits<S: Serializer, const N: usize>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut text = [0; 128];
    let text = &mut text[..N * 2];
    hex::encode_to_slice(bytes, text).expect("there are two digits a byte, for at most 64 bytes");
    let text = std::str::from_utf8(text).expect("hexadecimal digits are ASCII");
    serializer.serialize_str(text)
}

/// A node's public key; 64 hexadecimal digits on the wire and in files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(
    #[serde(serialize_with = "digits", deserialize_with = "hex::serde::deserialize")] [u8; 32],
);

impl PublicKey {
    /// The key's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key written as 64 hexadecimal digits, or `None` when `text` is not that.
    ///
    /// The first verification finds out whether the bytes are a point of the curve.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// True if `signature` over `statement` was made with this key.
    #[must_use]
    pub fn verifies(&self, statement: &SigningBytes, signature: &Signature) -> bool {
        memo::holds(self, statement, signature, || {
            let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
            VerifyingKey::from_bytes(&self.0)
                .is_ok_and(|key| key.verify_strict(statement.as_bytes(), &signature).is_ok())
        })
    }

    /// The same key prepared for many verifications; `None` if the bytes are no point of the curve,
    /// under which no signature is valid.
    #[must_use]
    pub fn ready(&self) -> Option<ReadyKey> {
        Some(ReadyKey { key: *self, point: VerifyingKey::from_bytes(&self.0).ok()? })
    }

    /// The first eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

/// A public key whose point of the curve is found already, which is a tenth of a verification.
#[derive(Clone, Debug)]
pub struct ReadyKey {
    key: PublicKey,
    point: VerifyingKey,
}

impl ReadyKey {
    /// True if `signature` over `statement` is valid, as [`PublicKey::verifies`].
    #[must_use]
    pub fn verifies(&self, statement: &SigningBytes, signature: &Signature) -> bool {
        memo::holds(&self.key, statement, signature, || {
            let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
            self.point.verify_strict(statement.as_bytes(), &signature).is_ok()
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A signature over a [`SigningBytes`]; 128 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(
    #[serde(serialize_with = "digits", deserialize_with = "hex::serde::deserialize")] [u8; 64],
);

impl Signature {
    /// The signature's 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// A signature of these bytes, valid or not.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sig:{}", hex::encode(&self.0[..4]))
    }
}

/// A value that is the same at both ends of one encrypted connection and nowhere else: signed by
/// both, it shows that no third node is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

/// A challenge that the other side has to sign; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(
    #[serde(serialize_with = "digits", deserialize_with = "hex::serde::deserialize")] [u8; 16],
);

impl Nonce {
    /// A fresh challenge.
    pub fn random(rng: &mut Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The challenge's 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A node's secret key with its public half. Never printed, never serialized as a whole.
#[derive(Clone)]
pub struct KeyPair {
    secret: SigningKey,
    public: PublicKey,
}

impl KeyPair {
    /// A new key from `rng`; the driver passes one seeded by the operating system.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Self::from_secret(secret)
    }

    /// The key whose 32 secret bytes were stored earlier.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = SigningKey::from_bytes(&secret);
        let public = PublicKey(secret.verifying_key().to_bytes());
        Self { secret, public }
    }

    /// The 32 secret bytes, for the key file (mode 0600) and nothing else.
    pub fn secret_bytes(&self) -> [u8; 32] {
        self.secret.to_bytes()
    }

    /// The public half.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Signature of this key over a statement.
    #[must_use]
    pub fn sign(&self, statement: &SigningBytes) -> Signature {
        let signature = Signature(self.secret.sign(statement.as_bytes()).to_bytes());
        memo::made(&self.public, statement, &signature);
        signature
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public.short())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_signature_holds_for_its_statement_and_key_only() {
        let mut rng = Rng::seed_from_u64(1);
        let (mine, other) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let statement = SigningBytes::new("test").number(1);
        let signature = mine.sign(&statement);
        assert!(mine.public().verifies(&statement, &signature));
        assert!(!mine.public().verifies(&SigningBytes::new("test").number(2), &signature));
        assert!(!other.public().verifies(&statement, &signature));
        let (ready, wrong) = (mine.public().ready().unwrap(), other.public().ready().unwrap());
        assert!(ready.verifies(&statement, &signature));
        assert!(!ready.verifies(&SigningBytes::new("test").number(2), &signature));
        assert!(!wrong.verifies(&statement, &signature));
    }

    #[test]
    fn remembering_verdicts_changes_none_of_them() {
        let mut rng = Rng::seed_from_u64(3);
        let (mine, other) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let statement = SigningBytes::new("test").number(1);
        let before = mine.sign(&statement);
        let _memo = memo::VerdictMemo::on_this_thread();
        let signature = mine.sign(&statement);
        assert_eq!(signature, before);
        for _ in 0..2 {
            assert!(mine.public().verifies(&statement, &signature));
            assert!(!mine.public().verifies(&SigningBytes::new("test").number(2), &signature));
            assert!(!other.public().verifies(&statement, &signature));
            let mut forged = *signature.as_bytes();
            forged[40] ^= 1;
            assert!(!mine.public().verifies(&statement, &Signature::from_bytes(forged)));
        }
    }

    #[test]
    fn a_key_survives_its_text() {
        let key = KeyPair::generate(&mut Rng::seed_from_u64(2)).public();
        assert_eq!(PublicKey::parse(&key.to_string()), Some(key));
        assert_eq!(PublicKey::parse("12"), None);
    }
}
