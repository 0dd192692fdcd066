//! Measurement of the live page: the processor time that open pages cost a node while the fleet is
//! quiet, and the time from an event to each page.
//!
//! A page is played by what it does on the wire: a stream of events, and the whole fleet every 5 s.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::figure::{Sheet, Target};
use super::{limits, procfs};
use crate::cli::CliError;
use crate::cli::fleet::{Fleet, FleetLayout, LogEvent};
use crate::cli::span::Span;
use crate::model::Endpoint;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct PageArgs {
    /// Number of pages to open on one node
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=120))]
    pub pages: u16,
    /// Number of peers to start
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u16).range(5..=200))]
    pub peers: u16,
    /// Time for which the cost is measured
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub time: Span,
}

const SEED_PORT: u16 = 5_101;
const PEER_PORT: u16 = 20_001;

/// Longest time for the fleet to come together, and for an event to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Interval at which a page asks for the whole fleet.
const REFRESH: Duration = Duration::from_secs(5);

/// Number of peers that are killed, so that there are events.
const DEATHS: usize = 3;

/// Largest number of arrivals that wait to be counted.
const ARRIVALS_MAX: usize = 100_000;

/// Targets: the share of a core in percent, and the time from an event to a page in ms.
const QUIET_SHARE: Target = Target::AtMost(5.0);
const EVENT_MS: Target = Target::AtMost(200.0);

/// Arrival of an event at a page: its name, and the ms since it was logged.
type Arrival = (String, f64);

/// Open pages, until dropped.
struct Pages {
    is_over: Arc<AtomicBool>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    arrivals: Receiver<Arrival>,
}

impl Pages {
    fn open(at: Endpoint, count: u16) -> io::Result<Self> {
        let (tell, arrivals) = bounded(ARRIVALS_MAX);
        let is_over = Arc::new(AtomicBool::new(false));
        let mut pages = Self { is_over, streams: Vec::new(), threads: Vec::new(), arrivals };
        for number in 0..count {
            let mut stream = TcpStream::connect(at.socket_addr())?;
            write!(stream, "GET /-/folkmoot/events HTTP/1.1\r\nHost: {at}\r\n\r\n")?;
            pages.streams.push(stream.try_clone()?);
            let tell = tell.clone();
            pages.threads.push(thread::spawn(format!("page:{number}"), move || {
                // A stream ends with the measurement.
                let _ = listen(stream, &tell);
            })?);
        }
        let is_over = Arc::clone(&pages.is_over);
        pages.threads.push(thread::spawn("refresh", move || {
            while !is_over.load(Ordering::Relaxed) {
                let _ = crossbeam_channel::after(REFRESH / u32::from(count)).recv();
                let _ = refresh(at);
            }
        })?);
        Ok(pages)
    }

    /// Arrivals of these events since the last call.
    fn arrivals(&self, names: &[&str]) -> Vec<f64> {
        let named = |it: &Arrival| names.contains(&it.0.as_str());
        self.arrivals.try_iter().filter(named).map(|it| it.1).collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for stream in &self.streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(stream: TcpStream, tell: &Sender<Arrival>) -> io::Result<()> {
    let clock = Clock::start();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let now = clock.now().wall.0;
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        if let (Some(event), Some(at)) = (data["event"].as_str(), data["ts_ms"].as_u64()) {
            let _ = tell.try_send((event.to_owned(), now.saturating_sub(at) as f64));
        }
    }
    Ok(())
}

fn refresh(at: Endpoint) -> io::Result<()> {
    let mut stream = TcpStream::connect(at.socket_addr())?;
    let close = "Connection: close\r\n\r\n";
    write!(stream, "GET /-/folkmoot/fleet HTTP/1.1\r\nHost: {at}\r\n{close}")?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}

struct Bench {
    fleet: Fleet,
    sheet: Sheet,
    clock: Clock,
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &PageArgs) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let exe = std::env::current_exe().map_err(system("find this executable"))?;
    let plan = FleetLayout {
        exe,
        seeds: 3,
        seed_port: SEED_PORT,
        peer_port: PEER_PORT,
        peers: args.peers,
        seed_args: Vec::new(),
        peer_args: ["--gossip-max", "0"].map(str::to_owned).to_vec(),
    };
    let sheet = Sheet::new(json!({ "bench": "page", "peers": args.peers, "pages": args.pages }));
    sheet.line("limits", limits::make_room(args.peers.saturating_add(args.pages), 3)?)?;
    let fleet = Fleet::lay_out(plan).map_err(system("lay out the fleet"))?;
    let mut bench = Bench { fleet, sheet, clock: Clock::start() };
    bench.join()?;
    let asked = bench.fleet.peers()[0];
    bench.cost("quiet_core_percent_without_pages", asked, args.time)?;
    let pages = Pages::open(asked, args.pages).map_err(system("open the pages"))?;
    bench.pause(Duration::from_secs(2))?;
    bench.judged_cost(asked, args.time)?;
    bench.events(&pages)?;
    drop(pages);
    Ok(())
}

