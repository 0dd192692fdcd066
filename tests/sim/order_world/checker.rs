//! What must hold at every step, in all lives of all honest members. The checker trusts nobody's
//! word: it follows the certificates by itself.

#![allow(clippy::wildcard_enum_match_arm, reason = "a judge picks a few messages of many")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use folkmoot::machine::bft::{Config, Event};
use folkmoot::proto::bft::message::{Message, PrePrepare, SlotContent};
use folkmoot::proto::bft::view::{NewView, ViewChange};
use folkmoot::proto::bft::{
    Bundle, Certificate, ClaimKind, Committee, ContentDigest, EpochNo, OrderId, SlotHeader, SlotNo,
    ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::{Body, ChatText, Entry, MemberId, MsgId, Origin, SeqNo};

use super::Tally;
use crate::services::order::Told;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One slot, two headers; or one place, two messages.
    Diverged,
    /// A slot is called final that no quorum has committed.
    Unproved,
    /// A slot is final that does not follow from those before it.
    Broken,
    /// An honest author's name bears what it has not said.
    Invented,
    /// A message stands twice, or an author's messages out of their order.
    Doubled,
    /// Delivered with a gap, or twice in a life.
    Gap,
    /// A view begins below what is final.
    Rewound,
    /// An honest member is shown to have lied.
    Accused,
    /// An honest member has signed two things that exclude each other, in whatever lives.
    Contradicted,
    /// An honest member votes for what its view's leader has not proposed.
    Usurped,
    /// A member has stopped, or does not begin, for its log contradicts itself or the order.
    Stopped,
    /// A machine found itself in a state that cannot be.
    Assertion,
    /// More messages than the weather explains.
    Noise,
    /// A member keeps more of others than it may.
    Swollen,
    /// Quiet, and yet something does not become final.
    Stuck,
    /// More than the group bears are silent or without memory.
    Unsettled,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

/// A text that an honest member was asked to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    by: MemberId,
    /// Time, in microseconds.
    pub(crate) at: u64,
    number: u64,
}

/// Statements that an honest member has signed, in all its lives.
#[derive(Default)]
struct Signed {
    votes: BTreeMap<(VotePhase, EpochNo, ViewNo, SlotNo), ContentDigest>,
    /// Newest view that it has claimed to have entered.
    entered: (EpochNo, ViewNo),
    /// Newest view in which it has voted, or that it has entered.
    newest: Option<(EpochNo, ViewNo)>,
    /// The same before its last start: it votes in later views only (B9, B10).
    before: Option<(EpochNo, ViewNo)>,
    /// Newest COMMIT.
    commit: Option<VoteSubject>,
}

pub(crate) struct Checker {
    group: OrderId,
    config: Config,
    liars: BTreeSet<MemberId>,
    contents: BTreeMap<ContentDigest, Arc<SlotContent>>,
    /// Final slots, from the first.
    chain: Vec<(ContentDigest, SlotHeader)>,
    /// For each final slot the epoch and the lowest view in which it is known to be final.
    finals: BTreeMap<(EpochNo, SlotNo), ViewNo>,
    committees: Vec<Arc<Committee>>,
    /// First slot of each epoch.
    starts: Vec<SlotNo>,
    checked: BTreeSet<(ViewNo, ContentDigest)>,
    signed: BTreeMap<MemberId, Signed>,
    /// Headers that leaders have proposed, and bases of views.
    proposed: BTreeSet<(EpochNo, ViewNo, ContentDigest)>,
    /// Members that may contradict themselves: nobody has said that their disks are old.
    pub(crate) forgetful: BTreeSet<MemberId>,
    /// Messages by their places, from 1.
    pub(crate) order: Vec<ChatText>,
    last_of: BTreeMap<Origin, u64>,
    placed: BTreeMap<Arc<str>, SeqNo>,
    last_said: BTreeMap<Origin, u64>,
    pub(crate) said: BTreeMap<Arc<str>, Said>,
    /// Deliveries ahead of the known certificates.
    ahead: Vec<(MemberId, Arc<Entry>)>,
    pub(crate) violation: Option<Violation>,
}

