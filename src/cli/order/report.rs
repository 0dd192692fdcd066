//! Events and states of a Byzantine order in words, for people and for the log.

use ::log::Level;
use serde_json::{Value, json};

use crate::cli::log::LogLine;
use crate::cli::text::escape;
use crate::machine::bft::{BftStatus, Event, cause_of_wish};
use crate::model::Endpoint;
use crate::model::statement::{RemovalReason, SeedCertificate};
use crate::proto::bft::{Equivocation, MembershipChange, VotePhase};
use crate::proto::chat::entry::{HostPort, MemberId};

/// Number of slots that a member may be behind without a word.
pub(in crate::cli) const LAG: u64 = 16;

/// Ids of members as a list.
fn list(members: impl IntoIterator<Item = MemberId>) -> String {
    members.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(", ")
}

/// Number of liars that are borne, as a sentence.
fn borne(liars: usize) -> String {
    match liars {
        0 => "no liar is borne".to_owned(),
        1 => "one liar is borne".to_owned(),
        many => format!("{many} liars are borne"),
    }
}

/// First line of a member: its group and how much that bears.
pub(in crate::cli) fn group_line(status: &BftStatus) -> String {
    let members = status.members.len();
    let members = if members == 1 { "1 member".to_owned() } else { format!("{members} members") };
    let decide =
        if status.quorum == 1 { "1 decides" } else { &format!("{} decide", status.quorum) };
    format!("group {}: {members}, {}, {decide}", status.group, borne(status.liars_borne))
}

/// State of a member in which nothing becomes final, or that is close to it.
fn reach(status: &BftStatus, what: &str) -> String {
    let (reached, members, needed) = (status.reached, status.members.len(), status.quorum);
    let silent: Vec<_> = silent_members(status).collect();
    if reached < needed {
        return halted((reached, &silent), members, needed, what);
    }
    let not_counted = not_counted(&silent);
    if reached == needed && needed > 1 {
        format!("{reached} of {members} reached{not_counted}; one more failure halts the order")
    } else {
        format!("{reached} of {members} reached{not_counted}")
    }
}

/// Members that are reached and do not vote.
pub(in crate::cli) fn silent_members(status: &BftStatus) -> impl Iterator<Item = MemberId> {
    status.members.iter().filter(|it| it.silent).map(|it| it.member.id)
}

/// Members that do not count among those reached, as a remark.
fn not_counted(silent: &[MemberId]) -> String {
    match silent {
        [] => String::new(),
        [one] => format!(" ({one} is silent and does not count)"),
        many => format!(" ({} are silent and do not count)", list(many.iter().copied())),
    }
}

/// State in which nothing becomes final, as a sentence: number of members that are reached and
/// vote, and those that do not; `what` says what waits.
pub(in crate::cli) fn halted(
    (reached, silent): (usize, &[MemberId]),
    members: usize,
    needed: usize,
    what: &str,
) -> String {
    let not_counted = not_counted(silent);
    let needed = if needed == 1 { "1 is".to_owned() } else { format!("{needed} are") };
    format!(
        "halted: {reached} of {members} reached{not_counted}, {needed} needed; what is {what} waits"
    )
}

/// Lines of `peer order status`; `what` says what waits while too few members are in reach.
pub(in crate::cli) fn status_lines(status: &BftStatus, name: &str, what: &str) -> Vec<String> {
    let state = if status.active { "" } else { ", not begun yet" };
    let mut lines = vec![
        format!("Order: {name}, {}", group_line(status)),
        format!("Member: {}", status.me),
        format!("Reach: {}", reach(status, what)),
        format!(
            "Leader: {} (epoch {}, view {}{state})",
            status.leader, status.epoch.0, status.view.0
        ),
        format!("Final: place {}, slot {}", status.place.0, status.slot.0),
        format!("Pending: {}", status.pending),
    ];
    if let Some(reason) = &status.silent {
        lines.push(format!("Silent: {}", escape(reason)));
    }
    for it in &status.members {
        let HostPort { host, port } = it.member.at;
        let here = if it.member.id == status.me {
            ", this one"
        } else if it.silent {
            ", silent: it votes for nothing until it is renewed"
        } else if it.reached {
            ", reached"
        } else {
            ", away"
        };
        // A member tells its progress with each heartbeat: a few slots mean nothing.
        let behind = it.slot.map_or(0, |slot| status.slot.0.saturating_sub(slot.0));
        let slot = if behind > LAG { format!(", {behind} slots behind") } else { String::new() };
        let wish = it.wishes.map_or_else(String::new, |it| format!(", wishes for view {}", it.0));
        let (id, at) = (it.member.id, Endpoint::new(host, port));
        lines.push(format!("  {id} {at}{here}{slot}{wish}"));
    }
    for it in &status.changes {
        lines.push(format!(
            "Change: {}, {} of {} consents: {}",
            change_text(&it.change),
            it.consents.len(),
            status.quorum,
            list(it.consents.clone())
        ));
    }
    if !status.evidence.is_empty() {
        lines.push("Evidence:".to_owned());
        lines.extend(status.evidence.iter().map(|it| format!("  {}", evidence_line(it))));
    }
    lines
}

/// A change of the members, in words.
pub(in crate::cli) fn change_text(change: &MembershipChange) -> String {
    match change {
        MembershipChange::Add { member, .. } => {
            format!("adding {} at {}", member.id, Endpoint::new(member.at.host, member.at.port))
        }
        MembershipChange::Remove { member, .. } => format!("removing {member}"),
        MembershipChange::Renew { member, .. } => format!("renewing the life of {member}"),
    }
}

