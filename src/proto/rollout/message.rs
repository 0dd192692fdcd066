//! Messages between nodes about rollouts: the seed document's five, and those that recovery needs
//! beyond them, in the same style.
//!
//! `docs/PROTOCOL.md`, "Rollout", states fields, duties and limits. The connection's handshake has
//! proved the sender; the machine sees the name and key of each link's other end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::health::HealthSnapshot;
use super::ids::{ModelId, NodeId, TxId, TxKind, TxMark};
use super::plan::Plan;
use super::proposal::{Choice, Committed, GoneNodes, ServerChanges, TxProof, TxProposal, TxVote};
use super::roster::Roster;
use super::state::{Digest, RoutingState, RoutingStatus};

/// Maximum number of committed transactions in one `STATE_RESP`.
pub const STATE_RESP_MAX: usize = 8;

/// Maximum of versions, epochs and counts in a message, 2^62: no real one grows so far, and nothing
/// overflows.
pub const NUMBER_MAX: u64 = 4_611_686_018_427_387_904;

/// One message; flat in a line (`type`), or the payload of a frame (`msg_type`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// A coordinator asks for a vote on a proposal.
    PrepareReq(Box<PrepareReq>),
    /// A participant votes.
    PrepareResp(PrepareResp),
    /// A coordinator tells its decision.
    Decision(Box<Decision>),
    /// A node is alive and says what it serves.
    Heartbeat(Heartbeat),
    /// A node tells what it measured of its traffic.
    HealthSnapshot(HealthSnapshot),
    /// A participant in doubt asks how a transaction ended.
    DecisionReq(DecisionReq),
    /// A node tells what it knows of that transaction.
    DecisionResp(Box<DecisionResp>),
    /// A participant has a decision on disk.
    DecisionAck(DecisionAck),
    /// A node asks for the transactions after its version.
    StateReq(StateReq),
    /// A node sends a part of these.
    StateResp(StateResp),
    /// A node asks at its start for the last transactions that others have seen.
    RecallReq(RecallReq),
    /// A node tells the last transactions that it has seen.
    RecallResp(RecallResp),
}

impl Message {
    /// The highest number of the message that the machine calculates with.
    pub fn highest(&self) -> u64 {
        let of_all = |all: &[Committed]| all.iter().map(|it| it.proposal.highest()).max();
        match self {
            Self::PrepareReq(it) => {
                let gone = it.rest.gone.as_ref().and_then(|it| it.settles.as_deref());
                let settled = gone.map_or(0, |it| it.proposal.highest());
                let plan = it.rest.plan.as_ref().map_or(0, Plan::highest);
                it.txid.highest().max(it.state.version).max(settled).max(plan)
            }
            Self::PrepareResp(it) => it.txid.highest(),
            Self::Decision(it) => {
                let proposal = it.proposal.as_ref().map_or(0, TxProposal::highest);
                it.txid.highest().max(proposal)
            }
            Self::Heartbeat(it) => {
                let in_doubt = it.in_doubt.as_ref().map_or(0, TxId::highest);
                let brake = it.brake.as_ref().map_or(0, |it| it.version.max(it.course.highest()));
                it.last_committed_version.max(in_doubt).max(brake)
            }
            Self::HealthSnapshot(it) => it.highest(),
            Self::DecisionReq(DecisionReq { txid }) | Self::DecisionAck(DecisionAck { txid }) => {
                txid.highest()
            }
            Self::DecisionResp(it) => {
                let proposal = it.proposal.as_ref().map_or(0, TxProposal::highest);
                it.txid.highest().max(proposal)
            }
            Self::StateReq(it) => it.from_version,
            Self::StateResp(it) => of_all(&it.committed).unwrap_or(0),
            // The question is a random number, and a mark may cover all counters of its epoch.
            Self::RecallReq(_) => 0,
            Self::RecallResp(it) => it.seen.values().map(|it| it.epoch).max().unwrap_or(0),
        }
    }
}

/// `PREPARE_REQ`: the coordinator asks for a vote on a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReq {
    /// The transaction, as in the state.
    pub txid: TxId,
    /// The proposed state.
    pub state: RoutingState,
    /// The rest of the content.
    #[serde(flatten)]
    pub rest: ProposalRest,
}

