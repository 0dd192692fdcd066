//! A fleet of real processes on this machine, for the demo, the measurements and the tests.
//!
//! Each node is this very executable, run as a seed or as a peer, on loopback, with its own data
//! directory below a temporary one. Their events are read from their logs, as any user could.
//!
//! Invariant: no process outlives the fleet, whatever ends it. Dropping kills them all; if this
//! process is killed itself, each child sees its standard input close and ends.

mod log;

pub use log::{FleetLog, LogEvent};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::model::Endpoint;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Layout of a fleet.
#[derive(Clone, Debug)]
pub struct FleetLayout {
    /// The executable to run as either; usually the running one.
    pub exe: PathBuf,
    /// Number of seeds.
    pub seeds: u16,
    /// Port of the first seed; the others follow. If one is taken, free ports are found.
    pub seed_port: u16,
    /// Port of the first peer; the others follow.
    pub peer_port: u16,
    /// Largest number of peers that will be started.
    pub peers: u16,
    /// Further arguments of each seed.
    pub seed_args: Vec<String>,
    /// Further arguments of each peer.
    pub peer_args: Vec<String>,
}

/// Running processes and their log.
#[derive(Debug)]
pub struct Fleet {
    plan: FleetLayout,
    dir: tempfile::TempDir,
    seeds: Vec<Endpoint>,
    peers: Vec<Endpoint>,
    children: BTreeMap<Endpoint, Child>,
    story: FleetLog,
}

impl Fleet {
    /// Lays out a fleet: ports, directories and `config.txt`. Starts nothing.
    ///
    /// # Errors
    /// Fails if the temporary directory cannot be made or no ports are free.
    pub fn lay_out(plan: FleetLayout) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("folkmoot-").tempdir()?;
        let seeds = ports(plan.seed_port, plan.seeds)?;
        let peers = ports(plan.peer_port, plan.peers)?;
        let mut config = String::from("# The seeds of this fleet.\n");
        for seed in &seeds {
            config.push_str(&format!("{seed}\n"));
        }
        fs::write(dir.path().join("config.txt"), config)?;
        let story = FleetLog::follow(dir.path().join("log.jsonl"))?;
        Ok(Self { plan, dir, seeds, peers, children: BTreeMap::new(), story })
    }

    /// Addresses of the seeds, in the order of their numbers.
    pub fn seeds(&self) -> &[Endpoint] {
        &self.seeds
    }

    /// Addresses of the peers, started or not.
    pub fn peers(&self) -> &[Endpoint] {
        &self.peers
    }

    /// The directory that holds everything of this fleet.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The seeds' list, as every node of this fleet reads it.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.txt")
    }

    /// Log of the nodes.
    pub const fn story(&mut self) -> &mut FleetLog {
        &mut self.story
    }

    /// Starts the seed at `endpoint`.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start_seed(&mut self, endpoint: Endpoint) -> io::Result<()> {
        let number = self.seeds.iter().position(|seed| *seed == endpoint).map_or(0, |at| at + 1);
        let mut command = Command::new(&self.plan.exe);
        command.args(["seed", "--id", &number.to_string(), "--port"]);
        command.arg(endpoint.port().to_string()).args(&self.plan.seed_args);
        self.start(endpoint, command)
    }

    /// Starts the peer at `endpoint`.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start_peer(&mut self, endpoint: Endpoint) -> io::Result<()> {
        self.start_peer_with(endpoint, &[])
    }

    /// Starts the peer at `endpoint`, with further arguments beside those of all peers.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start_peer_with(&mut self, endpoint: Endpoint, more: &[&str]) -> io::Result<()> {
        let mut command = Command::new(&self.plan.exe);
        command.arg("--port").arg(endpoint.port().to_string()).args(&self.plan.peer_args);
        command.args(more);
        self.start(endpoint, command)
    }

    fn start(&mut self, endpoint: Endpoint, mut command: Command) -> io::Result<()> {
        let dir = self.dir.path();
        command
            .arg("--config")
            .arg(dir.join("config.txt"))
            .arg("--data")
            .arg(dir.join("data"))
            .arg("--output")
            .arg(dir.join("log.jsonl"))
            .args(["--log-format", "json", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(self.errors())?);
        let child = command.spawn()?;
        self.children.insert(endpoint, child);
        Ok(())
    }

    /// Kills a process with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub fn kill(&mut self, endpoint: Endpoint) -> io::Result<()> {
        let mut child = self.children.remove(&endpoint).ok_or(io::ErrorKind::NotFound)?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub fn signal(&self, endpoint: Endpoint, signal: Signal) -> io::Result<()> {
        let child = self.children.get(&endpoint).ok_or(io::ErrorKind::NotFound)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// The process id of a running node.
    pub fn pid(&self, endpoint: Endpoint) -> Option<u32> {
        self.children.get(&endpoint).map(Child::id)
    }

    /// Nodes whose processes run, or have ended by themselves.
    pub fn running(&self) -> impl Iterator<Item = Endpoint> {
        self.children.keys().copied()
    }

    /// A node whose process has ended by itself, with its exit code.
    pub fn fallen(&mut self) -> Option<(Endpoint, Option<i32>)> {
        self.children.iter_mut().find_map(|(endpoint, child)| {
            let status = child.try_wait().ok().flatten()?;
            Some((*endpoint, status.code()))
        })
    }

    /// Standard error of the processes: the reason why one could not start, for example.
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.errors()).unwrap_or_default().trim().to_owned()
    }

    /// Asks a process to end (SIGTERM) and waits at most `patience`. Returns its exit code.
    ///
    /// # Errors
    /// Fails if there is no such process, or it does not end in time.
    pub fn stop(&mut self, endpoint: Endpoint, patience: Duration) -> io::Result<Option<i32>> {
        self.signal(endpoint, Signal::TERM)?;
        let child = self.children.get_mut(&endpoint).ok_or(io::ErrorKind::NotFound)?;
        let steps = patience.as_millis() / 5;
        for _ in 0..=steps {
            if let Some(status) = child.try_wait()? {
                self.children.remove(&endpoint);
                return Ok(status.code());
            }
            log::pause(Duration::from_millis(5));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{endpoint} does not end")))
    }

    fn errors(&self) -> PathBuf {
        self.dir.path().join("stderr.txt")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            // The process may have ended by itself; then there is nothing left to do.
            let _ = child.kill();
        }
        for child in self.children.values_mut() {
            let _ = child.wait();
        }
    }
}

/// `count` endpoints from `first` on, or free ones if any of those is taken.
fn ports(first: u16, count: u16) -> io::Result<Vec<Endpoint>> {
    let wanted = (first..first.saturating_add(count)).map(|port| Endpoint::new(LOOPBACK, port));
    let wanted: Vec<_> = wanted.collect();
    let is_free = |endpoint: &Endpoint| TcpListener::bind(endpoint.socket_addr()).is_ok();
    if first > 0 && wanted.iter().all(is_free) {
        return Ok(wanted);
    }
    // Held open until all are chosen, so that none is chosen twice.
    let holders: io::Result<Vec<_>> =
        (0..count).map(|_| TcpListener::bind((LOOPBACK, 0))).collect();
    holders?.iter().map(|holder| holder.local_addr().map(Endpoint::from)).collect()
}
