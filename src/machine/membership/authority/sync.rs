//! Anti-entropy between seeds: a seed gets the entries that it has missed from the others (M4).
//!
//! Registries are compared by one number; where it differs, by one number a bucket, and buckets
//! that differ are exchanged whole. Every entry is verified as if it had come as a commit, so a
//! lying seed can add nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Authority, Event, Fx, Record, Timer, pages};
use crate::machine::LinkId;
use crate::machine::membership::registry::{BUCKETS, Merged};
use crate::machine::session::RejectReason;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{Leave, ProposalKind, Removal, Vote};
use crate::model::{Now, SeedId};
use crate::proto::membership::{SeedDigest, SeedSyncReq, SeedSyncResp};

/// Number of entries in one message: with certificates of seven votes and their evidence well below
/// the limit of a line.
const ENTRIES_MAX: usize = 32;

/// Number of findings that travel with a removal between registries; the votes alone decide.
const EVIDENCE_MAX: usize = 8;

impl Authority {
    pub(super) fn send_digest(&self, link: LinkId, fx: &mut Fx) {
        fx.send(link, self.digest(true));
    }

    pub(super) fn on_digest_timer(&mut self, now: Now, fx: &mut Fx) {
        fx.set_timer(Timer::Digest, self.config.digest_interval);
        self.forget_the_old(now, fx);
        self.forget_old_votes(now, fx);
        self.forget_old_orders(now, fx);
        self.send_to_seeds(&self.digest(false).into(), None, fx);
        self.hint_links(fx);
        self.seek_isolated(now, fx);
    }

    /// Forgets the tombstones that have looked old for a while, measured by this seed's own
    /// patience: to a clock that is days ahead each of them is old, and the other seeds may
    /// not have it yet. They would never learn of it, and keep alive a member that this seed
    /// knows as ended.
    fn forget_the_old(&mut self, now: Now, fx: &mut Fx) {
        let keep = self.config.tombstone_ttl;
        let mut old = BTreeMap::new();
        for life in self.registry.old(now.wall, keep) {
            let since = *self.old.get(&life).unwrap_or(&now.mono);
            if now.mono.since(since) < keep / 24 {
                old.insert(life, since);
            } else {
                let (endpoint, incarnation) = life;
                self.registry.raise_floor(endpoint, incarnation);
                fx.persist(Record::Floor { endpoint, incarnation });
            }
        }
        self.old = old;
    }

    /// Takes the digest of another seed's registry.
    pub fn on_seed_digest(&mut self, link: LinkId, digest: &SeedDigest, fx: &mut Fx) {
        let Some(seed) = self.seed_of(link) else { return };
        let own = self.detailed_digest(false);
        if digest.buckets.is_empty() && digest.root != own.root {
            // Both sides learn which buckets differ, and each asks for the entries that it lacks.
            return fx.send(link, SeedDigest { answer: true, ..own });
        }
        if digest.answer {
            let is_brief = digest.buckets.is_empty();
            fx.send(link, if is_brief { self.digest(false) } else { own.clone() });
        }
        if !digest.buckets.is_empty() && digest.buckets.len() != BUCKETS {
            let reason = format!("a digest has {BUCKETS} buckets or none");
            return self.refuse(link, RejectReason::Forged, reason, fx);
        }
        let different: BTreeSet<u8> = own
            .buckets
            .iter()
            .zip(&digest.buckets)
            .enumerate()
            .filter(|(_, (own, other))| own != other)
            .filter_map(|(number, _)| u8::try_from(number).ok())
            .collect();
        if different.is_empty() {
            self.syncing.remove(&seed);
            self.compared_with(seed, fx);
        } else if self.syncing.insert(seed, different.clone()).is_none() {
            fx.send(link, SeedSyncReq { buckets: different, after: None });
        }
    }

