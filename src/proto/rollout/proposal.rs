//! Proposals, votes and the proofs of decisions (T3).
//!
//! Invariants:
//! - A vote signs transaction, content and voter; no node signs COMMIT and ABORT of one transaction
//!   unless that transaction was aborted already.
//! - COMMIT is proved by the COMMIT votes of all participants. The coordinator signs its own vote
//!   only when all others are there, with its decision on disk.
//! - ABORT is proved by one ABORT vote. A coordinator that waited in vain signs its own.
//! - So no node can prove both, and only participants can prove anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ids::{ModelId, NodeId, TxId, TxKind};
use super::plan::Plan;
use super::roster::{Participant, Roster};
use super::state::{Digest, RoutingState};
use crate::model::{KeyPair, Signature, SigningBytes, WallTime};

/// Maximum length of [`TxProposal::note`] and of a reason in history, in bytes.
pub const NOTE_BYTES_MAX: usize = 1000;

/// Maximum number of versions whose servers one transaction changes.
pub const SERVES_MAX: usize = 16;

/// Maximum length of all addresses of servers in one transaction, in bytes.
pub const SERVES_BYTES_MAX: usize = 4096;

/// Changes of servers: the address of each version's new server; `None`: no server any more.
pub type ServerChanges = BTreeMap<ModelId, Option<String>>;

/// Cuts a text to [`NOTE_BYTES_MAX`] bytes, at a character boundary.
pub fn cut(mut text: String) -> String {
    let end = (0..=text.len().min(NOTE_BYTES_MAX)).rev().find(|it| text.is_char_boundary(*it));
    text.truncate(end.unwrap_or(0));
    text
}

/// The content of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxProposal {
    /// Name of the transaction.
    pub txid: TxId,
    /// The state that all nodes serve if the proposal is committed.
    pub state: RoutingState,
    /// Digest of the state before.
    pub base: Digest,
    /// Digest of the roster in force before.
    pub roster: Digest,
    /// The roster from then on, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_roster: Option<Roster>,
    /// The plan, if the transaction starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Reason of the transaction, for people; of a rollback, the gate that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Nodes that are removed from the roster without their votes, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneNodes>,
    /// Servers that every node has for versions from then on, if they change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub serves: ServerChanges,
}

/// The authority on whose word nodes are called gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalAuthority {
    /// An operator, who vouches that the gone nodes do not go on by themselves and remove these.
    #[default]
    Operator,
    /// A quorum of the fleet's seeds, whose certificate each voter has for itself.
    Seeds,
}

impl RemovalAuthority {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    fn is_operator(&self) -> bool {
        *self == Self::Operator
    }
}

/// Nodes that are gone: the others change the roster without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneNodes {
    /// Names of the nodes.
    pub nodes: BTreeSet<NodeId>,
    /// The authority for the removal.
    #[serde(default, skip_serializing_if = "RemovalAuthority::is_operator")]
    pub by: RemovalAuthority,
    /// The transaction that all voters are in doubt about: a gone node may have committed it, so it
    /// is committed before this one, by the same word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles: Option<Box<Committed>>,
}

