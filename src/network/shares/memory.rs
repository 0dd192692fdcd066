//! Shares of this peer over a restart.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Sharing;
use super::kept::ShareRecord;
use crate::runtime::files::{replace_file, settle};

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
        let kept: Vec<ShareRecord> = match serde_json::from_slice(&text) {
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
