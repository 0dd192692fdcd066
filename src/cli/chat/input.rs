//! The line that is being typed: its cursor, and the lines typed before.
//!
//! The cursor stands between what a reader takes for characters (grapheme clusters), never within
//! one. Pure: keys are read elsewhere.

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation as _};
use unicode_width::UnicodeWidthStr as _;

/// Largest number of lines that are remembered.
const HISTORY_MAX: usize = 500;

/// The present line, and those before it.
#[derive(Clone, Debug, Default)]
pub(super) struct InputLine {
    text: String,
    /// Position of the cursor, in bytes.
    cursor: usize,
    /// Earlier lines, the oldest first.
    history: Vec<String>,
    /// Index of the earlier line that is shown, if one is.
    at: Option<usize>,
    /// Text that was typed before an older line was asked for.
    draft: String,
}

impl InputLine {
    /// Text of the line.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Number of columns before the cursor.
    pub(super) fn column(&self) -> usize {
        self.text[..self.cursor].width()
    }

    /// Takes the line away, and remembers it.
    pub(super) fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.text);
        self.cursor = 0;
        self.at = None;
        self.draft.clear();
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() == HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        line
    }

    /// Puts `text` before the cursor. An end of a line (LF, CR LF, or CR, as terminals send it)
    /// becomes a blank; other control characters are left out.
    pub(super) fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n");
        let clean = text.chars().filter_map(|c| match c {
            '\n' | '\r' | '\t' => Some(' '),
            c if c.is_control() => None,
            c => Some(c),
        });
        let clean: String = clean.collect();
        self.text.insert_str(self.cursor, &clean);
        self.cursor += clean.len();
        // Joined with what follows, it may be one character now.
        while !self.is_boundary(self.cursor) {
            self.cursor += 1;
        }
    }

    /// Looks around `at` only: keys come one by one, and a line of them must not cost its square.
    fn is_boundary(&self, at: usize) -> bool {
        let (text, len) = (self.text.as_str(), self.text.len());
        // The whole text is given, so that the cursor never asks for more of it.
        at >= len
            || text.is_char_boundary(at)
                && GraphemeCursor::new(at, len, true).is_boundary(text, 0).unwrap_or(true)
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        let next = self.text[self.cursor..].graphemes(true).next();
        self.cursor + next.map_or(0, str::len)
    }

    /// Offset at which the word before the cursor begins.
    fn word_before(&self) -> usize {
        let head = self.text[..self.cursor].trim_end();
        head.rfind(char::is_whitespace)
            .map_or(0, |at| at + head[at..].chars().next().map_or(0, char::len_utf8))
    }

    /// Moves the cursor one character back.
    pub(super) fn left(&mut self) {
        self.cursor = self.before();
    }

    /// Moves the cursor one character on.
    pub(super) fn right(&mut self) {
        self.cursor = self.after();
    }

    /// Moves the cursor to the beginning.
    pub(super) const fn home(&mut self) {
        self.cursor = 0;
    }

    /// Moves the cursor to the end.
    pub(super) const fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Removes the character before the cursor.
    pub(super) fn backspace(&mut self) {
        self.cut(self.before());
    }

    /// Removes the character at the cursor.
    pub(super) fn delete(&mut self) {
        let end = self.after();
        self.text.replace_range(self.cursor..end, "");
    }

    /// Removes the word before the cursor.
    pub(super) fn erase_word(&mut self) {
        self.cut(self.word_before());
    }

    /// Removes everything before the cursor.
    pub(super) fn erase_head(&mut self) {
        self.cut(0);
    }

    /// Removes everything from the cursor on.
    pub(super) fn erase_tail(&mut self) {
        self.text.truncate(self.cursor);
    }

    fn cut(&mut self, from: usize) {
        self.text.replace_range(from..self.cursor, "");
        self.cursor = from;
    }

    /// Shows an older line.
    pub(super) fn older(&mut self) {
        let at = match self.at {
            Some(0) => return,
            Some(at) => at - 1,
            None if self.history.is_empty() => return,
            None => {
                self.draft.clone_from(&self.text);
                self.history.len() - 1
            }
        };
        self.show(Some(at));
    }

    /// Shows a newer line, at last the one that was being typed.
    pub(super) fn newer(&mut self) {
        if let Some(at) = self.at {
            self.show((at + 1 < self.history.len()).then_some(at + 1));
        }
    }

    fn show(&mut self, at: Option<usize>) {
        self.text = at.map_or_else(|| self.draft.clone(), |at| self.history[at].clone());
        self.at = at;
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> InputLine {
        let mut input = InputLine::default();
        input.insert(text);
        input
    }

    #[test]
    fn the_cursor_moves_by_what_a_reader_takes_for_a_character() {
        // An e with a combining accent, a wide character, a family of three joined.
        let mut input = typed("e\u{301}漢👨\u{200d}👩\u{200d}👧");
        assert_eq!(input.column(), 5);
        input.left();
        assert_eq!(input.column(), 3);
        input.left();
        assert_eq!(input.column(), 1);
        input.insert("x");
        assert_eq!(input.text(), "e\u{301}x漢👨\u{200d}👩\u{200d}👧");
        input.delete();
        input.delete();
        input.delete();
        assert_eq!(input.text(), "e\u{301}x");
        input.backspace();
        input.backspace();
        assert_eq!((input.text(), input.column()), ("", 0));
        input.backspace();
        input.left();
        input.right();
        assert_eq!(input.text(), "");
    }

    #[test]
    fn a_mark_that_joins_the_character_before_the_cursor_leaves_the_cursor_behind_it() {
        let mut input = typed("ab");
        input.left();
        input.insert("\u{301}");
        input.insert("c");
        assert_eq!(input.text(), "a\u{301}cb");
    }

    #[test]
    fn words_and_ends_can_be_erased() {
        let mut input = typed("one two  three");
        input.erase_word();
        assert_eq!(input.text(), "one two  ");
        input.erase_word();
        assert_eq!(input.text(), "one ");
        input.home();
        input.right();
        input.erase_tail();
        assert_eq!(input.text(), "o");
        input.insert("k");
        input.erase_head();
        assert_eq!((input.text(), input.column()), ("", 0));
    }

    #[test]
    fn older_lines_come_back_and_what_was_being_typed_too() {
        let mut input = InputLine::default();
        for line in ["one", "two", "two", " "] {
            input.insert(line);
            assert_eq!(input.take(), line);
        }
        input.insert("draft");
        let mut seen = Vec::new();
        for _ in 0..3 {
            input.older();
            seen.push(input.text().to_owned());
        }
        assert_eq!(seen, ["two", "one", "one"]);
        input.newer();
        assert_eq!(input.text(), "two");
        input.newer();
        assert_eq!((input.text(), input.column()), ("draft", 5));
        input.newer();
        assert_eq!(input.text(), "draft");
    }

    #[test]
    fn pasted_lines_become_one_and_nothing_steers_the_terminal() {
        assert_eq!(typed("a\nb\tc\x1b[2J\u{7f}").text(), "a b c[2J");
        assert_eq!(typed("first\rsecond\r\nthird\n\rfourth").text(), "first second third  fourth");
    }
}
