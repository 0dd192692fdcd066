//! A Byzantine order as a service of the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::core::{OrderCoreMsg, OrderCoreState};
use super::engine::Shared;
use super::handshake::{Error, OrderTarget};
use super::options::OrderNotification;
use super::store::{OrderSnapshots, SlotPage, SlotReader};
use crate::machine::bft::{
    BftReplica, Event, ExtraEffect, ExtraInput, Input, Opening, OrderSnapshot, Record,
};
use crate::machine::{LinkId, Never};
use crate::model::{PublicKey, Time};
use crate::proto::bft::handshake::OrderRefusal;
use crate::proto::bft::line;
use crate::proto::bft::message::Message;
use crate::proto::bft::{OrderId, SlotNo};
use crate::proto::chat::entry::{HostPort, Member, MemberId};
use crate::proto::line::LineError;
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::handshake::HandshakeError;
use crate::runtime::engine::link::GARBLED_MAX;
use crate::runtime::engine::link_writer::LinkWriter;
use crate::runtime::engine::service::Service;
use crate::runtime::member_log::LogStoreError;
use crate::runtime::member_log::jobs::Jobs;

/// Time for which nothing is said of a refusal as a second process: a first one that has just died
/// may still seem to be there.
const DOUBLED_QUIET: Duration = Duration::from_secs(1);

/// The log, as it is read, and its snapshots.
pub(super) struct Library {
    pub(super) reader: SlotReader,
    pub(super) snapshots: OrderSnapshots,
}

/// State of an order that all threads share.
pub(super) struct OrderService {
    pub(super) me: MemberId,
    pub(super) group: OrderId,
    /// Random number of this process.
    pub(super) process: u64,
    /// Members of the present epoch.
    pub(super) members: Mutex<BTreeMap<MemberId, Member>>,
    pub(super) jobs: Jobs<Library>,
    pub(super) refusals: Mutex<Refusals>,
}

/// Refusals of this member by others.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Members that have an open connection with another process of this key, since the first of
    /// them said so.
    doubled: BTreeMap<MemberId, Time>,
    /// Last reason that was reported of each member, which is not repeated.
    told: BTreeMap<MemberId, String>,
}

impl OrderService {
    pub(super) fn members(&self) -> MutexGuard<'_, BTreeMap<MemberId, Member>> {
        self.members.lock().expect("nothing under this lock can panic")
    }

    /// Replaces the members of the present epoch.
    pub(super) fn set_members<'a>(&self, members: impl Iterator<Item = &'a Member>) {
        *self.members() = members.map(|it| (it.id, it.clone())).collect();
    }

    pub(super) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().expect("nothing under this lock can panic")
    }
}

/// Other end of a connection, whose key is proved.
pub(super) struct Peer {
    pub(super) id: PeerProcess,
    pub(super) is_ours: bool,
}

/// Key of the other end of a connection, and the process that uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerProcess {
    pub(super) key: PublicKey,
    pub(super) process: u64,
}

type Core = EngineLoop<OrderService>;

impl Service for OrderService {
    type Machine = BftReplica;
    type State = OrderCoreState;
    type Extra = OrderCoreMsg;
    type Notification = OrderNotification;
    type Entry = Record;
    type Said = Message;

    const LOST: log::Level = log::Level::Debug;

    fn machine(state: &mut OrderCoreState) -> Option<&mut BftReplica> {
        Some(&mut state.order)
    }

    fn start(core: &mut Core) {
        core.handle(Input::Start);
        core.handle(Input::Extra(ExtraInput::Idle));
    }

    fn on_extra(core: &mut Core, extra: OrderCoreMsg) {
        core.take(extra);
    }

    fn on_opened(core: &mut Core, link: LinkId, peer: Peer) {
        let Peer { id: PeerProcess { key, .. }, is_ours } = peer;
        core.handle(Input::Opened { link, opening: Opening { key, is_ours } });
    }

    fn before_event(core: &mut Core, event: &Event) {
        core.note_event(event);
    }

    fn carry_out(core: &mut Core, effect: ExtraEffect) {
        core.carry_out_extra(effect);
    }

    fn persist(core: &mut Core, record: Record) {
        core.add_record(record);
    }

    fn end_batch(core: &mut Core) {
        core.handle(Input::Extra(ExtraInput::Idle));
    }

    fn on_failed(state: &mut OrderCoreState) {
        state.wake_waiting();
    }

    fn note(text: String) -> OrderNotification {
        OrderNotification::Note(text)
    }

    fn failed(reason: String) -> OrderNotification {
        OrderNotification::Failed(reason)
    }

    fn said(_shared: &Shared, message: Message) -> Message {
        message
    }

