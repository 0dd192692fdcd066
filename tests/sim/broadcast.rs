//! Broadcasts to fleets of every size, in every weather, among liars.

#![allow(clippy::print_stdout, reason = "figures are for whoever runs this by hand")]

use crate::cast;
use crate::common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cast::{Cast, host, keys};
use common::checkers::overlay_fault;
use common::{Fleet, Plan};
use folkmoot::machine::broadcast;
use folkmoot::model::{Data, Endpoint, Rng, Time, VerdictMemo};
use folkmoot::node::{Command, Event, peer_kind};
use folkmoot::proto::broadcast::{Announce, Graft, Offer, Part, Publish, Receipt};
use folkmoot::proto::message::Message;
use folkmoot::runtime::clock::Clock;
use folkmoot::sim::{TamperedMessage, for_each_seed};
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Some messages of several publishers to a whole fleet; prints what it took.
fn everybody_gets_everything(seed: u64, count: u16, messages: u16) {
    let _memo = VerdictMemo::on_this_thread();
    let clock = Clock::start();
    let mut cast = Cast::started(seed, count);
    for number in 0..messages {
        let from = host(number * 7 % count);
        cast.publish(from, format!("message {number}").as_str());
        cast.run(millis(40));
    }
    let hosts = cast.hosts.clone();
    cast.settle(&hosts, secs(30));
    let (received, delivered) =
        (cast.sum(|it| it.messages_received), cast.sum(|it| it.messages_delivered));
    println!(
        "{count} peers, {messages} messages: {:.3} copies a delivery, {} hops and {} ms at most, \
         {} repaired, {:.1} s",
        received as f64 / delivered as f64,
        cast.hops_max,
        cast.age_max,
        cast.sum(|it| it.repaired),
        clock.now().mono.since(Time::ZERO).as_secs_f64(),
    );
    assert_eq!(delivered, u64::from(count - 1) * u64::from(messages));
    assert_eq!(cast.blamed(&hosts), BTreeSet::new(), "nobody is to blame");
}

#[test]
fn every_peer_of_a_small_fleet_gets_every_message_once() {
    for_each_seed(20, |seed| {
        for count in [4, 10, 50] {
            everybody_gets_everything(seed, count, 20);
        }
    });
}

#[test]
fn every_peer_of_200_and_of_1000_gets_every_message_once() {
    everybody_gets_everything(1, 200, 20);
    everybody_gets_everything(2, 1_000, 10);
}

/// On demand: `LARGE=1 cargo test --release --test sim broadcast::of_10000 -- --nocapture`.
#[test]
fn every_peer_of_10000_gets_every_message_once() {
    let count = if std::env::var_os("LARGE").is_some() { 10_000 } else { 2_000 };
    everybody_gets_everything(3, count, 5);
}

#[test]
fn a_quiet_overlay_of_200_sends_few_copies_more_than_it_delivers() {
    let _memo = VerdictMemo::on_this_thread();
    let mut cast = Cast::started(5, 200);
    for number in 0..100 {
        cast.publish(host(number % 5 * 40), format!("message {number}").as_str());
        cast.run(millis(200));
    }
    let hosts = cast.hosts.clone();
    cast.settle(&hosts, secs(30));
    let received = cast.sum(|it| it.messages_received) as f64;
    let copies = received / cast.sum(|it| it.messages_delivered) as f64;
    println!("200 peers, 100 messages of 5: {copies:.3} copies a delivery, formation included");
    assert!((1.0..=1.2).contains(&copies), "{copies} copies a delivery");
}

/// Copies a delivery over `messages` of five publishers in turn, formation included, and of the
/// second half the mean and the most links crossed.
fn shape(seed: u64, count: u16, messages: u16, nearer_by: u32) -> (f64, f64, u32) {
    let _memo = VerdictMemo::on_this_thread();
    let config = broadcast::Config { nearer_by, ..broadcast::Config::default() };
    let mut cast = Cast::with(seed, count, config);
    cast.start();
    for number in 0..messages {
        if number == messages / 2 {
            cast.hops.clear();
        }
        cast.publish(host(number % 5 * (count / 5)), format!("message {number}").as_str());
        cast.run(millis(200));
    }
    let hosts = cast.hosts.clone();
    cast.settle(&hosts, secs(30));
    let received = cast.sum(|it| it.messages_received) as f64;
    let copies = received / cast.sum(|it| it.messages_delivered) as f64;
    let mean = f64::from(cast.hops.iter().sum::<u32>()) / cast.hops.len() as f64;
    let most = cast.hops.iter().copied().max().unwrap_or_default();
    println!(
        "{count} peers, seed {seed}, nearer by {nearer_by}: {copies:.3} copies a delivery, \
         {mean:.1} hops on average and {most} at most, {} preferred, {} repaired",
        cast.sum(|it| it.preferred),
        cast.sum(|it| it.repaired),
    );
    (copies, mean, most)
}

