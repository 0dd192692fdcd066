//! Messages on their way: judged, delivered once, pushed on eager links, announced on lazy ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::config::{AGE_GRACE, ANSWER_MAX, SEEN_BY_KEPT};
use super::event::{Delivered, Event, Reason};
use super::links::Link;
use super::memory::Held;
use super::{Broadcast, CertificateVerdict, Fx, Timer};
use crate::machine::LinkId;
use crate::model::statement::Admission;
use crate::model::{Endpoint, MessageId, Now, Time};
use crate::proto::broadcast::{GRAFT_MAX, Graft, Offer, Prune, Publish, TTL_MAX};

/// Judgement on a message that is not known yet.
enum Judgement {
    /// The message is taken; with the proof of its origin, if that is known.
    Takes(Option<Arc<Admission>>),
    /// The message is dropped, and no neighbor is to blame.
    Drops(Reason),
    /// The proof of the message's origin is to be asked for.
    Asks,
    /// The neighbor that sent it is to blame.
    Blames(Reason, String),
}

impl Broadcast {
    /// Takes a message. `judge` says whether a certificate holds here; it is asked only about
    /// origins that are not known yet.
    pub fn on_publish(
        &mut self,
        now: Now,
        from: LinkId,
        mut msg: Publish,
        judge: impl FnOnce(&Admission) -> CertificateVerdict,
        fx: &mut Fx,
    ) {
        if !self.links.contains_key(&from) {
            return;
        }
        self.metrics.messages_received += 1;
        self.metrics.bytes_in += msg.data.as_ref().map_or(0, |data| data.len() as u64);
        if let Some(reason) = msg.complaint(self.config.message_max) {
            return self.blame(from, reason, fx);
        }
        let id = msg.id();
        let answer = self.links.get_mut(&from).and_then(|link| link.answered(now.mono, &id));
        if let Some(took) = answer {
            self.answers.observe(took);
        }
        let solicited = answer.is_some();
        if self.seen.contains(&id) || self.pulls.contains_key(&id) {
            return self.on_duplicate(now, from, &id, solicited, fx);
        }
        match self.judge(now, &mut msg, solicited, judge) {
            Judgement::Drops(reason) => self.metrics.drop_one(reason),
            Judgement::Blames(reason, text) => self.drop_and_blame(reason, from, text, fx),
            Judgement::Asks => {
                self.metrics.drop_one(Reason::Unproven);
                self.want(now, (id, msg.size), from, fx);
                self.hurry(now, &id, fx);
            }
            Judgement::Takes(proof) => {
                msg.ttl = msg.ttl.min(TTL_MAX);
                msg.hops = msg.hops.saturating_add(1);
                let excess = (msg.seen_by.len() + 1).saturating_sub(SEEN_BY_KEPT);
                msg.seen_by.drain(..excess);
                msg.seen_by.push(self.me);
                if msg.is_large() {
                    self.pull(now, (id, msg), proof, (from, solicited), fx);
                } else {
                    self.accept(now, (id, msg), proof, (from, solicited), fx);
                }
            }
        }
    }

    /// Judges a message that is not known yet: the cheap checks first, signatures last.
    fn judge(
        &self,
        now: Now,
        msg: &mut Publish,
        solicited: bool,
        judge: impl FnOnce(&Admission) -> CertificateVerdict,
    ) -> Judgement {
        let subject = msg.subject();
        let age = Duration::from_millis(msg.age_ms);
        let floor = self.origins.floor(&subject);
        let is_old = age >= self.config.remember
            || self.seen.is_beyond(now.mono.before(age))
            || floor.is_some_and(|floor| msg.number <= floor);
        if is_old {
            return Judgement::Drops(Reason::Old);
        }
        // A neighbor does no wrong that forwards a message made before the end, or has not
        // heard of it.
        if self.origins.ended_at(&subject).is_some_and(|at| age + AGE_GRACE < now.mono.since(at)) {
            return Judgement::Drops(Reason::Ended);
        }
        if subject.endpoint == self.me && subject.incarnation == self.made.0 {
            if msg.number <= self.made.1.count() {
                return Judgement::Drops(Reason::Old);
            }
            let reason = format!("a message #{} that I never made", msg.number);
            return Judgement::Blames(Reason::Forged, reason);
        }
        let proof = msg.proof.take();
        let proof = match (floor, proof) {
            (Some(_), _) => self.origins.proof(&subject),
            (None, _) if !self.config.requires_proof => None,
            (None, None) if solicited => {
                let reason = "an answer to GRAFT without its origin's certificate".to_owned();
                return Judgement::Blames(Reason::Unproven, reason);
            }
            (None, None) => return Judgement::Asks,
            (None, Some(proof)) => {
                let is_about = proof.subject() == subject;
                match if is_about { judge(&proof) } else { CertificateVerdict::Fails } {
                    CertificateVerdict::Holds => Some(proof),
                    CertificateVerdict::Unsure => return Judgement::Drops(Reason::Unproven),
                    CertificateVerdict::Fails => {
                        let reason = "a certificate that does not hold for the origin".to_owned();
                        return Judgement::Blames(Reason::Forged, reason);
                    }
                }
            }
        };
        let statement = msg.statement();
        let holds = match self.origins.key(&subject) {
            Some(key) => key.verifies(&statement, &msg.signature),
            None => msg.key.verifies(&statement, &msg.signature),
        };
        if !holds {
            let reason = "a message that its origin did not sign".to_owned();
            return Judgement::Blames(Reason::Forged, reason);
        }
        if msg.data.as_ref().is_some_and(|data| data.sha256() != msg.digest) {
            let reason = "data that does not match its digest".to_owned();
            return Judgement::Blames(Reason::Forged, reason);
        }
        Judgement::Takes(proof)
    }

