//! Screens as a terminal would show them.

mod picture;

use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::draw;
use super::keys::KeyAction;
use crate::cli::chat::model::tests::{chat, entry};
use crate::cli::chat::model::{ChatModel, GENERAL, MemberView};
use crate::machine::chat::{Event as Told, Role};
use crate::proto::chat::entry::{Body, MemberId, SeqNo, Term};

/// A screen and its model.
struct TestScreen {
    model: ChatModel,
    screen: super::Screen,
}

impl TestScreen {
    fn tell(&mut self, event: &Event) -> KeyAction {
        self.screen.tell(&self.model, event)
    }
}

fn screen() -> TestScreen {
    let mut model = ChatModel::new(MemberId(1), GENERAL);
    model.happen(&Told::RoleChanged {
        role: Role::Follower,
        term: Term(2),
        leader: Some(MemberId(3)),
        promises: Vec::new(),
    });
    model.seen = (1..=3)
        .map(|id| MemberView {
            id: MemberId(id),
            at: format!("127.0.0.1:600{id}"),
            is_here: id != 2,
            lag: (id == 3).then_some(4),
            seen_ms: Some(7_000),
        })
        .collect();
    TestScreen { model, screen: super::Screen::default() }
}

fn say(screen: &mut TestScreen, seq: u64, member: u32, text: &str) {
    screen.model.deliver(&[entry(seq, Body::Chat(chat(member, seq, GENERAL, text)))]);
}

fn terminal(columns: u16, rows: u16) -> Terminal<TestBackend> {
    Terminal::new(TestBackend::new(columns, rows)).unwrap()
}

fn show(terminal: &mut Terminal<TestBackend>, screen: &mut TestScreen) -> Vec<String> {
    terminal.draw(|frame| draw::draw(frame, &mut screen.screen, &screen.model, 19_000)).unwrap();
    let buffer = terminal.backend().buffer();
    let columns = usize::from(buffer.area.width);
    let row = |cells: &[ratatui::buffer::Cell]| {
        let mut text = String::new();
        let mut skip = 0_usize;
        for cell in cells {
            if skip == 0 {
                text.push_str(cell.symbol());
                skip = unicode_width::UnicodeWidthStr::width(cell.symbol());
            }
            skip = skip.saturating_sub(1);
        }
        text.trim_end().to_owned()
    };
    buffer.content.chunks(columns).map(row).collect()
}

