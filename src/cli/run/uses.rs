//! Uses of a running peer by local programs: to publish, subscribe, send and discover.
//!
//! Each is a request through the node's Unix socket and an answer of many lines, one JSON object
//! each; a `Next::Idle` in between finds out whether the program is still there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::after;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shares::Sharing;
use crate::model::{Data, Endpoint, MessageId, TicketError, Time};
use crate::network::{Gone, Incoming, Known, NetworkError, Pending, Queue, Switchboard, Weigh};
use crate::node::PeerNode;
use crate::protocol::direct::RetryConfig;
use crate::runtime::clock::Clock;
use crate::runtime::control::{Answer, Next};
use crate::runtime::driver::Driver;

/// Interval at which an idle answer checks that its reader is there.
const BEAT: Duration = Duration::from_secs(1);

/// Time without a further receipt after which a publisher stops waiting.
const QUIET: Duration = Duration::from_millis(500);

/// Longest time that a publisher may watch.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Use of a peer by a local program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "snake_case")]
pub(in crate::cli) enum Use {
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
        /// Whether to read all of it although it seems unchanged.
        #[serde(default)]
        rehash: bool,
    },
    /// Report how many peers have a share that was shared with `everywhere`, until all have or
    /// refuse it.
    Answers { ticket: String, wait_ms: u64 },
    /// End the share of this name.
    Unshare {
        name: String,
        /// Whether the other peers are to remove what they have taken of it.
        #[serde(default)]
        everywhere: bool,
    },
    /// List the shares of the fleet.
    Shares,
    /// Announce to the fleet that the asking program serves this ticket, as long as it listens, and
    /// report the other peers that have it.
    Lend { ticket: String },
}

type Node = Arc<Driver<PeerNode>>;

/// Begins a use.
///
/// # Errors
/// The reason why it is not possible.
pub(super) fn begin(
    wanted: Use,
    (board, sharing): (&Arc<Switchboard>, &Arc<Sharing>),
    node: &Node,
) -> Result<Answer, String> {
    let failed = |error: NetworkError| error.to_string();
    match wanted {
        Use::Subscribe { topic } => {
            let queue = board.subscribe(&topic).map_err(failed)?;
            Ok(stream(queue, |it| {
                let age_ms = u64::try_from(it.age.as_millis()).unwrap_or(u64::MAX);
                json!({
                    "id": it.id, "topic": it.topic, "origin": it.origin, "key": it.key,
                    "data": it.data, "age_ms": age_ms, "hops": it.hops,
                })
            }))
        }
        Use::Inbox => {
            let queue = inbox(board).map_err(failed)?;
            Ok(stream(queue, |it| json!({ "from": it.from, "topic": it.topic, "data": it.data })))
        }
        Use::Publish { topic, data, wait_ms } => {
            let published = board.publish(node, (topic, data), true).map_err(failed)?;
            let head = json!({ "id": published.id, "pushed_to": published.pushed_to });
            let watch = Watch {
                board: Arc::clone(board),
                id: published.id,
                clock: Clock::start(),
                wait: Duration::from_millis(wait_ms).min(WAIT_MAX),
                known: 0,
            };
            Ok(receipts(&head, watch))
        }
        Use::PublishAll { topic, all } => Ok(publish_all(&topic, &all, (board, node))),
        Use::Send { to, topic, data, retries } => {
            let retry = RetryConfig { retries, ..RetryConfig::default() };
            let sent = board.send(node, to, (topic, data), retry).map_err(failed)?;
            Ok(outcome(sent, |sent| match sent {
                Ok(after) => json!({ "taken": true, "after_ms": after.as_secs_f64() * 1e3 }),
                Err(error) => json!({
                    "taken": false, "kind": error.kind, "definite": error.kind.is_definite(),
                    "reason": error.to_string(),
                }),
            }))
        }
        Use::Share { path, piece, everywhere, rehash } => {
            sharing.begin((path, piece, everywhere, rehash), (board, node))
        }
        Use::Answers { ticket, wait_ms } => {
            let ticket = ticket.parse().map_err(|error: TicketError| error.to_string())?;
            sharing.await_answers((ticket, Duration::from_millis(wait_ms)), (board, node))
        }
        Use::Unshare { name, everywhere } => {
            sharing.unshare((&name, everywhere), (board, node))?;
            Ok(Answer::Line(json!({ "ended": name }).to_string()))
        }
        Use::Shares => Ok(Answer::Line(json!({ "shares": sharing.list() }).to_string())),
        Use::Lend { ticket } => {
            let ticket = ticket.parse().map_err(|error: TicketError| error.to_string())?;
            Ok(sharing.lend(ticket, (board, node)))
        }
        Use::Discover => {
            let found = board.discover(node).map_err(failed)?;
            Ok(outcome(found, |found| match found {
                Ok(peers) => {
                    let peer = |it: &Known| json!({ "endpoint": it.endpoint, "key": it.key });
                    json!({ "peers": peers.iter().map(peer).collect::<Vec<_>>() })
                }
                Err(error) => json!({ "error": error.to_string() }),
            }))
        }
    }
}

