//! Standard output of the questions: texts and tables.

use std::io::{self, Write as _};
use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use unicode_width::UnicodeWidthStr as _;

use super::error::CliError;
use crate::model::WallTime;

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

/// A blank of a cell at which it is not wrapped.
pub(super) const NO_BREAK: char = '\u{a0}';

/// Width in columns below which a table is not fitted to its terminal.
const WIDTH_MIN: u16 = 60;

/// Width of the terminal on standard output, in columns, if it is one and wide enough to lay text
/// out in.
pub(super) fn terminal_width() -> Option<usize> {
    Table::new().width().filter(|it| *it >= WIDTH_MIN).map(usize::from)
}

/// True unless the user wants no colors (`NO_COLOR`), or the terminal understands none.
pub(super) fn wants_color() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|it| !it.is_empty());
    !is_set("NO_COLOR") && is_set("TERM") && std::env::var_os("TERM").is_none_or(|it| it != "dumb")
}

/// A table for a terminal, or, for programs, of plain lines that are never broken.
pub(super) fn table<const N: usize>(header: [&str; N], is_terminal: bool) -> Table {
    let mut table = Table::new();
    let preset = if is_terminal { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING };
    table.load_style(preset).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

/// The table's text, without blanks at the ends of lines; it fits its terminal.
pub(super) fn table_text(mut table: Table, is_terminal: bool) -> String {
    // A terminal that is too narrow, or does not know its width, breaks lines better itself.
    match table.width().filter(|width| is_terminal && *width >= WIDTH_MIN) {
        Some(width) => fit(&mut table, width),
        None if !is_terminal => pad(&mut table),
        None => {}
    }
    table.lines().map(|line| line.replace(NO_BREAK, " ").trim_end().to_owned() + "\n").collect()
}

/// Separates the columns by blanks alone.
fn pad(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

/// Fits the table to `width` columns: without its frame if that is enough, else by cells that are
/// wrapped between words. Only a word that is wider than its place is broken.
fn fit(table: &mut Table, width: u16) {
    let widest = |parts: &dyn Fn(&str) -> usize, table: &Table| -> Vec<usize> {
        let rows = table.header().into_iter().chain(table.row_iter());
        rows.fold(Vec::new(), |mut all, row| {
            for (at, cell) in row.cell_iter().enumerate() {
                all.resize(all.len().max(at + 1), 0);
                all[at] = all[at].max(parts(&cell.content()));
            }
            all
        })
    };
    let line = |text: &str| text.lines().map(str::width).max().unwrap_or(0);
    let word = |text: &str| text.split([' ', '\n']).map(str::width).max().unwrap_or(0);
    let width = usize::from(width);
    let (lines, words) = (widest(&line, table), widest(&word, table));
    let count = lines.len();
    let (lines_sum, words_sum) = (lines.iter().sum::<usize>(), words.iter().sum::<usize>());
    if lines_sum + 3 * count < width {
        return;
    }
    let fits_without_frame = lines_sum + 2 * count <= width;
    if fits_without_frame || words_sum + 3 * count >= width {
        table.load_style(presets::NOTHING);
        pad(table);
    }
    if fits_without_frame {
        return;
    }
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if words_sum + 2 * count > width {
        return;
    }
    for (column, least) in table.column_iter_mut().zip(words) {
        let least = u16::try_from(least + 2).unwrap_or(u16::MAX);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
}

/// Labels with texts, one below the other; a text is wrapped between words, below its beginning,
/// where a terminal of `width` columns has no room for it.
pub(super) fn rows_text(rows: &[(&str, String)], width: Option<usize>) -> String {
    let label_width = rows.iter().map(|(label, _)| label.width()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (label, value) in rows {
        let room = width.map_or(usize::MAX, |it| it.saturating_sub(label_width).max(1));
        for (index, line) in wrap_words(value, room).into_iter().enumerate() {
            let label = if index == 0 { *label } else { "" };
            text += format!("{label:<label_width$}{line}").trim_end();
            text.push('\n');
        }
    }
    text
}

/// Lines of at most `width` columns, broken between words; a longer word has a line of its own.
pub(super) fn wrap_words(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.width() + 1 + word.width() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `text` with its lines broken between words where they are wider than `width`; what is broken
/// off keeps the indentation of its line.
pub(super) fn wrap_lines(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words = line.trim_start_matches(' ');
        let indent = &line[..line.len() - words.len()];
        if line.width() <= width {
            out += line;
            out.push('\n');
            continue;
        }
        for part in wrap_words(words, width.saturating_sub(indent.len()).max(1)) {
            out += indent;
            out += &part;
            out.push('\n');
        }
    }
    out
}

/// A span of time in its largest unit: `12 s`, `3 min`, `5 h`, `9 days`.
pub(super) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A state as old as `at`, in words: `for 3 min`, or exactly if `utc` is asked for.
pub(super) fn lasting(at: WallTime, now: WallTime, utc: bool) -> String {
    match utc {
        true => format!("since {at}"),
        false => format!("for {}", age_at(at, now)),
    }
}

/// The age of a moment; clocks differ: what another one dates later than now has just been.
fn age_at(at: WallTime, now: WallTime) -> String {
    age(Duration::from_millis(now.0.saturating_sub(at.0)))
}

/// A moment of the past as its age at `now`, or exactly if `utc` is asked for.
pub(super) fn moment(at: WallTime, now: WallTime, utc: bool) -> String {
    if utc { at.to_string() } else { format!("{} ago", age_at(at, now)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rows: &[[&str; 3]], width: u16) -> Vec<String> {
        let mut table = table(["NAME", "STATE", "WORDS"], true);
        table.add_rows(rows);
        table.set_width(width);
        table_text(table, true).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_table_fits_its_terminal_and_breaks_no_word() {
        let words = "some words that say what the node is doing, one after the other";
        let rows = [["127.0.0.1:22101", "COMMITTED", words], ["b", "away for 3 min", "2e3b90c7"]];
        for width in [60, 80, 100, 120] {
            let lines = lines(&rows, width);
            assert!(lines.iter().all(|it| it.width() <= width.into()), "{width}\n{lines:#?}");
            let text = lines.join("\n");
            for word in words.split(' ').chain(["127.0.0.1:22101", "COMMITTED", "2e3b90c7"]) {
                assert!(text.contains(word), "{word} at {width}\n{text}");
            }
        }
        assert!(lines(&rows, 200)[3].contains(words));
        // Without room for the words and a frame, there is no frame.
        let long = "x".repeat(32);
        let lines = lines(&[["127.0.0.1:22101", &long, "a b"]], 60);
        assert!(lines.iter().any(|it| it.contains(&long)) && !lines[0].contains('┌'), "{lines:#?}");
    }

    #[test]
    fn a_text_is_wrapped_below_its_beginning() {
        let rows = [("state", "one two three".to_owned()), ("up", "4 s".to_owned())];
        assert_eq!(rows_text(&rows, Some(15)), "state  one two\n       three\nup     4 s\n");
        assert_eq!(rows_text(&rows, None), "state  one two three\nup     4 s\n");
    }

    #[test]
    fn lines_are_broken_between_words_and_keep_their_indentation() {
        let text = "head\n  one two three\n\nend\n";
        assert_eq!(wrap_lines(text, 9), "head\n  one two\n  three\n\nend\n");
        assert_eq!(wrap_lines(text, 80), text);
        assert_eq!(wrap_lines("    a long-word", 3), "    a\n    long-word\n");
    }

    #[test]
    fn an_age_has_one_unit_and_no_moment_is_to_come() {
        let ages =
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 days")];
        for (seconds, text) in ages {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        let (at, now) = (WallTime(60_000), WallTime(70_500));
        assert_eq!(moment(at, now, false), "10 s ago");
        assert_eq!(moment(now, at, false), "0 s ago");
        assert_eq!(moment(at, now, true), "1970-01-01T00:01:00.000Z");
        assert_eq!(lasting(at, now, false), "for 10 s");
    }
}
