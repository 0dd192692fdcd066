//! Connections: their members, the messages that are believed, and the members to call.
//!
//! A node that is no member, and that no member has named, can neither raise a term nor be heard as
//! a leader; it can ask to be admitted.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::config::{LINKS_MAX, MEMBERS_MAX, SEQ_MAX, STRANGERS_MAX, TERM_LEAP_MAX, TERM_MAX};
use super::event::{Event, Fx, Record, Timer};
use super::group::{Duty, Group};
use super::rival::Rival;
use crate::machine::LinkId;
use crate::model::{PublicKey, Time};
use crate::proto::chat::entry::{GroupId, Member, MemberId};
use crate::proto::chat::message::{Intent, JoinAck, Message, Nack, NackCode};

/// Longest pause between two calls.
const REDIAL_MAX: Duration = Duration::from_secs(2);

/// One connection with its member.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) member: Member,
    pub(super) intent: Intent,
    pub(super) is_ours: bool,
    /// Random number of the process at the other end.
    pub(super) life: Option<u64>,
    /// Number of rounds since a message came by it.
    pub(super) quiet: u32,
}

impl Link {
    pub(super) const fn new(
        member: Member,
        intent: Intent,
        is_ours: bool,
        life: Option<u64>,
    ) -> Self {
        Self { member, intent, is_ours, life, quiet: 0 }
    }
}

/// All connections, and the calls that did not succeed.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: BTreeMap<LinkId, Link>,
    by_member: BTreeMap<MemberId, LinkId>,
    dialing: BTreeMap<MemberId, u32>,
    /// Later processes with the keys of members that are linked; see `rival.rs`.
    pub(super) rivals: BTreeMap<MemberId, Rival>,
    /// Times at which members were heard last.
    pub(super) heard: BTreeMap<MemberId, Time>,
}

impl Links {
    /// Notes that bytes came by a connection.
    pub(super) fn stir(&mut self, link: LinkId) {
        if let Some(link) = self.all.get_mut(&link) {
            link.quiet = 0;
        }
    }

    /// Ends a round. Returns the links to members by which nothing came for more
    /// than `quiet_max` rounds.
    pub(super) fn end_round(&mut self, quiet_max: u32) -> Vec<LinkId> {
        for link in self.all.values_mut() {
            link.quiet = link.quiet.saturating_add(1);
        }
        let is_silent = |link: &LinkId| self.all[link].quiet > quiet_max;
        self.by_member.values().copied().filter(is_silent).collect()
    }

    /// Forgets all connections but the clients', and all calls. Returns their links, to be hung up.
    pub(super) fn take_members(&mut self) -> Vec<LinkId> {
        self.by_member.clear();
        self.dialing.clear();
        self.heard.clear();
        let of_members = self.all.iter().filter(|(_, it)| it.intent == Intent::Member);
        let links = of_members.map(|(link, _)| *link).collect();
        self.all.retain(|_, it| it.intent != Intent::Member);
        links
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Link> {
        self.all.get(&link)
    }

    pub(super) fn of_member(&self, id: MemberId) -> Option<LinkId> {
        self.by_member.get(&id).copied()
    }

    /// The linked members, without clients.
    pub(super) fn members(&self) -> impl Iterator<Item = (MemberId, LinkId, &Member)> {
        self.by_member.iter().map(|(id, link)| (*id, *link, &self.all[link].member))
    }
}

impl Group {
    /// Checks that the driver may admit a member's connection.
    ///
    /// # Errors
    /// The code of the refusal to answer with.
    pub fn admits(&self, member: &Member, group: Option<GroupId>) -> Result<(), NackCode> {
        // By the final membership: a leader that was cut off may have written removals that
        // never became final.
        let membership = self.log.final_membership();
        if membership.removed.contains(&member.key) {
            return Err(NackCode::Removed);
        }
        if group.is_some() && self.group.is_some() && group != self.group {
            return Err(NackCode::OtherGroup);
        }
        let is_other = |it: &Member| (it.id == member.id) != (it.key == member.key);
        // A member that was away may know the id as a former machine's, and the one that a member
        // has named may lead now. Two majorities of ids still meet in a member that knows better.
        let is_named = !self.hears_leader()
            && self.vouched.get(&member.id).is_some_and(|it| it.key == member.key);
        let is_taken = !is_named && membership.members.iter().any(is_other);
        if is_taken || is_other(&self.me) || member.id == self.me.id {
            // A refusal ends the other process: only a member that knows the newest
            // membership sends it.
            let is_sure = !is_taken || self.knows_the_newest();
            return Err(if is_sure { NackCode::IdTaken } else { NackCode::Busy });
        }
        Ok(())
    }

