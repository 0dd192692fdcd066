//! Latency of one message at a time, until the last peer has it, and the number of copies.

use std::path::Path;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;

use super::subscribers::{SubscriberReport, Subscribers};
use super::{ANSWER_TIMEOUT, Bench, publish};
use crate::cli::CliError;
use crate::cli::bench::figure::{Target, distribution};

/// Number of messages before those that count: the tree forms itself by published messages.
const WARM_UP: u16 = 30;

/// Longest wait for a message.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Pause between two messages, longer than announcements are collected for.
const PAUSE: Duration = Duration::from_millis(60);

/// Target, in milliseconds, from the publisher's request until the last peer has the message.
const LAST_MS_WANTED: f64 = 250.0;

/// Target for the copies of each message that a peer is sent.
const COPIES_WANTED: f64 = 1.2;

impl Bench {
    pub(super) fn latency(&mut self, messages: u16) -> Result<(), CliError> {
        let sockets = self.sockets.iter().map(AsRef::<Path>::as_ref);
        let ears = Subscribers::open(sockets, self.clock, ANSWER_TIMEOUT)?;
        for number in 0..WARM_UP {
            self.one(u64::from(number), &ears)?;
        }
        let before = self.tally()?;
        let (mut spans, mut got) = (Vec::new(), 0);
        for number in WARM_UP..WARM_UP + messages {
            let (count, last) = self.one(u64::from(number), &ears)?;
            got += count;
            spans.extend(last.map(|last| last.as_secs_f64() * 1e3));
        }
        let counted = self.tally()?.since(&before);
        let all = self.sockets.len();
        let share = got as f64 / (all * usize::from(messages)) as f64;
        self.sheet.figure("publish_to_last_delivery_ms", &spans)?;
        let p99 = distribution(&spans)["p99"].as_f64().unwrap_or(f64::NAN);
        let target = Target::AtMost(LAST_MS_WANTED);
        self.sheet.judged("publish_to_last_delivery_ms_p99", &[p99], target)?;
        let copies = counted.received as f64 / counted.delivered as f64;
        self.sheet.judged("copies_per_delivery", &[copies], Target::AtMost(COPIES_WANTED))?;
        self.sheet.judged("delivered_share", &[share], Target::AtLeast(1.0))?;
        self.sheet.line(
            "delivered",
            json!({ "messages": messages, "warm_up": WARM_UP, "heard": got,
                "deliveries": counted.delivered, "copies": counted.received,
                "repaired": counted.repaired, "missed": ears.missed() }),
        )?;
        self.hush()
    }

    /// Publishes one message; returns the number of peers that have it, its publisher included, and
    /// the time until the last of them had it.
    fn one(
        &mut self,
        number: u64,
        ears: &Subscribers,
    ) -> Result<(usize, Option<Duration>), CliError> {
        self.pause(PAUSE)?;
        let (message, by) = (self.message(number), self.rng.random_range(0..self.sockets.len()));
        let began = self.clock.now().mono;
        publish(&self.sockets[by], vec![message])?;
        let (mut count, mut last) = (0, None);
        while count < self.sockets.len() {
            let left = LOST_AFTER.saturating_sub(self.clock.now().mono.since(began));
            match ears.heard.recv_timeout(left) {
                Ok(SubscriberReport::Message(heard, at)) if heard == number => {
                    count += 1;
                    last = last.max(Some(at.since(began)));
                }
                Ok(SubscriberReport::Message(..) | SubscriberReport::Ready) => {}
                Err(_) => break,
            }
        }
        Ok((count, last))
    }
}
