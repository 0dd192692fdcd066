//! Limits of the system that a fleet of many processes needs on this machine.

use std::fs;

use serde_json::{Value, json};

use crate::cli::CliError;
use crate::runtime::descriptors;

/// Number of threads of one peer, links to a handful of neighbors included; hubs have more.
const THREADS_PER_PEER: u64 = 24;

/// Number of descriptors that one process may need in a fleet of `peers`: this one a pipe for each,
/// a seed a link and a probe for each.
fn descriptors_for(peers: u16) -> u64 {
    2 * u64::from(peers) + 512
}

/// Number of threads of the whole fleet, roughly: those of the peers, and at each seed two for each
/// link.
fn threads_for(peers: u16, seeds: u16) -> u64 {
    u64::from(peers) * (THREADS_PER_PEER + 2 * u64::from(seeds))
}

/// Raises this process's limits, which its `peers` processes inherit. Returns the limits that were
/// found, for a line of the measurement.
///
/// # Errors
/// Fails if the system does not allow as many descriptors.
pub(super) fn make_room(peers: u16, seeds: u16) -> Result<Value, CliError> {
    let wanted = descriptors_for(peers);
    let open_files = descriptors::raise() as u64;
    if open_files < wanted {
        return Err(CliError::Failed(format!(
            "{peers} peers need {wanted} open files per process, and {open_files} are allowed; \
             raise the hard limit with ulimit -Hn {wanted} as root, or take fewer peers"
        )));
    }
    let threads = threads_for(peers, seeds);
    let allowed = threads_allowed();
    Ok(json!({
        "open_files": open_files,
        "threads_expected": threads, "threads_allowed": allowed,
        "enough_threads": allowed.is_none_or(|allowed| threads < allowed),
    }))
}

/// Number of threads that this system can have; each also takes a process number.
fn threads_allowed() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limits = ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"];
    limits.into_iter().filter_map(read).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fleet_needs_grows_with_it() {
        assert_eq!(descriptors_for(1_000), 2_512);
        assert_eq!(threads_for(1_000, 3), 30_000);
        assert!(descriptors_for(u16::MAX) > u64::from(u16::MAX) * 2, "without overflow");
    }

    #[test]
    fn a_limit_that_is_high_enough_is_found() {
        assert!(make_room(2, 1).unwrap()["open_files"].as_u64() >= Some(descriptors_for(2)));
    }
}
