//! Small groups on a perfect network: the courses of the protocol, without weather.

mod memory;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use super::{
    BftIdentity, BftReplica, BftStatus, Command, Config, Effect, Event, ExtraEffect, ExtraInput,
    Fx, Input, Opening, OrderMemory, Record, Timer,
};
use crate::machine::{LinkId, Machine as _};
use crate::model::{KeyPair, Now, Rng, Signature, Time, WallTime};
use crate::proto::bft::message::Message;
use crate::proto::bft::{Committee, MembershipChange, VoteSubject};
use crate::proto::chat::entry::{Body, Entry, HostPort, Member, MemberId};

const HOP: u64 = 1_000;
const SYNC: u64 = 2_000;

/// A thing that happens at a time.
enum Due {
    Input(MemberId, u64, Input),
    Timer(MemberId, u64, Timer, u64),
    Sync(MemberId, u64, usize),
}

struct Host {
    replica: Option<BftReplica>,
    life: u64,
    records: Vec<Record>,
    synced: usize,
    base: usize,
    timers: BTreeMap<Timer, u64>,
    links: BTreeMap<LinkId, (MemberId, LinkId)>,
    delivered: Vec<Arc<Entry>>,
    events: Vec<Event>,
    rejects: BTreeSet<MemberId>,
}

/// A group on a perfect network.
struct Group {
    now: u64,
    order: u64,
    due: BTreeMap<(u64, u64), Due>,
    hosts: BTreeMap<MemberId, Host>,
    keys: BTreeMap<MemberId, KeyPair>,
    founders: Arc<Committee>,
    links: u64,
    config: Config,
    sent: BTreeMap<&'static str, u64>,
    /// Longest time on the way, in microseconds; messages of one link keep their order.
    jitter: u64,
    rng: Rng,
    arrivals: BTreeMap<LinkId, u64>,
    /// Member whose votes leave with bad signatures.
    forger: Option<MemberId>,
    /// Member that neither votes nor tells others what they have signed.
    silent: Option<MemberId>,
}

impl Group {
    fn new(members: u32, config: Config) -> Self {
        let keys: BTreeMap<_, _> = (1..=members)
            .map(|id| (MemberId(id), KeyPair::generate(&mut Rng::seed_from_u64(u64::from(id)))))
            .collect();
        let member = |(id, keys): (&MemberId, &KeyPair)| {
            let port = 7_000 + u16::try_from(id.0).unwrap();
            let host = std::net::Ipv4Addr::LOCALHOST.into();
            Member { id: *id, at: HostPort { host, port }, key: keys.public() }
        };
        let founders = Arc::new(Committee::of(keys.iter().map(member)).unwrap());
        let mut group = Self {
            now: 1_000_000,
            order: 0,
            due: BTreeMap::new(),
            hosts: BTreeMap::new(),
            keys,
            founders,
            links: 0,
            config,
            sent: BTreeMap::new(),
            jitter: 0,
            rng: Rng::seed_from_u64(7),
            arrivals: BTreeMap::new(),
            forger: None,
            silent: None,
        };
        for id in 1..=members {
            group.start(id, None);
        }
        group
    }

    fn at(&mut self, after: u64, due: Due) {
        self.order += 1;
        self.due.insert((self.now + after, self.order), due);
    }

    fn start(&mut self, id: u32, is_lost: Option<String>) {
        let id = MemberId(id);
        let identity = BftIdentity {
            id,
            keys: self.keys[&id].clone(),
            founders: Arc::clone(&self.founders),
            salt: "test".into(),
        };
        let old = self.hosts.remove(&id);
        let (life, records) = old.map_or((0, Vec::new()), |it| (it.life + 1, it.records));
        let memory = OrderMemory { snapshot: None, records: records.clone(), is_lost };
        let rng = Rng::seed_from_u64(u64::from(id.0) * 1_000 + life);
        let replica = BftReplica::new(self.config.clone(), identity, rng, memory).unwrap();
        let host = Host {
            replica: Some(replica),
            life,
            base: records.len(),
            synced: records.len(),
            records,
            timers: BTreeMap::new(),
            links: BTreeMap::new(),
            delivered: Vec::new(),
            events: Vec::new(),
            rejects: BTreeSet::new(),
        };
        self.hosts.insert(id, host);
        self.input(id, Input::Start);
    }