    /// Sends another seed a page of this registry.
    pub fn on_seed_sync_req(&self, link: LinkId, request: &SeedSyncReq, fx: &mut Fx) {
        let (buckets, after) = (&request.buckets, request.after);
        let mut entries = self.registry.in_buckets(buckets, after).peekable();
        let mut bans = self.registry.bans_in_buckets(buckets, after).peekable();
        let (mut page, mut room) = (SeedSyncResp::default(), pages::ROOM);
        loop {
            // By endpoint, so that the last one on a page says where the next begins.
            let first = entries.peek().map(|entry| entry.subject.endpoint);
            let ends = first.into_iter().chain(bans.peek().map(|ban| ban.endpoint));
            let Some(endpoint) = ends.min() else { break };
            let entry = entries.next_if(|entry| entry.subject.endpoint == endpoint);
            let ban = bans.next_if(|ban| ban.endpoint == endpoint);
            let is_told = |it: &&Arc<Removal>| page.removals.iter().any(|k| k.lives == it.lives);
            let removal = entry.and_then(|entry| entry.removal.as_ref()).filter(|it| !is_told(it));
            let removal = removal.map(|it| it.with_evidence(EVIDENCE_MAX));
            let length = entry.map_or(0, pages::of_entry)
                + removal.as_ref().map_or(0, pages::of_removal)
                + ban.map_or(0, pages::of_ban);
            let is_full = page.entries.len().max(page.bans.len()) == ENTRIES_MAX || length > room;
            if is_full && (!page.entries.is_empty() || !page.bans.is_empty()) {
                page.more = true;
                break;
            }
            room = room.saturating_sub(length);
            page.entries.extend(entry.map(RegistryEntry::unremoved));
            page.removals.extend(removal.map(Arc::new));
            page.bans.extend(ban.cloned());
        }
        fx.send(link, page);
    }

    /// Takes entries from another seed; each has to prove itself.
    pub fn on_seed_sync_resp(&mut self, now: Now, link: LinkId, resp: SeedSyncResp, fx: &mut Fx) {
        let Some(seed) = self.seed_of(link) else { return };
        let longest = resp.entries.len().max(resp.removals.len()).max(resp.bans.len());
        if longest > ENTRIES_MAX {
            let reason = format!("more than {ENTRIES_MAX} entries in one message");
            return self.refuse(link, RejectReason::TooMany, reason, fx);
        }
        let (mut news, mut is_judged, mut foreign) = (0, true, 0);
        let last_entry = resp.entries.last().map(|entry| entry.subject.endpoint);
        let after = last_entry.max(resp.bans.last().map(|ban| ban.endpoint));
        for ban in resp.bans {
            match self.book.verify_ban(&ban) {
                Ok(()) => news += usize::from(self.apply_ban(now, ban, Some(link), fx)),
                Err(_) if self.has_unknown_voters(&ban.votes) => is_judged = false,
                Err(_) if self.is_of_others(&ban.votes) => foreign += 1,
                Err(_) => self.refuse(link, RejectReason::Forged, "a ban without proof", fx),
            }
        }
        for removal in resp.removals {
            let is_unknown = self.has_unknown_voters(&removal.votes);
            let is_of_others = self.is_of_others(&removal.votes);
            match self.take_removal(now, Arc::unwrap_or_clone(removal), Some(link), fx) {
                Ok(is_new) => news += usize::from(is_new),
                Err(_) if is_unknown => is_judged = false,
                Err(_) if is_of_others => foreign += 1,
                Err(_) => self.refuse(link, RejectReason::Forged, "a removal without proof", fx),
            }
        }
        for entry in resp.entries {
            let votes = entry.admission.as_ref().map(|it| it.votes.as_slice());
            let is_unknown = votes.is_some_and(|votes| self.has_unknown_voters(votes));
            let is_of_others = match votes {
                Some(votes) => self.is_of_others(votes),
                // Its removal stands on the same page.
                None => foreign > 0,
            };
            match self.verified(now, entry) {
                Some(entry) => {
                    news += usize::from(self.apply(now, entry, Some(link), fx) != Merged::Nothing);
                }
                // Voted on by seeds whose keys are not known here yet: no offense, no knowledge.
                None if is_unknown => is_judged = false,
                None if is_of_others => foreign += 1,
                None => self.refuse(link, RejectReason::Forged, "an entry without proof", fx),
            }
        }
        if news > 0 {
            fx.emit(Event::Synced { seed, entries: news });
        }
        if foreign > 0 && self.foreign.insert(seed) {
            fx.emit(Event::Foreign { seed, entries: foreign });
        }
        match self.syncing.get(&seed) {
            // As long as something cannot be judged, the registries have not been compared. The
            // next digest, or the next key that becomes known, begins again.
            _ if !is_judged => _ = self.syncing.remove(&seed),
            Some(buckets) if resp.more && after.is_some() => {
                fx.send(link, SeedSyncReq { buckets: buckets.clone(), after });
            }
            Some(_) => {
                self.syncing.remove(&seed);
                self.compared_with(seed, fx);
            }
            None => {}
        }
    }

