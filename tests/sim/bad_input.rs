//! Bad input that once did harm, or might have: one test for each, told in a few lines.
//!
//! What random bytes and the fuzzer found by chance is here by intent. `docs/FAULTS.md` lists all
//! kinds of bad input with their answers.

use crate::hostile;

use std::sync::Arc;

use folkmoot::machine::gossip::{self, Gossip};
use folkmoot::machine::membership::authority::{self, Authority, Event, Record};
use folkmoot::machine::membership::seedbook::{SeedAddress, SeedBook};
use folkmoot::machine::overlay::{self, Overlay};
use folkmoot::machine::quorum::QuorumRule;
use folkmoot::machine::{Effect, Effects, LinkId};
use folkmoot::model::entry::{MemberState, RegistryEntry};
use folkmoot::model::statement::{
    Admission, Confirmation, Finding, MemberInstance, NeighborList, ProposalKind, RegisterReq,
    Removal, RemovalReason, Vote,
};
use folkmoot::model::{Endpoint, Incarnation, KeyPair, Now, Rng, SeedId, Time};
use folkmoot::node::{PeerNode, SeedNode};
use folkmoot::proto::gossip::{GossipDigest, GossipMsg, fixed_text as gossip_text};
use folkmoot::proto::hello::{Bye, Intent, SeedKey};
use folkmoot::proto::line::{LINE_BYTES_MAX, encode};
use folkmoot::proto::liveness::{DeadReport, fixed_text as report_text};
use folkmoot::proto::membership::{
    ExplainReq, MemberLine, PeerListResp, RegisterVote, SeedSyncReq, TopologyReq,
};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::{ErrorCode, ErrorReply};
use hostile::cast::{AT, Actor, LIFE, admission, book, votes};
use hostile::stage::Stage;
use rand::SeedableRng as _;

fn now() -> Now {
    Now { mono: Time::from_micros(1_000_000), wall: AT }
}

/// The refusals among what was said.
fn refusals(said: &[Message]) -> Vec<(ErrorCode, String)> {
    let refusal = |msg: &Message| {
        let Message::Error(ErrorReply { code, reason, .. }) = msg else { return None };
        Some((*code, reason.clone()))
    };
    said.iter().filter_map(refusal).collect()
}

#[test]
fn a_certificate_with_more_votes_than_seeds_proves_nothing_and_is_not_kept() {
    let subject = Actor::Peer(2).subject(0);
    let mut bloated = admission(subject);
    bloated.votes = votes(ProposalKind::Admit, subject, &[2, 3, 3, 3]);
    let error = book(true).verify_admission(&bloated).unwrap_err();
    assert_eq!(error.to_string(), "1 votes more than there are seeds");
    assert_eq!(error.unknown, 0, "no key is missing");

    let mut stage = Stage::<SeedNode>::new();
    stage.feed(folkmoot::machine::Input::Start);
    stage.settle(1);
    let from = stage.call_in(Actor::Peer(1), Actor::Peer(1).info(0), Intent::Link, true);
    stage.receive(from, bloated.into());
    assert!(stage.node().authority().registry().get(subject.endpoint).is_none());
    stage.receive(from, admission(subject).into());
    assert!(stage.node().authority().registry().is_alive(&subject));
}

#[test]
fn strangers_that_call_themselves_seeds_do_not_keep_a_peer_from_registering() {
    let mut stage = Stage::<PeerNode>::new();
    stage.feed(folkmoot::machine::Input::Start);
    for seed in 1..=3 {
        stage.call_in(Actor::Seed(seed), Actor::Seed(seed).info(0), Intent::Link, true);
        let mut plain = Actor::Seed(seed).info(0);
        plain.seed = None;
        stage.call_in(Actor::Seed(seed), plain, Intent::Link, true);
    }
    assert_eq!(stage.node().applicant().state(), "connecting");
    stage.settle(0);
    assert_eq!(stage.node().applicant().state(), "member");
}

fn line(peer: u16) -> MemberLine {
    let MemberInstance { endpoint, incarnation, .. } = Actor::Peer(peer).subject(0);
    MemberLine { endpoint, incarnation, status: MemberState::Alive, since: AT, degree: 2 }
}

