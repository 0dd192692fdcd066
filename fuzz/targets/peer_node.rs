//! A conversation with a real peer: handshakes, messages of every kind, timers, clocks, restarts.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

use folkmoot::node::PeerNode;
use hostile::source::Source;
use hostile::stage::Stage;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Stage::<PeerNode>::play(&mut Source::new(bytes));
});
