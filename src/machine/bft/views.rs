//! Views: wishes, the change from one to the next, and the patience with a leader (rules B9–B12,
//! B16, B17).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::config::{BftRule, Config, VIEW_MAX, VIEWS_AHEAD};
use crate::proto::bft::view::{NewView, Suspect, ViewChange};
use crate::proto::bft::{Committee, ViewNo};
use crate::proto::chat::entry::MemberId;

/// Number of final slots after which the patience halves.
const CALM_SLOTS: u32 = 8;

/// View of a member, and the way to the next one.
#[derive(Debug)]
pub(super) struct Views {
    view: ViewNo,
    is_active: bool,
    /// Votes are given only in views above this one: in it the member may have voted before its
    /// start (B10).
    muted: Option<ViewNo>,
    /// Newest wish of each member, this one included.
    wishes: BTreeMap<MemberId, Suspect>,
    changes: BTreeMap<ViewNo, BTreeMap<MemberId, Arc<ViewChange>>>,
    /// Beginning of the present view.
    new_view: Option<Arc<NewView>>,
    /// Beginning of the present view, while content of its base is missing.
    waiting: Option<Arc<NewView>>,
    patience: Duration,
    calm: u32,
}

impl Views {
    /// The first view of an epoch, which needs no beginning.
    pub(super) fn first(config: &Config) -> Self {
        Self {
            view: ViewNo(0),
            is_active: true,
            muted: None,
            wishes: BTreeMap::new(),
            changes: BTreeMap::new(),
            new_view: None,
            waiting: None,
            patience: config.patience,
            calm: 0,
        }
    }

    /// The view after a restart: votes are given only in later ones.
    pub(super) fn restored(view: ViewNo, config: &Config) -> Self {
        let muted = config.keeps(BftRule::Restart).then_some(view);
        Self { view, muted, ..Self::first(config) }
    }

    pub(super) const fn view(&self) -> ViewNo {
        self.view
    }

    pub(super) const fn is_active(&self) -> bool {
        self.is_active
    }

    /// True if this member may vote in the present view.
    pub(super) fn may_vote(&self) -> bool {
        self.muted.is_none_or(|it| self.view > it)
    }

    /// Notes a wish whose signature is valid. Returns false if it is not newer.
    pub(super) fn wish(&mut self, wish: Suspect) -> bool {
        let known = self.wishes.get(&wish.sender_id);
        if wish.view.0 > VIEW_MAX || known.is_some_and(|it| it.view >= wish.view) {
            return false;
        }
        self.wishes.insert(wish.sender_id, wish);
        true
    }

    /// Newest wish of a member.
    pub(super) fn wish_of(&self, member: MemberId) -> Option<&Suspect> {
        self.wishes.get(&member)
    }

    /// The highest view that `count` members wish for, or a higher one.
    pub(super) fn wished_by(&self, count: usize) -> Option<ViewNo> {
        let mut views: Vec<_> = self.wishes.values().map(|it| it.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        views.get(count.saturating_sub(1)).copied()
    }

    /// Number of wishes, and of claims.
    #[cfg(feature = "fault-injection")]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.wishes.len(), self.changes.values().map(BTreeMap::len).sum())
    }

    /// Enters a view, which has not begun.
    pub(super) fn enter(&mut self, view: ViewNo) {
        (self.view, self.is_active) = (view, false);
        (self.new_view, self.waiting) = (None, None);
        self.changes.retain(|it, _| *it >= view);
    }

    /// Notes a member's claim that was checked; true if it is kept.
    pub(super) fn on_change(&mut self, change: Arc<ViewChange>) -> bool {
        let is_near = self.view <= change.view && change.view.0 <= self.view.0 + VIEWS_AHEAD;
        if !is_near {
            return false;
        }
        let changes = self.changes.entry(change.view).or_default();
        changes.entry(change.signed.sender_id).or_insert(change);
        true
    }

    /// True if this very claim is kept.
    pub(super) fn knows_change(&self, change: &ViewChange) -> bool {
        let known = self.changes.get(&change.view).and_then(|it| it.get(&change.signed.sender_id));
        known.is_some_and(|it| **it == *change)
    }

    /// Claims for the present view.
    pub(super) fn changes(&self) -> impl Iterator<Item = &Arc<ViewChange>> {
        self.changes.get(&self.view).into_iter().flat_map(BTreeMap::values)
    }

    /// A member's claim for the present view.
    pub(super) fn change_of(&self, member: MemberId) -> Option<&Arc<ViewChange>> {
        self.changes.get(&self.view)?.get(&member)
    }

    /// Keeps a beginning whose base has content that is missing.
    pub(super) fn wait_for(&mut self, beginning: Arc<NewView>) {
        self.waiting = Some(beginning);
    }

    /// The beginning that waits for content.
    pub(super) const fn waiting(&self) -> Option<&Arc<NewView>> {
        self.waiting.as_ref()
    }

    /// Begins the present view.
    pub(super) fn activate(&mut self, beginning: Arc<NewView>) {
        (self.is_active, self.waiting) = (true, None);
        self.new_view = Some(beginning);
    }

    /// Beginning of the present view; `None` in the first view of an epoch.
    pub(super) const fn new_view(&self) -> Option<&Arc<NewView>> {
        self.new_view.as_ref()
    }

    /// Time to wait for a final slot (B17).
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Waits longer the next time.
    pub(super) fn on_expired(&mut self, config: &Config) {
        self.calm = 0;
        if config.keeps(BftRule::Doubling) {
            self.patience = (self.patience * 2).min(config.patience_max);
        }
    }

    /// Waits shorter again once enough slots have become final.
    pub(super) fn on_final(&mut self, config: &Config) {
        self.calm += 1;
        if self.calm >= CALM_SLOTS {
            self.calm = 0;
            self.patience = (self.patience / 2).max(config.patience);
        }
    }

    /// Begins a new epoch: all wishes and claims are void; the patience stays.
    pub(super) fn begin_epoch(&mut self, config: &Config) {
        *self = Self { patience: self.patience, ..Self::first(config) };
    }

    /// Number of members whose wishes raise this member's own (B16).
    pub(super) fn raising(committee: &Committee) -> usize {
        committee.liars_borne() + 1
    }
}
