//! Who offers what: the shares of a fleet, as its peers announce them to each other.
//!
//! Each peer that has something to offer publishes the list of it about the topic [`TOPIC`], now
//! and then and when it changes; a list takes the place of the one before from the same key, and
//! is forgotten when none follows. What is announced is a hint: whoever fetches checks all of it
//! against the ticket.
//!
//! Invariants:
//! - Shares, places and the lists of one key are bounded; what is beyond finds no room.
//! - Nobody speaks for another key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, PublicKey, Ticket, Time};

/// The topic of these lists.
pub const TOPIC: &str = "folkmoot/shares";

/// How often a list is published anew.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);

/// How long a list counts.
pub const LIST_TTL: Duration = Duration::from_secs(150);

/// Shares of one list at most.
pub const LIST_MAX: usize = 64;

/// Lists remembered at most.
pub const LISTS_MAX: usize = 4_096;

/// Places of one share that are told at most.
pub const PLACES_MAX: usize = 16;

/// One share in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The ticket; its places are where this peer serves it.
    pub ticket: String,
    /// Whether everybody is asked to take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everywhere: bool,
}

/// What one peer offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// All of it.
    pub shares: Vec<Offered>,
}

/// A share that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownShare {
    /// The ticket, with up to [`PLACES_MAX`] places.
    pub ticket: Ticket,
    /// How many offer it.
    pub peers: usize,
    /// Whether everybody is asked to take it.
    pub everywhere: bool,
}

#[derive(Debug)]
struct Listed {
    /// Computed once: lists are looked through all the time.
    id: [u8; 32],
    ticket: Ticket,
    everywhere: bool,
}

/// A share and where it is.
type Found = (KnownShare, BTreeSet<Endpoint>);

#[derive(Debug)]
struct List {
    heard: Time,
    shares: Vec<Listed>,
}

/// The lists of all peers.
#[derive(Debug, Default)]
pub struct Shares {
    lists: BTreeMap<PublicKey, List>,
}