impl TxProposal {
    /// Digest of the whole content, which votes sign.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let bytes = SigningBytes::new("folkmoot/rollout/proposal/1")
            .text(&self.txid.to_string())
            .bytes(&self.base.0)
            .bytes(&self.roster.0)
            .text(&self.note);
        let bytes = self.state.sign_into(bytes);
        let bytes = match &self.new_roster {
            None => bytes.number(0),
            Some(roster) => roster.sign_into(bytes.number(1)),
        };
        let mut bytes = match &self.plan {
            None => bytes.number(0),
            Some(plan) => plan.sign_into(bytes.number(1)),
        };
        // Nothing is added when no node is gone, so proposals signed before the field existed stay
        // valid.
        if let Some(GoneNodes { nodes, by, settles }) = &self.gone {
            bytes = bytes.number(nodes.len() as u64);
            bytes = nodes.iter().fold(bytes, |bytes, it| bytes.text(it.as_str()));
            bytes = match settles {
                None => bytes.number(0),
                Some(it) => bytes.number(1).bytes(&it.proposal.digest().0),
            };
            if *by == RemovalAuthority::Seeds {
                bytes = bytes.text("seeds");
            }
        }
        // The kind in the name says that this is no part of the gone.
        if !self.serves.is_empty() {
            bytes = bytes.text("serves").number(self.serves.len() as u64);
            bytes = self.serves.iter().fold(bytes, |bytes, (model, server)| {
                let bytes = bytes.text(model.as_str());
                match server {
                    None => bytes.number(0),
                    Some(server) => bytes.number(1).text(server),
                }
            });
        }
        Digest(bytes.sha256())
    }

    /// Voters on the proposal when `roster` is in force: its participants and, if it changes, the
    /// added ones (T7), without the gone ones.
    pub fn participants<'a>(&'a self, roster: &'a Roster) -> Vec<&'a Participant> {
        let new = self.new_roster.iter().flat_map(Roster::nodes);
        let added = new.filter(|it| !roster.has(&it.node_id));
        roster.nodes().chain(added).filter(|it| !self.calls_gone(&it.node_id)).collect()
    }

    /// True if the proposal removes that node without its vote.
    pub fn calls_gone(&self, node: &NodeId) -> bool {
        self.gone.as_ref().is_some_and(|it| it.nodes.contains(node))
    }

    /// The transaction that is committed before this one and with it, if any.
    pub fn settles(&self) -> Option<&Committed> {
        self.gone.as_ref()?.settles.as_deref()
    }

    /// True if `txid` is the transaction that this one settles.
    pub fn settles_tx(&self, txid: &TxId) -> bool {
        self.settles().is_some_and(|it| it.proposal.txid == *txid)
    }

    /// The highest number of the proposal that the machine calculates with.
    pub fn highest(&self) -> u64 {
        let settled = self.settles().map_or(0, |it| it.proposal.highest());
        let plan = self.plan.as_ref().map_or(0, Plan::highest);
        self.txid.highest().max(self.state.version).max(settled).max(plan)
    }

    /// True if a node makes such a proposal of itself: an operator's order has priority over it.
    pub fn is_by_itself(&self) -> bool {
        match self.txid.kind {
            TxKind::Step | TxKind::Finish => true,
            TxKind::Rollback | TxKind::Abort => !self.note.is_empty(),
            TxKind::Roster => self.gone.as_ref().is_some_and(|it| it.by == RemovalAuthority::Seeds),
            TxKind::Start
            | TxKind::Promote
            | TxKind::Retry
            | TxKind::Pause
            | TxKind::Resume
            | TxKind::Serve => false,
        }
    }

    /// Returns the reason why this is no proposal: its parts do not fit together. `None` if they
    /// do.
    pub fn complaint(&self) -> Option<&'static str> {
        if self.state.txid.as_ref() != Some(&self.txid) {
            return Some("the state is of another transaction");
        }
        if self.plan.is_some() != matches!(self.txid.kind, TxKind::Start | TxKind::Retry) {
            return Some("a plan is missing, or is one too many");
        }
        if self.new_roster.is_some() != (self.txid.kind == TxKind::Roster) {
            return Some("a roster is missing, or is one too many");
        }
        if self.serves.is_empty() == (self.txid.kind == TxKind::Serve) {
            return Some("servers are missing, or are some too many");
        }
        if self.serves.len() > SERVES_MAX {
            return Some("the servers of at most 16 versions change at once");
        }
        if self.serves.values().flatten().map(String::len).sum::<usize>() > SERVES_BYTES_MAX {
            return Some("the addresses of servers have more than 4096 bytes together");
        }
        if self.note.len() > NOTE_BYTES_MAX {
            return Some("the note has more than 1000 bytes");
        }
        if let Some(Err(complaint)) = self.plan.as_ref().map(Plan::check) {
            return Some(complaint);
        }
        self.complaint_of_gone().or_else(|| self.state.complaint())
    }

    fn complaint_of_gone(&self) -> Option<&'static str> {
        let GoneNodes { nodes, settles, .. } = self.gone.as_ref()?;
        let Some(roster) = &self.new_roster else { return Some("the gone need a new roster") };
        if nodes.is_empty() || nodes.contains(&self.txid.node) {
            return Some("nobody is gone, or the coordinator");
        }
        if nodes.iter().any(|it| roster.has(it)) {
            return Some("who is gone cannot take part");
        }
        let TxProposal { txid, state, new_roster, gone, .. } = &settles.as_ref()?.proposal;
        let follows = self.state.version == state.next_version() && self.base == state.digest();
        if !follows || new_roster.is_some() || gone.is_some() || !nodes.contains(&txid.node) {
            return Some("what it settles is not what comes before it");
        }
        settles.as_ref()?.proposal.complaint()
    }
}

/// COMMIT or ABORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Choice {
    /// The transaction may be committed.
    Commit,
    /// The transaction will not be committed.
    Abort,
}

/// A participant's signed vote; on its disk before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxVote {
    /// Name of the voter.
    pub node_id: NodeId,
    /// The voter's choice, COMMIT or ABORT.
    pub vote: Choice,
    /// Signature over transaction, voter and choice; of a COMMIT also over the content.
    pub signature: Signature,
}

fn statement(txid: &TxId, digest: Option<&Digest>, node: &NodeId, choice: Choice) -> SigningBytes {
    let bytes =
        SigningBytes::new("folkmoot/rollout/vote/1").text(&txid.to_string()).text(node.as_str());
    match (choice, digest) {
        (Choice::Commit, Some(digest)) => bytes.number(1).bytes(&digest.0),
        // An ABORT covers the transaction without its content: a node may refuse one that it never
        // saw.
        (Choice::Commit | Choice::Abort, _) => bytes.number(0),
    }
}

