//! Typed lines on their way to the session: an order that cannot be undone is asked back, and texts
//! that were not taken are counted, so that a script learns it by the exit code.

use std::io::{self, BufRead, Read as _};
use std::str;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::command::{self, TypedLine};
use super::model::ChatModel;
use super::session::{LineResult, Session};
use crate::proto::chat::entry::MemberId;
use crate::runtime::thread;

/// Largest number of waiting lines of input.
const LINES_MAX: usize = 64;

/// Longest line of input in bytes; the rest of a longer one is not looked at.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A line of input, or the reason why it is none.
pub(super) type ReadLine = Result<String, String>;

/// State of the lines typed before.
#[derive(Debug, Default)]
pub(super) struct Typing {
    /// The member that the line before asked to remove.
    doubtful: Option<MemberId>,
    /// Number of texts that were not taken.
    refused: usize,
}

/// The meaning of a line after a question.
#[derive(Debug, PartialEq, Eq)]
enum RepeatReply {
    /// Remove this member.
    Remove(MemberId),
    /// Ask back first, whether this member is to be removed.
    Ask(MemberId),
    /// Do not remove this member; the line said no more than that.
    Keep(MemberId),
    /// Do not remove this member; the line goes its own way.
    KeepAndTake(MemberId),
    /// The line goes its own way.
    Take,
}

impl Typing {
    /// The number of texts that were not taken so far.
    pub(super) const fn refused(&self) -> usize {
        self.refused
    }

    /// Takes a line of input.
    pub(super) fn line(
        &mut self,
        session: &mut Session,
        model: &mut ChatModel,
        line: &ReadLine,
    ) -> LineResult {
        let line = match line {
            Ok(line) => line,
            Err(reason) => {
                self.doubtful = None;
                self.refused += 1;
                return said(reason.clone());
            }
        };
        match self.reply(line) {
            RepeatReply::Ask(id) if session.can_remove(id) => said(question(id)),
            RepeatReply::Ask(_) => {
                self.doubtful = None;
                self.pass(session, model, line)
            }
            RepeatReply::Keep(id) => said(kept(id)),
            RepeatReply::Remove(id) => session.typed(model, &format!("/remove {}", id.0)),
            RepeatReply::KeepAndTake(id) => {
                let mut answer = self.pass(session, model, line);
                answer.lines.insert(0, kept(id));
                answer
            }
            RepeatReply::Take => self.pass(session, model, line),
        }
    }

    fn pass(&mut self, session: &mut Session, model: &mut ChatModel, line: &str) -> LineResult {
        let answer = session.typed(model, line);
        // A text that is taken is not answered. A wrong command loses nothing.
        let is_text = !line.starts_with('/') || line.starts_with("//");
        self.refused += usize::from(is_text && !answer.lines.is_empty());
        answer
    }

    fn reply(&mut self, line: &str) -> RepeatReply {
        let word = line.trim();
        match (self.doubtful.take(), command::parse(line, usize::MAX)) {
            (_, TypedLine::Remove(id)) => {
                self.doubtful = Some(id);
                RepeatReply::Ask(id)
            }
            (None, _) => RepeatReply::Take,
            (Some(id), _) if word.eq_ignore_ascii_case(&format!("yes {id}")) => {
                RepeatReply::Remove(id)
            }
            (Some(id), TypedLine::Nothing) => RepeatReply::Keep(id),
            (Some(id), _) if ["n", "no"].iter().any(|no| word.eq_ignore_ascii_case(no)) => {
                RepeatReply::Keep(id)
            }
            (Some(id), _) => RepeatReply::KeepAndTake(id),
        }
    }
}

fn said(text: String) -> LineResult {
    LineResult { lines: vec![text], is_over: false }
}

/// The answer names the member once more: a lone "yes" may be the next line of a pasted text.
fn question(id: MemberId) -> String {
    format!(
        "{id} would be out for good, also after a restart; to remove it, type: yes {id}; else: no"
    )
}

fn kept(id: MemberId) -> String {
    format!("{id} is not removed")
}

/// The lines of standard input, as they come; the channel ends with it.
pub(super) fn lines() -> io::Result<Receiver<ReadLine>> {
    let (tell, typed) = bounded(LINES_MAX);
    thread::spawn("stdin", move || read(&mut io::stdin().lock(), &tell))?;
    Ok(typed)
}

