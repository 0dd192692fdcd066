//! The machine itself: its state, and which part an input is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt as _;

use super::adopt::Adopting;
use super::config::{Config, Rule, TERM_MAX};
use super::disk::Disk;
use super::election::Candidacy;
use super::entry::{Body, Entry, GroupId, Member, MemberId, Membership, SeqNo, Term};
use super::event::{Command, Effect, Event, Input, Record, Role, Timer};
use super::leader::Reign;
use super::links::{Link, Links};
use super::memory::Memory;
use super::messages::{JoinAck, Message};
use super::outbox::Outbox;
use super::takeover::Takeover;
use super::window::Log;
use crate::model::{Now, Rng, Time};
use crate::protocol::LinkId;

/// What a member does now.
#[derive(Debug)]
pub(super) enum Duty {
    /// It follows, or waits.
    Follow,
    /// It asks for promises.
    Stand(Candidacy),
    /// It has its promises, and fetches the best log (R3).
    Adopt(Candidacy, Adopting),
    /// It leads.
    Lead(Reign),
}

/// One member's part in its group.
#[derive(Debug)]
pub struct Group {
    pub(super) config: Config,
    pub(super) me: Member,
    pub(super) rng: Rng,
    pub(super) now: Now,
    pub(super) group: Option<GroupId>,
    /// Whether the log says which group it is of.
    pub(super) is_group_kept: bool,
    pub(super) founds: bool,
    pub(super) term: Term,
    pub(super) promised_to: Option<MemberId>,
    pub(super) duty: Duty,
    pub(super) leader: Option<MemberId>,
    pub(super) leader_heard: Time,
    pub(super) log: Log,
    pub(super) disk: Disk,
    /// Up to here the log is that of the term's leader.
    pub(super) verified: SeqNo,
    /// When the leader was asked for what is missing, and whether because of a conflict.
    pub(super) asked_at: Option<(Time, bool)>,
    /// What it was last told to be stored here.
    pub(super) acked: SeqNo,
    /// And when.
    pub(super) acked_at: Time,
    /// Candidates for whom old entries are being read, and in which term.
    pub(super) donations: BTreeMap<LinkId, Term>,
    pub(super) links: Links,
    /// The end of what was final when the leader was last heard anew; `None` until it is heard.
    pub(super) resume_at: Option<SeqNo>,
    /// The random number of this process.
    pub(super) life: u64,
    /// Members that a member has named, and that the log does not know yet.
    pub(super) vouched: BTreeMap<MemberId, Member>,
    pub(super) outbox: Outbox,
    /// Whom to remove, when it is possible.
    pub(super) removals: BTreeMap<MemberId, super::membership::Ending>,
    /// How often a higher id has objected since a leader was heard (L2).
    pub(super) objections: u32,
    pub(super) takeover: Takeover,
    pub(super) drops: BTreeMap<&'static str, u64>,
    /// Whether a majority is in reach, as last told.
    pub(super) quorum: Option<bool>,
    pub(super) told: (Role, Term, Option<MemberId>),
    pub(super) snapshot_at: SeqNo,
    pub(super) commit_kept: SeqNo,
    /// The reign in which it was told that logs differ.
    pub(super) diverged_in: Option<Term>,
    pub(super) is_leaving: bool,
    pub(super) is_gone: bool,
    pub(super) was_refused: bool,
}

impl Group {
    /// A member that has not begun: the first input is [`Input::Start`].
    ///
    /// # Panics
    /// When the memory's entries have a gap.
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

    /// Takes one input. Never fails and never blocks: bad input is left out, counted and answered.
    pub fn handle(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        self.now = now;
        if self.is_gone {
            return;
        }
        match input {
            Input::Start => self.on_start(fx),
            Input::Linked { link, member, intent, is_ours, life } => {
                self.on_linked(link, Link::new(member, intent, is_ours, life), fx);
            }
            Input::DialFailed { member } => self.on_dial_failed(member, fx),
            Input::Unlinked { link } => self.on_unlinked(link, fx),
            Input::Stirred { link } => self.links.stir(link),
            Input::Received { link, msg } => self.on_received(link, msg, fx),
            Input::Synced { records } => self.on_synced(records, fx),
            Input::Loaded { link, prev_term, entries } => {
                self.on_loaded(link, prev_term, entries, fx);
            }
            Input::Command(command) => self.on_command(command, fx),
            Input::TimerFired(timer) => self.on_timer(timer, fx),
            Input::Idle => self.on_idle(fx),
        }
        self.tell_role(fx);
    }

