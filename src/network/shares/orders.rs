//! Orders of this peer to all others, to take and to remove shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Node, Ordered, Sharing, State};
use crate::machine::shares::{LIST_MAX, Withdrawn};
use crate::model::text::escape;
use crate::network::subscriptions::Subscriptions;
use crate::runtime::files::replace_file;

impl State {
    /// Shares that the other peers are to remove.
    pub(super) fn removed(&self) -> Vec<Withdrawn> {
        let removed = self.ordered.iter().filter(|(_, it)| it.removed > 0);
        removed.map(|(name, it)| Withdrawn { name: name.clone(), order: it.removed }).collect()
    }
}

impl Sharing {
    pub(super) fn orders_file(&self) -> PathBuf {
        self.folder.join("orders.json")
    }

    /// Reads the orders of earlier lives.
    pub(super) fn read_orders(&self) {
        let path = self.orders_file();
        let Some(text) = Self::read(&path) else { return };
        match serde_json::from_slice::<BTreeMap<String, Ordered>>(&text) {
            Ok(ordered) => self.lock().ordered = ordered,
            Err(error) => ::log::warn!("{} is damaged: {error}", path.display()),
        }
    }

    fn remember_orders(&self) -> Result<(), String> {
        let ordered = self.lock().ordered.clone();
        let text = serde_json::to_vec_pretty(&ordered).unwrap_or_default();
        replace_file(&self.orders_file(), &text).map_err(|error| error.to_string())
    }

    /// Returns a number for an order, greater than those before it, even if the clock was set back.
    pub(super) fn next_order(&self) -> u64 {
        let last = self.lock().ordered.values().map(|it| it.last).max().unwrap_or_default();
        self.clock.now().wall.0.max(last.saturating_add(1))
    }

    /// Remembers the number of an order to take a name; 0 is no order.
    pub(super) fn note_order(&self, name: &str, order: u64) {
        if order == 0 {
            return;
        }
        {
            let mut state = self.lock();
            let ordered = &mut state.ordered;
            if ordered.len() >= LIST_MAX && !ordered.contains_key(name) {
                let oldest = ordered.iter().min_by_key(|(_, it)| it.last);
                let oldest = oldest.map(|(name, _)| name.clone()).unwrap_or_default();
                ordered.remove(&oldest);
            }
            ordered.entry(name.to_owned()).or_default().last = order;
        }
        if let Err(error) = self.remember_orders() {
            ::log::warn!("the order is not remembered over a restart: {error}");
        }
    }

    /// Ends the shares of this name here; with `everywhere`, the other peers are asked to remove
    /// what they have taken of it from this peer.
    pub fn unshare(
        &self,
        (name, everywhere): (&str, bool),
        (subscriptions, node): (&Arc<Subscriptions>, &Node),
    ) -> Result<(), String> {
        if everywhere {
            match self.lock().ordered.get_mut(name) {
                Some(it) => it.removed = it.last,
                None => {
                    let name = escape(name);
                    return Err(format!("this peer has not shared {name} with --everywhere"));
                }
            }
            self.remember_orders()?;
        }
        let host = self.lock().host.clone();
        let ended: Vec<_> = if everywhere {
            // Shares that other peers have ordered under this name are theirs, and are still taken.
            self.lock().kept.keys().filter(|it| it.1 == name).cloned().collect()
        } else {
            host.map(|it| it.end(name)).unwrap_or_default()
        };
        if ended.is_empty() && !everywhere {
            return Err(format!(
                "nothing that this peer shares is called {name}; peer shares lists what it shares"
            ));
        }
        self.end_keys(&ended, (subscriptions, node));
        Ok(())
    }
}
