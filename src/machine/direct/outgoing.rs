//! Outgoing messages: attempts, pauses, and the end of each message.

use super::outbox::{OutgoingMessage, Send, SentRecord, Stage};
use super::{Direct, Event, FailKind, Fx, LARGE_MAX, Timer};
use crate::machine::LinkId;
use crate::model::{Endpoint, Incarnation, MessageId, Now, Time, topic_complaint};
use crate::proto::direct::{
    DeliveryVerdict, DirectAck, DirectMsg, DirectPart, DirectPartReq, PARTS_MAX, part, parts_of,
};

impl Direct {
    /// Sends a message. `bar` is the node's own reason against it, if any.
    pub fn send(
        &mut self,
        now: Now,
        message: OutgoingMessage,
        bar: Option<(FailKind, String)>,
        fx: &mut Fx,
    ) {
        self.metrics.messages_sent += 1;
        if let Some((kind, reason)) = bar.or_else(|| self.bar(&message)) {
            return self.failed((message.token, message.to), kind, reason, fx);
        }
        let (to, id) = (message.to, self.queue.last_id + 1);
        self.queue.last_id = id;
        self.queue.bytes += message.data.len();
        self.queue.tokens.insert(message.token, id);
        let digest = MessageId::from_bytes(message.data.sha256());
        let stage = Stage::Pausing;
        let (failed, number, left) = (0, None, None);
        let send = Send { message, digest, began: now.mono, failed, number, left, stage };
        self.queue.sends.insert(id, send);
        if !self.queue.lines.contains_key(&to) {
            fx.emit(Event::Busy { to, busy: true });
        }
        self.queue.lines.entry(to).or_default().all.insert(id);
        self.queue.set_stage(id, Stage::Queued);
        self.advance(now, to, fx);
    }

    /// Returns the reason against a message from the start.
    fn bar(&self, message: &OutgoingMessage) -> Option<(FailKind, String)> {
        let (size, config) = (message.data.len(), &self.config);
        let not_sent = |reason: String| Some((FailKind::NotSent, reason));
        if message.to == self.me {
            return not_sent(format!("{} is this peer itself", self.me));
        }
        if let Some(reason) = topic_complaint(&message.topic) {
            return not_sent(reason);
        }
        if let Err(reason) = message.retry.check() {
            return not_sent(reason);
        }
        if size > config.message_max {
            let reason = format!("{size} bytes; at most {}", config.message_max);
            return Some((FailKind::TooLarge, reason));
        }
        if self.queue.tokens.contains_key(&message.token) {
            return not_sent(format!("a message with the token {} is on its way", message.token));
        }
        if self.queue.len() >= config.sends_max || self.queue.bytes + size > config.sends_bytes_max
        {
            let (most, bytes) = (config.sends_max, config.sends_bytes_max);
            let reason = format!("too much on its way: at most {most} messages, {bytes} bytes");
            return not_sent(reason);
        }
        None
    }

    /// Calls a message back. One that has left may still arrive.
    pub fn cancel(&mut self, now: Now, token: u64, fx: &mut Fx) {
        let Some(id) = self.queue.tokens.get(&token).copied() else { return };
        let to = self.queue.sends.get(&id).map(|send| send.message.to);
        self.fail(id, FailKind::Cancelled, "called back", fx);
        if let Some(to) = to {
            self.advance(now, to, fx);
        }
    }

