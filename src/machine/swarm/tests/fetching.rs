//! Interest, requests, and the pieces that come.

use super::*;

/// The bytes of a piece that an effect stores.
fn stored(effect: &Effect) -> Option<&Vec<u8>> {
    let Effect::Extra(ExtraEffect::Store { data, .. }) = effect else { return None };
    Some(data)
}

#[test]
fn a_bitfield_is_sent_first_also_an_empty_one_and_is_answered_with_interest() {
    let mut stage = TestSwarm::assignment(9, &[]);
    let peer = PeerId(1_003);
    stage.give(Input::Opened { link: link(3), opening: Opening { peer, place: None } });
    let fx = stage.take();
    assert_eq!(events(&fx), [Event::ConnectedFrom(peer)]);
    assert_eq!(said(&fx), [(3, Message::Bitfield(vec![0, 0]))]);
    let fx = stage.hear(3, Message::Bitfield(vec![0, 0]));
    assert_eq!(said(&fx), [(3, Message::NotInterested)]);
    let fx = stage.hear(3, Message::Have(piece(8)));
    assert_eq!(events(&fx), [Event::Have(peer, piece(8))]);
    assert_eq!(said(&fx), [(3, Message::Interested)], "also while choked");
    assert_eq!(said(&stage.hear(3, Message::Have(piece(8)))), [], "once");
}

#[test]
fn interest_ends_with_the_last_piece_that_a_neighbor_has() {
    let mut stage = TestSwarm::assignment(3, &[]);
    stage.comes_with(3, &[1]);
    stage.comes_with(4, &[1, 2]);
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [(3, 1)]);
    let fx = stage.send_piece(3, 1);
    let store =
        |it: &Effect| matches!(it, Effect::Extra(ExtraEffect::Store { expected: None, .. }));
    assert!(fx.iter().any(store));
    let fx = stage.stored(3, 1, Stored::Yes);
    let from = PeerId(1_003);
    assert_eq!(events(&fx), [Event::Downloaded { index: piece(1), from, have: 1 }]);
    assert_eq!(
        said(&fx),
        [(3, Message::NotInterested), (3, Message::Have(piece(1))), (4, Message::Have(piece(1)))],
        "interest first: whoever hears of the last piece may end at once"
    );
}

#[test]
fn odd_bitfields_are_taken_for_what_they_say() {
    for (bits, expected) in
        [(vec![0x80], 1), (vec![0x80, 0x80, 0xff], 2), (vec![0xff, 0xff], 9), (vec![], 0)]
    {
        let mut stage = TestSwarm::assignment(9, &[]);
        stage.comes(3);
        let fx = stage.hear(3, Message::Bitfield(bits));
        assert!(is_odd(&fx));
        assert_eq!(stage.swarm.status().neighbors[0].have, expected);
    }
    // Late, after other messages, and twice.
    let mut stage = TestSwarm::assignment(9, &[]);
    stage.comes(3);
    stage.hear(3, Message::Unchoke);
    assert_eq!(requests(&stage.hear(3, Message::Have(piece(4)))), [(3, 4)]);
    stage.hear(3, Message::Bitfield(vec![0x80, 0]));
    stage.hear(3, Message::Bitfield(vec![0x80, 0]));
    assert_eq!(stage.swarm.status().neighbors[0].have, 2);
    assert!(is_odd(&stage.hear(3, Message::Have(piece(9)))));
    assert!(is_odd(&stage.hear(3, Message::Cancel(piece(4)))), "no word of the assignment");
}

#[test]
fn one_request_is_under_way_in_the_assignment_and_the_next_follows_the_piece() {
    let mut stage = TestSwarm::assignment(5, &[]);
    stage.comes_with(3, &[0, 1, 2, 3, 4]);
    let first = requests(&stage.hear(3, Message::Unchoke));
    assert_eq!(first.len(), 1);
    assert_eq!(requests(&stage.hear(3, Message::Have(piece(0)))), []);
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [], "said twice");
    let next = requests(&stage.send_piece(3, first[0].1));
    assert_eq!(next.len(), 1);
    assert_ne!(next, first);
    stage.comes_with(4, &[first[0].1, next[0].1]);
    assert_eq!(requests(&stage.hear(4, Message::Unchoke)), [], "all it has is asked for");
}

