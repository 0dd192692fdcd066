//! Routing of the events of one service of a peer to the others.

use super::{CALL_TIMEOUT, ERRAND_TIMEOUT, Event, Fx, PeerNode};
use crate::machine::membership::applicant;
use crate::machine::session::{self, RejectReason};
use crate::machine::{LinkId, liveness, overlay};
use crate::model::statement::NeighborList;
use crate::model::{Endpoint, Incarnation, Now};
use crate::proto::hello::{Intent, NodeInfo, SeedKey};
use crate::proto::liveness::SuspectReq;
use crate::proto::message::TrustLevel;
use crate::proto::refusal::{ErrorCode, ErrorReply};

impl PeerNode {
    pub(super) fn on_session_event(&mut self, now: Now, event: session::Event, fx: &mut Fx) {
        match event {
            session::Event::Opened { link, info, dialed, intent } => match info.seed {
                Some(_) => self.on_seed_opened(now, link, &info, (dialed, intent), fx),
                None => self.on_peer_opened(now, link, &info, (dialed, intent), fx),
            },
            session::Event::Answered { to, info } => {
                let key = info.key;
                self.probed_twin(now, to, Some(&info), fx);
                self.with_prober(now, fx, |it, inner| it.on_answered(to, info, inner));
                self.on_key_shown(now, to, Some(key), fx);
            }
            session::Event::Failed { to, intent, error } => match intent {
                Intent::Probe => {
                    self.probed_twin(now, to, None, fx);
                    self.with_prober(now, fx, |it, inner| it.on_failed(to, &error, inner));
                    self.on_key_shown(now, to, None, fx);
                }
                Intent::Errand | Intent::Link | Intent::Direct => {
                    self.on_call_failed(now, (to, intent), &error.text(), fx);
                }
            },
            session::Event::Message { link, msg } => self.on_message(now, link, *msg, fx),
            session::Event::Error { link, error } => {
                self.note_sender(now, link, fx);
                self.with_applicant(now, fx, |it, inner| it.on_error(link, &error, inner));
            }
            session::Event::Refused { from, cause, detail } => {
                if let Some(refusal) = self.refusals.count(cause, from, detail) {
                    fx.emit(Event::Refused(refusal));
                }
            }
            session::Event::Closed { link, info, is_agreed, reason: _ } => {
                self.on_closed(now, link, &info, is_agreed, fx);
            }
        }
    }

    /// Handles a call that failed, or that another node answered than the wanted one.
    fn on_call_failed(
        &mut self,
        now: Now,
        (to, intent): (Endpoint, Intent),
        reason: &str,
        fx: &mut Fx,
    ) {
        if intent == Intent::Direct {
            self.on_direct_call_failed(now, to, reason, fx);
        } else if intent == Intent::Errand {
            if self.pending_queries.remove(&to).is_some() {
                self.with_liveness(now, fx, |it, inner| {
                    it.on_witness_unreachable(now, to, inner);
                });
            }
            self.on_question_failed(now, to, fx);
        } else if self.applicant.book().seed_at(to).is_some() {
            self.with_applicant(now, fx, |it, inner| it.on_call_failed(to, reason, inner));
        } else {
            self.with_overlay(now, fx, |it, inner| it.on_call_failed(now, to, inner));
            self.on_open_call_failed(now, to, reason, fx);
        }
    }

    pub(super) fn on_closed(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        is_agreed: bool,
        fx: &mut Fx,
    ) {
        self.liveness.on_asker_gone(link);
        self.shared_errands.remove(&link);
        self.question_links.retain(|_, it| *it != link);
        if info.seed.is_some() {
            self.with_applicant(now, fx, |it, inner| it.on_link_down(link, inner));
            return;
        }
        let neighbor = info.endpoint;
        self.gossip.on_link_down(link);
        self.with_broadcast(now, fx, |it, inner| it.on_link_down(now, link, inner));
        self.with_liveness(now, fx, |it, inner| it.on_link_down(link, neighbor, is_agreed, inner));
        self.with_contacts(now, fx, |it, inner| {
            it.on_link_down(now, link, neighbor, is_agreed, inner);
        });
        self.with_overlay(now, fx, |it, inner| it.on_link_down(now, link, neighbor, inner));
        self.with_direct(now, fx, |it, inner| it.on_link_down(now, link, inner));
    }

