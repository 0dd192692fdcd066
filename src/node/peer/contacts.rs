//! Contacts among the other services of a peer.

use super::{Event, Fx, PeerNode};
use crate::machine::Effects;
use crate::machine::contacts::{self, Contacts};
use crate::model::{Endpoint, Now};

impl PeerNode {
    pub(super) fn with_contacts(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Contacts, &mut Effects<Contacts>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.contacts, &mut inner);
        for event in fx.absorb(inner) {
            match event {
                contacts::Event::Call { to } => self.call_directly(now, to, fx),
                contacts::Event::NotAdded { peer, reason } => {
                    self.direct.keep(peer, false);
                    fx.emit(Event::Contacts(contacts::Event::NotAdded { peer, reason }));
                }
                event @ (contacts::Event::Unreachable { .. }
                | contacts::Event::Reachable { .. }) => fx.emit(Event::Contacts(event)),
            }
        }
    }

    /// Adds a peer by the operator's command: a link with it is kept.
    pub(super) fn on_add_command(&mut self, now: Now, peer: Endpoint, fx: &mut Fx) {
        let is_seed = self.applicant.book().seed_at(peer).is_some();
        let reason = if peer == self.session.info().endpoint {
            "it is this peer itself"
        } else if is_seed {
            "it is a seed; seeds are linked with anyway"
        } else {
            self.direct.keep(peer, true);
            return self.with_contacts(now, fx, |it, inner| it.add(now, peer, inner));
        };
        let reason = reason.to_owned();
        fx.emit(Event::Contacts(contacts::Event::NotAdded { peer, reason }));
    }

    /// Removes a peer by the operator's command: no link with it is kept or accepted.
    pub(super) fn on_remove_command(&mut self, now: Now, peer: Endpoint, fx: &mut Fx) {
        self.with_contacts(now, fx, |it, inner| it.remove(peer, inner));
        self.with_direct(now, fx, |it, inner| it.on_removed(peer, inner));
        let links = self.session.open();
        let theirs = links.filter(|(_, info, _)| info.endpoint == peer && info.seed.is_none());
        for link in theirs.map(|(link, ..)| link).collect::<Vec<_>>() {
            self.with_session(now, fx, |it, inner| it.hangup(link, "removed by hand", inner));
        }
    }
}
