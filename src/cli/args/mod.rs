//! Command line of `seed` and `peer`: their flags, and the subcommands of `peer`.
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
    AskArgs, EvictArgs, ExplainArgs, LeaveArgs, MembersArgs, OperatorArgs, StatusArgs,
    TopologyArgs, UnbanArgs,
};

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::questions::{parse_endpoint, parse_fleet};
use super::bench::BenchArgs;
use super::chat::args::ChatArgs;
use super::demo::DemoArgs;
use super::keygen::KeygenArgs;
use super::rollout::args::{RolloutArgs, RolloutNodeArgs};
use super::share::args::{FetchArgs, ShareArgs, SharesArgs, UnshareArgs};
use super::simulate::SimulateArgs;
use super::size::Size;
use super::span::Span;
use super::swarm::args::SwarmArgs;
use crate::machine::broadcast::{self, MESSAGE_BYTES_MAX};
use crate::machine::membership::{applicant, authority};
use crate::machine::quorum::QuorumRule;
use crate::machine::{contacts, gossip, liveness, overlay, session};
use crate::model::Endpoint;
use crate::runtime::driver::options::Limits;

const SEED_EXAMPLES: &str = "\
Examples:
  seed --id 1 --port 5001        seed 1 of config.txt, whose first line is 127.0.0.1:5001
  seed --id 2                    seed 2, at the address that config.txt has for it
  seed --id 1 --log-format json  one JSON object a line, for programs
  seed status --port 5001        what the seed on this port is doing
  seed keygen --id 1             make seed 1's identity, print the line that pins it in config.txt
  seed keygen --cluster-key FILE make a secret that lets only its holders into the fleet

Ctrl-C stops a seed; it keeps its votes and members in data/seed-PORT and goes on from there.";

const PEER_EXAMPLES: &str = "\
Examples:
  peer --port 6001                    run a peer that asks the seeds of config.txt to be let in
  peer --port 6001 --gossip-max 0     the same, without gossip of its own
  peer --port 6001 --open             the first peer of a fleet that needs no seeds
  peer --port 6002 --join 127.0.0.1:6001   another, which finds the rest by the first
  peer members                        who is in, as the first seed that answers sees it
  peer topology --dot | dot -Tsvg     a picture of who is linked with whom
  peer status --port 6001             what a node of this machine is doing
  peer metrics --port 6001            its numbers, as http://127.0.0.1:6001/metrics has them
  peer explain 127.0.0.1:6003         why a peer is in or out: who accused, who voted, when
  peer leave --port 6001              say goodbye and stop; Ctrl-C does the same
  peer share big.iso                  a ticket for whoever is to fetch it with peer fetch TICKET
  peer swarm 1001                     the peer 1001 of the PeerInfo.cfg in this folder
  peer evict 127.0.0.1:6003 --ban     put a member out for good, by a quorum of seeds' operators

Every peer and every seed of a fleet with seeds reads the same config.txt; a fleet without seeds
(--open, --join) needs none, and lets in whoever proves a key: give it a cluster key.";

