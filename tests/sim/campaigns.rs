//! Campaigns against honest fleets: overload, loss, flapping, mass death, crashes at every step,
//! lost disks and wrong clocks. Nobody who runs and can be reached is ever removed; nobody who is
//! dead stays; all who live are in at the end. `SEEDS=n` runs more, `SEED=n` one alone.

use crate::common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::campaign::{Run, Script, Truth, campaign, dice};
use common::checkers::{check_safety, lives_have_one_key, overlay_fault, seeds_agree};
use common::{Fleet, Plan};
use folkmoot::model::{Endpoint, Rng, SeedId};
use folkmoot::sim::{Weather, WorldOptions};
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A fleet in which everybody is in and the overlay is whole.
fn settled(seed: u64, plan: &Plan) -> Fleet {
    let mut fleet = Fleet::started(seed, plan);
    fleet.world.run_for(plan.stagger * u32::from(plan.peers));
    fleet.settle(secs(30));
    let peers = fleet.peers.clone();
    fleet.run_until(secs(30), "the overlay is whole", |fleet| {
        overlay_fault(fleet, &peers).is_none()
    });
    fleet.world.run_for(secs(2));
    fleet
}

fn plan(seeds: u16, peers: u16) -> Plan {
    Plan { seeds, peers, pinned: true, stagger: millis(100), ..Plan::default() }
}

fn draw(rng: &mut Rng, from_ms: u64, to_ms: u64) -> Duration {
    millis(rng.random_range(from_ms..=to_ms))
}

fn neighbors(fleet: &Fleet, peer: Endpoint) -> Vec<Endpoint> {
    let node = fleet.peer(peer).expect("it is up");
    node.overlay().neighbors().keys().copied().collect()
}

/// Checks every safety rule, and judges the removals.
fn close(mut run: Run, fleet: &Fleet, truth: &Truth) -> Run {
    check_safety(fleet);
    lives_have_one_key(fleet, &truth.liars);
    run.judge(fleet, truth);
    run
}

/// Who is struck by the overload: some of the peers, the seeds, or both.
fn overload_victims(seed: u64, fleet: &Fleet) -> Vec<Endpoint> {
    let half = fleet.peers.len() / 2;
    match seed % 4 {
        0 => fleet.peers.clone(),
        1 => fleet.seeds.clone(),
        2 => fleet.peers[..half].to_vec(),
        _ => fleet.peers[..half].iter().chain(&fleet.seeds).copied().collect(),
    }
}

/// Pauses and slowness for the victims, several at once, each for up to 20 s.
///
/// A pause of half a second and 5 ms for each input are what a busy machine may do to anybody:
/// nobody is excused by them. Nor is anybody by what happens to seeds and other peers.
fn overload(seed: u64, fleet: &Fleet) -> Script {
    let mut rng = dice(seed);
    let mut script = Script::default();
    for victim in overload_victims(seed, fleet) {
        let is_seed = fleet.seeds.contains(&victim);
        let mut at = fleet.world.now().after(draw(&mut rng, 0, 10_000));
        let end = fleet.world.now().after(secs(70));
        while at < end {
            let (is_pause, is_heavy) = (rng.random_bool(0.6), rng.random_bool(0.7));
            let (lasts, by) = match (is_pause, is_heavy) {
                (true, true) => (draw(&mut rng, 500, 20_000), Duration::ZERO),
                (true, false) => (draw(&mut rng, 50, 500), Duration::ZERO),
                (false, true) => (draw(&mut rng, 1_000, 20_000), draw(&mut rng, 5, 200)),
                (false, false) => (draw(&mut rng, 1_000, 20_000), draw(&mut rng, 1, 5)),
            };
            script.at(at, move |fleet, truth| {
                if is_heavy && !is_seed {
                    truth.falls_ill(victim, fleet.world.now());
                }
                if is_pause { fleet.world.pause(victim) } else { fleet.world.slow_down(victim, by) }
            });
            at = at.after(lasts);
            script.at(at, move |fleet, truth| {
                fleet.world.resume(victim);
                fleet.world.slow_down(victim, Duration::ZERO);
                truth.recovers(victim, fleet.world.now());
            });
            at = at.after(draw(&mut rng, 200, 15_000));
        }
    }
    script
}

#[test]
fn overloaded_nodes_remove_nobody_who_runs_and_come_back_by_themselves() {
    campaign("overload", 32, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let timers_first = seed / 4 % 2 == 1;
        let options = WorldOptions { timers_first, ..WorldOptions::default() };
        let mut fleet = settled(seed, &Plan { options, ..plan(3, 12) });
        overload(seed, &fleet).play(&mut fleet, &mut truth);
        fleet.calm_down(&mut truth);
        let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
        run.settle(&mut fleet, (&seeds, &peers), secs(60));
        fleet.world.run_for(secs(20));
        close(run, &fleet, &truth)
    });
}