    /// True if this member leads, or hears its leader and has all entries that were final when it
    /// was heard first.
    fn knows_the_newest(&self) -> bool {
        matches!(self.duty, Duty::Lead(_)) || self.hears_leader() && self.has_caught_up()
    }

    pub(super) fn on_linked(&mut self, link: LinkId, new: Link, fx: &mut Fx) {
        let member = &new.member;
        let id = member.id;
        let is_client = new.intent == Intent::Client;
        let verdict = if is_client { Ok(()) } else { self.admits(member, self.group) };
        if let Err(code) = verdict {
            self.drop_it("a connection of somebody who is not let in", fx);
            self.refuse(link, code, "not let into this group", fx);
            fx.hangup(link);
            return;
        }
        let is_stranger = !is_client && !self.is_trusted(member);
        let strangers = || self.links.members().filter(|(id, ..)| !self.has_member(*id)).count();
        if self.links.all.len() >= LINKS_MAX || is_stranger && strangers() >= STRANGERS_MAX {
            self.refuse(link, NackCode::Busy, "too many connections", fx);
            fx.hangup(link);
            return;
        }
        let is_rival = !is_client && self.is_rival(&new);
        self.links.all.insert(link, new);
        if is_client {
            return;
        }
        if is_rival {
            self.turn_away(id, link, fx);
            return;
        }
        self.links.heard.insert(id, self.now.mono);
        fx.stop_timer(Timer::Redial(id));
        match self.links.by_member.get(&id).copied() {
            Some(old) if !self.is_better(link, old) => {
                fx.hangup(link);
                return;
            }
            Some(old) => fx.hangup(old),
            None => fx.emit(Event::Reached(id)),
        }
        self.links.by_member.insert(id, link);
        self.on_reached(id, link, fx);
    }

    /// True if the new one of two connections is kept: between the same two, the one that the
    /// lower id called stays; of two by the same caller, the newer; but none that has been quiet
    /// for a while.
    fn is_better(&self, new: LinkId, old: LinkId) -> bool {
        let (new, old) = (&self.links.all[&new], &self.links.all[&old]);
        let is_quiet = old.quiet > 1;
        is_quiet || new.is_ours == old.is_ours || new.is_ours == (self.me.id < new.member.id)
    }

    fn on_reached(&mut self, id: MemberId, link: LinkId, fx: &mut Fx) {
        match &self.duty {
            Duty::Lead(_) => self.on_follower_linked(id, link, fx),
            Duty::Stand(_) | Duty::Adopt(..) => self.ask_for_promises(fx),
            Duty::Follow if self.leader == Some(id) => {
                self.outbox.begin_again();
                self.resume_at = None;
            }
            Duty::Follow => {}
        }
    }

