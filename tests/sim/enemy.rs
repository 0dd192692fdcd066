//! A lying seed against one honest seed, and against a fleet: what it fills, stretches or dates
//! wrongly must not stop the others, nor part them for good.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at a few messages of many")]

use crate::common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::checkers::removals;
use common::{Fleet, Plan, keys_of, peer_endpoint, seed_endpoint};
use folkmoot::machine::membership::applicant;
use folkmoot::machine::membership::authority::{self, Authority, Config, OperatorOrder, Record};
use folkmoot::machine::membership::registry::Registry;
use folkmoot::machine::{Effect, Effects, LinkId};
use folkmoot::model::entry::{MemberState, RegistryEntry};
use folkmoot::model::statement::{
    Admission, Confirmation, Finding, Leave, MemberInstance, NeighborList, ProposalKind,
    RegisterReq, Removal, RemovalReason, Vote,
};
use folkmoot::model::{Endpoint, Incarnation, Now, Rng, SeedId, Time, WallTime};
use folkmoot::node::{Command, Event, peer_kind, seed_kind};
use folkmoot::proto::hello::NodeInfo;
use folkmoot::proto::line::{LINE_BYTES_MAX, encode};
use folkmoot::proto::membership::{
    ExplainReq, RegisterVote, SeedDeadVote, SeedOrderVote, SeedSyncReq, SeedSyncResp, TopologyReq,
};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::{ErrorCode, ErrorReply};
use folkmoot::sim::{TamperedMessage, for_each_seed};
use rand::SeedableRng as _;

/// A moment of the simulated wall clock, and the links of the two other seeds.
const NOW: Now = Now { mono: Time::ZERO, wall: WallTime(1_772_010_005_000) };
const LIAR: LinkId = LinkId(1);
const HONEST: LinkId = LinkId(3);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn info(endpoint: Endpoint, seed: Option<u16>) -> NodeInfo {
    let (incarnation, key) = (Incarnation(1), keys_of(endpoint).public());
    NodeInfo {
        seed: seed.map(SeedId),
        ..NodeInfo::new(MemberInstance { endpoint, incarnation, key })
    }
}

/// Seed 2 of three, linked with the other two, with what its journal remembers.
fn seed_with(records: Vec<Record>) -> Authority {
    let book = Fleet::new(1, &Plan::default()).book;
    let me = (SeedId(2), keys_of(seed_endpoint(2)));
    let rng = Rng::seed_from_u64(1);
    let records = [records, vec![Record::Ready]].concat();
    let mut seed = Authority::new(Config::default(), me, book, records, rng);
    let fx = &mut Effects::default();
    seed.on_seed_link(NOW, (SeedId(1), LIAR), &info(seed_endpoint(1), Some(1)), fx);
    seed.on_seed_link(NOW, (SeedId(3), HONEST), &info(seed_endpoint(3), Some(3)), fx);
    seed
}

fn life(endpoint: Endpoint, incarnation: u64) -> MemberInstance {
    let (incarnation, key) = (Incarnation(incarnation), keys_of(endpoint).public());
    MemberInstance { endpoint, incarnation, key }
}

/// The yes of seed `number` at `at`, which covers `others` too.
fn vote(
    kind: ProposalKind,
    (lives, others): (&[MemberInstance], &[MemberInstance]),
    number: u16,
    at: WallTime,
) -> Vote {
    let mut covered = [lives, others].concat();
    covered.sort();
    let voter = (SeedId(number), &keys_of(seed_endpoint(number)));
    Vote { others: others.to_vec(), ..Vote::sign(kind, &covered, voter, at) }
}

fn admitted(subject: MemberInstance) -> Record {
    let MemberInstance { endpoint, incarnation, key } = subject;
    let votes = [1, 3].map(|it| vote(ProposalKind::Admit, (&[subject], &[]), it, NOW.wall));
    let admission = Admission { endpoint, incarnation, key, votes: votes.to_vec() };
    Record::Entry { entry: Box::new(RegistryEntry::admitted(admission)) }
}