    /// A seed is believed by its key, and only where this peer called it.
    pub(super) fn on_seed_opened(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        (dialed, intent): (bool, Intent),
        fx: &mut Fx,
    ) {
        let Some(theirs) = info.seed else { return };
        if self.open.is_some() {
            let reason =
                "a fleet without seeds and a seed do not link; --join takes a peer's address";
            return self.turn_away(now, (link, info), (dialed, intent), (reason, true), fx);
        }
        let own = self.session.info().endpoint;
        if let Some(reason) = self.applicant.book().list_objection(own, info) {
            let why = (reason.as_str(), true);
            return self.turn_away(now, (link, info), (dialed, intent), why, fx);
        }
        let seat = self.applicant.book().seed_at(info.endpoint);
        let (is_configured, seed) = (seat.is_some(), seat.unwrap_or(theirs));
        let mut is_trusted = false;
        if dialed && is_configured {
            let shown = SeedKey { seed, key: info.key, at: Some(info.endpoint) };
            self.with_applicant(now, fx, |it, inner| is_trusted = it.on_seed_key(shown, inner));
        }
        if !is_trusted {
            self.with_session(now, fx, |it, inner| it.hangup(link, "seed key not trusted", inner));
            // An incoming call proves nothing about a seed, whatever name its caller uses.
            if dialed {
                let reason = "its key is not the one known for it";
                self.on_call_failed(now, (info.endpoint, intent), reason, fx);
            }
            return;
        }
        self.with_session(now, fx, |it, inner| it.admit(link, TrustLevel::Seed, inner));
        self.with_applicant(now, fx, |it, inner| it.on_seed_link(seed, link, info, inner));
        if let Some(warning) = self.applicant.book().list_warning(own, info)
            && self.drifted.insert(seed)
        {
            fx.emit(Event::ListsDiffer(warning));
        }
        if self.applicant.admission().is_some() {
            fx.send(link, self.own_list());
        }
    }

    /// A member is believed by its certificate alone (O6).
    pub(super) fn on_peer_opened(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        (dialed, intent): (bool, Intent),
        fx: &mut Fx,
    ) {
        if self.applicant.book().seed_at(info.endpoint).is_some() {
            self.with_session(now, fx, |it, inner| it.hangup(link, "a seed's address", inner));
            if dialed {
                let reason = "somebody who is no seed answers there";
                self.on_call_failed(now, (info.endpoint, intent), reason, fx);
            }
            return;
        }
        let verdict = match self.open {
            Some(_) => self.check_open_member(now, info, dialed, fx),
            None => self.check_member(now, info, fx),
        };
        if let Err((reason, is_offense)) = verdict {
            let why = (reason.as_str(), is_offense);
            return self.turn_away(now, (link, info), (dialed, intent), why, fx);
        }
        let is_removed = self.contacts.is_removed(info.endpoint);
        if is_removed && matches!(intent, Intent::Link | Intent::Direct) {
            let reason = "removed by hand";
            self.with_session(now, fx, |it, inner| it.hangup(link, reason, inner));
            if dialed {
                self.on_call_failed(now, (info.endpoint, intent), reason, fx);
            }
            return;
        }
        self.with_session(now, fx, |it, inner| it.admit(link, TrustLevel::Member, inner));
        self.on_later_life(&info.subject());
        self.with_contacts(now, fx, |it, inner| it.on_heard(now, info.endpoint, inner));
        self.seek_twin(now, info, fx);
        self.take_name(info, fx);
        let is_shared = self.pending_queries.contains_key(&info.endpoint)
            && self.questions.contains_key(&info.endpoint);
        if is_shared && intent == Intent::Errand {
            self.shared_errands.insert(link);
        }
        self.on_member_opened(now, link, info, (dialed, intent), fx);
        match intent {
            Intent::Direct => self.on_direct_opened(now, link, info, dialed, fx),
            Intent::Link => {
                let who = (info.endpoint, info.incarnation);
                self.with_overlay(now, fx, |it, inner| {
                    it.on_link_up(link, who, &info.neighbors, dialed, inner);
                });
            }
            Intent::Errand | Intent::Probe => {
                for request in self.pending_queries.remove(&info.endpoint).unwrap_or_default() {
                    fx.send(link, request);
                }
            }
        }
    }

    /// Hangs up on a node that is not to be linked with, and sends the reason.
    fn turn_away(
        &mut self,
        now: Now,
        (link, info): (LinkId, &NodeInfo),
        (dialed, intent): (bool, Intent),
        (reason, is_offense): (&str, bool),
        fx: &mut Fx,
    ) {
        let error = ErrorReply::new(ErrorCode::NotAllowed, reason);
        self.say_goodbye_again(now, link, fx);
        self.with_session(now, fx, |it, inner| {
            if is_offense && !dialed {
                it.refuse(link, RejectReason::NotAllowed, error, inner);
            }
            it.hangup(link, reason, inner);
        });
        if dialed {
            self.on_call_failed(now, (info.endpoint, intent), reason, fx);
        }
    }