    pub(super) fn on_unlinked(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(gone) = self.links.all.remove(&link) else { return };
        let id = gone.member.id;
        if gone.intent == Intent::Client {
            self.outbox.forget_client(link);
            return;
        }
        if self.links.by_member.get(&id) != Some(&link) {
            return;
        }
        self.links.by_member.remove(&id);
        self.links.rivals.remove(&id);
        fx.emit(Event::Lost(id));
        self.redial_later(id, fx);
        match &mut self.duty {
            Duty::Lead(reign) => {
                if let Some(progress) = reign.progress.remove(&id) {
                    reign.acknowledged.insert(progress.key, progress.matched);
                }
            }
            Duty::Adopt(_, adopting) if adopting.donor == id => self.on_donor_lost(fx),
            Duty::Follow if self.leader == Some(id) => self.on_leader_lost(fx),
            Duty::Follow | Duty::Stand(_) | Duty::Adopt(..) => {}
        }
    }

    pub(super) fn on_dial_failed(&mut self, member: MemberId, fx: &mut Fx) {
        if self.links.dialing.contains_key(&member) {
            self.redial_later(member, fx);
        }
    }

    fn redial_later(&mut self, id: MemberId, fx: &mut Fx) {
        let tries = self.links.dialing.entry(id).or_default();
        *tries = tries.saturating_add(1);
        let wait = self.config.redial.saturating_mul(1 << (*tries - 1).min(4)).min(REDIAL_MAX);
        let jitter = self.rng.random_range(0..=50);
        fx.set_timer(Timer::Redial(id), wait + Duration::from_millis(jitter));
    }

    pub(super) fn on_redial(&mut self, id: MemberId, fx: &mut Fx) {
        let wanted = self.wanted().into_iter().find(|it| it.id == id);
        match wanted {
            Some(member) if self.links.of_member(id).is_none() => {
                self.links.dialing.entry(id).or_default();
                fx.call(member);
            }
            _ => {
                self.links.dialing.remove(&id);
            }
        }
    }

    /// All members that should be linked. A member that was last named at another address than the
    /// log's is called at both in turn.
    fn wanted(&self) -> Vec<Member> {
        let (newest, last) = (self.log.membership(), self.log.final_membership());
        let is_new = |it: &&Member| !last.removed.contains(&it.key) && !self.has_member(it.id);
        let known = last.members.iter().filter(is_new).chain(&newest.members);
        let is_unknown =
            |it: &&Member| is_new(it) && last.members.iter().all(|old| old.id != it.id);
        let named = self.vouched.values().filter(is_unknown).cloned();
        let known = known.map(|it| {
            let is_odd = self.links.dialing.get(&it.id).is_some_and(|tries| tries % 2 == 1);
            let elsewhere = self.vouched.get(&it.id).filter(|_| is_odd);
            elsewhere.unwrap_or(it).clone()
        });
        known.chain(named).filter(|it| it.id != self.me.id && it.key != self.me.key).collect()
    }

    /// Calls all members to which there is neither a connection nor a call.
    pub(super) fn dial_everybody(&mut self, fx: &mut Fx) {
        for member in self.wanted() {
            let id = member.id;
            if self.links.of_member(id).is_none() && !self.links.dialing.contains_key(&id) {
                self.links.dialing.insert(id, 0);
                fx.call(member);
            }
        }
    }

    /// True if the other end is a member, or named by one.
    fn is_trusted(&self, member: &Member) -> bool {
        let is_it = |it: &Member| it.id == member.id && it.key == member.key;
        self.log.membership().members.iter().any(is_it)
            || self.log.final_membership().members.iter().any(is_it)
            || self.vouched.get(&member.id).is_some_and(is_it)
    }

