//! `peer share`, `peer fetch`, `peer shares`: files and folders for the holders of a ticket.
//!
//! A `ShareHost` of the library holds the shares; the commands give it a port of its own. The
//! output is for people on a terminal and for programs otherwise. No piece is chosen, checked or
//! moved here.

pub mod args;
mod fetch;
mod fleet;
mod offer;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod running;
mod ticket;
mod timeline;
mod watch;

use std::io::IsTerminal as _;
use std::path::Path;

use serde_json::Value;

use self::args::{FetchArgs, ShareArgs, SharesArgs, UnshareArgs};
use super::CliError;
use super::output::{print, table, table_text};
use super::size::Size;
use super::text::escape;
use crate::model::Ticket;

/// Arguments of `peer share`.
///
/// # Errors
/// Fails if it cannot be read or served.
pub fn share(args: &ShareArgs) -> Result<(), CliError> {
    if fleet::share(args)? { Ok(()) } else { offer::run(args) }
}

/// Arguments of `peer fetch`.
///
/// # Errors
/// Fails if it did not come, or could not be put into its place.
pub fn fetch(args: &FetchArgs) -> Result<(), CliError> {
    fetch::run(args)
}

/// Arguments of `peer unshare`.
///
/// # Errors
/// Fails if no peer runs, or it shares nothing of that name.
pub fn unshare(args: &UnshareArgs) -> Result<(), CliError> {
    fleet::unshare(args)
}

/// `peer shares`: the shares of the fleet, and those of this user on this machine beside it, with
/// the tickets.
///
/// # Errors
/// Fails if they cannot be asked for.
pub fn shares(args: &SharesArgs) -> Result<(), CliError> {
    let all = known_shares(fleet::peer(&args.fleet)?.as_deref())?;
    if args.json {
        return print_lines(&all);
    }
    if all.is_empty() {
        return print("nothing is shared here; begin with: peer share PATH\n");
    }
    let is_terminal = std::io::stdout().is_terminal();
    print(&listed(&all, is_terminal))
}

/// The shares that a peer knows, if there is one, and those of this user on this machine.
///
/// # Errors
/// Fails if they cannot be asked for.
pub(in crate::cli) fn known_shares(peer: Option<&Path>) -> Result<Vec<Value>, CliError> {
    let mut all = peer.map_or_else(|| Ok(Vec::new()), fleet::list)?;
    let known: Vec<_> = all.iter().filter_map(id).collect();
    let is_news = |it: &Value| id(it).is_some_and(|id| !known.contains(&id));
    all.extend(ask_all()?.into_iter().filter(is_news));
    Ok(all)
}

/// The shares as a table. A terminal gets the tickets, which are long, below it.
fn listed(all: &[Value], is_terminal: bool) -> String {
    let mut rows = if is_terminal {
        table(["NAME", "SIZE", "PEERS", "HERE"], is_terminal)
    } else {
        table(["NAME", "SIZE", "PEERS", "HERE", "TICKET"], is_terminal)
    };
    let mut tickets = String::new();
    for it in all {
        let here = if it["have"].is_u64() { it } else { &it["here"] };
        let pieces = if here["have"].is_u64() { pieces(here) } else { String::new() };
        let mut row = vec![text(it, "name"), size(it), number(it, "peers"), pieces];
        if is_terminal {
            tickets += &format!("{}  {}\n", text(it, "name"), text(it, "ticket"));
        } else {
            row.push(text(it, "ticket"));
        }
        rows.add_row(row);
    }
    table_text(rows, is_terminal) + &tickets
}

/// Identity of the share that a line is about.
fn id(it: &Value) -> Option<[u8; 32]> {
    Some(it["ticket"].as_str()?.parse::<Ticket>().ok()?.share_id())
}

/// `peer swarm status`: all swarms of this user on this machine.
///
/// # Errors
/// Fails if they cannot be asked for.
pub(super) fn status(json: bool) -> Result<(), CliError> {
    let all = ask_all()?;
    if json {
        return print_lines(&all);
    }
    if all.is_empty() {
        return print("no swarm, share or download of this user runs on this machine\n");
    }
    let is_terminal = std::io::stdout().is_terminal();
    print(&running_text(&all, is_terminal))
}

