//! Limit of the files that this process may have open; each connection counts as one.
//!
//! Systems give a process a low limit (1,024, for programs that use `select`) which it may raise
//! itself up to a hard one. This project uses no `select`, so both programs raise it at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that no connection gets: for the log, files of contents, and local commands.
const KEPT_BACK: usize = 256;

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

/// Shortage of descriptors for the wanted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Number of files that may be open.
    pub allowed: usize,
    /// Number of files that the wanted connections need, with all others that are opened.
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
