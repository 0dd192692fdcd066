//! Versions of the shares that were taken by orders: the peers that ordered each, the one that has
//! the name, and those that are to go.
//!
//! Invariants:
//! - A version has the name only if no other that is complete was ordered later by the same peer.
//! - A version is removed only when all peers that ordered it say so, and only if it still is as it
//!   was taken. No link is followed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ::log::Level;

use super::Sharing;
use super::host::{HostedShare, ShareRole, digest};
use super::taken::tell_of;
use super::version::{VERSIONS, Version, version};
use crate::model::Time;
use crate::model::text::escape;
use crate::proto::swarm::Hash;
use crate::runtime::files::{replace_file, sync_dir};
use crate::runtime::swarm::store::{OfferedFiles, under_way};

impl Sharing {
    /// Folder of the shares that are taken by orders.
    pub fn received(&self) -> PathBuf {
        self.folder.join("received")
    }

    pub(super) fn versions_file(&self) -> PathBuf {
        self.folder.join("received.json")
    }

    /// Reads the versions of earlier lives that are still there.
    pub(super) fn read_versions(&self) {
        let path = self.versions_file();
        let Some(text) = Self::read(&path) else { return };
        let versions: Vec<Version> = match serde_json::from_slice(&text) {
            Ok(versions) => versions,
            Err(error) => return ::log::warn!("{} is damaged: {error}", path.display()),
        };
        let is_there = |it: &Version| self.received().join(it.inside()).symlink_metadata().is_ok();
        let there = versions.into_iter().filter(|it| !it.is_complete || is_there(it));
        self.lock().versions = there.map(|it| (it.id, it)).collect();
    }

    pub(super) fn remember_versions(&self) {
        let versions: Vec<_> = self.lock().versions.values().cloned().collect();
        let text = serde_json::to_vec_pretty(&versions).unwrap_or_default();
        if let Err(error) = replace_file(&self.versions_file(), &text) {
            ::log::warn!("what was taken is not remembered over a restart: {error}");
        }
    }

    /// Notes that a version is complete, and lets its name lead to it if it is the newest. Returns
    /// its path.
    pub(super) fn complete(&self, held: &HostedShare) -> PathBuf {
        let id = held.ticket.share_id();
        let was_complete = {
            let mut state = self.lock();
            let version = state.versions.entry(id).or_insert_with(|| Version::new(&held.ticket));
            std::mem::replace(&mut version.is_complete, true)
        };
        let at = self.received().join(&held.ticket.name);
        if was_complete && at.symlink_metadata().is_ok() {
            return held.path.clone();
        }
        self.remember_versions();
        if self.name_if_newest(&id) { at } else { held.path.clone() }
    }

    /// Lets the name of a complete version lead to it, if it is the newest; returns whether it
    /// does.
    pub(super) fn name_if_newest(&self, id: &Hash) -> bool {
        let version = {
            let state = self.lock();
            let version = state.versions.get(id).filter(|it| it.is_complete);
            version.filter(|it| it.is_newest(&state.versions)).cloned()
        };
        let Some(version) = version else { return false };
        let named = self.give_name(&version);
        if let Err(error) = &named {
            let name = escape(&version.name);
            ::log::warn!("{name} does not lead to the new version: {error}");
        }
        named.is_ok()
    }

