//! Screens as a terminal shows them, and the keys.

use std::path::Path;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use serde_json::{Value, json};

use super::decisions::Decision;
use super::draw::draw;
use super::look::{NodeView, RolloutView, Sighting};
use super::model::TopModel;
use super::panes::Pane;
use super::screen::{Mode, TopAction, TopScreen};
use crate::cli::query::FleetView;
use crate::cli::rollout::format::table::NodeRow;
use crate::model::entry::MemberState;
use crate::model::{Endpoint, Incarnation, WallTime};
use crate::proto::membership::{MemberLine, NodeLine};

/// Time of the first look.
const BEGIN: u64 = 1_772_010_000_000;

fn at(port: u16) -> Endpoint {
    Endpoint::new([10, 77, 0, 1].into(), port)
}

fn member(port: u16, status: MemberState, since_s: u64, degree: u16) -> MemberLine {
    let since = WallTime(BEGIN - since_s * 1_000);
    MemberLine {
        endpoint: at(port),
        incarnation: Incarnation(7),
        status,
        since,
        degree: degree.into(),
    }
}

fn decision(port: u16, ago_s: u64, what: &'static str, why: &str) -> Decision {
    Decision {
        at: WallTime(BEGIN - ago_s * 1_000),
        endpoint: at(port),
        what,
        votes: "seeds 1 and 3".to_owned(),
        why: why.to_owned(),
    }
}

fn status(looks: u64) -> Value {
    json!({
        "role": "peer", "endpoint": at(6001), "healthy": true, "uptime_ms": 400_000 + looks * 1_000,
        "seeds": [1, 3], "seeds_configured": 3, "members_known": 4,
        "neighbors": { "10.77.0.1:6002": 250, "10.77.0.1:6004": 12_300 },
        "suspects": ["10.77.0.1:6004"],
        "topology": { "10.77.0.1:6001": ["10.77.0.1:6002"] },
        "gossip_made": 10 + looks, "gossip_duplicates": 100 + looks * looks,
        "network": { "broadcast": {
            "messages_published": 3 * looks, "messages_delivered": 40, "messages_sent": 7,
            "duplicates": 1,
        } },
        "counters": { "lines_in": 900, "bytes_in": 3_000_000 + looks * 2_048 },
        "chat": { "id": 1, "leader": 3, "term": 4, "final": 17 + looks, "members": 3,
            "away": [2], "pending": 1, "quorum": true },
        "order": { "id": 2, "leader": 2, "view": 0, "places": 9, "members": 4, "reached": 2,
            "quorum": 3, "away": [], "pending": 0 },
    })
}

fn node(looks: u64) -> NodeView {
    let row = |node: &str, word: &str, is_asked| NodeRow {
        node: node.to_owned(),
        is_asked,
        version: "4".to_owned(),
        digest: "0e437e6f".to_owned(),
        weights: vec!["v1 80 %".to_owned(), "v2 20 %".to_owned()],
        word: word.to_owned(),
        figures: ["v1 12 ms", "v1 0 %", "v1 420"].map(|it| vec![it.to_owned()]),
    };
    let shares = vec![
        json!({ "name": "big.iso", "size": 3_145_728, "peers": 2, "ticket": "t1",
            "have": 7, "pieces": 12, "down_per_s": 2_097_152, "up_per_s": 0, "kind": "fetch" }),
        json!({ "name": "a\u{1b}[2J", "size": 9, "peers": 1, "ticket": "t2", "here": null }),
    ];
    let rollout = RolloutView {
        rows: vec![row("node-a", "COMMITTED", true), row("node-b", "away for 3 s", false)],
        progress: "rollout start-node-a-1: v1 -> v2, running, step 2 of 4: v2 gets 20 %; next \
                   step in 12 s\n  steps: 5 % [20 %] 50 % 100 %, every 30 s, taken by node-a\n"
            .to_owned(),
        share: Some(2_000),
        text: "NODE ...\nall of it\n".to_owned(),
    };
    NodeView { status: status(looks), shares, rollout: Some(rollout) }
}

