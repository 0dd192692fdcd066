//! Record of a share of this peer over a restart.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Record of a share over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShareRecord {
    pub(super) path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) piece: Option<u32>,
    #[serde(default)]
    pub(super) everywhere: bool,
    /// Number of the order to take it everywhere.
    #[serde(default)]
    pub(super) order: u64,
    /// True if it is shared as long as its handles live, and not remembered.
    #[serde(skip)]
    pub(super) is_passing: bool,
    /// Number of the handles of it.
    #[serde(skip)]
    pub(super) handles: usize,
    /// Ticket of the share, so that nothing else is shared in its place after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ticket: Option<String>,
}
