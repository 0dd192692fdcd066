//! The check whether a program's connections fit into the limit of open files.

use crate::runtime::descriptors::{self, Shortage};

/// Number of `connections` that there is room for, and a sentence for people if it is less.
pub(in crate::cli) fn for_connections(connections: usize) -> (usize, Option<String>) {
    match descriptors::fit(connections) {
        Ok(()) => (connections, None),
        Err(shortage) => (shortage.room, Some(words(connections, shortage))),
    }
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
    }
}
