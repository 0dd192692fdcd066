//! Shared secret of a fleet.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

/// Largest number of keys that a node accepts: the one it uses, and another while keys are changed.
pub const KEYS_MAX: usize = 2;

/// One shared secret: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// The key of these bytes, which must be random.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The secret bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

/// The keys of one node: it calls with the first and answers to each. They can be replaced while
/// it runs; connections that are up go on.
#[derive(Debug)]
pub struct ClusterKeys {
    keys: Mutex<(ClusterKey, Option<ClusterKey>)>,
}

impl ClusterKeys {
    /// The key to call with, and another that is answered to while keys are changed.
    pub const fn new(used: ClusterKey, also: Option<ClusterKey>) -> Self {
        Self { keys: Mutex::new((used, also)) }
    }

    /// The key to call with.
    pub fn used(&self) -> ClusterKey {
        self.lock().0.clone()
    }

    /// All keys that are answered to, the used one first.
    pub fn accepted(&self) -> impl Iterator<Item = ClusterKey> {
        let (used, also) = self.lock().clone();
        std::iter::once(used).chain(also)
    }

    /// Uses these keys from now on.
    pub fn replace(&self, by: &Self) {
        let keys = by.lock().clone();
        *self.lock() = keys;
    }

    fn lock(&self) -> MutexGuard<'_, (ClusterKey, Option<ClusterKey>)> {
        self.keys.lock().expect("nothing under this lock can panic")
    }
}

impl PartialEq for ClusterKeys {
    fn eq(&self, other: &Self) -> bool {
        self.accepted().eq(other.accepted())
    }
}

impl Eq for ClusterKeys {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits_and_never_shown() {
        let text = "0123456789abcdef".repeat(4);
        let key = ClusterKey::parse(&text).unwrap();
        assert_eq!(hex::encode(key.bytes()), text);
        assert_eq!(ClusterKey::parse(&text.to_uppercase()), Some(key.clone()));
        let keys = ClusterKeys::new(key, None);
        assert!(!format!("{keys:?}").contains("01"), "{keys:?}");
        for bad in ["", "00", &text[1..], &format!("{text}0"), &"g".repeat(64)] {
            assert_eq!(ClusterKey::parse(bad), None, "{bad}");
        }
    }
}
