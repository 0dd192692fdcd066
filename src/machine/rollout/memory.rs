//! A node's memory of the past: rebuilt from its log, and updated while the node runs.
//!
//! Invariants: the history has one transaction a version, without a gap; at most one is prepared; a
//! mark is the last transaction of a coordinator on which, and on all before, this node votes
//! COMMIT no more: one entry refuses any number of old ones (P2, P5).
//!
//! Of versions older than the history only the **skeleton** is kept: every change of the roster
//! and of the servers, the last start of a rollout, the last pause or resume, and the last
//! transaction that is neither of the first two. The present depends on nothing else, and a node far behind needs nothing
//! else to believe the present: each proof is by the roster that the change of the roster before it
//! made. Of forgotten transactions this node signs nothing more. No node asks for them in doubt: as
//! long as a member is in doubt about a transaction, no version after that one's can be committed.

use std::collections::{BTreeMap, VecDeque};

use super::config::Config;
use super::event::{Aborted, Record};
use super::progress::RolloutProgress;
use crate::proto::rollout::{
    Brake, Committed, NodeId, Participant, RemovalAuthority, Roster, RoutingState, TxId, TxKind,
    TxMark, TxProposal,
};

/// Maximum number of aborted transactions in history, besides those that an operator resolved.
pub const ABORTED_MAX: usize = 1000;

/// Minimum number of committed transactions that history keeps whole.
pub const HISTORY_MAX: usize = 10_000;

/// A node that was called gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AbsentNode {
    /// The node, as the roster had it.
    pub(super) participant: Participant,
    /// The transaction that removed the node.
    pub(super) txid: TxId,
    /// The authority for it.
    pub(super) by: RemovalAuthority,
}

/// Memory of a node. With no record replayed it is that of a node that never ran, or lost its disk;
/// as no node can tell which, it asks the others first in both cases.
#[derive(Clone, Debug)]
pub struct RolloutMemory {
    history_max: usize,
    epoch: u64,
    /// Marks up to which this node may have forgotten its votes; `None` until all others have
    /// answered.
    unsure: Option<BTreeMap<NodeId, TxMark>>,
    marks: BTreeMap<NodeId, TxMark>,
    prepared: Option<TxProposal>,
    brake: Option<Brake>,
    /// Transactions kept from before the history, ascending by version.
    skeleton: Vec<Committed>,
    history: Vec<Committed>,
    /// Versions of the transactions in the history.
    by_txid: BTreeMap<TxId, u64>,
    aborted: VecDeque<Aborted>,
}

impl Default for RolloutMemory {
    fn default() -> Self {
        Self::keeping(HISTORY_MAX)
    }
}

impl RolloutMemory {
    /// Returns an empty memory that keeps so many committed transactions whole.
    #[must_use]
    pub const fn keeping(history_max: usize) -> Self {
        Self {
            history_max,
            epoch: 0,
            unsure: None,
            marks: BTreeMap::new(),
            prepared: None,
            brake: None,
            skeleton: Vec::new(),
            history: Vec::new(),
            by_txid: BTreeMap::new(),
            aborted: VecDeque::new(),
        }
    }

    /// Replays one record, in the order in which they were written.
    pub fn replay(&mut self, record: Record) {
        match record {
            Record::Epoch { epoch } => self.epoch = self.epoch.max(epoch),
            Record::Recalled { unsure } => self.unsure = Some(unsure),
            Record::Prepared(proposal) => {
                self.mark(&proposal.txid);
                self.prepared = Some(*proposal);
            }
            Record::Refused { txid } => self.mark(&txid),
            Record::Committed(committed) => self.commit(*committed),
            Record::Aborted(aborted) => self.abort(aborted),
            Record::Braked(brake) => self.brake = Some(brake),
        }
    }

