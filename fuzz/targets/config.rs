//! The text of `config.txt`.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::checks::config(bytes);
});
