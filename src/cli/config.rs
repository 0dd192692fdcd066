//! `config.txt`: the seeds of the fleet, one a line.
//!
//! A line is an address, a port and, optionally, the seed's pinned public key, separated by `:`,
//! `,` or blanks. `#` starts a comment; blank lines and a header row are skipped. The first seed
//! named is seed 1. Every error names file, line, reason and remedy, and nothing is guessed: a
//! seed too many or too few would change what a quorum is.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::machine::membership::seedbook::SeedAddress;
use crate::model::{Endpoint, PublicKey, SeedId};

/// Largest number of seeds: each is linked with every other, and every admission is dialed back by
/// all of them.
pub const SEEDS_MAX: usize = 64;

/// Largest size of the file, in bytes; a full one with keys and comments has a hundredth of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reason why `config.txt` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the file.
    pub file: PathBuf,
    /// The line, counted from 1, if one is to blame.
    pub line: Option<usize>,
    /// Description of the error and its remedy.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.file.display(), self.reason),
            None => write!(f, "{}: {}", self.file.display(), self.reason),
        }
    }
}

impl Error for ConfigError {}

/// Reads the seeds from the file at `path`.
///
/// # Errors
/// [`ConfigError`] for whatever is wrong with the file; nothing of it is used then.
pub fn read(path: &Path) -> Result<Vec<SeedAddress>, ConfigError> {
    let fault = |reason: String| ConfigError { file: path.into(), line: None, reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| {
        fault(format!(
            "cannot be opened ({error}); it lists the seeds, one IP:PORT a line: create it, or \
             name another file with --config"
        ))
    })?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(format!("cannot be read ({error}); --config takes a file")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault("is larger than 1 MiB; it should only list the seeds".to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| fault("is not plain text (UTF-8); save it as such".to_owned()))?;
    parse(path, &text)
}

/// Reads the seeds from the text of the file at `path`.
///
/// # Errors
/// See [`read`].
pub fn parse(path: &Path, text: &str) -> Result<Vec<SeedAddress>, ConfigError> {
    let mut seeds: Vec<(usize, SeedAddress)> = Vec::new();
    let mut is_first = true;
    for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let fault = |reason| ConfigError { file: path.into(), line: Some(number), reason };
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if std::mem::take(&mut is_first) && is_header(line) {
            continue;
        }
        let (endpoint, key) = parse_line(line).map_err(fault)?;
        check_distinct(&seeds, endpoint, key).map_err(fault)?;
        let position = seeds.len() + 1;
        if position > SEEDS_MAX {
            return Err(fault(format!("is seed {position}; at most {SEEDS_MAX} can be listed")));
        }
        let id = SeedId(u16::try_from(position).expect("it is at most SEEDS_MAX"));
        seeds.push((number, SeedAddress { id, endpoint, key }));
    }
    if seeds.is_empty() {
        let reason = "lists no seed; write one IP:PORT a line, for example 127.0.0.1:5001";
        return Err(ConfigError { file: path.into(), line: None, reason: reason.to_owned() });
    }
    Ok(seeds.into_iter().map(|(_, seed)| seed).collect())
}

/// True if a first line is a header row: no address, no number, and no digit where the port
/// would be. An IPv6 address may be written without a digit, and is a seed all the same.
fn is_header(line: &str) -> bool {
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let first = line.split([',', ' ', '\t']).next().unwrap_or_default();
    if line.starts_with('[') || first.parse::<IpAddr>().is_ok() {
        return false;
    }
    let mut words = line.split([':', ',', ' ', '\t']).filter(|word| !word.is_empty());
    let (Some(ip), Some(port)) = (words.next(), words.next()) else { return false };
    ip.parse::<IpAddr>().is_err()
        && !port.contains(|c: char| c.is_ascii_digit())
        && !words.any(is_number)
}

fn parse_line(line: &str) -> Result<(Endpoint, Option<PublicKey>), String> {
    let (ip, rest) = split_address(line)?;
    let ip = parse_ip(ip)?;
    let mut words = rest.split([':', ',', ' ', '\t']).filter(|word| !word.is_empty());
    let port = words.next().ok_or_else(|| format!("{line:?} has no port; write IP:PORT"))?;
    let port = parse_port(port)?;
    let key = words.next().map(parse_key).transpose()?;
    match words.next() {
        None => Ok((Endpoint::new(ip, port), key)),
        Some(more) => {
            Err(format!("{more:?} is one field too many; write IP:PORT or IP:PORT:PUBLIC_KEY"))
        }
    }
}

