//! Words of the handshake of a Byzantine order.
//!
//! `ORDER_JOIN` → `ORDER_CHALLENGE` → `ORDER_PROOF` → `ORDER_ACK`, or an `ORDER_REFUSED`. Both ends
//! sign all that both have said, with the group and, on an encrypted connection, its binding: no
//! proof is worth anything elsewhere. The key decides whether the other end is a member.

use std::net::SocketAddr;

use super::engine::Shared;
use super::service::{OrderService, Peer, PeerProcess};
use crate::machine::bft::config::OBSERVERS_MAX;
use crate::model::{Binding, Nonce, PublicKey, SigningBytes};
use crate::proto::bft::OrderId;
use crate::proto::bft::handshake::{
    OrderAck, OrderChallenge, OrderJoin, OrderProof, OrderRefusal, OrderRefused,
};
use crate::proto::bft::line::{OrderReader, encode};
use crate::proto::bft::message::Message;
use crate::proto::chat::entry::{HostPort, Member, MemberId};
use crate::proto::dialect::Dialect;
use crate::proto::line::{self, LineError};
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::proto::sealed::{PlainOrSealed, SealError as KeyError};
use crate::runtime::engine::handshake::{Handshake, HandshakeError};
use crate::runtime::engine::service::HandshakeDialect;
use crate::runtime::engine::timed::DeadlineStream;

/// Longest reason of a refusal that is reported, in characters.
const REASON_CHARS: usize = 400;

/// Reason why a handshake failed.
pub(super) type Error = HandshakeError<OrderRefusal>;

/// Target of a call: a member that must answer with its key.
#[derive(Clone, Debug)]
pub(super) struct OrderTarget {
    pub(super) addr: SocketAddr,
    pub(super) id: MemberId,
    pub(super) key: PublicKey,
}

impl HandshakeDialect for OrderService {
    const NAME: &'static str = "order";
    const ABOUT: &'static str = "an order";
    const FORMS: &'static [()] = &[()];

    type Form = ();
    type Reader = OrderReader<PlainOrSealed<DeadlineStream>>;
    type Word = Message;
    type Code = OrderRefusal;
    type Target = OrderTarget;
    type Peer = Peer;
    type PeerId = PeerProcess;

    fn own_form() {}

    fn form_of(dialect: Dialect) -> Option<()> {
        (dialect == Dialect::Order).then_some(())
    }

    fn reader((): (), incoming: PlainOrSealed<DeadlineStream>) -> Self::Reader {
        OrderReader::new(incoming)
    }

    fn read_word(input: &mut Self::Reader) -> Result<Option<Message>, Error> {
        input.read().map_err(|err| match err {
            LineError::Io(err) => HandshakeError::Io(err),
            LineError::TooLong | LineError::Truncated | LineError::Malformed { .. } => {
                HandshakeError::Refuses(OrderRefusal::Malformed, err.to_string())
            }
        })
    }

    fn encode((): (), word: &Message) -> Vec<u8> {
        encode(word)
    }

    fn refusal(&self, code: &OrderRefusal, reason: &str) -> Message {
        Message::OrderRefused(OrderRefused { code: *code, reason: reason.to_owned() })
    }

    fn busy(&self, reason: &str) -> Message {
        self.refusal(&OrderRefusal::Busy, reason)
    }

    fn turn_away(&self, dialect: Dialect, form: Option<()>) -> (Option<Vec<u8>>, Error) {
        match (dialect, form) {
            (_, Some(())) => {
                let reason = "this member listens to holders of its cluster key only: use \
                              --cluster-key FILE";
                let words = encode(&self.refusal(&OrderRefusal::NoMember, reason));
                (Some(words), HandshakeError::Key(KeyError::WrongKey))
            }
            (Dialect::Sealed, None) => {
                let reason = "this member holds no cluster key: start it with --cluster-key FILE, \
                              or call without";
                let words = line::encode(&ErrorReply::new(ErrorCode::ClusterKey, reason).into());
                (Some(words), HandshakeError::Key(KeyError::WrongKey))
            }
            (_, None) => (None, HandshakeError::Dialect(dialect)),
        }
    }

