//! The two programs as they are shipped: processes, sockets, disks, and hosts as network
//! namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside can reach a test binary")]

mod attacks;
mod chat;
mod chat_hosts;
mod chat_order;
mod cli;
mod cluster_key;
mod daemon;
mod disk;
mod fleet_shares;
mod founding;
mod http;
mod network;
mod network_shares;
mod one_node;
mod open;
mod order;
mod order_attacks;
mod order_story;
mod orders;
mod page;
mod partitions;
mod proxy_browser;
mod proxy_curl;
mod proxy_load;
mod proxy_servers;
mod proxy_stop;
mod proxy_streams;
mod rollout;
mod rollout_hosts;
mod rollout_order;
mod rollout_view;
mod scenarios;
mod share;
mod support;
mod swarm;
mod terminal;
