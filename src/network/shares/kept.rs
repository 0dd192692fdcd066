//! Shares of this peer over a restart.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Sharing;
use crate::runtime::files::{replace_file, settle};

/// Record of a share over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
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

impl Sharing {
    pub(super) fn memory(&self) -> PathBuf {
        self.folder.join("shares.json")
    }

    pub(super) fn remember(&self) {
        let kept: Vec<_> = self.lock().kept.values().filter(|it| !it.is_passing).cloned().collect();
        let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        if let Err(error) = replace_file(&self.memory(), &text) {
            ::log::warn!("shares are not remembered over a restart: {error}");
        }
    }

    pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
        let mut file = fs::File::open(path).ok()?;
        let mut text = Vec::new();
        match settle(path, &file).and_then(|()| file.read_to_end(&mut text)) {
            Ok(_) => Some(text),
            Err(error) => {
                ::log::warn!("{} cannot be read, share again: {error}", path.display());
                None
            }
        }
    }

    /// Shares again the shares from before the restart.
    pub(super) fn share_again(&self) {
        let Some(text) = Self::read(&self.memory()) else { return };
        let kept: Vec<Kept> = match serde_json::from_slice(&text) {
            Ok(kept) => kept,
            Err(error) => {
                let path = self.memory().display().to_string();
                return ::log::warn!("{path} is damaged, share again what it named: {error}");
            }
        };
        for kept in kept {
            let path = kept.path.display().to_string();
            if let Err(error) = self.share(kept, false, &|_, _| true) {
                ::log::warn!("{path} is not shared any more: {error}");
            }
        }
    }
}
