//! Measurements on this machine; each prints JSON lines.
//!
//! Figures are as measured, with the machine's cores and its load beside them. If there is a
//! target, the line says whether it was met; nothing here passes or fails.

mod chat;
mod crypto;
pub(super) mod figure;
mod gossip;
mod limits;
mod membership;
mod order;
mod overload;
mod page;
pub(super) mod procfs;
mod registrations;
mod rollout;
mod swarm;

use clap::{Args, Subcommand};

use super::CliError;
pub use chat::ChatBenchArgs;
pub use crypto::CryptoArgs;
pub use gossip::GossipArgs;
pub use membership::MembershipArgs;
pub use order::{OrderBenchArgs, OrderPartArgs};
pub use page::PageArgs;
pub use registrations::RegistrationsArgs;
pub use rollout::RolloutBenchArgs;
pub use swarm::{PartArgs, SwarmBenchArgs};

/// Flags of `peer bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Figures to measure
    #[command(subcommand)]
    pub what: Measurement,
}

/// Kinds of measurements.
#[derive(Clone, Debug, Subcommand)]
pub enum Measurement {
    /// Joining, detection of crashes and silence, gossip, idle cost, degrees
    Membership(MembershipArgs),
    /// Broadcast: latency, copies, and how many messages a second a fleet of processes carries
    Gossip(GossipArgs),
    /// Number of applicants a second that three seeds with real disks let in
    Registrations(RegistrationsArgs),
    /// Number of certificates and signatures a second that one thread checks and makes
    Crypto(CryptoArgs),
    /// Handing a file to several at once, beside the plain limit of this machine
    Swarm(SwarmBenchArgs),
    /// A group that chats: messages a second, latency, a dead or frozen leader, nothing lost
    Chat(ChatBenchArgs),
    /// A Byzantine order: entries a second, latency, a dead or stopped leader, checking its logs
    Order(OrderBenchArgs),
    /// Requests to models: how many a second a node's data plane answers, and how fast
    Rollout(RolloutBenchArgs),
    /// The live page: processor time of open pages, time from an event to a page
    Page(PageArgs),
    /// One process of a measurement
    #[command(hide = true)]
    SwarmPart(PartArgs),
    /// One member of a measured order
    #[command(hide = true)]
    OrderPart(OrderPartArgs),
}

/// Runs a measurement, and prints a JSON line a figure.
///
/// # Errors
/// Fails if a process cannot be started, or the fleet does not come together.
pub fn run(args: &BenchArgs) -> Result<(), CliError> {
    match &args.what {
        Measurement::Membership(args) => membership::run(args),
        Measurement::Gossip(args) => gossip::run(args),
        Measurement::Registrations(args) => registrations::run(args),
        Measurement::Crypto(args) => crypto::run(args),
        Measurement::Rollout(args) => rollout::run(args),
        Measurement::Page(args) => page::run(args),
        Measurement::Swarm(args) => swarm::run(args),
        Measurement::Chat(args) => chat::run(args),
        Measurement::Order(args) => order::run(args),
        Measurement::OrderPart(args) => order::run_part(args),
        Measurement::SwarmPart(args) => swarm::run_part(args),
    }
}
