//! One peer's watch, step by step.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it looks for")]

use std::time::Duration;

use super::*;
use crate::machine::Effect;
use crate::machine::probe::ProbeOutcome;
use crate::model::statement::Finding;
use crate::model::{Incarnation, Now, Time, WallTime};

fn endpoint(number: u8) -> Endpoint {
    format!("10.0.0.{number}:6001").parse().unwrap()
}

fn keys(number: u8) -> KeyPair {
    KeyPair::from_secret([number; 32])
}

fn life(number: u8) -> MemberInstance {
    let key = keys(number).public();
    MemberInstance { endpoint: endpoint(number), incarnation: Incarnation(1), key }
}

fn at(millis: u64) -> Now {
    Now {
        mono: Time::ZERO.after(Duration::from_millis(millis)),
        wall: WallTime(1_000_000 + millis),
    }
}

/// The watch of the peer 1, whose neighbors are `others`, each of which names only it.
fn watching(others: &[u8]) -> Liveness {
    let mut it = Liveness::new(Config::default(), endpoint(1), keys(1));
    it.set_others(others.len());
    for number in others {
        let link = LinkId(u64::from(*number));
        it.on_link_up(at(0), link, life(*number), &[endpoint(1)], &mut Fx::default());
    }
    it
}

fn events(mut fx: Fx) -> Vec<Event> {
    let is_event = |effect| match effect {
        Effect::Emit(event) => Some(event),
        _ => None,
    };
    fx.drain().filter_map(is_event).collect()
}

#[test]
fn witnesses_may_take_longer_than_it_takes_to_ask_all_there_are() {
    let mut it = watching(&[2, 3, 4]);
    let mut fx = Fx::default();
    it.on_link_down(LinkId(4), endpoint(4), false, &mut fx);
    it.on_probed(at(600), endpoint(4), &ProbeOutcome::Silent, &mut fx);
    it.on_timer(at(600), Timer::Ask(endpoint(4)), &mut fx);
    let asked = events(fx).into_iter().filter(|it| matches!(it, Event::Ask { .. })).count();
    assert_eq!(asked, 2, "all there are");
    // All witnesses have been asked, and the first two are still trying to reach it.
    let mut fx = Fx::default();
    it.on_timer(at(1_500), Timer::Ask(endpoint(4)), &mut fx);
    for number in [2, 3] {
        let witness = (endpoint(number), &keys(number));
        let found = Confirmation::sign(&life(4), Finding::Silent, witness, at(1_700).wall);
        let from = (LinkId(u64::from(number)), &life(number));
        it.on_suspect_ack(at(1_700), from, found, &mut fx);
    }
    let reports = events(fx).into_iter().filter(|it| matches!(it, Event::Report(_))).count();
    assert_eq!(reports, 1, "enough have found it dead");
}

#[test]
fn witnesses_that_do_not_answer_are_asked_again_after_a_fresh_probe() {
    let mut it = watching(&[2, 3, 4]);
    let mut fx = Fx::default();
    it.on_link_down(LinkId(4), endpoint(4), false, &mut fx);
    it.on_probed(at(600), endpoint(4), &ProbeOutcome::Silent, &mut fx);
    for millis in [600, 1_500, 2_400] {
        it.on_timer(at(millis), Timer::Ask(endpoint(4)), &mut fx);
    }
    let is_probe = |it: &Event| matches!(it, Event::Probe { .. });
    assert_eq!(events(fx).iter().filter(|it| is_probe(it)).count(), 2, "the first and another");
    let mut fx = Fx::default();
    it.on_probed(at(3_000), endpoint(4), &ProbeOutcome::Silent, &mut fx);
    it.on_timer(at(3_000), Timer::Ask(endpoint(4)), &mut fx);
    let asked = events(fx).into_iter().filter(|it| matches!(it, Event::Ask { .. })).count();
    assert_eq!(asked, 2, "both anew");
}

#[test]
fn whoever_asks_again_and_again_puts_off_this_nodes_own_questions_once() {
    let mut it = watching(&[2, 3, 4]);
    it.on_link_down(LinkId(4), endpoint(4), false, &mut Fx::default());
    it.on_probed(at(600), endpoint(4), &ProbeOutcome::Silent, &mut Fx::default());
    let MemberInstance { endpoint: who, incarnation, key } = life(4);
    let request = SuspectReq { endpoint: who, incarnation, key };
    let mut put_off = |millis, link| {
        let mut fx = Fx::default();
        it.on_suspect_req(at(millis), (LinkId(link), &life(1)), request, &mut fx);
        fx.drain().filter(|it| matches!(it, Effect::SetTimer { timer: Timer::Ask(_), .. })).count()
    };
    assert_eq!(put_off(700, 2), 1, "somebody else is about it");
    assert_eq!((8..30).map(|at| put_off(at * 100, at)).sum::<usize>(), 0);
    it.on_timer(at(1_500), Timer::Ask(who), &mut Fx::default());
    it.on_timer(at(2_400), Timer::Ask(who), &mut Fx::default());
    it.on_timer(at(3_300), Timer::Ask(who), &mut Fx::default());
    it.on_probed(at(4_000), who, &ProbeOutcome::Silent, &mut Fx::default());
    let mut fx = Fx::default();
    it.on_suspect_req(at(4_100), (LinkId(2), &life(1)), request, &mut fx);
    let is_put_off = |it| matches!(it, Effect::SetTimer { timer: Timer::Ask(_), .. });
    assert!(fx.drain().any(is_put_off), "in each round");
}
