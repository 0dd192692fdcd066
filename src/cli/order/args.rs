//! Flags of a peer that takes part in a Byzantine order, and arguments of `peer order`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::parse_number;
use crate::cli::span::Span;
use crate::proto::bft::OrderId;

/// The flags by which a peer takes part in a Byzantine order.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "A Byzantine order (with --order)")]
pub struct OrderNodeArgs {
    /// Take part in an order of entries that up to a third of its members cannot corrupt: those of
    /// this roster, a line ID IP:PORT KEY each (peer order keygen prints it), the same on all
    /// members. NAME tells orders of the same members apart. Needs no fleet [default: none]
    #[arg(long, value_name = "[NAME=]ROSTER")]
    pub order: Option<OrderFlag>,
    /// Let the fleet found the order, without a roster: by the first so many of its members that
    /// are started with --order NAME and this; the same on all. Their keys are certified by the
    /// seeds, which need --quorum byzantine, as all nodes of the fleet do [default: none]
    #[arg(long, value_name = "N", requires = "order",
        value_parser = clap::value_parser!(u8).range(1..=64))]
    pub order_size: Option<u8>,
    /// Put the seeds' certificates of admissions and removals into the order, as this peer learns
    /// them: so the history of the fleet's members has places and proofs
    #[arg(long, requires = "order")]
    pub order_certificates: bool,
    /// The log of the order comes from a backup, or is gone for good: stay silent until the other
    /// members have renewed this one. To be given once, not at each start
    #[arg(long, requires = "order")]
    pub restored: bool,
    /// Time without progress after which the order's next leader is wished for; the same on all
    #[arg(long, value_name = "TIME", requires = "order",
        default_value_t = Span(crate::machine::bft::Config::default().patience))]
    pub patience: Span,
}

/// Name of an order and the file of its roster, `NAME=FILE` or `FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFlag {
    /// Name of the order, the same on all members.
    pub name: String,
    /// File of the roster.
    pub roster: PathBuf,
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
}

impl OrderFlag {
    /// The flag as a name alone, of an order without a roster.
    pub(super) fn bare_name(&self) -> Option<String> {
        let text = self.roster.to_str().filter(|it| is_name(it))?;
        (self.name == UNNAMED).then(|| text.to_owned())
    }
}

/// Name of an order whose flag has none.
const UNNAMED: &str = "order";

impl FromStr for OrderFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, file) = text.split_once('=').unwrap_or((UNNAMED, text));
        if !is_name(name) || file.is_empty() {
            return Err("write ROSTER or NAME=ROSTER, a name of 1 to 64 letters, digits and -_.");
        }
        Ok(Self { name: name.to_owned(), roster: file.into() })
    }
}

const EXAMPLES: &str = "\
Examples:
  peer order keygen --id 1 --port 6001      this member's line of the roster; on each machine
  peer --port 6001 --order roster.txt       take part, with all those lines in roster.txt
  peer --port 6001 --order ledger --order-size 4 --quorum byzantine
                                            or found it by a fleet's members, without a roster
  peer order append 'pay 5 to b'            its place, once it is final
  tail -f events | peer order append        a place for each line
  peer order follow                         the entries from the first on, and each new one
  peer order follow 17 --json --proofs      from place 17 on, each with its proof, for programs
  peer order proof 17 > proof               one line that anybody can check
  peer order verify --group GROUP proof     checks it, with the group's identity and nothing else
  peer order verify data/logs/order_*       checks whole logs, and whether they are one order
  peer order status                         who leads, who is reached, suspected or has lied
  peer order members remove 4               consents, on each of a quorum of machines

Of n members up to floor((n-1)/3) may lie, and ceil((n+f+1)/2) decide: 4 bear one liar, 7 two.
An entry that is final has its place for good. What is proposed is kept until it is final, also
while too few members are in reach. Exit codes: 0 done, 1 for the machine or network, and when a
proof or a log does not hold, 2 for wrong flags, 3 not final in time (kept, and proposed on), 4
refused, nothing kept, 5 when no answer came to an order that may have been carried out.";

/// Arguments of `peer order`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct OrderArgs {
    /// Question or order.
    #[command(subcommand)]
    pub command: OrderCommand,
}

