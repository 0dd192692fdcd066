//! The one order of the chat: entries, their authors, and the membership of the group.
//!
//! Invariants:
//! - An entry's hash covers everything before it: two logs with one hash at one number are equal.
//! - A message is known by its author's own numbering ([`MsgId`]), so a repeat is recognized
//!   however often and by whatever way it comes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, PublicKey, SigningBytes, WallTime};

/// Number of a member within its group, from 1; the higher is preferred as leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u32);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer_{}", self.0)
    }
}

/// Term of a leader: there is at most one leader in each. 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Term(pub u64);

/// Place in the one order, from 1. 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// The place after it. A file may say anything, so it saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Identity of a group, drawn at random by its founder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(#[serde(with = "hex::serde")] pub [u8; 16]);

/// Running hash over all entries up to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainHash(#[serde(with = "hex::serde")] pub [u8; 32]);

/// Numbering of messages. A process of a member numbers the texts typed there by a client number
/// that it draws at its start, so that no number is ever given twice, even where a log was lost,
/// restored or copied. A program that sends by a member has a client number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The member that answers for the messages.
    pub member: MemberId,
    /// Random client number; the highest bit is set in those of members ([`Self::own`]). Members of
    /// earlier versions numbered by client 0.
    pub client: u64,
}

impl Origin {
    /// The bit that distinguishes members' own numberings from those of programs.
    const OWN: u64 = 1 << 63;

    /// Returns a numbering of the texts typed at a member, from a random number.
    pub const fn own(member: MemberId, drawn: u64) -> Self {
        Self { member, client: drawn | Self::OWN }
    }

    /// Returns a client number for a program, from a random number: not 0, the highest bit not set.
    pub const fn program(drawn: u64) -> u64 {
        match drawn & !Self::OWN {
            0 => 1,
            client => client,
        }
    }

    /// True if the numbering is a member's own and no program's.
    pub const fn is_own(&self) -> bool {
        self.client == 0 || self.client & Self::OWN != 0
    }
}

/// Identity of a message; `MEMBER-CLIENT-NUMBER` in text, the client in 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MsgId {
    /// Numbering that the number belongs to.
    pub origin: Origin,
    /// Number of the message, from 1, without a gap.
    pub number: u64,
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { member, client } = self.origin;
        write!(f, "{}-{client:016x}-{}", member.0, self.number)
    }
}

impl FromStr for MsgId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a msg_id is MEMBER-CLIENT-NUMBER, the client in 16 hexadecimal digits";
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(WRONG);
        let member = decimal(next()?).and_then(|it| u32::try_from(it).ok()).ok_or(WRONG)?;
        let client = next()?;
        let number = decimal(next()?).filter(|it| *it > 0).ok_or(WRONG)?;
        let is_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if client.len() != 16 || !client.bytes().all(is_hex) || parts.next().is_some() {
            return Err(WRONG);
        }
        let client = u64::from_str_radix(client, 16).map_err(|_| WRONG)?;
        Ok(Self { origin: Origin { member: MemberId(member), client }, number })
    }
}

/// Parses a number in its canonical form, without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || !text.starts_with('0');
    (is_canonical && text.bytes().all(|it| it.is_ascii_digit())).then(|| text.parse().ok())?
}

impl Serialize for MsgId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MsgId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = MsgId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a msg_id")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MsgId, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A message with its author's identity, not yet numbered in the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatText {
    /// Identity of the message.
    pub msg_id: MsgId,
    /// Label under which the message is shown.
    pub room_id: Arc<str>,
    /// Text of the message.
    pub payload: Arc<str>,
}

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Number of the member.
    #[serde(rename = "node_id")]
    pub id: MemberId,
    /// Address on which the member listens, in the form `host` and `port` on the wire.
    #[serde(flatten)]
    pub at: HostPort,
    /// Public key of the member, which never changes.
    pub key: PublicKey,
}

/// An endpoint as two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// IP address of the host.
    pub host: std::net::IpAddr,
    /// TCP port of the endpoint.
    pub port: u16,
}

impl From<Endpoint> for HostPort {
    fn from(endpoint: Endpoint) -> Self {
        Self { host: endpoint.ip(), port: endpoint.port() }
    }
}

/// Membership of the group, from one entry on until the next that states it anew (C7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Members, ascending by id. All of them vote.
    pub members: Vec<Member>,
    /// Keys that were removed for good; the latest `REMOVED_MAX`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<PublicKey>,
    /// Greatest length of a text, in bytes, as the founder set it; the same for all members. Groups
    /// that earlier versions founded have none, and each leader's flag counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_max: Option<u32>,
    /// Recovery that this group began with, if it began so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
}