/// How the path of the faulty one percent is broken.
fn one_way(seed: u64, fleet: &mut Fleet, victim: Endpoint, broken: bool) {
    match seed % 3 {
        0 => fleet.world.deafen(victim, broken),
        1 => fleet.world.mute(victim, broken),
        // Only a third of the members do not reach it: a majority of witnesses does, so it stays.
        _ => {
            let third = fleet.peers.iter().step_by(3).copied().collect::<Vec<_>>();
            for other in third.into_iter().filter(|it| *it != victim) {
                if broken {
                    fleet.world.cut_one_way(other, victim);
                } else {
                    fleet.world.mend(other, victim);
                }
            }
        }
    }
}

#[test]
fn one_way_loss_at_one_percent_of_members_costs_exactly_those_their_membership() {
    campaign("one-way loss", 6, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let mut fleet = settled(seed, &plan(3, 100));
        let victim = fleet.peers[dice(seed).random_range(0..100)];
        let (is_partial, is_permanent) = (seed % 3 == 2, seed / 3 % 2 == 0);
        let seeds = fleet.seeds.clone();
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != victim).collect();
        for _ in 0..if is_permanent { 1 } else { 3 } {
            if !is_partial {
                truth.falls_ill(victim, fleet.world.now());
            }
            one_way(seed, &mut fleet, victim, true);
            let members = if is_partial { fleet.peers.clone() } else { rest.clone() };
            let since = fleet.world.now();
            run.settle(&mut fleet, (&seeds, &members), secs(20));
            let wait = if is_permanent { secs(60) } else { secs(20) };
            fleet.world.run_until(since.after(wait));
            if is_permanent {
                run.settle(&mut fleet, (&seeds, &members), Duration::ZERO);
            } else {
                one_way(seed, &mut fleet, victim, false);
                truth.recovers(victim, fleet.world.now());
                fleet.world.run_for(secs(20));
            }
        }
        if !is_permanent {
            let everybody = fleet.peers.clone();
            run.settle(&mut fleet, (&seeds, &everybody), secs(60));
        }
        close(run, &fleet, &truth)
    });
}

/// Cuts links on and off: single ones, or all links of a peer to its neighbors, and now and then
/// the path to one seed. A quorum of the seeds reaches everybody all the time.
fn flapping(seed: u64, fleet: &Fleet) -> Script {
    let mut rng = dice(seed);
    let mut script = Script::default();
    let (start, end) = (fleet.world.now(), fleet.world.now().after(secs(90)));
    let mut at = start;
    while at < end {
        let peer = *fleet.peers.iter().choose(&mut rng).expect("there are peers");
        let own = neighbors(fleet, peer);
        let count = if seed % 2 == 1 { own.len() } else { 1 };
        let mut others: Vec<_> = own.into_iter().sample(&mut rng, count);
        if rng.random_bool(0.2) {
            // Always the same seed: with two seeds cut off from it a peer would be out of reach.
            others = vec![fleet.seeds[0]];
        }
        let (is_one_way, lasts) = (rng.random_bool(0.3), draw(&mut rng, 100, 12_000));
        for other in others {
            script.at(at, move |fleet, _| {
                if is_one_way {
                    fleet.world.cut_one_way(peer, other);
                } else {
                    fleet.world.cut(peer, other);
                }
            });
            script.at(at.after(lasts), move |fleet, _| fleet.world.mend(peer, other));
        }
        at = at.after(draw(&mut rng, 50, 1_500));
    }
    script
}

#[test]
fn flapping_links_cost_nobody_the_membership() {
    campaign("flapping links", 10, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let mut fleet = settled(seed, &plan(3, 20));
        flapping(seed, &fleet).play(&mut fleet, &mut truth);
        fleet.calm_down(&mut truth);
        let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
        run.settle(&mut fleet, (&seeds, &peers), secs(10));
        assert_eq!(common::checkers::removals(&fleet), BTreeSet::new(), "nobody went at all");
        close(run, &fleet, &truth)
    });
}

/// Who dies together: anybody, a neighborhood, the hubs, or a rack.
fn mass_victims(seed: u64, fleet: &Fleet, count: usize) -> Vec<Endpoint> {
    let mut rng = dice(seed);
    let mut peers = fleet.peers.clone();
    match seed % 4 {
        0 => peers.into_iter().sample(&mut rng, count),
        1 => {
            let mut found = vec![*peers.iter().choose(&mut rng).expect("there are peers")];
            let mut next = 0;
            while found.len() < count {
                for neighbor in neighbors(fleet, found[next]) {
                    if !found.contains(&neighbor) {
                        found.push(neighbor);
                    }
                }
                next += 1;
            }
            found.truncate(count);
            found
        }
        2 => {
            peers.sort_by_key(|peer| std::cmp::Reverse(neighbors(fleet, *peer).len()));
            peers.truncate(count);
            peers
        }
        _ => peers.into_iter().skip(rng.random_range(0..20)).take(count).collect(),
    }
}

