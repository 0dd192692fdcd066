//! Log lines of all events: the only place that knows the required lines.
//!
//! Two texts are fixed to the letter, and each is the whole message of its line: gossip,
//! `<timestamp>:<IP>:<Msg#>`, and the death report, `Dead Node:<IP>:<Port>:<timestamp>:<reporter
//! IP>`. Both are made by the protocol and printed here untouched; a companion line tells the story
//! around each. Pings and duplicate gossip make no line at all.
//!
//! `docs/LOG.md` lists every event; names and fields here are a promise to programs.

mod direct;
mod open;
mod peer;
mod seed;

use open::open_line;
pub use peer::PeerReport;
pub use seed::SeedReport;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ::log::Level;
use serde_json::json;

use super::log::LogLine;
use super::text::foreign;
use crate::machine::HostAnswer;
use crate::model::statement::{Confirmation, Leave, MemberInstance, Removal, RemovalReason, Vote};
use crate::model::{Endpoint, PublicKey, SeedId, Time};
use crate::node::Refusal;
use crate::proto::hello::SeedKey;

/// Largest number of endpoints that one line names; the rest is a number. `peer members` lists all.
const NAMED_MAX: usize = 50;

/// Pause between two lines about the changed key of one seed.
const CONTRADICTION_PAUSE: Duration = Duration::from_secs(30);

fn lists_differ(reason: &str) -> LogLine {
    LogLine::new(Level::Warn, "lists_differ", foreign(reason), json!({ "reason": reason }))
}

/// `1 member`, `2 members`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// `a, b, c`, or `none`, or the first of many and the number of the rest.
pub(super) fn listed<T: std::fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let named: Vec<_> = items.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let mut text = named.join(", ");
    if items.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", items.len() - NAMED_MAX);
    }
    text
}

/// `seed 1`, `seeds 1 and 2`, `seeds 1, 2 and 3`.
pub(super) fn seeds_text(seeds: &[SeedId]) -> String {
    match seeds {
        [] => "no seed".to_owned(),
        [one] => format!("seed {one}"),
        [rest @ .., last] => {
            let rest: Vec<_> = rest.iter().map(ToString::to_string).collect();
            format!("seeds {} and {last}", rest.join(", "))
        }
    }
}

pub(super) fn voters(votes: &[Vote]) -> Vec<SeedId> {
    votes.iter().map(|vote| vote.seed).collect()
}

/// A span in whole milliseconds.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Votes so far; votes may also come when there are enough.
fn yes_votes(count: usize, needed: usize) -> String {
    if count > needed {
        format!("{count} yes votes, more than the {needed} needed")
    } else {
        format!("{count} of {needed} yes votes")
    }
}

/// Answer of the system's ping for a host, as a subordinate remark; empty if there is none.
const fn host_remark(host: Option<HostAnswer>) -> &'static str {
    match host {
        Some(HostAnswer::Answered) => "; its host answers ping",
        Some(HostAnswer::Silent) => "; its host does not answer ping",
        Some(HostAnswer::NoPing) | None => "",
    }
}

const fn host_word(host: Option<HostAnswer>) -> Option<&'static str> {
    match host {
        Some(HostAnswer::Answered) => Some("answers"),
        Some(HostAnswer::Silent) => Some("silent"),
        Some(HostAnswer::NoPing) | None => None,
    }
}

/// Witnesses that found a member dead, with their findings, for people.
pub(super) fn findings_text(confirmations: &[Confirmation]) -> String {
    let one = |it: &Confirmation| format!("{} ({})", it.witness, it.finding.as_str());
    let dead: Vec<_> = confirmations.iter().filter(|it| it.finding.is_dead()).map(one).collect();
    if dead.is_empty() { "no witness".to_owned() } else { listed(&dead) }
}

fn witnesses(confirmations: &[Confirmation]) -> Vec<Endpoint> {
    confirmations.iter().filter(|it| it.finding.is_dead()).map(|it| it.witness).collect()
}

