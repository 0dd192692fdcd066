//! Headers that a proxy takes away and adds (RFC 9110, 7.6; RFC 7239).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// Headers of one connection, which no proxy passes on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Beginnings of the names of headers that a client cannot take away by naming them in
/// `Connection`: they are for the server, and some come from a proxy before this one.
const PROTECTED: [&str; 15] = [
    "accept",
    "authorization",
    "cache-control",
    "content-",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "origin",
    "range",
    "via",
    "x-canary",
    "x-forwarded-",
    "x-real-ip",
    "x-routing-key",
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes the headers of one connection, and those that `Connection` names.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<_> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !PROTECTED.iter().any(|it| name.as_str().starts_with(it)))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    let asks_for_trailers = headers.get(header::TE).is_some_and(|value| {
        value
            .to_str()
            .is_ok_and(|it| it.split(',').any(|it| it.trim().eq_ignore_ascii_case("trailers")))
    });
    if let Entry::Occupied(mut te) = headers.entry(header::TE) {
        if asks_for_trailers {
            te.insert(HeaderValue::from_static("trailers"));
        } else {
            te.remove();
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes the coding of an answer's body away, with a length beside it, which does not count (RFC
/// 9112, 6.3).
///
/// # Errors
/// Fails with the reason, for people, if it is not `chunked`: the body would go on coded.
pub(super) fn take_coding(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => return Ok(()),
        (Some(it), None) if it.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err("the one known Transfer-Encoding of its answers is chunked"),
    }
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

/// Removes from the trailers of a body what only a head may say (RFC 9110, 6.5.1), and what only
/// this node may.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    const OWN: [&str; 6] = ["set-cookie", "te", "trailer", "x-mirrored", "x-model", "x-routing-"];
    remove_underscores(trailers);
    let of_heads: Vec<_> = trailers
        .keys()
        .filter(|it| {
            HOP_BY_HOP.contains(it)
                || PROTECTED.iter().chain(&OWN).any(|name| it.as_str().starts_with(name))
        })
        .cloned()
        .collect();
    for name in of_heads {
        trailers.remove(name);
    }
}

/// Removes the headers whose names have underscores: many servers take them for others, with a dash
/// in its place.
pub(super) fn remove_underscores(headers: &mut HeaderMap) {
    let has_one = |name: &HeaderName| name.as_str().contains('_');
    if headers.keys().any(has_one) {
        let named: Vec<_> = headers.keys().filter(|it| has_one(it)).cloned().collect();
        for name in named {
            headers.remove(name);
        }
    }
}

/// Adds this node to `Via`.
pub(super) fn add_via(headers: &mut HeaderMap, version: hyper::Version) {
    let is_http2 = version == hyper::Version::HTTP_2;
    let own = HeaderValue::from_static(if is_http2 { "2 folkmoot" } else { "1.1 folkmoot" });
    append(headers, header::VIA, own);
}

/// Appends an element to the list that a header's value is.
fn append(headers: &mut HeaderMap, name: HeaderName, own: HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(own)),
        Entry::Occupied(mut entry) => {
            let parts = entry.iter().chain([&own]).map(HeaderValue::as_bytes);
            let joined = parts.collect::<Vec<_>>().join(&b", "[..]);
            if let Ok(value) = HeaderValue::from_bytes(&joined) {
                entry.insert(value);
            }
        }
    }
}

/// Source of a request, as seen from here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// Address of the connection's other end.
    pub(super) from: SocketAddr,
    /// True if the connection is encrypted.
    pub(super) is_tls: bool,
    /// Networks whose proxies are believed.
    pub(super) trusted: &'a [IpNet],
}

