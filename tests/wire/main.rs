//! Bytes to the last one, and the engines of the library at real sockets and on real disks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside can reach a test binary")]

mod bft_log;
mod bft_proof;
mod bft_verifier;
mod bft_wire;
mod chat_engine;
mod chat_store;
mod chat_strangers;
mod chat_wire;
mod data_plane;
mod founding;
mod golden;
mod order_audit;
mod order_engine;
mod order_store;
mod planes;
mod proxy;
mod proxy_enemy;
mod rollout_wire;
mod swarm_engine;
mod swarm_store;
mod swarm_wire;
