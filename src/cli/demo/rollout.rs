//! Three nodes on this machine: a good version is rolled out in steps, a bad one is stopped and
//! rolled back by itself, a participant dies after its vote and a coordinator before its decision,
//! and in the end all serve the same.
//!
//! Real processes, sockets and disks, and requests that never pause. Each shown command is run, and
//! each claim is checked against the nodes' own answers.

mod cast;
mod traffic;

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Receiver, after, select, tick};
use rustix::process::Signal;

use self::cast::{Cast, NODES, Typed};
use self::traffic::{Tally, Traffic};
use crate::cli::CliError;
use crate::cli::rollout::words::table::View;
use crate::cli::run::signals;
use crate::machine::rollout::NodeStatus;
use crate::proto::rollout::{Committed, Digest, NodeId, TxId};
use crate::runtime::clock::Clock;

/// Flags of the demo of rollouts.
#[derive(Clone, Debug, Args)]
pub struct RolloutDemoArgs {
    /// Keep the nodes' logs and directories there
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Longest wait for any step on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at an awaited state.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Plays the demo.
///
/// # Errors
/// Fails if something could not be started or did not happen as it should have. No process is left.
pub(super) fn run(args: &RolloutDemoArgs) -> Result<(), CliError> {
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    let cast = Cast::new(args.keep.as_deref()).map_err(system("lay out the demo"))?;
    let clock = Clock::start();
    let mut play = Play { cast, signals, clock, checks: Vec::new() };
    play.acts()?;
    play.conclude()
}

fn system(action: &'static str) -> impl Fn(std::io::Error) -> CliError {
    move |source| CliError::System { action, source }
}

/// State of the demo.
struct Play {
    cast: Cast,
    signals: Receiver<&'static str>,
    clock: Clock,
    checks: Vec<(String, bool)>,
}

impl Play {
    fn acts(&mut self) -> Result<(), CliError> {
        self.say(
            "three nodes and three model servers as real processes on this machine; Ctrl-C \
                  ends them all",
        )?;
        self.they_meet()?;
        let traffic = Traffic::start(&self.cast.data_planes()).map_err(system("start clients"))?;
        self.a_good_version(&traffic)?;
        self.a_bad_version(&traffic)?;
        self.a_participant_dies(&traffic)?;
        self.a_coordinator_dies(&traffic)?;
        drop(traffic);
        self.the_end()
    }

    fn they_meet(&mut self) -> Result<(), CliError> {
        self.act("Three nodes begin a history together: all requests to v1")?;
        self.cast.start_models().map_err(system("start a model"))?;
        let addresses = self.cast.model_addresses();
        let models = self.wait(|_| addresses.iter().all(|it| TcpStream::connect(it).is_ok()))?;
        self.check("the models answer: v1, v2, and v3, which is slow and fails", models)?;
        for node in NODES {
            self.cast.start(node).map_err(system("start a node"))?;
        }
        let linked = self.wait(|play| NODES.iter().all(|node| play.is_whole(node)))?;
        self.check("all three have proved their keys and see each other", linked)?;
        self.query(true)
    }

    fn a_good_version(&mut self, traffic: &Traffic) -> Result<(), CliError> {
        self.act("v2 is rolled out in steps, while requests flow")?;
        traffic.take();
        let code = self.type_at(
            Some("node-a"),
            &[
                "start",
                "--from",
                "v1",
                "--to",
                "v2",
                "--steps",
                "10,50,100",
                "--interval",
                "2s",
                "--gate",
                "p95=2s",
                "--gate",
                "error=5%",
                "--samples",
                "3",
                "--window",
                "3s",
                "--wait",
            ],
        )?;
        self.check("it went to 100 % and was finished", code == Some(0))?;
        let same = self.wait(|play| play.serve_alike(5))?;
        self.check("all three serve version 5, where v2 is the stable one", same)?;
        let tally = traffic.take();
        self.tell(&tally)?;
        self.check("both versions had requests meanwhile", has_all(&tally, &["v1", "v2"]))?;
        let whole = tally.failed(None) == 0;
        self.check("no request failed, none was lost at a change of weights", whole)?;
        let shares = self.shares("node-c")?;
        self.check("each step was one transaction of all", shares == [1_000, 5_000, 10_000, 0])
    }

