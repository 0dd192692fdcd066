//! Record of a run for the page that plays it: the whole fleet as each phase begins, and what its
//! nodes tell since, in the words of their log.
//!
//! Several nodes tell the same: it is recorded once, when the first tells it; a suspicion, as far
//! as the node came that has most confirmations. The record is bounded: gossip is folded by
//! moments, and a phase has at most [`EVENTS_MAX`] events. What is left out is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::args::SimulateArgs;
use super::fleet::Fleet;
use crate::cli::log::LogLine;
use crate::cli::report::{PeerReport, SeedReport};
use crate::cli::run::decisions_of_life;
use crate::machine::membership::authority;
use crate::machine::{gossip, liveness, overlay};
use crate::model::{Endpoint, Now, Time};
use crate::node::{Event, SeedNode, peer_kind, seed_kind};

/// Largest number of events of one phase.
const EVENTS_MAX: usize = 20_000;

/// Largest number of ways of gossip that are told of one moment: the page shows no more at once.
const HOPS_MAX: usize = 160;

/// Number of decisions that the page keeps.
const DECISIONS_MAX: usize = 200;

/// Record of one run.
pub(super) struct Record {
    /// Wall clock of the fleet when the run began.
    epoch_ms: u64,
    events: Vec<Value>,
    phases: Vec<Value>,
    faults: Vec<Value>,
    decisions: VecDeque<Value>,
    /// Number of events of this phase.
    in_phase: usize,
    left_out: BTreeMap<&'static str, u64>,
    /// Names of what was told once and is not told again.
    told: BTreeSet<String>,
    links: BTreeSet<(Endpoint, Endpoint)>,
    suspicions: BTreeMap<String, Suspicion>,
    /// Number of yes votes of all seeds about each proposal.
    yes_votes: BTreeMap<String, u64>,
    moment: Moment,
    seeds: SeedReport,
}

/// Suspicion of one life, by all who have it.
#[derive(Default)]
struct Suspicion {
    by: BTreeSet<Endpoint>,
    /// Largest number of confirmations that one of them has.
    count: u64,
}

/// Gossip of one moment.
#[derive(Default)]
struct Moment {
    made: u64,
    heard: u64,
    hops: Vec<(Endpoint, Endpoint)>,
}

impl Record {
    /// An empty record of a fleet that has just been laid out.
    pub(super) fn new(fleet: &Fleet) -> Self {
        Self {
            epoch_ms: fleet.seeds.first().map_or(0, |it| fleet.world.wall(*it).0),
            events: Vec::new(),
            phases: Vec::new(),
            faults: Vec::new(),
            decisions: VecDeque::new(),
            in_phase: 0,
            left_out: BTreeMap::new(),
            told: BTreeSet::new(),
            links: BTreeSet::new(),
            suspicions: BTreeMap::new(),
            yes_votes: BTreeMap::new(),
            moment: Moment::default(),
            seeds: SeedReport::default(),
        }
    }

    /// A moment of the run in milliseconds since 1970, by the clock of the fleet.
    fn ms(&self, at: Time) -> f64 {
        self.epoch_ms as f64 + at.as_micros() as f64 / 1_000.0
    }

    fn push(&mut self, at: Time, name: &'static str, data: Value) {
        if self.in_phase >= EVENTS_MAX {
            *self.left_out.entry(name).or_default() += 1;
            return;
        }
        self.in_phase += 1;
        let mut event = json!({ "at_ms": self.ms(at), "name": name });
        event["data"] = data;
        self.events.push(event);
    }

    fn push_line(&mut self, at: Time, node: Endpoint, mut line: LogLine) {
        line.fields.insert("node".to_owned(), json!(node));
        let LogLine { level, event, message, fields } = line;
        let level = level.as_str().to_ascii_lowercase();
        let data = json!({ "level": level, "event": event, "message": message, "fields": fields });
        self.push(at, "log", data);
    }

    /// Begins a phase: whatever an earlier one left out is true again.
    pub(super) fn begin(&mut self, phase: &str, fleet: &Fleet) {
        let now = fleet.world.now();
        self.phases.push(json!({ "at_ms": self.ms(now), "name": phase }));
        self.in_phase = 0;
        let pairs = fleet.peers.iter().filter_map(|it| fleet.peer(*it).map(|node| (it, node)));
        self.links = pairs
            .flat_map(|(it, node)| node.overlay().neighbors().keys().map(|to| pair(*it, *to)))
            .collect();
        let whole = self.whole(fleet);
        self.push(now, "fleet", whole);
    }