/// A seed: one of the few nodes that decide together who is a member.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "seed",
    version,
    after_help = SEED_EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct SeedArgs {
    /// An order, instead of running a seed.
    #[command(subcommand)]
    pub command: Option<SeedCommand>,
    /// The number of this seed: its place among the seeds in config.txt, counted from 1
    // Always there when no subcommand is: clap refuses its absence.
    #[arg(long, value_name = "N", required = true,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub id: Option<u16>,
    /// The TCP port to listen on, which must be the one in config.txt [default: that one]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
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

/// A peer of a fleet that decides together, with no central server; and questions to that fleet.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "peer",
    version,
    after_help = PEER_EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct PeerArgs {
    /// A question or an order, instead of running a peer.
    #[command(subcommand)]
    pub command: Option<PeerCommand>,
    /// The TCP port to listen on; 0 lets the system choose
    // Always there when no subcommand is: clap refuses its absence.
    #[arg(long, value_name = "P", required = true)]
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
    /// Flags that all nodes have in common.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The periods and limits of a peer.
    #[command(flatten)]
    pub limits: PeerLimitArgs,
    /// Flags of rollouts.
    #[command(flatten)]
    pub rollout: RolloutNodeArgs,
}

/// Subcommands of `peer`.
#[derive(Clone, Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, for the life of the program")]
pub enum PeerCommand {
    /// List the members, as a seed sees them
    Members(Deferred<MembersArgs>),
    /// Show who is linked with whom, as a seed was told
    Topology(Deferred<TopologyArgs>),
    /// Show what a node of this machine is doing
    Status(Deferred<StatusArgs>),
    /// Print the metrics of a node of this machine, as GET /metrics on its port has them
    Metrics(Deferred<StatusArgs>),
    /// Say why an endpoint is in or out: who accused, who confirmed, how each seed voted, when
    Explain(Deferred<ExplainArgs>),
    /// Send a message to all peers that subscribe to a topic
    Publish(Deferred<PublishArgs>),
    /// Print the messages of a topic as they come
    Subscribe(Deferred<SubscribeArgs>),
    /// Send a message to one peer, and wait until it has taken it
    Send(Deferred<SendArgs>),
    /// Print the messages for a peer of this machine alone, as they come
    Inbox(Deferred<InboxArgs>),
    /// Show which peers can be found from here
    Discover(Deferred<DiscoverArgs>),
    /// Chat in a group with one order for everybody, in which no message is lost
    Chat(Deferred<ChatArgs>),
    /// Roll a new version out on all machines together, a little at a time, or not at all
    Rollout(Deferred<RolloutArgs>),
    /// Take part in the assignment's file distribution, as Common.cfg and PeerInfo.cfg say
    Swarm(Deferred<SwarmArgs>),
    /// Share a file or folder with whoever has its ticket
    Share(Deferred<ShareArgs>),
    /// Fetch what a ticket names
    Fetch(Deferred<FetchArgs>),
    /// Let a peer of this machine share something no more
    Unshare(Deferred<UnshareArgs>),
    /// List what the fleet shares, and what this user shares and fetches on this machine
    Shares(Deferred<SharesArgs>),
    /// Let a peer of this machine say goodbye and stop
    Leave(Deferred<LeaveArgs>),
    /// End a member's life, as the operator of the seeds of this machine; it takes a quorum
    Evict(Deferred<EvictArgs>),
    /// Let a banned endpoint and its key in again, as the operator of the seeds of this machine
    Unban(Deferred<UnbanArgs>),
    /// Show a whole fleet on this machine: joining, gossip, a death, a removal
    Demo(Deferred<DemoArgs>),
    /// Measure, and print JSON lines
    Bench(Deferred<BenchArgs>),
    /// Try a fleet of any size before it is built: the same machines in virtual time
    Simulate(Deferred<SimulateArgs>),
    /// Run a seed, so that one executable can be either
    #[command(hide = true)]
    Seed(Deferred<SeedArgs>),
}

/// Subcommands of `seed`.
#[derive(Clone, Debug, Subcommand)]
pub enum SeedCommand {
    /// Make a seed's identity, or the cluster key of a fleet, before anything runs
    Keygen(KeygenArgs),
    /// Show what a seed of this machine is doing
    Status(StatusArgs),
    /// Print the metrics of a seed of this machine, as GET /metrics on its port has them
    Metrics(StatusArgs),
    /// List the members, as a seed sees them
    Members(MembersArgs),
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
    /// /metrics, /status): any, loopback or off. For a peer with --id: the address of its data
    /// plane, as in 127.0.0.1:50051 [default: any, and with a cluster key loopback]
    #[arg(long, value_name = "WHOM")]
    pub http: Option<HttpArg>,
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
    #[arg(long, value_name = "TIME", default_value_t = Span(Limits::default().handshake_timeout))]
    pub opening_timeout: Span,
    /// Time that a connection may take to prove its key
    #[arg(long, value_name = "TIME",
        default_value_t = Span(session::Config::default().handshake_timeout))]
    pub handshake_timeout: Span,
    /// Interval at which a silent connection is asked for a sign of life; four rounds close it
    #[arg(long, value_name = "TIME", default_value_t = Span(session::Config::default().keep_alive))]
    pub keep_alive: Span,
    /// Time that writing to a connection may take before it is closed
    #[arg(long, value_name = "TIME", default_value_t = Span(Limits::default().write_timeout))]
    pub write_timeout: Span,
    /// Connections that have said nothing yet, at most; beyond, the oldest is closed
    #[arg(long, value_name = "N", default_value_t = Limits::default().silent_max)]
    pub silent_max: usize,
    /// Connections that have proved nothing yet, at most; beyond, the oldest is closed
    #[arg(long, value_name = "N", default_value_t = session::Config::default().unproven_max)]
    pub unproven_max: usize,
    /// Connections of all kinds, at most; beyond, new ones are closed
    #[arg(long, value_name = "N", default_value_t = Limits::default().links_max)]
    pub connections_max: usize,
    /// Attempts to connect at a time, at most
    #[arg(long, value_name = "N", default_value_t = Limits::default().dials_max)]
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

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, node, message
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}

