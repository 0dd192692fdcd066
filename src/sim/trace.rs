//! Trace of one run, step by step, to find the cause of a failure: `TRACE=1 SEED=n`.
//!
//! Nothing here has an influence on the run.

use crate::machine::{CallFailure, Effect, HostPinged, Input, NodeCall, NodeOpening, PingHost};

use super::reach::HostId;
use super::simulated::Simulated;
use super::world::World;

impl<M: Simulated> World<M> {
    /// Prints a step on stderr if the run is traced.
    #[allow(clippy::print_stderr, reason = "the trace is for the terminal of whoever asked for it")]
    pub(super) fn trace(&self, host: HostId, what: impl FnOnce() -> String) {
        if self.traced {
            let (seconds, micros) =
                (self.now().as_micros() / 1_000_000, self.now().as_micros() % 1_000_000);
            let endpoint = self.hosts[host.index()].endpoint;
            eprintln!("SEED={} {seconds:>5}.{micros:06} {endpoint} {}", self.seed, what());
        }
    }
}

/// An input in words.
pub(super) fn input<M: Simulated>(input: &Input<M>) -> String {
    match input {
        Input::Start => "<- start".to_owned(),
        Input::Opened { link, opening: NodeOpening::Accepted { from, .. } } => {
            format!("<- accepted {} from {from}", link.0)
        }
        Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
            format!("<- dialed {} as {}", ticket.0, link.0)
        }
        Input::DialFailed(CallFailure { ticket, reason }) => {
            format!("<- dial {} failed: {}", ticket.0, reason.as_str())
        }
        Input::Received { link, msg } => format!("<- {} received {msg:?}", link.0),
        Input::Garbled { link, reason } => format!("<- {} garbled: {reason}", link.0),
        Input::Closed { link, reason } => format!("<- {} closed: {reason}", link.0),
        Input::Synced { records } => format!("<- {records} records on disk"),
        Input::Expired(timer) => format!("<- expired {timer:?}"),
        Input::Extra(HostPinged { host, answer }) => format!("<- ping of {host}: {answer:?}"),
        Input::Command(command) => format!("<- command {command:?}"),
    }
}

/// An effect in words.
pub(super) fn effect<M: Simulated>(effect: &Effect<M>) -> String {
    match effect {
        Effect::Send { link, msg } => format!("-> {} send {msg:?}", link.0),
        Effect::Dial(NodeCall { ticket, to, timeout }) => {
            format!("-> dial {} to {to} within {timeout:?}", ticket.0)
        }
        Effect::SendAll { links, msg } => format!("-> {links:?} send {msg:?}"),
        Effect::Hangup { link } => format!("-> {} hang up", link.0),
        Effect::Extra(PingHost { host }) => format!("-> ping {host}"),
        Effect::SetTimer { timer, after } => format!("-> timer {timer:?} in {after:?}"),
        Effect::StopTimer(timer) => format!("-> stop timer {timer:?}"),
        Effect::Persist(record) => format!("-> persist {record:?}"),
        Effect::Emit(event) => format!("-> emit {event:?}"),
    }
}
