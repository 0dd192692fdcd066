//! Neighbors, and the end of a swarm.

use super::*;

fn connects(stage: &mut TestSwarm, at: u64, id: u32, place: Option<u32>) -> Vec<Effect> {
    let place = place.map(PeerAddrId);
    stage.give(Input::Opened { link: link(at), opening: Opening { peer: PeerId(id), place } });
    stage.take()
}

#[test]
fn who_does_not_belong_is_refused() {
    let mut stage = TestSwarm::assignment(2, &[]);
    for (id, place) in [(1_002, None), (7, None), (1_003, Some(1_001))] {
        let fx = connects(&mut stage, 9, id, place);
        assert!(hangs_up(&fx, 9), "{id}");
        assert!(matches!(events(&fx)[..], [Event::Refused(..)]));
        assert_eq!(stage.hear(9, Message::Interested), [], "nobody listens");
    }
    assert!(!hangs_up(&connects(&mut stage, 1, 1_003, None), 1));
    let fx = connects(&mut stage, 2, 1_003, None);
    assert!(hangs_up(&fx, 2), "one connection a peer");
    assert_eq!(stage.swarm.status().neighbors.len(), 1);
}

#[test]
fn of_two_calls_that_cross_the_one_of_the_higher_id_stays() {
    // Lower than we: our call stays.
    let mut stage = TestSwarm::share(2, &[]);
    connects(&mut stage, 1, 5, None);
    let fx = connects(&mut stage, 2, 5, Some(0));
    assert!(hangs_up(&fx, 1) && !hangs_up(&fx, 2));
    assert!(hangs_up(&connects(&mut stage, 3, 5, None), 3));
    // Higher: its call stays.
    connects(&mut stage, 4, 9_000, Some(1));
    let fx = connects(&mut stage, 5, 9_000, None);
    assert!(hangs_up(&fx, 4) && !hangs_up(&fx, 5));
    assert!(hangs_up(&connects(&mut stage, 6, 9_000, Some(1)), 6));
}

#[test]
fn oneself_is_called_once_and_others_again_and_again() {
    let mut stage = TestSwarm::share(2, &[]);
    let dials = |fx: &[Effect]| fx.iter().filter(|it| matches!(it, Effect::Dial(_))).count();
    let redials = |fx: &[Effect]| {
        fx.iter()
            .filter(|it| matches!(it, Effect::SetTimer { timer: Timer::Redial(_), .. }))
            .count()
    };
    for place in [PeerAddrId(0), PeerAddrId(1)] {
        stage.give(Input::Extra(ExtraInput::Known(place)));
        stage.give(Input::Extra(ExtraInput::Known(place)));
        assert_eq!(dials(&stage.take()), 1);
    }
    let fx = connects(&mut stage, 1, ME.0, Some(0));
    assert!(hangs_up(&fx, 1) && redials(&fx) == 0);
    assert_eq!(stage.timer(Timer::Redial(PeerAddrId(0))), []);
    for _ in 0..5 {
        stage.give(Input::DialFailed(DialFailure {
            place: PeerAddrId(1),
            reason: "refused".to_owned(),
        }));
        let fx = stage.take();
        assert!(matches!(events(&fx)[..], [Event::Unreachable { retry_in: Some(_), .. }]));
        assert_eq!(redials(&fx), 1);
        assert_eq!(dials(&stage.timer(Timer::Redial(PeerAddrId(1)))), 1);
    }
    connects(&mut stage, 2, 5, Some(1));
    stage.give(Input::closed(link(2), ""));
    assert_eq!(redials(&stage.take()), 1);
}

#[test]
fn neighbors_are_bounded_and_who_needs_nothing_makes_room_for_others() {
    let mut stage = TestSwarm::share(2, &[0, 1]);
    let max = stage.swarm.config.links_max;
    for at in 3..u32::try_from(max).unwrap() + 3 {
        stage.comes_with(at, if at == 7 { &[0, 1] } else { &[0] });
    }
    let fx = connects(&mut stage, 500, 5_000, None);
    assert!(hangs_up(&fx, 7) && !hangs_up(&fx, 500));
    assert!(hangs_up(&connects(&mut stage, 501, 5_001, None), 501));
    assert_eq!(stage.swarm.status().neighbors.len(), max);
}

/// A swarm of three: we, 1001 with everything from the beginning, and 1003.
fn three(have: &[u32]) -> TestSwarm {
    let config = Config::assignment(2, 5 * SECOND, 15 * SECOND);
    TestSwarm::new(config, 2, have, |it| {
        let members = [(1_001, true), (1_002, false), (1_003, false)];
        it.roster = Some(SwarmRoster::new(members.map(|(id, has)| (PeerId(id), has))));
    })
}

