//! Decisions of the seeds, by the proofs about a member's lives. Pure.

use crate::cli::report::{seeds_text, voters};
use crate::model::statement::RemovalReason;
use crate::model::{Endpoint, WallTime};
use crate::proto::membership::ExplainResp;

/// One decision about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Time of the last vote, or of the goodbye.
    pub(super) at: WallTime,
    /// Member that it is about.
    pub(super) endpoint: Endpoint,
    /// Effect of the decision.
    pub(super) what: &'static str,
    /// Seeds that voted for it.
    pub(super) votes: String,
    /// Reason for it.
    pub(super) why: String,
}

/// The decisions about each life of an endpoint.
pub(super) fn decisions_of(answer: &ExplainResp) -> Vec<Decision> {
    let endpoint = answer.endpoint;
    let mut all = Vec::new();
    for life in &answer.lives {
        if let Some(it) = &life.admission {
            all.push(Decision {
                at: it.at(),
                endpoint,
                what: "let in",
                votes: seeds_text(&voters(&it.votes)),
                why: "it answered when dialed back".to_owned(),
            });
        }
        if let Some(it) = &life.removal {
            let mut found = it.evidence_about(&life.subject);
            found.sort_by_key(|it| (it.at, it.witness));
            let others = match found.len() {
                0 | 1 => String::new(),
                many => format!(" and {} more", many - 1),
            };
            let (what, why) = match (it.because, found.first()) {
                (RemovalReason::Eviction, _) => ("evicted", "their operators wanted it".to_owned()),
                (RemovalReason::Death, Some(first)) => (
                    "removed",
                    format!("{}, says {}{others}", first.finding.as_str(), first.witness),
                ),
                (RemovalReason::Death, None) => ("removed", "the seeds' own probes".to_owned()),
            };
            let votes = seeds_text(&voters(&it.votes));
            all.push(Decision { at: it.at(), endpoint, what, votes, why });
        }
        if let Some(it) = &life.leave {
            let why = "its own signed goodbye".to_owned();
            let votes = "no vote needed".to_owned();
            all.push(Decision { at: it.at, endpoint, what: "left", votes, why });
        }
    }
    all
}
