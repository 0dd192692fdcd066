//! Limits and periods of the broadcast.

use std::time::Duration;

/// Upper bound of `message_max`, in bytes: one message must fit the bytes held of all.
pub const MESSAGE_BYTES_MAX: u64 = 16 * 1_048_576;

/// Number of origins whose numbers are remembered of each neighbor.
pub(super) const HAVES_MAX: usize = 1_024;

/// Number of rows of missing numbers of one origin; of more the lowest is given up. Requested
/// messages come in any order, so there are about as many rows as a link's share of [`WANTED_MAX`].
pub(super) const GAPS_MAX: usize = 8_192;

/// Interval at which neighbors are told which numbers are here, and asked for missing ones.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Divisor of `held_bytes_max`: after so many bytes of messages all numbers are told at once.
pub(super) const TELL_SHARE: u64 = 16;

/// Count of new numbers of one origin that is told at the next tick; fewer are told after
/// [`LEISURE`].
pub(super) const HAVE_AFTER: u64 = 512;
pub(super) const LEISURE: Duration = Duration::from_secs(1);

/// Wait before neighbors are asked for a missing number: most come by themselves.
pub(super) const GAP_AFTER: Duration = Duration::from_millis(500);

/// Wait before a missing number is given up while no other of its row comes; every neighbor has
/// been asked by then.
pub(super) const GAP_MAX: Duration = Duration::from_secs(10);

/// The pause before the same neighbor is asked for the same numbers again.
pub(super) const LACK_PAUSE: Duration = Duration::from_secs(1);

/// Number of links that a request to wait crosses at most.
pub(super) const HOPS_MAX: u32 = 32;

/// Number of nodes that an origin waits for at once.
pub(super) const BRAKES_MAX: usize = 64;

/// Validity of a request to wait; while it is needed it is repeated each [`TICK`].
pub(super) const BRAKE_FOR: Duration = Duration::from_secs(1);

/// Memory of a slow node after its last request: a further request until then is about
/// the same delay.
pub(super) const BRAKE_LAPSE: Duration = Duration::from_secs(3);

/// Longest wait of an origin for a node whose progress in that time is less than `held_bytes_max`
/// divided by [`STALL_SHARE`].
pub(super) const STALL_MAX: Duration = Duration::from_secs(10);
pub(super) const STALL_SHARE: u64 = 16;

/// Time in which an origin waits for no node, after it has published less than that in
/// [`STALL_MAX`]: names of slow nodes can be invented, one after the other.
pub(super) const FREE_FOR: Duration = Duration::from_secs(60);

/// Number of own messages that wait for slow nodes, and the pause before they are tried again.
pub(super) const PENDING_MAX: usize = 1_024;
pub(super) const PENDING_PAUSE: Duration = Duration::from_millis(20);

/// Number of messages after which slow neighbors are looked for, beside each [`TICK`].
pub(super) const WATCH_EVERY: u64 = 64;

/// Number of questions to one neighbor for numbers that it claims to have and does not send.
pub(super) const LACKS_MAX: u32 = 5;

/// Number of held messages that are looked at to answer one `LACK`.
pub(super) const LOOKED_MAX: usize = 2_048;

/// Number of neighbors of which one more is asked for missing numbers at each [`TICK`]: all are
/// asked well within [`GAP_MAX`].
pub(super) const ASKED_SHARE: usize = 16;

/// Bytes asked for at once on a link, by the sizes announced; a single message is always allowed.
pub(super) const ASKED_BYTES_MAX: u64 = 512 * 1_024;

/// Number of nodes in a `seen_by` that is passed on: no path is longer for long.
pub(super) const SEEN_BY_KEPT: usize = 16;

/// Greatest count of a receipt; no fleet is as large.
pub const RECEIPT_MAX: u32 = 100_000;

/// Number of receipts that a node sends for one message.
pub(super) const RECEIPTS_MAX: u32 = 16;

/// Number of origins whose certificates are remembered: at a kilobyte or less each,
/// a few megabytes.
pub(super) const ORIGINS_MAX: usize = 4_096;

/// Number of ended lives that are remembered.
pub(super) const ENDED_MAX: usize = 10_000;

/// Number of origins whose certificate was sent on a link; a forgotten one is sent again.
pub(super) const INTRODUCED_MAX: usize = 1_024;

/// Number of announced messages that are waited for, over all links. Each link has its share.
pub(super) const WANTED_MAX: usize = 65_536;

/// Number of large messages that are pulled at once: their parts under way are a third of
/// a link's queue.
pub(super) const PULLS_MAX: usize = 4;

/// Tolerance for a message's age, which only estimates the time on the wire.
pub(super) const AGE_GRACE: Duration = Duration::from_secs(10);

/// Limits of the messages and bytes that one link is sent in each span, unasked and again
/// by request: more would fill its queue. The rest is announced, and pulled at the
/// neighbor's own pace.
pub(super) const SPAN: Duration = Duration::from_millis(50);
pub(super) const SPAN_MESSAGES: u32 = 128;
pub(super) const SPAN_BYTES: u64 = 1_024 * 1_024;

/// Pause before messages are looked at again for which no announcer has room.
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// Number of times that an announced message is asked for at each of its announcers.
pub(super) const ROUNDS_MAX: u32 = 5;

/// Bounds of the wait for an announced message before it is asked for.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(100);
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);

/// Bounds of the wait for an answer before the next announcer is asked.
pub(super) const ANSWER_MIN: Duration = Duration::from_millis(50);
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Wait for the next part before another announcer is asked for the whole message.
pub(super) const PART_PATIENCE: Duration = Duration::from_secs(2);

/// Time in which announcements, and receipts, are collected before they are sent.
pub(super) const ANNOUNCE_AFTER: Duration = Duration::from_millis(30);
pub(super) const RECEIPT_AFTER: Duration = Duration::from_millis(100);

/// Interval between two searches for old messages.
pub(super) const FORGET_INTERVAL: Duration = Duration::from_secs(5);

/// Pause between two `PRUNE` on a link, for pushes that are already under way.
pub(super) const PRUNE_PAUSE: Duration = Duration::from_millis(200);

/// Pause before the same link is preferred again.
pub(super) const PREFER_PAUSE: Duration = Duration::from_secs(10);

/// Number of unanswered questions that halves the messages that may be waited for on a link, and
/// the greatest number of halvings.
pub(super) const UNANSWERED_STEP: u32 = 64;
pub(super) const UNANSWERED_STEPS_MAX: u32 = 4;

/// Configuration of the broadcast.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of neighbors that messages are pushed to unasked.
    pub fanout: usize,
    /// Number of links over which an own message may be pushed; beyond, it is only announced.
    pub ttl: u32,
    /// Number of links that a copy must save by way of an announcer for its link to take the place
    /// of the one that pushes; at `u32::MAX` none ever does.
    pub nearer_by: u32,
    /// Greatest size of a message's data, in bytes.
    pub message_max: u64,
    /// Greatest number of identities remembered.
    pub seen_max: usize,
    /// Greatest sum of the messages held for repair, in bytes; the newest message is always held.
    pub held_bytes_max: u64,
    /// Age up to which a message is offered to neighbors that lack it.
    pub hold: Duration,
    /// Time that the identity of a message is remembered.
    pub remember: Duration,
    /// True if an origin must show a certificate of its membership.
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
