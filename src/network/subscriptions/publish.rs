//! Publishing through the subscriptions, and the peers known to have a message.

use std::sync::Arc;
use std::time::Duration;

use super::{PublishOutcome, Publishing, State, Subscriptions};
use crate::machine::Input;
use crate::model::{Data, MessageId};
use crate::network::error::NetworkError;
use crate::network::pending::{Cell, Pending};
use crate::node::PeerNode;
use crate::node::peer_kind::Command;
use crate::runtime::driver::Driver;

impl Subscriptions {
    /// Sends a message to all peers, and to the subscribers here; blocks while other nodes do not
    /// keep up. With `receipt`, [`Subscriptions::known_to_have`] tells how many have it.
    ///
    /// # Errors
    /// Fails with the reason why it was not sent.
    pub fn publish(
        self: &Arc<Self>,
        driver: &Arc<Driver<PeerNode>>,
        message: (String, Data),
        receipt: bool,
    ) -> PublishOutcome {
        self.begin_publish(driver, message, receipt)?.wait()
    }

    /// Publishes a message as [`Self::publish`] does, without a wait. Canceled, it is published all
    /// the same, and nobody asks who has it.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub fn begin_publish(
        self: &Arc<Self>,
        driver: &Arc<Driver<PeerNode>>,
        (topic, data): (String, Data),
        receipt: bool,
    ) -> Result<Pending<PublishOutcome>, NetworkError> {
        let key = driver.inspect(|node, _| node.key());
        let cell = Cell::new();
        let own = Publishing {
            cell: Arc::clone(&cell),
            is_watched: receipt,
            topic: topic.clone(),
            data: data.clone(),
            key,
        };
        let token = self.enlist(|waiting, token| _ = waiting.publishing.insert(token, own))?;
        // The node decides within that call, unless others do not keep up, or it is stopping: then
        // closing ends the wait.
        driver.submit(Input::Command(Command::Publish { topic, data, receipt, token }));
        let subscriptions = Arc::downgrade(self);
        let cancel = move || {
            let Some(subscriptions) = subscriptions.upgrade() else { return };
            if let Some(own) = subscriptions.lock().publishing.get_mut(&token) {
                own.is_watched = false;
            }
        };
        Ok(Pending::new(cell, Some(Box::new(cancel))))
    }

    /// Number of own messages that are not published yet.
    #[cfg(test)]
    pub fn publishing(&self) -> usize {
        self.lock().publishing.len()
    }

    /// Number of other peers that are known to have an own message published with a receipt; blocks
    /// until there are more than `known`, but no longer than `most`. `None` if the network has
    /// stopped.
    pub fn known_to_have(&self, id: MessageId, known: u32, most: Duration) -> Option<u32> {
        let count = |it: &State| it.receipts.get(&id).copied().unwrap_or_default();
        let is_old = |it: &mut State| !it.is_closed && count(it) <= known;
        let waited = self.moved.wait_timeout_while(self.lock(), most, is_old);
        let (waiting, _) = waited.expect("nothing under this lock can panic");
        (!waiting.is_closed).then(|| count(&waiting))
    }

    /// Nobody asks any more who has `id`.
    pub fn forget_receipts(&self, id: MessageId) {
        self.lock().receipts.remove(&id);
    }
}
