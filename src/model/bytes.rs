//! The exact bytes that signatures and identities are computed over.
//!
//! JSON may be written in many ways; a signature needs one. Every signed statement is built here
//! from a domain name and length-prefixed fields, so that no two different statements, and no two
//! different kinds of statement, ever have the same bytes.

use sha2::{Digest, Sha256};

use super::{Endpoint, Incarnation, Nonce, PublicKey, SeedId, WallTime};

/// A statement under construction.
#[derive(Clone, Debug)]
pub struct SigningBytes(Vec<u8>);

impl SigningBytes {
    /// Starts a statement of the kind `domain`, for example `folkmoot/vote/1`.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self(Vec::with_capacity(256)).text(domain)
    }

    /// Appends a byte string, prefixed by its length.
    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// Appends a text.
    #[must_use]
    pub fn text(self, field: &str) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Appends a number.
    #[must_use]
    pub fn number(self, field: u64) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    /// Appends an endpoint.
    #[must_use]
    pub fn endpoint(self, field: Endpoint) -> Self {
        self.text(&field.to_string())
    }

    /// Appends an incarnation.
    #[must_use]
    pub fn incarnation(self, field: Incarnation) -> Self {
        self.number(field.0)
    }

    /// Appends a public key.
    #[must_use]
    pub fn key(self, field: &PublicKey) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Appends a challenge.
    #[must_use]
    pub fn nonce(self, field: &Nonce) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Appends a seed's number.
    #[must_use]
    pub fn seed(self, field: SeedId) -> Self {
        self.number(u64::from(field.0))
    }

    /// Appends a wall-clock moment.
    #[must_use]
    pub fn wall(self, field: WallTime) -> Self {
        self.number(field.0)
    }

    /// The finished bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The SHA-256 of the finished bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_boundary_between_fields_changes_the_bytes() {
        let one = SigningBytes::new("d").text("ab").text("c");
        let other = SigningBytes::new("d").text("a").text("bc");
        assert_ne!(one.as_bytes(), other.as_bytes());
    }
}
