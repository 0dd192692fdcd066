//! A conversation with a real seed: handshakes, messages of every kind, timers, clocks, restarts.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

use folkmoot::node::SeedNode;
use hostile::source::Source;
use hostile::stage::Stage;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Stage::<SeedNode>::play(&mut Source::new(bytes));
});
