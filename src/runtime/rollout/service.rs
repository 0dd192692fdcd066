//! A rollout as a service of the engine.

use crate::proto::rollout::{Genesis, Message, NodeId, Participant};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;

use super::core::{RolloutCoreMsg, RolloutCoreState};
use super::dialer::Call;
use super::engine::{Entry, Shared};
use super::handshake::{Error, nack};
use super::node_state::Phase;
use super::options::RolloutNotification;
use crate::machine::rollout::{Effect, Event, ExtraEffect, Input, Record, RolloutMachine};
use crate::machine::{LinkId, Never};
use crate::model::Time;
use crate::proto::rollout::{Encoding, EncodingError, StatedMessage, encode};
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::link::GARBLED_MAX;
use crate::runtime::engine::link_writer::LinkWriter;
use crate::runtime::engine::service::{HandshakeDialect, Service};

/// State of a rollout that all threads share.
pub(super) struct RolloutService {
    /// This node's name, address and key.
    pub(super) me: Participant,
    /// Addresses that [`Service::dial_members`] has called, and which are being called or are
    /// linked.
    pub(super) busy: Mutex<BTreeSet<String>>,
    /// Last reported reason for which calls to an address fail, by address.
    pub(super) last_errors: Mutex<BTreeMap<String, String>>,
}

/// Other end of a connection, whose key is proved.
pub(super) struct Peer {
    /// Name, address and key of the other end.
    pub(super) other: Participant,
    /// True if the other end called, so that the address in its ENROLL is its own word.
    pub(super) is_caller: bool,
    /// True if the other end asks to be let in.
    pub(super) joins: bool,
    /// Beginning of the other end's history, if it told it.
    pub(super) genesis: Option<Genesis>,
}

type Core = EngineLoop<RolloutService>;

impl Service for RolloutService {
    type Machine = RolloutMachine;
    type State = RolloutCoreState;
    type Extra = RolloutCoreMsg;
    type Notification = RolloutNotification;
    type Entry = Entry;
    type Said = StatedMessage;

    const LOST: log::Level = log::Level::Warn;

    fn machine(state: &mut RolloutCoreState) -> Option<&mut RolloutMachine> {
        match &mut state.node_state.phase {
            Phase::Forming(_) => None,
            Phase::Running { rollout, .. } => Some(rollout),
        }
    }

    fn start(core: &mut Core) {
        core.begin_or_wait();
    }

    fn on_extra(core: &mut Core, extra: RolloutCoreMsg) {
        core.take(extra);
    }

    fn on_opened(core: &mut Core, link: LinkId, peer: Peer) {
        core.welcome(link, peer);
    }

    fn on_input(core: &mut Core, input: Input) {
        match (&mut core.state.node_state.phase, input) {
            (Phase::Forming(bootstrapping), Input::Closed { link, .. }) => bootstrapping.left(link),
            (Phase::Forming(bootstrapping), Input::Received { link, msg }) => {
                bootstrapping.hear(link, msg);
            }
            (_, input) => core.handle(input),
        }
    }

    fn before_effect(core: &mut Core, effect: &Effect) {
        let me = &core.shared.service.me.node_id;
        if let Some(point) = core.state.kill_at.filter(|it| it.comes_before(me, effect)) {
            point.die();
        }
    }

    fn before_event(core: &mut Core, event: &Event) {
        if matches!(event, Event::Dropped(..)) {
            core.shared.counters.dropped.add(1);
        }
    }

    fn after_send(core: &mut Core, link: LinkId, said: &StatedMessage) {
        if let Some(point) = core.state.kill_at.filter(|it| it.comes_after(&said.message)) {
            core.flush(link);
            point.die();
        }
    }