fn fleet() -> FleetView {
    let link = |port, others: &[u16]| NodeLine {
        endpoint: at(port),
        neighbors: others.iter().map(|it| at(*it)).collect(),
    };
    FleetView {
        seed: at(5001),
        members: vec![
            member(6001, MemberState::Alive, 400, 2),
            member(6002, MemberState::Alive, 9_000, 1),
            member(6003, MemberState::Removed, 65, 0),
            member(6004, MemberState::Alive, 30, 1),
            member(6005, MemberState::Left, 300_000, 0),
        ],
        nodes: vec![link(6001, &[6002, 6004]), link(6002, &[6001]), link(6004, &[6001])],
        explained: Vec::new(),
    }
}

fn sighting(looks: u64) -> Sighting {
    Sighting {
        at: WallTime(BEGIN + looks * 1_000),
        node: Ok(node(looks)),
        fleet: Some(Ok(fleet())),
        decisions: vec![
            decision(6004, 30, "let in", "it answered when dialed back"),
            decision(6003, 65, "removed", "nobody listens there, says 10.77.0.1:6001 and 2 more"),
            decision(6005, 300_000, "left", "its own signed goodbye"),
        ],
    }
}

/// A screen and its model.
struct TestTop {
    model: TopModel,
    screen: TopScreen,
    now: WallTime,
}

impl TestTop {
    fn new() -> Self {
        let mut model = TopModel::default();
        (0..8).for_each(|looks| model.take(sighting(looks)));
        Self { model, screen: TopScreen::new(1, true), now: WallTime(BEGIN + 7_000) }
    }

    fn key(&mut self, code: KeyCode) -> TopAction {
        let key = Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        self.screen.tell((&self.model, self.now), &key)
    }

    fn types(&mut self, text: &str) {
        text.chars().for_each(|c| _ = self.key(KeyCode::Char(c)));
    }

    /// The terminal after the bytes that are written for one picture.
    fn terminal(&mut self, columns: u16, rows: u16) -> vt100::Parser {
        let mut bytes = Vec::new();
        let viewport = Viewport::Fixed(Rect::new(0, 0, columns, rows));
        let backend = CrosstermBackend::new(&mut bytes);
        let mut terminal = Terminal::with_options(backend, TerminalOptions { viewport }).unwrap();
        let (screen, model, now) = (&mut self.screen, &self.model, self.now);
        terminal.draw(|frame| draw(frame, screen, model, now)).unwrap();
        drop(terminal);
        let mut parser = vt100::Parser::new(rows, columns, 0);
        parser.process(&bytes);
        parser
    }

    fn show(&mut self, columns: u16, rows: u16) -> String {
        let parser = self.terminal(columns, rows);
        let lines = parser.screen().rows(0, columns);
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// The selected row, which a terminal shows reversed.
    fn selected(&mut self) -> String {
        let parser = self.terminal(120, 30);
        let is_selected =
            |row: &u16| parser.screen().cell(*row, 3).is_some_and(vt100::Cell::inverse) && *row > 2;
        let row = (0..30).find(is_selected).unwrap();
        parser.screen().rows(1, 118).nth(row.into()).unwrap().trim_end().to_owned()
    }

    fn order(&mut self) -> Vec<String> {
        let (table, _) = self.screen.shown(self.screen.pane, (&self.model, self.now), 80);
        table.rows.iter().map(|row| row.cells[0].text.clone()).collect()
    }
}

#[test]
fn terminals_of_three_sizes_show_the_pictures_that_are_kept() {
    for (columns, rows) in [(80, 24), (120, 40), (200, 50)] {
        let mut top = TestTop::new();
        let mut pictures = String::new();
        for key in ['1', '2', '3', '4', '5', '6', '?'] {
            top.types(&key.to_string());
            pictures += &format!("key {key}\n{}", top.show(columns, rows));
        }
        let name = format!("tests/golden/top_{columns}x{rows}.txt");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &pictures).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == pictures, "{name} is another: test with BLESS=1 to renew it\n{pictures}");
    }
}