    /// The fleet as a seed knows it, in the form in which a node tells it to the page.
    fn whole(&self, fleet: &Fleet) -> Value {
        let seed = fleet.seeds.iter().find_map(|it| fleet.seed(*it));
        let registry = seed.map(|it| it.authority().registry());
        let members = registry.into_iter().flat_map(|it| it.entries()).map(|it| {
            json!({
                "endpoint": it.subject.endpoint, "incarnation": it.subject.incarnation,
                "status": it.status(), "since_ms": it.since().0,
            })
        });
        let members: Vec<_> = members.collect();
        let links = self.links.iter().map(|(a, b)| json!({ "a": a, "b": b, "both": true }));
        let seeds = (1..).zip(&fleet.seeds);
        let seeds =
            seeds.map(|(id, it): (u16, _)| json!({ "endpoint": it, "id": id, "linked": true }));
        let count = fleet.seeds.len();
        json!({
            "node": {
                "role": "simulation of", "endpoint": format!("{} peers", fleet.peers.len()),
                "version": env!("CARGO_PKG_VERSION"), "healthy": true, "trouble": null,
            },
            "quorum": {
                "seeds": count, "linked": count,
                "needed": seed.map(|it| it.authority().book().quorum()),
            },
            "seeds": seeds.collect::<Vec<_>>(),
            "members": members,
            "links": links.collect::<Vec<_>>(),
            "decisions": self.decisions,
        })
    }

    /// Records that these peers die now.
    pub(super) fn kill(&mut self, victims: &BTreeSet<Endpoint>, silently: bool, now: Time) {
        self.in_phase = 0;
        let kind = if silently { "vanish" } else { "crash" };
        let how = if silently { "vanishes with its host" } else { "is killed" };
        for victim in victims {
            self.faults.push(json!({ "at_ms": self.ms(now), "kind": kind, "endpoint": victim }));
            let fields = json!({ "endpoint": victim });
            let message = format!("{victim} {how}");
            self.push_line(now, *victim, LogLine::new(log::Level::Warn, kind, message, fields));
        }
    }

    /// Takes an event of a node.
    pub(super) fn book(&mut self, at: Time, node: Endpoint, event: &Event, fleet: &Fleet) {
        let lines = match event {
            Event::Seed(event) => self.seed_lines(event),
            Event::Peer(event) => self.peer_lines(node, event),
        };
        for mut line in lines {
            if !self.is_new(node, &line) {
                continue;
            }
            if line.event == "voted" {
                self.count_vote(&mut line);
            }
            let decided = match line.event {
                "admitted" => Some("admit"),
                "removed" => Some("remove"),
                _ => None,
            };
            let subject = endpoint(&line);
            self.push_line(at, node, line);
            if let (Some(kind), Some(seed), Some(subject)) = (decided, fleet.seed(node), subject) {
                self.decide(at, kind, subject, seed);
            }
        }
    }

    /// Makes the count of a vote that of all seeds: each has counted those that it has heard.
    fn count_vote(&mut self, line: &mut LogLine) {
        let [kind, endpoint, life] = ["kind", "endpoint", "incarnation"]
            .map(|it| line.fields.get(it).map(Value::to_string).unwrap_or_default());
        let count = self.yes_votes.entry(format!("{kind} {endpoint} {life}")).or_default();
        *count += u64::from(line.fields.get("yes") == Some(&Value::Bool(true)));
        line.fields.insert("count".to_owned(), json!(count));
    }

    /// Records the certificate of a decision, which the seed has checked again.
    fn decide(&mut self, at: Time, kind: &str, subject: Endpoint, seed: &SeedNode) {
        let Some(life) = seed.authority().registry().get(subject) else { return };
        let all = decisions_of_life(life, seed.authority().book());
        let Some(decision) = all.into_iter().find(|it| it["kind"] == kind) else { return };
        self.push(at, "decided", decision.clone());
        self.decisions.push_front(decision);
        self.decisions.truncate(DECISIONS_MAX);
    }

