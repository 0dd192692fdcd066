//! Servers of a version.

use std::fmt;
use std::str::FromStr;

pub use crate::runtime::web::address::Upstream;

/// Largest number of servers of one version.
const SERVERS_MAX: usize = 64;

/// Servers of one version, as in `http://a:1,http://b:2`: 1 to 64, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(Vec<Upstream>);

impl Servers {
    /// The servers, in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.0.iter()
    }

    /// Adds servers of the same version.
    ///
    /// # Errors
    /// Fails if one is named twice or there are more than 64.
    pub fn join(self, more: Self) -> Result<Self, &'static str> {
        let mut all = self.0;
        for server in more.0 {
            if all.contains(&server) {
                return Err("a server of a version is named twice");
            }
            all.push(server);
        }
        if all.len() > SERVERS_MAX {
            return Err("a version has at most 64 servers");
        }
        Ok(Self(all))
    }
}

impl FromStr for Servers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self(Vec::new());
        for server in text.split(',') {
            all = all.join(Self(vec![server.trim().parse()?]))?;
        }
        Ok(all)
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, server) in self.0.iter().enumerate() {
            write!(f, "{}{server}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_several_servers_and_none_twice() {
        let servers: Servers = "http://a:1, https://b:2/x".parse().unwrap();
        assert_eq!(servers.to_string(), "http://a:1,https://b:2/x");
        assert_eq!(servers.iter().count(), 2);
        for wrong in ["", "http://a:1,", "http://a:1,http://A:1", "http://a:1;http://b:1"] {
            assert!(wrong.parse::<Servers>().is_err(), "{wrong}");
        }
        let more = "http://b:2".parse::<Servers>().unwrap();
        assert_eq!(more.clone().join(servers).unwrap().iter().count(), 3);
        assert!(more.clone().join(more).is_err());
    }
}