#[test]
fn a_choke_returns_the_piece_and_what_still_comes_is_welcome() {
    let mut stage = TestSwarm::assignment(2, &[]);
    stage.comes_with(3, &[0]);
    stage.comes_with(4, &[0]);
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [(3, 0)]);
    assert_eq!(requests(&stage.hear(4, Message::Unchoke)), []);
    let fx = stage.hear(3, Message::Choke);
    assert_eq!(events(&fx), [Event::ChokedBy(PeerId(1_003))]);
    assert_eq!(requests(&fx), [(4, 0)]);
    // It was on its way already.
    let fx = stage.send_piece(3, 0);
    assert!(fx.iter().any(|it| matches!(it, Effect::Extra(ExtraEffect::Store { .. }))));
    let fx = stage.send_piece(4, 0);
    assert!(
        !fx.iter().any(|it| matches!(it, Effect::Extra(ExtraEffect::Store { .. }))),
        "it is being stored"
    );
    assert!(!is_odd(&fx));
}

#[test]
fn a_lost_neighbor_loses_its_requests_to_others() {
    let mut stage = TestSwarm::assignment(2, &[]);
    stage.comes_with(3, &[0]);
    stage.comes_with(4, &[0]);
    stage.hear(3, Message::Unchoke);
    stage.hear(4, Message::Unchoke);
    stage.give(Input::closed(link(3), ""));
    assert_eq!(requests(&stage.take()), [(4, 0)]);
}

#[test]
fn a_neighbor_that_stalls_loses_its_request_and_is_asked_again_later() {
    for mut stage in [TestSwarm::assignment(2, &[1]), TestSwarm::share(2, &[1])] {
        let patience = stage.swarm.config.answer_after;
        stage.comes_with(3, &[0]);
        let fx = stage.hear(3, Message::Unchoke);
        assert_eq!(requests(&fx), [(3, 0)]);
        let answer = Timer::Answer(link(3));
        assert!(fx.contains(&Effect::SetTimer { timer: answer, after: patience }));
        stage.later(patience);
        let fx = stage.timer(answer);
        assert_eq!(requests(&fx), [], "nobody else has it, and it is given time");
        stage.comes_with(4, &[0]);
        assert_eq!(requests(&stage.hear(4, Message::Unchoke)), [(4, 0)]);
        stage.give(Input::closed(link(4), ""));
        stage.take();
        stage.later(patience * 2);
        assert_eq!(requests(&stage.timer(answer)), [(3, 0)]);
        let fx = stage.send_piece(3, 0);
        assert!(fx.iter().any(|it| matches!(it, Effect::Extra(ExtraEffect::Store { .. }))));
    }
}

#[test]
fn a_neighbor_that_delivers_is_not_taken_as_stalled() {
    let mut stage = TestSwarm::assignment(9, &[]);
    stage.comes_with(3, &[0, 1, 2, 3, 4, 5]);
    let mut asked = requests(&stage.hear(3, Message::Unchoke));
    let patience = stage.swarm.config.answer_after;
    stage.later(patience - SECOND);
    asked = requests(&stage.send_piece(3, asked[0].1));
    stage.later(SECOND);
    let fx = stage.timer(Timer::Answer(link(3)));
    assert_eq!(fx, [Effect::SetTimer { timer: Timer::Answer(link(3)), after: patience - SECOND }]);
    assert_eq!(requests(&stage.send_piece(3, asked[0].1)).len(), 1);
}

#[test]
fn the_last_piece_may_be_filled_up_and_no_other_length_is_taken() {
    let mut stage = TestSwarm::assignment(2, &[0]);
    stage.comes_with(3, &[1]);
    stage.hear(3, Message::Unchoke);
    let data = [bytes(2, 1), vec![0, 0]].concat();
    let fx = stage.hear(3, Message::Piece { index: piece(1), data });
    let stores = |it: &Effect| stored(it).is_some_and(|it| *it == bytes(2, 1));
    assert!(fx.iter().any(stores) && is_odd(&fx));
    for len in [0, 1, 3, 5] {
        let mut stage = TestSwarm::assignment(2, &[0]);
        stage.comes_with(3, &[1]);
        stage.hear(3, Message::Unchoke);
        let fx = stage.hear(3, Message::Piece { index: piece(1), data: vec![0; len] });
        assert!(hangs_up(&fx, 3), "{len}");
        assert!(!fx.iter().any(|it| matches!(it, Effect::Extra(ExtraEffect::Store { .. }))));
        stage.comes_with(4, &[1]);
        assert_eq!(requests(&stage.hear(4, Message::Unchoke)), [(4, 1)], "it is wanted again");
    }
}

