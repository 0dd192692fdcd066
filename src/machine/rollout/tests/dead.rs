//! Removal of dead nodes by the seeds' word, with no operator (T12).

use std::collections::BTreeSet;
use std::time::Duration;

use super::gone::{agree_without, catch_up, in_doubt, leaves, members, returns};
use super::*;
use crate::model::PublicKey;

fn keys(table: &TestFleet, of: &[usize]) -> BTreeSet<PublicKey> {
    of.iter().map(|at| table.keys[*at].public()).collect()
}

/// The seeds tell a node that exactly these are dead; ten seconds later it checks.
fn told(table: &TestFleet, seat: &mut TestNode, of: &[usize]) -> Vec<Effect> {
    seat.tell(Input::Extra(ExtraInput::Dead { keys: keys(table, of) }));
    looks(seat, Duration::from_secs(10))
}

/// The node checks after `span`.
fn looks(seat: &mut TestNode, span: Duration) -> Vec<Effect> {
    seat.now.mono = seat.now.mono.after(span);
    seat.tell(Input::Expired(Timer::Dead))
}

fn stays(fx: &[Effect]) -> Vec<&DeadParticipants> {
    let mut found = Vec::new();
    for effect in fx {
        if let Effect::Emit(Event::DeadStay(it)) = effect {
            found.push(it);
        }
    }
    found
}

fn proposes(fx: &[Effect]) -> bool {
    sent(fx).iter().any(|it| matches!(it, Message::PrepareReq(_)))
}

#[test]
fn the_others_go_on_without_one_that_the_seeds_call_dead_and_let_it_in_again() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let fx = told(&table, &mut seats[0], &[2]);
    assert!(!proposes(&fx), "it is in reach");
    leaves(&mut seats, 2);
    assert!(!proposes(&looks(&mut seats[0], Duration::from_secs(9))), "it may only be restarted");
    let fx = looks(&mut seats[0], Duration::from_secs(1));
    let proposed = proposal(&fx);
    let gone = proposed.gone.as_ref().expect("somebody is gone");
    assert_eq!((gone.by, &gone.nodes), (RemovalAuthority::Seeds, &[name(2)].into()));
    // A node that the seeds have not told votes ABORT.
    let no = vote(&seats[1].hear(0, prepare(&proposed)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::NoWord)), "{}", no.reason);
    seats[0].hear(1, Message::PrepareResp(no));
    assert!(!proposes(&looks(&mut seats[0], Duration::ZERO)), "not at once again");
    told(&table, &mut seats[1], &[2]);
    let fx = looks(&mut seats[0], Duration::from_secs(3));
    let told_all = agree_without(&mut seats, 0, &[1], &fx);
    assert_eq!(members(&seats[1]), [name(0), name(1)].into());
    // No dead node is left to remove.
    let fx = looks(&mut seats[1], Duration::from_secs(60));
    assert!(!proposes(&fx) && stays(&fx).is_empty(), "{fx:?}");
    // The removed node is back, learns of it, and is known as one that the seeds removed.
    returns(&table, &mut seats, 2);
    let fx = catch_up(&mut seats, 0, 2);
    let (txid, by) = (told_all.txid, RemovalAuthority::Seeds);
    assert!(fx.contains(&Effect::Emit(Event::Removed { txid: txid.clone(), by })), "{fx:?}");
    let of_serving = |it: &Effect| {
        let Effect::Extra(ExtraEffect::Serve(serving)) = it else { return None };
        serving.removed.clone()
    };
    assert!(fx.iter().filter_map(of_serving).any(|it| it == (txid.clone(), by)));
    let back: Vec<_> = seats[0].machine.returned().map(|it| it.node_id.clone()).collect();
    assert_eq!(back, [name(2)]);
    let gone = seats[0].machine.status(Time::ZERO).gone_by_seeds;
    assert_eq!(gone, [table.roster.get(&name(2)).unwrap().clone()]);
    // The seeds take their word back, and the others let the node in again.
    for seat in &mut seats[..2] {
        told(&table, seat, &[]);
    }
    let fx = seats[0].ask(Command::Roster(table.roster.clone()));
    agree_without(&mut seats, 0, &[1, 2], &fx);
    assert_eq!(seats[2].machine.status(Time::ZERO).removed, None);
    assert_eq!(seats[0].machine.returned().count(), 0);
}

#[test]
fn whom_an_operator_called_gone_is_not_among_those_that_come_back_by_themselves() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    let fx = seats[0].ask(Command::Gone { nodes: [name(2)].into() });
    agree_without(&mut seats, 0, &[1], &fx);
    returns(&table, &mut seats, 2);
    assert_eq!(seats[0].machine.returned().count(), 0);
}

