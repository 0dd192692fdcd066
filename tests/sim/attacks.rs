//! Liars, strangers and replayers: everything they try must leave the membership as it is.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at a few messages of many")]

use crate::common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use common::callers::Callers;
use common::checkers::{check_safety, removals};
use common::{Fleet, Plan, keys_of, peer_endpoint, seed_endpoint};
use folkmoot::machine::{LinkId, NodeMachine as _, liveness};
use folkmoot::model::entry::RegistryEntry;
use folkmoot::model::statement::{
    Admission, Confirmation, Finding, Leave, MemberInstance, NeighborList, ProposalKind,
    RegisterReq, Removal, RemovalReason, Vote,
};
use folkmoot::model::{Endpoint, Incarnation, SeedId, WallTime};
use folkmoot::node::{Event, seed_kind};
use folkmoot::proto::hello::NodeInfo;
use folkmoot::proto::liveness::{DeadReport, SuspectReq, fixed_text};
use folkmoot::proto::membership::{PeerListReq, RegisterVote, SeedDeadVote, SeedSyncResp};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::ErrorCode;
use folkmoot::sim::{IntruderState, TamperedMessage, for_each_seed};

const RUNS: u64 = 10;
const STRANGER: [u8; 4] = [10, 9, 9, 9];

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn settled(seed: u64) -> Fleet {
    let mut fleet = Fleet::started(seed, &Plan { pinned: true, ..Plan::default() });
    fleet.settle(secs(15));
    fleet.world.run_for(secs(3));
    fleet
}

fn subject_of(fleet: &Fleet, peer: Endpoint) -> MemberInstance {
    fleet.peer(peer).expect("it is up").applicant().subject()
}

fn ghost() -> MemberInstance {
    let endpoint = Endpoint::new([10, 9, 9, 9].into(), 1);
    MemberInstance { endpoint, incarnation: Incarnation(1), key: keys_of(endpoint).public() }
}

fn vote(kind: ProposalKind, subject: MemberInstance, seed: u16, signer: Endpoint) -> Vote {
    let at = WallTime(1_772_010_005_000);
    Vote::sign(kind, &[subject], (SeedId(seed), &keys_of(signer)), at)
}

fn admission(subject: MemberInstance, votes: Vec<Vote>) -> Admission {
    let MemberInstance { endpoint, incarnation, key } = subject;
    Admission { endpoint, incarnation, key, votes }
}

fn removal(subject: MemberInstance, votes: Vec<Vote>) -> Removal {
    Removal {
        because: RemovalReason::Death,
        lives: vec![subject],
        votes,
        confirmations: Vec::new(),
    }
}

fn finding(
    about: MemberInstance,
    witness: Endpoint,
    signer: Endpoint,
    at: WallTime,
) -> Confirmation {
    Confirmation::sign(&about, Finding::Silent, (witness, &keys_of(signer)), at)
}

fn report(
    about: MemberInstance,
    reporter: Endpoint,
    at: WallTime,
    found: Vec<Confirmation>,
) -> DeadReport {
    DeadReport {
        text: fixed_text(about.endpoint, at, reporter),
        endpoint: about.endpoint,
        incarnation: about.incarnation,
        reporter,
        at,
        confirmations: found,
    }
}

/// Certificates that prove nothing: one seed's votes, doubled, mislabeled, by strangers, for
/// something else, or none.
fn worthless_votes(kind: ProposalKind, subject: MemberInstance) -> Vec<Vec<Vote>> {
    let liar = seed_endpoint(1);
    let other = match kind {
        ProposalKind::Admit => ProposalKind::Remove,
        ProposalKind::Remove | ProposalKind::Evict | ProposalKind::Ban => ProposalKind::Admit,
    };
    let mine = vote(kind, subject, 1, liar);
    vec![
        vec![],
        vec![mine.clone()],
        vec![mine.clone(), mine.clone()],
        vec![mine.clone(), vote(kind, subject, 2, liar)],
        vec![mine.clone(), vote(kind, subject, 4, seed_endpoint(4))],
        vec![mine, vote(other, subject, 2, seed_endpoint(2))],
        vec![vote(kind, subject, 2, peer_endpoint(2)), vote(kind, subject, 3, peer_endpoint(3))],
    ]
}

