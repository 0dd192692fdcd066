//! State of the core thread of a rollout, and the steps that surround the machine: the beginning of
//! its history, the nodes that are let in, the operators that wait for an answer.

use crate::proto::rollout::{Cause, Genesis, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::KillPoint;
use super::engine::Entry;
use super::options::{Habits, Told};
use super::service::{Peer, Roll};
use super::stage::{Phase, Stage};
use crate::machine::rollout::{
    Answer, Command, Config, ExtraInput, Input, Memory, Opening, Request, Rollout,
};
use crate::machine::{LinkId, Ticket};
use crate::model::{KeyPair, PublicKey, Time};
use crate::runtime::engine::core::EngineLoop;
use crate::runtime::files::os_rng;

/// Pause between two attempts to let a node in; two nodes that try at once abort each other.
const ADMISSION_PAUSE: Duration = Duration::from_millis(700);

/// Message to the core thread that only a rollout has.
pub(super) enum Extra {
    /// An order of an operator.
    Command(Command, Sender<Answer>),
    /// A name, and the key that the fleet vouches for.
    Vouch(NodeId, PublicKey, Sender<bool>),
    /// The keys of all members whose end the seeds certify.
    Dead(BTreeSet<PublicKey>),
    /// A node that an operator lets in, and the first digits of its key.
    Admit(NodeId, String, Sender<Vec<PublicKey>>),
}

/// State of the core thread beside its links.
pub(super) struct State {
    pub(super) stage: Stage,
    pub(super) kill_at: Option<KillPoint>,
    /// Content of the log, until the machine begins.
    past: Option<(Genesis, Memory)>,
    habits: Option<Habits>,
    waiting: BTreeMap<Ticket, Sender<Answer>>,
    last_ticket: u64,
    /// Order in flight that lets a node in, if any; `admission_at` is the earliest time of the
    /// next.
    admission: Option<Ticket>,
    admission_at: Time,
}

impl State {
    pub(super) fn new(
        stage: Stage,
        past: Option<(Genesis, Memory)>,
        habits: Habits,
        kill_at: Option<KillPoint>,
    ) -> Self {
        Self {
            stage,
            kill_at,
            past,
            habits: Some(habits),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            admission: None,
            admission_at: Time::ZERO,
        }
    }

    fn is_asked(&self) -> bool {
        self.admission.is_none() && self.stage.is_asked()
    }

    /// Time at which a node is to be let in, if one is.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.is_asked().then_some(self.admission_at)
    }

    /// Drops the operators that wait for an answer.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Passes the answer to a command on.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if self.admission == Some(ticket) {
            self.admission = None;
        } else if let Some(reply) = self.waiting.remove(&ticket) {
            // The caller may have gone meanwhile.
            let _ = reply.try_send(answer);
        }
    }
}

impl EngineLoop<Roll> {
    /// Resumes the history of the log, or begins one if all of it is known.
    pub(super) fn begin_or_wait(&mut self) {
        match self.state.past.take() {
            Some((genesis, memory)) => self.begin(genesis, memory, false),
            None => self.begin_if_complete(),
        }
    }

    pub(super) fn take(&mut self, extra: Extra) {
        match extra {
            Extra::Command(command, reply) => self.command(command, reply),
            Extra::Vouch(node, key, reply) => {
                // The caller may have gone meanwhile.
                let _ = reply.try_send(self.state.stage.asking.vouch(node, key));
                self.state.admission_at = Time::ZERO;
            }
            Extra::Dead(keys) => {
                self.state.stage.asking.bury(keys.clone());
                self.handle(Input::Extra(ExtraInput::Dead { keys }));
            }
            Extra::Admit(node, digits, reply) => {
                let meant = self.state.stage.asking.admit(&node, &digits);
                if let [key] = meant[..] {
                    self.make_room(&node, key);
                }
                let _ = reply.try_send(meant);
                self.state.admission_at = Time::ZERO;
            }
        }
    }

