//! `peer fetch`: downloads the share of a ticket, and shows its progress.

use crate::proto::swarm::Pieces;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, select, tick};
use serde_json::{Value, json};

use super::args::FetchArgs;
use super::fleet;
use super::offer::hash_bar;
use super::progress::Screen;
use super::timeline::Timeline;
use super::watch::{DownloadDisplay, Notices};
use super::{running, ticket};
use crate::cli::CliError;
use crate::cli::run::signals;
use crate::cli::size::Size;
use crate::cli::text::escape;
use crate::machine::swarm::SwarmOutcome;
use crate::model::{Ticket, Time};
use crate::network::shares::{FetchOptions, HostedShare, NO_MORE, ShareHost, View, read_again};
use crate::runtime::clock::Clock;
use crate::runtime::swarm::store::Checked;
use crate::runtime::swarm::{ContentPhase, SwarmProgress};

/// Intervals at which the bar moves, and at which programs get a line.
const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Fetches the share of a ticket.
///
/// # Errors
/// Fails if it did not come, or could not be put into its place.
pub(super) fn run(args: &FetchArgs) -> Result<(), CliError> {
    let peer = fleet::peer(&args.fleet)?;
    let ticket = match &peer {
        Some(peer) if !ticket::is_typed(&args.ticket) => fleet::find(peer, &args.ticket)?,
        _ => ticket::read(&args.ticket)?,
    };
    if ticket.at.is_empty() && args.at.is_empty() {
        let text = "the ticket names no place to ask; add one with --at IP:PORT";
        return Err(CliError::Usage(text.to_owned()));
    }
    let signals = signals::listen(false)
        .map_err(|source| CliError::System { action: "listen to signals", source })?;
    let host = Arc::new(ShareHost::start(args.net.engine()?)?);
    let give_up = Some(args.give_up.into());
    let (to, at) = (&args.to, &args.at);
    let bar = hash_bar();
    let hashed = |done, size| {
        bar.set_length(size);
        bar.set_position(done);
        signals.is_empty()
    };
    let order =
        FetchOptions { ticket: &ticket, to, at, give_up, preallocates: true, hashed: &hashed };
    let outcome = fetch(args, &order, (&host, peer), &signals);
    bar.finish_and_clear();
    host.stop();
    outcome
}

fn fetch(
    args: &FetchArgs,
    order: &FetchOptions<'_>,
    (host, peer): (&Arc<ShareHost>, Option<PathBuf>),
    signals: &Receiver<&'static str>,
) -> Result<(), CliError> {
    let name = escape(&order.ticket.name);
    let is_seen = std::io::stdout().is_terminal() && !args.json;
    let screen = if is_seen { Screen::new(&name) } else { Screen::plain() };
    let (events, notices) = Notices::new();
    let pieces =
        Pieces::new(order.ticket.size, order.ticket.piece_size).map_err(CliError::Usage)?;
    let display: Option<DownloadDisplay> = args
        .timeline
        .is_some()
        .then(|| Arc::new(Mutex::new(Timeline::new(&order.ticket.name, pieces))));
    let events = match &display {
        Some(display) => events.drawing(Arc::clone(display)),
        None => events,
    };
    let held = host.fetch(order, events)?;
    let of_host = Arc::downgrade(host);
    let announced =
        running::announce(move || of_host.upgrade().map(|it| it.list()).unwrap_or_default());
    if let Some(peer) = peer {
        let ticket = Ticket { at: host.at().to_vec(), ..order.ticket.clone() };
        fleet::lend(peer, ticket, Arc::downgrade(&held));
    }
    let clock = Clock::start();
    let at = host.at().first().map(ToString::to_string);
    let mut watch =
        Watch { held: &held, screen, is_seen, at, clock, began: clock.now().mono, last: None };
    watch.started()?;
    watch.found_changed()?;
    let outcome = watch.until_stored(&notices, signals);
    let drawn = draw(args.timeline.as_deref(), display.as_ref());
    let outcome = outcome.and_then(|()| watch.complete()).and(drawn);
    let outcome =
        outcome.and_then(|()| if args.stay { watch.stay(&notices, signals) } else { Ok(()) });
    watch.screen.close();
    drop(announced);
    outcome
}

/// Writes the progress of the download, also of one that was cut short.
fn draw(path: Option<&Path>, display: Option<&DownloadDisplay>) -> Result<(), CliError> {
    let (Some(path), Some(display)) = (path, display) else { return Ok(()) };
    let picture = display.lock().expect("nothing under this lock can panic").render(path);
    std::fs::write(path, picture).map_err(|source| {
        let path = path.display();
        CliError::Failed(format!("cannot draw the timeline {path}: {source}; mend --timeline"))
    })
}

/// Shows the progress of a download.
struct Watch<'a> {
    held: &'a HostedShare,
    screen: Screen,
    /// True if a person looks on.
    is_seen: bool,
    /// Address at which other peers find it.
    at: Option<String>,
    clock: Clock,
    began: Time,
    /// Last problem, for the case that nothing comes.
    last: Option<String>,
}

