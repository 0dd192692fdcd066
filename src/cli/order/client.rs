//! `peer order append`, `follow`, `proof`, `status`, `evidence`, `suspect` and `members`, by the
//! member that runs here; and `keygen`, before it runs.

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use serde_json::Value;

use super::args::{
    MembersChange, OrderAppendArgs, OrderAskArgs, OrderFollowArgs, OrderKeygenArgs,
    OrderMembersArgs, OrderProofArgs,
};
use super::local_server::{OrderRequest, TEXTS_MAX};
use super::service::member_keys;
use crate::cli::output::print;
use crate::cli::text::escape;
use crate::cli::{CliError, local_client};
use crate::model::Endpoint;
use crate::proto::bft::{MembershipChange, roster};
use crate::proto::chat::entry::MemberId;
use crate::runtime::files::{DataDir, control_path};
use crate::runtime::{control, thread};

/// Time for an answer beyond the wait that was asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest number of bytes of the texts of one request.
const REQUEST_BYTES: usize = 1 << 20;

/// Action of all questions, in errors.
const ASK: &str = "ask the member of an order that runs here";

/// Shows the status of the member here.
///
/// # Errors
/// Fails if none runs here, or it does not answer; so for all of these.
pub(super) fn status(args: &OrderAskArgs) -> Result<(), CliError> {
    show(args, &OrderRequest::Status)
}

/// Shows the members that have lied.
pub(super) fn evidence(args: &OrderAskArgs) -> Result<(), CliError> {
    show(args, &OrderRequest::Evidence)
}

/// Wishes for the next leader.
pub(super) fn suspect(args: &OrderAskArgs) -> Result<(), CliError> {
    show(args, &OrderRequest::Suspect)
}

/// Consents to a change of the members.
pub(super) fn members(args: &OrderMembersArgs) -> Result<(), CliError> {
    let approvals = Vec::new();
    let (ask, change) = match &args.change {
        MembersChange::Add { line, ask } => {
            let member = roster::parse_line(&line.join(" ")).map_err(CliError::Usage)?;
            (ask, MembershipChange::Add { member, approvals })
        }
        MembersChange::Remove { id, ask } => {
            (ask, MembershipChange::Remove { member: MemberId(*id), approvals })
        }
    };
    show(ask, &OrderRequest::Consent { change })
}

/// Prints the proof of a place.
pub(super) fn proof(args: &OrderProofArgs) -> Result<(), CliError> {
    let wanted = OrderRequest::Proof { place: args.place };
    let answer = local_client::exchange(&find(&args.ask)?, &wanted, PATIENCE, ASK)?;
    // The proof is the same with and without --json: a line of JSON, whose bytes matter.
    print(&format!("{}\n", answer["lines"][0].as_str().unwrap_or_default()))
}

/// Proposes entries and prints their places; exit code 3 if some are not final in time, 4 if some
/// are refused.
pub(super) fn append(args: &OrderAppendArgs) -> Result<(), CliError> {
    let socket = control_path(&find(&args.ask)?);
    let mut outcome = Outcome::default();
    if args.texts.is_empty() || args.texts == ["-"] {
        let lines = lines()?;
        while let Ok(first) = lines.recv() {
            let mut texts = vec![first?];
            let mut bytes = texts[0].len();
            while texts.len() < TEXTS_MAX && bytes < REQUEST_BYTES {
                let Ok(text) = lines.try_recv() else { break };
                texts.push(text?);
                bytes += texts[texts.len() - 1].len();
            }
            outcome.append(&socket, texts, args)?;
        }
    } else {
        for texts in args.texts.chunks(TEXTS_MAX) {
            outcome.append(&socket, texts.to_vec(), args)?;
        }
    }
    match (outcome.refused, outcome.pending) {
        (0, 0) => Ok(()),
        (0, pending) => Err(CliError::Pending(pending)),
        (refused, pending) => Err(CliError::Refused { refused, pending }),
    }
}

/// Numbers of entries without a place.
#[derive(Default)]
struct Outcome {
    refused: usize,
    pending: usize,
}

impl Outcome {
    fn append(
        &mut self,
        socket: &std::path::Path,
        texts: Vec<String>,
        args: &OrderAppendArgs,
    ) -> Result<(), CliError> {
        let wait_ms = u64::try_from(args.wait.0.as_millis()).unwrap_or(u64::MAX);
        let mut left = texts.len();
        let wanted = OrderRequest::Append { texts, wait_ms };
        let (mut failed, mut refused) = (None, Vec::new());
        let asked = stream(socket, &wanted, |answer| {
            if let Some(error) = answer["error"].as_str() {
                failed = Some(CliError::Failed(escape(error)));
                return false;
            }
            left -= 1;
            if let Some(reason) = answer["refused"].as_str() {
                self.refused += 1;
                refused.push(escape(reason));
            } else if answer["pending"] == true {
                self.pending += 1;
            }
            let printed = match (args.ask.json, answer["place"].as_u64()) {
                (true, _) => print(&format!("{answer}\n")),
                (false, Some(place)) => print(&format!("{place}\n")),
                (false, None) => Ok(()),
            };
            failed = printed.err();
            left > 0 && failed.is_none()
        });
        for reason in refused {
            // If standard error is closed, the exit code alone must do.
            let _ = writeln!(io::stderr().lock(), "not proposed: {reason}");
        }
        match failed {
            Some(error) => Err(error),
            None if left == 0 => Ok(()),
            None => Err(asked.err().unwrap_or_else(|| {
                let text = "the member stopped before all entries were final";
                CliError::Unanswered(text.to_owned())
            })),
        }
    }
}

