//! Clients: one thread has them all, and waits for all their sockets at once.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use rand::{RngExt as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::args::ChatBenchArgs;
use super::faults::FaultSpan;
use super::fleet::Fleet;
use crate::cli::CliError;
use crate::model::{Rng, Time};
use crate::proto::chat::entry::{ChatText, MemberId, MsgId, Origin};
use crate::proto::chat::message::{ChatReq, Message};
use crate::runtime::chat::client::Client;

/// Pause after a refusal or a broken connection.
const AGAIN: Duration = Duration::from_millis(5);

/// Time-out of a call; the other clients wait meanwhile.
const CALL: Duration = Duration::from_millis(500);

/// Shortest span without an acknowledgment that counts as an outage.
const GAP: Duration = Duration::from_millis(10);

/// Time after which a message without an answer is sent again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients of one measurement.
pub(super) struct Load<'a> {
    pub(super) args: &'a ChatBenchArgs,
    pub(super) fleet: &'a Fleet,
    /// Ids of the peers that clients send by.
    pub(super) senders: Vec<u32>,
    /// Reports of faults, if there are any: clients send until the channel ends.
    pub(super) faults: Option<Receiver<Result<FaultSpan, CliError>>>,
}

/// Results of a measurement.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) took: Duration,
    /// Latencies in milliseconds.
    pub(super) latencies: Vec<f64>,
    /// Time without any acknowledgment around each fault, in seconds.
    pub(super) outages: Vec<f64>,
    /// Number of each client's last acknowledged message.
    pub(super) acknowledged: BTreeMap<Origin, u64>,
    pub(super) refusals: u64,
    pub(super) reconnects: u64,
    /// Memory of each process in MiB after a tenth of the messages, and in the end.
    pub(super) memory_early: Vec<f64>,
    pub(super) memory_late: Vec<f64>,
}

struct Caller {
    by: u32,
    origin: Origin,
    client: Option<Client>,
    /// The message on its way, and the time when it was first sent.
    message: Option<(Message, Time)>,
    number: u64,
    /// Time to try again; a message on its way has its answer by then.
    again: Time,
}

