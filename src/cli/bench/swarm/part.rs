//! Part of one process in the measurement: the measuring process starts it, it reports when it is
//! ready, waits for the word, works, and reports its progress, in lines of JSON.

use crate::proto::swarm::{PeerId, Pieces};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::CliError;
use crate::cli::bench::procfs;
use crate::cli::output::print;
use crate::machine::swarm::{Config, Event, FileListState, SwarmRoster, Tree};
use crate::model::{FileAttributes, Ticket};
use crate::runtime::driver::options::EventSink;
use crate::runtime::files::os_rng;
use crate::runtime::swarm::store::{Fetch, Hashing, OfferedFiles, Store};
use crate::runtime::swarm::{
    ContentPhase, SwarmEngine, SwarmHandle, SwarmKind, SwarmOptions, SwarmSpec,
};
use crate::runtime::thread;

/// Longest time of one process for everything.
const PATIENCE: Duration = Duration::from_secs(900);

/// Number of bytes that are read and written at a time in the plain limit.
const COPY_BYTES: usize = 256 * 1024;

/// Arguments of a part of the measurement.
#[derive(Clone, Debug, Args)]
pub struct PartArgs {
    /// The part, as JSON
    pub part: String,
}

/// Kinds of parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    /// Sends a file to so many takers with nothing but `sendfile`.
    Source { file: PathBuf, takers: u16 },
    /// Writes the received bytes to a file.
    Sink { file: PathBuf },
    /// Shares a file.
    Share { file: PathBuf, piece_size: u32, up: Option<u64> },
    /// Fetches a share.
    Fetch { folder: PathBuf, ticket: String },
    /// Takes part in an assignment's swarm.
    Assigned(Assigned),
}

/// A peer of an assignment's swarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Assigned {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) piece_size: u32,
    pub(super) me: u32,
    /// Ids of all peers, in order; the first has the file.
    pub(super) members: Vec<u32>,
    pub(super) k: usize,
    pub(super) p_secs: u64,
    pub(super) m_secs: u64,
}

/// Message that begins the work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StartSignal {
    /// Addresses of the other processes, in order.
    pub(super) at: Vec<SocketAddr>,
}

/// Sink that drops the events of a measurement.
struct NullSink;

impl EventSink<Event> for NullSink {
    fn take(&self, _: crate::model::Now, _: Event) -> bool {
        true
    }
}

/// Does a part.
pub(in crate::cli::bench) fn run(args: &PartArgs) -> Result<(), CliError> {
    let part: Part = serde_json::from_str(&args.part)
        .map_err(|err| CliError::Usage(format!("this is no part of a measurement: {err}")))?;
    match part {
        Part::Source { file, takers } => source(&file, takers),
        Part::Sink { file } => sink(&file),
        Part::Share { file, piece_size, up } => share(&file, piece_size, up),
        Part::Fetch { folder, ticket } => fetch(&folder, &ticket),
        Part::Assigned(assigned) => assignment(&assigned),
    }?;
    say(&json!({ "peak_mib": procfs::own_peak() }))
}

fn say(line: &Value) -> Result<(), CliError> {
    print(&format!("{line}\n"))
}

/// Waits for the word.
fn wait_for_go() -> Result<StartSignal, CliError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(system("read the word to begin"))?;
    serde_json::from_str(&line)
        .map_err(|err| CliError::Failed(format!("this is no word to begin: {err}")))
}

/// Waits until the measuring process has seen enough.
fn wait_for_end() -> Result<(), CliError> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map_err(system("wait for the end"))?;
    Ok(())
}

fn system(action: &'static str) -> impl Fn(io::Error) -> CliError {
    move |source| CliError::System { action, source }
}

fn failed(err: impl std::fmt::Display) -> CliError {
    CliError::Failed(err.to_string())
}

const fn anywhere() -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
}

fn source(file: &Path, takers: u16) -> Result<(), CliError> {
    let listener = TcpListener::bind(anywhere()).map_err(system("listen"))?;
    let at = listener.local_addr().map_err(system("listen"))?;
    say(&json!({ "at": at }))?;
    let mut senders = Vec::new();
    for number in 0..takers {
        let (stream, _) = listener.accept().map_err(system("accept a connection"))?;
        let file = File::open(file).map_err(system("open the file"))?;
        let name = format!("source:{number}");
        senders.push(thread::spawn(name, move || send_all(&file, &stream)));
    }
    for thread in senders {
        let thread = thread.map_err(system("start a thread"))?;
        thread.join().map_err(|_| failed("a sender panicked"))?.map_err(system("send the file"))?;
    }
    wait_for_end()
}

/// Sends the file by the fastest call of this platform, for the plain limit.
fn send_all(file: &File, stream: &TcpStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    while rustix::fs::sendfile(stream, file, None, 1 << 30)? > 0 {}
    #[cfg(not(target_os = "linux"))]
    io::copy(&mut &*file, &mut &*stream)?;
    Ok(())
}

fn sink(path: &Path) -> Result<(), CliError> {
    let mut file = File::create_new(path).map_err(system("make a file"))?;
    say(&json!({ "at": anywhere() }))?;
    let go = wait_for_go()?;
    let at = go.at.first().copied().ok_or_else(|| failed("nobody to ask"))?;
    let mut stream = TcpStream::connect(at).map_err(system("connect"))?;
    let mut bytes = vec![0; COPY_BYTES];
    loop {
        match stream.read(&mut bytes).map_err(system("read"))? {
            0 => break,
            len => file.write_all(&bytes[..len]).map_err(system("write"))?,
        }
    }
    say(&json!({ "done": "written" }))?;
    file.sync_all().map_err(system("sync"))?;
    say(&json!({ "done": "kept" }))?;
    wait_for_end()
}

