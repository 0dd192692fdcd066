//! State of a leader in its term, and the rule by which entries become final (R4, R8).

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::{Config, Rule};
use super::progress::Progress;
use super::window::LogWindow;
use crate::machine::LinkId;
use crate::machine::quorum::majority;
use crate::model::{PublicKey, Time};
use crate::proto::chat::entry::{MemberId, Membership, SeqNo, Term};

/// State of a leader that hands over.
#[derive(Debug)]
struct Handover {
    target: MemberId,
    is_told: bool,
}

/// State of a leader in its term.
#[derive(Debug)]
pub(super) struct LeaderState {
    /// Number of its first entry; a predecessor's entries are not final by themselves before it is.
    opening: SeqNo,
    promises: Vec<MemberId>,
    progress: BTreeMap<MemberId, Progress>,
    handover: Option<Handover>,
    /// Last entries that the members of these keys had acknowledged when their connections ended.
    acknowledged: BTreeMap<PublicKey, SeqNo>,
    /// Time at which the term began, for members not heard yet.
    since: Time,
    /// Time at which the commit was last told by itself.
    told_at: Option<Time>,
}

impl LeaderState {
    pub(super) const fn new(opening: SeqNo, promises: Vec<MemberId>, since: Time) -> Self {
        Self {
            opening,
            promises,
            progress: BTreeMap::new(),
            handover: None,
            acknowledged: BTreeMap::new(),
            since,
            told_at: None,
        }
    }

    /// Members whose promises the leader holds.
    pub(super) fn promises(&self) -> &[MemberId] {
        &self.promises
    }

    /// True if the leader's first entry is final.
    pub(super) fn has_opened(&self, commit: SeqNo) -> bool {
        commit >= self.opening
    }

    /// Begins with a follower whose first entry to get is `next`.
    pub(super) fn link(&mut self, id: MemberId, link: LinkId, key: PublicKey, next: SeqNo) {
        let old = self.progress.remove(&id);
        let heard = old.as_ref().map_or(self.since, Progress::heard);
        if let Some(old) = old {
            self.acknowledged.insert(old.key(), old.matched());
        }
        // Another process may have come: it tells itself how far its disk has the log.
        self.progress.insert(id, Progress::new(link, key, next, heard));
    }

    /// Ends with a follower; its acknowledgements are remembered (R13).
    pub(super) fn unlink(&mut self, id: MemberId) {
        if let Some(gone) = self.progress.remove(&id) {
            self.acknowledged.insert(gone.key(), gone.matched());
        }
    }

    /// Forgets a follower that was removed from the group.
    pub(super) fn forget(&mut self, id: MemberId) {
        self.progress.remove(&id);
    }

    pub(super) fn follower(&mut self, id: MemberId) -> Option<&mut Progress> {
        self.progress.get_mut(&id)
    }

    pub(super) fn followers(&self) -> impl Iterator<Item = (MemberId, &Progress)> {
        self.progress.iter().map(|(id, it)| (*id, it))
    }

    pub(super) fn followers_mut(&mut self) -> impl Iterator<Item = (MemberId, &mut Progress)> {
        self.progress.iter_mut().map(|(id, it)| (*id, it))
    }

    /// Number up to which a follower's disk has the log, if the follower is linked.
    pub(super) fn matched(&self, id: MemberId) -> Option<SeqNo> {
        self.progress.get(&id).map(Progress::matched)
    }

    /// The last entry that a linked follower has ever acknowledged in this term (R13): of that key,
    /// as a new machine may have the id of one that was removed.
    pub(super) fn ever_acknowledged(&self, id: MemberId) -> Option<SeqNo> {
        let progress = self.progress.get(&id)?;
        let before = self.acknowledged.get(&progress.key()).copied().unwrap_or(SeqNo(0));
        Some(progress.matched().max(before))
    }

