//! The native dialect behind a cluster key: a Noise handshake, then the same lines in encrypted
//! frames.
//!
//! Holders of the key, and nobody else, can open such a connection, read it, or change it; the
//! lines inside prove which of them is at the other end. `docs/PROTOCOL.md` has the bytes.
//!
//! Invariants:
//! - [`answer`] succeeds only after the caller has proved that it holds an accepted key *now*: a
//!   recorded handshake gets no further than its first message.
//! - A frame that was changed, repeated, left out or moved is an error of its connection, and not
//!   one byte of it or of what follows is handed on.
//! - Memory is bounded by one frame a direction, and given back after long ones.
//! - Keys are shown by no `Debug`.

mod frame;
mod handshake;
mod key;
#[cfg(test)]
mod tests;

pub use frame::{FRAME_BYTES_MAX, Opener, PlainOrSealed, SealedReader, Sealer};
pub use handshake::{SealError, Sealed, answer, call};
pub use key::{ClusterKey, ClusterKeys, KEYS_MAX};

/// The first bytes of a caller that holds a cluster key.
pub const OPENING: &[u8] = b"FOLKMOOT NOISE 1\n";

/// The Noise protocol: no identities (the lines inside prove those), fresh keys for each
/// connection, and the cluster key mixed in before the first message, which thereby shows whether
/// its sender holds it.
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Bytes that Noise adds to every message: the proof that it is unchanged.
const TAG_BYTES: usize = 16;