    /// Ends a process; what is not on disk is lost.
    fn kill(&mut self, id: u32) {
        let host = self.hosts.get_mut(&MemberId(id)).unwrap();
        host.replica = None;
        let synced = host.synced;
        host.records.truncate(synced);
        for (_, (other, link)) in std::mem::take(&mut host.links) {
            let other_host = self.hosts.get_mut(&other).unwrap();
            other_host.links.remove(&link);
            let life = other_host.life;
            self.at(HOP, Due::Input(other, life, Input::closed(link, "dead")));
        }
    }

    fn input(&mut self, id: MemberId, input: Input) {
        let mut queue = VecDeque::from([input, Input::Extra(ExtraInput::Idle)]);
        while let Some(input) = queue.pop_front() {
            let Some(host) = self.hosts.get_mut(&id) else { return };
            let Some(replica) = &mut host.replica else { return };
            let mut fx = Fx::default();
            let now = Now { mono: Time::from_micros(self.now), wall: WallTime(self.now) };
            replica.handle(now, input, &mut fx);
            for effect in fx.drain().collect::<Vec<_>>() {
                self.carry_out(id, effect);
            }
        }
    }

    fn carry_out(&mut self, id: MemberId, effect: Effect) {
        let host = self.hosts.get_mut(&id).unwrap();
        let life = host.life;
        match effect {
            Effect::Send { link, msg } => self.send(id, link, msg),
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.send(id, link, msg.clone());
                }
            }
            Effect::Dial(member) => self.dial(id, &member),
            Effect::Hangup { link } => {
                if let Some((other, back)) = host.links.remove(&link) {
                    self.hosts.get_mut(&other).unwrap().links.remove(&back);
                    let closed = Input::closed(link, "hung up");
                    self.at(0, Due::Input(id, life, closed));
                    let life = self.hosts[&other].life;
                    self.at(HOP, Due::Input(other, life, Input::closed(back, "hung up")));
                }
            }
            Effect::SetTimer { timer, after } => {
                let at = self.now + u64::try_from(after.as_micros()).unwrap();
                host.timers.insert(timer, at);
                self.at(at - self.now, Due::Timer(id, life, timer, at));
            }
            Effect::StopTimer(timer) => _ = host.timers.remove(&timer),
            Effect::Persist(record) => {
                host.records.push(record);
                let length = host.records.len();
                self.at(SYNC, Due::Sync(id, life, length));
            }
            Effect::Emit(event) => host.events.push(event),
            Effect::Extra(ExtraEffect::Deliver(entries)) => host.delivered.extend(entries),
            Effect::Extra(ExtraEffect::Load { .. } | ExtraEffect::Snapshot(_)) => {}
        }
    }

    fn send(&mut self, from: MemberId, link: LinkId, mut msg: Message) {
        if self.forger == Some(from)
            && let Message::Prepare(vote) | Message::Commit(vote) = &mut msg
        {
            vote.signature = Signature::from_bytes([7; 64]);
        }
        let is_withheld =
            matches!(msg, Message::Prepare(_) | Message::Commit(_) | Message::RecallResp(_));
        if self.silent == Some(from) && is_withheld {
            return;
        }
        if let Message::Commit(vote) = &msg
            && vote.sender_id == from
        {
            // B9: what a member votes in is on its disk.
            let VoteSubject { epoch, view, .. } = vote.subject;
            let host = &self.hosts[&from];
            let is_promised = host.records[..host.synced].contains(&Record::View { epoch, view });
            assert!(is_promised, "{from} has not promised view {}", view.0);
        }
        let name = crate::proto::bft::line::encode(&msg);
        let name = String::from_utf8_lossy(&name[9..22]).into_owned();
        *self.sent.entry(Box::leak(name.into_boxed_str())).or_default() += 1;
        let Some((to, back)) = self.hosts[&from].links.get(&link).copied() else { return };
        let life = self.hosts[&to].life;
        let last = self.arrivals.get(&back).copied().unwrap_or_default();
        let arrival = last.max(self.now + HOP + self.rng.random_range(0..=self.jitter));
        self.arrivals.insert(back, arrival);
        let after = arrival - self.now;
        self.at(after, Due::Input(to, life, Input::Received { link: back, msg }));
    }

    fn dial(&mut self, from: MemberId, to: &Member) {
        let life = self.hosts[&from].life;
        let is_there = self
            .hosts
            .get(&to.id)
            .is_some_and(|it| it.replica.is_some() && !it.rejects.contains(&from));
        if !is_there {
            return self.at(HOP, Due::Input(from, life, Input::DialFailed(to.id)));
        }
        self.links += 2;
        let (here, there) = (LinkId(self.links), LinkId(self.links + 1));
        for (host, link, other, is_ours) in [(from, here, to.id, true), (to.id, there, from, false)]
        {
            let back = if is_ours { there } else { here };
            let key = self.keys[&other].public();
            let own = self.hosts.get_mut(&host).unwrap();
            own.links.insert(link, (other, back));
            let life = own.life;
            let opening = Opening { key, is_ours };
            self.at(HOP, Due::Input(host, life, Input::Opened { link, opening }));
        }
    }

    /// Runs for this many milliseconds.
    fn run(&mut self, millis: u64) {
        let end = self.now + millis * 1_000;
        while let Some(((at, _), due)) = self
            .due
            .first_key_value()
            .map(|(k, _)| *k)
            .and_then(|key| (key.0 <= end).then(|| (key, self.due.remove(&key).unwrap())))
        {
            self.now = at;
            match due {
                Due::Input(id, life, input) if self.hosts[&id].life == life => {
                    self.input(id, input);
                }
                Due::Timer(id, life, timer, at) if self.hosts[&id].life == life => {
                    let host = self.hosts.get_mut(&id).unwrap();
                    if host.timers.get(&timer) == Some(&at) {
                        host.timers.remove(&timer);
                        self.input(id, Input::Expired(timer));
                    }
                }
                Due::Sync(id, life, length) if self.hosts[&id].life == life => {
                    let host = self.hosts.get_mut(&id).unwrap();
                    if host.replica.is_some() {
                        host.synced = host.synced.max(length);
                        let records = (host.synced - host.base) as u64;
                        self.input(id, Input::Synced { records });
                    }
                }
                Due::Input(..) | Due::Timer(..) | Due::Sync(..) => {}
            }
        }
        self.now = end;
    }

    fn say(&mut self, id: u32, text: &str) {
        let say = Command::Say { room: "r".into(), text: text.into() };
        self.input(MemberId(id), Input::Command(say));
    }

    fn status(&self, id: u32) -> BftStatus {
        self.hosts[&MemberId(id)].replica.as_ref().unwrap().status()
    }

    fn texts(&self, id: u32) -> Vec<String> {
        let text = |it: &Arc<Entry>| match &it.body {
            Body::Chat(text) => text.payload.to_string(),
            Body::Opening | Body::Membership(_) => panic!("a slot holds messages"),
        };
        self.hosts[&MemberId(id)].delivered.iter().map(text).collect()
    }

    fn events(&self, id: u32) -> &[Event] {
        &self.hosts[&MemberId(id)].events
    }
}

