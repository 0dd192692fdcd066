//! Flags of `peer chat`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::command::{HISTORY, HISTORY_MAX};
use super::model::GENERAL;
use crate::cli::args::parse_number;
use crate::cli::log::{LogFormat, LogLevel};
use crate::cli::order::args::OrderFlag;
use crate::cli::size::Size;
use crate::cli::span::Span;
use crate::machine::chat::Config;
use crate::proto::chat::entry::MemberId;

const EXAMPLES: &str = "\
Examples:
  peer chat --id 1 --port 6001                            found a group
  peer chat --id 2 --port 6002 --seed 1:127.0.0.1:6001    join it, by any of its members
  peer chat --id 3 --port 6003 --join 127.0.0.1:6001      the same, without that member's id
  peer chat --id 2 --port 6002                            come back: the log knows the group
  peer chat --order bft --id 1 --port 6001 --roster r.txt one order although a third may lie
  peer chat                                               a screen more for the one running here
  peer chat status                                        what the one running here is doing
  peer chat send 'hello'                                  say something by it; its number comes back
  peer chat verify data/logs/peer_*.log              whether logs are equal, or where they part
  peer chat recover --i-know                         go on alone when the majority is gone for good

A message is shown with its number when a majority of the group has it on disk; it never changes
then. What is typed is kept until it is final, across leaders and restarts. On a terminal there is
a whole screen. With --plain, with TERM=dumb, or when input or output is no terminal, there are
plain lines: the prompt at the start and after each answer, [seq=N] <peer_S>: TEXT for each message,
and lines that begin with * for what happens. Lines never follow a prompt on its line. At the end of
its input the program waits up to 10 s until what was typed is final, and ends; not with --stay.

Numbers have gaps: a leader's first entry and changes of the group have places in the order too.
Exit codes: 0 after /quit, 1 for the machine or network, 2 for wrong flags, 3 when it ends while
messages are pending; they are kept, and sent at the next start, 4 when a text of a script was
refused (too long, no UTF-8), 5 when no answer came to an order that may have been carried out.";

/// Arguments of `peer chat`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
pub struct ChatArgs {
    /// A question or an order, instead of taking part.
    #[command(subcommand)]
    pub command: Option<ChatCommand>,
    /// The id of this member; the highest id that is there leads. No other member may have it.
    /// Without --port: of the one that runs here, to which a screen is attached
    #[arg(long, value_name = "N",
        value_parser = parse_number::<u32>)]
    pub id: Option<u32>,
    /// The TCP port to listen on
    #[arg(long, value_name = "P", requires = "id",
        value_parser = parse_number::<u16>)]
    pub port: Option<u16>,
    /// The address to listen on
    #[arg(long, default_value = "0.0.0.0", requires = "port")]
    pub host: IpAddr,
    /// The address at which others call this one [default: --host, or what the way to a seed has]
    #[arg(long, value_name = "IP", requires = "port")]
    pub advertise: Option<IpAddr>,
    /// A member of the group, its id first if that is known; may be given more than once, and some
    /// may be down or have no address just now. Without any, without a group in the log and without
    /// a fleet to ask, one is founded
    #[arg(long, visible_alias = "join", value_name = "[ID:]HOST:PORT", requires = "port")]
    pub seed: Vec<MemberAddr>,
    /// The file that names the seeds of a fleet. If enough of them run, this member becomes one of
    /// the fleet, finds the group by it, and whose end the seeds certify is removed [default:
    /// config.txt, if it is there and they run]
    #[arg(long, value_name = "FILE", requires = "port")]
    pub config: Option<PathBuf>,
    /// Folder of the log, as peer_N.log
    #[arg(long, value_name = "DIR", default_value = "data/logs", requires = "port")]
    pub log_dir: PathBuf,
    /// The directory of the key and of the control socket, which are in chat-N
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Plain lines, also on a terminal
    #[arg(long)]
    pub plain: bool,
    /// Show only answers: no messages and nothing of the group; for programs
    #[arg(long, hide = true)]
    pub quiet: bool,
    /// Go on after the end of the input, until SIGTERM
    #[arg(long)]
    pub stay: bool,
    /// The room to begin in
    #[arg(long, value_name = "NAME", default_value = GENERAL, value_parser = super::command::room)]
    pub room: String,
    /// Interval at which a leader sends a sign of life
    #[arg(long, value_name = "TIME", requires = "port",
        default_value_t = Span(Config::default().heartbeat))]
    pub heartbeat: Span,
    /// The silence after which a leader is replaced, and one that hears no majority steps down
    #[arg(long, value_name = "TIME", requires = "port",
        default_value_t = Span(Config::default().leader_timeout))]
    pub leader_timeout: Span,
    /// Follow a lower id that leads, instead of taking over from it
    #[arg(long, requires = "port")]
    pub no_takeover: bool,
    /// Bytes of a message at most; give it to all members, up to 16K
    #[arg(long, value_name = "SIZE", default_value = "16K", requires = "port")]
    pub message_max: Size,
    /// The group's cluster key, made by seed keygen --cluster-key: links are encrypted, and only
    /// its holders are listened to
    #[arg(long, value_name = "FILE", requires = "port")]
    pub cluster_key: Option<PathBuf>,
    /// The order of the messages, chosen when the group is founded: crash trusts all members, and
    /// anybody can join; bft holds although up to a third of the members of a roster lie
    #[arg(long, value_name = "ORDER", value_enum, default_value_t, requires = "port")]
    pub order: ChatOrder,
    /// The members of an order bft: a line ID IP:PORT KEY each (peer order keygen prints it), the
    /// same on all members. NAME tells orders of the same members apart
    #[arg(long, value_name = "[NAME=]ROSTER", requires = "port", conflicts_with_all = [
        "advertise", "seed", "config", "heartbeat", "leader_timeout", "no_takeover", "message_max",
        "cluster_key",
    ])]
    pub roster: Option<OrderFlag>,
    /// Format of lines on standard error, which are for programs and operators
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least important lines to show there
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Error)]
    pub log_level: LogLevel,
}

