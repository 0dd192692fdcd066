//! Anti-entropy between seeds: what one has missed, it gets from the others (M4).
//!
//! Registries are compared by one number a bucket; buckets that differ are exchanged whole. Every
//! entry is verified as if it had come as a commit, so a lying seed can add nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Authority, Event, Fx, Record, Timer};
use crate::model::{Endpoint, Now, SeedId};
use crate::protocol::LinkId;
use crate::protocol::membership::registry::{BUCKETS, Entry, Merged};
use crate::protocol::session::Cause;

/// Entries in one message: with certificates of seven votes and their evidence well below the
/// limit of a line.
const ENTRIES_MAX: usize = 32;

/// Bytes of JSON that the entries of one page may have, by an estimate from above: in a large
/// fleet of seeds certificates are long, and a page must fit a line.
const PAGE_BYTES_MAX: usize = 224 * 1_024;

/// Evidence that travels with a removal between registries; the votes alone decide.
pub(super) const EVIDENCE_MAX: usize = 8;

/// The state of a registry, in hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedDigest {
    /// How many entries there are, for people.
    pub entries: u64,
    /// One number a bucket, as 16 hexadecimal digits each.
    pub buckets: Vec<String>,
    /// Whether the other side should answer with its own.
    pub answer: bool,
}

/// A request for some buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedSyncReq {
    /// Which buckets, by number.
    pub buckets: BTreeSet<u8>,
    /// Go on after this endpoint; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Endpoint>,
}

