//! Limits, deadlines, events and metrics of direct sends.

use std::time::Duration;

use serde::Serialize;

use crate::machine::LinkId;
use crate::model::{Data, Endpoint};

/// Limits and periods of direct sends.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Greatest size of one message, in bytes.
    pub message_max: usize,
    /// Greatest number of messages on their way from here; more are refused.
    pub sends_max: usize,
    /// Greatest sum of their bytes.
    pub sends_bytes_max: usize,
    /// Number of messages that one member is sent before it has answered; further ones wait. With
    /// the largest data so many fill half of a link's queue.
    pub window: usize,
    /// Time-out of one attempt without an answer of its receiver. Longer than `answer_max` and a
    /// link's way there and back.
    pub attempt_max: Duration,
    /// Time after the first attempt that may have arrived in which others are made: well below
    /// `remember`, so that a repeated message is still remembered.
    pub repeat_max: Duration,
    /// Time that the caller keeps a link without a message.
    pub idle: Duration,
    /// Greatest number of links for direct messages; of the idle ones the oldest is closed.
    pub links_max: usize,
    /// Time-out of the application's answer to a message.
    pub answer_max: Duration,
    /// Number of messages that wait for the application at once; more are refused as busy.
    pub questions_max: usize,
    /// Number of messages of one sender that wait for the application at once.
    pub questions_each_max: usize,
    /// Greatest sum of bytes that are being put together from parts, over all senders.
    pub parts_bytes_max: usize,
    /// Time that a receiver waits for the next part.
    pub part_max: Duration,
    /// Time that verdicts are remembered.
    pub remember: Duration,
    /// Greatest number of verdicts remembered; each takes some hundred bytes.
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
    /// The attempt or pause of a message is over; by this node's number of the send.
    Send(u64),
    /// The application did not answer in time; by the question's number.
    Question(u64),
    /// Idle links are closed, and old parts and verdicts forgotten.
    Sweep,
}

/// Kind of a failed delivery. All but the last are definite: the message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// The message never left this node.
    NotSent,
    /// The receiver was reached and refused the message.
    Refused,
    /// The receiver could not be reached.
    Unreachable,
    /// The message has more bytes than may be sent.
    TooLarge,
    /// The message was called back before it had left.
    Cancelled,
    /// The message may have been delivered or not: it has left, and no answer came.
    Unknown,
}

impl FailKind {
    /// All kinds, in a fixed order.
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

    /// True if it is certain that the message was not delivered.
    pub const fn is_definite(self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// Events of direct sends: news for the node, and requests to it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must call this member for direct messages.
    Call {
        /// Endpoint of the member.
        to: Endpoint,
    },
    /// The node must hang up this link.
    Hangup {
        /// Link to hang up.
        link: LinkId,
        /// Reason in words, for people.
        reason: &'static str,
    },
    /// A message was refused because no honest node sends such.
    Malformed {
        /// Link by which the message came.
        from: LinkId,
        /// Reason of the refusal, in words.
        reason: String,
    },
    /// Sends to this member have begun, or the last of them has ended.
    Busy {
        /// Endpoint of the member.
        to: Endpoint,
        /// True if messages are on their way.
        busy: bool,
    },
    /// A message came, whole, for the application, which must answer it by a command that names the
    /// same sender and number.
    Arrived {
        /// Endpoint of the sender, proved by its link.
        from: Endpoint,
        /// Number of the question at this node, never used twice.
        number: u64,
        /// Topic of the message.
        topic: String,
        /// Data of the message.
        data: Data,
    },
    /// The application did not answer in time; a later answer is ignored.
    Lapsed {
        /// Endpoint of the sender.
        from: Endpoint,
        /// Number of the question.
        number: u64,
    },
    /// A message from here was taken, exactly once.
    Sent {
        /// Token that the caller gave to the message.
        token: u64,
        /// Endpoint of the receiver.
        to: Endpoint,
        /// Time from the send to the answer.
        after: Duration,
    },
    /// A message from here failed, or its fate is unknown.
    Failed {
        /// Token that the caller gave to the message.
        token: u64,
        /// Endpoint of the receiver.
        to: Endpoint,
        /// Kind of the failure.
        kind: FailKind,
        /// Reason in words, for people.
        reason: String,
    },
}

/// Counters and present sizes of direct sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectMetrics {
    /// Number of messages that the application sent.
    pub messages_sent: u64,
    /// Number of sent messages that were taken.
    pub acknowledged: u64,
    /// Number of sent messages that their receivers refused.
    pub refused: u64,
    /// Number of messages that never left.
    pub not_sent: u64,
    /// Number of messages whose receivers could not be reached.
    pub unreachable: u64,
    /// Number of messages that were too large.
    pub too_large: u64,
    /// Number of messages that were called back in time.
    pub cancelled: u64,
    /// Number of messages of unknown fate.
    pub unknown: u64,
    /// Number of attempts after the first ones.
    pub retries: u64,
    /// Number of messages on their way now.
    pub open: u64,
    /// Bytes of the messages on their way.
    pub open_bytes: u64,
    /// Number of messages that came whole and were shown to the application.
    pub messages_received: u64,
    /// Number of messages that wait for the application now.
    pub questions: u64,
    /// Number of messages that the application did not answer in time.
    pub lapsed: u64,
    /// Number of messages that came again, and were not shown again.
    pub duplicates: u64,
    /// Number of messages that came when there was no room.
    pub busy: u64,
    /// Number of verdicts remembered now.
    pub remembered: u64,
    /// Bytes of the messages that arrived.
    pub bytes_received: u64,
    /// Bytes that were sent, repetitions included.
    pub bytes_sent: u64,
    /// Number of links for direct messages.
    pub links: u64,
}
