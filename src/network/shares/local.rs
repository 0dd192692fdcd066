//! Requests of this machine's programs about the shares of a running peer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use crossbeam_channel::bounded;
use serde_json::{Value, json};

use super::reports::{BEAT, hashed, lines_of};
use super::view::ShareCounts;
use super::{Node, ShareRecord, Sharing};
use crate::machine::shares::KnownShare;
use crate::model::Ticket;
use crate::network::subscriptions::Subscriptions;
use crate::runtime::control::{ControlAnswer, NextLine};
use crate::runtime::thread;

/// Largest number of waiting reports of hashing; more are of no use.
const REPORTS_MAX: usize = 4;

impl Sharing {
    /// Numbers of shares; `None` while there are none.
    pub fn counts(&self) -> Option<ShareCounts> {
        let now = self.clock.mono();
        let mut state = self.lock();
        let known = state.known.count(now);
        let counts = ShareCounts { own: state.kept.len(), taken: state.taken.len(), known };
        (counts != ShareCounts::default()).then_some(counts)
    }

    /// Shares a file or folder; answered by the number of bytes hashed, and then by the ticket.
    pub fn begin(
        self: &Arc<Self>,
        (path, piece, everywhere, rehash): (PathBuf, Option<u32>, bool, bool),
        (subscriptions, node): (&Arc<Subscriptions>, &Node),
    ) -> Result<ControlAnswer, String> {
        let (report, reports) = bounded(REPORTS_MAX);
        let (this, subscriptions, node) =
            (Arc::clone(self), Arc::clone(subscriptions), Arc::clone(node));
        let order = if everywhere { self.next_order() } else { 0 };
        let (ticket, is_passing, handles) = (None, false, 0);
        let kept = ShareRecord { path, piece, everywhere, order, ticket, is_passing, handles };
        let work = move || {
            let before: BTreeSet<_> = this.lock().kept.keys().cloned().collect();
            let outcome = this.share(kept, rehash, &|done, size| hashed(&report, done, size));
            let key =
                outcome.as_ref().ok().map(|it| (it.ticket.share_id(), it.ticket.name.clone()));
            let line = match outcome {
                Ok(held) => {
                    this.note_order(&held.ticket.name, order);
                    this.remember();
                    let _ = this.announce(&subscriptions, &node);
                    json!({ "ticket": held.ticket.to_string(), "left_out": held.left_out })
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            let is_heard = report.send(line).is_ok();
            // The asking program has gone, as Ctrl-C does: the share it began ends with it.
            if let Some(key) = key.filter(|key| !is_heard && !before.contains(key)) {
                this.end_keys(&[key], (&subscriptions, &node));
            }
        };
        thread::spawn("share", work).map_err(|error| error.to_string())?;
        Ok(lines_of(reports))
    }

    /// Shares of the fleet, as far as is known here.
    pub fn list(&self) -> Value {
        let now = self.clock.now().mono;
        let mut state = self.lock();
        let here: BTreeMap<_, _> = state.host.as_ref().map(|it| it.views()).unwrap_or_default();
        let object = |it: &KnownShare| {
            json!({
                "name": it.ticket.name, "size": it.ticket.size, "peers": it.peers,
                "everywhere": !it.orders.is_empty(),
                "here": here.get(&(it.ticket.share_id(), it.ticket.name.clone())),
                "is_folder": it.ticket.files.is_some(), "ticket": it.ticket.to_string(),
            })
        };
        state.known.all(now).iter().map(object).collect()
    }

    /// Announces a share that a program of this machine serves by itself, until the answer is
    /// dropped.
    pub fn lend(
        self: &Arc<Self>,
        ticket: Ticket,
        (subscriptions, node): (&Arc<Subscriptions>, &Node),
    ) -> ControlAnswer {
        let id = ticket.share_id();
        let number = {
            let mut state = self.lock();
            state.number += 1;
            let number = state.number;
            state.others.insert(number, ticket);
            number
        };
        let _ = self.announce(subscriptions, node);
        let lent = LentShare {
            number,
            sharing: Arc::downgrade(self),
            subscriptions: Arc::clone(subscriptions),
            node: Arc::clone(node),
        };
        let mut told = BTreeSet::new();
        ControlAnswer::Lines(Box::new(move || {
            let Some(sharing) = lent.sharing.upgrade() else { return NextLine::End };
            if sharing.lock().is_closed {
                return NextLine::End;
            }
            let places = {
                let now = sharing.clock.now().mono;
                sharing.lock().known.places(now, &id)
            };
            let fresh: Vec<_> = places.into_iter().filter(|it| told.insert(*it)).collect();
            if !fresh.is_empty() {
                return NextLine::Line(json!({ "places": fresh }).to_string());
            }
            // Only the time ends this pause.
            let _ = crossbeam_channel::after(BEAT).recv();
            NextLine::Idle
        }))
    }
}

/// A share that a program serves by itself, while it does.
struct LentShare {
    number: u64,
    sharing: Weak<Sharing>,
    subscriptions: Arc<Subscriptions>,
    node: Node,
}

impl Drop for LentShare {
    fn drop(&mut self) {
        let Some(sharing) = self.sharing.upgrade() else { return };
        sharing.lock().others.remove(&self.number);
        let _ = sharing.announce(&self.subscriptions, &self.node);
    }
}
