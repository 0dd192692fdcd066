//! Differences between the engines of different machines.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::core::EngineLoop;
use super::handshake::{Handshake, HandshakeError};
use super::link_writer::LinkWriter;
use super::shared::Shared;
use super::timed::DeadlineStream;
use crate::machine::{Effect, Input, LinkId, Machine, Never, Vocabulary};
use crate::model::Time;
use crate::proto::dialect::Dialect;
use crate::proto::sealed::PlainOrSealed;

/// Message of the machine of a service.
pub(in crate::runtime) type MessageOf<S> = <<S as Service>::Machine as Vocabulary>::Message;

/// Call that the machine of a service orders.
pub(in crate::runtime) type CallOf<S> = <<S as Service>::Machine as Vocabulary>::Call;

/// Timer of the machine of a service.
pub(in crate::runtime) type TimerOf<S> = <<S as Service>::Machine as Vocabulary>::Timer;

/// A machine on an engine: its state beside the machine, its dialect and its log. The value is
/// shared by all threads of the engine.
pub(in crate::runtime) trait Service: HandshakeDialect {
    /// Machine that the engine runs.
    type Machine: Machine<
            Message: Send,
            Opening: Send,
            CallFailure: Clone + Send,
            Command: Send,
            ExtraInput: Send,
            Timer: Send,
            Record: Send,
            Event: Send,
        > + 'static;
    /// State that the core thread owns, the machine among it.
    type State: Send;
    /// Messages to the core thread that only this service has.
    type Extra: Send;
    /// Reports to the sink.
    type Notification: From<<Self::Machine as Vocabulary>::Event> + 'static;
    /// Entries of the log.
    type Entry: Send + 'static;
    /// A message, with all that its bytes depend on.
    type Said;

    /// Level at which a report without room in the sink is logged.
    const LOST: log::Level;

    /// The machine, once there is one.
    fn machine(state: &mut Self::State) -> Option<&mut Self::Machine>;

    /// Begins, before the first message to the core thread.
    fn start(core: &mut EngineLoop<Self>);

    /// Takes a message that only this service has.
    fn on_extra(core: &mut EngineLoop<Self>, extra: Self::Extra);

    /// Takes a new connection, whose link can be sent on already.
    fn on_opened(core: &mut EngineLoop<Self>, link: LinkId, peer: Self::Peer);

    /// Takes an input before the machine does.
    fn on_input(core: &mut EngineLoop<Self>, input: Input<Self::Machine>) {
        core.handle(input);
    }

    /// Notes an effect before it is carried out.
    fn before_effect(_core: &mut EngineLoop<Self>, _effect: &Effect<Self::Machine>) {}

    /// Notes a deadline before the machine learns of it.
    fn before_timer(_core: &mut EngineLoop<Self>, _timer: &TimerOf<Self>) {}

    /// Notes an event before it is reported.
    fn before_event(core: &mut EngineLoop<Self>, event: &<Self::Machine as Vocabulary>::Event);

    /// Notes that a message waits to be sent on a link.
    fn after_send(_core: &mut EngineLoop<Self>, _link: LinkId, _said: &Self::Said) {}

    /// Carries out an effect that only this machine has.
    fn carry_out(core: &mut EngineLoop<Self>, effect: <Self::Machine as Vocabulary>::ExtraEffect);

    /// Adds a record to the entries for the log.
    fn persist(core: &mut EngineLoop<Self>, record: <Self::Machine as Vocabulary>::Record);

    /// Ends a batch: all messages that waited were taken.
    fn end_batch(core: &mut EngineLoop<Self>);

    /// Time at which [`Self::end_batch`] has something to do, beside the deadlines of the machine.
    fn deadline(_state: &Self::State) -> Option<Time> {
        None
    }

    /// Drops the threads that wait for the machine: the disk has failed, and it answers no more.
    fn on_failed(state: &mut Self::State);

    /// Report of a remark for people.
    fn note(text: String) -> Self::Notification;

    /// Report that the disk has failed.
    fn failed(reason: String) -> Self::Notification;

    /// Adds the sender, say, to a message.
    fn said(shared: &Shared<Self>, message: MessageOf<Self>) -> Self::Said;