    pub(super) fn on_received(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        let Some(known) = self.links.all.get_mut(&link) else { return };
        known.quiet = 0;
        let (member, is_ours) = (known.member.clone(), known.is_ours);
        let (id, is_client) = (member.id, known.intent == Intent::Client);
        if !is_client && self.links.of_member(id) == Some(link) {
            self.links.heard.insert(id, self.now.mono);
            // The handshake lets in also who is refused right after it.
            if !matches!(msg, Message::JoinAck(_) | Message::Nack(_)) {
                self.links.dialing.remove(&id);
            }
        }
        let is_trusted = !is_client && self.is_trusted(&member);
        if let Message::Chat(request) = msg {
            self.on_chat(link, id, is_client, is_trusted, request, fx);
            return;
        }
        if msg.sender() != Some(id) || is_client {
            self.drop_it("a message in another's name", fx);
            self.refuse(link, NackCode::NotAllowed, "only in one's own name", fx);
            return;
        }
        let (term, seq) = msg.bounds();
        let is_leap = self.is_member() && term > self.term.0.saturating_add(TERM_LEAP_MAX);
        if term > TERM_MAX || seq > SEQ_MAX || is_leap {
            self.drop_it("a term or number beyond the limit", fx);
            self.refuse(link, NackCode::Invalid, "a term or number beyond the limit", fx);
            return;
        }
        // A node that is no member yet may send these; a leader checks its id.
        let is_open = matches!(
            msg,
            Message::SeqAck(_)
                | Message::SeqNack(_)
                | Message::CatchupReq(_)
                | Message::JoinAck(_)
                | Message::Alive(_)
                | Message::Nack(_)
                | Message::VerifyResp(_)
        );
        if !is_open && !is_trusted {
            self.drop_it("a message of somebody who is no member", fx);
            self.refuse(link, NackCode::NotAllowed, "not a member", fx);
            return;
        }
        if let Message::JoinAck(it) = msg {
            self.on_join_ack(it, is_trusted, is_ours, fx);
        } else if let Message::Nack(it) = &msg {
            self.on_nack(id, link, is_trusted, it, fx);
        } else {
            self.hear(id, link, msg, fx);
        }
    }

    fn hear(&mut self, id: MemberId, link: LinkId, msg: Message, fx: &mut Fx) {
        match msg {
            Message::SeqAck(it) => self.on_ack(id, it, fx),
            Message::SeqNack(it) => self.on_misfit(id, it.term, it.last_seq, fx),
            Message::CatchupReq(it) => self.on_catchup_req(id, link, it, fx),
            Message::Heartbeat(it) => self.on_heartbeat(id, link, it, fx),
            Message::Coordinator(it) => self.on_coordinator(id, link, &it, fx),
            Message::SeqChat(it) => self.on_seq_chat(id, link, &it, fx),
            Message::CatchupResp(it) => self.on_catchup_resp(id, link, &it, fx),
            Message::Election(it) => self.on_election(id, link, it, fx),
            Message::ElectionOk(it) => self.on_election_ok(id, it, fx),
            Message::ChatAck(_) | Message::Alive(_) => {}
            Message::TakeoverReq(it) => self.on_takeover_req(id, it, fx),
            Message::TakeNow(it) => self.on_take_now(id, it, fx),
            Message::RemoveReq(it) => self.on_remove_req(it, fx),
            Message::VerifyResp(it) => self.on_sign_of_life(id, link, &it, fx),
            // Of the handshake, or for the driver (C11).
            Message::Join(_)
            | Message::JoinChallenge(_)
            | Message::JoinProof(_)
            | Message::VerifyReq(_) => self.drop_it("a message out of its place", fx),
            Message::Chat(_) | Message::JoinAck(_) | Message::Nack(_) => {}
        }
    }

    /// Takes a membership of the group. A member is believed; so is a node that was called at an
    /// address given to a member which knows no group yet, or finds none of its own.
    fn on_join_ack(&mut self, ack: JoinAck, is_trusted: bool, is_ours: bool, fx: &mut Fx) {
        let is_lost = !self.is_member() || self.leader.is_none();
        if !(is_trusted || is_ours && is_lost) {
            self.drop_it("a membership told by somebody who is no member", fx);
            return;
        }
        if *self.group.get_or_insert(ack.group) != ack.group {
            self.drop_it("a membership of another group", fx);
            return;
        }
        for member in ack.membership.into_iter().take(MEMBERS_MAX) {
            let is_known = self.vouched.contains_key(&member.id);
            if member.id != self.me.id && (is_known || self.vouched.len() < MEMBERS_MAX) {
                self.vouched.insert(member.id, member);
            }
        }
        self.dial_everybody(fx);
    }