    /// Ends all messages on their way to one member, or to all.
    pub(super) fn give_up(&mut self, to: Option<Endpoint>, reason: &str, fx: &mut Fx) {
        let is_meant = |send: &Send| to.is_none_or(|to| send.message.to == to);
        let meant = self.queue.sends.iter().filter(|(_, send)| is_meant(send));
        for id in meant.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail(id, FailKind::NotSent, reason, fx);
        }
    }

    /// Sends the queued messages of a member over the youngest link with it, as far as there is
    /// room, or calls the member.
    pub(super) fn advance(&mut self, now: Now, to: Endpoint, fx: &mut Fx) {
        loop {
            let line = self.queue.lines.get(&to);
            let Some(line) = line.filter(|line| !line.queued.is_empty()) else { return };
            let Some((link, life)) = self.routes.way(to) else {
                if self.queue.calling.insert(to) {
                    fx.emit(Event::Call { to });
                }
                return;
            };
            let mut room = self.config.window.saturating_sub(line.flying);
            let mut room_large = LARGE_MAX.saturating_sub(line.flying_large);
            let mut chosen = Vec::new();
            for id in &line.queued {
                let is_large = self.queue.sends.get(id).is_some_and(Send::is_large);
                if room == 0 {
                    break;
                }
                if is_large && room_large == 0 {
                    continue;
                }
                room -= 1;
                room_large -= usize::from(is_large);
                chosen.push(*id);
            }
            let mut all_fly = true;
            for id in chosen {
                all_fly &= self.fly(now, id, (link, life), fx);
            }
            if all_fly {
                return;
            }
        }
    }

    /// Makes one attempt; ends the message instead if it may have reached an earlier life, or has
    /// left too long ago.
    fn fly(&mut self, now: Now, id: u64, (link, life): (LinkId, Incarnation), fx: &mut Fx) -> bool {
        let repeat_max = self.config.repeat_max;
        let Some(send) = self.queue.sends.get_mut(&id) else { return false };
        // Only the life that the message may have reached remembers it, and not for ever.
        if let Some(left) = send.left {
            if left.life != life {
                let reason = "it had left, and the receiver has begun a new life since";
                self.fail(id, FailKind::Unknown, reason, fx);
                return false;
            }
            if now.mono.since(left.first) >= repeat_max {
                let reason = "it had left too long ago to be sent again";
                self.fail(id, FailKind::Unknown, reason, fx);
                return false;
            }
        }
        let number = *send.number.get_or_insert_with(|| {
            self.queue.last_number += 1;
            self.queue.last_number
        });
        self.queue.numbers.insert(number, id);
        let is_whole = !send.is_large();
        let OutgoingMessage { topic, data, .. } = &send.message;
        let size = data.len();
        let msg = DirectMsg {
            number,
            life,
            topic: topic.clone(),
            size: size as u64,
            digest: send.digest,
            data: is_whole.then(|| data.clone()),
        };
        if is_whole {
            send.left = Some(again(send.left, life, now.mono));
            self.metrics.bytes_sent += size as u64;
        }
        self.metrics.retries += u64::from(send.failed > 0);
        fx.send(link, msg);
        fx.set_timer(Timer::Send(id), self.config.attempt_max);
        self.routes.used(link, now.mono);
        self.queue.set_stage(id, Stage::Flying { link, life, asked: 0 });
        true
    }

    /// Takes a failed attempt: begins the pause before the next, or ends the message.
    fn attempt_failed(&mut self, id: u64, kind: FailKind, reason: &str, fx: &mut Fx) {
        self.queue.set_stage(id, Stage::Pausing);
        let Some(send) = self.queue.sends.get_mut(&id) else { return };
        send.failed += 1;
        let retry = send.message.retry;
        if send.failed > retry.retries {
            let reason = match send.failed {
                1 => reason.to_owned(),
                attempts => format!("{reason} ({attempts} attempts)"),
            };
            return self.fail(id, kind, &reason, fx);
        }
        let pause = retry.pause(send.failed, &mut self.rng);
        fx.set_timer(Timer::Send(id), pause);
    }

    /// Ends a message without success; one that has left is of unknown fate.
    fn fail(&mut self, id: u64, kind: FailKind, reason: &str, fx: &mut Fx) {
        let has_left = self.queue.sends.get(&id).is_some_and(|send| send.left.is_some());
        let Some(send) = self.end(id, fx) else { return };
        let OutgoingMessage { token, to, .. } = send.message;
        let is_said = kind == FailKind::Refused || kind == FailKind::Unknown;
        if has_left && !is_said {
            let reason = format!("{reason}; it had left, and may have arrived");
            self.failed((token, to), FailKind::Unknown, reason, fx);
        } else {
            self.failed((token, to), kind, reason.to_owned(), fx);
        }
    }

    fn failed(
        &mut self,
        (token, to): (u64, Endpoint),
        kind: FailKind,
        reason: String,
        fx: &mut Fx,
    ) {
        let counter = match kind {
            FailKind::NotSent => &mut self.metrics.not_sent,
            FailKind::Refused => &mut self.metrics.refused,
            FailKind::Unreachable => &mut self.metrics.unreachable,
            FailKind::TooLarge => &mut self.metrics.too_large,
            FailKind::Cancelled => &mut self.metrics.cancelled,
            FailKind::Unknown => &mut self.metrics.unknown,
        };
        *counter += 1;
        fx.emit(Event::Failed { token, to, kind, reason });
    }

    /// Removes a message from all tables.
    fn end(&mut self, id: u64, fx: &mut Fx) -> Option<Send> {
        self.queue.set_stage(id, Stage::Pausing);
        let send = self.queue.sends.remove(&id)?;
        let to = send.message.to;
        self.queue.bytes -= send.message.data.len();
        self.queue.tokens.remove(&send.message.token);
        if let Some(number) = send.number {
            self.queue.numbers.remove(&number);
        }
        fx.stop_timer(Timer::Send(id));
        if let Some(line) = self.queue.lines.get_mut(&to) {
            line.all.remove(&id);
            if line.all.is_empty() {
                self.queue.lines.remove(&to);
                fx.emit(Event::Busy { to, busy: false });
            }
        }
        Some(send)
    }

    pub(super) fn on_send_timer(&mut self, now: Now, id: u64, fx: &mut Fx) {
        let Some(send) = self.queue.sends.get(&id) else { return };
        let to = send.message.to;
        match send.stage {
            Stage::Pausing => self.queue.set_stage(id, Stage::Queued),
            Stage::Queued => {}
            Stage::Flying { .. } => {
                let reason = "no answer in time";
                self.attempt_failed(id, FailKind::Unreachable, reason, fx);
            }
        }
        self.advance(now, to, fx);
    }

    /// Takes the failure of a call for direct messages. What waits for room on another link with
    /// the member goes on waiting.
    pub fn on_call_failed(&mut self, to: Endpoint, reason: &str, fx: &mut Fx) {
        if !self.queue.calling.remove(&to) || self.routes.way(to).is_some() {
            return;
        }
        let queued = self.queue.lines.get(&to).map(|line| line.queued.clone());
        for id in queued.unwrap_or_default() {
            self.attempt_failed(id, FailKind::Unreachable, reason, fx);
        }
    }

    /// Takes the end of a link: messages under way on it are sent again.
    pub(super) fn on_flights_lost(&mut self, now: Now, peer: Endpoint, link: LinkId, fx: &mut Fx) {
        let Some(line) = self.queue.lines.get(&peer) else { return };
        let is_lost = |id: &&u64| {
            let stage = self.queue.sends.get(id).map(|send| send.stage);
            matches!(stage, Some(Stage::Flying { link: by, .. }) if by == link)
        };
        let lost: Vec<_> = line.all.iter().filter(is_lost).copied().collect();
        for id in lost {
            self.attempt_failed(id, FailKind::Unreachable, "the link ended", fx);
        }
        self.advance(now, peer, fx);
    }

    /// Takes the answer to a message, from the member at the other end of this link.
    pub fn on_ack(
        &mut self,
        now: Now,
        link: LinkId,
        (from, life): (Endpoint, Incarnation),
        ack: &DirectAck,
        fx: &mut Fx,
    ) {
        let Some((id, send)) = self.queue.numbered(ack.number, from) else { return };
        let is_this_life = match (send.left, send.stage) {
            (Some(left), _) => left.life == life,
            (None, Stage::Flying { life: meant, .. }) => meant == life,
            (None, Stage::Pausing | Stage::Queued) => false,
        };
        if !is_this_life {
            return;
        }
        self.routes.used(link, now.mono);
        match ack.verdict {
            DeliveryVerdict::Taken => {
                let Some(send) = self.end(id, fx) else { return };
                self.metrics.acknowledged += 1;
                let after = now.mono.since(send.began);
                fx.emit(Event::Sent { token: send.message.token, to: from, after });
            }
            DeliveryVerdict::Refused => self.fail(id, FailKind::Refused, &ack.reason, fx),
            DeliveryVerdict::Unknown => self.fail(id, FailKind::Unknown, &ack.reason, fx),
            DeliveryVerdict::Busy => self.on_busy((id, link), &ack.reason, fx),
        }
        self.advance(now, from, fx);
    }

    /// Takes a busy answer: the application has not seen that attempt.
    fn on_busy(&mut self, (id, link): (u64, LinkId), reason: &str, fx: &mut Fx) {
        let Some(send) = self.queue.sends.get_mut(&id) else { return };
        if !matches!(send.stage, Stage::Flying { link: by, .. } if by == link) {
            return;
        }
        if send.left.is_none_or(|left| left.times == 1) {
            // That was the only attempt, so the message has not arrived: it begins anew.
            send.left = None;
            if let Some(number) = send.number.take() {
                self.queue.numbers.remove(&number);
            }
        }
        let kind = match send.left {
            None => FailKind::Refused,
            Some(_) => FailKind::Unknown,
        };
        self.attempt_failed(id, kind, reason, fx);
    }

    /// Sends the parts of a large message that the receiver asks for.
    pub fn on_part_req(
        &mut self,
        now: Now,
        link: LinkId,
        from: Endpoint,
        wanted: DirectPartReq,
        fx: &mut Fx,
    ) {
        let DirectPartReq { number, at, count } = wanted;
        // The message may have been called back.
        let Some((id, _)) = self.queue.numbered(number, from) else { return };
        let Some(send) = self.queue.sends.get_mut(&id) else { return };
        let Stage::Flying { link: by, life, asked } = &mut send.stage else { return };
        if *by != link {
            return;
        }
        let parts = parts_of(send.message.data.len());
        *asked = asked.saturating_add(count);
        let is_too_much = *asked > 2 * parts + PARTS_MAX;
        if parts < 2 || count == 0 || count > PARTS_MAX || at >= parts || is_too_much {
            let reason = format!("parts {at} and so on, {count} of them; there are {parts}");
            return fx.emit(Event::Malformed { from: link, reason });
        }
        let end = parts.min(at + count);
        for at in at..end {
            let data = part(&send.message.data, at);
            self.metrics.bytes_sent += data.len() as u64;
            fx.send(link, DirectPart { number, at, data });
        }
        if end == parts {
            send.left = Some(again(send.left, *life, now.mono));
        }
        fx.set_timer(Timer::Send(id), self.config.attempt_max);
        self.routes.used(link, now.mono);
    }
}

/// Records that a message has left once more.
fn again(left: Option<SentRecord>, life: Incarnation, now: Time) -> SentRecord {
    match left {
        Some(left) if left.life == life => SentRecord { times: left.times + 1, ..left },
        Some(_) | None => SentRecord { life, first: now, times: 1 },
    }
}