/// Lets `liar` send each of `lies`, once, right after an honest message to whom it is for.
fn lie(
    fleet: &mut Fleet,
    liar: Endpoint,
    to: impl Fn(Endpoint) -> bool + Send + 'static,
    lies: Vec<Message>,
) {
    let mut told: BTreeSet<Endpoint> = BTreeSet::new();
    fleet.world.set_tamper(
        liar,
        Box::new(move |_, outgoing: &TamperedMessage<'_>| {
            let mut all = vec![outgoing.msg.clone()];
            // Only on links that are open for sure: behind a ping, its answer or a digest.
            let is_open = matches!(
                outgoing.msg,
                Message::Ping(_) | Message::Pong(_) | Message::SeedDigest(_)
            );
            if let Some(target) = outgoing.to.filter(|target| is_open && to(*target))
                && told.insert(target)
            {
                all.extend(lies.iter().cloned());
            }
            all
        }),
    );
}

fn is_seed(endpoint: Endpoint) -> bool {
    endpoint.port() == 5001
}

fn refusals(fleet: &Fleet) -> usize {
    let is_refusal = |event: &Event| matches!(event, Event::Seed(seed_kind::Event::Refused(_)));
    fleet.world.events().iter().filter(|(_, _, event)| is_refusal(event)).count()
}

/// The fleet is as it was: the same members in the same lives, nobody removed.
fn assert_untouched(fleet: &Fleet) {
    assert!(fleet.all_seeds_list(&fleet.peers), "the members are the same");
    assert!(fleet.all_active(&fleet.peers), "in the same lives");
    assert_eq!(removals(fleet), BTreeSet::new());
    check_safety(fleet);
}

#[test]
fn a_stranger_gets_one_answer_to_each_message_and_changes_nothing() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let victim = subject_of(&fleet, fleet.peers[0]);
        let at = fleet.world.wall(fleet.seeds[0]);
        let liar = Endpoint::new(STRANGER.into(), 6666);
        let request = RegisterReq::sign(ghost(), &keys_of(ghost().endpoint));
        let attempts: Vec<Message> = vec![
            request.into(),
            admission(ghost(), vec![vote(ProposalKind::Admit, ghost(), 1, liar)]).into(),
            removal(victim, vec![vote(ProposalKind::Remove, victim, 1, liar)]).into(),
            report(victim, liar, at, vec![finding(victim, liar, liar, at)]).into(),
            finding(victim, liar, liar, at).into(),
            Leave::sign(victim, at, &keys_of(liar)).into(),
            NeighborList::sign(&victim, 99, vec![liar], &keys_of(liar)).into(),
        ];
        for target in fleet.seeds.clone().into_iter().chain([fleet.peers[0]]) {
            for attempt in &attempts {
                let intruder = fleet.world.intruder_dial(IpAddr::from(STRANGER), target);
                fleet.world.intruder_send(intruder, attempt.clone());
                fleet.world.run_for(secs(1));
                let inbox = fleet.world.intruder_inbox(intruder);
                let [(_, Message::Error(error))] = inbox else {
                    panic!("{} was answered with {inbox:?}", attempt.name());
                };
                assert_eq!(error.code, ErrorCode::NotAllowed, "{}", attempt.name());
            }
        }
        let intruder = fleet.world.intruder_dial(IpAddr::from(STRANGER), fleet.seeds[0]);
        fleet.world.intruder_send(intruder, PeerListReq::default());
        fleet.world.run_for(secs(1));
        let [(_, Message::PeerListResp(page))] = fleet.world.intruder_inbox(intruder) else {
            panic!("a public question gets its answer");
        };
        assert_eq!(page.members.len(), fleet.peers.len());
        assert_untouched(&fleet);
    });
}

#[test]
fn a_silent_or_babbling_stranger_is_hung_up_on() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let target = fleet.seeds[1];
        let silent = fleet.world.intruder_dial(IpAddr::from(STRANGER), target);
        let babbling = fleet.world.intruder_dial(IpAddr::from(STRANGER), target);
        fleet.world.run_for(secs(1));
        for _ in 0..20 {
            fleet.world.intruder_garble(babbling, "expected value at line 1 column 1");
        }
        fleet.world.run_for(secs(1));
        assert_eq!(fleet.world.intruder_state(babbling), IntruderState::Closed);
        assert_eq!(fleet.world.intruder_state(silent), IntruderState::Open, "it has ten seconds");
        fleet.world.run_for(secs(11));
        assert_eq!(fleet.world.intruder_state(silent), IntruderState::Closed);
        assert_untouched(&fleet);
    });
}