#[test]
fn keys_choose_panes_rows_and_their_order() {
    let mut top = TestTop::new();
    assert!(top.selected().starts_with("10.77.0.1:6001"), "{}", top.selected());
    for (code, row) in [
        (KeyCode::Down, "10.77.0.1:6002"),
        (KeyCode::End, "10.77.0.1:6005"),
        (KeyCode::Down, "10.77.0.1:6005"),
        (KeyCode::Up, "10.77.0.1:6004"),
        (KeyCode::PageUp, "10.77.0.1:6001"),
        (KeyCode::PageDown, "10.77.0.1:6005"),
        (KeyCode::Home, "10.77.0.1:6001"),
        (KeyCode::Char('j'), "10.77.0.1:6002"),
    ] {
        assert_eq!(top.key(code), TopAction::Nothing);
        assert!(top.selected().starts_with(row), "{code:?}: {}", top.selected());
    }
    // The row stays selected where it goes.
    top.types("r");
    assert_eq!(top.order()[0], "10.77.0.1:6005");
    assert!(top.selected().starts_with("10.77.0.1:6002"), "{}", top.selected());
    top.types("rsss");
    let by_age = ["6004", "6003", "6001", "6002", "6005"].map(|it| format!("10.77.0.1:{it}"));
    assert_eq!(top.order(), by_age);
    assert!(top.show(80, 24).contains("FOR↑"));
    top.types("r");
    assert!(top.show(80, 24).contains("FOR↓"));
    top.types("rssss");
    assert_eq!(top.order()[0], "10.77.0.1:6001", "the usual order again");
    for (code, pane) in [
        (KeyCode::Tab, Pane::Decisions),
        (KeyCode::BackTab, Pane::Members),
        (KeyCode::BackTab, Pane::Rollouts),
        (KeyCode::Right, Pane::Members),
        (KeyCode::Char('5'), Pane::Logs),
        (KeyCode::Left, Pane::Shares),
    ] {
        top.key(code);
        assert_eq!(top.screen.pane, pane);
    }
    assert_eq!(top.key(KeyCode::Char('q')), TopAction::Quit);
    for (c, action) in [('c', TopAction::Quit), ('z', TopAction::Stop), ('l', TopAction::Redraw)] {
        let key = Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
        assert_eq!(top.screen.tell((&top.model, top.now), &key), action);
    }
    let resized = top.screen.tell((&top.model, top.now), &Event::Resize(3, 4));
    assert_eq!(resized, TopAction::Redraw);
}

#[test]
fn a_filter_shows_the_rows_that_have_its_text() {
    let mut top = TestTop::new();
    top.types("/REMOVED");
    assert_eq!(top.screen.mode, Mode::Filter);
    assert!(top.show(80, 24).contains("/REMOVED_"));
    assert_eq!(top.order(), ["10.77.0.1:6003"]);
    top.types("q");
    assert!(top.order().is_empty() && top.show(80, 24).contains("no such row"));
    top.key(KeyCode::Backspace);
    top.key(KeyCode::Enter);
    assert_eq!(top.order(), ["10.77.0.1:6003"]);
    assert_eq!(top.screen.mode, Mode::Rows);
    top.key(KeyCode::Esc);
    assert_eq!(top.order().len(), 5);
    top.types("/\u{1b}x");
    top.screen.tell((&top.model, top.now), &Event::Paste("y\nz".into()));
    assert_eq!(top.screen.view(Pane::Members).filter, "xyz");
    top.key(KeyCode::Esc);
    assert_eq!(top.order().len(), 5);
}

