//! Log lines of a seed: requests, votes with their reasons, and outcomes.

use std::collections::VecDeque;

use ::log::Level;
use serde_json::json;

use super::{
    Contradictions, counted, left, listed, lists_differ, refused, removed, seed_key_learnt,
    seed_link, seeds_text, shared_key, voters, yes_no, yes_votes,
};
use crate::cli::log::LogLine;
use crate::cli::text::foreign;
use crate::machine::membership::authority;
use crate::model::statement::{Admission, Ban, MemberInstance, Proposal, ProposalKind};
use crate::model::{Endpoint, Now, SeedId, Time};
use crate::node::seed_kind::Event;
use crate::proto::message::TrustLevel;

/// Number of death reports that are remembered, so that one report is logged once although several
/// seeds pass it on; far more than come within the seconds that a removal takes.
const REPORTS_MAX: usize = 1_024;

/// Makes the log lines of a seed's events; remembers what was logged, so that nothing is logged
/// twice.
#[derive(Debug, Default)]
pub struct SeedReport {
    /// Reporter and text of the latest death reports, the latest last.
    reports: VecDeque<(Endpoint, String)>,
    contradictions: Contradictions,
}

impl SeedReport {
    /// Log lines of `event`, decided at `now`, in order.
    pub fn lines(&mut self, now: Now, event: &Event) -> Vec<LogLine> {
        match event {
            Event::Started { seed, key, members, seeds, needed } => {
                let message = format!(
                    "started as seed {seed} of {seeds} with the key {key}; {} {}; {} known",
                    counted(*needed, "yes vote"),
                    if *needed == 1 { "decides" } else { "decide" },
                    counted(*members, "member"),
                );
                let fields = json!({
                    "seed": seed, "key": key, "members": members, "seeds": seeds, "needed": needed,
                });
                vec![LogLine::new(Level::Info, "started", message, fields)]
            }
            Event::Connected { endpoint, standing } => {
                let standing = standing_word(*standing);
                let message = format!("connection request from {endpoint} ({standing})");
                let fields = json!({ "endpoint": endpoint, "standing": standing });
                vec![LogLine::new(Level::Info, "connected", message, fields)]
            }
            Event::Refused(refusal) => vec![refused(refusal)],
            Event::RejectedBySeed { seed, reason } => {
                let reason = foreign(reason);
                let message = format!(
                    "seed {seed} refuses this seed: {reason}; if this seed has lost its \
                     identity.key, restore it, or pin the new key in config.txt on every machine"
                );
                let fields = json!({ "seed": seed, "reason": reason });
                vec![LogLine::new(Level::Error, "rejected_by_seed", message, fields)]
            }
            Event::ListsDiffer(reason) => vec![lists_differ(reason)],
            Event::Authority(event) => self.authority(now.mono, event),
        }
    }

    fn authority(&mut self, now: Time, event: &authority::Event) -> Vec<LogLine> {
        use authority::Event as It;
        let line = match event {
            // Orders to the node, carried out before this call.
            It::Probe { .. } | It::Standing { .. } | It::Refuse { .. } => return Vec::new(),
            It::Reported { subject, reporter, text, confirmations } => {
                return self.reported(subject, *reporter, text, *confirmations);
            }
            It::SeedKeyContradicted { seed, known, shown } => {
                let told = self.contradictions.line(now, *seed, *known, *shown);
                return told.into_iter().collect();
            }
            It::Proposed { proposal, needed, because } => proposed(proposal, *needed, because),
            It::Voted { proposal, seed, yes, reason, count, needed } => {
                voted(proposal, (*seed, *yes, reason), (*count, *needed))
            }
            It::Aborted { proposal, reason } => aborted(proposal, reason),
            It::Admitted(admission) => admitted(admission),
            It::Removed { removal, lives } => {
                return lives.iter().map(|life| removed(removal, life)).collect();
            }
            It::Banned(ban) => banned(ban),
            It::Left(leave) => left(leave),
            It::SeedKeyLearnt(key) => seed_key_learnt(*key),
            It::Isolated { members, alone } => isolated(members, *alone),
            It::Foreign { seed, entries } => foreign_entries(*seed, *entries),
            It::SharedKey { key, places } => shared_key(*key, *places),
            It::SeedLink { seed, up, connected } => seed_link(*seed, *up, *connected),
            It::Quorum { reached, connected, needed } => quorum(*reached, *connected, *needed),
            It::Ready { members } => ready(*members),
            It::Synced { seed, entries } => synced(*seed, *entries),
        };
        vec![line]
    }

