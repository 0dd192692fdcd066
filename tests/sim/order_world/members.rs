//! Changes of the membership: operators approve them, and liars never become too many.

use std::sync::atomic::Ordering;

use folkmoot::machine::bft::Command;
use folkmoot::model::Rng;
use folkmoot::proto::bft::{Committee, MembershipChange};
use folkmoot::proto::chat::entry::MemberId;
use rand::{RngExt as _, SeedableRng as _};

use super::{Due, SECOND, World, member};

/// Members that a group has at least: fewer decide nothing together.
const MEMBERS_MIN: usize = 3;

/// Changes of the membership in a run.
pub(super) struct Changes {
    /// Randomness of their own, so that runs without them stay what they are.
    rng: Rng,
    /// The change that operators want now.
    wanted: Option<MembershipChange>,
}

impl World {
    /// Lets operators change the membership: so many processes that are no members join the run,
    /// and may become some. Restarts may have another window.
    pub(crate) fn let_members_change(&mut self, seed: u64, newcomers: usize) {
        let first = self.nodes.len();
        for id in first + 1..=first + newcomers {
            let id = MemberId(u32::try_from(id).expect("few"));
            self.add(id, None, [].into(), None);
        }
        let rng = Rng::seed_from_u64(seed ^ 0x3e3b);
        self.changes = Some(Changes { rng, wanted: None });
        self.plan(self.now() + SECOND, Due::Members);
    }

    /// Operators go on with the change that they want, or think of another.
    pub(super) fn on_members(&mut self) {
        let Some(mut changes) = self.changes.take().filter(|_| !self.weather.is_calm) else {
            return;
        };
        let pause = changes.rng.random_range(SECOND / 4..2 * SECOND);
        let node = changes.rng.random_range(0..self.nodes.len());
        let window = changes.rng.random_range(1..=8);
        if self.nodes[node].window.swap(window, Ordering::Relaxed) != window {
            self.count("another window");
        }
        let committee = self.checker.committee().clone();
        let is_done = |it: &MembershipChange| match it {
            MembershipChange::Add { member, .. } => committee.voter(member.id).is_some(),
            MembershipChange::Remove { member, .. } => committee.voter(*member).is_none(),
            MembershipChange::Renew { .. } => true,
        };
        if changes.wanted.as_ref().is_some_and(is_done) {
            let added = matches!(changes.wanted, Some(MembershipChange::Add { .. }));
            self.count(if added { "a member added" } else { "a member removed" });
            changes.wanted = None;
        }
        if changes.wanted.is_none() {
            changes.wanted = self.think_of_change(&committee, &mut changes.rng);
        }
        if let Some(wanted) = &changes.wanted {
            for node in 0..self.nodes.len() {
                let is_asked = committee.voter(self.nodes[node].id).is_some();
                if is_asked && self.is_up(node) && changes.rng.random_bool(0.9) {
                    let at = self.nodes[node].at;
                    self.world.command(at, Command::Approve(wanted.clone()));
                }
            }
        }
        self.changes = Some(changes);
        self.plan(self.now() + pause, Due::Members);
    }

    /// A change after which the group still bears all that lie or have forgotten something.
    fn think_of_change(&self, before: &Committee, rng: &mut Rng) -> Option<MembershipChange> {
        let id = self.nodes[rng.random_range(0..self.nodes.len())].id;
        let approvals = Vec::new();
        let change = match before.voter(id) {
            None => MembershipChange::Add { member: member(id.0), approvals },
            Some(_) if before.len() <= MEMBERS_MIN => return None,
            Some(_) => MembershipChange::Remove { member: id, approvals },
        };
        self.bears(&members_after(before, Some(&change)), None).then_some(change)
    }

    /// True if so many of these members may lie as do, or have forgotten something, this one too.
    fn bears(&self, members: &[MemberId], too: Option<usize>) -> bool {
        let is_weak = |node: &usize| {
            let it = &self.nodes[*node];
            let forgets = self.forgetful.contains(node) || too == Some(*node);
            (forgets || !it.lies.is_empty()) && members.contains(&it.id)
        };
        (0..self.nodes.len()).filter(is_weak).count() <= members.len().saturating_sub(1) / 3
    }

    /// True if a member may forget something: no committee that was or is to be has too many weak
    /// members then.
    pub(super) fn may_forget(&self, node: usize) -> bool {
        let Some(changes) = &self.changes else { return true };
        let known = self.checker.committees().iter().map(|it| members_after(it, None));
        let next = members_after(self.checker.committee(), changes.wanted.as_ref());
        known.chain([next]).all(|them| self.bears(&them, Some(node)))
    }
}

/// Ids of the members, after a change if there is one.
fn members_after(committee: &Committee, change: Option<&MembershipChange>) -> Vec<MemberId> {
    let mut ids: Vec<_> = committee.voters().iter().map(|it| it.member.id).collect();
    match change {
        Some(MembershipChange::Add { member, .. }) => ids.push(member.id),
        Some(MembershipChange::Remove { member, .. }) => ids.retain(|it| it != member),
        Some(MembershipChange::Renew { .. }) | None => {}
    }
    ids
}
