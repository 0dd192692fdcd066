//! Going on without nodes whose end the fleet's seeds certify, with no operator (T12).
//!
//! A quorum of seeds says that a member is dead. That is no proof: the member may only be cut off,
//! and some nodes hear of it late or never. So the seeds' word decides nothing; it only lets the
//! others propose and vote for what an operator would order. An operator knows that the removed
//! nodes do not call the remaining ones gone; here this follows from the share: the remaining ones
//! are more than half of the roster, or half with its lowest name, so of two removals from one
//! roster some node would have to vote for both, and none does (P2). They are at least two, so that
//! one that loses its disk hears from another what it has decided (P10).
//!
//! Invariants: a voter has heard the seeds' word on each key itself, reaches none of these, and
//! counts the share by the roster in force; the lowest name among the remaining nodes proposes,
//! after `dead_after`, and another one `takeover_after` later; an aborted removal is tried again
//! ever more rarely.

use std::collections::BTreeSet;

use super::config::Decides;
use super::coordinator::Wish;
use super::course::Refusal;
use super::event::{Effect, Event, Timer};
use super::machine::Rollout;
use super::status::DeadStay;
use crate::model::{PublicKey, Time};
use crate::proto::rollout::{Cause, NodeId, Word};

/// Members whose end the seeds certify, and the progress of their removal.
#[derive(Debug, Default)]
pub(super) struct Dead {
    keys: BTreeSet<PublicKey>,
    /// Nodes that could be removed, and the time since which the set is the same.
    since: Option<(BTreeSet<NodeId>, Time)>,
    /// The obstacle to the removal, as last told.
    pub(super) held: Option<DeadStay>,
}

impl Rollout {
    pub(super) fn on_dead(&mut self, keys: BTreeSet<PublicKey>) {
        self.dead.keys = keys;
        self.look_for_dead();
    }

    /// Members that the seeds call dead and this node does not reach.
    fn dead_members(&self) -> BTreeSet<NodeId> {
        let is_dead = |node: &NodeId, key| {
            self.dead.keys.contains(key) && *node != self.config.me && !self.reaches(node)
        };
        let dead = self.roster.nodes().filter(|it| is_dead(&it.node_id, &it.key));
        dead.map(|it| it.node_id.clone()).collect()
    }

    /// Keeps the timer of the removal running as long as there are such members.
    pub(super) fn look_for_dead(&mut self) {
        if self.dead_members().is_empty() || !self.is_member() {
            if self.dead.since.take().is_some() {
                self.out.at_once(Effect::StopTimer(Timer::Dead));
            }
            self.dead.held = None;
        } else if self.dead.since.is_none() {
            self.dead.since = Some((self.dead_members(), self.now.mono));
            self.out.at_once(Effect::SetTimer {
                timer: Timer::Dead,
                after: self.config.retry_after / 2,
            });
        }
    }

    pub(super) fn on_dead_due(&mut self) {
        self.look_for_dead();
        let (dead, now) = (self.dead_members(), self.now.mono);
        let Some((of, since)) = &mut self.dead.since else { return };
        if *of != dead {
            (*of, *since) = (dead.clone(), now);
        }
        let since = *since;
        self.out
            .at_once(Effect::SetTimer { timer: Timer::Dead, after: self.config.retry_after / 2 });
        let held = match self.try_without(&dead, since) {
            // The obstacle may still be there.
            Ok(()) if now < self.retry_at => return,
            Ok(()) => None,
            Err(Refusal { cause, reason, running }) => {
                Some(DeadStay { nodes: dead, cause, reason, running })
            }
        };
        if let Some(held) = held.clone().filter(|it| self.dead.held.as_ref() != Some(it)) {
            self.tell(Event::DeadStay(held));
        }
        self.dead.held = held;
    }

    fn try_without(&mut self, dead: &BTreeSet<NodeId>, since: Time) -> Result<(), Refusal> {
        let me = &self.config.me;
        let waited = self.now.mono.since(since);
        let Some(waited) = waited.checked_sub(self.config.dead_after) else { return Ok(()) };
        self.judge_dead(dead)?;
        let names = self.roster.nodes().map(|it| &it.node_id);
        let rest: Vec<_> = names.filter(|it| !dead.contains(*it)).collect();
        if let Some(away) = rest.iter().find(|it| **it != me && !self.reaches(it)) {
            let reason = format!("{away} has to vote, and is out of reach");
            return Err(Refusal::new(Cause::NoVote, reason));
        }
        let is_turn = rest.first() == Some(&me) || waited >= self.config.takeover_after;
        // A transaction that ends without the dead is waited for.
        let can_settle = self.config.decides == Decides::Coordinator;
        let prepared = self.memory.prepared.as_ref();
        let ends = prepared.is_some_and(|it| !can_settle || !dead.contains(&it.txid.node));
        if !is_turn || ends || self.running.is_some() || self.now.mono < self.retry_at {
            return Ok(());
        }
        self.order_gone(dead.clone(), Word::Seeds, Wish::default())
            .inspect_err(|_| self.pause_tries(true))
    }

    /// Refuses if the seeds have not told this node that all of them are dead, or if too few would
    /// remain.
    pub(super) fn judge_dead(&self, nodes: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        let is_told = |node: &&NodeId| {
            self.roster.get(node).is_some_and(|it| self.dead.keys.contains(&it.key))
        };
        if let Some(node) = nodes.iter().find(|it| !is_told(it)) {
            let reason = format!("the seeds have not told {} that {node} is dead", self.config.me);
            return Err(Refusal::new(Cause::NoWord, reason));
        }
        if !self.roster.outlives(nodes) && !self.config.breaks().dead_any_share {
            let reason = "those that remain are not two and more than half of all, nor half with \
                          the lowest name";
            return Err(Refusal::new(Cause::Roster, reason));
        }
        Ok(())
    }
}