/// The parts of a proposal beyond the fields of the seed document's messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalRest {
    /// Digest of the state before.
    pub base: Digest,
    /// Digest of the roster before.
    pub roster: Digest,
    /// The roster from then on, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_roster: Option<Roster>,
    /// The plan, if the transaction starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Reason of the transaction, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Nodes that do not vote on it, because they are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneNodes>,
    /// Servers that every node has for versions from then on, if they change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub serves: ServerChanges,
}

impl From<TxProposal> for PrepareReq {
    fn from(proposal: TxProposal) -> Self {
        let TxProposal { txid, state, base, roster, new_roster, plan, note, gone, serves } =
            proposal;
        let rest = ProposalRest { base, roster, new_roster, plan, note, gone, serves };
        Self { txid, state, rest }
    }
}

impl From<PrepareReq> for TxProposal {
    fn from(message: PrepareReq) -> Self {
        let PrepareReq { txid, state, rest } = message;
        let ProposalRest { base, roster, new_roster, plan, note, gone, serves } = rest;
        Self { txid, state, base, roster, new_roster, plan, note, gone, serves }
    }
}

/// Reason for which a node does not vote COMMIT, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    /// The parts of the proposal do not fit together, or the command is wrong.
    Malformed,
    /// Another transaction is in progress.
    Busy,
    /// The version is not the next one, or follows another state.
    Version,
    /// The roster is another one, or the node is not in it.
    Roster,
    /// A gate does not hold.
    Gate,
    /// This node's data plane cannot ask such a model, or the model does not answer.
    Model,
    /// This node does not know yet what it may have said before it lost its memory.
    Recalling,
    /// The transaction is over or refused, or a later one of its coordinator was seen.
    Late,
    /// Not all participants voted in time.
    NoVote,
    /// There is nothing that the command applies to.
    Nothing,
    /// An operator, or the log of decisions, decided so.
    Resolved,
    /// A node that is called gone is in reach.
    Reached,
    /// This node waits for the end of a transaction that it voted for.
    InDoubt,
    /// The seeds have not told this node that the nodes which a proposal removes are dead.
    NoWord,
}

/// `PREPARE_RESP`: the vote of a participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareResp {
    /// Name of the transaction voted on.
    pub txid: TxId,
    /// COMMIT or ABORT.
    pub vote: Choice,
    /// Reason of the vote, for people.
    pub reason: String,
    /// Reason of an ABORT, for programs; absent with a COMMIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<AbortCause>,
    /// The signed vote; absent when the node may sign nothing about this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<TxVote>,
}

/// `DECISION`. On the wire its content is flat as in `PREPARE_REQ`, with the state's status set by
/// the kind, so nothing is said twice and a state that contradicts the rest is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DecisionFields", into = "DecisionFields")]
pub struct Decision {
    /// Name of the transaction decided.
    pub txid: TxId,
    /// The decision, COMMIT or ABORT.
    pub kind: Choice,
    /// The content, always present with COMMIT: its state is served from now on.
    pub proposal: Option<TxProposal>,
    /// Proof of the decision.
    pub proof: TxProof,
    /// Reason of an ABORT, for people.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct DecisionFields {
    txid: TxId,
    kind: Choice,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<RoutingState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roster: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_roster: Option<Roster>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<GoneNodes>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    serves: ServerChanges,
    #[serde(flatten)]
    proof: TxProof,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<Decision> for DecisionFields {
    fn from(decision: Decision) -> Self {
        let Decision { txid, kind, proposal, proof, reason } = decision;
        let none = Self {
            txid,
            kind,
            state: None,
            base: None,
            roster: None,
            new_roster: None,
            plan: None,
            note: String::new(),
            gone: None,
            serves: ServerChanges::new(),
            proof,
            reason,
        };
        let Some(proposal) = proposal else { return none };
        let TxProposal { state, base, roster, new_roster, plan, note, gone, serves, .. } = proposal;
        let state = Some(state.with_status(status_of(kind)));
        let (base, roster) = (Some(base), Some(roster));
        Self { state, base, roster, new_roster, plan, note, gone, serves, ..none }
    }
}

const fn status_of(kind: Choice) -> RoutingStatus {
    match kind {
        Choice::Commit => RoutingStatus::Committed,
        Choice::Abort => RoutingStatus::Aborted,
    }
}

impl TryFrom<DecisionFields> for Decision {
    type Error = &'static str;

