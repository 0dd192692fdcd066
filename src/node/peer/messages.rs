//! Routing of messages to a peer's services, and consequences of membership news.

use std::sync::Arc;

use super::{ENDED_MAX, Event, Fx, GONE_MAX, NAMED_MAX, PeerNode};
use crate::machine::LinkId;
use crate::machine::session::RejectReason;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{Leave, MemberInstance, NeighborList, Removal};
use crate::model::{Endpoint, Incarnation, Now};
use crate::proto::hello::NodeInfo;
use crate::proto::liveness::Pong;
use crate::proto::membership::ExplainResp;
use crate::proto::message::{BroadcastMessage, DirectMessage, Message, PeerMessage, TrustLevel};
use crate::proto::refusal::{ErrorCode, ErrorReply};

impl PeerNode {
    /// Counts a message by a proved link as a sign of life of its sender; in a fleet without seeds,
    /// only that of a neighbor. Returns whether the link is that of a neighbor.
    pub(super) fn note_sender(&mut self, now: Now, link: LinkId, fx: &mut Fx) -> bool {
        let known = self.session.peer(link).map(|it| (it.endpoint, it.seed.is_some()));
        let is_neighbor =
            known.is_some_and(|(from, _)| self.overlay.neighbors().get(&from) == Some(&link));
        if let Some((from, is_seed)) = known.filter(|_| is_neighbor || self.open.is_none()) {
            self.liveness.on_heard(now, from);
            if !is_seed {
                self.with_contacts(now, fx, |it, inner| it.on_heard(now, from, inner));
            }
        }
        is_neighbor
    }

    pub(super) fn on_message(&mut self, now: Now, link: LinkId, msg: Message, fx: &mut Fx) {
        let is_neighbor = self.note_sender(now, link, fx);
        let name = msg.name();
        let msg = match BroadcastMessage::try_from(msg) {
            Ok(msg) => return self.on_broadcast(now, link, msg, fx),
            Err(msg) => msg,
        };
        // The session passes nothing on that is for peers before a key is proved with a node info.
        let Some(info) = self.session.peer(link).cloned() else {
            return self.refuse_role(now, link, name, fx);
        };
        let msg = match DirectMessage::try_from(msg) {
            Ok(_) if info.seed.is_some() => return self.refuse_role(now, link, name, fx),
            Ok(msg) => return self.on_direct_message(now, (link, &info), msg, fx),
            Err(msg) => msg,
        };
        match PeerMessage::try_from(msg) {
            Ok(msg) => self.on_peer_message(now, (link, &info, is_neighbor), msg, fx),
            Err(_) => self.refuse_role(now, link, name, fx),
        }
    }

    fn on_peer_message(
        &mut self,
        now: Now,
        (link, info, is_neighbor): (LinkId, &NodeInfo, bool),
        msg: PeerMessage,
        fx: &mut Fx,
    ) {
        match msg {
            PeerMessage::RegisterVote(vote) => {
                self.with_applicant(now, fx, |it, inner| it.on_vote(&vote, inner));
            }
            PeerMessage::RegisterCommit(proof) => {
                self.with_applicant(now, fx, |it, inner| it.on_commit(proof, inner));
            }
            PeerMessage::PeerListResp(page) => {
                self.with_applicant(now, fx, |it, inner| it.on_peer_list(link, page, inner));
            }
            PeerMessage::GossipMsg(_) | PeerMessage::GossipDigest(_) if !is_neighbor => {
                // Gossip is for neighbors; a link that is just being exchanged is no offense.
            }
            PeerMessage::GossipMsg(msg) => {
                self.with_gossip(now, fx, |it, inner| it.on_message(now, link, msg, inner));
            }
            PeerMessage::GossipDigest(digest) => {
                self.with_gossip(now, fx, |it, inner| it.on_digest(now, link, &digest, inner));
            }
            PeerMessage::Ping(ping) => fx.send(link, Pong { nonce: ping.nonce }),
            PeerMessage::Pong(pong) => self.liveness.on_pong(now, info.endpoint, pong),
            // Without a certificate, a list says nothing but of the link it came by.
            PeerMessage::Neighbors(_) if !is_neighbor && self.open.is_some() => {}
            PeerMessage::Neighbors(list) => self.on_neighbors(now, link, info, &list, fx),
            PeerMessage::SuspectReq(request) => {
                let own = self.applicant.subject();
                self.with_liveness(now, fx, |it, inner| {
                    it.on_suspect_req(now, (link, &own), request, inner);
                });
            }
            PeerMessage::SuspectAck(found) => {
                let from = info.subject();
                self.with_liveness(now, fx, |it, inner| {
                    it.on_suspect_ack(now, (link, &from), found, inner);
                });
                self.end_errand(now, link, info, fx);
            }
            PeerMessage::SeedDeadVote(said) => {
                self.with_applicant(now, fx, |it, inner| it.on_dead_vote(link, &said, inner));
            }
            PeerMessage::SeedDeadCommit(proof) => self.on_removal(now, link, proof, fx),
            PeerMessage::Leave(leave) => {
                let standing = self.session.standing(link);
                self.on_leave(now, (link, info, standing), leave, fx);
            }
            PeerMessage::LinkHint(hint) => {
                self.with_overlay(now, fx, |it, inner| it.on_hint(hint.endpoint, inner));
            }
            PeerMessage::ExplainResp(answer) => self.on_explained(now, link, answer, fx),
            PeerMessage::FindNode(question) => {
                let from = (link, info.key);
                self.with_discovery(now, fx, |it, inner| it.on_find_node(from, question, inner));
            }
            PeerMessage::Found(found) => self.on_found(now, link, info, found, fx),
        }
    }

