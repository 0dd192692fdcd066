//! Processes of one measurement, and their reports.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value, json};

use super::part::{Part, StartSignal};
use crate::cli::CliError;
use crate::cli::bench::procfs;
use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Longest time of one step.
const PATIENCE: Duration = Duration::from_secs(900);

/// Largest number of waiting lines; there are a handful.
const LINES_MAX: usize = 64;

/// Results of a measurement.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Seconds until the last process had everything, checked and written.
    pub(super) written: f64,
    /// Seconds until the last process had told the disk to keep it.
    pub(super) kept: f64,
    /// Seconds of processor time of all processes, until then.
    pub(super) cpu: f64,
    /// Largest memory of each process.
    pub(super) peaks: Vec<f64>,
    /// Bytes of pieces that the first process has sent.
    pub(super) sent: u64,
}

/// One process of the measurement.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Time, Value)>,
    at: Option<SocketAddr>,
}

/// The processes, the first of which has the file.
pub(super) struct SwarmProcesses {
    clock: Clock,
    all: Vec<Process>,
}

impl Default for SwarmProcesses {
    fn default() -> Self {
        Self { clock: Clock::start(), all: Vec::new() }
    }
}

impl SwarmProcesses {
    /// Starts one more process.
    pub(super) fn start(&mut self, part: &Part) -> Result<(), CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        let exe = std::env::current_exe().map_err(failed)?;
        let part = serde_json::to_string(part).map_err(|err| CliError::Failed(err.to_string()))?;
        let mut child = Command::new(exe)
            .args(["bench", "swarm-part", &part])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (clock, (tell, lines)) = (self.clock, bounded(LINES_MAX));
        let stdout = child.stdout.take().map(BufReader::new);
        thread::spawn("bench:lines", move || {
            for line in stdout.into_iter().flat_map(BufRead::lines) {
                let Ok(line) = line else { return };
                let line = serde_json::from_str(&line).unwrap_or(Value::Null);
                if tell.send((clock.now().mono, line)).is_err() {
                    return;
                }
            }
        })
        .map_err(failed)?;
        let stdin = child.stdin.take();
        self.all.push(Process { child, stdin, lines, at: None });
        Ok(())
    }

    /// Waits until all are ready; returns the reports of those that became ready now.
    pub(super) fn get_ready(&mut self) -> Result<Vec<Value>, CliError> {
        let mut told = Vec::new();
        for process in self.all.iter_mut().filter(|it| it.at.is_none()) {
            let (_, line) = process.next()?;
            process.at = line["at"].as_str().and_then(|it| it.parse().ok());
            if process.at.is_none() {
                return Err(CliError::Failed(format!("a process began with {line}")));
            }
            told.push(line);
        }
        Ok(told)
    }

    /// Gives the word, and waits until all but the first `givers` have everything.
    pub(super) fn measure(mut self, givers: usize) -> Result<Measured, CliError> {
        let failed = |source| CliError::System { action: "talk to a process", source };
        let at = self.all.iter().filter_map(|it| it.at).collect();
        let word = format!("{}\n", json!(StartSignal { at }));
        let before = self.cpu();
        let begun = self.clock.now().mono;
        for process in &mut self.all {
            if let Some(stdin) = &mut process.stdin {
                stdin.write_all(word.as_bytes()).map_err(failed)?;
            }
        }
        let (mut written, mut kept) = (0.0_f64, 0.0_f64);
        for process in &self.all[givers..] {
            let at = |time: Time| time.since(begun).as_secs_f64();
            written = written.max(at(process.await_done("written")?));
            kept = kept.max(at(process.await_done("kept")?));
        }
        let cpu = self.cpu() - before;
        let (mut peaks, mut sent) = (Vec::new(), 0);
        for (number, process) in self.all.iter_mut().enumerate() {
            drop(process.stdin.take());
            while let Ok((_, line)) = process.lines.recv_timeout(PATIENCE) {
                peaks.extend(line["peak_mib"].as_f64());
                if number == 0 {
                    sent = sent.max(line["up"].as_u64().unwrap_or(0));
                }
            }
            let status = process.child.wait().map_err(failed)?;
            if !status.success() {
                return Err(CliError::Failed(format!("a process ended with {status}")));
            }
        }
        Ok(Measured { written, kept, cpu, peaks, sent })
    }

    fn cpu(&self) -> f64 {
        self.all.iter().filter_map(|it| procfs::cpu_seconds(it.child.id())).sum()
    }
}

impl Process {
    fn next(&self) -> Result<(Time, Value), CliError> {
        self.lines.recv_timeout(PATIENCE).map_err(|_| {
            CliError::Failed("a process ended early, or took too long; see above".to_owned())
        })
    }

    fn await_done(&self, what: &str) -> Result<Time, CliError> {
        loop {
            let (at, line) = self.next()?;
            if line["done"] == what {
                return Ok(at);
            }
        }
    }
}

impl Drop for SwarmProcesses {
    fn drop(&mut self) {
        for process in &mut self.all {
            // This fails if the process has ended by itself.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