/// A neighbor's connection ends when so many bytes of the content from `offset` on have come.
fn breaks(stage: &mut TestSwarm, number: u32, (index, offset, data): (u32, u32, &[u8])) {
    let (link, data) = (link(number.into()), data.to_vec());
    stage.give(Input::Extra(ExtraInput::Part { link, index: piece(index), offset, data }));
    stage.give(Input::closed(link, ""));
    stage.take();
}

/// The same peer calls again, over another connection.
fn returns(stage: &mut TestSwarm, number: u32, peer: u32, have: &[u32]) -> Vec<Effect> {
    let peer = PeerId(1_000 + peer);
    stage.give(Input::Opened { link: link(number.into()), opening: Opening { peer, place: None } });
    let mut bits = Bitfield::none(stage.count);
    have.iter().for_each(|index| assert!(bits.set(piece(*index))));
    stage.hear(number, Message::Bitfield(bits.to_wire()));
    stage.hear(number, Message::Unchoke)
}

fn asks_for_rest(fx: &[Effect], number: u32, index: u32, offset: u32) -> bool {
    said(fx).contains(&(number.into(), Message::RequestRest { index: piece(index), offset }))
}

#[test]
fn a_piece_amid_which_a_connection_ended_is_continued_by_who_began_it() {
    let mut stage = TestSwarm::share(4, &[]);
    stage.comes_with(3, &[0, 1]);
    let asked = requests(&stage.hear(3, Message::Unchoke))[0].1;
    let whole = bytes(4, asked);
    breaks(&mut stage, 3, (asked, 0, &whole[..1]));
    let fx = returns(&mut stage, 30, 3, &[0, 1]);
    assert!(asks_for_rest(&fx, 30, asked, 1), "first what was begun: {fx:?}");
    breaks(&mut stage, 30, (asked, 1, &whole[1..3]));
    // Another peer's rest could be false, and then it would not be known whose fault it is.
    let fx = returns(&mut stage, 4, 4, &[asked]);
    assert_eq!(requests(&fx), [(4, asked)]);
    stage.give(Input::closed(link(4), ""));
    stage.take();
    let fx = returns(&mut stage, 31, 3, &[0, 1]);
    assert!(asks_for_rest(&fx, 31, asked, 3));
    let (index, data) = (piece(asked), whole[3..].to_vec());
    let fx = stage.hear(31, Message::Rest { index, offset: 3, data });
    let stores = |it: &Effect| stored(it) == Some(&whole);
    assert!(fx.iter().any(stores), "{fx:?}");
    assert_eq!(stage.swarm.status().down, 1, "only what came now counts here");
}

#[test]
fn the_rest_of_a_piece_is_asked_for_again_after_a_choke_and_after_a_delay() {
    let mut stage = TestSwarm::share(4, &[]);
    stage.comes_with(3, &[1]);
    stage.hear(3, Message::Unchoke);
    breaks(&mut stage, 3, (1, 0, &[4]));
    assert!(asks_for_rest(&returns(&mut stage, 30, 3, &[1]), 30, 1, 1));
    stage.hear(30, Message::Choke);
    assert!(asks_for_rest(&stage.hear(30, Message::Unchoke), 30, 1, 1));
    let mut asked = false;
    for _ in 0..2 {
        stage.later(stage.swarm.config.answer_after);
        asked |= asks_for_rest(&stage.timer(Timer::Answer(link(30))), 30, 1, 1);
    }
    assert!(asked, "it was left alone for a while, and is asked for the rest again");
}

#[test]
fn whoever_does_not_know_how_to_go_on_is_asked_for_the_whole_piece() {
    let mut stage = TestSwarm::share(4, &[]);
    stage.comes_with(3, &[1]);
    stage.hear(3, Message::Unchoke);
    breaks(&mut stage, 3, (1, 0, &[4]));
    assert!(asks_for_rest(&returns(&mut stage, 30, 3, &[1]), 30, 1, 1));
    // An older program ends the connection at a message that it does not know.
    stage.give(Input::closed(link(30), ""));
    stage.take();
    assert_eq!(requests(&returns(&mut stage, 31, 3, &[1])), [(31, 1)]);
}