#[test]
fn a_third_dies_at_one_instant_and_exactly_that_third_is_removed() {
    campaign("correlated crash", 12, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let mut fleet = settled(seed, &plan(3, 40));
        let dead = mass_victims(seed, &fleet, 12);
        for (number, victim) in (0_u64..).zip(&dead) {
            // All crash, all go without a word, or half and half.
            let silently = match seed / 4 % 3 {
                0 => false,
                1 => true,
                _ => number % 2 == 0,
            };
            fleet.kill(&mut truth, *victim, silently);
        }
        let seeds = fleet.seeds.clone();
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| !dead.contains(it)).collect();
        run.settle(&mut fleet, (&seeds, &rest), secs(60));
        fleet.run_until(secs(60), "the overlay is mended", |fleet| {
            overlay_fault(fleet, &rest).is_none()
        });
        fleet.world.run_for(secs(20));
        close(run, &fleet, &truth)
    });
}

/// A fleet of three seeds in which somebody is about to be admitted, or to be removed.
fn about_to_decide(world: u64, is_removal: bool) -> Fleet {
    let plan = Plan {
        options: WorldOptions {
            weather: Weather { torn_tails: true, ..Weather::calm() },
            ..WorldOptions::default()
        },
        ..plan(3, 5)
    };
    let mut fleet = Fleet::new(world, &plan);
    let last = fleet.peers[4];
    for host in fleet.seeds.clone().into_iter().chain(fleet.peers.clone()) {
        if is_removal || host != last {
            fleet.world.boot(host);
        }
    }
    fleet.world.run_for(secs(6));
    fleet
}

/// Lets the vote begin.
fn begin(fleet: &mut Fleet, truth: &mut Truth, is_removal: bool) {
    let last = fleet.peers[4];
    if is_removal {
        fleet.kill(truth, last, false);
    } else {
        fleet.world.boot(last);
    }
}

#[test]
fn a_seed_crashes_at_every_step_of_a_vote_and_the_vote_ends_as_it_should() {
    campaign("seed crash at every step", 6, |seed| {
        let (is_removal, number, world) =
            (seed % 2 == 1, usize::try_from(seed / 2 % 3).expect("small"), seed / 6);
        // First without a crash, to know how many steps the vote takes that seed.
        let mut fleet = about_to_decide(world, is_removal);
        let victim = fleet.seeds[number];
        let before = fleet.world.moves(victim);
        begin(&mut fleet, &mut Truth::default(), is_removal);
        fleet.world.run_for(secs(2));
        let steps = fleet.world.moves(victim) - before;
        assert!(steps > 20, "the vote is over in {steps} steps");
        let mut all = Run::default();
        for step in 1..=steps {
            let (mut run, mut truth) = (Run::default(), Truth::default());
            let mut fleet = about_to_decide(world, is_removal);
            fleet.world.crash_after(victim, step);
            begin(&mut fleet, &mut truth, is_removal);
            let crashed = fleet.world.run_while(|world| world.is_up(victim), secs(10));
            assert!(crashed, "step {step} of {steps} comes again");
            fleet
                .world
                .run_for([millis(1), millis(400), secs(4)][usize::try_from(step % 3).unwrap()]);
            fleet.world.restart(victim);
            let (seeds, mut members) = (fleet.seeds.clone(), fleet.peers.clone());
            members.truncate(if is_removal { 4 } else { 5 });
            run.settle(&mut fleet, (&seeds, &members), secs(40));
            fleet.run_until(secs(20), "the seeds agree", seeds_agree);
            let run = close(run, &fleet, &truth);
            all.excused += run.excused;
            all.settled.extend(run.settled);
            let of_step = |what: Vec<String>| {
                what.into_iter().map(move |it| format!("step {step} of {steps}: {it}"))
            };
            all.wrong.extend(of_step(run.wrong));
            all.stale.extend(of_step(run.stale));
            all.missed.extend(of_step(run.missed));
        }
        all
    });
}