#[test]
fn nearer_announcers_make_the_tree_flatter_and_double_little() {
    for_each_seed(2, |seed| {
        let (_, mean_before, most_before) = shape(seed, 200, 100, u32::MAX);
        let (copies, mean, most) = shape(seed, 200, 100, broadcast::Config::default().nearer_by);
        assert!(copies <= 1.2, "SEED={seed}: {copies} copies a delivery");
        assert!(mean < mean_before && most < most_before, "SEED={seed}: the tree is no flatter");
    });
}

// For figures of large fleets: SHAPES=1000:2,10000:2 cargo test --test sim broadcast::fleets_of
#[test]
fn fleets_of_any_shape_get_everything_and_print_their_hops() {
    let shapes = std::env::var("SHAPES").unwrap_or_else(|_| "10:2,50:4294967295".to_owned());
    for pair in shapes.split(',') {
        let (count, nearer_by) = pair.split_once(':').expect("COUNT:NEARER_BY");
        let count = count.parse().expect("a number of peers");
        let (copies, ..) = shape(1, count, 60, nearer_by.parse().expect("a number of links"));
        assert!((1.0..1.5).contains(&copies), "{copies} copies a delivery");
    }
}

#[test]
fn where_pushes_may_go_no_further_announcements_carry_on() {
    for_each_seed(5, |seed| {
        let config = broadcast::Config { ttl: 2, ..broadcast::Config::default() };
        let mut cast = Cast::with(seed, 50, config);
        cast.start();
        for number in 0..5 {
            cast.publish(host(number * 9), format!("message {number}").as_str());
        }
        let hosts = cast.hosts.clone();
        cast.settle(&hosts, secs(30));
        assert!(cast.sum(|it| it.repaired) > 0, "SEED={seed}: two links do not lead everywhere");
        assert!(cast.hops_max > 2, "SEED={seed}");
    });
}

#[test]
fn survivors_get_everything_when_a_fifth_dies_in_the_midst_of_it() {
    for_each_seed(10, |seed| {
        let _memo = VerdictMemo::on_this_thread();
        let mut cast = Cast::started(seed, 100);
        let mut rng = Rng::seed_from_u64(seed);
        let victims: BTreeSet<_> = (1..100).sample(&mut rng, 20).into_iter().map(host).collect();
        let rest: Vec<_> = cast.hosts.iter().copied().filter(|it| !victims.contains(it)).collect();
        let rest = cast.connected(&rest);
        for number in 0..10 {
            cast.publish(rest[number * 3], format!("message {number}").as_str());
            cast.run(millis(10));
            for victim in victims.iter().skip(number * 2).take(2) {
                cast.world.crash(*victim);
                cast.world.bury(*victim);
            }
        }
        cast.settle(&rest, secs(30));
    });
}

#[test]
fn links_that_break_all_the_time_lose_nothing_and_double_nothing() {
    for_each_seed(10, |seed| {
        let mut cast = Cast::started(seed, 30);
        let mut rng = Rng::seed_from_u64(seed);
        for number in 0..60 {
            cast.publish(host(number % 30), format!("message {number}").as_str());
            for _ in 0..3 {
                let from = rng.random_range(3..30_u16);
                let calls = &cast.calls[usize::from(from)];
                let to = calls[rng.random_range(0..calls.len())];
                cast.world.reset_link(host(from), host(to));
            }
            cast.run(millis(30));
        }
        let hosts = cast.hosts.clone();
        cast.settle(&hosts, secs(30));
    });
}

