//! What a running node answers to local programs: JSON in, JSON out, through its Unix socket.
//!
//! Only the owner of the data directory gets here. A refusal is `{"error": "…"}`.

use std::io;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Role;
use crate::model::Endpoint;
use crate::protocol::Input;
use crate::protocol::membership::authority::Order;
use crate::protocol::membership::certificate::Proposal;
use crate::runtime::control::{self, Answer, Control};
use crate::runtime::driver::Driver;
use crate::runtime::files::DataDir;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Ask {
    /// The node's state.
    Status,
    /// The overlay as the node sees it.
    Topology,
    /// Say goodbye and stop.
    Leave,
    /// What an order about an endpoint means now.
    Meaning { order: Order, endpoint: Endpoint },
    /// The operator of a seed wants it.
    Order { proposal: Proposal },
    /// Where an order stands.
    OrderState { proposal: Proposal },
}

/// Serves the node's local commands until the returned server is dropped.
///
/// # Errors
/// When the socket cannot be made.
pub(super) fn serve<R: Role>(
    dir: &DataDir,
    driver: &Arc<Driver<R::Machine>>,
) -> io::Result<Control> {
    let driver = Arc::clone(driver);
    let handler = move |request: &str| {
        Answer::Line(match answer::<R>(&driver, request) {
            Ok(answer) => answer.to_string(),
            Err(error) => json!({ "error": error }).to_string(),
        })
    };
    control::serve(dir, Arc::new(handler))
}

fn answer<R: Role>(driver: &Arc<Driver<R::Machine>>, request: &str) -> Result<Value, String> {
    let ask: Ask = serde_json::from_str(request).map_err(|error| {
        format!("{error}; ask for {{\"ask\":\"status\"}}, \"topology\" or \"leave\"")
    })?;
    match ask {
        Ask::Status => Ok(status::<R>(driver)),
        Ask::Topology => driver.inspect(|machine, _| R::topology(machine)),
        Ask::Meaning { order, endpoint } => {
            let proposal = driver.inspect(|machine, _| R::meaning(machine, order, endpoint))?;
            Ok(json!({ "proposal": proposal }))
        }
        Ask::Order { proposal } => {
            let order = R::order(proposal).ok_or("orders are for seeds")?;
            driver.submit(Input::Command(order));
            Ok(json!({ "taken": true }))
        }
        Ask::OrderState { proposal } => {
            let state = driver.inspect(|machine, _| R::order_state(machine, &proposal))?;
            serde_json::to_value(state).map_err(|error| error.to_string())
        }
        Ask::Leave => {
            let goodbye =
                R::goodbye().ok_or("a seed does not leave; stop it with Ctrl-C or SIGTERM")?;
            driver.submit(Input::Command(goodbye));
            Ok(json!({ "leaving": true }))
        }
    }
}

fn status<R: Role>(driver: &Driver<R::Machine>) -> Value {
    let (state, now) = driver.inspect(|machine, now| (R::status(machine), now));
    let mut fields = Map::new();
    fields.insert("role".to_owned(), R::NAME.into());
    fields.insert("pid".to_owned(), std::process::id().into());
    fields.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    fields.insert("uptime_ms".to_owned(), (now.mono.as_micros() / 1_000).into());
    if let Value::Object(state) = state {
        fields.extend(state);
    }
    let counters = driver.counters().each();
    let counters: Map<_, _> =
        counters.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    fields.insert("counters".to_owned(), counters.into());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_told_apart_by_ask() {
        let parse = |text| serde_json::from_str::<Ask>(text).ok();
        assert_eq!(parse(r#"{"ask":"status"}"#), Some(Ask::Status));
        assert_eq!(parse(r#"{"ask":"leave"}"#), Some(Ask::Leave));
        assert_eq!(parse(r#"{"ask":"explode"}"#), None);
        assert_eq!(parse("status"), None);
    }
}
