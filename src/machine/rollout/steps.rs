//! Commands and steps: operators' commands, the steps of a running rollout, and its rollback when a
//! gate fails (T5, T8).
//!
//! Invariants: every command is answered; a step is tried by the rollout's owner, or when the owner
//! is away by the highest live id, and two nodes that try at once do no harm, because all must
//! agree; too few requests hold a step; a gate that fails puts the brake on, and the rollback is
//! tried until it is committed; an operator's order has priority over what a node tries of itself.

use crate::machine::rollout::WindowVerdict;
use crate::proto::rollout::HealthSnapshot;
use std::time::Duration;

use rand::RngExt as _;

use super::coordinator::TxRequest;
use super::event::{Aborted, Command, CommandId, CommandResult, Event, ExtraEffect, Timer};
use super::machine::{Effect, RolloutMachine};
use super::peers::LinkedNode;
use super::progress::{CommandRefusal, Phase, RolloutProgress};
use super::proposals::InDoubtTx;
use super::served::StartOrder;
use crate::proto::rollout::{AbortCause, Gate, Message, NodeId, Plan, RemovalAuthority, TxKind};

impl RolloutMachine {
    pub(super) fn on_command(&mut self, ticket: CommandId, command: Command) {
        let way_back = match command {
            Command::Abort => Some(TxKind::Abort),
            Command::Rollback => Some(TxKind::Rollback),
            Command::Start(_)
            | Command::Pause
            | Command::Resume
            | Command::Promote { .. }
            | Command::Retry
            | Command::Roster(_)
            | Command::Gone { .. }
            | Command::Serve { .. }
            | Command::Resolve { .. } => None,
        };
        if let Some(kind) = way_back {
            self.brake_for(kind);
        }
        let can_wait = self.orders.has_room() && !matches!(command, Command::Resolve { .. });
        if can_wait && self.may_begin_soon() {
            if self.orders.push(ticket, command) {
                self.out.push_now(Effect::SetTimer {
                    timer: Timer::Orders,
                    after: self.config.votes_within,
                });
            }
            return;
        }
        self.obey(ticket, command);
    }

    /// True if the obstacle to a transaction of this node's own ends in a moment.
    fn may_begin_soon(&self) -> bool {
        let of_another = self.memory.prepared().filter(|it| it.is_by_itself());
        let is_young = |it: &InDoubtTx| self.now.mono.since(it.since()) < self.config.votes_within;
        let ends_soon = of_another.is_some() && self.proposals.in_doubt().is_some_and(is_young);
        self.amnesia.is_some() && !self.is_blank() || ends_soon
    }

    /// Obeys the waiting orders if the obstacle that they waited for is over.
    pub(super) fn obey_waiting(&mut self) {
        if !self.may_begin_soon() {
            self.on_orders_late();
        }
    }

    /// Obeys the waiting orders; they begin, or are refused with the obstacle.
    pub(super) fn on_orders_late(&mut self) {
        self.out.push_now(Effect::StopTimer(Timer::Orders));
        for (ticket, command) in self.orders.take() {
            self.obey(ticket, command);
        }
    }

    fn obey(&mut self, ticket: CommandId, command: Command) {
        let plain = TxRequest { ticket: Some(ticket), ..TxRequest::default() };
        let begun = match command {
            Command::Start(order) => self.order(order, plain),
            Command::Pause => self.begin(TxKind::Pause, plain),
            Command::Resume => self.begin(TxKind::Resume, plain),
            Command::Promote { full } => {
                let is_over = self.present.progress().is_some_and(RolloutProgress::is_last_step);
                let kind = if is_over { TxKind::Finish } else { TxKind::Promote };
                self.begin(kind, TxRequest { is_full: full, ..plain })
            }
            Command::Abort => self.begin(TxKind::Abort, plain),
            Command::Rollback => self.begin(TxKind::Rollback, plain),
            Command::Retry => self.retry(plain),
            Command::Roster(roster) => {
                self.begin(TxKind::Roster, TxRequest { new_roster: Some(roster), ..plain })
            }
            Command::Gone { nodes } => self.order_gone(nodes, RemovalAuthority::Operator, plain),
            Command::Serve { changes } => {
                self.begin(TxKind::Serve, TxRequest { serves: changes, ..plain })
            }
            Command::Resolve { txid, commit } => return self.resolve(ticket, &txid, commit),
        };
        if let Err(CommandRefusal { cause, reason, running }) = begun {
            self.out.push_after_sync(Effect::Extra(ExtraEffect::Answer(
                ticket,
                CommandResult::Refused { cause, reason, running },
            )));
        }
    }

