//! State of the core thread of a rollout, and the steps that surround the machine: the beginning of
//! its history, the nodes that are let in, the operators that wait for an answer.

use crate::proto::rollout::{AbortCause, Genesis, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::KillPoint;
use super::engine::Entry;
use super::node_state::{NodeState, Phase};
use super::options::{ConfigOverrides, RolloutNotification};
use super::service::{Peer, RolloutService};
use crate::machine::LinkId;
use crate::machine::rollout::{
    Command, CommandId, CommandRequest, CommandResult, Config, ExtraInput, Input, Opening,
    RolloutMachine, RolloutMemory, ServerDigests,
};
use crate::model::{KeyPair, PublicKey, Time};
use crate::runtime::engine::core::EngineLoop;
use crate::runtime::files::os_rng;

/// Pause between two attempts to let a node in; two nodes that try at once abort each other.
const ADMISSION_PAUSE: Duration = Duration::from_millis(700);

/// Message to the core thread that only a rollout has.
pub(super) enum RolloutCoreMsg {
    /// An order of an operator.
    Command(Command, Sender<CommandResult>),
    /// A name, and the key that the fleet vouches for.
    Vouch(NodeId, PublicKey, Sender<bool>),
    /// The keys of all members whose end the seeds certify.
    Dead(BTreeSet<PublicKey>),
    /// A node that an operator lets in, and the first digits of its key.
    Admit(NodeId, String, Sender<Vec<PublicKey>>),
    /// A change of this node's servers; answered by the reason of a refusal.
    Servers(ServerDigests, Sender<Result<(), String>>),
}

/// State of the core thread beside its links.
pub(super) struct RolloutCoreState {
    pub(super) node_state: NodeState,
    pub(super) kill_at: Option<KillPoint>,
    /// Content of the log, until the machine begins.
    past: Option<(Genesis, RolloutMemory)>,
    overrides: Option<ConfigOverrides>,
    /// Changes of servers before the machine begins.
    servers: ServerDigests,
    waiting: BTreeMap<CommandId, Sender<CommandResult>>,
    last_ticket: u64,
    /// Order in flight that lets a node in, if any; `admission_at` is the earliest time of the
    /// next.
    admission: Option<CommandId>,
    admission_at: Time,
}

impl RolloutCoreState {
    pub(super) fn new(
        node_state: NodeState,
        past: Option<(Genesis, RolloutMemory)>,
        overrides: ConfigOverrides,
        kill_at: Option<KillPoint>,
    ) -> Self {
        Self {
            node_state,
            kill_at,
            past,
            overrides: Some(overrides),
            servers: ServerDigests::new(),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            admission: None,
            admission_at: Time::ZERO,
        }
    }

    fn is_asked(&self) -> bool {
        self.admission.is_none() && self.node_state.is_asked()
    }

    /// Time at which a node is to be let in, if one is.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.is_asked().then_some(self.admission_at)
    }

    /// Drops the operators that wait for an answer.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    fn ticket(&mut self) -> CommandId {
        self.last_ticket += 1;
        CommandId(self.last_ticket)
    }

    /// Passes the answer to a command on.
    pub(super) fn answer(&mut self, ticket: CommandId, answer: CommandResult) {
        if self.admission == Some(ticket) {
            self.admission = None;
        } else if let Some(reply) = self.waiting.remove(&ticket) {
            // The caller may have gone meanwhile.
            let _ = reply.try_send(answer);
        }
    }
}

impl EngineLoop<RolloutService> {
    /// Resumes the history of the log, or begins one if all of it is known.
    pub(super) fn begin_or_wait(&mut self) {
        match self.state.past.take() {
            Some((genesis, memory)) => self.begin(genesis, memory, false),
            None => self.begin_if_complete(),
        }
    }

    pub(super) fn take(&mut self, extra: RolloutCoreMsg) {
        match extra {
            RolloutCoreMsg::Command(command, reply) => self.command(command, reply),
            RolloutCoreMsg::Vouch(node, key, reply) => {
                // The caller may have gone meanwhile.
                let _ = reply.try_send(self.state.node_state.pending_members.vouch(node, key));
                self.state.admission_at = Time::ZERO;
            }
            RolloutCoreMsg::Dead(keys) => {
                self.state.node_state.pending_members.mark_dead(keys.clone());
                self.handle(Input::Extra(ExtraInput::Dead { keys }));
            }
            RolloutCoreMsg::Servers(changes, reply) => {
                let answer = self.change_servers(changes);
                let _ = reply.try_send(answer);
            }
            RolloutCoreMsg::Admit(node, digits, reply) => {
                let meant = self.state.node_state.pending_members.admit(&node, &digits);
                if let [key] = meant[..] {
                    self.make_room(&node, key);
                }
                let _ = reply.try_send(meant);
                self.state.admission_at = Time::ZERO;
            }
        }
    }

    fn change_servers(&mut self, changes: ServerDigests) -> Result<(), String> {
        match &self.state.node_state.phase {
            // It has voted for nothing yet.
            Phase::Forming(_) => self.state.servers.extend(changes),
            Phase::Running { rollout, .. } => {
                rollout.may_change_servers(&changes)?;
                self.handle(Input::Extra(ExtraInput::Servers(changes)));
            }
        }
        Ok(())
    }