    fn try_from(fields: DecisionFields) -> Result<Self, Self::Error> {
        let DecisionFields {
            txid,
            kind,
            state,
            base,
            roster,
            new_roster,
            plan,
            note,
            gone,
            serves,
            proof,
            reason,
        } = fields;
        if let Some(state) = &state {
            if state.txid.as_ref() != Some(&txid) {
                return Err("the decision's `state` is of another `txid`");
            }
            if state.status != status_of(kind) {
                return Err("the decision's `state` has a `status` that is not its `kind`");
            }
        }
        let proposal = match (state, base, roster) {
            (Some(state), Some(base), Some(roster)) => {
                let txid = txid.clone();
                Some(TxProposal { txid, state, base, roster, new_roster, plan, note, gone, serves })
            }
            (None, ..) if kind == Choice::Commit => return Err("missing field `state`"),
            (_, None, _) if kind == Choice::Commit => return Err("missing field `base`"),
            (_, _, None) if kind == Choice::Commit => return Err("missing field `roster`"),
            // An ABORT ends the transaction that it names, whatever its content was.
            _ => None,
        };
        Ok(Self { txid, kind, proposal, proof, reason })
    }
}

/// `HEARTBEAT`: the state that the sender serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Name of the sender.
    pub node_id: NodeId,
    /// The version that the sender serves.
    pub last_committed_version: u64,
    /// Digest of the state of that version.
    pub digest: Digest,
    /// Digest of the sender's roster.
    pub roster: Digest,
    /// The transaction that the sender is in doubt about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<TxId>,
    /// Versions that the sender has servers for, each with a text that tells its server from
    /// others; empty: the sender echoes; absent: it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<BTreeMap<ModelId, String>>,
    /// The sender's brake, if it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake: Option<Brake>,
}

/// A brake that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// The transaction that began the rollout.
    pub course: TxId,
    /// The version that was committed when it was put on.
    pub version: u64,
    /// The kind of transaction that is to follow: rollback or abort.
    pub kind: TxKind,
    /// The reason, for people.
    pub reason: String,
}

/// `DECISION_REQ`: a question for the end of a transaction, from a participant in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionReq {
    /// Name of the transaction in doubt.
    pub txid: TxId,
}

/// The fate of a transaction, as far as a node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TxEnd {
    /// The transaction was committed.
    Commit,
    /// The transaction was aborted.
    Abort,
    /// The node voted COMMIT and waits as well, or may not know what it voted.
    Uncertain,
    /// The node had not voted and never will: this is an ABORT.
    Refused,
}

/// `DECISION_RESP`: the end of a transaction, as far as the sender knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionResp {
    /// Name of the transaction in doubt.
    pub txid: TxId,
    /// The outcome, as far as the node knows it.
    pub outcome: TxEnd,
    /// The content, with COMMIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<TxProposal>,
    /// Proof of the outcome.
    #[serde(flatten)]
    pub proof: TxProof,
}

/// `DECISION_ACK`: the sender has the decision on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionAck {
    /// Name of the transaction on disk.
    pub txid: TxId,
}

/// `STATE_REQ`: a question for the transactions after a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReq {
    /// Version after which transactions are wanted.
    pub from_version: u64,
}

/// `STATE_RESP`: some of these transactions, at most [`STATE_RESP_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateResp {
    /// Committed transactions, ascending by version, at most one of each.
    pub committed: Vec<Committed>,
}

/// `RECALL_REQ`: a question for the last transactions seen, from a node at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallReq {
    /// Random number that tells the question from those of former lives.
    pub question: u64,
}

/// `RECALL_RESP`: the last transactions that the sender has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallResp {
    /// The question that is answered.
    pub question: u64,
    /// The last transaction of each coordinator that this node has seen anything of, its own
    /// included.
    pub seen: BTreeMap<NodeId, TxMark>,
}
