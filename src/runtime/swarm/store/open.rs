//! Opening of content to be written, and proof of the pieces that are there.
//!
//! Invariant: a claim counts without being read only if the disk was told to keep its piece, and
//! every file it lies in has the stamp with which this program left it. Pieces that are believed
//! after that are on disk before anything depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{Files, OpenMode};
use super::finish::Checked;
use super::folder::{Access, Folder, check_part};
use super::hashing;
use super::layout::Layout;
use super::record::{Record, RecordContent, RecordSubject};
use super::{ContentStoreError, Goal, OfferedFiles, Store, WorkNames};
use crate::machine::swarm::FILES_BYTES_MAX;
use crate::model::FileAttributes;
use crate::proto::swarm::{Hash, PieceIndex, Pieces};

/// Options of a fetch.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    /// Folder for the content; made if it is missing.
    pub folder: &'a Path,
    /// Name of the content there, one part of a path.
    pub name: &'a str,
    /// Identity of the share.
    pub id: Hash,
    /// Division of the content.
    pub pieces: Pieces,
    /// Digest of the list of files, if it is a folder.
    pub list: Option<Hash>,
    /// Permissions and time of the file, if it is a file.
    pub traits: FileAttributes,
    /// True if to ask the disk for all room at once; otherwise it is taken as pieces come.
    pub preallocates: bool,
}

impl Store {
    /// The assignment's file `name` in the folder `peer_<id>/`: whole and only read, or to be
    /// written in place. Without a record, nothing in it is believed.
    ///
    /// # Errors
    /// Fails if it should be whole and is missing or of another size, or if the disk refuses.
    pub fn assigned(
        folder: &Path,
        name: &str,
        pieces: Pieces,
        is_whole: bool,
    ) -> Result<Self, ContentStoreError> {
        check_part(name)?;
        if is_whole {
            let offer = OfferedFiles::file(&folder.join(name), name)?;
            if offer.size() != pieces.size() {
                let (is, should) = (offer.size(), pieces.size());
                return Err(ContentStoreError::WrongSize { path: folder.join(name), is, should });
            }
            return offer.store(pieces);
        }
        let folder = Folder::open_or_make(folder)?;
        // A cut name cannot collide: there is one content in this folder.
        let resume = format!(".{}", WorkNames::new(name, &[0; 32]).resume);
        let resume = resume.chars().rev().take(200).collect::<Vec<_>>();
        let resume: String = resume.into_iter().rev().collect();
        let layout = Layout::single(name, pieces.size(), FileAttributes::default());
        let manner = OpenMode::Written { preallocates: false };
        let mut store = Self::new(pieces, Files::new(folder, manner), Goal::Stays);
        store.files.get(&layout, 0)?;
        let _ = store.layout.set(layout);
        let subject = RecordSubject { id: store.id, pieces };
        let (record, found) = Record::open(store.files.folder(), &resume, &subject)?;
        // Here only the checksums would detect a file that was restored with its record.
        store.prove(record, &found, false)?;
        Ok(store)
    }

    /// Opens a fetch, with the pieces of it that are there.
    ///
    /// # Errors
    /// Fails if the name is taken or cannot be used, there is no room, another process or swarm
    /// fetches the same, or the disk refuses.
    pub fn fetched(fetch: &Fetch<'_>) -> Result<Self, ContentStoreError> {
        check_part(fetch.name)?;
        let outer = Folder::open_or_make(fetch.folder)?;
        if outer.stat(fetch.name)?.is_some() {
            return Err(ContentStoreError::Exists { path: outer.path().join(fetch.name) });
        }
        let work = WorkNames::new(fetch.name, &fetch.id);
        let there = outer.stat(&work.part)?;
        let recorded = outer.stat(&work.resume)?;
        // Other programs use this name, too: a file without a record is not ours.
        if recorded.is_none() && there.is_some_and(|it| it.st_size > 0) {
            return Err(ContentStoreError::Exists { path: outer.path().join(&work.part) });
        }
        // Sparse: the file may take less room than it has bytes.
        let taken = there.map_or(0, |it| u64::try_from(it.st_blocks).unwrap_or(0) * 512);
        if fetch.pieces.size().saturating_sub(taken) > outer.free_bytes() && fetch.list.is_none() {
            return Err(ContentStoreError::Full { path: outer.path().join(fetch.name) });
        }
        let manner = OpenMode::Written { preallocates: fetch.preallocates };
        let (inner, layout) = if fetch.list.is_some() {
            (outer.enter_or_make(&work.part)?, None)
        } else {
            let layout = Layout::single(&work.part, fetch.pieces.size(), fetch.traits);
            (Folder::open(fetch.folder)?, Some(layout))
        };
        let (resume, list) = (work.resume.clone(), work.list.clone());
        let goal = Goal::Named { outer, name: fetch.name.to_owned(), work };
        let mut store = Self::new(fetch.pieces, Files::new(inner, manner), goal);
        store.list_digest = fetch.list;
        store.id = fetch.id;
        let Goal::Named { outer, .. } = &store.goal else { unreachable!("it was just made") };
        let subject = RecordSubject { id: fetch.id, pieces: fetch.pieces };
        let (record, found) = Record::open(outer, &resume, &subject)?;
        if let Some(layout) = layout {
            let _ = store.layout.set(layout);
        } else if let Some(digest) = fetch.list
            && let Some(text) = read_list(outer, &list, &digest)
        {
            store.lay_out(&text)?;
        }
        if store.layout.get().is_some() {
            store.prove(record, &found, true)?;
        } else {
            store.keeping().record = Some(record);
        }
        if fetch.list.is_none() {
            // Its room is set aside at once.
            store.files.get(store.layout()?, 0)?;
        }
        Ok(store)
    }