#[test]
fn a_member_that_answers_as_some_seed_does_not_hold_a_place_in_the_overlay() {
    let mut stage = Stage::<PeerNode>::new();
    stage.feed(folkmoot::machine::Input::Start);
    stage.settle(0);
    let seed = stage.node().applicant().seed_links().next().expect("a seed is linked").1;
    let members = (2..=4).map(line).collect();
    stage.receive(seed, PeerListResp { seed: SeedId(1), members, more: false }.into());
    let called: Vec<_> = stage.dials().iter().map(|(_, to)| *to).collect();
    assert_eq!(called.len(), 3, "all three are called: {called:?}");
    for (ticket, to) in stage.take_dials() {
        let who = Actor::at(to).expect("a peer");
        let mut info = who.info(0);
        info.seed = Some(SeedId(9));
        stage.answer_dial_as(ticket, to, who, info);
    }
    assert!(stage.node().overlay().neighbors().is_empty());
    stage.pass(Time::from_micros(30_000_000));
    let again = stage.dials().iter().filter(|(_, to)| called.contains(to)).count();
    assert!(again > 0, "they are never called again");
}

#[test]
fn a_member_has_one_link_at_a_seed_however_often_it_calls() {
    let mut stage = Stage::<SeedNode>::new();
    stage.feed(folkmoot::machine::Input::Start);
    stage.settle(1);
    for _ in 0..5 {
        stage.call_in(Actor::Peer(1), Actor::Peer(1).info(0), Intent::Link, true);
    }
    let status = stage.node().status();
    let own = status.links.iter().filter(|it| it.endpoint == Actor::Peer(1).endpoint()).count();
    assert_eq!((own, status.members_linked), (1, 1));
}

#[test]
fn nobody_registers_where_nobody_can_be_called() {
    for place in
        ["0.0.0.0:6001", "255.255.255.255:6001", "224.0.0.1:6001", "127.0.0.1:0", "[::]:6001"]
    {
        let mut stage = Stage::<SeedNode>::new();
        stage.feed(folkmoot::machine::Input::Start);
        let mut info = Actor::Peer(1).info(0);
        info.endpoint = place.parse().expect("a place");
        info.certificate = None;
        let link = stage.call_in(Actor::Peer(1), info.clone(), Intent::Link, true);
        stage.receive(link, RegisterReq::sign(info.subject(), Actor::Peer(1).keys()).into());
        let told = refusals(stage.said());
        let is_named = |(code, reason): &(ErrorCode, String)| {
            *code == ErrorCode::Invalid
                && reason.contains("can be called")
                && reason.contains(place)
        };
        assert!(told.iter().any(is_named), "{place}: {told:?}");
        assert_eq!(stage.node().authority().open_cases().0, 0);
    }
}

#[test]
fn a_card_with_votes_or_keys_of_more_seeds_than_there_can_be_is_refused() {
    let key = Actor::Seed(2).keys().public();
    let mut named = Actor::Peer(1).info(0);
    named.seed_keys = vec![SeedKey { seed: SeedId(2), key, at: None }; 65];
    let mut voted = Actor::Peer(1).info(0);
    voted.certificate.as_mut().expect("it has one").votes =
        votes(ProposalKind::Admit, voted.subject(), &[2; 65]);
    for info in [named, voted] {
        let mut stage = Stage::<SeedNode>::new();
        stage.feed(folkmoot::machine::Input::Start);
        stage.call_in(Actor::Peer(1), info, Intent::Link, true);
        let told = refusals(stage.said());
        assert!(told.iter().any(|(_, reason)| reason.contains("at most 64 seeds")), "{told:?}");
    }
}

