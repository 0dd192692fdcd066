//! Calls of a node: those that the machine orders, and those needed before there is a machine.
//!
//! Invariant: of the addresses that are sought, each is called by one thread at a time.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::engine::Shared;
use crate::machine::Never;
use crate::machine::rollout::Input;
use crate::model::PublicKey;
use crate::proto::rollout::{NodeId, Participant};

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
    /// Calls a node of the roster, on a thread of its own, which then reads the connection.
    pub(super) fn dial(self: &Arc<Self>, participant: Participant) {
        let Participant { node_id, host, port, key } = participant;
        let (shared, node) = (Arc::clone(self), node_id.clone());
        let spawned = self.porter.crew.spawn(format!("call:{port}"), move || {
            let at = format!("{host}:{port}");
            let call = Call { node: Some(node.clone()), key: Some(key), at, joins: false };
            if !shared.carry(&call) {
                shared.submit(Input::DialFailed { node });
            }
        });
        if spawned.is_err() {
            self.submit(Input::DialFailed { node: node_id });
        }
    }

    /// Makes a call and reads the connection to its end; false if there was none.
    fn carry(self: &Arc<Self>, call: &Call) -> bool {
        let Some(_seat) = self.porter.sit() else { return false };
        let addr: Option<SocketAddr> =
            call.at.to_socket_addrs().ok().and_then(|mut found| found.next());
        let Some(addr) = addr else {
            self.note_refusal(call, "this name has no address");
            return false;
        };
        match self.call(addr, call) {
            Ok(ends) => {
                self.told.lock().expect("nothing under this lock can panic").remove(&call.at);
                self.converse(ends);
                true
            }
            Err(trouble) => {
                log::debug!("cannot reach {}: {trouble}", call.at);
                if trouble.is_refusal() {
                    self.note_refusal(call, &trouble.to_string());
                }
                false
            }
        }
    }

    /// Reports the reason for which a call fails; the same reason is reported once.
    fn note_refusal(&self, call: &Call, reason: &str) {
        let mut told = self.told.lock().expect("nothing under this lock can panic");
        if told.insert(call.at.clone(), reason.to_owned()).as_deref() != Some(reason) {
            drop(told);
            let name = call.node.as_ref().map_or_else(String::new, |it| format!("{it} at "));
            self.note(format!("{name}{}: {reason}", call.at));
        }
    }

    /// Makes the calls of [`Stage::calls`](super::stage::Stage::calls), until the node stops.
    pub(super) fn seek(self: &Arc<Self>, stopping: &Receiver<Never>) {
        let started = self.clock.now().mono;
        loop {
            let has_waited = self.clock.now().mono.since(started) >= TURN;
            let Ok(calls) = self.ask(move |stage| stage.calls(has_waited)) else { return };
            for call in calls {
                self.seek_at(call, stopping.clone());
            }
            if stopping.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn seek_at(self: &Arc<Self>, call: Call, stopping: Receiver<Never>) {
        let mut busy = self.busy.lock().expect("nothing under this lock can panic");
        if !busy.insert(call.at.clone()) {
            return;
        }
        drop(busy);
        let (shared, at) = (Arc::clone(self), call.at.clone());
        let forget = |shared: &Self, at: &str| {
            shared.busy.lock().expect("nothing under this lock can panic").remove(at);
        };
        let spawned = self.porter.crew.spawn("seek", move || {
            if !shared.carry(&call) {
                let _ = stopping.recv_timeout(PAUSE);
            }
            forget(&shared, &call.at);
        });
        if spawned.is_err() {
            forget(self, &at);
        }
    }
}
