//! The port of a node and the data directory that goes with it.
//!
//! A data directory is named after its node's port. A node whose port the system chooses would have
//! a new one, and so a new identity, at each start: such a directory is marked, and the next node
//! that is started with port 0 takes over one that is not in use, and its port if that is free.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::files::{DataDir, FilesError, replace_file};
use super::listen::{self, ListenError};
use crate::model::Endpoint;

/// File that marks the directory of a node whose port the system has chosen.
const MARK: &str = "port-0";

/// A port that is listened on, with the directory that an earlier node has left for it, if any.
#[derive(Debug)]
pub struct ClaimedPort {
    /// The port's socket.
    pub listener: TcpListener,
    /// Listen address of the node.
    pub endpoint: Endpoint,
    root: PathBuf,
    role: &'static str,
    kept: Option<DataDir>,
    is_chosen: bool,
}

impl ClaimedPort {
    /// Listens on `ip` and `port` for a node whose data are below `root`. With port 0 the port is
    /// that of the first such node that is not running, else the system chooses it.
    ///
    /// # Errors
    ///
    /// Fails if the port cannot be listened on.
    pub fn take(
        (root, role): (&Path, &'static str),
        (ip, port): (IpAddr, u16),
    ) -> Result<Self, ListenError> {
        let mut kept = if port == 0 { left_over(root, role) } else { None };
        let again = kept.as_ref().and_then(|(_, port)| listen::bind(ip, *port).ok());
        let listener = again.map_or_else(|| listen::bind(ip, port), Ok)?;
        let source = |source| ListenError::Listen { addr: (ip, port).into(), source };
        let endpoint = Endpoint::from(listener.local_addr().map_err(source)?);
        let (root, is_chosen) = (root.to_owned(), port == 0);
        let kept = kept.take().map(|(dir, _)| dir);
        Ok(Self { listener, endpoint, root, role, kept, is_chosen })
    }

    /// Opens the data directory, under the name of the port.
    ///
    /// # Errors
    ///
    /// As [`DataDir::open`], and when a kept directory cannot be moved to the port's name.
    pub fn open(self) -> Result<(TcpListener, DataDir), FilesError> {
        let port = self.endpoint.port();
        let dir = match self.kept {
            Some(kept) if kept.is_free_for(&self.root, self.role, port) => {
                kept.moved_to(&self.root, self.role, port)?
            }
            Some(_) | None => DataDir::open(&self.root, self.role, port)?,
        };
        let mark = dir.path().join(MARK);
        if self.is_chosen && !dir.path().join("identity.key").exists() {
            let io = |source| FilesError::Io { action: "write", path: mark.clone(), source };
            replace_file(&mark, b"").map_err(io)?;
        }
        Ok((self.listener, dir))
    }
}

/// Finds the first directory, with its port, of a node that does not run and whose port the system
/// had chosen.
fn left_over(root: &Path, role: &str) -> Option<(DataDir, u16)> {
    let entries = std::fs::read_dir(root).ok()?;
    let mut ports: Vec<u16> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix(role)?.strip_prefix('-')?.parse().ok()
        })
        .collect();
    ports.sort_unstable();
    ports.into_iter().find_map(|port| {
        let path = root.join(format!("{role}-{port}"));
        let is_marked = path.join(MARK).exists();
        let dir = is_marked.then(|| DataDir::open_idle(path).ok().flatten()).flatten()?;
        Some((dir, port))
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn start(root: &Path, port: u16) -> (u16, crate::model::PublicKey, (TcpListener, DataDir)) {
        let place = ClaimedPort::take((root, "peer"), (IP, port)).unwrap();
        let port = place.endpoint.port();
        let open = place.open().unwrap();
        let key = open.1.identity().unwrap().public();
        (port, key, open)
    }

    #[test]
    fn a_node_whose_port_the_system_chooses_keeps_port_and_identity() {
        let root = tempfile::tempdir().unwrap();
        let (port, key, open) = start(root.path(), 0);
        let (other_port, other_key, other) = start(root.path(), 0);
        assert!(other_port != port && other_key != key, "the first one is running");
        drop((open, other));
        let (first, second) = (start(root.path(), 0), start(root.path(), 0));
        let mut keys = [(first.0, first.1), (second.0, second.1)];
        keys.sort_by_key(|(now, _)| *now != port);
        assert_eq!(keys, [(port, key), (other_port, other_key)]);
    }

    #[test]
    fn an_identity_moves_with_its_directory_when_its_port_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (port, key, (listener, dir)) = start(root.path(), 0);
        drop(dir);
        let (now, same, (_, dir)) = start(root.path(), 0);
        assert!(now != port && same == key);
        assert_eq!(dir.path(), root.path().join(format!("peer-{now}")));
        assert!(!root.path().join(format!("peer-{port}")).exists());
        drop(listener);
    }

    #[test]
    fn a_directory_of_a_port_that_was_typed_is_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let free = listen::bind(IP, 0).unwrap().local_addr().unwrap().port();
        let (_, key, open) = start(root.path(), free);
        drop(open);
        let (_, other, _open) = start(root.path(), 0);
        assert_ne!(key, other);
    }
}
