//! Settings of a peer of an assignment's swarm, by its files: every fault that can be found before
//! a port is bound or a byte is written is found here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::args::SwarmArgs;
use super::common::{self, CommonConfig};
use super::roster::{self, PeerInfoFile, listening_address};
use crate::cli::CliError;
use crate::proto::swarm::PeerId;

/// Settings of a peer.
#[derive(Debug)]
pub(super) struct Settings {
    /// Id of this peer.
    pub(super) me: PeerId,
    /// The folder of the swarm.
    pub(super) dir: PathBuf,
    /// The peer's own folder in it, which may not exist yet.
    pub(super) folder: PathBuf,
    /// Settings that all peers share.
    pub(super) common: CommonConfig,
    /// All peers of the swarm.
    pub(super) roster: PeerInfoFile,
    /// Index of this peer among them.
    pub(super) position: usize,
    /// Listen address of the peer.
    pub(super) listen: SocketAddr,
    /// Peers listed before it, which it calls, with their addresses.
    pub(super) predecessors: Vec<(PeerId, Vec<SocketAddr>)>,
}

impl Settings {
    /// Reads the files, and looks up the hosts of the peers to be called.
    ///
    /// # Errors
    /// Any fault of the files.
    pub(super) fn new(args: &SwarmArgs) -> Result<Self, CliError> {
        let dir = args.dir.clone();
        if !dir.is_dir() {
            let dir = dir.display();
            return Err(CliError::Usage(format!("{dir} is no folder; name one with --dir")));
        }
        let beside =
            |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| dir.join(name));
        let common = common::read(&beside(&args.config, "Common.cfg"))?;
        let roster = roster::read(&beside(&args.peers, "PeerInfo.cfg"))?;
        let me = PeerId(args.id.unwrap_or_default());
        let position = roster.position(me)?;
        if !common.pieces.is_empty() {
            roster.check_source()?;
        }
        let own = &roster.members[position];
        let listen = listening_address(&own.host, own.port);
        let called = roster.members[..position].iter();
        let predecessors = called.map(|it| Ok((it.id, roster.addresses(it)?)));
        let predecessors = predecessors.collect::<Result<_, CliError>>()?;
        let folder = folder_of(&dir, me);
        Ok(Self { me, dir, folder, common, roster, position, listen, predecessors })
    }

    /// True if this peer has the file from the start.
    pub(super) fn is_source(&self) -> bool {
        self.roster.members[self.position].has_file
    }
}

/// The folder of a peer: `peer_<id>`, or, if only that exists, `<id>` as some samples have it.
fn folder_of(dir: &Path, PeerId(me): PeerId) -> PathBuf {
    let (usual, plain) = (dir.join(format!("peer_{me}")), dir.join(me.to_string()));
    if plain.is_dir() && usual.symlink_metadata().is_err() { plain } else { usual }
}
