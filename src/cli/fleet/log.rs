//! Log lines of a fleet's nodes, read from their common log while it grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::Endpoint;
use crate::runtime::clock::Clock;

/// Pause before new lines are looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One line of a log in JSON.
#[derive(Clone, Debug, Deserialize)]
pub struct LogEvent {
    /// Time of the line, for people.
    pub ts: String,
    /// Time of the line, in milliseconds since the Unix epoch.
    pub ts_ms: u64,
    /// `info`, `warn`, `error` or `debug`.
    pub level: String,
    /// `seed` or `peer`.
    pub role: String,
    /// Endpoint of the node that wrote the line.
    pub node: Endpoint,
    /// Name of the event.
    pub event: String,
    /// Sentence for people.
    pub message: String,
    /// Fields of the event.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl LogEvent {
    /// True if this is `event` of a node with this role.
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
pub struct FleetLog {
    file: File,
    unread: Vec<u8>,
    lines: Vec<LogEvent>,
    clock: Clock,
    interrupted: Receiver<()>,
    is_wanted: fn(&LogEvent) -> bool,
}

impl FleetLog {
    /// Follows the log at `path`, which is created if need be.
    ///
    /// # Errors
    /// Fails if the log can be neither opened nor created.
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

    /// From now on, lines for which `is_wanted` is false are read and forgotten: a thousand nodes
    /// log much.
    pub fn keep_only(&mut self, is_wanted: fn(&LogEvent) -> bool) {
        self.is_wanted = is_wanted;
    }

    /// Makes every wait end early, with an error, when a message comes by this channel.
    pub fn interrupt_by(&mut self, interrupted: Receiver<()>) {
        self.interrupted = interrupted;
    }

    /// All lines read so far.
    pub fn lines(&self) -> &[LogEvent] {
        &self.lines
    }

    /// Reads the new lines.
    ///
    /// # Errors
    /// Fails if the log cannot be read, or holds a line that is no log line.
    pub fn read(&mut self) -> io::Result<&[LogEvent]> {
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

    /// Reads until `reached` is true of all lines so far, at most for `patience`. Returns whether
    /// it became true.
    ///
    /// # Errors
    /// As [`FleetLog::read`], and [`io::ErrorKind::Interrupted`] when it was interrupted.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut reached: impl FnMut(&[LogEvent]) -> bool,
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
    /// As [`FleetLog::wait`].
    pub fn watch(&mut self, span: Duration) -> io::Result<()> {
        self.wait(span, |_| false).map(|_| ())
    }
}

/// Waits without reading.
pub(super) fn pause(span: Duration) {
    // The channel never disconnects and carries nothing: its only end is the time.
    let _ = after(span).recv();
}
