//! The seed book: the configured seeds, and the keys by which their votes are known.
//!
//! A key is known because `config.txt` pins it, because an earlier run remembered it, because this
//! node proved it at the configured address (trust on first use), or because a quorum of seeds
//! whose keys are known all name the same one.
//!
//! A number is a seed's place in this node's own list. Other nodes may have another order, so their
//! statements about seeds are taken by address, and a vote by whichever known key has signed it.
//!
//! Invariant: a known key never changes; another key of the same seed is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::machine::quorum::QuorumRule;
use crate::machine::session::RejectReason;
use crate::model::statement::{Admission, Ban, MemberInstance, ProposalKind, Removal, Vote};
use crate::model::{Endpoint, PublicKey, SeedId, SigningBytes};
use crate::proto::hello::{NodeInfo, SeedKey};

/// Number of checks of a certificate's votes against the keys of other numbers than their own.
/// Lists of one order need none; this bounds the cost of a forged certificate, and suffices for
/// eight seeds in any order.
const OTHER_KEYS_MAX: usize = 64;

/// A seed as `config.txt` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedAddress {
    /// Number of the seed: its position in the file, from 1.
    pub id: SeedId,
    /// Address on which the seed listens.
    pub endpoint: Endpoint,
    /// Public key of the seed, if the file pins it.
    pub key: Option<PublicKey>,
}

#[derive(Clone, Debug)]
struct Entry {
    endpoint: Endpoint,
    key: Option<PublicKey>,
    hints: BTreeMap<SeedId, PublicKey>,
}

/// Outcome of learning a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The key was not known before, and is now. The caller must remember it on disk.
    New,
    /// The key was known.
    Known,
    /// Another key is known; the shown one is refused.
    Contradicts {
        /// Key that is known.
        known: PublicKey,
    },
    /// No seed has this number.
    NoSuchSeed,
}

/// Reason why a certificate proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoQuorum {
    /// Number of valid votes of distinct configured seeds whose keys are known.
    pub valid: usize,
    /// Number of votes needed.
    pub needed: usize,
    /// Number of votes that may be valid, of seeds whose keys are not known yet.
    pub unknown: usize,
    /// Number of votes beyond one of each seed. With any of these nothing was judged.
    pub excess: usize,
}

impl NoQuorum {
    /// Offense of the sender of such a certificate: no forgery if a known seed has signed it,
    /// because other signers may have been replaced since.
    pub const fn cause(&self) -> RejectReason {
        if self.valid > 0 { RejectReason::Stale } else { RejectReason::Forged }
    }
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { valid, needed, unknown, excess } = self;
        if *excess > 0 {
            return write!(f, "{excess} votes more than there are seeds");
        }
        write!(f, "{valid} valid votes of {needed} needed ({unknown} of unknown seeds)")
    }
}

/// The configured seeds and their keys.
#[derive(Clone, Debug)]
pub struct SeedBook {
    rule: QuorumRule,
    seeds: BTreeMap<SeedId, Entry>,
    /// Digests of their addresses.
    digests: BTreeSet<u32>,
}

impl SeedBook {
    /// Creates the book of these seeds.
    pub fn new(rule: QuorumRule, seeds: &[SeedAddress]) -> Self {
        let entry = |seed: &SeedAddress| Entry {
            endpoint: seed.endpoint,
            key: seed.key,
            hints: BTreeMap::new(),
        };
        let digest = |seed: &SeedAddress| {
            let [a, b, c, d, ..] =
                SigningBytes::new("folkmoot/seed/1").endpoint(seed.endpoint).sha256();
            u32::from_be_bytes([a, b, c, d])
        };
        let digests = seeds.iter().map(digest).collect();
        Self { rule, seeds: seeds.iter().map(|seed| (seed.id, entry(seed))).collect(), digests }
    }

    /// Number of yes votes that decide.
    pub fn quorum(&self) -> usize {
        self.rule.needed(self.seeds.len())
    }

    /// Rule by which a quorum is counted.
    pub const fn rule(&self) -> QuorumRule {
        self.rule
    }

    /// The configured seeds, ascending.
    pub fn seeds(&self) -> impl Iterator<Item = (SeedId, Endpoint)> {
        self.seeds.iter().map(|(id, entry)| (*id, entry.endpoint))
    }

    /// Number of configured seeds.
    pub fn len(&self) -> usize {
        self.seeds.len()
    }

