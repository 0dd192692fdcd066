//! Names of nodes: endpoint, incarnation, and number of a seed.

use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Listen address of a node; the name under which the fleet knows it.
///
/// Ordered by address, then port, so that every collection of nodes iterates alike everywhere. An
/// IPv4 address written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address: one place has one name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "SocketAddr")]
pub struct Endpoint(SocketAddr);

impl Endpoint {
    /// The endpoint at `ip` and `port`.
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self(SocketAddr::new(ip.to_canonical(), port))
    }

    /// The address without its port, as the two fixed texts print it.
    pub const fn ip(&self) -> IpAddr {
        self.0.ip()
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.0.port()
    }

    /// True if other nodes can call the endpoint at all: an address of one machine, and a port.
    pub const fn is_callable(&self) -> bool {
        let is_one = match self.0.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        };
        is_one && self.0.port() != 0
    }

    /// The address for a socket call.
    pub const fn socket_addr(&self) -> SocketAddr {
        self.0
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self::new(ip.into(), addr.port()),
            IpAddr::V6(_) => Self(addr),
        }
    }
}

impl FromStr for Endpoint {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(SocketAddr::into)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Incarnation of an endpoint: its start in milliseconds since the Unix epoch, raised where needed
/// so that each registration of one endpoint has a higher one than the last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The incarnation for a registration at `wall_ms` that follows this one.
    #[must_use]
    pub const fn next(self, wall_ms: u64) -> Self {
        if wall_ms > self.0 { Self(wall_ms) } else { Self(self.0.saturating_add(1)) }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A seed's number: its position in `config.txt`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeedId(pub u16);

impl fmt::Display for SeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_the_ipv4_address() {
        let plain: Endpoint = "192.0.2.1:5001".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5001".parse().unwrap();
        let others = [
            Endpoint::from(mapped),
            Endpoint::new(mapped.ip(), mapped.port()),
            mapped.to_string().parse().unwrap(),
            serde_json::from_str(&format!("{:?}", mapped.to_string())).unwrap(),
        ];
        assert_eq!(others, [plain; 4]);
        assert_eq!(serde_json::to_string(&others[0]).unwrap(), "\"192.0.2.1:5001\"");
        let six: Endpoint = "[2001:db8::1]:5001".parse().unwrap();
        assert_eq!(six.to_string(), "[2001:db8::1]:5001");
    }

    #[test]
    fn an_incarnation_rises_even_when_the_clock_goes_back() {
        assert_eq!(Incarnation(100).next(250), Incarnation(250));
        assert_eq!(Incarnation(100).next(40), Incarnation(101));
        assert_eq!(Incarnation(100).next(100), Incarnation(101));
    }
}
