//! Tests of processes, their disks and their clocks.

use super::toy::{Order, ToyReport};
use super::*;
use crate::model::WallTime;

#[test]
fn a_crash_keeps_what_was_synced_and_what_was_told() {
    let mut options = WorldOptions::default();
    options.weather.fsync = DurationRange::millis(100, 100);
    let mut world = linked_world(options);
    world.command(at(1), Order::Note(7));
    world.run_for(millis(50));
    world.command(at(1), Order::Note(8));
    world.run_for(millis(40));
    assert_eq!(world.records(at(1)), &[] as &[u64]);
    assert_eq!(world.events(), &[], "nothing leaves before its record is safe");
    world.run_for(millis(60));
    assert_eq!(told(&world, 1), [ToyReport::Noted(7)]);
    assert_eq!(told(&world, 2), [heard("note 7")]);
    world.crash(at(1));
    assert_eq!(world.records(at(1)), &[7]);
    assert!(!world.is_up(at(1)));
    world.restart(at(1));
    assert_eq!(world.machine(at(1)).unwrap().notes(), &[7]);
    world.run_for(SECOND);
    assert!(!told(&world, 2).contains(&heard("note 8")));
    assert_eq!(world.tally().troubles(FaultEffect::LostRecord), 1);
}

#[test]
fn a_crash_can_be_set_for_any_step() {
    let noted = |steps| {
        let mut world = idle_world(3, WorldOptions::default());
        dial(&mut world, 1, 2);
        dial(&mut world, 1, 3);
        world.run_for(SECOND);
        let before = world.moves(at(1));
        world.crash_after(at(1), steps);
        world.command(at(1), Order::Note(7));
        world.run_for(SECOND);
        assert_eq!(world.is_up(at(1)), steps == 0);
        let took = world.moves(at(1)) - before;
        assert!(steps == 0 || took == steps);
        let is_heard = |number| told(&world, number).contains(&heard("note 7"));
        (world.records(at(1)).len(), is_heard(2), is_heard(3))
    };
    assert_eq!(noted(1), (0, false, false), "the input is handled, nothing is safe");
    assert_eq!(noted(2), (1, false, false), "its record is safe, nothing is said");
    assert_eq!(noted(3), (1, true, false), "one of two is told");
    assert_eq!(noted(4), (1, true, true), "both are told");
    assert_eq!(noted(0), (1, true, true), "and without a crash");
}

#[test]
fn a_wiped_host_forgets_everything() {
    let mut world = linked_world(WorldOptions::default());
    world.command(at(1), Order::Note(7));
    world.run_for(SECOND);
    assert_eq!(world.records(at(1)), &[7]);
    world.wipe(at(1));
    assert_eq!(world.records(at(1)), &[] as &[u64]);
    assert!(world.machine(at(1)).unwrap().notes().is_empty());
    assert_eq!(world.tally().faults(WeatherFault::Wipe), 1);
}

#[test]
fn a_snapshot_may_stand_for_the_log_at_any_sync() {
    let mut options = WorldOptions::default();
    options.weather.snapshot_percent = 100;
    let mut world = idle_world(1, options);
    for number in 0..10 {
        world.command(at(1), Order::Note(number));
        world.run_for(millis(number));
    }
    world.run_for(SECOND);
    world.restart(at(1));
    assert_eq!(world.machine(at(1)).unwrap().notes(), &(0..10).collect::<Vec<_>>());
    assert!(world.tally().troubles(FaultEffect::Snapshot) > 0);
}

#[test]
fn a_crash_is_told_to_the_others_and_a_vanishing_is_not() {
    let mut world = linked_world(WorldOptions::default());
    world.crash(at(2));
    world.run_for(millis(100));
    assert!(matches!(told(&world, 1)[..], [ToyReport::Down(_)]));

    let mut world = linked_world(WorldOptions::default());
    world.vanish(at(2));
    world.command(at(1), Order::Say("are you there"));
    world.run_for(60 * SECOND);
    assert_eq!(told(&world, 1), []);
    world.restart(at(2));
    world.run_for(SECOND);
    assert!(
        matches!(told(&world, 1)[..], [ToyReport::Down(_)]),
        "its kernel knows of no such link"
    );
    assert_eq!(told(&world, 2), []);
}

