//! Client that sends by a member, with that member's own key: a connection with intent `client`.
//!
//! The client numbers its messages itself, so that a repeated one is not doubled, and is told of
//! each when a majority has it.

use crate::proto::chat::entry::{HostPort, Member, MemberId, Term};
use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::handshake::{CHALLENGE, PROOF, statement};
use crate::model::{Endpoint, KeyPair, Nonce, Rng};
use crate::proto::chat::message::{Join, JoinAck, JoinIntent, JoinProof, Message, Nack};
use crate::proto::chat::{ChatReader, encode};
use crate::proto::sealed::PlainOrSealed;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::RawConnection;
use crate::runtime::engine::timed::DeadlineStream;

/// Buffer size of the reader.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Connection of a client to a member.
pub struct Client {
    /// The member's description of itself and its group.
    pub ack: JoinAck,
    input: ChatReader<PlainOrSealed<DeadlineStream>>,
    stream: Arc<TcpStream>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("ack", &self.ack).finish_non_exhaustive()
    }
}

impl Client {
    /// Calls the member `id`, whose key pair is `keys`, at `addr`.
    ///
    /// # Errors
    /// Fails if the member does not answer in time, has another key or id, or refuses.
    pub fn connect(
        addr: SocketAddr,
        id: MemberId,
        keys: &KeyPair,
        rng: &mut Rng,
        timeout: Duration,
    ) -> io::Result<Self> {
        let clock = Clock::start();
        let stream = Arc::new(TcpStream::connect_timeout(&addr, timeout)?);
        stream.set_nodelay(true)?;
        let deadline = clock.now().mono.after(timeout);
        let timed = DeadlineStream::new(
            RawConnection::new(Arc::clone(&stream), Vec::new(), addr),
            clock,
            deadline,
        );
        let limit = timed.deadline();
        let mut input = ChatReader::new(PlainOrSealed::new(timed, READ_BUFFER_BYTES, None));
        let member = Member { id, at: HostPort::from(Endpoint::from(addr)), key: keys.public() };
        let join = Join {
            sender_id: id,
            term: Term(0),
            group: None,
            intent: JoinIntent::Client,
            membership: vec![member.clone()],
            nonce: Nonce::random(rng),
            life: None,
        };
        (&*stream).write_all(&encode(&Message::Join(join.clone())))?;
        let answer = hear(&mut input)?;
        let Message::JoinChallenge(challenge) = answer else { return Err(unexpected(&answer)) };
        let (its_id, its_key, nonce) = (challenge.sender_id, challenge.key, challenge.nonce);
        let called = (its_id, &its_key, &nonce);
        let sworn = statement(CHALLENGE, &join, &member, called, None);
        if its_id != id || its_key != keys.public() || !its_key.verifies(&sworn, &challenge.proof) {
            let reason = format!("whoever answers at {addr} is not {id} with this key");
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        let proof = keys.sign(&statement(PROOF, &join, &member, called, None));
        (&*stream).write_all(&encode(&Message::JoinProof(JoinProof { proof })))?;
        let answer = hear(&mut input)?;
        let Message::JoinAck(ack) = answer else { return Err(unexpected(&answer)) };
        limit.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
        stream.set_read_timeout(None)?;
        Ok(Self { ack, input, stream })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Fails if the connection has broken.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        (&*self.stream).write_all(&encode(message))
    }

    /// Waits for the next message and returns it.
    ///
    /// # Errors
    /// Fails if the connection has ended, or the next line is no message.
    pub fn hear(&mut self) -> io::Result<Message> {
        hear(&mut self.input)
    }

    /// True if input has come that was not read yet.
    pub fn has_more(&self) -> bool {
        match self.input.input() {
            PlainOrSealed::Plain(input) => !input.buffer().is_empty(),
            PlainOrSealed::Sealed(_) => false,
        }
    }

    /// Socket of the connection, to wait for many at a time.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

fn hear(input: &mut ChatReader<PlainOrSealed<DeadlineStream>>) -> io::Result<Message> {
    match input.read() {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error.to_string())),
    }
}

fn unexpected(message: &Message) -> io::Error {
    if let Message::Nack(Nack { reason, .. }) = message {
        return io::Error::other(reason.clone());
    }
    io::Error::new(ErrorKind::InvalidData, format!("unexpected: {message:?}"))
}
