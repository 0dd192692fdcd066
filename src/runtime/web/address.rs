//! Addresses of HTTP servers.

use std::fmt;
use std::str::FromStr;

/// Address of a server: `http://host:port` or `https://host:port`, with a path or without.
///
/// A path that ends with a slash is put before the path of every request; any other path is asked
/// for in place of `/predict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    is_tls: bool,
    /// Name or address, in brackets if it is IPv6.
    host: String,
    port: u16,
    path: Option<String>,
}

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a server is like http://127.0.0.1:9001 or https://host/path/";
        let (scheme, rest) = text.split_once("://").ok_or(WRONG)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(WRONG),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("a server's address has no user; send Authorization with the requests");
        }
        let has_port = authority.rfind(':').is_some_and(|at| !authority[at..].contains(']'));
        let default = if is_tls { "443" } else { "80" };
        let (host, port) = match authority.rsplit_once(':') {
            Some(parts) if has_port => parts,
            _ => (authority, default),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(WRONG)?;
        let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match inside {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_name),
        };
        let is_path = path.bytes().all(|c| c.is_ascii_graphic() && c != b'#' && c != b',');
        if !is_host || !is_path {
            return Err(WRONG);
        }
        let path = match path {
            "" | "/" => None,
            path if path.starts_with('?') => Some(format!("/{path}")),
            path => Some(path.to_owned()),
        };
        Ok(Self { is_tls, host: host.to_ascii_lowercase(), port, path })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        let path = self.path.as_deref().unwrap_or_default();
        write!(f, "{scheme}://{}:{}{path}", self.host, self.port)
    }
}

impl Upstream {
    /// True if the server is asked by TLS.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Name or address of the server, without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// Port of the server.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as the header `Host` has them.
    pub(crate) fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// Target of a request that came for `target`, which is a path with or without a query; `None`
    /// if it is the same.
    pub(crate) fn target(&self, target: &str) -> Option<String> {
        let own = self.path.as_deref()?;
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        if own.ends_with('/') {
            return Some(format!("{}{target}", own.trim_end_matches('/')));
        }
        if path != "/predict" {
            return None;
        }
        Some(match query {
            None => own.to_owned(),
            Some(query) if own.contains('?') => format!("{own}&{query}"),
            Some(query) => format!("{own}?{query}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_path() {
        for (text, shown, host, target) in [
            ("http://127.0.0.1:9001", "http://127.0.0.1:9001", "127.0.0.1:9001", None),
            ("HTTP://Models.lan:80/", "http://models.lan:80", "models.lan", None),
            ("https://models.lan", "https://models.lan:443", "models.lan", None),
            (
                "http://[::1]:9001/v2/ask",
                "http://[::1]:9001/v2/ask",
                "[::1]:9001",
                Some("/v2/ask?q=1"),
            ),
            ("http://a:1/ask?m=2", "http://a:1/ask?m=2", "a:1", Some("/ask?m=2&q=1")),
            ("http://a:1?m=2", "http://a:1/?m=2", "a:1", Some("/?m=2&q=1")),
            ("http://a:1/base/", "http://a:1/base/", "a:1", Some("/base/predict?q=1")),
            ("http://[::1]", "http://[::1]:80", "[::1]", None),
        ] {
            let server: Upstream = text.parse().unwrap();
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse::<Upstream>().unwrap(), server);
            assert_eq!(server.authority(), host);
            assert_eq!(server.target("/predict?q=1").as_deref(), target);
        }
        let fixed: Upstream = "http://a:1/v2/ask".parse().unwrap();
        assert_eq!(fixed.target("/other"), None, "only /predict has another name there");
        for text in [
            "",
            "127.0.0.1:1",
            "ftp://a:1",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:65536",
            "http://a:x",
            "http://a b:1",
            "http://a\r\n:1",
            "http://u@a:1",
            "http://a:1/x y",
            "http://a:1/#x",
            "http://[::1:1",
            "http://[x]:1",
            "http://a:1/\r\nX: y",
            "http://é:1",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text:?}");
        }
    }
}
