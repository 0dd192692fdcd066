//! Servers under measurement, each with processes of its own: the data plane of this program, and
//! other reverse proxies with the same task.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::load;
use crate::cli::CliError;
use crate::cli::bench::procfs;
use crate::runtime::clock::Clock;

/// Longest wait for a server's first answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time that a server has to end its processes before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Interval at which a server that starts or ends is asked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Folders of servers' programs that are not in every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A reverse proxy that the data plane is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Rival {
    /// nginx, with as many worker processes as cores
    Nginx,
    /// HAProxy, with as many threads as cores
    Haproxy,
}

impl Rival {
    /// Name of its program and of its package.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Path of its program; `None` if it is not installed.
    pub(super) fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
        folders.map(|it| it.join(self.name())).find(|it| it.is_file())
    }

    /// Arguments, before the configuration file, that keep it in the foreground.
    const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["-g", "daemon off;", "-c"],
            Self::Haproxy => &["-db", "-f"],
        }
    }

    /// Configuration of a proxy at `at`, with as many processes or threads as `cores`.
    fn config(self, at: SocketAddr, upstream: SocketAddr, cores: usize, dir: &Path) -> String {
        match self {
            Self::Nginx => {
                let http = format!(
                    "upstream one {{ server {upstream}; keepalive 512; {KEEPALIVE} }}
                     server {{
                         listen {at};
                         location / {{
                             proxy_pass http://one;
                             proxy_http_version 1.1;
                             proxy_set_header Connection \"\";
                         }}
                     }}"
                );
                nginx_config(&http, cores, dir)
            }
            Self::Haproxy => format!(
                "global
                     nbthread {cores}
                 defaults
                     mode http
                     http-reuse always
                     timeout connect 5s
                     timeout client 60s
                     timeout server 60s
                 frontend clients
                     bind {at}
                     default_backend servers
                 backend servers
                     server one {upstream}\n"
            ),
        }
    }
}

/// Directive that keeps nginx from closing connections, which it does after 1,000 requests.
const KEEPALIVE: &str = "keepalive_requests 1000000000;";

/// Configuration of nginx with this content of its `http` block, and all its files in `dir`.
fn nginx_config(http: &str, cores: usize, dir: &Path) -> String {
    let dir = dir.display();
    let temp = |name: &str| format!("{name}_temp_path {dir}/{name};");
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).join(" ");
    format!(
        "worker_processes {cores};
         pid {dir}/pid;
         error_log stderr;
         events {{ worker_connections 4096; }}
         http {{ access_log off; {temps} {KEEPALIVE} {http} }}\n"
    )
}

/// A running server with its processes and a folder of its own; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
}

impl Server {
    /// Starts the data plane of this program, in front of `upstream` or with the built-in model.
    ///
    /// # Errors
    /// Fails if it does not start and answer.
    pub(super) fn own(upstream: Option<SocketAddr>) -> Result<Self, CliError> {
        let exe = std::env::current_exe().map_err(system("find this program"))?;
        Self::start(&exe, |at, _| {
            let mut args = ["bench", "rollout", "--hold"].map(str::to_owned).to_vec();
            args.push(at.to_string());
            if let Some(upstream) = upstream {
                args.extend(["--upstream".to_owned(), format!("http://{upstream}")]);
            }
            Ok(args)
        })
    }

    /// Starts the server that all proxies ask: nginx, which costs least, or else the data plane
    /// of this program with the built-in model. Also returns its name.
    ///
    /// # Errors
    /// Fails if it does not start and answer.
    pub(super) fn upstream(cores: usize) -> Result<(Self, &'static str), CliError> {
        let Some(exe) = Rival::Nginx.find() else { return Ok((Self::own(None)?, "built-in")) };
        let config = |at: SocketAddr, dir: &Path| {
            let http = format!("server {{ listen {at}; location / {{ return 200 \"{{}}\"; }} }}");
            nginx_config(&http, cores, dir)
        };
        Ok((Self::configured(Rival::Nginx, &exe, config)?, "nginx"))
    }

    /// Starts another proxy in front of `upstream`.
    ///
    /// # Errors
    /// Fails if it is not installed, or does not start and answer.
    pub(super) fn rival(
        rival: Rival,
        upstream: SocketAddr,
        cores: usize,
    ) -> Result<Self, CliError> {
        let name = rival.name();
        let exe = rival.find().ok_or_else(|| {
            CliError::Failed(format!(
                "{name} is not installed; install it (apt install {name}), or leave it out of --vs"
            ))
        })?;
        Self::configured(rival, &exe, |at, dir| rival.config(at, upstream, cores, dir))
    }

    fn configured(
        rival: Rival,
        exe: &Path,
        config: impl FnOnce(SocketAddr, &Path) -> String,
    ) -> Result<Self, CliError> {
        Self::start(exe, |at, dir| {
            let file = dir.join("config");
            fs::write(&file, config(at, dir))?;
            let args = rival.args().iter().map(|it| (*it).to_owned());
            Ok(args.chain([file.display().to_string()]).collect())
        })
    }

    fn start(
        exe: &Path,
        args: impl FnOnce(SocketAddr, &Path) -> io::Result<Vec<String>>,
    ) -> Result<Self, CliError> {
        let failed = system("start a server");
        let dir = tempfile::tempdir().map_err(failed)?;
        // None of these programs takes port 0 and tells which port it got.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
        let addr = free.map_err(failed)?;
        let said = File::create(dir.path().join("said")).map_err(failed)?;
        let child = Command::new(exe)
            .args(args(addr, dir.path()).map_err(failed)?)
            // Its end ends the data plane, also when this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said)
            // Ctrl-C is for this process, which then ends the server and its workers as a group.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut server = Self { child, addr, dir };
        server.await_answer(exe)?;
        Ok(server)
    }

    fn await_answer(&mut self, exe: &Path) -> Result<(), CliError> {
        let clock = Clock::start();
        while let Err(error) = load::ask_once(self.addr) {
            let has_ended = self.child.try_wait().map_err(system("start a server"))?.is_some();
            if has_ended || clock.mono().as_micros() > PATIENCE.as_micros() as u64 {
                let said = fs::read_to_string(self.dir.path().join("said")).unwrap_or_default();
                let (exe, said) = (exe.display(), said.trim());
                let text = format!("{exe} does not answer at {}: {error}\n{said}", self.addr);
                return Err(CliError::Failed(text.trim_end().to_owned()));
            }
            let _ = crossbeam_channel::after(LOOK).recv();
        }
        Ok(())
    }

    /// Address at which it answers.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Seconds of processor time that its processes have used.
    pub(super) fn cpu_seconds(&self) -> f64 {
        procfs::tree(self.child.id()).into_iter().filter_map(procfs::cpu_seconds).sum()
    }

    /// Memory of its processes in MiB: resident, and of that what belongs to no file.
    pub(super) fn memory(&self) -> (f64, f64) {
        let memory = procfs::tree(self.child.id()).into_iter().filter_map(procfs::memory);
        memory.fold((0.0, 0.0), |sum, it| (sum.0 + it.resident, sum.1 + it.private))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // Killed at once, nginx would leave its workers behind.
        let _ = kill_process(pid, Signal::TERM);
        let clock = Clock::start();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if clock.mono().as_micros() > STOP_PATIENCE.as_micros() as u64 {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = self.child.wait();
            }
            let _ = crossbeam_channel::after(LOOK).recv();
        }
    }
}

fn system(action: &'static str) -> impl Fn(io::Error) -> CliError + Copy {
    move |source| CliError::System { action, source }
}
