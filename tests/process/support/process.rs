//! Programs that a test starts by hand: run to their end, or watched while they run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossbeam_channel::after;
use folkmoot::runtime::clock::Clock;
use rustix::process::{Pid, Signal};

use super::PATIENCE;

/// Interval at which a test looks whether something has come.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `reached` says so, for at most [`PATIENCE`]; false when it never did.
pub fn eventually(mut reached: impl FnMut() -> bool) -> bool {
    let clock = Clock::start();
    loop {
        if reached() {
            return true;
        }
        if clock.now().mono.as_micros() > PATIENCE.as_micros() as u64 {
            return false;
        }
        // Never disconnected, never sent to: its only end is the time.
        let _ = after(LOOK).recv();
    }
}

/// Runs a program to its end, in `dir`: its exit code, what it printed, and what it complained.
#[track_caller]
pub fn run(exe: &Path, args: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let mut process = Process::start(exe, args, dir);
    let code = process.wait_for_end();
    (code, process.out(), process.err())
}

/// True in a process of its own for this test; anywhere else runs it in one, because other tests
/// of a process start threads and open files, too.
#[track_caller]
pub fn runs_alone(test: &str) -> bool {
    if std::env::var_os("ALONE").is_some() {
        return true;
    }
    let exe = std::env::current_exe().expect("this executable");
    let output = Command::new(exe).args([test, "--exact"]).env("ALONE", "1").output();
    let output = output.expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("1 passed"), "{out}");
    false
}

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    files: tempfile::TempDir,
}

impl Process {
    /// Starts a program in `dir`.
    #[track_caller]
    pub fn start(exe: &Path, args: &[&str], dir: &Path) -> Self {
        let files = tempfile::tempdir().expect("a directory can be made");
        let file = |name| File::create(files.path().join(name)).expect("a file can be made");
        let child = Command::new(exe)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("the program starts");
        Self { child, files }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.files.path().join("out")).expect("what it prints is text")
    }

    pub fn err(&self) -> String {
        fs::read_to_string(self.files.path().join("err")).expect("what it complains is text")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    /// Exit code of the process; `None` when a signal ended it.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut status = None;
        let has_ended = eventually(|| {
            status = self.child.try_wait().expect("it is a child");
            status.is_some()
        });
        assert!(has_ended, "it does not end\n{}\n{}", self.out(), self.err());
        status.and_then(|status| status.code())
    }

    /// Waits until it has printed `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let is_printed = eventually(|| self.out().contains(text));
        assert!(is_printed, "{text:?} is not in\n{}\n{}", self.out(), self.err());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ids of the running processes whose command line contains `text`.
pub fn processes_with(text: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("processes are listed");
    let pids = entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

/// Ids of the processes that `parent` has started and that have not ended.
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("processes are listed");
    let pids = entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| state_of(*pid).is_some_and(|(_, by)| by == parent)).collect()
}

/// True if this process exists and has not ended.
pub fn is_running(pid: u32) -> bool {
    state_of(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The state letter of a process and who started it.
fn state_of(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}

/// Writes an executable shell script.
pub fn script(path: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a script can be written");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).expect("a script can be made executable");
    path.to_owned()
}
