//! What peers say to each other about the living and the dead.

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Incarnation, PublicKey, WallTime};
use crate::protocol::membership::certificate::{Confirmation, Subject};

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the answer.
    pub nonce: u64,
}

/// I am.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The nonce of the ping.
    pub nonce: u64,
}

/// A request to probe a suspect and to testify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectReq {
    /// Where the suspect listens.
    pub endpoint: Endpoint,
    /// Which of its lives is meant.
    pub incarnation: Incarnation,
    /// The key by which it would be recognized.
    pub key: PublicKey,
}

impl SuspectReq {
    /// Who is meant.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }
}

/// A majority of the suspect's neighbors found it dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadReport {
    /// The fixed text, `Dead Node:<IP>:<Port>:<timestamp>:<reporter IP>`.
    pub text: String,
    /// Who is dead.
    pub endpoint: Endpoint,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// Who reports.
    pub reporter: Endpoint,
    /// When, by the reporter's clock.
    pub at: WallTime,
    /// The witnesses' signed findings, the reporter's own among them.
    pub confirmations: Vec<Confirmation>,
}

impl DeadReport {
    /// Whether the text is the one its fields make.
    pub fn is_well_formed(&self) -> bool {
        self.text == fixed_text(self.endpoint, self.at, self.reporter)
    }
}

/// The fixed text of a death report, the timestamp in seconds since the Unix epoch with
/// milliseconds.
pub fn fixed_text(dead: Endpoint, at: WallTime, reporter: Endpoint) -> String {
    let (ip, port, by) = (dead.ip(), dead.port(), reporter.ip());
    format!("Dead Node:{ip}:{port}:{}.{:03}:{by}", at.0 / 1_000, at.0 % 1_000)
}
