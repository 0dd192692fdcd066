//! Fairness among callers: of too many connections, the one that makes room for another.
//!
//! Invariant: no address keeps others out, as long as it has more connections than they have.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// The connection that goes first: the oldest of the address with the most. Numbers ascend in the
/// order in which connections came.
pub(crate) fn first_to_go<N: Ord + Copy>(
    crowd: impl IntoIterator<Item = (N, IpAddr)>,
) -> Option<N> {
    let mut by_host = BTreeMap::new();
    for (number, from) in crowd {
        let (count, Reverse(oldest)) =
            by_host.entry(host_of(from)).or_insert((0_usize, Reverse(number)));
        (*count, *oldest) = (*count + 1, number.min(*oldest));
    }
    by_host.into_values().max().map(|(_, Reverse(oldest))| oldest)
}

/// Address by which callers are counted. A host chooses the lower half of its IPv6 address freely,
/// so all addresses of one /64 network count as one.
fn host_of(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_most_connections_makes_room_and_nobody_else() {
        let go =
            |crowd: &[&str]| first_to_go((0..).zip(crowd.iter().map(|it| it.parse().unwrap())));
        assert_eq!(go(&[]), None);
        assert_eq!(go(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]), Some(0), "all have the same");
        assert_eq!(go(&["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.2"]), Some(1));
        let v6 = ["192.0.2.1", "192.0.2.1", "2001:db8::1:2", "2001:db8::3:4", "2001:db8::5:6"];
        assert_eq!(go(&v6), Some(2));
        assert_eq!(go(&["192.0.2.1", "2001:db8:0:1::1", "2001:db8:0:2::1"]), Some(0));
    }
}
