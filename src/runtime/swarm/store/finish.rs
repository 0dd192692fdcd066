//! End of a fetch: all content is on disk and verified, and it gets its name.
//!
//! Invariant: a file counts if its name leads to the file that this program left there, by its
//! whole stamp. Any other is read again, whole, before the name is given.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::files::Stamp;
use super::layout::Layout;
use super::record::{Record, RecordSubject};
use super::scan::scan;
use super::{ContentStoreError, Goal, Store};
use crate::machine::swarm::leaf_hash;
use crate::proto::swarm::{Hash, PieceIndex};

/// Largest number of times that files are read again which others change meanwhile.
const ROUNDS_MAX: usize = 8;

/// Result of reading files again that were in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Number of pieces that were read again.
    pub read: u32,
    /// Pieces that have changed; their claims are taken back.
    pub lost: Vec<PieceIndex>,
    /// Files that other programs had changed, by their paths below the folder.
    pub files: Vec<String>,
}

impl Store {
    /// Tells the disk to keep everything, and gives the content its name. To be called when every
    /// piece was written. `leaf` returns the hash of a piece; without one its checksum decides.
    ///
    /// If pieces were lost, the content has not got its name: they are to be written again first.
    ///
    /// # Errors
    /// Fails if the disk refuses, the name was taken meanwhile, or others go on changing the files;
    /// nothing is lost then.
    pub fn finish(
        &self,
        leaf: &dyn Fn(PieceIndex) -> Option<Hash>,
    ) -> Result<Checked, ContentStoreError> {
        let layout = self.layout()?;
        if self.list.get().is_some() {
            // Empty files have no pieces.
            for (number, _) in layout.extents().iter().enumerate().filter(|(_, it)| it.len == 0) {
                self.files.let_go(number);
                self.files.get(layout, number)?;
            }
        }
        self.sync()?;
        let mut all = Checked::default();
        for _ in 0..ROUNDS_MAX {
            let doubtful = self.doubtful(layout)?;
            if doubtful.is_empty() {
                self.give_name()?;
                return Ok(all);
            }
            self.check(layout, &doubtful, leaf, &mut all)?;
            self.sync()?;
            if !all.lost.is_empty() {
                return Ok(all);
            }
        }
        Err(ContentStoreError::Disturbed { path: self.files.folder().path().to_owned() })
    }

    /// Numbers of the files that are not as they were left.
    fn doubtful(&self, layout: &Layout) -> Result<Vec<usize>, ContentStoreError> {
        let mut found = Vec::new();
        for (number, extent) in layout.extents().iter().enumerate() {
            let there = self.files.by_name(layout, number)?.map(|(_, stamp)| stamp);
            let is_fine = match there {
                None => false,
                Some(stamp) if extent.len == 0 => stamp.size == 0,
                Some(stamp) => {
                    self.files.left(number) == Some(stamp) && !self.files.is_suspect(number)
                }
            };
            if !is_fine {
                found.push(number);
            }
        }
        Ok(found)
    }

    /// Reads files again, and takes back the claims of pieces that have changed.
    fn check(
        &self,
        layout: &Layout,
        doubtful: &[usize],
        leaf: &dyn Fn(PieceIndex) -> Option<Hash>,
        all: &mut Checked,
    ) -> Result<(), ContentStoreError> {
        let (mut pieces, mut gone) = (BTreeSet::new(), BTreeSet::new());
        let mut looks: Vec<(usize, Stamp)> = Vec::new();
        for number in doubtful.iter().copied() {
            let extent = &layout.extents()[number];
            all.files.push(extent.path.clone());
            self.files.let_go(number);
            let piece_size = u64::from(self.pieces.piece_size());
            let (first, end) = (extent.start / piece_size, extent.start + extent.len);
            let its = (first..end.div_ceil(piece_size))
                .filter(|_| extent.len > 0)
                .map(|it| PieceIndex(u32::try_from(it).expect("pieces are counted in 32 bits")));
            if self.files.by_name(layout, number)?.is_some() {
                pieces.extend(its);
                self.files.get(layout, number)?;
                looks.extend(self.files.by_name(layout, number)?.map(|(_, it)| (number, it)));
            } else {
                self.files.forget(number);
                gone.extend(its);
            }
        }
        let mut record = self.keeping().record.take();
        let outcome = self.check_pieces(&pieces, &gone, leaf, record.as_mut(), all);
        self.keeping().record = record;
        outcome?;
        for (number, stamp) in looks {
            self.files.was_read(layout, number, stamp)?;
        }
        Ok(())
    }

