//! Liars: each stands between an honest machine and its links, and rewrites what is said and heard.
//!
//! A liar has its member's key and no other; liars that collude share what they see.

#![allow(clippy::wildcard_enum_match_arm, reason = "a liar picks a few messages of many")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::bft::{BftIdentity, BftStatus, Config};
use folkmoot::model::{KeyPair, Nonce, Rng, Signature, Time, WallTime};
use folkmoot::proto::bft::message::{
    BftRecallReq, BundleReq, ChainReq, Message, OrderStatus, PrePrepare, SlotContent, SlotReq,
    SlotResp,
};
use folkmoot::proto::bft::view::{NewView, SignedClaim, Suspect, ViewChange};
use folkmoot::proto::bft::{
    Bundle, BundleItem, BundleRef, Certificate, Claim, ClaimKind, ContentDigest, EpochNo, OrderId,
    PhaseVote, SlotHeader, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::{ChainHash, MemberId, Origin};
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// The longest memory of a liar, in messages.
const HEARD_MAX: usize = 400;

/// One way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lie {
    /// Says nothing at all, or nothing to some.
    Silent,
    /// Proposes two contents in one place, and votes for both.
    Equivocate,
    /// Signs in honest names, and shows certificates that nobody signed.
    Forge,
    /// Invents messages of honest authors.
    Invent,
    /// Proposes though it does not lead.
    Usurp,
    /// Says again what it has heard and said.
    Replay,
    /// Says everything late.
    Delay,
    /// Leaves one author out.
    Censor,
    /// Says more than anybody can use.
    Flood,
    /// Hides what it has prepared, and says different things to different members.
    Hide,
    /// Begins views with the lowest quorum, below what is final, or twice.
    FalseView,
    /// Keeps back what others ask for.
    Withhold,
    /// Answers with slots that nobody has made final, and with no memory of others' votes.
    FalseSlots,
    /// Signs whatever anybody proposes.
    Countersign,
    /// Says two things under one number, or to some only, or with gaps.
    Author,
    /// Wishes for views without end.
    Suspect,
    /// Forgets what it has signed, and does not want to know.
    Forget,
    /// Two machines under one key.
    Twins,
    /// Proposes with a wrong parent, place or hash, if it equivocates.
    Misplace,
    /// Proposes messages again that have places already.
    Repeat,
    /// Changes one small thing in what it says, and signs it; only where the cast says which.
    Mutate,
}

impl Lie {
    pub(crate) const ALL: [Self; 20] = [
        Self::Silent,
        Self::Equivocate,
        Self::Forge,
        Self::Invent,
        Self::Usurp,
        Self::Replay,
        Self::Delay,
        Self::Censor,
        Self::Flood,
        Self::Hide,
        Self::FalseView,
        Self::Withhold,
        Self::FalseSlots,
        Self::Countersign,
        Self::Author,
        Self::Suspect,
        Self::Forget,
        Self::Twins,
        Self::Misplace,
        Self::Repeat,
    ];
}

/// A header that somebody has proposed.
#[derive(Clone, Copy, Debug)]
struct Proposal {
    subject: VoteSubject,
    /// Side for which it is, if it has a fork.
    side: Option<bool>,
}

/// What colluding liars share.
#[derive(Debug)]
pub(crate) struct Brain {
    proposals: Vec<Proposal>,
    /// Division of the members into two sides, by the view.
    salt: u64,
}

impl Brain {
    pub(crate) const fn new(salt: u64) -> Self {
        Self { proposals: Vec::new(), salt }
    }
}

/// Members that each of the twins hears and speaks to in this round.
pub(crate) type Sides = Arc<Mutex<Vec<BTreeSet<MemberId>>>>;

/// The ways of a liar, in all its lives.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) lies: BTreeSet<Lie>,
    pub(crate) brain: Arc<Mutex<Brain>>,
    pub(crate) config: Config,
    /// Members that the twins hear and speak to, each; drawn without it.
    pub(crate) sides: Option<Sides>,
}

