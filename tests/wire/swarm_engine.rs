//! Swarms over real sockets: whole ones, and neighbors that speak raw bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use folkmoot::machine::swarm::{Config, Event, FileListState, SwarmOutcome, SwarmRoster, Tree};
use folkmoot::model::{Now, Rng, Ticket, Time};
use folkmoot::proto::sealed::{ClusterKey, ClusterKeys};
use folkmoot::proto::swarm::frame::encode;
use folkmoot::proto::swarm::handshake::Handshake;
use folkmoot::proto::swarm::{Message, PeerId, PieceIndex, Pieces};
use folkmoot::runtime::clock::Clock;
use folkmoot::runtime::driver::options::EventSink;
use folkmoot::runtime::swarm::store::{Fetch, Hashing, OfferedFiles, Store};
use folkmoot::runtime::swarm::{
    ContentPhase, SwarmEngine, SwarmHandle, SwarmKind, SwarmLimits, SwarmOptions, SwarmSpec,
};
use folkmoot::runtime::thread;
use rand::{Rng as _, SeedableRng as _};

const PATIENCE: Duration = Duration::from_secs(30);

fn loopback() -> Option<SocketAddr> {
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn engine(change: impl FnOnce(&mut SwarmOptions)) -> SwarmEngine {
    let mut options = SwarmOptions { listen: loopback(), ..SwarmOptions::default() };
    change(&mut options);
    SwarmEngine::start(options).unwrap()
}

/// Events, as they come.
struct Ear(crossbeam_channel::Sender<Event>);

impl EventSink<Event> for Ear {
    fn take(&self, _: Now, event: Event) -> bool {
        self.0.try_send(event).is_ok()
    }
}

fn ear() -> (Box<dyn EventSink<Event>>, Receiver<Event>) {
    let (tell, heard) = bounded(100_000);
    (Box::new(Ear(tell)), heard)
}

fn wait_for(events: &Receiver<Event>, is_it: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.recv_timeout(PATIENCE).expect("it happens in time");
        if is_it(&event) {
            return event;
        }
    }
}

/// Index of the piece that an event tells of as fetched.
const fn fetched(event: &Event) -> Option<u32> {
    if let Event::Downloaded { index, .. } = event { Some(index.0) } else { None }
}

fn random_file(folder: &Path, name: &str, size: usize) -> PathBuf {
    let mut bytes = vec![0; size];
    Rng::seed_from_u64(size as u64).fill_bytes(&mut bytes);
    fs::write(folder.join(name), bytes).unwrap();
    folder.join(name)
}

/// A share of the file or folder at `path`.
fn share(engine: &SwarmEngine, path: &Path, piece_size: u32) -> (SwarmHandle, Ticket) {
    let offer = OfferedFiles::new(path).unwrap();
    let pieces = Pieces::new(offer.size(), piece_size).unwrap();
    let hashing = Hashing { threads: 2, cache: None, progress: &|_| true };
    let tree = Tree::of_leaves(&hashing.leaves(&offer, pieces).unwrap());
    let list = offer.list().map(<[u8]>::to_vec);
    let digest =
        |list: &Vec<u8>| folkmoot::model::FileList::decode(list, pieces.size()).unwrap().digest();
    let ticket = Ticket {
        name: offer.name().to_owned(),
        size: pieces.size(),
        piece_size,
        root: tree.root(),
        files: list.as_ref().map(digest),
        traits: folkmoot::model::FileAttributes::default(),
        at: Vec::new(),
    };
    let files = list.map_or(FileListState::None, FileListState::Known);
    let kind = SwarmKind::Share { id: ticket.share_id(), tree, files, at: Vec::new() };
    let store = offer.store(pieces).unwrap();
    let join = SwarmSpec { kind, me: PeerId(1), store, config: Config::share(), events: ear().0 };
    (engine.join(join).unwrap(), ticket)
}

