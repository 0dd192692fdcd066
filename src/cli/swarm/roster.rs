//! `PeerInfo.cfg`: the peers of an assignment's swarm, one a line: id, host name, port, and 1 or 0
//! for whether it has the whole file from the start.
//!
//! The order matters: a peer calls those listed before it. Host names are looked up when they are
//! called, not here. Every error names file, line, reason and remedy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use super::lines;
use crate::cli::config::ConfigError;
use crate::proto::swarm::PeerId;

/// Largest number of peers: each is connected with every other.
pub const PEERS_MAX: usize = 1_000;

/// Form of a line, for remedies.
const FORM: &str = "write ID HOST PORT 1-or-0, for example: 1001 localhost 6001 1";

/// A line of `PeerInfo.cfg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfoLine {
    /// Number of the line, for errors.
    pub line: usize,
    /// Id of the peer.
    pub id: PeerId,
    /// Host name or address, as it was written.
    pub host: String,
    /// Listen port of the peer.
    pub port: u16,
    /// True if it has the whole file from the start.
    pub has_file: bool,
}

/// The peers of a swarm, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfoFile {
    file: PathBuf,
    /// Peers with different ids; at least one.
    pub members: Vec<PeerInfoLine>,
}

/// Reads the file at `path`.
///
/// # Errors
/// [`ConfigError`] for any fault of the file.
pub fn read(path: &Path) -> Result<PeerInfoFile, ConfigError> {
    let text = lines::read(path, "it lists the peers: create it, or name it with --peers")?;
    parse(path, &text)
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// See [`read`].
pub fn parse(path: &Path, text: &str) -> Result<PeerInfoFile, ConfigError> {
    let mut members: Vec<PeerInfoLine> = Vec::new();
    for (number, line) in lines::of(text) {
        let fault = |reason| ConfigError { file: path.into(), line: Some(number), reason };
        let member = parse_line(number, line).map_err(fault)?;
        check_distinct(&members, &member).map_err(fault)?;
        if members.len() == PEERS_MAX {
            return Err(fault(format!("is one peer too many; at most {PEERS_MAX} can be listed")));
        }
        members.push(member);
    }
    let fault = |reason: String| ConfigError { file: path.into(), line: None, reason };
    if members.is_empty() {
        return Err(fault(format!("lists no peer; {FORM}")));
    }
    Ok(PeerInfoFile { file: path.into(), members })
}

fn parse_line(number: usize, line: &str) -> Result<PeerInfoLine, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [id, host, port, has_file] = words[..] else {
        let count = words.len();
        let fields = if count == 1 { "field" } else { "fields" };
        return Err(format!("{line:?} has {count} {fields}, not 4; {FORM}"));
    };
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let id = match id.parse() {
        Ok(number) if is_number(id) => PeerId(number),
        Ok(_) | Err(_) => return Err(format!("{id:?} is no id; write a number below 2^32")),
    };
    let port = match port.parse() {
        Ok(number) if is_number(port) && number > 0 => number,
        Ok(_) | Err(_) => {
            return Err(format!("{port:?} is no port; write a number from 1 to 65535"));
        }
    };
    let has_file = match has_file {
        "1" => true,
        "0" => false,
        other => {
            return Err(format!(
                "{other:?} is neither 1 nor 0; write 1 if peer {} has the whole file, else 0",
                id.0
            ));
        }
    };
    Ok(PeerInfoLine { line: number, id, host: host.to_owned(), port, has_file })
}

fn check_distinct(earlier: &[PeerInfoLine], member: &PeerInfoLine) -> Result<(), String> {
    for other in earlier {
        if other.id == member.id {
            let (id, line) = (member.id.0, other.line);
            return Err(format!("peer {id} was listed in line {line} already; remove one"));
        }
        if other.port == member.port && other.host.eq_ignore_ascii_case(&member.host) {
            return Err(format!(
                "{} {} is line {}'s already; give each peer of one host a port of its own",
                member.host, member.port, other.line
            ));
        }
    }
    Ok(())
}

impl PeerInfoFile {
    /// Index of a peer in the list.
    ///
    /// # Errors
    /// Fails if it is not listed; the error has the ids that are.
    pub fn position(&self, id: PeerId) -> Result<usize, ConfigError> {
        self.members.iter().position(|it| it.id == id).ok_or_else(|| {
            let known: Vec<_> = self.members.iter().map(|it| it.id.0.to_string()).collect();
            let (id, known) = (id.0, known.join(", "));
            let reason = format!("does not list peer {id}, only {known}; add a line for it");
            ConfigError { file: self.file.clone(), line: None, reason }
        })
    }

    /// Checks that some peer has the file.
    ///
    /// # Errors
    /// Fails if no line ends with 1: the swarm could never finish.
    pub fn check_source(&self) -> Result<(), ConfigError> {
        if self.members.iter().any(|it| it.has_file) {
            return Ok(());
        }
        let reason = "says of nobody that it has the file; write 1 at the end of a line".to_owned();
        Err(ConfigError { file: self.file.clone(), line: None, reason })
    }

