//! `peer rollout …`: questions and orders to the node that runs here, and their answers as text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::args::{
    AdmitArgs, Admittee, ExplainTxArgs, HistoryArgs, NodeAskArgs, PromoteArgs, RemoveArgs,
    ResolveArgs, ServeArgs, Served, UnserveArgs, WatchArgs,
};
use super::client::{Client, understood};
use super::format::table::{View, named};
use super::format::timeline::Explained;
use super::format::{self, outcome};
use super::local_server::NodeRequest;
use super::start_args::StartArgs;
use super::watch;
use crate::cli::CliError;
use crate::cli::output::print;
use crate::machine::rollout::{Command, CommandResult, Phase, StartOrder};
use crate::model::PublicKey;
use crate::proto::rollout::{ModelId, NodeId, ServerChanges};

fn raw_text(value: &Value) -> String {
    format!("{value}\n")
}

/// Gives an order to the node, and prints its outcome.
///
/// # Errors
/// Fails if the order was refused or aborted.
pub(super) fn order(args: &NodeAskArgs, command: &Command) -> Result<(), CliError> {
    ordered(&Client::find(args)?, args, command).map(|_| ())
}

fn ordered(
    asked: &Client,
    args: &NodeAskArgs,
    command: &Command,
) -> Result<CommandResult, CliError> {
    let value = asked.raw(&NodeRequest::Order { order: command.clone() });
    let value = value.map_err(|error| {
        let CliError::System { source, .. } = error else { return error };
        // A transaction goes on without the process that asked for it.
        CliError::Failed(format!(
            "{source}; whether it was done or not, peer rollout history shows at any node (--id)"
        ))
    })?;
    conclude(args, command, value).map_err(|error| with_brake(asked, command, error))
}

/// Adds to the error of an abort or rollback that the brake is on, which stays until the way back
/// is committed.
fn with_brake(asked: &Client, command: &Command, error: CliError) -> CliError {
    let is_way_back = matches!(command, Command::Abort | Command::Rollback);
    let CliError::Failed(text) = &error else { return error };
    let view = asked.view().ok().filter(|_| is_way_back);
    let braked = view.as_ref().and_then(View::status).filter(|it| it.brake.is_some());
    let Some(status) = braked else { return error };
    CliError::Failed(format!(
        "{text}\nthe brake is on meanwhile: each node in reach sends all requests to {}, and the \
         way back follows by itself once all nodes can vote",
        status.state.stable_model_id
    ))
}

fn conclude(
    args: &NodeAskArgs,
    command: &Command,
    value: Value,
) -> Result<CommandResult, CliError> {
    if args.json {
        print(&raw_text(&value))?;
    }
    let answer: CommandResult = understood(value)?;
    let text = outcome(command, &answer).map_err(CliError::Failed)?;
    if !args.json {
        print(&text)?;
    }
    Ok(answer)
}

/// Begins a rollout, and follows it to its end with `--wait`.
pub(super) fn start(args: &StartArgs) -> Result<(), CliError> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let order = Command::Start(StartOrder {
        from: args.from.clone(),
        to: args.to.clone(),
        steps: args.steps.0.clone(),
        interval_ms: millis(args.interval.0),
        gates: args.gate.clone(),
        sticky: args.sticky(),
        samples_min: args.samples,
        window_ms: millis(args.window.0),
        warm_up_ms: millis(args.warm_up.map_or_else(|| usual_warm_up(args.interval.0), |it| it.0)),
        failures: args.failures,
        deadline_ms: args.deadline.map_or(0, |it| millis(it.0)),
        routes: args.routes().map_err(CliError::Usage)?,
        mirror: args.mirror(),
        same_servers: args.same_servers,
    });
    let asked = Client::find(&args.ask)?;
    let answer = ordered(&asked, &args.ask, &order)?;
    if let (CommandResult::Committed { version, .. }, true) = (answer, args.wait) {
        return watch::follow(&asked, version, args.ask.json);
    }
    Ok(())
}

/// Returns a third of the interval, at most 10 s, so that figures of a warm version are there
/// before the next step.
fn usual_warm_up(interval: Duration) -> Duration {
    (interval / 3).min(Duration::from_secs(10))
}

/// Takes the next step.
pub(super) fn promote(args: &PromoteArgs) -> Result<(), CliError> {
    let asked = Client::find(&args.ask)?;
    ordered(&asked, &args.ask, &Command::Promote { full: args.full })?;
    let view = asked.view()?;
    let progress = view.status().and_then(|it| it.progress.as_ref());
    if progress.is_some_and(|it| it.phase == Phase::Paused) && !args.ask.json {
        print("it stays paused: peer rollout resume lets steps be taken again\n")?;
    }
    Ok(())
}

/// Prints the status of all nodes, once or each second.
pub(super) fn status(args: &WatchArgs) -> Result<(), CliError> {
    let asked = Client::find(&args.ask)?;
    if args.watch {
        return watch::status(&asked, args.ask.json);
    }
    print(&watch::picture(&asked, args.ask.json, watch::is_terminal())?)
}

/// Prints the last committed and aborted transactions.
pub(super) fn history(args: &HistoryArgs) -> Result<(), CliError> {
    let asked = Client::find(&args.ask)?;
    if args.ask.json {
        return print(&raw_text(&asked.raw(&NodeRequest::History { count: args.count })?));
    }
    // One more, for the shares before the first that is shown.
    let history = asked.history(args.count.saturating_add(1))?;
    print(&history.text(args.count))
}

