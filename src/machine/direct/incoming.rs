//! Incoming messages: each is shown to the application once, and its verdict is repeated.

use std::collections::{BTreeMap, VecDeque};

use super::{Config, Direct, Event, Fx, LARGE_MAX, Timer};
use crate::machine::LinkId;
use crate::model::{Data, Endpoint, Incarnation, MessageId, Now, Time, topic_complaint};
use crate::proto::direct::{
    DeliveryVerdict, DirectAck, DirectMsg, DirectPart, DirectPartReq, PART_BYTES, PARTS_MAX,
    parts_of,
};

/// Number of members' lives that are remembered: as many as a fleet has.
const SENDERS_MAX: usize = 20_000;

/// Greatest length of a reason that is kept and passed on, in bytes.
const REASON_BYTES: usize = 256;

/// A sender: one life of a member.
type Sender = (Endpoint, Incarnation);

/// Data that is being put together.
#[derive(Debug)]
struct Assembly {
    msg: DirectMsg,
    link: LinkId,
    bytes: Vec<u8>,
    /// Index up to which parts were asked for.
    asked: u32,
    touched: Time,
}

/// Memory of the messages that one life of a member has sent.
#[derive(Debug, Default)]
struct SenderMemory {
    /// Greatest number whose verdict was forgotten: this and lower ones may have come before.
    horizon: u64,
    verdicts: BTreeMap<u64, (DeliveryVerdict, String)>,
    /// Questions to the application, by the sender's numbers.
    open: BTreeMap<u64, u64>,
    parts: BTreeMap<u64, Assembly>,
    heard: Time,
}

impl SenderMemory {
    fn forget(&mut self, number: u64) {
        if self.verdicts.remove(&number).is_some() {
            self.horizon = self.horizon.max(number);
        }
    }
}

/// A message that waits for the application's answer.
#[derive(Debug)]
struct PendingVerdict {
    sender: Sender,
    number: u64,
    link: LinkId,
}

/// Memory of all messages that came.
#[derive(Debug, Default)]
pub(super) struct ReceivedMessages {
    senders: BTreeMap<Sender, SenderMemory>,
    questions: BTreeMap<u64, PendingVerdict>,
    /// Verdicts in the order of their age.
    order: VecDeque<(Time, Sender, u64)>,
    assembling: usize,
    parts_bytes: usize,
    last_question: u64,
}

impl ReceivedMessages {
    pub(super) fn questions(&self) -> usize {
        self.questions.len()
    }

    pub(super) fn remembered(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// True if a message of this member waits for an answer or for parts.
    pub(super) fn is_asking(&self, peer: Endpoint) -> bool {
        let first = (peer, Incarnation(0));
        let last = (peer, Incarnation(u64::MAX));
        let mut lives = self.senders.range(first..=last);
        lives.any(|(_, memory)| !memory.open.is_empty() || !memory.parts.is_empty())
    }

    /// Drops all messages that are not whole.
    pub(super) fn drop_parts(&mut self) {
        for memory in self.senders.values_mut() {
            memory.parts.clear();
        }
        self.assembling = 0;
        self.parts_bytes = 0;
    }

    fn take_parts(&mut self, sender: Sender, number: u64) -> Option<Assembly> {
        let assembly = self.senders.get_mut(&sender)?.parts.remove(&number)?;
        self.assembling -= 1;
        self.parts_bytes -= usize::try_from(assembly.msg.size).unwrap_or(0);
        Some(assembly)
    }

    /// Forgets old verdicts, parts that stand still, and members without either.
    pub(super) fn forget(&mut self, now: Time, config: &Config) {
        while let Some((at, sender, number)) = self.order.front().copied() {
            if now.since(at) < config.remember {
                break;
            }
            self.order.pop_front();
            if let Some(memory) = self.senders.get_mut(&sender) {
                memory.forget(number);
            }
        }
        let mut stale = Vec::new();
        for (sender, memory) in &self.senders {
            for (number, assembly) in &memory.parts {
                if now.since(assembly.touched) >= config.part_max {
                    stale.push((*sender, *number));
                }
            }
        }
        for (sender, number) in stale {
            self.take_parts(sender, number);
        }
        self.senders.retain(|_, memory| {
            !memory.open.is_empty()
                || !memory.parts.is_empty()
                || !memory.verdicts.is_empty()
                || now.since(memory.heard) < config.remember
        });
    }

    fn remember(
        &mut self,
        now: Time,
        (sender, number): (Sender, u64),
        verdict: (DeliveryVerdict, String),
        most: usize,
    ) {
        let memory = self.senders.entry(sender).or_default();
        memory.heard = now;
        memory.verdicts.insert(number, verdict);
        self.order.push_back((now, sender, number));
        if self.order.len() > most
            && let Some((_, sender, number)) = self.order.pop_front()
            && let Some(memory) = self.senders.get_mut(&sender)
        {
            memory.forget(number);
        }
    }

    /// The reason why there is no room for a message of this size.
    fn complaint(&self, sender: Sender, size: usize, config: &Config) -> Option<&'static str> {
        let memory = self.senders.get(&sender);
        let (own, own_parts) =
            memory.map_or((0, 0), |memory| (memory.open.len(), memory.parts.len()));
        let is_large = size > PART_BYTES;
        if memory.is_none() && self.senders.len() >= SENDERS_MAX {
            Some("busy: too many members send")
        } else if self.questions.len() + self.assembling >= config.questions_max {
            Some("busy: too many messages wait for the application")
        } else if own + own_parts >= config.questions_each_max {
            Some("busy: too many of yours wait for the application")
        } else if is_large && own_parts >= LARGE_MAX {
            Some("busy: too many large ones of yours are on their way")
        } else if is_large && self.parts_bytes + size > config.parts_bytes_max {
            Some("busy: too many large ones are on their way")
        } else {
            None
        }
    }
}

