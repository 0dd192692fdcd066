//! Flags of a node that rolls out, and arguments of `peer rollout`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

pub use super::ask_args::NodeAskArgs;
use super::start_args::StartArgs;
use crate::cli::span::Span;
use crate::proto::rollout::{ModelId, NodeId, TxId};
use crate::runtime::dataplane::Servers;
use crate::runtime::rollout::{KillPoint, NodeAddr};

/// The flags by which a peer takes part in rollouts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Rollouts (with --rollout)")]
pub struct RolloutNodeArgs {
    /// Take part in rollouts by this name; the other flags here need it. --http is then the address
    /// of the data plane (POST /predict, GET /routing, /health, /metrics), and --join HOST:PORT
    /// asks the node there to be let in [default: none, a peer of a fleet and nothing else]
    #[arg(long = "rollout", visible_alias = "id", value_name = "NAME")]
    pub id: Option<NodeId>,
    /// A version and the servers that answer for it, as in v1=http://127.0.0.1:9001 or
    /// v2=https://a,https://b; once for each version [default: none, a built-in model echoes]
    #[arg(long, value_name = "NAME=URL,…", requires = "id")]
    pub serve: Vec<Served>,
    /// A node that takes part, its key behind an @ if it is known; once for each, the same on every
    /// node. The first history begins when all have proved their keys [default: those of --roster,
    /// or found by the fleet of config.txt if its seeds run, else this node alone]
    #[arg(long, value_name = "NAME=HOST:PORT[@KEY]", requires = "id",
        conflicts_with_all = ["join", "roster"])]
    pub node: Vec<NodeAddr>,
    /// The same as a file, one node a line; # begins a comment [default: none]
    #[arg(long, value_name = "FILE", requires = "id", conflicts_with = "join")]
    pub roster: Option<PathBuf>,
    /// The version that is served before the first rollout, the same on every node
    #[arg(long, value_name = "NAME", default_value = "v1", requires = "id")]
    pub stable: ModelId,
    /// The version that the first state names as the next one, the same on every node
    #[arg(long, value_name = "NAME", default_value = "v2", requires = "id")]
    pub canary: ModelId,
    /// Keep decisions in a log of the nodes too, so that a dead coordinator blocks nobody for
    /// long: chat (also without a value), which a majority of the nodes keeps, or bft, the order of
    /// --order, where no coordinator can show two ends of a transaction; the same on every node
    /// [default: none]
    #[arg(long, value_name = "LOG", requires = "id", value_enum, num_args = 0..=1,
        require_equals = true, default_missing_value = "chat")]
    pub decide_in_log: Option<DecisionLogKind>,
    /// Let any node that proves a key take part, without peer rollout admit
    #[arg(long, requires = "id")]
    pub admit_all: bool,
    /// Folder of the log of transactions, which is NAME.log, and of the chat's, peer_N.log
    #[arg(long, value_name = "DIR", default_value = "data/logs")]
    pub log_dir: PathBuf,
    /// Settings of the data plane as a proxy.
    #[command(flatten)]
    pub proxy: super::proxy_args::ProxyArgs,
    /// Kill this process at a named point of its first transaction, to see that nothing is lost.
    #[cfg(feature = "fault-injection")]
    #[arg(long, value_name = "POINT", hide = true, requires = "id")]
    pub kill_at: Option<KillPoint>,
}

impl RolloutNodeArgs {
    /// Point at which the process kills itself, if it was built with such points.
    pub(super) const fn kill_at(&self) -> Option<KillPoint> {
        #[cfg(feature = "fault-injection")]
        {
            self.kill_at
        }
        #[cfg(not(feature = "fault-injection"))]
        {
            None
        }
    }
}

/// Kind of the log that keeps decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecisionLogKind {
    /// The log of a chat of the nodes.
    Chat,
    /// The Byzantine order of this peer.
    Bft,
}

/// Version and the servers that answer for it, `NAME=URL,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Name of the version.
    pub model: ModelId,
    /// Addresses of its servers.
    pub servers: Servers,
}

impl FromStr for Served {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (model, url) =
            text.split_once('=').ok_or("write NAME=URL, as in v1=http://127.0.0.1:9001")?;
        Ok(Self { model: model.parse()?, servers: url.parse()? })
    }
}

const EXAMPLES: &str = "\
Examples:
  peer --port 60001 --id node-a --http 127.0.0.1:50051 --node node-b=127.0.0.1:60002 \\
       --node node-c=127.0.0.1:60003 --serve v1=http://127.0.0.1:9001 \\
       --serve v2=http://127.0.0.1:9002   a node; likewise node-b and node-c
  peer rollout start --from v1 --to v2 --steps 5,20,50,100 --interval 30s \\
       --gate p95=200ms --gate error=1%   a little at a time, on all nodes together
  peer rollout status --watch             each node: version, weights, p95, error rate, votes
  peer rollout explain step-node-a-1-2    who voted how, and why it ended as it did
  peer rollout serve v3=http://127.0.0.1:9003   a server of a third version, at this node
  peer rollout query                      ask each node's data plane, and one prediction each
  curl -d '{\"x\":1}' http://127.0.0.1:50051/predict

Every step is a transaction: all nodes take it, or none does. A gate that fails rolls back by
itself. Gates: p50=10ms, p95=200ms, p99=1s, error=1%, 4xx=5%, 5xx=1%, connect=0%, p95<=1.2x (against
the stable version), error<=2x, 'prom:QUERY<0.01@http://prometheus:9090', http:http://host/ready.
Exit codes: 0 done, 1 refused or aborted, 2 for wrong flags, 5 when no answer came to an order that
may have been carried out.";