    /// True if these votes would prove something under another list of seeds: they may come from
    /// seeds that have been replaced since. Such votes prove nothing here, and no sender is
    /// blamed for them.
    fn is_of_others(&self, votes: &[Vote]) -> bool {
        let voters: BTreeSet<_> = votes.iter().map(|vote| vote.seed).collect();
        (self.book.quorum()..=self.book.len()).contains(&voters.len())
    }

    fn has_unknown_voters(&self, votes: &[Vote]) -> bool {
        let is_configured = |seed| self.book.endpoint(seed).is_some();
        let mut voters = votes.iter().map(|vote| vote.seed);
        voters.any(|seed| is_configured(seed) && self.book.key(seed).is_none())
    }

    /// Asks for comparison again, because a seed's key has become known: entries that could not be
    /// judged before may be judged now.
    pub(super) fn compare_again(&self, fx: &mut Fx) {
        if !self.ready {
            self.send_to_seeds(&self.digest(true).into(), None, fx);
        }
    }

    /// The parts of an entry that are proved; `None` if nothing is. For an entry that adds nothing
    /// it is proof enough that the life is known here already, perhaps only by its end.
    fn verified(&self, now: Now, entry: RegistryEntry) -> Option<RegistryEntry> {
        let subject = entry.subject;
        let known = self.registry.get(subject.endpoint).filter(|held| held.subject == subject);
        let admission = entry.admission.filter(|proof| {
            proof.subject() == subject
                && (known.is_some_and(|held| held.admission.is_some())
                    || self.book.verify_admission(proof).is_ok())
        });
        // A goodbye proves only that this key says so; that the key is the member's, the admission
        // beside it proves, or the entry that is known here already.
        let is_member = admission.is_some() || known.is_some();
        let leave = entry.leave.filter(|proof| {
            proof.subject() == subject
                && is_member
                && self.is_timely(now, proof)
                && proof.is_valid()
        });
        let any = admission.is_some() || leave.is_some() || known.is_some();
        any.then_some(RegistryEntry { subject, admission, removal: None, leave })
    }

    /// True if a goodbye of the past will be forgotten in its time. A goodbye that is about to be
    /// would be forgotten here before the other seeds have it, and they would disagree for good.
    fn is_timely(&self, now: Now, leave: &Leave) -> bool {
        let (ttl, skew) = (self.config.tombstone_ttl, self.config.evidence_skew);
        let bound = if leave.at > now.wall { skew } else { ttl.saturating_sub(skew).max(ttl / 2) };
        leave.at.distance(now.wall) <= bound
    }

    fn digest(&self, answer: bool) -> SeedDigest {
        SeedDigest { buckets: Vec::new(), ..self.detailed_digest(answer) }
    }

    fn detailed_digest(&self, answer: bool) -> SeedDigest {
        SeedDigest {
            entries: self.registry.entries().count() as u64,
            root: format!("{:016x}", self.registry.root()),
            buckets: self.registry.buckets().iter().map(|it| format!("{it:016x}")).collect(),
            answer,
        }
    }

    fn compared_with(&mut self, seed: SeedId, fx: &mut Fx) {
        self.compared.insert(seed);
        if !self.ready && self.compared.len() + 1 >= self.book.quorum() {
            self.become_ready(fx);
        }
    }

    pub(super) fn become_ready(&mut self, fx: &mut Fx) {
        self.ready = true;
        fx.persist(Record::Ready);
        fx.emit(Event::Ready { members: self.registry.alive_count() });
    }

    pub(super) fn repeat_open_cases(&self, now: Now, link: LinkId, fx: &mut Fx) {
        self.repeat_admissions(link, fx);
        self.repeat_removals(now, link, fx);
        self.repeat_orders(link, fx);
    }

    /// Votes about lives that have ended for good need no memory: a request for one again would be
    /// refused as stale.
    fn forget_old_votes(&mut self, now: Now, fx: &mut Fx) {
        let keep = self.config.tombstone_ttl;
        self.cast_votes.retain(|(endpoint, incarnation, kind), cast_vote| {
            let is_current = self
                .registry
                .get(*endpoint)
                .is_some_and(|held| held.subject.incarnation <= *incarnation);
            let is_recent = cast_vote.vote.at.distance(now.wall) < keep;
            let is_kept = *kind == ProposalKind::Ban || is_current || is_recent;
            if !is_kept {
                let (endpoint, incarnation, kind) = (*endpoint, *incarnation, *kind);
                fx.persist(Record::Forgot { endpoint, incarnation, kind });
            }
            is_kept
        });
    }
}
