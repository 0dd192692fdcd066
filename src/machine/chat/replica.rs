//! The machine itself: its state, and the dispatch of each input.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::config::{Config, Rule};
use super::duty::RoleState;
use super::event::{Command, Event, ExtraEffect, ExtraInput, Opening, Record, Role, Timer};
use super::following::Following;
use super::identity::Identity;
use super::links::{Link, Links};
use super::memory::ChatMemory;
use super::pending::PendingMessages;
use super::process::Process;
use super::removals::Removals;
use super::reports::Reports;
use super::rivals::Rivals;
use super::sync_tracker::SyncTracker;
use super::vote::VoteState;
use super::window::LogWindow;
use crate::machine::quorum::majority;
use crate::machine::{self, LinkId, Machine, Vocabulary};
use crate::model::{Now, Rng};
use crate::proto::chat::entry::{Body, Entry, GroupId, Member, MemberId, Membership, SeqNo, Term};
use crate::proto::chat::message::{JoinAck, Message};

/// Input to the machine.
pub type Input = machine::Input<Replica>;

/// Action that the driver must carry out.
pub type Effect = machine::Effect<Replica>;

/// The effects of one input.
pub type Fx = machine::Effects<Replica>;

/// State of one member in its group. Each part owns its fields; a step that concerns several parts
/// is a method here, in the file of its rule.
#[derive(Debug)]
pub struct Replica {
    pub(super) config: Config,
    pub(super) process: Process,
    pub(super) identity: Identity,
    pub(super) vote: VoteState,
    pub(super) role_state: RoleState,
    pub(super) log: LogWindow,
    pub(super) disk: SyncTracker,
    pub(super) following: Following,
    pub(super) links: Links,
    pub(super) rivals: Rivals,
    pub(super) pending: PendingMessages,
    pub(super) removals: Removals,
    pub(super) reports: Reports,
}

