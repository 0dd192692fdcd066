//! Standard output of the questions: texts and tables.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};

use super::error::CliError;

/// Writes `text` to standard output, and ends its last line if it has not ended.
///
/// # Errors
/// Fails if standard output takes no more.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(end.as_bytes()))
        .and_then(|()| out.flush());
    written.map_err(|source| CliError::System { action: "write the answer", source })
}

/// Width in columns below which a table is not fitted to its terminal.
const WIDTH_MIN: u16 = 60;

/// A table that fits a terminal, or, for programs, plain lines that are never broken.
pub(super) fn table<const N: usize>(header: [&str; N], is_terminal: bool) -> Table {
    let mut table = Table::new();
    if is_terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        // A terminal that is too narrow, or does not know its width, breaks lines better itself.
        let is_wide = table.width().is_some_and(|width| width >= WIDTH_MIN);
        if is_wide {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
    } else {
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header);
    table
}

/// The table's text, without blanks at the ends of lines.
pub(super) fn table_text(mut table: Table, is_terminal: bool) -> String {
    if !is_terminal {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
