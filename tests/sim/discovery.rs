//! Fleets without seeds in the simulator, and finding others by their ids.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event, and for any other in vain"
)]
#![allow(clippy::print_stdout, reason = "measured hops and shares are worth a line")]

use crate::common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::callers::Callers;
use common::{Fleet, Plan, keys_of, peer_endpoint};
use folkmoot::machine::direct::{self, FailKind, RetryConfig};
use folkmoot::machine::discovery;
use folkmoot::machine::{gossip, open};
use folkmoot::model::{Data, Endpoint, PublicKey, Rng};
use folkmoot::node::{Event, Node, PeerConfig, PeerNode, Record, peer_kind};
use folkmoot::proto::discovery::NodeId;
use folkmoot::sim::{Boot, World, WorldOptions, for_each_seed};
use rand::SeedableRng as _;

/// The peers 1 to `count` of a fleet without seeds; `named` are those that each is told of.
fn open_world(seed: u64, count: u16, named: impl Fn(u16) -> Vec<u16>) -> World<Node> {
    let mut world = World::new(seed, WorldOptions::default());
    let gossip = gossip::Config { interval: Duration::from_secs(1), ..gossip::Config::default() };
    let config = PeerConfig { gossip, ..PeerConfig::default() };
    for number in 1..=count {
        let endpoint = peer_endpoint(number);
        let bootstrap: Vec<_> = named(number).into_iter().map(peer_endpoint).collect();
        world.add_host(
            endpoint,
            Box::new(move |boot: Boot<'_, Record>| {
                let me = (endpoint, keys_of(endpoint));
                let records: Vec<_> = boot.records.iter().filter_map(peer_record).collect();
                let rng = Rng::seed_from_u64(boot.seed);
                let node = PeerNode::without_seeds(config, me, &bootstrap, &records, rng);
                Node::Peer(Box::new(node))
            }),
        );
    }
    world
}

fn peer_record(record: &Record) -> Option<<PeerNode as folkmoot::machine::Vocabulary>::Record> {
    match record {
        Record::Peer(record) => Some(record.clone()),
        Record::Seed(_) => None,
    }
}

fn peer(world: &World<Node>, number: u16) -> &PeerNode {
    match world.machine(peer_endpoint(number)) {
        Some(Node::Peer(node)) => node,
        _ => panic!("peer {number} is down"),
    }
}

fn neighbors(world: &World<Node>, number: u16) -> BTreeSet<Endpoint> {
    peer(world, number).overlay().neighbors().keys().copied().collect()
}

/// Whether all of these are one connected part.
fn is_connected(world: &World<Node>, peers: &[u16]) -> bool {
    let all: BTreeSet<_> = peers.iter().map(|it| peer_endpoint(*it)).collect();
    let mut seen = BTreeSet::new();
    let mut open: Vec<_> = all.first().copied().into_iter().collect();
    while let Some(next) = open.pop() {
        let Some(Node::Peer(node)) = world.machine(next) else { return false };
        if seen.insert(next) {
            open.extend(node.overlay().neighbors().keys().filter(|it| all.contains(it)));
        }
    }
    seen == all
}

#[track_caller]
fn wait(world: &mut World<Node>, limit: u64, what: &str, reached: impl Fn(&World<Node>) -> bool) {
    let ended = world.run_while(|world| !reached(world), Duration::from_secs(limit));
    assert!(ended, "SEED={} not within {limit} s: {what}", world.seed());
}

/// The open fleet's events of one peer.
fn told(world: &World<Node>, number: u16) -> Vec<open::Event> {
    let of = peer_endpoint(number);
    let events = world.events().iter().filter(|(_, host, _)| *host == of);
    events
        .filter_map(|(_, _, event)| match event {
            Event::Peer(peer_kind::Event::Open(event)) => Some(event.clone()),
            _ => None,
        })
        .collect()
}