fn sent(fx: &mut Effects<Authority>) -> Vec<(LinkId, Message)> {
    let message = |effect| match effect {
        Effect::Send { link, msg } => Some((link, msg)),
        _ => None,
    };
    fx.drain().filter_map(message).collect()
}

/// The one message that was sent, and its length as a line.
fn page(fx: &mut Effects<Authority>) -> (Message, usize) {
    let (_, msg) = sent(fx).pop().expect("an answer");
    let length = encode(&msg).len();
    (msg, length)
}

/// Endpoints with the longest names.
fn far(number: u16) -> Endpoint {
    Endpoint::new([0xfd00, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, number].into(), 60_001)
}

/// A removal of `subject` alone, by votes that cover thirty more, with the most evidence.
fn heavy_removal(subject: MemberInstance) -> Removal {
    let others: Vec<_> = (0..31).map(|it| life(far(9_000 + it), 1)).collect();
    let votes = [1, 2, 3];
    let votes = votes.map(|it| vote(ProposalKind::Remove, (&[subject], &others), it, NOW.wall));
    let witness = |number: u16| {
        let witness = far(5_000 + number);
        Confirmation::sign(&subject, Finding::Silent, (witness, &keys_of(witness)), NOW.wall)
    };
    Removal {
        because: RemovalReason::Death,
        lives: vec![subject],
        votes: votes.to_vec(),
        confirmations: (0..256).map(witness).collect(),
    }
}

#[test]
fn pages_of_heavy_certificates_fit_a_line_and_none_is_left_out() {
    let gone: Vec<_> = (0..70).map(|number| life(far(number), 5)).collect();
    let removed = |it: &MemberInstance| Record::Removed { removal: Arc::new(heavy_removal(*it)) };
    let records = gone.iter().flat_map(|it| [admitted(*it), removed(it)]).collect();
    let seed = seed_with(records);
    let (mut after, mut got) = (None, BTreeSet::new());
    loop {
        let fx = &mut Effects::default();
        let request = SeedSyncReq { buckets: (0..64).collect(), after };
        seed.on_seed_sync_req(HONEST, &request, fx);
        let (Message::SeedSyncResp(resp), length) = page(fx) else { panic!("a page") };
        assert!(length <= LINE_BYTES_MAX, "{length} bytes");
        for entry in &resp.entries {
            let is_ended = resp.removals.iter().any(|it| it.ends(&entry.subject));
            assert!(is_ended && got.insert(entry.subject), "once, with its proof");
        }
        after = resp.entries.last().map(|entry| entry.subject.endpoint);
        if !resp.more {
            break;
        }
    }
    assert_eq!(got, gone.into_iter().collect());
}

#[test]
fn the_explanation_of_five_heavy_removals_fits_a_line() {
    let lives: Vec<_> = (1..=5).map(|number| life(far(1), number)).collect();
    let removed = |it: &MemberInstance| Record::Removed { removal: Arc::new(heavy_removal(*it)) };
    let seed = seed_with(lives.iter().flat_map(|it| [admitted(*it), removed(it)]).collect());
    let fx = &mut Effects::default();
    seed.on_explain_req(HONEST, ExplainReq { endpoint: far(1) }, fx);
    let (Message::ExplainResp(answer), length) = page(fx) else { panic!("an answer") };
    assert!(length <= LINE_BYTES_MAX, "{length} bytes");
    assert_eq!(answer.lives.last().map(|entry| entry.subject), lives.last().copied());
    let removal = answer.lives.last().and_then(|entry| entry.removal.clone());
    assert!(!removal.expect("it was removed").confirmations.is_empty(), "with evidence");
}