#[test]
fn a_second_digest_on_a_link_buys_nothing() {
    let mut gossip = Gossip::new(gossip::Config::default(), Actor::Peer(1).endpoint());
    let mut fx = Effects::default();
    let origin = Actor::Peer(2).endpoint();
    gossip.on_link_up(now(), LinkId(1), &mut fx);
    for number in 1..=150 {
        let text = gossip_text(AT, origin, number);
        let incarnation = Incarnation(LIFE);
        let msg = GossipMsg { text, origin, incarnation, number, hops: 0, age_ms: 0 };
        gossip.on_message(now(), LinkId(1), msg, &mut fx);
    }
    gossip.on_link_up(now(), LinkId(2), &mut fx);
    let answers = |gossip: &mut Gossip| {
        let mut fx = Effects::default();
        gossip.on_digest(now(), LinkId(2), &GossipDigest { ids: String::new() }, &mut fx);
        fx.drain().filter(|it| matches!(it, Effect::Send { .. })).count()
    };
    assert_eq!(answers(&mut gossip), 150);
    assert_eq!(answers(&mut gossip), 0);
}

#[test]
fn lists_of_a_lying_seed_do_not_fill_the_memory_of_a_peer() {
    let me = Actor::Peer(1).endpoint();
    let config = overlay::Config::default();
    let mut overlay = Overlay::new(config, me, Rng::seed_from_u64(1));
    for page in 0..50_u8 {
        let line =
            |port| MemberLine { endpoint: Endpoint::new([10, 0, 0, page].into(), port), ..line(2) };
        let list: Vec<_> = (1..=1_000).map(line).collect();
        overlay.on_members(&list, &mut Effects::default());
    }
    assert_eq!(overlay.known_members(), config.known_max);
}

#[test]
fn texts_for_people_are_cut_to_a_modest_length() {
    let long = "é".repeat(5_000);
    for mut msg in [
        Message::from(Bye { reason: long.clone() }),
        ErrorReply::new(ErrorCode::Busy, long.clone()).into(),
        yes_of_seed_2(&long).into(),
    ] {
        msg.shorten_reason();
        let bytes = encode(&msg).len();
        assert!((1_024..2_000).contains(&bytes), "{bytes}");
    }
    let mut short = Message::from(Bye { reason: "leaving".to_owned() });
    short.shorten_reason();
    assert_eq!(short, Bye { reason: "leaving".to_owned() }.into());
}

// At an authority of its own.

/// Seed 1 of three, linked with seed 2, with peers 1 and 2 as members.
fn authority() -> (Authority, LinkId) {
    let entry = |peer| Record::Entry {
        entry: Box::new(RegistryEntry::admitted(admission(Actor::Peer(peer).subject(0)))),
    };
    let me = (SeedId(1), Actor::Seed(1).keys().clone());
    let records = vec![Record::Ready, entry(1), entry(2)];
    let config = authority::Config::default();
    let mut it = Authority::new(config, me, book(true), records, Rng::seed_from_u64(1));
    let link = LinkId(1);
    it.on_seed_link(now(), (SeedId(2), link), &Actor::Seed(2).info(0), &mut Effects::default());
    (it, link)
}

fn yes_of_seed_2(reason: &str) -> RegisterVote {
    let subject = Actor::Peer(3).subject(0);
    let MemberInstance { endpoint, incarnation, key } = subject;
    let vote = votes(ProposalKind::Admit, subject, &[2])[0].clone();
    RegisterVote {
        endpoint,
        incarnation,
        key,
        request: RegisterReq::sign(subject, Actor::Peer(3).keys()).signature,
        seed: SeedId(2),
        yes: true,
        at: vote.at,
        signature: Some(vote.signature),
        reason: reason.to_owned(),
    }
}

#[test]
fn a_vote_that_is_repeated_is_told_to_nobody_again() {
    let (mut authority, link) = authority();
    let mut told = 0;
    for turn in 0..5 {
        let mut fx = Effects::default();
        authority.on_register_vote(now(), link, yes_of_seed_2(&turn.to_string()), &mut fx);
        told += fx.drain().filter(|it| matches!(it, Effect::Emit(Event::Voted { .. }))).count();
    }
    assert_eq!(told, 1);
}