    /// Hangs up on the node that holds this name with another key, as an operator wants the name
    /// for this one.
    fn make_room(&mut self, node: &NodeId, key: PublicKey) {
        let Phase::Running { rollout, .. } = &self.state.stage.phase else { return };
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
        let is_known = match &self.state.stage.phase {
            Phase::Running { rollout, .. } => rollout.roster().has(&node),
            Phase::Forming(_) => !joins,
        };
        if self.state.stage.asking.is_wanted(&other) {
            self.make_room(&node, key);
        }
        if !is_known {
            let is_linked = match &self.state.stage.phase {
                Phase::Running { rollout, .. } => !rollout.is_claimed(&node, key),
                Phase::Forming(_) => true,
            };
            self.state.stage.asking.came(other, joins, is_linked);
        }
        match &mut self.state.stage.phase {
            Phase::Running { .. } => {
                self.handle(Input::Opened { link, opening: Opening { node, key } });
                if let Some((node, host, port)) = place {
                    self.handle(Input::Extra(ExtraInput::Called { node, host, port }));
                }
            }
            Phase::Forming(forming) => {
                if let Some(genesis) = forming.arrived(link, (node, key), genesis) {
                    self.begin(genesis, Memory::default(), true);
                }
            }
        }
    }

    fn begin_if_complete(&mut self) {
        let Phase::Forming(forming) = &self.state.stage.phase else { return };
        if let Some(genesis) = forming.complete() {
            self.begin(genesis, Memory::default(), true);
        }
    }

    /// Begins a new history, or resumes that of the log.
    fn begin(&mut self, genesis: Genesis, memory: Memory, is_new: bool) {
        let Some(habits) = self.state.habits.take() else { return };
        let me = self.shared.service.me.node_id.clone();
        let rng = match os_rng() {
            Ok(rng) => rng,
            Err(error) => return self.fail(error.to_string()),
        };
        let mut config = Config::new(me.clone(), genesis.roster.clone(), genesis.state.clone());
        habits(&mut config);
        if let Phase::Forming(forming) = &self.state.stage.phase {
            config.places = forming.places();
        }
        let keys = KeyPair::from_secret(self.shared.keys_of_mine.secret_bytes());
        let rollout = Box::new(Rollout::new(config, keys, rng, memory));
        let phase = Phase::Running { rollout, genesis: genesis.clone() };
        let before = std::mem::replace(&mut self.state.stage.phase, phase);
        let nodes = genesis.roster.nodes().map(|it| it.node_id.clone()).collect();
        if is_new {
            self.notify(Told::Founded(nodes));
            self.preface = 1;
            self.entries.push(Entry::Genesis { node_id: me, genesis });
        }
        self.handle(Input::Start);
        let keys = self.state.stage.asking.dead.clone();
        self.handle(Input::Extra(ExtraInput::Dead { keys }));
        if let Phase::Forming(forming) = before {
            for (link, node, key) in forming.arrived {
                self.handle(Input::Opened { link, opening: Opening { node, key } });
            }
            for (link, msg) in forming.early {
                self.handle(Input::Received { link, msg });
            }
        }
    }

    fn command(&mut self, command: Command, reply: Sender<Answer>) {
        if let Phase::Forming(forming) = &self.state.stage.phase {
            let waits_for = forming.waits_for().join(", ");
            let reason = format!("this node has not begun; it waits for {waits_for}");
            let _ = reply.try_send(Answer::Refused { cause: Cause::Roster, reason, running: None });
            return;
        }
        if self.has_failed {
            // Without its reply, the operator learns at once that there is no answer to wait for.
            return;
        }
        let ticket = self.state.ticket();
        self.state.waiting.insert(ticket, reply);
        self.handle(Input::Command(Request { ticket, command }));
    }

    /// Lets in the next node that is to be let in, one at a time.
    pub(super) fn let_in(&mut self) {
        let now = self.shared.clock.now().mono;
        if !self.state.is_asked() || now < self.state.admission_at {
            return;
        }
        self.state.admission_at = now.after(ADMISSION_PAUSE);
        let Phase::Running { rollout, .. } = &self.state.stage.phase else { return };
        if let Some(roster) = self.state.stage.asking.next(rollout) {
            let ticket = self.state.ticket();
            self.state.admission = Some(ticket);
            self.handle(Input::Command(Request { ticket, command: Command::Roster(roster) }));
        }
    }
}
