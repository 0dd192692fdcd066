//! Bad input of every kind, made from bytes: what property tests and fuzz targets have in common.
//!
//! Whoever supplies the bytes decides what is said: a random generator that can shrink, or a
//! fuzzer that watches which code was reached. The same bytes always make the same conversation.
//! The checks are here too, so that both judge alike.

#![allow(dead_code, unreachable_pub, reason = "each user takes its own part of this")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a driver looks for some messages, and passes on all others"
)]

pub mod cast;
pub mod chat;
pub mod checks;
pub mod nodes;
pub mod order;
pub mod rollout;
pub mod source;
pub mod stage;
pub mod swarm;
pub mod words;
