//! The engine behind an ordered log: that of a Byzantine order, or a chat's.

use std::sync::Arc;

use super::entry::Place;
use super::follow::{ReadLog, Tail};
use super::roster::OrderRoster;
use super::settings::{Kind, Order, OrderStanding};
use super::waits::Waits;
use crate::machine::chat;
use crate::model::Now;
use crate::network::chat::{ChatMember, MemberOptions};
use crate::network::error::{NetworkError, StartError};
use crate::network::peer::Network;
use crate::proto::bft::proof::PlaceProof;
use crate::proto::chat::entry::{MemberId, SeqNo};
use crate::proto::dialect::Dialect;
use crate::runtime::chat::ChatNotification;
use crate::runtime::driver::options::EventSink;
use crate::runtime::engine::options::EngineLimits;
use crate::runtime::order::{OrderEngine, OrderNotification, OrderOptions};

/// Sink that tells proposals their fates, hands entries to those that follow, and passes all of it
/// on.
pub(super) struct Reports {
    pub(super) waits: Waits,
    pub(super) tail: Tail,
    pub(super) told: Option<Box<dyn EventSink<OrderNotification>>>,
}

impl Reports {
    fn end(&self) {
        self.waits.close();
        self.tail.close();
    }
}

impl EventSink<OrderNotification> for Reports {
    fn take(&self, now: Now, told: OrderNotification) -> bool {
        if let OrderNotification::Delivered(entries) = &told {
            self.tail.add(entries);
        }
        self.waits.hear_order(&told);
        if let OrderNotification::Failed(_) = &told {
            self.end();
        }
        match (&self.told, &told) {
            (Some(sink), _) => return sink.take(now, told),
            (None, OrderNotification::Note(note)) => log::info!("{note}"),
            (None, OrderNotification::Failed(reason)) => log::error!("the order failed: {reason}"),
            (None, OrderNotification::Event(_) | OrderNotification::Delivered(_)) => {}
        }
        true
    }
}

impl EventSink<ChatNotification> for Reports {
    fn take(&self, _: Now, told: ChatNotification) -> bool {
        if let ChatNotification::Delivered(entries) = &told {
            self.tail.add(entries);
        }
        self.waits.hear_chat(&told);
        match told {
            ChatNotification::Failed(reason) => {
                log::error!("the order has failed: {reason}");
                self.end();
            }
            ChatNotification::Note(note) => log::info!("{note}"),
            ChatNotification::Event(_) | ChatNotification::Delivered(_) => {}
        }
        true
    }
}

/// A running member of either order.
pub(super) enum Member {
    Byzantine { engine: OrderEngine, roster: OrderRoster, name: String },
    Crash(ChatMember),
}

impl Member {
    pub(super) fn start(
        network: &Arc<Network>,
        name: &str,
        order: Order,
        reports: Reports,
    ) -> Result<Self, StartError> {
        let data = order.data.clone().unwrap_or_else(|| network.peer.dir.join("order"));
        std::fs::create_dir_all(&data)?;
        match &order.kind {
            Kind::Byzantine(roster) => {
                let me = own_id(roster, network)?;
                let marker = network.peer.dir.join("has-signed-orders");
                let engine = OrderEngine::start(OrderOptions {
                    listen: None,
                    keys: network.keys(),
                    me,
                    founders: roster.committee(),
                    salt: name.to_owned(),
                    log_dir: data,
                    marker: Some(marker),
                    is_restored: order.is_restored,
                    config: order.config,
                    limits: EngineLimits::default(),
                    cluster_keys: None,
                    sink: Box::new(reports),
                })?;
                network.dialects().open(Dialect::Order, engine.server());
                let (roster, name) = (roster.clone(), name.to_owned());
                Ok(Self::Byzantine { engine, roster, name })
            }
            Kind::Fleet(_) => {
                let text = "an order of the fleet is started when it is founded";
                Err(StartError::Setting(text.to_owned()))
            }
            Kind::Crash(id) => {
                let options = MemberOptions {
                    id: MemberId(*id),
                    marker: data.join(format!("peer_{id}.mark")),
                    log_dir: data,
                    places: Vec::new(),
                    config: chat::Config::default(),
                    links_max: EngineLimits::default().links_max,
                };
                let words = (|_: &str| {}, || true);
                let member = ChatMember::start(network, options, Box::new(reports), words)?;
                member.map(Self::Crash).ok_or(StartError::Network(NetworkError::Stopped))
            }
        }
    }

    pub(super) const fn byzantine(&self) -> Option<&OrderEngine> {
        match self {
            Self::Byzantine { engine, .. } => Some(engine),
            Self::Crash(_) => None,
        }
    }

    pub(super) fn say(&self, room: Arc<str>, text: Arc<str>) -> bool {
        match self {
            Self::Byzantine { engine, .. } => engine.say(room, text),
            Self::Crash(member) => member.engine.say(room, text),
        }
    }

    /// Function that reads final entries out of the log.
    pub(super) fn reader(&self) -> ReadLog {
        match self {
            Self::Byzantine { engine, .. } => {
                let engine = engine.clone();
                Box::new(move |from, count| engine.history(SeqNo(from), count))
            }
            Self::Crash(member) => {
                let engine = member.engine.clone();
                Box::new(move |from, count| engine.history(SeqNo(from), count))
            }
        }
    }

    pub(super) fn proof(&self, place: SeqNo) -> Result<PlaceProof, String> {
        match self {
            Self::Byzantine { engine, roster, name } => {
                engine.proof((&roster.committee(), name), place)
            }
            Self::Crash(_) => Err("members of a crash order sign nothing; found the group with \
                                   Order::byzantine"
                .to_owned()),
        }
    }

    pub(super) fn status(&self) -> Option<OrderStanding> {
        match self {
            Self::Byzantine { engine, .. } => {
                let it = engine.status()?;
                Some(OrderStanding {
                    place: Place(it.place.0),
                    leader: it.active.then_some(it.leader.0),
                    members: it.members.len(),
                    reached: it.reached,
                    needed: it.quorum,
                    pending: it.pending,
                    silent: it.silent,
                })
            }
            Self::Crash(member) => {
                let it = member.engine.status()?;
                let is_here =
                    |other: &&chat::MemberStatus| other.linked || other.member.id == it.id;
                Some(OrderStanding {
                    place: Place(it.commit.0),
                    leader: it.leader.map(|it| it.0),
                    members: it.members.len(),
                    reached: it.members.iter().filter(is_here).count(),
                    needed: it.members.len() / 2 + 1,
                    pending: it.pending.len(),
                    silent: None,
                })
            }
        }
    }

    pub(super) fn stop(&self) {
        match self {
            Self::Byzantine { engine, .. } => {
                engine.leave();
                engine.stop();
            }
            Self::Crash(member) => {
                member.engine.leave();
                member.engine.stop();
            }
        }
    }
}

/// Id of this peer in the roster, which has its key.
fn own_id(roster: &OrderRoster, network: &Network) -> Result<MemberId, StartError> {
    let key = network.key();
    roster.id_of(&key).map(MemberId).ok_or_else(|| {
        StartError::Setting(format!(
            "no member of the roster has the key of this peer, {key}; give all members a roster \
             with its line"
        ))
    })
}
