//! Buckets by which a request goes to the stable version or to the canary (T9).
//!
//! Invariants: every request is in one of 10,000 buckets, and the canary has those below its share
//! in basis points. A key's bucket depends on the key and the rollout's salt alone, so raising the
//! share moves keys from the stable version to the canary, and none back.

use sha2::{Digest as _, Sha256};

use crate::proto::rollout::BASIS_POINTS;

/// Returns the bucket of a key: the first 8 bytes of the SHA-256 of the salt, as 8 bytes
/// big-endian, and the key, as one big-endian number modulo 10,000.
#[must_use]
pub fn bucket_of_key(salt: u64, key: &[u8]) -> u32 {
    let hash = Sha256::new().chain_update(salt.to_be_bytes()).chain_update(key).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    bucket_of_draw(u64::from_be_bytes(first))
}

/// Returns the bucket of an even draw; some buckets are more likely than others by one in 10^15.
#[must_use]
pub fn bucket_of_draw(draw: u64) -> u32 {
    u32::try_from(draw % u64::from(BASIS_POINTS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_can_be_computed_elsewhere() {
        // printf '\0\0\0\0\0\0\0\7alice' | sha256sum, the first 16 digits modulo 10,000.
        assert_eq!(bucket_of_key(7, b"alice"), 9294);
        assert_ne!(bucket_of_key(8, b"alice"), 9294, "the salt counts");
    }

    #[test]
    fn a_rising_share_moves_keys_to_the_canary_and_none_back() {
        let keys: Vec<_> = (0..2_000).map(|n| format!("user-{n}")).collect();
        let chosen = |share: u32| -> Vec<bool> {
            keys.iter().map(|key| bucket_of_key(7, key.as_bytes()) < share).collect()
        };
        let mut before = chosen(0);
        assert!(before.iter().all(|is_canary| !is_canary));
        for share in [1, 500, 2_000, 5_000, 9_999, 10_000] {
            let now = chosen(share);
            let is_back = |(before, now): (&bool, &bool)| *before && !now;
            assert!(!before.iter().zip(&now).any(is_back), "{share}");
            let count = now.iter().filter(|it| **it).count() as f64;
            let (mean, p) = (f64::from(share) / 5.0, f64::from(share) / 10_000.0);
            let sigma = (2_000.0 * p * (1.0 - p)).sqrt();
            assert!((count - mean).abs() <= 4.0 * sigma + 1.0, "{share}: {count}");
            before = now;
        }
        assert!(before.iter().all(|is_canary| *is_canary));
    }
}
