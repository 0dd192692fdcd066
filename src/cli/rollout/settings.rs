//! Settings of a node that rolls out: its flags, checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::args::{DecisionLogKind, Served};
use crate::cli::CliError;
use crate::cli::args::{HttpArg, PeerRunArgs};
use crate::model::Endpoint;
use crate::network::OrderedLog;
use crate::network::rollout::{DecisionStore, NodeOptions};
use crate::proto::rollout::{ModelId, NodeId, RoutingState};
use crate::runtime::cluster_key;
use crate::runtime::dataplane::Servers;
use crate::runtime::rollout::{AdmissionPolicy, HistoryBootstrap, NodeAddr};

/// Settings that a node is started with.
pub(in crate::cli) struct Settings {
    /// Settings of the node itself.
    pub(super) node: NodeOptions,
    /// Folder of the key and the control socket.
    pub(super) dir: PathBuf,
}

impl Settings {
    /// True if the flags say where the history begins: at nodes that they name.
    pub(in crate::cli) const fn is_placed(&self) -> bool {
        self.node.bootstrap.is_some()
    }

    /// Lets the order that this receives decide.
    pub(in crate::cli) fn decide_in(&mut self, order: Receiver<Arc<OrderedLog>>) {
        self.node.decisions = Some(DecisionStore::Order(order));
    }

    /// Checks the flags; with `is_in_fleet`, the node runs in a peer in any case.
    ///
    /// # Errors
    /// Fails if the flags do not fit; the text says what to type instead.
    pub(in crate::cli) fn new(args: &PeerRunArgs, is_in_fleet: bool) -> Result<Self, CliError> {
        let flags = &args.rollout;
        let missing = || CliError::Usage("a node needs --rollout and --port".to_owned());
        let me = flags.id.clone().ok_or_else(missing)?;
        let port = args.port.filter(|port| *port != 0).ok_or_else(missing)?;
        let Some(HttpArg::At(http)) = args.node.http else {
            return Err(CliError::Usage(
                "say where the data plane of this node listens: --http 127.0.0.1:50051".to_owned(),
            ));
        };
        let at = Endpoint::new(args.ip, port);
        if !at.is_callable() {
            return Err(CliError::Usage(format!(
                "others cannot call {}; name an address of this machine with --ip",
                args.ip
            )));
        }
        let cluster_keys = args.node.cluster_key.as_deref().map(cluster_key::read).transpose()?;
        if flags.decide_in_log.is_some() && cluster_keys.is_some() {
            return Err(CliError::Usage(
                "--decide-in-log cannot be used with --cluster-key; leave one of them out"
                    .to_owned(),
            ));
        }
        let dir = args.node.data.join(format!("rollout-{me}"));
        let in_chat = || DecisionStore::Chat {
            log_dir: flags.log_dir.join("decisions"),
            marker: dir.join("decisions.mark"),
        };
        let node = NodeOptions {
            at,
            http,
            servers: servers(&flags.serve, &flags.stable)?,
            plane_limits: flags.proxy.limits(),
            proxy: flags.proxy.options()?,
            initial: RoutingState::initial(flags.stable.clone(), flags.canary.clone()),
            bootstrap: bootstrap(args, &me, at, is_in_fleet)?,
            cluster_keys,
            log: flags.log_dir.join(format!("{me}.log")),
            servers_file: dir.join("servers.json"),
            decisions: (flags.decide_in_log == Some(DecisionLogKind::Chat)).then(in_chat),
            policy: if flags.admit_all {
                AdmissionPolicy::Anybody
            } else {
                AdmissionPolicy::Vouched
            },
            kill_at: flags.kill_at(),
            me,
        };
        Ok(Self { node, dir })
    }
}

