//! Trace of one run, step by step, to find the cause of a failure: `TRACE=1 SEED=n`.
//!
//! Nothing here has an influence on the run.

use crate::machine::{Effect, Input, Machine};

use super::reach::HostId;
use super::world::World;

impl<M: Machine> World<M> {
    /// Prints a step on stderr if the run is traced.
    #[allow(clippy::print_stderr, reason = "the trace is for the terminal of whoever asked for it")]
    pub(super) fn tell(&self, host: HostId, what: impl FnOnce() -> String) {
        if self.traced {
            let (seconds, micros) =
                (self.now().as_micros() / 1_000_000, self.now().as_micros() % 1_000_000);
            let endpoint = self.hosts[host.index()].endpoint;
            eprintln!("SEED={} {seconds:>5}.{micros:06} {endpoint} {}", self.seed, what());
        }
    }
}

/// An input in words.
pub(super) fn input<M: Machine>(input: &Input<M>) -> String {
    match input {
        Input::Start => "<- start".to_owned(),
        Input::Accepted { link, from, .. } => format!("<- accepted {} from {from}", link.0),
        Input::Dialed { ticket, link, .. } => format!("<- dialed {} as {}", ticket.0, link.0),
        Input::DialFailed { ticket, reason } => {
            format!("<- dial {} failed: {}", ticket.0, reason.as_str())
        }
        Input::Received { link, msg } => format!("<- {} received {msg:?}", link.0),
        Input::Garbled { link, reason } => format!("<- {} garbled: {reason}", link.0),
        Input::Closed { link, reason } => format!("<- {} closed: {reason}", link.0),
        Input::Expired(timer) => format!("<- expired {timer:?}"),
        Input::HostPinged { host, answer } => format!("<- ping of {host}: {answer:?}"),
        Input::Command(command) => format!("<- command {command:?}"),
    }
}

/// An effect in words.
pub(super) fn effect<M: Machine>(effect: &Effect<M>) -> String {
    match effect {
        Effect::Send { link, msg } => format!("-> {} send {msg:?}", link.0),
        Effect::Dial { ticket, to, timeout } => {
            format!("-> dial {} to {to} within {timeout:?}", ticket.0)
        }
        Effect::Hangup { link } => format!("-> {} hang up", link.0),
        Effect::PingHost { host } => format!("-> ping {host}"),
        Effect::SetTimer { timer, after } => format!("-> timer {timer:?} in {after:?}"),
        Effect::StopTimer(timer) => format!("-> stop timer {timer:?}"),
        Effect::Persist(record) => format!("-> persist {record:?}"),
        Effect::Emit(event) => format!("-> emit {event:?}"),
    }
}