    /// A seed's answer about a member: its last life has an end, or is one after an end. Both are
    /// believed by their certificates alone; a seed may not know the last life yet.
    fn on_explained(&mut self, now: Now, link: LinkId, answer: ExplainResp, fx: &mut Fx) {
        let Some(RegistryEntry { subject, admission, removal, .. }) =
            answer.lives.into_iter().next_back()
        else {
            return;
        };
        if let Some(removal) = removal {
            return self.on_removal(now, link, Arc::unwrap_or_clone(removal), fx);
        }
        let is_proved = admission.is_some_and(|it| {
            it.subject() == subject && self.applicant.book().verify_admission(&it).is_ok()
        });
        if is_proved {
            self.on_later_life(&subject);
        }
    }

    /// A key that ended is a member again: the certificate of this life was seen.
    pub(super) fn on_later_life(&mut self, life: &MemberInstance) {
        let ended = self.ended.get(&life.key);
        if ended.is_some_and(|(it, _)| {
            it.endpoint != life.endpoint || it.incarnation < life.incarnation
        }) {
            self.ended.remove(&life.key);
        }
    }

    fn refuse_role(&mut self, now: Now, link: LinkId, name: &str, fx: &mut Fx) {
        let reason = format!("a peer takes no part in {name}; ask a seed");
        let error = ErrorReply::new(ErrorCode::WrongRole, reason);
        self.with_session(now, fx, |it, inner| {
            it.refuse(link, RejectReason::WrongRole, error, inner);
        });
    }

    pub(super) fn on_neighbors(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        list: &NeighborList,
        fx: &mut Fx,
    ) {
        let is_bounded = list.neighbors.len() <= NAMED_MAX;
        if list.endpoint != info.endpoint || !is_bounded || !list.is_valid(&info.key) {
            let error = ErrorReply::new(ErrorCode::Invalid, "a list that its author did not sign");
            self.with_session(now, fx, |it, inner| {
                it.refuse(link, RejectReason::Forged, error, inner);
            });
            return;
        }
        self.session.update_neighbors(link, &list.neighbors);
        self.overlay.on_neighbors(info.endpoint, &list.neighbors);
        self.liveness.on_neighbors(info.endpoint, &list.neighbors);
        self.on_candidates(now, &list.neighbors, fx);
    }

    /// Ends the link of an answered query, unless the link has another use, too.
    pub(super) fn end_errand(&mut self, now: Now, link: LinkId, info: &NodeInfo, fx: &mut Fx) {
        let is_neighbor = self.overlay.neighbors().get(&info.endpoint) == Some(&link);
        // The link also carries the questions that are still open, of one look-up or several.
        let is_asking = self.question_links.get(&info.endpoint) == Some(&link)
            && self.discovery.awaits(info.endpoint);
        let is_errand = !is_neighbor && !is_asking && !self.direct.is_own(link);
        if is_errand && info.seed.is_none() {
            self.question_links.retain(|_, it| *it != link);
            self.with_session(now, fx, |it, inner| it.hangup(link, "thank you", inner));
        }
    }