#[test]
fn a_minority_of_seeds_loses_its_disks_while_members_come_and_go() {
    campaign("disk loss", 16, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let (count, minority) = if seed % 2 == 0 { (3, 1) } else { (5, 2) };
        let mut fleet = settled(seed, &plan(count, 10));
        let mut rng = dice(seed);
        let mut script = churn(&mut rng, &fleet, secs(60));
        let mut at = fleet.world.now();
        let end = at.after(secs(60));
        while at < end {
            for victim in fleet.seeds.clone().into_iter().sample(&mut rng, minority) {
                let at = at.after(draw(&mut rng, 0, 3_000));
                script.at(at, move |fleet, _| {
                    let is_ready = |it: &&Endpoint| {
                        fleet.seed(**it).is_some_and(|it| it.authority().is_ready())
                    };
                    // What counts as a minority are all that have not caught up yet.
                    let others = fleet.seeds.iter().filter(|it| **it != victim);
                    if others.filter(is_ready).count() >= fleet.book.quorum() {
                        fleet.world.wipe(victim);
                    }
                });
            }
            at = at.after(draw(&mut rng, 3_000, 9_000));
        }
        script.play(&mut fleet, &mut truth);
        fleet.calm_down(&mut truth);
        let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
        run.settle(&mut fleet, (&seeds, &peers), secs(60));
        fleet.run_until(secs(30), "the seeds agree", seeds_agree);
        close(run, &fleet, &truth)
    });
}

/// Peers crash or vanish and come back, for so long.
fn churn(rng: &mut Rng, fleet: &Fleet, span: Duration) -> Script {
    let mut script = Script::default();
    let end = fleet.world.now().after(span);
    for peer in fleet.peers.clone() {
        let mut at = fleet.world.now().after(draw(rng, 0, 20_000));
        while at < end {
            let (silently, lasts) = (rng.random_bool(0.5), draw(rng, 100, 15_000));
            script.at(at, move |fleet, truth| fleet.kill(truth, peer, silently));
            at = at.after(lasts);
            script.at(at, move |fleet, truth| fleet.revive(truth, peer));
            at = at.after(draw(rng, 5_000, 30_000));
        }
    }
    script
}

#[test]
fn clocks_that_are_an_hour_off_change_nothing() {
    campaign("clock skew", 12, |seed| {
        // Two clocks may be two hours apart, not more.
        const HOUR: i64 = 3_599_000;
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let plan = plan(3, 10);
        let mut fleet = Fleet::new(seed, &plan);
        let mut rng = dice(seed);
        let mut skew = move |fleet: &mut Fleet, truth: &mut Truth| {
            for host in fleet.hosts() {
                let off = match seed % 3 {
                    0 => [0, HOUR][usize::from(rng.random_bool(0.5))],
                    1 => [0, -HOUR][usize::from(rng.random_bool(0.5))],
                    _ => [-HOUR, 0, HOUR][rng.random_range(0..3)],
                };
                fleet.world.set_skew(host, off);
                if let Some(number) = fleet.seeds.iter().position(|it| *it == host) {
                    let id = SeedId(u16::try_from(number + 1).expect("few seeds"));
                    truth.skew_ms.insert(id, off);
                }
            }
        };
        skew(&mut fleet, &mut truth);
        let at = fleet.world.now();
        for host in fleet.hosts() {
            fleet.world.boot_at(host, at);
        }
        let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
        run.settle(&mut fleet, (&seeds, &peers), secs(60));
        churn(&mut dice(seed + 1), &fleet, secs(40)).play(&mut fleet, &mut truth);
        let down: Vec<_> = fleet.peers.iter().copied().filter(|it| truth.is_unwell(*it)).collect();
        for peer in down {
            fleet.revive(&mut truth, peer);
        }
        run.settle(&mut fleet, (&seeds, &peers), secs(60));
        // Two die for good, and are found dead in spite of the clocks.
        fleet.kill(&mut truth, peers[0], false);
        fleet.kill(&mut truth, peers[1], true);
        run.settle(&mut fleet, (&seeds, &peers[2..]), secs(60));
        close(run, &fleet, &truth)
    });
}

#[test]
fn lost_packets_cost_nobody_the_membership_and_the_dead_still_go() {
    campaign("packet loss", 6, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let mut fleet = settled(seed, &plan(3, 40));
        // One packet of a hundred, of twenty, of ten; each opens, carries or ends a connection.
        let loss_ppm = [10_000, 50_000, 100_000][usize::try_from(seed % 3).unwrap_or(0)];
        fleet.world.set_weather(Weather { loss_ppm, ..Weather::calm() });
        fleet.world.run_for(secs(60));
        let dead: Vec<_> = fleet.peers.iter().copied().take(3).collect();
        for (number, victim) in dead.iter().enumerate() {
            fleet.kill(&mut truth, *victim, number == 0);
        }
        let seeds = fleet.seeds.clone();
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| !dead.contains(it)).collect();
        run.settle(&mut fleet, (&seeds, &rest), secs(30));
        close(run, &fleet, &truth)
    });
}
