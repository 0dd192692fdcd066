//! Single inputs and their exact effects, which the simulations do not pin.

mod dead;
mod gone;
mod limits;

use rand::SeedableRng as _;

use super::*;
use crate::model::{KeyPair, Now, Rng, Time, WallTime};
use crate::protocol::{LinkId, Ticket};

struct Table {
    keys: Vec<KeyPair>,
    roster: Roster,
}

fn name(at: usize) -> NodeId {
    format!("node-{}", ["a", "b", "c", "d", "e"][at]).parse().unwrap()
}

fn table(count: usize) -> Table {
    let mut rng = Rng::seed_from_u64(7);
    let keys: Vec<_> = (0..count).map(|_| KeyPair::generate(&mut rng)).collect();
    let nodes = keys.iter().enumerate().map(|(at, keys)| Participant {
        node_id: name(at),
        host: "127.0.0.1".to_owned(),
        port: 60_001 + u16::try_from(at).unwrap(),
        key: keys.public(),
    });
    let roster = Roster::new(nodes.collect()).unwrap();
    Table { keys, roster }
}

fn rng() -> Rng {
    Rng::seed_from_u64(1)
}

/// A node with its driver; its disk is as fast as a test needs.
struct Seat {
    machine: Rollout,
    records: Vec<Record>,
    now: Now,
    /// True if records are on disk at once.
    is_quick: bool,
}

impl Table {
    fn config(&self, at: usize) -> Config {
        let initial = RoutingState::initial("v1".parse().unwrap(), "v2".parse().unwrap());
        Config::new(name(at), self.roster.clone(), initial)
    }

    /// Returns a node with this past, started and linked with all others; links have their numbers.
    fn seat(&self, at: usize, past: Vec<Record>) -> Seat {
        self.seat_of(self.config(at), at, past)
    }

    fn seat_keeping(&self, history_max: usize, at: usize, past: Vec<Record>) -> Seat {
        self.seat_with(Memory::keeping(history_max), self.config(at), at, past)
    }

    fn seat_of(&self, config: Config, at: usize, past: Vec<Record>) -> Seat {
        self.seat_with(Memory::default(), config, at, past)
    }

    fn seat_with(&self, memory: Memory, config: Config, at: usize, past: Vec<Record>) -> Seat {
        let mut seat = self.linked_seat(memory, config, at, past);
        if !seat.machine.is_blank() {
            for other in (0..self.keys.len()).filter(|it| *it != at) {
                seat.is_told(other, &[]);
            }
        }
        seat
    }

    /// Returns the same, before another node has answered its recall.
    fn bare_seat(&self, config: Config, at: usize, past: Vec<Record>) -> Seat {
        self.linked_seat(Memory::default(), config, at, past)
    }

    fn linked_seat(&self, memory: Memory, config: Config, at: usize, past: Vec<Record>) -> Seat {
        let mut memory = memory;
        past.into_iter().for_each(|it| memory.replay(it));
        let keys = self.keys[at].clone();
        let machine = Rollout::new(config, keys, rng(), memory);
        let now = Now { mono: Time::ZERO, wall: WallTime(5) };
        let mut seat = Seat { machine, records: Vec::new(), now, is_quick: true };
        seat.tell(Input::Start);
        for other in (0..self.keys.len()).filter(|it| *it != at) {
            let (node, key) = (name(other), self.keys[other].public());
            seat.tell(Input::Linked { link: LinkId(other as u64), node, key });
        }
        seat
    }
}

/// The past of a node that knows that it has forgotten nothing.
fn whole() -> Vec<Record> {
    vec![Record::Epoch { epoch: 1 }, Record::Recalled { unsure: Default::default() }]
}

impl Seat {
    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut fx = Vec::new();
        self.machine.handle(self.now, input, &mut fx);
        loop {
            let before = self.records.len();
            for effect in fx.drain(..) {
                if let Effect::Persist(record) = &effect {
                    self.records.push(record.clone());
                }
                all.push(effect);
            }
            if self.records.len() == before || !self.is_quick {
                return all;
            }
            let records = self.records.len() as u64;
            self.machine.handle(self.now, Input::Synced { records }, &mut fx);
        }
    }

    fn hear(&mut self, from: usize, msg: Message) -> Vec<Effect> {
        self.tell(Input::Received { link: LinkId(from as u64), msg })
    }

    /// Gives the answer of `from` to this node's recall, with the last transactions that it has
    /// seen.
    fn is_told(&mut self, from: usize, names: &[&str]) -> Vec<Effect> {
        let Some(question) = self.machine.recall.as_ref().map(|it| it.question) else {
            return Vec::new();
        };
        let names = names.iter().map(|it| it.parse::<TxId>().unwrap());
        let seen = names.map(|it| (it.node.clone(), it.mark())).collect();
        self.hear(from, Message::RecallResp(RecallResp { question, seen }))
    }

    fn ask(&mut self, command: Command) -> Vec<Effect> {
        self.tell(Input::Command { ticket: Ticket(9), command })
    }
}

