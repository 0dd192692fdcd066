//! Folkmoot: a fleet of machines that decides together, with no central server.
//!
//! The map, in reading order: [`model`] names and quantities · [`proto`] everything that is said ·
//! [`machine`] the state machines, pure · [`node`] which machines live together in a seed and in a
//! peer · [`runtime`] and [`sim`] two drivers of the same machines · [`network`] a peer inside
//! one's own program · [`cli`] what people type and see.
//! `ARCHITECTURE.md` tells why; `docs/PROTOCOL.md` lists every message and rule.

pub mod model;

pub mod proto;

pub mod machine;

pub mod node;

pub mod runtime;

pub mod sim;

pub mod network;

pub mod cli;

pub use network::Network;
