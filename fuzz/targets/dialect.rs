//! The first bytes of a connection.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::checks::dialect(bytes);
});