    fn on_start(&mut self, fx: &mut Vec<Effect>) {
        self.leader_heard = self.now.mono;
        self.rename_taken(fx);
        fx.push(Effect::SetTimer(Timer::Pulse, self.config.heartbeat));
        if self.founds {
            self.found(fx);
            return;
        }
        self.dial_everybody(fx);
        let is_alone = self.is_member() && self.log.membership().members.len() == 1;
        let wait = if is_alone { std::time::Duration::ZERO } else { self.config.leader_timeout };
        fx.push(Effect::SetTimer(Timer::Election, wait));
        fx.push(Effect::SetTimer(Timer::Resend, self.config.resend));
    }

    fn found(&mut self, fx: &mut Vec<Effect>) {
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
        fx.push(Effect::SetTimer(Timer::Resend, self.config.resend));
    }

    fn on_command(&mut self, command: Command, fx: &mut Vec<Effect>) {
        match command {
            Command::Say { room, text } => self.on_say(room, text, fx),
            Command::Remove(id) => self.on_remove(id, fx),
            Command::Certified(key) => self.on_certified(key, fx),
            Command::Recover => self.on_recover(fx),
            Command::Leave => self.on_leave(fx),
        }
    }

    fn on_timer(&mut self, timer: Timer, fx: &mut Vec<Effect>) {
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

    fn on_synced(&mut self, records: u64, fx: &mut Vec<Effect>) {
        for (link, msg) in self.disk.on_synced(records) {
            if self.links.get(link).is_some() {
                fx.push(Effect::Send(vec![link], msg));
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

    fn on_idle(&mut self, fx: &mut Vec<Effect>) {
        if matches!(self.duty, Duty::Lead(_)) {
            self.change_membership(fx);
            self.flush(fx);
        }
    }

    /// What this member is in its group.
    pub fn role(&self) -> Role {
        match self.duty {
            Duty::Lead(_) => Role::Leader,
            Duty::Stand(_) | Duty::Adopt(..) => Role::Candidate,
            Duty::Follow if self.is_member() => Role::Follower,
            Duty::Follow => Role::Joining,
        }
    }

    /// The newest term that it knows.
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

    /// The random number of this process, by which it is told from others of the same member.
    pub const fn life(&self) -> u64 {
        self.life
    }

    /// Whether it is one of the group, by the newest membership.
    pub(super) fn is_member(&self) -> bool {
        self.log.membership().members.iter().any(|it| it.id == self.me.id && it.key == self.me.key)
    }

    /// Whether that one is one of the group, by the newest membership.
    pub(super) fn has_member(&self, id: MemberId) -> bool {
        self.log.membership().members.iter().any(|it| it.id == id)
    }

    pub(super) fn persist(&mut self, record: Record, fx: &mut Vec<Effect>) -> u64 {
        fx.push(Effect::Persist(record));
        self.disk.issue()
    }

    /// The log says first of all whose it is.
    pub(super) fn keep_group(&mut self, fx: &mut Vec<Effect>) {
        if let (Some(group), false) = (self.group, self.is_group_kept) {
            self.is_group_kept = true;
            let Member { id: me, key, .. } = self.me;
            self.persist(Record::Group { group, me, key }, fx);
        }
    }

    /// A newer term begins; whatever this one did in the old one is over.
    pub(super) fn enter(
        &mut self,
        term: Term,
        promised_to: Option<MemberId>,
        fx: &mut Vec<Effect>,
    ) {
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
    pub(super) fn step_down(&mut self, fx: &mut Vec<Effect>) {
        if matches!(self.duty, Duty::Lead(_)) {
            fx.push(Effect::StopTimer(Timer::Heartbeat));
            fx.push(Effect::StopTimer(Timer::Quorum));
            if !self.is_leaving {
                fx.push(Effect::StopTimer(Timer::Takeover));
            }
            self.leader = None;
            self.outbox.begin_again();
        }
        self.duty = Duty::Follow;
        let wait = self.config.leader_timeout + self.stagger(self.config.rank_silent);
        fx.push(Effect::SetTimer(Timer::Election, wait));
    }

    /// Puts an entry at the end of the log.
    pub(super) fn append(&mut self, entry: Arc<Entry>, fx: &mut Vec<Effect>) {
        self.keep_group(fx);
        let seq = entry.seq_no;
        if let Body::Chat(chat) = &entry.body
            && chat.msg_id.origin.member == self.me.id
        {
            if self.config.keeps(Rule::Life) {
                self.outbox.raise(chat.msg_id);
            }
            if chat.msg_id.origin.is_own() && self.outbox.has(chat) {
                fx.push(Effect::Emit(Event::Numbered(chat.msg_id, seq)));
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

    /// Takes everything from `from` on out of the log.
    pub(super) fn cut(&mut self, from: SeqNo, fx: &mut Vec<Effect>) {
        self.log.cut(from);
        self.persist(Record::Cut { from }, fx);
        self.disk.on_cut(from);
    }

    /// Everything up to `seq` is final: it is delivered.
    pub(super) fn make_final(&mut self, seq: SeqNo, fx: &mut Vec<Effect>) {
        let entries = self.log.commit_to(seq);
        if entries.is_empty() {
            return;
        }
        fx.push(Effect::Deliver(entries.clone()));
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

    /// A snapshot, when it is time and the disk has everything that it stands for.
    fn snapshot_if_due(&mut self, fx: &mut Vec<Effect>) {
        let commit = self.log.commit();
        let is_due = commit.0 >= self.snapshot_at.0.saturating_add(self.config.snapshot_every);
        if !is_due || self.disk.stored() < commit {
            return;
        }
        if let Some(snapshot) = self.group.and_then(|group| self.log.snapshot(group)) {
            self.snapshot_at = commit;
            fx.push(Effect::Snapshot(Box::new(snapshot)));
        }
    }

    /// How far the disk has the log (R7).
    pub(super) fn stored(&self) -> SeqNo {
        if self.config.keeps(Rule::Disk) { self.disk.stored() } else { self.log.last().seq }
    }

    /// Tells how far everything is final; a restart begins there.
    pub(super) fn keep_commit(&mut self, fx: &mut Vec<Effect>) {
        let seq_no = self.log.commit();
        if seq_no > self.commit_kept && self.disk.stored() >= seq_no {
            self.commit_kept = seq_no;
            self.persist(Record::Commit { seq_no }, fx);
        }
    }

    fn tell_role(&mut self, fx: &mut Vec<Effect>) {
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
        fx.push(Effect::Emit(Event::RoleChanged { role, term, leader, promises }));
        self.introduce(fx);
    }

    /// Tells whoever is linked here and not in yet who leads: nobody else may know them.
    pub(super) fn introduce(&self, fx: &mut Vec<Effect>) {
        let is_elsewhere = self.leader.is_some_and(|leader| leader != self.me.id);
        let strangers = self.links.members().filter(|(id, ..)| !self.has_member(*id));
        let links: Vec<_> = strangers.map(|(_, link, _)| link).collect();
        if let (true, false, Some(ack)) = (is_elsewhere, links.is_empty(), self.introduction()) {
            fx.push(Effect::Send(links, Message::JoinAck(ack)));
        }
    }

    pub(super) fn tell_quorum(&mut self, is_reached: bool, fx: &mut Vec<Effect>) {
        if self.quorum != Some(is_reached) {
            self.quorum = Some(is_reached);
            let event = if is_reached { Event::Quorum } else { Event::NoQuorum };
            fx.push(Effect::Emit(event));
        }
    }

    /// Something is left out; told at the first, second, fourth… time.
    pub(super) fn drop_it(&mut self, why: &'static str, fx: &mut Vec<Effect>) {
        let count = self.drops.entry(why).or_default();
        *count += 1;
        if count.is_power_of_two() {
            fx.push(Effect::Emit(Event::Dropped(why)));
        }
    }

    pub(super) fn send(&self, link: LinkId, msg: Message, fx: &mut Vec<Effect>) {
        fx.push(Effect::Send(vec![link], msg));
    }

    /// The next term, if there is one.
    pub(super) fn next_term(&self) -> Option<Term> {
        (self.term.0 < TERM_MAX).then(|| Term(self.term.0 + 1))
    }

    /// Whether members in reach, with this one, are a majority.
    pub(super) fn reaches_majority(&self) -> bool {
        let members = &self.log.membership().members;
        let in_reach = |it: &&Member| it.id == self.me.id || self.links.of_member(it.id).is_some();
        let count = members.iter().filter(in_reach).count();
        self.is_member() && count >= crate::protocol::quorum::majority(members.len())
    }
}
