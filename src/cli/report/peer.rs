//! Log lines of a peer: its membership, links, gossip and suspicions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::log::Level;
use serde_json::json;

use super::{
    Contradictions, counted, direct, findings_text, host_remark, host_word, left, listed,
    lists_differ, millis, open_line, refused, removed, seed_key_learnt, seed_link, seeds_text,
    shared_key, voters, witnesses, yes_no, yes_votes,
};
use crate::cli::log::LogLine;
use crate::cli::text::foreign;
use crate::machine::membership::applicant;
use crate::machine::{broadcast, gossip, liveness, overlay};
use crate::model::statement::{Admission, MemberInstance, Removal, RemovalReason};
use crate::model::{Endpoint, Now, SeedId, Time, WallTime};
use crate::node::peer_kind::Event;
use crate::proto::gossip::GossipMsg;
use crate::proto::liveness::DeadReport;
use crate::proto::membership::MemberLine;

/// Pause between two warnings of a node about its own lateness: it notes that at every look, and
/// lines would make it later still.
const DOUBT_PAUSE: Duration = Duration::from_secs(30);

/// Last line of a peer that was no member and so sends no goodbye.
const NO_MEMBER: &str = "stops; it was no member";

/// Apparent ages above this come from clocks that differ, not from the network.
const AGE_MAX: Duration = Duration::from_secs(300);

/// Makes the log lines of a peer's events; remembers what was logged, so that nothing is logged
/// twice.
#[derive(Debug, Default)]
pub struct PeerReport {
    lists: BTreeMap<SeedId, BTreeSet<Endpoint>>,
    union: BTreeSet<Endpoint>,
    doubted: Option<Time>,
    /// True if the life that was logged last is a member's.
    is_member: bool,
    contradictions: Contradictions,
}

impl PeerReport {
    /// Log lines of `event`, decided at `now`, in order.
    pub fn lines(&mut self, now: Now, event: &Event) -> Vec<LogLine> {
        match event {
            Event::Started { key, seeds, needed } => {
                // Without seeds no admission is needed.
                self.is_member = *seeds == 0;
                let votes = counted(*needed, "yes vote");
                let fleet = match seeds {
                    0 => "in a fleet without seeds".to_owned(),
                    _ => format!("{} configured, {votes} needed", counted(*seeds, "seed")),
                };
                let message = format!("started with the key {key}; {fleet}");
                let fields = json!({ "key": key, "seeds": seeds, "needed": needed });
                vec![LogLine::new(Level::Info, "started", message, fields)]
            }
            Event::Applicant(event) => self.applicant(now.mono, event),
            Event::Overlay(event) => overlay_line(event).into_iter().collect(),
            Event::Gossip { event, from } => gossip_lines(now.wall, event, *from),
            Event::Liveness(event) => self.liveness(now.mono, event),
            Event::Direct(event) => direct::direct(event).into_iter().collect(),
            Event::Contacts(event) => direct::contacts(event).into_iter().collect(),
            // The answer goes to the program that asked.
            Event::Discovery(_) => Vec::new(),
            Event::Open(event) => open_line(event).into_iter().collect(),
            Event::Broadcast(event) => broadcast_line(event).into_iter().collect(),
            Event::ListsDiffer(warning) => vec![lists_differ(warning)],
            Event::MemberRemoved { removal, life } => vec![removed(removal, life)],
            Event::MemberLeft(leave) => vec![left(leave)],
            Event::SharedKey { key, places } => vec![shared_key(*key, *places)],
            Event::Gone => {
                let said = if self.is_member { "said goodbye and stops" } else { NO_MEMBER };
                vec![LogLine::new(Level::Info, "gone", said, json!({}))]
            }
            Event::Refused(refusal) => vec![refused(refusal)],
        }
    }

