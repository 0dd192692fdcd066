//! Layout of the screen.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use unicode_width::UnicodeWidthStr as _;

use super::model::TopModel;
use super::panes::{Pane, PaneRow, PaneTable, Tone};
use super::screen::{Details, Mode, TopScreen};
use crate::cli::output::{age, wrap_lines, wrap_words};
use crate::cli::text::escape;
use crate::model::WallTime;
use crate::model::entry::MemberState;

/// Width in columns from which two panes are side by side.
const SIDE_BY_SIDE_FROM: u16 = 140;

/// Height in rows from which two panes are one above the other.
const STACKED_FROM: u16 = 36;

/// Blanks between two columns.
const GAP: usize = 2;

/// Levels of a curve, the lowest first.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const KEYS: [(&str, &str); 9] = [
    ("1 to 6, Tab, ← →", "another pane"),
    ("↑ ↓ PgUp PgDn Home End", "another row; also j, k, g, G"),
    ("Enter", "details; of a member or decision: the proof"),
    ("/", "show only rows with a text; Esc shows all again"),
    ("s", "sort by the next column, in the end as usual"),
    ("r", "turn the order round"),
    ("Ctrl-L", "draw everything anew"),
    ("?", "these keys; any key closes them"),
    ("q, Ctrl-C", "end"),
];

impl TopScreen {
    fn paint(&self, style: Style) -> Style {
        if self.has_color { style } else { Style { fg: None, bg: None, ..style } }
    }

    fn bold(&self) -> Style {
        Style::default().add_modifier(Modifier::BOLD)
    }

    fn dim(&self) -> Style {
        self.paint(Style::default().fg(Color::DarkGray))
    }

    fn tone(&self, tone: Tone) -> Style {
        let style = Style::default();
        match tone {
            Tone::Plain => style,
            Tone::Good => self.paint(style.fg(Color::Green)),
            Tone::Warning => self.paint(style.fg(Color::Yellow)),
            Tone::Bad => self.paint(style.fg(Color::Red)),
            Tone::Dim => self.dim(),
        }
    }

    fn bar(&self, color: Color) -> Style {
        let style = Style::default().fg(Color::White).bg(color).add_modifier(Modifier::BOLD);
        // Without colors a bar is told from text by being reversed.
        if self.has_color { style } else { Style::default().add_modifier(Modifier::REVERSED) }
    }
}

/// Draws the screen as it is at `now`.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut TopScreen, model: &TopModel, now: WallTime) {
    let troubles = troubles(model, now, frame.area().width.into());
    let alarms = u16::try_from(troubles.len()).unwrap_or(0);
    let rows = [
        Constraint::Length(1),
        Constraint::Length(alarms),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [title, alarm, tabs, middle, footer] = Layout::vertical(rows).areas(frame.area());
    let text =
        Paragraph::new(summary(model, now, title.width.into())).style(screen.bar(Color::Blue));
    frame.render_widget(text, title);
    let lines: Vec<_> = troubles.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines).style(screen.bar(Color::Red)), alarm);
    draw_tabs(frame, screen, model, tabs);
    draw_middle(frame, screen, (model, now), middle);
    draw_footer(frame, screen, footer);
}

/// First line: the node, and the fleet in numbers, as far as there is room.
fn summary(model: &TopModel, now: WallTime, columns: usize) -> String {
    let status = model.status();
    let mut parts = Vec::new();
    if let Some(endpoint) = status["endpoint"].as_str() {
        let health = match (&model.node_trouble, status["healthy"] == true) {
            (Some(_), _) => "does not answer",
            (None, true) => "healthy",
            (None, false) => "in trouble",
        };
        parts.push(format!("{} {endpoint} {health}", status["role"].as_str().unwrap_or("node")));
        if model.node_trouble.is_none() {
            let up = status["uptime_ms"].as_u64().unwrap_or(0) + model.node_age_ms(now);
            parts.push(format!("up {}", age(Duration::from_millis(up))));
        }
    }
    if let Some(fleet) = &model.fleet {
        let of = |state| fleet.members.iter().filter(|it| it.status == state).count();
        let gone = of(MemberState::Removed) + of(MemberState::Left);
        parts.push(format!("{} alive, {gone} gone", of(MemberState::Alive)));
    } else if let Some(known) = status["members_known"].as_u64() {
        parts.push(format!("{known} others known"));
    }
    if let Some(all) = status["seeds_configured"].as_u64().filter(|all| *all > 0) {
        let linked = status["seeds_connected"].as_u64();
        let linked = linked.unwrap_or(status["seeds"].as_array().map_or(0, Vec::len) as u64);
        parts.push(format!("seeds {linked}/{all}"));
    }
    if let Some(fleet) = &model.fleet {
        parts.push(format!("as seed {} sees it", fleet.seed));
    }
    let mut line = " folkmoot".to_owned();
    for part in parts {
        let part = format!("  {}", escape(&part));
        if line.width() + part.width() > columns {
            break;
        }
        line += &part;
    }
    line
}

/// Largest number of lines of one trouble.
const TROUBLE_LINES_MAX: usize = 2;