/// Level of the least important lines to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing
    Off,
    /// Failures that an operator must act on
    Error,
    /// Misbehavior of others, and what went wrong
    Warn,
    /// Memberships, neighbors, gossip, suspicions
    #[default]
    Info,
    /// Details
    Debug,
    /// Everything
    Trace,
}

impl From<LogLevel> for ::log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn peer(line: &str) -> Result<PeerArgs, clap::Error> {
        PeerArgs::try_parse_from(line.split_whitespace())
    }

    fn refused(line: &str) -> ErrorKind {
        peer(line).map(|args| panic!("{line}: {args:?}")).unwrap_err().kind()
    }

    #[test]
    fn the_flags_are_well_formed() {
        SeedArgs::command().debug_assert();
        PeerArgs::command().debug_assert();
    }

    #[test]
    fn a_port_alone_runs_a_peer_with_the_documented_defaults() {
        let args = peer("peer --port 6001").unwrap();
        assert!(args.command.is_none());
        assert_eq!((args.port, args.ip.to_string()), (Some(6001), "127.0.0.1".to_owned()));
        assert_eq!(args.node.config.to_str(), Some("config.txt"));
        assert_eq!(args.node.data.to_str(), Some("data"));
        assert_eq!(args.node.output.to_str(), Some("outputfile.txt"));
        assert_eq!(args.limits.gossip_interval.to_string(), "5s");
        assert_eq!(args.limits.gossip_max, 10);
    }

    #[test]
    fn a_seed_is_known_by_its_number() {
        let parse = |line: &str| SeedArgs::try_parse_from(line.split_whitespace());
        let args = parse("seed --id 1 --port 5001").unwrap();
        assert_eq!((args.id, args.port), (Some(1), Some(5001)));
        assert_eq!(parse("seed --id 2").unwrap().port, None);
        assert_eq!(parse("seed").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("seed --id 0").unwrap_err().kind(), ErrorKind::ValueValidation);
        assert!(matches!(
            peer("peer seed --id 1 --port 5001").unwrap().command,
            Some(PeerCommand::Seed(Deferred(SeedArgs { id: Some(1), .. })))
        ));
    }

    #[test]
    fn the_help_of_each_subcommand_begins_with_the_sentence_that_the_list_has_for_it() {
        for command in PeerArgs::command().get_subcommands() {
            let (name, about) = (command.get_name(), command.get_about().unwrap().to_string());
            let help = peer(&format!("peer {name} --help")).unwrap_err().to_string();
            assert!(help.starts_with(&about), "{name}: {help}");
        }
    }

    #[test]
    fn keygen_makes_one_kind_of_key_at_a_time() {
        let parse = |line: &str| SeedArgs::try_parse_from(line.split_whitespace());
        let kind = |line: &str| parse(line).unwrap_err().kind();
        assert!(parse("seed keygen --id 1 --port 5001 --data d").unwrap().command.is_some());
        assert!(parse("seed keygen --cluster-key f").unwrap().command.is_some());
        assert_eq!(kind("seed keygen"), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("seed keygen --id 1 --cluster-key f"), ErrorKind::ArgumentConflict);
        assert_eq!(kind("seed keygen --port 5001"), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("seed --id 1 keygen --id 1"), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn questions_need_no_port_and_mix_with_no_flag_of_a_running_peer() {
        assert!(matches!(peer("peer members").unwrap().command, Some(PeerCommand::Members(_))));
        assert_eq!(refused("peer"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("peer --ip 127.0.0.1"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("peer --port 6001 members"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("peer topology --json --dot"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("peer leave"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("peer explain 127.0.0.1"), ErrorKind::ValueValidation);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for line in [
            "peer --port 65536",
            "peer --port 6001 --gossip-interval 5",
            "peer --port 6001 --misses-max 1",
            "peer --port 6001 --ip localhost",
        ] {
            assert_eq!(refused(line), ErrorKind::ValueValidation, "{line}");
        }
        assert_eq!(refused("peer --port 6001 --log-format xml"), ErrorKind::InvalidValue);
        assert_eq!(refused("peer --port 6001 --quorum all"), ErrorKind::InvalidValue);
    }
}
