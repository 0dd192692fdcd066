//! Tickets as they are typed: the ticket itself, or the name of a file that holds one.
//!
//! People paste tickets out of mails, chats and web pages: with quotes, broken into lines, cited,
//! with marks of an encoding in front. Text around a ticket is left out; the ticket itself is then
//! read by its one spelling.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::cli::CliError;
use crate::cli::config::ConfigError;
use crate::model::{TICKET_BYTES_MAX, Ticket};

/// Prefix of every ticket.
const OPENING: &str = "folkmoot:";

/// Largest number of bytes that are read of a file with a ticket: a mail may be around it.
const FILE_BYTES_MAX: u64 = 8 * TICKET_BYTES_MAX as u64;

/// Largest number of lines that a ticket may be broken into.
const LINES_MAX: usize = 256;

/// True if a ticket was typed, or the name of a file that holds text like one.
pub(super) fn is_typed(typed: &str) -> bool {
    let is_file = || has_opening(&text_of(Path::new(typed.trim())).ok()?).then_some(());
    has_opening(typed) || is_file().is_some()
}

/// Returns the ticket that was typed, or that is in the named file.
///
/// # Errors
/// Fails if it is none.
pub(super) fn read(typed: &str) -> Result<Ticket, CliError> {
    if has_opening(typed) {
        return find(typed).map_err(CliError::Usage);
    }
    let path = Path::new(typed.trim());
    let fault = |reason: String| ConfigError { file: path.into(), line: None, reason };
    let text = text_of(path).map_err(|error| {
        let remedy = "type a ticket, which begins with folkmoot:, or the name of a file with one";
        fault(format!("cannot be opened ({error}); {remedy}"))
    })?;
    if text.trim().is_empty() {
        return Err(fault("is empty; it should hold a ticket".to_owned()).into());
    }
    Ok(find(&text).map_err(|error| fault(format!("holds no ticket: {error}")))?)
}

/// Text of a file in UTF-8 or UTF-16.
fn text_of(path: &Path) -> std::io::Result<String> {
    // Reading a named pipe would wait until a program writes into it.
    if std::fs::metadata(path)?.file_type().is_fifo() && !path.starts_with("/dev") {
        return Err(std::io::Error::other("it is a pipe"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let wide = |read: fn([u8; 2]) -> u16| {
        let units: Vec<_> = bytes.as_chunks().0.iter().map(|it| read(*it)).collect();
        String::from_utf16_lossy(&units)
    };
    Ok(match bytes.first_chunk() {
        Some([0xff, 0xfe]) => wide(u16::from_le_bytes),
        Some([0xfe, 0xff]) => wide(u16::from_be_bytes),
        Some(_) | None => String::from_utf8_lossy(&bytes).into_owned(),
    })
}

fn opening(text: &str) -> Option<usize> {
    let is_it = |at: &usize| {
        let end = at + OPENING.len();
        text.as_bytes().get(*at..end).is_some_and(|it| it.eq_ignore_ascii_case(OPENING.as_bytes()))
    };
    (0..text.len()).find(is_it)
}

fn has_opening(text: &str) -> bool {
    opening(text).is_some()
}

/// The ticket within a text.
fn find(text: &str) -> Result<Ticket, String> {
    let text = text.replace("=\r\n", "").replace("=\n", "").replace("&amp;", "&");
    let Some(start) = opening(&text) else { return text.parse().map_err(|it| format!("{it}")) };
    let mut found = String::new();
    // Tries all numbers of lines that may belong to it; the longest that is a ticket is it.
    let mut ends = Vec::new();
    for line in text[start..].lines().take(LINES_MAX) {
        let line = line.trim_start_matches(['>', ' ', '\t']).trim_end();
        let (part, is_cut) = part_of(line, found.is_empty());
        found.push_str(&part);
        ends.push(found.len());
        if is_cut || part.is_empty() {
            break;
        }
    }
    let tries = ends.iter().rev().map(|end| &found[..*end]);
    let tries = tries.flat_map(|it| [it, it.trim_end_matches(['.', ',', ';', ':', '!', ')', ']'])]);
    let parsed = tries.map(|it| it.parse::<Ticket>());
    let mut first = None;
    for ticket in parsed {
        match ticket {
            Ok(ticket) => return Ok(ticket),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.map_or_else(|| "it is none".to_owned(), |error| error.to_string()))
}

/// Part of a line that belongs to a ticket, and whether text follows that does not.
fn part_of(line: &str, is_first: bool) -> (String, bool) {
    let mut line = line.to_owned();
    if is_first {
        let rest = line.split_off(OPENING.len());
        line = OPENING.to_owned() + rest.trim_start_matches('/');
        // A blank in the name, written as web pages and people do.
        if let (Some(from), Some(to)) = (line.find("name="), line.find("&size="))
            && from < to
        {
            let name = line[from..to].replace(['+', ' '], "%20");
            line.replace_range(from..to, &name);
        }
    }
    let is_part = |it: char| it.is_ascii_alphanumeric() || "-._~%&=?:,[]".contains(it);
    let end = line.find(|it| !is_part(it)).unwrap_or(line.len());
    (line[..end].to_owned(), end < line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> String {
        let root = "ab".repeat(32);
        format!("folkmoot:share?name=a%20b.txt&size=6&piece=262144&root={root}&at=127.0.0.1:6001")
    }

    #[test]
    fn a_ticket_survives_what_people_and_programs_put_around_it() {
        let plain = ticket();
        let broken = |between: &str| {
            let lines: Vec<_> = plain.as_bytes().chunks(70).collect();
            let lines: Vec<_> =
                lines.into_iter().map(|it| std::str::from_utf8(it).unwrap()).collect();
            lines.join(between)
        };
        let ways = [
            plain.clone(),
            format!("  {plain}  \n"),
            format!("{plain}\r\n"),
            format!("\u{feff}{plain}\n"),
            format!("\"{plain}\""),
            format!("'{plain}'"),
            format!("<{plain}>"),
            format!("`{plain}`"),
            format!("\u{201c}{plain}\u{201d}"),
            format!("{plain}."),
            format!("See ({plain}), please"),
            format!("Here is the ticket:\n\n{plain}\n\nRegards\n"),
            format!("{plain}\nRegards\n"),
            broken("\n"),
            broken("\r\n"),
            broken("=\n"),
            format!("> {}", broken("\n> ")),
            plain.replace('&', "&amp;"),
            plain.replace("%20", "+"),
            plain.replace("%20", " "),
            plain.replace("folkmoot", "FOLKMOOT"),
            plain.replace("folkmoot:", "folkmoot://"),
        ];
        for text in ways {
            let found = find(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.to_string(), plain, "{text}");
        }
        let wide: Vec<u8> =
            format!("\u{feff}{plain}\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ticket");
        std::fs::write(&file, wide).unwrap();
        let typed = file.to_str().unwrap();
        assert!(is_typed(typed));
        assert_eq!(read(typed).unwrap().to_string(), plain);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_ticket() {
        for text in
            [&ticket()[..60], "folkmoot:share?name=a", &ticket().replace("ab", "xy"), "folkmoot:"]
        {
            assert!(find(text).is_err(), "{text}");
        }
    }
}
