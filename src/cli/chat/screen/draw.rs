//! Layout of the screen.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use unicode_width::UnicodeWidthStr as _;

use super::Screen;
use super::scroll::{Row, wrap};
use crate::cli::chat::format;
use crate::cli::chat::model::{ChatLine, ChatModel, MemberView, PendingMessage};
use crate::cli::output::age;
use crate::cli::text::escape;
use crate::proto::chat::entry::{MemberId, SeqNo};

/// Width in columns below which the list of members has no room.
const LIST_FROM: u16 = 64;

/// Width of the list, in columns.
const LIST: u16 = 26;

/// Width in columns from which the list has room for addresses, and its width then.
const WIDE: (u16, u16) = (110, 44);

/// Width of the timeline in columns from which clock times are beside messages, and their width.
const TIMES: (u16, u16) = (40, 6);

/// Largest number of pending messages that are shown; of more, only their number.
const PENDING_MAX: usize = 4;

/// Colors of the members.
const COLORS: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Blue, Color::LightRed];

/// Draws the screen as it is at `now_ms`, by the wall clock.
pub(in crate::cli::chat) fn draw(
    frame: &mut Frame<'_>,
    screen: &mut Screen,
    model: &ChatModel,
    now_ms: u64,
) {
    let has_quorum = model.standing.has_quorum;
    let rows = [
        Constraint::Length(1),
        Constraint::Length(u16::from(!has_quorum)),
        Constraint::Min(1),
        Constraint::Length(pending_rows(model.waiting())),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [title, alarm, middle, pending, edge, line] = Layout::vertical(rows).areas(frame.area());
    draw_title(frame, model, title);
    if !has_quorum {
        draw_alarm(frame, model, alarm);
    }
    let list = match middle.width {
        width if width >= WIDE.0 => WIDE.1,
        width if width >= LIST_FROM => LIST,
        _ => 0,
    };
    let [timeline, list] =
        Layout::horizontal([Constraint::Min(1), Constraint::Length(list)]).areas(middle);
    draw_timeline(frame, screen, model, timeline);
    if list.width > 0 {
        draw_list(frame, model, list, now_ms);
    }
    draw_pending(frame, model.waiting(), pending);
    draw_edge(frame, screen, model, edge);
    draw_input(frame, screen, model, line);
}

fn pending_rows(waiting: &[PendingMessage]) -> u16 {
    let rows = if waiting.len() > PENDING_MAX { PENDING_MAX + 1 } else { waiting.len() };
    u16::try_from(rows).unwrap_or(u16::MAX)
}

fn color(id: MemberId) -> Color {
    COLORS[id.0 as usize % COLORS.len()]
}

fn dim() -> Style {
    Style::default().fg(Color::DarkGray)
}

/// Word for the reign of one leader.
fn period(model: &ChatModel) -> &'static str {
    if model.standing.needed.is_some() { "view" } else { "term" }
}