    fn applicant(&mut self, now: Time, event: &applicant::Event) -> Vec<LogLine> {
        use applicant::Event as It;
        let line = match event {
            // Orders to the node, carried out before this call.
            It::Call { .. } | It::Hangup { .. } => return Vec::new(),
            It::Members { seed, members } => return self.members(*seed, members),
            It::Attempt { incarnation, number } => {
                // A new life begins without any knowledge.
                self.is_member = false;
                self.lists.clear();
                self.union.clear();
                let message =
                    format!("wants to register as incarnation {incarnation} (attempt {number})");
                let fields = json!({ "incarnation": incarnation, "number": number });
                LogLine::new(Level::Info, "attempt", message, fields)
            }
            It::Asked { seeds, needed } => {
                let (whom, votes) = (seeds_text(seeds), counted(*needed, "yes vote"));
                let message = format!("asked {whom} to be let in; {votes} needed");
                LogLine::new(
                    Level::Info,
                    "asked",
                    message,
                    json!({ "seeds": seeds, "needed": needed }),
                )
            }
            It::Voted { seed, yes, reason, count, needed } => {
                let (answer, reason) = (yes_no(*yes), foreign(reason));
                let votes = yes_votes(*count, *needed);
                let message = format!("vote: seed {seed} says {answer}: {reason}; {votes}");
                let fields = json!({
                    "kind": "admit", "seed": seed, "yes": yes, "reason": reason, "count": count,
                    "needed": needed,
                });
                LogLine::new(Level::Info, "voted", message, fields)
            }
            It::Admitted(admission) => {
                self.is_member = true;
                admitted(admission)
            }
            It::Refused { reason, retry_in } => {
                let reason = foreign(reason);
                let pause = retry_in.as_secs_f32();
                let message = format!("not let in: {reason}; tries again in {pause:.1} s");
                let fields = json!({ "reason": reason, "retry_ms": millis(*retry_in) });
                LogLine::new(Level::Warn, "not_admitted", message, fields)
            }
            It::Evicted { removal, life } => evicted(removal, life),
            It::Renews { seed, after } => {
                let message = format!(
                    "seed {seed} has voted to remove this peer, in vain; its next life begins in \
                     {:.0} s, so that nobody can use that vote",
                    after.as_secs_f32()
                );
                let fields = json!({ "seed": seed, "after_ms": millis(*after) });
                LogLine::new(Level::Info, "renews", message, fields)
            }
            It::SeedKeyLearnt(key) => seed_key_learnt(*key),
            It::SeedKeyContradicted { seed, known, shown } => {
                let told = self.contradictions.line(now, *seed, *known, *shown);
                return told.into_iter().collect();
            }
            It::SeedLink { seed, up, connected } => seed_link(*seed, *up, *connected),
        };
        vec![line]
    }

    /// Log lines of one seed's list, and of the union of all; each only if it has changed.
    fn members(&mut self, seed: SeedId, members: &[MemberLine]) -> Vec<LogLine> {
        let list: BTreeSet<_> = members.iter().map(|member| member.endpoint).collect();
        if self.lists.get(&seed) == Some(&list) {
            return Vec::new();
        }
        let mut lines = vec![list_line("peer_list", &format!("peer list of seed {seed}"), &list)];
        let is_first = self.lists.insert(seed, list).is_none();
        let seeds: Vec<_> = self.lists.keys().copied().collect();
        let union: BTreeSet<_> = self.lists.values().flatten().copied().collect();
        if is_first || self.union != union {
            let whose = format!("union of the peer lists of {}", seeds_text(&seeds));
            lines.push(list_line("peer_list_union", &whose, &union));
            self.union = union;
        }
        for line in &mut lines {
            line.fields.insert("seeds".to_owned(), json!(seeds));
        }
        lines[0].fields.insert("seed".to_owned(), json!(seed));
        lines
    }