impl Checker {
    pub(crate) fn new(
        (group, config): (OrderId, Config),
        founders: Arc<Committee>,
        liars: BTreeSet<MemberId>,
    ) -> Self {
        Self {
            group,
            config,
            liars,
            contents: BTreeMap::new(),
            chain: Vec::new(),
            finals: BTreeMap::new(),
            committees: vec![founders],
            starts: vec![SlotNo(1)],
            checked: BTreeSet::new(),
            signed: BTreeMap::new(),
            proposed: BTreeSet::new(),
            forgetful: BTreeSet::new(),
            order: Vec::new(),
            last_of: BTreeMap::new(),
            placed: BTreeMap::new(),
            last_said: BTreeMap::new(),
            said: BTreeMap::new(),
            ahead: Vec::new(),
            violation: None,
        }
    }

    pub(crate) fn fail(&mut self, kind: Kind, what: String) {
        self.violation.get_or_insert(Violation { kind, what });
    }

    /// The order's committee in the newest epoch that is known.
    pub(crate) fn committee(&self) -> &Committee {
        self.committees.last().expect("the first is always there")
    }

    /// The committees of all epochs that are known.
    pub(crate) fn committees(&self) -> &[Arc<Committee>] {
        &self.committees
    }

    /// Number of final slots.
    pub(crate) const fn slots(&self) -> usize {
        self.chain.len()
    }

    /// An honest member is asked to say this.
    pub(crate) fn on_said(&mut self, by: MemberId, text: &str, at: u64) {
        let number = self.said.len() as u64;
        self.said.insert(text.into(), Said { by, at, number });
    }

    pub(crate) fn place_of(&self, text: &str) -> Option<SeqNo> {
        self.placed.get(text).copied()
    }

    /// An honest member tells this, in order.
    pub(crate) fn heed(&mut self, id: MemberId, told: &Told, tally: &mut Tally) {
        let mut count = |what| *tally.entry(what).or_default() += 1;
        match told {
            Told::Started { place } => {
                count("start");
                let signed = self.signed.entry(id).or_default();
                signed.before = signed.newest;
                if place.0 > self.order.len() as u64 {
                    self.fail(Kind::Gap, format!("{id} believes {} final", place.0));
                }
            }
            Told::Unusable(reason) => self.fail(Kind::Stopped, format!("{id}: {reason}")),
            Told::Slot(content) => {
                let digest = self.config.digest_of(&self.group, &content.header);
                self.contents.entry(digest).or_insert_with(|| Arc::clone(content));
            }
            Told::Final(certificate) => self.on_final(id, certificate),
            Told::Delivered { before, entry } => self.on_delivered(id, *before, entry),
            Told::Began { by } => self.on_began(id, by),
            Told::Signed(msg) => self.on_signed(id, msg),
            Told::Proposed(it) => self.on_proposed(it),
            Told::Count(what) => count(what),
            Told::TooMuch(what) => self.fail(Kind::Swollen, format!("{id} keeps {what}")),
            Told::Order(event) => match event {
                Event::ViewBegan { .. } => count("view"),
                Event::Suspected { .. } => count("wish"),
                Event::Halted { .. } => count("halted"),
                Event::Hole { .. } => count("hole"),
                Event::EpochBegan { .. } => count("epoch"),
                Event::Dropped(why) => count(why),
                Event::Rejected { .. } => count("rejected"),
                Event::Equivocation(it) => {
                    count("evidence");
                    if !self.liars.contains(&it.member()) {
                        self.fail(Kind::Accused, format!("{id} shows {it:?}"));
                    }
                }
                Event::Stopped { reason } => {
                    self.fail(Kind::Stopped, format!("{id} stops: {reason}"));
                }
                Event::Resumed
                | Event::Pending(_)
                | Event::Proposed(_)
                | Event::Reached(_)
                | Event::Lost(_)
                | Event::Gone => {}
            },
        }
    }

