//! A rollout's node as the simulator runs it: the machine, its calls and handshakes, its servers,
//! and the windows that its data plane measures.

#![allow(clippy::wildcard_enum_match_arm, reason = "a wrapper picks a few words of many")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use folkmoot::machine::rollout::{
    self, CommandId, CommandRequest, CommandResult, Config, Event, ExtraEffect, ExtraInput, Fx,
    Opening, RolloutMachine, RolloutMemory,
};
use folkmoot::machine::{
    CallFailure, DialId, Effect, Effects, HostPinged, Input, LinkId, Machine, NodeOpening,
};
use folkmoot::model::{Endpoint, KeyPair, Now, PublicKey, Rng};
use folkmoot::proto::rollout::{
    Committed, Encoding, HealthSnapshot, Message, ModelHealth, ModelId, NodeId, Participant,
    RolloutReader, RoutingState, StatedMessage, TxId, encode,
};
use folkmoot::sim::Simulated;
use rand::{RngExt as _, SeedableRng as _};

use super::{CALL_TIMEOUT, HANDSHAKE_TIMEOUT, Ledger, Pending, micros};

/// The versions that a node's servers have.
pub(crate) const MODELS: [&str; 3] = ["v1", "v2", "v3"];

pub(crate) fn model(text: &str) -> ModelId {
    text.parse().expect("a name")
}

/// The words on a link: the handshake, in which keys are believed, and then the messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Hello { caller: NodeId, key: PublicKey, called: NodeId },
    Welcome { called: NodeId, key: PublicKey },
    Said(Message),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Rollout(rollout::Timer),
    /// A thread of the driver has done the work of this number.
    Done(u64),
    Handshake(LinkId),
    /// The data plane has measured a window.
    Health,
}

/// A request to the process.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Order(CommandRequest),
    /// Percentage of errors of the new version here; none: too few requests.
    Errors(Option<u64>),
    /// The node's servers answer all probes from now on.
    ServersAnswer,
    /// The seeds call these keys dead.
    Dead(BTreeSet<PublicKey>),
    /// The log of decisions has its first entry for a transaction.
    Decided {
        txid: TxId,
        commit: bool,
        proof: Option<Box<Committed>>,
    },
    /// A stranger with this name and key calls, says this, and hangs up.
    Stranger {
        node: NodeId,
        key: PublicKey,
        says: Vec<Message>,
    },
    /// Messages come by the link of a node that did not send them now, or ever.
    Overheard {
        node: NodeId,
        says: Vec<Message>,
    },
}

/// Report to the checkers, in the order of the events.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// A process begins with these records, which tell it of these transactions.
    Started {
        records: Vec<rollout::Record>,
        history: Vec<Committed>,
    },
    /// A record was written.
    Record(rollout::Record),
    /// Number of records of this life that are on disk.
    Synced(u64),
    /// A message leaves for a node.
    Said {
        to: NodeId,
        msg: Message,
    },
    /// A state is served, perhaps with the brake on.
    Serves {
        state: RoutingState,
        is_braked: bool,
    },
    /// The machine's event.
    Event(Event),
    Answer(CommandId, CommandResult),
    /// A decision is to be put into the log of decisions.
    Decide {
        txid: TxId,
        commit: bool,
        proof: Option<Box<Committed>>,
    },
    /// The node coordinates another transaction now, or none.
    Busy {
        running: Option<TxId>,
    },
    /// A rule that is checked here is broken.
    Wrong(String),
}

/// Setup of a node, for each of its starts.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) keys: KeyPair,
    /// Number of committed transactions that the node keeps whole.
    pub(crate) history_max: usize,
    /// Encoding in which messages cross the wire; `None` if they are passed as they are.
    pub(crate) form: Option<Encoding>,
    /// Chance that a server does not answer a probe.
    pub(crate) silent_servers: f64,
    /// Percentage of errors of the new version here; none: too few requests.
    pub(crate) errors: Option<u64>,
}

