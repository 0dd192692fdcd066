//! Subscriptions of an application to the events of one node, and its waits for their outcomes.
//!
//! The driver passes every event on, under the node's lock, so that no event is lost on the way
//! to a queue whose reader is told of every gap. The call never blocks, and answers to the node go
//! through a thread of their own.

mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::change::Change;
use super::error::{NetworkError, SendError};
use super::message::{Incoming, Message, PeerInfo, Published};
use super::pending::{Cell, Pending};
use super::queue::{QUEUE_BYTES_MAX, QUEUE_ITEMS_MAX, Queue, Readers, Shared};
use crate::machine::broadcast::{self, Delivered};
use crate::machine::{Input, direct, discovery, overlay};
use crate::model::{Data, Endpoint, MessageId, Now, PublicKey, Time, topic_complaint};
use crate::node::PeerNode;
use crate::node::peer_kind::{Command, Event};
use crate::runtime::channel::{BoundedSender, channel};
use crate::runtime::driver::Driver;

/// Largest number of answers on their way to the node: more than it has open questions.
const ANSWERS_MAX: usize = 4_096;

type SendCell = Arc<Cell<Result<Duration, SendError>>>;
type PublishOutcome = Result<Published, NetworkError>;
type DiscoverCell = Arc<Cell<Result<Vec<PeerInfo>, NetworkError>>>;

#[derive(Default)]
struct State {
    token: u64,
    is_closed: bool,
    /// The node has said goodbye.
    is_gone: bool,
    topics: BTreeMap<String, BTreeMap<u64, Arc<Shared<Message>>>>,
    inbox: Option<Arc<Shared<Incoming>>>,
    unread_limiter: UnreadLimiter,
    publishing: BTreeMap<u64, Publishing>,
    sending: BTreeMap<u64, SendCell>,
    discovering: BTreeMap<u64, DiscoverCell>,
    /// Number of peers known to have each own message with a receipt.
    receipts: BTreeMap<MessageId, u32>,
    neighbors: BTreeSet<Endpoint>,
}

/// An own message that is not published yet.
struct Publishing {
    cell: Arc<Cell<PublishOutcome>>,
    /// True if its publisher watches who has it.
    is_watched: bool,
    topic: String,
    data: Data,
    key: PublicKey,
}

impl State {
    fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }
}

/// Unread messages that a log shows in each [`SHOWN_SPAN`].
const SHOWN_MAX: u32 = 60;

const SHOWN_SPAN: Duration = Duration::from_secs(10);

/// Subscriptions to the events of one node, and all waits for their outcomes.
pub struct Subscriptions {
    waiting: Mutex<State>,
    /// Signaled when a neighbor was won, more peers have a message, or the node has said goodbye or
    /// stopped.
    moved: Condvar,
    /// Queue of answers; `None` once the subscriptions are closed, which ends the thread that
    /// carries them.
    answers: Mutex<Option<BoundedSender<Command>>>,
    answering: Receiver<Command>,
    me: Endpoint,
    /// True if direct messages are taken without a reader: the log shows them.
    takes_unread: bool,
    removals: Readers<PeerInfo>,
    changes: Readers<Change>,
}

/// Rate limit of the unread messages that a log shows, so that they fill no disk: so many in each
/// span.
#[derive(Default)]
struct UnreadLimiter {
    since: Time,
    count: u32,
}

impl UnreadLimiter {
    fn takes(&mut self, now: Time) -> bool {
        if now.since(self.since) >= SHOWN_SPAN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= SHOWN_MAX
    }
}

