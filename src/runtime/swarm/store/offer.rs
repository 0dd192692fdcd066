//! A file or folder that is to be offered: its files and their stamps.

use std::path::Path;

use super::files::{Files, OpenMode, Stamp};
use super::folder::{Access, Folder};
use super::layout::Layout;
use super::scan::{scan, traits_of};
use super::{ContentStoreError, Goal, Store};
use crate::model::FileAttributes;
use crate::proto::swarm::{PieceIndex, Pieces};

/// Files to be offered, as they were when they were examined.
#[derive(Debug)]
pub struct OfferedFiles {
    pub(super) files: Files,
    pub(super) layout: Layout,
    pub(super) stamps: Vec<Stamp>,
    pub(super) list: Option<Vec<u8>>,
    name: String,
    left_out: Vec<String>,
}

impl OfferedFiles {
    /// Examines the file or folder at `path`.
    ///
    /// # Errors
    /// Fails if it cannot be read, is neither, or has names that other systems could not have.
    pub fn new(path: &Path) -> Result<Self, ContentStoreError> {
        let failed = |err| ContentStoreError::of("find", path, err);
        let real = path.canonicalize().map_err(failed)?;
        let name = real.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            let name = real.to_string_lossy().into_owned();
            ContentStoreError::BadName { name, reason: "it is no name, or not text (UTF-8)" }
        })?;
        if !real.metadata().map_err(failed)?.is_dir() {
            return Self::file(&real, name);
        }
        let (list, left_out) = scan(&real)?;
        let layout = Layout::of(&list);
        let text = list.encode();
        let mut offer = Self::look(Folder::open(&real)?, name, layout)?;
        (offer.list, offer.left_out) = (Some(text), left_out);
        Ok(offer)
    }

    /// Examines the plain file at `path`, which is called `name`.
    pub(super) fn file(path: &Path, name: &str) -> Result<Self, ContentStoreError> {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = Folder::open(folder.unwrap_or(Path::new(".")))?;
        let file = folder.file(name, Access::Read)?;
        let meta = file.metadata().map_err(|err| ContentStoreError::of("examine", path, err))?;
        // A ticket has no room for a time.
        let traits = FileAttributes { mtime: None, ..traits_of(&meta, false) };
        Self::look(folder, name, Layout::single(name, meta.len(), traits))
    }

    fn look(folder: Folder, name: &str, layout: Layout) -> Result<Self, ContentStoreError> {
        let mut stamps = Vec::with_capacity(layout.extents().len());
        for extent in layout.extents() {
            let path = folder.path().join(&extent.path);
            let file = folder.file(&extent.path, Access::Read)?;
            let stamp =
                Stamp::of(&file).map_err(|err| ContentStoreError::of("examine", &path, err))?;
            if stamp.size != extent.len {
                return Err(ContentStoreError::Changed { path });
            }
            stamps.push(stamp);
        }
        let files = Files::new(folder, OpenMode::Offered(stamps.clone()));
        let (name, left_out) = (name.to_owned(), Vec::new());
        Ok(Self { files, layout, stamps, list: None, name, left_out })
    }

    /// Name of the file or folder, without its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of all files, in bytes.
    pub fn size(&self) -> u64 {
        self.layout.extents().iter().map(|it| it.len).sum()
    }

    /// Text of the list of files, if it is a folder.
    pub fn list(&self) -> Option<&[u8]> {
        self.list.as_deref()
    }

    /// Permissions of the file, if it is one.
    pub fn traits(&self) -> FileAttributes {
        match (&self.list, self.layout.extents()) {
            (None, [only]) => only.traits,
            (Some(_) | None, _) => FileAttributes::default(),
        }
    }

    /// Names that are not offered, each with its reason: links, special files, names that are no
    /// text.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The content as a store, whole and only to be read.
    ///
    /// # Errors
    /// Fails if its size is not the one that was divided.
    pub fn store(self, pieces: Pieces) -> Result<Store, ContentStoreError> {
        if pieces.size() != self.size() {
            let path = self.files.folder().path().join(&self.name);
            return Err(ContentStoreError::WrongSize {
                path,
                is: self.size(),
                should: pieces.size(),
            });
        }
        let mut store = Store::new(pieces, self.files, Goal::Stays);
        let _ = store.layout.set(self.layout);
        if let Some(list) = self.list {
            let _ = store.list.set(list);
        }
        store.proven = (0..pieces.count()).map(PieceIndex).collect();
        Ok(store)
    }
}
