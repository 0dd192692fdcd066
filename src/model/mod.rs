//! Names and quantities that all other modules use.
//!
//! Nothing here decides anything, and nothing here does I/O. Types are small, ordered and
//! serializable; what has a unit carries it in its type.

mod bytes;
mod data;
mod endpoint;
pub mod entry;
mod file_list;
mod identity;
mod memo;
pub mod size;
pub mod span;
pub mod statement;
pub mod text;
mod ticket;
mod time;

pub use bytes::SigningBytes;
pub use data::{Data, MessageId, TOPIC_BYTES_MAX, topic_complaint};
pub use endpoint::{Endpoint, Incarnation, SeedId};
pub use file_list::{
    FILES_MAX, FileAttributes, FileEntry, FileList, NAME_BYTES_MAX, PATH_BYTES_MAX, name_complaint,
    path_complaint,
};
pub use identity::{Binding, KeyPair, Nonce, PublicKey, ReadyKey, Signature};
pub use memo::VerdictMemo;
pub use ticket::{ADDRESSES_MAX, TICKET_BYTES_MAX, Ticket, TicketError};
pub use time::{Now, Time, WallTime};

/// The one random number generator of the machines: portable, seedable, replayable.
///
/// The driver seeds it from the operating system; the simulator seeds it from the run's seed.
pub type Rng = rand::rngs::ChaCha8Rng;