    /// The addresses of a peer, those of IPv4 first; at least one.
    ///
    /// # Errors
    /// Fails if its host has no address that this machine can find out.
    pub fn addresses(&self, member: &PeerInfoLine) -> Result<Vec<SocketAddr>, ConfigError> {
        let fault = |error: String| {
            let host = &member.host;
            ConfigError {
                file: self.file.clone(),
                line: Some(member.line),
                reason: format!(
                    "the host {host:?} cannot be looked up ({error}); write its address, or make \
                     its name known to this machine"
                ),
            }
        };
        let found: io::Result<Vec<SocketAddr>> =
            (member.host.as_str(), member.port).to_socket_addrs().map(Iterator::collect);
        let mut found = found.map_err(|error| fault(error.to_string()))?;
        found.sort_by_key(SocketAddr::is_ipv6);
        found.dedup();
        if found.is_empty() { Err(fault("it has none".to_owned())) } else { Ok(found) }
    }
}

/// Listen address of a peer whose line has this host: loopback if the line names this machine
/// alone, else all its addresses. Its own name often leads to an address that others cannot call.
pub fn listening_address(host: &str, port: u16) -> SocketAddr {
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
        Ok(IpAddr::V4(_)) | Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "1001 localhost 6001 1\n1002 localhost 6002 0\n1003 localhost 6003 0\n";

    fn roster(text: &str) -> Vec<(u32, String, u16, bool)> {
        let roster = parse(Path::new("PeerInfo.cfg"), text);
        let roster = roster.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let member = |it: PeerInfoLine| (it.id.0, it.host, it.port, it.has_file);
        roster.members.into_iter().map(member).collect()
    }

    #[test]
    fn the_files_that_exist_in_the_wild_are_understood() {
        let three = roster(THREE);
        assert_eq!(three.len(), 3);
        assert_eq!(three[0], (1001, "localhost".to_owned(), 6001, true));
        let cases = [
            THREE.replace('\n', "\r\n"),
            THREE.replace('\n', " \t\n"),
            THREE.replace(' ', "\t"),
            THREE.replace('\n', "\n\n"),
            THREE.trim_end().to_owned(),
            format!("\u{feff}# id host port file\n{}", THREE.replace('\n', " # one\n")),
        ];
        for text in cases {
            assert_eq!(roster(&text), three, "{text:?}");
        }
        let reversed: Vec<_> = THREE.lines().rev().collect();
        assert_eq!(roster(&reversed.join("\n"))[0].0, 1003, "their order is kept");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_a_remedy() {
        let cases = [
            (String::new(), None, "lists no peer"),
            (format!("{THREE}1004 localhost 6004"), Some(4), "has 3 fields, not 4"),
            (format!("{THREE}1004"), Some(4), "has 1 field, not 4"),
            (format!("{THREE}1004 localhost 6004 0 0"), Some(4), "has 5 fields"),
            (format!("{THREE}1002 localhost 6004 0"), Some(4), "in line 2 already"),
            (format!("{THREE}1004 LOCALHOST 6002 0"), Some(4), "line 2's already"),
            (format!("{THREE}four localhost 6004 0"), Some(4), "\"four\" is no id"),
            (format!("{THREE}4294967296 localhost 6004 0"), Some(4), "below 2^32"),
            (format!("{THREE}-1 localhost 6004 0"), Some(4), "no id"),
            (format!("{THREE}1004 localhost 65536 0"), Some(4), "1 to 65535"),
            (format!("{THREE}1004 localhost 0 0"), Some(4), "1 to 65535"),
            (format!("{THREE}1004 localhost 6004 2"), Some(4), "neither 1 nor 0"),
        ];
        for (text, line, reason) in cases {
            let error = parse(Path::new("PeerInfo.cfg"), &text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.to_string().contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn who_is_not_listed_and_a_file_that_nobody_has_are_named() {
        let list = parse(Path::new("PeerInfo.cfg"), THREE).unwrap();
        assert_eq!(list.position(PeerId(1003)), Ok(2));
        let error = list.position(PeerId(7)).unwrap_err().to_string();
        assert!(error.contains("peer 7") && error.contains("1001, 1002, 1003"), "{error}");
        assert_eq!(list.check_source(), Ok(()));
        let none = parse(Path::new("PeerInfo.cfg"), "1001 localhost 6001 0").unwrap();
        assert!(none.check_source().unwrap_err().to_string().contains("write 1"));
    }

    #[test]
    fn hosts_are_looked_up_where_they_are_called() {
        let text = "1 127.0.0.1 6001 1\n2 no-such-host.invalid 6002 0\n3 localhost 6003 0\n";
        let list = parse(Path::new("PeerInfo.cfg"), text).unwrap();
        let own = list.addresses(&list.members[0]).unwrap();
        assert_eq!(own, ["127.0.0.1:6001".parse().unwrap()]);
        assert!(list.addresses(&list.members[2]).unwrap()[0].ip().is_loopback());
        let error = list.addresses(&list.members[1]).unwrap_err();
        assert_eq!(error.line, Some(2));
        assert!(error.to_string().contains("\"no-such-host.invalid\""), "{error}");
    }

    #[test]
    fn who_is_called_localhost_listens_to_this_machine_alone() {
        let cases = [
            ("localhost", "127.0.0.1:6001"),
            ("127.0.0.1", "127.0.0.1:6001"),
            ("::1", "[::1]:6001"),
            ("10.0.0.7", "0.0.0.0:6001"),
            ("host-00.example.edu", "0.0.0.0:6001"),
            ("2001:db8::7", "[::]:6001"),
        ];
        for (host, expected) in cases {
            assert_eq!(listening_address(host, 6001).to_string(), expected, "{host}");
        }
    }
}
