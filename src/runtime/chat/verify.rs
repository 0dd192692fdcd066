//! Comparison of all members' logs: each is asked for hashes, to find the first entry that differs
//! (C11).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use serde::Serialize;

use super::core::ChatCoreMsg;
use super::engine::Shared;
use super::service::VERIFY_MAX;
use crate::machine::LinkId;
use crate::proto::chat::entry::{ChainHash, MemberId, SeqNo};
use crate::proto::chat::message::{Message, VerifyReq, VerifyResp};
use crate::runtime::engine::core::CoreMsg;
use crate::runtime::engine::core_queue::Closed;

/// Time-out of a member's answer; it may have to read its whole log first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Comparison of one member's log with this one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum LogComparison {
    /// Both logs are the same up to the end of the shorter one.
    Equal {
        /// Number of the last entry of both.
        up_to: SeqNo,
    },
    /// The logs differ from an entry on.
    Differs {
        /// Number of the first entry that differs.
        from: SeqNo,
    },
    /// The member did not answer.
    Silent,
}

/// Comparison of all logs that can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Number of the last final entry here.
    pub commit: SeqNo,
    /// Running hash after that entry.
    pub hash: ChainHash,
    /// Every linked member, ascending.
    pub members: Vec<(MemberId, LogComparison)>,
}

impl VerifyReport {
    /// True if no member's log differs.
    pub fn is_whole(&self) -> bool {
        !self.members.iter().any(|(_, it)| matches!(it, LogComparison::Differs { .. }))
    }
}

/// Questions that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_question: BTreeMap<u64, Sender<VerifyResp>>,
}

impl Answers {
    /// Passes an answer to the thread that waits for it.
    pub(super) fn take(&self, answer: VerifyResp) {
        let mut waiting = self.0.lock().expect("nothing under this lock can panic");
        if let Some(reply) = waiting.by_question.remove(&answer.question) {
            // The asking thread may have gone meanwhile.
            let _ = reply.try_send(answer);
        }
    }

    /// True if a thread waits for the answer to a question.
    pub(super) fn is_awaited(&self, question: u64) -> bool {
        let waiting = self.0.lock().expect("nothing under this lock can panic");
        waiting.by_question.contains_key(&question)
    }

    fn begin(&self, reply: Sender<VerifyResp>) -> u64 {
        let mut waiting = self.0.lock().expect("nothing under this lock can panic");
        waiting.next += 1;
        let question = waiting.next;
        waiting.by_question.insert(question, reply);
        question
    }

    fn forget(&self, question: u64) {
        self.0.lock().expect("nothing under this lock can panic").by_question.remove(&question);
    }
}

impl Shared {
    /// Compares this log with those of all linked members.
    pub(super) fn compare(&self) -> Result<VerifyReport, String> {
        let gone = |_: Closed| "this member is stopping".to_owned();
        let commit = self.ask(|state| state.group.status().commit).map_err(gone)?;
        let hash = self.own_hashes(vec![commit])?.pop().map_or_else(ChainHash::default, |it| it.1);
        let mut members = Vec::new();
        for (member, link) in self.member_links() {
            members.push((member, self.compare_with(link, commit)?));
        }
        Ok(VerifyReport { commit, hash, members })
    }

    fn compare_with(&self, link: LinkId, commit: SeqNo) -> Result<LogComparison, String> {
        let Some(first) = self.question(link, vec![commit]) else {
            return Ok(LogComparison::Silent);
        };
        let up_to = commit.min(first.commit);
        // The logs are the same up to `low`, and differ at `high`, once that is known.
        let (mut low, mut high, mut at) = (SeqNo(0), None, vec![up_to]);
        loop {
            let Some(answer) = self.question(link, at.clone()) else {
                return Ok(LogComparison::Silent);
            };
            let own = self.own_hashes(at)?;
            for (mine, its) in own.iter().zip(&answer.hashes) {
                if mine == its {
                    low = low.max(mine.0);
                } else {
                    high = Some(high.unwrap_or(mine.0).min(mine.0));
                    break;
                }
            }
            let Some(high) = high else {
                return Ok(if up_to.0 == 0 || !own.is_empty() {
                    LogComparison::Equal { up_to }
                } else {
                    LogComparison::Silent
                });
            };
            if high.0 <= low.0 + 1 {
                return Ok(LogComparison::Differs { from: high });
            }
            at = points(low, high);
        }
    }

    fn question(&self, link: LinkId, at: Vec<SeqNo>) -> Option<VerifyResp> {
        let (reply, answer) = bounded(1);
        let question = self.service.verify.begin(reply);
        let message = VerifyReq { sender_id: self.service.me.id, question, at };
        let asked = self
            .queue
            .push(CoreMsg::Extra(ChatCoreMsg::Answer(link, Message::VerifyReq(message))), 0);
        let answer = asked.ok().and_then(|()| answer.recv_timeout(PATIENCE).ok());
        self.service.verify.forget(question);
        answer
    }

    fn own_hashes(&self, at: Vec<SeqNo>) -> Result<Vec<(SeqNo, ChainHash)>, String> {
        self.read_log(move |reader| reader.hashes(&at))
    }
}

/// Numbers in the range from `low` to `high`, evenly spread, with `high`.
fn points(low: SeqNo, high: SeqNo) -> Vec<SeqNo> {
    let span = high.0 - low.0;
    let count = span.min(VERIFY_MAX as u64);
    // No product of theirs is too large: the count is small, and so is the rest.
    let (step, rest) = (span / count, span % count);
    (1..=count).map(|it| SeqNo(low.0 + step * it + rest * it / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_ascend_and_end_with_the_last() {
        for (low, high) in [(0, 1), (5, 7), (0, 64), (3, 1_000_000), (0, 1 << 62)] {
            let found = points(SeqNo(low), SeqNo(high));
            assert!(found.windows(2).all(|it| it[0] < it[1]), "{low} {high}");
            assert!(found.len() <= VERIFY_MAX && found[0].0 > low);
            assert_eq!(found.last(), Some(&SeqNo(high)));
        }
    }
}
