//! Removal of nodes that are gone (T12).

use std::collections::BTreeSet;

use super::*;

pub(super) fn gone(of: &[usize]) -> Command {
    Command::Gone { nodes: of.iter().map(|at| name(*at)).collect() }
}

/// Cuts a node off from all others.
pub(super) fn leaves(seats: &mut [TestNode], away: usize) {
    for at in (0..seats.len()).filter(|it| *it != away) {
        seats[at].tell(Input::closed(LinkId(away as u64), ""));
        seats[away].tell(Input::closed(LinkId(at as u64), ""));
    }
}

/// Links a node with all others again.
pub(super) fn returns(table: &TestFleet, seats: &mut [TestNode], back: usize) {
    for at in (0..seats.len()).filter(|it| *it != back) {
        let link = |of: usize| Input::Opened {
            link: LinkId(of as u64),
            opening: Opening { node: name(of), key: table.keys[of].public() },
        };
        seats[at].tell(link(back));
        seats[back].tell(link(at));
    }
}

/// `voters` vote for the proposal of `by` in `fx` and hear the decision; the rest hears of nothing.
pub(super) fn agree_without(
    seats: &mut [TestNode],
    by: usize,
    voters: &[usize],
    fx: &[Effect],
) -> Decision {
    let proposed = proposal(fx);
    let mut last = Vec::new();
    for at in voters {
        let yes = vote(&seats[*at].hear(by, prepare(&proposed)));
        assert_eq!(yes.vote, Choice::Commit, "{}", yes.reason);
        last = seats[by].hear(*at, Message::PrepareResp(yes));
    }
    let told = decision(&last);
    for at in voters {
        seats[*at].hear(by, Message::Decision(Box::new(told.clone())));
    }
    told
}

/// `to` hears the heartbeat of `from`, and asks it for all that it lacks.
pub(super) fn catch_up(seats: &mut [TestNode], from: usize, to: usize) -> Vec<Effect> {
    let heartbeat = seats[from].machine.heartbeat();
    let fx = seats[to].hear(from, Message::Heartbeat(heartbeat));
    let asked: Vec<_> = sent(&fx).into_iter().cloned().collect();
    let mut all = fx;
    for msg in asked {
        let fx = seats[from].hear(to, msg);
        for answer in sent(&fx) {
            all.extend(seats[to].hear(from, answer.clone()));
        }
    }
    all
}

/// Returns the same node in its next life.
fn restarted(table: &TestFleet, seat: &TestNode, at: usize) -> TestNode {
    table.seat(at, past_of(seat))
}

pub(super) fn past_of(seat: &TestNode) -> Vec<Record> {
    whole().into_iter().chain(seat.records.iter().cloned()).collect()
}

pub(super) fn members(seat: &TestNode) -> BTreeSet<NodeId> {
    seat.machine.roster().nodes().map(|it| it.node_id.clone()).collect()
}

#[test]
fn the_others_go_on_without_one_that_is_gone_and_it_learns_of_it_when_it_is_back() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let fx = seats[0].ask(gone(&[2]));
    let refused = answer(&fx);
    assert!(
        matches!(refused, Some(CommandResult::Refused { cause: AbortCause::Reached, .. })),
        "{refused:?}"
    );
    leaves(&mut seats, 2);
    let fx = seats[0].ask(gone(&[2]));
    let told = agree_without(&mut seats, 0, &[1], &fx);
    assert_eq!(told.proof.votes.len(), 2, "the dead one's vote is not asked for");
    // The others decide by themselves from here on.
    let fx = seats[1].ask(Command::Abort);
    agree_without(&mut seats, 1, &[0], &fx);
    // Meanwhile the gone node serves its last state, and gets no vote.
    returns(&table, &mut seats, 2);
    let proposed = proposal(&seats[2].ask(Command::Pause));
    let fx = seats[0].hear(2, prepare(&proposed));
    assert!(!sent(&fx).iter().any(|it| matches!(it, Message::PrepareResp(_))), "{fx:?}");
    // It catches up, learns of its removal, and decides nothing.
    let fx = catch_up(&mut seats, 0, 2);
    let removed = told.txid.clone();
    assert!(
        fx.contains(&Effect::Emit(Event::Removed {
            txid: removed.clone(),
            by: RemovalAuthority::Operator
        })),
        "{fx:?}"
    );
    let status = seats[2].machine.status(Time::ZERO);
    assert_eq!((status.state.version, status.removed), (4, Some(removed.clone())));
    let fx = seats[2].ask(Command::Pause);
    assert!(matches!(answer(&fx), Some(CommandResult::Refused { cause: AbortCause::Roster, .. })));
    // The removal survives its restart, and the others' status shows it.
    let again = restarted(&table, &seats[2], 2);
    assert_eq!(again.machine.status(Time::ZERO).removed, Some(removed));
    let at_others = seats[0].machine.status(Time::ZERO).gone;
    assert_eq!(at_others, [(name(2), true)].into());
    // Let in again, it takes part as before.
    let fx = seats[0].ask(Command::Roster(table.roster.clone()));
    agree_without(&mut seats, 0, &[1, 2], &fx);
    assert_eq!(seats[2].machine.status(Time::ZERO).removed, None);
    assert!(seats[0].machine.status(Time::ZERO).gone.is_empty());
}