    fn liveness(&mut self, now: Time, event: &liveness::Event) -> Vec<LogLine> {
        use liveness::Event as It;
        match event {
            // Orders to the node, carried out before this call.
            It::Probe { .. } | It::Ask { .. } | It::Forged { .. } => Vec::new(),
            It::Report(report) => reported(report),
            It::Suspected { .. } | It::Confirmed { .. } | It::Cleared { .. } => {
                suspicion_line(event).into_iter().collect()
            }
            It::Doubtful { late_by } => {
                if self.doubted.is_some_and(|last| now.since(last) < DOUBT_PAUSE) {
                    return Vec::new();
                }
                self.doubted = Some(now);
                let late_ms = millis(*late_by);
                let message = format!(
                    "runs {late_ms} ms late, so it distrusts what it sees and accuses nobody for \
                     now; the machine may be overloaded"
                );
                vec![LogLine::new(Level::Warn, "doubtful", message, json!({ "late_ms": late_ms }))]
            }
            It::NoHostPing => {
                let message = "this machine has no usable ping program; probes of ports do alone";
                vec![LogLine::new(Level::Info, "no_host_ping", message, json!({}))]
            }
            It::Host { host, answers } => {
                let what = if *answers { "answers ping again" } else { "does not answer ping" };
                let message = format!("host {host} {what}");
                let fields = json!({ "host": host, "answers": answers });
                vec![LogLine::new(Level::Debug, "host_ping", message, fields)]
            }
        }
    }
}

fn list_line(event: &'static str, whose: &str, list: &BTreeSet<Endpoint>) -> LogLine {
    let list: Vec<_> = list.iter().copied().collect();
    let message = format!("{whose}: {}: {}", counted(list.len(), "peer"), listed(&list));
    let fields = json!({ "count": list.len(), "members": list });
    LogLine::new(Level::Info, event, message, fields)
}

fn admitted(admission: &Admission) -> LogLine {
    let seeds = voters(&admission.votes);
    let Admission { endpoint, incarnation, .. } = admission;
    let message = format!(
        "approved: registered as incarnation {incarnation}, by the votes of {}",
        seeds_text(&seeds)
    );
    let fields = json!({ "endpoint": endpoint, "incarnation": incarnation, "seeds": seeds });
    LogLine::new(Level::Info, "admitted", message, fields)
}

fn evicted(removal: &Removal, life: &MemberInstance) -> LogLine {
    let evidence = removal.evidence_about(life);
    let seeds = voters(&removal.votes);
    let message = match removal.because {
        RemovalReason::Death => format!(
            "{} removed this peer as dead although it lives; it registers again; it was found dead \
             by {}",
            seeds_text(&seeds),
            findings_text(&evidence),
        ),
        RemovalReason::Eviction => format!(
            "the operators of {} evicted this peer; it registers again unless it is banned",
            seeds_text(&seeds)
        ),
    };
    let fields = json!({
        "endpoint": life.endpoint, "incarnation": life.incarnation, "seeds": seeds,
        "witnesses": witnesses(&evidence), "because": removal.because,
    });
    LogLine::new(Level::Warn, "evicted", message, fields)
}

/// Log line of a broadcast event; the data of users is in no line.
fn broadcast_line(event: &broadcast::Event) -> Option<LogLine> {
    use broadcast::Event as It;
    let line = match event {
        It::Published { token: _, id, to } => {
            let neighbors = counted(*to, "neighbor");
            let message = format!("message {} published, pushed to {neighbors}", id.short());
            LogLine::new(Level::Debug, "published", message, json!({ "id": id, "to": to }))
        }
        It::PublishRefused { token: _, reason } => {
            let message = format!("nothing was published: {reason}");
            LogLine::new(Level::Warn, "not_published", message, json!({ "reason": reason }))
        }
        It::Delivered { message: it, from } => {
            let message = format!(
                "message {} of {} delivered, by way of {from}: {} bytes on {:?} ({} hops, {} ms)",
                it.id.short(),
                it.origin,
                it.data.len(),
                it.topic,
                it.hops,
                it.age_ms,
            );
            let fields = json!({
                "id": it.id, "origin": it.origin, "from": from, "topic": it.topic,
                "size": it.data.len(), "hops": it.hops, "age_ms": it.age_ms,
            });
            LogLine::new(Level::Debug, "delivered", message, fields)
        }
        It::Missed { origin, count } => {
            let message = format!("missed {count} of {origin}: no neighbor holds them any more");
            LogLine::new(
                Level::Warn,
                "missed",
                message,
                json!({ "origin": origin, "count": count }),
            )
        }
        // Told to the publisher; and refused by the node, which counts it.
        It::Receipts { .. } | It::Malformed { .. } => return None,
    };
    Some(line)
}