fn servers(serve: &[Served], stable: &ModelId) -> Result<BTreeMap<ModelId, Servers>, CliError> {
    let mut all = BTreeMap::new();
    for Served { model, servers } in serve {
        let joined = match all.remove(model) {
            None => servers.clone(),
            Some(before) => Servers::join(before, servers.clone())
                .map_err(|reason| CliError::Usage(format!("--serve {model}: {reason}")))?,
        };
        all.insert(model.clone(), joined);
    }
    if !all.is_empty() && !all.contains_key(stable) {
        return Err(CliError::Usage(format!(
            "version {stable} is served first, and no --serve {stable}=URL says by whom; add it, \
             or name another version with --stable"
        )));
    }
    Ok(all)
}

fn bootstrap(
    args: &PeerRunArgs,
    me: &NodeId,
    at: Endpoint,
    is_in_fleet: bool,
) -> Result<Option<HistoryBootstrap>, CliError> {
    let flags = &args.rollout;
    // In a fleet, --join names a peer of the fleet.
    if !args.join.is_empty() && !is_in_fleet {
        return Ok(Some(HistoryBootstrap::Join(
            args.join.iter().map(ToString::to_string).collect(),
        )));
    }
    let places = match &flags.roster {
        Some(file) => read_roster(file)?,
        None => flags.node.clone(),
    };
    if places.is_empty() {
        return Ok(None);
    }
    if let Some(mine) = places.iter().find(|it| it.node_id == *me)
        && mine.port != at.port()
    {
        return Err(CliError::Usage(format!(
            "{me} is at port {} for the others, and --port says {}; make them the same",
            mine.port,
            at.port()
        )));
    }
    Ok(Some(HistoryBootstrap::By(places)))
}

fn read_roster(file: &Path) -> Result<Vec<NodeAddr>, CliError> {
    let wrong = |why: String| CliError::Usage(format!("the roster {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let mut places = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let place = line.parse::<NodeAddr>();
            let place = place.map_err(|error| wrong(format!("line {}: {error}", number + 1)))?;
            if places.iter().any(|it: &NodeAddr| it.node_id == place.node_id) {
                return Err(wrong(format!("line {}: {} stands twice", number + 1, place.node_id)));
            }
            places.push(place);
        }
    }
    if places.is_empty() {
        return Err(wrong("it names no node; write NAME=HOST:PORT on a line for each".to_owned()));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn settings(line: &str) -> Result<Settings, String> {
        let args = crate::cli::PeerArgs::try_parse_from(line.split_whitespace());
        Settings::new(&args.map_err(|error| error.to_string())?.run, false)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_is_named_and_placed() {
        let line = "peer --port 60001 --id node-a --http 127.0.0.1:50051 --node \
                    node-b=127.0.0.1:60002 --serve v1=http://127.0.0.1:9001 --serve v2=http://b:2";
        let it = settings(line).unwrap().node;
        assert_eq!((it.me.as_str(), it.at.port(), it.http.port()), ("node-a", 60_001, 50_051));
        assert_eq!(it.servers.len(), 2);
        assert!(matches!(&it.bootstrap, Some(HistoryBootstrap::By(places)) if places.len() == 1));
        assert_eq!(it.log, Path::new("data/logs/node-a.log"));
        let it =
            settings("peer --port 1 --id a --http [::1]:1 --join 127.0.0.1:60001").unwrap().node;
        assert!(matches!(it.bootstrap, Some(HistoryBootstrap::Join(_))));
        assert!(it.servers.is_empty(), "the built-in model answers for all");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_remedy() {
        let refused = |line: &str| settings(line).err().expect(line);
        assert!(refused("peer --port 1 --id a").contains("--http 127.0.0.1:50051"));
        assert!(refused("peer --port 1 --id a --http off").contains("--http 127.0.0.1:50051"));
        let base = "peer --port 1 --id a --http 127.0.0.1:5";
        let unserved = refused(&format!("{base} --serve v2=http://b:1"));
        assert!(unserved.contains("--serve v1=URL"), "{unserved}");
        assert!(refused(&format!("{base} --serve v1=http://")).contains("a server is like"));
        assert!(refused(&format!("{base} --node a=127.0.0.1:2")).contains("make them the same"));
        assert!(refused("peer --port 1 --serve v1=http://b:1").contains("--rollout"));
    }
}
