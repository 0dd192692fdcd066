//! Addresses of a server's name, looked up beside the requests.
//!
//! Names are looked up by the system, so that `/etc/hosts` and the order of its sources hold. A
//! look-up runs on a thread of its own, at most one for each server at a time: a resolver that
//! hangs holds up no request to another server, and none to this one once its addresses are known.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::runtime::thread;

/// Age at which addresses are looked up again; the system does not tell how long they hold.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);

/// Name of a server, with the addresses that it had last.
#[derive(Debug)]
pub(crate) struct ServerName {
    name: String,
    port: u16,
    known: Mutex<Known>,
    is_told: Notify,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// Moment of the last look-up that ended, and its fault.
    looked: Option<(Instant, Option<String>)>,
    is_looking: bool,
}

impl ServerName {
    pub(crate) fn new(name: &str, port: u16) -> Arc<Self> {
        let known = match name.parse::<IpAddr>() {
            Ok(ip) => Known { addresses: vec![SocketAddr::new(ip, port)], ..Known::default() },
            Err(_) => Known::default(),
        };
        let (known, is_told) = (Mutex::new(known), Notify::new());
        Arc::new(Self { name: name.to_owned(), port, known, is_told })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing under this lock can panic")
    }

    /// Addresses of the name, IPv6 and IPv4 in turn (RFC 8305, 4). Waits until there are some;
    /// the caller bounds the time.
    ///
    /// # Errors
    /// Fails with the resolver's fault if the name has no address.
    pub(crate) async fn addresses(self: &Arc<Self>) -> Result<Vec<SocketAddr>, String> {
        if self.name.parse::<IpAddr>().is_ok() {
            return Ok(self.known().addresses.clone());
        }
        loop {
            let told = self.is_told.notified();
            tokio::pin!(told);
            // From here on, the end of a look-up is not missed.
            told.as_mut().enable();
            {
                let mut known = self.known();
                let is_fresh =
                    known.looked.as_ref().is_some_and(|(at, _)| at.elapsed() < LOOK_UP_EVERY);
                let failed = known.looked.as_ref().and_then(|(at, fault)| {
                    // A name that was not found is asked for again with the next request.
                    fault.clone().filter(|_| at.elapsed() < Duration::from_secs(1))
                });
                if let Some(fault) = failed.filter(|_| known.addresses.is_empty()) {
                    return Err(fault);
                }
                if !known.is_looking && (!is_fresh || known.addresses.is_empty()) {
                    known.is_looking = true;
                    let own = Arc::clone(self);
                    if thread::spawn("resolve", move || own.look_up()).is_err() {
                        known.is_looking = false;
                        return Err("the system has no room for a thread".to_owned());
                    }
                }
                if !known.addresses.is_empty() {
                    return Ok(known.addresses.clone());
                }
            }
            told.await;
        }
    }

    /// Looks the name up. Old addresses stay if it cannot be looked up.
    fn look_up(&self) {
        let found = (self.name.as_str(), self.port).to_socket_addrs();
        let mut known = self.known();
        known.is_looking = false;
        let fault = match found {
            Ok(found) => {
                let addresses = in_turn(found.collect());
                let is_none = addresses.is_empty();
                if !is_none {
                    known.addresses = addresses;
                }
                is_none.then(|| format!("{} has no address", self.name))
            }
            Err(error) => Some(format!("{} is not found: {error}", self.name)),
        };
        known.looked = Some((Instant::now(), fault));
        drop(known);
        self.is_told.notify_waiters();
    }
}

/// Orders addresses so that families alternate, beginning with the first one's.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (own, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|it| it.is_ipv6() == first);
    let (mut own, mut other) = (own.into_iter(), other.into_iter());
    let mut ordered = Vec::new();
    loop {
        match (own.next(), other.next()) {
            (None, None) => return ordered,
            (one, two) => ordered.extend([one, two].into_iter().flatten()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let list = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|it| it.parse().unwrap()).collect()
        };
        let mixed = list(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let ordered = list(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(in_turn(mixed), ordered);
        assert!(in_turn(Vec::new()).is_empty());
    }
}
