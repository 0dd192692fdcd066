//! Discovery alone, in a network that is only a queue: hops at 10 to 10,000 peers, deaths, and a
//! third of all peers lying. The whole simulator would spend its time on everything else.
//!
//! 10,000 peers are for `cargo test --test sim lean_discovery:: -- --ignored --nocapture`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event, and for any other in vain"
)]
#![allow(clippy::print_stdout, reason = "measured hops and shares are worth a line")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot::machine::discovery::{Config, Discovery, Event, Timer};
use folkmoot::machine::{Effect, Effects, LinkId};
use folkmoot::model::{Endpoint, Now, PublicKey, Rng, Time, WallTime};
use folkmoot::proto::discovery::{Contact, FindNode, Found, NodeId};
use folkmoot::proto::message::Message;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Honest,
    Dead,
    /// Answers with contacts that do not exist, under keys close to whatever is looked for.
    Inventor,
    /// Names only other liars.
    Clique,
    /// Never answers.
    Silent,
}

enum Step {
    Ask { from: usize, to: Endpoint, question: FindNode },
    Answer { from: usize, to: usize, found: Found },
    Fail { at: usize, to: Endpoint },
    Check { at: usize, endpoint: Endpoint },
}

/// Peers, and what is under way between them; a call either arrives or fails at once.
struct Net {
    peers: Vec<Discovery>,
    contacts: Vec<Contact>,
    natures: Vec<Nature>,
    at: BTreeMap<Endpoint, usize>,
    steps: VecDeque<Step>,
    resolved: BTreeMap<u64, (Option<Contact>, u32)>,
    discovered: BTreeMap<u64, Vec<Contact>>,
    rng: Rng,
}

const NOW: Now = Now { mono: Time::ZERO, wall: WallTime(0) };

/// Keys are only hashed here, so any 32 bytes will do.
fn key(rng: &mut Rng) -> PublicKey {
    let bytes: [u8; 32] = rng.random();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::from_value(hex.into()).expect("64 digits")
}

fn endpoint(number: usize) -> Endpoint {
    let [_, _, high, mid, low] = *(number as u64).to_be_bytes().last_chunk().expect("8 bytes");
    Endpoint::new([10, high, mid, low].into(), 6001)
}

impl Net {
    fn new(count: usize, seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let contacts: Vec<_> = (0..count)
            .map(|number| Contact { endpoint: endpoint(number), key: key(&mut rng) })
            .collect();
        let peers = contacts
            .iter()
            .map(|me| Discovery::new(Config::default(), *me, [], Rng::from_rng(&mut rng)))
            .collect();
        let at = contacts.iter().enumerate().map(|(at, it)| (it.endpoint, at)).collect();
        Self {
            peers,
            natures: vec![Nature::Honest; count],
            contacts,
            at,
            steps: VecDeque::new(),
            resolved: BTreeMap::new(),
            discovered: BTreeMap::new(),
            rng,
        }
    }

    /// Each peer comes in turn, knows one that was there before, and looks for itself.
    fn grown(count: usize, seed: u64) -> Self {
        let mut net = Self::new(count, seed);
        for number in 1..count {
            let first = net.rng.random_range(0..number);
            net.introduce(number, first);
            net.refresh(number);
        }
        net
    }

    fn introduce(&mut self, number: usize, other: usize) {
        let (me, it) = (self.contacts[number], self.contacts[other]);
        self.work(number, |peer, fx| peer.on_proved(NOW, it, fx));
        self.work(other, |peer, fx| peer.on_claimed(me, fx));
        self.run();
    }

    fn refresh(&mut self, number: usize) {
        self.work(number, |peer, fx| peer.on_timer(NOW, Timer::Refresh, fx));
        self.run();
    }

    fn look_up(&mut self, number: usize, id: NodeId) -> (Option<Contact>, u32) {
        let token = self.resolved.len() as u64;
        self.work(number, |peer, fx| peer.look_up(NOW, token, id, fx));
        self.run();
        self.resolved[&token]
    }

