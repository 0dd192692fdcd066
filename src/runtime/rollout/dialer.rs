//! Calls that the machine does not order: those needed before there is a machine.
//!
//! Invariant: of the addresses that are sought, each is called by one thread at a time.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::engine::Shared;
use crate::machine::Never;
use crate::model::PublicKey;
use crate::proto::rollout::NodeId;

/// Interval at which the node looks for calls to make.
const LOOK: Duration = Duration::from_millis(250);

/// Pause before an address that did not answer is called again.
const PAUSE: Duration = Duration::from_millis(500);

/// Time that a node waits for the calls of nodes with lower names before it calls them itself.
const TURN: Duration = Duration::from_secs(3);

/// Call to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Name of the node that should answer, if known.
    pub(super) node: Option<NodeId>,
    /// Key of the node that should answer, if known.
    pub(super) key: Option<PublicKey>,
    /// Address to call, as `HOST:PORT`.
    pub(super) at: String,
    /// True if to ask to be let in.
    pub(super) joins: bool,
}

impl Call {
    /// Returns a call to any node at an address, which is asked to let this one in.
    pub(super) const fn join(at: String) -> Self {
        Self { node: None, key: None, at, joins: true }
    }
}

impl Shared {
    /// Reports the reason for which a call fails; the same reason is reported once.
    pub(super) fn note_refusal(&self, call: &Call, reason: &str) {
        let mut last_errors =
            self.service.last_errors.lock().expect("nothing under this lock can panic");
        if last_errors.insert(call.at.clone(), reason.to_owned()).as_deref() != Some(reason) {
            drop(last_errors);
            let name = call.node.as_ref().map_or_else(String::new, |it| format!("{it} at "));
            self.note(format!("{name}{}: {reason}", call.at));
        }
    }

    /// Makes the calls of [`NodeState::calls`](super::node_state::NodeState::calls), until the node
    /// stops.
    pub(super) fn dial_members(self: &Arc<Self>, stopping: &Receiver<Never>) {
        let started = self.clock.now().mono;
        loop {
            let has_waited = self.clock.now().mono.since(started) >= TURN;
            let Ok(calls) = self.ask(move |state| state.node_state.calls(has_waited)) else {
                return;
            };
            for call in calls {
                self.seek_at(call, stopping.clone());
            }
            if stopping.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn seek_at(self: &Arc<Self>, call: Call, stopping: Receiver<Never>) {
        let mut busy = self.service.busy.lock().expect("nothing under this lock can panic");
        if !busy.insert(call.at.clone()) {
            return;
        }
        drop(busy);
        let (shared, at) = (Arc::clone(self), call.at.clone());
        let forget = |shared: &Self, at: &str| {
            shared.service.busy.lock().expect("nothing under this lock can panic").remove(at);
        };
        let spawned = self.acceptor.threads.spawn("seek", move || {
            if shared.call(&call).is_err() {
                let _ = stopping.recv_timeout(PAUSE);
            }
            forget(&shared, &call.at);
        });
        if spawned.is_err() {
            forget(self, &at);
        }
    }
}