#[derive(Clone, Debug)]
enum Link {
    Accepted,
    Greeted(NodeId),
    Open(NodeId),
    /// The machine has hung up; nothing passes until it is told of the end.
    HungUp,
}

/// A process that is a node of a rollout.
#[derive(Debug)]
pub(crate) struct RolloutHost {
    machine: RolloutMachine,
    me: NodeId,
    key: PublicKey,
    records: Vec<rollout::Record>,
    form: Option<Encoding>,
    calls: BTreeMap<DialId, NodeId>,
    tickets: u64,
    links: BTreeMap<LinkId, Link>,
    /// Strangers of the test, whose links are not the network's.
    strangers: u64,
    pending: Pending<rollout::Input>,
    ledger: Ledger<()>,
    errors: Option<u64>,
    silent_servers: f64,
    /// Versions that have answered since the node voted last; `None` without own servers.
    answered: Option<BTreeSet<ModelId>>,
    running: Option<TxId>,
    is_braked: Option<bool>,
    /// Digest of the state in which the node's own figures were bad when it measured last.
    was_bad: Option<folkmoot::proto::rollout::Digest>,
    rng: Rng,
}

impl RolloutHost {
    pub(crate) fn new(desk: &Desk, records: &[rollout::Record], seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let mut memory = RolloutMemory::keeping(desk.history_max);
        records.iter().cloned().for_each(|it| memory.replay(it));
        let machine_rng = Rng::seed_from_u64(rng.random());
        let config = desk.config.clone();
        let has_servers = config.models.is_some();
        Self {
            me: config.me.clone(),
            machine: RolloutMachine::new(config, desk.keys.clone(), machine_rng, memory),
            key: desk.keys.public(),
            records: records.to_vec(),
            form: desk.form,
            calls: BTreeMap::new(),
            tickets: 0,
            links: BTreeMap::new(),
            strangers: 0,
            pending: Pending::default(),
            ledger: Ledger::default(),
            errors: desk.errors,
            silent_servers: desk.silent_servers,
            answered: has_servers.then(BTreeSet::new),
            running: None,
            is_braked: None,
            was_bad: None,
            rng,
        }
    }

    pub(crate) const fn machine(&self) -> &RolloutMachine {
        &self.machine
    }

    pub(crate) const fn errors(&self) -> Option<u64> {
        self.errors
    }

    fn place(of: &Participant) -> Endpoint {
        Endpoint::new(of.host.parse().expect("an address"), of.port)
    }

    fn hand(&mut self, now: Now, input: rollout::Input, fx: &mut Effects<Self>) {
        let mut part = Fx::default();
        self.machine.handle(now, input, &mut part);
        for effect in part {
            self.carry_out(effect, fx);
        }
        let status = self.machine.status(now.mono);
        let in_doubt = status.in_doubt.map(|it| it.txid);
        if in_doubt != self.machine.prepared().map(|it| it.txid.clone()) {
            let what = format!("T4: {} does not say what it is in doubt about", self.me);
            fx.emit(Told::Wrong(what));
        }
        let running = status.running.map(|it| it.txid);
        if running != self.running {
            self.running.clone_from(&running);
            fx.emit(Told::Busy { running });
        }
    }

