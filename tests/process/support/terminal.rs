//! A terminal that a program runs on: a test sees what the program writes and types for a person.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use folkmoot::runtime::thread;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use super::process::eventually;

/// A program and its terminal; killed when dropped.
pub struct OnTerminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    /// Starts a program on a terminal of 80 columns that is called `term`.
    pub fn start(exe: &Path, args: &[&str], dir: &Path, term: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(name, flags, Mode::empty()).expect("it is ours");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).expect("it is a terminal");
        let end = || Stdio::from(slave.try_clone().expect("there is room"));
        let child = Command::new(exe)
            .args(args)
            .current_dir(dir)
            .env("TERM", term)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("it can be run");
        let master = File::from(master);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, sink) = (master.try_clone().expect("there is room"), Arc::clone(&written));
        // Ends with the terminal: reading fails when nobody has its other end any more.
        thread::spawn("terminal", move || {
            let mut part = [0; 4_096];
            while let Ok(len @ 1..) = reader.read(&mut part) {
                sink.lock().expect("nobody panics here").extend(&part[..len]);
            }
        })
        .expect("there is room for a thread");
        Self { child, master, slave, written }
    }

    /// Text that the program has written since [`Self::forget`].
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("nobody panics here")).into_owned()
    }

    /// Forgets what the program has written so far.
    pub fn forget(&self) {
        self.written.lock().expect("nobody panics here").clear();
    }

    /// Waits until the program has written `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let is_there = eventually(|| self.written().contains(text));
        assert!(is_there, "no {text:?} in {:?}", self.written());
    }

    /// Text that the terminal shows after all that was written.
    pub fn shown(&self) -> String {
        let mut parser = vt100::Parser::new(24, 80, 0);
        parser.process(&self.written.lock().expect("nobody panics here"));
        parser.screen().contents()
    }

    /// Waits until the terminal shows `text`.
    #[track_caller]
    pub fn wait_until_shown(&self, text: &str) {
        let is_there = eventually(|| self.shown().contains(text));
        assert!(is_there, "no {text:?} in\n{}", self.shown());
    }

    /// Types.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.slave).expect("it is a terminal")
    }

    /// True if keys reach the program one by one.
    pub fn is_raw(&self) -> bool {
        !self.modes().local_modes.contains(LocalModes::ICANON)
    }

    /// Makes whole lines of keys again, as a shell does when its job has stopped.
    pub fn cook(&self) {
        let mut modes = self.modes();
        modes.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(&self.slave, OptionalActions::Now, &modes).expect("it is a terminal");
    }

    /// The process of the program.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// True if the program is stopped.
    pub fn is_stopped(&self) -> bool {
        let of = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), of).expect("it is ours").is_some()
    }

    /// Waits until the program has ended; its exit code.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut status = None;
        let has_ended = eventually(|| {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        assert!(has_ended, "it does not end: {:?}", self.written());
        status.and_then(|status| status.code())
    }
}

/// The only process that a process has started.
pub fn only_child(parent: Pid) -> Pid {
    let parent = parent.as_raw_pid();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.expect("it runs");
    children.trim().parse().ok().and_then(Pid::from_raw).expect("there is one")
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
