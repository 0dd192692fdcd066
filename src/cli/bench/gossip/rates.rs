//! Rates of many messages: the rate is raised until it is not sustained.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::after;
use serde_json::json;

use super::subscribers::{LAST, Subscribers};
use super::tally::Tally;
use super::{ANSWER_TIMEOUT, Bench, GossipArgs, numbered, publish};
use crate::cli::CliError;
use crate::cli::bench::figure::Target;
use crate::cli::bench::procfs;
use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Least number of deliveries a second that a fleet of 20 should carry.
const DELIVERIES_WANTED: f64 = 10_000.0;

/// Interval at which each publisher publishes the messages that are due, and their largest number.
const TICK: Duration = Duration::from_millis(10);
const BATCH_MAX: u64 = 64;

/// Time without a change of the counters after which missing messages count as lost.
const STILL: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(100);

/// A rate is not sustained if the last delivery comes so long after the last message.
const BACKLOG: Duration = Duration::from_secs(1);

/// A rate is not sustained either if publishers reach less than this share of it.
const SHARE: f64 = 0.9;

/// One rate, held for a while.
struct Step {
    wanted: u32,
    messages: u64,
    /// Time until the last message was published.
    published_in: Duration,
    /// Time until the last delivery was seen.
    delivered_in: Duration,
    counted: Tally,
    /// Processor time of this process itself, in seconds.
    own_cpu: f64,
    missed: u64,
    expected: u64,
}

impl Step {
    /// Reasons why the rate was not sustained.
    fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.counted.delivered != self.expected {
            all.push(format!("{} of {} delivered", self.counted.delivered, self.expected));
        }
        all.extend(self.counted.losses().iter().map(|(name, count)| format!("{name}: {count}")));
        if self.missed > 0 {
            all.push(format!("missed by its subscriber: {}", self.missed));
        }
        if self.delivered_in > self.published_in + BACKLOG {
            all.push("the last deliveries come late".to_owned());
        }
        let reached = self.messages as f64 / self.published_in.as_secs_f64();
        if reached < f64::from(self.wanted) * SHARE {
            all.push(format!("publishers reach {reached:.0} a second"));
        }
        all
    }

    fn messages_per_s(&self) -> f64 {
        self.messages as f64 / self.delivered_in.as_secs_f64()
    }

    fn deliveries_per_s(&self) -> f64 {
        self.counted.delivered as f64 / self.delivered_in.as_secs_f64()
    }
}

impl Bench {
    /// Doubles the rate from the first on until it is not sustained, then tries half way.
    pub(super) fn rates(&mut self, publishers: usize, args: &GossipArgs) -> Result<(), CliError> {
        let mut best: Option<Step> = None;
        let (mut rate, mut is_half_way) = (args.rate, false);
        while rate <= args.rate_max {
            let step = self.step(publishers, rate, args.step.0)?;
            let complaints = step.complaints();
            self.sheet.line(
                "rate",
                json!({ "publishers": publishers, "wanted": rate, "good": complaints.is_empty(),
                    "complaints": complaints, "messages": step.messages,
                    "messages_per_s": step.messages_per_s().round(),
                    "deliveries_per_s": step.deliveries_per_s().round(),
                    "copies_per_delivery": step.counted.received as f64
                        / step.counted.delivered.max(1) as f64,
                    "repaired": step.counted.repaired,
                    "cpu_us_per_delivery": step.counted.cost().round(),
                    "cpu_s": step.counted.cpu, "bench_cpu_s": step.own_cpu,
                    "published_in_ms": step.published_in.as_millis() as u64,
                    "delivered_in_ms": step.delivered_in.as_millis() as u64 }),
            )?;
            if complaints.is_empty() {
                best = Some(step);
                rate = if is_half_way { u32::MAX } else { rate * 2 };
            } else if is_half_way || best.is_none() {
                break;
            } else {
                is_half_way = true;
                rate = rate / 4 * 3;
            }
        }
        self.sheet.note("publishers", publishers.into());
        let column =
            |pick: fn(&Step) -> f64| best.as_ref().map(pick).into_iter().collect::<Vec<_>>();
        self.sheet.figure("messages_per_s", &column(Step::messages_per_s))?;
        let target = Target::AtLeast(DELIVERIES_WANTED);
        self.sheet.judged("deliveries_per_s", &column(Step::deliveries_per_s), target)?;
        self.sheet.figure("cpu_us_per_delivery", &column(|it| it.counted.cost()))
    }

