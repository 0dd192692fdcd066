//! Open files of one content: few at a time, whatever the folder holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ContentStoreError;
use super::folder::{Access, Folder};
use super::layout::{Extent, Layout};
use crate::model::FileAttributes;

/// Largest number of files open at a time; a process may have as few as a thousand descriptors.
const OPEN_MAX: usize = 64;

/// All attributes of a file by which a change of it shows: a write, a cut, a replacement, another
/// name or another mode leaves another stamp. The time of change (ctime) is the one part of it that
/// cannot be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    pub(super) ctime: (i64, i64),
    pub(super) inode: (u64, u64),
    pub(super) links: u64,
}

impl Stamp {
    /// Stamp of `file` now.
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            inode: (meta.dev(), meta.ino()),
            links: meta.nlink(),
        })
    }

    /// The stamp in 32 bits, for a record.
    pub(super) fn digest(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        self.update(&mut |part| sum.update(part));
        sum.finalize()
    }

    /// Passes all of the stamp to `take`, as bytes.
    pub(super) fn update(&self, take: &mut dyn FnMut(&[u8])) {
        for part in [self.size, self.inode.0, self.inode.1, self.links] {
            take(&part.to_be_bytes());
        }
        for part in [self.mtime.0, self.mtime.1, self.ctime.0, self.ctime.1] {
            take(&part.to_be_bytes());
        }
    }
}

/// Way in which the files are opened.
#[derive(Debug)]
pub(super) enum OpenMode {
    /// Only as they were when they were hashed.
    Offered(Vec<Stamp>),
    /// To be written; room on the disk may be asked for at once.
    Written {
        /// True if to ask the disk for all of a file's room at once.
        preallocates: bool,
    },
}

/// The files, by their number in the layout.
#[derive(Debug)]
pub(super) struct Files {
    folder: Folder,
    manner: OpenMode,
    open: Mutex<Open>,
    marks: Mutex<Marks>,
    /// Name of the only file, once it has its name.
    named: OnceLock<String>,
    /// Held while a file is written, so that the stamps before and after belong to one write.
    writing: Mutex<()>,
}

/// Stamps and owners of the files that are written.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Stamp of each file after this program's last look or write.
    left: BTreeMap<usize, Stamp>,
    /// Number of each file by its inode, to find out whether two names lead to one file.
    owners: BTreeMap<(u64, u64), usize>,
    /// Files that looked otherwise when they were written to again: others have changed them.
    suspects: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<usize, (u64, Arc<File>)>,
    uses: u64,
}

impl Files {
    pub(super) fn new(folder: Folder, manner: OpenMode) -> Self {
        Self {
            folder,
            manner,
            open: Mutex::default(),
            marks: Mutex::default(),
            named: OnceLock::new(),
            writing: Mutex::default(),
        }
    }

    /// Folder of the files.
    pub(super) const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// One of the files; made and given its size if it is written for the first time.
    pub(super) fn get(
        &self,
        layout: &Layout,
        number: usize,
    ) -> Result<Arc<File>, ContentStoreError> {
        let file = match self.find(number) {
            Some(file) => file,
            None => {
                let file = Arc::new(self.open(&layout.extents()[number], number)?);
                self.keep(number, &file);
                file
            }
        };
        if let OpenMode::Offered(stamps) = &self.manner {
            let path = || self.folder.path().join(&layout.extents()[number].path);
            let now =
                Stamp::of(&file).map_err(|err| ContentStoreError::of("examine", path(), err))?;
            if now != stamps[number] {
                return Err(ContentStoreError::Changed { path: path() });
            }
        }
        Ok(file)
    }

    /// Calls `put` to write to one of the files. A file that was not as it was left is opened anew
    /// by its name, and is read again before it is believed.
    pub(super) fn write(
        &self,
        layout: &Layout,
        number: usize,
        put: impl FnOnce(&File) -> std::io::Result<()>,
    ) -> Result<(), ContentStoreError> {
        let path = || self.folder.path().join(&layout.extents()[number].path);
        let failed = |action| move |err| ContentStoreError::of(action, path(), err);
        let _alone = self.writing.lock().expect("nothing under this lock can panic");
        let mut file = self.get(layout, number)?;
        let is = Stamp::of(&file).map_err(failed("examine"))?;
        match self.left(number) {
            Some(left) if left == is => {}
            Some(_) => {
                self.marks().suspects.insert(number);
                self.let_go(number);
                file = self.get(layout, number)?;
            }
            None => self.marks().claim(layout, number, is.inode)?,
        }
        put(&file).map_err(failed("write"))?;
        let left = Stamp::of(&file).map_err(failed("examine"))?;
        self.marks().left.insert(number, left);
        Ok(())
    }

    /// True if one of the files is as it was hashed or as it was left: no other program has changed
    /// it.
    pub(super) fn is_untouched(&self, number: usize, file: &File) -> bool {
        let wanted = || match &self.manner {
            OpenMode::Offered(stamps) => Some(stamps[number]),
            OpenMode::Written { .. } => self.left(number).filter(|_| !self.is_suspect(number)),
        };
        let is_so = || Stamp::of(file).ok() == wanted();
        is_so() || {
            // This program may be writing to it just now.
            let _alone = self.writing.lock().expect("nothing under this lock can panic");
            is_so()
        }
    }

    /// Forgets the stamp of one of the files: it is gone, and the next write makes a new one.
    pub(super) fn forget(&self, number: usize) {
        let mut marks = self.marks();
        marks.left.remove(&number);
        marks.suspects.remove(&number);
    }

    /// Stamp of one of the files after its last write here.
    pub(super) fn left(&self, number: usize) -> Option<Stamp> {
        self.marks().left.get(&number).copied()
    }

