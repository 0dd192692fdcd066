//! The machine itself: its state, and the dispatch of each input.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt as _;

use super::adopt::Adopting;
use super::config::{Config, Rule, TERM_MAX};
use super::disk::Disk;
use super::election::Candidacy;
use super::event::{
    Command, Event, ExtraEffect, ExtraInput, Fx, Input, Opening, Record, Role, Timer,
};
use super::leader::Reign;
use super::links::{Link, Links};
use super::memory::Memory;
use super::outbox::Outbox;
use super::takeover::Takeover;
use super::window::Log;
use crate::machine::{Kind, LinkId, Machine};
use crate::model::{Now, Rng, Time};
use crate::proto::chat::entry::{Body, Entry, GroupId, Member, MemberId, Membership, SeqNo, Term};
use crate::proto::chat::message::{JoinAck, Message};

/// Present duty of a member.
#[derive(Debug)]
pub(super) enum Duty {
    /// The member follows, or waits.
    Follow,
    /// The member asks for promises.
    Stand(Candidacy),
    /// The member has its promises, and fetches the best log (R3).
    Adopt(Candidacy, Adopting),
    /// The member leads the group.
    Lead(Reign),
}

/// State of one member in its group.
#[derive(Debug)]
pub struct Group {
    pub(super) config: Config,
    pub(super) me: Member,
    pub(super) rng: Rng,
    pub(super) now: Now,
    pub(super) group: Option<GroupId>,
    /// True if the log says to which group it belongs.
    pub(super) is_group_kept: bool,
    pub(super) founds: bool,
    pub(super) term: Term,
    pub(super) promised_to: Option<MemberId>,
    pub(super) duty: Duty,
    pub(super) leader: Option<MemberId>,
    pub(super) leader_heard: Time,
    pub(super) log: Log,
    pub(super) disk: Disk,
    /// Number up to which the log is that of the term's leader.
    pub(super) verified: SeqNo,
    /// Time of the last question to the leader, and whether it was for a conflict.
    pub(super) asked_at: Option<(Time, bool)>,
    /// Number that the leader was last told to be stored here.
    pub(super) acked: SeqNo,
    /// Time of that acknowledgement.
    pub(super) acked_at: Time,
    /// Candidates for which old entries are being read, and the terms.
    pub(super) donations: BTreeMap<LinkId, Term>,
    pub(super) links: Links,
    /// The leader's commit when it was last heard anew; `None` until it is heard.
    pub(super) resume_at: Option<SeqNo>,
    /// Random number of this process.
    pub(super) life: u64,
    /// Members that a member has named, and that the log does not know yet.
    pub(super) vouched: BTreeMap<MemberId, Member>,
    pub(super) outbox: Outbox,
    /// Members to remove, when it is possible.
    pub(super) removals: BTreeMap<MemberId, super::membership::Ending>,
    /// Number of objections of higher ids since a leader was heard (L2).
    pub(super) objections: u32,
    pub(super) takeover: Takeover,
    pub(super) drops: BTreeMap<&'static str, u64>,
    /// True if a majority is in reach, as last told.
    pub(super) quorum: Option<bool>,
    pub(super) told: (Role, Term, Option<MemberId>),
    pub(super) snapshot_at: SeqNo,
    pub(super) commit_kept: SeqNo,
    /// Last term in which it was told that logs differ.
    pub(super) diverged_in: Option<Term>,
    pub(super) is_leaving: bool,
    pub(super) is_gone: bool,
    pub(super) was_refused: bool,
}

