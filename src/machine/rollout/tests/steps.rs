//! Steps of a plan: gates, brakes, orders, probes.

use super::*;

fn failing(at: usize) -> HealthSnapshot {
    let of = |errors| ModelHealth { samples: 100, errors, p95_us: 1, ..ModelHealth::default() };
    let models = [("v1".parse().unwrap(), of(0)), ("v2".parse().unwrap(), of(50))];
    HealthSnapshot {
        node_id: name(at),
        window_id: "window-1".to_owned(),
        models: models.into(),
        outside: Default::default(),
    }
}

fn brake_of(fx: &[Effect]) -> Option<Brake> {
    let found = sent(fx).into_iter().rev().find_map(|it| {
        let Message::Heartbeat(it) = it else { return None };
        Some(it.brake.clone())
    });
    found.flatten()
}

fn is_braked(seat: &TestNode) -> bool {
    seat.machine.status(seat.now.mono).brake.is_some()
}

#[test]
fn a_gate_that_fails_stops_the_canary_at_once_though_a_node_is_dead() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    for seat in &mut seats[..2] {
        seat.tell(Input::closed(LinkId(2), ""));
    }
    // The owner's own figures do not fail: a node that sees the failed gate says so, and others
    // follow.
    let fx = seats[1].tell(Input::Extra(ExtraInput::Health(failing(1))));
    let serving = fx.iter().find_map(|it| {
        let Effect::Extra(ExtraEffect::Serve(serving)) = it else { return None };
        Some(serving)
    });
    let serving = serving.expect("it serves otherwise now");
    assert!(serving.brake.as_ref().is_some_and(|it| it.contains("node-b")), "{serving:?}");
    assert_eq!((serving.state.version, serving.state.canary_share()), (2, 5000), "unchanged");
    let brake = brake_of(&fx).expect("it is told");
    let heartbeat = Message::Heartbeat(seats[1].machine.heartbeat());
    let fx = seats[0].hear(1, heartbeat.clone());
    assert!(fx.contains(&Effect::Emit(Event::Braked(brake))) && is_braked(&seats[0]), "{fx:?}");
    // No transaction that would need the dead node is tried, and no step is taken.
    let fx = seats[0].tell(Input::Expired(Timer::Step));
    assert!(!sent(&fx).iter().any(|it| matches!(it, Message::PrepareReq(_))), "{fx:?}");
    let refused = seats[0].ask(Command::Promote { full: false });
    assert!(matches!(
        answer(&refused),
        Some(CommandResult::Refused { cause: AbortCause::Gate, .. })
    ));
    // The brake outlives a restart.
    let past = [whole(), seats[0].records.clone()].concat();
    assert!(is_braked(&table.seat(0, past)));
    // The dead node is back: it hears of the brake first, and the rollback follows.
    let (link, node, key) = (LinkId(2), name(2), table.keys[2].public());
    seats[0].tell(Input::Opened { link, opening: Opening { node, key } });
    seats[2].hear(1, heartbeat);
    assert!(is_braked(&seats[2]));
    let fx = seats[0].tell(Input::Expired(Timer::Step));
    assert_eq!(proposal(&fx).txid.kind, TxKind::Rollback);
    agree(&mut seats, 0, &fx);
    assert!(seats.iter().all(|it| !is_braked(it) && it.machine.present.version() == 3));
}

#[test]
fn an_order_to_go_back_brakes_and_resume_takes_the_brake_off() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    seats[1].tell(Input::closed(LinkId(2), ""));
    seats[1].ask(Command::Abort);
    let fx = seats[1].tell(Input::Expired(Timer::Votes));
    assert!(matches!(answer(&fx), Some(CommandResult::Aborted { cause: AbortCause::NoVote, .. })));
    let old = seats[1].machine.heartbeat();
    assert_eq!(old.brake.as_ref().map(|it| it.kind), Some(TxKind::Abort));
    let (link, node, key) = (LinkId(2), name(2), table.keys[2].public());
    seats[1].tell(Input::Opened { link, opening: Opening { node, key } });
    // The brake of a node outside the roster counts for nothing.
    let (link, key) = (LinkId(9), KeyPair::from_secret([9; 32]).public());
    let node: NodeId = "zz-stranger".parse().unwrap();
    seats[0].tell(Input::Opened { link, opening: Opening { node: node.clone(), key } });
    seats[0].hear(9, Message::Heartbeat(Heartbeat { node_id: node, ..old.clone() }));
    assert!(!is_braked(&seats[0]));
    seats[0].hear(1, Message::Heartbeat(old.clone()));
    assert!(is_braked(&seats[0]));
    commit(&mut seats, 1, Command::Resume);
    assert!(!is_braked(&seats[0]) && !is_braked(&seats[1]));
    // A brake from before the resume, heard again, is off.
    seats[0].hear(1, Message::Heartbeat(old));
    assert!(!is_braked(&seats[0]));
}

