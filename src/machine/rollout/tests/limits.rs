//! Impossible numbers, and messages of nodes outside the roster.

use std::collections::BTreeMap;

use super::*;

const EXTREMES: [u64; 4] = [NUMBER_MAX + 1, 1 << 63, u64::MAX - 1, u64::MAX];

fn stranger() -> NodeId {
    "node-x".parse().unwrap()
}

/// A node with a fresh key and a free name links.
fn comes(seat: &mut TestNode, node: NodeId, number: u8) -> LinkId {
    let (link, key) = (LinkId(90 + u64::from(number)), KeyPair::from_secret([number; 32]).public());
    seat.tell(Input::Opened { link, opening: Opening { node, key } });
    link
}

fn is_dropped(fx: &[Effect]) -> bool {
    fx.iter().any(|it| matches!(it, Effect::Emit(Event::Dropped(..))))
}

fn committed(proposal: TxProposal) -> Committed {
    Committed { proposal, proof: TxProof::default() }
}

/// A removal of node-c that settles a transaction of this version.
fn settling(table: &TestFleet, version: u64) -> TxProposal {
    let mut seats = on_the_way(table);
    let step = proposal(&seats[2].ask(Command::Abort));
    leaves_for_good(&mut seats, 2);
    let mut removal = proposal(&seats[0].ask(Command::Gone { nodes: [name(2)].into() }));
    let mut settled = step;
    settled.state.version = version;
    removal.gone.as_mut().unwrap().settles = Some(Box::new(committed(settled)));
    removal
}

fn leaves_for_good(seats: &mut [TestNode], away: usize) {
    for seat in seats.iter_mut() {
        seat.tell(Input::closed(LinkId(away as u64), ""));
    }
}

fn health(number: u64) -> HealthSnapshot {
    let all = ModelHealth {
        samples: number,
        errors: number,
        refused: number,
        cold: number,
        p95_us: number,
        p50_us: number,
        p99_us: number,
        unreached: number,
        answered_5xx: number,
    };
    let models = [("v1".parse().unwrap(), all), ("v2".parse().unwrap(), all)].into();
    HealthSnapshot {
        node_id: name(1),
        window_id: "window-1".to_owned(),
        models,
        outside: Default::default(),
    }
}

/// Each message with `number` in it, one for each place.
fn messages(table: &TestFleet, number: u64) -> Vec<Message> {
    let own = |epoch, counter| TxId { node: name(1), epoch, counter, kind: TxKind::Step };
    let mut proposed = proposal_of(table, 1);
    let fitting = proposed.clone();
    proposed.state.version = number;
    let mut failures = fitting.clone();
    failures.plan.as_mut().unwrap().failures = number;
    let mut samples = fitting.clone();
    samples.plan.as_mut().unwrap().samples_min = number;
    let mut beat = table.seat(1, whole()).machine.heartbeat();
    let plain = beat.clone();
    beat.last_committed_version = number;
    let in_doubt = Heartbeat { in_doubt: Some(own(1, number)), ..plain.clone() };
    let kind = TxKind::Rollback;
    let brake = |course, version| Brake { course, version, kind, reason: String::new() };
    let brakes = [brake(own(number, 1), 1), brake(own(1, 1), number)]
        .map(|it| Message::Heartbeat(Heartbeat { brake: Some(it), ..plain.clone() }));
    let decision = |proposal: TxProposal| {
        let (txid, proof, reason) = (proposal.txid.clone(), TxProof::default(), String::new());
        let proposal = Some(proposal);
        Decision { txid, kind: Choice::Commit, proposal, proof, reason }
    };
    let outcome = |proposal: TxProposal| {
        let (txid, proof) = (proposal.txid.clone(), TxProof::default());
        DecisionResp { txid, outcome: TxEnd::Commit, proposal: Some(proposal), proof }
    };
    let refusal = |txid| PrepareResp {
        txid,
        vote: Choice::Abort,
        reason: String::new(),
        cause: None,
        signed: None,
    };
    let removal = settling(table, number);
    let seen = BTreeMap::from([(name(0), TxMark { epoch: number, counter: 0 })]);
    [
        prepare(&proposed),
        prepare(&failures),
        prepare(&samples),
        prepare(&removal),
        Message::PrepareResp(refusal(own(number, 1))),
        Message::PrepareResp(refusal(own(1, number))),
        Message::Decision(Box::new(decision(proposed.clone()))),
        Message::Decision(Box::new(decision(removal.clone()))),
        Message::DecisionResp(Box::new(outcome(proposed.clone()))),
        Message::DecisionResp(Box::new(outcome(removal.clone()))),
        Message::DecisionReq(DecisionReq { txid: own(number, 1) }),
        Message::DecisionAck(DecisionAck { txid: own(1, number) }),
        Message::Heartbeat(beat),
        Message::Heartbeat(in_doubt),
        Message::HealthSnapshot(health(number)),
        Message::StateReq(StateReq { from_version: number }),
        Message::StateResp(StateResp { committed: vec![committed(proposed)] }),
        Message::StateResp(StateResp { committed: vec![committed(removal)] }),
        Message::RecallResp(RecallResp { question: number, seen }),
    ]
    .into_iter()
    .chain(brakes)
    .collect()
}

