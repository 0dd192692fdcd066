//! The bytes of a swarm's connections: the handshake, and frames of messages.
//!
//! All integers are unsigned, big-endian, 4 bytes. Sent bytes are exact; received ones may have
//! anything in the handshake's ten spare bytes, and an id in ASCII digits. No other module makes or
//! takes these bytes apart.

pub mod frame;
pub mod handshake;