    /// `node` calls a slot final.
    fn on_final(&mut self, node: MemberId, certificate: &Certificate) {
        let subject = certificate.subject;
        if !self.checked.insert((subject.view, subject.digest)) {
            return;
        }
        if certificate.phase != VotePhase::Commit {
            return self.fail(Kind::Unproved, format!("{node} shows {certificate:?} as final"));
        }
        // From the certificate back to what is known to be final.
        let mut way = Vec::new();
        let mut at = subject.digest;
        loop {
            let Some(content) = self.contents.get(&at) else {
                if way.is_empty() && self.is_known(subject.slot, at) {
                    break;
                }
                let what = format!("{node} has no content of {at} below {subject:?}");
                return self.fail(Kind::Unproved, what);
            };
            let slot = content.header.slot;
            if slot.0 <= self.chain.len() as u64 {
                if !self.is_known(slot, at) {
                    let known = &self.chain[slot.0 as usize - 1];
                    let what = format!("{node}: {:?}, but there was {known:?}", content.header);
                    return self.fail(Kind::Diverged, what);
                }
                break;
            }
            way.push(Arc::clone(content));
            at = content.header.parent;
            if slot == SlotNo(1) {
                break;
            }
        }
        // The committee may change on the way, so its members judge the end of each epoch.
        for content in way.into_iter().rev() {
            self.append(node, &content);
        }
        let epoch = usize::try_from(subject.epoch.0).unwrap_or(usize::MAX);
        let Some(committee) = self.committees.get(epoch).cloned() else {
            return self.fail(Kind::Unproved, format!("{node}: {subject:?} is of no epoch"));
        };
        if !certificate.is_valid(&self.group, &committee) {
            return self.fail(Kind::Unproved, format!("{node}: no quorum signed {certificate:?}"));
        }
        let view = self.finals.entry((subject.epoch, subject.slot)).or_insert(subject.view);
        *view = subject.view.min(*view);
        self.settle_deliveries();
    }

