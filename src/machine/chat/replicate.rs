//! Replication: bringing entries to the followers in batches, several on their way, each from the
//! follower's own place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::config::Rule;
use super::event::{ExtraEffect, Fx, Timer};
use super::group::{Duty, Group};
use crate::machine::LinkId;
use crate::model::{PublicKey, Time};
use crate::proto::chat::entry::{Entry, MemberId, SeqNo, Term};
use crate::proto::chat::message::{CatchupReq, Message, NackCode, SeqAck, SeqChat};

/// Number of heartbeats without progress after which a follower is probed again.
const STALLED_MAX: u8 = 3;

/// A leader's view of one follower, or of a learner.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) link: LinkId,
    pub(super) key: PublicKey,
    /// First entry that was not sent.
    pub(super) next: SeqNo,
    /// Number up to which the follower's disk has the log.
    pub(super) matched: SeqNo,
    /// Last entries of the batches on their way.
    in_flight: VecDeque<SeqNo>,
    /// True if the follower asked for missing entries, and has not got all of them.
    is_behind: bool,
    is_loading: bool,
    /// True if the follower was sent a message that tells whether its log fits.
    is_probed: bool,
    stalled: u8,
    stalled_at: SeqNo,
    pub(super) heard: Time,
    /// Commit that the follower was told last.
    pub(super) told: SeqNo,
}

impl Progress {
    const fn new((link, key): (LinkId, PublicKey), next: SeqNo, heard: Time) -> Self {
        Self {
            link,
            key,
            next,
            matched: SeqNo(0),
            in_flight: VecDeque::new(),
            is_behind: false,
            is_loading: false,
            is_probed: false,
            stalled: 0,
            stalled_at: SeqNo(0),
            heard,
            told: SeqNo(0),
        }
    }

    /// Sends from the entry after `seq` on.
    fn restart(&mut self, seq: SeqNo) {
        self.next = seq.next();
        self.in_flight.clear();
        self.is_probed = false;
        self.stalled = 0;
    }

    /// Begins again if the follower makes no progress: a message may have been lost on the way.
    pub(super) fn look_for_stall(&mut self, last: SeqNo) {
        let is_waiting = self.next > self.matched.next() && !self.is_loading;
        if !is_waiting || self.stalled_at != self.matched {
            self.stalled_at = self.matched;
            self.stalled = 0;
            return;
        }
        self.stalled += 1;
        if self.stalled >= STALLED_MAX {
            self.restart(if self.matched.0 > 0 { self.matched } else { last });
        }
    }
}

impl Group {
    /// Begins to send to a member or learner that came within the leader's reach.
    pub(super) fn on_follower_linked(&mut self, id: MemberId, link: LinkId, fx: &mut Fx) {
        let next = self.log.last().seq.next();
        let msg = self.coordinator();
        let Some(key) = self.links.get(link).map(|it| it.member.key) else { return };
        let Some(reign) = self.reign() else { return };
        let old = reign.progress.remove(&id);
        let heard = old.as_ref().map_or(reign.since, |it| it.heard);
        if let Some(old) = old {
            reign.acknowledged.insert(old.key, old.matched);
        }
        // Another process may have come: it tells itself how far its disk has the log.
        reign.progress.insert(id, Progress::new((link, key), next, heard));
        self.send(link, msg, fx);
    }

    pub(super) fn on_ack(&mut self, id: MemberId, ack: SeqAck, fx: &mut Fx) {
        let (last, now, term) = (self.log.last().seq, self.now.mono, self.term);
        let is_fenced = self.config.keeps(super::config::Rule::Fence);
        let Some(reign) = self.reign() else { return };
        let Some(progress) = reign.progress.get_mut(&id) else { return };
        if ack.last_seq > last || (ack.term != term && is_fenced) {
            self.drop_it("an acknowledgement of something else", fx);
            return;
        }
        progress.heard = now;
        if ack.last_seq > progress.matched {
            progress.matched = ack.last_seq;
            progress.next = progress.next.max(ack.last_seq.next());
        }
        while progress.in_flight.front().is_some_and(|it| *it <= progress.matched) {
            progress.in_flight.pop_front();
        }
        self.advance_commit(fx);
        self.hand_over_if_ready(fx);
    }

    /// Takes a follower's answer that entries do not fit: all up to `seq` may.
    pub(super) fn on_misfit(&mut self, id: MemberId, term: Term, seq: SeqNo, fx: &mut Fx) {
        let (last, now, own) = (self.log.last().seq, self.now.mono, self.term);
        let Some(reign) = self.reign() else { return };
        let Some(progress) = reign.progress.get_mut(&id) else { return };
        if term != own {
            self.drop_it("a question of another term", fx);
            return;
        }
        progress.heard = now;
        progress.restart(seq.min(last));
        progress.is_behind = true;
    }

    pub(super) fn on_catchup_req(
        &mut self,
        id: MemberId,
        link: LinkId,
        ask: CatchupReq,
        fx: &mut Fx,
    ) {
        if ask.tail {
            self.donate(id, link, ask, fx);
        } else if !self.is_rewound(id, link, ask, fx) {
            self.on_misfit(id, ask.term, ask.last_seq, fx);
        }
    }

