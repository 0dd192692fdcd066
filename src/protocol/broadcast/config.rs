//! Limits and periods of the broadcast.

use std::time::Duration;

/// What `message_max` can be at most: one message must fit what is held of all.
pub const MESSAGE_BYTES_MAX: u64 = 16 * 1_048_576;

/// Bytes of data that travel in one line, and of a part of more: in base64 a third of a line.
pub const PART_BYTES: usize = 65_536;

/// Parts asked for at once, and under way at once.
pub const PARTS_MAX: u32 = 4;

/// Identities in one `ANNOUNCE`.
pub const ANNOUNCE_MAX: usize = 512;

/// Origins in one `HAVE` or `LACK`.
pub const HAVE_MAX: usize = 64;

/// Rows of numbers of one origin in a `LACK`.
pub const LACK_ROWS_MAX: usize = 32;

/// Origins whose numbers are remembered of each neighbor.
pub(super) const HAVES_MAX: usize = 1_024;

/// Rows of missing numbers of one origin; of more the lowest is given up. What is asked for comes
/// in any order, so there are about as many as a link's share of [`WANTED_MAX`].
pub(super) const GAPS_MAX: usize = 8_192;

/// Interval at which neighbors are told which numbers are here, and asked for missing ones.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// The part of what may be held after which all numbers are told at once, as one by so many.
pub(super) const TELL_SHARE: u64 = 32;

/// Numbers of one origin that are told at the next tick; fewer are told after [`LEISURE`].
pub(super) const HAVE_AFTER: u64 = 64;
pub(super) const LEISURE: Duration = Duration::from_secs(1);

/// Wait before neighbors are asked for a missing number: most come by themselves.
pub(super) const GAP_AFTER: Duration = Duration::from_millis(500);

/// Wait before a missing number is given up while no other of its row comes; every neighbor has
/// been asked by then.
pub(super) const GAP_MAX: Duration = Duration::from_secs(10);

/// The pause before the same neighbor is asked for the same numbers again.
pub(super) const LACK_PAUSE: Duration = Duration::from_secs(1);

/// Links that a request to wait crosses at most.
pub(super) const HOPS_MAX: u32 = 32;

/// Nodes that an origin waits for at once.
pub(super) const BRAKES_MAX: usize = 64;

/// Validity of a request to wait; while it is needed it is repeated each [`TICK`].
pub(super) const BRAKE_FOR: Duration = Duration::from_secs(1);

/// Memory of a slow node after its last request: a next one until then is about the same delay.
pub(super) const BRAKE_LAPSE: Duration = Duration::from_secs(3);

/// Longest wait of an origin for a node that takes less meanwhile than this part of what may be
/// held, as one by so many.
pub(super) const STALL_MAX: Duration = Duration::from_secs(10);
pub(super) const STALL_SHARE: u64 = 16;

/// Time in which an origin waits for nobody, after it has published less than that in
/// [`STALL_MAX`]: names of slow nodes can be invented, one after the other.
pub(super) const FREE_FOR: Duration = Duration::from_secs(60);

/// Own messages that wait for others to keep up, and the pause before they are tried again.
pub(super) const PENDING_MAX: usize = 1_024;
pub(super) const PENDING_PAUSE: Duration = Duration::from_millis(20);

/// After how many messages it is looked for neighbors that do not keep up, beside each [`TICK`].
pub(super) const WATCH_EVERY: u64 = 64;

/// Questions to one neighbor for numbers that it says it has and does not send.
pub(super) const LACKS_MAX: u32 = 5;

/// Identities in one `GRAFT`, and asked for at once on a link: an answer is so many messages.
pub const GRAFT_MAX: usize = 64;

/// Bytes asked for at once on a link, by the sizes announced; one message always may be.
pub(super) const ASKED_BYTES_MAX: u64 = 512 * 1_024;

/// Nodes in a `seen_by`; more are refused.
pub const SEEN_BY_MAX: usize = 64;

/// Nodes in a `seen_by` that is passed on: no path is longer for long.
pub(super) const SEEN_BY_KEPT: usize = 16;

