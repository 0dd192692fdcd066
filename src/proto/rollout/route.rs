//! Routes of a rollout: requests that go to one of its two versions whatever the shares are (T9).
//!
//! Invariants: routes travel in the plan and are the same on every node; the first one that matches
//! decides; a route reads header values, the path and the client's address only, so it says the
//! same about one request everywhere.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::ModelId;

/// Maximum number of routes of a plan.
pub const ROUTES_MAX: usize = 16;
/// Maximum length of a name, a value or a path in a plan, in bytes.
pub const ROUTE_BYTES_MAX: usize = 256;

const WRONG: &str = "a route is like header:X-Team=qa -> canary, cookie:beta=yes -> canary, \
                     path:/v2 -> canary or source:10.0.0.0/8 -> stable";

/// Version to which a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The stable version.
    Stable,
    /// The new version.
    Canary,
}

/// Range of IP addresses, as in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    first: IpAddr,
    bits: u8,
}

/// Property of a request that a route looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteMatch {
    /// A header of this name, in any case, has exactly this value.
    Header {
        /// Name of the header.
        name: String,
        /// Value of the header.
        value: String,
    },
    /// A cookie of exactly this name has exactly this value.
    Cookie {
        /// Name of the cookie.
        name: String,
        /// Value of the cookie.
        value: String,
    },
    /// The path is this one or below it; a slash at its end says nothing.
    Path(String),
    /// The client's address is in this range.
    Source(Subnet),
}

/// A route, as text `header:NAME=VALUE -> canary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route {
    /// Property of the requests that take the route.
    pub when: RouteMatch,
    /// Version to which it leads.
    pub to: RouteTarget,
}

/// Look-up of a request's headers: calls the second argument with each value of the header of that
/// name, in any case, until that returns true, and returns whether it did.
pub type HeaderValues<'a> = dyn Fn(&str, &mut dyn FnMut(&[u8]) -> bool) -> bool + 'a;

/// Facts about a request by which routes are chosen.
pub struct RequestFacts<'a> {
    /// Headers of the request.
    pub headers: &'a HeaderValues<'a>,
    /// Path of the request as the client sent it, without the query.
    pub path: &'a str,
    /// Address of the client.
    pub source: IpAddr,
}

impl fmt::Debug for RequestFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, source, .. } = self;
        f.debug_struct("RequestFacts").field("path", path).field("source", source).finish()
    }
}

/// Cookies of one header line: names and values, without blanks around them.
fn cookies(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|c| *c == b';').filter_map(|pair| {
        let at = pair.iter().position(|c| *c == b'=')?;
        Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
    })
}

impl RequestFacts<'_> {
    /// Value of the first cookie of that name, if the request has one.
    pub fn cookie(&self, name: &str) -> Option<Vec<u8>> {
        let mut found = None;
        (self.headers)("cookie", &mut |line| {
            let cookie = cookies(line).find(|it| it.0 == name.as_bytes());
            found = cookie.map(|it| it.1.to_vec());
            found.is_some()
        });
        found
    }
}

impl Route {
    /// True if the request takes this route.
    pub fn matches(&self, facts: &RequestFacts<'_>) -> bool {
        match &self.when {
            RouteMatch::Header { name, value } => {
                (facts.headers)(name, &mut |it| it == value.as_bytes())
            }
            RouteMatch::Cookie { name, value } => (facts.headers)("cookie", &mut |line| {
                cookies(line).any(|it| it == (name.as_bytes(), value.as_bytes()))
            }),
            RouteMatch::Path(path) => {
                let rest = facts.path.strip_prefix(path.trim_end_matches('/'));
                rest.is_some_and(|it| it.is_empty() || it.starts_with('/'))
            }
            RouteMatch::Source(subnet) => subnet.has(facts.source),
        }
    }

    /// Target of the first of these routes that the request takes.
    pub fn target(routes: &[Self], facts: &RequestFacts<'_>) -> Option<RouteTarget> {
        routes.iter().find(|it| it.matches(facts)).map(|it| it.to)
    }

