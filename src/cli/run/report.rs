//! The thread that turns a node's events into log lines, so that a slow console stops no node.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::log::Level;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use serde_json::json;

use super::role::{EventOf, Role};
use crate::cli::log::LogLine;
use crate::machine::Never;
use crate::model::Now;
use crate::runtime::clock::Clock;
use crate::runtime::driver::Driver;
use crate::runtime::thread;

/// Largest number of events that wait to be logged; enough for some hundred registrations at once.
/// Beyond, the driver drops and counts them.
pub(super) const EVENTS_MAX: usize = 2 * 1024;

/// The reporting thread.
pub(super) struct Reporting {
    /// Sender whose drop is the sign to log the rest, and to end.
    open: Sender<Never>,
    thread: JoinHandle<()>,
    last_event: Receiver<()>,
}

impl Reporting {
    /// Starts to log `events` in the lines of `role`.
    ///
    /// # Errors
    /// Fails if the system has no room for a thread.
    pub(super) fn start<R: Role>(
        role: R,
        driver: Arc<Driver<R::Machine>>,
        events: Receiver<(Now, EventOf<R>)>,
    ) -> io::Result<Self> {
        let (open, ending) = bounded(0);
        let (tell_last, last_event) = bounded(1);
        let mut log_thread = LogThread { role, driver, tell_last, dropped: 0 };
        let thread = thread::spawn("report", move || log_thread.run(&events, &ending))?;
        Ok(Self { open, thread, last_event })
    }

    /// Channel of the message that the node's last event was logged.
    pub(super) const fn last_event(&self) -> &Receiver<()> {
        &self.last_event
    }

    /// Logs the remaining events. The node has stopped.
    pub(super) fn finish(self) {
        drop(self.open);
        // The thread has panicked if this fails, and reported that itself.
        let _ = self.thread.join();
    }
}

struct LogThread<R: Role> {
    role: R,
    driver: Arc<Driver<R::Machine>>,
    tell_last: Sender<()>,
    dropped: u64,
}

impl<R: Role> LogThread<R> {
    fn run(&mut self, events: &Receiver<(Now, EventOf<R>)>, ending: &Receiver<Never>) {
        loop {
            select! {
                recv(events) -> event => match event {
                    Ok((now, event)) => self.tell(now, &event),
                    Err(_) => return,
                },
                recv(ending) -> _ => {
                    for (now, event) in events.try_iter() {
                        self.tell(now, &event);
                    }
                    return;
                }
            }
        }
    }

    fn tell(&mut self, now: Now, event: &EventOf<R>) {
        for line in self.role.lines(now, event) {
            line.log(now.wall);
        }
        if R::is_last(event) {
            let _ = self.tell_last.try_send(());
        }
        let dropped = self.driver.counters().events_dropped.get();
        if dropped > self.dropped {
            let lost = dropped - self.dropped;
            self.dropped = dropped;
            let message = format!(
                "{lost} events are missing from this log: lines are made faster than they are \
                 written; the node itself lost nothing"
            );
            LogLine::new(Level::Warn, "events_dropped", message, json!({ "count": lost }))
                .log(Clock::start().now().wall);
        }
    }
}
