//! Transactions whose ends are in an order of entries that liars cannot corrupt (T10).

use super::*;
use crate::machine::decision_log::{DecisionAnswer, DecisionEntry, DecisionLog, LogAuthors, ROOM};
use crate::proto::chat::entry::{Body, ChatText, Entry, MemberId, MsgId, Origin, SeqNo, Term};

/// Three nodes that let an order decide; all have voted for a start of the first.
fn voted(table: &TestFleet) -> (Vec<TestNode>, Committed) {
    let ordered = |at| Config { decides: DecisionAuthority::Order, ..table.config(at) };
    let mut seats: Vec<_> = (0..3).map(|at| table.seat_of(ordered(at), at, whole())).collect();
    let proposed = proposal(&seats[0].ask(start(&[10_000])));
    let mut last = Vec::new();
    for at in 1..3 {
        let yes = vote(&seats[at].hear(0, prepare(&proposed)));
        last = seats[0].hear(at, Message::PrepareResp(yes));
    }
    let [(true, Some(whole))] = &asked(&last)[..] else { panic!("{last:?}") };
    assert!(seats.iter().all(|it| it.machine.prepared().is_some()), "the order decides");
    let whole = whole.clone();
    (seats, whole)
}

/// Ends that the order is asked for.
fn asked(fx: &[Effect]) -> Vec<(bool, Option<Committed>)> {
    let asked = fx.iter().filter_map(|it| {
        let Effect::Extra(ExtraEffect::Decide { commit, proof, .. }) = it else { return None };
        Some((*commit, proof.as_deref().cloned()))
    });
    asked.collect()
}

fn decided(txid: &TxId, commit: bool, proof: Option<Committed>) -> Input {
    let (txid, proof) = (txid.clone(), proof.map(Box::new));
    Input::Extra(ExtraInput::Decided { txid, commit, proof })
}

fn version(seat: &TestNode) -> u64 {
    seat.machine.status(Time::ZERO).state.version
}

#[test]
fn a_coordinator_that_shows_two_ends_is_believed_in_neither() {
    let table = table(3);
    let (mut seats, whole) = voted(&table);
    let txid = whole.proposal.txid.clone();
    let commit = Decision {
        txid: txid.clone(),
        kind: Choice::Commit,
        proposal: Some(whole.proposal.clone()),
        proof: whole.proof.clone(),
        reason: String::new(),
    };
    let no = TxVote::abort(&table.keys[0], &name(0), &txid);
    let abort = Decision { kind: Choice::Abort, proof: TxProof::of(vec![no]), ..commit.clone() };
    let fx = seats[1].hear(0, Message::Decision(Box::new(commit)));
    assert_eq!(asked(&fx), [(true, Some(whole.clone()))], "the order is asked");
    let fx = seats[1].hear(0, Message::StateResp(StateResp { committed: vec![whole.clone()] }));
    assert_eq!(asked(&fx).len(), 1, "{fx:?}");
    let fx = seats[2].hear(0, Message::Decision(Box::new(abort)));
    assert_eq!(asked(&fx), [(false, None)], "the order is asked");
    for seat in &seats {
        assert!(seat.machine.prepared().is_some(), "it waits for the order");
        assert_eq!(version(seat), 1);
    }
    // The first entry is the end for all.
    for seat in &mut seats {
        seat.tell(decided(&txid, true, Some(whole.clone())));
        assert!(seat.machine.prepared().is_none() && version(seat) == 2);
        seat.tell(decided(&txid, false, None));
        assert_eq!(version(seat), 2);
    }
    // Who heard it from the order says so to the coordinator, whose word it did not take.
    let (mut seats, whole) = voted(&table);
    let fx = seats[1].tell(decided(&whole.proposal.txid, true, Some(whole.clone())));
    assert!(sent(&fx).iter().any(|it| matches!(it, Message::DecisionAck(_))), "{fx:?}");
    for seat in &mut seats[2..] {
        seat.tell(decided(&whole.proposal.txid, false, None));
        assert!(seat.machine.prepared().is_none() && version(seat) == 1);
    }
}