#[test]
fn a_page_of_hubs_with_long_names_fits_a_line_and_none_is_left_out() {
    let hubs: Vec<_> = (0..70).map(|number| life(far(number), 5)).collect();
    let mut seed = seed_with(hubs.iter().map(|it| admitted(*it)).collect());
    let fx = &mut Effects::default();
    for hub in &hubs {
        let neighbors = (0..256).map(|it| far(20_000 + it)).collect();
        let list = NeighborList::sign(hub, 1, neighbors, &keys_of(hub.endpoint));
        seed.on_neighbors(HONEST, &info(seed_endpoint(3), Some(3)), list, fx);
    }
    let (mut after, mut got) = (None, Vec::new());
    loop {
        let fx = &mut Effects::default();
        seed.on_topology_req(HONEST, &TopologyReq { after }, fx);
        let (Message::TopologyResp(resp), length) = page(fx) else { panic!("a page") };
        assert!(length <= LINE_BYTES_MAX, "{length} bytes");
        assert!(resp.nodes.iter().all(|it| it.neighbors.len() == 256));
        after = resp.nodes.last().map(|node| node.endpoint);
        got.extend(resp.nodes.into_iter().map(|node| node.endpoint));
        if !resp.more {
            break;
        }
    }
    assert_eq!(got, hubs.iter().map(|it| it.endpoint).collect::<Vec<_>>());
}

#[test]
fn one_proof_that_ended_many_is_sent_once_to_whoever_still_accuses_them() {
    let gone: Vec<_> = (0..32).map(|number| life(far(number), 5)).collect();
    let votes = [1, 3].map(|it| vote(ProposalKind::Remove, (&gone, &[]), it, NOW.wall)).to_vec();
    let (because, lives, confirmations) = (RemovalReason::Death, gone.clone(), Vec::new());
    let removal = Arc::new(Removal { because, lives, votes, confirmations });
    let admissions = gone.iter().map(|it| admitted(*it));
    let mut seed = seed_with(admissions.chain([Record::Removed { removal }]).collect());
    let late = SeedDeadVote {
        lives: gone.clone(),
        seed: SeedId(3),
        yes: true,
        at: NOW.wall,
        signature: Some(vote(ProposalKind::Remove, (&gone, &[]), 3, NOW.wall).signature),
        reason: "no answer".to_owned(),
        confirmations: Vec::new(),
    };
    let fx = &mut Effects::default();
    seed.on_seed_dead_vote(NOW, HONEST, &late, fx);
    let sent = sent(fx);
    assert!(matches!(&sent[..], [(HONEST, Message::SeedDeadCommit(_))]), "{}", sent.len());
}

#[test]
fn a_vote_dated_into_the_future_keeps_no_tombstone_for_good() {
    let subject = life(peer_endpoint(1), 5);
    let day = secs(86_400);
    for (honest, liar) in [(NOW.wall, WallTime(u64::MAX)), (NOW.wall, WallTime(0))] {
        let votes = vec![
            vote(ProposalKind::Remove, (&[subject], &[]), 1, liar),
            vote(ProposalKind::Remove, (&[subject], &[]), 3, honest),
        ];
        let (because, lives, confirmations) = (RemovalReason::Death, vec![subject], Vec::new());
        let mut registry = Registry::default();
        registry.merge_removal(&Arc::new(Removal { because, lives, votes, confirmations }));
        let later = WallTime(NOW.wall.0 + 86_400_001);
        assert_eq!(registry.purge(later, day), [(subject.endpoint, subject.incarnation)]);
    }
}

#[test]
fn a_goodbye_that_is_forgotten_at_once_or_never_does_not_come_in_through_a_lying_seed() {
    let subject = life(peer_endpoint(1), 5);
    let hour = 3_600_000;
    let ages = [(NOW.wall.0, false), (24 * hour - 5_000, false), (20 * hour, true), (0, true)];
    let past = ages.map(|(age, is_taken)| (WallTime(NOW.wall.0 - age), is_taken));
    let future = [(WallTime(NOW.wall.0 + 3 * hour), false), (WallTime(u64::MAX), false)];
    for (at, is_taken) in past.into_iter().chain(future) {
        let Record::Entry { entry } = admitted(subject) else { panic!("an entry") };
        let mut seed = seed_with(vec![Record::Entry { entry: entry.clone() }]);
        let leave = Leave::sign(subject, at, &keys_of(subject.endpoint));
        let entries = vec![RegistryEntry { leave: Some(leave), ..*entry }];
        let resp = SeedSyncResp { entries, ..SeedSyncResp::default() };
        seed.on_seed_sync_resp(NOW, LIAR, resp, &mut Effects::default());
        let status = seed.registry().get(subject.endpoint).map(RegistryEntry::status);
        let expected = if is_taken { MemberState::Left } else { MemberState::Alive };
        assert_eq!(status, Some(expected), "a goodbye at {at:?}");
    }
}

