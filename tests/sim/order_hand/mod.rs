//! Members of a Byzantine order driven by hand: every message waits until a test delivers or loses
//! it, and a disk may be as slow as the test wants.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks a few records of many")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::bft::{
    BftIdentity, BftReplica, BftStatus, Command, Config, Effect, Event, ExtraEffect, ExtraInput,
    Fx, Input, Opening, OrderMemory, Record, Timer,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::{Committee, OrderId, PhaseVote, VotePhase, VoteSubject};
use folkmoot::proto::chat::entry::{Body, Entry, MemberId};
use rand::SeedableRng as _;

use crate::order_world::{founders, keys_of};

const SALT: &str = "hand";

/// One member.
#[derive(Default)]
pub(crate) struct Hand {
    pub(crate) machine: Option<BftReplica>,
    pub(crate) records: Vec<Record>,
    pub(crate) events: Vec<Event>,
    pub(crate) delivered: Vec<Arc<Entry>>,
    /// True if nothing gets on the disk.
    pub(crate) is_slow: bool,
    /// Number of records that are on disk.
    safe: usize,
    before: usize,
    timers: BTreeMap<Timer, Time>,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) msg: Message,
    link: LinkId,
}

/// Some members, by their ids.
pub(crate) struct Hands {
    pub(crate) hands: BTreeMap<u32, Hand>,
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) letters: VecDeque<Letter>,
    pub(crate) founders: Arc<Committee>,
    /// Member whose letters overtake those of others.
    pub(crate) quick: Option<u32>,
    /// Both ends of each connection: link here, the other, link there.
    links: BTreeMap<(u32, LinkId), (u32, LinkId)>,
    next: u64,
}

impl Hands {
    /// Members 1 to `count` of a group, running and linked with each other.
    pub(crate) fn new(config: Config, count: u32) -> Self {
        let mut it = Self {
            hands: (1..=count).map(|id| (id, Hand::default())).collect(),
            config,
            now: Time::ZERO,
            letters: VecDeque::new(),
            founders: founders(count as usize),
            quick: None,
            links: BTreeMap::new(),
            next: 0,
        };
        (1..=count).for_each(|id| it.start(id));
        it
    }

    pub(crate) fn group(&self) -> OrderId {
        self.founders.order_id(SALT)
    }

    /// Starts a member from its disk, and links it with all that run.
    pub(crate) fn start(&mut self, id: u32) {
        self.start_as(id, None);
    }

    /// Starts a member whose operator says this of its disk.
    pub(crate) fn start_as(&mut self, id: u32, is_lost: Option<&str>) {
        let hand = self.hands.get_mut(&id).expect("a member");
        hand.before = hand.records.len();
        hand.safe = hand.records.len();
        hand.timers.clear();
        self.next += 2;
        let me = BftIdentity {
            id: MemberId(id),
            keys: keys_of(id),
            founders: Arc::clone(&self.founders),
            salt: SALT.to_owned(),
        };
        let is_lost = is_lost.map(str::to_owned);
        let memory = OrderMemory { snapshot: None, records: hand.records.clone(), is_lost };
        let rng = Rng::seed_from_u64(u64::from(id) + (self.next << 32));
        let machine = BftReplica::new(self.config.clone(), me, rng, memory);
        hand.machine = Some(machine.expect("the log is sound"));
        self.input(id, Input::Start);
        let others: Vec<_> = self.hands.keys().copied().filter(|it| *it != id).collect();
        for other in others {
            if self.hands[&other].machine.is_some() {
                self.link(id, other);
            }
        }
    }

    /// Ends a member; what it sent is lost.
    pub(crate) fn stop(&mut self, id: u32) {
        self.hands.get_mut(&id).expect("a member").machine = None;
        let others: Vec<_> = self.hands.keys().copied().filter(|it| *it != id).collect();
        others.into_iter().for_each(|other| self.part(id, other));
    }

    /// Ends a member whose disk keeps no more than what was synced.
    pub(crate) fn cut_power(&mut self, id: u32) {
        self.stop(id);
        let hand = self.hands.get_mut(&id).expect("a member");
        hand.records.truncate(hand.safe);
    }

    /// Ends the connections between two members; what is under way is lost.
    pub(crate) fn part(&mut self, a: u32, b: u32) {
        self.letters.retain(|it| (it.from, it.to) != (a, b) && (it.from, it.to) != (b, a));
        let between: Vec<_> = self
            .links
            .iter()
            .filter(|((from, _), (to, _))| (*from, *to) == (a, b) || (*from, *to) == (b, a))
            .map(|(end, _)| *end)
            .collect();
        for (at, link) in &between {
            self.links.remove(&(*at, *link));
        }
        for (at, link) in between {
            self.input(at, Input::closed(link, "parted"));
        }
    }

    pub(crate) fn link(&mut self, a: u32, b: u32) {
        let (link_a, link_b) = (LinkId(self.next), LinkId(self.next + 1));
        self.next += 2;
        self.links.insert((a, link_a), (b, link_b));
        self.links.insert((b, link_b), (a, link_a));
        for (at, link, other, is_ours) in [(a, link_a, b, true), (b, link_b, a, false)] {
            let opening = Opening { key: keys_of(other).public(), is_ours };
            self.input(at, Input::Opened { link, opening });
        }
    }