/// Three nodes, of which the last has begun a step and died; the others have voted for it.
pub(super) fn in_doubt(table: &TestFleet) -> (Vec<TestNode>, TxProposal) {
    let mut seats = on_the_way(table);
    let proposed = proposal(&seats[2].ask(Command::Promote { full: false }));
    for seat in &mut seats[..2] {
        assert_eq!(vote(&seat.hear(2, prepare(&proposed))).vote, Choice::Commit);
    }
    leaves(&mut seats, 2);
    (seats, proposed)
}

#[test]
fn what_the_dead_may_have_decided_is_committed_before_its_removal() {
    let table = table(3);
    let (mut seats, proposed) = in_doubt(&table);
    let fx = seats[0].ask(gone(&[2]));
    let removal = proposal(&fx);
    assert_eq!((proposed.state.version, removal.state.version), (3, 4));
    let told = agree_without(&mut seats, 0, &[1], &fx);
    for seat in &seats[..2] {
        let history = seat.machine.history();
        let [.., settled, last] = history else { panic!("{history:?}") };
        assert_eq!((&settled.proposal.txid, &last.proposal.txid), (&proposed.txid, &told.txid));
        let word = settled.proof.resolution.as_ref().expect("it is an operator's word");
        assert_eq!((word.kind, &word.node_id), (Choice::Commit, &name(0)));
        let status = seat.machine.status(Time::ZERO);
        assert_eq!((status.state.version, status.in_doubt), (4, None));
        assert_eq!(status.progress.map(|it| it.step), Some(1));
    }
    // A log with one record for both leads to the same.
    let again = restarted(&table, &seats[1], 1);
    assert_eq!(again.machine.history(), seats[1].machine.history());
    let status = |seat: &TestNode| seat.machine.status(Time::ZERO);
    assert_eq!(status(&again).progress, status(&seats[1]).progress);
    // The gone node had aborted the step, and believes the commit.
    seats[2].tell(Input::Expired(Timer::Votes));
    assert_eq!(status(&seats[2]).state.version, 2);
    returns(&table, &mut seats, 2);
    catch_up(&mut seats, 1, 2);
    assert_eq!(status(&seats[2]).digest, status(&seats[0]).digest);
    assert_eq!(members(&seats[2]), [name(0), name(1)].into());
}

#[test]
fn who_voted_to_settle_a_transaction_hears_of_no_other_end_of_it() {
    let table = table(3);
    let (mut seats, proposed) = in_doubt(&table);
    let removal = proposal(&seats[0].ask(gone(&[2])));
    assert_eq!(vote(&seats[1].hear(0, prepare(&removal))).vote, Choice::Commit);
    // The dead node is back, and has aborted the step.
    let no = TxVote::abort(&table.keys[2], &name(2), &proposed.txid);
    let abort = Message::Decision(Box::new(Decision {
        txid: proposed.txid.clone(),
        kind: Choice::Abort,
        proposal: None,
        proof: TxProof::of(vec![no]),
        reason: String::new(),
    }));
    returns(&table, &mut seats, 2);
    seats[1].hear(2, abort.clone());
    let fx = seats[1].hear(2, prepare(&proposed));
    assert!(sent(&fx).is_empty(), "it says neither yes nor no: {fx:?}");
    let fx = seats[1].hear(0, Message::DecisionReq(DecisionReq { txid: proposed.txid.clone() }));
    let [Message::DecisionResp(said)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!(said.outcome, TxEnd::Uncertain);
    // A restart changes nothing of that.
    let mut again = restarted(&table, &seats[1], 1);
    again.hear(2, abort.clone());
    assert_eq!(again.machine.prepared().map(|it| &it.txid), Some(&removal.txid));
    // The coordinator of the removal hears it and gives the removal up; the other learns both.
    let fx = seats[0].hear(2, abort.clone());
    let ends = decision_of(&fx, &removal.txid);
    assert_eq!(ends.kind, Choice::Abort);
    seats[1].hear(0, Message::Decision(Box::new(ends)));
    assert_eq!(
        seats[1].machine.prepared().map(|it| &it.txid),
        Some(&proposed.txid),
        "in doubt again"
    );
    seats[1].hear(2, abort);
    assert!(seats.iter().all(|it| it.machine.prepared().is_none()));
}

fn decision_of(fx: &[Effect], txid: &TxId) -> Decision {
    let found = sent(fx).into_iter().find_map(|it| {
        let Message::Decision(it) = it else { return None };
        (it.txid == *txid).then(|| (**it).clone())
    });
    found.expect("it was decided")
}

#[test]
fn who_has_not_voted_for_what_the_dead_began_keeps_it_from_being_settled() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let proposed = proposal(&seats[2].ask(Command::Promote { full: false }));
    assert_eq!(vote(&seats[0].hear(2, prepare(&proposed))).vote, Choice::Commit);
    leaves(&mut seats, 2);
    let removal = proposal(&seats[0].ask(gone(&[2])));
    let fx = seats[1].hear(0, prepare(&removal));
    assert!(sent(&fx).iter().all(|it| !matches!(it, Message::PrepareResp(_))), "it lacks that");
    // It is asked, refuses the dead node's step, and the removal is ordered again.
    let fx = seats[1].hear(0, Message::DecisionReq(DecisionReq { txid: proposed.txid.clone() }));
    let [said @ Message::DecisionResp(_)] = sent(&fx)[..] else { panic!("{fx:?}") };
    seats[0].hear(1, said.clone());
    assert_eq!(seats[0].machine.prepared(), None);
    let fx = seats[0].ask(gone(&[2]));
    let told = agree_without(&mut seats, 0, &[1], &fx);
    assert_eq!(told.proposal.map(|it| it.state.version), Some(3));
}