impl Direct {
    /// Takes a message of a member, by a link that proves the member. `life` is this peer's own.
    pub fn on_message(
        &mut self,
        now: Now,
        (link, sender): (LinkId, Sender),
        life: Incarnation,
        msg: DirectMsg,
        fx: &mut Fx,
    ) {
        if !self.routes.knows(link) {
            return; // The link is being exchanged for another.
        }
        self.routes.used(link, now.mono);
        let number = msg.number;
        if let Some(reason) = nonsense(&msg) {
            ack(link, number, (DeliveryVerdict::Refused, reason.clone()), fx);
            return fx.emit(Event::Malformed { from: link, reason });
        }
        if msg.size > self.config.message_max as u64 {
            let reason =
                format!("{} bytes; at most {} are taken", msg.size, self.config.message_max);
            return ack(link, number, (DeliveryVerdict::Refused, reason), fx);
        }
        if msg.life != life {
            let reason = format!("it is meant for incarnation {}; this is {life}", msg.life);
            return ack(link, number, (DeliveryVerdict::Refused, reason), fx);
        }
        if let Some(memory) = self.received.senders.get_mut(&sender) {
            if let Some(verdict) = memory.verdicts.get(&number) {
                self.metrics.duplicates += 1;
                return ack(link, number, verdict.clone(), fx);
            }
            if let Some(question) = memory.open.get(&number) {
                self.metrics.duplicates += 1;
                if let Some(question) = self.received.questions.get_mut(question) {
                    question.link = link;
                }
                return;
            }
            if let Some(assembly) = memory.parts.get_mut(&number) {
                // The next attempt goes on from the part where the last one ended.
                assembly.link = link;
                assembly.asked = next_part(assembly);
                assembly.touched = now.mono;
                return ask_parts(number, assembly, fx);
            }
            if number <= memory.horizon {
                let reason = "so late that an earlier verdict may be forgotten".to_owned();
                return ack(link, number, (DeliveryVerdict::Unknown, reason), fx);
            }
        }
        let size = usize::try_from(msg.size).unwrap_or(usize::MAX);
        if let Some(reason) = self.received.complaint(sender, size, &self.config) {
            self.metrics.busy += 1;
            return ack(link, number, (DeliveryVerdict::Busy, reason.to_owned()), fx);
        }
        self.sweep_later(fx);
        match msg.data.clone() {
            Some(data) => self.show(now, (link, sender), msg, data, fx),
            None => {
                let memory = self.received.senders.entry(sender).or_default();
                self.received.assembling += 1;
                self.received.parts_bytes += size;
                let (bytes, asked, touched) = (Vec::new(), 0, now.mono);
                let assembly = Assembly { msg, link, bytes, asked, touched };
                ask_parts(number, memory.parts.entry(number).or_insert(assembly), fx);
            }
        }
    }

    /// Takes a part of a large message.
    pub fn on_part(
        &mut self,
        now: Now,
        (link, sender): (LinkId, Sender),
        part: &DirectPart,
        fx: &mut Fx,
    ) {
        let number = part.number;
        let memory = self.received.senders.get_mut(&sender);
        let assembly = memory.and_then(|memory| memory.parts.get_mut(&number));
        let Some(assembly) = assembly.filter(|assembly| assembly.link == link) else {
            return; // Dropped, or continued over another link.
        };
        self.routes.used(link, now.mono);
        let size = usize::try_from(assembly.msg.size).unwrap_or(usize::MAX);
        let expected = size.saturating_sub(assembly.bytes.len()).min(PART_BYTES);
        if part.at != next_part(assembly) || part.data.len() != expected {
            let (at, bytes) = (next_part(assembly), part.data.len());
            let reason = format!(
                "part {} of {bytes} bytes; part {at} of {expected} bytes comes next",
                part.at
            );
            self.received.take_parts(sender, number);
            return fx.emit(Event::Malformed { from: link, reason });
        }
        assembly.bytes.extend_from_slice(&part.data);
        assembly.touched = now.mono;
        if assembly.bytes.len() < size {
            if next_part(assembly) == assembly.asked {
                ask_parts(number, assembly, fx);
            }
            return;
        }
        if let Some(Assembly { msg, bytes, .. }) = self.received.take_parts(sender, number) {
            self.show(now, (link, sender), msg, Data::from(bytes), fx);
        }
    }

