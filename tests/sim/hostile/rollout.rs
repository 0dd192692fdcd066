//! A rollout node among members and strangers that say anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use folkmoot::machine::rollout::{
    Command, CommandId, CommandRequest, Config, Effect, Event, ExtraInput, Fx, Input, Opening,
    Record, RolloutMachine, RolloutMemory, Timer,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::rollout::{
    AbortCause, Brake, Choice, Committed, Decision, DecisionAck, DecisionReq, DecisionResp, Digest,
    Encoding, Genesis, GoneNodes, HealthSnapshot, Heartbeat, Message, Mirror, ModelHealth, NodeId,
    Participant, Plan, PrepareResp, RecallReq, RecallResp, RemovalAuthority, Resolution,
    RolloutReader, Roster, RoutingState, RoutingStatus, StateReq, StateResp, StatedMessage, TxEnd,
    TxId, TxKind, TxMark, TxProof, TxProposal, TxVote, Weights, encode,
};
use rand::SeedableRng as _;

use super::source::Source;

/// The node itself, two other members, two strangers.
const NAMES: [&str; 5] = ["node-a", "node-b", "node-c", "node-x", "node-y"];

/// So many of the names are of the roster.
const MEMBERS: usize = 3;

/// One message in so many effects at most.
const EFFECTS_MAX: usize = 256;

fn node(at: usize) -> NodeId {
    NAMES[at].parse().expect("a name")
}

fn keys(at: usize) -> KeyPair {
    KeyPair::from_secret([at as u8 + 1; 32])
}

fn roster() -> Roster {
    let one = |at| Participant {
        node_id: node(at),
        host: "127.0.0.1".to_owned(),
        port: 60_001 + at as u16,
        key: keys(at).public(),
    };
    Roster::new((0..MEMBERS).map(one).collect()).expect("three nodes")
}

fn initial() -> RoutingState {
    RoutingState::initial("v1".parse().expect("a name"), "v2".parse().expect("a name"))
}

/// The machine, and what it wrote.
struct Desk {
    machine: RolloutMachine,
    records: Vec<Record>,
    written: u64,
    now: Time,
    /// The node's last questions, by which answers are believed.
    question: u64,
    links: BTreeMap<LinkId, usize>,
    /// Versions that were said to be split, each with who did.
    split: BTreeSet<(NodeId, u64)>,
    proposed: Option<TxProposal>,
}

impl Desk {
    fn new(records: Vec<Record>) -> Self {
        let mut memory = RolloutMemory::default();
        records.iter().cloned().for_each(|it| memory.replay(it));
        let config = Config::new(node(0), roster(), initial());
        let machine = RolloutMachine::new(config, keys(0), Rng::seed_from_u64(1), memory);
        let mut desk = Self {
            machine,
            records,
            written: 0,
            now: Time::ZERO,
            question: 0,
            links: BTreeMap::new(),
            split: BTreeSet::new(),
            proposed: None,
        };
        desk.step(Input::Start);
        desk
    }

    fn step(&mut self, input: Input) {
        let wall = WallTime(self.now.as_micros() / 1_000);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut fx = Fx::default();
            self.machine.handle(Now { mono: self.now, wall }, input, &mut fx);
            assert!(fx.len() < EFFECTS_MAX, "the cost of one input is bounded");
            for effect in fx {
                match effect {
                    Effect::Persist(record) => {
                        self.written += 1;
                        self.records.push(record);
                        inputs.insert(0, Input::Synced { records: self.written });
                    }
                    Effect::Send { msg, .. } | Effect::SendAll { msg, .. } => self.note(&msg),
                    Effect::Hangup { link } => drop(self.links.remove(&link)),
                    Effect::Emit(Event::Diverged { node: who, version }) => {
                        let is_stranger = (MEMBERS..NAMES.len()).any(|at| node(at) == who);
                        assert!(!is_stranger, "a stranger splits no fleet");
                        assert!(self.split.insert((who, version)), "it was told before");
                    }
                    _ => {}
                }
            }
        }
        let status = self.machine.status(self.now);
        serde_json::to_string(&status).expect("it is shown");
    }

    fn note(&mut self, msg: &Message) {
        survives(msg);
        match msg {
            Message::RecallReq(it) => self.question = it.question,
            Message::PrepareReq(it) => self.proposed = Some((**it).clone().into()),
            _ => {}
        }
    }

    /// Ends this life and begins another one from what is on disk.
    fn restart(&mut self) {
        let now = self.now;
        *self = Self::new(std::mem::take(&mut self.records));
        self.now = now;
    }
}

