//! Two processes with one member's key (R12): a copied data folder, a restored machine beside
//! the old one.
//!
//! A later process is admitted only when the earlier one has fallen silent. Until then the
//! earlier one is asked for a sign of life by a fresh random number; its answer proves that both
//! run at once, and both are told. No message of the later process counts meanwhile, so the
//! group loses nothing.

use rand::RngExt as _;

use super::config::Rule;
use super::event::{Event, Fx};
use super::group::Group;
use super::links::Link;
use crate::machine::LinkId;
use crate::proto::chat::entry::{At, MemberId};
use crate::proto::chat::message::{Message, NackCode, VerifyReq, VerifyResp};

/// A later process with the key of a member that is linked.
#[derive(Debug)]
pub(super) struct Rival {
    life: Option<u64>,
    at: At,
    /// Random number of the question that the earlier process has been asked.
    question: u64,
    /// True if the earlier process has answered.
    is_proved: bool,
}

impl Group {
    /// True if a new connection is another process's than the one that is linked as this member.
    pub(super) fn is_rival(&self, new: &Link) -> bool {
        let old = self.links.of_member(new.member.id).and_then(|link| self.links.get(link));
        old.is_some_and(|old| {
            let is_other = old.life.is_some() && new.life.is_some() && old.life != new.life;
            let heard = self.links.heard.get(&new.member.id);
            let is_recent =
                heard.is_some_and(|at| self.now.mono.since(*at) < self.config.leader_timeout);
            is_other && is_recent && self.config.keeps(Rule::OneProcess)
        })
    }

    /// Refuses a later process, and asks the earlier one for a sign of life.
    pub(super) fn turn_away(&mut self, id: MemberId, link: LinkId, fx: &mut Fx) {
        let Some(earlier) = self.links.of_member(id) else { return };
        let Some(new) = self.links.get(link) else { return };
        let (life, at) = (new.life, new.member.at);
        let known = self.links.rivals.get(&id).filter(|it| it.life == life);
        let is_proved = known.is_some_and(|it| it.is_proved);
        // An answer to the first question is as good, and may be under way.
        let asked = known.map(|it| it.question);
        self.drop_it("a second process of a member", fx);
        if is_proved {
            let here = self.links.get(earlier).map_or(at, |it| it.member.at);
            let reason = format!(
                "another process is {id} already, at {}:{}, and has just answered: this one is not \
                 let in. Was its data folder copied? Stop this one; to join as a further member, \
                 start it with another --id and a --data and --log-dir of its own",
                here.host, here.port
            );
            self.refuse(link, NackCode::Doubled, &reason, fx);
        } else {
            let question = asked.unwrap_or_else(|| self.rng.random());
            let rival = Rival { life, at, question, is_proved: false };
            self.links.rivals.insert(id, rival);
            let ask = VerifyReq { sender_id: self.me.id, question, at: Vec::new() };
            self.send(earlier, Message::VerifyReq(ask), fx);
            let reason = "an earlier process of this member was heard a moment ago; try again";
            self.refuse(link, NackCode::Busy, reason, fx);
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
        let is_current = self.links.of_member(id) == Some(link);
        let Some(rival) = self.links.rivals.get_mut(&id) else { return };
        if !is_current || rival.question != answer.question || rival.is_proved {
            return;
        }
        rival.is_proved = true;
        let at = rival.at;
        let reason = format!(
            "another process came with the key of {id}, from {}:{}, and was refused. Was the data \
             folder copied, or this machine restored a second time? Stop the other one",
            at.host, at.port
        );
        self.refuse(link, NackCode::Copied, &reason, fx);
        fx.emit(Event::Doubled { member: id, reason });
    }
}