/// Who has heard the message `number` of the peer `origin`'s present life.
fn heard(world: &World<Node>, origin: u16, number: u32) -> BTreeSet<Endpoint> {
    let (from, life) = (peer_endpoint(origin), peer(world, origin).applicant().subject());
    let events = world.events().iter();
    let is_it = |event: &Event| match event {
        Event::Peer(peer_kind::Event::Gossip {
            event: gossip::Event::Heard { msg, .. }, ..
        }) => (msg.origin, msg.incarnation, msg.number) == (from, life.incarnation, number),
        _ => false,
    };
    events.filter(|(_, _, event)| is_it(event)).map(|(_, host, _)| *host).collect()
}

fn boot_all(world: &mut World<Node>, count: u16) {
    for number in 1..=count {
        world.boot(peer_endpoint(number));
    }
}

#[test]
fn a_chain_of_bootstraps_becomes_one_overlay_and_gossip_reaches_all() {
    for_each_seed(10, |seed| {
        let count = 20;
        let mut world = open_world(seed, count, |number| {
            (number > 1).then(|| number - 1).into_iter().collect()
        });
        boot_all(&mut world, count);
        let all: Vec<_> = (1..=count).collect();
        wait(&mut world, 20, "one overlay with enough links", |world| {
            is_connected(world, &all) && all.iter().all(|it| neighbors(world, *it).len() >= 3)
        });
        wait(&mut world, 20, "gossip reaches all", |world| {
            [1, 10, 20].iter().all(|it| heard(world, *it, 3).len() == usize::from(count) - 1)
        });
        assert!(all.iter().all(|it| peer(&world, *it).status().state == "member"));
    });
}

#[test]
fn a_dead_bootstrap_is_called_again_and_met_when_it_comes() {
    for_each_seed(10, |seed| {
        let mut world =
            open_world(seed, 3, |number| if number == 1 { vec![] } else { vec![1, number] });
        world.boot(peer_endpoint(2));
        world.boot(peer_endpoint(3));
        world.run_for(Duration::from_secs(40));
        assert!(neighbors(&world, 2).is_empty(), "they know only the dead one");
        let own = open::Event::OwnAddress { endpoint: peer_endpoint(2) };
        assert!(told(&world, 2).contains(&own));
        let gone = |it: &&open::Event| matches!(it, open::Event::Unreachable { .. });
        assert_eq!(told(&world, 2).iter().filter(gone).count(), 1, "told once");
        world.boot(peer_endpoint(1));
        wait(&mut world, 65, "all three are linked", |world| {
            (1..=3).all(|it| neighbors(world, it).len() == 2)
        });
        assert!(told(&world, 2).contains(&open::Event::Met { to: peer_endpoint(1) }));
    });
}

#[test]
fn a_killed_neighbor_is_dropped_and_its_next_life_rejoins() {
    for_each_seed(10, |seed| {
        let mut world = open_world(seed, 6, |number| if number == 1 { vec![] } else { vec![1] });
        boot_all(&mut world, 6);
        let all: Vec<_> = (1..=6).collect();
        wait(&mut world, 20, "one overlay", |world| is_connected(world, &all));
        world.run_for(Duration::from_secs(5));
        let victim = if seed % 2 == 0 { 1 } else { 4 };
        let before = peer(&world, victim).applicant().subject().incarnation;
        if seed % 3 == 0 {
            world.vanish(peer_endpoint(victim));
        } else {
            world.crash(peer_endpoint(victim));
        }
        let rest: Vec<_> = all.iter().copied().filter(|it| *it != victim).collect();
        let dead = peer_endpoint(victim);
        wait(&mut world, 20, "it is dropped, the rest is whole", |world| {
            is_connected(world, &rest)
                && rest.iter().all(|it| {
                    !neighbors(world, *it).contains(&dead)
                        && peer(world, *it).status().suspects.is_empty()
                })
        });
        let is_drop =
            |it: &open::Event| matches!(it, open::Event::Dropped { life } if life.endpoint == dead);
        assert!(rest.iter().any(|it| told(&world, *it).iter().any(is_drop)), "nobody said so");
        world.restart(dead);
        wait(&mut world, 80, "it is back", |world| {
            is_connected(world, &all) && neighbors(world, victim).len() >= 2
        });
        assert!(peer(&world, victim).applicant().subject().incarnation > before);
        wait(&mut world, 20, "its gossip reaches all", |world| heard(world, victim, 2).len() == 5);
    });
}

