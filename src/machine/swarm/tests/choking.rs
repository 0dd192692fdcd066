//! Places of the neighbors, and their requests.

use super::*;

#[test]
fn a_request_of_a_choked_neighbor_is_not_served() {
    let mut stage = TestSwarm::assignment(4, &[0, 1]);
    stage.comes(3);
    assert_eq!(stage.hear(3, Message::Request(piece(0))), []);
    let fx = stage.hear(3, Message::Interested);
    assert_eq!(said(&fx), [(3, Message::Unchoke)], "the first choice need not be waited for");
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(0)))), [(3, 0)]);
}

#[test]
fn what_cannot_be_served_is_left_out_and_reported() {
    let mut stage = TestSwarm::assignment(4, &[0, 1]);
    stage.comes(3);
    stage.hear(3, Message::Interested);
    for index in [4, u32::MAX, 2] {
        let fx = stage.hear(3, Message::Request(piece(index)));
        assert!(is_odd(&fx) || index == u32::MAX, "told once for each kind");
        assert_eq!(uploads(&fx), []);
    }
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(1)))), [(3, 1)]);
    let again = stage.hear(3, Message::Request(piece(1)));
    assert_eq!((uploads(&again), is_odd(&again)), (vec![], true));
    stage.give(Input::Extra(ExtraInput::Uploaded { link: link(3), index: piece(1), bytes: 4 }));
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(1)))), [(3, 1)]);
    assert_eq!(stage.swarm.status().up, 4);
}

#[test]
fn uploads_that_wait_for_one_neighbor_are_bounded() {
    let all: Vec<u32> = (0..100).collect();
    let mut stage = TestSwarm::share(100, &all);
    stage.comes(3);
    stage.hear(3, Message::Interested);
    let served: usize =
        all.iter().map(|it| uploads(&stage.hear(3, Message::Request(piece(*it)))).len()).sum();
    assert_eq!(served, UPLOADS_MAX);
    stage.give(Input::Extra(ExtraInput::Uploaded { link: link(3), index: piece(0), bytes: 4 }));
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(99)))), [(3, 99)]);
}

#[test]
fn a_choke_withdraws_uploads_and_the_same_piece_may_be_wanted_again() {
    let mut stage = TestSwarm::assignment(4, &[0, 1]);
    (3..=7).for_each(|it| stage.comes(it));
    (3..=4).for_each(|it| assert_eq!(stage.hear(it, Message::Interested).len(), 3));
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(0)))), [(3, 0)]);
    (3..=4).for_each(|it| {
        stage.hear(it, Message::NotInterested);
    });
    (5..=6).for_each(|it| {
        stage.hear(it, Message::Interested);
    });
    // Neighbors that want nothing lose their places with the next choice, and not before.
    stage.timer(Timer::Unchoke);
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(1)))), []);
    stage.timer(Timer::Unchoke);
    stage.hear(3, Message::Interested);
    for it in 5..=6 {
        stage.hear(it, Message::NotInterested);
    }
    let fx = stage.timer(Timer::Unchoke);
    assert!(said(&fx).contains(&(3, Message::Unchoke)), "{fx:?}");
    let chokes = said(&fx).iter().position(|(_, msg)| *msg == Message::Choke);
    let unchokes = said(&fx).iter().position(|(_, msg)| *msg == Message::Unchoke);
    assert!(chokes < unchokes, "chokes come first (S3)");
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(0)))), [(3, 0)]);
    // The end of the withdrawn one is told late and is not the end of the new one.
    stage.give(Input::Extra(ExtraInput::Uploaded { link: link(3), index: piece(0), bytes: 0 }));
    assert_eq!(uploads(&stage.hear(3, Message::Request(piece(0)))), []);
}

#[test]
fn a_cancelled_upload_is_dropped() {
    let mut stage = TestSwarm::share(4, &[0, 1, 2, 3]);
    stage.comes(3);
    stage.hear(3, Message::Interested);
    stage.hear(3, Message::Request(piece(2)));
    let fx = stage.hear(3, Message::Cancel(piece(2)));
    assert_eq!(fx, [Effect::Extra(ExtraEffect::Drop(link(3), piece(2)))]);
    assert_eq!(stage.hear(3, Message::Cancel(piece(2))), []);
}