/// Some entries of the asked-for buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedSyncResp {
    /// The entries with their proofs.
    pub entries: Vec<Entry>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl Authority {
    pub(super) fn send_digest(&self, link: LinkId, fx: &mut Fx) {
        fx.send(link, self.digest(true));
    }

    pub(super) fn on_digest_timer(&mut self, now: Now, fx: &mut Fx) {
        fx.set_timer(Timer::Digest, self.config.digest_interval);
        for (endpoint, incarnation) in self.registry.purge(now.wall, self.config.tombstone_ttl) {
            fx.persist(Record::Floor { endpoint, incarnation });
        }
        self.forget_old_votes(now);
        self.tell_seeds(&self.digest(false).into(), None, fx);
        self.hint_links(fx);
    }

    /// Another seed's registry in hashes.
    pub fn on_seed_digest(&mut self, link: LinkId, digest: &SeedDigest, fx: &mut Fx) {
        let Some(seed) = self.seed_of(link) else { return };
        if digest.answer {
            fx.send(link, self.digest(false));
        }
        let own = self.registry.buckets().iter().map(|it| format!("{it:016x}"));
        let different: BTreeSet<u8> = own
            .zip(&digest.buckets)
            .enumerate()
            .filter(|(_, (own, other))| own != *other)
            .filter_map(|(number, _)| u8::try_from(number).ok())
            .collect();
        if digest.buckets.len() != BUCKETS {
            let reason = format!("a digest has {BUCKETS} buckets");
            return self.refuse(link, Cause::Forged, reason, fx);
        }
        if different.is_empty() {
            self.syncing.remove(&seed);
            self.compared_with(seed, fx);
        } else if self.syncing.insert(seed, different.clone()).is_none() {
            fx.send(link, SeedSyncReq { buckets: different, after: None });
        }
    }

    /// Another seed wants a page of this registry.
    pub fn on_seed_sync_req(&self, link: LinkId, request: &SeedSyncReq, fx: &mut Fx) {
        let trimmed = |entry: &Entry| {
            let mut entry = entry.clone();
            if let Some(removal) = &mut entry.removal {
                removal.confirmations.truncate(EVIDENCE_MAX);
            }
            entry
        };
        let rest = self.registry.in_buckets(&request.buckets, request.after);
        let mut rest = rest.map(trimmed).peekable();
        let (mut entries, mut room) = (Vec::new(), PAGE_BYTES_MAX);
        while entries.len() < ENTRIES_MAX
            && let Some(entry) = rest.next_if(|entry| weight(entry) <= room)
        {
            room -= weight(&entry);
            entries.push(entry);
        }
        let more = rest.peek().is_some();
        fx.send(link, SeedSyncResp { entries, more });
    }

    /// Entries came; each has to prove itself.
    pub fn on_seed_sync_resp(&mut self, now: Now, link: LinkId, resp: SeedSyncResp, fx: &mut Fx) {
        let Some(seed) = self.seed_of(link) else { return };
        if resp.entries.len() > ENTRIES_MAX {
            let reason = format!("more than {ENTRIES_MAX} entries in one message");
            return self.refuse(link, Cause::TooMany, reason, fx);
        }
        let (mut news, mut is_judged) = (0, true);
        let after = resp.entries.last().map(|entry| entry.subject.endpoint);
        for entry in resp.entries {
            let is_unknown = self.has_unknown_voters(&entry);
            match self.verified(entry) {
                Some(entry) => {
                    news += usize::from(self.apply(now, entry, Some(link), fx) != Merged::Nothing);
                }
                // Voted on by seeds whose keys are not known here yet: no offense, no knowledge.
                None if is_unknown => is_judged = false,
                None => self.refuse(link, Cause::Forged, "an entry without proof", fx),
            }
        }
        if news > 0 {
            fx.emit(Event::Synced { seed, entries: news });
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

    fn has_unknown_voters(&self, entry: &Entry) -> bool {
        let admission = entry.admission.iter().flat_map(|proof| &proof.votes);
        let removal = entry.removal.iter().flat_map(|proof| &proof.votes);
        let is_configured = |seed| self.book.endpoint(seed).is_some();
        let mut voters = admission.chain(removal).map(|vote| vote.seed);
        voters.any(|seed| is_configured(seed) && self.book.key(seed).is_none())
    }

    /// A seed's key has become known: what could not be judged before may be now.
    pub(super) fn compare_again(&self, fx: &mut Fx) {
        if !self.ready {
            self.tell_seeds(&self.digest(true).into(), None, fx);
        }
    }

    /// The parts of an entry that are proved; `None` if nothing is, or they contradict.
    fn verified(&self, entry: Entry) -> Option<Entry> {
        let subject = entry.subject;
        let known = self.registry.get(subject.endpoint).filter(|held| held.subject == subject);
        let has = |part: fn(&Entry) -> bool| known.is_some_and(part);
        let admission = entry.admission.filter(|proof| {
            proof.subject() == subject
                && (has(|held| held.admission.is_some())
                    || self.book.verify(&proof.proposal(), &proof.votes).is_ok())
        });
        let mut removal = entry.removal.filter(|proof| {
            proof.subject() == subject
                && (has(|held| held.removal.is_some())
                    || self.book.verify(&proof.proposal(), &proof.votes).is_ok())
        });
        if let Some(removal) = &mut removal {
            removal.confirmations.truncate(EVIDENCE_MAX);
        }
        // A goodbye proves only that this key says so; that the key is the member's, the
        // admission beside it proves, or what is known here already.
        let is_member = admission.is_some() || known.is_some();
        let leave =
            entry.leave.filter(|proof| proof.subject() == subject && is_member && proof.is_valid());
        let any = admission.is_some() || removal.is_some() || leave.is_some();
        any.then_some(Entry { subject, admission, removal, leave })
    }

    fn digest(&self, answer: bool) -> SeedDigest {
        SeedDigest {
            entries: self.registry.entries().count() as u64,
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

    pub(super) fn repeat_open_cases(&self, link: LinkId, fx: &mut Fx) {
        self.repeat_admissions(link, fx);
        self.repeat_removals(link, fx);
    }

    /// Votes about lives that have ended for good need no memory: whoever asked for one again
    /// would be refused as stale.
    fn forget_old_votes(&mut self, now: Now) {
        let keep = self.config.tombstone_ttl;
        self.given.retain(|(endpoint, incarnation, _), (_, vote)| {
            let is_current = self
                .registry
                .get(*endpoint)
                .is_some_and(|held| held.subject.incarnation <= *incarnation);
            is_current || vote.at.distance(now.wall) < keep
        });
    }
}

/// How many bytes of JSON an entry has at most.
fn weight(entry: &Entry) -> usize {
    const SUBJECT: usize = 256;
    const VOTE: usize = 200;
    const FINDING: usize = 460;
    let admission = entry.admission.as_ref().map_or(0, |it| SUBJECT + VOTE * it.votes.len());
    let removal = entry
        .removal
        .as_ref()
        .map_or(0, |it| SUBJECT + VOTE * it.votes.len() + FINDING * it.confirmations.len());
    let leave = entry.leave.map_or(0, |_| FINDING);
    SUBJECT + admission + removal + leave
}