fn start(steps: &[u32]) -> Command {
    Command::Start(StartOrder {
        from: "v1".parse().unwrap(),
        to: "v2".parse().unwrap(),
        steps: steps.to_vec(),
        interval_ms: 1000,
        gates: vec!["error=1%".parse().unwrap()],
        sticky: None,
        samples_min: 10,
        window_ms: 1000,
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
    })
}

fn sent(fx: &[Effect]) -> Vec<&Message> {
    let mut found = Vec::new();
    for effect in fx {
        if let Effect::Send(_, msg) = effect {
            found.push(msg);
        }
    }
    found
}

fn answer(fx: &[Effect]) -> Option<&Answer> {
    fx.iter().find_map(|it| {
        let Effect::Answer(_, answer) = it else { return None };
        Some(answer)
    })
}

fn served(fx: &[Effect]) -> Option<u64> {
    fx.iter().find_map(|it| {
        let Effect::Serve(serving) = it else { return None };
        Some(serving.state.version)
    })
}

fn proposal(fx: &[Effect]) -> Proposal {
    let found = sent(fx).into_iter().find_map(|it| {
        let Message::PrepareReq(it) = it else { return None };
        Some((**it).clone().into())
    });
    found.expect("something was proposed")
}

fn vote(fx: &[Effect]) -> PrepareResp {
    let found = sent(fx).into_iter().find_map(|it| {
        let Message::PrepareResp(it) = it else { return None };
        Some(it.clone())
    });
    found.expect("there was a vote")
}

fn decision(fx: &[Effect]) -> Decision {
    let found = sent(fx).into_iter().find_map(|it| {
        let Message::Decision(it) = it else { return None };
        Some((**it).clone())
    });
    found.expect("something was decided")
}

fn prepare(proposal: &Proposal) -> Message {
    Message::PrepareReq(Box::new(proposal.clone().into()))
}

#[test]
fn a_fleet_of_one_decides_by_itself_and_serves_what_is_on_disk() {
    let mut one = table(1).seat(0, Vec::new());
    one.is_quick = false;
    let fx = one.ask(start(&[500, 10_000]));
    let at = fx.iter().position(|it| matches!(it, Effect::Persist(Record::Committed(_))));
    assert!(at.is_some() && served(&fx).is_none() && answer(&fx).is_none());
    one.is_quick = true;
    let fx = one.tell(Input::Synced { records: one.records.len() as u64 });
    assert_eq!(served(&fx), Some(2));
    assert!(matches!(answer(&fx), Some(Answer::Committed { version: 2, .. })));
}

#[test]
fn three_commit_when_all_vote_and_the_coordinator_votes_last() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let fx = seats[0].ask(start(&[500, 10_000]));
    let wish = proposal(&fx);
    assert_eq!((wish.state.version, wish.state.status), (2, Status::Prepared));
    let first = vote(&seats[1].hear(0, prepare(&wish)));
    let fx = seats[0].hear(1, Message::PrepareResp(first.clone()));
    assert!(answer(&fx).is_none(), "one vote of two");
    // T3: the same vote again is no second voter.
    let fx = seats[0].hear(1, Message::PrepareResp(first));
    assert!(answer(&fx).is_none(), "one voter of two");
    let second = vote(&seats[2].hear(0, prepare(&wish)));
    let fx = seats[0].hear(2, Message::PrepareResp(second));
    assert!(matches!(answer(&fx), Some(Answer::Committed { version: 2, .. })));
    let decision = decision(&fx);
    assert_eq!(decision.proof.votes.len(), 3);
    for seat in &mut seats[1..] {
        let fx = seat.hear(0, Message::Decision(Box::new(decision.clone())));
        assert_eq!(served(&fx), Some(2));
        assert_eq!(seat.machine.status(seat.now.mono).state.canary_share(), 500);
    }
}

#[test]
fn a_vote_leaves_when_it_is_on_disk_and_a_second_proposal_is_refused() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let (one, other) = (seats[0].ask(start(&[10_000])), seats[2].ask(start(&[500, 10_000])));
    seats[1].is_quick = false;
    let fx = seats[1].hear(0, prepare(&proposal(&one)));
    assert!(sent(&fx).is_empty() && matches!(fx[..], [_, Effect::Persist(Record::Prepared(_))]));
    seats[1].is_quick = true;
    let records = seats[1].records.len() as u64;
    assert_eq!(vote(&seats[1].tell(Input::Synced { records })).vote, Choice::Commit);
    let refusal = vote(&seats[1].hear(2, prepare(&proposal(&other))));
    assert_eq!((refusal.vote, refusal.cause), (Choice::Abort, Some(Cause::Busy)));
    assert!(refusal.reason.contains("start-node-a-2-1"), "{}", refusal.reason);
    // A voter begins nothing meanwhile, and names the transaction in the way.
    let fx = seats[1].ask(start(&[10_000]));
    let Some(Answer::Refused { running: Some(running), .. }) = answer(&fx) else { panic!() };
    assert_eq!(running.to_string(), "start-node-a-2-1");
}

