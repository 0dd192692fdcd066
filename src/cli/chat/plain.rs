//! Plain lines: for scripts, and for terminals that cannot or shall not show a screen.
//!
//! Invariant: every line but the prompt begins in the first column and ends with its newline. The
//! prompt stands alone on its line; it is printed at the start and after each answer.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use super::model::{ChatLine, item_of};
use crate::proto::chat::entry::{Body, Entry, MemberId};

/// The output, and the state of its last line.
pub(super) struct PlainOutput<W> {
    out: W,
    prompt: String,
    /// True if the prompt is the last that was written.
    is_prompted: bool,
    /// True if only answers are written.
    is_quiet: bool,
    /// True if a person's newline ends the prompt's line.
    is_echoed: bool,
}

impl PlainOutput<io::Stdout> {
    /// Lines on standard output.
    pub(super) fn stdout(prompt: String, is_quiet: bool) -> Self {
        let is_echoed = io::stdin().is_terminal() && io::stdout().is_terminal();
        Self { is_quiet, ..Self::new(io::stdout(), prompt, is_echoed) }
    }
}

impl<W: Write> PlainOutput<W> {
    fn new(out: W, prompt: String, is_echoed: bool) -> Self {
        Self { out, prompt, is_prompted: false, is_quiet: false, is_echoed }
    }

    /// Writes the prompt, unless it is there.
    ///
    /// # Errors
    /// Fails if the output has gone; so below.
    pub(super) fn ask(&mut self) -> io::Result<()> {
        if !self.is_prompted {
            self.out.write_all(self.prompt.as_bytes())?;
            self.out.flush()?;
            self.is_prompted = true;
        }
        Ok(())
    }

    /// Notes that a line was typed.
    pub(super) const fn was_typed(&mut self) {
        if self.is_echoed {
            self.is_prompted = false;
        }
    }

    /// Shows items that were not asked for. A person who looks at the prompt gets it again.
    pub(super) fn show(&mut self, items: &[ChatLine]) -> io::Result<()> {
        if self.is_quiet {
            return Ok(());
        }
        let was_prompted = self.is_prompted;
        let lines: Vec<_> = items.iter().map(ChatLine::line).collect();
        self.answer(&lines)?;
        if was_prompted && self.is_echoed { self.ask() } else { Ok(()) }
    }

    /// Writes the lines of an answer.
    pub(super) fn answer(&mut self, lines: &[String]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        if std::mem::take(&mut self.is_prompted) {
            text.push('\n');
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Ends the prompt's line, if there is one.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_prompted) {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }
}

/// The messages among entries, as lines.
pub(super) fn lines_of(entries: &[Arc<Entry>], me: MemberId) -> Vec<String> {
    let line = |entry: &Arc<Entry>| match &entry.body {
        Body::Chat(chat) => Some(item_of(entry, chat, me).line()),
        Body::Opening | Body::Membership(_) => None,
    };
    entries.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(is_echoed: bool) -> PlainOutput<Vec<u8>> {
        PlainOutput::new(Vec::new(), "peer_1> ".into(), is_echoed)
    }

    fn note(text: &str) -> ChatLine {
        ChatLine::Note(text.into())
    }

    #[test]
    fn every_line_of_a_script_begins_in_the_first_column() {
        let mut plain = plain(false);
        plain.ask().unwrap();
        plain.show(&[note("one"), note("two")]).unwrap();
        plain.was_typed();
        plain.ask().unwrap();
        plain.ask().unwrap();
        plain.answer(&["Role: LEADER".into()]).unwrap();
        plain.ask().unwrap();
        plain.show(&[]).unwrap();
        plain.end().unwrap();
        plain.end().unwrap();
        let text = String::from_utf8(plain.out).unwrap();
        assert_eq!(text, "peer_1> \n* one\n* two\npeer_1> \nRole: LEADER\npeer_1> \n");
    }

    #[test]
    fn a_person_gets_the_prompt_again() {
        let mut plain = plain(true);
        plain.ask().unwrap();
        plain.show(&[note("one")]).unwrap();
        plain.was_typed();
        plain.show(&[note("two")]).unwrap();
        plain.ask().unwrap();
        let text = String::from_utf8(plain.out).unwrap();
        assert_eq!(text, "peer_1> \n* one\npeer_1> * two\npeer_1> ");
    }
}
