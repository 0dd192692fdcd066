//! What happens to a node's rollout machine, what it has its driver do, and what it must still know
//! after a crash.
//!
//! The machine never waits. An [`Effect::Persist`] is answered by [`Input::Synced`] when the disk
//! has it; until then the machine holds back whatever must not be known before (T3): a driver
//! carries out what it is given at once and in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::brake::Brake;
use super::health::HealthSnapshot;
use super::ids::{Mark, ModelId, NodeId, TxId};
use super::messages::{Cause, Message};
use super::plan::{Gate, Plan, Sticky};
use super::proposal::{Choice, Committed, Proof, Proposal, Resolution, Word};
use super::roster::{Participant, Roster};
use super::state::{Digest, RoutingState};
use super::status::DeadStay;
use crate::model::PublicKey;
use crate::protocol::{LinkId, Ticket};

/// What can happen to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first input, once, after the log was replayed.
    Start,
    /// A connection on which both ends have proved their keys.
    Linked {
        /// The connection.
        link: LinkId,
        /// The name that the other end claims.
        node: NodeId,
        /// Its key, which is proved.
        key: PublicKey,
    },
    /// A node that called, and is linked, says where it is called itself.
    Called {
        /// Which.
        node: NodeId,
        /// Its address, or a name for it.
        host: String,
        /// Its control port.
        port: u16,
    },
    /// A call that was asked for failed.
    DialFailed {
        /// Whom it was to.
        node: NodeId,
    },
    /// A connection ended. Comes once for each that was [`Input::Linked`].
    Unlinked {
        /// The connection.
        link: LinkId,
    },
    /// A message came.
    Received {
        /// The connection.
        link: LinkId,
        /// The message, well-formed and not yet believed.
        msg: Message,
    },
    /// All records handed over in this life up to the one of this number, counted from 1, are on
    /// disk.
    Synced {
        /// How many.
        records: u64,
    },
    /// An operator asks; answered by [`Effect::Answer`], once.
    Command {
        /// Told from other questions by this.
        ticket: Ticket,
        /// What is asked.
        command: Command,
    },
    /// This node's data plane has measured a window.
    Health(HealthSnapshot),
    /// A version has answered a request of this node's, or has not; answers [`Effect::Probe`].
    Probed {
        /// Which.
        model: ModelId,
        /// Why not.
        failure: Option<String>,
    },
    /// The log of decisions says how a transaction ended: its first entry for it (T10).
    Decided {
        /// The transaction.
        txid: TxId,
        /// How.
        commit: bool,
        /// What a commit's entry carries.
        proof: Option<Box<Committed>>,
    },
    /// The keys of all members whose end the fleet's seeds certify, and that are no members again;
    /// replaces what was told before.
    Dead {
        /// The keys.
        keys: BTreeSet<PublicKey>,
    },
    /// A deadline passed.
    TimerFired(Timer),
}

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Begin a rollout.
    Start(StartOrder),
    /// No further step until resumed.
    Pause,
    /// Steps again.
    Resume,
    /// The next step now, or the last one.
    Promote {
        /// The last one.
        full: bool,
    },
    /// End the running rollout; everything to the stable version.
    Abort,
    /// Back to the version before, also after a rollout is over.
    Rollback,
    /// The last rollout that was aborted or rolled back, again from its first step.
    Retry,
    /// These take part from now on.
    Roster(Roster),
    /// These are gone for good, and take part no more; their votes are not asked for.
    Gone {
        /// Which.
        nodes: BTreeSet<NodeId>,
    },
    /// Decide a transaction that is stuck, against all rules.
    Resolve {
        /// Which.
        txid: TxId,
        /// How.
        commit: bool,
    },
}

/// A rollout as it is ordered; owner and salt are added by the node that begins it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOrder {
    /// The stable version: what the fleet serves now.
    pub from: ModelId,
    /// The new one.
    pub to: ModelId,
    /// Shares in basis points, see [`Plan::steps`].
    pub steps: Vec<u32>,
    /// Between two steps.
    pub interval_ms: u64,
    /// What must hold.
    pub gates: Vec<Gate>,
    /// By what requests stick.
    pub sticky: Option<Sticky>,
    /// Requests in a window at least.
    pub samples_min: u64,
    /// The window.
    pub window_ms: u64,
    /// See [`Plan::warm_up_ms`].
    #[serde(default)]
    pub warm_up_ms: u64,
    /// See [`Plan::failures`].
    #[serde(default)]
    pub failures: u64,
    /// See [`Plan::deadline_ms`].
    #[serde(default)]
    pub deadline_ms: u64,
}

