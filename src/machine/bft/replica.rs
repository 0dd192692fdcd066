//! The machine itself: its state, and the dispatch of each input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt as _;

use super::chain::Chain;
use super::config::Config;
use super::disk::DiskState;
use super::event::{Command, Event, ExtraEffect, ExtraInput, Opening, Record, Timer};
use super::links::OrderLinks;
use super::memory::{OrderMemory, Restored};
use super::outbox::Outbox;
use super::pool::Pool;
use super::recall::Recall;
use super::views::Views;
use super::votes::Votes;
use crate::machine::{self, Machine, Vocabulary};
use crate::model::{KeyPair, Now, Rng};
use crate::proto::bft::message::{Message, PrePrepare};
use crate::proto::bft::{
    Approval, Certificate, Committee, ContentDigest, EpochNo, Equivocation, MembershipChange,
    OrderId, SlotNo, ViewNo,
};
use crate::proto::chat::entry::{Member, MemberId, Origin};

/// Input to the machine.
pub type Input = machine::Input<BftReplica>;

/// Action that the driver must carry out.
pub type Effect = machine::Effect<BftReplica>;

/// The effects of one input.
pub type Fx = machine::Effects<BftReplica>;

/// One member of a group, as it is configured.
#[derive(Clone, Debug)]
pub struct BftIdentity {
    /// Id of the member in its committee.
    pub id: MemberId,
    /// Key pair of the member, which signs all that it says.
    pub keys: KeyPair,
    /// Committee with which the group was founded.
    pub founders: Arc<Committee>,
    /// Salt of the group's identity.
    pub salt: String,
}

/// Number of heartbeats in which members that start together reach each other.
const START_BEATS: u32 = 4;

/// Consents to one change.
pub(super) type Consents = (MembershipChange, BTreeMap<MemberId, Approval>);

/// State of one member in its group. Each part owns its fields; a step that concerns several parts
/// is a method here, in the file of its rule.
#[derive(Debug)]
pub struct BftReplica {
    pub(super) me: BftIdentity,
    pub(super) group: OrderId,
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) now: Now,
    pub(super) is_gone: bool,
    pub(super) chain: Chain,
    pub(super) pool: Pool,
    pub(super) votes: Votes,
    pub(super) views: Views,
    /// Proposals of the present view that are not accepted yet.
    pub(super) proposals: BTreeMap<SlotNo, Arc<PrePrepare>>,
    /// Slots for which this member has given its COMMIT in the present view.
    pub(super) given: BTreeSet<SlotNo>,
    /// Highest certificate whose content is in the log (B11).
    pub(super) claim: Option<Certificate>,
    pub(super) outbox: Outbox,
    pub(super) links: OrderLinks,
    pub(super) disk: DiskState,
    pub(super) recall: Recall,
    /// First proof against each member that has lied.
    pub(super) evidence: BTreeMap<MemberId, Arc<Equivocation>>,
    pub(super) consents: BTreeMap<ContentDigest, Consents>,
    /// Last final slot at the last heartbeat.
    pub(super) heartbeat_slot: SlotNo,
    /// True while too few members are in reach, which was reported.
    pub(super) is_halted: bool,
    /// Heartbeats until it is reported that too few members are in reach since the start.
    pub(super) start_beats: u32,
    pub(super) is_patient: bool,
    pub(super) is_fetching: bool,
    /// True if the leader was asked last for what is missing.
    pub(super) has_asked_leader: bool,
    /// Pauses before the next calls of members, in doublings.
    pub(super) failures: BTreeMap<MemberId, u32>,
}

impl Vocabulary for BftReplica {
    type Message = Message;
    type Call = Member;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for BftReplica {
    type Opening = Opening;
    type CallFailure = MemberId;
    type Command = Command;
    type ExtraInput = ExtraInput;

    fn handle(&mut self, now: Now, input: Input, fx: &mut Fx) {
        self.now = now;
        if self.is_gone {
            return;
        }
        match input {
            Input::Start => self.on_start(fx),
            Input::Opened { link, opening } => self.on_opened(link, &opening, fx),
            Input::DialFailed(member) => self.on_dial_failed(member, fx),
            Input::Received { link, msg } => self.on_received(link, msg, fx),
            // The engine answers lines that are no messages.
            Input::Garbled { .. } => {}
            Input::Closed { link, .. } => self.on_closed(link, fx),
            Input::Synced { records } => self.on_synced(records, fx),
            Input::Expired(timer) => self.on_timer(timer, fx),
            Input::Command(command) => self.on_command(command, fx),
            Input::Extra(ExtraInput::Loaded { link, slots, headers, certificate }) => {
                self.on_loaded(link, slots, headers, certificate, fx);
            }
            Input::Extra(ExtraInput::Idle) => self.on_idle(fx),
        }
        self.mind_patience(fx);
    }
}

impl BftReplica {
    /// Creates a member that has not begun: the first input is [`Input::Start`].
    ///
    /// # Errors
    /// Fails if the records contradict each other or the identity: the log must not be used.
    pub fn new(
        config: Config,
        me: BftIdentity,
        mut rng: Rng,
        memory: OrderMemory,
    ) -> Result<Self, String> {
        let Restored { chain, claim, disk, view, typed, recall, evidence, is_new } =
            memory.restore(&config, &me)?;
        let group = me.founders.order_id(&me.salt);
        // Client numbers of a member must grow: those before the oldest remembered are refused.
        let drawn = rng.random::<u64>() >> 44;
        let origin = Origin::own(me.id, chain.settled().marks.newest_client(me.id) + 1 + drawn);
        let views = if is_new { Views::first(&config) } else { Views::restored(view, &config) };
        let mut pool = Pool::default();
        for (digest, bundle) in &typed {
            pool.add(*digest, Arc::clone(bundle));
        }
        Ok(Self {
            heartbeat_slot: chain.settled().tip.slot,
            outbox: Outbox::new(origin, typed),
            group,
            me,
            config,
            rng,
            now: Now::default(),
            is_gone: false,
            chain,
            pool,
            votes: Votes::default(),
            views,
            proposals: BTreeMap::new(),
            given: BTreeSet::new(),
            claim,
            links: OrderLinks::default(),
            disk,
            recall,
            evidence,
            consents: BTreeMap::new(),
            is_halted: false,
            start_beats: START_BEATS,
            is_patient: false,
            is_fetching: false,
            has_asked_leader: false,
            failures: BTreeMap::new(),
        })
    }

