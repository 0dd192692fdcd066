//! The simulator: the second driver of the same machines, with virtual time and any weather.
//!
//! One number, the seed, fixes a whole run: latencies, faults, and every node's own randomness. The
//! world keeps the driver's contract to the letter and is stricter than reality where that helps: a
//! machine that uses a link it was told is closed is stopped with a panic, while the threaded
//! driver would ignore it. It knows machines only by [`crate::machine::Machine`], and what else it
//! has to know of one by [`Simulated`]: nodes, chats, rollouts and swarms run in it, alone or as
//! the services of one process. Whether their decisions are right is for the tests to judge.
//!
//! `World` is the entry. The files: `agenda` queue of events · `reach` cut paths and silent hosts ·
//! `network` links · `breaks` ends of links · `dial` attempts to connect · `disk` safe records ·
//! `simulated` what it knows of a machine · `host` one process · `world` and `drive` the loop ·
//! `faults`, `storm` and `weather` faults · `loss` packets that come late · `intruder` strangers ·
//! `tally` counts of faults · `traffic` counts of messages · `seeds` many runs ·
//! `trace` the story of one run.

mod agenda;
mod breaks;
mod dial;
mod disk;
mod drive;
mod faults;
mod host;
mod intruder;
mod loss;
mod network;
mod reach;
mod seeds;
mod simulated;
mod storm;
mod tally;
mod trace;
mod traffic;
mod weather;
mod world;

#[cfg(test)]
mod tests;

pub use host::{Boot, Factory, Tamper, TamperedMessage};
pub use intruder::{Intruder, IntruderState};
pub use seeds::{for_each_seed, single_seed};
pub use simulated::Simulated;
pub use tally::{FaultCounts, FaultEffect};
pub use traffic::Traffic;
pub use weather::{DurationRange, Weather, WeatherFault};
pub use world::{World, WorldOptions};
