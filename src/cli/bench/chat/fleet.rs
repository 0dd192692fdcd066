//! The processes of one group.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rand::SeedableRng as _;
use rustix::process::{Pid, Signal, kill_process};

use super::args::ChatBenchArgs;
use crate::cli::CliError;
use crate::cli::bench::procfs;
use crate::model::{KeyPair, Rng, Time};
use crate::proto::chat::entry::MemberId;
use crate::runtime::chat::client::Client;
use crate::runtime::clock::Clock;
use crate::runtime::files::identity_of;

/// Longest time for the group to come together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time-out of a call to a peer.
const CALL: Duration = Duration::from_secs(1);

/// Pause between two questions for the leader.
const LOOK: Duration = Duration::from_millis(50);

/// One process of the group.
struct Peer {
    id: u32,
    port: u16,
    keys: KeyPair,
    child: Mutex<Child>,
}

/// Processes of the group.
pub(super) struct Fleet {
    dir: PathBuf,
    clock: Clock,
    flags: Vec<String>,
    peers: Vec<Peer>,
}

impl Fleet {
    /// Starts all processes, the first as the founder.
    pub(super) fn start(args: &ChatBenchArgs, dir: &Path, clock: Clock) -> Result<Self, CliError> {
        let mut flags = Vec::new();
        if let Some(span) = args.leader_timeout {
            let heartbeat = (span.0 / 3).min(Duration::from_millis(800));
            flags.extend(["--leader-timeout".to_owned(), span.to_string()]);
            flags.extend(["--heartbeat".to_owned(), format!("{}ms", heartbeat.as_millis())]);
        }
        let mut fleet = Self { dir: dir.to_owned(), clock, flags, peers: Vec::new() };
        let ports = free_ports(args.peers)
            .map_err(|source| CliError::System { action: "find free ports", source })?;
        for (number, port) in (1..).zip(ports) {
            // A chat's directory bears its id.
            let keys = identity_of(&dir.join("data"), "chat", number).map_err(CliError::Files)?;
            let id = u32::from(number);
            let child = Mutex::new(fleet.spawn(id, port)?);
            fleet.peers.push(Peer { id, port, keys, child });
            if id == 1 {
                fleet.await_leader()?;
            }
        }
        Ok(fleet)
    }

    fn spawn(&self, id: u32, port: u16) -> Result<Child, CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        let (id, port) = (id.to_string(), port.to_string());
        command
            .args(["chat", "--plain", "--quiet", "--host", "127.0.0.1", "--id", &id])
            .args(["--port", &port])
            .args(&self.flags)
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        for peer in &self.peers {
            if peer.id.to_string() != id {
                command.args(["--seed", &format!("{}:127.0.0.1:{}", peer.id, peer.port)]);
            }
        }
        command.spawn().map_err(failed)
    }

    /// Ids of all peers.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.peers.iter().map(|it| it.id)
    }

    /// Connects to a peer, as its client.
    pub(super) fn call(
        &self,
        id: u32,
        rng: &mut Rng,
        timeout: Duration,
    ) -> std::io::Result<Client> {
        let peer = self.peer(id);
        let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), peer.port);
        Client::connect(addr, MemberId(id), &peer.keys, rng, timeout)
    }

    /// Waits until all peers agree on a leader, and the group is whole.
    pub(super) fn await_leader(&self) -> Result<u32, CliError> {
        let deadline = self.clock.now().mono.after(PATIENCE);
        let mut steady = 0;
        while self.clock.now().mono < deadline {
            let leaders: Vec<_> = self.ids().map(|id| self.view(id)).collect();
            let whole = self.peers.len();
            let first = leaders.first().copied().flatten();
            let is_one = first.is_some() && leaders.iter().all(|it| *it == first);
            match first {
                // A higher id may still take over.
                Some((leader, members)) if is_one && members == whole => {
                    steady += 1;
                    if leader as usize == whole && steady > 3 || steady > 40 {
                        return Ok(leader);
                    }
                }
                Some(_) | None => steady = 0,
            }
            self.pause(LOOK);
        }
        let views: Vec<_> = self.ids().map(|id| self.view(id)).collect();
        let text = format!("the group did not come together (leader and members: {views:?})");
        Err(CliError::Failed(text))
    }

    /// Leader and number of members, as one peer sees them.
    pub(super) fn view(&self, id: u32) -> Option<(u32, usize)> {
        let mut rng = Rng::seed_from_u64(self.clock.now().mono.as_micros());
        let client = self.call(id, &mut rng, CALL).ok()?;
        Some((client.ack.leader_id?.0, client.ack.membership.len()))
    }

    /// Waits for a fixed time.
    pub(super) fn pause(&self, span: Duration) {
        let (_open, never) = crossbeam_channel::bounded::<()>(0);
        let _ = never.recv_timeout(span);
    }

    /// The present moment.
    pub(super) fn now(&self) -> Time {
        self.clock.now().mono
    }

    /// Ends a process without warning.
    pub(super) fn kill(&self, id: u32) {
        let mut child = self.child(id);
        // This fails if the process has ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Ends all processes at once, without warning.
    pub(super) fn kill_all(&self) {
        for id in self.ids() {
            self.signal(id, Signal::KILL);
        }
        self.ids().for_each(|id| self.kill(id));
    }

    /// Starts a process again that was killed.
    pub(super) fn restart(&self, id: u32) -> Result<(), CliError> {
        *self.child(id) = self.spawn(id, self.peer(id).port)?;
        Ok(())
    }

    /// Stops a process, or lets it go on.
    pub(super) fn freeze(&self, id: u32, is_frozen: bool) {
        self.signal(id, if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, id: u32, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid(id).cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }

    fn pid(&self, id: u32) -> u32 {
        self.child(id).id()
    }

    /// Memory of each process, in MiB.
    pub(super) fn memory(&self) -> Vec<f64> {
        self.ids().filter_map(|id| procfs::memory(self.pid(id))).map(|it| it.resident).collect()
    }

    /// Seconds of processor time of all processes.
    pub(super) fn cpu(&self) -> f64 {
        self.ids().filter_map(|id| procfs::cpu_seconds(self.pid(id))).sum()
    }

    /// Paths of all logs.
    pub(super) fn logs(&self) -> impl Iterator<Item = PathBuf> {
        self.ids().map(|id| self.dir.join(format!("data/logs/peer_{id}.log")))
    }

    fn child(&self, id: u32) -> std::sync::MutexGuard<'_, Child> {
        self.peer(id).child.lock().expect("nothing under this lock can panic")
    }

    fn peer(&self, id: u32) -> &Peer {
        self.peers.iter().find(|it| it.id == id).expect("only ids of this fleet are asked for")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Ports that are free now.
pub(in crate::cli::bench) fn free_ports(count: u32) -> std::io::Result<Vec<u16>> {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let held: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind((ip, 0))).collect();
    held?.iter().map(|it| it.local_addr().map(|addr| addr.port())).collect()
}