impl Vocabulary for Replica {
    type Message = Message;
    type Call = Member;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for Replica {
    type Opening = Opening;
    type CallFailure = MemberId;
    type Command = Command;
    type ExtraInput = ExtraInput;

    fn handle(&mut self, now: Now, input: Input, fx: &mut Fx) {
        self.process.set_now(now);
        if self.process.is_gone() {
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
        self.report_role(fx);
    }
}

impl Replica {
    /// Creates a member that has not begun: the first input is [`Input::Start`].
    ///
    /// # Panics
    /// Panics if the memory's entries have a gap.
    pub fn new(config: Config, me: Member, rng: Rng, memory: ChatMemory) -> Self {
        let bootstrap = memory.bootstrap;
        let process = Process::new(me, rng);
        let known = memory.restore(&config, process.member(), process.life());
        let role = match known.log.membership().members.iter().any(|it| it.id == process.id()) {
            true => Role::Follower,
            false => Role::Joining,
        };
        Self {
            identity: Identity::restore(known.group, bootstrap),
            vote: VoteState::restore(known.term, known.voted_for),
            role_state: RoleState::Follow,
            disk: SyncTracker::restore(&known.log, known.snapshot_at),
            following: Following::new(known.log.commit()),
            links: Links::default(),
            rivals: Rivals::default(),
            pending: known.pending,
            removals: Removals::default(),
            reports: Reports::new((role, known.term, None)),
            log: known.log,
            process,
            config,
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
        self.vote.hear(self.process.now());
        self.rename_taken(fx);
        fx.set_timer(Timer::Pulse, self.config.heartbeat);
        if self.identity.bootstrap() {
            self.found(fx);
            return;
        }
        self.dial_everybody(fx);
        let is_alone = self.is_member() && self.log.membership().members.len() == 1;
        let wait = if is_alone { Duration::ZERO } else { self.config.leader_timeout };
        fx.set_timer(Timer::Election, wait);
        fx.set_timer(Timer::Resend, self.config.resend);
    }

    fn found(&mut self, fx: &mut Fx) {
        self.identity.become_group(GroupId(self.process.rng().random()));
        self.keep_group(fx);
        self.vote.advance_term(Term(1), Some(self.process.id()));
        self.keep_vote(fx);
        let membership = Membership {
            members: vec![self.process.member().clone()],
            message_max: u32::try_from(self.config.message_max).ok(),
            ..Membership::default()
        };
        self.lead(vec![self.process.id()], Body::Membership(Arc::new(membership)), fx);
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
            Timer::Commit => self.send_commit(fx),
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
        self.report_pending(fx);
        match self.role_state {
            RoleState::Follow => self.acknowledge(false, fx),
            RoleState::Stand(_) | RoleState::Adopt(..) => self.count_promises(fx),
            RoleState::Lead(_) => self.advance_commit(fx),
        }
        self.send_typed(fx);
    }

    fn on_idle(&mut self, fx: &mut Fx) {
        if self.role_state.leads() {
            self.change_membership(fx);
            self.flush(fx);
        }
    }

    /// Role of this member in its group.
    pub fn role(&self) -> Role {
        match self.role_state {
            RoleState::Lead(_) => Role::Leader,
            RoleState::Stand(_) | RoleState::Adopt(..) => Role::Candidate,
            RoleState::Follow if self.is_member() => Role::Follower,
            RoleState::Follow => Role::Joining,
        }
    }

    /// Newest term that this member knows.
    pub const fn term(&self) -> Term {
        self.vote.term()
    }

    /// The answer to a `JOIN`, once the group is known.
    pub fn introduction(&self) -> Option<JoinAck> {
        Some(JoinAck {
            sender_id: self.process.id(),
            term: self.vote.term(),
            group: self.identity.group()?,
            leader_id: self.vote.leader(),
            membership: self.log.membership().members.clone(),
            life: Some(self.process.life()),
        })
    }

    /// Random number of this process, by which it is distinguished from others of the same member.
    pub const fn life(&self) -> u64 {
        self.process.life()
    }

    /// True if this process is a member, by the newest membership.
    pub(super) fn is_member(&self) -> bool {
        self.log.membership().members.iter().any(|it| self.process.is(it))
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
        if let Some(group) = self.identity.take_unkept() {
            let Member { id: me, key, .. } = *self.process.member();
            self.persist(Record::Group { group, me, key }, fx);
        }
    }

    /// Writes the term and the promise.
    pub(super) fn keep_vote(&mut self, fx: &mut Fx) {
        let (term, voted_for) = (self.vote.term(), self.vote.voted_for());
        self.persist(Record::Term { term, voted_for }, fx);
    }

    /// Begins a newer term; the role in the old one is over.
    pub(super) fn advance_term(&mut self, term: Term, voted_for: Option<MemberId>, fx: &mut Fx) {
        self.step_down(fx);
        self.vote.advance_term(term, voted_for);
        self.following.begin_term(self.log.commit());
        // R1: on disk before anybody hears of it, so that a restart knows the promise.
        if self.config.keeps(Rule::Promise) {
            self.keep_group(fx);
            self.keep_vote(fx);
        }
    }

    /// Stops standing or leading; the term stays.
    pub(super) fn step_down(&mut self, fx: &mut Fx) {
        if self.role_state.leads() {
            fx.stop_timer(Timer::Heartbeat);
            fx.stop_timer(Timer::Quorum);
            if !self.process.is_leaving() {
                fx.stop_timer(Timer::Takeover);
            }
            self.vote.lose_leader();
            self.pending.begin_again();
        }
        self.role_state = RoleState::Follow;
        self.await_leader(fx);
    }

    /// Waits for a leader for as long as one may be silent, and by rank.
    pub(super) fn await_leader(&self, fx: &mut Fx) {
        let wait = self.config.leader_timeout + self.stagger(self.config.rank_silent);
        fx.set_timer(Timer::Election, wait);
    }

    /// Puts an entry at the end of the log.
    pub(super) fn append(&mut self, entry: Arc<Entry>, fx: &mut Fx) {
        self.keep_group(fx);
        let seq = entry.seq_no;
        if let Body::Chat(chat) = &entry.body
            && chat.msg_id.origin.member == self.process.id()
        {
            if self.config.keeps(Rule::Life) {
                self.pending.raise(chat.msg_id);
            }
            if chat.msg_id.origin.is_own() && self.pending.has(chat) {
                fx.emit(Event::Numbered(chat.msg_id, seq));
            }
        }
        let is_membership = matches!(entry.body, Body::Membership(_));
        if let Body::Membership(now) = &entry.body {
            now.members.iter().for_each(|it| self.links.unvouch(it.id));
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

    /// Takes a snapshot, if it is due.
    fn snapshot_if_due(&mut self, fx: &mut Fx) {
        let commit = self.log.commit();
        if !self.disk.is_snapshot_due(commit, self.config.snapshot_every) {
            return;
        }
        if let Some(snapshot) = self.identity.group().and_then(|group| self.log.snapshot(group)) {
            self.disk.on_snapshot(commit);
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
        if self.disk.keep_commit(seq_no) {
            self.persist(Record::Commit { seq_no }, fx);
        }
    }

    fn report_role(&mut self, fx: &mut Fx) {
        let place @ (role, term, leader) = (self.role(), self.vote.term(), self.vote.leader());
        if !self.reports.set_place(place) {
            return;
        }
        let promises =
            self.role_state.leading().map(|it| it.promises().to_vec()).unwrap_or_default();
        fx.emit(Event::RoleChanged { role, term, leader, promises });
        self.introduce(fx);
    }

    /// Tells linked nodes that are no members yet the leader: no other member may know them.
    pub(super) fn introduce(&self, fx: &mut Fx) {
        let is_elsewhere = self.vote.leader().is_some_and(|leader| leader != self.process.id());
        let strangers = self.links.members().filter(|(id, ..)| !self.has_member(*id));
        let links: Vec<_> = strangers.map(|(_, link, _)| link).collect();
        if let (true, false, Some(ack)) = (is_elsewhere, links.is_empty(), self.introduction()) {
            fx.send_all(links, Message::JoinAck(ack));
        }
    }

    pub(super) fn report_quorum(&mut self, is_reached: bool, fx: &mut Fx) {
        if self.reports.set_quorum(is_reached) {
            let event = if is_reached { Event::Quorum } else { Event::NoQuorum };
            fx.emit(event);
        }
    }

    /// Counts an input that is left out; told at the first, second, fourth… time.
    pub(super) fn drop_it(&mut self, why: &'static str, fx: &mut Fx) {
        if self.reports.drop_it(why) {
            fx.emit(Event::Dropped(why));
        }
    }

    pub(super) fn send(&self, link: LinkId, msg: Message, fx: &mut Fx) {
        fx.send(link, msg);
    }

    /// True if members in reach, with this one, are a majority.
    pub(super) fn reaches_majority(&self) -> bool {
        let members = &self.log.membership().members;
        let in_reach = |id: MemberId| id == self.process.id() || self.links.is_linked(id);
        let count = members.iter().filter(|it| in_reach(it.id)).count();
        self.is_member() && count >= majority(members.len())
    }
}