#[test]
fn an_operator_s_order_goes_before_what_is_tried_again_by_itself() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let fx = seats[0].tell(Input::Extra(ExtraInput::Health(failing(0))));
    let automatic = proposal(&fx);
    assert!(!automatic.note.is_empty());
    // At another node the order waits until the end of the transaction is known.
    assert_eq!(vote(&seats[1].hear(0, prepare(&automatic))).vote, Choice::Commit);
    let fx = seats[1].ask(Command::Pause);
    assert!(answer(&fx).is_none() && sent(&fx).is_empty(), "it waits");
    // At the same node the order ends that transaction.
    let fx = seats[0].ask(Command::Pause);
    assert_eq!(proposal(&fx).txid.kind, TxKind::Pause);
    let fx = seats[1].hear(0, Message::Decision(Box::new(decision(&fx))));
    assert_eq!(proposal(&fx).txid.kind, TxKind::Pause, "and then it is begun");
}

#[test]
fn what_lacks_a_vote_is_tried_ever_more_rarely_until_somebody_is_back() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let mut seat = seats.swap_remove(0);
    seat.tell(Input::Extra(ExtraInput::Health(failing(0))));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        seat.tell(Input::Expired(Timer::Votes));
        let (began, pause) = (seat.now.mono, seat.machine.tries.retry_at());
        pauses.push(pause.since(began).as_secs());
        seat.now.mono = pause;
        let fx = seat.tell(Input::Expired(Timer::Step));
        assert_eq!(proposal(&fx).txid.kind, TxKind::Rollback);
    }
    assert!(pauses[0] <= 2 && pauses[3] >= 8, "{pauses:?}");
    assert!(pauses.iter().all(|it| *it <= 20), "{pauses:?}");
}

/// Three nodes with servers of their own for both versions.
fn with_servers(table: &TestFleet, past: &[Record]) -> Vec<TestNode> {
    let models = ["v1", "v2"].map(|it| (it.parse().unwrap(), "0a".to_owned()));
    let config = |at| Config { models: Some(models.clone().into()), ..table.config(at) };
    (0..3).map(|at| table.seat_of(config(at), at, past.to_vec())).collect()
}

fn probed(failure: Option<&str>) -> Input {
    Input::Extra(ExtraInput::Probed {
        model: "v2".parse().unwrap(),
        failure: failure.map(str::to_owned),
    })
}