#[test]
fn a_stranger_s_numbers_that_nobody_has_do_nothing() {
    let table = table(3);
    for number in EXTREMES {
        for msg in messages(&table, number) {
            let mut seat = table.seat(0, whole());
            let link = comes(&mut seat, stranger(), 1);
            let before = seat.records.len();
            let fx = seat.tell(Input::Received { link, msg: msg.clone() });
            assert!(is_dropped(&fx) && sent(&fx).is_empty(), "{msg:?}: {fx:?}");
            assert_eq!(seat.records.len(), before);
        }
    }
}

#[test]
fn a_member_s_numbers_that_nobody_has_do_nothing_and_the_highest_allowed_break_nothing() {
    let table = table(3);
    for number in EXTREMES {
        for msg in messages(&table, number) {
            let mut seat = table.seat(0, whole());
            let fx = seat.hear(1, msg.clone());
            assert!(is_dropped(&fx) && sent(&fx).is_empty(), "{msg:?}: {fx:?}");
        }
    }
    for msg in messages(&table, NUMBER_MAX) {
        for mut seat in [table.seat(0, whole()), table.bare_seat(table.config(0), 0, Vec::new())] {
            seat.hear(1, msg.clone());
            seat.ask(start(&[500, 10_000]));
        }
    }
}

#[test]
fn a_member_s_epoch_beyond_the_limit_is_not_recalled() {
    let table = table(2);
    for (epoch, records) in [(u64::MAX, 1), (NUMBER_MAX, 3)] {
        let mut seat = table.bare_seat(table.config(0), 0, Vec::new());
        let question = seat.machine.amnesia.as_ref().unwrap().question();
        let seen = BTreeMap::from([(name(0), TxMark { epoch, counter: u64::MAX })]);
        seat.hear(1, Message::RecallResp(RecallResp { question, seen }));
        assert_eq!(seat.records.len(), records, "{epoch}");
    }
}

#[test]
fn counts_that_nobody_has_are_judged_and_shown() {
    let table = table(3);
    for number in [NUMBER_MAX, u64::MAX] {
        let shown = serde_json::to_value(health(number)).unwrap();
        assert_eq!(shown["error_rate"], 1.0);
        for gates in [&["error<=2x"][..], &["4xx<=2x"], &["p99<=2x"], &["connect<=5%"]] {
            let Command::Start(order) = start(&[500, 10_000]) else { unreachable!() };
            let gates = gates.iter().map(|it| it.parse().unwrap()).collect();
            let plan = StartOrder { gates, ..order }.into_plan(name(0), 1);
            let all = health(number);
            assert_eq!(plan.judge(&all, 500), plan.judge_pooled(&[&all, &all], 500));
        }
        let mut seats = on_the_way(&table);
        let fx = seats[0].hear(1, Message::HealthSnapshot(health(number)));
        assert_eq!(is_dropped(&fx), number > NUMBER_MAX);
        serde_json::to_string(&seats[0].machine.status(Time::ZERO).peers).unwrap();
    }
}

#[test]
fn a_log_with_numbers_that_nobody_has_is_read_and_served() {
    let table = table(3);
    let mut proposed = proposal_of(&table, 1);
    proposed.state.version = u64::MAX;
    for epoch in [u64::MAX - 1, u64::MAX] {
        let past = vec![
            Record::Epoch { epoch },
            Record::Recalled { unsure: [(name(0), TxMark { epoch, counter: epoch })].into() },
            Record::Committed(Box::new(committed(proposed.clone()))),
            Record::Committed(Box::new(committed(proposed.clone()))),
            Record::Prepared(Box::new(proposed.clone())),
        ];
        let mut seat = table.seat(0, past);
        assert_eq!(seat.machine.status(Time::ZERO).state.version, u64::MAX);
        seat.ask(Command::Pause);
        for msg in messages(&table, NUMBER_MAX) {
            seat.hear(1, msg);
        }
        let mut blank = table.bare_seat(table.config(0), 0, vec![Record::Epoch { epoch }]);
        blank.is_told(1, &[]);
        blank.is_told(2, &[]);
    }
}

fn splits(fx: &[Effect]) -> usize {
    fx.iter().filter(|it| matches!(it, Effect::Emit(Event::Diverged { .. }))).count()
}

