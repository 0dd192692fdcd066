//! What happens to a swarm's machine, and what it has its driver do.

use std::time::Duration;

use super::messages::{Hash, Message, PeerId};
use super::pieces::PieceIndex;
use crate::protocol::LinkId;

/// Somebody who may be called, numbered by the driver, which knows the address. In the
/// assignment's swarms it is the number of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

/// What can happen to the machine.
#[derive(Debug)]
pub enum Input {
    /// The first input, once.
    Start,
    /// Here is somebody who may be called.
    Known(Place),
    /// Both handshakes were exchanged over a new connection.
    Connected {
        /// The connection.
        link: LinkId,
        /// Who the other end says it is.
        peer: PeerId,
        /// Whom this was a call to, if this end called.
        place: Option<Place>,
    },
    /// A call failed, before or within the handshake.
    DialFailed {
        /// Whom it was to.
        place: Place,
        /// Why, for people.
        reason: String,
    },
    /// A message came.
    Received {
        /// The connection.
        link: LinkId,
        /// The message, well-formed and not yet believed.
        msg: Message,
    },
    /// Something came that is no message of this swarm, and was left out.
    Skipped {
        /// The connection.
        link: LinkId,
        /// What it was, for people.
        what: &'static str,
    },
    /// A connection ended. Comes once for each that was connected, also after a [`Effect::Hangup`].
    Disconnected {
        /// The connection.
        link: LinkId,
    },
    /// An [`Effect::Store`] is done.
    Stored {
        /// The piece.
        index: PieceIndex,
        /// Whose it was.
        from: LinkId,
        /// What became of it.
        outcome: Stored,
    },
    /// A part of a piece came, and the rest is under way.
    Coming {
        /// The connection.
        link: LinkId,
    },
    /// A connection ends amid a piece. Comes before its [`Input::Disconnected`].
    Part {
        /// The connection.
        link: LinkId,
        /// The piece.
        index: PieceIndex,
        /// The first byte: 0, or that of a [`Message::Rest`].
        offset: u32,
        /// The bytes that came, not yet believed.
        data: Vec<u8>,
    },
    /// Pieces on the disk were in doubt and were read again.
    ReadAgain {
        /// How many.
        read: u32,
        /// Those that are not there any more.
        lost: Vec<PieceIndex>,
        /// The files that others had changed, for people.
        files: Vec<String>,
    },
    /// An [`Effect::Upload`] is wholly written to the socket, or was dropped by a choke or cancel.
    Uploaded {
        /// The connection.
        link: LinkId,
        /// The piece.
        index: PieceIndex,
        /// Bytes that left; 0 if it was dropped.
        bytes: u64,
    },
    /// The disk can be used no more, for this reason, as far as it is not said by a piece that was
    /// to be stored: what is offered cannot be read, say. The swarm stops.
    DiskFailed(String),
    /// A deadline passed.
    TimerFired(Timer),
}

/// What became of a piece that was to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk.
    Yes,
    /// Its hash is another: whoever sent it lies or is broken.
    False,
    /// The disk did not take it; the swarm stops with this reason.
    Failed(String),
}

/// What the driver is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message (never a [`Message::Piece`] or a [`Message::Rest`]).
    Send(LinkId, Message),
    /// Send a piece from the disk, from this byte on; answered by [`Input::Uploaded`]. Uploads of
    /// one link go out in order, among its messages; a [`Message::Choke`] that is sent drops those
    /// not begun, and so does [`Effect::Drop`].
    Upload(LinkId, PieceIndex, u32),
    /// Drop an upload that has not begun.
    Drop(LinkId, PieceIndex),
    /// Write a piece to the disk, if its hash is this one (none: not known, and not asked for);
    /// answered by [`Input::Stored`].
    Store {
        /// The piece.
        index: PieceIndex,
        /// Its bytes, of the right number.
        data: Vec<u8>,
        /// Who sent it.
        from: LinkId,
        /// What it must be.
        expected: Option<Hash>,
    },
    /// Call somebody; answered by [`Input::Connected`] or [`Input::DialFailed`].
    Dial(Place),
    /// End a connection, after what was sent to it has left.
    Hangup(LinkId),
    /// Have a deadline; setting it again moves it.
    SetTimer(Timer, Duration),
    /// Have it no more.
    StopTimer(Timer),
    /// Tell the surroundings.
    Emit(Event),
}

/// The deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Choose the preferred neighbors anew.
    Unchoke,
    /// Choose the optimistically unchoked neighbor anew.
    Optimistic,
    /// Call somebody again.
    Redial(Place),
    /// A neighbor has had long enough for what was asked of it.
    Answer(LinkId),
    /// What could not be asked for before may be now.
    Retry,
    /// Whoever is still missing has had long enough.
    GiveUp,
}

/// What the surroundings are told. The first eleven are the assignment's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This peer called that one.
    Connected(PeerId),
    /// That one called.
    ConnectedFrom(PeerId),
    /// The preferred neighbors changed.
    Preferred(Vec<PeerId>),
    /// The optimistically unchoked neighbor changed.
    Optimistic(PeerId),
    /// That one will answer requests.
    UnchokedBy(PeerId),
    /// It will not any more.
    ChokedBy(PeerId),
    /// It has another piece.
    Have(PeerId, PieceIndex),
    /// It wants something.
    Interested(PeerId),
    /// It wants nothing.
    NotInterested(PeerId),
    /// A piece came from it and is on disk; so many are there now.
    Downloaded {
        /// The piece.
        index: PieceIndex,
        /// From whom.
        from: PeerId,
        /// How many pieces are there now.
        have: u32,
    },
    /// Files were changed by others, and were read again.
    ReadAgain {
        /// How many pieces were read.
        read: u32,
        /// How many of them are not there any more, and are fetched again.
        lost: usize,
        /// The files.
        files: Vec<String>,
    },
    /// Everything is on disk now, and was not before. What is complete from the beginning is not
    /// told of: ask `Swarm::status`.
    Complete,
    /// A connection was not wanted: an unexpected or wrong id, a second one, no room, a liar.
    Refused(PeerId, &'static str),
    /// A neighbor did something that the protocol does not allow and that harms nothing; told once
    /// for each kind and connection.
    Odd(PeerId, &'static str),
    /// A connection ended; it is told why where this end ended it.
    Disconnected(PeerId, Option<String>),
    /// A call failed; it is repeated after the pause, if there is one.
    Unreachable {
        /// Whom it was to.
        place: Place,
        /// Why, for people.
        reason: String,
        /// The pause.
        retry_in: Option<Duration>,
    },
    /// A piece was false: the neighbor is not asked again.
    FalsePiece(PeerId, PieceIndex),
    /// A neighbor does not offer the content any more: its files were changed, or cannot be read.
    Withdrawn(PeerId),
    /// The list of files of a folder is there and is what the ticket says.
    FileList(Vec<u8>),
    /// The swarm is over for this peer.
    Ended(Outcome),
}

/// How a swarm ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everybody who had to has everything.
    AllComplete,
    /// This peer has everything; those named did not come or went before they had.
    WithoutSome(Vec<PeerId>),
    /// This peer lacks pieces, and nobody who has them came in time.
    Incomplete,
    /// The disk failed, for this reason.
    DiskFailed(String),
}
