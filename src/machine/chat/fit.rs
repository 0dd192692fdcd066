//! The rule by which entries of another log are taken at their places (R6).
//!
//! Invariant: nothing final is cut; two logs that agree at one entry agree before it.

use std::sync::Arc;

use super::window::LogWindow;
use crate::proto::chat::entry::{Entry, SeqNo, Term};

/// Reason why entries were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppendError {
    /// The log ends before the entries.
    Gap,
    /// The entry before them is another one here.
    Conflict,
    /// The entries contradict a final one: a log is broken.
    Final(SeqNo),
    /// The entries are no piece of a log.
    Nonsense,
}

/// Change of a log that takes entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// First number to cut, if the tail is another one here.
    pub(super) cut: Option<SeqNo>,
    /// Number of the first entries that are here already.
    pub(super) known: usize,
    /// Number up to which the log is the sender's then.
    pub(super) end: SeqNo,
}

/// Decides how `entries` fit behind the entry `prev_term` at `prev_seq`. Without `matches`, that
/// entry is not compared.
pub(super) fn fit(
    log: &LogWindow,
    (prev_seq, prev_term): (SeqNo, Term),
    entries: &[Arc<Entry>],
    matches: bool,
) -> Result<Fit, AppendError> {
    if !is_piece(prev_seq, prev_term, entries) {
        return Err(AppendError::Nonsense);
    }
    // The log has no gap.
    if prev_seq > log.last().seq {
        return Err(AppendError::Gap);
    }
    let known = log.term_at(prev_seq);
    if matches && known.is_none_or(|it| it != prev_term) {
        match (prev_seq <= log.commit(), known) {
            // It is final and no longer in memory: the sender's is the same one.
            (true, None) => {}
            // Two leaders cannot both have made something final there (R3, R8).
            (true, Some(_)) => return Err(AppendError::Final(prev_seq)),
            (false, _) => return Err(AppendError::Conflict),
        }
    }
    let end = entries.last().map_or(prev_seq, |it| it.seq_no);
    for (known, entry) in entries.iter().enumerate() {
        let (seq, is_final) = (entry.seq_no, entry.seq_no <= log.commit());
        match log.term_at(seq) {
            // One term has one leader (R2), which gives each number once: it is the same entry.
            Some(term) if term == entry.term => {}
            Some(_) if is_final => return Err(AppendError::Final(seq)),
            // A tail that is not final, of a leader whose term is over, gives way.
            Some(_) => return Ok(Fit { cut: Some(seq), known, end }),
            None if is_final => {}
            None => return Ok(Fit { cut: None, known, end }),
        }
    }
    Ok(Fit { cut: None, known: entries.len(), end })
}

/// True if numbers go on without a gap, and terms never go back.
fn is_piece(prev_seq: SeqNo, prev_term: Term, entries: &[Arc<Entry>]) -> bool {
    let mut before = (prev_seq, prev_term);
    entries.iter().all(|it| {
        let (seq, term) = std::mem::replace(&mut before, (it.seq_no, it.term));
        it.seq_no == seq.next() && it.term >= term
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::chat::config::Config;
    use crate::machine::chat::tests::entry;
    use crate::proto::chat::entry::Body;

    /// A log of openings with these terms, of which `commit` are final.
    fn log(terms: &[u64], commit: u64) -> LogWindow {
        let mut log = LogWindow::restore(None);
        pieces(1, terms).into_iter().for_each(|it| log.append(it));
        log.commit_to(SeqNo(commit));
        log
    }

    /// Entries from `first` on with these terms.
    fn pieces(first: u64, terms: &[u64]) -> Vec<Arc<Entry>> {
        terms.iter().zip(first..).map(|(term, seq)| entry(seq, *term, Body::Opening)).collect()
    }

    fn check(
        log: &LogWindow,
        prev: (u64, u64),
        terms: &[u64],
    ) -> Result<(Option<u64>, usize, u64), AppendError> {
        let entries = pieces(prev.0 + 1, terms);
        let it = fit(log, (SeqNo(prev.0), Term(prev.1)), &entries, true)?;
        Ok((it.cut.map(|it| it.0), it.known, it.end.0))
    }

    #[test]
    fn entries_are_taken_only_behind_the_entry_that_belongs_before_them() {
        let log = log(&[1, 1, 2, 2], 2);
        assert_eq!(check(&log, (4, 2), &[2, 3]), Ok((None, 0, 6)));
        assert_eq!(check(&log, (4, 2), &[]), Ok((None, 0, 4)), "the logs agree so far");
        assert_eq!(check(&log, (2, 1), &[2, 2, 3]), Ok((None, 2, 5)));
        assert_eq!(check(&log, (5, 2), &[2]), Err(AppendError::Gap));
        assert_eq!(check(&log, (4, 3), &[3]), Err(AppendError::Conflict));
    }

    #[test]
    fn a_conflicting_tail_is_cut_but_never_below_what_is_final() {
        let log = log(&[1, 1, 2, 2], 2);
        assert_eq!(check(&log, (2, 1), &[2, 3]), Ok((Some(4), 1, 4)));
        assert_eq!(check(&log, (2, 1), &[3]), Ok((Some(3), 0, 3)));
        assert_eq!(check(&log, (1, 1), &[2]), Err(AppendError::Final(SeqNo(2))));
        assert_eq!(check(&log, (2, 2), &[2]), Err(AppendError::Final(SeqNo(2))));
    }

    #[test]
    fn what_is_final_and_no_longer_in_memory_is_known() {
        let mut log = log(&[1, 1, 2, 2], 4);
        log.trim(&Config { window_entries: 1, ..Config::default() });
        assert_eq!(log.base().seq, SeqNo(3));
        assert_eq!(check(&log, (1, 1), &[1, 2, 2, 2]), Ok((None, 3, 5)));
    }

    #[test]
    fn numbers_have_no_gap_and_terms_do_not_fall() {
        let log = log(&[1, 1], 0);
        assert_eq!(check(&log, (2, 1), &[2, 1]), Err(AppendError::Nonsense));
        let gap = pieces(4, &[2]);
        assert_eq!(fit(&log, (SeqNo(2), Term(1)), &gap, true), Err(AppendError::Nonsense));
    }
}
