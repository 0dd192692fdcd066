//! Commands, events and timers of a peer.

use std::sync::Arc;

use crate::machine::direct::{self as direct_service, RetryConfig};
use crate::machine::discovery::{self as finding};
use crate::machine::membership::applicant;
use crate::machine::open as open_fleet;
use crate::machine::{broadcast as casting, contacts as contacts_service};
use crate::machine::{gossip, liveness, overlay, probe, session};
use crate::model::statement::{Leave, MemberInstance, Removal};
use crate::model::{Data, Endpoint};
use crate::node::refusals::Refusal;
use crate::proto::discovery::NodeId;

/// Deadlines of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Deadline of a handshake.
    Session(session::Timer),
    /// Deadline of a probe.
    Probe(probe::Timer),
    /// Deadline of the membership.
    Applicant(applicant::Timer),
    /// Deadline of the overlay.
    Overlay(overlay::Timer),
    /// Deadline of gossip.
    Gossip(gossip::Timer),
    /// Deadline of liveness.
    Liveness(liveness::Timer),
    /// Deadline of a direct send.
    Direct(direct_service::Timer),
    /// Deadline of the contacts.
    Contacts(contacts_service::Timer),
    /// Deadline of a fleet without seeds.
    Open(open_fleet::Timer),
    /// Deadline of discovery.
    Discovery(finding::Timer),
    /// Deadline of the broadcast.
    Broadcast(casting::Timer),
    /// Deadline to leave, although the last own messages may be with no neighbor.
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

impl From<crate::machine::Never> for applicant::Record {
    fn from(never: crate::machine::Never) -> Self {
        match never {}
    }
}

/// Events of a peer.
#[derive(Debug)]
pub enum Event {
    /// The peer listens.
    Started {
        /// Public key of the peer.
        key: crate::model::PublicKey,
        /// Number of configured seeds.
        seeds: usize,
        /// Number of yes votes needed.
        needed: usize,
    },
    /// An event of the membership.
    Applicant(applicant::Event),
    /// A neighbor was won or lost, or the neighborhood is about to be announced.
    Overlay(overlay::Event),
    /// A gossip message was made or heard.
    Gossip {
        /// Event of gossip.
        event: gossip::Event,
        /// Neighbor that it came from, if it came.
        from: Option<Endpoint>,
    },
    /// An event of liveness.
    Liveness(liveness::Event),
    /// Direct messages came, or sends from here ended.
    Direct(direct_service::Event),
    /// Peers became unreachable, or reachable again.
    Contacts(contacts_service::Event),
    /// An event of a fleet without seeds.
    Open(open_fleet::Event),
    /// Discovery answered a question.
    Discovery(finding::Event),
    /// A message of the broadcast was published or delivered, or was not.
    Broadcast(casting::Event),
    /// A seed's list of seeds differs from the one here, and both go on.
    ListsDiffer(String),
    /// A member's removal became known, and is certified.
    MemberRemoved {
        /// Proof of the removal.
        removal: Arc<Removal>,
        /// Life of the member that ended.
        life: MemberInstance,
    },
    /// A member's goodbye became known.
    MemberLeft(Leave),
    /// Two members answer with one key; this peer may be one of them.
    SharedKey {
        /// The shared key.
        key: crate::model::PublicKey,
        /// Endpoints of the two members, ascending.
        places: [Endpoint; 2],
    },
    /// This peer has said goodbye; its process may end.
    Gone,
    /// A node or its message was refused.
    Refused(Refusal),
}

/// Commands of a local program to a peer.
#[derive(Debug)]
pub enum Command {
    /// Say goodbye and end.
    Leave,
    /// Send a message to one member; ends in one `Sent` or `Failed` with this token.
    Send {
        /// The caller's number for the message; no other message on its way has it.
        token: u64,
        /// Endpoint of the receiver.
        to: Endpoint,
        /// Topic of the message.
        topic: String,
        /// Payload of the message.
        data: Data,
        /// Schedule of repeated attempts.
        retry: RetryConfig,
    },
    /// Call a message back; it ends at once.
    CancelSend {
        /// The caller's number for the message.
        token: u64,
    },
    /// The application's answer to a message that arrived.
    Answer {
        /// Endpoint of the sender.
        from: Endpoint,
        /// Number of the message from this sender.
        number: u64,
        /// True if the application took it.
        taken: bool,
        /// Reason for not taking it, for people.
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
        /// Id of the wanted peer.
        id: NodeId,
    },
    /// Send a message to all members; answered by an event with the same token.
    Publish {
        /// Topic of the message.
        topic: String,
        /// Payload of the message.
        data: Data,
        /// True if to count the peers that have it.
        receipt: bool,
        /// The caller's number for it.
        token: u64,
    },
}