#[test]
fn enter_shows_the_proof_about_a_member_and_the_rest_of_other_rows() {
    let mut top = TestTop::new();
    top.key(KeyCode::Down);
    assert_eq!(top.key(KeyCode::Enter), TopAction::Explain(at(6002)));
    assert!(top.show(80, 24).contains("asks the seeds"));
    top.screen.answer(at(6001), Ok("of another".to_owned()));
    assert!(top.show(80, 24).contains("asks the seeds"));
    let proof: String = (0..40).map(|it| format!("  line {it} \u{1b}[2J\n")).collect();
    top.screen.answer(at(6002), Ok(proof));
    let shown = top.show(80, 24);
    assert!(shown.contains("proof about 10.77.0.1:6002"), "{shown}");
    assert!(shown.contains("  line 0 \\u{1b}[2J") && !shown.contains("line 39"), "{shown}");
    top.key(KeyCode::End);
    assert!(top.show(80, 24).contains("line 39"));
    top.key(KeyCode::PageUp);
    top.key(KeyCode::Up);
    top.key(KeyCode::Home);
    assert!(top.show(80, 24).contains("line 0 "));
    top.key(KeyCode::Esc);
    assert_eq!(top.screen.mode, Mode::Rows);
    for (keys, text) in
        [("3", "messages_published"), ("4", "big.iso"), ("5", "\"term\": 4"), ("6", "all of it")]
    {
        top.types(keys);
        assert_eq!(top.key(KeyCode::Enter), TopAction::Nothing);
        assert!(top.show(80, 48).contains(text), "{keys}: {}", top.show(80, 48));
        top.types("q");
        assert_eq!(top.screen.mode, Mode::Rows);
    }
}

#[test]
fn a_node_that_dies_leaves_its_last_picture_and_is_tried_again() {
    let mut top = TestTop::new();
    let dead = || Sighting {
        at: WallTime(BEGIN + 12_000),
        node: Err("the node of data/peer-6001 does not run; start it first".to_owned()),
        fleet: Some(Err("no seed answered\u{1b}[2J".to_owned())),
        decisions: Vec::new(),
    };
    top.model.take(dead());
    top.now = WallTime(BEGIN + 12_000);
    let shown = top.show(120, 24);
    assert!(
        shown.contains("no answer for 5 s, tries again: the node of data/peer-6001 does not run"),
        "{shown}"
    );
    assert!(
        shown.contains("no answer for 5 s, tries again: no seed answered\\u{1b}[2J"),
        "{shown}"
    );
    assert!(shown.contains("10.77.0.1:6003  removed"), "{shown}");
    assert!(!top.model.decisions.is_empty());
    top.model.take(sighting(13));
    top.now = WallTime(BEGIN + 13_000);
    assert!(!top.show(120, 24).contains("tries again"));
    // Without any answer there is a screen, too.
    let mut empty = TestTop::new();
    empty.model = TopModel::default();
    empty.model.take(dead());
    for pane in ['1', '2', '3', '4', '5', '6'] {
        empty.types(&pane.to_string());
        assert!(empty.show(80, 24).contains("tries again"));
    }
    let open = Sighting { fleet: None, ..sighting(1) };
    empty.model.take(open);
    empty.types("1");
    let shown = empty.show(80, 24);
    assert!(shown.contains("10.77.0.1:6001  known") && shown.contains("4 others"), "{shown}");
}

#[test]
fn any_size_can_be_drawn() {
    let mut top = TestTop::new();
    for (columns, rows) in [(1, 1), (2, 3), (7, 2), (10, 5), (79, 4), (40, 36), (139, 9), (300, 90)]
    {
        for pane in ['1', '2', '3', '4', '5', '6', '?', '?', '/'] {
            top.types(&pane.to_string());
            top.show(columns, rows);
            top.key(KeyCode::Enter);
            top.show(columns, rows);
            top.key(KeyCode::Esc);
        }
    }
}

#[test]
fn without_colors_there_are_none() {
    // Whatever NO_COLOR says to whoever runs the tests.
    ratatui::crossterm::style::force_color_output(true);
    let mut top = TestTop::new();
    let colors = |top: &mut TestTop| {
        let parser = top.terminal(80, 24);
        let cells = (0..24).flat_map(|row| (0..80).map(move |column| (row, column)));
        let is_plain = |it: vt100::Color| it == vt100::Color::Default;
        cells
            .filter_map(|(row, column)| parser.screen().cell(row, column))
            .filter(|it| !is_plain(it.fgcolor()) || !is_plain(it.bgcolor()))
            .count()
    };
    assert!(colors(&mut top) > 100);
    top.screen.has_color = false;
    assert_eq!(colors(&mut top), 0);
    assert!(top.terminal(80, 24).screen().cell(0, 1).unwrap().inverse());
}