    /// The fixed text alone, then a line with the reporter and the evidence.
    fn reported(
        &mut self,
        subject: &MemberInstance,
        reporter: Endpoint,
        text: &str,
        confirmations: usize,
    ) -> Vec<LogLine> {
        let report = (reporter, text.to_owned());
        if self.reports.contains(&report) {
            return Vec::new();
        }
        if self.reports.len() >= REPORTS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
        let fields = json!({
            "text": text, "endpoint": subject.endpoint, "incarnation": subject.incarnation,
            "reporter": reporter, "confirmations": confirmations,
        });
        let findings = counted(confirmations, "signed finding");
        let story = format!("{reporter} reports {subject} dead, with {findings}");
        vec![
            LogLine::new(Level::Info, "dead_node", text, fields.clone()),
            LogLine::new(Level::Info, "reported", story, fields),
        ]
    }
}

const fn standing_word(standing: TrustLevel) -> &'static str {
    match standing {
        TrustLevel::Stranger => "stranger",
        TrustLevel::Applicant => "applicant",
        TrustLevel::Member => "member",
        TrustLevel::Seed => "seed",
    }
}

fn ready(members: usize) -> LogLine {
    let text = counted(members, "member");
    let message = format!("compared with enough seeds; votes from now on; {text}");
    LogLine::new(Level::Info, "ready", message, json!({ "members": members }))
}

fn synced(seed: SeedId, entries: usize) -> LogLine {
    let message = format!("learnt {} from seed {seed}", counted(entries, "change"));
    LogLine::new(Level::Info, "synced", message, json!({ "seed": seed, "entries": entries }))
}

const fn kind_word(proposal: &Proposal) -> &'static str {
    match proposal.kind {
        ProposalKind::Admit => "admit",
        ProposalKind::Remove => "remove",
        ProposalKind::Evict => "evict",
        ProposalKind::Ban if proposal.subject.incarnation.0 % 2 == 1 => "ban",
        ProposalKind::Ban => "unban",
    }
}

fn foreign_entries(seed: SeedId, entries: usize) -> LogLine {
    let message = format!(
        "seed {seed} holds {}, or more, by votes of seeds that are not in config.txt any more; \
         members among them are known here once they were started with the new config.txt",
        if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
    );
    let fields = json!({ "seed": seed, "entries": entries });
    LogLine::new(Level::Info, "foreign", message, fields)
}

fn isolated(members: &[Endpoint], alone: bool) -> LogLine {
    let names = listed(members);
    let fields = json!({ "members": members, "alone": alone });
    if !alone {
        let message = format!("neighbors again, after a while without any: {names}");
        return LogLine::new(Level::Info, "isolated", message, fields);
    }
    let message = format!(
        "alive, but without a neighbor for half a minute: {names}; the seeds reach them, other \
         members do not: let members call each other, and look for a smaller MTU on the way"
    );
    LogLine::new(Level::Warn, "isolated", message, fields)
}

fn proposed(proposal: &Proposal, needed: usize, because: &str) -> LogLine {
    let (kind, subject) = (kind_word(proposal), &proposal.subject);
    let because = foreign(because);
    let needed_text = counted(needed, "yes vote");
    let agree = match proposal.kind {
        ProposalKind::Admit | ProposalKind::Remove => String::new(),
        ProposalKind::Evict => format!("; to agree: peer evict {}", subject.endpoint),
        ProposalKind::Ban if kind == "ban" => {
            format!("; to agree: peer evict --ban {}", subject.endpoint)
        }
        ProposalKind::Ban => format!("; to agree: peer unban {}", subject.endpoint),
    };
    let message = format!("proposal: {kind} {subject}: {because}; {needed_text} needed{agree}");
    let fields = json!({
        "kind": kind, "endpoint": subject.endpoint, "incarnation": subject.incarnation,
        "needed": needed, "reason": because,
    });
    LogLine::new(Level::Info, "proposed", message, fields)
}

