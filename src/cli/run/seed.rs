//! The process of a seed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::node::{NodeContext, open_journal, run_node};
use super::role::{OperatorAsk, Role};
use crate::cli::CliError;
use crate::cli::log::LogLine;
use crate::cli::report::SeedReport;
use crate::cli::settings::SeedSettings;
use crate::machine::Input;
use crate::machine::membership::authority::Record;
use crate::machine::membership::seedbook::SeedBook;
use crate::model::Now;
use crate::node::seed_kind::{Command, Event};
use crate::node::{SeedNode, SeedStatus};
use crate::runtime::driver::Driver;

#[derive(Default)]
struct Seed(SeedReport);

impl Role for Seed {
    type Machine = SeedNode;

    type Status = SeedStatus;

    const NAME: &'static str = "seed";

    fn lines(&mut self, now: Now, event: &Event) -> Vec<LogLine> {
        self.0.lines(now, event)
    }

    fn is_last(_: &Event) -> bool {
        false
    }

    /// `None`: a seed that stops keeps its place, and goes on when it is started again.
    fn goodbye() -> Option<Command> {
        None
    }

    fn status(machine: &SeedNode) -> SeedStatus {
        machine.status()
    }

    fn book(machine: &SeedNode) -> SeedBook {
        machine.authority().book().clone()
    }

    fn answer(driver: &Arc<Driver<SeedNode>>, ask: OperatorAsk) -> Result<Value, String> {
        match ask {
            OperatorAsk::Topology => {
                Err("a seed answers this on its port: peer topology --at IP:PORT".to_owned())
            }
            OperatorAsk::Meaning(order, endpoint) => {
                let meaning =
                    driver.inspect(|machine, _| machine.authority().meaning(order, endpoint))?;
                Ok(json!({ "proposal": meaning }))
            }
            OperatorAsk::Order(proposal) => {
                driver.submit(Input::Command(Command::Order { proposal }));
                Ok(json!({ "taken": true }))
            }
            OperatorAsk::OrderState(proposal) => {
                let state =
                    driver.inspect(|machine, _| machine.authority().order_state(&proposal))?;
                serde_json::to_value(state).map_err(|error| error.to_string())
            }
        }
    }
}

/// Runs a seed until it is stopped.
///
/// # Errors
/// Fails if it cannot start, or its disk fails.
pub fn seed(settings: &SeedSettings) -> Result<(), CliError> {
    let context = NodeContext::prepare(Seed::NAME, &settings.node)?;
    let NodeContext { endpoint, listener, dir, rng, feed } = context;
    let keys = dir.identity()?;
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
    let place = (listener, &dir, &settings.node);
    run_node(Seed::default(), (machine, None), journal, place, &feed)
}