    fn carry_out(&mut self, effect: rollout::Effect, fx: &mut Effects<Self>) {
        match effect {
            Effect::Send { link, msg } => self.send(link, msg, fx),
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.send(link, msg.clone(), fx);
                }
            }
            Effect::Persist(record) => self.persist(record, fx),
            Effect::Extra(ExtraEffect::Serve(serving)) => {
                let is_braked = serving.brake.is_some();
                if is_braked && (!serving.routes.is_empty() || serving.mirror.is_some()) {
                    let what = format!("T8: requests of {} go past its brake", self.me);
                    fx.emit(Told::Wrong(what));
                }
                self.is_braked = Some(is_braked);
                fx.emit(Told::Serves { state: serving.state, is_braked });
            }
            Effect::Extra(ExtraEffect::Decide { txid, commit, proof }) => {
                fx.emit(Told::Decide { txid, commit, proof });
            }
            // The machine's own books are enough here.
            Effect::Extra(ExtraEffect::ChangeServers { .. }) => {}
            Effect::Extra(ExtraEffect::Probe(model)) => {
                let is_silent = self.rng.random_bool(self.silent_servers);
                let failure = is_silent.then(|| "it answers with 503".to_owned());
                let name = self.pending.keep(Input::Extra(ExtraInput::Probed { model, failure }));
                fx.set_timer(Timer::Done(name), micros(&mut self.rng, 1_000..40_000));
            }
            Effect::Extra(ExtraEffect::Answer(ticket, answer)) => {
                fx.emit(Told::Answer(ticket, answer));
            }
            Effect::Dial(participant) => {
                self.tickets += 1;
                let ticket = DialId(self.tickets);
                fx.dial(ticket, Self::place(&participant), CALL_TIMEOUT);
                self.calls.insert(ticket, participant.node_id);
            }
            Effect::Hangup { link } => {
                if let Some(state) = self.links.get_mut(&link) {
                    *state = Link::HungUp;
                    fx.hangup(link);
                }
            }
            Effect::SetTimer { timer, after } => fx.set_timer(Timer::Rollout(timer), after),
            Effect::StopTimer(timer) => fx.stop_timer(Timer::Rollout(timer)),
            Effect::Emit(event) => fx.emit(Told::Event(event)),
        }
    }

    fn persist(&mut self, record: rollout::Record, fx: &mut Effects<Self>) {
        if let (rollout::Record::Prepared(it), Some(answered)) = (&record, &mut self.answered) {
            let raises = it.txid.kind.raises();
            if !answered.remove(&it.state.canary_model_id) && raises {
                let what = format!("T8: {} votes for what has not answered it", self.me);
                fx.emit(Told::Wrong(what));
            }
        }
        self.ledger.write(());
        fx.persist(record.clone());
        fx.emit(Told::Record(record));
    }

    fn send(&mut self, link: LinkId, msg: Message, fx: &mut Effects<Self>) {
        let Some(Link::Open(to)) = self.links.get(&link) else { return };
        if !matches!(msg, Message::Heartbeat(_) | Message::HealthSnapshot(_)) {
            fx.emit(Told::Said { to: to.clone(), msg: msg.clone() });
        }
        let msg = match self.form {
            Some(form) => {
                let said = StatedMessage { sender: self.me.clone(), message: msg };
                let bytes = encode(form, &said);
                let read = RolloutReader::new(form, &bytes[..]).read();
                read.expect("what a node says is a message").expect("and a whole one").message
            }
            None => msg,
        };
        fx.send(link, Word::Said(msg));
    }

    fn on_word(&mut self, now: Now, link: LinkId, word: Word, fx: &mut Effects<Self>) {
        match (self.links.get(&link).cloned(), word) {
            (Some(Link::Open(_)), Word::Said(msg)) => {
                self.hand(now, Input::Received { link, msg }, fx);
            }
            (Some(Link::Accepted), Word::Hello { caller, key, called }) if called == self.me => {
                fx.stop_timer(Timer::Handshake(link));
                fx.send(link, Word::Welcome { called, key: self.key });
                self.open(now, link, (caller, key), fx);
            }
            (Some(Link::Greeted(to)), Word::Welcome { called, key }) if called == to => {
                fx.stop_timer(Timer::Handshake(link));
                self.open(now, link, (called, key), fx);
            }
            (Some(Link::Accepted), _) => self.hang_up(link, fx),
            (Some(Link::Greeted(to)), _) => {
                self.hang_up(link, fx);
                self.hand(now, Input::DialFailed(to), fx);
            }
            (Some(Link::Open(_) | Link::HungUp) | None, _) => {}
        }
    }

    fn open(
        &mut self,
        now: Now,
        link: LinkId,
        (node, key): (NodeId, PublicKey),
        fx: &mut Effects<Self>,
    ) {
        self.links.insert(link, Link::Open(node.clone()));
        self.hand(now, Input::Opened { link, opening: Opening { node, key } }, fx);
    }

    fn hang_up(&mut self, link: LinkId, fx: &mut Effects<Self>) {
        fx.stop_timer(Timer::Handshake(link));
        self.links.remove(&link);
        fx.hangup(link);
    }

    fn on_command(&mut self, now: Now, command: Command, fx: &mut Effects<Self>) {
        match command {
            Command::Order(request) => self.hand(now, Input::Command(request), fx),
            Command::Errors(errors) => self.errors = errors,
            Command::ServersAnswer => self.silent_servers = 0.0,
            Command::Dead(keys) => self.hand(now, Input::Extra(ExtraInput::Dead { keys }), fx),
            Command::Decided { txid, commit, proof } => {
                self.hand(now, Input::Extra(ExtraInput::Decided { txid, commit, proof }), fx);
            }
            Command::Stranger { node, key, says } => {
                self.strangers += 1;
                let link = LinkId(u64::MAX - self.strangers);
                self.hand(now, Input::Opened { link, opening: Opening { node, key } }, fx);
                for msg in says {
                    self.hand(now, Input::Received { link, msg }, fx);
                }
                self.hand(now, Input::closed(link, ""), fx);
            }
            Command::Overheard { node, says } => {
                let is_it = |it: &Link| matches!(it, Link::Open(of) if *of == node);
                let link = self.links.iter().find(|(_, it)| is_it(it)).map(|(link, _)| *link);
                for msg in says {
                    if let Some(link) = link.filter(|it| self.links.contains_key(it)) {
                        self.hand(now, Input::Received { link, msg }, fx);
                    }
                }
            }
        }
    }

    /// Checks T8: a node that sees its own canary fail for a second sends nothing to it any more.
    fn look_at_brake(&mut self, now: Now, fx: &mut Effects<Self>) {
        let status = self.machine.status(now.mono);
        let is_judged = |it: &rollout::RolloutProgress| {
            let is_live = it.phase == rollout::Phase::Running;
            is_live && it.plan.to == model("v2") && !it.plan.gates.is_empty()
        };
        let is_bad = self.errors == Some(50)
            && status.roster.has(&self.me)
            && status.progress.as_ref().is_some_and(is_judged);
        let bad = is_bad.then_some(status.digest);
        let was_bad = std::mem::replace(&mut self.was_bad, bad);
        if bad.is_some() && was_bad == bad && self.is_braked == Some(false) {
            fx.emit(Told::Wrong(format!("T8: {} sees its canary fail, and asks it", self.me)));
        }
    }

    fn measure(&mut self, now: Now, fx: &mut Effects<Self>) {
        self.look_at_brake(now, fx);
        let errors = self.errors;
        let of = |bad: u64| ModelHealth {
            samples: if errors.is_some() { 100 } else { 3 },
            errors: if errors.is_some() { bad } else { 0 },
            p95_us: 50_000,
            ..ModelHealth::default()
        };
        let bad = [0, errors.unwrap_or(0), 0];
        let models = MODELS.iter().zip(bad).map(|(name, bad)| (model(name), of(bad))).collect();
        let window_id = format!("window-{}", now.wall.0 / 1_000);
        // Other systems see what the node sees, of the version that fares badly.
        let plan = self.machine.status(now.mono).progress.map(|it| it.plan);
        let is_good =
            errors.map(|bad| plan.as_ref().is_none_or(|it| it.to != model("v2")) || bad == 0);
        let gates = plan.iter().flat_map(|it| &it.gates).filter(|it| it.is_outside());
        let outside = gates.filter_map(|it| Some((it.to_string(), is_good?))).collect();
        let node_id = self.me.clone();
        let health = HealthSnapshot { node_id, window_id, models, outside };
        self.hand(now, Input::Extra(ExtraInput::Health(health)), fx);
        fx.set_timer(Timer::Health, Duration::from_secs(1));
    }
}

