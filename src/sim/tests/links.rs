//! Tests of links, paths, strangers and liars.

use super::toy::{Order, ToyReport, text_of, words};
use super::*;
use crate::machine::{DialError, HostAnswer, LinkId};

#[test]
fn a_dial_is_answered_by_what_is_there() {
    let mut world = idle_world(3, WorldOptions::default());
    world.crash(at(2));
    world.vanish(at(3));
    let nobody = Endpoint::new(ip(2), 9);
    for to in [at(2), at(3), at(9), nobody] {
        world.command(at(1), Order::Dial(to, 5 * SECOND));
        world.run_for(6 * SECOND);
    }
    let answers =
        [DialError::Refused, DialError::TimedOut, DialError::TimedOut, DialError::Refused];
    assert_eq!(told(&world, 1), answers.map(ToyReport::Failed));
    let times: Vec<_> = world.events().iter().map(|(at, _, _)| at.as_micros() / 1_000).collect();
    assert!(times[0] < 100, "a refusal takes a round trip, not {} ms", times[0]);
    assert_eq!(times[1], 11_000);
}

#[test]
fn a_dial_over_a_path_that_heals_in_time_succeeds() {
    let mut world = idle_world(2, WorldOptions::default());
    world.cut(at(1), at(2));
    dial(&mut world, 1, 2);
    world.run_for(2 * SECOND);
    world.heal();
    world.run_for(2 * SECOND);
    assert_eq!(world.open_links(at(1), at(2)), 1);
}

#[test]
fn a_sender_gives_a_silent_path_up_in_the_end() {
    let mut world = linked_world(WorldOptions { patience: 10 * SECOND, ..WorldOptions::default() });
    world.vanish(at(2));
    world.run_for(30 * SECOND);
    assert_eq!(told(&world, 1), [], "who says nothing learns nothing");
    world.command(at(1), Order::Say("are you there"));
    world.run_for(9 * SECOND);
    assert_eq!(told(&world, 1), []);
    world.run_for(2 * SECOND);
    assert!(matches!(told(&world, 1)[..], [ToyReport::Down(_)]));
    assert_eq!(world.tally().troubles(FaultEffect::LinkTimedOut), 1);
}

#[test]
fn a_cut_holds_what_is_said_and_healing_lets_it_go_in_order() {
    let mut world = linked_world(WorldOptions::default());
    world.cut(at(1), at(2));
    for text in ["one", "two", "three"] {
        world.command(at(1), Order::Say(text));
        world.command(at(2), Order::Say(text));
    }
    dial(&mut world, 2, 1);
    world.run_for(30 * SECOND);
    assert_eq!(world.take_events().len(), 1, "only the dial came to something");
    world.heal();
    world.run_for(SECOND);
    for number in [1, 2] {
        assert_eq!(told(&world, number), ["one", "two", "three"].map(heard));
    }
    assert_eq!(world.open_links(at(1), at(2)), 1);
}

#[test]
fn a_path_cut_one_way_still_carries_the_other_way() {
    let mut world = linked_world(WorldOptions::default());
    world.cut_one_way(at(1), at(2));
    world.command(at(1), Order::Say("held"));
    world.command(at(2), Order::Say("heard"));
    dial(&mut world, 1, 2);
    dial(&mut world, 2, 1);
    world.run_for(6 * SECOND);
    let failed = ToyReport::Failed(DialError::TimedOut);
    assert_eq!(told(&world, 1), [heard("heard"), failed.clone()]);
    assert_eq!(told(&world, 2), [failed]);
    world.mend(at(1), at(2));
    world.run_for(SECOND);
    assert_eq!(told(&world, 2)[1..], [heard("held")]);
}

#[test]
fn a_deaf_host_is_heard_and_a_mute_one_hears() {
    let mut world = idle_world(3, WorldOptions::default());
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        dial(&mut world, from, to);
    }
    world.run_for(SECOND);
    world.take_events();
    world.deafen(at(1), true);
    world.mute(at(3), true);
    for number in 1..=3 {
        world.command(at(number), Order::Say("hello"));
    }
    dial(&mut world, 1, 2);
    dial(&mut world, 2, 3);
    world.run_for(6 * SECOND);
    let failed = ToyReport::Failed(DialError::TimedOut);
    assert_eq!(told(&world, 1)[..], [ToyReport::Failed(DialError::TimedOut)], "it hears nothing");
    assert_eq!(told(&world, 2), [heard("hello"), failed], "it hears the deaf and not the mute");
    assert_eq!(told(&world, 3), [heard("hello"), heard("hello")], "it hears both");
    assert_eq!(world.tally().faults(WeatherFault::CutOneWay), 2);
    world.deafen(at(1), false);
    world.mute(at(3), false);
    world.run_for(SECOND);
    assert_eq!(told(&world, 1)[1..], [heard("hello"), heard("hello")], "what was held moves on");
    assert_eq!(told(&world, 2)[2..], [heard("hello")]);
}

