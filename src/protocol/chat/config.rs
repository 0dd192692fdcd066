//! The limits and habits of a group's machine, each with its unit and reason.

use std::time::Duration;

/// The most members of a group; each of them is linked with each, and a membership is one entry.
pub const MEMBERS_MAX: usize = 128;
/// So many removed keys are remembered; older ones are forgotten, the oldest first.
pub const REMOVED_MAX: usize = 256;
/// The numberings that are remembered (R9); the one whose last message is oldest goes first.
pub const AUTHORS_MAX: usize = 4_096;
/// The longest name of a room, in bytes.
pub const ROOM_BYTES_MAX: usize = 64;
/// The most connections at a time; whoever comes then is turned away.
pub const LINKS_MAX: usize = 1_024;
/// Of these, those of whoever is no member; a group takes in one at a time.
pub const STRANGERS_MAX: usize = 64;
/// A term that is further ahead than this is not believed: no group has had so many elections.
pub const TERM_LEAP_MAX: u64 = 4_294_967_296;
/// No term is above this: nobody gets there by elections, and nothing overflows.
pub const TERM_MAX: u64 = 1 << 62;
/// No entry is above this.
pub const SEQ_MAX: u64 = 1 << 62;

/// The limits and habits of a group's machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often a leader says that it leads (C9).
    pub heartbeat: Duration,
    /// What became final is told by itself at most once in this; entries on their way tell it too.
    pub commit_pause: Duration,
    /// After so much silence a leader is given up, and a leader that hears no majority gives up.
    pub leader_timeout: Duration,
    /// A majority may be complete; so long a higher id may still object.
    pub grace: Duration,
    /// A candidate asks again after this whoever has not answered.
    pub ask_again: Duration,
    /// Whoever followed a leader whose connection broke waits so long for each one above it.
    pub rank_broken: Duration,
    /// The same after silence.
    pub rank_silent: Duration,
    /// What has no number after this is sent again.
    pub resend: Duration,
    /// A failed call is repeated after this at first, then after twice as long, up to 2 s.
    pub redial: Duration,
    /// Whether a higher id takes over from a lower one once it has caught up (C8).
    pub takeover: bool,
    /// So long a higher id waits after a handover that failed.
    pub takeover_cooldown: Duration,
    /// So long a leader that leaves waits for its successor.
    pub leave_timeout: Duration,
    /// The longest text in bytes of a group that this member founds; all members of a group agree
    /// on its founder's.
    pub message_max: usize,
    /// A snapshot after so many final entries: a restart reads no more than these.
    pub snapshot_every: u64,
    /// So many final entries stay in memory for whoever lags a little.
    pub window_entries: usize,
    /// The same, in bytes.
    pub window_bytes: usize,
    /// The entries of one `SEQ_CHAT` at most.
    pub batch_entries: usize,
    /// The text of one `SEQ_CHAT` or `CATCHUP_RESP` at most, in bytes: a line has 256 KiB.
    pub batch_bytes: usize,
    /// So many `SEQ_CHAT` are on their way to a follower at most. With one, what comes meanwhile
    /// goes together in the next, which costs least (measured: 23,000 instead of 19,000 a second).
    pub batches_in_flight: usize,
    /// Entries that are not final yet, at most; then `busy`.
    pub waiting_entries: usize,
    /// The same, in bytes.
    pub waiting_bytes: usize,
    /// A rule left out, to show that it is needed; only tests do that.
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
            without: None,
        }
    }
}

impl Config {
    /// A connection by which nothing came for more than so many rounds of one heartbeat is closed:
    /// as many as a leader may be silent for.
    pub(super) fn quiet_rounds(&self) -> u32 {
        let rounds = self.leader_timeout.as_micros().div_ceil(self.heartbeat.as_micros().max(1));
        u32::try_from(rounds).unwrap_or(u32::MAX).max(2)
    }

    /// Whether a rule is kept.
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

/// The rules that safety needs.
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
    /// R9: a repeat is not numbered again.
    Once,
    /// R10: each process numbers what is typed there by a client number of its own.
    Life,
    /// R11: a repeat is one only if the text is the same.
    Text,
    /// R12: one process at a time is taken for a member.
    OneProcess,
    /// R13: a log that ends before what its member has acknowledged is not used.
    Rewound,
}

impl Rule {
    /// All of them.
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
