//! Hashes of pieces and lists of files: fetched before the pieces they are about.
//!
//! Invariants: no hash is believed before it leads to the root, and no list before it has the
//! ticket's digest; one question of each kind is open with a neighbor at a time; a list comes from
//! one neighbor as a whole, so that it is clear which one lied. These questions are answered
//! whether or not the asker is choked: they are small, and without the answers no peer could begin.

use sha2::{Digest as _, Sha256};

use super::event::{Event, Fx};
use super::machine::{Files, Swarm};
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
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        if neighbor.is_ignorant || neighbor.snubbed_until.is_some() {
            return;
        }
        if matches!(self.files, Files::Wanted(_)) && self.list.is_none() {
            self.list = Some((link, Vec::new()));
            neighbor.asked_files = true;
            fx.send(link, Message::FilesReq { offset: 0 });
            self.await_answer(link, fx);
        }
        let Some(tree) = self.tree.as_ref().filter(|it| !it.is_whole()) else { return };
        if self.links.get(&link).is_none_or(|it| it.asked_hashes.is_some()) {
            return;
        }
        let is_asked = |first| self.links.values().any(|it| it.asked_hashes == Some(first));
        let Some(first) = tree.missing().find(|first| !is_asked(*first)) else { return };
        let count = tree.run_len();
        if let Some(neighbor) = self.links.get_mut(&link) {
            neighbor.asked_hashes = Some(first);
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
        let known = self.tree.as_ref().and_then(|it| it.prove(first, count));
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
        let (Some(neighbor), Some(tree)) = (self.links.get_mut(&link), &mut self.tree) else {
            return;
        };
        if neighbor.asked_hashes != Some(first) {
            return self.odd(link, "hashes that were not asked for", fx);
        }
        neighbor.asked_hashes = None;
        neighbor.answered(self.now);
        if leaves.is_empty() {
            neighbor.is_ignorant = true;
            self.retry_later(fx);
            return;
        }
        if let Err(why) = tree.accept(first, leaves, uncles) {
            return self.fault(link, why, fx);
        }
        let run = first.0..self.pieces.count().min(first.0 + tree.run_len());
        for index in run.map(PieceIndex).filter(|it| !self.have.has(*it)) {
            self.picker.want(index);
        }
        self.progressed();
        self.ask_everybody(fx);
    }

    pub(super) fn on_files_req(&mut self, link: LinkId, offset: u32, fx: &mut Fx) {
        let list: &[u8] = match &self.files {
            Files::Known(list) => list,
            Files::None | Files::Wanted(_) => &[],
        };
        let start = list.len().min(offset as usize);
        let end = list.len().min(start + FILES_PART_BYTES);
        let bytes = list[start..end].to_vec();
        fx.send(link, Message::Files { offset, bytes });
    }

    pub(super) fn on_files(&mut self, link: LinkId, offset: u32, bytes: &[u8], fx: &mut Fx) {
        let Some(neighbor) = self.links.get_mut(&link).filter(|it| it.asked_files) else {
            return self.odd(link, "a list of files that was not asked for", fx);
        };
        neighbor.asked_files = false;
        neighbor.answered(self.now);
        let Files::Wanted(digest) = self.files else { return };
        let Some((_, mut list)) = self.list.take().filter(|(from, _)| *from == link) else {
            return;
        };
        if offset as usize != list.len() || list.len() + bytes.len() > FILES_BYTES_MAX {
            return self.fault(link, "it sent a list of files that cannot be", fx);
        }
        list.extend_from_slice(bytes);
        if !bytes.is_empty() {
            let offset = u32::try_from(list.len()).expect("a list has at most 16 MiB");
            neighbor.asked_files = true;
            self.list = Some((link, list));
            fx.send(link, Message::FilesReq { offset });
            self.await_answer(link, fx);
        } else if <Hash>::from(Sha256::digest(&list)) == digest {
            self.files = Files::Known(list.clone());
            self.progressed();
            fx.emit(Event::FileList(list));
            if self.is_done() {
                self.on_done(fx);
            }
            self.ask_everybody(fx);
        } else if list.is_empty() {
            // The neighbor does not have the list yet.
            neighbor.is_ignorant = true;
            self.retry_later(fx);
            self.ask_everybody(fx);
        } else {
            self.fault(link, "it sent a false list of files", fx);
        }
    }
}
