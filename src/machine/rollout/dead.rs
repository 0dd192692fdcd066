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

use super::config::DecisionAuthority;
use super::coordinator::TxRequest;
use super::event::{DeadParticipants, Event, Timer};
use super::machine::{Effect, RolloutMachine};
use super::progress::CommandRefusal;
use crate::model::{PublicKey, Time};
use crate::proto::rollout::{AbortCause, NodeId, RemovalAuthority};

impl RolloutMachine {
    pub(super) fn on_dead(&mut self, keys: BTreeSet<PublicKey>) {
        self.dead.set_keys(keys);
        self.look_for_dead();
    }

    /// Members that the seeds call dead and this node does not reach.
    fn dead_members(&self) -> BTreeSet<NodeId> {
        let is_dead = |node: &NodeId, key| {
            self.dead.has(key) && *node != self.config.me && !self.reaches(node)
        };
        let dead = self.present.roster().nodes().filter(|it| is_dead(&it.node_id, &it.key));
        dead.map(|it| it.node_id.clone()).collect()
    }

    /// Keeps the timer of the removal running as long as there are such members.
    pub(super) fn look_for_dead(&mut self) {
        if self.dead_members().is_empty() || !self.is_member() {
            if self.dead.end() {
                self.out.push_now(Effect::StopTimer(Timer::Dead));
            }
        } else if self.dead.begin(self.dead_members(), self.now.mono) {
            self.out.push_now(Effect::SetTimer {
                timer: Timer::Dead,
                after: self.config.retry_after / 2,
            });
        }
    }

    pub(super) fn on_dead_due(&mut self) {
        self.look_for_dead();
        let (dead, now) = (self.dead_members(), self.now.mono);
        let Some(since) = self.dead.since(&dead, now) else { return };
        self.out
            .push_now(Effect::SetTimer { timer: Timer::Dead, after: self.config.retry_after / 2 });
        let held = match self.try_without(&dead, since) {
            // The obstacle may still be there.
            Ok(()) if self.tries.are_paused(now) => return,
            Ok(()) => None,
            Err(CommandRefusal { cause, reason, running }) => {
                Some(DeadParticipants { nodes: dead, cause, reason, running })
            }
        };
        if let Some(held) = self.dead.hold(held) {
            self.report(Event::DeadStay(held));
        }
    }

    fn try_without(&mut self, dead: &BTreeSet<NodeId>, since: Time) -> Result<(), CommandRefusal> {
        let me = &self.config.me;
        let waited = self.now.mono.since(since);
        let Some(waited) = waited.checked_sub(self.config.dead_after) else { return Ok(()) };
        self.judge_dead(dead)?;
        let names = self.present.roster().nodes().map(|it| &it.node_id);
        let rest: Vec<_> = names.filter(|it| !dead.contains(*it)).collect();
        if let Some(away) = rest.iter().find(|it| **it != me && !self.reaches(it)) {
            let reason = format!("{away} has to vote, and is out of reach");
            return Err(CommandRefusal::new(AbortCause::NoVote, reason));
        }
        let is_turn = rest.first() == Some(&me) || waited >= self.config.takeover_after;
        // A transaction that ends without the dead is waited for.
        let can_settle = self.config.decides == DecisionAuthority::Coordinator;
        let prepared = self.memory.prepared();
        let ends = prepared.is_some_and(|it| !can_settle || !dead.contains(&it.txid.node));
        if !is_turn
            || ends
            || self.coordinator.running().is_some()
            || self.tries.are_paused(self.now.mono)
        {
            return Ok(());
        }
        self.order_gone(dead.clone(), RemovalAuthority::Seeds, TxRequest::default())
            .inspect_err(|_| self.pause_tries(true))
    }

    /// Refuses if the seeds have not told this node that all of them are dead, or if too few would
    /// remain.
    pub(super) fn judge_dead(&self, nodes: &BTreeSet<NodeId>) -> Result<(), CommandRefusal> {
        let is_told = |node: &&NodeId| {
            self.present.roster().get(node).is_some_and(|it| self.dead.has(&it.key))
        };
        if let Some(node) = nodes.iter().find(|it| !is_told(it)) {
            let reason = format!("the seeds have not told {} that {node} is dead", self.config.me);
            return Err(CommandRefusal::new(AbortCause::NoWord, reason));
        }
        if !self.present.roster().outlives(nodes) && !self.config.breaks().dead_any_share {
            let reason = "those that remain are not two and more than half of all, nor half with \
                          the lowest name";
            return Err(CommandRefusal::new(AbortCause::Roster, reason));
        }
        Ok(())
    }
}
