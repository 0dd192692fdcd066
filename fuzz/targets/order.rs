//! A member of a Byzantine order among members and strangers, and with a log that was changed.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::order::order_member(bytes);
});