    fn id_of(peer: &Peer) -> PeerProcess {
        peer.id
    }

    fn resolve(target: &OrderTarget) -> Option<SocketAddr> {
        Some(target.addr)
    }

    fn port_of(target: &OrderTarget) -> u16 {
        target.addr.port()
    }

    fn identify(shared: &Shared, handshake: &mut Handshake<Self>) -> Result<Peer, Error> {
        let Message::OrderJoin(join) = handshake.read_word()? else {
            return Err(refuses(OrderRefusal::Malformed, "a connection begins with ORDER_JOIN"));
        };
        let (me, my_key, group) =
            (shared.service.me, shared.keys_of_mine.public(), shared.service.group);
        if join.group != group {
            let reason = other_group(me, &group, join.sender_id, &join.group);
            return Err(HandshakeError::Refuses(OrderRefusal::OtherGroup, reason));
        }
        let nonce = shared.nonce();
        let called = (me, &my_key, &nonce);
        let proof =
            shared.keys_of_mine.sign(&statement(CHALLENGE, &join, called, handshake.binding));
        let challenge = OrderChallenge { sender_id: me, key: my_key, nonce, proof };
        handshake.write_word(&Message::OrderChallenge(challenge))?;
        let Message::OrderProof(OrderProof { proof }) = handshake.read_word()? else {
            let reason = "an ORDER_CHALLENGE is answered by ORDER_PROOF";
            return Err(refuses(OrderRefusal::Malformed, reason));
        };
        if !join.key.verifies(&statement(PROOF, &join, called, handshake.binding), &proof) {
            return Err(refuses(OrderRefusal::NoMember, "the proof is not the key's"));
        }
        shared.admit(&join)?;
        let ack = OrderAck { sender_id: me, process: shared.service.process };
        handshake.write_word(&Message::OrderAck(ack))?;
        let OrderJoin { key, process, .. } = join;
        Ok(Peer { id: PeerProcess { key, process }, is_ours: false })
    }

    fn introduce(
        shared: &Shared,
        handshake: &mut Handshake<Self>,
        _: SocketAddr,
        target: &OrderTarget,
    ) -> Result<Peer, Error> {
        let (me, group) = (shared.service.me, shared.service.group);
        let join = OrderJoin {
            sender_id: me,
            group,
            key: shared.keys_of_mine.public(),
            nonce: shared.nonce(),
            process: shared.service.process,
        };
        handshake.write_word(&Message::OrderJoin(join.clone()))?;
        let answer = handshake.read_word()?;
        let Message::OrderChallenge(challenge) = answer else {
            return Err(unexpected(&answer, None));
        };
        let OrderChallenge { sender_id, key, nonce, proof } = challenge;
        if (sender_id, key) != (target.id, target.key) {
            let (id, short) = (target.id, target.key.short());
            let reason = format!(
                "{sender_id} with the key {}… answers where {id} with the key {short}… should",
                key.short()
            );
            return Err(HandshakeError::Refuses(OrderRefusal::NoMember, reason));
        }
        let called = (sender_id, &key, &nonce);
        if !key.verifies(&statement(CHALLENGE, &join, called, handshake.binding), &proof) {
            let reason = format!("{sender_id} does not prove its key");
            return Err(HandshakeError::Refuses(OrderRefusal::NoMember, reason));
        }
        let sworn = statement(PROOF, &join, called, handshake.binding);
        let proof = shared.keys_of_mine.sign(&sworn);
        handshake.write_word(&Message::OrderProof(OrderProof { proof }))?;
        let answer = handshake.read_word()?;
        let Message::OrderAck(OrderAck { process, .. }) = answer else {
            return Err(unexpected(&answer, Some(key)));
        };
        let id = PeerProcess { key, process };
        shared.refuse_double(&id, target.id)?;
        Ok(Peer { id, is_ours: true })
    }
}

