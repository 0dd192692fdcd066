//! Repeated looks at a node: `status --watch`, and `start --wait`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use crossbeam_channel::{select, tick};

use super::client::Client;
use super::format::{deed, weights};
use super::local_server::NodeRequest;
use crate::cli::CliError;
use crate::cli::output::{print, terminal_width, wrap_lines};
use crate::cli::run::signals;
use crate::cli::text::escape;
use crate::proto::rollout::{Committed, TxKind};

/// Interval at which the status is shown.
const EVERY: Duration = Duration::from_secs(1);

/// Interval at which a waiting `start` looks for steps.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Largest number of transactions of one look.
const NEWS_MAX: usize = 100;

/// Moves to the first place of a terminal, and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// True if the output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns the status of all nodes, as text.
///
/// # Errors
/// Fails if the node does not answer.
pub(super) fn picture(asked: &Client, json: bool, is_terminal: bool) -> Result<String, CliError> {
    if json {
        return Ok(format!("{}\n", asked.raw(&NodeRequest::Status)?));
    }
    let view = asked.view()?;
    let known = match view.needs_history() {
        true => asked.history(NEWS_MAX)?.committed,
        false => Vec::new(),
    };
    let text = view.text(&known, is_terminal);
    Ok(match terminal_width().filter(|_| is_terminal) {
        Some(width) => wrap_lines(&text, width),
        None => text,
    })
}

/// Shows the status each second until Ctrl-C. A node that stops meanwhile is waited for.
///
/// # Errors
/// Fails if the node does not run now, or the output is closed.
pub(super) fn status(asked: &Client, json: bool) -> Result<(), CliError> {
    let system = |source| CliError::System { action: "listen to signals", source };
    let signals = signals::listen(false).map_err(system)?;
    let is_terminal = is_terminal() && !json;
    let mut last = picture(asked, json, is_terminal)?;
    let ticks = tick(EVERY);
    loop {
        match (json, is_terminal) {
            (true, _) => print(&last)?,
            (false, true) => print(&format!("{CLEAR}{last}Ctrl-C ends this\n"))?,
            (false, false) => print(&format!("{last}\n"))?,
        }
        select! {
            recv(signals) -> _ => return Ok(()),
            recv(ticks) -> _ => {}
        }
        last = picture(asked, json, is_terminal).unwrap_or_else(|error| match json {
            true => format!("{}\n", serde_json::json!({ "error": error.to_string() })),
            false => format!("{error}; waits for it\n"),
        });
    }
}

/// Shows each transaction after a rollout's first, of that version, until the rollout has ended.
///
/// # Errors
/// Fails if the rollout was rolled back or aborted, if the node stops, or at Ctrl-C.
pub(super) fn follow(asked: &Client, version: u64, json: bool) -> Result<(), CliError> {
    let system = |source| CliError::System { action: "listen to signals", source };
    let signals = signals::listen(false).map_err(system)?;
    let mut seen = version;
    let mut aborted_seen = asked.history(NEWS_MAX)?.aborted.last().map(|it| it.txid.clone());
    let mut held = None;
    let ticks = tick(LOOK_EVERY);
    loop {
        let news = asked.history(NEWS_MAX)?;
        for it in news.committed.iter().filter(|it| it.proposal.state.version > seen) {
            tell(it, json)?;
            let kind = it.proposal.txid.kind;
            // Promoting after the last step finishes, too.
            let is_over = it.proposal.state.canary_share() == 0;
            if kind == TxKind::Finish || (kind == TxKind::Promote && is_over) {
                return Ok(());
            }
            if matches!(kind, TxKind::Rollback | TxKind::Abort) {
                return Err(failed(it));
            }
        }
        seen = news.committed.last().map_or(seen, |it| it.proposal.state.version.max(seen));
        let old = news.aborted.iter().rposition(|it| Some(&it.txid) == aborted_seen.as_ref());
        for it in news.aborted.iter().skip(old.map_or(0, |at| at + 1)) {
            if !json {
                print(&format!("aborted: {} ({})", escape(&it.reason), it.txid))?;
            }
        }
        aborted_seen = news.aborted.last().map(|it| it.txid.clone());
        let view = asked.view()?;
        let now = view.status().and_then(|it| it.held.clone());
        if let Some(reason) = now.as_ref().filter(|it| held.as_ref() != Some(*it) && !json) {
            print(&format!("held: {}", escape(reason)))?;
        }
        held = now;
        select! {
            recv(signals) -> _ => return Err(CliError::Failed(
                "no longer waits; the rollout goes on, see peer rollout status".to_owned(),
            )),
            recv(ticks) -> _ => {}
        }
    }
}

fn tell(committed: &Committed, json: bool) -> Result<(), CliError> {
    let it = &committed.proposal;
    if json {
        return print(&serde_json::json!(committed).to_string());
    }
    print(&format!(
        "{} (version {}, {}: {})",
        deed(it.txid.kind, &it.state),
        it.state.version,
        it.txid,
        weights(&it.state.weights)
    ))
}

fn failed(committed: &Committed) -> CliError {
    let it = &committed.proposal;
    let why = if it.note.is_empty() { "an operator said so" } else { &it.note };
    CliError::Failed(format!(
        "{}: {}; peer rollout explain {} shows how",
        deed(it.txid.kind, &it.state),
        escape(why),
        it.txid
    ))
}
