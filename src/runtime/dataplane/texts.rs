//! Words of the data plane: content types, and the names of faults.

use crate::proto::http::Fault;

pub(super) const JSON: &str = "application/json";
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name of a fault for programs.
pub(super) const fn code(fault: Fault) -> &'static str {
    match fault {
        Fault::Malformed => "malformed",
        Fault::TooSlow => "too_slow",
        Fault::NoLength => "no_length",
        Fault::BodyTooLong => "body_too_long",
        Fault::TargetTooLong => "target_too_long",
        Fault::Expectation => "unknown_expectation",
        Fault::HeadTooLong => "head_too_long",
        Fault::NotImplemented => "not_implemented",
        Fault::Version => "unknown_version",
    }
}
