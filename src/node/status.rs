//! What a node says of itself to its operator.

use std::collections::BTreeMap;

use serde::Serialize;

use super::seed::Counts;
use crate::model::{Endpoint, Incarnation, PublicKey, SeedId, WallTime};
use crate::protocol::LinkId;
use crate::protocol::broadcast::BroadcastMetrics;
use crate::protocol::contacts::ContactsMetrics;
use crate::protocol::direct::DirectMetrics;
use crate::protocol::discovery;
use crate::protocol::message::Standing;
use crate::protocol::session::Card;

/// One open link.
#[derive(Clone, Debug, Serialize)]
pub struct LinkStatus {
    /// Who is at the other end.
    pub endpoint: Endpoint,
    /// How it is trusted.
    pub standing: &'static str,
    /// Its degree, as it last said.
    pub degree: u32,
}

impl From<(LinkId, &Card, Standing)> for LinkStatus {
    fn from((_, card, standing): (LinkId, &Card, Standing)) -> Self {
        let standing = match standing {
            Standing::Stranger => "stranger",
            Standing::Applicant => "applicant",
            Standing::Member => "member",
            Standing::Seed => "seed",
        };
        Self { endpoint: card.endpoint, standing, degree: card.degree }
    }
}

/// A seed's state.
#[derive(Clone, Debug, Serialize)]
pub struct SeedStatus {
    /// Its number.
    pub seed: SeedId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its key.
    pub key: PublicKey,
    /// Whether it votes.
    pub ready: bool,
    /// Seeds in reach, itself included.
    pub seeds_connected: usize,
    /// Seeds in `config.txt`.
    pub seeds_configured: usize,
    /// Yes votes that decide.
    pub quorum: usize,
    /// Members.
    pub members: usize,
    /// Members linked with this seed.
    pub members_linked: usize,
    /// Admissions under way.
    pub admissions_open: usize,
    /// Removals under way.
    pub removals_open: usize,
    /// Distrust of itself, 0 to 7 (O4).
    pub health: u32,
    /// What was refused, by cause.
    pub refused: Counts,
    /// Open links.
    pub links: Vec<LinkStatus>,
}

/// What the services of the network layer have counted.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkStatus {
    /// The broadcast.
    pub broadcast: BroadcastMetrics,
    /// Direct sends.
    pub direct: DirectMetrics,
    /// Contacts.
    pub contacts: ContactsMetrics,
    /// Of finding others.
    pub discovery: discovery::Metrics,
}

/// A peer's state.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its key.
    pub key: PublicKey,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// `member`, `asking`, `connecting`, `pausing` or `gone`.
    pub state: &'static str,
    /// Since when it is a member.
    pub member_since: Option<WallTime>,
    /// The seeds it is linked with.
    pub seeds: Vec<SeedId>,
    /// Seeds in `config.txt`; none in a fleet without seeds.
    pub seeds_configured: usize,
    /// Yes votes that decide.
    pub quorum: usize,
    /// Members it knows beside itself.
    pub members_known: usize,
    /// Its neighbors, with the measured round trip in microseconds.
    pub neighbors: BTreeMap<String, Option<u64>>,
    /// The local view of the topology: its own and its neighbors' neighbors.
    pub topology: BTreeMap<String, Vec<Endpoint>>,
    /// Whom it suspects.
    pub suspects: Vec<Endpoint>,
    /// Own gossip messages made.
    pub gossip_made: u32,
    /// Gossip messages held.
    pub gossip_held: usize,
    /// Duplicates dropped.
    pub gossip_duplicates: u64,
    /// Distrust of itself, 0 to 7 (O4).
    pub health: u32,
    /// What was refused, by cause.
    pub refused: Counts,
    /// What the network layer counts.
    pub network: NetworkStatus,
}
