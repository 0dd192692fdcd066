//! Large messages: announced with their signed head, pulled in parts, and judged as a whole.
//!
//! Invariant: of a message at most four parts are under way, all from one neighbor. The whole is
//! checked against the signed digest; a lie is blamed on the sender of the parts.

use std::collections::VecDeque;
use std::sync::Arc;

use super::config::{PART_PATIENCE, PULLS_MAX, ROOM_PAUSE};
use super::event::Reason;
use super::{Broadcast, Fx, Timer};
use crate::machine::LinkId;
use crate::model::statement::Admission;
use crate::model::{Data, MessageId, Now, Time};
use crate::proto::broadcast::{PART_BYTES, PARTS_MAX, Part, PartReq, Publish};

/// Number of times that the whole is begun anew at the same neighbor.
const TRIES_MAX: u32 = 3;

/// A large message that is being pulled.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) msg: Publish,
    proof: Option<Arc<Admission>>,
    pub(super) from: LinkId,
    /// Other links whose neighbors hold the message, the next to be asked first.
    sources: VecDeque<LinkId>,
    solicited: bool,
    /// Time at which the head came.
    since: Time,
    buffer: Vec<u8>,
    /// Index of the first part that was not asked for.
    next: u32,
    tries: u32,
    due: Time,
}

const fn parts_of(size: u64) -> u32 {
    size.div_ceil(PART_BYTES as u64) as u32
}

impl Pull {
    /// Adds another neighbor that holds the message.
    pub(super) fn add_source(&mut self, link: LinkId) {
        if link != self.from && !self.sources.contains(&link) {
            self.sources.push_back(link);
        }
    }

    /// Index of the part that is to come next.
    const fn place(&self) -> u32 {
        (self.buffer.len() / PART_BYTES) as u32
    }

    /// Bytes of the part that is to come next.
    fn expected(&self) -> usize {
        let left = self.msg.size - self.buffer.len() as u64;
        usize::try_from(left).unwrap_or(PART_BYTES).min(PART_BYTES)
    }
}

impl Broadcast {
    /// Begins to pull a message whose head holds.
    pub(super) fn pull(
        &mut self,
        now: Now,
        (id, msg): (MessageId, Publish),
        proof: Option<Arc<Admission>>,
        (from, solicited): (LinkId, bool),
        fx: &mut Fx,
    ) {
        let bytes: u64 = self.pulls.values().map(|pull| pull.msg.size).sum();
        let room = self.config.held_bytes_max.max(self.config.message_max);
        if self.pulls.len() >= PULLS_MAX || bytes.saturating_add(msg.size) > room {
            // The pull begins when others are done.
            self.want(now, (id, msg.size), from, fx);
            self.wanted.postpone(&id, msg.subject(), now.mono.after(ROOM_PAUSE));
            return self.arm(Timer::Repair, self.wanted.next_due(), now, fx);
        }
        let want = self.unwant(&id);
        let mut sources = want.map(|want| VecDeque::from(want.sources)).unwrap_or_default();
        sources.retain(|source| *source != from);
        let due = now.mono.after(PART_PATIENCE);
        let pull = Pull {
            msg,
            proof,
            from,
            sources,
            solicited,
            since: now.mono,
            buffer: Vec::new(),
            next: 0,
            tries: 0,
            due,
        };
        self.pulls.insert(id, pull);
        self.ask_parts(now, id, PARTS_MAX, fx);
    }

