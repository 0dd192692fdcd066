//! The open files of one content: few at a time, whatever the folder holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};

use super::StoreError;
use super::folder::{Access, Folder};
use super::layout::{Extent, Layout};

/// Files open at a time; a process has a thousand descriptors at times.
const OPEN_MAX: usize = 64;

/// What a file that is offered looked like when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    pub(super) inode: (u64, u64),
}

impl Stamp {
    /// What `file` looks like now.
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            inode: (meta.dev(), meta.ino()),
        })
    }
}

/// How the files are opened.
#[derive(Debug)]
pub(super) enum Manner {
    /// As they were when they were hashed, or not at all.
    Offered(Vec<Stamp>),
    /// To be written, with room on the disk from the first moment or not.
    Written {
        /// Whether to ask the disk for all of a file's room at once.
        preallocates: bool,
    },
}

/// The files, by their number in the layout.
#[derive(Debug)]
pub(super) struct Files {
    folder: Folder,
    manner: Manner,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<usize, (u64, Arc<File>)>,
    uses: u64,
}

impl Files {
    pub(super) fn new(folder: Folder, manner: Manner) -> Self {
        Self { folder, manner, open: Mutex::default() }
    }

    /// The folder they are in.
    pub(super) const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// One of the files; made and given its size where it is written for the first time.
    pub(super) fn get(&self, layout: &Layout, number: usize) -> Result<Arc<File>, StoreError> {
        let file = match self.find(number) {
            Some(file) => file,
            None => {
                let file = Arc::new(self.open(&layout.extents()[number], number)?);
                self.keep(number, &file);
                file
            }
        };
        if let Manner::Offered(stamps) = &self.manner {
            let path = || self.folder.path().join(&layout.extents()[number].path);
            let now = Stamp::of(&file).map_err(|err| StoreError::of("examine", path(), err))?;
            if now != stamps[number] {
                return Err(StoreError::Changed { path: path() });
            }
        }
        Ok(file)
    }

    fn find(&self, number: usize) -> Option<Arc<File>> {
        let mut open = self.open.lock().expect("nothing under this lock can panic");
        open.uses += 1;
        let uses = open.uses;
        let (used, file) = open.files.get_mut(&number)?;
        *used = uses;
        Some(Arc::clone(file))
    }

    fn keep(&self, number: usize, file: &Arc<File>) {
        let mut open = self.open.lock().expect("nothing under this lock can panic");
        if open.files.len() >= OPEN_MAX {
            let oldest = open.files.iter().min_by_key(|(_, (used, _))| *used).map(|(at, _)| *at);
            oldest.and_then(|oldest| open.files.remove(&oldest));
        }
        let uses = open.uses;
        open.files.insert(number, (uses, Arc::clone(file)));
    }

    fn open(&self, extent: &Extent, number: usize) -> Result<File, StoreError> {
        let preallocates = match self.manner {
            Manner::Offered(_) => {
                let file = self.folder.file(&extent.path, Access::Read)?;
                log::trace!("opened file {number} to offer it");
                return Ok(file);
            }
            Manner::Written { preallocates } => preallocates,
        };
        let file = self.folder.file(&extent.path, Access::Write)?;
        let failed = |action| {
            let path = self.folder.path().join(&extent.path);
            move |err| StoreError::of(action, path, err)
        };
        let is = file.metadata().map_err(failed("examine"))?.len();
        if is != extent.len {
            if preallocates && is < extent.len {
                preallocate(&file, extent.len).map_err(failed("make room for"))?;
            }
            file.set_len(extent.len).map_err(failed("make room for"))?;
        }
        Ok(file)
    }
}

/// Asks the disk for room, where it can give it in advance.
fn preallocate(file: &File, len: u64) -> std::io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Makes a run of a file zeros without writing them; false where the disk cannot.
pub(super) fn punch(file: &File, offset: u64, len: u64) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, flags, offset, len).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, offset, len);
        false
    }
}
