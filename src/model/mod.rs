//! Names and quantities: the words every other module speaks.
//!
//! Nothing here decides anything, and nothing here does I/O. Types are small, ordered and
//! serializable; what has a unit carries it in its type.

mod bytes;
mod data;
mod endpoint;
mod identity;
mod memo;
mod time;

pub use bytes::SigningBytes;
pub use data::{Data, MessageId, TOPIC_BYTES_MAX, topic_complaint};
pub use endpoint::{Endpoint, Incarnation, SeedId};
pub use identity::{KeyPair, Nonce, PublicKey, ReadyKey, Signature};
pub use memo::VerdictMemo;
pub use time::{Now, Time, WallTime};

/// The one random number generator of the machines: portable, seedable, replayable.
///
/// The driver seeds it from the operating system; the simulator seeds it from the run's seed.
pub type Rng = rand::rngs::ChaCha8Rng;
