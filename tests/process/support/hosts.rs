//! Machines that a test makes for itself: network namespaces, each with an address of its own,
//! on switches in one more namespace, where cables can be pulled and packets lost for real.
//!
//! Nothing has a name in the machine's own namespace and nothing can be left behind: a namespace
//! lives as long as the process that holds it, and that one ends when its standard input does,
//! with this process at the latest. So any number of tests may do this at the same time.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A hardware address that nobody has: what is sent to it is lost on the way.
const NOBODY: &str = "02:00:00:00:00:99";

/// Why namespaces cannot be made here, if they cannot; tried once.
pub fn obstacle() -> Option<&'static str> {
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    OBSTACLE.get_or_init(|| Net::with_hosts(1).err()).as_deref()
}

/// Hosts on one switch, until they are split.
pub struct Net {
    switch: Namespace,
    hosts: Vec<Namespace>,
}

impl Net {
    /// So many hosts, all of which reach each other.
    ///
    /// # Errors
    /// Why this machine does not permit it.
    pub fn with_hosts(count: usize) -> Result<Self, String> {
        let switch = Namespace::new()?;
        let hosts = (0..count).map(|_| Namespace::new()).collect::<Result<Vec<_>, _>>()?;
        let mut script = String::from("link set lo up\n");
        // As many switches as there can be parts; most stay empty.
        for segment in 0..count {
            writeln!(script, "link add seg{segment} type bridge").expect("text");
            writeln!(script, "link set seg{segment} up").expect("text");
        }
        switch.ip(&script)?;
        let net = Self { switch, hosts };
        for host in 0..count {
            net.hosts[host].ip("link set lo up\n")?;
            net.plug(host)?;
        }
        Ok(net)
    }

    /// The processes that hold the namespaces.
    pub fn holders(&self) -> Vec<u32> {
        self.hosts.iter().chain([&self.switch]).map(|it| it.holder.id()).collect()
    }

    /// The address of a host.
    pub fn address(host: usize) -> IpAddr {
        let number = u8::try_from(host + 1).expect("few hosts");
        Ipv4Addr::new(10, 77, 0, number).into()
    }

    /// A program that will run on a host.
    pub fn command(&self, host: usize, exe: &Path) -> Command {
        self.hosts[host].command(exe)
    }

    /// Gives a host without one a cable to the first switch.
    fn plug(&self, host: usize) -> Result<(), String> {
        let (pid, address) = (self.hosts[host].holder.id(), Self::address(host));
        self.switch.ip(&format!(
            "link add port{host} type veth peer name eth0 netns {pid}\n\
             link set port{host} master seg0 up\n"
        ))?;
        self.hosts[host].ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up\n"))
    }

    /// Takes a host's interface away, cable and all.
    #[track_caller]
    pub fn remove_cable(&self, host: usize) {
        self.switch.ip(&format!("link del port{host}\n")).expect("it has one");
    }

    /// Gives it a new one, at the same address.
    #[track_caller]
    pub fn new_cable(&self, host: usize) {
        self.plug(host).expect("it has none");
    }

    /// Takes a host's interface down: it sends nothing any more and gets nothing.
    #[track_caller]
    pub fn link_down(&self, host: usize) {
        self.hosts[host].ip("link set eth0 down\n").expect("it has one");
    }

    /// And up again.
    #[track_caller]
    pub fn link_up(&self, host: usize) {
        self.hosts[host].ip("link set eth0 up\n").expect("it has one");
    }

    /// Splits the net: the hosts of each part reach each other and nobody else.
    #[track_caller]
    pub fn split(&self, parts: &[&[usize]]) {
        let mut script = String::new();
        for (segment, part) in parts.iter().enumerate() {
            for host in *part {
                writeln!(script, "link set port{host} master seg{segment}").expect("text");
            }
        }
        self.switch.ip(&script).expect("ports can change the switch");
    }

    /// Everybody reaches everybody again.
    #[track_caller]
    pub fn join(&self) {
        let all: Vec<_> = (0..self.hosts.len()).collect();
        self.split(&[&all]);
    }

    /// From now on all that `from` sends to `to` is lost; what `to` sends to `from` arrives.
    #[track_caller]
    pub fn lose(&self, from: usize, to: &[usize]) {
        let line = |to: &usize| {
            let address = Self::address(*to);
            format!("neigh replace {address} lladdr {NOBODY} dev eth0 nud permanent\n")
        };
        let script: String = to.iter().map(line).collect();
        self.hosts[from].ip(&script).expect("a neighbor can be written down");
    }

    /// Ends such losses.
    #[track_caller]
    pub fn deliver(&self, from: usize, to: &[usize]) {
        let line = |to: &usize| format!("neigh del {} dev eth0\n", Self::address(*to));
        let script: String = to.iter().map(line).collect();
        self.hosts[from].ip(&script).expect("it was written down");
    }
}

/// One network namespace, and the process that holds it.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo made; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut namespace = Self { holder };
        // Before this line its process is still in the namespace that it was started in.
        let mut made = String::new();
        let out = namespace.holder.stdout.as_mut().expect("it is piped");
        BufReader::new(out).read_line(&mut made).map_err(|error| format!("unshare: {error}"))?;
        if made == "made\n" {
            return Ok(namespace);
        }
        let mut reason = String::new();
        let err = namespace.holder.stderr.as_mut().expect("it is piped");
        BufReader::new(err).read_line(&mut reason).map_err(|error| format!("unshare: {error}"))?;
        Err(reason.trim().to_owned())
    }

    fn command(&self, exe: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(exe);
        command
    }

    /// Carries out lines for `ip`, all or the first that fails.
    fn ip(&self, script: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("ip: {error}");
        let mut ip = self
            .command(Path::new("ip"))
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // Dropped at once, so that it sees the end.
        let written = ip.stdin.take().expect("it is piped").write_all(script.as_bytes());
        let output = ip.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return written.map_err(failed);
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
