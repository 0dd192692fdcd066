//! Options of a data plane.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use prometheus_client::collector::Collector;

use super::access_log::AccessLogOptions;
use super::limits::DataPlaneLimits;
use super::own::OwnPaths;
use super::servers::Servers;
use crate::proto::rollout::{ModelId, NodeId};
use crate::runtime::web::tls::TlsFiles;

/// Collector of further metrics at `/metrics`, as of the moment of the call.
pub type MoreMetrics = Box<dyn Fn() -> Box<dyn Collector> + Send + Sync>;

/// Options of a data plane.
pub struct DataPlaneOptions {
    /// Listen address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Id of this node.
    pub node_id: NodeId,
    /// Servers of the versions; without any the built-in model answers for all.
    pub servers: BTreeMap<ModelId, Servers>,
    /// Limits of clients and servers.
    pub limits: DataPlaneLimits,
    /// Seed of the draws for requests without a key.
    pub seed: u64,
    /// Further metrics at `/metrics`.
    pub more_metrics: Option<MoreMetrics>,
    /// Settings of a proxy.
    pub proxy: ProxyOptions,
}

/// Settings of a data plane as a proxy.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Certificate for clients by `https://`; without one they come by `http://`.
    pub tls: Option<TlsFiles>,
    /// Files of authorities whose servers are trusted beside those of this machine's.
    pub authorities: Vec<PathBuf>,
    /// Networks of the proxies before this one, whose word about a request's source is believed.
    pub trusted: Vec<IpNet>,
    /// Paths of the node itself.
    pub own_paths: OwnPaths,
    /// True if headers with underscores in their names are passed on.
    pub keeps_underscores: bool,
    /// Path that a server answers with 2xx when it is ready; without one it is when it can be
    /// called.
    pub ready_path: Option<String>,
    /// Access log, if there is one.
    pub access_log: Option<AccessLogOptions>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            tls: None,
            authorities: Vec::new(),
            trusted: ["127.0.0.0/8", "::1/128"].map(|it| it.parse().expect("a network")).into(),
            own_paths: OwnPaths::default(),
            keeps_underscores: false,
            ready_path: None,
            access_log: None,
        }
    }
}
