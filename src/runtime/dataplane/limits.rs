//! Limits of a data plane's clients and servers.

use std::time::Duration;

use crate::runtime::web::guarded::ClientTimeouts;

/// Limits of a data plane.
#[derive(Clone, Copy, Debug)]
pub struct DataPlaneLimits {
    /// Largest number of clients' connections; above this new ones are answered with 503.
    pub connections: usize,
    /// Largest number of these from one address; all traffic may come through one balancer.
    pub connections_of_one: usize,
    /// Largest number of requests at once to the servers of one version: those of a version that
    /// hangs do not take the places of another's.
    pub requests_of_version: usize,
    /// Longest body in bytes that is held in memory: for the built-in model, and to read the field
    /// by which a request sticks to a version.
    pub held_body_bytes: usize,
    /// Longest body of a request in bytes; 0 for any.
    pub body_bytes: u64,
    /// Time-out of a head, from its first byte on.
    pub head: Duration,
    /// Time-out of a connection between two requests.
    pub idle: Duration,
    /// Time-out of a client for taking any part of an answer.
    pub write: Duration,
    /// Time-out between two parts of a body, a request's or an answer's.
    pub body_idle: Duration,
    /// Time after which the body of a request over HTTP/1.1 must have come at `body_pace`.
    pub body_grace: Duration,
    /// Least number of bytes a second of such a body, on average since its beginning.
    pub body_pace: u32,
    /// Time-out of a connection to a server, its name looked up and TLS agreed on.
    pub connect: Duration,
    /// Time-out of the head of an answer, from the whole head of the request on.
    pub first_byte: Duration,
    /// Time-out of a whole answer; zero for none.
    pub answer: Duration,
    /// Largest number of idle connections to each server, on each thread.
    pub kept: usize,
    /// Time for which they are kept: less than servers usually do, so that the server seldom ends
    /// them first.
    pub kept_for: Duration,
    /// Time for requests to end when the data plane is stopped.
    pub grace: Duration,
    /// Time for which a stopping data plane waits for a request on an idle connection: a client
    /// that was just answered may have its next one on the way.
    pub drain: Duration,
}

impl DataPlaneLimits {
    pub(super) const fn timeouts(&self) -> ClientTimeouts {
        let Self { head, idle, write, drain, .. } = *self;
        // A client that has gone is worth no server's work.
        ClientTimeouts { head, idle, write, drain, half_close: false }
    }
}

impl Default for DataPlaneLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_of_one: 3072,
            requests_of_version: 1024,
            held_body_bytes: 1024 * 1024,
            body_bytes: 0,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(60),
            body_idle: Duration::from_secs(60),
            body_grace: Duration::from_secs(20),
            body_pace: 500,
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(60),
            answer: Duration::ZERO,
            kept: 256,
            kept_for: Duration::from_secs(4),
            grace: Duration::from_secs(30),
            drain: Duration::from_secs(2),
        }
    }
}
