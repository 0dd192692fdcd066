//! The sending end of one connection.
//!
//! Invariants:
//! - Bytes are sent in order, and a sender never waits.
//! - Nothing is queued while the socket takes it: a message then costs no change of threads.
//! - There is a bound to the waiting bytes; above it the connection is cut.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::SendFlags;

/// Largest number of bytes that wait for a connection whose other end reads slowly. The machine
/// stops sending long before to an end that does not acknowledge; this is for ends that do not read
/// answers.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Result of sending bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) enum Sent {
    /// The system has the bytes, or a writer will give them to the system.
    Taken,
    /// The bytes wait, and there is no writer yet.
    WantsWriter,
}

/// Error: more bytes wait than are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Full;

#[derive(Debug, Default)]
struct Queue {
    parts: VecDeque<Vec<u8>>,
    bytes: usize,
    has_writer: bool,
    /// True if the writer holds something that it has not sent yet.
    is_writing: bool,
    /// True if no more bytes are taken.
    is_closed: bool,
}

/// One connection, as its senders see it.
#[derive(Debug)]
pub(in crate::runtime) struct LinkWriter {
    stream: Arc<TcpStream>,
    queue: Mutex<Queue>,
    moved: Condvar,
}

impl LinkWriter {
    pub(in crate::runtime) fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, queue: Mutex::default(), moved: Condvar::new() }
    }

    /// Sends `bytes`, now or later, without waiting.
    pub(in crate::runtime) fn send(&self, bytes: Vec<u8>) -> Result<Sent, Full> {
        let mut queue = self.lock();
        if queue.is_closed {
            return Ok(Sent::Taken);
        }
        let mut sent = 0;
        if queue.parts.is_empty() && !queue.is_writing {
            match send_now(&self.stream, &bytes) {
                Ok(len) if len == bytes.len() => return Ok(Sent::Taken),
                Ok(len) => sent = len,
                Err(_) => {
                    queue.is_closed = true;
                    drop(queue);
                    self.cut();
                    return Ok(Sent::Taken);
                }
            }
        }
        if queue.bytes + bytes.len() > WAITING_BYTES_MAX {
            return Err(Full);
        }
        let rest = if sent == 0 { bytes } else { bytes[sent..].to_vec() };
        queue.bytes += rest.len();
        queue.parts.push_back(rest);
        if std::mem::replace(&mut queue.has_writer, true) {
            drop(queue);
            self.moved.notify_one();
            return Ok(Sent::Taken);
        }
        Ok(Sent::WantsWriter)
    }

    /// Sends the waiting bytes, until the connection is closed. On a thread of its own.
    pub(in crate::runtime) fn write(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(part) = queue.parts.pop_front() {
                queue.bytes -= part.len();
                queue.is_writing = true;
                drop(queue);
                let outcome = send_all(&self.stream, &part);
                queue = self.lock();
                queue.is_writing = false;
                if outcome.is_err() {
                    queue.is_closed = true;
                    queue.parts.clear();
                    queue.bytes = 0;
                    drop(queue);
                    return self.cut();
                }
            } else if queue.is_closed {
                drop(queue);
                let _ = self.stream.shutdown(Shutdown::Write);
                return;
            } else {
                queue = self.moved.wait(queue).expect("nothing under this lock can panic");
            }
        }
    }

    /// Takes no more bytes; waiting ones still leave, and then the other end gets the end of the
    /// stream.
    pub(in crate::runtime) fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        let is_done = !queue.has_writer;
        drop(queue);
        if is_done {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        self.moved.notify_all();
    }

    /// Ends the connection at once, which wakes both its threads.
    pub(in crate::runtime) fn cut(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        queue.parts.clear();
        queue.bytes = 0;
        drop(queue);
        // This fails if the other end has already reset the connection: the goal is reached.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing under this lock can panic")
    }
}

/// Lets the system end a connection whose other end acknowledges nothing for so long, instead of
/// trying for many minutes.
pub(in crate::runtime) fn give_up_after(stream: &TcpStream, span: Duration) {
    // If the system has no such option, the user of the connection notices the silence by itself.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(span));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, span);
}

/// Gives the system as many of `bytes` as it takes without waiting.
fn send_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(stream, &bytes[sent..], flags) {
            Ok(len) => sent += len,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(sent),
            Err(err) => return Err(err.into()),
        }
    }
    Ok(sent)
}

fn send_all(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::net::send(stream, left, SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => left = &left[len..],
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;
    use crate::runtime::thread;

    fn pair() -> (Arc<LinkWriter>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(LinkWriter::new(Arc::new(stream))), listener.accept().unwrap().0)
    }

    #[test]
    fn what_does_not_fit_waits_for_a_writer_and_leaves_in_order() {
        let (line, mut other) = pair();
        let part = |number: u8| vec![number; 256 * 1024];
        let (mut number, mut expected) = (0_u8, Vec::new());
        // Until the system's buffers are full, and some more.
        let mut more = 4;
        while more > 0 {
            expected.extend(part(number));
            if line.send(part(number)).unwrap() == Sent::WantsWriter {
                let writing = Arc::clone(&line);
                thread::spawn("writer", move || writing.write()).unwrap();
            }
            more -= usize::from(line.lock().has_writer);
            number += 1;
        }
        line.close();
        let mut found = Vec::new();
        other.read_to_end(&mut found).unwrap();
        assert!(found == expected, "{} and {} bytes", found.len(), expected.len());
    }

    #[test]
    fn there_is_a_bound_to_what_waits() {
        let (line, _other) = pair();
        let outcome = (0..1_000).find_map(|_| line.send(vec![0; 256 * 1024]).err());
        assert_eq!(outcome, Some(Full));
        assert!(line.lock().bytes <= WAITING_BYTES_MAX);
    }

    #[test]
    fn a_connection_that_was_reset_takes_everything_and_does_not_tell() {
        let (line, other) = pair();
        drop(other);
        for _ in 0..100 {
            assert_eq!(line.send(vec![0; 1024]), Ok(Sent::Taken));
        }
        assert!(line.lock().is_closed);
    }
}
