//! Links that open and close at a seed, and the identity of the other end.

use std::time::Duration;

use super::{Event, Fx, SeedNode};
use crate::machine::LinkId;
use crate::machine::session::{self, Cause};
use crate::model::{Now, SeedId};
use crate::proto::hello::{Card, Intent, SeedKey};
use crate::proto::message::TrustLevel;
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Largest number of connections that are logged in one pause; more than a fleet that comes
/// together needs.
const GREETINGS_MAX: u32 = 40;
const GREETINGS_PAUSE: Duration = Duration::from_secs(10);

impl SeedNode {
    pub(super) fn on_session_event(&mut self, now: Now, event: session::Event, fx: &mut Fx) {
        match event {
            session::Event::Opened { link, card, dialed, intent: _ } => match card.seed {
                Some(seed) => self.on_seed_opened(now, (link, seed), &card, dialed, fx),
                None => self.on_peer_opened(now, link, &card, dialed, fx),
            },
            session::Event::Answered { to, card } => {
                self.with_prober(now, fx, |prober, part| prober.on_answered(to, card, part));
            }
            session::Event::Failed { to, intent: Intent::Probe, error } => {
                self.with_prober(now, fx, |prober, part| prober.on_failed(to, &error, part));
            }
            session::Event::Failed {
                to,
                intent: Intent::Link | Intent::Errand | Intent::Direct,
                error: _,
            } => {
                if let Some(seed) = self.authority.book().seed_at(to) {
                    self.redial_later(seed, fx);
                }
            }
            session::Event::Message { link, msg } => self.on_message(now, link, *msg, fx),
            session::Event::Error { link, error } => self.on_error(link, error, fx),
            session::Event::Refused { from, cause, detail } => {
                if let Some(refusal) = self.refusals.count(cause, from, detail) {
                    fx.emit(Event::Refused(refusal));
                }
            }
            session::Event::Closed { link, card, is_agreed, reason: _ } => {
                // A caller that only says that it is a seed has no say in when that is called.
                let seed = self.authority.seed_of(link);
                self.with_authority(now, fx, |it, part| {
                    it.on_link_down(now, link, (&card, is_agreed), part);
                });
                if let Some(seed) = seed {
                    self.redial_later(seed, fx);
                }
            }
        }
    }

    /// Handles the link of a seed. A seed's name is believed by its key alone; a key is learnt only
    /// where it was called at the configured address, never from an incoming call.
    pub(super) fn on_seed_opened(
        &mut self,
        now: Now,
        (link, theirs): (LinkId, SeedId),
        card: &Card,
        dialed: bool,
        fx: &mut Fx,
    ) {
        let seat = self.seat_of(card);
        let (is_configured, seed) = (seat.is_some(), seat.unwrap_or(theirs));
        // Only of what answers at the seed's own address, or has its key, is it said to be of that
        // seed.
        let is_theirs = dialed || self.authority.book().key(seed) == Some(card.key);
        if self.is_drifted(now, link, (seat.filter(|_| is_theirs), card), fx) {
            if is_configured && dialed {
                self.redial_later(seed, fx);
            }
            return;
        }
        let mut is_trusted = false;
        if is_configured && seed != self.id {
            let shown = SeedKey { seed, key: card.key, at: Some(card.endpoint) };
            self.with_authority(now, fx, |authority, part| {
                is_trusted = authority.on_seed_key(shown, dialed, part);
            });
        }
        if !dialed && is_configured && self.authority.book().key(seed).is_none() {
            // No offense: its key is learnt where it can be proved, by calling its address.
            self.with_session(now, fx, |it, part| it.hangup(link, "I call you first", part));
            return self.call_seed(now, seed, fx);
        }
        if !is_trusted {
            let (cause, error) = self.seed_refusal(seed, is_configured, card);
            self.with_session(now, fx, |session, part| {
                session.refuse(link, cause, error, part);
                session.hangup(link, "seed key not trusted", part);
            });
            if is_configured && dialed {
                self.estranged.insert(seed);
                self.redial_later(seed, fx);
            }
            return;
        }
        self.refresh_card();
        let is_linked = self.authority.linked_seeds().any(|linked| linked == seed);
        // The same at both ends, whatever the order of their lists.
        let is_lower = (self.id, self.session.card().endpoint) < (theirs, card.endpoint);
        if is_linked && dialed != is_lower {
            self.with_session(now, fx, |it, part| it.hangup(link, "already linked", part));
            return;
        }
        let older = self
            .session
            .open()
            .find(|(id, it, _)| *id != link && it.seed.is_some() && it.endpoint == card.endpoint)
            .map(|(id, _, _)| id);
        self.with_session(now, fx, |it, part| it.admit(link, TrustLevel::Seed, part));
        self.with_authority(now, fx, |it, part| it.on_seed_link(now, (seed, link), card, part));
        if let Some(older) = older {
            self.with_session(now, fx, |it, part| it.hangup(older, "already linked", part));
        }
        self.refresh_card();
    }

