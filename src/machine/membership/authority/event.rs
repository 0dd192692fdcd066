//! Timers, records and events of a seed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::LinkId;
use crate::machine::session::RejectReason;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{
    Admission, Ban, Leave, MemberInstance, Proposal, ProposalKind, Removal, Vote,
};
use crate::model::{Endpoint, Incarnation, PublicKey, SeedId};
use crate::proto::hello::SeedKey;
use crate::proto::refusal::ErrorReply;

/// Deadlines of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An admission has taken too long.
    Admission(MemberInstance),
    /// An open removal is due for another look.
    Removal(MemberInstance),
    /// The removals that are ripe have waited long enough for those that are not.
    Settle,
    /// Registries are compared with the other seeds.
    Digest,
    /// Members without a link to this seed are searched for.
    Audit,
    /// A member's link broke a moment ago; the member is probed unless it is back.
    Orphan(Endpoint),
    /// A quorum has been out of reach for a while.
    Quorum,
    /// The next portion of neighbor lists that another seed is owed is sent.
    Lists,
}

/// Records that a seed keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// This seed's yes to one admission, or to the removals that it decided on together (M2).
    Voted {
        /// Kind of the proposal.
        kind: ProposalKind,
        /// Lives that the vote covers, ascending.
        lives: Vec<MemberInstance>,
        /// The vote as it left the node.
        vote: Vote,
    },
    /// A verified admission or goodbye; in a rewritten journal all that is known of a life.
    Entry {
        /// Proofs about the life.
        entry: Box<RegistryEntry>,
    },
    /// A verified removal of one or more lives.
    Removed {
        /// Certificate of the removal.
        removal: Arc<Removal>,
    },
    /// A verified ban, or its lifting.
    Ban {
        /// Certificate of the ban or of its lifting.
        ban: Ban,
    },
    /// A seed's key, proved at its configured address.
    SeedKey(SeedKey),
    /// The highest ended life of an endpoint whose tombstone was forgotten: no life up to it ever
    /// comes back (M4).
    Floor {
        /// Endpoint of the forgotten lives.
        endpoint: Endpoint,
        /// Highest ended life of the endpoint.
        incarnation: Incarnation,
    },
    /// A yes that needs no memory any more: it is old, and about a life that has ended for good.
    Forgot {
        /// Endpoint that the vote was about.
        endpoint: Endpoint,
        /// Life that the vote was about.
        incarnation: Incarnation,
        /// Kind of the proposal that the vote was for.
        kind: ProposalKind,
    },
    /// This seed has once compared its registry with enough others, so it remembers its own votes.
    Ready,
}

/// Events of a seed: news for its surroundings, and requests to its node.
#[derive(Debug)]
pub enum Event {
    /// The node must probe this endpoint afresh; the answer comes by
    /// [`super::Authority::on_probed`].
    Probe {
        /// Endpoint to probe.
        endpoint: Endpoint,
        /// Time-out of the probe.
        timeout: Duration,
    },
    /// A link's other end became a member or ceased to be one.
    Standing {
        /// Link whose standing changes.
        link: LinkId,
        /// True if the other end is a member now.
        member: bool,
    },
    /// A message was refused: the node answers the sender and counts the refusal.
    Refuse {
        /// Link of the sender.
        link: LinkId,
        /// Kind of the offense.
        cause: RejectReason,
        /// Answer for the sender.
        error: ErrorReply,
    },
    /// A proposal was opened for the seeds' votes.
    Proposed {
        /// Proposal that the seeds vote on.
        proposal: Proposal,
        /// Number of yes votes needed.
        needed: usize,
        /// Reason of the proposal, for people.
        because: String,
    },
    /// A vote was counted.
    Voted {
        /// Proposal that was voted on.
        proposal: Proposal,
        /// Seed that voted.
        seed: SeedId,
        /// True if the seed voted yes.
        yes: bool,
        /// Reason of the vote, for people.
        reason: String,
        /// Yes votes so far.
        count: usize,
        /// Yes votes needed.
        needed: usize,
    },
    /// A proposal failed.
    Aborted {
        /// Proposal that failed.
        proposal: Proposal,
        /// Reason of the failure.
        reason: String,
    },
    /// A member was admitted.
    Admitted(Box<Admission>),
    /// Members were removed.
    Removed {
        /// Certificate of the removal.
        removal: Arc<Removal>,
        /// Lives among those removed that ended here by this certificate, now.
        lives: Vec<MemberInstance>,
    },
    /// An endpoint was banned, or its ban was lifted.
    Banned(Box<Ban>),
    /// A member left.
    Left(Leave),
    /// A death was reported.
    Reported {
        /// Life that is reported dead.
        subject: MemberInstance,
        /// Endpoint of the member that reports.
        reporter: Endpoint,
        /// Fixed text of the report.
        text: String,
        /// Number of findings in the report that hold.
        confirmations: usize,
    },
    /// A seed's key was proved for the first time.
    SeedKeyLearnt(SeedKey),
    /// A seed showed another key than the known one.
    SeedKeyContradicted {
        /// Number that the seed claims.
        seed: SeedId,
        /// Key that is known.
        known: PublicKey,
        /// Key that was shown.
        shown: PublicKey,
    },
    /// Another seed holds entries that rest on votes of seeds which are not in the list any more.
    Foreign {
        /// Seed that holds the entries.
        seed: SeedId,
        /// Number of such entries in the first page that had any.
        entries: usize,
    },
    /// Two members answer with one key.
    SharedKey {
        /// The shared key.
        key: PublicKey,
        /// Endpoints at which the key answers.
        places: [Endpoint; 2],
    },
    /// Members that this seed knows as alive have had no neighbor for a while, or have one again.
    Isolated {
        /// Endpoints of the members, ascending.
        members: Vec<Endpoint>,
        /// True if the members have no neighbor.
        alone: bool,
    },
    /// Another seed's link came up or went down; `connected` counts this seed too.
    SeedLink {
        /// Seed at the other end.
        seed: SeedId,
        /// True if the link is up.
        up: bool,
        /// Number of seeds in reach, this one included.
        connected: usize,
    },
    /// A quorum is out of reach, or in reach again (M10).
    Quorum {
        /// True if decisions are possible.
        reached: bool,
        /// Number of seeds in reach, this one included.
        connected: usize,
        /// Number of seeds needed.
        needed: usize,
    },
    /// This seed has compared registries with enough others and votes from now on.
    Ready {
        /// Number of living members known.
        members: usize,
    },
    /// Members were learnt from another seed.
    Synced {
        /// Seed that sent the entries.
        seed: SeedId,
        /// Number of new entries.
        entries: usize,
    },
}