    fn order(&mut self, order: StartOrder, request: TxRequest) -> Result<(), CommandRefusal> {
        let is_same = order.same_servers;
        let mut plan = order.into_plan(self.config.me.clone(), self.rng.random());
        if is_same {
            plan.servers = self.servers_of(&plan);
        }
        plan.check().map_err(|complaint| CommandRefusal::new(AbortCause::Malformed, complaint))?;
        self.begin(TxKind::Start, TxRequest { plan: Some(plan), ..request })
    }

    /// Begins the last rollout again with the same plan and buckets, owned by this node.
    fn retry(&mut self, request: TxRequest) -> Result<(), CommandRefusal> {
        let given_up =
            |it: &&RolloutProgress| matches!(it.phase, Phase::RolledBack | Phase::Aborted);
        let Some(progress) = self.present.progress().filter(given_up) else {
            let reason = "the last rollout was neither aborted nor rolled back";
            return Err(CommandRefusal::new(AbortCause::Nothing, reason));
        };
        let mut plan = Plan { owner: self.config.me.clone(), ..progress.plan.clone() };
        if !plan.servers.is_empty() {
            plan.servers = self.servers_of(&plan);
        }
        self.begin(TxKind::Retry, TxRequest { plan: Some(plan), ..request })
    }

    pub(super) fn on_own_health(&mut self, health: HealthSnapshot) {
        self.tries.on_health(health.clone());
        self.send_all(&Message::HealthSnapshot(health));
        self.look_at_gates(true);
    }

    pub(super) fn on_health(&mut self, from: &NodeId, health: HealthSnapshot) {
        if health.node_id != *from {
            return self.drop_from(from, "another node's health");
        }
        self.peers.on_health(from, health);
        self.look_at_gates(false);
    }

    /// The last figures of the nodes of the roster, this one included.
    fn heard(&self) -> Vec<&HealthSnapshot> {
        let of = |node: &NodeId| match *node == self.config.me {
            true => self.tries.health(),
            false => self.peers.get(node).and_then(LinkedNode::health),
        };
        self.present.roster().nodes().filter_map(|it| of(&it.node_id)).collect()
    }

    /// Judges every node of the roster that is heard, each alone and all together; with the gate
    /// that fails, and without a node's name if it fails for all together.
    fn judge_all(&self, plan: &Plan) -> (WindowVerdict, Option<(Option<NodeId>, Gate)>) {
        let share = self.present.state().canary_share();
        let heard = self.heard();
        let alone = heard.iter().map(|it| (Some(it.node_id.clone()), plan.judge(it, share)));
        let all: Vec<_> = alone.chain([(None, plan.judge_pooled(&heard, share))]).collect();
        for wanted in [WindowVerdict::Bad, WindowVerdict::Doubtful] {
            for (node, (verdict, gate)) in &all {
                if let (true, Some(gate)) = (*verdict == wanted, gate) {
                    return (wanted, Some((node.clone(), gate.clone())));
                }
            }
        }
        let is_good = all.iter().any(|it| it.1.0 == WindowVerdict::Good);
        (if is_good { WindowVerdict::Good } else { WindowVerdict::TooFew }, None)
    }

    /// Puts the brake on for a failed gate, without waiting for the next step. If a plan allows
    /// failures, only this node's own checks, one a second, are counted.
    fn look_at_gates(&mut self, is_own: bool) {
        let running = self.present.progress().filter(|it| it.phase == Phase::Running);
        let Some(progress) = running.filter(|_| self.brake().is_none()) else { return };
        let failures = progress.plan.failures;
        match self.judge_all(&progress.plan) {
            (WindowVerdict::Bad, Some((node, gate))) => {
                if self.tries.fails(is_own, failures) {
                    let on = node.as_ref().map_or("all nodes together", NodeId::as_str);
                    let reason = format!("{gate} does not hold on {on}");
                    self.report(Event::GateFailed { node, gate });
                    self.put_brake_on(TxKind::Rollback, &reason);
                    self.try_to_go_back();
                }
            }
            (WindowVerdict::Good, _) => self.tries.on_good(),
            (WindowVerdict::Bad | WindowVerdict::Doubtful | WindowVerdict::TooFew, _) => {}
        }
    }

    /// True if this node takes the steps: the owner, or when it is away the highest live id.
    pub(super) fn is_executor(&self) -> bool {
        let Some(progress) = self.present.progress() else { return false };
        let (owner, me) = (&progress.plan.owner, &self.config.me);
        let is_in_reach = self.peers.reaches(owner) && self.present.roster().has(owner);
        let is_away = self.peers.away_since(owner).is_none_or(|since| {
            self.now.mono.since(since) >= self.config.takeover_after
                || !self.present.roster().has(owner)
        });
        owner == me || !is_in_reach && is_away && self.highest_live() == Some(me)
    }

    /// True if this node may have a step or a rollback to do of itself.
    fn is_under_way(&self) -> bool {
        self.brake().is_some()
            || self.present.progress().is_some_and(|it| it.phase == Phase::Running)
    }

