//! Requests of local programs to a running peer: to publish, subscribe, send and discover.
//!
//! Each is a request through the node's Unix socket and an answer of many lines, one JSON object
//! each; a `NextLine::Idle` in between finds out whether the program is still there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::after;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::direct::RetryConfig;
use crate::model::{Data, Endpoint, MessageId, TicketError, Time};
use crate::network::shares::Sharing;
use crate::network::{
    ByteSize, Incoming, NetworkError, PeerInfo, Pending, Published, Queue, RecvError, Subscriptions,
};
use crate::node::PeerNode;
use crate::runtime::clock::Clock;
use crate::runtime::control::{ControlAnswer, NextLine};
use crate::runtime::driver::Driver;

/// Interval at which an idle answer checks that its reader is there.
const BEAT: Duration = Duration::from_secs(1);

/// Time without a further receipt after which a publisher stops waiting.
const QUIET: Duration = Duration::from_millis(500);

/// Longest time that a publisher may watch.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Request of a local program to a running peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "snake_case")]
pub(in crate::cli) enum ApiRequest {
    /// Subscribe to the messages of a topic, as they come.
    Subscribe { topic: String },
    /// Read the direct messages, as they come.
    Inbox,
    /// Publish a message; then, for `wait_ms` at most, report the number of peers known to have it.
    Publish { topic: String, data: Data, wait_ms: u64 },
    /// Publish messages, in this order, without receipts.
    PublishAll { topic: String, all: Vec<Data> },
    /// Send a message to one member; `retries` attempts after the first.
    Send { to: Endpoint, topic: String, data: Data, retries: u32 },
    /// Find the peers that can be found from here.
    Discover,
    /// Share a file or folder with the fleet; with `everywhere`, all peers are asked to take it.
    Share {
        path: PathBuf,
        piece: Option<u32>,
        everywhere: bool,
        /// True if to read all of it although it seems unchanged.
        #[serde(default)]
        rehash: bool,
    },
    /// Report how many peers have a share that was shared with `everywhere`, until all have or
    /// refuse it.
    Answers { ticket: String, wait_ms: u64 },
    /// End the share of this name.
    Unshare {
        name: String,
        /// True if the other peers are to remove what they have taken of it.
        #[serde(default)]
        everywhere: bool,
    },
    /// List the shares of the fleet.
    Shares,
    /// Announce to the fleet that the asking program serves this ticket, as long as it listens, and
    /// report the other peers that have it.
    Lend { ticket: String },
}

impl ApiRequest {
    /// True if the shares of the peer are used.
    pub(super) const fn is_of_shares(&self) -> bool {
        matches!(
            self,
            Self::Share { .. }
                | Self::Answers { .. }
                | Self::Unshare { .. }
                | Self::Shares
                | Self::Lend { .. }
        )
    }
}

type Node = Arc<Driver<PeerNode>>;

/// Begins to answer a request.
///
/// # Errors
/// The reason why it is not possible.
pub(super) fn begin(
    wanted: ApiRequest,
    (subscriptions, sharing): (&Arc<Subscriptions>, &Arc<Sharing>),
    node: &Node,
) -> Result<ControlAnswer, String> {
    let failed = |error: NetworkError| error.to_string();
    match wanted {
        ApiRequest::Subscribe { topic } => {
            let queue = subscriptions.subscribe(&topic).map_err(failed)?;
            Ok(stream(queue, |it| {
                let age_ms = u64::try_from(it.age.as_millis()).unwrap_or(u64::MAX);
                json!({
                    "id": it.id, "topic": it.topic, "origin": it.origin, "key": it.key,
                    "data": it.data, "age_ms": age_ms, "hops": it.hops,
                })
            }))
        }
        ApiRequest::Inbox => {
            let queue = inbox(subscriptions).map_err(failed)?;
            Ok(stream(queue, |it| json!({ "from": it.from, "topic": it.topic, "data": it.data })))
        }
        ApiRequest::Publish { topic, data, wait_ms } => {
            let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
            Ok(publish_one((topic, data), wait, (subscriptions, node)))
        }
        ApiRequest::PublishAll { topic, all } => Ok(publish_all(topic, all, (subscriptions, node))),
        ApiRequest::Send { to, topic, data, retries } => {
            let retry = RetryConfig { retries, ..RetryConfig::default() };
            let sent = subscriptions.send(node, to, (topic, data), retry).map_err(failed)?;
            Ok(outcome(sent, |sent| match sent {
                Ok(after) => json!({ "taken": true, "after_ms": after.as_secs_f64() * 1e3 }),
                Err(error) => json!({
                    "taken": false, "kind": error.kind, "definite": error.kind.is_definite(),
                    "reason": error.to_string(),
                }),
            }))
        }
        ApiRequest::Share { path, piece, everywhere, rehash } => {
            sharing.begin((path, piece, everywhere, rehash), (subscriptions, node))
        }
        ApiRequest::Answers { ticket, wait_ms } => {
            let ticket = ticket.parse().map_err(|error: TicketError| error.to_string())?;
            sharing.await_answers((ticket, Duration::from_millis(wait_ms)), (subscriptions, node))
        }
        ApiRequest::Unshare { name, everywhere } => {
            sharing.unshare((&name, everywhere), (subscriptions, node))?;
            Ok(ControlAnswer::Line(json!({ "ended": name }).to_string()))
        }
        ApiRequest::Shares => {
            Ok(ControlAnswer::Line(json!({ "shares": sharing.list() }).to_string()))
        }
        ApiRequest::Lend { ticket } => {
            let ticket = ticket.parse().map_err(|error: TicketError| error.to_string())?;
            Ok(sharing.lend(ticket, (subscriptions, node)))
        }
        ApiRequest::Discover => {
            let found = subscriptions.discover(node).map_err(failed)?;
            Ok(outcome(found, |found| match found {
                Ok(peers) => {
                    let peer = |it: &PeerInfo| json!({ "endpoint": it.endpoint, "key": it.key });
                    json!({ "peers": peers.iter().map(peer).collect::<Vec<_>>() })
                }
                Err(error) => json!({ "error": error.to_string() }),
            }))
        }
    }
}