#[test]
fn a_thousand_silent_strangers_lock_nobody_out() {
    for_each_seed(3, |seed| {
        let mut fleet = Fleet::new(seed, &Plan::default());
        for endpoint in fleet.seeds.clone() {
            fleet.world.boot(endpoint);
        }
        fleet.world.run_for(secs(2));
        for target in fleet.seeds.clone() {
            for _ in 0..1_000 {
                fleet.world.intruder_dial(IpAddr::from(STRANGER), target);
            }
        }
        for endpoint in fleet.peers.clone() {
            fleet.world.boot(endpoint);
        }
        fleet.settle(secs(20));
    });
}

#[test]
fn half_handshakes_of_one_address_crowd_out_no_other() {
    for_each_seed(3, |seed| {
        let mut fleet = settled(seed);
        let (target, quiet) = (fleet.seeds[0], [192, 0, 2, 7]);
        let newcomer = fleet.world.intruder_dial(IpAddr::from(quiet), target);
        fleet.world.run_for(secs(1));
        for _ in 0..2_000 {
            fleet.world.intruder_dial(IpAddr::from(STRANGER), target);
        }
        fleet.world.run_for(secs(2));
        assert_eq!(fleet.world.intruder_state(newcomer), IntruderState::Open);
        assert_untouched(&fleet);
    });
}

#[test]
fn members_share_no_bound_with_strangers() {
    let mut fleet = settled(1);
    let (seed, peer) = (fleet.seeds[0], fleet.peers[0]);
    let trusted = |fleet: &Fleet, at| {
        let node = fleet.world.machine(at).expect("it is up");
        (1..1_000).filter(|link| node.is_trusted(LinkId(*link))).count()
    };
    let before = [trusted(&fleet, seed), trusted(&fleet, peer)];
    assert!(before[0] >= fleet.peers.len() / 2 && before[1] >= 2, "{before:?}");
    for target in [seed, peer] {
        let stranger = fleet.world.intruder_dial(IpAddr::from(STRANGER), target);
        fleet.world.run_for(secs(1));
        assert_eq!(fleet.world.intruder_state(stranger), IntruderState::Open);
    }
    assert_eq!([trusted(&fleet, seed), trusted(&fleet, peer)], before);
}

#[test]
fn a_lying_member_removes_and_admits_nobody() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let (liar, victim) = (fleet.peers[0], subject_of(&fleet, fleet.peers[5]));
        let others = [fleet.peers[1], fleet.peers[2], fleet.peers[3]];
        let at = fleet.world.wall(liar);
        let mine = finding(victim, liar, liar, at);
        let forged = others.map(|witness| finding(victim, witness, liar, at));
        let mut lies: Vec<Message> = vec![
            report(victim, liar, at, vec![mine]).into(),
            report(victim, liar, at, vec![mine, mine, mine]).into(),
            report(victim, liar, at, [vec![mine], forged.to_vec()].concat()).into(),
            report(victim, others[0], at, vec![mine]).into(),
            DeadReport { text: "Dead Node:x".into(), ..report(victim, liar, at, vec![mine]) }
                .into(),
            mine.into(),
            forged[0].into(),
            Leave::sign(victim, at, &keys_of(liar)).into(),
            NeighborList::sign(&victim, 1_000, vec![liar], &keys_of(liar)).into(),
            RegisterReq::sign(ghost(), &keys_of(ghost().endpoint)).into(),
        ];
        let admit = worthless_votes(ProposalKind::Admit, ghost());
        lies.extend(admit.into_iter().map(|votes| admission(ghost(), votes).into()));
        let remove = worthless_votes(ProposalKind::Remove, victim);
        lies.extend(remove.into_iter().map(|votes| removal(victim, votes).into()));
        // In small doses: a member that offends too often is hung up on.
        for dose in lies.chunks(4) {
            lie(&mut fleet, liar, |_| true, dose.to_vec());
            fleet.world.run_for(secs(12));
        }
        assert!(refusals(&fleet) > 0, "the lies arrived");
        assert!(fleet.all_seeds_list(&fleet.peers), "the members are the same");
        assert_eq!(subject_of(&fleet, victim.endpoint), victim, "in the same life");
        check_safety(&fleet);
    });
}