fn overlay_line(event: &overlay::Event) -> Option<LogLine> {
    match event {
        // Orders to the node, carried out before this call.
        overlay::Event::Call { .. }
        | overlay::Event::Hangup { .. }
        | overlay::Event::WantMembers => None,
        overlay::Event::Linked { neighbor, dialed, degree, link: _ } => {
            let how = if *dialed { "called by this peer" } else { "it called" };
            let message = format!("won the neighbor {neighbor} ({how}); {}", neighbors(*degree));
            let fields = json!({ "neighbor": neighbor, "dialed": dialed, "degree": degree });
            Some(LogLine::new(Level::Info, "linked", message, fields))
        }
        overlay::Event::Unlinked { neighbor, degree, link: _ } => {
            let message = format!("lost the neighbor {neighbor}; {}", neighbors(*degree));
            let fields = json!({ "neighbor": neighbor, "degree": degree });
            Some(LogLine::new(Level::Info, "unlinked", message, fields))
        }
        overlay::Event::Announce { neighbors: list } => {
            let message = format!("{}: {}", neighbors(list.len()), listed(list));
            let fields = json!({ "degree": list.len(), "neighbors": list });
            Some(LogLine::new(Level::Info, "neighbors", message, fields))
        }
    }
}

fn neighbors(degree: usize) -> String {
    counted(degree, "neighbor")
}

/// The fixed text alone, then a line with the neighbor it comes from or goes to.
fn gossip_lines(now: WallTime, event: &gossip::Event, from: Option<Endpoint>) -> Vec<LogLine> {
    match event {
        gossip::Event::Malformed { .. } => Vec::new(),
        gossip::Event::Made { msg, to } => {
            let fields = json!({
                "number": msg.number, "origin": msg.origin, "incarnation": msg.incarnation,
                "text": msg.text, "to": to,
            });
            let story = format!("gossip #{} made, sent to {}", msg.number, neighbors(*to));
            vec![
                LogLine::new(Level::Info, "gossip", msg.text.clone(), fields.clone()),
                LogLine::new(Level::Info, "gossip_made", story, fields),
            ]
        }
        gossip::Event::Heard { msg, from: _ } => {
            let age_ms = apparent_age(now, msg);
            let fields = json!({
                "number": msg.number, "origin": msg.origin, "incarnation": msg.incarnation,
                "text": msg.text, "from": from, "hops": msg.hops, "age_ms": age_ms,
            });
            let by = from.map_or_else(|| "a neighbor".to_owned(), |from| from.to_string());
            let story = format!(
                "gossip #{} of {} heard from {by} ({}, {age_ms} ms)",
                msg.number,
                msg.origin,
                counted(msg.hops as usize, "hop"),
            );
            vec![
                LogLine::new(Level::Info, "gossip", msg.text.clone(), fields.clone()),
                LogLine::new(Level::Info, "gossip_heard", story, fields),
            ]
        }
    }
}

/// Apparent age of a message, in milliseconds: by its own timestamp if the clocks allow it, else by
/// the time that the nodes on its way say it spent with them.
fn apparent_age(now: WallTime, msg: &GossipMsg) -> u64 {
    let made = msg.text.split(':').next().and_then(|text| text.split_once('.'));
    let made = made.and_then(|(seconds, millis)| {
        let (seconds, millis): (u64, u64) = (seconds.parse().ok()?, millis.parse().ok()?);
        seconds.checked_mul(1_000)?.checked_add(millis)
    });
    let age = made.and_then(|made| now.0.checked_sub(made));
    age.filter(|age| (msg.age_ms..=millis(AGE_MAX)).contains(age)).unwrap_or(msg.age_ms)
}

