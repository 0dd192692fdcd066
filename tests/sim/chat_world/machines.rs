//! Machines that come and go with their disks: restored from a copy, copied while they run,
//! replaced by new ones under the same id.

use std::sync::atomic::Ordering;

use folkmoot::machine::chat::{Command, Role};
use folkmoot::model::{KeyPair, Rng};
use rand::SeedableRng as _;

use super::{Due, Kind, Node, World};
use crate::services::chat::{Log, linked};

/// How long a copy may go unnoticed, in microseconds; nothing else happens meanwhile.
const NOTICE: u64 = 8_000_000;

impl World {
    /// A process that must not run again: its operator has the member removed, unless another
    /// process is that member.
    pub(super) fn spend(&mut self, node: usize) {
        self.nodes[node].is_spent = true;
        self.plan(self.now() + 500_000, Due::Operate { node });
    }

    /// A backup is made; or, if there is one, the disk is put back to it.
    pub(super) fn restore(&mut self, node: usize) {
        let is_other_out = self.nodes.iter().any(|it| it.is_spent || it.is_removed);
        let at = self.at(node);
        let Some(backup) = self.nodes[node].backup.take() else {
            let records = self.world.records(at);
            let is_begun = !Log::of(records).entries.is_empty();
            self.nodes[node].backup = is_begun.then(|| records.to_vec());
            return;
        };
        if is_other_out || self.checker.members().len() < 3 {
            return;
        }
        self.count("restored from a copy");
        self.kill(node, false);
        self.world.replace_disk(at, backup);
        self.start(node);
    }

    /// The disk of a member that takes part is copied to a second machine, which starts beside it.
    pub(super) fn copy(&mut self, original: usize) {
        let it = &self.nodes[original];
        let Some(status) = self.group(original).map(|it| it.status()) else { return };
        let id = it.member.id;
        let is_linked = |node: usize| {
            let host = self.world.machine(self.at(node));
            self.nodes[node].member.id == id || host.is_some_and(|it| linked(it).contains(&id))
        };
        let mut others = (0..self.nodes.len()).filter(|it| self.is_up(*it));
        let is_whole = status.members.len() > 1 && others.all(is_linked);
        let is_in = status.leader.is_some() && status.role != Role::Joining;
        if self.has_copied || it.is_paused || !is_whole || !is_in || self.has_cuts {
            return;
        }
        self.has_copied = true;
        self.count("copied while it runs");
        (0..self.nodes.len()).for_each(|node| self.resume(node));
        self.quiet_until = self.now() + NOTICE;
        let it = &self.nodes[original];
        let mut member = it.member.clone();
        member.at.port += 1_000;
        let records = self.world.records(self.at(original)).to_vec();
        let noted = Log::of(&records).records;
        self.add(member, false);
        let copy = self.nodes.len() - 1;
        self.note(copy, noted);
        self.world.replace_disk(self.at(copy), records);
        self.start(copy);
        for second in 3..NOTICE / 1_000_000 {
            self.plan(self.now() + second * 1_000_000, Due::Noticed { original, copy });
        }
        self.plan(self.quiet_until - 1, Due::Noticed { original, copy });
    }

    /// One of the two has ended, or the later one takes no part; then its operator stops it.
    pub(super) fn judge_copy(&mut self, original: usize, copy: usize) {
        let takes_part = self.group(copy).is_some_and(|it| it.status().leader.is_some());
        if takes_part && self.is_up(original) {
            let what = format!("a copy of {} takes part", self.nodes[original].member.id);
            self.checker.fail(Kind::Unnoticed, what);
        }
        if self.now() + 1 == self.quiet_until && self.is_up(copy) && self.is_up(original) {
            self.kill(copy, false);
            self.nodes[copy].is_spent = true;
        }
    }

    /// The operator of a spent process: has its member removed, then puts a new machine in its
    /// place.
    pub(super) fn operate(&mut self, node: usize) {
        let id = self.nodes[node].member.id;
        let is_other = |it: &Node| it.member.id == id && !it.is_spent;
        if self.nodes.iter().any(is_other) {
            return;
        }
        if self.nodes[node].is_removed {
            self.replace(node);
            return;
        }
        let leader = self.leader().filter(|at| !self.nodes[*at].is_paused);
        if let Some(leader) = leader {
            self.command(leader, Command::Remove(id));
        }
        self.plan(self.now() + 1_000_000, Due::Operate { node });
    }

    /// A new machine with an empty disk and a key of its own takes a removed one's id.
    pub(super) fn replace(&mut self, node: usize) {
        self.count("a new machine under an old id");
        self.kill(node, false);
        let mut member = self.nodes[node].member.clone();
        member.at.port += 100;
        let seed = u64::from(member.id.0) + 1_000 * u64::from(member.at.port);
        member.key = KeyPair::generate(&mut Rng::seed_from_u64(seed)).public();
        self.move_to(node, member);
        self.world.replace_disk(self.at(node), Vec::new());
        self.note(node, 0);
        let it = &mut self.nodes[node];
        it.desk.lock().expect("one thread runs a world").bootstrap = false;
        (it.is_spent, it.is_removed, it.backup) = (false, false, None);
        self.start(node);
    }

    /// So many records are noted away from the log.
    fn note(&mut self, node: usize, records: usize) {
        let desk = self.nodes[node].desk.lock().expect("one thread runs a world");
        desk.noted.store(records, Ordering::Relaxed);
    }
}