/// Order of the messages of a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ChatOrder {
    /// Members may crash, and are trusted not to lie.
    #[default]
    Crash,
    /// Up to a third of the members may lie.
    Bft,
}

/// Questions and orders to the chat that runs here.
#[derive(Clone, Debug, Subcommand)]
pub enum ChatCommand {
    /// Show who it is, its role and term, who leads, who is known and what is pending
    Status(ChatAskArgs),
    /// Show the last final messages
    History(ChatHistoryArgs),
    /// Say something by it, and wait until that is final
    Send(ChatSendArgs),
    /// Compare the logs of all members, or of files, and say where they part
    Verify(ChatVerifyArgs),
    /// Remove a member from the group for good
    Remove(ChatRemoveArgs),
    /// Go on alone, as a new group, when the majority is gone for good
    Recover(ChatRecoverArgs),
}

/// The chat to ask, and the form of the output.
#[derive(Clone, Debug, Args)]
pub struct ChatAskArgs {
    /// The id of the member that is meant [default: the one that runs]
    #[arg(long, value_name = "N")]
    pub id: Option<u32>,
    /// The directory of its key
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `peer chat history`.
#[derive(Clone, Debug, Args)]
pub struct ChatHistoryArgs {
    /// The number of messages
    #[arg(value_name = "N", default_value_t = HISTORY, value_parser = count)]
    pub count: usize,
    /// The chat to ask.
    #[command(flatten)]
    pub ask: ChatAskArgs,
}

/// `peer chat send`.
#[derive(Clone, Debug, Args)]
pub struct ChatSendArgs {
    /// The text of the message
    #[arg(value_name = "TEXT")]
    pub text: String,
    /// The room to say it in
    #[arg(long, value_name = "NAME", default_value = GENERAL, value_parser = super::command::room)]
    pub room: String,
    /// Time to wait until it is final; it is kept and sent in any case
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(10)))]
    pub wait: Span,
    /// The chat to ask.
    #[command(flatten)]
    pub ask: ChatAskArgs,
}

/// `peer chat verify`.
#[derive(Clone, Debug, Args)]
pub struct ChatVerifyArgs {
    /// Logs to compare, whether or not their members run [default: what the members
    /// of the chat that runs here have, else all of data/logs]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Compare all peer_*.log there, without asking a running chat [default: data/logs]
    #[arg(long, value_name = "DIR", conflicts_with = "files")]
    pub log_dir: Option<PathBuf>,
    /// The chat to ask.
    #[command(flatten)]
    pub ask: ChatAskArgs,
}

/// `peer chat remove`.
#[derive(Clone, Debug, Args)]
pub struct ChatRemoveArgs {
    /// The id of the member to remove
    #[arg(value_name = "ID", value_parser = parse_number::<u32>)]
    pub whom: u32,
    /// The chat to ask.
    #[command(flatten)]
    pub ask: ChatAskArgs,
}

/// `peer chat recover`.
#[derive(Clone, Debug, Args)]
#[command(after_help = RECOVER)]
pub struct ChatRecoverArgs {
    /// I know that most members of the group are gone for good, or will join anew
    #[arg(long)]
    pub i_know: bool,
    /// The directory of its log, if it does not run
    #[arg(long, value_name = "DIR", default_value = "data/logs")]
    pub log_dir: PathBuf,
    /// The chat that is meant; one that does not run is named by its id.
    #[command(flatten)]
    pub ask: ChatAskArgs,
}

const RECOVER: &str = "\
The member goes on alone with all messages in its log, those too that were not final. What only the
others have is lost to it. It is a new group from then on, which remembers what it was, by whom and
when it was recovered, and whom that left out: these are removed for good. Nothing is ever put
together again by itself: whoever was left out learns it when it comes back, is told which of its
own messages are not final, and joins anew with a new --data, --log-dir and --id. So do members that
are still there: recover one of them, the one whose status shows the highest final number. Two that
are recovered are two groups.";

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|it| (1..=HISTORY_MAX).contains(it));
    count.ok_or_else(|| format!("a number from 1 to {HISTORY_MAX}"))
}