    /// True if a member's log ends before an entry that it has acknowledged in this term (R13):
    /// the log was cut, or restored from a copy. The member is told; a majority without it must
    /// not count it.
    fn is_rewound(&mut self, id: MemberId, link: LinkId, ask: CatchupReq, fx: &mut Fx) -> bool {
        let Duty::Lead(reign) = &self.duty else { return false };
        let Some(progress) = reign.progress.get(&id) else { return false };
        // Of that key: a new machine may have the id of one that was removed.
        let before = reign.acknowledged.get(&progress.key).copied().unwrap_or(SeqNo(0));
        let had = progress.matched.max(before);
        if ask.term != self.term || ask.last_seq >= had || !self.config.keeps(Rule::Rewound) {
            return false;
        }
        self.drop_it("a log that ends before what its member has acknowledged", fx);
        let reason = format!(
            "the log of {id} ends at seq {}, and it had acknowledged seq {}: it was cut, or \
             restored from a copy, and must not vote again. Have another member remove it (peer \
             chat remove {}), then start it anew with a fresh --data and --log-dir",
            ask.last_seq.0, had.0, id.0
        );
        self.refuse(link, NackCode::Rewound, &reason, fx);
        true
    }

    /// Sends each follower the entries that it has not got, as far as bounds allow; followers at
    /// one place get one message.
    pub(super) fn flush(&mut self, fx: &mut Fx) {
        loop {
            let last = self.log.last().seq;
            let flights = self.config.batches_in_flight;
            let Some(reign) = self.reign() else { return };
            let mut groups: BTreeMap<(SeqNo, bool), Vec<MemberId>> = BTreeMap::new();
            for (id, it) in &reign.progress {
                let has_room = it.in_flight.len() < flights && !it.is_loading;
                if has_room && (it.next <= last || !it.is_probed) {
                    groups.entry((it.next, it.is_behind)).or_default().push(*id);
                }
            }
            if groups.is_empty() {
                break;
            }
            for ((next, is_behind), ids) in groups {
                self.send_batch(next, is_behind, &ids, fx);
            }
        }
        self.tell_commit(fx);
    }

    fn send_batch(&mut self, next: SeqNo, is_behind: bool, ids: &[MemberId], fx: &mut Fx) {
        let prev_seq = SeqNo(next.0 - 1);
        let at_hand = self.log.slice(next, &self.config).zip(self.log.term_at(prev_seq));
        let Some((entries, prev_term)) = at_hand else {
            let bytes_max = self.config.batch_bytes;
            let Some(reign) = self.reign() else { return };
            for id in ids {
                let Some(progress) = reign.progress.get_mut(id) else { continue };
                progress.is_loading = true;
                fx.extra(ExtraEffect::Load { link: progress.link, from: next, bytes_max });
            }
            return;
        };
        self.send_entries(prev_seq, prev_term, entries, is_behind, ids, fx);
    }

    fn send_entries(
        &mut self,
        prev_seq: SeqNo,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        is_behind: bool,
        ids: &[MemberId],
        fx: &mut Fx,
    ) {
        let (last, commit) = (self.log.last().seq, self.log.commit());
        let end = entries.last().map_or(prev_seq, |it| it.seq_no);
        let (sender_id, term) = (self.me.id, self.term);
        let msg = SeqChat { sender_id, term, prev_seq, prev_term, commit, entries };
        let Some(reign) = self.reign() else { return };
        let mut links = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(it) = reign.progress.get_mut(id) else { continue };
            it.next = end.next();
            it.is_probed = true;
            it.told = commit;
            if end > prev_seq {
                it.in_flight.push_back(end);
            }
            if end == last {
                it.is_behind = false;
            }
            links.push(it.link);
        }
        let msg = if is_behind { Message::CatchupResp(msg) } else { Message::SeqChat(msg) };
        fx.send_all(links, msg);
    }

    /// Takes old entries that were read from disk, for a follower or for a candidate.
    pub(super) fn on_loaded(
        &mut self,
        link: LinkId,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        fx: &mut Fx,
    ) {
        if let Duty::Lead(reign) = &mut self.duty {
            let found = reign.progress.iter_mut().find(|(_, it)| it.link == link);
            let Some((id, progress)) = found else { return };
            let id = *id;
            progress.is_loading = false;
            let Some(first) = entries.first().map(|it| it.seq_no) else { return };
            if first != progress.next {
                return;
            }
            let is_behind = progress.is_behind;
            let prev_seq = SeqNo(first.0 - 1);
            self.send_entries(prev_seq, prev_term, entries, is_behind, &[id], fx);
            return;
        }
        self.on_donation_loaded(link, prev_term, entries, fx);
    }

    /// Tells the commit to the followers that have not been told yet.
    pub(super) fn tell_commit(&mut self, fx: &mut Fx) {
        let (commit, now) = (self.log.commit(), self.now.mono);
        let (msg, pause) = (self.heartbeat(), self.config.commit_pause);
        let Some(reign) = self.reign() else { return };
        if reign.progress.values().all(|it| it.told >= commit) {
            return;
        }
        // While there are many entries, the next ones carry the commit.
        let due = reign.told_at.map(|it| it.after(pause)).filter(|due| now < *due);
        if let Some(due) = due {
            fx.set_timer(Timer::Commit, due.since(now));
            return;
        }
        reign.told_at = Some(now);
        let behind = reign.progress.values_mut().filter(|it| it.told < commit);
        let mut links = Vec::new();
        for progress in behind {
            progress.told = commit;
            links.push(progress.link);
        }
        if let (Some(msg), false) = (msg, links.is_empty()) {
            fx.send_all(links, msg);
        }
    }
}
