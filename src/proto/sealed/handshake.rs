//! The handshake: two Noise messages and an empty first frame, after which both ends know that
//! the other holds the key.
//!
//! The first message can be a recording; the empty frame cannot, because it is made with a secret
//! that the called end chose a moment ago. It costs no round trip: the caller speaks next anyway.
//! Blocking: the caller of these functions owns the socket and its deadline.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};

use snow::{Builder, HandshakeState};

use super::frame::{self, HEADER_BYTES, Opener, Sealer};
use super::{ClusterKey, ClusterKeys, OPENING, PATTERN, TAG_BYTES};
use crate::model::Binding;
use crate::proto::message::Message;
use crate::proto::refusal::ErrorReply;

/// Each of the two messages: a fresh public key, and the proof.
const MESSAGE_BYTES: usize = 32 + TAG_BYTES;

/// The longest refusal in plain text that a caller reads.
const REFUSAL_BYTES_MAX: usize = 4 * 1024;

/// A connection whose two ends have proved to each other that they hold the key.
#[derive(Debug)]
pub struct Sealed {
    /// For what goes out.
    pub sealer: Sealer,
    /// For what comes in.
    pub opener: Opener,
    /// The connection's own name: the hash of all that was said in its handshake.
    pub binding: Binding,
    /// True if the caller used another key than the called end uses itself.
    pub is_other_key: bool,
}

/// Reason why a handshake failed.
#[derive(Debug)]
pub enum SealError {
    /// The connection failed, ended, or took too long.
    Io(io::Error),
    /// The caller holds none of the accepted keys, or sent noise of another kind.
    WrongKey,
    /// A message is not what it should be; the other end is broken, or the bytes were changed on
    /// the way.
    Garbled,
    /// The called end refused, in plain text.
    Refused(ErrorReply),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(err) => err.fmt(f),
            Self::WrongKey => f.write_str("its cluster key is another one"),
            Self::Garbled => f.write_str("its handshake does not hold"),
            Self::Refused(error) => write!(f, "it refused: {}", error.reason),
        }
    }
}

impl Error for SealError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(err) => Some(err),
            Self::WrongKey | Self::Garbled | Self::Refused(_) => None,
        }
    }
}

impl From<io::Error> for SealError {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

/// Opens a connection as the caller.
///
/// # Errors
/// Fails if the other end does not hold `key`, or the connection fails.
pub fn call(stream: &mut (impl Read + Write), key: &ClusterKey) -> Result<Sealed, SealError> {
    let mut noise = start(key, Builder::build_initiator);
    let mut first = OPENING.to_vec();
    write_message(&mut noise, &mut first)?;
    stream.write_all(&first)?;

    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    if header[0] == b'{' {
        return Err(read_refusal(stream, header.to_vec()));
    }
    read_message(&mut noise, header, stream)?;
    let mut sealed = finish(noise, false)?;
    let mut proof = Vec::new();
    sealed.sealer.seal_frame(&[], &mut proof);
    stream.write_all(&proof)?;
    Ok(sealed)
}

/// Opens a connection as the called end, from the first byte on.
///
/// # Errors
/// Fails if the caller proves none of `keys`, or the connection fails.
pub fn answer(stream: &mut (impl Read + Write), keys: &ClusterKeys) -> Result<Sealed, SealError> {
    let mut opening = [0; OPENING.len()];
    stream.read_exact(&mut opening)?;
    if opening != OPENING {
        return Err(SealError::Garbled);
    }
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let message = read_exactly(header, MESSAGE_BYTES, stream)?;
    // A wrong key costs only hashing; the costly part comes after the right one.
    let known: Vec<_> = keys.accepted().collect();
    let mut accepted = (0..).zip(&known).filter_map(|(number, key)| {
        let mut noise = start(key, Builder::build_responder);
        noise.read_message(&message, &mut []).is_ok().then_some((number, noise))
    });
    let (number, mut noise) = accepted.next().ok_or(SealError::WrongKey)?;

    let mut second = Vec::new();
    write_message(&mut noise, &mut second)?;
    stream.write_all(&second)?;
    let mut sealed = finish(noise, number > 0)?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let proof = read_exactly(header, TAG_BYTES, stream)?;
    sealed.opener.open(&proof, &mut Vec::new()).map_err(|_| SealError::Garbled)?;
    Ok(sealed)
}

fn start<'k>(
    key: &'k ClusterKey,
    build: impl FnOnce(Builder<'k>) -> Result<HandshakeState, snow::Error>,
) -> HandshakeState {
    let pattern = PATTERN.parse().expect("the pattern is one that the library knows");
    let builder = Builder::new(pattern).psk(0, key.bytes()).and_then(|it| it.prologue(OPENING));
    builder.and_then(build).expect("the pattern needs no other key than this")
}

/// Appends the next message of the handshake, in a frame. Fails only if the system's source of
/// random numbers fails.
fn write_message(noise: &mut HandshakeState, out: &mut Vec<u8>) -> io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    let len = noise.write_message(&[], &mut message).map_err(io::Error::other)?;
    let header = u16::try_from(len).map_err(io::Error::other)?;
    out.extend_from_slice(&header.to_be_bytes());
    out.extend_from_slice(&message[..len]);
    Ok(())
}

fn read_message(
    noise: &mut HandshakeState,
    header: [u8; HEADER_BYTES],
    stream: &mut impl Read,
) -> Result<(), SealError> {
    let message = read_exactly(header, MESSAGE_BYTES, stream)?;
    noise.read_message(&message, &mut []).map_err(|_| SealError::Garbled)?;
    Ok(())
}

/// The rest of a frame that must have exactly `len` bytes: in the handshake all lengths are known.
fn read_exactly(
    header: [u8; HEADER_BYTES],
    len: usize,
    stream: &mut impl Read,
) -> Result<Vec<u8>, SealError> {
    if usize::from(u16::from_be_bytes(header)) != len {
        return Err(SealError::Garbled);
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn finish(noise: HandshakeState, is_other_key: bool) -> Result<Sealed, SealError> {
    let hash = noise.get_handshake_hash().try_into().map_err(|_| SealError::Garbled)?;
    let noise = noise.into_stateless_transport_mode().map_err(|_| SealError::Garbled)?;
    let (sealer, opener) = frame::directions(noise);
    Ok(Sealed { sealer, opener, binding: Binding(hash), is_other_key })
}

/// Reads the line that came instead of an answer; it began with `start`.
fn read_refusal(stream: &mut impl Read, start: Vec<u8>) -> SealError {
    let mut line = start;
    let mut chunk = [0; 512];
    while !line.contains(&b'\n') && line.len() < REFUSAL_BYTES_MAX {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => line.extend_from_slice(&chunk[..len]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return err.into(),
        }
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match serde_json::from_slice(line) {
        Ok(Message::Error(error)) => SealError::Refused(error),
        Ok(_) | Err(_) => SealError::Garbled,
    }
}