#[test]
fn a_version_has_to_answer_each_node_before_it_votes_for_it() {
    let table = table(3);
    let mut seats = with_servers(&table, &whole());
    let probe = Effect::Extra(ExtraEffect::Probe("v2".parse().unwrap()));
    let fx = seats[0].ask(start(&[5000, 10_000]));
    assert!(fx.contains(&probe));
    let proposed = proposal(&fx);
    for at in [1, 2] {
        let fx = seats[at].hear(0, prepare(&proposed));
        assert!(fx.contains(&probe) && sent(&fx).is_empty(), "{fx:?}");
        assert!(!seats[at].hear(0, prepare(&proposed)).contains(&probe), "once");
        let yes = vote(&seats[at].tell(probed(None)));
        assert_eq!(yes.vote, Choice::Commit, "{}", yes.reason);
        let fx = seats[0].hear(at, Message::PrepareResp(yes));
        assert!(answer(&fx).is_none(), "its own answer is missing");
    }
    let fx = seats[0].tell(probed(None));
    assert!(matches!(answer(&fx), Some(CommandResult::Committed { .. })));
    // A server that does not answer, at a voter and at the coordinator; the way back needs no
    // answer.
    let mut seats = with_servers(&table, &whole());
    let proposed = proposal(&seats[0].ask(start(&[5000, 10_000])));
    seats[1].hear(0, prepare(&proposed));
    let no = vote(&seats[1].tell(probed(Some("it answers with 503"))));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::Model)));
    assert!(no.signed.is_some() && no.reason.contains("v2 does not answer it"), "{}", no.reason);
    let fx = seats[0].tell(probed(Some("it answers with 503")));
    assert!(matches!(answer(&fx), Some(CommandResult::Aborted { cause: AbortCause::Model, .. })));
    let late = seats[0].tell(probed(None));
    assert!(late.is_empty(), "{late:?}");
    let begun = on_the_way(&table).swap_remove(0).records;
    let mut seats = with_servers(&table, &[whole(), begun].concat());
    let fx = seats[0].ask(Command::Abort);
    assert!(!fx.contains(&probe));
    agree(&mut seats, 0, &fx);
}

#[test]
fn one_without_servers_among_such_that_have_is_named_and_votes_for_no_version() {
    let table = table(3);
    let mut real = with_servers(&table, &whole());
    let mut echo = table.seat(2, whole());
    let beat = Message::Heartbeat(echo.machine.heartbeat());
    let named = Effect::Emit(Event::Echoes { node: name(2) });
    assert!(real[0].hear(2, beat.clone()).contains(&named));
    assert!(!real[0].hear(2, beat).contains(&named), "once");
    let beat = Message::Heartbeat(real[0].machine.heartbeat());
    assert!(echo.hear(0, beat).contains(&named), "itself too");
    let proposed = proposal(&real[0].ask(start(&[10_000])));
    let no = vote(&echo.hear(0, prepare(&proposed)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::Model)));
}

fn start_with(failures: u64, deadline_ms: u64) -> Command {
    let Command::Start(order) = start(&[5000, 10_000]) else { unreachable!() };
    Command::Start(StartOrder { failures, deadline_ms, ..order })
}

#[test]
fn so_many_bad_looks_in_a_row_are_borne() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    commit(&mut seats, 0, start_with(2, 0));
    let mut good = failing(0);
    good.models.values_mut().for_each(|it| it.errors = 0);
    for health in [failing(0), failing(0), good, failing(0), failing(0)] {
        seats[0].tell(Input::Extra(ExtraInput::Health(health)));
        assert!(!is_braked(&seats[0]));
        // Other nodes' figures in between are not counted.
        seats[0].hear(1, Message::HealthSnapshot(failing(1)));
        assert!(!is_braked(&seats[0]));
        let mut good = failing(1);
        good.models.values_mut().for_each(|it| it.errors = 0);
        seats[0].hear(1, Message::HealthSnapshot(good));
    }
    seats[0].tell(Input::Extra(ExtraInput::Health(failing(0))));
    assert!(is_braked(&seats[0]));
}

#[test]
fn a_step_that_is_held_beyond_its_deadline_is_undone() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    commit(&mut seats, 0, start_with(0, 60_000));
    for (second, is_over) in [(1, false), (60, false), (61, true)] {
        seats[0].now.mono = Time::from_micros(second * 1_000_000);
        seats[0].tell(Input::Expired(Timer::Step));
        assert_eq!(is_braked(&seats[0]), is_over, "{second}");
    }
    let brake = seats[0].machine.status(seats[0].now.mono).brake.unwrap();
    assert!(brake.reason.contains("too few requests to judge by"), "{brake:?}");
}

#[test]
fn promoting_takes_a_step_and_leaves_a_pause_as_it_is() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    commit(&mut seats, 0, Command::Pause);
    commit(&mut seats, 1, Command::Promote { full: false });
    let progress = seats[2].machine.status(Time::ZERO).progress.unwrap();
    assert_eq!((progress.step, progress.phase), (1, Phase::Paused));
    commit(&mut seats, 1, Command::Resume);
    assert_eq!(seats[2].machine.status(Time::ZERO).progress.unwrap().phase, Phase::Running);
}