vocabulary!(RolloutHost, rollout::Record);

impl Machine for RolloutHost {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Command;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start => {
                let records = std::mem::take(&mut self.records);
                let history = self.machine.history().to_vec();
                fx.emit(Told::Started { records, history });
                self.hand(now, Input::Start, fx);
                fx.set_timer(Timer::Health, Duration::from_secs(1));
            }
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } => {
                self.links.insert(link, Link::Accepted);
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                let called = self.calls.remove(&ticket).expect("it was dialed");
                let (caller, key) = (self.me.clone(), self.key);
                fx.send(link, Word::Hello { caller, key, called: called.clone() });
                self.links.insert(link, Link::Greeted(called));
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::DialFailed(CallFailure { ticket, .. }) => {
                let called = self.calls.remove(&ticket).expect("it was dialed");
                self.hand(now, Input::DialFailed(called), fx);
            }
            Input::Received { link, msg } => self.on_word(now, link, msg, fx),
            Input::Closed { link, reason } => match self.links.remove(&link) {
                Some(Link::Open(_) | Link::HungUp) => {
                    self.hand(now, Input::Closed { link, reason }, fx);
                }
                Some(Link::Greeted(to)) => {
                    fx.stop_timer(Timer::Handshake(link));
                    self.hand(now, Input::DialFailed(to), fx);
                }
                Some(Link::Accepted) => fx.stop_timer(Timer::Handshake(link)),
                None => {}
            },
            Input::Synced { records } => {
                for ((), records) in self.ledger.sync(records) {
                    fx.emit(Told::Synced(records));
                    self.hand(now, Input::Synced { records }, fx);
                }
            }
            Input::Expired(Timer::Rollout(timer)) => self.hand(now, Input::Expired(timer), fx),
            Input::Expired(Timer::Done(name)) => {
                let Some(input) = self.pending.take(name) else { return };
                if let (Input::Extra(ExtraInput::Probed { model, failure: None }), Some(answered)) =
                    (&input, &mut self.answered)
                {
                    answered.insert(model.clone());
                }
                self.hand(now, input, fx);
            }
            Input::Expired(Timer::Handshake(link)) => {
                let link_was = self.links.get(&link).cloned();
                self.hang_up(link, fx);
                if let Some(Link::Greeted(to)) = link_was {
                    self.hand(now, Input::DialFailed(to), fx);
                }
            }
            Input::Expired(Timer::Health) => self.measure(now, fx),
            Input::Command(command) => self.on_command(now, command, fx),
            Input::Garbled { .. } | Input::Extra(HostPinged { .. }) => {}
        }
    }
}