impl Shares {
    /// A peer's list came. Tickets that are none are left out; returns what is wrong, if nothing
    /// of it can be used.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn on_announced(&mut self, now: Time, from: PublicKey, data: &[u8]) -> Result<(), String> {
        let list: Announcement =
            serde_json::from_slice(data).map_err(|error| format!("no list of shares: {error}"))?;
        if list.shares.len() > LIST_MAX {
            return Err(format!("{} shares in a list; at most {LIST_MAX}", list.shares.len()));
        }
        self.forget_old(now);
        if self.lists.len() >= LISTS_MAX && !self.lists.contains_key(&from) {
            return Err(format!("more than {LISTS_MAX} peers offer something"));
        }
        let read = |it: Offered| {
            let ticket: Ticket = it.ticket.parse().ok()?;
            Some(Listed { id: ticket.share_id(), ticket, everywhere: it.everywhere })
        };
        let shares: Vec<_> = list.shares.into_iter().filter_map(read).collect();
        match shares.is_empty() {
            true => self.lists.remove(&from),
            false => self.lists.insert(from, List { heard: now, shares }),
        };
        Ok(())
    }

    fn forget_old(&mut self, now: Time) {
        self.lists.retain(|_, list| now.since(list.heard) < LIST_TTL);
    }

    /// All shares, by name.
    pub fn all(&mut self, now: Time) -> Vec<KnownShare> {
        self.those(now, |_| true)
    }

    /// The shares that somebody wants everywhere, by name.
    pub fn wanted_everywhere(&mut self, now: Time) -> Vec<KnownShare> {
        let wanted = self.lists.values().flat_map(|list| &list.shares).filter(|it| it.everywhere);
        let wanted: BTreeSet<_> = wanted.map(|it| it.id).collect();
        let mut found = self.those(now, |id| wanted.contains(id));
        // Whose list was forgotten just now wants nothing any more.
        found.retain(|it| it.everywhere);
        found
    }

    /// Where a share can be had, as far as is known.
    pub fn places(&mut self, now: Time, id: &[u8; 32]) -> Vec<Endpoint> {
        let found = self.those(now, |it| it == id);
        let places: BTreeSet<_> = found.into_iter().flat_map(|it| it.ticket.at).collect();
        places.into_iter().take(PLACES_MAX).collect()
    }

    fn those(&mut self, now: Time, is_meant: impl Fn(&[u8; 32]) -> bool) -> Vec<KnownShare> {
        self.forget_old(now);
        // The same content under a second name is a second share.
        let mut found: BTreeMap<([u8; 32], &str), Found> = BTreeMap::new();
        let listed = self.lists.values().flat_map(|list| &list.shares);
        for Listed { id, ticket, everywhere } in listed.filter(|it| is_meant(&it.id)) {
            let fresh = || {
                let ticket = Ticket { at: Vec::new(), ..ticket.clone() };
                (KnownShare { ticket, peers: 0, everywhere: false }, BTreeSet::new())
            };
            let (known, places) = found.entry((*id, &ticket.name)).or_insert_with(fresh);
            known.peers += 1;
            known.everywhere |= everywhere;
            places.extend(&ticket.at);
        }
        let with_places = |(mut known, places): Found| {
            known.ticket.at = places.into_iter().take(PLACES_MAX).collect();
            known
        };
        let mut all: Vec<_> = found.into_values().map(with_places).collect();
        all.sort_by(|a, b| a.ticket.name.cmp(&b.ticket.name).then(b.peers.cmp(&a.peers)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    fn key(number: u8) -> PublicKey {
        KeyPair::from_secret([number; 32]).public()
    }

    fn ticket(name: &str, root: u8, port: u16) -> Ticket {
        Ticket {
            name: name.to_owned(),
            size: 5,
            piece_size: 16_384,
            root: [root; 32],
            files: None,
            traits: crate::model::Traits::default(),
            at: vec![Endpoint::new([127, 0, 0, 1].into(), port)],
        }
    }

    fn list(tickets: &[Ticket]) -> Vec<u8> {
        let offered = |it: &Ticket| Offered { ticket: it.to_string(), everywhere: false };
        let shares = tickets.iter().map(offered).collect();
        serde_json::to_vec(&Announcement { shares }).unwrap()
    }

    fn names(shares: &mut Shares, secs: u64) -> Vec<String> {
        shares.all(at(secs)).into_iter().map(|it| it.ticket.name).collect()
    }

    fn at(secs: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(secs))
    }

    #[test]
    fn peers_that_offer_the_same_are_places_of_one_share() {
        let mut shares = Shares::default();
        shares.on_announced(at(0), key(1), &list(&[ticket("a", 1, 6001)])).unwrap();
        let two = [ticket("a", 1, 6002), ticket("b", 2, 6002)];
        shares.on_announced(at(1), key(2), &list(&two)).unwrap();
        let all = shares.all(at(2));
        let told: Vec<_> = all.iter().map(|it| (it.ticket.name.as_str(), it.peers)).collect();
        assert_eq!(told, [("a", 2), ("b", 1)]);
        assert_eq!(all[0].ticket.at.len(), 2);
        assert_eq!(shares.places(at(2), &all[0].ticket.share_id()), all[0].ticket.at);
        shares.on_announced(at(3), key(3), &list(&[ticket("a", 9, 6003)])).unwrap();
        assert_eq!(names(&mut shares, 3), ["a", "a", "b"], "of one name, and two shares");
    }

    #[test]
    fn a_share_is_wanted_everywhere_as_long_as_one_list_says_so() {
        let mut shares = Shares::default();
        let wants = |everywhere| {
            let it = ticket("a", 1, 6001);
            let shares = vec![Offered { ticket: it.to_string(), everywhere }];
            serde_json::to_vec(&Announcement { shares }).unwrap()
        };
        shares.on_announced(at(0), key(1), &wants(true)).unwrap();
        shares.on_announced(at(100), key(2), &wants(false)).unwrap();
        let wanted = |shares: &mut Shares, secs| shares.wanted_everywhere(at(secs)).len();
        assert_eq!(shares.wanted_everywhere(at(100))[0].peers, 2);
        assert_eq!(wanted(&mut shares, LIST_TTL.as_secs()), 0, "its list is old");
        assert_eq!(names(&mut shares, LIST_TTL.as_secs()), ["a"]);
    }

    #[test]
    fn a_list_takes_the_place_of_the_one_before_and_ends_when_none_follows() {
        let mut shares = Shares::default();
        shares.on_announced(at(0), key(1), &list(&[ticket("a", 1, 6001)])).unwrap();
        shares.on_announced(at(1), key(1), &list(&[ticket("b", 2, 6001)])).unwrap();
        assert_eq!(names(&mut shares, 1), ["b"]);
        assert_eq!(names(&mut shares, LIST_TTL.as_secs()), ["b"]);
        assert_eq!(names(&mut shares, 1 + LIST_TTL.as_secs()), [""; 0], "it is old");
        shares.on_announced(at(200), key(1), &list(&[ticket("b", 2, 6001)])).unwrap();
        shares.on_announced(at(201), key(1), &list(&[])).unwrap();
        assert_eq!(shares.all(at(201)), []);
    }

    #[test]
    fn lists_that_are_none_and_tickets_that_lead_elsewhere_are_left_out() {
        let mut shares = Shares::default();
        assert!(shares.on_announced(at(0), key(1), b"{}").is_err());
        let many: Vec<_> = (0..=LIST_MAX).map(|_| ticket("a", 1, 6001)).collect();
        assert!(shares.on_announced(at(0), key(1), &list(&many)).is_err());
        let bad = [ticket("../a", 1, 6001), ticket("good", 2, 6001)];
        shares.on_announced(at(0), key(1), &list(&bad)).unwrap();
        assert_eq!(shares.all(at(0)).len(), 1);
        for number in 0..LISTS_MAX {
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let from = KeyPair::from_secret(secret).public();
            let _ = shares.on_announced(at(0), from, &list(&[ticket("x", 3, 6001)]));
        }
        let most = shares.all(at(0)).iter().map(|it| it.peers).max();
        assert_eq!(most, Some(LISTS_MAX - 1), "one place was taken");
    }
}