#[test]
fn who_is_asked_before_it_voted_refuses_for_good() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let wish = proposal(&seats[0].ask(start(&[10_000])));
    let txid = wish.txid.clone();
    let fx = seats[2].hear(1, Message::DecisionReq(DecisionReq { txid: txid.clone() }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!() };
    assert_eq!(resp.outcome, Outcome::Refused);
    assert_eq!(vote(&seats[2].hear(0, prepare(&wish))).vote, Choice::Abort);
    // A node in doubt believes the refusal, because it is signed.
    assert_eq!(vote(&seats[1].hear(0, prepare(&wish))).vote, Choice::Commit);
    seats[1].hear(2, Message::DecisionResp(resp.clone()));
    assert!(seats[1].machine.prepared().is_none());
    // The refusal also holds after a restart.
    let again = table.seat(2, [whole(), seats[2].records.clone()].concat());
    let mut again = again;
    assert_eq!(vote(&again.hear(0, prepare(&wish))).vote, Choice::Abort);
}

#[test]
fn what_a_coordinator_has_not_begun_it_refuses_to_nobody() {
    let table = table(3);
    let mut seat = table.seat(0, whole());
    let (link, key) = (LinkId(9), KeyPair::from_secret([9; 32]).public());
    seat.tell(Input::Linked { link, node: "zz-stranger".parse().unwrap(), key });
    let records = seat.records.len();
    for name in ["start-node-a-2-1", "start-node-a-2-77", "start-node-a-4611686018427387904-1"] {
        let txid: TxId = name.parse().unwrap();
        for from in [1, 9] {
            let fx = seat.hear(from, Message::DecisionReq(DecisionReq { txid: txid.clone() }));
            let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{name}") };
            assert_eq!((resp.outcome, resp.proof.votes.len()), (Outcome::Uncertain, 0), "{name}");
        }
    }
    // Of its own earlier starts it refuses transactions, as joiners may need, and writes nothing
    // for it.
    for counter in [1, 2, 3] {
        let txid: TxId = format!("roster-node-a-1-{counter}").parse().unwrap();
        let fx = seat.hear(9, Message::DecisionReq(DecisionReq { txid }));
        let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{counter}") };
        assert_eq!(resp.outcome, Outcome::Refused);
    }
    assert_eq!(seat.records.len(), records);
    let wish = proposal(&seat.ask(start(&[10_000])));
    assert_eq!(wish.txid.to_string(), "start-node-a-2-1");
}

#[test]
fn nothing_is_believed_without_its_votes() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let wish = proposal(&seats[0].ask(start(&[10_000])));
    seats[1].hear(0, prepare(&wish));
    let (txid, digest) = (wish.txid.clone(), wish.digest());
    let forged = |keys: &KeyPair| -> Vec<Vote> {
        (0..3).map(|at| Vote::commit(keys, &name(at), &txid, &digest)).collect()
    };
    let mine = Vote::commit(&table.keys[0], &name(0), &txid, &digest);
    for (kind, votes) in [
        (Choice::Commit, vec![]),
        (Choice::Commit, vec![mine.clone(), mine.clone(), mine]),
        (Choice::Commit, forged(&table.keys[0])),
        (Choice::Abort, vec![]),
        (Choice::Abort, vec![Vote::abort(&table.keys[0], &name(2), &txid)]),
    ] {
        let (proposal, reason) = (Some(wish.clone()), String::new());
        let (txid, proof) = (txid.clone(), Proof::of(votes));
        let decision = Decision { txid, kind, proposal, proof, reason };
        let fx = seats[1].hear(0, Message::Decision(Box::new(decision)));
        assert!(matches!(fx[..], [Effect::Emit(Event::Dropped(..))]), "{fx:?}");
        assert!(seats[1].machine.prepared().is_some());
    }
}

