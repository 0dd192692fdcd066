//! Contents of the panes: rows of cells that can be sorted and searched. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::model::{COUNTERS, LOGS, Series, TopModel};
use crate::cli::output::{age, wrap_lines};
use crate::cli::query::{names, round_trip};
use crate::cli::share::{pieces, rate, size};
use crate::cli::size::Size;
use crate::cli::text::escape;
use crate::model::entry::MemberState;
use crate::model::{Endpoint, WallTime};

/// Number of panes.
pub(super) const PANES: usize = 6;

/// A view of one matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    /// Members of the fleet.
    Members,
    /// Decisions of the seeds.
    Decisions,
    /// Rates of messages.
    Messages,
    /// Files that are shared.
    Shares,
    /// Chat and order.
    Logs,
    /// Rollouts and their nodes.
    Rollouts,
}

impl Pane {
    /// All panes, by their numbers.
    pub(super) const ALL: [Self; PANES] =
        [Self::Members, Self::Decisions, Self::Messages, Self::Shares, Self::Logs, Self::Rollouts];

    /// Title of the pane.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Decisions => "decisions",
            Self::Messages => "messages",
            Self::Shares => "shares",
            Self::Logs => "chat & order",
            Self::Rollouts => "rollouts",
        }
    }

    /// The pane beside this one on a wide screen.
    pub(super) const fn partner(self) -> Self {
        match self {
            Self::Members => Self::Decisions,
            Self::Decisions => Self::Members,
            Self::Messages => Self::Logs,
            Self::Logs => Self::Messages,
            Self::Shares => Self::Rollouts,
            Self::Rollouts => Self::Shares,
        }
    }
}

/// Value by which cells are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A number or a time.
    Number(u64),
    /// Address of a node.
    At(Endpoint),
    /// Text of the cell.
    Text(String),
}

/// One cell of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// Text, without characters that could steer a terminal.
    pub(super) text: String,
    /// Value by which it is sorted.
    pub(super) rank: Rank,
}

impl Cell {
    fn text(text: &str) -> Self {
        let text = escape(text);
        Self { rank: Rank::Text(text.clone()), text }
    }

    fn number(number: u64) -> Self {
        Self { text: number.to_string(), rank: Rank::Number(number) }
    }

    fn at(endpoint: Endpoint) -> Self {
        Self { text: endpoint.to_string(), rank: Rank::At(endpoint) }
    }

    fn aged(at: WallTime, now: WallTime) -> Self {
        let span = Duration::from_millis(now.0.saturating_sub(at.0));
        Self { text: age(span), rank: Rank::Number(u64::try_from(span.as_millis()).unwrap_or(0)) }
    }

    fn known(number: Option<u64>) -> Self {
        number.map_or_else(|| Self { text: "-".to_owned(), rank: Rank::Number(0) }, Self::number)
    }
}

/// Meaning of a row's color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing to be said.
    #[default]
    Plain,
    /// State as it should be.
    Good,
    /// Something to look at.
    Warning,
    /// State that is bad.
    Bad,
    /// Something that is over.
    Dim,
}

/// One row of a pane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PaneRow {
    /// Identity of the row, by which it stays selected.
    pub(super) key: String,
    /// Cells, as many as the header has.
    pub(super) cells: Vec<Cell>,
    /// Meaning of its color.
    pub(super) tone: Tone,
    /// Endpoint whose proofs are its details.
    pub(super) endpoint: Option<Endpoint>,
    /// Curve in the last column.
    pub(super) curve: Vec<u64>,
}

/// Content of a pane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PaneTable {
    /// Lines above the rows.
    pub(super) head: Vec<String>,
    /// Names of the columns.
    pub(super) header: Vec<&'static str>,
    /// Rows, in their usual order.
    pub(super) rows: Vec<PaneRow>,
    /// Sentence in the place of rows that are not there.
    pub(super) nothing: &'static str,
}