    /// Notes that one of the files was read, and had this stamp before and after.
    pub(super) fn was_read(
        &self,
        layout: &Layout,
        number: usize,
        stamp: Stamp,
    ) -> Result<(), ContentStoreError> {
        let mut marks = self.marks();
        marks.claim(layout, number, stamp.inode)?;
        marks.left.insert(number, stamp);
        marks.suspects.remove(&number);
        Ok(())
    }

    /// True if one of the files is in doubt although its stamp may be as it was left.
    pub(super) fn is_suspect(&self, number: usize) -> bool {
        self.marks().suspects.contains(&number)
    }

    /// One of the files as its name leads to it now, with its stamp; `None` if there is none.
    pub(super) fn by_name(
        &self,
        layout: &Layout,
        number: usize,
    ) -> Result<Option<(File, Stamp)>, ContentStoreError> {
        let path = self.name_of(&layout.extents()[number]);
        let file = match self.folder.file(path, Access::Read) {
            Ok(file) => file,
            Err(ContentStoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(err) => return Err(err),
        };
        let failed = |err| ContentStoreError::of("examine", self.folder.path().join(path), err);
        let stamp = Stamp::of(&file).map_err(failed)?;
        Ok(Some((file, stamp)))
    }

    /// Notes that the only file has this name now.
    pub(super) fn was_named(&self, layout: &Layout, name: &str) -> Result<(), ContentStoreError> {
        let _ = self.named.set(name.to_owned());
        // A new name changes the stamp as well.
        if let (Some(left), Some((_, stamp))) = (self.left(0), self.by_name(layout, 0)?)
            && (stamp.size, stamp.mtime, stamp.inode) == (left.size, left.mtime, left.inode)
        {
            self.was_read(layout, 0, stamp)?;
        }
        Ok(())
    }

    fn name_of<'a>(&'a self, extent: &'a Extent) -> &'a str {
        self.named.get().unwrap_or(&extent.path)
    }

    /// Gives one of the files its mode and time, once all of it is there.
    pub(super) fn dress(&self, layout: &Layout, number: usize) -> Result<(), ContentStoreError> {
        let extent = &layout.extents()[number];
        let FileAttributes { run, private: _, mtime } = extent.traits;
        if !run && mtime.is_none() {
            return Ok(());
        }
        let Some((file, before)) = self.by_name(layout, number)? else { return Ok(()) };
        let path = || self.folder.path().join(&extent.path);
        let failed = |err| ContentStoreError::of("set mode and time of", path(), err);
        if run {
            let mode = file.metadata().map_err(failed)?.mode() & 0o777;
            // Users that may read the file may execute it.
            let mode = Permissions::from_mode(mode | (mode & 0o444) >> 2);
            file.set_permissions(mode).map_err(failed)?;
        }
        if let Some(time) = mtime.and_then(system_time) {
            file.set_modified(time).map_err(failed)?;
        }
        let after = Stamp::of(&file).map_err(failed)?;
        let is_ours = extent.len == 0 || self.left(number) == Some(before);
        if !is_ours || after.size != extent.len {
            // The file was changed since it was verified.
            return Err(ContentStoreError::Disturbed { path: path() });
        }
        self.was_read(layout, number, after)
    }

    /// Closes a file, so that it is opened by its name when it is wanted again.
    pub(super) fn let_go(&self, number: usize) {
        self.open.lock().expect("nothing under this lock can panic").files.remove(&number);
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().expect("nothing under this lock can panic")
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

    fn open(&self, extent: &Extent, number: usize) -> Result<File, ContentStoreError> {
        let preallocates = match self.manner {
            OpenMode::Offered(_) => {
                let file = self.folder.file(&extent.path, Access::Read)?;
                log::trace!("opened file {number} to offer it");
                return Ok(file);
            }
            OpenMode::Written { preallocates } => preallocates,
        };
        let file = self.folder.own_file(self.name_of(extent))?;
        let failed = |action| {
            let path = self.folder.path().join(&extent.path);
            move |err| ContentStoreError::of(action, path, err)
        };
        let meta = file.metadata().map_err(failed("examine"))?;
        let is = meta.len();
        if extent.traits.private && meta.mode() & 0o077 != 0 {
            // The mode is set before the file has any content.
            let mode = Permissions::from_mode(meta.mode() & 0o700);
            file.set_permissions(mode).map_err(failed("change the mode of"))?;
        }
        if is != extent.len {
            if preallocates && is < extent.len {
                preallocate(&file, extent.len).map_err(failed("make room for"))?;
            }
            file.set_len(extent.len).map_err(failed("make room for"))?;
        }
        Ok(file)
    }
}

impl Marks {
    /// Notes the number of a file by its inode.
    fn claim(
        &mut self,
        layout: &Layout,
        number: usize,
        inode: (u64, u64),
    ) -> Result<(), ContentStoreError> {
        let owner = *self.owners.entry(inode).or_insert(number);
        let is_there = owner != number && self.left.get(&owner).is_some_and(|it| it.inode == inode);
        if is_there {
            let name = |number: usize| layout.extents()[number].path.clone();
            return Err(ContentStoreError::SameFile { one: name(owner), other: name(number) });
        }
        self.owners.insert(inode, number);
        Ok(())
    }
}

/// A time in seconds since 1970, if the system has it.
fn system_time(secs: i64) -> Option<SystemTime> {
    let span = Duration::from_secs(secs.unsigned_abs());
    if secs < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
}

/// Asks the disk for room, if it can give it in advance.
fn preallocate(file: &File, len: u64) -> std::io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Makes a run of a file zeros without writing them; false if the disk cannot.
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