impl Kind for Group {
    type Message = Message;
    type Call = Member;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for Group {
    type Opening = Opening;
    type CallFailure = MemberId;
    type Command = Command;
    type ExtraInput = ExtraInput;

    fn handle(&mut self, now: Now, input: Input, fx: &mut Fx) {
        self.now = now;
        if self.is_gone {
            return;
        }
        match input {
            Input::Start => self.on_start(fx),
            Input::Opened { link, opening: Opening { member, intent, is_ours, life } } => {
                self.on_linked(link, Link::new(member, intent, is_ours, life), fx);
            }
            Input::DialFailed(member) => self.on_dial_failed(member, fx),
            Input::Received { link, msg } => self.on_received(link, msg, fx),
            // The engine answers lines that are no messages.
            Input::Garbled { .. } => {}
            Input::Closed { link, .. } => self.on_unlinked(link, fx),
            Input::Synced { records } => self.on_synced(records, fx),
            Input::Expired(timer) => self.on_timer(timer, fx),
            Input::Command(command) => self.on_command(command, fx),
            Input::Extra(extra) => self.on_extra(extra, fx),
        }
        self.tell_role(fx);
    }
}

impl Group {
    /// Creates a member that has not begun: the first input is [`Input::Start`].
    ///
    /// # Panics
    /// Panics if the memory's entries have a gap.
    pub fn new(config: Config, me: Member, mut rng: Rng, memory: Memory) -> Self {
        let founds = memory.founds;
        let life = rng.random();
        let known = memory.restore(&config, &me, life);
        let commit = known.log.commit();
        let role = match known.log.membership().members.iter().any(|it| it.id == me.id) {
            true => Role::Follower,
            false => Role::Joining,
        };
        Self {
            founds: founds && known.group.is_none(),
            group: known.group,
            is_group_kept: known.group.is_some(),
            term: known.term,
            promised_to: known.promised_to,
            duty: Duty::Follow,
            leader: None,
            leader_heard: Time::ZERO,
            disk: Disk::restore(known.log.last().seq),
            verified: commit,
            asked_at: None,
            acked: SeqNo(0),
            acked_at: Time::ZERO,
            donations: BTreeMap::new(),
            resume_at: None,
            life,
            links: Links::default(),
            vouched: BTreeMap::new(),
            outbox: known.outbox,
            removals: BTreeMap::new(),
            objections: 0,
            takeover: Takeover::default(),
            drops: BTreeMap::new(),
            quorum: None,
            told: (role, known.term, None),
            snapshot_at: known.snapshot_at,
            commit_kept: commit,
            diverged_in: None,
            is_leaving: false,
            is_gone: false,
            was_refused: false,
            log: known.log,
            config,
            me,
            rng,
            now: Now::default(),
        }
    }

    fn on_extra(&mut self, input: ExtraInput, fx: &mut Fx) {
        match input {
            ExtraInput::Stirred { link } => self.links.stir(link),
            ExtraInput::Loaded { link, prev_term, entries } => {
                self.on_loaded(link, prev_term, entries, fx);
            }
            ExtraInput::Idle => self.on_idle(fx),
        }
    }

    fn on_start(&mut self, fx: &mut Fx) {
        self.leader_heard = self.now.mono;
        self.rename_taken(fx);
        fx.set_timer(Timer::Pulse, self.config.heartbeat);
        if self.founds {
            self.found(fx);
            return;
        }
        self.dial_everybody(fx);
        let is_alone = self.is_member() && self.log.membership().members.len() == 1;
        let wait = if is_alone { std::time::Duration::ZERO } else { self.config.leader_timeout };
        fx.set_timer(Timer::Election, wait);
        fx.set_timer(Timer::Resend, self.config.resend);
    }

    fn found(&mut self, fx: &mut Fx) {
        let group = GroupId(self.rng.random());
        self.group = Some(group);
        self.keep_group(fx);
        self.term = Term(1);
        self.promised_to = Some(self.me.id);
        self.persist(Record::Term { term: self.term, promised_to: self.promised_to }, fx);
        let membership = Membership {
            members: vec![self.me.clone()],
            message_max: u32::try_from(self.config.message_max).ok(),
            ..Membership::default()
        };
        self.lead(vec![self.me.id], Body::Membership(Arc::new(membership)), fx);
        fx.set_timer(Timer::Resend, self.config.resend);
    }

    fn on_command(&mut self, command: Command, fx: &mut Fx) {
        match command {
            Command::Say { room, text } => self.on_say(room, text, fx),
            Command::Remove(id) => self.on_remove(id, fx),
            Command::Certified(key) => self.on_certified(key, fx),
            Command::Recover => self.on_recover(fx),
            Command::Leave => self.on_leave(fx),
        }
    }

    fn on_timer(&mut self, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Election => self.on_election_timer(fx),
            Timer::Heartbeat => self.on_heartbeat_timer(fx),
            Timer::Quorum => self.on_quorum_timer(fx),
            Timer::Resend => self.on_resend_timer(fx),
            Timer::Redial(member) => self.on_redial(member, fx),
            Timer::Commit => self.tell_commit(fx),
            Timer::Takeover => self.on_takeover_timer(fx),
            Timer::Catchup => self.on_catchup_timer(fx),
            Timer::Pulse => self.on_pulse(fx),
        }
    }

