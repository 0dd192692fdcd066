//! The rollout machine: its state, and the dispatch of inputs.

use crate::proto::rollout::{Digest, HealthSnapshot, Participant, Roster, RoutingState};
use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::coordinator::Running;
use super::course::Course;
use super::dead::Dead;
use super::event::{
    Command, Effect, Event, ExtraEffect, ExtraInput, Fx, Input, Opening, Record, Request, Serving,
    Timer,
};
use super::links::Peer;
use super::memory::{Absent, Memory};
use super::outbox::Outbox;
use super::recall::Recall;
use super::recovery::Doubt;
use crate::machine::{self, LinkId, Machine, Ticket};
use crate::model::{KeyPair, Now, Rng, Time};
use crate::proto::rollout::{Committed, Kind, Message, NUMBER_MAX, NodeId, Proposal, TxId};

/// State machine of one node for all rollouts of its fleet.
#[derive(Debug)]
pub struct Rollout {
    pub(super) config: Config,
    pub(super) keys: KeyPair,
    pub(super) rng: Rng,
    pub(super) memory: Memory,
    /// The state that is served.
    pub(super) state: RoutingState,
    pub(super) state_digest: Digest,
    pub(super) roster: Roster,
    pub(super) roster_digest: Digest,
    /// Nodes that were called gone and no longer take part.
    pub(super) gone: BTreeMap<NodeId, Absent>,
    pub(super) dead: Dead,
    pub(super) course: Option<Course>,
    /// Time of the last commit, or of this node's start.
    pub(super) course_at: Time,
    pub(super) counter: u64,
    /// The transaction that this node coordinates.
    pub(super) running: Option<Running>,
    /// This node's last committed transaction, with the participants that have not acknowledged it.
    pub(super) unacked: Option<(TxId, BTreeSet<NodeId>)>,
    /// A proposal that waits until this node has caught up.
    pub(super) early: Option<(NodeId, Proposal)>,
    /// A proposal whose new version is being probed, with its coordinator.
    pub(super) probing: Option<(NodeId, Proposal)>,
    pub(super) doubt: Option<Doubt>,
    pub(super) recall: Option<Recall>,
    /// True if this node knows the state of its fleet and has served it.
    pub(super) is_serving: bool,
    /// Orders that wait until they can begin.
    pub(super) orders: Vec<(Ticket, Command)>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) by_link: BTreeMap<LinkId, NodeId>,
    /// Versions by node up to which was told that another state, and another roster, was in force
    /// there; of nodes of the roster and of nodes that were called gone.
    pub(super) told_of: BTreeMap<NodeId, (u64, u64)>,
    /// Host and control port of nodes that are called at another place than the roster names.
    pub(super) places: BTreeMap<NodeId, (String, u16)>,
    /// Time since which nodes are out of reach.
    pub(super) away: BTreeMap<NodeId, Time>,
    pub(super) health: Option<HealthSnapshot>,
    /// Time from which a transaction of this node's own may be tried again.
    pub(super) retry_at: Time,
    /// Number of tries in a row that lacked a vote.
    pub(super) missed: u32,
    /// Own checks, since the last good one, that found a gate that does not hold.
    pub(super) bad_looks: u64,
    /// Version of the last resume.
    pub(super) resumed_at: u64,
    pub(super) held_told: Option<String>,
    pub(super) took_over: Option<TxId>,
    pub(super) now: Now,
    pub(super) out: Outbox,
}

impl machine::Kind for Rollout {
    type Message = Message;
    type Call = Participant;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for Rollout {
    type Opening = Opening;
    type CallFailure = NodeId;
    type Command = Request;
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
            Input::Command(Request { ticket, command }) => self.on_command(ticket, command),
            Input::Extra(extra) => self.on_extra(extra),
        }
        self.out.drain(fx);
    }
}

