//! The process of a seed.

use std::sync::Arc;

use crossbeam_channel::{Receiver, never};
use serde_json::Value;

use super::{Ground, Role, Use, live, open_journal};
use crate::cli::CliError;
use crate::cli::log::Line;
use crate::cli::report::SeedReport;
use crate::cli::settings::SeedSettings;
use crate::machine::membership::authority::{Order, OrderState, Record};
use crate::machine::membership::certificate::Proposal;
use crate::model::{Endpoint, Now};
use crate::node::seed_kind::{Command, Event};
use crate::node::{SeedNode, SeedStatus};
use crate::runtime::control::Answer;
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::Serve;

#[derive(Default)]
struct Seed(SeedReport);

impl Role for Seed {
    type Machine = SeedNode;

    const NAME: &'static str = "seed";

    fn lines(&mut self, now: Now, event: &Event) -> Vec<Line> {
        self.0.lines(now, event)
    }

    type Board = ();

    fn notice((): &(), _: Now, _: &Event) -> bool {
        true
    }

    fn answers((): &()) -> Receiver<Command> {
        never()
    }

    fn wanted((): &()) -> Receiver<()> {
        never()
    }

    fn wake(_: &Arc<()>, _: &Arc<Driver<SeedNode>>) {}

    fn swarm(_: &Arc<()>) -> Option<Arc<dyn Serve>> {
        None
    }

    fn begin(_: &Arc<()>, _: &Arc<Driver<SeedNode>>, _: Use) -> Result<Answer, String> {
        Err("a seed takes no part in messages; name the --port of a peer".to_owned())
    }

    fn close((): &()) {}

    fn is_last(_: &Event) -> bool {
        false
    }

    /// `None`: a seed that stops keeps its place, and goes on when it is started again.
    fn goodbye() -> Option<Command> {
        None
    }

    type Status = SeedStatus;

    fn status(machine: &SeedNode) -> SeedStatus {
        machine.status()
    }

    fn meaning(machine: &SeedNode, order: Order, endpoint: Endpoint) -> Result<Proposal, String> {
        machine.authority().meaning(order, endpoint)
    }

    fn order(proposal: Proposal) -> Option<Command> {
        Some(Command::Order { proposal })
    }

    fn order_state(machine: &SeedNode, proposal: &Proposal) -> Result<OrderState, String> {
        machine.authority().order_state(proposal)
    }

    fn topology(_: &SeedNode) -> Result<Value, String> {
        Err("a seed answers this on its port: peer topology --at IP:PORT".to_owned())
    }
}

/// Runs a seed until it is stopped.
///
/// # Errors
/// Fails if it cannot start, or its disk fails.
pub fn seed(settings: &SeedSettings) -> Result<(), CliError> {
    let ground = Ground::prepare(Seed::NAME, &settings.node)?;
    let Ground { endpoint, listener, dir, keys, rng } = ground;
    settings.check_key(keys.public(), dir.path())?;
    let (journal, mut records, is_torn) = open_journal::<SeedNode>(&dir)?;
    if is_torn {
        // A torn record was never reported; one whose bits have changed on the disk looks alike,
        // and may have been a vote. As after a lost journal, compare first.
        records.retain(|record| *record != Record::Ready);
    }
    let who = (settings.id, endpoint, keys);
    let machine = SeedNode::new(settings.machines, who, settings.node.book(), records, rng)
        .in_fleet(settings.node.fleet.clone());
    live(Seed::default(), (machine, Arc::new(())), journal, (listener, &dir, &settings.node))
}