#[test]
fn neighbors_that_collude_remove_nobody_while_the_seeds_are_honest() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let victim = subject_of(&fleet, fleet.peers[5]);
        let node = fleet.peer(victim.endpoint).expect("it is up");
        let colluders: Vec<_> = node.overlay().neighbors().keys().copied().collect();
        for count in 1..=colluders.len() {
            let at = fleet.world.wall(fleet.seeds[0]);
            let gang = &colluders[..count];
            let found: Vec<_> = gang.iter().map(|it| finding(victim, *it, *it, at)).collect();
            for liar in gang {
                let lies = vec![report(victim, *liar, at, found.clone()).into()];
                lie(&mut fleet, *liar, is_seed, lies);
            }
            fleet.world.run_for(secs(10));
        }
        let reports = fleet.world.events().iter().filter(|(_, _, event)| {
            use folkmoot::machine::membership::authority::Event::Reported;
            matches!(event, Event::Seed(seed_kind::Event::Authority(Reported { .. })))
        });
        assert!(reports.count() > 0, "the seeds took the reports seriously");
        assert_untouched(&fleet);
    });
}

#[test]
fn one_lying_seed_removes_and_admits_nobody() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let (liar, victim) = (fleet.seeds[0], subject_of(&fleet, fleet.peers[5]));
        let at = fleet.world.wall(liar);
        let ghost_request = RegisterReq::sign(ghost(), &keys_of(ghost().endpoint));
        let yes = |seed: u16, signer| SeedDeadVote {
            lives: vec![victim],
            seed: SeedId(seed),
            yes: true,
            at: WallTime(1_772_010_005_000),
            signature: Some(vote(ProposalKind::Remove, victim, seed, signer).signature),
            reason: "a lie".to_owned(),
            confirmations: vec![finding(victim, fleet.peers[0], liar, at)],
        };
        let welcome = RegisterVote {
            endpoint: ghost().endpoint,
            incarnation: ghost().incarnation,
            key: ghost().key,
            request: ghost_request.signature,
            seed: SeedId(1),
            yes: true,
            at: WallTime(1_772_010_005_000),
            signature: Some(vote(ProposalKind::Admit, ghost(), 1, liar).signature),
            reason: "a lie".to_owned(),
        };
        let mut lies: Vec<Message> = vec![
            yes(1, liar).into(),
            yes(1, liar).into(),
            yes(2, liar).into(),
            yes(3, liar).into(),
            ghost_request.into(),
            welcome.clone().into(),
            RegisterVote { seed: SeedId(2), ..welcome }.into(),
        ];
        let admit = worthless_votes(ProposalKind::Admit, ghost());
        let remove = worthless_votes(ProposalKind::Remove, victim);
        for votes in admit {
            let proof = admission(ghost(), votes);
            let entries = vec![RegistryEntry::admitted(proof.clone())];
            let resp = SeedSyncResp { entries, ..SeedSyncResp::default() };
            lies.extend([proof.into(), resp.into()]);
        }
        for votes in remove {
            let proof = removal(victim, votes);
            let proof_again = Arc::new(proof.clone());
            let entries = vec![RegistryEntry::removed(victim, Arc::clone(&proof_again))];
            let resp =
                SeedSyncResp { entries, removals: vec![proof_again], ..SeedSyncResp::default() };
            lies.extend([proof.into(), resp.into()]);
        }
        for dose in lies.chunks(6) {
            lie(&mut fleet, liar, |_| true, dose.to_vec());
            fleet.world.run_for(secs(12));
        }
        assert!(refusals(&fleet) > 0, "the lies arrived");
        assert_untouched(&fleet);
    });
}

#[test]
fn a_report_replayed_after_the_rejoin_does_nothing() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let victim = fleet.peers[5];
        fleet.world.crash(victim);
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != victim).collect();
        fleet.run_until(secs(20), "removed", |fleet| fleet.all_seeds_list(&rest));
        let recorded = fleet.world.events().iter().rev().find_map(|(_, host, event)| match event {
            Event::Peer(folkmoot::node::peer_kind::Event::Liveness(liveness::Event::Report(
                report,
            ))) => Some((*host, report.clone())),
            _ => None,
        });
        let (reporter, report) = recorded.expect("somebody reported");
        fleet.world.restart(victim);
        fleet.settle(secs(20));
        fleet.world.run_for(secs(2));
        let before = removals(&fleet).len();
        lie(&mut fleet, reporter, is_seed, vec![report.into()]);
        fleet.world.run_for(secs(20));
        assert_eq!(removals(&fleet).len(), before);
        assert!(fleet.all_seeds_list(&fleet.peers));
        check_safety(&fleet);
    });
}

