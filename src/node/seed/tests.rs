//! Attempts of strangers, and of seeds with another list, to mislead a seed about other seeds.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it looks for")]

use super::*;
use crate::machine::Effect;
use crate::machine::membership::seedbook::SeedAddress;
use crate::machine::quorum::QuorumRule;
use crate::machine::session::CallError;
use crate::proto::liveness::Ping;
use crate::proto::membership::{LinkHint, SeedDigest};

const OTHER: SeedId = SeedId(2);

fn endpoint(number: u16) -> Endpoint {
    Endpoint::new([10, 0, 0, 1].into(), 5000 + number)
}

fn keys(number: u16) -> KeyPair {
    KeyPair::from_secret([u8::try_from(number).unwrap(); 32])
}

fn book(numbers: &[u16]) -> SeedBook {
    let address = |number: &u16| SeedAddress {
        id: SeedId(*number),
        endpoint: endpoint(*number),
        key: Some(keys(*number).public()),
    };
    SeedBook::new(QuorumRule::Majority, &numbers.iter().map(address).collect::<Vec<_>>())
}

fn seed() -> SeedNode {
    let (me, rng) = ((SeedId(1), endpoint(1), keys(1)), Rng::seed_from_u64(1));
    SeedNode::new(SeedConfig::default(), me, book(&[1, 2, 3]), Vec::new(), rng)
}

/// The node info of seed 2 with this key and the list of these seeds.
fn info(key: u16, list: &[u16]) -> NodeInfo {
    NodeInfo {
        seed: Some(OTHER),
        endpoint: endpoint(OTHER.0),
        key: keys(key).public(),
        seeds: book(list).digests(),
        ..seed().session.info().clone()
    }
}

/// Lets a link come up, by its number, with this node info.
fn opened(it: &mut SeedNode, link: u64, info: &NodeInfo, dialed: bool) -> Vec<Event> {
    let mut fx = Fx::default();
    it.on_seed_opened(Now::default(), (LinkId(link), OTHER), info, dialed, &mut fx);
    events(fx)
}

fn events(mut fx: Fx) -> Vec<Event> {
    let event = |effect| match effect {
        Effect::Emit(event) => Some(event),
        _ => None,
    };
    fx.drain().filter_map(event).collect()
}

fn lists_differ(events: &[Event]) -> usize {
    events.iter().filter(|it| matches!(it, Event::ListsDiffer(_))).count()
}

/// The pause before the call of seed 2 that a failed one causes; `None` if one is pending.
fn pause(it: &mut SeedNode) -> Option<Duration> {
    let mut fx = Fx::default();
    let (to, intent, error) = (endpoint(OTHER.0), Intent::Link, CallError::Silent);
    it.on_session_event(Now::default(), session::Event::Failed { to, intent, error }, &mut fx);
    fx.drain().find_map(|effect| match effect {
        Effect::SetTimer { timer: Timer::Redial(OTHER), after } => Some(after),
        _ => None,
    })
}

/// Lets the pending call begin.
fn redial(it: &mut SeedNode) {
    it.handle(Now::default(), Input::Expired(Timer::Redial(OTHER)), &mut Fx::default());
}

#[test]
fn a_call_that_is_due_is_not_put_off() {
    let mut it = seed();
    assert!(pause(&mut it).is_some_and(|it| it < REDIAL * 2));
    assert_eq!(pause(&mut it), None, "it is due already");
    redial(&mut it);
    assert!(pause(&mut it).is_some());
}

#[test]
fn what_a_caller_claims_calls_no_seed_later_and_is_said_of_none() {
    let mut it = seed();
    for list in [&[1, 2][..], &[4, 5, 6], &[1, 2, 3]] {
        assert_eq!(lists_differ(&opened(&mut it, 1, &info(9, list), false)), 0, "{list:?}");
    }
    // Another list of as many seeds is no objection, but a warning.
    assert_eq!(lists_differ(&opened(&mut it, 1, &info(9, &[1, 2, 4]), false)), 0);
    let stranger = NodeInfo { seed: None, ..info(9, &[1, 2, 3]) };
    let mut fx = Fx::default();
    it.on_peer_opened(Now::default(), LinkId(1), &stranger, false, &mut fx);
    assert!(fx.drain().all(|it| !matches!(it, Effect::SetTimer { timer: Timer::Redial(_), .. })));
    assert!(pause(&mut it).is_some_and(|it| it < REDIAL * 2));
}

#[test]
fn a_seed_with_another_list_is_called_less_until_its_list_is_the_same() {
    let mut it = seed();
    assert_eq!(lists_differ(&opened(&mut it, 1, &info(2, &[1, 2]), true)), 1);
    assert_eq!(pause(&mut it), None, "it is called again");
    redial(&mut it);
    assert_eq!(lists_differ(&opened(&mut it, 2, &info(2, &[1, 2]), true)), 0, "it was said");
    redial(&mut it);
    assert!(pause(&mut it).is_some_and(|it| it > REDIAL * 2));
    redial(&mut it);

    assert_eq!(lists_differ(&opened(&mut it, 3, &info(2, &[1, 2, 3]), true)), 0);
    assert!(it.authority.linked_seeds().eq([OTHER]));
    // Only what it says as to a seed shows that it agrees.
    let ping = Ping { nonce: 1 };
    it.on_message(Now::default(), LinkId(3), ping.into(), &mut Fx::default());
    assert!(pause(&mut it).is_some_and(|it| it > REDIAL * 2));
    redial(&mut it);
    let (root, buckets) = (String::new(), Vec::new());
    let digest = SeedDigest { entries: 0, root, buckets, answer: false };
    it.on_message(Now::default(), LinkId(3), digest.into(), &mut Fx::default());
    assert!(pause(&mut it).is_some_and(|it| it < REDIAL * 2));
    redial(&mut it);

    assert_eq!(lists_differ(&opened(&mut it, 4, &info(2, &[1, 2]), true)), 1, "once more");
}

#[test]
fn a_seed_that_refuses_this_one_says_so_once_until_it_agrees() {
    let mut it = seed();
    _ = opened(&mut it, 1, &info(2, &[1, 2, 3]), true);
    let no = || ErrorReply::new(ErrorCode::Handshake, "another key");
    let rejections = |it: &mut SeedNode, error: ErrorReply| {
        let (link, mut fx) = (LinkId(1), Fx::default());
        it.on_session_event(Now::default(), session::Event::Error { link, error }, &mut fx);
        events(fx).iter().filter(|it| matches!(it, Event::RejectedBySeed { .. })).count()
    };
    assert_eq!([rejections(&mut it, no()), rejections(&mut it, no())], [1, 0]);
    assert!(pause(&mut it).is_some_and(|it| it > REDIAL * 2));
}

#[test]
fn what_is_for_peers_is_refused() {
    let (mut it, link, mut fx) = (seed(), LinkId(1), Fx::default());
    let (from, binding) = ([10, 0, 0, 2].into(), None);
    let opening = NodeOpening::Accepted { from, binding };
    it.handle(Now::default(), Input::Opened { link, opening }, &mut Fx::default());
    it.on_message(Now::default(), link, LinkHint { endpoint: endpoint(2) }.into(), &mut fx);
    let refused =
        |it: &Event| matches!(it, Event::Refused(it) if it.cause == RejectReason::WrongRole);
    assert!(events(fx).iter().any(refused));
}