#[test]
fn of_two_parts_of_a_roster_that_outlive_the_rest_one_node_is_in_both() {
    assert!(!table(2).roster.outlives(&[name(1)].into()), "one alone never goes on");
    for count in 3..=5_usize {
        let roster = table(count).roster;
        let lost = |part: usize| -> BTreeSet<NodeId> {
            (0..count).filter(|at| part >> at & 1 == 0).map(name).collect()
        };
        let parts: Vec<_> =
            (0..1_usize << count).filter(|it| roster.outlives(&lost(*it))).collect();
        for one in &parts {
            assert!(parts.iter().all(|other| one & other != 0), "{count} nodes: {one:b}");
        }
        assert_eq!(parts.len() * 2, 1 << count, "of each cut one part goes on");
    }
}

#[test]
fn of_two_halves_that_are_told_that_the_other_is_dead_the_one_with_the_lowest_name_goes_on() {
    let table = table(4);
    let mut seats: Vec<_> = (0..4).map(|at| table.seat(at, whole())).collect();
    for away in [2, 3] {
        for at in [0, 1] {
            seats[at].tell(Input::closed(LinkId(away as u64), ""));
            seats[away].tell(Input::closed(LinkId(at as u64), ""));
        }
    }
    told(&table, &mut seats[1], &[2, 3]);
    told(&table, &mut seats[3], &[0, 1]);
    seats[2].tell(Input::Extra(ExtraInput::Dead { keys: keys(&table, &[0, 1]) }));
    let fx = looks(&mut seats[2], Duration::from_secs(9));
    assert!(stays(&fx).is_empty(), "they may only be restarted");
    let fx = looks(&mut seats[2], Duration::from_secs(1));
    assert!(!proposes(&fx));
    let [stay] = &stays(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((stay.cause, &stay.nodes), (AbortCause::Roster, &[name(0), name(1)].into()));
    assert!(stays(&looks(&mut seats[2], Duration::from_secs(60))).is_empty(), "it is said once");
    assert!(seats[2].machine.status(Time::ZERO).dead_stay.is_some());
    // A removal that is proposed all the same gets no vote.
    seats[2].machine.config.breaks.dead_any_share = true;
    let proposed = proposal(&looks(&mut seats[2], Duration::from_secs(1)));
    let no = vote(&seats[3].hear(2, prepare(&proposed)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::Roster)), "{}", no.reason);
    let fx = told(&table, &mut seats[0], &[2, 3]);
    agree_without(&mut seats, 0, &[1], &fx);
    assert_eq!(members(&seats[1]), [name(0), name(1)].into());
}

#[test]
fn the_lowest_name_proposes_and_another_only_after_a_while() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    assert!(!proposes(&told(&table, &mut seats[1], &[2])));
    assert!(!proposes(&looks(&mut seats[1], Duration::from_secs(5))));
    assert!(proposes(&looks(&mut seats[1], Duration::from_secs(1))));
    // Another voter that is away is named.
    seats[0].tell(Input::closed(LinkId(1), ""));
    let fx = told(&table, &mut seats[0], &[2]);
    let [stay] = &stays(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!(stay.cause, AbortCause::NoVote);
    assert!(stay.reason.contains("node-b"), "{}", stay.reason);
}

#[test]
fn a_word_that_is_taken_back_ends_it() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    told(&table, &mut seats[1], &[2]);
    let fx = seats[1].tell(Input::Extra(ExtraInput::Dead { keys: BTreeSet::new() }));
    assert!(fx.contains(&Effect::StopTimer(Timer::Dead)), "{fx:?}");
    let proposed = proposal(&told(&table, &mut seats[0], &[2]));
    assert_eq!(vote(&seats[1].hear(0, prepare(&proposed))).cause, Some(AbortCause::NoWord));
    // Another machine's key under the same name is not the one that the seeds named.
    let other = KeyPair::generate(&mut rng()).public();
    let fx = seats[1].tell(Input::Extra(ExtraInput::Dead { keys: [other].into() }));
    assert!(
        !fx.iter().any(|it| matches!(it, Effect::SetTimer { timer: Timer::Dead, .. })),
        "{fx:?}"
    );
}

