//! Bad input of every kind against the line decoder and the two real machines.
//!
//! Each case is a handful of random bytes from which a whole conversation is made; a failing one
//! is shrunk by proptest to the fewest and smallest bytes. The fuzz targets in `fuzz/` run the
//! same checks, guided by coverage.

use crate::hostile;

use folkmoot::node::{PeerNode, SeedNode};
use hostile::cast::Actor;
use hostile::source::Source;
use hostile::stage::Stage;
use hostile::{checks, words};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_message_survives_its_line(bytes in vec(any::<u8>(), 0..400)) {
        for kind in 0..words::KINDS {
            let mut src = Source::new(&bytes);
            let speaker = Actor::any(&mut src);
            checks::survives(&words::message(kind, speaker, &mut src));
        }
    }

    #[test]
    fn every_damaged_line_is_a_message_or_an_error_that_names_the_problem(
        bytes in vec(any::<u8>(), 0..300),
        damage in vec(any::<u8>(), 1..24),
    ) {
        for kind in 0..words::KINDS {
            let mut src = Source::new(&bytes);
            let msg = words::message(kind, Actor::any(&mut src), &mut src);
            let line = checks::damaged(&msg, &mut Source::new(&damage));
            let (read, refused) = checks::lines(&line);
            let is_blank = line.trim_ascii().is_empty();
            prop_assert!(is_blank || read + refused > 0, "the line was lost");
        }
    }

    #[test]
    fn lines_dialects_and_configurations_of_any_bytes_have_an_answer(
        bytes in vec(any::<u8>(), 0..600),
    ) {
        checks::lines(&bytes);
        checks::dialect(&bytes);
        checks::config(&bytes);
        checks::servers(&bytes);
    }

    #[test]
    fn addresses_of_servers_of_any_pieces_are_refused_or_read(
        pieces in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        const PIECES: [&str; 16] = [
            "http://", "https://", "HTTP://", "a", "b.c", "127.0.0.1", "[::1]", ":80", ":0", "/",
            "/x?y=1", "?", ",", "@", "#", " ",
        ];
        let text: String = pieces.iter().map(|at| *at.get(&PIECES)).collect();
        checks::servers(text.as_bytes());
    }

    #[test]
    fn a_swarm_withstands_any_neighbors(bytes in vec(any::<u8>(), 0..3_000)) {
        hostile::swarm::swarm(&bytes);
    }

    #[test]
    fn a_rollout_node_withstands_any_members_strangers_and_logs(
        bytes in vec(any::<u8>(), 0..2_000),
    ) {
        hostile::rollout::rollout(&bytes);
    }

    #[test]
    fn a_chat_s_member_withstands_any_members_and_strangers(
        bytes in vec(any::<u8>(), 0..2_000),
    ) {
        hostile::chat::chat_group(&bytes);
    }

    #[test]
    fn a_member_of_a_byzantine_order_withstands_any_members_strangers_and_logs(
        bytes in vec(any::<u8>(), 0..2_000),
    ) {
        hostile::order::order_member(&bytes);
    }

    #[test]
    fn a_seed_withstands_any_conversation(bytes in vec(any::<u8>(), 0..1_500)) {
        Stage::<SeedNode>::play(&mut Source::new(&bytes));
    }

    #[test]
    fn a_peer_withstands_any_conversation(bytes in vec(any::<u8>(), 0..1_500)) {
        Stage::<PeerNode>::play(&mut Source::new(&bytes));
    }
}