    /// Returns records that make the same memory, in place of all before.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = vec![Record::Epoch { epoch: self.epoch }];
        records.extend(self.unsure.clone().map(|unsure| Record::Recalled { unsure }));
        let whole = |it: &Committed| Record::Committed(Box::new(it.clone()));
        records.extend(self.skeleton.iter().chain(&self.history).map(whole));
        records.extend(self.aborted.iter().cloned().map(Record::Aborted));
        // A mark needs no more than a transaction's name that carries it.
        records.extend(self.marks.iter().map(|(node, mark)| {
            let TxMark { epoch, counter } = *mark;
            let txid = TxId {
                node: node.clone(),
                epoch,
                counter,
                kind: crate::proto::rollout::TxKind::Step,
            };
            Record::Refused { txid }
        }));
        records.extend(self.brake.clone().map(Record::Braked));
        let prepared = self.prepared.clone();
        records.extend(prepared.map(|it| Record::Prepared(Box::new(it))));
        records
    }

    /// Number of this node's life.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Marks up to which this node may have forgotten its votes; `None` until all others have
    /// answered.
    pub(super) const fn unsure(&self) -> Option<&BTreeMap<NodeId, TxMark>> {
        self.unsure.as_ref()
    }

    pub(super) const fn marks(&self) -> &BTreeMap<NodeId, TxMark> {
        &self.marks
    }

    /// The proposal that this node voted COMMIT on and does not know the end of.
    pub(super) const fn prepared(&self) -> Option<&TxProposal> {
        self.prepared.as_ref()
    }

    /// Takes the prepared proposal, if a committed version has ended it.
    pub(super) fn take_ended(&mut self, version: u64) -> Option<TxProposal> {
        self.prepared.take_if(|it| it.state.version <= version)
    }

    /// The last brake, unless a commit has taken it off.
    pub(super) const fn brake(&self) -> Option<&Brake> {
        self.brake.as_ref()
    }

    pub(super) fn history(&self) -> &[Committed] {
        &self.history
    }

    /// Aborted transactions, the oldest first.
    pub(super) fn aborted(&self) -> impl DoubleEndedIterator<Item = &Aborted> {
        self.aborted.iter()
    }

    /// Version of the last resume in the history; 0 if there is none.
    pub(super) fn last_resume(&self) -> u64 {
        let is_resume = |it: &&Committed| it.proposal.txid.kind == TxKind::Resume;
        self.history.iter().rfind(is_resume).map_or(0, |it| it.proposal.state.version)
    }

    /// Rules out a COMMIT on this transaction and the earlier ones of its coordinator.
    pub(super) fn mark(&mut self, txid: &TxId) {
        let mark = self.marks.entry(txid.node.clone()).or_default();
        *mark = (*mark).max(txid.mark());
    }

    /// True if a COMMIT on the transaction is ruled out.
    pub(super) fn is_marked(&self, txid: &TxId) -> bool {
        self.marks.get(&txid.node).is_some_and(|mark| txid.mark() <= *mark)
    }

    /// True if this node may have voted on the transaction and forgotten it.
    pub(super) fn is_unsure(&self, txid: &TxId) -> bool {
        let unsure = self.unsure.as_ref().map(|it| it.get(&txid.node));
        unsure.is_none_or(|mark| mark.is_some_and(|mark| txid.mark() <= *mark))
    }

    pub(super) fn commit(&mut self, committed: Committed) {
        // One record for both, so that no crash comes between them.
        if let Some(settled) = committed.proposal.settles().filter(|it| self.is_next(it)) {
            self.commit(settled.clone());
        }
        let txid = committed.proposal.txid.clone();
        self.mark(&txid);
        let version = committed.proposal.state.version;
        match txid.kind {
            TxKind::Step
            | TxKind::Promote
            | TxKind::Finish
            | TxKind::Pause
            | TxKind::Roster
            | TxKind::Serve => {}
            TxKind::Start | TxKind::Rollback | TxKind::Abort | TxKind::Retry | TxKind::Resume => {
                self.brake = None;
            }
        }
        if self.prepared.as_ref().is_some_and(|it| it.state.version <= version) {
            self.prepared = None;
        }
        let newest = self.history.last().map(|it| it.proposal.state.version);
        if newest.is_some_and(|it| it.checked_add(1) != Some(version)) {
            self.forget(self.history.len());
        }
        self.by_txid.insert(txid, version);
        self.history.push(committed);
        // Many at once, because each time moves all that stay.
        if self.history.len() > self.history_max + self.history_max / 8 {
            self.forget(self.history.len() - self.history_max);
        }
    }

    /// True if a transaction has the version after the last committed one.
    pub(super) fn is_next(&self, committed: &Committed) -> bool {
        let newest = self.history.last().map_or(1, |it| it.proposal.state.version);
        Some(committed.proposal.state.version) == newest.checked_add(1)
    }

    /// Moves the oldest `count` transactions of the history to the skeleton and thins that.
    fn forget(&mut self, count: usize) {
        for it in self.history.drain(..count) {
            let txid = &it.proposal.txid;
            self.by_txid.remove(txid);
            if let Some(unsure) = &mut self.unsure {
                let mark = unsure.entry(txid.node.clone()).or_default();
                *mark = (*mark).max(txid.mark());
            }
            self.skeleton.push(it);
        }
        let last = |is_it: fn(&Committed) -> bool| {
            self.skeleton.iter().rfind(|it| is_it(it)).map(|it| it.proposal.state.version)
        };
        let start = last(|it| it.proposal.plan.is_some());
        let pause = last(|it| matches!(it.proposal.txid.kind, TxKind::Pause | TxKind::Resume));
        let is_kept =
            |it: &Committed| matches!(it.proposal.txid.kind, TxKind::Roster | TxKind::Serve);
        let other = last(|it| !matches!(it.proposal.txid.kind, TxKind::Roster | TxKind::Serve));
        self.skeleton.retain(|it| {
            let version = Some(it.proposal.state.version);
            is_kept(it) || [start, pause, other].contains(&version)
        });
    }

    pub(super) fn abort(&mut self, aborted: Aborted) {
        self.mark(&aborted.txid);
        if let Some(prepared) = self.prepared.take_if(|it| it.txid == aborted.txid) {
            // The transaction that it would have settled is in doubt again.
            let settled = prepared.settles().filter(|it| self.is_next(it));
            self.prepared = settled.map(|it| it.proposal.clone());
        }
        self.aborted.push_back(aborted);
        if self.aborted.len() > ABORTED_MAX {
            let oldest = self.aborted.iter().position(|it| it.proof.resolution.is_none());
            oldest.map(|at| self.aborted.remove(at));
        }
    }

    pub(super) fn committed(&self, txid: &TxId) -> Option<&Committed> {
        self.after(self.by_txid.get(txid)?.checked_sub(1)?).next()
    }

    /// Committed transactions after this version, ascending; of forgotten ones those of the
    /// skeleton.
    pub(super) fn after(&self, version: u64) -> impl Iterator<Item = &Committed> {
        let first = self.history.first().map_or(0, |it| it.proposal.state.version);
        let skipped =
            usize::try_from(version.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let older = self.skeleton.iter().filter(move |it| it.proposal.state.version > version);
        older.chain(self.history.iter().skip(skipped))
    }

    /// True if this node waits for the end of a transaction: it voted COMMIT on that, or on one
    /// that settles it.
    pub(super) fn is_waiting_for(&self, txid: &TxId) -> bool {
        self.prepared.as_ref().is_some_and(|it| it.txid == *txid || it.settles_tx(txid))
    }

    /// Changes of the roster: the roster before, and the transaction.
    fn rosters<'a>(
        &'a self,
        first: &'a Roster,
    ) -> impl Iterator<Item = (&'a Roster, &'a TxProposal)> {
        let all = self.skeleton.iter().chain(&self.history).map(|it| &it.proposal);
        let changes = all.filter_map(|it| Some((it, it.new_roster.as_ref()?)));
        changes
            .scan(first, |roster, (proposal, new)| Some((std::mem::replace(roster, new), proposal)))
    }

    /// Nodes that were called gone, and no longer take part under their names.
    pub(super) fn gone(&self, first: &Roster) -> BTreeMap<NodeId, AbsentNode> {
        let mut gone = BTreeMap::new();
        for (before, proposal) in self.rosters(first) {
            for (node, by) in
                proposal.gone.iter().flat_map(|it| it.nodes.iter().map(|node| (node, it.by)))
            {
                if let Some(participant) = before.get(node).cloned() {
                    let txid = proposal.txid.clone();
                    gone.insert(node.clone(), AbsentNode { participant, txid, by });
                }
            }
            gone.retain(|node, _| proposal.new_roster.as_ref().is_none_or(|it| !it.has(node)));
        }
        gone
    }

    /// The last transaction that called the node's key gone under its name.
    pub(super) fn called_gone(&self, first: &Roster, known: &Participant) -> Option<TxId> {
        let of_it = self.rosters(first).filter(|(before, proposal)| {
            let is_it = |it: &Participant| it.key == known.key;
            proposal.calls_gone(&known.node_id) && before.get(&known.node_id).is_some_and(is_it)
        });
        of_it.last().map(|it| it.1.txid.clone())
    }

    /// The present state, roster and progress.
    pub(super) fn present(
        &self,
        config: &Config,
    ) -> (RoutingState, Roster, Option<RolloutProgress>) {
        let mut present = (config.initial.clone(), config.roster.clone(), None);
        for Committed { proposal, .. } in self.skeleton.iter().chain(&self.history) {
            present.0 = proposal.state.clone();
            present.1 = proposal.new_roster.clone().unwrap_or(present.1);
            present.2 = RolloutProgress::after(present.2, proposal);
        }
        present
    }
}
