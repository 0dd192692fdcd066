//! State of one link of a session, and of one call that is being dialed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Binding, Endpoint, Nonce};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::message::TrustLevel;

#[derive(Debug)]
pub(super) enum Stage {
    /// The caller has not said anything yet.
    Fresh,
    /// The caller was sent a challenge.
    Challenged { info: Arc<NodeInfo>, nonce: Nonce, intent: Intent },
    /// The caller only asked whether this node is there.
    Probed,
    /// This node calls the other end.
    Calling { to: Endpoint, intent: Intent, nonce: Nonce },
    /// The key is proved, and the link has a standing (a stranger's until
    /// [`super::Session::admit`]).
    Open { info: Arc<NodeInfo>, standing: TrustLevel, intent: Intent },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) from: IpAddr,
    pub(super) stage: Stage,
    /// Binding that both ends sign beside their challenges, if the connection is encrypted.
    pub(super) binding: Option<Binding>,
    pub(super) offenses: u32,
    /// Rounds of the keep-alive since a message came.
    pub(super) quiet_rounds: u32,
    /// Reason that the other end gave for hanging up.
    pub(super) bye: Option<String>,
}

impl Link {
    /// Creates a link on which no message has come yet.
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