    /// Sets the timer for the next check as long as a rollout runs or a brake is on, or stops it.
    pub(super) fn look_for_steps(&mut self) {
        if self.is_under_way() {
            let pause = self.config.retry_after / 2;
            self.out.push_now(Effect::SetTimer {
                timer: Timer::Step,
                after: pause.min(self.until_step()),
            });
        } else {
            self.out.push_now(Effect::StopTimer(Timer::Step));
        }
    }

    fn until_step(&self) -> Duration {
        let interval = self.present.progress().map_or(0, |it| it.plan.interval_ms);
        let since = self.now.mono.since(self.present.since());
        // Never at once: a step that is due and held is checked again after a while.
        Duration::from_millis(interval).saturating_sub(since).max(Duration::from_millis(1))
    }

    pub(super) fn on_step_due(&mut self) {
        if self.brake().is_some() {
            self.try_to_go_back();
        } else if let Some(progress) =
            self.present.progress().cloned().filter(|it| it.phase == Phase::Running)
        {
            self.try_step(&progress);
        }
        if self.is_under_way() {
            let after = self.config.retry_after / 2;
            self.out.push_now(Effect::SetTimer { timer: Timer::Step, after });
        }
    }

    fn try_step(&mut self, progress: &RolloutProgress) {
        let is_busy = self.coordinator.running().is_some() || self.memory.prepared().is_some();
        if is_busy || self.tries.are_paused(self.now.mono) || !self.is_executor() {
            return;
        }
        if progress.plan.owner != self.config.me && self.tries.take_over(&progress.id) {
            self.report(Event::TookOver { owner: progress.plan.owner.clone() });
        }
        let interval = Duration::from_millis(progress.plan.interval_ms);
        let passed = self.now.mono.since(self.present.since());
        if passed < interval {
            return;
        }
        let deadline = Duration::from_millis(progress.plan.deadline_ms);
        if !deadline.is_zero() && passed - interval >= deadline {
            let why = self.tries.held().unwrap_or_default();
            let reason = format!("no step for {} s after it was due: {why}", deadline.as_secs());
            self.put_brake_on(TxKind::Rollback, &reason);
            return self.try_to_go_back();
        }
        if progress.plan.steps.get(progress.step) == Some(&0) {
            return self.hold("the preview waits for peer rollout promote".to_owned());
        }
        if let Some(node) = self.out_of_reach() {
            return self.hold(format!("{node} is out of reach"));
        }
        match self.judge_all(&progress.plan) {
            (WindowVerdict::Good, _) => {}
            (WindowVerdict::Bad | WindowVerdict::Doubtful, Some((node, gate))) => {
                let on = node.as_ref().map_or("all nodes together", NodeId::as_str);
                return self.hold(format!("{gate} does not hold on {on}, so far"));
            }
            (WindowVerdict::TooFew | WindowVerdict::Bad | WindowVerdict::Doubtful, _) => {
                let heard = self.heard();
                let reason = progress.plan.unanswered(&heard).map_or_else(
                    || "too few requests to judge by".to_owned(),
                    |gate| format!("no node has an answer to {gate}"),
                );
                return self.hold(reason);
            }
        }
        let kind = if progress.is_last_step() { TxKind::Finish } else { TxKind::Step };
        if let Err(refusal) = self.begin(kind, TxRequest::default()) {
            self.hold(refusal.reason);
        }
    }

    pub(super) fn hold(&mut self, reason: String) {
        if self.tries.hold(&reason) {
            self.report(Event::StepHeld { reason });
        }
    }

    /// Pauses this node's own tries after an abort, by a random time so that two nodes do not try
    /// at the same moment, and ever longer while votes are missing.
    pub(super) fn after_abort(&mut self, aborted: &Aborted) {
        self.pause_tries(matches!(
            aborted.cause,
            AbortCause::NoVote | AbortCause::Reached | AbortCause::NoWord | AbortCause::Recalling
        ));
        let is_running = self.present.progress().is_some_and(|it| it.phase == Phase::Running);
        if aborted.cause == AbortCause::Gate && is_running {
            self.put_brake_on(TxKind::Rollback, &aborted.reason);
        } else if is_running && matches!(aborted.txid.kind, TxKind::Step | TxKind::Finish) {
            self.hold(aborted.reason.clone());
        }
        self.look_for_steps();
    }

    /// Pauses tries of this node's own; ever longer while a vote is missing (`is_missed`).
    pub(super) fn pause_tries(&mut self, is_missed: bool) {
        let (least, most) = (self.config.retry_after, self.config.retry_max);
        let pause = self.tries.next_pause(is_missed, least, most).as_millis() as u64;
        let pause = pause + self.rng.random_range(0..=pause);
        self.tries.pause_until(self.now.mono.after(Duration::from_millis(pause)));
    }
}
