//! Single inputs and their exact effects, which the simulations do not pin.

mod dead;
mod gone;
mod limits;
mod ordered;
mod past;
mod plans;
mod servers;
mod steps;

use rand::SeedableRng as _;

use super::recalled::AmnesiaRecovery;
use super::*;
use crate::machine::{LinkId, Machine as _};
use crate::model::{KeyPair, Now, Rng, Time, WallTime};
use crate::proto::rollout::*;

struct TestFleet {
    keys: Vec<KeyPair>,
    roster: Roster,
}

fn name(at: usize) -> NodeId {
    format!("node-{}", ["a", "b", "c", "d", "e"][at]).parse().unwrap()
}

fn table(count: usize) -> TestFleet {
    let mut rng = Rng::seed_from_u64(7);
    let keys: Vec<_> = (0..count).map(|_| KeyPair::generate(&mut rng)).collect();
    let nodes = keys.iter().enumerate().map(|(at, keys)| Participant {
        node_id: name(at),
        host: "127.0.0.1".to_owned(),
        port: 60_001 + u16::try_from(at).unwrap(),
        key: keys.public(),
    });
    let roster = Roster::new(nodes.collect()).unwrap();
    TestFleet { keys, roster }
}

fn rng() -> Rng {
    Rng::seed_from_u64(1)
}

/// A node with its driver; its disk is as fast as a test needs.
struct TestNode {
    machine: RolloutMachine,
    records: Vec<Record>,
    now: Now,
    /// True if records are on disk at once.
    is_quick: bool,
}

impl TestFleet {
    fn config(&self, at: usize) -> Config {
        let initial = RoutingState::initial("v1".parse().unwrap(), "v2".parse().unwrap());
        Config::new(name(at), self.roster.clone(), initial)
    }

    /// Returns a node with this past, started and linked with all others; links have their numbers.
    fn seat(&self, at: usize, past: Vec<Record>) -> TestNode {
        self.seat_of(self.config(at), at, past)
    }

    fn seat_keeping(&self, history_max: usize, at: usize, past: Vec<Record>) -> TestNode {
        self.seat_with(RolloutMemory::keeping(history_max), self.config(at), at, past)
    }

    fn seat_of(&self, config: Config, at: usize, past: Vec<Record>) -> TestNode {
        self.seat_with(RolloutMemory::default(), config, at, past)
    }

    fn seat_with(
        &self,
        memory: RolloutMemory,
        config: Config,
        at: usize,
        past: Vec<Record>,
    ) -> TestNode {
        let mut seat = self.linked_seat(memory, config, at, past);
        if !seat.machine.is_blank() {
            for other in (0..self.keys.len()).filter(|it| *it != at) {
                seat.is_told(other, &[]);
            }
        }
        seat
    }

    /// Returns the same, before another node has answered its question for former transactions.
    fn bare_seat(&self, config: Config, at: usize, past: Vec<Record>) -> TestNode {
        self.linked_seat(RolloutMemory::default(), config, at, past)
    }

    fn linked_seat(
        &self,
        memory: RolloutMemory,
        config: Config,
        at: usize,
        past: Vec<Record>,
    ) -> TestNode {
        let mut memory = memory;
        past.into_iter().for_each(|it| memory.replay(it));
        let keys = self.keys[at].clone();
        let machine = RolloutMachine::new(config, keys, rng(), memory);
        let now = Now { mono: Time::ZERO, wall: WallTime(5) };
        let mut seat = TestNode { machine, records: Vec::new(), now, is_quick: true };
        seat.tell(Input::Start);
        for other in (0..self.keys.len()).filter(|it| *it != at) {
            let (node, key) = (name(other), self.keys[other].public());
            seat.tell(Input::Opened { link: LinkId(other as u64), opening: Opening { node, key } });
        }
        seat
    }
}

/// The past of a node that knows that it has forgotten nothing.
fn whole() -> Vec<Record> {
    vec![Record::Epoch { epoch: 1 }, Record::Recalled { unsure: Default::default() }]
}