#[test]
fn two_halves_that_called_each_other_gone_find_out() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    let fx = seats[0].ask(gone(&[2]));
    agree_without(&mut seats, 0, &[1], &fx);
    let fx = seats[2].ask(gone(&[0, 1]));
    assert!(matches!(answer(&fx), Some(CommandResult::Committed { version: 3, .. })));
    // Both halves call the nodes that they called gone.
    let is_call = |it: &Effect, of: usize| matches!(it, Effect::Dial(it) if it.node_id == name(of));
    seats[2].now.mono = Time::ZERO.after(std::time::Duration::from_secs(10));
    let fx = seats[2].tell(Input::Expired(Timer::Redial(name(0))));
    assert!(fx.iter().any(|it| is_call(it, 0)), "{fx:?}");
    returns(&table, &mut seats, 2);
    let told = |fx: &[Effect], node: usize| {
        let event = Effect::Emit(Event::Diverged { node: name(node), version: 3 });
        fx.contains(&event)
    };
    let fx = catch_up(&mut seats, 0, 2);
    assert!(told(&fx, 0), "{fx:?}");
    // A half that has gone on since is told as well, and tells.
    let fx = seats[0].ask(Command::Abort);
    agree_without(&mut seats, 0, &[1], &fx);
    let heartbeat = seats[2].machine.heartbeat();
    assert!(told(&seats[0].hear(2, Message::Heartbeat(heartbeat)), 2));
    seats[2] = restarted(&table, &seats[2], 2);
    let fx = catch_up(&mut seats, 0, 2);
    assert!(told(&fx, 0), "{fx:?}");
}

#[test]
fn the_dead_need_not_answer_what_a_node_asks_at_its_start_before_they_are_called_gone() {
    let table = table(3);
    let past: Vec<_> = on_the_way(&table).iter().map(past_of).collect();
    let mut seats: Vec<_> = (0..2)
        .map(|at| {
            let mut seat = table.bare_seat(table.config(at), at, past[at].clone());
            seat.tell(Input::closed(LinkId(2), ""));
            seat
        })
        .collect();
    seats[0].is_told(1, &[]);
    let held = seats[0].ask(gone(&[2]));
    assert_eq!(answer(&held), None, "it waits for a moment");
    let fx = seats[0].tell(Input::Expired(Timer::Orders));
    let told = agree_without(&mut seats, 0, &[1], &fx);
    assert!(told.txid.epoch > 2, "in a life that nobody can have seen: {}", told.txid);
    assert_eq!(members(&seats[1]), [name(0), name(1)].into());
}

#[test]
fn what_is_wrong_with_calling_a_node_gone_is_said() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    leaves(&mut seats, 2);
    for (order, cause) in [
        (gone(&[0]), AbortCause::Malformed),
        (Command::Gone { nodes: ["node-z".parse().unwrap()].into() }, AbortCause::Nothing),
        (gone(&[1]), AbortCause::Reached),
    ] {
        let fx = seats[0].ask(order);
        let Some(CommandResult::Refused { cause: said, .. }) = answer(&fx) else {
            panic!("{fx:?}")
        };
        assert_eq!(*said, cause);
    }
    // A transaction that calls a node gone needs a roster without that node, and another
    // coordinator.
    let proposed = proposal(&seats[0].ask(gone(&[2])));
    let odd = TxProposal { new_roster: Some(table.roster.clone()), ..proposed.clone() };
    assert!(odd.complaint().is_some());
    let mut odd = proposed;
    odd.gone =
        Some(GoneNodes { nodes: [name(0)].into(), by: RemovalAuthority::Operator, settles: None });
    assert!(odd.complaint().is_some());
}