    fn on_synced(&mut self, records: u64, fx: &mut Fx) {
        self.disk.on_synced(records);
        while let Some((link, msg)) = self.disk.pop() {
            if self.links.get(link).is_some() {
                fx.send(link, msg);
            }
        }
        self.tell_kept(fx);
        match self.duty {
            Duty::Follow => self.acknowledge(false, fx),
            Duty::Stand(_) | Duty::Adopt(..) => self.count_promises(fx),
            Duty::Lead(_) => self.advance_commit(fx),
        }
        self.send_typed(fx);
    }

    fn on_idle(&mut self, fx: &mut Fx) {
        if matches!(self.duty, Duty::Lead(_)) {
            self.change_membership(fx);
            self.flush(fx);
        }
    }

    /// Role of this member in its group.
    pub fn role(&self) -> Role {
        match self.duty {
            Duty::Lead(_) => Role::Leader,
            Duty::Stand(_) | Duty::Adopt(..) => Role::Candidate,
            Duty::Follow if self.is_member() => Role::Follower,
            Duty::Follow => Role::Joining,
        }
    }

    /// Newest term that this member knows.
    pub const fn term(&self) -> Term {
        self.term
    }

    /// The answer to a `JOIN`, once the group is known.
    pub fn introduction(&self) -> Option<JoinAck> {
        Some(JoinAck {
            sender_id: self.me.id,
            term: self.term,
            group: self.group?,
            leader_id: self.leader,
            membership: self.log.membership().members.clone(),
            life: Some(self.life),
        })
    }

    /// Random number of this process, by which it is distinguished from others of the same member.
    pub const fn life(&self) -> u64 {
        self.life
    }

    /// True if this process is a member, by the newest membership.
    pub(super) fn is_member(&self) -> bool {
        self.log.membership().members.iter().any(|it| it.id == self.me.id && it.key == self.me.key)
    }

    /// True if `id` is a member, by the newest membership.
    pub(super) fn has_member(&self, id: MemberId) -> bool {
        self.log.membership().members.iter().any(|it| it.id == id)
    }

    pub(super) fn persist(&mut self, record: Record, fx: &mut Fx) -> u64 {
        fx.persist(record);
        self.disk.issue()
    }

    /// Writes the group and the log's owner as the first record, unless it is written.
    pub(super) fn keep_group(&mut self, fx: &mut Fx) {
        if let (Some(group), false) = (self.group, self.is_group_kept) {
            self.is_group_kept = true;
            let Member { id: me, key, .. } = self.me;
            self.persist(Record::Group { group, me, key }, fx);
        }
    }

    /// Begins a newer term; the duty of the old one is over.
    pub(super) fn enter(&mut self, term: Term, promised_to: Option<MemberId>, fx: &mut Fx) {
        self.step_down(fx);
        self.leader = None;
        self.term = term;
        self.promised_to = promised_to;
        self.verified = self.log.commit();
        self.asked_at = None;
        self.resume_at = None;
        self.acked = SeqNo(0);
        self.acked_at = Time::ZERO;
        self.donations.clear();
        if self.config.keeps(Rule::Promise) {
            self.keep_group(fx);
            self.persist(Record::Term { term, promised_to }, fx);
        }
    }

    /// Stops standing or leading; the term stays.
    pub(super) fn step_down(&mut self, fx: &mut Fx) {
        if matches!(self.duty, Duty::Lead(_)) {
            fx.stop_timer(Timer::Heartbeat);
            fx.stop_timer(Timer::Quorum);
            if !self.is_leaving {
                fx.stop_timer(Timer::Takeover);
            }
            self.leader = None;
            self.outbox.begin_again();
        }
        self.duty = Duty::Follow;
        let wait = self.config.leader_timeout + self.stagger(self.config.rank_silent);
        fx.set_timer(Timer::Election, wait);
    }

    /// Puts an entry at the end of the log.
    pub(super) fn append(&mut self, entry: Arc<Entry>, fx: &mut Fx) {
        self.keep_group(fx);
        let seq = entry.seq_no;
        if let Body::Chat(chat) = &entry.body
            && chat.msg_id.origin.member == self.me.id
        {
            if self.config.keeps(Rule::Life) {
                self.outbox.raise(chat.msg_id);
            }
            if chat.msg_id.origin.is_own() && self.outbox.has(chat) {
                fx.emit(Event::Numbered(chat.msg_id, seq));
            }
        }
        let is_membership = matches!(entry.body, Body::Membership(_));
        if let Body::Membership(now) = &entry.body {
            self.vouched.retain(|id, _| now.members.iter().all(|it| it.id != *id));
        }
        self.log.append(Arc::clone(&entry));
        self.persist(Record::Entry(entry), fx);
        self.disk.on_entry(seq);
        if is_membership {
            self.dial_everybody(fx);
        }
    }