    /// Checks that a node info proves a membership; otherwise returns the reason, and whether the
    /// node info's owner should have known.
    fn check_member(
        &mut self,
        now: Now,
        info: &NodeInfo,
        fx: &mut Fx,
    ) -> Result<(), (String, bool)> {
        let subject = info.subject();
        let own = self.session.info().endpoint;
        if let Some(reason) = self.applicant.book().list_objection(own, info) {
            return Err((reason, true));
        }
        let Some(certificate) = &info.certificate else {
            let reason = "links are for members: register with the seeds first";
            return Err((reason.to_owned(), true));
        };
        if certificate.subject() != subject {
            return Err(("the certificate is about somebody else".to_owned(), true));
        }
        if self.gone.get(&subject.endpoint).is_some_and(|ended| *ended >= subject.incarnation) {
            return Err(("this membership has ended: register again".to_owned(), true));
        }
        let verdict = self.applicant.book().verify_admission(certificate);
        verdict.map_err(|error| {
            if error.unknown > 0 {
                let voters: Vec<_> = certificate.votes.iter().map(|vote| vote.seed).collect();
                self.with_applicant(now, fx, |it, inner| it.want_keys(voters, inner));
            }
            // Keys that are not known here yet are no offense.
            (format!("the certificate does not hold here: {error}"), error.unknown == 0)
        })
    }

    pub(super) fn on_applicant_event(&mut self, now: Now, event: applicant::Event, fx: &mut Fx) {
        match event {
            applicant::Event::Call { to } => self.with_session(now, fx, |it, inner| {
                it.call(to, Intent::Link, CALL_TIMEOUT, inner);
            }),
            applicant::Event::Hangup { link } => {
                self.with_session(now, fx, |it, inner| it.hangup(link, "a new life begins", inner));
            }
            applicant::Event::Attempt { incarnation, number } => {
                if self.open.is_none() {
                    let event = applicant::Event::Attempt { incarnation, number };
                    fx.emit(Event::Applicant(event));
                }
                self.begin_life(now, incarnation, fx);
            }
            applicant::Event::Admitted(admission) => {
                self.session.info_mut().certificate = Some((*admission).clone());
                fx.emit(Event::Applicant(applicant::Event::Admitted(admission)));
                self.with_overlay(now, fx, |it, inner| it.begin(inner));
                self.begin_broadcast();
            }
            applicant::Event::Members { seed, members } => {
                self.with_overlay(now, fx, |it, inner| it.on_members(&members, inner));
                fx.emit(Event::Applicant(applicant::Event::Members { seed, members }));
            }
            event @ (applicant::Event::Asked { .. }
            | applicant::Event::Voted { .. }
            | applicant::Event::Refused { .. }
            | applicant::Event::Evicted { .. }
            | applicant::Event::Renews { .. }
            | applicant::Event::SeedKeyLearnt(_)
            | applicant::Event::SeedKeyContradicted { .. }
            | applicant::Event::SeedLink { .. }) => fx.emit(Event::Applicant(event)),
        }
    }

    /// Begins another incarnation of this peer: all further statements are in its name.
    pub(super) fn begin_life(&mut self, now: Now, incarnation: Incarnation, fx: &mut Fx) {
        self.with_gossip(now, fx, |it, inner| it.pause(inner));
        self.with_broadcast(now, fx, |it, inner| it.pause(inner));
        self.with_overlay(now, fx, |it, inner| it.pause(inner));
        self.with_liveness(now, fx, |it, inner| it.reset(inner));
        self.with_direct(now, fx, |it, inner| it.reset(inner));
        self.list_version = 0;
        let info = self.session.info_mut();
        info.incarnation = incarnation;
        info.certificate = None;
        info.neighbors = Vec::new();
        info.degree = 0;
        let links: Vec<_> = self.session.open().map(|(link, _, _)| link).collect();
        for link in links {
            self.with_session(now, fx, |it, inner| it.hangup(link, "a new life begins", inner));
        }
    }

