//! Strangers that shake hands: true proofs of a key of their own, under any name.

use std::net::IpAddr;

use folkmoot::model::{Endpoint, Incarnation, KeyPair, Nonce, Rng, SigningBytes};
use folkmoot::node::Node;
use folkmoot::proto::hello::{Hello, HelloProof, Intent, NodeInfo, VERSION};
use folkmoot::proto::message::Message;
use folkmoot::sim::{Intruder, IntruderState, World};
use rand::SeedableRng as _;

/// Where they call from.
const FROM: [u8; 4] = [10, 9, 9, 9];

/// Strangers with one key.
pub(crate) struct Callers {
    keys: KeyPair,
    /// Calls under way, and whether the proof was sent.
    calls: Vec<(Intruder, NodeInfo, bool)>,
}

impl Callers {
    pub(crate) fn new(keys: KeyPair) -> Self {
        Self { keys, calls: Vec::new() }
    }

    /// Node info that says that they are at `endpoint`.
    pub(crate) fn info(&self, endpoint: Endpoint) -> NodeInfo {
        NodeInfo {
            seed: None,
            endpoint,
            incarnation: Incarnation(0),
            key: self.keys.public(),
            degree: 0,
            neighbors: Vec::new(),
            certificate: None,
            seed_keys: Vec::new(),
            seeds: Vec::new(),
            fleet: None,
        }
    }

    /// Calls `target` with this node info.
    pub(crate) fn call(&mut self, world: &mut World<Node>, target: Endpoint, info: NodeInfo) {
        let intruder = world.intruder_dial(IpAddr::from(FROM), target);
        let nonce = Nonce::random(&mut Rng::seed_from_u64(7));
        let (version, intent, said) = (VERSION, Intent::Link, info.clone());
        world.intruder_send(intruder, Hello { version, intent, nonce, info: said });
        self.calls.push((intruder, info, false));
    }

    /// Proves the key on each link that was challenged since the last time.
    pub(crate) fn prove(&mut self, world: &mut World<Node>) {
        for (intruder, info, is_proved) in &mut self.calls {
            let inbox = world.intruder_inbox(*intruder);
            let challenge = inbox.iter().find_map(|(_, msg)| {
                let Message::HelloAck(ack) = msg else { return None };
                Some((ack.nonce, ack.info.key))
            });
            let Some((nonce, challenger)) = challenge.filter(|_| !*is_proved) else { continue };
            let statement = SigningBytes::new("folkmoot/hello-proof/1")
                .number(u64::from(VERSION))
                .number(info.seed.map_or(0, |seed| u64::from(seed.0)))
                .endpoint(info.endpoint)
                .incarnation(info.incarnation)
                .key(&info.key)
                .nonce(&nonce)
                .key(&challenger);
            world.intruder_send(*intruder, HelloProof { proof: self.keys.sign(&statement) });
            *is_proved = true;
        }
        self.calls.retain(|(intruder, ..)| {
            matches!(world.intruder_state(*intruder), IntruderState::Dialing | IntruderState::Open)
        });
    }
}
