//! Mutual authentication of two nodes, before the first message about rollouts.
//!
//! `ENROLL` → `ENROLL_CHALLENGE` → `ENROLL_PROOF` → `ENROLL_ACK`, or an `ENROLL_NACK` with the
//! reason. Each end signs what both have said, so that neither greeting can be replayed to another
//! node. The roster says which key may bear which name.

use serde::{Deserialize, Serialize};

use super::ids::NodeId;
use super::roster::{Participant, Roster};
use super::state::RoutingState;
use crate::model::{Binding, KeyPair, Nonce, PublicKey, Signature, SigningBytes};

const CHALLENGE: &str = "folkmoot/rollout/challenge/1";
const PROOF: &str = "folkmoot/rollout/proof/1";

/// A message of the greeting; the same JSON on a line and in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Greeting {
    /// The caller introduces itself.
    Enroll(Enroll),
    /// The called node introduces itself, proves its key and asks for the caller's proof.
    EnrollChallenge(EnrollChallenge),
    /// The caller proves its key.
    EnrollProof(EnrollProof),
    /// The called node accepts the caller.
    EnrollAck(Box<EnrollAck>),
    /// The called node refuses the caller.
    EnrollNack(EnrollNack),
}

/// `ENROLL`: the caller introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// Name, place and key of the caller.
    #[serde(flatten)]
    pub caller: Participant,
    /// Random number of the caller, fresh for each greeting.
    pub nonce: Nonce,
    /// True if the caller asks to be added to the roster.
    #[serde(default)]
    pub joins: bool,
}

/// `ENROLL_CHALLENGE`: the called node introduces itself and proves its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollChallenge {
    /// Name of the called node.
    pub node_id: NodeId,
    /// Key of the called node.
    pub key: PublicKey,
    /// Random number of the called node, fresh for each greeting.
    pub nonce: Nonce,
    /// Proof that the called node holds its key.
    pub proof: Signature,
}

/// `ENROLL_PROOF`: the caller proves its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollProof {
    /// Proof that the caller holds its key.
    pub proof: Signature,
}

/// `ENROLL_ACK`: the called node accepts the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollAck {
    /// Beginning of the called node's history, if it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis: Option<Genesis>,
}

/// `ENROLL_NACK`: the called node refuses the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollNack {
    /// Reason, for people.
    pub reason: String,
}

/// Beginning of a history, the same on every node for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The first roster.
    pub roster: Roster,
    /// State of version 1.
    pub state: RoutingState,
}

impl Genesis {
    /// True if this is a beginning: its state is version 1, and no transaction's.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.state.version == 1 && self.state.txid.is_none()
    }
}

impl Enroll {
    /// Text that both proofs sign: both ends with their keys and nonces, and the connection's
    /// binding.
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

    /// Returns the challenge of `me`, over a connection with this binding.
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

    /// True if the sender of the challenge holds the key that it names.
    #[must_use]
    pub fn is_answered_by(&self, challenge: &EnrollChallenge, binding: Option<Binding>) -> bool {
        let EnrollChallenge { node_id, key, nonce, proof } = challenge;
        key.verifies(&self.statement(CHALLENGE, (node_id, key, nonce), binding), proof)
    }

    /// Returns the caller's proof.
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

    /// True if the caller holds its key.
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
