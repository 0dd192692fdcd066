//! The links of the broadcast: eager or lazy, and the requests under way on each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::config::{
    ANSWER_MAX, ASKED_BYTES_MAX, HAVES_MAX, INTRODUCED_MAX, PREFER_PAUSE, PRUNE_PAUSE, SPAN,
    SPAN_BYTES, SPAN_MESSAGES,
};
use super::gaps::Claim;
use crate::model::statement::MemberInstance;
use crate::model::{Endpoint, MessageId, Time};
use crate::proto::broadcast::{GRAFT_MAX, Offer};

/// Time that a request is remembered after it was sent, so that a late answer is recognized.
const LATE_ANSWER: Duration = Duration::from_secs(10);

/// Messages and bytes that one link was given in the present span.
#[derive(Debug, Default)]
struct Allowance {
    since: Time,
    messages: u32,
    bytes: u64,
}

impl Allowance {
    /// Takes one message of this size from the span's allowance, if there is that much left.
    fn take(&mut self, now: Time, bytes: u64) -> bool {
        if now.since(self.since) >= SPAN {
            *self = Self { since: now, messages: 0, bytes: 0 };
        }
        if self.messages >= SPAN_MESSAGES || self.bytes >= SPAN_BYTES {
            return false;
        }
        self.messages += 1;
        self.bytes += bytes;
        true
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Time,
    size: u64,
    /// True if the answer is still waited for.
    open: bool,
}

/// Requests on one link. A liar leaves thousands unanswered, so nothing iterates over all.
#[derive(Debug, Default)]
struct Asks {
    by_id: BTreeMap<MessageId, Asked>,
    order: VecDeque<(Time, MessageId)>,
    open: usize,
    open_bytes: u64,
}

impl Asks {
    fn insert(&mut self, now: Time, id: MessageId, size: u64) {
        while let Some((at, old)) = self.order.front().copied()
            && now.since(at) >= LATE_ANSWER
        {
            self.order.pop_front();
            // An identity that was asked for again since has a later entry as well.
            if self.by_id.get(&old).is_some_and(|asked| asked.at == at) {
                self.remove(&old);
            }
        }
        self.remove(&id);
        self.by_id.insert(id, Asked { at: now, size, open: true });
        self.order.push_back((now, id));
        self.open += 1;
        self.open_bytes = self.open_bytes.saturating_add(size);
    }

    /// Stops waiting for an answer. Returns whether it was waited for.
    fn close(&mut self, id: &MessageId) -> bool {
        let Some(asked) = self.by_id.get_mut(id).filter(|asked| asked.open) else { return false };
        asked.open = false;
        self.open -= 1;
        self.open_bytes = self.open_bytes.saturating_sub(asked.size);
        true
    }

    fn remove(&mut self, id: &MessageId) -> Option<Asked> {
        self.close(id);
        self.by_id.remove(id)
    }
}

/// One neighbor's link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    /// True if messages are pushed on the link; else they are announced.
    pub(super) eager: bool,
    /// Announcements that wait to be sent.
    pub(super) offers: BTreeMap<MessageId, Offer>,
    /// Number of messages waited for that the neighbor announced.
    pub(super) wanted: usize,
    /// Number of requests that the neighbor has not answered, halved with each answer.
    pub(super) unanswered: u32,
    asked: Asks,
    pruned: Option<Time>,
    preferred: Option<Time>,
    pushed: Allowance,
    served: Allowance,
    introduced: BTreeSet<MemberInstance>,
    introduced_order: VecDeque<MemberInstance>,
    /// Numbers that the neighbor claims to have, by origin.
    pub(super) claims: BTreeMap<MemberInstance, Claim>,
    lacked: Allowance,
    slowed: Allowance,
}

impl Link {
    pub(super) fn new(endpoint: Endpoint, eager: bool) -> Self {
        Self {
            endpoint,
            eager,
            offers: BTreeMap::new(),
            wanted: 0,
            unanswered: 0,
            asked: Asks::default(),
            pruned: None,
            preferred: None,
            pushed: Allowance::default(),
            served: Allowance::default(),
            introduced: BTreeSet::new(),
            introduced_order: VecDeque::new(),
            claims: BTreeMap::new(),
            lacked: Allowance::default(),
            slowed: Allowance::default(),
        }
    }

