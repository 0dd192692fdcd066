//! The data directory of one node: `<root>/<role>-<port>/`, and the identity in it.
//!
//! Invariants:
//! - While a [`DataDir`] lives, no other process uses its directory.
//! - A secret key is on disk under mode 0600 only, and whole or not at all.
//! - An identity is never replaced silently: a key file that cannot be used stops the node.

use std::error::Error;
use std::fmt;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::SeedableRng as _;
use rand::rngs::SysRng;

use super::lock::LockedFile;
use crate::model::{KeyPair, Rng};

/// The key file's whole text: 64 hexadecimal digits and a newline, with some room for more.
const KEY_FILE_BYTES_MAX: u64 = 256;

/// Reason why a data directory cannot be used.
#[derive(Debug)]
pub enum FilesError {
    /// The disk refused.
    Io {
        /// Action that failed, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Another process uses the directory.
    Locked {
        /// Path of the directory.
        dir: PathBuf,
    },
    /// Users other than the owner may write to the directory, and so replace its files.
    DirExposed {
        /// Path of the directory.
        dir: PathBuf,
        /// Mode of the directory.
        mode: u32,
    },
    /// Users other than the owner may read or write the secret key.
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Permission bits of the key file.
        mode: u32,
    },
    /// The key file does not hold a key.
    KeyMalformed {
        /// The key file.
        path: PathBuf,
    },
    /// The operating system gives no randomness.
    NoEntropy {
        /// Error of the system.
        reason: String,
    },
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::Locked { dir } => write!(
                f,
                "another process uses {}; stop it, or choose another port or data directory",
                dir.display()
            ),
            Self::DirExposed { dir, mode } => write!(
                f,
                "others may replace what is in {dir} (its mode is {mode:04o}); if that has not \
                 happened, run: chmod 700 {dir}",
                dir = dir.display()
            ),
            Self::KeyExposed { path, mode } => write!(
                f,
                "others may read or change the secret key {path} (its mode is {mode:04o}); if it \
                 may have been copied, delete it to start as a new node, \
                 else run: chmod 600 {path}",
                path = path.display()
            ),
            Self::KeyMalformed { path } => write!(
                f,
                "{} does not hold a secret key (64 hexadecimal digits); restore it from a copy, or \
                 delete it to start as a new node",
                path.display()
            ),
            Self::NoEntropy { reason } => {
                write!(f, "the operating system gives no randomness: {reason}")
            }
        }
    }
}

impl Error for FilesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Locked { .. }
            | Self::DirExposed { .. }
            | Self::KeyExposed { .. }
            | Self::KeyMalformed { .. }
            | Self::NoEntropy { .. } => None,
        }
    }
}

/// The data directory of one node, locked for this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: LockedFile,
}

impl DataDir {
    /// Opens `<root>/<role>-<port>`, creates it with mode 0700 where it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// [`FilesError::Locked`] if another process holds it, [`FilesError::DirExposed`] if users
    /// other than the owner may write to it; otherwise the error of the disk.
    pub fn open(root: &Path, role: &str, port: u16) -> Result<Self, FilesError> {
        Self::open_at(root.join(format!("{role}-{port}")))
    }

    /// As [`Self::open`], for the directory `path`.
    ///
    /// # Errors
    ///
    /// As [`DataDir::open`].
    pub fn open_at(path: PathBuf) -> Result<Self, FilesError> {
        Self::open_by(path, LockedFile::lock)
    }

