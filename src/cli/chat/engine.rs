//! Engine of a chat's member, of either order, and its status as screens and programs get it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::byzantine::{OrderMember, OrderState};
use super::format::{GroupView, SeenMember};
use crate::machine::chat::{ChatStatus, Event, Role};
use crate::proto::chat::entry::{Entry, Member, MemberId, Membership, MsgId, SeqNo, Term};
use crate::runtime::chat::ChatEngine;

/// Engine of a chat's member.
pub(super) enum Engine {
    /// The members may crash.
    Crash(ChatEngine),
    /// The members may lie.
    Byzantine(OrderMember),
}

impl From<ChatEngine> for Engine {
    fn from(engine: ChatEngine) -> Self {
        Self::Crash(engine)
    }
}

impl From<OrderMember> for Engine {
    fn from(member: OrderMember) -> Self {
        Self::Byzantine(member)
    }
}

impl Engine {
    /// The member itself, as others know it.
    pub(super) fn me(&self) -> &Member {
        match self {
            Self::Crash(engine) => engine.me(),
            Self::Byzantine(member) => &member.me,
        }
    }

    /// Sends a text; it is kept until it is final. False once the member is stopping.
    pub(super) fn say(&self, room: Arc<str>, text: impl Into<Arc<str>>) -> bool {
        match self {
            Self::Crash(engine) => engine.say(room, text),
            Self::Byzantine(member) => member.engine.say(room, text),
        }
    }

    /// Status of the member; `None` once it is stopping.
    pub(super) fn status(&self) -> Option<ChatState> {
        match self {
            Self::Crash(engine) => engine.status().map(|it| ChatState::Crash(Box::new(it))),
            Self::Byzantine(member) => member.state().map(|it| ChatState::Byzantine(Box::new(it))),
        }
    }

    /// Up to `count` final entries from number `from` on, out of the log.
    ///
    /// # Errors
    /// Fails if the member is stopping, too much is being read, or the disk refuses.
    pub(super) fn history(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        match self {
            Self::Crash(engine) => engine.history(from, count),
            Self::Byzantine(member) => member.engine.history(from, count),
        }
    }

    /// Ends this member's part. The engine is still to be stopped.
    pub(super) fn leave(&self) {
        match self {
            Self::Crash(engine) => engine.leave(),
            Self::Byzantine(member) => member.engine.leave(),
        }
    }

    /// Ends all threads. A second call does nothing.
    pub(super) fn stop(&self) {
        match self {
            Self::Crash(engine) => engine.stop(),
            Self::Byzantine(member) => member.engine.stop(),
        }
    }

    /// Engine whose members may crash, for what only that can do.
    ///
    /// # Errors
    /// Fails in a Byzantine order, with what to do instead.
    pub(super) fn crash(&self, instead: &str) -> Result<&ChatEngine, String> {
        match self {
            Self::Crash(engine) => Ok(engine),
            Self::Byzantine(_) => Err(instead.to_owned()),
        }
    }
}

/// Status of a chat's member, of either order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum ChatState {
    /// The members may crash.
    Crash(Box<ChatStatus>),
    /// The members may lie.
    Byzantine(Box<OrderState>),
}

impl ChatState {
    /// Number of the last final entry.
    pub(super) fn commit(&self) -> SeqNo {
        match self {
            Self::Crash(it) => it.commit,
            Self::Byzantine(it) => it.status.place,
        }
    }

    /// Greatest length of a text, in bytes, once the group is known.
    pub(super) fn message_max(&self) -> Option<usize> {
        match self {
            Self::Crash(it) => it.group.map(|_| it.message_max),
            Self::Byzantine(_) => Some(crate::machine::bft::Config::default().message_max),
        }
    }

    /// Number of texts typed here that are not final.
    pub(super) fn pending(&self) -> usize {
        match self {
            Self::Crash(it) => it.pending.len(),
            Self::Byzantine(it) => it.status.pending,
        }
    }

    /// Identities of these texts, if they are told.
    pub(super) fn pending_ids(&self) -> Option<&[MsgId]> {
        match self {
            Self::Crash(it) => Some(&it.pending),
            Self::Byzantine(_) => None,
        }
    }

    /// True if the leader can be asked to remove this member.
    pub(super) fn can_remove(&self, id: MemberId) -> bool {
        match self {
            Self::Crash(it) => it.members.iter().any(|it| it.member.id == id),
            Self::Byzantine(_) => false,
        }
    }

    /// The members, by id.
    pub(super) fn members(&self) -> Vec<SeenMember> {
        match self {
            Self::Crash(it) => {
                let seen = it.members.iter().map(|other| SeenMember {
                    member: other.member.clone(),
                    is_here: other.linked || other.member.id == it.id,
                    lag: other.lag,
                });
                seen.collect()
            }
            Self::Byzantine(it) => it.members(),
        }
    }

    /// State of the group.
    pub(super) fn standing(&self) -> GroupView {
        match self {
            Self::Crash(it) => GroupView {
                role: it.role,
                term: it.term,
                leader: it.leader,
                has_quorum: it.quorum != Some(false),
                commit: it.commit,
                last: it.last,
                needed: None,
            },
            Self::Byzantine(it) => {
                let it = &it.status;
                let leads = it.active && it.leader == it.me;
                GroupView {
                    role: if leads { Role::Leader } else { Role::Follower },
                    term: Term(it.view.0),
                    leader: it.active.then_some(it.leader),
                    has_quorum: it.reached >= it.quorum,
                    commit: it.place,
                    last: it.place,
                    needed: Some(it.quorum),
                }
            }
        }
    }

    /// Events that would have led here, for a screen that was not there.
    pub(super) fn events(&self) -> Vec<Event> {
        let Self::Crash(it) = self else { return Vec::new() };
        let members: Vec<_> = it.members.iter().map(|it| it.member.clone()).collect();
        let mut events = Vec::new();
        if !members.is_empty() {
            let group = Membership { members, ..Membership::default() };
            events.push(Event::MembershipChanged(Arc::new(group)));
        }
        events.push(Event::RoleChanged {
            role: it.role,
            term: it.term,
            leader: it.leader,
            promises: it.promises.clone(),
        });
        events.extend((it.quorum == Some(false)).then_some(Event::NoQuorum));
        events
    }

    /// Notes about the state of an order, for a screen that was not there.
    pub(super) fn notes(&self) -> Vec<String> {
        match self {
            Self::Crash(_) => Vec::new(),
            Self::Byzantine(it) => it.notes(),
        }
    }
}
