//! A chat as a service of the engine.

use crate::proto::chat::entry::{HostPort, Member, MemberId};
use crate::proto::chat::message::{JoinAck, JoinIntent, Message, VerifyReq, VerifyResp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::Receiver;

use super::core::{ChatCoreMsg, ChatCoreState};
use super::dialer::{CallTarget, DialTarget};
use super::engine::Shared;
use super::handshake::Error;
use super::loader::Library;
use super::options::{ChatNotification, KeyFilter};
use super::verify::Answers;
use crate::machine::chat::{Event, ExtraEffect, ExtraInput, Input, Record, Replica, Timer};
use crate::machine::{LinkId, Never};
use crate::model::Endpoint;
use crate::proto::chat as proto;
use crate::proto::line::LineError;
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::core_queue::Closed;
use crate::runtime::engine::link::GARBLED_MAX;
use crate::runtime::engine::link_writer::LinkWriter;
use crate::runtime::engine::service::Service;
use crate::runtime::member_log::jobs::Jobs;

/// Largest number of running hashes in one answer.
pub(super) const VERIFY_MAX: usize = 64;

/// State of a chat that all threads share.
pub(super) struct ChatService {
    pub(super) me: Member,
    pub(super) key_filter: Option<KeyFilter>,
    pub(super) places: Mutex<Vec<DialTarget>>,
    pub(super) verify: Answers,
    pub(super) jobs: Jobs<Library>,
    /// Address at which another group refuses this member, and its words.
    pub(super) other_group: Mutex<Option<(Endpoint, String)>>,
}

impl ChatService {
    pub(super) fn other_group(&self) -> MutexGuard<'_, Option<(Endpoint, String)>> {
        self.other_group.lock().expect("nothing under this lock can panic")
    }
}

/// Other end of a connection, whose key is proved.
pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) intent: JoinIntent,
    /// Random number of the process at the other end.
    pub(super) life: Option<u64>,
    /// Last message of the called member, if this end called.
    pub(super) ack: Option<JoinAck>,
}

type Core = EngineLoop<ChatService>;

impl Service for ChatService {
    type Machine = Replica;
    type State = ChatCoreState;
    type Extra = ChatCoreMsg;
    type Notification = ChatNotification;
    type Entry = Record;
    type Said = Message;

    const LOST: log::Level = log::Level::Debug;

    fn machine(state: &mut ChatCoreState) -> Option<&mut Replica> {
        Some(&mut state.group)
    }

    fn start(core: &mut Core) {
        core.handle(Input::Start);
        core.handle(Input::Extra(ExtraInput::Idle));
    }

    fn on_extra(core: &mut Core, extra: ChatCoreMsg) {
        core.take(extra);
    }

    fn on_opened(core: &mut Core, link: LinkId, peer: Peer) {
        core.welcome(link, peer);
    }

    fn before_timer(core: &mut Core, timer: &Timer) {
        if *timer == Timer::Pulse {
            core.tell_signs_of_life();
        }
    }

    fn before_event(core: &mut Core, event: &Event) {
        if *event == Event::Gone {
            core.on_gone();
        } else if matches!(event, Event::Dropped(_)) {
            core.shared.counters.dropped.add(1);
        }
    }

    fn carry_out(core: &mut Core, effect: ExtraEffect) {
        core.carry_out_extra(effect);
    }

    fn persist(core: &mut Core, record: Record) {
        core.add_record(record);
    }

    fn end_batch(core: &mut Core) {
        core.handle(Input::Extra(ExtraInput::Idle));
    }

    fn on_failed(state: &mut ChatCoreState) {
        state.wake_waiting();
    }

    fn note(text: String) -> ChatNotification {
        ChatNotification::Note(text)
    }

    fn failed(reason: String) -> ChatNotification {
        ChatNotification::Failed(reason)
    }

    fn said(_shared: &Shared, message: Message) -> Message {
        message
    }

    fn append((): (), message: &Message, bytes: &mut Vec<u8>) {
        proto::append(message, bytes);
        debug_assert!(bytes.len() <= proto::LINE_BYTES_MAX, "a line that nobody reads");
    }

