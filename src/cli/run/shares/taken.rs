//! What is taken because somebody wants it everywhere, and what is shared no more.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::log::Level;
use serde_json::json;

use super::{Quiet, Refusal, Sharing, Taken};
use crate::cli::log::{Line, escape};
use crate::cli::share::host::{Held, Order, Role};
use crate::cli::size::Size;
use crate::model::{Ticket, Time};
use crate::runtime::clock::Clock;
use crate::runtime::files::sync_dir;
use crate::runtime::swarm::Phase;

/// The folder of all versions of what was taken, each in one named by its content.
const VERSIONS: &str = ".versions";

fn version(id: &[u8; 32]) -> String {
    hex::encode(&id[..8])
}

/// Shares that are taken at a time: each calls whoever is said to have it.
const TAKEN_AT_ONCE_MAX: usize = 4;

impl Sharing {
    /// Takes what somebody wants everywhere.
    pub(super) fn take_pushed(&self, now: Time) {
        let (mut wanted, mut places, mut failed) = (Vec::new(), Vec::new(), Vec::new());
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
                        wanted.push((known.ticket, order));
                    }
                    Some(taken) => {
                        taken.order = taken.order.max(order);
                        places.push((Arc::clone(&taken.held), known.ticket.at));
                    }
                    None => wanted.push((known.ticket, order)),
                }
            }
            failed.iter().for_each(|id| drop(state.taken.remove(id)));
        }
        // A new order is a new try.
        let host = self.lock().host.clone().filter(|_| !failed.is_empty());
        let is_failed = |it: &Held| failed.contains(&it.ticket.share_id());
        host.map(|it| it.end_those(is_failed));
        for (held, at) in places {
            let others = at.into_iter().filter(|it| *it != self.me);
            others.for_each(|it| held.swarm.add_place(it.socket_addr()));
        }
        let under_way = self.lock().taken.values().filter(|it| !it.is_told).count();
        for (ticket, order) in wanted.iter().take(TAKEN_AT_ONCE_MAX.saturating_sub(under_way)) {
            self.take(ticket, *order);
        }
    }

    /// Ends what is taken and not complete, and what nobody else wants everywhere any more: it was
    /// unshared, or never was.
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
        let is_taken = |it: &Held| it.role == Role::Fetches;
        host.end_those(|it| is_taken(it) && unwanted.contains(&it.ticket.share_id()));
        let mut state = self.lock();
        unwanted.iter().for_each(|id| drop(state.taken.remove(id)));
        true
    }

    /// Ends shares whose files are not what they were.
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
            tell(Level::Warn, "share_ended", message, &held.ticket);
        }
        for (own, held, why) in others {
            if self.share(own, false, &|_, _| true).is_err() {
                let name = escape(&held.ticket.name);
                let message = format!("does not share {name} any more: {why}");
                tell(Level::Warn, "share_ended", message, &held.ticket);
            }
        }
        if is_changed {
            self.remember();
        }
        is_changed
    }

    fn take(&self, ticket: &Ticket, order: u64) {
        let id = ticket.share_id();
        let to = self.folder.join("received").join(VERSIONS).join(version(&id));
        // What never comes must not fill the disk either.
        let hashed = |_, _| !self.lock().is_closed;
        let fetch =
            Order { ticket, to: &to, at: &[], give_up: None, preallocates: false, hashed: &hashed };
        let taken = self.lock().taken.values().map(|it| it.held.ticket.size).sum::<u64>();
        let begun = if self.push_max == 0 {
            Err("it takes nothing that others want everywhere (--no-push)".to_owned())
        } else if ticket.size > self.push_max.saturating_sub(taken) {
            let (size, taken, most) = (Size(ticket.size), Size(taken), Size(self.push_max));
            Err(format!("it has {size}, and {taken} are taken; --push-max allows {most} in all"))
        } else if ticket.name == VERSIONS {
            Err("that name is taken".to_owned())
        } else {
            fs::create_dir_all(&to)
                .map_err(|error| error.to_string())
                .and_then(|()| self.host().map_err(|error| error.to_string()))
                .and_then(|host| host.fetch(&fetch, Quiet).map_err(|error| error.to_string()))
        };
        let name = escape(&ticket.name);
        match begun {
            Ok(held) => {
                let message = format!("takes {name} ({}), wanted everywhere", Size(ticket.size));
                tell(Level::Info, "share_taken", message, ticket);
                self.lock().taken.insert(id, Taken { held, is_told: false, order });
            }
            Err(why) => {
                let message = format!("does not take {name}, wanted everywhere: {why}");
                tell(Level::Warn, "share_refused", message, ticket);
                self.lock().refuse((id, ticket.name.clone()), Refusal { order, why });
            }
        }
    }

    /// Has the name lead to what is wanted everywhere now; other versions stay beside it. Returns
    /// where it is.
    fn give_name(&self, held: &Held) -> PathBuf {
        let folder = self.folder.join("received");
        let name = &held.ticket.name;
        let (at, versions) = (folder.join(name), folder.join(VERSIONS));
        let named = || -> io::Result<()> {
            // Before there were versions, content itself had the name.
            if at.symlink_metadata().is_ok_and(|it| !it.is_symlink()) {
                let before = versions.join("before");
                fs::create_dir_all(&before)?;
                fs::rename(&at, before.join(name))?;
            }
            let draft = versions.join("link.new");
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let id = held.ticket.share_id();
            symlink(Path::new(VERSIONS).join(version(&id)).join(name), &draft)?;
            fs::rename(&draft, &at)?;
            sync_dir(&folder)
        };
        match named() {
            Ok(()) => at,
            Err(error) => {
                ::log::warn!("{} does not lead to the new version: {error}", escape(name));
                held.path.clone()
            }
        }
    }

    /// Tells once what became of what was taken; returns whether something is complete since.
    pub(super) fn tell_taken(&self) -> bool {
        let mut ended = Vec::new();
        for taken in self.lock().taken.values_mut().filter(|it| !it.is_told) {
            let phase = taken.held.swarm.progress().phase;
            if matches!(phase, Phase::Stored | Phase::Failed(_)) {
                taken.is_told = true;
                ended.push((Arc::clone(&taken.held), phase));
            }
        }
        for (held, phase) in &ended {
            let (ticket, name) = (&held.ticket, escape(&held.ticket.name));
            if let Phase::Failed(why) = phase {
                let message = format!("stopped taking {name}: {why}; it goes on after a restart");
                tell(Level::Warn, "share_refused", message, ticket);
            } else {
                let path = self.give_name(held);
                let path = escape(&path.display().to_string());
                let message = format!("has all of {name}, verified, at {path}");
                tell(Level::Info, "share_complete", message, ticket);
            }
        }
        !ended.is_empty()
    }
}

fn tell(level: Level, event: &'static str, message: String, ticket: &Ticket) {
    let fields = json!({ "name": ticket.name, "size": ticket.size, "ticket": ticket.to_string() });
    Line::new(level, event, message, fields).log(Clock::start().now().wall);
}