fn share(file: &Path, piece_size: u32, up: Option<u64>) -> Result<(), CliError> {
    let offer = OfferedFiles::new(file).map_err(failed)?;
    let pieces = Pieces::new(offer.size(), piece_size).map_err(failed)?;
    let hashing = Hashing { threads: 2, cache: None, progress: &|_| true };
    let leaves = hashing.leaves(&offer, pieces).map_err(failed)?;
    let tree = Tree::of_leaves(&leaves);
    let ticket = Ticket {
        name: offer.name().to_owned(),
        size: pieces.size(),
        piece_size,
        root: tree.root(),
        files: None,
        traits: FileAttributes::default(),
        at: Vec::new(),
    };
    let options = SwarmOptions { listen: Some(anywhere()), up, ..SwarmOptions::default() };
    let engine = SwarmEngine::start(options)?;
    let kind = SwarmKind::Share {
        id: ticket.share_id(),
        tree,
        files: FileListState::None,
        at: Vec::new(),
    };
    let store = offer.store(pieces).map_err(failed)?;
    let joined = join(&engine, kind, random_id()?, store, Config::share())?;
    say(&json!({ "at": engine.addr(), "ticket": ticket.to_string() }))?;
    wait_for_go()?;
    wait_for_end()?;
    finish(&engine, &joined)
}

fn fetch(folder: &Path, ticket: &str) -> Result<(), CliError> {
    let ticket: Ticket = ticket.parse().map_err(failed)?;
    let pieces = Pieces::new(ticket.size, ticket.piece_size).map_err(failed)?;
    let options = SwarmOptions { listen: Some(anywhere()), ..SwarmOptions::default() };
    let engine = SwarmEngine::start(options)?;
    say(&json!({ "at": engine.addr() }))?;
    let go = wait_for_go()?;
    let id = ticket.share_id();
    let (name, list) = (ticket.name.as_str(), None);
    let traits = ticket.traits;
    let fetch = Fetch { folder, name, id, pieces, list, traits, preallocates: true };
    let store = Store::fetched(&fetch).map_err(failed)?;
    let tree = Tree::of_root(pieces.count(), ticket.root);
    let kind = SwarmKind::Share { id, tree, files: FileListState::None, at: go.at };
    let joined = join(&engine, kind, random_id()?, store, Config::share())?;
    report(&joined)?;
    wait_for_end()?;
    finish(&engine, &joined)
}

fn assignment(part: &Assigned) -> Result<(), CliError> {
    let options = SwarmOptions { listen: Some(anywhere()), ..SwarmOptions::default() };
    let engine = SwarmEngine::start(options)?;
    let pieces = Pieces::new(part.size, part.piece_size).map_err(failed)?;
    let is_whole = part.members.first() == Some(&part.me);
    let store = Store::assigned(&part.folder, &part.name, pieces, is_whole).map_err(failed)?;
    say(&json!({ "at": engine.addr() }))?;
    let go = wait_for_go()?;
    let everybody = part.members.iter().map(|it| PeerId(*it));
    let first = part.members.first().map(|it| PeerId(*it));
    let roster = SwarmRoster::new(everybody.clone().map(|it| (it, Some(it) == first)));
    let earlier = everybody.zip(go.at).take_while(|(peer, _)| peer.0 != part.me);
    let calls = earlier.map(|(peer, at)| (peer, vec![at])).collect();
    let (p, m) = (Duration::from_secs(part.p_secs), Duration::from_secs(part.m_secs));
    let kind = SwarmKind::Assignment { roster, calls };
    let joined = join(&engine, kind, PeerId(part.me), store, Config::assignment(part.k, p, m))?;
    report(&joined)?;
    joined.wait(PATIENCE, |_, ended| ended.is_some());
    say(&json!({ "done": "ended" }))?;
    finish(&engine, &joined)
}

fn random_id() -> Result<PeerId, CliError> {
    Ok(PeerId(os_rng()?.random()))
}

fn join(
    engine: &SwarmEngine,
    kind: SwarmKind,
    me: PeerId,
    store: Store,
    config: Config,
) -> Result<SwarmHandle, CliError> {
    let join = SwarmSpec { kind, me, store, config, events: Box::new(NullSink) };
    engine.join(join).map_err(failed)
}

/// Reports when every piece is verified and written, and when the disk was told to keep it.
fn report(joined: &SwarmHandle) -> Result<(), CliError> {
    let is_written = |phase: &ContentPhase| *phase != ContentPhase::Fetching;
    joined.wait(PATIENCE, |phase, _| is_written(phase));
    say(&json!({ "done": "written" }))?;
    let last = joined
        .wait(PATIENCE, |phase, _| matches!(phase, ContentPhase::Stored | ContentPhase::Failed(_)));
    match last.phase {
        ContentPhase::Stored => say(&json!({ "done": "kept" })),
        ContentPhase::Fetching | ContentPhase::Finishing => Err(failed("not complete in time")),
        ContentPhase::Failed(reason) => Err(failed(reason)),
    }
}

fn finish(engine: &SwarmEngine, joined: &SwarmHandle) -> Result<(), CliError> {
    let progress = joined.progress();
    joined.stop();
    engine.stop();
    say(&json!({ "up": progress.up, "down": progress.down }))
}
