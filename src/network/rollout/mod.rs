//! Atomic rollouts in a program of one's own.

mod counts;
mod decider;
mod group;
mod node;

pub(crate) use node::{NodeOptions, RolloutNode};
