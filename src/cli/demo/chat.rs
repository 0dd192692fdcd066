//! Three members of a group on this machine: messages flow, the leader is killed, another takes
//! over, the dead one comes back, and in the end nothing is lost or doubled.
//!
//! Real processes, sockets and disks. The output is read from the members' output, and claims are
//! checked against that and against their logs.

mod processes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Receiver, after, select, tick};

use self::processes::{MemberReport, Processes};
use crate::cli::CliError;
use crate::cli::chat::verify;
use crate::cli::run::signals;
use crate::cli::span::Span;
use crate::runtime::clock::Clock;

/// Flags of the demo of a chat.
#[derive(Clone, Debug, Args)]
pub struct ChatDemoArgs {
    /// The pause between two messages of a member
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_millis(20)))]
    pub pace: Span,
    /// Keep the members' logs and directories there
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Longest wait for any step on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time for which messages flow before and after the leader's death.
const FLOW: Duration = Duration::from_millis(1_500);

/// Plays the demo.
///
/// # Errors
/// Fails if something could not be started or did not happen as it should have. No process is left.
pub(super) fn run(args: &ChatDemoArgs) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    let processes = Processes::new(args.keep.as_deref()).map_err(system("lay out the demo"))?;
    let mut demo = ChatDemo {
        processes,
        signals,
        clock: Clock::start(),
        pace: args.pace.0.max(Duration::from_millis(1)),
        typed: BTreeMap::new(),
        shown: BTreeMap::new(),
        checks: Vec::new(),
    };
    demo.steps()?;
    demo.conclude()
}

/// State of the demo.
struct ChatDemo {
    processes: Processes,
    signals: Receiver<&'static str>,
    clock: Clock,
    pace: Duration,
    /// Texts that were typed, by member, in order.
    typed: BTreeMap<u32, Vec<String>>,
    /// Messages that each life of a member has shown: number, author, text.
    shown: BTreeMap<u32, Vec<(u64, u32, String)>>,
    checks: Vec<(String, bool)>,
}

impl ChatDemo {
    fn steps(&mut self) -> Result<(), CliError> {
        self.say("three members as real processes on this machine; Ctrl-C ends them all")?;
        self.they_meet()?;
        let before = self.clock.now().mono;
        self.flow(&[1, 2, 3], FLOW, None)?;
        let count: usize = self.typed.values().map(Vec::len).sum();
        let secs = self.clock.now().mono.since(before).as_secs_f64();
        self.say(&format!("   {count} messages typed in {secs:.1} s"))?;
        self.the_leader_dies()?;
        self.it_comes_back()?;
        self.nothing_is_lost()
    }

    fn they_meet(&mut self) -> Result<(), CliError> {
        self.say("\n== Peer 1 founds a group; 2 and 3 join by it; the highest leads")?;
        for id in 1..=3 {
            self.start(id)?;
        }
        let leads =
            self.wait(|it| it.last_note(3).is_some_and(|text| text.contains("(this one)")))?;
        self.check("peer_3 leads", leads)?;
        let know = |demo: &Self| {
            (1..=3).all(|id| {
                demo.processes
                    .notes(id)
                    .iter()
                    .any(|it| it.contains("peer_3") && it.contains("leads"))
            })
        };
        let all = self.wait(know)?;
        self.check("all three know it", all)
    }

    fn the_leader_dies(&mut self) -> Result<(), CliError> {
        self.say("\n== The leader is killed (kill -9) while messages flow")?;
        // Lines that a process has not read yet die with it; they are no messages of the group.
        let its_own = self.typed.get(&3).map_or(0, Vec::len);
        let read = self.wait(|demo| {
            let shown = demo.shown.get(&1).map_or(&[][..], Vec::as_slice);
            shown.iter().filter(|it| it.1 == 3).count() == its_own
        })?;
        self.check("all that it typed is final", read)?;
        self.flow(&[1, 2], FLOW / 3, None)?;
        let at = self.clock.now().mono;
        let seen = self.final_at(1);
        self.processes.kill(3);
        let mut again = None;
        self.flow(&[1, 2], FLOW, Some((seen, &mut again)))?;
        let leads = self.wait(|demo| {
            demo.processes.notes(1).iter().any(|it| it.contains("peer_2") && it.contains("leads"))
        })?;
        self.check("peer_2 leads now", leads)?;
        let ms = again.map(|then| then.since(at).as_millis());
        let text = ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
        self.say(&format!("   messages are final again {text} after the kill"))?;
        self.check("within two seconds", ms.is_some_and(|ms| ms < 2_000))
    }

    fn it_comes_back(&mut self) -> Result<(), CliError> {
        self.say("\n== The killed one is started again, catches up, and takes over")?;
        let at = self.clock.now().mono;
        self.shown.remove(&3);
        self.start(3)?;
        let leads = self.wait(|it| {
            it.processes.notes(3).iter().rev().any(|text| text.contains("(this one) leads in"))
        })?;
        let ms = self.clock.now().mono.since(at).as_millis();
        self.check("peer_3 leads again", leads)?;
        self.say(&format!("   {ms} ms after its start"))?;
        self.flow(&[1, 2, 3], FLOW / 3, None)
    }