/// A message is read from both forms as it was written.
fn survives(msg: &Message) {
    for form in [Encoding::Line, Encoding::Frame] {
        let said = StatedMessage { sender: node(1), message: msg.clone() };
        let bytes = encode(form, &said);
        let again = RolloutReader::new(form, &bytes[..]).read();
        assert_eq!(again.ok().flatten(), Some(said), "another message than was written");
    }
}

/// Gates that other systems judge.
const OUTSIDE: [&str; 2] = ["http:http://host/ready", "prom:up>0@http://host:9090"];

/// A number, mostly one that fits.
fn number(fits: u64, src: &mut Source<'_>) -> u64 {
    if src.chance(60) { fits } else { src.number() }
}

fn txid(by: usize, src: &mut Source<'_>) -> TxId {
    let at = if src.chance(70) { by } else { src.below(NAMES.len()) };
    let (epoch, counter) = (number(1, src), number(1 + u64::from(src.byte() % 4), src));
    TxId { node: node(at), epoch, counter, kind: src.one(&TxKind::ALL) }
}

fn plan(src: &mut Source<'_>) -> Plan {
    let gates = ["error<=2x", "4xx<=1.5x", "p95<=2x", "error=1%", "p95=200ms", "p99<=2x"];
    let gates = [&gates[..], &OUTSIDE].concat();
    let gates = (0..src.below(3)).map(|_| src.one(&gates).parse().expect("a gate"));
    let gates: Vec<_> = gates.collect();
    let routes = ["path:/a -> canary", "header:X-Team=qa -> stable", "source:10.0.0.0/8 -> canary"];
    let routes = (0..src.below(3)).map(|_| src.one(&routes).parse().expect("a route"));
    let routes: Vec<_> = routes.collect();
    let share = 50 * u32::from(src.byte());
    Plan {
        from: "v1".parse().expect("a name"),
        to: "v2".parse().expect("a name"),
        steps: vec![500, 10_000],
        interval_ms: number(1_000, src),
        gates,
        sticky: None,
        salt: src.number(),
        samples_min: number(10, src),
        window_ms: number(1_000, src),
        owner: node(src.below(NAMES.len())),
        warm_up_ms: number(0, src),
        failures: number(0, src),
        deadline_ms: number(0, src),
        routes,
        mirror: src.chance(30).then(|| Mirror { share, is_unsafe: src.chance(50) }),
        servers: match src.chance(20) {
            true => [("v2".parse().expect("a name"), "0a".to_owned())].into(),
            false => BTreeMap::new(),
        },
    }
}

/// A proposal that may follow what is served, alone or with what it settles.
fn proposal(desk: &Desk, by: usize, depth: u8, src: &mut Source<'_>) -> TxProposal {
    if src.chance(30)
        && let Some(proposed) = &desk.proposed
    {
        return proposed.clone();
    }
    let status = desk.machine.status(desk.now);
    let settles = (depth > 0 && src.chance(50)).then(|| proposal(desk, 2, depth - 1, src));
    let mut txid = txid(by, src);
    if settles.is_some() && src.chance(80) {
        txid.kind = TxKind::Roster;
    }
    let (before, base) = match &settles {
        Some(it) if src.chance(50) => (it.state.version, it.state.digest()),
        Some(_) | None => (status.state.version, status.digest),
    };
    let state = RoutingState {
        version: number(before.saturating_add(1), src),
        weights: Weights::split(
            &status.state.stable_model_id,
            &status.state.canary_model_id,
            u32::from(src.byte()),
        ),
        status: RoutingStatus::Committed,
        txid: Some(txid.clone()),
        timestamp: WallTime(u64::from(src.byte())),
        ..status.state.clone()
    };
    let left: Vec<_> = status.roster.nodes().filter(|it| it.node_id != node(2)).cloned().collect();
    let new_roster =
        (txid.kind == TxKind::Roster).then(|| Roster::new(left).unwrap_or_else(|_| roster()));
    let settles = settles.map(|it| Box::new(committed(it, src)));
    let is_gone = settles.is_some() || txid.kind == TxKind::Roster && src.chance(50);
    let by = if src.chance(50) { RemovalAuthority::Seeds } else { RemovalAuthority::Operator };
    let gone = is_gone.then(|| GoneNodes { nodes: [node(2)].into(), settles, by });
    let plan = matches!(txid.kind, TxKind::Start | TxKind::Retry).then(|| plan(src));
    let base = if src.chance(85) { base } else { Digest(src.array()) };
    let roster = if src.chance(90) { status.roster.digest() } else { Digest(src.array()) };
    let address = src.one(&[None, Some("http://127.0.0.1:9003".to_owned())]);
    let serves = match txid.kind == TxKind::Serve || src.chance(5) {
        true => [(src.one(&["v1", "v2", "v3"]).parse().expect("a name"), address)].into(),
        false => BTreeMap::new(),
    };
    let note = String::new();
    TxProposal { txid, state, base, roster, new_roster, plan, note, gone, serves }
}

