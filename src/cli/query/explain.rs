//! `peer explain`: why an endpoint is in or out, from the signed proofs that a seed holds.

use std::fmt::Write as _;
use std::time::Duration;

use super::ask_first;
use super::client::{Client, Failure};
use crate::cli::CliError;
use crate::cli::args::ExplainArgs;
use crate::cli::output::{age, print};
use crate::cli::report::{seeds_text, voters};
use crate::cli::text::escape;
use crate::model::entry::{MemberState, RegistryEntry};
use crate::model::statement::{Admission, Leave, MemberInstance, Removal, RemovalReason, Vote};
use crate::model::{Endpoint, WallTime};
use crate::proto::membership::{ExplainReq, ExplainResp};
use crate::proto::message::Message;

/// Prints why an endpoint is in or out.
///
/// # Errors
/// Fails if no seed answers.
pub fn explain(args: &ExplainArgs) -> Result<(), CliError> {
    let (_, answer) = ask_first(&args.ask, |client| fetch(client, args.endpoint))?;
    if args.json {
        let line = serde_json::to_string(&answer)
            .map_err(|error| CliError::Failed(format!("cannot write the answer: {error}")))?;
        print(&(line + "\n"))
    } else {
        print(&text(&answer))
    }
}

/// Asks a seed why an endpoint is in or out.
pub(super) fn fetch(client: &mut Client, endpoint: Endpoint) -> Result<ExplainResp, Failure> {
    client.ask(ExplainReq { endpoint }, |answer| {
        if let Message::ExplainResp(answer) = answer { Some(answer) } else { None }
    })
}

pub(in crate::cli) fn text(answer: &ExplainResp) -> String {
    let ExplainResp { seed, endpoint, lives, open } = answer;
    let mut text = match lives.last().map(|life| (life.status(), life.since())) {
        None => format!(
            "{endpoint} was never a member, or went too long ago, as far as seed {seed} knows\n"
        ),
        Some((MemberState::Alive, since)) => {
            format!("{endpoint} is a member since {since}, says seed {seed}\n")
        }
        Some((MemberState::Removed, since)) => {
            let removal = lives.last().and_then(|life| life.removal.as_ref());
            let how = match removal.map(|removal| removal.because) {
                Some(RemovalReason::Eviction) => "evicted",
                Some(RemovalReason::Death) | None => "removed as dead",
            };
            format!("{endpoint} is out: it was {how} at {since}, says seed {seed}\n")
        }
        Some((MemberState::Left, since)) => {
            format!("{endpoint} is out: it left by its own goodbye at {since}, says seed {seed}\n")
        }
    };
    for (number, life) in (1..).zip(lives) {
        let RegistryEntry { subject, admission, removal, leave } = life;
        let (incarnation, key) = (subject.incarnation, subject.key.short());
        let _ = writeln!(text, "\nlife {number}: incarnation {incarnation}, key {key}…");
        match admission {
            Some(admission) => text.push_str(&admission_text(admission)),
            None => text.push_str("  how it was admitted is not known here\n"),
        }
        let admitted = admission.as_ref().map(Admission::at);
        if let Some(removal) = removal {
            text.push_str(&removal_text(removal, subject, admitted));
        }
        if let Some(leave) = leave {
            text.push_str(&leave_text(leave, admitted));
        }
    }
    for case in open {
        let _ = writeln!(text, "\nright now: {}", escape(case));
    }
    text
}

fn admission_text(admission: &Admission) -> String {
    let (at, seeds) = (admission.at(), seeds_text(&voters(&admission.votes)));
    let mut text = format!("  {at}  admitted by the votes of {seeds}\n");
    text.push_str(&votes_text(&admission.votes, "it answered when dialed back"));
    text
}

fn removal_text(removal: &Removal, life: &MemberInstance, admitted: Option<WallTime>) -> String {
    let (at, seeds) = (removal.at(), seeds_text(&voters(&removal.votes)));
    if removal.because == RemovalReason::Eviction {
        let mut text =
            format!("  {at}  evicted by the operators of {seeds}{}\n", after(admitted, at));
        text.push_str(&votes_text(&removal.votes, "its operator wanted it"));
        return text;
    }
    let mut text =
        format!("  {at}  removed as dead by the votes of {seeds}{}\n", after(admitted, at));
    let others = removal.lives.iter().filter(|it| *it != life);
    let others: Vec<_> = others.map(|it| it.endpoint.to_string()).collect();
    if !others.is_empty() {
        let _ = writeln!(text, "    in one decision with {}", others.join(", "));
    }
    // The first witness to find it dead is the accuser.
    let mut confirmations = removal.evidence_about(life);
    confirmations.sort_by_key(|it| (it.at, it.witness));
    for (index, it) in confirmations.into_iter().enumerate() {
        let verb = if index == 0 { "accused" } else { "confirmed" };
        let (witness, finding) = (it.witness, it.finding.as_str());
        let _ = writeln!(text, "    {}  {verb} by {witness}: {finding}", it.at);
    }
    text.push_str(&votes_text(&removal.votes, "its own probe failed too"));
    text
}

