//! What nodes say to each other about rollouts: the seed document's five messages, and what
//! recovery needs beyond them, in the same style.
//!
//! `docs/PROTOCOL.md`, "Rollout", states fields, duties and limits. Who says it was proved by the
//! connection's handshake; the machine sees the name and key of each link's other end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::brake::Brake;
use super::health::HealthSnapshot;
use super::ids::{Mark, ModelId, NodeId, TxId};
use super::plan::Plan;
use super::proposal::{Choice, Committed, Gone, Proof, Proposal, Vote};
use super::state::{Digest, RoutingState, Status};

/// Committed transactions in one `STATE_RESP` at most.
pub const STATE_RESP_MAX: usize = 8;

/// No version, epoch or count in a message is above this, 2^62: nobody gets there, and nothing
/// overflows.
pub const NUMBER_MAX: u64 = 4_611_686_018_427_387_904;

/// One message; flat in a line (`type`), or the payload of a frame (`msg_type`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// Will you do this?
    PrepareReq(Box<PrepareReq>),
    /// I will; or: I will not.
    PrepareResp(PrepareResp),
    /// It is decided.
    Decision(Box<Decision>),
    /// I am alive, and this is what I serve.
    Heartbeat(Heartbeat),
    /// This is how my traffic fares.
    HealthSnapshot(HealthSnapshot),
    /// How did this end? I am in doubt.
    DecisionReq(DecisionReq),
    /// So.
    DecisionResp(Box<DecisionResp>),
    /// I have it on disk.
    DecisionAck(DecisionAck),
    /// What came after this version?
    StateReq(StateReq),
    /// A part of it.
    StateResp(StateResp),
    /// I know nothing of what I did before: what have you seen of anybody?
    RecallReq(RecallReq),
    /// This.
    RecallResp(RecallResp),
}

impl Message {
    /// The highest number in it that the machine reckons with.
    pub(super) fn highest(&self) -> u64 {
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
                let proposal = it.proposal.as_ref().map_or(0, Proposal::highest);
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
                let proposal = it.proposal.as_ref().map_or(0, Proposal::highest);
                it.txid.highest().max(proposal)
            }
            Self::StateReq(it) => it.from_version,
            Self::StateResp(it) => of_all(&it.committed).unwrap_or(0),
            // A question is drawn, and a mark may be of all that its epoch could have.
            Self::RecallReq(_) => 0,
            Self::RecallResp(it) => it.seen.values().map(|it| it.epoch).max().unwrap_or(0),
        }
    }
}

/// `PREPARE_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReq {
    /// The transaction, as in the state.
    pub txid: TxId,
    /// What is to be served.
    pub state: RoutingState,
    /// The rest of the content.
    #[serde(flatten)]
    pub rest: ProposalRest,
}

/// A proposal without what stands beside it in the seed document's messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalRest {
    /// The digest of the state before.
    pub base: Digest,
    /// The digest of the roster before.
    pub roster: Digest,
    /// The roster after, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_roster: Option<super::roster::Roster>,
    /// The plan, if it starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<super::plan::Plan>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Who does not vote on it, because it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

impl From<Proposal> for PrepareReq {
    fn from(proposal: Proposal) -> Self {
        let Proposal { txid, state, base, roster, new_roster, plan, note, gone } = proposal;
        Self { txid, state, rest: ProposalRest { base, roster, new_roster, plan, note, gone } }
    }
}

impl From<PrepareReq> for Proposal {
    fn from(message: PrepareReq) -> Self {
        let PrepareReq { txid, state, rest } = message;
        let ProposalRest { base, roster, new_roster, plan, note, gone } = rest;
        Self { txid, state, base, roster, new_roster, plan, note, gone }
    }
}

/// Why a node does not vote COMMIT, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The parts of the proposal do not fit together, or the command is wrong.
    Malformed,
    /// Another transaction is running.
    Busy,
    /// The version is not the next one, or follows another state.
    Version,
    /// The roster is another one, or the node is not in it.
    Roster,
    /// A gate does not hold.
    Gate,
    /// This node has no such model.
    Model,
    /// This node does not know yet what it may have said before it lost its memory.
    Recalling,
    /// The transaction is over, or one after it was seen.
    Late,
    /// Not everybody voted in time.
    NoVote,
    /// There is nothing that this could be done to.
    Nothing,
    /// An operator, or the log, said so.
    Resolved,
    /// Whoever is called gone is in reach.
    Reached,
    /// This node waits for the end of a transaction that it voted for.
    InDoubt,
    /// The seeds have not told this node what a proposal says by their word.
    NoWord,
}