#[test]
fn a_goodbye_is_no_death() {
    for_each_seed(20, |seed| {
        let mut world = open_world(seed, 4, |number| if number == 1 { vec![] } else { vec![1] });
        boot_all(&mut world, 4);
        // At once, while some of the links are still twofold: each hears it all the same.
        wait(&mut world, 20, "one overlay", |world| {
            (1..=4).all(|it| neighbors(world, it).len() == 3)
        });
        let leave = folkmoot::node::Command::Peer(peer_kind::Command::Leave);
        world.command(peer_endpoint(3), leave);
        wait(&mut world, 5, "it is gone", |world| {
            [1, 2, 4].iter().all(|it| neighbors(world, *it).len() == 2)
        });
        // Its process ends.
        world.crash(peer_endpoint(3));
        world.run_for(Duration::from_secs(10));
        assert_eq!([1, 2, 4].map(|it| told(&world, it)), [vec![], vec![], vec![]]);
        let left = world
            .events()
            .iter()
            .filter(|(_, _, event)| matches!(event, Event::Peer(peer_kind::Event::MemberLeft(_))));
        let by: Vec<_> = left.map(|(_, host, _)| *host).collect();
        assert_eq!(by.iter().collect::<BTreeSet<_>>().len(), 3, "SEED={seed} {by:?}");
        assert_eq!(by.len(), 3, "SEED={seed}: each says so once");
    });
}

/// Adds a host of its own whose peer says that it listens where `victim` does.
fn add_pretender(world: &mut World<Node>, number: u16, victim: Endpoint, calls: &[u16]) {
    let host = peer_endpoint(number);
    let bootstrap: Vec<_> = calls.iter().copied().map(peer_endpoint).collect();
    world.add_host(
        host,
        Box::new(move |boot: Boot<'_, Record>| {
            let me = (victim, keys_of(host));
            let rng = Rng::seed_from_u64(boot.seed);
            let config = PeerConfig::default();
            Node::Peer(Box::new(PeerNode::without_seeds(config, me, &bootstrap, &[], rng)))
        }),
    );
    world.boot(host);
}

/// Whom this peer holds for proved at `endpoint`.
fn known_at(world: &World<Node>, number: u16, endpoint: Endpoint) -> Vec<PublicKey> {
    let known = peer(world, number).discovery().contacts();
    known.filter(|it| it.endpoint == endpoint).map(|it| it.key).collect()
}

#[test]
fn another_key_under_a_neighbors_endpoint_changes_nothing() {
    for_each_seed(10, |seed| {
        let mut world = open_world(seed, 4, |number| if number == 1 { vec![] } else { vec![1] });
        boot_all(&mut world, 4);
        wait(&mut world, 20, "one overlay", |world| {
            (1..=4).all(|it| neighbors(world, it).len() == 3)
        });
        world.run_for(Duration::from_secs(5));
        let links = |world: &World<Node>| {
            [1, 2, 3, 4].map(|it| peer(world, it).overlay().neighbors().clone())
        };
        let before = links(&world);
        let victim = peer_endpoint(2);
        add_pretender(&mut world, 200, victim, &[1, 3, 4]);
        world.run_for(Duration::from_secs(20));
        let leave = folkmoot::node::Command::Peer(peer_kind::Command::Leave);
        world.command(peer_endpoint(200), leave);
        world.run_for(Duration::from_secs(10));
        assert_eq!(links(&world), before, "SEED={seed}: every link is as it was");
        let refused = world.events().iter().any(|(_, host, event)| {
            *host == peer_endpoint(1) && matches!(event, Event::Peer(peer_kind::Event::Refused(_)))
        });
        assert!(refused, "SEED={seed}: it did try");
        for number in [1, 3, 4] {
            assert_eq!(told(&world, number), [], "SEED={seed}");
            let own = keys_of(victim).public();
            assert_eq!(known_at(&world, number, victim), [own], "SEED={seed} at {number}");
        }
    });
}

