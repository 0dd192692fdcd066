//! The bytes of a seed's journal; lines without a checksum are given a true one first.

#![no_main]

#[path = "../../tests/sim/hostile/mod.rs"]
mod hostile;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    // In memory where that is possible: this writes two small files a run.
    let make = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = DIR.get_or_init(|| make().expect("a directory can be made"));
    hostile::checks::journal(dir.path(), &hostile::checks::sealed(bytes));
});