    fn a_bad_version(&mut self, traffic: &Traffic) -> Result<(), CliError> {
        self.act("v3 is slow and fails: it gets 20 %, a gate fails, and it is rolled back")?;
        traffic.take();
        let code = self.type_at(
            Some("node-b"),
            &[
                "start",
                "--from",
                "v2",
                "--to",
                "v3",
                "--steps",
                "20,100",
                "--interval",
                "20s",
                "--gate",
                "p95=500ms",
                "--gate",
                "error=5%",
                "--samples",
                "5",
                "--window",
                "5s",
                "--wait",
            ],
        )?;
        self.check("the rollout ended by itself, with exit code 1", code == Some(1))?;
        let same = self.wait(|play| play.serve_alike(7))?;
        self.check("all three went back to v2 together, as version 7", same)?;
        let last = self.last_committed("node-c")?;
        let note = last.as_ref().map_or("", |it| it.proposal.note.as_str());
        let blames = note.contains("does not hold on ");
        self.check("the transaction says which gate failed, and where", blames)?;
        let tally = traffic.take();
        self.tell(&tally)?;
        let is_minor = tally.of("v3") > 0 && tally.of("v3") * 2 < tally.all();
        self.check("v3 had a minor part of the requests, for a short time", is_minor)
    }

    fn a_participant_dies(&mut self, traffic: &Traffic) -> Result<(), CliError> {
        self.act("node-c dies after it has voted (kill -9), and does not know how it ended")?;
        let before = traffic.ended();
        let over = self.wait(|_| traffic.ended().iter().zip(&before).all(|it| it.0 > it.1))?;
        self.check("the last requests to v3 are over", over)?;
        traffic.take();
        self.say("   node-b is halted, so that its vote is late")?;
        self.halt("node-b")?;
        let order = self.give(
            Some("node-a"),
            &["start", "--from", "v2", "--to", "v1", "--steps", "25,100", "--interval", "10m"],
        )?;
        let voted = self.wait(|play| play.lacks_votes_of("node-a", &["node-b"]))?;
        self.cast.kill("node-c").map_err(system("kill a node"))?;
        self.go_on("node-b")?;
        self.check("node-c had voted when it was killed, and nothing was decided", voted)?;
        let code = self.show(order)?;
        self.check("the others have its vote, and commit", code == Some(0))?;
        let away = self.wait(|play| {
            let status = play.status("node-a");
            let mut peers = status.iter().flat_map(|it| &it.peers);
            peers.any(|it| it.node_id.as_str() == "node-c" && !it.is_linked)
        })?;
        self.check("node-a sees that it is away", away)?;
        let both =
            self.wait(|play| ["node-a", "node-b"].iter().all(|it| play.version(it) == Some(8)))?;
        self.check("node-a and node-b serve version 8", both)?;
        self.type_at(Some("node-a"), &["status"])?;
        self.query(false)?;
        self.say("   node-c is started again")?;
        self.cast.start("node-c").map_err(system("start a node"))?;
        let same = self.wait(|play| play.serve_alike(8))?;
        self.check("it asked the others how it ended, and serves version 8 as they do", same)?;
        let txid = self.last_committed("node-c")?.map(|it| it.proposal.txid.to_string());
        if let Some(txid) = txid {
            self.type_at(Some("node-c"), &["explain", &txid])?;
        }
        let its_own = self.cast.data_planes()[2].clone();
        let tally = traffic.take();
        self.tell(&tally)?;
        let whole = tally.failed(Some(&its_own)) == 0;
        self.check("node-a and node-b answered every request meanwhile", whole)
    }

