//! A swarm: peers that hand each other the pieces of one content until all have it.
//!
//! The machine is [`Swarm`]: inputs in, effects out; no sockets, no disk, no clock. It speaks the
//! assignment's eight messages, or those and the messages of shares, as its [`Config`] says. The
//! steps, and the parts that own their state: `links` with `neighbors` and `peer_addrs`;
//! `messages` and `serve` (uploads) with `neighbor`; `slots` with `choker` (the neighbors served);
//! `fetch` with `picker`, `requests` and `parts`; `proof` with `content` and `tree` (hashes and
//! lists of files); `end` with `roster` and `progress`.
//!
//! Invariants: S2, a piece counts when it is stored, and with a tree only when its hash was known
//! before it was asked for; S3, at most k + 1 neighbors are unchoked and only those are served; S4,
//! a neighbor that does not answer loses its requests to others; S5, the messages under way with
//! one neighbor are bounded, whatever the content's size.

mod bitfield;
mod choker;
mod config;
mod content;
mod end;
mod event;
mod fetch;
mod links;
mod machine;
mod messages;
mod neighbor;
mod neighbors;
mod parts;
mod peer_addrs;
mod picker;
mod progress;
mod proof;
mod requests;
mod roster;
mod serve;
mod slots;
mod status;
#[cfg(test)]
mod tests;
mod tree;

pub use bitfield::Bitfield;
pub use config::{Config, PieceOrder, UPLOADS_MAX};
pub use content::FileListState;
pub use event::{
    DialFailure, Event, ExtraEffect, ExtraInput, Opening, PeerAddrId, Stored, SwarmOutcome, Timer,
};
pub use machine::{Effect, Fx, Input, Swarm, SwarmSetup};

pub use proof::FILES_BYTES_MAX;
pub use roster::SwarmRoster;
pub use status::{NeighborStatus, SwarmStatus};
pub use tree::{Tree, leaf_hash};