    fn read(
        shared: &Shared,
        (link, _): (LinkId, &LinkWriter),
        (_, is_member): &(MemberId, bool),
        input: &mut Self::Reader,
    ) -> Result<(), String> {
        let is_member = *is_member;
        let mut garbled = 0;
        let ended = |_: Closed| "this member is stopping".to_owned();
        loop {
            match input.read() {
                Ok(Some(Message::VerifyReq(question))) if is_member => {
                    shared.answer_verify(link, question).map_err(ended)?;
                }
                Ok(Some(Message::VerifyResp(answer)))
                    if is_member && !shared.service.verify.is_awaited(answer.question) =>
                {
                    // A sign of life, which the machine has asked for.
                    let msg = Message::VerifyResp(answer);
                    shared
                        .queue
                        .push_of(link, CoreMsg::Input(Input::Received { link, msg }), 0)
                        .map_err(ended)?;
                }
                Ok(Some(Message::VerifyResp(answer))) if is_member => {
                    shared.service.verify.take(answer);
                }
                Ok(Some(msg)) => {
                    let bytes = input.line_bytes();
                    let item = CoreMsg::Input(Input::Received { link, msg });
                    shared.queue.push_of(link, item, bytes).map_err(ended)?;
                }
                Ok(None) => return Ok(()),
                Err(LineError::Malformed { reason }) => {
                    shared.counters.refused_message.add(1);
                    garbled += 1;
                    shared
                        .queue
                        .push_of(link, CoreMsg::Extra(ChatCoreMsg::Garbled { link, reason }), 0)
                        .map_err(ended)?;
                    if garbled > GARBLED_MAX {
                        return Err("it says what is no message".to_owned());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn target(member: Member) -> (CallTarget, MemberId) {
        let Member { id, at: HostPort { host, port }, key } = member;
        (
            CallTarget {
                addr: (host, port).into(),
                id: Some(id),
                key: Some(key),
                configured: None,
            },
            id,
        )
    }

    fn dial_members(shared: &Arc<Shared>, stopping: &Receiver<Never>) {
        shared.dial_members(stopping);
    }

    fn on_called(shared: &Shared, target: &CallTarget, peer: &Peer) {
        if let Some(at) = target.configured {
            shared.found_at(at, peer.member.id);
        }
    }

    fn on_call_failed(shared: &Shared, target: &CallTarget, error: &Error) {
        if let Some(at) = target.configured {
            return shared.place_failed(at, error);
        }
        log::debug!("cannot reach {:?} at {}: {error}", target.id, target.addr);
        shared.on_handshake_error(error);
    }
}

impl From<Event> for ChatNotification {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl Shared {
    /// Members at the other ends of open connections.
    pub(super) fn linked_members(&self) -> BTreeSet<MemberId> {
        self.member_links().into_keys().collect()
    }

    /// A connection with each linked member.
    pub(super) fn member_links(&self) -> BTreeMap<MemberId, LinkId> {
        let peers = self.peers().into_iter();
        peers.filter(|(_, (_, is_member))| *is_member).map(|(link, it)| (it.0, link)).collect()
    }

    /// Looks up running hashes in the log for another member (C11).
    fn answer_verify(&self, link: LinkId, question: VerifyReq) -> Result<(), Closed> {
        let commit = self.ask(|state| state.group.status().commit)?;
        if question.at.is_empty() {
            // A sign of life is wanted; no disk is to hold it up.
            let (sender_id, question) = (self.service.me.id, question.question);
            let answer = VerifyResp { sender_id, question, commit, hashes: Vec::new() };
            return self
                .queue
                .push(CoreMsg::Extra(ChatCoreMsg::Answer(link, Message::VerifyResp(answer))), 0);
        }
        let mut at = question.at;
        at.retain(|seq| *seq <= commit);
        at.truncate(VERIFY_MAX);
        at.sort_unstable();
        if let Some(Ok(hashes)) = self.service.jobs.ask(move |it| it.reader.hashes(&at))? {
            let (sender_id, question) = (self.service.me.id, question.question);
            let answer = VerifyResp { sender_id, question, commit, hashes };
            self.queue
                .push(CoreMsg::Extra(ChatCoreMsg::Answer(link, Message::VerifyResp(answer))), 0)?;
        }
        Ok(())
    }
}
