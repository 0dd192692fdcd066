//! Shares and downloads on one engine, of any owner: `peer share` and `peer fetch` with a port of
//! their own, or a running peer at its one port.

use crate::proto::swarm::{Hash, PeerId, Pieces};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::Rng as _;
use serde_json::Value;

use super::error::ShareError;
use super::view::View;
use crate::machine::swarm::{Config, Event, FileListState, Tree};
use crate::model::{Endpoint, Ticket};
use crate::runtime::driver::options::{EventSink, ServeConnection};
use crate::runtime::files;
use crate::runtime::listen::ListenError;
use crate::runtime::swarm::store::{
    ContentStoreError, Fetch, Hashing, OfferedFiles, Store, TreeCache, piece_size_for,
};
use crate::runtime::swarm::{
    ContentPhase, SwarmEngine, SwarmHandle, SwarmKind, SwarmOptions, SwarmSpec,
};

/// Role of this process in a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareRole {
    /// The process has the whole content from the start.
    Offers,
    /// The process fetches the content, and passes on the pieces it has.
    Fetches,
}

/// One share of this process.
#[derive(Debug)]
pub struct HostedShare {
    /// Ticket of the share.
    pub ticket: Ticket,
    /// Role of this process in it.
    pub role: ShareRole,
    /// Path of the content on the disk, present or future.
    pub path: PathBuf,
    /// The parts of a folder that are not offered, each with its reason.
    pub left_out: Vec<String>,
    /// The swarm; the same for all names of one content.
    pub swarm: Arc<SwarmHandle>,
}

impl HostedShare {
    /// Progress of the share.
    pub fn view(&self) -> View {
        View::of(&self.swarm.progress(), self.ticket.size)
    }

    /// Ticket, role, path and progress, for programs.
    pub fn json(&self) -> Value {
        let mut view = self.view().json();
        view["kind"] = match self.role {
            ShareRole::Offers => "share",
            ShareRole::Fetches => "fetch",
        }
        .into();
        view["name"] = self.ticket.name.as_str().into();
        view["at"] = self.path.display().to_string().into();
        view["ticket"] = self.ticket.to_string().into();
        view
    }
}

/// Options of a fetch.
pub struct FetchOptions<'a> {
    /// Ticket of the share.
    pub ticket: &'a Ticket,
    /// Folder for the content.
    pub to: &'a Path,
    /// Addresses to call beside those of the ticket.
    pub at: &'a [Endpoint],
    /// Time to wait while nothing comes; `None` for no limit.
    pub give_up: Option<Duration>,
    /// True if the disk is to set aside all room at once.
    pub preallocates: bool,
    /// Called while an existing file or folder of the name is hashed, with the bytes done and their
    /// sum; returns whether to go on.
    pub hashed: &'a (dyn Fn(u64, u64) -> bool + Sync),
}

/// The content to be shared.
#[derive(Clone, Copy, Debug)]
pub struct WantedContent<'a> {
    /// The file or folder.
    pub path: &'a Path,
    /// Size of a piece in bytes; `None` to choose it by the size of the content.
    pub piece: Option<u32>,
    /// True if to read all of it although it seems unchanged.
    pub rehash: bool,
}

/// Identity and name of a share.
pub(crate) type Key = (Hash, String);

/// The shares of one engine.
#[derive(Debug)]
pub struct ShareHost {
    engine: SwarmEngine,
    /// Addresses at which other peers find this engine, for tickets.
    at: Vec<Endpoint>,
    cache: Option<TreeCache>,
    held: Mutex<BTreeMap<Key, Arc<HostedShare>>>,
}

impl ShareHost {
    /// A host with a port of its own.
    ///
    /// # Errors
    /// Fails if the port cannot be used.
    pub fn start(options: SwarmOptions) -> Result<Self, ListenError> {
        let engine = SwarmEngine::start(options)?;
        let at = engine.addr().map(Endpoint::from).into_iter().collect();
        Ok(Self::over(engine, at))
    }

    /// A host over an engine whose connections come from another listener, which peers find at
    /// `at`.
    pub fn over(engine: SwarmEngine, at: Vec<Endpoint>) -> Self {
        let cache = cache_folder().map(TreeCache::new);
        // With the signal caught, a file that is too large for a limit is an error with a remedy,
        // and no sudden end.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
        Self { engine, at, cache, held: Mutex::default() }
    }

