//! Deaths: one after the other, many at once, and false ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::seq::IteratorRandom as _;
use rustix::process::Signal;
use serde_json::json;

use super::{Bench, Death, MembershipArgs, SURVIVORS};
use crate::cli::CliError;
use crate::cli::bench::figure::Target;
use crate::cli::fleet::LogEvent;
use crate::model::Endpoint;
use crate::model::statement::LIVES_MAX;

impl Bench {
    /// Kills and stops peers one after the other, and many at once, as the flags say.
    pub(super) fn die(&mut self, args: &MembershipArgs) -> Result<(), CliError> {
        let mut mortal = self.peers.saturating_sub(SURVIVORS);
        let many = args.kill_many.min(mortal);
        mortal -= many;
        let kills = args.kills.min(mortal);
        for _ in 0..kills {
            self.kill()?;
        }
        self.detection("kill")?;
        for _ in 0..args.stops.min(mortal - kills) {
            self.stop()?;
        }
        self.detection("stop")?;
        if many > 0 { self.kill_many(many.into()) } else { Ok(()) }
    }

    /// Kills many at the same instant, and waits until every seed has removed them all.
    fn kill_many(&mut self, count: usize) -> Result<(), CliError> {
        self.watch(Duration::from_secs(2))?;
        let before = self.fleet.story().lines().len();
        let running = self.running_peers();
        let victims: BTreeSet<_> =
            running.into_iter().sample(&mut self.rng, count).into_iter().collect();
        let failed = |source| CliError::System { action: "kill a process", source };
        let at = self.wall();
        for victim in &victims {
            self.fleet.signal(*victim, Signal::KILL).map_err(failed)?;
        }
        for victim in &victims {
            self.fleet.kill(*victim).map_err(failed)?;
        }
        self.dead_at_once += victims.len();
        let wanted = victims.len() * self.seeds;
        let (mut seen, mut endings) = (before, Vec::new());
        self.wait("all victims are removed at every seed", |lines| {
            endings.extend(lines[seen..].iter().filter_map(|it| Ending::of(it, &victims)));
            seen = lines.len();
            endings.len() >= wanted
        })?;
        let waits = waits(&endings, at);
        self.sheet.figure("kill_many_to_removed_at_every_seed_ms", &waits)?;
        let target = Target::AtMost(victims.len().div_ceil(LIVES_MAX) as f64 + 1.0);
        self.sheet.judged("kill_many_decisions", &[decisions(&endings) as f64], target)
    }

    fn running_peers(&self) -> Vec<Endpoint> {
        let peers: BTreeSet<_> = self.fleet.peers().iter().copied().collect();
        self.fleet.running().filter(|node| peers.contains(node)).collect()
    }

    /// A running peer, at random.
    fn victim(&mut self) -> Result<Endpoint, CliError> {
        let chosen = self.running_peers().into_iter().choose(&mut self.rng);
        chosen.ok_or_else(|| CliError::Failed("no peer is left to kill".to_owned()))
    }

    fn kill(&mut self) -> Result<(), CliError> {
        let victim = self.victim()?;
        let before = self.deed(victim)?;
        let now = self.wall();
        let failed = |source| CliError::System { action: "kill a process", source };
        self.fleet.kill(victim).map_err(failed)?;
        self.death("kill", victim, before, now)
    }

    fn stop(&mut self) -> Result<(), CliError> {
        let victim = self.victim()?;
        let before = self.deed(victim)?;
        let now = self.wall();
        let failed = |source| CliError::System { action: "stop a process", source };
        self.fleet.signal(victim, Signal::STOP).map_err(failed)?;
        self.death("stop", victim, before, now)?;
        self.fleet.kill(victim).map_err(failed)
    }

    /// Lets the fleet come to rest before a deed. Returns the number of log lines before it, and
    /// the victim's neighbors.
    fn deed(&mut self, victim: Endpoint) -> Result<(usize, BTreeSet<Endpoint>), CliError> {
        self.watch(Duration::from_secs(2))?;
        let lines = self.fleet.story().lines();
        let of_victim = lines.iter().rev().find(|it| it.node == victim && it.event == "neighbors");
        let list = of_victim.and_then(|line| line.fields.get("neighbors")?.as_array());
        let parse = |it: &serde_json::Value| it.as_str()?.parse().ok();
        let neighbors = list.map(|list| list.iter().filter_map(parse).collect());
        Ok((lines.len(), neighbors.unwrap_or_default()))
    }

    /// Waits until a death is known everywhere, and prints the time of each stage.
    fn death(
        &mut self,
        deed: &str,
        victim: Endpoint,
        (before, neighbors): (usize, BTreeSet<Endpoint>),
        at: u64,
    ) -> Result<(), CliError> {
        let seeds = self.seeds;
        let about = move |line: &&LogEvent| line.endpoint("endpoint") == Some(victim);
        let removed = |lines: &[LogEvent], role: &str| -> BTreeMap<Endpoint, u64> {
            let lines = lines[before..].iter().filter(about);
            lines.filter(|it| it.is(role, "removed")).map(|it| (it.node, it.ts_ms)).collect()
        };
        let (mut seen, mut known) = (before, BTreeSet::new());
        self.wait("the victim is removed everywhere", |lines| {
            let news = lines[seen..].iter().filter(about).filter(|it| it.event == "removed");
            known.extend(news.map(|it| (it.role.clone(), it.node)));
            seen = lines.len();
            known.iter().filter(|(role, _)| role == "seed").count() >= seeds
                && neighbors.iter().all(|it| known.contains(&("peer".to_owned(), *it)))
        })?;
        let lines = self.fleet.story().lines();
        let since = |ms: u64| ms.saturating_sub(at) as f64;
        let first = |event: &str| {
            let mut all = lines[before..].iter().filter(about);
            all.find(|line| line.is("peer", event)).map_or(f64::NAN, |line| since(line.ts_ms))
        };
        let last = |role: &str, of: &dyn Fn(&Endpoint) -> bool| {
            let all = removed(lines, role).into_iter().filter(|(node, _)| of(node));
            all.map(|(_, ms)| since(ms)).fold(0.0, f64::max)
        };
        let death = Death {
            suspected: first("suspected"),
            reported: first("reported"),
            removed: last("seed", &|_| true),
            dropped: last("peer", &|node| neighbors.contains(node)),
        };
        let fields = json!({
            "victim": victim, "degree": neighbors.len(), "suspected_ms": death.suspected,
            "reported_ms": death.reported, "removed_at_every_seed_ms": death.removed,
            "dropped_by_every_neighbor_ms": death.dropped,
        });
        self.deaths.entry(deed.to_owned()).or_default().push(death);
        self.sheet.line(deed, fields)
    }