#[test]
fn parts_that_mean_nothing_are_left_out() {
    let mut stage = TestSwarm::share(4, &[]);
    stage.comes_with(3, &[0, 1, 2, 3]);
    let asked = requests(&stage.hear(3, Message::Unchoke))[0].1;
    let other = (asked + 1) % 3;
    for (index, offset, data) in
        [(other, 0, &[1][..]), (7, 0, &[1]), (asked, 2, &[1]), (asked, 0, &[0; 4]), (asked, 4, &[])]
    {
        stage.give(Input::Extra(ExtraInput::Part {
            link: link(3),
            index: piece(index),
            offset,
            data: data.to_vec(),
        }));
    }
    let rest =
        |offset, data: &[u8]| Message::Rest { index: piece(asked), offset, data: data.to_vec() };
    assert!(is_odd(&stage.hear(3, rest(1, &[1, 2, 3]))));
    stage.give(Input::closed(link(3), ""));
    stage.take();
    assert_eq!(requests(&returns(&mut stage, 30, 3, &[asked])), [(30, asked)]);
    // A rest of another length is a fault of its sender, as a piece would be.
    breaks(&mut stage, 30, (asked, 0, &[1]));
    returns(&mut stage, 31, 3, &[asked]);
    assert!(hangs_up(&stage.hear(31, rest(1, &[0; 9])), 31));
}

#[test]
fn what_is_kept_of_pieces_is_bounded() {
    let largest = PIECE_BYTES_MAX;
    let mut parts = super::super::parts::Parts::default();
    for index in 0..40 {
        let bytes = vec![0; largest as usize / 4];
        parts.keep(piece(index), PeerId(1), 0, bytes);
    }
    assert_eq!(parts.of(PeerId(1)).count(), 4);
}

#[test]
fn a_piece_that_was_not_asked_for_is_dropped() {
    let mut stage = TestSwarm::share(4, &[0]);
    stage.comes_with(3, &[0, 1, 2]);
    for index in [1, 7] {
        let fx = stage.hear(3, Message::Piece { index: piece(index), data: bytes(4, 1) });
        assert!(
            is_odd(&fx)
                && !fx.iter().any(|it| matches!(it, Effect::Extra(ExtraEffect::Store { .. })))
        );
    }
    // A neighbor that sends a piece that is here already learns that it is here.
    assert_eq!(said(&stage.send_piece(3, 0)), [(3, Message::Have(piece(0)))]);
}

#[test]
fn shares_ask_for_several_pieces_of_whoever_has_sent_a_good_one() {
    let all: Vec<_> = (0..30).collect();
    let mut stage = TestSwarm::share(30, &[]);
    stage.comes_with(3, &all);
    let first = requests(&stage.hear(3, Message::Unchoke));
    assert_eq!(first.len(), 1, "it could lie");
    let fx = stage.send_piece(3, first[0].1);
    let hash = whole_tree(30).leaf(piece(first[0].1));
    let checks = |it: &Effect| {
        let Effect::Extra(ExtraEffect::Store { expected, .. }) = it else { return false };
        *expected == hash
    };
    assert!(fx.iter().any(checks));
    assert_eq!(requests(&fx).len(), 1);
    let fx = stage.stored(3, first[0].1, Stored::Yes);
    assert_eq!(requests(&fx).len(), stage.swarm.config.pipeline - 1);
}

#[test]
fn a_false_piece_is_named_and_its_sender_never_asked_again() {
    let mut stage = TestSwarm::share(4, &[]);
    let (place, peer) = (PeerAddrId(9), PeerId(1_003));
    stage.give(Input::Extra(ExtraInput::Known(place)));
    stage.give(Input::Opened { link: link(3), opening: Opening { peer, place: Some(place) } });
    stage.hear(3, Message::Bitfield(vec![0x80]));
    stage.comes_with(4, &[0]);
    stage.hear(4, Message::Unchoke);
    assert_eq!(requests(&stage.hear(4, Message::Choke)), []);
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [(3, 0)]);
    stage.hear(4, Message::Unchoke);
    stage.hear(3, Message::Piece { index: piece(0), data: vec![9; 4] });
    let fx = stage.stored(3, 0, Stored::False);
    assert!(events(&fx).contains(&Event::FalsePiece(peer, piece(0))));
    assert!(hangs_up(&fx, 3));
    assert_eq!(requests(&fx), [(4, 0)]);
    // Where it is, an honest one may be after a restart; itself it is known by its id.
    stage.give(Input::Opened { link: link(30), opening: Opening { peer, place: None } });
    let fx = stage.take();
    assert!(hangs_up(&fx, 30) && matches!(events(&fx)[..], [Event::Refused(..)]));
}

