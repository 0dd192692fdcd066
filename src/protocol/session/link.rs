//! What a session remembers of one link, and of one call on its way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Card, Intent};
use crate::model::{Endpoint, Nonce};
use crate::protocol::Binding;
use crate::protocol::message::Standing;

#[derive(Debug)]
pub(super) enum Stage {
    /// Called by somebody who said nothing yet.
    Fresh,
    /// Called by somebody who was sent a challenge.
    Challenged { card: Arc<Card>, nonce: Nonce, intent: Intent },
    /// Called by somebody who only wanted to know whether this node is there.
    Probed,
    /// Calling somebody.
    Calling { to: Endpoint, intent: Intent, nonce: Nonce },
    /// Proved, and given a standing (a stranger's until [`super::Session::admit`]).
    Open { card: Arc<Card>, standing: Standing, intent: Intent },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) from: IpAddr,
    pub(super) stage: Stage,
    /// What both ends sign beside their challenges, if the connection is encrypted.
    pub(super) binding: Option<Binding>,
    pub(super) offenses: u32,
    /// Rounds of the keep-alive since something came.
    pub(super) quiet_rounds: u32,
    /// The other end said why it will hang up.
    pub(super) bye: Option<String>,
}

impl Link {
    /// A link on which nothing has come yet.
    pub(super) const fn new(from: IpAddr, stage: Stage, binding: Option<Binding>) -> Self {
        Self { from, stage, binding, offenses: 0, quiet_rounds: 0, bye: None }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) to: Endpoint,
    pub(super) intent: Intent,
    pub(super) timeout: Duration,
}