    pub(super) fn on_overlay_event(&mut self, now: Now, event: overlay::Event, fx: &mut Fx) {
        match event {
            overlay::Event::Call { to } if self.contacts.is_removed(to) => {
                self.with_overlay(now, fx, |it, inner| it.on_call_failed(now, to, inner));
            }
            overlay::Event::Call { to } => self.with_session(now, fx, |it, inner| {
                it.call(to, Intent::Link, CALL_TIMEOUT, inner);
            }),
            overlay::Event::Hangup { link, reason } => {
                self.with_session(now, fx, |it, inner| it.hangup(link, reason, inner));
            }
            overlay::Event::WantMembers if self.open.is_some() => {
                let known: Vec<_> = self.discovery.contacts().map(|it| it.endpoint).collect();
                self.on_candidates(now, &known, fx);
            }
            overlay::Event::WantMembers => {
                self.with_applicant(now, fx, |it, inner| it.refresh(inner));
            }
            overlay::Event::Linked { neighbor, link, dialed, degree } => {
                fx.emit(Event::Overlay(overlay::Event::Linked { neighbor, link, dialed, degree }));
                let incarnation = self.session.info().incarnation;
                self.with_gossip(now, fx, |it, inner| {
                    it.on_link_up(now, link, inner);
                    it.begin(incarnation, inner);
                });
                self.with_broadcast(now, fx, |it, inner| {
                    it.on_link_up(now, link, neighbor, inner);
                });
                if let Some(info) = self.session.peer(link).cloned() {
                    let who = (link, neighbor, info.incarnation);
                    self.with_contacts(now, fx, |it, inner| {
                        it.on_link_up(now, link, neighbor, inner);
                    });
                    self.with_direct(now, fx, |it, inner| it.on_link_up(now, who, None, inner));
                    self.with_liveness(now, fx, |it, inner| {
                        it.on_link_up(now, link, info.subject(), &info.neighbors, inner);
                    });
                    self.on_candidates(now, &info.neighbors, fx);
                }
                self.with_open(now, fx, |it, inner| it.on_linked(neighbor, dialed, inner));
            }
            overlay::Event::Announce { neighbors } => {
                let info = self.session.info_mut();
                info.degree = u32::try_from(neighbors.len()).unwrap_or(u32::MAX);
                info.neighbors.clone_from(&neighbors);
                self.list_version += 1;
                self.remember_neighbors(&neighbors, fx);
                let list = self.own_list();
                let seeds = self.applicant.seed_links().map(|(_, link)| link);
                for link in self.overlay.neighbors().values().copied().chain(seeds) {
                    fx.send(link, list.clone());
                }
                fx.emit(Event::Overlay(overlay::Event::Announce { neighbors }));
            }
            overlay::Event::Unlinked { neighbor, link, degree } => {
                fx.emit(Event::Overlay(overlay::Event::Unlinked { neighbor, link, degree }));
                self.on_unlinked(now, neighbor, fx);
            }
        }
    }

    pub(super) fn own_list(&self) -> NeighborList {
        let neighbors = self.session.info().neighbors.clone();
        NeighborList::sign(&self.applicant.subject(), self.list_version, neighbors, &self.keys)
    }

    pub(super) fn on_liveness_event(&mut self, now: Now, event: liveness::Event, fx: &mut Fx) {
        match event {
            liveness::Event::Probe { endpoint, timeout } => {
                self.with_prober(now, fx, |it, inner| it.probe(endpoint, timeout, inner));
            }
            liveness::Event::Ask { witness, request } => self.ask(now, witness, request, fx),
            // Without seeds there is no authority to report to: its own finding was enough.
            liveness::Event::Report(_) if self.open.is_some() => {}
            liveness::Event::Report(report) => {
                for (_, link) in self.applicant.seed_links() {
                    fx.send(link, report.clone());
                }
                fx.emit(Event::Liveness(liveness::Event::Report(report)));
            }
            liveness::Event::Forged { link } => {
                let error = ErrorReply::new(ErrorCode::Invalid, "a finding that does not hold");
                self.with_session(now, fx, |it, inner| {
                    it.refuse(link, RejectReason::Forged, error, inner);
                });
            }
            liveness::Event::Confirmed { subject, witness, finding, count, needed } => {
                let is_own = witness == self.session.info().endpoint;
                fx.emit(Event::Liveness(liveness::Event::Confirmed {
                    subject,
                    witness,
                    finding,
                    count,
                    needed,
                }));
                if is_own && self.open.is_some() {
                    self.drop_neighbor(now, subject, fx);
                }
            }
            event @ (liveness::Event::Suspected { .. }
            | liveness::Event::Cleared { .. }
            | liveness::Event::Doubtful { .. }
            | liveness::Event::NoHostPing
            | liveness::Event::Host { .. }) => fx.emit(Event::Liveness(event)),
        }
    }

    /// Sends a question to a witness, over its link if there is one.
    pub(super) fn ask(&mut self, now: Now, witness: Endpoint, request: SuspectReq, fx: &mut Fx) {
        if let Some(link) = self.overlay.neighbors().get(&witness) {
            fx.send(*link, request);
            return;
        }
        if self.applicant.book().seed_at(witness).is_some() {
            // Only a liar names a seed as its neighbor; a seed testifies in votes.
            self.with_liveness(now, fx, |it, inner| it.on_witness_unreachable(now, witness, inner));
            return;
        }
        self.pending_queries.entry(witness).or_default().push(request);
        self.with_session(now, fx, |it, inner| {
            it.call(witness, Intent::Errand, ERRAND_TIMEOUT, inner);
        });
    }
}