#[test]
fn a_partition_divides_groups_and_leaves_the_rest_alone() {
    let mut world = idle_world(5, WorldOptions::default());
    world.partition(&[&[at(1), at(2)], &[at(3), at(4)]]);
    for to in [2, 3, 5] {
        dial(&mut world, 1, to);
    }
    dial(&mut world, 3, 5);
    world.run_for(10 * SECOND);
    let links = [(1, 2), (1, 3), (1, 5), (3, 5)].map(|(a, b)| world.open_links(at(a), at(b)));
    assert_eq!(links, [1, 0, 1, 1]);
    assert_eq!(world.tally().faults(WeatherFault::Partition), 1);
    world.heal();
    dial(&mut world, 1, 3);
    world.run_for(SECOND);
    assert_eq!(world.open_links(at(1), at(3)), 1);
}

#[test]
fn a_reset_loses_what_is_under_way_and_tells_both_ends_once() {
    let mut world = linked_world(WorldOptions::default());
    world.command(at(1), Order::Say("lost"));
    world.reset_link(at(1), at(2));
    world.command(at(2), Order::Say("in vain, for nobody told me yet"));
    world.run_for(10 * SECOND);
    for number in [1, 2] {
        assert!(matches!(told(&world, number)[..], [ToyReport::Down(_)]));
    }
    let tally = world.tally();
    assert_eq!(tally.faults(WeatherFault::Reset), 1);
    assert_eq!(tally.troubles(FaultEffect::LostInFlight), 1);
    assert_eq!(tally.troubles(FaultEffect::SentInVain), 1);
}

#[test]
fn a_hangup_delivers_what_was_said_and_closes_both_ends_once() {
    let mut world = linked_world(WorldOptions::default());
    world.command(at(1), Order::Say("goodbye"));
    world.command(at(1), Order::Hangup);
    world.run_for(10 * SECOND);
    assert!(matches!(told(&world, 1)[..], [ToyReport::Down(_)]));
    let other = told(&world, 2);
    assert!(
        other[0] == heard("goodbye") && matches!(other[1..], [ToyReport::Down(_)]),
        "{other:?}"
    );

    let mut world = linked_world(WorldOptions::default());
    world.command(at(1), Order::Hangup);
    world.command(at(2), Order::Hangup);
    world.run_for(10 * SECOND);
    assert_eq!(world.events().len(), 2, "both hang up: {:?}", world.events());
}

#[test]
fn too_much_on_a_link_closes_it() {
    let mut world = linked_world(WorldOptions { queue_max: 3, ..WorldOptions::default() });
    for _ in 0..4 {
        world.command(at(1), Order::Say("flood"));
    }
    world.run_for(SECOND);
    assert!(matches!(told(&world, 1)[..], [ToyReport::Down(_)]));
    assert!(matches!(told(&world, 2)[..], [ToyReport::Down(_)]));
    assert_eq!(world.tally().troubles(FaultEffect::QueueFull), 1);
}

#[test]
fn a_machine_that_uses_a_link_against_its_knowledge_is_stopped() {
    let mut world = linked_world(WorldOptions::default());
    let link = world.machine(at(1)).unwrap().links()[0];
    let said = failure(|| assert!(world.command(at(1), Order::HangupAndSay)));
    assert!(said.contains("SEED=5") && said.contains("10.0.0.1:6000"), "{said}");
    assert!(said.contains("hung up") && said.contains("another thing"), "{said}");

    let mut world = linked_world(WorldOptions::default());
    world.crash(at(2));
    world.command(at(1), Order::Say("in vain"));
    world.run_for(SECOND);
    let said = failure(|| assert!(world.command(at(1), Order::SayOn(link, "hello"))));
    assert!(said.contains("is closed"), "{said}");

    let mut world = linked_world(WorldOptions::default());
    let said = failure(|| assert!(world.command(at(1), Order::SayOn(LinkId(1_000), "hello"))));
    assert!(said.contains("never was"), "{said}");
    let other = world.machine(at(2)).unwrap().links()[0];
    failure(|| assert!(world.command(at(1), Order::SayOn(other, "the other end's number"))));
}

#[test]
fn a_ping_asks_the_host_and_not_the_process() {
    let mut world = idle_world(4, WorldOptions::default());
    world.crash(at(2));
    world.vanish(at(3));
    world.cut_one_way(at(4), at(1));
    for number in [2, 3, 4, 9] {
        world.command(at(1), Order::PingHost(ip(number)));
        world.run_for(2 * SECOND);
    }
    let answers =
        [HostAnswer::Answered, HostAnswer::Silent, HostAnswer::Silent, HostAnswer::Silent];
    assert_eq!(told(&world, 1), answers.map(ToyReport::Pinged));
}

#[test]
fn a_tampering_host_says_something_else() {
    let mut world = linked_world(WorldOptions::default());
    world.set_tamper(
        at(1),
        Box::new(|_, out| {
            assert_eq!((out.from, out.to), (at(1), Some(at(2))));
            assert_eq!(text_of(out.msg), "truth");
            vec![words(1, "lie"), words(2, "another")]
        }),
    );
    world.command(at(1), Order::Say("truth"));
    world.run_for(SECOND);
    assert_eq!(told(&world, 2), ["lie", "another"].map(heard));
    assert_eq!(world.tally().troubles(FaultEffect::Tampered), 1);
}

