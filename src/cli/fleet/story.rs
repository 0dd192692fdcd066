//! What a fleet's nodes say, read line by line from their common log while it grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::Endpoint;
use crate::runtime::clock::Clock;

/// How long to wait before looking for new lines again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One line of a log in JSON.
#[derive(Clone, Debug, Deserialize)]
pub struct Happening {
    /// When, as people read it.
    pub ts: String,
    /// When, in milliseconds since the Unix epoch.
    pub ts_ms: u64,
    /// `info`, `warn`, `error` or `debug`.
    pub level: String,
    /// `seed` or `peer`.
    pub role: String,
    /// Whose line it is.
    pub node: Endpoint,
    /// The event's name.
    pub event: String,
    /// The line for people.
    pub message: String,
    /// The event's fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Happening {
    /// Whether this is `event` of a node with this role.
    pub fn is(&self, role: &str, event: &str) -> bool {
        self.role == role && self.event == event
    }

    /// A field that holds an endpoint.
    pub fn endpoint(&self, field: &str) -> Option<Endpoint> {
        self.text(field)?.parse().ok()
    }

    /// A field that holds a text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    /// A field that holds a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.fields.get(field)?.as_u64()
    }

    /// The line as a log in text has it.
    pub fn line(&self) -> String {
        let Self { ts, role, node, message, .. } = self;
        let level = self.level.to_uppercase();
        format!("{ts} {level:<5} {role} {node} {message}")
    }
}

/// The lines of a log, in the order in which they were written.
#[derive(Debug)]
pub struct Story {
    file: File,
    unread: Vec<u8>,
    lines: Vec<Happening>,
    clock: Clock,
    interrupted: Receiver<()>,
    is_wanted: fn(&Happening) -> bool,
}

impl Story {
    /// Follows the log at `path`, which is created if need be.
    ///
    /// # Errors
    /// When it can be neither opened nor created.
    pub fn follow(path: PathBuf) -> io::Result<Self> {
        drop(OpenOptions::new().create(true).append(true).open(&path)?);
        Ok(Self {
            file: File::open(path)?,
            unread: Vec::new(),
            lines: Vec::new(),
            clock: Clock::start(),
            interrupted: never(),
            is_wanted: |_| true,
        })
    }

    /// From now on, lines that `is_wanted` does not hold of are read and forgotten: a thousand
    /// nodes say much.
    pub fn keep_only(&mut self, is_wanted: fn(&Happening) -> bool) {
        self.is_wanted = is_wanted;
    }

    /// Makes every wait end early, with an error, when something comes by this channel.
    pub fn interrupt_by(&mut self, interrupted: Receiver<()>) {
        self.interrupted = interrupted;
    }

    /// Everything that was read so far.
    pub fn lines(&self) -> &[Happening] {
        &self.lines
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// When the log cannot be read, or holds something that is no log line.
    pub fn read(&mut self) -> io::Result<&[Happening]> {
        let before = self.lines.len();
        self.file.read_to_end(&mut self.unread)?;
        let end = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in self.unread[..end].split(|byte| *byte == b'\n').filter(|it| !it.is_empty()) {
            let line = serde_json::from_slice(line)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if (self.is_wanted)(&line) {
                self.lines.push(line);
            }
        }
        self.unread.drain(..end);
        Ok(&self.lines[before..])
    }

    /// Reads until `reached` holds of all lines so far, at most for `patience`. Returns whether
    /// it came to hold.
    ///
    /// # Errors
    /// As [`Story::read`], and [`io::ErrorKind::Interrupted`] when it was interrupted.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut reached: impl FnMut(&[Happening]) -> bool,
    ) -> io::Result<bool> {
        let start = self.clock.now().mono;
        loop {
            self.read()?;
            if reached(&self.lines) {
                return Ok(true);
            }
            if self.clock.now().mono.since(start) >= patience {
                return Ok(false);
            }
            select! {
                recv(self.interrupted) -> _ => return Err(io::ErrorKind::Interrupted.into()),
                recv(after(LOOK_AGAIN)) -> _ => {}
            }
        }
    }

    /// Reads for a fixed time.
    ///
    /// # Errors
    /// As [`Story::wait`].
    pub fn watch(&mut self, span: Duration) -> io::Result<()> {
        self.wait(span, |_| false).map(|_| ())
    }
}

/// Waits without reading.
pub(super) fn pause(span: Duration) {
    // The channel never disconnects and carries nothing: its only end is the time.
    let _ = after(span).recv();
}