/// A certificate of the fleet's seeds in words; `holds` says whether this peer can check it.
pub(in crate::cli) fn certificate_text(it: &SeedCertificate, holds: bool) -> String {
    let (lives, votes, what) = match it {
        SeedCertificate::Admission(it) => (vec![it.subject()], &it.votes, "admitted"),
        SeedCertificate::Removal(it) => match it.because {
            RemovalReason::Death => (it.lives.clone(), &it.votes, "removed as dead"),
            RemovalReason::Eviction => (it.lives.clone(), &it.votes, "evicted"),
        },
    };
    let lives: Vec<_> = lives.iter().map(ToString::to_string).collect();
    let seeds: Vec<_> = votes.iter().map(|it| it.seed.0.to_string()).collect();
    let doubt = if holds { "" } else { " (NOT PROVED by the seeds that this peer knows)" };
    format!("{} {what} by the seeds {}{doubt}", lives.join(", "), seeds.join(", "))
}

/// Statements that exclude each other, as a sentence.
pub(in crate::cli) fn evidence_line(it: &Equivocation) -> String {
    let who = it.member();
    match it {
        Equivocation::Votes { phase, first, .. } => {
            let what = match phase {
                VotePhase::Prepare => "PREPAREs",
                VotePhase::Commit => "COMMITs",
            };
            let it = first.subject;
            format!(
                "{who} has signed two different {what} for slot {} in epoch {}, view {}",
                it.slot.0, it.epoch.0, it.view.0
            )
        }
        Equivocation::Claim { commit, change } => format!(
            "{who} has hidden its COMMIT for slot {} of view {} from view {}",
            commit.subject.slot.0, commit.subject.view.0, change.view.0
        ),
        Equivocation::NewViews { first, .. } => {
            format!("{who} has begun view {} of epoch {} in two ways", first.view.0, first.epoch.0)
        }
    }
}

/// Log line of an event; none for events without news for an operator.
pub(in crate::cli) fn line(event: &Event, members: impl FnOnce() -> usize) -> Option<LogLine> {
    let (level, name, text, fields): (_, _, String, Value) = match event {
        Event::ViewBegan { epoch, view, leader } => (
            Level::Info,
            "order_view",
            format!("view {} of epoch {} has begun; {leader} leads", view.0, epoch.0),
            json!({ "epoch": epoch, "view": view, "leader": leader }),
        ),
        Event::Suspected { by, view, reason } => (
            // A reign ends by time: it blames nobody.
            if cause_of_wish(reason) == "reign" { Level::Debug } else { Level::Info },
            "order_suspected",
            format!("{by} wishes for view {}: {}", view.0, escape(reason)),
            json!({ "by": by, "view": view, "reason": reason }),
        ),
        Event::Halted { reached, needed, silent } => {
            let members = members();
            let text = halted((*reached, silent), members, *needed, "proposed");
            let fields = json!({
                "reached": reached, "members": members, "needed": needed, "silent": silent,
            });
            (Level::Warn, "order_halted", text, fields)
        }
        Event::Resumed => {
            let text = "enough members are reached again; the order goes on".to_owned();
            (Level::Info, "order_resumed", text, json!({}))
        }
        Event::Equivocation(it) => (
            Level::Error,
            "order_equivocation",
            format!("{}; this proves that it lies", evidence_line(it)),
            json!({ "member": it.member(), "evidence": it }),
        ),
        Event::Hole { reason } => (
            Level::Warn,
            "order_silent",
            format!("is silent until the group has renewed this member: {}", escape(reason)),
            json!({ "reason": reason }),
        ),
        Event::EpochBegan { epoch, committee } => {
            let ids: Vec<_> = committee.voters().iter().map(|it| it.member.id).collect();
            let text =
                format!("epoch {} has begun; its members are {}", epoch.0, list(ids.clone()));
            (Level::Info, "order_epoch", text, json!({ "epoch": epoch, "members": ids }))
        }
        Event::Rejected { reason, .. } => (
            Level::Warn,
            "order_rejected",
            format!("not proposed: {}", escape(reason)),
            json!({ "reason": reason }),
        ),
        Event::Reached(id) => {
            let text = format!("{id} is within reach");
            (Level::Info, "order_reached", text, json!({ "member": id }))
        }
        Event::Lost(id) => {
            let text = format!("{id} is out of reach");
            (Level::Info, "order_lost", text, json!({ "member": id }))
        }
        Event::Stopped { reason } => (
            Level::Error,
            "order_stopped",
            format!("takes no further part: {}", escape(reason)),
            json!({ "reason": reason }),
        ),
        Event::Dropped(why) => {
            (Level::Debug, "order_dropped", format!("dropped: {why}"), json!({ "cause": why }))
        }
        Event::Gone => (Level::Info, "order_gone", "has left the order".to_owned(), json!({})),
        Event::Pending(_) | Event::Proposed(_) => return None,
    };
    Some(LogLine::new(level, name, text, fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::bft::ViewNo;

    #[test]
    fn a_reign_that_is_over_is_shown_at_debug_and_other_wishes_at_info() {
        let level = |reason: &str| {
            let (by, reason) = (MemberId(1), reason.to_owned());
            line(&Event::Suspected { by, view: ViewNo(2), reason }, || 4).unwrap().level
        };
        assert_eq!(level("its reign is over"), Level::Debug);
        assert_eq!(level("nothing has become final for too long"), Level::Info);
    }
}