    /// Hands over an input and `Idle`.
    pub(crate) fn input(&mut self, id: u32, input: Input) {
        let mut inputs = VecDeque::from([input, Input::Extra(ExtraInput::Idle)]);
        while let Some(input) = inputs.pop_front() {
            let now = Now { mono: self.now, wall: WallTime(self.now.as_micros() / 1_000) };
            let hand = self.hands.get_mut(&id).expect("a member");
            let Some(machine) = &mut hand.machine else { return };
            let mut fx = Fx::default();
            machine.handle(now, input, &mut fx);
            for effect in fx {
                if let Some(input) = self.carry_out(id, effect) {
                    inputs.extend([input, Input::Extra(ExtraInput::Idle)]);
                }
            }
        }
    }

    fn carry_out(&mut self, id: u32, effect: Effect) -> Option<Input> {
        let hand = self.hands.get_mut(&id).expect("a member");
        match effect {
            Effect::Send { link, msg } => self.post_by(id, link, msg),
            Effect::SendAll { links, msg } => {
                links.into_iter().for_each(|link| self.post_by(id, link, msg.clone()));
            }
            Effect::Persist(record) => {
                hand.records.push(record);
                if !hand.is_slow {
                    return Some(hand.synced());
                }
            }
            Effect::Extra(ExtraEffect::Deliver(entries)) => hand.delivered.extend(entries),
            Effect::SetTimer { timer, after } => {
                hand.timers.insert(timer, self.now.after(after));
            }
            Effect::StopTimer(timer) => {
                hand.timers.remove(&timer);
            }
            Effect::Emit(event) => hand.events.push(event),
            Effect::Hangup { link } => {
                if let Some((other, _)) = self.links.get(&(id, link)).copied() {
                    self.part(id, other);
                }
            }
            Effect::Dial(_)
            | Effect::Extra(ExtraEffect::Load { .. } | ExtraEffect::Snapshot(_)) => {}
        }
        None
    }

    fn post_by(&mut self, id: u32, link: LinkId, msg: Message) {
        if let Some((to, link)) = self.links.get(&(id, link)).copied() {
            self.letters.push_back(Letter { from: id, to, msg, link });
        }
    }

    /// Delivers letters, new ones too, until none is left; loses those that `keeps` does not.
    pub(crate) fn post(&mut self, keeps: impl Fn(&Letter) -> bool) {
        while !self.letters.is_empty() {
            let is_quick = |it: &Letter| Some(it.from) == self.quick || Some(it.to) == self.quick;
            let at = self.letters.iter().position(is_quick).unwrap_or(0);
            let letter = self.letters.remove(at).expect("it is there");
            if keeps(&letter) {
                let Letter { to, msg, link, .. } = letter;
                self.input(to, Input::Received { link, msg });
            }
        }
    }

    /// `from` says something to `to`, to whom it is linked.
    pub(crate) fn say_to(&mut self, from: u32, to: u32, msg: Message) {
        let link = self.links.iter().find(|((a, _), (b, _))| (*a, *b) == (to, from));
        let link = link.map(|((_, link), _)| *link).expect("they are linked");
        self.input(to, Input::Received { link, msg });
    }

    pub(crate) fn type_at(&mut self, id: u32, text: &str) {
        let command = Command::Say { room: "general".into(), text: text.into() };
        self.input(id, Input::Command(command));
    }

    /// Time passes; timers of all fire in order, and `keeps` says which letters arrive.
    pub(crate) fn pass(&mut self, span: Duration, keeps: impl Fn(&Letter) -> bool) {
        let until = self.now.after(span);
        loop {
            self.post(&keeps);
            let due = self.hands.iter().filter(|(_, it)| it.machine.is_some());
            let due = due.flat_map(|(id, it)| it.timers.iter().map(|(t, at)| (*at, *id, *t)));
            let Some((at, id, timer)) = due.min().filter(|(at, ..)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.hands.get_mut(&id).expect("a member").timers.remove(&timer);
            self.input(id, Input::Expired(timer));
        }
        self.now = until;
    }

    pub(crate) fn status(&self, id: u32) -> BftStatus {
        self.hands[&id].machine.as_ref().expect("it runs").status()
    }

    /// The texts delivered at `id` in this test, in order.
    pub(crate) fn texts(&self, id: u32) -> Vec<String> {
        let text = |it: &Arc<Entry>| match &it.body {
            Body::Chat(chat) => Some(chat.payload.to_string()),
            Body::Opening | Body::Membership(_) => None,
        };
        self.hands[&id].delivered.iter().filter_map(text).collect()
    }

    /// The COMMIT that a member's newest prepared certificate leads to.
    pub(crate) fn commit_of(&self, id: u32) -> Option<VoteSubject> {
        self.hands[&id].records.iter().rev().find_map(|it| match it {
            Record::Prepared(certificate) => Some(certificate.subject),
            _ => None,
        })
    }

    /// A COMMIT by any member.
    pub(crate) fn countersign(&self, subject: &VoteSubject, by: (MemberId, &KeyPair)) -> PhaseVote {
        PhaseVote::sign(&self.group(), VotePhase::Commit, *subject, by)
    }

    /// Id and key of a member, for what it is made to sign.
    pub(crate) fn signer(id: u32) -> (MemberId, KeyPair) {
        (MemberId(id), keys_of(id))
    }
}

impl Hand {
    fn synced(&mut self) -> Input {
        self.safe = self.records.len();
        Input::Synced { records: (self.records.len() - self.before) as u64 }
    }
}
