//! Sizes of what a member keeps of others, for tests of their bounds (rule B27).

use super::replica::BftReplica;

/// Sizes of what a member keeps of others, each in entries unless it says bytes.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct BftSizes {
    /// Members of the epoch.
    pub members: usize,
    /// Bundles without a place of the author that has most of them.
    pub pool_bundles: usize,
    /// Bytes of the bundles without a place of the author that has most of them.
    pub pool_bytes: usize,
    /// Authors of bundles without a place.
    pub pool_authors: usize,
    /// Changes of the committee without a place.
    pub changes: usize,
    /// Votes of all phases, views, slots and members.
    pub votes: usize,
    /// Views that some of these votes are for.
    pub vote_views: usize,
    /// Proposals that are not accepted.
    pub proposals: usize,
    /// Wishes for views.
    pub wishes: usize,
    /// Claims with which members enter views.
    pub claims: usize,
    /// Contents of slots behind the final one.
    pub contents: usize,
    /// Headers of slots behind the final one that are not accepted.
    pub headers: usize,
    /// Final slots in memory.
    pub window: usize,
    /// Consents to changes.
    pub consents: usize,
    /// Proofs against members.
    pub evidence: usize,
    /// Own bundles without a place.
    pub outbox: usize,
}

impl BftReplica {
    /// Sizes of what the member keeps of others at present.
    #[doc(hidden)]
    pub fn sizes(&self) -> BftSizes {
        let (pool_bundles, pool_bytes, pool_authors, changes) = self.pool.sizes();
        let (votes, vote_views) = self.votes.sizes();
        let (wishes, claims) = self.views.sizes();
        let (contents, headers) = self.chain.sizes();
        BftSizes {
            members: self.committee().len(),
            pool_bundles,
            pool_bytes,
            pool_authors,
            changes,
            votes,
            vote_views,
            proposals: self.proposals.len(),
            wishes,
            claims,
            contents,
            headers,
            window: self.chain.window().len(),
            consents: self.consents.values().map(|(_, given)| given.len()).sum(),
            evidence: self.evidence.len(),
            outbox: self.outbox.bundles().count(),
        }
    }
}
