//! Command lines of the two programs: their subcommands, and the part that carries each out.

use clap::{Parser, Subcommand};

use super::args::{
    Deferred, DiscoverArgs, EvictArgs, ExplainArgs, InboxArgs, LeaveArgs, LocalNodeArgs,
    MembersArgs, PeerRunArgs, PublishArgs, QuorumArg, SeedRunArgs, SendArgs, StatusArgs,
    SubscribeArgs, TopologyArgs, UnbanArgs,
};
use super::bench::{self, BenchArgs};
use super::chat::{self, args::ChatArgs};
use super::demo::{self, DemoArgs};
use super::error::CliError;
use super::keygen::{self, KeygenArgs};
use super::order::{self, args::OrderArgs};
use super::rollout::{self, args::DecisionLogKind, args::RolloutArgs};
use super::run::ServiceSettings;
use super::settings::{PeerSettings, SeedSettings};
use super::share::{
    self,
    args::{FetchArgs, ShareArgs, SharesArgs, UnshareArgs},
};
use super::simulate::{self, SimulateArgs};
use super::swarm::{self, args::SwarmArgs};
use super::top::{self, args::TopArgs};
use super::{query, run, seeds};
use crate::runtime::descriptors;

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
  peer top                            the whole fleet on a terminal, as it changes
  peer metrics --port 6001            its numbers, as http://127.0.0.1:6001/metrics has them
  peer explain 127.0.0.1:6003         why a peer is in or out: who accused, who voted, when
  peer leave --port 6001              say goodbye and stop; Ctrl-C does the same
  peer --port 6001 --order roster.txt an order of entries that a lying member cannot corrupt
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
    /// Flags of a running seed.
    #[command(flatten)]
    pub run: SeedRunArgs,
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
    /// Flags of a running peer.
    #[command(flatten)]
    pub run: PeerRunArgs,
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
    /// Watch the whole fleet on a terminal: members, decisions, messages, files, chat, rollouts
    Top(Deferred<TopArgs>),
    /// Print the metrics of a node of this machine, as GET /metrics on its port has them
    Metrics(Deferred<LocalNodeArgs>),
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
    /// Put entries into one order that lying members cannot corrupt, and prove their places
    Order(Deferred<OrderArgs>),
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
    Metrics(LocalNodeArgs),
    /// List the members, as a seed sees them
    Members(MembersArgs),
}

/// The program `seed`.
///
/// # Errors
/// Any failure that keeps it from starting, or stops it before it is told to stop.
pub fn seed(args: &SeedArgs) -> Result<(), CliError> {
    descriptors::raise();
    match &args.command {
        None => run::seed(&SeedSettings::from_args(&args.run)?),
        Some(SeedCommand::Keygen(args)) => keygen::run(args),
        Some(SeedCommand::Status(args)) => query::status(args, &["seed"]),
        Some(SeedCommand::Members(args)) => query::members(args),
        Some(SeedCommand::Metrics(args)) => query::metrics(args, &["seed"]),
    }
}

