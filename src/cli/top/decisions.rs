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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::entry::RegistryEntry;
    use crate::model::statement::{
        Admission, Confirmation, Finding, MemberInstance, ProposalKind, Removal, Vote,
    };
    use crate::model::{Incarnation, KeyPair, SeedId};

    #[test]
    fn an_admission_and_a_death_have_their_votes_and_the_first_finding() {
        let keys = KeyPair::from_secret([7; 32]);
        let at = |port| Endpoint::new([127, 0, 0, 1].into(), port);
        let subject =
            MemberInstance { endpoint: at(6003), incarnation: Incarnation(7), key: keys.public() };
        let votes = |kind, ms| {
            let vote = |id| Vote::sign(kind, &[subject], (SeedId(id), &keys), WallTime(ms));
            [1, 3].map(vote).to_vec()
        };
        let found = |port, ms| {
            Confirmation::sign(&subject, Finding::Refused, (at(port), &keys), WallTime(ms))
        };
        let MemberInstance { endpoint, incarnation, key } = subject;
        let votes_in = votes(ProposalKind::Admit, 1_000);
        let mut life =
            RegistryEntry::admitted(Admission { endpoint, incarnation, key, votes: votes_in });
        life.removal = Some(Arc::new(Removal {
            because: RemovalReason::Death,
            lives: vec![subject],
            votes: votes(ProposalKind::Remove, 5_000),
            confirmations: vec![found(6001, 4_900), found(6002, 4_800)],
        }));
        let answer = ExplainResp { seed: SeedId(1), endpoint, lives: vec![life], open: Vec::new() };
        let all = decisions_of(&answer);
        let told: Vec<_> =
            all.iter().map(|it| (it.at.0, it.what, it.votes.as_str(), it.why.as_str())).collect();
        let because = "nobody listens there, says 127.0.0.1:6002 and 1 more";
        let expected = [
            (1_000, "let in", "seeds 1 and 3", "it answered when dialed back"),
            (5_000, "removed", "seeds 1 and 3", because),
        ];
        assert_eq!(told, expected);
    }
}