    /// Shows a message to the application, which must answer it.
    fn show(
        &mut self,
        now: Now,
        (link, sender): (LinkId, Sender),
        msg: DirectMsg,
        data: Data,
        fx: &mut Fx,
    ) {
        let number = msg.number;
        if MessageId::from_bytes(data.sha256()) != msg.digest {
            let reason = "the data is not what its digest says".to_owned();
            ack(link, number, (DeliveryVerdict::Refused, reason.clone()), fx);
            return fx.emit(Event::Malformed { from: link, reason });
        }
        self.received.last_question += 1;
        let question = self.received.last_question;
        self.received.questions.insert(question, PendingVerdict { sender, number, link });
        let memory = self.received.senders.entry(sender).or_default();
        memory.heard = now.mono;
        memory.open.insert(number, question);
        self.metrics.messages_received += 1;
        self.metrics.bytes_received += msg.size;
        fx.set_timer(Timer::Question(question), self.config.answer_max);
        fx.emit(Event::Arrived { from: sender.0, number: question, topic: msg.topic, data });
    }

    /// Takes the application's answer to a message. One that comes too late, or to an unknown
    /// question, is ignored.
    pub fn answer(
        &mut self,
        now: Now,
        (from, question): (Endpoint, u64),
        taken: bool,
        reason: &str,
        fx: &mut Fx,
    ) {
        if self.received.questions.get(&question).is_none_or(|it| it.sender.0 != from) {
            return;
        }
        let verdict = if taken {
            (DeliveryVerdict::Taken, String::new())
        } else {
            (DeliveryVerdict::Refused, shortened(reason))
        };
        self.settle(now, question, verdict, fx);
    }

    pub(super) fn on_question_timer(&mut self, now: Now, question: u64, fx: &mut Fx) {
        let Some(from) = self.received.questions.get(&question).map(|it| it.sender.0) else {
            return;
        };
        self.metrics.lapsed += 1;
        let reason = "the application did not answer in time".to_owned();
        self.settle(now, question, (DeliveryVerdict::Unknown, reason), fx);
        fx.emit(Event::Lapsed { from, number: question });
    }

    /// Gives a message its final verdict.
    fn settle(&mut self, now: Now, question: u64, verdict: (DeliveryVerdict, String), fx: &mut Fx) {
        let Some(it) = self.received.questions.remove(&question) else { return };
        fx.stop_timer(Timer::Question(question));
        if let Some(memory) = self.received.senders.get_mut(&it.sender) {
            memory.open.remove(&it.number);
        }
        let about = (it.sender, it.number);
        self.received.remember(now.mono, about, verdict.clone(), self.config.verdicts_max);
        let is_way = |(_, life): &(LinkId, Incarnation)| *life == it.sender.1;
        let link = if self.routes.knows(it.link) {
            Some(it.link)
        } else {
            self.routes.way(it.sender.0).filter(is_way).map(|(link, _)| link)
        };
        // Without a link the verdict is sent when the sender asks again.
        if let Some(link) = link {
            self.routes.used(link, now.mono);
            ack(link, it.number, verdict, fx);
        }
    }
}

fn ack(link: LinkId, number: u64, (verdict, reason): (DeliveryVerdict, String), fx: &mut Fx) {
    fx.send(link, DirectAck { number, verdict, reason });
}

/// Index of the part that comes next.
fn next_part(assembly: &Assembly) -> u32 {
    parts_of(assembly.bytes.len())
}

fn ask_parts(number: u64, assembly: &mut Assembly, fx: &mut Fx) {
    let at = next_part(assembly);
    let size = usize::try_from(assembly.msg.size).unwrap_or(usize::MAX);
    let count = parts_of(size).saturating_sub(at).min(PARTS_MAX);
    assembly.asked = at + count;
    fx.send(assembly.link, DirectPartReq { number, at, count });
}

/// Returns the reason if no honest node sends such a message.
fn nonsense(msg: &DirectMsg) -> Option<String> {
    if let Some(reason) = topic_complaint(&msg.topic) {
        return Some(reason);
    }
    let is_large = msg.size > PART_BYTES as u64;
    match &msg.data {
        Some(data) if data.len() as u64 != msg.size || is_large => {
            let (bytes, size) = (data.len(), msg.size);
            Some(format!("{bytes} bytes of {size}; up to {PART_BYTES} come whole, more in parts"))
        }
        None if !is_large => Some(format!("{} bytes come whole, not in parts", msg.size)),
        Some(_) | None => None,
    }
}

fn shortened(reason: &str) -> String {
    let is_end = |at: &usize| reason.is_char_boundary(*at);
    let end = (0..=REASON_BYTES.min(reason.len())).rev().find(is_end).unwrap_or(0);
    reason[..end].to_owned()
}
