//! Words of the handshake of a chat.
//!
//! `JOIN` → `JOIN_CHALLENGE` → `JOIN_PROOF` → `JOIN_ACK`, or a `NACK` with the reason of a refusal.
//! The machine decides whether the caller may join.

use crate::model::Binding;
use crate::proto::chat::entry::{HostPort, Member, MemberId, Recovered, Term};
use crate::proto::chat::message::{
    Join, JoinAck, JoinChallenge, JoinIntent, JoinProof, Message, Nack, NackCode,
};
use crate::proto::refusal::{ErrorCode, ErrorReply};
use std::net::SocketAddr;

use super::dialer::CallTarget;
use super::engine::Shared;
use super::service::{ChatService, Peer};
use crate::model::{Endpoint, Nonce, PublicKey, SigningBytes};
use crate::proto::chat::{ChatReader, encode};
use crate::proto::dialect::Dialect;
use crate::proto::line::{self, LineError};
use crate::proto::sealed::{PlainOrSealed, SealError as KeyError};
use crate::runtime::engine::handshake::{Handshake, HandshakeError};
use crate::runtime::engine::service::HandshakeDialect;
use crate::runtime::engine::timed::DeadlineStream;

/// Reason why a handshake failed.
pub(super) type Error = HandshakeError<NackCode>;

impl HandshakeDialect for ChatService {
    const NAME: &'static str = "chat";
    const ABOUT: &'static str = "a chat";
    const FORMS: &'static [()] = &[()];

    type Form = ();
    type Reader = ChatReader<PlainOrSealed<DeadlineStream>>;
    type Word = Message;
    type Code = NackCode;
    type Target = CallTarget;
    type Peer = Peer;
    type PeerId = (MemberId, bool);

    fn own_form() {}

    fn form_of(dialect: Dialect) -> Option<()> {
        (dialect == Dialect::Chat).then_some(())
    }

    fn reader((): (), incoming: PlainOrSealed<DeadlineStream>) -> Self::Reader {
        ChatReader::new(incoming)
    }

    fn read_word(input: &mut Self::Reader) -> Result<Option<Message>, Error> {
        input.read().map_err(|err| match err {
            LineError::Io(err) => HandshakeError::Io(err),
            LineError::TooLong | LineError::Truncated | LineError::Malformed { .. } => {
                HandshakeError::Refuses(NackCode::Malformed, err.to_string())
            }
        })
    }

    fn encode((): (), word: &Message) -> Vec<u8> {
        encode(word)
    }

    fn refusal(&self, code: &NackCode, reason: &str) -> Message {
        let (sender_id, term, reason) = (self.me.id, Term(0), reason.to_owned());
        let code = *code;
        Message::Nack(Nack { sender_id, term, code, leader_id: None, msg_id: None, reason })
    }

    fn busy(&self, reason: &str) -> Message {
        self.refusal(&NackCode::Busy, reason)
    }

