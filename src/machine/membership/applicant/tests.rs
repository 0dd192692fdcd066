//! Lives of an applicant: the incarnation of each attempt, and the ones kept on disk.

use rand::SeedableRng as _;

use super::*;
use crate::machine::Effect;
use crate::machine::membership::seedbook::SeedAddress;
use crate::machine::quorum::QuorumRule;
use crate::model::WallTime;
use crate::model::statement::{ProposalKind, Vote};
use crate::proto::message::Message;

const SEEDS: [SeedId; 2] = [SeedId(1), SeedId(2)];
const ALL_SEEDS: [SeedId; 3] = [SeedId(1), SeedId(2), SeedId(3)];

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), port)
}

fn keys(number: u8) -> KeyPair {
    KeyPair::from_secret([number; 32])
}

fn applicant(records: &[Record]) -> Applicant {
    among(&SEEDS.map(pinned), records)
}

fn pinned(id: SeedId) -> SeedAddress {
    let key = keys(u8::try_from(id.0).unwrap()).public();
    SeedAddress { id, endpoint: endpoint(5000 + id.0), key: Some(key) }
}

fn among(seeds: &[SeedAddress], records: &[Record]) -> Applicant {
    let book = SeedBook::new(QuorumRule::Majority, seeds);
    let me = (endpoint(6001), keys(9));
    Applicant::new(Config::default(), me, book, records, Rng::seed_from_u64(1))
}

fn at(ms: u64) -> Now {
    Now { wall: WallTime(ms), ..Now::default() }
}

/// Links both seeds, so that the applicant asks.
fn link(it: &mut Applicant, fx: &mut Fx) {
    for seed in SEEDS {
        link_one(it, seed, fx);
    }
}

fn link_one(it: &mut Applicant, seed: SeedId, fx: &mut Fx) {
    let life = MemberInstance {
        endpoint: endpoint(5000 + seed.0),
        incarnation: Incarnation(0),
        key: keys(u8::try_from(seed.0).unwrap()).public(),
    };
    let info = NodeInfo { seed: Some(seed), ..NodeInfo::new(life) };
    it.on_seed_link(seed, LinkId(u64::from(seed.0)), &info, fx);
}

/// Makes an attempt that both seeds answer with these refusals, and another one after it.
fn refused(it: &mut Applicant, errors: [ErrorReply; 2], now: Now) -> Incarnation {
    let mut fx = Fx::default();
    link(it, &mut fx);
    for (seed, error) in SEEDS.into_iter().zip(errors) {
        it.on_error(LinkId(u64::from(seed.0)), &error, &mut fx);
    }
    it.on_timer(now, Timer::Retry, &mut fx);
    let kept = fx.drain().filter(|it| matches!(it, Effect::Persist(_))).count();
    assert_eq!(kept, 0, "nothing is kept of a refused life");
    it.subject().incarnation
}

fn ended(floor: u64) -> ErrorReply {
    ErrorReply::new(ErrorCode::Removed, "ended").with_floor(Incarnation(floor))
}

fn ahead(floor: u64) -> ErrorReply {
    ErrorReply::new(ErrorCode::Invalid, "ahead").with_floor(Incarnation(floor))
}

/// The proof that both seeds have admitted it.
fn admission(it: &Applicant) -> Admission {
    let subject = it.subject();
    let vote = |seed: SeedId| {
        let keys = keys(u8::try_from(seed.0).unwrap());
        Vote::sign(ProposalKind::Admit, &[subject], (seed, &keys), WallTime(100))
    };
    let MemberInstance { endpoint, incarnation, key } = subject;
    Admission { endpoint, incarnation, key, votes: SEEDS.map(vote).to_vec() }
}

#[test]
fn a_life_is_kept_when_it_was_admitted_and_not_before() {
    let (mut it, mut fx) = (applicant(&[]), Fx::default());
    it.on_start(at(100), &mut fx);
    link(&mut it, &mut fx);
    assert!(!fx.drain().any(|it| matches!(it, Effect::Persist(_))));
    it.on_commit(admission(&it), &mut fx);
    let first = fx.drain().find(|it| !matches!(it, Effect::StopTimer(_)));
    let expected = Record::Incarnation { incarnation: Incarnation(100) };
    assert!(matches!(first, Some(Effect::Persist(it)) if it == expected), "before it is told");
    assert!(it.snapshot().contains(&expected));
    let mut again = applicant(&it.snapshot());
    again.on_start(at(50), &mut fx);
    assert_eq!(again.subject().incarnation, Incarnation(101), "the clock went back");
}

