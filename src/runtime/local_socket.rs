//! Users behind the connections of this machine's programs.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Tables of the system's sockets, of both families (`proc_net_tcp`).
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Number of the user whose program holds the connected socket at this address; `None` if the
/// system does not tell.
pub fn owner(at: SocketAddr) -> Option<u32> {
    let lines = TABLES
        .iter()
        .filter_map(|it| File::open(it).ok())
        .flat_map(|it| BufReader::new(it).lines().map_while(Result::ok));
    lines.filter_map(|line| entry(&line)).find(|it| it.0 == canonical(at)).map(|it| it.1)
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// Address and user of a line of a table.
fn entry(line: &str) -> Option<(SocketAddr, u32)> {
    let mut words = line.split_whitespace().skip(1);
    let (ip, port) = words.next()?.split_once(':')?;
    let user = words.nth(5)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each in the order of the machine.
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))
        }
        _ => return None,
    };
    Some((canonical(SocketAddr::new(ip, port)), user))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_of_a_connection_is_found_in_both_families() {
        let own = rustix::process::geteuid().as_raw();
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(owner(stream.local_addr().unwrap()), Some(own), "{at}");
        }
        assert_eq!(owner("127.0.0.1:1".parse().unwrap()), None);
    }

    #[test]
    fn a_line_of_the_table_has_address_and_user() {
        let line = "   1: 0100007F:1771 0100007F:C001 01 00000000:00000000 00:00000000 00000000 \
                    1000        0 4242 1 0 20 4 30 10 -1";
        assert_eq!(entry(line), Some(("127.0.0.1:6001".parse().unwrap(), 1_000)));
        assert_eq!(entry("  sl  local_address rem_address   st tx_queue"), None);
    }
}
