//! Connections with a deadline: the opening of both ends must come in time.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::RawConnection;

/// A connection that fails at a deadline, until that is lifted: a byte now and then gains no time.
#[derive(Debug)]
pub(in crate::runtime) struct DeadlineStream {
    connection: RawConnection,
    clock: Clock,
    deadline: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
}

impl DeadlineStream {
    pub(in crate::runtime) fn new(connection: RawConnection, clock: Clock, deadline: Time) -> Self {
        let deadline = Arc::new(AtomicU64::new(deadline.as_micros()));
        Self { connection, clock, deadline, reads: Arc::default() }
    }

    /// Handle that lifts the deadline.
    pub(in crate::runtime) fn deadline(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.deadline)
    }

    /// Number of successful reads.
    pub(in crate::runtime) fn reads(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reads)
    }

    pub(in crate::runtime) fn stream(&self) -> Arc<TcpStream> {
        self.connection.share_stream()
    }

    fn left(&self) -> io::Result<Option<std::time::Duration>> {
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline == u64::MAX {
            return Ok(None);
        }
        let left = Time::from_micros(deadline).since(self.clock.now().mono);
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(left) = self.left()? {
            self.connection.stream().set_read_timeout(Some(left))?;
        }
        let len = self.connection.read(buf)?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(len)
    }
}

impl io::Write for DeadlineStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.connection.stream().set_write_timeout(self.left()?)?;
        self.connection.stream().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