#[test]
fn only_who_takes_part_splits_a_fleet_and_once_a_version() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let beat = |seat: &TestNode, digit: u8, version: u64| {
        let digest = Digest([digit; 32]);
        let last_committed_version = version;
        Message::Heartbeat(Heartbeat { digest, last_committed_version, ..seat.machine.heartbeat() })
    };
    let seat = &mut seats[0];
    let link = comes(seat, stranger(), 1);
    let mut told = (0, 0);
    for digit in 0..100 {
        for version in [2, 1, 2] {
            let msg = beat(seat, digit, version);
            told.0 += splits(&seat.tell(Input::Received { link, msg: msg.clone() }));
            told.1 += splits(&seat.hear(1, msg));
        }
    }
    assert_eq!(told, (0, 1), "of a stranger none, of a member one");
    let mut other = proposal_of(&table, 1);
    other.state.version = 3;
    other.base = Digest([7; 32]);
    let msg = Message::StateResp(StateResp { committed: vec![committed(other)] });
    assert_eq!(splits(&seat.tell(Input::Received { link, msg })), 0);
    // A new link is no new member.
    seat.tell(Input::closed(LinkId(1), ""));
    let (node, key) = (name(1), table.keys[1].public());
    seat.tell(Input::Opened { link: LinkId(1), opening: Opening { node, key } });
    let msg = beat(seat, 200, 2);
    assert_eq!(splits(&seat.hear(1, msg)), 0);
}

#[test]
fn another_roster_is_told_once_a_version() {
    let table = table(2);
    let mut seat = table.seat(0, whole());
    let mut told = 0;
    for digit in 0..50 {
        let roster = Digest([digit; 32]);
        let msg = Message::Heartbeat(Heartbeat { roster, ..seat.machine.heartbeat() });
        let fx = seat.hear(1, msg);
        let is_told = |it: &&Effect| matches!(it, Effect::Emit(Event::OtherRoster { .. }));
        told += fx.iter().filter(is_told).count();
    }
    assert_eq!(told, 1);
}

/// Three nodes of which the third was called gone.
fn without_the_third(table: &TestFleet) -> Vec<TestNode> {
    let mut seats = on_the_way(table);
    leaves_for_good(&mut seats, 2);
    let removal = proposal(&seats[0].ask(Command::Gone { nodes: [name(2)].into() }));
    let yes = vote(&seats[1].hear(0, prepare(&removal)));
    seats[0].hear(1, Message::PrepareResp(yes));
    assert!(!seats[0].machine.roster().has(&name(2)));
    seats
}

#[test]
fn under_the_name_of_one_that_was_called_gone_only_its_key_splits_a_fleet() {
    let table = table(3);
    let mut seats = without_the_third(&table);
    let beat = Heartbeat { digest: Digest([9; 32]), ..seats[0].machine.heartbeat() };
    let link = comes(&mut seats[0], name(2), 5);
    let msg = Message::Heartbeat(beat);
    assert_eq!(splits(&seats[0].tell(Input::Received { link, msg: msg.clone() })), 0, "a liar");
    let (node, key) = (name(2), table.keys[2].public());
    seats[0].tell(Input::Opened { link: LinkId(2), opening: Opening { node, key } });
    assert_eq!(splits(&seats[0].hear(2, msg)), 1, "the one that was called gone");
}

#[test]
fn a_stranger_s_name_is_no_other_key_s_but_that_of_one_that_was_called_gone() {
    let table = table(3);
    let mut seats = without_the_third(&table);
    let seat = &mut seats[0];
    let key = |number| KeyPair::from_secret([number; 32]).public();
    for node in [stranger(), name(2)] {
        let first = comes(seat, node.clone(), 5);
        assert_eq!(seat.machine.stranger(&node), Some((first, key(5))));
        comes(seat, node.clone(), 6);
        assert_eq!(seat.machine.stranger(&node), Some((first, key(5))), "another key");
        let again = LinkId(50);
        seat.tell(Input::Opened {
            link: again,
            opening: Opening { node: node.clone(), key: key(5) },
        });
        assert_eq!(seat.machine.stranger(&node), Some((again, key(5))), "the same key");
    }
    let (node, key) = (name(2), table.keys[2].public());
    let fx =
        seat.tell(Input::Opened { link: LinkId(2), opening: Opening { node: node.clone(), key } });
    assert!(fx.contains(&Effect::Hangup { link: LinkId(50) }), "{fx:?}");
    assert_eq!(seat.machine.stranger(&node), Some((LinkId(2), key)), "it had the name");
    comes(seat, node.clone(), 5);
    assert_eq!(seat.machine.stranger(&node), Some((LinkId(2), key)), "a liar takes it no more");
}
