//! What the system must allow so that a fleet of many processes fits on this machine.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::cli::CliError;

/// Threads of one peer, links to a handful of neighbors included; hubs have more.
const THREADS_PER_PEER: u64 = 24;

/// Descriptors that one process may need in a fleet of `peers`: this one a pipe for each, a seed
/// a link and a probe for each.
fn descriptors_for(peers: u16) -> u64 {
    2 * u64::from(peers) + 512
}

/// Threads of the whole fleet, roughly: those of the peers, and at each seed two for each link.
fn threads_for(peers: u16, seeds: u16) -> u64 {
    u64::from(peers) * (THREADS_PER_PEER + 2 * u64::from(seeds))
}

/// Raises this process's limit of descriptors, which the fleet's processes inherit, as far as
/// `peers` of them need. Returns what was found and done, for a line of the measurement.
///
/// # Errors
/// When the system does not allow as many.
pub(super) fn make_room(peers: u16, seeds: u16) -> Result<Value, CliError> {
    let wanted = descriptors_for(peers);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let is_raised = current.is_some_and(|current| current < wanted);
    if is_raised {
        let limit = Rlimit { current: Some(wanted), maximum };
        setrlimit(Resource::Nofile, limit).map_err(|error| {
            let found = current.unwrap_or(wanted);
            CliError::Failed(format!(
                "{peers} peers need {wanted} open files per process, and {found} are allowed \
                 ({error}); raise the limit with ulimit -n {wanted}, or take fewer peers"
            ))
        })?;
    }
    let threads = threads_for(peers, seeds);
    let allowed = threads_allowed();
    Ok(json!({
        "open_files": if is_raised { Some(wanted) } else { current },
        "open_files_were": current, "raised": is_raised,
        "threads_expected": threads, "threads_allowed": allowed,
        "enough_threads": allowed.is_none_or(|allowed| threads < allowed),
    }))
}

/// How many threads this system can have; each also takes a process number.
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
    fn a_limit_that_is_high_enough_is_left_alone() {
        let before = getrlimit(Resource::Nofile);
        let found = make_room(2, 1).unwrap();
        if before.current.is_none_or(|current| current >= descriptors_for(2)) {
            assert_eq!(found["raised"], false);
            assert_eq!(getrlimit(Resource::Nofile), before);
        } else {
            assert_eq!(getrlimit(Resource::Nofile).current, Some(descriptors_for(2)));
        }
    }
}