/// The content of `pane` for a place of `columns`.
pub(super) fn table(pane: Pane, model: &TopModel, now: WallTime, columns: usize) -> PaneTable {
    match pane {
        Pane::Members => members(model, now),
        Pane::Decisions => decisions(model, now),
        Pane::Messages => messages(model),
        Pane::Shares => shares(model),
        Pane::Logs => logs(model),
        Pane::Rollouts => rollouts(model, columns),
    }
}

/// Details of a row that need no question to others.
pub(super) fn details(pane: Pane, model: &TopModel, key: &str) -> String {
    let status = model.status();
    let fields = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    match pane {
        Pane::Members | Pane::Decisions => String::new(),
        Pane::Messages => fields(&status["network"]),
        Pane::Shares => {
            let shares = model.node.iter().flat_map(|it| &it.shares);
            let share = shares.into_iter().find(|it| share_key(it) == key);
            share.map_or_else(String::new, fields)
        }
        Pane::Logs => fields(&status[key]),
        Pane::Rollouts => {
            let rollout = model.node.as_ref().and_then(|it| it.rollout.as_ref());
            rollout.map_or_else(String::new, |it| it.text.clone())
        }
    }
}

fn members(model: &TopModel, now: WallTime) -> PaneTable {
    let round_trips = round_trips(model.status());
    let round_trip_cell = |endpoint: Endpoint| {
        let micros = round_trips.get(&endpoint).copied().flatten();
        let text = micros.map_or_else(|| "-".to_owned(), round_trip);
        Cell { text, rank: Rank::Number(micros.unwrap_or(u64::MAX)) }
    };
    let suspects: BTreeSet<Endpoint> = parsed(&model.status()["suspects"]);
    let nodes = model.fleet.iter().flat_map(|it| &it.nodes);
    let nodes: BTreeMap<_, _> = nodes.map(|it| (it.endpoint, &it.neighbors)).collect();
    let linked_with = |endpoint: Endpoint| {
        let all = nodes.get(&endpoint).into_iter().copied().flatten();
        all.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let rows = match &model.fleet {
        Some(fleet) => fleet
            .members
            .iter()
            .map(|it| {
                let is_suspected = suspects.contains(&it.endpoint);
                let (state, tone) = match it.status {
                    MemberState::Alive if is_suspected => ("suspected", Tone::Warning),
                    MemberState::Alive if it.degree == 0 && fleet.members.len() > 1 => {
                        ("alone", Tone::Warning)
                    }
                    MemberState::Alive => ("alive", Tone::Good),
                    MemberState::Removed => ("removed", Tone::Bad),
                    MemberState::Left => ("left", Tone::Dim),
                };
                PaneRow {
                    key: it.endpoint.to_string(),
                    cells: vec![
                        Cell::at(it.endpoint),
                        Cell::text(state),
                        Cell::aged(it.since, now),
                        Cell::number(u64::from(it.degree)),
                        round_trip_cell(it.endpoint),
                        Cell::text(&linked_with(it.endpoint)),
                    ],
                    tone,
                    endpoint: Some(it.endpoint),
                    curve: Vec::new(),
                }
            })
            .collect(),
        None => known_members(model, &round_trip_cell),
    };
    PaneTable {
        head: Vec::new(),
        header: vec!["ENDPOINT", "STATE", "FOR", "LINKS", "ROUND TRIP", "LINKED WITH"],
        rows,
        nothing: "no members are known",
    }
}

/// Members that the node itself knows: in a fleet without seeds, nobody knows all.
fn known_members(model: &TopModel, round_trip_cell: &dyn Fn(Endpoint) -> Cell) -> Vec<PaneRow> {
    let known = model.status()["topology"].as_object().into_iter().flatten();
    let row = |(name, links): (&String, &Value)| {
        let endpoint: Endpoint = name.parse().ok()?;
        let linked = names(links).replace(", ", " ");
        let links = links.as_array().map_or(0, Vec::len);
        let unknown = Cell { text: "-".to_owned(), rank: Rank::Number(0) };
        Some(PaneRow {
            key: endpoint.to_string(),
            cells: vec![
                Cell::at(endpoint),
                Cell::text("known"),
                unknown,
                Cell::number(links as u64),
                round_trip_cell(endpoint),
                Cell::text(&linked),
            ],
            tone: Tone::Plain,
            endpoint: None,
            curve: Vec::new(),
        })
    };
    known.filter_map(row).collect()
}

fn round_trips(status: &Value) -> BTreeMap<Endpoint, Option<u64>> {
    let neighbors = status["neighbors"].as_object().into_iter().flatten();
    neighbors.filter_map(|(at, micros)| Some((at.parse().ok()?, micros.as_u64()))).collect()
}

fn parsed(list: &Value) -> BTreeSet<Endpoint> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|it| it.as_str()?.parse().ok()).collect()
}

