//! A seed on a disk that fails it: full, damaged, gone, or not its own.
//!
//! The seed says so in one line and stops, or it goes on and has lost nothing that it had promised.

#![allow(clippy::print_stderr, reason = "a test that cannot be made here says that it is skipped")]

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use folkmoot::cli::query::fetch_members;
use folkmoot::model::Endpoint;
use serde_json::Value;
use support::process::{Process, eventually, run, script};
use support::{NO_GOSSIP, PATIENCE, peer_exe, ports, words};

fn seed_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_seed"))
}

/// A directory with a `config.txt`, and ports for whoever is in it.
struct Desk {
    dir: tempfile::TempDir,
    first: u16,
}

impl Desk {
    fn of_seeds(seeds: u16) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let first = ports();
        let line = |seed| format!("127.0.0.1:{}\n", first + seed);
        let config: String = (0..seeds).map(line).collect();
        fs::write(dir.path().join("config.txt"), config).expect("a file can be written");
        Self { dir, first }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The journal of seed 1, in a directory that exists.
    fn journal(&self) -> PathBuf {
        let dir = self.path(&format!("data/seed-{}", self.first));
        fs::create_dir_all(&dir).expect("a directory can be made");
        dir.join("journal.log")
    }

    fn start(&self, exe: &Path, line: &str) -> Process {
        let words = words(line);
        let args: Vec<_> = words.iter().map(String::as_str).collect();
        Process::start(exe, &args, self.dir.path())
    }

    /// True if seed 1, which runs, votes.
    fn votes(&self) -> bool {
        let port = self.first.to_string();
        let args = ["status", "--json", "--port", &port];
        let (code, out, err) = run(&peer_exe(), &args, self.dir.path());
        assert_eq!(code, Some(0), "{err}");
        let status: Value = serde_json::from_str(&out).expect("a status is JSON");
        status["ready"].as_bool().expect("it says so")
    }
}

/// Records in their form on disk.
fn sealed(records: &[&str]) -> String {
    let line = |json: &&str| format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    records.iter().map(line).collect()
}

const READY: &str = r#"{"record":"ready"}"#;
const FLOOR: &str = r#"{"record":"floor","endpoint":"127.0.0.1:6001","incarnation":7}"#;

/// A data directory of the seed's own file system, which is nearly full. When the seed has ended,
/// room is made, and it is started again.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o size=256k none data || { echo SKIPPED; exit 0; }
# The key, the lock and the socket take a page or none each; a few are left for the journal.
dd if=/dev/zero of=data/filler bs=4096 count=58 2>/dev/null
timeout -s KILL 300 "$SEED" --id 1 --output /dev/null 2>complaint
echo "ended with $?"
read -r go <room
rm data/filler
exec "$SEED" --id 1 --output /dev/null
"#;

