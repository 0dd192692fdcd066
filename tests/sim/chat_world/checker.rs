//! What must hold at every step, in all lives of all members, those of the dead too.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use folkmoot::machine::chat::{Event, Role};
use folkmoot::proto::chat::entry::{Body, Entry, MemberId, Membership, MsgId, Origin, SeqNo, Term};

use super::Tally;
use crate::services::chat::{Told, program_text};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One place, two entries.
    Diverged,
    /// Something final or acknowledged is gone.
    Lost,
    /// A text that a disk keeps is not final in the end.
    Kept,
    /// A member that has kept everything was told that its log is old.
    Accused,
    /// Two processes of one member were not noticed.
    Unnoticed,
    /// A message stands twice, or an author's messages out of their order.
    Doubled,
    /// Two leaders of one term.
    TwoLeaders,
    /// Delivered with a gap, or twice in a life.
    Gap,
    /// The group changed by more than one.
    Leap,
    /// A machine found itself in a state that cannot be.
    Assertion,
    /// Quiet, and yet something does not get done.
    Stuck,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

#[derive(Default)]
pub(crate) struct Checker {
    /// The one order, as it was delivered first.
    pub(crate) order: Vec<Arc<Entry>>,
    seen: BTreeMap<MsgId, (SeqNo, Arc<str>)>,
    last_of: BTreeMap<Origin, u64>,
    /// Every text is typed once only.
    texts: BTreeSet<Arc<str>>,
    leaders: BTreeMap<Term, MemberId>,
    group: Option<Arc<Membership>>,
    pub(crate) acknowledged: BTreeSet<MsgId>,
    pub(crate) violation: Option<Violation>,
}

impl Checker {
    pub(crate) fn fail(&mut self, kind: Kind, what: String) {
        self.violation.get_or_insert(Violation { kind, what });
    }

    /// A member tells this, in order.
    pub(crate) fn heed(&mut self, id: MemberId, told: &Told, tally: &mut Tally) {
        let mut count = |what| *tally.entry(what).or_default() += 1;
        match told {
            Told::Started { commit } => {
                count("start");
                if usize::try_from(commit.0).expect("short") > self.order.len() {
                    self.fail(Kind::Gap, format!("{id} believes {} final", commit.0));
                }
            }
            Told::Rewound => count("a log that was rewound"),
            Told::Delivered { before, entry } => self.on_delivered(id, *before, entry),
            Told::Acknowledged { program, id } => {
                count("acknowledged");
                self.on_acknowledged(*id, &program_text(*program, id.number));
            }
            Told::Count(what) => count(what),
            Told::Group(event) => match event {
                Event::RoleChanged { role: Role::Leader, term, .. } => {
                    count("leader");
                    self.on_leader(id, *term);
                }
                Event::Diverged { member, at } => {
                    let what = format!("{id} says that {member} differs at {}", at.0);
                    self.fail(Kind::Diverged, what);
                }
                Event::Dropped(why) => count(why),
                Event::NoQuorum => count("no quorum"),
                Event::Gone => count("left"),
                Event::ElectionBegun { reason: Cow::Borrowed(reason), .. } => count(reason),
                Event::Doubled { member, .. } if *member == id => count("told of a copy"),
                Event::Refused { .. } => count("refused"),
                Event::RoleChanged { .. }
                | Event::ElectionBegun { .. }
                | Event::Doubled { .. }
                | Event::Quorum
                | Event::MembershipChanged(_)
                | Event::Pending(_)
                | Event::Rejected { .. }
                | Event::GivenBack { .. }
                | Event::Renamed { .. }
                | Event::Numbered(..)
                | Event::Reached(_)
                | Event::Lost(_) => {}
            },
        }
    }

    /// Whether that very text is final under that identity.
    pub(crate) fn is_final(&self, id: MsgId, text: &str) -> bool {
        self.seen.get(&id).is_some_and(|(_, it)| **it == *text)
    }

    pub(crate) fn on_leader(&mut self, id: MemberId, term: Term) {
        let known = *self.leaders.entry(term).or_insert(id);
        if known != id {
            self.fail(Kind::TwoLeaders, format!("{known} and {id} lead in term {}", term.0));
        }
    }

    /// `node` delivers, after `before`.
    pub(crate) fn on_delivered(&mut self, node: MemberId, before: SeqNo, entry: &Arc<Entry>) {
        if entry.seq_no.0 != before.0 + 1 {
            let what = format!("{node} delivers {} after {}", entry.seq_no.0, before.0);
            self.fail(Kind::Gap, what);
            return;
        }
        let at = usize::try_from(before.0).expect("a short log");
        match self.order.get(at) {
            Some(known) if **known == **entry => {}
            Some(known) => {
                let what = format!("{node} delivers {entry:?}, but there was {known:?}");
                self.fail(Kind::Diverged, what);
            }
            None if at == self.order.len() => self.on_fresh(entry),
            None => self.fail(Kind::Gap, format!("{node} is ahead of everybody at {}", before.0)),
        }
    }

    fn on_fresh(&mut self, entry: &Arc<Entry>) {
        match &entry.body {
            Body::Opening => {}
            Body::Chat(chat) => {
                let id = chat.msg_id;
                let text = Arc::clone(&chat.payload);
                if let Some((first, _)) = self.seen.insert(id, (entry.seq_no, Arc::clone(&text))) {
                    let what = format!("{id} stands at {} and {}", first.0, entry.seq_no.0);
                    self.fail(Kind::Doubled, what);
                }
                let last = self.last_of.insert(id.origin, id.number).unwrap_or(0);
                if id.number != last + 1 {
                    self.fail(Kind::Doubled, format!("{id} comes after number {last}"));
                }
                if !self.texts.insert(Arc::clone(&text)) {
                    self.fail(Kind::Doubled, format!("{text:?} stands a second time, as {id}"));
                }
            }
            Body::Membership(now) => self.on_group(now),
        }
        self.order.push(Arc::clone(entry));
    }

    fn on_group(&mut self, now: &Arc<Membership>) {
        if let Some(old) = self.group.replace(Arc::clone(now)) {
            let ids = |it: &Membership| it.members.iter().map(|m| m.id).collect::<BTreeSet<_>>();
            let differing = ids(&old).symmetric_difference(&ids(now)).count();
            if differing > 1 {
                self.fail(Kind::Leap, format!("{old:?} became {now:?}"));
            }
        }
    }

    /// The last life's log of somebody, at the end.
    pub(crate) fn on_end(&mut self, node: MemberId, log: &[Arc<Entry>]) {
        for (at, entry) in self.order.clone().iter().enumerate() {
            match log.get(at) {
                None => {
                    self.fail(Kind::Lost, format!("{node} lacks {} at the end", at + 1));
                    return;
                }
                Some(here) if **here != **entry => {
                    self.fail(Kind::Lost, format!("{node} has {here:?} instead of {entry:?}"));
                    return;
                }
                Some(_) => {}
            }
        }
    }

    pub(crate) fn on_acknowledged(&mut self, id: MsgId, text: &str) {
        self.acknowledged.insert(id);
        if !self.is_final(id, text) {
            self.fail(Kind::Lost, format!("{id} was acknowledged, but nobody delivered {text:?}"));
        }
    }

    /// Who the group is, by what is final.
    pub(crate) fn members(&self) -> Vec<MemberId> {
        let group = self.group.as_ref();
        group.map(|it| it.members.iter().map(|m| m.id).collect()).unwrap_or_default()
    }
}
