//! A group with Byzantine order in the simulator: its members and their disks, those of them that
//! lie, and the people who type. One seed decides everything.

pub(crate) mod checker;
pub(crate) mod liars;
mod members;
pub(crate) mod mutation;
mod weather;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::bft::{BftIdentity, BftReplica, BftStatus, Command, Config};
use folkmoot::model::{Endpoint, KeyPair, Rng, Time, VerdictMemo};
use folkmoot::proto::bft::{Committee, OrderId, OrderVerifier};
use folkmoot::proto::chat::entry::{Body, ChatText, HostPort, Member, MemberId, SeqNo};
use folkmoot::sim::{self, Boot, DurationRange, WorldOptions};
use rand::{RngExt as _, SeedableRng as _};

use crate::services::order::{Desk, Log, OrderHost, Record};

pub(crate) use checker::{Checker, Kind, Violation};
pub(crate) use liars::{Brain, Lie, Plot, Sides};
use members::Changes;
use mutation::{Mutating, Mutator};
pub(crate) use weather::Weather;

pub(crate) const SECOND: u64 = 1_000_000;

/// The longest time between two looks at what was told.
const LOOK: u64 = 5_000;

/// Number of messages that one honest member may send in a run.
const SENT_MAX: u64 = 400_000;

/// Number of messages that one honest member may send in a second (B22).
const SENT_A_SECOND_MAX: u64 = 5_000;

const SALT: &str = "storm";

pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// One member, in all its lives.
pub(crate) struct Node {
    pub(crate) id: MemberId,
    at: Endpoint,
    pub(crate) lies: BTreeSet<Lie>,
    is_lost: Arc<Mutex<Option<String>>>,
    /// An older copy of the disk.
    backup: Option<Vec<Record>>,
    is_paused: bool,
    has_begun: bool,
    /// Window of its next life.
    window: Arc<AtomicU64>,
    /// Messages that it had sent at the last full second.
    sent: u64,
}

enum Due {
    Restart { node: usize },
    Weather,
    Type,
    Members,
}

/// The members of a run, and how some of them lie.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) members: usize,
    /// Lies by the index of the liar.
    pub(crate) lies: BTreeMap<usize, BTreeSet<Lie>>,
    /// True if the liars share what they see.
    pub(crate) is_plot: bool,
    /// Small changes of messages, if there are any.
    pub(crate) mutating: Option<Mutating>,
}

impl Cast {
    /// So many liars of these kinds.
    pub(crate) fn draw(members: usize, liars: usize, kinds: &[Lie], rng: &mut Rng) -> Self {
        let mut lies: BTreeMap<usize, BTreeSet<Lie>> = BTreeMap::new();
        while lies.len() < liars {
            let count = rng.random_range(1..=3);
            let drawn = (0..count).map(|_| kinds[rng.random_range(0..kinds.len())]).collect();
            lies.insert(rng.random_range(0..members), drawn);
        }
        Self { members, lies, is_plot: rng.random_bool(0.5), mutating: None }
    }
}

pub(crate) struct World {
    pub(crate) world: sim::World<OrderHost>,
    pub(crate) config: Config,
    pub(crate) nodes: Vec<Node>,
    pub(crate) checker: Checker,
    pub(crate) tally: Tally,
    pub(crate) weather: Weather,
    pub(crate) group: OrderId,
    pub(crate) founders: Arc<Committee>,
    /// Sides of the twins, if a plan decides on them.
    pub(crate) sides: Option<Sides>,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    dues: BTreeMap<u64, Due>,
    number: u64,
    typed: u64,
    pub(crate) is_typing: bool,
    /// Number of further members that may forget something.
    spare: usize,
    /// Members that have forgotten something.
    forgetful: BTreeSet<usize>,
    /// Changes of the membership, if there are any.
    changes: Option<Changes>,
    mutating: Option<Mutating>,
    /// The last full second in which messages were counted, and the most that an honest member has
    /// sent in one.
    second: u64,
    pub(crate) busiest: u64,
    pub(crate) rng: Rng,
}