    /// True if a refusal by the holder of a key counts: a member's does; where no member is known
    /// yet, that of the process at the address that the operator named. Other nodes know nothing
    /// of this group.
    pub fn believes_refusal(&self, key: &PublicKey) -> bool {
        let (newest, last) = (self.log.membership(), self.log.final_membership());
        let is_member = |it: &Member| it.key == *key;
        newest.members.is_empty() || newest.members.iter().chain(&last.members).any(is_member)
    }

    fn on_nack(&mut self, id: MemberId, link: LinkId, is_trusted: bool, nack: &Nack, fx: &mut Fx) {
        let key = self.links.get(link).map(|it| it.member.key);
        let is_believed = key.is_some_and(|key| self.believes_refusal(&key));
        match nack.code {
            NackCode::Stale if is_trusted && nack.term > self.term => {
                let was_standing = matches!(self.duty, Duty::Stand(_));
                self.enter(nack.term, None, fx);
                if was_standing {
                    fx.set_timer(Timer::Election, self.config.ask_again);
                }
            }
            NackCode::Busy if is_trusted && nack.msg_id.is_none() => {
                let soon = self.now.mono.after(self.config.heartbeat);
                self.takeover.not_before = self.takeover.not_before.min(soon);
            }
            NackCode::IdTaken | NackCode::Removed | NackCode::OtherGroup
                if is_believed && !self.is_member() =>
            {
                self.be_refused(&nack.reason, fx);
            }
            // The process that the leader knows is the member; the other one ends.
            NackCode::Doubled if is_believed && !self.hears_leader() => {
                self.be_refused(&nack.reason, fx);
            }
            NackCode::Rewound
                if is_trusted && self.leader == Some(id) && nack.term == self.term =>
            {
                self.persist(Record::Rewound, fx);
                self.be_refused(&nack.reason, fx);
            }
            NackCode::Copied | NackCode::Doubled if is_trusted => {
                let (member, reason) = (self.me.id, nack.reason.clone());
                fx.emit(Event::Doubled { member, reason });
            }
            NackCode::Gap
            | NackCode::Busy
            | NackCode::Invalid
            | NackCode::NoQuorum
            | NackCode::NotLeader
            | NackCode::Taken
                if is_trusted
                    && self.leader == Some(id)
                    && nack.term == self.term
                    && self.links.of_member(id) == Some(link) =>
            {
                self.on_chat_refused(nack, fx);
            }
            NackCode::Malformed
            | NackCode::NotAllowed
            | NackCode::Handshake
            | NackCode::IdTaken
            | NackCode::Removed
            | NackCode::OtherGroup
            | NackCode::Stale
            | NackCode::NotLeader
            | NackCode::NoQuorum
            | NackCode::Busy
            | NackCode::Gap
            | NackCode::Invalid
            | NackCode::Taken
            | NackCode::Doubled
            | NackCode::Copied
            | NackCode::Rewound => {}
        }
    }

    /// Ends this member's part in the group, which refuses it.
    fn be_refused(&mut self, reason: &str, fx: &mut Fx) {
        if !std::mem::replace(&mut self.was_refused, true) {
            self.step_down(fx);
            self.leader = None;
            fx.emit(Event::Refused { reason: reason.to_owned() });
        }
    }

    /// Sends a refusal with its reason.
    pub(super) fn refuse(&self, link: LinkId, code: NackCode, reason: &str, fx: &mut Fx) {
        let nack = Nack {
            sender_id: self.me.id,
            term: self.term,
            code,
            leader_id: self.leader,
            msg_id: None,
            reason: reason.to_owned(),
        };
        self.send(link, Message::Nack(nack), fx);
    }
}