    /// Hangs up on the node that holds this name with another key, as an operator wants the name
    /// for this one.
    fn make_room(&mut self, node: &NodeId, key: PublicKey) {
        let Phase::Running { rollout, .. } = &self.state.node_state.phase else { return };
        if let Some((link, _)) = rollout.stranger(node).filter(|it| it.1 != key) {
            let now = self.shared.clock.now().mono;
            self.hang_up(now, link);
            self.handle(Input::closed(link, ""));
        }
    }

    /// Takes a connection whose other end has proved its key.
    pub(super) fn welcome(&mut self, link: LinkId, peer: Peer) {
        let Peer { other, is_caller, joins, genesis } = peer;
        let (node, key) = (other.node_id.clone(), other.key);
        let place = is_caller.then(|| (node.clone(), other.host.clone(), other.port));
        let is_known = match &self.state.node_state.phase {
            Phase::Running { rollout, .. } => rollout.roster().has(&node),
            Phase::Forming(_) => !joins,
        };
        if self.state.node_state.pending_members.is_wanted(&other) {
            self.make_room(&node, key);
        }
        if !is_known {
            let is_linked = match &self.state.node_state.phase {
                Phase::Running { rollout, .. } => !rollout.is_claimed(&node, key),
                Phase::Forming(_) => true,
            };
            self.state.node_state.pending_members.came(other, joins, is_linked);
        }
        match &mut self.state.node_state.phase {
            Phase::Running { .. } => {
                self.handle(Input::Opened { link, opening: Opening { node, key } });
                if let Some((node, host, port)) = place {
                    self.handle(Input::Extra(ExtraInput::Called { node, host, port }));
                }
            }
            Phase::Forming(bootstrapping) => {
                if let Some(genesis) = bootstrapping.arrived(link, (node, key), genesis) {
                    self.begin(genesis, RolloutMemory::default(), true);
                }
            }
        }
    }

    fn begin_if_complete(&mut self) {
        let Phase::Forming(bootstrapping) = &self.state.node_state.phase else { return };
        if let Some(genesis) = bootstrapping.complete() {
            self.begin(genesis, RolloutMemory::default(), true);
        }
    }

    /// Begins a new history, or resumes that of the log.
    fn begin(&mut self, genesis: Genesis, memory: RolloutMemory, is_new: bool) {
        let Some(overrides) = self.state.overrides.take() else { return };
        let me = self.shared.service.me.node_id.clone();
        let rng = match os_rng() {
            Ok(rng) => rng,
            Err(error) => return self.fail(error.to_string()),
        };
        let mut config = Config::new(me.clone(), genesis.roster.clone(), genesis.state.clone());
        overrides(&mut config);
        if let Phase::Forming(bootstrapping) = &self.state.node_state.phase {
            config.places = bootstrapping.places();
        }
        let keys = KeyPair::from_secret(self.shared.keys_of_mine.secret_bytes());
        let rollout = Box::new(RolloutMachine::new(config, keys, rng, memory));
        let phase = Phase::Running { rollout, genesis: genesis.clone() };
        let before = std::mem::replace(&mut self.state.node_state.phase, phase);
        let nodes = genesis.roster.nodes().map(|it| it.node_id.clone()).collect();
        if is_new {
            self.notify(RolloutNotification::Founded(nodes));
            self.preface = 1;
            self.entries.push(Entry::Genesis { node_id: me, genesis });
        }
        self.handle(Input::Start);
        let servers = std::mem::take(&mut self.state.servers);
        if !servers.is_empty() {
            self.handle(Input::Extra(ExtraInput::Servers(servers)));
        }
        let keys = self.state.node_state.pending_members.dead.clone();
        self.handle(Input::Extra(ExtraInput::Dead { keys }));
        if let Phase::Forming(bootstrapping) = before {
            for (link, node, key) in bootstrapping.arrived {
                self.handle(Input::Opened { link, opening: Opening { node, key } });
            }
            for (link, msg) in bootstrapping.early {
                self.handle(Input::Received { link, msg });
            }
        }
    }

    fn command(&mut self, command: Command, reply: Sender<CommandResult>) {
        if let Phase::Forming(bootstrapping) = &self.state.node_state.phase {
            let waits_for = bootstrapping.waits_for().join(", ");
            let reason = format!("this node has not begun; it waits for {waits_for}");
            let _ = reply.try_send(CommandResult::Refused {
                cause: AbortCause::Roster,
                reason,
                running: None,
            });
            return;
        }
        if self.has_failed {
            // Without its reply, the operator learns at once that there is no answer to wait for.
            return;
        }
        let ticket = self.state.ticket();
        self.state.waiting.insert(ticket, reply);
        self.handle(Input::Command(CommandRequest { ticket, command }));
    }

    /// Lets in the next node that is to be let in, one at a time.
    pub(super) fn let_in(&mut self) {
        let now = self.shared.clock.now().mono;
        if !self.state.is_asked() || now < self.state.admission_at {
            return;
        }
        self.state.admission_at = now.after(ADMISSION_PAUSE);
        let Phase::Running { rollout, .. } = &self.state.node_state.phase else { return };
        if let Some(roster) = self.state.node_state.pending_members.next(rollout) {
            let ticket = self.state.ticket();
            self.state.admission = Some(ticket);
            self.handle(Input::Command(CommandRequest {
                ticket,
                command: Command::Roster(roster),
            }));
        }
    }
}
