//! Answers of a running node to local programs: JSON in, JSON out, through its Unix socket.
//!
//! Only the owner of the data directory can connect. A refusal is `{"error": "…"}`.

use std::io;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::local_api::ApiRequest;
use super::role::{Api, LocalApi, OperatorAsk, Role};
use crate::cli::metrics::process::Process;
use crate::machine::Input;
use crate::machine::membership::authority::OperatorOrder;
use crate::model::Endpoint;
use crate::model::statement::Proposal;
use crate::runtime::control::{self, Control, ControlAnswer};
use crate::runtime::driver::Driver;
use crate::runtime::files::DataDir;
use crate::runtime::http::HttpCounters;

/// Request of a local program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum ControlRequest {
    /// The node's state.
    Status,
    /// The overlay as the node sees it.
    Topology,
    /// Say goodbye and stop.
    Leave,
    /// Meaning of an order about an endpoint at this moment.
    Meaning { order: OperatorOrder, endpoint: Endpoint },
    /// An order of a seed's operator.
    Order { proposal: Proposal },
    /// State of an order.
    OrderState { proposal: Proposal },
}

/// Serves the node's local commands until the returned server is dropped.
///
/// # Errors
/// Fails if the socket cannot be made.
pub(super) fn serve<R: Role>(
    dir: &DataDir,
    driver: &Arc<Driver<R::Machine>>,
    api: Api<R::Machine>,
    http: &Arc<HttpCounters>,
) -> io::Result<Control> {
    let (driver, http) = (Arc::clone(driver), Arc::clone(http));
    let handler = move |request: &str| {
        let answer = match serde_json::from_str::<ApiRequest>(request) {
            Ok(wanted) => match &api {
                Some(api) => api.begin(&driver, wanted),
                None => {
                    Err("a seed takes no part in messages; name the --port of a peer".to_owned())
                }
            },
            Err(_) => answer::<R>((&driver, &api), &http, request)
                .map(|it| ControlAnswer::Line(it.to_string())),
        };
        answer.unwrap_or_else(|error| ControlAnswer::Line(json!({ "error": error }).to_string()))
    };
    control::serve(dir, Arc::new(handler))
}

fn answer<R: Role>(
    (driver, api): (&Arc<Driver<R::Machine>>, &Api<R::Machine>),
    http: &HttpCounters,
    request: &str,
) -> Result<Value, String> {
    let ask: ControlRequest = serde_json::from_str(request).map_err(|error| {
        format!("{error}; ask for {{\"ask\":\"status\"}}, \"topology\" or \"leave\"")
    })?;
    match ask {
        ControlRequest::Status => Ok(status::<R>(driver, http, api.as_deref())),
        ControlRequest::Topology => R::answer(driver, OperatorAsk::Topology),
        ControlRequest::Meaning { order, endpoint } => {
            R::answer(driver, OperatorAsk::Meaning(order, endpoint))
        }
        ControlRequest::Order { proposal } => R::answer(driver, OperatorAsk::Order(proposal)),
        ControlRequest::OrderState { proposal } => {
            R::answer(driver, OperatorAsk::OrderState(proposal))
        }
        ControlRequest::Leave => {
            let goodbye =
                R::goodbye().ok_or("a seed does not leave; stop it with Ctrl-C or SIGTERM")?;
            // A leader of the chat hands over while it is a member still.
            if let Some(api) = api {
                api.stop();
            }
            driver.submit(Input::Command(goodbye));
            Ok(json!({ "leaving": true }))
        }
    }
}

/// Whole status of a node; the node stands still for a copy of its state only.
pub(super) fn status<R: Role>(
    driver: &Driver<R::Machine>,
    http: &HttpCounters,
    api: Option<&dyn LocalApi<R::Machine>>,
) -> Value {
    let (state, now) = driver.inspect(|machine, now| (R::status(machine), now));
    let mut fields = Map::new();
    fields.insert("role".to_owned(), R::NAME.into());
    fields.insert("pid".to_owned(), std::process::id().into());
    fields.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    fields.insert("uptime_ms".to_owned(), (now.mono.as_micros() / 1_000).into());
    if let Ok(Value::Object(state)) = serde_json::to_value(state) {
        fields.extend(state);
    }
    fields.insert("http".to_owned(), json!(http.metrics()));
    fields.extend(api.map(LocalApi::status).unwrap_or_default());
    fields.insert("process".to_owned(), json!(Process::look()));
    let levels = driver.counters().levels();
    let levels: Map<_, _> =
        levels.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    fields.insert("queues".to_owned(), levels.into());
    let counters = driver.counters().each();
    let counters: Map<_, _> =
        counters.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    fields.insert("counters".to_owned(), counters.into());
    let mut status = Value::Object(fields);
    let health = health(&status);
    status["healthy"] = health.is_ok().into();
    if let Err(reason) = health {
        status["trouble"] = reason.into();
    }
    status
}