    fn a_coordinator_dies(&mut self, traffic: &Traffic) -> Result<(), CliError> {
        self.act("node-a dies before it has decided (kill -9), when both others have voted")?;
        traffic.take();
        self.say(
            "   the others are halted until node-a has asked them, and node-a before they vote",
        )?;
        self.halt("node-b")?;
        self.halt("node-c")?;
        let order = self.give(Some("node-a"), &["abort"])?;
        let asked = self.wait(|play| play.lacks_votes_of("node-a", &["node-b", "node-c"]))?;
        self.halt("node-a")?;
        self.go_on("node-b")?;
        self.go_on("node-c")?;
        self.check("node-a has asked for both votes", asked)?;
        let voted = self.wait(|play| {
            let doubts = |node: &&str| play.status(node).is_some_and(|it| it.in_doubt.is_some());
            ["node-b", "node-c"].iter().all(doubts)
        })?;
        self.cast.kill("node-a").map_err(system("kill a node"))?;
        self.check("both have voted, and node-a is killed", voted)?;
        let code = self.show(order)?;
        self.check("the order is left without an answer", code == Some(5))?;
        let doubt = self.wait(|play| {
            let waits = |node: &&str| {
                let doubt = play.status(node).and_then(|it| it.in_doubt);
                doubt.is_some_and(|it| it.waits_for.iter().map(NodeId::as_str).eq(["node-a"]))
            };
            ["node-b", "node-c"].iter().all(waits)
        })?;
        self.check(
            "node-b and node-c are in doubt, have asked each other, and wait for it",
            doubt,
        )?;
        self.type_at(Some("node-b"), &["status"])?;
        let before = ["node-b", "node-c"].map(|it| self.version(it));
        self.check("they do not guess: both serve version 8 still", before == [Some(8), Some(8)])?;
        self.say("   node-a is started again")?;
        self.cast.start("node-a").map_err(system("start a node"))?;
        let clear = self.wait(|play| {
            let is_clear = |it: &&str| {
                play.is_whole(it) && play.status(it).is_some_and(|it| it.in_doubt.is_none())
            };
            NODES.iter().all(is_clear)
        })?;
        self.check("node-a has no decision on its disk, and nobody is in doubt any more", clear)?;
        let same = self.serve_alike(8);
        self.check("all three serve version 8: without a decision nothing has changed", same)?;
        let code = self.type_at(Some("node-a"), &["abort"])?;
        self.check("the order is given again, and commits", code == Some(0))?;
        let same = self.wait(|play| play.serve_alike(9))?;
        self.check("all three serve version 9", same)?;
        let its_own = self.cast.data_planes()[0].clone();
        let tally = traffic.take();
        self.tell(&tally)?;
        let whole = tally.failed(Some(&its_own)) == 0;
        self.check("node-b and node-c answered every request meanwhile", whole)
    }

    fn the_end(&mut self) -> Result<(), CliError> {
        self.act("What all three say in the end")?;
        self.type_at(Some("node-c"), &["history"])?;
        let all: Vec<_> = NODES.iter().map(|it| self.decisions(it)).collect::<Result<_, _>>()?;
        let same = all[0].len() == 8 && all.iter().all(|it| *it == all[0]);
        self.check("the histories of all three are the same, version by version", same)?;
        self.query(true)?;
        self.cast.quit().map_err(system("end a node"))?;
        self.check("all nodes have ended in order", true)
    }

    /// Halts a node (SIGSTOP): it neither hears nor says anything until it goes on.
    fn halt(&self, node: &str) -> Result<(), CliError> {
        self.cast.signal(node, Signal::STOP).map_err(system("halt a node"))
    }

    /// Lets a halted node go on.
    fn go_on(&self, node: &str) -> Result<(), CliError> {
        self.cast.signal(node, Signal::CONT).map_err(system("let a node go on"))
    }

    /// True if a node coordinates a transaction and lacks the votes of exactly those.
    fn lacks_votes_of(&self, node: &str, others: &[&str]) -> bool {
        let running = self.status(node).and_then(|it| it.running);
        running.is_some_and(|it| it.waits_for.iter().map(NodeId::as_str).eq(others.iter().copied()))
    }

    fn view(&self, node: &str) -> Option<View> {
        self.cast.node(node).view().ok()
    }

    fn status(&self, node: &str) -> Option<NodeStatus> {
        self.view(node).as_ref().and_then(View::status).cloned()
    }

    fn version(&self, node: &str) -> Option<u64> {
        self.status(node).map(|it| it.state.version)
    }

    /// True if a node takes part, remembers all, and is connected with both others.
    fn is_whole(&self, node: &str) -> bool {
        self.status(node).is_some_and(|it| {
            let hears = it.peers.iter().filter(|it| it.is_linked && it.heartbeat.is_some());
            it.recalling.is_empty() && hears.count() == NODES.len() - 1
        })
    }

    /// True if all nodes serve that version, and the same content.
    fn serve_alike(&self, version: u64) -> bool {
        let states: Vec<_> = NODES.iter().filter_map(|it| self.status(it)).collect();
        let alike = |it: &NodeStatus| it.state.version == version && it.digest == states[0].digest;
        states.len() == NODES.len() && states.iter().all(alike)
    }

    fn committed(&self, node: &str) -> Result<Vec<Committed>, CliError> {
        Ok(self.cast.node(node).history(usize::MAX)?.committed)
    }

    fn last_committed(&self, node: &str) -> Result<Option<Committed>, CliError> {
        Ok(self.committed(node)?.pop())
    }

    fn shares(&self, node: &str) -> Result<Vec<u32>, CliError> {
        let all = self.committed(node)?;
        Ok(all.iter().map(|it| it.proposal.state.canary_share()).collect())
    }

