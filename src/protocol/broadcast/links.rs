//! The links as the broadcast sees them: pushed to or announced to, and what is under way on each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::config::{
    ANSWER_MAX, ASKED_BYTES_MAX, GRAFT_MAX, HAVES_MAX, INTRODUCED_MAX, PREFER_PAUSE, PRUNE_PAUSE,
    SPAN, SPAN_BYTES, SPAN_MESSAGES,
};
use super::gaps::Claim;
use super::messages::Offer;
use crate::model::{Endpoint, MessageId, Time};
use crate::protocol::membership::certificate::Subject;

/// How long an answer is still known for one after its patience is over.
const LATE_ANSWER: Duration = Duration::from_secs(10);

/// What one link was given in the present span.
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
    /// Whether its answer is still waited for.
    open: bool,
}

/// What a link was asked for. A liar leaves thousands unanswered, so nothing walks them all.
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
            // Asked for again since, it has a later place as well.
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

    /// The answer is waited for no more; whether it was.
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
    /// Whether messages are pushed on it; else they are announced.
    pub(super) eager: bool,
    /// What waits to be announced.
    pub(super) offers: BTreeMap<MessageId, Offer>,
    /// How many messages are waited for that it announced.
    pub(super) wanted: usize,
    /// What it was asked for and has not sent, halved with each answer.
    pub(super) unanswered: u32,
    asked: Asks,
    pruned: Option<Time>,
    preferred: Option<Time>,
    pushed: Allowance,
    served: Allowance,
    introduced: BTreeSet<Subject>,
    introduced_order: VecDeque<Subject>,
    /// The numbers that it said it has.
    pub(super) claims: BTreeMap<Subject, Claim>,
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

    /// Whether so much more may be pushed now.
    pub(super) fn may_push(&mut self, now: Time, bytes: u64) -> bool {
        self.pushed.take(now, bytes)
    }

    /// Whether so much more may be given to its asking now.
    pub(super) fn may_serve(&mut self, now: Time, bytes: u64) -> bool {
        self.served.take(now, bytes)
    }

    /// Takes note of a question for numbers; says no beyond two in each span.
    pub(super) fn may_ask_numbers(&mut self, now: Time) -> bool {
        self.lacked.take(now, SPAN_BYTES / 2)
    }

    /// A message with this number goes to the neighbor, or is announced to it: from now on its
    /// progress is watched.
    pub(super) fn expect_progress(&mut self, origin: &Subject, number: u64) {
        if self.claims.len() < HAVES_MAX {
            self.claims.entry(*origin).or_insert_with(|| Claim::up_to(number - 1));
        }
    }

    /// Takes note of a request to wait that is to be sent; says no beyond a few in each span.
    pub(super) fn may_slow(&mut self, now: Time) -> bool {
        self.slowed.take(now, SPAN_BYTES / 16)
    }

    /// Makes the link one that is pushed to.
    pub(super) fn graft(&mut self) {
        self.eager = true;
        self.pruned = None;
    }

    /// Makes a lazy link eager because it is nearer to an origin; whether it may be so again yet,
    /// and answers what it is asked.
    pub(super) fn prefer(&mut self, now: Time) -> bool {
        let is_soon = self.preferred.is_some_and(|at| now.since(at) < PREFER_PAUSE);
        if self.eager || is_soon || self.unanswered > 0 {
            return false;
        }
        self.preferred = Some(now);
        self.graft();
        true
    }

    /// Makes the link lazy; whether to say so, which is not done for each push under way.
    pub(super) fn prune(&mut self, now: Time) -> bool {
        self.eager = false;
        if self.pruned.is_some_and(|at| now.since(at) < PRUNE_PAUSE) {
            return false;
        }
        self.pruned = Some(now);
        true
    }

    /// Whether an origin's certificate is still to be sent on this link; from now on it was.
    pub(super) fn introduce(&mut self, subject: &Subject) -> bool {
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

    /// Whether there is room to ask for so many bytes more.
    pub(super) fn may_ask(&self, size: u64) -> bool {
        let (count, bytes) = (self.asked.open, self.asked.open_bytes);
        count == 0 || count < GRAFT_MAX && size.saturating_add(bytes) <= ASKED_BYTES_MAX
    }

    pub(super) fn ask(&mut self, now: Time, id: MessageId, size: u64) {
        self.asked.insert(now, id, size);
    }

    /// The answer is waited for no more; it is still known for one if it comes.
    pub(super) fn give_up(&mut self, id: &MessageId) {
        if self.asked.close(id) {
            self.unanswered = self.unanswered.saturating_add(1);
        }
    }

    /// It came from elsewhere: the answer is not waited for, and its lack is no fault.
    pub(super) fn settle(&mut self, id: &MessageId) {
        self.asked.close(id);
    }

    /// Something came; if it was asked for, how long the answer took.
    pub(super) fn answered(&mut self, now: Time, id: &MessageId) -> Option<Duration> {
        let asked = self.asked.remove(id)?;
        self.unanswered /= 2;
        Some(now.since(asked.at).min(ANSWER_MAX))
    }
}

/// A running mean and deviation, and from them how long to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    mean: Duration,
    deviation: Duration,
}

impl Patience {
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
