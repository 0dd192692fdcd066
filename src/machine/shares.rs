//! Shares: the lists of offers that the peers of a fleet announce to each other.
//!
//! Each peer that has shares publishes the list of them about the topic [`TOPIC`], now and then and
//! when it changes; a list replaces the earlier one of the same key, and is forgotten when none
//! follows. An announcement is a hint: a downloader checks all of it against the ticket. A list
//! also answers the orders of other peers to take their shares everywhere.
//!
//! Invariants:
//! - The shares, places and lists of one key are bounded; further ones find no room.
//! - No peer speaks for another key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, PublicKey, Ticket, Time};

/// Topic of the lists.
pub const TOPIC: &str = "folkmoot/shares";

/// Interval between two publications of a list.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);

/// Time after which a list is forgotten.
pub const LIST_TTL: Duration = Duration::from_secs(150);

/// Greatest number of shares in one list.
pub const LIST_MAX: usize = 64;

/// Greatest number of lists remembered.
pub const LISTS_MAX: usize = 4_096;

/// Greatest number of places told of one share.
pub const PLACES_MAX: usize = 16;

/// Number of bytes of a reason that are kept.
pub const REASON_BYTES_MAX: usize = 200;

/// One share in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The ticket; its places are the addresses where this peer serves the share.
    pub ticket: String,
    /// True if all peers are asked to take the share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everywhere: bool,
    /// Number of that order: greater than those of all earlier orders of this peer. 0 in lists
    /// of older builds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub order: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A peer's answer to the order to take a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Id of the share's content.
    #[serde(with = "hex::serde")]
    pub id: [u8; 32],
    /// Name of the share.
    pub name: String,
    /// Number of the order that is answered, or of one before it that had the same answer.
    pub order: u64,
    /// Reason why the share is not taken; without one, all of it is there, verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A share that a peer has asked all others to take, and now asks them to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Name of the share.
    pub name: String,
    /// Greatest number of that peer's orders whose versions are meant.
    pub order: u64,
}

/// List of the shares that one peer offers, and of its answers to others' orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// All shares that the peer offers.
    pub shares: Vec<Offered>,
    /// Answers to the orders of others, [`LIST_MAX`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answered>,
    /// Number of the list, greater than those of this peer's earlier lists, for messages may come
    /// in another order; 0 in lists of older builds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
    /// Shares that others are to remove and that this peer had them take, [`LIST_MAX`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Withdrawn>,
    /// True if this member of the fleet takes no shares: it is a program that
    /// serves something else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_none: bool,
}

impl Announcement {
    /// True if the list says nothing.
    pub fn is_empty(&self) -> bool {
        let is_bare = self.shares.is_empty() && self.answers.is_empty() && self.removed.is_empty();
        is_bare && !self.takes_none
    }
}

/// A share that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownShare {
    /// Ticket of the share, with up to [`PLACES_MAX`] places.
    pub ticket: Ticket,
    /// Number of peers that offer the share.
    pub peers: usize,
    /// Keys of the peers that want the share everywhere, each with the number of its order.
    pub orders: BTreeMap<PublicKey, u64>,
}

impl KnownShare {
    /// The greatest number of the orders to take the share; 0 if there is none.
    pub fn order(&self) -> u64 {
        self.orders.values().max().copied().unwrap_or_default()
    }
}

/// Standing of one peer toward a share, as its list tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareState {
    /// The peer has told nothing of the share.
    Silent,
    /// The peer has some of the share.
    Part,
    /// The peer has all of the share, verified.
    Has,
    /// The peer does not take the share, for this reason.
    Refuses(String),
    /// The peer takes no shares at all.
    Apart,
}

#[derive(Debug)]
struct Listed {
    /// Id of the content, computed once: lists are looked through all the time.
    id: [u8; 32],
    ticket: Ticket,
    everywhere: bool,
    order: u64,
}

/// A share with its places.
type Found = (KnownShare, BTreeSet<Endpoint>);

#[derive(Debug)]
struct List {
    heard: Time,
    number: u64,
    shares: Vec<Listed>,
    answers: Vec<Answered>,
    removed: Vec<Withdrawn>,
    takes_none: bool,
}

/// The lists of all peers.
#[derive(Debug, Default)]
pub struct Shares {
    lists: BTreeMap<PublicKey, List>,
}