/// With votes of all but the node itself, of all, of few; or with an operator's word.
fn committed(proposal: TxProposal, src: &mut Source<'_>) -> Committed {
    let digest = proposal.digest();
    let from = src.one(&[0, 1, 1, 2]);
    let vote = |at| TxVote::commit(&keys(at), &node(at), &proposal.txid, &digest);
    let votes = (from..MEMBERS).map(vote).collect();
    let resolution = src.chance(20).then(|| {
        let at = WallTime(src.number());
        Resolution::new(&keys(1), &node(1), &proposal.txid, Choice::Commit, at)
    });
    Committed { proposal, proof: TxProof { votes, resolution } }
}

fn health(by: usize, src: &mut Source<'_>) -> HealthSnapshot {
    let mut one = || ModelHealth {
        samples: number(100, src),
        errors: number(0, src),
        refused: number(0, src),
        cold: number(0, src),
        p95_us: number(1_000, src),
        p50_us: number(500, src),
        p99_us: number(2_000, src),
        unreached: number(0, src),
        answered_5xx: number(0, src),
    };
    let models = ["v1", "v2", "v3"].map(|it| (it.parse().expect("a name"), one()));
    let outside = (0..src.below(3)).map(|_| (src.one(&OUTSIDE).to_owned(), src.chance(50)));
    let outside = outside.collect();
    let (models, window_id) = (models.into(), "window-1".to_owned());
    HealthSnapshot { node_id: node(by), window_id, models, outside }
}

/// What somebody says.
fn said(desk: &Desk, by: usize, src: &mut Source<'_>) -> Message {
    let status = desk.machine.status(desk.now);
    match src.byte() % 13 {
        0 => Message::PrepareReq(Box::new(proposal(desk, by, 1, src).into())),
        1 => {
            let running = desk.proposed.as_ref().filter(|_| src.chance(70));
            let txid = running.map_or_else(|| txid(by, src), |it| it.txid.clone());
            let commit =
                running.map(|it| TxVote::commit(&keys(by), &node(by), &txid, &it.digest()));
            let vote = if src.chance(80) { Choice::Commit } else { Choice::Abort };
            let abort = || TxVote::abort(&keys(by), &node(by), &txid);
            let signed = commit.filter(|_| vote == Choice::Commit).unwrap_or_else(abort);
            let cause = (vote == Choice::Abort).then_some(AbortCause::Busy);
            Message::PrepareResp(PrepareResp {
                txid: txid.clone(),
                vote,
                reason: String::new(),
                cause,
                signed: Some(signed),
            })
        }
        2 | 3 => {
            let Committed { mut proposal, proof } = committed(proposal(desk, by, 1, src), src);
            // A decision's state is as far as its kind says.
            proposal.state.status = RoutingStatus::Committed;
            let txid = proposal.txid.clone();
            let (kind, proposal, reason) = (Choice::Commit, Some(proposal), String::new());
            Message::Decision(Box::new(Decision { txid, kind, proposal, proof, reason }))
        }
        4 => {
            let course = status.progress.as_ref().map(|it| it.id.clone());
            let brake = src.chance(30).then(|| Brake {
                course: course.unwrap_or_else(|| txid(by, src)),
                version: number(1, src),
                kind: src.one(&TxKind::ALL),
                reason: String::new(),
            });
            Message::Heartbeat(Heartbeat {
                node_id: node(by),
                last_committed_version: number(status.state.version, src),
                digest: if src.chance(50) { status.digest } else { Digest(src.array()) },
                roster: if src.chance(50) { status.roster.digest() } else { Digest(src.array()) },
                in_doubt: src.chance(20).then(|| txid(by, src)),
                serves: None,
                brake,
            })
        }
        5 | 6 => Message::HealthSnapshot(health(by, src)),
        7 => Message::DecisionReq(DecisionReq { txid: txid(by, src) }),
        8 => {
            let Committed { proposal, proof } = committed(proposal(desk, by, 1, src), src);
            let txid = proposal.txid.clone();
            let outcome = src.one(&[TxEnd::Commit, TxEnd::Abort, TxEnd::Uncertain, TxEnd::Refused]);
            let proposal = Some(proposal);
            Message::DecisionResp(Box::new(DecisionResp { txid, outcome, proposal, proof }))
        }
        9 => Message::DecisionAck(DecisionAck { txid: txid(by, src) }),
        10 => Message::StateReq(StateReq { from_version: src.number() }),
        11 => {
            let count = src.below(3);
            let one = |_| committed(proposal(desk, by, 1, src), src);
            Message::StateResp(StateResp { committed: (0..count).map(one).collect() })
        }
        _ if src.chance(30) => Message::RecallReq(RecallReq { question: src.number() }),
        _ => {
            let question = if src.chance(90) { desk.question } else { src.number() };
            let mark =
                |src: &mut Source<'_>| TxMark { epoch: number(1, src), counter: src.number() };
            let seen = (0..MEMBERS).map(|at| (node(at), mark(src))).collect();
            Message::RecallResp(RecallResp { question, seen })
        }
    }
}

