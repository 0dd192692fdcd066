//! Settings of a network before its start.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;

use super::error::StartError;
use super::peer::{Network, Peer, Relay};
use super::shares::{Bounds, Sharing, Taking};
use super::subscriptions::Subscriptions;
use crate::machine::broadcast::MESSAGE_BYTES_MAX;
use crate::machine::membership::seedbook::{SeedAddress, SeedBook};
use crate::machine::quorum::QuorumRule;
use crate::model::{Endpoint, KeyPair, Rng, SeedId};
use crate::node::{PeerConfig, PeerNode};
use crate::proto::dialect::Dialect;
use crate::runtime::claimed_port::ClaimedPort;
use crate::runtime::cluster_key;
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::{DialectServers, DriverOptions};
use crate::runtime::files::os_rng;
use crate::runtime::journal::Journal;
use crate::runtime::thread;

/// Settings of a [`Network`] before it starts. All have defaults.
#[derive(Clone, Debug)]
pub struct Builder {
    listen: Result<SocketAddr, StartFault>,
    bootstrap: Result<Vec<Endpoint>, StartFault>,
    seeds: Result<Vec<Endpoint>, StartFault>,
    rule: QuorumRule,
    data: Option<PathBuf>,
    cluster_key: Option<PathBuf>,
    shares: Bounds,
    machines: PeerConfig,
}

/// An address that could not be parsed, as given, and the reason; kept until the start.
type StartFault = (String, String);

fn parse(given: impl Display) -> Result<Endpoint, StartFault> {
    let given = given.to_string();
    let parsed = given.parse::<Endpoint>();
    parsed.map_err(|_| (given, "write IP:PORT; host names are not looked up".to_owned()))
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)),
            bootstrap: Ok(Vec::new()),
            seeds: Ok(Vec::new()),
            rule: QuorumRule::Majority,
            data: None,
            cluster_key: None,
            shares: Bounds { taking: Taking::Apart, up: None, down: None },
            machines: PeerConfig::default(),
        }
    }
}

impl Network {
    /// A network to be configured and started.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Listen address `IP:PORT`, at which the others reach this peer; port 0 lets the system
    /// choose. The default is `127.0.0.1:0`.
    #[must_use]
    pub fn listen(mut self, address: impl Display) -> Self {
        self.listen = parse(address).map(|it| SocketAddr::new(it.ip(), it.port()));
        self
    }

    /// Peers to begin with, for a fleet without seeds. Those that do not answer are called again
    /// until they do; with none, this is the first peer of a new fleet.
    #[must_use]
    pub fn bootstrap<A: Display>(mut self, peers: impl IntoIterator<Item = A>) -> Self {
        self.bootstrap = peers.into_iter().map(parse).collect();
        self
    }

    /// The seeds of a fleet with certified members, in the order of its `config.txt`.
    #[must_use]
    pub fn seeds<A: Display>(mut self, seeds: impl IntoIterator<Item = A>) -> Self {
        self.seeds = seeds.into_iter().map(parse).collect();
        self
    }

    /// Rule for the number of seeds that decide; the same on all nodes of a fleet.
    #[must_use]
    pub const fn quorum(mut self, rule: QuorumRule) -> Self {
        self.rule = rule;
        self
    }

    /// Directory of identity and journal. Without one both end with the network.
    #[must_use]
    pub fn data(mut self, dir: impl AsRef<Path>) -> Self {
        self.data = Some(dir.as_ref().to_owned());
        self
    }

    /// File of the cluster key: links are encrypted, and only with its holders.
    #[must_use]
    pub fn cluster_key(mut self, file: impl AsRef<Path>) -> Self {
        self.cluster_key = Some(file.as_ref().to_owned());
        self
    }

    /// Takes the files and folders that other peers want everywhere, up to `bytes` in all, into
    /// [`Network::received`]. By default, and with 0, none is taken.
    #[must_use]
    pub const fn take_shares(mut self, bytes: u64) -> Self {
        let setting = "Builder::take_shares";
        self.shares.taking =
            if bytes == 0 { Taking::Apart } else { Taking::UpTo { bytes, setting } };
        self
    }