#[test]
fn an_attempt_is_above_the_highest_floor_that_was_told() {
    let (mut it, mut fx) = (applicant(&[]), Fx::default());
    it.on_start(at(100), &mut fx);
    assert_eq!(refused(&mut it, [ended(700), ended(900)], at(120)), Incarnation(901));
    let busy = || ErrorReply::new(ErrorCode::Busy, "busy");
    assert_eq!(refused(&mut it, [busy(), busy()], at(140)), Incarnation(902));
}

#[test]
fn what_a_clock_that_was_ahead_has_made_is_forgotten() {
    // An earlier program kept the incarnation before any seed had accepted it.
    let (mut it, mut fx) =
        (applicant(&[Record::Incarnation { incarnation: Incarnation(9_000) }]), Fx::default());
    it.on_start(at(8_000), &mut fx);
    assert_eq!(it.subject().incarnation, Incarnation(9_001));
    assert_eq!(refused(&mut it, [ahead(0), ahead(0)], at(100)), Incarnation(100));
    assert_eq!(refused(&mut it, [ended(300), ahead(40)], at(110)), Incarnation(110));
}

#[test]
fn a_lying_seed_spoils_one_attempt_with_a_floor_and_not_the_next() {
    let (mut it, mut fx) = (applicant(&[]), Fx::default());
    it.on_start(at(100), &mut fx);
    let rejected = ErrorReply::new(ErrorCode::Rejected, "lost");
    assert_eq!(refused(&mut it, [ended(u64::MAX - 9), rejected], at(120)).0, u64::MAX - 8);
    assert_eq!(refused(&mut it, [ended(u64::MAX - 2), ahead(0)], at(140)), Incarnation(140));
}

/// The links on which a request goes out.
fn asked(fx: &mut Fx) -> Vec<u64> {
    let link = |effect| {
        if let Effect::Send { link, msg: Message::RegisterReq(_) } = effect {
            Some(link.0)
        } else {
            None
        }
    };
    fx.drain().filter_map(link).collect()
}

#[test]
fn a_seed_that_links_after_the_request_is_asked_and_its_refusal_counts() {
    let (mut it, mut fx) = (among(&ALL_SEEDS.map(pinned), &[]), Fx::default());
    it.on_start(at(100), &mut fx);
    link(&mut it, &mut fx);
    assert_eq!(asked(&mut fx), [1, 2]);
    link_one(&mut it, SeedId(3), &mut fx);
    assert_eq!(asked(&mut fx), [3]);
    for seed in 1..=3 {
        assert_eq!(it.state(), "asking", "seed {seed} may still admit it");
        let busy = ErrorReply::new(ErrorCode::Busy, "busy");
        it.on_error(LinkId(seed), &busy, &mut fx);
    }
    assert_eq!(it.state(), "pausing");
}

#[test]
fn an_attempt_ends_when_the_last_seed_that_has_not_refused_hangs_up() {
    let (mut it, mut fx) = (applicant(&[]), Fx::default());
    it.on_start(at(100), &mut fx);
    link(&mut it, &mut fx);
    it.on_error(LinkId(1), &ended(700), &mut fx);
    it.on_link_down(LinkId(2), &mut fx);
    assert_eq!(it.state(), "pausing");
    it.on_timer(at(120), Timer::Retry, &mut fx);
    assert_eq!(it.subject().incarnation, Incarnation(701));
}

#[test]
fn certificates_of_strangers_do_not_put_off_the_next_call_of_a_seed() {
    // Nobody knows the key of the third: strangers can have it called.
    let third = SeedAddress { id: SeedId(3), endpoint: endpoint(5003), key: None };
    let mut it = among(&[pinned(SEEDS[0]), pinned(SEEDS[1]), third], &[]);
    let mut fx = Fx::default();
    it.on_start(at(100), &mut fx);
    link(&mut it, &mut fx);
    it.on_commit(admission(&it), &mut fx);
    it.on_link_down(LinkId(2), &mut fx);
    it.on_timer(at(2_000), Timer::Reconnect, &mut fx);
    let is_due =
        |it: &Effect<Applicant>| matches!(it, Effect::SetTimer { timer: Timer::Reconnect, .. });
    let failed = |it: &mut Applicant, port| {
        let mut fx = Fx::default();
        it.on_call_failed(endpoint(port), "refused", &mut fx);
        fx.drain().filter(|it| is_due(it)).count()
    };
    assert_eq!(failed(&mut it, 5002) + failed(&mut it, 5003), 1, "none is left to be called");
    for _ in 0..5 {
        it.want_keys([SeedId(3)], &mut Fx::default());
        assert_eq!(failed(&mut it, 5003), 0, "it is due already");
    }
    it.on_timer(at(4_000), Timer::Reconnect, &mut fx);
    assert_eq!(failed(&mut it, 5002) + failed(&mut it, 5003), 1);
}