/// The program `peer`.
///
/// # Errors
/// Any failure that keeps it from starting, stops it before it is told to stop, or leaves a
/// question without an answer.
pub fn peer(args: &PeerArgs) -> Result<(), CliError> {
    descriptors::raise();
    match &args.command {
        None => run_peer(&args.run),
        Some(PeerCommand::Members(args)) => query::members(args),
        Some(PeerCommand::Topology(args)) => query::topology(args),
        Some(PeerCommand::Explain(args)) => query::explain(args),
        Some(PeerCommand::Status(args)) => query::status(args, &["peer", "seed"]),
        Some(PeerCommand::Top(args)) => top::run(args),
        Some(PeerCommand::Metrics(args)) => query::metrics(args, &["peer", "seed"]),
        Some(PeerCommand::Publish(args)) => query::publish(args),
        Some(PeerCommand::Subscribe(args)) => query::subscribe(args),
        Some(PeerCommand::Send(args)) => query::send(args),
        Some(PeerCommand::Inbox(args)) => query::inbox(args),
        Some(PeerCommand::Discover(args)) => query::discover(args),
        Some(PeerCommand::Chat(args)) => chat::run(args),
        Some(PeerCommand::Order(args)) => order::command(args),
        Some(PeerCommand::Rollout(args)) => rollout::command(args),
        Some(PeerCommand::Swarm(args)) => swarm::run(args),
        Some(PeerCommand::Share(args)) => share::share(args),
        Some(PeerCommand::Fetch(args)) => share::fetch(args),
        Some(PeerCommand::Unshare(args)) => share::unshare(args),
        Some(PeerCommand::Shares(args)) => share::shares(args),
        Some(PeerCommand::Leave(args)) => query::leave(args),
        Some(PeerCommand::Evict(args)) => query::evict(args),
        Some(PeerCommand::Unban(args)) => query::unban(args),
        Some(PeerCommand::Demo(args)) => demo::run(args),
        Some(PeerCommand::Bench(args)) => bench::run(args),
        Some(PeerCommand::Simulate(args)) => simulate::run(args),
        Some(PeerCommand::Seed(args)) => seed(args),
    }
}