#[test]
fn in_the_endgame_a_second_is_asked_after_a_while_and_called_off() {
    let mut stage = TestSwarm::share(2, &[1]);
    stage.comes_with(3, &[0]);
    stage.comes_with(4, &[0]);
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [(3, 0)]);
    let fx = stage.hear(4, Message::Unchoke);
    assert_eq!(requests(&fx), [], "it was asked for only now");
    assert!(fx.iter().any(|it| matches!(it, Effect::SetTimer { timer: Timer::Retry, .. })));
    stage.later(SECOND);
    assert_eq!(requests(&stage.timer(Timer::Retry)), [(4, 0)]);
    stage.comes_with(5, &[0]);
    assert_eq!(requests(&stage.hear(5, Message::Unchoke)), [], "two are enough");
    let fx = stage.send_piece(4, 0);
    assert_eq!(said(&fx), [(3, Message::Cancel(piece(0)))]);
    let fx = stage.send_piece(3, 0);
    assert!(
        !is_odd(&fx) && !fx.iter().any(|it| matches!(it, Effect::Extra(ExtraEffect::Store { .. })))
    );
    assert!(events(&stage.stored(4, 0, Stored::Yes)).contains(&Event::Complete));
}

#[test]
fn the_assignment_knows_no_endgame() {
    let mut stage = TestSwarm::assignment(2, &[1]);
    stage.comes_with(3, &[0]);
    stage.comes_with(4, &[0]);
    stage.hear(3, Message::Unchoke);
    stage.hear(4, Message::Unchoke);
    stage.later(10 * SECOND);
    assert_eq!(requests(&stage.timer(Timer::Retry)), []);
    assert_eq!(said(&stage.send_piece(3, 0)), []);
}

#[test]
fn one_that_only_talks_nonsense_is_hung_up_on() {
    let mut stage = TestSwarm::assignment(2, &[1]);
    stage.comes(3);
    let told: usize = (0..1_000)
        .map(|_| {
            let fx = stage.hear(3, Message::Have(piece(77)));
            assert!(!hangs_up(&fx, 3));
            events(&fx).len()
        })
        .sum();
    assert_eq!(told, 1, "told once");
    assert!(hangs_up(&stage.hear(3, Message::Have(piece(77))), 3));
}

#[test]
fn a_slow_neighbor_is_waited_for_as_long_as_bytes_come() {
    let mut stage = TestSwarm::share(2, &[1]);
    let patience = stage.swarm.config.answer_after;
    stage.comes_with(3, &[0]);
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [(3, 0)]);
    let answer = Timer::Answer(link(3));
    stage.later(patience - SECOND);
    stage.give(Input::Extra(ExtraInput::Coming { link: link(3) }));
    stage.later(SECOND);
    let fx = stage.timer(answer);
    assert!(fx.contains(&Effect::SetTimer { timer: answer, after: patience - SECOND }), "{fx:?}");
    assert!(!fx.iter().any(|it| matches!(it, Effect::Emit(Event::Odd(..)))), "{fx:?}");
    // Slower than that is too slow: so small a piece does not take so long.
    stage.later(patience - SECOND);
    stage.give(Input::Extra(ExtraInput::Coming { link: link(3) }));
    let fx = stage.timer(answer);
    let is_told = |it: &Event| matches!(it, Event::Odd(_, what) if what.contains("slow"));
    assert!(events(&fx).iter().any(is_told), "{fx:?}");
}

#[test]
fn pieces_that_others_have_spoiled_are_fetched_again() {
    let mut stage = TestSwarm::share(2, &[0, 1]);
    stage.comes_with(3, &[0, 1]);
    stage.hear(3, Message::Unchoke);
    stage.give(Input::Extra(ExtraInput::ReadAgain {
        read: 2,
        lost: vec![piece(1)],
        files: Vec::new(),
    }));
    let fx = stage.take();
    assert_eq!(requests(&fx), [(3, 1)]);
    let told = Event::ReadAgain { read: 2, lost: 1, files: Vec::new() };
    assert!(fx.contains(&Effect::Emit(told)) && !stage.swarm.status().is_complete);
    let fx = stage.hear(3, Message::Withdrawn);
    assert!(fx.contains(&Effect::Emit(Event::Withdrawn(PeerId(1_003)))), "{fx:?}");
}