    fn append((): (), message: &Message, bytes: &mut Vec<u8>) {
        line::append(message, bytes);
        debug_assert!(bytes.len() <= line::LINE_BYTES_MAX, "a line that nobody reads");
    }

    fn read(
        shared: &Shared,
        (link, _): (LinkId, &LinkWriter),
        _: &PeerProcess,
        input: &mut Self::Reader,
    ) -> Result<(), String> {
        let mut garbled = 0;
        loop {
            match input.read() {
                Ok(Some(msg)) => {
                    let bytes = input.line_bytes();
                    let item = CoreMsg::Input(Input::Received { link, msg });
                    let pushed = shared.queue.push_of(link, item, bytes);
                    pushed.map_err(|_| "this member is stopping".to_owned())?;
                }
                Ok(None) => return Ok(()),
                Err(LineError::Malformed { reason }) => {
                    shared.counters.refused_message.add(1);
                    log::debug!("a line of a connection is no message: {reason}");
                    garbled += 1;
                    if garbled > GARBLED_MAX {
                        return Err("it says what is no message".to_owned());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn target(member: Member) -> (OrderTarget, MemberId) {
        let Member { id, at: HostPort { host, port }, key } = member;
        (OrderTarget { addr: (host, port).into(), id, key }, id)
    }

    /// The machine orders all calls.
    fn dial_members(_shared: &Arc<Shared>, _stopping: &Receiver<Never>) {}

    fn on_called(shared: &Shared, target: &OrderTarget, _peer: &Peer) {
        let mut refusals = shared.service.refusals();
        refusals.doubled.clear();
        refusals.told.remove(&target.id);
    }

    fn on_call_failed(shared: &Shared, target: &OrderTarget, error: &Error) {
        log::debug!("cannot reach {} at {}: {error}", target.id, target.addr);
        if error.is_refusal() {
            shared.on_refusal(target, error);
        }
    }
}

impl From<Event> for OrderNotification {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl Shared {
    /// Reports a refusal by another member, once; ends this member if more than the liars that the
    /// group bears, and all that answer, are connected with another process of its key, for longer
    /// than a connection of a process that died can last.
    fn on_refusal(&self, target: &OrderTarget, error: &Error) {
        let text = format!("{} at {} cannot be joined: {error}", target.id, target.addr);
        let mut refusals = self.service.refusals();
        if let HandshakeError::Refused(OrderRefusal::Doubled, reason, Some(_)) = error {
            let now = self.clock.now().mono;
            let first = refusals.doubled.values().min().copied().unwrap_or(now);
            refusals.doubled.insert(target.id, first);
            if now.since(first) < DOUBLED_QUIET {
                return;
            }
            let liars_borne = self.service.members().len().saturating_sub(1) / 3;
            if self.peers().is_empty()
                && refusals.doubled.len() > liars_borne
                && now.since(first) > self.limits.write_timeout * 2
            {
                self.fail(format!("another process uses the key of this member: {reason}"));
            }
        }
        if refusals.told.insert(target.id, text.clone()).as_ref() != Some(&text) {
            self.note(text);
        }
    }

    /// Has final slots read for a member. If there is no room it asks again.
    pub(super) fn load(self: Arc<Self>, link: LinkId, from: SlotNo, max: (usize, usize)) {
        let shared = Arc::clone(&self);
        let _ = self.service.jobs.hand_over(move |library| {
            match library.reader.page(from, max.0, max.1) {
                Ok(SlotPage { slots, headers, certificate }) => {
                    let loaded = ExtraInput::Loaded { link, slots, headers, certificate };
                    shared.submit(Input::Extra(loaded));
                }
                // Whoever asks for an old slot must not stop this member by it; that link gets no
                // more of them.
                Err(error @ LogStoreError::Corrupt { .. }) => {
                    shared.note(format!("a member asks for what cannot be read: {error}"));
                }
                Err(error) => shared.fail(error.to_string()),
            }
        });
    }

    /// Has a snapshot written.
    pub(super) fn keep(&self, snapshot: Box<OrderSnapshot>) {
        let _ = self.service.jobs.hand_over(move |library| {
            if let Err(error) = library.snapshots.write(&snapshot) {
                // The log itself is whole; the next start only takes longer.
                log::warn!("{error}");
            }
        });
    }

    /// Has the log read for people.
    ///
    /// # Errors
    /// Fails if the member is stopping, too much is being read, or the disk refuses.
    pub(super) fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&SlotReader) -> Result<T, LogStoreError> + Send + 'static,
    ) -> Result<T, String> {
        let answer = self.service.jobs.ask(move |library| read(&library.reader));
        let answer = answer.map_err(|_| "this member is stopping".to_owned())?;
        let Some(answer) = answer else {
            return Err("too much is being read from the log now; try again".to_owned());
        };
        answer.map_err(|error| error.to_string())
    }
}