    /// True if no seed is configured.
    pub fn is_empty(&self) -> bool {
        self.seeds.is_empty()
    }

    /// Address on which a seed listens.
    pub fn endpoint(&self, seed: SeedId) -> Option<Endpoint> {
        self.seeds.get(&seed).map(|entry| entry.endpoint)
    }

    /// The seed that listens at `endpoint`.
    pub fn seed_at(&self, endpoint: Endpoint) -> Option<SeedId> {
        self.seeds().find(|(_, other)| *other == endpoint).map(|(id, _)| id)
    }

    /// A seed's key, once known.
    pub fn key(&self, seed: SeedId) -> Option<PublicKey> {
        self.seeds.get(&seed)?.key
    }

    /// All known keys, ascending by seed.
    pub fn known_keys(&self) -> Vec<SeedKey> {
        let known = |(id, entry): (&SeedId, &Entry)| {
            let at = Some(entry.endpoint);
            entry.key.map(|key| SeedKey { seed: *id, key, at })
        };
        self.seeds.iter().filter_map(known).collect()
    }

    /// Digests of the listed addresses, ascending. Other nodes compare them with those of their
    /// lists.
    pub fn digests(&self) -> Vec<u32> {
        self.digests.iter().copied().collect()
    }

    /// The reason why nothing can be decided together with the node at the other end of a link, for
    /// both ends (`own` is this node's endpoint): lists of different lengths have other quorums,
    /// and lists that share fewer seeds than a quorum belong to two fleets.
    pub fn list_objection(&self, own: Endpoint, other: &NodeInfo) -> Option<String> {
        let (here, there) = (&self.digests, self.list_of(other)?);
        let shared = here.intersection(&there).count();
        let remedy = "give all nodes of a fleet the same list and start them again";
        let place = other.endpoint;
        if here.len() != there.len() {
            let seeds =
                |count| if count == 1 { "1 seed".to_owned() } else { format!("{count} seeds") };
            let (here, there) = (seeds(here.len()), seeds(there.len()));
            let lists = format!("the config.txt of {place} lists {there}, that of {own} {here}");
            Some(format!("{lists}: {remedy}"))
        } else if shared < self.quorum() {
            Some(format!(
                "the config.txt of {place} and that of {own} have {shared} of {} seeds in common, \
                 as in two fleets: {remedy}",
                here.len()
            ))
        } else {
            None
        }
    }

    /// A warning if the node at the other end of a link has another list (`own` is this
    /// node's endpoint). Where there is no objection, both go on in spite of it, as while one
    /// seed is replaced.
    pub fn list_warning(&self, own: Endpoint, other: &NodeInfo) -> Option<String> {
        self.lists_others(other).then(|| {
            format!(
                "the config.txt of {} names other seeds than that of {own}; both go on, but give \
                 all nodes of a fleet the same list",
                other.endpoint
            )
        })
    }

    /// True if that node lists other seeds.
    pub fn lists_others(&self, other: &NodeInfo) -> bool {
        self.list_of(other).is_some_and(|there| there != self.digests)
    }

    /// Another node's list, unless that node or this one is in a fleet without seeds.
    fn list_of(&self, other: &NodeInfo) -> Option<BTreeSet<u32>> {
        let there: BTreeSet<_> = other.seeds.iter().copied().collect();
        (!self.digests.is_empty() && !there.is_empty()).then_some(there)
    }

    /// The number that this node gives to the seed of another node's statement.
    fn number_of(&self, said: &SeedKey) -> Option<SeedId> {
        said.at.map_or(Some(said.seed), |at| self.seed_at(at))
    }

    /// Takes a key that an earlier run has remembered. The key of a seed that is not in the list
    /// any more is forgotten.
    pub fn remember(&mut self, known: SeedKey) {
        if let Some(seed) = self.number_of(&known) {
            _ = self.learn(seed, known.key);
        }
    }

    /// Takes a key that was *proved at the seed's configured address* or read from disk.
    pub fn learn(&mut self, seed: SeedId, key: PublicKey) -> Learned {
        let Some(entry) = self.seeds.get_mut(&seed) else { return Learned::NoSuchSeed };
        match entry.key {
            None => {
                entry.key = Some(key);
                Learned::New
            }
            Some(known) if known == key => Learned::Known,
            Some(known) => Learned::Contradicts { known },
        }
    }

