//! Beginning of a group among members that look for it at the same time: one of them founds it,
//! and the others join.
//!
//! A member that looks asks all others every [`CALL`]; members of the group answer. At the end of a
//! [`ROUND`] without an answer, the lowest id of those that have asked in it founds the group, and
//! the others look for another round.
//!
//! As long as messages between any two members come within a round, asked and answered, one member
//! founds, whoever starts or dies meanwhile. That is all: no majority takes part, for the number of
//! members is not known. A member that hears of nobody for a round founds a group, so each side of
//! a cut founds its own, and both stay when the cut heals, because their members do not look any
//! more. A member that must not found one is told where the group is instead.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Endpoint, Time};

/// Duration of a round of looking.
pub const ROUND: Duration = Duration::from_millis(2_500);

/// Interval of the questions within a round.
pub const CALL: Duration = Duration::from_millis(500);

/// Output of [`Bootstrap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<I> {
    /// Ask all others for the group.
    Ask,
    /// A round has ended without the group, and this member is to found it: look on.
    Wait(I),
    /// Join the group by its members at these addresses. The last output.
    Join(Vec<Endpoint>),
    /// Found the group. The last output.
    Found,
}

/// A member that looks for the group.
#[derive(Debug)]
pub struct Bootstrap<I> {
    me: I,
    round_ends: Time,
    wakes_at: Time,
    /// Other members that look for the group, by what was heard in this round.
    seekers: BTreeSet<I>,
    /// Addresses of members of the group.
    found: Vec<Endpoint>,
    is_over: bool,
}

impl<I: Ord + Clone> Bootstrap<I> {
    /// Returns a member of this id whose first round begins now.
    pub fn new(me: I, now: Time) -> Self {
        let (seekers, found) = (BTreeSet::new(), Vec::new());
        Self { me, round_ends: now.after(ROUND), wakes_at: now, seekers, found, is_over: false }
    }

    /// Time at which [`Bootstrap::on_time`] is due.
    pub const fn wakes_at(&self) -> Time {
        self.wakes_at
    }

    /// Hears of another member: that it looks for the group, or that it is in the group.
    pub fn on_heard(&mut self, id: I, at: Endpoint, seeks: bool) {
        if id == self.me {
            return;
        }
        if seeks {
            self.seekers.insert(id);
        } else if !self.found.contains(&at) {
            self.found.push(at);
        }
    }

