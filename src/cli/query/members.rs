//! `peer members`: list of the members.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::client::{Client, Failure, Page};
use super::{QueryError, ask_first, ask_one};
use crate::cli::CliError;
use crate::cli::args::MembersArgs;
use crate::cli::output::{moment, print, table, table_text};
use crate::cli::report::{counted, listed};
use crate::model::entry::MemberState;
use crate::model::{Endpoint, WallTime};
use crate::proto::membership::{MemberLine, PeerListReq};
use crate::proto::message::Message;
use crate::runtime::clock::Clock;

/// Lists the members, as a seed sees them.
///
/// # Errors
/// Fails if no seed answers.
pub fn members(args: &MembersArgs) -> Result<(), CliError> {
    let (seed, members) = ask_first(&args.ask, |client| fetch(client, args.all))?;
    if args.json {
        print(&json_lines(&members)?)
    } else {
        let now = Clock::start().now().wall;
        let since = |at| moment(at, now, args.utc);
        print(&text(seed, &members, since, std::io::stdout().is_terminal()))
    }
}

/// The members, as the seed at `endpoint` sees them.
///
/// # Errors
/// Fails if it does not answer, or takes longer than `timeout` to connect or for a page.
pub fn fetch_members(endpoint: Endpoint, timeout: Duration) -> Result<Vec<MemberLine>, QueryError> {
    ask_one(endpoint, timeout, |client| fetch(client, false))
}

pub(super) fn fetch(client: &mut Client, ended: bool) -> Result<Vec<MemberLine>, Failure> {
    client.fetch_all(|client, after| {
        let list = client.ask(PeerListReq { after, ended, sample: false }, |answer| {
            if let Message::PeerListResp(list) = answer { Some(list) } else { None }
        })?;
        let next = list.members.last().filter(|_| list.more).map(|last| last.endpoint);
        Ok(Page { items: list.members, next })
    })
}

fn json_lines(members: &[MemberLine]) -> Result<String, CliError> {
    let mut text = String::new();
    for member in members {
        let line = serde_json::to_string(member)
            .map_err(|error| CliError::Failed(format!("cannot write a member: {error}")))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

fn text(
    seed: Endpoint,
    members: &[MemberLine],
    since_text: impl Fn(WallTime) -> String,
    is_terminal: bool,
) -> String {
    let mut table = table(["ENDPOINT", "INCARNATION", "STATUS", "SINCE", "NEIGHBORS"], is_terminal);
    for MemberLine { endpoint, incarnation, status, since, degree } in members {
        table.add_row([
            endpoint.to_string(),
            incarnation.to_string(),
            status.as_str().to_owned(),
            since_text(*since),
            degree.to_string(),
        ]);
    }
    let mut text = table_text(table, is_terminal);
    if is_terminal {
        text.push_str(&format!("{}, as {seed} knows them\n", counted(members.len(), "peer")));
        let alive = members.iter().filter(|it| it.status == MemberState::Alive);
        let alone: Vec<_> =
            alive.clone().filter(|it| it.degree == 0).map(|it| it.endpoint).collect();
        if alive.count() > 1 && !alone.is_empty() {
            let names = listed(&alone);
            text.push_str(&format!("seeds reach these, other members do not: {names}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Incarnation;

    fn member() -> MemberLine {
        MemberLine {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), 6001),
            incarnation: Incarnation(7),
            status: MemberState::Alive,
            since: WallTime(0),
            degree: 3,
        }
    }

    #[test]
    fn programs_get_one_plain_line_a_member() {
        let text = text(
            member().endpoint,
            &[member(), member()],
            |at| moment(at, WallTime(180_000), false),
            false,
        );
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 3);
        let words: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["127.0.0.1:6001", "7", "alive", "3", "min", "ago", "3"]);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = json_lines(&[member(), member()]).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with(r#"{"endpoint":"127.0.0.1:6001","incarnation":7,"#), "{text}");
    }
}
