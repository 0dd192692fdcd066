//! State of the screen: which pane, which row, which order; and the effects of keys. Pure.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::TopModel;
use super::panes::{PANES, Pane, PaneRow, PaneTable, details, table};
use crate::model::{Endpoint, WallTime};

/// Largest number of characters of a filter.
const FILTER_MAX: usize = 64;

/// Action that a key asks for beyond the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopAction {
    /// Draw the changes only.
    Nothing,
    /// Draw everything anew.
    Redraw,
    /// Fetch the proofs about an endpoint.
    Explain(Endpoint),
    /// Give the terminal back and stop until the shell goes on with this program.
    Stop,
    /// End the view.
    Quit,
}

/// State of one pane.
#[derive(Clone, Debug, Default)]
pub(super) struct PaneView {
    /// Key of the selected row; the first row if there is none.
    selected: Option<String>,
    /// Number of rows above the visible ones.
    pub(super) offset: usize,
    /// Column by which the rows are sorted, if not in their usual order.
    pub(super) sort: Option<usize>,
    /// True if the order is turned round.
    pub(super) is_reversed: bool,
    /// Text that each shown row has.
    pub(super) filter: String,
}

/// A text over the whole pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Details {
    /// First line of it.
    pub(super) title: String,
    /// Text, once it is there.
    pub(super) text: Option<String>,
    /// Endpoint whose proofs are waited for.
    endpoint: Option<Endpoint>,
    /// Number of lines above the visible ones.
    pub(super) offset: usize,
}

/// Matter to which the keys belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// The rows of a pane.
    #[default]
    Rows,
    /// A filter that is being typed.
    Filter,
    /// The list of keys.
    Help,
    /// Details of a row.
    Details(Details),
}

/// State of the screen beside the model that it shows.
#[derive(Clone, Debug)]
pub(super) struct TopScreen {
    /// Pane to which the keys belong.
    pub(super) pane: Pane,
    /// State of each pane.
    views: [PaneView; PANES],
    /// Matter to which the keys belong.
    pub(super) mode: Mode,
    /// True if there are colors.
    pub(super) has_color: bool,
    /// Number of rows that the pane, or the text over it, had room for when it was drawn last.
    pub(super) page: usize,
}

impl TopScreen {
    /// A screen that begins with pane number `pane`, counted from 1.
    pub(super) fn new(pane: u8, has_color: bool) -> Self {
        let pane = Pane::ALL[usize::from(pane.saturating_sub(1)).min(PANES - 1)];
        Self { pane, views: Default::default(), mode: Mode::Rows, has_color, page: 1 }
    }

    /// State of a pane.
    pub(super) const fn view(&self, pane: Pane) -> &PaneView {
        &self.views[pane as usize]
    }

    /// State of a pane, to be changed.
    pub(super) const fn view_mut(&mut self, pane: Pane) -> &mut PaneView {
        &mut self.views[pane as usize]
    }

