//! Discovery among the other services of a peer: links for questions, and proof of endpoints.

use super::{CALL_TIMEOUT, ERRAND_TIMEOUT, Event, Fx, PeerNode};
use crate::machine::discovery::{self, Discovery};
use crate::machine::session::RejectReason;
use crate::machine::{Effects, LinkId};
use crate::model::{Endpoint, Now, PublicKey};
use crate::proto::discovery::{Contact, FindNode, Found};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Questions that wait for one call at most: as many as there are look-ups at a time.
const QUESTIONS_MAX: usize = 16;

impl PeerNode {
    /// The discovery state, to look at.
    pub const fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    pub(super) fn with_discovery(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Discovery, &mut Effects<Discovery>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.discovery, &mut inner);
        for event in fx.absorb(inner) {
            match event {
                discovery::Event::Ask { to, question } => self.put(now, to, question, fx),
                discovery::Event::Check { endpoint } => self.with_session(now, fx, |it, inner| {
                    it.call(endpoint, Intent::Probe, CALL_TIMEOUT, inner);
                }),
                discovery::Event::Malformed { from, reason } => {
                    let error = ErrorReply::new(ErrorCode::Invalid, reason);
                    self.with_session(now, fx, |it, inner| {
                        it.refuse(from, RejectReason::Forged, error, inner);
                    });
                }
                discovery::Event::Learnt(peer) => self.on_candidates(now, &[peer.endpoint], fx),
                event @ (discovery::Event::Discovered { .. }
                | discovery::Event::Resolved { .. }) => fx.emit(Event::Discovery(event)),
            }
        }
    }

    /// Sends a question, over the neighbor's link if it is one, else by a short call.
    fn put(&mut self, now: Now, to: Endpoint, question: FindNode, fx: &mut Fx) {
        if let Some(link) = self.overlay.neighbors().get(&to) {
            return fx.send(*link, question);
        }
        if let Some(link) = self.question_links.get(&to) {
            return fx.send(*link, question);
        }
        let waiting = self.questions.entry(to).or_default();
        if waiting.len() < QUESTIONS_MAX {
            waiting.push(question);
        }
        self.with_session(now, fx, |it, inner| {
            it.call(to, Intent::Errand, ERRAND_TIMEOUT, inner);
        });
    }

    /// Takes note of a member's open link. Its endpoint is proved if this peer called it or a
    /// certificate names it; any other endpoint is only a claim.
    pub(super) fn on_member_opened(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        (dialed, intent): (bool, Intent),
        fx: &mut Fx,
    ) {
        let contact = Contact { endpoint: info.endpoint, key: info.key };
        let is_proved = dialed || info.certificate.is_some();
        self.with_discovery(now, fx, |it, inner| match is_proved {
            true => it.on_proved(now, contact, inner),
            false => it.on_claimed(contact, inner),
        });
        if dialed && intent == Intent::Errand {
            self.question_links.insert(info.endpoint, link);
            for question in self.questions.remove(&info.endpoint).unwrap_or_default() {
                fx.send(link, question);
            }
        }
    }

    /// Handles the failure of a call for a question.
    pub(super) fn on_question_failed(&mut self, now: Now, to: Endpoint, fx: &mut Fx) {
        if self.questions.remove(&to).is_some() {
            self.with_discovery(now, fx, |it, inner| it.on_unreachable(now, to, inner));
        }
    }

    /// Takes note of the key that a fresh handshake showed at an endpoint, or that none is there.
    pub(super) fn on_key_shown(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        shown: Option<PublicKey>,
        fx: &mut Fx,
    ) {
        self.with_discovery(now, fx, |it, inner| it.on_checked(now, endpoint, shown, inner));
        let Some(link) = self.overlay.neighbors().get(&endpoint).copied() else { return };
        let known = self.session.peer(link).map(|info| info.key);
        let Some(is_other) = shown.zip(known).map(|(shown, known)| shown != known) else { return };
        if self.open.is_some() && is_other {
            let reason = "another key answers at your endpoint";
            self.with_session(now, fx, |it, inner| it.hangup(link, reason, inner));
        } else {
            self.with_open(now, fx, |it, inner| it.on_proved(endpoint, inner));
        }
    }

    pub(super) fn on_found(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        found: Found,
        fx: &mut Fx,
    ) {
        let from = Contact { endpoint: info.endpoint, key: info.key };
        self.with_discovery(now, fx, |it, inner| it.on_found(now, link, from, found, inner));
        if !self.shared_errands.contains(&link) {
            self.end_errand(now, link, info, fx);
        }
    }
}
