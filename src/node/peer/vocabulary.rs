//! What a peer is told, reports and remembers deadlines by.

use std::sync::Arc;

use crate::model::{Data, Endpoint};
use crate::node::refusals::Refusal;
use crate::protocol::broadcast as casting;
use crate::protocol::contacts as contacts_service;
use crate::protocol::direct::{self as direct_service, RetryConfig};
use crate::protocol::discovery::{self as finding, NodeId};
use crate::protocol::membership::applicant;
use crate::protocol::membership::certificate::{Leave, Removal, Subject};
use crate::protocol::open as open_fleet;
use crate::protocol::{gossip, liveness, overlay, probe, session};

/// Deadlines of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A handshake's.
    Session(session::Timer),
    /// A probe's.
    Probe(probe::Timer),
    /// The membership's.
    Applicant(applicant::Timer),
    /// The overlay's.
    Overlay(overlay::Timer),
    /// Gossip's.
    Gossip(gossip::Timer),
    /// Liveness's.
    Liveness(liveness::Timer),
    /// A direct send's.
    Direct(direct_service::Timer),
    /// The contacts'.
    Contacts(contacts_service::Timer),
    /// Those of a fleet without seeds.
    Open(open_fleet::Timer),
    /// Discovery's.
    Discovery(finding::Timer),
    /// The broadcast's.
    Broadcast(casting::Timer),
    /// Leave, although the last own messages may be with nobody.
    Leave,
}

macro_rules! timer_from {
    ($($variant:ident($service:ident)),* $(,)?) => {
        $(impl From<$service::Timer> for Timer {
            fn from(timer: $service::Timer) -> Self {
                Self::$variant(timer)
            }
        })*
    };
}

timer_from! {
    Session(session), Probe(probe), Applicant(applicant), Overlay(overlay), Gossip(gossip),
    Liveness(liveness), Direct(direct_service), Contacts(contacts_service), Open(open_fleet),
    Discovery(finding), Broadcast(casting),
}

impl From<crate::protocol::Never> for applicant::Record {
    fn from(never: crate::protocol::Never) -> Self {
        match never {}
    }
}

/// What a peer reports.
#[derive(Debug)]
pub enum Event {
    /// It listens.
    Started {
        /// Its key.
        key: crate::model::PublicKey,
        /// Seeds configured.
        seeds: usize,
        /// Yes votes needed.
        needed: usize,
    },
    /// The membership's reports.
    Applicant(applicant::Event),
    /// A neighbor was won or lost, or the neighborhood is about to be announced.
    Overlay(overlay::Event),
    /// Gossip was made or heard.
    Gossip {
        /// What happened.
        event: gossip::Event,
        /// The neighbor it came from, if it came.
        from: Option<Endpoint>,
    },
    /// Liveness's reports.
    Liveness(liveness::Event),
    /// Direct messages came, and what became of those from here.
    Direct(direct_service::Event),
    /// Peers that became unreachable, or reachable again.
    Contacts(contacts_service::Event),
    /// Reports of a fleet without seeds.
    Open(open_fleet::Event),
    /// What was asked of discovery, answered.
    Discovery(finding::Event),
    /// A message of the broadcast was published or delivered, or was not.
    Broadcast(casting::Event),
    /// A member's removal became known, and is certified.
    MemberRemoved {
        /// The proof.
        removal: Arc<Removal>,
        /// Whose life ended.
        life: Subject,
    },
    /// A member's goodbye became known.
    MemberLeft(Leave),
    /// Two members answer with one key; this peer may be one of them.
    SharedKey {
        /// The key.
        key: crate::model::PublicKey,
        /// Where they answer, ascending.
        places: [Endpoint; 2],
    },
    /// This peer has said goodbye; its process may end.
    Gone,
    /// Something was refused.
    Refused(Refusal),
}

/// What a local program may ask of a peer.
#[derive(Debug)]
pub enum Command {
    /// Say goodbye and end.
    Leave,
    /// Send something to one member; ends in one `Sent` or `Failed` with this token.
    Send {
        /// The caller's name for it; no other message on its way has it.
        token: u64,
        /// Whom it is for.
        to: Endpoint,
        /// What it is about.
        topic: String,
        /// The message.
        data: Data,
        /// When it is sent again.
        retry: RetryConfig,
    },
    /// Call a message back; it ends at once.
    CancelSend {
        /// The caller's name for it.
        token: u64,
    },
    /// The application's answer to a message that arrived.
    Answer {
        /// Who sent it.
        from: Endpoint,
        /// The number it arrived under.
        number: u64,
        /// Whether the application took it.
        taken: bool,
        /// Why not, for people.
        reason: String,
    },
    /// Keep a link with this peer, whatever comes.
    AddPeer(Endpoint),
    /// Close the links with this peer, and send it nothing more.
    RemovePeer(Endpoint),
    /// Ask the linked seeds how the last life at this endpoint stands.
    AskSeeds(Endpoint),
    /// Look for other peers; answered by `Discovered` with the same token.
    Discover {
        /// The caller's number.
        token: u64,
    },
    /// Find the peer with this id; answered by `Resolved` with the same token.
    LookUp {
        /// The caller's number.
        token: u64,
        /// Whom.
        id: NodeId,
    },
    /// Send a message to all members; answered by an event with the same token.
    Publish {
        /// What it is about.
        topic: String,
        /// Its data.
        data: Data,
        /// Whether to count who has it.
        receipt: bool,
        /// The caller's number for it.
        token: u64,
    },
}