/// Weight of a death while this is sent: great where it binds somebody.
pub(crate) const fn weight(msg: &Message) -> u32 {
    match msg {
        Message::PrepareResp(_) | Message::Decision(_) | Message::PrepareReq(_) => 25,
        _ => 1,
    }
}

impl Simulated for RolloutHost {
    const HEARS_OF_SYNCS: bool = true;

    fn is_held(&self, _effect: &Effect<Self>) -> bool {
        false
    }

    fn name(msg: &Word) -> &'static str {
        match msg {
            Word::Hello { .. } | Word::Welcome { .. } => "handshake",
            Word::Said(_) => "rollout",
        }
    }

    fn snapshot(&self) -> Option<Vec<rollout::Record>> {
        Some(self.machine.snapshot())
    }

    /// Death has a taste for the moments at which somebody is told something that binds, and for
    /// those at which a disk does not have it yet.
    fn deadliness(effect: &Effect<Self>) -> u32 {
        match effect {
            Effect::Send { msg: Word::Said(msg), .. } => weight(msg),
            Effect::Persist(
                rollout::Record::Prepared(_)
                | rollout::Record::Committed(_)
                | rollout::Record::Refused { .. },
            ) => 10,
            // What a checker is told is nothing that a process does.
            Effect::Emit(_) => 0,
            _ => 1,
        }
    }
}
