//! Time from a proposal of this process until it is final here.

use std::collections::VecDeque;

use crate::machine::bft::Event;
use crate::machine::histogram::{Histogram, LATENCY_MS};
use crate::model::{Now, Time};
use crate::proto::chat::entry::{Body, MsgId};
use crate::runtime::order::OrderNotification;

/// Distribution of the latencies of this process's proposals, in milliseconds.
pub(super) struct FinalLatency {
    seen: Histogram,
    /// Proposals that are not final, in their order, with the times at which they were kept. The
    /// member bounds their number.
    open: VecDeque<(MsgId, Time)>,
}

impl Default for FinalLatency {
    fn default() -> Self {
        Self { seen: Histogram::new(LATENCY_MS), open: VecDeque::new() }
    }
}

impl FinalLatency {
    /// Notes what a member reports.
    pub(super) fn hear(&mut self, now: Now, told: &OrderNotification) {
        match told {
            OrderNotification::Event(Event::Pending(text)) => {
                self.open.push_back((text.msg_id, now.mono));
            }
            OrderNotification::Delivered(entries) => {
                for entry in entries {
                    if let Body::Chat(text) = &entry.body {
                        self.on_final(now, text.msg_id);
                    }
                }
            }
            OrderNotification::Event(_)
            | OrderNotification::Note(_)
            | OrderNotification::Failed(_) => {}
        }
    }

    /// Counts a final message, if this process has proposed it; its messages become final in order.
    fn on_final(&mut self, now: Now, message: MsgId) {
        while let Some((own, since)) = self.open.front().copied()
            && own.origin == message.origin
            && own.number <= message.number
        {
            self.open.pop_front();
            let millis = now.mono.since(since).as_millis();
            self.seen.observe(u64::try_from(millis).unwrap_or(u64::MAX));
        }
    }

    /// Latencies of the proposals that are final.
    pub(super) const fn seen(&self) -> &Histogram {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::WallTime;
    use crate::proto::chat::entry::{ChatText, Entry, MemberId, Origin, SeqNo, Term};

    fn text(member: u32, number: u64) -> ChatText {
        let origin = Origin { member: MemberId(member), client: 7 };
        let (room_id, payload) = ("text".into(), "x".into());
        ChatText { msg_id: MsgId { origin, number }, room_id, payload }
    }

    fn at(millis: u64) -> Now {
        let mono = Time::ZERO.after(Duration::from_millis(millis));
        Now { mono, wall: WallTime(0) }
    }

    fn delivered(texts: impl IntoIterator<Item = ChatText>) -> OrderNotification {
        let entry = |it: ChatText| {
            let (term, leader, time) = (Term(0), MemberId(1), WallTime(0));
            Arc::new(Entry { seq_no: SeqNo(1), term, leader, time, body: Body::Chat(it) })
        };
        OrderNotification::Delivered(texts.into_iter().map(entry).collect())
    }

    #[test]
    fn own_messages_count_once_from_their_keeping_until_they_are_final() {
        let mut latency = FinalLatency::default();
        for number in 1..=3 {
            let kept = OrderNotification::Event(Event::Pending(text(1, number)));
            latency.hear(at(10 * number), &kept);
        }
        latency.hear(at(40), &delivered([text(2, 9), text(1, 1), text(1, 2)]));
        assert_eq!((latency.seen().count(), latency.seen().sum()), (2, 30 + 20));
        latency.hear(at(50), &delivered([text(1, 2), text(1, 3)]));
        assert_eq!((latency.seen().count(), latency.seen().sum()), (3, 50 + 20));
        assert!(latency.open.is_empty());
    }
}