    fn carry_out(core: &mut Core, effect: ExtraEffect) {
        match effect {
            ExtraEffect::Serve(serving) => core.notify(RolloutNotification::Serve(serving)),
            ExtraEffect::Decide { txid, commit, proof } => {
                core.notify(RolloutNotification::Decide { txid, commit, proof });
            }
            ExtraEffect::ChangeServers { version, changes } => {
                core.notify(RolloutNotification::ChangeServers { version, changes });
            }
            ExtraEffect::Probe(model) => core.notify(RolloutNotification::Probe(model)),
            ExtraEffect::Answer(ticket, answer) => core.state.answer(ticket, answer),
        }
    }

    fn persist(core: &mut Core, record: Record) {
        core.entries.push(Entry::Record(Box::new(record)));
    }

    fn end_batch(core: &mut Core) {
        core.let_in();
    }

    fn deadline(state: &RolloutCoreState) -> Option<Time> {
        state.deadline()
    }

    fn on_failed(state: &mut RolloutCoreState) {
        state.drop_waiting();
    }

    fn note(text: String) -> RolloutNotification {
        RolloutNotification::Note(text)
    }

    fn failed(reason: String) -> RolloutNotification {
        RolloutNotification::Failed(reason)
    }

    fn said(shared: &Shared, message: Message) -> StatedMessage {
        StatedMessage { sender: shared.service.me.node_id.clone(), message }
    }

    fn append(form: Encoding, said: &StatedMessage, bytes: &mut Vec<u8>) {
        bytes.append(&mut encode(form, said));
    }

    fn read(
        shared: &Shared,
        (link, writer): (LinkId, &LinkWriter),
        peer: &NodeId,
        input: &mut Self::Reader,
    ) -> Result<(), String> {
        let mut garbled = 0;
        loop {
            let reason = match input.read() {
                Ok(Some(StatedMessage { sender, message: msg })) if sender == *peer => {
                    let item = CoreMsg::Input(Input::Received { link, msg });
                    let pushed = shared.queue.push_of(link, item, input.message_bytes());
                    pushed.map_err(|_| "this node is stopping".to_owned())?;
                    continue;
                }
                Ok(Some(StatedMessage { sender, .. })) => {
                    format!("{sender} is not who proved this key")
                }
                Ok(None) => return Ok(()),
                Err(EncodingError::Malformed { reason }) => reason,
                Err(error) if error.is_recoverable() => error.to_string(),
                Err(error) => {
                    // The next message cannot be found: the other end is told, and the connection
                    // ends.
                    refuse(shared, writer, input.form(), &error.to_string());
                    return Err(error.to_string());
                }
            };
            shared.counters.refused_message.add(1);
            refuse(shared, writer, input.form(), &reason);
            garbled += 1;
            if garbled > GARBLED_MAX {
                return Err("it says what is no message".to_owned());
            }
        }
    }

    fn target(participant: Participant) -> (Call, NodeId) {
        let Participant { node_id, host, port, key } = participant;
        let at = format!("{host}:{port}");
        (Call { node: Some(node_id.clone()), key: Some(key), at, joins: false }, node_id)
    }

    fn dial_members(shared: &Arc<Shared>, stopping: &Receiver<Never>) {
        shared.dial_members(stopping);
    }

    fn on_called(shared: &Shared, call: &Call, _peer: &Peer) {
        let mut last_errors =
            shared.service.last_errors.lock().expect("nothing under this lock can panic");
        last_errors.remove(&call.at);
    }

    fn on_call_failed(shared: &Shared, call: &Call, error: &Error) {
        log::debug!("cannot reach {}: {error}", call.at);
        if error.is_refusal() {
            shared.note_refusal(call, &error.to_string());
        }
    }
}

impl From<Event> for RolloutNotification {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// Tells the other end of a connection the fault of its message.
fn refuse(shared: &Shared, writer: &LinkWriter, form: Encoding, reason: &str) {
    // With a cluster key the core thread seals all that is sent, so no other thread may write.
    if shared.keys.is_none() {
        let _ = writer.send(RolloutService::encode(form, &nack(reason)));
    }
}