fn says(group: &mut Group, count: u32) {
    for number in 0..count {
        let id = number % 4 + 1;
        if group.hosts[&MemberId(id)].replica.is_some() {
            group.say(id, &format!("{number}"));
        }
        group.run(3);
    }
}

#[test]
fn four_members_agree_on_one_order() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 200);
    group.run(2_000);
    let first = group.texts(1);
    assert_eq!(first.len(), 200, "{:?} {:?}", group.status(1), group.sent);
    for id in 2..=4 {
        assert_eq!(group.texts(id), first);
        assert_eq!(group.status(id).hash, group.status(1).hash);
        assert_eq!(group.status(id).pending, 0);
    }
    assert_eq!(group.status(1).view.0, 0);
}

#[test]
fn votes_with_bad_signatures_are_in_no_certificate_and_end_their_links() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 4);
    // It leads in no view of this test, so nothing waits for it.
    group.forger = Some(MemberId(4));
    says(&mut group, 40);
    group.run(2_000);
    let id = group.founders.order_id("test");
    for member in 1..=3 {
        assert!(group.texts(member).len() >= 33, "{:?}", group.status(member));
        assert_eq!(group.texts(member), group.texts(1));
        let mut certificates = 0;
        for record in &group.hosts[&MemberId(member)].records {
            if let Record::Prepared(it) | Record::Final(it) = record {
                assert!(it.is_valid(&id, &group.founders), "{it:?}");
                certificates += 1;
            }
        }
        assert!(certificates > 60, "{certificates}");
        let is_cut = |it: &Event| *it == Event::Dropped("a vote with a bad signature");
        assert!(group.events(member).iter().any(is_cut), "member {member}");
    }
}