#[test]
fn reporters_that_are_no_members_are_neither_told_of_nor_remembered() {
    let (mut authority, link) = authority();
    let (dead, witness) = (Actor::Peer(1).subject(0), Actor::Peer(2));
    let found =
        Confirmation::sign(&dead, Finding::Silent, (witness.endpoint(), witness.keys()), AT);
    let mut told = |reporter: Endpoint| {
        let report = DeadReport {
            text: report_text(dead.endpoint, AT, reporter),
            endpoint: dead.endpoint,
            incarnation: dead.incarnation,
            reporter,
            at: AT,
            confirmations: vec![found],
        };
        let mut fx = Effects::default();
        let from = Actor::Seed(2).info(0);
        authority.on_dead_report(now(), (link, &from), report, &mut fx);
        fx.drain().filter(|it| matches!(it, Effect::Emit(Event::Reported { .. }))).count()
    };
    for port in 1..=100 {
        assert_eq!(told(Endpoint::new([10, 0, 0, 1].into(), port)), 0);
    }
    assert_eq!(told(witness.endpoint()), 1);
}

/// A seed of the largest fleet of seeds, with 40 hubs whose papers are as long as papers can be.
fn hoarder() -> Authority {
    let keys = Actor::Seed(1).keys();
    let place = |n: u16| {
        Endpoint::new("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().expect("an address"), n)
    };
    let seeds: Vec<_> =
        (1..=64).map(|id| SeedAddress { id: SeedId(id), endpoint: place(id), key: None }).collect();
    let junk = keys.sign(&folkmoot::model::SigningBytes::new("folkmoot/other/1"));
    let at = folkmoot::model::WallTime(u64::MAX);
    let mut records = vec![Record::Ready];
    let mut lists = Vec::new();
    for peer in 1..=40_u16 {
        for life in 1..=5_u64 {
            let (endpoint, key) = (place(20_000 + peer), keys.public());
            let incarnation = Incarnation(u64::MAX - 10 + life);
            let votes: Vec<_> = (1..=64)
                .map(|id| Vote { seed: SeedId(id), at, others: Vec::new(), signature: junk })
                .collect();
            let found = |n| Confirmation {
                endpoint,
                incarnation,
                key,
                finding: Finding::Replaced,
                witness: place(n),
                at,
                signature: junk,
            };
            let confirmations = (30_000..30_256).map(found).collect();
            let admission = Admission { endpoint, incarnation, key, votes: votes.clone() };
            let lives = vec![MemberInstance { endpoint, incarnation, key }];
            let removal = Removal { because: RemovalReason::Death, lives, votes, confirmations };
            let entry = RegistryEntry::admitted(admission);
            // Half of them are still in: those have neighbors.
            if peer % 2 == 0 || life < 5 {
                records.push(Record::Removed { removal: Arc::new(removal) });
            } else if lists.len() < 20 {
                lists.push(entry.subject);
            }
            records.push(Record::Entry { entry: Box::new(entry) });
        }
    }
    let book = SeedBook::new(QuorumRule::Majority, &seeds);
    let me = (SeedId(1), keys.clone());
    let config = authority::Config::default();
    let mut it = Authority::new(config, me, book, records, Rng::seed_from_u64(1));
    for subject in lists {
        let named = (30_000..30_256).map(place).collect();
        let list = NeighborList::sign(&subject, 1, named, keys);
        let info = folkmoot::proto::hello::NodeInfo {
            endpoint: subject.endpoint,
            ..Actor::Peer(1).info(0)
        };
        it.on_neighbors(LinkId(1), &info, list, &mut Effects::default());
    }
    it
}

#[test]
fn the_longest_pages_of_the_largest_fleet_fit_a_line() {
    let authority = hoarder();
    let mut fx: Effects<Authority> = Effects::default();
    let link = LinkId(1);
    authority.on_explain_req(
        link,
        ExplainReq {
            endpoint: "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:20002"
                .parse()
                .expect("an endpoint"),
        },
        &mut fx,
    );
    authority.on_topology_req(link, &TopologyReq::default(), &mut fx);
    authority.on_seed_sync_req(
        link,
        &SeedSyncReq { buckets: (0..=63).collect(), after: None },
        &mut fx,
    );
    let lines: Vec<_> = fx
        .drain()
        .filter_map(|it| if let Effect::Send { msg, .. } = it { Some(msg) } else { None })
        .collect();
    assert_eq!(lines.len(), 3);
    for msg in &lines {
        let bytes = encode(msg).len();
        assert!(bytes <= LINE_BYTES_MAX, "{} has {bytes} bytes", msg.name());
    }
    let Message::TopologyResp(topology) = &lines[1] else { panic!("no topology") };
    assert!(topology.more && topology.nodes.iter().any(|it| it.neighbors.len() == 256));
}

#[test]
fn pages_cut_by_their_size_still_bring_every_entry() {
    let authority = hoarder();
    let (mut found, mut after, mut pages) = (0, None, 0);
    loop {
        let mut fx: Effects<Authority> = Effects::default();
        let request = SeedSyncReq { buckets: (0..=63).collect(), after };
        authority.on_seed_sync_req(LinkId(1), &request, &mut fx);
        let Some(Effect::Send { msg: Message::SeedSyncResp(page), .. }) = fx.drain().next() else {
            panic!("no answer");
        };
        pages += 1;
        found += page.entries.len();
        after = page.entries.last().map(|it| it.subject.endpoint);
        if !page.more {
            break;
        }
        assert!(after.is_some() && pages < 40, "it goes on for ever");
    }
    assert_eq!(found, 40);
    assert!(pages > 2, "{pages} pages");
}

#[test]
fn keys_that_cannot_sign_prove_nothing() {
    let keys: KeyPair = Actor::Peer(1).keys().clone();
    let true_one = RegisterReq::sign(Actor::Peer(1).subject(0), &keys);
    assert!(true_one.is_valid());
    // The neutral point and others of small order, encodings above the prime, and no point.
    for hex in [
        format!("01{}", "00".repeat(31)),
        "00".repeat(32),
        format!("ec{}7f", "ff".repeat(30)),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".to_owned(),
        "ff".repeat(32),
        format!("02{}", "00".repeat(31)),
    ] {
        let key = folkmoot::model::PublicKey::parse(&hex).expect("64 digits");
        for signature in [[0; 64], [0xff; 64], neutral_signature()] {
            let signature = folkmoot::model::Signature::from_bytes(signature);
            let request = RegisterReq { key, signature, ..true_one };
            assert!(!request.is_valid(), "{hex}");
        }
    }
    let short = "ab".repeat(31);
    assert!(folkmoot::model::PublicKey::parse(&short).is_none());
    let unsigned = Admission { votes: Vec::new(), ..admission(Actor::Peer(1).subject(0)) };
    assert!(book(true).verify_admission(&unsigned).is_err());
}

/// The neutral point and zero: with a key of small order it satisfies the unguarded equation.
const fn neutral_signature() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    bytes
}