    /// Takes the statements of the proved seed `by` about other seeds' keys. Returns the keys that
    /// became known by it: those named alike by a quorum of known seeds.
    pub fn hint(&mut self, by: SeedId, keys: &[SeedKey]) -> Vec<SeedKey> {
        let quorum = self.quorum();
        let mut learnt = Vec::new();
        if self.key(by).is_none() {
            return learnt;
        }
        for hinted in keys {
            let Some(seed) = self.number_of(hinted) else { continue };
            let Some(entry) = self.seeds.get_mut(&seed) else { continue };
            entry.hints.insert(by, hinted.key);
            let agreeing = entry.hints.values().filter(|&&key| key == hinted.key).count();
            if entry.key.is_none() && agreeing >= quorum {
                entry.key = Some(hinted.key);
                learnt.push(SeedKey { seed, key: hinted.key, at: Some(entry.endpoint) });
            }
        }
        learnt
    }

    /// Checks the proof of an admission (M3).
    ///
    /// [`NoQuorum`], as for every certificate, when fewer seeds than a quorum have signed. Votes
    /// that are forged, doubled or of unknown signers do not count and do no harm. A list longer
    /// than there are seeds proves nothing at all: a certificate is kept and passed on as it came,
    /// and must not carry a load.
    pub fn verify_admission(&self, proof: &Admission) -> Result<(), NoQuorum> {
        self.verify(ProposalKind::Admit, &[proof.subject()], &proof.votes)
    }

    /// Checks the proof of a removal (M3): a quorum has signed for each of its lives.
    ///
    /// # Errors
    /// [`NoQuorum`], as above.
    pub fn verify_removal(&self, proof: &Removal) -> Result<(), NoQuorum> {
        self.verify(proof.because.kind(), &proof.lives, &proof.votes)
    }

    /// Checks the proof of a ban (M3).
    ///
    /// # Errors
    /// [`NoQuorum`], as above.
    pub fn verify_ban(&self, proof: &Ban) -> Result<(), NoQuorum> {
        self.verify(ProposalKind::Ban, &[proof.subject()], &proof.votes)
    }

    fn verify(
        &self,
        kind: ProposalKind,
        lives: &[MemberInstance],
        votes: &[Vote],
    ) -> Result<(), NoQuorum> {
        let mut valid = BTreeSet::new();
        let mut invalid = BTreeSet::new();
        let mut checks = OTHER_KEYS_MAX;
        let excess = votes.len().saturating_sub(self.seeds.len());
        for vote in votes.iter().filter(|_| excess == 0) {
            match self.voter(kind, lives, vote, &mut checks) {
                Some(key) => _ = valid.insert(key),
                None => _ = invalid.insert(vote.seed),
            }
        }
        let (valid, needed) = (valid.len(), self.quorum());
        if valid >= needed {
            return Ok(());
        }
        let keyless = self.seeds.values().filter(|entry| entry.key.is_none()).count();
        Err(NoQuorum { valid, needed, unknown: invalid.len().min(keyless), excess })
    }

    /// The known key that has signed a vote: the key of the vote's number, or where the voter's
    /// list has another order, any other.
    fn voter(
        &self,
        kind: ProposalKind,
        lives: &[MemberInstance],
        vote: &Vote,
        checks: &mut usize,
    ) -> Option<PublicKey> {
        let own = self.key(vote.seed);
        if let Some(key) = own.filter(|key| vote.is_valid(kind, lives, key)) {
            return Some(key);
        }
        let others = self.seeds.values().filter_map(|entry| entry.key);
        for key in others.filter(|key| Some(*key) != own) {
            *checks = checks.checked_sub(1)?;
            if vote.is_valid(kind, lives, &key) {
                return Some(key);
            }
        }
        None
    }

    /// True if a known seed has given this vote.
    pub fn is_given(&self, kind: ProposalKind, lives: &[MemberInstance], vote: &Vote) -> bool {
        self.voter(kind, lives, vote, &mut OTHER_KEYS_MAX.clone()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::statement::RemovalReason;
    use crate::model::{Incarnation, KeyPair, Rng, WallTime};

    fn fleet(n: u16) -> (SeedBook, Vec<KeyPair>, MemberInstance) {
        let mut rng = Rng::seed_from_u64(7);
        let keys: Vec<_> = (0..n).map(|_| KeyPair::generate(&mut rng)).collect();
        let seeds: Vec<_> = (1..=n)
            .map(|id| SeedAddress {
                id: SeedId(id),
                endpoint: Endpoint::new([127, 0, 0, 1].into(), 5000 + id),
                key: Some(keys[usize::from(id) - 1].public()),
            })
            .collect();
        let subject = MemberInstance {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), 6001),
            incarnation: Incarnation(1),
            key: KeyPair::generate(&mut rng).public(),
        };
        (SeedBook::new(QuorumRule::Majority, &seeds), keys, subject)
    }

