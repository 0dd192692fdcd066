//! Changes of a peer's standing in its fleet, and of other peers.

use std::time::Duration;

use super::message::PeerInfo;
use super::queue::ByteSize;
use crate::machine::membership::applicant;
use crate::machine::{contacts, overlay};
use crate::model::Endpoint;
use crate::node::peer_kind::Event;

/// A change in the fleet, as far as this peer learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// This peer is a member from now on, for the first time or again. In a fleet with seeds only.
    Admitted,
    /// An attempt of this peer to become a member failed; the next one follows by itself.
    NotAdmitted {
        /// Reason in words, with a remedy.
        reason: String,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
    /// The seeds removed this peer although it runs; it registers again by itself.
    Evicted,
    /// There is a lasting link with this peer: it is a neighbor.
    Linked(Endpoint),
    /// The link with this neighbor has ended.
    Unlinked(Endpoint),
    /// No neighbor is left: broadcasts reach nobody until there is another. Follows the
    /// [`Change::Unlinked`] of the last one.
    Alone,
    /// A neighbor or correspondent has not been heard of for too long.
    Unreachable {
        /// Listen address of the peer.
        peer: Endpoint,
        /// Time since the last contact.
        silent_for: Duration,
    },
    /// A peer that was unreachable is back.
    Reachable {
        /// Listen address of the peer.
        peer: Endpoint,
        /// Time that the peer was silent.
        after: Duration,
    },
    /// A member said goodbye.
    Left(Endpoint),
    /// A quorum of seeds certifies that a member was removed: it is dead, cut off, or was put out.
    Removed(PeerInfo),
}

impl Change {
    /// The change that an event of the node means to an application, if it means one.
    pub(super) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Applicant(applicant::Event::Admitted(_)) => Some(Self::Admitted),
            Event::Applicant(applicant::Event::Refused { reason, retry_in }) => {
                Some(Self::NotAdmitted { reason: reason.clone(), retry_in: *retry_in })
            }
            Event::Applicant(applicant::Event::Evicted { .. }) => Some(Self::Evicted),
            Event::Overlay(overlay::Event::Linked { neighbor, .. }) => {
                Some(Self::Linked(*neighbor))
            }
            Event::Overlay(overlay::Event::Unlinked { neighbor, .. }) => {
                Some(Self::Unlinked(*neighbor))
            }
            Event::Contacts(contacts::Event::Unreachable { peer, silent_for }) => {
                Some(Self::Unreachable { peer: *peer, silent_for: *silent_for })
            }
            Event::Contacts(contacts::Event::Reachable { peer, after }) => {
                Some(Self::Reachable { peer: *peer, after: *after })
            }
            Event::MemberLeft(leave) => Some(Self::Left(leave.endpoint)),
            Event::MemberRemoved { life, .. } => {
                Some(Self::Removed(PeerInfo { endpoint: life.endpoint, key: life.key }))
            }
            Event::Applicant(_)
            | Event::Overlay(_)
            | Event::Contacts(_)
            | Event::Broadcast(_)
            | Event::Direct(_)
            | Event::Started { .. }
            | Event::Gone
            | Event::Gossip { .. }
            | Event::Liveness(_)
            | Event::Discovery(_)
            | Event::Open(_)
            | Event::ListsDiffer(_)
            | Event::SharedKey { .. }
            | Event::Refused(_) => None,
        }
    }
}

impl ByteSize for Change {
    fn bytes(&self) -> usize {
        let Self::NotAdmitted { reason, .. } = self else { return size_of::<Self>() };
        size_of::<Self>() + reason.len()
    }
}
