//! A chat's group in the simulator: its members and their disks, the people who type, programs, and
//! operators. One seed decides everything.

mod checker;
mod machines;
mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::chat::{self, Config, Event, Replica};
use folkmoot::model::{Endpoint, KeyPair, Rng, Time};
use folkmoot::proto::chat::entry::{Body, HostPort, Member, MemberId, Origin};
use folkmoot::sim::{self, Boot, DurationRange, WorldOptions};
use rand::{RngExt as _, SeedableRng as _};

use crate::services::chat::{ChatHost, Command, Desk, Log, Record, Told, ends_process};

pub(crate) use checker::{Checker, Kind, Violation};
pub(crate) use weather::Weather;

/// The longest time between two looks at what was told.
const LOOK: u64 = 2_000;

/// One member, in all its lives.
pub(crate) struct Node {
    pub(crate) member: Member,
    desk: Arc<Mutex<Desk>>,
    pub(crate) is_removed: bool,
    /// An older copy of the disk.
    backup: Option<Vec<Record>>,
    /// True if the member must not run again: its log is not whole, or another process is it.
    pub(crate) is_spent: bool,
    is_paused: bool,
    has_begun: bool,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    Restart { node: usize },
    Operate { node: usize },
    Noticed { original: usize, copy: usize },
    Client { at: usize },
    Weather,
    Type,
}

/// A program that sends by one member.
struct Client {
    node: usize,
    number: u64,
    next: u64,
    waiting: BTreeSet<u64>,
}

/// What happened in a run, by name.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

pub(crate) struct World {
    pub(crate) world: sim::World<ChatHost>,
    pub(crate) config: Config,
    pub(crate) nodes: Vec<Node>,
    pub(crate) checker: Checker,
    pub(crate) tally: Tally,
    pub(crate) weather: Weather,
    book: Arc<Mutex<Vec<Member>>>,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    dues: BTreeMap<u64, Due>,
    number: u64,
    clients: Vec<Client>,
    typed: u64,
    is_typing: bool,
    /// No fault comes before this.
    quiet_until: u64,
    has_copied: bool,
    has_cuts: bool,
    opens_unsynced: bool,
    pub(crate) rng: Rng,
}

