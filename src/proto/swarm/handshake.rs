//! Handshake that both ends of a swarm's connection send first.
//!
//! The assignment's handshake has 32 bytes: 18 of [`HEADER`], 10 zero bytes, the peer id. That of a
//! share has [`MARK`] instead of the zeros, and 32 more bytes: the share's id.

use std::fmt;

use crate::proto::swarm::{Hash, PeerId};

/// The opening of every connection of a swarm.
pub const HEADER: &[u8; 18] = b"P2PFILESHARINGPROJ";

/// Content of the ten spare bytes if the id of a share follows.
pub const MARK: &[u8; 10] = b"FOLKMOOT1\0";

/// Bytes of the assignment's handshake.
pub const HANDSHAKE_BYTES: usize = 32;

/// Bytes of a share's handshake.
pub const SHARE_HANDSHAKE_BYTES: usize = 64;

/// Kind of handshake that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The assignment's; anything may stand in the spare bytes.
    Assignment,
    /// A share's, marked as such.
    Share,
}

/// A handshake that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Id of the sender, as stated.
    pub peer: PeerId,
    /// The share, if it is about one.
    pub share: Option<Hash>,
}

/// Reason why bytes are no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwarmHandshakeError {
    /// The bytes do not open as a handshake.
    Header,
    /// The handshake names no share, where one is expected.
    NoShare,
}

impl fmt::Display for SwarmHandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "it does not open as a swarm's connection does",
            Self::NoShare => "its handshake names no share",
        })
    }
}

impl std::error::Error for SwarmHandshakeError {}

impl Handshake {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let spare = if self.share.is_some() { *MARK } else { [0; 10] };
        let mut bytes = [&HEADER[..], &spare, &self.peer.0.to_be_bytes()].concat();
        bytes.extend(self.share.iter().flatten());
        bytes
    }

    /// Reads a handshake at the beginning of `bytes`; nothing if it is not all there yet. As many
    /// bytes belong to it as [`expected_bytes`] says.
    ///
    /// # Errors
    /// With the first byte that is wrong, without waiting for the others.
    pub fn decode(bytes: &[u8], expect: Expect) -> Result<Option<Self>, SwarmHandshakeError> {
        let opening = bytes.len().min(HEADER.len());
        if bytes[..opening] != HEADER[..opening] {
            return Err(SwarmHandshakeError::Header);
        }
        let spare = &bytes[opening..bytes.len().min(HEADER.len() + MARK.len())];
        if expect == Expect::Share && *spare != MARK[..spare.len()] {
            return Err(SwarmHandshakeError::NoShare);
        }
        if bytes.len() < expected_bytes(expect) {
            return Ok(None);
        }
        let mut id = [0; 4];
        id.copy_from_slice(&bytes[28..HANDSHAKE_BYTES]);
        let share = (expect == Expect::Share).then(|| {
            let mut share = [0; 32];
            share.copy_from_slice(&bytes[HANDSHAKE_BYTES..SHARE_HANDSHAKE_BYTES]);
            share
        });
        Ok(Some(Self { peer: PeerId(u32::from_be_bytes(id)), share }))
    }

    /// The peer that the sender means, among the known ones: some programs write the id as ASCII
    /// digits. If neither reading is known, the id as the protocol has it.
    #[must_use]
    pub fn peer_among(&self, is_known: impl Fn(PeerId) -> bool) -> PeerId {
        if is_known(self.peer) {
            return self.peer;
        }
        let bytes = self.peer.0.to_be_bytes();
        let digits = std::str::from_utf8(&bytes).unwrap_or_default();
        let digits = digits.trim_matches(|c: char| c == '\0' || c == ' ');
        let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
        let id = is_number.then(|| digits.parse().ok().map(PeerId)).flatten();
        id.filter(|id| is_known(*id)).unwrap_or(self.peer)
    }
}

/// Length of a handshake, in bytes.
pub const fn expected_bytes(expect: Expect) -> usize {
    match expect {
        Expect::Assignment => HANDSHAKE_BYTES,
        Expect::Share => SHARE_HANDSHAKE_BYTES,
    }
}

/// True if the spare bytes at the beginning of a handshake announce the id of a share.
pub fn names_share(bytes: &[u8]) -> bool {
    bytes.get(HEADER.len()..HEADER.len() + MARK.len()).is_some_and(|it| it == MARK)
}
