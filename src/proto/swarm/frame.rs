//! Messages of a swarm as frames: length (of type and payload), type, payload.
//!
//! Reading is by pieces of any size: [`Decoder::space`] returns the buffer for the next bytes, and
//! [`Decoder::filled`] takes their number. The content of a piece goes straight into the buffer
//! that the message then carries. Lengths are checked before memory is spent on them.

use std::fmt;

use crate::proto::swarm::{
    FILES_PART_BYTES, Hash, Message, PIECE_BYTES_MAX, PieceIndex, Pieces, ProtocolVariant, RUN_MAX,
};

/// Largest message of unknown type, in bytes; it is skipped.
pub const UNKNOWN_BYTES_MAX: u32 = 64 * 1024;

/// Bytes that a bitfield may be too long before it is an error: the bits that are there can be
/// used.
pub const BITFIELD_EXCESS_MAX: u32 = 1_024;

/// Bytes of length and type.
const HEAD_BYTES: usize = 5;

/// Largest number of uncles in one message: a tree is no higher.
const UNCLES_MAX: u32 = 32;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const HASHES_REQ: u8 = 16;
const HASHES: u8 = 17;
const FILES_REQ: u8 = 18;
const FILES: u8 = 19;
const WITHDRAWN: u8 = 20;
const REQUEST_REST: u8 = 21;
const REST: u8 = 22;

/// The bytes before `len` bytes of content of a piece, which are sent by themselves: the whole
/// piece if `offset` is 0, else its end from there on.
///
/// # Panics
/// Panics if the content has more than [`PIECE_BYTES_MAX`] bytes.
pub fn piece_head(index: PieceIndex, offset: u32, len: u32) -> Vec<u8> {
    assert!(len <= PIECE_BYTES_MAX, "pieces are bounded");
    let (kind, numbers) = match offset {
        0 => (PIECE, vec![index.0]),
        _ => (REST, vec![index.0, offset]),
    };
    let numbers: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
    let all = len + u32::try_from(numbers.len()).expect("two numbers") + 1;
    [&all.to_be_bytes(), &[kind][..], &numbers].concat()
}

/// Encodes a message as one frame.
///
/// # Panics
/// Panics if the message is larger than 4 GiB.
pub fn encode(msg: &Message) -> Vec<u8> {
    let number = |value: &u32| value.to_be_bytes().to_vec();
    let (kind, payload) = match msg {
        Message::Choke => (CHOKE, Vec::new()),
        Message::Unchoke => (UNCHOKE, Vec::new()),
        Message::Interested => (INTERESTED, Vec::new()),
        Message::NotInterested => (NOT_INTERESTED, Vec::new()),
        Message::Have(index) => (HAVE, number(&index.0)),
        Message::Bitfield(bits) => (BITFIELD, bits.clone()),
        Message::Request(index) => (REQUEST, number(&index.0)),
        Message::Piece { index, data } => (PIECE, [&index.0.to_be_bytes(), &data[..]].concat()),
        Message::Cancel(index) => (CANCEL, number(&index.0)),
        Message::RequestRest { index, offset } => {
            (REQUEST_REST, [index.0, *offset].map(u32::to_be_bytes).concat())
        }
        Message::Rest { index, offset, data } => {
            (REST, [&index.0.to_be_bytes(), &offset.to_be_bytes(), &data[..]].concat())
        }
        Message::HashesReq { first, count } => {
            (HASHES_REQ, [first.0, *count].map(u32::to_be_bytes).concat())
        }
        Message::Hashes { first, leaves, uncles } => {
            let count = u32::try_from(leaves.len()).expect("a run is bounded");
            let hashes = [leaves.concat(), uncles.concat()].concat();
            (HASHES, [[first.0, count].map(u32::to_be_bytes).concat(), hashes].concat())
        }
        Message::Withdrawn => (WITHDRAWN, Vec::new()),
        Message::FilesReq { offset } => (FILES_REQ, number(offset)),
        Message::Files { offset, bytes } => (FILES, [&offset.to_be_bytes(), &bytes[..]].concat()),
    };
    let len = u32::try_from(payload.len() + 1).expect("a message is bounded");
    [&len.to_be_bytes(), &[kind][..], &payload].concat()
}

/// Protocol of a connection, and the sizes that bound its messages.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Set of message types.
    pub variant: ProtocolVariant,
    /// Sizes of pieces and of the bitfield.
    pub pieces: Pieces,
}

/// Result of reading one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of a known type.
    Message(Message),
    /// A message of a type that the assignment does not have; it was skipped.
    Skipped {
        /// Number of the message's type.
        kind: u8,
        /// Bytes of its payload.
        bytes: u32,
    },
}

/// Reason why the stream cannot be read any more; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A message without even a type.
    Empty,
    /// A payload that is too long or too short for its type.
    Length {
        /// Number of the message's type.
        kind: u8,
        /// Bytes of its payload.
        bytes: u32,
    },
    /// A type that does not exist.
    Kind(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a message of length 0"),
            Self::Length { kind, bytes } => {
                write!(f, "a message of type {kind} with a payload of {bytes} bytes")
            }
            Self::Kind(kind) => write!(f, "a message of unknown type {kind}"),
        }
    }
}