    /// Removes all entries from `from` on from the log.
    pub(super) fn cut(&mut self, from: SeqNo, fx: &mut Fx) {
        self.log.cut(from);
        self.persist(Record::Cut { from }, fx);
        self.disk.on_cut(from);
    }

    /// Makes all entries up to `seq` final, and delivers them.
    pub(super) fn make_final(&mut self, seq: SeqNo, fx: &mut Fx) {
        let entries = self.log.commit_to(seq);
        if entries.is_empty() {
            return;
        }
        fx.extra(ExtraEffect::Deliver(entries.clone()));
        for entry in &entries {
            match &entry.body {
                Body::Opening => {}
                Body::Chat(chat) => self.answer_author(chat, entry.seq_no, fx),
                Body::Membership(it) => self.on_membership_final(it, fx),
            }
        }
        self.log.trim(&self.config);
        self.snapshot_if_due(fx);
    }

    /// Takes a snapshot, if it is due and the disk has all entries that it stands for.
    fn snapshot_if_due(&mut self, fx: &mut Fx) {
        let commit = self.log.commit();
        let is_due = commit.0 >= self.snapshot_at.0.saturating_add(self.config.snapshot_every);
        if !is_due || self.disk.stored() < commit {
            return;
        }
        if let Some(snapshot) = self.group.and_then(|group| self.log.snapshot(group)) {
            self.snapshot_at = commit;
            fx.extra(ExtraEffect::Snapshot(Box::new(snapshot)));
        }
    }

    /// Number up to which the disk has the log (R7).
    pub(super) fn stored(&self) -> SeqNo {
        if self.config.keeps(Rule::Disk) { self.disk.stored() } else { self.log.last().seq }
    }

    /// Writes the commit to disk; a restart begins there.
    pub(super) fn keep_commit(&mut self, fx: &mut Fx) {
        let seq_no = self.log.commit();
        if seq_no > self.commit_kept && self.disk.stored() >= seq_no {
            self.commit_kept = seq_no;
            self.persist(Record::Commit { seq_no }, fx);
        }
    }

    fn tell_role(&mut self, fx: &mut Fx) {
        let state = (self.role(), self.term, self.leader);
        if state == self.told {
            return;
        }
        self.told = state;
        let (role, term, leader) = state;
        let promises = match &self.duty {
            Duty::Lead(reign) => reign.promises.clone(),
            Duty::Follow | Duty::Stand(_) | Duty::Adopt(..) => Vec::new(),
        };
        fx.emit(Event::RoleChanged { role, term, leader, promises });
        self.introduce(fx);
    }

    /// Tells linked nodes that are no members yet the leader: no other member may know them.
    pub(super) fn introduce(&self, fx: &mut Fx) {
        let is_elsewhere = self.leader.is_some_and(|leader| leader != self.me.id);
        let strangers = self.links.members().filter(|(id, ..)| !self.has_member(*id));
        let links: Vec<_> = strangers.map(|(_, link, _)| link).collect();
        if let (true, false, Some(ack)) = (is_elsewhere, links.is_empty(), self.introduction()) {
            fx.send_all(links, Message::JoinAck(ack));
        }
    }

    pub(super) fn tell_quorum(&mut self, is_reached: bool, fx: &mut Fx) {
        if self.quorum != Some(is_reached) {
            self.quorum = Some(is_reached);
            let event = if is_reached { Event::Quorum } else { Event::NoQuorum };
            fx.emit(event);
        }
    }

    /// Counts an input that is left out; told at the first, second, fourth… time.
    pub(super) fn drop_it(&mut self, why: &'static str, fx: &mut Fx) {
        let count = self.drops.entry(why).or_default();
        *count += 1;
        if count.is_power_of_two() {
            fx.emit(Event::Dropped(why));
        }
    }

    pub(super) fn send(&self, link: LinkId, msg: Message, fx: &mut Fx) {
        fx.send(link, msg);
    }

    /// The next term, if there is one.
    pub(super) fn next_term(&self) -> Option<Term> {
        (self.term.0 < TERM_MAX).then(|| Term(self.term.0 + 1))
    }

    /// True if members in reach, with this one, are a majority.
    pub(super) fn reaches_majority(&self) -> bool {
        let members = &self.log.membership().members;
        let in_reach = |it: &&Member| it.id == self.me.id || self.links.of_member(it.id).is_some();
        let count = members.iter().filter(in_reach).count();
        self.is_member() && count >= crate::machine::quorum::majority(members.len())
    }
}