    /// As [`Self::open_at`], but `None` at once if another process uses the directory.
    ///
    /// # Errors
    ///
    /// As [`DataDir::open`], but for that.
    pub fn open_idle(path: PathBuf) -> Result<Option<Self>, FilesError> {
        match Self::open_by(path, LockedFile::try_lock) {
            Err(FilesError::Locked { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// True if the directory has the name `<root>/<role>-<port>`, or no other file has.
    pub fn is_free_for(&self, root: &Path, role: &str, port: u16) -> bool {
        let path = root.join(format!("{role}-{port}"));
        path == self.path || !path.exists()
    }

    /// Renames the directory, locked all the time, to `<root>/<role>-<port>`.
    ///
    /// # Errors
    ///
    /// Fails if the disk refuses, or there is another directory of that name with something in it.
    pub fn moved_to(self, root: &Path, role: &str, port: u16) -> Result<Self, FilesError> {
        let path = root.join(format!("{role}-{port}"));
        if path != self.path {
            let moved = std::fs::rename(&self.path, &path).and_then(|()| sync_dir(parent(&path)));
            let from = self.path;
            moved.map_err(|source| FilesError::Io { action: "rename", path: from, source })?;
        }
        Ok(Self { path, _lock: self._lock })
    }

    fn open_by(
        path: PathBuf,
        lock_file: impl FnOnce(File) -> Result<LockedFile, TryLockError>,
    ) -> Result<Self, FilesError> {
        let io = |action| {
            let path = path.clone();
            move |source| FilesError::Io { action, path, source }
        };
        make_dirs(&path, 0o700).map_err(io("create"))?;
        let found = std::fs::metadata(&path).map_err(io("examine"))?;
        if is_exposed(&path, &found, 0o022) {
            return Err(FilesError::DirExposed { dir: path, mode: found.mode() & 0o7777 });
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io("open the lock file in"))?;
        match lock_file(lock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FilesError::Locked { dir: path }),
            Err(TryLockError::Error(source)) => Err(io("lock")(source)),
        }
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the journal.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal.log")
    }

    /// Path of the socket of local commands.
    pub fn control_path(&self) -> PathBuf {
        control_path(&self.path)
    }

    /// Identity of the node; a new one is made at the first start.
    ///
    /// # Errors
    ///
    /// Fails if the key file is malformed or users other than the owner may touch it, or if the
    /// disk or the operating system's randomness fails.
    pub fn identity(&self) -> Result<KeyPair, FilesError> {
        if let Some(key) = self.stored_identity()? {
            return Ok(key);
        }
        let key = KeyPair::generate(&mut os_rng()?);
        self.store_identity(&key)?;
        Ok(key)
    }

    /// Identity that is on disk, if there is one.
    ///
    /// # Errors
    ///
    /// As [`DataDir::identity`].
    pub fn stored_identity(&self) -> Result<Option<KeyPair>, FilesError> {
        let path = self.path.join("identity.key");
        match File::open(&path) {
            Ok(file) => read_key(&path, &file).map(Some),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FilesError::Io { action: "open", path, source }),
        }
    }

    /// Stores an identity in a directory that has none.
    ///
    /// # Errors
    ///
    /// Fails if the disk does.
    pub fn store_identity(&self, key: &KeyPair) -> Result<(), FilesError> {
        let path = self.path.join("identity.key");
        let text = format!("{}\n", hex::encode(key.secret_bytes()));
        let failed = |source| FilesError::Io { action: "write", path: path.clone(), source };
        replace_file(&path, text.as_bytes()).map_err(failed)
    }
}

/// Identity of the node in `<root>/<role>-<port>`, which may be running; a new one is made if there
/// is none.
///
/// # Errors
///
/// As [`DataDir::open`] and [`DataDir::identity`].
pub fn identity_of(root: &Path, role: &str, port: u16) -> Result<KeyPair, FilesError> {
    let path = root.join(format!("{role}-{port}")).join("identity.key");
    match File::open(&path) {
        Ok(file) => read_key(&path, &file),
        Err(_) => DataDir::open(root, role, port)?.identity(),
    }
}

/// Path of the socket of local commands of the node whose data directory is `dir`.
pub fn control_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// A generator seeded by the operating system.
///
/// # Errors
///
/// Fails if the operating system gives no randomness.
pub fn os_rng() -> Result<Rng, FilesError> {
    Rng::try_from_rng(&mut SysRng).map_err(|err| FilesError::NoEntropy { reason: err.to_string() })
}

/// The first path that a group of this process may reach, and that group.
static OPEN_TO_GROUP: OnceLock<(PathBuf, u32)> = OnceLock::new();

/// True if users other than this process's may access `path` by the bits `forbidden` of its mode.
///
/// A group is not others if this process belongs to it and the owner is its user or root: the
/// volumes and secrets of container systems are made so. [`warn_of_group`] logs that.
pub(super) fn is_exposed(path: &Path, found: &Metadata, forbidden: u32) -> bool {
    let open = found.mode() & forbidden;
    if open == 0 {
        return false;
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let others = rustix::process::getgroups().unwrap_or_default();
    let groups: Vec<_> = others.into_iter().map(|it| it.as_raw()).chain([group]).collect();
    let is_own = [user, 0].contains(&found.uid()) && groups.contains(&found.gid());
    if open & 0o007 != 0 || !is_own {
        return true;
    }
    OPEN_TO_GROUP.get_or_init(|| (path.to_owned(), found.gid()));
    warn_of_group();
    false
}

/// Warns once of a path that a group of this process may reach, as soon as there is a log.
pub fn warn_of_group() {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    let Some((path, group)) = OPEN_TO_GROUP.get() else { return };
    if log::max_level() >= log::Level::Warn && !IS_SAID.swap(true, Ordering::Relaxed) {
        log::warn!(
            "{} is open to the group {group}, to which this process belongs: whoever else is in it \
             can act as this node",
            path.display(),
        );
    }
}

/// Waits until the entries of the directory `dir` are on disk.
///
/// # Errors
///
/// Fails if the disk refuses.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Waits until the readable content of `file`, which is at `path`, is on disk, and so is its name.
///
/// A process that was killed may have written data that only the system's cache has: it can be read
/// until the power fails. No data that was read at a start may be believed before this.
///
/// # Errors
///
/// Fails if the disk refuses.
pub fn settle(path: &Path, file: &File) -> io::Result<()> {
    #[cfg(test)]
    settling::note(path)?;
    file.sync_all()?;
    sync_dir(parent(path))
}

/// The directory of `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// Makes the directory `dir` and those above it that are missing, with `mode`, each on disk before
/// anything is put into it; also the name of one that is there already.
///
/// # Errors
///
/// Fails if the disk refuses.
pub(super) fn make_dirs(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.parent().is_none() {
        return Ok(());
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            make_dirs(parent(dir), mode)?;
            DirBuilder::new().mode(mode).create(dir)?;
        }
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {
            // The parent may belong to another user, in a place that may not be looked into.
            return match sync_dir(parent(dir)) {
                Err(err) if err.kind() != io::ErrorKind::PermissionDenied => Err(err),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        made => made?,
    }
    sync_dir(parent(dir))
}

fn read_key(path: &Path, file: &File) -> Result<KeyPair, FilesError> {
    let io = |action| move |source| FilesError::Io { action, path: path.into(), source };
    let found = file.metadata().map_err(io("examine"))?;
    if is_exposed(path, &found, 0o077) {
        return Err(FilesError::KeyExposed { path: path.into(), mode: found.mode() & 0o7777 });
    }
    settle(path, file).map_err(io("sync"))?;
    let mut text = Vec::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut text).map_err(io("read"))?;
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim_ascii(), &mut secret)
        .map_err(|_| FilesError::KeyMalformed { path: path.into() })?;
    Ok(KeyPair::from_secret(secret))
}

/// Writes `path` with mode 0600 so that a crash leaves the old file, the new one, or none.
///
/// # Errors
///
/// Fails if the disk refuses.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    match std::fs::remove_file(&draft) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    // A new file, so that no earlier one's permissions are inherited.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    sync_dir(parent(path))
}

/// Record of the calls of [`settle`] for tests, each on its own thread.
#[cfg(test)]
pub(super) mod settling {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::path::{Path, PathBuf};

