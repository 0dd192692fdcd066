//! State of the core thread of an order, and the messages to it that only an order has.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::options::OrderNotification;
use super::service::OrderService;
use crate::machine::bft::{BftReplica, Event, ExtraEffect, Record};
use crate::runtime::engine::core::EngineLoop;

/// Message to the core thread that only an order has.
pub(super) enum OrderCoreMsg {
    /// A thread waits for the end of this member's leaving.
    AwaitGone(Sender<()>),
}

/// State of the core thread beside its links.
pub(super) struct OrderCoreState {
    pub(super) order: BftReplica,
    is_gone: bool,
    waiting: Vec<Sender<()>>,
}

impl OrderCoreState {
    pub(super) const fn new(order: BftReplica) -> Self {
        Self { order, is_gone: false, waiting: Vec::new() }
    }

    /// Wakes the threads that wait for the end of this member's leaving.
    pub(super) fn wake_waiting(&mut self) {
        for tell in self.waiting.drain(..) {
            let _ = tell.try_send(());
        }
    }
}

impl EngineLoop<OrderService> {
    pub(super) fn take(&mut self, extra: OrderCoreMsg) {
        let OrderCoreMsg::AwaitGone(tell) = extra;
        self.state.waiting.push(tell);
        if self.state.is_gone || self.has_failed {
            self.state.wake_waiting();
        }
    }

    /// Notes what the machine says about the surroundings of the other threads.
    pub(super) fn note_event(&mut self, event: &Event) {
        match event {
            Event::Gone => {
                self.state.is_gone = true;
                self.state.wake_waiting();
            }
            Event::Dropped(_) => self.shared.counters.dropped.add(1),
            Event::EpochBegan { committee, .. } => {
                self.shared.service.set_members(committee.voters().iter().map(|it| &it.member));
            }
            Event::ViewBegan { .. }
            | Event::Suspected { .. }
            | Event::Halted { .. }
            | Event::Resumed
            | Event::Equivocation(_)
            | Event::Hole { .. }
            | Event::Pending(_)
            | Event::Rejected { .. }
            | Event::Proposed(_)
            | Event::Reached(_)
            | Event::Lost(_)
            | Event::Stopped { .. } => {}
        }
    }

    pub(super) fn add_record(&mut self, record: Record) {
        self.entries.push(record);
        self.shared.service.jobs.count_record();
    }

    pub(super) fn carry_out_extra(&mut self, effect: ExtraEffect) {
        match effect {
            ExtraEffect::Load { link, from, slots_max, bytes_max } => {
                Arc::clone(&self.shared).load(link, from, (slots_max, bytes_max));
            }
            ExtraEffect::Deliver(entries) => self.notify(OrderNotification::Delivered(entries)),
            ExtraEffect::Snapshot(snapshot) => self.shared.keep(snapshot),
        }
    }
}
