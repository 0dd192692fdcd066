//! Status of a node for its operator.

use std::collections::BTreeMap;

use serde::Serialize;

use super::seed::Counts;
use crate::machine::broadcast::BroadcastMetrics;
use crate::machine::contacts::ContactsMetrics;
use crate::machine::direct::DirectMetrics;
use crate::machine::{LinkId, discovery};
use crate::model::{Endpoint, Incarnation, PublicKey, SeedId, WallTime};
use crate::proto::hello::NodeInfo;
use crate::proto::message::TrustLevel;

/// One open link.
#[derive(Clone, Debug, Serialize)]
pub struct LinkStatus {
    /// Endpoint of the other end.
    pub endpoint: Endpoint,
    /// Standing of the other end.
    pub standing: &'static str,
    /// Degree of the other end, as it last stated.
    pub degree: u32,
}

impl From<(LinkId, &NodeInfo, TrustLevel)> for LinkStatus {
    fn from((_, info, standing): (LinkId, &NodeInfo, TrustLevel)) -> Self {
        let standing = match standing {
            TrustLevel::Stranger => "stranger",
            TrustLevel::Applicant => "applicant",
            TrustLevel::Member => "member",
            TrustLevel::Seed => "seed",
        };
        Self { endpoint: info.endpoint, standing, degree: info.degree }
    }
}

/// A seed's state.
#[derive(Clone, Debug, Serialize)]
pub struct SeedStatus {
    /// Number of the seed.
    pub seed: SeedId,
    /// Listen address of the seed.
    pub endpoint: Endpoint,
    /// Public key of the seed.
    pub key: PublicKey,
    /// True if the seed votes.
    pub ready: bool,
    /// Number of seeds in reach, itself included.
    pub seeds_connected: usize,
    /// Number of seeds in `config.txt`.
    pub seeds_configured: usize,
    /// Number of yes votes that decide.
    pub quorum: usize,
    /// Number of members.
    pub members: usize,
    /// Number of members linked with this seed.
    pub members_linked: usize,
    /// Number of admissions under way.
    pub admissions_open: usize,
    /// Number of removals under way.
    pub removals_open: usize,
    /// Distrust of itself, 0 to 7 (O4).
    pub health: u32,
    /// Number of refusals, by cause.
    pub refused: Counts,
    /// Open links of the seed.
    pub links: Vec<LinkStatus>,
}

/// Counters of the services of the network layer.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkStatus {
    /// Counters of the broadcast.
    pub broadcast: BroadcastMetrics,
    /// Counters of direct sends.
    pub direct: DirectMetrics,
    /// Counters of contacts.
    pub contacts: ContactsMetrics,
    /// Counters of discovery.
    pub discovery: discovery::DiscoveryMetrics,
}

/// A peer's state.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Listen address of the peer.
    pub endpoint: Endpoint,
    /// Public key of the peer.
    pub key: PublicKey,
    /// Incarnation of the peer.
    pub incarnation: Incarnation,
    /// `member`, `joining`, `asking`, `connecting`, `pausing` or `gone`.
    pub state: &'static str,
    /// Time since which it is a member.
    pub member_since: Option<WallTime>,
    /// The seeds it is linked with.
    pub seeds: Vec<SeedId>,
    /// Seeds in `config.txt`; none in a fleet without seeds.
    pub seeds_configured: usize,
    /// Yes votes that decide.
    pub quorum: usize,
    /// Members it knows beside itself.
    pub members_known: usize,
    /// Neighbors of the peer, with the measured round trip in microseconds.
    pub neighbors: BTreeMap<String, Option<u64>>,
    /// The local view of the topology: its own and its neighbors' neighbors.
    pub topology: BTreeMap<String, Vec<Endpoint>>,
    /// Endpoints of the members it suspects.
    pub suspects: Vec<Endpoint>,
    /// Own gossip messages made.
    pub gossip_made: u32,
    /// Gossip messages held.
    pub gossip_held: usize,
    /// Number of duplicates dropped.
    pub gossip_duplicates: u64,
    /// Distrust of itself, 0 to 7 (O4).
    pub health: u32,
    /// Number of refusals, by cause.
    pub refused: Counts,
    /// Counters of the network layer.
    pub network: NetworkStatus,
}