/// A message that is not published before other nodes keep up with those before it.
///
/// The publisher waits in the lines of an answer, where it holds up no other request. Publishing
/// begins with the first line: an answer for which there is no room has published nothing.
struct Underway {
    subscriptions: Arc<Subscriptions>,
    /// `None` once the outcome is known.
    pending: Option<Pending<Result<Published, NetworkError>>>,
}

impl Underway {
    fn begin(
        said: (String, Data),
        receipt: bool,
        (subscriptions, node): (&Arc<Subscriptions>, &Node),
    ) -> Result<Self, NetworkError> {
        let pending = subscriptions.begin_publish(node, said, receipt)?;
        Ok(Self { subscriptions: Arc::clone(subscriptions), pending: Some(pending) })
    }

    /// The outcome, if it comes within a beat.
    fn wait(&mut self) -> Option<Result<Published, NetworkError>> {
        let outcome = self.pending.as_mut()?.wait_timeout(BEAT)?;
        self.pending = None;
        Some(outcome)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        pending.cancel();
        if let Some(Ok(published)) = pending.wait_timeout(Duration::ZERO) {
            self.subscriptions.forget_receipts(published.id);
        }
    }
}

/// Publishes a message, and tells for `wait` at most how many are known to have it.
fn publish_one(
    said: (String, Data),
    wait: Duration,
    (subscriptions, node): (&Arc<Subscriptions>, &Node),
) -> ControlAnswer {
    let (subscriptions, node) = (Arc::clone(subscriptions), Arc::clone(node));
    let (mut said, mut underway, mut watch) = (Some(said), None, None);
    ControlAnswer::Lines(Box::new(move || {
        if let Some(watch) = &mut watch {
            return receipts(watch);
        }
        if let Some(said) = said.take() {
            match Underway::begin(said, true, (&subscriptions, &node)) {
                Ok(begun) => underway = Some(begun),
                Err(error) => return refusal(&error),
            }
        }
        let Some(waiting) = &mut underway else { return NextLine::End };
        let Some(outcome) = waiting.wait() else { return NextLine::Idle };
        underway = None;
        match outcome {
            Err(error) => refusal(&error),
            Ok(Published { id, pushed_to }) => {
                let (subscriptions, clock) = (Arc::clone(&subscriptions), Clock::start());
                watch = Some(Watch { subscriptions, id, clock, wait, known: 0 });
                NextLine::Line(json!({ "id": id, "pushed_to": pushed_to }).to_string())
            }
        }
    }))
}

fn refusal(error: &NetworkError) -> NextLine {
    NextLine::Line(json!({ "error": error.to_string() }).to_string())
}

/// Publishes these in their order, up to the first that is refused.
fn publish_all(
    topic: String,
    all: Vec<Data>,
    (subscriptions, node): (&Arc<Subscriptions>, &Node),
) -> ControlAnswer {
    let (subscriptions, node) = (Arc::clone(subscriptions), Arc::clone(node));
    let (mut left, mut underway, mut published) = (all.into_iter(), None, 0_u64);
    let mut is_over = false;
    ControlAnswer::Lines(Box::new(move || {
        let clock = Clock::start();
        while !is_over && clock.mono().since(Time::ZERO) < BEAT {
            let waiting = match underway.take() {
                Some(waiting) => Ok(waiting),
                None => match left.next() {
                    Some(data) => {
                        Underway::begin((topic.clone(), data), false, (&subscriptions, &node))
                    }
                    None => {
                        is_over = true;
                        return NextLine::Line(json!({ "published": published }).to_string());
                    }
                },
            };
            let outcome = waiting.map(|mut waiting| {
                let outcome = waiting.wait();
                underway = outcome.is_none().then_some(waiting);
                outcome
            });
            match outcome {
                Ok(None) => {}
                Ok(Some(Ok(_))) => published += 1,
                Ok(Some(Err(error))) | Err(error) => {
                    is_over = true;
                    let line = json!({ "published": published, "error": error.to_string() });
                    return NextLine::Line(line.to_string());
                }
            }
        }
        if is_over { NextLine::End } else { NextLine::Idle }
    }))
}