fn fetch(
    engine: &SwarmEngine,
    (folder, ticket, me): (&Path, &Ticket, u32),
    at: &[SocketAddr],
) -> (SwarmHandle, Receiver<Event>) {
    let pieces = Pieces::new(ticket.size, ticket.piece_size).unwrap();
    let fetch = Fetch {
        folder,
        name: &ticket.name,
        id: ticket.share_id(),
        pieces,
        list: ticket.files,
        traits: ticket.traits,
        preallocates: false,
    };
    let store = Store::fetched(&fetch).unwrap();
    let files = match (ticket.files, store.list()) {
        (None, _) => FileListState::None,
        (Some(digest), None) => FileListState::Wanted(digest),
        (Some(_), Some(list)) => FileListState::Known(list.to_vec()),
    };
    let tree = Tree::of_root(pieces.count(), ticket.root);
    let kind = SwarmKind::Share { id: ticket.share_id(), tree, files, at: at.to_vec() };
    let (events, heard) = ear();
    let config = Config::share();
    (engine.join(SwarmSpec { kind, me: PeerId(me), store, config, events }).unwrap(), heard)
}

fn await_stored(joined: &SwarmHandle) {
    let last = joined
        .wait(PATIENCE, |phase, _| matches!(phase, ContentPhase::Stored | ContentPhase::Failed(_)));
    assert_eq!(last.phase, ContentPhase::Stored, "{last:?}");
}

#[test]
fn three_hand_each_other_a_file_and_it_is_the_same() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(from.path(), "content", 3_000_001);
    let seeder = engine(|_| {});
    let (_shared, ticket) = share(&seeder, &file, 100_000);
    let engines: Vec<_> = (0..3).map(|_| engine(|_| {})).collect();
    let at: Vec<_> = [&seeder].into_iter().chain(&engines).filter_map(SwarmEngine::addr).collect();
    let joined: Vec<_> = (0..3)
        .map(|number| {
            let folder = to.path().join(number.to_string());
            fetch(&engines[number], (&folder, &ticket, 10 + number as u32), &at).0
        })
        .collect();
    joined.iter().for_each(await_stored);
    for (number, joined) in joined.iter().enumerate() {
        let copy = fs::read(to.path().join(number.to_string()).join("content")).unwrap();
        assert!(copy == fs::read(&file).unwrap());
        let progress = joined.progress();
        assert_eq!((progress.have, progress.pieces), (31, 31));
    }
    engines.iter().chain([&seeder]).for_each(SwarmEngine::stop);
}

#[test]
fn folders_and_the_smallest_contents_are_handed_over() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("docs/deep")).unwrap();
    random_file(&from.path().join("docs"), "a", 70_000);
    random_file(&from.path().join("docs/deep"), "b", 0);
    random_file(&from.path().join("docs/deep"), "c", 33_333);
    random_file(from.path(), "empty", 0);
    random_file(from.path(), "one", 1);
    let (seeder, leecher) = (engine(|_| {}), engine(|_| {}));
    let at = [seeder.addr().unwrap()];
    for name in ["docs", "empty", "one"] {
        let (shared, ticket) = share(&seeder, &from.path().join(name), 1_000);
        let (joined, _) = fetch(&leecher, (to.path(), &ticket, 2), &at);
        await_stored(&joined);
        joined.stop();
        shared.stop();
    }
    for path in ["docs/a", "docs/deep/b", "docs/deep/c", "empty", "one"] {
        let (was, is) = (fs::read(from.path().join(path)), fs::read(to.path().join(path)));
        assert_eq!(was.unwrap(), is.unwrap(), "{path}");
    }
    seeder.stop();
    leecher.stop();
}

#[test]
fn a_fetch_that_was_stopped_goes_on_and_fetches_nothing_twice() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(from.path(), "content", 4_000_000);
    let seeder = engine(|options| options.up = Some(4_000_000));
    let (_shared, ticket) = share(&seeder, &file, 10_000);
    let at = [seeder.addr().unwrap()];
    let leecher = engine(|_| {});
    let (joined, events) = fetch(&leecher, (to.path(), &ticket, 2), &at);
    let mut before = BTreeSet::new();
    while before.len() < 100 {
        before.extend(fetched(&events.recv_timeout(PATIENCE).expect("it goes on")));
    }
    joined.stop();
    drop(joined);
    before.extend(events.try_iter().filter_map(|it| fetched(&it)));
    assert!(before.len() < 400, "it was stopped in the middle: {}", before.len());
    let (joined, events) = fetch(&leecher, (to.path(), &ticket, 3), &at);
    await_stored(&joined);
    let after: BTreeSet<_> = events.try_iter().filter_map(|it| fetched(&it)).collect();
    let twice: Vec<_> = before.intersection(&after).collect();
    assert_eq!(twice, [] as [&u32; 0], "fetched twice");
    // A piece that was being written when the swarm was stopped is told by nobody.
    assert!(before.len() + after.len() >= 390, "{} and {}", before.len(), after.len());
    assert!(fs::read(to.path().join("content")).unwrap() == fs::read(&file).unwrap());
    seeder.stop();
    leecher.stop();
}

