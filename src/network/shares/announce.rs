//! Announcements of the shares of this peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Node, Sharing};
use crate::machine::shares::{Announcement, LIST_MAX, Offered, TOPIC};
use crate::model::{Data, Ticket};
use crate::network::subscriptions::Subscriptions;

/// Time that a list waits for slow nodes before it is told in the background.
const TELL_PATIENCE: Duration = Duration::from_secs(2);

impl Sharing {
    /// Announcement of the shares of this machine at this moment.
    pub(super) fn announcement(&self) -> Announcement {
        let mut state = self.lock();
        let ordered = state.kept.iter().filter(|(_, it)| it.everywhere);
        let orders: BTreeMap<_, _> = ordered.map(|(key, it)| (key.clone(), it.order)).collect();
        let held = state.host.as_ref().map(|it| it.tickets()).unwrap_or_default();
        state.listed = held.iter().map(|it| (it.share_id(), it.name.clone())).collect();
        let offered = |ticket: Ticket| {
            let order = orders.get(&(ticket.share_id(), ticket.name.clone())).copied();
            let (everywhere, order) = (order.is_some(), order.unwrap_or_default());
            Offered { ticket: ticket.to_string(), everywhere, order }
        };
        let mut shares: Vec<_> = held.into_iter().map(offered).collect();
        let lent = |it: &Ticket| Offered { ticket: it.to_string(), everywhere: false, order: 0 };
        shares.extend(state.others.values().map(lent));
        shares.truncate(LIST_MAX);
        let answers = state.answers(self.clock.now().mono);
        state.answered.clone_from(&answers);
        let ((answers, takes_none), removed) = (answers, state.removed());
        Announcement { shares, answers, removed, takes_none, ..Announcement::default() }
    }

    /// Tells the others what is shared here; returns whether it was sent. While it was not,
    /// because other nodes do not keep up or this peer is no member, [`Sharing::run`] tries again.
    pub(super) fn announce(&self, subscriptions: &Arc<Subscriptions>, node: &Node) -> bool {
        let is_told = self.tell(subscriptions, node);
        self.lock().is_untold = !is_told;
        is_told
    }

    fn tell(&self, subscriptions: &Arc<Subscriptions>, node: &Node) -> bool {
        let mut announcing = self.announcing.lock().expect("nothing under this lock can panic");
        if let Some(earlier) = &mut *announcing
            && earlier.wait_timeout(Duration::ZERO).is_none()
        {
            return false;
        }
        *announcing = None;
        let mut list = self.announcement();
        {
            let mut state = self.lock();
            state.is_known = !list.is_empty();
            // Also where the clock was set back.
            state.announced = self.clock.now().wall.0.max(state.announced + 1);
            list.number = state.announced;
        }
        let list = serde_json::to_vec(&list).unwrap_or_default();
        let begun = subscriptions.begin_publish(node, (TOPIC.to_owned(), Data::from(list)), false);
        let sent = begun.map(|mut it| {
            let sent = it.wait_timeout(TELL_PATIENCE);
            *announcing = sent.is_none().then_some(it);
            sent
        });
        match sent {
            Ok(Some(Ok(_))) => true,
            Ok(None) => false,
            Ok(Some(Err(error))) | Err(error) => {
                ::log::debug!("the shares are not announced now: {error}");
                false
            }
        }
    }
}
