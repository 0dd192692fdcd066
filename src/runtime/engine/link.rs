//! The reading end of a connection, from the moment at which both ends have proved their keys.
//!
//! Invariant: the machine learns of the connection before anything from it, and of its end exactly
//! once; both are told by the reading thread.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::core::{CoreMsg, NewLink};
use super::link_writer::{LinkWriter, give_up_after};
use super::service::Service;
use super::shared::Shared;
use crate::machine::Input;
use crate::proto::sealed::Sealer;

/// Largest number of unreadable messages of a connection. Newer programs may send some that are not
/// known here, but an end that sends nothing else is not one of them.
pub(in crate::runtime) const GARBLED_MAX: u32 = 64;

/// Connection over which both ends have proved their keys.
pub(in crate::runtime) struct AuthenticatedConnection<S: Service> {
    pub(super) input: S::Reader,
    pub(super) form: S::Form,
    pub(super) deadline: Arc<AtomicU64>,
    pub(super) reads: Arc<AtomicU64>,
    pub(super) stream: Arc<TcpStream>,
    pub(super) sealer: Option<Sealer>,
    pub(super) peer: S::Peer,
}

impl<S: Service> Shared<S> {
    /// Registers a connection and reads it to its end, on the calling thread.
    pub(super) fn converse(&self, ends: AuthenticatedConnection<S>) {
        let AuthenticatedConnection { mut input, form, deadline, reads, stream, sealer, peer } =
            ends;
        deadline.store(u64::MAX, Ordering::Relaxed);
        let is_ready = stream.set_read_timeout(None).is_ok()
            && stream.set_write_timeout(Some(self.limits.write_timeout)).is_ok();
        give_up_after(&stream, self.limits.write_timeout);
        let link = self.number_link();
        let writer = Arc::new(LinkWriter::new(Arc::clone(&stream)));
        let id = S::id_of(&peer);
        let for_core = Arc::clone(&writer);
        let new = NewLink { link, writer: for_core, form, sealer, reads, peer };
        self.enter(link, &stream, id.clone());
        if is_ready && self.queue.push(CoreMsg::NewLink(Box::new(new)), 0).is_ok() {
            self.counters.links.add(1);
            let outcome = S::read(self, (link, &writer), &id, &mut input);
            log::debug!("a connection with {id:?} has ended: {outcome:?}");
            self.submit(Input::Closed { link, reason: outcome.err().unwrap_or_default() });
        }
        self.leave(link);
        writer.cut();
    }
}