impl Subscriptions {
    /// The subscriptions of the peer at `me`, without any waits. With `takes_unread`, direct
    /// messages are taken without a reader.
    pub fn new(me: Endpoint, takes_unread: bool) -> Arc<Self> {
        let (answers, answering) = channel(ANSWERS_MAX);
        let waiting = Mutex::new(State::default());
        let (moved, answers) = (Condvar::new(), Mutex::new(Some(answers)));
        let (removals, changes) = (Readers::default(), Readers::default());
        Arc::new(Self { waiting, moved, answers, answering, me, takes_unread, removals, changes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.waiting.lock().expect("nothing under this lock can panic")
    }

    fn lock_answers(&self) -> MutexGuard<'_, Option<BoundedSender<Command>>> {
        self.answers.lock().expect("nothing under this lock can panic")
    }

    /// Channel of the answers that are to be carried to the node; it ends when the subscriptions
    /// are closed.
    pub fn answering(&self) -> Receiver<Command> {
        self.answering.clone()
    }

    /// Passes an event to the waits for it. Neither blocks nor calls the node. Returns whether the
    /// event belongs in a log: messages that a program reads or that were not taken do not.
    pub fn on_event(&self, now: Now, event: &Event) -> bool {
        let is_logged = self.pass_on(now, event);
        if let Some(change) = Change::of(event) {
            let waiting = self.lock();
            let is_unlinked = matches!(change, Change::Unlinked(_));
            let alone = (is_unlinked && waiting.neighbors.is_empty()).then_some(Change::Alone);
            if let Change::Removed(known) = &change {
                self.removals.push(known);
            }
            self.changes.push(&change);
            alone.iter().for_each(|it| _ = self.changes.push(it));
        }
        is_logged
    }

    fn pass_on(&self, now: Now, event: &Event) -> bool {
        match event {
            Event::Broadcast(event) => self.on_broadcast(event),
            Event::Direct(event) => return self.on_direct(now, event),
            Event::Discovery(discovery::Event::Discovered { token, peers }) => {
                let cell = self.lock().discovering.remove(token);
                let known = |it: &discovery::DiscoveredPeer| PeerInfo {
                    endpoint: it.endpoint,
                    key: it.key,
                };
                if let Some(cell) = cell {
                    cell.put(Ok(peers.iter().map(known).collect()));
                }
            }
            Event::Overlay(overlay::Event::Linked { neighbor, .. }) => {
                self.lock().neighbors.insert(*neighbor);
                self.moved.notify_all();
            }
            Event::Overlay(overlay::Event::Unlinked { neighbor, .. }) => {
                self.lock().neighbors.remove(neighbor);
            }
            Event::Gone => {
                self.lock().is_gone = true;
                self.moved.notify_all();
            }
            Event::Started { .. }
            | Event::Applicant(_)
            | Event::Overlay(_)
            | Event::Gossip { .. }
            | Event::Liveness(_)
            | Event::Contacts(_)
            | Event::Discovery(_)
            | Event::Open(_)
            | Event::ListsDiffer(_)
            | Event::MemberLeft(_)
            | Event::MemberRemoved { .. }
            | Event::SharedKey { .. }
            | Event::Refused(_) => {}
        }
        true
    }

    /// Blocks until the node has `wanted` neighbors or more, but no longer than `most`.
    ///
    /// # Errors
    /// Fails if the node has fewer neighbors then, or the network has stopped.
    pub fn wait_for_neighbors(&self, wanted: usize, most: Duration) -> Result<(), NetworkError> {
        let is_short = |it: &mut State| !it.is_closed && it.neighbors.len() < wanted;
        let waited = self.moved.wait_timeout_while(self.lock(), most, is_short);
        let (waiting, _) = waited.expect("nothing under this lock can panic");
        if waiting.is_closed {
            Err(NetworkError::Stopped)
        } else if waiting.neighbors.len() < wanted {
            let found = waiting.neighbors.len();
            Err(NetworkError::TimedOut(format!("{found} of {wanted} wanted neighbors")))
        } else {
            Ok(())
        }
    }

    /// Blocks until the node has said goodbye, but no longer than `most`.
    pub fn wait_for_goodbye(&self, most: Duration) {
        let is_there = |it: &mut State| !it.is_gone;
        drop(self.moved.wait_timeout_while(self.lock(), most, is_there));
    }

    fn on_broadcast(&self, event: &broadcast::Event) {
        match event {
            broadcast::Event::Delivered { message, .. } => self.deliver(message),
            broadcast::Event::Published { token, id, to } => {
                let mut waiting = self.lock();
                let Some(own) = waiting.publishing.remove(token) else { return };
                if own.is_watched {
                    waiting.receipts.insert(*id, 0);
                }
                Self::spread(&waiting, &own.topic, || Message {
                    id: *id,
                    topic: own.topic.clone(),
                    origin: self.me,
                    key: own.key,
                    data: own.data.clone(),
                    age: Duration::ZERO,
                    hops: 0,
                });
                // Under the lock: a publisher that gives up finds the outcome, or is waited for.
                own.cell.put(Ok(Published { id: *id, pushed_to: *to }));
            }
            broadcast::Event::PublishRefused { token, reason } => {
                let publisher = self.lock().publishing.remove(token);
                if let Some(own) = publisher {
                    own.cell.put(Err(NetworkError::NotPublished(reason.clone())));
                }
            }
            broadcast::Event::Receipts { id, count } => {
                if let Some(known) = self.lock().receipts.get_mut(id) {
                    *known = (*known).max(*count);
                    self.moved.notify_all();
                }
            }
            broadcast::Event::Missed { origin, count } => {
                for queue in self.lock().topics.values().flat_map(BTreeMap::values) {
                    queue.push_missing(*origin, *count);
                }
            }
            broadcast::Event::Malformed { .. } => {}
        }
    }

    fn deliver(&self, message: &Delivered) {
        Self::spread(&self.lock(), &message.topic, || Message {
            id: message.id,
            topic: message.topic.clone(),
            origin: message.origin,
            key: message.key,
            data: message.data.clone(),
            age: Duration::from_millis(message.age_ms),
            hops: message.hops,
        });
    }

    fn spread(waiting: &State, topic: &str, message: impl Fn() -> Message) {
        for queue in waiting.topics.get(topic).into_iter().flat_map(BTreeMap::values) {
            queue.push(message());
        }
    }

    fn on_direct(&self, now: Now, event: &direct::Event) -> bool {
        match event {
            direct::Event::Arrived { from, number, topic, data } => {
                let mut waiting = self.lock();
                let inbox = waiting.inbox.clone();
                let is_shown = inbox.is_none() && self.takes_unread;
                let has_room = is_shown && waiting.unread_limiter.takes(now.mono);
                drop(waiting);
                let (taken, reason) = match inbox {
                    Some(inbox) => {
                        let (from, topic, data) = (*from, topic.clone(), data.clone());
                        let has_room = inbox.push(Incoming { from, topic, data });
                        (has_room, if has_room { "" } else { "busy: its inbox is full" })
                    }
                    None if has_room => (true, ""),
                    None if is_shown => {
                        (false, "nobody reads there, and its log shows no more now")
                    }
                    None => (false, "nobody reads direct messages there"),
                };
                let reason = if taken { String::new() } else { reason.to_owned() };
                let answer = Command::Answer { from: *from, number: *number, taken, reason };
                // Without room there is no answer, and the sender learns that none was given.
                if let Some(answers) = &*self.lock_answers() {
                    answers.send(answer);
                }
                return has_room;
            }
            direct::Event::Sent { token, after, .. } => {
                let cell = self.lock().sending.remove(token);
                if let Some(cell) = cell {
                    cell.put(Ok(*after));
                }
            }
            direct::Event::Failed { token, kind, reason, .. } => {
                let cell = self.lock().sending.remove(token);
                if let Some(cell) = cell {
                    cell.put(Err(SendError { kind: *kind, reason: reason.clone() }));
                }
            }
            // Orders to the node, carried out before this call; and events for its log.
            direct::Event::Call { .. }
            | direct::Event::Hangup { .. }
            | direct::Event::Malformed { .. }
            | direct::Event::Busy { .. }
            | direct::Event::Lapsed { .. } => {}
        }
        true
    }

    /// Opens a queue for the messages of a topic from now on.
    ///
    /// # Errors
    /// Fails if `topic` is not allowed, or the network has stopped.
    pub fn subscribe(self: &Arc<Self>, topic: &str) -> Result<Queue<Message>, NetworkError> {
        if topic_complaint(topic).is_some() {
            return Err(NetworkError::Topic);
        }
        let shared = Shared::new(QUEUE_ITEMS_MAX, QUEUE_BYTES_MAX);
        let token = self.enlist(|waiting, token| {
            let queues = waiting.topics.entry(topic.to_owned()).or_default();
            queues.insert(token, Arc::clone(&shared));
        })?;
        let (subscriptions, topic) = (Arc::downgrade(self), topic.to_owned());
        Ok(Queue::new(shared, move || {
            let Some(subscriptions) = subscriptions.upgrade() else { return };
            let mut waiting = subscriptions.lock();
            if let Some(queues) = waiting.topics.get_mut(&topic) {
                queues.remove(&token);
                if queues.is_empty() {
                    waiting.topics.remove(&topic);
                }
            }
        }))
    }

    /// Opens the queue of direct messages; there is one.
    ///
    /// # Errors
    /// Fails if the queue is open already, or the network has stopped.
    pub fn inbox(self: &Arc<Self>) -> Result<Queue<Incoming>, NetworkError> {
        let shared = Shared::new(QUEUE_ITEMS_MAX, QUEUE_BYTES_MAX);
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(NetworkError::Stopped);
        }
        if waiting.inbox.is_some() {
            return Err(NetworkError::InboxTaken);
        }
        waiting.inbox = Some(Arc::clone(&shared));
        drop(waiting);
        let subscriptions = Arc::downgrade(self);
        Ok(Queue::new(shared, move || {
            if let Some(subscriptions) = subscriptions.upgrade() {
                subscriptions.lock().inbox = None;
            }
        }))
    }