/// A liar.
#[derive(Debug)]
pub(crate) struct Liar {
    lies: BTreeSet<Lie>,
    me: BftIdentity,
    group: OrderId,
    brain: Arc<Mutex<Brain>>,
    config: Config,
    rng: Rng,
    /// Members whom it says nothing to.
    muted: BTreeSet<MemberId>,
    /// Author that it leaves out.
    victim: MemberId,
    slowness: (f64, f64),
    says_both: bool,
    /// Forked headers by those that its machine proposed.
    forks: BTreeMap<ContentDigest, SlotHeader>,
    heard: VecDeque<Message>,
    changes: BTreeMap<(EpochNo, ViewNo), BTreeMap<MemberId, Arc<ViewChange>>>,
    last: Option<(ViewNo, SlotHeader)>,
    before: Option<SlotHeader>,
    countersigned: usize,
    /// Members that have asked for final slots.
    askers: BTreeSet<MemberId>,
    sides: Option<Sides>,
    is_planned: bool,
    redrawn: Time,
    numbers: u64,
}

impl Liar {
    /// The liar in one life of its process.
    pub(crate) fn new(me: BftIdentity, plot: &Plot, seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let group = me.founders.order_id(&me.salt);
        let voters = me.founders.voters().iter().map(|it| it.member.id);
        let others: Vec<_> = voters.filter(|it| *it != me.id).collect();
        let victim = others[rng.random_range(0..others.len())];
        let all = rng.random_bool(0.5);
        let muted = others.into_iter().filter(|_| all || rng.random_bool(0.5)).collect();
        let least = rng.random_range(0.05..0.9);
        let Plot { lies, brain, config, sides } = plot.clone();
        Self {
            lies,
            group,
            brain,
            config,
            muted,
            victim,
            me,
            slowness: (least, rng.random_range(least..0.91)),
            says_both: rng.random_bool(0.3),
            forks: BTreeMap::new(),
            heard: VecDeque::new(),
            changes: BTreeMap::new(),
            last: None,
            before: None,
            countersigned: 0,
            askers: BTreeSet::new(),
            is_planned: sides.is_some(),
            sides,
            redrawn: Time::ZERO,
            numbers: 0,
            rng,
        }
    }

    /// Number of machines under its key.
    pub(crate) fn machines(&self) -> usize {
        if self.does(Lie::Twins) { 2 } else { 1 }
    }

