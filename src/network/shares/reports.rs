//! Reports of an order's progress to the program that gave it.

use std::time::Duration;

use ::log::Level;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use serde_json::{Value, json};

use crate::runtime::clock::Clock;
use crate::runtime::control::{ControlAnswer, NextLine};

/// Interval at which an idle answer checks that its reader is there.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// Reports the bytes that are hashed; false if nobody reads the reports any more.
pub(super) fn hashed(report: &Sender<Value>, done: u64, size: u64) -> bool {
    // A program that is behind gets the next report; one that has gone wants no more.
    let sent = report.try_send(json!({ "hashed": done, "size": size }));
    !matches!(sent, Err(TrySendError::Disconnected(_)))
}

/// Answer that passes the reports on, a line each.
pub(super) fn lines_of(reports: Receiver<Value>) -> ControlAnswer {
    ControlAnswer::Lines(Box::new(move || match reports.recv_timeout(BEAT) {
        Ok(line) => NextLine::Line(line.to_string()),
        Err(RecvTimeoutError::Timeout) => NextLine::Idle,
        Err(RecvTimeoutError::Disconnected) => NextLine::End,
    }))
}

/// Logs an event; its name, time and fields are there for programs.
pub(super) fn report(level: Level, event: &'static str, text: &str, fields: &Value) {
    if level > ::log::max_level() {
        return;
    }
    let (at, fields) = (Clock::start().now().wall, fields.to_string());
    ::log::log!(target: "folkmoot", level, at = at.0, event = event, fields = fields.as_str();
        "{text}");
}