impl std::error::Error for FrameError {}

#[derive(Debug)]
enum State {
    /// Length and type.
    Head { head: [u8; HEAD_BYTES], got: usize },
    /// The payload of anything but a piece; the numbers before the content, if it is a piece.
    Payload { kind: u8, rest: u32, payload: Vec<u8>, got: usize },
    /// The content of a piece, or of the rest of one, from a byte on.
    Content { index: PieceIndex, offset: Option<u32>, data: Vec<u8>, got: usize },
    /// The rest of a message that is skipped.
    Skip { kind: u8, bytes: u32, left: usize },
}

const START: State = State::Head { head: [0; HEAD_BYTES], got: 0 };

/// Reads the messages of one connection. After an error it is of no use any more.
#[derive(Debug)]
pub struct Decoder {
    limits: FrameLimits,
    state: State,
    waste: Vec<u8>,
    spare: Vec<u8>,
}

impl Decoder {
    /// Reads from the byte after the handshake on.
    pub const fn new(limits: FrameLimits) -> Self {
        Self { limits, state: START, waste: Vec::new(), spare: Vec::new() }
    }

    /// Lends a buffer for the content of the next piece; what is in it does not matter. A piece for
    /// which it is too small gets memory of its own.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        self.spare = buffer;
    }

    /// Buffer for the next bytes; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.state {
            State::Head { head, got } => &mut head[*got..],
            State::Payload { payload, got, .. } => &mut payload[*got..],
            State::Content { data, got, .. } => &mut data[*got..],
            State::Skip { left, .. } => {
                self.waste.resize(4_096, 0);
                let len = (*left).min(self.waste.len());
                &mut self.waste[..len]
            }
        }
    }

    /// True if a message has begun and not ended: the connection should not end here.
    pub const fn is_amid(&self) -> bool {
        !matches!(self.state, State::Head { got: 0, .. })
    }

    /// The piece amid which the connection ended: its index, the first byte's offset, and the bytes
    /// that came.
    pub fn into_part(self) -> Option<(PieceIndex, u32, Vec<u8>)> {
        match self.state {
            State::Content { index, offset, mut data, got: got @ 1.. } => {
                data.truncate(got);
                Some((index, offset.unwrap_or(0), data))
            }
            State::Head { .. }
            | State::Payload { .. }
            | State::Content { .. }
            | State::Skip { .. } => None,
        }
    }

    /// `count` bytes were put where [`Decoder::space`] said. Returns a message if they end one.
    ///
    /// # Errors
    /// Fails if nothing after these bytes can be read.
    ///
    /// # Panics
    /// Panics if there was less space.
    pub fn filled(&mut self, count: usize) -> Result<Option<Frame>, FrameError> {
        assert!(count <= self.space().len(), "no more bytes than there was space for");
        match &mut self.state {
            State::Head { got, .. } => *got += count,
            State::Payload { got, .. } | State::Content { got, .. } => *got += count,
            State::Skip { left, .. } => *left -= count,
        }
        loop {
            match std::mem::replace(&mut self.state, START) {
                State::Head { head, got } => {
                    let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                    if got >= 4 && len == 0 {
                        return Err(FrameError::Empty);
                    }
                    if got < HEAD_BYTES {
                        self.state = State::Head { head, got };
                        return Ok(None);
                    }
                    self.state = self.begin(head[4], len - 1)?;
                }
                State::Payload { kind, rest, payload, got } if got == payload.len() => {
                    if kind == PIECE || kind == REST {
                        let index = PieceIndex(number(&payload));
                        let offset = (kind == REST).then(|| number(&payload[4..]));
                        let data = self.content(rest as usize);
                        self.state = State::Content { index, offset, data, got: 0 };
                    } else {
                        return message(kind, payload).map(|msg| Some(Frame::Message(msg)));
                    }
                }
                State::Content { index, offset, data, got } if got == data.len() => {
                    return Ok(Some(Frame::Message(match offset {
                        None => Message::Piece { index, data },
                        Some(offset) => Message::Rest { index, offset, data },
                    })));
                }
                State::Skip { kind, bytes, left: 0 } => {
                    self.waste = Vec::new();
                    return Ok(Some(Frame::Skipped { kind, bytes }));
                }
                unfinished @ (State::Payload { .. }
                | State::Content { .. }
                | State::Skip { .. }) => {
                    self.state = unfinished;
                    return Ok(None);
                }
            }
        }
    }

    /// Reads a message out of the bytes that `source` has, until one is whole. `None` at the end of
    /// the connection between two messages. `coming` is called with the number of bytes of pieces
    /// as they come.
    ///
    /// # Errors
    /// Fails with the error of `source`, at an end amid a message, or at bytes that cannot be read.
    pub fn read_from(
        &mut self,
        source: &mut impl std::io::Read,
        mut coming: impl FnMut(usize),
    ) -> std::io::Result<Option<Frame>> {
        use std::io::{Error, ErrorKind};
        loop {
            match source.read(self.space()) {
                Ok(0) if self.is_amid() => {
                    return Err(Error::new(ErrorKind::UnexpectedEof, "it ended amid a message"));
                }
                Ok(0) => return Ok(None),
                Ok(count) => {
                    if matches!(self.state, State::Content { .. }) {
                        coming(count);
                    }
                    let found = self.filled(count);
                    match found.map_err(|it| Error::new(ErrorKind::InvalidData, it))? {
                        Some(frame) => return Ok(Some(frame)),
                        None => continue,
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A buffer of `len` bytes: the one that was lent, or a new one, whose memory the system gives
    /// only as it is filled.
    fn content(&mut self, len: usize) -> Vec<u8> {
        let mut spare = std::mem::take(&mut self.spare);
        if spare.capacity() < len {
            return vec![0; len];
        }
        spare.resize(len, 0);
        spare
    }

    /// State for the payload that follows a head.
    fn begin(&self, kind: u8, bytes: u32) -> Result<State, FrameError> {
        let FrameLimits { variant, pieces } = self.limits;
        let hash = u32::try_from(size_of::<Hash>()).expect("32");
        let lengths = match kind {
            CHOKE | UNCHOKE | INTERESTED | NOT_INTERESTED => Some(0..=0),
            HAVE | REQUEST => Some(4..=4),
            BITFIELD => Some(0..=pieces.count().div_ceil(8) + BITFIELD_EXCESS_MAX),
            PIECE => Some(4..=4 + pieces.piece_size()),
            _ if variant == ProtocolVariant::Assignment => None,
            CANCEL | FILES_REQ => Some(4..=4),
            REQUEST_REST => Some(8..=8),
            REST => Some(8..=8 + pieces.piece_size()),
            WITHDRAWN => Some(0..=0),
            HASHES_REQ => Some(8..=8),
            HASHES => Some(8..=8 + (RUN_MAX + UNCLES_MAX) * hash),
            FILES => Some(4..=4 + u32::try_from(FILES_PART_BYTES).expect("64 KiB")),
            _ => return Err(FrameError::Kind(kind)),
        };
        let is_possible = match &lengths {
            Some(lengths) => lengths.contains(&bytes),
            None => bytes <= UNKNOWN_BYTES_MAX,
        };
        if !is_possible {
            return Err(FrameError::Length { kind, bytes });
        }
        Ok(match (lengths, kind) {
            (None, _) => State::Skip { kind, bytes, left: bytes as usize },
            (Some(numbers), PIECE | REST) => {
                let numbers = *numbers.start();
                let payload = vec![0; numbers as usize];
                State::Payload { kind, rest: bytes - numbers, payload, got: 0 }
            }
            (Some(_), _) => {
                State::Payload { kind, rest: 0, payload: vec![0; bytes as usize], got: 0 }
            }
        })
    }
}

/// The big-endian number at the beginning.
fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A message out of a payload whose length was found possible.
fn message(kind: u8, payload: Vec<u8>) -> Result<Message, FrameError> {
    let index = |payload: &[u8]| PieceIndex(number(payload));
    Ok(match kind {
        CHOKE => Message::Choke,
        UNCHOKE => Message::Unchoke,
        INTERESTED => Message::Interested,
        NOT_INTERESTED => Message::NotInterested,
        HAVE => Message::Have(index(&payload)),
        BITFIELD => Message::Bitfield(payload),
        REQUEST => Message::Request(index(&payload)),
        CANCEL => Message::Cancel(index(&payload)),
        REQUEST_REST => {
            Message::RequestRest { index: index(&payload), offset: number(&payload[4..]) }
        }
        HASHES_REQ => Message::HashesReq { first: index(&payload), count: number(&payload[4..]) },
        HASHES => return hashes(&payload),
        FILES_REQ => Message::FilesReq { offset: number(&payload) },
        FILES => Message::Files { offset: number(&payload), bytes: payload[4..].to_vec() },
        WITHDRAWN => Message::Withdrawn,
        _ => return Err(FrameError::Kind(kind)),
    })
}

fn hashes(payload: &[u8]) -> Result<Message, FrameError> {
    let (first, count) = (PieceIndex(number(payload)), number(&payload[4..]));
    let hashes: Vec<Hash> = payload[8..]
        .chunks_exact(size_of::<Hash>())
        .map(|chunk| chunk.try_into().expect("chunks of a hash"))
        .collect();
    let is_whole = payload.len() - 8 == hashes.len() * size_of::<Hash>();
    if !is_whole || count > RUN_MAX || hashes.len() < count as usize {
        let bytes = u32::try_from(payload.len()).expect("payloads are bounded");
        return Err(FrameError::Length { kind: HASHES, bytes });
    }
    let (leaves, uncles) = hashes.split_at(count as usize);
    Ok(Message::Hashes { first, leaves: leaves.to_vec(), uncles: uncles.to_vec() })
}