impl StartOrder {
    /// The plan that it makes.
    #[must_use]
    pub fn into_plan(self, owner: NodeId, salt: u64) -> Plan {
        let Self { from, to, steps, interval_ms, gates, sticky, samples_min, window_ms, .. } = self;
        let Self { warm_up_ms, failures, deadline_ms, .. } = self;
        Plan {
            from,
            to,
            steps,
            interval_ms,
            gates,
            sticky,
            salt,
            samples_min,
            window_ms,
            owner,
            warm_up_ms,
            failures,
            deadline_ms,
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done, on disk here and decided for everybody.
    Committed {
        /// By which transaction.
        txid: TxId,
        /// Which version serves it.
        version: u64,
    },
    /// It was tried and will not be done.
    Aborted {
        /// By which transaction.
        txid: TxId,
        /// For programs.
        cause: Cause,
        /// For people.
        reason: String,
    },
    /// It was not tried; nothing changed.
    Refused {
        /// For programs.
        cause: Cause,
        /// For people.
        reason: String,
        /// The transaction that is in the way.
        running: Option<TxId>,
    },
}

/// What the driver is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message by these connections.
    Send(Vec<LinkId>, Message),
    /// Write a record at the end of the log; answered by [`Input::Synced`].
    Persist(Record),
    /// Serve this from now on, all at once. Only committed states come here, each after it is on
    /// disk (T1).
    Serve(Serving),
    /// Put a decision into the log of decisions; answered by [`Input::Decided`] with the first
    /// entry of that transaction, whoever's it is. Comes again until it is answered (T10).
    Decide {
        /// The transaction.
        txid: TxId,
        /// How it is to end.
        commit: bool,
        /// What shows that it may be committed.
        proof: Option<Box<Committed>>,
    },
    /// Have this node's server of a version answer one request; answered by [`Input::Probed`].
    Probe(ModelId),
    /// Call a node; answered by [`Input::Linked`] or [`Input::DialFailed`].
    Dial(Participant),
    /// End a connection, after what was sent to it has left.
    Hangup(LinkId),
    /// Have a deadline; setting it again moves it.
    SetTimer(Timer, Duration),
    /// Have it no more.
    StopTimer(Timer),
    /// Tell the surroundings.
    Emit(Event),
    /// Answer a command.
    Answer(Ticket, Answer),
}

/// What the data plane needs of a committed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// The state.
    pub state: RoutingState,
    /// The salt of the rollout that it is of.
    pub salt: u64,
    /// By what requests stick, in that rollout.
    pub sticky: Option<Sticky>,
    /// How long the window is that its gates look at.
    pub window: Option<Duration>,
    /// So long after the rollout's begin the canary's latencies do not count.
    pub warm_up: Duration,
    /// Why everything goes to the stable version, if the brake is on.
    pub brake: Option<String>,
    /// By which transaction this node was called gone, and by whose word, if it was.
    pub removed: Option<(TxId, Word)>,
}

/// The deadlines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Say what is served.
    Heartbeat,
    /// Votes are missing for too long.
    Votes,
    /// Ask again how a transaction ended.
    Doubt,
    /// Look whether a step is due.
    Step,
    /// Orders have waited for long enough.
    Orders,
    /// Look whether to go on without nodes whose end the seeds certify.
    Dead,
    /// Call a node again.
    Redial(NodeId),
}

/// What a node must still know after a crash. Written in order, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A start of this node; its transactions carry the number (P1).
    Epoch {
        /// The number.
        epoch: u64,
    },
    /// All others have told what they had seen: of transactions up to these marks this node does
    /// not know what it said; of later ones it remembers everything.
    Recalled {
        /// By coordinator.
        unsure: std::collections::BTreeMap<NodeId, Mark>,
    },
    /// A vote COMMIT: in doubt from here on.
    Prepared(Box<Proposal>),
    /// A vote ABORT; no other will follow on this or an earlier one of that coordinator.
    Refused {
        /// The transaction.
        txid: TxId,
    },
    /// A transaction was committed, and is served from here on.
    Committed(Box<Committed>),
    /// A transaction was aborted.
    Aborted(Aborted),
    /// The brake was put on.
    Braked(Brake),
}

