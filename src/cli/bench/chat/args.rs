//! Flags of the measurement of a chat.

use std::path::PathBuf;

use clap::Args;

use crate::cli::size::Size;
use crate::cli::span::Span;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct ChatBenchArgs {
    /// Number of processes that chat
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub peers: u32,
    /// Messages for each peer that clients send by
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub messages: u64,
    /// Clients, each with one message on its way
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: usize,
    /// Bytes of a message
    #[arg(long, value_name = "SIZE", default_value = "256")]
    pub size: Size,
    /// Messages a second in all [default: as many as there can be]
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// Let clients send by all peers but the leader, instead of by the leader
    #[arg(long)]
    pub by_followers: bool,
    /// Kill the leader with SIGKILL while clients send by the others, and start it again
    #[arg(long)]
    pub kill_leader: bool,
    /// Freeze the leader with SIGSTOP for 9 seconds while clients send by the others
    #[arg(long)]
    pub freeze_leader: bool,
    /// Number of times the leader is killed or frozen
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub kills: u32,
    /// The leader time-out of the peers
    #[arg(long, value_name = "TIME")]
    pub leader_timeout: Option<Span>,
    /// Folder in which the logs are written, in one that is removed in the end
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
}
