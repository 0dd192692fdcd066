//! A peer inside the calling process.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::change::Change;
use super::error::{NetworkError, SendError};
use super::message::{Incoming, Message, PeerInfo, Published};
use super::pending::Pending;
use super::queue::Queue;
use super::shares::{Home, Sharing};
use super::subscriptions::Subscriptions;
use crate::machine::Input;
use crate::machine::direct::RetryConfig;
use crate::model::statement::MemberInstance;
use crate::model::{Data, Endpoint, KeyPair, Now, PublicKey};
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::{DialectServers, EventSink};
use crate::runtime::files::DataDir;

/// Longest time for links to drain when the network stops; a goodbye needs milliseconds.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Longest goodbye: it waits until the last messages are with a neighbor.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Topic of direct messages without one.
const DIRECT_TOPIC: &str = "direct";

/// Observer of the driver that forwards events to the subscriptions and the shares.
pub(super) struct Relay {
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) sharing: Arc<Sharing>,
}

impl EventSink<Event> for Relay {
    fn take(&self, now: Now, event: Event) -> bool {
        self.subscriptions.on_event(now, &event);
        self.sharing.on_event(&event);
        true
    }
}

/// One peer of a fleet, inside this process. See the [module](super).
///
/// Dropping a network stops it.
pub struct Network {
    pub(super) peer: Peer,
    /// Thread that carries answers, the lock of the data directory, and the directory itself if it
    /// is temporary; taken by the call that stops the network. `None` for a peer that its program
    /// runs and stops.
    own: Mutex<Option<Own>>,
}

type Own = (JoinHandle<()>, DataDir, Option<TempDir>);

/// Running peer of a network.
#[derive(Clone)]
pub struct Peer {
    /// Listen address of the peer.
    pub endpoint: Endpoint,
    /// Key pair of the peer.
    pub keys: KeyPair,
    /// Driver of the peer's node.
    pub driver: Arc<Driver<PeerNode>>,
    /// Subscriptions of the program to the events of the node.
    pub subscriptions: Arc<Subscriptions>,
    /// Servers of the other dialects at the peer's port.
    pub dialects: DialectServers,
    /// Shares of the peer.
    pub sharing: Arc<Sharing>,
    /// Directory of the peer's data.
    pub dir: PathBuf,
}

impl Peer {
    /// The parts of this peer that a share belongs to.
    pub(super) fn home(&self) -> Home {
        let (sharing, subscriptions) = (Arc::clone(&self.sharing), Arc::clone(&self.subscriptions));
        Home { sharing, subscriptions, node: Arc::clone(&self.driver) }
    }
}

impl Network {
    pub(super) fn new(
        peer: Peer,
        answers: JoinHandle<()>,
        dir: (DataDir, Option<TempDir>),
    ) -> Self {
        Self { peer, own: Mutex::new(Some((answers, dir.0, dir.1))) }
    }

    /// The network of a peer that its program runs and stops; [`Network::stop`] does nothing here.
    pub(crate) const fn of(peer: Peer) -> Self {
        Self { peer, own: Mutex::new(None) }
    }

    /// Listen address of this peer.
    pub const fn endpoint(&self) -> Endpoint {
        self.peer.endpoint
    }

    /// Public key of this peer, by which others know it again.
    pub fn key(&self) -> PublicKey {
        self.peer.keys.public()
    }

    /// Key pair of this peer.
    pub(crate) fn keys(&self) -> KeyPair {
        self.peer.keys.clone()
    }

    /// Servers of the other dialects at the port of this peer.
    pub(crate) const fn dialects(&self) -> &DialectServers {
        &self.peer.dialects
    }

    /// Another handle of the same peer, which does not stop it.
    pub(super) fn handle(&self) -> Arc<Self> {
        Arc::new(Self::of(self.peer.clone()))
    }

    /// Subscribes to the messages of a topic, from now on, this peer's own too. A topic is 1 to 128
    /// bytes without control characters; it exists from its first use.
    ///
    /// The number of subscribers is not limited; each has a queue of its own, of at most 16,384
    /// messages and 64 MiB. A message that finds no room is lost to that subscriber alone, which is
    /// told.
    ///
    /// # Errors
    /// Fails if `topic` is not allowed, or the network has stopped.
    pub fn subscribe(&self, topic: &str) -> Result<Queue<Message>, NetworkError> {
        self.peer.subscriptions.subscribe(topic)
    }

    /// Sends a message to every peer that subscribes to `topic`, now or while it is still held
    /// (4 minutes, and 16 MiB of all messages). Each takes it once, or is told how many it missed.
    ///
    /// Blocks while a peer does not keep up, but for none that stands still longer than 10 s.
    ///
    /// # Errors
    /// Fails if this peer is no member yet, the message is too large (the limit is 1 MiB by
    /// default), or the network has stopped. Nothing was sent then.
    pub fn broadcast(
        &self,
        topic: &str,
        message: impl Into<Data>,
    ) -> Result<Published, NetworkError> {
        self.peer.subscriptions.publish(
            &self.peer.driver,
            (topic.to_owned(), message.into()),
            false,
        )
    }

