//! A swarm's neighbors, handshakes and tickets.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::swarm::swarm(bytes);
});