/// Recovery: one member of a group that had lost its majority went on as a group of its own (C14).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Group that the member was of.
    pub was: GroupId,
    /// Member that went on.
    pub by: MemberId,
    /// Time of the recovery, by the member's clock.
    pub at: WallTime,
    /// Members that were left out, ascending; their keys are among the removed.
    pub left_out: Vec<MemberId>,
}

/// Content of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// First entry of a leader, by which it commits the entries that it found (R4).
    Opening,
    /// A numbered message.
    Chat(ChatText),
    /// The membership of the group from here on.
    Membership(Arc<Membership>),
}

/// One place of the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EntryFields", into = "EntryFields")]
pub struct Entry {
    /// Number of the entry.
    pub seq_no: SeqNo,
    /// Term in which the entry was appended.
    pub term: Term,
    /// Leader of that term.
    pub leader: MemberId,
    /// Time by the leader's clock; for people, nothing depends on it.
    pub time: WallTime,
    /// Content of the entry.
    pub body: Body,
}

/// An entry as its fields on the wire and on disk: those of the seed document's message, flat.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct EntryFields {
    seq_no: SeqNo,
    term: Term,
    leader_id: MemberId,
    time: WallTime,
    /// Author of the message, which `msg_id` says, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender_id: Option<MemberId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msg_id: Option<MsgId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    membership: Option<Arc<Membership>>,
}

impl TryFrom<EntryFields> for Entry {
    type Error = &'static str;

    fn try_from(fields: EntryFields) -> Result<Self, Self::Error> {
        let EntryFields { seq_no, term, leader_id, time, .. } = fields;
        let body = match (fields.msg_id, fields.room_id, fields.payload, fields.membership) {
            (Some(msg_id), Some(room_id), Some(payload), None) => {
                if fields.sender_id.is_some_and(|it| it != msg_id.origin.member) {
                    return Err("the sender_id of an entry is not the author in its msg_id");
                }
                Body::Chat(ChatText { msg_id, room_id, payload })
            }
            (None, None, None, Some(membership)) => Body::Membership(membership),
            (None, None, None, None) => Body::Opening,
            _ => return Err("an entry is a message, a membership or an opening, and no mixture"),
        };
        Ok(Self { seq_no, term, leader: leader_id, time, body })
    }
}

impl From<Entry> for EntryFields {
    fn from(entry: Entry) -> Self {
        let Entry { seq_no, term, leader, time, body } = entry;
        let mut fields = Self {
            seq_no,
            term,
            leader_id: leader,
            time,
            sender_id: None,
            msg_id: None,
            room_id: None,
            payload: None,
            membership: None,
        };
        match body {
            Body::Opening => {}
            Body::Chat(chat) => {
                fields.sender_id = Some(chat.msg_id.origin.member);
                fields.msg_id = Some(chat.msg_id);
                fields.room_id = Some(chat.room_id);
                fields.payload = Some(chat.payload);
            }
            Body::Membership(membership) => fields.membership = Some(membership),
        }
        fields
    }
}

impl ChainHash {
    /// Returns the hash after `entry`, if this is the one before it.
    #[must_use]
    pub fn after(&self, entry: &Entry) -> Self {
        let bytes = SigningBytes::new("folkmoot/chat/entry/1")
            .bytes(&self.0)
            .number(entry.seq_no.0)
            .number(entry.term.0)
            .number(entry.leader.0.into())
            .wall(entry.time);
        let bytes = match &entry.body {
            Body::Opening => bytes.number(0),
            Body::Chat(ChatText { msg_id, room_id, payload }) => bytes
                .number(1)
                .number(msg_id.origin.member.0.into())
                .number(msg_id.origin.client)
                .number(msg_id.number)
                .text(room_id)
                .text(payload),
            Body::Membership(membership) => {
                let count = membership.members.len() as u64;
                let bytes =
                    membership.members.iter().fold(bytes.number(2).number(count), |b, it| {
                        b.number(it.id.0.into())
                            .text(&it.at.host.to_string())
                            .number(it.at.port.into())
                            .key(&it.key)
                    });
                let bytes = membership.removed.iter().fold(bytes, SigningBytes::key);
                let bytes =
                    membership.message_max.iter().fold(bytes, |b, it| b.number((*it).into()));
                match &membership.recovered {
                    None => bytes,
                    Some(it) => it.left_out.iter().fold(
                        bytes
                            .text("recovered")
                            .bytes(&it.was.0)
                            .number(it.by.0.into())
                            .wall(it.at)
                            .number(it.left_out.len() as u64),
                        |bytes, id| bytes.number(id.0.into()),
                    ),
                }
            }
        };
        Self(bytes.sha256())
    }
}
