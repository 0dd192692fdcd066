//! Inputs, effects, timers and events of a swarm's machine.

use crate::proto::swarm::{Hash, PeerId, PieceIndex};
use std::time::Duration;

use crate::machine::LinkId;

/// A peer's address that may be called, numbered by the driver, which knows the address. In the
/// assignment's swarms it is the number of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddrId(pub u32);

/// A connection over which both handshakes were exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Id that the other end claims.
    pub peer: PeerId,
    /// Place that was called, if this end called.
    pub place: Option<PeerAddrId>,
}

/// A call that failed, before or within the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFailure {
    /// Place that was called.
    pub place: PeerAddrId,
    /// Reason in words, for people.
    pub reason: String,
}

/// An input that only this machine has.
#[derive(Debug)]
pub enum ExtraInput {
    /// A place became known that may be called.
    Known(PeerAddrId),
    /// Bytes came that are no message of this swarm, and were left out.
    Skipped {
        /// Link by which they came.
        link: LinkId,
        /// Description of the bytes, for people.
        what: &'static str,
    },
    /// An [`ExtraEffect::Store`] is done.
    Stored {
        /// Index of the piece.
        index: PieceIndex,
        /// Link that the piece came by.
        from: LinkId,
        /// Outcome of storing it.
        outcome: Stored,
    },
    /// A part of a piece came, and the rest is under way.
    Coming {
        /// Link by which it comes.
        link: LinkId,
    },
    /// A connection ends amid a piece. Comes before its
    /// [`Input::Closed`](crate::machine::Input::Closed).
    Part {
        /// Link that ends.
        link: LinkId,
        /// Index of the piece.
        index: PieceIndex,
        /// Offset of the first byte: 0, or that of a `Message::Rest`.
        offset: u32,
        /// Bytes that came, not yet believed.
        data: Vec<u8>,
    },
    /// Pieces on the disk were in doubt and were read again.
    ReadAgain {
        /// Number of pieces that were read.
        read: u32,
        /// Pieces that are not there any more.
        lost: Vec<PieceIndex>,
        /// Files that other programs had changed, for people.
        files: Vec<String>,
    },
    /// An [`ExtraEffect::Upload`] is wholly written to the socket, or was dropped by a choke or
    /// cancel.
    Uploaded {
        /// Link of the upload.
        link: LinkId,
        /// Index of the piece.
        index: PieceIndex,
        /// Number of bytes that left; 0 if the upload was dropped.
        bytes: u64,
    },
    /// The disk can be used no more, for this reason, unless an [`ExtraInput::Stored`] tells it:
    /// the content on offer cannot be read, say. The swarm stops.
    DiskFailed(String),
}

/// Outcome of storing a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The piece is on disk.
    Yes,
    /// The hash of the piece is another: its sender lies or is broken.
    False,
    /// The disk did not take it; the swarm stops with this reason.
    Failed(String),
}

/// An effect that only this machine has. [`Effect::Send`](crate::machine::Effect::Send) never sends
/// a `Message::Piece` or a `Message::Rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraEffect {
    /// Send a piece from the disk, from this byte on; answered by [`ExtraInput::Uploaded`]. Uploads
    /// of one link go out in order, among its messages; a
    /// `Message::Choke` that is sent drops those not begun, and so does
    /// [`ExtraEffect::Drop`].
    Upload(LinkId, PieceIndex, u32),
    /// Drop an upload that has not begun.
    Drop(LinkId, PieceIndex),
    /// Write a piece to the disk, if its hash is this one (none: not known, and not asked for);
    /// answered by [`ExtraInput::Stored`].
    Store {
        /// Index of the piece.
        index: PieceIndex,
        /// Bytes of the piece, of the right number.
        data: Vec<u8>,
        /// Link that the piece came by.
        from: LinkId,
        /// Hash that the piece must have, if it is known.
        expected: Option<Hash>,
    },
}

/// Timers of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The preferred neighbors are chosen anew.
    Unchoke,
    /// The optimistic neighbor is chosen anew.
    Optimistic,
    /// A place is called again.
    Redial(PeerAddrId),
    /// A neighbor has had long enough for its requests.
    Answer(LinkId),
    /// Requests that could not be made before are tried again.
    Retry,
    /// The members that are still missing have had long enough.
    GiveUp,
}

/// Event for the surroundings. Those up to `Downloaded`, and `Complete`, are the assignment's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This peer called another one.
    Connected(PeerId),
    /// Another peer called this one.
    ConnectedFrom(PeerId),
    /// The preferred neighbors changed.
    Preferred(Vec<PeerId>),
    /// The optimistically unchoked neighbor changed.
    Optimistic(PeerId),
    /// A neighbor will answer requests.
    UnchokedBy(PeerId),
    /// A neighbor will not answer requests any more.
    ChokedBy(PeerId),
    /// A neighbor has another piece.
    Have(PeerId, PieceIndex),
    /// A neighbor wants pieces.
    Interested(PeerId),
    /// A neighbor wants no pieces.
    NotInterested(PeerId),
    /// A piece came from a neighbor and is on disk.
    Downloaded {
        /// Index of the piece.
        index: PieceIndex,
        /// Neighbor that sent it.
        from: PeerId,
        /// Number of pieces that are here now.
        have: u32,
    },
    /// Files were changed by other programs, and were read again.
    ReadAgain {
        /// Number of pieces that were read.
        read: u32,
        /// Number of these that are not there any more, and are fetched again.
        lost: usize,
        /// Names of the files.
        files: Vec<String>,
    },
    /// All pieces are on disk now, and were not before. Content that is complete from the beginning
    /// is not told of: ask `Swarm::status`.
    Complete,
    /// A connection was not wanted: an unexpected or wrong id, a second one, no room,
    /// a banned peer.
    Refused(PeerId, &'static str),
    /// A neighbor did something harmless that the protocol does not allow; told once for each
    /// kind and connection.
    Odd(PeerId, &'static str),
    /// A connection ended, with the reason if this end ended it.
    Disconnected(PeerId, Option<String>),
    /// A call failed; it is repeated after the pause, if there is one.
    Unreachable {
        /// Place that was called.
        place: PeerAddrId,
        /// Reason in words, for people.
        reason: String,
        /// Pause before the next call, if there is one.
        retry_in: Option<Duration>,
    },
    /// A piece was false: its sender is not asked again.
    FalsePiece(PeerId, PieceIndex),
    /// A neighbor does not offer the content any more: its files were changed, or cannot be read.
    Withdrawn(PeerId),
    /// The list of files of a folder is here, and its digest is the ticket's.
    FileList(Vec<u8>),
    /// The swarm is over for this peer.
    Ended(SwarmOutcome),
}

/// Outcome of a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwarmOutcome {
    /// All members of the roster have all pieces.
    AllComplete,
    /// This peer has all pieces; the members named did not come, or went before they had.
    WithoutSome(Vec<PeerId>),
    /// This peer lacks pieces, and no peer that has them came in time.
    Incomplete,
    /// The disk failed, for this reason.
    DiskFailed(String),
}
