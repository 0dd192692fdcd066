//! Shares that are taken by orders for all peers, and shares that end.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use ::log::Level;
use serde_json::json;

use super::host::{FetchOptions, HostedShare, ShareRole};
use super::reports::report;
use super::version::{VERSIONS, VERSIONS_MAX, Version, version};
use super::{NullSink, Refusal, Sharing, TakenShare, Taking};
use crate::machine::shares::KnownShare;
use crate::model::size::Size;
use crate::model::text::escape;
use crate::model::{Ticket, Time};
use crate::runtime::swarm::ContentPhase;

/// Largest number of shares that are taken at a time: each calls all peers that are said to have
/// it.
const TAKEN_AT_ONCE_MAX: usize = 4;

impl Sharing {
    /// Takes the shares that are ordered for all peers.
    pub(super) fn take_pushed(&self, now: Time) {
        let Taking::UpTo { bytes, setting } = self.bounds.taking else { return };
        let (mut wanted, mut places, mut failed, mut ordered) = (vec![], vec![], vec![], vec![]);
        {
            let mut state = self.lock();
            for known in state.known.wanted_everywhere(now) {
                let id = known.ticket.share_id();
                let order = known.order();
                let key = (id, known.ticket.name.clone());
                if state.kept.keys().any(|it| it.0 == id)
                    || state.refused.get(&key).is_some_and(|it| it.order >= order)
                {
                    continue;
                }
                match state.taken.get_mut(&id) {
                    Some(taken) if taken.held.ticket.name != key.1 => {
                        let name = escape(&taken.held.ticket.name);
                        let why = format!("it is there already, and is called {name}");
                        state.refuse(key, Refusal { order, why });
                    }
                    Some(taken) if taken.order < order && taken.is_failed() => {
                        failed.push(id);
                        wanted.push((known.clone(), order));
                    }
                    Some(taken) => {
                        taken.order = taken.order.max(order);
                        places.push((Arc::clone(&taken.held), known.ticket.at.clone()));
                    }
                    None => wanted.push((known.clone(), order)),
                }
                let version = state.versions.get_mut(&id);
                if version.is_some_and(|it| it.order(&known.orders)) {
                    ordered.push(id);
                }
            }
            failed.iter().for_each(|id| drop(state.taken.remove(id)));
        }
        if !ordered.is_empty() {
            self.remember_versions();
        }
        // An old version that is ordered again is the newest.
        for id in &ordered {
            let _ = self.name_if_newest(id);
        }
        // A new order is a new try.
        let host = self.lock().host.clone().filter(|_| !failed.is_empty());
        let is_failed = |it: &HostedShare| failed.contains(&it.ticket.share_id());
        host.map(|it| it.end_those(is_failed));
        for (held, at) in places {
            let others = at.into_iter().filter(|it| *it != self.me);
            others.for_each(|it| held.swarm.add_place(it.socket_addr()));
        }
        let under_way = self.lock().taken.values().filter(|it| !it.is_told).count();
        for (known, order) in wanted.iter().take(TAKEN_AT_ONCE_MAX.saturating_sub(under_way)) {
            self.take((known, *order), (bytes, setting));
        }
    }

    /// Lets the fetches of handles call the peers that have announced their share.
    pub(super) fn add_places(&self, now: Time) {
        let Some(host) = self.lock().host.clone() else { return };
        for held in host.fetching() {
            let places = self.lock().known.places(now, &held.ticket.share_id());
            let others = places.into_iter().filter(|it| !host.at().contains(it));
            others.for_each(|it| held.swarm.add_place(it.socket_addr()));
        }
    }

    /// True if pieces have come for a handle's fetch that the other peers have not heard of: from
    /// now on it can pass some on.
    pub(super) fn has_first_pieces(&self) -> bool {
        let Some(host) = self.lock().host.clone() else { return false };
        let fetching = host.fetching();
        let state = self.lock();
        fetching.iter().any(|it| {
            let key = (it.ticket.share_id(), it.ticket.name.clone());
            let is_handled = !state.taken.contains_key(&key.0);
            is_handled && !state.listed.contains(&key) && it.swarm.progress().have > 0
        })
    }

    /// Ends the shares that are taken and not complete, and that no other peer orders everywhere
    /// any more: they were unshared, or never existed.
    pub(super) fn end_unwanted(&self, now: Time) -> bool {
        let unwanted: Vec<_> = {
            let mut state = self.lock();
            if state.taken.values().all(|it| it.is_told) {
                return false;
            }
            let wanted = state.known.wanted_everywhere(now);
            let wanted: BTreeSet<_> = wanted.iter().map(|it| it.ticket.share_id()).collect();
            let open = state.taken.iter().filter(|(_, it)| !it.is_told);
            open.map(|(id, _)| *id).filter(|id| !wanted.contains(id)).collect()
        };
        let host = self.lock().host.clone();
        let Some(host) = host.filter(|_| !unwanted.is_empty()) else { return false };
        let is_taken = |it: &HostedShare| it.role == ShareRole::Fetches;
        host.end_those(|it| is_taken(it) && unwanted.contains(&it.ticket.share_id()));
        let mut state = self.lock();
        for id in &unwanted {
            state.taken.remove(id);
            state.versions.remove(id);
        }
        drop(state);
        self.remember_versions();
        true
    }