    /// Reason for a seed that is refused as such, and its cause for the counts.
    fn seed_refusal(&self, seed: SeedId, is_seat: bool, card: &Card) -> (Cause, ErrorReply) {
        if !is_seat && self.authority.book().lists_others(card) {
            let reason = format!(
                "{} is no seed by the config.txt of {}: give all nodes of a fleet the same list",
                card.endpoint,
                self.session.card().endpoint
            );
            return (Cause::NotAllowed, ErrorReply::new(ErrorCode::NotAllowed, reason));
        }
        let reason = format!("this is not the key known for seed {seed}, or not its address");
        (Cause::BadHandshake, ErrorReply::new(ErrorCode::Handshake, reason))
    }

    /// Compares another node's list of seeds with the own. Returns whether its link has ended by
    /// that.
    fn is_drifted(
        &mut self,
        now: Now,
        link: LinkId,
        (seat, card): (Option<SeedId>, &Card),
        fx: &mut Fx,
    ) -> bool {
        let own = self.session.card().endpoint;
        let objection = self.authority.book().list_objection(own, card);
        let Some(reason) = objection else {
            if let Some(seed) = seat {
                match self.authority.book().list_warning(own, card) {
                    None => _ = self.drifted.remove(&seed),
                    Some(warning) if self.drifted.insert(seed) => {
                        fx.emit(Event::ListsDiffer(warning));
                    }
                    Some(_) => {}
                }
            }
            return false;
        };
        if let Some(seed) = seat {
            self.estranged.insert(seed);
            if self.drifted.insert(seed) {
                fx.emit(Event::ListsDiffer(reason.clone()));
            }
        }
        let error = ErrorReply::new(ErrorCode::NotAllowed, reason);
        self.with_session(now, fx, |it, part| {
            it.refuse(link, Cause::NotAllowed, error, part);
            it.hangup(link, "another list of seeds", part);
        });
        true
    }

    pub(super) fn on_peer_opened(
        &mut self,
        now: Now,
        link: LinkId,
        card: &Card,
        dialed: bool,
        fx: &mut Fx,
    ) {
        let called = self.authority.book().seed_at(card.endpoint).filter(|_| dialed);
        if self.is_drifted(now, link, (None, card), fx) {
            if let Some(seed) = called {
                self.redial_later(seed, fx);
            }
            return;
        }
        if let Some(seed) = self.authority.book().seed_at(card.endpoint) {
            // A node that is no seed answers at a seed's address, or claims it.
            let reason =
                format!("{} is a seed's address: seed {seed} listens there", card.endpoint);
            let error = ErrorReply::new(ErrorCode::EndpointTaken, reason);
            self.with_session(now, fx, |it, part| {
                it.refuse(link, Cause::BadHandshake, error, part);
                it.hangup(link, "a seed's address", part);
            });
            if dialed {
                self.redial_later(seed, fx);
            }
            return;
        }
        let mut is_member = false;
        self.with_session(now, fx, |it, part| it.admit(link, TrustLevel::Applicant, part));
        self.with_authority(now, fx, |authority, part| {
            is_member = authority.on_member_link(now, link, card, part);
        });
        let standing = if is_member { TrustLevel::Member } else { TrustLevel::Applicant };
        self.with_session(now, fx, |it, part| it.admit(link, standing, part));
        if is_member {
            self.keep_one_link(now, link, fx);
        }
        if self.may_tell_of_connection(now) {
            fx.emit(Event::Connected { endpoint: card.endpoint, standing });
        }
    }

    /// Keeps only the latest link of a member: strangers' links are counted, and no node may take
    /// up all the room by being a member many times over.
    pub(super) fn keep_one_link(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        let Some(endpoint) = self.session.peer(link).map(|card| card.endpoint) else { return };
        let is_older = |(id, card, standing): &(LinkId, &Card, TrustLevel)| {
            *id != link && *standing == TrustLevel::Member && card.endpoint == endpoint
        };
        let older: Vec<_> = self.session.open().filter(is_older).map(|(id, ..)| id).collect();
        for older in older {
            self.with_session(now, fx, |it, part| it.hangup(older, "already linked", part));
        }
    }

    /// True if this connection is logged: strangers must not be able to flood the log.
    fn may_tell_of_connection(&mut self, now: Now) -> bool {
        let (since, told) = &mut self.greetings;
        if now.mono.since(*since) >= GREETINGS_PAUSE {
            (*since, *told) = (now.mono, 0);
        }
        *told += 1;
        *told <= GREETINGS_MAX
    }
}
