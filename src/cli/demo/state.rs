//! State of the demo: the fleet, the output to the screen, and the list of checks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::bounded;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::CliError;
use crate::cli::fleet::{Fleet, FleetLayout, LogEvent};
use crate::model::{Endpoint, Time, WallTime};
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Longest wait for any step on a quiet machine before the demo gives it up.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// State that the steps of the demo need.
pub(super) struct FleetDemo {
    pub(super) fleet: Fleet,
    /// Peers that should be members now.
    pub(super) members: Vec<Endpoint>,
    /// Number of log lines that have been copied to the output file.
    copied: usize,
    output: File,
    output_name: String,
    clock: Clock,
    began: Time,
    checks: Vec<(String, Result<(), String>)>,
    times: Vec<(String, String)>,
}

impl FleetDemo {
    /// Lays out the fleet and opens the output file.
    pub(super) fn set(peers: u16, output: &Path) -> Result<Self, CliError> {
        let exe = std::env::current_exe()
            .map_err(|source| CliError::System { action: "find this executable", source })?;
        let text = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        let plan = FleetLayout {
            exe,
            seeds: 3,
            seed_port: 5001,
            peer_port: 6001,
            peers,
            seed_args: Vec::new(),
            // Faster than the default of five seconds and ten messages, to fit into a minute.
            peer_args: text(&["--gossip-interval", "1s", "--gossip-max", "5"]),
        };
        let file = File::create(output)
            .map_err(|source| CliError::Output { path: output.to_owned(), source })?;
        let mut fleet = Fleet::lay_out(plan)
            .map_err(|source| CliError::System { action: "lay out the fleet", source })?;
        fleet.story().interrupt_by(interrupts()?);
        let clock = Clock::start();
        Ok(Self {
            members: Vec::new(),
            copied: 0,
            output: file,
            output_name: output.display().to_string(),
            began: clock.now().mono,
            clock,
            checks: Vec::new(),
            times: Vec::new(),
            fleet,
        })
    }

    /// Prints a line on the screen.
    pub(super) fn say(&self, text: &str) -> Result<(), CliError> {
        writeln!(io::stdout().lock(), "{text}")
            .map_err(|source| CliError::System { action: "write to the screen", source })
    }

    /// Announces a step.
    pub(super) fn step(&self, title: &str) -> Result<(), CliError> {
        self.say(&format!("\n== {title}"))
    }

    /// Records an expectation, and whether it was met.
    pub(super) fn check(&mut self, what: &str, result: Result<(), String>) -> Result<(), CliError> {
        match &result {
            Ok(()) => self.say(&format!("   ok    {what}"))?,
            Err(reason) => self.say(&format!("   FAIL  {what}: {reason}"))?,
        }
        self.checks.push((what.to_owned(), result));
        Ok(())
    }

    /// Records a measured time for the summary.
    pub(super) fn time(&mut self, what: &str, value: String) {
        self.times.push((what.to_owned(), value));
    }

    /// The wall clock, on which all nodes of this machine agree.
    pub(super) fn wall(&self) -> WallTime {
        self.clock.now().wall
    }

    /// Waits until `reached` is true of the log, copies the log to the output file meanwhile, and
    /// returns whether it came to hold in time.
    pub(super) fn wait(
        &mut self,
        reached: impl FnMut(&[LogEvent]) -> bool,
    ) -> Result<bool, CliError> {
        let outcome = self.fleet.story().wait(PATIENCE, reached);
        self.copy_log()?;
        let fallen = self.fleet.fallen();
        match (outcome, fallen) {
            (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {
                Err(CliError::Failed("interrupted; all processes were ended".to_owned()))
            }
            (Err(source), _) => Err(CliError::System { action: "follow the log", source }),
            (Ok(_), Some((node, code))) => {
                let why = self.fleet.complaints();
                Err(CliError::Failed(format!("{node} ended by itself (exit {code:?}): {why}")))
            }
            (Ok(reached), None) => Ok(reached),
        }
    }

    /// Lets time pass until Ctrl-C; a second one ends the demo.
    pub(super) fn hold(&mut self) -> Result<(), CliError> {
        loop {
            let outcome = self.fleet.story().wait(PATIENCE, |_| false);
            self.copy_log()?;
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(source) => return Err(CliError::System { action: "follow the log", source }),
                Ok(_) => {}
            }
        }
    }

    /// Lets time pass.
    pub(super) fn watch(&mut self, span: Duration) -> Result<(), CliError> {
        let until = WallTime(self.wall().0 + u64::try_from(span.as_millis()).unwrap_or(0));
        let clock = self.clock;
        self.wait(move |_| clock.now().wall >= until).map(|_| ())
    }