    /// Opens a queue for the members whose removal a quorum of seeds certifies, from now on.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn removals(&self) -> Result<Queue<PeerInfo>, NetworkError> {
        self.removals.open()
    }

    /// Opens a queue for changes in the fleet from now on.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn changes(&self) -> Result<Queue<Change>, NetworkError> {
        self.changes.open()
    }

    /// Registers a wait under a new token.
    fn enlist(&self, add: impl FnOnce(&mut State, u64)) -> Result<u64, NetworkError> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(NetworkError::Stopped);
        }
        let token = waiting.next_token();
        add(&mut waiting, token);
        Ok(token)
    }

    /// Sends a message to one member.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn send(
        &self,
        driver: &Arc<Driver<PeerNode>>,
        to: Endpoint,
        (topic, data): (String, Data),
        retry: direct::RetryConfig,
    ) -> Result<Pending<Result<Duration, SendError>>, NetworkError> {
        let cell = Cell::new();
        let token =
            self.enlist(|waiting, token| _ = waiting.sending.insert(token, Arc::clone(&cell)))?;
        driver.submit(Input::Command(Command::Send { token, to, topic, data, retry }));
        let driver = Arc::clone(driver);
        let cancel = move || driver.submit(Input::Command(Command::CancelSend { token }));
        Ok(Pending::new(cell, Some(Box::new(cancel))))
    }

    /// Looks for peers.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn discover(
        &self,
        driver: &Arc<Driver<PeerNode>>,
    ) -> Result<Pending<Result<Vec<PeerInfo>, NetworkError>>, NetworkError> {
        let cell = Cell::new();
        let token =
            self.enlist(|waiting, token| _ = waiting.discovering.insert(token, Arc::clone(&cell)))?;
        driver.submit(Input::Command(Command::Discover { token }));
        Ok(Pending::new(cell, None))
    }

    /// Ends every wait: the node has stopped.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let ended = std::mem::take(&mut *waiting);
        waiting.is_closed = true;
        drop(waiting);
        ended.topics.values().flat_map(BTreeMap::values).for_each(|queue| queue.close());
        ended.inbox.iter().for_each(|inbox| inbox.close());
        self.removals.close();
        self.changes.close();
        self.moved.notify_all();
        for own in ended.publishing.values() {
            own.cell.put(Err(NetworkError::Stopped));
        }
        for cell in ended.discovering.values() {
            cell.put(Err(NetworkError::Stopped));
        }
        for cell in ended.sending.values() {
            let (kind, reason) = (direct::FailKind::Unknown, "this network has stopped".to_owned());
            cell.put(Err(SendError { kind, reason }));
        }
        *self.lock_answers() = None;
    }
}
