//! Programming interface of the fleet: topics, direct messages, peers.
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
//! // The same without blocking a thread: `inbox.recv_async().await?`.
//! let answers = first.inbox()?;
//! other.send_to_peer(message.origin, "agreed")?.wait()?;
//! assert_eq!(&answers.recv()?.data[..], b"agreed");
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - A subscriber that does not read harms no other: its queue is bounded, and it is told the
//!   number of messages it has missed.
//! - Every call that waits for the fleet has an outcome: a definite one, or one that says that the
//!   result is unknown.
//! - After [`Network::stop`] no thread and no socket of the network is left, and its port is free.

mod builder;
mod change;
#[doc(hidden)]
pub mod chat;
mod error;
mod group;
mod message;
pub mod order;
mod peer;
mod pending;
mod queue;
#[doc(hidden)]
pub mod rollout;
mod share;
pub mod shares;
mod subscriptions;

pub use builder::Builder;
pub use change::Change;
pub use chat::{Chat, ChatBuilder, ChatError, ChatMessage};
pub use error::{NetworkError, SendError, StartError};
pub use message::{Incoming, Message, PeerInfo, Published};
pub use order::{
    Follower, NoEntry, Order, OrderEntry, OrderError, OrderRoster, OrderStanding, OrderedLog,
    Place, Placed,
};
pub use peer::Network;
#[doc(hidden)]
pub use peer::Peer;
pub use pending::Pending;
pub use queue::{ByteSize, Queue, RecvError};
pub use rollout::{Rollout, RolloutBuilder, RolloutEvent, RolloutOrder, RolloutOutcome};
pub use shares::{KnownShare, Share, ShareError};
pub use subscriptions::Subscriptions;