#[test]
fn a_paused_process_is_dialed_and_spoken_to_and_answers_for_all_of_it_later() {
    let mut world = linked_world(WorldOptions::default());
    world.command(at(2), Order::TickAfter(2 * SECOND));
    world.pause(at(2));
    world.run_for(SECOND);
    world.command(at(1), Order::Say("one"));
    world.run_for(2 * SECOND);
    world.command(at(1), Order::Say("two"));
    dial(&mut world, 1, 2);
    world.run_for(7 * SECOND);
    assert!(matches!(told(&world, 1)[..], [ToyReport::Up(_)]), "the kernel takes the call");
    assert_eq!(told(&world, 2), []);
    world.resume(at(2));
    let late = told(&world, 2);
    assert_eq!(late.len(), 4, "{late:?}");
    assert_eq!(late[0], heard("one"));
    assert!(matches!(late[1], ToyReport::Ticked(now) if now.mono == world.now()));
    assert_eq!(late[2], heard("two"));
    assert!(matches!(late[3], ToyReport::Up(_)));
    assert!(world.tally().troubles(FaultEffect::HandledLate) >= 4);
}

#[test]
fn a_late_process_may_find_its_timers_due_before_it_reads_what_came_earlier() {
    let mut world = linked_world(WorldOptions { timers_first: true, ..WorldOptions::default() });
    world.command(at(2), Order::TickAfter(2 * SECOND));
    world.pause(at(2));
    world.command(at(1), Order::Say("one"));
    world.run_for(3 * SECOND);
    world.resume(at(2));
    let late = told(&world, 2);
    assert!(matches!(late[0], ToyReport::Ticked(_)), "{late:?}");
    assert_eq!(late[1..], [heard("one")]);
}

#[test]
fn a_sync_that_ends_during_a_pause_lets_nothing_out_before_its_end() {
    let mut world = linked_world(WorldOptions::default());
    world.command(at(1), Order::Note(7));
    world.pause(at(1));
    world.run_for(SECOND);
    assert_eq!((world.records(at(1)), world.events()), (&[7][..], &[][..]));
    world.resume(at(1));
    world.run_for(SECOND);
    assert_eq!(told(&world, 1), [ToyReport::Noted(7)]);
    assert_eq!(told(&world, 2), [heard("note 7")]);
}

#[test]
fn an_endless_loop_ends_at_the_limit_of_steps() {
    let mut world = idle_world(1, WorldOptions { steps_max: 1_000, ..WorldOptions::default() });
    let said = failure(|| {
        world.command(at(1), Order::Spin);
        world.run_for(SECOND);
    });
    assert!(said.contains("SEED=5") && said.contains("1000 steps"), "{said}");
}

#[test]
fn a_slow_host_handles_everything_late_and_in_order() {
    let mut world = linked_world(WorldOptions::default());
    world.slow_down(at(2), millis(300));
    world.command(at(1), Order::Say("one"));
    world.command(at(1), Order::Say("two"));
    world.run_for(millis(250));
    assert_eq!(told(&world, 2), []);
    world.run_for(millis(250));
    assert_eq!(told(&world, 2), [heard("one")]);
    world.run_for(millis(250));
    assert_eq!(told(&world, 2), [heard("one"), heard("two")]);
}

#[test]
fn clocks_start_with_the_process_and_may_be_wrong() {
    let options = WorldOptions { epoch: WallTime(1_000_000), ..WorldOptions::default() };
    let mut world = idle_world(1, options);
    world.run_for(10 * SECOND);
    world.restart(at(1));
    world.set_skew(at(1), -4_000);
    world.command(at(1), Order::TickAfter(SECOND));
    world.run_for(2 * SECOND);
    let ToyReport::Ticked(now) = told(&world, 1)[0] else { panic!("{:?}", world.events()) };
    assert_eq!(now.mono, Time::ZERO.after(SECOND));
    assert_eq!(now.wall, WallTime(1_007_000));
    assert_eq!(world.tally().faults(WeatherFault::Skew), 1);
}

#[test]
fn calm_brings_back_everybody_but_the_buried() {
    let mut world = idle_world(4, WorldOptions::default());
    world.crash(at(1));
    world.vanish(at(2));
    world.bury(at(3));
    world.pause(at(4));
    world.calm_down();
    assert_eq!([1, 2, 3, 4].map(|number| world.is_up(at(number))), [true, true, false, true]);
    dial(&mut world, 4, 2);
    assert!(world.run_while(|world| world.open_links(at(4), at(2)) == 0, SECOND));
    assert!(!world.run_while(|world| !world.is_up(at(3)), SECOND));
}