#[test]
fn an_intruder_can_say_anything_and_is_answered() {
    let mut world = idle_world(1, WorldOptions::default());
    let stranger = world.intruder_dial(ip(66), at(1));
    world.intruder_send(stranger, words(1, "let me in"));
    world.intruder_garble(stranger, "no json");
    assert_eq!(world.intruder_state(stranger), IntruderState::Dialing);
    world.run_for(SECOND);
    assert_eq!(world.intruder_state(stranger), IntruderState::Open);
    let told = told(&world, 1);
    assert_eq!(told[1..], [heard("let me in"), ToyReport::Garbled("no json".to_owned())]);
    world.command(at(1), Order::Say("no"));
    world.command(at(1), Order::Hangup);
    world.run_for(SECOND);
    assert_eq!(world.intruder_state(stranger), IntruderState::Closed);
    let inbox: Vec<_> = world.intruder_inbox(stranger).iter().map(|(_, m)| text_of(m)).collect();
    assert_eq!(inbox, ["no"]);

    let refused = world.intruder_dial(ip(66), Endpoint::new(ip(1), 9));
    world.run_for(SECOND);
    assert_eq!(world.intruder_state(refused), IntruderState::Failed(DialError::Refused));
    let leaving = world.intruder_dial(ip(66), at(1));
    world.intruder_hangup(leaving);
    world.run_for(SECOND);
    assert_eq!(world.intruder_state(leaving), IntruderState::Closed);
}

#[test]
fn on_a_lossy_path_everything_comes_and_in_order_but_late() {
    let weather = Weather { loss_ppm: 200_000, ..Weather::calm() };
    let mut world = linked_world(WorldOptions { weather, ..WorldOptions::default() });
    world.set_meter(|_| 7);
    let mut waits = Vec::new();
    for _ in 0..200 {
        let said = world.now();
        world.command(at(1), Order::Say("once"));
        let waiting = |world: &World<Toy>| world.events().is_empty();
        assert!(world.run_while(waiting, 60 * SECOND), "nothing is gone");
        waits.push(world.take_events()[0].0.since(said));
    }
    waits.sort_unstable();
    assert!(waits[100] < millis(5), "most are not lost: {:?}", waits[100]);
    let late = waits.iter().filter(|wait| **wait >= millis(200)).count();
    assert!((20..=60).contains(&late), "one of five is repeated after 200 ms, not {late} of 200");
    assert!(waits.iter().any(|wait| *wait >= millis(600)), "the second repetition takes longer");
    for text in ["one", "two", "three"].iter().cycle().take(60) {
        world.command(at(1), Order::Say(text)); // The toy checks the order.
    }
    world.run_for(60 * SECOND);
    assert_eq!(told(&world, 2).len(), 60);
    let sent = world.sent(at(1));
    assert_eq!((sent.messages, sent.bytes), (260, 260 * 7), "a repetition is no message");
    assert_eq!(world.traffic().values().map(|it| it.messages).sum::<u64>(), 260);
}

#[test]
fn calls_and_pings_get_lost_too() {
    let weather = Weather { loss_ppm: 500_000, ..Weather::calm() };
    let mut world = idle_world(2, WorldOptions { weather, ..WorldOptions::default() });
    for _ in 0..60 {
        world.command(at(1), Order::PingHost(ip(2)));
        dial(&mut world, 1, 2);
        world.run_for(10 * SECOND);
    }
    let told = told(&world, 1);
    let count = |what: &dyn Fn(&ToyReport) -> bool| told.iter().filter(|it| what(it)).count();
    let silent = count(&|it| *it == ToyReport::Pinged(HostAnswer::Silent));
    assert!((30..60).contains(&silent), "three of four pings are lost, not {silent} of 60");
    let late = count(&|it| *it == ToyReport::Failed(DialError::TimedOut));
    assert!((5..50).contains(&late), "calls are repeated, and may fail all the same: {late}");
}

#[test]
fn a_system_that_backs_off_may_be_late_by_as_long_as_the_path_was_silent() {
    let late_by = |backs_off, seed| {
        let mut world = World::new(seed, WorldOptions { backs_off, ..WorldOptions::default() });
        for number in [1, 2] {
            world.add_host(at(number), Box::new(Toy::idle));
            world.boot(at(number));
        }
        dial(&mut world, 1, 2);
        world.run_for(SECOND);
        world.cut(at(1), at(2));
        world.command(at(1), Order::Say("late"));
        world.run_for(20 * SECOND);
        world.heal();
        let healed = world.now();
        world.take_events();
        assert!(world.run_while(|world| world.events().is_empty(), 21 * SECOND));
        world.now().since(healed)
    };
    assert!((0..20).all(|seed| late_by(false, seed) < millis(10)));
    let longest = (0..20).map(|seed| late_by(true, seed)).max().unwrap();
    assert!(longest > 10 * SECOND, "{longest:?}");
}