/// The fixed text alone, then a line with its evidence.
fn reported(report: &DeadReport) -> Vec<LogLine> {
    let DeadReport { text, endpoint, incarnation, reporter, confirmations, at: _ } = report;
    let fields = json!({
        "text": text, "endpoint": endpoint, "incarnation": incarnation, "reporter": reporter,
        "confirmations": confirmations.len(), "witnesses": witnesses(confirmations),
    });
    let story = format!(
        "reported {endpoint} (incarnation {incarnation}) dead to the seeds; found dead by {}",
        findings_text(confirmations)
    );
    vec![
        LogLine::new(Level::Info, "dead_node", text.clone(), fields.clone()),
        LogLine::new(Level::Info, "reported", story, fields),
    ]
}

fn suspicion_line(event: &liveness::Event) -> Option<LogLine> {
    use liveness::Event as It;
    match event {
        It::Suspected { subject, reason, host } => {
            let reason = foreign(reason);
            let message = format!("suspects {subject}: {reason}{}", host_remark(*host));
            let fields = json!({
                "endpoint": subject.endpoint, "incarnation": subject.incarnation,
                "reason": reason, "host": host_word(*host),
            });
            Some(LogLine::new(Level::Info, "suspected", message, fields))
        }
        It::Confirmed { subject, witness, finding, count, needed } => {
            let (endpoint, found) = (subject.endpoint, finding.as_str());
            let message = format!(
                "{witness} says of {endpoint}: {found}; {}",
                if count > needed {
                    format!("{count} confirmations, more than the {needed} needed")
                } else {
                    format!("{count} of {needed} needed confirmations")
                }
            );
            let fields = json!({
                "endpoint": endpoint, "incarnation": subject.incarnation, "witness": witness,
                "finding": finding, "count": count, "needed": needed,
            });
            Some(LogLine::new(Level::Info, "confirmed", message, fields))
        }
        It::Cleared { subject, reason } => {
            let reason = foreign(reason);
            let message = format!("suspects {subject} no more: {reason}");
            let fields = json!({
                "endpoint": subject.endpoint, "incarnation": subject.incarnation,
                "reason": reason,
            });
            Some(LogLine::new(Level::Info, "cleared", message, fields))
        }
        It::Probe { .. }
        | It::Ask { .. }
        | It::Report(_)
        | It::Doubtful { .. }
        | It::NoHostPing
        | It::Host { .. }
        | It::Forged { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::LinkId;
    use crate::model::entry::MemberState;
    use crate::model::{Incarnation, KeyPair};
    use crate::proto::gossip::fixed_text as gossip_text;
    use crate::proto::liveness::fixed_text as report_text;

    const WALL: WallTime = WallTime(1_734_567_890_126);

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new([127, 0, 0, 1].into(), port)
    }

    fn texts(report: &mut PeerReport, event: &Event) -> Vec<String> {
        let now = Now { mono: Time::ZERO, wall: WALL };
        let line = |line: LogLine| format!("{} {} {}", line.level, line.event, line.message);
        report.lines(now, event).into_iter().map(line).collect()
    }

    fn message(number: u32) -> GossipMsg {
        let origin = endpoint(6004);
        GossipMsg {
            text: gossip_text(WallTime(1_734_567_890_123), origin, number),
            origin,
            incarnation: Incarnation(1),
            number,
            hops: 2,
            age_ms: 0,
        }
    }

    #[test]
    fn who_was_no_member_says_no_goodbye() {
        let mut report = PeerReport::default();
        let gone = texts(&mut report, &Event::Gone);
        assert_eq!(gone, ["INFO gone stops; it was no member"]);
        let life = (endpoint(6001), Incarnation(1), KeyPair::from_secret([7; 32]).public());
        let (endpoint, incarnation, key) = life;
        let admission = Admission { endpoint, incarnation, key, votes: Vec::new() };
        let admitted = applicant::Event::Admitted(Box::new(admission));
        texts(&mut report, &Event::Applicant(admitted));
        let gone = texts(&mut report, &Event::Gone);
        assert_eq!(gone, ["INFO gone said goodbye and stops"]);
    }

    #[test]
    fn gossip_is_its_fixed_text_and_then_its_story() {
        let mut report = PeerReport::default();
        let event = gossip::Event::Heard { msg: message(5), from: LinkId(1) };
        let heard = Event::Gossip { event, from: Some(endpoint(6002)) };
        assert_eq!(
            texts(&mut report, &heard),
            [
                "INFO gossip 1734567890.123:127.0.0.1:5",
                "INFO gossip_heard gossip #5 of 127.0.0.1:6004 heard from 127.0.0.1:6002 (2 hops, \
                 3 ms)",
            ]
        );
        let event = gossip::Event::Made { msg: message(3), to: 4 };
        assert_eq!(
            texts(&mut report, &Event::Gossip { event, from: None }),
            [
                "INFO gossip 1734567890.123:127.0.0.1:3",
                "INFO gossip_made gossip #3 made, sent to 4 neighbors",
            ]
        );
    }

    #[test]
    fn the_age_of_gossip_does_not_follow_a_clock_that_is_wrong() {
        let stored = GossipMsg { age_ms: 40, ..message(1) };
        assert_eq!(apparent_age(WALL, &stored), 40, "younger than those who held it say");
        assert_eq!(apparent_age(WallTime(5), &message(1)), 0, "from the future");
        assert_eq!(apparent_age(WallTime(WALL.0 + 9_999_999), &message(1)), 0, "a day old");
    }

    #[test]
    fn a_death_report_is_its_fixed_text_and_then_its_story() {
        let at = WallTime(1_734_567_890_123);
        let report = DeadReport {
            text: report_text(endpoint(6003), at, endpoint(6001)),
            endpoint: endpoint(6003),
            incarnation: Incarnation(7),
            reporter: endpoint(6001),
            at,
            confirmations: Vec::new(),
        };
        let event = Event::Liveness(liveness::Event::Report(report));
        assert_eq!(
            texts(&mut PeerReport::default(), &event)[0],
            "INFO dead_node Dead Node:127.0.0.1:6003:1734567890.123:127.0.0.1"
        );
    }

    #[test]
    fn peer_lists_are_told_with_their_union_and_only_when_they_change() {
        let mut report = PeerReport::default();
        let mut list = |seed, ports: &[u16]| {
            let member = |port: &u16| MemberLine {
                endpoint: endpoint(*port),
                incarnation: Incarnation(1),
                status: MemberState::Alive,
                since: WALL,
                degree: 0,
            };
            let members = ports.iter().map(member).collect();
            let event = applicant::Event::Members { seed: SeedId(seed), members };
            texts(&mut report, &Event::Applicant(event))
        };
        assert_eq!(
            list(1, &[6001, 6002]),
            [
                "INFO peer_list peer list of seed 1: 2 peers: 127.0.0.1:6001, 127.0.0.1:6002",
                "INFO peer_list_union union of the peer lists of seed 1: 2 peers: \
                 127.0.0.1:6001, 127.0.0.1:6002",
            ]
        );
        assert_eq!(list(1, &[6001, 6002]), [""; 0]);
        let of_both = list(3, &[6001, 6003]);
        assert!(of_both[1].contains("seeds 1 and 3: 3 peers"), "{of_both:?}");
        assert_eq!(list(2, &[6001]).len(), 2, "a union of more lists");
        assert_eq!(list(2, &[6002]).len(), 1, "the union stays the same");
    }

    #[test]
    fn lateness_is_told_now_and_then() {
        let mut report = PeerReport::default();
        let late = Event::Liveness(liveness::Event::Doubtful { late_by: Duration::from_secs(1) });
        let mut at = |seconds| {
            let mono = Time::ZERO.after(Duration::from_secs(seconds));
            report.lines(Now { mono, wall: WALL }, &late).len()
        };
        assert_eq!([at(1), at(2), at(30), at(31)], [1, 0, 0, 1]);
    }

    #[test]
    fn no_field_bears_a_name_of_the_lines_head() {
        let mut report = PeerReport::default();
        let event = gossip::Event::Heard { msg: message(5), from: LinkId(1) };
        let now = Now { mono: Time::ZERO, wall: WALL };
        for line in report.lines(now, &Event::Gossip { event, from: None }) {
            for name in ["ts", "ts_ms", "level", "role", "node", "event", "message"] {
                assert!(!line.fields.contains_key(name), "{name}");
            }
        }
    }
}