    fn ask_parts(&mut self, now: Now, id: MessageId, most: u32, fx: &mut Fx) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        let count = parts_of(pull.msg.size).saturating_sub(pull.next).min(most);
        if count > 0 {
            fx.send(pull.from, PartReq { id, at: pull.next, count });
            pull.next += count;
        }
        let due = self.pulls.values().map(|pull| pull.due).min();
        self.arm(Timer::Parts, due, now, fx);
    }

    /// Sends the parts of a held message that a neighbor asks for.
    pub fn on_part_req(&mut self, from: LinkId, request: PartReq, fx: &mut Fx) {
        let PartReq { id, at, count } = request;
        if !(1..=PARTS_MAX).contains(&count) {
            let reason = format!("1 to {PARTS_MAX} parts are asked for at once");
            return self.blame(from, reason, fx);
        }
        let Some(held) = self.store.get(&id) else { return };
        let Some(data) = &held.msg.data else { return };
        if at >= parts_of(held.msg.size).max(1) {
            let reason = format!("part {at} of {}", parts_of(held.msg.size));
            return self.blame(from, reason, fx);
        }
        for (at, part) in (0..).zip(data.chunks(PART_BYTES)).skip(at as usize).take(count as usize)
        {
            self.metrics.bytes_out += part.len() as u64;
            fx.send(from, Part { id, at, data: Data::from(part.to_vec()) });
        }
    }

    /// Takes a part of a message that is being pulled.
    pub fn on_part(&mut self, now: Now, from: LinkId, part: &Part, fx: &mut Fx) {
        let Some(pull) = self.pulls.get_mut(&part.id).filter(|pull| pull.from == from) else {
            return; // Late: it was asked for elsewhere meanwhile.
        };
        if part.at != pull.place() {
            return; // Of an earlier try.
        }
        if part.data.len() != pull.expected() {
            let reason = format!(
                "part {} has {} bytes instead of {}",
                part.at,
                part.data.len(),
                pull.expected()
            );
            self.blame(from, reason, fx);
            return self.pull_elsewhere(now, part.id, false, fx);
        }
        self.metrics.bytes_in += part.data.len() as u64;
        pull.buffer.extend_from_slice(&part.data);
        pull.due = now.mono.after(PART_PATIENCE);
        if (pull.buffer.len() as u64) < pull.msg.size {
            return self.ask_parts(now, part.id, 1, fx);
        }
        let data = Data::from(std::mem::take(&mut pull.buffer));
        if data.sha256() != pull.msg.digest {
            self.drop_and_blame(Reason::Forged, from, "parts that do not match their digest", fx);
            return self.pull_elsewhere(now, part.id, false, fx);
        }
        if let Some(pull) = self.pulls.remove(&part.id) {
            let Pull { mut msg, proof, solicited, since, .. } = pull;
            msg.data = Some(data);
            let took = u64::try_from(now.mono.since(since).as_millis()).unwrap_or(u64::MAX);
            msg.age_ms = msg.age_ms.saturating_add(took);
            self.accept(now, (part.id, msg), proof, (from, solicited), fx);
        }
    }

    pub(super) fn on_parts_due(&mut self, now: Now, fx: &mut Fx) {
        let is_due = |(_, pull): &(&MessageId, &Pull)| pull.due <= now.mono;
        let late: Vec<_> = self.pulls.iter().filter(is_due).map(|(id, _)| *id).collect();
        for id in late {
            self.pull_elsewhere(now, id, true, fx);
        }
        let due = self.pulls.values().map(|pull| pull.due).min();
        self.arm(Timer::Parts, due, now, fx);
    }

    /// Begins the pull anew with the next neighbor that holds the message; `again` if the present
    /// one may be tried once more for want of others.
    pub(super) fn pull_elsewhere(&mut self, now: Now, id: MessageId, again: bool, fx: &mut Fx) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        let (links, old) = (&self.links, pull.from);
        pull.sources.retain(|link| links.contains_key(link));
        pull.tries += 1;
        let others = pull.sources.len() as u32;
        let may_stay = again && self.links.contains_key(&old);
        let next = match pull.sources.pop_front() {
            Some(next) => {
                if may_stay && pull.tries < TRIES_MAX * (others + 1) {
                    pull.sources.push_back(old);
                }
                Some(next)
            }
            None => (may_stay && pull.tries < TRIES_MAX).then_some(old),
        };
        let Some(next) = next else {
            self.pulls.remove(&id);
            self.metrics.drop_one(Reason::Withheld);
            return;
        };
        pull.from = next;
        pull.buffer = Vec::new();
        pull.next = 0;
        pull.due = now.mono.after(PART_PATIENCE);
        self.ask_parts(now, id, PARTS_MAX, fx);
    }

    /// Pulls the messages elsewhere that were to come by a link that ended.
    pub(super) fn on_source_gone(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        let from_it = |(_, pull): &(&MessageId, &Pull)| pull.from == link;
        let ids: Vec<_> = self.pulls.iter().filter(from_it).map(|(id, _)| *id).collect();
        for id in ids {
            self.pull_elsewhere(now, id, false, fx);
        }
    }
}
