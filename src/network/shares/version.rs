//! One version of a share that was taken by an order.

use crate::proto::swarm::Hash;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{PublicKey, Ticket};

/// Folder of all versions that were taken, each in one named by its content.
pub(super) const VERSIONS: &str = ".versions";

/// Largest number of versions that are kept.
pub(super) const VERSIONS_MAX: usize = 1_024;

/// Largest number of peers that are remembered as having ordered one version.
const ORIGINS_MAX: usize = 16;

/// Folder of a version below [`VERSIONS`].
pub(super) fn version(id: &Hash) -> String {
    hex::encode(&id[..8])
}

/// A version that was taken by an order for all peers, as it is remembered over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(with = "hex::serde")]
    pub(super) id: Hash,
    pub(super) name: String,
    pub(super) size: u64,
    /// Digest of a folder's list of files, in hexadecimal digits.
    pub(super) files: Option<String>,
    /// Keys of the peers that ordered it, each with the number of its last order.
    pub(super) orders: BTreeMap<PublicKey, u64>,
    pub(super) is_complete: bool,
}

impl Version {
    pub(super) fn new(ticket: &Ticket) -> Self {
        Self {
            id: ticket.share_id(),
            name: ticket.name.clone(),
            size: ticket.size,
            files: ticket.files.map(hex::encode),
            orders: BTreeMap::new(),
            is_complete: false,
        }
    }

    /// Notes the peers that order it; returns whether that is new.
    pub(super) fn order(&mut self, orders: &BTreeMap<PublicKey, u64>) -> bool {
        let mut is_news = false;
        for (from, number) in orders {
            let known = self.orders.get(from).copied();
            let has_room = known.is_some() || self.orders.len() < ORIGINS_MAX;
            if has_room && known.is_none_or(|known| known < *number) {
                self.orders.insert(*from, *number);
                is_news = true;
            }
        }
        is_news
    }

    /// True if one of the peers that ordered it has ordered no later version of its name that is
    /// complete.
    pub(super) fn is_newest(&self, all: &BTreeMap<Hash, Self>) -> bool {
        let others = || all.values().filter(|it| it.is_complete && it.name == self.name);
        let later = |from, number| others().any(|it| it.orders.get(from) > Some(number));
        self.orders.iter().any(|(from, number)| !later(from, number))
    }

    /// Path of the version, from `received`.
    pub(super) fn inside(&self) -> PathBuf {
        Path::new(VERSIONS).join(version(&self.id)).join(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    #[test]
    fn the_newest_version_is_that_of_the_last_order_and_not_of_the_last_download() {
        let key = |number| KeyPair::from_secret([number; 32]).public();
        let version = |id: u8, orders: &[(u8, u64)]| Version {
            id: [id; 32],
            name: "a".to_owned(),
            size: 0,
            files: None,
            orders: orders.iter().map(|(from, number)| (key(*from), *number)).collect(),
            is_complete: true,
        };
        let newest = |all: &[Version]| {
            let map: BTreeMap<_, _> = all.iter().map(|it| (it.id, it.clone())).collect();
            all.iter().map(|it| it.is_newest(&map)).collect::<Vec<_>>()
        };
        let (old, new) = (version(1, &[(1, 5)]), version(2, &[(1, 6)]));
        assert_eq!(newest(&[old.clone(), new.clone()]), [false, true]);
        assert_eq!(newest(&[new.clone(), old.clone()]), [true, false]);
        let open = Version { is_complete: false, ..new.clone() };
        assert_eq!(newest(&[old.clone(), open]), [true, true], "the new one is not there yet");
        let again = version(1, &[(1, 7)]);
        assert_eq!(newest(&[again, new.clone()]), [true, false], "back to the old one");
        let other = version(3, &[(2, 1)]);
        assert_eq!(newest(&[other, new]), [true, true], "numbers of two peers say nothing");
        let mut ordered = old;
        assert!(!ordered.order(&BTreeMap::from([(key(1), 5)])));
        assert!(ordered.order(&BTreeMap::from([(key(1), 6)])));
    }
}