    /// Goes on, if it is time.
    pub fn on_time(&mut self, now: Time) -> Vec<Output<I>> {
        let mut out = Vec::new();
        if self.is_over || now < self.wakes_at {
            return out;
        }
        if !self.found.is_empty() {
            self.is_over = true;
            out.push(Output::Join(std::mem::take(&mut self.found)));
            return out;
        }
        if now >= self.round_ends {
            match self.seekers.first().filter(|lowest| **lowest < self.me) {
                None => {
                    self.is_over = true;
                    out.push(Output::Found);
                    return out;
                }
                Some(lowest) => out.push(Output::Wait(lowest.clone())),
            }
            self.seekers.clear();
            self.round_ends = now.after(ROUND);
        }
        self.wakes_at = now.after(CALL);
        out.push(Output::Ask);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::model::Rng;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn place(id: usize) -> Endpoint {
        Endpoint::new(Ipv4Addr::LOCALHOST.into(), 6_000 + u16::try_from(id).unwrap())
    }

    fn run_to(it: &mut Bootstrap<usize>, end: Duration) -> Vec<Output<usize>> {
        let mut out = Vec::new();
        while it.wakes_at() <= Time::ZERO.after(end) && !it.is_over {
            out.extend(it.on_time(it.wakes_at()));
        }
        out
    }

    #[test]
    fn a_lone_member_asks_for_a_round_and_founds() {
        let mut it = Bootstrap::new(3, Time::ZERO);
        let out = run_to(&mut it, ms(9_000));
        assert_eq!(out, [vec![Output::Ask; 5], vec![Output::Found]].concat());
        assert_eq!(it.wakes_at(), Time::ZERO.after(ROUND));
    }

    #[test]
    fn a_member_waits_for_a_lower_one_and_joins_whoever_answers() {
        let mut it = Bootstrap::new(3, Time::ZERO);
        it.on_heard(5, place(5), true);
        it.on_heard(3, place(3), false);
        it.on_heard(2, place(2), true);
        let out = run_to(&mut it, ROUND);
        assert_eq!(out[5..], [Output::Wait(2), Output::Ask]);
        it.on_heard(2, place(2), false);
        it.on_heard(2, place(2), false);
        assert_eq!(run_to(&mut it, ms(3_000)), [Output::Join(vec![place(2)])]);
        assert_eq!(it.on_time(Time::ZERO.after(ms(60_000))), []);
    }

    /// Longest journey of a message.
    const TRAVEL_MAX: u64 = 200;

    /// Longest time from the decision to found or join to the first answer as a member.
    const READY_MAX: u64 = 300;

    enum State {
        Seeks(Bootstrap<usize>),
        /// Gets ready as a member.
        Begins,
        Member,
        Dead,
    }

    enum Step {
        Start(usize),
        Wake(usize),
        Ready(usize),
        Kill(usize),
        Heard { to: usize, from: usize, seeks: bool },
    }

    /// Members in virtual time, whose messages come late or get lost, but of those from one to
    /// another never two in a row.
    struct World {
        rng: Rng,
        now: Time,
        loss: f64,
        agenda: BTreeMap<(Time, u64), Step>,
        planned: u64,
        members: Vec<State>,
        /// Side of the cut on which each member is.
        sides: Vec<usize>,
        lost_last: BTreeSet<(usize, usize)>,
        founders: Vec<usize>,
        /// Founder of the group of each member that has begun.
        group: BTreeMap<usize, usize>,
    }

    impl World {
        fn new(seed: u64, count: usize) -> Self {
            let mut world = Self {
                rng: Rng::seed_from_u64(seed),
                now: Time::ZERO,
                loss: 0.4,
                agenda: BTreeMap::new(),
                planned: 0,
                members: (0..count).map(|_| State::Dead).collect(),
                sides: vec![0; count],
                lost_last: BTreeSet::new(),
                founders: Vec::new(),
                group: BTreeMap::new(),
            };
            // Often all at once, often just when the rounds of others end.
            let spread = [10, 500, 2_600, 9_000][world.rng.random_range(0..4)];
            for id in 0..count {
                let at = world.rng.random_range(0..spread);
                world.plan(at, Step::Start(id));
            }
            world
        }

        fn plan(&mut self, after: u64, step: Step) {
            self.planned += 1;
            self.agenda.insert((self.now.after(ms(after)), self.planned), step);
        }

        fn say(&mut self, from: usize, seeks: bool) {
            for to in (0..self.members.len()).filter(|to| *to != from) {
                let was_lost = self.lost_last.remove(&(from, to));
                if !was_lost && self.rng.random_bool(self.loss) {
                    self.lost_last.insert((from, to));
                } else if self.sides[from] == self.sides[to] {
                    let after = self.rng.random_range(1..=TRAVEL_MAX);
                    self.plan(after, Step::Heard { to, from, seeks });
                }
            }
        }

        fn begin(&mut self, id: usize, founder: usize) {
            self.members[id] = State::Begins;
            self.group.insert(id, founder);
            let after = self.rng.random_range(1..=READY_MAX);
            self.plan(after, Step::Ready(id));
        }

        fn wake(&mut self, id: usize) {
            let State::Seeks(it) = &mut self.members[id] else { return };
            let (out, next) = (it.on_time(self.now), it.wakes_at());
            for output in out {
                match output {
                    Output::Ask => {
                        self.say(id, true);
                        self.planned += 1;
                        self.agenda.insert((next, self.planned), Step::Wake(id));
                    }
                    Output::Wait(lowest) => assert!(lowest < id),
                    Output::Found => {
                        self.founders.push(id);
                        self.begin(id, id);
                    }
                    Output::Join(places) => {
                        let by = usize::from(places[0].port()) - 6_000;
                        self.begin(id, self.group[&by]);
                    }
                }
            }
        }

        fn run(&mut self, end: u64) {
            while let Some(((at, _), step)) = self.agenda.pop_first() {
                if at > Time::ZERO.after(ms(end)) {
                    return;
                }
                self.now = at;
                match step {
                    Step::Start(id) => {
                        self.members[id] = State::Seeks(Bootstrap::new(id, at));
                        self.wake(id);
                    }
                    Step::Wake(id) => self.wake(id),
                    Step::Kill(id) => self.members[id] = State::Dead,
                    Step::Ready(id) => {
                        if matches!(self.members[id], State::Begins) {
                            self.members[id] = State::Member;
                            self.say(id, false);
                        }
                    }
                    Step::Heard { to, from, seeks } => match &mut self.members[to] {
                        State::Seeks(it) => it.on_heard(from, place(from), seeks),
                        State::Member if seeks => self.say(to, false),
                        State::Member | State::Begins | State::Dead => {}
                    },
                }
            }
        }

        /// Founders of the groups of the living, with the number of their members.
        fn groups(&self) -> BTreeMap<usize, usize> {
            let mut groups = BTreeMap::new();
            for (id, member) in self.members.iter().enumerate() {
                match member {
                    State::Member => *groups.entry(self.group[&id]).or_default() += 1,
                    State::Dead => {}
                    State::Seeks(_) | State::Begins => panic!("{id} looks for ever"),
                }
            }
            groups
        }
    }

    #[test]
    fn of_members_that_can_all_talk_one_founds_and_all_others_join() {
        for seed in 0..2_000 {
            let count = 2 + seed as usize % 6;
            let mut world = World::new(seed, count);
            world.run(60_000);
            assert_eq!(world.founders.len(), 1, "seed {seed}: {:?}", world.founders);
            assert_eq!(world.groups(), BTreeMap::from([(world.founders[0], count)]), "seed {seed}");
        }
    }

    #[test]
    fn a_member_that_dies_while_others_wait_for_it_keeps_nobody_from_founding() {
        for seed in 0..500 {
            let mut world = World::new(seed, 4);
            let lowest = world.rng.random_range(1..2_400);
            world.plan(lowest + 9_000, Step::Kill(0));
            world.plan(lowest, Step::Kill(0));
            world.run(60_000);
            let groups = world.groups();
            assert!(groups.values().sum::<usize>() >= 3, "seed {seed}: {groups:?}");
            let alive = groups.keys().filter(|it| **it != 0).count();
            assert!(alive <= 1, "seed {seed}: {groups:?}");
        }
    }

    #[test]
    fn each_side_of_a_cut_founds_one_and_both_stay_when_it_heals() {
        for seed in 0..500 {
            let mut world = World::new(seed, 5);
            world.sides = vec![0, 1, 0, 1, 1];
            world.run(30_000);
            world.sides = vec![0; 5];
            world.run(60_000);
            world.founders.sort_unstable();
            let sides: Vec<_> = world.founders.iter().map(|it| [0, 1, 0, 1, 1][*it]).collect();
            assert!(sides == [0, 1] || sides == [1, 0], "seed {seed}: {:?}", world.founders);
            assert_eq!(world.groups().len(), 2, "seed {seed}");
        }
    }
}