fn read(input: &mut impl BufRead, tell: &Sender<ReadLine>) {
    let mut line = Vec::new();
    let mut is_rest = false;
    let mut number: u64 = 1;
    loop {
        line.clear();
        match input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let is_whole = line.ends_with(b"\n");
        if !is_rest && tell.send(text(number, &line)).is_err() {
            return;
        }
        number += u64::from(is_whole);
        // Text without a newline belongs to a line that is too long in any case.
        is_rest = !is_whole;
    }
}

/// A line as a text. Bytes that are none are refused: a text that was changed to be one would be
/// final, and wrong for ever.
fn text(number: u64, line: &[u8]) -> ReadLine {
    match str::from_utf8(line) {
        Ok(text) => Ok(text.to_owned()),
        // Cut within a character; it is too long for a message in any case.
        Err(error) if line.len() as u64 == LINE_BYTES_MAX && error.error_len().is_none() => {
            Ok(String::from_utf8_lossy(line).into_owned())
        }
        Err(error) => {
            let at = error.valid_up_to();
            Err(format!(
                "not sent: line {number} is not UTF-8 (its byte {} is 0x{:02x}); convert it first, \
                 for example with iconv -f LATIN1 -t UTF-8",
                at + 1,
                line[at]
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: MemberId = MemberId(3);

    fn replies(lines: &[&str]) -> Vec<RepeatReply> {
        let mut typing = Typing::default();
        lines.iter().map(|line| typing.reply(line)).collect()
    }

    #[test]
    fn a_removal_is_asked_back_and_only_its_own_answer_on_the_next_line_removes() {
        assert_eq!(
            replies(&["/remove 3", "yes peer_3\n", "yes peer_3"]),
            [RepeatReply::Ask(THREE), RepeatReply::Remove(THREE), RepeatReply::Take]
        );
        let pasted = ["see the manual:", "/remove 3", "and so on", "yes peer_3"];
        let expected = [
            RepeatReply::Take,
            RepeatReply::Ask(THREE),
            RepeatReply::KeepAndTake(THREE),
            RepeatReply::Take,
        ];
        assert_eq!(replies(&pasted), expected);
        for no in ["no", "n", "N\n", "", "NO \n"] {
            assert_eq!(
                replies(&["/remove 3", no]),
                [RepeatReply::Ask(THREE), RepeatReply::Keep(THREE)]
            );
        }
        for other in ["yes", "y", "yes peer_2", "/status"] {
            let expected = [RepeatReply::Ask(THREE), RepeatReply::KeepAndTake(THREE)];
            assert_eq!(replies(&["/remove peer_3", other]), expected, "{other}");
        }
        let twice = [
            RepeatReply::Ask(THREE),
            RepeatReply::Ask(MemberId(2)),
            RepeatReply::KeepAndTake(MemberId(2)),
        ];
        assert_eq!(replies(&["/remove 3", "/remove 2", "yes peer_3"]), twice);
    }

    #[test]
    fn a_line_that_is_no_text_is_refused_by_its_number_and_the_next_one_is_read() {
        let (tell, read_lines) = bounded(LINES_MAX);
        read(&mut &b"one\ncaf\xe9\n\xc3\xa9\n\xc3"[..], &tell);
        drop(tell);
        let lines: Vec<_> = read_lines.iter().collect();
        assert_eq!(
            (lines.len(), &lines[0], &lines[2]),
            (4, &Ok("one\n".into()), &Ok("é\n".into()))
        );
        let reason = |at: usize| lines[at].clone().unwrap_err();
        assert!(reason(1).contains("line 2 is not UTF-8 (its byte 4 is 0xe9)"), "{}", reason(1));
        assert!(
            reason(3).contains("line 4 is not UTF-8"),
            "a character that is cut: {}",
            reason(3)
        );
    }

    #[test]
    fn a_line_without_end_is_one_line() {
        let (tell, read_lines) = bounded(LINES_MAX);
        let mut input = vec![b'x'; LINE_BYTES_MAX as usize * 2 + 9];
        input.extend(b"\nnext\n\xff\n");
        read(&mut &input[..], &tell);
        drop(tell);
        let lines: Vec<_> = read_lines.iter().collect();
        assert_eq!((lines.len(), &lines[1]), (3, &Ok("next\n".into())));
        assert!(lines[2].as_ref().is_err_and(|it| it.contains("line 3")), "{:?}", lines[2]);
    }
}
