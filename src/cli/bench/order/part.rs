//! One member of the measured group: a process of its own that proposes as it is told, in lines of
//! JSON.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::CliError;
use crate::cli::bench::figure::distribution;
use crate::cli::bench::procfs;
use crate::cli::output::print;
use crate::model::{Endpoint, Time};
use crate::network::order::Fate;
use crate::network::{Network, Order, OrderRoster, OrderedLog};
use crate::runtime::clock::Clock;

/// Name of the measured order.
pub(super) const ORDER: &str = "bench";

/// Longest wait for what is in flight at the end of a load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of one member.
#[derive(Clone, Debug, Args)]
pub struct OrderPartArgs {
    /// The member, as JSON
    pub part: String,
}

/// One member of the group, as its process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// Listen address of its peer.
    pub(super) at: Endpoint,
    /// Folder of its data.
    pub(super) data: PathBuf,
    /// Folder of its log.
    pub(super) log: PathBuf,
    /// Text of the roster.
    pub(super) roster: String,
}

/// Order to a member.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum PartOrder {
    /// Say what is known: `{"place", "leader", "reached", "opened_s", "opened_mib"}`; the last two
    /// are the time in which its log was opened, and its memory then.
    Look,
    /// Propose for a time, and say how that went.
    Load(Load),
}

/// Proposals by one member.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Load {
    /// Number of proposals that are not final at a time.
    pub(super) in_flight: usize,
    /// Bytes of an entry.
    pub(super) bytes: usize,
    /// Time for which new ones are made.
    pub(super) millis: u64,
}

/// Waits for a fixed time.
pub(super) fn pause(span: Duration) {
    let _ = crossbeam_channel::after(span).recv();
}

/// Runs a member until its input ends.
pub(in crate::cli::bench) fn run(args: &OrderPartArgs) -> Result<(), CliError> {
    let part: Part = serde_json::from_str(&args.part)
        .map_err(|err| CliError::Usage(format!("this is no part of a measurement: {err}")))?;
    let roster: OrderRoster = part.roster.parse().map_err(CliError::Usage)?;
    let network = Network::builder().listen(part.at).data(&part.data).start()?;
    let (clock, memory) = (Clock::start(), || procfs::memory(std::process::id()));
    let log = network.order(ORDER, Order::byzantine(&roster).data(&part.log))?;
    let opened_s = clock.now().mono.as_micros() as f64 / 1e6;
    let opened_mib = memory().map(|it| it.resident);
    for line in io::stdin().lines() {
        let line = line.map_err(|source| CliError::System { action: "read an order", source })?;
        let order = serde_json::from_str(&line)
            .map_err(|err| CliError::Usage(format!("this is no order to a member: {err}")))?;
        let answer = match order {
            PartOrder::Look => {
                let status = log.status();
                json!({
                    "place": status.as_ref().map(|it| it.place),
                    "leader": status.as_ref().and_then(|it| it.leader),
                    "reached": status.as_ref().map(|it| it.reached),
                    "opened_s": opened_s, "opened_mib": opened_mib,
                })
            }
            PartOrder::Load(load) => self::load(&log, load)?,
        };
        print(&format!("{answer}\n"))?;
    }
    log.stop();
    network.stop();
    Ok(())
}

/// Keeps so many proposals in flight, and returns `{"count", "took_s", "latency_ms", "gap_ms"}`;
/// the gap is the longest time without a final one.
fn load(log: &OrderedLog, load: Load) -> Result<serde_json::Value, CliError> {
    let (clock, (tell, told)) = (Clock::start(), bounded(load.in_flight));
    let text: Arc<str> = "x".repeat(load.bytes).into();
    for _ in 0..load.in_flight {
        propose(log, &clock, &text, &tell);
    }
    let end = Duration::from_millis(load.millis);
    let (mut latencies, mut gap, mut last) = (Vec::new(), Duration::ZERO, clock.now().mono);
    let (mut open, begun, mut took) = (load.in_flight, last, Duration::ZERO);
    while open > 0 {
        let (sent, fate): (Time, Fate) = told.recv_timeout(PATIENCE).map_err(|_| {
            CliError::Failed(format!("{open} proposals became neither final nor refused"))
        })?;
        if let Fate::Refused(reason) = fate {
            return Err(CliError::Failed(format!("a proposal was refused: {reason}")));
        }
        let now = clock.now().mono;
        latencies.push(now.since(sent).as_secs_f64() * 1e3);
        (gap, last, took) = (gap.max(now.since(last)), now, now.since(begun));
        if took < end {
            propose(log, &clock, &text, &tell);
        } else {
            open -= 1;
        }
    }
    Ok(json!({
        "count": latencies.len(), "took_s": took.as_secs_f64(),
        "latency_ms": distribution(&latencies), "gap_ms": gap.as_secs_f64() * 1e3,
    }))
}

fn propose(log: &OrderedLog, clock: &Clock, text: &str, tell: &Sender<(Time, Fate)>) {
    let (sent, tell) = (clock.now().mono, tell.clone());
    let told = move |fate| {
        if fate != Fate::Kept {
            // The load has been given up if this fails.
            let _ = tell.send((sent, fate));
        }
    };
    log.propose_and_tell(text.as_bytes(), Box::new(told));
}