    fn check_pieces(
        &self,
        pieces: &BTreeSet<PieceIndex>,
        gone: &BTreeSet<PieceIndex>,
        leaf: &dyn Fn(PieceIndex) -> Option<Hash>,
        mut record: Option<&mut Record>,
        all: &mut Checked,
    ) -> Result<(), ContentStoreError> {
        let subject = RecordSubject { id: self.id, pieces: self.pieces };
        let found = record.as_mut().map(|it| it.found(&subject)).transpose()?;
        let check = |index: PieceIndex| {
            let claim = found.as_ref()?.claims.get(index.0 as usize).copied()?;
            claim.map(|it| it.check)
        };
        let mut data = Vec::new();
        for index in pieces.union(gone).copied() {
            let is_good = !gone.contains(&index)
                && self.read_piece(index, &mut data).is_ok()
                && match leaf(index) {
                    Some(hash) => hash == leaf_hash(&data),
                    None => check(index) == Some(crc32fast::hash(&data)),
                };
            all.read += 1;
            if !is_good {
                all.lost.push(index);
                record.as_mut().map_or(Ok(()), |it| it.forget(index))?;
            }
        }
        Ok(())
    }

    /// Path of a file below the folder that is not of the share: with it the folder would not be
    /// the shared one.
    fn stray(&self, layout: &Layout) -> Result<Option<PathBuf>, ContentStoreError> {
        let folder = self.files.folder().path();
        let (found, left_out) = scan(folder)?;
        let files = layout.extents().iter().map(|it| it.path.as_str());
        let folders = layout.folders().iter().map(String::as_str);
        let known: BTreeSet<_> = files.chain(folders).map(|it| it.trim_end_matches('/')).collect();
        let mut found = found.files().iter().map(|it| it.path.trim_end_matches('/'));
        let stray = found.find(|it| !known.contains(it)).map(str::to_owned);
        Ok(stray.or_else(|| left_out.first().cloned()).map(|it| folder.join(it)))
    }

    fn give_name(&self) -> Result<(), ContentStoreError> {
        let Goal::Named { outer, name, work } = &self.goal else {
            return self.files.folder().sync();
        };
        if self.keeping().record.is_none() {
            return Ok(());
        }
        let layout = self.layout()?;
        for folder in layout.folders() {
            self.files.folder().enter_or_make_all(folder)?;
        }
        if self.list.get().is_some()
            && let Some(path) = self.stray(layout)?
        {
            return Err(ContentStoreError::Stray { path });
        }
        for number in 0..layout.extents().len() {
            self.files.dress(layout, number)?;
        }
        let part = outer.stat(&work.part)?.map(|it| it.st_ino);
        if self.list.get().is_some() {
            #[cfg(target_os = "linux")]
            rustix::fs::syncfs(self.files.folder().fd())
                .map_err(|err| ContentStoreError::of("sync", outer.path(), err.into()))?;
            self.files.folder().sync()?;
            self.check_place()?;
        } else if part != self.files.left(0).map(|it| it.inode.1).or(part) {
            let path = outer.path().join(&work.part);
            return Err(ContentStoreError::Moved { path });
        }
        outer.rename(&work.part, name)?;
        let named = outer.stat(name)?.map(|it| it.st_ino);
        if named != part || !outer.is_in_place() {
            // Another program exchanged it at the last moment: it is not the verified one.
            let _ = outer.rename(name, &work.part);
            return Err(ContentStoreError::Moved { path: outer.path().join(&work.part) });
        }
        outer.sync()?;
        self.keeping().record = None;
        if self.list.get().is_none() {
            self.files.was_named(layout, name)?;
        }
        outer.remove(&work.resume)?;
        outer.remove(&work.list)
    }
}