/// Address at which a member of the group may be: `ID:HOST:PORT`, or `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddr {
    /// Id of the member that is expected there.
    pub id: Option<MemberId>,
    /// The address or name of the machine, an IPv6 address in brackets.
    pub host: String,
    /// Port of the member.
    pub port: u16,
}

impl FromStr for MemberAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write ID:HOST:PORT or HOST:PORT, as in 1:127.0.0.1:6001";
        let (rest, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(WRONG)?;
        let (id, host) = match rest.split_once(':') {
            Some((id, host)) if !rest.starts_with('[') => (Some(id), host),
            _ => (None, rest),
        };
        let id = id
            .map(|id| id.parse().ok().filter(|id| *id > 0).map(MemberId).ok_or(WRONG))
            .transpose()?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || (inner.is_none() && host.contains([':', '[', ']'])) {
            return Err(WRONG);
        }
        Ok(Self { id, host: host.to_owned(), port })
    }
}

impl fmt::Display for MemberAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{}:", id.0)?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{FromArgMatches as _, Subcommand as _};

    use super::*;
    use crate::cli::commands::{PeerArgs, PeerCommand};

    fn parsed(line: &str) -> Result<ChatArgs, clap::Error> {
        let command = PeerCommand::augment_subcommands(clap::Command::new("peer"));
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        let command = PeerCommand::from_arg_matches(&matches)?;
        let PeerCommand::Chat(args) = command else { panic!("{command:?}") };
        Ok(args.0)
    }

    fn refused(line: &str) -> ErrorKind {
        parsed(line).map(|args| panic!("{line}: {args:?}")).unwrap_err().kind()
    }

    #[test]
    fn a_place_is_an_id_a_host_and_a_port() {
        let place = |id: Option<u32>, host: &str, port| {
            Ok(MemberAddr { id: id.map(MemberId), host: host.into(), port })
        };
        let cases = [
            ("1:127.0.0.1:6001", place(Some(1), "127.0.0.1", 6001)),
            ("127.0.0.1:6001", place(None, "127.0.0.1", 6001)),
            ("localhost:6001", place(None, "localhost", 6001)),
            ("2:localhost:6001", place(Some(2), "localhost", 6001)),
            ("[::1]:6001", place(None, "[::1]", 6001)),
            ("3:[::1]:6001", place(Some(3), "[::1]", 6001)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<MemberAddr>(), expected, "{text}");
            assert_eq!(text.parse::<MemberAddr>().unwrap().to_string(), text);
        }
        let wrong =
            ["", "6001", ":6001", "a:0", "a:65536", "0:a:1", "x:a:1", "1::6001", "::1:6001"];
        for text in wrong {
            assert!(text.parse::<MemberAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_flags_of_the_quick_start_are_taken() {
        let args =
            parsed("peer chat --id 2 --port 6002 --seed 1:127.0.0.1:6001 --join b:2").unwrap();
        assert_eq!((args.id, args.port), (Some(2), Some(6002)));
        assert_eq!(args.seed.len(), 2);
        assert_eq!(args.host.to_string(), "0.0.0.0");
        assert_eq!(
            (args.heartbeat.to_string(), args.leader_timeout.to_string().as_str()),
            ("800ms".to_owned(), "2500ms")
        );
        assert_eq!(args.message_max, Size(16_384));
        assert!(!args.no_takeover && !args.plain && !args.stay);
        assert_eq!(refused("peer chat --port 6001"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("peer chat --seed a:1"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("peer chat --id 1 --log-dir x"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("peer chat --id 0 --port 1"), ErrorKind::ValueValidation);
        assert_eq!(refused("peer chat --id 1 --port 1 --seed x"), ErrorKind::ValueValidation);
        assert_eq!(refused("peer chat --id 1 --port 1 --room a\u{1}"), ErrorKind::ValueValidation);
    }

    #[test]
    fn a_screen_is_attached_without_a_port_and_with_no_flag_of_the_chat_itself() {
        for line in ["peer chat", "peer chat --id 2 --data x --plain --stay --room cats"] {
            assert_eq!(parsed(line).unwrap().port, None, "{line}");
        }
    }

    #[test]
    fn questions_need_neither_id_nor_port() {
        use clap::CommandFactory as _;
        PeerArgs::command().debug_assert();
        assert!(matches!(
            parsed("peer chat status").unwrap().command,
            Some(ChatCommand::Status(_))
        ));
        let args = parsed("peer chat history 5 --id 2 --json").unwrap();
        let Some(ChatCommand::History(args)) = args.command else { panic!("{args:?}") };
        assert_eq!((args.count, args.ask.id, args.ask.json), (5, Some(2), true));
        assert_eq!(refused("peer chat history 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("peer chat remove 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("peer chat send"), ErrorKind::MissingRequiredArgument);
    }
}