#[test]
fn an_endpoint_that_is_alive_cannot_be_registered_under_another_key() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let squatter = Endpoint::new([10, 2, 0, 99].into(), 6001);
        let target = fleet.peers[0];
        let subject = MemberInstance {
            endpoint: target,
            incarnation: Incarnation(u64::MAX / 2),
            key: keys_of(squatter).public(),
        };
        let request = RegisterReq::sign(subject, &keys_of(squatter));
        // Even a lying seed that forwards it gets no second vote.
        lie(&mut fleet, seed_endpoint(1), is_seed, vec![request.into()]);
        fleet.world.run_for(secs(20));
        assert_untouched(&fleet);
    });
}

#[test]
fn a_witness_asked_about_a_wrong_key_convicts_nobody() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let victim = subject_of(&fleet, fleet.peers[5]);
        let wrong = keys_of(ghost().endpoint).public();
        let trick =
            SuspectReq { endpoint: victim.endpoint, incarnation: victim.incarnation, key: wrong };
        lie(&mut fleet, peer_endpoint(1), |to| !is_seed(to), vec![trick.into()]);
        fleet.world.run_for(secs(10));
        // Whatever was signed then is about the wrong key, and worth nothing at the seeds.
        let at = fleet.world.wall(fleet.seeds[0]);
        let tricked = MemberInstance { key: wrong, ..victim };
        let gang: Vec<_> =
            fleet.peers.iter().copied().filter(|it| *it != victim.endpoint).collect();
        let found = gang.iter().map(|it| finding(tricked, *it, *it, at)).collect();
        let lies = vec![report(victim, gang[0], at, found).into()];
        lie(&mut fleet, gang[0], is_seed, lies);
        fleet.world.run_for(secs(12));
        assert_untouched(&fleet);
    });
}

#[test]
fn a_failed_probe_of_a_minute_ago_convicts_nobody_now() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let victim = subject_of(&fleet, fleet.peers[5]);
        let node = fleet.peer(victim.endpoint).expect("it is up");
        let gang: Vec<_> = node.overlay().neighbors().keys().copied().collect();
        let at = fleet.world.wall(fleet.seeds[0]);
        // One liar opens a case just when the victim does not answer for a moment.
        let mine = finding(victim, gang[0], gang[0], at);
        lie(&mut fleet, gang[0], is_seed, vec![report(victim, gang[0], at, vec![mine]).into()]);
        for _ in 0..6 {
            fleet.world.pause(victim.endpoint);
            fleet.world.run_for(Duration::from_millis(1_300));
            fleet.world.resume(victim.endpoint);
            fleet.world.run_for(Duration::from_millis(2_100));
        }
        fleet.world.run_for(secs(9));
        // Later all its neighbors lie; the seeds must look again, and see it alive.
        let at = fleet.world.wall(fleet.seeds[0]);
        let found: Vec<_> = gang.iter().map(|it| finding(victim, *it, *it, at)).collect();
        lie(&mut fleet, gang[1], is_seed, vec![report(victim, gang[1], at, found).into()]);
        fleet.world.run_for(secs(12));
        assert_eq!(subject_of(&fleet, victim.endpoint), victim, "in the same life");
        assert_eq!(removals(&fleet), BTreeSet::new());
    });
}

#[test]
fn a_seed_cannot_say_goodbye_in_a_members_name() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed);
        let victim = fleet.peers[5];
        let subject = MemberInstance {
            endpoint: victim,
            incarnation: Incarnation(u64::MAX),
            key: keys_of(ghost().endpoint).public(),
        };
        let leave = Leave::sign(subject, WallTime(1_772_010_005_000), &keys_of(ghost().endpoint));
        lie(&mut fleet, seed_endpoint(1), |to| !is_seed(to), vec![leave.into()]);
        fleet.world.run_for(secs(20));
        fleet.world.crash(victim);
        fleet.world.run_for(secs(3));
        fleet.world.restart(victim);
        fleet.settle(secs(20));
        fleet.run_until(secs(20), "it has neighbors again", |fleet| {
            fleet.peer(victim).is_some_and(|node| node.overlay().neighbors().len() >= 2)
        });
    });
}

