//! What is voted on, what a vote is, and what proves a decision (T3).
//!
//! Invariants:
//! - A vote signs transaction, content and voter; nobody signs COMMIT and ABORT of one transaction
//!   unless that transaction was aborted already.
//! - COMMIT is proved by the COMMIT votes of all who take part, the coordinator's included; it
//!   signs its own only when all others are there, with its decision on disk.
//! - ABORT is proved by one ABORT vote. A coordinator that waited in vain signs its own.
//! - So nobody can prove both, and nobody but participants can prove anything.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ids::{Kind, NodeId, TxId};
use super::plan::Plan;
use super::roster::{Participant, Roster};
use super::state::{Digest, RoutingState};
use crate::model::{KeyPair, Signature, SigningBytes, WallTime};

/// The longest [`Proposal::note`] in bytes, and the longest reason that history keeps.
pub const NOTE_BYTES_MAX: usize = 1000;

/// As much of a text as is kept.
pub(super) fn cut(mut text: String) -> String {
    let end = (0..=text.len().min(NOTE_BYTES_MAX)).rev().find(|it| text.is_char_boundary(*it));
    text.truncate(end.unwrap_or(0));
    text
}

/// The content of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its name.
    pub txid: TxId,
    /// What everybody serves if it is committed.
    pub state: RoutingState,
    /// The digest of the state that it follows.
    pub base: Digest,
    /// The digest of the roster in force before it.
    pub roster: Digest,
    /// The roster from then on, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_roster: Option<Roster>,
    /// The plan that it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// For people: why, in a rollback's case the gate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Who is taken out of the roster without its vote, if anybody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// The authority on whose word nodes are called gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// An operator, who knows that no others call those gone that remain.
    #[default]
    Operator,
    /// A quorum of the fleet's seeds, whose certificate each voter has for itself.
    Seeds,
}

impl Word {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    fn is_operator(&self) -> bool {
        *self == Self::Operator
    }
}

/// Nodes that are gone: the others change the roster without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Which.
    pub nodes: BTreeSet<NodeId>,
    /// The authority for it.
    #[serde(default, skip_serializing_if = "Word::is_operator")]
    pub by: Word,
    /// The transaction that all who vote are in doubt about: it may have been committed by one that
    /// is gone, so it is committed before this one, by the same word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles: Option<Box<Committed>>,
}

impl Proposal {
    /// What votes sign: all of it.
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
        // Nothing where nobody is gone: what was signed before there was such a word stays true.
        if let Some(Gone { nodes, by, settles }) = &self.gone {
            bytes = bytes.number(nodes.len() as u64);
            bytes = nodes.iter().fold(bytes, |bytes, it| bytes.text(it.as_str()));
            bytes = match settles {
                None => bytes.number(0),
                Some(it) => bytes.number(1).bytes(&it.proposal.digest().0),
            };
            if *by == Word::Seeds {
                bytes = bytes.text("seeds");
            }
        }
        Digest(bytes.sha256())
    }

    /// Who votes on it when `roster` is in force: these and, if it changes, the new ones (T7), but
    /// nobody who is gone.
    pub fn participants<'a>(&'a self, roster: &'a Roster) -> Vec<&'a Participant> {
        let new = self.new_roster.iter().flat_map(Roster::nodes);
        let added = new.filter(|it| !roster.has(&it.node_id));
        roster.nodes().chain(added).filter(|it| !self.calls_gone(&it.node_id)).collect()
    }

    /// Whether it takes that node out without its vote.
    pub fn calls_gone(&self, node: &NodeId) -> bool {
        self.gone.as_ref().is_some_and(|it| it.nodes.contains(node))
    }

    /// The transaction that is committed before this one and with it, if there is such a one.
    pub fn settles(&self) -> Option<&Committed> {
        self.gone.as_ref()?.settles.as_deref()
    }

    /// Whether that is this one.
    pub(super) fn settles_tx(&self, txid: &TxId) -> bool {
        self.settles().is_some_and(|it| it.proposal.txid == *txid)
    }

    /// The highest number in it that the machine reckons with.
    pub(super) fn highest(&self) -> u64 {
        let settled = self.settles().map_or(0, |it| it.proposal.highest());
        let plan = self.plan.as_ref().map_or(0, Plan::highest);
        self.txid.highest().max(self.state.version).max(settled).max(plan)
    }

    /// Whether a node proposes it of itself: an operator's order goes first.
    pub(super) fn is_by_itself(&self) -> bool {
        match self.txid.kind {
            Kind::Step | Kind::Finish => true,
            Kind::Rollback | Kind::Abort => !self.note.is_empty(),
            Kind::Roster => self.gone.as_ref().is_some_and(|it| it.by == Word::Seeds),
            Kind::Start | Kind::Promote | Kind::Retry | Kind::Pause | Kind::Resume => false,
        }
    }

    /// Why this cannot be one, whoever says so: its parts do not fit together.
    pub(super) fn complaint(&self) -> Option<&'static str> {
        if self.state.txid.as_ref() != Some(&self.txid) {
            return Some("the state is of another transaction");
        }
        if self.plan.is_some() != matches!(self.txid.kind, Kind::Start | Kind::Retry) {
            return Some("a plan is missing, or is one too many");
        }
        if self.new_roster.is_some() != (self.txid.kind == Kind::Roster) {
            return Some("a roster is missing, or is one too many");
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
        let Gone { nodes, settles, .. } = self.gone.as_ref()?;
        let Some(roster) = &self.new_roster else { return Some("the gone need a new roster") };
        if nodes.is_empty() || nodes.contains(&self.txid.node) {
            return Some("nobody is gone, or the coordinator");
        }
        if nodes.iter().any(|it| roster.has(it)) {
            return Some("who is gone cannot take part");
        }
        let Proposal { txid, state, new_roster, gone, .. } = &settles.as_ref()?.proposal;
        let follows = self.state.version == state.next_version() && self.base == state.digest();
        if !follows || new_roster.is_some() || gone.is_some() || !nodes.contains(&txid.node) {
            return Some("what it settles is not what comes before it");
        }
        settles.as_ref()?.proposal.complaint()
    }
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Choice {
    /// It may be done.
    Commit,
    /// It will not be done.
    Abort,
}

