//! `peer top`: the whole fleet on a terminal.
//!
//! [`look`] asks the node of this machine and the seeds in a thread; [`model`] keeps what was seen,
//! [`panes`] makes rows of it, [`screen`] knows the effects of keys and [`draw`] lays everything
//! out. All but the first are pure.

pub mod args;
mod decisions;
mod draw;
mod look;
mod model;
mod panes;
mod run;
mod screen;
#[cfg(test)]
mod tests;

pub use run::run;