#[test]
fn a_dead_leader_is_replaced_and_nothing_is_lost() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 40);
    let leader = group.status(2).leader;
    assert_eq!(leader, MemberId(1));
    group.say(1, "last words");
    group.kill(1);
    says(&mut group, 40);
    group.run(1_000);
    let first = group.texts(2);
    assert!(first.len() >= 70, "{} {:?} {:?}", first.len(), group.status(2), group.sent);
    assert_eq!((group.texts(3), group.texts(4)), (first.clone(), first));
    assert!(group.status(2).view.0 > 0);
    group.start(1, None);
    group.run(3_000);
    says(&mut group, 40);
    group.run(3_000);
    assert_eq!(group.status(1).hash, group.status(2).hash, "{:?}", group.status(1));
    assert!(group.texts(3).contains(&"last words".to_owned()) || group.texts(3).len() >= 110);
}

#[test]
fn all_come_back_from_a_power_cut() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 41);
    for id in 1..=4 {
        group.kill(id);
    }
    let before = group.texts(1);
    for id in 1..=4 {
        group.start(id, None);
    }
    group.run(4_000);
    says(&mut group, 40);
    group.run(4_000);
    let status = group.status(1);
    for id in 2..=4 {
        assert_eq!(group.status(id).hash, status.hash, "{id} {:?} {:?}", group.status(id), status);
    }
    assert!(status.place.0 as usize >= before.len() + 40 && status.view.0 > 0, "{status:?}");
}

#[test]
fn without_a_quorum_all_wait_and_go_on_when_it_is_back() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    group.kill(3);
    group.kill(4);
    group.run(1_000);
    group.say(1, "waits");
    group.run(20_000);
    assert_eq!(group.texts(1).len(), 0);
    let halted = Event::Halted { reached: 2, needed: 3, silent: Vec::new() };
    assert!(group.events(1).contains(&halted), "{:?}", group.events(1));
    group.start(3, None);
    group.run(40_000);
    assert_eq!((group.texts(1).len(), group.texts(3).len()), (1, 1), "{:?}", group.status(1));
    assert!(group.events(1).contains(&Event::Resumed));
}

#[test]
fn idle_members_say_little() {
    let mut group = Group::new(4, Config::default());
    group.run(5_000);
    group.sent.clear();
    group.run(10_000);
    let all: u64 = group.sent.values().sum();
    assert!(all <= 4 * 3 * 13, "{:?}", group.sent);
    let _ = Duration::ZERO;
}

#[test]
fn nothing_waits_for_a_heartbeat_on_a_network_with_jitter() {
    let mut group = Group::new(4, Config::default());
    group.jitter = 5_000;
    group.run(2_100);
    for number in 0..400 {
        let id = number % 4 + 1;
        group.say(id, &format!("{number}"));
        group.run(u64::from(number % 7) * 5);
        if number % 50 == 49 {
            group.run(100);
            for id in 1..=4 {
                let place = group.status(id).place.0;
                assert_eq!(place, u64::from(number) + 1, "{id} {:?}", group.status(id));
            }
        }
    }
}

