//! Many runs of one check, each with its own seed, on all cores.
//!
//! `SEED=17` runs that seed alone, `SEEDS=5000` sets the number of runs. Every failure prints
//! `SEED=n`, which is all that is needed to see it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// The seed that the environment asks for, when it asks for a single one.
///
/// # Panics
/// Panics if `SEED` is set to something that is no number.
pub fn single_seed() -> Option<u64> {
    number("SEED")
}

/// Runs `check` for the seeds 0 to `count` - 1 and returns its results, by seed.
///
/// After the first failure no further seed is begun.
///
/// # Panics
/// Panics if a check panicked: with `SEED=n` and the message of that panic.
pub fn for_each_seed<T: Send>(count: u64, check: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (first, count) = match single_seed() {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(count)),
    };
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let offset = next.fetch_add(1, Ordering::Relaxed);
            if offset >= count {
                return;
            }
            let seed = first.wrapping_add(offset);
            let result = catch_unwind(AssertUnwindSafe(|| check(seed))).map_err(|panic| {
                failed.store(true, Ordering::Relaxed);
                reason(panic.as_ref())
            });
            results.lock().expect("nothing panics under this lock").push((seed, result));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            thread::Builder::new()
                .name(format!("seeds-{worker}"))
                .spawn_scoped(scope, work)
                .expect("the machine has room for a thread per core");
        }
    });
    let mut results = results.into_inner().expect("nothing panics under this lock");
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(seed, result)| report(seed, result)).collect()
}

fn report<T>(seed: u64, result: Result<T, String>) -> T {
    result.unwrap_or_else(|reason| panic!("SEED={seed} fails: {reason}"))
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.trim().parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is to be a number, not `{text}`")))
}