impl TestNode {
    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut fx = Fx::default();
        self.machine.handle(self.now, input, &mut fx);
        loop {
            let before = self.records.len();
            for effect in fx.drain() {
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

    /// Gives the answer of `from` to this node's question for former transactions, with the last
    /// transactions that it has seen.
    fn is_told(&mut self, from: usize, names: &[&str]) -> Vec<Effect> {
        let Some(question) = self.machine.amnesia.as_ref().map(AmnesiaRecovery::question) else {
            return Vec::new();
        };
        let names = names.iter().map(|it| it.parse::<TxId>().unwrap());
        let seen = names.map(|it| (it.node.clone(), it.mark())).collect();
        self.hear(from, Message::RecallResp(RecallResp { question, seen }))
    }

    fn ask(&mut self, command: Command) -> Vec<Effect> {
        self.tell(Input::Command(CommandRequest { ticket: CommandId(9), command }))
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
        routes: Vec::new(),
        mirror: None,
        same_servers: false,
    })
}

fn sent(fx: &[Effect]) -> Vec<&Message> {
    let mut found = Vec::new();
    for effect in fx {
        if let Effect::Send { msg, .. } | Effect::SendAll { msg, .. } = effect {
            found.push(msg);
        }
    }
    found
}

fn answer(fx: &[Effect]) -> Option<&CommandResult> {
    fx.iter().find_map(|it| {
        let Effect::Extra(ExtraEffect::Answer(_, answer)) = it else { return None };
        Some(answer)
    })
}

fn served(fx: &[Effect]) -> Option<u64> {
    fx.iter().find_map(|it| {
        let Effect::Extra(ExtraEffect::Serve(serving)) = it else { return None };
        Some(serving.state.version)
    })
}

fn proposal(fx: &[Effect]) -> TxProposal {
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

fn prepare(proposal: &TxProposal) -> Message {
    Message::PrepareReq(Box::new(proposal.clone().into()))
}

/// Returns the first proposal of a node.
fn proposal_of(table: &TestFleet, at: usize) -> TxProposal {
    proposal(&table.seat(at, whole()).ask(start(&[10_000])))
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
    assert!(matches!(answer(&fx), Some(CommandResult::Committed { version: 2, .. })));
}

#[test]
fn three_commit_when_all_vote_and_the_coordinator_votes_last() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let fx = seats[0].ask(start(&[500, 10_000]));
    let proposed = proposal(&fx);
    assert_eq!((proposed.state.version, proposed.state.status), (2, RoutingStatus::Prepared));
    let first = vote(&seats[1].hear(0, prepare(&proposed)));
    let fx = seats[0].hear(1, Message::PrepareResp(first.clone()));
    assert!(answer(&fx).is_none(), "one vote of two");
    // T3: the same vote again is no second voter.
    let fx = seats[0].hear(1, Message::PrepareResp(first));
    assert!(answer(&fx).is_none(), "one voter of two");
    let second = vote(&seats[2].hear(0, prepare(&proposed)));
    let fx = seats[0].hear(2, Message::PrepareResp(second));
    assert!(matches!(answer(&fx), Some(CommandResult::Committed { version: 2, .. })));
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
    assert_eq!((refusal.vote, refusal.cause), (Choice::Abort, Some(AbortCause::Busy)));
    assert!(refusal.reason.contains("start-node-a-2-1"), "{}", refusal.reason);
    // A voter begins nothing meanwhile, and names the transaction in the way.
    let fx = seats[1].ask(start(&[10_000]));
    let Some(CommandResult::Refused { running: Some(running), .. }) = answer(&fx) else { panic!() };
    assert_eq!(running.to_string(), "start-node-a-2-1");
}

#[test]
fn who_is_asked_before_it_voted_refuses_for_good() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let proposed = proposal(&seats[0].ask(start(&[10_000])));
    let txid = proposed.txid.clone();
    let fx = seats[2].hear(1, Message::DecisionReq(DecisionReq { txid: txid.clone() }));
    let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!() };
    assert_eq!(resp.outcome, TxEnd::Refused);
    assert_eq!(vote(&seats[2].hear(0, prepare(&proposed))).vote, Choice::Abort);
    // A node in doubt believes the refusal, because it is signed.
    assert_eq!(vote(&seats[1].hear(0, prepare(&proposed))).vote, Choice::Commit);
    seats[1].hear(2, Message::DecisionResp(resp.clone()));
    assert!(seats[1].machine.prepared().is_none());
    // The refusal also holds after a restart.
    let again = table.seat(2, [whole(), seats[2].records.clone()].concat());
    let mut again = again;
    assert_eq!(vote(&again.hear(0, prepare(&proposed))).vote, Choice::Abort);
}

