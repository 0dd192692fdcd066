//! The limits and periods of a seed, with their reasons.

use std::time::Duration;

/// Limits and periods of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long an admission may take before it is refused. Longer than a dial-back and a vote
    /// on a loaded machine; an applicant waits this long for a clear no.
    pub admission_timeout: Duration,
    /// How long a removal stays open without new evidence.
    pub removal_timeout: Duration,
    /// How often an open removal is looked at again.
    pub removal_tick: Duration,
    /// How long a signed finding counts after this seed first saw it.
    pub evidence_ttl: Duration,
    /// How far a finding's own time may be from this seed's clock. Generous: clocks are skewed,
    /// and freshness rests on this seed's own probe; it only bars evidence from long ago.
    pub evidence_skew: Duration,
    /// How long to wait for a probe's answer, before stretching by the local health.
    pub probe_timeout: Duration,
    /// How often registries are compared with the other seeds'.
    pub digest_interval: Duration,
    /// How often members without a link here are looked for.
    pub audit_interval: Duration,
    /// How long a member without a link here is left alone.
    pub audit_after: Duration,
    /// How many members are audited in one round.
    pub audit_batch: usize,
    /// How long ended members are remembered (M4).
    pub tombstone_ttl: Duration,
    /// Requests to register that one source address may make at once, and per second.
    pub requests_burst: u32,
    /// Requests to register per second and source address.
    pub requests_per_second: u32,
    /// Admissions under way at once.
    pub admissions_max: usize,
    /// Members at most; beyond, applicants are refused.
    pub members_max: usize,
    /// Neighbors that one member may name.
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
