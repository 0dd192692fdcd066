//! Replication: bringing entries to the followers in batches, several on their way, each from the
//! follower's own place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{Config, Rule};
use super::event::{ExtraEffect, Timer};
use super::reign::LeaderState;
use super::replica::{Fx, Replica};
use super::window::LogWindow;
use crate::machine::LinkId;
use crate::model::Time;
use crate::proto::chat::entry::{Entry, MemberId, SeqNo, Term};
use crate::proto::chat::message::{
    CatchupReq, LeaderHeartbeat, Message, NackCode, SeqAck, SeqChat,
};

/// The parts of a leader that bring its log to the followers.
pub(super) struct Replication<'a> {
    config: &'a Config,
    log: &'a LogWindow,
    leading: &'a mut LeaderState,
    me: MemberId,
    term: Term,
    now: Time,
}

impl Replication<'_> {
    /// Takes an acknowledgement of a linked follower. Returns false if it is one of something else.
    fn on_ack(&mut self, id: MemberId, ack: SeqAck) -> Option<bool> {
        let progress = self.leading.follower(id)?;
        // R5: another leader of an earlier term may have had other entries at these places.
        let is_fenced = self.config.keeps(Rule::Fence);
        if ack.last_seq > self.log.last().seq || (ack.term != self.term && is_fenced) {
            return Some(false);
        }
        progress.on_ack(ack.last_seq, self.now);
        Some(true)
    }

    /// Takes a follower's answer that entries do not fit. Returns false if it is of another term.
    fn on_misfit(&mut self, id: MemberId, term: Term, seq: SeqNo) -> bool {
        let last = self.log.last().seq;
        let Some(progress) = self.leading.follower(id) else { return true };
        if term == self.term {
            progress.on_misfit(seq.min(last), self.now);
        }
        term == self.term
    }

    /// Sends a heartbeat to all followers, and looks for those that make no progress.
    pub(super) fn beat(&mut self, fx: &mut Fx) {
        let (last, commit) = (self.log.last().seq, self.log.commit());
        for (_, progress) in self.leading.followers_mut() {
            progress.look_for_stall(last);
            progress.tell(commit);
        }
        let links = self.leading.followers().map(|(_, it)| it.link()).collect();
        self.send_heartbeat(links, fx);
    }

    fn send_heartbeat(&self, links: Vec<LinkId>, fx: &mut Fx) {
        let heartbeat = heartbeat(self.me, self.term, self.log);
        if let (Some(msg), false) = (heartbeat, links.is_empty()) {
            fx.send_all(links, msg);
        }
    }

    /// Sends each follower the entries that it has not got, as far as bounds allow; followers at
    /// one place get one message.
    fn flush(&mut self, fx: &mut Fx) {
        let (last, flights) = (self.log.last().seq, self.config.batches_in_flight);
        loop {
            let mut groups: BTreeMap<(SeqNo, bool), Vec<MemberId>> = BTreeMap::new();
            for (id, it) in self.leading.followers().filter(|(_, it)| it.wants(last, flights)) {
                groups.entry((it.next(), it.is_behind())).or_default().push(id);
            }
            if groups.is_empty() {
                break;
            }
            for ((next, is_behind), ids) in groups {
                self.send_batch(next, is_behind, &ids, fx);
            }
        }
        self.send_commit(fx);
    }

    fn send_batch(&mut self, next: SeqNo, is_behind: bool, ids: &[MemberId], fx: &mut Fx) {
        let prev_seq = SeqNo(next.0 - 1);
        let at_hand = self.log.slice(next, self.config).zip(self.log.term_at(prev_seq));
        let Some((entries, prev_term)) = at_hand else {
            let bytes_max = self.config.batch_bytes;
            for id in ids {
                let Some(progress) = self.leading.follower(*id) else { continue };
                progress.load();
                fx.extra(ExtraEffect::Load { link: progress.link(), from: next, bytes_max });
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
        let (sender_id, term) = (self.me, self.term);
        let msg = SeqChat { sender_id, term, prev_seq, prev_term, commit, entries };
        let mut links = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(it) = self.leading.follower(*id) else { continue };
            it.on_sent(prev_seq, end, last, commit);
            links.push(it.link());
        }
        let msg = if is_behind { Message::CatchupResp(msg) } else { Message::SeqChat(msg) };
        fx.send_all(links, msg);
    }

    /// Takes old entries that were read from disk for a follower.
    fn on_loaded(&mut self, link: LinkId, prev_term: Term, entries: Vec<Arc<Entry>>, fx: &mut Fx) {
        let found = self.leading.followers_mut().find(|(_, it)| it.link() == link);
        let Some((id, progress)) = found else { return };
        progress.on_loaded();
        let Some(first) = entries.first().map(|it| it.seq_no) else { return };
        // Meanwhile the follower may have answered that others fit.
        if first != progress.next() {
            return;
        }
        let is_behind = progress.is_behind();
        let prev_seq = SeqNo(first.0 - 1);
        self.send_entries(prev_seq, prev_term, entries, is_behind, &[id], fx);
    }

    /// Tells the commit to the followers that have not been told yet.
    fn send_commit(&mut self, fx: &mut Fx) {
        let commit = self.log.commit();
        if self.leading.followers().all(|(_, it)| it.told() >= commit) {
            return;
        }
        // While there are many entries, the next ones carry the commit.
        if let Err(left) = self.leading.tell_due(self.now, self.config.commit_pause) {
            fx.set_timer(Timer::Commit, left);
            return;
        }
        let mut links = Vec::new();
        for (_, progress) in self.leading.followers_mut().filter(|(_, it)| it.told() < commit) {
            progress.tell(commit);
            links.push(progress.link());
        }
        self.send_heartbeat(links, fx);
    }
}

