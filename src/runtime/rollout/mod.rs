//! Runtime of a node that rolls out: the sockets, threads and files around its machine.
//!
//! It makes no decision of the protocol: it hands inputs to the machine and carries out its
//! effects.
//!
//! One thread owns the machine (`keeper`); each connection has one that reads (`link`), and one to
//! write once the system takes no more; one writes the log (`engine`), one calls nodes before there
//! is a machine (`seek`), one accepts. The beginning of the history is agreed before the machine
//! begins (`forming`).

mod engine;
mod forming;
mod greet;
mod keeper;
mod kill;
mod link;
mod options;
mod seek;
mod stage;

pub use engine::{Engine, StandingError};
pub use options::{
    Admits, Claim, Counters, Founding, Habits, KillPoint, Limits, Options, Place, Recovered,
    Standing, StartError, Told,
};