    /// Takes a duplicate: its link is not needed for pushing, unless that of the first copy is
    /// gone or lazy.
    fn on_duplicate(
        &mut self,
        now: Now,
        from: LinkId,
        id: &MessageId,
        solicited: bool,
        fx: &mut Fx,
    ) {
        self.metrics.duplicates += 1;
        let first = match self.pulls.get_mut(id) {
            Some(pull) => {
                pull.add_source(from);
                Some(pull.from)
            }
            None => self.store.get(id).and_then(|held| held.from),
        };
        let is_own = self.store.get(id).is_some_and(|held| held.from.is_none());
        let is_served = first.and_then(|first| self.links.get(&first)).is_some_and(|it| it.eager);
        // An answer to a request is no push: it prunes no link.
        let is_needless = !solicited && first != Some(from) && (is_served || is_own);
        if is_needless && self.links.get_mut(&from).is_some_and(|link| link.prune(now.mono)) {
            self.metrics.prunes += 1;
            fx.send(from, Prune {});
        }
    }

    /// Delivers a message that came whole and holds, and passes it on.
    pub(super) fn accept(
        &mut self,
        now: Now,
        (id, msg): (MessageId, Publish),
        proof: Option<Arc<Admission>>,
        (from, solicited): (LinkId, bool),
        fx: &mut Fx,
    ) {
        let (subject, age) = (msg.subject(), Duration::from_millis(msg.age_ms));
        let want = self.unwant(&id);
        if solicited {
            self.metrics.repaired += 1;
        } else {
            let late = want.as_ref().map_or(Duration::ZERO, |want| now.mono.since(want.since));
            self.lateness.observe(late.min(ANSWER_MAX));
            // A neighbor that delivers first is a neighbor in the tree, in both directions.
            if let Some(link) = self.links.get_mut(&from) {
                link.graft();
            }
        }
        let origin = self.origins.insert(subject, proof.clone());
        let times = (now.mono, now.mono.before(age));
        let room = (self.config.seen_max, &mut self.origins);
        self.seen.insert(id, (origin, msg.number), times, room);
        self.metrics.messages_delivered += 1;
        self.metrics.delivery_latency_ms.observe(msg.age_ms);
        self.metrics.delivery_hops.observe(u64::from(msg.hops));
        let message = Delivered {
            id,
            origin: msg.origin,
            incarnation: msg.incarnation,
            key: msg.key,
            number: msg.number,
            topic: msg.topic.clone(),
            time: msg.time,
            data: msg.data.clone().unwrap_or_else(|| Vec::new().into()),
            hops: msg.hops,
            age_ms: msg.age_ms,
        };
        let number = msg.number;
        let held = Held::new(msg, proof, now.mono, (Some(from), origin));
        let bytes = held.bytes();
        self.store.insert(id, held, self.config.held_bytes_max);
        self.arrived(now, (&subject, number), bytes, fx);
        let mut have: BTreeSet<_> = want.map(|want| want.sources).into_iter().flatten().collect();
        have.insert(from);
        self.forward(now, id, &have, fx);
        self.report(now, id, fx);
        if let Some(link) = self.links.get(&from) {
            fx.emit(Event::Delivered { message, from: link.endpoint });
        }
    }

