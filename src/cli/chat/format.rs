//! Events of a group in words: notes for people, log lines for programs.

use ::log::Level;
use serde_json::{Value, json};

use crate::cli::log::LogLine;
use crate::machine::chat::event::TRIAL_SUCCEEDED;
use crate::machine::chat::{Event, Role};
use crate::model::Endpoint;
use crate::proto::chat::entry::{HostPort, Member, MemberId, Membership, SeqNo, Term};

/// State of the group, as this member knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupView {
    /// Role of this member.
    pub(super) role: Role,
    /// The newest term it knows.
    pub(super) term: Term,
    /// Present leader, if it is known.
    pub(super) leader: Option<MemberId>,
    /// True if a majority is reached.
    pub(super) has_quorum: bool,
    /// Number of the last final entry.
    pub(super) commit: SeqNo,
    /// Number of the last entry here.
    pub(super) last: SeqNo,
    /// Number of members that decide in a Byzantine order, whose terms are views.
    pub(super) needed: Option<usize>,
}

/// One member of the group, as another sees it.
pub(super) struct SeenMember {
    /// The member, with its address.
    pub(super) member: Member,
    /// True if there is a connection, or it is the seeing member itself.
    pub(super) is_here: bool,
    /// Number of entries or slots it lacks, as far as is known.
    pub(super) lag: Option<u64>,
}

/// Listen address of a member.
pub(super) fn place(at: HostPort) -> Endpoint {
    Endpoint::new(at.host, at.port)
}

/// Ids of several members, as a list.
pub(super) fn list(members: &[MemberId]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A role as `/status` has it.
pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Joining => "JOINING",
        Role::Follower => "FOLLOWER",
        Role::Candidate => "CANDIDATE",
        Role::Leader => "LEADER",
    }
}

/// True if `id` is no member of a group that is known.
fn is_stranger(id: MemberId, group: &Membership) -> bool {
    !group.members.is_empty() && group.members.iter().all(|it| it.id != id)
}

/// Notes of an event for the person at `me`, for which the group was `before` and its state
/// `standing`; none for events that the model shows in other ways.
pub(super) fn notes(
    event: &Event,
    me: MemberId,
    before: &Membership,
    standing: &GroupView,
) -> Vec<String> {
    let one = |text: String| vec![text];
    match event {
        Event::RoleChanged { role: Role::Leader, term, promises, .. } => {
            let by = if promises.is_empty() {
                String::new()
            } else {
                format!(", promised by {}", list(promises))
            };
            one(format!("{me} (this one) leads in term {}{by}", term.0))
        }
        Event::RoleChanged { leader: Some(leader), term, .. }
            if standing.leader != Some(*leader) || standing.term != *term =>
        {
            one(format!("{leader} leads in term {}", term.0))
        }
        Event::RoleChanged { role: Role::Follower, .. } if standing.role == Role::Leader => {
            one(format!("{me} (this one) leads no more"))
        }
        // A successful trial is for the log only.
        Event::ElectionBegun { reason, .. } if reason == TRIAL_SUCCEEDED => Vec::new(),
        Event::ElectionBegun { term, reason } => {
            one(format!("stands for election in term {}: {reason}", term.0))
        }
        Event::NoQuorum => {
            one("no majority is reached: what you type is kept and sent later".to_owned())
        }
        Event::Quorum if !standing.has_quorum => one("a majority is reached again".to_owned()),
        Event::MembershipChanged(now) => changes(before, now),
        Event::Pending(_) if !standing.has_quorum => {
            one("kept, and sent when a majority is reached".to_owned())
        }
        // Strangers that come and go are not reported.
        Event::Reached(id) | Event::Lost(id) if is_stranger(*id, before) => Vec::new(),
        Event::Reached(id) => one(format!("{id} is within reach")),
        Event::Lost(id) => one(format!("{id} is out of reach")),
        Event::Refused { reason } => one(format!("refused: {reason}")),
        Event::Diverged { member, at } => one(format!(
            "the log of {member} differs from this one at or before seq {}; peer chat verify says \
             where",
            at.0
        )),
        Event::Rejected { reason, .. } => one(format!("not sent: {reason}")),
        Event::GivenBack { chat, reason } => {
            one(format!("not sent, and given back: {reason}; the text was: {}", chat.payload))
        }
        Event::Doubled { reason, .. } => one(reason.clone()),
        Event::RoleChanged { .. }
        | Event::Quorum
        | Event::Pending(_)
        | Event::Renamed { .. }
        | Event::Numbered(..)
        | Event::Dropped(_)
        | Event::Gone => Vec::new(),
    }
}