fn key(screen: &mut TestScreen, code: KeyCode) -> KeyAction {
    screen.tell(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

#[test]
fn the_screen_shows_the_timeline_the_group_what_is_pending_and_what_is_typed() {
    let mut screen = screen();
    say(&mut screen, 2, 3, "hello everybody");
    say(&mut screen, 3, 1, "hello");
    screen.model.happen(&Told::Pending(chat(1, 4, GENERAL, "and")));
    screen.model.happen(&Told::Pending(chat(1, 5, GENERAL, "more")));
    screen.model.happen(&Told::Numbered(chat(1, 4, GENERAL, "").msg_id, SeqNo(4)));
    screen.screen.input.insert("dr");
    let mut terminal = terminal(70, 14);
    let rows = show(&mut terminal, &mut screen);
    let expected = [
        " peer_1  FOLLOWER  term 2  peer_3 leads  #general",
        "                                            │ group, 2 of 3 here",
        "                                            │ ● peer_1 you",
        "                                            │ ○ peer_2 away 12 s",
        "                                            │ ● peer_3 leads, lacks 4",
        "                                            │",
        "                                            │ final 3 of 3",
        "      * peer_3 leads in term 2              │ pending 2",
        "09:02 [seq=2] <peer_3>: hello everybody     │",
        "09:03 [seq=3] <peer_1>: hello ✓             │ rooms",
        " ◐ numbered 4: and",
        " ○ typed: more",
    ];
    assert_eq!(rows[..12], expected, "{rows:#?}");
    assert!(rows[12].starts_with("── /help"), "{rows:#?}");
    assert_eq!(rows[13], "peer_1> dr");
    let cursor = terminal.get_cursor_position().unwrap();
    assert_eq!((cursor.x, cursor.y), (10, 13));
}

#[test]
fn without_a_majority_there_is_a_red_bar_that_says_what_becomes_of_what_is_typed() {
    let mut screen = screen();
    screen.model.seen[2].is_here = false;
    screen.model.happen(&Told::NoQuorum);
    let mut terminal = terminal(70, 8);
    let rows = show(&mut terminal, &mut screen);
    let text = " no majority: 1 of 3 reachable; what you type is kept and sent later";
    assert_eq!(rows[1], text);
    assert_eq!(terminal.backend().buffer()[(3, 1)].bg, Color::Red);
    screen.model.happen(&Told::Quorum);
    assert_ne!(show(&mut terminal, &mut screen)[1], text);
}

#[test]
fn over_a_byzantine_order_the_screen_has_views_and_says_how_many_are_needed() {
    let mut screen = screen();
    screen.model.standing.needed = Some(3);
    screen.model.happen(&Told::Pending(chat(1, 4, GENERAL, "and")));
    screen.model.happen(&Told::Numbered(chat(1, 4, GENERAL, "").msg_id, SeqNo(0)));
    let mut terminal = terminal(70, 14);
    let rows = show(&mut terminal, &mut screen);
    assert_eq!(rows[0], " peer_1  FOLLOWER  view 2  peer_3 leads  #general");
    assert!(rows.iter().any(|it| it == " ◐ proposed: and"), "{rows:#?}");
    screen.model.standing.has_quorum = false;
    let text = " halted: 2 of 3 reachable, 3 are needed; what you type waits";
    assert_eq!(show(&mut terminal, &mut screen)[1], text);
}

#[test]
fn wide_characters_are_wrapped_and_never_torn() {
    let mut screen = screen();
    say(&mut screen, 9, 2, &"漢字".repeat(20));
    let rows = show(&mut terminal(31, 10), &mut screen);
    let text: String =
        rows.iter().flat_map(|row| row.chars()).filter(|c| "漢字".contains(*c)).collect();
    assert_eq!(text, "漢字".repeat(20), "{rows:#?}");
    screen.screen.input.insert(&"漢".repeat(30));
    let mut terminal = terminal(31, 10);
    show(&mut terminal, &mut screen);
    let cursor = terminal.get_cursor_position().unwrap();
    assert!(cursor.x <= 30 && cursor.y == 9, "{cursor:?}");
}

#[test]
fn the_timeline_can_be_scrolled_and_stays_where_it_is_while_more_comes() {
    let mut screen = screen();
    for seq in 1..=40 {
        say(&mut screen, seq, 2, &format!("message {seq}"));
    }
    let mut terminal = terminal(40, 13);
    let seen = |rows: &[String]| -> Vec<String> {
        rows.iter().filter_map(|it| Some(it.split_once("message ")?.1.to_owned())).collect()
    };
    assert_eq!(seen(&show(&mut terminal, &mut screen)).last().unwrap(), "40");
    key(&mut screen, KeyCode::PageUp);
    let before = seen(&show(&mut terminal, &mut screen));
    assert_eq!((before[0].as_str(), before.last().unwrap().as_str()), ("22", "31"));
    say(&mut screen, 41, 2, "message 41");
    let rows = show(&mut terminal, &mut screen);
    assert_eq!(seen(&rows), before);
    assert!(rows[11].contains("↓ 10 newer, 1 unread: PgDn, Esc"), "{rows:#?}");
    for _ in 0..10 {
        key(&mut screen, KeyCode::PageUp);
    }
    let rows = show(&mut terminal, &mut screen);
    assert_eq!(rows[1], "      * peer_3 leads in term 2");
    assert_eq!(seen(&rows).len(), 9, "the page stays full: {rows:#?}");
    for _ in 0..10 {
        key(&mut screen, KeyCode::PageDown);
    }
    let rows = show(&mut terminal, &mut screen);
    assert_eq!(rows[10], "09:41▌[seq=41] <peer_2>: message 41");
    assert_eq!(rows[9], "09:40 [seq=40] <peer_2>: message 40");
    key(&mut screen, KeyCode::PageUp);
    key(&mut screen, KeyCode::Esc);
    assert_eq!(seen(&show(&mut terminal, &mut screen)).last().unwrap(), "41");
}

#[test]
fn a_wide_screen_shows_addresses_the_term_and_the_leader() {
    let mut screen = screen();
    say(&mut screen, 2, 3, "hello");
    let rows = show(&mut terminal(120, 12), &mut screen);
    let list: Vec<_> = rows[1..9].iter().filter_map(|it| it.split_once("│ ")).collect();
    let list: Vec<_> = list.into_iter().map(|(_, text)| text).collect();
    let expected = [
        "group, 2 of 3 here",
        "● peer_1 127.0.0.1:6001, you",
        "○ peer_2 127.0.0.1:6002, away 12 s",
        "● peer_3 127.0.0.1:6003, leads, lacks 4",
        "term 2, led by peer_3",
        "final 2 of 2",
    ];
    assert_eq!(list[..6], expected, "{rows:#?}");
}

#[test]
fn clock_times_are_those_of_the_zone_of_this_machine() {
    let mut screen = screen();
    screen.screen.zone = Some(jiff::tz::TimeZone::fixed(jiff::tz::offset(2)));
    say(&mut screen, 2, 3, &"many words ".repeat(9));
    let rows = show(&mut terminal(60, 12), &mut screen);
    let at = rows.iter().position(|it| it.starts_with("11:02 [seq=2]")).unwrap();
    assert!(rows[at + 1].starts_with("        ") && rows[at + 1].contains("words"), "{rows:#?}");
    // A narrow screen keeps its room for words.
    assert!(show(&mut terminal(39, 12), &mut screen).iter().any(|it| it.starts_with("[seq=2]")));
}

#[test]
fn any_size_can_be_drawn() {
    let mut screen = screen();
    for seq in 1..=9 {
        say(&mut screen, seq, 1, &"long words and 漢字 ".repeat(9));
        screen.model.happen(&Told::Pending(chat(1, seq + 20, GENERAL, "waits")));
    }
    screen.model.happen(&Told::NoQuorum);
    screen.screen.input.insert("漢字漢字漢字");
    for (columns, rows) in [(1, 1), (2, 3), (7, 2), (10, 5), (64, 4), (65, 9), (300, 90)] {
        let mut terminal = terminal(columns, rows);
        show(&mut terminal, &mut screen);
        key(&mut screen, KeyCode::PageUp);
        show(&mut terminal, &mut screen);
    }
}

#[test]
fn keys_type_and_ask() {
    let mut screen = screen();
    let control = |c| Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    for c in "helo".chars() {
        assert_eq!(key(&mut screen, KeyCode::Char(c)), KeyAction::Nothing);
    }
    key(&mut screen, KeyCode::Left);
    key(&mut screen, KeyCode::Char('l'));
    assert_eq!(screen.tell(&control('d')), KeyAction::Nothing);
    assert_eq!(screen.screen.input.text(), "hell");
    assert_eq!(key(&mut screen, KeyCode::Enter), KeyAction::Line("hell".into()));
    assert_eq!(screen.tell(&control('d')), KeyAction::Quit);
    assert_eq!(screen.tell(&control('c')), KeyAction::Quit);
    assert_eq!(screen.tell(&Event::Resize(3, 4)), KeyAction::Redraw);
    assert_eq!(screen.tell(&Event::Paste("a\nb".into())), KeyAction::Nothing);
    assert_eq!(screen.screen.input.text(), "a b");
}

#[test]
fn a_message_of_another_room_is_counted_and_not_shown() {
    let mut screen = screen();
    screen.model.deliver(&[entry(5, Body::Chat(chat(2, 1, "cats", "meow")))]);
    let rows = show(&mut terminal(70, 20), &mut screen);
    assert!(!rows.iter().any(|it| it.contains("meow")), "{rows:#?}");
    assert!(rows.iter().any(|it| it.contains("#cats  1 new")), "{rows:#?}");
    screen.model.enter("cats");
    let rows = show(&mut terminal(70, 20), &mut screen);
    assert!(rows.iter().any(|it| it.contains("[seq=5] <peer_2> #cats: meow")), "{rows:#?}");
    let room: &Arc<str> = screen.model.room();
    assert_eq!(&**room, "cats");
}