    /// Pushes a held message on the eager links and announces it on the others, but not on the
    /// links whose neighbors have it. Returns the number of pushes.
    pub(super) fn forward(
        &mut self,
        now: Now,
        id: MessageId,
        have: &BTreeSet<LinkId>,
        fx: &mut Fx,
    ) -> usize {
        let Some(held) = self.store.get(&id) else { return 0 };
        if held.from.is_none() && !self.links.values().any(|link| link.eager) {
            // An announcement alone may come too late, if this node goes on to leave.
            self.links.values_mut().take(self.config.fanout).for_each(Link::graft);
        }
        let (mut lazy, mut pushed) = (Vec::new(), 0);
        for (number, link) in self.links.iter_mut().filter(|(link, _)| !have.contains(link)) {
            link.expect_progress(&held.msg.subject(), held.msg.number);
            let pushes = link.eager
                && held.msg.ttl > 0
                && !held.msg.seen_by.contains(&link.endpoint)
                && link.may_push(now.mono, weight(&held.msg));
            if !pushes {
                lazy.push(*number);
                continue;
            }
            pushed += 1;
            self.metrics.bytes_out += weight(&held.msg);
            let with_proof = link.introduce(&held.msg.subject());
            fx.send(*number, copy(held, now.mono, with_proof));
        }
        self.metrics.messages_sent += pushed;
        let offer = held.offer(id);
        self.offer(now, offer, &lazy, fx);
        usize::try_from(pushed).unwrap_or(usize::MAX)
    }

    /// Takes the announcement of a message that came here by another link: if the announcer is much
    /// nearer to the origin, its link takes the other one's place in the tree.
    ///
    /// The announcer was not reached by way of this node, or its copy would have crossed more
    /// links; so the tree stays whole. A neighbor that only claims to be near gains nothing soon
    /// after: announcements repair what it does not push, and its link is preferred again only
    /// after a pause.
    pub(super) fn prefer_nearer(&mut self, now: Now, from: LinkId, offer: Offer, fx: &mut Fx) {
        let Some(held) = self.store.get(&offer.id) else { return };
        let Some(parent) = held.from.filter(|parent| *parent != from) else { return };
        let is_near =
            held.msg.hops.saturating_sub(offer.hops.saturating_add(1)) >= self.config.nearer_by;
        if !is_near || !self.links.get(&parent).is_some_and(|link| link.eager) {
            return;
        }
        if !self.links.get_mut(&from).is_some_and(|link| link.prefer(now.mono)) {
            return;
        }
        self.metrics.grafts += 1;
        self.metrics.preferred += 1;
        fx.send(from, Graft { ids: Vec::new(), push: true });
        if self.links.get_mut(&parent).is_some_and(|link| link.prune(now.mono)) {
            self.metrics.prunes += 1;
            fx.send(parent, Prune {});
        }
    }

    /// Sends the messages that a neighbor asks for, and perhaps pushes to it from now on.
    pub fn on_graft(&mut self, now: Now, from: LinkId, graft: &Graft, fx: &mut Fx) {
        if graft.ids.len() > GRAFT_MAX {
            let reason = format!("{} messages; ask for {GRAFT_MAX} at once", graft.ids.len());
            return self.blame(from, reason, fx);
        }
        let Some(link) = self.links.get_mut(&from) else { return };
        if graft.push {
            link.graft();
        }
        for id in graft.ids.iter().collect::<BTreeSet<_>>() {
            let Some(held) = self.store.get(id) else { continue };
            if !link.may_serve(now.mono, weight(&held.msg)) {
                self.metrics.drop_one(Reason::Hasty);
                break;
            }
            self.metrics.messages_sent += 1;
            self.metrics.bytes_out += weight(&held.msg);
            link.introduce(&held.msg.subject());
            fx.send(from, copy(held, now.mono, true));
        }
    }

    /// Makes a link lazy because its neighbor wants announcements instead of pushes.
    pub fn on_prune(&mut self, from: LinkId) {
        if let Some(link) = self.links.get_mut(&from) {
            link.eager = false;
        }
    }

    /// Asks for a message without waiting any longer.
    fn hurry(&mut self, now: Now, id: &MessageId, fx: &mut Fx) {
        if self.wanted.get_mut(id).is_some_and(|want| want.asked.is_none()) {
            self.wanted.set_due(id, now.mono);
            self.arm(Timer::Repair, self.wanted.next_due(), now, fx);
        }
    }

    /// The neighbor at the other end of a link.
    pub fn neighbor(&self, link: LinkId) -> Option<Endpoint> {
        self.links.get(&link).map(|link| link.endpoint)
    }
}

/// Bytes of data that travel with a message: none with a large one.
fn weight(msg: &Publish) -> u64 {
    if msg.is_large() { 0 } else { msg.size }
}

/// Makes the copy of a held message that leaves now.
fn copy(held: &Held, now: Time, with_proof: bool) -> Publish {
    let msg = &held.msg;
    Publish {
        data: if msg.is_large() { None } else { msg.data.clone() },
        topic: msg.topic.clone(),
        seen_by: msg.seen_by.clone(),
        ttl: msg.ttl.saturating_sub(1),
        age_ms: u64::try_from(held.age(now).as_millis()).unwrap_or(u64::MAX),
        proof: held.proof.clone().filter(|_| with_proof),
        ..*msg
    }
}
