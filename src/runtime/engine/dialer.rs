//! Calls to other ends.
//!
//! Invariant: when somebody learns that a call has failed, its room is free for another.

use std::sync::Arc;

use super::handshake::HandshakeError;
use super::service::{CallOf, Service};
use super::shared::Shared;
use crate::machine::Input;

impl<S: Service> Shared<S> {
    /// Makes a call of the machine's, on a thread of its own, which then reads the connection.
    pub(super) fn dial(self: &Arc<Self>, call: CallOf<S>) {
        let (target, failure) = S::target(call);
        let (shared, failed) = (Arc::clone(self), failure.clone());
        let name = format!("call:{}", S::port_of(&target));
        let spawned = self.acceptor.threads.spawn(name, move || {
            if shared.call(&target).is_err() {
                shared.submit(Input::DialFailed(failed));
            }
        });
        if spawned.is_err() {
            self.submit(Input::DialFailed(failure));
        }
    }

    /// Makes a call and reads the connection to its end, on the calling thread.
    ///
    /// # Errors
    /// Fails if there was no connection.
    pub(in crate::runtime) fn call(
        &self,
        target: &S::Target,
    ) -> Result<(), HandshakeError<S::Code>> {
        let outcome = self.try_call(target);
        if let Err(error) = &outcome {
            S::on_call_failed(self, target, error);
        }
        outcome
    }

    fn try_call(&self, target: &S::Target) -> Result<(), HandshakeError<S::Code>> {
        let _permit = self.acceptor.sit().ok_or(HandshakeError::Closed)?;
        let addr = S::resolve(target).ok_or(HandshakeError::NoAddress)?;
        let ends = self.connect(addr, target)?;
        S::on_called(self, target, &ends.peer);
        self.converse(ends);
        Ok(())
    }
}
