//! Hashes and lists of files.

use sha2::{Digest as _, Sha256};

use super::*;

const COUNT: u32 = 3_000;

/// A share of which only the root is known.
fn stranger() -> TestSwarm {
    TestSwarm::new(Config::share(), COUNT, &[], |it| {
        it.tree = Some(Tree::of_root(COUNT, whole_tree(COUNT).root()));
    })
}

/// The runs asked for, with the neighbors that they are asked of.
fn runs(fx: &[Effect]) -> Vec<(u64, u32)> {
    let runs = said(fx).into_iter().filter_map(|(link, msg)| {
        let Message::HashesReq { first, count } = msg else { return None };
        assert_eq!(count, RUN_MAX);
        Some((link, first.0))
    });
    runs.collect()
}

fn arrives(stage: &mut TestSwarm, number: u32) -> Vec<Effect> {
    let peer = PeerId(1_000 + number);
    stage.give(Input::Opened { link: link(number.into()), opening: Opening { peer, place: None } });
    stage.take()
}

fn answer(first: u32) -> Message {
    let (leaves, uncles) = whole_tree(COUNT).prove(piece(first), RUN_MAX).unwrap();
    Message::Hashes { first: piece(first), leaves, uncles }
}

#[test]
fn hashes_are_fetched_before_the_pieces_they_are_of() {
    let mut stage = stranger();
    let fx = arrives(&mut stage, 3);
    assert_eq!(runs(&fx), [(3, 0)]);
    assert_eq!(runs(&arrives(&mut stage, 4)), [(4, 1_024)], "another run of another neighbor");
    stage.hear(3, Message::Bitfield(Bitfield::all(COUNT).to_wire()));
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [], "nothing could be checked");
    let fx = stage.hear(3, answer(0));
    assert_eq!(runs(&fx), [(3, 2_048)]);
    let asked = requests(&fx);
    assert!(asked.len() == 1 && asked[0].1 < 1_024);
    stage.hear(4, answer(1_024));
    assert_eq!(runs(&stage.hear(3, answer(2_048))), []);
    assert!(stage.swarm.tree().unwrap().is_whole());
    let fx = stage.hear(4, Message::HashesReq { first: piece(1_024), count: 1_024 });
    assert_eq!(said(&fx), [(4, answer(1_024))], "also while choked");
}

#[test]
fn who_sends_false_hashes_is_not_spoken_with_again() {
    let mut stage = stranger();
    arrives(&mut stage, 3);
    assert_eq!(runs(&arrives(&mut stage, 4)), [(4, 1_024)]);
    let Message::Hashes { first, mut leaves, uncles } = answer(0) else { panic!() };
    leaves[3][3] ^= 1;
    let fx = stage.hear(3, Message::Hashes { first, leaves, uncles });
    assert!(hangs_up(&fx, 3));
    assert_eq!(runs(&stage.hear(4, answer(1_024))), [(4, 0)], "asked of another");
    assert!(hangs_up(&arrives(&mut stage, 3), 3));
    assert!(is_odd(&stage.hear(4, answer(2_048))), "not asked for");
}

#[test]
fn who_does_not_know_the_hashes_yet_says_so_and_is_asked_again() {
    let mut stage = stranger();
    arrives(&mut stage, 3);
    let fx = stage.hear(3, Message::HashesReq { first: piece(0), count: RUN_MAX });
    let nothing = Message::Hashes { first: piece(0), leaves: vec![], uncles: vec![] };
    assert_eq!(said(&fx), [(3, nothing.clone())]);
    let fx = stage.hear(3, nothing);
    assert_eq!(runs(&fx), []);
    assert!(fx.iter().any(|it| matches!(it, Effect::SetTimer { timer: Timer::Retry, .. })));
    assert_eq!(runs(&stage.timer(Timer::Retry)), [(3, 0)]);
}

/// The list, and a share that wants it.
fn folder() -> (Vec<u8>, TestSwarm) {
    let list = vec![b'x'; FILES_PART_BYTES + 10];
    let digest = Sha256::digest(&list).into();
    let stage = TestSwarm::new(Config::share(), 2, &[], |it| {
        it.tree = Some(whole_tree(2));
        it.files = FileListState::Wanted(digest);
    });
    (list, stage)
}

#[test]
fn the_list_of_files_comes_first_from_one_neighbor_and_is_passed_on() {
    let (list, mut stage) = folder();
    let ask = |offset| Message::FilesReq { offset };
    let fx = arrives(&mut stage, 3);
    assert!(said(&fx).contains(&(3, ask(0))));
    assert!(!said(&arrives(&mut stage, 4)).contains(&(4, ask(0))), "one at a time");
    stage.hear(3, Message::Bitfield(vec![0xc0]));
    assert_eq!(requests(&stage.hear(3, Message::Unchoke)), [], "nowhere to put pieces yet");
    let part = |start: usize, end: usize| Message::Files {
        offset: u32::try_from(start).unwrap(),
        bytes: list[start..end].to_vec(),
    };
    let fx = stage.hear(3, part(0, FILES_PART_BYTES));
    assert_eq!(said(&fx), [(3, ask(65_536))]);
    stage.hear(3, part(FILES_PART_BYTES, list.len()));
    let fx = stage.hear(3, part(list.len(), list.len()));
    assert!(events(&fx).contains(&Event::FileList(list.clone())));
    assert_eq!(requests(&fx).len(), 1);
    let fx = stage.hear(4, ask(65_536));
    assert_eq!(said(&fx), [(4, part(FILES_PART_BYTES, list.len()))]);
    let fx = stage.hear(4, ask(u32::MAX));
    assert_eq!(said(&fx), [(4, Message::Files { offset: u32::MAX, bytes: vec![] })]);
}

#[test]
fn a_false_list_ends_the_connection_and_another_neighbor_is_asked() {
    let (_, mut stage) = folder();
    arrives(&mut stage, 3);
    arrives(&mut stage, 4);
    stage.hear(3, Message::Files { offset: 0, bytes: b"false".to_vec() });
    let fx = stage.hear(3, Message::Files { offset: 5, bytes: vec![] });
    assert!(hangs_up(&fx, 3));
    assert!(said(&fx).contains(&(4, Message::FilesReq { offset: 0 })));
    // One that does not have it yet is no liar.
    let fx = stage.hear(4, Message::Files { offset: 0, bytes: vec![] });
    assert!(!hangs_up(&fx, 4));
    let fx = stage.timer(Timer::Retry);
    assert!(said(&fx).contains(&(4, Message::FilesReq { offset: 0 })));
    // An endless one is not listened to for ever.
    let mut offset = 0;
    let is_over = (0..1_000).any(|_| {
        let bytes = vec![0; FILES_PART_BYTES];
        let fx = stage.hear(4, Message::Files { offset, bytes });
        offset += u32::try_from(FILES_PART_BYTES).unwrap();
        hangs_up(&fx, 4)
    });
    assert!(is_over && offset as usize <= FILES_BYTES_MAX + FILES_PART_BYTES);
}
