//! Settings: the flags, checked against `config.txt`; the only form that the rest of the program
//! uses.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{ConnectionArgs, HttpArg, NodeArgs, PeerRunArgs, SeedRunArgs};
use super::config;
use super::error::CliError;
use super::log::LogSettings;
use crate::machine::membership::seedbook::{SeedAddress, SeedBook};
use crate::machine::quorum::QuorumRule;
use crate::machine::session;
use crate::model::{Endpoint, PublicKey, SeedId};
use crate::node::{PeerConfig, SeedConfig};
use crate::proto::hello::NodeInfo;
use crate::proto::sealed::ClusterKeys;
use crate::runtime::cluster_key;
use crate::runtime::driver::options::ConnectionLimits;
use crate::runtime::http::Access;

/// Settings of every node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// IP address to listen at.
    pub ip: IpAddr,
    /// Port to listen at; 0 for a peer whose port the system chooses.
    pub port: u16,
    /// File that the seeds were read from, for messages.
    pub config: PathBuf,
    /// The seeds, in the order of the file.
    pub seeds: Vec<SeedAddress>,
    /// Rule for the number of seeds that decide.
    pub rule: QuorumRule,
    /// Folder of the data directories.
    pub data: PathBuf,
    /// Settings of the log.
    pub log: LogSettings,
    /// True if the end of standard input ends the node.
    pub until_stdin_closes: bool,
    /// Limits of the driver.
    pub limits: ConnectionLimits,
    /// The name of the fleet, if one was typed.
    pub fleet: Option<String>,
    /// The keys of the fleet, if it has any.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Clients that are answered over HTTP, if any.
    pub http: Option<Access>,
}

impl NodeSettings {
    /// The seeds as the machines know them.
    pub fn book(&self) -> SeedBook {
        SeedBook::new(self.rule, &self.seeds)
    }
}

/// Settings of a seed.
#[derive(Clone, Debug)]
pub struct SeedSettings {
    /// Number of the seed.
    pub id: SeedId,
    /// Settings of every node.
    pub node: NodeSettings,
    /// The periods and limits of its machines.
    pub machines: SeedConfig,
}

/// Settings of a peer.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// Settings of every node.
    pub node: NodeSettings,
    /// Peers to call first, in a fleet without seeds; `None` in one with seeds.
    pub bootstrap: Option<Vec<Endpoint>>,
    /// The periods and limits of its machines.
    pub machines: PeerConfig,
    /// Largest sum, in bytes, of all shares that are taken because they are ordered for all peers.
    pub push_max: u64,
}

impl SeedSettings {
    /// Checks the flags.
    ///
    /// # Errors
    /// Fails if `config.txt` cannot be used, or has another address for this seed.
    pub fn from_args(args: &SeedRunArgs) -> Result<Self, CliError> {
        let file = &args.node.config;
        let seeds = config::read(file)?;
        let own = config::seat(file, &seeds, (args.id.unwrap_or_default(), args.ip, args.port))
            .map_err(CliError::Usage)?;
        let (id, ip, port) = (own.id, own.endpoint.ip(), own.endpoint.port());
        let limits = &args.limits;
        check_counts(
            &args.node,
            &[
                ("--members-max", limits.members_max),
                ("--admissions-max", limits.admissions_max),
                ("--neighbors-max", limits.neighbors_max),
                ("--requests-burst", limits.requests_burst as usize),
                ("--requests-per-second", limits.requests_per_second as usize),
            ],
        )?;
        Ok(Self {
            id,
            node: node_settings(&args.node, (ip, port), seeds)?,
            machines: args.machines(),
        })
    }

