//! Tickets as they are typed: themselves, or the name of a file that holds one.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::cli::CliError;
use crate::cli::config::ConfigError;
use crate::model::{TICKET_BYTES_MAX, Ticket};

/// How every ticket begins.
const OPENING: &str = "folkmoot:";

/// Whether a ticket was typed, or a file named that holds something like one.
pub(super) fn is_typed(typed: &str) -> bool {
    let is_file = || {
        let mut opening = [0; OPENING.len()];
        let mut file = File::open(typed.trim()).ok()?;
        file.read_exact(&mut opening).ok()?;
        Some(opening == *OPENING.as_bytes())
    };
    typed.trim().starts_with(OPENING) || is_file().unwrap_or(false)
}

/// The ticket that was typed, or that is in the file that was named.
///
/// # Errors
/// When it is none.
pub(super) fn read(typed: &str) -> Result<Ticket, CliError> {
    let typed = typed.trim();
    if typed.starts_with(OPENING) {
        return typed.parse().map_err(|error| CliError::Usage(format!("{error}")));
    }
    let path = Path::new(typed);
    let fault = |reason: String| ConfigError { file: path.into(), line: None, reason };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| {
        let remedy = "type a ticket, which begins with folkmoot:, or the name of a file with one";
        fault(format!("cannot be opened ({error}); {remedy}"))
    })?;
    file.take(TICKET_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| fault(format!("cannot be read as a ticket ({error})")))?;
    let ticket = text.lines().map(str::trim).find(|line| !line.is_empty());
    let ticket = ticket.ok_or_else(|| fault("is empty; it should hold a ticket".to_owned()))?;
    Ok(ticket.parse().map_err(|error| fault(format!("holds no ticket: {error}")))?)
}
