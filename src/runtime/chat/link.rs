//! The reading end of a connection, from the moment at which both ends have proved their keys.
//!
//! Invariant: the machine learns of the connection before anything from it, and of its end exactly
//! once; both are told by the reading thread.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::Shared;
use super::keeper::{Arrival, Item};
use super::loader::{Job, hand_over};
use crate::machine::LinkId;
use crate::machine::chat::messages::{Intent, JoinAck, VerifyReq, VerifyResp};
use crate::machine::chat::{Input, Member, Message};
use crate::proto::chat::Reader;
use crate::proto::line::ReadError;
use crate::proto::sealed::{Incoming, Sealer};
use crate::runtime::inbox::Closed;
use crate::runtime::line::{Line, give_up_after};
use crate::runtime::timed::Timed;

/// Largest number of lines of a connection that may be no messages; newer programs may send types
/// that are not known here, but an end that sends nothing else is not one of them.
const GARBLED_MAX: u32 = 64;

/// Largest number of running hashes in one answer.
pub(super) const VERIFY_MAX: usize = 64;

/// A connection over which both ends have proved their keys.
pub(super) struct Ends {
    pub(super) input: Reader<Incoming<Timed>>,
    pub(super) deadline: Arc<AtomicU64>,
    /// Counter of the connection's reads.
    pub(super) reads: Arc<AtomicU64>,
    pub(super) stream: Arc<TcpStream>,
    pub(super) sealer: Option<Sealer>,
    /// Member at the other end.
    pub(super) member: Member,
    pub(super) intent: Intent,
    /// Random number of the process at the other end.
    pub(super) life: Option<u64>,
    /// Last message of the called member, if this end called.
    pub(super) ack: Option<JoinAck>,
}

impl Shared {
    /// Submits the messages of a connection until either end closes it, on the calling thread.
    pub(super) fn converse(&self, ends: Ends) {
        let Ends { mut input, deadline, reads, stream, sealer, member, intent, life, ack } = ends;
        deadline.store(u64::MAX, Ordering::Relaxed);
        let is_ready = stream.set_read_timeout(None).is_ok()
            && stream.set_write_timeout(Some(self.limits.write_timeout)).is_ok();
        give_up_after(&stream, self.limits.write_timeout);
        let link = self.number_link();
        let line = Arc::new(Line::new(Arc::clone(&stream)));
        let is_member = intent == Intent::Member;
        let peer = member.id;
        let for_machine = Arc::clone(&line);
        let arrival = Arrival { link, line: for_machine, reads, sealer, member, intent, life, ack };
        self.enter(link, &stream, peer, is_member);
        if is_ready && self.inbox.push(Item::Arrived(Box::new(arrival)), 0).is_ok() {
            self.counters.links.add(1);
            let outcome = self.read(link, &mut input, is_member);
            log::debug!("a connection with {peer} has ended: {outcome:?}");
            let reason = outcome.err().unwrap_or_default();
            self.submit(Input::Closed { link, reason });
        }
        self.leave(link);
        line.cut();
    }

    fn read(
        &self,
        link: LinkId,
        input: &mut Reader<Incoming<Timed>>,
        is_member: bool,
    ) -> Result<(), String> {
        let mut garbled = 0;
        let ended = |_: Closed| "this member is stopping".to_owned();
        loop {
            match input.read() {
                Ok(Some(Message::VerifyReq(question))) if is_member => {
                    self.answer_verify(link, question).map_err(ended)?;
                }
                Ok(Some(Message::VerifyResp(answer)))
                    if is_member && !self.verify.is_awaited(answer.question) =>
                {
                    // A sign of life, which the machine has asked for.
                    let msg = Message::VerifyResp(answer);
                    self.inbox
                        .push(Item::Input(Input::Received { link, msg }), 0)
                        .map_err(ended)?;
                }
                Ok(Some(Message::VerifyResp(answer))) if is_member => self.verify.take(answer),
                Ok(Some(msg)) => {
                    let bytes = input.line_bytes();
                    let item = Item::Input(Input::Received { link, msg });
                    self.inbox.push(item, bytes).map_err(ended)?;
                }
                Ok(None) => return Ok(()),
                Err(ReadError::Malformed { reason }) => {
                    self.counters.refused_line.add(1);
                    garbled += 1;
                    self.inbox.push(Item::Garbled { link, reason }, 0).map_err(ended)?;
                    if garbled > GARBLED_MAX {
                        return Err("it says what is no message".to_owned());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Looks up running hashes in the log for another member (C11).
    fn answer_verify(&self, link: LinkId, question: VerifyReq) -> Result<(), Closed> {
        let commit = self.ask(|group| group.status().commit)?;
        if question.at.is_empty() {
            // A sign of life is wanted; no disk is to hold it up.
            let (sender_id, question) = (self.me.id, question.question);
            let answer = VerifyResp { sender_id, question, commit, hashes: Vec::new() };
            return self.inbox.push(Item::Answer(link, Message::VerifyResp(answer)), 0);
        }
        let mut at = question.at;
        at.retain(|seq| *seq <= commit);
        at.truncate(VERIFY_MAX);
        at.sort_unstable();
        let (reply, replied) = crossbeam_channel::bounded(1);
        if !hand_over(&self.jobs()?, Job::Hashes { at, after: self.records(), reply }) {
            return Ok(());
        }
        if let Ok(Ok(hashes)) = replied.recv() {
            let (sender_id, question) = (self.me.id, question.question);
            let answer = VerifyResp { sender_id, question, commit, hashes };
            self.inbox.push(Item::Answer(link, Message::VerifyResp(answer)), 0)?;
        }
        Ok(())
    }
}
