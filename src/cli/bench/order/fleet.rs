//! The processes of the measured group.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::liar::Liars;
use super::part::{Load, ORDER, Part, PartOrder, pause};
use crate::cli::CliError;
use crate::cli::bench::chat::free_ports;
use crate::cli::bench::procfs;
use crate::model::Endpoint;
use crate::network::OrderRoster;
use crate::runtime::clock::Clock;
use crate::runtime::files::identity_of;

/// Longest time for the group to come together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// One member's process.
struct Member {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    part: Part,
}

/// Processes of the honest members, and threads of those that lie; ended when dropped.
pub(super) struct Fleet {
    members: Vec<Member>,
    liars: Liars,
}

/// Size of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupSize {
    /// Number of members.
    pub(super) members: u32,
    /// Number of them that lie: those with the highest ids.
    pub(super) liars: u32,
}

impl GroupSize {
    /// Ids of the members that do not lie, each of which is a process.
    pub(super) fn honest(self) -> std::ops::RangeInclusive<u32> {
        1..=self.members - self.liars
    }
}

/// Outcome of one load, over all members that took part.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Final entries a second.
    pub(super) rate: f64,
    /// Latency of one of the members, as a distribution.
    pub(super) latency: Value,
    /// Longest time without a final entry at one of the members, in ms.
    pub(super) gap_ms: f64,
}

impl Fleet {
    /// Starts a group, and waits until its honest members reach all. Liars send messages of so many
    /// bytes.
    pub(super) fn start(size: GroupSize, bytes: usize, dir: &Path) -> Result<Self, CliError> {
        let ports = free_ports(size.members)
            .map_err(|source| CliError::System { action: "find free ports", source })?;
        let data = dir.join("data");
        let at = |port: u16| Endpoint::new(Ipv4Addr::LOCALHOST.into(), port);
        let (mut text, mut keys) = (String::new(), Vec::new());
        for (id, port) in (1..=size.members).zip(&ports) {
            let own = identity_of(&data, "peer", *port).map_err(CliError::Files)?;
            text += &format!("{id} {} {}\n", at(*port), own.public());
            keys.push(own);
        }
        let roster: OrderRoster = text.parse().map_err(CliError::Usage)?;
        let mut fleet = Self { members: Vec::new(), liars: Liars::default() };
        for (id, port) in size.honest().zip(&ports) {
            let log = dir.join(format!("order_{id}"));
            let (data, roster) = (data.clone(), text.clone());
            fleet.members.push(Member::start(Part { at: at(*port), data, log, roster })?);
        }
        let honest: Vec<_> =
            size.honest().zip(&ports).map(|(_, port)| at(*port).socket_addr()).collect();
        for id in size.members - size.liars + 1..=size.members {
            let liar = (id, &keys[id as usize - 1]);
            fleet.liars.add(roster.group(ORDER), liar, &honest, bytes)?;
        }
        let all = size.members as usize;
        fleet
            .wait(|it| size.honest().all(|id| it.look(id).is_ok_and(|it| it["reached"] == all)))?;
        Ok(fleet)
    }

    /// Waits until something is so.
    pub(super) fn wait(
        &mut self,
        mut reached: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), CliError> {
        let clock = Clock::start();
        while !reached(self) {
            if clock.now().mono.as_micros() > PATIENCE.as_micros() as u64 {
                return Err(CliError::Failed("the group did not come together".to_owned()));
            }
            pause(LOOK);
        }
        Ok(())
    }

    /// Asks a member for its state.
    pub(super) fn look(&mut self, id: u32) -> Result<Value, CliError> {
        let member = self.member(id);
        member.say(PartOrder::Look)?;
        member.hear()
    }

    /// Present leader, as a member sees it that runs.
    pub(super) fn leader(&mut self, by: u32) -> Result<u32, CliError> {
        let mut found = None;
        self.wait(|it| {
            let leader = it.look(by).ok().and_then(|it| it["leader"].as_u64());
            found = leader.and_then(|it| u32::try_from(it).ok());
            found.is_some()
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Proposes by these members, `in_flight` in all; `meanwhile` runs on this thread.
    pub(super) fn load(
        &mut self,
        by: &[u32],
        load: Load,
        meanwhile: impl FnOnce(&Self) -> Result<(), CliError>,
    ) -> Result<Loaded, CliError> {
        let in_flight = load.in_flight.div_ceil(by.len());
        for id in by {
            self.member(*id).say(PartOrder::Load(Load { in_flight, ..load }))?;
        }
        meanwhile(self)?;
        let mut loaded = Loaded::default();
        for id in by {
            let told = self.member(*id).hear()?;
            let number = |name: &str| told[name].as_f64().unwrap_or_default();
            loaded.rate += number("count") / number("took_s").max(1e-9);
            loaded.gap_ms = loaded.gap_ms.max(number("gap_ms"));
            loaded.latency = told["latency_ms"].clone();
        }
        Ok(loaded)
    }

    /// Sends a signal to a member.
    pub(super) fn signal(&self, id: u32, signal: Signal) {
        let pid = self.members[id as usize - 1].child.id().cast_signed();
        if let Some(pid) = Pid::from_raw(pid) {
            // This fails if the process has ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Seconds of processor time of all processes.
    pub(super) fn cpu(&self) -> f64 {
        self.members.iter().filter_map(|it| procfs::cpu_seconds(it.child.id())).sum()
    }

    /// Resident memory of each process, in MiB.
    pub(super) fn memory(&self) -> Vec<f64> {
        let all = self.members.iter().filter_map(|it| procfs::memory(it.child.id()));
        all.map(|it| it.resident).collect()
    }

    /// Folders of the logs.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        self.members.iter().map(|it| it.part.log.clone()).collect()
    }

    /// Ends all processes at once, without warning.
    pub(super) fn kill_all(&mut self) {
        for member in &mut self.members {
            // This fails if the process has ended by itself.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
        self.liars.stop();
    }

    /// Starts a member again whose process was killed; returns when it answers.
    pub(super) fn restart(&mut self, id: u32) -> Result<(), CliError> {
        let member = self.member(id);
        // It has been killed.
        let _ = member.child.wait();
        *member = Member::start(member.part.clone())?;
        self.look(id).map(drop)
    }

    fn member(&mut self, id: u32) -> &mut Member {
        &mut self.members[id as usize - 1]
    }
}

impl Member {
    fn start(part: Part) -> Result<Self, CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        let exe = std::env::current_exe().map_err(failed)?;
        let told = serde_json::to_string(&part).map_err(|err| CliError::Failed(err.to_string()))?;
        let mut child = Command::new(exe)
            .args(["bench", "order-part", &told])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = pipes else {
            return Err(CliError::Failed("a process has no pipes".to_owned()));
        };
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), part })
    }

    fn say(&mut self, order: PartOrder) -> Result<(), CliError> {
        let order = serde_json::to_string(&order).map_err(|err| CliError::Failed(err.to_string()));
        let written = writeln!(self.stdin, "{}", order?);
        written.map_err(|source| CliError::System { action: "talk to a process", source })
    }

    fn hear(&mut self) -> Result<Value, CliError> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line);
        read.map_err(|source| CliError::System { action: "listen to a process", source })?;
        serde_json::from_str(&line)
            .map_err(|_| CliError::Failed("a process ended early; see above".to_owned()))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
    }
}
