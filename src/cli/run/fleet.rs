//! The whole fleet as one node tells it over HTTP: what it knows itself, and what a seed tells it.
//!
//! A seed is asked in the background, while somebody looks, and never more often than its answers
//! are cheap: after an answer that took a time t, for at least 20 t nobody is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::query::{FleetView, QueryError, fleet_view_of};
use crate::machine::membership::seedbook::SeedBook;
use crate::model::entry::{MemberState, RegistryEntry};
use crate::model::statement::{Removal, RemovalReason, Vote};
use crate::model::{Endpoint, Time};
use crate::proto::membership::MemberLine;
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Largest number of endpoints whose decisions are told: those that changed last.
const DECIDED_MAX: usize = 200;

/// Shortest pause between two questions to a seed.
const PAUSE_MIN: Duration = Duration::from_millis(400);

/// Time that the first request waits for a seed.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The fleet as seeds tell it to one node.
pub(super) struct FleetFeed {
    keys: Option<Arc<ClusterKeys>>,
    state: Mutex<State>,
    answered: Condvar,
    clock: Clock,
}

#[derive(Default)]
struct State {
    told: Option<Arc<Told>>,
    error: Option<String>,
    /// Moment before which nobody is asked again.
    not_before: Option<Time>,
    is_asking: bool,
}

/// An answer of a seed, with the decisions checked here.
struct Told {
    fleet: FleetView,
    /// Decisions about the endpoints that changed last.
    decisions: Decisions,
    at: Time,
}

/// Decisions about endpoints, each with the line of the member that they led to.
type Decisions = BTreeMap<Endpoint, (MemberLine, Arc<[Value]>)>;

impl FleetFeed {
    pub(super) fn new(keys: Option<Arc<ClusterKeys>>) -> Arc<Self> {
        let (state, answered) = (Mutex::default(), Condvar::new());
        Arc::new(Self { keys, state, answered, clock: Clock::start() })
    }

    /// Fields `told`, `members`, `links` and `decisions` of the fleet. `status` is that of the
    /// node, whose keys of the seeds are in `book`.
    pub(super) fn fields(self: &Arc<Self>, status: &Value, book: &SeedBook) -> Value {
        let seeds: Vec<_> = book.seeds().map(|(_, endpoint)| endpoint).collect();
        if seeds.is_empty() {
            return open_fleet(status);
        }
        let (told, error) = self.look(seeds, book);
        let Some(told) = told else {
            let mut fields = open_fleet(status);
            fields["told"] = json!({ "by": null, "age_ms": null, "error": error });
            return fields;
        };
        let age = self.clock.now().mono.since(told.at);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let links =
            links(status, told.fleet.nodes.iter().map(|it| (it.endpoint, &it.neighbors[..])));
        let member = |it: &MemberLine| {
            json!({
                "endpoint": it.endpoint, "incarnation": it.incarnation, "status": it.status,
                "since_ms": it.since.0, "degree": it.degree,
            })
        };
        let mut decisions: Vec<_> = told.decisions.values().flat_map(|it| it.1.iter()).collect();
        decisions.sort_by_key(|it| std::cmp::Reverse(it["at_ms"].as_u64()));
        decisions.truncate(DECIDED_MAX);
        json!({
            "told": { "by": told.fleet.seed, "age_ms": age_ms, "error": error },
            "members": told.fleet.members.iter().map(member).collect::<Vec<_>>(),
            "links": links,
            "decisions": decisions,
        })
    }

