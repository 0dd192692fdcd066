//! Floor under an order: the normal course and nothing else, in threads of one process.
//!
//! One thread a member, and one for each connection, over loopback. They exchange exactly the
//! lines of the order's first view, check each signature that counts, write contents and
//! certificates, and sync them before COMMIT. There is no running hash, no bound, no timer, no
//! change of views, and no reader of the log: what the product adds to these is its own cost.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rand::SeedableRng as _;
use serde_json::json;

use super::part::Load;
use crate::cli::CliError;
use crate::cli::bench::figure::{Sheet, distribution};
use crate::machine::bft::{Config, Record};
use crate::machine::quorum::QuorumRule;
use crate::model::{KeyPair, PublicKey, Rng, Signature, Time, WallTime};
use crate::proto::bft::header::SLOT_COST_MAX;
use crate::proto::bft::line::{OrderReader, append};
use crate::proto::bft::message::{Message, PrePrepare, SlotContent};
use crate::proto::bft::{
    Bundle, BundleItem, BundleRef, Certificate, ContentDigest, EpochNo, OrderId, PhaseVote,
    SlotHeader, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use crate::proto::chat::entry::{ChainHash, MemberId, Origin, SeqNo};
use crate::runtime::clock::Clock;
use crate::runtime::thread;

const GROUP: OrderId = OrderId([1; 32]);

/// Number of own bundles that may be on their way.
const ON_THE_WAY_MAX: usize = 16;

/// Number of messages that wait for a member: more than can be on their way.
const HEARD_MAX: usize = 65_536;

/// Number of repetitions of each cost.
const REPEATS: u32 = 500;

/// A slot on its way.
#[derive(Default)]
struct BareSlot {
    /// The proposal, with the digest of its header.
    proposal: Option<(ContentDigest, Arc<PrePrepare>)>,
    prepares: Vec<(MemberId, Signature)>,
    commits: Vec<(MemberId, Signature)>,
    is_prepared: bool,
}

/// One member of the bare course.
struct Bare {
    me: usize,
    keys: KeyPair,
    publics: Arc<[PublicKey]>,
    outs: Vec<TcpStream>,
    /// Bytes that all others are to get.
    out: Vec<u8>,
    heard: Receiver<Message>,
    file: File,
    records: Vec<u8>,
    /// COMMITs that wait for the disk.
    held: Vec<PhaseVote>,
    pool: BTreeMap<ContentDigest, Arc<Bundle>>,
    /// Bundles without a proposal, in the order in which they came; the leader's alone.
    waiting: VecDeque<ContentDigest>,
    slots: BTreeMap<u64, BareSlot>,
    proposed: (u64, ContentDigest),
    accepted: u64,
    last: u64,
    placed: u64,
    /// Texts that have not left, and numbers of those that have, with the times of their making.
    fresh: usize,
    next: u64,
    sent: BTreeMap<ContentDigest, Vec<Time>>,
    made: VecDeque<Time>,
    clock: Clock,
    text: Arc<str>,
    latencies: Vec<f64>,
}

/// Measures the parts, and the whole for each load; returns entries a second for each.
pub(super) fn run(
    sheet: &Sheet,
    members: u32,
    loads: &[Load],
    dir: &Path,
) -> Result<Vec<f64>, CliError> {
    let failed = |source| CliError::System { action: "measure the floor", source };
    parts(sheet, loads[0].bytes, dir)?;
    let mut rates = Vec::new();
    for load in loads {
        let (rate, latencies) = whole(members as usize, *load, dir).map_err(failed)?;
        sheet.line(
            "floor",
            json!({ "in_flight": load.in_flight, "a_second": rate.round(),
                "latency_ms": distribution(&latencies) }),
        )?;
        rates.push(rate);
    }
    Ok(rates)
}

/// Costs of a signature, a check, a write with a sync, and a line.
fn parts(sheet: &Sheet, bytes: usize, dir: &Path) -> Result<(), CliError> {
    let failed = |source| CliError::System { action: "measure the disk", source };
    let clock = Clock::start();
    let micros = |work: &mut dyn FnMut()| {
        let begun = clock.now().mono;
        (0..REPEATS).for_each(|_| work());
        clock.now().mono.since(begun).as_secs_f64() * 1e6 / f64::from(REPEATS)
    };
    let keys = KeyPair::generate(&mut Rng::seed_from_u64(1));
    let subject = subject(SlotNo(1), ContentDigest([2; 32]));
    let mut vote = PhaseVote::sign(&GROUP, VotePhase::Commit, subject, (MemberId(1), &keys));
    let sign = micros(&mut || {
        vote = PhaseVote::sign(&GROUP, VotePhase::Commit, subject, (MemberId(1), &keys));
    });
    let mut holds = true;
    let verify = micros(&mut || {
        holds &= vote.is_valid(&GROUP, VotePhase::Commit, &keys.public());
    });
    if !holds {
        return Err(CliError::Failed("a signature of this bench does not hold".to_owned()));
    }
    let item = BundleItem { room: "text".into(), payload: "x".repeat(bytes).into() };
    let origin = Origin { member: MemberId(1), client: 1 };
    let bundle = Message::Bundle(Arc::new(Bundle::sign(&GROUP, origin, 1, vec![item; 16], &keys)));
    let (mut line, mut is_read) = (Vec::new(), true);
    let a_line = micros(&mut || {
        line.clear();
        append(&bundle, &mut line);
        is_read &= OrderReader::new(&line[..]).read().is_ok();
    });
    if !is_read {
        return Err(CliError::Failed("a line of this bench cannot be read".to_owned()));
    }
    let mut file = File::create(dir.join("floor_sync")).map_err(failed)?;
    let mut synced = Vec::new();
    for _ in 0..REPEATS {
        let begun = clock.now().mono;
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(failed)?;
        synced.push(clock.now().mono.since(begun).as_secs_f64() * 1e3);
    }
    sheet.line(
        "floor_parts",
        json!({ "sign_us": sign.round(), "verify_us": verify.round(),
            "line_of_16_us": a_line.round(), "write_and_sync_ms": distribution(&synced) }),
    )
}

/// Entries a second of bare members, and latencies in milliseconds.
fn whole(members: usize, load: Load, dir: &Path) -> std::io::Result<(f64, Vec<f64>)> {
    let mut rng = Rng::seed_from_u64(1);
    let keys: Vec<_> = (0..members).map(|_| KeyPair::generate(&mut rng)).collect();
    let publics: Arc<[PublicKey]> = keys.iter().map(KeyPair::public).collect();
    let ends: Vec<_> = (0..members).map(|_| bounded(HEARD_MAX)).collect();
    let mut outs: Vec<Vec<TcpStream>> = (0..members).map(|_| Vec::new()).collect();
    for one in 0..members {
        for other in one + 1..members {
            let (near, far) = pair()?;
            read(near.try_clone()?, ends[one].0.clone())?;
            read(far.try_clone()?, ends[other].0.clone())?;
            outs[one].push(near);
            outs[other].push(far);
        }
    }
    let (tell, told) = bounded(members);
    // A lone client proposes by the leader.
    let authors = load.in_flight.min(members);
    for (me, ((keys, outs), (_, heard))) in keys.into_iter().zip(outs).zip(ends).enumerate() {
        let file = File::create(dir.join(format!("floor_{me}")))?;
        let fresh = if me < authors { load.in_flight / authors } else { 0 };
        let bare = Bare {
            me,
            keys,
            publics: Arc::clone(&publics),
            outs,
            out: Vec::new(),
            heard,
            file,
            records: Vec::new(),
            held: Vec::new(),
            pool: BTreeMap::new(),
            waiting: VecDeque::new(),
            slots: BTreeMap::new(),
            proposed: (0, ContentDigest(GROUP.0)),
            accepted: 0,
            last: 0,
            placed: 0,
            fresh,
            next: 1,
            sent: BTreeMap::new(),
            made: VecDeque::new(),
            clock: Clock::start(),
            text: "x".repeat(load.bytes).into(),
            latencies: Vec::new(),
        };
        let tell = tell.clone();
        thread::spawn("bare", move || tell.send(bare.run(Duration::from_millis(load.millis))))?;
    }
    drop(tell);
    let mut latencies = Vec::new();
    for outcome in told {
        latencies.extend(outcome?);
    }
    Ok((latencies.len() as f64 * 1e3 / load.millis as f64, latencies))
}

/// Two ends of a connection over loopback.
fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Reads messages until the connection ends.
fn read(stream: TcpStream, tell: Sender<Message>) -> std::io::Result<()> {
    thread::spawn("bare-read", move || {
        let mut input = OrderReader::new(BufReader::with_capacity(1 << 16, stream));
        while let Ok(Some(message)) = input.read() {
            if tell.send(message).is_err() {
                return;
            }
        }
    })
    .map(|_| ())
}

const fn subject(slot: SlotNo, digest: ContentDigest) -> VoteSubject {
    VoteSubject { epoch: EpochNo(0), view: ViewNo(0), slot, digest }
}

impl Bare {
    const fn id(&self) -> MemberId {
        MemberId(self.me as u32 + 1)
    }

    fn quorum(&self) -> usize {
        QuorumRule::Byzantine.needed(self.publics.len())
    }

    fn run(mut self, span: Duration) -> std::io::Result<Vec<f64>> {
        let begun = self.clock.now().mono;
        self.made = (0..self.fresh).map(|_| begun).collect();
        while self.clock.now().mono.since(begun) < span {
            self.say();
            self.propose();
            self.flush()?;
            if !self.held.is_empty() {
                self.file.write_all(&self.records)?;
                self.records.clear();
                self.file.sync_data()?;
                for vote in std::mem::take(&mut self.held) {
                    self.send(&Message::Commit(vote));
                    self.on_commit(vote);
                }
                self.flush()?;
            }
            if let Ok(message) = self.heard.recv_timeout(Duration::from_millis(1)) {
                self.take(message);
                while let Ok(message) = self.heard.try_recv() {
                    self.take(message);
                }
            }
        }
        self.outs.iter().for_each(|it| drop(it.shutdown(std::net::Shutdown::Both)));
        Ok(self.latencies)
    }

    fn send(&mut self, message: &Message) {
        append(message, &mut self.out);
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        for mut out in &self.outs {
            // The first that ends ends its connections, when the time is over for all.
            if out.write_all(&self.out).is_err() {
                break;
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Makes bundles of the texts that wait.
    fn say(&mut self) {
        while self.fresh > 0 && self.sent.len() < ON_THE_WAY_MAX {
            let most = (SLOT_COST_MAX / 2 / (self.text.len() + 64)).max(1);
            let count = self.fresh.min(most);
            self.fresh -= count;
            let item = BundleItem { room: "text".into(), payload: Arc::clone(&self.text) };
            let origin = Origin { member: self.id(), client: 1 };
            let bundle = Bundle::sign(&GROUP, origin, self.next, vec![item; count], &self.keys);
            self.next += count as u64;
            let (digest, bundle) = (bundle.statement().digest(&GROUP), Arc::new(bundle));
            self.sent.insert(digest, self.made.drain(..count).collect());
            self.send(&Message::Bundle(Arc::clone(&bundle)));
            self.pool.insert(digest, bundle);
            self.waiting.push_back(digest);
        }
    }

    fn propose(&mut self) {
        while self.me == 0 && self.proposed.0 < self.last + Config::default().window {
            let (mut bundles, mut cost) = (Vec::new(), 0);
            while let Some(digest) = self.waiting.front() {
                let bundle = &self.pool[digest];
                cost += bundle.cost();
                if cost > SLOT_COST_MAX {
                    break;
                }
                let (digest, count) = (*digest, bundle.count());
                bundles.push(BundleRef { digest, count, skip: 0 });
                self.waiting.pop_front();
            }
            if bundles.is_empty() {
                return;
            }
            let (slot, parent) = (SlotNo(self.proposed.0 + 1), self.proposed.1);
            let header = SlotHeader {
                epoch: EpochNo(0),
                slot,
                parent,
                time: WallTime(0),
                place: SeqNo(self.placed),
                hash: ChainHash::default(),
                bundles,
                change: None,
                committee: None,
                state: None,
            };
            self.placed += header.messages();
            let digest = header.digest(&GROUP);
            let vote = self.sign(VotePhase::Prepare, slot, digest);
            let (sender_id, view, signature) = (self.id(), ViewNo(0), vote.signature);
            let proposal = Arc::new(PrePrepare { sender_id, view, header, signature });
            self.proposed = (slot.0, digest);
            self.send(&Message::PrePrepare(Arc::clone(&proposal)));
            self.keep(proposal, digest, vote);
        }
    }

    fn sign(&self, phase: VotePhase, slot: SlotNo, digest: ContentDigest) -> PhaseVote {
        PhaseVote::sign(&GROUP, phase, subject(slot, digest), (self.id(), &self.keys))
    }

    fn holds(&self, phase: VotePhase, vote: &PhaseVote) -> bool {
        let key = self.publics.get((vote.sender_id.0 as usize).wrapping_sub(1));
        key.is_some_and(|key| vote.is_valid(&GROUP, phase, key))
    }

    fn take(&mut self, message: Message) {
        if let Message::Bundle(bundle) = message {
            let statement = bundle.statement();
            let digest = statement.digest(&GROUP);
            let key = &self.publics[bundle.author.0 as usize - 1];
            if bundle.is_valid(&GROUP, &statement, key) {
                self.pool.insert(digest, bundle);
                self.waiting.push_back(digest);
                self.accept();
            }
        } else if let Message::PrePrepare(proposal) = message {
            let digest = proposal.header.digest(&GROUP);
            let vote = proposal.vote(digest);
            if self.holds(VotePhase::Prepare, &vote) {
                self.keep(proposal, digest, vote);
            }
        } else if let Message::Prepare(vote) = message {
            let slot = vote.subject.slot.0;
            let is_needed =
                slot > self.last && self.slots.get(&slot).is_none_or(|it| !it.is_prepared);
            if is_needed && self.holds(VotePhase::Prepare, &vote) {
                let known = self.slots.entry(slot).or_default();
                known.prepares.push((vote.sender_id, vote.signature));
                self.check(slot);
            }
        } else if let Message::Commit(vote) = message
            && vote.subject.slot.0 > self.last
            && self.holds(VotePhase::Commit, &vote)
        {
            self.on_commit(vote);
        }
    }

    fn keep(&mut self, proposal: Arc<PrePrepare>, digest: ContentDigest, vote: PhaseVote) {
        let known = self.slots.entry(proposal.header.slot.0).or_default();
        known.proposal = Some((digest, proposal));
        known.prepares.push((vote.sender_id, vote.signature));
        self.accept();
    }

    /// Votes for the proposals whose contents are here.
    fn accept(&mut self) {
        while let Some(known) = self.slots.get(&(self.accepted + 1))
            && let Some((digest, proposal)) = &known.proposal
            && proposal.header.bundles.iter().all(|it| self.pool.contains_key(&it.digest))
        {
            let (slot, digest) = (SlotNo(self.accepted + 1), *digest);
            self.accepted = slot.0;
            if self.me != 0 {
                let vote = self.sign(VotePhase::Prepare, slot, digest);
                self.send(&Message::Prepare(vote));
                let known = self.slots.entry(slot.0).or_default();
                known.prepares.push((vote.sender_id, vote.signature));
            }
            self.check(slot.0);
        }
    }

    /// Goes on with a slot that has its votes.
    fn check(&mut self, slot: u64) {
        let quorum = self.quorum();
        let Some(known) = self.slots.get_mut(&slot).filter(|_| slot <= self.accepted) else {
            return;
        };
        let Some((digest, proposal)) = known.proposal.clone() else { return };
        let certificate = |phase, from: &[(MemberId, Signature)]| {
            let (subject, signatures) = (subject(SlotNo(slot), digest), from[..quorum].to_vec());
            Certificate { phase, subject, signatures }
        };
        if !known.is_prepared && known.prepares.len() >= quorum {
            known.is_prepared = true;
            let prepared = certificate(VotePhase::Prepare, &known.prepares);
            let header = proposal.header.clone();
            let bundles = header.bundles.iter().map(|it| Arc::clone(&self.pool[&it.digest]));
            let bundles = bundles.collect();
            let content = SlotContent { header, bundles, change: None };
            self.write(&Record::Slot(Arc::new(content)));
            self.write(&Record::Prepared(prepared));
            self.held.push(self.sign(VotePhase::Commit, SlotNo(slot), digest));
        }
        let Some(known) = self.slots.get(&slot) else { return };
        if known.is_prepared && known.commits.len() >= quorum {
            let certificate = certificate(VotePhase::Commit, &known.commits);
            self.write(&Record::Final(certificate));
            self.settle(slot);
        }
    }

    fn on_commit(&mut self, vote: PhaseVote) {
        let slot = vote.subject.slot.0;
        if slot > self.last {
            let known = self.slots.entry(slot).or_default();
            known.commits.push((vote.sender_id, vote.signature));
            self.check(slot);
        }
    }

    fn write(&mut self, record: &Record) {
        serde_json::to_writer(&mut self.records, record).expect("records have a JSON form");
        self.records.push(b'\n');
    }

    /// Makes slots final, and new texts instead of those that are.
    fn settle(&mut self, slot: u64) {
        let rest = self.slots.split_off(&(slot + 1));
        let settled = std::mem::replace(&mut self.slots, rest);
        self.last = slot;
        let now = self.clock.now().mono;
        for (_, proposal) in settled.into_values().filter_map(|it| it.proposal) {
            for it in &proposal.header.bundles {
                self.pool.remove(&it.digest);
                for made in self.sent.remove(&it.digest).unwrap_or_default() {
                    self.latencies.push(now.since(made).as_secs_f64() * 1e3);
                    self.fresh += 1;
                    self.made.push_back(now);
                }
            }
        }
        if self.me != 0 {
            self.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_members_place_what_they_propose() {
        let dir = tempfile::tempdir().unwrap();
        let load = Load { in_flight: 8, bytes: 16, millis: 1_000 };
        let (rate, latencies) = whole(4, load, dir.path()).unwrap();
        assert!(rate > 0.0 && !latencies.is_empty());
    }
}
