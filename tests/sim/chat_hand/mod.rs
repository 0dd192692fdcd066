//! Members of a group driven by hand: every message waits until a test delivers or loses it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::chat::{
    ChatMemory, ChatStatus, Command, Config, Effect, Event, ExtraEffect, ExtraInput, Fx, Input,
    Opening, Record, Replica, Role, Timer,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::chat::entry::{
    Body, ChatText, Entry, GroupId, HostPort, Member, MemberId, Membership, MsgId, Origin, SeqNo,
    Term,
};
use folkmoot::proto::chat::message::{JoinIntent, Message, SeqChat};
use rand::SeedableRng as _;

pub(crate) const GROUP: GroupId = GroupId([7; 16]);

pub(crate) fn member(id: u32) -> Member {
    let key = KeyPair::generate(&mut Rng::seed_from_u64(u64::from(id))).public();
    let at =
        HostPort { host: [127, 0, 0, 1].into(), port: 6_000 + u16::try_from(id).expect("few") };
    Member { id: MemberId(id), at, key }
}

pub(crate) fn entry(seq: u64, term: u64, leader: u32, body: Body) -> Arc<Entry> {
    Arc::new(Entry {
        seq_no: SeqNo(seq),
        term: Term(term),
        leader: MemberId(leader),
        time: WallTime(0),
        body,
    })
}

pub(crate) fn chat(author: u32, number: u64) -> ChatText {
    let origin = Origin { member: MemberId(author), client: 0 };
    let msg_id = MsgId { origin, number };
    ChatText { msg_id, room_id: "general".into(), payload: format!("text {number}").into() }
}

/// A message of entries of `leader` after (`prev_seq`, `prev_term`).
pub(crate) fn seq_chat(
    leader: u32,
    term: u64,
    (prev_seq, prev_term): (u64, u64),
    commit: u64,
    entries: &[Arc<Entry>],
) -> SeqChat {
    SeqChat {
        sender_id: MemberId(leader),
        term: Term(term),
        prev_seq: SeqNo(prev_seq),
        prev_term: Term(prev_term),
        commit: SeqNo(commit),
        entries: entries.to_vec(),
    }
}

/// What a member of a group of `count` remembers that has written nothing yet.
pub(crate) fn begun(me: u32, count: u32) -> Vec<Record> {
    let members = (1..=count).map(member).collect();
    let membership = Membership { members, ..Membership::default() };
    let Member { id, key, .. } = member(me);
    vec![
        Record::Group { group: GROUP, me: id, key },
        Record::Term { term: Term(1), voted_for: None },
        Record::Entry(entry(1, 1, 1, Body::Membership(Arc::new(membership)))),
        Record::Commit { seq_no: SeqNo(1) },
    ]
}

/// One member.
pub(crate) struct Hand {
    pub(crate) group: Option<Replica>,
    pub(crate) records: Vec<Record>,
    pub(crate) events: Vec<Event>,
    pub(crate) delivered: Vec<Arc<Entry>>,
    pub(crate) dialed: Vec<Member>,
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

/// Some members, by their numbers.
pub(crate) struct Hands {
    pub(crate) hands: BTreeMap<u32, Hand>,
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) letters: VecDeque<Letter>,
    /// Both ends of each connection: link here, the other, link there.
    links: BTreeMap<(u32, LinkId), (u32, LinkId)>,
    next: u64,
}

impl Hands {
    /// Members 1 to `count` of a group that has just begun; none of them runs yet.
    pub(crate) fn new(mut config: Config, count: u32) -> Self {
        let hand = |id| Hand {
            group: None,
            records: begun(id, count),
            events: Vec::new(),
            delivered: Vec::new(),
            dialed: Vec::new(),
            before: 0,
            timers: BTreeMap::new(),
        };
        // Nothing is held back here but by the tests themselves.
        config.commit_pause = Duration::ZERO;
        Self {
            hands: (1..=count).map(|id| (id, hand(id))).collect(),
            config,
            now: Time::ZERO,
            letters: VecDeque::new(),
            links: BTreeMap::new(),
            next: 0,
        }
    }

    /// Three members that are linked, of which 3 leads.
    pub(crate) fn three() -> Self {
        let mut hands = Self::new(Config::default(), 3);
        (1..=3).for_each(|id| hands.start(id));
        for (a, b) in [(1, 2), (1, 3), (2, 3)] {
            hands.link(a, b);
        }
        hands.pass(Duration::from_secs(3), |_| true);
        assert_eq!(hands.status(3).role, Role::Leader);
        hands
    }

    pub(crate) fn start(&mut self, id: u32) {
        let hand = self.hands.get_mut(&id).expect("a member");
        hand.before = hand.records.len();
        hand.timers.clear();
        let records = hand.records.clone();
        let memory = ChatMemory { bootstrap: false, group: None, snapshot: None, records };
        // Each process draws other numbers.
        self.next += 2;
        let rng = Rng::seed_from_u64(u64::from(id) + (self.next << 32));
        hand.group = Some(Replica::new(self.config.clone(), member(id), rng, memory));
        self.input(id, Input::Start);
    }

