//! Differences between the processes of a seed and of a peer.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use serde::Serialize;
use serde_json::{Map, Value};

use super::local_api::ApiRequest;
use crate::cli::CliError;
use crate::cli::log::LogLine;
use crate::machine::membership::authority::OperatorOrder;
use crate::machine::membership::seedbook::SeedBook;
use crate::machine::{Machine, Vocabulary};
use crate::model::statement::Proposal;
use crate::model::{Endpoint, Now};
use crate::runtime::control::ControlAnswer;
use crate::runtime::driver::options::DialectServers;
use crate::runtime::driver::{Drivable, Driver};

/// Event of the machine of a role.
pub(super) type EventOf<R> = <<R as Role>::Machine as Vocabulary>::Event;

/// Command to the machine of a role.
pub(super) type CommandOf<R> = <<R as Role>::Machine as Machine>::Command;

/// Role of a node in the fleet: its machine, its log lines, its answers to its operator.
pub(super) trait Role: Send + Sized + 'static {
    /// Machine of the node.
    type Machine: Drivable;

    /// Status of the node, for its operator.
    type Status: Serialize;

    /// `seed` or `peer`: the name of its data directory and of its log lines.
    const NAME: &'static str;

    /// Log lines of an event.
    fn lines(&mut self, now: Now, event: &EventOf<Self>) -> Vec<LogLine>;

    /// True if this event is the node's last: its process may end.
    fn is_last(event: &EventOf<Self>) -> bool;

    /// Command that lets the node say goodbye before it stops, if it does.
    fn goodbye() -> Option<CommandOf<Self>>;

    /// Status of the node now; the node stands still meanwhile.
    fn status(machine: &Self::Machine) -> Self::Status;

    /// The seeds as the node knows them; none in a fleet without seeds.
    fn book(machine: &Self::Machine) -> SeedBook;

    /// Answer to a question or an order of the operator.
    ///
    /// # Errors
    /// The reason why it cannot be answered or carried out, for people.
    fn answer(driver: &Arc<Driver<Self::Machine>>, ask: OperatorAsk) -> Result<Value, String>;
}

/// Question or order of an operator that seeds and peers answer differently.
pub(super) enum OperatorAsk {
    /// The overlay as the node sees it.
    Topology,
    /// Meaning of an order about an endpoint at this moment.
    Meaning(OperatorOrder, Endpoint),
    /// An order of a seed's operator.
    Order(Proposal),
    /// State of an order.
    OrderState(Proposal),
}

/// Local API of a node, if it has one: seeds have none.
pub(super) type Api<M> = Option<Arc<dyn LocalApi<M>>>;

/// Part of a node for the programs of this machine that use it.
pub(super) trait LocalApi<M: Drivable>: Send + Sync + 'static {
    /// Passes an event to the programs that wait for it; returns whether it is also for the log, as
    /// that is set. Called under the node's lock: it must not block.
    fn notice(&self, now: Now, event: &M::Event) -> bool;

    /// Commands to the node: answers that were decided under the node's lock.
    fn answers(&self) -> Receiver<M::Command>;

    /// Channel of the messages that [`LocalApi::wake`] is to be called.
    fn wanted(&self) -> Receiver<()>;

    /// Starts what runs only in a node that uses it, if it does not run yet.
    fn wake(&self, driver: &Arc<Driver<M>>);

    /// Servers of the other dialects at the node's port.
    fn dialects(&self) -> DialectServers;

    /// Starts the services that run inside the node, once it runs.
    ///
    /// # Errors
    /// Fails if the system has no room for their threads.
    fn start(&self, driver: &Arc<Driver<M>>) -> io::Result<()>;

    /// Channel of the failure of a service, which ends the node.
    fn failed(&self) -> Receiver<CliError>;

    /// Status of the services that run inside the node, by name.
    fn status(&self) -> Map<String, Value>;

    /// The shares of the fleet as far as this node knows, without their tickets.
    fn shares(&self) -> Value;

    /// Stops the services, before the node says goodbye.
    fn stop(&self);

    /// Begins to answer a request.
    ///
    /// # Errors
    /// The reason why it cannot be answered, for people.
    fn begin(&self, driver: &Arc<Driver<M>>, request: ApiRequest) -> Result<ControlAnswer, String>;

    /// Ends all answers, after the node has stopped.
    fn close(&self);
}