#[test]
fn whoever_stays_through_the_churn_gets_everything() {
    for_each_seed(5, |seed| {
        let mut cast = Cast::started(seed, 50);
        let mut rng = Rng::seed_from_u64(seed);
        let mut stayed: BTreeSet<_> = cast.hosts.iter().copied().collect();
        for number in 0..40 {
            let talker = *stayed.iter().choose(&mut rng).expect("somebody stays");
            cast.publish(talker, format!("message {number}").as_str());
            cast.run(millis(250));
            if number % 2 == 0 {
                // Every second somebody goes and another one comes back: 4 % a second.
                let goes = host(rng.random_range(10..50));
                stayed.remove(&goes);
                cast.world.crash(goes);
                cast.run(millis(100));
                cast.world.restart(goes);
            }
        }
        // Who came back hears again what it forgot with its process: that is another life.
        let stayed: Vec<_> = stayed.into_iter().collect();
        let end = cast.world.now().after(secs(30));
        let fault = |cast: &Cast| {
            let lacks = |at: &&Endpoint| {
                cast.published.iter().any(|(id, (origin, _))| {
                    let count = cast.delivered.get(id).and_then(|it| it.get(*at));
                    origin != *at && count != Some(&1)
                })
            };
            stayed.iter().find(lacks).copied()
        };
        while let Some(at) = fault(&cast) {
            assert!(cast.world.now() < end, "SEED={seed}: {at} has not each message once");
            cast.run(millis(50));
        }
    });
}

#[test]
fn a_late_joiner_and_a_healed_partition_get_what_they_missed() {
    for_each_seed(10, |seed| {
        let mut cast = Cast::new(seed, 20);
        let (early, late) = (cast.hosts[..19].to_vec(), cast.hosts[19]);
        for host in &early {
            cast.world.boot(*host);
        }
        cast.run(secs(1));
        for number in 0..300 {
            cast.publish(host(number % 19), format!("early {number}").as_str());
        }
        cast.settle(&early, secs(30));
        cast.world.boot(late);
        let all = cast.hosts.clone();
        cast.settle(&all, secs(30));
        let (one, other) = all.split_at(10);
        cast.world.partition(&[one, other]);
        for number in 0..40 {
            cast.publish(host(number % 20), format!("apart {number}").as_str());
            cast.run(millis(50));
        }
        cast.run(secs(40));
        cast.world.heal();
        cast.settle(&all, secs(60));
    });
}

#[test]
fn a_long_partition_that_broke_the_links_is_repaired_by_announcements() {
    for_each_seed(5, |seed| {
        let mut cast = Cast::started(seed, 20);
        let all = cast.hosts.clone();
        let (one, other) = all.split_at(10);
        cast.world.partition(&[one, other]);
        for number in 0..40 {
            cast.publish(host(number % 20), format!("apart {number}").as_str());
            cast.run(millis(20));
        }
        // Senders give up after two minutes.
        cast.run(secs(130));
        cast.world.reunite();
        cast.settle(&all, secs(60));
    });
}

#[test]
fn messages_of_a_mebibyte_reach_everybody_in_parts() {
    for_each_seed(3, |seed| {
        let mut cast = Cast::started(seed, 12);
        for number in 0..3_u8 {
            let data: Vec<u8> = (0..1_048_576_u32).map(|at| (at % 251) as u8 ^ number).collect();
            cast.publish(host(u16::from(number) * 4), data);
        }
        cast.publish(host(3), vec![7; 65_536]);
        cast.publish(host(3), vec![8; 65_537]);
        cast.publish(host(3), "");
        let hosts = cast.hosts.clone();
        cast.settle(&hosts, secs(60));
        let whole = 3 * 1_048_576 + 65_536 + 65_537;
        let bytes = cast.sum(|it| it.bytes_in) as f64 / (11.0 * f64::from(whole));
        assert!(bytes < 1.2, "{bytes} times the bytes that were delivered");
    });
}

#[test]
fn the_origin_learns_how_many_have_its_message() {
    for_each_seed(5, |seed| {
        let mut cast = Cast::started(seed, 60);
        cast.say(host(9), "who has it?", true);
        cast.publish(host(9), "nobody asks");
        let hosts = cast.hosts.clone();
        cast.settle(&hosts, secs(20));
        cast.run(secs(20));
        let counts: Vec<_> = cast.receipts.values().copied().collect();
        assert_eq!(counts, [59], "SEED={seed}: all others, once");
    });
}