/// Differences of two memberships.
fn changes(before: &Membership, now: &Membership) -> Vec<String> {
    let find = |of: &Membership, id: MemberId| of.members.iter().find(|it| it.id == id).cloned();
    let mut texts = Vec::new();
    for Member { id, at, key } in &now.members {
        match find(before, *id) {
            None if before.members.is_empty() => {}
            None => texts.push(format!("{id} at {} has joined the group", place(*at))),
            Some(old) if old.key != *key => {
                texts.push(format!("{id} is another now, at {}", place(*at)));
            }
            Some(old) if old.at != *at => texts.push(format!("{id} is at {} now", place(*at))),
            Some(_) => {}
        }
    }
    for Member { id, .. } in &before.members {
        if find(now, *id).is_none() {
            texts.push(format!("{id} was removed from the group"));
        }
    }
    if before.members.is_empty() {
        let all: Vec<_> = now.members.iter().map(|it| it.id).collect();
        texts.push(format!("the group is {}", list(&all)));
    }
    texts
}

/// An event as a log line.
#[allow(clippy::too_many_lines, reason = "one arm an event; they are read one by one")]
pub(super) fn line(event: &Event, me: MemberId) -> LogLine {
    let made =
        |level, name, message: String, fields: Value| LogLine::new(level, name, message, fields);
    match event {
        Event::RoleChanged { role: now, term, leader, promises } => {
            let who = leader.map_or("nobody".to_owned(), |it| it.to_string());
            made(
                Level::Info,
                "chat_role",
                format!("{me} is {} in term {}; {who} leads", role(*now), term.0),
                json!({
                    "state": role(*now), "term": term.0, "leader": leader.map(|it| it.0),
                    "promises": promises.iter().map(|it| it.0).collect::<Vec<_>>(),
                }),
            )
        }
        Event::ElectionBegun { term, reason } => made(
            Level::Info,
            "chat_election",
            format!("stands for election in term {}: {reason}", term.0),
            json!({ "term": term.0, "reason": reason }),
        ),
        Event::NoQuorum => made(
            Level::Warn,
            "chat_no_quorum",
            "reaches no majority: what is typed waits".to_owned(),
            json!({}),
        ),
        Event::Quorum => {
            made(Level::Info, "chat_quorum", "reaches a majority".to_owned(), json!({}))
        }
        Event::MembershipChanged(now) => {
            let ids: Vec<_> = now.members.iter().map(|it| it.id).collect();
            made(
                Level::Info,
                "chat_members",
                format!("the group is {}", list(&ids)),
                json!({
                    "members": ids.iter().map(|it| it.0).collect::<Vec<_>>(),
                    "removed": now.removed.len(),
                }),
            )
        }
        Event::Pending(chat) => made(
            Level::Debug,
            "chat_pending",
            format!("keeps {} until it is final", chat.msg_id),
            json!({ "msg_id": chat.msg_id.to_string() }),
        ),
        Event::Rejected { reason, .. } => made(
            Level::Warn,
            "chat_rejected",
            format!("does not take a text: {reason}"),
            json!({ "reason": reason }),
        ),
        Event::GivenBack { chat, reason } => made(
            Level::Warn,
            "chat_given_back",
            format!("gives {} back: {reason}", chat.msg_id),
            json!({ "msg_id": chat.msg_id.to_string(), "reason": reason }),
        ),
        Event::Renamed { from, to } => made(
            Level::Info,
            "chat_renamed",
            format!("{from} goes on as {to}"),
            json!({ "msg_id": from.to_string(), "now": to.to_string() }),
        ),
        Event::Doubled { member, reason } => made(
            Level::Error,
            "chat_doubled",
            format!("two processes of {member}: {reason}"),
            json!({ "member": member.0, "reason": reason }),
        ),
        Event::Numbered(id, seq) => made(
            Level::Debug,
            "chat_numbered",
            format!("{id} has the number {}", seq.0),
            json!({ "msg_id": id.to_string(), "seq_no": seq.0 }),
        ),
        Event::Reached(id) => member(Level::Info, "chat_reached", *id, "is within reach"),
        Event::Lost(id) => member(Level::Info, "chat_lost", *id, "is out of reach"),
        Event::Refused { reason } => made(
            Level::Error,
            "chat_refused",
            format!("refused: {reason}"),
            json!({ "reason": reason }),
        ),
        Event::Diverged { member, at } => made(
            Level::Error,
            "chat_diverged",
            format!("the log of {member} differs at or before {}", at.0),
            json!({ "member": member.0, "seq_no": at.0 }),
        ),
        Event::Dropped(why) => {
            made(Level::Debug, "chat_dropped", format!("dropped: {why}"), json!({ "reason": why }))
        }
        Event::Gone => made(Level::Info, "chat_gone", "has left".to_owned(), json!({})),
    }
}