/// Questions and orders to the member of an order that runs here, and checks that need none.
#[derive(Clone, Debug, Subcommand)]
pub enum OrderCommand {
    /// Propose entries, and print the place of each once it is final
    Append(OrderAppendArgs),
    /// Print the entries from a place on, and each new one as it becomes final
    Follow(OrderFollowArgs),
    /// Print the proof that an entry has its place: one line, for anybody
    Proof(OrderProofArgs),
    /// Check proofs or whole logs, without a running member
    Verify(OrderVerifyArgs),
    /// Show the group, its members, who leads, and what is final
    Status(OrderAskArgs),
    /// Show the members that have signed statements which exclude each other
    Evidence(OrderAskArgs),
    /// Wish for the next leader, as an operator who sees that this one does harm
    Suspect(OrderAskArgs),
    /// Consent to a change of the members, which is made once a quorum has
    Members(OrderMembersArgs),
    /// Make this member's key, if it has none, and print its line of the roster
    Keygen(OrderKeygenArgs),
}

/// The member to ask, and the form of the output.
#[derive(Clone, Debug, Args)]
pub struct OrderAskArgs {
    /// The port of the member that is meant [default: the one that runs here]
    #[arg(long, value_name = "P", value_parser = parse_number::<u16>)]
    pub port: Option<u16>,
    /// Folder of its key
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `peer order append`.
#[derive(Clone, Debug, Args)]
pub struct OrderAppendArgs {
    /// The entries, up to 16 KiB each; without any, or as -, each line of the input is one
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// Time to wait until an entry is final; it is kept and proposed in any case
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(10)))]
    pub wait: Span,
    /// The member to ask.
    #[command(flatten)]
    pub ask: OrderAskArgs,
}

/// `peer order follow`.
#[derive(Clone, Debug, Args)]
pub struct OrderFollowArgs {
    /// The place to begin at
    #[arg(value_name = "FROM", default_value_t = 1, value_parser = parse_number::<u64>)]
    pub from: u64,
    /// Print each entry's proof too, as JSON
    #[arg(long, requires = "json")]
    pub proofs: bool,
    /// End after so many entries [default: go on until the member stops]
    #[arg(long, value_name = "N", value_parser = parse_number::<u64>)]
    pub count: Option<u64>,
    /// The member to ask.
    #[command(flatten)]
    pub ask: OrderAskArgs,
}

/// `peer order proof`.
#[derive(Clone, Debug, Args)]
pub struct OrderProofArgs {
    /// The place of the entry
    #[arg(value_name = "PLACE", value_parser = parse_number::<u64>)]
    pub place: u64,
    /// The member to ask.
    #[command(flatten)]
    pub ask: OrderAskArgs,
}

/// `peer order verify`.
#[derive(Clone, Debug, Args)]
pub struct OrderVerifyArgs {
    /// Files with a proof on each line, or logs: the folder order_N in --log-dir
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The identity of the group, 64 digits, from somebody you trust; peer order status has it.
    /// Proofs need it; without it logs are compared with each other alone
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub group: Option<OrderId>,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `peer order members`.
#[derive(Clone, Debug, Args)]
pub struct OrderMembersArgs {
    /// The change to which the operator consents.
    #[command(subcommand)]
    pub change: MembersChange,
}

/// Changes of the members to which an operator consents.
#[derive(Clone, Debug, Subcommand)]
pub enum MembersChange {
    /// Add a member; it follows already, with a line in its own roster that begins with +
    Add {
        /// Its line of the roster, as peer order keygen prints it: ID IP:PORT KEY
        #[arg(value_name = "LINE", required = true, num_args = 1..=3)]
        line: Vec<String>,
        /// The member to ask.
        #[command(flatten)]
        ask: OrderAskArgs,
    },
    /// Remove a member
    Remove {
        /// The id of the member
        #[arg(value_name = "ID", value_parser = parse_number::<u32>)]
        id: u32,
        /// The member to ask.
        #[command(flatten)]
        ask: OrderAskArgs,
    },
}

/// `peer order keygen`.
#[derive(Clone, Debug, Args)]
pub struct OrderKeygenArgs {
    /// The id of the member in the group; no other member may have it
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    pub id: u32,
    /// The port of its peer
    #[arg(long, value_name = "P", value_parser = parse_number::<u16>)]
    pub port: u16,
    /// The address of its peer
    #[arg(long, default_value = "127.0.0.1")]
    pub ip: IpAddr,
    /// Folder in which nodes keep their keys, each in a directory of its own
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

fn group(text: &str) -> Result<OrderId, &'static str> {
    OrderId::parse(text).ok_or("64 hexadecimal digits, as peer order status prints them")
}
