//! Requests of this machine's programs about the shares of a running peer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use crossbeam_channel::bounded;
use serde_json::{Value, json};

use super::reports::{BEAT, hashed, lines_of};
use super::{Kept, Node, Sharing};
use crate::machine::shares::KnownShare;
use crate::model::Ticket;
use crate::network::switchboard::Switchboard;
use crate::runtime::control::{Answer, Next};
use crate::runtime::thread;

/// Largest number of waiting reports of hashing; more are of no use.
const REPORTS_MAX: usize = 4;

impl Sharing {
    /// Shares a file or folder; answered by the number of bytes hashed, and then by the ticket.
    pub fn begin(
        self: &Arc<Self>,
        (path, piece, everywhere, rehash): (PathBuf, Option<u32>, bool, bool),
        (board, node): (&Arc<Switchboard>, &Node),
    ) -> Result<Answer, String> {
        let (report, reports) = bounded(REPORTS_MAX);
        let (this, board, node) = (Arc::clone(self), Arc::clone(board), Arc::clone(node));
        let order = if everywhere { self.next_order() } else { 0 };
        let (ticket, is_passing, handles) = (None, false, 0);
        let kept = Kept { path, piece, everywhere, order, ticket, is_passing, handles };
        let work = move || {
            let before: BTreeSet<_> = this.lock().kept.keys().cloned().collect();
            let outcome = this.share(kept, rehash, &|done, size| hashed(&report, done, size));
            let key =
                outcome.as_ref().ok().map(|it| (it.ticket.share_id(), it.ticket.name.clone()));
            let line = match outcome {
                Ok(held) => {
                    this.note_order(&held.ticket.name, order);
                    this.remember();
                    let _ = this.announce(&board, &node);
                    json!({ "ticket": held.ticket.to_string(), "left_out": held.left_out })
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            let is_heard = report.send(line).is_ok();
            // The asking program has gone, as Ctrl-C does: the share it began ends with it.
            if let Some(key) = key.filter(|key| !is_heard && !before.contains(key)) {
                this.end_keys(&[key], (&board, &node));
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
        (board, node): (&Arc<Switchboard>, &Node),
    ) -> Answer {
        let id = ticket.share_id();
        let number = {
            let mut state = self.lock();
            state.number += 1;
            let number = state.number;
            state.others.insert(number, ticket);
            number
        };
        let _ = self.announce(board, node);
        let lent = Lent {
            number,
            sharing: Arc::downgrade(self),
            board: Arc::clone(board),
            node: Arc::clone(node),
        };
        let mut told = BTreeSet::new();
        Answer::Lines(Box::new(move || {
            let Some(sharing) = lent.sharing.upgrade() else { return Next::End };
            if sharing.lock().is_closed {
                return Next::End;
            }
            let places = {
                let now = sharing.clock.now().mono;
                sharing.lock().known.places(now, &id)
            };
            let fresh: Vec<_> = places.into_iter().filter(|it| told.insert(*it)).collect();
            if !fresh.is_empty() {
                return Next::Line(json!({ "places": fresh }).to_string());
            }
            // Only the time ends this pause.
            let _ = crossbeam_channel::after(BEAT).recv();
            Next::Idle
        }))
    }
}

/// A share that a program serves by itself, while it does.
struct Lent {
    number: u64,
    sharing: Weak<Sharing>,
    board: Arc<Switchboard>,
    node: Node,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(sharing) = self.sharing.upgrade() else { return };
        sharing.lock().others.remove(&self.number);
        let _ = sharing.announce(&self.board, &self.node);
    }
}