fn draw_title(frame: &mut Frame<'_>, model: &ChatModel, area: Rect) {
    let leader =
        model.standing.leader.map_or("nobody leads".to_owned(), |it| format!("{it} leads"));
    let period = period(model);
    let text = format!(
        " {}  {}  {period} {}  {leader}  #{} ",
        model.me,
        format::role(model.standing.role),
        model.standing.term.0,
        escape(model.room()),
    );
    let style = Style::default().fg(Color::White).bg(Color::Blue).add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn draw_alarm(frame: &mut Frame<'_>, model: &ChatModel, area: Rect) {
    let (here, all) = model.reach();
    let who = if all == 0 { String::new() } else { format!(": {here} of {all} reachable") };
    let text = match model.standing.needed {
        None => format!(" no majority{who}; what you type is kept and sent later"),
        Some(needed) => format!(" halted{who}, {needed} are needed; what you type waits"),
    };
    let style = Style::default().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn draw_timeline(frame: &mut Frame<'_>, screen: &mut Screen, model: &ChatModel, area: Rect) {
    let gutter = if area.width >= TIMES.0 { TIMES.1 } else { 0 };
    screen.scroll.resize((area.width - gutter).into(), area.height.into());
    let rows = screen.scroll.rows(model);
    let unread = screen.scroll.unread_from();
    let lines = rows.iter().filter_map(|row| {
        let item = model.item(row.item)?;
        let mut line = styled(row, item);
        if gutter > 0 {
            line.spans.insert(0, beside(screen, (row, item), unread));
        }
        Some(line)
    });
    let lines: Vec<_> = lines.collect();
    // The newest at the bottom, as long as there are few.
    let height = u16::try_from(lines.len()).unwrap_or(area.height).min(area.height);
    let area = Rect { y: area.y + area.height - height, height, ..area };
    frame.render_widget(Paragraph::new(lines), area);
}

/// Clock time beside the first row of a message, and a bar beside what came while the timeline was
/// scrolled up.
fn beside<'a>(screen: &Screen, (row, item): (&Row, &ChatLine), unread: Option<u64>) -> Span<'a> {
    let time = match item {
        ChatLine::Said { time, .. } if row.is_first => screen.clock_time(*time),
        ChatLine::Said { .. } | ChatLine::Note(_) | ChatLine::Election { .. } => String::new(),
    };
    match unread.is_some_and(|from| row.item >= from) {
        true => Span::styled(format!("{time:<5}▌"), Style::default().fg(Color::Yellow)),
        false => Span::styled(format!("{time:<6}"), dim()),
    }
}

fn styled<'a>(row: &'a Row, item: &ChatLine) -> Line<'a> {
    let indent = if row.is_first { "" } else { "  " };
    match item {
        ChatLine::Note(_) | ChatLine::Election { .. } => {
            Line::from(Span::styled(format!("{indent}{}", row.text), dim()))
        }
        ChatLine::Said { sender, is_mine, .. } => {
            let head = if row.is_first { item.head().len() } else { 0 };
            let mut spans = vec![Span::raw(indent)];
            match row.text.split_at_checked(head) {
                Some((head, text)) => {
                    let (number, name) = head.split_at(head.find('<').unwrap_or(0));
                    spans.push(Span::styled(number.to_owned(), dim()));
                    spans.push(Span::styled(
                        name.to_owned(),
                        Style::default().fg(color(*sender)).add_modifier(Modifier::BOLD),
                    ));
                    spans.push(Span::raw(text.to_owned()));
                }
                None => spans.push(Span::raw(row.text.clone())),
            }
            if *is_mine && row.is_last {
                spans.push(Span::styled(" ✓", Style::default().fg(Color::Green)));
            }
            Line::from(spans)
        }
    }
}

fn draw_list(frame: &mut Frame<'_>, model: &ChatModel, area: Rect, now_ms: u64) {
    let (here, all) = model.reach();
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(format!(" group, {here} of {all} here"), bold)];
    let is_wide = area.width >= WIDE.1;
    for seen in &model.seen {
        lines.push(member_line(model, seen, now_ms, is_wide));
    }
    let standing = &model.standing;
    if is_wide {
        let leader = standing.leader.map_or("nobody".to_owned(), |it| it.to_string());
        let text = format!(" {} {}, led by {leader}", period(model), standing.term.0);
        lines.extend([Line::default(), Line::raw(text)]);
    }
    lines.push(Line::default());
    lines.push(Line::styled(format!(" final {} of {}", standing.commit.0, standing.last.0), dim()));
    if !model.waiting().is_empty() {
        lines.push(Line::raw(format!(" pending {}", model.waiting().len())));
    }
    lines.push(Line::default());
    lines.push(Line::styled(" rooms", bold));
    for (name, room) in model.rooms() {
        let mark = if name == model.room() { "▸" } else { " " };
        let new = if room.unread > 0 { format!("  {} new", room.unread) } else { String::new() };
        lines.push(Line::raw(format!("{mark}#{}{new}", escape(name))));
    }
    let block = Block::new().borders(Borders::LEFT).border_style(dim());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn member_line<'a>(
    model: &ChatModel,
    seen: &MemberView,
    now_ms: u64,
    has_address: bool,
) -> Line<'a> {
    let is_leader = model.standing.leader == Some(seen.id);
    let mut words = Vec::new();
    if has_address {
        words.push(seen.at.clone());
    }
    if is_leader {
        words.push("leads".to_owned());
    }
    if seen.id == model.me {
        words.push("you".to_owned());
    } else if !seen.is_here {
        let ago = seen.seen_ms.map(|at| now_ms.saturating_sub(at) / 1_000);
        let ago = ago.map(|secs| format!("away {}", age(Duration::from_secs(secs))));
        words.push(ago.unwrap_or_else(|| "away".to_owned()));
    } else if let Some(lag) = seen.lag.filter(|it| *it > 0) {
        words.push(format!("lacks {lag}"));
    }
    let (mark, tint) = if seen.is_here { ("●", Color::Green) } else { ("○", Color::Red) };
    Line::from(vec![
        Span::styled(format!(" {mark} "), Style::default().fg(tint)),
        Span::styled(seen.id.to_string(), Style::default().fg(color(seen.id))),
        Span::raw(format!(" {}", words.join(", "))),
    ])
}