    /// Checks that the key on disk is the pinned one, if one is pinned.
    ///
    /// # Errors
    /// Fails if `config.txt` pins another key: no node would believe this seed.
    pub fn check_key(&self, key: PublicKey, dir: &Path) -> Result<(), CliError> {
        let own = self.node.seeds.iter().find(|seed| seed.id == self.id);
        match own.and_then(|seed| seed.key) {
            Some(pinned) if pinned != key => Err(CliError::Usage(format!(
                "{} pins the key {pinned} for seed {}, but {}/identity.key is the key {key}; \
                 restore the key file, or pin the new key in the config file of every node",
                self.node.config.display(),
                self.id,
                dir.display(),
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

impl PeerSettings {
    /// Checks the flags.
    ///
    /// # Errors
    /// Fails if `config.txt` cannot be used, or the address is not one for a peer.
    pub fn from_args(args: &PeerRunArgs) -> Result<Self, CliError> {
        let (ip, port) = (args.ip, args.port.unwrap_or_default());
        config::check_ip(ip).map_err(|reason| CliError::Usage(format!("--ip {reason}")))?;
        let bootstrap = (args.open || !args.join.is_empty()).then(|| args.join.clone());
        if let Some(no_place) = args.join.iter().find(|it| !it.is_callable()) {
            return Err(CliError::Usage(format!(
                "--join {no_place} cannot be called: it takes the address and port of one peer"
            )));
        }
        let seeds = match bootstrap {
            Some(_) => Vec::new(),
            None => config::read(&args.node.config)?,
        };
        let typed = Endpoint::new(ip, port);
        if let Some(seed) = seeds.iter().find(|seed| seed.endpoint == typed) {
            return Err(CliError::Usage(format!(
                "{typed} is the address of seed {} in {}; choose another --port for a peer",
                seed.id,
                args.node.config.display(),
            )));
        }
        check_counts(&args.node, &[("--gossip-seen-max", args.limits.gossip_seen_max)])?;
        check_periods(args)?;
        let mut common = args.node.clone();
        if args.rollout.id.is_some() && matches!(common.http, Some(HttpArg::At(_))) {
            // It is the address of the data plane.
            common.http = None;
        }
        let node = node_settings(&common, (ip, port), seeds)?;
        let push_max = if args.limits.no_push { 0 } else { args.limits.push_max.0 };
        Ok(Self { node, bootstrap, machines: args.machines(), push_max })
    }
}

fn check_periods(args: &PeerRunArgs) -> Result<(), CliError> {
    let limits = &args.limits;
    let contradiction = if limits.links == 0 {
        "--links 0 would leave this peer alone; it takes at least 1, and 2 to bear a loss"
    } else if limits.links > limits.links_max {
        "--links is above --links-max; raise the one or lower the other"
    } else if limits.links_max > NodeInfo::NEIGHBORS_MAX {
        "--links-max is above 256; others refuse the cards and lists of a peer with more neighbors"
    } else if limits.backoff_min > limits.backoff_max {
        "--backoff-min is above --backoff-max; raise the one or lower the other"
    } else if limits.unreachable_after.0 < Duration::from_secs(1) {
        "--unreachable-after is below a second; a link may well be silent for that long"
    } else if limits.gossip_hold > limits.gossip_remember {
        "--gossip-hold is above --gossip-remember: what is forgotten would be taken for new"
    } else {
        return Ok(());
    };
    Err(CliError::Usage(contradiction.to_owned()))
}

/// Refuses limits of zero, which would lock out every node.
fn check_counts(node: &NodeArgs, more: &[(&str, usize)]) -> Result<(), CliError> {
    let ConnectionArgs { silent_max, unproven_max, connections_max, dials_max, .. } =
        node.connections;
    let counts = [
        ("--silent-max", silent_max),
        ("--unproven-max", unproven_max),
        ("--connections-max", connections_max),
        ("--dials-max", dials_max),
    ];
    match counts.iter().chain(more).find(|(_, count)| *count == 0) {
        Some((flag, _)) => {
            Err(CliError::Usage(format!("{flag} 0 would lock everybody out; it takes at least 1")))
        }
        None => Ok(()),
    }
}

fn node_settings(
    args: &NodeArgs,
    (ip, port): (IpAddr, u16),
    seeds: Vec<SeedAddress>,
) -> Result<NodeSettings, CliError> {
    let connections = &args.connections;
    let log =
        LogSettings { output: args.output.clone(), format: args.log_format, level: args.log_level };
    let cluster_keys = args.cluster_key.as_deref().map(cluster_key::read).transpose()?;
    Ok(NodeSettings {
        ip,
        port,
        config: args.config.clone(),
        seeds,
        rule: args.quorum.into(),
        data: args.data.clone(),
        log,
        fleet: args.fleet.clone(),
        until_stdin_closes: args.until_stdin_closes,
        limits: ConnectionLimits {
            handshake_timeout: connections.opening_timeout.0,
            write_timeout: connections.write_timeout.0,
            silent_max: connections.silent_max,
            links_max: connections.connections_max,
            dials_max: connections.dials_max,
            ..ConnectionLimits::default()
        },
        http: http_access(args.http, cluster_keys.is_some())?,
        cluster_keys,
    })
}

/// Clients that are answered over HTTP. By default, a fleet with a cluster key answers only
/// programs of the same machine.
fn http_access(typed: Option<HttpArg>, has_key: bool) -> Result<Option<Access>, CliError> {
    match typed {
        Some(HttpArg::Any) => Ok(Some(Access::Any)),
        Some(HttpArg::Loopback) => Ok(Some(Access::Loopback)),
        Some(HttpArg::Off) => Ok(None),
        Some(HttpArg::At(at)) => Err(CliError::Usage(format!(
            "--http {at} is where the data plane of a node that rolls out listens; give it a name \
             with --rollout, or use --http any, loopback or off"
        ))),
        None if has_key => Ok(Some(Access::Loopback)),
        None => Ok(Some(Access::Any)),
    }
}

const fn session_config(args: &ConnectionArgs) -> session::Config {
    session::Config {
        handshake_timeout: args.handshake_timeout.0,
        keep_alive: args.keep_alive.0,
        unproven_max: args.unproven_max,
    }
}

impl SeedRunArgs {
    fn machines(&self) -> SeedConfig {
        let limits = &self.limits;
        let mut config =
            SeedConfig { session: session_config(&self.node.connections), ..SeedConfig::default() };
        let authority = &mut config.authority;
        authority.admission_timeout = limits.admission_timeout.0;
        authority.removal_timeout = limits.removal_timeout.0;
        authority.probe_timeout = limits.probe_timeout.0;
        authority.evidence_ttl = limits.evidence_ttl.0;
        authority.evidence_skew = limits.evidence_skew.0;
        authority.digest_interval = limits.digest_interval.0;
        authority.audit_interval = limits.audit_interval.0;
        authority.audit_after = limits.audit_after.0;
        authority.tombstone_ttl = limits.tombstone_ttl.0;
        authority.requests_burst = limits.requests_burst;
        authority.requests_per_second = limits.requests_per_second;
        authority.admissions_max = limits.admissions_max;
        authority.members_max = limits.members_max;
        authority.neighbors_max = limits.neighbors_max;
        config
    }
}

impl PeerRunArgs {
    fn machines(&self) -> PeerConfig {
        let limits = &self.limits;
        let mut config =
            PeerConfig { session: session_config(&self.node.connections), ..PeerConfig::default() };
        config.overlay.links = limits.links;
        config.overlay.links_max = limits.links_max;
        config.overlay.cooldown = limits.cooldown.0;
        config.gossip.interval = limits.gossip_interval.0;
        config.gossip.messages_max = limits.gossip_max;
        config.gossip.hold = limits.gossip_hold.0;
        config.gossip.remember = limits.gossip_remember.0;
        config.gossip.seen_max = limits.gossip_seen_max;
        config.liveness.ping_interval = limits.ping_interval.0;
        config.liveness.misses_max = limits.misses_max;
        config.liveness.probe_timeout = limits.probe_timeout.0;
        config.liveness.ask_interval = limits.ask_interval.0;
        config.liveness.host_ping_interval = limits.host_ping_interval.0;
        config.applicant.decision_timeout = limits.decision_timeout.0;
        config.applicant.backoff_min = limits.backoff_min.0;
        config.applicant.backoff_max = limits.backoff_max.0;
        config.applicant.refresh = limits.refresh.0;
        config.contacts.unreachable_after = limits.unreachable_after.0;
        config.broadcast.message_max = limits.message_max;
        config.direct.message_max = usize::try_from(limits.message_max).unwrap_or(usize::MAX);
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{PeerArgs, SeedArgs};

    const SEEDS: &str = "127.0.0.1:5001\n127.0.0.1:5002\n10.0.0.3:5003\n";

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.txt"), SEEDS).unwrap();
            Self(dir)
        }

        fn words(&self, line: &str) -> Vec<String> {
            let config = self.0.path().join("config.txt").display().to_string();
            let typed = line.split_whitespace().map(str::to_owned);
            typed.chain(["--config".to_owned(), config]).collect()
        }

        fn seed(&self, line: &str) -> Result<SeedSettings, String> {
            let args = SeedArgs::try_parse_from(self.words(line)).unwrap().run;
            SeedSettings::from_args(&args).map_err(|error| error.to_string())
        }

        fn peer(&self, line: &str) -> Result<PeerSettings, String> {
            let args = PeerArgs::try_parse_from(self.words(line)).unwrap().run;
            PeerSettings::from_args(&args).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn what_is_not_typed_is_the_default_of_the_machines() {
        let files = Files::new();
        let seed = files.seed("seed --id 1").unwrap();
        assert_eq!(format!("{:?}", seed.machines), format!("{:?}", SeedConfig::default()));
        let peer = files.peer("peer --port 6001").unwrap();
        assert_eq!(format!("{:?}", peer.machines), format!("{:?}", PeerConfig::default()));
        assert_eq!(format!("{:?}", peer.node.limits), format!("{:?}", ConnectionLimits::default()));
        assert_eq!(peer.node.book().quorum(), 2);
    }

    #[test]
    fn with_a_cluster_key_only_this_machine_is_told_unless_it_is_said() {
        assert_eq!(http_access(None, false).unwrap(), Some(Access::Any));
        assert_eq!(http_access(None, true).unwrap(), Some(Access::Loopback));
        assert_eq!(http_access(Some(HttpArg::Any), true).unwrap(), Some(Access::Any));
        assert_eq!(http_access(Some(HttpArg::Loopback), false).unwrap(), Some(Access::Loopback));
        assert_eq!(http_access(Some(HttpArg::Off), false).unwrap(), None);
    }

    #[test]
    fn a_seed_takes_its_address_from_the_file() {
        let node = Files::new().seed("seed --id 3").unwrap().node;
        assert_eq!((node.ip.to_string().as_str(), node.port), ("10.0.0.3", 5003));
        assert!(Files::new().seed("seed --id 3 --port 5003").is_ok());
    }

    #[test]
    fn a_seed_at_another_address_than_the_file_has_is_told_whose_it_is() {
        let files = Files::new();
        let refused = |line| files.seed(line).unwrap_err();
        let text = refused("seed --id 1 --port 5002");
        assert!(text.contains("127.0.0.1:5001 for seed 1") && text.contains("--id 2"), "{text}");
        let text = refused("seed --id 1 --port 7000");
        assert!(text.contains("not 127.0.0.1:7000"), "{text}");
        let text = refused("seed --id 4");
        assert!(text.contains("3 seeds") && text.contains("not 4"), "{text}");
    }

    #[test]
    fn a_peer_at_an_impossible_address_is_refused() {
        let files = Files::new();
        let text = files.peer("peer --port 5002").unwrap_err();
        assert!(text.contains("seed 2") && text.contains("--port"), "{text}");
        let text = files.peer("peer --port 6001 --ip 0.0.0.0").unwrap_err();
        assert!(text.contains("cannot be called"), "{text}");
    }

    #[test]
    fn periods_that_contradict_each_other_are_refused() {
        let files = Files::new();
        for flags in [
            "--links 0",
            "--links 9 --links-max 8",
            "--links-max 257",
            "--backoff-min 20s",
            "--gossip-hold 10m",
            "--dials-max 0",
        ] {
            assert!(files.peer(&format!("peer --port 6001 {flags}")).is_err(), "{flags}");
        }
    }
}