    /// Decisions of a node: version, transaction and content of each.
    fn decisions(&self, node: &str) -> Result<Vec<(u64, TxId, Digest)>, CliError> {
        let one = |it: Committed| {
            let state = &it.proposal.state;
            (state.version, it.proposal.txid.clone(), state.digest())
        };
        Ok(self.committed(node)?.into_iter().map(one).collect())
    }

    /// Asks all data planes as the query does; they are to be synchronized, or not.
    fn query(&mut self, is_synchronized: bool) -> Result<(), CliError> {
        let at = self.cast.data_planes();
        let at: Vec<_> = at.iter().map(String::as_str).collect();
        let mut args = vec!["query"];
        args.extend(&at);
        let code = self.type_at(None, &args)?;
        if is_synchronized {
            self.check("the query finds them synchronized", code == Some(0))
        } else {
            self.check("a fleet with a missing node is not synchronized", code == Some(1))
        }
    }

    /// Runs a command, and shows its output; returns its exit code.
    fn type_at(&self, node: Option<&str>, args: &[&str]) -> Result<Option<i32>, CliError> {
        let typed = self.give(node, args)?;
        self.show(typed)
    }

    /// Starts a command.
    fn give(&self, node: Option<&str>, args: &[&str]) -> Result<Typed, CliError> {
        let at = node.map_or(String::new(), |it| format!("   (at {it})"));
        self.say(&format!("   $ peer rollout {}{at}", args.join(" ")))?;
        self.cast.type_at(node, args).map_err(system("run a command"))
    }

    /// Shows the output of a command until its end; returns its exit code.
    fn show(&self, typed: Typed) -> Result<Option<i32>, CliError> {
        let end = after(PATIENCE);
        loop {
            select! {
                recv(typed.lines) -> line => match line {
                    Ok(line) => self.say(&format!("     {line}"))?,
                    Err(_) => break,
                },
                recv(self.signals) -> _ => return Err(interrupted()),
                recv(end) -> _ => return Ok(None),
            }
        }
        typed.code().map_err(system("run a command"))
    }

    /// Looks until `holds` is true, and returns whether it came to hold in time.
    fn wait(&self, holds: impl Fn(&Self) -> bool) -> Result<bool, CliError> {
        let (beat, end) = (tick(LOOK_EVERY), after(PATIENCE));
        loop {
            if holds(self) {
                return Ok(true);
            }
            select! {
                recv(beat) -> _ => {}
                recv(self.signals) -> _ => return Err(interrupted()),
                recv(end) -> _ => return Ok(false),
            }
        }
    }

    fn tell(&self, tally: &Tally) -> Result<(), CliError> {
        let parts = tally.parts().join(", ");
        self.say(&format!("   {} requests were answered: {parts}", tally.all()))?;
        for (at, (count, why)) in &tally.lost {
            self.say(&format!("   {count} had no answer from {at}: {why}"))?;
        }
        Ok(())
    }

    fn act(&self, title: &str) -> Result<(), CliError> {
        let secs = self.clock.now().mono.since(crate::model::Time::ZERO).as_secs_f64();
        self.say(&format!("\n== {title}  [{secs:.1} s]"))
    }

    fn say(&self, text: &str) -> Result<(), CliError> {
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), "{text}").map_err(system("write to the screen"))
    }

    fn check(&mut self, what: &str, holds: bool) -> Result<(), CliError> {
        self.checks.push((what.to_owned(), holds));
        self.say(&format!("   {}  {what}", if holds { "ok  " } else { "FAIL" }))?;
        if !holds {
            for node in NODES {
                if self.cast.fallen(node).map_err(system("look after a node"))?.is_some() {
                    self.say(&format!("   {node} ended: {}", self.cast.complaint(node)))?;
                }
            }
        }
        Ok(())
    }

    fn conclude(&self) -> Result<(), CliError> {
        let failed: Vec<_> =
            self.checks.iter().filter(|(_, holds)| !holds).map(|(what, _)| what.as_str()).collect();
        let (all, bad) = (self.checks.len(), failed.len());
        let secs = self.clock.now().mono.since(crate::model::Time::ZERO).as_secs_f64();
        self.say(&format!("\n{} of {all} checks passed in {secs:.1} s", all - bad))?;
        if failed.is_empty() {
            Ok(())
        } else {
            Err(CliError::Failed(format!("not as expected: {}", failed.join("; "))))
        }
    }
}

fn has_all(tally: &Tally, models: &[&str]) -> bool {
    models.iter().all(|model| tally.of(model) > 0)
}

fn interrupted() -> CliError {
    CliError::Failed("interrupted; all processes were ended".to_owned())
}