/// An address behind which every connection ends after so many bytes from the other side.
fn breaks_off(to: SocketAddr, after: u64) -> SocketAddr {
    let listener = TcpListener::bind(loopback().unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    // Ends with the test's process.
    let _ends = thread::spawn("between", move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(to).unwrap();
            let (asks, asked) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let _asks = thread::spawn("asks", move || std::io::copy(&mut &asks, &mut &asked));
            let _answers = thread::spawn("answers", move || {
                let _ = std::io::copy(&mut (&far).take(after), &mut &near);
                let _ = near.shutdown(std::net::Shutdown::Both);
                let _ = far.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    at
}

#[test]
fn a_piece_is_finished_over_connections_that_all_end_amid_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(from.path(), "content", 1_000_000);
    let seeder = engine(|_| {});
    let (_shared, ticket) = share(&seeder, &file, 1_000_000);
    let at = breaks_off(seeder.addr().unwrap(), 400_000);
    let leecher = engine(|_| {});
    let (joined, _) = fetch(&leecher, (to.path(), &ticket, 2), &[at]);
    await_stored(&joined);
    assert!(fs::read(to.path().join("content")).unwrap() == fs::read(&file).unwrap());
    seeder.stop();
    leecher.stop();
}

#[test]
fn limits_on_rates_hold_in_both_directions() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(from.path(), "content", 6_000_000);
    for (number, (up, down)) in
        [(Some(3_000_000), None), (None, Some(3_000_000))].iter().enumerate()
    {
        let seeder = engine(|options| options.up = *up);
        let (_shared, ticket) = share(&seeder, &file, 100_000);
        let leecher = engine(|options| options.down = *down);
        let folder = to.path().join(number.to_string());
        let clock = Clock::start();
        let (joined, _) = fetch(&leecher, (&folder, &ticket, 2), &[seeder.addr().unwrap()]);
        await_stored(&joined);
        // Two seconds are the least, but for what was saved up; a busy machine takes longer.
        let took = clock.now().mono.since(Time::ZERO).as_secs_f64();
        assert!(took >= 1.85, "{took} s");
        seeder.stop();
        leecher.stop();
    }
}

#[test]
fn with_a_cluster_key_only_its_holders_are_heard() {
    let keys =
        |number| Some(Arc::new(ClusterKeys::new(ClusterKey::from_bytes([number; 32]), None)));
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(from.path(), "content", 500_000);
    let seeder = engine(|options| options.cluster_keys = keys(1));
    let (_shared, ticket) = share(&seeder, &file, 10_000);
    let at = [seeder.addr().unwrap()];
    let holder = engine(|options| options.cluster_keys = keys(1));
    await_stored(&fetch(&holder, (to.path(), &ticket, 2), &at).0);
    assert!(fs::read(to.path().join("content")).unwrap() == fs::read(&file).unwrap());
    for other in [engine(|_| {}), engine(|options| options.cluster_keys = keys(2))] {
        let folder = tempfile::tempdir().unwrap();
        let (joined, events) = fetch(&other, (folder.path(), &ticket, 3), &at);
        wait_for(&events, |it| matches!(it, Event::Unreachable { .. }));
        assert_eq!(joined.progress().have, 0);
        other.stop();
    }
    assert!(seeder.counters().refused_key.get() >= 2);
    seeder.stop();
    holder.stop();
}

#[test]
fn a_file_that_changes_under_its_share_ends_the_share_and_harms_nobody() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(from.path(), "content", 500_000);
    let (seeder, leecher) = (engine(|_| {}), engine(|_| {}));
    let (shared, ticket) = share(&seeder, &file, 10_000);
    fs::write(&file, vec![0; 500_000]).unwrap();
    let (joined, _) = fetch(&leecher, (to.path(), &ticket, 2), &[seeder.addr().unwrap()]);
    let last = shared.wait(PATIENCE, |_, ended| ended.is_some());
    assert!(matches!(last.ended, Some(SwarmOutcome::DiskFailed(_))), "{last:?}");
    assert!(matches!(&last.phase, ContentPhase::Failed(reason) if reason.contains("changed")));
    assert_eq!(joined.progress().have, 0);
    seeder.stop();
    leecher.stop();
}

/// A neighbor that speaks raw bytes.
struct Raw(TcpStream);

impl Raw {
    fn call(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn greet(at: SocketAddr, peer: u32, ticket: &Ticket) -> Self {
        let mut raw = Self::call(at);
        let hello = Handshake { peer: PeerId(peer), share: Some(ticket.share_id()) };
        raw.say(&hello.encode());
        raw.hear(64);
        raw
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next frame: its type and payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.hear(5);
        let len = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        (head[4], self.hear(len - 1))
    }

    fn frame_of(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (found, payload) = self.frame();
            if found == kind {
                return payload;
            }
        }
    }

    /// True if the other end closes; what it says before does not matter.
    fn gets_closed(mut self) -> bool {
        match self.0.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(err) => err.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A seeder of 10 pieces of 1,000 bytes.
fn small_seeder(
    change: impl FnOnce(&mut SwarmOptions),
) -> (SwarmEngine, SwarmHandle, Ticket, Vec<u8>) {
    let from = tempfile::tempdir().unwrap().keep();
    let file = random_file(&from, "content", 10_000);
    let seeder = engine(change);
    let (joined, ticket) = share(&seeder, &file, 1_000);
    (seeder, joined, ticket, fs::read(file).unwrap())
}

#[test]
fn a_neighbor_that_writes_byte_by_byte_is_served() {
    let (seeder, _joined, ticket, content) = small_seeder(|_| {});
    let mut raw = Raw::call(seeder.addr().unwrap());
    let hello = Handshake { peer: PeerId(7), share: Some(ticket.share_id()) };
    let said = [hello.encode(), encode(&Message::Interested)].concat();
    said.chunks(1).for_each(|byte| raw.say(byte));
    assert_eq!(raw.hear(64)[..18], *b"P2PFILESHARINGPROJ");
    assert_eq!(raw.frame(), (5, vec![0xff, 0xc0]));
    raw.frame_of(1);
    for index in [9, 0, 4] {
        encode(&Message::Request(PieceIndex(index))).chunks(1).for_each(|byte| raw.say(byte));
        let piece = raw.frame_of(7);
        assert_eq!(piece[..4], index.to_be_bytes());
        let start = index as usize * 1_000;
        assert!(piece[4..] == content[start..start + 1_000]);
    }
    seeder.stop();
    assert!(raw.gets_closed());
}

#[test]
fn what_is_no_handshake_or_for_another_share_gets_closed() {
    let (seeder, _joined, ticket, _) = small_seeder(|_| {});
    let at = seeder.addr().unwrap();
    let other = Handshake { peer: PeerId(7), share: Some([3; 32]) }.encode();
    let none = Handshake { peer: PeerId(7), share: None }.encode();
    let cases: [&[u8]; 4] = [b"P2PFILESHARINGPROX and more", b"GET / HTTP/1.1\r\n", &other, &none];
    for bytes in cases {
        let mut raw = Raw::call(at);
        raw.say(bytes);
        assert!(raw.gets_closed(), "{}", bytes.escape_ascii());
    }
    assert_eq!(seeder.counters().refused_handshake.get(), 4);
    Raw::greet(at, 8, &ticket).frame_of(5);
    seeder.stop();
}

#[test]
fn impossible_frames_end_their_own_connection_only() {
    let (seeder, _joined, ticket, _) = small_seeder(|_| {});
    let at = seeder.addr().unwrap();
    let mut good = Raw::greet(at, 100, &ticket);
    let cases: [&[u8]; 6] = [
        &[0, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 7],
        &[0, 0, 0, 1, 99],
        &[0, 0, 0, 3, 4, 0, 0],
        &[0, 0, 4, 0xee, 7, 0, 0, 0, 0],
        &[0x7f, 0xff, 0xff, 0xff, 5],
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let mut raw = Raw::greet(at, 7 + number as u32, &ticket);
        raw.say(bytes);
        assert!(raw.gets_closed(), "{bytes:?}");
    }
    assert_eq!(seeder.counters().refused_message.get(), 6);
    good.say(&encode(&Message::Interested));
    good.frame_of(1);
    seeder.stop();
}

#[test]
fn requests_that_cannot_be_served_cost_nothing() {
    let (seeder, joined, ticket, _) = small_seeder(|_| {});
    let mut raw = Raw::greet(seeder.addr().unwrap(), 7, &ticket);
    // Before it is unchoked, beyond the last piece, and a piece that nobody asked for.
    raw.say(&encode(&Message::Request(PieceIndex(1))));
    raw.say(&encode(&Message::Request(PieceIndex(10))));
    raw.say(&encode(&Message::Request(PieceIndex(u32::MAX))));
    raw.say(&encode(&Message::Piece { index: PieceIndex(1), data: vec![0; 1_000] }));
    raw.say(&encode(&Message::Interested));
    raw.frame_of(1);
    raw.say(&encode(&Message::Request(PieceIndex(2))));
    assert_eq!(raw.frame_of(7)[..4], [0, 0, 0, 2]);
    let progress = joined.progress();
    assert_eq!(progress.have, 10);
    seeder.stop();
}

#[test]
fn whoever_says_nothing_gets_closed_in_time_and_the_oldest_first() {
    let limits = SwarmLimits {
        handshake_timeout: Duration::from_millis(300),
        silent_max: 2,
        ..SwarmLimits::default()
    };
    let (seeder, _joined, _, _) = small_seeder(|options| options.limits = limits.clone());
    let at = seeder.addr().unwrap();
    let silent: Vec<_> = (0..4).map(|_| Raw::call(at)).collect();
    let mut half = Raw::call(at);
    half.say(b"P2PFILE");
    assert!(half.gets_closed());
    assert!(silent.into_iter().all(Raw::gets_closed));
    assert_eq!(seeder.counters().links.get(), 0);
    seeder.stop();
}

#[test]
fn one_address_has_its_share_of_connections_and_no_more() {
    let limits = SwarmLimits { links_of_one_max: 3, ..SwarmLimits::default() };
    let (seeder, _joined, ticket, _) = small_seeder(|options| options.limits = limits.clone());
    let at = seeder.addr().unwrap();
    let mut held: Vec<_> = (0..3).map(|peer| Raw::greet(at, 10 + peer, &ticket)).collect();
    assert!(Raw::call(at).gets_closed());
    assert_eq!(seeder.counters().refused_full.get(), 1);
    // A place that is free again is given again.
    drop(held.pop());
    let again = std::iter::from_fn(|| Some(Raw::call(at))).take(1_000).find_map(|mut raw| {
        raw.say(&Handshake { peer: PeerId(50), share: Some(ticket.share_id()) }.encode());
        raw.0.read_exact(&mut [0; 64]).ok()
    });
    assert_eq!(again, Some(()));
    seeder.stop();
}

#[test]
fn fifty_call_at_once_and_all_are_greeted() {
    let (seeder, joined, ticket, _) = small_seeder(|_| {});
    let at = seeder.addr().unwrap();
    let mut raws: Vec<_> = (0..50).map(|_| Raw::call(at)).collect();
    for (number, raw) in raws.iter_mut().enumerate() {
        let peer = PeerId(100 + number as u32);
        raw.say(&Handshake { peer, share: Some(ticket.share_id()) }.encode());
    }
    for raw in &mut raws {
        raw.hear(64);
        assert_eq!(raw.frame_of(5), [0xff, 0xc0]);
    }
    assert_eq!(joined.progress().peers, 50);
    seeder.stop();
    assert!(raws.into_iter().all(Raw::gets_closed));
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(name).map(|it| it.trim().to_owned()).collect()
}

#[test]
fn after_the_end_neither_thread_nor_socket_is_left() {
    let (seeder, _joined, ticket, _) = small_seeder(|_| {});
    let at = seeder.addr().unwrap();
    let mut raws: Vec<_> = (0..5).map(|peer| Raw::greet(at, 10 + peer, &ticket)).collect();
    for raw in &mut raws {
        raw.frame_of(5);
    }
    raws[0].say(&encode(&Message::Interested));
    raws[0].frame_of(1);
    let ports: Vec<_> = raws.iter().map(|it| it.0.local_addr().unwrap().port()).collect();
    let ours = |name: &String| ports.iter().any(|port| name.ends_with(&format!(":{port}")));
    assert_eq!(threads().iter().filter(|name| ours(name)).count(), 10, "two a connection");
    // These neither read any more nor close.
    seeder.stop();
    // A thread that has done all its work may still be on its way out of the system's list.
    let clock = Clock::start();
    while threads().iter().any(ours) {
        assert!(clock.now().mono.since(Time::ZERO) < PATIENCE, "{:?}", threads());
        std::thread::yield_now();
    }
    assert!(raws.into_iter().all(Raw::gets_closed));
    drop(TcpListener::bind(at).unwrap());
    assert!(TcpStream::connect(at).is_err());
}

/// One of an assignment's swarm of 1001 and 1002; the first has the file.
fn assigned(
    engine: &SwarmEngine,
    folder: &Path,
    me: u32,
    calls: &[SocketAddr],
) -> (SwarmHandle, Receiver<Event>) {
    let pieces = Pieces::new(10_000, 1_000).unwrap();
    let store = Store::assigned(folder, "content", pieces, me == 1001).unwrap();
    let roster = SwarmRoster::new([(PeerId(1001), true), (PeerId(1002), false)]);
    let calls = calls.iter().map(|at| (PeerId(1001), vec![*at])).collect();
    let second = Duration::from_secs(1);
    let (events, heard) = ear();
    let kind = SwarmKind::Assignment { roster, calls };
    let config = Config::assignment(2, second, second);
    (engine.join(SwarmSpec { kind, me: PeerId(me), store, config, events }).unwrap(), heard)
}

#[test]
fn an_assignments_swarm_ends_by_itself_when_all_have_the_file() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = random_file(one.path(), "content", 10_000);
    let (first, second) = (engine(|_| {}), engine(|_| {}));
    let (seeder, _) = assigned(&first, one.path(), 1001, &[]);
    let (leecher, _) = assigned(&second, two.path(), 1002, &[first.addr().unwrap()]);
    for joined in [&seeder, &leecher] {
        let last = joined.wait(PATIENCE, |_, ended| ended.is_some());
        assert_eq!(last.ended, Some(SwarmOutcome::AllComplete));
    }
    await_stored(&leecher);
    assert!(fs::read(two.path().join("content")).unwrap() == fs::read(file).unwrap());
    first.stop();
    second.stop();
}

#[test]
fn ids_in_digits_are_known_and_wrong_ones_refused() {
    let one = tempfile::tempdir().unwrap();
    random_file(one.path(), "content", 10_000);
    let seeder = engine(|_| {});
    let (_joined, events) = assigned(&seeder, one.path(), 1001, &[]);
    // Greeted before it has said who it is: there are programs that wait for that.
    let mut raw = Raw::call(seeder.addr().unwrap());
    assert_eq!(raw.hear(32)[28..], 1001_u32.to_be_bytes());
    raw.say(b"P2PFILESHARINGPROJgarbage!!!1002");
    assert_eq!(raw.frame_of(5), [0xff, 0xc0]);
    assert_eq!(
        wait_for(&events, |it| matches!(it, Event::ConnectedFrom(_))),
        Event::ConnectedFrom(PeerId(1002))
    );
    let mut stranger = Raw::call(seeder.addr().unwrap());
    stranger.say(b"P2PFILESHARINGPROJ\0\0\0\0\0\0\0\0\0\0\0\0\x09\x09");
    assert!(stranger.gets_closed());
    seeder.stop();
    // And of one that is called: it is not who it should be.
    let two = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(loopback().unwrap()).unwrap();
    let leecher = engine(|_| {});
    let (_joined, events) = assigned(&leecher, two.path(), 1002, &[listener.local_addr().unwrap()]);
    let mut called = Raw(listener.accept().unwrap().0);
    assert_eq!(called.hear(32)[28..], 1002_u32.to_be_bytes());
    called.say(b"P2PFILESHARINGPROJ\0\0\0\0\0\0\0\0\0\0\0\0\x03\xeb");
    let event = wait_for(&events, |it| matches!(it, Event::Unreachable { .. }));
    let Event::Unreachable { reason, .. } = event else { unreachable!() };
    assert!(reason.contains("1003"), "{reason}");
    leecher.stop();
}
