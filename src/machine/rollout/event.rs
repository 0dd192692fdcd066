//! Inputs, effects, records and events of a node's rollout machine.
//!
//! The machine holds back itself all that must not be known before a record is on disk (T3).

use crate::proto::rollout::{
    AbortCause, Brake, Choice, Committed, Digest, HealthSnapshot, RemovalAuthority, Resolution,
    Roster, ServerChanges, TxProof, TxProposal,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::served::{ServedState, StartOrder};
use super::servers::ServerDigests;
use crate::model::PublicKey;
use crate::proto::rollout::{Gate, ModelId, NodeId, TxId, TxMark};

/// A connection on which both ends have proved their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Name that the other end claims.
    pub node: NodeId,
    /// Key of the other end, which is proved.
    pub key: PublicKey,
}

/// Identifier of a command, numbered by the driver; never used twice while a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// A command of an operator, with its identifier; answered by [`ExtraEffect::Answer`], once.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    /// Identifier of the command, for its answer.
    pub ticket: CommandId,
    /// The operator's order.
    pub command: Command,
}

/// An input that only this machine has.
#[derive(Clone, Debug)]
pub enum ExtraInput {
    /// A linked node that called names the place where it is called itself.
    Called {
        /// Name of the node.
        node: NodeId,
        /// IP address or host name of the node.
        host: String,
        /// Control port of the node.
        port: u16,
    },
    /// This node's data plane has measured a window.
    Health(HealthSnapshot),
    /// A version has answered a request of this node, or has not; answers [`ExtraEffect::Probe`].
    Probed {
        /// Name of the version.
        model: ModelId,
        /// Reason of the failure; `None` if it has answered.
        failure: Option<String>,
    },
    /// This node's servers have changed so, which
    /// [`may_change_servers`](super::RolloutMachine::may_change_servers) allows at this moment.
    Servers(ServerDigests),
    /// The log of decisions has its first entry for a transaction: this is how it ended (T10).
    Decided {
        /// Name of the transaction.
        txid: TxId,
        /// True if it was committed.
        commit: bool,
        /// Proof that a commit's entry carries.
        proof: Option<Box<Committed>>,
    },
    /// The keys of all members whose end the fleet's seeds certify and that have not become members
    /// again; replaces the set told before.
    Dead {
        /// Public keys of the members.
        keys: BTreeSet<PublicKey>,
    },
}

/// An order of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Begin a rollout.
    Start(StartOrder),
    /// Take no further step until resumed.
    Pause,
    /// Take steps again.
    Resume,
    /// Take the next step now, or the last one.
    Promote {
        /// True if to take the last one.
        full: bool,
    },
    /// End the running rollout; everything goes to the stable version.
    Abort,
    /// Go back to the version before, also after a rollout is over.
    Rollback,
    /// Begin the last rollout that was aborted or rolled back again, from its first step.
    Retry,
    /// Let these nodes take part from now on.
    Roster(Roster),
    /// Remove nodes that are gone for good; their votes are not asked for.
    Gone {
        /// Names of the nodes.
        nodes: BTreeSet<NodeId>,
    },
    /// Change the servers of versions on all nodes, each to the same address.
    Serve {
        /// Changes by version.
        changes: ServerChanges,
    },
    /// Decide a transaction that is stuck, against all rules.
    Resolve {
        /// Name of the transaction.
        txid: TxId,
        /// True if to commit it.
        commit: bool,
    },
}

/// Result of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum CommandResult {
    /// The command is done, on disk here and decided for all participants.
    Committed {
        /// Name of the transaction.
        txid: TxId,
        /// Version of the committed state.
        version: u64,
    },
    /// The command was tried and will not be done.
    Aborted {
        /// Name of the transaction.
        txid: TxId,
        /// Reason, for programs.
        cause: AbortCause,
        /// Reason, for people.
        reason: String,
    },
    /// The command was not tried; nothing changed.
    Refused {
        /// Reason, for programs.
        cause: AbortCause,
        /// Reason, for people.
        reason: String,
        /// The transaction that is in the way, if any.
        running: Option<TxId>,
    },
}

/// An effect that only this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraEffect {
    /// Serve a state from now on, all at once. Only committed states are given here, each after it
    /// is on disk (T1).
    Serve(ServedState),
    /// Put a decision into the log of decisions; answered by [`ExtraInput::Decided`] with the first
    /// entry of that transaction, which another node may have written. Comes again until it is
    /// answered (T10).
    Decide {
        /// Name of the transaction.
        txid: TxId,
        /// True if it is to be committed.
        commit: bool,
        /// Proof that it may be committed.
        proof: Option<Box<Committed>>,
    },
    /// Have this node's server of a version answer one request; answered by
    /// [`ExtraInput::Probed`].
    Probe(ModelId),
    /// Change the servers of this node as all have agreed; comes again after a restart until
    /// [`Config::servers_at`](super::Config::servers_at) says that it was done.
    ChangeServers {
        /// Version of the state with which it was committed.
        version: u64,
        /// Changes by version.
        changes: ServerChanges,
    },
    /// Answer a command.
    Answer(CommandId, CommandResult),
}

/// A deadline of the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next heartbeat is due.
    Heartbeat,
    /// The time-out of the votes has passed.
    Votes,
    /// The next question for a decision is due.
    Doubt,
    /// A step may be due.
    Step,
    /// The waiting time of orders has passed.
    Orders,
    /// Nodes whose end the seeds certify may have to be removed.
    Dead,
    /// The next call to a node is due.
    Redial(NodeId),
}

