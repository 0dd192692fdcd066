//! Repair: messages that were announced and do not come are asked for, from one announcer
//! after the other.
//!
//! The wait for a push follows the delays of pushes after announcements; the wait for an answer
//! follows the times that answers take. Both have bounds, so that neither a slow link nor a liar
//! makes the waiting long.

use std::collections::BTreeMap;

use super::config::{
    ANSWER_MAX, ANSWER_MIN, PULLS_MAX, ROOM_PAUSE, UNANSWERED_STEP, UNANSWERED_STEPS_MAX, WAIT_MAX,
    WAIT_MIN, WANTED_MAX,
};
use super::event::Reason;
use super::wanted::Want;
use super::{Broadcast, Fx, Timer};
use crate::machine::LinkId;
use crate::model::{MessageId, Now};
use crate::proto::broadcast::{ANNOUNCE_MAX, Announce, GRAFT_MAX, Graft, PART_BYTES};

/// Number of messages asked for, or given up, at once.
const PORTION: usize = 1_024;

/// Result of the search for an announcer to ask.
enum Choice {
    Ask(LinkId),
    /// The announcers not asked yet have enough to answer.
    Wait,
    /// All announcers were asked.
    Nobody,
}

impl Broadcast {
    /// Takes a neighbor's announcement of messages that it holds.
    pub fn on_announce(&mut self, now: Now, from: LinkId, announce: &Announce, fx: &mut Fx) {
        if announce.ids.len() > ANNOUNCE_MAX {
            let count = announce.ids.len();
            let reason = format!("{count} announcements; at most {ANNOUNCE_MAX} at once");
            return self.blame(from, reason, fx);
        }
        if !self.links.contains_key(&from) {
            return;
        }
        for offer in &announce.ids {
            // The neighbor needs no announcement in return.
            if let Some(link) = self.links.get_mut(&from) {
                link.offers.remove(&offer.id);
            }
            if let Some(pull) = self.pulls.get_mut(&offer.id) {
                pull.add_source(from);
            } else if offer.size > self.config.message_max {
                self.metrics.drop_one(Reason::Malformed);
            } else if self.seen.contains(&offer.id) {
                self.prefer_nearer(now, from, *offer, fx);
            } else {
                self.want(now, (offer.id, offer.size), from, fx);
            }
        }
    }

    /// Waits for a message that `from` holds.
    pub(super) fn want(&mut self, now: Now, offer: (MessageId, u64), from: LinkId, fx: &mut Fx) {
        let share = WANTED_MAX / self.links.len().max(16);
        let Some(link) = self.links.get_mut(&from) else { return };
        // An announcer that does not send is not believed much more at once.
        let halvings = (link.unanswered / UNANSWERED_STEP).min(UNANSWERED_STEPS_MAX);
        if link.wanted >= share >> halvings {
            return self.metrics.drop_one(Reason::Crowded);
        }
        let wait = self.lateness.wait(WAIT_MIN, WAIT_MAX);
        if self.wanted.announce(offer, from, (now.mono, wait)) {
            link.wanted += 1;
        }
        self.arm(Timer::Repair, self.wanted.next_due(), now, fx);
    }

    /// Stops waiting for a message.
    pub(super) fn unwant(&mut self, id: &MessageId) -> Option<Want> {
        let want = self.wanted.remove(id)?;
        for source in &want.sources {
            if let Some(link) = self.links.get_mut(source) {
                link.wanted = link.wanted.saturating_sub(1);
                link.settle(id);
            }
        }
        Some(want)
    }

    /// Asks for all messages that did not come in time.
    pub(super) fn on_repair_due(&mut self, now: Now, fx: &mut Fx) {
        let patience = self.answers.wait(ANSWER_MIN, ANSWER_MAX);
        let mut grafts: BTreeMap<LinkId, Vec<MessageId>> = BTreeMap::new();
        for id in self.wanted.due(now.mono, PORTION) {
            match self.choose(&id) {
                Choice::Wait => self.wanted.set_due(&id, now.mono.after(ROOM_PAUSE)),
                Choice::Nobody => {
                    if !self.wanted.next_round(&id, now.mono) {
                        self.unwant(&id);
                        self.metrics.drop_one(Reason::Withheld);
                    }
                }
                Choice::Ask(source) => {
                    let Some(want) = self.wanted.get_mut(&id) else { continue };
                    want.tried.insert(source);
                    want.asked = Some(source);
                    if let Some(link) = self.links.get_mut(&source) {
                        link.ask(now.mono, id, want.size);
                    }
                    self.wanted.set_due(&id, now.mono.after(patience));
                    grafts.entry(source).or_default().push(id);
                }
            }
        }
        // One new parent is enough; the next failure finds another.
        let mut push = true;
        for (source, ids) in grafts {
            let Some(link) = self.links.get_mut(&source) else { continue };
            if push {
                link.graft();
            }
            debug_assert!(ids.len() <= GRAFT_MAX + 1, "a link is asked for so many at once");
            self.metrics.grafts += 1;
            fx.send(source, Graft { ids, push });
            push = false;
        }
        self.arm(Timer::Repair, self.wanted.next_due(), now, fx);
    }

    /// Chooses the announcer to ask next: of those not asked yet the one that answered best so far.
    fn choose(&mut self, id: &MessageId) -> Choice {
        let Some(want) = self.wanted.get_mut(id) else { return Choice::Nobody };
        if let Some(silent) = want.asked.take()
            && let Some(link) = self.links.get_mut(&silent)
        {
            link.give_up(id);
        }
        // A large message waits until another pull may begin.
        if want.size > PART_BYTES as u64 && self.pulls.len() >= PULLS_MAX {
            return Choice::Wait;
        }
        let (links, tried) = (&self.links, &want.tried);
        let untried = want.sources.iter().filter(|source| !tried.contains(source));
        let open: Vec<_> = untried.filter_map(|it| Some((*it, links.get(it)?))).collect();
        let with_room = open.iter().filter(|(_, link)| link.may_ask(want.size));
        match with_room.min_by_key(|(_, link)| link.unanswered) {
            Some((source, _)) => Choice::Ask(*source),
            None if open.is_empty() => Choice::Nobody,
            None => Choice::Wait,
        }
    }
}