    /// Ends a member; what it sent is lost.
    pub(crate) fn stop(&mut self, id: u32) {
        self.hands.get_mut(&id).expect("a member").group = None;
        self.letters.retain(|it| it.from != id && it.to != id);
        let ends: Vec<_> = self.links.iter().map(|(a, b)| (*a, *b)).collect();
        for ((a, link_a), (b, _)) in ends {
            if a == id || b == id {
                self.links.remove(&(a, link_a));
                if a != id {
                    self.input(a, Input::closed(link_a, ""));
                }
            }
        }
    }

    pub(crate) fn link(&mut self, a: u32, b: u32) {
        let (link_a, link_b) = (LinkId(self.next), LinkId(self.next + 1));
        self.next += 2;
        self.links.insert((a, link_a), (b, link_b));
        self.links.insert((b, link_b), (a, link_a));
        for (at, link, other, is_ours) in [(a, link_a, b, true), (b, link_b, a, false)] {
            if self.hands.get(&at).is_some_and(|it| it.group.is_some()) {
                let (member, intent) = (member(other), JoinIntent::Member);
                self.input(
                    at,
                    Input::Opened {
                        link,
                        opening: Opening { member, intent, is_ours, life: None },
                    },
                );
            }
        }
    }

    /// The connection of `id` to `other`.
    pub(crate) fn link_of(&self, id: u32, other: u32) -> Option<LinkId> {
        let found = self.links.iter().find(|((a, _), (b, _))| *a == id && *b == other);
        found.map(|((_, link), _)| *link)
    }

    /// Hands over an input and `Idle`; the disk is quick.
    pub(crate) fn input(&mut self, id: u32, input: Input) {
        let mut inputs = VecDeque::from([input, Input::Extra(ExtraInput::Idle)]);
        while let Some(input) = inputs.pop_front() {
            let now = Now { mono: self.now, wall: WallTime(0) };
            let hand = self.hands.get_mut(&id).expect("a member");
            let Some(group) = &mut hand.group else { return };
            let mut fx = Fx::default();
            group.handle(now, input, &mut fx);
            for effect in fx {
                let hand = self.hands.get_mut(&id).expect("a member");
                match effect {
                    Effect::Send { link, msg } => {
                        if let Some((to, link)) = self.links.get(&(id, link)).copied() {
                            self.letters.push_back(Letter { from: id, to, msg, link });
                        }
                    }
                    Effect::SendAll { links, msg } => {
                        for link in links {
                            if let Some((to, link)) = self.links.get(&(id, link)).copied() {
                                let msg = msg.clone();
                                self.letters.push_back(Letter { from: id, to, msg, link });
                            }
                        }
                    }
                    Effect::Persist(record) => {
                        hand.records.push(record);
                        let records = (hand.records.len() - hand.before) as u64;
                        inputs.push_back(Input::Synced { records });
                        inputs.push_back(Input::Extra(ExtraInput::Idle));
                    }
                    Effect::Extra(ExtraEffect::Deliver(entries)) => hand.delivered.extend(entries),
                    Effect::SetTimer { timer, after: span } => {
                        hand.timers.insert(timer, self.now.after(span));
                    }
                    Effect::StopTimer(timer) => {
                        hand.timers.remove(&timer);
                    }
                    Effect::Emit(event) => hand.events.push(event),
                    Effect::Dial(to) => hand.dialed.push(to),
                    Effect::Hangup { .. }
                    | Effect::Extra(ExtraEffect::Load { .. } | ExtraEffect::Snapshot(_)) => {}
                }
            }
        }
    }

    /// Delivers letters, new ones too, until none is left; loses those that `keeps` does not.
    pub(crate) fn post(&mut self, keeps: impl Fn(&Letter) -> bool) {
        while let Some(letter) = self.letters.pop_front() {
            if keeps(&letter) {
                let Letter { to, msg, link, .. } = letter;
                self.input(to, Input::Received { link, msg });
            }
        }
    }

    pub(crate) fn post_all(&mut self) {
        self.post(|_| true);
    }

    /// `from` says something to `to`, who is linked to it.
    pub(crate) fn say_to(&mut self, from: u32, to: u32, msg: Message) {
        let link = self.link_of(to, from).expect("they are linked");
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
            let due = self.hands.iter().filter(|(_, it)| it.group.is_some());
            let due = due.flat_map(|(id, it)| it.timers.iter().map(|(t, at)| (*at, *id, *t)));
            let Some((at, id, timer)) = due.min().filter(|(at, ..)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.hands.get_mut(&id).expect("a member").timers.remove(&timer);
            self.input(id, Input::Expired(timer));
        }
        self.now = until;
    }

    pub(crate) fn status(&self, id: u32) -> ChatStatus {
        self.hands[&id].group.as_ref().expect("it runs").status()
    }

    /// The texts delivered at `id` in this test, in order.
    pub(crate) fn texts(&self, id: u32) -> Vec<String> {
        let text = |it: &Arc<Entry>| match &it.body {
            Body::Chat(chat) => Some(chat.payload.to_string()),
            Body::Opening | Body::Membership(_) => None,
        };
        self.hands[&id].delivered.iter().filter_map(text).collect()
    }

    /// Messages on their way from `from` of the kind that `pick` takes.
    pub(crate) fn said<T>(&self, from: u32, pick: impl Fn(&Message) -> Option<T>) -> Vec<T> {
        let letters = self.letters.iter().filter(|it| it.from == from);
        letters.filter_map(|it| pick(&it.msg)).collect()
    }
}