/// Opens the queue of direct messages. A program that has just gone is found out at the next beat:
/// until then its place is not free.
fn inbox(subscriptions: &Arc<Subscriptions>) -> Result<Queue<Incoming>, NetworkError> {
    let clock = Clock::start();
    loop {
        match subscriptions.inbox() {
            Err(NetworkError::InboxTaken) if clock.now().mono.since(Time::ZERO) < BEAT * 2 => {
                // Only the time ends this pause.
                let _ = after(QUIET / 10).recv();
            }
            found => return found,
        }
    }
}

/// Items of a queue, an object each, and the number that was missed between them.
fn stream<T: ByteSize + Send + 'static>(queue: Queue<T>, object: fn(&T) -> Value) -> ControlAnswer {
    let mut greeted = false;
    ControlAnswer::Lines(Box::new(move || {
        if !std::mem::replace(&mut greeted, true) {
            return NextLine::Line(json!({ "ready": true }).to_string());
        }
        match queue.recv_timeout(BEAT) {
            Ok(item) => NextLine::Line(object(&item).to_string()),
            Err(RecvError::Missed(count)) => NextLine::Line(json!({ "missed": count }).to_string()),
            Err(RecvError::Missing { origin, count }) => {
                NextLine::Line(json!({ "missed": count, "of": origin }).to_string())
            }
            Err(RecvError::Empty) => NextLine::Idle,
            Err(RecvError::Closed) => NextLine::End,
        }
    }))
}

/// A publisher that waits for receipts of its message.
struct Watch {
    subscriptions: Arc<Subscriptions>,
    id: MessageId,
    clock: Clock,
    wait: Duration,
    known: u32,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.subscriptions.forget_receipts(self.id);
    }
}

/// Number of peers known to have the message, each time that it rises.
fn receipts(watch: &mut Watch) -> NextLine {
    let left = watch.wait.saturating_sub(watch.clock.now().mono.since(Time::ZERO));
    let patience = left.min(if watch.known > 0 { QUIET } else { BEAT });
    let known = watch.subscriptions.known_to_have(watch.id, watch.known, patience);
    let Some(known) = known else { return NextLine::End };
    if known > watch.known {
        watch.known = known;
        NextLine::Line(json!({ "known": known }).to_string())
    } else if watch.known > 0 || patience == left {
        NextLine::End
    } else {
        NextLine::Idle
    }
}

/// One object, when the outcome is there. A program that goes before cancels its wish.
fn outcome<T: Send + 'static>(pending: Pending<T>, object: fn(T) -> Value) -> ControlAnswer {
    let mut pending = Some(Waiter(pending));
    ControlAnswer::Lines(Box::new(move || {
        let Some(waiter) = &mut pending else { return NextLine::End };
        match waiter.0.wait_timeout(BEAT) {
            None => NextLine::Idle,
            Some(outcome) => {
                pending = None;
                NextLine::Line(object(outcome).to_string())
            }
        }
    }))
}

