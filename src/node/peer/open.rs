//! What is different at a peer whose fleet has no seeds.
//!
//! Nobody vouches for anybody there: a key that was proved is a member, its endpoint is what it
//! says until it was called, and its death is each neighbor's own finding.

use super::{Event, Fx, PeerNode};
use crate::model::{Endpoint, Incarnation, Now, WallTime};
use crate::protocol::Effects;
use crate::protocol::LinkId;
use crate::protocol::membership::authority::MemberLine;
use crate::protocol::membership::certificate::{Leave, Subject};
use crate::protocol::membership::registry::Status;
use crate::protocol::open::{self, OpenFleet};
use crate::protocol::session::Card;

impl PeerNode {
    pub(super) fn with_open(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut OpenFleet, &mut Effects<OpenFleet>),
    ) {
        let Some(open) = &mut self.open else { return };
        let mut part = Effects::default();
        work(open, &mut part);
        for event in fx.absorb(part) {
            match event {
                open::Event::Call { to } => {
                    self.with_overlay(now, fx, |it, part| it.on_hint(to, part));
                }
                event @ (open::Event::OwnAddress { .. }
                | open::Event::Unreachable { .. }
                | open::Event::Met { .. }
                | open::Event::Dropped { .. }) => fx.emit(Event::Open(event)),
            }
        }
    }

    /// It is a member from the start, and looks for others.
    pub(super) fn on_open_start(&mut self, now: Now, fx: &mut Fx) {
        self.with_applicant(now, fx, |it, part| it.begin_alone(now, part));
        self.begin_broadcast(now, fx);
        self.with_overlay(now, fx, |it, part| it.begin(part));
        self.with_open(now, fx, |it, part| it.on_start(part));
    }

    /// Whether a card is a member's, in a fleet without seeds.
    pub(super) fn check_open_member(
        &self,
        card: &Card,
        dialed: bool,
    ) -> Result<(), (String, bool)> {
        if card.certificate.is_some() {
            let reason = "this peer's fleet has no seeds, and you are a member of one that has";
            return Err((reason.to_owned(), true));
        }
        if self.applicant.state() == "gone" {
            return Err(("this peer has said goodbye".to_owned(), false));
        }
        if !card.endpoint.is_callable() {
            return Err((format!("{} cannot be called", card.endpoint), true));
        }
        let known = self.overlay.neighbors().get(&card.endpoint);
        let is_other = known
            .and_then(|link| self.session.peer(*link))
            .is_some_and(|known| known.key != card.key);
        if is_other && !dialed {
            // Whoever is called at an address is believed before one who only says so.
            return Err((format!("another key is known at {}", card.endpoint), true));
        }
        Ok(())
    }

    /// Endpoints that somebody named: worth a try, and no more.
    pub(super) fn on_candidates(&mut self, now: Now, named: &[Endpoint], fx: &mut Fx) {
        if self.open.is_none() {
            return;
        }
        let line = |endpoint: &Endpoint| MemberLine {
            endpoint: *endpoint,
            incarnation: Incarnation::default(),
            status: Status::Alive,
            since: WallTime(0),
            degree: 0,
        };
        let lines: Vec<_> = named.iter().filter(|it| it.is_callable()).map(line).collect();
        self.with_overlay(now, fx, |it, part| it.on_members(&lines, part));
    }

    /// This peer's own fresh probes of a neighbor have failed: to this peer it is gone.
    pub(super) fn drop_neighbor(&mut self, now: Now, life: Subject, fx: &mut Fx) {
        fx.emit(Event::Open(open::Event::Dropped { life }));
        self.forget(now, life.endpoint, life.incarnation, fx);
        self.on_unlinked(now, life.endpoint, fx);
    }

    pub(super) fn on_unlinked(&mut self, now: Now, neighbor: Endpoint, fx: &mut Fx) {
        let has_enough = self.overlay.has_enough();
        self.with_open(now, fx, |it, part| it.on_unlinked(neighbor, has_enough, part));
    }

    /// A call to somebody named came to nothing; with no seeds to ask, the name is forgotten.
    pub(super) fn on_open_call_failed(
        &mut self,
        now: Now,
        to: Endpoint,
        reason: &str,
        fx: &mut Fx,
    ) {
        if self.open.is_some() {
            self.overlay.forget(to);
            let has_enough = self.overlay.has_enough();
            self.with_open(now, fx, |it, part| {
                it.on_call_failed(to, reason, has_enough, part);
            });
        }
    }

    /// A goodbye ends the life of the neighbor that says it, and of nobody else: an endpoint is
    /// only what its link says.
    pub(super) fn on_open_leave(&mut self, now: Now, link: LinkId, leave: Leave, fx: &mut Fx) {
        if self.overlay.neighbors().get(&leave.endpoint) == Some(&link) {
            fx.emit(Event::MemberLeft(leave));
            self.forget(now, leave.endpoint, leave.incarnation, fx);
        }
    }
}
