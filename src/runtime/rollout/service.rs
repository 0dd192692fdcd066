//! A rollout as a service of the engine.

use crate::proto::rollout::{Genesis, Message, NodeId, Participant};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;

use super::core::{Extra, State};
use super::dialer::Call;
use super::engine::{Entry, Shared};
use super::handshake::{Error, nack};
use super::options::Told;
use super::stage::Phase;
use crate::machine::rollout::{Effect, Event, ExtraEffect, Input, Record, Rollout};
use crate::machine::{LinkId, Never};
use crate::model::Time;
use crate::proto::rollout::{Form, ReadError, Said, encode};
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::link::GARBLED_MAX;
use crate::runtime::engine::link_writer::LinkWriter;
use crate::runtime::engine::service::{Dialog, Service};

/// State of a rollout that all threads share.
pub(super) struct Roll {
    /// This node's name, address and key.
    pub(super) me: Participant,
    /// Addresses that [`Service::seek`] has called, and which are being called or are linked.
    pub(super) busy: Mutex<BTreeSet<String>>,
    /// Last reported reason for which calls to an address fail, by address.
    pub(super) told: Mutex<BTreeMap<String, String>>,
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

type Core = EngineLoop<Roll>;

impl Service for Roll {
    type Machine = Rollout;
    type State = State;
    type Extra = Extra;
    type Notification = Told;
    type Entry = Entry;
    type Said = Said;

    const LOST: log::Level = log::Level::Warn;

    fn machine(state: &mut State) -> Option<&mut Rollout> {
        match &mut state.stage.phase {
            Phase::Forming(_) => None,
            Phase::Running { rollout, .. } => Some(rollout),
        }
    }

    fn start(core: &mut Core) {
        core.begin_or_wait();
    }

    fn on_extra(core: &mut Core, extra: Extra) {
        core.take(extra);
    }

    fn on_opened(core: &mut Core, link: LinkId, peer: Peer) {
        core.welcome(link, peer);
    }

    fn on_input(core: &mut Core, input: Input) {
        match (&mut core.state.stage.phase, input) {
            (Phase::Forming(forming), Input::Closed { link, .. }) => forming.left(link),
            (Phase::Forming(forming), Input::Received { link, msg }) => forming.hear(link, msg),
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

    fn after_send(core: &mut Core, link: LinkId, said: &Said) {
        if let Some(point) = core.state.kill_at.filter(|it| it.comes_after(&said.message)) {
            core.flush(link);
            point.die();
        }
    }

    fn carry_out(core: &mut Core, effect: ExtraEffect) {
        match effect {
            ExtraEffect::Serve(serving) => core.notify(Told::Serve(serving)),
            ExtraEffect::Decide { txid, commit, proof } => {
                core.notify(Told::Decide { txid, commit, proof });
            }
            ExtraEffect::Probe(model) => core.notify(Told::Probe(model)),
            ExtraEffect::Answer(ticket, answer) => core.state.answer(ticket, answer),
        }
    }

    fn persist(core: &mut Core, record: Record) {
        core.entries.push(Entry::Record(Box::new(record)));
    }

    fn end_batch(core: &mut Core) {
        core.let_in();
    }

    fn deadline(state: &State) -> Option<Time> {
        state.deadline()
    }

    fn on_failed(state: &mut State) {
        state.drop_waiting();
    }

    fn note(text: String) -> Told {
        Told::Note(text)
    }

    fn failed(reason: String) -> Told {
        Told::Failed(reason)
    }

    fn said(shared: &Shared, message: Message) -> Said {
        Said { sender: shared.service.me.node_id.clone(), message }
    }

    fn append(form: Form, said: &Said, bytes: &mut Vec<u8>) {
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
                Ok(Some(Said { sender, message: msg })) if sender == *peer => {
                    let item = CoreMsg::Input(Input::Received { link, msg });
                    let pushed = shared.queue.push(item, input.message_bytes());
                    pushed.map_err(|_| "this node is stopping".to_owned())?;
                    continue;
                }
                Ok(Some(Said { sender, .. })) => format!("{sender} is not who proved this key"),
                Ok(None) => return Ok(()),
                Err(ReadError::Malformed { reason }) => reason,
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

    fn seek(shared: &Arc<Shared>, stopping: &Receiver<Never>) {
        shared.seek(stopping);
    }

    fn on_called(shared: &Shared, call: &Call, _peer: &Peer) {
        let mut told = shared.service.told.lock().expect("nothing under this lock can panic");
        told.remove(&call.at);
    }

    fn on_call_failed(shared: &Shared, call: &Call, error: &Error) {
        log::debug!("cannot reach {}: {error}", call.at);
        if error.is_refusal() {
            shared.note_refusal(call, &error.to_string());
        }
    }
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// Tells the other end of a connection the fault of its message.
fn refuse(shared: &Shared, writer: &LinkWriter, form: Form, reason: &str) {
    // With a cluster key the core thread seals all that is sent, so no other thread may write.
    if shared.keys.is_none() {
        let _ = writer.send(Roll::encode(form, &nack(reason)));
    }
}