    fn work(&mut self, at: usize, work: impl FnOnce(&mut Discovery, &mut Effects<Discovery>)) {
        let mut fx = Effects::default();
        work(&mut self.peers[at], &mut fx);
        for effect in fx.drain() {
            match effect {
                Effect::Send { link: LinkId(to), msg: Message::Found(found) } => {
                    self.steps.push_back(Step::Answer { from: at, to: to as usize, found });
                }
                Effect::Emit(Event::Ask { to, question }) => {
                    self.steps.push_back(Step::Ask { from: at, to, question });
                }
                Effect::Emit(Event::Check { endpoint }) => {
                    self.steps.push_back(Step::Check { at, endpoint });
                }
                Effect::Emit(Event::Resolved { token, peer, hops, .. }) => {
                    let peer = peer.map(|it| Contact { endpoint: it.endpoint, key: it.key });
                    assert!(self.resolved.insert(token, (peer, hops)).is_none(), "twice");
                }
                Effect::Emit(Event::Discovered { token, peers }) => {
                    let all = peers.iter().map(|it| Contact { endpoint: it.endpoint, key: it.key });
                    assert!(self.discovered.insert(token, all.collect()).is_none(), "twice");
                }
                Effect::Emit(Event::Malformed { reason, .. }) => panic!("{reason}"),
                Effect::Emit(Event::Learnt(_)) => {}
                Effect::SetTimer { .. } | Effect::StopTimer(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn run(&mut self) {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Ask { from, to, question } => self.ask(from, to, question),
                Step::Fail { at, to } => self.work(at, |it, fx| it.on_unreachable(NOW, to, fx)),
                Step::Answer { from, to, found } => {
                    let (link, it) = (LinkId(from as u64), self.contacts[from]);
                    self.work(to, |peer, fx| {
                        peer.on_proved(NOW, it, fx);
                        peer.on_found(NOW, link, it, found, fx);
                    });
                }
                Step::Check { at, endpoint } => {
                    let there = self.at.get(&endpoint).copied();
                    let shown = there.filter(|it| self.natures[*it] != Nature::Dead);
                    let shown = shown.map(|it| self.contacts[it].key);
                    self.work(at, |peer, fx| peer.on_checked(NOW, endpoint, shown, fx));
                }
            }
        }
    }

    fn ask(&mut self, from: usize, to: Endpoint, question: FindNode) {
        let Some(there) = self.at.get(&to).copied() else {
            return self.steps.push_back(Step::Fail { at: from, to });
        };
        let caller = self.contacts[from];
        let lies = |contacts| Found { number: question.number, contacts };
        let found = match self.natures[there] {
            Nature::Dead | Nature::Silent => {
                return self.steps.push_back(Step::Fail { at: from, to });
            }
            Nature::Honest => {
                let link = LinkId(from as u64);
                return self.work(there, |peer, fx| {
                    peer.on_claimed(caller, fx);
                    peer.on_find_node((link, caller.key), question, fx);
                });
            }
            Nature::Inventor => {
                let mut near = |_| {
                    let near = (0..64).map(|_| key(&mut self.rng));
                    let endpoint = endpoint(1_000_000 + there);
                    let key = near.min_by_key(|it| NodeId::of(it).distance(&question.target));
                    Contact { endpoint, key: key.expect("there are 64") }
                };
                lies((0..16).map(&mut near).collect())
            }
            Nature::Clique => {
                let liars = (0..self.contacts.len()).filter(|it| {
                    self.natures[*it] != Nature::Honest && self.natures[*it] != Nature::Dead
                });
                let mut liars: Vec<_> = liars.map(|it| self.contacts[it]).collect();
                liars.sort_by_cached_key(|it| it.id().distance(&question.target));
                liars.truncate(16);
                lies(liars)
            }
        };
        self.steps.push_back(Step::Answer { from: there, to: from, found });
    }

    /// Look-ups of random honest peers for others; the share that succeeds, and the hops.
    fn measure(&mut self, lookups: usize) -> (f64, Vec<u32>) {
        let honest: Vec<_> =
            (0..self.peers.len()).filter(|it| self.natures[*it] == Nature::Honest).collect();
        let mut hops = Vec::new();
        for _ in 0..lookups {
            let pair = honest.iter().copied().sample(&mut self.rng, 2);
            let (from, to) = (pair[0], self.contacts[pair[1]]);
            let (found, count) = self.look_up(from, to.id());
            if let Some(found) = found {
                assert_eq!(found, to, "somebody else was found");
                hops.push(count);
            }
        }
        hops.sort_unstable();
        (hops.len() as f64 / lookups as f64, hops)
    }
}

#[test]
fn everybody_finds_everybody_within_the_logarithm_of_the_fleet() {
    measure_hops(&[(10, 90), (100, 1_000), (1_000, 1_000)]);
}

#[test]
fn everybody_finds_everybody_among_ten_thousand() {
    measure_hops(&[(10_000, 2_000)]);
}

fn measure_hops(sizes: &[(usize, usize)]) {
    for (count, lookups) in sizes.iter().copied() {
        let mut net = Net::grown(count, 1);
        let (share, hops) = net.measure(lookups);
        let log = (count as f64).log2();
        let (p50, p99) = (hops[hops.len() / 2], hops[hops.len() * 99 / 100]);
        let mean = hops.iter().sum::<u32>() as f64 / hops.len() as f64;
        let most = hops.last().copied().unwrap_or_default();
        let entries = net.peers.iter().map(|it| it.metrics().entries).max().unwrap_or_default();
        let asked: u64 = net.peers.iter().map(|it| it.metrics().asked).sum();
        println!(
            "{count} peers: log2 {log:.1}; hops mean {mean:.2}, p50 {p50}, p99 {p99}, max {most}; \
             at most {entries} entries; {:.1} questions a look-up",
            asked as f64 / (lookups + count) as f64
        );
        assert!(share >= 1.0, "{share} of {lookups} look-ups succeed among {count}");
        assert!(f64::from(p99) <= log, "p99 of {p99} hops among {count}");
    }
}

#[test]
fn look_ups_survive_the_death_of_a_third() {
    let mut net = Net::grown(1_000, 2);
    for dead in 0..1_000 {
        if dead % 3 == 0 {
            net.natures[dead] = Nature::Dead;
        }
    }
    let (share, hops) = net.measure(1_000);
    let most = hops.last().copied().unwrap_or_default();
    println!("a third of 1000 dead at once: {:.1} % found, max {most} hops", share * 100.0);
    assert!(share > 0.99, "{share}");
}

#[test]
fn look_ups_mostly_succeed_while_a_third_lies() {
    for (nature, least) in [(Nature::Silent, 0.98), (Nature::Inventor, 0.9), (Nature::Clique, 0.9)]
    {
        let mut net = Net::grown(1_000, 3);
        for liar in (0..1_000).step_by(3) {
            net.natures[liar] = nature;
        }
        let (share, hops) = net.measure(500);
        let most = hops.last().copied().unwrap_or_default();
        println!("a third of 1000 {nature:?}: {:.1} % found, max {most} hops", share * 100.0);
        assert!(share >= least, "{nature:?}: {share}");
    }
}

#[test]
fn the_last_of_a_chain_discovers_the_first() {
    let mut net = Net::new(4, 4);
    for (number, before) in [(1, 0), (2, 1), (3, 2)] {
        net.introduce(number, before);
    }
    net.work(3, |peer, fx| peer.discover(NOW, 9, fx));
    net.run();
    let found: BTreeSet<_> = net.discovered[&9].iter().copied().collect();
    assert_eq!(found, net.contacts[..3].iter().copied().collect());
}

#[test]
fn answers_that_nobody_asked_for_are_refused_and_impossible_contacts_ignored() {
    let net = Net::new(3, 5);
    let seed = net.contacts[2];
    let me = net.contacts[0];
    let other = net.contacts[1];
    let rng = Rng::seed_from_u64(1);
    let mut peer = Discovery::new(Config::default(), me, [seed.endpoint], rng);
    let mut fx = Effects::default();
    peer.on_proved(NOW, seed, &mut fx);
    assert_eq!(peer.contacts().count(), 0, "no peer is where a seed is");
    peer.on_proved(NOW, other, &mut fx);
    peer.look_up(NOW, 1, seed.id(), &mut fx);
    let number = fx
        .drain()
        .find_map(|it| match it {
            Effect::Emit(Event::Ask { question, .. }) => Some(question.number),
            _ => None,
        })
        .expect("it asks");
    let link = LinkId(1);
    let contacts = vec![other; 17];
    let long = Found { number, contacts };
    peer.on_found(NOW, link, other, Found { number: number + 1, contacts: vec![] }, &mut fx);
    peer.on_found(NOW, link, me, Found { number, contacts: vec![] }, &mut fx);
    assert_eq!(peer.metrics().refused, 2);
    let contacts = vec![me, seed, Contact { endpoint: endpoint(7), key: me.key }];
    peer.on_found(NOW, link, other, Found { number, contacts }, &mut fx);
    assert_eq!(peer.metrics().ignored, 3);
    let ended = fx.drain().any(|it| matches!(it, Effect::Emit(Event::Resolved { peer: None, .. })));
    assert!(ended, "nobody else is left to ask");
    peer.on_found(NOW, link, other, long, &mut fx);
    assert_eq!(peer.metrics().refused, 2, "late is no offense");
}

/// What a machine asked, and until when it waits for each answer.
fn asked(fx: &mut Effects<Discovery>) -> (Vec<(Endpoint, FindNode)>, BTreeSet<u64>, bool) {
    let (mut questions, mut deadlines, mut is_over) = (Vec::new(), BTreeSet::new(), false);
    for effect in fx.drain() {
        match effect {
            Effect::Emit(Event::Ask { to, question }) => questions.push((to, question)),
            Effect::SetTimer { timer: Timer::Answer(number), .. } => {
                deadlines.insert(number);
            }
            Effect::Emit(Event::Resolved { .. }) => is_over = true,
            _ => {}
        }
    }
    (questions, deadlines, is_over)
}

#[test]
fn few_questions_are_under_way_and_a_look_up_ends_though_all_go_on_inventing() {
    let net = Net::new(41, 6);
    let mut peer = Discovery::new(Config::default(), net.contacts[0], [], Rng::seed_from_u64(1));
    let mut fx = Effects::default();
    for contact in &net.contacts[1..] {
        peer.on_proved(NOW, *contact, &mut fx);
    }
    fx.drain().for_each(drop);
    let mut keys: BTreeMap<_, _> = net.contacts.iter().map(|it| (it.endpoint, it.key)).collect();
    let mut rng = Rng::seed_from_u64(2);
    let target = NodeId::of(&key(&mut rng));
    let mut invented: Vec<_> = (0..2_400)
        .map(|number| Contact { endpoint: endpoint(1_000 + number), key: key(&mut rng) })
        .collect();
    invented.sort_by_cached_key(|it| it.id().distance(&target));
    keys.extend(invented.iter().map(|it| (it.endpoint, it.key)));
    peer.look_up(NOW, 1, target, &mut fx);
    let (mut under_way, mut count, mut is_over) = (VecDeque::new(), 0, false);
    loop {
        let (questions, deadlines, ended) = asked(&mut fx);
        is_over |= ended;
        count += questions.len();
        for (to, question) in questions {
            assert!(deadlines.contains(&question.number), "each has its deadline");
            under_way.push_back((to, question));
        }
        assert!(under_way.len() <= 3, "{} under way", under_way.len());
        assert!(count <= 96, "it goes on and on");
        let Some((endpoint_asked, question)) = under_way.pop_front() else { break };
        // Each names sixteen that are closer than all before, and all of those are there.
        let contacts = invented.split_off(invented.len().saturating_sub(16));
        let from = Contact { endpoint: endpoint_asked, key: keys[&endpoint_asked] };
        let found = Found { number: question.number, contacts };
        peer.on_found(NOW, LinkId(1), from, found, &mut fx);
    }
    assert!(is_over, "it never ends");
    assert_eq!(count, 96, "the bound ended it");
    assert_eq!(peer.metrics().lookups_open, 0);
}

#[test]
fn an_answer_by_another_key_than_was_asked_counts_as_none() {
    let net = Net::new(4, 7);
    let [me, asked_one, liar, named] = [0, 1, 2, 3].map(|it| net.contacts[it]);
    let mut peer = Discovery::new(Config::default(), me, [], Rng::seed_from_u64(1));
    let mut fx = Effects::default();
    peer.on_proved(NOW, asked_one, &mut fx);
    peer.look_up(NOW, 1, named.id(), &mut fx);
    let (questions, ..) = asked(&mut fx);
    let [(to, question)] = questions[..] else { panic!("it knows one") };
    assert_eq!(to, asked_one.endpoint);
    let contacts = vec![named];
    let found = Found { number: question.number, contacts };
    let from = Contact { endpoint: to, key: liar.key };
    peer.on_found(NOW, LinkId(1), from, found, &mut fx);
    let (more, _, is_over) = asked(&mut fx);
    assert!(more.is_empty() && is_over, "whom a liar names is not asked");
    assert_eq!(peer.metrics().false_contacts, 1);
}

#[test]
fn a_claim_is_believed_only_if_its_own_key_is_shown_there() {
    let net = Net::new(3, 8);
    let [me, claimed, other] = [0, 1, 2].map(|it| net.contacts[it]);
    let mut peer = Discovery::new(Config::default(), me, [], Rng::seed_from_u64(1));
    let mut fx = Effects::default();
    for (shown, known) in [(None, 0), (Some(other.key), 0), (Some(claimed.key), 1)] {
        peer.on_claimed(claimed, &mut fx);
        assert_eq!(peer.contacts().count(), 0, "not before the check");
        peer.on_checked(NOW, claimed.endpoint, shown, &mut fx);
        assert_eq!(peer.contacts().count(), known, "{shown:?}");
    }
}

#[test]
fn a_second_claim_to_an_endpoint_that_is_being_checked_spoils_no_check() {
    let net = Net::new(3, 8);
    let [me, honest, liar] = [0, 1, 2].map(|it| net.contacts[it]);
    let mut peer = Discovery::new(Config::default(), me, [], Rng::seed_from_u64(1));
    let mut fx = Effects::default();
    peer.on_claimed(honest, &mut fx);
    peer.on_claimed(Contact { endpoint: honest.endpoint, key: liar.key }, &mut fx);
    peer.on_checked(NOW, honest.endpoint, Some(honest.key), &mut fx);
    assert_eq!(peer.contacts().collect::<Vec<_>>(), [honest]);
}
