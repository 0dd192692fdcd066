//! One folder, and the files and folders opened below it: never by way of a link, and never
//! anything but plain files and folders.
//!
//! Every step of a path is taken from the folder before it and not from its name, so that no other
//! program can put a link in the way between a check and the use of the checked file.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::ContentStoreError;
use crate::model::name_complaint;

const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
/// Number of bytes that are copied at a time.
const COPY_BYTES: usize = 256 * 1024;

const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Kind of access to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The file is read; it must exist.
    Read,
    /// The file is read and written; it is made if it is missing, and so are the folders above it.
    Write,
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`, which may itself be reached by links: the user chose it.
    pub(super) fn open(path: &Path) -> Result<Self, ContentStoreError> {
        let flags = FOLDER_FLAGS.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|err| ContentStoreError::of("open the folder", path, err.into()))?;
        Ok(Self { fd, path: path.into() })
    }

    /// As [`Self::open`], and makes the folder if it is missing.
    pub(super) fn open_or_make(path: &Path) -> Result<Self, ContentStoreError> {
        std::fs::create_dir_all(path).map_err(|err| ContentStoreError::of("make", path, err))?;
        Self::open(path)
    }

    /// Opens the folder `name` in this one, and makes it if it is missing.
    pub(super) fn enter_or_make(&self, name: &str) -> Result<Self, ContentStoreError> {
        check_part(name)?;
        let path = self.path.join(name);
        let fd = self.step(name, true).map_err(|err| self.failed("open", name, err))?;
        Ok(Self { fd, path })
    }

    /// Opens the file at `path`, parts divided by `/`.
    pub(super) fn file(&self, path: &str, access: Access) -> Result<File, ContentStoreError> {
        let mut parts: Vec<_> = path.split('/').collect();
        for part in &parts {
            check_part(part)?;
        }
        let name = parts.pop().expect("a split has a last part");
        let makes = access == Access::Write;
        let mut folder: Option<OwnedFd> = None;
        for part in parts {
            let from = folder.as_ref().unwrap_or(&self.fd);
            folder = Some(step(from, part, makes).map_err(|err| self.failed("open", path, err))?);
        }
        let from = folder.as_ref().unwrap_or(&self.fd);
        // Without the last flag, a pipe in the way would hold this thread for ever.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = flags | if makes { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDONLY };
        let file = rustix::fs::openat(from, name, flags, FILE_MODE)
            .map_err(|err| self.failed("open", path, err))?;
        let stat = rustix::fs::fstat(&file).map_err(|err| self.failed("examine", path, err))?;
        let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_plain {
            return Err(ContentStoreError::NotPlain { path: self.path.join(path) });
        }
        // The other name may lie anywhere, and a write to the one is a write to the other.
        if makes && stat.st_nlink > 1 {
            return Err(ContentStoreError::SecondName { path: self.path.join(path) });
        }
        Ok(file.into())
    }

    /// Opens the file at `path` to be written, as [`Self::file`] does; one that has a second name
    /// is copied first, and the second name keeps the old content.
    pub(super) fn own_file(&self, path: &str) -> Result<File, ContentStoreError> {
        match self.file(path, Access::Write) {
            Err(ContentStoreError::SecondName { .. }) => {
                self.copy_apart(path)?;
                self.file(path, Access::Write)
            }
            file => file,
        }
    }

    /// Replaces a file that has a second name by a copy; the second name keeps the file. Runs of
    /// zeros become holes.
    fn copy_apart(&self, path: &str) -> Result<(), ContentStoreError> {
        use std::os::unix::fs::FileExt;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.enter_or_make_all(above)?;
        let draft = ".folkmoot-copy";
        folder.remove(draft)?;
        let failed = |action| move |err| ContentStoreError::of(action, self.path.join(path), err);
        let from = folder.file(name, Access::Read)?;
        let to = folder.file(draft, Access::Write)?;
        let len = from.metadata().map_err(failed("examine"))?.len();
        to.set_len(len).map_err(failed("make room for"))?;
        let (mut data, mut at) = (vec![0; COPY_BYTES], 0);
        while at < len {
            let read = from.read_at(&mut data, at).map_err(failed("read"))?;
            if read == 0 {
                break;
            }
            if data[..read].iter().any(|it| *it != 0) {
                to.write_all_at(&data[..read], at).map_err(failed("write"))?;
            }
            at += read as u64;
        }
        to.sync_all().map_err(failed("sync"))?;
        rustix::fs::renameat(&folder.fd, draft, &folder.fd, name)
            .map_err(|err| self.failed("rename", path, err))
    }

    /// Opens the folder at `path`, parts divided by `/`, and makes missing ones; this one, if the
    /// path is empty.
    pub(super) fn enter_or_make_all(&self, path: &str) -> Result<Self, ContentStoreError> {
        let mut folder = Self { fd: self.again()?, path: self.path.clone() };
        for part in path.split('/').filter(|it| !it.is_empty()) {
            folder = folder.enter_or_make(part)?;
        }
        Ok(folder)
    }

    fn again(&self) -> Result<OwnedFd, ContentStoreError> {
        rustix::fs::openat(&self.fd, ".", FOLDER_FLAGS, Mode::empty())
            .map_err(|err| self.failed("open", ".", err))
    }

    /// True if the path of this folder still leads to it.
    pub(super) fn is_in_place(&self) -> bool {
        let inode = |it: Stat| (it.st_dev, it.st_ino);
        let here = rustix::fs::fstat(&self.fd).map(inode);
        here.is_ok() && rustix::fs::stat(&self.path).map(inode).ok() == here.ok()
    }

    /// Attributes of `name`, without following links; `None` if it does not exist.
    pub(super) fn stat(&self, name: &str) -> Result<Option<Stat>, ContentStoreError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(self.failed("examine", name, err)),
        }
    }

    /// Gives `from` the name `to`, which must be free.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), ContentStoreError> {
        let exists = || ContentStoreError::Exists { path: self.path.join(to) };
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists()),
            // Some file systems cannot do it in one step.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if self.stat(to)?.is_some() {
                    return Err(exists());
                }
                rustix::fs::renameat(&self.fd, from, &self.fd, to)
                    .map_err(|err| self.failed("rename", from, err))
            }
            Err(err) => Err(self.failed("rename", from, err)),
        }
    }

    /// Removes the file `name`, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), ContentStoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(err) => Err(self.failed("remove", name, err)),
        }
    }

    /// Waits until the folder's entries are on disk.
    pub(super) fn sync(&self) -> Result<(), ContentStoreError> {
        rustix::fs::fsync(&self.fd).map_err(|err| self.failed("sync", ".", err))
    }

    /// Number of bytes that may still be written on this disk; [`u64::MAX`] if it is unknown.
    pub(super) fn free_bytes(&self) -> u64 {
        rustix::fs::fstatvfs(&self.fd)
            .map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize.max(1)))
    }

    /// Path of this folder, for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Descriptor of this folder, for calls of the system.
    pub(super) const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn step(&self, name: &str, makes: bool) -> Result<OwnedFd, Errno> {
        step(&self.fd, name, makes)
    }

    fn failed(&self, action: &'static str, path: &str, err: Errno) -> ContentStoreError {
        let path = self.path.join(path);
        // A step through a file that is not a folder, or through a link to one.
        if err == Errno::NOTDIR {
            return ContentStoreError::NotPlain { path };
        }
        ContentStoreError::of(action, path, io::Error::from(err))
    }
}

fn step(from: &OwnedFd, name: &str, makes: bool) -> Result<OwnedFd, Errno> {
    if makes {
        match rustix::fs::mkdirat(from, name, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(err) => return Err(err),
        }
    }
    rustix::fs::openat(from, name, FOLDER_FLAGS, Mode::empty())
}

/// Checks that a part of a path leads nowhere but into its folder.
pub(super) fn check_part(part: &str) -> Result<(), ContentStoreError> {
    let Some(reason) = name_complaint(part) else { return Ok(()) };
    Err(ContentStoreError::BadName { name: part.chars().take(80).collect(), reason })
}