    /// Takes `bytes` from the allowance for pushes. Returns false if there is not that much left.
    pub(super) fn may_push(&mut self, now: Time, bytes: u64) -> bool {
        self.pushed.take(now, bytes)
    }

    /// Takes `bytes` from the allowance for requests. Returns false if there is not that much left.
    pub(super) fn may_serve(&mut self, now: Time, bytes: u64) -> bool {
        self.served.take(now, bytes)
    }

    /// Takes note of a question for numbers. Returns false beyond two in each span.
    pub(super) fn may_ask_numbers(&mut self, now: Time) -> bool {
        self.lacked.take(now, SPAN_BYTES / 2)
    }

    /// Begins to watch the neighbor's progress, because a message with this number is pushed or
    /// announced to it.
    pub(super) fn expect_progress(&mut self, origin: &MemberInstance, number: u64) {
        if self.claims.len() < HAVES_MAX {
            self.claims.entry(*origin).or_insert_with(|| Claim::up_to(number - 1));
        }
    }

    /// Takes note of a request to wait that is to be sent. Returns false beyond a few in each span.
    pub(super) fn may_slow(&mut self, now: Time) -> bool {
        self.slowed.take(now, SPAN_BYTES / 16)
    }

    /// Makes the link eager.
    pub(super) fn graft(&mut self) {
        self.eager = true;
        self.pruned = None;
    }

    /// Makes a lazy link eager because it is nearer to an origin. Returns false if it is eager, was
    /// preferred a short while ago, or leaves requests unanswered.
    pub(super) fn prefer(&mut self, now: Time) -> bool {
        let is_soon = self.preferred.is_some_and(|at| now.since(at) < PREFER_PAUSE);
        if self.eager || is_soon || self.unanswered > 0 {
            return false;
        }
        self.preferred = Some(now);
        self.graft();
        true
    }

    /// Makes the link lazy. Returns whether to send a `PRUNE`, which is not sent for each
    /// push under way.
    pub(super) fn prune(&mut self, now: Time) -> bool {
        self.eager = false;
        if self.pruned.is_some_and(|at| now.since(at) < PRUNE_PAUSE) {
            return false;
        }
        self.pruned = Some(now);
        true
    }

    /// True if an origin's certificate is still to be sent on this link; marks it as sent.
    pub(super) fn introduce(&mut self, subject: &MemberInstance) -> bool {
        if !self.introduced.insert(*subject) {
            return false;
        }
        self.introduced_order.push_back(*subject);
        if self.introduced_order.len() > INTRODUCED_MAX
            && let Some(oldest) = self.introduced_order.pop_front()
        {
            self.introduced.remove(&oldest);
        }
        true
    }

    /// True if there is room to ask for `size` bytes more.
    pub(super) fn may_ask(&self, size: u64) -> bool {
        let (count, bytes) = (self.asked.open, self.asked.open_bytes);
        count == 0 || count < GRAFT_MAX && size.saturating_add(bytes) <= ASKED_BYTES_MAX
    }

    pub(super) fn ask(&mut self, now: Time, id: MessageId, size: u64) {
        self.asked.insert(now, id, size);
    }

    /// Stops waiting for an answer that is overdue; it is still recognized if it comes.
    pub(super) fn give_up(&mut self, id: &MessageId) {
        if self.asked.close(id) {
            self.unanswered = self.unanswered.saturating_add(1);
        }
    }

    /// Stops waiting for an answer because the message came from elsewhere; its lack is no fault.
    pub(super) fn settle(&mut self, id: &MessageId) {
        self.asked.close(id);
    }

    /// Takes a message. Returns the time that the answer took if the message was asked for.
    pub(super) fn answered(&mut self, now: Time, id: &MessageId) -> Option<Duration> {
        let asked = self.asked.remove(id)?;
        self.unanswered /= 2;
        Some(now.since(asked.at).min(ANSWER_MAX))
    }
}

/// Running mean and deviation of durations, and the wait that follows from them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WaitEstimate {
    mean: Duration,
    deviation: Duration,
}

impl WaitEstimate {
    pub(super) fn observe(&mut self, sample: Duration) {
        let off = sample.abs_diff(self.mean);
        self.mean = (self.mean * 7 + sample) / 8;
        self.deviation = (self.deviation * 3 + off) / 4;
    }

    /// The mean and four deviations, within these bounds.
    pub(super) fn wait(&self, least: Duration, most: Duration) -> Duration {
        (self.mean + self.deviation * 4).clamp(least, most)
    }
}
