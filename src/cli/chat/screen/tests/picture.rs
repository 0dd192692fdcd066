//! The picture of a screen in the documents: drawn by the screen's own code, cell by cell.

use std::fmt::Write as _;
use std::path::Path;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr as _;

use super::{chat, entry, say, screen, show, terminal};
use crate::cli::chat::model::GENERAL;
use crate::machine::chat::Event;
use crate::proto::chat::entry::{Body, SeqNo};

/// A cell's columns and rows in the picture's units.
const CELL: (f32, f32) = (8.4, 18.0);

fn paint(color: Color, otherwise: &'static str) -> &'static str {
    [
        (Color::White, "#ffffff"),
        (Color::Blue, "#3b6ea8"),
        (Color::Red, "#b3373c"),
        (Color::Green, "#6dbb74"),
        (Color::Yellow, "#d9b44a"),
        (Color::Cyan, "#56b6c2"),
        (Color::Magenta, "#c678dd"),
        (Color::LightRed, "#e88388"),
        (Color::DarkGray, "#7d8590"),
    ]
    .iter()
    .find(|(it, _)| *it == color)
    .map_or(otherwise, |(_, paint)| paint)
}

/// `buffer` as SVG.
fn svg(buffer: &Buffer) -> String {
    let (columns, rows) = (f32::from(buffer.area.width), f32::from(buffer.area.height));
    let (width, height) = (columns * CELL.0 + 16.0, rows * CELL.1 + 16.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" \
         fill=\"#161b22\"/>\n"
    );
    for (row, cells) in (0_u16..).zip(buffer.content.chunks(buffer.area.width.into())) {
        let mut at = 0;
        while at < cells.len() {
            let style = |cell: &Cell| (cell.fg, cell.bg, cell.modifier);
            let run = cells[at..].iter().take_while(|it| style(it) == style(&cells[at])).count();
            text(&mut out, &cells[at..at + run], (u16::try_from(at).unwrap(), row));
            at += run;
        }
    }
    out + "</svg>\n"
}

/// Cells of one style.
fn text(out: &mut String, cells: &[Cell], (column, row): (u16, u16)) {
    let (x, y) = (f32::from(column) * CELL.0 + 8.0, f32::from(row) * CELL.1 + 8.0);
    let width = f32::from(u16::try_from(cells.len()).unwrap()) * CELL.0;
    if cells[0].bg != Color::Reset {
        let (fill, height) = (paint(cells[0].bg, "#161b22"), CELL.1);
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{fill}\"/>"
        )
        .unwrap();
    }
    let mut words = String::new();
    let mut covered = 0;
    for cell in cells {
        if covered == 0 {
            words.push_str(cell.symbol());
            covered = cell.symbol().width();
        }
        covered = covered.saturating_sub(1);
    }
    if words.trim().is_empty() {
        return;
    }
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let weight =
        if cells[0].modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let (fill, base) = (paint(cells[0].fg, "#e6edf3"), y + 13.5);
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{base:.1}\" textLength=\"{width:.1}\" fill=\"{fill}\"{weight} \
         xml:space=\"preserve\">{words}</text>"
    )
    .unwrap();
}

#[test]
fn the_picture_in_the_documents_is_what_the_screen_draws() {
    let mut screen = screen();
    say(&mut screen, 4, 3, "Hello everybody!");
    say(&mut screen, 5, 1, "Hi. 漢字, é and \x1b[2J arrive as they are, or escaped");
    say(&mut screen, 6, 2, "I am gone in a minute");
    screen.model.deliver(&[entry(7, Body::Chat(chat(3, 7, "cats", "meow")))]);
    let typed = chat(1, 2, GENERAL, "this one has a number already");
    screen.model.happen(&Event::Pending(typed.clone()));
    screen.model.happen(&Event::Numbered(typed.msg_id, SeqNo(8)));
    screen.model.happen(&Event::Pending(chat(1, 3, GENERAL, "this one waits for one")));
    screen.screen.input.insert("and this one is being typed");
    let mut terminal = terminal(92, 18);
    show(&mut terminal, &mut screen);
    let picture = svg(terminal.backend().buffer());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/chat.svg");
    if std::env::var_os("UPDATE_PICTURE").is_some() {
        std::fs::write(&path, &picture).unwrap();
    }
    let drawn = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == picture, "docs/chat.svg is another: test with UPDATE_PICTURE=1 to renew it");
}
