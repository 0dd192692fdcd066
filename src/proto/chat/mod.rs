//! The dialect of a group that chats: its messages, the entries of its order, and its lines.

pub mod entry;
mod line;
pub mod message;

pub use line::{ChatReader, LINE_BYTES_MAX, append, decode, encode};