/// `PREPARE_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareResp {
    /// The transaction.
    pub txid: TxId,
    /// Yes or no.
    pub vote: Choice,
    /// For people.
    pub reason: String,
    /// For programs; absent with a COMMIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The vote itself; absent when the node may sign nothing about this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Vote>,
}

/// `DECISION`. On the wire its content is flat as in `PREPARE_REQ`, with the state's status set by
/// the kind, so nothing is said twice and a state that contradicts the rest is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DecisionFields", into = "DecisionFields")]
pub struct Decision {
    /// The transaction.
    pub txid: TxId,
    /// How it ended.
    pub kind: Choice,
    /// The content, with COMMIT always: its state is what is served from now on.
    pub proposal: Option<Proposal>,
    /// What shows it.
    pub proof: Proof,
    /// For people, with ABORT.
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
    new_roster: Option<super::roster::Roster>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<super::plan::Plan>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
    #[serde(flatten)]
    proof: Proof,
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
            proof,
            reason,
        };
        let Some(Proposal { state, base, roster, new_roster, plan, note, gone, .. }) = proposal
        else {
            return none;
        };
        let state = Some(state.with_status(status_of(kind)));
        let (base, roster) = (Some(base), Some(roster));
        Self { state, base, roster, new_roster, plan, note, gone, ..none }
    }
}

const fn status_of(kind: Choice) -> Status {
    match kind {
        Choice::Commit => Status::Committed,
        Choice::Abort => Status::Aborted,
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
                Some(Proposal { txid, state, base, roster, new_roster, plan, note, gone })
            }
            (None, ..) if kind == Choice::Commit => return Err("missing field `state`"),
            (_, None, _) if kind == Choice::Commit => return Err("missing field `base`"),
            (_, _, None) if kind == Choice::Commit => return Err("missing field `roster`"),
            // An ABORT ends what it names, whatever that was.
            _ => None,
        };
        Ok(Self { txid, kind, proposal, proof, reason })
    }
}

/// `HEARTBEAT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who.
    pub node_id: NodeId,
    /// What it serves.
    pub last_committed_version: u64,
    /// That state's digest.
    pub digest: Digest,
    /// The digest of its roster.
    pub roster: Digest,
    /// The transaction that it is in doubt about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<TxId>,
    /// The versions that it has servers for, each with what tells that from others; empty: it
    /// echoes; absent: it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<BTreeMap<ModelId, String>>,
    /// Its brake, if that is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake: Option<Brake>,
}

/// `DECISION_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionReq {
    /// The transaction.
    pub txid: TxId,
}

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// It was committed.
    Commit,
    /// It was aborted.
    Abort,
    /// The node voted COMMIT and waits as well, or may not know what it voted.
    Uncertain,
    /// The node had not voted and never will: that is an ABORT.
    Refused,
}

/// `DECISION_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionResp {
    /// The transaction.
    pub txid: TxId,
    /// How it ended, as far as the node knows.
    pub outcome: Outcome,
    /// With COMMIT the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Proposal>,
    /// What shows it.
    #[serde(flatten)]
    pub proof: Proof,
}

/// `DECISION_ACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionAck {
    /// The transaction.
    pub txid: TxId,
}

/// `STATE_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReq {
    /// What comes after this version is wanted.
    pub from_version: u64,
}

/// `STATE_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateResp {
    /// In order, one version each.
    pub committed: Vec<Committed>,
}

/// `RECALL_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallReq {
    /// Told from questions of former lives by this.
    pub question: u64,
}

/// `RECALL_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallResp {
    /// The question.
    pub question: u64,
    /// The last transaction of each coordinator that this node has seen anything of, its own
    /// included.
    pub seen: BTreeMap<NodeId, Mark>,
}