#[test]
fn what_a_coordinator_has_not_begun_it_refuses_to_nobody() {
    let table = table(3);
    let mut seat = table.seat(0, whole());
    let (link, key) = (LinkId(9), KeyPair::from_secret([9; 32]).public());
    seat.tell(Input::Opened {
        link,
        opening: Opening { node: "zz-stranger".parse().unwrap(), key },
    });
    let records = seat.records.len();
    for name in ["start-node-a-2-1", "start-node-a-2-77", "start-node-a-4611686018427387904-1"] {
        let txid: TxId = name.parse().unwrap();
        for from in [1, 9] {
            let fx = seat.hear(from, Message::DecisionReq(DecisionReq { txid: txid.clone() }));
            let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{name}") };
            assert_eq!((resp.outcome, resp.proof.votes.len()), (TxEnd::Uncertain, 0), "{name}");
        }
    }
    // Of its own earlier starts it refuses transactions, as joiners may need, and writes nothing
    // for it.
    for counter in [1, 2, 3] {
        let txid: TxId = format!("roster-node-a-1-{counter}").parse().unwrap();
        let fx = seat.hear(9, Message::DecisionReq(DecisionReq { txid }));
        let [Message::DecisionResp(resp)] = sent(&fx)[..] else { panic!("{counter}") };
        assert_eq!(resp.outcome, TxEnd::Refused);
    }
    assert_eq!(seat.records.len(), records);
    let proposed = proposal(&seat.ask(start(&[10_000])));
    assert_eq!(proposed.txid.to_string(), "start-node-a-2-1");
}

#[test]
fn nothing_is_believed_without_its_votes() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let proposed = proposal(&seats[0].ask(start(&[10_000])));
    seats[1].hear(0, prepare(&proposed));
    let (txid, digest) = (proposed.txid.clone(), proposed.digest());
    let forged = |keys: &KeyPair| -> Vec<TxVote> {
        (0..3).map(|at| TxVote::commit(keys, &name(at), &txid, &digest)).collect()
    };
    let mine = TxVote::commit(&table.keys[0], &name(0), &txid, &digest);
    for (kind, votes) in [
        (Choice::Commit, vec![]),
        (Choice::Commit, vec![mine.clone(), mine.clone(), mine]),
        (Choice::Commit, forged(&table.keys[0])),
        (Choice::Abort, vec![]),
        (Choice::Abort, vec![TxVote::abort(&table.keys[0], &name(2), &txid)]),
    ] {
        let (proposal, reason) = (Some(proposed.clone()), String::new());
        let (txid, proof) = (txid.clone(), TxProof::of(votes));
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
    let proposed = proposal(&coordinator.ask(start(&[10_000])));
    let past = [whole(), vec![Record::Prepared(Box::new(proposed.clone()))]].concat();
    let mut seat = table.seat(1, past);
    assert_eq!(seat.machine.status(Time::ZERO).state.version, 1);
    let asked = seat.tell(Input::Expired(Timer::Doubt));
    assert!(sent(&asked).iter().any(|it| matches!(it, Message::DecisionReq(_))));
    // T4: the node stays in doubt, however long it waits.
    seat.now.mono = Time::from_micros(3_600_000_000);
    seat.tell(Input::Expired(Timer::Doubt));
    assert!(seat.machine.prepared().is_some());
    // The coordinator, which has no record of it, never said yes: that is an ABORT.
    let mut back = table.seat(0, [whole(), coordinator.records].concat());
    let fx = back.hear(1, Message::DecisionReq(DecisionReq { txid: proposed.txid }));
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
    assert!(fx.contains(&Effect::SetTimer { timer: Timer::Votes, after: wait }));
    let fx = seat.tell(Input::Expired(Timer::Votes));
    let Some(CommandResult::Aborted { cause, reason, .. }) = answer(&fx) else { panic!() };
    assert_eq!(*cause, AbortCause::NoVote);
    assert!(reason.contains("node-b, node-c"), "{reason}");
    let decision = decision(&fx);
    let participants: Vec<_> = table.roster.nodes().collect();
    assert!(decision.proof.shows_abort(&decision.txid, &participants));
}

