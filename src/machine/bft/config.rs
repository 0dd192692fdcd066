//! Limits and periods of a Byzantine order's machine, each with its unit and reason.

use std::time::Duration;

use crate::model::WallTime;
use crate::proto::bft::{ContentDigest, OrderId, SlotHeader};

/// Greatest number of connections with observers at a time.
pub const OBSERVERS_MAX: usize = 16;

/// Number of views ahead of the own for which claims are kept; later ones are sent again.
pub const VIEWS_AHEAD: u64 = 4;

/// Greatest view: no group changes its leader so often, and nothing overflows.
pub const VIEW_MAX: u64 = 1 << 40;

/// Number of slots between two in whose header the state stands.
pub const STATE_EVERY: u64 = 1_024;

/// Number of numberings that are remembered of each author.
pub const CLIENTS_MAX: usize = 64;

/// Greatest number of bundles without a place that are kept of one author.
pub const POOL_BUNDLES_MAX: usize = 64;

/// Limits and periods of a Byzantine order's machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interval in which progress is told, and what is under way is said again (B22).
    pub heartbeat: Duration,
    /// Time without a final slot after which the next view is wished for (B17).
    pub patience: Duration,
    /// Limit of the patience, which doubles each time (B17).
    pub patience_max: Duration,
    /// Time for the link to the leader to come back (B17).
    pub leader_broken: Duration,
    /// Time after which a view is left without blame (B25); zero keeps it forever.
    pub reign: Duration,
    /// Time in which other members answer what this one had signed (B20).
    pub recall: Duration,
    /// Pause before a failed call is repeated; doubles up to 2 s.
    pub redial: Duration,
    /// Number of slots that a leader proposes ahead of the last final one. Members keep proposals
    /// up to four times as far ahead.
    pub window: u64,
    /// Greatest length of a text, in bytes.
    pub message_max: usize,
    /// Bytes of text without a place that are kept of all authors together, in equal shares.
    pub pool_bytes: usize,
    /// Number of final slots after which a snapshot is taken.
    pub snapshot_every: u64,
    /// Number of final slots that stay in memory for members that lag a little.
    pub window_slots: usize,
    /// Greatest number of texts typed here that have no place yet; further ones are refused.
    pub pending_max: usize,
    /// BftRule that is left out, to show that it is needed; only tests do that.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub without: Option<BftRule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(800),
            patience: Duration::from_secs(1),
            patience_max: Duration::from_secs(16),
            leader_broken: Duration::from_millis(100),
            reign: Duration::from_secs(60),
            recall: Duration::from_secs(2),
            redial: Duration::from_millis(200),
            window: 4,
            message_max: 16_384,
            pool_bytes: 64 << 20,
            snapshot_every: 1_024,
            window_slots: 1_024,
            pending_max: 65_536,
            #[cfg(feature = "fault-injection")]
            without: None,
        }
    }
}

impl Config {
    /// True if a rule is kept.
    #[cfg(feature = "fault-injection")]
    pub(super) fn keeps(&self, rule: BftRule) -> bool {
        self.without != Some(rule)
    }

    /// True: without the feature `fault-injection` every rule is kept.
    #[cfg(not(feature = "fault-injection"))]
    pub(super) const fn keeps(&self, _rule: BftRule) -> bool {
        true
    }

    /// Digest of a header, which is what members sign (B3).
    #[doc(hidden)]
    #[must_use]
    pub fn digest_of(&self, group: &OrderId, header: &SlotHeader) -> ContentDigest {
        if self.keeps(BftRule::Digest) {
            return header.digest(group);
        }
        let (time, bundles) = (WallTime(0), Vec::new());
        SlotHeader { time, bundles, ..header.clone() }.digest(group)
    }
}

/// Rules that safety or liveness needs, as `docs/PROTOCOL.md` numbers them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BftRule {
    /// B1: a quorum is counted over the committee: ceil((n+f+1)/2), not a majority.
    Quorum,
    /// B2: votes carry their sender's signature.
    Signed,
    /// B3: everything but the view is in the digest.
    Digest,
    /// B4: one vote a member, phase, view and slot.
    OneVote,
    /// B5: only the leader of a view proposes in it.
    Leader,
    /// B6: a slot is accepted only behind its parent.
    Chain,
    /// B7: contents come before the vote.
    Content,
    /// B7: authors sign their messages.
    Author,
    /// B8: contents and certificate are on disk before COMMIT.
    Disk,
    /// B8: a member counts its own COMMIT only then.
    OwnCommit,
    /// B9: a view is on disk before it is promised.
    Promise,
    /// B10: a restart votes only in later views.
    Restart,
    /// B11: a claim is the highest certificate.
    Claim,
    /// B11: a claim is proved by its certificate.
    ClaimProof,
    /// B12: the base of a view is the highest claim.
    Base,
    /// B12: a leader counts a claim only with its content.
    BaseContent,
    /// B15: a message has one place.
    Once,
    /// B16: a view is entered only by a quorum's wish.
    Wish,
    /// B17: the leader is given up after a time.
    Patience,
    /// B17: that time doubles.
    Doubling,
    /// B18: every author's messages get their turn.
    Fairness,
    /// B19: nothing is accepted behind a change before it is final.
    Epoch,
    /// B20: a member whose memory is not certain is silent.
    Memory,
    /// B20: a new life has a number drawn after the loss.
    FreshLife,
    /// B20: the loss is on disk.
    Hole,
    /// B21: slots are believed by a certificate.
    Catchup,
    /// B22: what is under way is said again.
    Repair,
}

impl BftRule {
    /// All rules, by number.
    pub const ALL: [Self; 27] = [
        Self::Quorum,
        Self::Signed,
        Self::Digest,
        Self::OneVote,
        Self::Leader,
        Self::Chain,
        Self::Content,
        Self::Author,
        Self::Disk,
        Self::OwnCommit,
        Self::Promise,
        Self::Restart,
        Self::Claim,
        Self::ClaimProof,
        Self::Base,
        Self::BaseContent,
        Self::Once,
        Self::Wish,
        Self::Patience,
        Self::Doubling,
        Self::Fairness,
        Self::Epoch,
        Self::Memory,
        Self::FreshLife,
        Self::Hole,
        Self::Catchup,
        Self::Repair,
    ];
}
