//! Words of the handshake of a rollout: `ENROLL` → `ENROLL_CHALLENGE` → `ENROLL_PROOF` →
//! `ENROLL_ACK`, or an `ENROLL_NACK` with the reason of a refusal.
//!
//! [`Greeting`] states the messages. The machine decides whether a caller may bear its name.

use crate::proto::rollout::{Enroll, EnrollAck, EnrollNack, Greeting, NodeId, Participant};
use std::net::{SocketAddr, ToSocketAddrs as _};

use super::dialer::Call;
use super::engine::Shared;
use super::service::{Peer, RolloutService};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::{Encoding, EncodingError, RolloutReader};
use crate::proto::sealed::{PlainOrSealed, SealError as KeyError};
use crate::runtime::engine::handshake::{Handshake, HandshakeError};
use crate::runtime::engine::service::HandshakeDialect;
use crate::runtime::engine::timed::DeadlineStream;

/// Longest reason that is passed on, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Reason why a handshake failed.
pub(super) type Error = HandshakeError<()>;

impl HandshakeDialect for RolloutService {
    const NAME: &'static str = "roll";
    const ABOUT: &'static str = "a rollout";
    const FORMS: &'static [Encoding] = &[Encoding::Line, Encoding::Frame];

    type Form = Encoding;
    type Reader = RolloutReader<PlainOrSealed<DeadlineStream>>;
    type Word = Greeting;
    type Code = ();
    type Target = Call;
    type Peer = Peer;
    type PeerId = NodeId;

    fn own_form() -> Encoding {
        Encoding::Line
    }

    fn form_of(dialect: Dialect) -> Option<Encoding> {
        if dialect == Dialect::Rollout {
            return Some(Encoding::Line);
        }
        (dialect == Dialect::Framed).then_some(Encoding::Frame)
    }

    fn reader(form: Encoding, incoming: PlainOrSealed<DeadlineStream>) -> Self::Reader {
        RolloutReader::new(form, incoming)
    }

    fn read_word(input: &mut Self::Reader) -> Result<Option<Greeting>, Error> {
        let Some(json) = input.read_text().map_err(unreadable)? else { return Ok(None) };
        let wrong = |err: serde_json::Error| {
            refused(format!("not a greeting: {err}").chars().take(REASON_CHARS_MAX).collect())
        };
        serde_json::from_slice(json).map(Some).map_err(wrong)
    }

    fn encode(form: Encoding, word: &Greeting) -> Vec<u8> {
        form.enclose(&json_of(word))
    }

    fn refusal(&self, (): &(), reason: &str) -> Greeting {
        nack(reason)
    }

    fn busy(&self, reason: &str) -> Greeting {
        nack(reason)
    }

    fn turn_away(&self, dialect: Dialect, form: Option<Encoding>) -> (Option<Vec<u8>>, Error) {
        match (dialect, form) {
            (_, Some(form)) => {
                let reason = "this node listens to holders of its cluster key only: use \
                              --cluster-key FILE";
                let words = Self::encode(form, &nack(reason));
                (Some(words), HandshakeError::Key(KeyError::WrongKey))
            }
            (Dialect::Native | Dialect::Unknown, None) => {
                let words = Self::encode(Encoding::Line, &nack("a connection begins with ENROLL"));
                (Some(words), HandshakeError::Dialect(dialect))
            }
            (_, None) => (None, HandshakeError::Dialect(dialect)),
        }
    }

    fn id_of(peer: &Peer) -> NodeId {
        peer.other.node_id.clone()
    }

    fn resolve(target: &Call) -> Option<SocketAddr> {
        target.at.to_socket_addrs().ok().and_then(|mut found| found.next())
    }

    fn port_of(target: &Call) -> u16 {
        target.at.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }

