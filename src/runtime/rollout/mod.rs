//! A node that rolls out together with others: real sockets, threads and files around its machine.
//!
//! No decision of the protocol is made here: what comes is handed over, what is decided is done.
//!
//! One thread owns the machine (`keeper`); each connection has one that reads (`link`), and one to
//! write once the system takes no more; one writes the log (`engine`), one looks for those who are
//! not known yet (`seek`), one accepts. What the machine's history begins with is agreed before the
//! machine begins (`forming`).

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