    fn is_known(&self, slot: SlotNo, digest: ContentDigest) -> bool {
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX).checked_sub(1);
        let known = at.and_then(|it| self.chain.get(it));
        known.is_some_and(|(it, _)| *it == digest)
    }

    /// The next final slot.
    fn append(&mut self, node: MemberId, content: &SlotContent) {
        let header = &content.header;
        let parent = self.chain.last().map_or(ContentDigest(self.group.0), |(it, _)| *it);
        let epoch = EpochNo(self.committees.len() as u64 - 1);
        let expected = (SlotNo(self.chain.len() as u64 + 1), parent, epoch);
        if (header.slot, header.parent, header.epoch) != expected
            || header.place.0 != self.order.len() as u64
        {
            let what = format!("{node}: {header:?} is not {expected:?} at {}", self.order.len());
            return self.fail(Kind::Broken, what);
        }
        self.chain.push((self.config.digest_of(&self.group, header), header.clone()));
        if header.bundles.len() != content.bundles.len() {
            return self.fail(Kind::Broken, format!("{node}: {content:?} lacks bundles"));
        }
        for (named, bundle) in header.bundles.iter().zip(&content.bundles) {
            let statement = bundle.statement();
            if statement.digest(&self.group) != named.digest || bundle.count() != named.count {
                return self.fail(Kind::Broken, format!("{node}: {bundle:?} is not {named:?}"));
            }
            let key = self.committee().key(bundle.author).copied();
            if !key.is_some_and(|key| bundle.is_valid(&self.group, &statement, &key)) {
                return self.fail(Kind::Invented, format!("{node}: nobody signed {bundle:?}"));
            }
            self.place(node, bundle, named.skip);
        }
        if let Some(change) = &content.change {
            let (epoch, slot) = (header.epoch, header.slot);
            let after = change.apply(&self.group, (epoch, slot), self.committee());
            let Some(after) = after.filter(|it| Some(it.digest()) == header.committee) else {
                return self.fail(Kind::Broken, format!("{node}: {change:?} is not valid"));
            };
            if header.change != Some(change.digest(&self.group)) || !header.bundles.is_empty() {
                return self.fail(Kind::Broken, format!("{node}: {header:?} for {change:?}"));
            }
            self.committees.push(Arc::new(after));
            self.starts.push(slot.next());
        }
    }

    fn place(&mut self, node: MemberId, bundle: &Bundle, skip: u64) {
        for index in usize::try_from(skip).unwrap_or(usize::MAX)..bundle.items.len() {
            let text = bundle.message(index).expect("it has so many");
            self.on_message(node, text);
        }
    }

    /// The message in the next place.
    fn on_message(&mut self, node: MemberId, text: ChatText) {
        let place = SeqNo(self.order.len() as u64 + 1);
        let MsgId { origin, number } = text.msg_id;
        let last = self.last_of.insert(origin, number).unwrap_or(0);
        if number != last + 1 {
            self.fail(Kind::Doubled, format!("{node}: {text:?} comes after number {last}"));
        }
        if !self.liars.contains(&origin.member) {
            let said = self.said.get(&text.payload).copied();
            let Some(said) = said.filter(|it| it.by == origin.member) else {
                let what = format!("{node}: {} has never said {text:?}", origin.member);
                return self.fail(Kind::Invented, what);
            };
            let before = self.last_said.insert(origin, said.number);
            if before.is_some_and(|it| it >= said.number) {
                self.fail(Kind::Doubled, format!("{node}: {text:?} was said earlier"));
            }
            if let Some(known) = self.placed.insert(Arc::clone(&text.payload), place) {
                let what = format!("{node}: {text:?} stands at {} and {}", known.0, place.0);
                self.fail(Kind::Doubled, what);
            }
        }
        self.order.push(text);
    }

    /// `node` delivers, after `before`.
    fn on_delivered(&mut self, node: MemberId, before: SeqNo, entry: &Arc<Entry>) {
        if entry.seq_no.0 != before.0 + 1 {
            let what = format!("{node} delivers {} after {}", entry.seq_no.0, before.0);
            return self.fail(Kind::Gap, what);
        }
        self.ahead.push((node, Arc::clone(entry)));
        self.settle_deliveries();
    }

    fn settle_deliveries(&mut self) {
        for (node, entry) in std::mem::take(&mut self.ahead) {
            let at = usize::try_from(entry.seq_no.0).expect("a short log") - 1;
            match (self.order.get(at), &entry.body) {
                (Some(known), Body::Chat(text)) if known == text => {}
                (Some(known), _) => {
                    let what = format!("{node} delivers {entry:?}, but there was {known:?}");
                    self.fail(Kind::Diverged, what);
                }
                (None, _) => self.ahead.push((node, entry)),
            }
        }
    }

    fn on_proposed(&mut self, it: &PrePrepare) {
        let epoch = it.header.epoch;
        let committee = usize::try_from(epoch.0).ok().and_then(|it| self.committees.get(it));
        if committee.is_some_and(|them| them.leader(epoch, it.view) == it.sender_id) {
            let digest = self.config.digest_of(&self.group, &it.header);
            self.proposed.insert((epoch, it.view, digest));
        }
    }

    /// An honest member has signed this.
    fn on_signed(&mut self, id: MemberId, msg: &Message) {
        match msg {
            Message::PrePrepare(it) => {
                if it.header.epoch.0 >= self.committees.len() as u64 {
                    let what = format!("{id} proposes {it:?}, but that epoch has not begun");
                    self.fail(Kind::Broken, what);
                }
                self.on_proposed(it);
                let digest = self.config.digest_of(&self.group, &it.header);
                self.on_vote(id, VotePhase::Prepare, it.vote(digest).subject);
            }
            Message::Prepare(it) => {
                let VoteSubject { epoch, view, digest, .. } = it.subject;
                if !self.proposed.contains(&(epoch, view, digest)) {
                    let what = format!("{id} votes for {it:?}, which no leader proposed");
                    self.fail(Kind::Usurped, what);
                }
                self.on_vote(id, VotePhase::Prepare, it.subject);
            }
            Message::Commit(it) => self.on_vote(id, VotePhase::Commit, it.subject),
            Message::ViewChange(it) => self.on_claim(id, it),
            Message::NewView(it) => self.on_began(id, std::slice::from_ref(it)),
            _ => {}
        }
    }

    fn on_vote(&mut self, id: MemberId, phase: VotePhase, subject: VoteSubject) {
        let VoteSubject { epoch, view, slot, digest } = subject;
        let signed = self.signed.entry(id).or_default();
        let known = *signed.votes.entry((phase, epoch, view, slot)).or_insert(digest);
        let (in_epoch, entered) = signed.entered;
        let is_late = in_epoch == epoch && view < entered && phase == VotePhase::Prepare;
        if phase == VotePhase::Commit {
            let time = |it: &VoteSubject| (it.epoch, it.view, it.slot);
            let is_newer = signed.commit.is_none_or(|it| time(&it) < time(&subject));
            signed.commit = if is_newer { Some(subject) } else { signed.commit };
        }
        let is_again = signed.before.is_some_and(|it| it.0 == epoch && view <= it.1);
        signed.newest = signed.newest.max(Some((epoch, view)));
        if (known != digest || is_late || is_again) && !self.forgetful.contains(&id) {
            let what = format!("{id} signs {phase:?} {subject:?} after {known} in {entered:?}");
            self.fail(Kind::Contradicted, what);
        }
    }

    fn on_claim(&mut self, id: MemberId, it: &ViewChange) {
        let signed = self.signed.entry(id).or_default();
        signed.entered = signed.entered.max((it.epoch, it.view));
        signed.newest = signed.newest.max(Some((it.epoch, it.view)));
        let hides = signed.commit.filter(|commit| {
            let least = (true, commit.view, commit.slot, ClaimKind::Prepare);
            commit.epoch == it.epoch && commit.view < it.view && it.signed.claim.rank() < least
        });
        if let Some(commit) = hides
            && !self.forgetful.contains(&id)
        {
            let what = format!("{id} claims {:?} after its COMMIT of {commit:?}", it.signed.claim);
            self.fail(Kind::Contradicted, what);
        }
    }

    /// A view has begun at `node`, by one of these.
    fn on_began(&mut self, node: MemberId, by: &[Arc<NewView>]) {
        for it in by {
            self.proposed.extend(it.base().map(|base| (it.epoch, it.view, base.digest)));
        }
        let is_below = |it: &Arc<NewView>| {
            let base = it.base()?;
            let finals = self
                .finals
                .iter()
                .filter(|((epoch, _), view)| *epoch == it.epoch && **view < it.view);
            let last = finals.map(|((_, slot), _)| *slot).max()?;
            let is_other = base.slot == last && !self.is_known(base.slot, base.digest);
            (base.slot < last || is_other).then_some(last)
        };
        if !by.is_empty()
            && let Some(last) = by.iter().map(is_below).collect::<Option<Vec<_>>>()
        {
            let what = format!("{node} begins by {by:?}, but {last:?} is final");
            self.fail(Kind::Rewound, what);
        }
    }

    /// The run is over: nothing was delivered that is not final.
    pub(crate) fn on_end(&mut self) {
        if let Some((node, entry)) = self.ahead.first() {
            let what = format!("{node} delivered {entry:?}, which is not final");
            self.fail(Kind::Unproved, what);
        }
    }

    /// Texts that are not final of those that were said before `at`.
    pub(crate) fn open_before(&self, at: u64) -> impl Iterator<Item = (&Arc<str>, &Said)> {
        let is_open = move |(text, said): &(&Arc<str>, &Said)| {
            said.at < at && !self.placed.contains_key(&***text)
        };
        self.said.iter().filter(is_open)
    }
}