/// Arguments of `peer rollout`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RolloutArgs {
    /// Question or order.
    #[command(subcommand)]
    pub command: RolloutCommand,
}

/// Questions and orders to the node that runs here.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// Begin a rollout
    Start(StartArgs),
    /// Show each node: version, weights, status, health, votes, and the nodes away or in doubt
    Status(WatchArgs),
    /// Take no further step until resumed
    Pause(NodeAskArgs),
    /// Take steps again
    Resume(NodeAskArgs),
    /// Take the next step now, or with --full the last one; after the last step: finish
    Promote(PromoteArgs),
    /// End the running rollout: everything to the stable version
    Abort(NodeAskArgs),
    /// Go back to the version before, also after a rollout has finished
    Rollback(NodeAskArgs),
    /// Begin the last rollout again that was aborted or rolled back
    Retry(NodeAskArgs),
    /// Show what was committed and what was aborted, the latest last
    History(HistoryArgs),
    /// Say how a transaction ended: its content, each vote, what proves it
    Explain(ExplainTxArgs),
    /// End a transaction that is stuck, against all rules; recorded for ever
    Resolve(ResolveArgs),
    /// Let a node take part that asks for it
    Admit(AdmitArgs),
    /// Let a node take part no more; it must agree, as all others, unless it is gone for good; in
    /// a fleet the dead are taken out by the seeds' word, and let in again when they are back
    Remove(RemoveArgs),
    /// Have servers answer for more versions from now on, or other ones for the same
    Serve(ServeArgs),
    /// Have no server for versions any more that are not served now
    Unserve(UnserveArgs),
    /// Ask data planes what they serve, and for one prediction each
    Query(QueryArgs),
    /// Run a small model server, slow or failing if told so
    Model(ModelArgs),
}

/// Arguments of `peer rollout status`.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Show it again each second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout promote`.
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// Everything to the new version at once
    #[arg(long)]
    pub full: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout history`.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Number of transactions of each kind
    #[arg(value_name = "N", default_value_t = 20)]
    pub count: usize,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainTxArgs {
    /// The transaction, as history and status name it
    #[arg(value_name = "TXID")]
    pub txid: TxId,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout resolve`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("end").required(true).args(["commit", "abort"])))]
pub struct ResolveArgs {
    /// The transaction that a node is in doubt about
    #[arg(value_name = "TXID")]
    pub txid: TxId,
    /// It was committed
    #[arg(long)]
    pub commit: bool,
    /// It was aborted
    #[arg(long)]
    pub abort: bool,
    /// I know how the nodes that cannot be asked ended it, and that a wrong word splits the fleet
    #[arg(long, required = true)]
    pub i_know: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout remove`.
#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// Names of the nodes to take out
    #[arg(value_name = "NAME", required = true)]
    pub nodes: Vec<NodeId>,
    /// They are gone for good: all others agree without them; recorded for ever
    #[arg(long, requires = "i_know")]
    pub gone: bool,
    /// I know that the nodes named are gone, and that nobody calls those gone that remain, no
    /// operator and in a fleet no seeds: two parts that did it to each other would split the fleet
    #[arg(long, requires = "gone")]
    pub i_know: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout admit`.
#[derive(Clone, Debug, Args)]
pub struct AdmitArgs {
    /// The node; with the first digits of its key where several came under that name, or all 64
    #[arg(value_name = "NAME[@KEY]")]
    pub node: Admittee,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Node that is to be let in, with the first digits of its key.
#[derive(Clone, Debug)]
pub struct Admittee {
    /// Name of the node.
    pub node: NodeId,
    /// First digits of the key, in lower-case hexadecimal; empty if none were given.
    pub key: String,
}

impl FromStr for Admittee {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (node, key) = text.split_once('@').unwrap_or((text, ""));
        let is_digit = |it: u8| it.is_ascii_hexdigit();
        if !key.bytes().all(is_digit) || key.len() > 64 || key.is_empty() && text.contains('@') {
            return Err("a key is of up to 64 hexadecimal digits");
        }
        Ok(Self { node: node.parse()?, key: key.to_ascii_lowercase() })
    }
}

/// Arguments of `peer rollout serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// A version and the server that answers for it, as in v3=http://127.0.0.1:9003; once for each
    #[arg(value_name = "NAME=URL", required = true)]
    pub served: Vec<Served>,
    /// On all nodes, by a transaction: the same address on each
    #[arg(long)]
    pub everywhere: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout unserve`.
#[derive(Clone, Debug, Args)]
pub struct UnserveArgs {
    /// A version; once for each
    #[arg(value_name = "NAME", required = true)]
    pub versions: Vec<ModelId>,
    /// On all nodes, by a transaction
    #[arg(long)]
    pub everywhere: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

/// Arguments of `peer rollout query`.
#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// The data planes, of all nodes for a verdict [default: those of the nodes that run here, or
    /// 127.0.0.1:50051 to 50053 if none does]
    #[arg(value_name = "HOST:PORT")]
    pub at: Vec<String>,
    /// Folder in which the nodes that run here keep their keys
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// The body of the prediction
    #[arg(long, value_name = "JSON", default_value = "{\"x\":1}")]
    pub body: String,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `peer rollout model`.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Address to listen at; port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT")]
    pub listen: std::net::SocketAddr,
    /// Name of its version
    #[arg(long, value_name = "NAME")]
    pub name: ModelId,
    /// Time that it takes to answer [default: no time at all]
    #[arg(long, value_name = "TIME")]
    pub delay: Option<Span>,
    /// Number of requests in a hundred that it answers with 500
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=100))]
    pub fail: u32,
    /// End when standard input does, too: for models that a program has started
    #[arg(long)]
    pub until_stdin_closes: bool,
}
