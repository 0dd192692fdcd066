//! Flags of the commands that use a running peer.

use std::path::PathBuf;

use clap::Args;

use super::questions::parse_endpoint;
use crate::cli::span::Span;
use crate::model::Endpoint;

const SUBSCRIBE_HELP: &str = "\
Prints one line a message, `ORIGIN: text`, until Ctrl-C. Messages that are no text are shown as \
their size; --json has all data, in base64.";

const PUBLISH_HELP: &str = "\
Examples:
  peer publish news \"hello\"
  peer publish news --file report.pdf
  tail -f app.log | peer publish news --lines

A peer counts as known to have the message when its neighbors have said so. Exit code 1: not \
published.";

const SEND_HELP: &str = "\
Exit code 0: that peer took it, once: a program that reads its inbox there, or, while there is \
none, its log. 1: it was not delivered, or nobody can know; the text says which. Without an \
answer it is repeated after 1, 2, 4, 8 and 16 s, half a minute in all; --retries 0 tries once.";

/// The running peer to use, and the form of the output.
#[derive(Clone, Debug, Args)]
pub struct UseArgs {
    /// The port of a peer of this machine [default: the lowest that runs here]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// Folder in which nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `peer subscribe`.
#[derive(Clone, Debug, Args)]
#[command(after_help = SUBSCRIBE_HELP)]
pub struct SubscribeArgs {
    /// The topic, 1 to 128 bytes
    pub topic: String,
    /// End after so many messages [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The peer to use.
    #[command(flatten)]
    pub through: UseArgs,
}

/// Arguments of `peer inbox`.
#[derive(Clone, Debug, Args)]
pub struct InboxArgs {
    /// End after so many messages [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The peer to use.
    #[command(flatten)]
    pub through: UseArgs,
}

/// Arguments of `peer publish`.
#[derive(Clone, Debug, Args)]
#[command(after_help = PUBLISH_HELP)]
pub struct PublishArgs {
    /// The topic, 1 to 128 bytes
    pub topic: String,
    /// Data of the message.
    #[command(flatten)]
    pub content: ContentArgs,
    /// Publish each line of standard input as a message of its own, as it comes
    #[arg(long, conflicts_with_all = ["text", "file"])]
    pub lines: bool,
    /// Time to wait for reports of the peers that have it
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub wait: Span,
    /// The peer to use.
    #[command(flatten)]
    pub through: UseArgs,
}

/// Arguments of `peer send`.
#[derive(Clone, Debug, Args)]
#[command(after_help = SEND_HELP)]
pub struct SendArgs {
    /// The receiver's IP:PORT
    #[arg(value_name = "IP:PORT", value_parser = parse_endpoint)]
    pub to: Endpoint,
    /// Data of the message.
    #[command(flatten)]
    pub content: ContentArgs,
    /// The topic, 1 to 128 bytes
    #[arg(long, default_value = "direct")]
    pub topic: String,
    /// Attempts after the first, after 1, 2, 4, 8, 16 … seconds
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub retries: u32,
    /// The peer to use.
    #[command(flatten)]
    pub through: UseArgs,
}

/// Data of a message.
#[derive(Clone, Debug, Args)]
pub struct ContentArgs {
    /// The text [default: standard input to its end]
    pub text: Option<String>,
    /// The content of a file instead
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub file: Option<PathBuf>,
}

/// Arguments of `peer discover`.
#[derive(Clone, Debug, Args)]
pub struct DiscoverArgs {
    /// The peer to use.
    #[command(flatten)]
    pub through: UseArgs,
}
