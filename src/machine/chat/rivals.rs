//! Later processes with the keys of members that are linked (R12).

use std::collections::BTreeMap;

use crate::proto::chat::entry::{HostPort, MemberId};

/// A later process with the key of a member that is linked.
#[derive(Debug)]
struct Rival {
    life: Option<u64>,
    at: HostPort,
    /// Random number of the question that the earlier process has been asked.
    question: u64,
    /// True if the earlier process has answered.
    is_proved: bool,
}

/// All later processes; the last one of each member.
#[derive(Debug, Default)]
pub(super) struct Rivals(BTreeMap<MemberId, Rival>);

impl Rivals {
    /// Notes that a later process has come. Returns the question for the earlier process; `None`
    /// if that has proved already that it runs.
    pub(super) fn question(
        &mut self,
        id: MemberId,
        life: Option<u64>,
        at: HostPort,
        draw: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let known = self.0.get(&id).filter(|it| it.life == life);
        if known.is_some_and(|it| it.is_proved) {
            return None;
        }
        // An answer to the first question is as good, and may be under way.
        let question = known.map_or_else(draw, |it| it.question);
        self.0.insert(id, Rival { life, at, question, is_proved: false });
        Some(question)
    }

    /// Takes an answer of the earlier process. Returns the address of the later one, if the answer
    /// proves for the first time that both run.
    pub(super) fn answer(&mut self, id: MemberId, question: u64) -> Option<HostPort> {
        let rival = self.0.get_mut(&id)?;
        if rival.question != question || rival.is_proved {
            return None;
        }
        rival.is_proved = true;
        Some(rival.at)
    }

    /// Forgets a later process: the earlier one is gone.
    pub(super) fn forget(&mut self, id: MemberId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MemberId = MemberId(3);

    fn at(port: u16) -> HostPort {
        HostPort { host: [127, 0, 0, 1].into(), port }
    }

    #[test]
    fn one_fresh_answer_proves_two_processes_once() {
        let mut rivals = Rivals::default();
        assert_eq!(rivals.answer(ID, 7), None, "nobody has asked");
        assert_eq!(rivals.question(ID, Some(1), at(1), || 7), Some(7));
        assert_eq!(rivals.question(ID, Some(1), at(1), || 8), Some(7), "may be under way");
        assert_eq!(rivals.answer(ID, 8), None, "an answer to something else");
        assert_eq!([rivals.answer(ID, 7), rivals.answer(ID, 7)], [Some(at(1)), None]);
        assert_eq!(rivals.question(ID, Some(1), at(1), || 9), None, "it is proved");
        assert_eq!(rivals.question(ID, Some(2), at(2), || 9), Some(9), "a third process");
        rivals.forget(ID);
        assert_eq!(rivals.answer(ID, 9), None);
    }
}
