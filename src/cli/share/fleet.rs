//! Shares of a fleet: through a running peer of this machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::{FleetArgs, NetArgs, ShareArgs, UnshareArgs};
use super::offer::{hash_bar, only_here, piece_size, write_ticket};
use crate::cli::CliError;
use crate::cli::output::print;
use crate::cli::query::{peer_at, put, request_in};
use crate::cli::run::ApiRequest;
use crate::cli::span::Span;
use crate::cli::text::escape;
use crate::model::{Endpoint, Ticket, Time};
use crate::network::shares::HostedShare;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Longest time after a peer's start in which it learns of others' shares for the first time.
const HEARING_MAX: Duration = Duration::from_secs(3);

impl NetArgs {
    /// True if this command must serve by itself to obey the flags, for `peer` cannot.
    fn wants_own_port(&self, peer: &Path) -> bool {
        let is_bound = self.up.is_some() || self.down.is_some() || self.cluster_key.is_some();
        self.port != 0 || is_bound || self.ip.is_some_and(|ip| address_of(peer) != Some(ip))
    }
}

/// Address of a running peer, if it tells.
fn address_of(peer: &Path) -> Option<IpAddr> {
    let told = request_in(peer, &json!({ "ask": "topology" })).ok()?;
    Some(told.get("endpoint")?.as_str()?.parse::<Endpoint>().ok()?.ip())
}

/// The peer that stands for the fleet, if one runs.
///
/// # Errors
/// Fails if the named peer does not run.
pub(super) fn peer(fleet: &FleetArgs) -> Result<Option<PathBuf>, CliError> {
    match (fleet.alone, fleet.peer) {
        (true, _) => Ok(None),
        (false, None) => Ok(peer_at(&fleet.data, None).ok()),
        (false, Some(port)) => peer_at(&fleet.data, Some(port)).map(Some),
    }
}

/// Lets a running peer share a file or folder; returns whether one does.
///
/// # Errors
/// Fails if it cannot be read, or cannot be shared with these flags.
pub(super) fn share(args: &ShareArgs) -> Result<bool, CliError> {
    let peer = peer(&args.fleet)?.filter(|it| !args.net.wants_own_port(it));
    let Some(peer) = peer else {
        if args.everywhere {
            let text = "--everywhere takes a running peer, and no --ip of another address, --port, \
                        --up, --down or --cluster-key: start one with peer --port P";
            return Err(CliError::Usage(text.to_owned()));
        }
        return Ok(false);
    };
    let piece = args.piece.map(piece_size).transpose()?;
    let path = args.path.canonicalize().map_err(|error| {
        CliError::Failed(format!("cannot share {}: {error}", args.path.display()))
    })?;
    let bar = hash_bar();
    let mut found = Map::new();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (everywhere, rehash) = (args.everywhere, args.rehash);
    let wanted = ApiRequest::Share { path, piece, everywhere, rehash };
    put(&peer, &wanted, |object| {
        let number = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or_default();
        bar.set_length(number("size"));
        bar.set_position(number("hashed"));
        found = object;
        !found.contains_key("ticket")
    })?;
    bar.finish_and_clear();
    let ticket = found.get("ticket").and_then(Value::as_str);
    let Some(ticket) = ticket else {
        return Err(CliError::Failed("the peer stopped before the ticket was made".to_owned()));
    };
    if let Some(file) = &args.ticket {
        write_ticket(file, ticket)?;
    }
    print(&format!("{ticket}\n"))?;
    let left_out = found.get("left_out").and_then(Value::as_array);
    for path in left_out.into_iter().flatten().filter_map(Value::as_str) {
        say(&format!("left out: {}", escape(path)));
    }
    let remedy = "start the peer that serves it with --ip, an address of this machine";
    if let Some(hint) = ticket.parse().ok().as_ref().and_then(|it| only_here(it, remedy)) {
        say(&hint);
    }
    let (found_at, peer) = (&peer, peer.display());
    let name = escape(&name);
    say(&format!("the peer in {peer} shares it from now on; peer unshare {name} ends that"));
    args.wait.map_or(Ok(()), |wait| await_answers(found_at, ticket, wait))?;
    Ok(true)
}