#[test]
fn an_entry_that_proves_no_commit_and_one_members_word_end_nothing() {
    let table = table(3);
    let (mut seats, whole) = voted(&table);
    let txid = whole.proposal.txid.clone();
    let word = Resolution::new(&table.keys[2], &name(2), &txid, Choice::Commit, WallTime(5));
    let of_one = TxProof { votes: Vec::new(), resolution: Some(word) };
    let few = TxProof::of(whole.proof.votes[1..].to_vec());
    for proof in [of_one, few] {
        let false_one = Committed { proposal: whole.proposal.clone(), proof };
        seats[1].tell(decided(&txid, true, Some(false_one)));
    }
    let other = TxId { counter: txid.counter + 98, ..txid.clone() };
    seats[1].tell(decided(&other, true, Some(whole.clone())));
    seats[1].tell(decided(&other, false, None));
    assert!(seats[1].machine.prepared().is_some() && version(&seats[1]) == 1);
    let fx = seats[1].ask(Command::Resolve { txid: txid.clone(), commit: true });
    let refused = answer(&fx);
    let is_refused =
        matches!(refused, Some(CommandResult::Refused { cause: AbortCause::InDoubt, .. }));
    assert!(is_refused, "{refused:?}");
    // A liar's ABORT of what is to come keeps the coordinator from nothing that is not of that
    // name.
    seats[1].tell(decided(&txid, true, Some(whole)));
    assert_eq!(version(&seats[1]), 2);
    assert!(!seats[1].machine.memory.is_marked(&other));
}

#[test]
fn no_operators_word_settles_what_the_order_ends() {
    let table = table(3);
    let (mut seats, _) = gone::in_doubt(&table);
    let settling = proposal(&seats[0].ask(gone::gone(&[2])));
    assert!(settling.settles().is_some());
    let config = Config { decides: DecisionAuthority::Order, ..table.config(1) };
    let mut seat = table.seat_of(config, 1, gone::past_of(&seats[1]));
    seat.tell(Input::closed(LinkId(2), ""));
    let no = vote(&seat.hear(0, prepare(&settling)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::InDoubt)), "{}", no.reason);
}

fn entry(number: u64, decision: &DecisionEntry) -> Entry {
    let origin = Origin { member: MemberId(1), client: 1 };
    let payload = serde_json::to_string(decision).unwrap().into();
    let chat = ChatText { msg_id: MsgId { origin, number }, room_id: ROOM.into(), payload };
    let (seq_no, leader, body) = (SeqNo(number), MemberId(1), Body::Chat(chat));
    Entry { seq_no, term: Term(0), leader, time: WallTime(0), body }
}

#[test]
fn a_liar_that_says_ends_without_end_is_looked_at_a_few_times() {
    let (_, whole) = voted(&table(3));
    let txid = whole.proposal.txid.clone();
    let proof = Committed { proof: TxProof::default(), ..whole };
    let said = DecisionEntry { txid, commit: true, proof: Some(Box::new(proof)) };
    let mut log = DecisionLog::of(LogAuthors::MayLie);
    let taken = (1..100).filter(|at| log.on_entry(&entry(*at, &said)).is_some()).count();
    assert_eq!(taken, 4);
    let by_another = Entry { leader: MemberId(2), ..entry(100, &said) };
    assert!(log.on_entry(&by_another).is_some(), "others are heard as before");
    let abort = DecisionEntry { commit: false, proof: None, ..said };
    assert!(log.on_entry(&entry(101, &abort)).is_some(), "an end is an end");
}

#[test]
fn where_authors_may_lie_all_entries_up_to_an_abort_may_be_the_end() {
    let (_, whole) = voted(&table(3));
    let txid = whole.proposal.txid.clone();
    let said = |commit, proof: Option<&Committed>| DecisionEntry {
        txid: txid.clone(),
        commit,
        proof: proof.map(|it| Box::new(it.clone())),
    };
    let mut log = DecisionLog::of(LogAuthors::MayLie);
    assert_eq!(log.on_entry(&entry(1, &said(true, None))), None, "it has no proof");
    let mut other = whole.clone();
    other.proposal.txid = "start-node-a-1-99".parse().unwrap();
    assert_eq!(log.on_entry(&entry(2, &said(true, Some(&other)))), None, "of another one");
    let unproved = Committed { proof: TxProof::default(), ..whole.clone() };
    let (first, abort) = (said(true, Some(&unproved)), said(false, None));
    assert_eq!(log.on_entry(&entry(3, &first)), Some(first), "the machine judges it");
    let wanted = said(true, Some(&whole));
    assert_eq!(log.on_wanted(&wanted), DecisionAnswer::Decided(vec![SeqNo(3)]));
    assert_eq!(log.on_wanted(&wanted), DecisionAnswer::Ask, "that one did not hold");
    assert_eq!(log.on_wanted(&wanted), DecisionAnswer::Asked);
    assert_eq!(log.on_entry(&entry(4, &abort)), Some(abort));
    assert_eq!(log.on_entry(&entry(5, &wanted)), None, "it came after the end");
    for _ in 0..2 {
        let both = vec![SeqNo(3), SeqNo(4)];
        assert_eq!(log.on_wanted(&wanted), DecisionAnswer::Decided(both));
    }
}
