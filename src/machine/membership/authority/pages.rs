//! Upper bounds of encoded lengths, so that no message outgrows a line.
//!
//! A longer message is dropped by its own sender, and the receiver waits for it in vain: a page
//! must end before that, whatever certificates a lying seed has helped to make.
//!
//! The lengths are those of the longest JSON form, with IPv6 addresses and numbers of 20 digits.

use crate::model::Endpoint;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{Admission, Ban, Removal, Vote};

/// Greatest sum of the lengths of a message's parts, in bytes: a line, less the text around them.
pub(super) const ROOM: usize = 240_000;

/// Length of an endpoint in a list, in bytes.
pub(super) const ENDPOINT: usize = 64;

/// Length of a life in a list, in bytes.
pub(super) const LIFE: usize = 196;

/// Length of a witness's finding, in bytes.
pub(super) const FINDING: usize = 470;

/// Length of a seed's signed yes without further lives, in bytes.
const VOTE: usize = 230;

/// Length of a goodbye, in bytes.
const LEAVE: usize = 400;

/// Length of field names and brackets, in bytes.
const AROUND: usize = 128;

pub(super) fn of_votes<'a>(votes: impl IntoIterator<Item = &'a Vote>) -> usize {
    votes.into_iter().map(|vote| VOTE + vote.others.len() * LIFE).sum()
}

pub(super) fn of_removal(removal: &Removal) -> usize {
    let Removal { because: _, lives, votes, confirmations } = removal;
    AROUND + lives.len() * LIFE + of_votes(votes) + confirmations.len() * FINDING
}

/// Length of the entry without the proof of its removal, in bytes.
pub(super) fn of_entry(entry: &RegistryEntry) -> usize {
    let of_admission = |it: &Admission| AROUND + LIFE + of_votes(&it.votes);
    let admission = entry.admission.as_ref().map_or(0, of_admission);
    AROUND + LIFE + admission + entry.leave.map_or(0, |_| LEAVE)
}

pub(super) fn of_ban(ban: &Ban) -> usize {
    AROUND + LIFE + of_votes(&ban.votes)
}

/// Endpoint after which a page of these parts, in any order, must end: before the page is full, but
/// never before the first endpoint. `None` if all of them fit.
pub(super) fn end_of(mut parts: Vec<(Endpoint, usize)>) -> Option<Endpoint> {
    parts.sort_unstable();
    let (mut sum, mut last) = (0, None);
    for (endpoint, length) in parts {
        sum += length;
        if sum > ROOM && last.is_some_and(|last| last != endpoint) {
            return last;
        }
        last = Some(endpoint);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::statement::{
        Confirmation, Finding, Leave, MemberInstance, ProposalKind, RemovalReason,
    };
    use crate::model::{Incarnation, KeyPair, SeedId, WallTime};

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new([0xffff_u16; 8].into(), port)
    }

    #[test]
    fn the_lengths_are_no_shorter_than_the_longest_lines() {
        let keys = KeyPair::from_secret([7; 32]);
        let life = MemberInstance {
            endpoint: endpoint(u16::MAX),
            incarnation: Incarnation(u64::MAX),
            key: keys.public(),
        };
        let lives: Vec<_> =
            (0..9).map(|it| MemberInstance { endpoint: endpoint(it), ..life }).collect();
        let voter = (SeedId(u16::MAX), &keys);
        let vote = |kind| Vote {
            others: vec![life; 20],
            ..Vote::sign(kind, &lives, voter, WallTime(u64::MAX))
        };
        let found = Confirmation::sign(
            &life,
            Finding::Replaced,
            (endpoint(u16::MAX), &keys),
            WallTime(u64::MAX),
        );
        let removal = Removal {
            because: RemovalReason::Eviction,
            lives: lives.clone(),
            votes: vec![vote(ProposalKind::Evict); 7],
            confirmations: vec![found; 9],
        };
        let MemberInstance { endpoint, incarnation, key } = life;
        let votes = vec![vote(ProposalKind::Admit); 7];
        let admission = Admission { endpoint, incarnation, key, votes: votes.clone() };
        let leave = Leave::sign(life, WallTime(u64::MAX), &keys);
        let entry = RegistryEntry { leave: Some(leave), ..RegistryEntry::admitted(admission) };
        let ban = Ban { endpoint, key, number: u64::MAX, votes };
        let length = |it: serde_json::Result<String>| it.unwrap().len();
        assert!(length(serde_json::to_string(&removal)) <= of_removal(&removal));
        assert!(length(serde_json::to_string(&entry)) <= of_entry(&entry));
        assert!(length(serde_json::to_string(&ban)) <= of_ban(&ban));
        assert!(length(serde_json::to_string(&endpoint)) < ENDPOINT);
    }

    #[test]
    fn a_page_ends_where_it_is_full_and_has_one_part_at_least() {
        let part = |port, length| (endpoint(port), length);
        assert_eq!(end_of(vec![]), None);
        assert_eq!(end_of(vec![part(1, ROOM), part(1, ROOM)]), None, "the first is never cut");
        assert_eq!(end_of(vec![part(2, ROOM), part(1, 1)]), Some(endpoint(1)));
        assert_eq!(end_of(vec![part(2, ROOM - 1), part(1, 1)]), None);
    }
}
