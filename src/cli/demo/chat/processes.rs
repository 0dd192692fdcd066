//! Members of the demo as processes: their input and their output.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::cli::demo::process::DemoProcess;
use crate::runtime::thread;

/// Largest number of waiting lines of members; a member that prints more waits.
const SAID_MAX: usize = 4_096;

/// Number of members.
const MEMBERS: u32 = 3;

/// Report of a member.
pub(super) enum MemberReport {
    /// A message is final.
    Message {
        /// Member that shows it.
        by: u32,
        /// Number of the entry.
        seq: u64,
        /// Member that typed it.
        author: u32,
        /// Text of the message.
        text: String,
    },
    /// The group has changed.
    Note {
        /// Member that reports it.
        by: u32,
        /// Text of the note.
        text: String,
    },
    /// A member's output has ended.
    Gone {
        /// Member whose output it was.
        by: u32,
    },
}

/// All members, with their directories.
pub(super) struct Processes {
    /// Removed with the demo, unless the directory is to be kept.
    _temporary: Option<tempfile::TempDir>,
    dir: PathBuf,
    ports: Vec<u16>,
    actors: BTreeMap<u32, DemoProcess>,
    notes: BTreeMap<u32, Vec<String>>,
    tell: Sender<MemberReport>,
    told: Receiver<MemberReport>,
}

impl Processes {
    /// Members that have not been started.
    pub(super) fn new(keep: Option<&Path>) -> io::Result<Self> {
        let temporary = if keep.is_some() { None } else { Some(tempfile::tempdir()?) };
        let dir = match (&temporary, keep) {
            (Some(temporary), _) => temporary.path().to_owned(),
            (None, keep) => keep.unwrap_or(Path::new(".")).to_owned(),
        };
        std::fs::create_dir_all(&dir)?;
        // All at once, so that they are different.
        let free: io::Result<Vec<_>> =
            (0..MEMBERS).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
        let ports: io::Result<Vec<_>> =
            free?.iter().map(|it| it.local_addr().map(|at| at.port())).collect();
        let (tell, told) = bounded(SAID_MAX);
        let (actors, notes) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { _temporary: temporary, dir, ports: ports?, actors, notes, tell, told })
    }

    fn port(&self, id: u32) -> u16 {
        self.ports[id as usize - 1]
    }

    /// Directory of the logs.
    fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Starts a member; all but the first look for the first and, as that may be dead, the second.
    pub(super) fn start(&mut self, id: u32) -> io::Result<()> {
        let complaints = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.dir.join(format!("peer_{id}.err")))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["chat", "--plain", "--host", "127.0.0.1"]);
        command.args(["--id", &id.to_string(), "--port", &self.port(id).to_string()]);
        command.arg("--data").arg(&self.dir).arg("--log-dir").arg(self.logs());
        for other in (1..id).take(2) {
            command.args(["--seed", &format!("{other}:127.0.0.1:{}", self.port(other))]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        self.notes.remove(&id);
        self.actors.insert(id, DemoProcess { child, stdin });
        if let Some(stdout) = stdout {
            let tell = self.tell.clone();
            thread::spawn(format!("hear:{id}"), move || listen(id, stdout, &tell))?;
        }
        Ok(())
    }

    /// Ends a member as a power cut would.
    pub(super) fn kill(&mut self, id: u32) {
        self.actors.remove(&id);
    }

    /// True if a member is meant to run.
    pub(super) fn is_up(&self, id: u32) -> bool {
        self.actors.contains_key(&id)
    }

    /// Types a line at a member.
    pub(super) fn type_line(&mut self, id: u32, line: &str) -> io::Result<()> {
        let stdin = self.actors.get_mut(&id).and_then(|it| it.stdin.as_mut());
        let stdin = stdin.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        stdin.write_all(format!("{line}\n").as_bytes())
    }

    /// Channel of all members' reports, as they come.
    pub(super) const fn told(&self) -> &Receiver<MemberReport> {
        &self.told
    }

    /// Remembers a note of a member.
    pub(super) fn note(&mut self, id: u32, text: String) {
        self.notes.entry(id).or_default().push(text);
    }

    /// Notes of a member since its start.
    pub(super) fn notes(&self, id: u32) -> &[String] {
        self.notes.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Last line of a member on standard error.
    pub(super) fn complaint(&self, id: u32) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("peer_{id}.err")));
        text.unwrap_or_default().lines().last().unwrap_or("it did not say why").to_owned()
    }

    /// Lets all members quit, the lowest last, and waits for them.
    pub(super) fn quit(&mut self) -> io::Result<()> {
        while let Some((id, mut process)) = self.actors.pop_last() {
            if let Some(mut stdin) = process.stdin.take() {
                let _ = stdin.write_all(b"/quit\n");
            }
            let code = process.child.wait()?.code();
            if code != Some(0) {
                return Err(io::Error::other(format!("peer_{id} ended with {code:?}")));
            }
        }
        Ok(())
    }

    /// The members' logs.
    pub(super) fn log_paths(&self) -> Vec<PathBuf> {
        (1..=MEMBERS).map(|id| self.logs().join(format!("peer_{id}.log"))).collect()
    }
}

/// Passes on the lines that one member prints.
fn listen(by: u32, stdout: ChildStdout, tell: &Sender<MemberReport>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { break };
        if let Some(said) = parse(by, &line)
            && tell.send(said).is_err()
        {
            return;
        }
    }
    let _ = tell.send(MemberReport::Gone { by });
}

fn parse(by: u32, line: &str) -> Option<MemberReport> {
    if let Some(text) = line.strip_prefix("* ") {
        return Some(MemberReport::Note { by, text: text.to_owned() });
    }
    let (seq, rest) = line.strip_prefix("[seq=")?.split_once("] <peer_")?;
    let (author, text) = rest.split_once(">: ")?;
    let (seq, author) = (seq.parse().ok()?, author.parse().ok()?);
    Some(MemberReport::Message { by, seq, author, text: text.to_owned() })
}
