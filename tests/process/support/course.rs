//! A folder of the assignment as a course hands it out, real processes in it, and what their logs
//! and files must say in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use folkmoot::model::Rng;
use rand::{Rng as _, SeedableRng as _};

use super::foreign::Seat;
use super::process::eventually;
use super::{peer_exe, ports};

/// The forms of the eleven sentences: `#` is a number, `@` a list of numbers.
const SENTENCES: [(&str, &str); 11] = [
    ("dialed", "Peer # makes a connection to Peer #."),
    ("called", "Peer # is connected from Peer #."),
    ("preferred", "Peer # has the preferred neighbors @."),
    ("optimistic", "Peer # has the optimistically unchoked neighbor #."),
    ("unchoked", "Peer # is unchoked by #."),
    ("choked", "Peer # is choked by #."),
    ("have", "Peer # received the 'have' message from # for the piece #."),
    ("interested", "Peer # received the 'interested' message from #."),
    ("not interested", "Peer # received the 'not interested' message from #."),
    ("piece", "Peer # has downloaded the piece # from #. Now the number of pieces it has is #."),
    ("complete", "Peer # has downloaded the complete file."),
];

/// A line of a log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Which sentence.
    pub kind: &'static str,
    /// Numbers of the message behind the peer's own; a list is flat.
    pub numbers: Vec<u32>,
}

/// The numbers of a sentence, if it has this form.
fn matched(form: &str, text: &str) -> Option<Vec<u32>> {
    let number = |text: &str| -> Option<u32> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_usual = text == "0" || !text.starts_with('0');
        text.parse().ok().filter(|_| is_plain && is_usual)
    };
    let (mut rest, mut numbers) = (text, Vec::new());
    let mut form = form;
    while let Some(at) = form.find(['#', '@']) {
        rest = rest.strip_prefix(&form[..at])?;
        let is_list = form[at..].starts_with('@');
        form = &form[at + 1..];
        let is_part = |c: char| c.is_ascii_digit() || (is_list && c == ',');
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        for word in rest[..end].split(',') {
            numbers.push(number(word)?);
        }
        rest = &rest[end..];
    }
    (rest == form).then_some(numbers)
}

/// A line of `peer`'s log, which must be one of the eleven sentences.
#[track_caller]
pub fn parse(peer: u32, line: &str) -> Entry {
    let split = line.strip_prefix('[').and_then(|it| it.split_once("]: "));
    let (time, sentence) = split.unwrap_or_else(|| panic!("no time: {line:?}"));
    let at: jiff::Timestamp = time.parse().unwrap_or_else(|_| panic!("no time: {line:?}"));
    let found = SENTENCES.iter().find_map(|(kind, form)| Some((*kind, matched(form, sentence)?)));
    let (kind, mut numbers) = found.unwrap_or_else(|| panic!("no sentence: {line:?}"));
    assert_eq!(numbers.remove(0), peer, "{line}");
    Entry { at_ms: at.as_millisecond(), kind, numbers }
}

/// A folder with a swarm in it. Everything that runs is killed in the end.
pub struct Course {
    dir: tempfile::TempDir,
    pub seats: Vec<Seat>,
    pub content: Vec<u8>,
    pub piece: usize,
    k: usize,
    running: BTreeMap<u32, Child>,
}

impl Course {
    /// A folder for peers 1001, 1002, …, on ports of their own, of which `sources` have a file of
    /// `size` bytes in pieces of `piece`; k = 2, p = 1 s, m = 2 s.
    pub fn new(peers: u16, sources: &[u32], size: usize, piece: usize) -> Self {
        let first = ports();
        let seat = |turn: u16| {
            let id = 1001 + u32::from(turn);
            Seat { id, port: first + turn, has_file: sources.contains(&id) }
        };
        Self::with(("localhost", (0..peers).map(seat).collect()), size, piece)
    }

