//! `peer publish`, `subscribe`, `inbox`, `send` and `discover`: through a running peer of this
//! machine.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::local::{local, running};
use crate::cli::CliError;
use crate::cli::args::{
    ContentArgs, DiscoverArgs, InboxArgs, PublishArgs, SendArgs, SubscribeArgs, UseArgs,
};
use crate::cli::output::print;
use crate::cli::run::ApiRequest;
use crate::cli::text::escape;
use crate::model::{Data, MessageId};
use crate::runtime::control;
use crate::runtime::files::control_path;

/// Longest time of a peer without a sign of life.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Largest message that any peer takes, in bytes.
const CONTENT_MAX: u64 = 16 * 1_048_576;

/// Prints the messages of a topic as they come.
///
/// # Errors
/// Fails if no peer runs here, or it ends.
pub fn subscribe(args: &SubscribeArgs) -> Result<(), CliError> {
    let wanted = ApiRequest::Subscribe { topic: args.topic.clone() };
    follow(&args.through, &wanted, args.count, "origin")
}

/// Prints the direct messages as they come.
///
/// # Errors
/// Fails if no peer runs here, another program reads them, or the peer ends.
pub fn inbox(args: &InboxArgs) -> Result<(), CliError> {
    follow(&args.through, &ApiRequest::Inbox, args.count, "from")
}

fn follow(
    through: &UseArgs,
    wanted: &ApiRequest,
    count: Option<u64>,
    by: &str,
) -> Result<(), CliError> {
    let peer = peer_of(through)?;
    let mut left = count.unwrap_or(u64::MAX);
    let mut outcome = Ok(());
    put(&peer, wanted, |object| {
        if object.contains_key("ready") {
            // On standard error: the output is the messages alone.
            eprint_line(&format!("reading at {}; Ctrl-C ends it", name_of(&peer)));
            return true;
        }
        let is_message = object.contains_key("data");
        outcome = print(&match (through.json, is_message) {
            (true, _) => format!("{}\n", Value::Object(object)),
            (false, true) => {
                let who = object.get(by).and_then(Value::as_str).unwrap_or_default().to_owned();
                format!("{who}: {}\n", shown(&object))
            }
            (false, false) => {
                let missed = &object["missed"];
                eprint_line(&match object.get("of").and_then(Value::as_str) {
                    Some(origin) => format!("missed {missed} of {origin}"),
                    None => format!("{missed} messages were missed: this reads too slowly"),
                });
                return true;
            }
        });
        left -= u64::from(is_message);
        left > 0 && outcome.is_ok()
    })?;
    outcome?;
    if left > 0 {
        return Err(local(format!("the peer in {} has stopped", peer.display())));
    }
    Ok(())
}

/// Prints a line on standard error; if that is closed, no reader is left.
fn eprint_line(line: &str) {
    let _ = io::Write::write_fmt(&mut io::stderr().lock(), format_args!("{line}\n"));
}

/// The data as text for people.
fn shown(object: &Map<String, Value>) -> String {
    let data: Option<Data> =
        object.get("data").and_then(|it| serde_json::from_value(it.clone()).ok());
    let data = data.unwrap_or_else(|| Data::from(""));
    match std::str::from_utf8(&data) {
        Ok(text) => escape(text.trim_end_matches('\n')),
        Err(_) => format!("({} bytes that are no text)", data.len()),
    }
}

/// Publishes a message, and prints the number of peers known to have it.
///
/// # Errors
/// Fails if no peer runs here, the input cannot be read, or the peer refuses.
pub fn publish(args: &PublishArgs) -> Result<(), CliError> {
    let peer = peer_of(&args.through)?;
    if !args.lines {
        return publish_one(args, &peer, content(&args.content)?);
    }
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|source| CliError::System { action: "read the input", source })?;
        publish_one(args, &peer, Data::from(line.as_str()))?;
    }
    Ok(())
}

fn publish_one(args: &PublishArgs, peer: &Path, data: Data) -> Result<(), CliError> {
    let wait = if args.lines { Duration::ZERO } else { args.wait.0 };
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let wanted = ApiRequest::Publish { topic: args.topic.clone(), data, wait_ms };
    let (mut head, mut known) = (Map::new(), 0);
    put(peer, &wanted, |object| {
        if let Some(count) = object.get("known").and_then(Value::as_u64) {
            known = count;
        } else {
            head = object;
        }
        true
    })?;
    let pushed = head.get("pushed_to").and_then(Value::as_u64).unwrap_or(0);
    let id = head.get("id").cloned().unwrap_or_default();
    if args.through.json {
        let line = json!({ "id": id, "topic": args.topic, "pushed_to": pushed, "known": known });
        return print(&format!("{line}\n"));
    }
    let short = serde_json::from_value::<MessageId>(id).map(|id| id.short()).unwrap_or_default();
    let topic = escape(&args.topic);
    print(&match (known, wait.is_zero()) {
        (_, true) => format!("published {short} to {topic}\n"),
        (1, _) => format!("published {short} to {topic}; 1 peer is known to have it\n"),
        (_, _) => format!("published {short} to {topic}; {known} peers are known to have it\n"),
    })
}