#[test]
fn whoever_sat_at_an_endpoint_first_makes_way_for_its_owner() {
    for_each_seed(10, |seed| {
        let mut world = open_world(seed, 3, |number| if number == 1 { vec![] } else { vec![1] });
        let victim = peer_endpoint(2);
        world.boot(peer_endpoint(1));
        world.boot(peer_endpoint(3));
        add_pretender(&mut world, 200, victim, &[1]);
        wait(&mut world, 20, "it is believed while nobody else is there", |world| {
            neighbors(world, 1).contains(&victim)
        });
        // What it says is not proved, and not passed on.
        world.run_for(Duration::from_secs(10));
        assert_eq!(known_at(&world, 1, victim), [], "SEED={seed}");
        world.boot(victim);
        wait(&mut world, 70, "the owner is a neighbor", |world| {
            neighbors(world, 2).contains(&peer_endpoint(1))
                && known_at(world, 1, victim) == [keys_of(victim).public()]
        });
    });
}

/// What discovery answered to `token`.
fn answer(world: &World<Node>, token: u64) -> Option<discovery::Event> {
    world.events().iter().find_map(|(_, _, event)| match event {
        Event::Peer(peer_kind::Event::Discovery(event)) => match event {
            discovery::Event::Discovered { token: it, .. }
            | discovery::Event::Resolved { token: it, .. }
                if *it == token =>
            {
                Some(event.clone())
            }
            _ => None,
        },
        _ => None,
    })
}

fn ask(world: &mut World<Node>, at: Endpoint, command: peer_kind::Command, token: u64) {
    world.command(at, folkmoot::node::Command::Peer(command));
    wait(world, 31, "discovery answers", |world| answer(world, token).is_some());
}

#[test]
fn the_last_of_a_chain_of_bootstraps_finds_the_first() {
    for_each_seed(10, |seed| {
        let mut world = open_world(seed, 4, |number| match number {
            1 => vec![],
            _ => vec![number - 1],
        });
        boot_all(&mut world, 4);
        wait(&mut world, 20, "each has met its bootstrap", |world| {
            (2..=4).all(|it| neighbors(world, it).contains(&peer_endpoint(it - 1)))
        });
        // Those who called are checked before they are told of.
        world.run_for(Duration::from_secs(2));
        ask(&mut world, peer_endpoint(4), peer_kind::Command::Discover { token: 7 }, 7);
        let Some(discovery::Event::Discovered { peers, .. }) = answer(&world, 7) else {
            panic!("no list")
        };
        let found: Vec<_> = peers.iter().map(|it| it.endpoint).collect();
        assert_eq!(found, [1, 2, 3].map(peer_endpoint));
        assert!(peers.iter().all(|it| it.key == keys_of(it.endpoint).public()));
    });
}

#[test]
fn several_questions_by_one_short_call_are_all_answered() {
    for_each_seed(10, |seed| {
        let mut world = open_world(seed, 3, |number| (1..number).rev().take(1).collect());
        boot_all(&mut world, 3);
        wait(&mut world, 20, "the last has met its bootstrap", |world| {
            neighbors(world, 3).contains(&peer_endpoint(2))
        });
        // At once: the first is no neighbor yet, and each of the four look-ups asks it.
        ask(&mut world, peer_endpoint(3), peer_kind::Command::Discover { token: 7 }, 7);
        world.run_for(Duration::from_secs(5));
        ask(&mut world, peer_endpoint(3), peer_kind::Command::Discover { token: 8 }, 8);
        let Some(discovery::Event::Discovered { peers, .. }) = answer(&world, 8) else {
            panic!("no list")
        };
        let found: Vec<_> = peers.iter().map(|it| it.endpoint).collect();
        assert_eq!(found, [1, 2].map(peer_endpoint), "SEED={seed}");
        for number in 1..=3 {
            let metrics = peer(&world, number).discovery().metrics();
            assert_eq!(metrics.unanswered, 0, "SEED={seed} {metrics:?}");
        }
    });
}

