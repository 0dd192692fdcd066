//! Limits of a data plane's clients and upstreams.

use std::time::Duration;

/// Largest number of connections at a time; above this new ones are answered with 503 and closed.
const CONNECTIONS_MAX: usize = 1024;

/// Largest number of these from one address; all traffic of a fleet may come through one balancer.
const CONNECTIONS_OF_ONE_MAX: usize = 512;

/// Longest body of a request in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Largest sum of the lengths, in bytes, of all bodies that are longer than 64 KiB; a body without
/// room gets 503.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest body of an upstream's answer in bytes; it is passed on only when it is whole.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Time-out of a head from its first byte on, and of a body from the end of its head on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which a body may come as slowly as it likes; then its bytes must have come at
/// [`BODY_BYTES_PER_SECOND`], or it gets 408.
const BODY_GRACE: Duration = Duration::from_secs(2);

/// Least pace of a body, on average since its beginning and the grace.
pub(super) const BODY_BYTES_PER_SECOND: u32 = 16 * 1024;

/// Time-out of an idle connection between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Time-out of a client for reading an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time-out of a call to an upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time-out of an upstream's whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest number of idle connections to one upstream that are kept.
const KEPT_MAX: usize = 512;

/// Time for which they are kept: less than servers usually do, so that the upstream seldom ends
/// them first.
const KEPT_FOR: Duration = Duration::from_secs(4);

/// Limits of a data plane.
#[derive(Clone, Copy, Debug)]
pub struct DataPlaneLimits {
    /// Largest number of connections at a time.
    pub connections: usize,
    /// Largest number of these from one address.
    pub connections_of_one: usize,
    /// Longest body of a request, in bytes.
    pub body_bytes: usize,
    /// Largest sum of all long bodies at once, in bytes.
    pub bodies_bytes: usize,
    /// Longest body of an answer, in bytes.
    pub answer_bytes: usize,
    /// Time-out of a head, and again of its body.
    pub request: Duration,
    /// Time for which a body may come slowly.
    pub body_grace: Duration,
    /// Time-out between two requests.
    pub idle: Duration,
    /// Time-out of a client for taking an answer.
    pub write: Duration,
    /// Time-out of a call to an upstream.
    pub connect: Duration,
    /// Time-out of an upstream's answer.
    pub answer: Duration,
    /// Largest number of idle connections to each upstream.
    pub kept: usize,
    /// Time for which idle connections are kept.
    pub kept_for: Duration,
}

impl Default for DataPlaneLimits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            connections_of_one: CONNECTIONS_OF_ONE_MAX,
            body_bytes: BODY_BYTES_MAX,
            bodies_bytes: BODIES_BYTES_MAX,
            answer_bytes: ANSWER_BYTES_MAX,
            request: REQUEST_TIMEOUT,
            body_grace: BODY_GRACE,
            idle: IDLE_TIMEOUT,
            write: WRITE_TIMEOUT,
            connect: CONNECT_TIMEOUT,
            answer: ANSWER_TIMEOUT,
            kept: KEPT_MAX,
            kept_for: KEPT_FOR,
        }
    }
}