    /// All log lines so far.
    pub(super) fn lines(&mut self) -> &[LogEvent] {
        self.fleet.story().lines()
    }

    /// Ends the demo: prints the summary; an error if an expectation was not met.
    pub(super) fn conclude(mut self) -> Result<(), CliError> {
        self.copy_log()?;
        self.step("Summary")?;
        let width = self.times.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, value) in &self.times {
            self.say(&format!("   {what:<width$}  {value}"))?;
        }
        let took = self.clock.now().mono.since(self.began).as_secs_f32();
        let failed: Vec<_> = self.checks.iter().filter(|(_, result)| result.is_err()).collect();
        let (count, bad) = (self.checks.len(), failed.len());
        self.say(&format!(
            "\n{} of {count} checks passed in {took:.1} s; the nodes' log lines are in {}",
            count - bad,
            self.output_name,
        ))?;
        if failed.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = failed.iter().map(|(what, _)| what.as_str()).collect();
        Err(CliError::Failed(format!("not as expected: {}", list.join("; "))))
    }

    fn copy_log(&mut self) -> Result<(), CliError> {
        let lines = self.fleet.story().lines();
        for line in &lines[self.copied..] {
            writeln!(self.output, "{}", line.line())
                .map_err(|source| CliError::System { action: "write the output file", source })?;
        }
        self.copied = lines.len();
        Ok(())
    }
}

/// Channel that reports Ctrl-C and SIGTERM.
fn interrupts() -> Result<crossbeam_channel::Receiver<()>, CliError> {
    let failed = |source| CliError::System { action: "listen for signals", source };
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (interrupt, interrupted) = bounded(1);
    thread::spawn("signals", move || {
        for _ in signals.forever() {
            // One that finds no room comes while the demo is ending already.
            let _ = interrupt.try_send(());
        }
    })
    .map_err(failed)?;
    Ok(interrupted)
}

/// Checks that `list` holds exactly the endpoints of `wanted`; an error has the differences in
/// words.
pub(super) fn same(list: &[Endpoint], wanted: &[Endpoint]) -> Result<(), String> {
    let missing: Vec<_> = wanted.iter().filter(|it| !list.contains(it)).collect();
    let extra: Vec<_> = list.iter().filter(|it| !wanted.contains(it)).collect();
    if missing.is_empty() && extra.is_empty() {
        Ok(())
    } else {
        Err(format!("missing {missing:?}, too many {extra:?}"))
    }
}

/// Deliveries of each message to each peer, from the log.
#[derive(Default)]
pub(super) struct Deliveries {
    /// Spread of each message, by author, incarnation and number.
    pub(super) messages: BTreeMap<(Endpoint, u64, u64), Delivery>,
}

/// One message's spread.
#[derive(Default)]
pub(super) struct Delivery {
    pub(super) made_ms: Option<u64>,
    pub(super) heard: BTreeMap<Endpoint, u32>,
    pub(super) last_ms: u64,
}

impl Deliveries {
    /// Counts gossip in the log. The end of a process also ends its memory of messages heard.
    pub(super) fn of(lines: &[LogEvent]) -> Self {
        let mut this = Self::default();
        for line in lines.iter().filter(|line| line.role == "peer") {
            if line.event == "started" {
                for delivery in this.messages.values_mut() {
                    delivery.heard.remove(&line.node);
                }
            }
            let key = || {
                let origin = line.endpoint("origin")?;
                Some((origin, line.number("incarnation")?, line.number("number")?))
            };
            match line.event.as_str() {
                "gossip_made" => {
                    let delivery = key().map(|key| this.messages.entry(key).or_default());
                    if let Some(delivery) = delivery {
                        delivery.made_ms = Some(line.ts_ms);
                    }
                }
                "gossip_heard" => {
                    let delivery = key().map(|key| this.messages.entry(key).or_default());
                    if let Some(delivery) = delivery {
                        *delivery.heard.entry(line.node).or_default() += 1;
                        delivery.last_ms = line.ts_ms;
                    }
                }
                _ => {}
            }
        }
        this
    }

    /// Fault of the spread among `members`, if there is one: every member but the author hears each
    /// message once.
    pub(super) fn fault(&self, members: &[Endpoint]) -> Option<String> {
        for ((origin, life, number), delivery) in &self.messages {
            for member in members {
                let is_own = member == origin && delivery.made_ms.is_some();
                let times = delivery.heard.get(member).copied().unwrap_or(0);
                // A restarted author hears from other peers the messages of its earlier life.
                if times > 1 || (times == 0 && !is_own) {
                    return Some(format!(
                        "{member} heard #{number} of {origin} (incarnation {life}) {times} times"
                    ));
                }
            }
        }
        None
    }
}