fn voted(
    proposal: &Proposal,
    (seed, yes, reason): (SeedId, bool, &str),
    (count, needed): (usize, usize),
) -> LogLine {
    let (kind, subject) = (kind_word(proposal), &proposal.subject);
    let (endpoint, answer, reason) = (subject.endpoint, yes_no(yes), foreign(reason));
    let votes = yes_votes(count, needed);
    let message = format!(
        "vote: seed {seed} says {answer} to {kind} {endpoint}: {reason}; \
         {votes}"
    );
    let fields = json!({
        "kind": kind, "endpoint": endpoint, "incarnation": subject.incarnation,
        "seed": seed, "yes": yes, "reason": reason, "count": count, "needed": needed,
    });
    LogLine::new(Level::Info, "voted", message, fields)
}

fn aborted(proposal: &Proposal, reason: &str) -> LogLine {
    let (kind, subject) = (kind_word(proposal), &proposal.subject);
    let reason = foreign(reason);
    let message = format!("rejected: {kind} {subject}: {reason}");
    let fields = json!({
        "kind": kind, "endpoint": subject.endpoint, "incarnation": subject.incarnation,
        "reason": reason,
    });
    LogLine::new(Level::Info, "rejected", message, fields)
}

fn admitted(admission: &Admission) -> LogLine {
    let seeds = voters(&admission.votes);
    let subject = admission.subject();
    let message =
        format!("approved: {subject} is admitted, by the votes of {}", seeds_text(&seeds));
    let fields = json!({
        "endpoint": subject.endpoint, "incarnation": subject.incarnation, "key": subject.key,
        "seeds": seeds, "decided_ms": admission.at().0,
    });
    LogLine::new(Level::Info, "admitted", message, fields)
}

fn banned(ban: &Ban) -> LogLine {
    let (seeds, endpoint) = (voters(&ban.votes), ban.endpoint);
    let by = format!("by the operators of {}", seeds_text(&seeds));
    let message = if ban.is_in_force() {
        format!("approved: {endpoint} is banned, and its key {}…, {by}", ban.key.short())
    } else {
        format!("approved: {endpoint} may register again, and its key {}…, {by}", ban.key.short())
    };
    let fields = json!({
        "endpoint": endpoint, "key": ban.key, "in_force": ban.is_in_force(),
        "number": ban.number, "seeds": seeds,
    });
    LogLine::new(Level::Info, "banned", message, fields)
}