/// Prints the end of one transaction, and the log lines about it.
pub(super) fn explain(args: &ExplainTxArgs) -> Result<(), CliError> {
    let asked = Client::find(&args.ask)?;
    let value = asked.raw(&NodeRequest::Explain { txid: args.txid.clone() })?;
    if args.ask.json {
        print(&raw_text(&value))?;
    }
    let explained: Explained = understood(value)?;
    if !explained.is_known() {
        return Err(CliError::Failed(format!(
            "this node knows nothing of {}; peer rollout history lists what it knows, and another \
             node may know more (--id)",
            args.txid
        )));
    }
    if args.ask.json {
        return Ok(());
    }
    print(&explained.text(&asked.history(usize::MAX)?))
}

/// Ends a transaction that is stuck.
pub(super) fn resolve(args: &ResolveArgs) -> Result<(), CliError> {
    order(&args.ask, &Command::Resolve { txid: args.txid.clone(), commit: args.commit })
}

/// Lets a node take part.
pub(super) fn admit(args: &AdmitArgs) -> Result<(), CliError> {
    let asked = Client::find(&args.ask)?;
    let Admittee { node, key } = &args.node;
    let value = asked.raw(&NodeRequest::Admit { node: node.clone(), key: key.clone() })?;
    if args.ask.json {
        print(&raw_text(&value))?;
    }
    if value["vouched"] != true {
        let keys: Vec<PublicKey> = understood(value["keys"].clone())?;
        if !keys.is_empty() {
            let names: Vec<_> = keys.iter().map(|it| named(node, it)).collect();
            return Err(CliError::Failed(format!(
                "{} keys came under the name {node}; say which one is meant: peer rollout admit {}",
                keys.len(),
                names.join(", or ")
            )));
        }
        let view = asked.view()?;
        let takes_part = view.status().is_some_and(|it| it.roster.has(node));
        return Err(CliError::Failed(if !key.is_empty() && !takes_part {
            format!(
                "no key that begins with {key} came under the name {node}; peer rollout status \
                 shows which did"
            )
        } else if takes_part {
            format!(
                "{node} takes part already; if its machine was lost with its key, and another is \
                 to have its name: peer rollout remove {node} --gone --i-know, then admit it"
            )
        } else {
            format!(
                "{node} is not in reach of this node; start it with --join HOST:PORT of this node \
                 (of the control port, as --port says), and try again"
            )
        }));
    }
    if args.ask.json {
        return Ok(());
    }
    print(&format!("{node} may take part; it does once all nodes agree, see peer rollout status"))
}

/// Has servers answer for versions.
pub(super) fn serve(args: &ServeArgs) -> Result<(), CliError> {
    let mut changes = ServerChanges::new();
    for Served { model, servers } in &args.served {
        if changes.insert(model.clone(), Some(servers.to_string())).is_some() {
            return Err(CliError::Usage(format!(
                "{model} stands twice; name all of its servers in one, with commas"
            )));
        }
    }
    change_servers(&args.ask, changes, args.everywhere)
}

/// Has no server for versions any more.
pub(super) fn unserve(args: &UnserveArgs) -> Result<(), CliError> {
    let changes = args.versions.iter().map(|it| (it.clone(), None)).collect();
    change_servers(&args.ask, changes, args.everywhere)
}

fn change_servers(
    args: &NodeAskArgs,
    changes: ServerChanges,
    is_everywhere: bool,
) -> Result<(), CliError> {
    if is_everywhere {
        return order(args, &Command::Serve { changes });
    }
    let asked = Client::find(args)?;
    let value = asked.raw(&NodeRequest::Serve { changes })?;
    if args.json {
        return print(&raw_text(&value));
    }
    let node: NodeId = understood(value["node_id"].clone())?;
    let serves: BTreeMap<ModelId, String> = understood(value["serves"].clone())?;
    let names = format::list(serves.keys());
    print(&format!(
        "{node} serves {names} from now on, also after a restart; other nodes need servers of the \
         same versions: peer rollout serve NAME=URL --id NODE, or --everywhere\n"
    ))
}

/// Takes nodes out of the roster.
pub(super) fn remove(args: &RemoveArgs) -> Result<(), CliError> {
    let asked = Client::find(&args.ask)?;
    let nodes: BTreeSet<NodeId> = args.nodes.iter().cloned().collect();
    if args.gone {
        return ordered(&asked, &args.ask, &Command::Gone { nodes }).map(|_| ());
    }
    let [node] = &args.nodes[..] else {
        let text = "one node at a time: peer rollout remove NAME; or --gone for all that are";
        return Err(CliError::Usage(text.to_owned()));
    };
    let view = asked.view()?;
    let rest = view.status().map(|it| it.roster.nodes().filter(|it| it.node_id != *node));
    let rest = rest.map_or_else(String::new, |it| format::list(it.map(|it| &it.node_id)));
    let value = asked.raw(&NodeRequest::Remove { node: node.clone() })?;
    if args.ask.json {
        print(&raw_text(&value))?;
    }
    match understood(value)? {
        CommandResult::Committed { .. } if args.ask.json => Ok(()),
        CommandResult::Committed { txid, version } => {
            print(&format!("{node} takes part no more; {rest} do (version {version}, {txid})"))
        }
        answer @ (CommandResult::Aborted { .. } | CommandResult::Refused { .. }) => {
            // The words for a pause fit: nothing began.
            Err(CliError::Failed(outcome(&Command::Pause, &answer).err().unwrap_or_default()))
        }
    }
}
