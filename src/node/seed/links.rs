//! Links that open and close at a seed, and the identity of the other end.

use std::time::Duration;

use super::{Event, Fx, SeedNode};
use crate::machine::LinkId;
use crate::machine::session::{self, RejectReason};
use crate::model::{Now, SeedId};
use crate::proto::hello::{Intent, NodeInfo, SeedKey};
use crate::proto::message::TrustLevel;
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Largest number of connections that are logged in one pause; more than a fleet that comes
/// together needs.
const GREETINGS_MAX: u32 = 40;
const GREETINGS_PAUSE: Duration = Duration::from_secs(10);

impl SeedNode {
    pub(super) fn on_session_event(&mut self, now: Now, event: session::Event, fx: &mut Fx) {
        match event {
            session::Event::Opened { link, info, dialed, intent: _ } => match info.seed {
                Some(seed) => self.on_seed_opened(now, (link, seed), &info, dialed, fx),
                None => self.on_peer_opened(now, link, &info, dialed, fx),
            },
            session::Event::Answered { to, info } => {
                self.with_prober(now, fx, |prober, inner| prober.on_answered(to, info, inner));
            }
            session::Event::Failed { to, intent: Intent::Probe, error } => {
                self.with_prober(now, fx, |prober, inner| prober.on_failed(to, &error, inner));
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
            session::Event::Closed { link, info, is_agreed, reason: _ } => {
                // A caller that only says that it is a seed has no say in when that is called.
                let seed = self.authority.seed_of(link);
                self.with_authority(now, fx, |it, inner| {
                    it.on_link_down(now, link, (&info, is_agreed), inner);
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
        info: &NodeInfo,
        dialed: bool,
        fx: &mut Fx,
    ) {
        let seat = self.seat_of(info);
        let (is_configured, seed) = (seat.is_some(), seat.unwrap_or(theirs));
        // Only of what answers at the seed's own address, or has its key, is it said to be of that
        // seed.
        let is_theirs = dialed || self.authority.book().key(seed) == Some(info.key);
        if self.is_drifted(now, link, (seat.filter(|_| is_theirs), info), fx) {
            if is_configured && dialed {
                self.redial_later(seed, fx);
            }
            return;
        }
        let mut is_trusted = false;
        if is_configured && seed != self.id {
            let shown = SeedKey { seed, key: info.key, at: Some(info.endpoint) };
            self.with_authority(now, fx, |authority, inner| {
                is_trusted = authority.on_seed_key(shown, dialed, inner);
            });
        }
        if !dialed && is_configured && self.authority.book().key(seed).is_none() {
            // No offense: its key is learnt where it can be proved, by calling its address.
            self.with_session(now, fx, |it, inner| it.hangup(link, "I call you first", inner));
            return self.call_seed(now, seed, fx);
        }
        if !is_trusted {
            let (cause, error) = self.seed_refusal(seed, is_configured, info);
            self.with_session(now, fx, |session, inner| {
                session.refuse(link, cause, error, inner);
                session.hangup(link, "seed key not trusted", inner);
            });
            if is_configured && dialed {
                self.estranged.insert(seed);
                self.redial_later(seed, fx);
            }
            return;
        }
        self.refresh_info();
        let is_linked = self.authority.linked_seeds().any(|linked| linked == seed);
        // The same at both ends, whatever the order of their lists.
        let is_lower = (self.id, self.session.info().endpoint) < (theirs, info.endpoint);
        if is_linked && dialed != is_lower {
            self.with_session(now, fx, |it, inner| it.hangup(link, "already linked", inner));
            return;
        }
        let older = self
            .session
            .open()
            .find(|(id, it, _)| *id != link && it.seed.is_some() && it.endpoint == info.endpoint)
            .map(|(id, _, _)| id);
        self.with_session(now, fx, |it, inner| it.admit(link, TrustLevel::Seed, inner));
        self.with_authority(now, fx, |it, inner| it.on_seed_link(now, (seed, link), info, inner));
        if let Some(older) = older {
            self.with_session(now, fx, |it, inner| it.hangup(older, "already linked", inner));
        }
        self.refresh_info();
    }

    /// Reason for a seed that is refused as such, and its cause for the counts.
    fn seed_refusal(
        &self,
        seed: SeedId,
        is_seat: bool,
        info: &NodeInfo,
    ) -> (RejectReason, ErrorReply) {
        if !is_seat && self.authority.book().lists_others(info) {
            let reason = format!(
                "{} is no seed by the config.txt of {}: give all nodes of a fleet the same list",
                info.endpoint,
                self.session.info().endpoint
            );
            return (RejectReason::NotAllowed, ErrorReply::new(ErrorCode::NotAllowed, reason));
        }
        let reason = format!("this is not the key known for seed {seed}, or not its address");
        (RejectReason::BadHandshake, ErrorReply::new(ErrorCode::Handshake, reason))
    }

    /// Compares another node's list of seeds with the own. Returns whether its link has ended by
    /// that.
    fn is_drifted(
        &mut self,
        now: Now,
        link: LinkId,
        (seat, info): (Option<SeedId>, &NodeInfo),
        fx: &mut Fx,
    ) -> bool {
        let own = self.session.info().endpoint;
        let objection = self.authority.book().list_objection(own, info);
        let Some(reason) = objection else {
            if let Some(seed) = seat {
                match self.authority.book().list_warning(own, info) {
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
        self.with_session(now, fx, |it, inner| {
            it.refuse(link, RejectReason::NotAllowed, error, inner);
            it.hangup(link, "another list of seeds", inner);
        });
        true
    }

    pub(super) fn on_peer_opened(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        dialed: bool,
        fx: &mut Fx,
    ) {
        let called = self.authority.book().seed_at(info.endpoint).filter(|_| dialed);
        if self.is_drifted(now, link, (None, info), fx) {
            if let Some(seed) = called {
                self.redial_later(seed, fx);
            }
            return;
        }
        if let Some(seed) = self.authority.book().seed_at(info.endpoint) {
            // A node that is no seed answers at a seed's address, or claims it.
            let reason =
                format!("{} is a seed's address: seed {seed} listens there", info.endpoint);
            let error = ErrorReply::new(ErrorCode::EndpointTaken, reason);
            self.with_session(now, fx, |it, inner| {
                it.refuse(link, RejectReason::BadHandshake, error, inner);
                it.hangup(link, "a seed's address", inner);
            });
            if dialed {
                self.redial_later(seed, fx);
            }
            return;
        }
        let mut is_member = false;
        self.with_session(now, fx, |it, inner| it.admit(link, TrustLevel::Applicant, inner));
        self.with_authority(now, fx, |authority, inner| {
            is_member = authority.on_member_link(now, link, info, inner);
        });
        let standing = if is_member { TrustLevel::Member } else { TrustLevel::Applicant };
        self.with_session(now, fx, |it, inner| it.admit(link, standing, inner));
        if is_member {
            self.keep_one_link(now, link, fx);
        }
        if self.may_tell_of_connection(now) {
            fx.emit(Event::Connected { endpoint: info.endpoint, standing });
        }
    }

    /// Keeps only the latest link of a member: strangers' links are counted, and no node may take
    /// up all the room by being a member many times over.
    pub(super) fn keep_one_link(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        let Some(endpoint) = self.session.peer(link).map(|info| info.endpoint) else { return };
        let is_older = |(id, info, standing): &(LinkId, &NodeInfo, TrustLevel)| {
            *id != link && *standing == TrustLevel::Member && info.endpoint == endpoint
        };
        let older: Vec<_> = self.session.open().filter(is_older).map(|(id, ..)| id).collect();
        for older in older {
            self.with_session(now, fx, |it, inner| it.hangup(older, "already linked", inner));
        }
    }

    /// True if this connection is logged: strangers must not be able to flood the log.
    fn may_tell_of_connection(&mut self, now: Now) -> bool {
        let (since, count) = &mut self.greetings;
        if now.mono.since(*since) >= GREETINGS_PAUSE {
            (*since, *count) = (now.mono, 0);
        }
        *count += 1;
        *count <= GREETINGS_MAX
    }
}