    /// Sends a message to one peer, neighbor or not. It arrives once or not at all; the outcome
    /// tells which, or that it is unknown.
    ///
    /// The message is taken when it lies in the [`Network::inbox`] of the other end. Failed
    /// attempts are repeated after 1, 2, 4, 8 and 16 seconds.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn send_to_peer(
        &self,
        peer: Endpoint,
        message: impl Into<Data>,
    ) -> Result<Pending<Result<Duration, SendError>>, NetworkError> {
        self.send(peer, DIRECT_TOPIC, message, RetryConfig::default())
    }

    /// As [`Self::send_to_peer`], with a topic, and repeated as `retry` says.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn send(
        &self,
        peer: Endpoint,
        topic: &str,
        message: impl Into<Data>,
        retry: RetryConfig,
    ) -> Result<Pending<Result<Duration, SendError>>, NetworkError> {
        self.peer.subscriptions.send(
            &self.peer.driver,
            peer,
            (topic.to_owned(), message.into()),
            retry,
        )
    }

    /// Opens the queue of direct messages for this peer. Without an open queue none is taken.
    ///
    /// # Errors
    /// Fails if the queue is open already, or the network has stopped.
    pub fn inbox(&self) -> Result<Queue<Incoming>, NetworkError> {
        self.peer.subscriptions.inbox()
    }

    /// Looks for peers that this one was not told of. All that are found have proved their keys.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn discover_peers(
        &self,
    ) -> Result<Pending<Result<Vec<PeerInfo>, NetworkError>>, NetworkError> {
        self.peer.subscriptions.discover(&self.peer.driver)
    }

    /// Keeps a link to `peer` from now on: calls it until it answers, and again if the link is
    /// lost.
    pub fn add_peer(&self, peer: Endpoint) {
        self.peer.driver.submit(Input::Command(Command::AddPeer(peer)));
    }

    /// Ends the link to `peer`; nothing more is sent to it.
    pub fn remove_peer(&self, peer: Endpoint) {
        self.peer.driver.submit(Input::Command(Command::RemovePeer(peer)));
    }

    /// Subscribes to the changes in the fleet that this peer learns of, from now on: whether it is
    /// a member itself, its neighbors, and members that left, were removed or cannot be reached.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn changes(&self) -> Result<Queue<Change>, NetworkError> {
        self.peer.subscriptions.changes()
    }

    /// Subscribes to the members whose removal a quorum of seeds certifies, from now on, as this
    /// peer learns of it: sure only for its neighbors, see [`Network::add_peer`].
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub(super) fn removals(&self) -> Result<Queue<PeerInfo>, NetworkError> {
        self.peer.subscriptions.removals()
    }

    /// The members whose end a quorum of seeds certifies, as far as this peer has heard of it since
    /// it started, ascending by key; but none that it has seen to be a member again, with the same
    /// key and a certificate for a later life. 1,000 at most; none in a fleet without seeds.
    ///
    /// A certificate proves what the seeds decided, not death: a member that was cut off from them
    /// lives on, and other peers may have heard more or less. See [`Network::ask_seeds`].
    pub fn ended(&self) -> Vec<PeerInfo> {
        let known = |it: &MemberInstance| PeerInfo { endpoint: it.endpoint, key: it.key };
        self.peer.driver.inspect(|node, _| node.ended().map(known).collect())
    }

    /// Asks the seeds that this peer is linked with how the member at `peer` stands. Their answers
    /// come in their time, and [`Network::ended`] tells what they prove.
    pub fn ask_seeds(&self, peer: Endpoint) {
        self.peer.driver.submit(Input::Command(Command::AskSeeds(peer)));
    }

    /// Members of the fleet that this peer knows beside itself, ascending by address: those of the
    /// seeds' lists, which it fetches when it joins and each minute, and its neighbors. Of a
    /// large fleet it keeps a sample. See [`Network::changes`] for what happens to them meanwhile.
    pub fn members(&self) -> Vec<Endpoint> {
        self.peer.driver.inspect(|node, _| node.overlay().members().into_iter().collect())
    }

    /// Neighbors: peers at the other end of a lasting link.
    pub fn peers(&self) -> Vec<Endpoint> {
        self.peer.driver.inspect(|node, _| node.overlay().neighbors().keys().copied().collect())
    }

    /// Blocks until there are `wanted` neighbors or more, but no longer than `most`.
    ///
    /// # Errors
    /// Fails if there are fewer then, or the network has stopped.
    pub fn wait_for_peers(&self, wanted: usize, most: Duration) -> Result<(), NetworkError> {
        self.peer.subscriptions.wait_for_neighbors(wanted, most)
    }

    /// Status of the peer, with all its counters.
    pub fn status(&self) -> PeerStatus {
        self.peer.driver.inspect(|node, _| node.status())
    }

    /// Waits until the broadcast messages are with a neighbor, 3 s at most; then says goodbye, and
    /// ends: when this returns, no thread and no socket is left, the port is free, and every wait
    /// has its outcome. A second call does nothing.
    pub fn stop(&self) {
        let own = self.own.lock().expect("nothing can panic here").take();
        let Some((answers, _dir, _scratch)) = own else { return };
        self.peer.driver.submit(Input::Command(Command::Leave));
        self.peer.subscriptions.wait_for_goodbye(GOODBYE_MAX);
        self.peer.driver.stop(STOP_GRACE);
        self.peer.subscriptions.close();
        // The thread has panicked if this fails, and reported that itself.
        let _ = answers.join();
        self.peer.sharing.end();
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("endpoint", &self.peer.endpoint).finish_non_exhaustive()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}
