//! The thread that writes events: each sentence to the log file, each line to the console.
//!
//! Nothing of the assignment's log may be missing, so its queue never drops: when it is full, the
//! swarm waits for the disk of its log. The log thread never waits for the swarm.

use std::sync::Arc;

use ::log::{Level, LevelFilter};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::logfile::LogFile;
use super::messages::EventMessages;
use crate::cli::CliError;
use crate::cli::log::LogFormat;
use crate::cli::log::{LogLine, render};
use crate::cli::share::progress::Screen;
use crate::machine::swarm::{Event, SwarmOutcome};
use crate::model::{Now, WallTime};
use crate::runtime::driver::options::EventSink;

/// Largest number of events that wait to be written.
const EVENTS_MAX: usize = 8 * 1024;

/// Sender of events to the log thread.
pub(super) struct EventSender(Sender<(Now, Event)>);

impl EventSender {
    /// A sender, and the receiver for the log thread.
    pub(super) fn new() -> (Self, Receiver<(Now, Event)>) {
        let (tell, told) = bounded(EVENTS_MAX);
        (Self(tell), told)
    }
}

impl EventSink<Event> for EventSender {
    fn take(&self, now: Now, event: Event) -> bool {
        self.0.send((now, event)).is_ok()
    }
}

/// Lines for the console of one peer.
pub(super) struct Console {
    /// Name of the peer.
    pub(super) name: String,
    /// Format of the lines.
    pub(super) format: LogFormat,
    /// Level of the least important lines shown.
    pub(super) level: LevelFilter,
    /// Screen that shows the lines.
    pub(super) screen: Arc<Screen>,
}

impl Console {
    /// Shows a line, if it is important enough.
    ///
    /// # Errors
    /// Fails if the output cannot be written.
    pub(super) fn show(&self, at: WallTime, line: &LogLine) -> Result<(), CliError> {
        if line.level > self.level {
            return Ok(());
        }
        self.screen.write(&render(line, at, ("swarm", &self.name), self.format))
    }
}

/// Writer of events, until the swarm is over.
pub(super) struct LogThread {
    /// Texts of the events.
    pub(super) messages: EventMessages,
    /// The assignment's log.
    pub(super) log: LogFile,
    /// Console of the peer.
    pub(super) console: Console,
}

impl LogThread {
    /// Writes all events until there are no more; sends the outcome of the swarm to `ended`.
    ///
    /// # Errors
    /// The first failure to write the log; all later lines are tried all the same.
    pub(super) fn run(
        mut self,
        events: &Receiver<(Now, Event)>,
        ended: &Sender<SwarmOutcome>,
    ) -> Result<(), CliError> {
        let mut failure = None;
        for (now, event) in events {
            if let Some(sentence) = self.messages.sentence(&event)
                && let Err(error) = self.log.write(now.wall, &sentence)
                && failure.is_none()
            {
                let line = LogLine::new(
                    Level::Error,
                    "swarm_log_failed",
                    error.to_string(),
                    serde_json::json!({}),
                );
                let _ = self.console.show(now.wall, &line);
                failure = Some(error);
            }
            // A console whose reader has gone is no reason to stop.
            let _ = self.console.show(now.wall, &self.messages.line(&event));
            if let Event::Ended(outcome) = event {
                let _ = ended.try_send(outcome);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