#[test]
fn a_kill_keeps_what_was_written_and_lets_out_nothing_that_waited() {
    let mut options = WorldOptions::default();
    options.weather.fsync = DurationRange::millis(100, 100);
    let mut world = linked_world(options);
    world.command(at(1), Order::Note(7));
    world.run_for(millis(50));
    world.kill(at(1));
    assert_eq!(world.records(at(1)), &[7]);
    world.restart(at(1));
    world.run_for(SECOND);
    assert_eq!(world.machine(at(1)).unwrap().notes(), &[7]);
    assert!(!told(&world, 2).contains(&heard("note 7")));
    assert_eq!(world.tally().faults(WeatherFault::Kill), 1);
    assert_eq!(world.tally().troubles(FaultEffect::LostRecord), 0);
}

#[test]
fn a_disk_can_be_slow_lost_or_that_of_an_earlier_day() {
    let mut world = idle_world(1, WorldOptions::default());
    world.set_fsync(at(1), Some(DurationRange::millis(400, 400)));
    world.command(at(1), Order::Note(7));
    world.run_for(millis(399));
    assert_eq!(world.records(at(1)), &[] as &[u64]);
    world.run_for(millis(1));
    assert_eq!(world.records(at(1)), &[7]);
    world.set_fsync(at(1), None);
    let backup = world.records(at(1)).to_vec();
    world.command(at(1), Order::Note(8));
    world.run_for(millis(10));
    assert_eq!(world.records(at(1)), &[7, 8]);
    world.replace_disk(at(1), backup);
    assert!(!world.is_up(at(1)));
    world.boot(at(1));
    assert_eq!(world.machine(at(1)).unwrap().notes(), &[7]);
    world.replace_disk(at(1), Vec::new());
    world.boot(at(1));
    assert_eq!(world.machine(at(1)).unwrap().notes(), &[] as &[u64]);
    assert_eq!(world.tally().faults(WeatherFault::SlowDisk), 1);
}

#[test]
fn a_host_that_moves_is_found_at_its_new_address_alone() {
    let mut world = linked_world(WorldOptions::default());
    world.relocate(at(2), at(7));
    world.run_for(SECOND);
    assert!(told(&world, 1).iter().any(|told| matches!(told, ToyReport::Down(_))));
    world.boot(at(7));
    dial(&mut world, 1, 7);
    world.run_for(SECOND);
    assert_eq!(world.open_links(at(1), at(7)), 1);
    dial(&mut world, 1, 2);
    world.run_for(10 * SECOND);
    let failed = told(&world, 1).iter().filter(|it| matches!(it, ToyReport::Failed(_))).count();
    assert_eq!(failed, 1, "nobody is left at the old one");
}

#[test]
fn deaths_strike_at_effects_and_end_by_themselves() {
    let mut world = stormy_world(3, &Weather::calm());
    let lasting = DurationRange::millis(10, 100);
    world.set_weather(Weather { death_ppm: 20_000, lasting, ..Weather::calm() });
    world.run_for(20 * SECOND);
    let deaths = |world: &World<Toy>| {
        let tally = world.tally();
        (tally.faults(WeatherFault::Crash), tally.faults(WeatherFault::Kill))
    };
    let (crashes, kills) = deaths(&world);
    assert!(crashes > 10 && kills > 10, "{crashes} {kills}");
    told_is_durable(&world).unwrap();
    world.set_weather(Weather::calm());
    world.run_for(SECOND);
    assert_eq!(deaths(&world), (crashes, kills));
    assert!(world.hosts().all(|host| world.is_up(host)));
}

#[test]
fn who_is_late_or_cut_off_is_known_to_the_test() {
    let mut world = linked_world(WorldOptions::default());
    assert!(world.is_prompt(at(1)) && world.are_joined(at(1), at(2)));
    world.cut_one_way(at(2), at(1));
    assert!(!world.are_joined(at(1), at(2)));
    world.heal();
    assert!(world.are_joined(at(1), at(2)));
    world.pause(at(1));
    world.slow_down(at(2), millis(5));
    assert!(!world.is_prompt(at(1)) && !world.is_prompt(at(2)));
    world.calm_down();
    assert!(world.is_prompt(at(1)) && world.is_prompt(at(2)));
    world.crash(at(1));
    assert!(!world.is_prompt(at(1)));
    let before = world.clocks(at(2)).mono;
    world.run_for(SECOND);
    assert_eq!(world.clocks(at(2)).mono, before.after(SECOND));
}
