//! The thread that writes the log: whatever waits goes to the disk together.
//!
//! Invariant: what was not confirmed by the disk is never said to be there; after a failure of the
//! disk nothing more is.

use std::sync::{Condvar, Mutex, MutexGuard};

use super::store::{Log, StoreError};
use crate::protocol::chat::Record;

#[derive(Debug, Default)]
struct Inner {
    records: Vec<Record>,
    synced: u64,
    is_closed: bool,
    has_failed: bool,
    /// Whether the writer sleeps, and how many wait for it; waking costs a system call.
    is_idle: bool,
    waiting: usize,
}

/// What is on its way to the disk. There is no bound of its own: the machine takes no more than
/// it may have waiting.
#[derive(Debug, Default)]
pub(super) struct Disk {
    inner: Mutex<Inner>,
    wanted: Condvar,
    moved: Condvar,
}

impl Disk {
    /// Hands over records, which are taken out of `records`.
    pub(super) fn hand_over(&self, records: &mut Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let mut inner = self.lock();
        inner.records.append(records);
        let is_idle = std::mem::take(&mut inner.is_idle);
        drop(inner);
        if is_idle {
            self.wanted.notify_one();
        }
    }

    /// Writes what is handed over, until [`Self::close`] or a failure of the disk. Tells how many
    /// records are there by `tell`.
    pub(super) fn write(&self, log: &mut Log, tell: impl Fn(u64)) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let mut written = 0;
        while self.take(&mut records) {
            if let Err(error) = log.append(&records) {
                self.lock().has_failed = true;
                self.moved.notify_all();
                return Err(error);
            }
            written += records.len() as u64;
            records.clear();
            let mut inner = self.lock();
            inner.synced = written;
            let is_awaited = inner.waiting > 0;
            drop(inner);
            tell(written);
            if is_awaited {
                self.moved.notify_all();
            }
        }
        Ok(())
    }

    fn take(&self, records: &mut Vec<Record>) -> bool {
        let mut inner = self.lock();
        while inner.records.is_empty() && !inner.is_closed {
            inner.is_idle = true;
            inner = self.wanted.wait(inner).expect("nothing under this lock can panic");
        }
        inner.is_idle = false;
        std::mem::swap(&mut inner.records, records);
        !records.is_empty()
    }

    /// Waits until so many records are on disk; false if they never will be.
    pub(super) fn await_synced(&self, records: u64) -> bool {
        let mut inner = self.lock();
        while inner.synced < records && !inner.is_closed && !inner.has_failed {
            inner.waiting += 1;
            inner = self.moved.wait(inner).expect("nothing under this lock can panic");
            inner.waiting -= 1;
        }
        inner.synced >= records
    }

    /// Ends the writer, once it has written what was handed over.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wanted.notify_all();
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing under this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::model::KeyPair;
    use crate::protocol::chat::{MemberId, Term};
    use crate::runtime::chat::store;
    use crate::runtime::thread;

    fn log(dir: &std::path::Path) -> Log {
        store::open(dir, MemberId(1), KeyPair::from_secret([1; 32]).public()).unwrap().log
    }

    fn terms(count: u64) -> Vec<Record> {
        (1..=count).map(|it| Record::Term { term: Term(it), promised_to: None }).collect()
    }

    #[test]
    fn whatever_waits_is_confirmed_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, mut log) = (Arc::new(Disk::default()), log(dir.path()));
        disk.hand_over(&mut terms(3));
        let (tell, told) = bounded(8);
        let writing = Arc::clone(&disk);
        let writer = thread::spawn("disk", move || {
            writing.write(&mut log, |records| tell.send(records).unwrap()).unwrap();
        });
        assert_eq!(told.recv(), Ok(3), "together");
        assert!(disk.await_synced(3));
        disk.hand_over(&mut terms(2));
        assert_eq!(told.recv(), Ok(5));
        disk.close();
        writer.unwrap().join().unwrap();
        assert!(!disk.await_synced(6), "it never will be");
    }

    #[test]
    fn what_the_disk_refuses_is_never_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, mut log) = (Disk::default(), log(dir.path()));
        log.refuse_writes();
        disk.hand_over(&mut terms(3));
        let error = disk.write(&mut log, |_| panic!("it is not there")).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert!(!disk.await_synced(1));
        assert!(disk.await_synced(0));
    }
}