    /// Parses a route of a rollout, whose target may also be the name of one of the two versions.
    ///
    /// # Errors
    /// Fails if the text is no route, or its target is neither a role nor one of the versions.
    pub fn parse(text: &str, stable: &ModelId, canary: &ModelId) -> Result<Self, &'static str> {
        let (when, to) = text.rsplit_once("->").ok_or(WRONG)?;
        let to = match to.trim() {
            "stable" => RouteTarget::Stable,
            "canary" => RouteTarget::Canary,
            name if name == canary.as_str() => RouteTarget::Canary,
            name if name == stable.as_str() => RouteTarget::Stable,
            _ => {
                return Err(
                    "a route leads to canary or stable, or to the version of --to or --from",
                );
            }
        };
        Ok(Self { when: when.trim().parse()?, to })
    }
}

/// True if the text may be the name of a header or of a cookie in a plan.
pub(super) fn is_token(text: &str) -> bool {
    let is_fit = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    (1..=ROUTE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fit)
}

/// Splits `NAME=VALUE`; a value is printable, and not empty.
fn name_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or(WRONG)?;
    if !is_token(name) {
        return Err("the name of a header or cookie is of 1 to 256 letters, digits and - _ .");
    }
    let is_long = value.is_empty() || value.len() > ROUTE_BYTES_MAX;
    if is_long || value.chars().any(char::is_control) || value.trim() != value {
        return Err("the value of a header or cookie has 1 to 256 printable bytes");
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl FromStr for RouteMatch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').ok_or(WRONG)?;
        match kind {
            "header" => name_and_value(rest).map(|(name, value)| Self::Header { name, value }),
            "cookie" => {
                let (name, value) = name_and_value(rest)?;
                if value.contains(';') {
                    return Err("the value of a cookie has no semicolon");
                }
                Ok(Self::Cookie { name, value })
            }
            "path" => {
                let is_fit = |c: u8| c.is_ascii_graphic() && c != b'?' && c != b'#';
                if !rest.starts_with('/') || !rest.bytes().all(is_fit) {
                    return Err("the path of a route begins with / and has no query");
                }
                if rest.len() > ROUTE_BYTES_MAX {
                    return Err("the path of a route has at most 256 bytes");
                }
                Ok(Self::Path(rest.to_owned()))
            }
            "source" => rest.parse().map(Self::Source),
            _ => Err(WRONG),
        }
    }
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, value } => write!(f, "header:{name}={value}"),
            Self::Cookie { name, value } => write!(f, "cookie:{name}={value}"),
            Self::Path(path) => write!(f, "path:{path}"),
            Self::Source(subnet) => write!(f, "source:{subnet}"),
        }
    }
}

impl FromStr for Route {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (when, to) = text.rsplit_once("->").ok_or(WRONG)?;
        let to = match to.trim() {
            "stable" => RouteTarget::Stable,
            "canary" => RouteTarget::Canary,
            _ => return Err("a route leads to canary or stable"),
        };
        Ok(Self { when: when.trim().parse()?, to })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match self.to {
            RouteTarget::Stable => "stable",
            RouteTarget::Canary => "canary",
        };
        write!(f, "{} -> {to}", self.when)
    }
}

