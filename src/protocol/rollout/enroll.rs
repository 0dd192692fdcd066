//! How two nodes prove to each other who they are, before the first message about rollouts.
//!
//! `ENROLL` → `ENROLL_CHALLENGE` → `ENROLL_PROOF` → `ENROLL_ACK`, or an `ENROLL_NACK` that says why
//! not. Each end signs what both have said, so that neither can be played to somebody else. Whose
//! key may bear which name, the roster says.

use serde::{Deserialize, Serialize};

use super::ids::NodeId;
use super::roster::{Participant, Roster};
use super::state::RoutingState;
use crate::model::{KeyPair, Nonce, PublicKey, Signature, SigningBytes};
use crate::protocol::Binding;

const CHALLENGE: &str = "folkmoot/rollout/challenge/1";
const PROOF: &str = "folkmoot/rollout/proof/1";

/// What is said first; the same JSON on a line and in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Greeting {
    /// This is who calls.
    Enroll(Enroll),
    /// This is who was called; prove yourself.
    EnrollChallenge(EnrollChallenge),
    /// Here.
    EnrollProof(EnrollProof),
    /// You are heard.
    EnrollAck(Box<EnrollAck>),
    /// You are not.
    EnrollNack(EnrollNack),
}

/// `ENROLL`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// Who calls, where it is called, and its key.
    #[serde(flatten)]
    pub caller: Participant,
    /// Fresh.
    pub nonce: Nonce,
    /// Whether it asks to be added to the roster.
    #[serde(default)]
    pub joins: bool,
}

/// `ENROLL_CHALLENGE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollChallenge {
    /// Who was called.
    pub node_id: NodeId,
    /// Its key.
    pub key: PublicKey,
    /// Fresh.
    pub nonce: Nonce,
    /// That it holds the key.
    pub proof: Signature,
}

/// `ENROLL_PROOF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollProof {
    /// That the caller holds its key.
    pub proof: Signature,
}

/// `ENROLL_ACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollAck {
    /// What the called one's history begins with, if it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis: Option<Genesis>,
}

/// `ENROLL_NACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollNack {
    /// For people.
    pub reason: String,
}

/// What a history begins with, the same on every node for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The first roster.
    pub roster: Roster,
    /// Version 1.
    pub state: RoutingState,
}

impl Genesis {
    /// Whether it is a beginning: its state is version 1, and no transaction's.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.state.version == 1 && self.state.txid.is_none()
    }
}

impl Enroll {
    /// Everything that was said, by whom, to whom, and over which connection.
    fn statement(
        &self,
        domain: &str,
        called: (&NodeId, &PublicKey, &Nonce),
        binding: Option<Binding>,
    ) -> SigningBytes {
        let binding: &[u8] = binding.as_ref().map_or(&[], |it| &it.0);
        let Participant { node_id, host, port, key } = &self.caller;
        SigningBytes::new(domain)
            .text(node_id.as_str())
            .text(host)
            .number((*port).into())
            .key(key)
            .nonce(&self.nonce)
            .number(u64::from(self.joins))
            .text(called.0.as_str())
            .key(called.1)
            .nonce(called.2)
            .bytes(binding)
    }

    /// The answer of `me`, over a connection with this binding.
    #[must_use]
    pub fn challenge(
        &self,
        me: &NodeId,
        keys: &KeyPair,
        nonce: Nonce,
        binding: Option<Binding>,
    ) -> EnrollChallenge {
        let key = keys.public();
        let proof = keys.sign(&self.statement(CHALLENGE, (me, &key, &nonce), binding));
        EnrollChallenge { node_id: me.clone(), key, nonce, proof }
    }

    /// Whether whoever answered holds the key that it names.
    #[must_use]
    pub fn is_answered_by(&self, challenge: &EnrollChallenge, binding: Option<Binding>) -> bool {
        let EnrollChallenge { node_id, key, nonce, proof } = challenge;
        key.verifies(&self.statement(CHALLENGE, (node_id, key, nonce), binding), proof)
    }

    /// The caller's proof.
    #[must_use]
    pub fn prove(
        &self,
        keys: &KeyPair,
        challenge: &EnrollChallenge,
        binding: Option<Binding>,
    ) -> EnrollProof {
        let EnrollChallenge { node_id, key, nonce, .. } = challenge;
        EnrollProof { proof: keys.sign(&self.statement(PROOF, (node_id, key, nonce), binding)) }
    }

    /// Whether the caller holds its key.
    #[must_use]
    pub fn is_proved_by(
        &self,
        proof: &EnrollProof,
        challenge: &EnrollChallenge,
        binding: Option<Binding>,
    ) -> bool {
        let EnrollChallenge { node_id, key, nonce, .. } = challenge;
        let statement = self.statement(PROOF, (node_id, key, nonce), binding);
        self.caller.key.verifies(&statement, &proof.proof)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::Rng;

    #[test]
    fn a_greeting_cannot_be_played_to_somebody_else() {
        let (caller, called) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]));
        let mut rng = Rng::seed_from_u64(1);
        let node = |text: &str| text.parse::<NodeId>().unwrap();
        let enroll = Enroll {
            caller: Participant {
                node_id: node("node-a"),
                host: "127.0.0.1".to_owned(),
                port: 60_001,
                key: caller.public(),
            },
            nonce: Nonce::random(&mut rng),
            joins: false,
        };
        let challenge = enroll.challenge(&node("node-b"), &called, Nonce::random(&mut rng), None);
        assert!(enroll.is_answered_by(&challenge, None));
        let proof = enroll.prove(&caller, &challenge, None);
        assert!(enroll.is_proved_by(&proof, &challenge, None));
        let other = EnrollChallenge { node_id: node("node-c"), ..challenge.clone() };
        assert!(!enroll.is_answered_by(&other, None), "another name");
        assert!(!enroll.is_proved_by(&proof, &other, None));
        let asks = Enroll { joins: true, ..enroll.clone() };
        assert!(!asks.is_proved_by(&proof, &challenge, None), "another question");
        assert!(!enroll.is_proved_by(&proof, &challenge, Some(Binding([5; 32]))));
    }
}
