//! Limits of the system on the connections of this process: each is an open file, and has two
//! threads, whose stacks are memory maps.
//!
//! Systems give a process a low limit (1,024, for programs that use `select`) which it may raise
//! itself up to a hard one. This project uses no `select`, so both programs raise it at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that no connection gets: for the log, files of contents, and local commands.
const KEPT_BACK: usize = 256;

/// Memory maps of a connection's two threads: a stack and a signal stack for each, and the guard of
/// each stack.
const MAPS_OF_A_LINK: usize = 8;

/// Memory maps that no connection gets: for the program, its other threads, and large buffers.
const MAPS_KEPT_BACK: usize = 8_192;

/// Raises this process's soft limit to the hard one, which the processes that it starts inherit.
/// Returns the number of files it may have open now.
pub fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // If the system allows no more after all, the earlier limit has to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    allowed()
}

/// Number of files that this process may have open.
pub fn allowed() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Shortage of files or memory maps for the wanted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Number of files or maps that the system allows.
    pub allowed: usize,
    /// Number of files or maps that the wanted connections need, with all others of the process.
    pub needed: usize,
    /// Number of connections for which there is room; at least one.
    pub room: usize,
}

/// Checks that `connections` fit into the limit of open files.
///
/// # Errors
///
/// The shortage, with the number of connections that fit.
pub fn fit(connections: usize) -> Result<(), Shortage> {
    fit_in(allowed(), connections)
}

/// Checks that the threads of `connections` fit into the limit of memory maps, which is 65,530 on
/// Linux unless it was changed. The system ends a process that has no map left for a new thread.
///
/// # Errors
///
/// The shortage, with the number of connections that fit.
pub fn fit_maps(connections: usize) -> Result<(), Shortage> {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let allowed = limit.ok().and_then(|it| it.trim().parse().ok()).unwrap_or(usize::MAX);
    fit_in_maps(allowed, connections)
}

fn fit_in_maps(allowed: usize, connections: usize) -> Result<(), Shortage> {
    let needed = connections.saturating_mul(MAPS_OF_A_LINK).saturating_add(MAPS_KEPT_BACK);
    if needed <= allowed {
        return Ok(());
    }
    // Of a very low limit, half.
    let maps = allowed.saturating_sub(MAPS_KEPT_BACK).max(allowed / 2);
    Err(Shortage { allowed, needed, room: (maps / MAPS_OF_A_LINK).max(1) })
}

fn fit_in(allowed: usize, connections: usize) -> Result<(), Shortage> {
    let needed = connections.saturating_add(KEPT_BACK);
    if needed <= allowed {
        return Ok(());
    }
    // Of a very low limit, half.
    let room = allowed.saturating_sub(KEPT_BACK).max(allowed / 2).max(1);
    Err(Shortage { allowed, needed, room })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let allowed_now = raise();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: hard, maximum: hard });
        assert_eq!(allowed_now, allowed());
    }

    #[test]
    fn two_threads_of_each_connection_fit_into_the_memory_maps() {
        assert_eq!(fit_in_maps(65_530, 7_000), Ok(()), "the default of Linux");
        let shortage = |allowed, needed, room| Err(Shortage { allowed, needed, room });
        assert_eq!(fit_in_maps(65_530, 8_192), shortage(65_530, 73_728, 7_167));
        assert_eq!(fit_in_maps(8_000, 7_000), shortage(8_000, 64_192, 500));
        assert_eq!(fit_in_maps(0, usize::MAX), shortage(0, usize::MAX, 1));
        assert_eq!(fit_in_maps(usize::MAX, 1_000_000), Ok(()));
    }

    #[test]
    fn connections_leave_room_for_files() {
        assert_eq!(fit_in(8_448, 8_192), Ok(()));
        let shortage = |allowed, needed, room| Err(Shortage { allowed, needed, room });
        assert_eq!(fit_in(8_447, 8_192), shortage(8_447, 8_448, 8_191));
        assert_eq!(fit_in(1_024, 8_192), shortage(1_024, 8_448, 768));
        assert_eq!(fit_in(300, 8_192), shortage(300, 8_448, 150));
        assert_eq!(fit_in(0, usize::MAX), shortage(0, usize::MAX, 1));
        assert_eq!(fit_in(usize::MAX, usize::MAX), Ok(()));
    }
}