    /// Ends shares whose files have changed.
    pub(super) fn end_failed(&self) -> bool {
        let host = self.lock().host.clone();
        let failed = host.as_ref().map(|it| it.failed()).unwrap_or_default();
        let mut is_changed = false;
        let mut others = Vec::new();
        for (held, why) in &failed {
            let id = held.ticket.share_id();
            let own = self.lock().kept.remove(&(id, held.ticket.name.clone()));
            let Some(own) = own else { continue };
            is_changed = true;
            if let Some(host) = &host {
                host.end_those(|it| Arc::ptr_eq(&it.swarm, &held.swarm) && it.path == held.path);
            }
            let is_alone = failed.iter().filter(|(it, _)| it.ticket.share_id() == id).count() == 1;
            if !is_alone {
                // The files of another name of the same content may be as they were.
                others.push((own, held.clone(), why));
                continue;
            }
            let name = escape(&held.ticket.name);
            let message = format!("does not share {name} any more: {why}");
            tell(Level::Warn, "share_ended", &message, &held.ticket);
        }
        for (own, held, why) in others {
            if self.share(own, false, &|_, _| true).is_err() {
                let name = escape(&held.ticket.name);
                let message = format!("does not share {name} any more: {why}");
                tell(Level::Warn, "share_ended", &message, &held.ticket);
            }
        }
        if is_changed {
            self.remember();
        }
        is_changed
    }

    fn take(
        &self,
        (KnownShare { ticket, orders, .. }, order): (&KnownShare, u64),
        (push_max, setting): (u64, &str),
    ) {
        let id = ticket.share_id();
        let to = self.folder.join("received").join(VERSIONS).join(version(&id));
        // A share that never comes must not fill the disk either.
        let hashed = |_, _| !self.lock().is_closed;
        let fetch = FetchOptions {
            ticket,
            to: &to,
            at: &[],
            give_up: None,
            preallocates: false,
            hashed: &hashed,
        };
        let (taken, count) = {
            let state = self.lock();
            let others = state.versions.iter().filter(|(it, _)| **it != id);
            (others.map(|(_, it)| it.size).sum::<u64>(), state.versions.len())
        };
        let begun = if push_max == 0 {
            Err("it takes nothing that others want everywhere (--no-push)".to_owned())
        } else if ticket.size > push_max.saturating_sub(taken) {
            let (size, taken, most) = (Size(ticket.size), Size(taken), Size(push_max));
            Err(format!("it has {size}, and {taken} are taken; {setting} allows {most} in all"))
        } else if count >= VERSIONS_MAX {
            Err(format!("{count} versions are kept; unshare some with --everywhere"))
        } else if ticket.name == VERSIONS {
            Err("that name is taken".to_owned())
        } else {
            fs::create_dir_all(&to)
                .map_err(|error| error.to_string())
                .and_then(|()| self.host().map_err(|error| error.to_string()))
                .and_then(|host| host.fetch(&fetch, NullSink).map_err(|error| error.to_string()))
        };
        let name = escape(&ticket.name);
        match begun {
            Ok(held) => {
                let message = format!("takes {name} ({}), wanted everywhere", Size(ticket.size));
                tell(Level::Info, "share_taken", &message, ticket);
                let mut state = self.lock();
                state.taken.insert(id, TakenShare { held, is_told: false, order });
                let version = state.versions.entry(id).or_insert_with(|| Version::new(ticket));
                let is_news = version.order(orders);
                drop(state);
                if is_news {
                    self.remember_versions();
                }
            }
            Err(why) => {
                let message = format!("does not take {name}, wanted everywhere: {why}");
                tell(Level::Warn, "share_refused", &message, ticket);
                self.lock().refuse((id, ticket.name.clone()), Refusal { order, why });
            }
        }
    }

    /// Reports once the outcome of each share that was taken; returns whether one has ended since.
    pub(super) fn announce_taken(&self) -> bool {
        let mut ended = Vec::new();
        for taken in self.lock().taken.values_mut().filter(|it| !it.is_told) {
            let phase = taken.held.swarm.progress().phase;
            if matches!(phase, ContentPhase::Stored | ContentPhase::Failed(_)) {
                taken.is_told = true;
                ended.push((Arc::clone(&taken.held), phase));
            }
        }
        for (held, phase) in &ended {
            let (ticket, name) = (&held.ticket, escape(&held.ticket.name));
            if let ContentPhase::Failed(why) = phase {
                let message = format!("stopped taking {name}: {why}; it goes on after a restart");
                tell(Level::Warn, "share_refused", &message, ticket);
            } else {
                let path = self.complete(held);
                let path = escape(&path.display().to_string());
                let message = format!("has all of {name}, verified, at {path}");
                tell(Level::Info, "share_complete", &message, ticket);
            }
        }
        !ended.is_empty()
    }
}

/// Logs an event of a version that is known by its name and size alone.
pub(super) fn tell_of(level: Level, event: &'static str, text: &str, name: &str, size: u64) {
    report(level, event, text, &json!({ "name": name, "size": size }));
}

fn tell(level: Level, event: &'static str, message: &str, ticket: &Ticket) {
    let fields = json!({ "name": ticket.name, "size": ticket.size, "ticket": ticket.to_string() });
    report(level, event, message, &fields);
}
