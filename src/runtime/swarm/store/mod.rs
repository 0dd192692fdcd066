//! Content on the disk: pieces in, pieces out, and what of it is provably there.
//!
//! Three kinds of content: **offered** files, which are only read; the assignment's file, written
//! **in place** in `peer_<id>/`; and what is **fetched**, written as `NAME.part` and given its name
//! when it is whole.
//!
//! Invariants:
//! - No byte is written outside the folder that was named (S1), and nothing but plain files.
//! - After a crash a piece counts if its claim was on disk after the piece was, or if its checksum
//!   holds (S2). Half a piece has no claim; nothing whole is fetched twice.
//! - What was fetched has its own name only when all of it is on disk, and takes nobody else's.
//! - An offered file is looked at again whenever a piece of it is wanted; one that has changed is
//!   offered no more.
//!
//! Which pieces are wanted, from whom and whether their hashes hold, is decided elsewhere.

mod cache;
mod error;
mod files;
mod folder;
mod hashing;
mod layout;
mod offer;
mod record;
mod scan;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

pub use cache::TreeCache;
pub use error::StoreError;
pub use hashing::{Hashing, piece_size_for};
pub use offer::Offer;

use self::files::{Files, Manner, punch};
use self::folder::{Access, Folder, check_part};
use self::layout::Layout;
use self::record::{Claim, Record, Subject};
use crate::model::{FileList, NAME_BYTES_MAX};
use crate::protocol::swarm::{FILES_BYTES_MAX, Hash, PieceIndex, Pieces};

/// What ends the name of content that is under way, of its record, and of its list of files.
const PART: &str = ".part";
const RESUME: &str = ".part-resume";
const LIST: &str = ".part-list";

/// What is to be fetched.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    /// The folder that it goes to; made where it is missing.
    pub folder: &'a Path,
    /// Its name there, one part of a path.
    pub name: &'a str,
    /// The name of the share.
    pub id: Hash,
    /// The division of the content.
    pub pieces: Pieces,
    /// The digest of the list of files, if it is a folder.
    pub list: Option<Hash>,
    /// Whether to ask the disk for all room at once; otherwise it is taken as pieces come.
    pub preallocates: bool,
}

/// Where a piece lies, or a part of it, for whoever sends it.
#[derive(Clone, Debug)]
pub struct Part {
    /// The open file.
    pub file: Arc<File>,
    /// Where the part begins in it.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
}

/// Content on the disk.
#[derive(Debug)]
pub struct Store {
    pieces: Pieces,
    files: Files,
    /// Missing as long as a folder's list of files is.
    layout: OnceLock<Layout>,
    list: OnceLock<Vec<u8>>,
    list_digest: Option<Hash>,
    goal: Goal,
    proven: Vec<PieceIndex>,
    keeping: Mutex<Keeping>,
    /// Held by whoever tells the disk to keep everything.
    syncing: Mutex<()>,
}

/// What becomes of the content when it is whole.
#[derive(Debug)]
enum Goal {
    /// Nothing.
    Stays,
    /// It gets its name, in this folder.
    Named { outer: Folder, name: String, work: WorkNames },
}

/// The names of what is under way.
#[derive(Clone, Debug)]
struct WorkNames {
    part: String,
    resume: String,
    list: String,
}