/// Three nodes that have begun a rollout, with half of the requests at the canary.
fn on_the_way(table: &TestFleet) -> Vec<TestNode> {
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    commit(&mut seats, 0, start(&[5000, 10_000]));
    seats
}

/// One node orders `command`, and all agree; returns its last effects.
fn commit(seats: &mut [TestNode], by: usize, command: Command) -> Vec<Effect> {
    let fx = seats[by].ask(command);
    agree(seats, by, &fx)
}

/// All vote for the proposal in `fx`, and hear the decision; returns the proposer's last effects.
fn agree(seats: &mut [TestNode], by: usize, fx: &[Effect]) -> Vec<Effect> {
    let proposed = proposal(fx);
    let mut last = Vec::new();
    for at in (0..seats.len()).filter(|it| *it != by) {
        let yes = vote(&seats[at].hear(by, prepare(&proposed)));
        assert_eq!(yes.vote, Choice::Commit, "{}", yes.reason);
        last = seats[by].hear(at, Message::PrepareResp(yes));
    }
    let told = decision(&last);
    for at in (0..seats.len()).filter(|it| *it != by) {
        seats[at].hear(by, Message::Decision(Box::new(told.clone())));
    }
    last
}

#[test]
fn what_is_wrong_with_an_order_is_said_and_nothing_changes() {
    let mut seat = table(3).seat(0, whole());
    for (command, cause) in [
        (start(&[]), AbortCause::Malformed),
        (start(&[500, 400, 10_000]), AbortCause::Malformed),
        (Command::Pause, AbortCause::Nothing),
        (Command::Rollback, AbortCause::Nothing),
        (Command::Retry, AbortCause::Nothing),
        (
            Command::Resolve { txid: "step-x-1-1".parse().unwrap(), commit: true },
            AbortCause::Nothing,
        ),
    ] {
        let fx = seat.ask(command);
        let Some(CommandResult::Refused { cause: found, .. }) = answer(&fx) else {
            panic!("{fx:?}")
        };
        assert_eq!((*found, fx.len()), (cause, 1));
    }
}

