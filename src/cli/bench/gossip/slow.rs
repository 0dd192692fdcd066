//! Many messages to a fleet in which one receiver pauses, or has a tenth of a core: none may be
//! lost without a report.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, select};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::rates::{elapsed, speak};
use super::{Bench, GossipArgs};
use crate::cli::CliError;
use crate::cli::bench::figure::Target;
use crate::machine::Never;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Time in which one publisher publishes as fast as it can.
const SPAN: Duration = Duration::from_secs(8);

/// Time before the receiver pauses, and duration of the pause.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(5);

/// The slow receiver runs for the first of these and stands still for the second, over and over.
const RUN: Duration = Duration::from_millis(10);
const STILL: Duration = Duration::from_millis(90);

/// Time after the last delivery in which all missing messages are reported.
const TOLD_AFTER: Duration = Duration::from_secs(13);

/// Rate above that of any publisher, in messages a second.
const RATE: f64 = 100_000.0;

impl Bench {
    /// Measures with a receiver that pauses, and with a slow one.
    pub(super) fn hindrances(&mut self, args: &GossipArgs) -> Result<(), CliError> {
        self.hindered("pauses", args, |pid, ended| {
            if !ended.wait(PAUSE_AFTER) {
                pid.signal(Signal::STOP);
                ended.wait(PAUSE);
                pid.signal(Signal::CONT);
            }
        })?;
        self.hindered("slow", args, |pid, ended| {
            while !ended.wait(RUN) {
                pid.signal(Signal::STOP);
                ended.wait(STILL);
                pid.signal(Signal::CONT);
            }
        })
    }

    fn hindered(
        &mut self,
        what: &str,
        args: &GossipArgs,
        hinder: impl FnOnce(&Process, &Ended) + Send + 'static,
    ) -> Result<(), CliError> {
        let last = self.fleet.peers().last().copied().and_then(|it| self.fleet.pid(it));
        let pid = last.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let process = Process(pid.ok_or_else(|| CliError::Failed("a peer is gone".to_owned()))?);
        let (before, began) = (self.tally()?, Clock::start());
        let (end, ended) = bounded::<Never>(0);
        let hindering = thread::spawn("hindrance", move || hinder(&process, &Ended(ended)))
            .map_err(|source| CliError::System { action: "start a thread", source })?;
        let bytes = self.message(0).to_vec();
        let messages = speak(&self.sockets[0], &bytes, RATE, SPAN)?;
        let published_in = elapsed(began);
        drop(end);
        hindering.join().expect("it does not panic");
        let expected = messages * (self.sockets.len() as u64 - 1);
        self.settle(&before, expected, began)?;
        self.pause(TOLD_AFTER)?;
        let counted = self.tally()?.since(&before);
        let lost = expected.saturating_sub(counted.delivered);
        let told = counted.losses().get("dropped, missed").copied().unwrap_or(0);
        self.sheet.line(
            "hindered",
            json!({ "receiver": what, "peers": args.peers, "messages": messages,
                "messages_per_s": (messages as f64 / published_in.as_secs_f64()).round(),
                "published_in_ms": published_in.as_millis() as u64, "lost": lost,
                "told_as_missed": told, "repaired": counted.repaired,
                "losses": counted.losses() }),
        )?;
        self.sheet.note("receiver", what.into());
        self.sheet.figure("lost", &[lost as f64])?;
        self.sheet.judged("lost_untold", &[lost.abs_diff(told) as f64], Target::AtMost(0.0))
    }
}

struct Process(Pid);

impl Process {
    fn signal(&self, signal: Signal) {
        // The counters show a process that has ended.
        let _ = kill_process(self.0, signal);
    }
}

/// Sign of the end of a measurement.
struct Ended(Receiver<Never>);

impl Ended {
    /// Waits for so long; returns whether the measurement has ended.
    fn wait(&self, span: Duration) -> bool {
        select! {
            recv(self.0) -> _ => true,
            recv(after(span)) -> _ => false,
        }
    }
}
