//! A rollout node among members and strangers.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::rollout::rollout(bytes);
});
