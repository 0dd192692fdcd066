//! Looks at the fleet: the node of this machine by its control socket, the seeds by their public
//! answers. Everything here may wait for others, so it runs in a thread of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use serde_json::{Value, json};

use super::args::TopArgs;
use super::decisions::{Decision, decisions_of};
use crate::cli::args::AskArgs;
use crate::cli::query::{
    FleetView, explain_text, explained, fleet_view, request_in, running_nodes,
};
use crate::cli::rollout::client::Client;
use crate::cli::rollout::format::table::NodeRow;
use crate::cli::{CliError, local_client, share};
use crate::model::entry::MemberState;
use crate::model::{Endpoint, Incarnation, WallTime};
use crate::proto::membership::{ExplainResp, MemberLine};
use crate::proto::rollout::NodeId;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Shortest interval between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Number of times as long as a look took that is waited before the next.
const PAUSES: u32 = 4;

/// Largest number of proofs that are fetched in one look.
const EXPLAINED_AT_ONCE: usize = 32;

/// Largest number of endpoints whose latest lives are shown as decisions.
const EXPLAINED_MAX: usize = 512;

/// Largest number of transactions that are asked for to know the shares of other states.
const HISTORY_MAX: usize = 100;

/// Number of waiting looks and questions; there is one of each at most.
const WAITING_MAX: usize = 2;

/// A life of a member in one of its states, whose proofs do not change.
type Life = (Endpoint, Incarnation, &'static str);

/// State of the node of this machine.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeView {
    /// Its status, as `peer status --json` prints it.
    pub(super) status: Value,
    /// Shares that it knows, and those of this machine.
    pub(super) shares: Vec<Value>,
    /// State of rollouts, if it takes part in them.
    pub(super) rollout: Option<RolloutView>,
}

/// State of rollouts in a fleet by one of its nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct RolloutView {
    /// Row of each node.
    pub(super) rows: Vec<NodeRow>,
    /// The last rollout that was begun.
    pub(super) progress: String,
    /// Share of the requests that the new version gets, in hundredths of a percent, while a rollout
    /// is under way.
    pub(super) share: Option<u32>,
    /// All of it, as `peer rollout status` prints it.
    pub(super) text: String,
}

/// Outcome of one look.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    /// Time of the look.
    pub(super) at: WallTime,
    /// The node of this machine, or the reason why it does not answer.
    pub(super) node: Result<NodeView, String>,
    /// The fleet by a seed, or the reason why none answers; `None` in a fleet without seeds.
    pub(super) fleet: Option<Result<FleetView, String>>,
    /// Decisions of the seeds, the latest first.
    pub(super) decisions: Vec<Decision>,
}

/// Answer of the thread that looks.
#[derive(Debug)]
pub(super) enum News {
    /// Outcome of a look.
    Sighting(Box<Sighting>),
    /// The proofs about an endpoint, or the reason why there are none.
    Explained(Endpoint, Result<String, String>),
}

/// State of what is looked at.
pub(super) struct Observer {
    args: TopArgs,
    /// Flags that ask the seed that answered last.
    last_seed: Option<AskArgs>,
    /// Directory of the node, once it was found.
    dir: Option<PathBuf>,
    explained: BTreeMap<Life, Vec<Decision>>,
    clock: Clock,
}

impl Observer {
    /// A state in which nothing was looked at.
    pub(super) fn new(args: &TopArgs) -> Self {
        let (last_seed, dir, explained) = (None, None, BTreeMap::new());
        Self { args: args.clone(), last_seed, dir, explained, clock: Clock::start() }
    }

    /// Looks at everything once.
    pub(super) fn look(&mut self) -> Sighting {
        let node = self.node();
        let fleet = self.fleet();
        let mut decisions: Vec<_> = self.explained.values().flatten().cloned().collect();
        decisions.sort_by_key(|it| (std::cmp::Reverse(it.at), it.endpoint));
        Sighting { at: self.clock.now().wall, node, fleet, decisions }
    }

    /// Explains why an endpoint is in or out, as `peer explain` does.
    pub(super) fn explain(&self, endpoint: Endpoint) -> Result<String, String> {
        let answer = explained(self.last_seed.as_ref().unwrap_or(&self.args.ask), endpoint);
        answer.map(|it| explain_text(&it)).map_err(|error| error.to_string())
    }

