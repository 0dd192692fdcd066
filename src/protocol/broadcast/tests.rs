//! The broadcast of one peer, line by line.

use super::config::{SEEN_BY_MAX, TTL_MAX};
use super::*;
use crate::model::{Rng, WallTime};
use crate::protocol::Effect;
use rand::SeedableRng as _;

const FROM: LinkId = LinkId(1);
const OTHER: LinkId = LinkId(2);

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), port)
}

fn keys(port: u16) -> KeyPair {
    KeyPair::generate(&mut Rng::seed_from_u64(port.into()))
}

fn at(secs: u64) -> Now {
    Now { mono: Time::from_micros(secs * 1_000_000), wall: WallTime(secs * 1_000) }
}

fn linked(config: Config) -> Broadcast {
    let mut it = Broadcast::new(config, endpoint(1), keys(1));
    it.on_link_up(at(0), FROM, endpoint(2), &mut Effects::default());
    it.on_link_up(at(0), OTHER, endpoint(3), &mut Effects::default());
    it
}

fn open() -> Config {
    Config { requires_proof: false, ..Config::default() }
}

fn message(number: u64) -> Publish {
    let keys = keys(9);
    let life = Subject { endpoint: endpoint(9), incarnation: Incarnation(1), key: keys.public() };
    let said = ("news".to_owned(), Data::from("hello"), false);
    Publish { ttl: 5, ..Publish::sign(&life, (number, WallTime(0)), said, &keys) }
}

fn step(it: &mut Broadcast, now: Now, from: LinkId, msg: Publish) -> Vec<Effect<Broadcast>> {
    let mut fx = Effects::default();
    it.on_publish(now, from, msg, |_| Verdict::Fails, &mut fx);
    fx.drain().collect()
}

fn delivers(effects: &[Effect<Broadcast>]) -> bool {
    effects.iter().any(|it| matches!(it, Effect::Emit(Event::Delivered { .. })))
}

fn blames(effects: &[Effect<Broadcast>]) -> bool {
    effects.iter().any(|it| matches!(it, Effect::Emit(Event::Malformed { .. })))
}

#[test]
fn the_second_copy_prunes_its_link_and_is_not_delivered() {
    let mut it = linked(open());
    assert!(delivers(&step(&mut it, at(1), FROM, message(1))));
    let again = step(&mut it, at(1), OTHER, message(1));
    assert!(matches!(again[..], [Effect::Send { link: OTHER, .. }]), "{again:?}");
    assert_eq!((it.metrics().duplicates, it.metrics().eager_links), (1, 1));
}

#[test]
fn false_messages_are_refused_and_blamed_and_a_huge_hop_limit_is_cut() {
    let good = message(1);
    let seen_by = vec![endpoint(4); SEEN_BY_MAX + 1];
    let bad = [
        Publish { number: 0, ..good.clone() },
        Publish { topic: String::new(), ..good.clone() },
        Publish { topic: "other".to_owned(), ..good.clone() },
        Publish { data: Some(Data::from("HELLO")), ..good.clone() },
        Publish { size: 6, ..good.clone() },
        Publish { data: None, size: 2_000_000, ..good.clone() },
        Publish { seen_by, ..good.clone() },
    ];
    let mut it = linked(open());
    for msg in bad {
        let effects = step(&mut it, at(1), FROM, msg);
        assert!(blames(&effects) && !delivers(&effects), "{effects:?}");
    }
    let effects = step(&mut it, at(1), FROM, Publish { ttl: u32::MAX, ..good });
    assert!(delivers(&effects));
    let is_cut = |it: &Effect<Broadcast>| {
        matches!(it, Effect::Send { msg: crate::protocol::message::Message::Publish(msg), .. }
            if msg.ttl == TTL_MAX - 1)
    };
    assert!(effects.iter().any(is_cut), "{effects:?}");
}

#[test]
fn nothing_that_was_forgotten_is_delivered_again_whatever_age_it_claims() {
    let mut it = linked(Config { seen_max: 3, ..open() });
    for number in 1..=5 {
        assert!(delivers(&step(&mut it, at(number), FROM, message(number))));
    }
    assert_eq!(it.metrics().seen_messages, 3);
    assert!(!delivers(&step(&mut it, at(9), OTHER, message(1))), "it is below the floor");
}

#[test]
fn ten_million_identities_keep_memory_flat() {
    let (mut seen, mut origins) = (Seen::default(), Origins::default());
    for number in 0..10_000_000_u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let now = Time::from_micros(number);
        let room = (1_000, &mut origins);
        seen.insert(MessageId::from_bytes(id), (0, number), (now, now), room);
        assert!(seen.len() <= 1_000);
    }
}

#[test]
fn an_unproven_origin_is_asked_for_and_not_delivered() {
    let mut it = linked(Config::default());
    let effects = step(&mut it, at(1), FROM, message(1));
    assert!(!delivers(&effects) && !blames(&effects));
    let mut fx = Effects::default();
    it.on_timer(at(1), Timer::Repair, &mut fx);
    assert!(fx.drain().any(|it| matches!(it, Effect::Send { link: FROM, .. })));
    assert!(blames(&step(&mut it, at(2), FROM, message(1))), "an answer proves its origin");
}