/// What a liar makes of what it is about to say.
fn lie(rng: &mut Rng, said: &Message, memory: &mut Vec<Message>) -> Vec<Message> {
    let old = (0..memory.len()).choose(rng).map(|at| memory[at].clone());
    if memory.len() < 500 {
        memory.push(said.clone());
    }
    let honest = said.clone();
    match (rng.random_range(0..10), said) {
        (0 | 1, _) => vec![],
        (2, _) => vec![honest.clone(), honest],
        (3, _) => [old, Some(honest)].into_iter().flatten().collect(),
        (4, Message::Publish(msg)) => {
            let data = msg.data.clone().map(|_| Data::from("forged"));
            let size = data.as_ref().map_or(msg.size, |data| data.len() as u64);
            let digest = data.as_ref().map_or([7; 32], Data::sha256);
            vec![Publish { data, size, digest, ..msg.clone() }.into()]
        }
        (5, Message::Publish(msg)) => vec![Publish { data: None, ..msg.clone() }.into()],
        (6, Message::Publish(msg)) => {
            // True, but it keeps others from being pushed to, and is as far as it may go.
            let seen_by = (0..64).map(host).collect();
            vec![Publish { seen_by, ttl: 0, hops: u32::MAX, ..msg.clone() }.into()]
        }
        (7, Message::Publish(msg)) => {
            vec![Publish { ttl: u32::MAX, age_ms: 0, ..msg.clone() }.into()]
        }
        (4..=7, Message::Part(part)) => {
            vec![Part { data: Data::from(vec![1; part.data.len()]), ..part.clone() }.into()]
        }
        (8, _) => {
            let ids = (0..50).map(|_| {
                let id = folkmoot::model::MessageId::from_bytes(rng.random());
                Offer { id, size: 10, hops: 0 }
            });
            vec![Announce { ids: ids.collect() }.into()]
        }
        (9, Message::Publish(msg)) => vec![
            Announce { ids: vec![Offer { id: msg.id(), size: 1 << 40, hops: 0 }] }.into(),
            Receipt { id: msg.id(), count: u32::MAX }.into(),
            Graft { ids: vec![msg.id(); 64], push: true }.into(),
        ],
        _ => vec![honest],
    }
}

#[test]
fn a_third_of_liars_keeps_nothing_from_the_honest_and_forges_nothing() {
    for_each_seed(10, |seed| {
        let _memo = VerdictMemo::on_this_thread();
        let mut cast = Cast::started(seed, 40);
        let mut rng = Rng::seed_from_u64(seed);
        let liars: BTreeSet<_> = (1..40).sample(&mut rng, 13).into_iter().map(host).collect();
        let memory = Arc::new(Mutex::new(Vec::new()));
        for liar in &liars {
            let memory = Arc::clone(&memory);
            cast.world.set_tamper(
                *liar,
                Box::new(move |rng: &mut Rng, out: &TamperedMessage<'_>| {
                    lie(rng, out.msg, &mut memory.lock().expect("nobody panics with it"))
                }),
            );
        }
        let honest: Vec<_> = cast.hosts.iter().copied().filter(|it| !liars.contains(it)).collect();
        let honest = cast.connected(&honest);
        for number in 0..60 {
            let from = honest[number % honest.len()];
            if number % 20 == 7 {
                cast.publish(from, vec![number as u8; 200_000]);
            } else {
                cast.publish(from, format!("message {number}").as_str());
            }
            cast.run(millis(50));
        }
        // Of what liars say of themselves nothing is promised, but that it is not doubled.
        cast.settle(&honest, secs(90));
        let blamed = cast.blamed(&honest);
        assert!(blamed.is_subset(&liars), "SEED={seed}: only liars are blamed: {blamed:?}");
        assert!(blamed.len() >= 5, "SEED={seed}: liars are found out: {blamed:?}");
    });
}