/// Waits until all peers have the share that was ordered for all; prints how many have it.
fn await_answers(peer: &Path, ticket: &str, wait: Span) -> Result<(), CliError> {
    let wait_ms = u64::try_from(wait.0.as_millis()).unwrap_or(u64::MAX);
    let mut answers = Vec::new();
    put(peer, &ApiRequest::Answers { ticket: ticket.to_owned(), wait_ms }, |mut object| {
        if let Some(Value::Array(all)) = object.remove("answers") {
            answers = all;
            return false;
        }
        say(&format!("{} of {} have it", object["have"], object["of"]));
        true
    })?;
    if answers.is_empty() {
        let text = "no other peer can be found from here, so nobody was seen to take it";
        return Err(CliError::Failed(text.to_owned()));
    }
    let (mut refused, mut open) = (0, 0);
    for it in &answers {
        let who = escape(it["peer"].as_str().unwrap_or_default());
        let text = match it["answer"].as_str() {
            Some("has") => continue,
            Some("refuses") => {
                refused += 1;
                format!("refuses: {}", escape(it["reason"].as_str().unwrap_or_default()))
            }
            Some("part") => {
                open += 1;
                format!("has a part of it after {wait}")
            }
            Some(_) | None => {
                open += 1;
                format!("has told nothing of it after {wait}; it is gone, or an older build")
            }
        };
        say(&format!("{who} {text}"));
    }
    match refused + open {
        0 => Ok(()),
        _ => Err(CliError::NotEverywhere { refused, open, of: answers.len() }),
    }
}

/// Ends a share of a running peer.
///
/// # Errors
/// Fails if no peer runs, or it shares nothing of that name.
pub(super) fn unshare(args: &UnshareArgs) -> Result<(), CliError> {
    let peer = peer_at(&args.fleet.data, args.fleet.peer)?;
    let (name, everywhere) = (args.name.clone(), args.everywhere);
    put(&peer, &ApiRequest::Unshare { name, everywhere }, |_| true)?;
    let more =
        if everywhere { "; the others remove what they have of it from this peer" } else { "" };
    print(&format!("{} is not shared there any more{more}\n", escape(&args.name)))
}

/// Shares of the fleet, as a peer knows them.
///
/// # Errors
/// Fails if the peer does not answer.
pub(super) fn list(peer: &Path) -> Result<Vec<Value>, CliError> {
    let mut found = Vec::new();
    put(peer, &ApiRequest::Shares, |mut object| {
        if let Some(Value::Array(shares)) = object.remove("shares") {
            found = shares;
        }
        true
    })?;
    Ok(found)
}

/// The ticket of the share of this name.
///
/// # Errors
/// Fails if there is none, or several of different content.
pub(super) fn find(peer: &Path, name: &str) -> Result<Ticket, CliError> {
    let clock = Clock::start();
    loop {
        let all = list(peer)?;
        let mut named = all.iter().filter(|it| it["name"] == name);
        match (named.next(), named.next()) {
            (Some(it), None) => {
                let ticket = it["ticket"].as_str().unwrap_or_default();
                return ticket.parse().map_err(|error| CliError::Failed(format!("{error}")));
            }
            (Some(_), Some(_)) => {
                let text = "several shares have that name; take the ticket of one: peer shares";
                return Err(CliError::Failed(text.to_owned()));
            }
            (None, _) => {
                if clock.now().mono.since(Time::ZERO) >= HEARING_MAX {
                    return Err(CliError::Failed(format!(
                        "{} is no ticket, no file with one, and no share of the fleet; peer \
                         shares lists those",
                        escape(name)
                    )));
                }
                // A peer that has just started learns of shares within a moment.
                let _ = crossbeam_channel::after(HEARING_MAX / 15).recv();
            }
        }
    }
}

/// Announces to the fleet that this process has pieces of a share, and learns the other peers that
/// have, for as long as the process lasts.
pub(super) fn lend(peer: PathBuf, ticket: Ticket, held: Weak<HostedShare>) {
    let wanted = ApiRequest::Lend { ticket: ticket.to_string() };
    let learn = move || {
        let heard = put(&peer, &wanted, |object| {
            let Some(held) = held.upgrade() else { return false };
            let places = object.get("places").cloned().unwrap_or_else(|| json!([]));
            let places: Vec<Endpoint> = serde_json::from_value(places).unwrap_or_default();
            let others = places.into_iter().filter(|it| !ticket.at.contains(it));
            others.for_each(|it| held.swarm.add_place(it.socket_addr()));
            true
        });
        if let Err(error) = heard {
            ::log::debug!("the fleet does not know of this download: {error}");
        }
    };
    // The thread ends with the process: there is nothing that it could leave undone.
    if let Err(error) = thread::spawn("lend", learn) {
        ::log::debug!("the fleet does not know of this download: {error}");
    }
}

/// Prints a line for people on standard error: the output is for programs.
fn say(line: &str) {
    // If standard error is closed, no reader is left.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr().lock(), format_args!("{line}\n"));
}