    /// The content of a pane as it is searched and sorted, and the index of the selected row.
    pub(super) fn shown(
        &self,
        pane: Pane,
        (model, now): (&TopModel, WallTime),
        columns: usize,
    ) -> (PaneTable, usize) {
        let (view, mut table) = (self.view(pane), table(pane, model, now, columns));
        let filter = view.filter.to_lowercase();
        let has_it =
            |row: &PaneRow| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter));
        table.rows.retain(|row| filter.is_empty() || has_it(row));
        if let Some(column) = view.sort {
            table.rows.sort_by(|one, other| {
                let rank = |row: &PaneRow| row.cells.get(column).map(|cell| cell.rank.clone());
                rank(one).cmp(&rank(other))
            });
        }
        if view.is_reversed {
            table.rows.reverse();
        }
        let is_it = |row: &PaneRow| Some(&row.key) == view.selected.as_ref();
        let selected = table.rows.iter().position(is_it).unwrap_or(0);
        (table, selected)
    }

    /// Takes the answer about an endpoint, if it is still waited for.
    pub(super) fn answer(&mut self, endpoint: Endpoint, answer: Result<String, String>) {
        if let Mode::Details(details) = &mut self.mode
            && details.endpoint == Some(endpoint)
        {
            details.text = Some(answer.unwrap_or_else(|error| error));
        }
    }

    /// Handles an event of the terminal.
    pub(super) fn tell(&mut self, seen: (&TopModel, WallTime), event: &Event) -> TopAction {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(seen, *key),
            Event::Resize(..) => TopAction::Redraw,
            Event::Paste(text) if self.mode == Mode::Filter => {
                text.chars().for_each(|c| self.type_filter(c));
                TopAction::Nothing
            }
            Event::Key(_)
            | Event::Paste(_)
            | Event::Mouse(_)
            | Event::FocusGained
            | Event::FocusLost => TopAction::Nothing,
        }
    }

    fn key(&mut self, seen: (&TopModel, WallTime), key: KeyEvent) -> TopAction {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            let KeyCode::Char(c) = key.code else { return TopAction::Nothing };
            return match c {
                'c' => TopAction::Quit,
                'z' => TopAction::Stop,
                'l' => TopAction::Redraw,
                _ => TopAction::Nothing,
            };
        }
        match &self.mode {
            Mode::Rows => return self.rows_key(seen, key.code),
            Mode::Filter => self.filter_key(key.code),
            Mode::Help | Mode::Details(_) => return self.text_key(key.code),
        }
        TopAction::Nothing
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the keys that do nothing are many")]
    fn rows_key(&mut self, seen: (&TopModel, WallTime), code: KeyCode) -> TopAction {
        let page = isize::try_from(self.page).unwrap_or(1);
        let pane = self.pane;
        match code {
            KeyCode::Char('q') => return TopAction::Quit,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('s') => self.sort_by_next(seen),
            KeyCode::Char('r') => {
                let view = self.view_mut(pane);
                view.is_reversed = !view.is_reversed;
            }
            KeyCode::Char(c @ '1'..='6') => {
                self.pane = Pane::ALL[c as usize - '1' as usize];
            }
            KeyCode::Tab | KeyCode::Right => self.pane = Pane::ALL[(pane as usize + 1) % PANES],
            KeyCode::BackTab | KeyCode::Left => {
                self.pane = Pane::ALL[(pane as usize + PANES - 1) % PANES];
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(seen, -1),
            KeyCode::Down | KeyCode::Char('j') => self.go(seen, 1),
            KeyCode::PageUp => self.go(seen, -page),
            KeyCode::PageDown => self.go(seen, page),
            KeyCode::Home | KeyCode::Char('g') => self.go(seen, isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(seen, isize::MAX),
            KeyCode::Esc => self.view_mut(pane).filter.clear(),
            KeyCode::Enter => return self.open(seen),
            _ => {}
        }
        TopAction::Nothing
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the keys that do nothing are many")]
    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.type_filter(c),
            KeyCode::Backspace => _ = self.view_mut(self.pane).filter.pop(),
            KeyCode::Enter => self.mode = Mode::Rows,
            KeyCode::Esc => {
                self.view_mut(self.pane).filter.clear();
                self.mode = Mode::Rows;
            }
            _ => {}
        }
    }

    fn type_filter(&mut self, c: char) {
        let filter = &mut self.view_mut(self.pane).filter;
        if !c.is_control() && filter.chars().count() < FILTER_MAX {
            filter.push(c);
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "any other key closes the help")]
    fn text_key(&mut self, code: KeyCode) -> TopAction {
        let page = self.page.max(1);
        let Mode::Details(details) = &mut self.mode else {
            self.mode = Mode::Rows;
            return TopAction::Nothing;
        };
        // The drawing keeps it within the text.
        match code {
            KeyCode::Up | KeyCode::Char('k') => details.offset = details.offset.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => details.offset += 1,
            KeyCode::PageUp => details.offset = details.offset.saturating_sub(page),
            KeyCode::PageDown => details.offset += page,
            KeyCode::Home | KeyCode::Char('g') => details.offset = 0,
            KeyCode::End | KeyCode::Char('G') => details.offset = usize::MAX / 2,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Char('q') => {
                self.mode = Mode::Rows;
            }
            KeyCode::Char(c @ '1'..='6') => {
                self.mode = Mode::Rows;
                self.pane = Pane::ALL[c as usize - '1' as usize];
            }
            _ => {}
        }
        TopAction::Nothing
    }

    /// Sorts by the next column; after the last one, the order is the usual one again.
    fn sort_by_next(&mut self, seen: (&TopModel, WallTime)) {
        let columns = self.shown(self.pane, seen, 0).0.header.len();
        let view = self.view_mut(self.pane);
        let next = view.sort.map_or(0, |column| column + 1);
        view.sort = Some(next).filter(|column| *column < columns);
    }

    /// Selects the row `by` rows further down.
    fn go(&mut self, seen: (&TopModel, WallTime), by: isize) {
        let (table, selected) = self.shown(self.pane, seen, 0);
        let last = table.rows.len().saturating_sub(1);
        let next = selected.saturating_add_signed(by).min(last);
        self.view_mut(self.pane).selected = table.rows.get(next).map(|row| row.key.clone());
    }

    fn open(&mut self, seen: (&TopModel, WallTime)) -> TopAction {
        let (table, selected) = self.shown(self.pane, seen, 0);
        let Some(row) = table.rows.get(selected) else { return TopAction::Nothing };
        let endpoint = row.endpoint;
        let (title, text) = match endpoint {
            Some(it) => (format!("proof about {it}, as peer explain prints it"), None),
            None => {
                let name = row.cells.first().map_or("", |cell| &cell.text);
                (
                    format!("{}: {name}", self.pane.title()),
                    Some(details(self.pane, seen.0, &row.key)),
                )
            }
        };
        self.mode = Mode::Details(Details { title, text, endpoint, offset: 0 });
        endpoint.map_or(TopAction::Nothing, TopAction::Explain)
    }
}