/// Lines of at most `columns` about what is wrong.
fn troubles(model: &TopModel, now: WallTime, columns: usize) -> Vec<String> {
    let silent = |reason: &str, age_ms: Option<u64>| {
        let span = age_ms.map(|ms| format!(" for {}", age(Duration::from_millis(ms))));
        format!("no answer{}, tries again: {reason}", span.unwrap_or_default())
    };
    let seen = |is_seen: bool, ms| is_seen.then_some(ms);
    let mut all = Vec::new();
    if let Some(reason) = &model.node_trouble {
        all.push(silent(reason, seen(model.node.is_some(), model.node_age_ms(now))));
    } else if let Some(trouble) = model.status()["trouble"].as_str() {
        all.push(trouble.to_owned());
    }
    if let Some(reason) = &model.fleet_trouble {
        all.push(silent(reason, seen(model.fleet.is_some(), model.fleet_age_ms(now))));
    }
    let wrapped = all.iter().flat_map(|it| {
        let lines = wrap_words(&escape(it), columns.saturating_sub(2).max(1));
        lines.into_iter().take(TROUBLE_LINES_MAX).map(|line| format!(" {line}"))
    });
    wrapped.collect()
}

fn draw_tabs(frame: &mut Frame<'_>, screen: &TopScreen, model: &TopModel, area: Rect) {
    let mut spans = Vec::new();
    for (number, pane) in Pane::ALL.into_iter().enumerate() {
        let count = match pane {
            Pane::Members => model.fleet.as_ref().map(|it| it.members.len()),
            Pane::Decisions => Some(model.decisions.len()),
            Pane::Shares => model.node.as_ref().map(|it| it.shares.len()),
            Pane::Messages | Pane::Logs | Pane::Rollouts => None,
        };
        let count = count.filter(|it| *it > 0).map_or(String::new(), |it| format!(" {it}"));
        let text = format!(" {} {}{count} ", number + 1, pane.title());
        let is_it = pane == screen.pane;
        let style =
            if is_it { screen.bold().add_modifier(Modifier::REVERSED) } else { screen.dim() };
        spans.push(Span::styled(text, style));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_middle(
    frame: &mut Frame<'_>,
    screen: &mut TopScreen,
    (model, now): (&TopModel, WallTime),
    area: Rect,
) {
    match screen.mode.clone() {
        Mode::Details(details) => return draw_details(frame, screen, &details, area),
        Mode::Help => return draw_help(frame, screen, area),
        Mode::Rows | Mode::Filter => {}
    }
    let pane = screen.pane;
    let [first, second] = if area.width >= SIDE_BY_SIDE_FROM {
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area)
    } else if area.height >= STACKED_FROM - 3 {
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(area)
    } else {
        [area, Rect::default()]
    };
    // Where a pane is does not depend on which one is in use.
    let (mine, its) = match (second.is_empty(), (pane as usize) < (pane.partner() as usize)) {
        (false, false) => (second, first),
        (true, _) | (false, true) => (first, second),
    };
    draw_pane(frame, screen, pane, (model, now), its_or(mine, area));
    if !its.is_empty() {
        draw_pane(frame, screen, pane.partner(), (model, now), its);
    }
}

/// The place, or another one if it is empty.
fn its_or(place: Rect, other: Rect) -> Rect {
    if place.is_empty() { other } else { place }
}

fn draw_pane(
    frame: &mut Frame<'_>,
    screen: &mut TopScreen,
    pane: Pane,
    seen: (&TopModel, WallTime),
    area: Rect,
) {
    let is_used = pane == screen.pane;
    let view = screen.view(pane);
    let filter = match (view.filter.is_empty(), is_used && screen.mode == Mode::Filter) {
        (true, false) => String::new(),
        (_, is_typed) => format!("  /{}{}", escape(&view.filter), if is_typed { "_" } else { "" }),
    };
    let style = if is_used { screen.bold() } else { screen.dim() };
    let block = Block::bordered()
        .border_style(if is_used { Style::default() } else { screen.dim() })
        .title(Span::styled(format!(" {}{filter} ", pane.title()), style));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let (table, selected) = screen.shown(pane, seen, inner.width.into());
    let head = u16::try_from(table.head.len()).unwrap_or(u16::MAX).min(inner.height / 2);
    let parts = [Constraint::Length(head), Constraint::Length(1), Constraint::Min(0)];
    let [above, header, below] = Layout::vertical(parts).areas(inner);
    frame.render_widget(Paragraph::new(table.head.join("\n")), above);
    if table.rows.is_empty() {
        let text = if screen.view(pane).filter.is_empty() { table.nothing } else { "no such row" };
        let text = wrap_words(text, inner.width.into()).join("\n");
        frame.render_widget(Paragraph::new(text).style(screen.dim()), header.union(below));
        return;
    }
    let widths = widths(&table);
    draw_header(frame, screen, pane, (&table, &widths), header);
    let height = usize::from(below.height);
    let view = screen.view_mut(pane);
    let least = (selected + 1).saturating_sub(height);
    view.offset = view.offset.clamp(least, selected.max(least));
    view.offset = view.offset.min(table.rows.len().saturating_sub(height));
    let offset = view.offset;
    if is_used {
        screen.page = height.max(1);
    }
    let shown = table.rows.iter().enumerate().skip(offset).take(height);
    let lines: Vec<_> = shown
        .map(|(index, row)| {
            let line = row_line(row, &widths, below.width.into()).style(screen.tone(row.tone));
            let is_selected = is_used && index == selected;
            if is_selected { line.patch_style(Modifier::REVERSED) } else { line }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), below);
}

fn draw_header(
    frame: &mut Frame<'_>,
    screen: &TopScreen,
    pane: Pane,
    (table, widths): (&PaneTable, &[usize]),
    area: Rect,
) {
    let view = screen.view(pane);
    let mut text = String::new();
    for (index, name) in table.header.iter().enumerate() {
        let mark = match (view.sort == Some(index), view.is_reversed) {
            (true, false) => "↑",
            (true, true) => "↓",
            (false, _) => "",
        };
        let width = widths.get(index).copied().unwrap_or(0) + GAP;
        text += &format!("{:<width$}", format!("{name}{mark}"));
    }
    frame.render_widget(Paragraph::new(text).style(screen.bold()), area);
}

/// Width of each column: that of its widest cell.
fn widths(table: &PaneTable) -> Vec<usize> {
    let of = |(index, name): (usize, &&str)| {
        let cells = table.rows.iter().filter_map(|row| row.cells.get(index));
        // Room for the mark of the order.
        cells.map(|cell| cell.text.width()).max().unwrap_or(0).max(name.width() + 1)
    };
    table.header.iter().enumerate().map(of).collect()
}

fn row_line<'a>(row: &PaneRow, widths: &[usize], columns: usize) -> Line<'a> {
    let mut text = String::new();
    for (cell, width) in row.cells.iter().zip(widths) {
        let blanks = width.saturating_sub(cell.text.width()) + GAP;
        text += &cell.text;
        text.extend(std::iter::repeat_n(' ', blanks));
    }
    let room = columns.saturating_sub(text.width());
    text += &curve(&row.curve, room);
    if text.trim_end().width() > columns {
        text = cut(&text, columns.saturating_sub(1)) + "…";
    }
    // The whole row is marked where it is selected.
    let blanks = columns.saturating_sub(text.width());
    text.extend(std::iter::repeat_n(' ', blanks));
    Line::raw(text)
}

/// `text` up to `columns`.
fn cut(text: &str, columns: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if format!("{out}{c}").width() > columns {
            break;
        }
        out.push(c);
    }
    out
}