    fn turn_away(&self, dialect: Dialect, form: Option<()>) -> (Option<Vec<u8>>, Error) {
        match (dialect, form) {
            (_, Some(())) => {
                let reason = "this member listens to holders of its cluster key only: use \
                              --cluster-key FILE";
                let words = encode(&self.refusal(&NackCode::Handshake, reason));
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

    fn id_of(peer: &Peer) -> (MemberId, bool) {
        (peer.member.id, peer.intent == JoinIntent::Member)
    }

    fn resolve(target: &CallTarget) -> Option<SocketAddr> {
        Some(target.addr)
    }

    fn port_of(target: &CallTarget) -> u16 {
        target.addr.port()
    }

    fn identify(shared: &Shared, handshake: &mut Handshake<Self>) -> Result<Peer, Error> {
        let Message::Join(join) = handshake.read_word()? else {
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
        let my_key = shared.keys_of_mine.public();
        let is_mine = caller.key == my_key && caller.id == shared.service.me.id;
        match join.intent {
            JoinIntent::Client if !is_mine => {
                let reason = "a client calls with the id and the key of the member that it calls";
                return Err(refuses(NackCode::NotAllowed, reason));
            }
            JoinIntent::Member if caller.key == my_key => {
                return Err(refuses(NackCode::NotAllowed, "this is the caller itself"));
            }
            JoinIntent::Client | JoinIntent::Member => {}
        }
        let nonce = shared.nonce();
        let called = (shared.service.me.id, &my_key, &nonce);
        let sworn = statement(CHALLENGE, &join, &caller, called, handshake.binding);
        handshake.write_word(&Message::JoinChallenge(JoinChallenge {
            sender_id: shared.service.me.id,
            key: my_key,
            nonce,
            proof: shared.keys_of_mine.sign(&sworn),
        }))?;
        let Message::JoinProof(JoinProof { proof }) = handshake.read_word()? else {
            return Err(refuses(NackCode::Handshake, "a JOIN_CHALLENGE is answered by JOIN_PROOF"));
        };
        let sworn = statement(PROOF, &join, &caller, called, handshake.binding);
        if !caller.key.verifies(&sworn, &proof) {
            return Err(refuses(NackCode::Handshake, "the proof is not the key's"));
        }
        handshake.write_word(&Message::JoinAck(shared.admit(&caller, &join)?))?;
        Ok(Peer { member: caller, intent: join.intent, life: join.life, ack: None })
    }

    fn introduce(
        shared: &Shared,
        handshake: &mut Handshake<Self>,
        addr: SocketAddr,
        target: &CallTarget,
    ) -> Result<Peer, Error> {
        let CallTarget { id, key, .. } = *target;
        let (term, group, life) = shared.ask(|state| {
            (state.group.term(), state.group.introduction().map(|it| it.group), state.group.life())
        })?;
        let join = Join {
            sender_id: shared.service.me.id,
            term,
            group,
            intent: JoinIntent::Member,
            membership: vec![shared.service.me.clone()],
            nonce: shared.nonce(),
            life: Some(life),
        };
        handshake.write_word(&Message::Join(join.clone()))?;
        let answer = handshake.read_word()?;
        let Message::JoinChallenge(challenge) = answer else {
            return Err(unexpected(&answer, None));
        };
        let JoinChallenge { sender_id, key: its_key, nonce, proof } = challenge;
        if let Some(id) = id.filter(|id| *id != sender_id) {
            let reason = format!("{sender_id} answers where {id} should");
            return Err(HandshakeError::Refuses(NackCode::Handshake, reason));
        }
        if key.is_some_and(|key| key != its_key) {
            let reason = format!("{sender_id} has another key now");
            return Err(HandshakeError::Refuses(NackCode::Handshake, reason));
        }
        let called = (sender_id, &its_key, &nonce);
        let sworn = statement(CHALLENGE, &join, &shared.service.me, called, handshake.binding);
        if !its_key.verifies(&sworn, &proof) {
            let reason = format!("{sender_id} does not prove its key");
            return Err(HandshakeError::Refuses(NackCode::Handshake, reason));
        }
        let sworn = statement(PROOF, &join, &shared.service.me, called, handshake.binding);
        let proof = shared.keys_of_mine.sign(&sworn);
        handshake.write_word(&Message::JoinProof(JoinProof { proof }))?;
        let answer = handshake.read_word()?;
        let Message::JoinAck(ack) = answer else {
            return Err(unexpected(&answer, Some(its_key)));
        };
        if join.group.is_some_and(|it| it != ack.group) {
            let reason = format!("{sender_id} belongs to another group");
            return Err(HandshakeError::Refused(NackCode::OtherGroup, reason, Some(its_key)));
        }
        let known = ack.membership.iter().find(|it| it.id == sender_id && it.key == its_key);
        let at = HostPort::from(Endpoint::from(addr));
        let member = known.cloned().unwrap_or(Member { id: sender_id, at, key: its_key });
        Ok(Peer { member, intent: JoinIntent::Member, life: ack.life, ack: Some(ack) })
    }
}

impl Shared {
    /// Asks the machine whether a caller may stay.
    fn admit(&self, caller: &Member, join: &Join) -> Result<JoinAck, Error> {
        if join.intent == JoinIntent::Member
            && self.service.key_filter.as_ref().is_some_and(|key_filter| !key_filter(&caller.key))
        {
            return Err(refuses(NackCode::NotAllowed, "this key may not be a member here"));
        }
        let (asked, group, intent) = (caller.clone(), join.group, join.intent);
        let answer = self.ask(move |state| {
            if intent == JoinIntent::Member {
                state.group.admits(&asked, group)?;
            }
            Ok(state.group.introduction())
        })?;
        match answer {
            Ok(Some(ack)) => Ok(ack),
            Ok(None) => {
                let reason = "this member is in no group itself yet; try again later";
                Err(refuses(NackCode::Busy, reason))
            }
            Err(NackCode::Removed) => {
                let recovered = self.ask(|state| state.group.recovered().cloned())?;
                let reason = match recovered.filter(|it| it.left_out.contains(&caller.id)) {
                    Some(it) => left_out(&it, caller.id),
                    None => self.why_not(NackCode::Removed, caller),
                };
                Err(HandshakeError::Refuses(NackCode::Removed, reason))
            }
            Err(code) => Err(HandshakeError::Refuses(code, self.why_not(code, caller))),
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
                "{id} belongs to another group than {}; give it another --log-dir to join this \
                 one, or move its files {id}.* out of it",
                self.service.me.id
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
}

fn refuses(code: NackCode, reason: &str) -> Error {
    HandshakeError::Refuses(code, reason.to_owned())
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
        JoinIntent::Member => 0,
        JoinIntent::Client => 1,
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

fn left_out(recovered: &Recovered, id: MemberId) -> String {
    format!(
        "{} has recovered the group without {id}, which was removed with its key; its log stays \
         as it is and is never put together with the group's: join anew, with --seed ADDRESS of a \
         member and a new --data and --log-dir, and send again what the group does not have",
        recovered.by
    )
}

fn unexpected(message: &Message, by: Option<PublicKey>) -> Error {
    if let Message::Nack(Nack { code, reason, .. }) = message {
        return HandshakeError::Refused(*code, reason.chars().take(400).collect(), by);
    }
    HandshakeError::Refuses(
        NackCode::Handshake,
        "it says something else in the handshake".to_owned(),
    )
}
