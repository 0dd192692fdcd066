//! Messages that neighbors have announced and none has sent, with their announcers and due times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::ROUNDS_MAX;
use crate::machine::LinkId;
use crate::model::statement::MemberInstance;
use crate::model::{MessageId, Time};

/// Half of the pause before all announcers are asked for the second time; doubled each round.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// A message that is waited for.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) size: u64,
    /// Time of the first announcement.
    pub(super) since: Time,
    /// Links of the announcers, in the order of the announcements.
    pub(super) sources: Vec<LinkId>,
    /// Links that were asked in this round.
    pub(super) tried: BTreeSet<LinkId>,
    /// Link whose answer is waited for.
    pub(super) asked: Option<LinkId>,
    rounds: u32,
    due: Time,
    /// Origin of a large message whose head came, and whose parts wait for room.
    origin: Option<MemberInstance>,
}

/// Messages that are waited for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by_id: BTreeMap<MessageId, Want>,
    by_due: BTreeSet<(Time, MessageId)>,
    /// Large messages whose parts wait for room.
    postponed: BTreeSet<MessageId>,
}

impl Wanted {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get_mut(&mut self, id: &MessageId) -> Option<&mut Want> {
        self.by_id.get_mut(id)
    }

    /// Notes that `source` holds a message. Returns whether it had not said so before.
    pub(super) fn announce(
        &mut self,
        (id, size): (MessageId, u64),
        source: LinkId,
        (now, wait): (Time, Duration),
    ) -> bool {
        if let Some(want) = self.by_id.get_mut(&id) {
            let is_new = !want.sources.contains(&source);
            if is_new {
                want.sources.push(source);
            }
            return is_new;
        }
        let due = now.after(wait);
        let want = Want {
            size,
            since: now,
            sources: vec![source],
            tried: BTreeSet::new(),
            asked: None,
            rounds: 0,
            due,
            origin: None,
        };
        self.by_id.insert(id, want);
        self.by_due.insert((due, id));
        true
    }

    pub(super) fn remove(&mut self, id: &MessageId) -> Option<Want> {
        let want = self.by_id.remove(id)?;
        self.postponed.remove(id);
        self.by_due.remove(&(want.due, *id));
        Some(want)
    }

    /// Time at which the next message is to be asked for.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// The first messages to be asked for by now, at most `most`.
    pub(super) fn due(&self, now: Time, most: usize) -> Vec<MessageId> {
        let due = self.by_due.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, id)| *id).take(most).collect()
    }

    pub(super) fn set_due(&mut self, id: &MessageId, due: Time) {
        if let Some(want) = self.by_id.get_mut(id) {
            self.by_due.remove(&(want.due, *id));
            want.due = due;
            self.by_due.insert((due, *id));
        }
    }

    /// The origins of messages whose parts wait for room.
    pub(super) fn origins(&self) -> impl Iterator<Item = MemberInstance> {
        self.postponed.iter().filter_map(|id| self.by_id.get(id)?.origin)
    }

    /// Begins the search anew at `due` for a message that was answered, but cannot be taken yet.
    pub(super) fn postpone(&mut self, id: &MessageId, origin: MemberInstance, due: Time) {
        if let Some(want) = self.by_id.get_mut(id) {
            want.origin = Some(origin);
            self.postponed.insert(*id);
            want.rounds = 0;
            want.tried.clear();
            want.asked = None;
            self.set_due(id, due);
        }
    }

    /// Begins another round after a pause, when all announcers were asked. Returns false if no
    /// round is left.
    pub(super) fn next_round(&mut self, id: &MessageId, now: Time) -> bool {
        let Some(want) = self.by_id.get_mut(id) else { return false };
        want.rounds += 1;
        if want.rounds >= ROUNDS_MAX || want.sources.is_empty() {
            return false;
        }
        want.tried.clear();
        let pause = ROUND_PAUSE * (1 << want.rounds);
        self.set_due(id, now.after(pause));
        true
    }

    /// Removes a link that ended from the announcers; messages that were asked for on it are asked
    /// for elsewhere at once.
    pub(super) fn on_link_down(&mut self, link: LinkId, now: Time) {
        let mut hurried = Vec::new();
        for (id, want) in &mut self.by_id {
            want.sources.retain(|source| *source != link);
            if want.asked == Some(link) {
                want.asked = None;
                hurried.push(*id);
            }
        }
        for id in hurried {
            self.set_due(&id, now);
        }
    }
}