fn decisions(model: &TopModel, now: WallTime) -> PaneTable {
    let row = |it: &super::decisions::Decision| PaneRow {
        key: format!("{} {} {}", it.endpoint, it.what, it.at),
        cells: vec![
            Cell::aged(it.at, now),
            Cell::at(it.endpoint),
            Cell::text(it.what),
            Cell::text(&it.votes),
            Cell::text(&it.why),
        ],
        tone: match it.what {
            "let in" => Tone::Good,
            "left" => Tone::Dim,
            _ => Tone::Bad,
        },
        endpoint: Some(it.endpoint),
        curve: Vec::new(),
    };
    PaneTable {
        head: Vec::new(),
        header: vec!["AGO", "MEMBER", "DECISION", "VOTES OF", "BECAUSE"],
        rows: model.decisions.iter().map(row).collect(),
        nothing: "no decisions are known; they are the seeds', Enter shows the proof",
    }
}

/// A count; one of bytes in a unit that people read.
fn amount(label: &str, count: u64) -> Cell {
    let text = if label.starts_with("bytes") { Size(count).to_string() } else { count.to_string() };
    Cell { text, rank: Rank::Number(count) }
}

fn messages(model: &TopModel) -> PaneTable {
    let rows = COUNTERS.iter().enumerate().filter_map(|(index, (label, _))| {
        let series = model.series(index)?;
        let total = series.total?;
        Some(PaneRow {
            key: (*label).to_owned(),
            cells: vec![
                Cell::text(label),
                series.now().map_or_else(|| Cell::known(None), |it| amount(label, it)),
                amount(label, total),
            ],
            tone: if series.now() > Some(0) { Tone::Good } else { Tone::Plain },
            endpoint: None,
            curve: series.rates.iter().copied().collect(),
        })
    });
    PaneTable {
        head: Vec::new(),
        header: vec!["WHAT", "A SECOND", "IN ALL", "LATELY"],
        rows: rows.collect(),
        nothing: "no node of this machine answers",
    }
}

fn share_key(share: &Value) -> String {
    format!("{} {}", share["ticket"], share["name"])
}

fn shares(model: &TopModel) -> PaneTable {
    let row = |it: &Value| {
        let here = if it["have"].is_u64() { it } else { &it["here"] };
        let (have, all) = (here["have"].as_u64(), here["pieces"].as_u64());
        let speed = |key: &str| Cell {
            text: if it[key].is_u64() { rate(it, key) } else { "-".to_owned() },
            rank: Rank::Number(it[key].as_u64().unwrap_or(0)),
        };
        PaneRow {
            key: share_key(it),
            cells: vec![
                Cell::text(it["name"].as_str().unwrap_or("-")),
                Cell { text: size(it), rank: Rank::Number(it["size"].as_u64().unwrap_or(0)) },
                Cell::known(it["peers"].as_u64()),
                Cell {
                    text: if have.is_some() { pieces(here) } else { "-".to_owned() },
                    rank: Rank::Number(have.unwrap_or(0)),
                },
                speed("down_per_s"),
                speed("up_per_s"),
                Cell::text(it["kind"].as_str().unwrap_or("known")),
            ],
            tone: match (have, all) {
                (Some(have), Some(all)) if have == all => Tone::Good,
                (Some(_), _) => Tone::Warning,
                (None, _) => Tone::Plain,
            },
            endpoint: None,
            curve: Vec::new(),
        }
    };
    PaneTable {
        head: Vec::new(),
        header: vec!["NAME", "SIZE", "PEERS", "PIECES", "DOWN", "UP", "KIND"],
        rows: model.node.iter().flat_map(|it| &it.shares).map(row).collect(),
        nothing: "nothing is shared here; begin with: peer share PATH",
    }
}