    fn nothing_is_lost(&mut self) -> Result<(), CliError> {
        self.say("\n== What became of every message")?;
        let all: usize = self.typed.values().map(Vec::len).sum();
        let typed = self.typed.clone();
        let is_there = |shown: &[(u64, u32, String)]| {
            typed.iter().all(|(id, texts)| {
                let of = shown.iter().filter(|it| it.1 == *id).map(|it| &it.2);
                let of: Vec<_> = of.collect();
                texts.iter().all(|text| of.contains(&text))
            })
        };
        let complete = self.wait(|demo| is_there(demo.shown.get(&1).map_or(&[], Vec::as_slice)))?;
        self.check(&format!("all {all} messages that were typed are there"), complete)?;
        let end = self.final_at(1);
        let same = self.wait(|demo| [2, 3].iter().all(|id| demo.final_at(*id) >= end))?;
        self.check("all three have shown the last one", same)?;
        let equal = self.shown.get(&1) == self.shown.get(&2);
        self.check("peer_1 and peer_2 have shown the same, in the same order", equal)?;
        let texts = self.shown.get(&1).into_iter().flatten().map(|it| (it.1, &it.2));
        let mut texts: Vec<_> = texts.collect();
        let count = texts.len();
        texts.sort();
        texts.dedup();
        self.check("none is doubled", texts.len() == count)?;
        self.check(
            "each member's own are in the order in which it typed them",
            self.is_in_order(),
        )?;
        self.processes
            .quit()
            .map_err(|source| CliError::System { action: "end a member", source })?;
        let verdict = verify::files(&self.processes.log_paths())?;
        for line in verdict.text().lines() {
            self.say(&format!("   {line}"))?;
        }
        let is_whole = verdict.equal().0 >= end;
        self.check(
            "the logs on disk are equal, to the last message",
            verdict.is_equal() && is_whole,
        )
    }

    fn is_in_order(&self) -> bool {
        let shown = self.shown.get(&1).map_or(&[][..], Vec::as_slice);
        self.typed.iter().all(|(id, texts)| {
            let of: Vec<_> = shown.iter().filter(|it| it.1 == *id).map(|it| &it.2).collect();
            let kept: Vec<_> = texts.iter().filter(|it| of.contains(it)).collect();
            of == kept
        })
    }

    fn final_at(&self, id: u32) -> u64 {
        self.shown.get(&id).and_then(|it| it.last()).map_or(0, |it| it.0)
    }

    fn last_note(&self, id: u32) -> Option<&String> {
        self.processes.notes(id).iter().rev().find(|it| it.contains("leads in"))
    }

    /// Lets members type for a while; notes the time when the first message beyond a number is
    /// shown.
    fn flow(
        &mut self,
        ids: &[u32],
        span: Duration,
        mut next: Option<(u64, &mut Option<crate::model::Time>)>,
    ) -> Result<(), CliError> {
        let (beat, end) = (tick(self.pace), after(span));
        loop {
            let told = self.processes.told().clone();
            select! {
                recv(told) -> said => if let Ok(said) = said {
                    self.hear(said)?;
                },
                recv(self.signals) -> _ => return Err(interrupted()),
                recv(end) -> _ => return Ok(()),
                recv(beat) -> _ => for id in ids {
                    let texts = self.typed.entry(*id).or_default();
                    let text = format!("message {} of peer_{id}", texts.len() + 1);
                    if self.processes.type_line(*id, &text).is_ok() {
                        texts.push(text);
                    }
                },
            }
            if let Some((seen, at)) = &mut next
                && at.is_none()
                // Messages under way when the leader died may be shown before its death was
                // noticed.
                && self.processes.notes(1).iter()
                    .any(|it| it.contains("peer_2") && it.contains("leads"))
                && self.final_at(1) > *seen
            {
                **at = Some(self.clock.now().mono);
            }
        }
    }

    fn hear(&mut self, said: MemberReport) -> Result<(), CliError> {
        match said {
            MemberReport::Message { by, seq, author, text } => {
                self.shown.entry(by).or_default().push((seq, author, text));
            }
            MemberReport::Note { by, text } => {
                let is_news = text.contains("leads") || text.contains("joined");
                if is_news {
                    self.say(&format!("   peer_{by} says: {text}"))?;
                }
                self.processes.note(by, text);
            }
            MemberReport::Gone { by } if self.processes.is_up(by) => {
                return Err(CliError::Failed(format!(
                    "peer_{by} ended by itself: {}",
                    self.processes.complaint(by)
                )));
            }
            MemberReport::Gone { .. } => {}
        }
        Ok(())
    }

    fn start(&mut self, id: u32) -> Result<(), CliError> {
        self.processes
            .start(id)
            .map_err(|source| CliError::System { action: "start a member", source })
    }

    /// Reads until `holds` is true, and returns whether it came to hold in time.
    fn wait(&mut self, holds: impl Fn(&Self) -> bool) -> Result<bool, CliError> {
        let end = after(PATIENCE);
        while !holds(self) {
            let told = self.processes.told().clone();
            select! {
                recv(told) -> said => if let Ok(said) = said {
                    self.hear(said)?;
                },
                recv(self.signals) -> _ => return Err(interrupted()),
                recv(end) -> _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn say(&self, text: &str) -> Result<(), CliError> {
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), "{text}")
            .map_err(|source| CliError::System { action: "write to the screen", source })
    }

    fn check(&mut self, what: &str, holds: bool) -> Result<(), CliError> {
        self.checks.push((what.to_owned(), holds));
        self.say(&format!("   {}  {what}", if holds { "ok  " } else { "FAIL" }))
    }

    fn conclude(&self) -> Result<(), CliError> {
        let failed: Vec<_> =
            self.checks.iter().filter(|(_, holds)| !holds).map(|(what, _)| what.as_str()).collect();
        let (all, bad) = (self.checks.len(), failed.len());
        self.say(&format!("\n{} of {all} checks passed", all - bad))?;
        if failed.is_empty() {
            Ok(())
        } else {
            Err(CliError::Failed(format!("not as expected: {}", failed.join("; "))))
        }
    }
}

fn interrupted() -> CliError {
    CliError::Failed("interrupted; all processes were ended".to_owned())
}
