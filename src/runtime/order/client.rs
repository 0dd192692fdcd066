//! Connection to a member by hand, with the key of another: what it says is up to its owner, who
//! may lie.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;

use super::handshake::{CHALLENGE, PROOF, statement};
use crate::model::{KeyPair, Nonce, Rng};
use crate::proto::bft::OrderId;
use crate::proto::bft::handshake::{OrderChallenge, OrderJoin, OrderProof, OrderRefused};
use crate::proto::bft::line::{OrderReader, encode};
use crate::proto::bft::message::Message;
use crate::proto::chat::entry::MemberId;
use crate::proto::sealed::PlainOrSealed;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::RawConnection;
use crate::runtime::engine::timed::DeadlineStream;

/// Size of the reader's buffer, in bytes.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Connection of a member's key to another member.
pub struct OrderClient {
    input: OrderReader<PlainOrSealed<DeadlineStream>>,
    stream: Arc<TcpStream>,
}

impl fmt::Debug for OrderClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderClient").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl OrderClient {
    /// Calls the member at `addr` as the member `me` of the group, whose keys are `keys`.
    ///
    /// # Errors
    /// Fails if the member does not answer within `timeout`, does not prove its key, or refuses.
    pub fn connect(
        addr: SocketAddr,
        group: OrderId,
        (me, keys): (MemberId, &KeyPair),
        rng: &mut Rng,
        timeout: Duration,
    ) -> io::Result<Self> {
        let clock = Clock::start();
        let stream = Arc::new(TcpStream::connect_timeout(&addr, timeout)?);
        stream.set_nodelay(true)?;
        let deadline = clock.now().mono.after(timeout);
        let raw = RawConnection::new(Arc::clone(&stream), Vec::new(), addr);
        let timed = DeadlineStream::new(raw, clock, deadline);
        let limit = timed.deadline();
        let mut input = OrderReader::new(PlainOrSealed::new(timed, READ_BUFFER_BYTES, None));
        let (nonce, process) = (Nonce::random(rng), rng.next_u64());
        let join = OrderJoin { sender_id: me, group, key: keys.public(), nonce, process };
        (&*stream).write_all(&encode(&Message::OrderJoin(join.clone())))?;
        let answer = hear(&mut input)?;
        let Message::OrderChallenge(challenge) = answer else { return Err(unexpected(&answer)) };
        let OrderChallenge { sender_id, key, nonce, proof } = challenge;
        let called = (sender_id, &key, &nonce);
        if !key.verifies(&statement(CHALLENGE, &join, called, None), &proof) {
            let reason = format!("{sender_id} at {addr} does not prove its key");
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        let proof = keys.sign(&statement(PROOF, &join, called, None));
        (&*stream).write_all(&encode(&Message::OrderProof(OrderProof { proof })))?;
        let answer = hear(&mut input)?;
        let Message::OrderAck(_) = answer else { return Err(unexpected(&answer)) };
        limit.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
        stream.set_read_timeout(None)?;
        Ok(Self { input, stream })
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
}

fn hear(input: &mut OrderReader<PlainOrSealed<DeadlineStream>>) -> io::Result<Message> {
    match input.read() {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error.to_string())),
    }
}

fn unexpected(message: &Message) -> io::Error {
    if let Message::OrderRefused(OrderRefused { reason, .. }) = message {
        return io::Error::other(reason.clone());
    }
    io::Error::new(ErrorKind::InvalidData, format!("unexpected: {message:?}"))
}
