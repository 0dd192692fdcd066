//! Messages of the handshake, and the statements that each side signs in them.

use serde::{Deserialize, Serialize};

use super::VERSION;
use crate::machine::Binding;
use crate::machine::membership::certificate::{Admission, Subject};
use crate::model::{Endpoint, Incarnation, Nonce, PublicKey, SeedId, Signature, SigningBytes};

/// Greatest length of a fleet's name, in bytes.
pub const FLEET_NAME_MAX: usize = 64;

/// Number of votes in a card's certificate, and of seeds whose keys it may name: as many seeds as
/// can be configured. More would only be kept in memory until the card is judged.
const CARD_SEEDS_MAX: usize = 64;

/// Card by which a node introduces itself in the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Number of the seed, if the node is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedId>,
    /// Address on which the node listens.
    pub endpoint: Endpoint,
    /// Incarnation of the node's life.
    pub incarnation: Incarnation,
    /// Public key of the node.
    pub key: PublicKey,
    /// Number of the node's neighbors: the weight for preferential attachment (O2).
    pub degree: u32,
    /// Endpoints of the neighbors.
    #[serde(default)]
    pub neighbors: Vec<Endpoint>,
    /// Certificate of the node's admission, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Admission>,
    /// Seed keys that the node knows, if it is a seed: hints, never trusted from one seed alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seed_keys: Vec<SeedKey>,
    /// Digests of the addresses in the node's list of seeds: each the first 32 bits of a SHA-256.
    /// The order of the list is not part of it. Empty in a fleet without seeds and in probes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u32>,
    /// Name of the node's fleet, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
}

/// A seed's key as another node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedKey {
    /// Number of the seed in the list of the node that states the key.
    pub seed: SeedId,
    /// Public key of the seed.
    pub key: PublicKey,
    /// Address on which the seed listens. Lists may have another order, so this goes before the
    /// number; earlier programs left it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Endpoint>,
}

impl Card {
    /// Greatest number of neighbors that a card may name: as many as a member may have.
    pub const NEIGHBORS_MAX: usize = 256;

    /// Creates the card of a peer in this life, without neighbors, certificate and lists.
    pub const fn new(life: Subject) -> Self {
        Self {
            seed: None,
            endpoint: life.endpoint,
            incarnation: life.incarnation,
            key: life.key,
            degree: 0,
            neighbors: Vec::new(),
            certificate: None,
            seed_keys: Vec::new(),
            seeds: Vec::new(),
            fleet: None,
        }
    }

    /// The life for which the card speaks.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// Returns the limit that this card exceeds, in words.
    pub(super) fn excess(&self) -> Option<String> {
        let votes = self.certificate.as_ref().map_or(0, |proof| proof.votes.len());
        if self.neighbors.len() > Self::NEIGHBORS_MAX {
            Some(format!("a card names at most {} neighbors", Self::NEIGHBORS_MAX))
        } else if [self.seeds.len(), self.seed_keys.len(), votes]
            .iter()
            .any(|it| *it > CARD_SEEDS_MAX)
        {
            Some(format!("a card has digests, keys and votes of at most {CARD_SEEDS_MAX} seeds"))
        } else if self.fleet.as_ref().is_some_and(|name| name.len() > FLEET_NAME_MAX) {
            Some(format!("a fleet's name has at most {FLEET_NAME_MAX} bytes"))
        } else {
            None
        }
    }

    /// The reason why the owner of the `own` card does not talk with the owner of this one.
    pub(super) fn objection(&self, own: &Self) -> Option<String> {
        self.excess().or_else(|| self.own_key_objection(own)).or_else(|| self.fleet_objection(own))
    }

    /// The objection to a node of another fleet: two fleets stay two, also when an address of one
    /// is given to a node of the other.
    pub(super) fn fleet_objection(&self, own: &Self) -> Option<String> {
        let (theirs, ours) = (self.fleet.as_ref()?, own.fleet.as_ref()?);
        (theirs != ours).then(|| {
            format!(
                "{} belongs to the fleet {theirs:?}, {} to {ours:?}; --fleet NAME says to which",
                self.endpoint, own.endpoint
            )
        })
    }

    /// The objection to a caller's card that shows the key of the `own` card: the caller is this
    /// node itself, or one of the two is a seed, which its key has to name. Two peers with one key
    /// are two members.
    fn own_key_objection(&self, own: &Self) -> Option<String> {
        if self.key != own.key {
            return None;
        }
        let (here, there) = (own.endpoint, self.endpoint);
        if here == there {
            return Some("this is my own key: you called yourself".to_owned());
        }
        (self.seed.is_some() || own.seed.is_some()).then(|| {
            format!(
                "{here} and {there} have the same key: the data directory of one is a copy of the \
                 other's; stop one of the two, delete its identity.key and start it again"
            )
        })
    }

    /// The statement by which the card's owner answers `nonce`, put by the holder of `challenger`.
    /// The caller and the called node sign different domains, so that an answer cannot be
    /// reflected; both sign the encrypted connection, if it is one, so that an answer cannot be
    /// carried to another.
    pub(super) fn proof_bytes(
        &self,
        domain: &str,
        nonce: &Nonce,
        challenger: &PublicKey,
        binding: Option<Binding>,
    ) -> SigningBytes {
        let statement = SigningBytes::new(domain)
            .number(u64::from(VERSION))
            .number(self.seed.map_or(0, |seed| u64::from(seed.0)))
            .endpoint(self.endpoint)
            .incarnation(self.incarnation)
            .key(&self.key)
            .nonce(nonce)
            .key(challenger);
        match binding {
            None => statement,
            Some(binding) => statement.bytes(&binding.0),
        }
    }
}

