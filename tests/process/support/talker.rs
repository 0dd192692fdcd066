//! Members of a chat as running programs, talked to by lines.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal};

use super::process::eventually;

/// One running member; killed when dropped.
pub struct Talker {
    /// Which.
    pub id: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    out: PathBuf,
    err: PathBuf,
}

impl Talker {
    /// Runs `command`, the program `peer`, as the chat's member `id` at `at`, with further flags,
    /// in `dir`, where its words are kept too.
    pub fn start(
        mut command: Command,
        id: u32,
        at: (&str, u16),
        flags: &[&str],
        dir: &Path,
    ) -> Self {
        command.args(["chat", "--plain", "--host", at.0, "--port", &at.1.to_string()]);
        command.args(["--id", &id.to_string()]);
        Self::run(command, id, flags, dir)
    }

    /// Runs `command`, the program `peer`, as plain lines that are attached to member `id`, which
    /// runs in `dir`.
    pub fn attach(mut command: Command, id: u32, flags: &[&str], dir: &Path) -> Self {
        command.args(["chat", "--plain"]);
        let it = Self::run(command, id, flags, dir);
        it.wait_for(&format!("* attached to peer_{id}; /quit ends only this screen\n"));
        it
    }

    fn run(mut command: Command, id: u32, flags: &[&str], dir: &Path) -> Self {
        let turn = fs::read_dir(dir).expect("the directory is there").count();
        let (out, err) = (dir.join(format!("out{turn}")), dir.join(format!("err{turn}")));
        let mut child = command
            .args(flags)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(File::create(&out).expect("there is room"))
            .stderr(File::create(&err).expect("there is room"))
            .spawn()
            .expect("it can be run");
        let stdin = child.stdin.take();
        Self { id, child, stdin, out, err }
    }

    /// Standard output of the program so far.
    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).expect("it is text")
    }

    /// Standard error of the program so far.
    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).expect("it is text")
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let is_there = eventually(|| self.out().contains(text));
        assert!(is_there, "peer_{}: no {text:?} in\n{}\n{}", self.id, self.out(), self.err());
    }

    /// The messages that it has shown: number, and the rest of the line.
    pub fn messages(&self) -> Vec<(u64, String)> {
        let line = |line: &str| {
            let (seq, rest) = line.strip_prefix("[seq=")?.split_once("] ")?;
            Some((seq.parse().expect("a number"), rest.to_owned()))
        };
        self.out().lines().filter_map(line).collect()
    }

    /// Waits until exactly these messages are shown, in this order.
    #[track_caller]
    pub fn wait_for_messages(&self, texts: &[&str]) {
        let texts: Vec<_> = texts.iter().map(|it| (*it).to_owned()).collect();
        let shown = || -> Vec<String> { self.messages().into_iter().map(|it| it.1).collect() };
        assert!(eventually(|| shown() == texts), "peer_{}: {:#?}", self.id, shown());
    }

    /// Waits until so many messages are shown.
    #[track_caller]
    pub fn wait_for_count(&self, count: usize) {
        let is_there = eventually(|| self.messages().len() >= count);
        assert!(is_there, "peer_{}: {} of {count}", self.id, self.messages().len());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process has a number");
        rustix::process::kill_process(pid, signal).expect("it is ours");
    }

    /// Ends it as a power cut of its process would.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Waits until it has ended; its exit code.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut status = None;
        let has_ended = eventually(|| {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        assert!(has_ended, "peer_{} does not end\n{}", self.id, self.out());
        status.and_then(|status| status.code())
    }

    /// Has it end by `/quit`; everything that it said.
    #[track_caller]
    pub fn quit(mut self) -> String {
        self.type_line("/quit");
        assert_eq!(self.wait_for_end(), Some(0), "{}", self.err());
        self.out()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
