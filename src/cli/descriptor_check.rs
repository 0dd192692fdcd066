//! The check whether a program's connections fit into the limits of the system.

use crate::runtime::descriptors::{self, Shortage};

/// Number of `connections` without threads that there is room for, and a sentence for people if it
/// is less.
pub(in crate::cli) fn for_sockets(connections: usize) -> (usize, Option<String>) {
    match descriptors::fit(connections) {
        Ok(()) => (connections, None),
        Err(shortage) => (shortage.room, Some(words(connections, shortage))),
    }
}

/// The same for connections that have threads.
pub(in crate::cli) fn for_connections(connections: usize) -> (usize, Option<String>) {
    let (room, told) = for_sockets(connections);
    match descriptors::fit_maps(room) {
        Ok(()) => (room, told),
        Err(shortage) => (shortage.room, Some(words_of_maps(connections, shortage))),
    }
}

fn words_of_maps(connections: usize, Shortage { allowed, needed, room }: Shortage) -> String {
    format!(
        "this system gives a program {allowed} memory maps, which threads need: it takes {room} \
         connections instead of {connections}; to take all: sysctl vm.max_map_count={needed}"
    )
}

fn words(connections: usize, Shortage { allowed, needed, room }: Shortage) -> String {
    format!(
        "this system lets the program have {allowed} files open: it takes {room} connections \
         instead of {connections}; to take all, raise the hard limit to {needed}: \
         ulimit -Hn {needed} as root, LimitNOFILE={needed} in a systemd unit, or \
         --ulimit nofile={needed} for a container"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_with_its_remedy() {
        let text = words(8_192, Shortage { allowed: 1_024, needed: 8_448, room: 768 });
        assert!(text.contains("1024 files") && text.contains("768 connections"), "{text}");
        assert!(text.contains("ulimit -Hn 8448") && text.contains("LimitNOFILE=8448"), "{text}");
        let text = words_of_maps(8_192, Shortage { allowed: 65_530, needed: 73_728, room: 7_167 });
        assert!(text.contains("7167 connections instead of 8192"), "{text}");
        assert!(text.contains("sysctl vm.max_map_count=73728"), "{text}");
    }
}