impl Rollout {
    /// Returns a machine that has not begun: the first input is [`Input::Start`].
    pub fn new(config: Config, keys: KeyPair, rng: Rng, memory: Memory) -> Self {
        let (state, roster, course) = memory.present(&config);
        let resumed = |it: &&Committed| it.proposal.txid.kind == Kind::Resume;
        let resumed = memory.history.iter().rfind(resumed).map(|it| it.proposal.state.version);
        Self {
            state_digest: state.digest(),
            roster_digest: roster.digest(),
            gone: memory.gone(&config.roster),
            dead: Dead::default(),
            state,
            roster,
            course,
            course_at: Time::ZERO,
            config,
            keys,
            rng,
            memory,
            counter: 0,
            running: None,
            unacked: None,
            early: None,
            probing: None,
            doubt: None,
            recall: None,
            is_serving: false,
            orders: Vec::new(),
            peers: BTreeMap::new(),
            by_link: BTreeMap::new(),
            told_of: BTreeMap::new(),
            places: BTreeMap::new(),
            away: BTreeMap::new(),
            health: None,
            retry_at: Time::ZERO,
            missed: 0,
            bad_looks: 0,
            resumed_at: resumed.unwrap_or(0),
            held_told: None,
            took_over: None,
            now: Now::default(),
            out: Outbox::default(),
        }
    }

    fn on_extra(&mut self, input: ExtraInput) {
        match input {
            ExtraInput::Called { node, host, port } => self.on_called(node, (host, port)),
            ExtraInput::Health(health) => self.on_own_health(health),
            ExtraInput::Probed { model, failure } => self.on_probed(&model, failure),
            ExtraInput::Decided { txid, commit, proof } => self.on_decided(&txid, commit, proof),
            ExtraInput::Dead { keys } => self.on_dead(keys),
        }
    }

    fn on_start(&mut self) {
        // The clock's seconds, because a node that was restored from a backup asks the roster for
        // the names that it has used, and a node outside the roster may know one more.
        let seconds = if self.config.breaks().names_again { 0 } else { self.now.wall.0 / 1000 };
        let epoch = self.memory.epoch.saturating_add(1).max(seconds);
        self.persist(Record::Epoch { epoch });
        self.course_at = self.now.mono;
        for (node, place) in std::mem::take(&mut self.config.places) {
            self.on_told_place(node, place);
        }
        for node in self.roster.nodes().map(|it| it.node_id.clone()) {
            self.away.insert(node, self.now.mono);
        }
        if let Some(proposal) = &self.memory.prepared {
            let txid = proposal.txid.clone();
            self.begin_doubt(txid, self.config.redial_every);
        }
        self.begin_recall();
        self.serve_if_new();
        self.call_soon();
        self.out.at_once(Effect::SetTimer {
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
        let Some(from) = self.by_link.get(&link).cloned() else { return };
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.quiet = 0;
        }
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

    pub(super) fn tell(&mut self, event: Event) {
        self.out.say(Effect::Emit(event));
    }

    /// Serves the committed state. A node without a log must first have heard from all others, and
    /// have the versions that they have committed since (P7).
    pub(super) fn serve(&mut self) {
        let members = self.peers.iter().filter(|(node, _)| self.roster.has(node));
        let beats = members.filter_map(|(_, peer)| peer.heartbeat.as_ref());
        let newest = beats.map(|it| it.last_committed_version).max().unwrap_or(0);
        let knows = !self.is_blank() && newest <= self.state.version;
        self.is_serving |= knows || self.config.breaks().serves_unknown;
        if self.is_serving {
            self.out.say(Effect::Extra(ExtraEffect::Serve(self.serving())));
        }
    }

    /// Serves the committed state, if nothing was served yet.
    pub(super) fn serve_if_new(&mut self) {
        if !self.is_serving {
            self.serve();
        }
    }

    fn serving(&self) -> Serving {
        let plan = self.course.as_ref().map(|it| &it.plan);
        let prepared = self.memory.prepared.as_ref();
        let prepared = prepared.filter(|_| self.config.breaks().serves_last_line);
        Serving {
            state: prepared.map_or(&self.state, |it| &it.state).clone(),
            salt: plan.map_or(0, |it| it.salt),
            sticky: plan.and_then(|it| it.sticky.clone()),
            window: plan.map(|it| std::time::Duration::from_millis(it.window_ms)),
            warm_up: std::time::Duration::from_millis(plan.map_or(0, |it| it.warm_up_ms)),
            brake: self.brake().map(|it| it.reason.clone()),
            removed: self.removed().map(|it| (it.txid.clone(), it.by)),
        }
    }

    /// Names of the voters on a proposal.
    pub(super) fn voters(&self, proposal: &Proposal) -> Vec<NodeId> {
        match &proposal.new_roster {
            Some(new) if self.config.breaks().roster_unagreed => {
                new.nodes().map(|it| it.node_id.clone()).collect()
            }
            _ => proposal.participants(&self.roster).iter().map(|it| it.node_id.clone()).collect(),
        }
    }
}
