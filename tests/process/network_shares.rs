//! Files and folders that networks in one process hand on to each other, over real sockets.

use crate::support;

use std::fs;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use folkmoot::Network;
use folkmoot::network::shares::ContentPhase;
use folkmoot::network::{Builder, Share, ShareError};
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use support::process::{Process, eventually, run, runs_alone};
use support::{PATIENCE, peer_exe, ports};

/// Time for which a fetch waits in vain.
const SOON: Duration = Duration::from_secs(1);

/// Two networks that are neighbors, and a folder of the test.
struct Pair {
    one: Network,
    two: Network,
    dir: tempfile::TempDir,
}

impl Pair {
    fn start(one: Builder, two: Builder) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let one = one.start().expect("it starts");
        let two = two.bootstrap([one.endpoint()]).start().expect("it starts");
        two.wait_for_peers(1, PATIENCE).expect("they meet");
        Self { one, two, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn noise(&self, name: &str, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        folkmoot::model::Rng::seed_from_u64(bytes as u64).fill_bytes(&mut content);
        fs::write(self.path(name), &content).expect("it can be written");
        content
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn completes(share: &Share) {
    let outcome = share.complete().wait_timeout(PATIENCE).expect("it ends in time");
    assert_eq!(outcome, Ok(()));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest of all runtimes.
fn block_on<F: Future>(task: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut task, mut context) = (pin!(task), Context::from_waker(&waker));
    loop {
        match task.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

fn names(network: &Network) -> Vec<(String, usize)> {
    network.shares().into_iter().map(|it| (it.ticket.name, it.peers)).collect()
}

#[test]
fn a_file_goes_from_one_network_to_another_and_is_listed_while_its_share_lives() {
    let pair = Pair::start(Network::builder(), Network::builder());
    let content = pair.noise("big.bin", 3_000_000);
    let offered = pair.one.share(pair.path("big.bin")).wait().expect("it is shared");
    completes(&offered);
    assert_eq!(offered.ticket().at, [pair.one.endpoint()]);
    assert!(eventually(|| names(&pair.two) == [("big.bin".to_owned(), 1)]));

    let fetched = pair.two.fetch(offered.ticket(), pair.path("to")).wait().expect("it begins");
    completes(&fetched);
    let progress = fetched.progress();
    assert_eq!((progress.phase, progress.down), (ContentPhase::Stored, 3_000_000));
    assert!(read(fetched.path()) == content);
    assert_eq!(fetched.path(), pair.path("to/big.bin"));
    assert!(eventually(|| names(&pair.one) == [("big.bin".to_owned(), 2)]), "both have it");

    // A second handle keeps it when the first has gone.
    let again = pair.one.share(pair.path("big.bin")).wait().expect("it is shared");
    fetched.end();
    drop(offered);
    let third = Network::builder().start().expect("it starts");
    let text = again.ticket().to_string();
    completes(&third.fetch(format!("{text}\n"), pair.path("third")).wait().expect("it begins"));
    assert!(read(&pair.path("third/big.bin")) == content);
    drop(again);
    assert!(eventually(|| names(&pair.two).is_empty()), "{:?}", names(&pair.two));
    let gone = third.fetch_within(text, pair.path("gone"), SOON).wait().expect("it begins");
    let error = gone.complete().wait().expect_err("nobody has it");
    assert!(matches!(error, ShareError::NotFound { have: 0, .. }), "{error}");
}

#[test]
fn a_folder_is_fetched_by_tasks_that_await() {
    let pair = Pair::start(Network::builder(), Network::builder());
    fs::create_dir_all(pair.path("photos/deep")).expect("a folder");
    let content = pair.noise("photos/deep/one", 400_000);
    let none = pair.noise("photos/none", 0);
    std::os::unix::fs::symlink("/", pair.path("photos/link")).expect("a link");
    block_on(async {
        let offered = pair.one.share(pair.path("photos")).await.expect("it is shared");
        assert!(offered.left_out().len() == 1, "{:?}", offered.left_out());
        let fetched = pair.two.fetch(offered.ticket(), pair.path("to")).await.expect("it begins");
        let (first, second) = (fetched.complete(), fetched.complete());
        assert_eq!((first.await, second.await), (Ok(()), Ok(())), "each wait has the outcome");
        assert!(read(&fetched.path().join("deep/one")) == content);
        assert!(read(&fetched.path().join("none")) == none);
    });
}

#[test]
fn what_cannot_be_shared_or_fetched_says_why() {
    let pair = Pair::start(Network::builder(), Network::builder());
    let error = pair.one.share(pair.path("nothing")).wait().expect_err("there is nothing");
    assert!(error.to_string().contains("nothing"), "{error}");
    let to = pair.path("to");
    for text in ["", "seven", "folkmoot:share?name=a", "folkmoot:share?name=..%2Fa&size=1"] {
        let error = pair.two.fetch(text, &to).wait().expect_err("no ticket");
        assert!(matches!(error, ShareError::Ticket(_)), "{text}: {error}");
    }
    assert!(!to.exists(), "nothing was begun");

    let content = pair.noise("a", 100_000);
    let offered = pair.one.share(pair.path("a")).wait().expect("it is shared");
    // The ticket of other content, which the place does not have; and one of a place without peer.
    let mut wrong = offered.ticket().clone();
    wrong.root = [7; 32];
    let mut nowhere = offered.ticket().clone();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is one");
    nowhere.at = vec![free.into()];
    nowhere.root = [8; 32];
    for ticket in [wrong, nowhere] {
        let share = pair.two.fetch_within(&ticket, &to, SOON).wait().expect("it begins");
        let error = share.complete().wait_timeout(PATIENCE).expect("in time").expect_err("none");
        assert!(matches!(error, ShareError::NotFound { have: 0, .. }), "{error}");
        assert!(!error.to_string().contains("nobody answered"), "{error}");
    }
    fs::write(to.join("a"), "mine").expect("a file");
    let error = pair.two.fetch(offered.ticket(), &to).wait().expect_err("the name is taken");
    assert_eq!(error, ShareError::Exists(to.join("a")));
    assert_eq!(read(&to.join("a")), b"mine");
    fs::remove_file(to.join("a")).expect("it goes");
    completes(&pair.two.fetch(offered.ticket(), &to).wait().expect("it begins"));
    assert!(read(&to.join("a")) == content);
}

#[test]
fn a_fetch_that_was_dropped_goes_on_where_it_was() {
    const SIZE: usize = 6 << 20;
    let slow = Network::builder().share_rates(None, Some(1 << 20));
    let pair = Pair::start(Network::builder(), slow);
    let content = pair.noise("big", SIZE);
    let offered = pair.one.share(pair.path("big")).wait().expect("it is shared");
    let fetched = pair.two.fetch(offered.ticket(), pair.path("to")).wait().expect("it begins");
    assert!(eventually(|| fetched.progress().have > 0));
    let kept = u64::from(fetched.progress().have) * u64::from(offered.ticket().piece_size);
    let mut waiting = fetched.complete();
    drop(fetched);
    let outcome = waiting.wait_timeout(PATIENCE).expect("the wait ends, too");
    assert_eq!(outcome, Err(ShareError::Stopped));
    assert!(!pair.path("to/big").exists(), "it has no name before it is whole");
    drop(pair.two);

    let quick = Network::builder().start().expect("it starts");
    let fetched = quick.fetch(offered.ticket(), pair.dir.path().join("to")).wait();
    let fetched = fetched.expect("it begins");
    completes(&fetched);
    assert!(read(fetched.path()) == content);
    let down = fetched.progress().down;
    assert!(down <= SIZE as u64 - kept, "{down} of {SIZE} came again, though {kept} were there");
}

#[test]
fn fetches_find_each_other_while_they_are_under_way() {
    let slow = Network::builder().share_rates(None, Some(1 << 16));
    let pair = Pair::start(Network::builder(), slow);
    let content = pair.noise("big", 8 << 20);
    let offered = pair.one.share(pair.path("big")).wait().expect("it is shared");
    let fetched = pair.two.fetch(offered.ticket(), pair.path("to")).wait().expect("it begins");
    let both = [("big".to_owned(), 2)];
    assert!(eventually(|| names(&pair.one) == both), "{:?}", names(&pair.one));
    assert_eq!(fetched.progress().phase, ContentPhase::Fetching, "it takes two minutes");
    // A ticket without places: the lists alone lead there.
    let mut ticket = offered.ticket().clone();
    ticket.at.clear();
    let third = Network::builder().bootstrap([pair.two.endpoint()]).start().expect("it starts");
    let found = third.fetch(ticket, pair.path("third")).wait().expect("it begins");
    completes(&found);
    assert!(read(found.path()) == content);
    assert!(eventually(|| fetched.progress().up > 0 || found.progress().peers > 1));
}

#[test]
fn a_share_that_nobody_waits_for_ends() {
    let slow = Network::builder().share_rates(None, Some(1 << 16));
    let pair = Pair::start(Network::builder(), slow);
    pair.noise("big", 8 << 20);
    let offered = pair.one.share(pair.path("big")).wait().expect("it is shared");
    drop(pair.two.fetch(offered.ticket(), pair.path("first")));
    // As long as the first lasts, which is two minutes, there is no second of the same content.
    let second = || pair.two.fetch(offered.ticket(), pair.path("to")).wait();
    assert!(eventually(|| pair.path("first").exists()));
    assert!(eventually(|| second().is_ok()), "{:?}", second());
    fs::write(pair.path("small"), "seven").expect("a file");
    drop(pair.one.share(pair.path("small")));
    let small = pair.one.share(pair.path("small")).wait().expect("it is shared");
    let ticket = small.ticket().clone();
    drop(small);
    let third = Network::builder().start().expect("it starts");
    let mut turn = 0;
    let is_gone = || {
        turn += 1;
        let to = pair.path(&format!("{turn}"));
        let share = third.fetch_within(&ticket, to, SOON).wait().expect("it begins");
        share.complete().wait().is_err()
    };
    assert!(eventually(is_gone), "the one that was given up is still offered");
}

#[test]
fn a_network_takes_what_the_fleet_is_to_take_only_where_it_is_told_to() {
    let taking = Network::builder().take_shares(1 << 20);
    let pair = Pair::start(Network::builder(), taking);
    let other = Network::builder().bootstrap([pair.one.endpoint()]).start().expect("it starts");
    other.wait_for_peers(1, PATIENCE).expect("they meet");
    let (content, _) = (pair.noise("all", 200_000), pair.noise("large", 1 << 20));
    let small = pair.one.share_everywhere(pair.path("all")).wait().expect("it is shared");
    let large = pair.one.share_everywhere(pair.path("large")).wait().expect("it is shared");
    let taken = pair.two.received().join("all");
    assert!(eventually(|| taken.exists()), "{:?}", names(&pair.two));
    assert!(read(&taken) == content);
    assert!(eventually(|| names(&other).contains(&("all".to_owned(), 2))), "it has heard of it");
    assert!(!pair.two.received().join("large").exists(), "more than it may take");
    assert!(!other.received().exists() && !pair.one.received().exists());
    drop((small, large));
    assert!(eventually(|| names(&other) == [("all".to_owned(), 1)]), "{:?}", names(&other));
    assert!(read(&taken) == content, "what was taken stays");
}

#[test]
fn a_network_goes_on_sharing_what_the_peer_of_its_directory_shared_and_remembers_no_handles() {
    let dir = tempfile::tempdir().expect("a folder");
    let (port, exe) = (ports().to_string(), peer_exe());
    let mut peer = Process::start(&exe, &["--port", &port, "--open"], dir.path());
    peer.wait_for("started with the key");
    fs::write(dir.path().join("kept"), "text").expect("a file");
    fs::write(dir.path().join("passing"), "more text").expect("a file");
    let share = || run(&exe, &["share", "kept", "--peer", &port], dir.path());
    assert!(eventually(|| share().0 == Some(0)), "{:?}", share());
    peer.signal(Signal::TERM);
    assert_eq!(peer.wait_for_end(), Some(0));

    let start = || {
        let place = format!("127.0.0.1:{port}");
        Network::builder().listen(place).data(dir.path().join("data")).start().expect("it starts")
    };
    let network = start();
    let kept = ("kept".to_owned(), 1);
    assert!(eventually(|| names(&network) == [kept.clone()]), "{:?}", names(&network));
    let handle = network.share(dir.path().join("passing")).wait().expect("it is shared");
    let second = network.share(dir.path().join("kept")).wait().expect("it is shared");
    network.stop();
    drop((handle, second, network));
    let network = start();
    assert!(eventually(|| names(&network) == [kept.clone()]), "{:?}", names(&network));
    let memory = dir.path().join(format!("data/peer-{port}/shares.json"));
    let memory = String::from_utf8(read(&memory)).expect("text");
    assert!(memory.contains("/kept\"") && !memory.contains("passing"), "{memory}");
}

/// Number of entries of this process's `task` or `fd`.
fn count(what: &str) -> usize {
    fs::read_dir(format!("/proc/self/{what}")).map_or(0, Iterator::count)
}

#[test]
fn a_network_that_stops_leaves_no_thread_no_socket_and_no_wait_of_its_shares() {
    let test = "a_network_that_stops_leaves_no_thread_no_socket_and_no_wait_of_its_shares";
    if !runs_alone(&format!("network_shares::{test}")) {
        return;
    }
    let before = (count("task"), count("fd"));
    let slow = Network::builder().share_rates(None, Some(1 << 10));
    let Pair { one, two, dir } = Pair::start(Network::builder(), slow);
    let place = one.endpoint();
    fs::write(dir.path().join("big"), vec![7; 4 << 20]).expect("a file");
    let huge = fs::File::create(dir.path().join("huge")).expect("a file");
    huge.set_len(1 << 40).expect("holes");
    drop(huge);
    let offered = one.share(dir.path().join("big")).wait().expect("it is shared");
    let hashing = one.share(dir.path().join("huge"));
    let fetched = two.fetch(offered.ticket(), dir.path().join("to")).wait().expect("it begins");
    let waiting = fetched.complete();
    assert!(eventually(|| fetched.progress().peers > 0), "they are connected");
    one.stop();
    assert!(matches!(hashing.wait(), Err(ShareError::Failed(_) | ShareError::Stopped)));
    two.stop();
    assert_eq!(waiting.wait(), Err(ShareError::Stopped));
    let late = two.fetch(offered.ticket(), dir.path().join("late")).wait();
    assert_eq!(late.expect_err("it has stopped"), ShareError::Stopped);
    // The handles may outlive their network.
    assert_eq!(fetched.progress().peers, 0);
    assert!(eventually(|| count("task") == before.0), "{before:?}");
    assert!(TcpListener::bind(place.socket_addr()).is_ok(), "the port is free");
    drop((offered, fetched, one, two, dir));
    assert!(eventually(|| (count("task"), count("fd")) == before), "{before:?}");
}
