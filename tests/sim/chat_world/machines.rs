//! Machines that come and go with their disks: restored from a copy, copied while they run,
//! replaced by new ones under the same id.

use folkmoot::machine::chat::{Command, Input, Role, Rule};
use folkmoot::model::{KeyPair, Rng};
use folkmoot::proto::chat::entry::SeqNo;
use rand::SeedableRng as _;

use super::disk::Disk;
use super::{Due, Kind, Node, World};

/// How long a copy may go unnoticed, in microseconds; nothing else happens meanwhile.
const NOTICE: u64 = 8_000_000;

impl World {
    /// Whether a log ends before what was noted away from it; then it does not start.
    pub(super) fn is_rewound(&mut self, node: usize) -> bool {
        let it = &self.nodes[node];
        let is_noticed = it.disk.records.len() < it.noted;
        if !is_noticed || self.config.without == Some(Rule::Rewound) {
            return false;
        }
        self.count("a log that was rewound");
        self.spend(node);
        true
    }

    /// A process that must not run again: its operator has the member removed, unless another
    /// process is that member.
    pub(super) fn spend(&mut self, node: usize) {
        self.nodes[node].is_spent = true;
        self.plan(self.now + 500_000, Due::Operate { node });
    }

    /// A backup is made; or, if there is one, the disk is put back to it.
    pub(super) fn restore(&mut self, node: usize) {
        let is_other_out = self.nodes.iter().any(|it| it.is_spent || it.is_removed);
        let it = &mut self.nodes[node];
        let Some(backup) = it.backup.take() else {
            it.backup = (!it.disk.log.is_empty()).then(|| it.disk.copy());
            return;
        };
        if is_other_out || self.checker.members().len() < 3 {
            return;
        }
        self.count("restored from a copy");
        self.kill(node, false);
        self.nodes[node].disk = backup;
        self.start(node);
    }

    /// The disk of a member that takes part is copied to a second machine, which starts beside it.
    pub(super) fn copy(&mut self, original: usize) {
        let it = &self.nodes[original];
        let Some(status) = it.machine.as_ref().map(|it| it.status()) else { return };
        let id = it.member.id;
        let is_linked = |node: &Node| {
            let members = node.machine.as_ref().map(|it| it.status().members).unwrap_or_default();
            let link = members.iter().find(|it| it.member.id == id);
            node.member.id == id || link.is_some_and(|it| it.linked)
        };
        let mut others = self.nodes.iter().filter(|it| it.machine.is_some());
        let is_whole = status.members.len() > 1 && others.all(is_linked);
        let is_in = status.leader.is_some() && status.role != Role::Joining;
        if self.has_copied || it.is_paused || !is_whole || !is_in || !self.cuts.is_empty() {
            return;
        }
        self.has_copied = true;
        self.count("copied while it runs");
        (0..self.nodes.len()).for_each(|node| self.resume(node));
        self.quiet_until = self.now + NOTICE;
        let it = &self.nodes[original];
        let mut member = it.member.clone();
        member.at.port += 1_000;
        let disk = it.disk.copy();
        let noted = disk.records.len();
        let disk_micros = it.disk_micros;
        self.nodes.push(Node { member, disk, noted, disk_micros, ..Node::default() });
        let copy = self.nodes.len() - 1;
        self.start(copy);
        for second in 3..NOTICE / 1_000_000 {
            self.plan(self.now + second * 1_000_000, Due::Noticed { original, copy });
        }
        self.plan(self.quiet_until - 1, Due::Noticed { original, copy });
    }

    /// One of the two has ended, or the later one takes no part; then its operator stops it.
    pub(super) fn judge_copy(&mut self, original: usize, copy: usize) {
        let takes_part =
            |it: &Node| it.machine.as_ref().is_some_and(|it| it.status().leader.is_some());
        if takes_part(&self.nodes[copy]) && self.is_up(original) {
            let what = format!("a copy of {} takes part", self.nodes[original].member.id);
            self.checker.fail(Kind::Unnoticed, what);
        }
        if self.now + 1 == self.quiet_until && self.is_up(copy) && self.is_up(original) {
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
            let life = self.nodes[leader].life;
            self.hand(leader, life, Input::Command(Command::Remove(id)));
        }
        self.plan(self.now + 1_000_000, Due::Operate { node });
    }

    /// A new machine with an empty disk and a key of its own takes a removed one's id.
    pub(super) fn replace(&mut self, node: usize) {
        self.count("a new machine under an old id");
        self.kill(node, false);
        let it = &mut self.nodes[node];
        let seed = u64::from(it.member.id.0) + 1_000 * u64::from(it.life + 1);
        it.member.key = KeyPair::generate(&mut Rng::seed_from_u64(seed)).public();
        it.member.at.port += 100;
        (it.disk, it.noted, it.backup) = (Disk::default(), 0, None);
        (it.is_spent, it.is_removed, it.founds, it.delivered) = (false, false, false, SeqNo(0));
        self.start(node);
    }
}