impl Watch<'_> {
    /// Prints a line for programs: the event and its details.
    fn line(&self, event: &str, mut fields: Value) -> Result<(), CliError> {
        fields["event"] = event.into();
        fields["ts_ms"] = self.clock.now().wall.0.into();
        self.screen.write(&format!("{fields}\n"))
    }

    fn started(&self) -> Result<(), CliError> {
        let (ticket, pieces) = (&self.held.ticket, self.held.swarm.store().pieces().count());
        // Pieces that were there at the beginning; more may have come since.
        let have = self.held.swarm.store().proven().len();
        if !self.is_seen {
            return self.line(
                "started",
                json!({ "name": ticket.name, "size": ticket.size, "pieces": pieces, "have": have,
                    "path": self.held.path.display().to_string(),
                    "listen": self.at }),
            );
        }
        let (name, path) = (escape(&ticket.name), self.held.path.display().to_string());
        let there = match have {
            0 => String::new(),
            have => format!(", {have} of {pieces} pieces are there already"),
        };
        let size = Size(ticket.size);
        self.screen.write(&format!("fetches {name} ({size}) to {}{there}\n", escape(&path)))
    }

    /// Reports the parts of it that others have changed since it was left.
    fn found_changed(&mut self) -> Result<(), CliError> {
        let Checked { read, lost, files } = self.held.swarm.store().read_again().clone();
        if files.is_empty() {
            return Ok(());
        }
        self.notice(&read_again(read, lost.len(), &files))
    }

    /// Reports a problem that the download goes on with.
    fn notice(&mut self, text: &str) -> Result<(), CliError> {
        let text = escape(text);
        if self.is_seen {
            self.screen.write(&format!("{text}\n"))?;
        } else {
            self.line("notice", json!({ "message": text }))?;
        }
        // The withdrawal by a seeder says more than that it cannot be reached since.
        if !self.last.as_deref().is_some_and(|it| it.contains(NO_MORE)) {
            self.last = Some(text);
        }
        Ok(())
    }

    fn show(&self, progress: &SwarmProgress) -> Result<(), CliError> {
        let view = View::of(progress, self.held.ticket.size);
        self.screen.show(&view);
        if self.is_seen { Ok(()) } else { self.line("progress", view.json()) }
    }

    /// Waits until everything is on disk under its own name.
    fn until_stored(
        &mut self,
        notices: &Receiver<String>,
        signals: &Receiver<&'static str>,
    ) -> Result<(), CliError> {
        let look = tick(BAR_EVERY);
        let lines = if self.is_seen { crossbeam_channel::never() } else { tick(LINE_EVERY) };
        loop {
            let progress = self.held.swarm.wait(Duration::ZERO, |_, _| true);
            if let Some(outcome) = self.outcome(&progress) {
                notices.try_iter().try_for_each(|it| self.notice(&it))?;
                return outcome;
            }
            select! {
                recv(notices) -> notice => {
                    let notice = notice.unwrap_or_default();
                    self.notice(&notice)?;
                }
                recv(signals) -> signal => {
                    let signal = signal.unwrap_or("a signal");
                    return Err(CliError::Failed(format!(
                        "stopped because of {signal}; fetch it again to go on"
                    )));
                }
                recv(look) -> _ => if self.is_seen { self.show(&progress)?; },
                recv(lines) -> _ => self.show(&progress)?,
            }
        }
    }

    fn outcome(&self, progress: &SwarmProgress) -> Option<Result<(), CliError>> {
        let failed = |text: String| Some(Err(CliError::Failed(text)));
        match (&progress.phase, &progress.ended) {
            (ContentPhase::Stored, _) => Some(Ok(())),
            (ContentPhase::Failed(reason), _) => {
                failed(format!("stopped: {reason}; what came is kept, fetch it again to go on"))
            }
            (_, Some(SwarmOutcome::DiskFailed(reason))) => {
                failed(format!("stopped: {reason}; what came is kept, fetch it again to go on"))
            }
            (ContentPhase::Fetching, Some(_)) => {
                let last = self.last.as_deref().unwrap_or("nobody answered");
                let at = &self.held.ticket.at;
                let hint = match !at.is_empty() && at.iter().all(|it| it.ip().is_loopback()) {
                    true => {
                        ", which is a place on this machine only: a share for others is made \
                             with --ip"
                    }
                    false => "",
                };
                if last.contains(NO_MORE) {
                    return failed(format!(
                        "nobody has the rest ({last}); {} of {} pieces are kept",
                        progress.have, progress.pieces
                    ));
                }
                failed(format!(
                    "nobody who has the rest came in time (at last: {last}); {} of {} pieces are \
                     kept: see that peer share runs where the ticket says{hint}, and fetch it \
                     again",
                    progress.have, progress.pieces
                ))
            }
            (ContentPhase::Fetching | ContentPhase::Finishing, _) => None,
        }
    }

    fn complete(&self) -> Result<(), CliError> {
        let view = self.held.view();
        let seconds = self.clock.now().mono.since(self.began).as_secs_f64();
        self.screen.show(&view);
        let path = self.held.path.display().to_string();
        if !self.is_seen {
            let mut fields = view.json();
            fields["path"] = path.into();
            fields["seconds"] = ((seconds * 1e3).round() / 1e3).into();
            return self.line("complete", fields);
        }
        let (came, path) = (Size(view.down), escape(&path));
        self.screen.write(&format!("{path} is complete and verified: {came} in {seconds:.1} s\n"))
    }

    /// Serves others until a signal comes.
    fn stay(
        &mut self,
        notices: &Receiver<String>,
        signals: &Receiver<&'static str>,
    ) -> Result<(), CliError> {
        let look = tick(if self.is_seen { BAR_EVERY } else { LINE_EVERY });
        loop {
            select! {
                recv(signals) -> _ => return Ok(()),
                recv(notices) -> notice => {
                    let notice = notice.unwrap_or_default();
                    self.notice(&notice)?;
                }
                recv(look) -> _ => self.show(&self.held.swarm.progress())?,
            }
        }
    }
}
