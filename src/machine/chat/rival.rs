//! Two processes with one member's key (R12): a copied data folder, a restored machine beside
//! the old one.
//!
//! A later process is admitted only when the earlier one has fallen silent. Until then the
//! earlier one is asked for a sign of life by a fresh random number; its answer proves that both
//! run at once, and both are told. No message of the later process counts meanwhile, so the
//! group loses nothing.

use rand::RngExt as _;

use super::config::Rule;
use super::event::Event;
use super::links::Link;
use super::replica::{Fx, Replica};
use crate::machine::LinkId;
use crate::proto::chat::entry::MemberId;
use crate::proto::chat::message::{Message, NackCode, VerifyReq, VerifyResp};

impl Replica {
    /// True if a new connection is another process's than the one that is linked as this member.
    pub(super) fn is_rival(&self, new: &Link) -> bool {
        let id = new.member().id;
        let old = self.links.of_member(id).and_then(|link| self.links.get(link));
        old.is_some_and(|old| {
            let (old, new) = (old.life(), new.life());
            let is_other = old.is_some() && new.is_some() && old != new;
            let silence = self.links.heard_at(id).map(|at| self.process.now().since(at));
            let is_recent = silence.is_some_and(|it| it < self.config.leader_timeout);
            is_other && is_recent && self.config.keeps(Rule::OneProcess)
        })
    }

    /// Refuses a later process, and asks the earlier one for a sign of life.
    pub(super) fn turn_away(&mut self, id: MemberId, link: LinkId, fx: &mut Fx) {
        let Some(earlier) = self.links.of_member(id) else { return };
        let Some(new) = self.links.get(link) else { return };
        let (life, at) = (new.life(), new.member().at);
        self.drop_it("a second process of a member", fx);
        let rng = self.process.rng();
        if let Some(question) = self.rivals.question(id, life, at, || rng.random()) {
            let ask = VerifyReq { sender_id: self.process.id(), question, at: Vec::new() };
            self.send(earlier, Message::VerifyReq(ask), fx);
            let reason = "an earlier process of this member was heard a moment ago; try again";
            self.refuse(link, NackCode::Busy, reason, fx);
        } else {
            let here = self.links.get(earlier).map_or(at, |it| it.member().at);
            let reason = format!(
                "another process is {id} already, at {}:{}, and has just answered: this one is not \
                 let in. Was its data folder copied? Stop this one; to join as a further member, \
                 start it with another --id and a --data and --log-dir of its own",
                here.host, here.port
            );
            self.refuse(link, NackCode::Doubled, &reason, fx);
        }
        fx.hangup(link);
    }

    /// Takes the sign of life of an earlier process that was asked for one.
    pub(super) fn on_sign_of_life(
        &mut self,
        id: MemberId,
        link: LinkId,
        answer: &VerifyResp,
        fx: &mut Fx,
    ) {
        if self.links.of_member(id) != Some(link) {
            return;
        }
        let Some(at) = self.rivals.answer(id, answer.question) else { return };
        let reason = format!(
            "another process came with the key of {id}, from {}:{}, and was refused. Was the data \
             folder copied, or this machine restored a second time? Stop the other one",
            at.host, at.port
        );
        self.refuse(link, NackCode::Copied, &reason, fx);
        fx.emit(Event::Doubled { member: id, reason });
    }
}
