//! The rollout machine: its state, and the dispatch of inputs.

use std::time::Duration;

use super::config::Config;
use super::deaths::CertifiedDead;
use super::event::{CommandRequest, Event, ExtraEffect, ExtraInput, Opening, Record, Timer};
use super::memory::RolloutMemory;
use super::orders::Orders;
use super::outbox::EffectQueue;
use super::peers::Peers;
use super::present::Present;
use super::proposals::Proposals;
use super::recalled::AmnesiaRecovery;
use super::running::Coordinator;
use super::served::{OutsideGates, ServedState};
use super::tries::Tries;
use crate::machine::{self, LinkId, Machine};
use crate::model::{KeyPair, Now, Rng};
use crate::proto::rollout::{Message, NUMBER_MAX, NodeId, Participant, TxProposal};

/// An input of the machine.
pub type Input = machine::Input<RolloutMachine>;

/// An action for the driver.
pub type Effect = machine::Effect<RolloutMachine>;

/// The effects of one input.
pub type Fx = machine::Effects<RolloutMachine>;

/// State machine of one node for all rollouts of its fleet. Each part owns its fields; a step that
/// concerns several parts is a method here, in the file of its rule.
#[derive(Debug)]
pub struct RolloutMachine {
    pub(super) config: Config,
    pub(super) keys: KeyPair,
    pub(super) rng: Rng,
    pub(super) now: Now,
    pub(super) memory: RolloutMemory,
    pub(super) present: Present,
    pub(super) peers: Peers,
    pub(super) coordinator: Coordinator,
    pub(super) proposals: Proposals,
    pub(super) amnesia: Option<AmnesiaRecovery>,
    pub(super) dead: CertifiedDead,
    pub(super) orders: Orders,
    pub(super) tries: Tries,
    pub(super) out: EffectQueue<Self>,
}

impl machine::Vocabulary for RolloutMachine {
    type Message = Message;
    type Call = Participant;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for RolloutMachine {
    type Opening = Opening;
    type CallFailure = NodeId;
    type Command = CommandRequest;
    type ExtraInput = ExtraInput;

    fn handle(&mut self, now: Now, input: Input, fx: &mut Fx) {
        self.now = now;
        match input {
            Input::Start => self.on_start(),
            Input::Opened { link, opening: Opening { node, key } } => {
                self.on_linked(link, &node, key);
            }
            Input::DialFailed(node) => self.on_dial_failed(node),
            Input::Received { link, msg } => self.on_received(link, msg),
            // The engine answers lines that are no messages.
            Input::Garbled { .. } => {}
            Input::Closed { link, .. } => self.on_unlinked(link),
            Input::Synced { records } => self.out.on_synced(records),
            Input::Expired(timer) => self.on_timer(timer),
            Input::Command(CommandRequest { ticket, command }) => self.on_command(ticket, command),
            Input::Extra(extra) => self.on_extra(extra),
        }
        self.out.drain(fx);
    }
}

impl RolloutMachine {
    /// Returns a machine that has not begun: the first input is [`Input::Start`].
    pub fn new(config: Config, keys: KeyPair, rng: Rng, memory: RolloutMemory) -> Self {
        Self {
            present: Present::restore(&memory, &config),
            config,
            keys,
            rng,
            now: Now::default(),
            memory,
            peers: Peers::default(),
            coordinator: Coordinator::default(),
            proposals: Proposals::default(),
            amnesia: None,
            dead: CertifiedDead::default(),
            orders: Orders::default(),
            tries: Tries::default(),
            out: EffectQueue::default(),
        }
    }

    fn on_extra(&mut self, input: ExtraInput) {
        match input {
            ExtraInput::Called { node, host, port } => self.on_called(node, (host, port)),
            ExtraInput::Health(health) => self.on_own_health(health),
            ExtraInput::Probed { model, failure } => self.on_probed(&model, failure),
            ExtraInput::Servers(changes) => self.on_servers(&changes),
            ExtraInput::Decided { txid, commit, proof } => self.on_decided(&txid, commit, proof),
            ExtraInput::Dead { keys } => self.on_dead(keys),
        }
    }

    fn on_start(&mut self) {
        // The clock's seconds, because a node that was restored from a backup asks the roster for
        // the names that it has used, and a node outside the roster may know one more.
        let seconds = if self.config.breaks().names_again { 0 } else { self.now.wall.0 / 1000 };
        let epoch = self.memory.epoch().saturating_add(1).max(seconds);
        self.persist(Record::Epoch { epoch });
        self.present.start(self.now.mono);
        for (node, place) in std::mem::take(&mut self.config.places) {
            self.on_told_place(node, place);
        }
        for node in self.present.roster().nodes().map(|it| it.node_id.clone()) {
            self.peers.miss(node, self.now.mono);
        }
        if let Some(proposal) = self.memory.prepared() {
            let txid = proposal.txid.clone();
            self.begin_doubt(txid, self.config.redial_every);
        }
        self.begin_recall();
        self.change_servers_of_before();
        self.serve_if_new();
        self.call_soon();
        self.out.push_now(Effect::SetTimer {
            timer: Timer::Heartbeat,
            after: self.config.heartbeat_every,
        });
        self.look_for_steps();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Heartbeat => self.on_heartbeat_due(),
            Timer::Votes => self.on_votes_late(),
            Timer::Doubt => self.on_doubt(),
            Timer::Step => self.on_step_due(),
            Timer::Orders => self.on_orders_late(),
            Timer::Dead => self.on_dead_due(),
            Timer::Redial(node) => self.on_redial(&node),
        }
    }