    fn identify(shared: &Shared, handshake: &mut Handshake<Self>) -> Result<Peer, Error> {
        let Greeting::Enroll(enroll) = handshake.read_word()? else {
            return Err(refuses("a connection begins with ENROLL"));
        };
        let challenge = enroll.challenge(
            &shared.service.me.node_id,
            &shared.keys_of_mine,
            shared.nonce(),
            handshake.binding,
        );
        handshake.write_word(&Greeting::EnrollChallenge(challenge.clone()))?;
        let Greeting::EnrollProof(proof) = handshake.read_word()? else {
            return Err(refuses("an ENROLL_CHALLENGE is answered by ENROLL_PROOF"));
        };
        if !enroll.is_proved_by(&proof, &challenge, handshake.binding) {
            return Err(refuses("the proof is not the key's"));
        }
        let caller = enroll.caller.clone();
        let answer = shared.ask(move |state| state.node_state.admit_caller(&caller))?;
        let genesis = answer.map_err(refused)?;
        handshake.write_word(&Greeting::EnrollAck(Box::new(EnrollAck { genesis })))?;
        Ok(Peer { other: enroll.caller, is_caller: true, joins: enroll.joins, genesis: None })
    }

    fn introduce(
        shared: &Shared,
        handshake: &mut Handshake<Self>,
        addr: SocketAddr,
        call: &Call,
    ) -> Result<Peer, Error> {
        let enroll =
            Enroll { caller: shared.service.me.clone(), nonce: shared.nonce(), joins: call.joins };
        handshake.write_word(&Greeting::Enroll(enroll.clone()))?;
        let answer = handshake.read_word()?;
        let Greeting::EnrollChallenge(challenge) = answer else { return Err(unexpected(&answer)) };
        let node = &challenge.node_id;
        if let Some(wanted) = call.node.as_ref().filter(|it| *it != node) {
            return Err(HandshakeError::Refuses(
                (),
                format!("{node} answers where {wanted} should"),
            ));
        }
        if challenge.key == shared.service.me.key {
            return Err(refuses("it is this node itself"));
        }
        if call.key.is_some_and(|key| key != challenge.key) {
            return Err(HandshakeError::Refuses((), format!("{node} has another key now")));
        }
        if !enroll.is_answered_by(&challenge, handshake.binding) {
            return Err(HandshakeError::Refuses((), format!("{node} does not prove its key")));
        }
        let proof = enroll.prove(&shared.keys_of_mine, &challenge, handshake.binding);
        handshake.write_word(&Greeting::EnrollProof(proof))?;
        let answer = handshake.read_word()?;
        let Greeting::EnrollAck(ack) = answer else { return Err(unexpected(&answer)) };
        let (node_id, key) = (challenge.node_id, challenge.key);
        let other = Participant { node_id, host: addr.ip().to_string(), port: addr.port(), key };
        let asked = other.clone();
        // The node that was called must own its name too.
        shared.ask(move |state| state.node_state.admit_caller(&asked))?.map_err(refused)?;
        Ok(Peer { other, is_caller: false, joins: false, genesis: ack.genesis })
    }
}

fn json_of(greeting: &Greeting) -> Vec<u8> {
    serde_json::to_vec(greeting)
        .expect("greetings are plain data with text keys, which always have a JSON form")
}

fn unreadable(err: EncodingError) -> Error {
    match err {
        EncodingError::Io(err) => HandshakeError::Io(err),
        EncodingError::TooLong
        | EncodingError::Empty
        | EncodingError::Truncated
        | EncodingError::Malformed { .. } => refused(err.to_string()),
    }
}

const fn refused(reason: String) -> Error {
    HandshakeError::Refuses((), reason)
}

fn refuses(reason: &str) -> Error {
    refused(reason.to_owned())
}

pub(super) fn nack(reason: &str) -> Greeting {
    Greeting::EnrollNack(EnrollNack { reason: reason.to_owned() })
}

fn unexpected(greeting: &Greeting) -> Error {
    if let Greeting::EnrollNack(EnrollNack { reason }) = greeting {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        return HandshakeError::Refused((), reason, None);
    }
    refuses("it says something else in the handshake")
}