/// Checks that a member is linked with a seed, and with a neighbor if there are other members.
fn reach(status: &Value) -> Result<(), String> {
    let others = status["members_known"].as_u64().unwrap_or(0);
    let is_none = |name: &str| match &status[name] {
        Value::Array(list) => list.is_empty(),
        Value::Object(list) => list.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if status["seeds_configured"].as_u64() > Some(0) && is_none("seeds") {
        return Err("no seed is in reach: nobody can join, and a death is not decided".to_owned());
    }
    if others > 0 && is_none("neighbors") {
        return Err(format!(
            "no neighbor, though {others} other members are known: either they cannot be called \
             from here, or this peer cannot be called from there"
        ));
    }
    if status["chat"]["quorum"] == false {
        return Err(
            "the chat reaches no majority of its members: no message becomes final".to_owned()
        );
    }
    let order = &status["order"];
    if let (Some(reached), Some(needed)) = (order["reached"].as_u64(), order["quorum"].as_u64())
        && reached < needed
    {
        let silent = match order["silent_members"].as_array() {
            Some(ids) if !ids.is_empty() => {
                let ids: Vec<_> = ids.iter().map(|id| format!("peer_{id}")).collect();
                format!(" that vote ({} do not)", ids.join(", "))
            }
            Some(_) | None => String::new(),
        };
        return Err(format!(
            "the order reaches {reached} of {} members{silent}, {needed} are needed: nothing \
             becomes final",
            order["members"]
        ));
    }
    if let Some(reason) = order["silent"].as_str() {
        return Err(format!("this member of the order does not vote: {reason}"));
    }
    if let Some(other) = status["chat"]["other_group"].as_str() {
        return Err(format!(
            "the chat is split into two groups, each with an order of its own: {other}"
        ));
    }
    Ok(())
}

/// Checks whether a node with this status does its part.
///
/// # Errors
/// The reason why it does not.
pub(super) fn health(status: &Value) -> Result<(), String> {
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    let state = status["state"].as_str().unwrap_or_default();
    if status["role"] == "peer" {
        return match state {
            "member" => reach(status),
            "joining" => {
                Err("none of the peers to join by was met yet; it goes on trying".to_owned())
            }
            _ => Err(format!("this peer is no member; it is {state}")),
        };
    }
    let (connected, quorum) = (number("seeds_connected"), number("quorum"));
    if connected < quorum {
        return Err(format!("no quorum: {connected} seeds in reach, and {quorum} decide"));
    }
    if status["ready"] != true {
        return Err("this seed does not vote yet: it compares its registry first".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_do_its_part_says_why() {
        let peer = |state| health(&json!({ "role": "peer", "state": state }));
        assert_eq!(peer("member"), Ok(()));
        let member = |seeds: &[u8], others: u64, neighbors: Value| {
            health(&json!({
                "role": "peer", "state": "member", "seeds": seeds, "seeds_configured": 3,
                "members_known": others, "neighbors": neighbors,
            }))
        };
        assert_eq!(member(&[1], 0, json!({})), Ok(()), "the first member");
        assert_eq!(member(&[1], 2, json!({ "127.0.0.1:6001": 100 })), Ok(()));
        assert!(member(&[1], 2, json!({})).unwrap_err().contains("no neighbor, though 2"));
        assert!(member(&[], 0, json!({})).unwrap_err().contains("no seed"));
        let chat = json!({ "role": "peer", "state": "member", "chat": { "quorum": false } });
        assert!(health(&chat).unwrap_err().contains("no majority"));
        let chat = json!({ "role": "peer", "state": "member", "chat": { "other_group": "x" } });
        assert!(health(&chat).unwrap_err().contains("two groups"));
        let order = |reached, silent: Value| {
            let order = json!({ "reached": reached, "quorum": 3, "members": 4, "silent": silent });
            health(&json!({ "role": "peer", "state": "member", "order": order }))
        };
        assert_eq!(order(3, Value::Null), Ok(()));
        assert!(order(2, Value::Null).unwrap_err().contains("2 of 4 members, 3 are needed"));
        assert!(order(4, "its log is gone".into()).unwrap_err().contains("its log is gone"));
        assert!(peer("asking").unwrap_err().contains("asking"));
        let seed = |connected, ready| {
            health(&json!({
                "role": "seed", "seeds_connected": connected, "quorum": 2, "ready": ready,
            }))
        };
        assert_eq!(seed(2, true), Ok(()));
        assert!(seed(1, true).unwrap_err().contains("no quorum: 1 seeds"));
        assert!(seed(3, false).unwrap_err().contains("does not vote"));
    }

    #[test]
    fn questions_are_told_apart_by_ask() {
        let parse = |text| serde_json::from_str::<ControlRequest>(text).ok();
        assert_eq!(parse(r#"{"ask":"status"}"#), Some(ControlRequest::Status));
        assert_eq!(parse(r#"{"ask":"leave"}"#), Some(ControlRequest::Leave));
        assert_eq!(parse(r#"{"ask":"explode"}"#), None);
        assert_eq!(parse("status"), None);
    }
}