/// A fact that a node must know after a crash. Records are written in order and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A start of this node; its transactions carry the number (P1).
    Epoch {
        /// Number of the start.
        epoch: u64,
    },
    /// All others have told what they had seen. Of transactions up to these marks this node does
    /// not know what it said; of later ones it remembers everything.
    Recalled {
        /// Marks by coordinator.
        unsure: std::collections::BTreeMap<NodeId, TxMark>,
    },
    /// A vote COMMIT: this node is in doubt from here on.
    Prepared(Box<TxProposal>),
    /// A vote ABORT; no other follows on this transaction or an earlier one of that coordinator.
    Refused {
        /// Name of the refused transaction.
        txid: TxId,
    },
    /// A transaction was committed, and is served from here on.
    Committed(Box<Committed>),
    /// A transaction was aborted.
    Aborted(Aborted),
    /// The brake was put on.
    Braked(Brake),
}

/// An aborted transaction, as history keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// Name of the transaction.
    pub txid: TxId,
    /// The version that it proposed; absent when this node never saw the proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Reason, for programs.
    pub cause: AbortCause,
    /// Reason, for people.
    pub reason: String,
    /// Proof of the abort.
    #[serde(flatten)]
    pub proof: TxProof,
}

/// An event that the machine reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node coordinates a transaction from now on.
    Began(Arc<TxProposal>),
    /// This node voted.
    Voted {
        /// Name of the transaction.
        txid: TxId,
        /// The vote, COMMIT or ABORT.
        vote: Choice,
        /// Reason of the vote, for people.
        reason: String,
    },
    /// A vote came to this node as the coordinator.
    VoteHeard {
        /// Name of the voter.
        node: NodeId,
        /// Name of the transaction.
        txid: TxId,
        /// The vote, COMMIT or ABORT.
        vote: Choice,
        /// Reason of the vote, for people.
        reason: String,
    },
    /// A transaction was committed, here and on disk.
    Committed(Arc<Committed>),
    /// A transaction was aborted.
    Aborted(Aborted),
    /// All participants have a transaction of this node on disk.
    Everywhere(TxId),
    /// This node waits for a decision that no node in reach knows.
    InDoubt {
        /// Name of the transaction.
        txid: TxId,
        /// Time that it has waited so far.
        waited: Duration,
        /// Participants that may know the decision: those that have not said that they wait too.
        waits_for: Vec<NodeId>,
    },
    /// A transaction was decided against all rules, or with the removal of its coordinator; kept
    /// for ever.
    Resolved {
        /// Name of the transaction.
        txid: TxId,
        /// The authority for it.
        by: RemovalAuthority,
        /// The decision, with its signature.
        resolution: Resolution,
    },
    /// A node has served another content under the same version. Never happens unless an operator
    /// resolved a transaction against its outcome, or two operators called each other's nodes gone.
    Diverged {
        /// Name of the node.
        node: NodeId,
        /// The version with two contents.
        version: u64,
    },
    /// A node has another roster; nothing is agreed with that node.
    OtherRoster {
        /// Name of the node.
        node: NodeId,
        /// Digest of its roster.
        digest: Digest,
    },
    /// This node begins without a memory and asks all others; it votes when they have answered.
    Recalling {
        /// Nodes that have not answered.
        waits_for: BTreeSet<NodeId>,
    },
    /// This node knows enough to vote.
    Recalled,
    /// A node has seen later transactions of this node than the log here can know: the log was
    /// restored from a backup. This node signs nothing before all others have told what they have
    /// seen.
    Rewound {
        /// Name of the node that has seen them.
        by: NodeId,
    },
    /// This node was called gone while it was away: it decides nothing anymore.
    Removed {
        /// Name of the transaction.
        txid: TxId,
        /// The authority for it.
        by: RemovalAuthority,
    },
    /// Nodes whose end the seeds certify still take part.
    DeadStay(DeadParticipants),
    /// This node takes a rollout's steps from now on, because its owner is away.
    TookOver {
        /// Owner of the rollout.
        owner: NodeId,
    },
    /// A step is due and held: there are too few requests, or a node is out of reach.
    StepHeld {
        /// Reason, for people.
        reason: String,
    },
    /// A gate failed; the brake is put on, and a rollback follows.
    GateFailed {
        /// Node on which it failed; `None`: over all together.
        node: Option<NodeId>,
        /// The gate that failed.
        gate: Gate,
    },
    /// A node is called at another place than the roster names: it has called from there, or this
    /// node's configuration says so.
    Moved {
        /// Name of the node.
        node: NodeId,
        /// Address of the node, as `host:port`.
        at: String,
    },
    /// A node has no servers of its own, among nodes that have, and answers with an echo.
    Echoes {
        /// Name of the node; it may be this one.
        node: NodeId,
    },
    /// A node asks other servers than this node does for the same versions.
    OtherServers {
        /// Name of the node.
        node: NodeId,
        /// The versions with other servers.
        models: Vec<ModelId>,
    },
    /// The brake is on: everything goes to the stable version until a rollback is committed.
    Braked(Brake),
    /// A node came within reach.
    Reached(NodeId),
    /// A node is out of reach.
    Lost(NodeId),
    /// A message or a link was dropped and counted; with its sender and the reason.
    Dropped(NodeId, &'static str),
}

/// Nodes that still take part though the seeds certify their end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadParticipants {
    /// Names of the nodes.
    pub nodes: BTreeSet<NodeId>,
    /// Reason, for programs.
    pub cause: AbortCause,
    /// Reason, for people.
    pub reason: String,
    /// The transaction that is in the way, if any.
    pub running: Option<TxId>,
}