impl Bench {
    fn join(&mut self) -> Result<(), CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        for seed in self.fleet.seeds().to_vec() {
            self.fleet.start_seed(seed).map_err(failed)?;
        }
        self.wait("seeds that vote", |lines| count(lines, "seed", "ready") >= 3)?;
        let peers = self.fleet.peers().to_vec();
        for peer in &peers {
            self.fleet.start_peer(*peer).map_err(failed)?;
        }
        self.wait("members", |lines| count(lines, "peer", "admitted") >= peers.len())?;
        // The overlay settles.
        self.pause(Duration::from_secs(5))
    }

    fn wait(
        &mut self,
        what: &str,
        reached: impl FnMut(&[LogEvent]) -> bool,
    ) -> Result<(), CliError> {
        let waited = self.fleet.story().wait(PATIENCE, reached);
        match waited.map_err(|source| CliError::System { action: "follow the log", source })? {
            true => Ok(()),
            false => Err(CliError::Failed(format!(
                "not within {} s: {what}; {}",
                PATIENCE.as_secs(),
                self.fleet.complaints()
            ))),
        }
    }

    fn pause(&mut self, span: Duration) -> Result<(), CliError> {
        let (clock, begun) = (self.clock, self.clock.now().mono);
        self.wait("time", move |_| clock.now().mono.since(begun) >= span)
    }

    /// Share of a core that the process of a node takes, in percent.
    fn share(&mut self, node: Endpoint, time: Span) -> Result<f64, CliError> {
        let gone = || CliError::Failed(format!("{node} has ended"));
        let pid = self.fleet.pid(node).ok_or_else(gone)?;
        let before = procfs::cpu_seconds(pid).ok_or_else(gone)?;
        let begun = self.clock.now().mono;
        self.pause(time.0)?;
        let took = self.clock.now().mono.since(begun).as_secs_f64();
        Ok((procfs::cpu_seconds(pid).ok_or_else(gone)? - before) / took * 100.0)
    }

    fn cost(&mut self, metric: &str, node: Endpoint, time: Span) -> Result<(), CliError> {
        let share = self.share(node, time)?;
        self.sheet.figure(metric, &[share])
    }

    fn judged_cost(&mut self, node: Endpoint, time: Span) -> Result<(), CliError> {
        let share = self.share(node, time)?;
        self.sheet.judged("quiet_core_percent", &[share], QUIET_SHARE)
    }

    /// Kills peers, and measures the time from each line of the log to each page.
    fn events(&mut self, pages: &Pages) -> Result<(), CliError> {
        let _ = pages.arrivals(&[]);
        let victims: Vec<_> = self.fleet.peers().iter().rev().take(DEATHS).copied().collect();
        for victim in victims {
            let failed = |source| CliError::System { action: "kill a process", source };
            self.fleet.kill(victim).map_err(failed)?;
            let victim = json!(victim);
            self.wait("a removal", |lines| {
                lines.iter().any(|it| it.is("seed", "removed") && it.fields["endpoint"] == victim)
            })?;
            self.pause(Duration::from_secs(1))?;
        }
        let names = ["suspected", "confirmed", "reported", "removed", "unlinked", "linked"];
        self.sheet.judged("event_to_page_ms", &pages.arrivals(&names), EVENT_MS)
    }
}

fn count(lines: &[LogEvent], role: &str, event: &str) -> usize {
    lines.iter().filter(|line| line.is(role, event)).count()
}