#[test]
fn one_seed_fills_neither_the_table_of_admissions_nor_the_memory() {
    let mut seed = seed_with(Vec::new());
    let fx = &mut Effects::default();
    let (liar, honest) = (info(seed_endpoint(1), Some(1)), info(seed_endpoint(3), Some(3)));
    let request = |number: u16| {
        let applicant = life(peer_endpoint(number), 5);
        RegisterReq::sign(applicant, &keys_of(applicant.endpoint))
    };
    let share = u16::try_from(Config::default().admissions_max / 4).unwrap();
    for number in 0..share + 100 {
        seed.on_register_req(NOW, (LIAR, &liar, seed_endpoint(1).ip()), request(number), fx);
    }
    assert_eq!(seed.open_cases().0, usize::from(share));
    let number = share + 100;
    seed.on_register_req(NOW, (HONEST, &honest, seed_endpoint(3).ip()), request(number), fx);
    assert_eq!(seed.open_cases().0, usize::from(share) + 1, "the honest seed's applicant");
    let RegisterReq { endpoint, incarnation, key, signature } = request(0);
    let said = |reason: String| RegisterVote {
        endpoint,
        incarnation,
        key,
        request: signature,
        seed: SeedId(1),
        yes: false,
        at: NOW.wall,
        signature: None,
        reason,
    };
    let refusals = |fx: &mut Effects<Authority>| {
        let is_refusal =
            |it: &Effect<Authority>| matches!(it, Effect::Emit(authority::Event::Refuse { .. }));
        fx.drain().filter(is_refusal).count()
    };
    refusals(fx);
    seed.on_register_vote(NOW, LIAR, said("x".repeat(1_000)), fx);
    assert_eq!(refusals(fx), 0);
    seed.on_register_vote(NOW, LIAR, said("x".repeat(100_000)), fx);
    assert_eq!(refusals(fx), 1);
}

fn order_vote(kind: ProposalKind, subject: MemberInstance, seed: u16) -> SeedOrderVote {
    let Vote { at, signature, .. } = vote(kind, (&[subject], &[]), seed, NOW.wall);
    let MemberInstance { endpoint, incarnation, key } = subject;
    SeedOrderVote { kind, endpoint, incarnation, key, seed: SeedId(seed), at, signature }
}

#[test]
fn one_seed_that_orders_everything_does_not_keep_the_others_orders_out() {
    let victim = life(peer_endpoint(1), 5);
    let mut seed = seed_with(vec![admitted(victim)]);
    let fx = &mut Effects::default();
    for number in 0..400 {
        let nonsense = order_vote(ProposalKind::Ban, life(peer_endpoint(number), u64::MAX), 1);
        seed.on_seed_order_vote(NOW, LIAR, nonsense, fx);
    }
    let proposal = seed.meaning(OperatorOrder::Evict, victim.endpoint).expect("it is a member");
    seed.on_order(NOW, proposal, fx);
    assert!(seed.registry().is_alive(&victim), "one seed is no quorum");
    seed.on_seed_order_vote(NOW, HONEST, order_vote(ProposalKind::Evict, victim, 3), fx);
    assert!(!seed.registry().is_alive(&victim), "two seeds are");
}

