//! Member of a chat that runs inside a peer: it finds its group through the fleet, at the peer's
//! port and with the peer's key. A member whose end the seeds have certified is removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::machine::chat::Config;
use crate::model::Endpoint;
use crate::network::error::StartError;
use crate::network::group::{Announcement, Details, GroupMember, Notice, Reply, Sought};
use crate::network::message::Message;
use crate::network::peer::Network;
use crate::proto::chat::entry::{At, Member, MemberId};
use crate::proto::dialect::Dialect;
use crate::runtime::chat::{Engine, Founds, Limits, Options, Told};
use crate::runtime::driver::options::Sink;

/// Topic on which members of groups are announced.
const TOPIC: &str = "folkmoot/chat";

impl Details for At {
    fn at(&self) -> Endpoint {
        Endpoint::new(self.host, self.port)
    }

    fn are_of(&self, message: &Message) -> bool {
        self.at() == message.origin
    }
}

/// Settings of a chat's member.
pub struct MemberOptions {
    /// Id of the member in its group.
    pub id: MemberId,
    /// Directory of the log.
    pub log_dir: PathBuf,
    /// File away from the log that remembers that there is one.
    pub marker: PathBuf,
    /// Addresses at which members of the group may be; without any, the fleet tells them.
    pub places: Vec<(Option<MemberId>, Endpoint)>,
    /// Limits and periods of the machine.
    pub config: Config,
    /// Largest number of connections.
    pub links_max: usize,
}

/// Running member of a chat.
pub struct ChatMember {
    /// Engine of the member.
    pub engine: Engine,
    group: GroupMember<MemberId, At>,
}

impl ChatMember {
    /// Finds the group, and becomes its member; `None` if `told` ended the search. `told` takes
    /// words for people and returns whether to go on.
    ///
    /// # Errors
    /// Fails if the network has stopped, the log cannot be used, or the system has no room.
    pub fn start(
        network: &Arc<Network>,
        options: MemberOptions,
        sink: Box<dyn Sink<Told>>,
        told: impl FnMut(&str) -> bool,
    ) -> Result<Option<Self>, StartError> {
        let (keys, at) = (network.keys(), At::from(network.endpoint()));
        let me = Member { id: options.id, at, key: keys.public() };
        let mut group = GroupMember::new((TOPIC, me.id, at), network)?;
        let is_known = knows_its_group(&options.log_dir, me.id) || !options.places.is_empty();
        let (founds, found) = if is_known {
            (Founds::Never, Vec::new())
        } else {
            let Some(found) = seek(&group, told) else { return Ok(None) };
            found
        };
        let places = options.places.into_iter().chain(found.into_iter().map(|at| (None, at)));
        let engine = Engine::start(Options {
            listen: None,
            keys,
            me,
            log_dir: options.log_dir,
            marker: Some(options.marker),
            seeds: places.collect(),
            config: options.config,
            cluster_keys: None,
            founds,
            limits: Limits { links_max: options.links_max, ..Limits::default() },
            allows: None,
            sink,
        })?;
        let served = serve(network, &mut group, &engine, options.id);
        let member = Self { engine, group };
        if let Err(error) = served {
            member.engine.stop();
            return Err(StartError::System(error));
        }
        Ok(Some(member))
    }

    /// Waits for the threads to end, after the engine and the network have stopped.
    pub fn join(self) {
        self.group.join();
    }
}

/// True if the log of `me` has any content.
pub fn knows_its_group(log_dir: &Path, me: MemberId) -> bool {
    std::fs::metadata(log_dir.join(format!("{me}.log"))).is_ok_and(|it| it.len() > 0)
}

/// Looks for the group until it is found, or is this member's to found; `None` if `told` ended the
/// search, or the network has stopped.
fn seek(
    group: &GroupMember<MemberId, At>,
    mut told: impl FnMut(&str) -> bool,
) -> Option<(Founds, Vec<Endpoint>)> {
    let mut goes_on = true;
    let sought = group.seek(|notice| {
        goes_on = match notice {
            Notice::NotAdmitted => {
                told("the fleet has not let this member in yet; it looks for the group meanwhile")
            }
            Notice::Alone => told("no member of the fleet is in reach yet"),
            Notice::Waits(lowest) => {
                told(&format!("no group yet; waits for {lowest} to found one"))
            }
        };
        goes_on
    });
    match sought {
        Sought::Join(places) => Some((Founds::Never, places)),
        Sought::Found if goes_on => Some((Founds::IfNew, Vec::new())),
        Sought::Found | Sought::Stopped => None,
    }
}

/// Passes calls to `engine`, tells it the other members and certified ends, and answers those that
/// look for the group.
fn serve(
    network: &Arc<Network>,
    group: &mut GroupMember<MemberId, At>,
    engine: &Engine,
    me: MemberId,
) -> std::io::Result<()> {
    network.dialects().open(Dialect::Chat, engine.server());
    if let Ok(removals) = network.removals() {
        let engine = engine.clone();
        group.spawn("chat-removals", move || {
            for gone in removals.iter() {
                engine.certified(gone.key);
            }
        })?;
    }
    let engine = engine.clone();
    group.serve("chat-fleet", move |other| attend(me, other, &engine))
}

/// Takes an announcement: the leader answers members that look for the group.
fn attend(me: MemberId, other: &Announcement<MemberId, At>, engine: &Engine) -> Reply {
    if !other.seeks {
        engine.add_place(other.details.at());
        return Reply::Nothing;
    }
    let Some(status) = engine.status() else { return Reply::Stop };
    let is_mine = status.leader.is_none_or(|leader| leader == me);
    if is_mine && status.members.iter().any(|it| it.member.id == me) {
        Reply::Announce
    } else {
        Reply::Nothing
    }
}
