//! Hashes of pieces and lists of files: fetched before the pieces they are about.
//!
//! Invariants: no hash is believed before it leads to the root, and no list before it has the
//! ticket's digest; one question of each kind is open with a neighbor at a time; a list comes from
//! one neighbor as a whole, so that it is clear which one lied. These questions are answered
//! whether or not the asker is choked: they are small, and without the answers no peer could begin.

use sha2::{Digest as _, Sha256};

use super::event::Event;
use super::machine::{Fx, Swarm};
use crate::machine::LinkId;
use crate::proto::swarm::{FILES_PART_BYTES, Hash, Message, PieceIndex};

/// Greatest size of a list of files, in bytes.
pub const FILES_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Swarm {
    /// Asks for the list of files and for hashes, if they are missing and no other
    /// neighbor was asked.
    pub(super) fn ask_for_proof(&mut self, link: LinkId, fx: &mut Fx) {
        if !self.speaks_share() {
            return;
        }
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if !neighbor.may_be_questioned() {
            return;
        }
        if self.content.wants_list() && !self.content.is_fetching_list() {
            self.content.keep_part(link, Vec::new());
            neighbor.ask_files();
            fx.send(link, Message::FilesReq { offset: 0 });
            self.await_answer(link, fx);
        }
        let Some(tree) = self.content.tree().filter(|it| !it.is_whole()) else { return };
        if self.neighbors.get(link).is_none_or(|it| it.asked_hashes().is_some()) {
            return;
        }
        let is_asked =
            |first| self.neighbors.iter().any(|(_, it)| it.asked_hashes() == Some(first));
        let Some(first) = tree.missing().find(|first| !is_asked(*first)) else { return };
        let count = tree.run_len();
        if let Some(neighbor) = self.neighbors.get_mut(link) {
            neighbor.ask_hashes(first);
            fx.send(link, Message::HashesReq { first, count });
            self.await_answer(link, fx);
        }
    }

    /// Answers a request for hashes, with none if they are not known.
    pub(super) fn on_hashes_req(
        &mut self,
        link: LinkId,
        first: PieceIndex,
        count: u32,
        fx: &mut Fx,
    ) {
        let known = self.content.tree().and_then(|it| it.prove(first, count));
        let (leaves, uncles) = known.unwrap_or_default();
        fx.send(link, Message::Hashes { first, leaves, uncles });
    }

    pub(super) fn on_hashes(
        &mut self,
        link: LinkId,
        first: PieceIndex,
        leaves: Vec<Hash>,
        uncles: &[Hash],
        fx: &mut Fx,
    ) {
        let neighbor = self.neighbors.get_mut(link);
        let (Some(neighbor), Some(tree)) = (neighbor, self.content.tree_mut()) else { return };
        if !neighbor.on_hashes(first, self.now) {
            return self.odd(link, "hashes that were not asked for", fx);
        }
        if leaves.is_empty() {
            neighbor.set_ignorant(true);
            self.retry_later(fx);
            return;
        }
        if let Err(why) = tree.accept(first, leaves, uncles) {
            return self.fault(link, why, fx);
        }
        let run_len = tree.run_len();
        let run = first.0..self.content.pieces().count().min(first.0 + run_len);
        for index in run.map(PieceIndex).filter(|it| !self.content.has(*it)) {
            self.picker.want(index);
        }
        self.progressed();
        self.ask_everybody(fx);
    }

    pub(super) fn on_files_req(&mut self, link: LinkId, offset: u32, fx: &mut Fx) {
        let list = self.content.list();
        let start = list.len().min(offset as usize);
        let end = list.len().min(start + FILES_PART_BYTES);
        let bytes = list[start..end].to_vec();
        fx.send(link, Message::Files { offset, bytes });
    }

    pub(super) fn on_files(&mut self, link: LinkId, offset: u32, bytes: &[u8], fx: &mut Fx) {
        let neighbor = self.neighbors.get_mut(link);
        let Some(neighbor) = neighbor.and_then(|it| it.on_files(self.now).then_some(it)) else {
            return self.odd(link, "a list of files that was not asked for", fx);
        };
        let Some(digest) = self.content.wanted_list() else { return };
        let Some(mut list) = self.content.take_part(link) else { return };
        if offset as usize != list.len() || list.len() + bytes.len() > FILES_BYTES_MAX {
            return self.fault(link, "it sent a list of files that cannot be", fx);
        }
        list.extend_from_slice(bytes);
        if !bytes.is_empty() {
            let offset = u32::try_from(list.len()).expect("a list has at most 16 MiB");
            neighbor.ask_files();
            self.content.keep_part(link, list);
            fx.send(link, Message::FilesReq { offset });
            self.await_answer(link, fx);
        } else if <Hash>::from(Sha256::digest(&list)) == digest {
            self.content.set_list(list.clone());
            self.progressed();
            fx.emit(Event::FileList(list));
            if self.is_done() {
                self.on_done(fx);
            }
            self.ask_everybody(fx);
        } else if list.is_empty() {
            // The neighbor does not have the list yet.
            neighbor.set_ignorant(true);
            self.retry_later(fx);
            self.ask_everybody(fx);
        } else {
            self.fault(link, "it sent a false list of files", fx);
        }
    }
}