    /// Takes claims for pieces that are there; those in doubt are read again first. Without
    /// `trusts_stamps` all are.
    fn prove(
        &mut self,
        mut record: Record,
        found: &RecordContent,
        trusts_stamps: bool,
    ) -> Result<(), ContentStoreError> {
        let layout = self.layout()?;
        let mut looks =
            FileConditions { store: self, layout, found, trusts_stamps, seen: BTreeMap::new() };
        let (mut proven, mut again) = (Vec::new(), Checked::default());
        let (mut dirty, mut data) = (BTreeSet::new(), Vec::new());
        for (number, claim) in found.claims.iter().enumerate() {
            let Some(claim) = claim else { continue };
            let index = PieceIndex(u32::try_from(number).expect("pieces are counted in 32 bits"));
            let files: Vec<_> = layout.runs(self.range(index)?).map(|run| run.file).collect();
            let (mut is_sure, mut is_there) = (claim.is_marked, true);
            for file in &files {
                let look = looks.at(*file)?;
                is_sure &= look == FileCondition::AsLeft;
                is_there &= look != FileCondition::Gone;
            }
            again.read += u32::from(!is_sure);
            let holds = is_sure
                || is_there
                    && self.read_piece(index, &mut data).is_ok()
                    && crc32fast::hash(&data) == claim.check;
            if holds {
                proven.push(index);
                dirty.extend(files.into_iter().filter(|_| !is_sure));
            } else {
                record.forget(index)?;
                again.lost.push(index);
            }
        }
        let (stamps, files) = looks.settle()?;
        record.stamp(&stamps)?;
        again.files = files;
        {
            let mut keeping = self.keeping();
            keeping.record = Some(record);
            // A process that was killed may not have told the disk to keep them.
            keeping.dirty = dirty;
        }
        self.sync()?;
        (self.proven, self.again) = (proven, again);
        Ok(())
    }
}

/// Digests of stamps, by the files' numbers.
type Stamps = Vec<(usize, u32)>;

/// State of a file when its store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileCondition {
    /// The file is as this program left it.
    AsLeft,
    /// The file has another stamp, or its last stamp is not known.
    Other,
    /// The file does not exist.
    Gone,
}

/// The files of a store that is being opened, each examined once.
struct FileConditions<'a> {
    store: &'a Store,
    layout: &'a Layout,
    found: &'a RecordContent,
    trusts_stamps: bool,
    /// State of each file, and its stamp before any of it was read.
    seen: BTreeMap<usize, (FileCondition, Option<super::files::Stamp>)>,
}

impl FileConditions<'_> {
    fn at(&mut self, file: usize) -> Result<FileCondition, ContentStoreError> {
        if let Some((look, _)) = self.seen.get(&file) {
            return Ok(*look);
        }
        let (files, layout) = (&self.store.files, self.layout);
        let there = files.by_name(layout, file)?.map(|(_, stamp)| stamp);
        let seen = match there {
            None => (FileCondition::Gone, None),
            Some(stamp)
                if self.trusts_stamps && self.found.stamps.get(&file) == Some(&stamp.digest()) =>
            {
                files.was_read(layout, file, stamp)?;
                (FileCondition::AsLeft, Some(stamp))
            }
            Some(_) => {
                // The file gets its size, and a copy of its own if it has a second name.
                files.get(layout, file)?;
                (FileCondition::Other, files.by_name(layout, file)?.map(|(_, stamp)| stamp))
            }
        };
        self.seen.insert(file, seen);
        Ok(seen.0)
    }

    /// Stamps of the files that were read, and the names of those that others had changed.
    fn settle(self) -> Result<(Stamps, Vec<String>), ContentStoreError> {
        let (mut stamps, mut names) = (Vec::new(), Vec::new());
        for (file, (look, before)) in &self.seen {
            if *look == FileCondition::AsLeft {
                continue;
            }
            if self.found.stamps.contains_key(file) && self.trusts_stamps {
                names.push(self.layout.extents()[*file].path.clone());
            }
            // A change during the reading is found out at the end.
            if let Some(stamp) = before {
                self.store.files.was_read(self.layout, *file, *stamp)?;
                stamps.push((*file, stamp.digest()));
            }
        }
        Ok((stamps, names))
    }
}

/// List of files that a fetch has kept, if it is the right one.
fn read_list(outer: &Folder, name: &str, digest: &Hash) -> Option<Vec<u8>> {
    use std::io::Read;
    outer.stat(name).ok()??;
    let mut text = Vec::new();
    let file = outer.file(name, Access::Read).ok()?;
    file.take(FILES_BYTES_MAX as u64 + 1).read_to_end(&mut text).ok()?;
    (hashing::digest(&text) == *digest).then_some(text)
}
