//! Statements that can be checked by anybody: proposals, votes, certificates, confirmations.
//!
//! A proposal is identified by its content (M1), so proposals for the same thing made by several
//! seeds are one. A certificate is that content with the signed yes votes of a quorum (M3).
//!
//! Removals that are ripe together are one decision: one signature of a seed covers several lives,
//! and one certificate ends them. Seeds need not sign the same list. A vote in a certificate names
//! what else its signature covers, so whatever a quorum has signed in common is decided.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    Endpoint, Incarnation, KeyPair, PublicKey, SeedId, Signature, SigningBytes, WallTime,
};

/// Lives that one signature may cover: a rack that fails is a few decisions, and the certificate
/// is still a short line for each of thousands of members.
pub const LIVES_MAX: usize = 32;

/// What a proposal would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalKind {
    /// Add a member.
    Admit,
    /// Remove a member as dead.
    Remove,
    /// Remove a member because the operators of a quorum of seeds want it so.
    Evict,
    /// Keep an endpoint and a key out, or let them in again: the subject's incarnation is the
    /// number of the ban.
    Ban,
}

impl ProposalKind {
    const fn domain(self) -> &'static str {
        match self {
            Self::Admit => "folkmoot/vote/admit/1",
            Self::Remove => "folkmoot/vote/remove/1",
            Self::Evict => "folkmoot/vote/evict/1",
            Self::Ban => "folkmoot/vote/ban/1",
        }
    }
}

/// Whom a statement is about: one life of one endpoint under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// The key it proved.
    pub key: PublicKey,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (incarnation {})", self.endpoint, self.incarnation)
    }
}

impl Subject {
    fn signing_bytes(&self, domain: &str) -> SigningBytes {
        self.add_to(SigningBytes::new(domain))
    }

    fn add_to(&self, bytes: SigningBytes) -> SigningBytes {
        bytes.endpoint(self.endpoint).incarnation(self.incarnation).key(&self.key)
    }
}

/// A change to the registry that seeds vote on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Proposal {
    /// What it would do.
    pub kind: ProposalKind,
    /// To whom.
    pub subject: Subject,
}

/// One seed's signed yes. A no is never signed: it decides nothing and may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who voted.
    pub seed: SeedId,
    /// When, by the voter's clock.
    pub at: WallTime,
    /// What the signature covers beside the lives it stands with; usually nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Subject>,
    /// The voter's signature over kind, all the lives, voter and time.
    pub signature: Signature,
}

impl Vote {
    /// The yes of seed `seed` to `kind` for all of `lives`, which ascend. Journal it before it
    /// leaves the node (M2).
    pub fn sign(
        kind: ProposalKind,
        lives: &[Subject],
        (seed, keys): (SeedId, &KeyPair),
        at: WallTime,
    ) -> Self {
        let signature = keys.sign(&Self::signing_bytes(kind, lives.iter(), seed, at));
        Self { seed, at, others: Vec::new(), signature }
    }

    /// Whether this is `key`'s yes to `kind` for all of `lives` and for the vote's own `others`.
    pub fn is_valid(&self, kind: ProposalKind, lives: &[Subject], key: &PublicKey) -> bool {
        let covered: BTreeSet<_> = lives.iter().chain(&self.others).collect();
        let count = lives.len() + self.others.len();
        // A list that names somebody twice is nothing that an honest seed has signed.
        (1..=LIVES_MAX).contains(&count)
            && covered.len() == count
            && key.verifies(
                &Self::signing_bytes(kind, covered.into_iter(), self.seed, self.at),
                &self.signature,
            )
    }

    fn signing_bytes<'a>(
        kind: ProposalKind,
        lives: impl ExactSizeIterator<Item = &'a Subject>,
        seed: SeedId,
        at: WallTime,
    ) -> SigningBytes {
        let bytes = SigningBytes::new(kind.domain()).number(lives.len() as u64);
        lives.fold(bytes, |bytes, life| life.add_to(bytes)).seed(seed).wall(at)
    }
}

/// The proof that a member was admitted; the payload of `REGISTER_COMMIT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Where the member listens.
    pub endpoint: Endpoint,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// The key it proved to each voter.
    pub key: PublicKey,
    /// Yes votes of a quorum of distinct seeds, ascending by seed.
    pub votes: Vec<Vote>,
}

impl Admission {
    /// The admitted one.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// When this was decided, by the clocks of the voters.
    pub fn at(&self) -> WallTime {
        decided_at(&self.votes)
    }
}