    pub(crate) fn does(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    fn others(&self) -> impl Iterator<Item = MemberId> {
        let voters = self.me.founders.voters().iter().map(|it| it.member.id);
        voters.filter(|it| *it != self.me.id).collect::<Vec<_>>().into_iter()
    }

    fn digest_of(&self, header: &SlotHeader) -> ContentDigest {
        self.config.digest_of(&self.group, header)
    }

    const fn key(&self) -> (MemberId, &KeyPair) {
        (self.me.id, &self.me.keys)
    }

    fn garbage(&mut self) -> Signature {
        let mut bytes = [0; 64];
        self.rng.fill_bytes(&mut bytes);
        Signature::from_bytes(bytes)
    }

    fn any_digest(&mut self) -> ContentDigest {
        ContentDigest(self.rng.random())
    }

    /// The side of a member in a view, the same for all that collude.
    fn side(&self, view: ViewNo, member: MemberId) -> bool {
        let salt = self.brain.lock().expect("one thread runs a world").salt;
        let mixed = (salt ^ view.0 << 8 ^ u64::from(member.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed >> 63 == 1
    }

    /// What leaves for `to` instead of what one of its machines says, each after a while.
    pub(crate) fn says(
        &mut self,
        now: Time,
        (twin, to): (usize, MemberId),
        msg: Message,
    ) -> Vec<(Duration, Message)> {
        if !self.is_joined(now, twin, to)
            || self.does(Lie::Silent) && self.muted.contains(&to)
            || self.withholds(&msg)
        {
            return Vec::new();
        }
        if self.does(Lie::Replay) {
            self.keep(msg.clone());
        }
        let mut said = self.rewrite(to, msg);
        if self.does(Lie::Forge) && self.rng.random_bool(0.01) {
            said.extend(self.forged(to));
        }
        if self.does(Lie::Delay) {
            let (least, most) = self.slowness;
            let late = said.into_iter().map(|it| {
                let share = self.rng.random_range(least..=most);
                (self.config.patience.mul_f64(share), it)
            });
            return late.collect();
        }
        said.into_iter().map(|it| (Duration::ZERO, it)).collect()
    }

    /// What one of its machines hears instead of a message.
    pub(crate) fn hears(
        &mut self,
        now: Time,
        (twin, from): (usize, MemberId),
        msg: Message,
    ) -> Option<Message> {
        if !self.is_joined(now, twin, from) {
            return None;
        }
        match &msg {
            Message::Bundle(it) if self.does(Lie::Censor) && it.author == self.victim => {
                return None;
            }
            Message::ViewChange(it) => {
                let of_view = self.changes.entry((it.epoch, it.view)).or_default();
                of_view.insert(from, Arc::clone(it));
                while self.changes.len() > 8 {
                    self.changes.pop_first();
                }
            }
            Message::SlotReq(_) => _ = self.askers.insert(from),
            Message::PrePrepare(it) => {
                self.last = Some((it.view, it.header.clone()));
                if self.does(Lie::Countersign) {
                    self.share(it.view, &it.header, None);
                }
            }
            Message::RecallResp(it) if self.does(Lie::Forget) => {
                let mut it = it.clone();
                (it.commit, it.change) = (None, None);
                return Some(Message::RecallResp(it));
            }
            _ => {}
        }
        if self.does(Lie::Replay) {
            self.keep(msg.clone());
        }
        Some(msg)
    }

    fn keep(&mut self, msg: Message) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push_back(msg);
        } else {
            let at = self.rng.random_range(0..HEARD_MAX);
            self.heard[at] = msg;
        }
    }

    fn share(&self, view: ViewNo, header: &SlotHeader, side: Option<bool>) {
        let SlotHeader { epoch, slot, .. } = *header;
        let subject = VoteSubject { epoch, view, slot, digest: self.digest_of(header) };
        let mut brain = self.brain.lock().expect("one thread runs a world");
        if !brain.proposals.iter().any(|it| it.subject == subject) {
            brain.proposals.push(Proposal { subject, side });
        }
    }

    /// True if one of the twins hears and speaks to a member at present.
    fn is_joined(&mut self, now: Time, twin: usize, member: MemberId) -> bool {
        if !self.does(Lie::Twins) {
            return true;
        }
        let others: Vec<_> = self.others().collect();
        let sides = self.sides.get_or_insert_with(|| Arc::new(Mutex::new(Vec::new())));
        let mut sides = sides.lock().expect("one thread runs a world");
        if !self.is_planned
            && (sides.is_empty() || now.since(self.redrawn) > Duration::from_secs(1))
        {
            self.redrawn = now;
            let first = others.iter().filter(|_| self.rng.random_bool(0.5)).copied();
            let first: BTreeSet<_> = first.collect();
            let second = others.into_iter().filter(|it| !first.contains(it)).collect();
            *sides = vec![first, second];
        }
        sides.get(twin).is_none_or(|it| it.contains(&member))
    }

    fn withholds(&mut self, msg: &Message) -> bool {
        self.does(Lie::Withhold)
            && match msg {
                Message::ChainResp(_) | Message::SlotResp(_) | Message::RecallResp(_) => true,
                Message::Bundle(_) => self.rng.random_bool(0.7),
                _ => false,
            }
    }

    fn rewrite(&mut self, to: MemberId, msg: Message) -> Vec<Message> {
        match msg {
            Message::PrePrepare(it) if it.sender_id == self.me.id => {
                let before = self.last.replace((it.view, it.header.clone())).map(|it| it.1);
                let before = before.filter(|before| before.slot < it.header.slot);
                self.before = before.or(self.before.take());
                if self.does(Lie::Equivocate) {
                    return self.equivocate(to, &it);
                }
                if self.does(Lie::Invent) {
                    return self.invent(&it);
                }
                if self.does(Lie::Repeat) {
                    return vec![self.repeat(&it)];
                }
                vec![Message::PrePrepare(it)]
            }
            Message::Prepare(vote) | Message::Commit(vote)
                if self.does(Lie::Countersign) && self.betrays(to, &vote) =>
            {
                Vec::new()
            }
            Message::Prepare(vote) if self.does(Lie::Equivocate) => {
                self.vote_for_both(to, VotePhase::Prepare, vote)
            }
            Message::Commit(vote) if self.does(Lie::Equivocate) => {
                self.vote_for_both(to, VotePhase::Commit, vote)
            }
            Message::Prepare(vote) if self.does(Lie::Forge) && self.rng.random_bool(0.1) => {
                let signature = self.garbage();
                vec![Message::Prepare(PhaseVote { signature, ..vote })]
            }
            Message::ViewChange(it) if self.does(Lie::Hide) => self.hide(&it),
            Message::ViewChange(it) if self.does(Lie::Forge) => self.invent_claim(&it),
            Message::NewView(it) if self.does(Lie::FalseView) => self.false_view(to, &it),
            Message::Bundle(it) if self.does(Lie::Author) && it.author == self.me.id => {
                self.say_otherwise(to, it)
            }
            Message::SlotResp(it) if self.does(Lie::FalseSlots) && self.rng.random_bool(0.5) => {
                let from = it.slots.first().map(|it| it.header.clone());
                from.map(|it| vec![self.false_slots(&it)]).unwrap_or_default()
            }
            Message::RecallResp(mut it) if self.does(Lie::FalseSlots) => {
                (it.commit, it.change) = (None, None);
                vec![Message::RecallResp(it)]
            }
            Message::OrderStatus(it) if self.does(Lie::FalseSlots) => {
                let slot = it.slot.ahead(self.rng.random_range(0..6));
                let digest = if slot == it.slot { it.digest } else { self.any_digest() };
                vec![Message::OrderStatus(OrderStatus { slot, digest, ..it })]
            }
            msg => vec![msg],
        }
    }

    fn propose(&self, view: ViewNo, header: SlotHeader) -> Message {
        let SlotHeader { epoch, slot, .. } = header;
        let digest = self.digest_of(&header);
        let subject = VoteSubject { epoch, view, slot, digest };
        let PhaseVote { sender_id, signature, .. } =
            PhaseVote::sign(&self.group, VotePhase::Prepare, subject, self.key());
        Message::PrePrepare(Arc::new(PrePrepare { sender_id, view, header, signature }))
    }

    /// The other content in the place of a proposal.
    fn fork(&mut self, header: &SlotHeader) -> SlotHeader {
        let digest = header.digest(&self.group);
        if let Some(known) = self.forks.get(&digest) {
            return known.clone();
        }
        let mut fork = header.clone();
        let before = self.forks.values().find(|it| it.slot.next() == header.slot).cloned();
        match before {
            Some(before) => fork.parent = self.digest_of(&before),
            None if self.does(Lie::Misplace) => match self.rng.random_range(0..3) {
                0 => fork.parent = self.any_digest(),
                1 => fork.place = fork.place.next(),
                _ => fork.hash = ChainHash::default(),
            },
            None if !header.bundles.is_empty() && self.rng.random_bool(0.4) => {
                fork.bundles.pop();
            }
            None => {}
        }
        fork.time = WallTime(header.time.0 + 1);
        if self.forks.len() > 200 {
            self.forks.clear();
        }
        self.forks.insert(digest, fork.clone());
        fork
    }

    fn equivocate(&mut self, to: MemberId, it: &PrePrepare) -> Vec<Message> {
        let fork = self.fork(&it.header);
        if self.does(Lie::Countersign) {
            let is_divided = !self.says_both;
            self.share(it.view, &it.header, is_divided.then_some(false));
            self.share(it.view, &fork, is_divided.then_some(true));
        }
        let is_second = self.side(it.view, to);
        let (first, second) = match is_second {
            false => (it.header.clone(), fork),
            true => (fork, it.header.clone()),
        };
        let mut said = vec![self.propose(it.view, first)];
        if self.says_both {
            said.push(self.propose(it.view, second));
        }
        said
    }

    /// True if a vote would show `to` that there are two sides.
    fn betrays(&self, to: MemberId, vote: &PhaseVote) -> bool {
        let brain = self.brain.lock().expect("one thread runs a world");
        let known = brain.proposals.iter().find(|it| it.subject == vote.subject);
        let side = known.and_then(|it| it.side);
        drop(brain);
        side.is_some_and(|it| it != self.side(vote.subject.view, to))
    }

    fn vote_for_both(&self, to: MemberId, phase: VotePhase, vote: PhaseVote) -> Vec<Message> {
        let say = |vote| match phase {
            VotePhase::Prepare => Message::Prepare(vote),
            VotePhase::Commit => Message::Commit(vote),
        };
        let mut said = vec![say(vote)];
        if let Some(fork) = self.forks.get(&vote.subject.digest) {
            let subject = VoteSubject { digest: self.digest_of(fork), ..vote.subject };
            let other = say(PhaseVote::sign(&self.group, phase, subject, self.key()));
            if self.says_both {
                said.push(other);
            } else if self.side(vote.subject.view, to) {
                said = vec![other];
            }
        }
        said
    }

    /// A message of an honest author that it has never written.
    fn invented(&mut self) -> Bundle {
        let client = Origin::own(self.victim, self.rng.random()).client;
        self.numbers += 1;
        let items = vec![BundleItem {
            room: "general".into(),
            payload: format!("invented {} by {}", self.numbers, self.me.id).into(),
        }];
        let origin = Origin { member: self.victim, client };
        Bundle::sign(&self.group, origin, 1, items, &self.me.keys)
    }

    fn invent(&mut self, it: &PrePrepare) -> Vec<Message> {
        let bundle = self.invented();
        let digest = bundle.statement().digest(&self.group);
        let mut header = it.header.clone();
        if header.change.is_none() && self.rng.random_bool(0.5) {
            header.bundles.push(BundleRef { digest, count: bundle.count(), skip: 0 });
        }
        vec![Message::Bundle(Arc::new(bundle)), self.propose(it.view, header)]
    }

    /// A proposal of bundles that it has proposed before.
    fn repeat(&self, it: &PrePrepare) -> Message {
        let mut header = it.header.clone();
        let before = self.before.iter().filter(|it| it.slot < header.slot);
        let again: Vec<_> = before.flat_map(|it| it.bundles.clone()).collect();
        if header.change.is_none() {
            header.bundles.extend(again);
        }
        self.propose(it.view, header)
    }

    fn start_of_epoch() -> Claim {
        Claim {
            phase: ClaimKind::Start,
            view: ViewNo(0),
            slot: SlotNo(0),
            digest: ContentDigest::default(),
        }
    }

    fn hide(&mut self, it: &ViewChange) -> Vec<Message> {
        let mut claim = Self::start_of_epoch();
        // The beginning of the epoch, as an honest member has claimed it, is a legal lie.
        let known = self.changes.values().flat_map(BTreeMap::values);
        let lower = known.filter(|other| {
            other.epoch == it.epoch
                && other.signed.claim.rank() < it.signed.claim.rank()
                && other.signed.claim.view < it.view
        });
        let lower: Vec<_> = lower.cloned().collect();
        let mut certificate = None;
        if !lower.is_empty() && self.rng.random_bool(0.7) {
            let other = &lower[self.rng.random_range(0..lower.len())];
            (claim, certificate) = (other.signed.claim, other.certificate.clone());
        } else if it.epoch == EpochNo(0) {
            claim.digest = ContentDigest(self.group.0);
        }
        let view = (it.epoch, it.view);
        let signed = SignedClaim::sign(&self.group, view, claim, self.key());
        let lie = ViewChange { signed, certificate, ..it.clone() };
        let lie = Message::ViewChange(Arc::new(lie));
        match self.rng.random_range(0..3) {
            0 => vec![lie, Message::ViewChange(Arc::new(it.clone()))],
            _ => vec![lie],
        }
    }

    fn no_certificate(&mut self, phase: VotePhase, subject: VoteSubject) -> Certificate {
        let quorum = self.me.founders.quorum();
        let signers = self.me.founders.voters().iter().map(|it| it.member.id);
        let signers: Vec<_> = signers.take(quorum).collect();
        let signatures = signers.into_iter().map(|id| {
            let own = PhaseVote::sign(&self.group, phase, subject, self.key()).signature;
            (id, if id == self.me.id { own } else { self.garbage() })
        });
        Certificate { phase, subject, signatures: signatures.collect() }
    }

    /// A claim that nobody has signed, of a fork of what was proposed last.
    fn invent_claim(&mut self, it: &ViewChange) -> Vec<Message> {
        let Some((_, header)) = self.last.clone() else {
            return vec![Message::ViewChange(Arc::new(it.clone()))];
        };
        let mut header = header;
        header.time = WallTime(header.time.0 + 9);
        let view = ViewNo(it.view.0.saturating_sub(1));
        let digest = header.digest(&self.group);
        let subject = VoteSubject { epoch: it.epoch, view, slot: header.slot, digest };
        let phase = if self.rng.random_bool(0.5) { VotePhase::Prepare } else { VotePhase::Commit };
        let certificate = self.no_certificate(phase, subject);
        let claim = Claim::of(&certificate);
        let signed = SignedClaim::sign(&self.group, (it.epoch, it.view), claim, self.key());
        let certificate = self.rng.random_bool(0.7).then_some(certificate);
        vec![Message::ViewChange(Arc::new(ViewChange { signed, certificate, ..it.clone() }))]
    }

    /// Begins a view by the lowest claims that are legal, or by a base that is not the highest, or
    /// by different claims for different members.
    fn false_view(&mut self, to: MemberId, it: &NewView) -> Vec<Message> {
        let quorum = self.me.founders.quorum();
        let known = self.changes.get(&(it.epoch, it.view)).cloned().unwrap_or_default();
        let own = it.changes.iter().find(|it| it.sender_id == self.me.id).copied();
        let mut claims: Vec<SignedClaim> = known.values().map(|it| it.signed).collect();
        claims.retain(|it| it.sender_id != self.me.id);
        claims.extend(own);
        claims.sort_by_key(|it| it.claim.rank());
        let is_second = self.side(it.view, to);
        let view = (it.epoch, it.view);
        let mut changes = match self.rng.random_range(0..5) {
            4 => vec![SignedClaim::sign(&self.group, view, Self::start_of_epoch(), self.key())],
            0 if is_second => it.changes.clone(),
            1 => claims.iter().take(quorum.saturating_sub(1)).copied().collect(),
            _ => claims.iter().take(quorum).copied().collect::<Vec<_>>(),
        };
        changes.sort_by_key(|it| it.sender_id);
        let base = changes.iter().map(|it| it.claim).max_by_key(Claim::rank);
        let of_base = known.values().find(|it| Some(it.signed.claim) == base);
        let mut certificate = of_base.and_then(|it| it.certificate.clone());
        if certificate.is_none() && it.base() == base {
            certificate.clone_from(&it.certificate);
        }
        if self.rng.random_bool(0.3) {
            // A base that is not the highest.
            let lower = known.values().find(|it| Some(it.signed.claim) != base);
            certificate = lower.and_then(|it| it.certificate.clone());
        }
        let lie = NewView::sign(&self.group, view, changes, certificate, self.key());
        vec![Message::NewView(Arc::new(lie))]
    }

    fn say_otherwise(&mut self, to: MemberId, it: Arc<Bundle>) -> Vec<Message> {
        let is_second = self.side(ViewNo(it.first), to);
        match self.rng.random_range(0..4) {
            0 if is_second => Vec::new(),
            0 | 1 => vec![Message::Bundle(it)],
            which => {
                let mut items = it.items.clone();
                if is_second {
                    for item in &mut items {
                        item.payload = format!("{} otherwise", item.payload).into();
                    }
                }
                let first = it.first + u64::from(which == 3 && self.rng.random_bool(0.3));
                let lie = Bundle::sign(&self.group, it.origin(), first, items, &self.me.keys);
                vec![Message::Bundle(Arc::new(lie))]
            }
        }
    }

    /// A slot that might come next, with a message of its own.
    fn own_slot(&mut self, status: &BftStatus) -> (SlotHeader, Arc<Bundle>) {
        self.numbers += 1;
        let origin = Origin::own(self.me.id, self.rng.random());
        let payload = format!("own {} of {}", self.numbers, self.me.id).into();
        let items = vec![BundleItem { room: "general".into(), payload }];
        let bundle = Arc::new(Bundle::sign(&self.group, origin, 1, items, &self.me.keys));
        let digest = bundle.statement().digest(&self.group);
        let mut header = self.next_header(status);
        header.bundles.push(BundleRef { digest, count: bundle.count(), skip: 0 });
        (header, bundle)
    }

    fn uncertified(&mut self, header: SlotHeader, bundle: Arc<Bundle>) -> Message {
        let SlotHeader { epoch, slot, .. } = header;
        let digest = self.digest_of(&header);
        let subject = VoteSubject { epoch, view: ViewNo(0), slot, digest };
        let certificate = self.no_certificate(VotePhase::Commit, subject);
        let content = SlotContent { header, bundles: vec![bundle], change: None };
        let (slots, headers) = (vec![Arc::new(content)], Vec::new());
        Message::SlotResp(SlotResp { slots, headers, certificate })
    }

    /// Slots behind `header`'s parent that nobody has made final.
    fn false_slots(&mut self, header: &SlotHeader) -> Message {
        let bundle = self.invented();
        let digest = bundle.statement().digest(&self.group);
        let mut header = header.clone();
        header.bundles = vec![BundleRef { digest, count: bundle.count(), skip: 0 }];
        (header.change, header.committee) = (None, None);
        self.uncertified(header, Arc::new(bundle))
    }

    /// One forged message, in an honest name.
    fn forged(&mut self, to: MemberId) -> Option<Message> {
        let (view, mut header) = self.last.clone()?;
        let SlotHeader { epoch, slot, .. } = header;
        header.time = WallTime(header.time.0 + 3);
        let digest = header.digest(&self.group);
        let subject = VoteSubject { epoch, view, slot, digest };
        let vote = PhaseVote::sign(&self.group, VotePhase::Prepare, subject, self.key());
        let others: Vec<_> = self.others().filter(|it| *it != to).collect();
        let sender_id = others[self.rng.random_range(0..others.len())];
        let signature = vote.signature;
        Some(match self.rng.random_range(0..7) {
            0 => Message::Prepare(PhaseVote { sender_id, ..vote }),
            1 => Message::Commit(PhaseVote { sender_id, ..vote }),
            2 => Message::PrePrepare(Arc::new(PrePrepare { sender_id, view, header, signature })),
            3 => self.false_slots(&header),
            4 => {
                let view = (epoch, view.next());
                let mut wish = Suspect::sign(&self.group, view, "forged", self.key());
                wish.sender_id = sender_id;
                Message::Suspect(wish)
            }
            5 => {
                let certificate = self.no_certificate(VotePhase::Commit, subject);
                let claim = Claim::of(&certificate);
                let view = view.next();
                let mut signed = SignedClaim::sign(&self.group, (epoch, view), claim, self.key());
                signed.sender_id = sender_id;
                let certificate = Some(certificate);
                Message::ViewChange(Arc::new(ViewChange { epoch, view, signed, certificate }))
            }
            _ => Message::Bundle(Arc::new(self.invented())),
        })
    }

    /// What the liar says of its own accord.
    pub(crate) fn acts(
        &mut self,
        _now: Time,
        status: &BftStatus,
        linked: &BTreeSet<MemberId>,
    ) -> Vec<(MemberId, Message)> {
        let linked: Vec<_> = linked.iter().copied().collect();
        if linked.is_empty() {
            return Vec::new();
        }
        let mut said = Vec::new();
        let any = |rng: &mut Rng| linked[rng.random_range(0..linked.len())];
        if self.does(Lie::Countersign) {
            said.extend(self.countersign(&linked));
        }
        if self.does(Lie::Replay) && !self.heard.is_empty() {
            for _ in 0..self.rng.random_range(0..8) {
                let at = self.rng.random_range(0..self.heard.len());
                said.push((any(&mut self.rng), self.heard[at].clone()));
            }
        }
        if self.does(Lie::Usurp) && status.leader != self.me.id {
            for to in &linked {
                let (header, bundle) = self.own_slot(status);
                said.push((*to, Message::Bundle(bundle)));
                said.push((*to, self.propose(status.view, header)));
            }
        }
        if self.does(Lie::Suspect) && self.rng.random_bool(0.3) {
            let ahead = self.rng.random_range(1..4);
            let view = (status.epoch, ViewNo(status.view.0 + ahead));
            let wish = Suspect::sign(&self.group, view, "it pleases me", self.key());
            said.extend(linked.iter().map(|to| (*to, Message::Suspect(wish.clone()))));
        }
        if self.does(Lie::FalseSlots) {
            for to in std::mem::take(&mut self.askers) {
                let (header, bundle) = self.own_slot(status);
                said.push((to, self.uncertified(header, bundle)));
            }
        }
        if self.does(Lie::Flood) {
            for _ in 0..self.rng.random_range(0..20) {
                let to = any(&mut self.rng);
                let msg = self.flood(status);
                said.push((to, msg));
            }
        }
        said
    }

    /// A header that might come next.
    fn next_header(&self, status: &BftStatus) -> SlotHeader {
        SlotHeader {
            epoch: status.epoch,
            slot: status.slot.next(),
            parent: status.digest,
            time: WallTime(1_772_010_000_000),
            place: status.place,
            hash: status.hash,
            bundles: Vec::new(),
            change: None,
            committee: None,
            state: None,
        }
    }

    /// Votes for everything that anybody has proposed since, before those who are to believe it.
    fn countersign(&mut self, linked: &[MemberId]) -> Vec<(MemberId, Message)> {
        let brain = self.brain.lock().expect("one thread runs a world");
        let new = brain.proposals[self.countersigned..].to_vec();
        self.countersigned = brain.proposals.len();
        drop(brain);
        let mut said = Vec::new();
        for Proposal { subject, side } in new {
            let sign = |phase| PhaseVote::sign(&self.group, phase, subject, self.key());
            let prepare = Message::Prepare(sign(VotePhase::Prepare));
            let commit = Message::Commit(sign(VotePhase::Commit));
            let believes = |it: &&MemberId| side.is_none_or(|s| s == self.side(subject.view, **it));
            for to in linked.iter().filter(believes) {
                said.extend([(*to, prepare.clone()), (*to, commit.clone())]);
            }
        }
        said
    }

    fn flood(&mut self, status: &BftStatus) -> Message {
        let epoch = status.epoch;
        match self.rng.random_range(0..8) {
            0 => {
                let view = ViewNo(status.view.0 + self.rng.random_range(0..1 << 20));
                let slot = status.slot.ahead(self.rng.random_range(0..1 << 20));
                let subject = VoteSubject { epoch, view, slot, digest: self.any_digest() };
                Message::Commit(PhaseVote::sign(
                    &self.group,
                    VotePhase::Commit,
                    subject,
                    self.key(),
                ))
            }
            1 => {
                let OrderStatus { epoch, view, active, .. } = OrderStatus {
                    epoch,
                    view: status.view,
                    active: true,
                    slot: status.slot,
                    digest: status.digest,
                    silent: false,
                };
                let silent = self.rng.random_bool(0.1);
                let slot = SlotNo(self.rng.random_range(0..=status.slot.0));
                let digest = self.any_digest();
                Message::OrderStatus(OrderStatus { epoch, view, active, slot, digest, silent })
            }
            2 => Message::SlotReq(SlotReq { from: SlotNo(1) }),
            3 => {
                let digest = status.digest;
                Message::ChainReq(ChainReq { digest, above: SlotNo(0) })
            }
            4 => {
                let digests = (0..20).map(|_| self.any_digest()).collect();
                Message::BundleReq(BundleReq { digests })
            }
            5 => Message::RecallReq(BftRecallReq { nonce: Nonce::random(&mut self.rng) }),
            6 => {
                let view = ViewNo(status.view.0 + self.rng.random_range(0..1 << 41));
                Message::Suspect(Suspect::sign(&self.group, (epoch, view), "far", self.key()))
            }
            _ => {
                let origin = Origin::own(self.me.id, self.rng.random());
                self.numbers += 1;
                let payload = format!("flood {} of {}", self.numbers, self.me.id).into();
                let items = vec![BundleItem { room: "general".into(), payload }];
                let first = self.rng.random_range(1..3);
                Message::Bundle(Arc::new(Bundle::sign(
                    &self.group,
                    origin,
                    first,
                    items,
                    &self.me.keys,
                )))
            }
        }
    }
}
