//! The life of a node's process: prepare, start, report, obey, stop.

mod control;
mod http;
mod local_api;
mod node;
mod peer;
mod report;
mod role;
mod seed;
mod services;
pub(in crate::cli) mod signals;

pub(in crate::cli) use local_api::ApiRequest;
pub use peer::{ServiceSettings, peer};
pub use seed::seed;
pub(in crate::cli) use services::{Running, Service};
