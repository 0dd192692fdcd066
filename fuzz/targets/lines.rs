//! Lines of the native dialect, as they come from a connection.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hostile::checks::lines(bytes);
});