impl Shares {
    /// Takes a peer's list; one older than the known list is ignored. Invalid tickets are left out.
    ///
    /// # Errors
    /// The reason in words, for people, if the list cannot be used at all.
    pub fn on_announced(&mut self, now: Time, from: PublicKey, data: &[u8]) -> Result<(), String> {
        let list: Announcement =
            serde_json::from_slice(data).map_err(|error| format!("no list of shares: {error}"))?;
        let longest = list.shares.len().max(list.answers.len()).max(list.removed.len());
        if longest > LIST_MAX {
            return Err(format!("{longest} entries in a list; at most {LIST_MAX}"));
        }
        self.forget_old(now);
        // A new member is handed messages that were held for it, in any order.
        if self.lists.get(&from).is_some_and(|it| it.number > list.number && list.number > 0) {
            return Ok(());
        }
        if self.lists.len() >= LISTS_MAX && !self.lists.contains_key(&from) {
            return Err(format!("more than {LISTS_MAX} peers offer something"));
        }
        let read = |it: Offered| {
            let ticket: Ticket = it.ticket.parse().ok()?;
            let (everywhere, order) = (it.everywhere, it.order);
            Some(Listed { id: ticket.share_id(), ticket, everywhere, order })
        };
        let shares: Vec<_> = list.shares.into_iter().filter_map(read).collect();
        let cut = |mut it: Answered| {
            it.refused = it.refused.map(|why| cut(&why).to_owned());
            it
        };
        let answers: Vec<_> = list.answers.into_iter().map(cut).collect();
        let (number, removed, takes_none) = (list.number, list.removed, list.takes_none);
        if shares.is_empty() && answers.is_empty() && removed.is_empty() && !takes_none {
            self.lists.remove(&from);
        } else {
            let list = List { heard: now, number, shares, answers, removed, takes_none };
            self.lists.insert(from, list);
        }
        Ok(())
    }

    fn forget_old(&mut self, now: Time) {
        self.lists.retain(|_, list| now.since(list.heard) < LIST_TTL);
    }

    /// Returns all shares, by name.
    pub fn all(&mut self, now: Time) -> Vec<KnownShare> {
        self.those(now, |_| true)
    }

    /// Returns the number of shares that [`Self::all`] lists.
    pub fn count(&mut self, now: Time) -> usize {
        self.forget_old(now);
        let listed = self.lists.values().flat_map(|list| &list.shares);
        listed.map(|it| (it.id, &it.ticket.name)).collect::<BTreeSet<_>>().len()
    }

    /// Returns the shares that a peer wants everywhere, by name.
    pub fn wanted_everywhere(&mut self, now: Time) -> Vec<KnownShare> {
        let wanted = self.lists.values().flat_map(|list| &list.shares).filter(|it| it.everywhere);
        let wanted: BTreeSet<_> = wanted.map(|it| it.id).collect();
        let mut found = self.those(now, |id| wanted.contains(id));
        // A share whose order was in a list forgotten just now is wanted no more.
        found.retain(|it| !it.orders.is_empty());
        found
    }

    /// Returns the shares to be removed, each with the key of the peer that says so.
    pub fn withdrawn(&mut self, now: Time) -> Vec<(PublicKey, Withdrawn)> {
        self.forget_old(now);
        let lists = self.lists.iter();
        lists.flat_map(|(from, it)| it.removed.iter().map(|it| (*from, it.clone()))).collect()
    }

    /// Standing of the peer with this key toward a share since the order of this number.
    pub fn standing(&self, from: &PublicKey, share: &Ticket, order: u64) -> ShareState {
        let Some(list) = self.lists.get(from) else { return ShareState::Silent };
        if list.takes_none {
            return ShareState::Apart;
        }
        let id = share.share_id();
        let mut answers = list.answers.iter();
        let answer = answers.find(|it| it.id == id && it.name == share.name && it.order >= order);
        match answer.map(|it| &it.refused) {
            Some(None) => ShareState::Has,
            Some(Some(why)) => ShareState::Refuses(why.clone()),
            None if list.shares.iter().any(|it| it.id == id) => ShareState::Part,
            None => ShareState::Silent,
        }
    }

    /// Returns the endpoints from which a share can be had, as far as is known.
    pub fn places(&mut self, now: Time, id: &[u8; 32]) -> Vec<Endpoint> {
        let found = self.those(now, |it| it == id);
        let places: BTreeSet<_> = found.into_iter().flat_map(|it| it.ticket.at).collect();
        places.into_iter().take(PLACES_MAX).collect()
    }