#[test]
fn a_member_is_removed_and_another_added_by_consents_of_a_quorum() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    let consent = |group: &mut Group, id: u32, change: &MembershipChange| {
        group.input(MemberId(id), Input::Command(Command::Approve(change.clone())));
        group.run(50);
    };
    let removal = MembershipChange::Remove { member: MemberId(4), approvals: Vec::new() };
    for id in [1, 2] {
        consent(&mut group, id, &removal);
    }
    group.run(5_000);
    assert_eq!(group.status(1).epoch.0, 0, "two of four are no quorum");
    consent(&mut group, 3, &removal);
    group.run(2_000);
    assert_eq!((group.status(1).epoch.0, group.status(2).members.len()), (1, 3));
    group.say(1, "among three");
    group.run(2_000);
    assert_eq!(group.texts(3), ["among three"]);
    // It comes back with the same key, by the consent of those that are there now.
    let member = group.founders.voter(MemberId(4)).unwrap().member.clone();
    let addition = MembershipChange::Add { member, approvals: Vec::new() };
    for id in 1..=2 {
        consent(&mut group, id, &addition);
    }
    group.run(10_000);
    let status = group.status(4);
    assert_eq!((status.epoch.0, status.members.len()), (2, 4), "{status:?}");
    group.kill(1);
    group.say(4, "as a member");
    group.run(10_000);
    assert_eq!(group.texts(2), ["among three", "as a member"]);
}

#[test]
fn a_newcomer_that_has_followed_the_order_votes_once_it_is_a_member() {
    let mut group = Group::new(4, Config::default());
    let keys = KeyPair::generate(&mut Rng::seed_from_u64(5));
    let at = HostPort { host: std::net::Ipv4Addr::LOCALHOST.into(), port: 7_005 };
    let member = Member { id: MemberId(5), at, key: keys.public() };
    group.keys.insert(MemberId(5), keys);
    group.start(5, None);
    group.run(3_000);
    let addition = MembershipChange::Add { member, approvals: Vec::new() };
    for id in 1..=3 {
        group.input(MemberId(id), Input::Command(Command::Approve(addition.clone())));
        group.run(50);
    }
    group.run(3_000);
    let status = group.status(5);
    assert_eq!((status.epoch.0, status.silent), (1, None));
    // Four of five decide: without the newcomer's vote nothing would become final.
    group.kill(1);
    group.say(2, "needs the newcomer");
    group.run(10_000);
    assert_eq!(group.texts(5), ["needs the newcomer"]);
}

#[test]
fn a_member_that_was_removed_while_it_was_away_calls_the_others_and_follows() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    group.kill(1);
    let removal = MembershipChange::Remove { member: MemberId(1), approvals: Vec::new() };
    for id in 2..=4 {
        group.input(MemberId(id), Input::Command(Command::Approve(removal.clone())));
        group.run(50);
    }
    group.run(8_000);
    assert_eq!(group.status(2).epoch.0, 1);
    // Its log says that all others call it, which they do no more.
    group.start(1, None);
    group.say(2, "without it");
    group.run(8_000);
    assert_eq!((group.status(1).epoch.0, group.texts(1)), (1, vec!["without it".to_owned()]));
}

#[test]
fn a_start_is_no_halt_unless_the_others_are_not_reached_in_time() {
    let mut group = Group::new(4, Config::default());
    group.run(5_000);
    let is_halt = |it: &Event| matches!(it, Event::Halted { .. });
    assert!((1..=4).all(|id| !group.events(id).iter().any(is_halt)));
    [2, 3, 4].into_iter().for_each(|id| group.kill(id));
    group.kill(1);
    group.start(1, None);
    group.run(5_000);
    let halts: Vec<_> = group.events(1).iter().filter(|it| is_halt(it)).collect();
    let halted = Event::Halted { reached: 1, needed: 3, silent: Vec::new() };
    assert_eq!(halts, [&halted], "nobody else runs");
}
