//! The fleet as a programmer sees it: topics, direct messages, peers.
//!
//! A [`Network`] is one peer inside the calling process: the same machines, links and identity as
//! the program `peer`. All calls may come from any thread, and none needs an async runtime.
//!
//! ```
//! use folkmoot::Network;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let first = Network::builder().start()?;
//! let other = Network::builder().bootstrap([first.endpoint()]).start()?;
//! let inbox = other.subscribe("consensus")?;
//!
//! first.wait_for_peers(1, std::time::Duration::from_secs(10))?;
//! first.broadcast("consensus", "propose 7")?;
//! let message = inbox.recv()?;
//! assert_eq!((message.origin, &message.data[..]), (first.endpoint(), &b"propose 7"[..]));
//!
//! let answers = first.inbox()?;
//! other.send_to_peer(message.origin, "agreed")?.wait()?;
//! assert_eq!(&answers.recv()?.data[..], b"agreed");
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - A subscriber that does not read harms nobody: its queue is bounded, and it is told how much it
//!   has missed.
//! - Every call that waits for the fleet has an outcome: a definite one, or one that says that
//!   nobody can know.
//! - After [`Network::stop`] no thread and no socket of it is left, and its port is free.

mod builder;
mod error;
mod message;
mod pending;
mod queue;
mod switchboard;

pub use builder::Builder;
pub(crate) use builder::Site;
pub use error::{NetworkError, SendError, StartError};
pub use message::{Incoming, Known, Message, Published};
pub use pending::Pending;
pub use queue::{Gone, Queue, Weigh};
pub use switchboard::Switchboard;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use crate::model::{Data, Endpoint, Now};
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::protocol::Input;
use crate::protocol::direct::RetryConfig;
use crate::protocol::membership::certificate::Subject;
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::Sink;
use crate::runtime::files::DataDir;

/// How long links may take to drain when the network stops; a goodbye needs milliseconds.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Longest goodbye: it waits until the last messages are with a neighbor.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// The topic of direct messages that name none.
const DIRECT_TOPIC: &str = "direct";

/// The driver's way to the switchboard.
struct Relay(Arc<Switchboard>);

impl Sink<Event> for Relay {
    fn take(&self, now: Now, event: Event) -> bool {
        self.0.on_event(now, &event);
        true
    }
}

/// One peer of a fleet, inside this process. See the [module](self).
///
/// Dropping it stops it.
pub struct Network {
    endpoint: Endpoint,
    driver: Arc<Driver<PeerNode>>,
    board: Arc<Switchboard>,
    /// Taken by whoever stops the network.
    answers: Mutex<Option<JoinHandle<()>>>,
    /// The lock of the data directory, and the directory if nobody named one.
    _ground: (DataDir, Option<TempDir>),
}

