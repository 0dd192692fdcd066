//! Limits and periods of a group's machine, each with its unit and reason.

use std::time::Duration;

/// Greatest number of members of a group; each of them is linked with each, and a membership
/// is one entry.
pub const MEMBERS_MAX: usize = 128;
/// Number of removed keys that are remembered; the oldest are forgotten first.
pub const REMOVED_MAX: usize = 256;
/// Number of numberings that are remembered (R9); the one whose last message is oldest goes first.
pub const AUTHORS_MAX: usize = 4_096;
/// Greatest length of a room's name, in bytes.
pub const ROOM_BYTES_MAX: usize = 64;
/// Greatest number of connections at a time; further ones are refused.
pub const LINKS_MAX: usize = 1_024;
/// Greatest number of these with nodes that are no members; a group admits one at a time.
pub const STRANGERS_MAX: usize = 64;
/// Number of terms ahead of the own from which a term is not believed: no group has had
/// so many elections.
pub const TERM_LEAP_MAX: u64 = 4_294_967_296;
/// Greatest term: elections never get there, and nothing overflows.
pub const TERM_MAX: u64 = 1 << 62;
/// Greatest number of an entry.
pub const SEQ_MAX: u64 = 1 << 62;

/// Limits and periods of a group's machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interval of a leader's heartbeats (C9).
    pub heartbeat: Duration,
    /// Pause between two messages that only tell the commit; entries on their way tell it, too.
    pub commit_pause: Duration,
    /// Silence after which a leader is given up, and after which a leader that hears no
    /// majority gives up.
    pub leader_timeout: Duration,
    /// Time in which a higher id may still object once a majority is complete.
    pub grace: Duration,
    /// Pause before a candidate asks again the members that have not answered.
    pub ask_again: Duration,
    /// Delay before a follower of a leader whose connection broke stands, for each linked
    /// member above it.
    pub rank_broken: Duration,
    /// Delay of the same kind after a leader's silence.
    pub rank_silent: Duration,
    /// Pause before a message without a number is sent again.
    pub resend: Duration,
    /// Pause before a failed call is repeated; doubles up to 2 s.
    pub redial: Duration,
    /// True if a higher id takes over from a lower one once it has caught up (C8).
    pub takeover: bool,
    /// Pause of a higher id after a handover that failed.
    pub takeover_cooldown: Duration,
    /// Time that a leader that leaves waits for its successor.
    pub leave_timeout: Duration,
    /// Greatest length of a text, in bytes, in a group that this member founds; all members of a
    /// group agree on its founder's.
    pub message_max: usize,
    /// Number of final entries after which a snapshot is taken: a restart reads no more than these.
    pub snapshot_every: u64,
    /// Number of final entries that stay in memory for followers that lag a little.
    pub window_entries: usize,
    /// Bytes of final entries that stay in memory.
    pub window_bytes: usize,
    /// Greatest number of entries in one `SEQ_CHAT`.
    pub batch_entries: usize,
    /// Greatest length of the text in one `SEQ_CHAT` or `CATCHUP_RESP`, in bytes: a line
    /// has 256 KiB.
    pub batch_bytes: usize,
    /// Greatest number of `SEQ_CHAT` on their way to a follower. With one, entries that come
    /// meanwhile go together in the next, which costs least (measured: 23,000 instead of
    /// 19,000 a second).
    pub batches_in_flight: usize,
    /// Greatest number of entries that are not final yet; beyond, messages are refused as `busy`.
    pub waiting_entries: usize,
    /// Greatest sum of bytes of the entries that are not final yet.
    pub waiting_bytes: usize,
    /// Rule that is left out, to show that it is needed; only tests do that.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub without: Option<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(800),
            commit_pause: Duration::from_millis(2),
            leader_timeout: Duration::from_millis(2_500),
            grace: Duration::from_millis(30),
            ask_again: Duration::from_millis(100),
            rank_broken: Duration::from_millis(20),
            rank_silent: Duration::from_millis(50),
            resend: Duration::from_millis(1_000),
            redial: Duration::from_millis(200),
            takeover: true,
            takeover_cooldown: Duration::from_secs(30),
            leave_timeout: Duration::from_millis(1_000),
            message_max: 16_384,
            snapshot_every: 10_000,
            window_entries: 1_000,
            window_bytes: 1_048_576,
            batch_entries: 4_096,
            batch_bytes: 196_608,
            batches_in_flight: 1,
            waiting_entries: 4_096,
            waiting_bytes: 4_194_304,
            #[cfg(feature = "fault-injection")]
            without: None,
        }
    }
}

impl Config {
    /// Number of heartbeat rounds without a message after which a connection is closed: as many as
    /// a leader may be silent for.
    pub(super) fn quiet_rounds(&self) -> u32 {
        let rounds = self.leader_timeout.as_micros().div_ceil(self.heartbeat.as_micros().max(1));
        u32::try_from(rounds).unwrap_or(u32::MAX).max(2)
    }

    /// True if a rule is kept.
    #[cfg(feature = "fault-injection")]
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// True: without the feature `fault-injection` every rule is kept.
    #[cfg(not(feature = "fault-injection"))]
    pub(super) const fn keeps(&self, _rule: Rule) -> bool {
        true
    }
}

/// Rules that safety needs.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R1: a promise is on disk before it is given.
    Promise,
    /// R2: a majority elects.
    Quorum,
    /// R3: a new leader adopts the best log of its majority.
    Adoption,
    /// R4: a leader counts acknowledgements only for entries of its own term.
    OwnTerm,
    /// R5: older terms are refused.
    Fence,
    /// R6: entries are taken only after the entry that belongs before them.
    Match,
    /// R7: on disk before it is acknowledged.
    Disk,
    /// R8: final only when a majority has it.
    Majority,
    /// R9: a repeated message is not numbered again.
    Once,
    /// R10: each process numbers the texts typed there by a client number of its own.
    Life,
    /// R11: a message is a repeat only if the text is the same.
    Text,
    /// R12: one process at a time is taken for a member.
    OneProcess,
    /// R13: a log that ends before what its member has acknowledged is not used.
    Rewound,
}

impl Rule {
    /// All rules, by number.
    pub const ALL: [Self; 13] = [
        Self::Promise,
        Self::Quorum,
        Self::Adoption,
        Self::OwnTerm,
        Self::Fence,
        Self::Match,
        Self::Disk,
        Self::Majority,
        Self::Once,
        Self::Life,
        Self::Text,
        Self::OneProcess,
        Self::Rewound,
    ];
}