/// Lets this thread compute each signature's verdict once, but in one run of a hundred, in which
/// each is computed whenever somebody asks.
pub(crate) fn remember_verdicts(seed: u64) {
    thread_local! {
        // Not dropped at the thread's end, when what it would clear may be gone.
        static MEMO: RefCell<Option<ManuallyDrop<VerdictMemo>>> = const { RefCell::new(None) };
    }
    MEMO.with_borrow_mut(|memo| {
        if seed % 100 == 99 {
            drop(memo.take().map(ManuallyDrop::into_inner));
        } else {
            memo.get_or_insert_with(|| ManuallyDrop::new(VerdictMemo::on_this_thread()));
        }
    });
}

/// The key of the member with this id, the same in every run.
pub(crate) fn keys_of(id: u32) -> KeyPair {
    KeyPair::generate(&mut Rng::seed_from_u64(u64::from(id)))
}

/// The member of this id, the same in every run.
fn member(id: u32) -> Member {
    let host = [10, 4, 0, u8::try_from(id).expect("few")].into();
    Member { id: MemberId(id), at: HostPort { host, port: 6_000 }, key: keys_of(id).public() }
}

pub(crate) fn founders(members: usize) -> Arc<Committee> {
    let all = (1..=u32::try_from(members).expect("few")).map(member);
    Arc::new(Committee::of(all).expect("ids and keys differ"))
}

/// A log proves itself, and has the messages that are known to be final, in their order.
pub(crate) fn verify(
    log: &Log,
    (founders, salt): (&Committee, &str),
    order: &[ChatText],
) -> Result<(), String> {
    let mut verifier = OrderVerifier::new(founders.clone(), salt);
    let mut texts = Vec::new();
    for (content, certificate) in log.finals() {
        let entries = verifier.take(content, certificate).map_err(|it| it.to_string())?;
        texts.extend(entries.into_iter().map(|it| it.body));
    }
    if verifier.certified() != verifier.last().0 {
        return Err(format!("nothing proves what comes after {:?}", verifier.certified()));
    }
    let known = order.iter().map(|it| Body::Chat(it.clone())).take(texts.len());
    if texts.iter().cloned().eq(known) { Ok(()) } else { Err("it has other messages".to_owned()) }
}

impl World {
    pub(crate) fn new(seed: u64, config: Config, weather: Weather, cast: &Cast) -> Self {
        Self::planned(seed, config, weather, cast, None)
    }

    /// A world in which a plan decides on the sides of twins.
    pub(crate) fn planned(
        seed: u64,
        config: Config,
        weather: Weather,
        cast: &Cast,
        sides: Option<Sides>,
    ) -> Self {
        remember_verdicts(seed);
        let mut rng = Rng::seed_from_u64(seed);
        let options = WorldOptions {
            weather: weather.of_network(),
            patience: Duration::from_micros(weather.silence),
            timers_first: rng.random_bool(0.5),
            backs_off: true,
            ..WorldOptions::default()
        };
        let founders = founders(cast.members);
        let group = founders.order_id(SALT);
        let id_of = |at: &usize| founders.voters()[*at].member.id;
        let liars = cast.lies.keys().map(id_of).collect();
        let mut it = Self {
            world: sim::World::new(seed, options),
            checker: Checker::new((group, config.clone()), Arc::clone(&founders), liars),
            spare: founders.liars_borne().saturating_sub(cast.lies.len())
                + usize::from(rng.random_bool(0.05)),
            forgetful: BTreeSet::new(),
            changes: None,
            mutating: cast.mutating.clone(),
            second: 0,
            busiest: 0,
            founders: Arc::clone(&founders),
            config,
            nodes: Vec::new(),
            tally: Tally::new(),
            weather,
            group,
            sides,
            agenda: BinaryHeap::new(),
            dues: BTreeMap::new(),
            number: 0,
            typed: 0,
            is_typing: true,
            rng,
        };
        let brain = Arc::new(Mutex::new(Brain::new(it.rng.random())));
        for (at, voter) in founders.voters().iter().enumerate() {
            let lies = cast.lies.get(&at).cloned().unwrap_or_default();
            let own = Arc::new(Mutex::new(Brain::new(it.rng.random())));
            let brain = if cast.is_plot { Arc::clone(&brain) } else { own };
            let (config, sides) = (it.config.clone(), it.sides.clone());
            let plot = Plot { lies: lies.clone(), brain, config, sides };
            let mutator = cast.mutating.as_ref().and_then(|mutating| {
                let is_meant = match mutating.is_signed {
                    true => lies.contains(&Lie::Mutate),
                    false => lies.is_empty(),
                };
                let id = voter.member.id;
                is_meant.then(|| mutating.mutator(group, (id, keys_of(id.0)), seed ^ at as u64))
            });
            it.add(voter.member.id, (!lies.is_empty()).then_some(plot), lies, mutator);
        }
        it
    }