impl Network {
    /// A network to be configured and started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn new(
        (endpoint, driver, board): (Endpoint, Arc<Driver<PeerNode>>, Arc<Switchboard>),
        answers: JoinHandle<()>,
        ground: (DataDir, Option<TempDir>),
    ) -> Self {
        let answers = Mutex::new(Some(answers));
        Self { endpoint, driver, board, answers, _ground: ground }
    }

    /// Where this peer listens.
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The messages of a topic, from now on, this peer's own too. A topic is 1 to 128 bytes without
    /// control characters; it exists as soon as somebody names it.
    ///
    /// Any number may subscribe; each has a queue of its own, of 16,384 messages and 64 MiB at
    /// most. What finds no room is lost to that subscriber alone, who is told.
    ///
    /// # Errors
    /// When `topic` is none, or the network has stopped.
    pub fn subscribe(&self, topic: &str) -> Result<Queue<Message>, NetworkError> {
        self.board.subscribe(topic)
    }

    /// Sends a message to every peer that subscribes to `topic`, now or while it is still held
    /// (4 minutes, and 16 MiB of all messages). Each takes it once, or is told how many it missed.
    ///
    /// Blocks while a peer does not keep up, but for none that stands still longer than 10 s.
    ///
    /// # Errors
    /// When this peer is no member yet, the message is too large (1 MiB unless told otherwise), or
    /// the network has stopped. Nothing was sent then.
    pub fn broadcast(
        &self,
        topic: &str,
        message: impl Into<Data>,
    ) -> Result<Published, NetworkError> {
        self.board.publish(&self.driver, (topic.to_owned(), message.into()), false)
    }

    /// Sends a message to one peer, neighbor or not. It arrives once or not at all; the outcome
    /// tells which, or that nobody can know.
    ///
    /// It is taken when it lies in the [`Network::inbox`] of the other end. Attempts that come to
    /// nothing are repeated after 1, 2, 4, 8 and 16 seconds.
    ///
    /// # Errors
    /// When the network has stopped.
    pub fn send_to_peer(
        &self,
        peer: Endpoint,
        message: impl Into<Data>,
    ) -> Result<Pending<Result<Duration, SendError>>, NetworkError> {
        self.send(peer, DIRECT_TOPIC, message, RetryConfig::default())
    }

    /// The same about a topic, repeated as `retry` says.
    ///
    /// # Errors
    /// When the network has stopped.
    pub fn send(
        &self,
        peer: Endpoint,
        topic: &str,
        message: impl Into<Data>,
        retry: RetryConfig,
    ) -> Result<Pending<Result<Duration, SendError>>, NetworkError> {
        self.board.send(&self.driver, peer, (topic.to_owned(), message.into()), retry)
    }

    /// The direct messages for this peer. While nobody holds it, none is taken.
    ///
    /// # Errors
    /// When somebody holds it already, or the network has stopped.
    pub fn inbox(&self) -> Result<Queue<Incoming>, NetworkError> {
        self.board.inbox()
    }

    /// Looks for peers that this one was not told of. All that are found have proved their keys.
    ///
    /// # Errors
    /// When the network has stopped.
    pub fn discover_peers(
        &self,
    ) -> Result<Pending<Result<Vec<Known>, NetworkError>>, NetworkError> {
        self.board.discover(&self.driver)
    }

    /// Keeps a link to `peer` from now on: it is called until it answers, and again when it is
    /// lost.
    pub fn add_peer(&self, peer: Endpoint) {
        self.driver.submit(Input::Command(Command::AddPeer(peer)));
    }

    /// Ends the link to `peer`; nothing more is sent to it.
    pub fn remove_peer(&self, peer: Endpoint) {
        self.driver.submit(Input::Command(Command::RemovePeer(peer)));
    }

    /// The members whose end a quorum of seeds certifies, from now on, as this peer hears of it:
    /// that is sure for its neighbors, see [`Network::add_peer`].
    ///
    /// # Errors
    /// When the network has stopped.
    pub fn removals(&self) -> Result<Queue<Known>, NetworkError> {
        self.board.removals()
    }

    /// The members whose end a quorum of seeds certifies, as far as this peer has heard of it since
    /// it started, ascending by key; but none that it has seen to be a member again, with the same
    /// key and a certificate for a later life. 1,000 at most; none in a fleet without seeds.
    ///
    /// A certificate proves what the seeds decided, not death: a member that was cut off from them
    /// lives on, and other peers may have heard more or less. See [`Network::ask_seeds`].
    pub fn ended(&self) -> Vec<Known> {
        let known = |it: &Subject| Known { endpoint: it.endpoint, key: it.key };
        self.driver.inspect(|node, _| node.ended().map(known).collect())
    }

    /// Asks the seeds that this peer is linked with how the member at `peer` stands. Their answers
    /// come in their time, and [`Network::ended`] tells what they prove.
    pub fn ask_seeds(&self, peer: Endpoint) {
        self.driver.submit(Input::Command(Command::AskSeeds(peer)));
    }

    /// The neighbors: peers at the other end of a lasting link.
    pub fn peers(&self) -> Vec<Endpoint> {
        self.driver.inspect(|node, _| node.overlay().neighbors().keys().copied().collect())
    }

    /// Blocks until there are `wanted` neighbors or more, but no longer than `most`.
    ///
    /// # Errors
    /// When there are fewer then, or the network has stopped.
    pub fn wait_for_peers(&self, wanted: usize, most: Duration) -> Result<(), NetworkError> {
        self.board.wait_for_neighbors(wanted, most)
    }

    /// What the peer is doing, with all its counters.
    pub fn status(&self) -> PeerStatus {
        self.driver.inspect(|node, _| node.status())
    }

    /// Waits until what was broadcast is with a neighbor, 3 s at most; then says goodbye, and ends:
    /// when this returns, no thread and no socket is left, the port is free, and every wait has its
    /// outcome. A second call does nothing.
    pub fn stop(&self) {
        let Some(answers) = self.answers.lock().expect("nothing can panic here").take() else {
            return;
        };
        self.driver.submit(Input::Command(Command::Leave));
        self.board.wait_for_goodbye(GOODBYE_MAX);
        self.driver.stop(STOP_GRACE);
        self.board.close();
        // It has panicked if this fails, and said so itself.
        let _ = answers.join();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}
