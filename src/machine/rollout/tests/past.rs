//! Logs that are lost, old, or too long to be kept; nodes that come later.

use super::*;

#[test]
fn a_node_without_a_log_signs_nothing_before_it_heard_from_all() {
    let table = table(3);
    let mut seat = table.seat(2, Vec::new());
    let mut coordinator = table.seat(0, whole());
    let proposed = proposal(&coordinator.ask(start(&[10_000])));
    let refusal = vote(&seat.hear(0, prepare(&proposed)));
    assert_eq!((refusal.cause, refusal.signed), (Some(AbortCause::Recalling), None));
    let fx = seat.hear(1, Message::DecisionReq(DecisionReq { txid: proposed.txid.clone() }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!() };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (TxEnd::Uncertain, 0));
    assert_eq!(seat.machine.status(Time::ZERO).recalling.len(), 2);
}

/// The node that it asked before may be outside the roster, and no other has seen that name.
#[test]
fn a_node_that_lost_its_log_takes_no_name_twice_and_signs_nothing_about_its_own_past() {
    let table = table(3);
    let mut seat = table.seat(0, Vec::new());
    seat.now.wall = WallTime(60_000);
    for from in [1, 2] {
        seat.is_told(from, &[]);
    }
    // A power cut between the two records leaves it as ignorant as before, and never with an old
    // name.
    let [.., Record::Epoch { epoch: 60 }, Record::Recalled { unsure }] = &seat.records[..] else {
        panic!("{:?}", seat.records)
    };
    assert_eq!(unsure[&name(0)], TxMark { epoch: 59, counter: u64::MAX });
    let txid: TxId = "start-node-a-1-1".parse().unwrap();
    let fx = seat.hear(1, Message::DecisionReq(DecisionReq { txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (TxEnd::Uncertain, 0));
    let proposed = proposal(&seat.ask(start(&[10_000])));
    assert_eq!(proposed.txid.to_string(), "start-node-a-60-1");
}

/// A backup may know less than every member of the roster, while a node outside it knows more.
#[test]
fn an_epoch_is_beyond_the_seconds_of_the_clock() {
    let table = table(3);
    let mut rollout = RolloutMachine::new(
        table.config(0),
        table.keys[0].clone(),
        rng(),
        RolloutMemory::default(),
    );
    let now = Now { mono: Time::ZERO, wall: WallTime(1_796_000_000_000) };
    let mut fx = Fx::default();
    rollout.handle(now, Input::Start, &mut fx);
    let is_it = |it: &Effect| matches!(it, Effect::Persist(Record::Epoch { epoch: 1_796_000_000 }));
    assert!(fx.iter().any(is_it), "{fx:?}");
}

#[test]
fn a_node_without_a_log_serves_nothing_before_it_has_heard_and_caught_up() {
    let table = table(3);
    let past = long_fleet(&table, 3, 100);
    let mut old = table.seat(1, past);
    let mut seat = table.bare_seat(table.config(2), 2, Vec::new());
    let beat = Message::Heartbeat(old.machine.heartbeat());
    assert!(served(&seat.hear(1, beat.clone())).is_none());
    seat.is_told(1, &[]);
    assert!(served(&seat.is_told(0, &[])).is_none(), "one says that there is more");
    let fx = old.hear(2, Message::StateReq(StateReq { from_version: 1 }));
    let [state @ Message::StateResp(_)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!(served(&seat.hear(1, state.clone())), Some(4));
    // If all are at the beginning, or there is a log, nothing is waited for.
    let mut seat = table.bare_seat(table.config(2), 2, Vec::new());
    seat.is_told(1, &[]);
    assert_eq!(served(&seat.is_told(0, &[])), Some(1));
    let memory = RolloutMemory::default();
    let mut again = RolloutMachine::new(table.config(2), table.keys[2].clone(), rng(), memory);
    let mut fx = Fx::default();
    whole().into_iter().for_each(|it| again.memory.replay(it));
    again.handle(Now::default(), Input::Start, &mut fx);
    again.handle(Now::default(), Input::Synced { records: 9 }, &mut fx);
    assert_eq!(served(&fx), Some(1));
}

#[test]
fn a_node_begins_nothing_before_all_others_have_told_how_far_it_had_come() {
    let table = table(3);
    let mut seat = table.bare_seat(table.config(0), 0, whole());
    assert!(sent(&seat.ask(start(&[10_000]))).is_empty(), "the order waits");
    seat.is_told(1, &["step-node-a-1-9"]);
    let fx = seat.is_told(2, &["step-node-a-2-0"]);
    assert_eq!(proposal(&fx).txid.to_string(), "start-node-a-2-1", "its log has not forgotten it");
    // With another node away it refuses the order in time, and votes meanwhile.
    let mut seat = table.bare_seat(table.config(0), 0, whole());
    seat.ask(start(&[10_000]));
    seat.is_told(1, &[]);
    let proposed = proposal(&table.seat(1, whole()).ask(start(&[10_000])));
    assert_eq!(vote(&seat.hear(1, prepare(&proposed))).vote, Choice::Commit);
    let mut seat = table.bare_seat(table.config(0), 0, whole());
    seat.ask(start(&[10_000]));
    let fx = seat.tell(Input::Expired(Timer::Orders));
    let Some(CommandResult::Refused { cause: AbortCause::Recalling, reason, .. }) = answer(&fx)
    else {
        panic!("{fx:?}")
    };
    assert!(reason.contains("node-b, node-c"), "{reason}");
}

#[test]
fn a_log_from_a_backup_takes_no_name_twice_and_signs_nothing_about_what_it_forgot() {
    let table = table(3);
    let mut seat = table.bare_seat(table.config(0), 0, whole());
    seat.ask(start(&[10_000]));
    let fx = seat.is_told(1, &["abort-node-a-7-2", "step-node-c-4-4"]);
    let rewound = Effect::Emit(Event::Rewound { by: name(1) });
    assert!(fx.contains(&rewound), "{fx:?}");
    let proposed =
        TxProposal { txid: "start-node-c-4-1".parse().unwrap(), ..proposal_of(&table, 2) };
    assert_eq!(vote(&seat.hear(2, prepare(&proposed))).signed, None);
    let fx = seat.is_told(2, &[]);
    assert_eq!(proposal(&fx).txid.to_string(), "start-node-a-8-1");
    for txid in ["abort-node-a-7-2", "step-node-a-2-1", "step-node-c-4-4"] {
        let txid: TxId = txid.parse().unwrap();
        let fx = seat.hear(1, Message::DecisionReq(DecisionReq { txid }));
        let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
        assert_eq!((resp.outcome, resp.proof.votes.len()), (TxEnd::Uncertain, 0));
    }
}

/// Returns the log of a fleet of three after `count` transactions; each node keeps `keeping` whole.
fn long_fleet(table: &TestFleet, count: usize, keeping: usize) -> Vec<Record> {
    let mut seats: Vec<_> = (0..3).map(|at| table.seat_keeping(keeping, at, whole())).collect();
    for number in 0..count {
        let command = match number % 4 {
            0 => start(&[500, 10_000]),
            1 => Command::Pause,
            2 => Command::Resume,
            _ => Command::Abort,
        };
        let proposed = proposal(&seats[0].ask(command));
        let first = vote(&seats[1].hear(0, prepare(&proposed)));
        let second = vote(&seats[2].hear(0, prepare(&proposed)));
        seats[0].hear(1, Message::PrepareResp(first));
        let fx = seats[0].hear(2, Message::PrepareResp(second));
        let decision = decision(&fx);
        for seat in &mut seats[1..] {
            seat.hear(0, Message::Decision(Box::new(decision.clone())));
        }
    }
    seats[1].machine.snapshot()
}

#[test]
fn what_is_long_past_is_forgotten_and_who_was_away_leaps_over_it() {
    let table = table(3);
    let past = long_fleet(&table, 31, 5);
    let committed = past.iter().filter(|it| matches!(it, Record::Committed(_)));
    let committed: Vec<_> = committed.collect();
    assert!((5..=8).contains(&committed.len()), "{}", committed.len());
    let mut old = table.seat_keeping(5, 1, past);
    assert_eq!(old.machine.status(Time::ZERO).state.version, 32);
    // A node that has seen nothing of it believes the end without the transactions between.
    let mut late = table.seat(2, whole());
    let fx = old.hear(2, Message::StateReq(StateReq { from_version: 1 }));
    let [state @ Message::StateResp(_)] = sent(&fx)[..] else { panic!("{fx:?}") };
    late.hear(1, state.clone());
    let (there, here) = (old.machine.status(Time::ZERO), late.machine.status(Time::ZERO));
    assert_eq!((here.state, here.progress), (there.state, there.progress));
    // No node signs anything about forgotten transactions.
    let txid: TxId = "start-node-a-2-1".parse().unwrap();
    let fx = old.hear(0, Message::DecisionReq(DecisionReq { txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (TxEnd::Uncertain, 0));
}

#[test]
fn a_pause_that_is_long_past_still_holds_after_a_restart() {
    let table = table(1);
    let mut seat = table.seat_keeping(1, 0, whole());
    seat.ask(start(&[500, 1000, 10_000]));
    seat.ask(Command::Pause);
    seat.ask(Command::Promote { full: false });
    for _ in 0..3 {
        seat.ask(Command::Roster(table.roster.clone()));
    }
    let before = seat.machine.status(Time::ZERO).progress;
    assert_eq!(before.as_ref().map(|it| (it.step, it.phase)), Some((1, Phase::Paused)));
    let again = table.seat_keeping(1, 0, seat.machine.snapshot());
    assert_eq!(again.machine.status(Time::ZERO).progress, before);
}

#[test]
fn nobody_leaps_without_all_votes_and_what_was_leaped_over_in_doubt_is_not_signed() {
    let table = table(3);
    let mut old = table.seat_keeping(5, 1, long_fleet(&table, 31, 5));
    let fx = old.hear(2, Message::StateReq(StateReq { from_version: 1 }));
    let [Message::StateResp(state)] = sent(&fx)[..] else { panic!("{fx:?}") };
    let mut less = state.clone();
    less.committed.iter_mut().for_each(|it| drop(it.proof.votes.pop()));
    let mut late = table.seat(2, whole());
    late.hear(1, Message::StateResp(less));
    assert_eq!(late.machine.status(Time::ZERO).state.version, 1);
    let mut other = table.seat(0, whole());
    let proposed = proposal(&other.ask(start(&[10_000])));
    assert_eq!(vote(&late.hear(0, prepare(&proposed))).vote, Choice::Commit);
    late.hear(1, Message::StateResp(state.clone()));
    assert_eq!(late.machine.status(Time::ZERO).state.version, 32);
    assert_eq!(late.machine.prepared(), None);
    let fx = late.hear(0, Message::DecisionReq(DecisionReq { txid: proposed.txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (TxEnd::Uncertain, 0));
}

/// T7: the joiner begins with the fleet's first roster, follows, and any member may add it.
#[test]
fn a_joiner_catches_up_is_added_and_takes_part_and_one_that_is_removed_knows_it() {
    let all = table(3);
    let two = Roster::new(all.roster.nodes().take(2).cloned().collect()).unwrap();
    let first = |at: usize| Config { roster: two.clone(), ..all.config(at) };
    let mut seats: Vec<_> = (0..3).map(|at| all.seat_of(first(at), at, whole())).collect();
    let proposed = proposal(&seats[0].ask(start(&[500, 10_000])));
    let yes = Message::PrepareResp(vote(&seats[1].hear(0, prepare(&proposed))));
    let told = decision(&seats[0].hear(1, yes));
    seats[1].hear(0, Message::Decision(Box::new(told)));
    // The joiner hears a heartbeat, asks, and follows; it cannot order anything.
    let heartbeat = seats[1].machine.heartbeat();
    let fx = seats[2].hear(1, Message::Heartbeat(heartbeat));
    let [asked @ Message::StateReq(_)] = sent(&fx)[..] else { panic!("{fx:?}") };
    let fx = seats[1].hear(2, asked.clone());
    let [state @ Message::StateResp(_)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!(served(&seats[2].hear(1, state.clone())), Some(2));
    let refused = seats[2].ask(Command::Pause);
    assert!(matches!(
        answer(&refused),
        Some(CommandResult::Refused { cause: AbortCause::Roster, .. })
    ));
    for (roster, voters) in [(&all.roster, [0, 2]), (&two, [0, 2])] {
        let proposed = proposal(&seats[1].ask(Command::Roster(roster.clone())));
        let mut last = Vec::new();
        for at in voters {
            let yes = vote(&seats[at].hear(1, prepare(&proposed)));
            assert_eq!(yes.vote, Choice::Commit, "{}", yes.reason);
            last = seats[1].hear(at, Message::PrepareResp(yes));
        }
        let told = decision(&last);
        assert_eq!(told.proof.votes.len(), 3);
        for at in voters {
            seats[at].hear(1, Message::Decision(Box::new(told.clone())));
            assert_eq!(seats[at].machine.status(Time::ZERO).roster, *roster);
        }
    }
    let refused = seats[2].ask(Command::Pause);
    assert!(matches!(
        answer(&refused),
        Some(CommandResult::Refused { cause: AbortCause::Roster, .. })
    ));
}