    fn node(&mut self) -> Result<NodeView, String> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => find(&self.args.data, self.args.port)?,
        };
        let status = Value::Object(request_in(&dir, &json!({ "ask": "status" }))?);
        self.dir = Some(dir.clone());
        // A peer begins with shares when it is first asked for them.
        let peer = (!status["shares"].is_null()).then_some(dir.as_path());
        let shares = share::known_shares(peer).unwrap_or_default();
        let rollout = status["rollout"]["node_id"].as_str().and_then(|name| self.rollout(name));
        Ok(NodeView { status, shares, rollout })
    }

    fn rollout(&self, name: &str) -> Option<RolloutView> {
        let nodes = local_client::running::<NodeId>(&self.args.data, "rollout-");
        let (_, dir) = nodes.into_iter().find(|(id, _)| id.to_string() == name)?;
        let client = Client { dir };
        let view = client.view().ok()?;
        let known = match view.needs_history() {
            true => client.history(HISTORY_MAX).ok()?.committed,
            false => Vec::new(),
        };
        Some(RolloutView {
            rows: view.rows(&known),
            progress: view.progress_text(),
            share: view
                .status()
                .and_then(|it| it.progress.as_ref()?.is_live().then(|| it.state.canary_share())),
            text: view.text(&known, false),
        })
    }

    fn fleet(&mut self) -> Option<Result<FleetView, String>> {
        let ask = &self.args.ask;
        if ask.at.is_none() && !ask.config.exists() {
            return None;
        }
        let choose = |members: &[MemberLine]| self.unknown(members);
        let seen = match &self.last_seed {
            Some(ask) => fleet_view(ask, choose),
            None => fleet_view(ask, choose),
        };
        Some(match seen {
            Ok(seen) => {
                self.last_seed = Some(AskArgs { at: Some(seen.seed.to_string()), ..ask.clone() });
                self.learn(&seen);
                Ok(seen)
            }
            // Another seed may answer.
            Err(_) if self.last_seed.take().is_some() => return self.fleet(),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Members with states whose proofs are not known here, the latest first.
    fn unknown(&self, members: &[MemberLine]) -> Vec<Endpoint> {
        let mut latest: Vec<_> = members.iter().collect();
        latest.sort_by_key(|it| std::cmp::Reverse(it.since));
        let unknown = latest.into_iter().take(EXPLAINED_MAX);
        let unknown = unknown.filter(|it| !self.explained.contains_key(&life(it)));
        unknown.map(|it| it.endpoint).take(EXPLAINED_AT_ONCE).collect()
    }

    /// Keeps the proofs of those that are members, or went lately.
    fn learn(&mut self, seen: &FleetView) {
        let by_endpoint: BTreeMap<Endpoint, &ExplainResp> =
            seen.explained.iter().map(|it| (it.endpoint, it)).collect();
        let lives: BTreeMap<Life, Endpoint> =
            seen.members.iter().map(|it| (life(it), it.endpoint)).collect();
        self.explained.retain(|life, _| lives.contains_key(life));
        for (life, endpoint) in lives {
            if let Some(answer) = by_endpoint.get(&endpoint) {
                self.explained.insert(life, decisions_of(answer));
            }
        }
    }
}

fn life(member: &MemberLine) -> Life {
    (member.endpoint, member.incarnation, MemberState::as_str(member.status))
}

/// The directory of the node on `port`, or of the first peer or seed that runs here.
fn find(data: &Path, port: Option<u16>) -> Result<PathBuf, String> {
    const ROLES: [&str; 2] = ["peer", "seed"];
    let Some(port) = port else {
        // A peer carries more than a seed.
        let found = ROLES.iter().find_map(|role| running_nodes(data, &[*role]).into_iter().next());
        let data = data.display();
        return found.ok_or_else(|| format!("no node runs with its data in {data}"));
    };
    let found = ROLES.map(|role| data.join(format!("{role}-{port}")));
    let found = found.into_iter().find(|dir| dir.exists());
    found.ok_or_else(|| format!("no node with port {port} has its data in {}", data.display()))
}

/// Channels to the thread that looks: endpoints to explain, and its answers.
pub(super) type Channels = (Sender<Endpoint>, Receiver<News>);

/// Begins to look about once a second, and less often if the answers take long. The thread ends
/// with the process.
///
/// # Errors
/// Fails if there is no room for a thread.
pub(super) fn start(mut observer: Observer) -> Result<Channels, CliError> {
    let (ask, asked) = bounded::<Endpoint>(WAITING_MAX);
    let (tell, told) = bounded(WAITING_MAX);
    let run = move || {
        loop {
            let begun = observer.clock.now().mono;
            let sighting = observer.look();
            let taken = observer.clock.now().mono.since(begun);
            let next = after(EVERY.max(taken * PAUSES));
            if tell.send(News::Sighting(Box::new(sighting))).is_err() {
                return;
            }
            loop {
                select! {
                    recv(asked) -> endpoint => {
                        let Ok(endpoint) = endpoint else { return };
                        let answer = News::Explained(endpoint, observer.explain(endpoint));
                        if tell.send(answer).is_err() {
                            return;
                        }
                    }
                    recv(next) -> _ => break,
                }
            }
        }
    };
    thread::spawn("look", run)
        .map_err(|source| CliError::System { action: "start a thread", source })?;
    Ok((ask, told))
}