    /// A swarm with these peers, on a host of this name.
    pub fn with((host, seats): (&str, Vec<Seat>), size: usize, piece: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("folkmoot-swarm-").tempdir();
        let mut content = vec![0; size];
        Rng::seed_from_u64(size as u64).fill_bytes(&mut content);
        let dir = dir.expect("a directory");
        let course = Self { dir, seats, content, piece, k: 2, running: BTreeMap::new() };
        course.write_config((2, 1, 2));
        let line = |it: &Seat| format!("{} {host} {} {}\n", it.id, it.port, u8::from(it.has_file));
        course.write("PeerInfo.cfg", &course.seats.iter().map(line).collect::<String>());
        for seat in course.seats.iter().filter(|it| it.has_file) {
            let folder = course.dir().join(format!("peer_{}", seat.id));
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join("TheFile.dat"), &course.content).expect("a file");
        }
        course
    }

    /// Another k, p and m.
    pub fn choking(mut self, (k, p, m): (usize, u32, u32)) -> Self {
        self.k = k;
        self.write_config((k, p, m));
        self
    }

    fn write_config(&self, (k, p, m): (usize, u32, u32)) {
        let (size, piece) = (self.content.len(), self.piece);
        self.write(
            "Common.cfg",
            &format!(
                "NumberOfPreferredNeighbors {k}\nUnchokingInterval {p}\n\
                 OptimisticUnchokingInterval {m}\nFileName TheFile.dat\nFileSize {size}\n\
                 PieceSize {piece}\n"
            ),
        );
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.dir().join(name), text).expect("a file can be written");
    }

    pub fn ids(&self) -> Vec<u32> {
        self.seats.iter().map(|it| it.id).collect()
    }

    fn folder_of(&self, peer: u32) -> PathBuf {
        let plain = self.dir().join(peer.to_string());
        if plain.exists() { plain } else { self.dir().join(format!("peer_{peer}")) }
    }

    /// Starts a peer here.
    #[track_caller]
    pub fn start(&mut self, peer: u32) {
        self.start_by(Command::new(peer_exe()), peer);
    }

    /// Starts a peer by a command that is the executable, perhaps on another host.
    #[track_caller]
    pub fn start_by(&mut self, mut command: Command, peer: u32) {
        let file = |kind: &str| {
            let path = self.dir().join(format!("{kind}_{peer}"));
            File::options().create(true).append(true).open(path).expect("a file")
        };
        let child = command
            .args(["swarm", &peer.to_string(), "--give-up", "50s"])
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("a peer starts");
        let before = self.running.insert(peer, child);
        assert!(before.is_none(), "{peer} runs already");
    }

    #[track_caller]
    pub fn start_all(&mut self) {
        for peer in self.ids() {
            self.start(peer);
        }
    }

    /// Kills a peer with SIGKILL and waits for its end.
    #[track_caller]
    pub fn kill(&mut self, peer: u32) {
        let mut child = self.running.remove(&peer).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Output and complaints of a peer, and the end of its log.
    pub fn told(&self, peer: u32) -> String {
        let read = |name: String| fs::read_to_string(self.dir().join(name)).unwrap_or_default();
        let log = read(format!("log_peer_{peer}.log"));
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n");
        format!(
            "peer {peer} printed:\n{}\ncomplained:\n{}\nlogged at last:\n{last}\n",
            read(format!("out_{peer}")),
            read(format!("err_{peer}"))
        )
    }

    fn told_by_all(&self) -> String {
        self.ids().into_iter().map(|it| self.told(it)).collect()
    }

    /// Waits for the end of a peer; its exit code.
    #[track_caller]
    pub fn end_of(&mut self, peer: u32) -> Option<i32> {
        let mut child = self.running.remove(&peer).expect("it runs");
        let mut status = None;
        let has_ended = eventually(|| {
            status = child.try_wait().expect("it is a child");
            status.is_some()
        });
        if !has_ended {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
            panic!("{peer} does not end\n{}", self.told_by_all());
        }
        status.and_then(|it| it.code())
    }

    /// Waits until all that run have ended with success, and looks at all that is left of them.
    #[track_caller]
    pub fn finish(&mut self) {
        let peers: Vec<_> = self.running.keys().copied().collect();
        for peer in &peers {
            assert_eq!(self.end_of(*peer), Some(0), "{}", self.told(*peer));
        }
        for peer in peers {
            self.check_file(peer);
            self.check_log(peer);
        }
    }

    /// The file of a peer is the content, and nothing of this program is left beside it.
    #[track_caller]
    pub fn check_file(&self, peer: u32) {
        let folder = self.folder_of(peer);
        let file = fs::read(folder.join("TheFile.dat")).expect("its file can be read");
        assert!(file == self.content, "{peer} has {} bytes and not the content", file.len());
    }

    /// Waits until a peer has printed a word.
    #[track_caller]
    pub fn wait_out(&self, peer: u32, word: &str) {
        let path = self.dir().join(format!("out_{peer}"));
        let is_there = eventually(|| fs::read_to_string(&path).is_ok_and(|it| it.contains(word)));
        assert!(is_there, "{word:?} of {peer}\n{}", self.told_by_all());
    }

    /// The number of pieces that a peer found in its folder at its last start.
    #[track_caller]
    pub fn had_at_start(&self, peer: u32) -> usize {
        let path = self.dir().join(format!("out_{peer}"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let last = text.lines().rfind(|it| it.contains("of them here")).expect("it has started");
        let words: Vec<_> = last.split_whitespace().collect();
        words[words.len() - 4].parse().expect("a number of pieces")
    }

    /// Log of a peer so far.
    #[track_caller]
    pub fn log(&self, peer: u32) -> Vec<Entry> {
        let path = self.dir().join(format!("log_peer_{peer}.log"));
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "the log of {peer} is torn: {text}");
        text.lines().map(|line| parse(peer, line)).collect()
    }

    /// Waits until a peer has logged so many lines of a kind.
    #[track_caller]
    pub fn wait_log(&self, peer: u32, kind: &str, count: usize) {
        let path = self.dir().join(format!("log_peer_{peer}.log"));
        let form = SENTENCES.iter().find(|(it, _)| *it == kind).expect("a kind").1;
        let part = form.rsplit('#').find(|it| it.len() > 4).unwrap_or(form);
        let is_there = eventually(|| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter(|line| line.contains(part)).count() >= count
        });
        assert!(is_there, "{count} of {kind:?} by {peer}\n{}", self.told_by_all());
    }

    /// The log of a whole run: each piece once, counted, and complete at last; connections to
    /// those before, from those after.
    #[track_caller]
    pub fn check_log(&self, peer: u32) {
        let log = self.log(peer);
        let of = |kind: &str| log.iter().filter(|it| it.kind == kind).collect::<Vec<_>>();
        let count = self.content.len().div_ceil(self.piece);
        let at = self.seats.iter().position(|it| it.id == peer).expect("it is one of them");
        let seat = &self.seats[at];
        let pieces = of("piece");
        let is_new = !seat.has_file && count > 0;
        assert_eq!(pieces.len(), if is_new { count } else { 0 }, "{}", self.told(peer));
        let which: BTreeSet<_> = pieces.iter().map(|it| it.numbers[0]).collect();
        assert_eq!(which.len(), pieces.len(), "{peer} logged a piece twice");
        for (turn, piece) in (1..).zip(&pieces) {
            assert_eq!(piece.numbers[2], turn, "{peer} miscounts: {piece:?}");
        }
        assert_eq!(of("complete").len(), usize::from(is_new), "{}", self.told(peer));
        for entry in of("dialed") {
            let known = self.seats[..at].iter().any(|it| it.id == entry.numbers[0]);
            assert!(known, "{peer} calls only those before it: {entry:?}");
        }
        for entry in &log {
            let is_self = entry.kind != "piece" && entry.kind != "have";
            let others = if is_self { &entry.numbers[..] } else { &[] };
            assert!(!others.contains(&peer), "{peer} speaks of itself: {entry:?}");
        }
        for entry in of("preferred") {
            let distinct: BTreeSet<_> = entry.numbers.iter().collect();
            assert_eq!(distinct.len(), entry.numbers.len(), "{entry:?}");
            assert!(entry.numbers.len() <= self.k, "{peer} prefers more than k: {entry:?}");
        }
    }

    /// Largest delay with which messages of this run were read, by those of pieces, which both ends
    /// log.
    fn lateness_ms(&self) -> i64 {
        let mut had: BTreeMap<(u32, u32), i64> = BTreeMap::new();
        for peer in self.ids() {
            let pieces = self.log(peer).into_iter().filter(|it| it.kind == "piece");
            had.extend(pieces.map(|it| ((peer, it.numbers[0]), it.at_ms)));
        }
        let logs = self.ids().into_iter().flat_map(|it| self.log(it));
        let told = logs.filter(|it| it.kind == "have");
        let late = |it: Entry| Some(it.at_ms - had.get(&(it.numbers[0], it.numbers[1]))?);
        told.filter_map(late).max().unwrap_or(0)
    }

    /// By the logs of all: nobody had more than k + 1 neighbors unchoked at once. The logs are
    /// those of the receivers, which read late when they are busy: so much is left out at the end.
    #[track_caller]
    pub fn check_unchoked(&self) {
        const MOMENT_MS: i64 = 150;
        let late = self.lateness_ms() + MOMENT_MS;
        let mut spans: BTreeMap<u32, Vec<(i64, i64)>> = BTreeMap::new();
        for peer in self.ids() {
            let log = self.log(peer);
            let mut since: BTreeMap<u32, i64> = BTreeMap::new();
            let last = log.last().map_or(0, |it| it.at_ms);
            for entry in log {
                let by = entry.numbers.first().copied().unwrap_or_default();
                match entry.kind {
                    "unchoked" => _ = since.entry(by).or_insert(entry.at_ms),
                    "choked" => {
                        let from = since.remove(&by);
                        let from = from.unwrap_or_else(|| panic!("{peer}: choked twice by {by}"));
                        spans.entry(by).or_default().push((from, entry.at_ms));
                    }
                    _ => {}
                }
            }
            for (by, from) in since {
                spans.entry(by).or_default().push((from, last));
            }
        }
        for (by, spans) in spans {
            for (at, _) in &spans {
                let open = |it: &&(i64, i64)| it.0 <= *at && *at < it.1 - late;
                let count = spans.iter().filter(open).count();
                let told = format!("{count} unchoked at {at}, {late} ms late: {spans:?}");
                assert!(count <= self.k + 1, "{by} had {told}");
            }
        }
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
