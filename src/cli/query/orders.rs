//! `peer evict` and `peer unban`: orders of the operator of this machine's seeds.
//!
//! The order goes to every seed that runs with its data here; the seeds do the rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{after, select, tick};
use serde_json::{Value, json};

use super::local::{is_down, local, request_in};
use crate::cli::CliError;
use crate::cli::args::{EvictArgs, OperatorArgs, UnbanArgs};
use crate::cli::output::print;
use crate::cli::text::escape;
use crate::machine::membership::authority::OperatorOrder;
use crate::model::Endpoint;

/// Longest wait for the outcome of an order at the seeds of this machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// Interval of the checks of the outcome.
const LOOK: Duration = Duration::from_millis(25);

/// Ends a member's life, and keeps it out if that is ordered.
///
/// # Errors
/// Fails if no seed here takes the order, or a quorum has not got it yet.
pub fn evict(args: &EvictArgs) -> Result<(), CliError> {
    let (order, done) = if args.ban {
        (OperatorOrder::Ban, "is banned and out; neither it nor its key is let in again")
    } else {
        (
            OperatorOrder::Evict,
            "is evicted; if it lives it will register again, unless you ban it (--ban)",
        )
    };
    give(&args.operator, order, args.endpoint, done)
}

/// Lets a banned endpoint in again.
///
/// # Errors
/// As [`evict`].
pub fn unban(args: &UnbanArgs) -> Result<(), CliError> {
    give(&args.operator, OperatorOrder::Unban, args.endpoint, "may register again")
}

fn give(
    operator: &OperatorArgs,
    order: OperatorOrder,
    endpoint: Endpoint,
    done: &str,
) -> Result<(), CliError> {
    let request = json!({ "ask": "meaning", "order": order, "endpoint": endpoint });
    let (mut meanings, mut reasons) = (Vec::new(), Vec::new());
    let (down, running): (Vec<_>, Vec<_>) =
        seeds_of(&operator.data).into_iter().partition(|dir| is_down(dir));
    for dir in running {
        match request_in(&dir, &request) {
            Ok(mut answer) => meanings.push((dir, answer.remove("proposal").unwrap_or_default())),
            Err(reason) => reasons.push(reason),
        }
    }
    // First the order's meaning at each seed, and only then the order: the outcome at the first
    // seeds changes what the same words would mean to the last.
    let mut taken = Vec::new();
    for (dir, proposal) in meanings {
        match request_in(&dir, &json!({ "ask": "order", "proposal": proposal })) {
            Ok(_) => taken.push((dir, json!({ "ask": "order_state", "proposal": proposal }))),
            Err(reason) => reasons.push(reason),
        }
    }
    if taken.is_empty() {
        let data = operator.data.display();
        return Err(local(match reasons.first() {
            Some(reason) => escape(reason),
            None => {
                let down = down_text(&down);
                format!(
                    "no seed runs with its data in {data}{down}; give this order where the seeds \
                     run"
                )
            }
        }));
    }
    let state = await_outcome(&taken)?;
    let is_done = state["done"] == true;
    if operator.json {
        let line = json!({
            "order": order, "endpoint": endpoint, "done": is_done,
            "seeds": state["seeds"], "needed": state["needed"],
        });
        print(&format!("{line}\n"))?;
    } else if is_done {
        print(&format!("{endpoint} {done}\n"))?;
    }
    if is_done {
        return Ok(());
    }
    let (count, needed) = (state["seeds"].as_array().map_or(0, Vec::len), &state["needed"]);
    Err(local(format!(
        "not done yet: {count} of {needed} needed seeds want it; give the same order on the \
         machine of another seed within ten minutes{}",
        down_text(&down)
    )))
}

/// Names the seeds of this machine that could not be told.
fn down_text(down: &[PathBuf]) -> String {
    let names: Vec<_> = down.iter().filter_map(|dir| dir.file_name()?.to_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    format!("; seeds that do not run here: {}", escape(&names.join(", ")))
}

/// Waits until the order has come about, or cannot, or must wait for other seeds.
fn await_outcome(taken: &[(PathBuf, Value)]) -> Result<Value, CliError> {
    let (late, look) = (after(PATIENCE), tick(LOOK));
    loop {
        let mut states = Vec::new();
        for (dir, request) in taken {
            states.push(Value::Object(
                request_in(dir, request).map_err(|reason| local(escape(&reason)))?,
            ));
        }
        let is_done = |state: &Value| state["done"] == true;
        if states.iter().all(is_done) {
            return Ok(states.swap_remove(0));
        }
        select! {
            recv(late) -> _ => {
                let open = states.into_iter().find(|state| !is_done(state));
                return Ok(open.unwrap_or_default());
            }
            recv(look) -> _ => {}
        }
    }
}

/// The directories of the seeds of this machine.
fn seeds_of(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).into_iter().flatten().filter_map(Result::ok);
    let is_seed = |dir: &PathBuf| {
        let name = dir.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("seed-")) && dir.is_dir()
    };
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(is_seed).collect();
    found.sort();
    found
}
