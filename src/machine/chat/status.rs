//! Status of a member, as it reports it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Role;
use super::replica::Replica;
use crate::model::PublicKey;
use crate::proto::chat::entry::{GroupId, Member, MemberId, MsgId, Recovered, SeqNo, Term};

/// A member and its group, as it sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatStatus {
    /// Number of the member.
    pub id: MemberId,
    /// Public key of the member.
    pub key: PublicKey,
    /// Identity of the group, once it is known.
    pub group: Option<GroupId>,
    /// Recovery that the group began with, if it began so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// Role of the member.
    pub role: Role,
    /// Newest term that the member knows.
    pub term: Term,
    /// Leader, if the member knows one.
    pub leader: Option<MemberId>,
    /// Members whose promises a leader holds.
    pub promises: Vec<MemberId>,
    /// Number up to which all entries are final.
    pub commit: SeqNo,
    /// Number of the last entry.
    pub last: SeqNo,
    /// True if a majority is in reach; absent while that is not known.
    pub quorum: Option<bool>,
    /// Members by the newest membership.
    pub members: Vec<MemberStatus>,
    /// Identities of the texts that were typed here and are not final.
    pub pending: Vec<MsgId>,
    /// Number of messages that wait, those of clients included.
    pub waiting: usize,
    /// Greatest length of a text, in bytes, as the group has agreed.
    pub message_max: usize,
    /// Numbers of dropped inputs, by reason; not read back.
    #[serde(skip_deserializing)]
    pub dropped: BTreeMap<&'static str, u64>,
}

/// One member, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member, with its address.
    #[serde(flatten)]
    pub member: Member,
    /// True if the member is linked.
    pub linked: bool,
    /// Time since the member was heard last, in milliseconds; absent if it was not in this life.
    pub heard_ms: Option<u64>,
    /// Number up to which its disk has the log; only a leader knows.
    pub stored: Option<SeqNo>,
    /// Number of entries that it lacks; only a leader knows.
    pub lag: Option<u64>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Replica {
    /// Returns the present status.
    pub fn status(&self) -> ChatStatus {
        let last = self.log.last().seq;
        let (me, leading) = (self.process.id(), self.role_state.leading());
        let stored = |id: MemberId| match (leading, id == me) {
            (Some(_), true) => Some(self.stored()),
            (Some(leading), false) => leading.matched(id),
            (None, _) => None,
        };
        let member = |it: &Member| MemberStatus {
            member: it.clone(),
            linked: it.id == me || self.links.is_linked(it.id),
            heard_ms: self.links.heard_at(it.id).map(|at| millis(self.process.now().since(at))),
            stored: stored(it.id),
            lag: stored(it.id).map(|at| last.0.saturating_sub(at.0)),
        };
        ChatStatus {
            id: me,
            key: self.process.member().key,
            group: self.identity.group(),
            recovered: self.recovered().cloned(),
            role: self.role(),
            term: self.vote.term(),
            leader: self.vote.leader(),
            promises: leading.map(|it| it.promises().to_vec()).unwrap_or_default(),
            commit: self.log.commit(),
            last,
            quorum: self.reports.quorum(),
            members: self.log.membership().members.iter().map(member).collect(),
            pending: self.pending.own_waiting().map(|it| it.msg_id).collect(),
            waiting: self.pending.len(),
            message_max: self.message_max(),
            dropped: self.reports.drops().clone(),
        }
    }
}
