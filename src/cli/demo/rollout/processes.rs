//! Nodes and model servers as processes, and the commands that a person would type at them.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::demo::process::DemoProcess;
use crate::cli::rollout::client::Client;
use crate::runtime::thread;

/// Names of the nodes.
pub(super) const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// Versions of the model: two good ones, and one that is slow and failing.
const MODELS: [(&str, &[&str]); 3] =
    [("v1", &[]), ("v2", &[]), ("v3", &["--delay", "900ms", "--fail", "20"])];

/// Largest number of a command's lines that wait to be shown.
const LINES_MAX: usize = 1_024;

/// A running command: its output, line by line, until both ends are closed.
pub(super) struct RunningCommand {
    process: DemoProcess,
    pub(super) lines: Receiver<String>,
}

impl RunningCommand {
    /// Exit code of the command, after its last line.
    pub(super) fn code(mut self) -> io::Result<Option<i32>> {
        self.process.child.wait().map(|it| it.code())
    }
}

/// All nodes and models, with their directories.
pub(super) struct Processes {
    /// Removed with the demo, unless the directory is to be kept.
    _temporary: Option<tempfile::TempDir>,
    dir: PathBuf,
    /// Ports: three of nodes, three of their data planes, three of models.
    ports: Vec<u16>,
    models: Vec<DemoProcess>,
    nodes: BTreeMap<&'static str, DemoProcess>,
}

impl Processes {
    /// A set of processes, none of which runs.
    pub(super) fn new(keep: Option<&Path>) -> io::Result<Self> {
        let temporary = if keep.is_some() { None } else { Some(tempfile::tempdir()?) };
        let dir = match (&temporary, keep) {
            (Some(temporary), _) => temporary.path().to_owned(),
            (None, keep) => keep.unwrap_or(Path::new(".")).to_owned(),
        };
        std::fs::create_dir_all(&dir)?;
        // All at once, so that they are different.
        let free: io::Result<Vec<_>> =
            (0..9).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
        let ports: io::Result<Vec<_>> =
            free?.iter().map(|it| it.local_addr().map(|at| at.port())).collect();
        let (models, nodes) = (Vec::new(), BTreeMap::new());
        Ok(Self { _temporary: temporary, dir, ports: ports?, models, nodes })
    }

    /// Addresses of the nodes' data planes.
    pub(super) fn data_planes(&self) -> Vec<String> {
        self.ports[3..6].iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// Addresses of the models.
    pub(super) fn model_addresses(&self) -> Vec<String> {
        self.ports[6..9].iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    fn spawn(&self, name: &str, args: &[String]) -> io::Result<DemoProcess> {
        let complaints = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.dir.join(format!("{name}.err")))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).arg("--until-stdin-closes");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(complaints);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        Ok(DemoProcess { child, stdin })
    }

    /// Starts the servers of all versions.
    pub(super) fn start_models(&mut self) -> io::Result<()> {
        for ((name, more), at) in MODELS.iter().zip(self.model_addresses()) {
            let mut args = words(&["rollout", "model", "--listen", &at, "--name", name]);
            args.extend(words(more));
            self.models.push(self.spawn(name, &args)?);
        }
        Ok(())
    }

    /// Starts a node.
    pub(super) fn start(&mut self, node: &'static str) -> io::Result<()> {
        let place = NODES.iter().position(|it| *it == node).unwrap_or(0);
        let (data, logs) = (self.dir.display().to_string(), self.dir.join("logs"));
        let (port, http) = (self.ports[place].to_string(), self.data_planes()[place].clone());
        let logs = logs.display().to_string();
        let output = self.dir.join(format!("{node}.txt")).display().to_string();
        let mut args = words(&["--port", &port, "--id", node, "--http", &http]);
        args.extend(words(&["--data", &data, "--log-dir", &logs, "--output", &output]));
        for (name, port) in NODES.iter().zip(&self.ports) {
            args.extend(words(&["--node", &format!("{name}=127.0.0.1:{port}")]));
        }
        for ((name, _), at) in MODELS.iter().zip(self.model_addresses()) {
            args.extend(words(&["--serve", &format!("{name}=http://{at}")]));
        }
        let process = self.spawn(node, &args)?;
        self.nodes.insert(node, process);
        Ok(())
    }

    /// Sends a signal to a node.
    pub(super) fn signal(&self, node: &str, signal: Signal) -> io::Result<()> {
        let process = self.nodes.get(node);
        let pid = process.and_then(|it| Pid::from_raw(it.child.id().try_into().ok()?));
        let pid = pid.ok_or_else(|| io::Error::other(format!("{node} does not run")))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills a node (kill -9); it can be started again then.
    pub(super) fn kill(&mut self, node: &str) -> io::Result<()> {
        self.signal(node, Signal::KILL)?;
        self.nodes.remove(node);
        Ok(())
    }

    /// Ends a node in order.
    pub(super) fn stop(&mut self, node: &str) -> io::Result<ExitStatus> {
        let Some(mut process) = self.nodes.remove(node) else {
            return Err(io::Error::other(format!("{node} does not run")));
        };
        drop(process.stdin.take());
        process.child.wait()
    }

    /// Exit status of a node that ended by itself, if it did; it can be started again then.
    pub(super) fn fallen(&mut self, node: &str) -> io::Result<Option<ExitStatus>> {
        let Some(process) = self.nodes.get_mut(node) else { return Ok(None) };
        let status = process.child.try_wait()?;
        if status.is_some() {
            self.nodes.remove(node);
        }
        Ok(status)
    }

    /// Ends all nodes in order; an error names those that did not end.
    pub(super) fn quit(&mut self) -> io::Result<()> {
        for node in NODES {
            let status = self.stop(node)?;
            if !status.success() {
                return Err(io::Error::other(format!("{node} ended with {status}")));
            }
        }
        self.models.clear();
        Ok(())
    }

    /// A node, to be asked.
    pub(super) fn node(&self, node: &str) -> Client {
        Client { dir: self.dir.join(format!("rollout-{node}")) }
    }

    /// Last line of a node on standard error.
    pub(super) fn complaint(&self, node: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("{node}.err")));
        text.unwrap_or_default().lines().last().unwrap_or("it did not say why").to_owned()
    }

    /// Runs `peer rollout …` at one node, as a person would.
    pub(super) fn type_at(&self, node: Option<&str>, args: &[&str]) -> io::Result<RunningCommand> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("rollout").args(args);
        if let Some(node) = node {
            command.args(["--id", node]).arg("--data").arg(&self.dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = DemoProcess { child, stdin: None };
        let (tell, lines) = bounded(LINES_MAX);
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            // Its complaints come last, and are short enough to wait until then.
            hear(stdout.chain(stderr), tell)?;
        }
        Ok(RunningCommand { process, lines })
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|it| (*it).to_owned()).collect()
}

/// Passes on the lines that a command prints.
fn hear(from: impl Read + Send + 'static, tell: Sender<String>) -> io::Result<()> {
    thread::spawn("hear", move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    })
    .map(drop)
}