fn member(level: Level, name: &'static str, id: MemberId, what: &str) -> LogLine {
    LogLine::new(level, name, format!("{id} {what}"), json!({ "member": id.0 }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng as _;

    use super::*;
    use crate::cli::chat::model::{ChatLine, ChatModel};
    use crate::model::{KeyPair, Rng};

    fn member(id: u32, port: u16) -> Member {
        let key = KeyPair::generate(&mut Rng::seed_from_u64(id.into())).public();
        Member { id: MemberId(id), at: HostPort { host: [127, 0, 0, 1].into(), port }, key }
    }

    fn group(members: &[Member]) -> Event {
        let members = members.to_vec();
        Event::MembershipChanged(Arc::new(Membership { members, ..Membership::default() }))
    }

    fn notes_of(model: &mut ChatModel, event: &Event) -> Vec<String> {
        model.happen(event).iter().map(ChatLine::line).collect()
    }

    #[test]
    fn the_group_is_told_first_whole_and_then_by_its_changes() {
        let mut model = ChatModel::new(MemberId(1), "general");
        let (one, two, moved) = (member(1, 6001), member(2, 6002), member(2, 6012));
        let steps = [
            (vec![one.clone()], "* the group is peer_1"),
            (vec![one.clone(), two], "* peer_2 at 127.0.0.1:6002 has joined the group"),
            (vec![one.clone(), moved], "* peer_2 is at 127.0.0.1:6012 now"),
            (vec![one], "* peer_2 was removed from the group"),
        ];
        for (members, expected) in steps {
            assert_eq!(notes_of(&mut model, &group(&members)), [expected]);
        }
    }

    #[test]
    fn what_was_seen_before_it_was_told_is_told_all_the_same() {
        let mut model = ChatModel::new(MemberId(1), "general");
        notes_of(&mut model, &Event::NoQuorum);
        // A look at the engine comes before its events.
        model.standing.leader = Some(MemberId(3));
        model.standing.term = Term(1);
        model.standing.has_quorum = true;
        let event = Event::RoleChanged {
            role: Role::Follower,
            term: Term(1),
            leader: Some(MemberId(3)),
            promises: Vec::new(),
        };
        assert_eq!(notes_of(&mut model, &event), ["* peer_3 leads in term 1"]);
        assert_eq!(notes_of(&mut model, &Event::Quorum), ["* a majority is reached again"]);
    }

    #[test]
    fn a_leader_is_told_once_a_term() {
        let mut model = ChatModel::new(MemberId(1), "general");
        let leads = |term| Event::RoleChanged {
            role: Role::Follower,
            term: Term(term),
            leader: Some(MemberId(3)),
            promises: Vec::new(),
        };
        assert_eq!(notes_of(&mut model, &leads(1)), ["* peer_3 leads in term 1"]);
        assert!(notes_of(&mut model, &leads(1)).is_empty());
        assert_eq!(notes_of(&mut model, &leads(2)), ["* peer_3 leads in term 2"]);
        let mine = Event::RoleChanged {
            role: Role::Leader,
            term: Term(3),
            leader: Some(MemberId(1)),
            promises: vec![MemberId(1), MemberId(2)],
        };
        assert_eq!(
            notes_of(&mut model, &mine),
            ["* peer_1 (this one) leads in term 3, promised by peer_1, peer_2"]
        );
    }
}
