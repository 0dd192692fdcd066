//! Identity of the group, and whether the log says so.

use crate::proto::chat::entry::GroupId;

/// The group that this member belongs to, once it is known.
#[derive(Debug)]
pub(super) struct Identity {
    group: Option<GroupId>,
    /// True if the log says to which group it belongs.
    is_kept: bool,
    /// True if the process founds a group at its start.
    bootstrap: bool,
}

impl Identity {
    /// The identity after a restart; `group` is that of the log, if it names one.
    pub(super) const fn restore(group: Option<GroupId>, bootstrap: bool) -> Self {
        Self { group, is_kept: group.is_some(), bootstrap: bootstrap && group.is_none() }
    }

    pub(super) const fn group(&self) -> Option<GroupId> {
        self.group
    }

    pub(super) const fn bootstrap(&self) -> bool {
        self.bootstrap
    }

    /// Becomes another group, which the log does not name yet.
    pub(super) const fn become_group(&mut self, group: GroupId) {
        (self.group, self.is_kept) = (Some(group), false);
    }

    /// Learns the group from another member. Returns false if this member belongs to another one.
    pub(super) fn learn(&mut self, group: GroupId) -> bool {
        *self.group.get_or_insert(group) == group
    }

    /// The group that the log must name now: once, and only when it is known.
    pub(super) fn take_unkept(&mut self) -> Option<GroupId> {
        let group = self.group.filter(|_| !self.is_kept)?;
        self.is_kept = true;
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: GroupId = GroupId([1; 16]);
    const ELSEWHERE: GroupId = GroupId([2; 16]);

    #[test]
    fn a_group_is_written_once_and_no_other_is_learned() {
        let mut identity = Identity::restore(None, false);
        assert_eq!(identity.take_unkept(), None, "it is not known yet");
        assert!(identity.learn(HERE) && !identity.learn(ELSEWHERE));
        assert_eq!([identity.take_unkept(), identity.take_unkept()], [Some(HERE), None]);
        identity.become_group(ELSEWHERE);
        assert_eq!([identity.take_unkept(), identity.take_unkept()], [Some(ELSEWHERE), None]);
    }

    #[test]
    fn a_member_of_a_group_founds_none() {
        assert!(Identity::restore(None, true).bootstrap());
        assert!(!Identity::restore(Some(HERE), true).bootstrap());
        assert_eq!(Identity::restore(Some(HERE), true).take_unkept(), None, "the log names it");
    }
}
