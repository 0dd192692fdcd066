//! A node without a log: it never ran, or it lost its disk and may have voted on what still runs.
//!
//! Invariant: it signs nothing before all others of its roster have told it, since it began, up to
//! which transaction of each coordinator they have seen anything; of those up to there it never
//! signs anything, and of later ones it remembers everything. A coordinator's own word covers what
//! nobody else has seen. Its own transactions go on in a higher epoch than any that was seen, and
//! than any that its own clock can have given before: whom it asked last may be nobody of the
//! roster, if that was to change. About its own earlier ones it signs nothing either.
//!
//! It costs a new fleet nothing: no transaction is committed without all.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::event::{Effect, Event, Record};
use super::ids::{Mark, NodeId};
use super::machine::Rollout;
use super::messages::{Message, RecallReq, RecallResp};

/// What the others have said so far.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// Drawn anew in each life: an answer to a former one says nothing of what came after.
    pub(super) question: u64,
    heard: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, Mark>,
}

impl Rollout {
    pub(super) fn begin_recall(&mut self) {
        if self.memory.unsure.is_some() {
            return;
        }
        self.recall = Some(Recall { question: self.rng.random(), ..Recall::default() });
        if !self.end_recall_if_complete() {
            let waits_for = self.recall_waits_for();
            self.tell(Event::Recalling { waits_for });
        }
    }

    /// Who has not answered yet.
    pub(super) fn recall_waits_for(&self) -> BTreeSet<NodeId> {
        let Some(recall) = &self.recall else { return BTreeSet::new() };
        let others = self.roster.nodes().map(|it| &it.node_id);
        let is_missing = |it: &&NodeId| **it != self.config.me && !recall.heard.contains(*it);
        others.filter(is_missing).cloned().collect()
    }

    pub(super) fn on_recall_req(&mut self, from: &NodeId, question: u64) {
        let mut seen = self.memory.marks.clone();
        let unsure = self.memory.unsure.clone().unwrap_or_default();
        let own = Mark { epoch: self.memory.epoch, counter: self.counter };
        let mine = [(self.config.me.clone(), own)];
        // One that is without its log itself has begun nothing yet, and its epoch means nothing.
        let mine = mine.into_iter().filter(|_| self.recall.is_none());
        for (node, mark) in unsure.into_iter().chain(mine) {
            let entry = seen.entry(node).or_default();
            *entry = (*entry).max(mark);
        }
        self.send_to(from, Message::RecallResp(RecallResp { question, seen }));
    }

    pub(super) fn on_recall_resp(&mut self, from: NodeId, msg: RecallResp) {
        let is_member = self.roster.has(&from);
        let recall = self.recall.as_mut().filter(|it| is_member && it.question == msg.question);
        let Some(recall) = recall else { return };
        for (node, mark) in msg.seen {
            let entry = recall.seen.entry(node).or_default();
            *entry = (*entry).max(mark);
        }
        recall.heard.insert(from);
        if self.recall_waits_for().is_empty() {
            self.end_recall_if_complete();
        }
    }

    /// Ends it when nobody's word is missing; says whether it is over.
    pub(super) fn end_recall_if_complete(&mut self) -> bool {
        if self.recall.is_none() {
            return true;
        }
        if !self.recall_waits_for().is_empty() && !self.config.breaks.forgets_freely {
            // Who takes part may have changed since they were asked.
            let question = self.recall.as_ref().map_or(0, |it| it.question);
            let links = self.links_to(&self.recall_waits_for().into_iter().collect::<Vec<_>>());
            if !links.is_empty() {
                let msg = Message::RecallReq(RecallReq { question });
                self.out.say(Effect::Send(links, msg));
            }
            return false;
        }
        let mut unsure = self.recall.take().unwrap_or_default().seen;
        let me = self.config.me.clone();
        let last = unsure.get(&me).map_or(0, |it| it.epoch);
        let epoch = self.memory.epoch.max(last + 1).max(self.now.wall.0 / 1000);
        unsure.insert(me, Mark { epoch: epoch - 1, counter: u64::MAX });
        if self.config.breaks.forgets_freely {
            unsure.clear();
        }
        // First, because a disk that has the other record only is not asked about again.
        if epoch > self.memory.epoch {
            self.persist(Record::Epoch { epoch });
        }
        self.persist(Record::Recalled { unsure });
        self.tell(Event::Recalled);
        true
    }
}
