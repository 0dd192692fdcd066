//! Certificates in JSON, their votes cut, doubled and mixed up.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::checks::certificate(bytes);
});
