//! Routes, copies, previews, and gates that other systems judge.

use std::time::Duration;

use super::*;

const READY: &str = "http:http://host/ready";

fn start_of(steps: &[u32], change: impl FnOnce(&mut StartOrder)) -> Command {
    let Command::Start(mut order) = start(steps) else { unreachable!() };
    change(&mut order);
    Command::Start(order)
}

/// What a node serves after `fx`.
fn served(fx: &[Effect]) -> ServedState {
    let served = fx.iter().rev().find_map(|it| {
        let Effect::Extra(ExtraEffect::Serve(served)) = it else { return None };
        Some(served.clone())
    });
    served.expect("it serves something else now")
}

fn figures(at: usize, samples: u64, errors: u64, outside: &[(&str, bool)]) -> HealthSnapshot {
    let of = |errors| ModelHealth { samples, errors, ..ModelHealth::default() };
    let models = [("v1".parse().unwrap(), of(0)), ("v2".parse().unwrap(), of(errors))].into();
    let outside = outside.iter().map(|it| (it.0.to_owned(), it.1)).collect();
    HealthSnapshot { node_id: name(at), window_id: String::new(), models, outside }
}

fn held(seat: &TestNode) -> String {
    seat.machine.status(seat.now.mono).held.unwrap_or_default()
}

/// Lets so many seconds pass since the start, and looks whether a step is due.
fn look(seat: &mut TestNode, second: u64) -> Vec<Effect> {
    seat.now.mono = Time::from_micros(second * 1_000_000);
    seat.tell(Input::Expired(Timer::Step))
}

fn proposes(fx: &[Effect]) -> Option<TxKind> {
    sent(fx).into_iter().find_map(|it| match it {
        Message::PrepareReq(it) => Some(it.txid.kind),
        _ => None,
    })
}

#[test]
fn routes_and_copies_are_served_while_the_rollout_lives_and_no_brake_is_on() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let route: Route = "header:X-Team=qa -> canary".parse().unwrap();
    let mirror = Some(Mirror { share: 500, is_unsafe: false });
    let order = start_of(&[5000, 10_000], |order| {
        (order.routes, order.mirror) = (vec![route.clone()], mirror);
    });
    let fx = commit(&mut seats, 0, order);
    let is_routed = |served: &ServedState| {
        let (routes, copies) = (served.routes == [route.clone()], served.mirror == mirror);
        assert_eq!(routes, copies);
        routes
    };
    assert!(is_routed(&served(&fx)));
    assert!(is_routed(&served(&commit(&mut seats, 0, Command::Pause))), "it lives");
    assert!(is_routed(&served(&commit(&mut seats, 0, Command::Resume))));
    // The brake: everything goes to the stable version, by routes too.
    let failing = figures(0, 100, 50, &[]);
    let fx = seats[0].tell(Input::Extra(ExtraInput::Health(failing)));
    assert!(!is_routed(&served(&fx)) && served(&fx).mirror.is_none());
    let braked: Vec<_> = seats.iter().map(|it| it.machine.brake().is_some()).collect();
    assert_eq!(braked, [true, false, false]);
    let fx = commit(&mut seats, 0, Command::Rollback);
    assert!(!is_routed(&served(&fx)), "it is over");
}

#[test]
fn a_preview_gets_no_share_until_it_is_promoted() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let fx = commit(&mut seats, 0, start_of(&[0, 10_000], |order| order.gates.clear()));
    let serving = served(&fx);
    assert_eq!((serving.state.canary_share(), serving.state.version), (0, 2));
    for second in [1, 60, 3600] {
        assert_eq!(proposes(&look(&mut seats[0], second)), None);
    }
    assert!(held(&seats[0]).contains("peer rollout promote"), "{}", held(&seats[0]));
    commit(&mut seats, 0, Command::Promote { full: false });
    assert_eq!(seats[2].machine.present.state().canary_share(), 10_000);
    assert_eq!(proposes(&look(&mut seats[0], 4000)), Some(TxKind::Finish));
}

#[test]
fn figures_from_before_a_preview_say_nothing_of_it() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    seats[0].tell(Input::Extra(ExtraInput::Health(figures(0, 100, 50, &[]))));
    commit(&mut seats, 0, start(&[0, 10_000]));
    assert_eq!(seats[0].machine.status(Time::ZERO).health, None);
}

#[test]
fn a_step_waits_for_the_answer_of_another_system_and_its_no_is_a_rollback() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let order = start_of(&[5000, 10_000], |order| order.gates = vec![READY.parse().unwrap()]);
    let fx = commit(&mut seats, 0, order);
    let outside = served(&fx).outside;
    assert_eq!(outside.gates, [READY.parse::<Gate>().unwrap()]);
    assert_eq!(outside.every, Duration::from_secs(1), "at least that");
    let mut tell = |outside: &[(&str, bool)], second| {
        let health = figures(0, 0, 0, outside);
        let mut fx = seats[0].tell(Input::Extra(ExtraInput::Health(health)));
        fx.extend(look(&mut seats[0], second));
        (proposes(&fx), held(&seats[0]))
    };
    let (proposed, why) = tell(&[], 2);
    assert_eq!(proposed, None);
    assert!(why.contains("no node has an answer to http:http://host/ready"), "{why}");
    assert_eq!(tell(&[(READY, true)], 4).0, Some(TxKind::Step));
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let order = start_of(&[5000, 10_000], |order| order.gates = vec![READY.parse().unwrap()]);
    commit(&mut seats, 0, order);
    // Another node's no counts, however few requests it has.
    let no = Message::HealthSnapshot(figures(1, 0, 0, &[(READY, false)]));
    let fx = seats[0].hear(1, no);
    assert_eq!(proposes(&fx), Some(TxKind::Rollback));
    let fx = agree(&mut seats, 0, &fx);
    assert_eq!(served(&fx).outside, OutsideGates::none(), "it is over");
}