fn ended(fx: &[Effect]) -> Option<SwarmOutcome> {
    events(fx).into_iter().find_map(|it| {
        let Event::Ended(outcome) = it else { return None };
        Some(outcome)
    })
}

#[test]
fn a_swarm_is_over_when_all_have_everything_and_know_it_of_us() {
    let mut stage = three(&[0, 1]);
    stage.comes_with(3, &[0]);
    assert_eq!(ended(&stage.hear(3, Message::Have(piece(1)))), None, "1001 waits for us");
    let fx = connects(&mut stage, 1, 1_001, None);
    assert_eq!(ended(&fx), Some(SwarmOutcome::AllComplete));
    let said_at = fx.iter().position(|it| matches!(it, Effect::Send { link: LinkId(1), .. }));
    let hung_up_at = fx.iter().position(|it| *it == Effect::Hangup { link: link(1) });
    assert!(said_at < hung_up_at && hangs_up(&fx, 3));
    assert!(hangs_up(&connects(&mut stage, 5, 1_003, None), 5), "it is over");
    assert_eq!(stage.hear(3, Message::Interested), []);
}

#[test]
fn who_leaves_with_everything_is_not_waited_for_and_who_leaves_without_is() {
    let mut stage = three(&[0]);
    connects(&mut stage, 1, 1_001, None);
    stage.give(Input::closed(link(1), ""));
    stage.comes_with(3, &[0, 1]);
    stage.hear(3, Message::Unchoke);
    stage.send_piece(3, 1);
    let fx = stage.stored(3, 1, Stored::Yes);
    assert_eq!(ended(&fx), Some(SwarmOutcome::AllComplete));

    let mut stage = three(&[0, 1]);
    connects(&mut stage, 1, 1_001, None);
    stage.comes_with(3, &[0]);
    stage.give(Input::closed(link(3), ""));
    assert_eq!(ended(&stage.take()), None);
    let span = stage.swarm.config.give_up_after.unwrap();
    stage.later(span - SECOND);
    assert_eq!(ended(&stage.timer(Timer::GiveUp)), None);
    stage.later(SECOND);
    let missing = SwarmOutcome::WithoutSome(vec![PeerId(1_003)]);
    assert_eq!(ended(&stage.timer(Timer::GiveUp)), Some(missing));
}

#[test]
fn a_complete_predecessor_whose_connection_broke_is_called_before_we_go() {
    let mut stage = three(&[0]);
    stage.give(Input::Extra(ExtraInput::Known(PeerAddrId(1_001))));
    connects(&mut stage, 1, 1_001, Some(1_001));
    stage.give(Input::closed(link(1), ""));
    stage.comes_with(3, &[0, 1]);
    stage.hear(3, Message::Unchoke);
    stage.send_piece(3, 1);
    assert_eq!(ended(&stage.stored(3, 1, Stored::Yes)), None, "it may wait for us");
    let place = PeerAddrId(1_001);
    assert!(stage.timer(Timer::Redial(place)).contains(&Effect::Dial(place)));
    stage.give(Input::DialFailed(DialFailure { place, reason: "refused".to_owned() }));
    assert_eq!(ended(&stage.take()), Some(SwarmOutcome::AllComplete), "it is gone");
}

#[test]
fn without_progress_a_swarm_ends_and_with_it_it_goes_on() {
    let mut stage = three(&[]);
    let span = stage.swarm.config.give_up_after.unwrap();
    stage.later(span - SECOND);
    stage.comes_with(3, &[0]);
    stage.later(SECOND);
    let fx = stage.timer(Timer::GiveUp);
    assert_eq!(fx, [Effect::SetTimer { timer: Timer::GiveUp, after: span - SECOND }]);
    stage.later(span);
    assert_eq!(ended(&stage.timer(Timer::GiveUp)), Some(SwarmOutcome::Incomplete));
}

#[test]
fn a_disk_that_fails_ends_the_swarm() {
    let mut stage = TestSwarm::share(2, &[]);
    stage.comes_with(3, &[0]);
    stage.hear(3, Message::Unchoke);
    stage.send_piece(3, 0);
    let fx = stage.stored(3, 0, Stored::Failed("no space left".to_owned()));
    assert_eq!(ended(&fx), Some(SwarmOutcome::DiskFailed("no space left".to_owned())));
    assert!(hangs_up(&fx, 3));
    assert_eq!(stage.swarm.status().have, 0);
}