    #[test]
    fn a_quorum_of_distinct_valid_votes_proves_and_nothing_less() {
        let (book, keys, subject) = fleet(3);
        let admit = ProposalKind::Admit;
        let vote = |seed: u16, by: usize| {
            Vote::sign(admit, &[subject], (SeedId(seed), &keys[by]), WallTime(5))
        };
        let is_ok = |votes: &[Vote]| book.verify(admit, &[subject], votes).is_ok();
        assert!(is_ok(&[vote(1, 0), vote(3, 2)]));
        assert!(!is_ok(&[vote(1, 0)]), "one seed alone");
        assert!(!is_ok(&[vote(1, 0), vote(1, 0)]), "one seed twice");
        assert!(!is_ok(&[vote(1, 0), vote(2, 0)]), "one seed in another's name");
        assert!(is_ok(&[vote(1, 0), vote(4, 2)]), "known by its key, whatever its line elsewhere");
        assert!(!is_ok(&[vote(3, 2), vote(4, 2)]), "one seed under two numbers");
        let stranger = KeyPair::generate(&mut Rng::seed_from_u64(8));
        let strange = Vote::sign(admit, &[subject], (SeedId(2), &stranger), WallTime(5));
        assert!(!is_ok(&[vote(1, 0), strange]), "a seed that is not configured");
        assert!(!is_ok(&[]), "nobody");
        let votes = [vote(1, 0), vote(2, 1)];
        assert!(book.verify(ProposalKind::Remove, &[subject], &votes).is_err(), "something else");
    }

    #[test]
    fn what_a_quorum_has_signed_in_common_is_proved_and_nothing_else() {
        let (book, keys, first) = fleet(3);
        let [second, third] =
            [2, 3].map(|number| MemberInstance { incarnation: Incarnation(number), ..first });
        let vote = |seed: u16, lives: &[MemberInstance], others: &[MemberInstance]| {
            let (voter, kind) =
                ((SeedId(seed), &keys[usize::from(seed) - 1]), ProposalKind::Remove);
            Vote { others: others.to_vec(), ..Vote::sign(kind, lives, voter, WallTime(5)) }
        };
        let all = [first, second, third];
        let is_ok = |lives: &[MemberInstance], votes: Vec<Vote>| {
            let (because, lives, confirmations) =
                (RemovalReason::Death, lives.to_vec(), Vec::new());
            book.verify_removal(&Removal { because, lives, votes, confirmations }).is_ok()
        };
        assert!(is_ok(&all, vec![vote(1, &all, &[]), vote(2, &all, &[])]));
        let common = vec![vote(1, &all, &[third]), vote(2, &all[..2], &[])];
        assert!(is_ok(&all[..2], common.clone()), "one has signed for more");
        assert!(!is_ok(&all, common), "the second has not signed for the third");
        let doubled = [first, first];
        assert!(!is_ok(&doubled, vec![vote(1, &doubled, &[]), vote(2, &doubled, &[])]));
        assert!(!is_ok(&[], vec![vote(1, &[], &[]), vote(2, &[], &[])]), "nobody");
        let many: Vec<_> = (0..=crate::model::statement::LIVES_MAX as u64)
            .map(|number| MemberInstance { incarnation: Incarnation(number), ..first })
            .collect();
        assert!(!is_ok(&many, vec![vote(1, &many, &[]), vote(2, &many, &[])]), "too many");
    }

    #[test]
    fn a_known_key_never_changes() {
        let (mut book, keys, _) = fleet(3);
        let known = keys[0].public();
        assert_eq!(book.learn(SeedId(1), known), Learned::Known);
        assert_eq!(book.learn(SeedId(1), keys[1].public()), Learned::Contradicts { known });
        assert_eq!(book.learn(SeedId(9), known), Learned::NoSuchSeed);
    }

