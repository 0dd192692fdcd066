//! Visible part of the timeline: lines are wrapped, and the place stays while others come.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

use crate::cli::chat::model::{ChatLine, ChatModel};

/// Indentation of the further rows of one line, in columns.
const INDENT: usize = 2;

/// Bottom of the visible part.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cli::chat) struct Scroll {
    /// Line at the bottom and number of its hidden rows; `None` while it follows the end.
    bottom: Option<(u64, usize)>,
    /// First line that came since it was scrolled up.
    unread: Option<u64>,
    /// Columns and rows, as they were drawn last.
    size: (usize, usize),
}

/// One row of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Number of the line that it belongs to.
    pub(super) item: u64,
    /// True if it is the first of its line.
    pub(super) is_first: bool,
    /// True if it is the last of its line.
    pub(super) is_last: bool,
    /// Text of the row, without the indentation.
    pub(super) text: String,
}

impl Scroll {
    /// Sets the size of the timeline.
    pub(super) const fn resize(&mut self, columns: usize, rows: usize) {
        self.size = (columns, rows);
    }

    /// Goes back by most of a page.
    pub(super) fn page_up(&mut self, model: &ChatModel) {
        self.up(model, self.size.1.saturating_sub(1).max(1));
    }

    /// Goes on by most of a page.
    pub(super) fn page_down(&mut self, model: &ChatModel) {
        self.down(model, self.size.1.saturating_sub(1).max(1));
    }

    /// Goes to the end, and stays there.
    pub(in crate::cli::chat) const fn follow(&mut self) {
        (self.bottom, self.unread) = (None, None);
    }

    /// First line that came since it was scrolled up; those that were paged down to stay marked
    /// until the next key that goes to the end.
    pub(super) const fn unread_from(&self) -> Option<u64> {
        self.unread
    }

    /// Number of lines after the visible part that came since it was scrolled up.
    pub(super) fn unread(&self, model: &ChatModel) -> usize {
        let (Some((at, _)), Some(unread)) = (self.bottom, self.unread) else { return 0 };
        (unread.max(at + 1)..model.span().1).filter(|it| is_shown(model, *it)).count()
    }

    /// Number of lines after the visible part; `None` while it follows the end.
    pub(super) fn newer(&self, model: &ChatModel) -> Option<usize> {
        let (at, _) = self.bottom?;
        Some((at + 1..model.span().1).filter(|it| is_shown(model, *it)).count())
    }

    /// Visible rows, the oldest first.
    pub(super) fn rows(&mut self, model: &ChatModel) -> Vec<Row> {
        if let Some((at, _)) = self.bottom
            && at < model.span().0
        {
            self.bottom = Some((model.span().0, 0));
        }
        let (columns, height) = self.size;
        let mut rows = Vec::new();
        let (mut at, mut hidden) = match self.bottom {
            Some(bottom) => bottom,
            None => match before(model, model.span().1) {
                Some(at) => (at, 0),
                None => return rows,
            },
        };
        loop {
            let mut these = rows_of(model, at, columns);
            these.truncate(these.len().saturating_sub(hidden));
            rows.extend(these.into_iter().rev().take(height - rows.len()));
            match before(model, at) {
                Some(previous) if rows.len() < height => (at, hidden) = (previous, 0),
                _ => break,
            }
        }
        rows.reverse();
        rows
    }

    fn up(&mut self, model: &ChatModel, rows: usize) {
        let Some(end) = before(model, model.span().1) else { return };
        if self.bottom.is_none() {
            self.unread = Some(model.span().1);
        }
        let (mut at, mut hidden) = self.bottom.unwrap_or((end, 0));
        for _ in 0..rows {
            if hidden + 1 < rows_of(model, at, self.size.0).len() {
                hidden += 1;
            } else if let Some(previous) = before(model, at) {
                (at, hidden) = (previous, 0);
            } else {
                break;
            }
        }
        self.bottom = Some((at, hidden));
        // Never past the beginning: the page stays full.
        let seen = self.rows(model).len();
        self.down(model, self.size.1.saturating_sub(seen));
    }

    fn down(&mut self, model: &ChatModel, rows: usize) {
        let Some((mut at, mut hidden)) = self.bottom else { return };
        for _ in 0..rows {
            if hidden > 0 {
                hidden -= 1;
            } else if let Some(next) = after(model, at) {
                hidden = rows_of(model, next, self.size.0).len().saturating_sub(1);
                at = next;
            } else {
                break;
            }
        }
        let is_end = hidden == 0 && after(model, at).is_none();
        self.bottom = (!is_end).then_some((at, hidden));
    }
}

fn is_shown(model: &ChatModel, at: u64) -> bool {
    model.item(at).is_some_and(|it| model.is_shown(it))
}

fn before(model: &ChatModel, at: u64) -> Option<u64> {
    (model.span().0..at).rev().find(|it| is_shown(model, *it))
}

fn after(model: &ChatModel, at: u64) -> Option<u64> {
    (at + 1..model.span().1).find(|it| is_shown(model, *it))
}

fn rows_of(model: &ChatModel, at: u64, columns: usize) -> Vec<Row> {
    let Some(item) = model.item(at) else { return Vec::new() };
    // Room for the tick of an own message.
    let spare = if matches!(item, ChatLine::Said { is_mine: true, .. }) { 2 } else { 0 };
    let texts = wrap(&item.line(), columns.saturating_sub(spare), INDENT);
    let last = texts.len() - 1;
    let rows = texts.into_iter().enumerate();
    rows.map(|(number, text)| Row {
        item: at,
        is_first: number == 0,
        is_last: number == last,
        text,
    })
    .collect()
}

/// Wraps `text` in rows of at most `columns`, the further ones shorter by `indent`; at least one
/// row.
pub(super) fn wrap(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let columns = columns.max(indent + 2);
    let mut rows = vec![String::new()];
    let mut width = 0;
    for part in text.graphemes(true) {
        let most = if rows.len() == 1 { columns } else { columns - indent };
        let row = rows.last_mut().expect("there is one row from the beginning");
        if width + part.width() <= most {
            row.push_str(part);
            width += part.width();
            continue;
        }
        // At a blank in the second half of the row, else within the word.
        let blank = row.rfind(' ').filter(|at| *at > row.len() / 2);
        let rest = blank.map_or(String::new(), |at| row.split_off(at + 1));
        let next = if part == " " && rest.is_empty() { String::new() } else { rest + part };
        width = next.width();
        rows.push(next);
    }
    rows
}
