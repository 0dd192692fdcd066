//! The dialect of a swarm: its messages, and the bytes of its connections, which are the handshake
//! and frames of messages.
//!
//! All integers are unsigned, big-endian, 4 bytes. Sent bytes are exact; received ones may have
//! anything in the handshake's ten spare bytes, and an id in ASCII digits. No other module makes or
//! takes these bytes apart.

pub mod frame;
pub mod handshake;
mod message;
mod pieces;

pub use message::{FILES_PART_BYTES, Hash, Message, PeerId, ProtocolVariant, RUN_MAX};
pub use pieces::{PIECE_BYTES_MAX, PIECES_MAX, PieceIndex, Pieces};