/// Runs a peer with the services that are switched on; a node of rollouts alone, with a port of its
/// own, where it is told its fellows or there is no fleet to find them by.
fn run_peer(args: &PeerRunArgs) -> Result<(), CliError> {
    let flags = &args.rollout;
    let mut order = order::Settings::new(&args.order, &flags.log_dir)?;
    let is_in_fleet = args.chat.is_some() || args.open || order.is_some();
    let has_key = args.node.cluster_key.is_some();
    if let Some(key) = &args.node.cluster_key {
        let key = key.display();
        if let Some(id) = args.chat {
            return Err(CliError::Usage(format!(
                "with --cluster-key a peer carries no chat; leave --chat out, and run the chat in \
                 a process of its own: peer chat --id {id} --port 7001 --cluster-key {key}"
            )));
        }
        if order.is_some() {
            let text = "with --cluster-key a peer's port takes the fleet's encrypted links alone, \
                        and carries no order; run a second peer for it, with a roster, without \
                        --cluster-key and with a --port of its own";
            return Err(CliError::Usage(text.to_owned()));
        }
        if let Some(name) = flags.id.as_ref().filter(|_| args.open) {
            return Err(CliError::Usage(format!(
                "with --cluster-key a peer carries no rollouts; leave --rollout out, and run their \
                 node in a process of its own: peer --port 60001 --rollout {name} --http \
                 127.0.0.1:50051 --cluster-key {key}"
            )));
        }
    }
    let is_by_fleet = order.as_ref().is_some_and(order::Settings::is_by_fleet);
    let has_seeds = !args.open && args.join.is_empty();
    if is_by_fleet && (!has_seeds || args.node.quorum != QuorumArg::Byzantine) {
        let text = "--order-size lets a fleet found the order whose seeds certify its members' \
                    keys: give all nodes of the fleet --quorum byzantine, and leave out --open and \
                    --join; without such a fleet, name the members in a roster";
        return Err(CliError::Usage(text.to_owned()));
    }
    if args.chat.is_some() && flags.decide_in_log == Some(DecisionLogKind::Chat) {
        let text = "--decide-in-log needs the chat of the node for itself; leave out --chat, or \
                    run peer chat --id N --port P in a process of its own, or keep decisions in an \
                    order: --order ROSTER --decide-in-log=bft";
        return Err(CliError::Usage(text.to_owned()));
    }
    let rollout = flags.id.as_ref().map(|_| rollout::Settings::new(args, is_in_fleet));
    let mut rollout = rollout.transpose()?;
    if let Some(rollout) = &mut rollout
        && flags.decide_in_log == Some(DecisionLogKind::Bft)
    {
        let Some(order) = &mut order else {
            let text = "--decide-in-log=bft keeps decisions in a Byzantine order; add --order \
                        ROSTER with a line for each node, which peer order keygen prints";
            return Err(CliError::Usage(text.to_owned()));
        };
        rollout.decide_in(order.hand_out());
    }
    let is_alone = |it: &rollout::Settings| it.is_placed() || has_key;
    match rollout {
        Some(settings)
            if !is_in_fleet
                && (is_alone(&settings) || seeds::running(&args.node.config, false)?.is_none()) =>
        {
            rollout::node(args, settings)
        }
        rollout => {
            let chat = args.chat.map(|id| (id, flags.log_dir.clone()));
            let mut args = args.clone();
            // An order with a roster needs no fleet: its members find each other by it. Nor do
            // rollouts whose nodes are named.
            let is_placed = rollout.as_ref().is_none_or(rollout::Settings::is_placed);
            let needs_fleet = order.is_none() || is_by_fleet || chat.is_some() || !is_placed;
            args.open |= !needs_fleet && seeds::running(&args.node.config, false)?.is_none();
            run::peer(&PeerSettings::from_args(&args)?, ServiceSettings { chat, order, rollout })
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
        assert_eq!((args.run.port, args.run.ip.to_string()), (Some(6001), "127.0.0.1".to_owned()));
        assert_eq!(args.run.node.config.to_str(), Some("config.txt"));
        assert_eq!(args.run.node.data.to_str(), Some("data"));
        assert_eq!(args.run.node.output.to_str(), Some("outputfile.txt"));
        assert_eq!(args.run.limits.gossip_interval.to_string(), "5s");
        assert_eq!(args.run.limits.gossip_max, 10);
    }

    #[test]
    fn a_seed_is_known_by_its_number() {
        let parse = |line: &str| SeedArgs::try_parse_from(line.split_whitespace());
        let args = parse("seed --id 1 --port 5001").unwrap();
        assert_eq!((args.run.id, args.run.port), (Some(1), Some(5001)));
        assert_eq!(parse("seed --id 2").unwrap().run.port, None);
        assert_eq!(parse("seed").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("seed --id 0").unwrap_err().kind(), ErrorKind::ValueValidation);
        assert!(matches!(
            peer("peer seed --id 1 --port 5001").unwrap().command,
            Some(PeerCommand::Seed(Deferred(SeedArgs {
                run: SeedRunArgs { id: Some(1), .. },
                ..
            })))
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
    fn services_of_a_peer_with_a_cluster_key_are_refused_with_the_command_to_type() {
        let text = |line: &str| run_peer(&peer(line).unwrap().run).unwrap_err().to_string();
        let chat = text("peer --port 6001 --chat 2 --cluster-key fleet.key");
        assert!(chat.ends_with("peer chat --id 2 --port 7001 --cluster-key fleet.key"), "{chat}");
        let line = "peer --port 6001 --open --rollout a --http 127.0.0.1:1 --cluster-key fleet.key";
        let typed = text(line);
        let command = typed.split_once(": ").unwrap().1;
        assert!(peer(command).unwrap().run.rollout.id.is_some(), "{typed}");
    }

    #[test]
    fn a_question_without_a_list_of_seeds_names_the_one_that_needs_none() {
        let line = peer("peer members --config no-such-file.txt").unwrap();
        let text = super::peer(&line).unwrap_err().to_string();
        assert!(text.contains("create it") && text.ends_with("peer discover"), "{text}");
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
        for line in
            ["peer --port 6001 --chat x", "peer --port 70000", "peer chat --id 0 --port 7001"]
        {
            let text = peer(line).unwrap_err().to_string();
            assert!(text.contains("write a number from 1 to "), "{line}: {text}");
        }
        assert_eq!(refused("peer --port 6001 --log-format xml"), ErrorKind::InvalidValue);
        assert_eq!(refused("peer --port 6001 --quorum all"), ErrorKind::InvalidValue);
    }
}
