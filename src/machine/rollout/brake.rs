//! The brake: while the way back cannot be committed yet, requests go to the stable version (T8).
//!
//! A step forward needs all participants, and so does a committed step back; the brake needs none
//! of the others. A node puts it on when a gate fails or an operator orders the way back, and when
//! a member says that it has; it changes no committed state, only where this node sends requests.
//! The transaction follows as soon as all voters are in reach.
//!
//! Invariants: a brake is of one rollout, and on disk before anything is served by it; as long as
//! it is on, its node votes for nothing that gives the new version more; only a commit takes it
//! off: the end of the rollout, or a `resume`, by which an operator overrules it.

use super::coordinator::{Running, Wish};
use super::course::{Phase, Refusal};
use super::event::{Event, Record};
use super::machine::Rollout;
use crate::proto::rollout::{Brake, Cause, Kind, Message, NodeId, cut};

impl Rollout {
    /// The brake, if one is on.
    pub(super) fn brake(&self) -> Option<&Brake> {
        self.memory.brake.as_ref().filter(|it| self.is_to_do(it))
    }

    /// True if the brake's transaction is still to follow.
    fn is_to_do(&self, brake: &Brake) -> bool {
        let course = self.course.as_ref().filter(|it| it.id == brake.course);
        course.is_some_and(|it| match it.phase {
            Phase::Running | Phase::Paused => true,
            // A finish that was voted for before is undone.
            Phase::Finished => brake.kind == Kind::Rollback,
            Phase::RolledBack | Phase::Aborted => false,
        })
    }

    /// Puts the brake on, if there is a rollout to stop and it is not on yet. A node outside the
    /// roster may be behind and leaves it to the members.
    pub(super) fn put_brake_on(&mut self, kind: Kind, reason: &str) {
        let is_member = self.is_member();
        let live = self.course.as_ref().filter(|it| it.is_live() && is_member);
        let Some(course) = live else { return };
        let (course, version, reason) =
            (course.id.clone(), self.state.version, cut(reason.to_owned()));
        self.brake_by(Brake { course, version, kind, reason });
    }

    fn brake_by(&mut self, brake: Brake) {
        if self.brake().is_some() || self.config.breaks().no_brake {
            return;
        }
        self.persist(Record::Braked(brake.clone()));
        self.serve();
        self.tell(Event::Braked(brake));
        let raises = |it: &Running| it.proposal.txid.kind.raises();
        if self.running.as_ref().is_some_and(raises) {
            self.abort_running(Cause::Gate, "the brake is on".to_owned(), None);
        }
        let heartbeat = self.heartbeat();
        self.send_all(&Message::Heartbeat(heartbeat));
        self.look_for_steps();
    }

    /// Handles the brake of another member. One from before the last `resume` was taken off by
    /// that.
    pub(super) fn on_brake_of(&mut self, from: &NodeId, brake: Brake) {
        let is_way_back = matches!(brake.kind, Kind::Rollback | Kind::Abort);
        if self.is_to_do(&brake)
            && is_way_back
            && self.roster.has(from)
            && brake.version >= self.resumed_at
        {
            self.brake_by(Brake { reason: cut(brake.reason), ..brake });
        }
    }

    /// Puts the brake on for an operator's way back, before its transaction and whatever its end.
    pub(super) fn brake_for(&mut self, kind: Kind) {
        if !self.is_blank() {
            let what = if kind == Kind::Abort { "an abort" } else { "a rollback" };
            let reason = format!("{what} was ordered at {}", self.config.me);
            self.put_brake_on(kind, &reason);
        }
    }

    /// Begins the transaction that a brake waits for, once all voters are in reach.
    pub(super) fn try_to_go_back(&mut self) {
        let Some(Brake { kind, reason, .. }) = self.brake().cloned() else { return };
        let is_busy = self.running.is_some() || self.memory.prepared.is_some();
        if is_busy || self.now.mono < self.retry_at || !self.is_executor() {
            return;
        }
        let begun = match self.out_of_reach() {
            Some(node) => Err(Refusal::new(Cause::NoVote, format!("{node} is out of reach"))),
            None => self.begin(kind, Wish { note: reason, ..Wish::default() }),
        };
        if let Err(refusal) = begun {
            self.hold(format!("the {} waits: {}", kind.as_str(), refusal.reason));
        }
    }
}