#[test]
fn without_seeds_a_peer_sends_to_any_other_until_it_has_left() {
    let mut world = open_world(8, 3, |number| (1..number).rev().take(1).collect());
    boot_all(&mut world, 3);
    wait(&mut world, 20, "the last has met its bootstrap", |world| {
        neighbors(world, 3).contains(&peer_endpoint(2))
    });
    let send = |world: &mut World<Node>, token| {
        let (topic, data) = ("news".to_owned(), Data::from("hear".as_bytes().to_vec()));
        let (to, retry) = (peer_endpoint(1), RetryConfig::default());
        let command = peer_kind::Command::Send { token, to, topic, data, retry };
        world.command(peer_endpoint(3), folkmoot::node::Command::Peer(command));
    };
    send(&mut world, 1);
    let arrived = |event: &Event| {
        matches!(event, Event::Peer(peer_kind::Event::Direct(direct::Event::Arrived { .. })))
    };
    wait(&mut world, 5, "it arrives", |world| world.events().iter().any(|it| arrived(&it.2)));
    let leave = folkmoot::node::Command::Peer(peer_kind::Command::Leave);
    world.command(peer_endpoint(3), leave);
    send(&mut world, 2);
    let refused = |event: &Event| match event {
        Event::Peer(peer_kind::Event::Direct(direct::Event::Failed { token: 2, kind, .. })) => {
            *kind == FailKind::NotSent
        }
        _ => false,
    };
    wait(&mut world, 5, "it is refused", |world| world.events().iter().any(|it| refused(&it.2)));
}

/// Look-ups of `count` pairs, spread over all peers; how many find their peer.
fn lookups(world: &mut World<Node>, peers: &[Endpoint], count: u64) -> usize {
    let mut found = 0;
    for token in 0..count {
        let at = usize::try_from(token).expect("small");
        let (from, to) = (peers[at * 7 % peers.len()], peers[(at * 13 + 5) % peers.len()]);
        let id = NodeId::of(&keys_of(to).public());
        if from == to || !world.is_up(from) || !world.is_up(to) {
            found += 1;
            continue;
        }
        ask(world, from, peer_kind::Command::LookUp { token, id }, token);
        let Some(discovery::Event::Resolved { peer, .. }) = answer(world, token) else {
            panic!("no answer")
        };
        if let Some(peer) = peer {
            assert_eq!(peer.endpoint, to);
            found += 1;
        }
    }
    found
}

#[test]
fn in_fleets_of_both_kinds_everybody_finds_everybody_by_id() {
    let mut world = open_world(3, 40, |number| if number == 1 { vec![] } else { vec![number / 2] });
    boot_all(&mut world, 40);
    world.run_for(Duration::from_secs(40));
    let peers: Vec<_> = (1..=40).map(peer_endpoint).collect();
    assert_eq!(lookups(&mut world, &peers, 40), 40);
    // After deaths and newcomers, too.
    for number in [3, 9, 17, 30] {
        world.crash(peer_endpoint(number));
    }
    world.run_for(Duration::from_secs(20));
    world.restart(peer_endpoint(9));
    world.run_for(Duration::from_secs(20));
    assert_eq!(lookups(&mut world, &peers, 40), 40);

    let mut fleet = Fleet::started(4, &Plan { peers: 30, ..Plan::default() });
    fleet.settle(Duration::from_secs(30));
    fleet.world.run_for(Duration::from_secs(20));
    let peers = fleet.peers.clone();
    assert_eq!(lookups(&mut fleet.world, &peers, 30), 30);
}