/// Publishes these in their order, up to the first that is refused.
fn publish_all(topic: &str, all: &[Data], (board, node): (&Arc<Switchboard>, &Node)) -> Answer {
    for (published, data) in all.iter().enumerate() {
        if let Err(error) = board.publish(node, (topic.to_owned(), data.clone()), false) {
            let line = json!({ "published": published, "error": error.to_string() });
            return Answer::Line(line.to_string());
        }
    }
    Answer::Line(json!({ "published": all.len() }).to_string())
}

/// Opens the queue of direct messages. A program that has just gone is found out at the next beat:
/// until then its place is not free.
fn inbox(board: &Arc<Switchboard>) -> Result<Queue<Incoming>, NetworkError> {
    let clock = Clock::start();
    loop {
        match board.inbox() {
            Err(NetworkError::InboxTaken) if clock.now().mono.since(Time::ZERO) < BEAT * 2 => {
                // Only the time ends this pause.
                let _ = after(QUIET / 10).recv();
            }
            found => return found,
        }
    }
}

/// Items of a queue, an object each, and the number that was missed between them.
fn stream<T: Weigh + Send + 'static>(queue: Queue<T>, object: fn(&T) -> Value) -> Answer {
    let mut greeted = false;
    Answer::Lines(Box::new(move || {
        if !std::mem::replace(&mut greeted, true) {
            return Next::Line(json!({ "ready": true }).to_string());
        }
        match queue.recv_timeout(BEAT) {
            Ok(item) => Next::Line(object(&item).to_string()),
            Err(Gone::Missed(count)) => Next::Line(json!({ "missed": count }).to_string()),
            Err(Gone::Missing { origin, count }) => {
                Next::Line(json!({ "missed": count, "of": origin }).to_string())
            }
            Err(Gone::Empty) => Next::Idle,
            Err(Gone::Closed) => Next::End,
        }
    }))
}

/// A publisher that waits for receipts of its message.
struct Watch {
    board: Arc<Switchboard>,
    id: MessageId,
    clock: Clock,
    wait: Duration,
    known: u32,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.board.forget_receipts(self.id);
    }
}

/// The published message, and then each rise of the number of peers known to have it.
fn receipts(head: &Value, mut watch: Watch) -> Answer {
    let mut head = Some(head.to_string());
    Answer::Lines(Box::new(move || {
        if let Some(head) = head.take() {
            return Next::Line(head);
        }
        let left = watch.wait.saturating_sub(watch.clock.now().mono.since(Time::ZERO));
        let patience = left.min(if watch.known > 0 { QUIET } else { BEAT });
        let known = watch.board.known_to_have(watch.id, watch.known, patience);
        let Some(known) = known else { return Next::End };
        if known > watch.known {
            watch.known = known;
            Next::Line(json!({ "known": known }).to_string())
        } else if watch.known > 0 || patience == left {
            Next::End
        } else {
            Next::Idle
        }
    }))
}

/// One object, when the outcome is there. A program that goes before cancels its wish.
fn outcome<T: Send + 'static>(pending: Pending<T>, object: fn(T) -> Value) -> Answer {
    let mut pending = Some(Waiter(pending));
    Answer::Lines(Box::new(move || {
        let Some(waiter) = &mut pending else { return Next::End };
        match waiter.0.wait_timeout(BEAT) {
            None => Next::Idle,
            Some(outcome) => {
                pending = None;
                Next::Line(object(outcome).to_string())
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