#[test]
fn every_record_and_message_survives_its_json() {
    let table = table(3);
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    let proposed = proposal(&seats[0].ask(start(&[500, 10_000])));
    let first = Message::PrepareResp(vote(&seats[1].hear(0, prepare(&proposed))));
    let second = Message::PrepareResp(vote(&seats[2].hear(0, prepare(&proposed))));
    seats[0].hear(1, first.clone());
    let fx = seats[0].hear(2, second.clone());
    let decision = Message::Decision(Box::new(decision(&fx)));
    let heartbeat = Message::Heartbeat(seats[0].machine.heartbeat());
    for msg in [prepare(&proposed), first, second, decision, heartbeat] {
        let text = serde_json::to_string(&msg).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), msg, "{text}");
    }
    let mut memory = RolloutMemory::default();
    for record in &seats[0].records {
        let text = serde_json::to_string(record).unwrap();
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(back, *record, "{text}");
        memory.replay(back);
    }
    let mut smaller = RolloutMemory::default();
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
    seat.tell(Input::closed(LinkId(0), ""));
    let fx = seat.tell(Input::Expired(Timer::Redial(name(0))));
    assert!(dialed(&fx).is_none(), "not yet");
    assert!(fx.iter().any(|it| matches!(it, Effect::SetTimer { timer: Timer::Redial(_), .. })));
    seat.now.mono = seat.now.mono.after(seat.machine.config.call_after);
    let fx = seat.tell(Input::Expired(Timer::Redial(name(0))));
    assert_eq!(dialed(&fx), Some((name(0), 60_001)));
    // It calls from elsewhere, and is called there, until a call there fails.
    let called = |port| {
        Input::Extra(ExtraInput::Called { node: name(0), host: "127.0.0.1".to_owned(), port })
    };
    assert!(seat.tell(called(9)).is_empty(), "nobody has proved that");
    let (link, node, key) = (LinkId(7), name(0), table.keys[0].public());
    seat.tell(Input::Opened { link, opening: Opening { node, key } });
    let moved = Effect::Emit(Event::Moved { node: name(0), at: "127.0.0.1:9".to_owned() });
    assert_eq!(seat.tell(called(9)), [moved]);
    assert!(seat.tell(called(9)).is_empty(), "once");
    seat.tell(Input::closed(link, ""));
    seat.now.mono = seat.now.mono.after(seat.machine.config.call_after);
    for port in [9, 60_001] {
        let fx = seat.tell(Input::Expired(Timer::Redial(name(0))));
        assert_eq!(dialed(&fx), Some((name(0), port)));
        seat.tell(Input::DialFailed(name(0)));
    }
}

#[test]
fn who_was_there_before_the_start_is_not_called_a_second_time() {
    let table = table(3);
    let keys = table.keys[0].clone();
    let machine = RolloutMachine::new(table.config(0), keys, rng(), RolloutMemory::default());
    let now = Now { mono: Time::ZERO, wall: WallTime(5) };
    let mut one = TestNode { machine, records: Vec::new(), now, is_quick: true };
    let mut timers = one.tell(Input::Start);
    timers.retain(|it| {
        *it == Effect::SetTimer { timer: Timer::Redial(name(1)), after: std::time::Duration::ZERO }
    });
    assert_eq!(timers.len(), 1, "those who do not come are called at once");
    let key = table.keys[1].public();
    let mut fx =
        one.tell(Input::Opened { link: LinkId(1), opening: Opening { node: name(1), key } });
    assert!(fx.contains(&Effect::StopTimer(Timer::Redial(name(1)))));
    fx.extend(one.tell(Input::Expired(Timer::Redial(name(1)))));
    fx.extend(one.tell(Input::Expired(Timer::Redial(name(2)))));
    fx.retain(|it| matches!(it, Effect::Dial(_)));
    assert!(matches!(&fx[..], [Effect::Dial(who)] if who.node_id == name(2)), "{fx:?}");
}

#[test]
fn a_link_without_a_sign_of_life_is_closed_and_called_again() {
    let table = table(3);
    let mut one = table.seat(0, whole());
    let heartbeat = one.machine.heartbeat();
    let say = |node_id| Message::Heartbeat(Heartbeat { node_id, ..heartbeat.clone() });
    let round = |seat: &mut TestNode| {
        seat.now.mono = seat.now.mono.after(seat.machine.config.heartbeat_every);
        seat.tell(Input::Expired(Timer::Heartbeat))
    };
    let is_closed = |fx: &[Effect], link| fx.contains(&Effect::Hangup { link: LinkId(link) });
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
    let fx = one.tell(Input::Expired(Timer::Redial(name(1))));
    assert!(fx.iter().any(|it| matches!(it, Effect::Dial(who) if who.node_id == name(1))));
    assert!(one.hear(1, say(name(1))).is_empty(), "the old link is not heard any more");
}