/// A transaction that came to nothing, as history keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// Which.
    pub txid: TxId,
    /// The version that it wanted; absent when this node never saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// For programs.
    pub cause: Cause,
    /// For people.
    pub reason: String,
    /// What shows it.
    #[serde(flatten)]
    pub proof: Proof,
}

/// What the surroundings are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node coordinates a transaction from now on.
    Began(Arc<Proposal>),
    /// This node voted.
    Voted {
        /// On what.
        txid: TxId,
        /// How.
        vote: Choice,
        /// Why, for people.
        reason: String,
    },
    /// A vote came to this node as the coordinator.
    VoteHeard {
        /// Whose.
        node: NodeId,
        /// On what.
        txid: TxId,
        /// How.
        vote: Choice,
        /// Why, for people.
        reason: String,
    },
    /// A transaction was committed, here and on disk.
    Committed(Arc<Committed>),
    /// A transaction was aborted.
    Aborted(Aborted),
    /// Everybody has a transaction of this node's on disk.
    Everywhere(TxId),
    /// This node waits for a decision, now for so long; nobody reached knows it.
    InDoubt {
        /// About what.
        txid: TxId,
        /// Since when.
        waited: Duration,
        /// Whose word would end it: participants that have not said that they wait too.
        waits_for: Vec<NodeId>,
    },
    /// A transaction was decided against all rules, or with the removal of its coordinator; kept
    /// for ever.
    Resolved {
        /// Which.
        txid: TxId,
        /// The authority for it.
        by: Word,
        /// What was said.
        resolution: Resolution,
    },
    /// A node has served another content under the same version. Never happens unless an operator
    /// resolved a transaction against its outcome, or two called each other's nodes gone.
    Diverged {
        /// Which node.
        node: NodeId,
        /// Which version.
        version: u64,
    },
    /// A node has another roster; nothing is agreed with it.
    OtherRoster {
        /// Which node.
        node: NodeId,
        /// Its roster's digest.
        digest: Digest,
    },
    /// This node begins without a memory and asks all others; it votes when these have answered.
    Recalling {
        /// Who has not.
        waits_for: BTreeSet<NodeId>,
    },
    /// It knows enough to vote.
    Recalled,
    /// Somebody has seen later transactions of this node's than its log can know: it was restored
    /// from a backup. It signs nothing before all others have told what they have seen.
    Rewound {
        /// Who.
        by: NodeId,
    },
    /// This node was called gone while it was away: it decides nothing any more.
    Removed {
        /// By which transaction.
        txid: TxId,
        /// The authority for it.
        by: Word,
    },
    /// Nodes whose end the seeds certify still take part.
    DeadStay(DeadStay),
    /// This node takes a rollout's steps from now on, because its owner is away.
    TookOver {
        /// Whose rollout.
        owner: NodeId,
    },
    /// A step is due and held: too few requests, or somebody is out of reach.
    StepHeld {
        /// Why, for people.
        reason: String,
    },
    /// A gate failed; the brake is put on, and a rollback follows.
    GateFailed {
        /// On which node; none: over all together.
        node: Option<NodeId>,
        /// Which gate.
        gate: Gate,
    },
    /// A node is called at another place than the roster says: it has called from there, or this
    /// node was told so at its start.
    Moved {
        /// Which.
        node: NodeId,
        /// Where.
        at: String,
    },
    /// A node has no servers of its own among such that have, and answers with an echo.
    Echoes {
        /// Which; this one, perhaps.
        node: NodeId,
    },
    /// A node asks other servers than this one for the same versions.
    OtherServers {
        /// Which.
        node: NodeId,
        /// For these.
        models: Vec<ModelId>,
    },
    /// The brake is on: everything goes to the stable version until a rollback is committed.
    Braked(Brake),
    /// A node came within reach.
    Reached(NodeId),
    /// A node is out of reach.
    Lost(NodeId),
    /// Something was dropped and counted; from whom, and why.
    Dropped(NodeId, &'static str),
}
