//! The flag `--http`.

use std::net::SocketAddr;
use std::str::FromStr;

/// Clients that are answered over HTTP, or the address of a data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpArg {
    /// All clients are answered.
    Any,
    /// Only programs of this machine are answered.
    Loopback,
    /// No client is answered.
    Off,
    /// A port of its own: the data plane of a node that rolls out.
    At(SocketAddr),
}

impl FromStr for HttpArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "loopback" => Ok(Self::Loopback),
            "off" => Ok(Self::Off),
            _ => {
                let at = text.parse().map(Self::At);
                at.map_err(|_| "any, loopback, off, or an address as in 127.0.0.1:50051")
            }
        }
    }
}
