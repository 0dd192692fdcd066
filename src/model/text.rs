//! Texts from outside, made fit for a line of the log or a terminal.

use std::fmt::Write as _;

/// Longest part of a foreign text that goes into a line, in characters.
const FOREIGN_MAX: usize = 400;

/// True if a character could end a line, move the cursor or turn the reading direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` with all characters escaped that could end a line or steer a terminal.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// As [`escape`], for a JSON text, in which the writer has escaped what JSON demands and no more.
pub fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A bounded copy of a text from another node.
pub fn foreign(text: &str) -> String {
    match text.char_indices().nth(FOREIGN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_is_cut_to_a_modest_length() {
        assert_eq!(foreign("short"), "short");
        assert_eq!(foreign(&"é".repeat(9_000)).chars().count(), FOREIGN_MAX + 1);
    }
}
