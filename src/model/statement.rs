//! Statements that every node can check: proposals, votes, certificates, confirmations.
//!
//! A proposal is identified by its content (M1), so proposals for the same thing made by several
//! seeds are one. A certificate is that content with the signed yes votes of a quorum (M3).
//!
//! Removals that are ripe together are one decision: one signature of a seed covers several
//! lives, and one certificate ends them. Seeds need not sign the same list. A vote in a
//! certificate names the other lives that its signature covers, so the lives that a quorum has
//! signed in common are decided.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Endpoint, Incarnation, KeyPair, PublicKey, SeedId, Signature, SigningBytes, WallTime};

/// Number of lives that one signature may cover: a rack that fails is a few decisions, and the
/// certificate is still a short line for each of thousands of members.
pub const LIVES_MAX: usize = 32;

/// Kind of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalKind {
    /// Add a member.
    Admit,
    /// Remove a member as dead.
    Remove,
    /// Remove a member because the operators of a quorum of seeds order it.
    Evict,
    /// Keep an endpoint and a key out, or admit them again: the subject's incarnation is the number
    /// of the ban.
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

/// Subject of a statement: one life of one endpoint under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberInstance {
    /// Address on which the member listens.
    pub endpoint: Endpoint,
    /// Incarnation of the life.
    pub incarnation: Incarnation,
    /// Public key that the member proved.
    pub key: PublicKey,
}

impl fmt::Display for MemberInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (incarnation {})", self.endpoint, self.incarnation)
    }
}

impl MemberInstance {
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
    /// Kind of the proposal.
    pub kind: ProposalKind,
    /// Life that the proposal is about.
    pub subject: MemberInstance,
}

/// One seed's signed yes. A no is never signed: it decides nothing and may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Seed that voted.
    pub seed: SeedId,
    /// Time of the vote, by the voter's clock.
    pub at: WallTime,
    /// Further lives that the signature covers; usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<MemberInstance>,
    /// Signature of the voter over kind, all the lives, voter and time.
    pub signature: Signature,
}

impl Vote {
    /// Signs the yes of seed `seed` to `kind` for all of `lives`, which ascend. The vote must be
    /// journaled before it leaves the node (M2).
    pub fn sign(
        kind: ProposalKind,
        lives: &[MemberInstance],
        (seed, keys): (SeedId, &KeyPair),
        at: WallTime,
    ) -> Self {
        let signature = keys.sign(&Self::signing_bytes(kind, lives.iter(), seed, at));
        Self { seed, at, others: Vec::new(), signature }
    }

    /// True if this is `key`'s yes to `kind` for all of `lives` and for the vote's own `others`.
    pub fn is_valid(&self, kind: ProposalKind, lives: &[MemberInstance], key: &PublicKey) -> bool {
        let covered: BTreeSet<_> = lives.iter().chain(&self.others).collect();
        let count = lives.len() + self.others.len();
        // No honest seed signs a list that names a life twice.
        (1..=LIVES_MAX).contains(&count)
            && covered.len() == count
            && key.verifies(
                &Self::signing_bytes(kind, covered.into_iter(), self.seed, self.at),
                &self.signature,
            )
    }

    fn signing_bytes<'a>(
        kind: ProposalKind,
        lives: impl ExactSizeIterator<Item = &'a MemberInstance>,
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
    /// Address on which the member listens.
    pub endpoint: Endpoint,
    /// Incarnation of the life.
    pub incarnation: Incarnation,
    /// Public key that the member proved to each voter.
    pub key: PublicKey,
    /// Yes votes of a quorum of distinct seeds, ascending by seed.
    pub votes: Vec<Vote>,
}

impl Admission {
    /// The admitted life.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// Time of the decision, by the clocks of the voters.
    pub fn at(&self) -> WallTime {
        decided_at(&self.votes)
    }
}

/// Reason of a removal, as each of the votes states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// The members are dead.
    #[default]
    Death,
    /// The operators order the removal, whether or not the members live.
    Eviction,
}

impl RemovalReason {
    /// Kind of proposal that the seeds voted on.
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
    /// Reason of the removal.
    pub because: RemovalReason,
    /// Lives that ended, ascending: those that were decided together.
    pub lives: Vec<MemberInstance>,
    /// Yes votes of a quorum of distinct seeds, ascending by seed; each covers all the lives.
    pub votes: Vec<Vote>,
    /// Findings of the witnesses, for people; the votes alone decide.
    pub confirmations: Vec<Confirmation>,
}

impl Removal {
    /// True if the removal ends exactly this life.
    pub fn ends(&self, life: &MemberInstance) -> bool {
        self.lives.contains(life)
    }

    /// The evidence about one of the lives.
    pub fn evidence_about(&self, life: &MemberInstance) -> Vec<Confirmation> {
        let is_about = |found: &&Confirmation| found.subject() == *life;
        self.confirmations.iter().filter(is_about).copied().collect()
    }

    /// Returns the removal with less of the evidence: at most `count` findings.
    pub fn with_evidence(&self, count: usize) -> Self {
        let confirmations = self.confirmations.iter().take(count).copied().collect();
        let (because, lives, votes) = (self.because, self.lives.clone(), self.votes.clone());
        Self { because, lives, votes, confirmations }
    }

    /// Time of the decision, by the clocks of the voters.
    pub fn at(&self) -> WallTime {
        decided_at(&self.votes)
    }
}

/// A change of the fleet's membership with the proof that a quorum of seeds decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SeedCertificate {
    /// A member was admitted.
    Admission(Admission),
    /// Members were removed.
    Removal(Arc<Removal>),
}

