//! Handshakes, on accepted connections and on calls, each within a deadline.
//!
//! `JOIN` → `JOIN_CHALLENGE` → `JOIN_PROOF` → `JOIN_ACK`, or a `NACK` with the reason of a refusal.
//! Each end signs all that both have sent, so that neither can be replayed to another node; on an
//! encrypted connection that includes its binding. The machine decides whether the caller may join.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::engine::Shared;
use super::link::Ends;
use crate::machine::Binding;
use crate::machine::chat::messages::{
    Intent, Join, JoinAck, JoinChallenge, JoinProof, Nack, NackCode,
};
use crate::machine::chat::{At, Member, MemberId, Message, Recovered, Term};
use crate::machine::message::{ErrorCode, ErrorReply};
use crate::model::{Endpoint, Nonce, PublicKey, SigningBytes, Time};
use crate::proto::chat::{Reader, encode};
use crate::proto::dialect::Dialect;
use crate::proto::line::{self, ReadError};
use crate::proto::sealed::{self, HandshakeError, Incoming, Sealed, Sealer};
use crate::runtime::driver::options::Connection;
use crate::runtime::inbox::Closed;
use crate::runtime::porter::{connect, hear_opening};
use crate::runtime::timed::Timed;

/// Buffer size of each reader: most lines are short, and a batch passes through it quickly.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Reason why a handshake failed.
#[derive(Debug)]
pub(super) enum Trouble {
    Io(io::Error),
    Key(HandshakeError),
    Dialect(Dialect),
    /// The other end refused, for this reason; with the key, if it has proved one.
    Refused(NackCode, String, Option<PublicKey>),
    /// This end refuses.
    Refuses(NackCode, String),
    /// This end is stopping, or has no room.
    Closed,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(err) if matches!(err.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                f.write_str("no answer in time")
            }
            Self::Io(err) if err.kind() == ErrorKind::UnexpectedEof => {
                f.write_str("connected, but hung up on")
            }
            Self::Io(err) => err.fmt(f),
            Self::Key(err) => err.fmt(f),
            Self::Dialect(dialect) => write!(f, "it speaks {}", dialect.name()),
            Self::Refused(_, reason, _) => write!(f, "it refuses: {reason}"),
            Self::Refuses(_, reason) => write!(f, "it was refused: {reason}"),
            Self::Closed => f.write_str("there is no room here for more connections"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

impl From<ReadError> for Trouble {
    fn from(err: ReadError) -> Self {
        match err {
            ReadError::Io(err) => Self::Io(err),
            ReadError::TooLong | ReadError::Truncated | ReadError::Malformed { .. } => {
                Self::Refuses(NackCode::Malformed, err.to_string())
            }
        }
    }
}

impl From<Closed> for Trouble {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

fn refuses(code: NackCode, reason: &str) -> Trouble {
    Trouble::Refuses(code, reason.to_owned())
}

/// A connection whose ends are still to prove their keys.
struct Parley {
    input: Reader<Incoming<Timed>>,
    deadline: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    stream: Arc<TcpStream>,
    sealer: Option<Sealer>,
    binding: Option<Binding>,
}

impl Parley {
    fn new(timed: Timed, sealed: Option<Sealed>) -> Self {
        let (stream, deadline, reads) = (timed.stream(), timed.deadline(), timed.reads());
        let (sealer, opener, binding) = match sealed {
            None => (None, None, None),
            Some(it) => (Some(it.sealer), Some(it.opener), Some(it.binding)),
        };
        let input = Reader::new(Incoming::new(timed, READ_BUFFER_BYTES, opener));
        Self { input, deadline, reads, stream, sealer, binding }
    }

    fn say(&mut self, message: &Message) -> io::Result<()> {
        let line = encode(message);
        let sealed = self.sealer.as_mut().map(|sealer| sealer.seal(&line));
        // Some hundred bytes at the beginning of a connection: they always fit.
        (&*self.stream).write_all(sealed.as_deref().unwrap_or(&line))
    }

    fn hear(&mut self) -> Result<Message, Trouble> {
        match self.input.read()? {
            Some(message) => Ok(message),
            None => Err(Trouble::Io(ErrorKind::UnexpectedEof.into())),
        }
    }

    fn ends(self, member: Member, intent: Intent, life: Option<u64>, ack: Option<JoinAck>) -> Ends {
        let Self { input, deadline, reads, stream, sealer, .. } = self;
        Ends { input, deadline, reads, stream, sealer, member, intent, life, ack }
    }
}

/// Statement that both ends sign: everything that was sent, with sender, receiver and connection.
pub(super) fn statement(
    domain: &str,
    join: &Join,
    caller: &Member,
    called: (MemberId, &PublicKey, &Nonce),
    binding: Option<Binding>,
) -> SigningBytes {
    let intent = match join.intent {
        Intent::Member => 0,
        Intent::Client => 1,
    };
    let group: &[u8] = join.group.as_ref().map_or(&[], |it| &it.0);
    let binding: &[u8] = binding.as_ref().map_or(&[], |it| &it.0);
    SigningBytes::new(domain)
        .number(caller.id.0.into())
        .key(&caller.key)
        .text(&caller.at.host.to_string())
        .number(caller.at.port.into())
        .number(intent)
        .bytes(group)
        .nonce(&join.nonce)
        .number(called.0.0.into())
        .key(called.1)
        .nonce(called.2)
        .bytes(binding)
}

pub(super) const CHALLENGE: &str = "folkmoot/chat/challenge/1";
pub(super) const PROOF: &str = "folkmoot/chat/proof/1";

impl Shared {
    /// Identifies the caller, and decides whether it may stay.
    pub(super) fn greet(&self, connection: Connection, is_told: bool) -> Option<Ends> {
        let from = connection.from();
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = connection.stream().set_nodelay(true);
        match self.answer(connection, is_told, deadline) {
            Ok(ends) => Some(ends),
            Err(trouble) => {
                match &trouble {
                    Trouble::Io(_) => self.counters.refused_silent.add(1),
                    Trouble::Key(_) => self.counters.refused_key.add(1),
                    Trouble::Dialect(_) => self.counters.refused_dialect.add(1),
                    Trouble::Refused(..) | Trouble::Refuses(..) | Trouble::Closed => {
                        self.counters.refused_handshake.add(1);
                    }
                }
                log::debug!("a connection from {from} came to nothing: {trouble}");
                None
            }
        }
    }

    fn answer(
        &self,
        connection: Connection,
        is_told: bool,
        deadline: Time,
    ) -> Result<Ends, Trouble> {
        let (connection, dialect) = if is_told {
            (connection, Dialect::Chat)
        } else {
            hear_opening(connection, self.clock, deadline)?
        };
        let mut timed = Timed::new(connection, self.clock, deadline);
        let sealed = match (dialect, &self.keys) {
            (Dialect::Chat, None) => None,
            (Dialect::Sealed, Some(keys)) => {
                Some(sealed::answer(&mut timed, keys).map_err(Trouble::Key)?)
            }
            (Dialect::Chat, Some(_)) => {
                let reason = "this member listens to holders of its cluster key only: use \
                              --cluster-key FILE";
                let refusal = self.refusal(NackCode::Handshake, reason);
                let _ = timed.write_all(&encode(&Message::Nack(refusal)));
                return Err(Trouble::Key(HandshakeError::WrongKey));
            }
            (Dialect::Sealed, None) => {
                let reason = "this member holds no cluster key: start it with --cluster-key FILE, \
                              or call without";
                let line = line::encode(&ErrorReply::new(ErrorCode::ClusterKey, reason).into());
                let _ = timed.write_all(&line);
                return Err(Trouble::Key(HandshakeError::WrongKey));
            }
            (other, _) => return Err(Trouble::Dialect(other)),
        };
        let mut parley = Parley::new(timed, sealed);
        let outcome = self.try_caller(&mut parley);
        match outcome {
            Ok((member, intent, life)) => Ok(parley.ends(member, intent, life, None)),
            Err(trouble) => {
                if let Trouble::Refuses(code, reason) = &trouble {
                    let _ = parley.say(&Message::Nack(self.refusal(*code, reason)));
                }
                Err(trouble)
            }
        }
    }

    fn refusal(&self, code: NackCode, reason: &str) -> Nack {
        let (sender_id, term) = (self.me.id, Term(0));
        Nack { sender_id, term, code, leader_id: None, msg_id: None, reason: reason.to_owned() }
    }

    fn try_caller(&self, parley: &mut Parley) -> Result<(Member, Intent, Option<u64>), Trouble> {
        let Message::Join(join) = parley.hear()? else {
            return Err(refuses(NackCode::Handshake, "a connection begins with JOIN"));
        };
        let [caller] = &join.membership[..] else {
            let reason = "a JOIN has one entry in its membership: the caller";
            return Err(refuses(NackCode::Handshake, reason));
        };
        let caller = caller.clone();
        if caller.id != join.sender_id {
            let reason = "the entry in a JOIN's membership is not its sender_id's";
            return Err(refuses(NackCode::Handshake, reason));
        }
        let my_key = self.keys_of_mine.public();
        let is_mine = caller.key == my_key && caller.id == self.me.id;
        match join.intent {
            Intent::Client if !is_mine => {
                let reason = "a client calls with the id and the key of the member that it calls";
                return Err(refuses(NackCode::NotAllowed, reason));
            }
            Intent::Member if caller.key == my_key => {
                return Err(refuses(NackCode::NotAllowed, "this is the caller itself"));
            }
            Intent::Client | Intent::Member => {}
        }
        let nonce = self.nonce();
        let called = (self.me.id, &my_key, &nonce);
        let sworn = statement(CHALLENGE, &join, &caller, called, parley.binding);
        parley.say(&Message::JoinChallenge(JoinChallenge {
            sender_id: self.me.id,
            key: my_key,
            nonce,
            proof: self.keys_of_mine.sign(&sworn),
        }))?;
        let Message::JoinProof(JoinProof { proof }) = parley.hear()? else {
            return Err(refuses(NackCode::Handshake, "a JOIN_CHALLENGE is answered by JOIN_PROOF"));
        };
        let sworn = statement(PROOF, &join, &caller, called, parley.binding);
        if !caller.key.verifies(&sworn, &proof) {
            return Err(refuses(NackCode::Handshake, "the proof is not the key's"));
        }
        parley.say(&Message::JoinAck(self.admit(&caller, &join)?))?;
        Ok((caller, join.intent, join.life))
    }

    /// Asks the machine whether a caller may stay.
    fn admit(&self, caller: &Member, join: &Join) -> Result<JoinAck, Trouble> {
        if join.intent == Intent::Member
            && self.allows.as_ref().is_some_and(|allows| !allows(&caller.key))
        {
            return Err(refuses(NackCode::NotAllowed, "this key may not be a member here"));
        }
        let (asked, group, intent) = (caller.clone(), join.group, join.intent);
        let answer = self.ask(move |machine| {
            if intent == Intent::Member {
                machine.admits(&asked, group)?;
            }
            Ok(machine.introduction())
        })?;
        match answer {
            Ok(Some(ack)) => Ok(ack),
            Ok(None) => {
                let reason = "this member is in no group itself yet; try again later";
                Err(refuses(NackCode::Busy, reason))
            }
            Err(NackCode::Removed) => {
                let recovered = self.ask(|machine| machine.recovered().cloned())?;
                let reason = match recovered.filter(|it| it.left_out.contains(&caller.id)) {
                    Some(it) => left_out(&it, caller.id),
                    None => self.why_not(NackCode::Removed, caller),
                };
                Err(Trouble::Refuses(NackCode::Removed, reason))
            }
            Err(code) => Err(Trouble::Refuses(code, self.why_not(code, caller))),
        }
    }

    fn why_not(&self, code: NackCode, caller: &Member) -> String {
        let id = caller.id;
        match code {
            NackCode::IdTaken => format!(
                "the id of {id} is in use by another key; choose another --id, or start it with \
                 the --data that it had"
            ),
            NackCode::Removed => {
                format!("the key of {id} was removed from this group for good; join with a new one")
            }
            NackCode::OtherGroup => format!(
                "{id} belongs to another group than {}; give it another --log-dir to join this one",
                self.me.id
            ),
            NackCode::Malformed
            | NackCode::NotAllowed
            | NackCode::Handshake
            | NackCode::Stale
            | NackCode::NotLeader
            | NackCode::NoQuorum
            | NackCode::Busy
            | NackCode::Gap
            | NackCode::Invalid
            | NackCode::Taken
            | NackCode::Doubled
            | NackCode::Copied
            | NackCode::Rewound => format!("{id} may not join now; it tries again by itself"),
        }
    }

    /// Calls a member, or the unknown member at an address.
    pub(super) fn call(
        &self,
        addr: SocketAddr,
        expected: (Option<MemberId>, Option<PublicKey>),
    ) -> Result<Ends, Trouble> {
        let talk = |stream| self.call_over(addr, expected, stream);
        let outcome = connect(&self.porter.lobby, addr, self.limits.dial_timeout, talk);
        outcome.ok_or(Trouble::Closed)??
    }

    fn call_over(
        &self,
        addr: SocketAddr,
        (id, key): (Option<MemberId>, Option<PublicKey>),
        stream: Arc<TcpStream>,
    ) -> Result<Ends, Trouble> {
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(stream, Vec::new(), addr);
        let mut timed = Timed::new(connection, self.clock, deadline);
        let sealed = match &self.keys {
            None => None,
            Some(keys) => Some(sealed::call(&mut timed, &keys.used()).map_err(Trouble::Key)?),
        };
        let mut parley = Parley::new(timed, sealed);
        let (term, group, life) = self.ask(|machine| {
            (machine.term(), machine.introduction().map(|it| it.group), machine.life())
        })?;
        let join = Join {
            sender_id: self.me.id,
            term,
            group,
            intent: Intent::Member,
            membership: vec![self.me.clone()],
            nonce: self.nonce(),
            life: Some(life),
        };
        parley.say(&Message::Join(join.clone()))?;
        let answer = parley.hear()?;
        let Message::JoinChallenge(challenge) = answer else {
            return Err(unexpected(&answer, None));
        };
        let JoinChallenge { sender_id, key: its_key, nonce, proof } = challenge;
        if let Some(id) = id.filter(|id| *id != sender_id) {
            let reason = format!("{sender_id} answers where {id} should");
            return Err(Trouble::Refuses(NackCode::Handshake, reason));
        }
        if key.is_some_and(|key| key != its_key) {
            let reason = format!("{sender_id} has another key now");
            return Err(Trouble::Refuses(NackCode::Handshake, reason));
        }
        let called = (sender_id, &its_key, &nonce);
        let sworn = statement(CHALLENGE, &join, &self.me, called, parley.binding);
        if !its_key.verifies(&sworn, &proof) {
            let reason = format!("{sender_id} does not prove its key");
            return Err(Trouble::Refuses(NackCode::Handshake, reason));
        }
        let sworn = statement(PROOF, &join, &self.me, called, parley.binding);
        let proof = self.keys_of_mine.sign(&sworn);
        parley.say(&Message::JoinProof(JoinProof { proof }))?;
        let answer = parley.hear()?;
        let Message::JoinAck(ack) = answer else {
            return Err(unexpected(&answer, Some(its_key)));
        };
        if join.group.is_some_and(|it| it != ack.group) {
            let reason = format!("{sender_id} belongs to another group");
            return Err(Trouble::Refused(NackCode::OtherGroup, reason, Some(its_key)));
        }
        let known = ack.membership.iter().find(|it| it.id == sender_id && it.key == its_key);
        let at = At::from(Endpoint::from(addr));
        let member = known.cloned().unwrap_or(Member { id: sender_id, at, key: its_key });
        Ok(parley.ends(member, Intent::Member, ack.life, Some(ack)))
    }

    fn nonce(&self) -> Nonce {
        Nonce::random(&mut self.rng.lock().expect("nothing under this lock can panic"))
    }
}

fn left_out(recovered: &Recovered, id: MemberId) -> String {
    format!(
        "{} has recovered the group without {id}, which was removed with its key; its log stays \
         as it is and is never put together with the group's: join anew, with --seed ADDRESS of a \
         member and a new --data and --log-dir, and send again what the group does not have",
        recovered.by
    )
}

fn unexpected(message: &Message, by: Option<PublicKey>) -> Trouble {
    if let Message::Nack(Nack { code, reason, .. }) = message {
        return Trouble::Refused(*code, reason.chars().take(400).collect(), by);
    }
    Trouble::Refuses(NackCode::Handshake, "it says something else in the handshake".to_owned())
}
