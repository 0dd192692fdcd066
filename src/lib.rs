//! A fleet of machines that decides together, with no central server.
//!
//! A [`Network`] is one peer of a fleet inside the calling program. Its members broadcast on topics
//! and send each other direct messages; a [`Chat`] puts texts into one order for all of them, an
//! [`OrderedLog`] does so although some of them lie, and a [`Rollout`] moves all of them from one
//! version of a service to the next, a little at a time.
//!
//! ```
//! use std::time::Duration;
//!
//! use folkmoot::Network;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two members of a fleet, which could as well be on two machines.
//! let first = Network::builder().start()?;
//! let other = Network::builder().bootstrap([first.endpoint()]).start()?;
//! first.wait_for_peers(1, Duration::from_secs(10))?;
//!
//! // A message to all who subscribe to its topic.
//! let news = other.subscribe("news")?;
//! first.broadcast("news", "hello")?;
//! assert_eq!(&news.recv()?.data[..], b"hello");
//!
//! // One order of texts for all members; each is on the disks of a majority.
//! let chat = first.chat(1).start()?;
//! let number = chat.say("settled").wait()?;
//! assert_eq!(&*chat.history(number, 1)?[0].text, "settled");
//! # Ok(())
//! # }
//! ```
//!
//! All calls may come from any thread and need no async runtime; what comes later can be awaited as
//! well as waited for ([`Pending`], [`Queue`]).
//!
//! A program that only needs the library depends on it with `default-features = false`: the feature
//! `cli` is for the programs `seed` and `peer`, and brings the crates of their command line.
//!
//! The programs `seed` and `peer` are made of the same parts, which are hidden here: they change
//! without notice. `ARCHITECTURE.md` has the map of them.

#[doc(hidden)]
pub mod model;

#[doc(hidden)]
pub mod proto;

#[doc(hidden)]
pub mod machine;

#[doc(hidden)]
pub mod node;

#[doc(hidden)]
pub mod runtime;

#[doc(hidden)]
pub mod sim;

pub mod network;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use model::{Data, Endpoint, MessageId, PublicKey};
pub use network::{
    Builder, Change, Chat, ChatBuilder, ChatError, ChatMessage, Follower, Incoming, Message,
    Network, NetworkError, Order, OrderEntry, OrderError, OrderRoster, OrderStanding, OrderedLog,
    PeerInfo, Pending, Place, Placed, Published, Queue, RecvError, Rollout, RolloutBuilder,
    RolloutEvent, RolloutOrder, RolloutOutcome, SendError, StartError,
};
pub use proto::bft::{OrderId, PlaceProof, ProofError, ProvenMessage};