    fn give_name(&self, version: &Version) -> io::Result<()> {
        let folder = self.received();
        let (at, versions) = (folder.join(&version.name), folder.join(VERSIONS));
        let leads_to = fs::read_link(&at).unwrap_or_default();
        if at.symlink_metadata().is_ok() && !leads_to.starts_with(VERSIONS) {
            // The user's own file, or one from before there were versions: nothing of it is lost.
            let kept = free_name(&versions.join("before"), &version.name)?;
            fs::rename(&at, &kept)?;
            let (name, kept) = (escape(&version.name), kept.display());
            ::log::warn!("{name} was not this program's; it is kept as {kept}");
        }
        let draft = versions.join("link.new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        symlink(version.inside(), &draft)?;
        fs::rename(&draft, &at)?;
        sync_dir(&folder)
    }

    /// Removes the versions that all peers that ordered them want removed; returns whether there
    /// was one.
    pub(super) fn remove_withdrawn(&self, now: Time) -> bool {
        let (gone, is_changed) = {
            let mut state = self.lock();
            let withdrawn = state.known.withdrawn(now);
            let mut is_changed = false;
            for version in state.versions.values_mut() {
                for (from, it) in withdrawn.iter().filter(|(_, it)| it.name == version.name) {
                    if version.orders.get(from).is_some_and(|number| *number <= it.order) {
                        version.orders.remove(from);
                        is_changed = true;
                    }
                }
            }
            let is_gone = |it: &&Version| is_changed && it.orders.is_empty();
            (state.versions.values().filter(is_gone).cloned().collect::<Vec<_>>(), is_changed)
        };
        let host = self.lock().host.clone();
        for version in &gone {
            let is_meant = |it: &HostedShare| {
                it.role == ShareRole::Fetches && it.ticket.share_id() == version.id
            };
            host.as_ref().map(|it| it.end_those(is_meant));
            let mut state = self.lock();
            state.taken.remove(&version.id);
            state.versions.remove(&version.id);
            drop(state);
            let name = escape(&version.name);
            let (level, text) = match self.remove(version) {
                Ok(()) => (Level::Info, format!("has removed a version of {name}, as was wanted")),
                Err(why) => (Level::Warn, format!("does not remove a version of {name}: {why}")),
            };
            tell_of(level, "share_removed", &text, &version.name, version.size);
        }
        if is_changed {
            self.remember_versions();
        }
        !gone.is_empty()
    }

    fn remove(&self, version: &Version) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let received = self.received();
        let at = received.join(version.inside());
        let (Some(folder), versions) = (at.parent(), received.join(VERSIONS)) else {
            return Err("it is nowhere".to_owned());
        };
        let real = match folder.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            real => real.map_err(failed)?,
        };
        let own = self.folder.canonicalize().map_err(failed)?.join("received").join(VERSIONS);
        if real != own.join(self::version(&version.id)) {
            return Err(format!("{} is behind a link", folder.display()));
        }
        if let Ok(meta) = at.symlink_metadata() {
            let is_same =
                !meta.is_symlink() && OfferedFiles::new(&at).is_ok_and(|it| version.is(&it));
            if !is_same {
                return Err(format!("{} was changed there, and stays", at.display()));
            }
            self.take_name(version).map_err(failed)?;
            remove_all(&at).map_err(failed)?;
        }
        for name in under_way(&version.name, &version.id) {
            remove_all(&folder.join(name)).map_err(failed)?;
        }
        // Files that others have put there stay, and the folder with them.
        let _ = fs::remove_dir(folder);
        sync_dir(&versions).map_err(failed)
    }

    /// Lets the name lead to the newest of the other versions, or to nothing, if it leads to this.
    fn take_name(&self, version: &Version) -> io::Result<()> {
        let at = self.received().join(&version.name);
        if fs::read_link(&at).ok() != Some(version.inside()) {
            return Ok(());
        }
        let newest = {
            let state = self.lock();
            let others = state.versions.values();
            let others = others.filter(|it| it.is_complete && it.name == version.name);
            others.max_by_key(|it| it.orders.values().max().copied()).cloned()
        };
        match newest {
            Some(newest) => self.give_name(&newest),
            None => fs::remove_file(&at),
        }
    }
}

/// A free path in `folder`, which is made: `name`, or that with a number.
fn free_name(folder: &Path, name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut kept = folder.join(name);
    let mut number = 1;
    while kept.symlink_metadata().is_ok() {
        number += 1;
        kept = folder.join(format!("{name}.{number}"));
    }
    Ok(kept)
}

impl Version {
    /// True if a file or folder has the size and the list of files of this version.
    fn is(&self, offer: &OfferedFiles) -> bool {
        offer.size() == self.size
            && offer.left_out().is_empty()
            && offer.list().map(|it| hex::encode(digest(it))) == self.files
    }
}

fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_takes_the_place_of_what_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let before = folder.path().join("before");
        for expected in ["a", "a.2", "a.3"] {
            let kept = free_name(&before, "a").unwrap();
            assert_eq!(kept, before.join(expected));
            symlink("nowhere", kept).unwrap();
        }
    }
}
