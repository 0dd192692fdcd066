//! Access log: a line of JSON for a request, or for a share of them.
//!
//! The log is for people and never slows requests: lines that the disk does not take in time are
//! left out and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rand::Rng as _;
use serde_json::json;

use crate::machine::rollout::bucket_of_draw;
use crate::model::{Rng, Time};
use crate::runtime::clock::Clock;
use crate::runtime::driver::counters::Counter;
use crate::runtime::thread;

/// Largest number of lines that wait to be written.
const LINES_MAX: usize = 4096;

/// Longest target in a line, in bytes.
const TARGET_MAX: usize = 512;

/// Time after which written lines are on their way to the disk.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// Settings of an access log.
#[derive(Clone, Debug)]
pub struct AccessLogOptions {
    /// File that lines are appended to.
    pub file: PathBuf,
    /// Share of the requests that have a line, in basis points.
    pub share: u32,
}

/// An access log, until dropped.
#[derive(Debug)]
pub(super) struct AccessLog {
    share: u32,
    lines: Mutex<Option<Sender<String>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reopens: Arc<AtomicBool>,
    /// Lines that were left out.
    pub(super) left_out: Counter,
}

impl AccessLog {
    /// Opens the file.
    ///
    /// # Errors
    /// Fails with the file and the reason, for people.
    pub(super) fn open(options: &AccessLogOptions) -> Result<Self, String> {
        let path = options.file.clone();
        let wrong = |error: io::Error| format!("{}: {error}", options.file.display());
        let file = open(&path).map_err(wrong)?;
        let (lines, told) = bounded(LINES_MAX);
        let reopens = Arc::<AtomicBool>::default();
        let reopens2 = Arc::clone(&reopens);
        let writer = thread::spawn("access-log", move || write(&path, file, &told, &reopens2));
        Ok(Self {
            share: options.share,
            lines: Mutex::new(Some(lines)),
            writer: Mutex::new(Some(writer.map_err(wrong)?)),
            reopens,
            left_out: Counter::default(),
        })
    }

    /// True if the next request has a line.
    pub(super) fn draws(&self, rng: &mut Rng) -> bool {
        self.share >= 10_000 || bucket_of_draw(rng.next_u64()) < self.share
    }

    /// Opens the file anew before the next line, after it was moved away.
    pub(super) fn reopen(&self) {
        self.reopens.store(true, Ordering::Relaxed);
    }

    /// Writes the lines that are left, and closes the file.
    pub(super) fn close(&self) {
        drop(self.lines.lock().expect("nothing under this lock can panic").take());
        let writer = self.writer.lock().expect("nothing under this lock can panic").take();
        if let Some(writer) = writer {
            // The thread has panicked if this fails, and reported that itself.
            let _ = writer.join();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write(path: &PathBuf, file: File, lines: &Receiver<String>, reopens: &AtomicBool) {
    let mut out = BufWriter::new(file);
    loop {
        let told = lines.recv_timeout(FLUSH_AFTER);
        if reopens.swap(false, Ordering::Relaxed) {
            let _ = out.flush();
            match open(path) {
                Ok(file) => out = BufWriter::new(file),
                Err(error) => log::warn!("the access log stays where it was: {error}"),
            }
        }
        let written = match told {
            Ok(line) => writeln!(out, "{line}"),
            Err(RecvTimeoutError::Timeout) => out.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = out.flush();
                return;
            }
        };
        if let Err(error) = written {
            log::warn!("a line of the access log is lost: {error}");
        }
    }
}

/// Line of one request, which is written when its answer has ended.
#[derive(Debug)]
pub(super) struct AccessLine {
    log: Arc<AccessLog>,
    clock: Clock,
    began: Time,
    client: IpAddr,
    method: String,
    target: String,
    /// Status, version and time to the first byte in microseconds, once they are known.
    pub(super) answer: Option<(u16, Option<String>, u64)>,
    /// Number of bytes of the answer's body that were passed on.
    pub(super) bytes: u64,
}

impl AccessLine {
    pub(super) fn new(
        log: &Arc<AccessLog>,
        clock: Clock,
        client: IpAddr,
        (method, target): (&hyper::Method, &hyper::Uri),
    ) -> Self {
        let target = target.path_and_query().map_or("", |it| it.as_str());
        let end = (0..=target.len().min(TARGET_MAX)).rev().find(|at| target.is_char_boundary(*at));
        Self {
            log: Arc::clone(log),
            clock,
            began: clock.mono(),
            client,
            method: method.to_string(),
            target: target[..end.unwrap_or(0)].to_owned(),
            answer: None,
            bytes: 0,
        }
    }

    /// Notes the head of the answer.
    pub(super) fn answered(&mut self, status: u16, model: Option<String>) {
        let took = self.clock.mono().since(self.began);
        self.answer = Some((status, model, u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let now = self.clock.now();
        let took = u64::try_from(now.mono.since(self.began).as_micros()).unwrap_or(u64::MAX);
        let (status, model, first) = self.answer.take().unwrap_or((0, None, took));
        let line = json!({
            "time": now.wall.to_string(), "client": self.client, "method": self.method,
            "target": self.target, "status": status, "model": model, "bytes": self.bytes,
            "first_byte_us": first, "took_us": took,
        });
        let lines = self.log.lines.lock().expect("nothing under this lock can panic");
        let is_sent = lines.as_ref().is_some_and(|it| it.try_send(line.to_string()).is_ok());
        drop(lines);
        if !is_sent {
            self.log.left_out.add(1);
        }
    }
}