fn leave_text(leave: &Leave, admitted: Option<WallTime>) -> String {
    let at = leave.at;
    format!("  {at}  left by its own signed goodbye{}\n", after(admitted, at))
}

fn votes_text(votes: &[Vote], because: &str) -> String {
    let mut text = String::new();
    for vote in votes {
        let _ = writeln!(text, "    {}  seed {} said yes: {because}", vote.at, vote.seed);
    }
    text
}

/// Duration of a life, as far as the clocks of the seeds that decided can tell.
fn after(admitted: Option<WallTime>, ended: WallTime) -> String {
    let Some(millis) = admitted.and_then(|admitted| ended.0.checked_sub(admitted.0)) else {
        return String::new();
    };
    match millis {
        0..1_000 => format!(", after {millis} ms"),
        _ => format!(", after {}", age(Duration::from_millis(millis))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::statement::{Confirmation, Finding, ProposalKind};
    use crate::model::{Incarnation, KeyPair, SeedId};

    const T: u64 = 1_772_010_000_000;

    fn at(port: u16) -> Endpoint {
        Endpoint::new([127, 0, 0, 1].into(), port)
    }

    fn keys() -> KeyPair {
        KeyPair::from_secret([7; 32])
    }

    fn subject() -> MemberInstance {
        MemberInstance { endpoint: at(6003), incarnation: Incarnation(7), key: keys().public() }
    }

    fn votes(kind: ProposalKind, ms: u64) -> Vec<Vote> {
        let vote = |seed| Vote::sign(kind, &[subject()], (SeedId(seed), &keys()), WallTime(T + ms));
        [1, 3].map(vote).to_vec()
    }

    fn admission() -> Admission {
        let MemberInstance { endpoint, incarnation, key } = subject();
        Admission { endpoint, incarnation, key, votes: votes(ProposalKind::Admit, 0) }
    }

    fn told(lives: Vec<RegistryEntry>, open: Vec<String>) -> String {
        text(&ExplainResp { seed: SeedId(1), endpoint: at(6003), lives, open })
    }

    #[test]
    fn a_removal_names_accuser_witnesses_votes_and_times() {
        let found = |port, ms| {
            let witness = keys();
            Confirmation::sign(&subject(), Finding::Refused, (at(port), &witness), WallTime(T + ms))
        };
        let removal = Removal {
            because: RemovalReason::Death,
            lives: vec![subject()],
            votes: votes(ProposalKind::Remove, 5_200),
            confirmations: vec![found(6001, 5_100), found(6002, 5_000)],
        };
        let mut life = RegistryEntry::admitted(admission());
        life.removal = Some(Arc::new(removal));
        let text = told(vec![life], Vec::new());
        for expected in [
            "127.0.0.1:6003 is out: it was removed as dead at 2026-02-25T09:00:05.200Z",
            "admitted by the votes of seeds 1 and 3",
            "removed as dead by the votes of seeds 1 and 3, after 5 s",
            "2026-02-25T09:00:05.000Z  accused by 127.0.0.1:6002: nobody listens there",
            "2026-02-25T09:00:05.100Z  confirmed by 127.0.0.1:6001: nobody listens there",
            "2026-02-25T09:00:05.200Z  seed 3 said yes: its own probe failed too",
        ] {
            assert!(text.contains(expected), "{expected:?} in:\n{text}");
        }
    }

    #[test]
    fn members_leavers_and_strangers_are_told_apart() {
        let text = told(vec![RegistryEntry::admitted(admission())], Vec::new());
        assert!(text.starts_with("127.0.0.1:6003 is a member since 2026-02-25"), "{text}");
        let leave = Leave::sign(subject(), WallTime(T + 90_000), &keys());
        let text = told(vec![RegistryEntry::left(leave)], Vec::new());
        assert!(text.contains("it left by its own goodbye"), "{text}");
        assert!(text.contains("how it was admitted is not known"), "{text}");
        assert!(told(Vec::new(), Vec::new()).contains("was never a member"));
    }

    #[test]
    fn what_is_open_is_told_and_escaped() {
        let text = told(Vec::new(), vec!["removal\u{1b}[2J".to_owned()]);
        assert!(text.ends_with("right now: removal\\u{1b}[2J\n"), "{text:?}");
    }
}
