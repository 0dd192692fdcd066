//! Orders of operators that wait until they can begin.

use super::event::{Command, CommandId};

/// Maximum number of waiting orders.
const ORDERS_MAX: usize = 16;

/// Orders that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(CommandId, Command)>);

impl Orders {
    pub(super) const fn has_room(&self) -> bool {
        self.0.len() < ORDERS_MAX
    }

    /// Lets an order wait. Returns true if it is the first one.
    pub(super) fn push(&mut self, ticket: CommandId, command: Command) -> bool {
        self.0.push((ticket, command));
        self.0.len() == 1
    }

    pub(super) fn take(&mut self) -> Vec<(CommandId, Command)> {
        std::mem::take(&mut self.0)
    }
}