#[test]
fn an_idle_peer_looks_around_rarely() {
    let mut world = open_world(5, 10, |number| if number == 1 { vec![] } else { vec![1] });
    boot_all(&mut world, 10);
    world.run_for(Duration::from_secs(600));
    let before: u64 = (1..=10).map(|it| peer(&world, it).discovery().metrics().lookups).sum();
    world.run_for(Duration::from_secs(3_600));
    let after: u64 = (1..=10).map(|it| peer(&world, it).discovery().metrics().lookups).sum();
    assert!(
        (40..=100).contains(&(after - before)),
        "{} look-ups of ten in an hour",
        after - before
    );
}

#[test]
fn peers_of_the_two_kinds_of_fleets_do_not_link() {
    let mut fleet = Fleet::started(6, &Plan { peers: 3, ..Plan::default() });
    fleet.settle(Duration::from_secs(30));
    let stranger = peer_endpoint(200);
    let others = [fleet.peers[0], fleet.seeds[0]];
    fleet.world.add_host(
        stranger,
        Box::new(move |boot: Boot<'_, Record>| {
            let me = (stranger, keys_of(stranger));
            let rng = Rng::seed_from_u64(boot.seed);
            let config = PeerConfig::default();
            Node::Peer(Box::new(PeerNode::without_seeds(config, me, &others, &[], rng)))
        }),
    );
    fleet.world.boot(stranger);
    fleet.world.run_for(Duration::from_secs(30));
    assert!(neighbors(&fleet.world, 200).is_empty());
    let reasons: Vec<_> = told(&fleet.world, 200)
        .into_iter()
        .filter_map(|event| match event {
            open::Event::Unreachable { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert!(
        reasons.len() == 2 && reasons.iter().all(|it| it.contains("without seeds")),
        "{reasons:?}"
    );
    let refused = fleet.world.events().iter().any(|(_, host, event)| {
        *host == others[0] && matches!(event, Event::Peer(peer_kind::Event::Refused(_)))
    });
    assert!(refused, "the member says why it refused, too");
}

/// Peers of named fleets without seeds. Whom each joins by is read when it boots.
fn named_world(seed: u64, peers: &[u16], joins: &Arc<Mutex<BTreeMap<u16, u16>>>) -> World<Node> {
    let mut world = World::new(seed, WorldOptions::default());
    for &number in peers {
        let (endpoint, joins) = (peer_endpoint(number), Arc::clone(joins));
        world.add_host(
            endpoint,
            Box::new(move |boot: Boot<'_, Record>| {
                let me = (endpoint, keys_of(endpoint));
                let joins = joins.lock().expect("one thread runs a world");
                let by: Vec<_> =
                    joins.get(&number).copied().map(peer_endpoint).into_iter().collect();
                let records: Vec<_> = boot.records.iter().filter_map(peer_record).collect();
                let rng = Rng::seed_from_u64(boot.seed);
                let config = PeerConfig::default();
                let node = PeerNode::without_seeds(config, me, &by, &records, rng);
                Node::Peer(Box::new(node.in_fleet(None, &records)))
            }),
        );
    }
    world
}

#[test]
fn two_fleets_stay_two_though_an_address_of_one_is_given_to_the_other() {
    for_each_seed(10, |seed| {
        let joins = Arc::new(Mutex::new(BTreeMap::from([(2, 1), (3, 1), (12, 11)])));
        let mut world = named_world(seed, &[1, 2, 3, 11, 12], &joins);
        for number in [1, 2, 3, 11, 12] {
            world.boot(peer_endpoint(number));
            world.run_for(Duration::from_secs(3));
        }
        assert!(neighbors(&world, 1).len() == 2 && neighbors(&world, 11).len() == 1);
        joins.lock().expect("one thread runs a world").insert(2, 11);
        world.wipe(peer_endpoint(2));
        world.run_for(Duration::from_secs(180));
        let set = |numbers: &[u16]| numbers.iter().copied().map(peer_endpoint).collect();
        assert_eq!(neighbors(&world, 1), set(&[3]));
        assert_eq!(neighbors(&world, 3), set(&[1]));
        let second: BTreeSet<_> = neighbors(&world, 2);
        assert!(!second.is_empty() && second.is_subset(&set(&[11, 12])), "{second:?}");
    });
}

#[test]
fn members_that_were_known_are_called_after_a_restart() {
    for_each_seed(10, |seed| {
        let joins = Arc::new(Mutex::new(BTreeMap::from([(2, 1), (3, 1)])));
        let mut world = named_world(seed, &[1, 2, 3], &joins);
        for number in [1, 2, 3] {
            world.boot(peer_endpoint(number));
            world.run_for(Duration::from_secs(3));
        }
        world.run_for(Duration::from_secs(10));
        // Its operator names nobody any more, and the one that was named is gone.
        joins.lock().expect("one thread runs a world").clear();
        world.crash(peer_endpoint(3));
        world.crash(peer_endpoint(1));
        world.run_for(Duration::from_secs(20));
        world.boot(peer_endpoint(3));
        world.run_for(Duration::from_secs(90));
        assert_eq!(neighbors(&world, 3), [peer_endpoint(2)].into_iter().collect());
    });
}

/// Runs for so many seconds, in which strangers with `keys` call `target` as whoever is at
/// `claimed`, twice a second.
fn call_as(
    world: &mut World<Node>,
    callers: &mut Callers,
    (claimed, target): (u16, u16),
    secs: u32,
) {
    for _ in 0..secs * 2 {
        let info = callers.info(peer_endpoint(claimed));
        callers.call(world, peer_endpoint(target), info);
        for _ in 0..20 {
            world.run_for(Duration::from_millis(25));
            callers.prove(world);
        }
    }
}

#[test]
fn who_claims_the_address_of_a_bootstrap_peer_keeps_nobody_from_that_peer() {
    for_each_seed(3, |seed| {
        let joins = Arc::new(Mutex::new(BTreeMap::from([(2, 1), (3, 1), (4, 1), (11, 1)])));
        let mut world = named_world(seed, &[1, 2, 3, 4, 11], &joins);
        for number in [1, 2, 3, 4, 11] {
            world.boot(peer_endpoint(number));
            world.run_for(Duration::from_secs(3));
        }
        let (first, last) = (peer_endpoint(1), peer_endpoint(11));
        // For so long that the others, who have neighbors enough, look for it no more.
        world.partition(&[&[1, 2, 3, 4].map(peer_endpoint), &[last]]);
        let mut callers = Callers::new(keys_of(peer_endpoint(99)));
        call_as(&mut world, &mut callers, (1, 11), 800);
        assert!(!neighbors(&world, 1).contains(&last), "they are apart");
        world.reunite();
        call_as(&mut world, &mut callers, (1, 11), 70);
        assert!(neighbors(&world, 1).contains(&last), "it has called");
        assert!(neighbors(&world, 11).contains(&first));
    });
}

#[test]
fn a_key_is_not_said_to_be_where_somebody_only_claims_to_be() {
    for_each_seed(5, |seed| {
        let joins = Arc::new(Mutex::new(BTreeMap::from([(2, 1), (3, 1)])));
        let mut world = named_world(seed, &[1, 2, 3], &joins);
        for number in [1, 2, 3] {
            world.boot(peer_endpoint(number));
            world.run_for(Duration::from_secs(3));
        }
        // Nobody is at the address that the holder of a neighbor's key names.
        let mut callers = Callers::new(keys_of(peer_endpoint(2)));
        call_as(&mut world, &mut callers, (99, 1), 5);
        let is_alarm =
            |event: &Event| matches!(event, Event::Peer(peer_kind::Event::SharedKey { .. }));
        assert!(!world.events().iter().any(|(_, _, event)| is_alarm(event)));
    });
}
