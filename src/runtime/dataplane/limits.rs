//! What a client or an upstream may take of a node.

use std::time::Duration;

/// Connections at a time; above this new ones are answered with 503 and closed.
const CONNECTIONS_MAX: usize = 1024;

/// Of these, those that one address may have; all traffic of a fleet may come through one balancer.
const CONNECTIONS_OF_ONE_MAX: usize = 512;

/// The longest body of a request in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of all bodies at once that are longer than 64 KiB; without room for one it gets 503.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The longest body of an upstream's answer in bytes; it is passed on only when it is whole.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a head may take from its first byte on, and a body from the end of its head on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may say nothing between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a client may take to read an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call to an upstream may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an upstream may take to answer, the whole of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to one upstream that are kept while nobody needs them.
const KEPT_MAX: usize = 512;

/// How long they are kept: less than servers usually do, so that the upstream seldom is the one to
/// end them.
const KEPT_FOR: Duration = Duration::from_secs(4);

/// Limits of a data plane.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Of these, those of one address.
    pub connections_of_one: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of all long bodies at once.
    pub bodies_bytes: usize,
    /// Bytes of an answer's body.
    pub answer_bytes: usize,
    /// For a head, and again for its body.
    pub request: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For a client to take an answer.
    pub write: Duration,
    /// For a call to an upstream.
    pub connect: Duration,
    /// For an upstream to answer.
    pub answer: Duration,
    /// Idle connections to each upstream.
    pub kept: usize,
    /// How long those are kept.
    pub kept_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            connections_of_one: CONNECTIONS_OF_ONE_MAX,
            body_bytes: BODY_BYTES_MAX,
            bodies_bytes: BODIES_BYTES_MAX,
            answer_bytes: ANSWER_BYTES_MAX,
            request: REQUEST_TIMEOUT,
            idle: IDLE_TIMEOUT,
            write: WRITE_TIMEOUT,
            connect: CONNECT_TIMEOUT,
            answer: ANSWER_TIMEOUT,
            kept: KEPT_MAX,
            kept_for: KEPT_FOR,
        }
    }
}
