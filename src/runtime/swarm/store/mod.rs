//! Content on the disk: pieces are written and read, and it is known which are provably there.
//!
//! Three kinds of content: **offered** files, which are only read; the assignment's file, written
//! **in place** in `peer_<id>/`; and a **fetch**, written as `NAME.part` and given its name when it
//! is whole.
//!
//! Invariants:
//! - No byte is written outside the named folder (S1), and nothing but plain files.
//! - After a crash a piece counts if its claim was on disk after the piece was, or if its checksum
//!   holds (S2). Half a piece has no claim; nothing whole is fetched twice.
//! - A fetch has its own name only when all of it is on disk, and takes no other file's.
//! - Each file's stamp is taken after every own write. A file that has another stamp later, or is
//!   another one, was changed by others: it is read again before any of it counts.
//! - An offered file's stamp is compared whenever a piece of it is wanted; of one that has changed
//!   only those pieces are sent whose content is found unchanged.
//!
//! The choice of pieces and peers, and the check of hashes, are made elsewhere.

mod cache;
mod error;
mod files;
mod finish;
mod folder;
mod hashing;
mod layout;
mod offer;
mod open;
mod record;
mod scan;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

pub use cache::TreeCache;
pub use error::ContentStoreError;
pub use finish::Checked;
pub use hashing::{Hashing, piece_size_for};
pub use offer::OfferedFiles;
pub use open::Fetch;

use self::files::{Files, punch};
use self::folder::{Access, Folder};
use self::layout::Layout;
use self::record::{Record, RecordSubject};
use crate::machine::swarm::leaf_hash;
use crate::model::{FileList, NAME_BYTES_MAX};
use crate::proto::swarm::{Hash, PieceIndex, Pieces};

/// Suffix of the name of unfinished content, of its record, and of its list of files.
const PART: &str = ".part";
const RESUME: &str = ".part-resume";
const LIST: &str = ".part-list";

/// Place of a piece, or of a part of it, from which it is sent.
#[derive(Clone, Debug)]
pub struct PieceRange {
    /// The open file.
    pub file: Arc<File>,
    /// Offset in the file at which the part begins.
    pub offset: u64,
    /// Length of the part, in bytes.
    pub len: u64,
}

/// Content on the disk.
#[derive(Debug)]
pub struct Store {
    pieces: Pieces,
    files: Files,
    /// Layout of the files; missing as long as a folder's list of files is.
    layout: OnceLock<Layout>,
    list: OnceLock<Vec<u8>>,
    list_digest: Option<Hash>,
    goal: Goal,
    /// Identity of the record's content, if there is a record.
    id: Hash,
    proven: Vec<PieceIndex>,
    again: Checked,
    keeping: Mutex<Keeping>,
    /// Lock of the thread that tells the disk to keep everything.
    syncing: Mutex<()>,
}

/// Future of the content when it is whole.
#[derive(Debug)]
enum Goal {
    /// The content stays as it is.
    Stays,
    /// The content gets its name, in this folder.
    Named { outer: Folder, name: String, work: WorkNames },
}

/// Names of unfinished content.
#[derive(Clone, Debug)]
struct WorkNames {
    part: String,
    resume: String,
    list: String,
}

impl WorkNames {
    /// Names for the content `name`. A name that is too long for the suffix is cut; the share's
    /// identity keeps it distinct.
    fn new(name: &str, id: &Hash) -> Self {
        let most = NAME_BYTES_MAX - RESUME.len();
        let base = if name.len() <= most {
            name.to_owned()
        } else {
            let mut cut = most - 17;
            while !name.is_char_boundary(cut) {
                cut -= 1;
            }
            format!("{}-{}", &name[..cut], hex::encode(&id[..8]))
        };
        let with = |end: &str| format!("{base}{end}");
        Self { part: with(PART), resume: with(RESUME), list: with(LIST) }
    }
}

/// Names of all files that a fetch of this name has in its folder until it is whole.
pub fn under_way(name: &str, id: &Hash) -> [String; 3] {
    let WorkNames { part, resume, list } = WorkNames::new(name, id);
    [part, resume, list]
}

#[derive(Debug, Default)]
struct Keeping {
    record: Option<Record>,
    /// Files that the disk was not yet told to keep.
    dirty: BTreeSet<usize>,
}

