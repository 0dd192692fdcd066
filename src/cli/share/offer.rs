//! `peer share`: prints a ticket, and serves until it is stopped.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, select, tick};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::ShareArgs;
use super::running;
use super::watch::Notices;
use crate::cli::CliError;
use crate::cli::output::print;
use crate::cli::run::signals;
use crate::cli::size::Size;
use crate::cli::text::escape;
use crate::model::Ticket;
use crate::network::shares::{HostedShare, ShareHost, WantedContent};
use crate::runtime::swarm::ContentPhase;

/// Sizes of pieces, in bytes, that `--piece` allows.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 16 * 1024..=16 * 1024 * 1024;

/// Interval of the checks whether the disk still has the promised content.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shares a file or folder.
///
/// # Errors
/// Fails if it cannot be read or served.
pub(super) fn run(args: &ShareArgs) -> Result<(), CliError> {
    let piece = args.piece.map(piece_size).transpose()?;
    let signals = signals::listen(false)
        .map_err(|source| CliError::System { action: "listen to signals", source })?;
    let host = Arc::new(ShareHost::start(args.net.engine()?)?);
    let outcome = offer(args, piece, &host, &signals);
    host.stop();
    outcome
}

pub(super) fn piece_size(Size(bytes): Size) -> Result<u32, CliError> {
    let size = u32::try_from(bytes).ok().filter(|_| PIECE_BYTES.contains(&bytes));
    size.ok_or_else(|| CliError::Usage("a piece has 16K to 16M bytes; mend --piece".to_owned()))
}

fn offer(
    args: &ShareArgs,
    piece: Option<u32>,
    host: &Arc<ShareHost>,
    signals: &Receiver<&'static str>,
) -> Result<(), CliError> {
    let bar = hash_bar();
    let is_stopped = AtomicBool::new(false);
    let hashed = |done, size| {
        bar.set_length(size);
        bar.set_position(done);
        if !signals.is_empty() {
            is_stopped.store(true, Ordering::Relaxed);
        }
        !is_stopped.load(Ordering::Relaxed)
    };
    let (events, notices) = Notices::new();
    let wanted = WantedContent { path: &args.path, piece, rehash: args.rehash };
    let shared = host.share(wanted, &hashed, events);
    bar.finish_and_clear();
    if is_stopped.load(Ordering::Relaxed) {
        return Err(CliError::Failed("stopped before the ticket was made".to_owned()));
    }
    let held = shared?;
    let ticket = held.ticket.to_string();
    if let Some(file) = &args.ticket {
        write_ticket(file, &ticket)?;
    }
    let of_host = Arc::downgrade(host);
    let tell = move || of_host.upgrade().map(|it| it.list()).unwrap_or_default();
    let announced = running::announce(tell);
    print(&ticket)?;
    tell_people(&held);
    let outcome = serve(&held, &notices, signals);
    drop(announced);
    outcome
}

/// Serves until a signal comes, or the disk no longer has the promised content.
fn serve(
    held: &HostedShare,
    notices: &Receiver<String>,
    signals: &Receiver<&'static str>,
) -> Result<(), CliError> {
    let look = tick(LOOK_EVERY);
    loop {
        select! {
            recv(signals) -> _ => return Ok(()),
            recv(notices) -> notice => {
                // The queue is bounded and may lose notices; the share goes on.
                let _ = writeln!(io::stderr().lock(), "{}", escape(&notice.unwrap_or_default()));
            }
            recv(look) -> _ => if let ContentPhase::Failed(reason) = held.swarm.progress().phase {
                return Err(CliError::Failed(format!("cannot go on sharing: {reason}")));
            },
        }
    }
}

fn tell_people(held: &HostedShare) {
    let mut err = io::stderr().lock();
    let name = escape(&held.ticket.name);
    for path in &held.left_out {
        let _ = writeln!(err, "left out of {name}: {}", escape(path));
    }
    if let Some(hint) = only_here(&held.ticket, "--ip with an address of this machine") {
        let _ = writeln!(err, "{hint}");
    }
    let size = Size(held.ticket.size);
    let _ = writeln!(err, "shares {name} ({size}) until Ctrl-C; fetch it with: peer fetch TICKET");
}

/// Warning about a ticket that other machines cannot use, with its remedy; `None` if they can.
pub(super) fn only_here(ticket: &Ticket, remedy: &str) -> Option<String> {
    let is_only = !ticket.at.is_empty() && ticket.at.iter().all(|it| it.ip().is_loopback());
    is_only.then(|| format!("the ticket is good on this machine only; for others: {remedy}"))
}

/// Writes the ticket so that no reader ever sees half of it.
pub(super) fn write_ticket(path: &Path, ticket: &str) -> Result<(), CliError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let written = fs::write(&draft, format!("{ticket}\n")).and_then(|()| fs::rename(&draft, path));
    written.map_err(|source| {
        let path = path.display();
        CliError::Failed(format!("cannot write the ticket {path}: {source}; mend --ticket"))
    })
}

pub(super) fn hash_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "hashing [{bar:24}] {binary_bytes}/{binary_total_bytes}, {eta} left";
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