    fn step(&mut self, publishers: usize, rate: u32, span: Duration) -> Result<Step, CliError> {
        let listener = self.sockets.last().map(AsRef::<Path>::as_ref);
        let ears = Subscribers::open(listener, self.clock, ANSWER_TIMEOUT)?;
        let own = || procfs::cpu_seconds(std::process::id()).unwrap_or(0.0);
        let (before, own_before, began) = (self.tally()?, own(), Clock::start());
        let bytes = self.message(0).to_vec();
        let each = f64::from(rate) / publishers as f64;
        let mut threads = Vec::new();
        for socket in self.sockets.iter().take(publishers) {
            let (socket, bytes) = (socket.clone(), bytes.clone());
            let spawned = thread::spawn("mouth", move || speak(&socket, &bytes, each, span));
            threads.push(
                spawned.map_err(|source| CliError::System { action: "start a thread", source })?,
            );
        }
        let mut messages = 0;
        for thread in threads {
            messages += thread.join().expect("a publisher panicked")?;
        }
        let published_in = elapsed(began);
        let expected = messages * (self.sockets.len() as u64 - 1);
        let (counted, delivered_in) = self.settle(&before, expected, began)?;
        let missed = ears.missed();
        let own_cpu = own() - own_before;
        self.hush()?;
        Ok(Step {
            wanted: rate,
            messages,
            published_in,
            delivered_in,
            counted,
            own_cpu,
            missed,
            expected,
        })
    }

    /// Ends the subscribers by a last message, which counts for no later figure.
    pub(super) fn hush(&mut self) -> Result<(), CliError> {
        let (before, last) = (self.tally()?, self.message(LAST));
        publish(&self.sockets[0], vec![last])?;
        let others = self.sockets.len() as u64 - 1;
        self.settle(&before, others, Clock::start()).map(|_| ())
    }

    /// Waits until all is delivered, or nothing more comes; returns the counters, and the time of
    /// the last delivery.
    pub(super) fn settle(
        &mut self,
        before: &Tally,
        expected: u64,
        began: Clock,
    ) -> Result<(Tally, Duration), CliError> {
        let (mut counted, mut at) = (Tally::default(), elapsed(began));
        loop {
            let now = self.tally()?.since(before);
            if now.delivered > counted.delivered {
                at = elapsed(began);
            }
            counted = now;
            if counted.delivered >= expected || elapsed(began) > at + STILL {
                return Ok((counted, at));
            }
            self.pause(LOOK)?;
        }
    }
}

/// The time since a clock was started.
pub(super) fn elapsed(clock: Clock) -> Duration {
    clock.now().mono.since(Time::ZERO)
}

/// Publishes `rate` messages a second for `span`; returns their number.
pub(super) fn speak(
    socket: &Path,
    bytes: &[u8],
    rate: f64,
    span: Duration,
) -> Result<u64, CliError> {
    let clock = Clock::start();
    let mut said = 0;
    loop {
        let now = elapsed(clock);
        let due = (now.min(span).as_secs_f64() * rate) as u64 - said;
        if due > 0 {
            let batch = due.min(BATCH_MAX);
            let all = (said..said + batch).map(|it| numbered(bytes.to_vec(), it)).collect();
            publish(socket, all)?;
            said += batch;
        }
        // A publisher that cannot keep up stops in time all the same: the reached rate shows it.
        if now >= span {
            return Ok(said);
        }
        if due <= BATCH_MAX {
            let rest = TICK.saturating_sub(elapsed(clock).saturating_sub(now));
            // The channel carries nothing: its only end is the time.
            let _ = after(rest).recv();
        }
    }
}
