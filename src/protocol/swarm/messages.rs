//! What neighbors in a swarm say to each other.

use super::pieces::PieceIndex;

/// The name of a peer within one swarm: the number in `PeerInfo.cfg`, or drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// A message after the handshake. The first eight are the assignment's; the others are spoken only
/// between neighbors whose handshake names a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Requests will not be answered any more.
    Choke,
    /// Requests will be answered.
    Unchoke,
    /// The receiver has a piece that the sender lacks.
    Interested,
    /// It has none.
    NotInterested,
    /// The sender has this piece now.
    Have(PieceIndex),
    /// What the sender has: one bit a piece, from the high bit of the first byte on, as it was on
    /// the wire. Not yet checked.
    Bitfield(Vec<u8>),
    /// The sender wants this piece.
    Request(PieceIndex),
    /// A piece and its content. The length is not yet checked.
    Piece {
        /// Which.
        index: PieceIndex,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// The sender wants this piece no more.
    Cancel(PieceIndex),
    /// The sender wants this piece from a byte on, because a connection ended amid it.
    RequestRest {
        /// The piece.
        index: PieceIndex,
        /// Bytes that it has already; at least 1.
        offset: u32,
    },
    /// The end of a piece, which a [`Message::RequestRest`] asked for. The length is not yet
    /// checked.
    Rest {
        /// The piece.
        index: PieceIndex,
        /// The first byte.
        offset: u32,
        /// The bytes from there on.
        data: Vec<u8>,
    },
    /// The sender wants hashes of pieces: `count` (a power of two, at most 1,024) from `first` (a
    /// multiple of it).
    HashesReq {
        /// The first piece.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// The hashes, and what leads from them to the root: one hash a level, from below.
    Hashes {
        /// The first piece.
        first: PieceIndex,
        /// One hash a piece; those behind the last piece are zero.
        leaves: Vec<Hash>,
        /// The siblings on the way up.
        uncles: Vec<Hash>,
    },
    /// The sender wants the list of files of a folder, from this byte on.
    FilesReq {
        /// Bytes that it has already.
        offset: u32,
    },
    /// A part of that list.
    Files {
        /// Where the part begins.
        offset: u32,
        /// Its bytes, at most 64 KiB; none at the end.
        bytes: Vec<u8>,
    },
    /// The sender does not offer the content any more: its files were changed since, or cannot be
    /// read. It is the last message of a connection.
    Withdrawn,
}
