//! Recovery from amnesia: at its start a node asks all others for the last transactions they saw.
//!
//! A node with a log votes meanwhile, but begins no transaction of its own before all others of its
//! roster have answered: a log that was restored from a backup does not hold all names that its
//! node has used (P1). If another node has seen a name of this life or a later one, the log is such
//! a backup, and its node goes on as one without a log does.
//!
//! A node without a log never ran, or it lost its disk and may have voted on transactions that
//! still run. Invariant: it signs nothing before all others of its roster have told it, since it
//! began, up to which transaction of each coordinator they have seen anything; of those up to there
//! it never signs anything, and of later ones it remembers everything. A coordinator's own answer
//! covers transactions that no other node has seen. This node's own transactions go on in a higher
//! epoch than any that was seen, and than any that its own clock can have given before: the node
//! that it asked last may be outside the roster, if that was to change. About its own earlier ones
//! it signs nothing either.
//!
//! The recovery costs a new fleet nothing: no transaction is committed without all participants.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::event::{Event, Record};
use super::machine::{Effect, RolloutMachine};
use super::recalled::{AmnesiaRecovery, raise};
use crate::proto::rollout::{Message, NodeId, RecallReq, RecallResp, TxMark};

impl RolloutMachine {
    pub(super) fn begin_recall(&mut self) {
        let is_blank = self.memory.unsure().is_none();
        if !is_blank && self.config.breaks().names_again {
            return;
        }
        let question = self.rng.random();
        self.amnesia = Some(AmnesiaRecovery::new(question, is_blank));
        if !self.end_recall_if_complete() && is_blank {
            let waits_for = self.recall_waits_for();
            self.report(Event::Recalling { waits_for });
        }
    }

    /// True if this node may have forgotten votes that it signed, and lacks an answer of the
    /// others.
    pub(super) fn is_blank(&self) -> bool {
        self.amnesia.as_ref().is_some_and(AmnesiaRecovery::is_blank)
    }

    /// Nodes that have not answered yet.
    pub(super) fn recall_waits_for(&self) -> BTreeSet<NodeId> {
        let Some(amnesia) = &self.amnesia else { return BTreeSet::new() };
        let others = self.present.roster().nodes().map(|it| &it.node_id);
        let is_missing = |it: &&NodeId| **it != self.config.me && !amnesia.has_heard(it);
        others.filter(is_missing).cloned().collect()
    }

    pub(super) fn on_recall_req(&mut self, from: &NodeId, question: u64) {
        let mut seen = self.memory.marks().clone();
        let unsure = self.memory.unsure().cloned().unwrap_or_default();
        let own = TxMark { epoch: self.memory.epoch(), counter: self.coordinator.counter() };
        let mine = [(self.config.me.clone(), own)];
        // A node without its log has begun nothing yet, and its epoch means nothing.
        let mine = mine.into_iter().filter(|_| !self.is_blank());
        for (node, mark) in unsure.into_iter().chain(mine) {
            raise(&mut seen, node, mark);
        }
        self.send_to(from, Message::RecallResp(RecallResp { question, seen }));
    }

    pub(super) fn on_recall_resp(&mut self, from: NodeId, msg: RecallResp) {
        let is_member = self.present.roster().has(&from);
        let amnesia = self.amnesia.as_mut().filter(|it| is_member && it.question() == msg.question);
        let Some(amnesia) = amnesia else { return };
        // Nothing of this life has a name before all have answered. Others may know the life
        // itself, whose number this node has told them when they asked.
        let last = TxMark { epoch: self.memory.epoch(), counter: self.coordinator.counter() };
        if amnesia.hear(from.clone(), msg.seen, (&self.config.me, last)) {
            self.report(Event::Rewound { by: from });
        }
        if self.recall_waits_for().is_empty() {
            self.end_recall_if_complete();
        }
    }

    /// Ends the recovery when no answer is missing; returns whether it is over.
    pub(super) fn end_recall_if_complete(&mut self) -> bool {
        if self.amnesia.is_none() {
            return true;
        }
        if !self.recall_waits_for().is_empty() && !self.config.breaks().forgets_freely {
            // The roster may have changed since its nodes were asked.
            let question = self.amnesia.as_ref().map_or(0, AmnesiaRecovery::question);
            let links = self.links_to(&self.recall_waits_for().into_iter().collect::<Vec<_>>());
            if !links.is_empty() {
                let msg = Message::RecallReq(RecallReq { question });
                self.out.push_after_sync(Effect::SendAll { links, msg });
            }
            return false;
        }
        if let Some(amnesia) = self.amnesia.take().filter(AmnesiaRecovery::is_blank) {
            self.go_on_after(amnesia.into_seen());
            self.serve_if_new();
        }
        self.obey_waiting();
        true
    }

    /// Goes on after all others have answered: this node signs nothing about what they had seen.
    fn go_on_after(&mut self, mut unsure: BTreeMap<NodeId, TxMark>) {
        for (node, mark) in self.memory.unsure().cloned().unwrap_or_default() {
            raise(&mut unsure, node, mark);
        }
        let me = self.config.me.clone();
        let last = unsure.get(&me).map_or(0, |it| it.epoch);
        let epoch = self.memory.epoch().max(last.saturating_add(1)).max(self.now.wall.0 / 1000);
        unsure.insert(me, TxMark { epoch: epoch.saturating_sub(1), counter: u64::MAX });
        if self.config.breaks().forgets_freely {
            unsure.clear();
        }
        // The epoch comes first: a disk with only the other record would not be asked about again.
        if epoch > self.memory.epoch() {
            self.persist(Record::Epoch { epoch });
        }
        self.persist(Record::Recalled { unsure });
        self.report(Event::Recalled);
    }
}
