//! Messages between peers about the living and the dead.

use serde::{Deserialize, Serialize};

use crate::model::statement::{Confirmation, MemberInstance};
use crate::model::{Endpoint, Incarnation, PublicKey, WallTime};

/// A request for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Nonce that is repeated in the answer.
    pub nonce: u64,
}

/// A sign of life, in answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Nonce of the ping.
    pub nonce: u64,
}

/// A request to probe a suspect and to testify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectReq {
    /// Address on which the suspect listens.
    pub endpoint: Endpoint,
    /// Incarnation of the suspect's life.
    pub incarnation: Incarnation,
    /// Public key by which the suspect would be recognized.
    pub key: PublicKey,
}

impl SuspectReq {
    /// The suspected life.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }
}

/// Report that a majority of the suspect's neighbors found it dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadReport {
    /// Fixed text, `Dead Node:<IP>:<Port>:<timestamp>:<reporter IP>`.
    pub text: String,
    /// Address of the dead member.
    pub endpoint: Endpoint,
    /// Incarnation of the life that ended.
    pub incarnation: Incarnation,
    /// Address of the reporter.
    pub reporter: Endpoint,
    /// Time of the report, by the reporter's clock.
    pub at: WallTime,
    /// Signed findings of the witnesses, the reporter's own among them.
    pub confirmations: Vec<Confirmation>,
}

impl DeadReport {
    /// True if the text is the one that the fields make.
    pub fn is_well_formed(&self) -> bool {
        self.text == fixed_text(self.endpoint, self.at, self.reporter)
    }
}

/// Returns the fixed text of a death report, with the timestamp in seconds since the Unix epoch
/// and three decimals.
pub fn fixed_text(dead: Endpoint, at: WallTime, reporter: Endpoint) -> String {
    let (ip, port, by) = (dead.ip(), dead.port(), reporter.ip());
    format!("Dead Node:{ip}:{port}:{}.{:03}:{by}", at.0 / 1_000, at.0 % 1_000)
}
