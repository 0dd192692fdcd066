//! The thread that writes the log: all waiting records go to the disk together.
//!
//! Invariant: a record that the disk did not confirm is never reported as written; after a failure
//! of the disk none is.

use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
struct Inner<R> {
    records: Vec<R>,
    synced: u64,
    is_closed: bool,
    has_failed: bool,
    /// True if the writer sleeps, and the number of threads that wait for it; waking costs a system
    /// call.
    is_idle: bool,
    waiting: usize,
}

/// Records on their way to the disk. There is no bound of its own: the machine takes no more than
/// it may have waiting.
#[derive(Debug)]
pub(in crate::runtime) struct LogWriter<R> {
    inner: Mutex<Inner<R>>,
    wanted: Condvar,
    moved: Condvar,
}

impl<R> Default for LogWriter<R> {
    fn default() -> Self {
        let inner = Inner {
            records: Vec::new(),
            synced: 0,
            is_closed: false,
            has_failed: false,
            is_idle: false,
            waiting: 0,
        };
        Self { inner: Mutex::new(inner), wanted: Condvar::new(), moved: Condvar::new() }
    }
}

impl<R> LogWriter<R> {
    /// Hands over records, which are taken out of `records`.
    pub(in crate::runtime) fn hand_over(&self, records: &mut Vec<R>) {
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

    /// Writes the handed-over records with `append`, until [`Self::close`] or a failure of the
    /// disk. Reports the number of records on disk by `tell`, and then calls `conclude`, for which
    /// no thread waits.
    pub(in crate::runtime) fn write<E>(
        &self,
        mut append: impl FnMut(&[R]) -> Result<(), E>,
        tell: impl Fn(u64),
        mut conclude: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut records = Vec::new();
        let mut written = 0;
        while self.take(&mut records) {
            append(&records).inspect_err(|_| self.fail())?;
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
            conclude().inspect_err(|_| self.fail())?;
        }
        Ok(())
    }

    fn fail(&self) {
        self.lock().has_failed = true;
        self.moved.notify_all();
    }

    fn take(&self, records: &mut Vec<R>) -> bool {
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
    pub(in crate::runtime) fn await_synced(&self, records: u64) -> bool {
        let mut inner = self.lock();
        while inner.synced < records && !inner.is_closed && !inner.has_failed {
            inner.waiting += 1;
            inner = self.moved.wait(inner).expect("nothing under this lock can panic");
            inner.waiting -= 1;
        }
        inner.synced >= records
    }

    /// Ends the writer, once it has written all records that were handed over.
    pub(in crate::runtime) fn close(&self) {
        self.lock().is_closed = true;
        self.wanted.notify_all();
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().expect("nothing under this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::runtime::thread;

    #[test]
    fn whatever_waits_is_confirmed_once_it_is_there() {
        let disk = Arc::new(LogWriter::default());
        disk.hand_over(&mut vec![1, 2, 3]);
        let (tell, synced) = bounded(8);
        let writing = Arc::clone(&disk);
        let writer = thread::spawn("disk", move || {
            let mut log = Vec::new();
            let append = |records: &[u32]| -> Result<(), ()> {
                log.extend_from_slice(records);
                Ok(())
            };
            writing.write(append, |records| tell.send(records).unwrap(), || Ok(())).unwrap();
            log
        });
        assert_eq!(synced.recv(), Ok(3), "together");
        assert!(disk.await_synced(3));
        disk.hand_over(&mut vec![4, 5]);
        assert_eq!(synced.recv(), Ok(5));
        disk.close();
        assert_eq!(writer.unwrap().join().unwrap(), [1, 2, 3, 4, 5]);
        assert!(!disk.await_synced(6), "it never will be");
    }

    #[test]
    fn what_the_disk_refuses_is_never_confirmed() {
        let disk = LogWriter::default();
        disk.hand_over(&mut vec![1, 2, 3]);
        let error = disk.write(|_: &[u32]| Err("full"), |_| panic!("it is not there"), || Ok(()));
        assert_eq!(error, Err("full"));
        assert!(!disk.await_synced(1));
        assert!(disk.await_synced(0));
    }
}