fn logs(model: &TopModel) -> PaneTable {
    let status = model.status();
    let mut head = Vec::new();
    let rows = LOGS.iter().enumerate().filter_map(|(index, (name, _))| {
        let it = &status[*name];
        let me = it["id"].as_u64()?;
        let away = names(&it["away"]);
        if !away.is_empty() {
            head.push(escape(&format!("{name}: members out of reach: {away}")));
        }
        let series = model.series(COUNTERS.len() + index);
        let leader = it["leader"].as_u64();
        let has_quorum = match it["reached"].as_u64() {
            Some(reached) => reached >= it["quorum"].as_u64().unwrap_or(0),
            None => it["quorum"] == true,
        };
        Some(PaneRow {
            key: (*name).to_owned(),
            cells: vec![
                Cell::text(name),
                Cell::text(&format!("peer_{me}")),
                leader.map_or_else(|| Cell::text("none"), |id| Cell::text(&format!("peer_{id}"))),
                Cell::known(it["term"].as_u64().or_else(|| it["view"].as_u64())),
                Cell::known(it["members"].as_u64()),
                Cell::known(it["final"].as_u64().or_else(|| it["places"].as_u64())),
                Cell::known(it["pending"].as_u64()),
                Cell::known(series.and_then(Series::now)),
            ],
            tone: match (has_quorum, away.is_empty()) {
                (false, _) => Tone::Bad,
                (true, false) => Tone::Warning,
                (true, true) => Tone::Good,
            },
            endpoint: None,
            curve: series.map_or_else(Vec::new, |it| it.rates.iter().copied().collect()),
        })
    });
    let rows = rows.collect();
    PaneTable {
        head,
        header: vec![
            "LOG", "ME", "LEADER", "TERM", "MEMBERS", "FINAL", "PENDING", "A SECOND", "LATELY",
        ],
        rows,
        nothing: "this node carries no chat and no order; see peer --chat and --order",
    }
}

/// Number of characters of the bar of a rollout.
const BAR: usize = 40;

/// A share of 10,000 as a bar.
fn bar(share: u32, width: usize) -> String {
    let full = (share as usize * width).div_ceil(10_000).min(width);
    format!("[{}{}]", "#".repeat(full), ".".repeat(width - full))
}

fn rollouts(model: &TopModel, columns: usize) -> PaneTable {
    let rollout = model.node.as_ref().and_then(|it| it.rollout.as_ref());
    let header = vec!["NODE", "STATE", "WEIGHTS", "STATUS", "P95", "ERRORS", "REQUESTS"];
    let nothing = "this node takes part in no rollouts; see peer --rollout";
    let Some(rollout) = rollout else {
        return PaneTable { header, nothing, ..PaneTable::default() };
    };
    let progress = wrap_lines(&rollout.progress, columns.max(1));
    let mut head: Vec<_> = progress.lines().map(str::to_owned).collect();
    if let Some(share) = rollout.share {
        head.insert(0, bar(share, BAR.min(columns.saturating_sub(2))));
    }
    let row = |it: &crate::cli::rollout::format::table::NodeRow| {
        let [p95, errors, requests] = &it.figures;
        PaneRow {
            key: it.node.clone(),
            cells: vec![
                Cell::text(&it.node),
                Cell::text(&it.version),
                Cell::text(&it.weights.join(" ")),
                Cell::text(&it.word),
                Cell::text(&p95.join(", ")),
                Cell::text(&errors.join(", ")),
                Cell::text(&requests.join(", ")),
            ],
            tone: if it.word == "COMMITTED" { Tone::Good } else { Tone::Warning },
            endpoint: None,
            curve: Vec::new(),
        }
    };
    PaneTable { head, header, rows: rollout.rows.iter().map(row).collect(), nothing }
}