/// Why members were removed: what each of the votes says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// They are dead.
    #[default]
    Death,
    /// The operators want it so; whether they live is another matter.
    Eviction,
}

impl Because {
    /// What was voted on.
    pub const fn kind(self) -> ProposalKind {
        match self {
            Self::Death => ProposalKind::Remove,
            Self::Eviction => ProposalKind::Evict,
        }
    }
}

/// The proof that members were removed, with the evidence; the payload of `SEED_DEAD_COMMIT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Why.
    pub because: Because,
    /// Whose lives ended, ascending: what was decided together.
    pub lives: Vec<Subject>,
    /// Yes votes of a quorum of distinct seeds, ascending by seed; each covers all the lives.
    pub votes: Vec<Vote>,
    /// Who confirmed, for people; the votes alone decide.
    pub confirmations: Vec<Confirmation>,
}

impl Removal {
    /// Whether this ends exactly this life.
    pub fn ends(&self, life: &Subject) -> bool {
        self.lives.contains(life)
    }

    /// The evidence about one of the lives.
    pub fn evidence_about(&self, life: &Subject) -> Vec<Confirmation> {
        let is_about = |found: &&Confirmation| found.subject() == *life;
        self.confirmations.iter().filter(is_about).copied().collect()
    }

    /// The same with less of the evidence: at most `count` findings.
    pub fn with_evidence(&self, count: usize) -> Self {
        let confirmations = self.confirmations.iter().take(count).copied().collect();
        let (because, lives, votes) = (self.because, self.lives.clone(), self.votes.clone());
        Self { because, lives, votes, confirmations }
    }

    /// When this was decided, by the clocks of the voters.
    pub fn at(&self) -> WallTime {
        decided_at(&self.votes)
    }
}

/// The proof that the operators of a quorum of seeds banned an endpoint and the key it had, or
/// lifted that ban; the payload of `SEED_BAN_COMMIT`. The highest number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Which key.
    pub key: PublicKey,
    /// Rises by one with each ban and each lifting: odd bans, even lifts.
    pub number: u64,
    /// Yes votes of a quorum of distinct seeds, ascending by seed.
    pub votes: Vec<Vote>,
}

impl Ban {
    /// What was voted on.
    pub const fn subject(&self) -> Subject {
        let incarnation = Incarnation(self.number);
        Subject { endpoint: self.endpoint, incarnation, key: self.key }
    }

    /// Whether it keeps anybody out.
    pub const fn is_in_force(&self) -> bool {
        self.number % 2 == 1
    }

    /// When this was decided, by the clocks of the voters.
    pub fn at(&self) -> WallTime {
        decided_at(&self.votes)
    }
}

/// The middle of the times that the votes name, the lower one of two. A vote's time is its
/// voter's word: fewer liars than half a quorum must not date a decision into the future, where it
/// would never be forgotten.
fn decided_at(votes: &[Vote]) -> WallTime {
    let mut times: Vec<_> = votes.iter().map(|vote| vote.at).collect();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// What a witness found when it probed a suspect afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Nobody listens at the endpoint.
    Refused,
    /// Nothing answered in time.
    Silent,
    /// Somebody answered, but not this life of the suspect: it was restarted or replaced.
    Replaced,
    /// The suspect answered.
    Alive,
}

impl Finding {
    /// Whether the suspect's life is over by this finding.
    pub const fn is_dead(self) -> bool {
        match self {
            Self::Refused | Self::Silent | Self::Replaced => true,
            Self::Alive => false,
        }
    }

    /// The finding in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "nobody listens there",
            Self::Silent => "no answer",
            Self::Replaced => "another process answers there",
            Self::Alive => "it answered",
        }
    }
}

/// A witness's signed finding; the payload of `SUSPECT_ACK` and the evidence in reports (O5, M6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Confirmation {
    /// The suspect's endpoint.
    pub endpoint: Endpoint,
    /// Which of its lives; evidence about one life says nothing of another.
    pub incarnation: Incarnation,
    /// By which key the witness would have recognized it. A witness that was asked about a wrong
    /// key finds somebody else there; that must not count against the holder of the right one.
    pub key: PublicKey,
    /// What the witness found.
    pub finding: Finding,
    /// The witness's endpoint.
    pub witness: Endpoint,
    /// When, by the witness's clock; evidence expires.
    pub at: WallTime,
    /// The witness's signature over all of this.
    pub signature: Signature,
}

