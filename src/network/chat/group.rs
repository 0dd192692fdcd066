//! Member of a chat that runs inside a peer: it finds its group through the fleet, at the peer's
//! port and with the peer's key. A member whose end the seeds have certified is removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::machine::chat::Config;
use crate::model::Endpoint;
use crate::network::error::StartError;
use crate::network::group::{
    Announcement, AnnouncementReply, Details, GroupMember, Notice, Sought,
};
use crate::network::message::Message;
use crate::network::peer::Network;
use crate::proto::chat::entry::{HostPort, Member, MemberId};
use crate::proto::dialect::Dialect;
use crate::runtime::chat::{
    ChatEngine, ChatNotification, ChatOptions, EngineLimits, GroupBootstrap,
};
use crate::runtime::driver::options::EventSink;

/// Topic on which members of groups are announced.
const TOPIC: &str = "folkmoot/chat";

impl Details for HostPort {
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
    pub engine: ChatEngine,
    group: GroupMember<MemberId, HostPort>,
}

impl ChatMember {
    /// Finds the group, and becomes its member; `None` if nobody wanted that any more, by
    /// `goes_on`. `told` takes words for people.
    ///
    /// # Errors
    /// Fails if the network has stopped, the log cannot be used, or the system has no room.
    pub fn start(
        network: &Arc<Network>,
        options: MemberOptions,
        sink: Box<dyn EventSink<ChatNotification>>,
        (told, goes_on): (impl FnMut(&str), impl Fn() -> bool),
    ) -> Result<Option<Self>, StartError> {
        let (keys, at) = (network.keys(), HostPort::from(network.endpoint()));
        let me = Member { id: options.id, at, key: keys.public() };
        let mut group = GroupMember::new((TOPIC, me.id, at), network)?;
        let is_known = knows_its_group(&options.log_dir, me.id) || !options.places.is_empty();
        let (bootstrap, found) = if is_known {
            (GroupBootstrap::Never, Vec::new())
        } else {
            let Some(found) = find_group(&group, told, goes_on) else { return Ok(None) };
            found
        };
        let places = options.places.into_iter().chain(found.into_iter().map(|at| (None, at)));
        let engine = ChatEngine::start(ChatOptions {
            listen: None,
            keys,
            me,
            log_dir: options.log_dir,
            marker: Some(options.marker),
            seeds: places.collect(),
            config: options.config,
            cluster_keys: None,
            bootstrap,
            limits: EngineLimits { links_max: options.links_max, ..EngineLimits::default() },
            key_filter: None,
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

/// Looks for the group until it is found, or is this member's to found; `None` if nobody wants that
/// any more, or the network has stopped.
fn find_group(
    group: &GroupMember<MemberId, HostPort>,
    mut told: impl FnMut(&str),
    goes_on: impl Fn() -> bool,
) -> Option<(GroupBootstrap, Vec<Endpoint>)> {
    let told = |notice| match notice {
        Notice::NotAdmitted => {
            told("the fleet has not let this member in yet; the search for the group begins then");
        }
        Notice::Alone => told("no member of the fleet is in reach yet"),
        Notice::Waits(lowest) => told(&format!("no group yet; waits for {lowest} to found one")),
    };
    let sought = group.find_group(told, goes_on);
    match sought {
        Sought::Join(places) => Some((GroupBootstrap::Never, places)),
        Sought::Found => Some((GroupBootstrap::IfNew, Vec::new())),
        Sought::Stopped => None,
    }
}

/// Passes calls to `engine`, tells it the other members and certified ends, and answers those that
/// look for the group.
fn serve(
    network: &Arc<Network>,
    group: &mut GroupMember<MemberId, HostPort>,
    engine: &ChatEngine,
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
fn attend(
    me: MemberId,
    other: &Announcement<MemberId, HostPort>,
    engine: &ChatEngine,
) -> AnnouncementReply {
    if !other.seeks {
        engine.add_place(other.details.at());
        return AnnouncementReply::Nothing;
    }
    let Some(status) = engine.status() else { return AnnouncementReply::Stop };
    let is_mine = status.leader.is_none_or(|leader| leader == me);
    if is_mine && status.members.iter().any(|it| it.member.id == me) {
        AnnouncementReply::Announce
    } else {
        AnnouncementReply::Nothing
    }
}