    thread_local! {
        static SEEN: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
        static FAILS: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn note(path: &Path) -> io::Result<()> {
        SEEN.with_borrow_mut(|seen| seen.push(path.to_owned()));
        if FAILS.get() { Err(io::Error::other("the disk refuses")) } else { Ok(()) }
    }

    /// Paths that were settled while `work` ran; with `fails`, the disk refused it.
    pub(crate) fn during<T>(fails: bool, work: impl FnOnce() -> T) -> (T, Vec<PathBuf>) {
        FAILS.set(fails);
        SEEN.take();
        let made = work();
        FAILS.set(false);
        (made, SEEN.take())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 6001).unwrap();
        assert_eq!(dir.path(), root.path().join("peer-6001"));
        let made = dir.identity().unwrap();
        assert_eq!(dir.identity().unwrap().public(), made.public());
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join("identity.key")), 0o600);
        drop(dir);
        let again = DataDir::open(root.path(), "peer", 6001).unwrap();
        assert_eq!(again.identity().unwrap().public(), made.public());
        let other = DataDir::open(root.path(), "peer", 6002).unwrap();
        assert_ne!(other.identity().unwrap().public(), made.public());
    }

    #[test]
    fn an_identity_can_be_asked_for_before_the_first_start_and_while_the_node_runs() {
        let root = tempfile::tempdir().unwrap();
        let made = identity_of(root.path(), "seed", 5001).unwrap();
        let running = DataDir::open(root.path(), "seed", 5001).unwrap();
        assert_eq!(running.identity().unwrap().public(), made.public());
        assert_eq!(mode(running.path()), 0o700);
        assert_eq!(mode(&running.path().join("identity.key")), 0o600);
        assert_eq!(identity_of(root.path(), "seed", 5001).unwrap().public(), made.public());
    }

    #[test]
    fn a_directory_in_use_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let _held = DataDir::open(root.path(), "seed", 5001).unwrap();
        let text = DataDir::open(root.path(), "seed", 5001).unwrap_err().to_string();
        assert!(text.contains("seed-5001") && text.contains("another process"), "{text}");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = DataDir::open(root.path(), "peer", 1).unwrap().path().to_owned();
        for exposed in [0o702, 0o722, 0o777, 0o1777] {
            fs::set_permissions(&path, Permissions::from_mode(exposed)).unwrap();
            let text = DataDir::open(root.path(), "peer", 1).unwrap_err().to_string();
            assert!(text.contains(&format!("{exposed:04o}")), "{text}");
            assert!(text.contains("chmod 700") && text.contains("peer-1"), "{text}");
        }
        for fine in [0o700, 0o755, 0o2770] {
            fs::set_permissions(&path, Permissions::from_mode(fine)).unwrap();
            DataDir::open(root.path(), "peer", 1).unwrap();
        }
    }

    #[test]
    fn an_exposed_key_is_refused_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 1).unwrap();
        dir.identity().unwrap();
        let path = dir.path().join("identity.key");
        for exposed in [0o604, 0o644, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(exposed)).unwrap();
            let text = dir.identity().unwrap_err().to_string();
            assert!(text.contains(&format!("{exposed:04o}")), "{text}");
            assert!(text.contains("chmod 600"), "{text}");
        }
        // A group of this process is its own.
        fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        dir.identity().unwrap();
    }

    #[test]
    fn a_malformed_key_is_refused_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 1).unwrap();
        dir.identity().unwrap();
        let path = dir.path().join("identity.key");
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["", "12", &good[..62], &format!("{}{good}", good.trim()), &"zz".repeat(32)] {
            fs::write(&path, bad).unwrap();
            let text = dir.identity().unwrap_err().to_string();
            assert!(text.contains("identity.key") && text.contains("64 hex"), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_key_that_is_read_is_on_disk_before_it_is_believed() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 1).unwrap();
        let made = dir.identity().unwrap();
        let (read, seen) = settling::during(false, || dir.identity().unwrap());
        assert_eq!(read.public(), made.public());
        assert_eq!(seen, [dir.path().join("identity.key")]);
        let (refused, _) = settling::during(true, || dir.identity());
        assert!(matches!(refused, Err(FilesError::Io { action: "sync", .. })), "{refused:?}");
        let (_, seen) = settling::during(false, || identity_of(root.path(), "peer", 1).unwrap());
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn directories_are_made_one_in_the_other() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        make_dirs(&deep, 0o700).unwrap();
        make_dirs(&deep, 0o700).unwrap();
        assert_eq!((mode(&deep), mode(&root.path().join("a"))), (0o700, 0o700));
        fs::write(deep.join("file"), "").unwrap();
        assert!(make_dirs(&deep.join("file"), 0o700).is_err());
        assert!(make_dirs(&deep.join("file/below"), 0o700).is_err());
    }

    #[test]
    fn a_crash_while_the_key_was_written_is_survived() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 1).unwrap();
        fs::write(dir.path().join("identity.new"), "half a k").unwrap();
        let made = dir.identity().unwrap();
        assert_eq!(dir.identity().unwrap().public(), made.public());
    }
}