fn quorum(reached: bool, connected: usize, needed: usize) -> LogLine {
    let fields = json!({ "reached": reached, "connected": connected, "needed": needed });
    let seeds = counted(connected, "seed");
    if reached {
        let message =
            format!("quorum: {seeds} in reach, {needed} needed; members can be added and removed");
        LogLine::new(Level::Info, "quorum", message, fields)
    } else {
        let message = format!(
            "no quorum: {seeds} in reach, {needed} needed; membership is frozen: nobody is added \
             or removed until enough seeds are back"
        );
        LogLine::new(Level::Warn, "quorum", message, fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::model::statement::Vote;
    use crate::model::{Incarnation, KeyPair, PublicKey};
    use crate::proto::liveness;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new([127, 0, 0, 1].into(), port)
    }

    fn subject() -> MemberInstance {
        let key = PublicKey::parse(&"ab".repeat(32)).unwrap();
        MemberInstance { endpoint: endpoint(6003), incarnation: Incarnation(7), key }
    }

    fn messages(event: authority::Event) -> Vec<String> {
        let lines = SeedReport::default().lines(Now::default(), &Event::Authority(event));
        lines
            .into_iter()
            .map(|line| format!("{} {} {}", line.level, line.event, line.message))
            .collect()
    }

    #[test]
    fn a_death_report_is_its_fixed_text_and_then_its_story() {
        let at = WallTime(1_734_567_890_123);
        let text = liveness::fixed_text(endpoint(6003), at, endpoint(6001));
        let lines = messages(authority::Event::Reported {
            subject: subject(),
            reporter: endpoint(6001),
            text,
            confirmations: 2,
        });
        assert_eq!(
            lines,
            [
                "INFO dead_node Dead Node:127.0.0.1:6003:1734567890.123:127.0.0.1",
                "INFO reported 127.0.0.1:6001 reports 127.0.0.1:6003 (incarnation 7) dead, with 2 \
                 signed findings",
            ]
        );
    }

    #[test]
    fn a_report_that_several_seeds_pass_on_is_told_once() {
        let mut report = SeedReport::default();
        let mut told = |reporter, text: &str| {
            let event = authority::Event::Reported {
                subject: subject(),
                reporter: endpoint(reporter),
                text: text.to_owned(),
                confirmations: 2,
            };
            report.lines(Now::default(), &Event::Authority(event)).len()
        };
        assert_eq!(
            [told(6001, "a"), told(6001, "a"), told(6002, "a"), told(6001, "b")],
            [2, 0, 2, 2]
        );
    }

    #[test]
    fn a_registration_reads_as_proposal_votes_and_outcome() {
        let proposal = Proposal { kind: ProposalKind::Admit, subject: subject() };
        let because = "it asks to register".to_owned();
        assert_eq!(
            messages(authority::Event::Proposed { proposal, needed: 2, because }),
            ["INFO proposed proposal: admit 127.0.0.1:6003 (incarnation 7): it asks to register; \
              2 yes votes needed"]
        );
        let vote = |yes, reason: &str| authority::Event::Voted {
            proposal,
            seed: SeedId(2),
            yes,
            reason: reason.to_owned(),
            count: 1,
            needed: 2,
        };
        assert_eq!(
            messages(vote(true, "it answered")),
            ["INFO voted vote: seed 2 says yes to admit 127.0.0.1:6003: it answered; 1 of 2 yes \
              votes"]
        );
        assert_eq!(yes_votes(3, 2), "3 yes votes, more than the 2 needed");
        let reason = "no quorum".to_owned();
        assert_eq!(
            messages(authority::Event::Aborted { proposal, reason }),
            ["INFO rejected rejected: admit 127.0.0.1:6003 (incarnation 7): no quorum"]
        );
        let keys = KeyPair::from_secret([7; 32]);
        let vote = |seed| {
            Vote::sign(ProposalKind::Admit, &[subject()], (SeedId(seed), &keys), WallTime(9))
        };
        let votes = [1, 3].map(vote).to_vec();
        let MemberInstance { endpoint, incarnation, key } = subject();
        let admission = Admission { endpoint, incarnation, key, votes };
        assert_eq!(
            messages(authority::Event::Admitted(Box::new(admission))),
            ["INFO admitted approved: 127.0.0.1:6003 (incarnation 7) is admitted, \
                 by the votes of seeds 1 and 3"]
        );
    }

    #[test]
    fn a_lost_quorum_is_a_warning_that_says_what_it_means() {
        let event = |reached, connected| authority::Event::Quorum { reached, connected, needed: 2 };
        assert!(messages(event(false, 1))[0].contains("WARN quorum no quorum: 1 seed in reach"));
        assert!(messages(event(false, 1))[0].contains("membership is frozen"));
        assert!(messages(event(true, 2))[0].starts_with("INFO quorum quorum: 2 seeds in reach"));
    }

    #[test]
    fn a_changed_key_is_told_now_and_then_and_not_at_every_attempt() {
        let mut report = SeedReport::default();
        let key = |byte: &str| PublicKey::parse(&byte.repeat(32)).unwrap();
        let mut told = |seed, seconds| {
            let (known, shown) = (key("aa"), key("bb"));
            let event = authority::Event::SeedKeyContradicted { seed: SeedId(seed), known, shown };
            let mono = Time::ZERO.after(std::time::Duration::from_secs(seconds));
            report.lines(Now { mono, wall: WallTime(0) }, &Event::Authority(event))
        };
        assert_eq!([told(2, 0).len(), told(2, 1).len(), told(3, 2).len()], [1, 0, 1]);
        assert!(told(2, 31)[0].message.contains("2 times more"));
    }

    #[test]
    fn a_changed_key_is_an_error_with_its_remedy() {
        let key = |byte: &str| PublicKey::parse(&byte.repeat(32)).unwrap();
        let (known, shown) = (key("aa"), key("bb"));
        let seed = SeedId(2);
        let lines = messages(authority::Event::SeedKeyContradicted { seed, known, shown });
        assert!(lines[0].starts_with("ERROR seed_key_contradicted"), "{lines:?}");
        assert!(lines[0].contains("pin the new key"), "{lines:?}");
    }

    #[test]
    fn orders_to_the_node_make_no_line() {
        let event = authority::Event::Probe { endpoint: endpoint(1), timeout: Default::default() };
        assert_eq!(messages(event), [""; 0]);
    }
}
