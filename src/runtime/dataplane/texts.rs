//! Words of the data plane: content types, and the names of faults.

use crate::proto::http::RequestFault;

pub(super) const JSON: &str = "application/json";
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name of a fault for programs.
pub(super) const fn code(fault: RequestFault) -> &'static str {
    match fault {
        RequestFault::Malformed => "malformed",
        RequestFault::TooSlow => "too_slow",
        RequestFault::NoLength => "no_length",
        RequestFault::BodyTooLong => "body_too_long",
        RequestFault::TargetTooLong => "target_too_long",
        RequestFault::Expectation => "unknown_expectation",
        RequestFault::HeadTooLong => "head_too_long",
        RequestFault::NotImplemented => "not_implemented",
        RequestFault::Version => "unknown_version",
    }
}