/// A participant's signed vote; on its disk before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who.
    pub node_id: NodeId,
    /// What.
    pub vote: Choice,
    /// Over transaction, voter and choice; a COMMIT also over the content.
    pub signature: Signature,
}

fn statement(txid: &TxId, digest: Option<&Digest>, node: &NodeId, choice: Choice) -> SigningBytes {
    let bytes =
        SigningBytes::new("folkmoot/rollout/vote/1").text(&txid.to_string()).text(node.as_str());
    match (choice, digest) {
        (Choice::Commit, Some(digest)) => bytes.number(1).bytes(&digest.0),
        // An ABORT is of the transaction, whatever it says: one may refuse what one never saw.
        (Choice::Commit | Choice::Abort, _) => bytes.number(0),
    }
}

impl Vote {
    /// A COMMIT of this content.
    #[must_use]
    pub fn commit(keys: &KeyPair, node: &NodeId, txid: &TxId, digest: &Digest) -> Self {
        let signature = keys.sign(&statement(txid, Some(digest), node, Choice::Commit));
        Self { node_id: node.clone(), vote: Choice::Commit, signature }
    }

    /// An ABORT.
    #[must_use]
    pub fn abort(keys: &KeyPair, node: &NodeId, txid: &TxId) -> Self {
        let signature = keys.sign(&statement(txid, None, node, Choice::Abort));
        Self { node_id: node.clone(), vote: Choice::Abort, signature }
    }

    /// Whether it is this participant's, about this.
    #[must_use]
    pub fn holds(&self, by: &Participant, txid: &TxId, digest: &Digest) -> bool {
        let statement = statement(txid, Some(digest), &self.node_id, self.vote);
        self.node_id == by.node_id && by.key.verifies(&statement, &self.signature)
    }
}

/// An operator's word on a transaction that was stuck, as one member passes it on (T10). It may
/// contradict what a dead coordinator decided; it is kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Where it was said.
    pub node_id: NodeId,
    /// What.
    pub kind: Choice,
    /// When, by that node's clock.
    pub timestamp: WallTime,
    /// Over all of this and the transaction.
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

    /// One that is said here and now.
    #[must_use]
    pub fn new(keys: &KeyPair, node: &NodeId, txid: &TxId, kind: Choice, at: WallTime) -> Self {
        let signature = keys.sign(&Self::statement(txid, node, kind, at));
        Self { node_id: node.clone(), kind, timestamp: at, signature }
    }

    /// Whether it is this participant's, about this.
    #[must_use]
    pub fn holds(&self, by: &Participant, txid: &TxId) -> bool {
        let statement = Self::statement(txid, &self.node_id, self.kind, self.timestamp);
        self.node_id == by.node_id && by.key.verifies(&statement, &self.signature)
    }
}

/// What shows how a transaction ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// COMMIT: everybody's. ABORT: one, or none when an operator or the log said it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
    /// An operator's word instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

impl Proof {
    /// A proof by votes.
    #[must_use]
    pub const fn of(votes: Vec<Vote>) -> Self {
        Self { votes, resolution: None }
    }

    fn is_resolved(&self, txid: &TxId, choice: Choice, by: &[&Participant]) -> bool {
        self.resolution.as_ref().is_some_and(|it| {
            it.kind == choice && by.iter().any(|participant| it.holds(participant, txid))
        })
    }

    /// Whether it shows that `proposal` was committed, when `roster` was in force before.
    #[must_use]
    pub fn shows_commit(&self, proposal: &Proposal, roster: &Roster) -> bool {
        let participants = proposal.participants(roster);
        // Whoever passes this on passes on all of it.
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

    /// Whether it shows that `txid` was aborted, if these took part.
    #[must_use]
    pub fn shows_abort(&self, txid: &TxId, participants: &[&Participant]) -> bool {
        // An ABORT vote is not about the content.
        let any = Digest([0; 32]);
        self.is_resolved(txid, Choice::Abort, participants)
            || self
                .votes
                .iter()
                .filter(|it| it.vote == Choice::Abort)
                .any(|it| participants.iter().any(|participant| it.holds(participant, txid, &any)))
    }
}

/// A committed transaction, with its proof: what history keeps and a node that lacks it fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// What.
    pub proposal: Proposal,
    /// What shows it.
    #[serde(flatten)]
    pub proof: Proof,
}