/// Cancels an operation without an outcome, when dropped.
struct Waiter<T>(Pending<T>);

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use rand::SeedableRng as _;

    use super::*;
    use crate::machine::broadcast;
    use crate::model::{KeyPair, Now, Rng, Ticket};
    use crate::network::shares::Taking;
    use crate::node::peer_kind::Event;
    use crate::runtime::control::{self, Control, ask};
    use crate::runtime::driver::options::{DriverOptions, EventSink};
    use crate::runtime::files::DataDir;
    use crate::runtime::journal::Journal;
    use crate::runtime::thread;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Relay(Arc<Subscriptions>);

    impl EventSink<Event> for Relay {
        fn take(&self, now: Now, event: Event) -> bool {
            self.0.on_event(now, &event)
        }
    }

    /// A peer that is held up: what is published there is not published before its end.
    struct HeldUpPeer {
        subscriptions: Arc<Subscriptions>,
        sharing: Arc<Sharing>,
        node: Node,
        path: PathBuf,
        _control: Control,
        _ground: (DataDir, tempfile::TempDir),
    }

    fn held_up() -> HeldUpPeer {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 1).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let me = Endpoint::from(listener.local_addr().unwrap());
        let (keys, rng) = (KeyPair::from_secret([1; 32]), Rng::seed_from_u64(1));
        let config = crate::node::PeerConfig::default();
        let machine = PeerNode::without_seeds(config, (me, keys), &[], &[], rng);
        let (journal, _, _) = Journal::open(&dir.journal_path()).unwrap();
        let subscriptions = Subscriptions::new(me, false);
        let options = DriverOptions::new(Relay(Arc::clone(&subscriptions)));
        let node = Driver::start(machine, listener, journal, options).unwrap();
        // A node that has stopped decides nothing, as one does that waits for others.
        node.stop(Duration::ZERO);
        let sharing = Sharing::new(me, dir.path(), None, Taking::Apart.into());
        let (switch, shares, driver) =
            (Arc::clone(&subscriptions), Arc::clone(&sharing), Arc::clone(&node));
        let handler = move |request: &str| match serde_json::from_str::<ApiRequest>(request) {
            Ok(wanted) => begin(wanted, (&switch, &shares), &driver)
                .unwrap_or_else(|error| ControlAnswer::Line(json!({ "error": error }).to_string())),
            Err(_) => ControlAnswer::Line(request.to_uppercase()),
        };
        let control = control::serve(&dir, Arc::new(handler)).unwrap();
        let path = dir.control_path();
        HeldUpPeer { subscriptions, sharing, node, path, _control: control, _ground: (dir, root) }
    }

    /// Puts a request; those that are put later are let in later.
    fn put(path: &Path, wanted: &ApiRequest) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{}\n", json!(wanted)).as_bytes()).unwrap();
        BufReader::new(stream)
    }

    #[test]
    fn publishers_that_wait_for_others_hold_up_no_other_command() {
        let peer = held_up();
        let topic = || "topic".to_owned();
        let one = ApiRequest::Publish { topic: topic(), data: Data::from("x"), wait_ms: 0 };
        let all = ApiRequest::PublishAll { topic: topic(), all: vec![Data::from("x"); 3] };
        // More than there are places for requests.
        let wanted = [&one, &all].into_iter().cycle().take(40);
        let waiting: Vec<_> = wanted.map(|it| put(&peer.path, it)).collect();
        assert_eq!(ask(&peer.path, "status", PATIENCE).unwrap(), "STATUS");
        peer.subscriptions.close();
        for answer in waiting {
            let line = answer.lines().map(Result::unwrap).find(|line| !line.is_empty());
            assert!(line.is_some_and(|line| line.contains("error")));
        }
    }

    /// Lends a file to the fleet.
    fn lend(peer: &HeldUpPeer, number: u8) -> BufReader<UnixStream> {
        let ticket = Ticket {
            name: format!("file-{number}"),
            size: 5,
            piece_size: 16_384,
            root: [number; 32],
            files: None,
            traits: crate::model::FileAttributes::default(),
            at: vec![Endpoint::new([127, 0, 0, 1].into(), 9)],
        };
        put(&peer.path, &ApiRequest::Lend { ticket: ticket.to_string() })
    }

    fn await_publishing(peer: &HeldUpPeer, wanted: usize) {
        let clock = Clock::start();
        while peer.subscriptions.publishing() != wanted {
            assert!(clock.mono().since(Time::ZERO) < PATIENCE, "{wanted} messages wait");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_list_of_shares_that_waits_for_others_holds_up_nothing_for_long() {
        let peer = held_up();
        let lent: Vec<_> = (0..20).map(|number| lend(&peer, number)).collect();
        assert_eq!(ask(&peer.path, "status", PATIENCE).unwrap(), "STATUS");
        assert_eq!(
            peer.subscriptions.publishing(),
            1,
            "one list waits, and no second one behind it"
        );
        peer.subscriptions.close();
        drop(lent);
    }

    #[test]
    fn a_list_of_shares_that_could_not_be_told_is_told_when_it_can_be() {
        let peer = held_up();
        let (sharing, subscriptions, node) =
            (Arc::clone(&peer.sharing), Arc::clone(&peer.subscriptions), Arc::clone(&peer.node));
        let shares = thread::spawn("shares", move || sharing.run(&subscriptions, &node)).unwrap();
        let mut lent = lend(&peer, 1);
        await_publishing(&peer, 1);
        // Until its answer has begun: from then on nobody waits for that list.
        assert_eq!(lent.by_ref().lines().next().unwrap().unwrap(), "");
        let id = serde_json::from_value(json!("00".repeat(32))).unwrap();
        for token in 0..9 {
            let event = broadcast::Event::Published { token, id, to: 0 };
            peer.subscriptions.on_event(Now::default(), &Event::Broadcast(event));
        }
        await_publishing(&peer, 1);
        drop(lent);
        peer.subscriptions.close();
        shares.join().unwrap();
    }
}
