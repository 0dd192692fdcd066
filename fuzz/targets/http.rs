//! Requests of HTTP, cut in several ways.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::checks::http(bytes);
});