/// What an operator, a timer or the data plane does.
fn done(desk: &Desk, src: &mut Source<'_>) -> Input {
    let ticket = CommandId(1);
    match src.byte() % 8 {
        0 => Input::Expired(Timer::Heartbeat),
        1 => Input::Expired(Timer::Votes),
        2 => Input::Expired(Timer::Doubt),
        3 => Input::Expired(Timer::Step),
        4 => Input::Extra(ExtraInput::Health(health(0, src))),
        5 => {
            let prepared = desk.machine.prepared().map(|it| it.txid.clone());
            let txid = prepared.unwrap_or_else(|| txid(0, src));
            Input::Command(CommandRequest {
                ticket,
                command: Command::Resolve { txid, commit: src.chance(50) },
            })
        }
        6 => {
            let nodes = [node(2)].into();
            Input::Command(CommandRequest { ticket, command: Command::Gone { nodes } })
        }
        _ => {
            let commands =
                [Command::Pause, Command::Resume, Command::Abort, Command::Promote { full: false }];
            Input::Command(CommandRequest { ticket, command: src.one(&commands) })
        }
    }
}

/// A log that somebody has written, with any numbers.
fn past(src: &mut Source<'_>) -> Vec<Record> {
    if src.chance(20) {
        return Vec::new();
    }
    let mut records = vec![Record::Epoch { epoch: number(1, src) }];
    let mark = TxMark { epoch: number(0, src), counter: src.number() };
    let unsure = if src.chance(30) { [(node(0), mark)].into() } else { BTreeMap::new() };
    records.push(Record::Recalled { unsure });
    if src.chance(30) {
        let desk = Desk::new(records.clone());
        let count = src.below(3);
        for _ in 0..count {
            let proposal = proposal(&desk, 1, 1, src);
            records.push(Record::Committed(Box::new(committed(proposal, src))));
        }
        if src.chance(40) {
            records.push(Record::Prepared(Box::new(proposal(&desk, 1, 1, src))));
        }
    }
    records
}

/// Whatever its log says, and whatever members and strangers say to it: a node answers, shows how
/// it stands, and starts again; a stranger splits no fleet, and a member none twice.
pub fn rollout(bytes: &[u8]) {
    let mut src = Source::new(bytes);
    let src = &mut src;
    let state = RoutingState { version: src.number(), ..initial() };
    let genesis = Genesis { roster: roster(), state };
    assert_eq!(genesis.is_first(), genesis.state.version == 1);
    let mut desk = Desk::new(past(src));
    let mut next = 0;
    while !src.is_empty() {
        desk.now = desk.now.after(Duration::from_millis(u64::from(src.byte()) * 20));
        let at = 1 + src.below(NAMES.len() - 1);
        let linked = desk.links.iter().find(|it| *it.1 == at).map(|it| *it.0);
        match (src.byte() % 16, linked) {
            (0, Some(link)) => {
                desk.links.remove(&link);
                desk.step(Input::closed(link, ""));
            }
            (1, _) if src.chance(30) => desk.restart(),
            (1..=4, Some(_)) => {
                let input = done(&desk, src);
                desk.step(input);
            }
            (_, None) => {
                next += 1;
                desk.links.insert(LinkId(next), at);
                // Sometimes a liar under the name of another.
                let key = if src.chance(90) { keys(at) } else { keys(9) }.public();
                desk.step(Input::Opened {
                    link: LinkId(next),
                    opening: Opening { node: node(at), key },
                });
            }
            (_, Some(link)) => {
                let msg = said(&desk, at, src);
                survives(&msg);
                desk.step(Input::Received { link, msg });
            }
        }
    }
    desk.restart();
}