impl SeedCertificate {
    /// Kind of the change, and the lives that it is about: the same for each certificate of it.
    pub fn change(&self) -> (ProposalKind, Vec<MemberInstance>) {
        match self {
            Self::Admission(it) => (ProposalKind::Admit, vec![it.subject()]),
            Self::Removal(it) => (it.because.kind(), it.lives.clone()),
        }
    }
}

/// The proof that the operators of a quorum of seeds banned an endpoint and the key it had, or
/// lifted that ban; the payload of `SEED_BAN_COMMIT`. The highest number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Endpoint that is banned.
    pub endpoint: Endpoint,
    /// Public key that is banned.
    pub key: PublicKey,
    /// Number of the ban; rises by one with each ban and each lifting: odd bans, even lifts.
    pub number: u64,
    /// Yes votes of a quorum of distinct seeds, ascending by seed.
    pub votes: Vec<Vote>,
}

impl Ban {
    /// Subject that the seeds voted on; its incarnation is the number of the ban.
    pub const fn subject(&self) -> MemberInstance {
        let incarnation = Incarnation(self.number);
        MemberInstance { endpoint: self.endpoint, incarnation, key: self.key }
    }

    /// True if the ban keeps its endpoint and key out.
    pub const fn is_in_force(&self) -> bool {
        self.number % 2 == 1
    }

    /// Time of the decision, by the clocks of the voters.
    pub fn at(&self) -> WallTime {
        decided_at(&self.votes)
    }
}

/// The median of the times that the votes name, the lower one of two. A vote's time is its voter's
/// word: fewer liars than half a quorum must not date a decision into the future, where it would
/// never be forgotten.
fn decided_at(votes: &[Vote]) -> WallTime {
    let mut times: Vec<_> = votes.iter().map(|vote| vote.at).collect();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// Finding of a witness that probed a suspect afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The connection to the endpoint was refused.
    Refused,
    /// No answer came in time.
    Silent,
    /// Another life or key answered than the suspect's: the suspect was restarted or replaced.
    Replaced,
    /// The suspect answered.
    Alive,
}

impl Finding {
    /// True if the finding says that the suspect's life is over.
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
    /// Incarnation of the suspect's life; evidence about one life says nothing of another.
    pub incarnation: Incarnation,
    /// Public key by which the witness would have recognized the suspect. A witness that was
    /// asked about a wrong key finds another key there; that must not count against the holder of
    /// the right one.
    pub key: PublicKey,
    /// Result of the probe.
    pub finding: Finding,
    /// The witness's endpoint.
    pub witness: Endpoint,
    /// Time of the finding, by the witness's clock; evidence expires.
    pub at: WallTime,
    /// Signature of the witness over all of this.
    pub signature: Signature,
}

impl Confirmation {
    /// Signs the finding of `witness` about `subject`.
    pub fn sign(
        subject: &MemberInstance,
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

    /// The life that the finding is about.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// True if the holder of `key` signed the finding.
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
    /// Address on which the member listens.
    pub endpoint: Endpoint,
    /// Incarnation of the life that ends.
    pub incarnation: Incarnation,
    /// Public key of the member.
    pub key: PublicKey,
    /// Time of the goodbye, by the member's own clock.
    pub at: WallTime,
    /// Signature of the member.
    pub signature: Signature,
}

impl Leave {
    /// Signs the goodbye of `subject` at `at`.
    pub fn sign(subject: MemberInstance, at: WallTime, keys: &KeyPair) -> Self {
        let signature = keys.sign(&Self::signing_bytes(&subject, at));
        let MemberInstance { endpoint, incarnation, key } = subject;
        Self { endpoint, incarnation, key, at, signature }
    }

    /// The life that ends.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// True if the leaver itself signed the goodbye. Its key must still be compared with the
    /// registry's.
    pub fn is_valid(&self) -> bool {
        self.key.verifies(&Self::signing_bytes(&self.subject(), self.at), &self.signature)
    }

    fn signing_bytes(subject: &MemberInstance, at: WallTime) -> SigningBytes {
        subject.signing_bytes("folkmoot/leave/1").wall(at)
    }
}

/// A request to be admitted; the payload of `REGISTER_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterReq {
    /// Address on which the applicant listens.
    pub endpoint: Endpoint,
    /// Incarnation of the life that asks.
    pub incarnation: Incarnation,
    /// Public key of the applicant.
    pub key: PublicKey,
    /// Signature of the applicant, which other seeds check before they spend a dial-back on it.
    pub signature: Signature,
}

impl RegisterReq {
    /// Signs the request of `subject`.
    pub fn sign(subject: MemberInstance, keys: &KeyPair) -> Self {
        let signature = keys.sign(&subject.signing_bytes("folkmoot/register/1"));
        let MemberInstance { endpoint, incarnation, key } = subject;
        Self { endpoint, incarnation, key, signature }
    }

    /// The life that asks.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// True if the applicant itself signed the request.
    pub fn is_valid(&self) -> bool {
        self.key.verifies(&self.subject().signing_bytes("folkmoot/register/1"), &self.signature)
    }
}

/// A peer's own statement of its neighbors; the payload of `NEIGHBORS`.
///
/// The list makes its members witnesses: only neighbors that the suspect itself named count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborList {
    /// Address of the peer that states the list.
    pub endpoint: Endpoint,
    /// Incarnation of the peer's life.
    pub incarnation: Incarnation,
    /// Number of the statement; rises within one life, and a lower one is ignored.
    pub version: u64,
    /// Endpoints of the neighbors, ascending.
    pub neighbors: Vec<Endpoint>,
    /// Signature of the peer.
    pub signature: Signature,
}

impl NeighborList {
    /// Signs the statement number `version` of `subject`.
    pub fn sign(
        subject: &MemberInstance,
        version: u64,
        neighbors: Vec<Endpoint>,
        keys: &KeyPair,
    ) -> Self {
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

    /// True if the holder of `key` signed the list.
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