    /// Appends the bytes of a message.
    fn append(form: Self::Form, said: &Self::Said, bytes: &mut Vec<u8>);

    /// Reads a connection until either end closes it, on the calling thread.
    ///
    /// # Errors
    /// Reason in words for which the connection ends, if the other end has not just closed it.
    fn read(
        shared: &Shared<Self>,
        link: (LinkId, &LinkWriter),
        peer: &Self::PeerId,
        input: &mut Self::Reader,
    ) -> Result<(), String>;

    /// Target of a call that the machine orders, and the input if it fails.
    fn target(call: CallOf<Self>) -> (Self::Target, <Self::Machine as Machine>::CallFailure);

    /// Makes the calls that the machine does not order, until `stopping` is disconnected.
    fn dial_members(shared: &Arc<Shared<Self>>, stopping: &Receiver<Never>);

    /// Notes that a call has succeeded, before its connection is read.
    fn on_called(shared: &Shared<Self>, target: &Self::Target, peer: &Self::Peer);

    /// Notes that a call has failed, before anyone calls again.
    fn on_call_failed(
        shared: &Shared<Self>,
        target: &Self::Target,
        error: &HandshakeError<Self::Code>,
    );
}

/// The words with which both ends of a connection prove their keys.
pub(in crate::runtime) trait HandshakeDialect:
    Sized + Send + Sync + 'static
{
    /// Name of the engine, for threads.
    const NAME: &'static str;
    /// The engine in words, for people.
    const ABOUT: &'static str;
    /// All forms that messages have on connections.
    const FORMS: &'static [Self::Form];

    /// Form of the messages on one connection.
    type Form: Copy + PartialEq + Send + 'static;
    /// Reader of messages.
    type Reader: Send;
    /// Message of the handshake.
    type Word;
    /// Reason of a refusal, for programs.
    type Code: Debug + Send;
    /// Target of a call.
    type Target: Send + 'static;
    /// Facts about the other end, whose key is proved.
    type Peer: Send;
    /// Identity of the other end.
    type PeerId: Clone + Debug + Send;

    /// Form of this engine's own calls, and of encrypted connections.
    fn own_form() -> Self::Form;

    /// Form of a plain connection of this dialect; `None` if it is another engine's.
    fn form_of(dialect: Dialect) -> Option<Self::Form>;

    /// Reader of a connection's messages.
    fn reader(form: Self::Form, incoming: PlainOrSealed<DeadlineStream>) -> Self::Reader;

    /// Reads a message of the handshake; `None` at the end of the stream.
    fn read_word(
        input: &mut Self::Reader,
    ) -> Result<Option<Self::Word>, HandshakeError<Self::Code>>;

    /// Bytes of a message of the handshake.
    fn encode(form: Self::Form, word: &Self::Word) -> Vec<u8>;

    /// Refusal in this dialect.
    fn refusal(&self, code: &Self::Code, reason: &str) -> Self::Word;

    /// Refusal of a caller for which there is no room.
    fn busy(&self, reason: &str) -> Self::Word;

    /// Bytes for an end whose dialect or lack of a cluster key does not fit, and the error.
    fn turn_away(
        &self,
        dialect: Dialect,
        form: Option<Self::Form>,
    ) -> (Option<Vec<u8>>, HandshakeError<Self::Code>);

    /// Identity of the other end.
    fn id_of(peer: &Self::Peer) -> Self::PeerId;

    /// Address of a target.
    fn resolve(target: &Self::Target) -> Option<SocketAddr>;

    /// Name of the thread of a call.
    fn port_of(target: &Self::Target) -> u16;

    /// Lets a caller prove its key, and decides whether it may stay.
    fn identify(
        shared: &Shared<Self>,
        handshake: &mut Handshake<Self>,
    ) -> Result<Self::Peer, HandshakeError<Self::Code>>
    where
        Self: Service;

    /// Proves this end's key to the end that was called.
    fn introduce(
        shared: &Shared<Self>,
        handshake: &mut Handshake<Self>,
        addr: SocketAddr,
        target: &Self::Target,
    ) -> Result<Self::Peer, HandshakeError<Self::Code>>
    where
        Self: Service;
}
