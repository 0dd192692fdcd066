//! Flags by which a command of `peer rollout` finds its node.

use std::path::PathBuf;

use clap::Args;

use crate::proto::rollout::NodeId;

/// Flags that choose the node to ask.
#[derive(Clone, Debug, Args)]
pub struct NodeAskArgs {
    /// The name of the node that is meant [default: the one that runs here, or the first of them]
    #[arg(long, value_name = "NAME")]
    pub id: Option<NodeId>,
    /// Folder in which it keeps its key
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,
}
