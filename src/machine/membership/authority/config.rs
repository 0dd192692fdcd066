//! The limits and periods of a seed, with their reasons.

use std::time::Duration;

/// Limits and periods of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time-out of an admission, which is then refused. Longer than a dial-back and a vote on a
    /// loaded machine; an applicant waits this long for a clear no.
    pub admission_timeout: Duration,
    /// Time that a removal stays open without new evidence.
    pub removal_timeout: Duration,
    /// Interval between two looks at an open removal.
    pub removal_tick: Duration,
    /// Time that a signed finding counts after this seed first saw it.
    pub evidence_ttl: Duration,
    /// Greatest distance of a finding's own time from this seed's clock. Generous: clocks are
    /// skewed, and freshness rests on this seed's own probe; the limit only bars evidence
    /// from long ago.
    pub evidence_skew: Duration,
    /// Time-out of a probe, before it is stretched by the local health.
    pub probe_timeout: Duration,
    /// Interval between two comparisons of the registry with the other seeds'.
    pub digest_interval: Duration,
    /// Interval between two searches for members without a link here.
    pub audit_interval: Duration,
    /// Time that a member without a link here is left alone before an audit.
    pub audit_after: Duration,
    /// Number of members audited in one round.
    pub audit_batch: usize,
    /// Time that ended members are remembered (M4).
    pub tombstone_ttl: Duration,
    /// Requests to register that one source address may send at once.
    pub requests_burst: u32,
    /// Requests to register per second and source address.
    pub requests_per_second: u32,
    /// Number of admissions under way at once.
    pub admissions_max: usize,
    /// Greatest number of members; further applicants are refused.
    pub members_max: usize,
    /// Greatest number of neighbors that one member may name.
    pub neighbors_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admission_timeout: Duration::from_secs(6),
            removal_timeout: Duration::from_secs(15),
            removal_tick: Duration::from_millis(400),
            evidence_ttl: Duration::from_secs(30),
            evidence_skew: Duration::from_secs(2 * 3600),
            probe_timeout: Duration::from_millis(600),
            digest_interval: Duration::from_secs(5),
            audit_interval: Duration::from_secs(2),
            audit_after: Duration::from_secs(10),
            audit_batch: 16,
            tombstone_ttl: Duration::from_secs(24 * 3600),
            requests_burst: 2_000,
            requests_per_second: 1_000,
            admissions_max: 4_096,
            members_max: 20_000,
            neighbors_max: 256,
        }
    }
}