    /// The newest answer, and the failure of a later question. A further question begins, if it is
    /// time.
    fn look(
        self: &Arc<Self>,
        mut seeds: Vec<Endpoint>,
        book: &SeedBook,
    ) -> (Option<Arc<Told>>, Option<String>) {
        let mut state = self.state.lock().expect("nothing under this lock can panic");
        let now = self.clock.now().mono;
        let is_time = state.not_before.is_none_or(|it| now >= it);
        if is_time && !state.is_asking {
            // The seed that answered last is asked first.
            let last = state.told.as_ref().map(|it| it.fleet.seed);
            seeds.sort_by_key(|it| Some(*it) != last);
            let (view, before, book) = (Arc::clone(self), state.told.clone(), book.clone());
            let ask = move || view.ask(&seeds, before.as_deref(), &book);
            match thread::spawn("fleet", ask) {
                Ok(_) => state.is_asking = true,
                Err(error) => state.error = Some(error.to_string()),
            }
        }
        if state.told.is_none() && state.is_asking {
            let is_waiting = |it: &mut State| it.is_asking;
            let waited = self.answered.wait_timeout_while(state, FIRST_WAIT, is_waiting);
            state = waited.expect("nothing under this lock can panic").0;
        }
        (state.told.clone(), state.error.clone())
    }

    fn ask(&self, seeds: &[Endpoint], before: Option<&Told>, book: &SeedBook) {
        let begun = self.clock.now().mono;
        let none = Decisions::new();
        let known = before.map_or(&none, |it| &it.decisions);
        let fleet = fleet_view_of(seeds, self.keys.clone(), |members| {
            newest(members).filter(|it| is_new(it, known)).map(|it| it.endpoint).collect()
        });
        let fleet = fleet.map(|fleet| {
            let decisions = decisions(&fleet, known, book);
            Arc::new(Told { fleet, decisions, at: self.clock.now().mono })
        });
        let now = self.clock.now().mono;
        let mut state = self.state.lock().expect("nothing under this lock can panic");
        state.error = fleet.as_ref().err().map(QueryError::to_string);
        state.told = fleet.ok().or(state.told.take());
        state.not_before = Some(now.after(PAUSE_MIN.max(now.since(begun) * 20)));
        state.is_asking = false;
        drop(state);
        self.answered.notify_all();
    }
}

/// The fleet as the node alone knows it: itself, its neighbors, and theirs.
fn open_fleet(status: &Value) -> Value {
    let parse = |text: &str| text.parse::<Endpoint>().ok();
    let mut nodes: BTreeMap<Endpoint, Vec<Endpoint>> = BTreeMap::new();
    for (node, neighbors) in status["topology"].as_object().into_iter().flatten() {
        let Some(node) = parse(node) else { continue };
        let neighbors = neighbors.as_array().into_iter().flatten();
        let neighbors = neighbors.filter_map(|it| it.as_str().and_then(parse)).collect();
        nodes.insert(node, neighbors);
    }
    let others: BTreeSet<_> = nodes.values().flatten().copied().collect();
    let all: BTreeSet<_> = nodes.keys().copied().chain(others).collect();
    let member = |it: &Endpoint| {
        let degree = nodes.get(it).map(Vec::len);
        json!({
            "endpoint": it, "incarnation": null, "status": MemberState::Alive, "since_ms": null,
            "degree": degree,
        })
    };
    let members: Vec<_> = all.iter().map(member).collect();
    let links = links(status, nodes.iter().map(|(node, neighbors)| (*node, &neighbors[..])));
    json!({ "told": null, "members": members, "links": links, "decisions": [] })
}

/// Each link once, the lower end first.
fn links<'a>(
    status: &Value,
    nodes: impl Iterator<Item = (Endpoint, &'a [Endpoint])>,
) -> Vec<Value> {
    let mut links: BTreeMap<(Endpoint, Endpoint), u8> = BTreeMap::new();
    for (node, neighbors) in nodes {
        for other in neighbors {
            *links.entry((node.min(*other), node.max(*other))).or_default() += 1;
        }
    }
    let me = status["endpoint"].as_str().and_then(|it| it.parse::<Endpoint>().ok());
    let round_trip = |a: Endpoint, b: Endpoint| {
        let other = if Some(a) == me { b } else { a };
        let is_own = Some(a) == me || Some(b) == me;
        is_own.then(|| status["neighbors"][other.to_string()].as_u64()).flatten()
    };
    let link = |((a, b), named): ((Endpoint, Endpoint), u8)| {
        let rtt_us = round_trip(a, b);
        json!({ "a": a, "b": b, "both": named > 1, "rtt_us": rtt_us })
    };
    links.into_iter().map(link).collect()
}

