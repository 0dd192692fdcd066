//! All sockets of a data plane, so that its limits hold and all end with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Open sockets, by number.
#[derive(Default)]
pub(super) struct OpenSockets {
    open: Mutex<OpenSocket>,
    /// Number of clients among them; read for every request.
    clients: AtomicUsize,
}

#[derive(Default)]
struct OpenSocket {
    is_shut: bool,
    next: u64,
    by_number: BTreeMap<u64, (Arc<TcpStream>, Option<IpAddr>)>,
    clients_of: BTreeMap<IpAddr, usize>,
}

/// Place of one socket among them, until dropped.
pub(super) struct SocketPermit {
    sockets: Arc<OpenSockets>,
    number: u64,
}

impl OpenSockets {
    fn open(&self) -> MutexGuard<'_, OpenSocket> {
        self.open.lock().expect("nothing under this lock can panic")
    }

    /// Takes a place for a client's socket, if there are fewer than `all` clients and fewer than
    /// `of_one` from its address.
    pub(super) fn admit(
        self: &Arc<Self>,
        stream: &Arc<TcpStream>,
        from: IpAddr,
        all: usize,
        of_one: usize,
    ) -> Option<SocketPermit> {
        let mut open = self.open();
        let own = open.clients_of.get(&from).copied().unwrap_or(0);
        if open.is_shut || self.clients() >= all || own >= of_one {
            return None;
        }
        open.clients_of.insert(from, own + 1);
        self.clients.fetch_add(1, Ordering::Relaxed);
        Some(self.permit(open, stream, Some(from)))
    }

    /// Takes a place for a socket to an upstream, unless the data plane has ended.
    pub(super) fn add(self: &Arc<Self>, stream: &Arc<TcpStream>) -> Option<SocketPermit> {
        let open = self.open();
        (!open.is_shut).then(|| self.permit(open, stream, None))
    }

    fn permit(
        self: &Arc<Self>,
        mut open: MutexGuard<'_, OpenSocket>,
        stream: &Arc<TcpStream>,
        from: Option<IpAddr>,
    ) -> SocketPermit {
        open.next += 1;
        let number = open.next;
        open.by_number.insert(number, (Arc::clone(stream), from));
        drop(open);
        SocketPermit { sockets: Arc::clone(self), number }
    }

    /// Number of open clients.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Admits no more sockets, and ends the input of clients, so that those without a request
    /// leave.
    pub(super) fn shut(&self) {
        let mut open = self.open();
        open.is_shut = true;
        for (stream, _) in open.by_number.values().filter(|(_, from)| from.is_some()) {
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        for (stream, _) in self.open().by_number.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl SocketPermit {
    /// Number of the socket, which no other has had.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        let Some((_, Some(from))) = open.by_number.remove(&self.number) else { return };
        self.sockets.clients.fetch_sub(1, Ordering::Relaxed);
        match open.clients_of.get(&from).copied().unwrap_or(1) {
            1 => drop(open.clients_of.remove(&from)),
            count => drop(open.clients_of.insert(from, count - 1)),
        }
    }
}