    fn detection(&self, deed: &str) -> Result<(), CliError> {
        let Some(deaths) = self.deaths.get(deed) else { return Ok(()) };
        let column = |pick: fn(&Death) -> f64| deaths.iter().map(pick).collect::<Vec<_>>();
        let name = |stage: &str| format!("{deed}_to_{stage}_ms");
        self.sheet.figure(&name("suspected"), &column(|it| it.suspected))?;
        self.sheet.figure(&name("reported"), &column(|it| it.reported))?;
        self.sheet.figure(&name("removed_at_every_seed"), &column(|it| it.removed))?;
        self.sheet.figure(&name("dropped_by_every_neighbor"), &column(|it| it.dropped))
    }

    /// Counts members that were removed though they were not killed or stopped.
    pub(super) fn innocents(&mut self) -> Result<(), CliError> {
        let deaths = self.deaths.values().map(Vec::len).sum::<usize>() + self.dead_at_once;
        let lines = self.fleet.story().lines();
        let removed: BTreeSet<_> = lines
            .iter()
            .filter(|line| line.is("seed", "removed"))
            .map(|line| (line.endpoint("endpoint"), line.number("incarnation")))
            .collect();
        let wrong = removed.len().saturating_sub(deaths);
        let fields = json!({ "deaths": deaths, "wrong": wrong, "target": "at most 0",
            "met": wrong == 0 });
        self.sheet.line("removals", fields)
    }
}

/// End of one victim, as one seed decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ending {
    seed: Endpoint,
    victim: Endpoint,
    at: u64,
    certificate: Certificate,
}

/// Fields that identify a certificate in the log of one seed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Certificate {
    decided_ms: u64,
    lives: u64,
    voters: String,
}

impl Ending {
    /// The end of one of `victims` that a log line reports, if it does.
    fn of(line: &LogEvent, victims: &BTreeSet<Endpoint>) -> Option<Self> {
        let victim = line.endpoint("endpoint").filter(|it| victims.contains(it))?;
        let certificate = Certificate {
            decided_ms: line.number("decided_ms")?,
            lives: line.number("decided_together")?,
            voters: line.fields.get("seeds")?.to_string(),
        };
        let (seed, at) = (line.node, line.ts_ms);
        line.is("seed", "removed").then_some(Self { seed, victim, at, certificate })
    }
}

/// Milliseconds from `deed` until the last seed had removed each victim.
fn waits(endings: &[Ending], deed: u64) -> Vec<f64> {
    let mut last = BTreeMap::new();
    for ending in endings {
        let at = last.entry(ending.victim).or_insert(0);
        *at = ending.at.max(*at);
    }
    last.into_values().map(|at| at.saturating_sub(deed) as f64).collect()
}

/// Number of certificates by which the victims ended, at the seed that needed the most.
fn decisions(endings: &[Ending]) -> usize {
    let mut at_seeds: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for ending in endings {
        at_seeds.entry(ending.seed).or_default().insert(&ending.certificate);
    }
    at_seeds.values().map(BTreeSet::len).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seed: u16, victim: u16, (at, decided): (u64, u64), event: &str) -> LogEvent {
        let line = json!({ "ts": "", "ts_ms": at, "level": "info", "role": "seed",
            "node": format!("127.0.0.1:{seed}"), "event": event, "message": "",
            "endpoint": format!("127.0.0.1:{victim}"), "decided_ms": decided,
            "decided_together": 2, "seeds": [1, 2] });
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn victims_of_one_certificate_are_one_decision() {
        let victims = (1..=3).map(|port| Endpoint::new([127, 0, 0, 1].into(), port)).collect();
        let lines = [
            line(5001, 1, (1_300, 200), "removed"),
            line(5001, 2, (1_301, 200), "removed"),
            line(5001, 3, (1_500, 400), "removed"),
            line(5002, 1, (1_302, 200), "removed"),
            line(5002, 2, (1_302, 200), "removed"),
            line(5002, 3, (1_600, 400), "removed"),
            line(5002, 4, (1_700, 500), "removed"),
            line(5002, 3, (1_700, 500), "proposed"),
        ];
        let endings: Vec<_> = lines.iter().filter_map(|it| Ending::of(it, &victims)).collect();
        assert_eq!(endings.len(), 6, "neither others nor other events");
        assert_eq!(decisions(&endings), 2);
        assert_eq!(decisions(&endings[..2]), 1);
        assert_eq!(decisions(&[]), 0);
        assert_eq!(waits(&endings, 1_000), [302.0, 302.0, 600.0]);
    }
}