#[test]
fn what_a_dead_coordinator_may_have_decided_is_committed_by_the_seeds_word_too() {
    let table = table(3);
    let (mut seats, proposed) = in_doubt(&table);
    told(&table, &mut seats[1], &[2]);
    let fx = told(&table, &mut seats[0], &[2]);
    let voter = seats[1].hear(0, prepare(&proposal(&fx)));
    let fx = seats[0].hear(1, Message::PrepareResp(vote(&voter)));
    let resolved = |it: &Effect| {
        let Effect::Emit(Event::Resolved { txid, by, .. }) = it else { return None };
        Some((txid.clone(), *by))
    };
    let resolved: Vec<_> = fx.iter().filter_map(resolved).collect();
    assert_eq!(resolved, [(proposed.txid, RemovalAuthority::Seeds)]);
    assert_eq!(seats[0].machine.status(Time::ZERO).state.version, 4);
}

#[test]
fn a_second_death_meanwhile_is_waited_for_and_then_both_are_out() {
    let table = table(5);
    let mut seats: Vec<_> = (0..5).map(|at| table.seat(at, whole())).collect();
    leaves(&mut seats, 4);
    assert!(proposes(&told(&table, &mut seats[0], &[4])));
    leaves(&mut seats, 1);
    seats[0].tell(Input::Expired(Timer::Votes));
    let fx = looks(&mut seats[0], Duration::from_secs(60));
    assert!(!proposes(&fx) && stays(&fx)[0].reason.contains("node-b"), "{fx:?}");
    for at in [2, 3] {
        told(&table, &mut seats[at], &[1, 4]);
    }
    told(&table, &mut seats[0], &[1, 4]);
    let fx = looks(&mut seats[0], Duration::from_secs(10));
    agree_without(&mut seats, 0, &[2, 3], &fx);
    assert_eq!(members(&seats[3]), [name(0), name(2), name(3)].into());
}

#[test]
fn a_doubt_about_the_roster_is_named_once_and_nothing_is_tried_again_and_again() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let two = table.roster.nodes().filter(|it| it.node_id != name(1)).cloned().collect();
    let fx = seats[2].ask(Command::Roster(Roster::new(two).unwrap()));
    let proposed = proposal(&fx);
    for seat in &mut seats[..2] {
        assert_eq!(vote(&seat.hear(2, prepare(&proposed))).vote, Choice::Commit);
    }
    leaves(&mut seats, 2);
    told(&table, &mut seats[1], &[2]);
    let fx = told(&table, &mut seats[0], &[2]);
    let [stay] = &stays(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((stay.cause, stay.running.as_ref()), (AbortCause::InDoubt, Some(&proposed.txid)));
    let records = seats[0].records.len();
    for _ in 0..100 {
        let fx = looks(&mut seats[0], Duration::from_millis(500));
        assert!(!proposes(&fx) && stays(&fx).is_empty(), "{fx:?}");
    }
    assert_eq!(seats[0].records.len(), records);
    // The operator ends the doubt, and the others go on.
    seats[0].ask(Command::Resolve { txid: proposed.txid.clone(), commit: false });
    let fx = seats[1].hear(0, Message::DecisionReq(DecisionReq { txid: proposed.txid.clone() }));
    assert!(!sent(&fx).is_empty());
    seats[1].ask(Command::Resolve { txid: proposed.txid, commit: false });
    let fx = looks(&mut seats[0], Duration::from_secs(30));
    agree_without(&mut seats, 0, &[1], &fx);
}

#[test]
fn an_operator_s_order_goes_before_the_seeds_word() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    assert!(proposes(&told(&table, &mut seats[0], &[2])));
    let fx = seats[0].ask(Command::Gone { nodes: [name(2)].into() });
    let proposed = proposal(&fx);
    assert_eq!(proposed.gone.map(|it| it.by), Some(RemovalAuthority::Operator));
    let aborted = |it: &Effect| {
        matches!(it, Effect::Emit(Event::Aborted(it))
        if it.cause == AbortCause::Busy)
    };
    assert!(fx.iter().any(aborted), "{fx:?}");
}

#[test]
fn whose_word_it_is_belongs_to_what_is_signed_and_an_operator_s_reads_as_before() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    let by_operator = proposal(&seats[0].ask(Command::Gone { nodes: [name(2)].into() }));
    let mut by_seeds = by_operator.clone();
    by_seeds.gone.as_mut().unwrap().by = RemovalAuthority::Seeds;
    assert_ne!(by_operator.digest(), by_seeds.digest());
    let json = serde_json::to_string(&by_operator).unwrap();
    assert!(json.contains(r#""gone":{"nodes":["node-c"]}"#), "{json}");
    let json = serde_json::to_string(&by_seeds).unwrap();
    assert!(json.contains(r#""gone":{"nodes":["node-c"],"by":"seeds"}"#), "{json}");
    assert_eq!(serde_json::from_str::<TxProposal>(&json).unwrap(), by_seeds);
}