    /// Number of those of `group` that this leader has heard within `patience`, itself included.
    pub(super) fn heard(
        &self,
        group: &Membership,
        me: MemberId,
        now: Time,
        patience: Duration,
    ) -> usize {
        let is_recent = |it: &Progress| now.since(it.heard()) < patience;
        let is_heard = |id: MemberId| id == me || self.progress.get(&id).is_some_and(is_recent);
        group.members.iter().filter(|it| is_heard(it.id)).count()
    }

    /// Number up to which a majority of `group` has the log on disk, this leader up to `own.1`.
    fn stored_by_majority(&self, group: &Membership, own: (MemberId, SeqNo)) -> SeqNo {
        let stored_by = |id: MemberId| match id == own.0 {
            // R7: the leader counts itself no sooner than a follower.
            true => own.1,
            false => self.matched(id).unwrap_or(SeqNo(0)),
        };
        let mut all: Vec<_> = group.members.iter().map(|it| stored_by(it.id)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all[majority(all.len()) - 1]
    }

    /// Number up to which entries are final now, if that is news; `own` is this leader, and the
    /// number up to which its disk has the log.
    pub(super) fn committable(
        &self,
        log: &LogWindow,
        term: Term,
        own: (MemberId, SeqNo),
        config: &Config,
    ) -> Option<SeqNo> {
        let count = |group: &Membership| match config.keeps(Rule::Majority) {
            true => self.stored_by_majority(group, own),
            false => log.last().seq,
        };
        // R8: a majority has it on disk, so each later majority has a member that does (R2), and
        // its leader adopts it (R3).
        let now = count(log.membership());
        // C7: a leader that adds a member waits for a majority without that one, too: then every
        // survivor of the others knows the newcomer.
        let before = log.before_addition(term).map(|it| count(it));
        let bound = before.map_or(now, |it| it.min(now));
        // R4: entries of earlier terms become final only together with one of the own term. A
        // majority may have them, and yet a later leader may have a log that is better by its term.
        let is_own = bound >= self.opening || !config.keeps(Rule::OwnTerm);
        (bound > log.commit() && is_own).then_some(bound)
    }

    /// True if the commit may be told by itself: it was not for `pause`. Otherwise, the time left.
    pub(super) fn tell_due(&mut self, now: Time, pause: Duration) -> Result<(), Duration> {
        let due = self.told_at.map(|it| it.after(pause)).filter(|due| now < *due);
        if let Some(due) = due {
            return Err(due.since(now));
        }
        self.told_at = Some(now);
        Ok(())
    }

    pub(super) const fn hands_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Begins to hand over: no further message is numbered.
    pub(super) const fn begin_handover(&mut self, target: MemberId) {
        self.handover = Some(Handover { target, is_told: false });
    }

    /// The connection of the successor, once it has the whole log; then it is to be told.
    pub(super) fn tell_successor(&mut self, last: SeqNo) -> Option<LinkId> {
        let handover = self.handover.as_mut().filter(|it| !it.is_told)?;
        let progress = self.progress.get(&handover.target);
        let progress = progress.filter(|it| it.matched() == last)?;
        handover.is_told = true;
        Some(progress.link())
    }

    /// Goes on to lead. Returns true if the leader was handing over.
    pub(super) fn end_handover(&mut self) -> bool {
        self.handover.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::chat::tests::{entry, membership};
    use crate::model::KeyPair;
    use crate::proto::chat::entry::Body;

    const ME: MemberId = MemberId(1);

    /// A log of a membership and openings with these terms.
    fn log(members: &[u32], terms: &[u64]) -> LogWindow {
        let mut log = LogWindow::restore(None);
        log.append(entry(1, 1, membership(members)));
        for (term, seq) in terms.iter().zip(2..) {
            log.append(entry(seq, *term, Body::Opening));
        }
        log
    }

    /// A leader whose first entry is `opening`, and whose followers 2, 3… have acknowledged
    /// these numbers.
    fn leading(opening: u64, acknowledged: &[u64]) -> LeaderState {
        let mut leading = LeaderState::new(SeqNo(opening), vec![ME], Time::ZERO);
        for (seq, id) in acknowledged.iter().zip(2..) {
            let key = KeyPair::from_secret([id; 32]).public();
            leading.link(MemberId(id.into()), LinkId(id.into()), key, SeqNo(1));
            let follower = leading.follower(MemberId(id.into())).expect("linked");
            follower.on_ack(SeqNo(*seq), Time::ZERO);
        }
        leading
    }

    fn committable(leading: &LeaderState, log: &LogWindow, term: u64, stored: u64) -> Option<u64> {
        let bound = leading.committable(log, Term(term), (ME, SeqNo(stored)), &Config::default());
        bound.map(|it| it.0)
    }

    #[test]
    fn an_entry_is_final_when_a_majority_has_it_on_disk_the_leader_by_its_own_disk() {
        let log = log(&[1, 2, 3], &[1, 1, 1]);
        assert_eq!(committable(&leading(1, &[4, 0]), &log, 1, 4), Some(4));
        assert_eq!(committable(&leading(1, &[4, 0]), &log, 1, 3), Some(3), "its disk lags");
        assert_eq!(committable(&leading(1, &[4, 3]), &log, 1, 0), Some(3), "two others are enough");
        assert_eq!(committable(&leading(1, &[0, 0]), &log, 1, 4), None);
        assert_eq!(committable(&leading(1, &[4, 4, 4]), &log, 1, 4), Some(4), "4 is no member");
    }

    #[test]
    fn entries_of_earlier_terms_are_final_only_with_one_of_the_own_term() {
        let log = log(&[1, 2, 3], &[1, 2, 4]);
        let count = |stored| committable(&leading(4, &[stored, 0]), &log, 4, 4);
        assert_eq!([count(2), count(3), count(4)], [None, None, Some(4)]);
    }

    #[test]
    fn what_is_final_already_is_no_news() {
        let mut log = log(&[1, 2, 3], &[1, 1]);
        log.commit_to(SeqNo(2));
        assert_eq!(committable(&leading(1, &[2, 2]), &log, 1, 3), None);
        assert_eq!(committable(&leading(1, &[3, 2]), &log, 1, 3), Some(3));
    }

    #[test]
    fn an_addition_waits_for_a_majority_of_the_members_before_it_too() {
        let mut log = log(&[1, 2], &[]);
        log.commit_to(SeqNo(1));
        log.append(entry(2, 1, membership(&[1, 2, 3])));
        assert_eq!(committable(&leading(1, &[1, 2]), &log, 1, 2), None, "1 and 3, but not 2");
        assert_eq!(committable(&leading(1, &[2, 0]), &log, 1, 2), Some(2));
    }

    #[test]
    fn what_a_key_has_acknowledged_outlives_its_connection() {
        let mut leading = leading(1, &[4, 3]);
        let key = KeyPair::from_secret([2; 32]).public();
        leading.unlink(MemberId(2));
        assert_eq!(leading.ever_acknowledged(MemberId(2)), None, "it is not linked");
        leading.link(MemberId(2), LinkId(9), key, SeqNo(1));
        assert_eq!(leading.matched(MemberId(2)), Some(SeqNo(0)));
        assert_eq!(leading.ever_acknowledged(MemberId(2)), Some(SeqNo(4)));
        let other = KeyPair::from_secret([7; 32]).public();
        leading.link(MemberId(3), LinkId(8), other, SeqNo(1));
        assert_eq!(leading.ever_acknowledged(MemberId(3)), Some(SeqNo(0)), "another machine");
    }

    #[test]
    fn a_successor_is_told_once_and_only_when_it_has_the_whole_log() {
        let mut leading = leading(1, &[4, 3]);
        assert_eq!(leading.tell_successor(SeqNo(4)), None, "there is no handover");
        leading.begin_handover(MemberId(2));
        assert_eq!(leading.tell_successor(SeqNo(5)), None);
        assert_eq!(leading.tell_successor(SeqNo(4)), Some(LinkId(2)));
        assert_eq!(leading.tell_successor(SeqNo(4)), None);
        assert!(leading.end_handover() && !leading.end_handover());
    }
}
