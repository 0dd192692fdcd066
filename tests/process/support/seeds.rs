//! The seeds of a fleet of this machine, for tests that are about its members.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::peer_exe;
use super::process::eventually;

/// The seeds of a fleet, ended with the test.
pub struct Seeds(Vec<Child>);

impl Seeds {
    /// Writes the `config.txt` in `dir` that names three seeds at `base` and the ports after it.
    pub fn name(dir: &Path, base: u16) -> [u16; 3] {
        let ports = [base, base + 1, base + 2];
        let text: String = ports.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
        fs::write(dir.join("config.txt"), text).expect("there is room");
        ports
    }

    /// Three, named by `config.txt` in `dir`, at `base` and the ports after it.
    pub fn start(dir: &Path, base: u16) -> Self {
        let ports = Self::name(dir, base);
        let seed = |id: usize| {
            Command::new(peer_exe())
                .args(["seed", "--id", &id.to_string()])
                .current_dir(dir)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it can be run")
        };
        let seeds = Self((1..=3).map(seed).collect());
        let is_up = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(eventually(|| ports.iter().all(|port| is_up(*port))));
        seeds
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        for seed in &mut self.0 {
            let _ = seed.kill();
            let _ = seed.wait();
        }
    }
}