#[test]
fn a_member_that_changes_its_key_between_two_orders_is_banned_all_the_same() {
    let now = life(peer_endpoint(1), 9);
    let earlier =
        MemberInstance { key: keys_of(peer_endpoint(2)).public(), ..life(peer_endpoint(1), 5) };
    let mut seed = seed_with(vec![admitted(earlier), admitted(now)]);
    let fx = &mut Effects::default();
    let first = MemberInstance { incarnation: Incarnation(1), ..earlier };
    let unseen = MemberInstance { key: keys_of(peer_endpoint(3)).public(), ..first };
    seed.on_seed_order_vote(NOW, LIAR, order_vote(ProposalKind::Ban, unseen, 1), fx);
    let proposal = seed.meaning(OperatorOrder::Ban, now.endpoint).expect("it may be banned");
    assert_eq!(proposal.subject.key, now.key, "a key that was never seen there is not joined");
    seed.on_seed_order_vote(NOW, HONEST, order_vote(ProposalKind::Ban, first, 3), fx);
    let proposal = seed.meaning(OperatorOrder::Ban, now.endpoint).expect("it may be banned");
    seed.on_order(NOW, proposal, fx);
    assert!(seed.registry().is_banned(&now), "by its endpoint");
    assert!(seed.registry().is_banned(&MemberInstance { endpoint: peer_endpoint(7), ..earlier }));
}

#[test]
fn one_seed_that_refuses_everybody_keeps_nobody_waiting() {
    for_each_seed(10, |seed| {
        let mut fleet = Fleet::new(seed, &Plan { pinned: true, ..Plan::default() });
        for seed in fleet.seeds.clone() {
            fleet.world.boot(seed);
        }
        fleet.world.run_for(secs(3));
        fleet.world.set_tamper(
            fleet.seeds[0],
            Box::new(|_, outgoing: &TamperedMessage<'_>| match outgoing.msg {
                Message::RegisterVote(_) | Message::RegisterCommit(_) => {
                    vec![ErrorReply::new(ErrorCode::Rejected, "a lie").into()]
                }
                other => vec![other.clone()],
            }),
        );
        for peer in fleet.peers.clone() {
            fleet.world.boot(peer);
        }
        fleet.settle(secs(15));
        let is_setback = |event: &Event| {
            matches!(
                event,
                Event::Peer(peer_kind::Event::Applicant(applicant::Event::Refused { .. }))
            )
        };
        let setbacks = fleet.world.events().iter().filter(|(_, _, event)| is_setback(event));
        assert_eq!(setbacks.count(), 0, "everybody gets in at the first attempt");
    });
}

#[test]
fn an_eviction_that_a_quorum_of_operators_wants_comes_about() {
    let mut fleet = Fleet::started(3, &Plan { pinned: true, ..Plan::default() });
    fleet.settle(secs(15));
    let victim = fleet.peers[0];
    let subject = fleet.peer(victim).expect("it is up").applicant().subject();
    for number in [0, 1] {
        let seed = fleet.seeds[number];
        let node = fleet.seed(seed).expect("it is up");
        let proposal = node.authority().meaning(OperatorOrder::Evict, victim).expect("a member");
        assert!(node.authority().registry().is_alive(&subject), "one operator is no quorum");
        fleet.world.command(seed, Command::Seed(seed_kind::Command::Order { proposal }));
        fleet.world.run_for(secs(1));
    }
    fleet.run_until(secs(5), "that life is over everywhere", |fleet| {
        let is_over = |seed: &Endpoint| {
            !fleet.seed(*seed).expect("up").authority().registry().is_alive(&subject)
        };
        fleet.seeds.iter().all(is_over)
    });
}

/// The yes votes that seed `number` has given to end `subject`'s life, by its journal.
fn votes_against(
    fleet: &Fleet,
    number: u16,
    subject: &MemberInstance,
) -> Vec<(Vec<MemberInstance>, Vote)> {
    let is_against = |record: &folkmoot::node::Record| match record {
        folkmoot::node::Record::Seed(Record::Voted { kind, lives, vote }) => {
            let is_one = *kind == ProposalKind::Remove && lives.contains(subject);
            is_one.then(|| (lives.clone(), vote.clone()))
        }
        _ => None,
    };
    fleet.world.records(seed_endpoint(number)).iter().filter_map(is_against).collect()
}

