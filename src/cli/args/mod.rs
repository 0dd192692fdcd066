//! Flags of `seed` and `peer`, and of their questions.
//!
//! `Args` types hold the typed flags and nothing else; [`super::settings`] checks them against
//! `config.txt` and makes the settings for the rest of the program. Every default is the default of
//! the machine or driver it belongs to, so `--help` cannot differ from the code.

mod deferred;
mod http;
mod network;
mod questions;

pub use deferred::Deferred;
pub use http::HttpArg;
pub use network::{
    ContentArgs, DiscoverArgs, InboxArgs, PublishArgs, SendArgs, SubscribeArgs, UseArgs,
};
pub use questions::{
    AskArgs, EvictArgs, ExplainArgs, LeaveArgs, LocalNodeArgs, MembersArgs, OperatorArgs,
    StatusArgs, TopologyArgs, UnbanArgs,
};

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(in crate::cli) use self::questions::parse_number;
use self::questions::{parse_endpoint, parse_fleet, parse_port};
use super::log::{LogFormat, LogLevel};
use super::order::args::OrderNodeArgs;
use super::rollout::args::RolloutNodeArgs;
use super::size::Size;
use super::span::Span;
use crate::machine::broadcast::{self, MESSAGE_BYTES_MAX};
use crate::machine::membership::{applicant, authority};
use crate::machine::quorum::QuorumRule;
use crate::machine::{contacts, gossip, liveness, overlay, session};
use crate::model::Endpoint;
use crate::runtime::driver::options::ConnectionLimits;

/// Flags of a running seed.
#[derive(Clone, Debug, Args)]
pub struct SeedRunArgs {
    /// The number of this seed: its place among the seeds in config.txt, counted from 1
    // Always there when no subcommand is: clap refuses its absence.
    #[arg(long, value_name = "N", required = true,
        value_parser = parse_number::<u16>)]
    pub id: Option<u16>,
    /// The TCP port to listen on, which must be the one in config.txt [default: that one]
    #[arg(long, value_name = "P", value_parser = parse_number::<u16>)]
    pub port: Option<u16>,
    /// The address to listen on, which must be the one in config.txt [default: that one]
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// Flags that all nodes have in common.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The limits of a seed.
    #[command(flatten)]
    pub limits: SeedLimitArgs,
}

/// Flags of a running peer.
#[derive(Clone, Debug, Args)]
pub struct PeerRunArgs {
    /// The TCP port to listen on; 0 lets the system choose
    // Always there when no subcommand is: clap refuses its absence.
    #[arg(long, value_name = "P", required = true, value_parser = parse_port)]
    pub port: Option<u16>,
    /// The address to listen on, at which seeds and other peers reach this one
    #[arg(long, default_value = "127.0.0.1")]
    pub ip: IpAddr,
    /// Join the fleet without seeds to which the peer at this address belongs; may be given more
    /// than once, and some of them may be down. The config file is not read [default: none]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_endpoint)]
    pub join: Vec<Endpoint>,
    /// Begin a fleet without seeds, which others join by this peer's address; --join implies it
    #[arg(long)]
    pub open: bool,
    /// Take part in the fleet's chat as member N, too; peer chat attaches a screen, and peer chat
    /// send and history need none [default: no chat]
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    pub chat: Option<u32>,
    /// Flags that all nodes have in common.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The periods and limits of a peer.
    #[command(flatten)]
    pub limits: PeerLimitArgs,
    /// Flags of a Byzantine order.
    #[command(flatten)]
    pub order: OrderNodeArgs,
    /// Flags of rollouts.
    #[command(flatten)]
    pub rollout: RolloutNodeArgs,
}

/// Flags that all nodes have in common.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The file that lists the seeds, one IP:PORT a line, the same for every node
    #[arg(long, value_name = "FILE", default_value = "config.txt")]
    pub config: PathBuf,
    /// Folder in which nodes keep their keys and journals, each in a directory of its own
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// The file to append the log to, beside the console; several nodes may share it
    #[arg(long, value_name = "FILE", default_value = "outputfile.txt")]
    pub output: PathBuf,
    /// Format of log lines
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least important log lines to show; the variable RUST_LOG goes before this
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// Number of yes votes that decide: floor(n/2)+1, or enough to bear lying seeds
    #[arg(long, value_name = "RULE", value_enum, default_value_t)]
    pub quorum: QuorumArg,
    /// Talk only with holders of the cluster key in this file, and encrypt every connection
    /// [default: none, and talk with anybody in plain text]
    #[arg(long, value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,
    /// The name of the fleet: nodes of another name are not talked with [default: none, and without
    /// seeds that of the peer that began the fleet]
    #[arg(long, value_name = "NAME", value_parser = parse_fleet)]
    pub fleet: Option<String>,
    /// The clients that are told over HTTP, on the same port, what this node is doing (/, /healthz,
    /// /metrics, /status): any, loopback or off. For a peer with --rollout: the address of its data
    /// plane, as in 127.0.0.1:50051 [default: any, and with a cluster key loopback]
    #[arg(long, value_name = "WHOM")]
    pub http: Option<HttpArg>,
    /// A TOML file with flags of this run, as in `ping-interval = "500ms"`; the command line goes
    /// before it, and the variable of a flag, as FOLKMOOT_PING_INTERVAL, too [default: none]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Stop, as at Ctrl-C, when standard input ends; for programs that start nodes
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// The limits of connections.
    #[command(flatten)]
    pub connections: ConnectionArgs,
}

