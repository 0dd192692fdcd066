//! A chat in a fleet: its members are members of the fleet too, at the same port and with the same
//! key. They find their group by it, and a member whose end the seeds have certified is removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::settings::Settings;
use crate::cli::CliError;
use crate::cli::late_server::LateServer;
use crate::cli::member::{Announcement, Details, FleetMember, Notice, Reply, Sought};
use crate::model::{Endpoint, KeyPair};
use crate::network::Message;
use crate::proto::chat::entry::{At, MemberId};
use crate::proto::dialect::Dialect;
use crate::runtime::chat::{Engine, Founds};
use crate::runtime::driver::options::{Dialects, Serve};

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

/// Membership of a chat in the fleet.
pub(super) struct Fleet {
    member: FleetMember<MemberId, At>,
    server: Arc<LateServer>,
    me: MemberId,
}

impl Fleet {
    /// Becomes a member of the fleet of these seeds, at the address of `settings`.
    ///
    /// # Errors
    /// Fails if the port or the disk cannot be used.
    pub(super) fn join(
        settings: &Settings,
        seeds: &[Endpoint],
        keys: &KeyPair,
        data: PathBuf,
    ) -> Result<Self, CliError> {
        let server = Arc::new(LateServer::default());
        let dialects = Dialects::from([(Dialect::Chat, Arc::clone(&server) as Arc<dyn Serve>)]);
        let me = (TOPIC, settings.me, settings.at.into());
        let member = FleetMember::join(me, seeds, keys, (data, dialects))?;
        Ok(Self { member, server, me: settings.me })
    }

    /// Looks for the group until it is found, or is this member's to found. `told` takes words for
    /// people and returns whether to go on.
    pub(super) fn seek(&self, mut told: impl FnMut(&str) -> bool) -> (Founds, Vec<Endpoint>) {
        let sought = self.member.seek(|notice| match notice {
            Notice::NotAdmitted => {
                told("the fleet has not let this member in yet; it looks for the group meanwhile")
            }
            Notice::Alone => told("no member of the fleet is in reach yet"),
            Notice::Waits(lowest) => {
                told(&format!("no group yet; waits for {lowest} to found one"))
            }
        });
        match sought {
            Sought::Join(places) => (Founds::Never, places),
            Sought::Found => (Founds::IfNew, Vec::new()),
            Sought::Stopped => (Founds::Never, Vec::new()),
        }
    }

    /// Passes calls to `engine`, tells it the other members, and answers those that look for the
    /// group.
    ///
    /// # Errors
    /// Fails if no threads can be started.
    pub(super) fn serve(&mut self, engine: &Engine) -> Result<(), CliError> {
        self.server.open(engine.server());
        if let Ok(removals) = self.member.announcer().network.removals() {
            let engine = engine.clone();
            self.member.spawn("chat-removals", move || {
                for gone in removals.iter() {
                    engine.certified(gone.key);
                }
            })?;
        }
        let (me, engine) = (self.me, engine.clone());
        self.member.serve("chat-fleet", move |other| attend(me, other, &engine))
    }

    /// Leaves the fleet.
    pub(super) fn stop(self) {
        self.member.stop();
    }
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