#[test]
fn an_old_yes_to_a_removal_that_came_to_nothing_is_soon_worthless() {
    for_each_seed(5, |seed| {
        let mut plan = Plan { pinned: true, ..Plan::default() };
        plan.peer_config.applicant.renew = secs(20);
        let mut fleet = Fleet::started(seed, &plan);
        fleet.settle(secs(15));
        fleet.world.run_for(secs(3));
        // Seed 2 and all neighbors cannot reach a member that the other two seeds reach.
        let victim = fleet.peers[5];
        let subject = fleet.peer(victim).expect("it is up").applicant().subject();
        let apart: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != victim).collect();
        for other in apart.iter().chain([&fleet.seeds[1]]) {
            fleet.world.cut(victim, *other);
        }
        fleet.run_until(secs(30), "seed 2 gives its yes", |fleet| {
            !votes_against(fleet, 2, &subject).is_empty()
        });
        fleet.world.heal();
        fleet.run_until(secs(90), "another life", |fleet| {
            let node = fleet.peer(victim).expect("it is up").applicant();
            node.subject() != subject && node.admission().is_some()
        });
        let peers = fleet.peers.clone();
        fleet.run_until(secs(20), "everybody is in", |fleet| fleet.all_active(&peers));
        assert_eq!(removals(&fleet), BTreeSet::new(), "nobody was removed");
        // A seed that lies adds its own vote: the certificate is whole, and ends nobody.
        let (lives, old) = votes_against(&fleet, 2, &subject).remove(0);
        let lie = vote(ProposalKind::Remove, (&lives, &[]), 1, fleet.world.wall(fleet.seeds[0]));
        let (because, confirmations) = (RemovalReason::Death, Vec::new());
        let proof = Removal { because, lives, votes: vec![lie, old], confirmations };
        assert_eq!(fleet.book.verify_removal(&proof), Ok(()));
        fleet.world.set_tamper(
            fleet.seeds[0],
            Box::new(move |_, outgoing: &TamperedMessage<'_>| match outgoing.msg {
                Message::SeedDigest(_) | Message::Ping(_) | Message::Pong(_) => {
                    vec![outgoing.msg.clone(), proof.clone().into()]
                }
                other => vec![other.clone()],
            }),
        );
        fleet.world.run_for(secs(15));
        assert!(fleet.all_active(&peers), "in the same lives");
        let is_told = |event: &Event| {
            matches!(
                event,
                Event::Peer(peer_kind::Event::Applicant(applicant::Event::Renews { .. }))
            )
        };
        let told =
            fleet.world.events().iter().filter(|(_, at, event)| *at == victim && is_told(event));
        assert!(told.count() >= 1, "it was told");
    });
}

#[test]
fn a_seed_that_was_away_longer_than_tombstones_last_forgets_those_who_left() {
    for_each_seed(5, |seed| {
        let mut plan = Plan { pinned: true, ..Plan::default() };
        plan.seed_config.authority.tombstone_ttl = secs(10);
        let mut fleet = Fleet::started(seed, &plan);
        fleet.settle(secs(15));
        fleet.world.run_for(secs(3));
        let (away, leaver) = (fleet.seeds[2], fleet.peers[5]);
        fleet.world.crash(away);
        fleet.world.command(leaver, Command::Peer(peer_kind::Command::Leave));
        fleet.world.run_for(secs(2));
        fleet.world.bury(leaver);
        fleet.world.run_for(secs(40));
        let first = fleet.seed(fleet.seeds[0]).expect("it is up");
        assert!(first.authority().registry().get(leaver).is_none(), "forgotten");
        fleet.world.boot(away);
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != leaver).collect();
        fleet.run_until(secs(60), "all seeds agree again", |fleet| fleet.all_seeds_list(&rest));
    });
}