impl Source<'_> {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|it| it.contains(&address))
    }

    /// Address of the client: the last one in the chain of `X-Forwarded-For` that no trusted proxy
    /// has.
    pub(super) fn client(&self, headers: &HeaderMap) -> IpAddr {
        let mut client = self.from.ip().to_canonical();
        let chain: Vec<_> = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|it| it.to_str().ok())
            .flat_map(|it| it.split(','))
            .collect();
        for hop in chain.iter().rev() {
            if !self.trusts(client) {
                break;
            }
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
    }

    /// Tells the server whom a request is from, and by which name and protocol it came. `last` is
    /// what was told of the request before.
    ///
    /// A chain that a trusted proxy has sent goes on; one from anybody else is replaced.
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        host: &HeaderValue,
        last: &mut Option<ToldSource>,
    ) {
        let address = self.from.ip().to_canonical();
        if !self.trusts(address) {
            for name in [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, header::FORWARDED] {
                headers.remove(name);
            }
        }
        let proto = if self.is_tls { "https" } else { "http" };
        let is_same =
            |it: &ToldSource| it.address == address && it.is_tls == self.is_tls && it.host == *host;
        if !last.as_ref().is_some_and(is_same) {
            *last = ToldSource::new(address, self.is_tls, host);
        }
        if let Some(told) = last {
            append(headers, X_FORWARDED_FOR, told.chain.clone());
            append(headers, header::FORWARDED, told.forwarded.clone());
        }
        if let Entry::Vacant(entry) = headers.entry(X_FORWARDED_PROTO) {
            entry.insert(HeaderValue::from_static(proto));
        }
        if let Entry::Vacant(entry) = headers.entry(X_FORWARDED_HOST) {
            entry.insert(host.clone());
        }
    }
}

/// Values by which a server is told the source of a request; the next request mostly has the same.
#[derive(Debug)]
pub(super) struct ToldSource {
    address: IpAddr,
    is_tls: bool,
    host: HeaderValue,
    chain: HeaderValue,
    forwarded: HeaderValue,
}

impl ToldSource {
    fn new(address: IpAddr, is_tls: bool, host: &HeaderValue) -> Option<Self> {
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let name = host.to_str().unwrap_or_default();
        let proto = if is_tls { "https" } else { "http" };
        let forwarded = format!("for={node};host=\"{name}\";proto={proto}");
        Some(Self {
            address,
            is_tls,
            host: host.clone(),
            chain: HeaderValue::try_from(address.to_string()).ok()?,
            forwarded: HeaderValue::try_from(forwarded).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn source(from: &str, trusted: &[IpNet]) -> Vec<(String, String)> {
        let mut headers =
            map(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")]);
        let source = Source { from: from.parse().unwrap(), is_tls: false, trusted };
        let mut last = None;
        source.tell(&mut headers, &HeaderValue::from_static("models.example"), &mut last);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn headers_of_one_connection_stay_there() {
        let mut headers = map(&[
            ("host", "a"),
            ("a", "1"),
            ("connection", "my-own, close, X-Forwarded-For, Authorization"),
            ("my-own", "2"),
            ("x-forwarded-for", "203.0.113.9"),
            ("authorization", "Basic x"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["a", "authorization", "host", "te", "x-forwarded-for"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn names_with_underscores_are_dropped() {
        let mut headers = map(&[("content_length", "5"), ("x-a", "1"), ("a_b", "2")]);
        remove_underscores(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a"]);
    }

    #[test]
    fn a_chain_goes_on_behind_a_trusted_proxy_and_begins_anew_behind_others() {
        let trusted = ["127.0.0.0/8".parse().unwrap()];
        let value = |lines: &[(String, String)], name: &str| {
            lines.iter().find(|it| it.0 == name).map(|it| it.1.clone()).unwrap_or_default()
        };
        let lines = source("127.0.0.1:5", &trusted);
        assert_eq!(value(&lines, "x-forwarded-for"), "203.0.113.9, 127.0.0.1");
        assert_eq!(value(&lines, "x-forwarded-proto"), "https");
        assert_eq!(value(&lines, "x-forwarded-host"), "models.example");
        let lines = source("[2001:db8::1]:5", &trusted);
        assert_eq!(value(&lines, "x-forwarded-for"), "2001:db8::1");
        assert_eq!(value(&lines, "x-forwarded-proto"), "http");
        let forwarded = "for=\"[2001:db8::1]\";host=\"models.example\";proto=http";
        assert_eq!(value(&lines, "forwarded"), forwarded);
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_trusted() {
        let trusted = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let client = |from: &str, chain: &str| {
            let headers = map(&[("x-forwarded-for", chain)]);
            let source = Source { from: from.parse().unwrap(), is_tls: false, trusted: &trusted };
            source.client(&headers).to_string()
        };
        assert_eq!(client("127.0.0.1:1", "192.0.2.1, 198.51.100.7, 10.1.2.3"), "198.51.100.7");
        assert_eq!(client("[::ffff:127.0.0.1]:1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(client("203.0.113.1:1", "198.51.100.7"), "203.0.113.1", "it is not believed");
        assert_eq!(client("127.0.0.1:1", "nonsense"), "127.0.0.1");
    }
}