    /// Offers the file or folder at `path`. `hashed` is called with the bytes hashed so far and
    /// their sum; it returns whether to go on.
    ///
    /// # Errors
    /// Fails if it cannot be read, or is offered already.
    pub fn share(
        &self,
        wanted: WantedContent<'_>,
        hashed: &(dyn Fn(u64, u64) -> bool + Sync),
        events: impl EventSink<Event> + 'static,
    ) -> Result<Arc<HostedShare>, ShareError> {
        let WantedContent { path, piece, rehash } = wanted;
        let unusable =
            |error| ShareError::Failed(format!("cannot share {}: {error}", path.display()));
        let offer = OfferedFiles::new(path).map_err(|error| unusable(error.to_string()))?;
        let (name, size) = (offer.name().to_owned(), offer.size());
        let pieces = Pieces::new(size, piece.unwrap_or_else(|| piece_size_for(size)))
            .map_err(ShareError::Piece)?;
        if let Some(cache) = self.cache.as_ref().filter(|_| rehash) {
            cache.forget(&offer);
        }
        let tree =
            self.tree(&offer, pieces, hashed).map_err(|error| unusable(error.to_string()))?;
        let list = offer.list().map(<[u8]>::to_vec);
        let ticket = Ticket {
            name,
            size,
            piece_size: pieces.piece_size(),
            root: tree.root(),
            files: list.as_deref().map(digest),
            traits: offer.traits(),
            at: self.at.clone(),
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let left_out = offer.left_out().to_vec();
        let id = ticket.share_id();
        if let Some(held) = self.held().get(&(id, ticket.name.clone())) {
            return Ok(Arc::clone(held));
        }
        let same = self.held().values().find(|it| it.ticket.share_id() == id).cloned();
        if let Some(same) = same {
            let swarm = Arc::clone(&same.swarm);
            return Ok(self.hold(HostedShare {
                ticket,
                role: ShareRole::Offers,
                path,
                left_out,
                swarm,
            }));
        }
        let store = offer.store(pieces).map_err(|error| unusable(error.to_string()))?;
        let files = list.map_or(FileListState::None, FileListState::Known);
        let kind = SwarmKind::Share { id: ticket.share_id(), tree, files, at: Vec::new() };
        let swarm = self.join(kind, store, Config::share(), events)?;
        Ok(self.hold(HostedShare { ticket, role: ShareRole::Offers, path, left_out, swarm }))
    }

    /// Fetches the share of a ticket; pieces that are there already are not fetched again.
    ///
    /// # Errors
    /// Fails if it cannot be put there.
    pub fn fetch(
        &self,
        order: &FetchOptions<'_>,
        events: impl EventSink<Event> + 'static,
    ) -> Result<Arc<HostedShare>, ShareError> {
        let FetchOptions { ticket, to, at, give_up, preallocates, .. } = order;
        let unusable = |error| ShareError::Failed(format!("cannot fetch {}: {error}", ticket.name));
        let pieces = Pieces::new(ticket.size, ticket.piece_size).map_err(ShareError::Ticket)?;
        if to.join(&ticket.name).symlink_metadata().is_ok() {
            return self.take_up(order, pieces, events);
        }
        let fetch = Fetch {
            folder: to,
            name: &ticket.name,
            id: ticket.share_id(),
            pieces,
            list: ticket.files,
            traits: ticket.traits,
            preallocates: *preallocates,
        };
        let store = Store::fetched(&fetch).map_err(|error| unusable(error.to_string()))?;
        let files = match (ticket.files, store.list()) {
            (None, _) => FileListState::None,
            (Some(_), Some(list)) => FileListState::Known(list.to_vec()),
            (Some(digest), None) => FileListState::Wanted(digest),
        };
        let at = ticket.at.iter().chain(*at).map(|it| SocketAddr::new(it.ip(), it.port()));
        let tree = Tree::of_root(pieces.count(), ticket.root);
        let kind = SwarmKind::Share { id: ticket.share_id(), tree, files, at: at.collect() };
        let path = to.join(&ticket.name);
        let path = std::path::absolute(&path).unwrap_or(path);
        let config = Config { give_up_after: *give_up, ..Config::share() };
        let swarm = self.join(kind, store, config, events)?;
        let (ticket, left_out) = ((*ticket).clone(), Vec::new());
        Ok(self.hold(HostedShare { ticket, role: ShareRole::Fetches, path, left_out, swarm }))
    }

    /// Takes the existing file or folder of the name as the content, if it is; it is read for that.
    fn take_up(
        &self,
        order: &FetchOptions<'_>,
        pieces: Pieces,
        events: impl EventSink<Event> + 'static,
    ) -> Result<Arc<HostedShare>, ShareError> {
        let ticket = order.ticket;
        let path = order.to.join(&ticket.name);
        let path = std::path::absolute(&path).unwrap_or(path);
        let is_other = || ShareError::Exists(path.clone());
        let offer = OfferedFiles::new(&path).map_err(|_| is_other())?;
        let list = offer.list().map(<[u8]>::to_vec);
        if offer.size() != ticket.size || list.as_deref().map(digest) != ticket.files {
            return Err(is_other());
        }
        let tree = self.tree(&offer, pieces, order.hashed).map_err(|error| {
            ShareError::Failed(format!("cannot read what is there already: {error}"))
        })?;
        if tree.root() != ticket.root {
            return Err(is_other());
        }
        let store = offer.store(pieces).map_err(|_| is_other())?;
        let files = list.map_or(FileListState::None, FileListState::Known);
        let kind = SwarmKind::Share { id: ticket.share_id(), tree, files, at: Vec::new() };
        let swarm = self.join(kind, store, Config::share(), events)?;
        let (ticket, left_out) = (ticket.clone(), Vec::new());
        Ok(self.hold(HostedShare { ticket, role: ShareRole::Fetches, path, left_out, swarm }))
    }

    /// Hashes of all pieces, as a tree.
    fn tree(
        &self,
        offer: &OfferedFiles,
        pieces: Pieces,
        hashed: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Tree, ContentStoreError> {
        let progress = |done| hashed(done, pieces.size());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let hashing = Hashing { threads, cache: self.cache.as_ref(), progress: &progress };
        Ok(Tree::of_leaves(&hashing.leaves(offer, pieces)?))
    }

    fn join(
        &self,
        kind: SwarmKind,
        store: Store,
        config: Config,
        events: impl EventSink<Event> + 'static,
    ) -> Result<Arc<SwarmHandle>, ShareError> {
        let me = PeerId(files::os_rng()?.next_u32());
        let join = SwarmSpec { kind, me, store, config, events: Box::new(events) };
        Ok(Arc::new(self.engine.join(join)?))
    }

    fn hold(&self, held: HostedShare) -> Arc<HostedShare> {
        let held = Arc::new(held);
        let key = (held.ticket.share_id(), held.ticket.name.clone());
        self.held().insert(key, Arc::clone(&held));
        held
    }

    /// Shares and downloads of this host, for programs.
    pub fn list(&self) -> Vec<Value> {
        let held: Vec<_> = self.held().values().cloned().collect();
        held.iter().map(|it| it.json()).collect()
    }

    /// Tickets of all shares of which other peers can get pieces here.
    pub fn tickets(&self) -> Vec<Ticket> {
        let held: Vec<_> = self.held().values().cloned().collect();
        let has_some = |it: &&Arc<HostedShare>| {
            let progress = it.swarm.progress();
            (progress.have > 0 || progress.pieces == 0)
                && !matches!(progress.phase, ContentPhase::Failed(_))
        };
        let here = |it: &Arc<HostedShare>| Ticket { at: self.at.clone(), ..it.ticket.clone() };
        held.iter().filter(has_some).map(here).collect()
    }

    /// Shares of which pieces are missing here.
    pub fn fetching(&self) -> Vec<Arc<HostedShare>> {
        let mut held: Vec<_> = self.held().values().cloned().collect();
        held.retain(|it| {
            it.role == ShareRole::Fetches && it.swarm.progress().phase == ContentPhase::Fetching
        });
        held
    }

    /// True if a share has not been ended.
    pub fn holds(&self, held: &Arc<HostedShare>) -> bool {
        self.held().values().any(|it| Arc::ptr_eq(it, held))
    }

    /// Shares that cannot go on, each with its reason.
    pub fn failed(&self) -> Vec<(Arc<HostedShare>, String)> {
        let held: Vec<_> = self.held().values().cloned().collect();
        let why = |it: Arc<HostedShare>| match it.swarm.progress().phase {
            ContentPhase::Failed(why) => Some((it, why)),
            ContentPhase::Fetching | ContentPhase::Finishing | ContentPhase::Stored => None,
        };
        held.into_iter().filter_map(why).collect()
    }

    /// Progress of each share, for programs.
    pub fn views(&self) -> BTreeMap<Key, Value> {
        let held: Vec<_> =
            self.held().iter().map(|(key, it)| (key.clone(), Arc::clone(it))).collect();
        held.into_iter().map(|(key, it)| (key, it.json())).collect()
    }

    /// Ends the shares of a name; returns their keys.
    pub fn end(&self, name: &str) -> Vec<Key> {
        self.end_those(|it| it.ticket.name == name)
    }

    /// Ends the shares for which `is_meant` is true; returns their keys.
    pub fn end_those(&self, is_meant: impl Fn(&HostedShare) -> bool) -> Vec<Key> {
        let mut held = self.held();
        let is_ended = |it: &(&Key, &Arc<HostedShare>)| is_meant(it.1);
        let ended: Vec<_> = held.iter().filter(is_ended).map(|(key, _)| key.clone()).collect();
        let mut swarms: Vec<_> = ended.iter().filter_map(|key| held.remove(key)).collect();
        // Another name of the same content may go on.
        swarms.retain(|it| !held.values().any(|other| Arc::ptr_eq(&it.swarm, &other.swarm)));
        drop(held);
        swarms.iter().for_each(|it| it.swarm.stop());
        ended
    }

    /// Server of connections that another listener has accepted.
    pub fn server(&self) -> Arc<dyn ServeConnection> {
        self.engine.server()
    }

    /// Addresses at which other peers find this engine.
    pub fn at(&self) -> &[Endpoint] {
        &self.at
    }

    /// Ends all shares and the engine.
    pub fn stop(&self) {
        let held = std::mem::take(&mut *self.held());
        for held in held.values() {
            held.swarm.stop();
        }
        self.engine.stop();
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<HostedShare>>> {
        self.held.lock().expect("nothing under this lock can panic")
    }
}

/// Folder that keeps the hashes of shares from one time to the next.
fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    named.or_else(usual).filter(|it| it.is_absolute()).map(|it| it.join("folkmoot"))
}

/// Digest of a list of files, as a ticket has it.
pub(crate) fn digest(text: &[u8]) -> Hash {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text).into()
}