    #[test]
    fn a_key_is_believed_from_others_only_when_a_quorum_agrees() {
        let (full, keys, _) = fleet(3);
        let addresses: Vec<_> =
            full.seeds().map(|(id, endpoint)| SeedAddress { id, endpoint, key: None }).collect();
        let mut book = SeedBook::new(QuorumRule::Majority, &addresses);
        let at = book.endpoint(SeedId(3));
        let third = [SeedKey { seed: SeedId(3), key: keys[2].public(), at }];
        assert_eq!(book.hint(SeedId(1), &third), [], "an unproved seed's word is nothing");
        assert_eq!(book.learn(SeedId(1), keys[0].public()), Learned::New);
        assert_eq!(book.learn(SeedId(2), keys[1].public()), Learned::New);
        let lie = [SeedKey { seed: SeedId(3), key: keys[0].public(), at }];
        assert_eq!(book.hint(SeedId(1), &third), []);
        assert_eq!(book.hint(SeedId(2), &lie), []);
        assert_eq!(book.hint(SeedId(2), &third), third);
        assert_eq!(book.key(SeedId(3)), Some(keys[2].public()));
    }

    #[test]
    fn lists_that_share_no_quorum_belong_to_two_fleets() {
        let book = |ports: &[u16]| {
            let seeds: Vec<_> = (1..)
                .zip(ports)
                .map(|(id, port)| SeedAddress {
                    id: SeedId(id),
                    endpoint: Endpoint::new([127, 0, 0, 1].into(), *port),
                    key: None,
                })
                .collect();
            SeedBook::new(QuorumRule::Majority, &seeds)
        };
        let (_, _, subject) = fleet(1);
        let own = Endpoint::new([127, 0, 0, 1].into(), 6002);
        let said = |here: &[u16], there: &[u16]| {
            let other = NodeInfo { seeds: book(there).digests(), ..NodeInfo::new(subject) };
            let here = book(here);
            (here.list_objection(own, &other), here.list_warning(own, &other))
        };
        assert_eq!(said(&[1, 2, 3], &[3, 1, 2]), (None, None), "in another order");
        let (objection, warning) = said(&[1, 2, 3], &[1, 2, 4]);
        assert_eq!(objection, None, "as while one is replaced");
        assert!(warning.unwrap().contains("names other seeds"));
        assert!(said(&[1, 2, 3], &[1, 4, 5]).0.unwrap().contains("1 of 3 seeds in common"));
        assert!(said(&[1], &[2]).0.unwrap().contains("0 of 1 seeds in common"));
        assert!(said(&[1, 2, 3], &[1, 2]).0.unwrap().contains("lists 2 seeds"));
        assert_eq!(said(&[1, 2, 3], &[]), (None, None), "nothing was said");
    }

    /// The same seeds in another order, without their keys.
    fn turned(full: &SeedBook) -> SeedBook {
        let mut places: Vec<_> = full.seeds().map(|(_, endpoint)| endpoint).collect();
        places.rotate_left(1);
        let seeds: Vec<_> = (1..)
            .zip(places)
            .map(|(id, endpoint)| SeedAddress { id: SeedId(id), endpoint, key: None })
            .collect();
        SeedBook::new(QuorumRule::Majority, &seeds)
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let (full, keys, subject) = fleet(3);
        let mut book = turned(&full);
        assert_eq!(book.digests(), full.digests());
        for known in full.known_keys() {
            book.remember(known);
        }
        let (first, known) = (full.endpoint(SeedId(1)).unwrap(), keys[0].public());
        let number = book.seed_at(first).unwrap();
        assert_eq!((number, book.key(number)), (SeedId(3), Some(known)));
        let admit = ProposalKind::Admit;
        let vote = |seed: u16| {
            let keys = &keys[usize::from(seed) - 1];
            Vote::sign(admit, &[subject], (SeedId(seed), keys), WallTime(5))
        };
        assert!(book.verify(admit, &[subject], &[vote(1), vote(2)]).is_ok());
        assert!(book.verify(admit, &[subject], &[vote(1), vote(1)]).is_err(), "one seed twice");
        assert!(book.is_given(admit, &[subject], &vote(2)));
    }

    #[test]
    fn a_key_that_was_remembered_is_that_of_its_address() {
        let (full, keys, _) = fleet(3);
        let mut book = turned(&full);
        let gone = Endpoint::new([127, 0, 0, 1].into(), 9);
        let key = keys[0].public();
        book.remember(SeedKey { seed: SeedId(1), key, at: Some(gone) });
        assert_eq!(book.known_keys(), [], "that seed has been replaced");
        // An earlier program has not written down the address.
        book.remember(SeedKey { seed: SeedId(1), key, at: None });
        assert_eq!(book.key(SeedId(1)), Some(key));
    }
}