/// Lines of standard input, without their ends, as they come.
fn lines() -> Result<Receiver<Result<String, CliError>>, CliError> {
    let (tell, told) = bounded(TEXTS_MAX);
    let read = move || {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|source| CliError::System { action: "read the input", source });
            let is_over = line.is_err();
            if tell.send(line).is_err() || is_over {
                return;
            }
        }
    };
    thread::spawn("input", read)
        .map_err(|source| CliError::System { action: "start a thread", source })?;
    Ok(told)
}

/// Prints the entries from a place on.
pub(super) fn follow(args: &OrderFollowArgs) -> Result<(), CliError> {
    let dir = find(&args.ask)?;
    let wanted = OrderRequest::Follow { from: args.from, proofs: args.proofs };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut outcome = Ok(());
    stream(&control_path(&dir), &wanted, |entry| {
        if let Some(error) = entry["error"].as_str() {
            outcome = Err(CliError::Failed(escape(error)));
            return false;
        }
        outcome = print(&if args.ask.json { format!("{entry}\n") } else { line(&entry) });
        left -= 1;
        left > 0 && outcome.is_ok()
    })?;
    outcome?;
    if left > 0 {
        return Err(CliError::Failed(format!("the member in {} has stopped", dir.display())));
    }
    Ok(())
}

/// An entry for people.
fn line(entry: &Value) -> String {
    let author = u32::try_from(entry["author"].as_u64().unwrap_or_default()).unwrap_or_default();
    let text = entry["certificate"].as_str().or_else(|| entry["text"].as_str());
    let text = match (text, entry["data"].as_str()) {
        (Some(text), _) => escape(text),
        (None, data) => format!("(bytes) {}", data.unwrap_or_default()),
    };
    format!("[{}] {}: {text}\n", entry["place"], MemberId(author))
}

/// Makes the key of a member that has none, and prints its line of the roster.
pub(super) fn keygen(args: &OrderKeygenArgs) -> Result<(), CliError> {
    let at = Endpoint::new(args.ip, args.port);
    if !at.is_callable() {
        let text = format!("others cannot call {at}; name an address of this machine with --ip");
        return Err(CliError::Usage(text));
    }
    let dir = DataDir::open(&args.data, "order", args.port)?;
    let keys = member_keys(&dir, &args.data, args.port)?;
    print(&format!("{} {at} {}\n", args.id, keys.public()))?;
    let hint = "put this line into the roster, with those of all other members, on every machine";
    // The hint may be lost: the line has been printed.
    let _ = writeln!(io::stderr().lock(), "{hint}");
    Ok(())
}

fn show(args: &OrderAskArgs, wanted: &OrderRequest) -> Result<(), CliError> {
    let answer = local_client::exchange(&find(args)?, wanted, PATIENCE, ASK)?;
    if args.json {
        return print(&format!("{}\n", answer["json"]));
    }
    let lines = answer["lines"].as_array().map_or(&[][..], Vec::as_slice);
    print(&lines.iter().filter_map(Value::as_str).map(|it| format!("{it}\n")).collect::<String>())
}

/// Hands each line of an answer to `take`, until that wants no more.
fn stream(
    socket: &std::path::Path,
    wanted: &OrderRequest,
    mut take: impl FnMut(Value) -> bool,
) -> Result<(), CliError> {
    let system = |source| CliError::System { action: ASK, source };
    let request = serde_json::to_string(wanted).map_err(|error| system(error.into()))?;
    let mut broken = None;
    let followed =
        control::follow(socket, &request, PATIENCE, |line| match serde_json::from_str(line) {
            Ok(value) => take(value),
            Err(error) => {
                broken = Some(system(error.into()));
                false
            }
        });
    match (broken, followed) {
        (Some(error), _) => Err(error),
        (None, Err(error)) if control::may_be_done(&error) => {
            Err(CliError::Unanswered(escape(&error.to_string())))
        }
        (None, Err(error)) => Err(system(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// Directory of the member to ask.
fn find(args: &OrderAskArgs) -> Result<PathBuf, CliError> {
    let data = args.data.display();
    if let Some(port) = args.port {
        let dir = args.data.join(format!("order-{port}"));
        if control::is_served(&control_path(&dir)) {
            return Ok(dir);
        }
        return Err(CliError::Failed(format!(
            "no member of an order runs on port {port} with --data {data}; start it: peer --data \
             {data} --port {port} --order roster.txt"
        )));
    }
    let mut found = local_client::running::<u16>(&args.data, "order-");
    match found.len() {
        0 => Err(CliError::Failed(format!(
            "no member of an order runs with --data {data}; start one: peer --data {data} \
             --port 6001 --order roster.txt"
        ))),
        1 => Ok(found.swap_remove(0).1),
        _ => {
            let ports: Vec<_> = found.iter().map(|(port, _)| port.to_string()).collect();
            let ports = ports.join(", ");
            Err(CliError::Usage(format!("several run here: name one of {ports} with --port")))
        }
    }
}