    fn those(&mut self, now: Time, is_meant: impl Fn(&[u8; 32]) -> bool) -> Vec<KnownShare> {
        self.forget_old(now);
        // The same content under a second name is a second share.
        let mut found: BTreeMap<([u8; 32], &str), Found> = BTreeMap::new();
        let lists = self.lists.iter();
        let listed = lists.flat_map(|(from, list)| list.shares.iter().map(|it| (*from, it)));
        for (from, listed) in listed.filter(|(_, it)| is_meant(&it.id)) {
            let Listed { id, ticket, everywhere, order } = listed;
            let fresh = || {
                let ticket = Ticket { at: Vec::new(), ..ticket.clone() };
                (KnownShare { ticket, peers: 0, orders: BTreeMap::new() }, BTreeSet::new())
            };
            let (known, places) = found.entry((*id, &ticket.name)).or_insert_with(fresh);
            known.peers += 1;
            if *everywhere {
                let known = known.orders.entry(from).or_default();
                *known = (*known).max(*order);
            }
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

/// Returns the beginning of a reason, as much as is kept.
fn cut(why: &str) -> &str {
    let mut end = why.len().min(REASON_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    &why[..end]
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
            traits: crate::model::FileAttributes::default(),
            at: vec![Endpoint::new([127, 0, 0, 1].into(), port)],
        }
    }

    fn list(tickets: &[Ticket]) -> Vec<u8> {
        let offered = |it: &Ticket| Offered { ticket: it.to_string(), everywhere: false, order: 0 };
        let shares = tickets.iter().map(offered).collect();
        serde_json::to_vec(&Announcement { shares, ..Announcement::default() }).unwrap()
    }

    fn names(shares: &mut Shares, secs: u64) -> Vec<String> {
        let all = shares.all(at(secs));
        assert_eq!(shares.count(at(secs)), all.len());
        all.into_iter().map(|it| it.ticket.name).collect()
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
            let shares = vec![Offered { ticket: it.to_string(), everywhere, order: 7 }];
            serde_json::to_vec(&Announcement { shares, ..Announcement::default() }).unwrap()
        };
        shares.on_announced(at(0), key(1), &wants(true)).unwrap();
        shares.on_announced(at(100), key(2), &wants(false)).unwrap();
        let wanted = |shares: &mut Shares, secs| shares.wanted_everywhere(at(secs)).len();
        assert_eq!(shares.wanted_everywhere(at(100))[0].peers, 2);
        assert_eq!(shares.wanted_everywhere(at(100))[0].orders, BTreeMap::from([(key(1), 7)]));
        assert_eq!(wanted(&mut shares, LIST_TTL.as_secs()), 0, "its list is old");
        assert_eq!(names(&mut shares, LIST_TTL.as_secs()), ["a"]);
    }

    #[test]
    fn an_answer_counts_from_its_order_on_and_lists_of_older_builds_have_none() {
        let mut shares = Shares::default();
        let share = ticket("a", 1, 6001);
        let answers = |order, refused: Option<String>| {
            let answers = vec![Answered { id: share.share_id(), name: "a".into(), order, refused }];
            serde_json::to_vec(&Announcement { answers, ..Announcement::default() }).unwrap()
        };
        assert_eq!(shares.standing(&key(1), &share, 7), ShareState::Silent);
        shares.on_announced(at(0), key(1), &answers(7, None)).unwrap();
        assert_eq!(shares.standing(&key(1), &share, 7), ShareState::Has);
        assert_eq!(shares.standing(&key(1), &share, 8), ShareState::Silent, "of an older order");
        assert_eq!(shares.standing(&key(1), &ticket("b", 1, 6001), 7), ShareState::Silent);
        let long = "ä".repeat(REASON_BYTES_MAX);
        shares.on_announced(at(1), key(1), &answers(8, Some(long))).unwrap();
        let why = "ä".repeat(REASON_BYTES_MAX / 2);
        assert_eq!(shares.standing(&key(1), &share, 8), ShareState::Refuses(why));
        let old = format!("{{\"shares\":[{{\"ticket\":\"{share}\"}}]}}");
        shares.on_announced(at(2), key(2), old.as_bytes()).unwrap();
        assert_eq!(shares.standing(&key(2), &share, 0), ShareState::Part);
    }

    #[test]
    fn a_list_takes_the_place_of_the_one_before_and_ends_when_none_follows() {
        let mut shares = Shares::default();
        shares.on_announced(at(0), key(1), &list(&[ticket("a", 1, 6001)])).unwrap();
        shares.on_announced(at(1), key(1), &list(&[ticket("b", 2, 6001)])).unwrap();
        assert_eq!(names(&mut shares, 1), ["b"]);
        let numbered = |name, number| {
            let offered =
                Offered { ticket: ticket(name, 1, 6001).to_string(), everywhere: false, order: 0 };
            let list = Announcement { shares: vec![offered], number, ..Announcement::default() };
            serde_json::to_vec(&list).unwrap()
        };
        shares.on_announced(at(1), key(2), &numbered("d", 8)).unwrap();
        shares.on_announced(at(1), key(2), &numbered("c", 7)).unwrap();
        assert_eq!(names(&mut shares, 1), ["b", "d"], "what came last was made before");
        shares.on_announced(at(1), key(2), &list(&[])).unwrap();
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
