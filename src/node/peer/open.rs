//! What is different at a peer whose fleet has no seeds.
//!
//! Nobody vouches for anybody there: a key that was proved is a member, its endpoint is what it
//! says until it was called, and its death is each neighbor's own finding.

use super::{CALL_TIMEOUT, Event, Fx, GONE_MAX, PeerNode};
use crate::model::{Endpoint, Incarnation, Now, WallTime};
use crate::protocol::Effects;
use crate::protocol::LinkId;
use crate::protocol::discovery::Contact;
use crate::protocol::membership::authority::MemberLine;
use crate::protocol::membership::certificate::{Leave, Subject};
use crate::protocol::membership::registry::Status;
use crate::protocol::open::{self, OpenFleet};
use crate::protocol::session::{Card, Intent};

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
        &mut self,
        now: Now,
        card: &Card,
        dialed: bool,
        fx: &mut Fx,
    ) -> Result<(), (String, bool)> {
        if card.certificate.is_some() {
            let reason = "a fleet without seeds and a member of one with seeds do not link";
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
            // Whoever is called at an address is believed before one who only says so; either of
            // the two may have lied, and a call there shows which.
            self.with_session(now, fx, |it, part| {
                it.call(card.endpoint, Intent::Probe, CALL_TIMEOUT, part);
            });
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

    /// A goodbye ends the life of whose key signed it, by whichever link it comes, and of nobody
    /// else: an endpoint alone is only what its link says.
    pub(super) fn on_open_leave(&mut self, now: Now, leave: Leave, fx: &mut Fx) {
        let contact = Contact { endpoint: leave.endpoint, key: leave.key };
        let link = self.overlay.neighbors().get(&leave.endpoint);
        let is_news = match link.and_then(|it| self.session.peer(*it)) {
            Some(neighbor) => neighbor.subject() == leave.subject(),
            None => self.discovery.contacts().any(|it| it == contact),
        };
        if !is_news {
            return;
        }
        let told = self.gone.get(&leave.endpoint);
        if told.is_none_or(|ended| *ended < leave.incarnation) {
            if self.gone.len() >= GONE_MAX {
                self.gone.pop_first();
            }
            self.gone.insert(leave.endpoint, leave.incarnation);
            fx.emit(Event::MemberLeft(leave));
        }
        self.forget(now, leave.endpoint, leave.incarnation, fx);
    }

    /// Whoever's link opens only after the goodbye, since both called each other, has not heard
    /// it, and would take the hanging up for a death.
    pub(super) fn say_goodbye_again(&self, now: Now, link: LinkId, fx: &mut Fx) {
        if self.open.is_some() && self.applicant.state() == "gone" {
            fx.send(link, Leave::sign(self.applicant.subject(), now.wall, &self.keys));
        }
    }
}