/// What a `ttl` counts as at most.
pub const TTL_MAX: u32 = 64;

/// A receipt's count at most; no fleet is as large.
pub const RECEIPT_MAX: u32 = 100_000;

/// Receipts that a node sends for one message.
pub(super) const RECEIPTS_MAX: u32 = 16;

/// Origins whose certificates are remembered: at a kilobyte or less each, a few megabytes.
pub(super) const ORIGINS_MAX: usize = 4_096;

/// Lives known to have ended that are remembered.
pub(super) const ENDED_MAX: usize = 10_000;

/// Origins whose certificate was sent on a link; those forgotten are sent theirs again.
pub(super) const INTRODUCED_MAX: usize = 1_024;

/// Announced messages that are waited for, over all links. Each link has its share.
pub(super) const WANTED_MAX: usize = 65_536;

/// Large messages that are pulled at once: their parts under way are a third of a link's queue.
pub(super) const PULLS_MAX: usize = 4;

/// How much older than its age a message may be: ages only estimate the time on the wire.
pub(super) const AGE_GRACE: Duration = Duration::from_secs(10);

/// What one link is sent unasked, and by its own asking, in each span: more would fill its queue.
/// The rest is announced, and pulled at the neighbor's own pace.
pub(super) const SPAN: Duration = Duration::from_millis(50);
pub(super) const SPAN_MESSAGES: u32 = 128;
pub(super) const SPAN_BYTES: u64 = 1_024 * 1_024;

/// The pause before those are looked at again for whom no announcer has room.
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// How often an announced message is asked for at each of its announcers.
pub(super) const ROUNDS_MAX: u32 = 5;

/// Bounds for how long an announced message is waited for before it is asked for.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(100);
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);

/// Bounds for how long an answer is waited for before the next announcer is asked.
pub(super) const ANSWER_MIN: Duration = Duration::from_millis(50);
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long the next part may take before another announcer is asked for the whole.
pub(super) const PART_PATIENCE: Duration = Duration::from_secs(2);

/// How long to collect announcements, and receipts.
pub(super) const ANNOUNCE_AFTER: Duration = Duration::from_millis(30);
pub(super) const RECEIPT_AFTER: Duration = Duration::from_millis(100);

/// How often to look for what is old.
pub(super) const FORGET_INTERVAL: Duration = Duration::from_secs(5);

/// The pause between two `PRUNE` on a link, for pushes that are already under way.
pub(super) const PRUNE_PAUSE: Duration = Duration::from_millis(200);

/// The pause before the same link is preferred again.
pub(super) const PREFER_PAUSE: Duration = Duration::from_secs(10);

/// Unanswered questions that halve what else may be waited for on a link, and how often they do.
pub(super) const UNANSWERED_STEP: u32 = 64;
pub(super) const UNANSWERED_STEPS_MAX: u32 = 4;

/// What can be set at the broadcast.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Neighbors that are pushed to unasked.
    pub fanout: usize,
    /// Links over which an own message may be pushed; beyond, it is announced only.
    pub ttl: u32,
    /// How many links fewer a copy must have crossed by way of an announcer for its link to take
    /// the place of the one that pushes; at `u32::MAX` none ever does.
    pub nearer_by: u32,
    /// Bytes of a message's data at most.
    pub message_max: u64,
    /// Identities remembered at most.
    pub seen_max: usize,
    /// Bytes of messages held for repair at most; the newest message is always held.
    pub held_bytes_max: u64,
    /// How long a message is offered to neighbors that lack it, from its origin on.
    pub hold: Duration,
    /// How long its identity is remembered.
    pub remember: Duration,
    /// Whether an origin must show a certificate of its membership.
    pub requires_proof: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fanout: 3,
            ttl: 32,
            nearer_by: 2,
            message_max: 1_048_576,
            seen_max: 100_000,
            held_bytes_max: 16_777_216,
            hold: Duration::from_secs(240),
            remember: Duration::from_secs(300),
            requires_proof: true,
        }
    }
}