/// The limits of connections.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits of connections")]
pub struct ConnectionArgs {
    /// Time that a connection may take until its protocol is clear
    #[arg(long, value_name = "TIME",
        default_value_t = Span(ConnectionLimits::default().handshake_timeout))]
    pub opening_timeout: Span,
    /// Time that a connection may take to prove its key
    #[arg(long, value_name = "TIME",
        default_value_t = Span(session::Config::default().handshake_timeout))]
    pub handshake_timeout: Span,
    /// Interval at which a silent connection is asked for a sign of life; four rounds close it
    #[arg(long, value_name = "TIME", default_value_t = Span(session::Config::default().keep_alive))]
    pub keep_alive: Span,
    /// Time that writing to a connection may take before it is closed
    #[arg(long, value_name = "TIME",
        default_value_t = Span(ConnectionLimits::default().write_timeout))]
    pub write_timeout: Span,
    /// Connections that have said nothing yet, at most; beyond, the oldest is closed
    #[arg(long, value_name = "N", default_value_t = ConnectionLimits::default().silent_max)]
    pub silent_max: usize,
    /// Connections that have proved nothing yet, at most; beyond, the oldest is closed
    #[arg(long, value_name = "N", default_value_t = session::Config::default().unproven_max)]
    pub unproven_max: usize,
    /// Connections of all kinds, at most; beyond, new ones are closed
    #[arg(long, value_name = "N", default_value_t = ConnectionLimits::default().links_max)]
    pub connections_max: usize,
    /// Attempts to connect at a time, at most
    #[arg(long, value_name = "N", default_value_t = ConnectionLimits::default().dials_max)]
    pub dials_max: usize,
}

/// The limits of a seed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits of a seed")]
pub struct SeedLimitArgs {
    /// Time that an admission may take before it is refused
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().admission_timeout))]
    pub admission_timeout: Span,
    /// Time that a removal stays open without new evidence
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().removal_timeout))]
    pub removal_timeout: Span,
    /// Time that a probe waits for an answer
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().probe_timeout))]
    pub probe_timeout: Span,
    /// Time that a signed finding counts after it was first seen
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().evidence_ttl))]
    pub evidence_ttl: Span,
    /// Time by which the clocks of witnesses may differ from this one
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().evidence_skew))]
    pub evidence_skew: Span,
    /// Interval at which the members are compared with the other seeds'
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().digest_interval))]
    pub digest_interval: Span,
    /// Interval at which members without a link to this seed are looked for
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().audit_interval))]
    pub audit_interval: Span,
    /// Time that a member without a link to this seed is left alone
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().audit_after))]
    pub audit_after: Span,
    /// Time that members that are gone are remembered
    #[arg(long, value_name = "TIME",
        default_value_t = Span(authority::Config::default().tombstone_ttl))]
    pub tombstone_ttl: Span,
    /// Requests to register that one address may make at once
    #[arg(long, value_name = "N", default_value_t = authority::Config::default().requests_burst)]
    pub requests_burst: u32,
    /// Requests to register that one address may make each second
    #[arg(long, value_name = "N",
        default_value_t = authority::Config::default().requests_per_second)]
    pub requests_per_second: u32,
    /// Admissions under way, at most
    #[arg(long, value_name = "N", default_value_t = authority::Config::default().admissions_max)]
    pub admissions_max: usize,
    /// Members, at most
    #[arg(long, value_name = "N", default_value_t = authority::Config::default().members_max)]
    pub members_max: usize,
    /// Neighbors that one member may name, at most
    #[arg(long, value_name = "N", default_value_t = authority::Config::default().neighbors_max)]
    pub neighbors_max: usize,
}

