//! Contacts against a clock that only the test moves.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it looks for")]

use super::*;
use crate::machine::Effect;
use crate::machine::timer::TimerQueue;
use crate::model::WallTime;

fn peer(port: u16) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), port)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

struct Bench {
    contacts: Contacts,
    timers: TimerQueue<Timer>,
    now: Time,
    told: Vec<(u64, Event)>,
    pings: Vec<(u64, LinkId)>,
    calls: Vec<u64>,
}

impl Bench {
    fn new(config: Config) -> Self {
        let mut bench = Self {
            contacts: Contacts::new(config),
            timers: TimerQueue::default(),
            now: Time::ZERO,
            told: Vec::new(),
            pings: Vec::new(),
            calls: Vec::new(),
        };
        bench.run(|it, now, fx| it.on_start(now, fx));
        bench
    }

    fn run(&mut self, work: impl FnOnce(&mut Contacts, Now, &mut Effects<Contacts>)) {
        let mut fx = Effects::default();
        work(&mut self.contacts, Now { mono: self.now, wall: WallTime(0) }, &mut fx);
        let at = self.now.as_micros() / 1_000_000;
        for effect in fx.drain() {
            match effect {
                Effect::Send { link, .. } => self.pings.push((at, link)),
                Effect::SetTimer { timer, after } => self.timers.set(timer, self.now.after(after)),
                Effect::StopTimer(timer) => self.timers.stop(&timer),
                Effect::Emit(Event::Call { .. }) => self.calls.push(at),
                Effect::Emit(event) => self.told.push((at, event)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn link_up(&mut self, link: u64, port: u16) {
        self.run(|it, now, fx| it.on_link_up(now, LinkId(link), peer(port), fx));
    }

    fn link_down(&mut self, link: u64, port: u16, is_agreed: bool) {
        self.run(|it, now, fx| it.on_link_down(now, LinkId(link), peer(port), is_agreed, fx));
    }

    fn hear(&mut self, port: u16) {
        self.run(|it, now, fx| it.on_heard(now, peer(port), fx));
    }

    fn pass(&mut self, until: u64, mut each: impl FnMut(&mut Self)) {
        let until = Time::ZERO.after(secs(until));
        while let Some(at) = self.timers.next().filter(|at| *at <= until) {
            self.now = at;
            let timer = self.timers.pop_due(at).expect("one is due");
            self.run(|it, now, fx| it.on_timer(now, timer, fx));
            each(self);
        }
        self.now = until;
    }
}

#[test]
fn a_silent_peer_is_unreachable_once_and_back_with_the_first_sign() {
    let mut bench = Bench::new(Config::default());
    bench.link_up(1, 2);
    bench.pass(5, |_| {});
    bench.hear(2);
    bench.link_down(1, 2, false);
    bench.pass(60, |bench| {
        if bench.calls.len() > 2 {
            return;
        }
        bench.run(|it, _, fx| it.on_call_failed(peer(2), fx));
    });
    let [(at, Event::Unreachable { silent_for, .. })] = &bench.told[..] else {
        panic!("{:?}", bench.told)
    };
    assert!((35..37).contains(at) && *silent_for >= secs(30), "{at}: {silent_for:?}");
    let now = Now { mono: bench.now, wall: WallTime(0) };
    assert_eq!(bench.contacts.unreachable_for(now, peer(2)), Some(secs(55)));
    assert!((2..=6).contains(&bench.calls.len()), "gently: {:?}", bench.calls);
    bench.link_up(2, 2);
    assert_eq!(bench.told[1], (60, Event::Reachable { peer: peer(2), after: secs(55) }));
    assert_eq!(bench.contacts.unreachable_for(now, peer(2)), None);
}

#[test]
fn whoever_is_idle_is_pinged_and_does_not_become_unreachable() {
    let mut bench = Bench::new(Config::default());
    bench.link_up(1, 2);
    bench.pass(100, |bench| {
        if let Some((at, _)) = bench.pings.last().copied()
            && at == bench.now.as_micros() / 1_000_000
        {
            bench.hear(2);
        }
    });
    assert!((7..=10).contains(&bench.pings.len()), "each 10 s or so: {:?}", bench.pings);
    assert_eq!(bench.told, []);
}

#[test]
fn looks_are_rare_while_nobody_is_silent() {
    let mut bench = Bench::new(Config::default());
    bench.link_up(1, 2);
    let mut looks = 0;
    for second in 1..=100 {
        bench.pass(second, |_| looks += 1);
        bench.hear(2);
    }
    assert!((9..=12).contains(&looks), "{looks} in 100 s");
    assert_eq!((bench.pings.len(), &bench.told[..]), (0, &[][..]));
}

#[test]
fn a_goodbye_ends_the_watch_and_a_broken_link_does_not() {
    let mut bench = Bench::new(Config::default());
    bench.link_up(1, 2);
    bench.link_up(2, 3);
    bench.link_down(1, 2, true);
    bench.link_down(2, 3, false);
    assert_eq!(bench.contacts.metrics().watched, 1);
    bench.run(|it, _, _| it.on_gone(peer(3)));
    bench.pass(100, |_| {});
    assert_eq!((bench.contacts.metrics().watched, &bench.told[..]), (0, &[][..]));
}

#[test]
fn a_node_that_slept_blames_nobody_for_its_own_silence() {
    let mut bench = Bench::new(Config::default());
    bench.link_up(1, 2);
    bench.pass(9, |bench| bench.hear(2));
    bench.now = Time::ZERO.after(secs(200));
    let timer = bench.timers.pop_due(bench.now).expect("a look is due");
    bench.run(|it, now, fx| it.on_timer(now, timer, fx));
    assert_eq!(bench.told, []);
    bench.pass(240, |_| {});
    assert_eq!(bench.told.len(), 1, "but from then on it counts");
}

#[test]
fn a_peer_added_by_hand_is_called_until_it_is_there_and_never_once_removed() {
    let mut bench = Bench::new(Config::default());
    bench.run(|it, now, fx| it.add(now, peer(2), fx));
    let mut seen = 0;
    let mut fail = move |bench: &mut Bench| {
        if bench.calls.len() > seen {
            seen = bench.calls.len();
            bench.run(|it, _, fx| it.on_call_failed(peer(2), fx));
        }
    };
    fail(&mut bench);
    bench.pass(200, fail);
    assert_eq!(bench.calls, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    bench.link_up(1, 2);
    bench.pass(230, |bench| bench.hear(2));
    bench.link_down(1, 2, true);
    bench.pass(240, |_| {});
    assert_eq!(bench.calls.last(), Some(&231), "a good link makes the pause short again");
    bench.run(|it, _, fx| it.remove(peer(2), fx));
    bench.pass(900, |_| {});
    assert_eq!(bench.calls.len(), 10);
    assert!(bench.contacts.is_removed(peer(2)));
    assert_eq!(bench.contacts.metrics().watched, 0);
}

#[test]
fn the_watched_are_bounded_and_those_with_links_stay() {
    let config = Config { watched_max: 5, ..Config::default() };
    let mut bench = Bench::new(config);
    for port in 1..=4 {
        bench.link_up(u64::from(port), port);
        if port > 2 {
            bench.link_down(u64::from(port), port, false);
        }
    }
    for port in 5..=9 {
        bench.link_up(u64::from(port), port);
    }
    let metrics = bench.contacts.metrics();
    assert_eq!((metrics.watched, metrics.connected_peers), (5, 5));
    assert!([1, 2, 5, 6, 7].iter().all(|it| bench.contacts.last_contact(peer(*it)).is_some()));
}

/// The reasons why peers could not be added.
fn objections(bench: &Bench) -> Vec<&str> {
    let mut reasons = Vec::new();
    for (_, event) in &bench.told {
        let Event::NotAdded { reason, .. } = event else { panic!("{event:?}") };
        reasons.push(reason.as_str());
    }
    reasons
}

#[test]
fn at_the_limit_a_peer_that_is_added_already_may_be_added_again() {
    let mut bench = Bench::new(Config { by_hand_max: 2, ..Config::default() });
    for port in [2, 3, 2, 4] {
        bench.run(|it, now, fx| it.add(now, peer(port), fx));
    }
    assert_eq!(objections(&bench), ["at most 2 peers are added by hand"]);
    assert!(matches!(bench.told[..], [(_, Event::NotAdded { peer: it, .. })] if it == peer(4)));
}

#[test]
fn a_peer_that_finds_the_table_full_is_told_so() {
    let mut bench = Bench::new(Config { watched_max: 2, ..Config::default() });
    bench.link_up(1, 2);
    bench.link_up(2, 3);
    bench.run(|it, now, fx| it.add(now, peer(4), fx));
    let expected = "2 peers are watched already, and none of them can be spared";
    assert_eq!(objections(&bench), [expected]);
    bench.run(|it, now, fx| it.add(now, peer(3), fx));
    assert_eq!(bench.told.len(), 1, "one that is watched needs no place");
}

#[test]
fn at_the_limit_a_peer_that_is_removed_already_displaces_no_other() {
    let mut bench = Bench::new(Config { by_hand_max: 2, ..Config::default() });
    for port in [2, 3, 3] {
        bench.run(|it, _, fx| it.remove(peer(port), fx));
    }
    assert!(bench.contacts.is_removed(peer(2)) && bench.contacts.is_removed(peer(3)));
}
