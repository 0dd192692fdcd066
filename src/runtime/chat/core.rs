//! State of the core thread of a chat, and the messages to it that only a chat has.

use crate::proto::chat::message::{Message, Nack, NackCode};
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::options::ChatNotification;
use super::service::{ChatService, Peer};
use crate::machine::LinkId;
use crate::machine::chat::{Event, ExtraEffect, ExtraInput, Input, Opening, Record, Replica};
use crate::runtime::engine::core::EngineLoop;

/// Largest number of texts that are told with a refusal, and of characters of each.
const UNFINISHED_MAX: usize = 20;
const UNFINISHED_CHARS: usize = 200;

/// Message to the core thread that only a chat has.
pub(super) enum ChatCoreMsg {
    /// A connection has sent a line that is no message.
    Garbled { link: LinkId, reason: String },
    /// An answer that the machine has no part in.
    Answer(LinkId, Message),
    /// A thread waits for the end of this member's leaving.
    AwaitGone(Sender<()>),
    /// Another member has refused this one.
    Refused(String),
}

/// State of the core thread beside its links.
pub(super) struct ChatCoreState {
    pub(super) group: Replica,
    is_gone: bool,
    waiting: Vec<Sender<()>>,
    /// Reason of this member's refusal, as last reported.
    refused: Option<String>,
}

impl ChatCoreState {
    pub(super) const fn new(group: Replica) -> Self {
        Self { group, is_gone: false, waiting: Vec::new(), refused: None }
    }

    /// Wakes the threads that wait for the end of this member's leaving.
    pub(super) fn wake_waiting(&mut self) {
        for tell in self.waiting.drain(..) {
            let _ = tell.try_send(());
        }
    }
}

impl EngineLoop<ChatService> {
    pub(super) fn take(&mut self, extra: ChatCoreMsg) {
        match extra {
            ChatCoreMsg::Garbled { link, reason } => {
                let refusal = self.refusal(NackCode::Malformed, reason);
                self.send(&[link], Message::Nack(refusal));
            }
            ChatCoreMsg::Answer(link, message) => self.send(&[link], message),
            ChatCoreMsg::AwaitGone(tell) if self.state.is_gone || self.has_failed => {
                let _ = tell.try_send(());
            }
            ChatCoreMsg::AwaitGone(tell) => self.state.waiting.push(tell),
            ChatCoreMsg::Refused(reason) => self.on_refused(reason),
        }
    }

    /// Takes a connection whose other end has proved its key.
    pub(super) fn welcome(&mut self, link: LinkId, peer: Peer) {
        let Peer { member, intent, life, ack } = peer;
        let is_ours = ack.is_some();
        self.handle(Input::Opened { link, opening: Opening { member, intent, is_ours, life } });
        if let Some(ack) = ack {
            self.handle(Input::Received { link, msg: Message::JoinAck(ack) });
        }
    }

    /// Reports connections that have read as alive: a long message on a slow way is a sign of life
    /// before it is whole.
    pub(super) fn tell_signs_of_life(&mut self) {
        for link in self.stirred() {
            self.handle(Input::Extra(ExtraInput::Stirred { link }));
        }
    }

    pub(super) fn add_record(&mut self, record: Record) {
        self.entries.push(record);
        self.shared.service.jobs.count_record();
    }

    pub(super) fn carry_out_extra(&mut self, effect: ExtraEffect) {
        match effect {
            ExtraEffect::Load { link, from, bytes_max } => {
                self.shared.load(link, from, bytes_max);
            }
            ExtraEffect::Deliver(entries) => self.notify(ChatNotification::Delivered(entries)),
            ExtraEffect::Snapshot(snapshot) => self.shared.keep(snapshot),
        }
    }

    pub(super) fn on_gone(&mut self) {
        self.state.is_gone = true;
        self.state.wake_waiting();
    }

    /// Reports a refusal; one that does not change is reported once.
    fn on_refused(&mut self, mut reason: String) {
        let texts = self.state.group.unfinished().take(UNFINISHED_MAX);
        let cut = |it: &Arc<str>| it.chars().take(UNFINISHED_CHARS).collect();
        let texts: Vec<String> = texts.map(cut).collect();
        if !texts.is_empty() {
            let texts = texts.join("\", \"");
            reason = format!("{reason}; typed here and not final: \"{texts}\"");
        }
        if self.state.refused.as_ref() != Some(&reason) {
            self.state.refused = Some(reason.clone());
            self.notify(ChatNotification::Event(Event::Refused { reason }));
        }
    }

    fn refusal(&self, code: NackCode, reason: String) -> Nack {
        let (sender_id, term) = (self.shared.service.me.id, self.state.group.term());
        Nack { sender_id, term, code, leader_id: None, msg_id: None, reason }
    }
}
