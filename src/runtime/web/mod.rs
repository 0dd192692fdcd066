//! Requests of this program to the web.

pub mod client;
