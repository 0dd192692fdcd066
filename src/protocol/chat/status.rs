//! What a member tells about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::entry::{GroupId, Member, MemberId, MsgId, Recovered, SeqNo, Term};
use super::event::Role;
use super::group::{Duty, Group};
use crate::model::PublicKey;

/// A member and its group, as it sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its number.
    pub id: MemberId,
    /// Its key.
    pub key: PublicKey,
    /// The group, once it is known.
    pub group: Option<GroupId>,
    /// The recovery that the group began with, if it began so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// What it does.
    pub role: Role,
    /// The newest term that it knows.
    pub term: Term,
    /// Who leads.
    pub leader: Option<MemberId>,
    /// Whose promises a leader holds.
    pub promises: Vec<MemberId>,
    /// Everything up to here is final.
    pub commit: SeqNo,
    /// The last entry.
    pub last: SeqNo,
    /// Whether a majority is in reach; absent while that is not known.
    pub quorum: Option<bool>,
    /// The newest membership.
    pub members: Vec<MemberStatus>,
    /// What was typed here and is not final.
    pub pending: Vec<MsgId>,
    /// Everything that waits, clients' messages too.
    pub waiting: usize,
    /// The longest text of a message in bytes, as the group has agreed.
    pub message_max: usize,
    /// What was left out, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// One member, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Who and where.
    #[serde(flatten)]
    pub member: Member,
    /// Whether there is a connection.
    pub linked: bool,
    /// How long ago anything was heard of it, in ms; absent if nothing was in this life.
    pub heard_ms: Option<u64>,
    /// How far its disk has the log; only a leader knows.
    pub stored: Option<SeqNo>,
    /// How many entries it lacks; only a leader knows.
    pub lag: Option<u64>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Group {
    /// What it is now.
    pub fn status(&self) -> Status {
        let last = self.log.last().seq;
        let reign = match &self.duty {
            Duty::Lead(reign) => Some(reign),
            Duty::Follow | Duty::Stand(_) | Duty::Adopt(..) => None,
        };
        let stored = |id: MemberId| match (reign, id == self.me.id) {
            (Some(_), true) => Some(self.stored()),
            (Some(reign), false) => reign.progress.get(&id).map(|it| it.matched),
            (None, _) => None,
        };
        let member = |it: &Member| MemberStatus {
            member: it.clone(),
            linked: it.id == self.me.id || self.links.of_member(it.id).is_some(),
            heard_ms: self.links.heard.get(&it.id).map(|at| self.now.mono.since(*at)).map(millis),
            stored: stored(it.id),
            lag: stored(it.id).map(|at| last.0.saturating_sub(at.0)),
        };
        Status {
            id: self.me.id,
            key: self.me.key,
            group: self.group,
            recovered: self.recovered().cloned(),
            role: self.role(),
            term: self.term,
            leader: self.leader,
            promises: reign.map(|it| it.promises.clone()).unwrap_or_default(),
            commit: self.log.commit(),
            last,
            quorum: self.quorum,
            members: self.log.membership().members.iter().map(member).collect(),
            pending: self.outbox.own_waiting().map(|it| it.msg_id).collect(),
            waiting: self.outbox.len(),
            message_max: self.message_max(),
            dropped: self.drops.clone(),
        }
    }
}