    fn add(
        &mut self,
        id: MemberId,
        plot: Option<Plot>,
        lies: BTreeSet<Lie>,
        mutator: Option<Mutator>,
    ) {
        let at = OrderHost::endpoint(&member(id.0));
        let founders = Arc::clone(&self.founders);
        let me = BftIdentity { id, keys: keys_of(id.0), founders, salt: SALT.to_owned() };
        let is_lost = Arc::new(Mutex::new(None));
        let has_signed = Arc::new(AtomicBool::new(false));
        let config = self.config.clone();
        let window = Arc::new(AtomicU64::new(config.window));
        let desk = Desk {
            config,
            me,
            plot,
            is_lost: Arc::clone(&is_lost),
            has_signed,
            window: Arc::clone(&window),
            mutator: mutator.map(|it| Arc::new(Mutex::new(it))),
        };
        let factory = move |boot: Boot<'_, Record>| OrderHost::new(&desk, boot.records, boot.seed);
        self.world.add_host(at, Box::new(factory));
        let node = Node {
            id,
            at,
            lies,
            is_lost,
            backup: None,
            is_paused: false,
            has_begun: false,
            window,
            sent: 0,
        };
        self.nodes.push(node);
        let micros = self.rng.random_range(200..2_000);
        self.set_disk(self.nodes.len() - 1, micros);
    }