#[test]
fn an_old_certificate_brings_nobody_back_after_the_tombstone_is_gone() {
    for_each_seed(RUNS, |seed| {
        let mut plan = Plan { pinned: true, ..Plan::default() };
        plan.seed_config.authority.tombstone_ttl = secs(10);
        let mut fleet = Fleet::started(seed, &plan);
        fleet.settle(secs(15));
        fleet.world.run_for(secs(3));
        let victim = fleet.peers[5];
        let node = fleet.peer(victim).expect("it is up");
        let proof = node.applicant().admission().expect("it is a member").clone();
        fleet.world.crash(victim);
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != victim).collect();
        fleet.run_until(secs(20), "removed", |fleet| fleet.all_seeds_list(&rest));
        fleet.world.run_for(secs(30));
        for seed in fleet.seeds.clone() {
            let node = fleet.seed(seed).expect("it is up");
            assert!(node.authority().registry().get(victim).is_none(), "the tombstone is gone");
        }
        lie(&mut fleet, rest[0], is_seed, vec![proof.into()]);
        for _ in 0..200 {
            fleet.world.run_for(Duration::from_millis(50));
            assert!(fleet.all_seeds_list(&rest), "it came back");
        }
    });
}

#[test]
fn an_impostor_at_one_seeds_address_keeps_nobody_out() {
    for_each_seed(5, |seed| {
        let mut fleet = Fleet::new(seed, &Plan { pinned: true, ..Plan::default() });
        let [first, second, third] = fleet.seeds[..] else { panic!("three seeds") };
        fleet.world.boot(first);
        fleet.world.boot(second);
        // What answers at the third seed's address introduces itself as somebody else.
        fleet.world.boot(third);
        fleet.world.set_tamper(
            third,
            Box::new(|_, outgoing: &TamperedMessage<'_>| match outgoing.msg {
                Message::HelloAck(ack) => {
                    let mut ack = ack.clone();
                    ack.info.seed = None;
                    vec![ack.into()]
                }
                _ => vec![],
            }),
        );
        fleet.world.run_for(secs(1));
        for peer in fleet.peers.clone() {
            fleet.world.boot(peer);
        }
        let peers = fleet.peers.clone();
        fleet.run_until(secs(60), "two good seeds of three let everybody in", |fleet| {
            fleet.members_at(first) == peers && fleet.members_at(second) == peers
        });
    });
}

/// Seeds lose each other for a while and are then in reach again, all under the calls of strangers
/// whose node info says that they are those seeds, with these digests.
fn seeds_meet_again_under_calls(seed: u64, digests: &[u32]) -> Fleet {
    let mut fleet = settled(seed);
    let seeds = fleet.seeds.clone();
    let mut callers = Callers::new(keys_of(ghost().endpoint));
    let islands: Vec<_> = seeds.iter().map(std::slice::from_ref).collect();
    fleet.world.partition(&islands);
    let is_quorum = |fleet: &Fleet| {
        let reached = |seed: &Endpoint| {
            fleet
                .seed(*seed)
                .is_some_and(|it| it.status().ready && it.status().seeds_connected == 3)
        };
        fleet.seeds.iter().all(reached)
    };
    let calls_of = |fleet: &mut Fleet, callers: &mut Callers| {
        for (at, target) in (1..).zip(&seeds) {
            for claimed in (1..=3).filter(|it| *it != at) {
                let seed = Some(SeedId(claimed));
                let info = NodeInfo {
                    seed,
                    seeds: digests.to_vec(),
                    ..callers.info(seed_endpoint(claimed))
                };
                callers.call(&mut fleet.world, *target, info);
            }
        }
        for _ in 0..10 {
            fleet.world.run_for(Duration::from_millis(15));
            callers.prove(&mut fleet.world);
        }
    };
    for round in 0..300 {
        if round == 150 {
            assert!(!is_quorum(&fleet), "they were cut from each other");
            fleet.world.reunite();
        }
        calls_of(&mut fleet, &mut callers);
        if round > 150 && is_quorum(&fleet) {
            let round = round - 150;
            assert!(round < 40, "they met again only after {round} rounds of calls");
            check_safety(&fleet);
            return fleet;
        }
    }
    panic!("the seeds are still apart\n{}", common::describe(&fleet));
}

#[test]
fn strangers_that_call_as_seeds_do_not_keep_the_seeds_apart() {
    for_each_seed(RUNS, |seed| drop(seeds_meet_again_under_calls(seed, &[])));
}

#[test]
fn a_strangers_list_is_not_said_to_be_a_seeds_and_makes_no_seed_call_it_less() {
    for_each_seed(RUNS, |seed| {
        let fleet = seeds_meet_again_under_calls(seed, &[1, 2]);
        let is_told =
            |event: &Event| matches!(event, Event::Seed(seed_kind::Event::ListsDiffer(_)));
        assert_eq!(fleet.world.events().iter().filter(|(_, _, it)| is_told(it)).count(), 0);
    });
}
