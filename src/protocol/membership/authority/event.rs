//! What a seed waits for, remembers and tells.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Incarnation, PublicKey, SeedId};
use crate::protocol::LinkId;
use crate::protocol::membership::certificate::{
    Admission, Ban, Leave, Proposal, ProposalKind, Removal, Subject, Vote,
};
use crate::protocol::membership::registry::Entry;
use crate::protocol::message::ErrorReply;
use crate::protocol::session::{Cause, SeedKey};

/// Deadlines of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An admission has taken too long.
    Admission(Subject),
    /// An open removal is due for another look.
    Removal(Subject),
    /// Removals that are ripe have waited long enough for those that are not.
    Settle,
    /// Compare registries with the other seeds.
    Digest,
    /// Look for members that nobody here is linked with.
    Audit,
    /// A member's link broke a moment ago; is it back?
    Orphan(Endpoint),
    /// A quorum is out of reach for a while now.
    Quorum,
    /// Time for the next neighbor lists that another seed is owed.
    Lists,
}

/// What a seed must not forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// This seed's yes to one admission, or to the removals that it decided on together (M2).
    Voted {
        /// What it voted for.
        kind: ProposalKind,
        /// For whom; ascending.
        lives: Vec<Subject>,
        /// The vote as it left the node.
        vote: Vote,
    },
    /// A verified admission or goodbye; in a rewritten journal all that is known of a life.
    Entry {
        /// What became known.
        entry: Box<Entry>,
    },
    /// A verified removal of one or more lives.
    Removed {
        /// The proof.
        removal: Arc<Removal>,
    },
    /// A verified ban, or its lifting.
    Ban {
        /// The proof.
        ban: Ban,
    },
    /// A seed's key, proved at its configured address.
    SeedKey(SeedKey),
    /// The highest ended life of an endpoint whose tombstone was forgotten: nothing up to it ever
    /// comes back (M4).
    Floor {
        /// Which endpoint.
        endpoint: Endpoint,
        /// Its highest ended life.
        incarnation: Incarnation,
    },
    /// A yes that needs no memory any more: it is old, and about a life that has ended for good.
    Forgot {
        /// Whose.
        endpoint: Endpoint,
        /// In which life.
        incarnation: Incarnation,
        /// What for.
        kind: ProposalKind,
    },
    /// This seed has compared its registry with enough others once: it remembers its own votes.
    Ready,
}

/// What a seed tells its surroundings, or asks its node to do.
#[derive(Debug)]
pub enum Event {
    /// Probe this endpoint afresh; the answer comes by [`super::Authority::on_probed`].
    Probe {
        /// Whom.
        endpoint: Endpoint,
        /// For how long.
        timeout: Duration,
    },
    /// A link's other end became a member or ceased to be one.
    Standing {
        /// The link.
        link: LinkId,
        /// Whether it is a member now.
        member: bool,
    },
    /// A message was refused: answer the sender and count it.
    Refuse {
        /// The sender's link.
        link: LinkId,
        /// What was wrong.
        cause: Cause,
        /// What to tell it.
        error: ErrorReply,
    },
    /// Somebody asks to be admitted.
    Proposed {
        /// What is proposed.
        proposal: Proposal,
        /// How many yes votes it takes.
        needed: usize,
        /// What it rests on, for people.
        because: String,
    },
    /// A vote was counted.
    Voted {
        /// On what.
        proposal: Proposal,
        /// Who voted.
        seed: SeedId,
        /// How.
        yes: bool,
        /// Why, for people.
        reason: String,
        /// Yes votes so far.
        count: usize,
        /// Yes votes needed.
        needed: usize,
    },
    /// A proposal came to nothing.
    Aborted {
        /// Which.
        proposal: Proposal,
        /// Why.
        reason: String,
    },
    /// A member was admitted.
    Admitted(Box<Admission>),
    /// Members were removed.
    Removed {
        /// The proof.
        removal: Arc<Removal>,
        /// Those of its lives that ended by it here, now.
        lives: Vec<Subject>,
    },
    /// An endpoint was banned, or its ban was lifted.
    Banned(Box<Ban>),
    /// A member left.
    Left(Leave),
    /// A death was reported.
    Reported {
        /// Whose.
        subject: Subject,
        /// By whom.
        reporter: Endpoint,
        /// The fixed text of the report.
        text: String,
        /// How many findings it carries.
        confirmations: usize,
    },
    /// A seed's key was proved for the first time.
    SeedKeyLearnt(SeedKey),
    /// A seed showed another key than the known one.
    SeedKeyContradicted {
        /// Which seed it claims to be.
        seed: SeedId,
        /// The known key.
        known: PublicKey,
        /// The shown key.
        shown: PublicKey,
    },
    /// Another seed holds entries that rest on votes of seeds which are not in the list any more.
    Foreign {
        /// Which seed.
        seed: SeedId,
        /// How many entries of the first page that had any.
        entries: usize,
    },
    /// Two members answer with one key.
    SharedKey {
        /// The key.
        key: PublicKey,
        /// Where they answer.
        places: [Endpoint; 2],
    },
    /// Members that this seed knows as alive have had no neighbor for a while, or have one again.
    Isolated {
        /// Which, ascending.
        members: Vec<Endpoint>,
        /// Whether they have none.
        alone: bool,
    },
    /// Another seed's link came up or went down; `connected` counts this seed too.
    SeedLink {
        /// Which.
        seed: SeedId,
        /// Whether it is up.
        up: bool,
        /// Seeds in reach, this one included.
        connected: usize,
    },
    /// A quorum is out of reach, or in reach again (M10).
    Quorum {
        /// Whether decisions are possible.
        reached: bool,
        /// Seeds in reach, this one included.
        connected: usize,
        /// Seeds needed.
        needed: usize,
    },
    /// This seed has compared registries with enough others and votes from now on.
    Ready {
        /// Members known.
        members: usize,
    },
    /// Members were learnt from another seed.
    Synced {
        /// From which.
        seed: SeedId,
        /// How many entries were new.
        entries: usize,
    },
}