/// The heartbeat of a leader, with its commit and the running hash there (C11).
fn heartbeat(sender_id: MemberId, term: Term, log: &LogWindow) -> Option<Message> {
    let commit = log.commit();
    let hash = log.chain_at(commit)?;
    Some(Message::Heartbeat(LeaderHeartbeat { sender_id, term, commit, hash }))
}

impl Replica {
    /// The parts that bring the log to the followers, if this member leads.
    pub(super) fn replication(&mut self) -> Option<Replication<'_>> {
        Some(Replication {
            config: &self.config,
            log: &self.log,
            leading: self.role_state.leading_mut()?,
            me: self.process.id(),
            term: self.vote.term(),
            now: self.process.now(),
        })
    }

    pub(super) fn heartbeat(&self) -> Option<Message> {
        heartbeat(self.process.id(), self.vote.term(), &self.log)
    }

    /// Begins to send to a member or learner that came within the leader's reach.
    pub(super) fn on_follower_linked(&mut self, id: MemberId, link: LinkId, fx: &mut Fx) {
        let next = self.log.last().seq.next();
        let msg = self.coordinator();
        let Some(key) = self.links.get(link).map(|it| it.member().key) else { return };
        let Some(leading) = self.role_state.leading_mut() else { return };
        leading.link(id, link, key, next);
        self.send(link, msg, fx);
    }

    pub(super) fn on_ack(&mut self, id: MemberId, ack: SeqAck, fx: &mut Fx) {
        match self.replication().and_then(|mut it| it.on_ack(id, ack)) {
            None => {}
            Some(false) => self.drop_it("an acknowledgement of something else", fx),
            Some(true) => {
                self.advance_commit(fx);
                self.hand_over_if_ready(fx);
            }
        }
    }

    /// Takes a follower's answer that entries do not fit: all up to `seq` may.
    pub(super) fn on_misfit(&mut self, id: MemberId, term: Term, seq: SeqNo, fx: &mut Fx) {
        let Some(mut replication) = self.replication() else { return };
        if !replication.on_misfit(id, term, seq) {
            self.drop_it("a question of another term", fx);
        }
    }

    pub(super) fn on_catchup_req(
        &mut self,
        id: MemberId,
        link: LinkId,
        ask: CatchupReq,
        fx: &mut Fx,
    ) {
        if ask.tail {
            self.send_log_tail(id, link, ask, fx);
        } else if !self.is_rewound(id, link, ask, fx) {
            self.on_misfit(id, ask.term, ask.last_seq, fx);
        }
    }

    /// True if a member's log ends before an entry that it has acknowledged in this term (R13):
    /// the log was cut, or restored from a copy. The member is told; a majority without it must
    /// not count it.
    fn is_rewound(&mut self, id: MemberId, link: LinkId, ask: CatchupReq, fx: &mut Fx) -> bool {
        let had = self.role_state.leading().and_then(|leading| leading.ever_acknowledged(id));
        let Some(had) = had else { return false };
        // Acknowledgements are of this term, so only its questions are compared with them.
        let is_of_now = ask.term == self.vote.term();
        if !is_of_now || ask.last_seq >= had || !self.config.keeps(Rule::Rewound) {
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

    pub(super) fn flush(&mut self, fx: &mut Fx) {
        if let Some(mut replication) = self.replication() {
            replication.flush(fx);
        }
    }

    pub(super) fn send_commit(&mut self, fx: &mut Fx) {
        if let Some(mut replication) = self.replication() {
            replication.send_commit(fx);
        }
    }

    /// Takes old entries that were read from disk, for a follower or for a candidate.
    pub(super) fn on_loaded(
        &mut self,
        link: LinkId,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        fx: &mut Fx,
    ) {
        match self.replication() {
            Some(mut replication) => replication.on_loaded(link, prev_term, entries, fx),
            None => self.on_tail_loaded(link, prev_term, entries, fx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::chat::replica::Effect;
    use crate::machine::chat::tests::{entry, membership};
    use crate::model::KeyPair;
    use crate::proto::chat::entry::Body;

    /// A log of `count` entries, of which none is final, and a leader with followers 2 and 3.
    fn parts(count: u64) -> (Config, LogWindow, LeaderState) {
        let mut log = LogWindow::restore(None);
        log.append(entry(1, 1, membership(&[1, 2, 3])));
        (2..=count).for_each(|seq| log.append(entry(seq, 1, Body::Opening)));
        let mut leading = LeaderState::new(SeqNo(1), vec![MemberId(1)], Time::ZERO);
        for id in [2, 3] {
            let key = KeyPair::from_secret([id; 32]).public();
            let next = log.last().seq.next();
            leading.link(MemberId(id.into()), LinkId(id.into()), key, next);
        }
        (Config { commit_pause: std::time::Duration::ZERO, ..Config::default() }, log, leading)
    }

    fn replication<'a>(
        (config, log, leading): &'a mut (Config, LogWindow, LeaderState),
    ) -> Replication<'a> {
        Replication { config, log, leading, me: MemberId(1), term: Term(1), now: Time::ZERO }
    }

    const fn ack(term: u64, last_seq: u64) -> SeqAck {
        SeqAck { sender_id: MemberId(2), term: Term(term), last_seq: SeqNo(last_seq) }
    }

    /// The batches that were sent: to these links, behind this entry, so many entries.
    fn batches(fx: &Fx) -> Vec<(Vec<u64>, u64, usize)> {
        let batch = |it: &Effect| {
            let Effect::SendAll { links, msg } = it else { return None };
            let (Message::SeqChat(it) | Message::CatchupResp(it)) = msg else { return None };
            Some((links.iter().map(|it| it.0).collect(), it.prev_seq.0, it.entries.len()))
        };
        fx.iter().filter_map(batch).collect()
    }

    #[test]
    fn followers_at_one_place_get_one_message_and_one_at_a_time() {
        let mut parts = parts(3);
        let mut fx = Fx::default();
        replication(&mut parts).flush(&mut fx);
        assert_eq!(batches(&fx), [(vec![2, 3], 3, 0)], "it tells whether the log fits");
        assert!(replication(&mut parts).on_misfit(MemberId(3), Term(1), SeqNo(1)));
        let mut fx = Fx::default();
        replication(&mut parts).flush(&mut fx);
        assert_eq!(batches(&fx), [(vec![3], 1, 2)], "from its own place");
        let mut fx = Fx::default();
        replication(&mut parts).flush(&mut fx);
        assert_eq!(batches(&fx), [], "an answer must come first");
    }

    #[test]
    fn an_answer_of_another_term_or_beyond_the_log_is_none() {
        let mut parts = parts(3);
        let mut it = replication(&mut parts);
        let answers = [ack(1, 4), ack(2, 3), ack(1, 3)].map(|ack| it.on_ack(MemberId(2), ack));
        assert_eq!(answers, [Some(false), Some(false), Some(true)]);
        assert_eq!(it.on_ack(MemberId(9), ack(1, 3)), None, "it is not linked");
        assert!(!it.on_misfit(MemberId(2), Term(2), SeqNo(1)));
        assert_eq!(parts.2.matched(MemberId(2)), Some(SeqNo(3)));
    }

    #[test]
    fn what_is_no_longer_in_memory_is_read_first() {
        let mut parts = parts(3);
        parts.1.commit_to(SeqNo(3));
        parts.1.trim(&Config { window_entries: 0, ..Config::default() });
        let mut it = replication(&mut parts);
        it.on_misfit(MemberId(2), Term(1), SeqNo(1));
        let mut fx = Fx::default();
        it.flush(&mut fx);
        let load = |it: &Effect| {
            matches!(it, Effect::Extra(ExtraEffect::Load { link, from, .. })
            if (*link, *from) == (LinkId(2), SeqNo(2)))
        };
        assert!(fx.iter().any(load), "{fx:?}");
        let read = vec![entry(2, 1, Body::Opening), entry(3, 1, Body::Opening)];
        let mut fx = Fx::default();
        it.on_loaded(LinkId(2), Term(1), read.clone(), &mut fx);
        assert_eq!(batches(&fx), [(vec![2], 1, 2)]);
        let mut fx = Fx::default();
        it.on_loaded(LinkId(2), Term(1), read, &mut fx);
        assert_eq!(batches(&fx), [], "the follower is further by now");
    }

    #[test]
    fn the_commit_is_told_by_itself_once() {
        let mut parts = parts(3);
        let mut fx = Fx::default();
        replication(&mut parts).flush(&mut fx);
        parts.1.commit_to(SeqNo(2));
        for expected in [1, 0] {
            let mut fx = Fx::default();
            replication(&mut parts).send_commit(&mut fx);
            let is_told = |it: &&Effect| {
                matches!(it, Effect::SendAll { msg: Message::Heartbeat(it), .. }
                if it.commit == SeqNo(2))
            };
            assert_eq!(fx.iter().filter(is_told).count(), expected);
        }
    }
}