/// Domain of the called node's signature.
pub(super) const CALLED: &str = "folkmoot/hello-ack/1";
/// Domain of the caller's signature.
pub(super) const CALLER: &str = "folkmoot/hello-proof/1";

/// Purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// A lasting link.
    Link,
    /// A link for one question and its answer, closed by the caller, or after a short while.
    Errand,
    /// Only the proof that the called node is there.
    Probe,
    /// A link for direct messages, kept while they come; its ends do not become neighbors by it.
    Direct,
}

/// The first line of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the dialect, [`VERSION`].
    pub version: u16,
    /// Purpose of the call.
    pub intent: Intent,
    /// Challenge for the called node.
    pub nonce: Nonce,
    /// Card of the caller.
    #[serde(flatten)]
    pub card: Card,
}

/// The called node's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// Version of the dialect, [`VERSION`].
    pub version: u16,
    /// Challenge for the caller.
    pub nonce: Nonce,
    /// Signed answer to the caller's challenge.
    pub proof: Signature,
    /// Card of the called node.
    #[serde(flatten)]
    pub card: Card,
}

/// The caller's answer; after it the link is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloProof {
    /// Signed answer to the called node's challenge.
    pub proof: Signature,
}

/// The last message on an open link that its sender closes on purpose. Its receiver has no reason
/// to suspect the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Reason in words, for people.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;

    use super::super::{CallError, Config, Event, Session};
    use super::*;
    use crate::machine::message::Message;
    use crate::machine::{Effect, Effects, LinkId, NodeCall, PingHost, Ticket};
    use crate::model::{KeyPair, Rng};

    fn session(number: u8) -> Session {
        let keys = KeyPair::from_secret([number; 32]);
        let card = Card::new(Subject {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), u16::from(number)),
            incarnation: Incarnation(1),
            key: keys.public(),
        });
        Session::new(Config::default(), keys, card, Rng::seed_from_u64(number.into()))
    }

    fn sent(fx: &mut Effects<Session>) -> (Option<Message>, Vec<Event>) {
        let (mut msg, mut events) = (None, Vec::new());
        for effect in fx.drain() {
            match effect {
                Effect::Send { msg: it, .. } => msg = Some(it),
                Effect::Emit(event) => events.push(event),
                Effect::Dial(NodeCall { .. })
                | Effect::SendAll { .. }
                | Effect::Hangup { .. }
                | Effect::Extra(PingHost { .. })
                | Effect::SetTimer { .. }
                | Effect::StopTimer(_)
                | Effect::Persist(_) => {}
            }
        }
        (msg, events)
    }

    /// Runs a handshake between two sessions over connections with the given bindings; returns the
    /// events of the caller and of the called node.
    fn shake(near: Option<Binding>, far: Option<Binding>) -> (Vec<Event>, Vec<Event>) {
        let (mut caller, mut called) = (session(1), session(2));
        let (to, link) = (called.card().endpoint, LinkId(1));
        let mut fx = Effects::default();
        caller.call(to, Intent::Link, Duration::from_secs(1), &mut fx);
        called.on_accepted(link, to.ip(), far, &mut Effects::default());
        caller.on_dialed(Ticket(1), link, near, &mut fx);
        called.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        caller.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        let (proof, near) = sent(&mut fx);
        let Some(proof) = proof else { return (near, Vec::new()) };
        called.on_received(link, proof, &mut fx);
        (near, sent(&mut fx).1)
    }

    #[test]
    fn both_ends_of_one_connection_believe_each_other() {
        for binding in [None, Some(Binding([7; 32]))] {
            let (near, far) = shake(binding, binding);
            assert!(matches!(near[..], [Event::Opened { dialed: true, .. }]), "{near:?}");
            assert!(matches!(far[..], [Event::Opened { dialed: false, .. }]), "{far:?}");
        }
    }

    /// Lets one call the other for an errand; whether it was taken.
    fn errand(caller: &mut Session, called: &mut Session, number: u64) -> bool {
        let (to, link, mut fx) = (called.card().endpoint, LinkId(number), Effects::default());
        caller.call(to, Intent::Errand, Duration::from_secs(1), &mut fx);
        called.on_accepted(link, to.ip(), None, &mut Effects::default());
        let dialed = fx.drain().find_map(|effect| {
            let Effect::Dial(NodeCall { ticket, .. }) = effect else { return None };
            Some(ticket)
        });
        caller.on_dialed(dialed.unwrap(), link, None, &mut fx);
        called.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        caller.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        called.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        matches!(sent(&mut fx).1[..], [Event::Opened { .. }])
    }

    #[test]
    fn errands_are_counted_by_the_key_and_not_by_the_endpoint_that_is_claimed() {
        let (mut honest, mut called, mut liar) = (session(1), session(2), session(3));
        liar.card_mut().endpoint = honest.card().endpoint;
        assert!((1..=8).all(|number| errand(&mut liar, &mut called, number)));
        assert!(!errand(&mut liar, &mut called, 9), "no more of one key");
        assert!(errand(&mut honest, &mut called, 10));
    }

    #[test]
    fn a_proof_does_not_hold_on_another_connection() {
        let (one, other) = (Some(Binding([7; 32])), Some(Binding([8; 32])));
        for (near, far) in [(one, other), (one, None), (None, one)] {
            let (near, far) = shake(near, far);
            let failed = matches!(near[..], [Event::Failed { error: CallError::BadProof, .. }]);
            assert!(failed && far.is_empty(), "{near:?} {far:?}");
        }
    }
}