/// Splits a line after its address, in front of the separator.
fn split_address(line: &str) -> Result<(&str, &str), String> {
    if let Some(bracketed) = line.strip_prefix('[') {
        let (ip, rest) = bracketed
            .split_once(']')
            .ok_or_else(|| format!("{line:?} has no closing bracket; write [::1]:5001"))?;
        if !rest.is_empty() && !rest.starts_with([':', ',', ' ', '\t']) {
            return Err(format!("{line:?} has no separator after the bracket; write [::1]:5001"));
        }
        return Ok((ip, rest));
    }
    let end = line.find([',', ' ', '\t']).unwrap_or(line.len());
    let (first, rest) = line.split_at(end);
    let Some((before, _)) = first.split_once(':') else { return Ok((first, rest)) };
    let colons = first.matches(':').count();
    if before.parse::<Ipv4Addr>().is_ok() || (colons <= 2 && first.parse::<IpAddr>().is_err()) {
        Ok((before, &line[before.len()..]))
    } else if rest.is_empty() {
        // `::1,5001` is clear; `::1:5001` may be either of two things.
        Err(format!("{first:?} is ambiguous; put an IPv6 address in brackets: [::1]:5001"))
    } else {
        Ok((first, rest))
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| {
        format!("{text:?} is no IP address; names are not looked up: write the address itself")
    })?;
    check_ip(ip)?;
    Ok(ip)
}

/// Refuses addresses that cannot be called.
///
/// # Errors
/// The fault of the address and its remedy.
pub fn check_ip(ip: IpAddr) -> Result<(), String> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        Err(format!("{ip} cannot be called by others; write an address that this machine has"))
    } else {
        Ok(())
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("{text:?} is no port; write a number from 1 to 65535")),
    }
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).ok_or_else(|| {
        format!("{text:?} is no public key; write its 64 hexadecimal digits or leave it out")
    })
}

fn check_distinct(
    earlier: &[(usize, SeedAddress)],
    endpoint: Endpoint,
    key: Option<PublicKey>,
) -> Result<(), String> {
    for (line, seed) in earlier {
        if seed.endpoint == endpoint {
            return Err(format!("{endpoint} was listed in line {line} already; remove one"));
        }
        if key.is_some() && seed.key == key {
            return Err(format!("line {line} pins the same key; each seed has its own"));
        }
    }
    Ok(())
}

/// Entry in `config.txt` of the seed that the flags name.
///
/// # Errors
/// Fails if there is none, or it has another address; the text is for the user.
pub fn seat<'a>(
    file: &Path,
    seeds: &'a [SeedAddress],
    (id, ip, port): (u16, Option<IpAddr>, Option<u16>),
) -> Result<&'a SeedAddress, String> {
    let id = SeedId(id);
    let Some(own) = seeds.iter().find(|seed| seed.id == id) else {
        let (file, n) = (file.display(), seeds.len());
        return Err(match n {
            1 => format!("{file} lists one seed, so --id is 1 and not {id}"),
            _ => format!("{file} lists {n} seeds, so --id is from 1 to {n} and not {id}"),
        });
    };
    let ip = ip.unwrap_or_else(|| own.endpoint.ip());
    let port = port.unwrap_or_else(|| own.endpoint.port());
    let typed = Endpoint::new(ip, port);
    if typed != own.endpoint {
        return Err(wrong_address(file, seeds, own, typed));
    }
    Ok(own)
}