impl World {
    /// `count` members, of which the first founds the group; the others join by it. Without
    /// `opens_unsynced` each syncs its log when it opens it.
    pub(crate) fn new(
        seed: u64,
        config: Config,
        weather: Weather,
        (count, opens_unsynced): (u16, bool),
    ) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let options = WorldOptions {
            weather: weather.of_network(),
            patience: Duration::from_micros(weather.patience),
            timers_first: rng.random_bool(0.5),
            backs_off: true,
            opens_unsynced,
            ..WorldOptions::default()
        };
        let mut it = Self {
            world: sim::World::new(seed, options),
            config,
            nodes: Vec::new(),
            checker: Checker::default(),
            tally: Tally::new(),
            weather,
            book: Arc::default(),
            agenda: BinaryHeap::new(),
            dues: BTreeMap::new(),
            number: 0,
            clients: Vec::new(),
            typed: 0,
            is_typing: true,
            quiet_until: 0,
            has_copied: false,
            has_cuts: false,
            opens_unsynced,
            rng,
        };
        for id in 1..=count {
            let key = KeyPair::generate(&mut Rng::seed_from_u64(u64::from(id))).public();
            let at =
                HostPort { host: [10, 3, 0, u8::try_from(id).expect("few")].into(), port: 6_000 };
            it.add(Member { id: MemberId(u32::from(id)), at, key }, id == 1);
            let micros = it.rng.random_range(200..2_000);
            it.set_disk(usize::from(id) - 1, micros);
        }
        it
    }

    /// Adds a machine for this member.
    fn add(&mut self, member: Member, bootstrap: bool) {
        let desk = Desk {
            config: self.config.clone(),
            bootstrap,
            me: Arc::new(Mutex::new(member.clone())),
            book: Arc::clone(&self.book),
            syncs_at_open: !self.opens_unsynced,
            noted: Arc::new(AtomicUsize::new(0)),
        };
        let desk = Arc::new(Mutex::new(desk));
        let of_host = Arc::clone(&desk);
        let factory = move |boot: Boot<'_, Record>| {
            let desk = of_host.lock().expect("one thread runs a world").clone();
            ChatHost::new(&desk, boot.records, boot.seed)
        };
        self.world.add_host(ChatHost::endpoint(&member), Box::new(factory));
        self.nodes.push(Node {
            member,
            desk,
            is_removed: false,
            backup: None,
            is_spent: false,
            is_paused: false,
            has_begun: false,
        });
        self.list();
    }

    /// Where each member may be, for whoever looks for others.
    fn list(&mut self) {
        let all = self.nodes.iter().map(|it| it.member.clone()).collect();
        *self.book.lock().expect("one thread runs a world") = all;
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

    pub(crate) fn at(&self, node: usize) -> Endpoint {
        ChatHost::endpoint(&self.nodes[node].member)
    }

    /// The machine of a member that takes part.
    pub(crate) fn group(&self, node: usize) -> Option<&Replica> {
        self.world.machine(self.at(node))?.group()
    }

    /// The log of a member, as its disk would give it back.
    pub(crate) fn log(&self, node: usize) -> Log {
        let host = self.world.machine(self.at(node));
        host.map_or_else(|| Log::of(self.world.records(self.at(node))), |it| it.log().clone())
    }

    // Time.

    /// Runs until `until` (microseconds), or until something is wrong.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.checker.violation.is_none() && self.now() < until {
            let next = self.agenda.peek().map_or(until, |Reverse((at, _))| *at);
            let stop = next.min(until).min(self.now() + LOOK);
            self.world.run_until(Time::from_micros(stop));
            self.heed();
            while let Some(Reverse((at, number))) = self.agenda.peek().copied()
                && at <= self.now()
                && self.checker.violation.is_none()
            {
                self.agenda.pop();
                if let Some(due) = self.dues.remove(&number) {
                    self.happen(due);
                    self.heed();
                }
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Restart { node } => self.start(node),
            Due::Operate { node } => self.operate(node),
            Due::Noticed { original, copy } => self.judge_copy(original, copy),
            Due::Client { at } => self.on_client(at),
            Due::Weather => self.on_weather(),
            Due::Type => self.on_type(),
        }
    }

    /// Reads what was told.
    fn heed(&mut self) {
        for (_, host, told) in self.world.take_events() {
            // Whoever has moved since was told to at its old place.
            let Some(node) = (0..self.nodes.len()).find(|it| self.at(*it) == host) else {
                continue;
            };
            let id = self.nodes[node].member.id;
            self.checker.heed(id, &told, &mut self.tally);
            match told {
                Told::Delivered { entry, .. } => {
                    if let Body::Membership(it) = &entry.body {
                        for node in &mut self.nodes {
                            node.is_removed |= it.removed.contains(&node.member.key);
                        }
                    }
                }
                Told::Acknowledged { program, id } => {
                    self.clients[program].waiting.remove(&id.number);
                }
                Told::Rewound => {
                    self.kill(node, false);
                    self.spend(node);
                }
                Told::Group(Event::Gone) => {
                    self.kill(node, false);
                    if self.weather.is_calm {
                        self.plan(self.now() + 500_000, Due::Restart { node });
                    }
                }
                Told::Group(Event::Refused { reason }) => self.on_refused(node, &reason),
                Told::Group(_) | Told::Started { .. } | Told::Count(_) => {}
            }
        }
    }

    fn on_refused(&mut self, node: usize, reason: &str) {
        let id = self.nodes[node].member.id;
        let is_double = reason.contains("another process");
        let is_copy = self.nodes.iter().position(|it| it.member.id == id) != Some(node);
        if reason.contains("must not vote again") && !is_copy {
            self.checker.fail(Kind::Accused, format!("{id} is told: {reason}"));
        }
        if ends_process(reason) {
            self.count(if is_double { "a copy ends" } else { "told that its log is old" });
            self.kill(node, false);
            self.spend(node);
        }
    }

    // Members.

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.world.is_up(self.at(node))
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.is_up(node) || self.nodes[node].is_spent {
            return;
        }
        let at = self.at(node);
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
        let at = self.at(node);
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
            self.world.pause(self.at(node));
        }
    }

    pub(crate) fn resume(&mut self, node: usize) {
        if self.nodes[node].is_paused {
            self.nodes[node].is_paused = false;
            self.world.resume(self.at(node));
        }
    }

    /// A flush takes so many microseconds at most.
    pub(crate) fn set_disk(&mut self, node: usize, micros: u64) {
        self.world.set_fsync(self.at(node), Some(DurationRange::micros(micros / 4, micros)));
    }

    /// The machine has another address from now on, and perhaps another key.
    fn move_to(&mut self, node: usize, member: Member) {
        self.world.relocate(self.at(node), ChatHost::endpoint(&member));
        let desk = self.nodes[node].desk.lock().expect("one thread runs a world");
        *desk.me.lock().expect("one thread runs a world") = member.clone();
        drop(desk);
        self.nodes[node].member = member;
        self.list();
    }

    // Paths.

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.has_cuts = true;
            self.world.cut_one_way(self.at(from), self.at(to));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.has_cuts = false;
        self.world.heal();
    }

    /// All packets of a node vanish from now on, and nobody is told.
    pub(crate) fn silence(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|it| *it != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    // Whoever types.

    pub(crate) fn command(&mut self, node: usize, command: chat::Command) {
        self.world.command(self.at(node), Command::Group(command));
    }

    pub(crate) fn say(&mut self, node: usize, text: &str) {
        self.command(node, chat::Command::Say { room: "general".into(), text: text.into() });
    }

    /// Whether a text is final.
    pub(crate) fn is_said(&self, text: &str) -> bool {
        let is_it = |body: &Body| matches!(body, Body::Chat(chat) if *chat.payload == *text);
        self.checker.order.iter().any(|it| is_it(&it.body))
    }

    /// Nobody types any more; what waits is sent on.
    pub(crate) fn stop_typing(&mut self) {
        self.is_typing = false;
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

    pub(crate) fn begin(&mut self, members: usize) {
        (0..members).for_each(|node| self.start(node));
        for at in 0..self.weather.clients {
            let node = self.rng.random_range(0..self.nodes.len());
            let number = Origin::program(self.rng.random());
            self.clients.push(Client { node, number, next: 1, waiting: BTreeSet::new() });
            self.plan(self.now() + 2_000_000, Due::Client { at });
        }
        self.plan(self.now() + 500_000, Due::Type);
        self.plan(self.now() + 1_000_000, Due::Weather);
    }

    /// A client sends a message, or one again.
    fn on_client(&mut self, at: usize) {
        if !self.is_typing {
            return;
        }
        let gap = self.rng.random_range(50_000..800_000);
        self.plan(self.now() + gap, Due::Client { at });
        let node = self.clients[at].node;
        if !self.is_up(node) || self.nodes[node].is_paused {
            return;
        }
        let client = &mut self.clients[at];
        let number = if client.waiting.len() < 3 && self.rng.random_bool(0.7) {
            client.next += 1;
            client.waiting.insert(client.next - 1);
            client.next - 1
        } else {
            // Once more: one that waits, or even one that is done.
            let low = client.waiting.first().copied().unwrap_or(1);
            if client.next == 1 {
                return;
            }
            if self.rng.random_bool(0.8) { low } else { self.rng.random_range(1..client.next) }
        };
        let ask = Command::Client { program: at, client: client.number, number };
        self.world.command(self.at(node), ask);
    }
}
