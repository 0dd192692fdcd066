//! Members of a fleet that take no shares, such as chats and rollout nodes: they answer orders to
//! take a share with a list of none, and are not waited for.

use std::time::Duration;

use crate::machine::shares::Announcement;
pub(super) use crate::machine::shares::TOPIC;
use crate::model::Time;
use crate::network::message::Message;
use crate::network::peer::Network;
use crate::network::queue::{Gone, Queue};
use crate::runtime::clock::Clock;

/// Shortest time between two answers; each order is announced more than once.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Answers orders to take a share, which come in `lists`, with the announcement of no shares, until
/// the network stops.
pub(super) fn answer(network: &Network, lists: &Queue<Message>) {
    let (clock, mut said) = (Clock::start(), None::<Time>);
    loop {
        let list = match lists.recv() {
            Ok(message) => serde_json::from_slice::<Announcement>(&message.data),
            Err(Gone::Missed(_) | Gone::Missing { .. } | Gone::Empty) => continue,
            Err(Gone::Closed) => return,
        };
        let is_order = list.is_ok_and(|it| it.shares.iter().any(|it| it.everywhere));
        let now = clock.now().mono;
        if is_order && said.is_none_or(|at| now.since(at) >= SAY_EVERY) {
            said = Some(now);
            let text = serde_json::to_vec(&Announcement::of_none()).unwrap_or_default();
            let _ = network.broadcast(TOPIC, text);
        }
    }
}