/// The last rates as a curve.
fn curve(rates: &[u64], columns: usize) -> String {
    let shown = &rates[rates.len().saturating_sub(columns)..];
    let most = shown.iter().copied().max().unwrap_or(0);
    let level = |rate: &u64| match (most, *rate) {
        (0, _) | (_, 0) => '▁',
        (most, rate) => {
            let top = LEVELS.len() as u64 - 1;
            LEVELS[usize::try_from((rate * top).div_ceil(most)).unwrap_or(0).min(LEVELS.len() - 1)]
        }
    };
    shown.iter().map(level).collect()
}

fn draw_details(frame: &mut Frame<'_>, screen: &mut TopScreen, details: &Details, area: Rect) {
    let block = Block::bordered().title(format!(" {} ", escape(&details.title)));
    let inner = block.inner(area);
    let text = details.text.as_deref().unwrap_or("asks the seeds …");
    let columns = usize::from(inner.width).max(1);
    let escaped: Vec<_> = text.lines().map(escape).collect();
    let wrapped = wrap_lines(&escaped.join("\n"), columns);
    let lines: Vec<_> = wrapped.lines().map(Line::raw).collect();
    screen.page = usize::from(inner.height).max(1);
    let offset = details.offset.min(lines.len().saturating_sub(screen.page));
    if let Mode::Details(details) = &mut screen.mode {
        details.offset = offset;
    }
    let shown: Vec<_> = lines.into_iter().skip(offset).take(screen.page).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(shown), inner);
}

fn draw_help(frame: &mut Frame<'_>, screen: &TopScreen, area: Rect) {
    let width = KEYS.iter().map(|(keys, _)| keys.width()).max().unwrap_or(0) + GAP;
    let line = |(keys, what): &(&'static str, &'static str)| {
        let blanks = " ".repeat(width - keys.width());
        Line::from(vec![Span::styled(format!(" {keys}{blanks}"), screen.bold()), Span::raw(*what)])
    };
    let lines: Vec<_> = KEYS.iter().map(line).collect();
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_footer(frame: &mut Frame<'_>, screen: &TopScreen, area: Rect) {
    let text = match &screen.mode {
        Mode::Rows => {
            " 1-6 pane  ↑↓ row  Enter details  / filter  s sort  r reverse  ? help  q quit"
        }
        Mode::Filter => " type a text; Enter keeps it, Esc shows all rows",
        Mode::Help => " any key goes back",
        Mode::Details(_) => " ↑↓ PgUp PgDn Home End; Esc goes back",
    };
    frame.render_widget(Paragraph::new(text).style(screen.dim()), area);
}
