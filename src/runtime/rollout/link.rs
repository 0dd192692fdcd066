//! The reading end of a connection, from the moment at which both ends have proved their keys.
//!
//! Invariant: the machine hears of the connection before anything from it, and of its end exactly
//! once; both are told by the reading thread.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::Shared;
use super::keeper::{Arrival, Item};
use crate::machine::LinkId;
use crate::machine::rollout::Input;
use crate::proto::rollout::{Enroll, EnrollAck, Form, Participant, ReadError, Reader, Said};
use crate::proto::sealed::{Incoming, Sealer};
use crate::runtime::line::{Line, give_up_after};
use crate::runtime::timed::Timed;

/// Largest number of unreadable messages of a connection. Newer programs may send some that are not
/// known here, but an end that sends nothing else is not one of them.
const GARBLED_MAX: u32 = 64;

/// Connection over which both ends have proved their keys.
pub(super) struct Ends {
    pub(super) input: Reader<Incoming<Timed>>,
    pub(super) form: Form,
    pub(super) deadline: Arc<AtomicU64>,
    pub(super) stream: Arc<TcpStream>,
    pub(super) sealer: Option<Sealer>,
    /// Name, address and key of the other end.
    pub(super) other: Participant,
    /// First message of the other end, if it called.
    pub(super) enroll: Option<Enroll>,
    /// Last message of the other end's handshake, if it was called.
    pub(super) ack: Option<EnrollAck>,
}

impl Shared {
    /// Registers the connection and reads it to its end, on the calling thread.
    pub(super) fn converse(&self, ends: Ends) {
        let Ends { mut input, form, deadline, stream, sealer, other, enroll, ack } = ends;
        deadline.store(u64::MAX, Ordering::Relaxed);
        let is_ready = stream.set_read_timeout(None).is_ok()
            && stream.set_write_timeout(Some(self.limits.write_timeout)).is_ok();
        give_up_after(&stream, self.limits.write_timeout);
        let link = self.number_link();
        let line = Arc::new(Line::new(Arc::clone(&stream)));
        let is_caller = enroll.is_some();
        let joins = enroll.is_some_and(|it| it.joins);
        let genesis = ack.and_then(|it| it.genesis);
        let node = other.node_id.clone();
        let arrival = Arrival {
            link,
            line: Arc::clone(&line),
            form,
            sealer,
            other,
            is_caller,
            joins,
            genesis,
        };
        self.enter(link, &stream);
        if is_ready && self.inbox.push(Item::Arrived(Box::new(arrival)), 0).is_ok() {
            self.counters.links.add(1);
            let outcome = self.read(link, (&node, &line), &mut input);
            log::debug!("a connection with {node} has ended: {outcome:?}");
            self.submit(Input::Unlinked { link });
        }
        self.leave(link);
        line.cut();
    }

    fn read(
        &self,
        link: LinkId,
        (node, line): (&crate::proto::rollout::NodeId, &Line),
        input: &mut Reader<Incoming<Timed>>,
    ) -> Result<(), String> {
        let mut garbled = 0;
        loop {
            let reason = match input.read() {
                Ok(Some(Said { sender, message: msg })) if sender == *node => {
                    let item = Item::Input(Input::Received { link, msg });
                    let pushed = self.inbox.push(item, input.message_bytes());
                    pushed.map_err(|_| "this node is stopping".to_owned())?;
                    continue;
                }
                Ok(Some(Said { sender, .. })) => format!("{sender} is not who proved this key"),
                Ok(None) => return Ok(()),
                Err(ReadError::Malformed { reason }) => reason,
                Err(error) if error.is_recoverable() => error.to_string(),
                Err(error) => {
                    // The next message cannot be found: the other end is told, and the connection
                    // ends.
                    self.refuse(line, input.form(), &error.to_string());
                    return Err(error.to_string());
                }
            };
            self.counters.refused_message.add(1);
            self.refuse(line, input.form(), &reason);
            garbled += 1;
            if garbled > GARBLED_MAX {
                return Err("it says what is no message".to_owned());
            }
        }
    }
}