    pub(super) fn on_removal(&mut self, now: Now, link: LinkId, proof: Removal, fx: &mut Fx) {
        let is_known = |life: &MemberInstance| {
            self.gone.get(&life.endpoint).is_some_and(|ended| *ended >= life.incarnation)
        };
        let news: Vec<_> = proof.lives.iter().filter(|life| !is_known(life)).copied().collect();
        if news.is_empty() && !proof.lives.is_empty() {
            return;
        }
        if let Err(error) = self.applicant.book().verify_removal(&proof) {
            let (cause, reason) = (error.cause(), format!("no certificate: {error}"));
            let error = ErrorReply::new(ErrorCode::Invalid, reason);
            self.with_session(now, fx, |it, inner| it.refuse(link, cause, error, inner));
            return;
        }
        for (_, neighbor) in self.overlay.neighbors().iter().filter(|(_, it)| **it != link) {
            fx.send(*neighbor, proof.clone());
        }
        let (removal, own) = (Arc::new(proof), self.applicant.subject());
        for life in news {
            self.remember_gone(now, life.endpoint, life.incarnation);
            if life != own {
                self.remember_end(life, &removal);
                fx.emit(Event::MemberRemoved { removal: Arc::clone(&removal), life });
                self.forget(now, life.endpoint, life.incarnation, fx);
            }
        }
        // Its own removal last: with it begins another life.
        self.with_applicant(now, fx, |it, inner| it.on_removal(now, &removal, inner));
    }

    /// Handles a goodbye. Its signature proves it; that its key is the member's, only a link with
    /// the member shows. Of others a seed's word is enough to stop calling them, and for nothing
    /// else.
    pub(super) fn on_leave(
        &mut self,
        now: Now,
        (link, info, standing): (LinkId, &NodeInfo, TrustLevel),
        leave: Leave,
        fx: &mut Fx,
    ) {
        let is_own = info.subject() == leave.subject();
        let known = self.session.open().find(|(_, it, _)| it.endpoint == leave.endpoint);
        let is_proved = is_own || known.is_some_and(|(_, it, _)| it.subject() == leave.subject());
        let is_hint = standing == TrustLevel::Seed && known.is_none();
        if !leave.is_valid() || !(is_proved || is_hint) {
            let error = ErrorReply::new(ErrorCode::Invalid, "a goodbye that does not hold");
            self.with_session(now, fx, |it, inner| {
                it.refuse(link, RejectReason::Forged, error, inner);
            });
            return;
        }
        if self.open.is_some() {
            return self.on_open_leave(now, leave, fx);
        }
        let Leave { endpoint, incarnation, .. } = leave;
        if !is_proved {
            if self.overlay.incarnation_of(endpoint) == Some(incarnation) {
                fx.emit(Event::MemberLeft(leave));
                self.with_overlay(now, fx, |it, inner| it.on_gone(endpoint, incarnation, inner));
            }
            return;
        }
        if self.gone.get(&endpoint).is_some_and(|ended| *ended >= incarnation) {
            return;
        }
        self.remember_gone(now, endpoint, incarnation);
        fx.emit(Event::MemberLeft(leave));
        self.forget(now, endpoint, incarnation, fx);
    }

    /// Keeps a certified end, unless a later life of that key is linked here.
    fn remember_end(&mut self, life: MemberInstance, removal: &Arc<Removal>) {
        let is_later =
            |info: &NodeInfo| info.key == life.key && info.incarnation > life.incarnation;
        if self.session.open().any(|(_, info, it)| it == TrustLevel::Member && is_later(info)) {
            return;
        }
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_first();
        }
        self.ended.insert(life.key, (life, Arc::clone(removal)));
    }

    pub(super) fn remember_gone(&mut self, now: Now, endpoint: Endpoint, incarnation: Incarnation) {
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_first();
        }
        self.gone.insert(endpoint, incarnation);
        self.broadcast.on_gone(now, endpoint, incarnation);
    }

    pub(super) fn forget(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        incarnation: Incarnation,
        fx: &mut Fx,
    ) {
        self.discovery.on_gone(endpoint);
        self.with_liveness(now, fx, |it, inner| it.on_gone(endpoint, incarnation, inner));
        self.with_overlay(now, fx, |it, inner| it.on_gone(endpoint, incarnation, inner));
        self.with_direct(now, fx, |it, inner| it.on_gone(endpoint, incarnation, inner));
        self.contacts.on_gone(endpoint);
    }
}