impl Shared {
    /// Decides whether a caller that has proved its key may stay.
    fn admit(&self, join: &OrderJoin) -> Result<(), Error> {
        let OrderJoin { sender_id, key, process, .. } = *join;
        if key == self.keys_of_mine.public() {
            let reason = self.running_at(self.service.me);
            return Err(if process == self.service.process {
                refuses(OrderRefusal::NoMember, "this is the caller itself")
            } else {
                HandshakeError::Refuses(OrderRefusal::Doubled, reason)
            });
        }
        let members: Vec<_> = self.service.members().values().map(|it| (it.id, it.key)).collect();
        let is_member = members.contains(&(sender_id, key));
        if !is_member && members.iter().any(|(id, its)| *id == sender_id || *its == key) {
            let reason = format!("the id or the key of {sender_id} is another member's here");
            return Err(HandshakeError::Refuses(OrderRefusal::NoMember, reason));
        }
        self.refuse_double(&PeerProcess { key, process }, sender_id)?;
        let is_observer = |id: &PeerProcess| members.iter().all(|(_, key)| *key != id.key);
        let observers = self.peers().iter().filter(|(_, id)| is_observer(id)).count();
        if !is_member && observers >= OBSERVERS_MAX {
            let reason = "there is no room here for more that only follow the order";
            return Err(refuses(OrderRefusal::Busy, reason));
        }
        Ok(())
    }

    /// Refuses a process whose key another process uses over an open connection.
    fn refuse_double(&self, other: &PeerProcess, id: MemberId) -> Result<(), Error> {
        let is_double = |it: &PeerProcess| it.key == other.key && it.process != other.process;
        if self.peers().iter().any(|(_, it)| is_double(it)) {
            return Err(HandshakeError::Refuses(OrderRefusal::Doubled, self.running_at(id)));
        }
        Ok(())
    }

    fn running_at(&self, id: MemberId) -> String {
        match self.service.members().get(&id) {
            Some(Member { at: HostPort { host, port }, .. }) => {
                format!("this member is running at {}", SocketAddr::new(*host, *port))
            }
            None => "this key is in use by another process".to_owned(),
        }
    }
}

fn refuses(code: OrderRefusal, reason: &str) -> Error {
    HandshakeError::Refuses(code, reason.to_owned())
}

fn other_group(me: MemberId, mine: &OrderId, caller: MemberId, its: &OrderId) -> String {
    format!(
        "{caller} is of the group {its}, and {me} of the group {mine}: all members need the same \
         roster and salt"
    )
}

/// Statement that both ends sign: everything that was sent, with sender, receiver and connection.
pub(super) fn statement(
    domain: &str,
    join: &OrderJoin,
    called: (MemberId, &PublicKey, &Nonce),
    binding: Option<Binding>,
) -> SigningBytes {
    let OrderJoin { sender_id, group, key, nonce, process } = join;
    let binding: &[u8] = binding.as_ref().map_or(&[], |it| &it.0);
    SigningBytes::new(domain)
        .number(sender_id.0.into())
        .key(key)
        .bytes(&group.0)
        .nonce(nonce)
        .number(*process)
        .number(called.0.0.into())
        .key(called.1)
        .nonce(called.2)
        .bytes(binding)
}

pub(super) const CHALLENGE: &str = "folkmoot/bft/challenge/1";
pub(super) const PROOF: &str = "folkmoot/bft/proof/1";

fn unexpected(message: &Message, by: Option<PublicKey>) -> Error {
    if let Message::OrderRefused(OrderRefused { code, reason }) = message {
        let reason = reason.chars().take(REASON_CHARS).collect();
        return HandshakeError::Refused(*code, reason, by);
    }
    refuses(OrderRefusal::Malformed, "it says something else in the handshake")
}
