//! Back-pressure: origins that wait for slow nodes, and leave when others have their messages.

use super::*;
use crate::proto::broadcast::{Have, Reached, Slow};

/// An origin that has published 600 messages of 1 KiB, with room for 512 KiB.
fn origin() -> Broadcast {
    let mut it = linked(Config { held_bytes_max: 1_048_576, ..open() });
    it.begin(Incarnation(1), None);
    for _ in 0..20 {
        assert_eq!(say(&mut it, at(1), 30), 30);
    }
    it
}

/// Publishes so many messages, with which the neighbors keep up; returns how many go out at once.
fn say(it: &mut Broadcast, now: Now, count: u64) -> u64 {
    let before = it.metrics().messages_published;
    for token in 0..count {
        let said = ("news".to_owned(), Data::from(vec![1; 1_024]), false);
        it.publish(now, token, said, &mut Effects::default());
    }
    let done = it.metrics().messages_published;
    let have = Have { of: vec![Reached { origin: life(1), done, top: done }] };
    it.on_have(now, FROM, &have, &mut Effects::default());
    it.on_have(now, OTHER, &have, &mut Effects::default());
    done - before
}

fn wait_for(it: &mut Broadcast, now: Now, who: u16, done: u64) {
    let slow = Slow { origin: life(1), who: endpoint(who), done, room: 524_288, hops: 3 };
    it.on_slow(now, FROM, slow, &mut Effects::default());
}

#[test]
fn an_origin_stays_within_the_room_that_a_slow_node_leaves() {
    let mut it = origin();
    wait_for(&mut it, at(2), 5, 500);
    let sent = say(&mut it, at(2), 400);
    assert!((100..250).contains(&sent), "{sent}");
    wait_for(&mut it, at(2), 5, 600);
    pass(&mut it, 2, 3);
    let more = it.metrics().messages_published - 600 - sent;
    assert!((80..=101).contains(&more), "{more}");
    // It says nothing any more: it keeps up.
    pass(&mut it, 4, 5);
    assert_eq!(it.metrics().messages_published, 1_000);
    assert_eq!(it.metrics().messages_delayed, 400 - sent);
}

#[test]
fn nobody_stops_an_origin_for_long() {
    let mut it = origin();
    for secs in 2..14 {
        wait_for(&mut it, at(secs), 5, 0);
        pass(&mut it, secs, secs + 1);
        assert_eq!(say(&mut it, at(secs), 1), u64::from(secs >= 12), "at {secs} s");
    }
    // Nor do invented names of slow nodes.
    let mut it = origin();
    let mut sent = 0;
    for secs in 2..40 {
        wait_for(&mut it, at(secs), secs as u16, 0);
        pass(&mut it, secs, secs + 1);
        sent += say(&mut it, at(secs), 1);
    }
    assert!(sent > 20, "{sent}");
}

#[test]
fn a_second_life_waits_for_nobody_of_the_first() {
    let slow = |incarnation| Slow {
        origin: MemberInstance { incarnation: Incarnation(incarnation), ..life(1) },
        who: endpoint(5),
        done: 0,
        room: 0,
        hops: 3,
    };
    let mut it = origin();
    it.on_slow(at(2), FROM, slow(1), &mut Effects::default());
    assert_eq!(say(&mut it, at(2), 1), 0);
    it.pause(&mut Effects::default());
    it.begin(Incarnation(2), None);
    assert_eq!(say(&mut it, at(2), 10), 10);
    // Nor does it overflow when it has made less than the first and is held up as well.
    for secs in 5..30 {
        it.on_slow(at(secs), FROM, slow(2), &mut Effects::default());
        say(&mut it, at(secs), 1);
    }
}

#[test]
fn a_node_that_was_slow_long_ago_frees_no_origin_of_waiting() {
    let mut it = origin();
    wait_for(&mut it, at(2), 5, 0);
    assert_eq!(say(&mut it, at(2), 1), 0);
    pass(&mut it, 6, 7);
    wait_for(&mut it, at(60), 6, 0);
    assert_eq!(say(&mut it, at(60), 1), 0, "it is waited for");
}

#[test]
fn invented_slow_nodes_take_no_place_of_a_slow_one() {
    let mut it = origin();
    for secs in 2..14 {
        (100..100 + config::BRAKES_MAX as u16).for_each(|it2| wait_for(&mut it, at(secs), it2, 0));
        pass(&mut it, secs, secs);
    }
    pass(&mut it, 15, 90);
    for secs in 90..102 {
        (100..100 + config::BRAKES_MAX as u16).for_each(|it2| wait_for(&mut it, at(secs), it2, 0));
    }
    wait_for(&mut it, at(102), 5, 0);
    assert_eq!(say(&mut it, at(102), 1), 0, "the slow one is waited for");
}

#[test]
fn too_many_messages_that_wait_are_refused() {
    let mut it = origin();
    wait_for(&mut it, at(2), 5, 0);
    let mut fx = Effects::default();
    for token in 0..2_000 {
        it.publish(at(2), token, ("news".to_owned(), Data::from("x"), false), &mut fx);
    }
    let is_refusal =
        |it: &Effect<Broadcast>| matches!(it, Effect::Emit(Event::PublishRefused { .. }));
    assert_eq!(fx.drain().filter(is_refusal).count(), 2_000 - config::PENDING_MAX);
    it.pause(&mut fx);
    assert_eq!(fx.drain().filter(is_refusal).count(), config::PENDING_MAX);
}

#[test]
fn an_origin_is_settled_when_a_neighbor_has_all_that_it_made() {
    let mut it = linked(open());
    assert!(it.is_settled());
    it.begin(Incarnation(1), None);
    let said = ("news".to_owned(), Data::from("x"), false);
    (0..5).for_each(|token| it.publish(at(1), token, said.clone(), &mut Effects::default()));
    assert!(!it.is_settled());
    let have = |done| Have { of: vec![Reached { origin: life(1), done, top: 5 }] };
    it.on_have(at(1), FROM, &have(4), &mut Effects::default());
    assert!(!it.is_settled());
    it.on_have(at(1), OTHER, &have(5), &mut Effects::default());
    assert!(it.is_settled());
    // One of several may lie.
    it.on_link_up(at(1), LinkId(3), endpoint(4), &mut Effects::default());
    assert!(!it.is_settled());
    it.on_have(at(1), FROM, &have(5), &mut Effects::default());
    assert!(it.is_settled());
}

#[test]
fn a_request_to_wait_goes_back_the_way_the_messages_came() {
    let mut it = linked(open());
    step(&mut it, at(1), FROM, message(1));
    let mut fx = Effects::default();
    let slow = Slow { origin: life(9), who: endpoint(5), done: 0, room: 1, hops: 0 };
    it.on_slow(at(1), OTHER, slow, &mut fx);
    let effects: Vec<_> = fx.drain().collect();
    let [Effect::Send { link: FROM, msg: Message::Slow(passed_on) }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(*passed_on, Slow { hops: 1, ..slow });
    it.on_slow(at(1), OTHER, Slow { hops: config::HOPS_MAX, ..slow }, &mut fx);
    assert_eq!(fx.drain().count(), 0);
}