    /// Bytes a second that all shares together send (`up`) and receive (`down`), at most; `None`,
    /// the default, is no limit.
    #[must_use]
    pub const fn share_rates(mut self, up: Option<u64>, down: Option<u64>) -> Self {
        (self.shares.up, self.shares.down) = (up, down);
        self
    }

    /// Largest message in bytes, 1 to 16 MiB; the same on all nodes. The default is 1 MiB.
    #[must_use]
    pub const fn message_max(mut self, bytes: usize) -> Self {
        self.machines.broadcast.message_max = bytes as u64;
        self.machines.direct.message_max = bytes;
        self
    }

    /// Time without contact after which a peer counts as unreachable. The default is 30 s.
    #[must_use]
    pub const fn unreachable_after(mut self, span: Duration) -> Self {
        self.machines.contacts.unreachable_after = span;
        self
    }

    /// Sets all periods and limits of the machines, for experts.
    #[must_use]
    pub const fn machines(mut self, config: PeerConfig) -> Self {
        self.machines = config;
        self
    }

    /// Listens, and begins to join.
    ///
    /// Returns without waiting for other peers: see [`Network::wait_for_peers`].
    ///
    /// # Errors
    /// Fails if a setting is invalid, the port is taken, or the disk or the system refuses.
    pub fn start(self) -> Result<Network, StartError> {
        self.start_as(None)
    }

    /// As [`Self::start`], with these keys instead of those in its directory.
    pub(crate) fn start_as(self, keys: Option<KeyPair>) -> Result<Network, StartError> {
        let address = |(given, reason)| StartError::Address { given, reason };
        let listen = self.listen.map_err(address)?;
        let seeds = self.seeds.map_err(address)?;
        let bootstrap = self.bootstrap.map_err(address)?;
        if !seeds.is_empty() && !bootstrap.is_empty() {
            let text = "a fleet has seeds, or bootstrap peers instead of them: name either";
            return Err(StartError::Setting(text.to_owned()));
        }
        if !(1..=MESSAGE_BYTES_MAX).contains(&self.machines.broadcast.message_max) {
            let text = "message_max lies between 1 byte and 16 MiB";
            return Err(StartError::Setting(text.to_owned()));
        }
        let cluster_keys = self.cluster_key.as_deref().map(cluster_key::read).transpose()?;
        let (root, scratch) = match self.data {
            Some(root) => (root, None),
            None => {
                let scratch = tempfile::tempdir().map_err(StartError::System)?;
                (scratch.path().to_owned(), Some(scratch))
            }
        };
        let place = ClaimedPort::take((&root, "peer"), (listen.ip(), listen.port()))?;
        let endpoint = place.endpoint;
        let (listener, dir) = place.open()?;
        let keys = keys.map_or_else(|| dir.identity(), Ok)?;
        let (journal, records, _) = Journal::open(&dir.journal_path())?;
        let rng = Rng::from_rng(&mut os_rng()?);
        let me = (endpoint, keys.clone());
        let machine = if seeds.is_empty() {
            PeerNode::without_seeds(self.machines, me, &bootstrap, &records, rng)
        } else {
            let address = |(id, endpoint)| SeedAddress { id: SeedId(id), endpoint, key: None };
            let book = SeedBook::new(self.rule, &(1..).zip(seeds).map(address).collect::<Vec<_>>());
            PeerNode::new(self.machines, me, book, &records, rng)
        };
        let subscriptions = Subscriptions::new(endpoint, false);
        let sharing = Sharing::new(endpoint, dir.path(), cluster_keys.clone(), self.shares);
        sharing.listen(&subscriptions);
        let dialects = DialectServers::default();
        dialects.open(Dialect::Swarm, Arc::clone(&sharing) as _);
        let relay =
            Relay { subscriptions: Arc::clone(&subscriptions), sharing: Arc::clone(&sharing) };
        let options =
            DriverOptions { cluster_keys, dialects: dialects.clone(), ..DriverOptions::new(relay) };
        let driver = Driver::start(machine, listener, journal, options)?;
        let own = dir.path().to_owned();
        let peer = Peer { endpoint, keys, driver, subscriptions, sharing, dialects, dir: own };
        let home = peer.home();
        let answers = thread::spawn("answers", move || home.attend());
        let answers = answers.inspect_err(|_| peer.driver.stop(Duration::ZERO))?;
        Ok(Network::new(peer, answers, (dir, scratch)))
    }
}