#[test]
fn after_a_crash_the_last_committed_state_is_served_and_the_doubt_goes_on() {
    let table = table(3);
    let mut coordinator = table.seat(0, whole());
    let wish = proposal(&coordinator.ask(start(&[10_000])));
    let past = [whole(), vec![Record::Prepared(Box::new(wish.clone()))]].concat();
    let mut seat = table.seat(1, past);
    assert_eq!(seat.machine.status(Time::ZERO).state.version, 1);
    let asked = seat.tell(Input::TimerFired(Timer::Doubt));
    assert!(sent(&asked).iter().any(|it| matches!(it, Message::DecisionReq(_))));
    // T4: the node stays in doubt, however long it waits.
    seat.now.mono = Time::from_micros(3_600_000_000);
    seat.tell(Input::TimerFired(Timer::Doubt));
    assert!(seat.machine.prepared().is_some());
    // The coordinator, which has no record of it, never said yes: that is an ABORT.
    let mut back = table.seat(0, [whole(), coordinator.records].concat());
    let fx = back.hear(1, Message::DecisionReq(DecisionReq { txid: wish.txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    seat.hear(0, Message::DecisionResp(resp.clone()));
    assert!(seat.machine.prepared().is_none());
}

#[test]
fn two_seconds_without_a_vote_are_an_abort_that_names_who_is_missing() {
    let table = table(3);
    let mut seat = table.seat(0, whole());
    let fx = seat.ask(start(&[10_000]));
    let wait = std::time::Duration::from_secs(2);
    assert!(fx.contains(&Effect::SetTimer(Timer::Votes, wait)));
    let fx = seat.tell(Input::TimerFired(Timer::Votes));
    let Some(Answer::Aborted { cause, reason, .. }) = answer(&fx) else { panic!() };
    assert_eq!(*cause, Cause::NoVote);
    assert!(reason.contains("node-b, node-c"), "{reason}");
    let decision = decision(&fx);
    let participants: Vec<_> = table.roster.nodes().collect();
    assert!(decision.proof.shows_abort(&decision.txid, &participants));
}

#[test]
fn a_node_without_a_log_signs_nothing_before_it_heard_from_all() {
    let table = table(3);
    let mut seat = table.seat(2, Vec::new());
    let mut coordinator = table.seat(0, whole());
    let wish = proposal(&coordinator.ask(start(&[10_000])));
    let refusal = vote(&seat.hear(0, prepare(&wish)));
    assert_eq!((refusal.cause, refusal.signed), (Some(Cause::Recalling), None));
    let fx = seat.hear(1, Message::DecisionReq(DecisionReq { txid: wish.txid.clone() }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!() };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (Outcome::Uncertain, 0));
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
    assert_eq!(unsure[&name(0)], Mark { epoch: 59, counter: u64::MAX });
    let txid: TxId = "start-node-a-1-1".parse().unwrap();
    let fx = seat.hear(1, Message::DecisionReq(DecisionReq { txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (Outcome::Uncertain, 0));
    let wish = proposal(&seat.ask(start(&[10_000])));
    assert_eq!(wish.txid.to_string(), "start-node-a-60-1");
}

/// A backup may know less than every member of the roster, while a node outside it knows more.
#[test]
fn an_epoch_is_beyond_the_seconds_of_the_clock() {
    let table = table(3);
    let mut rollout =
        Rollout::new(table.config(0), table.keys[0].clone(), rng(), Memory::default());
    let now = Now { mono: Time::ZERO, wall: WallTime(1_796_000_000_000) };
    let mut fx = Vec::new();
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
    let memory = Memory::default();
    let mut again = Rollout::new(table.config(2), table.keys[2].clone(), rng(), memory);
    let mut fx = Vec::new();
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
    let wish = proposal(&table.seat(1, whole()).ask(start(&[10_000])));
    assert_eq!(vote(&seat.hear(1, prepare(&wish))).vote, Choice::Commit);
    let mut seat = table.bare_seat(table.config(0), 0, whole());
    seat.ask(start(&[10_000]));
    let fx = seat.tell(Input::TimerFired(Timer::Orders));
    let Some(Answer::Refused { cause: Cause::Recalling, reason, .. }) = answer(&fx) else {
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
    let wish = Proposal { txid: "start-node-c-4-1".parse().unwrap(), ..wish_of(&table, 2) };
    assert_eq!(vote(&seat.hear(2, prepare(&wish))).signed, None);
    let fx = seat.is_told(2, &[]);
    assert_eq!(proposal(&fx).txid.to_string(), "start-node-a-8-1");
    for txid in ["abort-node-a-7-2", "step-node-a-2-1", "step-node-c-4-4"] {
        let txid: TxId = txid.parse().unwrap();
        let fx = seat.hear(1, Message::DecisionReq(DecisionReq { txid }));
        let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
        assert_eq!((resp.outcome, resp.proof.votes.len()), (Outcome::Uncertain, 0));
    }
}

/// Returns the first proposal of a node.
fn wish_of(table: &Table, at: usize) -> Proposal {
    proposal(&table.seat(at, whole()).ask(start(&[10_000])))
}

/// Returns the log of a fleet of three after `count` transactions; each node keeps `keeping` whole.
fn long_fleet(table: &Table, count: usize, keeping: usize) -> Vec<Record> {
    let mut seats: Vec<_> = (0..3).map(|at| table.seat_keeping(keeping, at, whole())).collect();
    for number in 0..count {
        let command = match number % 4 {
            0 => start(&[500, 10_000]),
            1 => Command::Pause,
            2 => Command::Resume,
            _ => Command::Abort,
        };
        let wish = proposal(&seats[0].ask(command));
        let first = vote(&seats[1].hear(0, prepare(&wish)));
        let second = vote(&seats[2].hear(0, prepare(&wish)));
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
    assert_eq!((here.state, here.course), (there.state, there.course));
    // No node signs anything about forgotten transactions.
    let txid: TxId = "start-node-a-2-1".parse().unwrap();
    let fx = old.hear(0, Message::DecisionReq(DecisionReq { txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (Outcome::Uncertain, 0));
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
    let before = seat.machine.status(Time::ZERO).course;
    assert_eq!(before.as_ref().map(|it| (it.step, it.phase)), Some((1, Phase::Paused)));
    let again = table.seat_keeping(1, 0, seat.machine.snapshot());
    assert_eq!(again.machine.status(Time::ZERO).course, before);
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
    let wish = proposal(&other.ask(start(&[10_000])));
    assert_eq!(vote(&late.hear(0, prepare(&wish))).vote, Choice::Commit);
    late.hear(1, Message::StateResp(state.clone()));
    assert_eq!(late.machine.status(Time::ZERO).state.version, 32);
    assert_eq!(late.machine.prepared(), None);
    let fx = late.hear(0, Message::DecisionReq(DecisionReq { txid: wish.txid }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!((resp.outcome, resp.proof.votes.len()), (Outcome::Uncertain, 0));
}

/// T7: the joiner begins with the fleet's first roster, follows, and any member may add it.
#[test]
fn a_joiner_catches_up_is_added_and_takes_part_and_one_that_is_removed_knows_it() {
    let all = table(3);
    let two = Roster::new(all.roster.nodes().take(2).cloned().collect()).unwrap();
    let first = |at: usize| Config { roster: two.clone(), ..all.config(at) };
    let mut seats: Vec<_> = (0..3).map(|at| all.seat_of(first(at), at, whole())).collect();
    let wish = proposal(&seats[0].ask(start(&[500, 10_000])));
    let yes = Message::PrepareResp(vote(&seats[1].hear(0, prepare(&wish))));
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
    assert!(matches!(answer(&refused), Some(Answer::Refused { cause: Cause::Roster, .. })));
    for (roster, voters) in [(&all.roster, [0, 2]), (&two, [0, 2])] {
        let wish = proposal(&seats[1].ask(Command::Roster(roster.clone())));
        let mut last = Vec::new();
        for at in voters {
            let yes = vote(&seats[at].hear(1, prepare(&wish)));
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
    assert!(matches!(answer(&refused), Some(Answer::Refused { cause: Cause::Roster, .. })));
}

/// Three nodes that have begun a rollout, with half of the requests at the canary.
fn on_the_way(table: &Table) -> Vec<Seat> {
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    commit(&mut seats, 0, start(&[5000, 10_000]));
    seats
}

/// One node orders `command`, and all agree.
fn commit(seats: &mut [Seat], by: usize, command: Command) {
    let fx = seats[by].ask(command);
    agree(seats, by, &fx);
}

/// All vote for the proposal in `fx`, and hear the decision.
fn agree(seats: &mut [Seat], by: usize, fx: &[Effect]) {
    let wish = proposal(fx);
    let mut last = Vec::new();
    for at in (0..seats.len()).filter(|it| *it != by) {
        let yes = vote(&seats[at].hear(by, prepare(&wish)));
        assert_eq!(yes.vote, Choice::Commit, "{}", yes.reason);
        last = seats[by].hear(at, Message::PrepareResp(yes));
    }
    let told = decision(&last);
    for at in (0..seats.len()).filter(|it| *it != by) {
        seats[at].hear(by, Message::Decision(Box::new(told.clone())));
    }
}

fn failing(at: usize) -> HealthSnapshot {
    let of = |errors| ModelHealth { samples: 100, errors, p95_us: 1, ..ModelHealth::default() };
    let models = [("v1".parse().unwrap(), of(0)), ("v2".parse().unwrap(), of(50))];
    HealthSnapshot { node_id: name(at), window_id: "window-1".to_owned(), models: models.into() }
}

fn brake_of(fx: &[Effect]) -> Option<Brake> {
    let found = sent(fx).into_iter().rev().find_map(|it| {
        let Message::Heartbeat(it) = it else { return None };
        Some(it.brake.clone())
    });
    found.flatten()
}

fn is_braked(seat: &Seat) -> bool {
    seat.machine.status(seat.now.mono).brake.is_some()
}

#[test]
fn a_gate_that_fails_stops_the_canary_at_once_though_a_node_is_dead() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    for seat in &mut seats[..2] {
        seat.tell(Input::Unlinked { link: LinkId(2) });
    }
    // The owner's own figures do not fail: a node that sees the failed gate says so, and others
    // follow.
    let fx = seats[1].tell(Input::Health(failing(1)));
    let serving = fx.iter().find_map(|it| {
        let Effect::Serve(serving) = it else { return None };
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
    let fx = seats[0].tell(Input::TimerFired(Timer::Step));
    assert!(!sent(&fx).iter().any(|it| matches!(it, Message::PrepareReq(_))), "{fx:?}");
    let refused = seats[0].ask(Command::Promote { full: false });
    assert!(matches!(answer(&refused), Some(Answer::Refused { cause: Cause::Gate, .. })));
    // The brake outlives a restart.
    let past = [whole(), seats[0].records.clone()].concat();
    assert!(is_braked(&table.seat(0, past)));
    // The dead node is back: it hears of the brake first, and the rollback follows.
    let (link, node, key) = (LinkId(2), name(2), table.keys[2].public());
    seats[0].tell(Input::Linked { link, node, key });
    seats[2].hear(1, heartbeat);
    assert!(is_braked(&seats[2]));
    let fx = seats[0].tell(Input::TimerFired(Timer::Step));
    assert_eq!(proposal(&fx).txid.kind, Kind::Rollback);
    agree(&mut seats, 0, &fx);
    assert!(seats.iter().all(|it| !is_braked(it) && it.machine.state.version == 3));
}

#[test]
fn an_order_to_go_back_brakes_and_resume_takes_the_brake_off() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    seats[1].tell(Input::Unlinked { link: LinkId(2) });
    seats[1].ask(Command::Abort);
    let fx = seats[1].tell(Input::TimerFired(Timer::Votes));
    assert!(matches!(answer(&fx), Some(Answer::Aborted { cause: Cause::NoVote, .. })));
    let old = seats[1].machine.heartbeat();
    assert_eq!(old.brake.as_ref().map(|it| it.kind), Some(Kind::Abort));
    let (link, node, key) = (LinkId(2), name(2), table.keys[2].public());
    seats[1].tell(Input::Linked { link, node, key });
    // The brake of a node outside the roster counts for nothing.
    let (link, key) = (LinkId(9), KeyPair::from_secret([9; 32]).public());
    let node: NodeId = "zz-stranger".parse().unwrap();
    seats[0].tell(Input::Linked { link, node: node.clone(), key });
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
    let fx = seats[0].tell(Input::Health(failing(0)));
    let automatic = proposal(&fx);
    assert!(!automatic.note.is_empty());
    // At another node the order waits until the end of the transaction is known.
    assert_eq!(vote(&seats[1].hear(0, prepare(&automatic))).vote, Choice::Commit);
    let fx = seats[1].ask(Command::Pause);
    assert!(answer(&fx).is_none() && sent(&fx).is_empty(), "it waits");
    // At the same node the order ends that transaction.
    let fx = seats[0].ask(Command::Pause);
    assert_eq!(proposal(&fx).txid.kind, Kind::Pause);
    let fx = seats[1].hear(0, Message::Decision(Box::new(decision(&fx))));
    assert_eq!(proposal(&fx).txid.kind, Kind::Pause, "and then it is begun");
}

#[test]
fn what_lacks_a_vote_is_tried_ever_more_rarely_until_somebody_is_back() {
    let table = table(3);
    let mut seats = on_the_way(&table);
    let mut seat = seats.swap_remove(0);
    seat.tell(Input::Health(failing(0)));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        seat.tell(Input::TimerFired(Timer::Votes));
        let (began, pause) = (seat.now.mono, seat.machine.retry_at);
        pauses.push(pause.since(began).as_secs());
        seat.now.mono = pause;
        let fx = seat.tell(Input::TimerFired(Timer::Step));
        assert_eq!(proposal(&fx).txid.kind, Kind::Rollback);
    }
    assert!(pauses[0] <= 2 && pauses[3] >= 8, "{pauses:?}");
    assert!(pauses.iter().all(|it| *it <= 20), "{pauses:?}");
}

/// Three nodes with servers of their own for both versions.
fn with_servers(table: &Table, past: &[Record]) -> Vec<Seat> {
    let models = ["v1", "v2"].map(|it| (it.parse().unwrap(), "0a".to_owned()));
    let config = |at| Config { models: Some(models.clone().into()), ..table.config(at) };
    (0..3).map(|at| table.seat_of(config(at), at, past.to_vec())).collect()
}

fn probed(failure: Option<&str>) -> Input {
    Input::Probed { model: "v2".parse().unwrap(), failure: failure.map(str::to_owned) }
}

#[test]
fn a_version_has_to_answer_each_node_before_it_votes_for_it() {
    let table = table(3);
    let mut seats = with_servers(&table, &whole());
    let probe = Effect::Probe("v2".parse().unwrap());
    let fx = seats[0].ask(start(&[5000, 10_000]));
    assert!(fx.contains(&probe));
    let wish = proposal(&fx);
    for at in [1, 2] {
        let fx = seats[at].hear(0, prepare(&wish));
        assert!(fx.contains(&probe) && sent(&fx).is_empty(), "{fx:?}");
        assert!(!seats[at].hear(0, prepare(&wish)).contains(&probe), "once");
        let yes = vote(&seats[at].tell(probed(None)));
        assert_eq!(yes.vote, Choice::Commit, "{}", yes.reason);
        let fx = seats[0].hear(at, Message::PrepareResp(yes));
        assert!(answer(&fx).is_none(), "its own answer is missing");
    }
    let fx = seats[0].tell(probed(None));
    assert!(matches!(answer(&fx), Some(Answer::Committed { .. })));
    // A server that does not answer, at a voter and at the coordinator; the way back needs no
    // answer.
    let mut seats = with_servers(&table, &whole());
    let wish = proposal(&seats[0].ask(start(&[5000, 10_000])));
    seats[1].hear(0, prepare(&wish));
    let no = vote(&seats[1].tell(probed(Some("it answers with 503"))));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(Cause::Model)));
    assert!(no.signed.is_some() && no.reason.contains("v2 does not answer it"), "{}", no.reason);
    let fx = seats[0].tell(probed(Some("it answers with 503")));
    assert!(matches!(answer(&fx), Some(Answer::Aborted { cause: Cause::Model, .. })));
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
    let wish = proposal(&real[0].ask(start(&[10_000])));
    let no = vote(&echo.hear(0, prepare(&wish)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(Cause::Model)));
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
        seats[0].tell(Input::Health(health));
        assert!(!is_braked(&seats[0]));
        // Other nodes' figures in between are not counted.
        seats[0].hear(1, Message::HealthSnapshot(failing(1)));
        assert!(!is_braked(&seats[0]));
        let mut good = failing(1);
        good.models.values_mut().for_each(|it| it.errors = 0);
        seats[0].hear(1, Message::HealthSnapshot(good));
    }
    seats[0].tell(Input::Health(failing(0)));
    assert!(is_braked(&seats[0]));
}

#[test]
fn a_step_that_is_held_beyond_its_deadline_is_undone() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    commit(&mut seats, 0, start_with(0, 60_000));
    for (second, is_over) in [(1, false), (60, false), (61, true)] {
        seats[0].now.mono = Time::from_micros(second * 1_000_000);
        seats[0].tell(Input::TimerFired(Timer::Step));
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
    let course = seats[2].machine.status(Time::ZERO).course.unwrap();
    assert_eq!((course.step, course.phase), (1, Phase::Paused));
    commit(&mut seats, 1, Command::Resume);
    assert_eq!(seats[2].machine.status(Time::ZERO).course.unwrap().phase, Phase::Running);
}

#[test]
fn what_is_wrong_with_an_order_is_said_and_nothing_changes() {
    let mut seat = table(3).seat(0, whole());
    for (command, cause) in [
        (start(&[]), Cause::Malformed),
        (start(&[500, 400, 10_000]), Cause::Malformed),
        (Command::Pause, Cause::Nothing),
        (Command::Rollback, Cause::Nothing),
        (Command::Retry, Cause::Nothing),
        (Command::Resolve { txid: "step-x-1-1".parse().unwrap(), commit: true }, Cause::Nothing),
    ] {
        let fx = seat.ask(command);
        let Some(Answer::Refused { cause: found, .. }) = answer(&fx) else { panic!("{fx:?}") };
        assert_eq!((*found, fx.len()), (cause, 1));
    }
}

#[test]
fn every_record_and_message_survives_its_json() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let wish = proposal(&seats[0].ask(start(&[500, 10_000])));
    let first = Message::PrepareResp(vote(&seats[1].hear(0, prepare(&wish))));
    let second = Message::PrepareResp(vote(&seats[2].hear(0, prepare(&wish))));
    seats[0].hear(1, first.clone());
    let fx = seats[0].hear(2, second.clone());
    let decision = Message::Decision(Box::new(decision(&fx)));
    let heartbeat = Message::Heartbeat(seats[0].machine.heartbeat());
    for msg in [prepare(&wish), first, second, decision, heartbeat] {
        let text = serde_json::to_string(&msg).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), msg, "{text}");
    }
    let mut memory = Memory::default();
    for record in &seats[0].records {
        let text = serde_json::to_string(record).unwrap();
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(back, *record, "{text}");
        memory.replay(back);
    }
    let mut smaller = Memory::default();
    memory.snapshot().into_iter().for_each(|it| smaller.replay(it));
    assert_eq!(smaller.snapshot(), memory.snapshot());
}

#[test]
fn both_ends_call_and_a_proved_caller_is_called_where_it_says() {
    let table = table(3);
    let mut seat = table.seat(1, whole());
    let dialed = |fx: &[Effect]| {
        fx.iter().find_map(|it| {
            let Effect::Dial(who) = it else { return None };
            Some((who.node_id.clone(), who.port))
        })
    };
    // The lower name calls, and has not for a while: it may have moved.
    seat.tell(Input::Unlinked { link: LinkId(0) });
    let fx = seat.tell(Input::TimerFired(Timer::Redial(name(0))));
    assert!(dialed(&fx).is_none(), "not yet");
    assert!(fx.iter().any(|it| matches!(it, Effect::SetTimer(Timer::Redial(_), _))));
    seat.now.mono = seat.now.mono.after(seat.machine.config.call_after);
    let fx = seat.tell(Input::TimerFired(Timer::Redial(name(0))));
    assert_eq!(dialed(&fx), Some((name(0), 60_001)));
    // It calls from elsewhere, and is called there, until a call there fails.
    let called = |port| Input::Called { node: name(0), host: "127.0.0.1".to_owned(), port };
    assert!(seat.tell(called(9)).is_empty(), "nobody has proved that");
    let (link, node, key) = (LinkId(7), name(0), table.keys[0].public());
    seat.tell(Input::Linked { link, node, key });
    let moved = Effect::Emit(Event::Moved { node: name(0), at: "127.0.0.1:9".to_owned() });
    assert_eq!(seat.tell(called(9)), [moved]);
    assert!(seat.tell(called(9)).is_empty(), "once");
    seat.tell(Input::Unlinked { link });
    seat.now.mono = seat.now.mono.after(seat.machine.config.call_after);
    for port in [9, 60_001] {
        let fx = seat.tell(Input::TimerFired(Timer::Redial(name(0))));
        assert_eq!(dialed(&fx), Some((name(0), port)));
        seat.tell(Input::DialFailed { node: name(0) });
    }
}

#[test]
fn who_was_there_before_the_start_is_not_called_a_second_time() {
    let table = table(3);
    let keys = table.keys[0].clone();
    let machine = Rollout::new(table.config(0), keys, rng(), Memory::default());
    let now = Now { mono: Time::ZERO, wall: WallTime(5) };
    let mut one = Seat { machine, records: Vec::new(), now, is_quick: true };
    let mut timers = one.tell(Input::Start);
    timers.retain(|it| *it == Effect::SetTimer(Timer::Redial(name(1)), std::time::Duration::ZERO));
    assert_eq!(timers.len(), 1, "those who do not come are called at once");
    let key = table.keys[1].public();
    let mut fx = one.tell(Input::Linked { link: LinkId(1), node: name(1), key });
    assert!(fx.contains(&Effect::StopTimer(Timer::Redial(name(1)))));
    fx.extend(one.tell(Input::TimerFired(Timer::Redial(name(1)))));
    fx.extend(one.tell(Input::TimerFired(Timer::Redial(name(2)))));
    fx.retain(|it| matches!(it, Effect::Dial(_)));
    assert!(matches!(&fx[..], [Effect::Dial(who)] if who.node_id == name(2)), "{fx:?}");
}

#[test]
fn a_link_without_a_sign_of_life_is_closed_and_called_again() {
    let table = table(3);
    let mut one = table.seat(0, whole());
    let heartbeat = one.machine.heartbeat();
    let say = |node_id| Message::Heartbeat(messages::Heartbeat { node_id, ..heartbeat.clone() });
    let round = |seat: &mut Seat| {
        seat.now.mono = seat.now.mono.after(seat.machine.config.heartbeat_every);
        seat.tell(Input::TimerFired(Timer::Heartbeat))
    };
    let is_closed = |fx: &[Effect], link| fx.contains(&Effect::Hangup(LinkId(link)));
    for _ in 0..5 {
        let fx = round(&mut one);
        assert!(!is_closed(&fx, 1) && !is_closed(&fx, 2), "both are heard");
        one.hear(1, say(name(1)));
        one.hear(2, say(name(2)));
    }
    let silent: Vec<_> = (0..4)
        .map(|_| {
            let fx = round(&mut one);
            one.hear(2, say(name(2)));
            assert!(!is_closed(&fx, 2));
            is_closed(&fx, 1)
        })
        .collect();
    assert_eq!(silent, [false, false, true, false], "after two whole rounds, once");
    let fx = one.tell(Input::TimerFired(Timer::Redial(name(1))));
    assert!(fx.iter().any(|it| matches!(it, Effect::Dial(who) if who.node_id == name(1))));
    assert!(one.hear(1, say(name(1))).is_empty(), "the old link is not heard any more");
}
