//! The machines and nodes in virtual time, in any weather, against liars and bad input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside can reach a test binary")]

mod attacks;
mod bad_input;
mod broadcast;
mod byzantine;
mod campaigns;
mod cast;
mod chat;
mod chat_hand;
mod chat_rules;
mod chat_seventeen;
mod chat_world;
mod common;
mod direct;
mod discovery;
mod enemy;
mod gaps;
mod hostile;
mod lean_discovery;
mod membership;
mod order;
mod order_hand;
mod order_mutations;
mod order_rules;
mod order_scripts;
mod order_twins;
mod order_world;
mod overlay;
mod prop_messages;
mod rollout;
mod rollout_world;
mod scenarios;
mod services;
mod simulate;
mod swarm;
mod swarm_world;
mod together;
