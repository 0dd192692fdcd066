//! Send queues: the messages on their way from here, by several keys.

use std::collections::{BTreeMap, BTreeSet};

use super::RetryConfig;
use crate::machine::LinkId;
use crate::model::{Data, Endpoint, Incarnation, MessageId, Time};
use crate::proto::direct::PART_BYTES;

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// Token that the caller gave to the message; unique among those on their way.
    pub token: u64,
    /// Endpoint of the receiver.
    pub to: Endpoint,
    /// Topic of the message.
    pub topic: String,
    /// Data of the message.
    pub data: Data,
    /// Schedule of the attempts.
    pub retry: RetryConfig,
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) message: OutgoingMessage,
    pub(super) digest: MessageId,
    pub(super) began: Time,
    /// Number of attempts that failed.
    pub(super) failed: u32,
    /// Number of the message on the wire, once there was an attempt.
    pub(super) number: Option<u64>,
    pub(super) left: Option<SentRecord>,
    pub(super) stage: Stage,
}

impl Send {
    pub(super) fn is_large(&self) -> bool {
        self.message.data.len() > PART_BYTES
    }
}

/// Record that all bytes of a message have left, so that it may have arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRecord {
    /// Life of the receiver toward which the bytes left.
    pub(super) life: Incarnation,
    /// Time of the first such attempt.
    pub(super) first: Time,
    /// Number of such attempts.
    pub(super) times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The message pauses between two attempts.
    Pausing,
    /// The message waits for a link, or for room on it.
    Queued,
    /// The message waits for the receiver's answer.
    Flying {
        link: LinkId,
        life: Incarnation,
        /// Number of parts that were asked for.
        asked: u32,
    },
}

/// Messages on their way to one member.
#[derive(Debug, Default)]
pub(super) struct MemberQueue {
    pub(super) all: BTreeSet<u64>,
    pub(super) queued: BTreeSet<u64>,
    pub(super) flying: usize,
    pub(super) flying_large: usize,
}

/// All messages on their way.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    pub(super) sends: BTreeMap<u64, Send>,
    pub(super) tokens: BTreeMap<u64, u64>,
    /// Messages by their numbers on the wire.
    pub(super) numbers: BTreeMap<u64, u64>,
    pub(super) lines: BTreeMap<Endpoint, MemberQueue>,
    pub(super) calling: BTreeSet<Endpoint>,
    pub(super) bytes: usize,
    pub(super) last_id: u64,
    pub(super) last_number: u64,
}

impl SendQueue {
    pub(super) fn len(&self) -> usize {
        self.sends.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_busy(&self, peer: Endpoint) -> bool {
        self.lines.contains_key(&peer)
    }

    /// Notes that a call for direct messages has succeeded.
    pub(super) fn called(&mut self, peer: Endpoint) {
        self.calling.remove(&peer);
    }

    /// Moves a message to another stage, and updates the counts of its queue.
    pub(super) fn set_stage(&mut self, id: u64, stage: Stage) {
        let Some(send) = self.sends.get_mut(&id) else { return };
        let Some(line) = self.lines.get_mut(&send.message.to) else { return };
        let is_large = usize::from(send.is_large());
        match std::mem::replace(&mut send.stage, stage) {
            Stage::Pausing => {}
            Stage::Queued => {
                line.queued.remove(&id);
            }
            Stage::Flying { .. } => {
                line.flying -= 1;
                line.flying_large -= is_large;
            }
        }
        match stage {
            Stage::Pausing => {}
            Stage::Queued => {
                line.queued.insert(id);
            }
            Stage::Flying { .. } => {
                line.flying += 1;
                line.flying_large += is_large;
            }
        }
    }

    /// The message with this number, if it is for this member.
    pub(super) fn numbered(&self, number: u64, from: Endpoint) -> Option<(u64, &Send)> {
        let id = *self.numbers.get(&number)?;
        let send = self.sends.get(&id)?;
        (send.message.to == from).then_some((id, send))
    }
}