/// The members that changed last.
fn newest(members: &[MemberLine]) -> impl Iterator<Item = &MemberLine> {
    let mut newest: Vec<_> = members.iter().collect();
    newest.sort_by_key(|it| std::cmp::Reverse(it.since));
    newest.into_iter().take(DECIDED_MAX)
}

/// True if other decisions about a member may be known than these, or some of these were not
/// valid: the key of a seed may have become known since.
fn is_new(line: &MemberLine, known: &Decisions) -> bool {
    known.get(&line.endpoint).is_none_or(|(before, decisions)| {
        (before.incarnation, before.status, before.since)
            != (line.incarnation, line.status, line.since)
            || decisions.iter().any(|it| it["valid"] != true)
    })
}

/// Decisions about the members that changed last: those that were explained now, and the known.
fn decisions(fleet: &FleetView, known: &Decisions, book: &SeedBook) -> Decisions {
    let explained: BTreeMap<_, _> =
        fleet.explained.iter().map(|it| (it.endpoint, &it.lives)).collect();
    let one = |line: &MemberLine| {
        let made = explained.get(&line.endpoint).map(|lives| {
            let all: Arc<[Value]> =
                lives.iter().flat_map(|it| decisions_of_life(it, book)).collect();
            (line.clone(), all)
        });
        let known = made.or_else(|| known.get(&line.endpoint).cloned())?;
        Some((line.endpoint, known))
    };
    newest(&fleet.members).filter_map(one).collect()
}

/// Decisions about one life, with their certificates checked, in the form of the page.
pub(in crate::cli) fn decisions_of_life(life: &RegistryEntry, book: &SeedBook) -> Vec<Value> {
    let (endpoint, incarnation) = (life.subject.endpoint, life.subject.incarnation);
    let entry = |kind: &str, at_ms: u64, votes: &[Vote], checked: Result<(), String>| {
        let votes: Vec<_> =
            votes.iter().map(|it| json!({ "seed": it.seed, "at_ms": it.at.0 })).collect();
        json!({
            "id": format!("{kind}-{endpoint}-{incarnation}"), "kind": kind, "endpoint": endpoint,
            "incarnation": incarnation, "at_ms": at_ms, "votes": votes, "findings": [],
            "together": [], "valid": checked.is_ok(), "why": checked.err(),
        })
    };
    let mut all = Vec::new();
    if let Some(admission) = &life.admission {
        let checked = book.verify_admission(admission).map_err(|it| it.to_string());
        all.push(entry("admit", admission.at().0, &admission.votes, checked));
    }
    if let Some(removal) = &life.removal {
        let kind = match removal.because {
            RemovalReason::Death => "remove",
            RemovalReason::Eviction => "evict",
        };
        let checked = book.verify_removal(removal).map_err(|it| it.to_string());
        let mut decision = entry(kind, removal.at().0, &removal.votes, checked);
        decision["findings"] = findings(removal, life);
        let others = removal.lives.iter().filter(|it| **it != life.subject);
        decision["together"] = others.map(|it| json!(it.endpoint)).collect();
        all.push(decision);
    }
    if let Some(leave) = &life.leave {
        let checked = if leave.is_valid() {
            Ok(())
        } else {
            Err("the member's signature does not fit".to_owned())
        };
        all.push(entry("leave", leave.at.0, &[], checked));
    }
    all
}

/// Findings of the witnesses; the first accused.
fn findings(removal: &Removal, life: &RegistryEntry) -> Value {
    let mut found = removal.evidence_about(&life.subject);
    found.sort_by_key(|it| (it.at, it.witness));
    let one = |(number, it): (usize, &crate::model::statement::Confirmation)| {
        json!({
            "witness": it.witness, "finding": it.finding.as_str(), "at_ms": it.at.0,
            "accuser": number == 0,
        })
    };
    found.iter().enumerate().map(one).collect()
}