    fn plan(&mut self, at: u64, due: Due) {
        self.number += 1;
        self.agenda.push(Reverse((at, self.number)));
        self.dues.insert(self.number, due);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(crate) const fn now(&self) -> u64 {
        self.world.now().as_micros()
    }

    /// The machine of a member that takes part.
    pub(crate) fn machine(&self, node: usize) -> Option<&BftReplica> {
        self.world.machine(self.nodes[node].at)?.machine()
    }

    pub(crate) fn status(&self, node: usize) -> Option<BftStatus> {
        self.machine(node).map(BftReplica::status)
    }

    /// The log of a member, as its disk would give it back.
    pub(crate) fn log(&self, node: usize) -> Log {
        let at = self.nodes[node].at;
        let host = self.world.machine(at);
        host.map_or_else(
            || Log::of(self.group, self.config.clone(), self.world.records(at)),
            |it| it.log().clone(),
        )
    }

    pub(crate) fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|it| self.nodes[*it].lies.is_empty())
    }

    // Time.

    pub(crate) fn run_for(&mut self, micros: u64) {
        self.run_until(self.now() + micros);
    }

    /// Runs until `until` (microseconds), or until something is wrong.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.checker.violation.is_none() && self.now() < until {
            let next = self.agenda.peek().map_or(until, |Reverse((at, _))| *at);
            let stop = next.min(until).min(self.now() + LOOK);
            self.world.run_until(Time::from_micros(stop));
            self.heed();
            self.count_lines();
            while let Some(Reverse((at, number))) = self.agenda.peek().copied()
                && at <= self.now()
                && self.checker.violation.is_none()
            {
                self.agenda.pop();
                if let Some(due) = self.dues.remove(&number) {
                    self.happen(&due);
                    self.heed();
                }
            }
        }
    }

    /// Runs while `waiting` holds, at most until `until`; returns whether it ceased to hold.
    pub(crate) fn run_while(&mut self, until: u64, waiting: impl Fn(&Self) -> bool) -> bool {
        while waiting(self) {
            if self.now() >= until || self.checker.violation.is_some() {
                return false;
            }
            self.run_until(until.min(self.now() + 50_000));
        }
        true
    }

    fn happen(&mut self, due: &Due) {
        match due {
            Due::Restart { node } => self.start(*node),
            Due::Weather => self.on_weather(),
            Due::Type => self.on_type(),
            Due::Members => self.on_members(),
        }
    }

    /// Reads what was told.
    fn heed(&mut self) {
        for (_, host, told) in self.world.take_events() {
            let node = (0..self.nodes.len()).find(|it| self.nodes[*it].at == host);
            let id = self.nodes[node.expect("nobody moves")].id;
            self.checker.heed(id, &told, &mut self.tally);
        }
    }

    /// Counts what each honest member has sent in the second that is over.
    fn count_lines(&mut self) {
        if self.now() / SECOND == self.second {
            return;
        }
        self.second = self.now() / SECOND;
        for node in self.honest().collect::<Vec<_>>() {
            let sent = self.world.sent(self.nodes[node].at).messages;
            let new = sent - std::mem::replace(&mut self.nodes[node].sent, sent);
            self.busiest = self.busiest.max(new);
            if new > SENT_A_SECOND_MAX {
                let what = format!("{} sends {new} messages in a second", self.nodes[node].id);
                self.checker.fail(Kind::Noise, what);
            }
        }
    }

    /// The log of each honest member proves itself to somebody who knows nothing but the founders.
    pub(crate) fn verify_logs(&mut self) {
        for node in self.honest().collect::<Vec<_>>() {
            let log = self.log(node);
            if let Err(fault) = verify(&log, (&self.founders, SALT), &self.checker.order) {
                let id = self.nodes[node].id;
                self.checker.fail(Kind::Unproved, format!("the log of {id}: {fault}"));
            }
        }
    }

    /// No honest member has said more than is useful.
    pub(crate) fn judge_noise(&mut self) {
        for node in self.honest().collect::<Vec<_>>() {
            let sent = self.world.sent(self.nodes[node].at).messages;
            if sent > SENT_MAX {
                let what = format!("{} has sent {sent} messages", self.nodes[node].id);
                self.checker.fail(Kind::Noise, what);
            }
        }
    }

    // Members.

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.world.is_up(self.nodes[node].at)
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.is_up(node) {
            return;
        }
        let at = self.nodes[node].at;
        self.nodes[node].is_paused = false;
        if self.nodes[node].has_begun {
            self.world.restart(at);
        } else {
            self.world.boot(at);
        }
        self.nodes[node].has_begun = true;
    }

    /// A process ends at once. Its system closes its connections; or the power fails, and nobody
    /// is told.
    pub(crate) fn kill(&mut self, node: usize, is_power: bool) {
        if !self.is_up(node) {
            return;
        }
        self.count(if is_power { "power cut" } else { "kill" });
        let at = self.nodes[node].at;
        if is_power {
            self.world.vanish(at);
        } else {
            self.world.kill(at);
        }
    }

    pub(crate) fn pause(&mut self, node: usize) {
        if self.is_up(node) && !self.nodes[node].is_paused {
            self.count("pause");
            self.nodes[node].is_paused = true;
            self.world.pause(self.nodes[node].at);
        }
    }

    pub(crate) fn resume(&mut self, node: usize) {
        if self.nodes[node].is_paused {
            self.nodes[node].is_paused = false;
            self.world.resume(self.nodes[node].at);
        }
    }

    /// A flush takes so many microseconds at most.
    pub(crate) fn set_disk(&mut self, node: usize, micros: u64) {
        let fsync = DurationRange::micros(micros / 4, micros);
        self.world.set_fsync(self.nodes[node].at, Some(fsync));
    }

    /// The disk of a member is lost.
    pub(crate) fn lose(&mut self, node: usize) {
        self.world.replace_disk(self.nodes[node].at, Vec::new());
        self.nodes[node].backup = None;
    }

    /// A copy of a member's disk is kept.
    pub(crate) fn back_up(&mut self, node: usize) {
        let records = self.world.records(self.nodes[node].at).to_vec();
        self.nodes[node].backup = Some(records);
    }

    /// The disk of a member is put back to its copy, if there is one; its operator says so, or not.
    pub(crate) fn restore(&mut self, node: usize, is_told: bool) {
        let Some(backup) = self.nodes[node].backup.take() else { return };
        self.world.replace_disk(self.nodes[node].at, backup);
        if is_told {
            let mut is_lost = self.nodes[node].is_lost.lock().expect("one thread runs a world");
            *is_lost = Some("the log is a copy".to_owned());
        }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.world.cut_one_way(self.nodes[from].at, self.nodes[to].at);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.world.heal();
    }

    /// Divides the members into two sides that do not reach each other.
    pub(crate) fn divide(&mut self, is_second: impl Fn(usize) -> bool) {
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                if is_second(a) != is_second(b) {
                    self.cut(a, b);
                }
            }
        }
    }

    // People.

    pub(crate) fn say(&mut self, node: usize, text: &str) {
        let said = Command::Say { room: "general".into(), text: text.into() };
        if self.nodes[node].lies.is_empty() {
            self.checker.on_said(self.nodes[node].id, text, self.world.now().as_micros());
        }
        self.world.command(self.nodes[node].at, said);
    }

    fn on_type(&mut self) {
        if !self.is_typing {
            return;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        if self.is_up(node) {
            let text = format!("text {}", self.typed);
            self.typed += 1;
            self.say(node, &text);
        }
        let gap = self.rng.random_range(0..=self.weather.typing * 2);
        self.plan(self.now() + gap.max(1_000), Due::Type);
    }

    pub(crate) fn begin(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
        self.plan(self.now() + 200_000, Due::Type);
        self.plan(self.now() + SECOND, Due::Weather);
    }

    /// Where everybody stands, for a failure's message.
    pub(crate) fn tell(&self) -> String {
        let lines = (0..self.nodes.len()).map(|node| {
            let Node { id, lies, .. } = &self.nodes[node];
            let Some(it) = self.status(node) else { return format!("{id} {lies:?} is down") };
            let BftStatus { epoch, view, active, leader, reached, slot, place, .. } = it;
            format!(
                "{id} {lies:?} epoch {} view {} {} of {leader}, reaches {reached}, slot {} place \
                 {} pending {} silent {:?}",
                epoch.0,
                view.0,
                if active { "active" } else { "in change" },
                slot.0,
                place.0,
                it.pending,
                it.silent,
            )
        });
        lines.collect::<Vec<_>>().join("\n  ")
    }

    /// Texts that a member's disk keeps, with its last final place.
    pub(crate) fn kept(&self, node: usize) -> (Vec<Arc<str>>, SeqNo) {
        let log = self.log(node);
        let texts = log.typed().iter().flat_map(|it| it.items.iter().map(|it| &it.payload));
        let place = self.status(node).map_or(SeqNo(0), |it| it.place);
        (texts.cloned().collect(), place)
    }
}