impl TryFrom<String> for Route {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Route> for String {
    fn from(route: Route) -> Self {
        route.to_string()
    }
}

impl Subnet {
    /// An IPv4 address within IPv6 (`::ffff:10.0.0.1`) counts as the IPv4 address.
    fn has(&self, address: IpAddr) -> bool {
        number(address.to_canonical(), self.bits) == number(self.first, self.bits)
    }
}

/// The first `bits` bits of an address, and whether it is an IPv6 address.
fn number(address: IpAddr, bits: u8) -> (bool, u128) {
    let (is_v6, width, number) = match address {
        IpAddr::V4(it) => (false, 32, u128::from(it.to_bits())),
        IpAddr::V6(it) => (true, 128, it.to_bits()),
    };
    let shift = u32::from(width - bits.min(width));
    (is_v6, number.checked_shr(shift).unwrap_or(0))
}

impl FromStr for Subnet {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a source is an address or a range, as in 10.1.2.3 or 10.0.0.0/8";
        let (address, bits) = text.split_once('/').map_or((text, None), |it| (it.0, Some(it.1)));
        let first: IpAddr = address.parse().map_err(|_| WRONG)?;
        if first.to_canonical() != first {
            return Err("an IPv4 address within IPv6 is written as IPv4, as in 10.0.0.0/8");
        }
        let width = if first.is_ipv4() { 32 } else { 128 };
        let is_decimal = |it: &&str| it.bytes().all(|c| c.is_ascii_digit());
        let bits = match bits {
            None => width,
            Some(it) => Some(it).filter(is_decimal).and_then(|it| it.parse().ok()).ok_or(WRONG)?,
        };
        if bits > width {
            return Err(WRONG);
        }
        let rest = u32::from(width - bits);
        let (_, whole) = number(first, width);
        if whole.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0) != whole {
            return Err("a range begins with its first address: 10.0.0.0/8, not 10.1.2.3/8");
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with these headers, of this path and from this address.
    fn takes(route: &str, headers: &[(&str, &[u8])], path: &str, source: &str) -> bool {
        let look_up = |name: &str, is_it: &mut dyn FnMut(&[u8]) -> bool| {
            headers.iter().filter(|it| it.0.eq_ignore_ascii_case(name)).any(|it| is_it(it.1))
        };
        let facts = RequestFacts { headers: &look_up, path, source: source.parse().unwrap() };
        route.parse::<Route>().unwrap().matches(&facts)
    }

    #[test]
    fn a_header_is_found_by_its_name_in_any_case_and_its_exact_value() {
        let takes = |value: &[u8]| {
            takes("header:X-Team=qa=1 -> canary", &[("x-team", value)], "/", "10.0.0.1")
        };
        assert!(takes(b"qa=1"));
        for other in [&b"QA=1"[..], b"qa=1 ", b"qa=12", b"qa", b"", b"\xff"] {
            assert!(!takes(other), "{other:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_several_in_one_header_and_in_several_headers() {
        let route = "cookie:beta=yes -> canary";
        for (headers, is_taken) in [
            (&[("Cookie", &b"beta=yes"[..])][..], true),
            (&[("cookie", b"a=1; beta=yes; c=2")], true),
            (&[("cookie", b"a=1;beta=yes")], true),
            (&[("Cookie", b"a=1"), ("Cookie", b"b; beta = yes")], true),
            (&[("Cookie", b"beta=no; beta=yes")], true),
            (&[("Cookie", b"Beta=yes")], false),
            (&[("Cookie", b"xbeta=yes")], false),
            (&[("Cookie", b"beta=yes1"), ("X-Cookie", b"beta=yes")], false),
            (&[("Cookie", b"beta")], false),
            (&[("Cookie", b"a=beta=yes")], false),
            (&[], false),
        ] {
            assert_eq!(takes(route, headers, "/", "::1"), is_taken, "{headers:?}");
        }
        let lines: [&[u8]; 2] = [b"a=1; sid=x=y", b"sid=z"];
        let look_up = |name: &str, is_it: &mut dyn FnMut(&[u8]) -> bool| {
            name == "cookie" && lines.iter().any(|line| is_it(line))
        };
        let source = "::1".parse().unwrap();
        let facts = RequestFacts { headers: &look_up, path: "/", source };
        assert_eq!(facts.cookie("sid").as_deref(), Some(&b"x=y"[..]));
        assert_eq!(facts.cookie("id"), None);
    }

    #[test]
    fn a_path_ends_at_a_slash() {
        for (route, path, is_taken) in [
            ("/v2", "/v2", true),
            ("/v2", "/v2/", true),
            ("/v2", "/v2/x", true),
            ("/v2", "/v20", false),
            ("/v2", "/V2", false),
            ("/v2", "/x/v2", false),
            ("/v2/", "/v2", true),
            ("/v2/", "/v2/x", true),
            ("/v2/", "/v20", false),
            ("/", "/", true),
            ("/", "/anything", true),
        ] {
            let text = format!("path:{route} -> canary");
            assert_eq!(takes(&text, &[], path, "::1"), is_taken, "{route} {path}");
        }
    }

    #[test]
    fn a_source_is_in_its_range_also_as_ipv4_within_ipv6() {
        for (range, source, is_taken) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::10.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "192.168.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let text = format!("source:{range} -> stable");
            assert_eq!(takes(&text, &[], "/", source), is_taken, "{range} {source}");
        }
    }

    #[test]
    fn the_first_route_that_matches_decides() {
        let routes = ["path:/a/b -> stable", "path:/a -> canary", "source:::1 -> stable"];
        let routes = routes.map(|it| it.parse::<Route>().unwrap());
        let target = |path| {
            let none = |_: &str, _: &mut dyn FnMut(&[u8]) -> bool| false;
            let source = "::1".parse().unwrap();
            Route::target(&routes, &RequestFacts { headers: &none, path, source })
        };
        assert_eq!(target("/a/b/c"), Some(RouteTarget::Stable));
        assert_eq!(target("/a"), Some(RouteTarget::Canary));
        assert_eq!(target("/"), Some(RouteTarget::Stable));
    }

    #[test]
    fn a_route_survives_its_text_and_what_is_none_is_refused() {
        let long = "x".repeat(ROUTE_BYTES_MAX + 1);
        for (text, shown) in [
            ("header:X-Team=qa->canary", "header:X-Team=qa -> canary"),
            ("header:X=a->b -> stable", "header:X=a->b -> stable"),
            ("cookie:__Host-id=\"a b\" -> canary", "cookie:__Host-id=\"a b\" -> canary"),
            (" path:/v2  ->  stable ", "path:/v2 -> stable"),
            ("source:10.1.2.3 -> canary", "source:10.1.2.3/32 -> canary"),
            ("source:2001:db8::/32 -> canary", "source:2001:db8::/32 -> canary"),
        ] {
            let route: Route = text.parse().unwrap();
            assert_eq!(route.to_string(), shown);
            assert_eq!(shown.parse::<Route>().unwrap(), route);
            let json = serde_json::to_string(&route).unwrap();
            assert_eq!(serde_json::from_str::<Route>(&json).unwrap(), route);
        }
        for wrong in [
            "",
            "header:X-Team=qa",
            "header:X-Team=qa -> v2",
            "header:X-Team -> canary",
            "header:=qa -> canary",
            "header:X Team=qa -> canary",
            "header:X-Team= -> canary",
            "header:X-Team=a\r\nb -> canary",
            "cookie:a=b;c -> canary",
            "path:v2 -> canary",
            "path:/v2?x -> canary",
            "path:/ä -> canary",
            "source:10.0.0.0/33 -> canary",
            "source:10.0.0.0/-1 -> canary",
            "source:10.0.0.0/+8 -> canary",
            "source:10.0.0.0/ -> canary",
            "source:10.1.2.3/8 -> canary",
            "source:::ffff:10.0.0.0/104 -> canary",
            "source:localhost -> canary",
            "method:GET -> canary",
            &format!("header:{long}=a -> canary"),
            &format!("header:a={long} -> canary"),
            &format!("path:/{long} -> canary"),
        ] {
            assert!(wrong.parse::<Route>().is_err(), "{wrong}");
        }
        let names = ["v1", "v2"].map(|it| it.parse::<ModelId>().unwrap());
        let parse = |text: &str| Route::parse(text, &names[0], &names[1]).map(|it| it.to);
        assert_eq!(parse("path:/ -> v1"), Ok(RouteTarget::Stable));
        assert_eq!(parse("path:/ -> v2"), Ok(RouteTarget::Canary));
        assert_eq!(parse("path:/ -> canary"), Ok(RouteTarget::Canary));
        assert!(parse("path:/ -> v3").unwrap_err().contains("--to or --from"));
    }
}
