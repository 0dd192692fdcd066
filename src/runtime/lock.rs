//! Locks on files: the only way in which this project keeps a second process from its data.
//!
//! The system keeps such a lock (`flock`) with the *open* file, of which a process that another
//! thread is just starting has a copy until it executes its program. Closing the file therefore
//! does not end the lock while such a child exists. Two rules follow:
//! - The owner of a lock ends it explicitly in the system, which ends it for every copy.
//! - A process that finds a file locked tries for a while: a process that was killed could not end
//!   its lock, and a child that it was starting keeps the lock for some milliseconds more.

use std::fs::{File, TryLockError};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crossbeam_channel::after;

/// Number of tries before a locked file counts as used by another process.
const RETRIES: usize = 100;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// An open file, locked for its owner alone until it is dropped. The system ends the lock at the
/// end of the process.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// Locks `file`. Blocks for up to two seconds while another owner has it locked.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if another process, or another part of this one, keeps it
    /// locked; otherwise the error of the system.
    pub fn lock(file: File) -> Result<Self, TryLockError> {
        for _ in 0..RETRIES {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    // Never disconnected, never sent to: its only end is the time.
                    let _ = after(PAUSE).recv();
                }
                locked => return locked.map(|()| Self(file)),
            }
        }
        Self::try_lock(file)
    }

    /// Locks `file` if it is not locked now.
    ///
    /// # Errors
    ///
    /// As [`LockedFile::lock`].
    pub fn try_lock(file: File) -> Result<Self, TryLockError> {
        file.try_lock().map(|()| Self(file))
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If this fails, closing the file is all that is left.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn file(dir: &tempfile::TempDir) -> File {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.path().join("lock"))
            .unwrap()
    }

    /// A process that holds a copy of the open file, like a child that has not yet executed its
    /// program.
    fn child_with_a_copy_of(file: &File, script: &str) -> Child {
        let copy = Stdio::from(file.try_clone().unwrap());
        Command::new("sh").args(["-c", script]).stdin(copy).spawn().unwrap()
    }

    #[test]
    fn a_dropped_lock_is_free_at_once_though_a_child_holds_a_copy_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let held = LockedFile::lock(file(&dir)).unwrap();
        let mut child = child_with_a_copy_of(&held, "exec tail -f /dev/null");
        drop(held);
        // Without another try: it is free now, and not only soon.
        let locked_again = file(&dir).try_lock();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(locked_again.is_ok(), "{locked_again:?}");
    }

    #[test]
    fn the_lock_of_a_killed_process_is_waited_for_while_its_child_begins() {
        let dir = tempfile::tempdir().unwrap();
        let killed = file(&dir);
        killed.try_lock().unwrap();
        let mut child = child_with_a_copy_of(&killed, "sleep 0.2");
        // A process that is killed closes its files and does not unlock them.
        drop(killed);
        assert!(matches!(file(&dir).try_lock(), Err(TryLockError::WouldBlock)));
        LockedFile::lock(file(&dir)).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_lock_that_is_kept_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = LockedFile::lock(file(&dir)).unwrap();
        assert!(matches!(LockedFile::lock(file(&dir)), Err(TryLockError::WouldBlock)));
    }

    #[test]
    fn children_that_other_threads_start_never_keep_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let starters: Vec<_> = (0..3)
            .map(|_| {
                let is_over = Arc::clone(&is_over);
                let start = move || {
                    while !is_over.load(Ordering::Relaxed) {
                        Command::new("true").status().unwrap();
                    }
                };
                crate::runtime::thread::spawn("starter", start).unwrap()
            })
            .collect();
        let mut kept = 0;
        for _ in 0..2_000 {
            drop(LockedFile::lock(file(&dir)).unwrap());
            let probe = file(&dir);
            kept += usize::from(probe.try_lock().is_err());
            let _ = probe.unlock();
        }
        is_over.store(true, Ordering::Relaxed);
        starters.into_iter().for_each(|it| it.join().unwrap());
        assert_eq!(kept, 0, "of 2,000 locks so many were kept by a child");
    }
}