fn wrong_address(file: &Path, seeds: &[SeedAddress], own: &SeedAddress, typed: Endpoint) -> String {
    let (id, right, file) = (own.id, own.endpoint, file.display());
    match seeds.iter().find(|seed| seed.endpoint == typed) {
        Some(other) => format!(
            "{file} has {right} for seed {id}, and {typed} is seed {other}; start it with --id \
             {other}, or at {right}",
            other = other.id,
        ),
        None => format!(
            "{file} has {right} for seed {id}, not {typed}; leave --ip and --port out, or change \
             the file for all nodes",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn seeds(text: &str) -> Vec<String> {
        let line = |seed: SeedAddress| match seed.key {
            Some(key) => format!("{} {} {key}", seed.id, seed.endpoint),
            None => format!("{} {}", seed.id, seed.endpoint),
        };
        match parse(Path::new("config.txt"), text) {
            Ok(seeds) => seeds.into_iter().map(line).collect(),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }

    #[test]
    fn every_usual_way_to_write_a_seed_is_understood() {
        let pinned = format!("1 127.0.0.1:5001 {KEY}");
        let cases = [
            ("127.0.0.1:5001".to_owned(), "1 127.0.0.1:5001"),
            ("127.0.0.1,5001".to_owned(), "1 127.0.0.1:5001"),
            ("127.0.0.1, 5001 ,".to_owned(), "1 127.0.0.1:5001"),
            ("127.0.0.1 5001".to_owned(), "1 127.0.0.1:5001"),
            ("\t127.0.0.1\t 5001\t".to_owned(), "1 127.0.0.1:5001"),
            ("127.0.0.1:5001 # the first".to_owned(), "1 127.0.0.1:5001"),
            ("\u{feff}127.0.0.1:5001\r\n".to_owned(), "1 127.0.0.1:5001"),
            ("ip,port\n127.0.0.1,5001".to_owned(), "1 127.0.0.1:5001"),
            ("# seeds\n\nIP:PORT\n127.0.0.1:5001".to_owned(), "1 127.0.0.1:5001"),
            ("[::1]:5001".to_owned(), "1 [::1]:5001"),
            ("[2001:db8::7] 5001".to_owned(), "1 [2001:db8::7]:5001"),
            ("::1,5001".to_owned(), "1 [::1]:5001"),
            (format!("127.0.0.1:5001:{KEY}"), &pinned),
            (format!("127.0.0.1,5001,{KEY}"), &pinned),
            (format!("127.0.0.1:5001 {}", KEY.to_uppercase()), &pinned),
            (format!("127.0.0.1 5001\t{KEY} # pinned"), &pinned),
        ];
        for (text, expected) in cases {
            assert_eq!(seeds(&text), [expected], "{text:?}");
        }
        let pinned = format!("1 [::1]:5001 {KEY}");
        assert_eq!(seeds(&format!("[::1]:5001:{KEY}")), [pinned]);
    }

    #[test]
    fn seeds_are_numbered_by_their_order_and_not_by_their_lines() {
        let text = "ip,port\n\n127.0.0.1,5003\r\n# two\n127.0.0.1,5001\r\n";
        assert_eq!(seeds(text), ["1 127.0.0.1:5003", "2 127.0.0.1:5001"]);
    }

    #[test]
    fn an_address_without_a_digit_in_the_first_line_is_no_header() {
        assert_eq!(seeds("[fd::a]:5001\n[fd::b]:5002").len(), 2);
        assert_eq!(seeds("fd::a,5001"), ["1 [fd::a]:5001"]);
        for (text, reason) in [
            ("[fd::a]:99999\n10.0.0.1:1", "no port"),
            ("fd::a,99999\n10.0.0.1:1", "no port"),
            ("fd::a\n10.0.0.1:1", "ambiguous"),
            ("[fd::a]\n10.0.0.1:1", "has no port"),
        ] {
            let error = parse(Path::new("config.txt"), text).unwrap_err();
            assert_eq!(error.line, Some(1), "{text:?}: {error}");
            assert!(error.reason.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_a_remedy() {
        let same_key = format!("127.0.0.1:1:{KEY}\n127.0.0.1:2:{KEY}");
        let cases = [
            ("", None, "lists no seed"),
            ("# nothing\n", None, "lists no seed"),
            ("ip,port\n", None, "lists no seed"),
            ("127.0.0.1", Some(1), "has no port"),
            ("seeds", Some(1), "no IP address"),
            ("127.0.0.1:port", Some(1), "\"port\" is no port"),
            ("127.0.0.1:0", Some(1), "from 1 to 65535"),
            ("127.0.0.1:65536", Some(1), "from 1 to 65535"),
            ("127.0.0.1:+5001", Some(1), "from 1 to 65535"),
            ("127.0.0.1:5001\nip,port", Some(2), "\"ip\" is no IP address"),
            ("127.0.0.1:5001\n\nlocalhost:5002", Some(3), "names are not looked up"),
            ("127.0.0.1:5001:abcd", Some(1), "64 hexadecimal digits"),
            ("127.0.0.1:5001 5002 5003", Some(1), "is no public key"),
            ("::1:5001", Some(1), "in brackets"),
            ("[::1:5001", Some(1), "closing bracket"),
            ("[::1]5001", Some(1), "separator"),
            ("0.0.0.0:5001", Some(1), "cannot be called"),
            ("127.0.0.1:5001\n127.0.0.1,5001", Some(2), "in line 1 already"),
            (&same_key, Some(2), "same key"),
        ];
        for (text, line, reason) in cases {
            let error = parse(Path::new("config.txt"), text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.reason.contains(reason), "{text:?}: {error}");
            assert!(error.to_string().starts_with("config.txt"), "{error}");
        }
    }

    #[test]
    fn a_field_too_many_is_named() {
        let error = parse(Path::new("c"), &format!("127.0.0.1:5001:{KEY}:x")).unwrap_err();
        assert!(error.reason.contains("\"x\" is one field too many"), "{error}");
    }

    #[test]
    fn sixty_four_seeds_are_taken_and_not_one_more() {
        let list = |n: u16| (1..=n).map(|port| format!("10.0.0.1:{port}\n")).collect::<String>();
        assert_eq!(seeds(&list(64)).len(), 64);
        let error = parse(Path::new("config.txt"), &list(65)).unwrap_err();
        assert_eq!(error.line, Some(65));
    }

    #[test]
    fn a_missing_file_is_named_with_the_flag() {
        let error = read(Path::new("no/such/config.txt")).unwrap_err().to_string();
        assert!(error.contains("no/such/config.txt") && error.contains("--config"), "{error}");
    }
}