fn draw_pending(frame: &mut Frame<'_>, waiting: &[PendingMessage], area: Rect) {
    let columns = usize::from(area.width).saturating_sub(1);
    let shown = waiting.iter().take(PENDING_MAX).map(|it| {
        let (mark, what) = match it.number {
            None => ("○", "typed".to_owned()),
            Some(SeqNo(0)) => ("◐", "proposed".to_owned()),
            Some(seq) => ("◐", format!("numbered {}", seq.0)),
        };
        let text = format!(" {mark} {what}: {}", escape(&it.chat.payload));
        let style = Style::default().fg(Color::Yellow);
        Line::styled(wrap(&text, columns, 0).swap_remove(0), style)
    });
    let mut lines: Vec<_> = shown.collect();
    if waiting.len() > PENDING_MAX {
        let more = waiting.len() - PENDING_MAX;
        lines.push(Line::styled(format!("   and {more} more"), dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_edge(frame: &mut Frame<'_>, screen: &Screen, model: &ChatModel, area: Rect) {
    let newer = screen.scroll.newer(model);
    let text = newer.map_or_else(
        || " /help for commands ".to_owned(),
        |count| match screen.scroll.unread(model) {
            0 => format!(" ↓ {count} newer: PgDn, Esc "),
            new => format!(" ↓ {count} newer, {new} unread: PgDn, Esc "),
        },
    );
    let left = usize::from(area.width).saturating_sub(text.width() + 2);
    let line = Line::styled(format!("──{text}{}", "─".repeat(left)), dim());
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_input(frame: &mut Frame<'_>, screen: &Screen, model: &ChatModel, area: Rect) {
    let prompt = format!("{}> ", model.me);
    let (text, column) = (screen.input.text(), screen.input.column());
    let width = usize::from(area.width).saturating_sub(prompt.width() + 1);
    // The cursor is always visible.
    let skipped = column.saturating_sub(width);
    let line = Line::from(vec![
        Span::styled(prompt.clone(), Style::default().add_modifier(Modifier::BOLD)),
        Span::raw(beyond(text, skipped)),
    ]);
    frame.render_widget(Paragraph::new(line), area);
    let x = prompt.width() + column - skipped;
    let x = area.x.saturating_add(u16::try_from(x).unwrap_or(u16::MAX));
    frame.set_cursor_position(Position { x: x.min(area.right().saturating_sub(1)), y: area.y });
}

/// `text` without its first `columns`; half a wide character becomes a blank.
fn beyond(text: &str, columns: usize) -> String {
    use unicode_segmentation::UnicodeSegmentation as _;
    let mut left = columns;
    let mut out = String::new();
    for part in text.graphemes(true) {
        if left == 0 {
            out.push_str(part);
        } else if part.width() > left {
            out.push(' ');
            left = 0;
        } else {
            left -= part.width();
        }
    }
    out
}