    fn seed_lines(&mut self, event: &seed_kind::Event) -> Vec<LogLine> {
        use authority::Event as It;
        let is_told = matches!(
            event,
            seed_kind::Event::Authority(
                It::Reported { .. }
                    | It::Proposed { .. }
                    | It::Voted { .. }
                    | It::Aborted { .. }
                    | It::Admitted(_)
                    | It::Removed { .. }
                    | It::Left(_)
            )
        );
        if is_told { self.seeds.lines(Now::default(), event) } else { Vec::new() }
    }

    fn peer_lines(&mut self, node: Endpoint, event: &peer_kind::Event) -> Vec<LogLine> {
        use liveness::Event as It;
        if let peer_kind::Event::Gossip { event, from } = event {
            match (event, from) {
                (gossip::Event::Made { .. }, _) => self.moment.made += 1,
                (gossip::Event::Heard { .. }, Some(from)) => {
                    self.moment.heard += 1;
                    self.moment.hops.push((*from, node));
                }
                (gossip::Event::Heard { .. } | gossip::Event::Malformed { .. }, _) => {}
            }
        }
        let is_told = matches!(
            event,
            peer_kind::Event::Overlay(
                overlay::Event::Linked { .. } | overlay::Event::Unlinked { .. }
            ) | peer_kind::Event::Liveness(
                It::Suspected { .. } | It::Confirmed { .. } | It::Cleared { .. }
            )
        );
        // What a report remembers is of no use for these.
        if is_told { PeerReport::default().lines(Now::default(), event) } else { Vec::new() }
    }

    /// True if nobody has told this yet.
    fn is_new(&mut self, node: Endpoint, line: &LogLine) -> bool {
        let field = |name: &str| line.fields.get(name).unwrap_or(&Value::Null);
        let life = format!("{} {}", field("endpoint"), field("incarnation"));
        match line.event {
            "linked" | "unlinked" => {
                let Some(neighbor) = field("neighbor").as_str().and_then(|it| it.parse().ok())
                else {
                    return false;
                };
                let pair = pair(node, neighbor);
                if line.event == "linked" {
                    self.links.insert(pair)
                } else {
                    self.links.remove(&pair)
                }
            }
            "suspected" => {
                let by = &mut self.suspicions.entry(life).or_default().by;
                by.insert(node);
                by.len() == 1
            }
            "confirmed" => {
                let suspicion = self.suspicions.entry(life).or_default();
                let count = field("count").as_u64().unwrap_or(0);
                let is_more = count > suspicion.count;
                suspicion.count = suspicion.count.max(count);
                is_more
            }
            "cleared" => {
                let Some(suspicion) = self.suspicions.get_mut(&life) else { return false };
                suspicion.by.remove(&node);
                let is_last = suspicion.by.is_empty();
                if is_last {
                    self.suspicions.remove(&life);
                }
                is_last
            }
            "dead_node" => false,
            event => {
                let whose = format!("{event} {} {life} {}", field("kind"), field("seed"));
                self.told.insert(whose)
            }
        }
    }

    /// Records the gossip of a moment that is over.
    pub(super) fn fold(&mut self, at: Time) {
        let Moment { made, heard, mut hops } = std::mem::take(&mut self.moment);
        if made + heard == 0 {
            return;
        }
        let more = hops.len().saturating_sub(HOPS_MAX);
        if more > 0 {
            *self.left_out.entry("hops").or_default() += more as u64;
        }
        hops.truncate(HOPS_MAX);
        self.push(at, "gossip", json!({ "made": made, "count": heard, "hops": hops }));
    }

    /// The record as the page reads it.
    pub(super) fn finish(self, args: &SimulateArgs, end: Time) -> String {
        let whole = json!({
            "version": 1, "title": super::chart::parameters(args),
            "start_ms": self.epoch_ms, "end_ms": self.ms(end),
            "phases": self.phases, "faults": self.faults, "events": self.events,
            "left_out": self.left_out,
        });
        whole.to_string()
    }
}

/// Two ends of a link, the lower one first.
fn pair(a: Endpoint, b: Endpoint) -> (Endpoint, Endpoint) {
    (a.min(b), a.max(b))
}

/// Endpoint that a line is about.
fn endpoint(line: &LogLine) -> Option<Endpoint> {
    line.fields.get("endpoint")?.as_str()?.parse().ok()
}