impl Store {
    fn new(pieces: Pieces, files: Files, goal: Goal) -> Self {
        Self {
            pieces,
            files,
            layout: OnceLock::new(),
            list: OnceLock::new(),
            list_digest: None,
            goal,
            id: [0; 32],
            proven: Vec::new(),
            again: Checked::default(),
            keeping: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    /// The division of the content.
    pub const fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// Pieces that were there when the store was opened, in order.
    pub fn proven(&self) -> &[PieceIndex] {
        &self.proven
    }

    /// The folder that the files are in.
    pub fn folder(&self) -> &Path {
        self.files.folder().path()
    }

    /// Result of reading files again when the store was opened.
    pub const fn read_again(&self) -> &Checked {
        &self.again
    }

    /// True if a folder's list of files is still missing.
    pub fn wants_list(&self) -> bool {
        self.layout.get().is_none()
    }

    /// True if [`Self::finish`] has something to do.
    pub fn is_unfinished(&self) -> bool {
        match self.goal {
            Goal::Stays => false,
            Goal::Named { .. } => self.keeping().record.is_some(),
        }
    }

    /// Text of a folder's list of files, if this is one and it is known.
    pub fn list(&self) -> Option<&[u8]> {
        self.list.get().map(Vec::as_slice)
    }

    /// Sets a folder's list of files, which was missing. Touches no file yet.
    ///
    /// # Errors
    /// Fails if the list is not the announced one, names files that may not be written, or its
    /// sizes are not those of the content.
    pub fn lay_out(&self, text: &[u8]) -> Result<(), ContentStoreError> {
        if self.list_digest.is_some_and(|digest| digest != hashing::digest(text)) {
            let reason = "it is not the one that the ticket names".to_owned();
            return Err(ContentStoreError::BadList { reason });
        }
        let list = FileList::decode(text, self.pieces.size())
            .map_err(|err| ContentStoreError::BadList { reason: err.to_string() })?;
        let _ = self.list.set(text.to_vec());
        let _ = self.layout.set(Layout::of(&list));
        Ok(())
    }

    /// Keeps a folder's list of files, so that a resumed fetch knows its files at once, and checks
    /// that there is room for them. To be called once, after [`Self::lay_out`].
    ///
    /// # Errors
    /// Fails if there is no room, or the disk refuses.
    pub fn keep_list(&self) -> Result<(), ContentStoreError> {
        let (Goal::Named { outer, name, work }, Some(text)) = (&self.goal, self.list.get()) else {
            return Ok(());
        };
        if self.pieces.size() > outer.free_bytes() {
            return Err(ContentStoreError::Full { path: outer.path().join(name) });
        }
        let mut file = outer.file(&work.list, Access::Write)?;
        let failed = |err| ContentStoreError::of("write", outer.path().join(&work.list), err);
        file.set_len(0).and_then(|()| file.write_all(text)).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Writes a piece, and claims it.
    ///
    /// # Errors
    /// Fails if the disk does not take the piece; it is not claimed then.
    pub fn write_piece(&self, index: PieceIndex, data: &[u8]) -> Result<(), ContentStoreError> {
        let range = self.range(index)?;
        if data.len() as u64 != range.end - range.start {
            let (is, should) = (data.len() as u64, range.end - range.start);
            return Err(ContentStoreError::WrongSize {
                path: format!("piece {}", index.0).into(),
                is,
                should,
            });
        }
        let layout = self.layout()?;
        let is_zero = is_zero(data);
        let mut rest = data;
        let mut stamped = Vec::new();
        for run in layout.runs(range) {
            let (here, after) = rest.split_at(run.len as usize);
            rest = after;
            self.files.write(layout, run.file, |file| {
                let is_hole = is_zero && punch(file, run.offset, run.len);
                if is_hole { Ok(()) } else { file.write_all_at(here, run.offset) }
            })?;
            self.keeping().dirty.insert(run.file);
            stamped.push(run.file);
        }
        let check = crc32fast::hash(data);
        let mut keeping = self.keeping();
        let Some(record) = &mut keeping.record else { return Ok(()) };
        // Under the lock: the last stamp in the record is the last that there was.
        let stamps: Vec<_> = stamped
            .into_iter()
            .filter_map(|file| Some((file, self.files.left(file)?.digest())))
            .collect();
        record.claim(index, check, &stamps)
    }

    /// Reads a piece into `data`, whose content is replaced.
    ///
    /// # Errors
    /// Fails if the disk refuses, or an offered file has changed.
    pub fn read_piece(
        &self,
        index: PieceIndex,
        data: &mut Vec<u8>,
    ) -> Result<(), ContentStoreError> {
        let range = self.range(index)?;
        data.resize((range.end - range.start) as usize, 0);
        let layout = self.layout()?;
        let mut rest = data.as_mut_slice();
        for run in layout.runs(range) {
            let (here, after) = rest.split_at_mut(run.len as usize);
            rest = after;
            let file = self.files.get(layout, run.file)?;
            file.read_exact_at(here, run.offset)
                .map_err(|err| ContentStoreError::of("read", self.path_of(run.file), err))?;
        }
        Ok(())
    }

    /// Places of a piece in the files, in order.
    ///
    /// # Errors
    /// As [`Self::read_piece`], and [`ContentStoreError::Changed`] if another program has changed
    /// one of the files: see [`Self::read_changed`].
    pub fn parts(&self, index: PieceIndex) -> Result<Vec<PieceRange>, ContentStoreError> {
        let layout = self.layout()?;
        let part = |run: layout::ByteRun| {
            let file = self.files.get(layout, run.file)?;
            if !self.files.is_untouched(run.file, &file) {
                return Err(ContentStoreError::Changed { path: self.path_of(run.file) });
            }
            Ok(PieceRange { file, offset: run.offset, len: run.len })
        };
        layout.runs(self.range(index)?).map(part).collect()
    }

    /// Reads a piece out of files that were changed, to find out whether it is unchanged.
    ///
    /// # Errors
    /// Fails if a file is gone or too short, or the disk refuses.
    pub fn read_changed(
        &self,
        index: PieceIndex,
        data: &mut Vec<u8>,
    ) -> Result<(), ContentStoreError> {
        let range = self.range(index)?;
        data.resize((range.end - range.start) as usize, 0);
        let layout = self.layout()?;
        let mut rest = data.as_mut_slice();
        for run in layout.runs(range) {
            let (here, after) = rest.split_at_mut(run.len as usize);
            rest = after;
            let path = || self.path_of(run.file);
            let found = self.files.by_name(layout, run.file)?;
            let (file, _) = found.ok_or_else(|| ContentStoreError::Changed { path: path() })?;
            file.read_exact_at(here, run.offset)
                .map_err(|err| ContentStoreError::of("read", path(), err))?;
        }
        Ok(())
    }

    /// True if these bytes are those that were stored as this piece: by its hash, or if that is not
    /// known, by its checksum.
    pub fn is_what_was_stored(&self, index: PieceIndex, data: &[u8], leaf: Option<Hash>) -> bool {
        let subject = RecordSubject { id: self.id, pieces: self.pieces };
        let check = || {
            let found = self.keeping().record.as_mut()?.found(&subject).ok()?;
            found.claims.get(index.0 as usize).copied().flatten().map(|it| it.check)
        };
        match leaf {
            Some(leaf) => leaf == leaf_hash(data),
            None => check() == Some(crc32fast::hash(data)),
        }
    }

    /// Tells the disk to keep all written data, and notes that it has.
    ///
    /// # Errors
    /// Fails if the disk refuses: the data written since the last time may be lost.
    pub fn sync(&self) -> Result<(), ContentStoreError> {
        let _alone = self.syncing.lock().expect("nothing under this lock can panic");
        self.check_place()?;
        let (dirty, entries) = {
            let mut keeping = self.keeping();
            let entries = keeping.record.as_ref().map_or(0, Record::entries);
            (std::mem::take(&mut keeping.dirty), entries)
        };
        if dirty.is_empty() {
            return Ok(());
        }
        let layout = self.layout()?;
        for number in dirty {
            let file = self.files.get(layout, number)?;
            file.sync_data()
                .map_err(|err| ContentStoreError::of("sync", self.path_of(number), err))?;
        }
        match &mut self.keeping().record {
            Some(record) => record.mark(entries),
            None => Ok(()),
        }
    }

    /// Checks that the folders that are written to are still where they were, as far as it matters.
    fn check_place(&self) -> Result<(), ContentStoreError> {
        let folders = match &self.goal {
            _ if self.keeping().record.is_none() => return Ok(()),
            Goal::Stays => [self.files.folder(); 2],
            Goal::Named { outer, .. } => [outer, self.files.folder()],
        };
        let moved = folders.into_iter().find(|it| !it.is_in_place());
        moved.map_or(Ok(()), |it| Err(ContentStoreError::Moved { path: it.path().to_owned() }))
    }

    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        self.keeping.lock().expect("nothing under this lock can panic")
    }

    fn layout(&self) -> Result<&Layout, ContentStoreError> {
        self.layout
            .get()
            .ok_or_else(|| ContentStoreError::BadList { reason: "it is missing".to_owned() })
    }

    fn range(&self, index: PieceIndex) -> Result<std::ops::Range<u64>, ContentStoreError> {
        self.pieces.range(index).ok_or_else(|| ContentStoreError::BadName {
            name: format!("piece {}", index.0),
            reason: "the content has not so many",
        })
    }

    /// Path of the first file that a piece lies in.
    pub fn path_of_piece(&self, index: PieceIndex) -> std::path::PathBuf {
        let range = self.pieces.range(index);
        let run = range.and_then(|range| self.layout.get()?.runs(range).next());
        run.map_or_else(|| self.folder().to_owned(), |run| self.path_of(run.file))
    }

    fn path_of(&self, file: usize) -> std::path::PathBuf {
        let name = self.layout.get().map(|it| it.extents()[file].path.as_str());
        self.files.folder().path().join(name.unwrap_or_default())
    }
}

/// True if all bytes are zero; stops at the first that is not.
fn is_zero(data: &[u8]) -> bool {
    data.chunks(4096).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}