impl TxVote {
    /// Signs a COMMIT of this content.
    #[must_use]
    pub fn commit(keys: &KeyPair, node: &NodeId, txid: &TxId, digest: &Digest) -> Self {
        let signature = keys.sign(&statement(txid, Some(digest), node, Choice::Commit));
        Self { node_id: node.clone(), vote: Choice::Commit, signature }
    }

    /// Signs an ABORT of the transaction.
    #[must_use]
    pub fn abort(keys: &KeyPair, node: &NodeId, txid: &TxId) -> Self {
        let signature = keys.sign(&statement(txid, None, node, Choice::Abort));
        Self { node_id: node.clone(), vote: Choice::Abort, signature }
    }

    /// True if this is a valid vote of `by` on `txid` with this content.
    #[must_use]
    pub fn holds(&self, by: &Participant, txid: &TxId, digest: &Digest) -> bool {
        let statement = statement(txid, Some(digest), &self.node_id, self.vote);
        self.node_id == by.node_id && by.key.verifies(&statement, &self.signature)
    }
}

/// An operator's decision on a transaction that was stuck, as one member passes it on (T10). It may
/// contradict the decision of a dead coordinator; it is kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Name of the node at which the operator decided.
    pub node_id: NodeId,
    /// The operator's decision, COMMIT or ABORT.
    pub kind: Choice,
    /// Time of the decision, by that node's clock.
    pub timestamp: WallTime,
    /// Signature over the other fields and the transaction.
    pub signature: Signature,
}

impl Resolution {
    fn statement(txid: &TxId, node: &NodeId, kind: Choice, at: WallTime) -> SigningBytes {
        SigningBytes::new("folkmoot/rollout/resolution/1")
            .text(&txid.to_string())
            .text(node.as_str())
            .number(u64::from(kind == Choice::Commit))
            .wall(at)
    }

    /// Signs a resolution of the operator at this node.
    #[must_use]
    pub fn new(keys: &KeyPair, node: &NodeId, txid: &TxId, kind: Choice, at: WallTime) -> Self {
        let signature = keys.sign(&Self::statement(txid, node, kind, at));
        Self { node_id: node.clone(), kind, timestamp: at, signature }
    }

    /// True if this is a valid resolution of `txid`, signed by `by`.
    #[must_use]
    pub fn holds(&self, by: &Participant, txid: &TxId) -> bool {
        let statement = Self::statement(txid, &self.node_id, self.kind, self.timestamp);
        self.node_id == by.node_id && by.key.verifies(&statement, &self.signature)
    }
}

/// Proof of the end of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxProof {
    /// COMMIT: the votes of all participants. ABORT: one vote, or none when an operator or the log
    /// decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<TxVote>,
    /// An operator's decision in place of votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

impl TxProof {
    /// A proof by votes.
    #[must_use]
    pub const fn of(votes: Vec<TxVote>) -> Self {
        Self { votes, resolution: None }
    }

    fn is_resolved(&self, txid: &TxId, choice: Choice, by: &[&Participant]) -> bool {
        self.resolution.as_ref().is_some_and(|it| {
            it.kind == choice && by.iter().any(|participant| it.holds(participant, txid))
        })
    }

    /// True if this proves that `proposal` was committed, when `roster` was in force before.
    #[must_use]
    pub fn shows_commit(&self, proposal: &TxProposal, roster: &Roster) -> bool {
        let participants = proposal.participants(roster);
        // A node that passes a proof on passes on all of it, so surplus votes are refused.
        if self.votes.len() > participants.len() {
            return false;
        }
        if self.is_resolved(&proposal.txid, Choice::Commit, &participants) {
            return true;
        }
        let digest = proposal.digest();
        let voters: BTreeSet<&NodeId> = self
            .votes
            .iter()
            .filter(|it| it.vote == Choice::Commit)
            .filter(|it| participants.iter().any(|by| it.holds(by, &proposal.txid, &digest)))
            .map(|it| &it.node_id)
            .collect();
        voters.len() == participants.len()
    }

    /// True if this proves that `txid` was aborted, if these took part.
    #[must_use]
    pub fn shows_abort(&self, txid: &TxId, participants: &[&Participant]) -> bool {
        // An ABORT vote does not cover the content.
        let any = Digest([0; 32]);
        self.is_resolved(txid, Choice::Abort, participants)
            || self
                .votes
                .iter()
                .filter(|it| it.vote == Choice::Abort)
                .any(|it| participants.iter().any(|participant| it.holds(participant, txid, &any)))
    }
}

/// A committed transaction with its proof, as history keeps it and nodes that lack it fetch it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Content of the transaction.
    pub proposal: TxProposal,
    /// Proof of the commit.
    #[serde(flatten)]
    pub proof: TxProof,
}