#[test]
fn a_full_disk_stops_a_seed_with_one_line_and_costs_nothing_that_it_had_promised() {
    let desk = Desk::of_seeds(1);
    fs::create_dir(desk.path("data")).expect("a directory can be made");
    let fifo = Command::new("mkfifo").arg(desk.path("room")).status();
    let text = ON_A_SMALL_DISK.replace("$SEED", seed_exe().to_str().expect("a plain path"));
    let disk = script(&desk.path("small-disk"), &text);
    let disk = disk.to_str().expect("a plain path");
    let unshare = Path::new("/usr/bin/unshare");
    if !unshare.exists() || !fifo.is_ok_and(|it| it.success()) {
        eprintln!("skipped: there is no unshare or mkfifo");
        return;
    }
    let seed = desk.start(unshare, &format!("--map-root-user --mount {disk}"));
    let has_ended = |seed: &Process| seed.out().contains("ended with");
    let is_off =
        |seed: &Process| seed.out().contains("SKIPPED") || seed.err().contains("unshare: ");
    let is_up = || seed.out().contains("votes from now on");
    assert!(eventually(|| is_up() || is_off(&seed)), "{}\n{}", seed.out(), seed.err());
    if is_off(&seed) {
        eprintln!("skipped: no file system can be mounted here ({})", seed.err().trim());
        return;
    }
    // One peer after the other, until the disk is full.
    let mut peers = Vec::new();
    for number in 1..30 {
        let endpoint = Endpoint::new([127, 0, 0, 1].into(), desk.first + number);
        let line = format!("--port {} --data peers {NO_GOSSIP}", desk.first + number);
        let peer = desk.start(&peer_exe(), &line);
        let is_in = || peer.out().contains("approved: registered");
        assert!(eventually(|| is_in() || has_ended(&seed)), "{}", peer.out());
        peers.push((endpoint, peer));
        if has_ended(&seed) {
            break;
        }
    }
    assert!(has_ended(&seed), "the disk is not full after {} peers", peers.len());
    assert!(seed.out().contains("ended with 1\n"), "{}", seed.out());
    let complaint = fs::read_to_string(desk.path("complaint")).expect("it complained");
    assert!(complaint.starts_with("error: ") && complaint.lines().count() == 1, "{complaint}");
    assert!(complaint.contains("journal.log") && complaint.contains("No space"), "{complaint}");

    let promised: Vec<_> = peers
        .iter()
        .filter(|(_, peer)| peer.out().contains("approved: registered"))
        .map(|(endpoint, _)| *endpoint)
        .collect();
    assert!(!promised.is_empty(), "nobody was admitted before the disk was full");
    let before = seed.out().matches("started as seed 1").count();
    fs::write(desk.path("room"), "now\n").expect("the script waits");
    let is_back = || seed.out().matches("started as seed 1").count() > before;
    assert!(eventually(is_back), "{}\n{}", seed.out(), seed.err());
    let here = Endpoint::new([127, 0, 0, 1].into(), desk.first);
    let members = fetch_members(here, PATIENCE).expect("it answers");
    for endpoint in promised {
        assert!(members.iter().any(|it| it.endpoint == endpoint), "{endpoint} was forgotten");
    }
}

#[test]
fn a_journal_that_is_no_file_or_not_ones_own_is_named() {
    let desk = Desk::of_seeds(1);
    fs::create_dir(desk.journal()).expect("a directory can be made");
    let (code, out, err) = run(&seed_exe(), &["--id", "1"], desk.dir.path());
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    assert!(err.contains("cannot open") && err.contains("journal.log"), "{err}");
}

/// Root may open everything, so for root somebody else tries.
#[test]
fn a_journal_that_may_not_be_read_is_named() {
    const NOBODY: u32 = 65_534;
    let desk = Desk::of_seeds(1);
    let journal = desk.journal();
    fs::write(&journal, sealed(&[READY])).expect("a file can be written");
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let mut command = Command::new(seed_exe());
    command.args(["--id", "1"]).current_dir(desk.dir.path()).stdin(Stdio::null());
    if rustix::process::getuid().is_root() {
        let folder = journal.parent().expect("it is in one");
        for path in [desk.dir.path(), &desk.path("data"), folder] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: nobody may run what was built here: {error}"),
    };
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    assert!(err.contains("journal.log") && err.contains("Permission denied"), "{err}");
}

#[test]
fn an_empty_journal_is_that_of_a_new_seed() {
    let desk = Desk::of_seeds(3);
    fs::write(desk.journal(), "").expect("a file can be written");
    let seed = desk.start(&seed_exe(), "--id 1");
    seed.wait_for("started as seed 1");
    assert!(!desk.votes(), "it votes before it has compared its registry with others");
}

/// A torn record was promised to nobody. One whose bits have changed looks alike and may have
/// been a vote: the seed goes on without it, but asks the others before it votes.
#[test]
fn a_seed_whose_last_record_is_damaged_compares_before_it_votes() {
    let whole = sealed(&[READY, FLOOR]);
    let mut flipped = whole.clone().into_bytes();
    let last = flipped.len() - 3;
    flipped[last] ^= 1;
    let torn = whole.as_bytes()[..whole.len() - 5].to_vec();
    for (journal, is_damaged) in [(whole.into_bytes(), false), (flipped, true), (torn, true)] {
        let desk = Desk::of_seeds(3);
        fs::write(desk.journal(), journal).expect("a file can be written");
        let seed = desk.start(&seed_exe(), "--id 1");
        seed.wait_for("started as seed 1");
        assert_eq!(desk.votes(), !is_damaged, "{}", seed.out());
        assert_eq!(seed.out().contains("was torn by a crash"), is_damaged, "{}", seed.out());
        drop(seed);
        let kept = fs::read_to_string(desk.journal()).expect("it is text");
        assert!(kept.starts_with(&sealed(&[READY])), "what is intact is kept");
    }
}
