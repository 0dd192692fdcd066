//! The one port of a node.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex};

use socket2::{Domain, Protocol, Socket, Type};

/// Largest number of connections that wait to be accepted.
///
/// A thousand nodes may start at once and all call the same seed; the system caps this further.
const BACKLOG: i32 = 1024;

/// Reason why a node cannot start.
#[derive(Debug)]
pub enum ListenError {
    /// The port cannot be listened on.
    Listen {
        /// Address that was tried.
        addr: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
    /// A setting of the port cannot be used.
    Setting(String),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { addr, source } => {
                write!(f, "cannot listen on {addr}: {source}")?;
                f.write_str(remedy(source.kind()))
            }
            Self::Setting(reason) => f.write_str(reason),
        }
    }
}

impl Error for ListenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen { source, .. } => Some(source),
            Self::Setting(_) => None,
        }
    }
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    let remedies = [
        (io::ErrorKind::AddrInUse, "; stop the process that listens there or choose another port"),
        (io::ErrorKind::AddrNotAvailable, "; choose an address that this machine has"),
        (io::ErrorKind::PermissionDenied, "; choose a port of 1024 or above"),
    ];
    remedies.iter().find(|(known, _)| *known == kind).map_or("", |(_, remedy)| remedy)
}

/// Listens on `ip` and `port`; port 0 lets the system choose.
///
/// The address may be reused at once after a crash, while old connections still linger. A socket
/// that the starter of this process has opened at the address is taken over, as by systemd's socket
/// activation: while no process runs, connections wait there and are not lost.
///
/// # Errors
///
/// Fails if the port is taken, not permitted, or not an address of this machine.
pub fn bind(ip: IpAddr, port: u16) -> Result<TcpListener, ListenError> {
    let addr = SocketAddr::new(ip.to_canonical(), port);
    match inherited(addr) {
        Some(listener) => Ok(listener),
        None => listen_on(addr).map_err(|source| ListenError::Listen { addr, source }),
    }
}

/// Sockets that were handed to this process and that nobody has taken yet.
static INHERITED: LazyLock<Mutex<Vec<TcpListener>>> = LazyLock::new(|| {
    let mut handed = listenfd::ListenFd::from_env();
    let count = handed.len();
    Mutex::new((0..count).filter_map(|at| handed.take_tcp_listener(at).ok().flatten()).collect())
});

fn inherited(addr: SocketAddr) -> Option<TcpListener> {
    let mut handed = INHERITED.lock().expect("nothing under this lock can panic");
    let at = handed.iter().position(|it| it.local_addr().is_ok_and(|own| own == addr))?;
    Some(handed.swap_remove(at))
}

fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_taken_port_is_named_with_a_remedy() {
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        let first = bind(ip, 0).unwrap();
        let addr = first.local_addr().unwrap();
        let text = bind(ip, addr.port()).unwrap_err().to_string();
        assert!(text.contains(&addr.to_string()), "{text}");
        assert!(text.contains("choose another port"), "{text}");
    }

    #[test]
    fn a_foreign_address_is_named_with_a_remedy() {
        // TEST-NET-1: never an address of this machine.
        let text = bind(IpAddr::from([192, 0, 2, 1]), 0).unwrap_err().to_string();
        assert!(text.contains("192.0.2.1") && text.contains("this machine has"), "{text}");
    }
}