impl WorkNames {
    /// A name that is too long to have something added is cut; the share's own keeps it apart.
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

/// How much younger than its record content may be.
const TOUCHED_SECS: i64 = 2;

#[derive(Debug, Default)]
struct Keeping {
    record: Option<Record>,
    /// Files that the disk was not yet told to keep.
    dirty: BTreeSet<usize>,
}

impl Store {
    /// The assignment's file `name` in the folder `peer_<id>/`: whole and only read, or to be
    /// written in place. Without a record, nothing in it is believed.
    ///
    /// # Errors
    /// When it should be whole and is missing or of another size, and when the disk refuses.
    pub fn assigned(
        folder: &Path,
        name: &str,
        pieces: Pieces,
        is_whole: bool,
    ) -> Result<Self, StoreError> {
        check_part(name)?;
        if is_whole {
            let offer = Offer::file(&folder.join(name), name)?;
            if offer.size() != pieces.size() {
                let (is, should) = (offer.size(), pieces.size());
                return Err(StoreError::WrongSize { path: folder.join(name), is, should });
            }
            return offer.store(pieces);
        }
        let folder = Folder::open_or_make(folder)?;
        // A cut name cannot meet another: there is one content in this folder.
        let resume = format!(".{}", WorkNames::new(name, &[0; 32]).resume);
        let resume = resume.chars().rev().take(200).collect::<Vec<_>>();
        let resume: String = resume.into_iter().rev().collect();
        let layout = Layout::single(name, pieces.size());
        let manner = Manner::Written { preallocates: false };
        let mut store = Self::new(pieces, Files::new(folder, manner), Goal::Stays);
        let file = store.files.get(&layout, 0)?;
        let _ = store.layout.set(layout);
        let meta = file.metadata().map_err(|err| StoreError::of("examine", name, err))?;
        let subject = Subject { id: [0; 32], pieces, inode: (meta.dev(), meta.ino()) };
        let (record, claims) = Record::open(store.files.folder(), &resume, &subject)?;
        // The file may have been replaced or restored since: here nothing else would find it out.
        store.prove(record, &claims, |_| true)?;
        Ok(store)
    }

    /// What is to be fetched, with as much of it as is there.
    ///
    /// # Errors
    /// When the name is taken or cannot be used, when there is no room, when somebody else fetches
    /// the same, and when the disk refuses.
    pub fn fetched(fetch: &Fetch<'_>) -> Result<Self, StoreError> {
        check_part(fetch.name)?;
        let outer = Folder::open_or_make(fetch.folder)?;
        if outer.stat(fetch.name)?.is_some() {
            return Err(StoreError::Exists { path: outer.path().join(fetch.name) });
        }
        let work = WorkNames::new(fetch.name, &fetch.id);
        let there = outer.stat(&work.part)?;
        let recorded = outer.stat(&work.resume)?;
        // Others call unfinished files so, too: what has no record is not ours.
        if recorded.is_none() && there.is_some_and(|it| it.st_size > 0) {
            return Err(StoreError::Exists { path: outer.path().join(&work.part) });
        }
        // The record is written after each piece: content that is younger was changed by others.
        let written = recorded.map(|it| it.st_mtime + TOUCHED_SECS);
        let is_younger = written.is_some() && there.map(|it| it.st_mtime) > written;
        // Sparse: what is there may take less room than it has bytes.
        let taken = there.map_or(0, |it| u64::try_from(it.st_blocks).unwrap_or(0) * 512);
        if fetch.pieces.size().saturating_sub(taken) > outer.room() && fetch.list.is_none() {
            return Err(StoreError::Full { path: outer.path().join(fetch.name) });
        }
        let manner = Manner::Written { preallocates: fetch.preallocates };
        let (inner, layout) = if fetch.list.is_some() {
            (outer.enter_or_make(&work.part)?, None)
        } else {
            let layout = Layout::single(&work.part, fetch.pieces.size());
            (Folder::open(fetch.folder)?, Some(layout))
        };
        let (resume, list) = (work.resume.clone(), work.list.clone());
        let goal = Goal::Named { outer, name: fetch.name.to_owned(), work };
        let mut store = Self::new(fetch.pieces, Files::new(inner, manner), goal);
        store.list_digest = fetch.list;
        if let Some(layout) = layout {
            store.files.get(&layout, 0)?;
            let _ = store.layout.set(layout);
        }
        let Goal::Named { outer, work, .. } = &store.goal else { unreachable!("it was just made") };
        let part = outer.stat(&work.part)?;
        let part = part.ok_or_else(|| StoreError::NotPlain { path: outer.path().into() })?;
        // The types of these two differ from system to system.
        #[allow(clippy::unnecessary_cast, reason = "not unnecessary everywhere")]
        let inode = (part.st_dev as u64, part.st_ino as u64);
        let subject = Subject { id: fetch.id, pieces: fetch.pieces, inode };
        let (record, claims) = Record::open(outer, &resume, &subject)?;
        if let Some(digest) = fetch.list
            && let Some(text) = read_list(outer, &list, &digest)
        {
            store.lay_out(&text)?;
        }
        if store.layout.get().is_some() {
            store.prove(record, &claims, |claim| is_younger || !claim.is_marked)?;
        } else {
            store.keeping().record = Some(record);
        }
        Ok(store)
    }

