//! Limits, deadlines, and what direct sends tell their node.

use std::time::Duration;

use serde::Serialize;

use crate::model::{Data, Endpoint};
use crate::protocol::LinkId;

/// Limits and periods of direct sends.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of one message at most.
    pub message_max: usize,
    /// Messages on their way from here at most; more are refused.
    pub sends_max: usize,
    /// Their bytes at most.
    pub sends_bytes_max: usize,
    /// Messages that one member is sent before it has answered; the next wait. With the largest
    /// data it fills half of a link's queue.
    pub window: usize,
    /// How long one attempt waits for a sign of its receiver. Longer than `answer_max` and a link's
    /// way there and back.
    pub attempt_max: Duration,
    /// How long after the first attempt that may have arrived another is made at most: well below
    /// `remember`, so that whatever is repeated is still remembered.
    pub repeat_max: Duration,
    /// How long a link without a message is kept by the one who called.
    pub idle: Duration,
    /// Links for direct messages at most; of the idle ones the oldest goes.
    pub links_max: usize,
    /// How long the application here may think about a message.
    pub answer_max: Duration,
    /// Messages that wait for the application at once; more are refused as busy.
    pub questions_max: usize,
    /// The same of one sender.
    pub questions_each_max: usize,
    /// Bytes that are being put together from parts at most, all senders together.
    pub parts_bytes_max: usize,
    /// How long a receiver waits for the next part.
    pub part_max: Duration,
    /// How long verdicts are remembered.
    pub remember: Duration,
    /// Verdicts remembered at most; each takes some hundred bytes.
    pub verdicts_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            message_max: 1_048_576,
            sends_max: 1_024,
            sends_bytes_max: 64 * 1_048_576,
            window: 16,
            attempt_max: Duration::from_secs(10),
            repeat_max: Duration::from_secs(240),
            idle: Duration::from_secs(30),
            links_max: 256,
            answer_max: Duration::from_secs(5),
            questions_max: 512,
            questions_each_max: 32,
            parts_bytes_max: 16 * 1_048_576,
            part_max: Duration::from_secs(10),
            remember: Duration::from_secs(300),
            verdicts_max: 32_768,
        }
    }
}

/// Deadlines of direct sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An attempt had its time, or a pause is over; by the send's own number here.
    Send(u64),
    /// The application had its time; by the question's number.
    Question(u64),
    /// Look what is idle, what stands still, and what can be forgotten.
    Sweep,
}

/// Why something was not delivered, or why nobody can say. All but the last are definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// It never left this node.
    NotSent,
    /// The receiver was there and would not take it.
    Refused,
    /// The receiver could not be reached.
    Unreachable,
    /// It has more bytes than may be sent.
    TooLarge,
    /// It was called back before it had left.
    Cancelled,
    /// It may have been delivered or not: it has left, and no answer came.
    Unknown,
}

impl FailKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::NotSent,
        Self::Refused,
        Self::Unreachable,
        Self::TooLarge,
        Self::Cancelled,
        Self::Unknown,
    ];

    /// The kind's name in counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TooLarge => "too_large",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it is certain that the message was not delivered.
    pub const fn is_definite(self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// What direct sends tell their node, or ask it to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must call this member for direct messages.
    Call {
        /// Whom.
        to: Endpoint,
    },
    /// The node must hang up this link.
    Hangup {
        /// Which.
        link: LinkId,
        /// Why, for people.
        reason: &'static str,
    },
    /// A message was refused as nonsense.
    Malformed {
        /// Which link it came by.
        from: LinkId,
        /// What was wrong.
        reason: String,
    },
    /// Something is on its way to this member from now on, or not any more.
    Busy {
        /// To whom.
        to: Endpoint,
        /// Whether something is.
        busy: bool,
    },
    /// A message came, whole, for the application, which must answer it: by a command that names
    /// the same sender and number.
    Arrived {
        /// Who sent it, proved by its link.
        from: Endpoint,
        /// This node's number for the question, never used twice.
        number: u64,
        /// What it is about.
        topic: String,
        /// The message.
        data: Data,
    },
    /// The application did not answer in time; what it says now counts no more.
    Lapsed {
        /// Who sent the message.
        from: Endpoint,
        /// The question's number.
        number: u64,
    },
    /// A message from here was taken, exactly once.
    Sent {
        /// The sender's name for it.
        token: u64,
        /// Who took it.
        to: Endpoint,
        /// How long that took.
        after: Duration,
    },
    /// A message from here came to nothing, or nobody can say.
    Failed {
        /// The sender's name for it.
        token: u64,
        /// Whom it was for.
        to: Endpoint,
        /// What that means.
        kind: FailKind,
        /// Why, for people.
        reason: String,
    },
}

/// The counts of direct sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectMetrics {
    /// Messages that the application wanted sent.
    pub messages_sent: u64,
    /// Of these, taken.
    pub acknowledged: u64,
    /// Refused by their receivers.
    pub refused: u64,
    /// Never left.
    pub not_sent: u64,
    /// Receivers that could not be reached.
    pub unreachable: u64,
    /// Too large.
    pub too_large: u64,
    /// Called back in time.
    pub cancelled: u64,
    /// Of unknown fate.
    pub unknown: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// On their way now.
    pub open: u64,
    /// The bytes of these.
    pub open_bytes: u64,
    /// Messages that came whole and were shown to the application.
    pub messages_received: u64,
    /// Of these, waiting for the application now.
    pub questions: u64,
    /// Not answered in time.
    pub lapsed: u64,
    /// Messages that came again, and were shown to nobody.
    pub duplicates: u64,
    /// Messages that came when there was no room.
    pub busy: u64,
    /// Verdicts remembered.
    pub remembered: u64,
    /// Bytes of the messages that arrived.
    pub bytes_received: u64,
    /// Bytes that were sent, repetitions included.
    pub bytes_sent: u64,
    /// Links for direct messages.
    pub links: u64,
}