impl Load<'_> {
    /// Sends all messages and returns the results.
    pub(super) fn run(mut self) -> Result<Outcome, CliError> {
        let mut rng = Rng::seed_from_u64(self.fleet.now().as_micros());
        let mut callers = Vec::new();
        for number in 0..self.args.clients {
            let by = self.senders[number % self.senders.len()];
            let client = Origin::program(rng.random());
            let origin = Origin { member: MemberId(by), client };
            let client = self
                .fleet
                .call(by, &mut rng, Duration::from_secs(5))
                .map_err(|source| CliError::System { action: "call a peer", source })?;
            let client = Some(client);
            let again = Time::ZERO;
            callers.push(Caller { by, origin, client, message: None, number: 0, again });
        }
        let wanted = self.args.messages * self.senders.len() as u64;
        let mut outcome = Outcome::default();
        let (begun, mut spans, mut gaps) = (self.fleet.now(), Vec::new(), Vec::new());
        let (mut last, mut sent) = (begun, 0_u64);
        loop {
            let done = outcome.latencies.len() as u64;
            if outcome.memory_early.is_empty() && done >= wanted / 10 {
                outcome.memory_early = self.fleet.memory();
            }
            let is_over = self.hear_faults(&mut spans)?;
            let goes_on = !is_over || sent < wanted;
            if !goes_on && callers.iter().all(|it| it.message.is_none()) {
                break;
            }
            let now = self.fleet.now();
            let allowed = self.args.rate.map_or(u64::MAX, |rate| {
                let micros = u128::from(now.since(begun).as_micros() as u64);
                u64::try_from(micros * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX)
            });
            for caller in &mut callers {
                if caller.message.is_none() && goes_on && sent < allowed {
                    caller.next(self.args.size.0 as usize, now);
                    sent += 1;
                }
                self.serve(caller, now, &mut rng, &mut outcome);
            }
            self.wait(&mut callers, &mut outcome);
            let now = self.fleet.now();
            if outcome.latencies.len() as u64 > done {
                if now.since(last) > GAP {
                    gaps.push((last, now));
                }
                last = now;
            }
        }
        outcome.took = last.since(begun);
        outcome.memory_late = self.fleet.memory();
        outcome.outages = spans.iter().map(|span| outage(*span, &gaps)).collect();
        for caller in &callers {
            outcome.acknowledged.insert(caller.origin, caller.number);
        }
        Ok(outcome)
    }

    /// True if no faults are to come.
    fn hear_faults(&mut self, spans: &mut Vec<FaultSpan>) -> Result<bool, CliError> {
        let Some(faults) = &self.faults else { return Ok(true) };
        match faults.try_recv() {
            Ok(span) => spans.push(span?),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.faults = None,
        }
        Ok(self.faults.is_none())
    }

    /// Sends the message of a client, now or again.
    fn serve(&self, caller: &mut Caller, now: Time, rng: &mut Rng, outcome: &mut Outcome) {
        let Some((message, _)) = &caller.message else { return };
        if caller.again > now {
            return;
        }
        caller.again = now.after(PATIENCE);
        if caller.client.is_none() {
            caller.client = self.fleet.call(caller.by, rng, CALL).ok();
            outcome.reconnects += 1;
        }
        let outcome = caller.client.as_mut().map(|client| client.send(message));
        if !matches!(outcome, Some(Ok(()))) {
            caller.client = None;
            caller.again = now.after(AGAIN);
        }
    }

    /// Waits until a client has an answer, or it is time to try again.
    fn wait(&self, callers: &mut [Caller], outcome: &mut Outcome) {
        let now = self.fleet.now();
        let next = callers.iter().filter(|it| it.message.is_some()).map(|it| it.again).min();
        let patience = next.map_or(AGAIN, |it| it.since(now)).min(Duration::from_millis(100));
        let is_idle = callers.iter().any(|it| it.message.is_none());
        let patience = if is_idle { patience.min(Duration::from_millis(1)) } else { patience };
        let ready: Vec<_> = {
            let with_client = callers.iter().filter_map(|it| it.client.as_ref());
            let mut fds: Vec<_> =
                with_client.map(|it| PollFd::new(it.stream(), PollFlags::IN)).collect();
            let patience = Timespec {
                tv_sec: 0,
                tv_nsec: i64::try_from(patience.as_nanos()).unwrap_or(1_000_000),
            };
            // The poll fails at a signal; then no socket counts as ready, and it is repeated.
            let _ = poll(&mut fds, Some(&patience));
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let with_client = callers.iter_mut().filter(|it| it.client.is_some());
        for (caller, _) in with_client.zip(ready).filter(|(_, is_ready)| *is_ready) {
            let now = self.fleet.now();
            caller.hear(now, outcome);
        }
    }
}

impl Caller {
    fn next(&mut self, size: usize, now: Time) {
        self.number += 1;
        let msg_id = MsgId { origin: self.origin, number: self.number };
        let mut payload = format!("{msg_id} ");
        payload.extend(std::iter::repeat_n('x', size.saturating_sub(payload.len())));
        let chat = ChatText { msg_id, room_id: "bench".into(), payload: payload.into() };
        let message = Message::Chat(ChatReq { sender_id: self.origin.member, chat });
        (self.message, self.again) = (Some((message, now)), now);
    }

    /// Takes the answers that have come.
    fn hear(&mut self, now: Time, outcome: &mut Outcome) {
        while let Some(client) = &mut self.client {
            match client.hear() {
                Ok(Message::ChatAck(ack)) if ack.msg_id.number == self.number => {
                    if let Some((_, sent)) = self.message.take() {
                        outcome.latencies.push(now.since(sent).as_secs_f64() * 1e3);
                    }
                }
                Ok(Message::Nack(nack))
                    if nack.msg_id.is_some_and(|it| it.number == self.number) =>
                {
                    outcome.refusals += 1;
                    self.again = now.after(AGAIN);
                }
                Ok(_) => {}
                Err(_) => {
                    self.client = None;
                    self.again = now.after(AGAIN);
                }
            }
            if !self.client.as_ref().is_some_and(Client::has_more) {
                return;
            }
        }
    }
}

/// Time without any acknowledgment after a fault.
fn outage(span: FaultSpan, gaps: &[(Time, Time)]) -> f64 {
    let around = gaps.iter().filter(|(from, to)| *to > span.from && *from < span.to);
    let spans = around.map(|(from, to)| to.since((*from).max(span.from)));
    spans.max().unwrap_or_default().as_secs_f64()
}