    fn new(pieces: Pieces, files: Files, goal: Goal) -> Self {
        Self {
            pieces,
            files,
            layout: OnceLock::new(),
            list: OnceLock::new(),
            list_digest: None,
            goal,
            proven: Vec::new(),
            keeping: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    /// The division of the content.
    pub const fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// The pieces that were there when the store was opened, in order.
    pub fn proven(&self) -> &[PieceIndex] {
        &self.proven
    }

    /// Whether a folder's list of files is still missing.
    pub fn wants_list(&self) -> bool {
        self.layout.get().is_none()
    }

    /// Whether [`Self::finish`] has something to do.
    pub fn is_unfinished(&self) -> bool {
        match self.goal {
            Goal::Stays => false,
            Goal::Named { .. } => self.keeping().record.is_some(),
        }
    }

    /// The text of a folder's list of files, if this is one and it is known.
    pub fn list(&self) -> Option<&[u8]> {
        self.list.get().map(Vec::as_slice)
    }

    /// Takes a folder's list of files, which was missing. Touches no file yet.
    ///
    /// # Errors
    /// When it is not what was announced, names files that may not be written, or its sizes are
    /// not those of the content.
    pub fn lay_out(&self, text: &[u8]) -> Result<(), StoreError> {
        if self.list_digest.is_some_and(|digest| digest != hashing::digest(text)) {
            let reason = "it is not the one that the ticket names".to_owned();
            return Err(StoreError::BadList { reason });
        }
        let list = FileList::decode(text, self.pieces.size())
            .map_err(|err| StoreError::BadList { reason: err.to_string() })?;
        let _ = self.list.set(text.to_vec());
        let _ = self.layout.set(Layout::of(&list));
        Ok(())
    }

    /// Keeps a folder's list of files, so that a resumed fetch knows its files at once, and sees
    /// whether there is room for them. Comes once, after [`Self::lay_out`].
    ///
    /// # Errors
    /// When there is no room, and when the disk refuses.
    pub fn keep_list(&self) -> Result<(), StoreError> {
        let (Goal::Named { outer, name, work }, Some(text)) = (&self.goal, self.list.get()) else {
            return Ok(());
        };
        if self.pieces.size() > outer.room() {
            return Err(StoreError::Full { path: outer.path().join(name) });
        }
        let mut file = outer.file(&work.list, Access::Write)?;
        let failed = |err| StoreError::of("write", outer.path().join(&work.list), err);
        file.set_len(0).and_then(|()| file.write_all(text)).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Writes a piece, and claims it.
    ///
    /// # Errors
    /// When the disk does not take it; it is then claimed by nobody.
    pub fn write_piece(&self, index: PieceIndex, data: &[u8]) -> Result<(), StoreError> {
        let range = self.range(index)?;
        if data.len() as u64 != range.end - range.start {
            let (is, should) = (data.len() as u64, range.end - range.start);
            return Err(StoreError::WrongSize {
                path: format!("piece {}", index.0).into(),
                is,
                should,
            });
        }
        let layout = self.layout()?;
        let is_zero = is_zero(data);
        let mut rest = data;
        for run in layout.runs(range) {
            let (here, after) = rest.split_at(run.len as usize);
            rest = after;
            let file = self.files.get(layout, run.file)?;
            if !(is_zero && punch(&file, run.offset, run.len)) {
                file.write_all_at(here, run.offset)
                    .map_err(|err| StoreError::of("write", self.path_of(run.file), err))?;
            }
            self.keeping().dirty.insert(run.file);
        }
        let check = crc32fast::hash(data);
        match &mut self.keeping().record {
            Some(record) => record.claim(index, check),
            None => Ok(()),
        }
    }

    /// Reads a piece into `data`, whose content is replaced.
    ///
    /// # Errors
    /// When the disk refuses, or an offered file has changed.
    pub fn read_piece(&self, index: PieceIndex, data: &mut Vec<u8>) -> Result<(), StoreError> {
        let range = self.range(index)?;
        data.resize((range.end - range.start) as usize, 0);
        let layout = self.layout()?;
        let mut rest = data.as_mut_slice();
        for run in layout.runs(range) {
            let (here, after) = rest.split_at_mut(run.len as usize);
            rest = after;
            let file = self.files.get(layout, run.file)?;
            file.read_exact_at(here, run.offset)
                .map_err(|err| StoreError::of("read", self.path_of(run.file), err))?;
        }
        Ok(())
    }

    /// Where a piece lies, in order.
    ///
    /// # Errors
    /// As [`Self::read_piece`].
    pub fn parts(&self, index: PieceIndex) -> Result<Vec<Part>, StoreError> {
        let layout = self.layout()?;
        let part = |run: layout::Run| {
            let file = self.files.get(layout, run.file)?;
            Ok(Part { file, offset: run.offset, len: run.len })
        };
        layout.runs(self.range(index)?).map(part).collect()
    }

    /// Tells the disk to keep what was written, and notes that it has.
    ///
    /// # Errors
    /// When the disk refuses: what was written since the last time may be lost.
    pub fn sync(&self) -> Result<(), StoreError> {
        let _alone = self.syncing.lock().expect("nothing under this lock can panic");
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
            file.sync_data().map_err(|err| StoreError::of("sync", self.path_of(number), err))?;
        }
        match &mut self.keeping().record {
            Some(record) => record.mark(entries),
            None => Ok(()),
        }
    }

    /// Tells the disk to keep everything, and gives what was fetched its name. Comes when every
    /// piece was written.
    ///
    /// # Errors
    /// When the disk refuses or the name was taken meanwhile; nothing is lost then.
    pub fn finish(&self) -> Result<(), StoreError> {
        let layout = self.layout()?;
        let is_folder = self.list.get().is_some();
        if is_folder {
            // Empty files have no pieces.
            for (number, extent) in layout.extents().iter().enumerate() {
                if extent.len == 0 {
                    self.files.get(layout, number)?;
                }
            }
        }
        self.sync()?;
        let Goal::Named { outer, name, work } = &self.goal else {
            return self.files.folder().sync();
        };
        if is_folder {
            #[cfg(target_os = "linux")]
            rustix::fs::syncfs(self.files.folder().fd())
                .map_err(|err| StoreError::of("sync", outer.path(), err.into()))?;
            self.files.folder().sync()?;
        }
        outer.rename(&work.part, name)?;
        outer.sync()?;
        self.keeping().record = None;
        outer.remove(&work.resume)?;
        outer.remove(&work.list)
    }

    /// Takes claims for pieces that are there; those that `doubt` doubts are read again first.
    fn prove(
        &mut self,
        mut record: Record,
        claims: &[Option<Claim>],
        doubt: impl Fn(&Claim) -> bool,
    ) -> Result<(), StoreError> {
        let mut data = Vec::new();
        for (number, claim) in claims.iter().enumerate() {
            let Some(claim) = claim else { continue };
            let index = PieceIndex(u32::try_from(number).expect("pieces are counted in 32 bits"));
            let holds = !doubt(claim)
                || self.read_piece(index, &mut data).is_ok()
                    && crc32fast::hash(&data) == claim.check;
            if holds {
                self.proven.push(index);
            } else {
                record.forget(index)?;
            }
        }
        self.keeping().record = Some(record);
        Ok(())
    }

    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        self.keeping.lock().expect("nothing under this lock can panic")
    }

    fn layout(&self) -> Result<&Layout, StoreError> {
        self.layout.get().ok_or_else(|| StoreError::BadList { reason: "it is missing".to_owned() })
    }

    fn range(&self, index: PieceIndex) -> Result<std::ops::Range<u64>, StoreError> {
        self.pieces.range(index).ok_or_else(|| StoreError::BadName {
            name: format!("piece {}", index.0),
            reason: "the content has not so many",
        })
    }

    fn path_of(&self, file: usize) -> std::path::PathBuf {
        let name = self.layout.get().map(|it| it.extents()[file].path.as_str());
        self.files.folder().path().join(name.unwrap_or_default())
    }
}

/// The list of files that a fetch has kept, if it is the right one.
fn read_list(outer: &Folder, name: &str, digest: &Hash) -> Option<Vec<u8>> {
    use std::io::Read;
    outer.stat(name).ok()??;
    let mut text = Vec::new();
    let file = outer.file(name, Access::Read).ok()?;
    file.take(FILES_BYTES_MAX as u64 + 1).read_to_end(&mut text).ok()?;
    (hashing::digest(&text) == *digest).then_some(text)
}

/// Whether all bytes are zero; stops at the first that is not.
fn is_zero(data: &[u8]) -> bool {
    data.chunks(4096).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}