#[test]
fn a_vote_that_was_forgotten_stays_so_after_a_restart() {
    let (subject, me) = (Actor::Peer(3).subject(0), (SeedId(1), Actor::Seed(1).keys().clone()));
    let vote = Vote::sign(ProposalKind::Evict, &[subject], (me.0, &me.1), AT);
    let voted = Record::Voted { kind: ProposalKind::Evict, lives: vec![subject], vote };
    let born = |records: &[Record]| {
        let (config, rng) = (authority::Config::default(), Rng::seed_from_u64(1));
        Authority::new(config, me.clone(), book(true), records.to_vec(), rng)
    };
    let mut records = vec![voted.clone(), Record::Ready];
    let mut it = born(&records);
    assert!(it.snapshot().contains(&voted));
    let mut fx = Effects::default();
    let day = authority::Config::default().tombstone_ttl.as_millis() as u64;
    let later = Now { wall: folkmoot::model::WallTime(AT.0 + day), ..now() };
    it.on_timer(later, authority::Timer::Digest, &mut fx);
    let kept = fx.drain().filter_map(|effect| {
        if let Effect::Persist(record) = effect { Some(record) } else { None }
    });
    records.extend(kept);
    assert!(!it.snapshot().contains(&voted), "it is old, and about nobody");
    assert_eq!(born(&records).snapshot(), it.snapshot());
}
