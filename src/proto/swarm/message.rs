//! Messages between the neighbors in a swarm.

use super::pieces::PieceIndex;

/// Id of a peer within one swarm: the number in `PeerInfo.cfg`, or drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Greatest number of hashes in one message.
pub const RUN_MAX: u32 = 1_024;

/// Size of the part of a list in one message, in bytes.
pub const FILES_PART_BYTES: usize = 64 * 1024;

/// Set of messages that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolVariant {
    /// The eight messages of the assignment.
    Assignment,
    /// The eight messages of the assignment, and those of shares.
    Share,
}

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
    /// The receiver has no piece that the sender lacks.
    NotInterested,
    /// The sender has this piece now.
    Have(PieceIndex),
    /// Pieces that the sender has: one bit a piece, from the high bit of the first byte on, as it
    /// was on the wire. Not yet checked.
    Bitfield(Vec<u8>),
    /// The sender wants this piece.
    Request(PieceIndex),
    /// A piece and its content. The length is not yet checked.
    Piece {
        /// Index of the piece.
        index: PieceIndex,
        /// Bytes of the piece.
        data: Vec<u8>,
    },
    /// The sender wants this piece no more.
    Cancel(PieceIndex),
    /// The sender wants this piece from a byte on, because a connection ended amid it.
    RequestRest {
        /// Index of the piece.
        index: PieceIndex,
        /// Number of bytes that the sender has already; at least 1.
        offset: u32,
    },
    /// The end of a piece, which a [`Message::RequestRest`] asked for. The length is
    /// not yet checked.
    Rest {
        /// Index of the piece.
        index: PieceIndex,
        /// Offset of the first byte.
        offset: u32,
        /// Bytes from there on.
        data: Vec<u8>,
    },
    /// The sender wants hashes of pieces: `count` (a power of two, at most 1,024) from `first` (a
    /// multiple of it).
    HashesReq {
        /// Index of the first piece.
        first: PieceIndex,
        /// Number of hashes.
        count: u32,
    },
    /// The hashes, and those that lead from them to the root: one hash a level, from below.
    Hashes {
        /// Index of the first piece.
        first: PieceIndex,
        /// One hash a piece; those behind the last piece are zero.
        leaves: Vec<Hash>,
        /// Siblings on the way up.
        uncles: Vec<Hash>,
    },
    /// The sender wants the list of files of a folder, from this byte on.
    FilesReq {
        /// Number of bytes that the sender has already.
        offset: u32,
    },
    /// A part of the list of files.
    Files {
        /// Offset at which the part begins.
        offset: u32,
        /// Bytes of the part, at most 64 KiB; none at the end.
        bytes: Vec<u8>,
    },
    /// The sender does not offer the content any more: its files were changed since, or cannot be
    /// read. It is the last message of a connection.
    Withdrawn,
}
