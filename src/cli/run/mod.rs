//! The life of a node's process: prepare, start, report, obey, stop.

mod actions;
mod control;
mod feed;
mod fleet;
mod http;
mod local_api;
mod node;
mod peer;
mod report;
mod role;
mod seed;
mod services;
pub(in crate::cli) mod signals;

pub(in crate::cli) use feed::CHAT_MESSAGE;
pub(in crate::cli) use fleet::decisions_of_life;
pub(in crate::cli) use local_api::ApiRequest;
pub use peer::{ServiceSettings, peer};
pub use seed::seed;
pub(in crate::cli) use services::{Running, Service};