impl Confirmation {
    /// The finding of `witness` about `subject`, signed.
    pub fn sign(
        subject: &Subject,
        finding: Finding,
        (witness, keys): (Endpoint, &KeyPair),
        at: WallTime,
    ) -> Self {
        let mut this = Self {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            finding,
            witness,
            at,
            signature: Signature::from_bytes([0; 64]),
        };
        this.signature = keys.sign(&this.signing_bytes());
        this
    }

    /// Whom this is about.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// Whether the holder of `key` signed this.
    pub fn is_valid(&self, key: &PublicKey) -> bool {
        key.verifies(&self.signing_bytes(), &self.signature)
    }

    fn signing_bytes(&self) -> SigningBytes {
        self.subject()
            .signing_bytes("folkmoot/confirmation/1")
            .number(self.finding as u64)
            .endpoint(self.witness)
            .wall(self.at)
    }
}

/// A member's own goodbye; the payload of `LEAVE`. It ends exactly one incarnation (M7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Who leaves.
    pub endpoint: Endpoint,
    /// Which of its lives ends.
    pub incarnation: Incarnation,
    /// Its key.
    pub key: PublicKey,
    /// When, by its own clock.
    pub at: WallTime,
    /// Its signature.
    pub signature: Signature,
}

impl Leave {
    /// The goodbye of `subject` at `at`.
    pub fn sign(subject: Subject, at: WallTime, keys: &KeyPair) -> Self {
        let signature = keys.sign(&Self::signing_bytes(&subject, at));
        let Subject { endpoint, incarnation, key } = subject;
        Self { endpoint, incarnation, key, at, signature }
    }

    /// Who leaves.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// Whether the leaver itself signed this. Its key must still be compared with the registry's.
    pub fn is_valid(&self) -> bool {
        self.key.verifies(&Self::signing_bytes(&self.subject(), self.at), &self.signature)
    }

    fn signing_bytes(subject: &Subject, at: WallTime) -> SigningBytes {
        subject.signing_bytes("folkmoot/leave/1").wall(at)
    }
}

/// A request to be admitted; the payload of `REGISTER_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterReq {
    /// Where the applicant listens.
    pub endpoint: Endpoint,
    /// The life that asks.
    pub incarnation: Incarnation,
    /// Its key.
    pub key: PublicKey,
    /// Its signature, which other seeds check before they spend a dial-back on it.
    pub signature: Signature,
}

impl RegisterReq {
    /// The request of `subject`.
    pub fn sign(subject: Subject, keys: &KeyPair) -> Self {
        let signature = keys.sign(&subject.signing_bytes("folkmoot/register/1"));
        let Subject { endpoint, incarnation, key } = subject;
        Self { endpoint, incarnation, key, signature }
    }

    /// Who asks.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// Whether the applicant itself signed this.
    pub fn is_valid(&self) -> bool {
        self.key.verifies(&self.subject().signing_bytes("folkmoot/register/1"), &self.signature)
    }
}

/// A peer's own statement of whom it is linked with; the payload of `NEIGHBORS`.
///
/// It is what makes somebody a witness: only those whom the suspect itself named count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborList {
    /// Who states it.
    pub endpoint: Endpoint,
    /// In which life.
    pub incarnation: Incarnation,
    /// Rises with each statement of one life; a lower one is ignored.
    pub version: u64,
    /// Whom it is linked with, ascending.
    pub neighbors: Vec<Endpoint>,
    /// Its signature.
    pub signature: Signature,
}

impl NeighborList {
    /// The statement number `version` of `subject`.
    pub fn sign(subject: &Subject, version: u64, neighbors: Vec<Endpoint>, keys: &KeyPair) -> Self {
        let mut this = Self {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            version,
            neighbors,
            signature: Signature::from_bytes([0; 64]),
        };
        this.signature = keys.sign(&this.signing_bytes());
        this
    }

    /// Whether the holder of `key` signed this.
    pub fn is_valid(&self, key: &PublicKey) -> bool {
        key.verifies(&self.signing_bytes(), &self.signature)
    }

    fn signing_bytes(&self) -> SigningBytes {
        let mut bytes = SigningBytes::new("folkmoot/neighbors/1")
            .endpoint(self.endpoint)
            .incarnation(self.incarnation)
            .number(self.version);
        for neighbor in &self.neighbors {
            bytes = bytes.endpoint(*neighbor);
        }
        bytes
    }
}