#[test]
fn a_liar_that_signs_two_messages_of_one_number_makes_two_messages_everywhere() {
    for_each_seed(10, |seed| {
        let mut cast = Cast::started(seed, 20);
        let liar = host(4);
        let twin = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&twin);
        let mut turn = 0;
        cast.world.set_tamper(
            liar,
            Box::new(move |_: &mut Rng, out: &TamperedMessage<'_>| {
                let Message::Publish(msg) = out.msg else { return vec![out.msg.clone()] };
                turn += 1;
                if msg.origin != liar || turn % 2 == 0 {
                    return vec![out.msg.clone()];
                }
                let data = Data::from("something else");
                let (size, digest) = (data.len() as u64, data.sha256());
                let mut other = Publish { data: Some(data), size, digest, ..msg.clone() };
                other.signature = keys(4).sign(&other.statement());
                seen.lock().expect("nobody panics with it").insert(other.id());
                vec![other.into()]
            }),
        );
        cast.publish(liar, "one thing");
        cast.run(secs(10));
        let twins = twin.lock().expect("nobody panics with it").clone();
        assert_eq!(twins.len(), 1);
        let ids: Vec<_> = cast.published.keys().copied().chain(twins).collect();
        for id in ids {
            let counts = cast.delivered.get(&id).cloned().unwrap_or_default();
            let others: BTreeMap<_, _> = counts.into_iter().filter(|(at, _)| *at != liar).collect();
            assert_eq!(others.len(), 19, "SEED={seed}: {id:?}");
            assert!(others.values().all(|count| *count == 1), "{others:?}");
        }
    });
}

fn publish(fleet: &mut Fleet, from: Endpoint, text: &str, token: u64) {
    let (topic, data) = ("news".to_owned(), Data::from(text));
    let command = peer_kind::Command::Publish { topic, data, receipt: true, token };
    fleet.world.command(from, Command::Peer(command));
}

/// How often each peer delivered each text.
fn deliveries(fleet: &Fleet) -> BTreeMap<(Endpoint, String), u32> {
    let mut counts = BTreeMap::new();
    for (_, at, event) in fleet.world.events() {
        if let Event::Peer(peer_kind::Event::Broadcast(broadcast::Event::Delivered {
            message,
            ..
        })) = event
        {
            let text = String::from_utf8_lossy(&message.data).into_owned();
            *counts.entry((*at, text)).or_default() += 1;
        }
    }
    counts
}

#[test]
fn members_of_a_whole_fleet_hear_each_other_with_certificates_and_all() {
    for_each_seed(5, |seed| {
        let mut fleet = Fleet::started(seed, &Plan { peers: 12, ..Plan::default() });
        let early = fleet.peers[0];
        fleet.world.run_for(millis(201));
        publish(&mut fleet, early, "too early", 1);
        fleet.settle(secs(20));
        let peers = fleet.peers.clone();
        fleet.run_until(secs(15), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        for (number, peer) in (0..).zip(&peers) {
            publish(&mut fleet, *peer, &format!("from {number}"), 10 + number);
        }
        fleet.world.run_for(secs(3));
        // One says something and goes; another one dies.
        publish(&mut fleet, peers[3], "farewell", 50);
        fleet.world.run_for(millis(1));
        fleet.world.command(peers[3], Command::Peer(peer_kind::Command::Leave));
        fleet.world.crash(peers[4]);
        fleet.world.run_for(secs(10));
        publish(&mut fleet, peers[5], "we go on", 51);
        fleet.world.run_for(secs(10));
        let counts = deliveries(&fleet);
        let heard = |at: &Endpoint, text: &str| counts.get(&(*at, text.to_owned())).copied();
        for (number, from) in (0..).zip(&peers) {
            for at in peers.iter().filter(|at| *at != from) {
                let text = format!("from {number}");
                assert_eq!(heard(at, &text), Some(1), "SEED={seed}: {at} on {text}");
            }
        }
        for at in peers.iter().filter(|at| ![peers[3], peers[4]].contains(at)) {
            assert_eq!(heard(at, "farewell"), Some(1), "SEED={seed}: {at}");
            let expected = (*at != peers[5]).then_some(1);
            assert_eq!(heard(at, "we go on"), expected, "SEED={seed}: {at}");
        }
        assert_eq!(counts.keys().filter(|(_, text)| text == "too early").count(), 0);
        let refused = fleet.world.events().iter().any(|(_, at, event)| {
            *at == early
                && matches!(
                    event,
                    Event::Peer(peer_kind::Event::Broadcast(broadcast::Event::PublishRefused {
                        token: 1,
                        ..
                    }))
                )
        });
        assert!(refused, "SEED={seed}: whoever is no member is told so");
    });
}