    fn on_start(&mut self, fx: &mut Fx) {
        if !self.disk.knows_group() {
            let committee = Arc::clone(&self.me.founders);
            let (salt, me) = (self.me.salt.clone(), self.me.id);
            self.disk.write(Record::Group { committee, salt, me }, fx);
        }
        self.begin_recall(fx);
        for voter in self.committee().voters().to_vec() {
            self.dial(voter.member, fx);
        }
        fx.set_timer(Timer::Heartbeat, self.config.heartbeat);
        self.rest_reign(fx);
        if !self.views.may_vote() {
            let next = self.views.view().next();
            self.wish(next, "it was restarted", fx);
        }
    }

    fn on_command(&mut self, command: Command, fx: &mut Fx) {
        match command {
            Command::Say { room, text } => self.on_say(room, text, fx),
            Command::Approve(change) => self.approve(change, fx),
            Command::Suspect => {
                let next = self.views.view().next();
                self.wish(next, "its operator asks for another leader", fx);
            }
            Command::Leave => {
                self.is_gone = true;
                for link in self.links.ids().collect::<Vec<_>>() {
                    fx.hangup(link);
                }
                fx.emit(Event::Gone);
            }
        }
    }

    fn on_timer(&mut self, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Heartbeat => self.on_heartbeat(fx),
            Timer::Patience => self.on_patience(fx),
            Timer::LeaderBroken => self.on_leader_broken(fx),
            Timer::Reign => {
                let next = self.views.view().next();
                self.wish(next, "its reign is over", fx);
            }
            Timer::Recall => self.on_recall_timer(fx),
            Timer::Fetch => self.on_fetch(fx),
            Timer::Redial(member) => self.on_redial(member, fx),
        }
    }

    fn on_synced(&mut self, records: u64, fx: &mut Fx) {
        self.disk.on_synced(records);
        self.release(fx);
    }

    fn on_idle(&mut self, fx: &mut Fx) {
        while let Some((digest, bundle)) = self.outbox.bundle(&self.group, &self.me.keys) {
            self.disk.write(Record::Typed(Arc::clone(&bundle)), fx);
            self.pool.add(digest, Arc::clone(&bundle));
            self.send_all(Message::Bundle(bundle), fx);
        }
        self.propose(fx);
    }

    fn on_say(&mut self, room: Arc<str>, text: Arc<str>, fx: &mut Fx) {
        let reason = if !self.is_member() {
            "this process follows the order, and is no member of its group now".to_owned()
        } else if text.len() > self.config.message_max {
            format!("it is longer than {} bytes", self.config.message_max)
        } else if self.outbox.len() >= self.config.pending_max {
            "busy: too many messages wait for their places".to_owned()
        } else {
            fx.emit(Event::Pending(self.outbox.add(room, text)));
            return;
        };
        fx.emit(Event::Rejected { room, text, reason });
    }

    /// Members of the present epoch.
    pub(super) const fn committee(&self) -> &Arc<Committee> {
        &self.chain.settled().committee
    }

    pub(super) const fn epoch(&self) -> EpochNo {
        self.chain.settled().epoch
    }

    /// Leader of the present view.
    pub(super) fn leader(&self) -> MemberId {
        self.leader_of(self.views.view())
    }

    pub(super) fn leader_of(&self, view: ViewNo) -> MemberId {
        self.committee().leader(self.epoch(), view)
    }

    pub(super) fn leads(&self) -> bool {
        self.leader() == self.me.id && self.is_member()
    }

    /// True if this member is one of the present epoch's.
    pub(super) fn is_member(&self) -> bool {
        self.committee().key(self.me.id) == Some(&self.me.keys.public())
    }

    /// True if this member may sign votes and claims now (B10, B20).
    pub(super) fn may_vote(&self) -> bool {
        self.is_member() && self.recall.is_certain() && self.views.may_vote()
    }

    /// Id and keys, for signatures.
    pub(super) const fn signer(&self) -> (MemberId, &KeyPair) {
        (self.me.id, &self.me.keys)
    }

    /// Sends a message to all members that are linked.
    pub(super) fn send_all(&self, msg: Message, fx: &mut Fx) {
        let links: Vec<_> = self.links.members().map(|(_, link)| link).collect();
        if !links.is_empty() {
            fx.send_all(links, msg);
        }
    }

    /// Counts an input that is dropped.
    pub(super) fn dropped(&self, reason: &'static str, fx: &mut Fx) {
        let _ = self;
        fx.emit(Event::Dropped(reason));
    }
}
