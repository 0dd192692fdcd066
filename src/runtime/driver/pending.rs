//! Connections that are not links: silent ones, guests of other dialects, and dials under way.
//!
//! Connections are kept here only so that they can be closed: a silent one if there are too many,
//! all of them when the node stops. Reading and writing is the business of their threads.
//!
//! Invariant: of too many silent connections one of the address with the most of them goes, so that
//! no address fills the room alone.

use std::collections::BTreeMap;
use std::mem;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::net::{SendFlags, send};

use crate::machine::crowd::first_to_go;
use crate::proto::line::encode;
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Reason for which a caller is turned away.
pub(in crate::runtime) const NO_ROOM: &str =
    "this node has no room for another connection now; try again in a moment";

/// All sockets of a node that are not links.
#[derive(Debug, Default)]
pub(in crate::runtime) struct PendingConnections(Mutex<PendingSockets>);

#[derive(Debug, Default)]
struct PendingSockets {
    next: u64,
    /// Silent connections, in the order of their coming.
    silent: BTreeMap<u64, (IpAddr, Arc<TcpStream>)>,
    dials: BTreeMap<u64, Arc<TcpStream>>,
    guests: BTreeMap<u64, Arc<TcpStream>>,
    is_closed: bool,
}

impl PendingConnections {
    /// Registers an accepted connection that has sent nothing yet, under a new number.
    ///
    /// `None` if the node is stopping. If more than `max` are silent, the one that makes room is
    /// returned for the caller to close: the oldest of the address with the most.
    pub(in crate::runtime) fn admit(
        &self,
        stream: &Arc<TcpStream>,
        from: IpAddr,
        max: usize,
    ) -> Option<(u64, Option<Arc<TcpStream>>)> {
        let mut sockets = self.lock();
        let number = sockets.number()?;
        sockets.silent.insert(number, (from, Arc::clone(stream)));
        let crowded = sockets.silent.len() > max;
        Some((number, if crowded { sockets.pop_silent() } else { None }))
    }

    /// Registers a socket that is about to connect; `None` if the node is stopping.
    pub(in crate::runtime) fn admit_dial(&self, stream: &Arc<TcpStream>) -> Option<u64> {
        let mut sockets = self.lock();
        let number = sockets.number()?;
        sockets.dials.insert(number, Arc::clone(stream));
        Some(number)
    }

    /// Notes that a silent connection has spoken; false if it was closed in the meantime.
    pub(in crate::runtime) fn has_spoken(&self, number: u64) -> bool {
        let mut sockets = self.lock();
        match sockets.silent.remove(&number) {
            Some((_, stream)) => sockets.guests.insert(number, stream).is_none(),
            None => false,
        }
    }

    /// Forgets a connection; false if the node has closed it.
    pub(in crate::runtime) fn leave(&self, number: u64) -> bool {
        let mut sockets = self.lock();
        let PendingSockets { silent, dials, guests, .. } = &mut *sockets;
        silent.remove(&number).is_some()
            || [dials, guests].into_iter().any(|kind| kind.remove(&number).is_some())
    }

    /// Closes the silent connection that is the first to go; false when none is silent.
    pub(in crate::runtime) fn evict_one(&self) -> bool {
        let evicted = self.lock().pop_silent();
        evicted.is_some_and(|stream| {
            close(&stream);
            true
        })
    }

    /// Admits no connection from now on, and closes those that are silent or not yet connected.
    /// Guests get the end of their input, so that those that wait for more of it end, and may still
    /// answer.
    pub(in crate::runtime) fn shut(&self) {
        let mut sockets = self.lock();
        sockets.is_closed = true;
        let (silent, dials) = (mem::take(&mut sockets.silent), mem::take(&mut sockets.dials));
        for guest in sockets.guests.values() {
            let _ = guest.shutdown(Shutdown::Read);
        }
        drop(sockets);
        let silent = silent.values().map(|(_, stream)| stream);
        silent.chain(dials.values()).for_each(|stream| close(stream));
    }

    /// Closes all connections that are left; comes after [`Self::shut`].
    pub(in crate::runtime) fn clear(&self) {
        let guests = mem::take(&mut self.lock().guests);
        guests.values().for_each(|stream| close(stream));
    }

    fn lock(&self) -> MutexGuard<'_, PendingSockets> {
        self.0.lock().expect("nothing under this lock can panic")
    }
}

impl PendingSockets {
    /// A new number, unless the set of pending connections is closed.
    const fn number(&mut self) -> Option<u64> {
        if self.is_closed {
            return None;
        }
        self.next += 1;
        Some(self.next)
    }

    /// Takes out the silent connection that makes room for another.
    fn pop_silent(&mut self) -> Option<Arc<TcpStream>> {
        let crowd = self.silent.iter().map(|(number, (from, _))| (*number, *from));
        self.silent.remove(&first_to_go(crowd)?).map(|(_, stream)| stream)
    }
}

/// Tells a caller for which there is no room so, and closes its connection. Nobody waits for a
/// caller that does not read: what the socket does not take at once is lost.
pub(in crate::runtime) fn turn_away(stream: &TcpStream, words: &[u8]) {
    let _ = send(stream, words, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    close(stream);
}

/// The words for such a caller where lines of the native dialect are spoken or encrypted ones.
pub(in crate::runtime) fn busy_line() -> Vec<u8> {
    encode(&ErrorReply::new(ErrorCode::Busy, NO_ROOM).into())
}

/// Ends both directions, which wakes a thread that is blocked on the socket.
pub(in crate::runtime) fn close(stream: &TcpStream) {
    // This fails if the other end has already reset the connection: the goal is reached.
    let _ = stream.shutdown(Shutdown::Both);
}