fn removed(removal: &Removal, life: &MemberInstance) -> LogLine {
    let MemberInstance { endpoint, incarnation, .. } = life;
    let (seeds, evidence) = (voters(&removal.votes), removal.evidence_about(life));
    let others = match removal.lives.len() - 1 {
        0 => String::new(),
        1 => "; decided together with 1 other".to_owned(),
        others => format!("; decided together with {others} others"),
    };
    let message = match removal.because {
        RemovalReason::Death => format!(
            "approved: {endpoint} is removed as dead, by the votes of {}; found dead by {}{others}",
            seeds_text(&seeds),
            findings_text(&evidence),
        ),
        RemovalReason::Eviction => {
            format!("approved: {endpoint} is evicted, by the operators of {}", seeds_text(&seeds))
        }
    };
    let fields = json!({
        "endpoint": endpoint, "incarnation": incarnation, "seeds": seeds,
        "witnesses": witnesses(&evidence), "decided_ms": removal.at().0,
        "decided_together": removal.lives.len(), "because": removal.because,
    });
    LogLine::new(Level::Info, "removed", message, fields)
}

fn left(leave: &Leave) -> LogLine {
    let Leave { endpoint, incarnation, .. } = leave;
    let message = format!("{endpoint} has left by its own goodbye");
    let fields = json!({ "endpoint": endpoint, "incarnation": incarnation });
    LogLine::new(Level::Info, "left", message, fields)
}

fn refused(refusal: &Refusal) -> LogLine {
    let Refusal { cause, from, detail, count } = refusal;
    let (cause, detail) = (cause.as_str(), foreign(detail));
    let message = format!("refused ({cause}) from {from}: {detail}; {count} of this kind so far");
    let fields = json!({ "cause": cause, "from": from, "detail": detail, "count": count });
    LogLine::new(Level::Warn, "refused", message, fields)
}

fn seed_key_learnt(SeedKey { seed, key, .. }: SeedKey) -> LogLine {
    let message = format!("seed {seed} is known by the key {key} from now on");
    LogLine::new(Level::Info, "seed_key_learnt", message, json!({ "seed": seed, "key": key }))
}

/// Reports that a seed shows another key: at once, and then again from time to time, because both
/// an intruder and a seed that lost its key try again every moment.
#[derive(Debug, Default)]
struct Contradictions {
    /// Time of the last report about each seed, and number of cases since.
    told: BTreeMap<SeedId, (Time, u64)>,
}

impl Contradictions {
    fn line(
        &mut self,
        now: Time,
        seed: SeedId,
        known: PublicKey,
        shown: PublicKey,
    ) -> Option<LogLine> {
        let mut again = 0;
        if let Some((last, count)) = self.told.get_mut(&seed) {
            *count += 1;
            if now.since(*last) < CONTRADICTION_PAUSE {
                return None;
            }
            again = *count;
        }
        self.told.insert(seed, (now, 0));
        let times = match again {
            0 => String::new(),
            _ => format!("; {again} times more since this was last said"),
        };
        let message = format!(
            "somebody speaks as seed {seed} with the key {shown}, but its key is {known}: \
             refused{times}; if it is an intruder, stop it; if seed {seed} lost its key, restore \
             its identity.key, or pin the new key in config.txt on every node and restart them"
        );
        let fields = json!({ "seed": seed, "known": known, "shown": shown, "again": again });
        Some(LogLine::new(Level::Error, "seed_key_contradicted", message, fields))
    }
}

fn shared_key(key: PublicKey, [first, second]: [Endpoint; 2]) -> LogLine {
    let message = format!(
        "{first} and {second} have the same key, {}: the data directory of one is a copy of the \
         other's; stop one of the two, delete its identity.key and start it again",
        key.short()
    );
    let fields = json!({ "key": key, "places": [first, second] });
    LogLine::new(Level::Error, "shared_key", message, fields)
}

fn seed_link(seed: SeedId, up: bool, connected: usize) -> LogLine {
    let what = if up { "is linked" } else { "is not linked any more" };
    let message = format!("seed {seed} {what}; {}", counted(connected, "seed") + " in reach");
    let fields = json!({ "seed": seed, "up": up, "connected": connected });
    LogLine::new(Level::Info, "seed_link", message, fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_never_empty() {
        assert_eq!(listed::<u8>(&[]), "none");
        assert_eq!(listed(&[1, 2, 3]), "1, 2, 3");
        let many: Vec<_> = (0..60).collect();
        assert!(listed(&many).ends_with("49 and 10 more"));
        assert_eq!(seeds_text(&[SeedId(1), SeedId(2), SeedId(4)]), "seeds 1, 2 and 4");
    }
}