    fn on_received(&mut self, link: LinkId, msg: Message) {
        // A message on a link that was replaced is not heard.
        let Some(from) = self.peers.hear(link) else { return };
        if msg.highest() > NUMBER_MAX {
            return self.drop_from(&from, "a number beyond the limit");
        }
        match msg {
            Message::PrepareReq(msg) => self.on_prepare(from, (*msg).into()),
            Message::PrepareResp(msg) => self.on_vote(&from, msg),
            Message::Decision(msg) => self.on_decision(&from, *msg),
            Message::Heartbeat(msg) => self.on_heartbeat(&from, msg),
            Message::HealthSnapshot(msg) => self.on_health(&from, msg),
            Message::DecisionReq(msg) => self.on_decision_req(&from, &msg.txid),
            Message::DecisionResp(msg) => self.on_decision_resp(&from, *msg),
            Message::DecisionAck(msg) => self.on_ack(&from, &msg.txid),
            Message::StateReq(msg) => self.on_state_req(&from, msg.from_version),
            Message::StateResp(msg) => self.on_state_resp(&from, msg.committed),
            Message::RecallReq(msg) => self.on_recall_req(&from, msg.question),
            Message::RecallResp(msg) => self.on_recall_resp(from, msg),
        }
    }

    /// Writes a record and applies it at once; no other node learns of it before it is on disk.
    pub(super) fn persist(&mut self, record: Record) {
        self.memory.replay(record.clone());
        self.out.persist(record);
    }

    pub(super) fn report(&mut self, event: Event) {
        self.out.push_after_sync(Effect::Emit(event));
    }

    /// Serves the committed state. A node without a log must first have heard from all others, and
    /// have the versions that they have committed since (P7).
    pub(super) fn serve(&mut self) {
        let members = self.peers.iter().filter(|(node, _)| self.present.roster().has(node));
        let beats = members.filter_map(|(_, peer)| peer.heartbeat());
        let newest = beats.map(|it| it.last_committed_version).max().unwrap_or(0);
        let knows = !self.is_blank() && newest <= self.present.version();
        if knows || self.config.breaks().serves_unknown {
            self.present.serve();
        }
        if self.present.is_serving() {
            self.out.push_after_sync(Effect::Extra(ExtraEffect::Serve(self.serving())));
        }
    }

    /// Serves the committed state, if nothing was served yet.
    pub(super) fn serve_if_new(&mut self) {
        if !self.present.is_serving() {
            self.serve();
        }
    }

    fn serving(&self) -> ServedState {
        let plan = self.present.progress().map(|it| &it.plan);
        let live = self.present.progress().filter(|it| it.is_live());
        // With the brake on everything goes to the stable version, by routes too.
        let routed = live.map(|it| &it.plan).filter(|_| self.brake().is_none());
        let prepared = self.memory.prepared();
        let prepared = prepared.filter(|_| self.config.breaks().serves_last_line);
        ServedState {
            state: prepared.map_or(self.present.state(), |it| &it.state).clone(),
            salt: plan.map_or(0, |it| it.salt),
            sticky: plan.and_then(|it| it.sticky.clone()),
            window: plan.map(|it| Duration::from_millis(it.window_ms)),
            warm_up: Duration::from_millis(plan.map_or(0, |it| it.warm_up_ms)),
            routes: routed.map_or_else(Vec::new, |it| it.routes.clone()),
            mirror: routed.and_then(|it| it.mirror),
            outside: live.map_or_else(OutsideGates::none, |it| OutsideGates::of(&it.plan)),
            brake: self.brake().map(|it| it.reason.clone()),
            removed: self.removed().map(|it| (it.txid.clone(), it.by)),
        }
    }

    /// Names of the voters on a proposal.
    pub(super) fn voters(&self, proposal: &TxProposal) -> Vec<NodeId> {
        match &proposal.new_roster {
            Some(new) if self.config.breaks().roster_unagreed => {
                new.nodes().map(|it| it.node_id.clone()).collect()
            }
            _ => proposal
                .participants(self.present.roster())
                .iter()
                .map(|it| it.node_id.clone())
                .collect(),
        }
    }
}