/// The swarms of this machine as a table; a terminal gets two rows a swarm, to have room for all.
fn running_text(all: &[Value], is_terminal: bool) -> String {
    let mut rows = if is_terminal {
        let header = ["NAME, AT", "KIND, PID", "SIZE", "PIECES", "PEERS", "DOWN", "UP", "LEFT"];
        table(header, is_terminal)
    } else {
        let header = ["PID", "KIND", "NAME", "SIZE", "PIECES", "PEERS", "DOWN", "UP", "LEFT", "AT"];
        table(header, is_terminal)
    };
    for it in all {
        let kind = match it["id"].as_u64() {
            Some(id) => format!("{} {id}", text(it, "kind")),
            None => text(it, "kind"),
        };
        let left = it["left_s"].as_u64().map_or("-".to_owned(), |secs| format!("{secs}s"));
        let (name, at, pid) = (text(it, "name"), text(it, "at"), number(it, "pid"));
        let (down, up) = (rate(it, "down_per_s"), rate(it, "up_per_s"));
        let middle = [size(it), pieces(it), number(it, "peers"), down, up, left];
        if is_terminal {
            let head = [format!("{name}\n{at}"), format!("{kind}\n{pid}")];
            rows.add_row(head.into_iter().chain(middle));
        } else {
            rows.add_row([pid, kind, name].into_iter().chain(middle).chain([at]));
        }
    }
    table_text(rows, is_terminal)
}

fn ask_all() -> Result<Vec<Value>, CliError> {
    running::ask_all().map_err(|source| CliError::System { action: "ask the swarms", source })
}

fn print_lines(all: &[Value]) -> Result<(), CliError> {
    print(&all.iter().map(|it| format!("{it}\n")).collect::<String>())
}

fn text(it: &Value, key: &str) -> String {
    it[key].as_str().map(escape).unwrap_or_default()
}

fn number(it: &Value, key: &str) -> String {
    it[key].as_u64().map(|it| it.to_string()).unwrap_or_default()
}

pub(in crate::cli) fn size(it: &Value) -> String {
    Size(it["size"].as_u64().unwrap_or_default()).to_string()
}

pub(in crate::cli) fn rate(it: &Value, key: &str) -> String {
    format!("{}/s", Size(it[key].as_u64().unwrap_or_default()))
}

pub(in crate::cli) fn pieces(it: &Value) -> String {
    format!("{}/{}", number(it, "have"), number(it, "pieces"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_terminal_gets_tickets_below_the_table_and_programs_get_a_column() {
        let share = json!({ "name": "a", "size": 3, "peers": 2, "ticket": "folkmoot:share?x" });
        let piped = listed(std::slice::from_ref(&share), false);
        assert!(piped.lines().next().unwrap().ends_with("TICKET"), "{piped}");
        assert!(piped.lines().nth(1).unwrap().ends_with("folkmoot:share?x"), "{piped}");
        let shown = listed(&[share], true);
        assert_eq!(shown.lines().last(), Some("a  folkmoot:share?x"), "{shown}");
        assert!(!shown.contains("TICKET"), "{shown}");
    }

    #[test]
    fn a_terminal_gets_a_swarm_in_two_rows_and_programs_in_one() {
        let swarm = json!({
            "name": "a.iso", "at": "127.0.0.1:7", "pid": 12, "kind": "share", "size": 3,
            "have": 1, "pieces": 2, "peers": 0, "down_per_s": 0, "up_per_s": 5, "left_s": null,
        });
        assert_eq!(running_text(std::slice::from_ref(&swarm), false).lines().count(), 2);
        let shown = running_text(&[swarm], true);
        let rows: Vec<_> = shown.lines().filter(|it| it.contains('│')).collect();
        assert!(rows[1].contains("a.iso") && rows[1].contains("share"), "{shown}");
        assert!(rows[2].contains("127.0.0.1:7") && rows[2].contains("12"), "{shown}");
    }
}