/// Sends a message to one member, and waits for its outcome.
///
/// # Errors
/// Fails if it was not delivered, or the outcome is unknown.
pub fn send(args: &SendArgs) -> Result<(), CliError> {
    let peer = peer_of(&args.through)?;
    let (topic, data) = (args.topic.clone(), content(&args.content)?);
    let wanted = ApiRequest::Send { to: args.to, topic, data, retries: args.retries };
    let mut found = Map::new();
    put(&peer, &wanted, |object| {
        found = object;
        true
    })?;
    let is_taken = found.get("taken") == Some(&Value::Bool(true));
    if args.through.json {
        found.insert("to".to_owned(), json!(args.to));
        print(&format!("{}\n", Value::Object(found.clone())))?;
    } else if is_taken {
        let millis = found.get("after_ms").and_then(Value::as_f64).unwrap_or(0.0);
        print(&format!("{} took it, after {millis:.1} ms\n", args.to))?;
    }
    if is_taken {
        return Ok(());
    }
    let reason = found.get("reason").and_then(Value::as_str);
    Err(local(escape(reason.unwrap_or("the peer stopped before an answer came"))))
}

/// Shows the peers that can be found from here.
///
/// # Errors
/// Fails if no peer runs here.
pub fn discover(args: &DiscoverArgs) -> Result<(), CliError> {
    let peer = peer_of(&args.through)?;
    let mut found = Vec::new();
    put(&peer, &ApiRequest::Discover, |object| {
        found = object.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
        true
    })?;
    let mut text = String::new();
    for it in &found {
        if args.through.json {
            text += &format!("{it}\n");
        } else {
            let field = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
            text += &format!("{}  {}\n", field("endpoint"), field("key"));
        }
    }
    if found.is_empty() && !args.through.json {
        text = "nobody was found\n".to_owned();
    }
    print(&text)
}

/// Sends a request to a peer and passes each object of its answer to `take`.
///
/// # Errors
/// The reason of the peer's refusal, or that it does not answer.
pub(in crate::cli) fn put(
    peer: &Path,
    wanted: &ApiRequest,
    mut take: impl FnMut(Map<String, Value>) -> bool,
) -> Result<(), CliError> {
    let request = json!(wanted).to_string();
    let mut refused = None;
    let followed = control::follow(&control_path(peer), &request, SILENCE_MAX, |line| {
        match serde_json::from_str(line) {
            Ok(Value::Object(mut object)) => match object.remove("error") {
                None => take(object),
                Some(error) => {
                    refused = Some(error.as_str().unwrap_or("refused").to_owned());
                    false
                }
            },
            Ok(_) | Err(_) => {
                refused = Some("the peer gave no proper answer".to_owned());
                false
            }
        }
    });
    followed.map_err(|error| local(escape(&error.to_string())))?;
    refused.map_or(Ok(()), |reason| Err(local(escape(&reason))))
}

fn name_of(peer: &Path) -> String {
    let name = peer.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.replace('-', " ")
}

fn peer_of(through: &UseArgs) -> Result<PathBuf, CliError> {
    peer_at(&through.data, through.port)
}

/// Data directory of the peer with this port, or of the running one with the lowest port.
///
/// # Errors
/// Fails if none runs.
pub(in crate::cli) fn peer_at(root: &Path, port: Option<u16>) -> Result<PathBuf, CliError> {
    let data = root.display();
    if let Some(port) = port {
        let dir = root.join(format!("peer-{port}"));
        let is_seed = control_path(&root.join(format!("seed-{port}"))).exists();
        return if control_path(&dir).exists() {
            Ok(dir)
        } else if is_seed {
            Err(local(format!("port {port} is a seed's; name the port of a peer of this machine")))
        } else {
            Err(local(format!("no peer with port {port} runs with its data in {data}; start it")))
        };
    }
    let first = running(root, &["peer"]).into_iter().next();
    first.ok_or_else(|| {
        local(format!("no peer runs with its data in {data}; start one, or name its --data"))
    })
}

/// Data to be sent: the text, the file, or all of the input.
fn content(args: &ContentArgs) -> Result<Data, CliError> {
    if let Some(text) = &args.text {
        return Ok(Data::from(text.as_str()));
    }
    let mut bytes = Vec::new();
    let (source, what): (Box<dyn io::Read>, _) = match &args.file {
        None => (Box::new(io::stdin().lock()), "the input".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path)
                .map_err(|error| CliError::Usage(format!("{name}: cannot be opened: {error}")))?;
            (Box::new(file), name)
        }
    };
    source
        .take(CONTENT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| local(format!("cannot read {what}: {error}")))?;
    if bytes.len() as u64 > CONTENT_MAX {
        let text = format!("{what} is longer than a message can be; the most is 16 MiB");
        return Err(CliError::Usage(text));
    }
    Ok(bytes.into())
}