/// The periods and limits of a peer.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Periods and limits of a peer")]
pub struct PeerLimitArgs {
    /// Neighbors to seek when joining, and below which new ones are sought
    #[arg(long, value_name = "N", default_value_t = overlay::Config::default().links)]
    pub links: usize,
    /// Neighbors, at most; up to 256
    #[arg(long, value_name = "N", default_value_t = overlay::Config::default().links_max)]
    pub links_max: usize,
    /// Time that a member that could not be reached is left alone
    #[arg(long, value_name = "TIME", default_value_t = Span(overlay::Config::default().cooldown))]
    pub cooldown: Span,
    /// The pause between two gossip messages of this peer
    #[arg(long, value_name = "TIME", default_value_t = Span(gossip::Config::default().interval))]
    pub gossip_interval: Span,
    /// Gossip messages that this peer makes, at most
    #[arg(long, value_name = "N", default_value_t = gossip::Config::default().messages_max)]
    pub gossip_max: u32,
    /// Time that a gossip message is offered to neighbors that lack it
    #[arg(long, value_name = "TIME", default_value_t = Span(gossip::Config::default().hold))]
    pub gossip_hold: Span,
    /// Time that a gossip message is remembered, so that it is not taken for new
    #[arg(long, value_name = "TIME", default_value_t = Span(gossip::Config::default().remember))]
    pub gossip_remember: Span,
    /// Gossip messages remembered, at most
    #[arg(long, value_name = "N", default_value_t = gossip::Config::default().seen_max)]
    pub gossip_seen_max: usize,
    /// Interval at which each neighbor is looked at, and pinged if it was silent
    #[arg(long, value_name = "TIME",
        default_value_t = Span(liveness::Config::default().ping_interval))]
    pub ping_interval: Span,
    /// Unanswered pings in a row that make a suspect
    #[arg(long, value_name = "N", default_value_t = liveness::Config::default().misses_max,
        value_parser = clap::value_parser!(u32).range(2..=100))]
    pub misses_max: u32,
    /// Time that a probe of a suspect waits for an answer
    #[arg(long, value_name = "TIME",
        default_value_t = Span(liveness::Config::default().probe_timeout))]
    pub probe_timeout: Span,
    /// Time to wait for witnesses before more of them are asked
    #[arg(long, value_name = "TIME",
        default_value_t = Span(liveness::Config::default().ask_interval))]
    pub ask_interval: Span,
    /// Interval at which the system's ping is asked about a neighbor's host
    #[arg(long, value_name = "TIME",
        default_value_t = Span(liveness::Config::default().host_ping_interval))]
    pub host_ping_interval: Span,
    /// Time to wait for the seeds' decision
    #[arg(long, value_name = "TIME",
        default_value_t = Span(applicant::Config::default().decision_timeout))]
    pub decision_timeout: Span,
    /// The first pause after an attempt to register has failed; it doubles each time
    #[arg(long, value_name = "TIME",
        default_value_t = Span(applicant::Config::default().backoff_min))]
    pub backoff_min: Span,
    /// The longest pause between attempts to register
    #[arg(long, value_name = "TIME",
        default_value_t = Span(applicant::Config::default().backoff_max))]
    pub backoff_max: Span,
    /// The silence after which a peer is unreachable, and direct sends to it fail at once
    #[arg(long, value_name = "TIME",
        default_value_t = Span(contacts::Config::default().unreachable_after))]
    pub unreachable_after: Span,
    /// Bytes of a message of applications, at most; give it to all peers, up to 16 MiB
    #[arg(long, value_name = "BYTES", default_value_t = broadcast::Config::default().message_max,
        value_parser = clap::value_parser!(u64).range(1..=MESSAGE_BYTES_MAX))]
    pub message_max: u64,
    /// The size of all shares together that are taken because they were shared with --everywhere
    #[arg(long, value_name = "SIZE", default_value_t = Size(1 << 30))]
    pub push_max: Size,
    /// Take no share that was not asked for
    #[arg(long)]
    pub no_push: bool,
    /// Interval at which the peer lists are fetched anew
    #[arg(long, value_name = "TIME", default_value_t = Span(applicant::Config::default().refresh))]
    pub refresh: Span,
}

/// Rule for the number of yes votes that decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum QuorumArg {
    /// floor(n/2)+1: bears seeds that crash
    #[default]
    Majority,
    /// ceil((n+f+1)/2) with f = floor((n-1)/3): bears seeds that lie
    Byzantine,
}

impl From<QuorumArg> for QuorumRule {
    fn from(rule: QuorumArg) -> Self {
        match rule {
            QuorumArg::Majority => Self::Majority,
            QuorumArg::Byzantine => Self::Byzantine,
        }
    }
}