#[test]
fn after_the_first_choice_places_change_at_choices_only_in_the_assignment() {
    let mut stage = TestSwarm::assignment(4, &[0]);
    stage.timer(Timer::Unchoke);
    stage.comes(3);
    assert_eq!(said(&stage.hear(3, Message::Interested)), []);
    let fx = stage.timer(Timer::Unchoke);
    assert_eq!(said(&fx), [(3, Message::Unchoke)]);
    assert_eq!(events(&fx), [Event::Preferred(vec![PeerId(1_003)])]);
    let fx = stage.timer(Timer::Unchoke);
    assert_eq!((said(&fx), events(&fx)), (vec![], vec![]), "nothing changed");
    assert!(fx.contains(&Effect::SetTimer { timer: Timer::Unchoke, after: 5 * SECOND }));
}

#[test]
fn those_that_fed_us_best_in_the_last_interval_are_preferred() {
    let mut stage = TestSwarm::assignment(20, &[0]);
    stage.timer(Timer::Unchoke);
    for number in 3..=6 {
        stage.comes_with(number, &(1..20).collect::<Vec<_>>());
        stage.hear(number, Message::Interested);
    }
    for number in [4, 6, 4, 6, 3] {
        let fx = stage.hear(number, Message::Unchoke);
        let index = requests(&fx).last().map_or_else(
            || {
                *stage
                    .swarm
                    .neighbors
                    .get(link(number.into()))
                    .unwrap()
                    .asked()
                    .keys()
                    .next()
                    .unwrap()
            },
            |(_, index)| piece(*index),
        );
        stage.send_piece(number, index.0);
    }
    let fx = stage.timer(Timer::Unchoke);
    assert_eq!(events(&fx), [Event::Preferred(vec![PeerId(1_004), PeerId(1_006)])]);
    // In the next interval all fed us alike: two at random, whatever they did before.
    let chosen: std::collections::BTreeSet<_> = (0..40)
        .flat_map(|_| {
            stage.timer(Timer::Unchoke);
            stage.swarm.choker.preferred().clone()
        })
        .collect();
    assert_eq!(chosen.len(), 4);
}

#[test]
fn the_optimistic_one_is_one_of_the_choked_and_interested() {
    let mut stage = TestSwarm::assignment(4, &[0]);
    stage.timer(Timer::Unchoke);
    (3..=6).for_each(|it| stage.comes(it));
    (3..=5).for_each(|it| {
        stage.hear(it, Message::Interested);
    });
    stage.timer(Timer::Unchoke);
    let fx = stage.timer(Timer::Optimistic);
    let status = stage.swarm.status();
    let unchoked: Vec<_> = status.neighbors.iter().filter(|it| it.is_unchoked).collect();
    assert_eq!(unchoked.len(), 3);
    assert!(unchoked.iter().all(|it| it.is_interested));
    assert_eq!(said(&fx).len(), 1);
    assert!(matches!(events(&fx)[..], [Event::Optimistic(_)]));
}

#[test]
fn in_shares_free_places_and_those_of_the_idle_are_given_at_once() {
    let mut stage = TestSwarm::share(4, &[0]);
    stage.timer(Timer::Unchoke);
    for number in 3..=10 {
        stage.comes(number);
        let fx = stage.hear(number, Message::Interested);
        assert!(said(&fx).contains(&(number.into(), Message::Unchoke)), "{number}");
    }
    stage.comes(11);
    assert_eq!(said(&stage.hear(11, Message::Interested)), [], "k + 1 are unchoked");
    let fx = stage.hear(5, Message::NotInterested);
    assert_eq!(said(&fx), [(5, Message::Choke), (11, Message::Unchoke)]);
    stage.comes(12);
    stage.hear(12, Message::Interested);
    stage.give(Input::closed(link(7), ""));
    assert!(said(&stage.take()).contains(&(12, Message::Unchoke)));
}
